"""How figures look: on paper, on a slide, on a dark screen.

Colours are those of the page (`tasks/report/page/page.css`; a test holds the two together): the
first five stay apart for deuteranopes and protanopes as well. Nothing depends on colour alone:
series differ by marker and dash too. Whatever is written has a font that matplotlib brings along,
so that the same figure is the same file on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure

from diffusion.registry import UnknownName

MARKERS = ("o", "s", "D", "^", "X", "v", "P", "*")
DASHES = ("-", (0, (1, 1.4)), (0, (4, 2)), (0, (8, 2)), (0, (5, 2, 1, 2)), (0, (9, 2, 1, 2)), (0, (3, 1)), (0, (1, 3)))


@dataclass(frozen=True)
class FigureStyle:
    """A way to look.

    Args:
        name: What it is asked for by.
        page: The ground.
        ink: Text and axes.
        muted: What stands back: floors, paths of others.
        accent: What is exact, or marked.
        series: Colours of series, in their order.
        ramp: Colours of a density from nothing to its top.
        narrow: Width of a figure of one panel, inches.
        wide: Width of a figure of several, inches.
        size: Of text, points.
        line: Width of lines, points.
        fonts: Of text, and the family of mathematical signs.
        dpi: Pixels of an inch.
        credited: Whether study and target stand at the right edge; elsewhere they are in the file
            alone, since a paper has captions.
    """

    name: str
    page: str
    ink: str
    muted: str
    accent: str
    series: tuple[str, ...]
    ramp: tuple[str, ...]
    narrow: float
    wide: float
    size: float
    line: float
    fonts: tuple[str, str] = ("DejaVu Sans", "dejavusans")
    dpi: int = 150
    credited: bool = True

    def color(self, style: int) -> str:
        """The colour of a series, by its number."""
        return self.series[style % len(self.series)]

    def marker(self, style: int) -> str:
        """The marker of a series; where colours begin again, markers are shifted by one."""
        return MARKERS[(style + style // len(self.series)) % len(MARKERS)]

    def dash(self, style: int) -> str | tuple[int, tuple[float, ...]]:
        """The dash of a series, for lines without markers."""
        return DASHES[(style + style // len(self.series)) % len(DASHES)]

    @property
    def density(self) -> LinearSegmentedColormap:
        """Colours of a density; nothing is the ground itself."""
        return LinearSegmentedColormap.from_list(f"density-{self.name}", [self.page, *self.ramp])

    @property
    def distance(self) -> LinearSegmentedColormap:
        """Colours of a distance, those of `cividis` that stand out from the ground: near is dark on
        light, and far is bright on dark.
        """
        whole = mpl.colormaps["cividis"]
        part = (0.35, 1.0) if self._dark else (0.0, 0.8)
        colors = whole(np.linspace(*part, 64))
        return LinearSegmentedColormap.from_list(f"distance-{self.name}", colors)

    @property
    def _dark(self) -> bool:
        return sum(to_rgb(self.page)) < sum(to_rgb(self.ink))

    @property
    def grey(self) -> LinearSegmentedColormap:
        """Shades of an image, from the ground to the ink."""
        return LinearSegmentedColormap.from_list(f"grey-{self.name}", [self.page, self.ink])

    def sheet(self, *, height: float, wide: bool = True) -> Figure:
        """An empty figure, its height as a share of its width."""
        width = self.wide if wide else self.narrow
        figure = Figure(figsize=(width, height * width), dpi=self.dpi, facecolor=self.page)
        strip = 1.6 * self._small / 72 / width if self.credited else 0.0
        figure.set_layout_engine("constrained", rect=(0, 0, 1 - strip, 1))
        return figure

    @property
    def _small(self) -> float:
        return 0.6 * self.size

    def credit(self, figure: Figure, text: str) -> None:
        """Write where a figure's numbers are from, small, upwards along its right edge, in the strip
        that `sheet` left for it; what is longer than the edge ends in dots.
        """
        shown = figure.text(
            0.997, 0.01, text, rotation=90, ha="right", va="bottom", fontsize=self._small, color=self.muted
        )
        while shown.get_window_extent().height > 0.98 * figure.bbox.height:
            text = text[:-2]
            shown.set_text(f"{text}…")

    @contextmanager
    def worn(self) -> Iterator[None]:
        """Matplotlib's settings for what is drawn and written meanwhile."""
        with mpl.rc_context(self._settings()):
            yield

    def _settings(self) -> Any:
        family, math = self.fonts
        small, thin = 0.88 * self.size, 0.5 * self.line
        return {
            **{key: value for key, value in mpl.rcParamsDefault.items() if not key.startswith(_OF_THE_SESSION)},
            "font.family": [family],
            "mathtext.fontset": math,
            "font.size": self.size,
            "axes.titlesize": self.size,
            "axes.labelsize": self.size,
            "xtick.labelsize": small,
            "ytick.labelsize": small,
            "legend.fontsize": small,
            "figure.titlesize": self.size,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.linewidth": thin,
            "axes.facecolor": "none",
            "axes.edgecolor": self.muted,
            "axes.labelcolor": self.ink,
            "axes.titlecolor": self.ink,
            "text.color": self.ink,
            "xtick.color": self.muted,
            "ytick.color": self.muted,
            "xtick.labelcolor": self.ink,
            "ytick.labelcolor": self.ink,
            "xtick.major.width": thin,
            "ytick.major.width": thin,
            "xtick.minor.width": 0.7 * thin,
            "ytick.minor.width": 0.7 * thin,
            "lines.linewidth": self.line,
            "lines.markersize": 3.2 * self.line,
            "legend.frameon": False,
            "grid.color": self.muted,
            "hatch.linewidth": 0.35 * self.line,
            "svg.hashsalt": "diffatlas",  # or ids of clip paths would be random
            "svg.fonttype": "path",
            "pdf.fonttype": 42,
        }


