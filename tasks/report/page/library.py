"""plotly.js as the page has it inside: compressed, a third of its size; the browser unpacks it."""

from __future__ import annotations

import base64
import gzip
from functools import cache


@cache
def packed_plotly() -> str:
    """The plotly.js of plotly's Python package, through gzip and base64."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()
