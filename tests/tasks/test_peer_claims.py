"""Claims about samplers of other libraries: told once, with what they were measured with, and with
the reason where they could not be.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pytest

from diffusion.errors import WrongValue
from diffusion.samplers import Sampler
from diffusion.samplers.peers.libraries import version_of
from tasks.plain import Spec
from tasks.report.numbers import peer_claims
from tasks.report.numbers.claims import claims
from tasks.report.numbers.evidence import FAILS, HOLDS, OPEN
from tests.tasks.chosen import answers_to

PC: Spec = {"name": "azula", "sampler": "PCSampler"}
EULER: Spec = {"name": "azula", "sampler": "EulerSampler"}
REAB: Spec = {"name": "azula", "sampler": "REABSampler"}


@pytest.fixture(autouse=True)
def nothing_is_remembered() -> Iterator[None]:
    try:
        version_of("azula")
    except WrongValue:
        pytest.skip("azula is not installed (make install does it)")
    peer_claims._held.cache_clear()
    yield
    peer_claims._held.cache_clear()


def asked(sampler: Spec, dataset: str = "uniform") -> list[Spec]:
    return [
        {"dataset": dataset, "formulation": "exact", "schedule": "edm", "sampler": sampler, "steps": n, "w1": 1 / n}
        for n in (4, 8)
    ]


def orders(*rows: Spec) -> list[Spec]:
    (found,) = [claim for claim in claims(answers_to(rows)) if claim["claim"] == "claimed-order"]
    result: list[Spec] = found["verdicts"]
    return result


def test_the_text_says_which_options_the_order_was_measured_with() -> None:
    first, second = orders(*asked(PC), *asked(EULER))
    assert first["verdict"] == second["verdict"] == HOLDS
    assert first["text"].endswith("with 32 to 128 steps and delta 1e-08 in place of 0.01.")
    assert second["text"].endswith("with 32 to 128 steps.")


def test_each_sampler_is_told_beside_the_first_data_set_that_it_was_asked_on() -> None:
    found = orders(*asked(EULER), *asked(EULER, "gaussian"), *asked(REAB, "gaussian"))
    assert [(one["dataset"], one["verdict"]) for one in found] == [("uniform", HOLDS), ("gaussian", FAILS)]
    assert "EulerSampler" in found[0]["compared"]
    assert "REABSampler" in found[1]["compared"]


def raises(sampler: Sampler, steps: Sequence[int]) -> dict[str, float]:
    raise IndexError(f"no level\n{steps[0]} of {sampler.registered_name}")


def diverges(sampler: Sampler, steps: Sequence[int]) -> dict[str, float]:  # noqa: ARG001
    return {"a normal law": 1.0, "a mixture": math.nan}


@pytest.mark.parametrize(
    ("measure", "text"),
    [
        (raises, "claims order 1; could not be measured: IndexError: no level 32 of azula."),
        (diverges, "claims order 1; could not be measured: its error is not finite on a mixture."),
    ],
)
def test_what_cannot_be_measured_is_a_verdict_and_not_the_end_of_the_page(
    measure: object, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_claims, "order_measured", measure)
    (found,) = orders(*asked(EULER))
    assert (found["verdict"], found["text"]) == (OPEN, text)


def test_a_sampler_that_fails_by_itself_is_such_a_verdict() -> None:
    """A value that only the library looks at, and only on its way."""
    try:
        version_of("k-diffusion")
    except WrongValue:
        pytest.skip("k-diffusion is not installed (make install does it)")
    (found,) = orders(*asked({"name": "k-diffusion", "sampler": "sample_dpmpp_2m_sde", "solver_type": "third"}))
    assert found["verdict"] == OPEN
    assert "could not be measured: ValueError: solver_type must be" in found["text"]
