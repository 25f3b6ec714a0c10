"""What a study file may say, and what a person is told who wrote something else."""

from __future__ import annotations

import json
import pickle
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffusion.datasets import datasets
from diffusion.formulations import formulations
from diffusion.metrics import metrics
from diffusion.samplers import samplers
from diffusion.schedules import EDM, schedules
from diffusion.schedules.grids import grids
from tasks.study import Study, StudyError, load_study
from tasks.study import document as study_file

if TYPE_CHECKING:
    from pathlib import Path

PLANE = next(entry.name for entry in datasets if entry.cls().dim > 1)

GOOD = {  # six lines: the numbers of the places below count on it
    "name": "uniform",
    "datasets": "[uniform]",
    "formulations": "[vp, edm]",
    "samplers": "[ddim, heun]",
    "steps": "[1, 2, 50]",
    "metrics": "[w1]",
}


def text_of(**changes: str | None) -> str:
    lines = {**GOOD, **changes}
    return "".join(f"{key}: {value}\n" for key, value in lines.items() if value is not None)


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "uniform.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def study(folder: Path, **changes: str | None) -> Study:
    return load_study(write(folder, text_of(**changes)))


def message(folder: Path, content: str | bytes, *overrides: str) -> str:
    with pytest.raises(StudyError) as caught:
        load_study(write(folder, content), overrides)
    return str(caught.value)


