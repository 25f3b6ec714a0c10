"""A small store made by the functions that the flow calls, in this process: no services needed."""

from typing import Any

from tasks.plan import Plan, keeps_trajectory
from tasks.results import Answers
from tasks.results.provenance import provenance
from tasks.results.rows import swept_rows, trained_rows
from tasks.results.stored import coordinate, plan_against, record
from tasks.store import Store
from tasks.study import Study
from tasks.work import Requests, data_key, left_to_sweep, sweep_shard, train_shard, training_set
from tasks.work.code import code_here, own_modules

SPEC: dict[str, Any] = {
    "name": "tiny",
    "datasets": ["uniform"],
    "formulations": ["edm"],
    "seeds": 2,
    "training": {"steps": 10, "batch": 16, "width": 8, "depth": 1, "data": 50},
    "samplers": ["euler", "heun"],
    "steps": [1, 3],
    "samples": 400,
    "metrics": ["w1", "ks"],
    "keep": {"samples": True, "trajectories": ["heun@3"]},
}


def answer(uri: str, spec: dict[str, Any] = SPEC, **requested: Any) -> Plan:
    """Compute and commit what the store at `uri` lacks of a study, a commit per stage of a shard;
    what was planned.
    """
    study = Study.from_spec(spec)
    opened = Store.open(uri) if Store.exists(uri) else Store.create(uri)
    with coordinate(opened) as coordinator:
        plan = plan_against(opened, study, **requested)
        requests = Requests(
            study.metrics, study.keep.samples, frozenset(p.id for p in plan.points if keeps_trajectory(study, p))
        )
        record(coordinator, plan, provenance(study.name))
        stored, code = Answers(opened), code_here(own_modules(study))
        for shard in plan.shards(1):
            sets = {data_key(j.cell): training_set(j.cell) for j in shard.jobs if j.train and j.cell.training}
            weights = {j.cell.id: stored.weights(j.cell.id) for j in shard.jobs if j.cell.training and not j.train}
            trained = train_shard(shard, sets) if shard.trained else None
            if trained:
                coordinator.commit(trained_rows(trained, code), f"trained {shard.name}", provenance(study.name))
            left = left_to_sweep(shard, trained) if trained else shard
            if left:
                swept = sweep_shard(left, {**weights, **(trained.weights if trained else {})}, requests)
                coordinator.commit(
                    swept_rows(swept, {}, code, study.metrics), f"swept {left.name}", provenance(study.name)
                )
    return plan
