"""The files under `deployments/` read by their linters, or by what reads them when they are used; and
beyond: what a linter does not know about us.

Of KubeRay's objects the parts that we use are written down here, strictly, after the Go types from
which its definitions of `ray.io/v1` are made (`rayjob_types.go` and `raycluster_types.go`: what has no
`omitempty` is required); their pod templates are held against Kubernetes' own schema. KubeRay's
definitions themselves come in no package, and with every field of a pod in them are a megabyte each.
"""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
from ruamel.yaml import YAML

DEPLOYMENTS = Path(__file__).resolve().parents[1] / "deployments"
KUBERNETES = "1.34"
SECRET = re.compile(r"PASSWORD|TOKEN|AUTH_STRING|CONNECTION_URL")
NO_SECRET = {"token"}  # a mode


def documents(text: str) -> list[dict[str, Any]]:
    return [found for found in YAML(typ="safe", pure=True).load_all(text) if found]


def containerfile(text: str) -> list[str]:
    """hadolint, and no root at the end."""
    program = shutil.which("hadolint") or str(Path(sys.executable).with_name("hadolint"))
    command = [program, "--no-color", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)
    users = re.findall(r"^USER (\S+)", text, re.MULTILINE)
    return (done.stdout + done.stderr).splitlines() + (
        [] if users and users[-1].split(":")[0] not in {"0", "root"} else ["runs as root"]
    )


def compose(text: str) -> list[str]:
    """The specification, with variables replaced as compose does; what is open, and what is told."""
    from compose_spec import PyCompose

    required = set(re.findall(r"\$\{(\w+):\?", text))
    replaced = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", re.sub(r"\$\{\w+:\?[^}]*\}", "given", text))
    (found,) = documents(replaced)
    (plain,) = documents(text)
    try:
        PyCompose.from_json(json.dumps(found)).to_spec()
    except ValueError as error:
        return [str(error)]
    problems = (
        [] if required >= {"POSTGRES_PASSWORD", "PREFECT_PASSWORD", "RAY_TOKEN"} else ["a password is not asked for"]
    )
    for name, service in plain["services"].items():
        problems += [
            f"{name}: {port} is open" for port in service.get("ports", []) if not port.startswith("127.0.0.1:")
        ]
        problems += [f"{name}: can write its root" for _ in [0] if not service.get("read_only")]
        problems += [f"{name}: {lacking} is not there" for lacking in _unknown(service, plain)]
        for key, value in service.get("environment", {}).items():
            if SECRET.search(key) and "${" not in str(value) and value not in NO_SECRET:
                problems.append(f"{name}: {key} is written down")
    return problems


def _unknown(service: dict[str, Any], whole: dict[str, Any]) -> Iterator[str]:
    yield from (name for name in service.get("networks", []) if name not in whole["networks"])
    yield from (name for name in service.get("depends_on", []) if name not in whole["services"])
    volumes = [volume.split(":")[0] for volume in service.get("volumes", [])]
    yield from (name for name in volumes if name not in whole["volumes"])


def ray_cluster(text: str) -> list[str]:
    """Ray's own schema; tokens on every node."""
    import ray.autoscaler

    schema = json.loads(Path(ray.autoscaler.__file__).with_name("ray-schema.json").read_text())
    (found,) = documents(text)
    problems = [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(found)]
    starts = [line for key in ("head", "worker") for line in found[f"{key}_start_ray_commands"] if "ray start" in line]
    return problems + [f"without a token: {line}" for line in starts if "RAY_AUTH_MODE=token" not in line]


def _of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


_TEXT, _COUNT, _ANY = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "object"}
_STARTED = {"type": "object", "additionalProperties": _TEXT}
_GROUP = {"rayStartParams": _STARTED, "template": _ANY}
_CLUSTER = _of(
    rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
    authOptions={**_of(mode={"const": "token"}), "required": ["mode"]},
    headGroupSpec={**_of(**_GROUP), "required": ["rayStartParams", "template"]},
    workerGroupSpecs={
        "type": "array",
        "items": {
            **_of(**_GROUP, groupName=_TEXT, replicas=_COUNT, minReplicas=_COUNT, maxReplicas=_COUNT),
            "required": ["groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"],
        },
    },
) | {"required": ["rayVersion", "authOptions", "headGroupSpec"]}
_JOB = _of(
    entrypoint=_TEXT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"]},
    shutdownAfterJobFinishes={"type": "boolean"},
    ttlSecondsAfterFinished=_COUNT,
    activeDeadlineSeconds=_COUNT,
    backoffLimit=_COUNT,
    rayClusterSpec=_CLUSTER,
) | {"required": ["entrypoint", "rayClusterSpec"]}
KUBERAY = {
    kind: _of(apiVersion={"const": "ray.io/v1"}, kind={"const": kind}, metadata=_ANY, spec=spec)
    | {"required": ["spec"]}
    for kind, spec in (("RayCluster", _CLUSTER), ("RayJob", _JOB))
}


def _replicas(found: dict[str, Any]) -> Iterator[str]:
    """What KubeRay refuses beyond the types of its fields: bounds of a group, a time to live of a
    cluster that stays.
    """
    spec = found.get("spec", {})
    cluster = spec.get("rayClusterSpec", spec)
    for group in cluster.get("workerGroupSpecs", []):
        least, most = group.get("minReplicas", 0), group.get("maxReplicas", 2**31 - 1)
        if not least <= group.get("replicas", least) <= most:
            yield f"{group.get('groupName')}: replicas are not between minReplicas and maxReplicas"
    if spec.get("ttlSecondsAfterFinished") and not spec.get("shutdownAfterJobFinishes"):
        yield "ttlSecondsAfterFinished without shutdownAfterJobFinishes"


