"""Seconds as people read them."""


def clock(seconds: float) -> str:
    """As minutes and seconds, ``12:05``; from an hour on ``2:03:40``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
