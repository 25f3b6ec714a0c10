"""What the task runs of a stage ask of Ray: processors, memory, a GPU, or what a cluster names
itself; and on which device they compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray

from diffusion.devices import DEVICES
from diffusion.errors import WrongInput
from tasks.messages import unknown
from tasks.work.placing import GPU_SHARE

STAGES = ("generate data", "train", "sweep")
"""Those that run on workers."""

Resources = Mapping[str, Mapping[str, float]]
"""By the name of a stage what one of its task runs asks for."""

_OF_RAY = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}  # as a task asks, and as a cluster offers
_ON_DEVICE = ("train", "sweep")
_BY_DEFAULT = {"num_cpus": 1.0}


class WrongResources(WrongInput, ValueError):
    """Resources that no stage has, or that the cluster does not offer."""

    kind = "wrong-resources"


@dataclass(frozen=True)
class Claims:
    """What each stage asks of Ray, and the device on which it computes with that."""

    resources: Resources
    devices: Mapping[str, str]  # `cpu` or `cuda`, by stage

    def options(self, stage: str) -> dict[str, Any]:
        """What a task run of a stage is submitted with.

        Ray starts a process, and with it CUDA, for each task that asks for a GPU. Where no node has
        two, one process serves them all: there is no other GPU that it could be given. Of a part of
        a GPU the process takes no more memory than its part.
        """
        requested = self.resources.get(stage, {})
        found = options(requested)
        if self.devices.get(stage) == "cuda":
            found |= {"max_calls": 0} if all(node.get("GPU", 0.0) <= 1 for node in _nodes()) else {}
            share = requested["num_gpus"]
            found |= {"runtime_env": {"env_vars": {GPU_SHARE: f"{share:g}"}}} if share < 1 else {}
        return found

    @property
    def slots(self) -> int:
        """How many task runs go on at once: by processors and, where they compute on GPUs, by
        those.
        """
        offered = _offered()
        slots = int(offered.get("CPU", 1))
        for stage, device in self.devices.items():
            if device == "cuda":
                share = self.resources[stage]["num_gpus"]
                gpus = offered["GPU"]
                slots = min(slots, int(gpus) * int(1 / share) if share < 1 else int(gpus / share))
        return max(slots, 1)


def claims(device: str, resources: Resources) -> Claims:
    """What the stages ask of the cluster that this process is connected to.

    Args:
        device: ``cpu``; ``cuda``, then training and sweeping ask for a GPU each, unless `resources`
            says how many or which part; or ``auto``, which is ``cuda`` if a node has a GPU.
        resources: what else they ask for.

    Raises:
        WrongResources: no such device or stage, or the cluster does not offer it.
    """
    if device not in DEVICES:
        raise WrongResources(f"device: found {device!r}; accepted: {', '.join(DEVICES)}")
    gpus = _offered().get("GPU", 0.0)
    if device == "cuda" and not gpus:
        raise WrongResources("device: found 'cuda', and no node of the Ray cluster has a GPU; accepted: auto, cpu")
    check_resources(resources)
    if device == "cpu" or not gpus:
        return Claims(resources, dict.fromkeys(_ON_DEVICE, "cpu"))
    asked = {**resources, **{stage: {"num_gpus": 1.0, **resources.get(stage, {})} for stage in _ON_DEVICE}}
    check_resources(asked)
    return Claims(asked, {stage: "cuda" if asked[stage]["num_gpus"] else "cpu" for stage in _ON_DEVICE})


def check_resources(resources: Resources) -> None:
    """Refuse what Ray would wait for for ever.

    Raises:
        WrongResources: the cluster has no such resources, or no single node has.
    """
    offered = _offered()
    for stage, requested in resources.items():
        if stage not in STAGES:
            raise WrongResources(f"resources: {unknown('stage', stage, STAGES)}")
        for name, amount in requested.items():
            found = offered.get(_OF_RAY.get(name, name), 0.0)
            if amount > found:
                raise WrongResources(f"resources: {stage} asks for {amount:g} {name}, the cluster offers {found:g}")
        gpus = requested.get("num_gpus", 0.0)
        if gpus > 1 and gpus != int(gpus):
            raise WrongResources(
                f"resources: {stage} asks for {gpus:g} num_gpus; accepted: a part of one, or whole ones"
            )
        if not any(_fits({**_BY_DEFAULT, **requested}, node) for node in _nodes()):
            wanted = ", ".join(f"{amount:g} {name}" for name, amount in requested.items())
            raise WrongResources(f"resources: {stage} asks for {wanted}, and no single node of the cluster offers that")


def options(requested: Mapping[str, float]) -> dict[str, Any]:
    """The same as the options of a remote function."""
    own = {name: amount for name, amount in requested.items() if name not in _OF_RAY}
    known = {name: amount for name, amount in requested.items() if name in _OF_RAY}
    return {**known, **({"resources": own} if own else {})}


def _offered() -> dict[str, float]:
    found: dict[str, float] = ray.cluster_resources()
    return found


def _nodes() -> list[dict[str, float]]:
    """What each living node offers."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _fits(requested: Mapping[str, float], node: Mapping[str, float]) -> bool:
    return all(amount <= node.get(_OF_RAY.get(name, name), 0.0) for name, amount in requested.items())
