r"""Evidence lower bounds, term by term: of a diffusion chain, and of whatever model brings its own.

A chain of T levels with ``A_t = alpha_t / alpha_{t-1}`` and ``B_t^2 = 1 - A_t^2`` is a model with T
layers of latent variables,

    p(x_T) = N(0, I),   p(x_{t-1} | x_t) = N(m_t(x_t, D(x_t)), v_t I),
    m_t(x_t, x_0) = A_t sigma_{t-1}^2/sigma_t^2 x_t + alpha_{t-1} B_t^2/sigma_t^2 x_0

whose posterior is approximated by the forward chain,
``q(x_{t-1} | x_t, x_0) = N(m_t(x_t, x_0), u_t I)`` with ``u_t = B_t^2 sigma_{t-1}^2/sigma_t^2``.
For each x_0

    log p(x_0)  >=  E log p(x_0 | x_1)  -  sum_{t=2}^T E KL( q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t) )  -  KL( q(x_T | x_0) || N(0, I) )
                    reconstruction         consistency                                                    prior matching

and with equal variances, ``v_t = u_t``, a consistency term is ``lambda_t E |x_0 - D(x_t)|^2`` with

    lambda_t = (alpha_{t-1} B_t^2/sigma_t^2)^2 / (2 u_t) = alpha_{t-1}^2 B_t^2 / (2 sigma_{t-1}^2 sigma_t^2) = (SNR_{t-1} - SNR_t) / 2,

SNR = alpha^2/sigma^2 (`bound_weights`; in powers a = A^2 and abar = alpha^2 it reads
``(1-a)^2 abar_{t-1} / (2 u_t (1-abar_t)^2)``, and as a weight of the predicted noise
``(1-a)^2 / (2 u_t a (1-abar_t))``).

**The first level.** u_1 is zero: with it, the reconstruction of anything but x_0 itself would be
minus infinity. The variance of ``p(x_0 | x_1)`` is ``B_1^2``, so that the mean D(x_1) is scored in
units of the noise that the first step adds, and ``lambda_1 = 1 / (2 B_1^2)``.

**Which variance.** ``v_t = u_t`` (`posterior`) is right for data at one point, ``v_t = B_t^2``
(`transition`) for data of unit variance: of ``N(0, I)`` the exact denoiser makes the reverse chain
the forward one, and the bound is the log-likelihood itself. With `posterior` the same denoiser
loses ``1/2 (B_t^2/u_t - 1 - ln B_t^2/u_t)`` per coordinate and level, most of it at the first few,
however many levels there are: 1.35 nats per coordinate on the chain `ddpm-linear` of 100 levels,
0.46 on that of 1000.

The mean of the bound over data is at most that of the log-density, minus the target's entropy.
Sources: Sohl-Dickstein et al., ICML 2015; Ho et al., NeurIPS 2020, eq. 5; Kingma et al.,
Variational Diffusion Models, NeurIPS 2021 (the weights as differences of SNR).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.analysis.gaussians import isotropic_divergence, log_normal_density
from diffusion.devices import to_device
from diffusion.errors import WrongValue
from diffusion.models import Denoiser, EvidenceBound, LatentVariableModel, capabilities_of, phrase_of
from diffusion.schedules import Schedule
from diffusion.schedules.levels import Variance, check_variance


def refuses_bound(schedule: Schedule) -> str | None:
    """Why a schedule has no bound of this kind, or None."""
    if schedule.variance_preserving and schedule.max_steps is not None:
        return None
    return (
        f"the bound has one term for each level of a discrete variance-preserving chain (such as 'ddpm-linear'), and "
        f"schedule {schedule.registered_name!r} is not one"
    )


def evidence_bound(
    model: object,
    clean: Tensor,
    schedule: Schedule,
    generator: torch.Generator,
    draws: int = 1,
    variance: Variance = "posterior",
) -> EvidenceBound:
    """The bound of one model, its terms averaged over independent draws of the noise.

    Of a latent-variable model, such as an autoencoder, it is the model's own; of a denoiser that of
    the schedule's chain (see `chain_bound`).

    Args:
        model: A `LatentVariableModel` or a `Denoiser`, with one member.
        clean: Data ``[n, dim]``.
        schedule: A denoiser's chain.
        generator: Where the noise is drawn.
        draws: Over how many draws the terms are averaged.
        variance: That of a chain's reverse moves.

    Returns:
        The terms, ``[n]`` each.

    Raises:
        WrongValue: There is no bound, `variance` is unknown, or ``draws < 1``.
    """
    if draws < 1:
        raise WrongValue(f"draws must be 1 or more, found {draws}")
    bounds = [_bound_once(model, clean, schedule, generator, variance) for _ in range(draws)]
    terms = [[getattr(bound, name) for bound in bounds] for name in ("reconstruction", "consistency", "prior")]
    return EvidenceBound(*(torch.stack(term).mean(0) for term in terms))


def _bound_once(
    model: object, clean: Tensor, schedule: Schedule, generator: torch.Generator, variance: Variance
) -> EvidenceBound:
    def drawn(dim: int) -> Tensor:
        return to_device(torch.randn(len(clean), dim, generator=generator, dtype=torch.float64), clean.device)

    if isinstance(model, LatentVariableModel):
        terms = model.bound(clean[None], drawn(model.latent_dim())[None])
        return EvidenceBound(terms.reconstruction[0], terms.consistency[:, 0], terms.prior[0])
    if not isinstance(model, Denoiser):
        raise WrongValue(refuses_model(type(model)))
    noise = (drawn(clean.shape[1]) for _ in itertools.count())
    return chain_bound(model, clean, noise, schedule, variance)


def refuses_model(model: type) -> str | None:
    """Why models of a class have no bound on any schedule, or None."""
    if issubclass(model, LatentVariableModel) or issubclass(model, Denoiser):
        return None
    given = ", ".join(phrase_of(one) for one in capabilities_of(model))
    return f"it gives neither a bound nor a denoiser, only {given or 'nothing'}"


def chain_bound(
    denoiser: Denoiser,
    clean: Tensor,
    noise: Iterable[Tensor],
    schedule: Schedule,
    variance: Variance = "posterior",
) -> EvidenceBound:
    """The bound's terms at ``clean [n, dim]``, each for one draw of the noise.

    `noise` gives ``[n, dim]`` standard normal numbers for each level t = 1 .. T, in this order;
    they may be independent, or the same for all levels (`itertools.repeat`), since every term looks
    at one level. The denoiser is called as by a sampler, with one member.

    Raises:
        WrongValue: the schedule is refused (see `refuses_bound`), `variance` is unknown, or there
            is noise for too few levels.
    """
    if reason := refuses_bound(schedule):
        raise WrongValue(reason)
    check_variance("the bound of a chain", variance)
    steps = _Steps.of(schedule).on(clean.device)
    reconstruction, consistency = clean.new_empty(0), []
    for t, eps in zip(range(len(steps.alpha)), noise, strict=False):
        alpha, sigma = steps.alpha[t : t + 1], steps.sigma[t : t + 1]
        denoised = denoiser((alpha * clean + sigma * eps)[None], alpha, sigma)[0].double()
        if t == 0:
            reconstruction = log_normal_density(clean, denoised, steps.transition[0])
            continue
        distance = steps.from_data[t] ** 2 * (clean - denoised).square().sum(-1)
        chosen = steps.posterior[t] if variance == "posterior" else steps.transition[t]
        consistency.append(isotropic_divergence(distance, steps.posterior[t], chosen, clean.shape[1]))
    if len(consistency) != len(steps.alpha) - 1:
        raise WrongValue(f"the noise was for fewer than the {len(steps.alpha)} levels of {schedule.label()}")
    last_alpha, last_sigma = steps.alpha[-1], steps.sigma[-1]
    one = torch.ones_like(last_sigma)
    prior = isotropic_divergence((last_alpha * clean).square().sum(-1), last_sigma**2, one, clean.shape[1])
    return EvidenceBound(reconstruction, torch.stack(consistency), prior)


def bound_weights(schedule: Schedule) -> Tensor:
    """lambda_t of ``|x_0 - D(x_t)|^2`` in the bound at t = 1 .. T, ``[T]``; see the module's text.

    Raises:
        WrongValue: the schedule has no such bound.
    """
    if reason := refuses_bound(schedule):
        raise WrongValue(reason)
    steps = _Steps.of(schedule)
    weights = steps.from_data**2 / (2 * steps.posterior)
    weights[0] = 1 / (2 * steps.transition[0])
    return weights


@dataclass(frozen=True)
class _Steps:
    """What a chain's moves consist of, all ``[T]``, t = 1 .. T."""

    alpha: Tensor
    sigma: Tensor
    transition: Tensor  # B^2
    posterior: Tensor  # u, zero at t = 1
    from_data: Tensor  # the factor of x_0 in the mean of q(x_{t-1} | x_t, x_0)

    def on(self, device: torch.device) -> _Steps:
        parts = (self.alpha, self.sigma, self.transition, self.posterior, self.from_data)
        return _Steps(*(to_device(part, device) for part in parts))

    @staticmethod
    def of(schedule: Schedule) -> _Steps:
        levels = schedule.level_times.flip(0)
        alpha, sigma = schedule.alpha(levels), schedule.sigma(levels)
        alpha_before = torch.cat([torch.ones_like(alpha[:1]), alpha[:-1]])
        sigma_before = torch.cat([torch.zeros_like(sigma[:1]), sigma[:-1]])
        transition = -torch.expm1(2 * torch.log(alpha / alpha_before))
        shrink = transition / sigma**2
        return _Steps(alpha, sigma, transition, shrink * sigma_before**2, alpha_before * shrink)
