"""The stages of a run as Prefect shows them: generate data, train, sweep, commit, report.

The only room here that knows Prefect, and a thin one: a task names its run and calls what does the
work. The first three run on workers, which have to have the `code` of the run, the last two in the
process that holds the store. Done means committed in the store: Prefect's caches and stored results
play no part.

What a task's function names at its top travels to the workers with it, so the last two import
within themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.work import sweep_shard, train_shard, training_sets
from tasks.work.code import check
from tasks.work.deadline import APART_LIMITS, ends_after
from tasks.work.guilty import sweep_apart, train_apart
from tasks.work.raised import of_the_work

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.plan import Cell, Shard
    from tasks.results.models import ModelledAnswers
    from tasks.work import DataAnswer, DataKey, Requests, SweepAnswer, TrainingAnswer
    from tasks.work.code import Code

T = TypeVar("T")


class Opaque(Generic[T]):
    """A value that Prefect passes on without looking inside, where it would search every field for
    futures.
    """

    def __init__(self, content: T) -> None:
        self.content = content


class Reporter(Protocol):
    """Follows the work of one task run: `tasks.work.Progress`, and when it is taken up, also for
    the second time.
    """

    def begin(self) -> None: ...

    def __call__(self, seconds: float, cells: int, points: int, doing: str = "", /) -> object: ...


@task(name="generate data", task_run_name="data: {name}", cache_policy=NO_CACHE, persist_result=False)
def generate_data(
    name: str,  # noqa: ARG001 - of the run
    cells: Opaque[Mapping[DataKey, Cell]],
    code: Opaque[Code],
    limit: float,
) -> Opaque[DataAnswer]:
    """The training sets ``[n, dim]`` of some targets and seeds, with a cell each that learns from
    it; within `limit` seconds.
    """
    check(code.content)
    with of_the_work(), ends_after(limit):
        return Opaque(training_sets(cells.content))


@task(name="train", task_run_name="train: {name}", cache_policy=NO_CACHE, persist_result=False)
def train(
    name: str,  # noqa: ARG001 - of the run
    shard: Opaque[Shard],
    data: list[Opaque[DataAnswer]],
    reporter: Opaque[Reporter],
    code: Opaque[Code],
    device: str,
    limit: float,
    apart: bool = False,
) -> Opaque[TrainingAnswer]:
    """Train the cells of a shard within `limit` seconds; `data` hold their training sets, and maybe
    those of others. What is trained `apart` needs none.
    """
    check(code.content)
    reporter.content.begin()
    if apart:
        with of_the_work(), ends_after(APART_LIMITS * limit):
            return Opaque(train_apart(shard.content, limit, reporter.content, device))
    sets = {key: found for one in data for key, found in one.content.items()}
    with of_the_work(), ends_after(limit):
        return Opaque(train_shard(shard.content, sets, reporter.content, device))


@task(name="sweep", task_run_name="sweep: {name}", cache_policy=NO_CACHE, persist_result=False)
def sweep(
    name: str,  # noqa: ARG001 - of the run
    shard: Opaque[Shard],
    stored: Opaque[Mapping[str, bytes]],
    trained: Opaque[TrainingAnswer] | None,
    requests: Opaque[Requests],
    reporter: Opaque[Reporter],
    code: Opaque[Code],
    device: str,
    limit: float,
    apart: bool = False,
) -> Opaque[SweepAnswer]:
    """Ask every question of a shard within `limit` seconds, here or `apart`: of cells whose weights
    are `stored`, of those that were just `trained`, or of exact ones.
    """
    check(code.content)
    reporter.content.begin()
    weights = {**stored.content, **(trained.content.weights if trained else {})}
    if apart:
        with of_the_work(), ends_after(APART_LIMITS * limit):
            return Opaque(sweep_apart(shard.content, weights, requests.content, limit, reporter.content, device))
    with of_the_work(), ends_after(limit):
        return Opaque(sweep_shard(shard.content, weights, requests.content, reporter.content, device))


@task(name="commit", task_run_name="commit: {what}", cache_policy=NO_CACHE, persist_result=False)
def commit(what: str, transaction: Opaque[Callable[[], str]]) -> Opaque[str]:  # noqa: ARG001 - `what` names the run
    """Carry out one transaction of the store; the snapshot's id."""
    return Opaque(transaction.content())


@task(name="report", task_run_name="report: {study}", cache_policy=NO_CACHE, persist_result=False)
def report(study: str, answers: Opaque[ModelledAnswers], page: Opaque[Path]) -> None:  # noqa: ARG001 - the study names the run
    """Draw a study's page."""
    from tasks.report.page.files import write_report

    write_report(answers.content, page.content)
