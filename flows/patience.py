"""What Prefect's own loops do while its server is away: they ask again, and end no run.

Four things that Prefect does beside a flow are mended here. The first three give up for good when
they have asked in vain a few times, and then end the flow, or cannot cancel it any more; the last
one never does:

- a deployment of ours lets one run at a time begin, and its run renews that slot every few minutes.
  Prefect ends a run that cannot: while the server is away, or when it was started again and has
  forgotten the slot, as it has by default. Of two runs on one store the store's own lock refuses one,
  so here such a run goes on and says so;
- what asks whether a run is to be cancelled, or suspended, gives up after three failures;
- what serves schedules does too, and its runs end with it;
- what is queued for the server is sent when the process ends, event by event, each of which tries
  for seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from threading import Event
from types import ModuleType
from typing import TYPE_CHECKING, Any
from uuid import UUID

import anyio
from httpx import HTTPStatusError, TransportError
from prefect import get_run_logger
from prefect._internal import observers
from prefect.concurrency import _leases

from flows.services.queues import deliver_at_exit
from flows.services.server import DELIVERY_SECONDS

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

_without_slot: set[UUID] = set()


def outlast_the_server() -> None:
    """Have this process's Prefect end nothing because its server does not answer."""
    place: Any = _leases  # Prefect has no word for any of this
    place._renew_concurrency_lease_with_retries = _renewed  # noqa: SLF001 - as above
    ask_on(observers, lambda _: None)
    deliver_at_exit(DELIVERY_SECONDS)


def ask_on(room: ModuleType, say: Callable[[str], object]) -> None:
    """The loops that a module of Prefect's starts from now on ask until they are ended; `say` is given
    a sentence when the server stops answering, and one when it answers again.
    """

    async def loop(workload: Callable[[], Awaitable[None]], interval: float, **_: object) -> None:
        away = False
        while True:
            try:
                await workload()
            except (TransportError, HTTPStatusError) as error:
                if isinstance(error, HTTPStatusError) and error.response.status_code < 500:
                    raise
                if not away:
                    say(
                        f"Prefect's server does not answer ({type(error).__name__}): runs that are going on go on, "
                        "and no other begins until it does"
                    )
                away = True
            else:
                if away:
                    say("Prefect's server answers again")
                away = False
            await anyio.sleep(interval)

    async def ended_in_order(**given: Any) -> None:
        with suppress(asyncio.CancelledError):  # Prefect asks a task that it has cancelled for its error
            await loop(**given)

    place: Any = room
    place.critical_service_loop = ended_in_order


def _renewed(client: SyncPrefectClient, lease_id: UUID, lease_duration: float, stop_event: Event) -> bool:
    """Ask once; in the place of what raises after three attempts. False: the run has ended."""
    try:
        client.renew_concurrency_lease(lease_id=lease_id, lease_duration=lease_duration)
    except Exception as error:  # noqa: BLE001 - whatever Prefect cannot lend, the store's lock is here
        if lease_id not in _without_slot:
            _without_slot.add(lease_id)
            get_run_logger().warning(
                "Prefect's server does not renew this run's slot of its deployment (%s); the run goes on, and the "
                "store's lock keeps others out",
                type(error).__name__,
            )
    return not stop_event.is_set()
