"""A stored cell as a denoiser that one can ask oneself: the network with its weights, or the exact answer.

model = open_model("results", cell_id)
model.denoise(x, alpha, sigma)                 # E[x_0 | x_t]
model.sample("heun", steps=18, n=1000)         # the bits that the sweep stored, if it asked the same
model.elbo(x)                                  # of a chain, or of an autoencoder: reconstruction, consistency, prior
model.log_likelihood(x)                        # by the probability flow, of points at the schedule's t_min
model.decode(z)                                # of an autoencoder
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffusion.analysis.elbo import evidence_bound, refuses_bound
from diffusion.analysis.likelihood import log_likelihood
from diffusion.datasets import datasets
from diffusion.errors import Unavailable, WrongValue
from diffusion.formulations import Exact, formulations
from diffusion.guidance import guidances
from diffusion.metrics import NegativeLogLikelihood
from diffusion.models import Denoiser, EvidenceBound, ExactDenoiser
from diffusion.randomness import stream
from diffusion.samplers import levels_of, samplers
from diffusion.schedules import schedules
from diffusion.schedules.levels import Variance
from diffusion.training import TrainedStack, Training
from tasks.plan import ENGINE_VERSION, Cell, Point
from tasks.results.read import Answers
from tasks.store import NotStored, Store
from tasks.study.axes import SamplerChoice
from tasks.study.components import build, construct
from tasks.work import stack_of, states


class CannotBeMade(Unavailable, ValueError):
    """A stored cell that this version of the code does not make; the message says which one would."""

    kind = "cannot-be-made"


@dataclass(frozen=True)
class Model:
    """One denoiser with what it was made for: `cell` holds data set, formulation, schedule, seed and training."""

    cell: Cell
    _denoiser: Denoiser

    def denoise(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """``E[x_0 | x_t = x]`` where ``x_t = alpha x_0 + sigma eps``; x is ``[n, dim]`` float64."""
        level = torch.tensor([alpha], dtype=torch.float64), torch.tensor([sigma], dtype=torch.float64)
        return self._denoiser(x[None], *level)[0]

    def elbo(self, x: Tensor, draws: int = 1, variance: Variance = "posterior", seed: int = 0) -> EvidenceBound:
        """The evidence lower bound at data x ``[n, dim]``, term by term, averaged over draws of the noise: see `diffusion.analysis.elbo`.

        Of a denoiser on a discrete variance-preserving chain (`variance` is that of its reverse moves), or of an autoencoder.
        Raises `WrongValue` if the model has no bound.
        """
        gives, schedule = self.cell.formulation.gives, self.cell.schedule
        if "bound" not in gives:  # every trained stack looks like a model with a bound
            if reason := refuses_bound(schedule):
                raise WrongValue(reason)
            if "denoiser" not in gives:
                name = self.cell.formulation.registered_name
                raise WrongValue(
                    f"{name!r} gives neither a bound nor a denoiser: it gives {', '.join(sorted(gives))} only"
                )
        generator = stream("elbo", self.cell.id, seed)
        return evidence_bound(self._denoiser, x, schedule, generator, draws, variance)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation ``[n, latent]`` of an autoencoder's code for data x. Raises TypeError if there is no encoder."""
        mean, std = self._stack("an encoder").encode(x[None])
        return mean[0], std[0]

    def decode(self, z: Tensor) -> Tensor:
        """The data ``[n, dim]`` that an autoencoder makes of codes z, without noise. Raises TypeError if there is no decoder."""
        return self._stack("a decoder").decode(z[None])[0]

    def _stack(self, needed: str) -> TrainedStack:
        if not isinstance(self._denoiser, TrainedStack):
            raise TypeError(f"{self.cell} has no network, and so not {needed}")
        return self._denoiser

    def log_likelihood(self, x: Tensor, tolerance: float = 1e-4) -> Tensor:
        """log p ``[n]``, in nats, of points ``[n, dim]`` at the t_min of the cell's schedule, by the probability flow.

        It is the density of noised data: noise clean ones first (see `diffusion.analysis.likelihood`, which tells what is raised). Raises
        TypeError if the model is no denoiser.
        """
        if "denoiser" not in self.cell.formulation.gives:
            raise TypeError(f"{self.cell.formulation.registered_name!r} gives no denoiser, and no flow")
        if reason := self.cell.formulation.refuses_metric(NegativeLogLikelihood()):
            raise TypeError(reason)
        return log_likelihood(self._denoiser, x[None], self.cell.schedule, tolerance=tolerance)[0]

    def sample(self, sampler: str | dict[str, Any], steps: int, n: int = 10_000) -> Tensor:
        """Samples ``[n, dim]`` as a study with this sampler (a name, or a mapping as in a study) would have them.

        Raises `WrongValue` if the sampler does not serve the cell's schedule, with the reason.
        """
        parts = {"name": sampler} if isinstance(sampler, str) else dict(sampler)
        unknown = {"grid", "schedule"} & parts.keys()
        told = parts.pop("guidance", None)
        if unknown:
            raise WrongValue(f"sample uses the cell's own schedule and grid; found {', '.join(sorted(unknown))}")
        guidance = None if told is None else build(guidances, told)
        choice = SamplerChoice(build(samplers, parts), guidance=guidance)
        grid = choice.grid_on(self.cell.schedule)
        point = Point(self.cell, choice.sampler, grid, steps, n, "random", guidance=guidance)
        if reason := point.impossible():
            raise WrongValue(reason)
        x = torch.empty(0)
        for x in states([point], self._denoiser, levels_of([self.cell.schedule], [point.grid], steps)):  # noqa: B007
            pass
        return x[0]


