r"""Guidance by a classifier that was trained on noised data and is conditioned on the noise level.

    L = E_nsr E_{(x_0, y), eps} [-log softmax(l(x_t, nsr))_y]

has the minimiser ``p_t(y | x_t)`` at every level. With m and s the data's mean and standard
deviation, m_y and w_y the mean and the share of each class among the training data,
``rho = nsr / s`` and ``u = alpha s (x_t - alpha m) / (alpha^2 s^2 + sigma^2)``, what x_t says of
x_0 in units of s,

    l_y = log w_y + u . (m_y - m) / s + f_y(z, nsr) / (1 + rho^2),      z = u sqrt(1 + rho^2)

The first two terms are all that is left where there is much noise, up to order 1 / rho^2, whatever
the target: so the network f is only asked for the rest, and its errors do not grow with the noise.
The gradient of u has the factor alpha that ``sigma^2 / alpha`` needs: at alpha = 0 the shift of the
denoiser is ``m_y - m``, less the mean of that over the classes. ``ln rho`` is uniform between ln
0.01 and ln 10 in training; f takes the nearest of these levels.

The classifier is a function of the target and the settings alone: it is trained where it is needed,
once in a process, with the stacked network, loop and streams of every other model, and is no part
of a cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffusion.caches import remembered
from diffusion.datasets import Dataset
from diffusion.devices import numbers, to_device
from diffusion.errors import WrongValue
from diffusion.guidance.base import LabelGuidance, guidances, with_signal
from diffusion.models import Denoiser
from diffusion.networks import Network, features
from diffusion.objectives import Objective, stratified
from diffusion.objectives.base import Networks, Trainable
from diffusion.randomness import Source, examples, normal, stream
from diffusion.registry import Component, identity_text
from diffusion.schedules import EDM
from diffusion.training import Member, Training, train

_LOW, _HIGH = 0.01, 10.0  # nsr beside the data's standard deviation
_ROWS = 2048  # of a batch evaluated at once
_DATA = 50_000  # labelled samples that it learns from


@dataclass(frozen=True)
class CrossEntropy(Objective):
    """The classification loss on labelled data ``[n, dim + 1]``, whose last column is the label."""

    def network(self, dataset: Dataset, settings: Training) -> Network:
        return settings.network.build(dataset.dim, settings.width, settings.depth, outputs=dataset.classes)

    def batches(self, member: Member, data: Tensor, steps: int, batch: int, generator: Source) -> tuple[Tensor, ...]:
        """z ``[steps, batch, dim]``, features of the level, the part of the logits that is known,
        the rest's weight, labels.
        """
        classes = _Classes.of(member.dataset, data)
        rho = _LOW * (_HIGH / _LOW) ** stratified(steps, batch, generator)
        drawn = examples(data, (steps, batch), generator)
        nsr = member.dataset.std * rho
        noise = normal((steps, batch, member.dataset.dim), generator)
        place = _Place.of(member.dataset, drawn[..., :-1] + nsr[..., None] * noise, torch.ones_like(nsr), nsr)
        parts = (place.z, place.features, classes.logits(place), place.rest, drawn[..., -1])
        return tuple(part.float() for part in parts)

    def losses(self, network: Network, rows: Tensor, *batch: Tensor) -> Tensor:
        z, conditions, known, rest, labels = batch
        logits = known + rest[..., None] * network(rows, z, conditions)
        return -torch.log_softmax(logits, -1).gather(-1, labels.long()[..., None])[..., 0]

    def zero_loss(self, *batches: Tensor) -> Tensor:
        return batches[0].new_full((batches[0].shape[1],), math.inf)

    @property
    def gives(self) -> type[Classifier]:
        return Classifier

    def model(self, network: Network, rows: Tensor, members: Sequence[Member]) -> Classifier:
        return Classifier(network, rows, tuple(members))


@dataclass(frozen=True, eq=False)
class Classifier(Networks):
    """The trained part of one classifier."""

    def remainder(self, z: Tensor, level: Tensor) -> Tensor:
        """f(z, nsr) of every label, ``[batch, classes]``, for z ``[batch, dim]`` and the features
        of one level.
        """
        c = level.float()[None, None]
        parts = [self.network(self.rows, part, c) for part in z.float()[None].split(_ROWS, dim=1)]
        return torch.cat(parts, dim=1)[0].double()


@dataclass(frozen=True)
class _Classifying(Component, Trainable):
    """What stands for a formulation in training: nothing but the objective."""

    registered_name: ClassVar[str] = "classifier"

    @property
    def objective(self) -> Objective:
        return CrossEntropy()


@dataclass(frozen=True)
class _Place:
    """How the classifier sees x_t ``[..., dim]`` at levels ``[...]``."""

    z: Tensor  # [..., dim]
    shrink: Tensor  # u / z, [...]
    rest: Tensor  # 1 / (1 + rho^2), [...]
    slope: Tensor  # (sigma^2 / alpha) dz/dx, [...]; infinite where alpha = 0
    features: Tensor  # [..., FEATURES]

    @classmethod
    def of(cls, dataset: Dataset, x: Tensor, alpha: Tensor, sigma: Tensor) -> _Place:
        std, mean = dataset.std, numbers(dataset.mean, x.device)
        spread = (alpha * std) ** 2 + sigma**2
        root = torch.sqrt(spread)
        rho = sigma / (alpha * std)  # infinite where no signal is left
        level = torch.log(rho.clamp(_LOW, _HIGH) / math.sqrt(_LOW * _HIGH)) / (0.5 * math.log(_HIGH / _LOW))
        return cls(
            (x - alpha[..., None] * mean) / root[..., None],
            alpha * std / root,
            (alpha * std) ** 2 / spread,
            sigma**2 / (alpha * root),
            features(level),
        )


@dataclass(frozen=True)
class _Classes:
    """What labelled data ``[n, dim + 1]`` say of the classes: logarithms of shares ``[K]``,
    ``(m_y - m) / s`` ``[K, dim]``.
    """

    log_weights: Tensor
    offsets: Tensor

    @classmethod
    def of(cls, dataset: Dataset, data: Tensor) -> _Classes:
        labels, x = data[:, -1].long(), data[:, :-1]
        counts = torch.bincount(labels, minlength=dataset.classes).double()
        sums = torch.zeros(dataset.classes, dataset.dim, dtype=torch.float64).index_add_(0, labels, x)
        mean = torch.tensor(dataset.mean, dtype=torch.float64)
        return cls(torch.log((counts + 0.5) / len(x)), (sums / counts.clamp(min=1)[:, None] - mean) / dataset.std)

    def logits(self, place: _Place) -> Tensor:
        """The known part, ``[..., K]``: elementwise, so that a sample's bits do not depend on the
        batch.
        """
        u = place.shrink[..., None] * place.z
        return self.log_weights + (u[..., None, :] * self.offsets).sum(-1)


@remembered(8)
def _trained(dataset: Dataset, settings: Training, seed: int) -> tuple[Classifier, _Classes]:
    """The classifier of a target. Raises WrongValue if its training diverged."""
    named = (identity_text(dataset), seed)
    x, labels = dataset.sample_labelled(settings.data, stream("classifier data", *named))
    member = Member(dataset, _Classifying(), EDM(), "classifier " + " ".join(map(str, named)))
    data = torch.cat([x, labels[:, None].double()], 1)
    stack = train([member], [data], settings)
    if stack.errors[0] is not None:
        raise WrongValue(f"the classifier of {dataset.registered_name!r}: {stack.errors[0]}")
    return CrossEntropy().model(stack.network, stack.rows, stack.members), _Classes.of(dataset, data)


@remembered(8)
def _trained_on(dataset: Dataset, settings: Training, seed: int, device: torch.device) -> tuple[Classifier, _Classes]:
    """The classifier on a device; trained on the host, so that it is the same one everywhere."""
    found, classes = _trained(dataset, settings, seed)
    copied = Classifier(found.network, to_device(found.rows, device), found.members)
    return copied, _Classes(to_device(classes.log_weights, device), to_device(classes.offsets, device))


@guidances.register(
    "trained-classifier",
    formula="D + w sigma^2/alpha grad log softmax(f(x_t, nsr))_y,  f trained by cross-entropy on noised data",
    source="Song et al., SDE, ICLR 2021, section 5 and appendix I.1; "
    "Dhariwal & Nichol, Diffusion Models Beat GANs, NeurIPS 2021, section 4.1",
    document="S1",
)
@dataclass(frozen=True)
class TrainedClassifier(LabelGuidance):
    """A noise-conditional classifier, trained on noised labelled data: any denoiser of a labelled
    target is steered.

    `steps`, `batch`, `width`, `depth` and `learning_rate` are those of its training, `seed` its
    own.

    Raises:
        WrongValue: besides what `LabelGuidance` refuses, settings that are no positive numbers.
    """

    cost: ClassVar[float] = 3.0

    steps: int = 1000
    batch: int = 512
    width: int = 64
    depth: int = 3
    learning_rate: float = 4e-3
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.steps, self.batch, self.width, self.depth, self.learning_rate) <= 0 or self.seed < 0:
            raise WrongValue("steps, batch, width, depth and learning_rate must be positive, and seed not negative")
        self._settings()

    def identity(self) -> dict[str, Any]:
        """With the versions of the objective and of the network that it is trained by, where there
        has been more than one.
        """
        parts = {"objective": CrossEntropy(), "network": self._settings().network}
        return {**super().identity(), **{name: part.version for name, part in parts.items() if part.version > 1}}

    def _settings(self) -> Training:
        return Training(self.steps, self.batch, self.width, self.depth, self.learning_rate, data=_DATA)

    def log_probabilities(self, dataset: Dataset, place: _Place) -> Tensor:
        """log p_t(y | x_t) of every label, ``[batch, classes]``, differentiable in z
        ``[batch, dim]``; one level for all.
        """
        classifier, classes = _trained_on(dataset, self._settings(), self.seed, place.z.device)
        remainder = classifier.remainder(place.z, place.features)
        return torch.log_softmax(classes.logits(place) + place.rest * remainder, -1)

    def probabilities(self, dataset: Dataset, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """p_t(y | x_t) of every label, ``[batch, classes]``, for x ``[batch, dim]``."""
        level = numbers([alpha, sigma], x.device)
        with torch.no_grad():
            return self.log_probabilities(dataset, _Place.of(dataset, x, *level)).exp()

    def shift(self, dataset: Dataset, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """``(sigma^2 / alpha) grad log p_t(y | x_t)``, ``[batch, dim]``, for x ``[batch, dim]`` at
        one level.
        """
        requested = torch.tensor(self.requested(dataset))
        labels = to_device(requested[torch.arange(len(x)) % len(requested)], x.device)
        place = _Place.of(dataset, x, with_signal(alpha, sigma), sigma)
        with torch.enable_grad():
            place.z.requires_grad_()
            logs = self.log_probabilities(dataset, place).gather(-1, labels[:, None])
            (gradient,) = torch.autograd.grad(logs.sum(), place.z)
        return place.slope * gradient

    def denoise(
        self, denoiser: Denoiser, datasets: Sequence[Dataset], x: Tensor, alpha: Tensor, sigma: Tensor
    ) -> Tensor:
        # one member at a time: then its bits do not depend on the others
        members = zip(datasets, x, alpha, sigma, strict=True)
        return denoiser(x, alpha, sigma) + self.weight * torch.stack([self.shift(*member) for member in members])
