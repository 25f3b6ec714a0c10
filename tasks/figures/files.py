"""Figures as files, the same bytes each time: no date is written and no id is random. What a figure
is of, its label, is the file's title.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.animation import FFMpegWriter, PillowWriter

from diffusion.errors import Unavailable, WrongValue

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from matplotlib.animation import AbstractMovieWriter
    from matplotlib.figure import Figure

STILLS = ("svg", "pdf", "png")
MOVING = ("gif", "mp4")
_UNDATED: Mapping[str, Mapping[str, None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
_DOTS = 110  # an inch of a movie: a gif of every pixel of paper would be large


def ending_of(path: str | Path, *, moves: bool) -> str:
    """The ending of a file, checked before anything is drawn.

    Raises:
        WrongValue: No figure can have that ending, or a figure that does not move cannot.
        Unavailable: mp4, and no ffmpeg.
    """
    ending = Path(path).suffix.lower().removeprefix(".")
    if ending not in STILLS + MOVING:
        raise WrongValue(f"{path}: found the ending {ending!r}; accepted: {', '.join(STILLS + MOVING)}")
    if ending in MOVING and not moves:
        raise WrongValue(f"{path}: this figure does not move; accepted: {', '.join(STILLS)}")
    if ending == "mp4":
        _ffmpeg()
    return ending


def write_still(figure: Figure, path: Path, ending: str) -> None:
    """Write one picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "diffatlas", "svg.fonttype": "path", "pdf.fonttype": 42}):
        titled = {"Title": str(figure.get_label())} if figure.get_label() else {}
        figure.savefig(path, format=ending, metadata={**_UNDATED[ending], **titled})


def write_film(figure: Figure, shown: Iterable[object], path: Path, ending: str, per_second: int) -> None:
    """Write a picture as often as `shown` has changed it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer: AbstractMovieWriter
    with mpl.rc_context():
        if ending == "mp4":
            mpl.rcParams["animation.ffmpeg_path"] = _ffmpeg()
            # an even number of pixels, which players ask for
            even = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", "-fflags", "+bitexact"]
            writer = FFMpegWriter(fps=per_second, codec="libx264", extra_args=even, metadata={})
        else:
            writer = PillowWriter(fps=per_second)
        with writer.saving(figure, str(path), _DOTS):
            for _ in shown:
                writer.grab_frame()


def _ffmpeg() -> str:
    """Where ffmpeg is: the machine's, or that of the extra.

    Raises:
        Unavailable: There is none.
    """
    if found := shutil.which("ffmpeg"):
        return found
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        return str(get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        raise Unavailable(
            "mp4 needs ffmpeg, which is not here: pip install 'diffatlas[video]', or write a gif"
        ) from None
