"""Points that tests make by hand are laid out as those of a store: what holds of them holds of
answers.
"""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from tasks.results import open_results
from tests.tasks import test_compare, test_compare_statistics, test_query
from tests.tasks.tiny_store import answer


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    uri = str(tmp_path_factory.mktemp("hand-made") / "results")
    answer(uri)
    return open_results(uri)


@pytest.mark.parametrize(
    "made",
    [
        test_query.points_of([{"w1": 1.0, "ks": 0.1}], "w1", "ks"),
        test_compare.points(test_compare.group([1.0, 2.0])),
        test_compare_statistics.points(np.ones((2, 3))),
    ],
    ids=["queried", "compared", "simulated"],
)
def test_whatever_they_have_is_where_and_of_the_kind_that_it_is_in_a_store(
    made: xr.Dataset, stored: xr.Dataset
) -> None:
    assert set(made.coords) <= set(stored.coords)
    assert set(made.data_vars) <= set(stored.data_vars)
    texts = {"U": "text", "O": "text", "T": "text"}
    for name, values in made.variables.items():
        real = stored.variables[name]
        assert values.dims == real.dims, name
        assert texts.get(values.dtype.kind, values.dtype) == texts.get(real.dtype.kind, real.dtype), name
        assert values.attrs == real.attrs, name
