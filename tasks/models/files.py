"""A cell and its arrays as one safetensors file: the arrays, and as JSON text what they belong to."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from diffusion.datasets import Standardised
from diffusion.datasets.own import OwnPoints, own_points
from diffusion.errors import WrongValue
from tasks.models.cells import CannotBeMade, cell_of
from tasks.plain import Plain
from tasks.plan import Cell

_KEY, _FORM = "diffatlas", 1


def write_model(path: Path, cell: Cell, weights: dict[str, Tensor]) -> None:
    """Write a file; of points of one's own that no weights were trained on, the points.

    Raises:
        WrongValue: a cell that cannot be described.
        OSError: it cannot be written; what was there before is still there.
    """
    arrays = weights
    if not weights and isinstance(own := cell.dataset.law, OwnPoints):
        arrays = {"points": own.points, **({} if own.labels is None else {"labels": own.labels})}
    content = to_bytes(arrays, {_KEY: _described(cell)})
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        beside.write_bytes(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def read_model(path: Path) -> tuple[Cell, dict[str, Tensor]]:
    """The cell and the weights in a file.

    Raises:
        WrongValue: the file is none that `write_model` wrote.
        CannotBeMade: it was made by other versions of its parts than the present ones.
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
    if described.get("form") != _FORM:
        raise CannotBeMade(f"{path} has form {described.get('form')!r}, and this version reads form {_FORM}")
    cell = cell_of(described["cell"])
    if "points" in arrays:
        own = own_points(arrays.pop("points"), arrays.pop("labels", None))
        dataset = cell.dataset
        cell = replace(cell, dataset=replace(dataset, of=own) if isinstance(dataset, Standardised) else own)
    if json.loads(json.dumps(cell.spec)) != described["identity"]:
        identity = json.dumps(described["identity"])
        raise CannotBeMade(f"{path}: {identity} was made by other versions of its parts than the present ones")
    return cell, arrays


def _described(cell: Cell) -> str:
    """What a cell is made of, and by which versions of it."""
    training = cell.training.spec() if cell.training else None
    try:
        made_of = {**cell.spec, "dataset": cell.dataset.spec(), "training": training}
        return json.dumps({"form": _FORM, "cell": made_of, "identity": cell.spec})
    except (TypeError, ValueError) as error:
        raise WrongValue(f"{cell} cannot be written down: {error}") from error
