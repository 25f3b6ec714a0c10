"""How far a store is: the newest snapshot, and the run that writes to it, by the same source as
`diffatlas status`.
"""

from __future__ import annotations

from tasks.explorer.opened import OpenedStore
from tasks.plain import Spec
from tasks.results.live import told
from tasks.results.status import status_of
from tasks.store import Store


def now(store: OpenedStore) -> Spec:
    """What the newest snapshot is, and how far a run is, if one has the store.

    While no run has it, nothing but the name of the snapshot is looked at.

    Returns:
        `snapshot`, `running`, and of a run that goes on `study`, `shards`, `shards_done`, `points`,
        `points_done`, `points_failed`, `seconds_left`, and `missing`, how many points of all
        studies are to be computed.

    Raises:
        StoreUnavailable: there is no store, or it cannot be read.
    """
    opened = Store.found(store.uri)
    snapshot, holder = opened.snapshot(), opened.holder()
    if holder is None or holder.gone:
        return {"snapshot": snapshot, "running": False}
    live = told(holder.token)
    found: Spec = {"snapshot": snapshot, "running": True}
    if live is None:
        studies = status_of(store.uri).studies
        return {**found, "missing": sum(study.missing for study in studies)}
    names = ("study", "shards", "shards_done", "points", "points_done", "points_failed", "seconds_left")
    return {**found, **{name: getattr(live, name) for name in names}}
