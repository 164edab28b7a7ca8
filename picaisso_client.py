"""A client of Picaisso in one file, which needs nothing but Python 3.11 or later.

Copy it to where you need it. In Python:

>>> from picaisso_client import Picaisso
>>> picaisso = Picaisso("http://127.0.0.1:8000")                        # doctest: +SKIP
>>> request = picaisso.submit(["corgi", "shiba inu"], "a@example.org")
>>> request["status"]
'unconfirmed'
>>> picaisso.show(request["id"])["classes"][1]["name"]
'shiba inu'

Whoever knows the id of a request may read and change it. The address is confirmed by the link in a
mail; then work starts, and `wait` returns when it has ended:

>>> picaisso.cancel(request["id"])["status"]
'cancelled'
>>> picaisso.wait(request["id"])["status"]
'cancelled'
>>> picaisso.submit(["corgi"], "nobody")
Traceback (most recent call last):
    ...
picaisso_client.PicaissoError: classes.1.name: Name a second class: a classifier decides between...

From the command line:

    python -m picaisso_client submit corgi "shiba inu" --email a@example.org --wait --out corgis

The site is `--site`, else `PICAISSO_SITE`, else http://127.0.0.1:8000.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import mimetypes
import os
import re
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, TextIO

DEFAULT_SITE = "http://127.0.0.1:8000"
WAIT_SECONDS = 30  # of one long poll
TIMEOUT_SECONDS = 90
ATTEMPTS = 5  # of a call that got no answer, or was told to come again
LONGEST_PAUSE = 90  # seconds; the limits of the API are by the minute
CHUNK_BYTES = 256 * 1024
CLOSED = ("delivered", "needs_attention", "failed", "cancelled", "expired")
ID_LIKE_A_FLAG = re.compile(r"-[\w-]{31}", re.ASCII)  # one of 64 begins with a hyphen
BOTH_ZIPS = ("dataset", "model")
HELPED = ("needs_attention", "failed")  # ended, and something is to be done

Json = dict[str, Any]
Listener = Callable[[Json], None]


class PicaissoError(Exception):
    """What the site refused, or that it could not be reached."""

    def __init__(
        self, message: str, code: str = "", status: int = 0, fields: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.fields = fields or {}


class Picaisso:
    """A site. Every method raises PicaissoError with a sentence for people."""

    def __init__(self, site: str = DEFAULT_SITE) -> None:
        if not site.startswith(("http://", "https://")):
            raise PicaissoError(
                f"{site} is no address of a site: one begins with http:// or https://."
            )
        self.site = site.rstrip("/")

    def submit(self, classes: Sequence[str | Json], email: str, **wishes: Any) -> Json:
        """Ask for a dataset and a classifier; return the request, whose `id` opens it.

        :param classes: 2 to 10 names, or `{"name": …, "query": …}` with search words of its own
        :param wishes: images_per_class, license, backbone, sources, locale, kind
        """
        body = {"classes": list(classes), "email": email, **wishes}
        return self._call("POST", "/requests", body)

    def submit_own(
        self,
        email: str,
        pictures: Path | None = None,
        addresses: Path | None = None,
        classes: Sequence[str | Json] = (),
        **wishes: Any,
    ) -> Json:
        """Ask with pictures of your own: a zip with a folder per class, a CSV with url and label.

        :param classes: left out, folders and labels name them
        :param wishes: as `submit` takes them, own_as_test (they are the test set), own_alone
            (nothing is searched)
        """
        body = {"classes": list(classes), "email": email, **wishes}
        parts: dict[str, bytes | Path] = {"request": json.dumps(body).encode()}
        for name, file in (("pictures", pictures), ("addresses", addresses)):
            if file is not None:
                parts[name] = file
        content_type, form = _form_of(parts)
        return self._call("POST", "/requests/with-pictures", form, content_type=content_type)

    def show(self, request_id: str, wait: int = 0) -> Json:
        """Return a request; with `wait` when something changes, at most so many seconds later."""
        query = f"?wait={wait}" if wait else ""
        return self._call("GET", f"{_path(request_id)}{query}")

    def wait(self, request_id: str, listener: Listener | None = None) -> Json:
        """Return the request when its work has ended; tell each change before."""
        shown = self.show(request_id)
        while True:
            if listener is not None:
                listener(shown)
            if shown["status"] in CLOSED:
                return shown
            shown = self.show(request_id, WAIT_SECONDS)

    def cancel(self, request_id: str) -> Json:
        """Stop all work."""
        return self._call("POST", f"{_path(request_id)}/cancel")

    def finish(self, request_id: str) -> Json:
        """Stop, and keep the best so far."""
        return self._call("POST", f"{_path(request_id)}/finish")

    def retry(self, request_id: str, **wishes: Any) -> Json:
        """Go on after a stop, with other `classes`, `sources`, `images_per_class` and so on."""
        return self._call("POST", f"{_path(request_id)}/retry", wishes)

    def retrain(self, request_id: str) -> Json:
        """Train again on the corrected pictures."""
        return self._call("POST", f"{_path(request_id)}/retrain")

    def delete(self, request_id: str) -> None:
        """Delete everything of a request."""
        self._call("DELETE", _path(request_id))

    def versions(self, request_id: str) -> Json:
        """Return all versions that have a model, with before and after."""
        return self._call("GET", f"{_path(request_id)}/versions")

    def images(self, request_id: str, **filters: str) -> Iterator[Json]:
        """Yield the pictures of a request, one after the other.

        :param filters: class and state (kept, removed, rejected)
        """
        page = 1
        pages = 1
        while page <= pages:
            query = urllib.parse.urlencode({**filters, "page": str(page)})
            found = self._call("GET", f"{_path(request_id)}/images?{query}")
            yield from found["items"]
            pages = found["pages"]
            page += 1

    def correct(
        self, request_id: str, image_id: int, state: str | None = None, label: str | None = None
    ) -> Json:
        """Remove a picture (`state="removed"`), take it back (`"kept"`), or give another class."""
        wishes = {"state": state, "class": label}
        body = {name: value for name, value in wishes.items() if value is not None}
        return self._call("PATCH", f"{_path(request_id)}/images/{image_id}", body)

    def thumbnail(self, image: Json) -> bytes:
        """Return one of a request's pictures, small, as JPEG."""
        if not image["thumbnail"]:
            raise PicaissoError("This picture was left out, and is not kept.", "not_found")
        with closing(self._open("GET", image["thumbnail"], None, {})) as answer:
            return self._content(answer)

    def predict(self, request_id: str, picture: str | Path, version: int | None = None) -> Json:
        """Classify a picture, by its web address or a file."""
        query = "" if version is None else f"?version={version}"
        path = f"{_path(request_id)}/predict{query}"
        text = str(picture)
        if text.startswith(("http://", "https://")):
            return self._call("POST", path, {"url": text})
        content_type, body = _form_of({"image": Path(picture)})
        return self._call("POST", path, body, content_type=content_type)

    def share(self, request_id: str) -> str:
        """Make the link for others, which can change nothing, and return it."""
        return self._call("POST", f"{_path(request_id)}/share")["url"]

    def download(
        self, artifact: Json, folder: Path, listener: Callable[[int], None] | None = None
    ) -> Path:
        """Download one of a request's `artifacts`; return its file, named after the classes.

        What an interrupted download has left is gone on from. The file gets its name when its
        sha256 is right.
        """
        folder.mkdir(parents=True, exist_ok=True)
        name = self._file_name(artifact)
        target = folder / name
        part = folder / f"{name}.part"
        if target.exists() and _sha256(target) == artifact["sha256"]:
            return target
        for _ in range(ATTEMPTS):
            self._fetch(artifact, part, listener)
            if part.stat().st_size >= artifact["bytes"]:
                break
        if _sha256(part) != artifact["sha256"]:
            part.unlink()
            raise PicaissoError(f"{name} is damaged. Download it again.", "damaged")
        part.replace(target)
        return target

    def _address_of(self, artifact: Json) -> str:
        """Return where a file is: on the site that was asked, whatever it calls itself."""
        return urllib.parse.urljoin(self.site, urllib.parse.urlsplit(artifact["url"]).path) + (
            f"?version={artifact['version']}"
        )

    def _file_name(self, artifact: Json) -> str:
        """Return what the site calls the file, without any folder."""
        with closing(self._open("HEAD", self._address_of(artifact), None, {})) as answer:
            name = answer.headers.get_filename() or ""
        return Path(name.replace("\\", "/")).name or f"{artifact['kind']}-{artifact['version']}"

    def _fetch(self, artifact: Json, part: Path, listener: Callable[[int], None] | None) -> None:
        done = part.stat().st_size if part.exists() else 0
        if done >= artifact["bytes"]:
            return
        headers = {"Range": f"bytes={done}-", "If-Range": f'"{artifact["sha256"]}"'}
        with closing(self._open("GET", self._address_of(artifact), None, headers)) as answer:
            mode = "ab" if answer.status == 206 else "wb"
            with part.open(mode) as file:
                try:
                    while chunk := answer.read(CHUNK_BYTES):
                        file.write(chunk)
                        if listener is not None:
                            listener(file.tell())
                except (OSError, HTTPException):
                    return  # the next attempt goes on from here

    def _call(
        self,
        method: str,
        path: str,
        body: Json | bytes | None = None,
        *,
        content_type: str = "application/json",
    ) -> Any:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"Accept": "application/json"}
        if data is not None:
            headers["Content-Type"] = content_type
        if method == "POST":
            headers["Idempotency-Key"] = str(uuid.uuid4())  # an attempt whose answer was lost
        with closing(self._open(method, f"{self.site}/api/v1{path}", data, headers)) as answer:
            content = self._content(answer)
        return json.loads(content) if content else None

    def _content(self, answer: HTTPResponse) -> bytes:
        try:
            return answer.read()
        except (OSError, HTTPException) as error:
            sentence = f"The answer of {self.site} broke off. Try again."
            raise PicaissoError(sentence, "unreachable") from error

    def _open(
        self, method: str, url: str, data: bytes | None, headers: dict[str, str]
    ) -> HTTPResponse:
        """Return the answer; try again where there was none, or where the site says when."""
        for attempt in range(1, ATTEMPTS + 1):
            call = urllib.request.Request(url, data, headers, method=method)
            try:
                return urllib.request.urlopen(call, timeout=TIMEOUT_SECONDS)
            except urllib.error.HTTPError as error:
                with error:
                    refused = _refused(error)
                pause = _pause(error, attempt)
                if pause is None or attempt == ATTEMPTS:
                    raise refused from error
            except (OSError, HTTPException) as error:
                if attempt == ATTEMPTS:
                    sentence = f"{self.site} could not be reached. Check the address."
                    raise PicaissoError(sentence, "unreachable") from error
                pause = attempt
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")