def manifest(text: str) -> list[str]:
    """Kubernetes' schema, made strict; every pod restricted; secrets by reference."""
    from kubernetes_validate import SchemaNotFoundError, ValidationError, validate

    problems: list[str] = []
    for found in documents(text):
        kind = found.get("kind", "")
        templates = list(pods(found))
        if kind in KUBERAY:
            problems += [error.message for error in jsonschema.Draft7Validator(KUBERAY[kind]).iter_errors(found)]
            problems += _replicas(found)
            checked = [{"apiVersion": "v1", "kind": "PodTemplate", "template": template} for template in templates]
        else:
            checked = [found]
        for one in checked:
            try:
                validate(one, KUBERNETES, strict=True)
            except (ValidationError, SchemaNotFoundError) as error:
                problems.append(f"{kind}: {error.message}")
        problems += [f"{kind}: {problem}" for template in templates for problem in _open(template["spec"])]
        problems += ["a secret is written down"] * (kind == "Secret")
    return problems


def pods(found: Any) -> Iterator[dict[str, Any]]:
    """Templates of pods, wherever they stand."""
    if isinstance(found, dict):
        if "containers" in found.get("spec", {} if isinstance(found.get("spec"), dict) else ()):
            yield found
        for value in found.values():
            yield from pods(value)
    elif isinstance(found, list):
        for value in found:
            yield from pods(value)


def _open(pod: dict[str, Any]) -> Iterator[str]:
    """What a restricted pod may not."""
    context = pod.get("securityContext", {})
    if not context.get("runAsNonRoot") or context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "a pod may run as root, or without seccomp"
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        wanted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        if container.get("securityContext") != wanted:
            yield f"{container['name']}: expected {wanted}"
        if "memory" not in container.get("resources", {}).get("limits", {}):
            yield f"{container['name']}: no limit of memory"
        for one in container.get("env", []):
            if SECRET.search(one["name"]) and "valueFrom" not in one and "$(" not in one["value"]:
                yield f"{container['name']}: {one['name']} is written down"
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes | {"data"}:  # a claim of a StatefulSet
                yield f"{container['name']}: no volume {mount['name']}"


_KUSTOMIZATION = _of(
    apiVersion={"const": "kustomize.config.k8s.io/v1beta1"},
    kind={"const": "Kustomization"},
    namespace=_TEXT,
    resources={"type": "array", "items": _TEXT, "minItems": 1},
    configMapGenerator={
        "type": "array",
        "items": {
            **_of(
                name=_TEXT,
                files={"type": "array", "items": _TEXT},
                options=_of(disableNameSuffixHash={"type": "boolean"}, labels=_STARTED, annotations=_STARTED),
            ),
            "required": ["name", "files"],
        },
    },
    images={"type": "array", "items": {**_of(name=_TEXT, newName=_TEXT, newTag=_TEXT), "required": ["name"]}},
) | {"required": ["apiVersion", "kind", "resources"]}


def kustomization(text: str) -> list[str]:
    """The fields that we use, strictly; what it names is there."""
    (found,) = documents(text)
    problems = [error.message for error in jsonschema.Draft7Validator(_KUSTOMIZATION).iter_errors(found)]
    named = found.get("resources", []) + [name for one in found.get("configMapGenerator", []) for name in one["files"]]
    return problems + [f"{name} is not there" for name in named if not (DEPLOYMENTS / "kubernetes" / name).is_file()]


def prefect_file(text: str) -> list[str]:
    """Prefect's own models of its file, which ignore what they do not know, made strict."""
    from prefect.cli.deploy._models import PrefectYamlModel
    from pydantic import ValidationError

    try:
        made = PrefectYamlModel.model_validate(documents(text)[0], extra="forbid")
    except ValidationError as error:
        return [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
    problems = []
    for deployment in made.deployments:
        module, _, name = (deployment.entrypoint or "").rpartition(".")
        if not hasattr(importlib.import_module(module), name):
            problems.append(f"{deployment.name}: no {deployment.entrypoint}")
    return problems


def schedules(text: str) -> list[str]:
    """What a server would refuse to serve."""
    from deployments.schedules import ScheduleError, read_schedules

    return _refused(text, read_schedules, ScheduleError)


def automations(text: str) -> list[str]:
    """What would not be put on a server."""
    from deployments.automations import read_automations
    from deployments.schedules import ScheduleError

    return _refused(text, read_automations, ScheduleError)


def study(text: str) -> list[str]:
    """A study, or a list of shipped ones."""
    from tasks.study import StudyError
    from tasks.study.collection import load_collection

    return _refused(text, load_collection, StudyError)


def program(text: str) -> list[str]:
    """Names that are not there, and what is not Python."""
    command = [str(Path(sys.executable).with_name("ruff")), "check", "--isolated", "--select", "F", "--quiet", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)
    return (done.stdout + done.stderr).splitlines()


def _refused(text: str, read: Callable[[Path], object], error: type[Exception]) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file.yaml"
        file.write_text(text, encoding="utf-8")
        try:
            read(file)
        except error as problems:
            return str(problems).splitlines()
    return []
