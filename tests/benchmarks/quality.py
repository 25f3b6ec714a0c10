"""How soon a model is good: processor time until samples of U[0, 1] are within three floors, of one
model of a stack and of the loop that one would write without it, by the same recipe.

Both train with Adam, warm-up, cosine decay and an average of the weights; the loop's network has no
gains and sees the noise level beside the point. A number of steps is enough where the mean W1 of four
models, 10,000 samples each by 50 steps of Heun's rule, is below three times the floor; numbers grow by
a factor of 1.4 until one is, up to `MOST`. The time is that of the training of so many steps.

``python -m tests.benchmarks.run --only quality`` prints the lines, which are of EDM.

    python -m tests.benchmarks.quality
    python -m tests.benchmarks.quality --formulations vp,ddpm --steps 500,2000 --seeds 8 --until 20000

prints a table for every formulation that the study `uniform` trains: W1 in floors, the mean over seeds
with its standard error, after so many steps, of a stack as it is, of one in which every example has a
noise level of its own, and of the loop of that formulation; and beside them what the exact denoiser has
on the same levels. ``--until`` adds the fewest steps, up to so many, after which W1 is below three
floors, and the time of one model for them.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import diffatlas as da
from diffusion.datasets import Uniform
from diffusion.formulations import ElucidatedDM
from diffusion.formulations.base import NoiseConditional
from diffusion.inference import Question, Subject, levels_for, states
from diffusion.metrics import Wasserstein1
from diffusion.models import Denoiser, ExactDenoiser
from diffusion.objectives import denoising
from diffusion.randomness import stream
from diffusion.samplers import Heun
from diffusion.schedules import Schedule
from diffusion.schedules.grids import grids
from diffusion.training import Member, TrainedStack, Training, train
from tasks.study import load_study
from tests.benchmarks.pairs import Ratio, paired
from tests.benchmarks.training import MEMBERS, SIZES, Loss, Perceptron, edm_loss

SAMPLES = 10_000
MODELS = 4
FEWEST, MOST = 200, 20_000
"""Steps of training."""

TIMED = 640
"""Steps that are timed, as in `training`."""

_S = Uniform().std
_EDM = ElucidatedDM()

Answer = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Plain:
    """What one would write for a formulation without preconditioning by the data: its noise levels,
    and a network that predicts the noise, or of `ve` minus the noise from inputs of its size.
    """

    formulation: NoiseConditional
    schedule: Schedule

    @property
    def _grows(self) -> bool:
        return self.formulation.registered_name == "ve"

    def loss(self, model: torch.nn.Module, x: Tensor, generator: torch.Generator) -> Tensor:
        """Of a batch ``[batch, 1]``, each example at a level of its own."""
        u = torch.rand(len(x), generator=generator, dtype=torch.float64)
        sigma = self.formulation.noise_levels.quantile(u, self.schedule).float()[:, None]
        eps = torch.randn(x.shape, generator=generator)
        error: Tensor = self._asked(model, x + sigma * eps, sigma) - (-eps if self._grows else eps)
        return error.square().mean()

    def denoised(self, model: torch.nn.Module, x: Tensor, sigma: Tensor) -> Tensor:
        """Clean data behind ``x [n, 1]``, the network in float32."""
        sigma = torch.as_tensor(sigma, dtype=x.dtype).expand(len(x), 1)
        with torch.no_grad():
            answer = self._asked(model, x.float(), sigma.float()).to(x.dtype)
        return x + sigma * answer if self._grows else x - sigma * answer

    def _asked(self, model: torch.nn.Module, y: Tensor, sigma: Tensor) -> Tensor:
        scale = torch.ones_like(sigma) if self._grows else (1 + sigma**2).sqrt()
        answer: Tensor = model(y / scale, sigma[:, 0].log() / 4)
        return answer


def own_schedule(formulation: NoiseConditional) -> Schedule:
    """The formulation's own, for U[0, 1]."""
    return formulation.fitted(formulation.own_schedule(), Uniform())


