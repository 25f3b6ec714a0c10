"""From an address to an Icechunk repository: a folder, ``s3://bucket/prefix``, or ``atlas:``, the
answers that came with the package.

Everything that differs between versions of Icechunk is in this file; the rest of the package knows
`Repository` only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from urllib.parse import urlparse

import icechunk
import zarr

from tasks.store.errors import Damaged, StoreDamaged, StoreUnavailable, WrongReference

MAIN = "main"
ATLAS = "atlas:"
"""Where the answers are that ship: a store to be read, never to be written."""

_SHIPPED = Path(__file__).resolve().parents[2] / "deployments" / "atlas"
_CHUNKS_PER_MANIFEST = 1024  # a commit rewrites the last manifest of an array: bounded, however long the array


@dataclass(frozen=True)
class Place:
    """Where a store is.

    Raises:
        WrongReference: no store can have that address.
    """

    uri: str

    def __post_init__(self) -> None:
        if not self.uri.strip():
            raise WrongReference("store: found an empty name, expected a folder or s3://bucket/prefix")
        if "\0" in self.uri:
            raise WrongReference(f"store {self.uri!r}: found a zero byte, expected a folder or s3://bucket/prefix")
        if "@" in urlparse(self.uri).netloc:  # before anything repeats the address
            raise WrongReference(
                "store: found a user name or a password in the address, which would be stored and shown; expected "
                "s3://bucket/prefix. Credentials come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), "
                "the files in ~/.aws, or the machine's role"
            )
        if self.uri.startswith("s3://"):
            if not self.bucket or not self.prefix:
                raise WrongReference(f"store {self.uri}: expected s3://bucket/prefix")
        elif "://" in self.uri:
            raise WrongReference(f"store {self.uri}: expected a folder or s3://bucket/prefix")

    @cached_property
    def folder(self) -> Path | None:
        """The folder, or None on object storage."""
        if self.read_only:
            return _SHIPPED
        return None if "://" in self.uri else Path(self.uri).resolve()

    @property
    def read_only(self) -> bool:
        """Whether nobody may write there."""
        return self.uri == ATLAS

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return urlparse(self.uri).netloc

    @property
    def prefix(self) -> str:
        """The prefix within the bucket, without slashes around it."""
        return urlparse(self.uri).path.strip("/")

    @property
    def endpoint(self) -> str | None:
        """The address of an S3 server other than Amazon's."""
        return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")

    @property
    def address(self) -> str:
        """The same place from wherever it is asked: the whole path of a folder, or server, bucket
        and prefix.
        """
        return f"{self.endpoint or 's3:'}//{self.bucket}/{self.prefix}" if self.folder is None else str(self.folder)

    def storage(self) -> icechunk.Storage:
        """The same place, as Icechunk calls it."""
        if self.folder is not None:
            return icechunk.local_filesystem_storage(str(self.folder))
        return icechunk.s3_storage(
            bucket=self.bucket,
            prefix=self.prefix,
            from_env=True,
            region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
            endpoint_url=self.endpoint,
            allow_http=bool(self.endpoint and self.endpoint.startswith("http://")),
            force_path_style=self.endpoint is not None,
        )


@dataclass(frozen=True)
class Snapshot:
    """One commit: its id, when it was written, and what was said about it."""

    id: str
    time: datetime
    message: str
    metadata: Mapping[str, object]


@dataclass(frozen=True)
class Collected:
    """How many files garbage collection removed, or would remove, and their size in bytes."""

    files: int
    bytes: int


class Conflict(Exception):
    """Somebody else committed in between."""


def _config() -> icechunk.RepositoryConfig:
    split = icechunk.ManifestSplittingConfig.from_dict(
        {icechunk.ManifestSplitCondition.AnyArray(): {icechunk.ManifestSplitDimCondition.Axis(0): _CHUNKS_PER_MANIFEST}}
    )
    config = icechunk.RepositoryConfig.default()
    config.manifest = icechunk.ManifestConfig(splitting=split)
    return config


def _snapshot_of(info: icechunk.SnapshotInfo) -> Snapshot:
    metadata = dict(sorted((info.metadata or {}).items()))  # they come in another order each time
    return Snapshot(str(info.id), info.written_at.astimezone(UTC), info.message, metadata)


