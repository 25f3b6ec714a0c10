"""Prefect's pages of a run, filled as long as its server answers: work does not depend on it.

Everything that the process of a run asks of Prefect's server goes through one client, that of the
flow. Prefect's own client tries again for a minute with each request, and the engine of the flow
makes several where one has failed; here the minute is counted once, from the first request without
an answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError

from flows.events import Hindered
from flows.services import ServiceUnavailable

if TYPE_CHECKING:
    import httpx

    from flows.events import Emit
    from flows.request import Outcome

PATIENCE_SECONDS = 60.0
"""How long a run waits for a server that does not answer, all its requests together."""

BRIEF_SECONDS = 5.0
"""How long one attempt may take while there is work to do."""

AGAIN_SECONDS = 15.0
"""After this long, a server that did not answer is asked once more."""

_hurried: list[None] = []
"""One entry for each open block of `briefly`."""


class ServerGone(ServiceUnavailable):
    """Prefect's server stopped answering during a run and stayed away.

    `ended` is what the flow had come to by then: its outcome, the error that ended it, or None.
    """

    kind = "server-gone"

    def __init__(self, text: str, ended: Outcome | BaseException | None) -> None:
        super().__init__(text)
        self.ended = ended

    def __reduce__(self) -> tuple[type[ServerGone], tuple[str, Outcome | BaseException | None]]:
        return type(self), (str(self), self.ended)


@contextmanager
def briefly() -> Iterator[None]:
    """Try each request once within the block, and not for long."""
    _hurried.append(None)
    try:
        yield
    finally:
        _hurried.pop()


class Pages:
    """What is to be shown on Prefect's pages, in order, until it is told. Made within a flow."""

    def __init__(self) -> None:
        client = get_client(sync_client=True)
        self._url = str(client.api_url)
        asked: Any = client._client  # noqa: SLF001 - Prefect has no word for the hooks of its client
        hooks = asked.event_hooks
        asked.event_hooks = {
            "request": [*hooks["request"], self._before_request],
            "response": [*hooks["response"], self._after_answer],
        }
        self.ended: Outcome | BaseException | None = None
        self.untold = ""  # which part the pages lack, in a sentence
        self._emit: Emit | None = None
        self._pending: dict[str, Callable[[], object]] = {}
        self._unanswered: float | None = None  # since when
        self._last_try = self._not_before = 0.0
        self._attempts = 0  # since the last answer, or the last call
        self._hurried = False

    def warn_with(self, emit: Emit) -> None:
        """Say with `emit`, once, that the server does not answer."""
        self._emit = emit

    def tell(self, what: str, call: Callable[[], object]) -> None:
        """Have `call` tell the server something, now or later; it takes the place of what was to be
        told of the same `what`.
        """
        self._pending[what] = call
        if time.monotonic() >= self._not_before:
            with briefly():
                self._tell_pending()

    def end_with(self, ended: Outcome | BaseException) -> None:
        """Keep what the flow comes to. After an interruption nothing is tried twice any more."""
        self.ended = ended
        self._hurried = isinstance(ended, BaseException) and not isinstance(ended, Exception)

    def close(self) -> None:
        """Tell the rest, as patiently as there is patience left."""
        self._tell_pending()
        if self._pending:
            self.untold = self._lacking()

    def _tell_pending(self) -> None:
        for what, call in list(self._pending.items()):
            self._attempts = 0
            try:
                call()
            except Exception as error:  # noqa: BLE001 - whatever Prefect cannot show, the store has
                self._warn(error)
                if not (isinstance(error, PrefectHTTPStatusError) and error.response.status_code < 500):
                    self._not_before = time.monotonic() + AGAIN_SECONDS
                    return
            del self._pending[what]

    def _warn(self, error: Exception) -> None:
        if self._emit is not None:
            lines = str(error).splitlines() or [""]
            self._emit(
                Hindered(
                    f"Prefect's server at {self._url} does not take what it is told ({type(error).__name__}: {lines[0]}); "
                    "work goes on, and its pages may lack some of it"
                )
            )
            self._emit = None

    def _before_request(self, request: httpx.Request) -> None:
        now, brief = time.monotonic(), bool(_hurried) or self._hurried
        waited = 0.0 if self._unanswered is None else now - self._unanswered
        out_of_patience = waited > PATIENCE_SECONDS and now - self._last_try < AGAIN_SECONDS
        if (self._unanswered is not None and brief and self._attempts) or out_of_patience:
            raise ServerGone(f"Prefect's server at {self._url} has not answered for {waited:.0f} s", self.ended)
        self._attempts += 1
        self._last_try = now
        self._unanswered = now if self._unanswered is None else self._unanswered
        limit = BRIEF_SECONDS if brief else max(PATIENCE_SECONDS - waited, BRIEF_SECONDS)
        allowed = request.extensions.get("timeout", {})
        request.extensions = {
            **request.extensions,
            "timeout": {kind: limit if seconds is None else min(seconds, limit) for kind, seconds in allowed.items()},
        }

    def _after_answer(self, _: httpx.Response) -> None:
        self._unanswered, self._attempts = None, 0

    def _lacking(self) -> str:
        return lacking(self._url)


def lacking(url: str) -> str:
    """That a server's pages are not whole."""
    return f"Prefect's server at {url} stopped answering: its pages lack the rest of this run, the store has all of it"
