"""What rows asked is read from the specs that the store keeps, and nothing out of labels."""

from __future__ import annotations

import ast
import math
import re
from pathlib import Path

import numpy as np
import pytest

import tasks
from diffusion.datasets import EightGaussians, Uniform
from diffusion.guidance import ClassLabel
from diffusion.metrics import metrics
from diffusion.samplers import DDIM
from diffusion.schedules import VPCosine, schedules
from tasks.report import draw_report
from tasks.report.lookup.requested import C, Described, requested_in
from tasks.report.lookup.targets import Target
from tasks.report.numbers.curves import tabulate
from tests.tasks import own_parts
from tests.tasks.chosen import GivenAnswer, answers_to, chosen
from tests.tasks.real_page import all_kinds, together

pytestmark = together

LABELS = {"dataset", "formulation", "schedule", "sampler", "grid", "label", "condition"}
ROOMS = ("report", "query")


def known(part: Described[C] | None) -> C:
    """The component of a part of a question that has it."""
    assert part is not None
    assert part.component is not None
    return part.component


def _split(tree: ast.AST) -> list[ast.Call]:
    """Calls that take a label apart: a method of a text on a variable or attribute that is called
    as a label is.
    """
    taking = {"split", "rsplit", "partition", "rpartition", "removesuffix", "removeprefix", "startswith", "endswith"}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            whole = ast.unparse(node)
            named = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
            named |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
            regular = re.match(r"re\.(split|match|fullmatch|search|sub|findall)\(", whole)
            if (node.func.attr in taking or regular) and named & LABELS:
                found.append(node)
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_no_label_is_taken_apart(room: str) -> None:
    folder = Path(tasks.__file__).parent / room
    wrong = [
        f"{path.relative_to(folder)}:{call.lineno}: {ast.unparse(call)}"
        for path in sorted(folder.rglob("*.py"))
        for call in _split(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert wrong == []


@pytest.mark.parametrize("joint", [" | ", " on ", "("])
@pytest.mark.parametrize("room", ROOMS)
def test_no_text_is_taken_apart_at_what_joins_labels(room: str, joint: str) -> None:
    folder = Path(tasks.__file__).parent / room
    taking = re.compile(rf"(split|partition|rsplit|rpartition|find|index)\(\s*[\"']{re.escape(joint)}[\"']")
    contains = re.compile(rf"[\"']{re.escape(joint)}[\"'] (not )?in ")
    wrong = [
        f"{path.relative_to(folder)}: {line.strip()}"
        for path in sorted(folder.rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if taking.search(line) or contains.search(line)
    ]
    assert wrong == []


def test_every_row_of_a_run_has_the_components_that_it_asked() -> None:
    answers = all_kinds()
    labels = answers.points
    for i, requested in enumerate(requested_in(answers)):
        row = labels.isel(point=i)
        sampler = known(requested.sampler).label()
        if requested.guidance is not None:
            sampler += f" | {known(requested.guidance).label()}"
        assert sampler == row["sampler"].item()
        assert known(requested.schedule).label() == row["schedule"].item()
        assert known(requested.grid).label() == row["grid"].item()
        assert (
            known(requested.formulation).label() == row["formulation"].item() or requested.formulation.name == "exact"
        )
        dataset = known(requested.dataset).label()
        condition = f" | {known(requested.guidance).condition()}" if requested.guidance else ""
        assert dataset + condition == row["dataset"].item()


def test_a_question_has_guidance_and_the_schedule_that_is_sampled_on() -> None:
    guidance = {"name": "class-label", "labels": [2, 3], "weight": 1.5}
    rows = [
        {"dataset": "eight_gaussians", "sampler": {"name": "ddim", "eta": 0.5}, "guidance": guidance, "sliced-w2": 0.1},
        {"dataset": "eight_gaussians", "sampler": "ddim", "other_schedule": "vp-cosine", "sliced-w2": 0.1},
        {"dataset": "eight_gaussians", "sampler": "ddim", "sliced-w2": 0.1},
    ]
    guided, elsewhere, plain = requested_in(answers_to(rows))
    assert known(guided.guidance) == ClassLabel((2, 3), 1.5)
    assert known(guided.sampler) == DDIM(0.5)
    assert (guided.rule, guided.sampler.plain) == ("", False)
    assert known(elsewhere.sampling_schedule) == VPCosine()
    assert elsewhere.schedule.name == "edm"
    assert elsewhere.rule == ""
    assert (plain.rule, plain.sampler.plain) == ("ddim", True)
    assert plain.sampling_schedule.component == schedules.create("edm")


def test_of_what_is_guided_the_target_is_the_law_given_what_is_known() -> None:
    guidance = {"name": "class-label", "labels": 3}
    row = {"dataset": "eight_gaussians", "sampler": "heun", "guidance": guidance, "sliced-w2": 0.1}
    table = tabulate(answers_to([row]))
    ((label, target),) = table.targets.items()
    assert label == "eight_gaussians | label 3"
    assert target.distribution == EightGaussians().of_classes((3,))


def test_a_target_has_the_parameters_that_points_were_asked_with() -> None:
    rows = [{"dataset": {"name": "uniform", "low": low}, "w1": 0.1} for low in (0.0, -1.0)]
    table = tabulate(answers_to(rows))
    assert [target.support() for target in table.targets.values()] == [(0.0, 1.0), (-1.0, 1.0)]


def test_of_points_that_were_skipped_the_model_is_not_known_and_the_page_is_drawn() -> None:
    spec = {
        "datasets": ["torus", "eight_gaussians"],
        "metrics": ["sliced-w2"],
        "formulations": [{"name": "exact", "schedule": "edm"}],
        "samplers": [{"name": "heun", "guidance": {"name": "class-label", "labels": 3}}],
        "steps": [2],
    }
    answers = chosen(spec, lambda _point: GivenAnswer({"sliced-w2": 0.1}))
    (skipped,) = [row for row in tabulate(answers).points if row.status == "skipped"]
    assert skipped.requested.dataset.component is None
    assert known(skipped.requested.guidance) == ClassLabel(3)
    html = draw_report(answers)
    assert "torus | label 3: the exact target is not drawn (none of its points was asked of a model)." in html


def test_what_is_not_installed_has_its_name_and_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = answers_to([{"sampler": "tests.tasks.own_parts:First", "w1": 0.1}, {"w1": 0.2}])
    monkeypatch.delattr(own_parts, "First")
    gone, heun = requested_in(answers)
    assert (gone.sampler.name, gone.sampler.component) == ("tests.tasks.own_parts:First", None)
    assert "own_parts" in gone.sampler.missing
    assert heun.sampler.plain
    assert gone.dataset.component == Uniform()
    assert "What the numbers say" in draw_report(answers)


def test_the_error_of_a_single_point_is_what_the_metric_says_of_it() -> None:
    target = Target("uniform", Uniform())
    assert target.error_of_its_mean(metrics.create("w1")) == pytest.approx(0.25)
    assert target.error_of_its_mean(metrics.create("ks")) == pytest.approx(0.5)
    assert math.isnan(target.error_of_its_mean(metrics.create("torus-distance")))
    assert math.isnan(Target("mine", None).error_of_its_mean(metrics.create("w1")))
    assert math.isnan(target.error_of_its_mean(metrics.create("c2st")))  # five seconds, for each data set of a page
    assert math.isnan(target.error_of_its_mean(None))


def test_samples_given_something_of_an_image_are_images_too() -> None:
    kept = np.zeros((4, 64), np.float32)
    known = ({"name": "classifier-free", "labels": "all"}, {"name": "inpainting", "coordinates": "second-half"})
    rows = [
        {"dataset": "digits", "formulation": "class-conditional", "guidance": known[0]},
        {"dataset": "digits", "guidance": known[1]},
    ]
    table = tabulate(answers_to([{**row, "sliced-w2": 0.1, "samples": kept} for row in rows]))
    assert set(table.targets) == {"digits | all labels", "digits | second-half of example 0"}
    for target in table.targets.values():
        assert target.distribution is not None
        assert target.image_shape == (1, 8, 8)
