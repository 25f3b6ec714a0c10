"""What listens to a run beside the display: it commits, counts, keeps a log, and fills Prefect's
pages.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import StringIO
from typing import TYPE_CHECKING, Any

from prefect import get_run_logger
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from rich.console import Console

from flows.events import (
    Committed,
    Compared,
    Emit,
    Event,
    GivenUp,
    Hindered,
    MetricNotMeasured,
    Planned,
    Progressed,
    Reported,
    ShardDone,
    ShardIncomplete,
    ShardSwept,
    ShardTrained,
    Started,
    Swept,
    TriedAgain,
)
from tasks.compare import table
from tasks.messages import counted
from tasks.query.tables import failure_lines, summary_records
from tasks.results.provenance import provenance
from tasks.results.rows import swept_rows, trained_rows
from tasks.results.stored import is_recorded, record
from tasks.stages import Opaque, commit
from tasks.store import StoreUnavailable

if TYPE_CHECKING:
    from diffusion.metrics import BaseMetric
    from flows.pages import Pages
    from tasks.plan import Plan
    from tasks.store import Coordinator, Rows, Store
    from tasks.work.code import Code

_ARTIFACT_SECONDS = 3.0
_NOT_ALL = 99.9  # percent, where rounding would say 100
AWAY_SECONDS = 180.0
"""How long a commit is tried again while object storage does not answer; workers go on meanwhile."""

_AGAIN_SECONDS = 5.0


class Committer:
    """Commits what is planned, trained and swept, each in a transaction of its own, and says so.

    Args:
        study: its name.
        metrics: what measures the answers.
        store: where it commits.
        coordinator: the right to write there.
        started: who started the run; part of the provenance of every commit.
        code: what computes.
        train_seconds: of cells that were trained before, by id.
        emit: where it says so.
    """

    def __init__(
        self,
        study: str,
        metrics: Sequence[BaseMetric],
        store: Store,
        coordinator: Coordinator,
        started: Mapping[str, str],
        code: Code,
        train_seconds: Mapping[str, float],
        emit: Emit,
    ) -> None:
        self._study, self._store, self._coordinator = study, store, coordinator
        self._metrics = metrics
        self._started, self._code, self._emit = {**started, "code": code.digest}, code, emit
        self._train_seconds = dict(train_seconds)

    def __call__(self, event: Event) -> None:
        match event:
            case Planned(plan) if not is_recorded(self._store, plan):
                self._record(plan)
            case ShardTrained():
                self._train_seconds |= {cell.cell.id: cell.seconds for cell in event.answer.cells}
                self._commit(f"trained {event.shard.name}", trained_rows(event.answer, self._code), event)
            case ShardSwept():
                rows = swept_rows(event.answer, self._train_seconds, self._code, self._metrics)
                self._commit(f"swept {event.shard.name}", rows, event)

    def _record(self, plan: Plan) -> None:
        made = provenance(self._study, **self._started)
        self._carry_out(f"{counted(len(plan.points), 'point')} asked", lambda: record(self._coordinator, plan, made))

    def _commit(self, what: str, rows: Rows, event: ShardTrained | ShardSwept) -> None:
        answer, ends = event.answer, event.ends
        tries = {"tries": str(len(ends) + 1), "earlier_tries": "; ".join(ends)} if ends else {}
        about = {"device": answer.device, "shard_seconds": f"{answer.seconds:.1f}", **tries}
        made = provenance(self._study, **about, **self._started)
        self._carry_out(what, lambda: self._coordinator.commit(rows, f"study {self._study}: {what}", made))

    def _carry_out(self, what: str, transaction: Callable[[], str]) -> None:
        snapshot = commit(what, Opaque(partial(self.patiently, transaction))).content
        self._emit(Committed(what, snapshot))

    def patiently(self, transaction: Callable[[], str]) -> str:
        """Carry out a transaction, again and again while object storage does not answer.

        Raises:
            StoreUnavailable: it did not for `AWAY_SECONDS`, or a folder cannot be written.
        """
        began, told = time.monotonic(), False
        while True:
            try:
                return transaction()
            except StoreUnavailable as error:
                waits = error.may_pass and self._store.distant
                if not waits or time.monotonic() - began > AWAY_SECONDS:
                    raise
                if not told:
                    self._emit(Hindered(f"{error}; the commit is tried again for {AWAY_SECONDS / 60:g} minutes"))
                    told = True
            time.sleep(_AGAIN_SECONDS)


class Tally:
    """Counts what a run does."""

    def __init__(self) -> None:
        self.computed = self.trained = self.committed = 0

    def __call__(self, event: Event) -> None:
        match event:
            case ShardTrained():
                self.computed += len(event.answer.points)
                self.trained += len(event.answer.weights)
            case ShardSwept():
                self.computed += len(event.answer.points)
            case Committed():
                self.committed += 1


class RunLog:
    """The log of the flow run, in Prefect's pages."""

    def __init__(self) -> None:
        self._log = get_run_logger()

    def __call__(self, event: Event) -> None:
        match event:
            case Committed(message):
                self._log.info("committed: %s", message)
            case ShardDone():
                self._log.info("shard done: %s", event.shard.name)
            case MetricNotMeasured(reason):
                self._log.warning("not measured: %s", reason)
            case Hindered(reason):
                self._log.warning(reason)
            case TriedAgain(shard, reason, tries):
                self._log.warning("try %d: %s: %s", tries, shard.name, reason)
            case GivenUp(_, shard, reason):
                self._log.error("not computed: %s: %s", shard.name, reason)
            case ShardIncomplete(_, shard, lacking):
                self._log.error(
                    "shard not complete: %s: %d of %d points not computed", shard.name, lacking, len(shard.questions)
                )
            case Reported():  # all of the study: those that failed in an earlier run as well
                for line in failure_lines(event.answers.points):
                    self._log.warning(line.strip())