def _path(request_id: str) -> str:
    """Return the path of a request; its link is understood as well."""
    token = request_id.rstrip("/").rpartition("/")[2]
    return f"/requests/{urllib.parse.quote(token, safe='')}"


def _refused(error: urllib.error.HTTPError) -> PicaissoError:
    try:
        told = json.loads(error.read())["error"]
        return PicaissoError(told["message"], told["code"], error.code, told["fields"])
    except (ValueError, KeyError, TypeError):
        return PicaissoError(f"The site answered {error.code}.", "", error.code)


def _pause(error: urllib.error.HTTPError, attempt: int) -> float | None:
    """Return the seconds to wait before the same call again; None where it would not help.

    Whoever is told to come much later hears the reason at once instead.
    """
    if error.code not in (429, 502, 503):
        return None
    told = error.headers.get("Retry-After", "")
    seconds = int(told) if told.isascii() and told.isdigit() else 2**attempt
    return seconds if seconds <= LONGEST_PAUSE else None


def _form_of(parts: dict[str, bytes | Path]) -> tuple[str, bytes]:
    """Return content type and body of a form with these parts, some of which are files."""
    boundary = uuid.uuid4().hex
    body: list[bytes] = []
    for name, part in parts.items():
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"'
        if isinstance(part, bytes):
            content = part
        else:
            try:
                content = part.read_bytes()
            except OSError as error:
                raise PicaissoError(f"{part} cannot be read: {error.strerror}.") from error
            kind = mimetypes.guess_type(part.name)[0] or "application/octet-stream"
            head += f'; filename="{urllib.parse.quote(part.name)}"\r\nContent-Type: {kind}'
        body += [f"{head}\r\n\r\n".encode(), content, b"\r\n"]
    body.append(f"--{boundary}--\r\n".encode())
    return f"multipart/form-data; boundary={boundary}", b"".join(body)


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


