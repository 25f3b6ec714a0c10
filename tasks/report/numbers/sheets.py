"""Images side by side: how those of a data set are laid out.

All sheets of a data set share one range of values, that of the data: what lies outside is shown at
its end, as a viewer would, and so sheets can be compared by eye. Channels are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.report.numbers.kept import Kept

if TYPE_CHECKING:
    from tasks.report.lookup.targets import Target

Array = NDArray[np.float64]
SIDE = 5  # images of a sheet across and down: of ten labels asked for in turn, each has its column
_MOST_PIXELS = 192  # of a sheet across: larger images are shown in smaller numbers
_FROM_TARGET = 512


@dataclass(frozen=True)
class Sheets:
    """How the images of a data set are laid out: their shape, how many across, and the values that
    are darkest and lightest.
    """

    shape: tuple[int, int, int]
    across: int
    low: float
    high: float
    data: Array | None  # the target's own, [n, dim]

    def tiled(self, values: Array, across: int) -> Array:
        """Images ``[n, dim]`` side by side, `across` in a row, one pixel apart: shares of the
        range, NaN between.
        """
        channels, height, width = self.shape
        images = values.reshape(-1, channels, height, width).mean(1)
        down = -(-len(images) // across)
        with np.errstate(all="ignore"):
            shares = np.clip((images - self.low) / (self.high - self.low), 0, 1)
        sheet = np.full((down, height + 1, across, width + 1), np.nan)
        places = np.arange(len(images))
        sheet[places // across, :height, places % across, :width] = shares
        found: Array = sheet.reshape(down * (height + 1), across * (width + 1))[:-1, :-1]
        return found

    def first(self, values: Array) -> Array:
        """The sheet of the first images of a run."""
        return self.tiled(values[: self.across**2], self.across)


def sheets_of(target: Target, kept: Sequence[Kept], shape: tuple[int, int, int]) -> Sheets:
    """The layout for a data set: of its own images, or of the samples of the largest step counts
    where they are not known.
    """
    data = target.sample(_FROM_TARGET)
    shown = data if data is not None else np.concatenate([one.values[max(one.values)] for one in kept])
    shown = shown[np.isfinite(shown)]
    low, high = np.quantile(shown, [0.001, 0.999]).tolist() if len(shown) else (0.0, 1.0)
    across = min(SIDE, max(1, _MOST_PIXELS // (max(shape[1:]) + 1)))
    return Sheets(shape, across, low, high if high > low else low + 1.0, data)
