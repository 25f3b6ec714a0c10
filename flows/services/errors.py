"""What a run says when a service that it needs is not there."""

from diffusion.errors import Unavailable

ANSWER_SECONDS = 10.0
"""How long a configured service may take to answer before we call it unavailable."""


class ServiceUnavailable(Unavailable, RuntimeError):
    """A service that the run needs does not answer or does not start; the text says what to do.

    `remedy` is the command alone, where there is one for just this.
    """

    kind = "service-unavailable"

    def __init__(self, text: str, remedy: str = "") -> None:
        super().__init__(text)
        self.remedy = remedy
