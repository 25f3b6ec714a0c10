"""Labels as people read them: a component's name, with parameters only where they tell something.

A point's label has every parameter that differs from its default, which makes some of them long. On
the page a long label (`LONGEST`) loses the parameters that all labels of its name share; if it is
the only one of its name, it loses all. What was left out stands once, in the page's list of names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffusion.registry import Component
from tasks.report.lookup.requested import Described

if TYPE_CHECKING:
    from tasks.report.lookup.points import Row

LONGEST = 28


@dataclass(frozen=True)
class Part:
    """One component of a label: what joins it to the one before, its name, and the parameters that
    differ from their defaults.
    """

    name: str
    parameters: tuple[str, ...] = ()
    joint: str = ""

    def spelled(self, but: Iterable[str] = ()) -> str:
        """The part as labels have it, but for some of its parameters."""
        left = [parameter for parameter in self.parameters if parameter not in but]
        return f"{self.joint}{self.name}" + (f"({','.join(left)})" if left else "")


def labels_of(rows: Iterable[Row]) -> dict[str, dict[str, tuple[Part, ...]]]:
    """The parts of every label, by kind: dataset, formulation, schedule and sampler.

    A label that a component has by a rule of its own, or whose component cannot be made here, is
    one part without parameters.
    """
    found: dict[str, dict[str, tuple[Part, ...]]] = {}
    different = {
        (row.dataset, row.formulation, row.schedule, row.sampler, id(row.requested)): row for row in reversed([*rows])
    }
    for row in reversed(different.values()):  # of rows that ask the same, the first: in the order of the rows
        requested = row.requested
        guidance = requested.guidance.component if requested.guidance else None
        known = Part(guidance.condition(), joint=" | ") if guidance else None
        for kind, label, parts in (
            ("dataset", row.dataset, (_part(requested.dataset), known)),
            ("formulation", row.formulation, (_part(requested.formulation),)),
            ("schedule", row.schedule, (_part(requested.schedule),)),
            (
                "sampler",
                row.sampler,
                (_part(requested.sampler), _part(requested.guidance, " | "), _part(requested.other_schedule, " on ")),
            ),
        ):
            of_kind = found.setdefault(kind, {})
            given = tuple(part for part in parts if part is not None)
            if "".join(part.spelled() for part in given) == label:
                of_kind[label] = given
            else:
                of_kind.setdefault(label, (Part(label),))
    return found


def _part(described: Described[Component] | None, joint: str = "") -> Part | None:
    if described is None or described.component is None:
        return None
    return Part(described.name, described.component.differences(), joint)


def short_labels(labels: Mapping[str, tuple[Part, ...]]) -> dict[str, str]:
    """For each label of one kind, given with its parts, what the page calls it; different labels
    stay different.

    >>> short_labels({"denoising(parametrization=v,weighting=simple)": (Part("denoising", ("parametrization=v", "weighting=simple")),)})
    {'denoising(parametrization=v,weighting=simple)': 'denoising'}
    """
    alike: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    for parts in labels.values():
        for part in parts:
            alike.setdefault((part.joint, part.name), []).append(part.parameters)
    shared = {key: set(own[0]).intersection(*own[1:]) for key, own in alike.items()}
    found = {
        label: label
        if len(label) <= LONGEST
        else "".join(part.spelled(but=shared[part.joint, part.name]) for part in parts)
        for label, parts in labels.items()
    }
    shorts = list(found.values())
    return {label: short if shorts.count(short) == 1 else label for label, short in found.items()}
