"""The flow `run-study`: from a study to committed, pictured answers.

    study -> plan against the store -> generate data -> train -> sweep -> commit each as it completes -> report

Which stage follows which is in `flows.orchestration`. It is imported when the flow runs: with every
task, Prefect sends the workers the flow's function and all that its body names, and they need none
of it. The signature's names are there when it is imported: Prefect makes the form of a deployment of
them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from flows.services import quiet_environment

quiet_environment()

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import deployment, flow_run
from prefect.states import Completed, Failed
from pydantic import Field

from flows.patience import outlast_the_server
from flows.refusals import tell_in_one_line
from flows.request import LEAST_SHARD_LIMIT, Outcome, PointsHaveFailed, RunRequest
from tasks.messages import counted

tell_in_one_line()
outlast_the_server()


def _name_of_run() -> str:
    """That of the entry that is scheduled or deployed; of the study where there is none."""
    return str(deployment.name or flow_run.parameters["study"])


@flow(name="run-study", flow_run_name=_name_of_run, validate_parameters=False)
def run_study(
    study: str,
    store: str = "results",
    overrides: list[str] | None = None,
    ray_address: str | None = None,
    workers: Annotated[int, Field(ge=1)] | None = None,
    retry_failed: bool = False,
    force: str | None = None,
    force_unlock: bool = False,
    report: str | None = None,
    quiet: bool = False,
    resources: dict[str, dict[str, float]] | None = None,
    device: Literal["cpu", "cuda", "auto"] = "cpu",
    wait: Annotated[float, Field(ge=0, le=1440)] = 0.0,
    shard_limit: Annotated[float, Field(ge=LEAST_SHARD_LIMIT)] | None = None,
) -> State[Outcome]:
    """Run what is missing of a study, and draw its report.

    Ends as Failed, with `PointsHaveFailed` as its result, if any point of the study has failed; the
    others are committed all the same.

    Args:
        study: a file, or the name of a shipped study: action-matching, couplings,
            digits, digits-perceptron, digits-transformer, formulations, guidance, peers, posteriors,
            reference, restoration, samplers, schedules, smoke, torus, uniform.
        store: a folder, or ``s3://bucket/prefix``.
        overrides: changes to the study, each ``key.path=value``.
        ray_address: of an existing cluster; without one a local Ray is started.
        workers: of a local Ray; by default as many as there are cores.
        retry_failed: compute points again that failed before.
        force: an expression of the `--where` language; points that satisfy it are computed whatever
            the store says.
        force_unlock: take over a lock of the store whose holder is sure to be gone.
        report: the path of the page (``reports/NAME.html``).
        quiet: nothing on the terminal.
        resources: what a task run asks of Ray, by stage (``generate data``, ``train``, ``sweep``):
            ``num_cpus`` (1 by default), ``num_gpus``, ``memory`` in bytes, or the name of a
            resource of the cluster's own.
        device: where training and sweeping compute: ``cpu``; ``cuda``, a GPU for each unless
            `resources` says otherwise; or ``auto``, that if a node of the cluster has one. Part of
            no id.
        wait: minutes to wait for a store that another run has; without them such a run fails at
            once.
        shard_limit: minutes that a shard may take, before its worker is ended and what hangs in it
            is looked for; by default ten times what is planned, and ten at least.
    """
    from flows.orchestration import run
    from flows.pages import Pages
    from flows.telling import end_told

    pages = Pages()
    changes, requested = tuple(overrides or ()), resources or {}
    request = RunRequest(
        study,
        store,
        changes,
        ray_address,
        workers,
        retry_failed,
        force,
        force_unlock,
        report,
        quiet,
        requested,
        device,
        wait,
        shard_limit,
    )
    try:
        with end_told(request) as tell:
            outcome = run(request, pages)
            tell(outcome)
    except BaseException as error:
        pages.end_with(error)
        raise
    pages.end_with(outcome)
    text = f"{counted(outcome.computed, 'point')} computed, {counted(outcome.trained, 'cell')} trained, "
    text += f"{counted(outcome.committed, 'commit')}"
    if outcome.failed:
        failed = f"{counted(len(outcome.failed), 'point')} failed; {text}"
        return Failed(message=failed, data=PointsHaveFailed(failed, outcome))
    return Completed(message=text, data=outcome)
