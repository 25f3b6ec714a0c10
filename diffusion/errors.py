"""What can go wrong and is not a mistake in this code: one tree of errors, each with a stable
`kind`.

`WrongInput` is what the caller can put right; `Unavailable` is what stands in the way of a request
that is right. The text of an error says what was found, where, and what would be accepted or what
to do. The text may change; `kind` does not, so programs look at it, or at the class.
"""

from __future__ import annotations

from typing import ClassVar


class DiffatlasError(Exception):
    """What this project refuses, or cannot do, and says so; every error that a user can meet
    derives from it.
    """

    kind: ClassVar[str] = "error"
    """A short name that does not change between versions, unique to the class."""

    def __str__(self) -> str:
        """Return the message as it was written (`KeyError`, a base of some, would put quotes around
        it).
        """
        return str(self.args[0]) if self.args else ""


class WrongInput(DiffatlasError):
    """What was given cannot be used; the same request fails again until it is changed."""

    kind = "wrong-input"


class Unavailable(DiffatlasError):
    """Something that the request needs is missing, in use or damaged; the request itself may be
    right.
    """

    kind = "unavailable"


class WrongValue(WrongInput, ValueError):
    """A parameter, an array or a combination of them that cannot be right."""

    kind = "wrong-value"


class NoExactAnswer(WrongInput, NotImplementedError):
    """A quantity that the target does not have: an exact denoiser or density, a distribution
    function, modes, labels.

    Python's own error of this meaning as well, which who asks any target for it can catch.
    """

    kind = "no-exact-answer"
