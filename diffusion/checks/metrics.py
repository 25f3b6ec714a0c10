"""What a metric promises: a floor that is its mean over perfect samples, numbers that repeat and are
finite, and a worse one for what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch

from diffusion.checks.findings import ClaimFound, findings_of, none_of
from diffusion.datasets import Dataset, datasets
from diffusion.datasets.classes import given_labels
from diffusion.errors import WrongValue
from diffusion.metrics import BaseMetric, Metric, ModelMetric, PairedMetric
from diffusion.metrics.base import SimulatedFloor
from diffusion.models import ExactDenoiser
from diffusion.randomness import stream
from diffusion.schedules import DDPMLinear

_N, _REPEATS = 100, 40
_SPREADS, _LEADING = 5.0, 0.03  # standard errors; a floor may be the leading term in n


def check_metric(metric: BaseMetric) -> Iterator[ClaimFound]:
    """Each claim of a metric, held against what it does on the first registered data set that it
    serves.
    """
    target = next((one for one in _targets() if metric.refuses(one) is None), None)
    if target is None:
        yield ClaimFound("serves a registered data set", False, "at least one", "none")
        return
    checks: Sequence[tuple[str, Callable[[BaseMetric], ClaimFound | None]]] = ()
    if isinstance(metric, Metric):
        of_samples = metric
        checks = (
            ("floor", lambda _: floor_is_the_mean(of_samples, target)),
            ("the same again", lambda _: repeats(of_samples, target)),
            ("wrong samples", lambda _: wrong_samples_are_worse(of_samples, target)),
            ("NaN is refused", lambda _: refuses_nan(of_samples, target)),
        )
    elif isinstance(metric, ModelMetric):
        of_models = metric
        checks = (("of the ideal model", lambda _: finite_of_the_ideal_model(of_models, target)),)
    elif isinstance(metric, PairedMetric):
        of_pairs = metric
        checks = (("of pairs", lambda _: pairs(of_pairs, target)),)
    yield from findings_of(metric, checks)


def floor_is_the_mean(metric: Metric, target: Dataset) -> ClaimFound:
    """Of a hundred perfect samples, measured forty times."""
    generator = stream("checks", "floor")
    values = torch.tensor(
        [metric.evaluate(target.sample(_N, generator), target) for _ in range(_REPEATS)], dtype=torch.float64
    )
    floor, mean = metric.floor(target, _N), float(values.mean())
    variance = 1 / _REPEATS
    if isinstance(metric, SimulatedFloor):
        variance += 1 / metric._repeats(target, metric._used(target, _N))  # noqa: SLF001
    allowed = _SPREADS * float(values.std()) * math.sqrt(variance) + _LEADING * abs(floor) + 1e-14
    holds = abs(mean - floor) <= allowed
    return ClaimFound("floor", holds, f"{mean:.4g}, the mean of perfect samples", f"{floor:.4g} on {target.label()}")


def repeats(metric: Metric, target: Dataset) -> ClaimFound:
    """The same samples have the same number, and so has their floor, whatever the global generator."""
    x = target.sample(_N, stream("checks", "repeat"))
    kept = x.clone()
    numbers = {(metric.evaluate(x, target), metric.floor(target, _N)) for _ in range(2)}
    bad = [] if len(numbers) == 1 else [f"{len(numbers)} different ones"]
    bad += [] if torch.equal(x, kept) else ["the samples were changed"]
    bad += [] if all(math.isfinite(value) for pair in numbers for value in pair) else ["numbers that are not finite"]
    return none_of("the same again", "the same numbers, finite", bad)


def wrong_samples_are_worse(metric: Metric, target: Dataset) -> ClaimFound:
    """Half of them far away, and a number that is still finite."""
    x = target.sample(_N, stream("checks", "wrong"))
    x[::2] += 1e4 * max(target.std, 1.0)
    value, floor = metric.evaluate(x, target), metric.floor(target, _N)
    worse = value < floor if metric.higher_is_better else value > floor
    return ClaimFound(
        "wrong samples",
        worse and math.isfinite(value),
        f"{'below' if metric.higher_is_better else 'above'} the floor {floor:.3g}",
        f"{value:.4g}",
    )


def refuses_nan(metric: Metric, target: Dataset) -> ClaimFound:
    """Samples that are no numbers have no distance."""
    x = target.sample(3, stream("checks", "nan"))
    x[1] = math.nan
    try:
        found = f"{metric.evaluate(x, target):g}"
    except WrongValue:
        return ClaimFound("NaN is refused", True, "WrongValue", "so it is")
    return ClaimFound("NaN is refused", False, "WrongValue", found)


def finite_of_the_ideal_model(metric: ModelMetric, target: Dataset) -> ClaimFound:
    """The ideal model can be measured, and has a floor."""
    schedule = DDPMLinear()
    value = metric.evaluate(ExactDenoiser([target]), target, schedule)
    floor = metric.floor(target, schedule)
    holds = math.isfinite(value) and not math.isinf(floor)
    return ClaimFound("of the ideal model", holds, f"a finite number, floor {floor:.3g}", f"{value:.4g}")


def pairs(metric: PairedMetric, target: Dataset) -> ClaimFound:
    """The originals themselves are best, and what is not known has no floor."""
    clean = target.sample(_N, stream("checks", "pairs"))
    same, moved = (metric.evaluate(clean + by, clean) for by in (0.0, 0.5))
    bad = [] if (same > moved if metric.higher_is_better else same < moved) else [f"{same:.3g}, moved {moved:.3g}"]
    bad += [] if math.isnan(metric.floor(None, target.dim)) else ["a floor of nothing"]
    return none_of("of pairs", "the originals are best", bad)


def _targets() -> Iterator[Dataset]:
    """Every registered one, then those of a class."""
    plain = [entry.cls() for entry in datasets if entry.has_defaults]
    yield from plain
    yield from (given_labels(one, (0,)) for one in plain if one.classes)
