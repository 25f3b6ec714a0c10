"""A cell and its arrays as one safetensors file: the arrays, and as JSON text what they belong to."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.datasets.own import OwnPoints, own_points
from diffusion.errors import WrongValue
from diffusion.formulations import Exact
from tasks.models.cells import cell_of
from tasks.models.needed import CannotBeMade, data_in
from tasks.plain import Plain
from tasks.plan import Cell

_KEY = "diffatlas"
_FORM, _NAMED = 1, 2
"""Without points or with those of its target alone; with points under their digests."""


def write_model(path: Path, cell: Cell, weights: dict[str, Tensor]) -> None:
    """Write a file: of points of one's own those that are asked for again, which is what samples
    start from and, where no weights were trained on it, the target.

    Raises:
        WrongValue: a cell that cannot be described.
        OSError: it cannot be written; what was there before is still there.
    """
    held = [*data_in(cell.formulation), *(() if weights else data_in(cell.dataset))]
    points: dict[str, Tensor] = {}
    for own in held:
        if isinstance(own, OwnPoints):
            points[f"points:{own.digest}"] = own.points
            if own.labels is not None:
                points[f"labels:{own.digest}"] = own.labels
    content = to_bytes({**weights, **points}, {_KEY: _described(cell, _NAMED if points else _FORM)})
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        beside.write_bytes(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def read_model(path: Path, data: Sequence[Dataset] = ()) -> tuple[Cell, dict[str, Tensor]]:
    """The cell and the weights in a file. `data` are data sets of files, for those that are no
    longer where they were.

    Raises:
        WrongValue: the file is none that `write_model` wrote.
        CannotBeMade: it was made by other versions of its parts than the present ones, or of points
            in a file that is gone or has changed.
        OSError: there is no such file, or it cannot be read.
    """
    with path.open("rb"):  # what the system refuses, its own error says
        pass
    try:
        with safe_open(path, framework="pt") as file:
            described: Plain = json.loads((file.metadata() or {})[_KEY])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise WrongValue(f"{path} is no model that was saved here ({type(error).__name__})") from error
    if described.get("form") not in (_FORM, _NAMED):
        raise CannotBeMade(f"{path} has form {described.get('form')!r}, and this version reads up to form {_NAMED}")
    own = _taken_out(arrays)
    cell = cell_of(described["cell"], [*own, *data])
    if json.loads(json.dumps(cell.spec)) != described["identity"]:
        identity = json.dumps(described["identity"])
        raise CannotBeMade(f"{path}: {identity} was made by other versions of its parts than the present ones")
    parts = [*data_in(cell.dataset), *data_in(cell.formulation)]
    if not all(one in parts for one in own):
        raise WrongValue(f"{path} is no model that was saved here (its points are not those that it tells of)")
    return cell, arrays


def _taken_out(arrays: dict[str, Tensor]) -> list[OwnPoints]:
    """The points among the arrays, which are left without them: ``points:DIGEST``, in the first form
    ``points``.
    """
    names = [name for name in arrays if name.partition(":")[0] == "points"]
    return [own_points(arrays.pop(name), arrays.pop(name.replace("points", "labels", 1), None)) for name in names]


def _described(cell: Cell, form: int) -> str:
    """What a cell is made of, and by which versions of it; of points in a file, where it lies."""
    training = cell.training.spec() if cell.training else None
    named = cell.formulation
    formulation = named.identity() if isinstance(named, Exact) else named.spec()
    try:
        parts = {"dataset": cell.dataset.spec(), "formulation": formulation, "training": training}
        return json.dumps({"form": form, "cell": {**cell.spec, **parts}, "identity": cell.spec})
    except (TypeError, ValueError) as error:
        raise WrongValue(f"{cell} cannot be written down: {error}") from error
