"""Progress that never goes back, and estimates that are shown only when they are worth it."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requests_app.steady import COLLECTION_SHARES, TRAINING_SHARES, SteadyProgress
from training.run_folder import STAGES

START = datetime(2026, 11, 1, 12, tzinfo=UTC)


def row(seconds: float, stage: str, done: int, total: int, eta: float | None = None) -> dict:
    return {
        "time": (START + timedelta(seconds=seconds)).isoformat(timespec="milliseconds"),
        "stage": stage,
        "done": done,
        "total": total,
        "message": "Working",
        "eta_seconds": eta,
    }


def test_the_shares_are_those_of_the_phases_of_a_training():
    assert tuple(TRAINING_SHARES) == STAGES
    assert sum(TRAINING_SHARES.values()) == pytest.approx(1)


def test_the_phases_of_a_training_are_one_bar():
    steady = SteadyProgress(TRAINING_SHARES, START)
    rows = [
        row(1, "features", 0, 0),
        row(2, "features", 40, 80),
        row(3, "features", 80, 80),
        row(4, "train", 0, 5),
        row(5, "train", 5, 5),
        row(6, "finetune", 0, 0),
        row(7, "finetune", 1, 100),
        row(8, "evaluate", 0, 3),
        row(9, "export", 3, 3),
    ]
    assert [steady.shown(each)["percent"] for each in rows] == [
        None,
        17,
        35,
        37,
        50,
        50,
        50,
        80,
        100,
    ]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*STAGES, "unknown"]),
            st.integers(0, 50),
            st.integers(0, 50),
            st.none() | st.floats(0, 1e6),
        )
    )
)
def test_percent_never_goes_back_and_the_time_left_of_a_step_never_grows(steps):
    steady = SteadyProgress(TRAINING_SHARES, None)
    percent = 0
    left: dict[object, float] = {}
    step = None
    for number, (stage, done, total, eta) in enumerate(steps):
        shown = steady.shown(row(30 * number, stage, done, total, eta))
        if shown["percent"] is not None:
            assert percent <= shown["percent"] <= 100
            percent = shown["percent"]
        if (stage, total) != step:
            step = (stage, total)
            left = {}
        if shown["eta_seconds"] is not None:
            assert shown["eta_seconds"] <= left.get(step, shown["eta_seconds"])
            left[step] = shown["eta_seconds"]


def test_no_estimate_is_shown_in_the_first_seconds_and_below_a_tenth():
    steady = SteadyProgress(COLLECTION_SHARES, START)
    assert steady.shown(row(1, "collect", 0, 80, None))["eta_seconds"] is None
    assert steady.shown(row(3, "collect", 40, 80, 7200))["eta_seconds"] is None, "too early"
    assert steady.shown(row(30, "collect", 7, 80, 7200))["eta_seconds"] is None, "too little"
    assert steady.shown(row(31, "collect", 40, 80, 60))["eta_seconds"] == 60


def test_an_estimate_that_turns_out_wrong_is_hidden_until_it_is_right_again():
    steady = SteadyProgress(COLLECTION_SHARES, START)
    steady.shown(row(0, "collect", 0, 80))
    estimates = [
        steady.shown(row(30 + n, "collect", 40 + n, 80, eta))["eta_seconds"]
        for n, eta in enumerate([60, 70, 200, 65, 50])
    ]
    assert estimates == [60, 60, None, 60, 50]


def test_pictures_that_are_given_back_do_not_turn_the_bar_back():
    steady = SteadyProgress(COLLECTION_SHARES, START)
    percents = [
        steady.shown(row(n, "collect", kept, 100))["percent"]
        for n, kept in enumerate([0, 24, 14, 26, 12, 0])
    ]
    assert percents == [None, 24, 24, 26, 26, 26]


def test_what_an_earlier_job_reported_in_the_same_folder_is_not_this_ones_progress():
    steady = SteadyProgress(COLLECTION_SHARES, START + timedelta(minutes=5))
    assert steady.shown(row(0, "collect", 80, 80, 0)) == {}
    assert steady.shown(row(301, "collect", 8, 80))["percent"] == 10
