"""The stages of a run, as Prefect's pages show them, and what becomes of the others when one of
them dies. Real processes.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from flows.scale import predict
from tasks.plan import make_plan
from tasks.results import Answers, open_results
from tasks.store import Store
from tasks.study import load_study
from tasks.work.code import code_here
from tests.end_to_end.conftest import SMALL, Command, Once, wait_for
from tests.end_to_end.test_command_line import same, until_workers_run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("services")]

STAGES = ("data", "train", "sweep", "commit", "report")


@pytest.fixture
def client(prefect_url: str) -> Iterator[Any]:
    from prefect.client.orchestration import SyncPrefectClient

    with SyncPrefectClient(prefect_url) as found:
        yield found


def flow_run(client: Any, study: str) -> Any:
    """The only flow run of a study."""
    (found,) = [run for run in client.read_flow_runs() if run.name == f"{study}.yaml"]
    return found


def task_runs_of(client: Any, at: Any) -> list[Any]:
    """The task runs of a flow run that Prefect knows so far."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    found: list[Any] = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[at])))
    return found


def task_runs(client: Any, study: str, number: int) -> list[Any]:
    """The task runs of a study's only flow run: recorded from events, a moment later, until there
    are so many that have ended.
    """
    runs: list[Any] = []

    def recorded() -> bool:
        at = flow_run(client, study).id
        runs[:] = task_runs_of(client, at)
        return len(runs) >= number and all(run.state.is_final() for run in runs)

    wait_for(recorded)
    assert len(runs) == number, sorted(run.name for run in runs)
    return runs


def by_stage(runs: list[Any]) -> Counter[tuple[str, str]]:
    """How many task runs of each stage ended in each state."""
    return Counter((run.name.split(":")[0], run.state_type.value) for run in runs)


def study(diffatlas: Command, name: str, **changes: str) -> str:
    """A file with the small study under a name of its own."""
    text = SMALL.replace("name: small", f"name: {name}")
    for old, new in changes.items():
        text = "\n".join(f"{old}: {new}" if line.startswith(f"{old}:") else line for line in text.splitlines())
    (diffatlas.folder / f"{name}.yaml").write_text(text)
    return f"{name}.yaml"


def test_the_five_stages_have_task_runs_of_one_flow_run_and_data_go_from_each_to_the_next(
    once: Once, client: Any
) -> None:
    # two sets of data; a stack of four networks, trained and swept; a shard of exact cells, swept;
    # each committed, after the study
    runs = task_runs(client, "once", 1 + 1 + 2 + 4 + 1)
    assert by_stage(runs) == {
        ("data", "COMPLETED"): 1,
        ("train", "COMPLETED"): 1,
        ("sweep", "COMPLETED"): 2,
        ("commit", "COMPLETED"): 4,
        ("report", "COMPLETED"): 1,
    }
    named = {run.name: run for run in runs}
    trained = named["train: uniform: edm x2, ddpm x2"]
    swept = named["sweep: uniform: edm x2, ddpm x2"]
    assert [one.id for one in trained.task_inputs["data"]] == [named["data: uniform, 2 seeds"].id]
    assert [one.id for one in swept.task_inputs["trained"]] == [trained.id]
    history = Store.open(str(once.store)).history()
    messages = [entry["message"] for entry in history]
    computed = [
        entry["metadata"] for entry in history if ": trained" in entry["message"] or ": swept" in entry["message"]
    ]
    assert [made["code"] for made in computed] == 3 * [code_here().digest]
    assert messages.index("study once: trained uniform: edm x2, ddpm x2") > messages.index(
        "study once: swept uniform: edm x2, ddpm x2"
    )


def test_it_foretells_the_commits_of_a_real_run(once: Once) -> None:
    plan = make_plan(load_study(once.diffatlas.folder / "once.yaml"), {}, ())
    found = predict(plan, 2)
    assert found is not None
    names = [shard.name for shard in plan.shards(2)]
    foretold = [
        f"study once: {'trained' if one.stage == 'train' else 'swept'} {names[one.shard]}" for one in found.line.commits
    ]
    history = [str(entry["message"]) for entry in reversed(list(Store.open(str(once.store)).history()))]
    committed = [message for message in history if ": trained" in message or ": swept" in message]
    assert sorted(foretold) == sorted(committed)
    assert found.task_runs == len(committed)  # each task run of a shard has a commit


