"""What is promised of a GPU, held against one: equal bits, agreement with the processor, speed.

``python -m tests.gpu.check`` (``make gpu-check``) takes at most eight minutes on a device of the
H200's class, prints a table and writes ``gpu-check.json``; its exit code is 1 if a promise is not
kept. ``--device cpu --quick`` goes the same way on a processor, where rates mean nothing.

All of one study's work is timed as its workers do it, without Prefect, Ray and the store.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from scipy import stats
from torch import Tensor

from diffusion.datasets import Dataset, EightGaussians, Gaussian, PointSet, TwoMoonsPosterior, Uniform
from diffusion.devices import HOST, unreproducible
from diffusion.formulations import ElucidatedDM, Formulation, formulations
from diffusion.formulations.base import Trained
from diffusion.networks import architectures
from diffusion.philox import philox
from diffusion.randomness import stream
from diffusion.replay import NOT_CAPTURED
from diffusion.training import Member, Training, train
from diffusion.training.placement import Placement
from tasks.plan import make_plan
from tasks.study import load_study
from tasks.work import Requests, data_key, left_to_sweep, sweep_shard, train_shard, training_sets
from tasks.work.placing import device_of_worker, gpu_label
from tests.benchmarks.training import plain_loop
from tests.diffusion.taught import examples

LONGEST = 480.0
"""Seconds of the whole examination."""

FALSE_ALARM = 1e-3
"""Of all comparisons of the processor with the device together."""

SMALL: dict[str, dict[str, Any]] = {"implicit-score-matching": {"trace": "hutchinson"}, "ncsn-separate": {"levels": 2}}


@dataclass(frozen=True)
class Sizes:
    """How much is done."""

    steps: int = 3000
    members: int = 64
    width: int = 128
    batch: int = 512
    loop_steps: int = 300
    agreeing_steps: int = 400
    matrix: int = 8192
    copied: int = 2**30  # numbers
    study: str = "uniform"
    compared: tuple[str, ...] | None = None  # formulations; all


QUICK = Sizes(
    steps=4,
    members=3,
    width=16,
    batch=32,
    loop_steps=2,
    agreeing_steps=4,
    matrix=64,
    copied=2**12,
    study="smoke",
    compared=("ddpm", "edm", "vp"),
)


@dataclass(frozen=True)
class Line:
    """One of the table."""

    what: str
    found: str
    kept: bool | None  # None: nothing is promised


@dataclass(frozen=True)
class Under:
    """A device under examination, and how much of it is done."""

    device: torch.device
    sizes: Sizes

    def place(self, members: int) -> Placement:
        """As the device has it; on the host the same way without graphs."""
        found = Placement.on(self.device, members)
        return found if found.bucket else Placement(HOST, drawn_there=True, bucket=8, static=True)

    def seconds(self, work: Callable[[], object]) -> float:
        """Of some work, until the device has done it."""
        self.wait()
        begun = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - begun

    def wait(self) -> None:
        """For the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


# --- equal bits -----------------------------------------------------------------------------------


def _members(
    count: int, law: Dataset, names: Sequence[str] = ("edm", "vp", "edm2", "iddpm")
) -> list[tuple[Member, Tensor]]:
    found = []
    for m in range(count):
        formulation = formulations.create(names[m % len(names)])
        schedule = formulation.own_schedule().fitted(law)
        found.append((Member(law, formulation, schedule, f"member {m}"), law.sample(4096, stream("data", m))))
    return found


def _rows(given: Sequence[tuple[Member, Tensor]], settings: Training, place: Placement) -> dict[str, Tensor]:
    stack = train([one for one, _ in given], [data for _, data in given], settings, device=place)
    return {one.key: stack.rows[m].to(HOST) for m, (one, _) in enumerate(given)}


@dataclass(frozen=True)
class Pictures(PointSet):
    """Four pictures of 8 x 8 pixels."""

    @property
    def points(self) -> Tensor:
        return torch.eye(64, dtype=torch.float64)[::16]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return 1, 8, 8


