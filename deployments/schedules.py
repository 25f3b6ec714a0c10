"""What runs when: the list in ``schedules.yaml``, read and validated.

An entry is a study, a store and a cron line. All that can be wrong with it is found before anything
is scheduled: the cron line and the time zone by Prefect's own rules, the study and its overrides by
`load_study`. Every problem of the file is reported at once, each with its entry.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from diffusion.errors import WrongInput
from flows.request import LEAST_SHARD_LIMIT
from tasks.store import WrongReference
from tasks.store.storage import Place
from tasks.study import StudyError, load_study
from tasks.study.document import shipped_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tasks.plain import Spec

SHIPPED_LIST = Path(__file__).resolve().with_name("schedules.yaml")
FORBIDDEN_IN_NAMES = "/%&<>"
"""Characters that Prefect refuses in the name of a deployment."""

_ONE_OF = "expected one of `cron: ...` and `after: NAME_OF_AN_ENTRY`"


class ScheduleError(WrongInput):
    """A list of runs or of automations that cannot be used. ``str()`` is the whole message;
    `problems` has one line for each.
    """

    kind = "wrong-schedules"

    def __init__(self, label: str, problems: Sequence[str]) -> None:
        self.label, self.problems = label, tuple(problems)
        super().__init__("\n  ".join([f"{label}: {len(self.problems)} problem(s)", *self.problems]))

    def __reduce__(self) -> tuple[type[ScheduleError], tuple[str, tuple[str, ...]]]:
        return type(self), (self.label, self.problems)


class ScheduledRun(BaseModel):
    """One line of the list: which study runs on which store, when, under which name."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    study: Annotated[str, Field(min_length=1)]
    store: Annotated[str, Field(min_length=1)]
    cron: str | None = None
    after: Annotated[str, Field(min_length=1)] | None = None
    timezone: str | None = None
    overrides: Annotated[tuple[str, ...], Field(strict=False)] = ()
    name: Annotated[str, Field(min_length=1)] | None = None
    wait: Annotated[float, Field(ge=0, le=1440, strict=False)] = 0.0
    shard_limit: Annotated[float, Field(ge=LEAST_SHARD_LIMIT, strict=False)] | None = None
    device: Literal["cpu", "cuda", "auto"] | None = None
    tags: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)] = ()

    @field_validator("store")
    @classmethod
    def _a_folder_or_s3(cls, value: str) -> str:
        try:
            Place(value)
        except WrongReference as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("cron")
    @classmethod
    def _as_prefect_reads_it(cls, value: str | None) -> str | None:
        if value is not None:
            _prefect_takes(cron=value)
        return value

    @field_validator("timezone")
    @classmethod
    def _a_zone_that_prefect_knows(cls, value: str | None) -> str | None:
        if value is not None:
            _prefect_takes(cron="0 0 * * *", timezone=value)
        return value

    @field_validator("name")
    @classmethod
    def _a_name_that_prefect_takes(cls, value: str | None) -> str | None:
        if value and any(character in value for character in FORBIDDEN_IN_NAMES):
            raise ValueError(f"a name has none of the characters {' '.join(FORBIDDEN_IN_NAMES)}")
        return value

    @model_validator(mode="after")
    def _by_the_clock_or_after_another(self) -> ScheduledRun:
        if (self.cron is None) == (self.after is None):
            raise ValueError(_ONE_OF)
        return self

    @property
    def when(self) -> str:
        """When it runs, for people."""
        return f"after {self.after}" if self.after else f"{self.cron} {self.timezone or 'UTC'}"

    @property
    def title(self) -> str:
        """The name of the deployment."""
        return self.name or Path(self.study).stem

    def parameters(self, folder: Path) -> dict[str, Any]:
        """The parameters of the flow `run_study`, with paths that do not depend on where the run is
        started.
        """
        study = shipped_name(self.study) or _absolute(self.study, folder)
        store = self.store if "://" in self.store else _absolute(self.store, folder)
        asked = {"wait": self.wait or None, "shard_limit": self.shard_limit, "device": self.device}
        given = {name: value for name, value in asked.items() if value is not None}
        return {"study": study, "store": store, "overrides": list(self.overrides), **given}


def _prefect_takes(**schedule: str) -> None:
    from prefect.client.schemas.schedules import CronSchedule

    try:
        CronSchedule.model_validate(schedule)
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