def test_a_sampler_that_is_added_is_swept_and_nothing_is_trained(diffatlas: Command, client: Any) -> None:
    diffatlas.answer_here(study(diffatlas, "first"))
    result = diffatlas("run", study(diffatlas, "more", samplers="[heun, ancestral, {name: ddim, eta: 0.5}]"))
    assert "16 points computed, 0 cells trained" in result.stderr
    stages = by_stage(task_runs(client, "more", 2 + 3 + 1))
    assert stages == {("sweep", "COMPLETED"): 2, ("commit", "COMPLETED"): 3, ("report", "COMPLETED"): 1}


def test_a_sweep_that_dies_costs_no_training(diffatlas: Command, client: Any, once: Once) -> None:
    """Every sweep ends its worker, and then every process in which a part of it is tried apart; what
    was trained is in the store, and is not trained again.
    """
    result = diffatlas("run", study(diffatlas, "dying"), code=1, seconds=500, DIFFATLAS_FAILPOINT="sweep.begin")
    assert "32 points computed, 4 cells trained" in result.stderr
    answers = Answers(Store.open(str(diffatlas.folder / "results")), "dying")
    assert set(answers.points["status"].values) == {"failed"}
    assert all("the worker ended without an answer" in text for text in answers.points["error"].values)
    assert len(answers.trained()) == 4
    assert answers.losses().sizes["cell"] == 4
    stages = by_stage(task_runs(client, "dying", 1 + 1 + 4 + 4 + 1))
    assert stages["train", "COMPLETED"] == 1
    assert (stages["sweep", "CRASHED"], stages["sweep", "COMPLETED"]) == (2, 2)

    diffatlas.answer_here("dying.yaml", retry_failed=True)
    history = Store.open(str(diffatlas.folder / "results")).history()
    assert sum("trained uniform" in str(entry["message"]) for entry in history) == 1
    same(diffatlas.folder / "results", once.store)


def test_what_was_not_trained_is_not_swept_and_its_points_have_failed(diffatlas: Command, client: Any) -> None:
    result = diffatlas("run", study(diffatlas, "untrained"), code=1, seconds=500, DIFFATLAS_FAILPOINT="train.middle")
    assert "32 points computed, 0 cells trained" in result.stderr
    points = open_results(str(diffatlas.folder / "results"), "untrained")
    exact = points["formulation"].values == "exact"
    assert set(points["status"].values[exact]) == {"ok"}
    assert set(points["status"].values[~exact]) == {"failed"}
    assert all("the worker ended without an answer" in text for text in points["error"].values[~exact])
    stages = by_stage(task_runs(client, "untrained", 1 + 2 + 1 + 3 + 1))
    assert (stages["train", "CRASHED"], stages["train", "COMPLETED"]) == (1, 1)
    assert stages["sweep", "COMPLETED"] == 1


SILENT = """
import sys
from dataclasses import replace
from flows.services import quiet_environment
quiet_environment()
import flows.orchestration, flows.workers
from flows.resources import Claims

claims, answer = flows.orchestration.claims, flows.workers.Workers._answer

class Vanishing(Claims):
    handed = 0

    def options(self, stage):
        Vanishing.handed += stage == "sweep"
        return {"num_cpus": 1 if Vanishing.handed < 2 else 2}  # of the one that there is

def impatient(self, handed):
    flows.workers._PATIENCE, flows.workers._GRACE_SECONDS = 0.0, 1.0
    return answer(self, handed)

def vanishing(*asked):
    found = claims(*asked)
    return Vanishing(found.resources, found.devices)

flows.orchestration.claims = vanishing
flows.workers.Workers._answer = impatient
sys.argv = ["diffatlas", "run", sys.argv[1], "--workers", "1"]
from flows.command_line import app
app()
"""


