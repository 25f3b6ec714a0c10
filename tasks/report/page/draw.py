"""The page: sections in the order in which a reader asks, rendered by one template.

What is in the file: the text and tables as HTML (readable without scripts), plotly.js once, and
each picture's numbers as JSON beside its place. A content-security policy in the page forbids every
connection, so "opens without a network" is kept by the browser and not by our good intentions.
Pictures are drawn when they come into sight; with ``#all`` after the address everything is unfolded
and drawn at once.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from tasks.messages import counted
from tasks.plain import Spec
from tasks.report.numbers import claims, evidence
from tasks.report.numbers.across import across
from tasks.report.numbers.answer import answer_of
from tasks.report.numbers.comparisons import WORTH
from tasks.report.numbers.curves import tabulate
from tasks.report.numbers.findings import BEYOND, failures, not_numbers
from tasks.report.numbers.nearness import FACTOR
from tasks.report.numbers.published import ALGORITHMS, SOURCE, beside_published
from tasks.report.page.datasets import of_dataset
from tasks.report.page.frame import commands, legend, missing_points, summary, warnings
from tasks.report.page.library import packed_plotly
from tasks.report.page.tables import matrix
from tasks.report.pictures.answer import answer_picture
from tasks.report.pictures.decomposition import WORDS
from tasks.report.pictures.quality import MOST_BANDS
from tasks.report.pictures.ranks import ranks
from tasks.report.pictures.style import DASHES, PALETTE, SYMBOLS
from tasks.report.text import number, plus_minus
from tasks.statistics.decision import LEVEL

if TYPE_CHECKING:
    from tasks.results.models import ModelledAnswers

_PLOTLY = "/* plotly.js */"
_SIGNS = {evidence.HOLDS: "✓", evidence.PART: "◐", evidence.FAILS: "✗", evidence.OPEN: "?"}
_FIELDS = ("point_id", "dataset", "formulation", "schedule", "sampler", "grid", "steps", "seed")


def draw_report(answers: ModelledAnswers) -> str:
    """The report as one HTML document that needs no network.

    Nothing is written and nothing is changed. Whatever is missing (samples, trajectories, losses,
    exact rows, even every answer) leaves its section out, and the page says so at its end.
    """
    table = tabulate(answers)
    data = [of_dataset(answers, table, name) for name in table.datasets]
    weighed = claims.weigh(table)
    missing = missing_points(answers, table)
    found = next((part.measured[0].verdicts for part in data if part.measured), None)
    answer = answer_of(table, found, missing)
    over_all = across(table)
    environment = Environment(
        loader=FunctionLoader(_text), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"numbers": _as_json, "short_name": table.short}
    environment.globals |= {
        "number": number,
        "plus_minus": plus_minus,
        "counted": counted,
        "matrix": matrix,
        "markup": Markup,
    }
    template = environment.get_template("page.html.j2")
    page = template.render(
        study_text=json.dumps(answers.study, indent=2, ensure_ascii=False, default=str),
        name=str(answers.study.get("name", "study")),
        description=str(answers.study.get("description") or ""),
        provenance={str(key): str(value) for key, value in answers.provenance.items()},
        summary=summary(answers, table),
        missing=missing,
        answer=answer,
        across=over_all,
        across_pictures=[ranks(one) for one in over_all],
        first_picture=None if found is None else answer_picture(table, found.best, found.metric),
        table=table,
        legend=legend(table),
        most_bands=MOST_BANDS,
        parts=data,
        warnings=warnings(table),
        published=beside_published(table),
        algorithms=ALGORITHMS,
        source=SOURCE,
        claims=[one for one in weighed if one.verdicts],
        unweighed=[one.claim for one in weighed if not one.verdicts],
        rule={"level": f"{LEVEL:.0%}", "worth": f"{WORTH - 1:.0%}"},
        signs=_SIGNS,
        shortened=[(short, label) for label, short in table.shorts.items() if short != label],
        learned=any(not series.exact for series in table.series),
        words=WORDS,
        failures=failures(table),
        broken=not_numbers(table),
        fields=_FIELDS,
        factor=f"{FACTOR:g}",
        most_beyond=f"{BEYOND:g}",
        slack=f"{FACTOR - 1:g}",
        commands=commands(answers, table),
        notes=[note for part in data for note in part.notes],
        style=Markup(_text("page.css")),  # noqa: S704  # our own files
        script=Markup(_text("page.js")),  # noqa: S704
        dark=Markup(_text("dark.css")),  # noqa: S704
        **_plate(),
    )
    before, _, after = page.rpartition(_PLOTLY)
    return before + packed_plotly() + after


def _text(name: str) -> str:
    return files("tasks.report.page").joinpath(name).read_text(encoding="utf-8")


def _as_json(value: object) -> Markup:
    """JSON that may stand inside a script element: no text of a user can end it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)  # noqa: S704


def _plate() -> Spec:
    """How legend entries are drawn: SVG outlines of plotly's symbols, and dashes."""
    outlines = {
        "circle": "M20 8m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
        "square": "M16.5 4.5h7v7h-7z",
        "diamond": "M20 3l5 5-5 5-5-5z",
        "triangle-up": "M20 3.5l4.8 8h-9.6z",
        "x": "M17 3.6l3 3 3-3 1.4 1.4-3 3 3 3-1.4 1.4-3-3-3 3-1.4-1.4 3-3-3-3z",
        "triangle-down": "M20 12.5l4.8-8h-9.6z",
        "cross": "M18.6 3.5h2.8v3.1h3.1v2.8h-3.1v3.1h-2.8v-3.1h-3.1v-2.8h3.1z",
        "star": "M20 3l1.5 3.3 3.6.4-2.7 2.4.8 3.6-3.2-1.8-3.2 1.8.8-3.6-2.7-2.4 3.6-.4z",
    }
    return {"outlines": {name: outlines[name] for name in SYMBOLS}, "dashes": DASHES, "palette": PALETTE}