def _absolute(path: str, folder: Path) -> str:
    return str((folder / Path(path).expanduser()).resolve())


def read_schedules(file: Path = SHIPPED_LIST, folder: Path | None = None) -> list[ScheduledRun]:
    """The entries of a list; relative paths of studies are looked up from `folder`, by default the
    working directory.

    Raises `ScheduleError` with every problem: what is no YAML, no list or no entry, a cron line
    that Prefect does not take, a study that cannot be loaded, a name that is given twice, two
    entries that would by turns redefine one study of one store, an entry that waits for one that is
    not there or for itself.
    """
    found = plain_list(file, "`- {study: ..., store: ..., cron: ...}`")
    entries: list[ScheduledRun] = []
    problems: list[str] = []
    asked: dict[tuple[str, str], dict[str, Spec]] = {}  # by store and study: what each entry asks for
    for number, values in enumerate(found, start=1):
        place = f"entry {number}{_called(values)}"
        try:
            entry = ScheduledRun.model_validate(values)
            given = entry.parameters(folder or Path.cwd())
            study = load_study(given["study"], entry.overrides)
        except ValidationError as error:
            told = [_message(detail) for detail in error.errors(include_url=False)]
            if isinstance(values, dict) and (values.get("cron") is None) == (values.get("after") is None):
                told.append(_ONE_OF)  # which pydantic asks only if all else is right
            problems += [f"{place}: {text}" for text in dict.fromkeys(told)]
        except StudyError as error:
            problems += [f"{place}: {problem}" for problem in error.problems]
        else:
            entries.append(entry)
            asked.setdefault((given["store"], study.name), {})[place] = study.spec()
    for title, times in Counter(entry.title for entry in entries).items():
        if times > 1:
            problems.append(f"{title!r} names {times} entries; give each a `name` of its own")
    for (store, name), specs in asked.items():
        first, *others = specs
        for other in others:
            if specs[other] != specs[first]:
                problems.append(
                    f"{other}: asks for another study {name!r} of store {store} than {first}, and each run would redefine "
                    "it; give one a name of its own (overrides: [name=...]) or another store"
                )
    problems += _chains(entries)
    if problems:
        raise ScheduleError(str(file), problems)
    return entries


def _chains(entries: Sequence[ScheduledRun]) -> Iterator[str]:
    """What is wrong with who waits for whom."""
    before = {entry.title: entry.after for entry in entries}
    for title, first in before.items():
        if first is not None and first not in before:
            yield f"{title!r}: after: no entry {first!r} (there are: {', '.join(before)})"
        passed, next_one = {title}, first
        while next_one in before and next_one not in passed:
            passed.add(next_one)
            next_one = before[next_one]
        if next_one in passed:
            yield f"{title!r}: after: its chain leads back to {next_one!r}, and never begins"


def plain_list(file: Path, entry: str) -> list[Any]:
    """The entries of a YAML file as plain values; `entry` is what one looks like.

    Raises `ScheduleError` where there is no list.
    """
    try:
        found = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScheduleError(str(file), [f"cannot be read: {error.strerror or error}"]) from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        message = " ".join(str(error.problem or error.context).split())
        raise ScheduleError(str(file), [f"{where}not YAML: {message}"]) from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise ScheduleError(str(file), [f"not YAML: {' '.join(str(error).split())}"]) from error
    if not isinstance(found, list) or not found:
        raise ScheduleError(str(file), [f"expected a list of entries: {entry}"])
    return found


def _called(values: Any) -> str:
    """What a reader finds the entry by."""
    name = (values.get("name") or values.get("study")) if isinstance(values, dict) else None
    return f" ({name})" if name else ""


def _message(detail: Any) -> str:
    where = ".".join(str(part) for part in detail["loc"])
    if not where:
        said = detail["msg"].removeprefix("Value error, ") if detail["type"] == "value_error" else ""
        return said or f"found {detail['input']!r}, expected `study: ...`, `store: ...`, `cron: ...`"
    if detail["type"] == "extra_forbidden":
        return f"{where}: unknown key (there are: {', '.join(ScheduledRun.model_fields)})"
    if detail["type"] == "missing":
        return f"{where}: missing"
    text = detail["msg"].removeprefix("Value error, ")
    if where == "store":  # which may hold a password
        return f"{where}: {text.removeprefix('store: ')}"
    return f"{where}: found {detail['input']!r}: {text}"
