"""A study that grows: seeds are added in announced looks until it is decided who is best.

    run with n_l seeds -> look -> record what it decided -> decided, or the last look? -> go on

What a look decides is a function of the study, the rule and the numbers of its seeds, all of which
are committed by then: the same for any number of workers, and after a run that was killed. So
nothing is remembered but in the store, and a second call only looks.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffusion.plugins import typed
from tasks.query.growing import BestOf, LookTaken, answerable, look_at
from tasks.results.foreseen import foreseen
from tasks.results.provenance import provenance
from tasks.results.read import Answers, open_results
from tasks.results.stored import looks_recorded, plan_for, record_look, refuse_changes
from tasks.statistics.sequential import RULE, Design, Margin, looks_up_to, seeds_of
from tasks.store import Store
from tasks.study import Study, StudyError, load_study
from tasks.study.axes import MOST_SEEDS as LARGEST
from tasks.where.language import QueryError

if TYPE_CHECKING:
    from flows.request import RunRequest
    from tasks.plain import Spec
    from tasks.plan import Plan

Run = Callable[["RunRequest"], object]


@dataclass(frozen=True)
class Growth:
    """How a study grew: its looks, and how many of its points have failed."""

    study: str
    store: str
    question: BestOf
    design: Design
    looks: tuple[LookTaken, ...]
    failed: int

    @property
    def decided(self) -> bool:
        """Whether every rival that was compared is told apart from the best, or equivalent to it."""
        return self.looks[-1].decided

    def value(self) -> Spec:
        """As plain values: the same whenever the numbers are."""
        return {
            **_announced(self.study, self.question, self.design),
            "store": self.store,
            "looks": [look.value() for look in self.looks],
            "decided": self.decided,
            "left_out": [dict(row) for row in self.looks[-1].left_out],
            "failed": self.failed,
        }


def design_of(margin: Margin, max_seeds: int) -> Design:
    """What is announced.

    Raises:
        QueryError: of fewer than two seeds nothing can be said.
    """
    if not 2 <= max_seeds <= LARGEST:
        raise QueryError(f"--max-seeds: found {max_seeds}, expected 2 to {LARGEST}")
    return Design(looks_up_to(max_seeds), margin)


def grown(
    request: RunRequest,
    question: BestOf,
    design: Design,
    run: Run,
    tell: Callable[[LookTaken], object] = lambda _: None,
    loaded: Study | None = None,
    warn: Callable[[str], object] = lambda _: None,
    announce: Callable[[str], object] = lambda _: None,
) -> Growth:
    """Run, look, record, and go on until it is decided or the seeds are spent.

    What cannot be answered, or written, is refused before anything is computed.

    Args:
        request: the run of the study that is to grow.
        question: what is to be decided.
        design: the announced looks.
        run: computes what a request lacks; called where a look's points are not all in the store.
        tell: is given each look.
        loaded: the study, where it is none that the request's `study` names.
        warn: is given, in a sentence, what makes the stated level doubtful, and why one waits.
        announce: is given, in a sentence, the looks and the margin, once nothing is left to refuse.

    Returns:
        All looks that were made.

    Raises:
        QueryError: the question cannot be answered.
        StudyError: the study cannot be used, or it says of a part which seeds that has.
    """
    given = loaded
    if loaded is None:
        with typed(request.study):
            loaded = load_study(request.study, request.overrides)
    else:
        refuse_changes(loaded, request.overrides)
    order = seeds_of(design.looks, loaded.seeds)
    _refuse_own_seeds(loaded, order)
    question = answerable(foreseen(plan_for(loaded, request.store)), question)
    announced = _announced(loaded.name, question, design)
    Store.check_writable(request.store)
    announce(f"looks at {', '.join(map(str, design.looks))} seeds; margin {design.margin}")
    for other in other_designs(request.store, announced, "until", _design_said):
        warn(other)
    looks: list[LookTaken] = []
    failed = 0
    for number, n in enumerate(design.looks):
        seeds = tuple(dict.fromkeys((*order[:n], *loaded.seeds)))
        study = loaded.model_copy(update={"seeds": seeds})
        plan = plan_for(study, request.store, retry_failed=request.retry_failed)
        if plan.jobs or not asked_all(request.store, plan):
            with tempfile.TemporaryDirectory() as folder:
                override = f"seeds={list(seeds)}"
                run(with_override(request, None if given is None else study, override, Path(folder)))
        points = open_results(request.store, study.name)
        points = points.isel(point=np.isin(points["point_id"].values.astype(str), [point.id for point in plan.points]))
        failed = int((points["status"].values == "failed").sum())
        looks.append(look_at(points, question, design, order, number))
        record_look(
            Store.open(request.store),
            study.name,
            json.dumps({**announced, **looks[-1].value()}, sort_keys=True),
            provenance(study.name),
            force_unlock=request.force_unlock,
            wait=60 * request.wait,
            waiting=lambda locked: warn(f"waiting: {locked}"),
        )
        tell(looks[-1])
        if looks[-1].decided:
            break
    return Growth(loaded.name, request.store, question, design, tuple(looks), failed)


def asked_all(store: str, plan: Plan) -> bool:
    """Whether the study is recorded with all points of a plan; it may have more seeds by now."""
    if plan.unrecorded or not Store.exists(store):
        return False
    answers = Answers(Store.open(store))
    name = plan.study.name
    return name in answers.studies and {point.id for point in plan.points} <= set(answers.asked(name))


def _refuse_own_seeds(study: Study, order: Sequence[int]) -> None:
    """Raises `StudyError` where the seeds that are added would not reach all of a study."""
    wrong = [
        f"{study.name}, at grids[{i}].seeds: found {list(block.seeds)}; a study that grows has its seeds at the top, "
        "where all of it gets the same"
        for i, block in enumerate(study.grids)
        if "seeds" in block.model_fields_set
    ]
    out = {s for block in study.blocks() for one in block.exclude for s in one.seed or ()} & set(order)
    if out:
        excluded = ", ".join(map(str, sorted(out)))
        wrong.append(
            f"{study.name}, at exclude: found seed {excluded}, which is to be added (up to {len(order)} seeds)"
        )
    if wrong:
        raise StudyError(study.name, wrong)


def other_designs(store: str, announced: Spec, kind: str, said: Callable[[Spec], str]) -> list[str]:
    """A sentence for each other design of a kind whose looks at a study are in a store.

    Args:
        store: where the looks are recorded.
        announced: the design of now, with its `study`.
        kind: the key that looks of this kind have, and those of the others lack.
        said: what was looked at, and by which design.
    """
    if not Store.exists(store):
        return []
    keys = [key for key in announced if key != "rule"]
    mine = {key: announced[key] for key in keys}
    looks = [json.loads(text) for text in looks_recorded(Store.open(store), str(announced["study"]))]
    found = [{key: look.get(key) for key in keys} for look in looks if kind in look]
    return [
        f"the store has looks at {said(one)}; "
        "each design spends its level, and of what all of them say any may be false with the sum"
        for i, one in enumerate(found)
        if one != mine and one not in found[:i]
    ]


def _design_said(one: Spec) -> str:
    return (
        f"{one['study']} by another design: {one['until']} by {', '.join(one['by']) or 'nothing'}, "
        f"{one['metric']}, margin {one['margin']}, at {', '.join(map(str, one['announced']))} seeds"
    )


def with_override(request: RunRequest, study: Study | None, override: str, folder: Path) -> RunRequest:
    """The run of a look; a study that was given without a file gets one."""
    if study is None:
        return replace(request, overrides=(*request.overrides, override)) if override else request
    source = folder / f"{study.name}.yaml"
    source.write_text(json.dumps(study.spec()))  # JSON is YAML
    return replace(request, study=str(source), overrides=())


def _announced(study: str, question: BestOf, design: Design) -> Spec:
    return {
        "study": study,
        "until": str(question),
        "by": list(question.by),
        "metric": question.metric,
        "margin": str(design.margin),
        "level": design.level,
        "announced": list(design.looks),
        "rule": RULE,
    }
