"""One tree of errors: stable kinds, exit codes, and a page (docs/errors.md) that says of each what
to do.
"""

from __future__ import annotations

import importlib
import pickle
import re
from pathlib import Path

import pytest

from deployments.schedules import ScheduleError
from diffusion.errors import DiffatlasError
from diffusion.registry import NotAllowed, UnknownName
from flows.exit_codes import exit_code_of
from flows.pages import ServerGone
from flows.request import Outcome, PointsHaveFailed
from flows.services import ServiceUnavailable
from tasks.study import StudyError

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("diffusion", "tasks", "flows", "deployments")
NOT_MET = {
    "Damaged": "the store's reading turns it into StoreDamaged",
    "Conflict": "the store's writing turns it into StoreMoved",
    "LeaseError": "the store's lock turns it into StoreUnavailable",
    "Terminated": "a KeyboardInterrupt",
    "NothingEnded": "a run tries again, or ends as NotComputed",
    "WorkRaised": "the shard is done apart, where the guilty point has failed",
}
"""Exceptions of ours that no user meets, or that are no errors."""

WITH_PARTS = [
    StudyError("study.yaml", ["study.yaml:1: found 1", "study.yaml:2: found 2"]),
    ScheduleError("list.yaml", ["entry 1: found 1"]),
    UnknownName("sampler", "huen", ["euler", "heun"], "(no such module)"),
    NotAllowed("sampler", "mine:Heun", "the module 'mine' is not imported"),
    PointsHaveFailed("1 point failed", Outcome("s", "results", "ABC", 1, 0, 2, {"p": "why"}, "reports/s.html", "")),
    ServerGone("gone", None),
    ServiceUnavailable("gone", "start it"),
]
"""One of each class that is made of something else than its message."""


OF_THE_CODE = {
    "diffusion/guidance/classifier_free.py": "members of one stack that ask for different labels",
    "diffusion/networks/separate.py": "a batch that was cut wrongly",
    "diffusion/objectives/labelled.py": "data without the column of labels",
    "diffusion/objectives/observed.py": "parameters without their outcomes",
    "diffusion/objectives/weightings.py": "a weight that nothing asks for",
    "diffusion/randomness.py": "an objective that draws other rows than it was asked for",
    "diffusion/registry.py": "a name that is registered twice",
    "diffusion/training/loop.py": "members that do not belong in one stack",
}
"""Files of the mathematics with a plain ValueError, and which mistake in this code it tells."""


def modules() -> list[str]:
    files = (file.relative_to(ROOT).with_suffix("") for room in ROOMS for file in sorted((ROOT / room).rglob("*.py")))
    names = (".".join(file.parts).removesuffix(".__init__") for file in files)
    return [name for name in names if not name.endswith("__main__")]


def subclasses(base: type[BaseException]) -> set[type[BaseException]]:
    return {base}.union(*(subclasses(each) for each in base.__subclasses__()))


@pytest.fixture(scope="module")
def ours() -> set[type[BaseException]]:
    """Every exception that the packages define."""
    for name in modules():
        importlib.import_module(name)
    return {cls for cls in subclasses(BaseException) if cls.__module__.split(".")[0] in ROOMS}


@pytest.fixture(scope="module")
def tree(ours: set[type[BaseException]]) -> list[type[DiffatlasError]]:
    return sorted((cls for cls in ours if issubclass(cls, DiffatlasError)), key=lambda cls: cls.kind)


def test_every_error_that_a_user_can_meet_belongs_to_the_tree(
    ours: set[type[BaseException]], tree: list[type[DiffatlasError]]
) -> None:
    apart = {cls.__name__ for cls in ours.difference(tree) if not cls.__name__.startswith("_")}
    assert apart == set(NOT_MET)


def test_the_mathematics_refuses_what_a_user_gives_by_errors_of_the_tree() -> None:
    plain = re.compile(r"\b(raise|return) (ValueError|NotImplementedError)\(")
    files = (ROOT / "diffusion").rglob("*.py")
    found = {str(file.relative_to(ROOT)) for file in files if plain.search(file.read_text(encoding="utf-8"))}
    assert found == set(OF_THE_CODE)


def test_every_error_has_a_kind_of_its_own_and_says_what_it_is(tree: list[type[DiffatlasError]]) -> None:
    for cls in tree:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", vars(cls)["kind"]), cls
        assert vars(cls).get("__doc__"), cls
    assert len({cls.kind for cls in tree}) == len(tree)


def test_the_page_lists_every_kind_with_its_class_and_exit_code(tree: list[type[DiffatlasError]]) -> None:
    lines = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| `")]
    assert all(len(row) == 5 and all(row) for row in rows)
    listed = [(kind.strip("`"), name.strip("`"), int(code)) for kind, name, code, *_ in rows]
    made = [(cls.kind, cls.__name__, exit_code_of(cls.__new__(cls))) for cls in tree]
    assert sorted(listed) == made


def test_an_error_says_its_message_and_survives_the_way_between_processes(tree: list[type[DiffatlasError]]) -> None:
    own = {type(error) for error in WITH_PARTS}
    assert own == {cls for cls in tree if "__init__" in vars(cls)}
    for error in [*WITH_PARTS, *(cls("what was 'found'") for cls in tree if cls not in own)]:
        again = pickle.loads(pickle.dumps(error))  # noqa: S301
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)
        if type(error) not in own:
            assert str(error) == "what was 'found'"
