"""One model, trained, exact or somebody's own, and what it can be asked.

Points are ``[n, dim]`` and answers float64, on the device of the model; noise is given by sigma, as in
``x = alpha x_0 + sigma eps``, where alpha is 1 unless it is named. All of them are in the data's own
units, also where the model sees them in others (`diffusion.datasets.standardised`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from diffusion import arguments
from diffusion.analysis.likelihood import Trace, log_likelihood
from diffusion.datasets import Dataset
from diffusion.devices import device_of, each_in_full_float32, full_float32, numbers, to_device
from diffusion.errors import WrongValue
from diffusion.formulations import Formulation
from diffusion.guidance import Guidance
from diffusion.inference.refusals import unanswerable
from diffusion.inference.sampling import Question, Subject, levels_for, states
from diffusion.metrics import NegativeLogLikelihood, ScoreError
from diffusion.models import Denoiser, DensityModel, capabilities_of, phrase_of
from diffusion.samplers import Sampler
from diffusion.schedules import Schedule
from diffusion.schedules.grids import Grid, grids

MOST_SAMPLES = 100_000_000
MOST_STEPS = 1_000_000


@dataclass(frozen=True)
class Inference:
    """A model that can be asked: `model` as a stack of one, and what it was made for.

    `stream` names the random numbers of its samples: models of one stream and seed start from the
    same noise.
    """

    dataset: Dataset
    formulation: Formulation
    schedule: Schedule
    seed: int
    model: object
    stream: str
    place: torch.device | None = field(default=None, kw_only=True)  # of a model that is anywhere, as exact ones are

    @property
    def device(self) -> torch.device:
        """Where the model is asked, and its answers are."""
        return self.place or device_of(self.model)

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """`denoise` at ``alpha = 1``: a model is a denoiser ``f(x [n, dim], sigma)``, as
        `diffusion.models.own` takes one.
        """
        return self.denoise(x, sigma)

    def denoise(self, x: Tensor, sigma: Tensor | float, *, alpha: Tensor | float = 1.0) -> Tensor:
        """``E[x_0 | x]`` where ``x = alpha x_0 + sigma eps``.

        Args:
            x: points ``[n, dim]``.
            sigma: the noise in them, a number.
            alpha: the amplitude of the data in them, a number.

        Returns:
            ``[n, dim]`` float64, differentiable in x where x asks for it.

        Raises:
            WrongValue: another shape of x, sigma not above 0, or the model gives no denoiser.
        """
        denoiser = self.denoiser
        points, level = self._points(x, "x"), self._level(alpha, sigma)
        frame = self.dataset.frame
        with full_float32(self.device):
            if frame is None:
                return denoiser(points[None], *level)[0]
            return frame.back(denoiser(*self._seen(points, *level))[0])

    @property
    def denoiser(self) -> Denoiser:
        """The model as samplers ask it.

        Raises:
            WrongValue: the model gives no denoiser.
        """
        if not isinstance(self.model, Denoiser):
            raise WrongValue(self._gives_none("clean data behind noisy points"))
        return self.model

    def score(self, x: Tensor, sigma: Tensor | float, *, alpha: Tensor | float = 1.0) -> Tensor:
        """``grad log p(x) = (alpha E[x_0 | x] - x) / sigma^2`` of ``x = alpha x_0 + sigma eps``;
        arguments as of `denoise`. Refused of a model that does not know data in noise.
        """
        if reason := self.formulation.refuses_metric(ScoreError()):
            raise WrongValue(f"{self.formulation.registered_name!r} gives no score: {reason}")
        a, s = self._level(alpha, sigma)
        points = self._points(x, "x")
        return (a * self.denoise(points, sigma, alpha=alpha) - points) / s**2

    def log_density(self, x: Tensor, sigma: Tensor | float, *, alpha: Tensor | float = 1.0) -> Tensor:
        """``log p(x)`` ``[n]``, in nats, of ``x = alpha x_0 + sigma eps``, of exact models;
        arguments as of `denoise`.
        """
        if not isinstance(self.model, DensityModel):
            raise WrongValue(self._gives_none("densities (log_likelihood follows the flow of any denoiser)"))
        points, level = self._points(x, "x"), self._level(alpha, sigma)
        frame = self.dataset.frame
        if frame is None:
            return self.model.log_density(points[None], *level)[0]
        return self.model.log_density(*self._seen(points, *level))[0] - frame.log_volume

    def log_likelihood(self, x: Tensor, *, tolerance: float = 1e-4, trace: Trace = "auto") -> Tensor:
        """``log p(x)`` ``[n]``, in nats, by the probability flow: the density of noised data, at
        the schedule's t_min.

        Args:
            x: points ``[n, dim]`` with the noise of t_min in them, ``alpha x_0 + sigma eps``: noise
                clean ones first. Of standardised data, of mean m and scale s, that is
                ``m + alpha (x_0 - m) + s sigma eps``.
            tolerance: the solver's error, in units of the noise and in nats.
            trace: ``exact``, ``hutchinson``, or ``auto``, which is exact up to 16 dimensions.

        Raises:
            WrongValue: another shape of x, a model without a denoiser, or a denoiser that is no
                answer to this question.
            FlowLost: the solver gives up or leaves the numbers.
        """
        if not isinstance(self.model, Denoiser):
            raise WrongValue(self._gives_none("a probability flow"))
        if reason := self.formulation.refuses_metric(NegativeLogLikelihood()):
            raise WrongValue(f"{self.formulation.registered_name!r}: {reason}")
        points, frame = self._points(x, "x"), self.dataset.frame
        seen = points if frame is None else frame.into(points)
        with full_float32(self.device):
            found = log_likelihood(self.model, seen[None], self.schedule, tolerance=tolerance, trace=trace)[0]
        return found if frame is None else found - frame.log_volume

    def states(
        self,
        sampler: Sampler,
        *,
        steps: int = 18,
        n: int = 10_000,
        seed: int | None = None,
        schedule: Schedule | None = None,
        grid: Grid | None = None,
        guidance: Guidance | None = None,
        start: str = "random",
    ) -> Iterator[Tensor]:
        """The samples ``[n, dim]`` at each level of the sampler's path, from the start noise on;
        arguments as of `draw`.
        """
        on = schedule or self.schedule
        if not isinstance(sampler, Sampler):
            raise WrongValue(f"sampler: found {sampler!r}; accepted: a sampler")
        on_grid = grid or grids.create(on.own_grid)
        _check_count("n", n, MOST_SAMPLES)
        _check_count("steps", steps, MOST_STEPS)
        if start not in ("random", "quantiles") or (start == "quantiles" and self.dataset.dim != 1):
            raise WrongValue(f"start: found {start!r}; accepted: random, and in one dimension quantiles")
        seed = self.seed if seed is None else seed
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise WrongValue(f"seed: found {seed!r}; accepted: a whole number")
        reason = unanswerable(self.formulation, self.dataset, self.schedule, sampler, on, on_grid, steps, guidance)
        if reason:
            raise WrongValue(reason)
        question = Question(sampler, steps, n, start, guidance)
        subjects = [Subject(self.dataset.working, self.formulation, on, on_grid, self.stream, seed)]
        found = states(self.model, question, subjects, levels_for(question, subjects), self.device)
        frame = self.dataset.frame
        own = (x[0] if frame is None else frame.back(x[0]) for x in found)
        return each_in_full_float32(own, self.device)

    def draw(
        self,
        sampler: Sampler,
        *,
        steps: int = 18,
        n: int = 10_000,
        seed: int | None = None,
        schedule: Schedule | None = None,
        grid: Grid | None = None,
        guidance: Guidance | None = None,
        start: str = "random",
    ) -> Tensor:
        """Samples ``[n, dim]`` float64.

        Args:
            sampler: the rule of a step.
            steps: how many there are.
            n: how many samples.
            seed: of their random numbers; None: the model's own.
            schedule: the levels of noise that are passed; None: the model's own.
            grid: how the steps are spent on them; None: the schedule's own.
            guidance: what is known of the samples.
            start: ``random``, or in one dimension ``quantiles``.

        Raises:
            WrongValue: a number out of range, parts that do not fit together, or samples that are
                not finite.
        """
        options = {"steps": steps, "n": n, "seed": seed, "schedule": schedule, "grid": grid, "guidance": guidance}
        x = torch.empty(0)
        for x in self.states(sampler, **options, start=start):  # type: ignore[arg-type]  # noqa: B007 - the last one is meant
            pass
        bad = int((~torch.isfinite(x)).any(-1).sum())
        if bad:
            raise WrongValue(
                f"sampling diverged: {bad} of {n} samples of {sampler.label()} in {steps} steps are not finite"
            )
        return x

    def _seen(self, points: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy points of standardised data and their level as the model sees them."""
        frame = self.dataset.frame
        assert frame is not None  # noqa: S101 - asked of such data only
        if not frame.one_scale:
            raise WrongValue(
                f"{self.dataset.label()}: its coordinates have scales of their own, and noise of one size in the data's units is none in "
                "the model's; accepted: samples and likelihoods, or data of one scale (each: false)"
            )
        scale = frame.scale[0]
        shift = numbers(frame.shift, points.device)
        return ((points - alpha * shift) / scale)[None], alpha, sigma / scale

    def _gives_none(self, needed: str) -> str:
        given = ", ".join(phrase_of(one) for one in capabilities_of(type(self.model)))
        return f"{self.formulation.registered_name!r} gives no {needed}; it gives: {given}"

    def _points(self, x: Any, name: str) -> Tensor:
        found = arguments.points(name, x)
        if found.ndim != 2 or found.shape[1] != self.dataset.dim:
            raise WrongValue(f"{name} has shape {list(found.shape)}; accepted: [n, {self.dataset.dim}]")
        return to_device(found, self.device)

    def _level(self, alpha: Any, sigma: Any) -> tuple[Tensor, Tensor]:
        """alpha and sigma, ``[1]`` each."""
        found = tuple(arguments.as_numbers(name, value) for name, value in (("alpha", alpha), ("sigma", sigma)))
        for name, value in zip(("alpha", "sigma"), found, strict=True):
            if value.numel() != 1:
                raise WrongValue(f"{name} has shape {list(value.shape)}; accepted: one number for all points")
        if not float(found[1]) > 0:
            raise WrongValue(f"sigma: found {float(found[1]):g}; accepted: a number above 0")
        return to_device(found[0].reshape(1), self.device), to_device(found[1].reshape(1), self.device)


def _check_count(name: str, value: Any, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise WrongValue(f"{name}: found {value!r}; accepted: a whole number from 1 to {most}")
