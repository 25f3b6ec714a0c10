"""Every registered name, in the smallest form that runs, through the real command to a real store.

The study is made from the registries, so that a new name is run by being there.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from diffusion.datasets import datasets
from diffusion.datasets.degradations import degradations
from diffusion.formulations import Denoising, Formulation, Trained, formulations
from diffusion.formulations.own import OwnModel
from diffusion.guidance import guidances
from diffusion.metrics import ModelMetric, PairedMetric, metrics
from diffusion.models import ExactDenoiser
from diffusion.networks import architectures
from diffusion.objectives import noise_distributions, weightings
from diffusion.objectives.parametrizations import parametrizations
from diffusion.registry import Registry
from diffusion.samplers import samplers
from diffusion.schedules import DDPMLinear, Schedule, VPLinear, schedules
from diffusion.schedules.grids import grids
from tasks.models import cell_of
from tasks.results import Answers, open_results
from tasks.store import Store
from tasks.study.catalogue import catalogue
from tasks.study.components import build

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr

    from tests.end_to_end.conftest import Command

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("services"), pytest.mark.timeout(900)]

OWN_FILES = {"from_file": "points.npy", "images": "pictures.npy"}  # what these data sets read
MEASURED: dict[str, dict[str, Any]] = {  # each point of a torus is an integral, a classifier is trained
    "elbo": {"name": "elbo", "batch": 8},
    "c2st": {"name": "c2st", "points": 20, "epochs": 3},
    **{name: {"name": name, "batch": 2, "tolerance": 0.1} for name in ("nll", "bits-per-dim")},
}
ONE_DIGIT = {"name": "digits", "digit": 3}  # what some metrics need
PARTS: dict[str, Registry[Any]] = {
    "parametrization": parametrizations,
    "weighting": weightings,
    "noise_levels": noise_distributions,
}
PEERS = {  # samplers of other libraries say which
    "azula": {"name": "azula", "sampler": "HeunSampler"},
    "diffusers": {"name": "diffusers", "scheduler": "UniPCMultistepScheduler"},
    "k-diffusion": {"name": "k-diffusion", "sampler": "sample_lms"},
}
CONDITIONAL = ("class-conditional", "observation-conditional", "flow-between")  # for targets that have on what
GIVEN = {
    "name": "given",
    "module": "somebody_s_network:load",
    "predicts": "epsilon",
    "schedule": "ddpm-linear",
    "weights": "half.safetensors",
}
NETWORK = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, t):
        return self.scale * x

def load():
    return Net()
"""
V = {"name": "denoising", "parametrization": "v", "noise_levels": "uniform-t", "noise_label": "angle"}


def dataset(name: str) -> str | dict[str, Any]:
    return {"name": name, "path": OWN_FILES[name]} if name in OWN_FILES else name


def quick(guidance: str) -> dict[str, Any]:
    """What trains in no time."""
    fields = {field.name for field in dataclasses.fields(guidances.find(guidance))}
    return {"name": guidance, **({"steps": 4, "batch": 8, "width": 8, "depth": 1} if "batch" in fields else {})}


def degradation(name: str) -> dict[str, Any]:
    """In a form that observes data on the line."""
    return {"name": name, "layout": "line"} if degradations.create(name).refuses(1) else {"name": name, "noise": 0.1}


