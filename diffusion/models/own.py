r"""Somebody's own function as a denoiser of the atlas.

The function is asked in one convention, that of Karras et al. (2022), whatever the schedule. Its
arguments are

    y = x_0 + sigma eps        [n, dim]        and        sigma, the noise-to-signal ratio.

Where a schedule has ``x_t = alpha x_0 + sigma_t eps``, it is asked at ``y = x_t / alpha`` and
``sigma = sigma_t / alpha``. It returns one of these, of the shape of y:

| predicts | the function returns | so that ``E[x_0 | y]`` is |
|---|---|---|
| `x0` | the clean data, ``E[x_0 | y]`` | f |
| `epsilon` | the noise, ``E[eps | y]`` | y - sigma f |
| `score` | ``grad log p(y; sigma)`` | y + sigma^2 f |
| `v` | ``E[a eps - b x_0 | y]``, ``a = 1/r``, ``b = sigma/r``, ``r = sqrt(1 + sigma^2)`` | (y - sigma r f) / r^2 |
| `flow-velocity` | ``E[eps - x_0 | y]`` | (y - sigma f) / (1 + sigma) |

`v` is the velocity on the circle of variance-preserving schedules, ``alpha = a``, ``sigma_t = b``
(Salimans & Ho, ICLR 2022); `flow-velocity` that of the straight path ``x_t = (1 - t) x_0 + t eps``
at ``t = sigma / (1 + sigma)``. A network that was trained on other inputs, or takes a time, is
asked by a function that rescales: on a variance-preserving schedule

    f = lambda y, sigma: network(y / torch.sqrt(1 + sigma**2), schedule.time_of(sigma))

Where a schedule leaves no signal (alpha = 0) the function is asked at ``sigma = 1e6``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.devices import HOST
from diffusion.errors import WrongValue

Function = Callable[[Tensor, Tensor], Tensor]
"""``f(y [n, dim], sigma)``, which returns ``[n, dim]``; a `torch.nn.Module` is one."""

Predicts = Literal["x0", "epsilon", "score", "v", "flow-velocity"]
SigmaShape = Literal["scalar", "rows"]

_MOST_NOISE = 1e6


@dataclass(frozen=True)
class OwnDenoiser:
    """A function of one's own as a `Denoiser`.

    Args:
        function: ``f(y [n, dim], sigma)``. A module is asked in evaluation mode, on its own device,
            and left as it was.
        predicts: what it returns; the formulas are at the top of this file.
        dtype: of y and sigma; None is that of a module's parameters, and float64 for any other
            function.
        sigma_shape: sigma is a tensor without axes (``scalar``), which closed forms and published
            networks take, or has one entry for each row, ``[n]`` (``rows``).

    Raises:
        WrongValue: `function` cannot be called with two arguments, `predicts` or `sigma_shape` is
            none of these, `dtype` holds no real numbers; when it is called: what the function
            returns is no tensor of real numbers of the shape of y.
    """

    function: Function
    predicts: Predicts = "x0"
    dtype: torch.dtype | None = None
    sigma_shape: SigmaShape = "scalar"

    def __post_init__(self) -> None:
        check_function(self.function, "denoiser")
        if self.predicts not in get_args(Predicts):
            raise WrongValue(f"predicts: found {self.predicts!r}; accepted: {', '.join(get_args(Predicts))}")
        if self.sigma_shape not in get_args(SigmaShape):
            raise WrongValue(f"sigma_shape: found {self.sigma_shape!r}; accepted: {', '.join(get_args(SigmaShape))}")
        if self.dtype is not None and not (isinstance(self.dtype, torch.dtype) and self.dtype.is_floating_point):
            raise WrongValue(
                f"dtype: found {self.dtype!r}; accepted: torch.float32, torch.float64 or another of real numbers"
            )

    def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """E[x_0 | x_t], ``[members, n, dim]`` float64; differentiable in x where x asks for it."""
        signal = torch.maximum(alpha, sigma / _MOST_NOISE)
        dtype, device = self._place
        device = device or x.device
        with torch.set_grad_enabled(x.requires_grad), evaluating(self.function):
            return torch.stack(
                [self._one(x[m] / signal[m], sigma[m] / signal[m], dtype, device) for m in range(len(x))]
            )

    @property
    def device(self) -> torch.device:
        """That of a module's parameters; the host for any other function, which is asked where the
        points are.
        """
        return self._place[1] or HOST

    @property
    def _place(self) -> tuple[torch.dtype, torch.device | None]:
        """The numbers and the device that the function works with; None: that of the points."""
        parts: list[Tensor] = []
        if isinstance(self.function, torch.nn.Module):
            parts = [p for p in (*self.function.parameters(), *self.function.buffers()) if p.is_floating_point()]
        if not parts:
            return self.dtype or torch.float64, None
        return self.dtype or parts[0].dtype, parts[0].device

    def at_home(self, device: torch.device) -> bool:
        """Whether the function can be asked on a device: a module where its parameters are."""
        own = self._place[1]
        return own is None or own == device

    def _one(self, y: Tensor, sigma: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The answer of one member: y ``[n, dim]``, sigma without axes, float64."""
        shown = sigma if self.sigma_shape == "scalar" else sigma.expand(len(y))
        try:
            found: Any = self.function(y.to(device, dtype), shown.to(device, dtype))
        except RuntimeError as error:
            error.add_note(
                f"the function was asked with x {list(y.shape)} of {dtype} and sigma {list(shown.shape)}; dtype= changes the one"
            )
            raise
        if not (isinstance(found, Tensor) and found.shape == y.shape and found.is_floating_point()):
            raise WrongValue(
                f"the denoiser returned {described(found)} for x of shape {list(y.shape)}; accepted: a tensor of real numbers of the "
                "shape of x"
            )
        f = found.to(y.device, y.dtype)
        match self.predicts:
            case "x0":
                return f
            case "epsilon":
                return y - sigma * f
            case "score":
                return y + sigma**2 * f
            case "v":
                return (y - sigma * torch.sqrt(1 + sigma**2) * f) / (1 + sigma**2)
            case "flow-velocity":
                return (y - sigma * f) / (1 + sigma)


