"""What a stack learns from, a block of steps at a time: drawn on the host from each member's own
generator, or on a device for all members at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from diffusion.devices import indices, to_device
from diffusion.objectives import Objective
from diffusion.objectives.member import Member
from diffusion.randomness import MemberStreams, stream, stream_keys

Lessons = Callable[[int, int], list[Tensor]]
"""The batches of the steps from one number to another: ``[steps, members, batch, ...]``."""


def drawn_on_host(
    objective: Objective, members: Sequence[Member], data: Sequence[Tensor], batch: int, device: torch.device
) -> Lessons:
    """Each member draws from a generator of its own, block after block; what it drew is copied to
    the device.
    """
    generators = [stream("train", member.key) for member in members]

    def lessons(first: int, end: int) -> list[Tensor]:
        drawn = [
            objective.batches(member, samples, end - first, batch, generator)
            for member, samples, generator in zip(members, data, generators, strict=True)
        ]
        return [to_device(torch.stack(parts, dim=1), device) for parts in zip(*drawn, strict=True)]

    return lessons


def drawn_on_device(
    objective: Objective, members: Sequence[Member], data: Sequence[Tensor], batch: int, device: torch.device
) -> Lessons:
    """Members of one data set, formulation and schedule draw together, from their counter-based
    streams: what is done in Python does not grow with their number.

    The objective is one that `draws_anywhere`.
    """
    recipes: dict[tuple[int, ...], list[int]] = {}
    for m, (one, samples) in enumerate(zip(members, data, strict=True)):
        recipes.setdefault((id(one.dataset), id(one.formulation), id(one.schedule), len(samples)), []).append(m)
    sets = _Sets(data, device)
    order = [m for alike in recipes.values() for m in alike]
    back = sorted(range(len(order)), key=order.__getitem__)
    keys = to_device(stream_keys([("train", member.key) for member in members]), device)

    def lessons(first: int, end: int) -> list[Tensor]:
        steps, streams = end - first, MemberStreams(keys, first, end - first)
        drawn = [
            [
                part.unflatten(0, (len(alike), steps))
                for part in objective.batches(
                    members[alike[0]],
                    sets.all_as_long_as(alike[0]),
                    len(alike) * steps,
                    batch,
                    streams.of(alike, [sets.place(m) for m in alike], sets.held(alike[0])),
                )
            ]
            for alike in recipes.values()
        ]
        whole = [torch.cat(parts) for parts in zip(*drawn, strict=True)]
        if len(recipes) > 1:
            whole = [part[indices(back, device)] for part in whole]
        return [part.transpose(0, 1).contiguous() for part in whole]

    return lessons


class _Sets:
    """Training sets on a device: those of one length lie one after the other, each of them once,
    however many members share it.
    """

    def __init__(self, data: Sequence[Tensor], device: torch.device) -> None:
        self._lengths = [len(samples) for samples in data]
        self._of = [id(samples) for samples in data]
        distinct: dict[int, dict[int, Tensor]] = {}
        for samples in data:
            distinct.setdefault(len(samples), {}).setdefault(id(samples), samples)
        self._places = {key: place for alike in distinct.values() for place, key in enumerate(alike)}
        self._held = {length: len(alike) for length, alike in distinct.items()}
        self._joined = {
            length: torch.cat([to_device(samples, device) for samples in alike.values()])
            for length, alike in distinct.items()
        }

    def all_as_long_as(self, member: int) -> Tensor:
        """All sets of the length of a member's."""
        return self._joined[self._lengths[member]]

    def held(self, member: int) -> int:
        """How many these are."""
        return self._held[self._lengths[member]]

    def place(self, member: int) -> int:
        """The number of the member's own among them."""
        return self._places[self._of[member]]