WRONG: list[tuple[dict[str, str | None], str, list[str]]] = [
    # the frame
    ({"datset": "[uniform]"}, "7:1, at datset", ["unknown key 'datset'; did you mean 'datasets'?", "samplers"]),
    ({"name": None}, "1:1, at name", ["required and is missing"]),
    ({"steps": None}, "1:1, at steps", ["required and is missing"]),
    ({"name": "../elsewhere"}, "1:1, at name", ["found '../elsewhere'", "letters, digits"]),
    ({"name": '"a\\n"'}, "1:1, at name", ["letters, digits"]),
    ({"name": "7"}, "1:1, at name", ["found 7", "letters, digits"]),
    ({"name": "x" * 65}, "1:1, at name", ["1 to 64"]),
    ({"description": ""}, "7:1, at description", ["found nothing (null), expected text"]),
    ({"description": '"\\ud800"'}, "7:1, at description", ["UTF-8"]),
    # components
    ({"samplers": "[ddim, heunn]"}, "4:18, at samplers[1]", ["unknown sampler 'heunn'; did you mean 'heun'?", "euler"]),
    ({"samplers": "[HEUN]"}, "4:12, at samplers[0]", ["did you mean 'heun'?"]),
    ({"samplers": "[{name: heunn}]"}, "4:13, at samplers[0].name", ["did you mean 'heun'?"]),
    (
        {"samplers": "[{name: ddim, etta: 1}]"},
        "4:25, at samplers[0].etta",
        ["unknown parameter 'etta' of 'ddim'", "eta"],
    ),
    ({"samplers": "[{name: heun, eta: 1}]"}, "4:25, at samplers[0].eta", ["unknown parameter 'eta' of 'heun'", "none"]),
    ({"samplers": '[{name: ddim, eta: "0.5"}]'}, "4:25, at samplers[0].eta", ["found '0.5'", "without quotes"]),
    ({"samplers": "[{name: ddim, eta: true}]"}, "4:25, at samplers[0].eta", ["found true, expected a number"]),
    ({"samplers": "[{name: ddim, eta: .nan}]"}, "4:25, at samplers[0].eta", ["expected a finite number"]),
    ({"samplers": "[{name: ddim, eta: 1e999}]"}, "4:25, at samplers[0].eta", ["expected a finite number"]),
    ({"samplers": "[{name: ddim, eta: 2}]"}, "4:12, at samplers[0]", ["'ddim': eta", "between 0", "found 2"]),
    (
        {"samplers": "[{name: ancestral, variance: no}]"},
        "4:30, at samplers[0].variance",
        ["'posterior' or 'transition'"],
    ),
    ({"samplers": "[{ddim: {eta: 1}}]"}, "4:12, at samplers[0]", ["write {name: ddim, parameter: ...}"]),
    ({"samplers": "[{name: heun, grid: edn}]"}, "4:25, at samplers[0].grid", ["unknown grid 'edn'", "'edm'", "own"]),
    ({"samplers": "[{name: heun, grid: [edm]}]"}, "4:25, at samplers[0].grid", ["expected the name of a grid"]),
    ({"samplers": "[3]"}, "4:12, at samplers[0]", ["found 3, expected the name of a sampler or {name: ..."]),
    ({"samplers": '["no.such:Thing"]'}, "4:12, at samplers[0]", ["'no.such:Thing'", "No module named 'no'"]),
    ({"samplers": '["json:loads"]'}, "4:12, at samplers[0]", ["'json:loads'", "derived from Component"]),
    ({"formulations": "[{name: exact, schedule: edn}]"}, "3:30, at formulations[0].schedule", ["did you mean 'edm'?"]),
    (
        {"formulations": "[{name: exact, schedule: {name: edm, sigma_mx: 3}}]"},
        "3:52, at formulations[0].schedule.sigma_mx",
        ["unknown parameter 'sigma_mx' of 'edm'; did you mean 'sigma_max'?"],
    ),
    (
        {"formulations": "[{name: exact, schedule: 3}]"},
        "3:30, at formulations[0].schedule",
        ["expected the name of a schedule"],
    ),
    # axes
    ({"samplers": "[]"}, "4:1, at samplers", ["found an empty list, expected at least one entry"]),
    ({"samplers": ""}, "4:1, at samplers", ["found nothing (null), expected a list"]),
    ({"samplers": "heun"}, "4:1, at samplers", ["found 'heun', expected a list (write samplers: [heun])"]),
    ({"samplers": "[heun, {name: heun, grid: own}]"}, "4:18, at samplers[1]", ["twice", "samplers[0]"]),
    ({"samplers": "[{name: ddim, eta: 1}, {eta: 1.0, name: ddim}]"}, "4:34, at samplers[1]", ["twice"]),
    ({"datasets": "[uniform, uniform]"}, "2:21, at datasets[1]", ["found 'uniform' twice", "datasets[0]"]),
    ({"steps": "9" * 300}, "5:1, at steps", ["more than 60 digits, expected a list"]),
    ({"steps": "ten"}, "5:1, at steps", ["found 'ten', expected a list"]),
    ({"steps": "[ten]"}, "5:9, at steps[0]", ["found 'ten', expected an integer from 1"]),
    ({"steps": "[1, 0]"}, "5:12, at steps[1]", ["found 0, expected an integer from 1"]),
    ({"steps": "[-3]"}, "5:9, at steps[0]", ["found -3, expected an integer from 1"]),
    ({"steps": "[1.0]"}, "5:9, at steps[0]", ["found 1.0, expected an integer"]),
    ({"steps": "[true]"}, "5:9, at steps[0]", ["found true, expected an integer"]),
    ({"steps": "['5']"}, "5:9, at steps[0]", ["found '5', expected an integer", "without quotes"]),
    ({"steps": "[1_000]"}, "5:9, at steps[0]", ["found '1_000'", "underscores"]),
    ({"steps": f"[{'9' * 100}]"}, "5:9, at steps[0]", ["more than 60 digits, expected an integer from 1"]),
    ({"steps": f"[{'9' * 5000}]"}, "5:9, at steps[0]", ["5000 digits"]),
    ({"steps": "[5, 1, 5]"}, "5:15, at steps[2]", ["found 5 twice, the same as steps[0]"]),
    ({"seeds": "0"}, "7:1, at seeds", ["found 0", "an integer from 1"]),
    ({"seeds": "true"}, "7:1, at seeds", ["found true", "a list"]),
    ({"seeds": "'3'"}, "7:1, at seeds", ["found '3'", "without quotes"]),
    ({"seeds": "1000000000000"}, "7:1, at seeds", ["an integer from 1 to 10000"]),
    ({"seeds": "[-1]"}, "7:9, at seeds[0]", ["found -1, expected an integer from 0"]),
    ({"seeds": "[1, 1]"}, "7:12, at seeds[1]", ["twice"]),
    # settings
    ({"training": "{stepz: 3}"}, "7:12, at training.stepz", ["unknown parameter 'stepz' of training", "'steps'?"]),
    ({"training": "{steps: 0}"}, "7:12, at training.steps", ["found 0, expected an integer, 1 or more"]),
    ({"training": "{steps: '10'}"}, "7:12, at training.steps", ["found '10', expected an integer", "quotes"]),
    ({"training": "{steps: true}"}, "7:12, at training.steps", ["found true, expected an integer"]),
    ({"training": "{learning_rate: 0}"}, "7:12, at training.learning_rate", ["expected a number above 0"]),
    ({"training": "{learning_rate: .inf}"}, "7:12, at training.learning_rate", ["expected a finite number"]),
    ({"training": "3"}, "7:1, at training", ["found 3, expected a mapping"]),
    ({"samples": "1"}, "7:1, at samples", ["found 1, expected an integer from 2"]),
    ({"samples": ".nan"}, "7:1, at samples", ["expected an integer"]),
    ({"start": "quantile"}, "7:1, at start", ["found 'quantile', expected 'random' or 'quantiles'"]),
    ({"keep": "{samples: yes}"}, "7:8, at keep.samples", ["found 'yes', expected true or false", "write true"]),
    ({"keep": "{sample: true}"}, "7:8, at keep.sample", ["unknown key 'sample'; did you mean 'samples'?"]),
    ({"keep": "true"}, "7:1, at keep", ["found true, expected a mapping"]),
    ({"keep": "{trajectories: [heun]}"}, "7:23, at keep.trajectories[0]", ["for example heun@50"]),
    ({"keep": "{trajectories: [heum@50]}"}, "7:23, at keep.trajectories[0]", ["did you mean 'heun'?"]),
    ({"exclude": "[{formulations: vp}]"}, "7:12, at exclude[0].formulations", ["did you mean 'formulation'?", "grid"]),
    ({"exclude": "[{sampler: heunn}]"}, "7:12, at exclude[0].sampler", ["did you mean 'heun'?"]),
    ({"exclude": "[{sampler: [heun, ddmi]}]"}, "7:28, at exclude[0].sampler[1]", ["did you mean 'ddim'?"]),
    ({"exclude": "[{steps: 0}]"}, "7:12, at exclude[0].steps", ["found 0, expected an integer from 1"]),
    ({"exclude": "[{}]"}, "7:11, at exclude[0]", ["leaves everything out"]),
    ({"exclude": "{sampler: heun}"}, "7:1, at exclude", ["expected a list"]),
    ({"grids": "[{sampler: [heun]}]"}, "7:10, at grids[0].sampler", ["did you mean 'samplers'?"]),
    ({"grids": "[{samples: 10}]"}, "7:10, at grids[0].samples", ["unknown key 'samples'"]),
    ({"grids": "[{}, 3]"}, "7:13, at grids[1]", ["found 3, expected a mapping"]),
    ({"grids": "[{datasets: [uniform]}]", "steps": None}, "6:9, at grids[0].steps", ["missing, here and at the top"]),
    # what can serve nothing
    (
        {"formulations": "[vp]", "schedules": "[edm]"},
        "3:16, at formulations[0]",
        ["'vp' accepts none of the schedules listed", "'edm'"],
    ),
    ({"schedules": "[edm]", "formulations": "[edm, vp]"}, "3:21, at formulations[1]", ["'vp' accepts none"]),
    (
        {"formulations": "[ve, edm]", "samplers": "[heun, {name: ancestral, variance: transition}]"},
        "4:18, at samplers[1]",
        ["'ancestral' can serve no schedule", "posterior"],
    ),
    ({"samplers": "[{name: heun, grid: discrete}]"}, "4:25, at samplers[0].grid", ["'discrete' can serve no schedule"]),
    ({"formulations": "[ddpm]", "steps": "[50, 200]"}, "5:13, at steps[1]", ["found 200, expected at most 100"]),
    ({"datasets": f"[{PLANE}]"}, "6:11, at metrics[0]", ["'w1' can serve no dataset of the study"]),
    (
        {"datasets": f"[uniform, {PLANE}]", "start": "quantiles"},
        "7:1, at start",
        ["found 'quantiles'", PLANE, "accepted: random"],
    ),
    ({"grids": "[{formulations: [ddpm], steps: [101]}]"}, "7:40, at grids[0].steps[0]", ["at most 100"]),
    ({"grids": "[{}, {schedules: [edm]}]"}, "3:16, at formulations[0]", ["accepts none", "(in grids[1])"]),
]


