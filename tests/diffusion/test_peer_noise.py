"""What rules of other libraries draw: two increments of one step overlap, and are correlated as on
the library's own Brownian motion.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from typing import Any

import pytest
import torch
from scipy import stats

from diffusion.checks import known
from diffusion.errors import WrongValue
from diffusion.samplers import NoiseStreams, PeerSampler, samplers
from diffusion.samplers.peers import diffusers_schedulers, k_diffusion_samplers
from diffusion.samplers.peers.base import WayDown
from diffusion.samplers.peers.increments import OverlappingMoves
from diffusion.samplers.peers.libraries import version_of
from diffusion.schedules import EDM
from diffusion.schedules.grids import grids
from diffusion.schedules.levels import Level, levels_of

MEAN, STD = 0.7, 0.5
OVERLAPPING: list[dict[str, Any]] = [
    {"name": "k-diffusion", "sampler": "sample_dpmpp_sde"},
    {"name": "k-diffusion", "sampler": "sample_dpmpp_sde", "r": 0.3, "eta": 0.6, "s_noise": 0.9},
    {"name": "diffusers", "scheduler": "DPMSolverSDEScheduler"},
]


def made(spec: dict[str, Any]) -> PeerSampler:
    try:
        version_of(spec["name"])
    except WrongValue:
        pytest.skip(f"{spec['name']} is not installed (make install does it)")
    found = samplers.create(**spec)
    assert isinstance(found, PeerSampler)
    return found


def edm_levels(steps: int) -> list[Level]:
    return list(levels_of([EDM()], [grids.create("edm")], steps))


def variance_at_the_end(levels: list[Level], r: float, eta: float, s_noise: float) -> float:
    """Of DPM-Solver++ (SDE), for data N(0.7, 0.25): each step is linear in x and in two normal
    numbers whose correlation is that of a Brownian motion in sigma.
    """

    def slope(sigma: float) -> float:
        return STD**2 / (STD**2 + sigma**2)

    def parted(start: float, end: float) -> tuple[float, float]:
        up = eta * end * math.sqrt(1 - (end / start) ** 2)
        return math.sqrt(end**2 - up**2), up

    *sigmas, clean = [float(level.nsr) for level in levels]
    assert clean == 0
    variance = sigmas[0] ** 2
    for t, then in itertools.pairwise(sigmas):
        s = t ** (1 - r) * then**r
        (to_s, added_s), (to_next, added) = parted(t, s), parted(t, then)
        late = (1 - to_next / t) / (2 * r) * slope(s)  # what the second estimate's x counts for
        inner = to_s / t + (1 - to_s / t) * slope(t)
        gain = to_next / t + (1 - to_next / t) * (1 - 1 / (2 * r)) * slope(t) + late * inner
        first, second = s_noise * late * added_s, s_noise * added
        together = math.sqrt((t - s) / (t - then))
        variance = gain**2 * variance + first**2 + second**2 + 2 * together * first * second
    return slope(sigmas[-1]) ** 2 * variance


@pytest.mark.parametrize("steps", [4, 8])
@pytest.mark.parametrize("spec", OVERLAPPING, ids=str)
def test_draws_that_overlap_are_correlated_as_on_a_motion_in_sigma(spec: dict[str, Any], steps: int) -> None:
    levels, model = edm_levels(steps), known.gaussian(MEAN, STD)
    found = known.affine(made(spec), model, levels).of_normal(torch.zeros(1), levels[0].sigma ** 2)[1]
    given = [spec.get(name, default) for name, default in (("r", 0.5), ("eta", 1.0), ("s_noise", 1.0))]
    assert float(found) == pytest.approx(variance_at_the_end(levels, *given), rel=1e-9)


@pytest.mark.parametrize("spec", OVERLAPPING, ids=str)
def test_the_law_is_that_of_the_library_with_its_own_brownian_motion(
    spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library untouched: without a noise sampler it makes a tree of its own. The end is normal:
    a chi-square test of its variance, with a false alarm in 10^6 of each.
    """
    for module in (k_diffusion_samplers, diffusers_schedulers):
        monkeypatch.setattr(module, "OverlappingMoves", lambda *_, **__: None)
        monkeypatch.setattr(module, "HandedNoise", lambda _: contextlib.nullcontext())
    n, levels = 50_000, edm_levels(4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        x = torch.randn(1, n, 1, dtype=torch.float64) * levels[0].sigma[:, None, None]
        end = known.states(made(spec), known.gaussian(MEAN, STD), x, levels, known.Recorded((1, n, 1)))[-1]
    monkeypatch.undo()
    given = [spec.get(name, default) for name, default in (("r", 0.5), ("eta", 1.0), ("s_noise", 1.0))]
    tail = stats.chi2(n - 1).cdf((n - 1) * float(end.var()) / variance_at_the_end(levels, *given))
    assert 5e-7 < tail < 1 - 5e-7


def test_the_law_on_the_streams_of_the_samples_is_the_librarys() -> None:
    """The same test, with our noise."""
    n, levels, sampler = 20_000, edm_levels(4), made(OVERLAPPING[0])
    x = NoiseStreams([("start",)], n, 1).fresh() * levels[0].sigma[:, None, None]
    end = known.states(sampler, known.gaussian(MEAN, STD), x, levels, NoiseStreams([("law",)], n, 1))[-1]
    tail = stats.chi2(n - 1).cdf((n - 1) * float(end.var()) / variance_at_the_end(levels, 0.5, 1.0, 1.0))
    assert 5e-7 < tail < 1 - 5e-7


def test_a_rule_without_noise_draws_none() -> None:
    levels = edm_levels(4)
    noise = known.Recorded((1, 3, 1))
    sampler = made({"name": "k-diffusion", "sampler": "sample_dpmpp_sde", "eta": 0.0})
    known.states(sampler, known.gaussian(MEAN, STD), torch.ones(1, 3, 1, dtype=torch.float64), levels, noise)
    assert not sampler.stochastic
    assert not noise.moves


def test_a_change_of_the_correlation_is_a_change_of_the_version() -> None:
    versions = [made(spec).identity()["version"] for spec in OVERLAPPING]
    assert versions == [2, 2, 2]
    assert made({"name": "k-diffusion", "sampler": "sample_dpmpp_2m_sde"}).identity()["version"] == 1


def test_a_second_move_that_ends_before_the_first_is_refused_and_no_rule_asks_for_one() -> None:
    """Both on the real way down: the rules with r up to 1, and one that asks the wrong way round."""
    levels = edm_levels(3)
    for r in (1e-3, 0.999999, 1.0):
        sampler = made({"name": "k-diffusion", "sampler": "sample_dpmpp_sde", "r": r})
        x, noise = torch.ones(1, 3, 1, dtype=torch.float64), NoiseStreams([("r",)], 3, 1)
        assert all(
            state.isfinite().all() for state in known.states(sampler, known.gaussian(MEAN, STD), x, levels, noise)
        )
    with pytest.raises(WrongValue, match=r"r: found 1\.5; sample_dpmpp_sde takes numbers above 0"):
        made({"name": "k-diffusion", "sampler": "sample_dpmpp_sde", "r": 1.5})

    class Backwards(k_diffusion_samplers.KDiffusionSampler):
        def run(self, walk: WayDown, z: torch.Tensor) -> None:
            drawn = OverlappingMoves(walk, z, draws=True)
            begin, near, far = walk.nsr[:3].tolist()
            assert torch.equal(drawn(begin, near), drawn(begin, near * (1 - 1e-7)))
            longer = drawn(begin, far)
            assert not torch.equal(longer, drawn(near, far))
            drawn(begin, far)
            drawn(begin, near)

    sampler = Backwards(sampler="sample_dpmpp_sde")
    x, noise = torch.ones(1, 3, 1, dtype=torch.float64), NoiseStreams([("b",)], 3, 1)
    with pytest.raises(WrongValue, match="whose second move ends before its first"):
        known.states(sampler, known.gaussian(MEAN, STD), x, levels, noise)
