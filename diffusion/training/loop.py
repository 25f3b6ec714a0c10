r"""One loop that trains a whole stack of models.

Every member has its own formulation, schedule, data and random streams; they share the network's shape and the settings.
All that mixes numbers within a member (loss, gradient norm, divergence check) is computed per member, so that a member's
weights are the same, to the last bit, whatever it is stacked with, and a member that diverges stays alone with its NaN.

What is minimised is an *objective* that all members share (`diffusion.objectives`); what is random about it is drawn from each
member's own stream, a block of steps at a time.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.formulations import NoiseConditional, Trained
from diffusion.models import EvidenceBound, Motion
from diffusion.networks import FEATURES, Architecture, Network, Perceptron, features
from diffusion.objectives import Objective
from diffusion.objectives.parametrizations import Circle, Coefficients
from diffusion.randomness import stream
from diffusion.schedules import Schedule

LOSS_BINS = 64
_CLIP = 1.0
_DIVERGED = 10.0
_WIDEST, _DEEPEST = 4096, 64  # a stack of wider networks does not fit into memory


@dataclass(frozen=True)
class Training:
    """How one network is trained.

    Adam (betas 0.9, 0.99) with 1 % warm-up and cosine decay to zero, gradients clipped to norm 1 per member; the weights
    that are kept are an exponential moving average over the fraction `ema` of the steps. `data` is the size of the training
    set, drawn once per target and seed.
    """

    steps: int = 3000
    batch: int = 512
    width: int = 128
    depth: int = 3
    learning_rate: float = 4e-3
    ema: float = 0.03
    data: int = 200_000
    network: Architecture = Perceptron()

    def spec(self) -> dict[str, Any]:
        """As plain values; the network only where it is not the usual one."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "network"}
        return plain if self.network == Perceptron() else {**plain, "network": self.network.spec()}

    def identity(self, dim: int) -> dict[str, Any]:
        """The spec with the version of the network for points of `dim` coordinates, where there has been more than one."""
        spec, version = self.spec(), self.network.version_for(dim)
        told = "network" in spec or version > 1
        return {**spec, "network": {**self.network.identity(), "version": version}} if told else spec

    def __post_init__(self) -> None:
        if self.width > _WIDEST or self.depth > _DEEPEST:
            raise ValueError(
                f"training.width is at most {_WIDEST} and training.depth at most {_DEEPEST}, found {self.width} and {self.depth}"
            )
        if not 0 < self.ema <= 1:
            raise ValueError(f"training.ema must lie in (0, 1], found {self.ema}")


