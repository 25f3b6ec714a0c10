"""Where numbers live: what an answer is computed from is taken to the device of the points that it
is asked about.

Everything is drawn and looked up on the host (random numbers, schedules, a law's parameters) and
copied, so that a study compares with itself whatever it runs on. See docs/devices.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

HOST = torch.device("cpu")


def on_host(x: Tensor) -> bool:
    """Whether Python can look at the numbers of a tensor without waiting for anybody."""
    return x.device.type == "cpu"


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device, itself if it is there. Nobody waits for a copy from the host."""
    return x if x.device == device else x.to(device, non_blocking=on_host(x))


def numbers(values: Sequence[Any], device: torch.device) -> Tensor:
    """A few float64 numbers, or rows of them, on a device; copied once for each device that is not
    the host.
    """
    if device.type == "cpu":
        return torch.tensor(values, dtype=torch.float64)
    return _kept(tuple(values), torch.float64, device)


def indices(values: Sequence[int], device: torch.device) -> Tensor:
    """A few whole numbers on a device, kept as `numbers` are."""
    if device.type == "cpu":
        return torch.tensor(values, dtype=torch.int64)
    return _kept(tuple(values), torch.int64, device)


@lru_cache(maxsize=1024)
def _kept(values: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)


def device_of(model: object) -> torch.device:
    """Where a model's numbers are and its points have to be: what it states, else the host."""
    found = getattr(model, "device", None)
    return found if isinstance(found, torch.device) else HOST
