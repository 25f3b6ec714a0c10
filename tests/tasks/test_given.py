"""Networks that somebody has already, as a formulation: asked like the others, known by what they
are.
"""

from __future__ import annotations

import importlib
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from diffusion import plugins
from diffusion.datasets import GaussianMixture, datasets
from diffusion.errors import WrongValue
from diffusion.formulations import Given
from diffusion.schedules import EDM, DDPMLinear, Flow, Schedule, VPLinear
from flows.command_line import app
from tasks.models import CannotBeMade, cell_of
from tasks.plan import make_plan
from tasks.plan.cell import Cell
from tasks.results import Answers, open_results, open_samples
from tasks.results.models import open_model
from tasks.store import Store
from tasks.study import Study, StudyError
from tests.tasks import given_parts
from tests.tasks.tiny_store import answer

PARTS = "tests.tasks.given_parts"
LAW = {"name": "gaussian_mixture", "weights": [0.3, 0.7], "means": [-1.0, 1.0], "stds": [0.5, 0.4]}
EPSILON = {"name": "given", "module": f"{PARTS}:epsilon", "predicts": "epsilon", "schedule": "vp-linear"}
PREDICTS = {"x0": "x0", "epsilon": "epsilon", "score": "score", "v": "v", "velocity": "flow-velocity"}


@pytest.fixture(autouse=True)
def parts_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(plugins.VARIABLE, PARTS)


def study_of(*formulations: dict[str, Any] | str, **more: Any) -> dict[str, Any]:
    return {
        "name": "given",
        "datasets": [LAW],
        "formulations": list(formulations),
        "samplers": ["heun", "ancestral", {"name": "ddim", "schedule": {"name": "edm", "sigma_min": 0.02}}],
        "steps": [3],
        "samples": 60,
        "metrics": ["w1"],
        "keep": {"samples": True},
        **more,
    }


@pytest.mark.parametrize(("factory", "predicts"), PREDICTS.items())
@pytest.mark.parametrize("asked_on", [VPLinear(), EDM(), Flow(t_max=0.99)], ids=lambda s: s.label())
def test_whatever_a_network_predicts_its_denoiser_is_the_ideal_one(
    factory: str, predicts: Any, asked_on: Schedule
) -> None:
    model = Given(f"{PARTS}:{factory}", predicts, VPLinear()).model
    t = asked_on.time_of(torch.tensor([0.01, 0.5, 20.0], dtype=torch.float64))
    alpha, sigma = asked_on.alpha(t), asked_on.sigma(t)
    x = (alpha + 0.3)[:, None, None] * torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    expected = given_parts.LAW.denoise(x, alpha[:, None], sigma[:, None])
    torch.testing.assert_close(model(x, alpha, sigma), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("declared", PREDICTS.values())
@pytest.mark.parametrize("factory", PREDICTS)
def test_a_network_that_predicts_something_else_is_refused_and_told_what(factory: str, declared: Any) -> None:
    reason = Given(f"{PARTS}:{factory}", declared, VPLinear()).refuses_dataset(given_parts.LAW)
    right = PREDICTS[factory]
    if declared == right:
        assert reason is None
    else:
        assert reason is not None
        assert reason.startswith(f"'{PARTS}:{factory}' does not predict {declared!r}: ")
        assert reason.endswith(f"(write predicts: {right})")


@pytest.mark.parametrize("declared", PREDICTS.values())
def test_a_network_that_knows_nothing_of_the_data_is_asked_as_it_is_declared(declared: Any) -> None:
    """One that returns zero, which some readings make a linear denoiser of; one with random weights; and
    the ideal one of data far away.
    """
    for factory in ("silent", "untrained"):
        for target in (given_parts.LAW, datasets.create("uniform"), datasets.create("gaussian")):
            assert Given(f"{PARTS}:{factory}", declared, VPLinear()).refuses_dataset(target) is None
    far = GaussianMixture((1.0,), (40.0,), (0.1,))
    assert Given(f"{PARTS}:epsilon", declared, VPLinear()).refuses_dataset(far) is None


def test_a_network_that_counts_levels_is_told_the_number_from_zero_on() -> None:
    chain = DDPMLinear(levels=100)
    model = Given(f"{PARTS}:counted", "epsilon", chain, takes="timestep").model
    t = chain.level_times[::30]
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None].expand(len(t), 9, 1)
    expected = given_parts.LAW.denoise(x, chain.alpha(t)[:, None], chain.sigma(t)[:, None])
    torch.testing.assert_close(model(x, chain.alpha(t), chain.sigma(t)), expected, rtol=0, atol=1e-9)
    with pytest.raises(WrongValue, match="timestep counts the levels of a discrete schedule, and vp-linear has none"):
        Given(f"{PARTS}:epsilon", "epsilon", VPLinear(), takes="timestep")