@pytest.mark.parametrize(("changes", "place", "fragments"), WRONG, ids=[f"{w[1]} {w[2][0]}"[:70] for w in WRONG])
def test_a_wrong_study_is_refused_with_place_finding_and_remedy(
    tmp_path: Path, changes: dict[str, str | None], place: str, fragments: list[str]
) -> None:
    text = message(tmp_path, text_of(**changes))
    assert "\n" not in text, "one mistake is one line"
    line, _, rest = text.partition("uniform.yaml:")[2].partition(": ")
    assert line == place
    for fragment in fragments:
        assert fragment in rest


NOT_A_STUDY: list[tuple[str | bytes, list[str]]] = [
    (b"", ["uniform.yaml: found nothing, expected a study"]),
    ("# only words\n", ["uniform.yaml: found nothing"]),
    ("- uniform\n", ["uniform.yaml:1:1: found", "expected `key: value` lines"]),
    ("uniform", ["uniform.yaml:1:1: found 'uniform', expected `key: value` lines"]),
    ("steps: [1]\nname: a\nsteps: [2]\n", ["uniform.yaml:3:1, at steps: the key 'steps' is given twice", "on line 1"]),
    ("training:\n  steps: 1\n  steps: 2\n", ["uniform.yaml:3:3, at training.steps", "twice", "line 2"]),
    ("name: a\ntraining:\n\tsteps: 3\n", ["uniform.yaml:3:1: not YAML", "tabs"]),
    ("name: a: b\n", ["uniform.yaml:1:8: not YAML"]),
    ("steps: [1, 2\n", ["uniform.yaml:2:1: not YAML"]),
    ("name: a\n---\nname: b\n", ["uniform.yaml:2:1: found a second document"]),
    ("name: !!python/object/apply:os.system [ls]\n", ["uniform.yaml:1:7, at name: found the tag", "plain values"]),
    ("name: !!str a\n", ["found the tag"]),
    ("a: &a [1]\nb: *a\n", ["uniform.yaml:1:4, at a: found the anchor &a"]),
    ("a: *b\n", ["found the alias *b; write the value out"]),
    ("? [1, 2]\n: 3\n", ["uniform.yaml:1:3: expected a plain word as a key"]),
    ("[" * 100_000, ["nested deeper than"]),
    (b"\x89PNG\r\n\x1a\n\x00\x00", ["uniform.yaml:1: found the byte 0x89, which is not UTF-8"]),
    (b"name: a\n# caf\xe9\n", ["uniform.yaml:2: found the byte 0xe9, which is not UTF-8"]),
    (b"\x00\x01\x02", ["uniform.yaml: not YAML"]),
    (b"#" * 1_000_001, ["larger than 1,000,000 bytes"]),
    ('name: "\\UFFFFFFFF"', ["uniform.yaml: not YAML"]),
]