def of_loop(width: int, batch: int, steps: int, seed: int, formulation: NoiseConditional = _EDM) -> Answer:
    """A model trained alone, with the recipe of a stack's members."""
    recipe = Training(steps=steps, width=width, batch=batch)
    plain = Plain(formulation, own_schedule(formulation))
    loss: Loss = partial(edm_loss, s=_S) if isinstance(formulation, ElucidatedDM) else plain.loss
    generator = stream("plain loop", str(seed))
    torch.manual_seed(seed)
    data = Uniform().sample(recipe.data, stream("data", str(seed))).float()
    model = Perceptron(width)
    average = [p.detach().clone() for p in model.parameters()]
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.99), foreach=True)
    longest = math.exp(-1 / (recipe.ema * steps))
    for step in range(steps):
        warm = min(1.0, (step + 1) / max(1.0, steps / 100))
        optimiser.param_groups[0]["lr"] = recipe.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimiser.zero_grad()
        chosen = torch.randint(len(data), (batch,), generator=generator)
        loss(model, data[chosen], generator).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        kept = min(longest, (1 + step) / (10 + step))
        torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], 1 - kept)
    with torch.no_grad():
        for parameter, mean in zip(model.parameters(), average, strict=True):
            parameter.copy_(mean)
    if isinstance(formulation, ElucidatedDM):
        return partial(_denoised, model)
    return partial(plain.denoised, model)


def _denoised(model: Perceptron, x: Tensor, sigma: Tensor) -> Tensor:
    """Karras et al. 2022, eq. 7, with the network in float32."""
    sigma = torch.as_tensor(sigma, dtype=x.dtype).expand(len(x), 1)
    total = sigma**2 + _S**2
    with torch.no_grad():
        answer = model((x / total.sqrt()).float(), (sigma[:, 0].log() / 4).float()).to(x.dtype)
    denoised: Tensor = _S**2 / total * x + sigma * _S / total.sqrt() * answer
    return denoised


def of_stack(width: int, batch: int, steps: int, members: int, formulation: NoiseConditional = _EDM) -> TrainedStack:
    """So many models that are trained together."""
    schedule = own_schedule(formulation)
    named = [Member(Uniform(), formulation, schedule, f"member {i}") for i in range(members)]
    recipe = Training(steps=steps, width=width, batch=batch)
    return train(named, [Uniform().sample(recipe.data, stream("data"))] * members, recipe)


def loops_samples(width: int, batch: int, steps: int, seed: int, formulation: NoiseConditional = _EDM) -> Tensor:
    """Samples ``[n, 1]`` of a model of the loop."""
    model, schedule = of_loop(width, batch, steps, seed, formulation), own_schedule(formulation)
    return da.sample(model, "heun", schedule=schedule, steps=50, n=SAMPLES, dim=1, seed=seed)


def samples_of(denoiser: Denoiser, members: int, formulation: NoiseConditional = _EDM) -> Tensor:
    """Samples ``[members, n, 1]`` of a stack."""
    question, schedule = Question(Heun(), 50, SAMPLES), own_schedule(formulation)
    grid = grids.create(schedule.own_grid)
    subjects = [Subject(Uniform(), formulation, schedule, grid, "quality", m) for m in range(members)]
    *_, last = states(denoiser, question, subjects, levels_for(question, subjects))
    return last


def in_floors(samples: Iterable[Tensor]) -> list[float]:
    """W1 of each, over the floor."""
    metric = Wasserstein1()
    floor = metric.floor(Uniform(), SAMPLES)
    return [metric.evaluate(one.double(), Uniform()) / floor for one in samples]


def _good(samples: Iterable[Tensor]) -> bool:
    return statistics.mean(in_floors(samples)) < 3


def _loops_good(width: int, batch: int, steps: int, formulation: NoiseConditional = _EDM) -> bool:
    """Whether so many steps of the loop are enough."""
    return _good(loops_samples(width, batch, steps, seed, formulation) for seed in range(MODELS))


def _stack_good(width: int, batch: int, steps: int, formulation: NoiseConditional = _EDM) -> bool:
    """Whether so many steps of a stack are enough."""
    stack = of_stack(width, batch, steps, MODELS, formulation)
    return _good(samples_of(stack.denoiser, MODELS, formulation))


def _enough(good: Callable[[int], bool], most: int = MOST) -> int:
    """The fewest steps of training, of those that are tried, after which models are good."""
    steps = float(FEWEST)
    while steps < most and not good(round(steps)):
        steps *= 1.4
    return round(steps)


def time_to_quality(width: int, batch: int) -> Ratio:
    """Processor time of one model of the loop over that of one model of a stack, each until it is
    good. Where the loop is not by `MOST` steps, it is at least so much.
    """
    alone, together = _enough(partial(_loops_good, width, batch)), _enough(partial(_stack_good, width, batch))
    found = paired(
        lambda: of_loop(width, batch, TIMED, 0),
        lambda: of_stack(width, batch, TIMED, MEMBERS),
        rounds=3,
        now=time.process_time,
    )
    middle, low, high = (MEMBERS * ratio * alone / together for ratio in found)
    return middle, low, high