def test_what_ray_never_begins_is_given_up_and_the_rest_is_committed(diffatlas: Command, client: Any) -> None:
    """The second shard asks for a processor that was taken away: Ray waits for it without a word. Once
    the first has ended, a second of that is enough here.
    """
    exact = "[{name: exact, schedule: edm}]"
    name = study(diffatlas, "silent", datasets="[uniform, gaussian]", formulations=exact, steps="[2]", seeds="1")
    _, err = diffatlas.python(SILENT, name, code=3)
    reason = "Ray did not answer (nothing ended within 1 s)"
    assert [line.strip().partition(": ")[0] for line in err.splitlines() if reason in line][:2] == ["try 2", "try 3"], (
        err
    )
    assert f"2 points in 1 shard not computed: {reason}. All others are committed" in err
    assert "Traceback" not in err
    points = open_results(str(diffatlas.folder / "results"), "silent")
    assert set(points["status"].values) == {"ok"}
    assert len(set(points["dataset"].values)) == 1
    stages = by_stage(task_runs_of(client, flow_run(client, "silent").id))
    assert (stages["sweep", "COMPLETED"], stages["sweep", "CRASHED"]) == (1, 3)

    diffatlas.answer_here(name)
    diffatlas.answer_here(name, "undisturbed")
    same(diffatlas.folder / "results", diffatlas.folder / "undisturbed")


def test_an_interrupted_run_leaves_no_task_run_that_seems_to_go_on(diffatlas: Command, client: Any) -> None:
    study(diffatlas, "cut", training="{steps: 100000, batch: 64, width: 32, depth: 2, data: 2000}")
    process = diffatlas.start("run", "cut.yaml")
    until_workers_run(process, "cut")
    at = flow_run(client, "cut").id

    def training() -> bool:
        runs = task_runs_of(client, at)
        return any(run.name.startswith("train") and run.state_type.value == "RUNNING" for run in runs)

    wait_for(training)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert client.read_flow_run(at).state.is_final()
    wait_for(lambda: all(run.state.is_final() for run in task_runs_of(client, at)), 20)


OWN = '''
import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import ray

from diffusion.samplers import Sampler


@dataclass(frozen=True)
class Telling(Sampler):
    """Writes down what its worker was given."""

    order: ClassVar[int] = 1

    def step(self, denoiser, x, now, then, noise):
        Path("given.json").write_text(json.dumps(ray.get_runtime_context().get_assigned_resources()))
        return x * 0.0
'''

START = """
import json, sys
from flows.services import quiet_environment
quiet_environment()
from flows.request import RunRequest
from flows.start import start
print(start(RunRequest(**json.loads(sys.argv[1]))).computed)
"""


def test_each_stage_may_ask_for_resources_of_its_own(diffatlas: Command) -> None:
    (diffatlas.folder / "own.py").write_text(OWN)
    name = study(
        diffatlas,
        "asking",
        samplers='["own:Telling"]',
        formulations="[{name: exact, schedule: edm}]",
        seeds="1",
        steps="[2]",
    )
    request = {"study": name, "workers": 3, "resources": {"sweep": {"num_cpus": 2.5}}}
    requested = json.dumps(request)
    path = f"{diffatlas.folder}:{os.environ.get('PYTHONPATH', '')}"
    out, _ = diffatlas.python(START, requested, PYTHONPATH=path, DIFFATLAS_ALLOW_PLUGINS="own")
    assert out.strip() == "1"
    given = json.loads((diffatlas.folder / "given.json").read_text())
    assert given["CPU"] == 2.5


TOGETHER = '''
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import ray
import torch

import tasks.work.shard
from diffusion.samplers import Sampler

tasks.work.shard.device_of_worker = lambda name: torch.device("cpu")  # the GPUs here are pretended


@dataclass(frozen=True)
class Together(Sampler):
    """Waits until so many shards are here at once, and a while for one more; writes down what its
    worker was given.
    """

    order: ClassVar[int | None] = None
    folder: str = ""
    many: int = 1

    def step(self, denoiser, x, now, then, noise):
        here, begun = Path(self.folder), time.time()
        (here / f"{begun}.begun").touch()
        while len(list(here.glob("*.begun"))) - len(list(here.glob("*.json"))) < self.many:
            if time.time() - begun > 60:
                break
            time.sleep(0.1)
        time.sleep(2.0)
        context = ray.get_runtime_context()
        variables = {name: os.environ.get(name) for name in json.loads(VARIABLES)}
        told = {"pid": os.getpid(), "node": context.get_node_id(), "begun": begun, "ended": time.time(), **variables}
        (here / f"{begun}.json").write_text(json.dumps({**told, **context.get_assigned_resources()}))
        return x * 0.0


VARIABLES = '["DIFFATLAS_GPU_SHARE", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"]'
'''

