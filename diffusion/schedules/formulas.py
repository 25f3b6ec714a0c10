"""Functions of t that users write: an arithmetic expression, or the path of a function of their
own.

Expressions are read with `ast` and walked over a whitelist: numbers, ``t``, ``pi``, ``+ - * / **``,
parentheses and the functions of `FUNCTIONS`. Nothing else is evaluated, whatever the text says.
Every value is a float64 tensor, numbers included, so that ``9**9**9**9`` is infinity and not an
integer that takes forever; length and depth are bounded.
"""

from __future__ import annotations

import ast
import importlib
import operator
import re
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor

from diffusion import plugins
from diffusion.arguments import as_numbers
from diffusion.errors import WrongValue

Function = Callable[[Tensor], Tensor]

FUNCTIONS: dict[str, Function] = {
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": torch.tan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "tanh": torch.tanh,
    "expm1": torch.expm1,
    "log1p": torch.log1p,
}
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
ACCEPTED = f"numbers, t, pi, + - * / **, parentheses and {', '.join(FUNCTIONS)} of one argument"
_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_TOKEN = re.compile(rf"\s*(?:(?P<number>{_NUMBER})|(?P<name>[A-Za-z_]\w*)|(?P<sign>\*\*|[-+*/()]))", re.ASCII)
_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", re.ASCII)
_LONGEST = 200  # characters
_DEEPEST = 40  # levels of nesting


class Formula(str):
    """Text that can be called: ``Formula("exp(-t)")(t)``, or
    ``Formula("package.module:function")(t)``.

    Takes a float64 tensor and returns one of the same shape. Plain numbers are taken as a schedule
    takes them.

    Raises:
        WrongValue: the text is neither an expression nor the path of something callable, or the path
            leads to a module that must not be imported (see `diffusion.plugins`).
    """

    __slots__ = ("_function",)

    _function: Function

    def __new__(cls, text: str, function: Function | None = None) -> Self:
        """`function` is what the path `text` leads to, if it is at hand: nothing is imported then."""
        if len(text) > _LONGEST:
            message = (
                f"{_shown(text)} has {len(text)} characters (accepted: up to {_LONGEST}; put more into a function)"
            )
            raise WrongValue(message)
        self = super().__new__(cls, text)
        self._function = function or (_allowed(text) if ":" in text else _compiled(text))
        return self

    def __call__(self, t: Tensor) -> Tensor:
        return self._function(t if isinstance(t, Tensor) and t.is_floating_point() else as_numbers(str(self), t))

    def __reduce__(self) -> tuple[Callable[[str], Formula], tuple[str]]:  # compiled anew wherever it is sent
        return _sent, (str(self),)


def _sent(text: str) -> Formula:
    """A formula from another process, which knew that it may be imported."""
    return Formula(text, _imported(text) if ":" in text else None)


def path_of(function: Any) -> str | None:
    """``package.module:name`` if that is what `function` can be imported as, in other processes
    too; None otherwise.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not (isinstance(module, str) and isinstance(name, str)) or module == "__main__":
        return None
    path = f"{module}:{name}"
    try:
        found = _imported(path)
    except ValueError:
        return None
    if found is not function:
        return None
    _at_hand.add(path)
    return path


_at_hand: set[str] = set()
"""Paths of functions that this process has been given as objects: their names may stand in specs."""


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:56] + " ...")


def _allowed(path: str) -> Function:
    reason = plugins.why_not(path.partition(":")[0]) if _PATH.fullmatch(path) and path not in _at_hand else None
    if reason:
        raise WrongValue(f"{_shown(path)}: {reason}")
    found = _imported(path)
    if plugins.is_ours(path) and not plugins.is_ours(getattr(found, "__module__", None) or ""):
        raise WrongValue(f"{_shown(path)} is nothing of this package (accepted: package.module:function)")
    return found


def _imported(path: str) -> Function:
    if not _PATH.fullmatch(path):
        raise WrongValue(f"{_shown(path)} is not the path of a function (accepted: package.module:function)")
    module, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # a user's module may fail in any way while it is imported
        raise WrongValue(f"{_shown(path)} could not be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise WrongValue(f"{_shown(path)} is not a function but {type(found).__name__}")
    called: Function = found
    return called


def _compiled(text: str) -> Function:
    """The function that an expression describes."""
    if len(text) > _LONGEST:
        raise WrongValue(
            f"{_shown(text)} has {len(text)} characters (accepted: {_LONGEST}, or package.module:function)"
        )
    _check_tokens(text)
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _refused(text, "no expression can be read from it") from error
    body = _node(text, tree.body, _DEEPEST)

    def function(t: Tensor) -> Tensor:
        return body(t).expand(t.shape).clone()

    return function


def _refused(text: str, message: str) -> WrongValue:
    return WrongValue(f"{_shown(text)}: {message} (accepted: {ACCEPTED})")


def _check_tokens(text: str) -> None:
    """Raise WrongValue unless the text is made of numbers, known names and signs; so nothing else
    reaches the parser.
    """
    at = 0
    while token := _TOKEN.match(text, at):
        name = token["name"]
        if name and name not in FUNCTIONS and name not in {"t", "pi"}:
            raise _refused(text, f"unknown name {_shown(name)}")
        at = token.end()
    if text[at:].strip():
        raise _refused(text, f"found {text[at:].strip()[0]!r}")


def _node(text: str, node: ast.AST, depth: int) -> Function:
    if depth == 0:
        raise _refused(text, f"nested more than {_DEEPEST} deep")
    match node:
        case ast.Constant(value=int() | float() as value):
            return _constant(text, value)
        case ast.Name(id="t"):
            return lambda t: t
        case ast.Name(id="pi"):
            return _constant(text, torch.pi)
        case ast.UnaryOp(op=ast.UAdd() | ast.USub() as sign, operand=inner):
            signed = _node(text, inner, depth - 1)
            return signed if isinstance(sign, ast.UAdd) else lambda t: -signed(t)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            combine, a, b = _OPERATORS[type(op)], _node(text, left, depth - 1), _node(text, right, depth - 1)
            return lambda t: combine(a(t), b(t))
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in FUNCTIONS:
            outer, inside = FUNCTIONS[name], _node(text, argument, depth - 1)
            return lambda t: outer(inside(t))
    raise _refused(text, "this is more than an arithmetic expression, or less")


def _constant(text: str, value: float) -> Function:
    try:
        number = torch.tensor(float(value), dtype=torch.float64)
    except OverflowError as error:
        raise _refused(text, "a number in it is too large") from error
    return lambda t: number if t.is_cpu else torch.full((), float(value), dtype=torch.float64, device=t.device)
