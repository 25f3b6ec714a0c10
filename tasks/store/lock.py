"""One coordinator per store: the kernel's lock beside a folder, a lease object beside a prefix of
object storage.

Both have a note that names the holder. The kernel's lock goes with its process, so whoever gets it
knows that the holder before is gone, except on file systems that several hosts share and may lock
each for itself; a lease outlives its holder, who can be known gone on its own host only. What
cannot be known needs `force`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from tasks.failpoints import failpoint
from tasks.store.errors import StoreLocked, StoreUnavailable, speaking
from tasks.store.holder import Holder
from tasks.store.lease import Lease
from tasks.store.storage import Place

_SHARED = (
    "nfs",
    "cifs",
    "smb",
    "ceph",
    "gluster",
    "lustre",
    "beegfs",
    "gpfs",
    "afs",
    "9p",
    "virtiofs",
    "fuse",
    "ocfs",
    "gfs",
)
_FORCE = "--force-unlock takes over"


@dataclass(frozen=True)
class Held:
    """The right to write, while it lasts. `before` tells of a holder that ended without giving it
    back.
    """

    place: Place
    me: Holder
    before: str | None = None
    lease: Lease | None = None

    def check(self) -> None:
        """Raise `StoreLocked` if somebody has taken the store over by force."""
        if self.lease is not None:
            with speaking(self.place.uri, "look at its lease"):
                now, _ = self.lease.read()
        else:
            now = (
                _noted(_note(self.place)) or self.me
            )  # a note that somebody deleted takes nothing: the lock is the kernel's
        if now is None or now.token != self.me.token:
            who = f"by {now}" if now else "and nobody holds it now"
            raise StoreLocked(
                f"store {self.place.uri}: this run's lock was taken over {who}; what is committed stays, the rest is not written"
            )


def refuse_read_only(place: Place) -> None:
    """Raises `StoreUnavailable` if nobody may write to the place."""
    if place.read_only:
        raise StoreUnavailable(
            f"store {place.uri} holds answers that came with diffatlas and are only read; copy them to a folder of your own "
            f"(diffatlas backup {place.uri} FOLDER), or choose another store"
        )


@contextlib.contextmanager
def hold(place: Place, *, force: bool = False, can_wait: bool = False) -> Iterator[Held]:
    """The lock of a store, as long as the context lasts.

    Args:
        place: where the store is.
        force: take over the lock of a holder who cannot be known gone.
        can_wait: whether who asks can be told to wait, which the refusal then says.

    Raises:
        StoreLocked: another coordinator has the lock.
        StoreUnavailable: the place cannot be locked or is only read, or its server does not keep
            what a store rests on.
    """
    refuse_read_only(place)
    advice = f"wait for it{' (--wait MINUTES; wait of an entry in a list of schedules)' if can_wait else ''}, or end it"
    take = _hold_folder if place.folder is not None else _hold_lease
    with take(place, Holder.me(), advice, force=force) as held:
        failpoint("lock.taken")
        yield held
    failpoint("lock.released")


def holder_of(place: Place) -> Holder | None:
    """Whose note or lease says that it holds the store; nothing is locked. Whether it still does is
    known of processes of this host only (`Holder.gone`).

    Raises:
        StoreUnavailable: the server cannot be asked.
    """
    if place.folder is not None:
        return _noted(_note(place))
    with speaking(place.uri, "look at its lease"):
        return Lease.of(place).read()[0]


def _note(place: Place) -> Path:
    assert place.folder is not None  # noqa: S101 - for the type checker; callers ask for folders only
    return place.folder.with_name(place.folder.name + ".coordinator.json")


def _noted(note: Path) -> Holder | None:
    try:
        return Holder.parse(note.read_bytes())
    except OSError:
        return None


def _ended_early(holder: Holder) -> str:
    return f"the run before ({holder}) ended without giving the lock back; what it committed is here, what it had in flight is not"


@contextlib.contextmanager
def _hold_folder(place: Place, me: Holder, advice: str, *, force: bool) -> Iterator[Held]:
    assert place.folder is not None  # noqa: S101
    note, path = _note(place), place.folder.with_name(place.folder.name + ".lock")
    with speaking(place.uri, "lock it"):
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _may_replace(place, place.folder, _noted(note), advice, force=force)
            path.unlink(missing_ok=True)  # whoever held it holds a file without a name
            lock = FileLock(path)
            lock.acquire(timeout=0)
    try:
        before = _noted(note)
        if before is not None and not force and not before.here and shared_between_hosts(place.folder):
            raise StoreLocked(
                f"store {place.uri}: its note names {before}; this is another host on a file system that hosts share, whose "
                f"locks need not reach here: see there whether it runs; if it does not, {_FORCE}"
            )
        with speaking(place.uri, "write beside it"):
            note.write_text(me.note())
        yield Held(place, me, _ended_early(before) if before else None)
    finally:
        now = _noted(note)
        if now is not None and now.token == me.token:
            note.unlink(missing_ok=True)
        lock.release()


def _may_replace(place: Place, folder: Path, holder: Holder | None, advice: str, *, force: bool) -> None:
    """Raise `StoreLocked` unless a lock that somebody has may be taken away: one of another host,
    and by force.
    """
    far = holder is not None and not holder.here and shared_between_hosts(folder)
    if not (far and force):
        who = f"another run ({holder})" if holder is not None and not holder.gone else "another run"
        more = f"; if it is sure to be gone, {_FORCE}" if far else ""
        raise StoreLocked(f"store {place.uri}: in use by {who}; {advice}{more}")


def shared_between_hosts(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> bool:
    """Whether a folder lies on a file system that several hosts share, as far as its type tells;
    unknown counts as shared.
    """
    try:
        lines = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return True
    points = [(point.encode().decode("unicode_escape"), kind) for _, point, kind, *_ in lines]
    under = [(len(point), kind) for point, kind in points if folder.is_relative_to(point)]
    kind = max(under, default=(0, "unknown"), key=lambda found: found[0])[1]
    return kind == "unknown" or kind.startswith(_SHARED)


@contextlib.contextmanager
def _hold_lease(place: Place, me: Holder, advice: str, *, force: bool) -> Iterator[Held]:
    with speaking(place.uri, "take its lease"):
        lease = Lease.of(place)
        if ignored := lease.probe(place.prefix).broken_promises():
            raise StoreUnavailable(
                f"store {place.uri}: its server ignores {' and '.join(ignored)} of a put, without which a commit can be lost "
                "without a word; use a server that honours conditional puts"
            )
        before = None
        if not lease.take(me):
            before, version = lease.read()
            if version is not None and not force and (before is None or not before.gone):
                raise StoreLocked(
                    f"store {place.uri}: in use by another run ({before or 'its lease cannot be read'}); {advice}; "
                    f"if it is sure to be gone, {_FORCE}"
                )
            if not lease.take(me, instead_of=version):
                raise StoreLocked(f"store {place.uri}: another run took the lease at the same moment; try again")
    try:
        yield Held(place, me, _ended_early(before) if before else None, lease)
    finally:
        with contextlib.suppress(OSError):  # a lease that stays is recognised by the next coordinator
            lease.give_back(me)
