"""How far restored samples are from the clean ones that they were observed from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from diffusion.metrics.base import PairedMetric, metrics


@metrics.register(
    "restoration-error",
    formula="mean over samples and coordinates of |x_restored - x|^2; floor: that of E[x | y]",
    source="Blau & Michaeli, The Perception-Distortion Tradeoff, CVPR 2018 (distortion); Delbracio & Milanfar, TMLR 2023, section 4",
    document="S2 section 2.9",
)
@dataclass(frozen=True)
class RestorationError(PairedMetric):
    """Mean squared error of each restored sample against its own clean original, per coordinate.

    Its floor is the error of the posterior mean, which one step of `indi` reaches; a draw from the
    posterior has twice that. Together with a distance between laws (`energy`, `sliced-w2`) it shows
    the trade between distortion and perception as steps grow.
    """

    axis_label: ClassVar[str] = "mean squared error against the clean original"

    def _measure(self, samples: Tensor, clean: Tensor) -> float:
        return float((samples - clean).square().mean())

    def _floor(self, least_error: float, dim: int) -> float:
        return least_error / dim
