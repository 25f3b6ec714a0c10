"""Where a stack is trained, and in which way: on the host, or as a GPU wants it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from diffusion.devices import HOST


@dataclass(frozen=True)
class Placement:
    """Where a stack is trained, and what is done otherwise than on the host.

    Args:
        device: where networks are and stay.
        drawn_there: batches are drawn where they are used, for all members at once.
    """

    device: torch.device = HOST
    drawn_there: bool = False

    @classmethod
    def on(cls, device: torch.device) -> Placement:
        """As the device has it: on the host nothing is done otherwise."""
        return cls(device, drawn_there=device != HOST)
