r"""Philox 4x32-10: 128 random bits for each counter and key, in whole numbers that every device
agrees on.

One of ten rounds turns the counter's words ``x_0 .. x_3`` and the key's ``k_0, k_1`` into

    x_0' = high(M_1 x_2) ^ x_1 ^ k_0        x_1' = low(M_1 x_2)
    x_2' = high(M_0 x_0) ^ x_3 ^ k_1        x_3' = low(M_0 x_0)

with the two halves of 64-bit products, and adds W_0 and W_1 to the key. There is no state: any
number of a stream is there without those before it, and a million are as many independent
operations, which is what a GPU is for.

Source: Salmon, Moraes, Dror & Shaw, Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011, and the
known answers of their library Random123.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Words = tuple[Tensor, Tensor, Tensor, Tensor]

_WORD = 2**32

_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)  # of the golden ratio, and of sqrt(3) - 1
_LOW = _WORD - 1


def philox(counter: Words, key: tuple[Tensor, Tensor]) -> Words:
    """Four words for each counter: int64 tensors of numbers below 2^32 that broadcast, as the
    answers are.
    """
    x0, x1, x2, x3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # products wrap at 2^64, as words do; a shift drags the sign along, which is cut off
        first, second = x0 * _MULTIPLIERS[0], x2 * _MULTIPLIERS[1]
        x0, x1 = ((second >> 32) & _LOW) ^ x1 ^ k0, second & _LOW
        x2, x3 = ((first >> 32) & _LOW) ^ x3 ^ k1, first & _LOW
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return x0, x1, x2, x3


def uniforms(words: Words) -> Tensor:
    """Two numbers in [0, 1) from each four words, ``[..., 2]`` float64: multiples of 2^-53, all
    equally likely.
    """
    a, b, c, d = words
    bits = torch.stack([((a >> 5) << 26) + (b >> 6), ((c >> 5) << 26) + (d >> 6)], -1)
    return bits.double() * 2.0**-53


def normals(words: Words) -> Tensor:
    """Two standard normal numbers from each four words, ``[..., 2]`` float64.

    ``sqrt(-2 ln(1 - u)) (cos, sin)(2 pi v)``: Box & Muller, Ann. Math. Statist. 29 (1958). The
    logarithm and the circle are of the device's own library: devices agree to rounding.
    """
    u, v = uniforms(words).unbind(-1)
    length, angle = torch.sqrt(-2 * torch.log1p(-u)), 2 * math.pi * v
    return torch.stack([length * torch.cos(angle), length * torch.sin(angle)], -1)
