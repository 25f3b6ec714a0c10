"""The text of a study: YAML 1.2 (core schema), with the line and column of everything.

Only the parser of ruamel.yaml is used, event by event; values are made here. So nothing is ever
constructed from a tag, every value knows its place, and a hostile file costs nothing: tags,
anchors, deep nesting, large files are refused.

Changes from the command line (``--set training.steps=100``) are applied to the plain values, before
validation; what is wrong with them is reported with ``--set`` as the place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from diffusion.errors import WrongInput
from tasks.messages import nearest, note_the_new_name, shown
from tasks.plain import Plain, Spec
from tasks.study.components import Complaint
from tasks.study.components import Path as Keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

SHIPPED = Path(__file__).resolve().parents[2] / "deployments" / "studies"
RENAMED = {"seeds": "documents"}
"""Folders and collections of shipped studies, by what they were once called."""
LARGEST_FILE = 1_000_000  # bytes
DEEPEST = 32
MOST_DIGITS = 400


class StudyError(WrongInput):
    """A study that cannot be used. ``str()`` is the whole message, made for eyes; `problems` has
    one line for each.
    """

    kind = "wrong-study"

    def __init__(self, label: str, problems: Sequence[str]) -> None:
        self.label, self.problems = label, tuple(map(_one_line, problems))
        several = "".join(f"\n  {problem}" for problem in self.problems)
        super().__init__(
            self.problems[0] if len(self.problems) == 1 else f"{label}: {len(self.problems)} problems{several}"
        )

    def __reduce__(self) -> tuple[type[StudyError], tuple[str, tuple[str, ...]]]:
        return type(self), (self.label, self.problems)


def dotted(path: Keys) -> str:
    """``samplers[1].eta``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            key = part if re.fullmatch(r"[\w-]{1,60}", part) else shown(part)
            text += f".{key}" if text else key
    return text


@dataclass
class Document:
    """Plain values and where each of them was written: (line, column) from 1, or the ``--set`` that
    it came from.
    """

    label: str
    values: Plain
    marks: dict[Keys, tuple[int, int] | str] = field(default_factory=dict)

    def _mark(self, path: Keys) -> tuple[int, tuple[int, int] | str | None]:
        for length in range(len(path), -1, -1):
            if path[:length] in self.marks:
                return length, self.marks[path[:length]]
        return 0, None

    def place(self, path: Keys) -> str:
        """``uniform.yaml:7:3, at samplers[1].eta``."""
        length, mark = self._mark(path)
        at = f", at {dotted(path)}" if path else ""
        if mark is None:
            return f"{self.label}{at}"
        if isinstance(mark, str):
            return f"--set {mark}" + (at if len(path) > length else "")
        return f"{self.label}:{mark[0]}:{mark[1]}{at}"

    def error(self, complaints: Iterable[Complaint]) -> StudyError:
        """All complaints in the order of the file, those about ``--set`` last."""

        def order(complaint: Complaint) -> tuple[bool, tuple[int, int]]:
            mark = self._mark(complaint.path)[1]
            return isinstance(mark, str), mark if isinstance(mark, tuple) else (0, 0)

        lines = [f"{self.place(c.path)}: {c.text}" for c in sorted(complaints, key=order)]
        return StudyError(self.label, list(dict.fromkeys(lines)))

    def set(self, override: str) -> None:
        """Apply ``key.path=value``; a list position is written ``samplers[1].eta`` or
        ``samplers.1.eta``.

        A key that a study does not know is set all the same: validation refuses it with the nearest
        one.

        Raises:
            StudyError: the path leads into something that has no such place, or every entry of
                `grids` has its own value, so that nothing would change.
        """
        target, equals, text = override.partition("=")
        label = f"--set {_printable(override)}"
        parts = re.findall(r"[^.\[\]]+", target)
        if not equals or not re.fullmatch(r"[^.\[\]]+(\.[^.\[\]]+|\[[0-9]+\])*", target):
            raise StudyError(label, [f"{label}: expected key.path=value, for example training.steps=100"])
        value, _ = parse(text, label)
        node: Plain = self.values
        path: Keys = ()
        for i, part in enumerate(parts):
            key = self._step(node, path, part, label)
            path = (*path, key)
            if i == len(parts) - 1:
                break
            if isinstance(node, dict) and node.get(key) is None:
                node[key] = {}
                self.marks.setdefault(path, _printable(override))
            if isinstance(node, list) and isinstance(node[int(key)], str):  # a bare name is about to get a parameter
                node[int(key)] = {"name": node[int(key)]}
            node = node[key]
        blocks = self.values.get("grids") if isinstance(self.values, dict) and len(path) == 1 else None
        if isinstance(blocks, list) and blocks and all(_has_its_own(block, key) for block in blocks):
            message = f"every entry of grids has its own {key}, so nothing would change; name one: grids[0].{key}=..."
            raise StudyError(label, [f"{label}: {message}"])
        node[key] = value
        self.marks = {k: m for k, m in self.marks.items() if k[: len(path)] != path} | {path: _printable(override)}

    def _step(self, node: object, path: Keys, part: str, label: str) -> str | int:
        if isinstance(node, dict):
            return part
        where = dotted(path) or "the study"
        if not isinstance(node, list):
            raise StudyError(label, [f"{label}: {where} is {shown(node)}, which has nothing called {shown(part)}"])
        if not re.fullmatch(r"[0-9]{1,6}", part) or int(part) >= len(node):
            message = f"{where} has {len(node)} entries, counted from 0; there is no entry {shown(part)}"
            raise StudyError(label, [f"{label}: {message}"])
        return int(part)


