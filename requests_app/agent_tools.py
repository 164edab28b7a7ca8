"""What an agent can do on a site, as tools of the Model Context Protocol.

Each method of `AgentTools` is one tool and its docstring is what the agent reads. They call the
API, so that agents have the rules, limits and confirmation of everybody else. The package `mcp` is
optional (`requirements-agents.txt`).
"""

import functools
import mimetypes
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from picaisso_client import BOTH_ZIPS, CLOSED, Json, Picaisso, PicaissoError
from scraping.urls import is_web_address

LONGEST_WAIT = 50  # seconds; many agents give up on a tool after a minute
INSTRUCTIONS = (
    "Picaisso makes an image classifier from class names: it collects pictures from the web, cleans"
    " them, trains, and measures the result. Order with `order_classifier`. Nothing starts before a"
    " person has opened the link in the mail to the address given: tell the person so, and call"
    " `wait_for_result` until the status is delivered. The `id` of a request opens it for whoever"
    " knows it: keep it among those whom it concerns."
)
CONFIRM = (
    "Nothing has started yet: a mail with a link went to the address. Ask the person to open it and"
    " to confirm. You cannot do that for them. Then call wait_for_result."
)
NEXT_STEPS = {
    "unconfirmed": CONFIRM,
    "queued": "It waits for a worker. Call wait_for_result.",
    "running": "It is being worked on. Call wait_for_result again.",
    "delivered": "Done. classify and download work; list_suspects shows doubtful pictures.",
    "needs_attention": "The person must decide: see `error`. go_on starts it again with changes.",
    "failed": "It failed: see `error`. go_on tries again.",
    "cancelled": "It was cancelled. go_on starts it again.",
    "expired": "It is gone. Order anew.",
}
OTHER_STEP = "This site is newer than these tools and says more: open `url` to see what to do."

Id = Annotated[str, Field(description="the id of the request, or its link")]


def serve(site: str) -> None:
    """Answer an agent over standard input and output until it closes them."""
    server_for(Picaisso(site)).run()


def server_for(picaisso: Picaisso) -> MCPServer:
    """Return a server with all tools, which calls this site."""
    server = MCPServer("picaisso", instructions=INSTRUCTIONS, log_level="WARNING")
    tools = AgentTools(picaisso)
    for tool in (
        tools.order_classifier,
        tools.request_status,
        tools.wait_for_result,
        tools.list_suspects,
        tools.look_at_picture,
        tools.correct_picture,
        tools.train_again,
        tools.classify,
        tools.download,
        tools.finish_now,
        tools.cancel,
        tools.go_on,
    ):
        server.add_tool(_with_sentences(tool))
    return server


def _with_sentences(tool: Callable[..., Any]) -> Callable[..., Any]:
    """Return the tool, whose refusals reach the agent as sentences."""

    @functools.wraps(tool)
    def told(*args: Any, **options: Any) -> Any:
        try:
            return tool(*args, **options)
        except PicaissoError as error:
            raise ToolError(str(error)) from error
        except OSError as error:
            said = error.strerror or str(error) or "it did not go through"
            what = "That failed" if error.filename is None else error.filename
            raise ToolError(f"{what}: {said}.") from error

    return told


