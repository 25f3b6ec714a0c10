"""The faults of docs/faults.md, again and again, on real processes: ``python -m tests.faults.rounds
--rounds 10 [--fault NAME ...] [--out FILE]``.

A round is a run of a small study that is hurt, and, where it ended before its end, the same command
once more. Its final answers are compared bit for bit with undisturbed ones; what was told as
committed and is not in the store, or has changed there, is lost; what is still there when all has
ended (processes, ports, locks, folders) is left behind. Of a round that broke before that was known
the table, which is written anew after each round, says "?".

Not among them is a Ray that answers nothing at all: `tests/end_to_end/test_stages.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tasks.store import StoreMissing
from tasks.study import load_study
from tests.faults import store_hurts  # noqa: F401 - more rows
from tests.faults.hurts import FAULTS, MODULES, Fault, study_of
from tests.faults.kit import Round, RoundFailed, shared_server, state
from tests.faults.whole import Contents
from tests.homes import new_home
from tests.tasks.tiny_store import answer


@dataclass
class Result:
    """What came of a round."""

    code: int | None = None
    same: bool = False
    lost: int | None = None  # not known before the store was read again
    left: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    wrong: str = ""


def carry_out(name: str, folder: Path, server: str, home: Path, undisturbed: Contents, number: int) -> Result:
    """One round of a fault."""
    row, begun, result = FAULTS[name], time.monotonic(), Result()
    (folder / "own").mkdir(parents=True)
    for module, text in MODULES.items():
        (folder / "own" / f"{module}.py").write_text(text)
    jitter = random.Random(f"{name} {number}").random()  # noqa: S311 - when, and nothing else
    variables = {"DIFFATLAS_ALLOW_PLUGINS": ",".join(MODULES)}
    one = Round(folder / "run", server, home, study_of(row), jitter, paths=(str(folder / "own"),), variables=variables)
    try:
        with one.services:
            _check(one, row, undisturbed, result)
    except Exception as error:  # noqa: BLE001 - the other rounds go on
        result.wrong = _told(error)
    try:
        for run in one.runs:
            if (
                run.process.poll() is None
            ):  # of a round that has broken; what has ended may have left others of its session
                run.kill()
        result.left = one.left_behind()
    except Exception as error:  # noqa: BLE001 - as above
        result.wrong = result.wrong or _told(error)
    finally:
        for run in one.runs:
            run.kill()
        one.later.close()
    result.seconds = time.monotonic() - begun
    return result


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}\n{traceback.format_exc()[-600:]}"


def _check(one: Round, row: Fault, undisturbed: Contents, result: Result) -> None:
    run = row.hurt(one)
    result.code = run.end()
    if result.code not in row.codes:
        raise RoundFailed(f"exit code {result.code}, expected {row.codes}: {run.said[-1500:]}")
    if not re.search(row.said, run.said) or "Traceback" in run.said:
        raise RoundFailed(f"not said {row.said!r}, or a traceback: {run.said[-1500:]}")
    if row.shown is not None:
        row.shown(one)
    try:
        history, after = state(one.uri)
    except StoreMissing:  # it was refused before anything was written
        history, after = [], Contents({}, {}, {})
    if result.code not in (0, 1):
        if row.mends is not None:
            row.mends(one)
        one.resume("--workers", "1")
    later, final = state(one.uri)
    result.lost = len(lost(run.said, after, final, undisturbed)) + len(set(history) - set(later))
    result.wrong = _difference(final, undisturbed, row)
    result.same = not result.wrong


def lost(said: str, after: Contents, final: Contents, undisturbed: Contents) -> set[str]:
    """Points that were told as committed and were not in the store after the run; points and trained
    cells that were in it and are not there any more, or are others.
    """
    rows = {point: dict(row) for point, row in (undisturbed.points | final.points).items()}
    told: set[str] = set()
    for name, many in re.findall(r"shard \d+/\d+ committed: (.*) \((\d+) points?\b", said):
        its = {point for point, row in rows.items() if _is_of(name, row)}
        if len(its) != int(many):
            raise RoundFailed(f"told {many} points of {name}, which has {len(its)}")
        told |= its
    changed = {point for point, row in after.points.items() if final.points.get(point) != row}
    weights = {cell: dict(row).get("weights") for cell, row in after.cells.items()}
    others = {cell for cell, held in weights.items() if held and dict(final.cells.get(cell, ())).get("weights") != held}
    return (told - after.points.keys()) | changed | others


def _is_of(shard: str, row: dict[str, Any]) -> bool:
    """Whether a point is one of those that the name of a shard tells (`tasks.plan.Shard.name`)."""
    for part in shard.split("; "):
        dataset, _, whats = part.partition(": ")
        exact, whats = whats.startswith("exact on "), whats.removeprefix("exact on ")
        names = {re.sub(r" x\d+$", "", what) for what in whats.split(", ")}
        if row["dataset"] == dataset and exact == (row["formulation"] == "exact"):
            return row["schedule" if exact else "formulation"] in names
    return False


def _difference(final: Contents, undisturbed: Contents, row: Fault) -> str:
    """Where what is not of the own sampler is not as in an undisturbed run, to the last bit, or what is
    not as it has to be; empty if nothing is.
    """
    rows = {point: dict(values) for point, values in final.points.items()}
    own = [values for values in rows.values() if values["sampler"] == row.own]
    others = {point: values for point, values in final.points.items() if dict(values)["sampler"] != row.own}
    for found, expected in ((others, undisturbed.points), (final.cells, undisturbed.cells)):
        for key in found.keys() | expected.keys():
            if found.get(key) != expected.get(key):
                return f"{found.get(key)} instead of {expected.get(key)}"
    if bool(own) != bool(row.own):
        return f"{len(own)} points of {row.own!r}"
    by_cell = {values["cell_id"]: values["w1"] for values in rows.values() if values["sampler"] == "heun"}
    for values in own:
        good = values["status"] == "ok" and values["w1"] == by_cell[values["cell_id"]]
        if not (re.search(row.fails, values.get("error", "")) if row.fails else good):
            return str(values)
    return ""


def table(results: dict[str, list[Result]]) -> str:
    """What came of all rounds so far, a row for each fault."""
    head = "| fault | rounds | exit codes | as stated, same bits | lost commits | left behind | seconds |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    for name, rounds in results.items():
        codes = ", ".join(sorted({str(one.code) for one in rounds}))
        good = sum(one.same and not one.wrong for one in rounds)
        left = "?" if any(not one.left for one in rounds) else sum(sum(one.left.values()) for one in rounds)
        known = [one.lost for one in rounds if one.lost is not None]
        lost = sum(known) if len(known) == len(rounds) else "?"
        mean = sum(one.seconds for one in rounds) / len(rounds)
        lines.append(f"| {FAULTS[name].about} | {len(rounds)} | {codes} | {good} | {lost} | {left} | {mean:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Carry out rounds, and keep the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--fault", action="append", choices=list(FAULTS), help="only this one; may be given again")
    parser.add_argument("--out", type=Path, default=Path("rounds.md"), help="the table; results as JSON beside it")
    options = parser.parse_args()
    results: dict[str, list[Result]] = {}
    with tempfile.TemporaryDirectory(prefix="rounds-") as text, _quiet():
        folder = Path(text)
        home = new_home(folder / "home")
        answer(str(folder / "undisturbed"), _undisturbed_spec(folder))
        _, undisturbed = state(str(folder / "undisturbed"))
        with shared_server(folder) as server:
            for number in range(options.rounds):
                for name in options.fault or FAULTS:
                    own = folder / f"{name}-{number}"
                    found = carry_out(name, own, server, home, undisturbed, number)
                    results.setdefault(name, []).append(found)
                    shutil.rmtree(own, ignore_errors=True)
                    print(number, name, json.dumps(asdict(found)), file=sys.stderr, flush=True)  # noqa: T201
                    options.out.write_text(table(results) + "\n")
                    kept = {one: [asdict(found) for found in rounds] for one, rounds in results.items()}
                    options.out.with_suffix(".json").write_text(json.dumps(kept, indent=1))
    print(table(results))  # noqa: T201
    wrong = [
        one
        for rounds in results.values()
        for one in rounds
        if one.wrong or not one.same or one.lost or any(one.left.values())
    ]
    sys.exit(bool(wrong))


def _undisturbed_spec(folder: Path) -> Any:
    (folder / "rounds.yaml").write_text(study_of(None))
    return load_study(folder / "rounds.yaml").spec()


@contextmanager
def _quiet() -> Iterator[None]:
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


if __name__ == "__main__":
    main()