@pytest.mark.parametrize(("content", "fragments"), NOT_A_STUDY, ids=[n[1][0] for n in NOT_A_STUDY])
def test_what_is_not_a_plain_mapping_in_yaml_is_refused(
    tmp_path: Path, content: str | bytes, fragments: list[str]
) -> None:
    text = message(tmp_path, content)
    assert "\n" not in text
    for fragment in fragments:
        assert fragment in text


def test_all_problems_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    changes = {"samplers": "[heunn, {name: ddim, eta: x}]", "steps": "[0, -1]", "seed": "3"}
    first, *problems = message(tmp_path, text_of(**changes), "samples=1").split("\n  ")
    assert first.endswith("uniform.yaml: 6 problems")
    places = [problem.rpartition("uniform.yaml:")[2].split(": ")[0] for problem in problems]
    assert places == [
        "4:12, at samplers[0]",
        "4:32, at samplers[1].eta",
        "5:9, at steps[0]",
        "5:12, at steps[1]",
        "7:1, at seed",
        "--set samples=1",
    ]


def test_a_misspelled_required_key_is_one_problem(tmp_path: Path) -> None:
    text = message(tmp_path, text_of(samplers=None, sampler="[heun]"))
    assert "\n" not in text
    assert "unknown key 'sampler'; did you mean 'samplers'?" in text


@pytest.mark.parametrize(
    ("override", "place", "fragment"),
    [
        ("training.stepz=5", "--set training.stepz=5", "did you mean 'steps'?"),
        ("trainin.steps=5", "--set trainin.steps=5", "did you mean 'training'?"),
        ("steps=[1,0]", "--set steps=[1,0], at steps[1]", "found 0, expected"),
        ("samplers[1]=heunn", "--set samplers[1]=heunn", "did you mean 'heun'?"),
        ("samplers[0].etta=1", "--set samplers[0].etta=1", "did you mean 'eta'?"),
        ("samplers[2]=heun", "--set samplers[2]=heun", "samplers has 2 entries"),
        ("steps.first=3", "--set steps.first=3", "there is no entry 'first'"),
        ("name.x=3", "--set name.x=3", "name is 'uniform', which has nothing called 'x'"),
        ("steps", "--set steps", "expected key.path=value"),
        ("=3", "--set =3", "expected key.path=value"),
        ("a..b=3", "--set a..b=3", "expected key.path=value"),
        ("steps=[1", "--set steps=[1:1:3", "not YAML"),
        ("seeds=", "--set seeds=", "found nothing (null)"),
        ("keep.samples='true'", "--set keep.samples='true'", "without quotes"),
    ],
)
def test_a_wrong_override_is_refused_with_itself_as_the_place(
    tmp_path: Path, override: str, place: str, fragment: str
) -> None:
    text = message(tmp_path, text_of(), override)
    assert text.startswith(f"{place}: ")
    assert fragment in text


