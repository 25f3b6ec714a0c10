r"""The least denoising loss that any network can reach.

    L* = E_nsr lambda(nsr) E|x_0 - E[x_0 | x_t]|^2 = E_nsr lambda(nsr) mmse(nsr)

What is left of the loss when the network is the ideal denoiser: the posterior variance of the data,
which no network knows more of. The outer mean runs over the training noise levels, by quadrature
over their quantiles (or over all levels of a discrete schedule); the inner over x_t, on the line by
quadrature against its exact density, elsewhere over fixed draws.

With weights that are learned (`edm2`) the loss ``E[e^-u l + u]`` is least where ``u = ln l``, so
that the floor is ``E[1 + ln(lambda mmse)]``. A noise target that is not the noise itself (the
refinements of `level-1`) adds its own variance.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.errors import WrongValue
from diffusion.formulations import Formulation, NoiseConditional, Trained
from diffusion.objectives import DenoisingLoss, OwnLevels, SingleLevel, UniformTime
from diffusion.objectives.noise_targets import last_step_share
from diffusion.objectives.parametrizations import Circle
from diffusion.randomness import stream
from diffusion.registry import identity_text
from diffusion.schedules import Schedule

_REST, _NODES = 8.0, 161  # quantiles u = Phi(z) of the noise levels, z evenly from -8 to 8: all but 1e-15 of them
_PER_NOISE = 5  # points of the density for each standard deviation of the noise
_REACH = 9.0  # standard deviations of the noise beyond the data
_MOST_POINTS = 50_000
_DRAWS = 4096


def loss_floor(
    target: Dataset,
    formulation: Formulation,
    *,
    schedule: Schedule | None = None,
    sigma_data: float | None = None,
) -> float:
    """The least mean loss, summed over coordinates, of a regression on noised data.

    Args:
        target: the data, with an exact denoiser.
        formulation: what is trained, with its noise levels and weights.
        schedule: on which; None: the formulation's own.
        sigma_data: the standard deviation that the formulation takes the data to have; None: the
            target's.

    Returns:
        The floor. On the line to six digits (two where the weight has a kink, as `min-snr`);
        elsewhere an average over 4096 draws at each noise level.

    Raises:
        WrongValue: the target has no exact denoiser, the formulation is trained otherwise, or does
            not take schedule or target.
    """
    name, target = formulation.registered_name, target.working
    on = formulation.fitted(schedule or formulation.own_schedule(), target)
    if isinstance(formulation, Trained) and formulation.simulates:
        raise WrongValue(f"loss_floor: the least loss of {name!r} is a mean over all outcomes, which is not known")
    if not (isinstance(formulation, NoiseConditional) and type(formulation.objective) is DenoisingLoss):
        raise WrongValue(
            f"loss_floor: {name!r} is not trained by regression on noised data, and its loss has another least value"
        )
    reason = formulation.refuses(on) or formulation.refuses_dataset(target)
    reason = reason or (None if target.exact else f"target {target.label()!r} has no exact denoiser")
    if sigma_data is not None and not 0 < sigma_data < math.inf:
        reason = f"sigma_data: found {sigma_data!r}; accepted: a positive number"
    if reason:
        raise WrongValue(f"loss_floor: {reason}")
    std = target.std if sigma_data is None else sigma_data
    nsr, shares = _noise_levels(formulation, on)
    coefficients = formulation.parametrization.coefficients(Circle.at(nsr), std)
    weight = formulation.weighting.on_target(nsr, coefficients, on, std)  # of what the network predicts
    losses = weight / coefficients.c_out**2 * torch.tensor([_mmse(target, ratio) for ratio in nsr.tolist()]).double()
    if formulation.noise_target.refinement != 3:
        share = last_step_share(nsr, on) ** 2
        _, of_noise = formulation.parametrization.mixture(Circle.at(nsr), std)
        losses = losses + weight * of_noise**2 * target.dim * (1 - share) / share
    if formulation.weighting.learned:
        losses = 1 + losses.log()
    return float((shares * losses).sum())


def _noise_levels(formulation: NoiseConditional, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """Noise-to-signal ratios ``[L]`` and their shares of the training."""
    levels = formulation.noise_levels
    discrete = schedule.max_steps is not None
    if isinstance(levels, SingleLevel) or (discrete and isinstance(levels, OwnLevels | UniformTime)):
        count = 1 if isinstance(levels, SingleLevel) else len(schedule.noise_levels)
        u = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        return levels.quantile(u, schedule), torch.full_like(u, 1 / count)
    z = torch.linspace(-_REST, _REST, _NODES, dtype=torch.float64)
    shares = torch.exp(-0.5 * z**2)  # trapezoids, which converge faster than any power of their width here
    return levels.quantile(torch.special.ndtr(z), schedule), shares / shares.sum()


def _mmse(target: Dataset, nsr: float) -> float:
    """E|x_0 - E[x_0 | x_t]|^2 at a noise-to-signal ratio."""
    level = Circle.at(torch.tensor(nsr, dtype=torch.float64))
    if target.has_cdf:
        ends = target.quantile(torch.tensor([1e-16, 1 - 1e-16], dtype=torch.float64))
        low, high = (level.a * ends + level.b * torch.tensor([-_REACH, _REACH])).tolist()
        count = int(_PER_NOISE * (high - low) / float(level.b)) + 1
        if count <= _MOST_POINTS:
            x = torch.linspace(low, high, count, dtype=torch.float64)[:, None]
            left = target.log_density(x, level.a, level.b).exp() * target.posterior_variance(x, level.a, level.b)
            return float(left.sum() * (high - low) / (count - 1))
    generator = stream("loss floor", identity_text(target))
    clean = target.sample(_DRAWS, generator)
    noise = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    return float(target.posterior_variance(level.a * clean + level.b * noise, level.a, level.b).mean())
