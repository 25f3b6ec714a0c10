"""What becomes of a task run of a shard that ended without an answer: tried again, how often, and
whose fault it was.

What its own work did to it (an exit, a signal, memory) is found out by running it apart. What a
machine did (a lost node, a missing module, other code) is no answer of a point, and is tried on
another node.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ray import exceptions as of_ray
from rich.text import Text

from diffusion.errors import Unavailable
from tasks.work import SweepAnswer, TrainingAnswer
from tasks.work.code import OtherCode
from tasks.work.raised import WorkRaised

if TYPE_CHECKING:
    from tasks.plan import Shard

TRIES = 3
"""Task runs of a shard that machines may lose before the run does without it."""

_LETTERS = 300  # of what an error says
_OF_MACHINES = (
    OtherCode,
    of_ray.LocalRayletDiedError,
    of_ray.NodeDiedError,
    of_ray.ObjectLostError,  # its owner gone, not fetched, not reconstructed
    of_ray.ObjectStoreFullError,
    of_ray.OutOfDiskError,
    of_ray.RaySystemError,  # among others what was sent cannot be read there
    of_ray.RpcError,
    of_ray.RuntimeEnvSetupError,
    of_ray.TaskUnschedulableError,
)
_NO_MODULE = re.compile(r"No module named '([\w.]+)'")
_LACKED = re.compile(rf"ModuleNotFoundError: {_NO_MODULE.pattern}")
_OF_SERVICES = ("httpcore", "httpx", "prefect")  # packages whose errors tell of the Prefect server


class NotComputed(Unavailable, RuntimeError):
    """Machines were lost so often that shards have no answer; all others are committed."""

    kind = "not-computed"


class NothingEnded(Exception):
    """Ray has not ended any task run for longer than the longest may take."""


@dataclass(frozen=True)
class Attempt:
    """A task run of a stage of a shard, and those that it follows."""

    number: int  # of the shard, in this run
    shard: Shard
    apart: bool = False
    lost: int = 0  # task runs that machines have ended
    ends: tuple[str, ...] = ()  # why those before have ended
    nodes: tuple[str, ...] = ()  # that it was sent to after a machine's fault, the present one last

    def after(self, reason: str, *, machine: bool, training: bool) -> list[Attempt]:
        """What to try when this one has ended without an answer; nothing if that was all that there
        is to try.
        """
        ends = (*self.ends, reason)
        if machine:
            tried = replace(self, apart=True, lost=self.lost + 1, ends=ends)
            return [tried] if tried.lost < TRIES else []
        if not self.apart:
            return [replace(self, apart=True, ends=ends)]
        halves = self.shard.halves() if not training or len(self.shard.jobs) > 1 else ()
        return [replace(self, shard=half, ends=ends) for half in halves]


def of_a_machine(error: BaseException) -> bool:
    """Whether a machine or a service is at fault, and not what was computed there.

    What was raised by the work itself arrives as `WorkRaised`, whatever it was; errors of Ray and
    of Prefect's client that arrive as they are were raised around it.
    """
    return any(
        isinstance(one, (*_OF_MACHINES, NothingEnded))
        or type(one).__module__.partition(".")[0] in _OF_SERVICES
        or _lacked(one) is not None
        for one in _causes(error)
    )


def module_lacked(answer: TrainingAnswer | SweepAnswer) -> ModuleNotFoundError | None:
    """The error of a module that a worker missed where it was needed, within a class of somebody's
    own, and that this process has: then the answer is one of the machine, and of no point.
    """
    reasons = [point.error or "" for point in answer.points] + [cell.error or "" for cell in answer.cells]
    reasons += answer.unanswered if isinstance(answer, SweepAnswer) else ()
    for name in dict.fromkeys(name for reason in reasons for name in _LACKED.findall(reason)):
        if _is_here(name):
            return ModuleNotFoundError(f"No module named {name!r}", name=name)
    return None


def of_other_code(error: BaseException) -> bool:
    """Whether a worker refused itself."""
    return any(isinstance(one, OtherCode) for one in _causes(error))


def reason_of(error: BaseException) -> str:
    """Why there is no answer, on one line; Ray's files, which go with it, are not named."""
    if lacked := next((name for name in map(_lacked, _causes(error)) if name), None):
        return (
            f"its node lacks a module that the run was started with (No module named {lacked!r}); "
            f"`--allow-plugins {lacked.partition('.')[0]}` sends it, if it is not installed here"
        )
    if isinstance(error, NothingEnded):
        return f"Ray did not answer ({error})"
    while isinstance(cause := getattr(error, "cause", None), BaseException) and cause is not error:
        error = cause  # around which Ray says no more than that there is one
    lines = Text.from_ansi(str(error)).plain.strip().splitlines()
    told = [line for line in lines[:2] if not any(word in line for word in (".log", ".out", "ray logs"))]
    text = " ".join(told)[:_LETTERS]
    if isinstance(error, WorkRaised):  # its text names what it was
        return f"the worker ended without an answer ({text})"
    return f"the worker ended without an answer ({type(error).__name__}{': ' if text else ''}{text})"


def _lacked(error: BaseException) -> str | None:
    """The module that a machine lacks, if that is what an error says and this process has it."""
    if isinstance(error, of_ray.RaySystemError):  # what was sent could not be read
        found = _NO_MODULE.search(str(error))
        name = found.group(1) if found else None
    else:
        name = error.name if isinstance(error, ModuleNotFoundError) else None
    return name if _is_here(name) else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    following: object = error
    while isinstance(following, BaseException) and following not in seen:
        yield following
        seen.append(following)
        following = getattr(following, "cause", None) or following.__cause__


def _is_here(module: str | None) -> bool:
    """Whether this process can import a module that another one lacks, as far as that is known
    without importing one.
    """
    if not module:
        return False
    while (package := module.rpartition(".")[0]) and package not in sys.modules:
        module = package  # to look into it is to import it
    try:
        return importlib.util.find_spec(module) is not None
    except Exception:  # noqa: BLE001 - of a finder, or of a module that is no more than a name here
        return False
