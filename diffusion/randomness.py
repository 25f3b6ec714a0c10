"""Where every random number comes from.

A draw belongs to a *stream*, named by what it is for and what it may depend on. The stream's name is hashed to a seed, so
that no draw depends on a neighbour, on packing, on workers or on the order of work. The library never touches the global
generators.
"""

from __future__ import annotations

import hashlib

import torch


def stream(*name: object) -> torch.Generator:
    """A generator for the stream called `name`, for example ``stream("sample", dataset_id, seed)``.

    The seed is the first 63 bits of SHA-256 of the parts' text; equal names give equal draws, on every machine.
    """
    digest = hashlib.sha256("\x1f".join(str(part) for part in name).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
