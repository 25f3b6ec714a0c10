"""Faults of docs/faults.md, as what hurts a run of a small study: a row of the table of
`tests.faults.rounds`.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.kit import Round, RoundFailed, Run
from tests.tasks.test_code import copied

STUDY = """
name: rounds
datasets: [uniform]
grids:
  - {formulations: [edm]}
  - {formulations: [ddpm], training: {width: 16}}ALONE
seeds: 2
training: {steps: STEPS, batch: 64, width: 32, depth: 2, data: 2000}
samplers: [heunOWN]
steps: [2]
samples: 300
metrics: [w1]
""".replace("STEPS", "9000")


def study_of(row: Fault | None) -> str:
    """The study of a fault, or the one without any."""
    own = row.own if row else ""
    alone = f"\n  - {{formulations: [{{name: exact, schedule: edm}}], samplers: ['{own}'], seeds: [0]}}"
    among = row is None or not row.alone
    return STUDY.replace("ALONE", "" if among else alone).replace("OWN", f", '{own}'" if own and among else "")


OWN = '''
import os, time
from dataclasses import dataclass
from diffusion.samplers import Heun, Sampler

@dataclass(frozen=True)
class Deadly(Sampler):
    """Ends its worker."""
    def step(self, denoiser, x, now, then, noise):
        os._exit(137)

@dataclass(frozen=True)
class Hanging(Sampler):
    """Never returns."""
    def step(self, denoiser, x, now, then, noise):
        time.sleep(10000)

@dataclass(frozen=True)
class Hungry(Sampler):
    """Takes memory until it is ended."""
    def step(self, denoiser, x, now, then, noise):
        taken = []
        for _ in range(60):
            taken.append(bytearray(os.urandom(1)) * (100 << 20))
            time.sleep(0.05)
        time.sleep(20)
        raise AssertionError("6 GB were not too much")
'''
BESIDE = "from diffusion.samplers import Heun\n"
HELPED = '''
from dataclasses import dataclass
from beside_rounds import Heun

@dataclass(frozen=True)
class Helped(Heun):
    """Heun's rule, of a module that needs another one."""
'''
LATE = '''
from dataclasses import dataclass
from diffusion.samplers import Heun

@dataclass(frozen=True)
class Late(Heun):
    """Heun's rule, of a class that needs another module when it is used."""
    def step(self, *given):
        import beside_rounds
        return super().step(*given)
