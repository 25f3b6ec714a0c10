"""Models that one can ask oneself, without a study and without a store.

- `model`: a cell with its denoiser; `make`: trained here, or exact; `files`: as one file and back;
- `named`: from names, mappings and objects to components; `cells`: from a stored description to a cell.
"""

from __future__ import annotations

from tasks.models.cells import CannotBeMade, cell_of
from tasks.models.make import exact, train
from tasks.models.model import Model, Named, exact_model
from tasks.models.named import component, target_of

__all__ = [
    "CannotBeMade",
    "Model",
    "Named",
    "cell_of",
    "component",
    "exact",
    "exact_model",
    "target_of",
    "train",
]
