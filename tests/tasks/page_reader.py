"""A page as a browser would read it."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import plotly.graph_objects as go

from tasks.plain import Plain, Spec


class Page(HTMLParser):
    """What a browser would make of the page: attributes, the text that is read, and the pictures'
    specifications.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.styles: list[str] = []
        self.scripts: list[str] = []
        self.specs: list[Spec] = []
        self.ids: list[str] = []
        self._within: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        self.ids += [value for key, value in attrs if key == "id" and value is not None]
        if tag in {"script", "style"}:
            self._within.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in {"script", "style"}:
            self._within.pop()

    def handle_data(self, data: str) -> None:
        if not self._within:
            self.words.append(data)
        elif self._within[-1][0] == "style":
            self.styles.append(data)
        elif self._within[-1][1].get("type") == "application/json":
            self.specs.append(json.loads(data))
        else:
            self.scripts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def check_with_plotly(spec: Spec) -> None:
    """Plotly's own validation, with tokens of colours replaced as the page does."""

    def painted(value: Plain, key: str = "") -> Plain:
        if key == "colorscale":
            return "Blues"
        if isinstance(value, dict):
            return {k: painted(v, k) for k, v in value.items() if k != "meta"}
        if isinstance(value, list):
            return [painted(v) for v in value]
        return "#123456" if key.endswith("color") and isinstance(value, str) and value.startswith("@") else value

    go.Figure(painted(spec))


def pictures_of(html: str) -> dict[str, list[Spec]]:
    """The pictures' specifications by title."""
    found: dict[str, list[Spec]] = {}
    for title, spec in re.findall(r'<h5>(.*?)</h5>.*?<script type="application/json">(.*?)</script>', html, re.DOTALL):
        found.setdefault(title, []).append(json.loads(spec))
    return found


def sections_of(html: str) -> list[str]:
    """The headings of its sections."""
    return re.findall(r"<h3>(.*?)</h3>", html)


def unpacked(array: dict[str, str]) -> np.ndarray:
    """A packed array of a picture, in its shape."""
    values = np.frombuffer(base64.b64decode(array["bdata"]), np.uint8 if array["dtype"] == "u1" else "<f4")
    return values.reshape([int(part) for part in array["shape"].split(", ")]) if "shape" in array else values
