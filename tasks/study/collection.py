"""A file that names other studies: one list, run one after the other into one store.

name: documents
studies: [documents/slides-torus, documents/notes-ncsn]   # shipped studies, or files, seen from where this one lies

Every study of the list is loaded before anything runs, so that a mistake in the last is found at
once, with its own place. A study in the store is found by its name: no two of a list have the same.
A collection leaves nothing in the store that its studies would not.

Changes from the command line go to every study, but for those of the collection's own keys:
``--set samples=100`` makes all of them small, ``--set studies=[documents/slides-torus]`` makes the
list short.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import PlainValidator, ValidationError

from tasks.messages import shown, unknown
from tasks.study.axes import Frozen, Missing, list_of, name_of_study, read_text, refuse
from tasks.study.components import MISSING, Complaint, complaint_of
from tasks.study.document import StudyError, load, shipped_name, shipped_studies
from tasks.study.model import Study, load_study

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tasks.study.document import Document

LONGEST_PATH = 1000


def _source(entry: object) -> str:
    if not isinstance(entry, str) or not 0 < len(entry) <= LONGEST_PATH:
        raise refuse(f"found {shown(entry)}, expected the name of a shipped study or a path")
    return entry


class _List(Frozen):
    """What such a file holds."""

    name: Annotated[str, PlainValidator(name_of_study)]
    description: Annotated[str, PlainValidator(read_text)] = ""
    studies: Annotated[tuple[str, ...], PlainValidator(list_of("studies", _source, str))]


OWN_KEYS = tuple(_List.model_fields)


@dataclass(frozen=True)
class CollectedStudy:
    """One study of a collection: what to call it by, and what it says."""

    source: str
    study: Study


@dataclass(frozen=True)
class Collection:
    """The studies that a file names, in its order; a file that is itself a study is a collection of
    one, without a name.
    """

    name: str | None
    description: str
    members: tuple[CollectedStudy, ...]


def of_each(overrides: Sequence[str]) -> list[str]:
    """The changes that go to every study of a collection."""
    return [override for override in overrides if not re.match(rf"({'|'.join(OWN_KEYS)})\b", override)]


def load_collection(source: str | Path, overrides: Sequence[str] = ()) -> Collection:
    """What `source` asks for: the studies that it names, or the one that it is.

    Raises:
        StudyError: the list or a study of it has problems; the message has all of them.
    """
    rest = of_each(overrides)
    own = [override for override in overrides if override not in rest]
    document = load(source)
    if "studies" not in document.values and not any(override.startswith("studies") for override in own):
        study = load_study(source, overrides)
        return Collection(None, study.description, (CollectedStudy(str(source), study),))
    for override in own:
        document.set(override)
    listed = _validated(document)
    members: list[CollectedStudy] = []
    complaints: list[Complaint] = []
    folder = None if shipped_name(source) else Path(source).parent
    for i, entry in enumerate(listed.studies):
        try:
            members.append(_member(entry, folder, rest, members))
        except StudyError as error:
            complaints += [Complaint(("studies", i), problem) for problem in error.problems]
    if complaints:
        raise document.error(complaints)
    return Collection(listed.name, listed.description, tuple(members))


def _member(
    entry: str, folder: Path | None, overrides: Sequence[str], before: Sequence[CollectedStudy]
) -> CollectedStudy:
    """One entry of the list; `folder` is None for a shipped list, whose studies are shipped ones."""
    name = shipped_name(entry)
    if name is not None:
        source = name
    elif folder is None:
        raise StudyError(entry, [unknown("study", entry, shipped_studies())])
    else:
        source = str(folder / entry)
    study = load_study(source, overrides)
    for member in before:
        if member.study.name == study.name:
            message = f"{entry} is called {study.name!r}, as {member.source} is; a store knows a study by its name"
            raise StudyError(entry, [message])
    return CollectedStudy(source, study)


def _validated(document: Document) -> _List:
    try:
        return _List.model_validate({"studies": Missing, **document.values})
    except ValidationError as error:
        raise document.error(_complaints(error)) from None


def _complaints(error: ValidationError) -> Iterator[Complaint]:
    for details in error.errors(include_url=False):
        if details["type"] == "extra_forbidden":
            path = tuple(details["loc"])
            of = " of a file that names studies"
            yield Complaint(path, unknown("key", path[-1], OWN_KEYS, of=of))
        elif details["type"] == "missing":
            yield Complaint(tuple(details["loc"]), MISSING)
        else:
            yield complaint_of(details)
