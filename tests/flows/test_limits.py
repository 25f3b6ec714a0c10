"""How long a shard may take: what the device that computes it needs, ten times over."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from flows.resources import Claims
from flows.workers import Workers
from tasks.plan import Shard, make_plan
from tasks.plan.pace import Pace, Paces
from tasks.study import Study
from tasks.work import Requests
from tasks.work.code import code_here

STUDY = Study.from_spec(
    {
        "name": "limits",
        "datasets": ["moons"],
        "formulations": ["edm", "exact"],
        "training": {"steps": 100_000, "batch": 4096, "width": 256, "data": 500},
        "samplers": ["heun"],
        "steps": [64],
        "samples": 100_000,
        "metrics": ["energy"],
    }
)


class Handed(Workers):
    """What would be handed to Ray is written down."""

    def __init__(self, **given: Any) -> None:
        board: Any = SimpleNamespace(reporter=lambda run, name: (run, name))
        claims = Claims({}, {"train": "cpu", "sweep": "cpu"})
        super().__init__(Requests((), False, frozenset()), lambda: lambda _: b"", board, claims, code_here(), **given)
        self.limits: list[float] = []

    def _submit(self, stage: Any, node: str | None = None, **parameters: Any) -> Any:  # noqa: ARG002
        if "shard" in parameters:
            self.limits.append(parameters["limit"])
        return SimpleNamespace(wrapped_future=object())


def limits(shard: Shard, **given: Any) -> list[float]:
    workers = Handed(**given)
    if shard.trained:
        workers.train(0, shard)
    workers.sweep(0, shard)
    return workers.limits


@pytest.mark.parametrize("shard", make_plan(STUDY, {}, ()).shards(1), ids=lambda shard: shard.name)
def test_a_shard_may_take_ten_times_what_its_device_needs_for_it(shard: Shard) -> None:
    assert shard.work() > 120
    for pace in (Pace(8.0, 8.0), Pace(0.5, 2.0), Pace(1e-6, 1e-6)):
        paces: Paces = {shard.kind: pace}
        expected = max(600.0, 10 * shard.seconds(paces))
        assert limits(shard, paces=paces) == pytest.approx([expected] * (2 if shard.trained else 1))
    assert set(limits(shard, paces={shard.kind: Pace(1e-6, 1e-6)})) == {600.0}
    assert set(limits(shard)) == set(limits(shard, paces={"another": Pace(9, 9)})) == {10 * shard.work()}
    assert set(limits(shard, paces={shard.kind: Pace(9, 9)}, limit=7.0)) == {7.0}
