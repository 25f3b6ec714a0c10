"""Files that name other studies: what they may say, and what a person is told who wrote something
else.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from flows.command_line import app
from flows.command_line.batch import run_each
from flows.request import Outcome
from tasks.messages import note_the_new_name
from tasks.study import StudyError, load_study
from tasks.study import document as study_file
from tasks.study.collection import load_collection
from tests.tasks.tiny_store import SPEC, answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.study.collection import CollectedStudy

runner = CliRunner()

ONE = "datasets: [uniform]\nformulations: [exact]\nsamplers: [ddim]\nsteps: [2, 3]\nmetrics: [w1]\nsamples: 50\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two studies in a folder of one's own, and a shelf of shipped ones."""
    shelf = tmp_path / "shelf"
    (shelf / "documents").mkdir(parents=True)
    (shelf / "plain.yaml").write_text(f"name: plain\n{ONE}")
    (shelf / "documents" / "first.yaml").write_text(f"name: first\n{ONE}")
    (shelf / "documents.yaml").write_text("name: documents\nstudies: [documents/first, plain]\n")
    (tmp_path / "secret.yaml").write_text(f"name: secret\n{ONE}")
    monkeypatch.setattr(study_file, "SHIPPED", shelf)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "a.yaml").write_text(f"name: a\n{ONE}")
    (mine / "b.yaml").write_text(f"name: b\n{ONE}")
    (mine / "all.yaml").write_text("name: all\nstudies:\n  - a.yaml\n  - ./b.yaml\n  - documents/first\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(source: str | Path, *overrides: str) -> list[str]:
    return [member.study.name for member in load_collection(source, overrides).members]


def message(source: str | Path, *overrides: str) -> str:
    with pytest.raises(StudyError) as caught:
        load_collection(source, overrides)
    return str(caught.value)


def written(folder: Path, text: str) -> Path:
    path = folder / "mine" / "list.yaml"
    path.write_text(text)
    return path


def test_studies_are_those_of_the_list_in_its_order_and_paths_begin_where_the_list_lies() -> None:
    assert names("mine/all.yaml") == ["a", "b", "first"]
    assert [member.source for member in load_collection("mine/all.yaml").members] == [
        "mine/a.yaml",
        "mine/b.yaml",
        "documents/first",
    ]


def test_a_shipped_list_names_shipped_studies_with_their_folder() -> None:
    assert study_file.shipped_studies() == ["documents", "documents/first", "plain"]
    assert names("documents") == ["first", "plain"]
    assert load_study("documents/first").name == "first"


def test_names_of_old_lead_to_the_same_studies_and_stderr_says_the_new_ones(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    note_the_new_name.cache_clear()
    assert names("seeds") == ["first", "plain"]
    assert load_study("seeds/first") == load_study("documents/first")
    (tmp_path / "old.yaml").write_text("name: old\nstudies: [seeds/first]\n")
    (member,) = load_collection(str(tmp_path / "old.yaml")).members
    assert member.source == "documents/first"
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "note: the study seeds is called documents now",
        "note: the study seeds/first is called documents/first now",
    ]


def test_a_file_that_is_a_study_is_itself_and_no_list() -> None:
    alone = load_collection("mine/a.yaml")
    assert alone.name is None
    assert [member.study.name for member in alone.members] == ["a"]


def test_where_one_study_is_expected_a_list_is_refused() -> None:
    with pytest.raises(StudyError, match=r"^documents.yaml:2:1, at studies: this file names other studies, where one"):
        load_study("documents")


def test_changes_go_to_every_study_but_for_those_of_the_list_itself() -> None:
    changed = load_collection("documents", ["samples=20", "steps=[5]", "studies=[plain]"])
    assert [(m.study.name, m.study.samples, m.study.steps) for m in changed.members] == [("plain", 20, (5,))]
    assert load_collection("documents", ["name=both"]).name == "both"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "name: x\nstudies: [nowhere.yaml]\n",
            "list.yaml:2:11, at studies[0]: mine/nowhere.yaml: there is no such file",
        ),
        ("name: x\nstudies: [a.yaml, ./a.yaml]\n", "at studies[1]: ./a.yaml is called 'a', as mine/a.yaml is"),
        (
            "name: x\nstudies: [all.yaml]\n",
            "at studies[0]: mine/all.yaml:2:1, at studies: this file names other studies",
        ),
        ("name: x\nstudies: [a.yaml, a.yaml]\n", "at studies[1]: found 'a.yaml' twice, the same as studies[0]"),
        ("name: x\nstudies: [3]\n", "at studies[0]: found 3, expected the name of a shipped study or a path"),
        ("name: x\nstudies: []\n", "at studies: found an empty list, expected at least one entry"),
        ("name: x\nstudies: a.yaml\n", "at studies: found 'a.yaml', expected a list (write studies: [a.yaml])"),
        ("studies: [a.yaml]\n", "at name: this key is required and is missing"),
        ("name: x\nstudies: [a.yaml]\nsteps: [3]\n", "unknown key 'steps' of a file that names studies"),
        ("name: a b\nstudies: [a.yaml]\n", "at name: found 'a b', expected 1 to 64 letters"),
    ],
)
def test_a_wrong_list_is_refused_with_place_finding_and_remedy(folder: Path, text: str, expected: str) -> None:
    written(folder, text)
    assert expected in message("mine/list.yaml")


