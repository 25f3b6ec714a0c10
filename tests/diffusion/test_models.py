"""What a model can be asked is its type: of every formulation, counted or not, and in what a
sampler needs.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import pytest
import torch
from torch import Tensor

from diffusion.datasets import EightGaussians, Uniform
from diffusion.formulations import (
    ActionMatching,
    Formulation,
    InDI,
    Trained,
    Untrained,
    VariationalAutoencoder,
    formulations,
)
from diffusion.models import (
    ActionModel,
    Decoder,
    Denoiser,
    DensityModel,
    DivergenceModel,
    Encoder,
    ExactDenoiser,
    KnownDistribution,
    LabelledDenoiser,
    LatentVariableModel,
    RestorationModel,
    capabilities_of,
    capability,
    counted,
    phrase_of,
)
from diffusion.objectives.member import Member
from diffusion.randomness import stream
from diffusion.samplers import samplers
from diffusion.training import TrainedStack, Training
from tests.diffusion.taught import served

EVERY: dict[str, Formulation] = {
    one.label(): one
    for one in (
        *(formulations.create(entry.name) for entry in formulations if entry.has_defaults),
        ActionMatching("entropic"),
        ActionMatching("unbalanced"),
    )
}
TRAINED = {name: one for name, one in EVERY.items() if isinstance(one, Trained)}
SETTINGS = Training(steps=1, batch=4, width=8, depth=1)
X, LEVEL = torch.zeros(2, 3, 2, dtype=torch.float64), torch.full((2,), 0.5, dtype=torch.float64)


def model_of(formulation: Trained) -> object:
    """Two networks as they are before training."""
    target = served(formulation, EightGaussians())
    network = formulation.network(target, SETTINGS)
    schedule = formulation.own_schedule().fitted(target)
    members = tuple(Member(target, formulation, schedule, str(m)) for m in range(2))
    rows = network.initialise([stream("models", m) for m in range(2)])
    nothing = torch.zeros(2, 0)
    return TrainedStack(formulation.objective, network, members, rows, torch.zeros(0), nothing, (None, None)).model


@pytest.mark.parametrize("formulation", TRAINED.values(), ids=TRAINED.keys())
def test_the_models_of_a_formulation_are_of_the_class_that_it_names(formulation: Trained) -> None:
    assert type(model_of(formulation)) is formulation.gives
    assert capabilities_of(formulation.gives) != []


def test_what_models_can_be_asked() -> None:
    """An autoencoder is no denoiser, an unbalanced action neither, and a denoiser has no bound of
    its own.
    """
    assert capabilities_of(ExactDenoiser) == [
        Denoiser,
        DensityModel,
        DivergenceModel,
        LabelledDenoiser,
        KnownDistribution,
    ]
    assert capabilities_of(EVERY["edm"].gives) == [Denoiser]
    assert capabilities_of(EVERY["ncsn-separate"].gives) == [Denoiser]
    assert capabilities_of(EVERY["class-conditional"].gives) == [Denoiser, LabelledDenoiser]
    assert capabilities_of(InDI().gives) == [Denoiser, RestorationModel]
    assert capabilities_of(EVERY["vae"].gives) == [Decoder, Encoder, LatentVariableModel]
    assert capabilities_of(EVERY["action-matching"].gives) == [Denoiser, ActionModel]
    assert capabilities_of(EVERY["action-matching(kind=unbalanced)"].gives) == [ActionModel]


@pytest.mark.parametrize("formulation", EVERY.values(), ids=EVERY.keys())
def test_a_counted_model_can_be_asked_the_same_and_nothing_else(formulation: Formulation) -> None:
    targets, model = [EightGaussians()] * 2, object()
    if isinstance(formulation, Untrained):
        model = formulation.model_of(targets)
    else:
        model = model_of(formulation) if isinstance(formulation, Trained) else ExactDenoiser(targets)
    wrapped, counter = counted(model)
    assert capabilities_of(type(wrapped)) == capabilities_of(formulation.gives)
    if isinstance(model, Denoiser):
        assert isinstance(wrapped, Denoiser)
        assert torch.equal(wrapped(X, LEVEL, LEVEL), model(X, LEVEL, LEVEL))
        assert counter.nfe == 1


def test_evaluations_are_counted_and_what_costs_none_is_not() -> None:
    autoencoder, counter = counted(model_of(VariationalAutoencoder()))
    assert isinstance(autoencoder, Decoder)
    autoencoder.decode(torch.zeros(2, 3, autoencoder.latent_dim(), dtype=torch.float64))
    autoencoder.decoder_std()
    assert counter.nfe == 1
    exact, counter = counted(ExactDenoiser([Uniform()]))
    assert exact.targets() == (Uniform(),)
    x, level = X[:1, :, :1], LEVEL[:1]
    exact.log_density(x, level, level)
    exact(x, alpha=level, sigma=level)
    assert counter.nfe == 2


def test_a_function_is_a_denoiser_and_its_evaluations_are_counted() -> None:
    def half(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG001
        return 0.5 * x

    denoiser, counter = counted(half)
    assert torch.equal(denoiser(X, LEVEL, LEVEL), 0.5 * X)
    assert counter.nfe == 1
    assert capabilities_of(type(denoiser)) == [Denoiser]


def test_a_capability_of_ones_own_has_a_phrase_and_is_counted() -> None:
    @capability("a second guess", "guess")
    @runtime_checkable
    class Guesser(Protocol):
        def guess(self, x: Tensor) -> Tensor: ...

        def name(self) -> str: ...

    class Mine:
        def guess(self, x: Tensor) -> Tensor:
            return -x

        def name(self) -> str:
            return "mine"

    model, counter = counted(Mine())
    assert torch.equal(model.guess(X), -X)
    assert (model.name(), counter.nfe) == ("mine", 1)
    assert phrase_of(Guesser) == "a second guess"
    assert Guesser in capabilities_of(Mine)
    assert Guesser not in capabilities_of(ExactDenoiser)


def test_every_sampler_needs_something_that_models_of_some_formulation_are() -> None:
    for entry in samplers:
        assert any(issubclass(one.gives, entry.cls.needs) for one in EVERY.values()), entry.name
        assert "what a" not in phrase_of(entry.cls.needs)
