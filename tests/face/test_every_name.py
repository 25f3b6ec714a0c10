"""Every registered name through the public face: it answers, or says in one sentence what it lacks."""

from typing import Any

import pytest
import torch
from torch import Tensor

import diffatlas as da
from diffusion.datasets import Dataset
from diffusion.datasets.classes import given_labels
from diffusion.formulations import Trained, formulations
from diffusion.guidance import guidances
from diffusion.metrics import BaseMetric, ModelMetric, PairedMetric
from diffusion.models import Denoiser, ExactDenoiser
from diffusion.samplers import samplers
from diffusion.schedules import schedules

CATALOGUE = da.catalog()
DATASETS, METRICS = ([entry["name"] for entry in CATALOGUE[kind]] for kind in ("datasets", "metrics"))
NEEDS_A_FILE = {"from_file", "images"}
BUMPS = da.dataset("eight_gaussians")
LINE = da.dataset("gaussian", means=0.5, stds=0.7)


def exact_line(x: Tensor, sigma: Tensor) -> Tensor:
    """E[x_0 | x_0 + sigma eps = x] of `LINE`."""
    return 0.5 + 0.49 / (0.49 + sigma**2) * (x - 0.5)


def sentence(error: pytest.ExceptionInfo[da.DiffatlasError]) -> str:
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


OURS = [entry.name for entry in samplers if entry.has_defaults]  # the others are samplers of other libraries


@pytest.mark.parametrize("name", OURS)
def test_every_sampler_takes_a_function_or_says_what_it_needs_besides(name: str) -> None:
    schedule = "vp-linear" if name == "level-1" else "edm"
    steps: dict[str, Any] = {"sampler": name, "schedule": schedule, "steps": 8, "n": 50, "dim": 1}
    if da.sampler(name).needs is not Denoiser:
        with pytest.raises(da.WrongValue, match=r"asks a model for .* gives none") as error:
            da.sample(exact_line, **steps)
        assert name in sentence(error)
        return
    x = da.sample(exact_line, **steps)
    assert x.shape == (50, 1)
    more = da.sample(exact_line, **{**steps, "n": 80})[:50]
    if da.sampler(name).adaptive:  # its steps are those of all samples
        torch.testing.assert_close(more, x, rtol=0, atol=0.01)
    else:
        assert torch.equal(more, x)
    assert not torch.equal(da.sample(exact_line, **steps, seed=1), x)


@pytest.mark.parametrize("name", OURS)
def test_every_sampler_answers_the_exact_model_or_says_why_not(name: str) -> None:
    exact = da.exact(LINE, "vp-linear")
    if issubclass(ExactDenoiser, da.sampler(name).needs):
        assert torch.isfinite(exact.sample(name, 4, n=20)).all()
    else:
        with pytest.raises(da.WrongValue) as error:
            exact.sample(name, 4, n=20)
        sentence(error)


@pytest.mark.parametrize("name", schedules.names())
def test_on_every_schedule_a_function_of_x_and_sigma_gives_the_samples_of_the_exact_model(name: str) -> None:
    """Whatever alpha is: a function is asked at x_t / alpha and sigma_t / alpha."""
    for sampler in ("ddim", "ancestral"):
        requested: dict[str, Any] = {"sampler": sampler, "schedule": name, "steps": 5, "n": 200}
        own = da.sample(exact_line, target=LINE, **requested)
        torch.testing.assert_close(own, da.sample(LINE, **requested), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in DATASETS if name not in NEEDS_A_FILE])
def test_every_dataset_is_sampled_by_its_ideal_denoiser_or_says_that_it_has_none(name: str) -> None:
    target = da.dataset(name)
    assert da.dataset({"name": name}) == target
    draws = target.sample(20, torch.Generator().manual_seed(0))
    if not target.exact:
        with pytest.raises(da.WrongValue, match="no exact denoiser"):
            da.exact(target)
        return
    model = da.exact(name)
    x = model.sample("heun", 4, n=20)
    assert x.shape == (20, target.dim)
    assert torch.isfinite(x).all()
    assert torch.isfinite(model.score(draws, 0.5)).all()
    allowed = 0.0 if target.frame is None else 1e-12 * target.std  # there and back costs a last bit
    torch.testing.assert_close(model(draws, 0.5), target.denoise(draws, 1.0, 0.5), rtol=0, atol=allowed)  # type: ignore[arg-type]