# --- command line ---

EXAMPLES = """examples:
  python -m picaisso_client submit corgi "shiba inu" --email a@example.org --wait --out corgis
  python -m picaisso_client submit --own pictures.zip --own-as-test --email a@example.org
  python -m picaisso_client wait ID --out corgis
  python -m picaisso_client predict ID picture.jpg https://example.org/picture.jpg
  python -m picaisso_client push --to hub ORG/NAME --dataset picaisso-corgi-shiba-inu-dataset.zip

exit codes: 0 done, 1 refused or failed with one sentence, 2 wrong usage
"""
EXAMPLE_OF = {
    "submit": 'corgi "shiba inu" --email a@example.org --wait --out corgis',
    "wait": "ID --out corgis",
    "download": "ID --out corgis",
    "predict": "ID picture.jpg https://example.org/picture.jpg",
    "push": "--to hub ORG/NAME --dataset picaisso-corgi-shiba-inu-dataset.zip",
}


class Terminal:
    """Results go to stdout, everything else to stderr."""

    def __init__(self, *, as_json: bool, quiet: bool, errors: TextIO) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.errors = errors
        self.said = ""
        self.is_open = False

    def result(self, document: Any, text: str) -> None:
        """Print what was asked for, as a line of JSON or in words."""
        self.close()
        print(json.dumps(document, ensure_ascii=False) if self.as_json else text, flush=True)

    def progress(self, text: str) -> None:
        """Show how far it is: over the line before in a terminal, else each in a line."""
        if self.quiet or text == self.said:
            return
        self.said = text
        if self.errors.isatty():
            self.errors.write(f"\r\x1b[2K{text}")
            self.is_open = True
        else:
            self.errors.write(f"{text}\n")
        self.errors.flush()

    def close(self) -> None:
        """End an open line."""
        if self.is_open:
            self.errors.write("\n")
            self.is_open = False

    def tell_request(self, shown: Json) -> None:
        """Show a request's state in a line."""
        progress = shown["progress"]
        words = [shown["stage"] or shown["status"]]
        if progress["total"]:
            share = progress["done"] / progress["total"]
            words.append(f"{_bar(share)} {progress['done']} of {progress['total']}")
        if progress["eta_seconds"]:
            words.append(f"about {progress['eta_seconds']:.0f} s left")
        self.progress("  ".join(words))


