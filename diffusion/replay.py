"""Functions of tensors that a GPU replays: captured once as a CUDA graph, then started with a single
call, where one by one their hundreds of small kernels wait for the processor.
"""

from __future__ import annotations

import inspect
import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.devices import constants_held

Work = Callable[[], Tensor]
Recorder = Callable[[Work], tuple[Callable[[], object], Tensor]]
"""Makes of some work what does it again, and the tensor in which it leaves its answer each time. The
work may be done any number of times before.
"""

_WARM_UPS = 3  # libraries choose their kernels and take their memory on first use, which no capture may hold
_SHAPES = 4  # each graph keeps its memory

NOT_CAPTURED = "not captured as a CUDA graph"
"""How the warning begins."""


def cuda_graph(work: Work) -> tuple[Callable[[], object], Tensor]:
    """A recorder: a CUDA graph on the current device, captured on the stream on which the work was
    warmed up.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UPS):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        answer = work()
    return graph.replay, answer


class Replayed:
    """A function of tensors, recorded at its first call with inputs of some shapes and replayed at
    the following ones, with the numbers of the function itself.

    The function has to launch the same work whatever the numbers are, and to wait for none. Where it
    cannot be recorded it is called as it is, and a warning says why.

    Args:
        function: from tensors to one tensor, all on one device. Of a method the object is held
            weakly: it is the object that keeps what is replayed of it, and a circle of the two
            would hold the recordings' memory until Python looks for circles.
        changes: the tensors that it changes, which a recording leaves as they were.
        recorder: how it is recorded; None: it is not.
    """

    def __init__(
        self, function: Callable[..., Tensor], changes: Sequence[Tensor] = (), recorder: Recorder | None = None
    ) -> None:
        self._function: Callable[[], Callable[..., Tensor] | None] = (
            weakref.WeakMethod(function) if inspect.ismethod(function) else lambda: function
        )
        self._changes, self._recorder = list(changes), recorder
        self._recorded: dict[tuple[object, ...], _Recording] = {}

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The function's answer; of a recorded one, valid until the next call."""
        kind = tuple((one.shape, one.dtype) for one in inputs)
        if self._recorder is not None and kind not in self._recorded:
            self._record(kind, inputs, self._recorder)
        if self._recorder is None:
            return _called(self._function, inputs)
        recording = self._recorded[kind]
        for one, given in zip(recording.own, inputs, strict=True):
            one.copy_(given)
        recording.again()
        return recording.answer

    def _record(self, kind: tuple[object, ...], inputs: Sequence[Tensor], recorder: Recorder) -> None:
        if len(self._recorded) == _SHAPES:
            del self._recorded[next(iter(self._recorded))]
        derived = torch.is_grad_enabled()  # which leaving the inference mode would change
        # outside of whatever inference mode the first who asks is in, since later ones may be in none
        with torch.inference_mode(mode=False), torch.set_grad_enabled(derived):
            own = [one.detach().clone() for one in inputs]
            before = [one.detach().clone() for one in self._changes]
            function = self._function
            try:
                with torch.cuda.device_of(own[0]), constants_held() as constants:
                    again, answer = recorder(lambda: _called(function, own))
                self._recorded[kind] = _Recording(own, again, answer, constants)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self._recorder = None
                warnings.warn(f"{NOT_CAPTURED}, every kernel is started by itself: {error}", stacklevel=3)
            finally:
                with torch.no_grad():
                    for one, value in zip(self._changes, before, strict=True):
                        one.copy_(value)


@dataclass(frozen=True)
class _Recording:
    """What does some work again, with the memory that it reads and writes."""

    own: list[Tensor]  # the inputs
    again: Callable[[], object]
    answer: Tensor
    constants: list[Tensor]


def _called(function: Callable[[], Callable[..., Tensor] | None], inputs: Sequence[Tensor]) -> Tensor:
    found = function()
    if found is None:
        raise ReferenceError("the object whose method is replayed is gone: keep it as long as what is replayed of it")
    return found(*inputs)
