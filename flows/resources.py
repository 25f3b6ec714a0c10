"""What the task runs of a stage ask of Ray: processors, memory, or what a cluster names itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray

from diffusion.errors import WrongInput
from tasks.messages import unknown

STAGES = ("generate data", "train", "sweep")
"""Those that run on workers."""

_OF_RAY = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}  # as a task asks, and as a cluster offers


class WrongResources(WrongInput, ValueError):
    """Resources that no stage has, or that the cluster does not offer."""

    kind = "wrong-resources"


def check_resources(resources: Mapping[str, Mapping[str, float]]) -> None:
    """Refuse what Ray would wait for for ever.

    Raises:
        WrongResources: the cluster has no such resources.
    """
    offered: dict[str, float] = ray.cluster_resources()
    for stage, requested in resources.items():
        if stage not in STAGES:
            raise WrongResources(f"resources: {unknown('stage', stage, STAGES)}")
        for name, amount in requested.items():
            found = offered.get(_OF_RAY.get(name, name), 0.0)
            if amount > found:
                raise WrongResources(f"resources: {stage} asks for {amount:g} {name}, the cluster offers {found:g}")


def options(requested: Mapping[str, float]) -> dict[str, Any]:
    """The same as the options of a remote function."""
    own = {name: amount for name, amount in requested.items() if name not in _OF_RAY}
    known = {name: amount for name, amount in requested.items() if name in _OF_RAY}
    return {**known, **({"resources": own} if own else {})}
