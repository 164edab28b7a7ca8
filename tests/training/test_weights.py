import hashlib
import time
from pathlib import Path

import pytest

from tests.training.conftest import LoopbackServer
from training.networks.weights import WeightSources, WeightsUnavailableError, find_weights

CONTENT = b"weights" * 1000
NAME = f"net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


def sources(tmp_path: Path, url: str, folder: Path | None = None) -> WeightSources:
    return WeightSources(folder, tmp_path / "cache", url)


def test_weights_are_downloaded_once_and_then_taken_from_the_cache(
    tmp_path: Path, server: LoopbackServer
) -> None:
    server.files[f"/models/{NAME}"] = CONTENT
    reports: list[tuple[int, int]] = []

    def report(done: int, total: int, message: str = "", /) -> None:
        reports.append((done, total))

    places = sources(tmp_path, f"{server.url}/models/")
    for _ in range(2):
        path = find_weights(NAME, places, report)
        assert path.read_bytes() == CONTENT
    assert server.asked == [f"/models/{NAME}"]
    assert reports[-1] == (len(CONTENT), len(CONTENT))
    (kept,) = (tmp_path / "cache").iterdir()
    assert kept.name == NAME


def test_the_given_folder_comes_first_and_nothing_is_downloaded(tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    (given / NAME).write_bytes(CONTENT)
    assert find_weights(NAME, sources(tmp_path, "", given)) == given / NAME


def test_a_damaged_file_in_the_cache_is_downloaded_again(
    tmp_path: Path, server: LoopbackServer
) -> None:
    server.files[f"/{NAME}"] = CONTENT
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / NAME).write_bytes(CONTENT[:-1])
    path = find_weights(NAME, sources(tmp_path, server.url))
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "promised", "reason"),
    [
        (None, 0, "the download server answered 404"),
        (b"something else", 0, "wrong hash"),
        (CONTENT[:4000], 3000, "download server|wrong hash"),
    ],
    ids=["not there", "another file", "cut short"],
)
def test_a_file_that_is_not_what_was_promised_is_not_kept(
    tmp_path: Path, server: LoopbackServer, content: bytes | None, promised: int, reason: str
) -> None:
    if content is not None:
        server.files[f"/{NAME}"] = content
    server.promise_more = promised
    with pytest.raises(WeightsUnavailableError, match=reason):
        find_weights(NAME, sources(tmp_path, server.url))
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/models", "file:///etc", ""])
def test_a_server_that_cannot_be_reached_is_reported_at_once(tmp_path: Path, url: str) -> None:
    started = time.monotonic()
    with pytest.raises(WeightsUnavailableError):
        find_weights(NAME, sources(tmp_path, url))
    assert time.monotonic() - started < 15


def test_a_cache_that_cannot_be_written_is_not_taken_for_a_dead_server(
    tmp_path: Path, server: LoopbackServer
) -> None:
    server.files[f"/{NAME}"] = CONTENT
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(FileExistsError):
        find_weights(NAME, sources(tmp_path, server.url))