def served(metric: BaseMetric) -> Dataset | None:
    targets = [da.dataset(name) for name in DATASETS if name not in NEEDS_A_FILE]
    targets.append(given_labels(da.dataset("digits"), [2]))
    return next((target for target in targets if metric.refuses(target) is None), None)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_scores_what_it_looks_at_and_says_what_it_lacks(name: str) -> None:
    metric, target = da.metric(name), served(da.metric(name))
    assert target is not None
    draws = target.sample(500, torch.Generator().manual_seed(1))
    if isinstance(metric, PairedMetric):
        with pytest.raises(da.WrongValue, match="with their originals") as error:
            da.evaluate(draws, target, name)
    elif isinstance(metric, ModelMetric):
        schedule = "ddpm-linear" if name == "elbo" else "edm"
        score = da.evaluate(da.exact(target, schedule), target, name)[metric.column]
        assert score.value >= score.floor - 1e-3
        with pytest.raises(da.WrongValue, match=r"looks at a denoiser and was given samples") as error:
            da.evaluate(draws, target, name)
    else:
        score = da.evaluate(draws, target, name)[metric.column]
        if metric.higher_is_better:
            assert 0.9 < score.floor <= score.value + 0.1 <= 1.1
        else:
            assert 0 <= score.value <= 5 * score.floor + 0.05  # perfect samples are near the floor
        with pytest.raises(da.WrongValue, match=r"looks at samples and was given a model") as error:
            da.evaluate(da.model(lambda x, _: x, target=target), target, name)
    sentence(error)


TRAINABLE = [entry.name for entry in formulations if issubclass(entry.cls, Trained)]


@pytest.mark.filterwarnings("ignore:.*does not end in noise")  # as ncsn says of its own schedule
@pytest.mark.parametrize("name", TRAINABLE)
def test_every_formulation_trains_on_a_tensor_and_gives_samples(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    data, labels = BUMPS.sample_labelled(300, generator)
    found = labels if name == "class-conditional" else None
    target = "two_moons_posterior" if name == "observation-conditional" else data  # no tensor has a simulator
    model = da.train(target, name, labels=found, steps=4, batch=16, width=8, depth=1)
    x = model.sample(steps=1 if name == "vae" else 3, n=10)
    assert x.shape == (10, 2)
    assert torch.equal(x, model.sample(steps=1 if name == "vae" else 3, n=10))
    assert model.losses.shape == (4,)


@pytest.mark.parametrize("name", guidances.names())
def test_every_guidance_steers_a_model_and_a_function_whose_data_are_named(name: str) -> None:
    labelled = "labels" in CATALOGUE["guidances"][guidances.names().index(name)]["parameters"]
    guidance = da.guidance(name, **({"labels": 2} if labelled else {"values": 1.0}))
    requested: dict[str, Any] = {"guidance": guidance, "steps": 6, "n": 100}
    if name != "trained-classifier":  # a minute of training
        assert torch.isfinite(da.exact(BUMPS).sample("heun", **requested)).all()
    with pytest.raises(da.WrongValue, match="guidance: it speaks of data"):
        da.sample(lambda x, _: x, dim=2, **requested)
    if name == "classifier-free":
        with pytest.raises(da.WrongValue, match="is not conditioned on the label"):
            da.sample(da.exact(BUMPS).denoise, target=BUMPS, **requested)
    elif name != "trained-classifier":
        own = da.sample(da.exact(BUMPS).denoise, target=BUMPS, **requested)
        torch.testing.assert_close(own, da.sample(BUMPS, **requested), rtol=0, atol=1e-6)