def check_function(function: Any, what: str) -> None:
    """Raise WrongValue unless it can be called with points and a level; `what` it is called."""
    if isinstance(getattr(function, "__self__", None), Dataset):
        raise WrongValue(
            f"{what}: found a method of data set {function.__self__.label()!r}, which takes alpha too; accepted: the data set itself, "
            "whose ideal denoiser is then asked, or a function of x [n, dim] and sigma"
        )
    if isinstance(function, type) or not callable(function):
        raise WrongValue(
            f"{what}: found {described(function)}; accepted: a function or a torch.nn.Module of x [n, dim] and sigma"
        )
    called = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        signature = inspect.signature(called)
    except (TypeError, ValueError):  # a builtin that does not say
        return
    try:
        signature.bind(None, None)
    except TypeError:
        raise WrongValue(f"{what}: found a function of {signature}; accepted: one of x [n, dim] and sigma") from None


def described(found: Any) -> str:
    """What was found, in a few words."""
    if isinstance(found, Tensor):
        return f"a tensor of {str(found.dtype).removeprefix('torch.')} of shape {list(found.shape)}"
    if isinstance(found, type):
        return f"the class {found.__name__}"
    return "None" if found is None else f"{type(found).__name__}"


@contextmanager
def evaluating(function: Any) -> Iterator[None]:
    """A module in evaluation mode for a while, and afterwards in the mode that each of its parts
    was in.
    """
    if not (isinstance(function, torch.nn.Module) and function.training):
        yield
        return
    modes = [(part, part.training) for part in function.modules()]
    function.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