class Artifacts:
    """Progress, summary, address of the report and what moved, in Prefect's pages."""

    def __init__(self, study: str, metrics: list[str], pages: Pages) -> None:
        self._study, self._metrics, self._pages = study, metrics, pages
        self._about: dict[str, Any] = {"description": f"study {study}"}
        self._progress: Any = None  # the artifact's id
        self._last_update = time.monotonic()
        self._percent, self._complete = 0.0, True

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self._update(0.0)
            case Progressed():
                self._percent = 100 * event.fraction
                if time.monotonic() - self._last_update > _ARTIFACT_SECONDS:
                    self._update(self._percent)
            case ShardIncomplete():
                self._complete = False
            case Swept():
                self._update(100.0 if self._complete else min(self._percent, _NOT_ALL))
            case Reported():
                records = summary_records(event.answers.points, self._metrics)
                self._tell("summary", partial(create_table_artifact, records, **self._about))
                page = event.page.resolve().as_uri()
                link = partial(create_link_artifact, page, link_text=str(event.page), description="the report")
                self._tell("report", link)
            case Compared():
                about = f"study {self._study}: what moved since snapshot {event.since}"
                text = f"{event.summary}\n\n```\n{_as_text(event)}\n```\n"
                self._tell("moved", partial(create_markdown_artifact, text, description=about))

    def _update(self, percent: float) -> None:
        self._last_update = time.monotonic()
        self._pages.tell("progress", partial(self._tell_progress, round(percent, 1)))

    def _tell_progress(self, percent: float) -> None:
        if self._progress is None:
            self._progress = create_progress_artifact(percent, key=self._key("progress"), **self._about)
        else:
            update_progress_artifact(self._progress, percent)

    def _tell(self, what: str, create: Callable[..., object]) -> None:
        self._pages.tell(what, partial(create, key=self._key(what)))

    def _key(self, what: str) -> str:
        safe = "".join(c if c.isalnum() else "-" for c in self._study.lower()).strip("-")
        return f"{safe}-{what}"


def _as_text(event: Compared) -> str:
    page = Console(width=100, record=True, file=StringIO())
    page.print(table(event.comparison, 100))
    return page.export_text()
