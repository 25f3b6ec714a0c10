"""What every registered formulation says of itself, so that nobody has to ask which one it is."""

from __future__ import annotations

import pytest

from diffusion.formulations import Exact, Formulation, formulations
from diffusion.schedules import EDM, DDPMLinear, VPLinear

EVERY = {entry.name: entry.cls() for entry in formulations if entry.has_defaults}
every_formulation = pytest.mark.parametrize("formulation", EVERY.values(), ids=EVERY.keys())
OFFERED = (EDM(), VPLinear())


@every_formulation
def test_what_is_sampled_in_a_way_of_its_own_keeps_its_schedule_and_all_else_takes_what_is_offered(
    formulation: Formulation,
) -> None:
    own = (formulation.own_schedule(),)
    assert tuple(formulation.schedules_among(())) == own
    assert tuple(formulation.schedules_among(OFFERED)) == (own if formulation.own_sampler else OFFERED)


@every_formulation
def test_samples_come_from_noise_an_observation_or_a_data_set_or_in_a_way_of_their_own(
    formulation: Formulation,
) -> None:
    ways = [
        formulation.from_noise,
        formulation.restores,
        formulation.start_distribution is not None,
        formulation.own_sampler is not None,
    ]
    assert ways.count(True) == 1
    assert formulation.restores == bool(formulation.observation)


@every_formulation
def test_labels_and_identities_do_not_repeat_the_schedule_that_stands_beside_them(formulation: Formulation) -> None:
    assert formulation.label() == formulation.registered_name
    assert "schedule" not in formulation.identity()


def test_the_ideal_denoiser_is_one_formulation_whatever_its_schedule() -> None:
    one, other = Exact(), Exact(DDPMLinear())
    assert one != other
    assert one.label() == other.label() == "exact"
    assert one.identity() == other.identity() == {"name": "exact", "version": Exact.version}
    assert one.spec() != other.spec()
