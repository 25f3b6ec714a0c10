"""The flow `run-study`: from a study to committed, pictured answers.

    study -> plan against the store -> data sets -> shards on Ray -> commit each as it completes -> report

The store is asked first: a study that is finished starts neither Ray nor a worker. Workers return arrays; this process is the
only one that writes. Done means committed in the store; Prefect's caches play no part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import uuid4

from flows.services import quiet_environment, ray_cluster

quiet_environment()

import ray
from prefect import flow, get_run_logger, task
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext, get_run_context
from prefect.runtime import deployment
from prefect.states import Completed, Crashed, Failed
from prefect_ray import RayTaskRunner
from prefect_ray.context import remote_options
from rich.console import Console
from rich.text import Text

from flows.progress import Board, Display, reporter
from tasks.compare import compare, summary, table
from tasks.plan import Plan, Shard, keeps_trajectory, points_of
from tasks.plan.warnings import kept_in_vain, measured_in_vain
from tasks.query.tables import summary_records
from tasks.report.page.files import default_page, write_report
from tasks.results import Answers, UnknownStudy
from tasks.results.explain import matching
from tasks.results.models import ModelledAnswers
from tasks.results.provenance import provenance
from tasks.results.rows import rows_of
from tasks.results.stored import coordinate, is_recorded, plan_against, record
from tasks.store import Coordinator, Store
from tasks.study import load_study
from tasks.work import DataKey, PointAnswer, Requests, ShardAnswer, data_key, run_shard, training_set

WORKER_DEATHS = 2
"""How often a shard is started again when its worker dies. Ray counts them; Prefect's retries stay off."""

_POLL_SECONDS = 0.5
_ARTIFACT_SECONDS = 3.0


@dataclass
class Outcome:
    """What a run did."""

    study: str
    store: str
    snapshot: str = ""
    computed: int = 0
    trained: int = 0
    committed: int = 0
    failed: dict[str, str] = field(default_factory=dict)  # point id: reason, of the whole study
    report: str | None = None
    moved: str = ""  # what changed since the study was last run, in one sentence; empty the first time
    started: Mapping[str, str] = field(default_factory=dict)  # by what: part of the provenance of every commit


class Opaque:
    """A value that Prefect passes on without looking inside."""

    def __init__(self, content: Any) -> None:
        self.content = content


@task(name="generate-data", task_run_name="data: {label} seed {seed}", cache_policy=NO_CACHE, persist_result=False)
def generate_data(label: str, seed: int, size: int, cell: Opaque) -> Any:  # noqa: ARG001 - the label names the run
    """The training set of one target and seed."""
    return training_set(cell.content)


@task(name="train-and-sweep", task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False)
def train_and_sweep(name: str, number: int, work: Opaque, keys: list[Any], data: list[Any], board: Opaque) -> Any:  # noqa: ARG001
    """One shard: train its cells together, ask every question, measure."""
    shard, weights, wanted = work.content
    board.content.begin.remote(number)
    sets = {tuple(key): values for key, values in zip(keys, data, strict=True)}
    return Opaque(run_shard(shard, sets, weights, wanted, reporter(board.content, number)))


@flow(name="run-study", flow_run_name="{study}", validate_parameters=False)
def run_study(
    study: str,
    store: str = "results",
    overrides: list[str] | None = None,
    ray_address: str | None = None,
    workers: int | None = None,
    retry_failed: bool = False,
    force: str | None = None,
    force_unlock: bool = False,
    report: str | None = None,
    quiet: bool = False,
) -> State[Outcome]:
    """Run what is missing of a study, and draw its report.

    `study` is a file or the name of a shipped study, `report` the path of the page (``reports/NAME.html``). Points that
    satisfy `force`, an expression of the `--where` language, are computed whatever the store says; `force_unlock` takes over a
    lock of the store whose holder is sure to be gone. Ends as Failed if any point of the study has failed; the others are
    committed all the same.
    """
    loaded = load_study(study, overrides or ())
    outcome = Outcome(loaded.name, store, started=_started())
    forced = matching(points_of(loaded), force) if force else ()
    opened = Store.open(store) if Store.exists(store) else Store.create(store)
    before = opened.snapshot()
    with coordinate(opened, force_unlock) as coordinator:
        if coordinator.before:
            get_run_logger().warning(coordinator.before)
        plan = plan_against(opened, loaded, retry_failed=retry_failed, forced=forced)
        _record_study(coordinator, plan, outcome)
        if plan.jobs:
            _run(plan, coordinator, outcome, ray_address=ray_address, workers=workers, quiet=quiet)
    answers = ModelledAnswers(opened, loaded.name)
    outcome.snapshot = answers.provenance["snapshot"]
    outcome.failed = failures(answers)
    page = Path(report) if report else default_page(loaded.name)
    write_report(answers, page)
    outcome.report = str(page)
    _tell_prefect(answers, [metric.column for metric in loaded.metrics], page)
    outcome.moved = _moved(opened, answers, before)
    told = f"{outcome.computed} points computed, {outcome.trained} cells trained, {outcome.committed} commits"
    if outcome.failed:
        return Failed(message=f"{len(outcome.failed)} points failed; {told}", data=outcome)
    return Completed(message=told, data=outcome)


