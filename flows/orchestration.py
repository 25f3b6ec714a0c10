"""Which stage of a run follows which.

The store is asked first: a study that is finished starts neither Ray nor a worker. Each shard is
trained if any of its cells are to be, then swept; what training fails is not swept. Workers return
values; this process is the only one that writes. Whatever else is to be done when something ends,
committing included, is done by listeners.
"""

from __future__ import annotations

from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from prefect import get_run_logger
from prefect.context import FlowRunContext, get_run_context
from prefect.runtime import deployment

from flows.attempts import NotComputed
from flows.board import SharedBoard
from flows.calibrating import calibrated
from flows.events import (
    Compared,
    Emit,
    Events,
    GivenUp,
    Hindered,
    MetricNotMeasured,
    Planned,
    Reported,
    ShardDone,
    ShardIncomplete,
    ShardSwept,
    ShardTrained,
    Started,
    Swept,
    TriedAgain,
    Waiting,
    failures,
)
from flows.listeners import Artifacts, Committer, RunLog, Tally
from flows.live import LiveFile
from flows.nodes import check_nodes
from flows.progress import Display
from flows.request import Outcome, RunRequest, default_page
from flows.resources import claims
from flows.scale import WAITING_FOR_EACH
from flows.services import ray_cluster, ray_is_ours
from flows.telling import MovesTold
from flows.workers import Workers
from tasks.compare import compare, summary
from tasks.messages import counted
from tasks.plan import keeps_trajectory, points_of
from tasks.plan.warnings import called_alike, kept_in_vain, measured_in_vain, of_other_sources
from tasks.results import Answers, UnknownStudy
from tasks.results.explain import matching
from tasks.results.models import ModelledAnswers
from tasks.results.stored import coordinate, plan_against
from tasks.stages import Opaque, report
from tasks.store import Store, StoreLocked
from tasks.study import load_study
from tasks.work import Requests, left_to_sweep
from tasks.work.code import OtherCode, code_here, own_modules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.pages import Pages
    from tasks.plan import Plan, Shard
    from tasks.work.code import Code


def run(request: RunRequest, pages: Pages) -> Outcome:
    """Plan, compute what is missing, draw the page, and compare with the last run. Called in a
    flow.
    """
    study = load_study(request.study, request.overrides)
    forced = matching(points_of(study), request.force) if request.force else ()
    store = Store.open(request.store) if Store.exists(request.store) else Store.create(request.store)
    emit, tally = Events(), Tally()
    with (
        Display(quiet=request.quiet) as display,
        coordinate(store, request.force_unlock, 60 * request.wait, partial(_tell_waiting, display)) as coordinator,
        LiveFile(coordinator.token, study.name) as live,
    ):
        before = store.snapshot()
        if coordinator.before:
            get_run_logger().warning(coordinator.before)
        code = code_here(own_modules(study))
        seconds = Answers(store).train_seconds()
        committer = Committer(study.name, study.metrics, store, coordinator, _started(), code, seconds, emit)
        artifacts = Artifacts(study.name, [metric.column for metric in study.metrics], pages)
        emit.add(committer, tally, RunLog(), MovesTold(request.store), live, display, artifacts)
        pages.warn_with(emit)
        plan = plan_against(store, study, retry_failed=request.retry_failed, forced=forced)
        emit(Planned(plan))
        for warning in of_other_sources(plan):
            emit(Hindered(warning))
        if plan.jobs:
            with ray_cluster(request.ray_address, request.workers, {}):
                _compute(plan, store, request, code, emit)
    answers = ModelledAnswers(store, study.name)
    page = Path(request.report) if request.report else default_page(study.name)
    report(study.name, Opaque(answers), Opaque(page))
    emit(Reported(answers, page))
    moved = _moved(store, answers, before, emit)
    pages.close()
    return Outcome(
        study.name,
        request.store,
        answers.provenance["snapshot"],
        tally.computed,
        tally.trained,
        tally.committed,
        _failed(answers),
        str(page),
        moved,
        pages.untold,
    )


def _tell_waiting(display: Display, locked: StoreLocked) -> None:
    display(Waiting(str(locked)))
    get_run_logger().warning("waiting: %s", locked)


def _compute(plan: Plan, store: Store, request: RunRequest, code: Code, emit: Emit) -> None:
    """Train and sweep what a plan lacks, on the Ray that this process is connected to."""
    if not ray_is_ours():
        check_nodes(code)
    asked = claims(request.device, request.resources)
    slots = asked.slots
    paces = calibrated(plan.jobs, asked, code, emit)
    shards = tuple(plan.shards(slots, paces))
    emit(Started(plan, shards, slots, (*kept_in_vain(plan.study), *measured_in_vain(plan), *called_alike(plan))))
    board = SharedBoard(shards, slots, emit, paces)
    limit = 60 * request.shard_limit if request.shard_limit else None
    with Workers(_requests(plan), lambda: Answers(store).weights, board, asked, code, limit, paces) as workers:
        given_up = _train_and_sweep(shards, slots, workers, board, emit)
    if given_up:
        emit(board.read())  # without what workers told of it
    emit(Swept())
    if given_up:
        _raise_not_computed(given_up)


