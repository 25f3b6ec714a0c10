"""The least loss that any network can reach: closed forms, the reference's figures, and the loss of
the ideal denoiser.
"""

import math
from typing import Any

import pytest

from diffusion.datasets import Dataset, EightGaussians, FourPoints, Gaussian, Uniform
from diffusion.errors import WrongValue
from diffusion.formulations import DDPM, Denoising, ElucidatedDM, ElucidatedDM2, Formulation, formulations
from diffusion.formulations.base import NoiseConditional
from diffusion.inference import loss_floor
from diffusion.objectives import DenoisingLoss, LogUniform, Weighting
from diffusion.objectives.parametrizations import Circle, Data
from diffusion.objectives.weightings import MinSignalToNoise, SignalToNoise
from diffusion.randomness import stream
from diffusion.registry import Entry
from diffusion.schedules import EDM, DDPMLinear
from diffusion.training import Member

WIDE = math.sqrt(3) / 2  # half the width of a uniform law of standard deviation 1/2


def test_the_references_figures() -> None:
    """A4: noise prediction on the chain of T levels, betas 0.001 to 0.2 at T = 100. A25: EDM's
    loss, sigma_data = 1/2.
    """
    assert loss_floor(Uniform(), DDPM()) == pytest.approx(0.106052, abs=5e-7)
    assert loss_floor(Uniform(), DDPM(), schedule=DDPMLinear(levels=1000)) == pytest.approx(0.107417, abs=5e-7)
    assert loss_floor(Uniform(-WIDE, WIDE), ElucidatedDM(), sigma_data=0.5) == pytest.approx(0.957678, abs=5e-7)
    assert loss_floor(Uniform(), ElucidatedDM(), sigma_data=0.5) == pytest.approx(0.631375, abs=5e-7)


def test_normal_data_leave_a_loss_of_one_for_each_coordinate_whatever_their_width() -> None:
    """EDM's weight is the inverse of what normal data leave."""
    for stds, dim in ((0.5, 1), (3.0, 1), (2.0, 3)):
        assert loss_floor(Gaussian(stds=stds, dim=dim), ElucidatedDM()) == pytest.approx(dim, rel=1e-7)
    assert loss_floor(Gaussian(stds=2.0), ElucidatedDM2()) == pytest.approx(1.0, rel=1e-6)  # E[1 + ln 1]


def test_normal_data_in_closed_form_with_other_weights() -> None:
    """E w(s) s^2 / (1 + s^2), ln s uniform on EDM's range; w = 1/s^2, and min(1/s^2, 5), which has
    a kink.
    """

    def floor(weighting: Weighting) -> float:
        parts = Denoising(noise_levels=LogUniform(), weighting=weighting, parametrization=Data())
        return loss_floor(Gaussian(), parts)

    def integral(low: float, high: float) -> float:  # of s^2 / (1 + s^2) over ln s
        return 0.5 * (math.log1p(math.exp(2 * high)) - math.log1p(math.exp(2 * low)))

    low, high, edge = math.log(0.002), math.log(80.0), math.log(1 / math.sqrt(5))
    plain, above = high - low - integral(low, high), high - edge - integral(edge, high)
    assert floor(SignalToNoise()) == pytest.approx(plain / (high - low), rel=1e-7)
    assert floor(MinSignalToNoise(5.0)) == pytest.approx((5 * integral(low, edge) + above) / (high - low), rel=1e-2)


REGRESSIONS = [
    entry
    for entry in formulations
    if entry.has_defaults
    and isinstance(made := entry.cls(), NoiseConditional)
    and type(made.objective) is DenoisingLoss
    and not made.weighting.learned
]


CASES: list[tuple[Entry[Formulation], Dataset]] = [
    (entry, target) for entry in REGRESSIONS for target in (Uniform(), FourPoints())
]
CASES += [(entry, EightGaussians()) for entry in REGRESSIONS if entry.name in ("edm", "ddpm")]


@pytest.mark.parametrize(
    ("entry", "target"), CASES, ids=lambda part: part.name if hasattr(part, "name") else part.label()
)
def test_the_ideal_denoiser_has_this_loss_and_so_no_network_a_smaller_one(entry: Entry[Any], target: Dataset) -> None:
    """Within 4.5 standard errors of a batch of the training itself: false alarms 7e-6."""
    formulation = entry.cls()
    schedule = formulation.own_schedule().fitted(target)
    member = Member(target, formulation, schedule, "floor")
    data = target.sample(20_000, stream("loss floor test"))
    shape = (1, 20_000)
    nsr = formulation.objective.levels(member, *shape, stream("floor", entry.name))
    inputs, answers, _, weights = formulation.objective.batches(member, data, *shape, stream("floor", entry.name))
    level = Circle.at(nsr.repeat_interleave(inputs.shape[1] // nsr.shape[1], 1))  # examples share levels
    c = member.coefficients(level)
    z = inputs.double() / c.c_in[..., None]
    ideal = (target.denoise(z, level.a, level.b) - c.c_skip[..., None] * z) / c.c_out[..., None]
    losses = weights * (ideal - answers).square().sum(-1)
    error = float(losses.std() / math.sqrt(losses.numel()))
    assert loss_floor(target, formulation) == pytest.approx(float(losses.mean()), abs=4.5 * error)


def test_what_has_no_such_floor_is_refused() -> None:
    for name, expected in (("vae", "not trained by regression"), ("exact", "not trained by regression")):
        with pytest.raises(WrongValue, match=expected):
            loss_floor(Uniform(), formulations.create(name))
    with pytest.raises(WrongValue, match="no exact denoiser"):
        loss_floor(_WithoutAnswer(), ElucidatedDM())
    with pytest.raises(WrongValue, match="needs a discrete"):
        loss_floor(Uniform(), DDPM(), schedule=EDM())
    with pytest.raises(WrongValue, match="sigma_data: found -1"):
        loss_floor(Uniform(), ElucidatedDM(), sigma_data=-1)


class _WithoutAnswer(Uniform):
    @property
    def exact(self) -> bool:
        return False