def test_a_study_asks_it_like_the_others(tmp_path: Path) -> None:
    """The ideal network gives the samples of the ideal denoiser, beside a network that is trained."""
    uri = str(tmp_path / "store")
    tiny = {"steps": 4, "batch": 8, "width": 8, "depth": 1, "data": 50}
    answer(uri, study_of(EPSILON, "vp", training=tiny, seeds=2))
    points = open_results(uri, study="given")
    assert set(points["status"].values.tolist()) == {"ok"}
    labels = sorted(set(points["formulation"].values.tolist()))
    assert labels[0] == "exact"
    assert labels[1].startswith(f"given({PARTS}:epsilon@")
    assert labels[2:] == ["vp"]
    frame = points[["formulation", "sampler", "seed", "w1"]].to_dataframe().reset_index()
    both = frame[frame.formulation != "vp"].pivot_table(index=["sampler", "seed"], columns="formulation", values="w1")
    assert both[labels[0]].tolist() == pytest.approx(both[labels[1]].tolist(), abs=1e-9)
    assert len(both) == 6
    specs = Answers(Store.open(uri)).cell_specs.values()
    remade = [cell_of(spec) for spec in specs if spec["formulation"]["name"] == "given"]
    assert {cell.id for cell in remade} <= {*Answers(Store.open(uri)).cell_specs}
    assert len(remade) == 2
    assert make_plan(Study.from_spec(study_of(EPSILON)), {}, ()).points

    (asked,) = frame[(frame.formulation == labels[1]) & (frame.sampler == "heun") & (frame.seed == 0)]["point"]
    point = points.isel(point=int(asked))
    again = open_model(uri, str(point["cell_id"].values)).sample("heun", steps=3, n=60)
    stored = open_samples(uri, str(point["point_id"].values)).values
    assert (again[:, 0].numpy().astype(stored.dtype) == stored.reshape(-1)).all()


TWO_PLACES = {"name": "eight_gaussians"}
OBSERVED = {"name": "observation", "coordinates": 0, "values": 0.9, "std": 0.2}


@pytest.mark.parametrize(
    ("law", "module", "sampler", "metric"),
    [
        (LAW, "epsilon", {"name": "heun", "grid": "log-snr"}, "w1"),
        (LAW, "epsilon", {"name": "dpmpp-2m", "grid": "log-snr", "schedule": {"name": "edm", "sigma_min": 0.02}}, "w1"),
        (TWO_PLACES, "plane", {"name": "heun", "grid": "log-snr"}, "energy"),
        (TWO_PLACES, "plane", {"name": "heun", "guidance": OBSERVED}, "energy"),
        (TWO_PLACES, "plane", {"name": "ancestral", "guidance": OBSERVED, "grid": "log-snr"}, "energy"),
    ],
    ids=["grid", "grid and schedule", "grid in the plane", "guidance", "both"],
)
def test_on_another_grid_and_with_guidance_it_gives_the_exact_rows(
    law: dict[str, Any], module: str, sampler: dict[str, Any], metric: str, tmp_path: Path
) -> None:
    """The ideal network, asked elsewhere than at its own levels, and through its gradient."""
    uri = str(tmp_path / "store")
    given = EPSILON | {"module": f"{PARTS}:{module}"}
    spec = study_of(given, "exact", datasets=[law], samplers=["heun", sampler], steps=[5], metrics=[metric])
    answer(uri, {**spec, "schedules": ["vp-linear"]})
    points = open_results(uri)
    assert set(points["error"].values.tolist()) == {""}
    columns = [points[name].values.astype(str).tolist() for name in ("sampler", "grid", "guidance", "point_id")]
    samples = {
        (label == "exact", "|".join(question)): open_samples(uri, point).values
        for label, *question, point in zip(points["formulation"].values.tolist(), *columns, strict=True)
    }
    assert len(samples) == 4
    plain, other = sorted({question for _, question in samples})
    for question in (plain, other):
        np.testing.assert_allclose(samples[True, question], samples[False, question], rtol=0, atol=1e-5)
    assert np.abs(samples[True, plain] - samples[True, other]).max() > 1e-3  # they are different questions


