"""A cell as a model that one can ask oneself: the network with its weights, or the exact answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

from diffusion import arguments
from diffusion.analysis.elbo import evidence_bound, refuses_bound, refuses_model
from diffusion.datasets import Dataset
from diffusion.devices import device_named, full_float32, to_device
from diffusion.errors import WrongValue
from diffusion.formulations import Untrained
from diffusion.guidance import Guidance, guidances
from diffusion.inference import Inference
from diffusion.models import (
    ActionModel,
    Decoder,
    Encoder,
    EvidenceBound,
    ExactDenoiser,
    LatentVariableModel,
    RestorationModel,
)
from diffusion.models.own import OwnDenoiser
from diffusion.randomness import stream
from diffusion.samplers import Sampler
from diffusion.schedules import Schedule, schedules
from diffusion.schedules.grids import Grid, grids
from diffusion.schedules.levels import Variance
from diffusion.training import TrainedStack, Training
from tasks.models.files import read_model, write_model
from tasks.models.named import Named, choice_of, component
from tasks.models.needed import check_needed, checked_data
from tasks.plan import Cell
from tasks.work import stack_of
from tasks.work.data import stream_name


@dataclass(frozen=True)
class Model(Inference):
    """One model with what it was made for: data set, formulation, schedule, seed and training.

    Made by `train`, `exact`, `load` and `open_model`. It is a denoiser ``f(x [n, dim], sigma)``
    itself.
    """

    training: Training | None = None
    stack: TrainedStack | None = None  # of this one member

    @classmethod
    def of(
        cls, cell: Cell, model: object, stack: TrainedStack | None = None, place: torch.device | None = None
    ) -> Model:
        """The model of a cell; `stack` is what training left of it, `place` the device on which one
        that is anywhere is asked.
        """
        name = stream_name(cell.dataset)
        parts = (cell.dataset, cell.formulation, cell.schedule, cell.seed, model, name, cell.training, stack)
        return cls(*parts, place=place)

    def to(self, device: str | torch.device) -> Model:
        """The same model on a device: ``auto``, ``cpu``, ``cuda`` or a `torch.device`.

        Raises:
            WrongValue: no such device, or a module of one's own, which moves itself (`Module.to`).
        """
        place = device_named(device)
        if self.stack:
            stack = self.stack.to(place)
            return replace(self, model=stack.model, stack=stack)
        if isinstance(self.model, OwnDenoiser) and not self.model.at_home(place):
            raise WrongValue(
                f"device: found '{place}', and the module's parameters are on '{self.model.device}'; accepted: that device, or none"
            )
        return replace(self, place=None if place.type == "cpu" else place)

    @property
    def cell(self) -> Cell:
        """What a study would call it; its id names the random streams of its training."""
        return Cell(self.dataset, self.formulation, self.schedule, self.seed, self.training)

    def sample(
        self,
        sampler: Named | Sampler | None = None,
        steps: int = 18,
        n: int = 10_000,
        *,
        seed: int | None = None,
        schedule: Named | Schedule | None = None,
        grid: Named | Grid | None = None,
        guidance: Named | Guidance | None = None,
        start: str = "random",
    ) -> Tensor:
        """Samples ``[n, dim]`` float64 on the model's device; on a processor, to the bit those of a
        study that asks the same.

        Args:
            sampler: a name, an object, or an entry as in a study; None: the way that suits the
                model, `heun` for a denoiser.
            steps: how many.
            n: how many samples; more of them leave the first ones what they were.
            seed: of their random numbers; None: the model's own.
            schedule: the levels of noise that are passed; None: the model's own.
            grid: how the steps are spent on them; None: the schedule's own.
            guidance: what is known of the samples.
            start: ``random``, or in one dimension ``quantiles``, which have no randomness.

        Raises:
            WrongValue: a number out of range, an unknown name, parts that do not fit together, or
                samples that are not finite.
        """
        choice = choice_of(self._usual() if sampler is None else sampler)
        on = choice.schedule if schedule is None else component(schedules, Schedule, schedule)
        spent = choice.grid if grid is None else component(grids, Grid, grid)
        known = choice.guidance if guidance is None else component(guidances, Guidance, guidance)
        fitted = None if on is None else self.formulation.fitted(on, self.dataset)
        return self.draw(
            choice.sampler,
            steps=steps,
            n=n,
            seed=seed,
            schedule=fitted,
            grid=spent,
            guidance=known,
            start=start,
        )

    def _usual(self) -> Sampler | str:
        own = self.formulation.own_sampler
        if own is not None:
            return own
        needed = (RestorationModel, "indi"), (ActionModel, "action")
        return next((name for capability, name in needed if isinstance(self.model, capability)), "heun")

    @property
    def losses(self) -> Tensor:
        """Mean training loss by 64th of the training, ``[64]`` or fewer; empty unless it was
        trained just now.
        """
        return self.stack.losses[0].double() if self.stack else torch.empty(0)

    def elbo(self, x: Tensor, draws: int = 1, variance: Variance = "posterior", seed: int = 0) -> EvidenceBound:
        """The evidence lower bound at data x, term by term: see `diffusion.analysis.elbo`.

        Of a denoiser on a discrete variance-preserving chain, or of an autoencoder.

        Args:
            x: clean points ``[n, dim]``.
            draws: of the noise, over which the terms are averaged.
            variance: that of a chain's reverse moves.
            seed: of the draws.

        Raises:
            WrongValue: the model has no bound, or x has another shape.
        """
        if not isinstance(self.model, LatentVariableModel):
            reason = refuses_model(type(self.model)) or refuses_bound(self.schedule)
            if reason:
                raise WrongValue(f"{self.formulation.registered_name!r}: {reason}")
        points, generator = self._data(x), stream("elbo", self.cell.id, seed)
        with full_float32(self.device):
            found = evidence_bound(self.model, points, self.schedule, generator, draws, variance)
        frame = self.dataset.frame
        return found if frame is None else replace(found, reconstruction=found.reconstruction - frame.log_volume)

    def _data(self, x: Tensor) -> Tensor:
        """Clean data as the model sees them."""
        points, frame = self._points(x, "x"), self.dataset.frame
        return points if frame is None else frame.into(points)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation ``[n, latent]`` of an autoencoder's code for data x
        ``[n, dim]``.

        Raises:
            WrongValue: there is no encoder, or x has another shape.
        """
        if not isinstance(self.model, Encoder):
            raise WrongValue(f"{self.cell} is no autoencoder and has no encoder")
        with full_float32(self.device):
            mean, std = self.model.encode(self._data(x)[None])
        return mean[0], std[0]

    def decode(self, z: Tensor) -> Tensor:
        """The data ``[n, dim]`` that an autoencoder makes of codes z ``[n, latent]``, without
        noise.

        Raises:
            WrongValue: there is no decoder, or z has another shape.
        """
        if not isinstance(self.model, Decoder):
            raise WrongValue(f"{self.cell} is no autoencoder and has no decoder")
        codes, latent = arguments.points("z", z), self.model.latent_dim()
        if codes.ndim != 2 or codes.shape[1] != latent:
            raise WrongValue(f"z has shape {list(codes.shape)}; accepted: [n, {latent}]")
        with full_float32(self.device):
            found = self.model.decode(to_device(codes, self.device)[None])[0]
        return found if self.dataset.frame is None else self.dataset.frame.back(found)

    def save(self, path: str | Path) -> Path:
        """Write the model to a safetensors file: its weights, and as JSON what it was made for; no
        pickle.

        The file takes the place of another of that name when it is whole. Training data are not in
        it; points of one's own that samples start from are, and of an exact model its target.
        Of data in a file it has the place and the digest.

        Returns:
            The path.

        Raises:
            WrongValue: a model made of what cannot be written down: a function, a schedule of one.
        """
        if isinstance(self.model, OwnDenoiser):
            raise WrongValue("a function of one's own cannot be saved; accepted: trained and exact models")
        named = self.stack.network.unpack(self.stack.rows[:1]) if self.stack else {}
        write_model(Path(path), self.cell, {name: value[0].contiguous() for name, value in named.items()})
        return Path(path)

    @classmethod
    def load(cls, path: str | Path, data: Dataset | Sequence[Dataset] | None = None) -> Model:
        """The model that `save` wrote, on the host: it gives the same bits. `to` takes it elsewhere.

        Args:
            path: the file.
            data: data sets of files, ``dataset("from_file", path=...)``, if those that it was made
                for have moved.

        Raises:
            WrongValue: the file is none that `save` wrote, or data that it was not made for.
            CannotBeMade: it was made by other versions of its parts than the present ones, or of
                points in a file that is gone or has changed.
            OSError: there is no such file, or it cannot be read.
        """
        given = checked_data(data)
        cell, weights = read_model(Path(path), given)
        check_needed(cell, given)
        return trained_model(cell, stack_of([cell], [to_bytes(weights)])) if weights else exact_model(cell)


def trained_model(cell: Cell, stack: TrainedStack) -> Model:
    """What training left of a cell alone."""
    return Model.of(cell, stack.model, stack)


def exact_model(cell: Cell) -> Model:
    """The ideal denoiser of a cell's target, or what its formulation has in the place of one."""
    named, targets = cell.formulation, [cell.dataset.working]
    return Model.of(cell, named.model_of(targets) if isinstance(named, Untrained) else ExactDenoiser(targets))