def _started() -> dict[str, str]:
    """Whether a schedule, somebody through a deployment, or somebody at a terminal started this run, and the run's name."""
    context = get_run_context()
    assert isinstance(context, FlowRunContext)  # noqa: S101 - called in a flow
    assert context.flow_run is not None  # noqa: S101 - as above
    by = "schedule" if context.flow_run.auto_scheduled else "deployment" if deployment.id else "command line"
    name = {"deployment": str(deployment.name)} if deployment.id else {}
    return {"started_by": by, **name, "flow_run": str(context.flow_run.name)}


def failures(answers: Answers) -> dict[str, str]:
    """Failed points of a study and their reasons."""
    points = answers.points
    bad = points["status"].values == "failed"
    return dict(zip(points["point_id"].values[bad].tolist(), points["error"].values[bad].tolist(), strict=True))


def _record_study(coordinator: Coordinator, plan: Plan, outcome: Outcome) -> None:
    if is_recorded(coordinator.store, plan):
        return
    record(coordinator, plan, provenance(plan.study.name, **outcome.started))
    outcome.committed += 1


def _run(
    plan: Plan, coordinator: Coordinator, outcome: Outcome, *, ray_address: str | None, workers: int | None, quiet: bool
) -> None:
    with ray_cluster(ray_address, workers, {}):
        slots = max(int(ray.cluster_resources().get("CPU", 1)), 1)
        shards = plan.shards(slots)
        work, cells = sum(s.work() for s in shards), sum(s.trained for s in shards)
        with Display(work, cells, plan.missing, quiet=quiet) as display:
            display.say(
                f"study {plan.study.name}: {plan.missing} points to compute, {cells} cells to train, "
                f"{len(plan.done)} points done; {len(shards)} shards on {slots} workers"
            )
            for warning in (*kept_in_vain(plan.study), *measured_in_vain(plan)):
                display.say(f"warning: {warning}")
            sweep(plan, shards, coordinator, outcome, display)


_handed_over: dict[str, tuple[Plan, list[Shard], Coordinator, Outcome, Display]] = {}
"""What the inner flow works on. Not its parameters: Prefect sends those along with every task, and a coordinator stays here."""


@flow(name="train-and-sweep-shards", task_runner=RayTaskRunner(), validate_parameters=False)
def train_and_sweep_shards(key: str) -> None:
    """The part of a run that needs Ray: submit every shard and commit each as it completes."""
    _take_over(key)


def _take_over(key: str) -> None:
    # A function of its own: a flow travels to the workers with every global that its body names.
    _sweep(*_handed_over[key])


def sweep(plan: Plan, shards: list[Shard], coordinator: Coordinator, outcome: Outcome, display: Display) -> None:
    """Run `train_and_sweep_shards` on these values."""
    key = uuid4().hex
    _handed_over[key] = (plan, shards, coordinator, outcome, display)
    try:
        train_and_sweep_shards.with_options(flow_run_name=f"{plan.study.name}: {len(shards)} shards")(key)
    finally:
        del _handed_over[key]


def _sweep(plan: Plan, shards: list[Shard], coordinator: Coordinator, outcome: Outcome, display: Display) -> None:
    log = get_run_logger()
    board = ray.remote(num_cpus=0)(Board).remote()
    answers = Answers(coordinator.store)
    wanted = Requests(
        plan.study.metrics,
        plan.study.keep.samples,
        frozenset(point.id for point in plan.points if keeps_trajectory(plan.study, point)),
    )
    sets: dict[DataKey, Any] = {}
    futures: dict[Any, tuple[int, Any]] = {}
    with remote_options(max_retries=WORKER_DEATHS):
        for number, shard in enumerate(shards):
            keys = sorted({data_key(job.cell) for job in shard.jobs if job.train})
            for job in shard.jobs:
                if job.train and (key := data_key(job.cell)) not in sets:
                    sets[key] = generate_data.submit(key[0], key[1], key[2], Opaque(job.cell))
            weights = {
                job.cell.id: answers.weights(job.cell.id) for job in shard.jobs if job.cell.training and not job.train
            }
            future: Any = train_and_sweep.submit(
                shard.name, number, Opaque((shard, weights, wanted)), keys, [sets[key] for key in keys], Opaque(board)
            )
            futures[future.wrapped_future] = (number, future)
    artifact: Any = create_progress_artifact(
        0.0, key=_key(plan.study.name, "progress"), description=f"study {plan.study.name}"
    )
    spent: dict[str, float] = _train_seconds(answers)
    for done, (number, future) in enumerate(_in_completion_order(futures, board, shards, display, artifact), start=1):
        answer = _answer_of(future, shards[number])
        spent |= {cell.cell.id: cell.seconds for cell in answer.cells}
        coordinator.commit(
            rows_of(answer, spent),
            f"study {plan.study.name}: {shards[number].name}",
            provenance(plan.study.name, device=answer.device, shard_seconds=f"{answer.seconds:.1f}", **outcome.started),
        )
        failed = [told for told in answer.points if told.error]
        outcome.committed += 1
        outcome.computed += len(answer.points)
        outcome.trained += len([cell for cell in answer.cells if cell.weights])
        display.committed(done, len(shards), shards[number].name, len(answer.points), len(failed))
        log.info("committed shard %d of %d: %s, %d points", done, len(shards), shards[number].name, len(answer.points))
        for reason in sorted({f"{told.point.cell}, {told.point.labels['sampler']}: {told.error}" for told in failed}):
            log.warning("failed: %s", reason)
            display.say(f"  failed: {reason}")
        for reason in answer.unanswered:
            log.warning("not measured: %s", reason)
            display.say(f"  not measured: {reason}")
    update_progress_artifact(artifact, 100.0)
    for dataset in sets.values():
        dataset.wait()


