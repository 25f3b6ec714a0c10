"""A schedule of the user's own: alpha(t) and sigma(t) as expressions or functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor

from diffusion.devices import HOST
from diffusion.errors import WrongValue
from diffusion.schedules.base import Schedule, check_times, require, schedules
from diffusion.schedules.formulas import Formula, Function, path_of

_CHECKED = 1000  # times between t_min and t_max, in equal steps and again in geometric ones
_EXACT = 1e-12
_MOST_ITERATIONS = 200
_ROUNDING = 2e-15


@schedules.register(
    "user",
    formula="alpha(t) and sigma(t) as given: expressions of t, or package.module:function",
    source="none; the defaults are the trigonometric schedule of Salimans & Ho, ICLR 2022",
)
@dataclass(frozen=True)
class User(Schedule):
    r"""Any schedule with ``alpha(0) = 1`` and ``sigma(0) = 0`` (exactly) whose noise-to-signal
    ratio rises with t.

    `alpha` and `sigma` are expressions such as ``cos(pi*t/2)`` or ``sqrt(-expm1(-2*t))`` (for the
    language see `diffusion.schedules.formulas`), or paths ``package.module:function`` of functions
    that take a float64 tensor of times and return one of its shape; from Python, functions
    themselves. A function that cannot be imported by name can be used but not described: `spec`
    raises WrongValue, because an id would mean nothing.

    Derivatives are those of automatic differentiation, so that functions must be made of torch's
    operations. The ratio is inverted by Newton's rule within brackets. What is required is checked
    at 2000 times between `t_min` and `t_max`. Digits near t = 0 are only as good as the expression:
    ``-expm1(-t)`` keeps what ``1 - exp(-t)`` loses.
    """

    # instances hold functions here: a `Formula` is text that can be called
    alpha: str | Callable[[Tensor], Tensor] = "cos(pi*t/2)"  # type: ignore[assignment]
    sigma: str | Callable[[Tensor], Tensor] = "sin(pi*t/2)"  # type: ignore[assignment]
    t_min: float = 1e-3
    t_max: float = 0.99

    def __post_init__(self) -> None:
        check_times("user", self.t_min, self.t_max, 1e100)
        object.__setattr__(self, "alpha", _function("alpha", self.alpha))
        object.__setattr__(self, "sigma", _function("sigma", self.sigma))
        self._check_start()
        self._check_between()

    @property
    def _functions(self) -> tuple[Function, Function]:
        return cast("Function", self.alpha), cast("Function", self.sigma)

    def parameters(self) -> dict[str, Any]:
        """The parameters as plain values.

        Raises:
            WrongValue: a function has no name to be imported by.
        """
        for part, function in zip(("alpha", "sigma"), self._functions, strict=True):
            require(
                isinstance(function, str),
                f"{part} of this schedule is a function that cannot be imported by name: write it as an expression, or "
                f"put it into a module (package.module:function)",
            )
        return {"alpha": str(self.alpha), "sigma": str(self.sigma), "t_min": self.t_min, "t_max": self.t_max}

    @cached_property
    def variance_preserving(self) -> bool:  # type: ignore[override]  # depends on the parameters
        """Whether ``alpha^2 + sigma^2 = 1`` wherever it was checked."""
        t = self._checked_times()
        alpha, sigma = (function(t) for function in self._functions)
        return bool(((alpha**2 + sigma**2 - 1).abs() <= _EXACT).all())

    def alpha_dot(self, t: Tensor) -> Tensor:
        return _derivative(self._functions[0], t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return _derivative(self._functions[1], t)

    def time_of(self, nsr: Tensor) -> Tensor:
        """The inverse; found on the host, where Newton's rule can see when it has arrived."""
        return self._time_of(nsr.to(HOST)).to(nsr.device)

    def _time_of(self, nsr: Tensor) -> Tensor:
        times, ratios = self._table
        right = torch.searchsorted(ratios, nsr.contiguous()).clamp(1, len(times) - 1)
        t = self._solve(nsr, times[right - 1], times[right])
        t = torch.where(nsr == 0, 0.0, t)
        return torch.where(nsr >= ratios[-1], times[-1], t)

    def _solve(self, nsr: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """The roots of ``sigma cos(a) - alpha sin(a)``, ``tan(a) = nsr``, which is finite and rises
        through them.
        """
        cosine, sine = 1 / torch.sqrt(1 + nsr**2), 1 / torch.sqrt(1 + nsr**-2)
        alpha, sigma = self._functions
        t, moved = 0.5 * (low + high), 2 * (high - low)
        done = torch.zeros_like(t, dtype=torch.bool)
        for _ in range(_MOST_ITERATIONS):
            value = sigma(t) * cosine - alpha(t) * sine
            slope = self.sigma_dot(t) * cosine - self.alpha_dot(t) * sine
            low, high = torch.where(value <= 0, t, low), torch.where(value >= 0, t, high)
            newton = torch.minimum(torch.maximum(t - value / slope, low), high)
            # bisect where Newton's rule does not at least halve the move before, or has no number
            good = ((newton - t).abs() <= 0.5 * moved) & (newton > 0)
            then = torch.where(done, t, torch.where(good, newton, 0.5 * (low + high)))
            moved, t = torch.where(done, moved, (then - t).abs()), then
            done |= (moved <= _ROUNDING * t) | (high - low <= _ROUNDING * high)
            if bool(done.all()):
                break
        return t

    @cached_property
    def _table(self) -> tuple[Tensor, Tensor]:
        """Rising times, 0 and those that were checked, and their noise-to-signal ratios."""
        t = torch.cat([torch.zeros(1, dtype=torch.float64), self._checked_times()])
        return t, self.nsr(t)

    def _checked_times(self) -> Tensor:
        even = torch.linspace(self.t_min, self.t_max, _CHECKED, dtype=torch.float64)
        geometric = self.t_min * (self.t_max / self.t_min) ** torch.linspace(0, 1, _CHECKED, dtype=torch.float64)
        inner = torch.cat([even, geometric])
        inner = inner[(inner > self.t_min) & (inner < self.t_max)].unique()
        # apart by more than rounding, lest equal ratios pass for a ratio that does not rise
        inner = inner[torch.diff(inner, prepend=inner.new_tensor([self.t_min])) > 1e-9 * inner]
        inner = inner[inner < self.t_max * (1 - 1e-9)]
        return torch.cat([inner.new_tensor([self.t_min]), inner, inner.new_tensor([self.t_max])])

    def _check_start(self) -> None:
        zero = torch.zeros(2, dtype=torch.float64)
        alpha, sigma = self._functions
        first, none = float(_value("alpha", alpha, zero)[0]), float(_value("sigma", sigma, zero)[0])
        require(abs(first - 1) <= _EXACT, f"alpha must be 1 at t = 0, found {first} of {_described(alpha)}")
        require(none == 0, f"sigma must be 0 at t = 0, and without rounding error, found {none} of {_described(sigma)}")

    def _check_between(self) -> None:
        t = self._checked_times()
        values = {}
        for part, function in zip(("alpha", "sigma"), self._functions, strict=True):
            values[part] = _value(part, function, t)
            try:
                values[f"{part}'"] = _derivative(function, t)
            except RuntimeError as error:  # of torch: what is not differentiable
                raise WrongValue(f"{part} has no derivative: {_described(function)}: {error}") from error
        for part, found in values.items():
            self._check_each(torch.isfinite(found), t, f"{part} must be finite", found)
        alpha, sigma = values["alpha"], values["sigma"]
        self._check_each((alpha > 0) | ((alpha == 0) & (t == self.t_max)), t, "alpha must be positive", alpha)
        self._check_each(sigma > 0, t, "sigma must be positive", sigma)
        flat = (alpha == 0) & (values["alpha'"] == 0)
        self._check_each(
            ~flat, t, "alpha must not end flat at 0, where alpha' / alpha is no number (a smaller t_max serves)", alpha
        )
        ratio = sigma / alpha
        before = torch.cat([ratio.new_zeros(1), ratio[:-1]])
        rising = (ratio > before) & (values["sigma'"] * alpha > sigma * values["alpha'"])
        self._check_each(rising, t, "sigma / alpha must rise with t", ratio)

    def _check_each(self, good: Tensor, t: Tensor, message: str, found: Tensor) -> None:
        if not bool(good.all()):
            first = int((~good).to(torch.int8).argmax())
            alpha, sigma = map(_described, self._functions)
            raise WrongValue(
                f"{message} for t from t_min={self.t_min} to t_max={self.t_max}, found {float(found[first]):.6g} at "
                f"t = {float(t[first]):.6g} (alpha {alpha}, sigma {sigma})"
            )


def _described(function: object) -> str:
    return repr(str(function)) if isinstance(function, str) else repr(function)


def _function(part: str, given: object) -> Function:
    if isinstance(given, str):
        try:
            return Formula(given)
        except ValueError as error:
            raise WrongValue(f"{part}: {error}") from error
    if not callable(given):
        message = f"{part} must be an expression, package.module:function or a function, found {given!r}"
        raise WrongValue(message)
    path = path_of(given)
    return Formula(path) if path else given


def _value(part: str, function: Function, t: Tensor) -> Tensor:
    """The function at `t`, if it is what a function of time has to be; WrongValue otherwise."""
    try:
        value: object = function(t)
    except (Exception, SystemExit) as error:
        raise WrongValue(f"{part} failed: {_described(function)}: {type(error).__name__}: {error}") from error
    if not (isinstance(value, Tensor) and value.shape == t.shape and value.dtype == torch.float64):
        found = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise WrongValue(
            f"{part} must return a float64 tensor of the shape of t, {list(t.shape)}, found {found} of {_described(function)}"
        )
    return value.detach()


def _derivative(function: Function, t: Tensor) -> Tensor:
    with torch.inference_mode(mode=False), torch.enable_grad():
        inner = t.detach().clone().requires_grad_()
        value = function(inner)
        if not value.requires_grad:  # a constant
            return torch.zeros_like(t)
        (slope,) = torch.autograd.grad(value.sum(), inner, allow_unused=True)
    return torch.zeros_like(t) if slope is None else slope