def _has_its_own(block: Plain, key: str | int) -> bool:
    """Whether what a block says of a key takes the place of what the study says."""
    return isinstance(block, dict) and key in block and not isinstance(block[key], dict)


def load(source: str | Path, overrides: Sequence[str] = ()) -> Document:
    """The document that `source` leads to: the path of a YAML file, or the name of a shipped study.

    A string that is a shipped name means the shipped study; any other is a path as it was typed
    (``./uniform`` is one).

    Raises:
        StudyError: there is no such file, it cannot be read, is not YAML or not a mapping, or an
            override leads nowhere.
    """
    path, label = _find(source)
    document = Document(label, *parse(_text(path, label), label))
    if document.values is None:
        raise StudyError(label, [f"{label}: found nothing, expected a study: it begins with `name:`, `datasets:`, ..."])
    if not isinstance(document.values, dict):
        message = (
            f"found {shown(document.values)}, expected `key: value` lines that begin with `name:`, `datasets:`, ..."
        )
        raise document.error([Complaint((), message)])
    for override in overrides:
        document.set(override)
    return document


def shipped_studies() -> list[str]:
    """Names of the studies in ``deployments/studies``; of those in a folder of it with the folder:
    ``documents/slides-torus``.
    """
    return sorted(path.relative_to(SHIPPED).with_suffix("").as_posix() for path in SHIPPED.rglob("*.yaml"))


def shipped_name(source: str | Path) -> str | None:
    """The shipped study that a name means; None if it means none. An old name is noted on stderr
    with the new one.
    """
    if not isinstance(source, str):
        return None
    shipped, now = shipped_studies(), _renamed(source)
    if source not in shipped and now in shipped:
        note_the_new_name("the study", source, now)
        return now
    return source if source in shipped else None


def _renamed(name: str) -> str:
    """A name as it is now: the folder, or the collection, may have been called otherwise."""
    folder, slash, rest = name.partition("/")
    return f"{RENAMED.get(folder, folder)}{slash}{rest}"


def _find(source: str | Path) -> tuple[Path, str]:
    shipped = shipped_studies()
    name = shipped_name(source)
    if name is not None:
        return SHIPPED / f"{name}.yaml", f"{name}.yaml"
    path, label = Path(source), _printable(str(source))
    message = None
    try:
        if not str(source) or not path.exists():
            message = "there is no such file"
        elif path.is_dir():
            message = "this is a folder, expected a YAML file"
    except (OSError, ValueError) as error:  # a name that no file system takes
        message = f"this cannot be a file ({error})"
    if message is None:
        return path, label
    near = nearest(_renamed(str(source).removesuffix(".yaml")), shipped) or nearest(path.stem, shipped)
    question = f"; did you mean {near!r}?" if near else ""
    raise StudyError(
        label, [f"{label}: {message}{question} (shipped studies: {', '.join(shipped) or 'none'}; or a path)"]
    )


