"""Published numbers stand in the guide as they stand in the file of their source."""

from __future__ import annotations

import bz2
import csv
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

import diffatlas as da
from diffusion.datasets import SimulatorPosterior
from diffusion.randomness import stream
from tasks.study import load_study
from tests.benchmarks import references

DOCS = Path(__file__).parent.parent / "docs"
ROW = re.compile(
    r"^\| `(\w+)` \| ([\d,]+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", re.MULTILINE
)
MEANS = re.compile(r"^\| `(\w+)` \| ([\d,]+) \| (\d+) of 10 \| ([\d.]+) ± ([\d.]+) \| (.*) \|$", re.MULTILINE)
ALGORITHMS = ("NPE", "SNPE", "NLE", "SNLE", "NRE", "SNRE", "REJ-ABC", "SMC-ABC")


def accuracies() -> dict[tuple[str, ...], str]:
    with (DOCS / "published" / "c2st.csv").open(newline="") as file:
        return {
            (r["task"], r["simulations"], r["observation"], r["run"], r["algorithm"]): r["c2st"]
            for r in csv.DictReader(file)
        }


def test_every_published_number_of_the_guide_is_that_of_the_file() -> None:
    known = accuracies()
    text = (DOCS / "posteriors.md").read_text(encoding="utf-8")
    rows = ROW.findall(text)
    assert (
        len(rows) == len(re.findall(r"^\| *`?\w+`? *\| *[\d,]+ *\| *\d+ *\|", text, re.MULTILINE)) > 0
    )  # each is read
    for task, simulations, observation, _, *numbers in rows:
        run = "corrected" if task == "gaussian_mixture" else "paper"
        for algorithm, number in zip(ALGORITHMS[:4], numbers, strict=True):
            value = known[task, simulations.replace(",", ""), observation, run, algorithm]
            assert number == f"{float(value):.3f}", (task, simulations, observation, algorithm)


def test_the_means_of_the_guide_are_those_of_its_rows_and_of_the_file() -> None:
    known, text = accuracies(), (DOCS / "posteriors.md").read_text(encoding="utf-8")
    ours: dict[tuple[str, str], dict[str, float]] = {}
    for task, simulations, observation, mine, *_ in ROW.findall(text):
        ours.setdefault((task, simulations), {})[observation] = float(mine)
    means = MEANS.findall(text)
    assert {(task, simulations) for task, simulations, *_ in means} == set(ours)
    for task, simulations, count, mean, error, numbers in means:
        asked = ours[task, simulations]
        assert len(asked) == int(count)
        assert np.mean([*asked.values()]) == pytest.approx(float(mean), abs=0.00101)
        assert np.std([*asked.values()], ddof=1) / len(asked) ** 0.5 == pytest.approx(float(error), abs=0.00101)
        run = "corrected" if task == "gaussian_mixture" else "paper"
        for algorithm, number in zip(ALGORITHMS, numbers.split(" | "), strict=True):
            values = [float(known[task, simulations.replace(",", ""), one, run, algorithm]) for one in asked]
            assert float(np.mean(values)) == pytest.approx(float(number), abs=0.00051)


def test_the_published_distances_stand_in_the_guide_and_in_no_other_way() -> None:
    """Both in the sentence and in the table of docs/couplings.md; the study has as many seeds."""
    lines = (DOCS / "published" / "c2ot.csv").read_text(encoding="utf-8").splitlines()
    rows = {row["solver"]: f"{row['mean']} ± {row['standard_deviation']}" for row in csv.DictReader(lines[1:])}
    assert {*rows} == {"euler 1 step", "adaptive"}
    text = (DOCS / "couplings.md").read_text(encoding="utf-8")
    cells = [[cell.strip(" `") for cell in line.split("|")] for line in text.splitlines()]
    table = {row[1]: row[5] for row in cells if len(row) > 6}
    told = {name: table[name] for name in ("euler`, 1 step", "adaptive")}
    assert told == {"euler`, 1 step": rows["euler 1 step"], "adaptive": rows["adaptive"]}
    assert all(f"{number}" in " ".join(text.partition("## ")[0].split()) for number in rows.values())
    assert len(load_study("couplings").seeds) == 10


def archive(path: Path, shift: float, *, lacking: bool = False) -> Path:
    """A file like the wheel of `sbibm`, with our own draws in it, moved by so many deviations."""
    with zipfile.ZipFile(path, "w") as wheel:
        for name in references.TASKS:
            for observation in (1, 2):
                target = da.dataset(name, observation=observation)
                assert isinstance(target, SimulatorPosterior)
                folder = f"sbibm/tasks/{name.removesuffix('_posterior')}/files/num_observation_{observation}"
                draws = target.sample(1000, stream("archive", name, observation)) + shift * target.std
                rows = {"observation.csv": [target.observed], "reference_posterior_samples.csv.bz2": draws.tolist()}
                for file, content in rows.items():
                    if lacking and file == "observation.csv":
                        continue
                    text = "\n".join(["header", *(",".join(map(repr, row)) for row in content)]).encode()
                    wheel.writestr(f"{folder}/{file}", bz2.compress(text) if file.endswith("bz2") else text)
    return path


def test_the_program_that_compares_reference_draws_tells_those_of_another_law(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A false alarm in a hundred, and the draws are fixed; moved by a fifth of a deviation they are told."""
    observations = ["--observation", "1", "--observation", "2"]
    assert references.main([str(archive(tmp_path / "same.whl", 0.0)), *observations]) == 0
    assert "6 posteriors, " in capsys.readouterr().out
    assert references.main([str(archive(tmp_path / "moved.whl", 0.2)), *observations]) == 1
    assert "they do NOT agree" in capsys.readouterr().out
    assert references.main([str(archive(tmp_path / "less.whl", 0.0, lacking=True)), *observations]) == 2
    assert "the wheel has no sbibm/tasks/" in capsys.readouterr().err
    assert references.main([str(tmp_path / "none.whl")]) == 2
    assert "needed: the wheel of sbibm 1.1.0" in capsys.readouterr().err
