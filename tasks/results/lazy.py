"""Variables of a dataset that are read when they are first looked at, as xarray's own files are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

if TYPE_CHECKING:
    from tasks.where.columns import PointColumns


class _Column(BackendArray):
    """A column that `columns` reads; whoever looks at it gets a copy."""

    def __init__(self, columns: Mapping[str, np.ndarray], name: str, type_name: str, size: int) -> None:
        self.columns, self.name = columns, name
        self.dtype, self.shape = np.dtype(type_name), (size,)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER_1VECTOR, self._at)

    def _at(self, key: tuple[Any, ...]) -> np.ndarray:
        return np.array(self.columns[self.name][key])

    def __reduce__(self) -> tuple[object, ...]:
        values = np.array(self.columns[self.name])
        return _Column, ({self.name: values}, self.name, self.dtype.str, self.shape[0])


def variable(columns: PointColumns, name: str, type_name: str, attrs: Mapping[str, object]) -> xr.Variable:
    """The variable of a column along ``point``."""
    column: Any = indexing.LazilyIndexedArray(_Column(columns, name, type_name, columns.size))
    return xr.Variable("point", indexing.MemoryCachedArray(indexing.CopyOnWriteArray(column)), dict(attrs))
