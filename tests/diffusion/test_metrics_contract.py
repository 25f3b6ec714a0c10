"""Every registered metric is one of three siblings, and takes what it looks at, and no more, from
what there is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, get_args, get_type_hints

import pytest
import torch
from torch import Tensor

import tasks.data  # noqa: F401 - registers digits and their metrics
from diffusion.datasets import Dataset, EightGaussians, FourPoints, LinearSubspace, Torus, Uniform, datasets
from diffusion.datasets.classes import given_labels
from diffusion.errors import WrongValue
from diffusion.metrics import (
    BaseMetric,
    Materials,
    Metric,
    ModelMaterial,
    ModelMetric,
    PairedMetric,
    PairMaterial,
    ProfileMetric,
    SampleMaterial,
    metrics,
)
from diffusion.models import ExactDenoiser
from diffusion.randomness import stream
from diffusion.registry import Component
from diffusion.schedules import DDPMLinear

SIBLINGS = (Metric, ModelMetric, PairedMetric)
OF = {Metric: "samples", ModelMetric: "models", PairedMetric: "pairs"}
METRICS = {entry.name: entry.cls() for entry in metrics}
every_metric = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())
DIGITS = datasets.create("digits")
TARGETS = (Uniform(), EightGaussians(), FourPoints(), Torus(), LinearSubspace(), DIGITS, given_labels(DIGITS, (2,)))


def target_of(metric: BaseMetric) -> Dataset:
    return next(target for target in TARGETS if metric.refuses(target) is None)


@dataclass(frozen=True)
class All(Materials):
    """A target's own samples, its exact denoiser, and samples that are nearly their originals."""

    target: Dataset

    def samples(self) -> SampleMaterial:
        return SampleMaterial(self.target.sample(50, stream("contract")), self.target)

    def model(self) -> ModelMaterial:
        return ModelMaterial(ExactDenoiser([self.target]), self.target, DDPMLinear())

    def pairs(self) -> PairMaterial:
        clean = self.target.sample(50, stream("contract"))
        return PairMaterial(clean + 0.5, clean, 0.25 * self.target.dim)


class NamesMaterials:
    """Says of each material that it is refused, by its name."""

    def refuses_samples(self, _: Metric) -> str:
        return "samples"

    def refuses_model(self, _: ModelMetric) -> str:
        return "models"

    def refuses_pairs(self, _: PairedMetric) -> str:
        return "pairs"


@every_metric
def test_every_metric_is_one_of_the_siblings_and_none_of_the_others(metric: BaseMetric) -> None:
    own = [sibling for sibling in SIBLINGS if isinstance(metric, sibling)]
    assert len(own) == 1
    assert metric.of == OF[own[0]]
    assert metric.refused_by(NamesMaterials()) == metric.of


def test_the_siblings_share_what_the_base_has_and_nothing_that_only_raises() -> None:
    assert get_args(get_type_hints(BaseMetric)["of"].__args__[0]) == tuple(OF.values())
    assert metrics.base is BaseMetric
    own = set(vars(BaseMetric)) - set(vars(Component))
    for name in ("column", "refuses", "refused_by", "measured"):
        assert name in own
    assert not {"evaluate", "floor", "_measure", "_floor"} & set(dir(BaseMetric))


@every_metric
def test_every_metric_measures_its_own_material_and_finds_none_elsewhere(metric: BaseMetric) -> None:
    target = target_of(metric)
    assert metric.measured(Materials()) is None
    given = All(target)
    found = metric.measured(given)
    assert found is not None
    assert math.isfinite(found.value)
    assert math.isfinite(found.floor)
    if isinstance(metric, Metric):
        x, _ = given.samples()
        assert (found.value, found.floor) == (metric.evaluate(x, target), metric.floor(target, len(x)))
    if isinstance(metric, ModelMetric):
        model, _, schedule, _ = given.model()
        assert (found.value, found.floor) == (metric.evaluate(model, target, schedule), metric.floor(target, schedule))
    if isinstance(metric, PairedMetric):
        x, clean, least = given.pairs()
        assert (found.value, found.floor) == (metric.evaluate(x, clean), metric.floor(least, target.dim))
        assert found.value == pytest.approx(0.25)
    assert (found.profile is not None) == isinstance(metric, ProfileMetric)
    if found.profile is not None:
        assert found.value == float(torch.tensor(found.profile.errors, dtype=torch.float64).mean())
        assert found.profile.nsr == sorted(found.profile.nsr)


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if isinstance(metric, ModelMetric)])
def test_a_metric_of_models_refuses_what_has_none_of_the_capabilities_that_it_needs(name: str) -> None:
    metric = METRICS[name]
    assert isinstance(metric, ModelMetric)
    assert metric.refuses_model(ExactDenoiser, DDPMLinear()) is None
    assert "such models do not give" in str(metric.refuses_model(object, DDPMLinear()))
    with pytest.raises(WrongValue, match=f"{name} asks a model for .*, and object gives none"):
        metric.evaluate(object(), target_of(metric), DDPMLinear())

    class Nothing(Materials):
        def model(self) -> ModelMaterial:
            return ModelMaterial(object(), target_of(metric), DDPMLinear())

    with pytest.raises(WrongValue, match="and object gives none"):
        metric.measured(Nothing())


@dataclass(frozen=True)
class Middle(Metric):
    """Somebody's own: two methods and what it refuses are enough."""

    axis_label: ClassVar[str] = "distance of the mean"
    registered_name = "middle"

    def refuses(self, dataset: Dataset) -> str | None:  # noqa: ARG002
        return None

    def _measure(self, samples: Tensor, dataset: Dataset) -> float:
        return float((samples.mean(0) - torch.tensor(dataset.mean)).norm())

    def _floor(self, dataset: Dataset, n: int) -> float:
        return dataset.std / math.sqrt(n)


def test_a_metric_of_ones_own_needs_to_know_of_samples_and_data_alone() -> None:
    found = Middle().measured(All(Uniform()))
    assert found is not None
    assert 0 <= found.value < 5 * found.floor
    assert Middle().of == "samples"
