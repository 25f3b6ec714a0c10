"""What is promised of a GPU: all of it where there is one, a little of everything on a processor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.gpu.check import main


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
    assert len([what for what in kept if what.startswith("equal bits")]) == 6
    assert {line["kept"] for line in found["lines"]} == {True, None}
