"""The reference posteriors of the benchmark of simulation-based inference beside our own draws.

    pip download --no-deps --dest FOLDER sbibm==1.1.0
    python -m tests.benchmarks.references FOLDER/sbibm-1.1.0-py2.py3-none-any.whl

The wheel is read as the archive that it is: nothing of it is installed or run. Of each task and
observation the listed outcome is compared with ours; the 10,000 reference draws with as many of ours
times ten, by the means and the second moments of all coordinates (z) and by Kolmogorov-Smirnov tests
of every coordinate and of the distance from the posterior's mean. One wrong answer in a hundred runs
is allowed for: Bonferroni over all tests.

Ends with 0 if all agree, with 1 if some do not, with 2 if the wheel cannot be read.
"""

from __future__ import annotations

import argparse
import bz2
import io
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from diffusion.datasets import SimulatorPosterior, datasets
from diffusion.randomness import stream

Numbers = NDArray[np.float64]

TASKS = tuple(entry.name for entry in datasets if entry.has_defaults and issubclass(entry.cls, SimulatorPosterior))
LEVEL = 0.01


@dataclass(frozen=True)
class Agreement:
    """Of one observation: the p-values of all tests, and the largest difference of its outcome."""

    task: str
    observation: int
    moments: Numbers
    shapes: Numbers
    outcome: float


class NoReference(Exception):
    """The wheel has not what is looked for."""


class Wheel:
    """The reference files of a wheel of `sbibm`."""

    def __init__(self, path: Path) -> None:
        try:
            self._held = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise NoReference(f"{path}: {error}; needed: the wheel of sbibm 1.1.0, as pip download gives it") from error

    def table(self, task: str, observation: int, name: str) -> Numbers:
        """The rows of a file of numbers with a line of names."""
        place = f"sbibm/tasks/{task}/files/num_observation_{observation}/{name}"
        try:
            content = self._held.read(place)
        except KeyError:
            raise NoReference(f"the wheel has no {place}; needed: that of sbibm 1.1.0") from None
        text = bz2.decompress(content) if name.endswith(".bz2") else content
        return np.atleast_2d(np.loadtxt(io.BytesIO(text), delimiter=",", skiprows=1))


def compared(wheel: Wheel, name: str, observation: int, times: int = 10) -> Agreement:
    """One posterior of ours against the wheel's."""
    entry = next(one for one in datasets if one.name == name)
    target = entry.cls(observation=observation)  # type: ignore[call-arg]  # a posterior, which has it
    assert isinstance(target, SimulatorPosterior)
    task = name.removesuffix("_posterior")
    theirs = wheel.table(task, observation, "reference_posterior_samples.csv.bz2")
    outcome = wheel.table(task, observation, "observation.csv")
    ours = target.sample(times * len(theirs), stream("references", name, observation)).numpy()
    centre = np.array(target.mean)
    pairs = [(theirs[:, k] - centre[k], ours[:, k] - centre[k]) for k in range(target.dim)]
    moments = [p for a, b in pairs for p in (of_means(a, b), of_means(a**2, b**2))]
    products = [[a * b for a, b in zip(pairs[j], pairs[k], strict=True)] for k in range(target.dim) for j in range(k)]
    moments += [of_means(a, b) for a, b in products]
    distances = [np.linalg.norm(x - centre, axis=1) for x in (theirs, ours)]
    shapes = [float(stats.ks_2samp(a, b).pvalue) for a, b in (*pairs, (distances[0], distances[1]))]
    off = float(np.abs(outcome[0] - np.array(target.observed)).max())
    return Agreement(task, observation, np.array(moments), np.array(shapes), off)


def of_means(a: Numbers, b: Numbers) -> float:
    """The p-value of equal means."""
    z = (a.mean() - b.mean()) / np.sqrt(a.var() / len(a) + b.var() / len(b))
    return float(2 * stats.norm.sf(abs(z)))


def all_compared(wheel: Wheel, names: Sequence[str], observations: Sequence[int]) -> Iterator[Agreement]:
    """Every task and observation."""
    for name in names:
        for observation in observations:
            yield compared(wheel, name, observation)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for each observation, and whether all agree; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.references",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("wheel", type=Path, help="the file that `pip download --no-deps sbibm==1.1.0` gives")
    parser.add_argument("--task", action="append", choices=TASKS, help="only this one; may be given again")
    parser.add_argument(
        "--observation", action="append", type=int, choices=range(1, 11), help="only this one; as --task"
    )
    asked = parser.parse_args(arguments)
    say("| task | observation | tests | least p of moments | least p of Kolmogorov-Smirnov | outcome off by |")
    say("|---|---|---|---|---|---|")
    found = []
    try:
        for one in all_compared(Wheel(asked.wheel), asked.task or TASKS, asked.observation or range(1, 11)):
            found.append(one)
            cells = (one.task, one.observation, one.moments.size + one.shapes.size)
            say(
                f"| {' | '.join(map(str, cells))} | {one.moments.min():.2g} | {one.shapes.min():.2g} | {one.outcome:.1g} |"
            )
    except NoReference as error:
        sys.stderr.write(f"{error}\n")
        return 2
    values = np.concatenate([np.concatenate([one.moments, one.shapes]) for one in found])
    same = max(one.outcome for one in found) < 1e-6
    agree = same and float(values.min()) * values.size > LEVEL
    say(
        f"{len(found)} posteriors, {values.size} tests: the least p is {values.min():.2g}, "
        f"{values.min() * values.size:.2g} for all of them; outcomes are {'the same' if same else 'OTHERS'}"
    )
    say("they agree" if agree else "they do NOT agree")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