def equal_bits(under: Under) -> Iterator[Line]:
    """Weights of one stack, trained in other company and in other ways; answers; integers."""
    settings = Training(steps=min(under.sizes.steps, 200), batch=under.sizes.batch, width=under.sizes.width, depth=3)
    given = _members(6, EightGaussians())
    place = under.place(len(given))
    yield from _equal_rows("", given, settings, place)
    for name in ("unet", "transformer"):
        small = Training(
            steps=min(under.sizes.steps, 20), batch=32, width=16, depth=1, network=architectures.create(name)
        )
        yield from _equal_rows(f"{name}, ", _members(6, Pictures()), small, place)
    yield _equal_samples(under, given, settings, place)
    yield _equal_integers(under)
    if torch.cuda.device_count() > 1:
        yield _equal_on_the_second(given, settings)


def _equal_rows(
    of: str, given: Sequence[tuple[Member, Tensor]], settings: Training, place: Placement
) -> Iterator[Line]:
    whole = _rows(given, settings, place)
    lost = (given[0][0], torch.full_like(given[0][1], torch.nan))
    ways: dict[str, Callable[[], dict[str, Tensor]]] = {
        "twice": lambda: _rows(given, settings, place),
        "in other places": lambda: _rows(given[::-1], settings, place),
        "alone in the bucket": lambda: _rows(given[2:3], settings, place),
        "beside NaN": lambda: _rows([*given[1:3], (replace(lost[0], key="lost"), lost[1])], settings, place),
        "graph against eager": lambda: _rows(given, settings, replace(place, recorder=None)),
    }
    for name, way in ways.items():
        found = way()
        equal = [torch.equal(found[key], whole[key]) for key in found if key in whole]
        yield Line(f"equal bits: {of}{name}", f"{sum(equal)} of {len(equal)} members", all(equal))


def _equal_samples(under: Under, given: Sequence[tuple[Member, Tensor]], settings: Training, place: Placement) -> Line:
    """Answers of the trained networks, captured and one by one."""
    stack = train([one for one, _ in given], [data for _, data in given], settings, device=place)
    x = torch.randn(len(given), 1000, 2, generator=stream("points"), dtype=torch.float64).to(under.device)
    level = torch.full((len(given),), 0.5, dtype=torch.float64, device=under.device)
    answers = stack.denoiser(x, torch.ones_like(level), level)
    with torch.no_grad():
        eager = stack.model.answers(x, torch.ones_like(level), level)  # type: ignore[attr-defined]
    again = stack.denoiser(x, torch.ones_like(level), level)
    equal = torch.equal(answers, eager) and torch.equal(answers, again)
    return Line("equal bits: a denoiser's graph against eager", "equal" if equal else "other", equal)


def _equal_integers(under: Under) -> Line:
    words = torch.randint(2**32, (6, 10_000), generator=stream("integers"))

    def drawn(device: torch.device) -> list[Tensor]:
        a, b, c, d, k, m = words.to(device)
        return [part.to(HOST) for part in philox((a, b, c, d), (k, m))]

    equal = all(torch.equal(one, other) for one, other in zip(drawn(HOST), drawn(under.device), strict=True))
    return Line("the integers of the training noise are the host's", "equal" if equal else "other", equal)


def _equal_on_the_second(given: Sequence[tuple[Member, Tensor]], settings: Training) -> Line:
    """A graph of a GPU that is not the current one."""
    place = Placement.on(torch.device("cuda", 1), len(given))
    found, eager = (_rows(given, settings, one) for one in (place, replace(place, recorder=None)))
    equal = [torch.equal(found[key], eager[key]) for key in found]
    return Line("equal bits: graph against eager on cuda:1", f"{sum(equal)} of {len(equal)} members", all(equal))


# --- the processor beside it ----------------------------------------------------------------------


