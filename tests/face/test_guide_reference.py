"""The pages of the guide that are made when it is built hold what they are made of: every registered
name with its formula, parameters, source and picture; every command with its options; every key of a
study.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main

from diffusion.datasets import Dataset
from diffusion.registry import Component, Entry, Registry
from diffusion.schedules import Schedule
from diffusion.schedules.grids import Grid
from flows.command_line import app
from tasks.study.catalogue import REGISTRIES
from tasks.study.model import KEYS

EXTENSION = Path(__file__).parents[2] / "docs" / "extension"
pytest.importorskip("sphinx", reason="the guide's own extra is not installed")
NAMED = [(registry, entry) for registry in REGISTRIES for entry in registry]


@pytest.fixture(scope="module")
def extension() -> Iterator[Any]:
    """The module that makes the pages."""
    sys.path.insert(0, str(EXTENSION))
    yield importlib.import_module("guide_reference")
    sys.path.remove(str(EXTENSION))


@pytest.fixture(scope="module")
def pages(extension: Any) -> dict[str, str]:
    """The text of each kind's page, as Sphinx is given it."""
    found = {}
    for registry in REGISTRIES:
        page = object.__new__(extension.RegistryPage)
        page.arguments = [registry.kind]
        found[registry.kind] = "\n".join(page.text())
    return found


def section_of(text: str, kind: str, name: str) -> str:
    """What stands between a name's mark and the next one."""
    begin = text.index(f"({kind}-{name})=\n## {name}\n")
    end = re.search(rf"^\({kind}-[^)]+\)=$", text[begin + 1 :], re.MULTILINE)
    return text[begin : begin + 1 + end.start()] if end else text[begin:]


@pytest.mark.parametrize(("registry", "entry"), NAMED, ids=[f"{r.kind} {e.name}" for r, e in NAMED])
def test_every_name_has_formula_parameters_source_and_picture(
    registry: Registry[Component], entry: Entry[Component], pages: dict[str, str]
) -> None:
    text = section_of(pages[registry.kind], registry.kind, entry.name)
    assert f"```text\n{entry.formula}\n```" in text
    assert "*Source:* " in text
    assert entry.source.split(",")[0].split("*")[0].split("<")[0].split("[")[0].split("_")[0] in text
    prose = text.partition("```text")[0].partition("\n\n")[2]
    assert len(re.sub(r"```\{raw\} html.*?```", "", prose, flags=re.DOTALL).strip()) > 5  # the docstring
    rows = dict(re.findall(r"^\| `(\w+)` \| (\S[^|]*(?:\\\|[^|]*)*) \| \S.* \|$", text, re.MULTILINE))
    assert list(rows) == [field.name for field in dataclasses.fields(entry.cls)]
    for field in dataclasses.fields(entry.cls):
        required = re.search(rf"^\| `{field.name}` \| .* \| \*required\* \|$", text, re.MULTILINE)
        assert bool(required) == (field.default is dataclasses.MISSING), field.name
    made = entry.cls() if entry.has_defaults else None
    for other in registry.aliases(entry.name):
        assert f"also called `{other}`" in text.replace("Also", "also")
    seen = isinstance(made, Schedule) or (isinstance(made, Dataset) and made.dim <= 3)
    assert text.count("<figure") == (1 if seen or (isinstance(made, Grid) and "<figure" in text) else 0)


def test_pictures_are_of_what_they_stand_beside(pages: dict[str, str]) -> None:
    """A schedule's curve by its noise in the middle and at the end, a grid's levels by their number, a
    cloud by its points.
    """
    of_kind: dict[type, int] = {}
    for registry, entry in NAMED:
        made = entry.cls() if entry.has_defaults else None
        text = section_of(pages[registry.kind], registry.kind, entry.name)
        (label,) = re.findall(r'aria-label="([^"]*)"', text) or [""]
        if isinstance(made, Schedule):
            of_kind[Schedule] = of_kind.get(Schedule, 0) + 1
            points = re.findall(r'<polyline points="([^"]*)"', text)[0].split()
            assert len(points) >= 5
            end = float(made.prior_std / made.alpha(torch.tensor(made.t_max, dtype=torch.float64)))
            assert f"{end:.2g} at the end" in label
            assert re.fullmatch(r"sigma/alpha against time: \S+ in the middle, \S+ at the end", label)
        elif isinstance(made, Grid) and label:
            of_kind[Grid] = of_kind.get(Grid, 0) + 1
            assert text.count('stroke-width="1.5"/>') == 10
        elif isinstance(made, Dataset) and made.dim in {2, 3}:
            of_kind[Dataset] = of_kind.get(Dataset, 0) + 1
            assert text.count("<circle") == 700
            assert label == f"700 samples of {entry.name}"
        elif isinstance(made, Dataset) and made.dim == 1:
            low, high = map(float, re.findall(r"histogram of samples from (\S+) to (\S+)", label)[0])
            assert low < made.mean[0] < high
    assert of_kind[Schedule] == sum(
        isinstance(entry.cls, type) and issubclass(entry.cls, Schedule) and entry.has_defaults for _, entry in NAMED
    )
    assert of_kind[Grid] >= 5
    assert of_kind[Dataset] >= 5


def test_every_command_has_its_arguments_and_options(extension: Any) -> None:
    text = "\n".join(object.__new__(extension.Commands).text())
    root: Any = typer.main.get_command(app)
    assert re.findall(r"^## (\S+)$", text, re.MULTILINE) == list(root.commands)
    for name, command in root.commands.items():
        section = section_of(text, "command", name)
        for parameter in command.params:
            written = (
                str(parameter.opts[0])
                if str(parameter.opts[0]).startswith("-")
                else str(parameter.metavar or parameter.name.upper())
            )
            row = re.search(rf"^\| `{re.escape(written)}[ `].*$", section.replace("\\|", "|"), re.MULTILINE)
            assert row, (name, written)
            assert len(row[0]) > len(written) + 20, row[0]  # and what it does
        assert f"diffatlas {name}" in section


def test_every_key_of_a_study_is_there_with_what_it_says(extension: Any) -> None:
    text = "\n".join(object.__new__(extension.StudyKeys).text())
    whole, *parts = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.*?) \| (.+) \|$", whole, re.MULTILINE)
    assert {key for key, *_ in rows} == set(KEYS)
    assert all(len(says) > 3 for *_, says in rows)
    assert [part.splitlines()[0] for part in parts] == ["training", "keep"]
    for part in parts:
        assert len(re.findall(r"^\| `\w+` \| ", part, re.MULTILINE)) >= 2


def test_a_page_that_lacks_a_parameter_would_be_found(pages: dict[str, str]) -> None:
    text = section_of(pages["sampler"], "sampler", "heun")
    assert "stochastic" not in text.partition("*Source:*")[2]
    with pytest.raises(ValueError, match="substring"):
        section_of(pages["sampler"], "sampler", "haun")
