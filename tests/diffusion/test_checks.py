"""Every registered name keeps what it claims, and a component that is wrong in one thing fails the
one claim that says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import tasks.data  # noqa: F401 - registers digits and their metrics
from diffusion.checks import check_component, known
from diffusion.datasets import Dataset, GaussianMixture, Uniform, datasets
from diffusion.metrics import Metric, Wasserstein1, metrics
from diffusion.models import Denoiser
from diffusion.registry import Component, Registry
from diffusion.samplers import DDIM, Heun, Noise, Sampler, samplers
from diffusion.schedules import EDM, DDPMLinear, Flow, Level, Schedule, VPCosine, VPLinear, schedules
from diffusion.schedules.grids import EqualTimes, grids


def broken(component: Component) -> list[str]:
    """The claims that fail."""
    return [finding.claim for finding in check_component(component) if not finding.holds]


@pytest.mark.parametrize("name", [entry.name for entry in samplers if entry.has_defaults])
def test_every_registered_sampler_keeps_what_it_claims(name: str) -> None:
    found = list(check_component(samplers.create(name)))
    assert [finding for finding in found if not finding.holds] == []
    assert {"evaluations", "noise", "the batch may grow", "members may join"} <= {finding.claim for finding in found}
    order = [finding for finding in found if finding.claim.startswith(("order on", "follows"))]
    sampler = samplers.create(name)
    assert [finding.found for finding in found if finding.claim == "order"] == (
        ["claims no order"] if sampler.order is None else []
    )
    assert bool(order) == (sampler.order is not None and sampler.needs is Denoiser)


REST: tuple[Registry[Any], ...] = (schedules, grids, datasets, metrics)
QUICK = {"c2st": {"epochs": 60}}  # what trains in no time


@pytest.mark.parametrize(
    ("registry", "name"), [(registry, entry.name) for registry in REST for entry in registry if entry.has_defaults]
)
def test_every_other_registered_name_keeps_what_it_claims(registry: Registry[Any], name: str) -> None:
    found = list(check_component(registry.create(name, **QUICK.get(name, {}))))
    assert [finding for finding in found if not finding.holds] == []
    assert len(found) > 2  # more than what every component promises


# --- samplers that are wrong in one thing ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Right(Sampler):
    """DDIM's rule."""

    order: ClassVar[int] = 1

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
        return DDIM().step(denoiser, x, now, then, noise)


@dataclass(frozen=True)
class Boasting(Right):
    """Claims order 2."""

    order: ClassVar[int] = 2


@dataclass(frozen=True)
class Modest(Heun):
    """Heun's rule, which claims order 1."""

    order: ClassVar[int] = 1


@dataclass(frozen=True)
class Hiding(Right):
    """Adds a little noise, and does not say so."""

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
        return super().step(denoiser, x, now, then, noise) + 0.01 * noise.fresh()


@dataclass(frozen=True)
class Elsewhere(Right):
    """Draws from the generator that everybody shares."""

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
        return super().step(denoiser, x, now, then, noise) + 1e-12 * torch.rand(1, dtype=torch.float64)


@dataclass(frozen=True)
class Sociable(Right):
    """Looks at the mean of the batch."""

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
        return super().step(denoiser, x, now, then, noise) + 1e-12 * x.mean(1, keepdim=True)


@dataclass(frozen=True)
class Nosy(Right):
    """Looks at the other members."""

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
        return super().step(denoiser, x, now, then, noise) + 1e-12 * now.sigma.sum()


@dataclass(frozen=True)
class Fragile(Right):
    """NaN where the first step is the last."""

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
        end = super().step(denoiser, x, now, then, noise)
        first = torch.tensor([float(t) == schedule.t_max for t, schedule in zip(now.time, now.schedules, strict=True)])
        return torch.where(first[:, None, None] & torch.tensor(then.clean), torch.nan, end)


@dataclass(frozen=True)
class Miscounting(Right):
    """Claims one evaluation too many."""

    def evaluations(self, steps: int) -> int:
        return steps + 1


@dataclass(frozen=True)
class Between(Right):
    """Asks half-way, and does not say so."""

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
        if not then.clean:
            denoiser(x, 0.5 * (now.alpha + then.alpha), now.sigma)
        return super().step(denoiser, x, now, then, noise)

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1


@dataclass(frozen=True)
class Rude(Right):
    """Changes what it is given."""

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
        end = super().step(denoiser, x, now, then, noise)
        x += 1
        return end


@dataclass(frozen=True)
class Wordy(Right):
    """Has a parameter that no study can hold."""

    beside: object = torch.float64


@dataclass(frozen=True)
class Refusing(Right):
    """Serves nobody."""

    def refuses(self, schedule: object) -> str:  # noqa: ARG002
        return "not in the mood"


