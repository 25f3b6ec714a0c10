"""Guidance: Bayes' rule for scores at every noise level, against closed forms, quadrature and a
reference sample.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mpmath
import pytest
import torch
from torch import Tensor

from diffusion.datasets import Dataset, EightGaussians, FourPoints, Gaussian, GaussianMixture
from diffusion.datasets.classes import exact_given_label
from diffusion.formulations import Exact
from diffusion.guidance import ClassLabel, Guidance, Guided, guidances
from diffusion.models import Denoiser
from diffusion.randomness import stream

if TYPE_CHECKING:
    pass

WIDE = GaussianMixture((0.3, 0.5, 0.2), ((0.0, 0.0), (3.0, 1.0), (-2.0, 2.0)), (0.4, 0.7, 0.5))
LABELLED: dict[str, Dataset] = {
    "the documents' pair": GaussianMixture(),
    "three in the plane": WIDE,
    "eight_gaussians": EightGaussians(),
    "atoms": FourPoints(),
}
every_labelled = pytest.mark.parametrize("dataset", LABELLED.values(), ids=LABELLED.keys())
LEVELS = ((1.0, 0.02), (1.0, 0.5), (0.8, 0.6), (0.1, 1.0), (1.0, 80.0), (1.0, 1e4), (1e-3, 1.0), (0.0, 1.0))
every_level = pytest.mark.parametrize(("alpha", "sigma"), LEVELS)


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def exact(*datasets: Dataset) -> Denoiser:
    """The ideal denoisers of a stack."""

    def denoise(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.stack([d.denoise(x[m], alpha[m], sigma[m]) for m, d in enumerate(datasets)])

    return denoise


def noised(dataset: Dataset, n: int, alpha: float, sigma: float) -> Tensor:
    """Where samplers go: ``[1, n, dim]``."""
    x, noise = dataset.sample(n, stream("x")), torch.randn(n, dataset.dim, generator=stream("eps"), dtype=torch.float64)
    return (alpha * x + sigma * noise)[None]


def guided_score(guidance: Guidance, dataset: Dataset, x: Tensor, alpha: float, sigma: float) -> Tensor:
    """``(alpha D_guided - x) / sigma^2``, from the exact denoiser."""
    guided = Guided(guidance, exact(dataset), (dataset,))
    return (alpha * guided(x, numbers(alpha), numbers(sigma)) - x) / sigma**2


# --- the exact classifier -------------------------------------------------------------------------


@every_labelled
@every_level
def test_the_guided_exact_score_is_that_of_the_conditioned_law_at_every_noise_level(
    dataset: Dataset, alpha: float, sigma: float
) -> None:
    """The class's own score by the textbook, in 50 digits: ``(alpha mu - x) / v`` for one
    component.
    """
    x = noised(dataset, 20, alpha, sigma)
    mixture: Any = getattr(dataset, "mixture")  # noqa: B009 - not every data set has it
    for label in range(dataset.classes):
        found = guided_score(ClassLabel(label), dataset, x, alpha, sigma)[0]
        with mpmath.workdps(50):
            v = mpmath.mpf(alpha) ** 2 * mpmath.mpf(float(mixture.stds[label])) ** 2 + mpmath.mpf(sigma) ** 2
            for row, expected in zip(x[0].tolist(), found.tolist(), strict=True):
                pull = [
                    (alpha * mpmath.mpf(m) - c) / v for m, c in zip(mixture.means[label].tolist(), row, strict=True)
                ]
                size = float(max(1, *map(abs, pull)))
                assert expected == pytest.approx([float(p) for p in pull], abs=1e-10 * size)


@every_labelled
@pytest.mark.parametrize(("alpha", "sigma"), [level for level in LEVELS if level[0] > 0])
def test_the_shift_is_the_gradient_of_the_noised_classifier(dataset: Dataset, alpha: float, sigma: float) -> None:
    """``score + w grad log p_t(y | x_t)``, the gradient by automatic differentiation of the
    logarithm of a probability.
    """
    x = noised(dataset, 50, alpha, sigma)
    guidance = ClassLabel(1, weight=1.7)
    at = numbers(alpha)[:, None], numbers(sigma)[:, None]
    place = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(guidance.log_probability(dataset, place, *at).sum(), place)
    found = dataset.score(x, *at) + 1.7 * gradient
    size = float(found.abs().max())
    torch.testing.assert_close(
        guided_score(guidance, dataset, x, alpha, sigma), found, rtol=0, atol=1e-7 * max(size, 1 / sigma)
    )


@every_labelled
def test_the_classifiers_probabilities_add_up_to_one(dataset: Dataset) -> None:
    x = noised(dataset, 100, 0.7, 0.9)
    at = numbers(0.7)[:, None], numbers(0.9)[:, None]
    logs = [ClassLabel(label).log_probability(dataset, x, *at) for label in range(dataset.classes)]
    torch.testing.assert_close(torch.stack(logs).exp().sum(0), torch.ones(1, 100, dtype=torch.float64))


def test_what_clean_data_say_of_the_label_is_another_function_and_misses() -> None:
    """Guidance with p(y | x) of clean data at a noisy place, as the score-matching notes print it.

    The classifier of clean data is sure of the nearest component and has next to no gradient there,
    or an enormous one between two components: the score misses by more than the guidance is worth,
    while p_t(y | x_t) misses by 1e-10.
    """
    dataset = EightGaussians()
    for sigma in (0.3, 1.0, 3.0):
        x = noised(dataset, 500, 1.0, sigma)
        at = numbers(1.0)[:, None], numbers(sigma)[:, None]
        place = x.clone().requires_grad_()
        clean = ClassLabel(2).log_probability(dataset, place, numbers(1.0)[:, None], numbers(1e-9)[:, None])
        (gradient,) = torch.autograd.grad(clean.sum(), place)
        truth = dataset.of_class(2).score(x, *at)
        worth = (truth - dataset.score(x, *at)).square().mean().sqrt()
        wrong = (dataset.score(x, *at) + gradient - truth).square().mean().sqrt()
        right = (guided_score(ClassLabel(2), dataset, x, 1.0, sigma) - truth).square().mean().sqrt()
        assert wrong > 2 * worth
        assert right < 1e-10 * worth


def test_samples_take_turns_with_labels() -> None:
    """Sample i has label i mod n, whatever the batch: its numbers do not depend on how many there
    are.
    """
    dataset = WIDE
    guided = Guided(ClassLabel("all"), exact(dataset), (dataset,))
    level = numbers(1.0), numbers(2.0)
    x = noised(dataset, 10, 1.0, 2.0)
    together = guided(x, *level)
    assert torch.equal(guided(x[:, :7], *level), together[:, :7])
    for i in range(10):
        alone = dataset.of_class(i % 3).denoise(x[:, i : i + 1], level[0][:, None], level[1][:, None])
        torch.testing.assert_close(together[:, i : i + 1], alone, rtol=0, atol=1e-12)
    expected = exact_given_label(dataset, x, level[0][:, None], level[1][:, None], torch.arange(10) % 3)
    torch.testing.assert_close(expected, together, rtol=0, atol=1e-12)


def test_members_of_a_stack_have_their_own_targets() -> None:
    other = GaussianMixture((0.5, 0.5), ((0.0, 5.0), (1.0, 1.0)), (0.1, 0.2))
    datasets = (WIDE, EightGaussians(), other, WIDE)
    x = torch.cat([noised(d, 5, 1.0, 0.7) for d in datasets])
    alpha, sigma = torch.ones(4, dtype=torch.float64), numbers(0.7, 0.7, 0.7, 0.9)
    together = Guided(ClassLabel(1), exact(*datasets), datasets)(x, alpha, sigma)
    for m, dataset in enumerate(datasets):
        alone = Guided(ClassLabel(1), exact(dataset), (dataset,))
        assert torch.equal(together[m : m + 1], alone(x[m : m + 1], alpha[m : m + 1], sigma[m : m + 1]))


# --- what cannot be -------------------------------------------------------------------------------


def test_a_label_that_is_not_there_and_data_without_labels_are_refused() -> None:
    assert ClassLabel(8).refuses(EightGaussians(), Exact()) == (
        "dataset 'eight_gaussians' has no label 8 (accepted: 0 to 7, all)"
    )
    assert ClassLabel().refuses(Gaussian(), Exact()) == "dataset 'gaussian' has no labels"
    for wrong in (-1, (), (1, 1)):
        with pytest.raises(ValueError, match="labels = "):
            ClassLabel(wrong)
    with pytest.raises(ValueError, match="weight = inf"):
        ClassLabel(0, float("inf"))


@pytest.mark.parametrize("guidance", [entry.cls() for entry in guidances], ids=guidances.names())
def test_every_guidance_tells_what_is_known_in_words_that_its_parameters_decide(guidance: Guidance) -> None:
    assert guidance.condition()
    assert "|" not in guidance.condition() + guidance.label()
    assert " on " not in guidance.label()
