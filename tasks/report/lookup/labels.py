"""Labels as people read them: a component's name, with parameters only where they tell something.

A point's label has every parameter that differs from its default, which makes some of them long. On the page a long label
(`LONGEST`) loses the parameters that all labels of its name share; if it is the only one of its name, it loses all. What was
left out is told once, in the page's list of names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

LONGEST = 28


def short_labels(labels: Iterable[str]) -> dict[str, str]:
    """For each label of one kind of component what the page calls it; different labels stay different.

    >>> short_labels(["denoising(parametrization=v,weighting=simple,told=angle)", "ddim(eta=0.5)", "ddim"])
    {'denoising(parametrization=v,weighting=simple,told=angle)': 'denoising', 'ddim(eta=0.5)': 'ddim(eta=0.5)', 'ddim': 'ddim'}
    """
    distinct = list(dict.fromkeys(labels))
    parts = {label: _parts(label) for label in distinct}
    found = {}
    for label in distinct:
        name, own, rest = parts[label]
        alike = [parts[other][1] for other in distinct if parts[other][0] == name]
        shared = set(own).intersection(*map(set, alike)) if len(alike) > 1 else set(own)
        kept = [parameter for parameter in own if parameter not in shared]
        told = f"({','.join(kept)})" if kept else ""
        found[label] = label if len(label) <= LONGEST else f"{name}{told}{rest}"
    unique = list(found.values())
    return {label: short if unique.count(short) == 1 else label for label, short in found.items()}


def _parts(label: str) -> tuple[str, list[str], str]:
    """Name, parameters and what follows them (`` on vp-linear``) of a label."""
    name, bracket, inner = label.partition("(")
    if not bracket or " " in name:
        return label, [], ""
    inner, _, rest = _closed(inner)
    return name, list(_split(inner)), rest


def _closed(text: str) -> tuple[str, str, str]:
    """The text up to the bracket that closes it, the bracket, and the rest."""
    depth = 0
    for i, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if depth < 0:
            return text[:i], text[i], text[i + 1 :]
    return text, "", ""


def _split(text: str) -> Iterator[str]:
    """Pieces between commas that are in no bracket."""
    depth, start = 0, 0
    for i, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth == 0:
            yield text[start:i]
            start = i + 1
    yield text[start:]
