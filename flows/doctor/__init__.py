"""What a run needs, looked at one after the other: each problem with what mends it.

- `findings`: what was found, as values;
- `machine`: packages, GPUs, disks, what killed runs have left;
- `stores`: a store, whether it can be written, and what its server promises;
- `services`: the Prefect server and the Ray cluster.
"""

from __future__ import annotations

from collections.abc import Iterator

from flows.doctor.findings import Finding


def examine(store: str, ray: str | None, *, deep: bool = False) -> Iterator[Finding]:
    """All that there is to say, in the order in which a run would meet it.

    Args:
        store: a folder, or ``s3://bucket/prefix``.
        ray: the address of a cluster; None: that of `RAY_ADDRESS`, if there is one.
        deep: read samples, trajectories and weights of the store too, not its tables alone.
    """
    from flows.doctor import machine, services, stores

    yield from machine.packages()
    yield from machine.devices()
    yield from machine.left_behind()
    yield from machine.disks(store)
    yield from stores.store(store, deep=deep)
    yield from services.prefect()
    yield from services.ray(ray)


__all__ = ["Finding", "examine"]
