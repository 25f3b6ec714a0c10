"""What a stored spec says of a model is what the model itself says."""

from __future__ import annotations

import pytest

from diffusion.datasets.degradations import Degradation, degradations
from diffusion.formulations import Formulation, InDI, formulations
from diffusion.registry import Entry
from tasks.results import facts


@pytest.mark.parametrize("entry", [entry for entry in formulations if entry.has_defaults], ids=str)
def test_a_formulation_restores_by_its_stored_spec_if_it_does_itself(entry: Entry[Formulation]) -> None:
    formulation = formulations.create(entry.name)
    assert facts._restores({"formulation": formulation.identity()}) == formulation.restores


@pytest.mark.parametrize("entry", [entry for entry in degradations if entry.has_defaults], ids=str)
def test_incremental_restoration_restores_unless_its_observation_says_nothing(entry: Entry[Degradation]) -> None:
    formulation = InDI(degradation=degradations.create(entry.name))
    assert facts._restores({"formulation": formulation.identity()}) == (not formulation.degradation.blind)
