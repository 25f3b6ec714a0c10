"""A hand-made study with realistic numbers, for the report's tests and for looking at the page.

The exact rows are the reference figures of the exact denoiser on U[0, 1] (W1 from quantile particles; the sampling
floor of 10,000 samples is added in quadrature); a trained row is the exact one, plus a network error that no step
count removes, with a few per cent of noise per seed. Samples are drawn to fit: the further off in W1, the narrower or
wider.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from tasks.columns import GENERATION, METRIC_SUFFIXES
from tasks.data import Digits
from tasks.results.error_decomposition import split

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.report.source import ReportedModel

STEPS = (1, 2, 3, 5, 8, 10, 16, 20, 32, 50, 64, 100)
SAMPLERS = ("ddim", "euler", "heun", "ancestral")
SCHEDULE_OF = {"vp": "vp-linear", "ve": "ve-linear", "iddpm": "iddpm", "edm": "edm", "ddpm": "ddpm-linear"}
FLOOR = 0.00313

_EULER = {
    "edm": (0.249, 0.248, 0.222, 0.108, 0.0806, 0.0683, 0.0411, 0.0327, 0.0202, 0.0128, 0.01, 0.00647),
    "iddpm": (0.249, 0.244, 0.183, 0.116, 0.0664, 0.0502, 0.0293, 0.023, 0.014, 0.00886, 0.00696, 0.00459),
    "ve-linear": (39.6, 19.9, 10.1, 2.8, 0.743, 0.453, 0.227, 0.178, 0.111, 0.071, 0.0554, 0.0353),
    "vp-linear": (0.682, 0.425, 0.257, 0.0586, 0.0477, 0.0462, 0.0307, 0.024, 0.0142, 0.00864, 0.00658, 0.00406),
    "ddpm-linear": (0.25, 0.231, 0.205, 0.165, 0.12, 0.098, 0.0592, 0.0467, 0.0285, 0.018, 0.0141, 0.00897),
}
_HEUN = {
    "edm": (0.249, 0.248, 0.185, 0.17, 0.0769, 0.0479, 0.0186, 0.0113, 0.00432, 0.00222, 0.00188, 0.00177),
    "iddpm": (0.249, 0.248, 0.206, 0.0557, 0.0141, 0.00863, 0.0036, 0.00276, 0.00213, 0.00192, 0.00186, 0.0018),
    "ve-linear": (39.6, 1.23e8, 1.54e7, 1.7e5, 0.928, 0.25, 0.169, 0.106, 0.0363, 0.0135, 0.00804, 0.00338),
    "vp-linear": (0.682, 58.1, 13.0, 0.322, 0.0318, 0.0216, 0.0106, 0.00753, 0.00393, 0.00228, 0.00177, 0.00128),
    "ddpm-linear": (0.25, 40.0, 9.0, 0.4, 0.05, 0.03, 0.013, 0.009, 0.0047, 0.0027, 0.0021, 0.0015),
}
_NETWORK_ERROR = {"vp": 0.006, "ve": 0.012, "iddpm": 0.004, "edm": 0.0025, "ddpm": 0.007}


def exact_w1(schedule: str, sampler: str, steps: int) -> float:
    """The figure of the exact denoiser, with as many samples as the study draws."""
    row = (_HEUN if sampler == "heun" else _EULER)[schedule][STEPS.index(steps)]
    if sampler == "ancestral":
        row = 0.9 * row + 0.15 / steps
    return float(np.hypot(row, FLOOR))


def evaluations(sampler: str, steps: int) -> int:
    return 2 * steps - 1 if sampler == "heun" else steps


@dataclass
class MadeUp:
    """`ReportSource` in memory; every part can be replaced."""

    points: xr.Dataset
    study: Mapping[str, Any]
    provenance: Mapping[str, str] = field(
        default_factory=lambda: {
            "snapshot": "K7Q2M4T0",
            "time": "2025-03-03T22:14:05+00:00",
            "store": "results",
            "diffatlas": "0.1.0",
            "torch": "2.9.0",
            "device": "cpu",
        }
    )
    kept_samples: dict[str, xr.DataArray] = field(default_factory=dict)
    kept_trajectories: dict[str, xr.DataArray] = field(default_factory=dict)
    kept_models: dict[str, ReportedModel] = field(default_factory=dict)
    kept_losses: xr.DataArray = field(default_factory=lambda: xr.DataArray(np.empty((0, 0)), dims=("cell", "progress")))
    kept_score_errors: xr.DataArray = field(
        default_factory=lambda: xr.DataArray(np.empty((0, 0)), dims=("cell", "level"))
    )

    def samples(self, point_id: str) -> xr.DataArray | None:
        return self.kept_samples.get(point_id)

    def trajectory(self, point_id: str) -> xr.DataArray | None:
        return self.kept_trajectories.get(point_id)

    def model(self, cell_id: str) -> ReportedModel | None:
        return self.kept_models.get(cell_id)

    def losses(self) -> xr.DataArray:
        return self.kept_losses

    def score_errors(self) -> xr.DataArray:
        return self.kept_score_errors


def dataset_of(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> xr.Dataset:
    """Rows as the points of a store: unmentioned values are those of a plain answered point."""
    usual = {
        "dataset": "uniform",
        "formulation": "edm",
        "schedule": "edm",
        "sampler": "heun",
        "grid": "own",
        "steps": 10,
        "nfe": 10,
        "seed": 0,
        "cell_id": "cell",
        "status": "ok",
        "error": "",
        "start": "random",
        "process": GENERATION,
        "guidance": "",
    }
    names = [*usual, "point_id", "sampling_schedule"]
    full = [{**usual, "point_id": f"point-{i}", **row} for i, row in enumerate(rows)]
    full = [{"sampling_schedule": row["schedule"], **row} for row in full]
    coords = {
        name: (
            "point",
            np.array([row[name] for row in full], dtype=int if name in {"steps", "nfe", "seed"} else object),
        )
        for name in names
    }
    beside = [f"{metric}{suffix}" for metric in metrics for suffix in METRIC_SUFFIXES]
    given = [name for name in beside if name.endswith("_floor") or any(name in row for row in full)]
    columns = {
        name: ("point", np.array([row.get(name, np.nan) for row in full], dtype=float)) for name in (*metrics, *given)
    }
    columns["train_seconds"] = ("point", np.full(len(full), 12.0))
    columns["sample_seconds"] = ("point", np.full(len(full), 0.1))
    return xr.Dataset(columns, coords)


def study_of(**more: Any) -> dict[str, Any]:
    return {
        "name": "uniform",
        "description": "The scalar example: U[0, 1] by five formulations and four samplers.",
        "datasets": [{"name": "uniform", "low": 0.0, "high": 1.0}],
        "formulations": [{"name": name} for name in SCHEDULE_OF],
        "samplers": [{"name": name} for name in SAMPLERS],
        "steps": list(STEPS),
        "seeds": 3,
        "samples": 10000,
        "metrics": [{"name": "w1"}, {"name": "ks"}],
        "training": {"steps": 3000, "batch": 512, "width": 128, "depth": 3},
        **more,
    }


def realistic(
    *,
    seeds: int = 3,
    steps: Sequence[int] = STEPS,
    samplers: Sequence[str] = SAMPLERS,
    formulations: Sequence[str] = tuple(SCHEDULE_OF),
    exact: bool = True,
    keep: bool = True,
    worse: Mapping[str, float] | None = None,
    failed: Mapping[str, str] | None = None,
    torus: bool = False,
    plane: bool = False,
) -> MadeUp:
    """The scalar study. `worse` multiplies the error of a formulation; `failed` maps formulations to an error.

    Where there are exact rows, w1 is split into its parts.
    """
    rng = np.random.default_rng(7)
    rows: list[dict[str, Any]] = []
    samples: dict[str, xr.DataArray] = {}
    asked = [(name, SCHEDULE_OF[name]) for name in formulations]
    if exact:
        asked += [("exact", schedule) for _, schedule in asked]
    for formulation, schedule in asked:
        for sampler in samplers:
            for n in steps:
                for seed in range(seeds):
                    row = {
                        "formulation": formulation,
                        "schedule": schedule,
                        "sampler": sampler,
                        "steps": n,
                        "nfe": evaluations(sampler, n),
                        "seed": seed,
                        "cell_id": f"{formulation}-{schedule}-{seed}",
                        "point_id": f"p-{formulation}-{schedule}-{sampler}-{n}-{seed}",
                        "w1_floor": FLOOR,
                        "ks_floor": 0.00868,
                    }
                    w1 = exact_w1(schedule, sampler, n) * rng.lognormal(0, 0.02)
                    if formulation != "exact":
                        w1 = (worse or {}).get(formulation, 1.0) * float(
                            np.hypot(w1, _NETWORK_ERROR[formulation]) * rng.lognormal(0, 0.07)
                        )
                    if formulation in (failed or {}):
                        row |= {"status": "failed", "error": (failed or {})[formulation]}
                    else:
                        row |= {"w1": w1, "ks": min(1.0, 2.2 * w1 + 0.004)}
                        if keep:
                            samples[str(row["point_id"])] = _samples(rng, w1)
                    rows.append(row)
    answers = MadeUp(dataset_of(rows, ("w1", "ks")), study_of(seeds=seeds, steps=list(steps)), kept_samples=samples)
    if keep:
        answers.kept_losses = losses(formulations, seeds)
        answers.kept_trajectories = {
            f"p-{name}-{SCHEDULE_OF[name]}-heun-50-0": trajectory(rng, SCHEDULE_OF[name]) for name in formulations
        }
        answers.kept_score_errors = score_errors(formulations, seeds)
    if exact:
        answers.points = with_parts(answers.points)
    answers = with_plane(answers, formulations) if plane else answers
    return with_torus(answers, formulations) if torus else answers


def with_parts(points: xr.Dataset) -> xr.Dataset:
    """The points with w1 split: the limit of the exact flow is its value at the most steps."""
    frame = points.to_dataframe().reset_index(drop=True)
    frame["w1_limit"] = np.nan
    exact = frame["formulation"] == "exact"
    question = ["schedule", "sampler", "seed"]
    limits = frame[exact].sort_values("steps").groupby(question)["w1"].last().rename("limit").reset_index()
    frame.loc[exact, "w1_limit"] = frame[exact].merge(limits, on=question, how="left")["limit"].to_numpy()
    table = {name: frame[name].to_numpy() for name in frame}
    table |= {"samples": np.full(len(frame), 10000), "start": np.full(len(frame), "random")}
    found = split(table, ("w1",))
    return points.assign({name: ("point", values) for name, values in found.items()})


def _samples(rng: np.random.Generator, w1: float, n: int = 2000) -> xr.DataArray:
    u = rng.random((n, 1))
    off = w1 if w1 < 1 else 4 * w1
    x = 0.5 + (u - 0.5) * max(1 - 4 * w1, 0.02) if w1 < 0.26 else 0.5 + off * rng.standard_normal((n, 1))
    return xr.DataArray(x + 0.3 * min(w1, 0.3) * rng.standard_normal((n, 1)), dims=("sample", "coordinate"))


def trajectory(rng: np.random.Generator, schedule: str, levels: int = 51, n: int = 2000) -> xr.DataArray:
    """x = alpha x_0 + sigma eps with one x_0 and one eps per particle."""
    t = np.linspace(1, 0, levels)
    if schedule in ("vp-linear", "ddpm-linear"):
        b = 0.5 * 19.9 * t**2 + 0.1 * t
        alpha, sigma = np.exp(-b / 2), np.sqrt(-np.expm1(-b))
    else:
        top = 100.0 if schedule == "ve-linear" else 80.0
        alpha, sigma = np.ones_like(t), ((top ** (1 / 7)) * t + (0.002 ** (1 / 7)) * (1 - t)) ** 7
        sigma[-1] = 0.0
    x = alpha[:, None] * rng.random(n) + sigma[:, None] * rng.standard_normal(n)
    coords = {"time": ("level", t), "alpha": ("level", alpha), "sigma": ("level", sigma)}
    return xr.DataArray(x[..., None], dims=("level", "sample", "coordinate"), coords=coords)


def losses(formulations: Sequence[str], seeds: int, bins: int = 100) -> xr.DataArray:
    rng = np.random.default_rng(3)
    step = np.linspace(30, 3000, bins)
    cells = [(name, seed) for name in formulations for seed in range(seeds)]
    values = [
        (0.2 + 0.15 * list(SCHEDULE_OF).index(name) + 1.5 * np.exp(-step / 300)) * rng.lognormal(0, 0.06, bins)
        for name, _ in cells
    ]
    coords = {
        "step": ("progress", step),
        "cell_id": ("cell", [f"{name}-{seed}" for name, seed in cells]),
        "dataset": ("cell", ["uniform"] * len(cells)),
        "formulation": ("cell", [name for name, _ in cells]),
        "schedule": ("cell", [SCHEDULE_OF[name] for name, _ in cells]),
        "seed": ("cell", [seed for _, seed in cells]),
    }
    return xr.DataArray(np.array(values), dims=("cell", "progress"), coords=coords)


def score_errors(formulations: Sequence[str], seeds: int, levels: int = 16) -> xr.DataArray:
    """Smallest in the middle, a factor of two between seeds; noise levels between the ends of each schedule."""
    rng = np.random.default_rng(5)
    cells = [(name, seed) for name in formulations for seed in range(seeds)]
    ends = {
        "vp": (0.01, 152.0),
        "ve": (0.02, 100.0),
        "iddpm": (0.0064, 80.2),
        "edm": (0.002, 80.0),
        "ddpm": (0.01, 157.0),
    }
    nsr = np.array([np.geomspace(*ends[name], levels) for name, _ in cells]).reshape(-1, levels)
    errors = 1e-3 * (1 + np.log(nsr) ** 2) * rng.lognormal(0, 0.4, nsr.shape)
    coords = {
        "nsr": (("cell", "level"), nsr),
        "cell_id": ("cell", [f"{name}-{seed}" for name, seed in cells]),
        "dataset": ("cell", ["uniform"] * len(cells)),
        "formulation": ("cell", [name for name, _ in cells]),
        "schedule": ("cell", [SCHEDULE_OF[name] for name, _ in cells]),
        "seed": ("cell", [seed for _, seed in cells]),
    }
    return xr.DataArray(errors, dims=("cell", "level"), coords=coords)


def with_plane(answers: MadeUp, formulations: Sequence[str]) -> MadeUp:
    """A second dataset in the plane: eight Gaussians, wider the fewer the steps, with a trajectory."""
    rng = np.random.default_rng(13)
    rows: list[dict[str, Any]] = []
    kept: dict[str, xr.DataArray] = {}
    for formulation, schedule in [(f, SCHEDULE_OF[f]) for f in formulations] + [("exact", "edm")]:
        for n in (1, 5, 20, 50):
            point_id = f"e-{formulation}-{schedule}-{n}"
            where = {"dataset": "eight_gaussians", "formulation": formulation, "schedule": schedule, "steps": n}
            rows.append({**where, "nfe": 2 * n - 1, "point_id": point_id, "sliced-w2": 0.1 + 1 / n})
            angle = rng.integers(0, 8, 3000) * np.pi / 4
            x = 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + (0.1 + 1 / n) * rng.standard_normal((3000, 2))
            kept[point_id] = xr.DataArray(x, dims=("sample", "coordinate"))
    points = xr.concat([answers.points, dataset_of(rows, ("sliced-w2",))], dim="point", join="outer")
    study = dict(answers.study)
    study["datasets"] = [*study["datasets"], {"name": "eight_gaussians"}]
    study["metrics"] = [*study["metrics"], {"name": "sliced-w2"}]
    path = trajectory(rng, "edm")
    path = xr.concat([path, path], dim="coordinate")
    return replace(
        answers,
        points=points,
        study=study,
        kept_samples={**answers.kept_samples, **kept},
        kept_trajectories={**answers.kept_trajectories, "e-edm-edm-50": path},
    )


def with_images(answers: MadeUp, formulations: Sequence[str]) -> MadeUp:
    """A second dataset of images: digits, noisier the fewer the steps, with a trajectory."""
    rng = np.random.default_rng(17)
    images = Digits().points.numpy()
    rows: list[dict[str, Any]] = []
    kept: dict[str, xr.DataArray] = {}
    for formulation, schedule in [(f, SCHEDULE_OF[f]) for f in formulations] + [("exact", "edm")]:
        for n in (1, 5, 18, 50):
            point_id = f"i-{formulation}-{schedule}-{n}"
            where = {"dataset": "digits", "formulation": formulation, "schedule": schedule, "steps": n}
            rows.append(
                {**where, "nfe": 2 * n - 1, "point_id": point_id, "fid-digits": 1 + 30 / n, "fid-digits_floor": 1.3}
            )
            x = images[rng.integers(0, len(images), 100)] + rng.standard_normal((100, 64)) / n
            kept[point_id] = xr.DataArray(x, dims=("sample", "coordinate"))
    points = xr.concat([answers.points, dataset_of(rows, ("fid-digits",))], dim="point", join="outer")
    study = dict(answers.study)
    study["datasets"] = [*study["datasets"], {"name": "digits"}]
    study["metrics"] = [*study["metrics"], {"name": "fid-digits"}]
    path = trajectory(rng, "edm", n=40)
    x = path["alpha"].values[:, None, None] * images[:40] + path["sigma"].values[:, None, None] * rng.standard_normal(
        (40, 64)
    )
    return replace(
        answers,
        points=points,
        study=study,
        kept_samples={**answers.kept_samples, **kept},
        kept_trajectories={
            **answers.kept_trajectories,
            "i-edm-edm-50": path.isel(coordinate=0).expand_dims(coordinate=64, axis=-1).copy(data=x),
        },
    )


def with_torus(answers: MadeUp, formulations: Sequence[str], R: float = 1.0, r: float = 0.4) -> MadeUp:
    """A second dataset in space: a few steps, one metric more."""
    rng = np.random.default_rng(11)
    rows: list[dict[str, Any]] = []
    kept: dict[str, xr.DataArray] = {}
    for formulation, schedule in [(f, SCHEDULE_OF[f]) for f in formulations] + [("exact", "edm")]:
        for n in (5, 20, 50):
            for seed in range(3):
                off = (0.4 / n + (0 if formulation == "exact" else _NETWORK_ERROR[formulation])) * rng.lognormal(
                    0, 0.05
                )
                point_id = f"t-{formulation}-{schedule}-{n}-{seed}"
                where = {"dataset": "torus", "formulation": formulation, "schedule": schedule, "steps": n, "seed": seed}
                rows.append({**where, "nfe": 2 * n - 1, "point_id": point_id, "torus-distance": off})
                u, v = rng.uniform(0, 2 * np.pi, (2, 4000))
                tube = r + off * rng.standard_normal(4000)
                rho = R + tube * np.cos(v)
                x = np.stack([rho * np.cos(u), rho * np.sin(u), tube * np.sin(v)], axis=1)
                kept[point_id] = xr.DataArray(x, dims=("sample", "coordinate"))
    points = xr.concat([answers.points, dataset_of(rows, ("torus-distance",))], dim="point", join="outer")
    study = dict(answers.study)
    study["datasets"] = [*study["datasets"], {"name": "torus", "R": R, "r": r}]
    study["metrics"] = [*study["metrics"], {"name": "torus-distance"}]
    return replace(answers, points=points, study=study, kept_samples={**answers.kept_samples, **kept})