def test_what_is_wrong_in_a_study_is_told_with_both_places_and_all_of_it_at_once(folder: Path) -> None:
    (folder / "mine" / "a.yaml").write_text(f"name: a\n{ONE.replace('ddim', 'dim')}")
    (folder / "mine" / "b.yaml").write_text(f"name: b\n{ONE.replace('uniform', 'unifrom')}")
    text = message("mine/all.yaml").splitlines()
    assert text[0] == "mine/all.yaml: 2 problems"
    assert (
        text[1]
        .strip()
        .startswith("mine/all.yaml:3:5, at studies[0]: mine/a.yaml:4:12, at samplers[0]: unknown sampler 'dim'")
    )
    assert (
        text[2]
        .strip()
        .startswith("mine/all.yaml:4:5, at studies[1]: mine/b.yaml:2:12, at datasets[0]: unknown dataset")
    )


def test_a_shipped_list_never_leads_out_of_the_shelf(folder: Path) -> None:
    (folder / "shelf" / "documents.yaml").write_text(
        "name: documents\nstudies: [../secret.yaml, ../secret, documents/frist]\n"
    )
    text = message("documents")
    assert "documents.yaml:2:11, at studies[0]: unknown study '../secret.yaml'" in text
    assert "at studies[1]: unknown study '../secret'" in text
    assert "at studies[2]: unknown study 'documents/frist'; did you mean 'documents/first'?" in text
    for outside in ("documents/../../secret", "../secret"):
        with pytest.raises(StudyError, match="there is no such file"):
            load_study(outside)


# --- the commands ---------------------------------------------------------------------------------


def ask(*arguments: str, code: int = 0) -> Any:
    result = runner.invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def spec_of(name: str) -> dict[str, Any]:
    return {**SPEC, "name": name, "formulations": ["exact"], "seeds": 1, "samples": 50}


def test_a_plan_of_a_list_tells_each_study_and_the_sums(folder: Path) -> None:
    document = json.loads(ask("plan", "mine/all.yaml", "--json").stdout)
    assert [one["study"] for one in document["studies"]] == ["a", "b", "first"]
    assert document["collection"] == "all"
    assert document["points"] == {"asked": 6, "done": 0, "missing": 6, "failed": 0, "impossible": 0}
    for_eyes = ask("plan", "mine/all.yaml")
    assert "study b: 2 points asked" in for_eyes.output
    assert "all: 3 studies, 6 points asked, 6 to compute" in for_eyes.output
    assert not (folder / "results").exists()


def test_forced_points_may_be_of_one_study_alone_but_not_of_none() -> None:
    ask("plan", "mine/all.yaml", "--force", "steps == 3")
    assert "no point of mine/all.yaml matches" in ask("plan", "mine/all.yaml", "--force", "steps == 9", code=2).output


def test_a_list_whose_studies_are_finished_starts_no_service_and_ends_with_one_table(folder: Path) -> None:
    for name in ("one", "two"):
        answer("results", spec_of(name))
        (folder / "mine" / f"{name}.yaml").write_text(json.dumps(spec_of(name)))
    path = written(folder, "name: both\nstudies: [one.yaml, two.yaml]\n")
    result = ask("run", str(path))
    assert "both: 2 studies" in result.output
    assert result.output.count("finished") == 4  # a line each, and a row each, which a narrow table breaks
    assert (folder / "reports" / "one.html").is_file()
    ask("run", str(path), "--report", "pages")
    assert sorted(page.name for page in (folder / "pages").iterdir()) == ["one.html", "two.html"]


def test_the_report_of_a_list_is_a_page_for_each_of_its_studies_in_the_store(folder: Path) -> None:
    answer("results", spec_of("one"))
    answer("results", spec_of("other"))
    for name in ("one", "two"):
        (folder / "mine" / f"{name}.yaml").write_text(json.dumps(spec_of(name)))
    path = written(folder, "name: both\nstudies: [one.yaml, two.yaml]\n")
    result = ask("report", "--study", str(path), "--out", "pages")
    assert "report: pages/one.html" in result.output
    assert "not in the store yet: two" in result.output
    assert [page.name for page in (folder / "pages").iterdir()] == ["one.html"]
    assert list(json.loads(ask("report", "--study", str(path), "--json").stdout)) == ["one"]
    only_two = written(folder, "name: both\nstudies: [two.yaml]\n")
    assert "holds no study of" in ask("report", "--study", str(only_two), code=2).output


def test_a_wrong_list_exits_2_and_writes_nothing(folder: Path) -> None:
    path = written(folder, "name: both\nstudies: [a.yaml, nowhere.yaml]\n")
    for command in ("run", "plan"):
        assert "there is no such file" in ask(command, str(path), code=2).output
    assert not (folder / "results").exists()


def test_after_a_study_that_lost_the_server_the_next_has_another(folder: Path) -> None:
    """What a study came to is planted: its server is lost, or is not."""
    for name in ("a", "b", "first"):
        answer(str(folder / "store"), load_study("documents/first" if name == "first" else f"mine/{name}.yaml").spec())
    happened: list[str] = []

    @contextmanager
    def service() -> Iterator[None]:
        happened.append("start")
        yield
        happened.append("end")

    def run(member: CollectedStudy, _: Path | None) -> Outcome:
        happened.append(member.study.name)
        untold = "its pages lack the rest" if member.study.name == "a" else ""
        return Outcome(member.study.name, "store", "", 0, 0, 0, {}, "page.html", "", untold)

    run_each(load_collection("mine/all.yaml"), run, "store", None, (service,))
    assert happened == ["start", "a", "end", "start", "b", "first", "end"]