class AgentTools:
    """The tools. Refusals are raised as PicaissoError, with the sentence of the site."""

    def __init__(self, picaisso: Picaisso) -> None:
        self.picaisso = picaisso

    def order_classifier(
        self,
        classes: Annotated[list[str], Field(description="2 to 10 names of things to tell apart")],
        email: Annotated[str, Field(description="where the link to confirm and the result go")],
        images_per_class: Annotated[
            int | None, Field(description="20 to 500; 100 if left out")
        ] = None,
        license: Literal["any", "open"] | None = None,
        kind: Annotated[str | None, Field(description="what kind of things, as animal")] = None,
        backbone: str | None = None,
        sources: list[str] | None = None,
    ) -> Json:
        """Order a dataset and a classifier for these classes.

        Use the address of the person you work for, with their consent: they get a mail, and work
        starts only when they have confirmed by its link.
        """
        wished = {
            "images_per_class": images_per_class,
            "license": license,
            "kind": kind,
            "backbone": backbone,
            "sources": sources,
        }
        wishes = {name: value for name, value in wished.items() if value is not None}
        return _summary(self.picaisso.submit(classes, email, **wishes))

    def request_status(self, id: Id) -> Json:
        """Say how far a request is, what was found, how good its model is, and what to do next."""
        return _summary(self.picaisso.show(id))

    def wait_for_result(self, id: Id, seconds: int = LONGEST_WAIT) -> Json:
        """Wait until the work has ended, at most 50 seconds; call it again as long as it has not.

        Minutes are usual; the person's confirmation takes as long as it takes.
        """
        end = time.monotonic() + min(seconds, LONGEST_WAIT)
        shown = self.picaisso.show(id)
        while shown["status"] not in CLOSED:
            left = int(end - time.monotonic())
            if left < 1:
                break
            shown = self.picaisso.show(id, left)
        return _summary(shown)

    def list_suspects(
        self,
        id: Id,
        class_name: Annotated[str | None, Field(description="of one class alone")] = None,
        most: int = 20,
    ) -> Json:
        """List kept pictures that may be wrong, the most doubtful first, each with the reason.

        Look at one with look_at_picture before you change it. Correct pictures of the train and
        val split freely. Those of the test split only where they are wrong to a person's eye, not
        because the model has them wrong: that would raise its figure and make it no better.
        """
        filters = {"state": "kept"}
        if class_name is not None:
            filters["class"] = class_name
        found = [item for item in self.picaisso.images(id, **filters) if item["suspect"]]
        found.sort(key=lambda item: item["suspect"], reverse=True)
        return {"count": len(found), "pictures": found[:most]}

    def look_at_picture(
        self, id: Id, image_id: Annotated[int, Field(description="from list_suspects")]
    ) -> Image:
        """Show one picture of a request, small."""
        for item in self.picaisso.images(id, state="kept"):
            if item["id"] == image_id:
                return Image(data=self.picaisso.thumbnail(item), format="jpeg")
        raise PicaissoError("This request keeps no such picture.")

    def correct_picture(
        self,
        id: Id,
        image_id: int,
        state: Annotated[
            Literal["removed", "kept"] | None, Field(description="remove it, or take it back")
        ] = None,
        class_name: Annotated[str | None, Field(description="its right class")] = None,
    ) -> Json:
        """Remove a picture, take it back, or give it its right class.

        It counts when train_again was called, and can be undone.
        """
        return self.picaisso.correct(id, image_id, state, class_name)

    def train_again(self, id: Id) -> Json:
        """Train the next version on the corrected pictures; the versions before stay."""
        return _summary(self.picaisso.retrain(id))

    def classify(
        self,
        id: Id,
        picture: Annotated[str, Field(description="web address, or path of a picture file")],
        version: int | None = None,
    ) -> Json:
        """Classify a picture with the model of a request.

        `known` is false where it looks like none of the classes. The picture is sent to the site
        and not kept.
        """
        kind = mimetypes.guess_type(picture)[0] or ""
        if not is_web_address(picture) and not kind.startswith("image/"):
            raise PicaissoError(f"{picture} is not named as a picture, and was not sent.")
        return self.picaisso.predict(id, picture, version)

    def download(
        self, id: Id, folder: Annotated[str, Field(description="made where it is missing")]
    ) -> list[str]:
        """Download dataset and model of the newest version; return the files."""
        artifacts = self.picaisso.show(id)["artifacts"]
        if not artifacts:
            raise PicaissoError("There is nothing to download yet. Call wait_for_result.")
        newest = max(artifact["version"] for artifact in artifacts)
        files = []
        for artifact in artifacts:
            if artifact["version"] == newest and artifact["kind"] in BOTH_ZIPS:
                files.append(str(self.picaisso.download(artifact, Path(folder).expanduser())))
        return files

    def finish_now(self, id: Id) -> Json:
        """End collecting with the pictures there are, or training with the best so far."""
        return _summary(self.picaisso.finish(id))

    def cancel(self, id: Id) -> Json:
        """Stop all work on a request. Ask the person before."""
        return _summary(self.picaisso.cancel(id))

    def go_on(
        self,
        id: Id,
        accept_fewer: Annotated[bool, Field(description="train with too few pictures")] = False,
        leave_out: Annotated[list[str] | None, Field(description="classes to drop")] = None,
    ) -> Json:
        """Start a request again that stopped: failed, cancelled, or short of pictures."""
        if leave_out:
            return _summary(self.picaisso.retry(id, leave_out=leave_out))
        wishes = {"accept_fewer": True} if accept_fewer else {}
        return _summary(self.picaisso.retry(id, **wishes))


def _summary(shown: Json) -> Json:
    """Return a request with the next step in words."""
    return {**shown, "next": NEXT_STEPS.get(shown["status"], OTHER_STEP)}
