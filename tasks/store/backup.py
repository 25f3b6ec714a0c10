"""A store copied as one consistent snapshot, whoever writes to it meanwhile; from a folder or a
bucket to another, or to a copy that was made before.

Icechunk never changes the chunks and manifests that it has written: only the branch and the tags
move, and `gc` writes a snapshot anew that has lost its parents. Branch and tags are read first, the
data after them, and written last: so all that they lead to is there, and until then there is no
store at the target, or the earlier one. What a run writes meanwhile is copied in part and led to by
nothing; `gc` lets go of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tasks.store.errors import Damaged, StoreUnavailable, speaking
from tasks.store.lease import is_probe
from tasks.store.lock import hold
from tasks.store.objects import Objects, objects_of
from tasks.store.repository import Store
from tasks.store.storage import Place
from tasks.store.whole import Read, check

_REFERENCES = "refs/"
_NEVER_CHANGED = ("chunks/", "manifests/")  # nearly all of the bytes
_AT_ONCE = 8


@dataclass(frozen=True)
class Copied:
    """What was copied, what was there already, and what the copy was found to hold."""

    files: int
    bytes: int
    files_before: int
    bytes_before: int
    held: Read


def copy(source: str, target: str, *, onward: bool = False) -> Copied:
    """Copy a store, with all its snapshots and tags, and read the copy.

    Nothing is locked at the source. A copy that is cut short is taken back: what was written is
    removed, and what was written over is as before.

    Args:
        source: a folder, or ``s3://bucket/prefix``.
        target: the same; nothing may be there,
        onward: or an earlier copy of this store, to which nobody has written since: then what it
            lacks is copied.

    Returns:
        How much was copied, and what the newest snapshot of the copy holds.

    Raises:
        StoreLocked: somebody else writes to the target.
        StoreUnavailable: there is no store at the source, something else is at the target, or one
            of them cannot be read or written.
        StoreDamaged: the copy is not what was written; it is taken back.
    """
    here, there = Place(source), Place(target)
    if here.address == there.address:
        raise StoreUnavailable(f"store {source}: this is the store itself; choose another place")
    store = Store.open(source)
    given, taken = objects_of(here), objects_of(there)
    with hold(there):
        _check_target(store, target, taken, onward=onward)  # with the lock: nobody else fills it from here on
        work = _Copy(source, given, target, taken)
        try:
            work.carry_out()
            with speaking(target, "read it again"):
                copied = Store.open(target)
                copied.history()
            return Copied(work.files, work.bytes, work.files_before, work.bytes_before, check(copied))
        except BaseException:
            with speaking(target, "take back what was copied"):
                work.take_back()
            raise


def _check_target(store: Store, target: str, taken: Objects, *, onward: bool) -> None:
    with speaking(target, "look at it"):
        found = [name for name in taken.sizes() if not is_probe(name)]
    if not found:
        return
    there = f"store {target}: something is there ({len(found)} files, {found[0]!r} among them)"
    if not onward or not Store.exists(target):
        raise StoreUnavailable(f"{there}; choose an empty or a new place")
    newest = Store.open(target).snapshot()
    if newest not in {entry["snapshot"] for entry in store.history()}:
        raise StoreUnavailable(
            f"{there}: a store, whose newest snapshot {newest} this one does not have, so it is no earlier copy; "
            "choose an empty or a new place"
        )


class _Copy:
    """Every file that the target lacks, references last."""

    def __init__(self, source: str, given: Objects, target: str, taken: Objects) -> None:
        self._source, self._given, self._target, self._taken = source, given, target, taken
        self._before: dict[str, bytes | None] = {}  # what was under a name that is written; known before it is
        self.files = self.bytes = self.files_before = self.bytes_before = 0

    def carry_out(self) -> None:
        with speaking(self._source, "list its files"):
            references = {name: self._given.read(name) for name in self._given.sizes(_REFERENCES)}
            there = {name: size for name, size in self._given.sizes().items() if _is_data(name)}
        with speaking(self._target, "list its files"):
            has = self._taken.sizes()
        same = [name for name, size in there.items() if name.startswith(_NEVER_CHANGED) and has.get(name) == size]
        self._found(same, (there[name] for name in same))
        for name in same:
            del there[name]
        with ThreadPoolExecutor(_AT_ONCE) as several:
            for name, size, written in _all(several, lambda name: self._copied(name, has), there):
                self._count(name, size, written=written)
        for name, data in references.items():
            if data is not None:
                self._count(name, len(data), written=self._put(name, data, has))
        for name in has:
            if name.startswith(_REFERENCES) and name not in references:
                self._before[name] = self._read_there(name)
                with speaking(self._target, f"remove {name}"):
                    self._taken.remove(name)

    def take_back(self) -> None:
        for name, data in reversed(self._before.items()):
            if data is None:
                self._taken.remove(name)
            else:
                self._taken.write(name, data)

    def _copied(self, name: str, has: dict[str, int]) -> tuple[str, int, bool]:
        with speaking(self._source, f"read {name}"):
            data = self._given.read(name)
        if data is None:  # let go of by a gc of this moment: nothing that is kept needs it
            return name, -1, False
        return name, len(data), self._put(name, data, has)

    def _put(self, name: str, data: bytes, has: dict[str, int]) -> bool:
        """Have bytes under a name; whether they were not there."""
        before = self._read_there(name) if name in has else None
        if before == data:
            return False
        self._before[name] = before
        with speaking(self._target, f"write {name}"):
            self._taken.write(name, data)
        again = self._read_there(name)
        if again is None or hashlib.sha256(again).digest() != hashlib.sha256(data).digest():
            raise Damaged(f"{name} is not what was written")
        return True

    def _read_there(self, name: str) -> bytes | None:
        with speaking(self._target, f"read {name} again"):
            return self._taken.read(name)

    def _count(self, name: str, size: int, *, written: bool) -> None:
        if written:
            self.files, self.bytes = self.files + 1, self.bytes + size
        elif size >= 0:
            self._found([name], [size])

    def _found(self, names: list[str], sizes: Iterable[int]) -> None:
        self.files_before += len(names)
        self.bytes_before += sum(sizes)


def _is_data(name: str) -> bool:
    return not name.startswith(_REFERENCES) and "#" not in name


def _all(
    several: ThreadPoolExecutor, what: Callable[[str], tuple[str, int, bool]], names: Iterable[str]
) -> list[tuple[str, int, bool]]:
    """The first error ends the rest."""
    try:
        return list(several.map(what, names))
    except BaseException:
        several.shutdown(cancel_futures=True)
        raise
