"""Where a stack is trained, and in which way: on the host, or as a GPU wants it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from diffusion.devices import HOST
from diffusion.replay import Recorder, cuda_graph

T = TypeVar("T")

BUCKETS = (8, 32, 128)
"""Sizes of stacks on a GPU. Products choose their kernels, and so the order of their sums, by the
whole shape: a member has the same bits in every stack of one size, whoever shares it.
"""


def bucket_of(members: int) -> int:
    """The bucket that takes so many members, or the largest, which then is filled more than once."""
    return next((size for size in BUCKETS if size >= members), BUCKETS[-1])


def smaller(bucket: int) -> int | None:
    """The next smaller bucket."""
    return max((size for size in BUCKETS if size < bucket), default=None)


def filled(values: Sequence[T], bucket: int | None) -> list[T]:
    """As many values as a bucket holds: after the last one, copies of the first."""
    return [*values, *[values[0]] * ((bucket or 0) - len(values))]


@dataclass(frozen=True)
class Placement:
    """Where a stack is trained, and what is done otherwise than on the host.

    Args:
        device: where networks are and stay.
        drawn_there: batches are drawn where they are used, for all members at once.
        bucket: how many members step together, filled up with copies; None: as many as a
            processor's cache has room for.
        static: the numbers of a step, such as its learning rate, come in tensors, so that every step
            launches the same work.
        recorder: how a step is recorded to be replayed; None: it is not.
    """

    device: torch.device = HOST
    drawn_there: bool = False
    bucket: int | None = None
    static: bool = False
    recorder: Recorder | None = None

    @classmethod
    def on(cls, device: torch.device, members: int) -> Placement:
        """As the device has it, for a stack of so many members: on the host nothing is done
        otherwise.
        """
        if device == HOST:
            return cls()
        gpu = device.type == "cuda"  # torch's `meta` device has neither numbers nor graphs
        return cls(device, True, bucket_of(members), gpu, cuda_graph if gpu else None)
