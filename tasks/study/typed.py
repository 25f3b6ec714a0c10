"""A study that the person at the terminal, or their program, names: modules beside it are theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusion.plugins import typed
from tasks.study import model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tasks.study import Study


def load_study(source: str | Path, overrides: Sequence[str] = ()) -> Study:
    """The study in a YAML file, or the shipped one of that name, with ``key.path=value`` changes.

    Classes of one's own, ``package.module:Class``, are imported from the working folder and from
    the file's own; from elsewhere if `diffusion.plugins` allows the module.

    Args:
        source: the file, or the name of a shipped study.
        overrides: the changes, such as ``"steps=[1, 2, 4]"``.

    Returns:
        The study, validated.

    Raises:
        StudyError: whatever is wrong with the input: one message with the place of every problem,
            what was found there and what would be accepted.
    """
    with typed(source):
        return model.load_study(source, overrides)
