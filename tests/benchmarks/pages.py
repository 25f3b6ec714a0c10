"""What a page of many points costs, beside one of few and beside reading its points."""

from __future__ import annotations

import time
from collections.abc import Callable

from tasks.report import draw_report
from tasks.results.models import ModelledAnswers
from tasks.store import Store
from tests.benchmarks.pairs import Ratio, paired
from tests.tasks.realistic import realistic

MANY, FEW = 28, 3  # seeds: 10,080 and 1,080 points


def _page(made: ModelledAnswers) -> str:
    """The page of a store that is opened for it."""
    return draw_report(_opened(made))


def _opened(made: ModelledAnswers) -> ModelledAnswers:
    return ModelledAnswers(Store.open(str(made.provenance["store"])), made.name)


def page_grows() -> Ratio:
    """The page of 10,080 points over one of 1,080 with the same curves."""
    many, few = realistic(seeds=MANY), realistic(seeds=FEW)
    return paired(lambda: _page(many), lambda: _page(few), 3, time.process_time)


def page_against_reading() -> Ratio:
    """The page of 10,080 points over reading these with their specs."""
    many = realistic(seeds=MANY)

    def read() -> None:
        answers = _opened(many)
        assert len(answers.point_specs()) == answers.points.sizes["point"]

    return paired(lambda: _page(many), read, 3, time.process_time)


MEASURES: tuple[tuple[str, Callable[[], Ratio]], ...] = (
    ("the page of 10,080 points / of 1,080", page_grows),
    ("the page of 10,080 points / reading these and their specs", page_against_reading),
)
"""Lines for the table of `tests.benchmarks.run`."""


def main() -> None:
    """Measure and print."""
    for name, measure in MEASURES:
        print("{}: {:.2f} (from {:.2f} to {:.2f})".format(name, *measure()))  # noqa: T201


if __name__ == "__main__":
    main()
