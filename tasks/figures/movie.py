"""A figure in motion: one matplotlib figure, and what shows each of its frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure

from diffusion.errors import WrongValue
from tasks.figures.files import MOVING, ending_of, write_film, write_still

if TYPE_CHECKING:
    from tasks.figures.style import FigureStyle


@dataclass(frozen=True)
class Movie:
    """A figure in motion.

    Args:
        figure: The figure, which shows one frame at a time.
        frames: How many there are.
        show: Makes the figure show a frame.
        style: How it looks.
        per_second: How many frames pass in a second.
    """

    figure: Figure
    frames: int
    show: Callable[[int], object]
    style: FigureStyle
    per_second: int = 12

    def still(self, frame: int = -1) -> Figure:
        """The figure at a frame, the last one unless another is named; -1 counts from the end.

        Raises:
            WrongValue: There is no such frame.
        """
        if not -self.frames <= frame < self.frames:
            raise WrongValue(
                f"frame: found {frame}; accepted: 0 to {self.frames - 1}, or from the end -1 to -{self.frames}"
            )
        with self.style.worn():
            self.show(frame % self.frames)
            self.figure.draw_without_rendering()  # ticks are made in this style
        return self.figure

    def animation(self) -> FuncAnimation:
        """The same as an animation of matplotlib, which has ``to_jshtml()`` for a notebook."""

        def update(frame: int) -> list[object]:
            self.still(frame)
            return []

        return FuncAnimation(self.figure, update, frames=self.frames, interval=1000 / self.per_second)  # type: ignore[arg-type]

    def save(self, path: str | Path, *, frame: int = -1) -> Path:
        """Write it: all frames as ``gif`` or ``mp4``, one as ``svg``, ``pdf`` or ``png``.

        Raises:
            WrongValue: Another ending, or no such frame.
            Unavailable: mp4, and no ffmpeg.
        """
        return save(self, path, frame=frame)


@contextmanager
def settled(figure: Figure) -> Iterator[None]:
    """Lay a figure out by what it shows at the end of the block, and leave it so: frames that came
    after would make axes jump.
    """
    yield
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


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
    if isinstance(drawn, Movie) and ending in MOVING:
        write_film(drawn.figure, map(drawn.still, range(drawn.frames)), path, ending, drawn.per_second)
    else:
        write_still(drawn.still(frame) if isinstance(drawn, Movie) else drawn, path, ending)
    return path
