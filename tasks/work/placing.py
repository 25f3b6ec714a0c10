"""Where a worker computes: the device that it was given, what the store calls it, and what is done
when its memory runs out.
"""

from __future__ import annotations

import gc
import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from diffusion.devices import device_named, reproducible_cuda
from diffusion.training.placement import Placement, smaller

T = TypeVar("T")

GPU_SHARE = "DIFFATLAS_GPU_SHARE"
"""The part of a GPU that a worker was given, where others have the rest."""


def device_of_worker(name: str) -> torch.device:
    """The device of a name, made ready: CUDA gives equal bits for equal shapes, and torch takes no
    more than the worker's part of the memory, beside CUDA's own context.

    Raises:
        WrongValue: there is no such device, or CUDA has started otherwise.
    """
    if name == "cuda":
        reproducible_cuda()
    device = device_named(name)
    share = float(os.environ.get(GPU_SHARE) or 1.0)
    if device.type == "cuda" and share < 1:
        torch.cuda.set_per_process_memory_fraction(share, device)
    return device


@dataclass(frozen=True)
class Bucket:
    """In which bucket a stack was computed, and the one in which memory ran out before."""

    members: int | None = None
    ran_out: int | None = None

    def __str__(self) -> str:
        return f"bucket {self.members}" + (f" (out of memory in {self.ran_out})" if self.ran_out else "")


def label(device: torch.device, buckets: Iterable[Bucket] = ()) -> str:
    """What the store says of where something was computed: of a GPU all that decides the bits."""
    if device.type == "cuda":
        return gpu_label(torch.cuda.get_device_name(device), buckets)
    return platform.processor() or platform.machine()


def gpu_label(model: str, buckets: Iterable[Bucket]) -> str:
    """The model of a GPU, torch with its CUDA, and the buckets."""
    used = dict.fromkeys(str(bucket) for bucket in buckets if bucket.members)
    return ", ".join([model, f"torch {torch.__version__}", f"CUDA {torch.version.cuda}", *used])


def with_room(work: Callable[[Placement], T], place: Placement) -> tuple[T, Bucket]:
    """What some work gives, and the bucket in which it did: the placement's, or if memory runs out
    there the next smaller one. Never the processor.

    Raises:
        torch.OutOfMemoryError: memory ran out there as well, or there is none smaller.
    """
    first = place.bucket
    if first is None:
        return work(place), Bucket()
    try:
        return work(place), Bucket(first)
    except torch.OutOfMemoryError as error:
        less, said = smaller(first), str(error).split(". ")[0]
    if less is None:
        raise torch.OutOfMemoryError(_ran_out(f"a bucket of {first}", said))
    gc.collect()  # what failed may hold memory in circles
    if place.device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        return work(replace(place, bucket=less)), Bucket(less, first)
    except torch.OutOfMemoryError as error:
        said = str(error).split(". ")[0]
    raise torch.OutOfMemoryError(_ran_out(f"buckets of {first} and of {less}", said))


def _ran_out(where: str, said: str) -> str:
    return f"the GPU's memory ran out in {where} members ({said}): use smaller networks or batches, fewer samples, or --device cpu"
