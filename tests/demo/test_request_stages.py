"""The table of the N6 benchmark: what is compared with what."""

import io

from rich.console import Console

from benchmarks import request_stages

WHOLE = {
    "confirm": 1.0,
    "collect": 6.0,
    "train": 11.0,
    "package": 2.0,
    "deliver": 0.0,
    "waiting": 1.0,
    "total": 21.0,
}
ALONE = {"collect": 5.0, "train": 10.0, "package": 2.0}


def rows_of(table):
    output = io.StringIO()
    Console(file=output, width=100).print(table)
    cells = [
        [cell.strip() for cell in line.strip("│┃").split("│")]
        for line in output.getvalue().splitlines()
    ]
    return {row[0]: row[1:] for row in cells if len(row) == 4}


def test_the_whole_is_compared_with_the_sum_of_the_parts_alone():
    rows = rows_of(request_stages.table(WHOLE, ALONE))
    assert rows["whole / sum of parts"] == ["21.0 s", "17.0 s", "1.24"]
    assert rows["wanted at most"][-1] == "1.15"


def test_each_part_stands_beside_its_stage_and_the_others_stand_alone():
    rows = rows_of(request_stages.table(WHOLE, ALONE))
    assert rows["collect"] == ["6.0 s", "5.0 s", "1.20"]
    assert rows["waiting"] == ["1.0 s", "", ""]


def test_the_median_is_taken_stage_by_stage():
    rounds = [
        {"collect": 1.0, "train": 9.0},
        {"collect": 3.0, "train": 7.0},
        {"collect": 2.0, "train": 8.0},
    ]
    assert request_stages.medians(rounds) == {"collect": 2.0, "train": 8.0}
