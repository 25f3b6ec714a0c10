"""Figures as files, the same bytes each time: no date is written and no id is random."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.animation import FFMpegWriter, PillowWriter

from diffusion.errors import Unavailable, WrongValue
from tasks.figures.movie import Movie

if TYPE_CHECKING:
    from matplotlib.animation import AbstractMovieWriter
    from matplotlib.figure import Figure

STILLS = ("svg", "pdf", "png")
MOVING = ("gif", "mp4")
_UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
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


def save(drawn: Figure | Movie, path: str | Path, *, frame: int = -1) -> Path:
    """Write a figure.

    Args:
        drawn: A figure, or one in motion.
        path: The file, whose ending says what it is; folders on its way are made.
        frame: Which frame of one in motion is written as ``svg``, ``pdf`` or ``png``: the last one,
            unless another is named.

    Returns:
        The path.

    Raises:
        WrongValue: Another ending, or no such frame.
        Unavailable: mp4, and no ffmpeg.
        OSError: The file cannot be written.
    """
    path = Path(path)
    ending = ending_of(path, moves=isinstance(drawn, Movie))
    path.parent.mkdir(parents=True, exist_ok=True)
    if ending in MOVING and isinstance(drawn, Movie):
        _film(drawn, path, ending)
        return path
    still = drawn.still(frame) if isinstance(drawn, Movie) else drawn
    with mpl.rc_context({"svg.hashsalt": "diffatlas", "svg.fonttype": "path", "pdf.fonttype": 42}):
        still.savefig(path, format=ending, metadata=_UNDATED[ending])
    return path


def _film(movie: Movie, path: Path, ending: str) -> None:
    writer: AbstractMovieWriter
    with mpl.rc_context():
        if ending == "mp4":
            mpl.rcParams["animation.ffmpeg_path"] = _ffmpeg()
            # an even number of pixels, which players ask for
            even = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", "-fflags", "+bitexact"]
            writer = FFMpegWriter(fps=movie.per_second, codec="libx264", extra_args=even, metadata={})
        else:
            writer = PillowWriter(fps=movie.per_second)
        with writer.saving(movie.figure, str(path), _DOTS):
            for frame in range(movie.frames):
                movie.still(frame)
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
