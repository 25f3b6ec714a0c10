"""Functions of tensors that a GPU replays: captured once as a CUDA graph, then started with a single
call, where one by one their hundreds of small kernels wait for the processor.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Work = Callable[[], Tensor]
Recorder = Callable[[Work], tuple[Callable[[], object], Tensor]]
"""Makes of some work what does it again, and the tensor in which it leaves its answer each time. The
work may be done any number of times before.
"""

_WARM_UPS = 3  # libraries choose their kernels and take their memory on first use, which no capture may hold
_SHAPES = 4  # each graph keeps its memory


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
        function: from tensors to one tensor.
        changes: the tensors that it changes, which a recording leaves as they were.
        recorder: how it is recorded; None: it is not.
    """

    def __init__(
        self, function: Callable[..., Tensor], changes: Sequence[Tensor] = (), recorder: Recorder | None = None
    ) -> None:
        self._function, self._changes, self._recorder = function, list(changes), recorder
        self._recorded: dict[tuple[object, ...], tuple[list[Tensor], Callable[[], object], Tensor]] = {}

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The function's answer; of a recorded one, valid until the next call."""
        kind = tuple((one.shape, one.dtype) for one in inputs)
        if self._recorder is not None and kind not in self._recorded:
            self._record(kind, inputs, self._recorder)
        if self._recorder is None:
            return self._function(*inputs)
        own, again, answer = self._recorded[kind]
        for one, given in zip(own, inputs, strict=True):
            one.copy_(given)
        again()
        return answer

    def _record(self, kind: tuple[object, ...], inputs: Sequence[Tensor], recorder: Recorder) -> None:
        own = [one.clone() for one in inputs]
        before = [one.detach().clone() for one in self._changes]
        if len(self._recorded) == _SHAPES:
            del self._recorded[next(iter(self._recorded))]
        try:
            self._recorded[kind] = (own, *recorder(lambda: self._function(*own)))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._recorder = None
            warnings.warn(f"not captured as a CUDA graph, every kernel is started by itself: {error}", stacklevel=3)
        finally:
            with torch.no_grad():
                for one, value in zip(self._changes, before, strict=True):
                    one.copy_(value)