PRETENDED = """
import json, os, sys
from flows.services import quiet_environment
from flows.services.environment import FOR_GPUS
quiet_environment()
os.environ |= FOR_GPUS | {"RAY_AUTH_MODE": "disabled"}
from ray.cluster_utils import Cluster
from flows.request import RunRequest
from flows.services import ray_cluster
from flows.start import start

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=2, num_gpus=1)
try:
    with ray_cluster(cluster.address, None, {}):
        for request in json.loads(sys.argv[1]):
            print(start(RunRequest(ray_address=cluster.address, device="cuda", quiet=True, **request)).computed)
finally:
    cluster.shutdown()
"""


def test_real_shards_are_packed_on_pretended_gpus_and_their_workers_have_what_was_asked(diffatlas: Command) -> None:
    """Two nodes with a GPU each, and four shards of exact cells: two at once with a GPU each, all four
    with half of one.
    """
    (diffatlas.folder / "own.py").write_text(TOGETHER)
    requests = []
    for name, many in (("whole", 2), ("half", 4)):
        seen = diffatlas.folder / f"seen by {name}"
        seen.mkdir()
        file = study(
            diffatlas,
            name,
            datasets=json.dumps([{"name": "gaussian", "means": float(mean)} for mean in range(4)]),
            samplers=json.dumps([{"name": "own:Together", "folder": str(seen), "many": many}]),
            formulations="[{name: exact, schedule: edm}]",
            seeds="1",
            steps="[1]",
        )
        requests.append({"study": file, "resources": {"sweep": {"num_gpus": 0.5}} if name == "half" else {}})
    path = f"{diffatlas.folder}:{os.environ.get('PYTHONPATH', '')}"
    out, _ = diffatlas.python(PRETENDED, json.dumps(requests), PYTHONPATH=path, DIFFATLAS_ALLOW_PLUGINS="own")
    assert out.split() == ["4", "4"]
    whole, half = (
        [json.loads(file.read_text()) for file in (diffatlas.folder / f"seen by {name}").glob("*.json")]
        for name in ("whole", "half")
    )
    for shards, at_once, gpu, share in ((whole, 2, 1.0, None), (half, 4, 0.5, "0.5")):
        assert len(shards) == 4
        together = [sum(one["begun"] <= other["begun"] < one["ended"] for one in shards) for other in shards]
        assert max(together) == at_once
        assert {(one["GPU"], one["CPU"]) for one in shards} == {(gpu, 1.0)}
        assert {one["DIFFATLAS_GPU_SHARE"] for one in shards} == {share}
        assert {(one["CUDA_VISIBLE_DEVICES"], one["OMP_NUM_THREADS"]) for one in shards} == {("0", "1")}
        assert len({one["node"] for one in shards}) == 2
    assert len({one["pid"] for one in whole}) < len(whole)  # one process serves several: CUDA starts once


@pytest.mark.parametrize(
    ("resources", "reason"),
    [
        ({"train": {"num_gpus": 100}}, "train asks for 100 num_gpus, the cluster offers 0"),
        ({"training": {"num_cpus": 1}}, "unknown stage 'training'; did you mean 'train'?"),
    ],
)
def test_resources_that_nobody_offers_are_refused_and_nothing_waits_for_them(
    diffatlas: Command, resources: dict[str, dict[str, float]], reason: str
) -> None:
    request = {"study": study(diffatlas, "greedy"), "resources": resources}
    _, err = diffatlas.python(START, json.dumps(request), code=1)
    assert f"WrongResources: resources: {reason}" in err


def test_a_gpu_that_no_node_has_is_refused_and_an_unknown_device_before_anything_starts(diffatlas: Command) -> None:
    name = study(diffatlas, "fast")
    err = diffatlas("run", name, "--device", "cuda", code=2).stderr
    assert "device: found 'cuda', and no node of the Ray cluster has a GPU; accepted: auto, cpu" in err
    err = diffatlas("run", name, code=2, DIFFATLAS_DEVICE="tpu").stderr
    assert "--device: found 'tpu'; accepted: auto, cpu, cuda" in err
