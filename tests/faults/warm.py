"""Preloaded once by the process that the victims are forked from: imports, and a first computation
that opens no store.
"""

from tasks.plan import make_plan
from tasks.results.provenance import provenance
from tasks.study import Study
from tasks.work import Requests, data_key, training_set
from tests.faults.scenarios import MIXED, ONE
from tests.tasks.in_one_process import run_shard

provenance("warm")
for spec in (ONE, MIXED):
    study = Study.from_spec(spec)
    for shard in make_plan(study, {}, ()).shards(1):
        sets = {data_key(job.cell): training_set(job.cell) for job in shard.jobs if job.cell.training}
        run_shard(shard, sets, {}, Requests(study.metrics, samples=False, trajectories=frozenset()))