def _bar(share: float, width: int = 20) -> str:
    full = round(width * min(1.0, share))
    return "█" * full + "░" * (width - full)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    # Behind a slash an id is no flag, and understood as the end of a link.
    words = [f"/{word}" if ID_LIKE_A_FLAG.fullmatch(word) else word for word in given]
    options = _parser().parse_args(words)
    terminal = Terminal(as_json=options.json, quiet=options.quiet, errors=sys.stderr)
    try:
        return options.command(Picaisso(options.site), terminal, options)
    except PicaissoError as error:
        terminal.close()
        for sentence in dict.fromkeys(error.fields.values() or [str(error)]):
            print(f"picaisso: {sentence}", file=sys.stderr)
        return 1
    except OSError as error:
        terminal.close()
        print(f"picaisso: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        terminal.close()
        print("picaisso: stopped; nothing that was ordered is lost.", file=sys.stderr)
        return 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    site = os.environ.get("PICAISSO_SITE", DEFAULT_SITE)
    common.add_argument("--site", default=site, help=f"address (PICAISSO_SITE; {DEFAULT_SITE})")
    common.add_argument("--json", action="store_true", help="print JSON")
    common.add_argument("--quiet", action="store_true", help="print results and errors alone")
    parser = argparse.ArgumentParser(
        prog="python -m picaisso_client",
        description="Order classifiers from a Picaisso site, and use them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, act: Callable[..., int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            parents=[common],
            help=text,
            description=text,
            epilog=f"example:\n  python -m picaisso_client {name} {EXAMPLE_OF.get(name, 'ID')}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(command=act)
        return added

    submit = command("submit", _submit, "Ask for a dataset and a classifier.")
    submit.add_argument("classes", nargs="*", metavar="NAME", help="2 to 10 names")
    submit.add_argument("--email", required=True, help="where the result is sent")
    submit.add_argument("--images-per-class", type=int, metavar="N", help="20 to 500 (100)")
    submit.add_argument("--license", choices=("any", "open"), help="of the pictures (any)")
    submit.add_argument("--backbone", help="network to start from")
    submit.add_argument("--source", action="append", dest="sources", help="may be repeated")
    submit.add_argument("--kind", help="what kind of things these are, as animal")
    submit.add_argument("--own", type=Path, metavar="ZIP", help="your pictures, a folder per class")
    submit.add_argument("--urls", type=Path, metavar="CSV", help="addresses: url, label")
    submit.add_argument("--own-as-test", action="store_true", help="test on these alone")
    submit.add_argument("--own-alone", action="store_true", help="search nothing besides")
    submit.add_argument("--wait", action="store_true", help="wait until the work has ended")
    submit.add_argument("--out", type=Path, metavar="DIR", help="with --wait: download into it")
    submit.set_defaults(refuse=submit.error)
    wait = _with_id(command("wait", _wait, "Wait until the work of a request has ended."))
    wait.add_argument("--out", type=Path, metavar="DIR", help="download into it")
    _with_id(command("status", _status, "Say how far a request is."))
    download = _with_id(command("download", _download, "Download dataset and model."))
    download.add_argument("--out", type=Path, metavar="DIR", default=Path(), help="(here)")
    download.add_argument(
        "--kind", action="append", dest="kinds", metavar="KIND", help="as pth; may be repeated"
    )
    predict = _with_id(command("predict", _predict, "Classify pictures."))
    predict.add_argument("pictures", nargs="+", metavar="PICTURE", help="files or web addresses")
    predict.add_argument("--version", type=int, metavar="N", help="of the model (the newest)")
    push = command("push", _push, "Publish a dataset of openly licensed pictures.")
    push.add_argument("name", metavar="ORG/NAME", help="what the dataset is to be called there")
    push.add_argument("--to", required=True, choices=("hub",), help="Hugging Face's hub")
    push.add_argument(
        "--dataset",
        metavar="WHAT",
        help="a dataset.zip, its folder, or the id of a request (the only such zip that is here)",
    )
    push.add_argument("--public", action="store_true", help="for everybody (a new one is private)")
    for name, text in (
        ("cancel", "Stop all work."),
        ("finish", "Stop and keep the best so far."),
        ("retrain", "Train again on the corrected pictures."),
        ("delete", "Delete everything of a request."),
    ):
        _with_id(command(name, _act, text)).set_defaults(act=name)
    return parser


def _with_id(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("id", metavar="ID", help="of the request, or its link")
    return parser


def _submit(picaisso: Picaisso, terminal: Terminal, options: argparse.Namespace) -> int:
    names = ("images_per_class", "license", "backbone", "sources", "kind")
    wishes = {}
    for name in names:
        value = getattr(options, name)
        if value is not None:
            wishes[name] = value
    brings_nothing = options.own is None and options.urls is None
    for flag in ("own_as_test", "own_alone"):
        if brings_nothing and getattr(options, flag):
            options.refuse(f"--{flag.replace('_', '-')} needs --own ZIP or --urls CSV")
    if brings_nothing:
        shown = picaisso.submit(options.classes, options.email, **wishes)
    else:
        wishes |= {"own_as_test": options.own_as_test, "own_alone": options.own_alone}
        files = (options.own, options.urls)
        shown = picaisso.submit_own(options.email, *files, options.classes, **wishes)
    if not options.wait:
        terminal.result(shown, f"{shown['url']}\n{_next_step(shown)}")
        return 0
    terminal.progress(f"{shown['url']}  {_next_step(shown)}")
    options.id = shown["id"]
    return _wait(picaisso, terminal, options)


def _state(shown: Json) -> str:
    """Return the state of a request in words."""
    words = {"unconfirmed": "waiting for the link in the mail to be opened", "queued": "waiting"}
    words |= {"running": "being worked on", "needs_attention": "waiting for your decision"}
    return words.get(shown["status"], str(shown["status"]))


def _next_step(shown: Json) -> str:
    if shown["status"] == "unconfirmed":
        return "Open the link in the mail to start."
    return f"It is {_state(shown)}."


def _wait(picaisso: Picaisso, terminal: Terminal, options: argparse.Namespace) -> int:
    shown = picaisso.wait(options.id, terminal.tell_request)
    if options.out is not None and shown["artifacts"]:
        _download_all(picaisso, terminal, shown, options.out)
    terminal.result(shown, _in_words(shown))
    return 1 if shown["status"] in HELPED else 0


def _status(picaisso: Picaisso, terminal: Terminal, options: argparse.Namespace) -> int:
    shown = picaisso.show(options.id)
    terminal.result(shown, _in_words(shown))
    return 0


def _in_words(shown: Json) -> str:
    names = ", ".join(label["name"] for label in shown["classes"])
    lines = [f"{names}: {_state(shown)}"]
    for version in shown["versions"][:1]:
        low, high = (100 * bound for bound in version["interval"])
        figure = f"{100 * version['accuracy']:.1f} % right ({low:.1f} to {high:.1f} %)"
        lines.append(f"version {version['number']}: {figure}, {version['images']} pictures")
    if shown["error"]:
        lines.append(f"{shown['error']['reason']} {shown['error']['remedy']}".strip())
    lines.append(shown["url"])
    return "\n".join(lines)


def _download(picaisso: Picaisso, terminal: Terminal, options: argparse.Namespace) -> int:
    shown = picaisso.show(options.id)
    if not shown["artifacts"]:
        raise PicaissoError(f"There is nothing to download yet: {_state(shown)}.")
    kinds = options.kinds or BOTH_ZIPS
    files = _download_all(picaisso, terminal, shown, options.out, kinds)
    terminal.result([str(file) for file in files], "\n".join(map(str, files)))
    return 0


def _download_all(
    picaisso: Picaisso,
    terminal: Terminal,
    shown: Json,
    folder: Path,
    kinds: Sequence[str] = BOTH_ZIPS,
) -> list[Path]:
    """Download the files of these kinds of the newest version."""
    newest = max(artifact["version"] for artifact in shown["artifacts"])
    there = [artifact for artifact in shown["artifacts"] if artifact["version"] == newest]
    known = [artifact["kind"] for artifact in there]
    missing = [kind for kind in kinds if kind not in known]
    if missing:
        raise PicaissoError(f"There is no “{missing[0]}” to download, only {', '.join(known)}.")
    files = []
    for artifact in there:
        if artifact["kind"] not in kinds:
            continue
        whole = artifact["bytes"]

        def tell(done: int, name: str = artifact["kind"], whole: int = whole) -> None:
            terminal.progress(f"{name}  {_bar(done / whole)} {done:,} of {whole:,} bytes")

        files.append(picaisso.download(artifact, folder, tell))
    return files


def _predict(picaisso: Picaisso, terminal: Terminal, options: argparse.Namespace) -> int:
    failed = 0
    for picture in options.pictures:
        try:
            said = picaisso.predict(options.id, picture, options.version)
        except PicaissoError as error:
            if error.status != 400 and error.status != 0:
                raise
            failed += 1
            terminal.close()
            print(f"picaisso: {picture}: {error}", file=sys.stderr)
            continue
        share = 100 * said["probabilities"][said["label"]]
        label = said["label"] if said["known"] else f"none of these (closest: {said['label']})"
        terminal.result({"picture": picture, **said}, f"{picture}: {label}, {share:.1f} %")
    return 1 if failed else 0


# --- publishing ---

OPEN_LICENSES = ("cc0", "pdm", "cc-by", "cc-by-sa")  # as images.csv has them
NEEDED_COLUMNS = ("file_name", "license", "license_basis")
SPLITS = ("train", "val", "test")
# All that is published of a folder; whatever else lies in it is nobody's affair.
PUBLISHED = [
    "classes.json",
    "images.csv",
    "rejected.csv",
    "ATTRIBUTION.md",
    "CITATION.cff",
    "README.md",
    "derived_dataset.csv",
    "gbif.csv",
    "recipe.json",
    "SHA256SUMS",
    *(f"{split}/*.jpg" for split in SPLITS),  # those of images.csv alone, as was checked
]


def _push(picaisso: Picaisso, terminal: Terminal, options: argparse.Namespace) -> int:
    """Upload a dataset to the hub, if every picture of it may be published."""
    with tempfile.TemporaryDirectory(prefix="picaisso-push-") as scratch:
        found = _dataset(picaisso, terminal, options.dataset)
        folder = _unpacked(found, Path(scratch)) if found.is_file() else found
        count = _check_licenses(folder)
        terminal.progress(f"{count} pictures, all with an open licence")
        url = _upload(folder, options.name, options.public, terminal)
    terminal.result({"url": url, "pictures": count}, url)
    return 0


def _dataset(picaisso: Picaisso, terminal: Terminal, what: str | None) -> Path:
    """Return the zip or folder that is meant; download that of a request."""
    if what is None:
        here = sorted(Path().glob("*dataset*.zip"))
        if len(here) != 1:
            sentence = f"There are {len(here)} dataset zips here. Name one with --dataset."
            raise PicaissoError(sentence)
        return here[0]
    if Path(what).exists():
        return Path(what)
    if what.endswith(".zip"):
        raise PicaissoError(f"{what} is not there. Check the path.")
    shown = picaisso.show(what)
    if not shown["artifacts"]:
        raise PicaissoError(f"There is no dataset yet: {_state(shown)}.")
    (file,) = _download_all(picaisso, terminal, shown, Path(), ("dataset",))
    return file


def _unpacked(file: Path, scratch: Path) -> Path:
    """Return the folder that a dataset.zip unpacks to."""
    try:
        with zipfile.ZipFile(file) as archive:
            archive.extractall(scratch)
    except zipfile.BadZipFile as error:
        raise PicaissoError(f"{file} is no zip, or damaged. Download it again.") from error
    tables = sorted(scratch.glob("images.csv")) + sorted(scratch.glob("*/images.csv"))
    return tables[0].parent if tables else scratch


def _check_licenses(folder: Path) -> int:
    """Return how many pictures a dataset has; refuse one with pictures that are not open."""
    table = folder / "images.csv"
    if not table.is_file():
        raise PicaissoError(f"{folder.name} is no dataset of Picaisso: it has no images.csv.")
    rows = _rows_of(table)
    others: dict[str, int] = {}
    for row in rows:
        is_open = row["license"] in OPEN_LICENSES and row["license_basis"] == "per-item"
        if not is_open:
            name = row["license"] or "unknown"
            others[name] = others.get(name, 0) + 1
    if others:
        named = ", ".join(f"{count} {name}" for name, count in sorted(others.items()))
        raise PicaissoError(
            f"{sum(others.values())} of {len(rows)} pictures have no open licence that their"
            f" source states ({named}), so nothing is published. Ask for a dataset with"
            " --license open, or remove them and train again."
        )
    listed = {row["file_name"] for row in rows}
    there = set()
    for split in SPLITS:
        there |= {file.relative_to(folder).as_posix() for file in folder.glob(f"{split}/**/*.jpg")}
    if listed != there:
        raise PicaissoError("The pictures are not those of images.csv. Download the zip again.")
    return len(rows)


def _rows_of(table: Path) -> list[dict[str, str]]:
    """Return the rows of images.csv, if it has the columns that tell what may be published."""
    try:
        with table.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (ValueError, csv.Error) as error:
        raise PicaissoError("images.csv cannot be read. Download the zip again.") from error
    missing = [name for name in NEEDED_COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        sentence = f"images.csv has no column {missing[0]}, so nothing is published."
        raise PicaissoError(f"{sentence} Download the zip again.")
    return rows


def _upload(folder: Path, name: str, public: bool, terminal: Terminal) -> str:
    """Upload a dataset's files; what an interrupted upload has stored is not sent again."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import huggingface_hub
        from huggingface_hub.utils import disable_progress_bars
    except ImportError as error:
        sentence = "This needs the package huggingface_hub: python -m pip install huggingface_hub"
        raise PicaissoError(sentence) from error
    terminal.close()
    if terminal.quiet or not terminal.errors.isatty():
        disable_progress_bars()
    hub = huggingface_hub.HfApi()
    try:
        made = hub.create_repo(name, repo_type="dataset", private=not public, exist_ok=True)
        hub.upload_folder(
            repo_id=name,
            repo_type="dataset",
            folder_path=folder,
            commit_message="Add the dataset",
            allow_patterns=PUBLISHED,
            delete_patterns=[f"{split}/*" for split in SPLITS],  # pictures of an earlier version
        )
    except Exception as error:  # of the package and of what it stands on
        raise PicaissoError(_hub_s_refusal(error)) from error
    return str(made)


def _hub_s_refusal(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status in (401, 403):
            return (
                f"The hub answered {status}. Log in with “hf auth login” or set HF_TOKEN, to a"
                " token that may write there."
            )
        if status is not None:
            break
        cause = cause.__cause__
    said = str(error).strip().splitlines() or [type(error).__name__]
    return f"The upload failed: {said[0]} Run the same command again: it goes on from there."


def _act(picaisso: Picaisso, terminal: Terminal, options: argparse.Namespace) -> int:
    shown = getattr(picaisso, options.act)(options.id)
    terminal.result(shown, "Deleted." if shown is None else f"It is {_state(shown)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