def test_an_override_of_what_every_block_has_itself_is_refused(tmp_path: Path) -> None:
    blocks = "[{formulations: [edm], steps: [3]}, {formulations: [vp], steps: [4]}]"
    text = message(tmp_path, text_of(grids=blocks), "steps=[5]")
    assert text.startswith("--set steps=[5]: every entry of grids has its own steps")
    changed = load_study(write(tmp_path, text_of(grids=blocks)), ["grids[0].steps=[5]"])
    assert [block.steps for block in changed.blocks()] == [(5,), (4,)]
    assert load_study(write(tmp_path, text_of(grids="[{steps: [3]}, {}]")), ["steps=[5]"]).blocks()[1].steps == (5,)


def test_overrides_are_the_same_as_writing_it_in_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, text_of())
    overrides = ["steps=[1,2,4]", "training.steps=100", "keep.samples=true", "samplers[0].eta=0.5", "seeds=[4, 2]"]
    changed = load_study(path, overrides)
    written = study(
        tmp_path,
        steps="[1, 2, 4]",
        training="{steps: 100}",
        keep="{samples: true}",
        samplers="[{name: ddim, eta: 0.5}, heun]",
        seeds="[4, 2]",
    )
    assert changed == written
    assert changed.training.steps == 100
    assert changed.seeds == (4, 2)


