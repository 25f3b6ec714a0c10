"""The nodes of a Zarr hierarchy, as what they are: a group says of its members only that they are
arrays or groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import zarr

from tasks.store.errors import Damaged

if TYPE_CHECKING:
    from zarr.types import AnyArray

Selection: TypeAlias = "slice | np.ndarray"
"""Rows of a table: a range, their numbers, or a truth value for each."""

WHOLE = slice(None)


def array_in(group: zarr.Group, name: str) -> AnyArray:
    """An array of a group.

    Raises:
        KeyError: nothing has that name.
        Damaged: what has the name is a group.
    """
    found = group[name]
    if isinstance(found, zarr.Group):
        raise Damaged(f"{group.path}/{name}: found a group, expected an array")
    return found


def group_in(group: zarr.Group, name: str) -> zarr.Group:
    """A group of a group.

    Raises:
        KeyError: nothing has that name.
        Damaged: what has the name is an array.
    """
    found = group[name]
    if not isinstance(found, zarr.Group):
        raise Damaged(f"{group.path}/{name}: found an array, expected a group")
    return found


def values_in(group: zarr.Group, name: str) -> np.ndarray:
    """All values of an array of a group. Raises as `array_in`."""
    return np.asarray(array_in(group, name)[:])
