"""Loops of somebody else's, stopped wherever they ask for something.

A library's sampler is a function that calls a denoiser until it is done. Members of a stack pass
levels of their own, and the function knows one set of levels: it is called once for each set, in a
thread of its own, and every call stops where it asks. When all have asked, all are answered: one
evaluation of the stack for each of theirs. Only one thread runs at a time.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch

Asking = Callable[[Any], Any]
"""Hands on what is asked for and returns the answer."""
Program = Callable[[Asking], None]


class _Dropped(BaseException):
    """Nobody waits for the rest: not an `Exception`, which somebody's code might catch."""


class _Ended:
    """A program has come to its end."""


class _Strand:
    """A program in a thread of its own."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._asked: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._answered: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        torch.set_num_threads(self._threads)  # a setting of each thread
        try:
            self._program(self._ask)
        except _Dropped:
            return
        except BaseException as error:  # noqa: BLE001 - raised again where the program is waited for
            self._asked.put(error)
        else:
            self._asked.put(_Ended())

    def _ask(self, request: Any) -> Any:
        self._asked.put(request)
        answer = self._answered.get()
        if isinstance(answer, _Dropped):
            raise answer
        return answer

    def begin(self) -> Any:
        self._thread.start()
        return self._next()

    def answer(self, answer: Any) -> Any:
        """Let the program go on; what it asks next, or that it has ended."""
        self._answered.put(answer)
        return self._next()

    def _next(self) -> Any:
        request = self._asked.get()
        if isinstance(request, BaseException):
            raise request
        return request

    def drop(self) -> None:
        if self._thread.ident is not None:
            self._answered.put(_Dropped())
            self._thread.join()


def in_step(programs: Sequence[Program]) -> Generator[list[Any], list[Any], None]:
    """What all programs ask at once, again and again; each list is answered by `send`.

    Raises:
        RuntimeError: one has ended while another still asks.
    """
    strands = [_Strand(program) for program in programs]
    try:
        asked = [strand.begin() for strand in strands]
        while not all(isinstance(one, _Ended) for one in asked):
            if len({type(one) for one in asked}) > 1:
                raise RuntimeError("members of one stack are not asked in step")
            answers = yield asked
            asked = [strand.answer(one) for strand, one in zip(strands, answers, strict=True)]
    finally:
        for strand in strands:
            strand.drop()
