"""Promises of `diffatlas run`, each kept by the real command with a real Prefect server, a real Ray
and a real store.
"""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import tasks.accessor  # noqa: F401 - points.atlas
from tasks.results import Answers, open_results
from tasks.results.models import ModelledAnswers
from tasks.store import Store
from tests.end_to_end.conftest import SMALL, Command, Once, processes, wait_for
from tests.flows.services.processes import descendants, remaining
from tests.tasks import own_parts
from tests.tasks.answer_oracle import hold_to_its_rows

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("services")]

DURATIONS = ["train_seconds", "sample_seconds"]


def numbers(store: Path) -> xr.Dataset:
    """All that a store says of its points, durations left out, in an order of its own."""
    points = open_results(str(store)).drop_vars(DURATIONS)
    points.attrs = {}
    return points.sortby("point_id")


def large(store: Path) -> dict[str, bytes]:
    """Weights and samples of a store, byte for byte."""
    answers = Answers(Store.open(str(store)))
    found = {f"weights {cell}": answers.weights(cell) for cell in sorted(answers.trained())}
    for point in answers.points["point_id"].values:
        for kind in (answers.samples, answers.trajectory):
            kept = kind(str(point))
            if kept is not None:
                found[f"{kind.__name__} {point}"] = kept.values.tobytes()
    return found


WORKERS = ["ray::train", "ray::sweep"]


def until_workers_run(process: "subprocess.Popen[str]", study: str = "small") -> None:
    """Until this run (not the remains of one before it) has its Ray, and workers have taken shards."""
    assert process.stderr is not None
    assert process.stderr.readline() == f"study {study}: getting Prefect and Ray ready\n"
    assert process.stderr.readline().startswith(f"study {study}: 32 points to compute")
    wait_for(lambda: len(processes(WORKERS)) > 0)


def same(one: Path, other: Path) -> None:
    xr.testing.assert_identical(numbers(one), numbers(other))
    assert large(one) == large(other)


def test_a_run_answers_every_point_and_a_second_run_does_nothing(once: Once) -> None:
    assert "report: reports/once.html" in once.said.stdout
    assert "exact edm" in once.said.stdout
    text = [line for line in once.said.stderr.splitlines() if line.strip()]
    assert all(line.startswith(("study once:", "shard ", "32 points computed")) for line in text), once.said.stderr
    assert "±" in once.said.stdout
    points = open_results(str(once.store), "once")
    # 2 formulations and 2 exact rows, 2 seeds, 2 samplers, 2 step counts
    assert points.sizes["point"] == 32
    assert set(points["status"].values) == {"ok"}
    assert np.isfinite(points["w1"]).all()
    assert np.isfinite(points["w1_floor"]).all()
    assert (once.diffatlas.folder / "reports" / "once.html").stat().st_size > 1_000_000

    before = Store.open(str(once.store)).history()
    second = once.diffatlas(
        "run", "once.yaml", PREFECT_API_URL="http://127.0.0.1:9/api"
    )  # nothing to orchestrate: not asked
    assert "nothing to compute" in second.stderr
    assert Store.open(str(once.store)).history() == before


def test_the_answer_that_a_run_s_page_opens_with_is_what_its_rows_say(once: Once) -> None:
    """Who wins and how surely, what limits it and what failed, worked out once more by numpy and scipy."""
    said = hold_to_its_rows(ModelledAnswers(Store.open(str(once.store)), "once"))
    assert said["What failed"] == "Nothing failed: all 32 points have an answer."