MEASURES: tuple[tuple[str, Callable[[], Ratio]], ...] = tuple(
    (
        f"quality: time of a plain loop to W1 < 3 floors / of one of 16 stacked (width {width}, batch {batch})",
        partial(time_to_quality, width, batch),
    )
    for width, batch in SIZES
)
"""Lines for the table of `tests.benchmarks.run`."""


# --- every formulation of the demo ----------------------------------------------------------------


def of_the_demo() -> dict[str, NoiseConditional]:
    """The formulations that the study `uniform` trains, by name."""
    blocks = load_study("uniform").blocks()
    found = (one for block in blocks for one in block.formulations)
    return {one.registered_name: one for one in found if isinstance(one, NoiseConditional)}


@contextmanager
def unshared() -> Iterator[None]:
    """Every example has a noise level of its own."""
    names = vars(denoising)
    before = names["_SHARING"]
    names["_SHARING"] = ()
    try:
        yield
    finally:
        names["_SHARING"] = before


def _mean(found: Sequence[float]) -> str:
    """With its standard error."""
    error = statistics.stdev(found) / math.sqrt(len(found)) if len(found) > 1 else math.nan
    return f"{statistics.mean(found):.2f} ± {error:.2f}"


def _seconds(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def held(
    names: Sequence[str], width: int, batch: int, steps: Sequence[int], seeds: int, until: int
) -> Iterator[list[str]]:
    """Rows of the table, as they are found: formulation, steps, stack, unshared, loop, exact."""
    known = of_the_demo()
    for name in names:
        formulation = known[name]
        exact = in_floors(samples_of(ExactDenoiser([Uniform()] * seeds), seeds, formulation))
        for count in steps:
            together = in_floors(
                samples_of(of_stack(width, batch, count, seeds, formulation).denoiser, seeds, formulation)
            )
            with unshared():
                alone = of_stack(width, batch, count, seeds, formulation)
            apart = in_floors(samples_of(alone.denoiser, seeds, formulation))
            loops = in_floors(loops_samples(width, batch, count, seed, formulation) for seed in range(seeds))
            yield [name, f"{count:,}", *map(_mean, (together, apart, loops, exact))]
        if until:
            yield _until(name, width, batch, until, formulation)


def _until(name: str, width: int, batch: int, most: int, formulation: NoiseConditional) -> list[str]:
    """The fewest steps to three floors, and the processor's time of one model for them."""

    def told(steps: int, seconds: float) -> str:
        return f"{steps:,} ({seconds * steps / TIMED:.1f} s)" if steps < most else f"not in {most:,}"

    shared = _enough(partial(_stack_good, width, batch, formulation=formulation), most)
    stack = _seconds(lambda: of_stack(width, batch, TIMED, MEMBERS, formulation)) / MEMBERS
    with unshared():
        apart = _enough(partial(_stack_good, width, batch, formulation=formulation), most)
        single = _seconds(lambda: of_stack(width, batch, TIMED, MEMBERS, formulation)) / MEMBERS
    loop = _enough(partial(_loops_good, width, batch, formulation=formulation), most)
    plain = _seconds(lambda: of_loop(width, batch, TIMED, 0, formulation))
    return [name, "to 3 floors", told(shared, stack), told(apart, single), told(loop, plain), ""]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="W1 of every formulation of the demo, stacked and by a plain loop.")
    parser.add_argument("--formulations", default="", metavar="A,B", help="which; all of the study uniform")
    parser.add_argument("--width", type=int, default=SIZES[0][0])
    parser.add_argument("--batch", type=int, default=SIZES[0][1])
    parser.add_argument("--steps", default="500,2000", metavar="N,M", help="of training")
    parser.add_argument("--seeds", type=int, default=MODELS)
    parser.add_argument(
        "--until", type=int, default=0, metavar="N", help="also the fewest steps to three floors, up to N"
    )
    asked = parser.parse_args(arguments)
    known = of_the_demo()
    names = asked.formulations.split(",") if asked.formulations else list(known)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"--formulations: found {', '.join(unknown)}; accepted: {', '.join(known)}")
    torch.set_num_threads(1)
    table = Table("formulation", "steps", "stacked", "levels unshared", "plain loop", "exact")
    steps = [int(count) for count in asked.steps.split(",") if count]
    for row in held(names, asked.width, asked.batch, steps, asked.seeds, asked.until):
        sys.stderr.write(" | ".join(row) + "\n")
        table.add_row(*row)
    console = Console(width=110)
    console.print(f"W1 in floors of {SAMPLES:,} samples, {asked.seeds} seeds, width {asked.width}, batch {asked.batch}")
    console.print(table)


if __name__ == "__main__":
    main()