'''

MODULES = {"own_rounds": OWN, "helped_rounds": HELPED, "late_rounds": LATE}


@dataclass(frozen=True)
class Fault:
    """A row of the table."""

    about: str
    hurt: Callable[[Round], Run]  # starts a run, hurts it, and returns it
    codes: tuple[int, ...] = (0,)  # that the hurt run may end with
    said: str = ""  # what it has to say, a regular expression
    own: str = ""  # the sampler that the study has besides
    alone: bool = False  # it answers one question, of an exact cell; else one of every cell
    fails: str = ""  # of the points of the own sampler: a regular expression; empty: they are answered
    mends: Callable[[Round], object] | None = None  # before the command is given again
    shown: Callable[[Round], object] | None = None  # looked at when the hurt run has ended


FAULTS: dict[str, Fault] = {}


def fault(name: str, about: str, **more: Any) -> Callable[[Callable[[Round], Run]], Callable[[Round], Run]]:
    def register(hurt: Callable[[Round], Run]) -> Callable[[Round], Run]:
        FAULTS[name] = Fault(about, hurt, **more)
        return hurt

    return register


def training(one: Round, run: Run) -> None:
    """Wait until a worker trains, and a while into it."""
    run.until(lambda: one.processes("ray::train"), "training")
    time.sleep(1.5 * one.jitter)


def kill(one: Round, run: Run, number: int, *words: str) -> None:
    """Send a signal to the first process of the round with one of the words."""
    os.kill(run.until(lambda: one.processes(*words), " or ".join(words))[0], number)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def on_two_nodes(one: Round, *arguments: str) -> Run:
    """A run that two nodes of one core share."""
    address, _ = one.cluster(*[one.environment["PYTHONPATH"]] * 2)
    return one.start("--ray", address, *arguments)


def told_in_full(one: Round) -> None:
    """Prefect's server has all of the run, also what it could not be told at the time."""
    flow_runs = one.ask("flow_runs/filter")
    states = [found["state_type"] for found in flow_runs]
    if states != ["COMPLETED"]:
        raise RoundFailed(f"Prefect's server knows of flow runs in the states {states}")
    pages = {found["key"]: found["data"] for found in one.ask("artifacts/filter")}
    if pages.get("rounds-progress") != 100 or "rounds-summary" not in pages:
        raise RoundFailed(f"Prefect's pages are {sorted(pages)}, progress {pages.get('rounds-progress')}")


@fault("worker-killed", "a worker is ended by SIGKILL", said="try 2: ")
def _(one: Round) -> Run:
    run = on_two_nodes(one)
    training(one, run)
    kill(one, run, signal.SIGKILL, "ray::train")
    return run


@fault("apart-killed", "a worker is ended by SIGKILL, and so is the one that runs its shard apart", said="try 3: ")
def _(one: Round) -> Run:
    run = on_two_nodes(one)
    training(one, run)
    kill(one, run, signal.SIGKILL, "ray::train")
    part = run.until(lambda: one.processes("tasks.work.child"), "part of a shard apart")[0]
    time.sleep(one.jitter)
    with suppress(OSError):  # it has ended already: then the round says that nothing was tried again
        os.kill(parent(part), signal.SIGKILL)
    return run


@fault(
    "worker-exits",
    "an own sampler calls `os._exit`",
    codes=(1,),
    said="try 2: ",
    own="own_rounds:Deadly",
    alone=True,
    fails="exit status 137",
)
def _(one: Round) -> Run:
    return on_two_nodes(one)


@fault(
    "out-of-memory",
    "an own sampler takes memory until Ray ends its worker",
    codes=(1,),
    said="OutOfMemory",
    own="own_rounds:Hungry",
    alone=True,
    fails="OutOfMemory|SIGKILL",
)
def _(one: Round) -> Run:
    memory = dict(re.findall(r"(\w+):\s+(\d+) kB", Path("/proc/meminfo").read_text()))
    total, free = int(memory["MemTotal"]), int(memory["MemAvailable"])
    threshold = (total - free + 3 * 2**20) / total  # 3 GiB more than now
    one.variables |= {"RAY_memory_usage_threshold": f"{threshold:.4f}", "RAY_memory_monitor_refresh_ms": "50"}
    return one.start("--workers", "1")


@fault(
    "hangs",
    "an own sampler never returns",
    codes=(1,),
    said="try 2: ",
    own="own_rounds:Hanging",
    alone=True,
    fails="no answer within",
)
def _(one: Round) -> Run:
    return on_two_nodes(one, "--shard-limit", "1")


@fault("node-killed", "one of two nodes is ended by SIGKILL", said="try 2: ")
def _(one: Round) -> Run:
    address, raylets = one.cluster(*[one.environment["PYTHONPATH"]] * 2)
    run = one.start("--ray", address)
    run.until(lambda: len(one.processes("ray::train")) > 1, "training on both nodes")
    time.sleep(one.jitter)
    node = raylets[int(2 * one.jitter)]
    for pid in [node, *(worker for worker in one.processes("ray::") if parent(worker) == node)]:
        os.kill(pid, signal.SIGKILL)  # a worker without its raylet goes on, and answers
    return run


def two_nodes(one: Round, *, second_has_it: bool, first_has_it: bool = True) -> Run:
    """A run whose own module needs another one, which nodes have or lack."""
    (one.folder / "beside").mkdir()
    (one.folder / "beside" / "beside_rounds.py").write_text(BESIDE)
    without = one.environment["PYTHONPATH"]
    one.paths = (*one.paths, str(one.folder / "beside"))
    has = one.environment["PYTHONPATH"]
    address, _ = one.cluster(has if first_has_it else without, has if second_has_it else without)
    return one.start("--ray", address)


@fault(
    "module-missing",
    "one of two nodes lacks a module that an own one imports",
    said="try 2: .*beside_rounds",
    own="helped_rounds:Helped",
)
def _(one: Round) -> Run:
    return two_nodes(one, second_has_it=False)


@fault(
    "module-missing-late",
    "one of two nodes lacks a module that an own class imports when it is used",
    said="try 2: .*beside_rounds",
    own="late_rounds:Late",
)
def _(one: Round) -> Run:
    return two_nodes(one, second_has_it=False)


@fault(
    "module-missing-everywhere",
    "no node has it; then all have",
    codes=(3,),
    said="not computed: .*beside_rounds",
    own="late_rounds:Late",
    mends=lambda one: one.services.close(),
)
def _(one: Round) -> Run:
    return two_nodes(one, first_has_it=False, second_has_it=False)


@fault("board-killed", "the actor that counts progress is ended by SIGKILL", said="actor that counts progress")
def _(one: Round) -> Run:
    run = on_two_nodes(one)
    training(one, run)
    kill(one, run, signal.SIGKILL, "ray::Board")
    return run


@fault("server-stopped", "Prefect's server is stopped for 15 s", shown=told_in_full)
def _(one: Round) -> Run:
    server = one.own_server()
    run = on_two_nodes(one)
    training(one, run)
    server.send(signal.SIGSTOP)
    time.sleep(15)
    server.send(signal.SIGCONT)
    return run


@fault("server-restarted", "Prefect's server is killed, and started again after 5 s", shown=told_in_full)
def _(one: Round) -> Run:
    server = one.own_server()
    run = on_two_nodes(one)
    training(one, run)
    server.kill()
    time.sleep(5)
    server.start()
    return run


@fault("server-gone", "Prefect's server is killed for good", said="stopped answering: its pages lack")
def _(one: Round) -> Run:
    server = one.own_server()
    run = on_two_nodes(one)
    training(one, run)
    server.kill()
    return run


@fault(
    "code-replaced",
    "our package is upgraded while a run goes on, and Prefect's server and the worker are started again",
    codes=(3,),
    said="not computed: .*has other code .*: diffusion/samplers/ode.py is another one",
)
def _(one: Round) -> Run:
    installed = copied(one.folder / "installed")
    one.root = f"{installed}{os.pathsep}{one.root}"
    server = one.own_server()
    run = one.start("--workers", "1")
    training(one, run)
    server.kill()
    source = installed / "diffusion" / "samplers" / "ode.py"
    source.write_text(source.read_text().replace("class Euler(", "# upgraded\nclass Euler("))
    server.start()
    kill(one, run, signal.SIGKILL, "ray::train")
    return run


@fault("head-killed", "the head of Ray is ended by SIGKILL", codes=(3,), said="The head of the Ray cluster at")
def _(one: Round) -> Run:
    run = on_two_nodes(one)
    training(one, run)
    kill(one, run, signal.SIGKILL, "gcs_server")
    return run


@fault("interrupted", "the run is ended by SIGTERM", codes=(130,), said="interrupted")
def _(one: Round) -> Run:
    run = on_two_nodes(one)
    training(one, run)
    os.kill(run.process.pid, signal.SIGTERM)
    return run


@fault("killed", "the run is ended by SIGKILL", codes=(-signal.SIGKILL,))
def _(one: Round) -> Run:
    run = on_two_nodes(one)
    training(one, run)
    os.kill(run.process.pid, signal.SIGKILL)
    return run
