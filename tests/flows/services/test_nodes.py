"""Nodes of a cluster that would compute otherwise, that come later or that are lost: real clusters, one
node of which has other sources.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from flows.services.token import FILE, MODE, TOKEN
from tasks.results import open_results
from tasks.study import load_study
from tests.flows.services.processes import LOOPBACK, descendants, listening_addresses
from tests.tasks.test_code import copied
from tests.tasks.tiny_store import answer

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("services")]

CLUSTER = """
import sys
from flows.services import quiet_environment
quiet_environment()
from ray.cluster_utils import Cluster
head, *paths = sys.argv[1:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": int(head), "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": path}) for path in paths]
print(cluster.address, flush=True)
for line in sys.stdin:  # a path: a node with this code comes; an empty line: the first node is killed
    if line.strip():
        nodes.append(cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": line.strip()}))
    else:
        cluster.remove_node(nodes.pop(0), allow_graceful=False)
cluster.shutdown()
"""
ROOT = str(Path(__file__).parents[3])
EVERY = {"00000000", "0" * 32}  # as the kernel writes it
STUDY = """
name: small
datasets: [gaussian]
formulations: [exact]
samplers: [euler]
steps: [1, 2]
samples: 50
metrics: [w1]
"""


def test_the_node_with_other_sources_is_named_and_nothing_is_computed(tmp_path: Path, server: str) -> None:
    other = copied(tmp_path / "other")
    changed = other / "diffusion" / "samplers" / "ode.py"
    changed.write_text(changed.read_text() + "\n# another line\n")
    (tmp_path / "small.yaml").write_text(STUDY)
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER, "1", str(other)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as cluster:
        assert cluster.stdin is not None
        assert cluster.stdout is not None
        address = cluster.stdout.readline().strip()
        looked, ended = (
            subprocess.run(
                [sys.executable, "-m", "flows", *command, "--ray", address],
                cwd=tmp_path,
                env=os.environ | {"PREFECT_API_URL": server},
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            for command in (["doctor", "--json"], ["run", "small.yaml"])
        )
        cluster.stdin.close()
    assert looked.returncode == 3, looked.stderr
    (problem,) = (one for one in json.loads(looked.stdout)["findings"] if one["level"] == "problem")
    assert problem["of"] == "ray"
    assert "diffusion/samplers/ode.py is another one" in problem["text"]
    assert problem["remedy"].startswith("on each node: pip install the same")
    assert ended.returncode == 3, ended.stderr
    named = re.findall(r"\(([0-9a-f]{8})\): ([^;]*?)\. Install", ended.stderr.replace("\n", " "))
    assert [reason for _, reason in named] == ["diffusion/samplers/ode.py is another one"], ended.stderr
    assert "Traceback" not in ended.stderr
    points = open_results(str(tmp_path / "results"), "small")
    assert points.sizes["point"] == 0


OWN = """
from dataclasses import dataclass
from typing import ClassVar

from diffusion.samplers import Sampler
{imports}

@dataclass(frozen=True)
class {name}(Sampler):
    order: ClassVar[int] = 1

    def step(self, denoiser, x, now, then, noise):
        return {part} * denoiser(x, now.alpha, now.sigma)
"""
WHERE = """
import time
from pathlib import Path

import ray

from helper_of_mine import HALF


def here():
    nodes = Path(FOLDER)
    (nodes / ray.get_runtime_context().get_node_id()).touch()
    end = time.monotonic() + 60
    while len(list(nodes.iterdir())) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    return HALF
"""


def test_a_study_is_computed_on_both_nodes_which_its_own_modules_reach(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file, one beside it that it imports, and a package of two; the nodes have none of them, nor
    the folder, and the command is called elsewhere. There are two shards, and the step of each leaves
    the name of its node and waits for another node's.
    """
    beside, elsewhere, nodes = tmp_path / "beside", tmp_path / "elsewhere", tmp_path / "nodes"
    (beside / "kit_of_mine").mkdir(parents=True)
    elsewhere.mkdir()
    nodes.mkdir()
    imports = WHERE.replace("FOLDER", repr(str(nodes)))
    (beside / "file_of_mine.py").write_text(OWN.format(imports=imports, name="Half", part="here()"))
    (beside / "helper_of_mine.py").write_text("HALF = 0.5")  # which the study does not name
    (beside / "kit_of_mine" / "__init__.py").touch()
    (beside / "kit_of_mine" / "parts.py").write_text("PART = 0.25")
    imports = "from kit_of_mine.parts import PART"
    (beside / "kit_of_mine" / "steps.py").write_text(OWN.format(imports=imports, name="Quarter", part="PART"))
    allowed = ["--allow-plugins", "helper_of_mine"]
    two = STUDY.replace("[gaussian]", "[gaussian, uniform]").replace("[euler]", "[heun]")
    (beside / "small.yaml").write_text(
        two.replace("[heun]", '[heun, "file_of_mine:Half", "kit_of_mine.steps:Quarter"]')
    )
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER, "0", ROOT, ROOT],
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as cluster:
        assert cluster.stdin is not None
        assert cluster.stdout is not None
        address = cluster.stdout.readline().strip()
        ended = subprocess.run(
            [sys.executable, "-m", "flows", "run", str(beside / "small.yaml"), "--ray", address, *allowed],
            cwd=elsewhere,
            env=os.environ | {"PREFECT_API_URL": server, "PYTHONPATH": ROOT},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        cluster.stdin.close()
    assert ended.returncode == 0, ended.stderr
    assert len(list(nodes.iterdir())) == 2, ended.stderr
    points = open_results(str(elsewhere / "results"), "small").sortby("point_id")
    assert points.sizes["point"] == 12
    assert set(points["status"].values) == {"ok"}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.yaml").write_text(two)
    answer("one", load_study("one.yaml").spec())  # in one process
    expected = open_results("one", "small").sortby("point_id")
    found = points.isel(point=points["sampler"].values == "heun")
    for column in ("point_id", "w1"):
        assert found[column].values.tolist() == expected[column].values.tolist()


LONGER = """
name: longer
datasets: [uniform]
grids:
  - {formulations: [edm]}
  - {formulations: [ddpm], training: {width: 16}}
seeds: 3
training: {steps: 3000, batch: 64, width: 32, depth: 2, data: 2000}
samplers: [heun]
steps: [2]
samples: 300
metrics: [w1]
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """The answers of one process, by point."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "longer.yaml").write_text(LONGER)
    answer(str(folder / "results"), load_study(folder / "longer.yaml").spec())
    return open_results(str(folder / "results"), "longer").sortby("point_id")


def told_by_a_run(folder: Path, server: str, moment: str, then: str, **variables: str) -> str:
    """What a run says on a cluster of one node that computes, which is told something once the run has
    said a word. It listens at every address of this machine, as all of a cluster's Ray does.
    """
    (folder / "longer.yaml").write_text(LONGER)
    environment = os.environ | {"PREFECT_API_URL": server}
    told = ""
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER, "0", ROOT],
        env=environment | {MODE: "disabled"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as cluster:
        assert cluster.stdin is not None
        assert cluster.stdout is not None
        address = cluster.stdout.readline().strip()
        command = [sys.executable, "-m", "flows", "run", "longer.yaml", "--ray", address]
        with subprocess.Popen(
            command, cwd=folder, env=environment | variables, stderr=subprocess.PIPE, text=True
        ) as run:
            assert run.stderr is not None
            for line in run.stderr:
                if moment in line and moment not in told:
                    cluster.stdin.write(then)
                    cluster.stdin.flush()
                    driver = {run.pid, *(pid for pid, _ in descendants(run.pid))}
                    assert listening_addresses(driver) & EVERY
                    assert listening_addresses(driver) <= EVERY | LOOPBACK
                told += line
        cluster.stdin.close()
    assert run.returncode == 0, told
    return told


def same(folder: Path, undisturbed: xr.Dataset) -> None:
    points = open_results(str(folder / "results"), "longer").sortby("point_id")
    assert set(points["status"].values) == {"ok"}
    for column in ("point_id", "w1"):
        assert points[column].values.tolist() == undisturbed[column].values.tolist()


def test_what_a_late_node_with_other_code_refuses_is_computed_elsewhere(
    tmp_path: Path, server: str, undisturbed: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a token in our home does not matter to a cluster that wants none."""
    other = copied(tmp_path / "other")
    changed = other / "diffusion" / "samplers" / "ode.py"
    changed.write_text(changed.read_text() + "\n# another line\n")
    for name in (MODE, TOKEN, FILE):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "token").write_text("4f" * 32)
    told = told_by_a_run(tmp_path, server, "points to compute", f"{other}\n", **{FILE: str(tmp_path / "token")})
    assert any("try 2" in line and "OtherCode" in line for line in told.splitlines()), told
    assert "counts progress" not in told
    same(tmp_path, undisturbed)


def test_what_is_lost_with_a_node_is_computed_on_the_next(tmp_path: Path, server: str, undisturbed: xr.Dataset) -> None:
    told = told_by_a_run(tmp_path, server, "shard 1/3 committed", f"\n{ROOT}\n")  # the exact rows; now it trains
    assert "try 2" in told, told
    same(tmp_path, undisturbed)


HEAD = """
import sys
from flows.services import quiet_environment
quiet_environment()
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
print(cluster.address, flush=True)
sys.stdin.readline()
cluster.head_node.kill_gcs_server()
print("killed", flush=True)
sys.stdin.read()
"""
HANDS_OVER = """
import os, sys
from flows.services import ServiceUnavailable, await_ray, cluster, quiet_environment, ray_cluster
quiet_environment()
from flows.workers import Workers
cluster.HEAD_SECONDS = 2.0
with ray_cluster(sys.argv[1], None, {}):
    await_ray()
    print("answers", flush=True)
    sys.stdin.readline()
    try:
        Workers(None, None, None, None, None)._submit(None)  # it looks at nothing else before
    except ServiceUnavailable as gone:
        print(gone, flush=True)
    os._exit(0)  # leaving a cluster without a head takes longer than is of interest here
"""


def test_whoever_hands_over_work_is_told_that_the_head_is_gone_instead_of_waiting_within_ray() -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("PREFECT_API_URL", "RAY_ADDRESS")}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with (
        subprocess.Popen([sys.executable, "-c", HEAD], start_new_session=True, **pipes) as head,
        subprocess.Popen([sys.executable, "-c", HANDS_OVER, said(head)], **pipes) as driver,
    ):
        try:
            assert said(driver) == "answers"
            tell(head)
            assert said(head) == "killed"
            tell(driver)
            assert re.match(r"The head of the Ray cluster at .* is gone \(.* does not answer for \d+ s\)", said(driver))
        finally:
            driver.kill()
            os.killpg(head.pid, signal.SIGKILL)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
