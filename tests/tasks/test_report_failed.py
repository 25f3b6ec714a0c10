"""The page of a study of which little has an answer."""

from __future__ import annotations

from pathlib import Path

from tasks.report.page.draw import draw_report
from tasks.results.models import ModelledAnswers
from tasks.store import Store
from tests.tasks.tiny_store import SPEC, answer


def test_a_page_is_drawn_where_every_network_has_diverged(tmp_path: Path) -> None:
    wild = {**SPEC["training"], "steps": 40, "learning_rate": 1e6}
    answer(str(tmp_path / "results"), {**SPEC, "training": wild, "seeds": 1})
    answers = ModelledAnswers(Store.open(str(tmp_path / "results")), "tiny")
    trained = answers.points["formulation"].values == "edm"
    assert set(answers.points["status"].values[trained]) == {"failed"}
    assert set(answers.points["status"].values[~trained]) == {"ok"}
    html = draw_report(answers)
    assert "training diverged" in html
    assert "errors are not split (no network has an answer)" in html
