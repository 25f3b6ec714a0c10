"""The points of a store's snapshots, opened once: what a snapshot holds never changes.

On disk `tasks.results.kept` keeps the tables of snapshots; here are those that were looked at last,
with the columns that were decoded for them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, TypeVar

from tasks.results.read import Answers, open_columns, open_results
from tasks.store import Store
from tasks.where.columns import PointColumns

if TYPE_CHECKING:
    import xarray as xr

    from tasks.store.history import HistoryEntry

_MOST = 8

Found = TypeVar("Found")


class OpenedStore:
    """A store that is looked through.

    Args:
        uri: a folder, or ``s3://bucket/prefix``.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._kept: OrderedDict[Hashable, object] = OrderedDict()

    def snapshot(self, as_of: str | None = None) -> str:
        """The id of a snapshot; of the newest, unless `as_of` names one.

        Raises:
            StoreUnavailable: there is no store, or it cannot be read.
            WrongReference: nothing has that name.
        """
        return Store.found(self.uri).snapshot(as_of)

    def points(self, study: str | None = None, as_of: str | None = None) -> PointColumns:
        """The points of a snapshot, or one study's share.

        Raises:
            StoreUnavailable: there is no store, or it cannot be read.
            UnknownStudy: the store holds no study of that name.
            WrongReference: nothing has that name.
        """
        snapshot = self.snapshot(as_of)
        return self._once(("points", study, snapshot), lambda: open_columns(self.uri, study, snapshot))

    def answers(self, study: str | None = None, as_of: str | None = None) -> Answers:
        """The same, with all that is kept of a point besides its row. Raises the same."""
        snapshot = self.snapshot(as_of)
        return self._once(("answers", study, snapshot), lambda: Answers(Store.open(self.uri), study, snapshot))

    def dataset(self, study: str | None = None, as_of: str | None = None) -> xr.Dataset:
        """The points as `open_results` gives them. Raises the same."""
        snapshot = self.snapshot(as_of)
        return self._once(("dataset", study, snapshot), lambda: open_results(self.uri, study, snapshot))

    def curves(self, study: str | None = None, as_of: str | None = None) -> tuple[xr.DataArray, xr.DataArray]:
        """Losses, and errors of the score, of all cells. Raises the same."""
        answers = self.answers(study, as_of)
        key = ("curves", study, answers.snapshot.id)
        return self._once(key, lambda: (answers.losses(), answers.score_errors()))

    def history(self) -> list[HistoryEntry]:
        """The snapshots, newest first.

        Raises:
            StoreUnavailable: there is no store, or it cannot be read.
        """
        return Store.found(self.uri).history()

    def _once(self, key: Hashable, make: Callable[[], Found]) -> Found:
        if key in self._kept:
            self._kept.move_to_end(key)
        else:
            self._kept[key] = make()
            while len(self._kept) > _MOST:
                self._kept.popitem(last=False)
        found: Found = self._kept[key]  # type: ignore[assignment]
        return found
