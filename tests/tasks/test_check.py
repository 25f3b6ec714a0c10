"""`diffatlas check`: names of all kinds, what it prints, how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import diffatlas as da
from diffusion.registry import UnknownName
from flows.command_line import app

MINE = """
from dataclasses import dataclass
from diffusion.samplers import Decode, samplers

@dataclass(frozen=True)
class Ralston(Decode):
    shift: float = 0.0
    def evaluations(self, steps):
        return 1 + int(self.shift)
"""


@pytest.fixture(autouse=True)
def _mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_to_check.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def test_rows_from_python() -> None:
    rows = da.check("decode")
    assert {(row.kind, row.name) for row in rows} == {("sampler", "decode")}
    assert all(row.holds for row in rows)
    broken = [row for row in da.check("mine_to_check:Ralston", shift=1.0) if not row.holds]
    assert [(row.name, row.claim) for row in broken] == [("mine_to_check:Ralston(shift=1.0)", "evaluations")]
    assert broken[0].found == "1 in 1 steps, declared 2; 1 in 2 steps, declared 2; 1 in 3 steps, declared 2 and 1 more"


@pytest.mark.parametrize("given", ["mine_to_check:Ralston", "{name: mine_to_check:Ralston, shift: 1}"])
def test_the_command_tells_each_claim_and_ends_by_whether_all_hold(given: str) -> None:
    found = CliRunner().invoke(app, ["check", given, "--json"])
    told = json.loads(found.stdout)
    right = "shift" not in given
    assert found.exit_code == (0 if right else 1)
    assert told["holds"] is right
    assert [row["claim"] for row in told["claims"] if not row["holds"]] == ([] if right else ["evaluations"])
    table = CliRunner().invoke(app, ["check", given])
    assert ("FAILS" in table.stdout) is not right
    assert ("claims hold" if right else "1 of 9 claims fail") in table.stdout


RALSTON = """
from dataclasses import dataclass
from diffusion.samplers import Sampler
from diffusion.samplers.base import velocity

@dataclass(frozen=True)
class Ralston(Sampler):
    share: float = 0.75
    order = 2
    between_levels = True

    def evaluations(self, steps):
        return 2 * steps - 1

    def step(self, denoiser, x, now, then, noise):
        h = (then.time - now.time)[:, None, None]
        first = velocity(denoiser, x, now)
        if then.clean:
            return x + h * first
        second = velocity(denoiser, x + 2 / 3 * h * first, now.at(now.time + 2 / 3 * (then.time - now.time)))
        return x + h * ((1 - self.share) * first + self.share * second)
"""


@pytest.mark.parametrize(
    ("given", "broken"),
    [
        ("a_rule_of_ralston:Ralston", []),
        ("{name: 'a_rule_of_ralston:Ralston', share: 0.5}", ["order on a normal law", "order on a mixture"]),
    ],
    ids=["1/4, 3/4", "1/2, 1/2"],
)
def test_a_rule_of_ones_own_is_measured_and_wrong_weights_fail_its_order(
    given: str, broken: list[str], tmp_path: Path
) -> None:
    """Ralston's rule (1962), the second stage at two thirds; with equal weights it is of order one."""
    (tmp_path / "a_rule_of_ralston.py").write_text(RALSTON)
    found = CliRunner().invoke(app, ["check", given, "--json"])
    told = {row["claim"]: row for row in json.loads(found.stdout)["claims"]}
    assert [claim for claim, row in told.items() if not row["holds"]] == broken
    assert found.exit_code == (1 if broken else 0)
    for claim in ("order on a normal law", "order on a mixture"):
        assert float(told[claim]["found"].split()[0]) == pytest.approx(1 if broken else 2, abs=0.1)


def test_a_sampler_that_declares_no_order_says_so() -> None:
    table = CliRunner().invoke(app, ["check", "gradient-ascent"], env={"COLUMNS": "120"}).stdout
    assert "claims no order" in table


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("ddin", "unknown component 'ddin'; did you mean 'ddim'?"),
        ("ddin", "(near: ddim, "),
        ("ddin", "; 'diffatlas catalog' lists all "),
        ("qqqqqq", "unknown component 'qqqqqq' ('diffatlas catalog' lists all "),
        (
            "mine_to_check:Heun",
            "(module 'mine_to_check' has no attribute 'Heun'; its components: Ralston) (your own class is named as",
        ),
        ("no_such_module:Heun", "unknown component 'no_such_module:Heun' (No module named 'no_such_module') (your own"),
        ("{name: decode, eta: 1}", "eta"),
        ("{nam: decode}", "accepted: a name, or a mapping"),
    ],
)
def test_what_cannot_be_looked_at_is_wrong_input(given: str, said: str) -> None:
    found = CliRunner().invoke(app, ["check", given])
    assert found.exit_code == 2
    assert said in found.stderr
    assert len(found.stderr) < 400  # a screen of names helps nobody


def test_a_kind_is_one_of_ours_and_chooses_among_those_of_one_name() -> None:
    with pytest.raises(da.WrongValue, match="kind: found 'sampeler'; accepted: dataset"):
        da.check("decode", kind="sampeler")
    with pytest.raises(UnknownName, match="unknown metric 'decode'"):
        da.check("decode", kind="metric")


def test_of_one_name_the_kinds_that_lack_a_parameter_are_passed_over() -> None:
    assert {row.kind for row in da.check("edm")} > {"schedule"}
    assert {row.kind for row in da.check({"name": "edm", "sigma_max": 50.0})} == {"schedule"}
    with pytest.raises(da.WrongValue, match="sigma_mux"):
        da.check("edm", sigma_mux=50.0)
