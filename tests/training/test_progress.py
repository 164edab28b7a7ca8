"""Progress, seconds of stages, and requests to stop."""

import dataclasses
import json
import os
import signal
import time
from pathlib import Path

import pytest

from training.images.split import NearDuplicates
from training.progress import Run, Stopped, StopRequest
from training.run import _freeze_split
from training.run_folder import ClassLabel, ImageRow, RunConfig

CONFIG = RunConfig(classes=(ClassLabel("c001", "corgi"), ClassLabel("c002", "fox")))


@pytest.fixture
def request_to_stop():
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    stop = StopRequest()
    stop.listen()
    yield stop
    for number, handler in kept.items():
        signal.signal(number, handler)


def terminated() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.01)


def test_a_signal_stops_at_once_and_a_second_one_disturbs_nothing(
    request_to_stop: StopRequest,
) -> None:
    with pytest.raises(Stopped):
        terminated()
    terminated()
    assert request_to_stop.asked


def test_a_signal_at_a_bad_moment_is_noted_and_takes_effect_afterwards(
    request_to_stop: StopRequest,
) -> None:
    finished = False
    with pytest.raises(Stopped), request_to_stop.deferred():
        terminated()
        finished = request_to_stop.asked
    assert finished


def test_an_error_at_a_bad_moment_is_told_and_not_replaced_by_the_stop(
    request_to_stop: StopRequest,
) -> None:
    with pytest.raises(ValueError, match="broken"), request_to_stop.deferred():
        terminated()
        raise ValueError("broken")


def rows(run: Run) -> list[dict]:
    return [json.loads(line) for line in (run.folder / "progress.jsonl").read_text().splitlines()]


def test_the_time_left_goes_by_the_pace_of_this_attempt(tmp_path: Path) -> None:
    run = Run(tmp_path, CONFIG)
    with run.during("features", "Looking"):
        run.reported = 0.0
        run.report(900, 1000)  # done by an earlier attempt, found at once
        time.sleep(0.2)
        run.reported = 0.0
        run.report(901, 1000)
        run.report(1000, 1000)
    first, second, third, last = rows(run)
    assert (
        first["eta_seconds"] is None and second["eta_seconds"] is None and last["eta_seconds"] == 0
    )
    assert third["eta_seconds"] >= 99 * 0.2, "one picture took 0.2 s, and 99 are left"


def test_other_steps_have_a_pace_of_their_own(tmp_path: Path) -> None:
    run = Run(tmp_path, CONFIG)
    with run.during("finetune", "Fine-tuning"):
        for done, total in ((1, 100), (50, 100), (500, 1000), (501, 1000)):
            run.reported = 0.0
            run.report(done, total)
            time.sleep(0.05)
    in_all = [row["total"] for row in rows(run)]
    left = [row["eta_seconds"] for row in rows(run)]
    assert in_all == [0, 100, 100, 1000, 1000]
    assert left[:2] == [None, None] and left[2] is not None and left[3] is None
    assert left[4] >= 499 * 0.05, "one step took 0.05 s, however fast those before were"


def test_a_message_that_follows_at_once_on_another_is_not_lost(tmp_path: Path) -> None:
    run = Run(tmp_path, CONFIG)
    with run.during("features", "Beginning"):
        run.report(0, 0, "Getting ready")
        run.report(0, 80, "Looking at the pictures")
        run.reported = 0.0
        run.report(40, 80)
    assert rows(run)[-1]["message"] == "Looking at the pictures"


def test_seconds_of_earlier_attempts_are_added(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "seconds.json").write_text('{"features": 5.5, "unknown": 3}')
    run = Run(tmp_path, CONFIG)
    run.recall_seconds()
    with run.during("features", "Looking"):
        assert run.spent()["features"] >= 5.5
    assert run.seconds.keys() == {"features"}


def test_a_split_that_an_earlier_attempt_made_stays_as_it_is(tmp_path: Path) -> None:
    rows = [
        ImageRow(f"images/{n}.jpg", f"c00{n % 2 + 1}", f"{n:064x}", split=split, group=n)
        for n, split in enumerate(("train",) * 8 + ("val",) * 8 + ("test",) * 8)
    ]
    rows[3] = dataclasses.replace(
        rows[3], split=None
    )  # left out, as a near-duplicate of an image in another split
    duplicates = NearDuplicates(
        pairs=[(3, 9)], groups={index: row.group for index, row in enumerate(rows)}
    )
    assert _freeze_split(Run(tmp_path, CONFIG), rows, duplicates) == rows
