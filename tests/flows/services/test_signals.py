"""Signals that end a run become interrupts. Real signals, to this process."""

import signal

import pytest

from flows.services import Terminated, terminate_as_interrupt


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_termination_signal_is_an_interrupt(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Terminated) as raised, terminate_as_interrupt():
        signal.raise_signal(number)
    assert isinstance(raised.value, KeyboardInterrupt)
    assert raised.value.number == number
    assert signal.getsignal(number) is before