_OF_THE_SESSION = (
    "backend",
    "interactive",
    "toolbar",
    "webagg",
    "tk.",
    "keymap",
    "macosx",
    "timezone",
    "date.epoch",
    "savefig.directory",
)
_LIGHT: Mapping[str, Any] = {
    "page": "#ffffff",
    "ink": "#1b1f24",
    "muted": "#5a6470",
    "accent": "#c44e00",
    "series": ("#0065a8", "#a63603", "#009e77", "#d060ac", "#b58900", "#3a98d0", "#43278f", "#5f5f5f"),
    "ramp": ("#9ecae1", "#4292c6", "#08519c", "#08203f"),
}
_DARK: Mapping[str, Any] = {
    "page": "#14171c",
    "ink": "#e6e9ed",
    "muted": "#a0a9b4",
    "accent": "#ffb067",
    "series": ("#3d8bd4", "#ee5f33", "#35d6a4", "#c965a5", "#f5dc6e", "#8fdcff", "#9a6cf5", "#aab0b5"),
    "ramp": ("#14507f", "#1f86b8", "#7cc6b8", "#fbf3a6"),
}
STYLES: Mapping[str, FigureStyle] = {
    style.name: style
    for style in (
        FigureStyle(
            "paper",
            **_LIGHT,
            narrow=3.4,
            wide=7.0,
            size=8,
            line=1.1,
            fonts=("STIXGeneral", "stix"),
            dpi=300,
            credited=False,
        ),
        FigureStyle("slide", **_LIGHT, narrow=8.0, wide=12.0, size=17, line=2.3),
        FigureStyle("dark", **_DARK, narrow=7.0, wide=11.0, size=14, line=2.0),
    )
}


def style_named(name: str) -> FigureStyle:
    """The style of a name.

    Raises:
        UnknownName: There is none.
    """
    if name not in STYLES:
        raise UnknownName("figure style", name, list(STYLES), own=False)
    return STYLES[name]
