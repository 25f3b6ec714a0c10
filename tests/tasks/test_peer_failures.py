"""Samplers of other libraries that fail on their way: each is a failed point with its reason, and the
other questions of the cell have the answers that they have alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffusion.errors import WrongValue
from diffusion.samplers.peers.libraries import version_of
from tasks.results import open_results
from tests.tasks import tiny_store

RAISES = {
    "name": "k-diffusion",
    "sampler": "sample_dpmpp_2m_sde",
    "solver_type": "third",
}  # which it looks at on its way
# Of networks alone: the exact denoiser of a bounded target is bounded, wherever it is asked, and the last
# step of the rule is its answer.
DIVERGES = {"name": "k-diffusion", "sampler": "sample_dpmpp_2m_sde", "s_noise": 1e300}
SOUND: list[Any] = ["heun", {"name": "k-diffusion", "sampler": "sample_dpmpp_2m_sde"}]
SPEC = tiny_store.SPEC | {"seeds": 1, "steps": [3], "keep": {"samples": True}}


def answered(uri: Path, samplers: list[Any]) -> dict[tuple[str, str], tuple[str, str, float, int]]:
    """Status, reason, w1 and evaluations of each (formulation, sampler)."""
    tiny_store.answer(str(uri), SPEC | {"samplers": samplers})
    found = open_results(str(uri)).load()
    keys = zip(found.formulation.values.tolist(), found.sampler.values.tolist(), strict=True)
    columns = (found.status, found.error, found.w1, found.nfe)
    return dict(zip(keys, zip(*(column.values.tolist() for column in columns), strict=True), strict=True))


def test_a_peer_that_raises_or_gives_nan_is_a_failed_point_and_costs_nothing_else(tmp_path: Path) -> None:
    try:
        version = version_of("k-diffusion").removeprefix("k-diffusion ")
    except WrongValue:
        pytest.skip("k-diffusion is not installed (make install does it)")
    together = answered(tmp_path / "together", [RAISES, SOUND[0], DIVERGES, SOUND[1]])
    alone = answered(tmp_path / "alone", SOUND)
    assert {key: together[key] for key in alone} == alone
    assert {status for status, *_ in alone.values()} == {"ok"}
    failed = {key: row for key, row in together.items() if row[0] == "failed"}
    assert failed.keys() == together.keys() - alone.keys() - {("exact", next(s for _, s in together if "s_noise" in s))}
    for (_, sampler), (_, reason, value, _) in failed.items():
        assert version in sampler
        assert np.isnan(value)
        if "solver_type" in sampler:
            assert reason.startswith("sampling failed: ValueError: solver_type must be 'heun' or 'midpoint'")
        else:
            assert reason == "sampling diverged: 400 of 400 samples are not finite"