def agreement(under: Under) -> Iterator[Line]:
    """The loss at which eight seeds of each formulation end, here and there: Welch's test."""
    names = under.sizes.compared or [entry.name for entry in formulations if issubclass(entry.cls, Trained)]
    settings = Training(steps=under.sizes.agreeing_steps, batch=128, width=32, depth=2, data=4096)
    worst: list[tuple[float, str]] = []
    for name in names:
        formulation = formulations.create(name, **SMALL.get(name, {}))
        law = law_for(formulation, settings)
        if law is None:
            yield Line(f"agrees with the processor: {name}", "not compared: no data set here serves it", kept=False)
            continue
        ends = [_ends(formulation, law, settings, place) for place in (Placement(), under.place(8))]
        worst.append((float(stats.ttest_ind(*ends, equal_var=False).pvalue), name))
    tests = len(worst)
    yield Line("formulations compared with the processor", f"{tests} of {len(names)}", tests == len(names))
    for p, name in worst_first(worst)[:3]:
        yield Line(
            f"agrees with the processor, of {tests} formulations: {name}", f"p = {p:.2g}", p > FALSE_ALARM / tests
        )


def worst_first(found: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """p-values with names from the smallest on; one that is no number is the worst of all."""
    return sorted(found, key=lambda one: (-1.0 if math.isnan(one[0]) else one[0], one[1]))


def law_for(formulation: Formulation, settings: Training) -> Dataset | None:
    """The first that formulation and network serve."""
    for law in (EightGaussians(), Gaussian(dim=2), TwoMoonsPosterior()):
        refused = isinstance(formulation, Trained) and formulation.refuses_network(law, settings)
        if not refused and formulation.refuses_dataset(law) is None:
            return law
    return None


def _ends(formulation: Formulation, law: Dataset, settings: Training, place: Placement) -> list[float]:
    schedule = formulation.own_schedule().fitted(law)
    members, data = [], []
    for seed in range(8):
        members.append(Member(law, formulation, schedule, f"{formulation.label()} {seed}"))
        data.append(examples(formulation, law, settings.data, stream("data", seed)))
    losses = train(members, data, settings, device=place).losses
    return [float(one) for one in losses[:, -min(16, losses.shape[1]) :].double().mean(1)]


# --- speed ----------------------------------------------------------------------------------------


def speed(under: Under) -> Iterator[Line]:
    """A stack beside the plain loop, and beside what the device can do."""
    s, bound = under.sizes, under.sizes == Sizes()
    settings = Training(steps=s.steps, batch=s.batch, width=s.width, depth=3)
    edm = ElucidatedDM()
    members = [Member(Uniform(), edm, edm.own_schedule(), f"member {m}") for m in range(s.members)]
    data = [Uniform().sample(10_000, stream("data"))] * s.members
    place = under.place(s.members)
    train(members, data, replace(settings, steps=min(s.steps, 100)), device=place)  # what is done once is done
    took = under.seconds(lambda: train(members, data, settings, device=place))
    yield Line(
        f"{s.members} members, width {s.width}, batch {s.batch}, {s.steps} steps: at most 3 s",
        f"{took:.2f} s",
        took <= 3 if bound else None,
    )
    plain_loop(s.width, s.batch, min(s.loop_steps, 20), device=under.device)
    alone = under.seconds(lambda: plain_loop(s.width, s.batch, s.loop_steps, device=under.device))
    ratio = (alone / s.loop_steps) / (took / s.steps / s.members)
    yield Line(
        "a model's step in the plain loop / in the stack: at least 20", f"{ratio:.1f}", ratio >= 20 if bound else None
    )
    network = edm.network(Uniform(), settings)
    rate = 3 * network.flops() * s.batch * s.members * s.steps / took
    product, copied = product_rate(under), copy_rate(under)
    yield Line("float32 products, measured", f"{product / 1e12:.2f} TFLOP/s", None)
    yield Line("training's products beside it", f"{100 * rate / product:.1f} %", None)
    touched = _bytes_of_a_step(s, settings.depth) * s.steps / took
    yield Line("copies in memory, measured", f"{copied / 1e12:.2f} TB/s", None)
    yield Line(
        "training's hidden units, each read and written once a layer and way, beside it",
        f"{100 * touched / copied:.0f} %",
        None,
    )


def _bytes_of_a_step(s: Sizes, depth: int) -> float:
    return 2 * 2 * 4.0 * s.members * s.batch * s.width * depth


def product_rate(under: Under) -> float:
    """Operations a second of one large float32 product."""
    n = under.sizes.matrix
    a, b = (torch.randn(n, n, generator=stream("product", i)).to(under.device) for i in range(2))
    a @ b
    return 2 * n**3 * 3 / under.seconds(lambda: [a @ b for _ in range(3)])


def copy_rate(under: Under) -> float:
    """Bytes a second, read and written, of one large copy."""
    a = torch.randn(under.sizes.copied, device=under.device)
    b = torch.empty_like(a)
    b.copy_(a)
    return 2 * 4 * len(a) * 3 / under.seconds(lambda: [b.copy_(a) for _ in range(3)])


def study(under: Under) -> Iterator[Line]:
    """The whole compute of the demo's study, as one worker does it."""
    demo = under.sizes == Sizes()
    asked = load_study(under.sizes.study, [] if demo else ["training.steps=2", "samples=64", "seeds=1"])
    plan = make_plan(asked, {}, ())
    shards = list(plan.shards(1))
    sets = training_sets({data_key(job.cell): job.cell for shard in shards for job in shard.jobs if job.train})
    requests = Requests(asked.metrics, False, frozenset())
    failed: list[str] = []

    def computed() -> None:
        for shard in shards:
            trained = train_shard(shard, sets, device=under.device.type) if shard.trained else None
            left = left_to_sweep(shard, trained) if trained else shard
            if left:
                weights = trained.weights if trained else {}
                answers = sweep_shard(left, weights, requests, device=under.device.type).points
                failed.extend(answer.error for answer in answers if answer.error)

    took = under.seconds(computed)
    yield Line(
        f"all of study {under.sizes.study!r}, {len(plan.points)} points: at most 30 s",
        f"{took:.1f} s",
        took <= 30 if demo else None,
    )
    yield Line("its points that failed", f"{len(failed)} {failed[0] if failed else ''}".strip(), not failed)


PARTS = (equal_bits, agreement, speed, study)


def examined(under: Under, console: Console, parts: Sequence[Callable[[Under], Iterator[Line]]] = PARTS) -> list[Line]:
    """All lines, told one after the other, and whether all was captured that was to be."""
    lines = []

    def tell(line: Line) -> None:
        lines.append(line)
        console.print(f"{_verdict(line):7} {line.what}: {line.found}", highlight=False, markup=False)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for part in parts:
            for line in part(under):
                tell(line)
    for one in told:
        console.print(f"        warning: {one.message}", highlight=False, markup=False)
    failed = [str(one.message) for one in told if str(one.message).startswith(NOT_CAPTURED)]
    tell(Line("captured as CUDA graphs", failed[0] if failed else "all that was to be", not failed))
    return lines


def _verdict(line: Line) -> str:
    return "" if line.kept is None else "kept" if line.kept else "BROKEN"


def in_time(took: float, sizes: Sizes) -> Line:
    """Whether the examination kept its own limit."""
    found = f"{took:.0f} s"
    return Line(f"the examination: at most {LONGEST:.0f} s", found, took <= LONGEST if sizes == Sizes() else None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Examine, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="a little of everything; no rate is judged")
    parser.add_argument("--out", type=Path, default=Path("gpu-check.json"))
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    device = device_of_worker(asked.device)
    under = Under(device, QUICK if asked.quick else Sizes())
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "host"
    console, begun = Console(stderr=True), time.perf_counter()
    lines = examined(under, console)
    took = time.perf_counter() - begun
    lines.append(in_time(took, under.sizes))
    table = Table("promise", "found", "", title=f"{gpu_label(name, ())}: {took:.0f} s")
    for line in lines:
        table.add_row(line.what, line.found, _verdict(line))
    Console(width=130).print(table)
    document = {
        "device": gpu_label(name, ()),
        "seconds": took,
        "unreproducible": unreproducible() if device.type == "cuda" else [],
        "lines": [asdict(line) for line in lines],
    }
    asked.out.write_text(json.dumps(document, indent=1))
    return int(any(line.kept is False for line in lines))


if __name__ == "__main__":
    sys.exit(main())
