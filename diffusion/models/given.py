r"""A network that somebody has already, asked as it was trained: at x_t of its own schedule, with its
own time.

With ``x_t = alpha x_0 + sigma eps`` on the schedule that it was trained on, it returns one of

| predicts | the network returns | so that ``E[x_0 | x_t]`` is |
|---|---|---|
| `x0` | the clean data | f |
| `epsilon` | the noise eps | (x - sigma f) / alpha |
| `score` | ``grad log p(x_t)`` | (x + sigma^2 f) / alpha |
| `v` | ``alpha eps - sigma x_0`` | (alpha x - sigma f) / (alpha^2 + sigma^2) |
| `flow-velocity` | ``eps - x_0`` | (x - sigma f) / (alpha + sigma) |

On a schedule whose time is the noise level (`edm`) this is the convention of
`diffusion.models.own`. Asked by a sampler on another schedule, it answers at the level of its own
that has the same noise-to-signal ratio.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from diffusion.errors import WrongValue
from diffusion.models.own import OwnDenoiser, Predicts, check_function, described, evaluating
from diffusion.schedules import Schedule

Takes = Literal["time", "timestep", "sigma"]
"""What a network is told: the time of its schedule; of a discrete one the level's number from 0 on;
or the noise-to-signal ratio, at x_t / alpha."""


@dataclass(frozen=True)
class AsTrained:
    """A network as a function of x_0 + sigma eps and sigma that returns the clean data.

    Args:
        network: ``f(x [n, dim], t [n])``, a module or any function.
        predicts: what it returns.
        takes: what it is told.
        schedule: what it was trained on.
    """

    network: Any
    predicts: Predicts
    takes: Takes
    schedule: Schedule

    def __post_init__(self) -> None:
        check_function(self.network, "the network")

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        """The clean data ``[n, dim]`` float64 behind y = x_0 + sigma eps."""
        x, alpha, noise, told = self._question(y, sigma)
        return _read(self.predicts, self._asked(x, told), x, alpha, noise)

    @torch.no_grad()
    def errors(self, y: Tensor, sigma: Tensor, ideal: Tensor) -> dict[Predicts, tuple[Tensor, Tensor]]:
        """How far what the network says of y is from the ideal denoiser's answer, whatever it may
        predict: the mean of ``(D(y) - ideal)^2``, by what its answer is read as, and that of an answer
        of zero read in the same way.

        Args:
            y: x_0 + sigma eps, ``[n, dim]`` float64.
            sigma: the noise-to-signal ratio, without axes.
            ideal: ``E[x_0 | y]`` of the data, ``[n, dim]``.
        """
        x, alpha, noise, told = self._question(y, sigma)
        f = self._asked(x, told)

        def error(kind: Predicts, answer: Tensor) -> Tensor:
            return (_read(kind, answer, x, alpha, noise) - ideal).square().mean()

        return {kind: (error(kind, f), error(kind, torch.zeros_like(f))) for kind in get_args(Predicts)}

    def _question(self, y: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x_t, alpha and sigma of the own schedule where it has y's noise-to-signal ratio, and what
        the network is told of each row.
        """
        time = self.schedule.time_of(sigma)
        alpha, noise, told = torch.ones_like(sigma), sigma, sigma
        if self.takes != "sigma":
            alpha, noise = self.schedule.alpha(time), self.schedule.sigma(time)
            told = time if self.takes == "time" else time.round() - 1
        return alpha * y, alpha, noise, told.expand(len(y))

    def _asked(self, x: Tensor, told: Tensor) -> Tensor:
        """What the network returns, in its own numbers and on its own device."""
        parts: list[Tensor] = []
        if isinstance(self.network, torch.nn.Module):
            parts = [p for p in (*self.network.parameters(), *self.network.buffers()) if p.is_floating_point()]
        like = parts[0] if parts else x
        with evaluating(self.network):
            found: Any = self.network(x.to(like.device, like.dtype), told.to(like.device, like.dtype))
        if not (isinstance(found, Tensor) and found.shape == x.shape and found.is_floating_point()):
            raise WrongValue(
                f"the network returned {described(found)} for x of shape {list(x.shape)}; accepted: a tensor of real numbers of the "
                "shape of x"
            )
        return found.to(x.device, x.dtype)


def _read(predicts: Predicts, f: Tensor, x: Tensor, alpha: Tensor, noise: Tensor) -> Tensor:
    """The clean data, by the table at the top of this file."""
    match predicts:
        case "x0":
            return f
        case "epsilon":
            return (x - noise * f) / alpha
        case "score":
            return (x + noise**2 * f) / alpha
        case "v":
            return (alpha * x - noise * f) / (alpha**2 + noise**2)
        case "flow-velocity":
            return (x - noise * f) / (alpha + noise)


def given_denoiser(network: Any, predicts: Predicts, takes: Takes, schedule: Schedule) -> OwnDenoiser:
    """A network that somebody has as a `Denoiser` of the atlas."""
    return OwnDenoiser(AsTrained(network, predicts, takes, schedule), "x0", torch.float64)
