r"""The multilayer perceptron as it is fitted: its derivative in the parameters, written out.

What autograd would do costs twice as much: a pass over every hidden unit for each operation, memory
that the system hands out anew in every step, and products with the noise level for every point,
where whole groups of points share theirs. With ``g_k = 1 + G e_k`` the gain of group k and s the
logistic function, every layer is

    a = W h,   u = g_k (a + b),   h' = u s(u),

and the derivatives of a loss are, from that of h',

    du = dh' (h' + s (1 - h')),   dW = h^T (g_k du),   dh = (g_k du) W^T,
    db = sum_k g_k sum du,        dg_k = sum a du + b sum du,

the inner sums over the points of group k. What a layer keeps for this is a, s and h'.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

Views = Callable[[Tensor], dict[str, Tensor]]
"""How a row's arrays are named: `Network.views`."""


class _Hidden(NamedTuple):
    """Hidden units ``[members, batch, width]``, and the same memory with its groups apart."""

    flat: Tensor
    grouped: Tensor


class _Memory(threading.local):
    """What one step leaves to the next: arrays of hidden units to be written again, and the named
    arrays of the rows that were fitted last, with those of their derivative.
    """

    def __init__(self) -> None:
        self._free: list[_Hidden] = []
        self._kind: tuple[torch.Size, torch.dtype] | None = None
        self._rows = self._slope = torch.empty(0)
        self._named: tuple[dict[str, Tensor], dict[str, Tensor]] = {}, {}

    def take(self, shape: torch.Size, dtype: torch.dtype) -> _Hidden:
        """An array of a shape ``[members, groups, points, width]`` that nobody uses."""
        if (shape, dtype) != self._kind:
            self._free, self._kind = [], (shape, dtype)
        if self._free:
            return self._free.pop()
        grouped = torch.empty(shape, dtype=dtype)
        return _Hidden(grouped.flatten(1, 2), grouped)

    def give(self, *arrays: _Hidden) -> None:
        """Arrays that nobody uses any more."""
        self._free += [one for one in arrays if (one.grouped.shape, one.grouped.dtype) == self._kind]

    def of(self, views: Views, rows: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """The named arrays of the rows and of their derivative, and the derivative itself."""
        known = self._rows  # which keeps the memory: nothing else can lie at its address
        if not (known.data_ptr() == rows.data_ptr() and known.shape == rows.shape and known.dtype == rows.dtype):
            self._rows, self._slope = rows.detach(), torch.zeros_like(rows)
            self._named = views(self._rows), views(self._slope)
        return *self._named, self._slope


_memory = _Memory()


class Fit(torch.autograd.Function):
    """Answers ``[members, batch, outputs]`` with the output's padding; differentiable in the rows
    alone, and once.

    `apply` takes the names of a row's arrays, the number of hidden layers, rows ``[members, size]``,
    points ``[members, batch, n]`` as wide as the first layer's weights, and conditions
    ``[members, groups, n]`` of equal consecutive parts of the batch.
    """

    @staticmethod
    def forward(ctx: Any, views: Views, depth: int, rows: Tensor, z: Tensor, c: Tensor) -> Tensor:
        """See the head of the file."""
        p, _, _ = _memory.of(views, rows)
        e = torch.baddbmm(p["embed.bias"], c, p["embed.weight"])
        opened = torch.sigmoid(e)
        e.mul_(opened)
        groups = c.shape[1]
        shape = torch.Size((len(rows), groups, z.shape[1] // groups, p["input.bias"].shape[2]))
        h, layers = _Hidden(z, z), []
        for layer in range(depth):
            gain = torch.baddbmm(p[f"gain{layer}.bias"], e, p[f"gain{layer}.weight"]).add_(1)
            bias = p[f"hidden{layer}.bias"] if layer else torch.baddbmm(p["input.bias"], e, p["shift.weight"])
            a, s, u = (_memory.take(shape, rows.dtype) for _ in range(3))
            torch.bmm(h.flat, p[_weight(layer)], out=a.flat)
            torch.addcmul((bias * gain)[:, :, None], a.grouped, gain[:, :, None], out=u.grouped)
            torch.sigmoid(u.flat, out=s.flat)
            layers.append((h, a, s, gain, bias))
            u.flat.mul_(s.flat)
            h = u
        ctx.views, ctx.kept = views, (rows, c, e, opened, layers, h)
        # few columns are multiplied sooner as few rows
        return torch.bmm(p["output.weight"].mT, h.flat.mT).mT + p["output.bias"]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[None, None, Tensor, None, None]:
        """See the head of the file."""
        if ctx.kept is None:
            raise RuntimeError("the derivative of a fit is given once: its memory is written again")
        rows, c, e, opened, layers, after = ctx.kept
        ctx.kept = None  # what it kept is overwritten here
        p, d, found = _memory.of(ctx.views, rows)
        dh = _memory.take(after.grouped.shape, rows.dtype)
        torch.bmm(g, p["output.weight"].mT, out=dh.flat)
        d["output.weight"].copy_(torch.bmm(g.mT, after.flat).mT)
        torch.sum(g, 1, keepdim=True, out=d["output.bias"])
        de, one = torch.zeros_like(e), torch.ones((), dtype=rows.dtype)
        for layer in reversed(range(len(layers))):
            h, a, s, gain, bias = layers[layer]
            du = s
            torch.lerp(after.flat, one, s.flat, out=s.flat).mul_(dh.flat)
            total = du.grouped.sum(2)
            a.flat.mul_(du.flat)
            dgain = a.grouped.sum(2).addcmul_(bias, total)
            du.grouped.mul_(gain[:, :, None])
            dbias = total.mul_(gain)
            d[f"gain{layer}.weight"].copy_(torch.bmm(e.mT, dgain))
            torch.sum(dgain, 1, keepdim=True, out=d[f"gain{layer}.bias"])
            de.baddbmm_(dgain, p[f"gain{layer}.weight"].mT)
            torch.sum(dbias, 1, keepdim=True, out=d[f"hidden{layer}.bias" if layer else "input.bias"])
            d[_weight(layer)].copy_(torch.bmm(h.flat.mT, du.flat))
            if layer:
                torch.bmm(du.flat, p[_weight(layer)].mT, out=dh.flat)
            else:
                d["shift.weight"].copy_(torch.bmm(e.mT, dbias))
                de.baddbmm_(dbias, p["shift.weight"].mT)
            _memory.give(a, s, after)
            after = h
        _memory.give(dh)
        de.mul_(torch.lerp(e, one, opened))
        d["embed.weight"].copy_(torch.bmm(c.mT, de))
        torch.sum(de, 1, keepdim=True, out=d["embed.bias"])
        return None, None, found.clone(), None, None


def _weight(layer: int) -> str:
    return f"hidden{layer}.weight" if layer else "input.weight"
