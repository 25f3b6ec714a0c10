"""The examples run, need nothing but the public face, and show what they say."""

import ast
import importlib.util
import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tasks.tiny_store import answer

FOLDER = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(FOLDER.glob("*.py"))
ALLOWED = {"diffatlas", "torch", "xarray", "numpy", "dataclasses", "typing", "math", "sys"}


def loaded(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_is_short_says_what_it_is_and_uses_the_public_face_alone(script: Path) -> None:
    text = script.read_text()
    tree = ast.parse(text)
    assert len(text.splitlines()) < 60
    assert ast.get_docstring(tree)
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert "diffatlas" in modules
    assert {module.split(".")[0] for module in modules} <= ALLOWED


def test_there_are_six_examples() -> None:
    names = {"own_sampler", "own_dataset", "own_posterior", "own_schedule", "own_network", "results_in_xarray"}
    assert {script.stem for script in SCRIPTS} == names


def test_the_own_sampler_is_of_second_order_on_both_schedules() -> None:
    errors = loaded("own_sampler").errors
    for schedule in ("edm", "vp-linear"):
        coarse, fine = errors(schedule, 10), errors(schedule, 40)
        assert 6 < coarse["own"] / fine["own"] < 20  # 16 in the limit, where `ddim` has 4
        assert coarse["own"] < coarse["ddim"] / 3


def test_the_own_data_set_is_learned_and_states_its_moments() -> None:
    import torch

    example = loaded("own_dataset")
    target = example.Spiral()
    draws = target.sample(400_000, torch.Generator().manual_seed(0))
    assert draws.mean(0).tolist() == pytest.approx(target.mean, abs=0.004)  # five standard errors
    assert float((draws - draws.mean(0)).square().mean().sqrt()) == pytest.approx(target.std, rel=0.005)
    for score in example.scores(steps=200).values():
        assert score.value < 4 * score.floor


def test_the_own_posterior_is_the_law_of_parameters_that_its_simulator_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every claim of a data set; the denoiser by an integral over prior and simulator; the outcomes'
    moments within five standard errors.
    """
    import torch

    import diffatlas as da

    example = loaded("own_posterior")
    monkeypatch.setitem(sys.modules, example.__name__, example)  # as a module that is imported, which travels
    target = example.Parabola(2)
    assert [row for row in da.check(target) if not row.holds] == []
    line = torch.linspace(-6, 6, 121, dtype=torch.float64)
    theta = torch.cartesian_prod(line, line, line)
    x, alpha, sigma = torch.tensor([[1.0, -0.4, 0.2]], dtype=torch.float64), 0.8, 0.5
    seen = torch.tensor(target.observed, dtype=torch.float64)
    logs = -0.5 * theta.square().sum(1) - 0.5 * ((seen - theta @ example.VALUES.T) / 0.5).square().sum(1)
    weights = torch.softmax(logs - 0.5 * ((x - alpha * theta) / sigma).square().sum(1), 0)
    expected = (weights[:, None] * theta).sum(0, keepdim=True)
    torch.testing.assert_close(target.denoise(x, alpha, sigma), expected, rtol=0, atol=1e-7)
    joint = target.sample_joint(20_000, torch.Generator().manual_seed(0))
    outcomes, (mean, std) = joint[:, 3:], target.outcomes
    assert outcomes.mean(0).tolist() == pytest.approx(mean, abs=5 * max(std) / math.sqrt(20_000))
    assert outcomes.std(0).tolist() == pytest.approx(std, rel=5 / math.sqrt(2 * 20_000))


def test_on_the_own_schedule_the_exact_denoiser_comes_to_the_data() -> None:
    example = loaded("own_schedule")
    assert example.w1(example.SigmaAsTime(), 40) < 0.012 < example.w1(example.SigmaAsTime(), 5)


def test_the_own_network_is_trained_and_sampled(capsys: pytest.CaptureFixture[str]) -> None:
    scores = loaded("own_network").main(steps=300)
    assert scores["energy"].value < 0.4
    assert re.search(r"score at the origin, sigma = 0\.5: \[\[.*\]\]", capsys.readouterr().out)


def test_results_are_read_in_xarray(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = str(tmp_path / "results")
    answer(store)
    means = loaded("results_in_xarray").main(store)
    assert means.sizes["sampler"] == 2
    captured = capsys.readouterr().out
    assert "16 points" in captured
    assert "the model gives them again: True" in captured
