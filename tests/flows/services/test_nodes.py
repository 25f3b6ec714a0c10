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
from tests.tasks.test_code import copied

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("services")]

CLUSTER = """
import json, sys
from flows.services import quiet_environment
quiet_environment()
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
for path in sys.argv[1:]:
    cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": path})
print(cluster.address, flush=True)
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