SAME: list[tuple[dict[str, str | None], dict[str, str | None]]] = [
    ({}, {"seeds": "1", "samples": "10000", "start": "random", "description": "''", "grids": "[]", "exclude": "[]"}),
    ({}, {"keep": "{samples: false, trajectories: []}", "training": "{}", "schedules": "null"}),
    ({}, {"samplers": "[{name: ddim, eta: 0}, {grid: own, name: heun}]"}),
    ({}, {"steps": "[0x1, 0o2, +50]"}),
    ({}, {"datasets": "\n- name: uniform"}),
    ({"seeds": "3"}, {"seeds": "[0, 1, 2]"}),
    ({"samplers": "[{name: ddim, eta: 1}]"}, {"samplers": "[{name: ddim, eta: 1.0}]"}),
    ({"training": "{learning_rate: 1}"}, {"training": "{learning_rate: 1.0}"}),
    ({"formulations": "[exact]"}, {"formulations": "[{name: exact, schedule: edm}]"}),
    (
        {"formulations": "[{name: exact, schedule: edm}]"},
        {"formulations": "[{name: exact, schedule: {name: edm, sigma_max: 80}}]"},
    ),
    ({"exclude": "[{sampler: heun, steps: [2, 1]}]"}, {"exclude": "[{steps: [1, 2], sampler: [heun]}]"}),
    ({"keep": "{trajectories: [heun@050]}"}, {"keep": "{trajectories: [heun@50]}"}),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_spelling_does_not_matter(tmp_path: Path, one: dict[str, str | None], other: dict[str, str | None]) -> None:
    assert study(tmp_path, **one) == study(tmp_path, **other)
    assert json.dumps(study(tmp_path, **one).spec()) == json.dumps(study(tmp_path, **other).spec())


def test_the_order_of_keys_does_not_matter(tmp_path: Path) -> None:
    backwards = "".join(reversed(text_of().splitlines(keepends=True)))
    assert load_study(write(tmp_path, backwards)) == study(tmp_path)


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(tmp_path: Path) -> None:
    windows = b"\xef\xbb\xbf" + text_of().replace("\n", "\r\n").encode()
    assert load_study(write(tmp_path, windows)) == study(tmp_path)


FULL: dict[str, str | None] = {
    "datasets": "[uniform, {name: uniform, low: -2}]",
    "formulations": "[vp, ve, iddpm, edm, ddpm, {name: exact, schedule: {name: edm, sigma_max: 40}}]",
    "seeds": "[5, 3]",
    "samplers": "[ddim, {name: ddim, eta: 1, grid: edm}, euler, heun, ancestral]",
    "metrics": "[w1, ks]",
    "keep": "{samples: true, trajectories: [heun@50]}",
    "exclude": "[{formulation: ve, sampler: heun, steps: [1, 2]}]",
    "grids": "[{training: {steps: 5}}, {formulations: [ve], schedules: [edm], exclude: []}, {schedules: null}]",
    "start": "quantiles",
}


@pytest.mark.parametrize("changes", [{}, FULL, {"schedules": "[vp-linear]", "formulations": "[vp]"}])
def test_the_spec_is_json_and_gives_the_study_back(tmp_path: Path, changes: dict[str, str | None]) -> None:
    loaded = study(tmp_path, **changes)
    spec = json.loads(json.dumps(loaded.spec(), allow_nan=False))
    assert spec == loaded.spec()
    assert Study.from_spec(spec) == loaded
    assert Study.from_spec(spec).spec() == spec
    assert Study.from_spec(spec).blocks() == loaded.blocks()
    assert pickle.loads(pickle.dumps(loaded)) == loaded  # noqa: S301 - our own bytes


def test_a_spec_that_is_wrong_is_refused_with_its_path() -> None:
    with pytest.raises(StudyError, match=r"the study's spec, at samplers\[0\]: unknown sampler 'x'"):
        Study.from_spec({**_plain_good(), "samplers": ["x"]})
    with pytest.raises(StudyError, match="found 3, expected a mapping"):
        Study.from_spec(3)  # type: ignore[arg-type]
    with pytest.raises(StudyError, match="expected an integer from 1"):
        Study.from_spec({**_plain_good(), "steps": [10**5000]})


def test_the_example_of_the_documentation_loads(tmp_path: Path) -> None:
    text = """\
        name: uniform                     # the slides' scalar example
        datasets: [uniform]
        formulations: [vp, ve, iddpm, edm]   # exact is always added where the dataset has it
        seeds: 3
        training: {steps: 3000, batch: 512, width: 128, depth: 3}
        samplers: [ddim, euler, heun, ancestral]
        steps: [1, 2, 3, 5, 8, 10, 16, 20, 32, 50, 64, 100]
        samples: 10000
        metrics: [w1, ks]
        keep: {samples: true, trajectories: [heun@50]}
        """
    loaded = load_study(write(tmp_path, text))
    (block,) = loaded.blocks()
    assert block.seeds == (0, 1, 2)
    assert block.schedules is None
    assert [(choice.grid, choice.schedule) for choice in block.samplers] == [(None, None)] * 4
    assert [f.registered_name for f in block.formulations] == ["vp", "ve", "iddpm", "edm"]
    assert loaded.keep.trajectories == ("heun@50",)


def test_blocks_take_from_the_top_what_they_do_not_say(tmp_path: Path) -> None:
    first, second, third = study(tmp_path, **FULL, training="{batch: 7}").blocks()
    assert (first.training.steps, first.training.batch) == (5, 7), "training settings are taken one by one"
    assert second.training.batch == third.training.batch == 7
    assert first.schedules is None
    assert second.schedules == (EDM(),)
    assert [f.registered_name for f in second.formulations] == ["ve"]
    assert len(first.exclude) == 1
    assert second.exclude == ()
    assert first.seeds == second.seeds == (5, 3)


def test_a_block_may_say_what_the_top_does_not(tmp_path: Path) -> None:
    block = "[{datasets: [uniform], formulations: [vp], samplers: [heun], steps: [1]}]"
    bare = study(tmp_path, datasets=None, formulations=None, samplers=None, steps=None, grids=block)
    assert bare.blocks()[0].steps == (1,)
    assert Study.from_spec(bare.spec()) == bare


def test_what_serves_only_some_is_accepted(tmp_path: Path) -> None:
    partly = study(
        tmp_path,
        datasets=f"[uniform, {PLANE}]",
        formulations="[vp, ve, ddpm]",
        samplers="[{name: ancestral, variance: transition}, {name: heun, grid: edm}]",
        steps="[50, 5000]",
    )
    assert len(partly.blocks()[0].pairs()) == 3


def test_an_exclusion_matches_points_that_match_every_key(tmp_path: Path) -> None:
    (exclusion,) = study(tmp_path, **FULL).exclude
    point: dict[str, Any] = {"dataset": "uniform", "formulation": "ve", "sampler": "heun", "seed": 0, "steps": 2}
    assert exclusion.matches(**point)
    assert not exclusion.matches(**{**point, "steps": 3})
    assert not exclusion.matches(**{**point, "formulation": "vp"})


def test_a_study_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        study(tmp_path).name = "other"


class TestFindingTheFile:
    @pytest.fixture(autouse=True)
    def shipped(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shelf = tmp_path / "deployments" / "studies"
        shelf.mkdir(parents=True)
        (shelf / "uniform.yaml").write_text(text_of())
        (shelf / "wide.yaml").write_text(text_of(steps="[0]"))
        monkeypatch.setattr(study_file, "SHIPPED", shelf)
        monkeypatch.chdir(tmp_path)

    def test_a_shipped_study_goes_by_its_name(self) -> None:
        assert load_study("uniform").name == "uniform"

    def test_its_problems_name_its_file(self) -> None:
        with pytest.raises(StudyError, match=r"^wide.yaml:5:9, at steps\[0\]: found 0"):
            load_study("wide")

    def test_a_relative_path_is_a_path(self, tmp_path: Path) -> None:
        write(tmp_path, text_of(name="mine"))
        assert load_study("./uniform.yaml").name == "mine"
        assert load_study("uniform.yaml").name == "mine"
        assert load_study("uniform").name == "uniform"

    @pytest.mark.parametrize("name", ["unifrom", "unifrom.yaml", "somewhere/unifrom.yaml"])
    def test_a_missing_file_is_told_with_the_shipped_names(self, name: str) -> None:
        with pytest.raises(StudyError) as caught:
            load_study(name)
        assert str(caught.value) == (
            f"{name}: there is no such file; did you mean 'uniform'? (shipped studies: uniform, wide; or a path)"
        )

    def test_a_name_never_leads_out_of_the_shelf(self, tmp_path: Path) -> None:
        (tmp_path / "deployments" / "secret.yaml").write_text(text_of())
        with pytest.raises(StudyError, match="no such file"):
            load_study("../secret")

    def test_a_folder_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(StudyError, match="this is a folder, expected a YAML file"):
            load_study(tmp_path)

    @pytest.mark.parametrize("name", ["", "a\0b", "x" * 5000, "\ud800"])
    def test_what_cannot_be_a_file_name_is_told(self, name: str) -> None:
        with pytest.raises(StudyError):
            load_study(name)

    def test_an_unreadable_file_is_told(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        path = write(tmp_path, text_of())

        def refuse(*_: Any, **__: Any) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("pathlib.Path.open", refuse)
        with pytest.raises(StudyError, match=r"uniform.yaml: cannot be read: Permission denied"):
            load_study(path)


REGISTRIES: list[Any] = [datasets, formulations, schedules, samplers, grids, metrics]
WORDS = st.sampled_from(
    [
        *Study.model_fields,
        *(entry.name for registry in REGISTRIES for entry in registry),
        *("grid", "eta", "own", "formulation", "sampler", "trajectories", "heun@1", "variance", "1_0", "", "'", "a b"),
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
PATIENT = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def _plain_good() -> dict[str, Any]:
    return {
        "name": "uniform",
        "datasets": ["uniform"],
        "formulations": ["vp"],
        "samplers": ["heun"],
        "steps": [1],
        "metrics": ["w1"],
    }


def _accepts_or_refuses(spec: Any) -> None:
    problems: tuple[str, ...] = ()
    try:
        loaded = Study.from_spec(spec)
    except StudyError as error:
        problems = error.problems
    else:
        assert Study.from_spec(loaded.spec()) == loaded
    assert all(problem.isprintable() for problem in problems), "a problem is one line that a terminal can show"


@PATIENT
@given(VALUES)
def test_any_value_is_a_study_or_a_study_error(value: Any) -> None:
    _accepts_or_refuses(value)


@PATIENT
@given(st.dictionaries(st.sampled_from(sorted(Study.model_fields)), VALUES, min_size=1, max_size=3))
def test_a_good_study_with_any_keys_changed_is_a_study_or_a_study_error(changes: dict[str, Any]) -> None:
    _accepts_or_refuses({**_plain_good(), **changes})


@PATIENT
@given(st.text(max_size=60) | st.binary(max_size=60))
def test_any_file_is_a_study_or_a_study_error(tmp_path: Path, content: str | bytes) -> None:
    path = write(tmp_path, content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
    with pytest.raises(StudyError):
        load_study(path)


@PATIENT
@given(st.text(alphabet="abs.[]=:{}-,&*!|>'\"#%@0159 \n\t\\", max_size=60))
def test_anything_that_looks_like_yaml_is_a_study_or_a_study_error(tmp_path: Path, content: str) -> None:
    with pytest.raises(StudyError):
        load_study(write(tmp_path, content))


@PATIENT
@given(st.from_regex(r"(steps|training|samplers|keep|x)((\.|\[)[a-z0-9]{0,8}\]?){0,3}=.{0,12}") | st.text(max_size=30))
def test_any_override_is_taken_or_refused(tmp_path: Path, override: str) -> None:
    path = write(tmp_path, text_of())
    with suppress(StudyError):
        load_study(path, [override])


def test_a_trajectory_that_a_narrowed_study_does_not_ask_for_keeps_nothing_and_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "{name: s, datasets: [uniform], formulations: [edm], samplers: [heun], steps: [50], metrics: [w1],"
        " keep: {trajectories: [heun@50]}}"
    )
    assert load_study(tmp_path / "s.yaml", ["steps=[1,2,4]"]).keep.trajectories == ("heun@50",)


# --- components inside components -----------------------------------------------------------------


def test_parts_of_a_formulation_are_named_like_any_component(tmp_path: Path) -> None:
    entry = "[{name: denoising, parametrization: v, weighting: {name: min-snr, gamma: 3}, schedule: vp-linear}]"
    loaded = study(tmp_path, formulations=entry)
    (block,) = loaded.blocks()
    (made,) = block.formulations
    assert (made.parametrization.registered_name, made.weighting.gamma) == ("v", 3.0)  # type: ignore[attr-defined]
    assert made.own_schedule().registered_name == "vp-linear"
    assert Study.from_spec(json.loads(json.dumps(loaded.spec()))) == loaded
    spelled = (
        "[{name: denoising, parametrization: {name: v}, weighting: {gamma: 3.0, name: min-snr}, schedule: vp-linear}]"
    )
    assert study(tmp_path, formulations=spelled).spec() == loaded.spec()


@pytest.mark.parametrize(
    ("entry", "place", "expected"),
    [
        ("[{name: denoising, parametrization: w}]", "formulations[0].parametrization", "unknown parametrization 'w'"),
        ("[{name: denoising, weighting: min-snrr}]", "formulations[0].weighting", "did you mean 'min-snr'?"),
        ("[{name: denoising, weighting: {name: min-snr, gama: 1}}]", "formulations[0].weighting.gama", "'gamma'"),
        ("[{name: denoising, weighting: {name: min-snr, gamma: x}}]", "formulations[0].weighting.gamma", "a number"),
        ("[{name: denoising, schedule: 3}]", "formulations[0].schedule", "expected the name of a schedule"),
        ("[{name: denoising, noise_levels: {name: log-normal, std: 0}}]", "formulations[0].noise_levels", "positive"),
    ],
)
def test_what_is_wrong_inside_a_part_is_told_with_its_place(
    tmp_path: Path, entry: str, place: str, expected: str
) -> None:
    said = message(tmp_path, text_of(formulations=entry))
    assert place in said
    assert expected in said


def test_a_sampler_may_take_a_grid_with_parameters_and_another_schedule(tmp_path: Path) -> None:
    entry = "[{name: heun, grid: {name: edm, rho: 5}, schedule: {name: vp-linear, epsilon_s: 0.01}}, {name: ddim, grid: log-snr}]"
    loaded = study(tmp_path, samplers=entry)
    first, second = loaded.blocks()[0].samplers
    assert first.grid is not None
    assert first.grid.label() == "edm(rho=5.0)"
    assert first.schedule is not None
    assert first.schedule.label() == "vp-linear(epsilon_s=0.01)"
    assert second.grid is not None
    assert second.grid.registered_name == "uniform-log-snr"  # the older name is understood, the newer one is kept
    assert Study.from_spec(json.loads(json.dumps(loaded.spec()))) == loaded


@pytest.mark.parametrize(
    ("key", "entry", "expected"),
    [
        ("datasets", "[{name: gaussian_mixture, means: [-1.0e+200, 1.0e+200]}]", "beyond 1e+100"),
        ("datasets", "[{name: torus, R: 1.0e+200}]", "beyond 1e+100"),
        ("datasets", "[{name: checkerboard, half_width: 1.0e+200}]", "beyond 1e+100"),
        ("datasets", "[{name: eight_gaussians, radius: 1.0e+200}]", "beyond 1e+100"),
        ("datasets", "[{name: uniform, low: -1.0e+300, high: 1.0e+300}]", "beyond 1e+100"),
        ("datasets", "[{name: gaussian, dim: 30000000}]", "at most 4096"),
        ("formulations", "[{name: vp, epsilon_t: 2}]", "between 0 and 1"),
        ("formulations", "[{name: edm, p_mean: 1.0e+308}]", "smaller mean"),
        ("formulations", "[{name: denoising, schedule: flow}, edm]", "does not accept its own schedule"),
        ("samplers", "[{name: predictor-corrector, corrector_steps: 100000000000}]", "from 1 to 100000"),
        ("samplers", "[{name: rk2, alpha: 1.0e-9}]", "[0.001, 1]"),
        ("metrics", "[{name: kl-grid, cells: 1000000000000}]", "2 to 1000000"),
        ("metrics", "[{name: score-error, count: 1000000000000}]", "from 1 to 100000"),
        ("metrics", "[{name: w2, points: 100000000}]", "1 to 5000"),
        ("metrics", "[{name: sliced-w2, projections: 1000000000000}]", "1 to 10000"),
    ],
)
def test_numbers_that_no_machine_can_work_with_are_refused(tmp_path: Path, key: str, entry: str, expected: str) -> None:
    metric = {} if key == "metrics" else {"metrics": "[energy]"}
    said = message(tmp_path, text_of(**{key: entry, **metric}))
    assert f"at {key}[0]" in said
    assert expected in said


def test_steps_beyond_a_discrete_schedule_are_fine_where_a_sampler_brings_another(tmp_path: Path) -> None:
    entry = "[{name: heun, schedule: edm}, ddim]"
    assert study(tmp_path, formulations="[{name: exact, schedule: ddpm-linear}]", samplers=entry, steps="[200]")
