"""How fast a stack trains: beside the loop that one would write without it, and beside the core's
own rate of multiplying matrices.

The loop is a module of three hidden layers that sees the noise level's features beside the point,
`torch.optim.Adam` and a moving average: less than a member of a stack has, whose units are scaled by
the noise level and whose gradients are clipped. Packages of the field train with the same loop;
where one is installed, its own loss stands in the place of that one, or its own loop.

``python -m tests.benchmarks.run --only training`` prints the table.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from diffusion.datasets import Uniform
from diffusion.devices import HOST
from diffusion.formulations import ElucidatedDM
from diffusion.networks import FEATURES, features
from diffusion.randomness import stream
from diffusion.training import Member, Training, train
from tests.benchmarks.pairs import Ratio, paired

MEMBERS = 16
SIZES = ((64, 256), (128, 512))
"""Width and batch."""

STEPS = 640
"""Of the loop and of the stack: what each needs before its first step is little beside them, and the
stack draws ten at once.
"""

PRODUCTS = 64
"""Steps of which the products alone are timed."""

Loss = Callable[[nn.Module, Tensor, torch.Generator], Tensor]


class Perceptron(nn.Module):
    """Three hidden layers on the point and features of ln sigma / 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = [nn.Linear(1 + FEATURES, width), nn.SiLU()]
        for _ in range(2):
            hidden += [nn.Linear(width, width), nn.SiLU()]
        self.layers = nn.Sequential(*hidden, nn.Linear(width, 1))

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """F(x; c_noise): points ``[batch, 1]``, labels ``[batch]``."""
        answer: Tensor = self.layers(torch.cat([x, features(c_noise)], -1))
        return answer


def edm_loss(model: nn.Module, x: Tensor, generator: torch.Generator, s: float = 0.29) -> Tensor:
    """Karras et al. 2022, eq. 8, s the data's deviation."""
    sigma = torch.exp(-1.2 + 1.2 * torch.randn(len(x), generator=generator, device=x.device))[:, None]
    noisy = x + sigma * torch.randn(x.shape, generator=generator, device=x.device)
    total = sigma**2 + s**2
    answer = model(noisy / total.sqrt(), sigma[:, 0].log() / 4)
    target = (x - s**2 / total * noisy) / (sigma * s / total.sqrt())
    error: Tensor = answer - target
    return error.square().mean()


def plain_loop(width: int, batch: int, steps: int, loss: Loss = edm_loss, device: torch.device = HOST) -> None:
    """One model, as one would train it alone, on a device from its own generator."""
    generator = stream("plain loop") if device == HOST else torch.Generator(device).manual_seed(1)
    data = Uniform().sample(10_000, stream("data")).float().to(device)
    model = Perceptron(width).to(device)
    average = [p.detach().clone() for p in model.parameters()]
    optimiser = torch.optim.Adam(model.parameters(), lr=4e-3, foreach=True)
    for _ in range(steps):
        optimiser.zero_grad()
        chosen = torch.randint(len(data), (batch,), generator=generator, device=device)
        loss(model, data[chosen], generator).backward()
        optimiser.step()
        torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], 0.01)


def stack(width: int, batch: int, steps: int, members: int = MEMBERS) -> None:
    """So many models of `edm` trained as one stack."""
    edm = ElucidatedDM()
    named = [Member(Uniform(), edm, edm.own_schedule(), f"member {i}") for i in range(members)]
    data = Uniform().sample(10_000, stream("data"))
    train(named, [data] * members, Training(steps=steps, batch=batch, width=width, depth=3))


def products(width: int, batch: int, steps: int, members: int) -> None:
    """The matrix products of the hidden layers in training, for so many models at a time, and
    nothing else.
    """
    h, g = torch.randn(2, members, batch, width)
    w = torch.randn(members, width, width)
    for _ in range(2 * steps):
        torch.bmm(h, w)
        torch.bmm(g, w.mT)
        torch.bmm(h.mT, g)


def against_loop(width: int, batch: int, loop: Callable[[int, int, int], None] = plain_loop) -> Ratio:
    """Processor time of one model in a loop of its own over that of one model of a stack."""
    return _each(
        paired(
            lambda: loop(width, batch, STEPS),
            lambda: stack(width, batch, STEPS),
            rounds=3,
            now=time.process_time,
        ),
        MEMBERS,
    )


def product_share(width: int, batch: int) -> Ratio:
    """Processor time of the products alone, for as many models at a time as serve them best, over
    that of training.
    """
    best = min((1, 4, MEMBERS), key=lambda n: _seconds(width, batch, n) / n)
    found = paired(
        lambda: products(width, batch, PRODUCTS, best),
        lambda: stack(width, batch, STEPS),
        rounds=3,
        now=time.process_time,
    )
    return _each(found, MEMBERS / best * STEPS / PRODUCTS)


