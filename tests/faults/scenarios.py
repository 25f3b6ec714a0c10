"""What the killed processes do: commands on a folder, each with what was there before, and a count
of what they compute.

The folder holds the store ``results`` and, where a command exports, the exported files. Every
command may be given again.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import tasks.failpoints
import tasks.work.shard
import tasks.work.stacks
from diffusion.training import train as train_stack
from tasks.plan import Cell
from tasks.results import Answers
from tasks.results.export import export
from tasks.store import Store
from tasks.work.data import data_key, training_set
from tests.tasks import tiny_store
from tests.tasks.tiny_store import SPEC, answer

GOLDEN = Path(__file__).resolve().parents[1] / "tasks" / "golden" / "schema-1.tar.gz"
FORMS = ("zarr", "netcdf", "parquet")

ONE = {**SPEC, "name": "one", "datasets": ["gaussian"], "samples": 40, "seeds": 1}
SHORT = {**ONE, "samplers": ["heun"]}
GROWN = {**ONE, "samplers": ["heun"], "steps": [1, 3, 4], "seeds": 2}
MEASURED = {**ONE, "metrics": ["w1", "ks", "energy"]}
DIVERGING = {**SPEC["training"], "steps": 40, "learning_rate": 1000.0}
MIXED: dict[str, Any] = {  # two dimensions, a network that diverges, and questions without an answer
    **SPEC,
    "name": "mixed.2-D",
    "datasets": ["eight_gaussians"],
    "samples": 40,
    "seeds": 1,
    "samplers": ["ddim"],
    "steps": [2, 101],
    "metrics": ["energy"],
    "grids": [{"formulations": ["edm"], "training": DIVERGING}, {"formulations": ["ddpm"], "steps": [3, 100]}],
    "exclude": [{"formulation": "edm", "steps": [101]}],
}


@dataclass(frozen=True)
class Scenario:
    """A command, and what there was before it."""

    before: Callable[[Path], Any]
    act: Callable[[Path], Any]


def uri(folder: Path) -> str:
    return str(folder / "results")


def exported(folder: Path, form: str) -> Path:
    return folder / f"points.{form}"


def _nothing(_: Path) -> None:
    """There is no store."""


def _computes(spec: dict[str, Any]) -> Callable[[Path], Any]:
    return lambda folder: answer(uri(folder), spec)


def _golden(folder: Path) -> None:
    with tarfile.open(GOLDEN) as packed:
        packed.extractall(folder, filter="data")
    (folder / "store").rename(folder / "results")


def _with_history(folder: Path) -> None:
    for spec in (SHORT, {**SHORT, "steps": [1, 3, 4]}, MEASURED, GROWN):
        answer(uri(folder), spec)
    store = Store.open(uri(folder))
    store.tag("kept", store.history()[6]["snapshot"])


def _collect(folder: Path) -> None:
    Store.open(uri(folder)).gc(datetime.now(UTC), youngest=timedelta(0))


def _with_exports(folder: Path) -> None:
    answer(uri(folder), SHORT)
    for form in FORMS[:2]:
        export(Answers(Store.open(uri(folder))), form, exported(folder, form))
    answer(uri(folder), ONE)


def _export(folder: Path) -> None:
    for form in FORMS:
        answers = Answers(Store.open(uri(folder)), "one")
        export(answers, form, exported(folder, form), samples=form != "parquet", overwrite=True)


SCENARIOS = {
    "new": Scenario(_nothing, _computes(ONE)),
    "grown": Scenario(_computes(SHORT), _computes(GROWN)),
    "measured": Scenario(_computes(SHORT), _computes(MEASURED)),
    "mixed": Scenario(_computes(SHORT), _computes(MIXED)),
    "migrated": Scenario(_golden, _computes(ONE)),
    "collected": Scenario(_with_history, _collect),
    "exported": Scenario(_with_exports, _export),
}


# --- processes of their own -----------------------------------------------------------------------

_processes = multiprocessing.get_context("forkserver")  # never a fork of a process that has opened a repository
_processes.set_forkserver_preload(["tests.faults.warm"])


def in_a_process(work: Callable[..., None], *arguments: Any) -> int:
    """Run a function of this module in a process of its own; its exit code."""
    process = _processes.Process(target=work, args=arguments)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def prepare(name: str, folder: Path) -> None:
    """Make what there is before a command."""
    SCENARIOS[name].before(folder)


def act(name: str, folder: Path, log: Path, failpoint: str = "") -> None:
    """Give the command, count in `log` what it computes, and die where `failpoint` says."""
    os.environ[tasks.failpoints.VARIABLE] = failpoint
    _count_into(log)
    SCENARIOS[name].act(folder)


def take_census(name: str, folder: Path, log: Path, census: Path) -> None:
    """Give the command undisturbed, and file how often it came to each place."""
    act(name, folder, log, "no such place")
    census.write_text(json.dumps(tasks.failpoints.passed))


def _count_into(log: Path) -> None:
    """Write a line for each training set drawn, network trained and question asked, before it is
    done.
    """

    def found(kind: str, keys: Sequence[str]) -> None:
        with log.open("a") as file:
            file.writelines(f"{kind} {key}\n" for key in keys)

    shard = tasks.work.shard
    generate, train, ask = training_set, train_stack, shard._answered_together

    def counted_generate(cell: Cell) -> Any:
        found("generate", ["/".join(map(str, data_key(cell)))])
        return generate(cell)

    def counted_train(members: Any, *more: Any) -> Any:
        found("train", [member.key for member in members])
        return train(members, *more)

    def counted_ask(points: Any, *more: Any) -> Any:
        found("ask", [point.id for point in points])
        return ask(points, *more)

    for module, name, counted in (
        (tiny_store, "training_set", counted_generate),
        (tasks.work.stacks, "train", counted_train),
        (shard, "_answered_together", counted_ask),
    ):
        assert hasattr(module, name)
        setattr(module, name, counted)