def test_growing_an_axis_runs_exactly_what_is_missing(diffatlas: Command) -> None:
    (diffatlas.folder / "small.yaml").write_text(SMALL)
    diffatlas.answer_here("small.yaml")
    store = diffatlas.folder / "results"
    old, weights = numbers(store), large(store)

    planned = json.loads(diffatlas("plan", "small.yaml", "--set", "steps=[2,5,9]", "--json").stdout)
    assert planned["points"] == {"asked": 48, "done": 32, "missing": 16, "failed": 0, "impossible": 0}
    assert planned["cells_to_train"] == 0

    # three trained formulations and three exact rows, three seeds, two samplers, two step counts;
    # 32 points are there
    both = ("--set", "seeds=3", "--set", "formulations=[edm, ddpm, ve]")
    planned = json.loads(diffatlas("plan", "small.yaml", *both, "--json").stdout)
    assert (planned["points"]["missing"], planned["cells_to_train"]) == (6 * 3 * 4 - 32, 3 * 3 - 4)
    grown = diffatlas("run", "small.yaml", *both)
    assert "40 points computed, 5 cells trained" in grown.stderr
    assert re.search(
        r"since the last run: 0 of \d+ comparisons moved, all .* same .*; 40 points appeared", grown.stderr
    )

    now = numbers(store)
    kept = now.isel(point=np.isin(now["point_id"].values, old["point_id"].values))
    xr.testing.assert_identical(kept, old)
    assert weights.items() <= large(store).items()
    cube = open_results(str(store), "small").atlas.cube("w1")
    assert cube.dims == ("dataset", "formulation", "schedule", "sampler", "steps", "seed")


def test_numbers_do_not_depend_on_workers_or_packing(diffatlas: Command, once: Once) -> None:
    (diffatlas.folder / "small.yaml").write_text(SMALL)
    diffatlas.answer_here("small.yaml", "one")  # as a single worker does; `once` had two
    # and in pieces, so that other stacks are trained
    diffatlas.answer_here("small.yaml", "pieces", "formulations=[ddpm]", "seeds=[1]")
    grown = diffatlas("run", "small.yaml", "--store", "pieces", "--workers", "3")
    assert "24 points computed, 3 cells trained" in grown.stderr
    same(diffatlas.folder / "one", once.store)
    same(diffatlas.folder / "one", diffatlas.folder / "pieces")


