"""The public face of diffatlas: stored answers, running studies, and the mathematics in a few
lines.

    import diffatlas as da

    points = da.open_results("results", study="uniform")  # stored answers, labelled
    da.run("uniform", store="results")  # what `diffatlas run uniform` does

    x = da.sample(denoiser, "heun", steps=18, n=10_000, dim=2)  # any f(x [n, dim], sigma)
    model = da.train("eight_gaussians", "edm", steps=3000)  # .sample .denoise .score .log_likelihood
    da.evaluate(x, "eight_gaussians", ["energy"])  # value and floor of each metric

Importing this file imports nothing else; a name is looked up in its room when it is first used.
What reads stored answers needs neither torch nor Prefect nor Ray; the mathematics needs no Prefect,
no Ray and no store.

- *Names* are those of `catalog`, or ``package.module:Class`` for one's own. Wherever a name is
  accepted, so is ``{"name": ..., parameter: ...}``, an object, and a class of one's own.
- A *target* is a data set by name, mapping or object, or points of one's own: a tensor or an array
  ``[n, dim]``, on the line also ``[n]``.
- What cannot be right is refused by a `DiffatlasError`, most often a `WrongValue`, which is a
  `ValueError`: one sentence with what was found and what would be accepted.

| | |
|---|---|
| stored answers | `open_results`, `open_samples`, `open_trajectory`, `open_model`, `query`, `compare`, `summary`, `figure`, `export` |
| running | `load_study`, `plan`, `run`, `grow` |
| claims | `check` |
| the mathematics | `sample`, `train`, `exact`, `model`, `load`, `evaluate`, `loss_floor` |
| by name | `catalog`, `dataset`, `schedule`, `sampler`, `formulation`, `guidance`, `metric` |
| own bases | `Dataset`, `SimulatorPosterior`, `Schedule`, `Sampler`, `PathSampler`, `Formulation`, `Guidance`, `Metric`, `Architecture` |
| what a sampler's `step` is given | `Denoiser`, `Level`, `Noise` |
| what else a score is good for | the rooms of `analysis` |
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusion import analysis
    from diffusion.datasets import Dataset, SimulatorPosterior
    from diffusion.errors import DiffatlasError, WrongValue
    from diffusion.formulations import Formulation
    from diffusion.guidance import Guidance
    from diffusion.inference import Score
    from diffusion.metrics import Metric
    from diffusion.models import Denoiser
    from diffusion.networks import Architecture
    from diffusion.samplers import Level, Noise, PathSampler, Sampler
    from diffusion.schedules import Schedule
    from flows.direct import run
    from flows.direct_growth import grow
    from tasks.compare import Comparison, compare, summary
    from tasks.figures import figure
    from tasks.models import (
        Checked,
        Model,
        check,
        dataset,
        evaluate,
        exact,
        formulation,
        guidance,
        load,
        loss_floor,
        metric,
        model,
        sample,
        sampler,
        schedule,
        train,
    )
    from tasks.plan import Plan
    from tasks.query import query
    from tasks.results.beside import HeldElsewhere
    from tasks.results.beside import planned as plan
    from tasks.results.export import export_store as export
    from tasks.results.models import open_model
    from tasks.results.read import open_results, open_samples, open_trajectory
    from tasks.study import Study
    from tasks.study.catalogue import catalogue as catalog
    from tasks.study.typed import load_study

__all__ = [
    "Architecture",
    "Checked",
    "Comparison",
    "Dataset",
    "Denoiser",
    "DiffatlasError",
    "Formulation",
    "Guidance",
    "HeldElsewhere",
    "Level",
    "Metric",
    "Model",
    "Noise",
    "PathSampler",
    "Plan",
    "Sampler",
    "Schedule",
    "Score",
    "SimulatorPosterior",
    "Study",
    "WrongValue",
    "analysis",
    "catalog",
    "check",
    "compare",
    "dataset",
    "evaluate",
    "exact",
    "export",
    "figure",
    "formulation",
    "grow",
    "guidance",
    "load",
    "load_study",
    "loss_floor",
    "metric",
    "model",
    "open_model",
    "open_results",
    "open_samples",
    "open_trajectory",
    "plan",
    "query",
    "run",
    "sample",
    "sampler",
    "schedule",
    "summary",
    "train",
]

_WHERE = {
    "analysis": "diffusion.analysis",
    "Architecture": "diffusion.networks:Architecture",
    "Checked": "tasks.models:Checked",
    "Comparison": "tasks.compare:Comparison",
    "Dataset": "diffusion.datasets:Dataset",
    "Denoiser": "diffusion.models:Denoiser",
    "DiffatlasError": "diffusion.errors:DiffatlasError",
    "Formulation": "diffusion.formulations:Formulation",
    "Guidance": "diffusion.guidance:Guidance",
    "HeldElsewhere": "tasks.results.beside:HeldElsewhere",
    "Level": "diffusion.samplers:Level",
    "Metric": "diffusion.metrics:Metric",
    "Model": "tasks.models:Model",
    "Noise": "diffusion.samplers:Noise",
    "PathSampler": "diffusion.samplers:PathSampler",
    "Plan": "tasks.plan:Plan",
    "Sampler": "diffusion.samplers:Sampler",
    "Schedule": "diffusion.schedules:Schedule",
    "Score": "diffusion.inference:Score",
    "SimulatorPosterior": "diffusion.datasets:SimulatorPosterior",
    "Study": "tasks.study:Study",
    "WrongValue": "diffusion.errors:WrongValue",
    "catalog": "tasks.study.catalogue:catalogue",
    "check": "tasks.models:check",
    "compare": "tasks.compare:compare",
    "dataset": "tasks.models:dataset",
    "evaluate": "tasks.models:evaluate",
    "exact": "tasks.models:exact",
    "export": "tasks.results.export:export_store",
    "figure": "tasks.figures:figure",
    "formulation": "tasks.models:formulation",
    "grow": "flows.direct_growth:grow",
    "guidance": "tasks.models:guidance",
    "load": "tasks.models:load",
    "load_study": "tasks.study.typed:load_study",
    "loss_floor": "tasks.models:loss_floor",
    "metric": "tasks.models:metric",
    "model": "tasks.models:model",
    "open_model": "tasks.results.models:open_model",
    "open_results": "tasks.results.read:open_results",
    "open_samples": "tasks.results.read:open_samples",
    "open_trajectory": "tasks.results.read:open_trajectory",
    "plan": "tasks.results.beside:planned",
    "query": "tasks.query:query",
    "run": "flows.direct:run",
    "sample": "tasks.models:sample",
    "sampler": "tasks.models:sampler",
    "schedule": "tasks.models:schedule",
    "summary": "tasks.compare:summary",
    "train": "tasks.models:train",
}
_ALSO = {"open_results": "tasks.accessor"}  # which gives datasets of points their `atlas`


if not TYPE_CHECKING:  # or every name would pass for one that is there

    def __getattr__(name: str) -> Any:
        """What is public, imported when it is first asked for."""
        if name not in _WHERE:
            raise AttributeError(f"module 'diffatlas' has no attribute {name!r} (it has: {', '.join(__all__)})")
        room, _, attribute = _WHERE[name].partition(":")
        found: Any = importlib.import_module(room)
        if attribute:
            found = getattr(found, attribute)
        if name in _ALSO:
            importlib.import_module(_ALSO[name])
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if __name__ == "__main__":  # ``python -m diffatlas`` is ``diffatlas``
    from flows.command_line import main

    main()
