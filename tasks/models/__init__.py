"""Models that one can ask oneself, without a study and without a store.

- `of_cell`: a cell with its denoiser; `make`: trained here, or exact;
- `inference`: samples, distances and losses in one line, of functions of one's own too;
- `named`: from names, mappings and objects to components;
- `check`: what a component claims, held against what it does;
- `files`: a model as one file; `cells`: from a stored description to a cell; `needed`: the data
  that it names by their digest.
"""

from __future__ import annotations

from tasks.models.cells import cell_of
from tasks.models.check import Checked, check
from tasks.models.inference import evaluate, load, loss_floor, model, sample
from tasks.models.make import exact, train
from tasks.models.named import dataset, formulation, guidance, metric, sampler, schedule
from tasks.models.needed import CannotBeMade, check_needed, checked_data, places_in
from tasks.models.of_cell import Model, exact_model, trained_model

__all__ = [
    "CannotBeMade",
    "Checked",
    "Model",
    "cell_of",
    "check",
    "check_needed",
    "checked_data",
    "dataset",
    "evaluate",
    "exact",
    "exact_model",
    "formulation",
    "guidance",
    "load",
    "loss_floor",
    "metric",
    "model",
    "places_in",
    "sample",
    "sampler",
    "schedule",
    "train",
    "trained_model",
]
