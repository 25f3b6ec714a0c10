"""Of what somebody's own module computed, its source is stored beside: a change of it without a new
version is told, and nothing else is done.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import ClassVar

import pytest

from diffusion import plugins
from diffusion.metrics import Wasserstein1
from tasks.plan import Shard, make_plan
from tasks.results import Answers, open_results
from tasks.results.rows import swept_rows
from tasks.store import Store
from tasks.study import Study
from tasks.work import Requests, sweep_shard
from tasks.work.code import Code, code_here, own_modules, sources_text, told_sources
from tests.tasks.test_plugins import CALLED, NAMED, OWN, Place, commands, place
from tests.tasks.tiny_store import SPEC, answer

__all__ = ["place"]  # a fixture


@dataclasses.dataclass(frozen=True)
class Mine(Wasserstein1):
    """A metric that a study names as ``mine:Mine``."""

    registered_name: ClassVar[str] = "mine:Mine"


TOLD = "another one than that which"


def told(place: Place, folder: Path) -> list[str]:
    """The warnings of `plan` in a process of its own, which reads the module as it lies there."""
    ((code, said),) = commands(place, folder, ["plan", str(place.folder / "mine.json"), "--store", "store", "--json"])
    assert code == 0, said
    found = json.loads(said)
    assert found["points"]["missing"] == 0
    return [line for line in found["warnings"] if TOLD in line]


@pytest.mark.parametrize(("given", "points"), [(NAMED, 8), (CALLED, 16)], ids=["sampler", "schedule"])
def test_a_source_that_changed_without_a_version_is_told_with_what_it_computed(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, object], points: int
) -> None:
    monkeypatch.setenv(plugins.VARIABLE, place.module)
    study = place.study(given)
    answer("store", study)
    (place.folder / "mine.json").write_text(json.dumps(study))
    assert told(place, tmp_path) == []
    (place.folder / f"{place.module}.py").write_text(OWN + "\n# changed\n")
    (line,) = told(place, tmp_path)
    assert line.startswith(f"the source of {place.module} is {TOLD} {points} of the 16 done points were computed by")
    assert "raise the `version`" in line


def test_a_run_of_what_is_finished_tells_it_too(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts nothing; that a run which computes tells it as well: tests/end_to_end/test_grow.py."""
    monkeypatch.setenv(plugins.VARIABLE, place.module)
    study = place.study(NAMED)
    answer("store", study)
    file = place.folder / "mine.json"
    file.write_text(json.dumps(study))
    asked = ["run", str(file), "--store", "store", "--report", "page.html"]
    (place.folder / f"{place.module}.py").write_text(OWN + "\n# changed\n")
    snapshot = Store.open("store").snapshot()
    ((code, said),) = commands(place, tmp_path, asked)
    assert code == 0
    assert f"warning: the source of {place.module} is {TOLD} 8 of the 16 done points were computed by" in said
    assert Store.open("store").snapshot() == snapshot


def test_only_what_names_a_module_says_so_and_no_reader_is_troubled_by_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(plugins.VARIABLE, place.module)
    plain = {**place.study({}), "name": "plain"}
    answer("store", plain)  # whose table has no such column
    assert "sources" not in Answers(Store.open("store")).table()
    answer("store", place.study(NAMED))
    answers = Answers(Store.open("store"))
    table = answers.table()
    own = table["sampler"] == f"{place.module}:Still"
    assert own.sum() == 8
    assert all(re.fullmatch(rf"{place.module} [0-9a-f]{{10}}", text) for text in table["sources"][own])
    assert set(table["sources"][~own]) == {""}
    assert answers.sources_of_cells() == {}  # no cell was trained by it
    assert "sources" not in open_results("store")
    answer("store", {**plain, "steps": [1, 2, 3]})  # rows of the wider table that tell nothing of it
    assert set(Answers(Store.open("store"), "plain").table()["sources"]) == {""}


def test_several_modules_are_one_text_and_are_told_apart_again() -> None:
    code = Code(("a.b", "c"), (), (("module a.b", "1" * 64), ("module c", "2" * 64), ("diffusion/x.py", "3" * 64)))
    text = sources_text(code, {"name": "c:X", "deep": [{"name": "a.b:Y"}, "d:Z"]})
    assert text == "a.b 1111111111, c 2222222222"
    assert told_sources(text) == {("a.b", "1111111111"), ("c", "2222222222")}
    assert sources_text(code, {"name": "heun"}) == ""
    assert told_sources("") == frozenset()


def test_what_is_said_for_people_names_no_module_and_nothing_is_imported_to_hash_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "imprudent"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')\n")
    (package / "inner.py").write_text("class Still: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    said = Study.from_spec({**SPEC, "description": "imprudent.inner:Still"})
    assert own_modules(said) == ()
    known = dict(code_here(("imprudent.inner", "imprudent.lacking")).sources)
    assert known["module imprudent.inner"] == hashlib.sha256(b"class Still: ...\n").hexdigest()
    assert known["module imprudent.lacking"] == "not there"


def test_a_metric_of_ones_own_is_a_source_of_every_point_that_it_measured() -> None:
    code = Code(("mine",), (), (("module mine", "1" * 64),))
    study = Study.from_spec({**SPEC, "formulations": ["edm"], "exclude": [{"formulation": "edm"}]})
    shard = Shard(make_plan(study, {}, ()).jobs[:1])
    answer = sweep_shard(shard, {}, Requests(study.metrics, False, frozenset()))
    assert {row.get("sources") for row in swept_rows(answer, {}, code, study.metrics).points} == {None}
    assert {row.get("sources") for row in swept_rows(answer, {}, code, [Mine()]).points} == {"mine 1111111111"}
