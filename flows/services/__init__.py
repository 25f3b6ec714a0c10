"""The two services a run needs, Prefect's API and Ray, found or started and never left behind.

A run starts nothing that is already there: a configured Prefect server or Ray cluster is used as it
is, after a check that it answers. Otherwise one temporary Prefect server and one local Ray are
started, both on 127.0.0.1 only, and they end with us, whatever ends us:

| what happens to us      | the server                               | Ray                                           |
|-------------------------|------------------------------------------|-----------------------------------------------|
| return, exception       | stopped in `finally`                     | `ray.shutdown()` in `finally`, the rest ended |
| SIGINT, SIGTERM, SIGHUP | the same, see `terminate_as_interrupt`   | the same                                      |
| SIGKILL, out of memory  | sees a pipe close and ends within 2 s    | the next start ends what is left of it        |

`server` and `cluster` hold the two services, `token` says whom Ray lets in, `server_process` is the
program of the temporary server, `database` what that begins with, `queues` what is queued for it,
`orphans` what ends the rest of a killed run, `signals` and `environment` what both services need.

Neither `prefect` nor `ray` is imported with this package: both read their environment when
imported, and `quiet_environment` has to come first.
"""

from flows.services.cluster import await_ray, check_ray, ray_cluster, ray_is_ours
from flows.services.environment import quiet_environment
from flows.services.errors import ServiceUnavailable
from flows.services.orphans import end_orphans
from flows.services.server import prefect_server
from flows.services.signals import Terminated, terminate_as_interrupt

__all__ = [
    "ServiceUnavailable",
    "Terminated",
    "await_ray",
    "check_ray",
    "end_orphans",
    "prefect_server",
    "quiet_environment",
    "ray_cluster",
    "ray_is_ours",
    "terminate_as_interrupt",
]
