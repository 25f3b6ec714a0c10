"""Stored cells as models again.

model = open_model("results", cell_id)         # of data in a file: where it still is, and unchanged
model.denoise(x, sigma)                        # E[x_0 | x_0 + sigma eps = x]
model.sample("heun", steps=18, n=1000)         # the bits that the sweep stored, if it asked the same
model.elbo(x)                                  # of a chain, or of an autoencoder: reconstruction, consistency, prior
model.log_likelihood(x)                        # by the probability flow, of points at the schedule's t_min
model.decode(z)                                # of an autoencoder
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from diffusion.datasets import Dataset
from diffusion.formulations import Untrained
from diffusion.models import Denoiser
from tasks.models import (
    CannotBeMade,
    Model,
    cell_of,
    check_needed,
    checked_data,
    exact_model,
    places_in,
    trained_model,
)
from tasks.plan import ENGINE_VERSION
from tasks.results.read import Answers
from tasks.store import NotStored, Store
from tasks.work import stack_of


def open_model(
    store: str, cell_id: str, as_of: str | None = None, data: Dataset | Sequence[Dataset] | None = None
) -> Model:
    """The denoiser of a stored cell.

    Of points in files a store holds the digest, and the studies in it tell where the files were:
    they are read there again.

    Args:
        store: its address.
        cell_id: the cell, as `open_results` has it.
        as_of: a snapshot, a tag or a time; None: the newest.
        data: data sets of files, ``dataset("from_file", path=...)``, if those that the model was
            made for have moved.

    Raises:
        NotStored: the store does not hold the cell or its weights.
        CannotBeMade: the versions of its components are not those of this code, or the points of a
            file are no longer where they were.
        WrongValue: data that the model was not made for.
    """
    given = checked_data(data)
    model = model_of(Answers(Store.open(store), None, as_of), cell_id, given)
    check_needed(model.cell, given)
    return model


def model_of(answers: Answers, cell_id: str, data: Sequence[Dataset] = ()) -> Model:
    """The same of what is open already. Raises as `open_model` does."""
    if cell_id not in answers.cell_specs:
        raise NotStored(f"store {answers.provenance['store']} holds no cell {cell_id!r}")
    places = places_in(lambda: (answers.described(name)[0] for name in answers.studies))
    cell = cell_of(answers.cell_specs[cell_id], data, places)
    if cell.id != cell_id:
        raise CannotBeMade(
            f"cell {cell_id}: {json.dumps(answers.cell_specs[cell_id])} was made by other versions of its parts than the "
            f"present ones (engine {ENGINE_VERSION}); diffatlas history --json tells which revision committed it"
        )
    if cell.exact or isinstance(cell.formulation, Untrained):
        return exact_model(cell)
    return trained_model(cell, stack_of([cell], [answers.weights(cell_id)]))


class ModelledAnswers(Answers):
    """The answers of a store with the denoisers that gave them: what a page asks for."""

    def model(self, cell_id: str) -> Model | None:
        """The denoiser of a cell; None where it is not stored, gives none, or is not made by the
        present code.
        """
        try:
            found = model_of(self, cell_id)
        except (NotStored, CannotBeMade):
            return None
        return found if issubclass(found.formulation.gives, Denoiser) else None