def given_of(weights: Path | None, module: str = f"{PARTS}:epsilon") -> Given:
    return Given(module, "epsilon", VPLinear(), None if weights is None else str(weights))


def id_of(given: Given) -> str:
    return Cell(given_parts.LAW, given, VPLinear(), 0, None).id


def test_its_id_follows_from_its_weights_and_from_the_source_of_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / name for name in ("a.safetensors", "b.safetensors", "moved.safetensors")]
    for file, scale in zip(files, (0.5, 0.6, 0.5), strict=True):
        save_file({"scale": torch.full((1,), scale, dtype=torch.float64)}, file)
    ids = [id_of(given_of(file)) for file in (None, *files)]
    assert ids[1] == ids[3]
    assert len(set(ids)) == 3
    plugins.allow(["a_network_of_mine"])
    monkeypatch.syspath_prepend(tmp_path)
    source = tmp_path / "a_network_of_mine.py"
    source.write_text("def load():\n    return lambda x, t: 0 * x\n")
    first = given_of(None, "a_network_of_mine:load")
    assert given_of(None, "a_network_of_mine:load").digest == first.digest
    source.write_text("def load():\n    return lambda x, t: 1.5 * x\n")
    with pytest.raises(WrongValue, match="the file of 'a_network_of_mine' has changed since it was imported"):
        given_of(None, "a_network_of_mine:load")
    importlib.reload(sys.modules["a_network_of_mine"])
    assert id_of(given_of(None, "a_network_of_mine:load")) != id_of(first)
    with pytest.raises(
        WrongValue, match="or its weights have changed since, or they stood in a file: a store does not"
    ):
        Given("a_network_of_mine:load", "epsilon", VPLinear(), digest=first.digest)


def test_a_stored_one_whose_weights_are_in_a_file_is_not_made_again_and_says_so(tmp_path: Path) -> None:
    file = tmp_path / "half.safetensors"
    save_file({"scale": torch.full((1,), 0.5, dtype=torch.float64)}, file)
    stored = json.loads(json.dumps(Cell(given_parts.LAW, given_of(file), VPLinear(), 0, None).spec))
    with pytest.raises(CannotBeMade, match="so what needs one cannot be made from a store"):
        cell_of(stored)


@pytest.mark.parametrize("name", ["closed", "bound", "partly", "held", "named"])
def test_a_function_that_holds_a_network_is_refused_for_its_weights_would_not_count(name: str) -> None:
    with pytest.raises(WrongValue, match=r"that holds a torch.nn.Module \(Exact\), whose weights"):
        Given(f"{PARTS}:{name}", "epsilon", VPLinear())


