"""Photographs, one trained run that all tests of the package share, and a small web server on
loopback.
"""

from __future__ import annotations

import http.server
import mimetypes
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image

STAMPS = Path("/usr/share/tuxpaint/stamps")
PER_CLASS = 38


def on_white(path: Path) -> Image.Image:
    layer = Image.open(path).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def stamps(*folders: str) -> list[Path]:
    """Photographs below the given folders, cartoons left out."""
    if not STAMPS.is_dir():
        pytest.skip("the photographs of the package tuxpaint-stamps-default are not installed")
    found = [path for folder in folders for path in sorted((STAMPS / folder).rglob("*.png"))]
    return [
        path for path in found if "cartoon" not in str(path) and min(Image.open(path).size) >= 64
    ]


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the classes mammal and plant, 38 PNG images with transparency in each."""
    folder = tmp_path_factory.mktemp("photographs")
    for name, kind in (("mammal", "animals/mammals"), ("plant", "plants")):
        (folder / name).mkdir()
        for path in stamps(kind)[:PER_CLASS]:
            shutil.copyfile(path, folder / name / f"{path.parent.name}-{path.name}")
    return folder


@pytest.fixture(scope="session")
def imported_run(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of those images that nothing has been trained in."""
    from training.images.folder import import_folder
    from training.run_folder import RunConfig, write_config, write_manifest

    folder = tmp_path_factory.mktemp("imported")
    classes, rows, left_out = import_folder(photographs, folder)
    assert not left_out
    cache = str(tmp_path_factory.mktemp("cache") / "weights")
    config = RunConfig(
        classes=classes, backbone="efficientnet_lite0", seed=0, device="cpu", weights_cache=cache
    )
    write_config(folder, config)
    write_manifest(folder, rows)
    return folder


@pytest.fixture
def untrained_run(imported_run: Path, tmp_path: Path) -> Path:
    """A copy of that run folder to train in."""
    return Path(shutil.copytree(imported_run, tmp_path / "run"))


@pytest.fixture(scope="session")
def trained_run(imported_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder after training; not to be changed."""
    from training.run import fit
    from training.run_folder import read_config

    folder = tmp_path_factory.mktemp("trained") / "run"
    shutil.copytree(imported_run, folder)
    result = fit(folder, read_config(folder))
    assert result["ok"], result
    return folder


@dataclass
class LoopbackServer:
    """Serves `files` by path; counts what was asked for; a path that is not there is a 404."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    promise_more: int = 0
    """Bytes that Content-Length claims beyond what is sent."""


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            body = state.files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body) + state.promise_more))
            kind, _ = mimetypes.guess_type(self.path)
            self.send_header("Content-Type", kind or "application/octet-stream")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Tests need no access log."""

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = LoopbackServer(f"http://127.0.0.1:{listener.server_port}")
    thread = threading.Thread(target=listener.serve_forever, args=(0.05,))
    thread.start()
    yield state
    listener.shutdown()
    thread.join()
    listener.server_close()
