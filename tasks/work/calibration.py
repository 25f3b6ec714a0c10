"""How fast a device does the work of a study: a few steps of its own networks, measured.

What is measured is kept for a week in the user's cache folder, by the device's model, the code and
the work.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from diffusion.models import Denoiser
from diffusion.randomness import stream
from diffusion.training import TrainedStack, Training, train
from diffusion.training.placement import Placement
from tasks.home import home
from tasks.plan import Cell
from tasks.plan.cost import seconds_per_call, seconds_per_evaluation, seconds_per_example
from tasks.plan.pace import Pace
from tasks.work.code import Code
from tasks.work.data import training_set
from tasks.work.placing import device_of_worker, label
from tasks.work.stacks import member_of, models_of

_FEW, _MANY = 4, 44  # steps; what is done once for a stack is in both
_CALLS = 5
_LEAST = 1e-9  # seconds, of what a clock cannot tell from nothing
_KEPT_SECONDS = 7 * 24 * 3600.0  # a driver, a limit of power or who else uses the device may have changed since


@dataclass(frozen=True)
class Sample:
    """The work of one kind of a plan's cells: one of them, how many stand in a stack, and how many
    samples are asked for at once.
    """

    cell: Cell
    members: int
    samples: int


def paces_on(device: str, kinds: Mapping[str, Sample], code: Code) -> dict[str, Pace]:
    """The pace of each kind on the device that this worker was given; a kind that cannot be measured
    is left out.
    """
    torch.set_num_threads(1)
    place = device_of_worker(device)
    here = (label(place), torch.__version__, repr(code))
    found = {}
    for kind, sample in kinds.items():
        text = repr((*here, kind, sample.members, sample.samples))
        file = home() / "paces" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
        with suppress(Exception):  # a user's data set may raise anything, and memory may run out: then as planned
            found[kind] = _kept(file) or _keep(file, measured(sample, place))
    return found


def measured(sample: Sample, place: torch.device) -> Pace:
    """The pace of one kind of work: what steps of training and answers of the models take, over
    what a plan says of them.

    What is done once for a stack, such as the capture of a graph, is left out.
    """
    cell, members = sample.cell, sample.members
    if cell.training is not None:
        training, model = _training(sample, cell.training, place)
    else:
        training, model = 1.0, models_of([cell] * members, {}, place)([cell] * members)
    if not isinstance(model, Denoiser):
        return Pace(training, training)
    x = torch.randn(members, sample.samples, cell.dataset.dim, generator=stream("calibration"), dtype=torch.float64)
    x, one = x.to(place), torch.ones(members, dtype=torch.float64, device=place)
    with torch.inference_mode():
        for _ in range(2):
            model(x, one, one)
        asked = _seconds(lambda: [model(x, one, one) for _ in range(_CALLS)], place) / _CALLS
    planned = members * (sample.samples * seconds_per_evaluation(cell) + seconds_per_call(cell))
    return Pace(training, max(asked, _LEAST) / planned)


def _training(sample: Sample, settings: Training, place: torch.device) -> tuple[float, object]:
    """The pace of training, and the models that it leaves."""
    data = torch.as_tensor(training_set(sample.cell))
    members, sets = [member_of(sample.cell)] * sample.members, [data] * sample.members
    placement = Placement.on(place, sample.members)

    def trained(steps: int) -> TrainedStack:
        return train(members, sets, replace(settings, steps=steps), device=placement)

    trained(_FEW)  # libraries are loaded
    few = _seconds(lambda: trained(_FEW), place)
    begun = time.perf_counter()
    stack = trained(_MANY)
    many = time.perf_counter() - begun  # the losses are on the host in the end
    planned = sample.members * settings.batch * (seconds_per_example(sample.cell) + 2e-7)
    return max(many - few, _LEAST) / (_MANY - _FEW) / planned, stack.model


def _seconds(work: Callable[[], object], place: torch.device) -> float:
    """Until the device has done it."""
    if place.type == "cuda":
        torch.cuda.synchronize(place)
    begun = time.perf_counter()
    work()
    if place.type == "cuda":
        torch.cuda.synchronize(place)
    return time.perf_counter() - begun


def _kept(file: Path) -> Pace | None:
    """What was measured within a week, if it can be read and is a pace."""
    try:
        if time.time() - file.stat().st_mtime > _KEPT_SECONDS:
            return None
        held = json.loads(file.read_text(encoding="utf-8"))
        return Pace(held["train"], held["sweep"])
    except (OSError, ValueError, TypeError, LookupError):
        return None


def _keep(file: Path, pace: Pace) -> Pace:
    """Kept for the next run, where the folder can be written to."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False, encoding="utf-8") as written:
            json.dump(asdict(pace), written)
        Path(written.name).replace(file)
    return pace