def test_it_travels_with_its_weights(tmp_path: Path) -> None:
    file = tmp_path / "half.safetensors"
    save_file({"scale": torch.full((1,), 0.5, dtype=torch.float64)}, file)
    given = given_of(file)
    sent = pickle.dumps(given)
    file.unlink()
    arrived = pickle.loads(sent)  # noqa: S301 - what was pickled here
    at = torch.ones(1, 3, 1).double(), torch.full((1,), 0.8).double(), torch.full((1,), 0.6).double()
    assert arrived == given
    assert torch.equal(arrived.model(*at), given.model(*at))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"module": f"{PARTS}:nothing"}, f"'{PARTS}' has no 'nothing'; it has: "),
        ({"module": "no_such_module:load"}, "'no_such_module:load' could not be imported: ModuleNotFoundError"),
        ({"module": PARTS}, "accepted: package.module:factory, such as mine:load"),
        ({"module": f"{PARTS}:NUMBER"}, "is no function; accepted: one without arguments"),
        ({"module": f"{PARTS}:raising"}, "called without arguments, ended with RuntimeError: no such luck"),
        ({"module": f"{PARTS}:lonely"}, "the network: found a function of (x); accepted: one of x"),
        ({"module": f"{PARTS}:short"}, "the network returned a tensor of float64 of shape [2] for x of shape [2, 1]"),
        ({"module": f"{PARTS}:extra"}, "holds dict at '_extra_state'; accepted: dense tensors"),
        ({"weights": "nowhere.safetensors"}, "there is no file 'nowhere.safetensors'"),
        ({"weights": "other.safetensors"}, f"are not those of '{PARTS}:epsilon'"),
        ({"weights": "other.safetensors"}, "it lacks 1 of 1 (scale), it has 1 that the network has not (other)"),
        ({"weights": "wide.safetensors"}, "it has 1 of another shape (scale [2] instead of [1])"),
        ({"weights": "text.safetensors"}, "is no safetensors file that can be read"),
        ({"module": f"{PARTS}:short", "weights": "other.safetensors"}, "only a torch.nn.Module takes weights"),
        ({"predicts": "noise"}, "x0"),
    ],
    ids=lambda value: next(iter(value.values())) if isinstance(value, dict) else "",
)
def test_what_cannot_be_right_is_refused_with_the_sentence_that_helps(
    change: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_file({"other": torch.ones(2)}, "other.safetensors")
    save_file({"scale": torch.ones(2)}, "wide.safetensors")
    Path("text.safetensors").write_text("no weights")
    with pytest.raises(StudyError) as refused:
        Study.from_spec(study_of(EPSILON | change))
    assert said in str(refused.value)


def test_a_module_that_nobody_has_allowed_is_not_imported_and_the_command_ends_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a_stranger.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.setenv(plugins.VARIABLE, "")
    monkeypatch.syspath_prepend(elsewhere)
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(json.dumps(study_of(EPSILON | {"module": "a_stranger:load"})))
    found = CliRunner().invoke(app, ["plan", "study.yaml"])
    assert found.exit_code == 2
    assert "nothing in the module 'a_stranger' is called, because nobody has allowed it" in found.stderr


def test_a_given_network_of_data_that_models_see_standardised_is_refused_in_the_plan() -> None:
    """It was trained on the data as they are; asked of z it would answer wrongly without a word."""
    spec = study_of(EPSILON, "exact", datasets=[LAW, {"name": "standardised", "of": LAW}])
    plan = make_plan(Study.from_spec(spec), {}, [])
    refused = {point.cell.dataset.registered_name for point in plan.points if point.id in plan.impossible}
    given = [point for point in plan.points if isinstance(point.cell.formulation, Given)]
    assert refused == {"standardised"}
    for point in given:
        moved = point.cell.dataset.frame is not None
        assert (point.id in plan.impossible) == moved
        if moved:
            assert plan.impossible[point.id] == (
                "'given' was trained on a data set in its own units, and models of "
                f"{point.cell.dataset.label()!r} see others (name the data set itself, not standardised)"
            )
    assert len(plan.impossible) == len(given) / 2


@pytest.mark.parametrize("dim", [1, 2, 3, 5])
def test_a_network_that_takes_one_level_for_all_points_is_refused_in_every_dimension(dim: int) -> None:
    given = Given(f"{PARTS}:unshaped", "x0", EDM())
    reason = given.refuses_dataset(datasets.create("gaussian", dim=dim))
    assert reason is not None
    assert f"cannot be asked for points of {dim} coordinates" in reason