def _text(path: Path, label: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise StudyError(label, [f"{label}: cannot be read: {error.strerror or error}"]) from error
    if len(content) > LARGEST_FILE:
        raise StudyError(label, [f"{label}: larger than {LARGEST_FILE:,} bytes, which no study is"])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = (
            f"found the byte 0x{content[error.start]:02x}, which is not UTF-8; expected a YAML file saved as UTF-8"
        )
        raise StudyError(label, [f"{label}:{line}: {message}"]) from error


def parse(text: str, label: str) -> tuple[Plain, dict[Keys, tuple[int, int] | str]]:
    """The plain values of one YAML document and their places.

    Raises:
        StudyError: the text is not YAML, or its values are not plain.
    """
    reader = _Reader(label)
    try:
        return reader.document(iter(YAML(typ="rt", pure=True).parse(text))), reader.marks
    except StudyError:
        raise
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{label}:{mark.line + 1}:{mark.column + 1}" if mark else label
        message = " ".join(str(error.problem or error.context).split())
        remedy = " (indent with spaces; YAML does not allow tabs)" if "'\\t'" in message else ""
        raise StudyError(label, [f"{place}: not YAML: {message}{remedy}"]) from error
    except Exception as error:  # characters that YAML forbids; and the parser's own slips on hostile text
        message = " ".join(str(error).split(" in ")[0].split()) or type(error).__name__
        raise StudyError(label, [f"{label}: not YAML: {_printable(message)}"]) from error


class _Reader:
    """Values from parser events; recursion is bounded by `DEEPEST`."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.marks: dict[Keys, tuple[int, int] | str] = {}

    def document(self, events: Iterator[Event]) -> Plain:
        value, seen = None, False
        for event in events:
            if isinstance(event, DocumentStartEvent):
                if seen:
                    raise self.refusal(event, "found a second document, expected one study in a file")
                value, seen = self.value(next(events), events, ()), True
            elif isinstance(event, StreamEndEvent):
                break
        return value

    def refusal(self, event: Event, message: str, path: Keys = ()) -> StudyError:
        at = f", at {dotted(path)}" if path else ""
        place = f"{self.label}:{event.start_mark.line + 1}:{event.start_mark.column + 1}{at}"
        return StudyError(self.label, [f"{place}: {message}"])

    def value(self, event: Event, events: Iterator[Event], path: Keys) -> Plain:
        self.marks.setdefault(path, (event.start_mark.line + 1, event.start_mark.column + 1))
        self.refuse_what_is_not_plain(event, path)
        if isinstance(event, MappingStartEvent):
            return self.mapping(events, path)
        if isinstance(event, SequenceStartEvent):
            items: list[Plain] = []
            while not isinstance(event := next(events), SequenceEndEvent):
                items.append(self.value(event, events, (*path, len(items))))
            return items
        return self.scalar(cast("ScalarEvent", event), path)

    def mapping(self, events: Iterator[Event], path: Keys) -> Spec:
        found: Spec = {}
        while not isinstance(event := next(events), MappingEndEvent):
            if not isinstance(event, ScalarEvent):
                raise self.refusal(event, "expected a plain word as a key", path)
            self.refuse_what_is_not_plain(event, path)
            key = (*path, event.value)
            if event.value in found:
                first = self.marks[key]
                message = f"the key {shown(event.value)} is given twice (first on line {first[0]}); keep one of them"
                raise self.refusal(event, message, key)
            self.marks[key] = (event.start_mark.line + 1, event.start_mark.column + 1)
            found[event.value] = self.value(next(events), events, key)
        return found

    def refuse_what_is_not_plain(self, event: Event, path: Keys) -> None:
        if len(path) > DEEPEST:
            raise self.refusal(event, f"nested deeper than {DEEPEST} levels, which no study is")
        if isinstance(event, AliasEvent):
            raise self.refusal(event, f"found the alias *{_printable(event.anchor)}; write the value out", path)
        anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
        if anchor:
            raise self.refusal(event, f"found the anchor &{_printable(anchor)}; write the value without it", path)
        if tag:
            raise self.refusal(event, f"found the tag {_printable(str(tag))}; studies have plain values only", path)

    def scalar(self, event: ScalarEvent, path: Keys) -> bool | int | float | str | None:
        """A scalar by the core schema of YAML 1.2."""
        text: str = event.value
        if not event.implicit[0]:
            return text
        if text in {"", "~", "null", "Null", "NULL"}:
            return None
        if text in {"true", "True", "TRUE", "false", "False", "FALSE"}:
            return text[0] in "tT"
        for pattern, base in ((r"[-+]?[0-9]+", 10), (r"0o[0-7]+", 8), (r"0x[0-9a-fA-F]+", 16)):
            if re.fullmatch(pattern, text):
                if len(text) > MOST_DIGITS:
                    raise self.refusal(event, f"found a number of {len(text)} digits, which no study needs", path)
                return int(text, base)
        if re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", text):
            return float(text)
        if re.fullmatch(r"[-+]?\.(inf|Inf|INF)", text):
            return float(text.replace(".", ""))
        return float("nan") if text in {".nan", ".NaN", ".NAN"} else text


def _one_line(text: str) -> str:
    """The text without anything that would move a terminal's cursor."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _printable(text: str) -> str:
    return (text if len(text) <= 200 else text[:196] + " ...") if text.isprintable() else shown(text)