class Repository:
    """An Icechunk repository and the little of it that a store needs."""

    def __init__(self, raw: icechunk.Repository) -> None:
        self._raw = raw

    @staticmethod
    def exists(place: Place) -> bool:
        """Whether there is a repository.

        Raises:
            StoreUnavailable: a folder holds data that no branch leads to.
        """
        if place.folder is not None:
            if not place.folder.exists():
                return False
            if not place.folder.is_dir():
                raise StoreUnavailable(f"store {place.uri}: this is a file; expected a folder")
        if icechunk.Repository.exists(place.storage()):
            return True
        if place.folder is not None and any((place.folder / "manifests").glob("*")):
            raise StoreDamaged(
                f"store {place.uri}: the branch that leads to its data is missing (refs/branch.{MAIN}); the store is damaged: "
                "put the file back, or use another store"
            )
        return False

    @classmethod
    def open(cls, place: Place) -> Repository:
        """The repository that is there."""
        return cls(icechunk.Repository.open(place.storage(), config=_config()))

    @classmethod
    def create(cls, place: Place) -> Repository:
        """A new one.

        A server may take what is sent, lose its answer, and refuse when it is sent again: then there
        is one, and it is opened. Who creates has the lock: nobody else makes one meanwhile.
        """
        try:
            return cls(icechunk.Repository.create(place.storage(), config=_config()))
        except icechunk.IcechunkError:
            if not cls.exists(place):
                raise
            return cls.open(place)

    def reading(self, reference: Mapping[str, str]) -> tuple[zarr.Group, Snapshot]:
        """The root group of a snapshot, read-only, and what is said of the snapshot."""
        session = self._raw.readonly_session(branch=reference.get("branch"), snapshot_id=reference.get("snapshot_id"))
        return zarr.open_group(session.store, mode="r"), self._sound(str(session.snapshot_id))

    def look(self, reference: Mapping[str, str]) -> Snapshot:
        """What is said of a snapshot."""
        return self._sound(reference.get("snapshot_id") or self.tip())

    def begin(self) -> tuple[icechunk.Session, zarr.Group, str]:
        """A transaction: its session, its root group, and the snapshot that it builds on."""
        session = self._raw.writable_session(MAIN)
        return session, zarr.open_group(session.store, mode="a"), self._sound(str(session.snapshot_id)).id

    def _sound(self, snapshot: str) -> Snapshot:
        """What is said of the snapshot of that id. Raises `Damaged` if its file holds another one,
        which Icechunk does not mind.
        """
        found = self.information(snapshot)
        if found.id != snapshot:
            raise Damaged(f"the file of snapshot {snapshot} holds snapshot {found.id}")
        return found

    def commit(self, session: icechunk.Session, message: str, metadata: Mapping[str, object]) -> str:
        """End a transaction; the new snapshot's id.

        Raises:
            Conflict: the branch has moved since it began.
        """
        base = str(session.snapshot_id)
        try:
            return str(session.commit(message, metadata=dict(metadata)))
        except icechunk.ConflictError as error:
            if (arrived := self.arrived(base, message, metadata)) is not None:
                return arrived
            raise Conflict(str(error).splitlines()[0]) from error

    def arrived(self, base: str, message: str, metadata: Mapping[str, object]) -> str | None:
        """The id of a commit that was refused and is there all the same: a server took it, lost its
        answer, and refused when it was sent again.
        """
        tip = self._raw.lookup_snapshot(self.tip())
        ours = (tip.parent_id, tip.message, tip.metadata or {}) == (base, message, dict(metadata))
        return str(tip.id) if ours else None

    def tip(self) -> str:
        """The id of the newest snapshot."""
        return str(self._raw.lookup_branch(MAIN))

    def empty(self) -> bool:
        """Whether nothing was ever committed: its only snapshot is the one it was made with."""
        first = next(iter(self._raw.ancestry(branch=MAIN)))
        return first.parent_id is None

    def ancestry(self) -> Iterator[Snapshot]:
        """Snapshots, newest first, read one after the other."""
        return map(_snapshot_of, self._raw.ancestry(branch=MAIN))

    def information(self, snapshot: str) -> Snapshot:
        """What is said of the snapshot of that id, in the history or out of it."""
        return _snapshot_of(self._raw.lookup_snapshot(snapshot))

    def knows(self, snapshot: str) -> bool:
        """Whether there is a snapshot of that id."""
        try:
            self._raw.lookup_snapshot(snapshot)
        except (icechunk.IcechunkError, ValueError):
            return False
        return True

    def tags(self) -> dict[str, str]:
        """Tags and the ids of their snapshots."""
        return {str(name): str(self._raw.lookup_tag(name)) for name in sorted(self._raw.list_tags())}

    def add_tag(self, name: str, snapshot: str) -> None:
        """Name a snapshot. A name is used once: also a removed one stays taken."""
        try:
            self._raw.create_tag(name, snapshot)
        except icechunk.IcechunkError:
            if self.tags().get(name) != snapshot:  # else it was taken, and sent again as its answer was lost
                raise

    def remove_tag(self, name: str) -> None:
        """Take a name away; the snapshot stays."""
        self._raw.delete_tag(name)

    def expire(self, before: datetime) -> set[str]:
        """Take snapshots written before a time out of the history; tags and the newest stay. Their
        ids.
        """
        return {str(snapshot) for snapshot in self._raw.expire_snapshots(before)}

    def collect(self, before: datetime, *, dry_run: bool) -> Collected:
        """Delete files written before a time that no snapshot needs."""
        summary = self._raw.garbage_collect(before, dry_run=dry_run)
        files = summary.chunks_deleted + summary.manifests_deleted + summary.snapshots_deleted
        files += summary.attributes_deleted + summary.transaction_logs_deleted
        return Collected(int(files), int(summary.bytes_deleted))
