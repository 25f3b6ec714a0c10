"""Parameters that were renamed: old names ask for the same, whoever wrote one reads the new one,
and stores have their ids and labels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from diffusion.formulations import ClassConditional, Denoising
from diffusion.objectives import DenoisingLoss
from tasks.messages import note_the_new_name
from tasks.models import cell_of
from tasks.models.named import formulation
from tasks.plan import points_of
from tasks.results.stored import coordinate, is_recorded, plan_against, record
from tasks.store import Rows, Store
from tasks.study import Study, StudyError, load_study

OLD: dict[str, Any] = {"name": "denoising", "parametrization": "v", "told": "angle"}
NEW: dict[str, Any] = {"name": "denoising", "parametrization": "v", "noise_label": "angle"}
IDS = ["d34c965d65f67a42d9cc", "f330357e5034471c38d2", "d5eb9ee4ec85e549c365"]  # as they were under the old name
NOTE = "note: the parameter of 'denoising' told is called noise_label now\n"


def spec(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "s",
        "datasets": ["eight_gaussians"],
        "formulations": [entry, {"name": "class-conditional", "of": entry}],
        "samplers": ["heun"],
        "steps": [2],
        "metrics": ["energy"],
        "samples": 50,
    }


def loaded(folder: Path, entry: dict[str, Any]) -> Study:
    (folder / "s.yaml").write_text(json.dumps(spec(entry)))
    return load_study(folder / "s.yaml")


@pytest.mark.parametrize(("entry", "note"), [(OLD, NOTE), (NEW, "")], ids=["old", "new"])
def test_both_names_lead_to_the_ids_of_old_and_the_old_one_is_noted_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, entry: dict[str, Any], note: str
) -> None:
    """As when the parameter was renamed: the objective has had a new version since."""
    monkeypatch.setattr(DenoisingLoss, "version", 1)
    note_the_new_name.cache_clear()
    study = loaded(tmp_path, entry)
    assert study == loaded(tmp_path, NEW)
    assert [point.id for point in points_of(study)] == IDS
    assert capfd.readouterr() == ("", note)


def test_labels_have_the_name_that_stores_have() -> None:
    assert Denoising(noise_label="angle").label() == "denoising(told=angle)"


def test_a_study_says_the_new_name_wherever_it_is_written_out(tmp_path: Path) -> None:
    (first, second) = loaded(tmp_path, OLD).spec()["formulations"]
    assert (first["noise_label"], second["of"]["noise_label"]) == ("angle", "angle")
    assert "told" not in {*first, *second["of"]}


def test_a_stored_cell_leads_back_to_its_component_and_nobody_is_noted(capfd: pytest.CaptureFixture[str]) -> None:
    note_the_new_name.cache_clear()
    for point in points_of(Study.from_spec(spec(OLD))):
        assert "noise_label" not in json.dumps(point.cell.spec)
        assert cell_of(point.cell.spec) == point.cell
    assert capfd.readouterr() == ("", "")


def test_a_study_that_was_stored_under_the_old_name_is_known(tmp_path: Path) -> None:
    store = Store.create(str(tmp_path / "store"))
    plan = plan_against(store, loaded(tmp_path, NEW))
    with coordinate(store) as coordinator:
        record(coordinator, plan, {})
        assert is_recorded(store, plan)
        stored = json.loads(json.dumps(plan.study.spec()).replace("noise_label", "told"))
        coordinator.commit_study("s", stored, [point.id for point in plan.points], Rows(), {})
    assert is_recorded(store, plan)
    other = loaded(tmp_path, {**NEW, "noise_label": "time"})
    assert not is_recorded(store, plan_against(store, other))


def test_from_python_a_mapping_may_have_either_name(capfd: pytest.CaptureFixture[str]) -> None:
    note_the_new_name.cache_clear()
    assert formulation("denoising", told="time") == formulation(OLD | {"told": "time", "parametrization": "edm"})
    assert formulation("class-conditional", of=OLD) == ClassConditional(formulation(NEW))
    assert capfd.readouterr() == ("", NOTE)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {**OLD, "noise_label": "angle"},
            "formulations[0].told: this parameter of 'denoising' is called noise_label now",
        ),
        ({**OLD, "told": "angel"}, "formulations[0].told: found 'angel', expected 'log-nsr', 'time' or 'angle'"),
        ({"name": "denoising", "noise_lable": 1}, "did you mean 'noise_label'?"),
    ],
    ids=["both", "value", "unknown"],
)
def test_what_is_wrong_is_said_at_the_name_that_was_written(
    tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(StudyError) as caught:
        loaded(tmp_path, wrong)
    assert message in str(caught.value)
