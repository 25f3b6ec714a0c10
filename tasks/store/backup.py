"""A store copied as one consistent snapshot, whoever writes to it meanwhile; from a folder or a
bucket to another.

Icechunk never changes the files of data that it has written: only the branch and the tags move.
They are read first, the data after them, and written last: so all that they lead to is there, and
until then there is no store at the target. What a run writes meanwhile is copied in part and led to
by nothing; `gc` lets go of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tasks.store.errors import Damaged, StoreUnavailable, speaking
from tasks.store.lock import hold
from tasks.store.objects import Objects, objects_of
from tasks.store.repository import Store
from tasks.store.storage import Place
from tasks.store.whole import Read, check

_REFERENCES = "refs/"
_AT_ONCE = 8


@dataclass(frozen=True)
class Copied:
    """What was copied, and what the copy was found to hold."""

    files: int
    bytes: int
    held: Read


def copy(source: str, target: str) -> Copied:
    """Copy a store, with all its snapshots and tags, to a place where nothing is, and read the copy.

    Nothing is locked at the source. A copy that is cut short is removed again.

    Args:
        source: a folder, or ``s3://bucket/prefix``.
        target: the same; nothing may be there.

    Returns:
        How much was copied, and what the newest snapshot of the copy holds.

    Raises:
        StoreUnavailable: there is no store at the source, something is at the target, or one of
            them cannot be read or written.
        StoreDamaged: the copy is not what was written; it is removed.
    """
    here, there = Place(source), Place(target)
    if here.address == there.address:
        raise StoreUnavailable(f"store {source}: this is the store itself; choose another place")
    Store.open(source)
    given, taken = objects_of(here), objects_of(there)
    with speaking(target, "look at it"):
        found = taken.names()
    if found:
        raise StoreUnavailable(
            f"store {target}: something is there ({len(found)} files, {found[0]!r} among them); choose an empty or a new place"
        )
    with hold(there):
        written: list[str] = []
        try:
            files, size = _copy(source, given, target, taken, written)
            with speaking(target, "read it again"):
                store = Store.open(target)
                store.history()
            return Copied(files, size, check(store))
        except BaseException:
            with speaking(target, "remove what was copied"):
                for name in reversed(written):
                    taken.remove(name)
            raise


def _copy(source: str, given: Objects, target: str, taken: Objects, written: list[str]) -> tuple[int, int]:
    """Every file, references last; how many, and their bytes. Names are in `written` before they are
    there.
    """

    def one(name: str, data: bytes | None) -> int:
        if data is None:  # let go of by a gc of this moment: nothing that is kept needs it
            return -1
        written.append(name)
        with speaking(target, f"write {name}"):
            taken.write(name, data)
        with speaking(target, f"read {name} again"):
            again = taken.read(name)
            if again is None or hashlib.sha256(again).digest() != hashlib.sha256(data).digest():
                raise Damaged(f"{name} is not what was written")
        return len(data)

    def fetched(name: str) -> int:
        with speaking(source, f"read {name}"):
            data = given.read(name)
        return one(name, data)

    with speaking(source, "list its files"):
        references = {name: given.read(name) for name in given.names(_REFERENCES)}
        names = [name for name in given.names() if not name.startswith(_REFERENCES) and "#" not in name]
    with ThreadPoolExecutor(_AT_ONCE) as several:
        sizes = _all(several, fetched, names)
    sizes += [one(name, data) for name, data in references.items()]
    copied = [size for size in sizes if size >= 0]
    return len(copied), sum(copied)


def _all(several: ThreadPoolExecutor, what: object, names: Iterable[str]) -> list[int]:
    """The first error ends the rest."""
    try:
        return list(several.map(what, names))  # type: ignore[arg-type]
    except BaseException:
        several.shutdown(cancel_futures=True)
        raise
