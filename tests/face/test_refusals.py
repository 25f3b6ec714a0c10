"""What cannot be right is answered in one sentence: what was found, and what would be accepted."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import diffatlas as da

X = torch.zeros(7, 2, dtype=torch.float64)
LINE = torch.zeros(7, 1, dtype=torch.float64)


def shrink(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    return x / (1 + sigma**2)


def ask(**changes: Any) -> torch.Tensor:
    return da.sample(**{"denoiser": shrink, "sampler": "heun", "n": 5, "dim": 2, "steps": 2, **changes})


WORD: Any = "soon"
FAST: dict[str, Any] = {"learning_rate": "fast"}


def bumps() -> Any:  # whatever is asked of it, right or wrong
    return da.exact("eight_gaussians")


def broken(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    return torch.where(sigma > 1, x, x * torch.nan)


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    # running
    "no time for a shard": (lambda: da.run("smoke", "none", shard_limit=0), "shard_limit: found 0; accepted: minutes"),
    "a time that is a word": (lambda: da.grow("smoke", "none", shard_limit=WORD), "shard_limit: found 'soon'"),
    # what is handed to a sampler
    "a denoiser that drops an axis": (
        lambda: ask(denoiser=lambda x, _: x[:, 0]),
        r"returned .* shape \[5\] for x of shape \[5, 2\]",
    ),
    "a denoiser that sums up": (lambda: ask(denoiser=lambda x, _: x.sum()), r"returned .* of shape \[\]"),
    "a denoiser that returns another type": (lambda: ask(denoiser=lambda x, _: x.numpy()), "returned ndarray"),
    "a denoiser that returns nothing": (lambda: ask(denoiser=lambda _x, _s: None), "returned None"),
    "a denoiser of three arguments": (lambda: ask(denoiser=lambda x, _a, _s: x), r"a function of \(x, _a, _s\)"),
    "a data set's method": (lambda: ask(denoiser=da.dataset("uniform").denoise), "accepted: the data set itself"),
    "no denoiser": (lambda: ask(denoiser=5), "found int"),
    "no data set": (lambda: ask(denoiser="edm"), "unknown dataset 'edm'"),
    "numbers that are none": (lambda: ask(denoiser=broken), "5 of 5 samples of heun in 2 steps are not finite"),
    "no dimension": (lambda: ask(dim=None), "dim: found None"),
    "a dimension that is none": (lambda: ask(dim=2.0), "dim: found 2.0"),
    "another dimension than the target's": (lambda: ask(target="uniform"), "dim: found 2, and target 'uniform' has 1"),
    "another dimension than the model's": (
        lambda: ask(denoiser=bumps(), dim=3),
        "dim: found 3, and the denoiser's is 2",
    ),
    "a prediction without a name": (lambda: ask(predicts="eps"), "predicts: found 'eps'; accepted: x0, epsilon"),
    "a prediction beside a model": (lambda: ask(denoiser=bumps(), predicts="v"), "predicts: found beside a model"),
    "whole numbers as dtype": (lambda: ask(dtype=torch.int32), "dtype: found torch.int32"),
    # counts
    "no samples": (lambda: ask(n=0), "n: found 0; accepted: a whole number from 1"),
    "half a sample": (lambda: ask(n=2.5), r"n: found 2\.5"),
    "no steps": (lambda: ask(steps=0), "steps: found 0"),
    "a truth value as steps": (lambda: ask(steps=True), "steps: found True"),
    "more steps than levels": (lambda: ask(schedule="ddpm-linear", steps=200), "has 100 levels, fewer than 200 steps"),
    "a seed that is none": (lambda: ask(seed="zero"), "seed: found 'zero'"),
    # names
    "a sampler without a name": (lambda: ask(sampler="huen"), "unknown sampler 'huen'; did you mean 'heun'"),
    "a parameter without a name": (
        lambda: da.sampler("ddim", etta=0.5),
        "unknown parameter 'etta'.*did you mean 'eta'",
    ),
    "a parameter out of range": (lambda: da.sampler("ddim", eta=2.0), "eta must lie between 0"),
    "a text for a number": (lambda: da.dataset("uniform", low="0"), "found '0', expected a number"),
    "another kind of object": (lambda: ask(sampler=da.schedule("edm")), "expected the name of a sampler"),
    "parameters of an object": (lambda: da.dataset(da.dataset("uniform"), low=0.5), "belong to a name"),
    "parts that do not fit": (lambda: ask(sampler="rk2", schedule="ddpm-linear"), "between the levels of a grid"),
    # data and samples
    "data of three axes": (
        lambda: da.train(torch.zeros(4, 3, 2)),
        r"the data have shape \[4, 3, 2\]; accepted: \[n, dim\]",
    ),
    "one point": (lambda: da.train(torch.zeros(1, 2)), r"the data have shape \[1, 2\]"),
    "the same point again and again": (lambda: da.train(torch.ones(9, 2)), "all points of the data are the same"),
    "data that are not finite": (
        lambda: da.train(torch.full((9, 2), torch.nan)),
        "18 of the data's numbers are not finite",
    ),
    "data that are no numbers": (lambda: da.train([["a", "b"]]), "the data: found"),
    "labels of another length": (
        lambda: da.train(torch.randn(9, 2), labels=torch.zeros(8).long()),
        r"the labels have shape \[8\]",
    ),
    "labels of a data set": (lambda: da.train("moons", labels=[0, 1]), "labels belong to points of one's own"),
    "samples of another dimension": (
        lambda: da.evaluate(X, "uniform", "w1"),
        r"samples of shape \[7, 2\]; needed: \[n, 1\]",
    ),
    "samples of three axes": (lambda: da.evaluate(X[None], "moons", "energy"), r"samples of shape \[1, 7, 2\]"),
    "samples that are not finite": (
        lambda: da.evaluate(LINE + torch.inf, "uniform", "w1"),
        "7 of 7 samples are not finite",
    ),
    "no metrics": (lambda: da.evaluate(LINE, "uniform", []), "metrics: found none"),
    "a metric that does not serve": (lambda: da.evaluate(X, "moons", "w1"), "is refused"),
    # a model's own questions
    "points of another dimension": (lambda: bumps().denoise(LINE, 0.5), r"x has shape \[7, 1\]; accepted: \[n, 2\]"),
    "points of one axis": (lambda: bumps().score(X[:, 0], 0.5), r"x has shape \[7\]; accepted: \[n, 2\]"),
    "no noise": (lambda: bumps().denoise(X, 0.0), "sigma: found 0; accepted: a number above 0"),
    "negative noise": (lambda: bumps().denoise(X, -1.0), r"sigma: found -1\.0"),
    "noise for each point": (lambda: bumps().denoise(X, np.ones(7)), r"sigma has shape \[7\]; accepted: one number"),
    "noise in words": (lambda: bumps().denoise(X, "much"), "sigma: found str 'much'"),
    "a density that nobody gives": (lambda: da.model(shrink, dim=2).log_density(X, 1.0), "gives no densities"),
    "a code of no autoencoder": (lambda: bumps().encode(X), "has no encoder"),
    "a start that is none": (lambda: bumps().sample(n=2, start="somewhere"), "start: found 'somewhere'"),
    # training
    "a formulation without a network": (lambda: da.train("moons", "exact"), "has no network"),
    "a setting that is none": (lambda: da.train("moons", steps=0), "train: steps: found 0"),
    "a rate that is none": (lambda: da.train("moons", **FAST), "learning_rate: found 'fast'"),
    "a schedule that does not fit": (
        lambda: da.train("moons", "ddpm", schedule="edm"),
        "needs a discrete variance-preserving",
    ),
    "an answer that nobody has": (lambda: da.exact("swiss_roll", "nothing"), "unknown schedule 'nothing'"),
    "a loss that has no floor": (lambda: da.loss_floor("moons", "vae"), "not trained by regression"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_right_is_answered_in_one_sentence(case: str) -> None:
    wrong, found = WRONG[case]
    with pytest.raises(da.WrongValue, match=found) as error:
        wrong()
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 600
    assert isinstance(error.value, ValueError)
    assert isinstance(error.value, da.DiffatlasError)


def test_a_training_that_diverges_is_told() -> None:
    with pytest.raises(da.WrongValue, match=r"training diverged: .*lower training\.learning_rate"):
        da.train("moons", "edm", learning_rate=1e6, steps=200, batch=16, width=8, depth=3, data=100)


def test_data_far_larger_than_the_noise_are_warned_of() -> None:
    """Samples then start from the wrong place, which no step mends."""
    points = torch.randn(100, 2, dtype=torch.float64) + 500
    with pytest.warns(UserWarning, match="schedule edm does not end in noise: there, data of rms 500"):
        da.train(points, "edm", steps=2, width=8, depth=1, batch=8)


@dataclass(frozen=True)
class Forgetful(da.Sampler):
    """A step that ends without an answer."""

    given: str = "nothing"
    order: ClassVar[int | None] = 1

    def step(self, denoiser: Any, x: Any, now: Any, then: Any, noise: Any) -> Any:  # noqa: ARG002
        return None if self.given == "nothing" else x[0]


@pytest.mark.parametrize(("given", "found"), [("nothing", "NoneType"), ("a member", r"samples of shape \[5, 2\]")])
def test_a_sampler_of_ones_own_that_makes_no_states_is_named(given: str, found: str) -> None:
    with pytest.raises(da.WrongValue, match=rf"gave {found}, expected \[1, 5, 2\]"):
        da.sample(lambda x, sigma: x / (1 + sigma**2), Forgetful(given), n=5, dim=2)


@dataclass(frozen=True)
class Careless(da.Dataset):
    """Draws of the wrong shape, or that are no numbers."""

    registered_name = "careless"
    fault: str = "flat"
    dim = 2
    mean = (0.0, 0.0)
    std = 1.0

    def sample(self, n: int, generator: torch.Generator) -> torch.Tensor:
        x = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        return {"flat": x[:, 0], "more": torch.cat([x, x[:1]]), "holes": x.where(x < 1, torch.nan)}[self.fault]


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("flat", r"gave a tensor of shape \[50\] for n = 50; accepted: a tensor of shape \[50, 2\]"),
        ("more", r"gave a tensor of shape \[51, 2\] for n = 50; accepted"),
        ("holes", r"gave \d+ of 50 points that are not finite"),
    ],
)
def test_draws_of_ones_own_data_set_that_cannot_be_right_are_refused(fault: str, found: str) -> None:
    with pytest.raises(da.WrongValue, match=rf"careless.sample {found}"):
        da.train(Careless(fault), "edm", steps=2, width=8, depth=1, batch=8, data=50)


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"mean": 0.0}, "its mean is 0.0; needed: a tuple of 2 numbers, one for each coordinate"),
        ({"mean": (0.0,)}, "its mean is (0.0,); needed: a tuple of 2 numbers, one for each coordinate"),
        ({"std": (1.0, 1.0)}, "its std is (1.0, 1.0); needed: one number"),
    ],
)
def test_moments_of_ones_own_data_set_of_another_kind_are_refused(changed: dict[str, Any], found: str) -> None:
    wrong = type("Wrong", (Careless,), changed)
    with pytest.raises(da.WrongValue, match=re.escape(found)):
        da.train(wrong(), "edm", steps=2, width=8, depth=1, batch=8, data=50)
