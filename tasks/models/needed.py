"""The data that a stored description names by a digest of their content, found again.

An id says what the points are, not where they lie: the description of a cell has their digest. They
are looked for among what the caller has, then in the files that are known to have held them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from diffusion.datasets import Dataset, datasets
from diffusion.datasets.own import OwnPoints
from diffusion.errors import Unavailable, WrongValue
from diffusion.registry import Component
from tasks.data.from_file import FilePoints
from tasks.plain import Plain, Spec
from tasks.plan import Cell
from tasks.study.components import build
from tasks.study.identity import class_named

Places = Callable[[str], Iterable[Spec]]
"""From the digest of points to the specs of data sets, with their files, that have held them."""

NOWHERE: Places = lambda _: ()  # noqa: E731 - a value of that type, with its meaning beside it
_SHOWN = 12  # digits of a digest in a message


class CannotBeMade(Unavailable, ValueError):
    """A stored cell that cannot be made here: this version of the code has not its parts, or the
    points that it needs are not here; the message says which.
    """

    kind = "cannot-be-made"


def with_data(spec: Plain, known: Sequence[Dataset] = (), places: Places = NOWHERE) -> Plain:
    """A spec with the data set itself in the place of each description of points.

    Args:
        spec: of a data set or a formulation, or a part of one.
        known: points in memory, and data sets of files. Points in memory that are not among them
            are described by their mean and deviation alone.
        places: where the points of a file have been.

    Raises:
        CannotBeMade: the points of a file are in none of its places; one sentence with their digest,
            what is found at each place, and how to name another.
    """
    if isinstance(spec, dict):
        if isinstance(spec.get("digest"), str):
            if spec.get("name") == OwnPoints.registered_name:
                return _own(spec, known)
            cls = class_named(datasets, str(spec.get("name")))
            if cls is not None and issubclass(cls, FilePoints):
                return _of_file(spec, known, places)
        return {key: with_data(value, known, places) for key, value in spec.items()}
    return [with_data(value, known, places) for value in spec] if isinstance(spec, list | tuple) else spec


def places_in(specs: Callable[[], Iterable[Plain]]) -> Places:
    """The places that descriptions with paths, such as studies, tell; they are read when points are
    looked for, each time anew.
    """

    def told(spec: Plain, digest: str) -> Iterator[Spec]:
        if isinstance(spec, dict):
            if spec.get("digest") == digest and isinstance(spec.get("path"), str):
                yield dict(spec)
            spec = list(spec.values())
        if isinstance(spec, list | tuple):
            for value in spec:
                yield from told(value, digest)

    return lambda digest: (place for spec in specs() for place in told(spec, digest))


def checked_data(given: Dataset | Sequence[Dataset] | None) -> list[Dataset]:
    """What a caller names as the data of a stored model.

    Raises:
        WrongValue: something else than data sets of files.
    """
    found = [] if given is None else [given] if isinstance(given, Dataset) else given
    if not isinstance(found, Sequence) or not all(isinstance(one, FilePoints) for one in found):
        raise WrongValue(
            f"data: found {type(given).__name__}; accepted: a data set of a file, da.dataset('from_file', path=...), or a list"
        )
    return list(found)


def data_in(component: Component) -> Iterator[Dataset]:
    """The data sets among a component and its parts, parts of parts included."""
    if isinstance(component, Dataset):
        yield component
    for field in fields(component):
        part = getattr(component, field.name)
        if isinstance(part, Component):
            yield from data_in(part)


def check_needed(cell: Cell, given: Sequence[Dataset]) -> None:
    """Refuse data that a caller has named and that the cell does not ask for.

    Raises:
        WrongValue: there are such.
    """
    needed = [one for one in (*data_in(cell.dataset), *data_in(cell.formulation)) if isinstance(one, FilePoints)]
    if unused := [one for one in given if one not in needed]:
        wanted = ", ".join(f"{one.label()}" for one in needed) or "none"
        raise WrongValue(
            f"data: found {unused[0].label()}, which the model was not made for; its data in files: {wanted}"
        )


def _own(spec: Spec, known: Sequence[Dataset]) -> OwnPoints:
    digest, stds = spec["digest"], spec.get("stds")
    here = next((one for one in known if isinstance(one, OwnPoints) and one.digest == digest), None)
    if here is not None:
        return here
    found = digest, tuple(spec["means"]), spec["sigma_data"], spec["classes"]
    return OwnPoints(*found, None if stds is None else tuple(stds))


def _of_file(spec: Spec, known: Sequence[Dataset], places: Places) -> Dataset:
    name, digest = spec["name"], spec["digest"]
    reasons = []
    for one in known:
        if isinstance(one, FilePoints):
            if (one.registered_name, one.digest) == (name, digest):
                return one
            reasons.append(f"{one.registered_name}: {one.path!r} has the digest {one.digest[:_SHOWN]}...")
    told = [spec] if "path" in spec else []
    tried = []
    for place in (*told, *places(digest)):
        where = {"path": place["path"], "array": place.get("array")}
        if place["name"] != name or where in tried:
            continue
        tried.append(where)
        try:
            return build(datasets, {**spec, **where})
        except (TypeError, ValueError) as error:
            here = "" if Path(place["path"]).is_absolute() else f" (from the folder {Path.cwd()})"
            reasons.append(f"{error}{here}")
    found = f"{'; '.join(reasons)}; put the file back, or" if reasons else "nothing tells in which file they were;"
    raise CannotBeMade(
        f"the points with the digest {digest[:_SHOWN]}... are needed: {found} name its place with data=da.dataset({name!r}, path=...)"
    )
