"""The metrics of a study, by the columns that their values are stored in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusion.metrics import Metric, metrics
from diffusion.registry import UnknownName
from tasks.study.components import build


def metrics_asked(study: Mapping[str, Any]) -> dict[str, Metric]:
    """Every metric that a study asks for, in its order.

    Args:
        study: The canonical specification.

    Returns:
        The metrics by column; those that are not installed here are left out.
    """
    found: dict[str, Metric] = {}
    for spec in study.get("metrics") or ():
        try:
            metric = build(metrics, spec)
        except (UnknownName, TypeError, ValueError):
            continue
        found[metric.column] = metric
    return found
