"""Stored answers as labelled arrays: filter, pivot, reduce over seeds, rank, and take out samples
and models.

Before: `diffatlas run smoke`, or `da.run("smoke")`. The store's folder is the only argument
(`results` unless it is named).
"""

import sys

import xarray as xr

import diffatlas as da


def main(store: str) -> xr.DataArray:
    points = da.open_results(store)  # a Dataset along "point": labels, metrics and their floors
    print(points.sizes["point"], "points;", "snapshot", points.attrs["snapshot"])

    cube = points.atlas.cube("w1")  # dataset x formulation x schedule x sampler x steps x seed; NaN: not asked
    means: xr.DataArray = cube.sel(dataset="uniform").mean("seed", skipna=True)
    print(means.sel(sampler="heun").squeeze().to_pandas())

    few = points.where(points["steps"] <= 5, drop=True)  # plain xarray
    print(few["w1"].groupby("sampler").mean().to_pandas())
    print(da.query(points, "sampler == 'heun'", by=["formulation", "steps"], metrics=["w1"]))
    print(points.atlas.best("sampler", metric="w1"))

    last = points.isel(point=int((points["formulation"].values == "edm").argmax()))
    samples = da.open_samples(store, str(last["point_id"].values))  # [sample, coordinate]
    print("mean of the stored samples:", float(samples.mean()))
    model = da.open_model(store, str(last["cell_id"].values))
    again = model.sample(str(last["sampler"].values), int(last["steps"].values), n=samples.sizes["sample"])
    print("the model gives them again:", bool((again.float().numpy() == samples.values).all()))
    return means


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "results")
