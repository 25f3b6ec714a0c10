"""What a section of the page is: a heading, a few words, and panes of pictures of which one is
shown at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.report.pictures.style import Picture

EXACT_TOO = "The same with the exact denoiser"


@dataclass(frozen=True)
class Pane:
    """Pictures, and others that are folded away below them.

    Args:
        name: What the reader selects it by, where a section has several.
        pictures: What is shown, row by row.
        folded: Panes behind a line of text.
        grid: How the pictures stand, a class of ``page.css``; empty for the usual one.
    """

    name: str
    pictures: list[Picture]
    folded: list[tuple[str, Pane]] = field(default_factory=list)
    grid: str = ""

    @property
    def moving(self) -> list[int]:
        """How many frames the pictures have that move."""
        return [len(picture.spec["frames"]) for picture in self.pictures if "frames" in picture.spec]


@dataclass(frozen=True)
class Section:
    """One section.

    Args:
        slug: What its parts are called in the page's source.
        title: Its heading.
        lead: What is to be seen, as HTML of our own: no text of a user stands in it.
        panes: At least one.
        key: What the ends of the scale of colours mean, where the pictures have one in common.
    """

    slug: str
    title: str
    lead: str
    panes: list[Pane]
    key: tuple[str, str] | None = None


def pane_with_exact(trained: list[Picture], exact: list[Picture], grid: str = "") -> Pane:
    """The pictures of trained denoisers with those of exact ones folded away; of the exact ones,
    where nothing was trained.
    """
    folded = [(EXACT_TOO, Pane("", exact, grid=grid))] if trained and exact else []
    return Pane("", trained or exact, folded, grid)
