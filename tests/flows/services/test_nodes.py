"""Nodes of a cluster that would compute otherwise are refused. A real cluster of two nodes, one of
which has other sources.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.results import open_results
from tasks.study import load_study
from tests.tasks.test_code import copied
from tests.tasks.tiny_store import answer

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("services")]

CLUSTER = """
import os, sys
from flows.services import quiet_environment
quiet_environment()
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": path}) for path in sys.argv[1:]]
print(cluster.address, flush=True)
if sys.stdin.read(1):  # another node comes, and the one that was added first is killed
    cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": os.environ["LATER"]})
    cluster.remove_node(nodes[0], allow_graceful=False)
    sys.stdin.read()
cluster.shutdown()
"""
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
        [sys.executable, "-c", CLUSTER, str(other)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as cluster:
        assert cluster.stdin is not None
        assert cluster.stdout is not None
        ended = subprocess.run(
            [sys.executable, "-m", "flows", "run", "small.yaml", "--ray", cluster.stdout.readline().strip()],
            cwd=tmp_path,
            env=os.environ | {"PREFECT_API_URL": server},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        cluster.stdin.close()
    assert ended.returncode == 3, ended.stderr
    named = re.findall(r"\(([0-9a-f]{8})\): ([^;]*?)\. Install", ended.stderr.replace("\n", " "))
    assert [reason for _, reason in named] == ["diffusion/samplers/ode.py is another one"], ended.stderr
    assert "Traceback" not in ended.stderr
    points = open_results(str(tmp_path / "results"), "small")
    assert points.sizes["point"] == 0


LONGER = """
name: longer
datasets: [uniform]
formulations: [edm, ddpm]
seeds: 3
training: {steps: 3000, batch: 64, width: 32, depth: 2, data: 2000}
samplers: [heun]
steps: [2]
samples: 300
metrics: [w1]
"""


def test_a_lost_node_and_one_that_comes_later_with_other_code_cost_nothing(tmp_path: Path, server: str) -> None:
    """The one takes a training with it; what is given to the other refuses itself. All is tried elsewhere."""
    other = copied(tmp_path / "other")
    changed = other / "diffusion" / "samplers" / "ode.py"
    changed.write_text(changed.read_text() + "\n# another line\n")
    (tmp_path / "longer.yaml").write_text(LONGER)
    answer(str(tmp_path / "undisturbed"), load_study(tmp_path / "longer.yaml").spec())
    root = str(Path(__file__).parents[3])
    environment = os.environ | {"PREFECT_API_URL": server, "LATER": str(other)}
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER, root],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as cluster:
        assert cluster.stdin is not None
        assert cluster.stdout is not None
        with subprocess.Popen(
            [sys.executable, "-m", "flows", "run", "longer.yaml", "--ray", cluster.stdout.readline().strip()],
            cwd=tmp_path,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        ) as run:
            assert run.stderr is not None
            told = ""
            while "points to compute" not in told:
                line = run.stderr.readline()
                assert line, told
                told += line
            cluster.stdin.write("\n")
            cluster.stdin.flush()
            told += run.stderr.read()
        cluster.stdin.close()
    assert run.returncode == 0, told
    assert "try 2" in told, told
    assert "OtherCode" in told, told
    points, undisturbed = (
        open_results(str(tmp_path / store), "longer").sortby("point_id") for store in ("results", "undisturbed")
    )
    assert set(points["status"].values) == {"ok"}
    for column in ("point_id", "w1"):
        assert points[column].values.tolist() == undisturbed[column].values.tolist()