def _train_seconds(answers: Answers) -> dict[str, float]:
    points = answers.points
    return dict(zip(points["cell_id"].values.tolist(), points["train_seconds"].values.tolist(), strict=True))


def _in_completion_order(
    futures: dict[Any, tuple[int, Any]], board: Any, shards: list[Shard], display: Display, artifact: Any
) -> Iterator[tuple[int, Any]]:
    """Shards as they end; while waiting, progress is shown."""
    import time

    waiting, told = list(futures), time.monotonic()
    while waiting:
        with _signals_as_raised():
            ready, waiting = ray.wait(waiting, num_returns=1, timeout=_POLL_SECONDS)
            totals, latest = ray.get(board.read.remote())
        sums = tuple(sum(values[i] for values in totals.values()) for i in range(3))
        display.update((sums[0], sums[1], sums[2]), shards[latest].name)
        if time.monotonic() - told > _ARTIFACT_SECONDS:
            told = time.monotonic()
            update_progress_artifact(artifact, round(100 * display.fraction, 1))
        for reference in ready:
            yield futures[reference]


@contextmanager
def _signals_as_raised() -> Iterator[None]:
    """What the handler of a signal raises while Ray waits arrives as the cause of a SystemError; raise it itself."""
    try:
        yield
    except SystemError as error:
        if error.__cause__ is not None:
            raise error.__cause__ from None
        raise


def _answer_of(future: Any, shard: Shard) -> ShardAnswer:
    """The shard's answer; a shard that could not be run is an answer too: every point failed, with the reason."""
    try:
        with _signals_as_raised():
            sealed: Opaque = future.result()
        answer: ShardAnswer = sealed.content
        return answer
    except Exception as error:  # noqa: BLE001 - whatever ended the worker, the other shards go on
        lines = Text.from_ansi(str(error)).plain.strip().splitlines()
        reason = f"the worker ended without an answer ({type(error).__name__}: {lines[0] if lines else ''})"
        _tell_crashed(future.task_run_id, reason)
        points = [PointAnswer(point, reason) for job in shard.jobs for point in job.points]
        return ShardAnswer([], points, {}, "", 0.0)


def _tell_crashed(task_run: Any, reason: str) -> None:
    """Have Prefect's pages show the task run as crashed: nobody else can, and it would seem to run for ever.

    The server does not know the task run if the worker ended before it reported its start. Whatever Prefect cannot
    record, the store will, so this is no reason to stop.
    """
    try:
        with get_client(sync_client=True) as client:
            client.set_task_run_state(task_run, Crashed(message=reason), force=True)
    except Exception as error:  # noqa: BLE001 - see above
        get_run_logger().info("Prefect did not record the crash of task run %s: %s", task_run, error)


def _key(study: str, what: str) -> str:
    safe = "".join(c if c.isalnum() else "-" for c in study.lower()).strip("-")
    return f"{safe}-{what}"


def _tell_prefect(answers: Answers, metrics: list[str], page: Path) -> None:
    """The summary table and the report's address, for Prefect's pages."""
    name = answers.name or "store"
    create_table_artifact(
        summary_records(answers.points, metrics), key=_key(name, "summary"), description=f"study {name}"
    )
    create_link_artifact(
        page.resolve().as_uri(), link_text=str(page), key=_key(name, "report"), description="the report"
    )


def _moved(store: Store, answers: Answers, before: str) -> str:
    """Which numbers moved since a snapshot, in one sentence; in Prefect's pages with the whole comparison."""
    try:
        earlier = Answers(store, answers.name, before)
    except UnknownStudy:
        return ""
    comparison = compare(earlier.points, answers.points)
    told = summary(comparison)
    page = Console(width=100, record=True, file=StringIO())
    page.print(table(comparison, 100))
    create_markdown_artifact(
        f"{told}\n\n```\n{page.export_text()}\n```\n",
        key=_key(answers.name or "store", "moved"),
        description=f"study {answers.name}: what moved since snapshot {before}",
    )
    return told
