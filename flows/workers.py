"""The stages that run on workers: handed to Ray as Prefect task runs, and given back as events in
the order in which they end.

Data sets and weights go from task to task through Ray's object store. Ray and Prefect repeat
nothing: what is tried again when a task run ends without an answer is said in `flows.attempts`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from types import MappingProxyType, TracebackType
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
from prefect.exceptions import ObjectNotFound, UnfinishedRun
from prefect.runtime import flow_run
from prefect.states import Crashed
from prefect_ray.context import remote_options
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flows.attempts import Attempt, NothingEnded, module_lacked, of_a_machine, of_other_code, reason_of
from flows.board import SharedBoard
from flows.events import GivenUp, ShardSwept, ShardTrained, TriedAgain
from flows.pages import briefly
from flows.resources import Claims
from flows.services import await_ray, check_ray
from flows.task_runner import TellingRayTaskRunner
from tasks.plan.pace import Paces
from tasks.stages import Opaque, generate_data, sweep, train
from tasks.work import DataKey, Requests, TrainingAnswer, data_key, lost_sweep, lost_training
from tasks.work.deadline import APART_LIMITS, limit_of

if TYPE_CHECKING:
    from prefect_ray.task_runners import PrefectRayFuture

    from tasks.plan import Shard
    from tasks.work.code import Code

_POLL_SECONDS = 0.5
_TOLD_SECONDS = 5.0  # for data sets of which nobody waits any more to be told of
_PATIENCE = 2.0  # times the longest limit of what was handed over
_GRACE_SECONDS = 120.0


class Workers:
    """Ray, as far as a run needs it. A context: task runs are submitted within it.

    Args:
        requests: what is wanted of each point.
        stored: opens what the store has by now: the safetensors file of a trained cell, by its id.
        board: where workers report what they do.
        claims: what a task run asks of Ray, and where it computes, by the name of its stage.
        code: what workers have to compute with.
        limit: seconds that a shard may take; None: as its planned work has it.
        paces: what the devices that compute need for what is planned, by kind of shard.
    """

    def __init__(
        self,
        requests: Requests,
        stored: Callable[[], Callable[[str], bytes]],
        board: SharedBoard,
        claims: Claims,
        code: Code,
        limit: float | None = None,
        paces: Paces = MappingProxyType({}),
    ) -> None:
        self._requests, self._stored, self._board, self._claims = requests, stored, board, claims
        self._code, self._limit, self._paces = Opaque(code), limit, paces
        self._runner = TellingRayTaskRunner()
        self._sets: dict[DataKey, PrefectRayFuture[Any]] = {}
        self._trained: dict[int, PrefectRayFuture[Any]] = {}  # by number of the shard, until it is swept
        self._waiting: dict[Any, _Handed] = {}
        self._no_data: Exception | None = None  # what has ended the making of some data set
        self._blamed: Counter[str] = Counter()  # nodes to which something was sent in vain

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
            limit = self._limit or limit_of(0.0)
            generated = self._submit(
                generate_data, name=_names_of(new), cells=Opaque(new), code=self._code, limit=limit
            )
            self._sets |= dict.fromkeys(new, generated)
        data = {id(future): future for future in map(self._sets.__getitem__, cells)}
        self._hand_over(Attempt(number, shard), train, data=list(data.values()))

    def sweep(self, number: int, shard: Shard) -> None:
        """Have a shard swept: with the weights of its training, if it had one here, and stored
        ones.
        """
        self._sweep(Attempt(number, shard), self._weights(shard), self._trained.pop(number, None))

    def ended(self, waiting: Callable[[], None]) -> Iterator[ShardTrained | ShardSwept | TriedAgain | GivenUp]:
        """What was handed over, as it ends, until nothing is left; `waiting` is called every half
        second.
        """
        since = time.monotonic()
        while self._waiting:
            with signals_as_raised():
                ready, _ = ray.wait(list(self._waiting), num_returns=1, timeout=_POLL_SECONDS)
                waiting()
            if not ready:
                check_ray()
            patience = _PATIENCE * max(handed.seconds for handed in self._waiting.values()) + _GRACE_SECONDS
            for reference in ready:
                yield from self._answer(self._waiting.pop(reference))
                since = time.monotonic()
            if not ready and time.monotonic() - since > patience:
                yield from self._give_up_waiting(patience)
                since = time.monotonic()
        sets = [future.wrapped_future for future in {id(one): one for one in self._sets.values()}.values()]
        if sets:
            ray.wait(sets, num_returns=len(sets), timeout=_TOLD_SECONDS)

    @property
    def busy(self) -> int:
        """Task runs of shards that were handed over and have not ended."""
        return len(self._waiting)

    def goes_on(self, number: int) -> bool:
        """Whether task runs of a shard have not ended."""
        return any(handed.attempt.number == number for handed in self._waiting.values())

    def _weights(self, shard: Shard) -> dict[str, bytes]:
        """The stored ones of the cells that are not trained here."""
        cells = [job.cell.id for job in shard.jobs if job.cell.training and not job.train]
        weights = self._stored() if cells else None
        return {cell: weights(cell) for cell in cells} if weights else {}

    def _sweep(
        self, attempt: Attempt, stored: Mapping[str, bytes], trained: PrefectRayFuture[Any] | None = None
    ) -> None:
        self._hand_over(attempt, sweep, stored=Opaque(stored), trained=trained, requests=Opaque(self._requests))

    def _hand_over(self, attempt: Attempt, stage: Task[..., Any], **parameters: Any) -> None:
        number, name = attempt.number, attempt.shard.name
        limit = self._limit or limit_of(attempt.shard.seconds(self._paces))
        reporter = self._board.reporter((stage.name, number), f"{stage.name} {name}")
        parameters |= {"reporter": Opaque(reporter), "code": self._code, "device": self._claims.devices[stage.name]}
        parameters |= {"shard": Opaque(attempt.shard), "limit": limit, "apart": attempt.apart}
        future = self._submit(stage, attempt.nodes[-1] if attempt.nodes else None, name=name, **parameters)
        seconds = limit * (APART_LIMITS if attempt.apart else 1.0)
        self._waiting[future.wrapped_future] = _Handed(attempt, stage, future, seconds)

    def _submit(self, stage: Task[..., Any], node: str | None = None, **parameters: Any) -> PrefectRayFuture[Any]:
        await_ray()
        place = {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=True)} if node else {}
        with remote_options(max_retries=0, **self._claims.options(stage.name), **place):
            return self._runner.submit(stage, parameters)

    def _elsewhere(self, attempt: Attempt) -> Attempt:
        """Sent to a living node where it was not yet, of these to the one that has failed least."""
        nodes = [str(node["NodeID"]) for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        new = [node for node in nodes if node not in attempt.nodes] or nodes
        if len(nodes) < 2:
            return attempt
        return replace(attempt, nodes=(*attempt.nodes, min(new, key=lambda node: self._blamed[node])))

    def _answer(self, handed: _Handed) -> Iterator[ShardTrained | ShardSwept | TriedAgain | GivenUp]:
        attempt = handed.attempt
        try:
            with signals_as_raised():
                answer = handed.future.result().content
        except Exception as error:  # noqa: BLE001 - whatever ended the worker, the other shards go on
            await_ray()
            yield from self._unanswered(handed, error)
            return
        if lacked := module_lacked(answer):
            yield from self._unanswered(handed, lacked)
        elif isinstance(answer, TrainingAnswer):
            self._trained[attempt.number] = handed.future
            yield ShardTrained(attempt.number, attempt.shard, answer, attempt.ends)
        else:
            yield ShardSwept(attempt.number, attempt.shard, answer, attempt.ends)

    def _unanswered(
        self, handed: _Handed, error: Exception
    ) -> Iterator[ShardTrained | ShardSwept | TriedAgain | GivenUp]:
        attempt, stage = handed.attempt, handed.stage
        training = stage is train
        if training and isinstance(error, UnfinishedRun):
            error = self._why_no_data() or error
        reason, machine = reason_of(error), of_a_machine(error)
        _record_crash(handed.future.task_run_id, stage, attempt.shard, reason)
        if training:
            self._sets.clear()  # which may be lost as well
        if machine:
            self._blamed.update(attempt.nodes[-1:])
        following = attempt.after(reason, machine=machine, training=training)
        if following:
            yield TriedAgain(attempt.shard, reason, len(following[0].ends) + 1)
        elif machine:
            yield GivenUp(attempt.number, attempt.shard, reason, of_other_code(error))
        elif training:
            yield ShardTrained(attempt.number, attempt.shard, lost_training(attempt.shard, reason), attempt.ends)
        else:
            yield ShardSwept(attempt.number, attempt.shard, lost_sweep(attempt.shard, reason), attempt.ends)
        for one in following:
            self._try_again(self._elsewhere(one) if machine else one, training=training)

    def _why_no_data(self) -> Exception | None:
        """What has ended the making of data sets: a training that waits for them only says that it
        could not start.
        """
        sets = {future.wrapped_future: future for future in self._sets.values()}
        for reference in ray.wait(list(sets), num_returns=len(sets), timeout=0)[0] if sets else []:
            try:
                sets[reference].result()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what happened
                self._no_data = error
        return self._no_data

    def _try_again(self, attempt: Attempt, *, training: bool) -> None:
        """Data sets are made anew with it, and weights are in the store by now."""
        if training and attempt.shard.trained:
            self._hand_over(attempt, train, data=[])
        else:
            asked = attempt.shard.asking(attempt.shard.questions)
            self._sweep(replace(attempt, shard=asked), self._weights(asked))

    def _give_up_waiting(self, patience: float) -> Iterator[ShardTrained | ShardSwept | TriedAgain | GivenUp]:
        """Take what was handed over for lost: Ray does not run it."""
        for reference, handed in list(self._waiting.items()):
            del self._waiting[reference]  # one by one: of a shard in parts, the others still go on
            with suppress(Exception):
                ray.cancel(reference, force=True)
            yield from self._unanswered(handed, NothingEnded(f"nothing ended within {patience:.0f} s"))


@dataclass(frozen=True)
class _Handed:
    """What was handed over to Ray, and has not ended."""

    attempt: Attempt
    stage: Task[..., Any]
    future: PrefectRayFuture[Any]
    seconds: float  # that it may take


def _names_of(sets: Collection[DataKey]) -> str:
    """Targets and seeds, for a person."""
    targets = ", ".join(dict.fromkeys(str(key[0]) for key in sets))
    seeds = sorted({int(key[1]) for key in sets})
    return f"{targets} seed {seeds[0]}" if len(seeds) == 1 else f"{targets}, {len(seeds)} seeds"


def _record_crash(task_run: UUID, stage: Task[..., Any], shard: Shard, reason: str) -> None:
    """Have Prefect's pages show a task run as crashed: nobody else can, and it would seem to run
    for ever, or not to be there.

    What a worker tells of the start of a task run is lost if it ends at once, its name included.
    Whatever Prefect cannot record, the store will, so this is no reason to stop.
    """
    name = f"{stage.name}: {shard.name}"
    try:
        with briefly(), get_client(sync_client=True) as client:
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
        with briefly(), get_client(sync_client=True) as client:
            for run in client.read_task_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run.id)])),
                task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=unfinished)),
            ):
                client.set_task_run_state(run.id, Crashed(message=reason), force=True)
    except Exception as error:  # noqa: BLE001 - as above
        get_run_logger().info("Prefect did not record the end of the task runs: %s", error)


@contextmanager
def signals_as_raised() -> Iterator[None]:
    """What the handler of a signal raises while Ray waits arrives as the cause of a SystemError;
    raise it itself.
    """
    try:
        yield
    except SystemError as error:
        if error.__cause__ is not None:
            raise error.__cause__ from None
        raise
