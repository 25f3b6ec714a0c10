"""What the README and the guide ask of the answers that ship: every question is answered as it stands
there.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.atlas import STUDIES
from flows.command_line import app
from tasks.results import open_results
from tasks.study import load_study
from tests.tasks.store_kit import ROOT
from tests.tasks.tiny_store import answer

ATLAS = "atlas:"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
READS = "query", "history", "plan"  # what asks `atlas:` and nothing else

SHOWN = re.compile(r"^\$ diffatlas (?P<asked>[^\n]*atlas:[^\n]*)\n(?P<told>(?:(?!\$ |```)[^\n]*\n)+)", re.MULTILINE)
NAMED = re.compile(r"(?:`|^)diffatlas ((?:query|history|plan) [^`\n#]*atlas:[^`\n#]*)", re.MULTILINE)


def found_in(pattern: re.Pattern[str]) -> list[tuple[str, ...]]:
    found = []
    for document in DOCUMENTS:
        found += [match.groups() for match in pattern.finditer(document.read_text(encoding="utf-8"))]
    return found


SHOWN_ASKED = found_in(SHOWN)
NAMED_ASKED = sorted({asked.strip() for (asked,) in found_in(NAMED)})


def told(asked: str, code: int = 0) -> str:
    found = CliRunner().invoke(app, shlex.split(asked), env={"COLUMNS": "200"})
    assert found.exit_code == code, found.output
    return found.output


def same(shown: str, said: str) -> bool:
    """The same words, and the same numbers but for what is nothing beside them."""
    if shown == said:
        return True
    try:
        return math.isclose(float(shown), float(said), rel_tol=2e-3, abs_tol=1e-15)
    except ValueError:
        return False


def test_there_are_questions() -> None:
    assert len(SHOWN_ASKED) >= 2
    assert {asked.split()[0] for asked in NAMED_ASKED} == {"query", "plan"}


@pytest.mark.parametrize(("asked", "shown"), SHOWN_ASKED, ids=[asked for asked, _ in SHOWN_ASKED])
def test_an_answer_that_is_shown_is_the_answer(asked: str, shown: str) -> None:
    said = told(asked).splitlines()
    lines = shown.rstrip("\n").splitlines()
    assert len(said) == len(lines)
    for line, other in zip(lines, said, strict=True):
        words, others = line.split(), other.split()
        assert len(words) == len(others), (line, other)
        assert all(map(same, words, others)), (line, other)


@pytest.mark.parametrize("asked", NAMED_ASKED)
def test_a_question_that_is_named_is_answered(asked: str) -> None:
    said = told(asked)
    assert len(said.splitlines()) > 2
    if asked.startswith("plan"):
        assert re.search(r"atlas: has ([\d,]+) of \1 points; 0 stand there in another form", " ".join(said.split()))


def test_a_question_about_all_studies_at_once_is_answered_by_their_names() -> None:
    found = CliRunner().invoke(app, ["query", "--store", ATLAS], env={"COLUMNS": "200"})
    assert found.exit_code == 0
    rows = [line.split() for line in found.stdout.splitlines()[1:]]
    assert sorted(name for name, _ in rows) == sorted(STUDIES)
    sizes = {name: open_results(ATLAS, name).sizes["point"] for name in STUDIES}
    assert {name: int(count) for name, count in rows} == sizes
    assert "so only the studies are named; --study " in found.stderr
    narrow = CliRunner().invoke(app, ["query", "--store", ATLAS, "--where", "steps == 64 and sampler == 'heun'"])
    assert narrow.stdout.startswith("dataset ")  # few enough
    whole = CliRunner().invoke(app, ["query", "--store", ATLAS, "--format", "csv"])
    assert len(whole.stdout.splitlines()) == open_results(ATLAS).sizes["point"] + 1


def test_the_figures_of_the_torus_are_those_that_ship() -> None:
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    sentence = re.search(
        r"EDM on the torus .* with (?P<steps>\d+) steps of `(?P<sampler>\w+)` leaves samples at a mean distance of "
        r"(?P<distance>[\d.]+) tube radii from the surface, and their E\[x\^2\+y\^2\] is off by (?P<moment>[\d.]+) %, "
        r"where (?P<samples>[\d,]+) samples of the exact denoiser are off by (?P<exact>[\d.]+) %",
        text,
    )
    assert sentence
    assert load_study("torus").samples == int(sentence["samples"].replace(",", ""))
    points = open_results(ATLAS, "torus")
    asked = (points["sampler"] == sentence["sampler"]) & (points["steps"] == int(sentence["steps"]))
    means = {
        (formulation, metric): float(points[metric][asked & (points["formulation"] == formulation)].mean())
        for formulation in ("edm", "exact")
        for metric in ("torus-distance", "torus-moment")
    }
    assert int(asked.sum()) == 2 * len(load_study("torus").seeds)
    assert f"{means['edm', 'torus-distance']:.3f}" == sentence["distance"]
    assert f"{100 * means['edm', 'torus-moment']:.1f}" == sentence["moment"]
    assert f"{100 * means['exact', 'torus-moment']:.1f}" == sentence["exact"]


def test_own_numbers_are_shown_beside_those_that_ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of exact rows computed here, which are points of the shipped study."""
    monkeypatch.chdir(tmp_path)
    spec = load_study("smoke").spec()
    fewer = {
        "formulations": ["exact"],
        "schedules": ["edm"],
        "samplers": ["heun"],
        "steps": [2, 5],
        "metrics": ["w1", "ks"],
        "keep": {},
    }
    mine = {**spec, **fewer, "name": "mine"}
    answer("own", mine)
    Path("mine.json").write_text(json.dumps(mine))
    said = " ".join(told("run mine.json --store own --report page.html --beside atlas:").split())
    assert "here beside atlas:, the means over the seeds that both have" in said
    assert said.count(" unchanged") == 4  # two step counts, two metrics
    assert "all points are in both" in said
    less = json.loads(told("diff --store own --against atlas: --study mine --json"))
    assert {row["verdict"] for row in less["groups"]} == {"unchanged"}
    assert len(less["groups"]) == 4
