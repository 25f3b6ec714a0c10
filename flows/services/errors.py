"""What a run says when a service that it needs is not there."""

from diffusion.errors import Unavailable

ANSWER_SECONDS = 10.0
"""How long a configured service may take to answer before we call it unavailable."""


class ServiceUnavailable(Unavailable, RuntimeError):
    """A service that the run needs does not answer or does not start; the text says what to do."""

    kind = "service-unavailable"
