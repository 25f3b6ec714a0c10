"""Files that run elsewhere are sound as far as their linters know, and each linter catches a mistake
that is made in its file. docs/deploying.md says what has been run besides.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.deployed import (
    DEPLOYMENTS,
    automations,
    compose,
    containerfile,
    documents,
    kustomization,
    manifest,
    pods,
    prefect_file,
    program,
    ray_cluster,
    schedules,
    study,
)

Lint = Callable[[str], list[str]]

MANIFESTS = sorted(path for path in (DEPLOYMENTS / "kubernetes").glob("*.yaml") if path.name != "kustomization.yaml")
FILES: list[tuple[Path, Lint]] = [
    (DEPLOYMENTS / "Containerfile", containerfile),
    (DEPLOYMENTS / "compose.yaml", compose),
    (DEPLOYMENTS / "ray-cluster.yaml", ray_cluster),
    *((path, manifest) for path in MANIFESTS),
    (DEPLOYMENTS / "kubernetes" / "kustomization.yaml", kustomization),
    (DEPLOYMENTS / "prefect.yaml", prefect_file),
    (DEPLOYMENTS / "schedules.yaml", schedules),
    (DEPLOYMENTS / "automations.yaml", automations),
]
STUDIES = sorted((DEPLOYMENTS / "studies").rglob("*.yaml"))
PROGRAMS = sorted(path for path in DEPLOYMENTS.glob("*.py") if path.name != "__init__.py")
FILES += [*((path, study) for path in STUDIES), *((path, program) for path in PROGRAMS)]
NOTHING_TO_LINT = {"__init__.py", "py.typed"}
STORE = "atlas/"  # answers that ship, with checksums and a test of their own


def named(path: Path) -> str:
    return path.relative_to(DEPLOYMENTS).as_posix()


def test_every_file_has_a_linter_and_a_mistake_that_is_made_in_it() -> None:
    there = {named(path) for path in DEPLOYMENTS.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    there = {name for name in there if not name.startswith(STORE)}
    assert there - NOTHING_TO_LINT == {named(path) for path, _ in FILES}
    mistaken = {name for name, *_ in MISTAKES} | {named(path) for path in (*STUDIES, *PROGRAMS)}
    assert mistaken == {named(path) for path, _ in FILES}


@pytest.mark.parametrize(("path", "lint"), FILES, ids=[named(path) for path, _ in FILES])
def test_its_linter_finds_nothing(path: Path, lint: Lint) -> None:
    assert lint(path.read_text(encoding="utf-8")) == []


MISTAKES = [
    ("Containerfile", "USER 10001:10001\n", "", "root"),
    ("Containerfile", "USER 10001:10001\n", "USER 0:0\n", "runs as root"),
    ("Containerfile", "USER 10001:10001\n", "USER root:root\n", "runs as root"),
    ("Containerfile", "--no-cache-dir --constraint", "--constraint", "DL3042"),
    ("Containerfile", "-slim-bookworm\nRUN", "-slim-bookworm\nRUM", "unexpected"),
    ("compose.yaml", "restart: unless-stopped\n    cap", "restrat: unless-stopped\n    cap", "restrat"),
    ("compose.yaml", '"127.0.0.1:4200:4200"', '"4200:4200"', "4200:4200 is open"),
    ("compose.yaml", "${RAY_TOKEN:?the token of the Ray cluster}", "hunter2", "RAY_AUTH_TOKEN is written down"),
    ("compose.yaml", "networks: [database]", "networks: [databaes]", "databaes is not there"),
    ("ray-cluster.yaml", "max_workers: 2", "max_wrokers: 2", "max_wrokers"),
    ("ray-cluster.yaml", "RAY_AUTH_MODE=token ray start --address", "ray start --address", "without a token"),
    ("kubernetes/rayjob.yaml", "shutdownAfterJobFinishes", "shutdownAfterJobFinished", "shutdownAfterJobFinished"),
    ("kubernetes/rayjob.yaml", "submissionMode: HTTPMode", "submissionMode: HttpMode", "HttpMode"),
    ("kubernetes/rayjob.yaml", "maxReplicas: 2\n", "# maxReplicas: 2\n", "maxReplicas"),
    ("kubernetes/rayjob.yaml", "containerPort: 8265", "containerPort: http", "http"),
    ("kubernetes/rayjob.yaml", "runAsNonRoot: true", "runAsNonRoot: false", "may run as root"),
    ("kubernetes/people.yaml", "  authOptions: {mode: token}\n", "", "authOptions"),
    ("kubernetes/people.yaml", "- {name: shm, mountPath", "- {name: smh, mountPath", "no volume smh"),
    (
        "kubernetes/people.yaml",
        "        containers:\n          - name: ray-head",
        "        initContainers: [{name: first, image: any}]\n        containers:\n          - name: ray-head",
        "first: expected",
    ),
    ("kubernetes/namespace.yaml", "metadata:", "metdata:", "metdata"),
    ("kubernetes/network.yaml", "policyTypes: [Ingress]", "policyTypes: Ingress", "Ingress"),
    ("kubernetes/nightly.yaml", "concurrencyPolicy", "concurrencypolicy", "concurrencypolicy"),
    (
        "kubernetes/postgres.yaml",
        "readOnlyRootFilesystem: true",
        "readOnlyRootFilesystem: false",
        "readOnlyRootFilesystem",
    ),
    ("kubernetes/prefect.yaml", "periodSeconds: 10", "periodSeconds: soon", "soon"),
    ("kubernetes/rayjob.yaml", "shutdownAfterJobFinishes: true", "shutdownAfterJobFinishes: false", "without"),
    ("kubernetes/people.yaml", "minReplicas: 0", "minReplicas: 7", "not between"),
    ("kubernetes/kustomization.yaml", "- network.yaml", "- networks.yaml", "networks.yaml is not there"),
    ("kubernetes/kustomization.yaml", "configMapGenerator", "configmapGenerator", "configmapGenerator"),
    ("prefect.yaml", "concurrency_limit: {limit: 1", "concurrency_limit: {limits: 1", "limits"),
    ("prefect.yaml", "flows.run_study.run_study", "flows.run_study.run_studies", "no flows.run_study.run_studies"),
    ("schedules.yaml", "cron:", "corn:", "corn"),
    ("automations.yaml", "posture: Reactive", "posture: Reactiv", "Reactiv"),
]


@pytest.mark.parametrize(("name", "right", "wrong", "expected"), MISTAKES)
def test_its_linter_catches_a_mistake(name: str, right: str, wrong: str, expected: str) -> None:
    path, lint = next((path, lint) for path, lint in FILES if named(path) == name)
    text = path.read_text(encoding="utf-8")
    assert right in text
    found = lint(text.replace(right, wrong))
    assert any(expected in problem for problem in found), found


@pytest.mark.parametrize("path", STUDIES, ids=named)
def test_a_key_that_a_study_does_not_have_is_caught(path: Path) -> None:
    found = study(path.read_text(encoding="utf-8") + "\nsampelrs: [heun]\n")
    assert any("sampelrs" in problem for problem in found), found


@pytest.mark.parametrize("path", PROGRAMS, ids=named)
def test_a_name_that_a_program_does_not_have_is_caught(path: Path) -> None:
    found = program(path.read_text(encoding="utf-8") + "\nprint(nowhere)\n")
    assert any("nowhere" in problem for problem in found), found


def test_policies_and_services_speak_of_pods_that_are_there() -> None:
    found = [one for path in MANIFESTS for one in documents(path.read_text(encoding="utf-8"))]
    there = {pod["metadata"]["labels"]["app"] for one in found for pod in pods(one)}

    def named(value: Any) -> set[str]:
        if isinstance(value, dict):
            own = {value["app"]} if isinstance(value.get("app"), str) else set()
            return own.union(*(named(each) for each in value.values()))
        return set().union(*(named(each) for each in value)) if isinstance(value, list) else set()

    assert named([one["spec"] for one in found if one["kind"] in {"NetworkPolicy", "Service"}]) == there


def test_what_is_applied_together_is_all_there_is_and_the_versions_are_those_of_the_tests() -> None:
    (kustomization,) = documents((DEPLOYMENTS / "kubernetes" / "kustomization.yaml").read_text(encoding="utf-8"))
    generated = [name for made in kustomization["configMapGenerator"] for name in made["files"]]
    assert sorted(kustomization["resources"] + generated) == [path.name for path in MANIFESTS]
    pins = (DEPLOYMENTS.parent / "constraints.txt").read_text(encoding="utf-8").splitlines()
    ray = next(pin.partition("==")[2] for pin in pins if pin.startswith("ray=="))
    torch = next(pin.partition("==")[2].split()[0] for pin in pins if pin.startswith("torch==")).partition("+")[0]
    for name in ("rayjob.yaml", "people.yaml"):
        assert f"rayVersion: {ray}\n" in (DEPLOYMENTS / "kubernetes" / name).read_text(encoding="utf-8")
    image = (DEPLOYMENTS / "Containerfile").read_text(encoding="utf-8")
    assert f"ARG TORCH={torch}\n" in image
    wheel = tomllib.loads((DEPLOYMENTS.parent / "pyproject.toml").read_text(encoding="utf-8"))
    for package in wheel["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]:
        assert package in image
        assert f"!{package}" in (DEPLOYMENTS.parent / ".dockerignore").read_text(encoding="utf-8").splitlines()
