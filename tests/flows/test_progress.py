"""What a person at the terminal is told while a run works."""

import re
import time

import pytest

from flows.progress import Board, Display


def test_a_shard_that_starts_again_counts_from_nothing() -> None:
    board = Board()
    board.begin(0)
    board.add(0, 5.0, 1, 10)
    board.add(1, 1.0, 0, 2)
    board.begin(0)
    board.add(0, 2.0, 0, 4)
    totals, latest = board.read()
    assert totals == {0: [2.0, 0.0, 4.0], 1: [1.0, 0.0, 2.0]}
    assert latest == 0


def test_time_left_is_told_from_the_moment_that_work_began(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with Display(100.0, 4, 20) as display:
        clock[0] = 10.0  # workers have started
        display.update((0.001, 0, 0), "uniform: edm")
        clock[0] = 30.0  # a quarter of the work in 20 seconds: 60 are left
        display.update((25.0, 1, 5), "uniform: edm")
        display.committed(1, 4, "uniform: edm", 5, 2)
    told = capsys.readouterr()
    assert told.out == ""
    assert re.search(r"shard 1/4 committed: uniform: edm \(5 points, 2 failed\) after 0:30, about 1:00 left", told.err)
    assert display.fraction == 0.25
