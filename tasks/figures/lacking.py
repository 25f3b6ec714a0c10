"""What a figure says when a store has not what it shows."""

from __future__ import annotations

from diffusion.errors import WrongInput


class FigureLacksData(WrongInput, LookupError):
    """A store that has not what a figure shows."""

    kind = "figure-lacks-data"