LONG = SMALL.replace("steps: 120", "steps: 5000")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the study of more steps has in its store if nothing goes wrong."""
    here = Command(tmp_path_factory.mktemp("undisturbed"), "")
    (here.folder / "small.yaml").write_text(LONG)
    here.answer_here("small.yaml")
    return here.folder / "results"


def test_a_killed_run_goes_on_to_the_same_bits_and_leaves_nothing_running(
    diffatlas: Command, undisturbed: Path
) -> None:
    (diffatlas.folder / "small.yaml").write_text(LONG)
    process = diffatlas.start("run", "small.yaml", "--store", "killed")
    until_workers_run(process)
    time.sleep(2.0)  # in the middle of training
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.communicate()
    killed = Answers(Store.open(str(diffatlas.folder / "killed")), "small").points
    assert killed.sizes["point"] < 32, "the run was killed too late to show anything"

    diffatlas("run", "small.yaml", "--store", "killed")
    same(diffatlas.folder / "killed", undisturbed)
    wait_for(lambda: not processes(["ray::", "raylet", "gcs_server"]))


def running(diffatlas: Command) -> list[str]:
    """The task runs of which `status` tells."""
    return [one["task"] for one in json.loads(diffatlas("status", "--json").stdout)["run"]["running"]]


def test_an_interrupted_run_keeps_what_is_committed_and_ends_its_services(
    diffatlas: Command, undisturbed: Path
) -> None:
    (diffatlas.folder / "small.yaml").write_text(LONG)
    process = diffatlas.start("run", "small.yaml")
    assert process.stderr is not None
    line = process.stderr.readline()
    while "committed" not in line:  # the exact rows come first
        assert line, "the run ended before it committed anything"
        line = process.stderr.readline()
    told = json.loads(diffatlas("status", "--json").stdout)  # from another terminal
    assert (told["holder"]["pid"], told["run"]["study"]) == (process.pid, "small")
    assert 0 < told["run"]["shards_done"] < told["run"]["shards"]
    watching = diffatlas.start("status", "--watch", "--json")
    wait_for(lambda: running(diffatlas) == ["train uniform: edm x2, ddpm x2"])
    assert watching.stdout is not None
    doing = ""
    while not re.fullmatch(r"step [1-9]\d* of 5000, loss [\d.e-]+, on cpu", doing):  # what its worker does
        looked = (json.loads(watching.stdout.readline())["run"] or {}).get("running", [])
        doing = next((one["doing"] for one in looked if one["task"].startswith("train ")), "")
    mine = descendants(process.pid)
    os.kill(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    looks, complaints = watching.communicate(timeout=30)  # it ends with the run
    assert (watching.returncode, complaints) == (0, "")
    assert json.loads(looks.splitlines()[-1])["holder"] is None
    assert "interrupted" in err
    assert "Traceback" not in err
    assert remaining(mine, 20) == set()
    store = diffatlas.folder / "results"
    assert set(open_results(str(store), "small")["formulation"].values) == {"exact"}
    with Store.open(str(store)).coordinate():  # its lock is free
        pass
    diffatlas.answer_here("small.yaml")
    same(store, undisturbed)


def test_when_rays_head_is_killed_what_is_committed_stays_and_the_reason_is_said(
    diffatlas: Command, undisturbed: Path
) -> None:
    (diffatlas.folder / "small.yaml").write_text(LONG)
    process = diffatlas.start("run", "small.yaml")
    until_workers_run(process)
    store = str(diffatlas.folder / "results")
    wait_for(lambda: open_results(store, "small").sizes["point"] > 0)  # the exact rows
    mine = descendants(process.pid)
    (head,) = {pid for pid, _ in mine} & set(processes(["gcs_server"]))
    os.kill(head, signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 3, out + err
    assert "The head of the Ray cluster at" in err
    assert "What is committed stays" in err
    assert "Traceback" not in err
    assert remaining(mine, 20) == set()
    with Store.open(store).coordinate():  # its lock is free
        pass
    assert set(open_results(store, "small")["formulation"].values) == {"exact"}
    diffatlas.answer_here("small.yaml")
    same(diffatlas.folder / "results", undisturbed)


def test_a_killed_worker_is_replaced_and_nothing_is_lost(diffatlas: Command, undisturbed: Path) -> None:
    (diffatlas.folder / "small.yaml").write_text(LONG)
    process = diffatlas.start("run", "small.yaml", "--store", "hurt")
    until_workers_run(process)
    time.sleep(1.0)
    for worker in processes(WORKERS)[:1]:
        os.kill(worker, signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    same(diffatlas.folder / "hurt", undisturbed)


def test_what_diverges_or_cannot_be_is_recorded_with_its_reason_and_the_others_finish(diffatlas: Command) -> None:
    (diffatlas.folder / "wild.yaml").write_text(
        SMALL.replace("name: small", "name: wild").replace("formulations: [edm, ddpm]", "")
        + "grids:\n  - {formulations: [edm]}\n  - {formulations: [ddpm], training: {learning_rate: 1.0e+6}}\n"
        + "  - formulations: [{name: exact, schedule: edm}, {name: exact, schedule: ddpm-linear}]\n"
        + "    samplers: [heun]\n    seeds: [0]\n    steps: [2, 200]\n"
    )
    result = diffatlas("run", "wild.yaml", code=1)
    assert "training diverged" in result.stderr
    points = open_results(str(diffatlas.folder / "results"), "wild")
    failed = points["status"].values == "failed"
    assert set(points["formulation"].values[failed]) == {"ddpm"}
    assert failed.sum() == 8
    assert all("training diverged" in text for text in points["error"].values[failed])
    assert np.isnan(points["w1"].values[failed]).all()
    skipped = points.isel(point=points["status"].values == "skipped")
    assert set(zip(skipped["schedule"].values, skipped["steps"].values, strict=True)) == {("ddpm-linear", 200)}
    assert "has 100 levels, fewer than 200 steps" in str(skipped["error"].values[0])
    assert np.isfinite(points["w1"].values[points["status"].values == "ok"]).all()
    assert "training diverged" in (diffatlas.folder / "reports" / "wild.html").read_text()
    # a finished study with failures stays failed; nothing runs again unless asked to
    again = diffatlas("run", "wild.yaml", code=1)
    assert "nothing to compute" in again.stderr


def test_a_store_in_use_is_refused_and_its_holder_named(diffatlas: Command) -> None:
    (diffatlas.folder / "small.yaml").write_text(SMALL)
    store = Store.create(str(diffatlas.folder / "results"))
    with store.coordinate():
        result = diffatlas("run", "small.yaml", code=3)
        assert f"process {os.getpid()}" in result.stderr
        assert len(store.history()) == 2  # made by icechunk and by us, nothing since


DEADLY = '''
import os
import time
from dataclasses import dataclass
from typing import ClassVar

from diffusion.samplers import Sampler


@dataclass(frozen=True)
class Deadly(Sampler):
    """Ends its worker on one formulation's levels only."""

    order: ClassVar[int] = 1

    def step(self, denoiser, x, now, then, noise):
        if (now.alpha < 1).any():
            print("no alpha below one", flush=True)
            os._exit(137)
        return x * 0.0


