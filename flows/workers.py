"""The stages that run on workers: handed to Ray as Prefect task runs, and given back as events in
the order in which they end.

Data sets and weights go from task to task through Ray's object store. A worker that dies is
replaced by Ray, which counts how often; Prefect's retries stay off. One that cannot be replaced is
an answer too: its points have failed, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

import ray
from prefect import Task, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Crashed
from prefect_ray.context import remote_options
from rich.text import Text

from flows.board import SharedBoard
from flows.events import ShardSwept, ShardTrained
from flows.resources import Claims, options
from flows.task_runner import TellingRayTaskRunner
from tasks.stages import Opaque, generate_data, sweep, train
from tasks.work import DataKey, Requests, TrainingAnswer, data_key, lost_sweep, lost_training
from tasks.work.code import OtherCode

if TYPE_CHECKING:
    from prefect_ray.task_runners import PrefectRayFuture

    from tasks.plan import Shard
    from tasks.work.code import Code

WORKER_DEATHS = 2
"""How often a task is started again when its worker dies."""

_POLL_SECONDS = 0.5


class Workers:
    """Ray, as far as a run needs it. A context: task runs are submitted within it.

    Args:
        requests: what is wanted of each point.
        stored: the safetensors file of a cell that was trained before, by the cell's id.
        board: where workers report what they do.
        claims: what a task run asks of Ray, and where it computes, by the name of its stage.
        code: what workers have to compute with.
    """

    def __init__(
        self,
        requests: Requests,
        stored: Callable[[str], bytes],
        board: SharedBoard,
        claims: Claims,
        code: Code,
    ) -> None:
        self._requests, self._stored, self._board, self._claims = requests, stored, board, claims
        self._code = Opaque(code)
        self._runner = TellingRayTaskRunner()
        self._sets: dict[DataKey, PrefectRayFuture[Any]] = {}
        self._trained: dict[int, PrefectRayFuture[Any]] = {}  # by number of the shard, until it is swept
        self._waiting: dict[Any, tuple[int, Shard, Task[..., Any], PrefectRayFuture[Any]]] = {}

    def __enter__(self) -> Self:
        self._runner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            _record_end(f"the run was ended ({type(error).__name__})")
        self._runner.__exit__(kind, error, trace)

    def train(self, number: int, shard: Shard) -> None:
        """Have a shard trained, on data sets that are generated once for all who learn from them."""
        cells = {data_key(job.cell): job.cell for job in shard.jobs if job.train}
        new = {key: cell for key, cell in cells.items() if key not in self._sets}
        if new:
            generated = self._submit(generate_data, name=_names_of(new), cells=Opaque(new), code=self._code)
            self._sets |= dict.fromkeys(new, generated)
        data = {id(future): future for future in map(self._sets.__getitem__, cells)}
        self._hand_over(number, shard, train, data=list(data.values()))

    def sweep(self, number: int, shard: Shard) -> None:
        """Have a shard swept: with the weights of its training, if it had one here, and stored
        ones.
        """
        stored = {job.cell.id: self._stored(job.cell.id) for job in shard.jobs if job.cell.training and not job.train}
        trained = self._trained.pop(number, None)
        self._hand_over(number, shard, sweep, stored=Opaque(stored), trained=trained, requests=Opaque(self._requests))

    def ended(self, waiting: Callable[[], None]) -> Iterator[ShardTrained | ShardSwept]:
        """What was handed over, as it ends, until nothing is left; `waiting` is called every half
        second.
        """
        while self._waiting:
            with _signals_as_raised():
                ready, _ = ray.wait(list(self._waiting), num_returns=1, timeout=_POLL_SECONDS)
                waiting()
            for reference in ready:
                yield self._answer(*self._waiting.pop(reference))
        for data in {id(future): future for future in self._sets.values()}.values():
            data.wait()

    @property
    def busy(self) -> int:
        """Task runs of shards that were handed over and have not ended."""
        return len(self._waiting)

    def _hand_over(self, number: int, shard: Shard, stage: Task[..., Any], **parameters: Any) -> None:
        reporter = self._board.reporter((stage.name, number), f"{stage.name} {shard.name}")
        parameters |= {"reporter": Opaque(reporter), "code": self._code, "device": self._claims.devices[stage.name]}
        future = self._submit(stage, name=shard.name, shard=Opaque(shard), **parameters)
        self._waiting[future.wrapped_future] = (number, shard, stage, future)

    def _submit(self, stage: Task[..., Any], **parameters: Any) -> PrefectRayFuture[Any]:
        with remote_options(max_retries=WORKER_DEATHS, **options(self._claims.resources.get(stage.name, {}))):
            return self._runner.submit(stage, parameters)

    def _answer(
        self, number: int, shard: Shard, stage: Task[..., Any], future: PrefectRayFuture[Any]
    ) -> ShardTrained | ShardSwept:
        try:
            with _signals_as_raised():
                answer = future.result().content
        except OtherCode:  # a machine's fault, and no answer of a point
            raise
        except Exception as error:  # noqa: BLE001 - whatever ended the worker, the other shards go on
            self._raise_other_code()
            reason = _reason_of(error)
            _record_crash(future.task_run_id, stage, shard, reason)
            if stage is train:
                return ShardTrained(number, shard, lost_training(shard, reason))
            return ShardSwept(number, shard, lost_sweep(shard, reason))
        if isinstance(answer, TrainingAnswer):
            self._trained[number] = future
            return ShardTrained(number, shard, answer)
        return ShardSwept(number, shard, answer)

    def _raise_other_code(self) -> None:
        """Raise what a node with other code has refused: to make data, or the training that waits for
        them ends with another word.
        """
        sets = {future.wrapped_future: future for future in self._sets.values()}
        for reference in ray.wait(list(sets), num_returns=len(sets), timeout=0)[0] if sets else []:
            try:
                sets[reference].result()
            except OtherCode:
                raise
            except Exception:  # noqa: BLE001, S112 - what else ended it is told of the training that waited for it
                continue


def _names_of(sets: Collection[DataKey]) -> str:
    """Targets and seeds, for a person."""
    targets = ", ".join(dict.fromkeys(str(key[0]) for key in sets))
    seeds = sorted({int(key[1]) for key in sets})
    return f"{targets} seed {seeds[0]}" if len(seeds) == 1 else f"{targets}, {len(seeds)} seeds"


def _reason_of(error: Exception) -> str:
    lines = Text.from_ansi(str(error)).plain.strip().splitlines()
    return f"the worker ended without an answer ({type(error).__name__}: {lines[0] if lines else ''})"


def _record_crash(task_run: UUID, stage: Task[..., Any], shard: Shard, reason: str) -> None:
    """Have Prefect's pages show a task run as crashed: nobody else can, and it would seem to run
    for ever, or not to be there.

    What a worker tells of the start of a task run is lost if it ends at once, its name included.
    Whatever Prefect cannot record, the store will, so this is no reason to stop.
    """
    name = f"{stage.name}: {shard.name}"
    try:
        with get_client(sync_client=True) as client:
            try:
                client.read_task_run(task_run)
            except ObjectNotFound:
                client.create_task_run(stage, UUID(flow_run.id), dynamic_key=str(task_run), id=task_run, name=name)
            client.set_task_run_state(task_run, Crashed(message=reason), force=True)
            client.set_task_run_name(task_run, name)
    except Exception as error:  # noqa: BLE001 - see above
        get_run_logger().info("Prefect did not record the crash of task run %s: %s", task_run, error)


def _record_end(reason: str) -> None:
    """The same for all task runs that still go on when the run is ended: their workers end with it,
    without a word.
    """
    unfinished = TaskRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING])
    try:
        with get_client(sync_client=True) as client:
            for run in client.read_task_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run.id)])),
                task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=unfinished)),
            ):
                client.set_task_run_state(run.id, Crashed(message=reason), force=True)
    except Exception as error:  # noqa: BLE001 - as above
        get_run_logger().info("Prefect did not record the end of the task runs: %s", error)


@contextmanager
def _signals_as_raised() -> Iterator[None]:
    """What the handler of a signal raises while Ray waits arrives as the cause of a SystemError;
    raise it itself.
    """
    try:
        yield
    except SystemError as error:
        if error.__cause__ is not None:
            raise error.__cause__ from None
        raise
