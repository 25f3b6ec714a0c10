"""Snapshots of a store: their list, the many ways to name one, tags, and letting go of what nobody
needs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypedDict

from tasks.failpoints import failpoint
from tasks.store.errors import StoreDamaged, WrongReference, in_brief
from tasks.store.storage import MAIN, Repository, Snapshot

YOUNGEST = timedelta(hours=1)
"""How old a snapshot is at least before `collect` lets go of it: a reader that opened it may go on
as long as this.
"""

_ID = re.compile(r"[0-9A-HJKMNP-TV-Z]{20}")
_PREFIX = re.compile(r"[0-9A-HJKMNP-TV-Z]{4,19}")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_EXPECTED_TAG = "expected 1 to 64 letters, digits, '_', '.' and '-' that begin with a letter or a digit"


class HistoryEntry(TypedDict):
    """What is known of a snapshot."""

    snapshot: str
    time: str
    message: str
    metadata: dict[str, object]
    tags: list[str]


def entries(repository: Repository) -> list[HistoryEntry]:
    """Snapshots, newest first: id, time, message, metadata, tags. Tagged ones are listed also when
    the history has let go of them.
    """
    named: dict[str, list[str]] = {}
    for tag, snapshot in repository.tags().items():
        named.setdefault(snapshot, []).append(tag)
    snapshots = list(repository.ancestry())
    apart = [repository.information(snapshot) for snapshot in sorted(named.keys() - {info.id for info in snapshots})]
    snapshots = sorted([*snapshots, *apart], key=lambda info: info.time, reverse=True) if apart else snapshots
    return [_entry(info, named.get(info.id, [])) for info in snapshots]


def _entry(info: Snapshot, tags: list[str]) -> HistoryEntry:
    return {
        "snapshot": info.id,
        "time": info.time.isoformat(timespec="seconds"),
        "message": info.message,
        "metadata": dict(info.metadata),
        "tags": tags,
    }


def reference(uri: str, repository: Repository, as_of: str | None) -> dict[str, str]:
    """The snapshot that `as_of` names: a tag, a snapshot's id or at least four of its first
    letters, or a time.

    In this order; None is the newest.

    Raises:
        WrongReference: nothing, or more than one snapshot, has that name.
    """
    if as_of is None:
        return {"branch": MAIN}
    tags = repository.tags()
    if as_of in tags:
        return {"snapshot_id": tags[as_of]}
    if _ID.fullmatch(as_of) and repository.knows(as_of):
        return {"snapshot_id": as_of}
    time = _time(as_of)
    if time is not None:
        return {"snapshot_id": _at(uri, repository, time)}
    if _PREFIX.fullmatch(as_of):
        found = [info.id for info in repository.ancestry() if info.id.startswith(as_of)]
        if len(found) == 1:
            return {"snapshot_id": found[0]}
        if found:
            raise WrongReference(f"store {uri}: {as_of!r} begins {len(found)} snapshots: {', '.join(found[:5])}")
    raise WrongReference(
        f"store {uri}: {as_of!r} is neither a snapshot, a tag nor a time such as 2026-03-03T12:00 (diffatlas history lists them)"
    )


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)  # a time without zone is local
    except (ValueError, OverflowError):
        return None


def _at(uri: str, repository: Repository, time: datetime) -> str:
    oldest = time
    for info in repository.ancestry():
        if info.time <= time:
            return info.id
        oldest = info.time
    raise WrongReference(f"store {uri}: nothing is older than {oldest.isoformat(timespec='seconds')}")


def add_tag(uri: str, repository: Repository, name: str, snapshot: str | None) -> str:
    """Name a snapshot (any reference; the newest if None); its id.

    Raises:
        WrongReference: the name is no name for a tag or is taken, or there is no such snapshot.
    """
    if not _TAG.fullmatch(name):
        raise WrongReference(f"tag {name!r}: {_EXPECTED_TAG}")
    if _time(name) is not None or _ID.fullmatch(name):
        kind = "a snapshot's id" if _ID.fullmatch(name) else "a time"
        raise WrongReference(f"tag {name!r}: this reads as {kind}, and --as-of could not tell; choose another name")
    tags = repository.tags()
    if name in tags:
        raise WrongReference(
            f"store {uri}: there is a tag {name!r} already, of snapshot {tags[name]}; tags do not move: choose another name"
        )
    where = reference(uri, repository, snapshot)
    found = where.get("snapshot_id") or repository.tip()
    try:
        repository.add_tag(name, found)
    except Exception as error:
        if "already exists" in in_brief(error):
            raise WrongReference(
                f"store {uri}: the name {name!r} belonged to a tag that was deleted, and a name is used once; choose another"
            ) from error
        raise
    return found


def remove_tag(uri: str, repository: Repository, name: str) -> None:
    """Take a name away.

    Raises:
        WrongReference: there is no such tag.
    """
    tags = repository.tags()
    if name not in tags:
        raise WrongReference(f"store {uri}: there is no tag {name!r}; there are: {', '.join(tags) or 'none'}")
    repository.remove_tag(name)


@dataclass(frozen=True)
class Removed:
    """What `collect` removed, or would remove: snapshots of the history, and files of which nothing
    is needed.

    Of a dry run `files` and `bytes` count what no snapshot needs already; what only the snapshots
    to expire need is known when they have expired.
    """

    snapshots: tuple[str, ...]
    files: int
    bytes: int
    dry_run: bool


def collect(
    uri: str, repository: Repository, older_than: datetime, *, dry_run: bool, youngest: timedelta = YOUNGEST
) -> Removed:
    """Let go of snapshots that were not the newest any more at a time, but for tagged ones, and of
    files that nobody needs.

    So the state of that time stays, whenever it was written: who opened the newest snapshot since
    then can go on. Called by the only coordinator, so no transaction is under way.

    Raises:
        WrongReference: the time is less than `youngest` ago, or has no zone.
    """
    if older_than.tzinfo is None:
        raise WrongReference(f"gc: the time {older_than.isoformat()} has no zone")
    latest = datetime.now(UTC) - youngest
    if older_than > latest:
        raise WrongReference(
            f"store {uri}: gc may not touch what is younger than {_hours(youngest)}, since someone may be reading it; "
            f"found {older_than.isoformat(timespec='seconds')}, expected {latest.isoformat(timespec='seconds')} or before"
        )
    kept = {repository.tip(), *repository.tags().values()}
    history = list(repository.ancestry())
    current = max((info.time for info in history if info.time < older_than), default=older_than)
    expiring = tuple(info.id for info in history[:-1] if info.time < current and info.id not in kept)
    if dry_run:
        found = repository.collect(older_than, dry_run=True)
        return Removed(expiring, found.files, found.bytes, dry_run=True)
    failpoint("gc.before-expire")
    if expiring:
        repository.expire(current)
        remaining = {info.id for info in repository.ancestry()}
        if repository.tip() not in remaining:
            raise StoreDamaged(f"store {uri}: the newest snapshot is not in the history after gc")
        expiring = tuple(snapshot for snapshot in expiring if snapshot not in remaining)
    failpoint("gc.before-collect")
    found = repository.collect(older_than, dry_run=False)
    failpoint("gc.after-collect")
    return Removed(expiring, found.files, found.bytes, dry_run=False)


def _hours(span: timedelta) -> str:
    hours = span.total_seconds() / 3600
    return "an hour" if hours == 1 else f"{hours:g} hours"
