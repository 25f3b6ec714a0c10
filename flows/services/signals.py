"""Signals that end a run: turned into an exception, held back while something is taken down, kept
from Ray.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, raised in the main thread so that every `finally` runs as after Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into `Terminated`, a `KeyboardInterrupt`, until the block ends.

    A signal that is ignored stays ignored (`nohup`). Outside the main thread nothing can be
    handled, and nothing is.
    """

    def handler(number: int, _frame: FrameType | None) -> None:
        raise Terminated(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Hold signals back while something is taken down, so that a second Ctrl-C does not leave half
    of it behind.

    What is done inside is bounded in time. The first signal that came is delivered afterwards.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number, previous in before.items():
        if previous is not signal.SIG_IGN:
            signal.signal(number, lambda received, _frame: arrived.append(received))
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
        if arrived:
            signal.raise_signal(arrived[0])


@contextmanager
def own_signal_handlers() -> Iterator[None]:
    """Undo what `ray.init` does to SIGTERM.

    It installs a handler that calls `sys.exit(15)`, and its C++ part one that prints a stack trace.
    A signal that arrives meanwhile is handed to the handler that was in force.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as exit_:
        if exit_.code == signal.SIGTERM and callable(before):
            before(signal.SIGTERM, None)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
