"""`Store`: one repository opened for reading, and from there the right to write."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime, timedelta

import zarr

from tasks.failpoints import failpoint
from tasks.store import history
from tasks.store.errors import StoreMissing, StoreMoved, StoreUnavailable, reading_stored, speaking
from tasks.store.history import YOUNGEST, Removed
from tasks.store.holder import Holder
from tasks.store.lock import hold, holder_of, refuse_read_only
from tasks.store.migration import Derive, migrate
from tasks.store.schema import SCHEMA, schema_of
from tasks.store.storage import ATLAS, Conflict, Place, Repository, Snapshot
from tasks.store.writing import Coordinator, lay_out

_OF_ICECHUNK = {"refs", "snapshots", "transactions", "manifests", "chunks", "attributes", "config.yaml", "repo"}


class Store:
    """A repository opened for reading. `coordinate` gives the right to write."""

    def __init__(self, uri: str, repository: Repository) -> None:
        self.uri = uri
        self._repository = repository

    @classmethod
    def exists(cls, uri: str) -> bool:
        """Whether there is a store at `uri`; one whose creation was cut short is none yet."""
        place = Place(uri)
        with reading_stored(uri, "look for a store"):
            return Repository.exists(place) and not Repository.open(place).empty()

    @classmethod
    def open(cls, uri: str) -> Store:
        """The store at `uri`.

        Raises:
            StoreUnavailable: there is no store, or its schema is not one of ours.
        """
        store = cls.found(uri)
        store.check()
        return store

    @classmethod
    def found(cls, uri: str) -> Store:
        """The store at `uri`, of which nothing is read yet: `check` has to be called before what it
        holds is.

        Raises:
            StoreUnavailable: there is no store.
        """
        if not cls.exists(uri):
            meant = f"; the answers that came with diffatlas are {ATLAS!r}" if uri == ATLAS.rstrip(":") else ""
            raise StoreMissing(
                f"store {uri}: there is no store here (diffatlas run STUDY --store {uri} makes one{meant})"
            )
        with reading_stored(uri, "open it"):
            return cls(uri, Repository.open(Place(uri)))

    def check(self) -> None:
        """Whether this version can read the newest snapshot.

        Raises:
            StoreUnavailable: its schema is not one of ours.
        """
        with reading_stored(self.uri, "open it"):
            schema_of(self.uri, self.group())

    @property
    def address(self) -> str:
        """The store's address, the same from wherever it is asked."""
        return Place(self.uri).address

    @property
    def distant(self) -> bool:
        """Whether it lies on object storage, which may not answer for a while."""
        return Place(self.uri).folder is None

    @staticmethod
    def check_writable(uri: str) -> None:
        """Nothing, where somebody may write.

        Raises:
            StoreUnavailable: the answers there are only read.
        """
        refuse_read_only(Place(uri))

    @classmethod
    def create(cls, uri: str) -> Store:
        """A new, empty store.

        Raises:
            StoreUnavailable: none can be made there.
        """
        place = Place(uri)
        refuse_read_only(place)
        with speaking(uri, "create it"):
            _make_room(place)
        with hold(place), speaking(uri, "create it"):
            repository = Repository.open(place) if Repository.exists(place) else Repository.create(place)
            if not repository.empty():
                raise StoreUnavailable(f"store {uri}: there is a store already; open it")
            session, root, _ = repository.begin()
            lay_out(root)
            failpoint("create.before-commit")
            repository.commit(session, "create the store", {"schema": str(SCHEMA)})
            failpoint("create.after-commit")
        return cls(uri, repository)

    def group(self, as_of: str | None = None) -> zarr.Group:
        """The root group of a snapshot (the newest unless `as_of` names one), read-only;
        `tasks.store.reading` reads it.
        """
        return self.opened(as_of)[0]

    def snapshot(self, as_of: str | None = None) -> str:
        """The id of a snapshot: of the newest, or of that which a tag, an id, the begin of an id or
        a time names.
        """
        return self.look(as_of).id

    def look(self, as_of: str | None = None) -> Snapshot:
        """What is said of a snapshot; nothing of what it holds is read."""
        with self._reading_as_of(as_of):
            return self._repository.look(history.reference(self.uri, self._repository, as_of))

    def opened(self, as_of: str | None = None) -> tuple[zarr.Group, Snapshot]:
        """The root group of a snapshot as `group` gives it, and what is said of that snapshot."""
        with self._reading_as_of(as_of):
            return self._repository.reading(history.reference(self.uri, self._repository, as_of))

    def _reading_as_of(self, as_of: str | None) -> contextlib.AbstractContextManager[None]:
        return reading_stored(self.uri, f"read it{f' as of {as_of}' if as_of else ''}")

    @contextlib.contextmanager
    def reading(self, what: str) -> Iterator[None]:
        """Turn whatever damaged or missing files raise into `StoreUnavailable`, which names what
        was being read.
        """
        with reading_stored(self.uri, f"read {what}"):
            yield

    def history(self) -> list[history.HistoryEntry]:
        """Snapshots, newest first: id, time, message, metadata, tags."""
        with reading_stored(self.uri, "read its history"):
            return history.entries(self._repository)

    def tag(self, name: str, snapshot: str | None = None) -> str:
        """Name a snapshot (any reference, the newest if None) for good; its id.

        Raises:
            WrongReference: the name is no name for a tag or is taken, or there is no such snapshot.
        """
        refuse_read_only(Place(self.uri))
        with speaking(self.uri, f"tag {name}"):
            return history.add_tag(self.uri, self._repository, name, snapshot)

    def untag(self, name: str) -> None:
        """Take a tag away; the snapshot stays.

        Raises:
            WrongReference: there is no such tag.
        """
        refuse_read_only(Place(self.uri))
        with speaking(self.uri, f"delete tag {name}"):
            history.remove_tag(self.uri, self._repository, name)

    def holder(self) -> Holder | None:
        """Who says that it writes to this store now; see `tasks.store.lock.holder_of`."""
        return holder_of(Place(self.uri))

    @contextlib.contextmanager
    def coordinate(
        self, force_unlock: bool = False, derive: Derive | None = None, *, can_wait: bool = False
    ) -> Iterator[Coordinator]:
        """The only writer, as long as the context lasts. A store of an older schema is migrated
        first.

        `derive` works out what the rows of an older schema do not say;
        `tasks.results.stored.coordinate` knows how.

        `force_unlock` takes over a lock of which this host cannot know that its holder is gone: one
        of another host, or a lease on object storage. A run that is alive here is never put out.
        `can_wait` has a refusal say how to wait.

        Raises:
            StoreLocked: there is another coordinator.
        """
        with hold(Place(self.uri), force=force_unlock, can_wait=can_wait) as held:
            self._bring_up_to_date(derive)
            yield Coordinator(self.uri, self._repository, held)

    def _bring_up_to_date(self, derive: Derive | None) -> None:
        found = schema_of(self.uri, self.group())
        if found == SCHEMA:
            return
        if derive is None:
            raise StoreUnavailable(
                f"store {self.uri}: written with schema {found}, and what schema {SCHEMA} says beside it is in specs that a store "
                "does not understand: coordinate it by tasks.results.stored.coordinate"
            )
        with reading_stored(self.uri, f"bring it to schema {SCHEMA}"):
            try:
                migrate(self._repository, derive)
            except Conflict as error:
                raise StoreMoved(f"store {self.uri}: somebody else wrote while it was migrated; try again") from error

    def gc(
        self,
        older_than: datetime,
        dry_run: bool = False,
        *,
        force_unlock: bool = False,
        youngest: timedelta = YOUNGEST,
    ) -> Removed:
        """Let go of snapshots that were not the newest any more at a time (tagged ones stay) and of
        what only they need.

        Takes the coordinator's lock.

        Raises:
            WrongReference: the time is less than `youngest` ago, in which somebody may be reading:
                shorten it only where nobody does.
        """
        with hold(Place(self.uri), force=force_unlock), reading_stored(self.uri, "collect garbage in it"):
            return history.collect(self.uri, self._repository, older_than, dry_run=dry_run, youngest=youngest)


def _make_room(place: Place) -> None:
    """The folder of a new store. Raises `StoreUnavailable` if it holds anything but a creation that
    was cut short.
    """
    if place.folder is None:
        return
    place.folder.mkdir(parents=True, exist_ok=True)
    strange = sorted({entry.name for entry in place.folder.iterdir()} - _OF_ICECHUNK)
    if strange:
        raise StoreUnavailable(
            f"store {place.uri}: exists and is not a store (it holds {strange[0]!r}); choose an empty or a new folder"
        )