def _train_and_sweep(
    shards: Sequence[Shard], slots: int, workers: Workers, board: SharedBoard, emit: Emit
) -> list[GivenUp]:
    """Hand over what the workers have room for, and more as something ends: so the first shards are
    committed while the last ones are not submitted yet, and workers never wait. What was given up.
    """
    coming = iter(enumerate(shards))
    given_up: list[GivenUp] = []

    def hand_over() -> None:
        for number, shard in islice(coming, max(WAITING_FOR_EACH * slots - workers.busy, 0)):
            (workers.train if shard.trained else workers.sweep)(number, shard)

    hand_over()
    for ended in workers.ended(lambda: emit(board.read())):
        if isinstance(ended, TriedAgain | GivenUp):
            hand_over()
            emit(ended)
            given_up += [ended] if isinstance(ended, GivenUp) else []
            if isinstance(ended, GivenUp) and not workers.goes_on(ended.number):
                _settle(ended.number, shards[ended.number], given_up, board, emit)
            continue
        if not workers.goes_on(ended.number):
            board.end(("train" if isinstance(ended, ShardTrained) else "sweep", ended.number))
        left = left_to_sweep(ended.shard, ended.answer) if isinstance(ended, ShardTrained) else None
        if left:  # before the commit, which may wait for object storage; the answer is taken after it
            workers.sweep(ended.number, left)
        hand_over()
        emit(ended)
        if not workers.goes_on(ended.number):
            _settle(ended.number, shards[ended.number], given_up, board, emit)
        for failure in failures(ended.answer.points):
            emit(failure)
        for reason in ended.answer.unanswered if isinstance(ended, ShardSwept) else ():
            emit(MetricNotMeasured(reason))
    return given_up


def _settle(number: int, shard: Shard, given_up: Sequence[GivenUp], board: SharedBoard, emit: Emit) -> None:
    """Say that all of a shard has ended, and whether all of it is committed."""
    lost = [one.shard for one in given_up if one.number == number]
    board.settle(number, shard, lost)
    lacking = sum(len(part.questions) for part in lost)
    emit(ShardIncomplete(number, shard, lacking) if lost else ShardDone(number, shard))


def _raise_not_computed(given_up: Sequence[GivenUp]) -> NoReturn:
    """Say what machines did not compute, when all else is committed."""
    points = sum(len(one.shard.questions) for one in given_up)
    shards = len({one.number for one in given_up})
    text = (
        f"{counted(points, 'point')} in {counted(shards, 'shard')} not computed: {given_up[0].reason}. All others are committed; "
        "the same command computes the rest"
    )
    raise OtherCode(text) if all(one.other_code for one in given_up) else NotComputed(text)


def _requests(plan: Plan) -> Requests:
    kept = frozenset(point.id for point in plan.points if keeps_trajectory(plan.study, point))
    return Requests(plan.study.metrics, plan.study.keep.samples, kept)


def _started() -> dict[str, str]:
    """Whether a schedule, somebody through a deployment, or somebody at a terminal started this
    run, and the run's name. Nothing that Prefect's server would have to be asked for: it may be gone.
    """
    context = get_run_context()
    assert isinstance(context, FlowRunContext)  # noqa: S101 - called in a flow
    run = context.flow_run
    assert run is not None  # noqa: S101 - as above
    deployed = run.deployment_id is not None
    by = "schedule" if run.auto_scheduled else "deployment" if deployed else "command line"
    name = {"deployment": str(deployment.name)} if deployed else {}  # known since the run was named
    return {"started_by": by, **name, "flow_run": str(run.name)}


def _failed(answers: Answers) -> dict[str, str]:
    """Failed points of a study and their reasons."""
    points = answers.points
    bad = points["status"].values == "failed"
    return dict(zip(points["point_id"].values[bad].tolist(), points["error"].values[bad].tolist(), strict=True))


def _moved(store: Store, answers: Answers, before: str, emit: Emit) -> str:
    """Which numbers moved since a snapshot, in one sentence; empty if the study was not there."""
    name = answers.name or ""
    try:
        earlier = Answers(store, name, before)
    except UnknownStudy:
        return ""
    comparison = compare(earlier.points, answers.points)
    text = summary(comparison)
    emit(Compared(name, before, comparison, text))
    return text
