"""A model that can be asked anywhere, tied to a device."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from diffusion.devices import device_of
from diffusion.models.capabilities import capabilities_of, methods_of


def placed(model: object, device: torch.device) -> object:
    """The model, which says that its points have to be on the device.

    Exact models and functions of one's own answer where their points are, and say nothing of a
    device themselves: who makes the points then makes them on the host.

    Returns:
        A model of the same capabilities, which asks `model`; itself, if it says so already.
    """
    kind: type = type(model)
    return model if device_of(model) == device else _placed_class(kind)(model, device)


class _Placed:
    def __init__(self, model: object, device: torch.device) -> None:
        self._model, self.device = model, device


@lru_cache(maxsize=64)
def _placed_class(kind: type) -> type[_Placed]:
    """A class with the methods of all capabilities that a class of models has."""
    methods = {name: _forwarded(name) for one in capabilities_of(kind) for name, _ in methods_of(one)}
    return type(kind.__name__, (_Placed,), methods)  # errors call it what it is


def _forwarded(name: str) -> Callable[..., Any]:
    def method(self: _Placed, *arguments: Any, **named: Any) -> Any:
        return getattr(self._model, name)(*arguments, **named)

    return method
