"""`grow`, called from Python: seeds until it is decided who is best, or steps until the floor."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from flows.growing import design_of, grown
from flows.refining import checked_looks, refined
from tasks.query.growing import read_margin, read_question
from tasks.query.ranking import BY
from tasks.statistics.bisection import MOST_LOOKS
from tasks.statistics.sequential import MOST_SEEDS
from tasks.study import Study
from tasks.where.language import QueryError

if TYPE_CHECKING:
    import pandas as pd

    from flows.request import Outcome, RunRequest

QUESTION = "best(sampler)"
MARGIN = "2%"


def refuse_together(**given: object) -> None:
    """Steps are refined or seeds added, not both at once.

    Raises:
        QueryError: an option of the one is given beside the other.
    """
    if given.pop("steps_until") is None:
        wrong = ["max_looks"] if given["max_looks"] is not None else []
        because = "belongs to --steps-until floor"
    else:
        wrong = [name for name, value in given.items() if name != "max_looks" and value is not None]
        because = "belongs to seeds that are added, and not to --steps-until: ask the one after the other"
    if wrong:
        raise QueryError(f"--{wrong[0].replace('_', '-')} {because}")


def grow(
    study: Study | str | Path,
    store: str = "results",
    until: str | None = None,
    *,
    steps_until: str | None = None,
    margin: str | None = None,
    max_seeds: int | None = None,
    max_looks: int | None = None,
    by: Sequence[str] | None = None,
    metric: str | None = None,
    overrides: Sequence[str] = (),
    ray: str | None = None,
    workers: int | None = None,
    retry_failed: bool = False,
    report: str | Path | None = None,
    device: str = "cpu",
    shard_limit: float | None = None,
) -> pd.DataFrame:
    """Add seeds to a study until it is decided who is best, or steps until they come down to the
    floor, as the command `diffatlas grow` does.

    Args:
        study: a file, the name of a shipped study, or a study that was loaded.
        store: a folder, or ``s3://bucket/prefix``; made if it is not there.
        until: the question: ``best(AXIS)``, or ``best(AXIS) at CONDITION``; ``best(sampler)`` if it
            is not given.
        steps_until: ``floor``: instead of seeds, step counts are added between neighbours that
            differ.
        margin: what counts as no difference: a share such as ``2%``, which it is if it is not
            given, or a number in the metric's units.
        max_seeds: at the last look; 40 if it is not given.
        max_looks: at step counts; 4 if it is not given.
        by: labels within whose values the question is asked; data set and formulation if it is not
            given.
        metric: by which; `w1` if it is measured, otherwise the only one.
        overrides: changes to what is loaded.
        ray: as for `run`.
        workers: as for `run`.
        retry_failed: as for `run`.
        report: as for `run`.
        device: as for `run`.
        shard_limit: as for `run`.

    Returns:
        Of seeds, a row for each look and rival: seeds, the labels of `by`, `best`, `rival`, their
        means, the `difference` with its interval (`low`, `high`), and the `verdict`: apart,
        equivalent, open or contradicted. Of steps, a row for each look and pair of neighbours: the
        labels, `from` and `to` with their means and floors, the `difference` with its interval, the
        `verdict` (refined, alike, floor or open) and the `middle` that was added; and
        ``attrs["groups"]`` says where each group is within the floor. ``attrs["decided"]`` says
        whether nothing is left open at the last look (of steps: and every pair could be compared),
        ``attrs["left_out"]`` what was not compared, and why, and ``attrs["failed"]`` how many
        points failed.

    Raises:
        QueryError: the question or the margin cannot be read, or there is nothing to compare.
        StudyError: the study cannot be used.
        StoreUnavailable: the store cannot be written, or another run has it.
        WrongValue: `shard_limit` is no number of minutes, or too short.
    """
    import pandas as pd

    from flows.request import RunRequest, check_shard_limit
    from flows.start import starting_once

    check_shard_limit(shard_limit)
    refuse_together(
        steps_until=steps_until, until=until, margin=margin, max_seeds=max_seeds, by=by, max_looks=max_looks
    )
    request = RunRequest(
        str(study) if not isinstance(study, Study) else study.name,
        store,
        tuple(overrides),
        ray_address=ray,
        workers=workers,
        retry_failed=retry_failed,
        report=None if report is None else str(report),
        device=device,
        shard_limit=shard_limit,
    )
    given = study if isinstance(study, Study) else None
    warn = partial(warnings.warn, stacklevel=3)

    def told(start: Callable[[RunRequest], Outcome], each: RunRequest) -> None:
        if untold := start(each).untold:
            warn(untold)

    if steps_until is not None:
        looks = checked_looks(steps_until, MOST_LOOKS if max_looks is None else max_looks)
        with starting_once() as start:
            steps = refined(request, metric, looks, partial(told, start), loaded=given, warn=warn)
        frame = pd.DataFrame([{"look": look.look, **row} for look in steps.looks for row in look.rows])
        frame.attrs.update(
            decided=steps.decided,
            left_out=steps.left_out,
            groups=steps.groups,
            failed=steps.failed,
        )
        return frame
    question = read_question(QUESTION if until is None else until, BY if by is None else by, metric)
    design = design_of(
        read_margin(MARGIN if margin is None else margin), MOST_SEEDS if max_seeds is None else max_seeds
    )
    with starting_once() as start:
        found = grown(request, question, design, partial(told, start), loaded=given, warn=warn)
    frame = pd.DataFrame(
        [{"look": i, "seeds": look.seeds, **row} for i, look in enumerate(found.looks, 1) for row in look.rows]
    )
    frame.attrs.update(decided=found.decided, left_out=found.looks[-1].left_out, failed=found.failed)
    return frame