@dataclass(frozen=True)
class Hanging(Sampler):
    """Never returns."""

    order: ClassVar[int] = 1

    def step(self, denoiser, x, now, then, noise):
        time.sleep(10000)


@dataclass(frozen=True)
class Faulty(Sampler):
    """Raises on one formulation's levels only."""

    order: ClassVar[int] = 1

    def step(self, denoiser, x, now, then, noise):
        if (now.alpha < 1).any():
            raise ArithmeticError("no alpha below one, please")
        return x * 0.0
'''


def test_a_users_samplers_that_raise_or_end_their_worker_fail_their_own_points_only(diffatlas: Command) -> None:
    """Two shards with both of them: what else these hold is answered, with the bits of an undisturbed run."""
    (diffatlas.folder / "mine.py").write_text(DEADLY)
    (diffatlas.folder / "small.yaml").write_text(SMALL)
    diffatlas.answer_here("small.yaml", "undisturbed", "samplers=[heun]")
    samplers = 'samplers=[heun, "mine:Faulty", "mine:Deadly"]'
    path = f"{diffatlas.folder}:{os.environ.get('PYTHONPATH', '')}"
    result = diffatlas("run", "small.yaml", "--set", samplers, code=1, PYTHONPATH=path)
    assert "ArithmeticError: no alpha below one, please" in result.stderr
    assert result.stderr.count("  try 2: ") == 2
    points = open_results(str(diffatlas.folder / "results"), "small")
    failed = points["status"].values == "failed"
    assert set(points["sampler"].values[failed]) == {"mine:Faulty", "mine:Deadly"}
    assert set(points["schedule"].values[failed]) == {"ddpm-linear"}
    assert failed.sum() == 16
    dead = points["error"].values[failed & (points["sampler"].values == "mine:Deadly")]
    assert set(dead) == {"the worker ended without an answer (exit status 137; its log ends: no alpha below one)"}
    store, undisturbed = diffatlas.folder / "results", diffatlas.folder / "undisturbed"
    now = numbers(store)
    xr.testing.assert_identical(now.isel(point=now["sampler"].values == "heun"), numbers(undisturbed))
    assert large(undisturbed).items() <= large(store).items()
    tried = [entry["metadata"] for entry in Store.open(str(store)).history() if "swept" in str(entry["message"])]
    assert [entry["tries"] for entry in tried] == ["2", "2"]
    assert all("WorkerCrashedError" in str(entry["earlier_tries"]) for entry in tried)
    again = diffatlas("run", "small.yaml", "--set", samplers, code=1, PYTHONPATH=path)
    assert "nothing to compute" in again.stderr


def test_classes_of_ones_own_are_themselves_on_the_workers_too(diffatlas: Command) -> None:
    """They lie beside the study, which is not where the installed command is started: its path leads to neither."""
    installed = (
        "import sys; sys.path.remove(''); sys.argv[0] = 'diffatlas'; from flows.command_line import main; main()"
    )
    (diffatlas.folder / "beside").mkdir()
    (diffatlas.folder / "beside" / "own.py").write_text(Path(own_parts.__file__).read_text())
    (diffatlas.folder / "beside" / "own.yaml").write_text("""
name: own
datasets: [uniform, "own:Wide"]
formulations: [edm]
seeds: 1
training: {steps: 20, batch: 32, width: 16, depth: 1, data: 500}
samplers: [ddim, "own:First", "own:Second", "own:Leaving", "own:Flat", heun, "own:HalfHeun"]
steps: [3]
samples: 300
metrics: [w1, "own:Hundredfold"]
""")
    _, told = diffatlas.python(installed, "run", "beside/own.yaml", "--workers", "1", code=1)
    assert "SystemExit: 3" in told
    assert "gave samples of shape [1, 300], expected [1, 300, 1]" in told
    points = open_results(str(diffatlas.folder / "results"))
    failed = points["status"].values == "failed"
    assert set(points["sampler"].values[failed]) == {"own:Leaving", "own:Flat"}
    w1 = {
        (dataset, formulation, sampler): float(value)
        for dataset, formulation, sampler, value in zip(
            *(points[n].values for n in ("dataset", "formulation", "sampler", "w1")), strict=True
        )
    }
    for dataset in ("uniform", "own:Wide"):
        for formulation in ("edm", "exact"):
            by = {sampler: w1[dataset, formulation, sampler] for sampler in set(points["sampler"].values[~failed])}
            assert by["own:First"] == by["ddim"]
            assert len({by["own:First"], by["own:Second"], by["heun"], by["own:HalfHeun"]}) == 4
    assert w1["uniform", "edm", "heun"] != w1["own:Wide", "edm", "heun"]  # trained on what each is
    assert w1["uniform", "exact", "heun"] != w1["own:Wide", "exact", "heun"]  # from noise of its own
    np.testing.assert_allclose(points["own:Hundredfold"][~failed], 100 * points["w1"][~failed], rtol=1e-12)
    again, _ = diffatlas.python(installed, "plan", "beside/own.yaml", "--json")
    assert json.loads(again)["points"]["missing"] == 0


def test_a_shard_that_hangs_is_ended_at_its_limit_and_the_question_that_hangs_has_failed(diffatlas: Command) -> None:
    (diffatlas.folder / "mine.py").write_text(DEADLY)
    (diffatlas.folder / "hung.yaml").write_text(
        "name: hung\ndatasets: [uniform]\nformulations: [{name: exact, schedule: edm}]\nseeds: 1\n"
        'samplers: [heun, "mine:Hanging"]\nsteps: [2]\nsamples: 50\nmetrics: [w1]\n'
    )
    path = f"{diffatlas.folder}:{os.environ.get('PYTHONPATH', '')}"
    result = diffatlas("run", "hung.yaml", "--shard-limit", "0.3", "--workers", "1", code=1, PYTHONPATH=path)
    assert "  try 2: " in result.stderr
    points = open_results(str(diffatlas.folder / "results"), "hung")
    errors = dict(zip(points["sampler"].values.tolist(), points["error"].values.tolist(), strict=True))
    assert errors["heun"] == ""
    assert "no answer within" in errors["mine:Hanging"]
    assert "in step" in errors["mine:Hanging"]
    wait_for(lambda: not processes(["tasks.work.child"]))