def every_name() -> dict[str, Any]:
    """A union of crosses in which each name of each kind occurs."""
    plain = [entry.name for entry in formulations if issubclass(entry.cls, Trained)]
    parts = [
        {"name": "denoising", "schedule": "vp-linear", part: name}
        if part != "weighting" or registry.create(name).refuses(VPLinear()) is None
        else {"name": "denoising", "schedule": "ddpm-linear", "noise_levels": "discrete", part: name}
        for part, registry in PARTS.items()
        for name in registry.names()
        if name != getattr(Denoising(), part).registered_name
        if part != "noise_levels" or registry.create(name).refuses(VPLinear()) is None
    ]
    discrete = [grid for grid in grids.names() if grids.create(grid).refuses(VPLinear())]
    spread = [grid for grid in grids.names() if grid not in discrete]
    tiny = {"datasets": ["uniform"], "formulations": ["edm"], "samplers": ["ddim"], "steps": [2]}
    return {
        "name": "every-name",
        **tiny,
        "training": {"steps": 4, "batch": 8, "width": 8, "depth": 1, "data": 60},
        "samples": 64,
        "metrics": [MEASURED.get(name, name) for name in metrics.names()],
        "grids": [
            {"datasets": [ONE_DIGIT if n == "digits" else dataset(n) for n in datasets.names()], "samplers": ["heun"]},
            {"formulations": [name for name in plain if name not in ("denoising", *CONDITIONAL)]},
            {"formulations": [*parts, {"name": "denoising", "noise_levels": "single"}]},
            {"formulations": [GIVEN], "samplers": ["heun", "ancestral"]},
            {"formulations": [V], "schedules": schedules.names()},
            {
                "formulations": [V],
                "schedules": ["vp-linear"],
                "samplers": [PEERS.get(e.name, e.name) for e in samplers if issubclass(ExactDenoiser, e.cls.needs)],
                "steps": [3],
            },
            *(
                {"formulations": [name], "samplers": [entry.name]}
                for entry in samplers
                for name in plain
                if not issubclass(ExactDenoiser, entry.cls.needs)
                and issubclass(formulations.create(name).gives, entry.cls.needs)
            ),
            {"formulations": [{"name": "indi", "degradation": d} for d in map(degradation, degradations.names())]},
            {
                "formulations": [V],
                "schedules": ["vp-linear"],
                "samplers": [{"name": "ddim", "grid": g} for g in spread],
            },
            {
                "formulations": ["ddpm", {**V, "noise_levels": "discrete"}],
                "schedules": ["ddpm-linear"],
                "samplers": [{"name": "ddim", "grid": grid} for grid in discrete],
            },
            {"datasets": ["two_moons_posterior"], "formulations": ["observation-conditional"]},
            {"datasets": ["moons"], "formulations": ["flow-between", "exact-between"], "samplers": ["heun"]},
            {
                "datasets": ["eight_gaussians"],
                "formulations": ["edm", "class-conditional"],
                "samplers": ["heun", *({"name": "heun", "guidance": quick(name)} for name in guidances.names())],
            },
        ],
    }


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory, prefect_url: str) -> tuple[Path, xr.Dataset]:
    from tests.end_to_end.conftest import Command

    folder = tmp_path_factory.mktemp("every-name")
    np.save(folder / OWN_FILES["from_file"], np.random.default_rng(0).normal(size=(50, 2)))
    np.save(folder / OWN_FILES["images"], np.random.default_rng(0).normal(size=(50, 4, 4)))
    (folder / "somebody_s_network.py").write_text(NETWORK)
    save_file({"scale": torch.full((1,), 0.5)}, folder / "half.safetensors")
    (folder / "every.yaml").write_text(json.dumps(every_name()))
    command = Command(folder, prefect_url)
    command("run", "every.yaml", "--workers", "2", seconds=540)
    return folder, open_results(str(folder / "results"), study="every-name")


def test_the_catalogue_lists_every_name_with_formula_and_source(diffatlas: Command) -> None:
    listed = json.loads(diffatlas("catalog", "--json").stdout)
    assert listed == json.loads(json.dumps(catalogue()))
    registered = {
        registry.kind: registry.names()
        for registry in (
            datasets,
            formulations,
            schedules,
            parametrizations,
            noise_distributions,
            weightings,
            architectures,
            degradations,
            grids,
            samplers,
            guidances,
            metrics,
        )
    }
    assert {kind: [entry["name"] for entry in listed[f"{kind}s"]] for kind in registered} == registered
    for entry in (entry for entries in listed.values() for entry in entries):
        assert entry["formula"], entry["name"]
        assert entry["source"], entry["name"]
        assert entry["summary"], entry["name"]


def test_no_point_fails(answered: tuple[Path, xr.Dataset]) -> None:
    _, points = answered
    failed = points.isel(point=np.flatnonzero(points["status"].values == "failed"))
    assert failed["error"].values.tolist() == []


