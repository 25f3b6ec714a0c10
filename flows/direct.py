"""A run of a study asked for from Python: what the command `run` does, without its words."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

from flows.request import RunRequest, check_shard_limit
from tasks.columns import metric_names
from tasks.results.beside import held_elsewhere, points_beside, refuse_strangers
from tasks.results.read import open_results
from tasks.results.stored import is_recorded, plan_for
from tasks.store import Store
from tasks.study import Study
from tasks.where.language import QueryError

if TYPE_CHECKING:
    import xarray as xr

    from tasks.compare import Comparison


@overload
def run(
    study: Study | str | Path,
    store: str = "results",
    overrides: Sequence[str] = (),
    *,
    ray: str | None = None,
    workers: int | None = None,
    retry_failed: bool = False,
    report: str | Path | None = None,
    device: str = "cpu",
    shard_limit: float | None = None,
    beside: None = None,
) -> xr.Dataset: ...


@overload
def run(
    study: Study | str | Path,
    store: str = "results",
    overrides: Sequence[str] = (),
    *,
    ray: str | None = None,
    workers: int | None = None,
    retry_failed: bool = False,
    report: str | Path | None = None,
    device: str = "cpu",
    shard_limit: float | None = None,
    beside: str,
) -> tuple[xr.Dataset, Comparison]: ...


def run(
    study: Study | str | Path,
    store: str = "results",
    overrides: Sequence[str] = (),
    *,
    ray: str | None = None,
    workers: int | None = None,
    retry_failed: bool = False,
    report: str | Path | None = None,
    device: str = "cpu",
    shard_limit: float | None = None,
    beside: str | None = None,
) -> xr.Dataset | tuple[xr.Dataset, Comparison]:
    """Run what a store lacks of a study, as the command `diffatlas run` does, and return its
    points.

    A study that is finished starts nothing.

    Args:
        study: a file, the name of a shipped study, or a study that was loaded.
        store: a folder, or ``s3://bucket/prefix``; made if it is not there.
        overrides: changes to what is loaded, such as ``"steps=[1, 2, 4]"``.
        ray: the address of an existing Ray cluster; None: workers on this machine.
        workers: how many of them; None: as many as cores.
        retry_failed: compute points again that failed before.
        report: where the page goes; None: ``reports/NAME.html``.
        device: where workers compute: ``cpu``, ``cuda``, or ``auto``, which is ``cuda`` if a node of
            the Ray cluster has a GPU.
        shard_limit: minutes that a shard may take before its worker is ended, and what hangs in it is
            looked for and has failed; None: ten times what is planned, and ten at least.
        beside: another store, such as ``"atlas:"``, whose numbers are compared with the study's.

    Returns:
        The study's points, as `open_results` has them; failed ones have the reason in `error`. With
        `beside` also how they compare with the other store's, which are those before.

    Raises:
        StudyError: the study cannot be used.
        StoreUnavailable: the store cannot be written, or another run has it.
        ServiceUnavailable: Prefect or Ray does not start.
        WrongResources: no such device, or the cluster has none.
        WrongValue: `shard_limit` is no number of minutes, or too short.
        QueryError: the other store has none of the study's points, found before anything runs, or
            none of its metrics.
    """
    check_shard_limit(shard_limit)
    made = plan_for(study, store, overrides, retry_failed=retry_failed)
    if beside is not None:
        refuse_strangers("beside", [held_elsewhere(made.study, beside)])
    if made.jobs or not Store.exists(store) or not is_recorded(Store.open(store), made):
        from flows.start import start

        with tempfile.TemporaryDirectory() as folder:
            source = study
            if isinstance(study, Study):
                source = Path(folder) / f"{study.name}.yaml"
                source.write_text(json.dumps(study.spec()))  # JSON is YAML
            start(
                RunRequest(
                    str(source),
                    store,
                    tuple(overrides),
                    ray_address=ray,
                    workers=workers,
                    retry_failed=retry_failed,
                    report=None if report is None else str(report),
                    device=device,
                    shard_limit=shard_limit,
                )
            )
    import tasks.accessor  # noqa: F401 - gives the points their `atlas`

    points = open_results(store, made.study.name)
    return points if beside is None else (points, compared_beside(made.study, points, beside))


def compared_beside(study: Study, points: xr.Dataset, store: str) -> Comparison:
    """A study's points compared with those of another store that stand for the same questions.

    Raises:
        QueryError: the other store measured none of the study's metrics.
    """
    from tasks.compare import compare

    other = points_beside(points, store)
    here, there = set(metric_names(points)), set(metric_names(other))
    wanted = [metric.column for metric in study.metrics if metric.column in here & there]
    if not wanted:
        theirs, ours = (", ".join(sorted(names)) or "nothing" for names in (there, here))
        raise QueryError(f"nothing can be compared: {store} measured {theirs}, and here it is {ours}")
    return compare(other, points, wanted)
