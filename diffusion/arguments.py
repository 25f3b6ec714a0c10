"""Numbers and shapes at the door of data sets and schedules.

Inside, everything is float64 tensors of agreed shapes. A plain number has one meaning and is taken;
what could only give numbers that mean nothing is refused in one sentence, with what was found and
what would be accepted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from numbers import Real
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from diffusion.devices import HOST, to_device
from diffusion.errors import WrongValue

S = TypeVar("S")
OfTime = Callable[[S, Tensor], Tensor]
OfDraws = Callable[[S, int, torch.Generator], Tensor]
OfNoisedPoints = Callable[[S, Tensor, Tensor, Tensor], Tensor]


def of_numbers(method: OfTime[S]) -> OfTime[S]:
    """Let a function of times or noise levels take plain numbers and arrays too, as float64
    tensors.

    Floating-point tensors pass as they are, at the cost of one comparison of types.

    Raises:
        WrongValue: what is given is no real number, is negative, or is not a number.
    """

    def taking_numbers(self: S, t: Any) -> Tensor:
        if not (isinstance(t, Tensor) and t.is_floating_point()):
            t = as_numbers(f"{_name(self)}.{method.__name__}", t)
        return method(self, t)

    return wraps(method)(taking_numbers)


def as_numbers(what: str, value: Any) -> Tensor:
    """A number, or an array of numbers, from 0 to infinity as a float64 tensor of its shape."""
    found = array_of(what, value, "a number or a tensor of numbers, 0 or above").to(torch.float64)
    if isinstance(value, bool) or not bool((found >= 0).all()):
        raise WrongValue(f"{what}: found {_shown(value)}; accepted: a number or a tensor of numbers, 0 or above")
    return found


def at_a_level(method: OfNoisedPoints[S]) -> OfNoisedPoints[S]:
    """Check the arguments of what a data set says of noised points:
    ``method(self, x, alpha, sigma)``.

    On another device than the host shapes alone are checked, since to look at a level is to wait
    for it; and a law that does not say `on_device` is asked on the host.

    Raises:
        WrongValue: x is not ``[..., batch, dim]``; alpha or sigma has several values and fewer axes
            than ``[..., batch]``, so that they would be spread along the batch; alpha is negative;
            sigma is not above 0, or is 0 where the clean data have no smooth density.
    """

    def checked(self: Any, x: Any, alpha: Any, sigma: Any) -> Tensor:
        if not (isinstance(x, Tensor) and isinstance(alpha, Tensor) and isinstance(sigma, Tensor)):
            what = f"{_name(self)}.{method.__name__}"
            x, alpha, sigma = points(what, x), as_numbers(f"{what}, alpha", alpha), as_numbers(f"{what}, sigma", sigma)
        if x.ndim < 2 or x.shape[-1] != self.dim:
            raise WrongValue(
                f"{_name(self)}.{method.__name__}: x has shape {list(x.shape)}; accepted: [n, {self.dim}], or [..., n, {self.dim}]"
            )
        for name, level in (("alpha", alpha), ("sigma", sigma)):
            if level.ndim < x.ndim - 1 and level.numel() != 1:
                raise WrongValue(
                    f"{_name(self)}.{method.__name__}: {name} has shape {list(level.shape)} and x {list(x.shape)}, so that it "
                    f"would run along the samples; accepted: one number, or a shape that broadcasts against {list(x.shape[:-1])} axis "
                    f"by axis, such as {[len(x)] + [1] * (x.ndim - 2)}"
                )
        if not x.is_cpu:
            if self.on_device:
                return method(self, x, to_device(alpha, x.device), to_device(sigma, x.device))
            here = (part.to(HOST) for part in (x, alpha, sigma))
            return checked(self, *here).to(x.device)
        clean = _least(sigma) == 0
        if not (_least(alpha) >= 0 and (_least(sigma) > 0 or (clean and self.smooth))):
            raise WrongValue(f"{_name(self)}.{method.__name__}: {_levels(alpha, sigma)}; {_NOISY}")
        found = method(self, x, alpha, sigma)
        if clean and not bool(torch.isfinite(found).all()):
            raise WrongValue(f"{_name(self)}.{method.__name__}: {_levels(alpha, sigma)} gives no number; {_NOISY}")
        return found

    return wraps(method)(checked)


_NOISY = (
    "accepted: alpha of 0 or above, sigma above 0, or 0 where the data have a smooth density "
    "(what others are without noise, `sample` says, and where there is one, `cdf`)"
)


def _levels(alpha: Tensor, sigma: Tensor) -> str:
    return f"found alpha = {_least(alpha):g}, sigma = {_least(sigma):g}"


def of_draws(method: OfDraws[S]) -> OfDraws[S]:
    """Check what a data set draws: ``method(self, n, generator)`` gives numbers ``[n, dim]``.

    Raises:
        WrongValue: it gives something else, or numbers that are not finite.
    """

    def checked(self: Any, n: int, generator: torch.Generator) -> Tensor:
        found = method(self, n, generator)
        if not isinstance(found, Tensor) or found.shape != (n, self.dim):
            given = f"a tensor of shape {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise WrongValue(
                f"{_name(self)}.sample gave {given} for n = {n}; accepted: a tensor of shape {[n, self.dim]}"
            )
        if bad := lost_rows(found):
            raise WrongValue(f"{_name(self)}.sample gave {bad} of {n} points that are not finite")
        return found

    return wraps(method)(checked)


def lost_rows(x: Tensor) -> int:
    """How many rows of ``x [n, dim]`` hold a number that is not finite.

    An infinity and a NaN stay in the sum of all numbers, so that one pass is enough where it is
    finite; of huge numbers it may be infinite without them, and the rows are looked at.
    """
    return 0 if bool(torch.isfinite(x.sum())) else int((~torch.isfinite(x)).any(-1).sum())


def points(what: str, x: Any) -> Tensor:
    """An array of numbers as a float64 tensor of its shape. Raises as `array_of`."""
    return array_of(what, x).to(torch.float64)


def array_of(what: str, given: Any, accepted: str = "a tensor or an array of numbers") -> Tensor:
    """What somebody gives for numbers as a tensor: real numbers as float64, whole ones as int64,
    truth values as such, whatever their byte order, their strides and the library that holds them.
    A tensor passes as it is.

    Raises:
        WrongValue: it holds something else, or values that are masked, of which the numbers beneath
            mean nothing.
    """
    if isinstance(given, Tensor) and not given.is_complex():
        return given
    if isinstance(given, np.ma.MaskedArray):
        raise WrongValue(
            f"{what}: found a masked array of shape {list(given.shape)}; accepted: {accepted}, with no value masked "
            "(filled or compressed gives one)"
        )
    found = _numbers(given)
    if found is None:
        raise WrongValue(f"{what}: found {_shown(given)}; accepted: {accepted}")
    return torch.from_numpy(found)


def _numbers(given: Any) -> np.ndarray | None:
    """The same as an array that torch can take; None where it holds no real numbers."""
    try:
        held = np.asarray(given)
        kind = held.dtype.kind
        if kind not in "fiubO" or (kind == "O" and any(isinstance(one, str | bytes) for one in held.flat)):
            return None
        whole = kind == "i" or (kind == "u" and held.dtype.itemsize < 8)
        return np.require(held, bool if kind == "b" else np.int64 if whole else np.float64, ("C", "W"))
    except Exception:  # noqa: BLE001 - whoever made the object decides what it raises
        return None


def wrap_own(cls: type, names: tuple[str, ...], wrapper: Callable[[Any], Any]) -> None:
    """Put `wrapper` around those of the named methods that a class itself defines."""
    for name in names:
        method = vars(cls).get(name)
        if callable(method) and not getattr(method, "__isabstractmethod__", False):
            setattr(cls, name, wrapper(method))


def _name(component: Any) -> str:
    return str(getattr(component, "registered_name", "") or type(component).__name__)


def _least(level: Tensor) -> float:
    """The least of the values; NaN if one of them is."""
    return float(level) if level.numel() == 1 else float(level.min()) if level.numel() else math.inf


def _shown(value: Any) -> str:
    if isinstance(value, Real):
        return repr(value)
    if isinstance(value, Tensor | np.ndarray):
        kind = str(value.dtype).removeprefix("torch.")
        found = f"an array of shape {list(value.shape)} and type {kind}"
        measured = 0 not in value.shape and kind.startswith(("float", "int", "uint"))
        return f"{found} with values from {value.min():g} to {value.max():g}" if measured else found
    return f"{type(value).__name__} {str(value)[:40]!r}"
