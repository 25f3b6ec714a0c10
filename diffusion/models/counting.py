"""A model that counts how often it is evaluated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar, cast

import torch

from diffusion.devices import device_of
from diffusion.models.capabilities import capabilities_of, methods_of

M = TypeVar("M")


@dataclass
class Counter:
    """How often a model was evaluated."""

    nfe: int = 0


def counted(model: M) -> tuple[M, Counter]:
    """The model with a counter of its evaluations.

    Returns:
        A model of the same capabilities, which asks `model`; and the number of its evaluations so
        far.
    """
    counter = Counter()
    kind: type = type(model)
    return cast("M", _counting_class(kind)(model, counter)), counter


class _Counting:
    def __init__(self, model: object, counter: Counter) -> None:
        self._model, self._counter = model, counter

    @property
    def device(self) -> torch.device:
        """That of the model."""
        return device_of(self._model)


@lru_cache(maxsize=64)
def _counting_class(kind: type) -> type[_Counting]:
    """A class with the methods of all capabilities that a class of models has."""
    methods: dict[str, Any] = {
        name: _forwarded(name, evaluates) for one in capabilities_of(kind) for name, evaluates in methods_of(one)
    }
    return type(f"Counting{kind.__name__}", (_Counting,), methods)


def _forwarded(name: str, evaluates: bool) -> Callable[..., Any]:
    def method(self: _Counting, *arguments: Any, **named: Any) -> Any:
        self._counter.nfe += evaluates
        return getattr(self._model, name)(*arguments, **named)

    return method
