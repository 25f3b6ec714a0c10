"""The JSON schema of studies: it accepts what is shipped and what the registries can build, and
refuses no study that the command accepts.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from tasks.study.catalogue import REGISTRIES
from tasks.study.collection import OWN_KEYS
from tasks.study.model import KEYS, Study, StudyError
from tasks.study.schema import KEYS as TOLD
from tasks.study.schema import TRAINING, study_schema

SHIPPED = sorted((Path(__file__).parents[2] / "deployments" / "studies").rglob("*.yaml"))
SOUND: dict[str, Any] = {
    "name": "mine",
    "datasets": ["uniform"],
    "formulations": ["edm"],
    "samplers": ["heun"],
    "steps": [5],
    "metrics": ["w1"],
}


@cache
def schema() -> jsonschema.Draft202012Validator:
    made = jsonschema.Draft202012Validator(study_schema())
    made.check_schema(made.schema)
    return made


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_study_is_accepted(path: Path) -> None:
    schema().validate(YAML(typ="safe").load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.kind)
def test_every_registered_name_is_accepted_with_all_its_parameters_written_out(registry: Any) -> None:
    of_kind = schema().evolve(schema={"$ref": f"#/$defs/{registry.kind}", "$defs": study_schema()["$defs"]})
    for entry in registry:
        if entry.has_defaults:
            of_kind.validate(entry.name)
            of_kind.validate(json.loads(json.dumps(entry.cls().spec())))
        else:
            assert not of_kind.is_valid(entry.name)  # it needs parameters
        assert not of_kind.is_valid({"name": entry.name, "no_such_parameter": 1})


ACCEPTED: list[dict[str, Any]] = [
    {"seeds": [3, 5]},
    {"schedules": None},
    {"samplers": [{"name": "ddim", "eta": 1}, {"name": "heun", "grid": "own", "schedule": "edm"}]},
    {"samplers": [{"name": "heun", "grid": "log-snr"}, {"name": "ddim", "grid": {"name": "edm", "rho": 5}}]},
    {
        "datasets": ["gaussian_mixture"],
        "metrics": ["energy"],
        "samplers": [{"name": "heun", "guidance": {"name": "observation", "values": 0.5}}],
    },
    {"formulations": [{"name": "denoising", "told": "angle"}]},
    {"exclude": [{"formulation": "exact", "steps": [1, 2]}]},
    {"training": {"steps": 5, "learning_rate": 1}},
]


@pytest.mark.parametrize("change", ACCEPTED, ids=str)
def test_what_the_command_accepts_is_accepted(change: dict[str, Any]) -> None:
    study = {**SOUND, **change}
    Study.from_spec(study)
    schema().validate(json.loads(json.dumps(study)))


PLANTED: list[dict[str, Any]] = [
    {"datasets": ["unifrom"]},
    {"datasets": "uniform"},
    {"datasets": []},
    {"datasets": ["from_file"]},
    {"datasets": ["uniform", "uniform"]},
    {"formulation": ["edm"]},
    {"samplers": [{"name": "ddim", "etta": 0.5}]},
    {"samplers": [{"name": "ddim", "eta": "0.5"}]},
    {"samplers": [{"name": "heun", "grid": "edn"}]},
    {"samplers": [{"eta": 0.5}]},
    {"samplers": [{"name": "ancestral", "variance": "both"}]},
    {"formulations": [{"name": "denoising", "parametrization": "w"}]},
    {"steps": ["ten"]},
    {"steps": [0]},
    {"steps": [2.5]},
    {"seeds": 0},
    {"samples": 1},
    {"start": "zero"},
    {"name": "a name"},
    {"training": {"stps": 100}},
    {"training": {"steps": 0}},
    {"training": {"ema": 2}},
    {"training": {"network": {"name": "unet", "attention": 1}}},
    {"keep": {"trajectories": ["heun"]}},
    {"keep": {"samples": "yes"}},
    {"exclude": [{}]},
    {"exclude": [{"datasets": "uniform"}]},
    {"grids": [{"step": [1]}]},
    {"metrics": ["w3"]},
    {"metrics": [{"name": "mmd", "bandwidths": 3}]},
]


@pytest.mark.parametrize("change", PLANTED, ids=str)
def test_a_planted_mistake_is_refused_by_the_schema_and_by_the_command(change: dict[str, Any]) -> None:
    study = {**SOUND, **change}
    assert not schema().is_valid(study)
    with pytest.raises(StudyError):
        Study.from_spec(study)


@pytest.mark.parametrize("key", ["name", "datasets", "formulations", "samplers", "steps", "metrics"])
def test_a_required_key_that_is_missing_is_refused(key: str) -> None:
    assert not schema().is_valid({k: v for k, v in SOUND.items() if k != key})


def test_every_key_is_told() -> None:
    assert list(TOLD) == list(KEYS)
    assert set(TRAINING) == set(study_schema()["$defs"]["study"]["properties"]["training"]["properties"])
    assert set(OWN_KEYS) == set(study_schema()["$defs"]["list-of-studies"]["properties"])
