"""The nodes of a cluster that others have started: whether each computes with the code of this
process.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flows.services import ServiceUnavailable
from tasks.work.code import Code, code_here, told

NODE_SECONDS = 120.0
"""How long the nodes may take to start a worker that tells its code."""


def check_nodes(expected: Code) -> None:
    """Ask every node that computes for its code, all at once.

    Raises:
        ServiceUnavailable: a node has other code, or does not answer; all such nodes are named.
    """
    asked = {
        f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})": _asked(node["NodeID"], expected)
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU")
    }
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=NODE_SECONDS)
    wrong = [f"{name}: {reason}" for name, answer in asked.items() if (reason := _reason(expected, answer))]
    if wrong:
        raise ServiceUnavailable(
            f"Nodes of the Ray cluster would compute with other code: {'; '.join(wrong)}. Install the same sources "
            "and versions on all nodes, also the modules that the study names, and restart Ray there."
        )


def _asked(node: str, expected: Code) -> ray.ObjectRef[Any]:
    remote: Any = ray.remote(num_cpus=0, max_retries=0)(code_here)
    there = remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node, soft=False))
    return there.remote(expected.own)  # type: ignore[no-any-return] # Ray's types end at options


def _reason(expected: Code, answer: ray.ObjectRef[Any]) -> str | None:
    """Why a node cannot be used, or None."""
    try:
        found = ray.get(answer, timeout=0)
    except GetTimeoutError:
        return f"no answer within {NODE_SECONDS:.0f} s"
    except RayError as error:  # it has no such function: older, or nothing of ours is installed
        return str(error).strip().splitlines()[-1]
    differences = expected.differences(found)
    return told(differences) if differences else None
