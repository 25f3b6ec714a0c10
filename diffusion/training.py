"""placeholder until the loop lands"""
from __future__ import annotations
from dataclasses import dataclass


@dataclass(frozen=True)
class Training:
    """How one network is trained."""

    steps: int = 3000
    batch: int = 512
    width: int = 128
    depth: int = 3
    learning_rate: float = 2e-3
    data: int = 200_000