@pytest.mark.parametrize(
    ("axis", "names"),
    [
        ("dataset", datasets.names()),
        ("formulation", formulations.names()),
        ("schedule", schedules.names()),
        ("sampler", samplers.names()),
        ("grid", grids.names()),
    ],
)
def test_every_name_has_answers(answered: tuple[Path, xr.Dataset], axis: str, names: list[str]) -> None:
    """A label is the name, or the name with its parameters; that of a file is the file's, with a
    digest.
    """
    _, points = answered
    ok = points.isel(point=np.flatnonzero(points["status"].values == "ok"))
    found = {str(label).partition("(")[0].partition("@")[0] for label in ok[axis].values}
    assert {OWN_FILES.get(name, name).removesuffix(".npy") for name in names} <= found


def test_every_guidance_has_answers_of_exact_models(answered: tuple[Path, xr.Dataset]) -> None:
    """Against a law of its own, whose floor is not that of the whole target."""
    _, points = answered
    ok = points.isel(point=np.flatnonzero(points["status"].values == "ok"))
    exact = ok.isel(point=np.flatnonzero(ok["formulation"].values == "exact"))
    found = {str(label).partition(" | ")[2].partition("(")[0] for label in exact["sampler"].values}
    assert set(guidances.names()) <= found
    for row, label in enumerate(exact["dataset"].values):
        if " | " in str(label):
            assert np.isfinite(exact["energy"].values[row])


def test_every_part_of_a_formulation_has_answers(answered: tuple[Path, xr.Dataset]) -> None:
    _, points = answered
    labels = set(points["formulation"].values[points["status"].values == "ok"].tolist())
    for part, registry in PARTS.items():
        for name in registry.names():
            if name == getattr(Denoising(), part).registered_name:
                assert any(label.startswith("denoising(") and f"{part}=" not in label for label in labels), name
            else:
                assert any(f"{part}={name}" in label for label in labels), name


def made_of(spec: dict[str, Any]) -> tuple[Formulation, Schedule]:
    """Formulation and schedule of a stored cell; its data may lie in a file that is named from
    elsewhere.
    """
    if spec["formulation"]["name"] == "given":  # whose module lies beside the study, and its weights do
        return OwnModel(), DDPMLinear()
    made = cell_of({**spec, "dataset": {"name": "uniform"}})
    return made.formulation, made.schedule


def least_error_is_known(spec: dict[str, Any]) -> bool:
    """Of a restoration; without it there is nothing to measure one's error against."""
    if not made_of(spec)[0].restores:
        return False
    cell = cell_of(spec)
    return cell.formulation.least_error(cell.dataset) is not None


def test_every_metric_is_finite_wherever_it_serves(answered: tuple[Path, xr.Dataset]) -> None:
    """Served is what the metric does not refuse: each has a target among them, and there no answer
    lacks a number.
    """
    folder, points = answered
    ok = points.isel(point=np.flatnonzero(points["status"].values == "ok"))
    specs = Answers(Store.open(str(folder / "results")), None, None).cell_specs
    made = [made_of(specs[str(cell_id)]) for cell_id in ok["cell_id"].values]
    restoring = {entry.name for entry in formulations if entry.has_defaults and entry.cls().restores}
    known = np.array([least_error_is_known(specs[str(cell_id)]) for cell_id in ok["cell_id"].values])
    for name in metrics.names():
        metric = metrics.create(**MEASURED.get(name, {"name": name}))
        targets = [build(datasets, ONE_DIGIT), *(entry.cls() for entry in datasets if entry.has_defaults)]
        serves = {target.label(): metric.refuses(target) is None for target in targets}
        served = np.array([serves.get(str(label), False) for label in ok["dataset"].values])
        if isinstance(metric, PairedMetric):
            served &= np.array([str(label).partition("(")[0] in restoring for label in ok["formulation"].values])
        if isinstance(metric, ModelMetric):
            models = [metric.refuses_model(f.gives, s) or f.refuses_metric(metric) for f, s in made]
            served &= np.array([reason is None for reason in models])
        assert served.any(), name
        assert np.isfinite(ok[metric.column].values[served]).all(), name
        floored = served & known if isinstance(metric, PairedMetric) else served
        assert np.isfinite(ok[f"{metric.column}_floor"].values[floored]).all(), name
