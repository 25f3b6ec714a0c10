"""In one line: samples of a denoiser, their distance from a target, the least loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from diffusion import inference
from diffusion.datasets import Dataset
from diffusion.datasets.own import UnknownData
from diffusion.errors import WrongValue
from diffusion.formulations import Formulation
from diffusion.formulations.own import OwnModel
from diffusion.guidance import Guidance
from diffusion.inference import Score
from diffusion.metrics import BaseMetric
from diffusion.metrics import metrics as known_metrics
from diffusion.models.own import Function, OwnDenoiser, Predicts, SigmaShape
from diffusion.samplers import Sampler
from diffusion.schedules import Schedule
from diffusion.schedules.grids import Grid
from tasks.models import named
from tasks.models.make import exact
from tasks.models.named import Array, Named, Target
from tasks.models.of_cell import Model
from tasks.plan import Cell
from tasks.study.components import MOST_COORDINATES


def sample(
    denoiser: Function | Model | Dataset | str,
    sampler: Named | Sampler | None = None,
    *,
    n: int,
    dim: int | None = None,
    schedule: Named | Schedule | None = None,
    steps: int = 18,
    seed: int | None = None,
    guidance: Named | Guidance | None = None,
    target: Target | None = None,
    grid: Named | Grid | None = None,
    predicts: Predicts = "x0",
    dtype: torch.dtype | None = None,
    sigma_shape: SigmaShape = "scalar",
    device: str | torch.device | None = None,
) -> Tensor:
    """Samples of a denoiser.

    Args:
        denoiser: a function or module ``f(x [n, dim], sigma)`` that returns ``E[x_0 | x]`` of
            ``x = x_0 + sigma eps``, whatever the schedule (`model` says how); a model; or a data
            set or its name, whose ideal denoiser is then asked.
        sampler: how a step is made; None: `heun`, or the way that suits a model of another kind.
        n: how many samples; more of them leave the first ones what they were (but for `rk45`, whose
            steps are those of all).
        dim: how many coordinates; needed where neither denoiser nor target tells.
        schedule: the levels of noise that are passed; None: `edm`, or a model's own.
        steps: how many.
        seed: of the samples' random numbers; None: 0, or a model's own.
        guidance: what is known of the samples; beside a function it needs the target.
        target: the data behind a function, where something asks for them.
        grid: how the steps are spent; None: the schedule's own.
        predicts: what a function returns, see `model`.
        dtype: of x and sigma as a function sees them, see `model`.
        sigma_shape: of sigma as a function sees it, see `model`.
        device: where it is computed: ``auto``, ``cpu``, ``cuda`` or a `torch.device`; None: where a
            module's parameters or a model are, the host for any other function.

    Returns:
        ``[n, dim]`` float64, on that device.

    Raises:
        WrongValue: what cannot be right, or samples that are not finite.
    """
    subject: Model
    if isinstance(denoiser, str):
        denoiser = named.dataset(denoiser)
    if isinstance(denoiser, Model | Dataset):
        subject = denoiser if isinstance(denoiser, Model) else exact(denoiser)
        _check_beside(subject, dim, {"target": target, "dtype": dtype}, predicts, sigma_shape)
    else:
        subject = model(denoiser, dim=dim, target=target, predicts=predicts, dtype=dtype, sigma_shape=sigma_shape)
        if guidance is not None and target is None:
            raise WrongValue(
                "guidance: it speaks of data, and those behind a function are not known; name them (target=...)"
            )
    if device is not None:
        subject = subject.to(device)
    return subject.sample(sampler, steps, n, seed=seed, schedule=schedule, grid=grid, guidance=guidance)


def model(
    denoiser: Function,
    *,
    dim: int | None = None,
    target: Target | None = None,
    schedule: Named | Schedule = "edm",
    seed: int = 0,
    predicts: Predicts = "x0",
    dtype: torch.dtype | None = None,
    sigma_shape: SigmaShape = "scalar",
) -> Model:
    """A function or module of one's own as a model, with `sample`, `score`, `log_likelihood` and
    the rest.

    It is asked at ``x = x_0 + sigma eps``, sigma the noise-to-signal ratio, whatever the schedule:
    where that has ``x_t = alpha x_0 + sigma_t eps``, at ``x_t / alpha`` and ``sigma_t / alpha``.
    What it returns:

    - ``x0``: the clean data, ``E[x_0 | x] = f``;
    - ``epsilon``: the noise, ``E[x_0 | x] = x - sigma f``;
    - ``score``: the gradient of log p(x; sigma), ``E[x_0 | x] = x + sigma^2 f``;
    - ``v``: ``E[a eps - b x_0 | x]``, ``a = 1/r``, ``b = sigma/r``, ``r^2 = 1 + sigma^2``, the
      velocity where variance is preserved, ``E[x_0 | x] = (x - sigma r f) / r^2``;
    - ``flow-velocity``: ``E[eps - x_0 | x]``, that of the straight path,
      ``E[x_0 | x] = (x - sigma f) / (1 + sigma)``.

    A network that was trained on other inputs, or takes a time, is asked by a function that
    rescales: ``lambda x, sigma: network(x / torch.sqrt(1 + sigma**2), schedule.time_of(sigma))``.

    Args:
        denoiser: ``f(x [n, dim], sigma)``; a module is asked in evaluation mode, on its own device,
            where the answers are.
        dim: how many coordinates, unless a target tells.
        target: the data behind it, if they are known: its samples are then paired with those of
            studies.
        schedule: the one that it is sampled on unless another is named.
        seed: of its samples.
        predicts: what it returns.
        dtype: of x and sigma; None: that of a module's parameters, float64 for any other function.
        sigma_shape: ``scalar``, a tensor without axes, which closed forms and published networks
            take; or ``rows``, one entry for each row, ``[n]``.

    Raises:
        WrongValue: no function of two arguments, or dimensions that are unknown or do not agree.
    """
    own = OwnDenoiser(denoiser, predicts, dtype, sigma_shape)
    data = (
        UnknownData(_dimension(dim)) if target is None else named.dataset(target).law
    )  # a function sees them as they are
    if dim is not None and dim != data.dim:
        raise WrongValue(f"dim: found {dim!r}, and target {data.label()!r} has {data.dim}; accepted: the same number")
    on = named.schedule(schedule)
    return Model.of(Cell(data, OwnModel(), on if target is None else on.fitted(data.working), seed, None), own)


def load(path: str | Path, data: Dataset | Sequence[Dataset] | None = None) -> Model:
    """The model that `Model.save` wrote, which gives the same bits; arguments and errors are those of
    `Model.load`.
    """
    return Model.load(path, data)


def evaluate(
    samples: Array | Model, target: Target, metrics: Named | BaseMetric | Sequence[Named | BaseMetric] | None = None
) -> dict[str, Score]:
    """Each metric's value, and its floor: what as many perfect samples, or the ideal denoiser,
    would have.

    Args:
        samples: ``[n, dim]``; or a model, for metrics that look at a denoiser (``score-error``,
            ``nll``).
        target: what they should follow.
        metrics: one or several; None: all that serve, but for those that take long (``c2st``).

    Returns:
        ``{name: (value, floor)}``.

    Raises:
        WrongValue: samples of another shape or not finite, or a metric that does not serve.
        FlowLost: the model's flow, which a likelihood follows, is lost.
    """
    data = named.dataset(target)
    if metrics is None:
        usual = [entry.cls() for entry in known_metrics if entry.has_defaults and not entry.cls.costly]
        return inference.evaluate(samples, data, inference.serving(usual, samples, data))
    listed = [metrics] if isinstance(metrics, str | Mapping | BaseMetric | type) else list(metrics)
    return inference.evaluate(samples, data, [named.metric(each) for each in listed])


def loss_floor(
    target: Target,
    formulation: Named | Formulation = "edm",
    *,
    schedule: Named | Schedule | None = None,
    sigma_data: float | None = None,
) -> float:
    """The least mean loss, summed over coordinates, that any network can reach: the ideal
    denoiser's.

    Args:
        target: the data, with an exact denoiser.
        formulation: what is trained, by regression on noised data.
        schedule: on which; None: the formulation's own.
        sigma_data: the deviation that the formulation takes the data to have; None: the target's.

    Raises:
        WrongValue: no exact denoiser, another kind of training, or parts that do not fit together.
    """
    on = None if schedule is None else named.schedule(schedule)
    return inference.loss_floor(
        named.dataset(target), named.formulation(formulation), schedule=on, sigma_data=sigma_data
    )


def _check_beside(
    subject: Model, dim: int | None, others: Mapping[str, object], predicts: str, sigma_shape: str
) -> None:
    """Refuse what belongs beside a function and not beside a model."""
    given = [name for name, value in others.items() if value is not None]
    given += ["predicts"] if predicts != "x0" else []
    given += ["sigma_shape"] if sigma_shape != "scalar" else []
    if given:
        raise WrongValue(f"{', '.join(given)}: found beside a model or a data set; accepted: beside a function")
    if dim is not None and dim != subject.dataset.dim:
        raise WrongValue(
            f"dim: found {dim!r}, and the denoiser's is {subject.dataset.dim}; accepted: the same number, or none"
        )


def _dimension(dim: object) -> int:
    if isinstance(dim, bool) or not isinstance(dim, int) or not 1 <= dim <= MOST_COORDINATES:
        raise WrongValue(
            f"dim: found {dim!r}, and a function does not say how many coordinates its points have; accepted: a whole number from 1 to "
            f"{MOST_COORDINATES}"
        )
    return dim
