"""Files that run elsewhere are sound as far as their linters know, and each linter catches a mistake
that is made in its file. docs/deploying.md says what has been run besides.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.deployed import DEPLOYMENTS, compose, containerfile, documents, manifest, pods, ray_cluster

Lint = Callable[[str], list[str]]

MANIFESTS = sorted(path for path in (DEPLOYMENTS / "kubernetes").glob("*.yaml") if path.name != "kustomization.yaml")
FILES: list[tuple[Path, Lint]] = [
    (DEPLOYMENTS / "Containerfile", containerfile),
    (DEPLOYMENTS / "compose.yaml", compose),
    (DEPLOYMENTS / "ray-cluster.yaml", ray_cluster),
    *((path, manifest) for path in MANIFESTS),
]


@pytest.mark.parametrize(("path", "lint"), FILES, ids=[path.name for path, _ in FILES])
def test_its_linter_finds_nothing(path: Path, lint: Lint) -> None:
    assert lint(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("name", "right", "wrong", "expected"),
    [
        ("Containerfile", "USER 10001:10001\n", "", "root"),
        ("Containerfile", "--no-cache-dir --constraint", "--constraint", "DL3042"),
        ("Containerfile", "-slim-bookworm\nRUN", "-slim-bookworm\nRUM", "unexpected"),
        ("compose.yaml", "restart: unless-stopped\n    cap", "restrat: unless-stopped\n    cap", "restrat"),
        ("compose.yaml", '"127.0.0.1:4200:4200"', '"4200:4200"', "4200:4200 is open"),
        ("compose.yaml", "${RAY_TOKEN:?the token of the Ray cluster}", "hunter2", "RAY_AUTH_TOKEN is written down"),
        ("compose.yaml", "networks: [database]", "networks: [databaes]", "databaes is not there"),
        ("ray-cluster.yaml", "max_workers: 2", "max_wrokers: 2", "max_wrokers"),
        ("ray-cluster.yaml", "RAY_AUTH_MODE=token ray start --address", "ray start --address", "without a token"),
        ("rayjob.yaml", "shutdownAfterJobFinishes", "shutdownAfterJobFinished", "shutdownAfterJobFinished"),
        ("rayjob.yaml", "submissionMode: HTTPMode", "submissionMode: HttpMode", "HttpMode"),
        ("rayjob.yaml", "containerPort: 8265", "containerPort: http", "http"),
        ("rayjob.yaml", "runAsNonRoot: true", "runAsNonRoot: false", "may run as root"),
        ("people.yaml", "  authOptions: {mode: token}\n", "", "authOptions"),
        ("people.yaml", "- {name: shm, mountPath", "- {name: smh, mountPath", "no volume smh"),
        ("namespace.yaml", "metadata:", "metdata:", "metdata"),
        ("network.yaml", "policyTypes: [Ingress]", "policyTypes: Ingress", "Ingress"),
        ("nightly.yaml", "concurrencyPolicy", "concurrencypolicy", "concurrencypolicy"),
        ("postgres.yaml", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "readOnlyRootFilesystem"),
        ("prefect.yaml", "periodSeconds: 10", "periodSeconds: soon", "soon"),
    ],
)
def test_its_linter_catches_a_mistake(name: str, right: str, wrong: str, expected: str) -> None:
    path, lint = next((path, lint) for path, lint in FILES if path.name == name)
    text = path.read_text(encoding="utf-8")
    assert right in text
    found = lint(text.replace(right, wrong))
    assert any(expected in problem for problem in found), found


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
