"""``points.atlas``: cubes say what the points say, and the other views are the functions they are
named after.
"""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from tasks.accessor import MOST_PLACES
from tasks.compare import compare
from tasks.query import pareto, rank
from tests.tasks.chosen import answers_to
from tests.tasks.test_query import points_of, random_points


def sweep(shift: float = 0.0) -> xr.Dataset:
    return answers_to(
        {"sampler": s, "steps": n, "seed": seed, "w1": k + 1 / n + seed / 100 + shift}
        for k, s in enumerate(["heun", "euler"])
        for n in (1, 10, 2)
        for seed in range(3)
        if (s, n) != ("euler", 10)
    ).points


def test_a_cube_has_each_value_at_its_labels_and_nan_where_nothing_was_asked_or_the_point_failed() -> None:
    points = random_points()
    axes = ("formulation", "sampler", "steps", "seed")
    cube = points.atlas.cube("ks", axes)
    frame = points.to_dataframe()
    assert cube.dims == axes
    filled = 0
    for _, row in frame[frame["status"] == "ok"].iterrows():
        assert float(cube.sel({axis: row[axis] for axis in axes})) == row["ks"]
        filled += 1
    assert int(np.isfinite(cube).sum()) == filled
    assert all((np.sort(cube[axis].values) == cube[axis].values).all() for axis in axes)


def test_a_cube_of_a_sweep_has_the_six_axes_and_keeps_where_the_numbers_come_from() -> None:
    points = sweep()
    cube = points.atlas.cube("w1")
    assert cube.dims == ("dataset", "formulation", "schedule", "sampler", "steps", "seed")
    assert cube.shape == (1, 1, 1, 2, 3, 3)
    assert cube.attrs["snapshot"] == points.attrs["snapshot"]
    assert cube.sel(sampler="heun", steps=10).mean().item() == pytest.approx(0.11)
    assert np.isnan(cube.sel(sampler="euler", steps=10)).all()
    assert points.isel(point=slice(0)).atlas.cube("w1").size == 0


def test_a_cube_in_which_points_would_share_a_place_or_that_would_not_fit_is_refused() -> None:
    points = points_of([{"grid": "edm", "w1": 1.0}, {"grid": "uniform-t", "w1": 2.0}], "w1")
    with pytest.raises(ValueError, match="add an axis, such as grid"):
        points.atlas.cube("w1")
    assert points.atlas.cube("w1", ("grid", "seed")).shape == (2, 1)
    sparse = points_of([{"steps": i, "seed": i, "nfe": i, "w1": 1.0} for i in range(600)], "w1")
    assert MOST_PLACES < 600**3
    with pytest.raises(ValueError, match="600 x 600 x 600 places are too many"):
        sparse.atlas.cube("w1", ("steps", "seed", "nfe"))


def test_an_unknown_metric_or_axis_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(KeyError, match=r"no metric 'w2'; there are w1"):
        sweep().atlas.cube("w2")
    with pytest.raises(KeyError, match=r"no axis 'smapler'; there are .*sampler"):
        sweep().atlas.cube("w1", ("smapler",))


def test_the_other_views_are_the_functions_they_are_named_after() -> None:
    before, after = sweep(), sweep(0.5)
    pd.testing.assert_frame_equal(before.atlas.best("sampler", at="nfe <= 2"), rank(before, "sampler", at="nfe <= 2"))
    assert before.atlas.best(by=())["sampler"].tolist() == ["heun", "euler"]
    pd.testing.assert_frame_equal(before.atlas.pareto(("w1",), by=["sampler"]), pareto(before, ("w1",), by=["sampler"]))
    pd.testing.assert_frame_equal(before.atlas.compare(after).groups, compare(before, after).groups)
    frame = before.atlas.to_dataframe()
    pd.testing.assert_frame_equal(frame[sorted(frame)], before.to_dataframe()[sorted(frame)].reset_index(drop=True))
