"""Where numbers live: what an answer is computed from is taken to the device of the points that it
is asked about.

Everything is drawn and looked up on the host (random numbers, schedules, a law's parameters) and
copied, so that a study compares with itself whatever it runs on. See docs/devices.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from diffusion.errors import WrongValue

T = TypeVar("T")

HOST = torch.device("cpu")

DEVICES = ("auto", "cpu", "cuda")
"""Names of devices: `auto` is a GPU where there is one."""


def device_named(given: str | torch.device) -> torch.device:
    """The device of a name, or the one that is given.

    Raises:
        WrongValue: an unknown name, or a GPU where there is none.
    """
    if isinstance(given, torch.device):
        found = given
    elif given in DEVICES:
        gpu = given == "cuda" or (given == "auto" and torch.cuda.is_available())
        found = torch.device("cuda" if gpu else "cpu")
    else:
        raise WrongValue(f"device: found {given!r}; accepted: {', '.join(DEVICES)}, or a torch.device")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise WrongValue(f"device: found '{found}', and there is no GPU here that torch can use; accepted: auto, cpu")
    return torch.empty(0, device=found).device  # with its number, as tensors say where they are


_WORKSPACE, _WORKSPACES = "CUBLAS_WORKSPACE_CONFIG", (":4096:8", ":16:8")


def reproducible_cuda() -> None:
    """Have CUDA give equal bits for equal shapes in this process, and float32 in all its digits.

    To be called before CUDA starts: cuBLAS reads the size of its workspaces when it does. torch then
    refuses operations that have no reproducible form.

    Raises:
        WrongValue: CUDA has started with other workspaces, or torch did not take a setting.
    """
    if torch.cuda.is_initialized() and os.environ.get(_WORKSPACE) not in _WORKSPACES:
        found = os.environ.get(_WORKSPACE)
        raise WrongValue(f"{_WORKSPACE}: found {found!r} when CUDA started; accepted: {' or '.join(_WORKSPACES)}")
    if os.environ.get(_WORKSPACE) not in _WORKSPACES:
        os.environ[_WORKSPACE] = _WORKSPACES[0]
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # nobody reads it unwritten
    torch.backends.cudnn.benchmark = False
    _ask_for_full_float32()
    if problems := unreproducible():
        raise WrongValue(f"CUDA would not give equal bits: {', '.join(problems)}")


def unreproducible() -> list[str]:
    """What keeps CUDA from giving equal bits for equal shapes, or products from float32's digits."""
    asked = {
        f"{_WORKSPACE} is not {' or '.join(_WORKSPACES)}": os.environ.get(_WORKSPACE) in _WORKSPACES,
        "torch takes algorithms that are not deterministic": torch.are_deterministic_algorithms_enabled(),
        "cuDNN chooses its algorithms by their speed": not torch.backends.cudnn.benchmark,
        "products are in TF32": _as_set(torch.get_float32_matmul_precision) == "highest",
        "convolutions are in TF32": _as_set(lambda: torch.backends.cudnn.allow_tf32) is False,
    }
    return [problem for problem, settled in asked.items() if not settled]


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Products and convolutions in all digits of float32 off the host, whatever the caller has set
    torch to (its own default is TF32 for convolutions); the settings are the caller's again
    afterwards. Nothing changes on the host.
    """
    if device.type == "cpu":
        yield
        return
    cudnn, finer = torch.backends.cudnn, _finer_settings()
    convolutions, products = _as_set(lambda: cudnn.allow_tf32), _as_set(torch.get_float32_matmul_precision)
    before = [one.fp32_precision for one in finer]
    try:
        _ask_for_full_float32()
        yield
    finally:
        if convolutions is not None:
            cudnn.allow_tf32 = convolutions
        if products is not None:
            torch.set_float32_matmul_precision(products)
        for one, precision in zip(finer, before, strict=True):
            one.fp32_precision = precision


def each_in_full_float32(found: Iterator[T], device: torch.device) -> Iterator[T]:
    """What an iterator finds, each found in `full_float32`; between two of them the caller's
    settings hold.
    """
    nothing = object()
    while True:
        with full_float32(device):
            one = next(found, nothing)
        if one is nothing:
            return
        yield one  # type: ignore[misc]


def _ask_for_full_float32() -> None:
    """In both of torch's ways, which it wants to agree. The older switch alone is not enough:
    `allow_tf32 = False` leaves convolutions to what `torch.backends.fp32_precision` says of
    everything, and that may be TF32.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    for one in _finer_settings():
        one.fp32_precision = "ieee"


def _finer_settings() -> list[Any]:
    """Where torch (2.9 and above) says the precision of each kind of operation apart."""
    cudnn: Any = torch.backends.cudnn
    host: Any = torch.backends.mkldnn
    if not hasattr(cudnn, "conv"):
        return []
    return [cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul, host.matmul]


def _as_set(read: Callable[[], T]) -> T | None:
    """A setting, or None where torch refuses to tell: the caller has set a finer one."""
    try:
        return read()
    except RuntimeError:
        return None


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device, itself if it is there. Nobody waits for a copy from the host."""
    return x if x.device == device else x.to(device, non_blocking=x.is_cpu)


def numbers(values: Sequence[Any], device: torch.device) -> Tensor:
    """A few float64 numbers, or rows of them, on a device; copied once for each device that is not
    the host.
    """
    if device.type == "cpu":
        return torch.tensor(values, dtype=torch.float64)
    return _handed_out(tuple(values), torch.float64, device)


def indices(values: Sequence[int], device: torch.device) -> Tensor:
    """A few whole numbers on a device, kept as `numbers` are."""
    if device.type == "cpu":
        return torch.tensor(values, dtype=torch.int64)
    return _handed_out(tuple(values), torch.int64, device)


@lru_cache(maxsize=1024)
def _kept(values: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(mode=False):  # whatever mode the first who asks is in
        return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)


_holding: list[list[Tensor]] = []  # not of a thread: gradients are found in one of their own


def _handed_out(values: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    found = _kept(values, dtype, device)
    for constants in _holding:
        constants.append(found)
    return found


@contextmanager
def constants_held() -> Iterator[list[Tensor]]:
    """All that `numbers` and `indices` hand out meanwhile: a graph reads it where it lies, and who
    keeps the graph has to keep it.
    """
    constants: list[Tensor] = []
    _holding.append(constants)
    try:
        yield constants
    finally:
        _holding[:] = [other for other in _holding if other is not constants]


class DeviceCopies(dict[torch.device, T]):
    """What an object has copied to devices, by device. It is left behind when the object travels to
    another process, which may have no such device.
    """

    def __reduce_ex__(self, protocol: Any) -> Any:
        return DeviceCopies, ()


def device_of(model: object) -> torch.device:
    """Where a model's numbers are and its points have to be: what it states, else the host."""
    found = getattr(model, "device", None)
    return found if isinstance(found, torch.device) else HOST