@dataclass(frozen=True)
class Member:
    """One model of a stack: what it learns, and the key that names its random streams."""

    dataset: Dataset
    formulation: Trained
    schedule: Schedule
    key: str

    def lessons(self, data: Tensor, steps: int, batch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """What it learns from in a number of steps: see `diffusion.objectives.Objective.lessons`."""
        return self.formulation.objective.lessons(self, data, steps, batch, generator)

    @property
    def noisy(self) -> NoiseConditional:
        """The formulation of a network that is told of noise. Raises TypeError for others."""
        if not isinstance(self.formulation, NoiseConditional):
            raise TypeError(f"formulation {self.formulation.registered_name!r} has no noise levels")
        return self.formulation

    def condition(self, nsr: Tensor) -> Tensor:
        """What the network is told of the noise: features of the label, scaled so that the schedule's range is [-1, 1].

        A label that is the same at both ends says nothing and is told as 0.
        """
        ends = torch.tensor([self.schedule.t_min, self.schedule.t_max], dtype=torch.float64)
        low, high = self.noisy.noise_label(self.schedule.nsr(ends), self.schedule)
        label = self.noisy.noise_label(nsr, self.schedule)
        half = (high - low).abs() / 2
        return features((label - (low + high) / 2) / torch.where(half > 0, half, torch.ones_like(half)))

    def coefficients(self, level: Circle) -> Coefficients:
        """c_skip, c_out and c_in of the member's parametrization."""
        return self.noisy.parametrization.coefficients(level, self.dataset.std)


@dataclass(frozen=True)
class TrainedStack:
    """What training leaves: averaged weights, losses and, for members that failed, the reason."""

    objective: Objective
    network: Network
    members: tuple[Member, ...]
    rows: Tensor  # [members, network.size], the parameters
    loss_steps: Tensor  # [bins], the step that closes each bin
    losses: Tensor  # [members, bins], mean loss per bin
    errors: tuple[str | None, ...]

    def select(self, indices: Sequence[int]) -> TrainedStack:
        """The sub-stack of the given members."""
        index = torch.tensor(list(indices))
        return TrainedStack(
            self.objective,
            self.network,
            tuple(self.members[i] for i in indices),
            self.rows[index],
            self.loss_steps,
            self.losses[index],
            tuple(self.errors[i] for i in indices),
        )

    def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The denoiser E[x_0 | x_t] of every member: see `diffusion.samplers.Denoiser`; differentiable in x where x asks for it."""
        with torch.set_grad_enabled(x.requires_grad):
            return self.objective.denoise(self.network, self.rows, self.members, x, alpha, sigma)

    def perturbation(self, time: Tensor) -> Tensor:
        """eps_t at times ``[members]``, of models of incremental restoration."""
        return self.objective.perturbation(self.members, time)

    def action(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Motion:
        """What the action says of points x ``[members, batch, dim]``, of models that have one."""
        return self.objective.action(self.network, self.rows, self.members, x, alpha, sigma)

    def labelled(self, x: Tensor, alpha: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """The denoiser E[x_0 | x_t, label], of models that know labels: see `diffusion.samplers.HasLabels`."""
        with torch.set_grad_enabled(x.requires_grad):
            return self.objective.denoise_labelled(self.network, self.rows, self.members, x, alpha, sigma, labels)

    def decode(self, z: Tensor) -> Tensor:
        """Data ``[members, batch, dim]`` for latent points z, of models that have a decoder."""
        with torch.no_grad():
            return self.objective.decode(self.network, self.rows, self.members, z)

    def latent_dim(self) -> int:
        """Number of a latent point's coordinates, of models that have a decoder."""
        return self.objective.latent_dim()

    def decoder_std(self) -> Tensor:
        """Standard deviation of the decoder's law in the units of the data, ``[members]``."""
        with torch.no_grad():
            return self.objective.decoder_std(self.network, self.rows, self.members)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each latent coordinate given data x ``[members, batch, dim]``."""
        with torch.no_grad():
            return self.objective.encode(self.network, self.rows, self.members, x)

    def bound(self, x: Tensor, noise: Tensor) -> EvidenceBound:
        """The evidence lower bound at data x for one draw of the latent noise, of models that bring their own: see `HasBound`."""
        with torch.no_grad():
            return self.objective.bound(self.network, self.rows, self.members, x, noise)


def _learning_rate(settings: Training, step: int) -> float:
    warm_up = min(1.0, (step + 1) / max(1.0, settings.steps / 100))
    return settings.learning_rate * warm_up * 0.5 * (1 + math.cos(math.pi * step / settings.steps))


def train(
    members: Sequence[Member],
    data: Sequence[Tensor],
    settings: Training,
    progress: Callable[[int], None] = lambda _: None,
) -> TrainedStack:
    """Train all members together; ``data[m]`` is member m's training set ``[n, dim]`` float64.

    `progress` is told the number of finished steps, about `LOSS_BINS` times. Raises ValueError if the members' data differ in
    dimension. A member whose loss is not finite, or ends ten times above that of a network that answers zero, is reported
    in `TrainedStack.errors`; the others are unharmed.
    """
    objective, network = _common(members, settings)
    rows = network.initialise([stream("init", member.key) for member in members]).requires_grad_()
    average = rows.detach().clone()
    balance = _Balance(members, objective)
    optimiser = torch.optim.Adam([rows, *balance.rows], lr=settings.learning_rate, betas=(0.9, 0.99), fused=True)
    generators = [stream("train", member.key) for member in members]
    longest = math.exp(-1 / (settings.ema * settings.steps))

    bins = min(LOSS_BINS, settings.steps)
    edges = [round(i * settings.steps / bins) for i in range(bins + 1)]
    losses = torch.zeros(len(members), bins)
    trivial = torch.zeros(len(members))
    for b, (first, end) in enumerate(itertools.pairwise(edges)):
        drawn = [
            member.lessons(samples, end - first, settings.batch, generator)
            for member, samples, generator in zip(members, data, generators, strict=True)
        ]
        lessons = [torch.stack(parts, dim=1) for parts in zip(*drawn, strict=True)]
        for step in range(first, end):
            lesson = [part[step - first] for part in lessons]
            errors = objective.errors(network, rows, *lesson)
            loss = errors.mean(1)
            optimiser.zero_grad()
            balance(errors, lesson).sum().backward()
            _clip_each(rows)
            optimiser.param_groups[0]["lr"] = _learning_rate(settings, step)
            optimiser.step()
            with torch.no_grad():
                average.lerp_(rows, 1 - min(longest, (1 + step) / (10 + step)))
                losses[:, b] += loss.detach() / (end - first)
        trivial = objective.trivial(*lessons)
        progress(end)

    return TrainedStack(
        objective,
        network,
        tuple(members),
        average,
        torch.tensor(edges[1:]),
        losses,
        tuple(_verdict(losses[m], float(trivial[m]), edges[1:]) for m in range(len(members))),
    )


def _common(members: Sequence[Member], settings: Training) -> tuple[Objective, Network]:
    """The objective and the network that all members of a stack share. Raises ValueError if they do not."""
    dims = {member.dataset.dim for member in members}
    if len(dims) != 1:
        raise ValueError(f"members of one stack need data of one dimension, found {sorted(dims)}")
    programs = {
        (member.formulation.objective, member.formulation.network(member.dataset, settings)) for member in members
    }
    if len(programs) != 1:
        raise ValueError(f"members of one stack need one objective and one network, found {programs}")
    return programs.pop()


class _Balance:
    """The learned uncertainty u(nsr) of members whose weighting asks for it: ``E[errors / e^u + u]``, u linear in the features.

    Members without it see their own loss, bit for bit, whoever is in the stack.
    """

    def __init__(self, members: Sequence[Member], objective: Objective) -> None:
        self._objective = objective
        told = [
            isinstance(member.formulation, NoiseConditional) and member.formulation.weighting.learned
            for member in members
        ]
        self._learned = [m for m, learned in enumerate(told) if learned]
        # two columns, because batched products of a single one take another path
        self.rows = [torch.zeros(1, FEATURES, 2, requires_grad=True) for _ in self._learned]

    def __call__(self, errors: Tensor, lesson: Sequence[Tensor]) -> Tensor:
        """Loss of each member ``[members]`` from weighted errors ``[members, batch]``."""
        if not self._learned:
            return errors.mean(1)
        conditions = self._objective.told_of_noise(*lesson)[..., :FEATURES]
        losses = list(errors.mean(1))
        for m, row in zip(self._learned, self.rows, strict=True):
            u = torch.bmm(conditions[m : m + 1], row)[0, :, 0]
            losses[m] = (errors[m].clone() / torch.exp(u) + u).mean()
        return torch.stack(losses)


def _clip_each(rows: Tensor) -> None:
    """Scale each member's gradient to a norm of at most `_CLIP`."""
    if rows.grad is not None:
        rows.grad *= (_CLIP / rows.grad.square().sum(1).sqrt()).clamp(max=1)[:, None]


def _verdict(losses: Tensor, trivial: float, ends: Sequence[int]) -> str | None:
    bad = (~torch.isfinite(losses)).nonzero()
    if len(bad):
        return f"training diverged: the loss is not finite by step {ends[int(bad[0])]} of {ends[-1]} (lower training.learning_rate)"
    if float(losses[-1]) > _DIVERGED * trivial:
        return (
            f"training diverged: the loss ends at {float(losses[-1]):.3g}, a network that always answers zero has {trivial:.3g} "
            "(lower training.learning_rate)"
        )
    return None
