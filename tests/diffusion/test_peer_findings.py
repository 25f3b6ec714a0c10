"""What docs/peers.md says was found in other libraries: the orders of what is no default, and a minimal
case for each deviation, with an answer that is known.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
import yaml
from torch import Tensor

from diffusion.checks import samplers as checking
from diffusion.checks.known import smooth_levels
from diffusion.checks.samplers import order_measured
from diffusion.samplers import DPMSolver2M, NoiseStreams, Sampler
from diffusion.samplers.peers import diffusers_schedulers
from diffusion.samplers.peers.libraries import module_of
from diffusion.schedules import EDM, DDPMLinear, Schedule, VPLinear
from diffusion.schedules.grids import grids
from diffusion.schedules.levels import level_at, levels_of
from tests.diffusion.test_peers import NAMES, STEPS, Spec, agree, denoise, name_of, path_of, peer, walked
from tests.tasks.store_kit import ROOT

NORMAL, MIXTURE = "a normal law", "a mixture"

# --- every name -----------------------------------------------------------------------------------

LEFT_OUT = {  # of diffusers, by the reason that docs/peers.md gives
    "of distilled models": {
        *("CMStochasticIterativeScheduler", "FlowMapEulerDiscreteScheduler", "FlowMatchLCMScheduler"),
        *("HeliosDMDScheduler", "LCMScheduler", "PiflowScheduler", "SCMScheduler", "TCDScheduler"),
    },
    "noise that depends on a chain of 1000": {"SASolverScheduler"},
    "of one pipeline or of tokens": {
        *("AmusedScheduler", "BlockRefinementScheduler", "CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"),
        *("CosineDPMSolverMultistepScheduler", "DDPMWuerstchenScheduler", "DiscreteDDIMScheduler"),
        *("EntropyBoundScheduler", "HeliosScheduler", "LTXEulerAncestralRFScheduler", "MiniMaxH3Scheduler"),
        *("RFD4ProteinaScheduler", "RePaintScheduler", "UnCLIPScheduler", "VQDiffusionScheduler"),
    },
    "a rule that another name has": {"DDIMParallelScheduler", "DDPMParallelScheduler"},
    "to noise": {"DDIMInverseScheduler", "DPMSolverMultistepInverseScheduler"},
    "a step by other calls": {"KarrasVeScheduler", "ScoreSdeVeScheduler"},
}


def test_a_scheduler_that_a_new_version_of_diffusers_has_is_noticed() -> None:
    peer("diffusers", scheduler="DDIMScheduler")  # skips where it is not installed
    theirs = {name for name in dir(module_of("diffusers")) if name.endswith("Scheduler")}
    assert theirs - {*diffusers_schedulers.NAMES} == set().union(*LEFT_OUT.values())
    assert len(set().union(*LEFT_OUT.values())) == sum(map(len, LEFT_OUT.values()))


def test_the_versions_that_are_told_are_those_that_are_pinned() -> None:
    told = " ".join((ROOT / "docs" / "peers.md").read_text(encoding="utf-8").split())
    found = re.search(r"Measured with azula ([\d.]+), diffusers ([\d.]+) and k-diffusion ([\w.]+), on", told)
    assert found
    pins = [(ROOT / name).read_text(encoding="utf-8") for name in ("constraints.txt", "Makefile")]
    for library, version in zip(("azula", "diffusers", "k-diffusion"), found.groups(), strict=True):
        assert any(f"{library}=={version}" in text for text in pins), library


def test_the_study_asks_every_name() -> None:
    text = (ROOT / "deployments" / "studies" / "peers.yaml").read_text(encoding="utf-8")
    asked = [one for one in yaml.safe_load(text)["samplers"] if isinstance(one, dict)]
    named = [(one["name"], {key: one[key] for key in ("sampler", "scheduler") if key in one}) for one in asked]
    for case in NAMES:
        assert case in named, f"{name_of(case)} is no sampler of the study peers"
    assert all(case in NAMES for case in named)


# --- orders that are told -------------------------------------------------------------------------

ORDERS: list[tuple[tuple[str, Spec], int, dict[str, float]]] = [
    # what is claimed, and what is measured from 32 to 128 steps
    (("azula", {"sampler": "REABSampler", "order": 3}), 3, {NORMAL: 1.0, MIXTURE: 1.0}),
    (("azula", {"sampler": "zABSampler", "order": 3}), 3, {NORMAL: 2.8, MIXTURE: 2.8}),
    (("azula", {"sampler": "vABSampler", "order": 3}), 3, {NORMAL: 2.7, MIXTURE: 2.9}),
    (("azula", {"sampler": "zEABSampler", "order": 3}), 3, {NORMAL: 2.55, MIXTURE: 2.84}),
    (("diffusers", {"scheduler": "DEISMultistepScheduler", "solver_order": 3}), 3, {NORMAL: 2.55, MIXTURE: 2.84}),
    (("diffusers", {"scheduler": "DPMSolverMultistepScheduler", "solver_order": 3}), 3, {NORMAL: 2.15, MIXTURE: 1.9}),
    (("diffusers", {"scheduler": "UniPCMultistepScheduler", "solver_order": 3}), 4, {NORMAL: 3.2, MIXTURE: 3.2}),
    (
        ("diffusers", {"scheduler": "UniPCMultistepScheduler", "solver_order": 3, "lower_order_final": False}),
        4,
        {NORMAL: 3.87, MIXTURE: 3.66},
    ),
    (("diffusers", {"scheduler": "UniPCMultistepScheduler"}), 3, {NORMAL: 3.0, MIXTURE: 3.0}),
]


@pytest.mark.parametrize(("case", "claimed", "found"), ORDERS, ids=[name_of(case) for case, _, _ in ORDERS])
def test_the_orders_that_are_told_are_those_measured(
    case: tuple[str, Spec], claimed: int, found: dict[str, float]
) -> None:
    sampler = peer(case[0], **case[1])
    assert sampler.order == claimed
    assert order_measured(sampler, (32, 128)) == pytest.approx(found, abs=0.12)


def test_the_last_step_alone_keeps_unipc_from_its_order() -> None:
    """Without `lower_order_final` it comes to four; the tables of the guide, at 128 and 256 steps."""
    told: tuple[dict[str, bool], ...] = ({"lower_order_final": False}, {})
    errors = []
    for options in told:
        sampler = peer("diffusers", scheduler="UniPCMultistepScheduler", solver_order=3, **options)
        errors.append(
            [
                float(error(sampler, smooth_levels((VPLinear(),), steps))[0])
                for error in (checking._error_on_a_normal_law, checking._error_on_a_mixture)
                for steps in (128, 256)
            ]
        )
    assert errors == pytest.approx(
        np.array([[1.4e-7, 8.9e-9, 1.2e-7, 8.0e-9], [1.7e-6, 2.0e-7, 3.9e-7, 4.8e-8]]), rel=0.06
    )


# --- minimal cases --------------------------------------------------------------------------------

Estimate = Callable[[Tensor, Tensor], Tensor]  # of z = x / alpha and sigma / alpha


def walk(sampler: Sampler, ratios: Tensor, estimate: Estimate) -> list[float]:
    """The states on `edm`, where alpha = 1, from x = 0 on."""
    levels = [level_at([EDM()], ratio[None]) for ratio in ratios]

    def denoiser(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return estimate(x / alpha[:, None, None], (sigma / alpha)[:, None, None])

    x, noise = torch.zeros(1, 1, 1, dtype=torch.float64), NoiseStreams([("none",)], 1, 1)
    return [0.0, *(float(state) for state in sampler.trajectory(denoiser, x, levels, noise))]


def test_the_rosenbrock_rule_takes_a_factor_of_the_level_that_it_comes_from() -> None:
    """Where f of its documentation is 1, whatever x, the documented step is exact; theirs has
    sqrt(1 + e^2t) for sqrt(1 + e^2s) before the integral.
    """
    ratios = torch.exp(torch.linspace(1, -1, 6, dtype=torch.float64))

    def estimate(z: Tensor, ratio: Tensor) -> Tensor:
        b = ratio / torch.sqrt(1 + ratio**2)
        return (1 - b**2) * z - b

    states = walk(peer("azula", sampler="REABSampler"), ratios, estimate)
    for (x, t), (reached, s) in itertools.pairwise(zip(states, ratios.tolist(), strict=True)):
        integral = math.atan(s) - math.atan(t)
        carried = math.sqrt((1 + s**2) / (1 + t**2)) * x
        assert reached == pytest.approx(carried + math.sqrt(1 + t**2) * integral, rel=1e-5)
        assert abs(reached - carried - math.sqrt(1 + s**2) * integral) > 0.01
    assert states[1] - math.sqrt(1 + ratios[1] ** 2) * (math.atan(ratios[1]) - math.atan(ratios[0])) == pytest.approx(
        -0.122, abs=5e-4
    )


@pytest.mark.parametrize(
    "case",
    [("k-diffusion", {"sampler": "sample_lms"}), ("diffusers", {"scheduler": "LMSDiscreteScheduler"})],
    ids=name_of,
)
@pytest.mark.parametrize(("degree", "left"), [(1, -0.0200), (2, -0.0707), (3, -0.192)])
def test_of_a_four_step_rule_the_first_steps_alone_leave_an_error(
    case: tuple[str, Spec], degree: int, left: float
) -> None:
    """Where dz/dsigma is sigma^n, n < 4, a rule of four derivatives is exact once it has n + 1 of them:
    what the first n steps left stays, and for n = 1 it is half of the first step's square.
    """
    sigma = torch.linspace(2.0, 0.4, 9, dtype=torch.float64)
    states = walk(peer(case[0], **case[1]), sigma, lambda z, s: z - s ** (degree + 1))
    errors = [
        z - (s ** (degree + 1) - 2.0 ** (degree + 1)) / (degree + 1)
        for z, s in zip(states, sigma.tolist(), strict=True)
    ]
    assert errors[degree:] == pytest.approx([errors[degree]] * (9 - degree), rel=1e-9)
    assert errors[-1] == pytest.approx(left, rel=3e-3)
    if degree == 1:
        assert errors[-1] == pytest.approx(-((2.0 - 1.8) ** 2) / 2, rel=1e-9)


IPNDM = ("diffusers", {"scheduler": "IPNDMScheduler"})


def test_ipndm_has_the_weights_of_equal_steps_whatever_the_steps() -> None:
    """Where dz/dsigma = sigma, whatever z, two derivatives are enough. In equal steps only the first
    one's error stays, half of its square; in equal ratios each step has an error of its own, where the
    four-step rule that knows its steps has none.
    """
    equal = torch.linspace(2.0, 0.4, 9, dtype=torch.float64)
    ratios = torch.exp(torch.linspace(math.log(2.0), math.log(0.4), 9, dtype=torch.float64))

    def errors(case: tuple[str, Spec], sigma: Tensor) -> list[float]:
        states = walk(peer(case[0], **case[1]), sigma, lambda z, s: z - s**2)
        return [z - (s**2 - 4.0) / 2 for z, s in zip(states, sigma.tolist(), strict=True)]

    assert errors(IPNDM, equal)[1:] == pytest.approx([-(0.2**2) / 2] * 8, rel=1e-9)
    known = errors(("diffusers", {"scheduler": "LMSDiscreteScheduler"}), ratios)
    assert known[1:] == pytest.approx([known[1]] * 8, rel=1e-6)
    found, s = np.array(errors(IPNDM, ratios)), ratios.numpy()
    weighed = (55 * s[3:-1] - 59 * s[2:-2] + 37 * s[1:-3] - 9 * s[:-4]) / 24
    own = np.diff(s)[3:] * (weighed - (s[3:-1] + s[4:]) / 2)
    np.testing.assert_allclose(np.diff(found)[3:], own, rtol=1e-9)
    assert (own.max(), own.min()) == pytest.approx((8.2e-4, 1.6e-4), rel=0.03)  # as docs/peers.md tells


def test_unipc_takes_its_last_step_with_fixed_weights() -> None:
    """For D = lambda its three estimates are exact once it has them, and the last step of
    `lower_order_final` is not: half of the last difference stands for the exponential weight.
    """
    lambdas = np.linspace(-1, 1, 9)

    def errors(**options: bool) -> list[float]:
        """Of x / sigma, whose derivative in lambda is e^lambda D."""
        sampler = peer("diffusers", scheduler="UniPCMultistepScheduler", solver_order=3, **options)
        states = walk(sampler, torch.exp(-torch.from_numpy(lambdas)), lambda z, ratio: -torch.log(ratio) + 0 * z)
        exact = [scipy.integrate.quad(lambda u: math.exp(u) * u, -1, u)[0] for u in lambdas]
        return [x * math.exp(u) - true for x, u, true in zip(states, lambdas, exact, strict=True)]

    whole, lowered = errors(lower_order_final=False), errors()
    assert whole[3:] == pytest.approx([-5.44e-4] * 6, rel=2e-3)
    assert lowered[3:-1] == pytest.approx(whole[3:-1], rel=1e-9)
    assert lowered[-1] == pytest.approx(-3.67e-3, rel=2e-3)
    h, start = 0.25, 0.75
    fixed = (math.exp(h) - 1) * start + (math.exp(h) - 1) * h / 2  # with 1/2 for 1/(1 - e^-h) - 1/h
    true = math.exp(h) * (start + h) - start - math.exp(h) + 1
    assert lowered[-1] - whole[-1] == pytest.approx(math.exp(start) * (fixed - true), rel=1e-6)


# --- levels that a scheduler chooses --------------------------------------------------------------


@pytest.mark.parametrize("option", ["use_exponential_sigmas", "use_lu_lambdas", "use_beta_sigmas"])
def test_levels_by_an_option_are_those_of_its_formula(option: str) -> None:
    """Equal ratios, of the second by its rho = 1; of the third the quantiles of Beta(0.6, 0.6)."""
    sampler = peer("diffusers", scheduler="DPMSolverMultistepScheduler", **{option: True})
    found = np.array([float(level.nsr[0]) for level in path_of(sampler, [VPLinear()])])
    assert found[-1] == 0
    assert len(found) == STEPS + 1
    high, low, share = found[0], found[-2], np.linspace(0, 1, STEPS)
    ours = levels_of([VPLinear()], [grids.create("edm")], STEPS)
    np.testing.assert_allclose((high, low), [float(ours[at].nsr[0]) for at in (0, -2)], rtol=1e-6)
    expected = (
        low + (high - low) * scipy.stats.beta.ppf(1 - share, 0.6, 0.6)
        if option == "use_beta_sigmas"
        else high ** (1 - share) * low**share
    )
    np.testing.assert_allclose(found[:-1], expected, rtol=1e-6)


CHOSEN: list[tuple[Schedule, Spec]] = [
    *((VPLinear(), {option: True}) for option in diffusers_schedulers._OF_ENDS),
    *((DDPMLinear(levels=1000), {"timestep_spacing": name}) for name in ("linspace", "leading", "trailing")),
]


@pytest.mark.parametrize(("schedule", "options"), CHOSEN, ids=[str(options) for _, options in CHOSEN])
def test_on_levels_of_its_own_choice_a_scheduler_takes_the_same_steps(schedule: Schedule, options: Spec) -> None:
    """DPM-Solver++(2M) and ours on the levels that it passes; through float32."""
    sampler = peer("diffusers", scheduler="DPMSolverMultistepScheduler", **options)
    levels = path_of(sampler, [schedule])
    start = NoiseStreams([("start", "peers", 0)], 64, 2).fresh()
    ours = DPMSolver2M().trajectory(denoise, start, levels, NoiseStreams([("peers", 0)], 64, 2))
    agree(walked(sampler, [schedule]), torch.stack(list(ours)), exact=False)


def test_levels_by_linspace_are_those_of_our_grid_of_that_name() -> None:
    """Those of DDIM, whose steps then end elsewhere: see docs/peers.md."""
    chain = DDPMLinear(levels=1000)
    found = path_of(peer("diffusers", scheduler="DDIMScheduler", timestep_spacing="linspace"), [chain], 12)
    expected = levels_of([chain], [grids.create("linspace")], 12)
    assert [float(level.time) for level in found] == [float(level.time) for level in expected]
