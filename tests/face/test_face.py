"""The public face: what it names, that each name says what it is, and that importing it costs
nothing.
"""

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import diffatlas as da
from tests.tasks.tiny_store import SPEC, answer

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "diffatlas.py"
HEAVY = ("torch", "prefect", "ray", "zarr", "icechunk", "xarray", "pandas", "numpy", "pydantic", "ruamel", "scipy")


def imported(code: str) -> set[str]:
    """Which heavy packages are there after the code has run in a process of its own."""
    found = f"import sys, json\n{code}\nprint(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", found], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = str(tmp_path_factory.mktemp("face") / "results")
    answer(uri)
    return uri


def test_importing_the_face_imports_nothing_heavy() -> None:
    assert imported("import diffatlas, diffatlas as da; dir(da)") == set()


@pytest.mark.parametrize("module", ["diffatlas", "flows"])
def test_either_module_runs_as_the_command(module: str) -> None:
    command = [sys.executable, "-m", module, "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("diffatlas ")


def test_errors_are_caught_without_importing_anything_heavy() -> None:
    assert imported("import diffatlas as da; da.DiffatlasError, da.WrongValue") == set()


def test_reading_needs_neither_torch_nor_prefect_nor_ray(store: str, tmp_path: Path) -> None:
    code = f"""
import diffatlas as da
points = da.open_results({store!r}, study="tiny")
point = str(points["point_id"].values[0])
da.open_samples({store!r}, point)
kept = points.isel(point=(points["sampler"].values == "heun") & (points["steps"].values == 3))
da.open_trajectory({store!r}, str(kept["point_id"].values[0]))
points.atlas.cube("w1")
da.summary(da.compare(points, points))
da.export({store!r}, {str(tmp_path / "out")!r}, "zarr")
"""
    assert imported(code) & {"torch", "prefect", "ray"} == set()


def test_a_study_is_loaded_and_planned_without_prefect_and_ray(store: str) -> None:
    code = f"import diffatlas as da; da.load_study('smoke'); da.plan('smoke', {store!r}).missing"
    assert imported(code) & {"prefect", "ray"} == set()


def test_the_mathematics_needs_no_service_and_no_store() -> None:
    code = """
import diffatlas as da
x = da.sample(lambda x, sigma: x / (1 + sigma**2), n=4, dim=1, steps=2)
da.train(x, steps=2, batch=4, width=8, depth=1).sample(n=2, steps=1)
da.evaluate(da.exact("uniform").sample(n=10, steps=2), "uniform", "w1")
da.loss_floor("gaussian", "ddpm")
"""
    assert imported(code) & {"prefect", "ray", "zarr", "icechunk", "xarray"} == set()


def test_what_editors_see_is_what_is_there() -> None:
    """The imports for type checkers, `__all__` and the table that is looked up name the same things
    in the same places.
    """
    tree = ast.parse(SOURCE.read_text())
    checked = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    seen: dict[str, tuple[str, str]] = {}
    for node in checked.body:
        assert isinstance(node, ast.ImportFrom)
        seen |= {alias.asname or alias.name: (node.module or "", alias.name) for alias in node.names}
    assert sorted(seen) == sorted(da.__all__)
    for name, (module, attribute) in seen.items():
        __import__(module)
        assert getattr(da, name) is getattr(sys.modules[module], attribute)
    assert set(da.__all__) <= set(dir(da))


@pytest.mark.parametrize("name", [name for name in da.__all__ if name != "analysis"])
def test_every_public_name_has_a_signature_and_says_what_it_is(name: str) -> None:
    thing = getattr(da, name)
    assert inspect.getdoc(thing)
    if inspect.isfunction(thing):
        signature = inspect.signature(thing)
        assert signature.return_annotation is not inspect.Signature.empty
        for parameter in signature.parameters.values():
            assert parameter.annotation is not inspect.Parameter.empty
        assert inspect.getdoc(thing) != (thing.__name__)


def test_every_public_method_of_a_model_says_what_it_is() -> None:
    for name, method in inspect.getmembers(da.Model, inspect.isfunction):
        if not name.startswith("_"):
            assert inspect.getdoc(method), name
    wanted = {"sample", "denoise", "score", "log_likelihood", "save", "load"}
    assert wanted <= set(dir(da.Model))


def test_a_name_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'smaple'.*sample"):
        da.smaple  # type: ignore[attr-defined]  # noqa: B018


def test_the_catalogue_has_every_kind() -> None:
    assert {"datasets", "schedules", "samplers", "formulations", "metrics", "guidances"} <= set(da.catalog())
    assert "heun" in {entry["name"] for entry in da.catalog()["samplers"]}


def test_the_rooms_of_analysis_are_at_hand() -> None:
    found = da.analysis.fokker_planck.time_marginals(da.dataset("uniform"), da.schedule("vp-linear"), [0.0, 1.0])
    assert found.masses.shape[0] == 2


def test_a_plan_is_that_of_the_command(store: str) -> None:
    study = da.load_study("smoke", ["seeds=1"])
    fresh, again = da.plan(study, store), da.plan("smoke", store, ["seeds=1"])
    assert fresh.missing == again.missing > 0
    with pytest.raises(da.DiffatlasError, match="changes are made to what is loaded"):
        da.plan(study, store, ["seeds=2"])
    tiny = da.Study.from_spec(SPEC)
    assert da.plan(tiny, store).missing == 0
