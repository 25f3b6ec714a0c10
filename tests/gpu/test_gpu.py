"""What is promised of a GPU: all of it where there is one, a little of everything on a processor."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from rich.console import Console

from diffusion.devices import HOST
from diffusion.formulations import formulations
from diffusion.formulations.base import Trained
from diffusion.replay import Replayed, Work
from tests.gpu import check
from tests.gpu.check import QUICK, Line, Sizes, Under, agreement, examined, in_time, main, worst_first


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here that torch can use")
def test_a_gpu_keeps_every_promise(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path / "found.json")]) == 0


def test_the_examination_itself_goes_all_its_way_on_a_processor(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    assert main(["--device", "cpu", "--quick", "--out", str(tmp_path / "found.json")]) == 0
    torch.set_num_threads(threads)
    found = json.loads((tmp_path / "found.json").read_text())
    kept = [line["what"] for line in found["lines"] if line["kept"]]
    assert len([what for what in kept if what.startswith("equal bits")]) == 16
    assert {line["kept"] for line in found["lines"]} == {True, None}


def test_every_formulation_that_is_trained_is_compared_with_the_processor() -> None:
    sizes = replace(QUICK, compared=None, agreeing_steps=2)
    first, *rest = agreement(Under(HOST, sizes))
    trained = [entry.name for entry in formulations if issubclass(entry.cls, Trained)]
    assert first == Line("formulations compared with the processor", f"{len(trained)} of {len(trained)}", kept=True)
    assert len(trained) >= 20
    assert [line.kept for line in rest] == [True] * 3


def test_a_formulation_that_no_data_set_here_serves_breaks_a_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "law_for", lambda *_: None)
    found = list(agreement(Under(HOST, replace(QUICK, compared=("edm",)))))
    assert [line.kept for line in found] == [False, False]


def test_the_examination_judges_its_own_time_where_it_is_whole() -> None:
    assert [in_time(took, Sizes()).kept for took in (479.0, 481.0)] == [True, False]
    assert in_time(481.0, QUICK).kept is None


def test_a_graph_that_could_not_be_captured_breaks_a_promise() -> None:
    def part(_: Under) -> Iterator[Line]:
        def refuses(work: Work) -> NoReturn:  # noqa: ARG001
            raise RuntimeError("operation not permitted when stream is capturing")

        replayed = Replayed(torch.sin, recorder=refuses)
        yield Line("a number", f"{replayed(torch.zeros(1)).item():g}", True)

    found = examined(Under(HOST, QUICK), Console(file=io.StringIO()), (part,))
    assert [line.kept for line in found] == [True, False]
    assert found[1].found.startswith("not captured as a CUDA graph")
    assert examined(Under(HOST, QUICK), Console(file=io.StringIO()), ())[0].kept


def test_a_comparison_without_a_number_comes_first_and_is_no_agreement() -> None:
    found = worst_first([(0.5, "a"), (0.2, "b"), (math.nan, "c"), (0.1, "d"), (math.nan, "a")])
    assert [name for _, name in found] == ["a", "c", "d", "b", "a"]
