"""The environment variables of a run: Prefect, Ray and Icechunk offline and quiet, one thread a
worker.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

QUIET_ENVIRONMENT: Mapping[str, str] = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    # Only the console handler: the level of the loggers stays, so that the API receives every line.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_task_oom_retries": "1",  # without a limit, a shard that does not fit into memory is tried for ever
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "GRPC_VERBOSITY": "NONE",
    "ICECHUNK_LOG": "error",
}
"""What keeps Prefect, Ray and Icechunk offline and off the console."""

ONE_THREAD: Mapping[str, str] = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
}
"""One worker, one thread: results then do not depend on how cells are packed, and n workers keep n
cores busy.
"""

FOR_GPUS: Mapping[str, str] = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # else a task that asks for no GPU sees them all
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # before CUDA starts: see `diffusion.devices`
}
"""What workers on machines with GPUs need; on others it is no matter."""


def quiet_environment() -> None:
    """Keep Prefect, Ray and Icechunk offline and quiet; call it before the first `import prefect`
    or `import ray`.

    A variable that is already set wins: whoever debugs may ask for the noise. Prefect's log lines
    leave the console, where our own progress is shown, but still reach its API.
    """
    for name, value in QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextmanager
def temporary_environment(updates: Mapping[str, str | None]) -> Iterator[None]:
    """Set variables for the duration of a block, or unset them (None), and put back what was there."""
    before = {name: os.environ.get(name) for name in updates}
    _set(updates)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
