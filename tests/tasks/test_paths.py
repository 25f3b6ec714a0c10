"""Restoration and actions in a study: what is asked of whom, who shares a stack, and what stands
beside the answers.
"""

from __future__ import annotations

from diffusion.metrics import RestorationError, ScoreError, SlicedWasserstein2
from tasks.plain import Plain, Spec
from tasks.plan import make_plan, points_of
from tasks.study import Study

BASE: Spec = {
    "name": "paths",
    "datasets": ["torus"],
    "formulations": [{"name": "indi", "degradation": {"name": "mask", "seen": [0, 2]}}],
    "training": {"steps": 10, "batch": 16, "width": 8, "depth": 1, "data": 50},
    "samplers": ["euler"],
    "steps": [2],
    "samples": 100,
    "metrics": ["energy"],
}
BLIND = {"name": "indi", "degradation": {"name": "noise", "alone": True}}


def study(**changes: Plain) -> Study:
    return Study.from_spec({**BASE, **changes})


def labels(of: Study) -> list[str | int]:
    return [point.labels["formulation"] for point in points_of(of)]


def test_the_exact_flow_from_noise_stands_beside_what_starts_from_noise_only() -> None:
    """It answers another question than a restoration: it knows nothing of the observation."""
    assert labels(study()) == ["indi(degradation=mask(seen=(0, 2)))"]
    assert "exact" in labels(study(formulations=[BLIND]))
    assert "exact" in labels(study(formulations=[*BASE["formulations"], "flow"]))


def test_only_restorations_are_compared_with_originals_and_only_denoisers_of_noise_with_the_exact_one() -> None:
    (restoring,) = points_of(study())
    blind = next(p for p in points_of(study(formulations=[BLIND])) if p.labels["formulation"] != "exact")
    assert restoring.refuses(RestorationError()) is None
    assert "observation" in str(restoring.refuses(ScoreError()))
    assert blind.refuses(ScoreError()) is None
    assert "restores nothing" in str(blind.refuses(RestorationError()))
    assert restoring.refuses(SlicedWasserstein2()) is blind.refuses(SlicedWasserstein2()) is None
    unbalanced = points_of(study(formulations=[{"name": "action-matching", "kind": "unbalanced"}], samplers=["action"]))
    assert "do not give" in str(unbalanced[0].refuses(ScoreError()))


def test_what_a_model_does_not_know_is_not_asked_and_the_reason_is_told() -> None:
    kinds = [{"name": "action-matching", "kind": kind} for kind in ("plain", "entropic", "unbalanced")]
    requested = study(
        datasets=["eight_gaussians"],
        formulations=[*kinds, {"name": "indi", "degradation": "mask"}, BLIND, "flow"],
        samplers=[
            "euler",
            "ancestral",
            "indi",
            "action",
            {"name": "euler", "schedule": {"name": "edm", "sigma_min": 0.0005}},
            {"name": "euler", "guidance": {"name": "class-label", "labels": [1]}},
        ],
    )
    plan = make_plan(requested, known={}, trained=())
    served: dict[str, set[str]] = {}
    for point in plan.points:
        if point.id not in plan.impossible:
            served.setdefault(str(point.labels["formulation"]), set()).add(str(point.labels["sampler"]))
    guided = next(label for label in served["flow"] if "class-label" in label)
    below = next(label for label in served["flow"] if "sigma_min" in label)
    noise = {"euler", "ancestral", guided, below}
    known = noise - {below}  # which begins below the path's first angle; `flow` is trained on smaller ones
    assert served["action-matching"] == served["action-matching(kind=entropic)"] == {*known, "action"}
    assert served["action-matching(kind=unbalanced)"] == {"action"}
    assert served["indi(degradation=mask)"] == {"euler", "indi"}
    assert served["indi(degradation=noise(alone=True))"] == {*noise, "indi"}
    assert served["flow"] == noise
    assert all(plan.impossible.values())


def test_members_of_one_shard_share_the_whole_objective() -> None:
    """Objectives have no names, and two without parameters must not pass for one."""
    kinds = [{"name": "action-matching", "kind": kind} for kind in ("plain", "entropic", "unbalanced")]
    plan = make_plan(study(formulations=[*kinds, *BASE["formulations"], BLIND, "flow"]), known={}, trained=())
    for shard in plan.shards(1):
        assert len({getattr(job.cell.formulation, "objective", None) for job in shard.jobs}) == 1
