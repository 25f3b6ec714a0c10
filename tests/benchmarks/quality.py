"""How soon a model is good: processor time until samples of U[0, 1] are within three floors, of one
model of a stack and of the loop that one would write without it, by the same recipe.

Both train EDM with Adam, warm-up, cosine decay and an average of the weights; the loop's network
has no gains and sees the noise level beside the point. A number of steps is enough where the mean W1
of four models, 10,000 samples each by 50 steps of Heun's rule, is below three times the floor; numbers
grow by a factor of 1.4 until one is, up to `MOST`. The time is that of the training of so many steps.

``python -m tests.benchmarks.run --only quality`` prints the lines.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

import diffatlas as da
from diffusion.datasets import Uniform
from diffusion.formulations import ElucidatedDM
from diffusion.inference import Question, Subject, levels_for, states
from diffusion.metrics import Wasserstein1
from diffusion.randomness import stream
from diffusion.samplers import Heun
from diffusion.schedules.grids import grids
from diffusion.training import Member, TrainedStack, Training, train
from tests.benchmarks.pairs import Ratio, paired
from tests.benchmarks.training import MEMBERS, SIZES, Perceptron, edm_loss

SAMPLES = 10_000
MODELS = 4
FEWEST, MOST = 200, 20_000
"""Steps of training."""

TIMED = 640
"""Steps that are timed, as in `training`."""

_S = Uniform().std

Denoiser = Callable[[Tensor, Tensor], Tensor]


def of_loop(width: int, batch: int, steps: int, seed: int) -> Denoiser:
    """A model trained alone, with the recipe of a stack's members."""
    recipe = Training(steps=steps, width=width, batch=batch)
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
        edm_loss(model, data[chosen], generator, _S).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        kept = min(longest, (1 + step) / (10 + step))
        torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], 1 - kept)
    with torch.no_grad():
        for parameter, mean in zip(model.parameters(), average, strict=True):
            parameter.copy_(mean)
    return partial(_denoised, model)


def _denoised(model: Perceptron, x: Tensor, sigma: Tensor) -> Tensor:
    """Karras et al. 2022, eq. 7, with the network in float32."""
    sigma = torch.as_tensor(sigma, dtype=x.dtype).expand(len(x), 1)
    total = sigma**2 + _S**2
    with torch.no_grad():
        answer = model((x / total.sqrt()).float(), (sigma[:, 0].log() / 4).float()).to(x.dtype)
    denoised: Tensor = _S**2 / total * x + sigma * _S / total.sqrt() * answer
    return denoised


def of_stack(width: int, batch: int, steps: int, members: int) -> TrainedStack:
    """So many models that are trained together."""
    edm = ElucidatedDM()
    named = [Member(Uniform(), edm, edm.own_schedule(), f"member {i}") for i in range(members)]
    recipe = Training(steps=steps, width=width, batch=batch)
    return train(named, [Uniform().sample(recipe.data, stream("data"))] * members, recipe)


def _loops_good(width: int, batch: int, steps: int) -> bool:
    """Whether so many steps of the loop are enough."""
    models = [of_loop(width, batch, steps, seed) for seed in range(MODELS)]
    return _good(
        da.sample(model, "heun", schedule="edm", steps=50, n=SAMPLES, dim=1, seed=seed)
        for seed, model in enumerate(models)
    )


def _stack_good(width: int, batch: int, steps: int) -> bool:
    """Whether so many steps of a stack are enough."""
    stack, edm = of_stack(width, batch, steps, MODELS), ElucidatedDM()
    question = Question(Heun(), 50, SAMPLES)
    subjects = [Subject(Uniform(), edm, edm.own_schedule(), grids.create("edm"), "quality", m) for m in range(MODELS)]
    *_, last = states(stack.denoiser, question, subjects, levels_for(question, subjects))
    return _good(last)


def _good(samples: Iterable[Tensor]) -> bool:
    metric = Wasserstein1()
    found = statistics.mean(metric.evaluate(one.double(), Uniform()) for one in samples)
    return found < 3 * metric.floor(Uniform(), SAMPLES)


def _enough(good: Callable[[int], bool]) -> int:
    """The fewest steps of training, of those that are tried, after which models are good."""
    steps = float(FEWEST)
    while steps < MOST and not good(round(steps)):
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