@pytest.fixture
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four schedules are enough for what is wrong on all of them."""
    monkeypatch.setattr(known, "SCHEDULES", (EDM(), VPLinear(), Flow(), DDPMLinear(levels=1000)))


@pytest.mark.usefixtures("_few")
def test_a_sampler_that_is_right_fails_nothing() -> None:
    assert broken(Right()) == []


@pytest.mark.usefixtures("_few")
@pytest.mark.parametrize(
    ("sampler", "claims"),
    [
        (Boasting(), ["order on a normal law", "order on a mixture"]),
        (Modest(), ["order on a normal law", "order on a mixture"]),
        (Hiding(), ["noise"]),
        (Sociable(), ["the batch may grow"]),
        (Nosy(), ["members may join"]),
        (Fragile(), ["finite in 1, 2 and 3 steps"]),
        (Miscounting(), ["evaluations"]),
        (Between(), ["levels"]),
        (Rude(), ["states"]),
        (Wordy(), ["parameters"]),
        (Refusing(), ["serves a registered schedule"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Sampler) else "",
)
def test_a_sampler_that_is_wrong_in_one_thing_fails_in_that(sampler: Sampler, claims: list[str]) -> None:
    assert broken(sampler) == claims


@pytest.mark.usefixtures("_few")
def test_a_sampler_with_noise_of_its_own_is_found_out() -> None:
    assert "noise" in broken(Elsewhere())


@pytest.mark.usefixtures("_few")
def test_an_error_of_somebody_s_own_is_what_was_found() -> None:
    @dataclass(frozen=True)
    class Raising(Right):
        def evaluations(self, steps: int) -> int:
            raise KeyError(steps)

    (found,) = [finding for finding in check_component(Raising()) if finding.claim == "evaluations"]
    assert (found.holds, found.found) == (False, "KeyError: 1")


# --- others that are wrong in one thing -----------------------------------------------------------


@dataclass(frozen=True)
class Halved(VPCosine):
    """Half of the noise's derivative."""

    def sigma_dot(self, t: Tensor) -> Tensor:
        return 0.5 * super().sigma_dot(t)


@dataclass(frozen=True)
class Askew(VPCosine):
    """An inverse that is a little late."""

    def time_of(self, nsr: Tensor) -> Tensor:
        return 1.001 * super().time_of(nsr)


@dataclass(frozen=True)
class Denying(VPCosine):
    """Preserves variance, and denies it."""

    variance_preserving: ClassVar[bool] = False


@dataclass(frozen=True)
class Repeating(EqualTimes):
    """Makes its last two moves one."""

    def times(self, schedule: Schedule, steps: int) -> Tensor:
        t = super().times(schedule, steps)
        return torch.cat([t[:-2], t[-3:-2], t[-1:]]) if steps > 1 else t


@dataclass(frozen=True)
class Steep(GaussianMixture):
    """A score that is a little too long."""

    def score(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return 1.001 * super().score(x, alpha, sigma)


@dataclass(frozen=True)
class Short(GaussianMixture):
    """A posterior variance that is a little too small."""

    def posterior_variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return 0.999 * super().posterior_variance(x, alpha, sigma)


@dataclass(frozen=True)
class Late(GaussianMixture):
    """Draws beside its density, of the same mean and spread."""

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        mean = torch.tensor(self.mean, dtype=torch.float64)
        return mean + self.std * torch.randn(n, self.dim, generator=generator, dtype=torch.float64)

    @property
    def has_cdf(self) -> bool:
        return False

    @property
    def mode_weights(self) -> None:
        return None

    @property
    def classes(self) -> int:
        return 0


@dataclass(frozen=True)
class Crowded(Uniform):
    """A log-density that looks at its neighbours."""

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return super().log_density(x, alpha, sigma) + 1e-13 * x.mean()


@dataclass(frozen=True)
class Optimistic(Wasserstein1):
    """Half of its floor."""

    def _floor(self, dataset: Dataset, n: int) -> float:
        return 0.5 * super()._floor(dataset, n)


@dataclass(frozen=True)
class Blind(Metric):
    """One, whatever it is shown."""

    def refuses(self, dataset: Dataset) -> str | None:  # noqa: ARG002
        return None

    def _measure(self, samples: Tensor, dataset: Dataset) -> float:  # noqa: ARG002
        return 1.0

    def _floor(self, dataset: Dataset, n: int) -> float:  # noqa: ARG002
        return 1.0


@pytest.mark.parametrize(
    ("component", "claims"),
    [
        (Halved(), ["derivative of sigma"]),
        (Askew(), ["inverse"]),
        (Denying(), ["variance preserving"]),
        (Repeating(), ["levels"]),
        (Steep(), ["score"]),
        (Short(), ["posterior variance"]),
        (Late(), ["draws follow the density"]),
        (Crowded(), ["the batch may grow"]),
        (Optimistic(), ["floor"]),
        (Blind(), ["wrong samples"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Component) else "",
)
def test_a_component_that_is_wrong_in_one_thing_fails_in_that(component: Component, claims: list[str]) -> None:
    assert broken(component) == claims
