"""plotly.js as the page has it inside: the smallest build that draws what is on the page.

Beside this file lies plotly.js' own build for pictures in the plane (``plotly-cartesian.min.js``,
its licence in ``LICENSE``), of the version that plotly's Python package has inside. That package has
the whole of plotly.js only, three times as long: it is taken where something stands in space.
"""

from __future__ import annotations

from importlib.resources import files

_IN_SPACE = ('"type":"scatter3d"', '"type":"surface"')
_IN_THE_PLANE = "plotly-cartesian.min.js"


def plotly_for(page: str) -> str:
    """The script that draws the pictures of a page."""
    if any(kind in page for kind in _IN_SPACE):
        from plotly.offline import get_plotlyjs

        whole: str = get_plotlyjs()
        return whole
    return files("tasks.report.page.bundle").joinpath(_IN_THE_PLANE).read_text(encoding="utf-8")
