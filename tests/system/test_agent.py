"""An agent orders a classifier on a whole site, and uses it."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters, stdio_client

from requests_app.workers.processes import PROJECT
from tests.system.site import CLASSES, running_site
from tests.system.test_survival import missing

pytestmark = [
    pytest.mark.system,
    pytest.mark.browser,
    pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}"),
]


def test_an_agent_orders_a_person_confirms_and_the_agent_waits_and_predicts(tmp_path, smtpd):
    with running_site(tmp_path / "site", smtpd.port) as site:
        server = StdioServerParameters(
            command=sys.executable,
            args=["manage.py", "mcp"],  # its site is that of the settings
            env=site.environment(),
            cwd=PROJECT,
        )
        picture = f"{site.gallery_url}/pictures/plants/trees/birch.png"

        async def work() -> list[dict[str, Any]]:
            async with Client(stdio_client(server), read_timeout_seconds=90) as agent:

                async def call(tool: str, **arguments: Any) -> dict[str, Any]:
                    answer = await agent.call_tool(tool, arguments)
                    assert not answer.is_error, answer.content
                    return answer.structured_content

                wishes = {"email": "ada@example.org", "images_per_class": 20}
                order = await call("order_classifier", classes=list(CLASSES), **wishes)
                assert "Nothing has started" in order["next"]
                await asyncio.to_thread(site.confirm, smtpd)
                shown = order
                while shown["status"] in ("unconfirmed", "queued", "running"):
                    shown = await call("wait_for_result", id=order["id"])
                assert shown["status"] == "delivered", shown
                suspects = await call("list_suspects", id=order["id"])
                said = await call("classify", id=order["id"], picture=picture)
                files = await call("download", id=order["id"], folder=str(tmp_path / "out"))
                return [shown, suspects, said, files]

        shown, suspects, said, files = asyncio.run(work())
    assert shown["versions"][0]["images"] >= 30
    assert suspects["count"] == len(suspects["pictures"])
    assert said["label"] in CLASSES and said["version"] == 1
    assert sorted(Path(file).name for file in files["result"]) == [
        "picaisso-mammal-plant-dataset.zip",
        "picaisso-mammal-plant-model.zip",
    ]
