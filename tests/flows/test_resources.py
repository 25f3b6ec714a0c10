"""What stages ask of Ray: a real cluster of two nodes, each of which pretends to have a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("services")]

ASK = """
import json, os, time
from flows.services import quiet_environment
from flows.services.environment import FOR_GPUS
quiet_environment()
os.environ |= FOR_GPUS
import ray
from ray.cluster_utils import Cluster
from flows.resources import WrongResources, claims, options

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=2, num_gpus=1)
ray.init(address=cluster.address, log_to_driver=False)

def claimed(device, resources):
    try:
        found = claims(device, resources)
    except WrongResources as error:
        return str(error)
    return {"resources": found.resources, "devices": found.devices, "slots": found.slots}

def used(share, count):
    @ray.remote(max_retries=0, **options({"num_gpus": share}))
    def one():
        begin = time.time()
        time.sleep(1.0)
        node = ray.get_runtime_context().get_node_id()
        return node, os.environ["CUDA_VISIBLE_DEVICES"], begin, time.time()
    return ray.get([one.remote() for _ in range(count)])

def served(claimed, stage, count):
    @ray.remote(max_retries=0, **claimed.options(stage))
    def one():
        return os.getpid(), os.environ.get("DIFFATLAS_GPU_SHARE"), os.environ.get("CUDA_VISIBLE_DEVICES")
    return [ray.get(one.remote()) for _ in range(count)]  # one after the other

half = claims("cuda", {"train": {"num_gpus": 0.5}, "sweep": {"num_gpus": 0}})
print(json.dumps({
    "trained": served(half, "train", 6),
    "swept": served(half, "sweep", 2),
    "whole": served(claims("cuda", {}), "train", 6),
    "claimed": [claimed(device, resources) for device, resources in json.loads(os.environ["ASKED"])],
    "halves": used(0.5, 4),
    "wholes": used(1, 4),
}))
ray.shutdown()
cluster.shutdown()
"""

HALF = {"train": {"num_gpus": 0.5}, "sweep": {"num_gpus": 0.5}}
WHOLE = {"train": {"num_gpus": 1.0}, "sweep": {"num_gpus": 1.0}}
CUDA, CPU = {"train": "cuda", "sweep": "cuda"}, {"train": "cpu", "sweep": "cpu"}
ASKED: list[tuple[str, dict[str, Any], Any]] = [
    ("cpu", {}, {"resources": {}, "devices": CPU, "slots": 4}),
    ("auto", {}, {"resources": WHOLE, "devices": CUDA, "slots": 2}),
    ("cuda", {}, {"resources": WHOLE, "devices": CUDA, "slots": 2}),
    ("cuda", HALF, {"resources": HALF, "devices": CUDA, "slots": 4}),
    (
        "auto",
        {"train": {"num_gpus": 0.0}},
        {
            "resources": {"train": {"num_gpus": 0.0}, "sweep": {"num_gpus": 1.0}},
            "devices": {"train": "cpu", "sweep": "cuda"},
            "slots": 2,
        },
    ),
    ("tpu", {}, "device: found 'tpu'; accepted: auto, cpu, cuda"),
    ("cuda", {"train": {"num_gpus": 3}}, "resources: train asks for 3 num_gpus, the cluster offers 2"),
    (
        "cuda",
        {"train": {"num_gpus": 1.5}},
        "resources: train asks for 1.5 num_gpus; accepted: a part of one, or whole ones",
    ),
    (
        "auto",
        {"sweep": {"num_gpus": 2}},
        "resources: sweep asks for 2 num_gpus, and no single node of the cluster offers that",
    ),
    (
        "cpu",
        {"sweep": {"num_cpus": 3}},
        "resources: sweep asks for 3 num_cpus, and no single node of the cluster offers that",
    ),
]


def most_at_once(runs: list[tuple[str, str, float, float]]) -> int:
    """How many runs shared a GPU at some moment."""
    together = [sum(1 for other in runs if other[:2] == one[:2] and other[2] <= one[2] < other[3]) for one in runs]
    return max(together)


def test_shards_are_packed_on_gpus_as_asked_and_what_cannot_be_is_refused() -> None:
    asked = json.dumps([[device, resources] for device, resources, _ in ASKED])
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "ASKED": asked},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for (device, resources, expected), claimed in zip(ASKED, found["claimed"], strict=True):
        assert claimed == expected, (device, resources)
    # one process serves one task after the other (there are two nodes), and knows its part of the GPU
    assert len({pid for pid, _, _ in found["trained"]}) <= 2
    assert {(share, gpu) for _, share, gpu in found["trained"]} == {("0.5", "0")}
    assert len({pid for pid, _, _ in found["whole"]}) <= 2
    assert {(share, gpu) for _, share, gpu in found["whole"]} == {(None, "0")}
    assert {(share, gpu) for _, share, gpu in found["swept"]} == {(None, "")}  # who asks for none sees none
    for how, most in (("halves", 2), ("wholes", 1)):
        runs = [tuple(run) for run in found[how]]
        assert {gpu for _, gpu, _, _ in runs} == {"0"}  # each was given one, and sees no other
        assert len({node for node, _, _, _ in runs}) == 2
        assert most_at_once(runs) == most