def _seconds(width: int, batch: int, members: int) -> float:
    begun = time.process_time()
    products(width, batch, 8, members)
    return time.process_time() - begun


def _each(ratio: Ratio, times: float) -> Ratio:
    middle, low, high = ratio
    return times * middle, times * low, times * high


def _azula() -> Loss:
    from azula.denoise import KarrasDenoiser
    from azula.noise import VESchedule

    schedule = VESchedule()

    def loss(model: nn.Module, x: Tensor, generator: torch.Generator) -> Tensor:
        found: Tensor = KarrasDenoiser(model, schedule).loss(x, torch.rand(len(x), generator=generator))
        return found

    return loss


def _diffusers() -> Loss:
    from diffusers import DDPMScheduler

    chain = DDPMScheduler(1000)

    def loss(model: nn.Module, x: Tensor, generator: torch.Generator) -> Tensor:
        t = torch.randint(1000, (len(x),), generator=generator)
        eps = torch.randn(x.shape, generator=generator)
        answer: Tensor = model(chain.add_noise(x, eps, t), t / 500 - 1)
        return (answer - eps).square().mean()

    return loss


PEERS: dict[str, Callable[[], Loss]] = {"azula": _azula, "diffusers": _diffusers}
"""`make install` has them: see the extra `peers`."""


def against_peer(name: str, width: int, batch: int) -> Ratio | None:
    """As `against_loop`, with the loss of a package in the loop; None where it is not installed."""
    if importlib.util.find_spec(name) is None:
        return None
    return against_loop(width, batch, partial(plain_loop, loss=PEERS[name]()))


def smalldiffusion_loop(width: int, batch: int, steps: int) -> None:
    """One model in smalldiffusion's own `training_loop`, fed by the `DataLoader` that it asks for."""
    with _without_torchvision():
        theirs: Any = importlib.import_module("smalldiffusion")

    class Theirs(Perceptron, theirs.ModelMixin):  # type: ignore[misc]  # without types
        input_dims = (1,)

        def forward(self, x: Tensor, sigma: Tensor, cond: None = None) -> Tensor:  # noqa: ARG002
            return super().forward(x / (1 + sigma**2).sqrt(), sigma[:, 0].log() / 4)

    data: Any = Uniform().sample(10_000, stream("data")).float()
    loader: Any = DataLoader(data, batch_size=batch, shuffle=True)
    schedule = theirs.ScheduleLogLinear(1000, 0.002, 80.0)
    with redirect_stderr(io.StringIO()):  # its progress
        steps_taken = theirs.training_loop(loader, Theirs(width), schedule, epochs=steps, lr=4e-3)
        for _ in itertools.islice(steps_taken, steps + 1):  # it hands on each loss before its step
            pass


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """smalldiffusion imports it for its images, which nobody asks for here; each version of it asks for
    one version of torch.
    """
    if importlib.util.find_spec("torchvision"):
        yield
        return
    nothing, transforms = ModuleType("torchvision"), ModuleType("torchvision.transforms")
    vars(nothing)["transforms"] = transforms
    vars(transforms)["__getattr__"] = lambda name: lambda *given: (name, given)
    sys.modules.update({"torchvision": nothing, "torchvision.transforms": transforms})
    try:
        yield
    finally:
        for name in ("torchvision", "torchvision.transforms"):
            del sys.modules[name]


def against_smalldiffusion(width: int, batch: int) -> Ratio | None:
    """As `against_loop`, with the loop of smalldiffusion; None where it is not installed."""
    if not all(importlib.util.find_spec(name) for name in ("smalldiffusion", "accelerate")):
        return None
    return against_loop(width, batch, loop=smalldiffusion_loop)


def _of(width: int, batch: int) -> str:
    return f"(width {width}, batch {batch})"


MEASURES: tuple[tuple[str, Callable[[], Ratio | None]], ...] = (
    *((f"training: a plain loop / one of 16 stacked {_of(*s)}", lambda s=s: against_loop(*s)) for s in SIZES),
    *((f"training: share of the matrix-product rate {_of(*s)}", lambda s=s: product_share(*s)) for s in SIZES),
    *(
        (
            f"training: a loop with the loss of {name} / one of 16 stacked {_of(*size)}",
            lambda n=name, s=size: against_peer(n, *s),
        )
        for name in PEERS
        for size in SIZES
    ),
    *(
        (f"training: the loop of smalldiffusion / one of 16 stacked {_of(*s)}", lambda s=s: against_smalldiffusion(*s))
        for s in SIZES
    ),
)
"""Lines for the table of `tests.benchmarks.run`."""