def open_model(store: str, cell_id: str, as_of: str | None = None) -> Model:
    """The denoiser of a stored cell.

    Raises `NotStored` if the store does not hold the cell or its weights, and `CannotBeMade` if the versions of its
    components are not those of this code.
    """
    return model_of(Answers(Store.open(store), None, as_of), cell_id)


def model_of(answers: Answers, cell_id: str) -> Model:
    """The same of what is open already. Raises as `open_model` does."""
    if cell_id not in answers.cell_specs:
        raise NotStored(f"store {answers.provenance['store']} holds no cell {cell_id!r}")
    cell = cell_of(answers.cell_specs[cell_id])
    if cell.id != cell_id:
        raise CannotBeMade(
            f"cell {cell_id}: {json.dumps(answers.cell_specs[cell_id])} was made by other versions of its parts than the "
            f"present ones (engine {ENGINE_VERSION}); diffatlas history --json tells which revision committed it"
        )
    if isinstance(cell.formulation, Exact):
        return Model(cell, ExactDenoiser([cell.dataset]))
    return Model(cell, stack_of([cell], [answers.weights(cell_id)]))


class ModelledAnswers(Answers):
    """The answers of a store with the denoisers that gave them: what a page asks for."""

    def model(self, cell_id: str) -> Model | None:
        """The denoiser of a cell; None where it is not stored, gives none, or is not made by the present code."""
        try:
            found = model_of(self, cell_id)
        except (NotStored, CannotBeMade):
            return None
        return found if "denoiser" in found.cell.formulation.gives else None


def cell_of(spec: dict[str, Any]) -> Cell:
    """The cell that a canonical spec describes, with the versions of the present code. Raises `CannotBeMade`."""
    try:
        schedule = build(schedules, _parameters(spec["schedule"]))
        exact = spec["formulation"]["name"] == "exact"
        formulation = Exact(schedule) if exact else build(formulations, _parameters(spec["formulation"]))
        dataset = build(datasets, _parameters(spec["dataset"]))
        training = construct(Training, _parameters(spec["training"])) if spec["training"] else None
    except (LookupError, TypeError, ValueError) as error:
        raise CannotBeMade(f"{json.dumps(spec)}: {error}") from error
    return Cell(dataset, formulation, schedule, int(spec["seed"]), training)


_OF_IDENTITY = {"version", "parts"}  # what `Component.identity` adds to a spec


def _parameters(identity: Any) -> Any:
    """The spec within an identity."""
    if not isinstance(identity, dict):
        return identity
    return {k: _parameters(v) for k, v in identity.items() if not ("name" in identity and k in _OF_IDENTITY)}
