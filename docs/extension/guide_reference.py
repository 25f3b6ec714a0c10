"""Reference pages that are made when the guide is built, from what the program itself goes by: the
registries, the command line and the schema of studies.

- ``{registry} sampler``: every name of a kind with formula, parameters, defaults and source;
- ``{commands}``: every command with its options;
- ``{study-keys}``: the keys of a study.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import typer.main
from docutils import nodes
from guide_pictures import picture
from sphinx.util.docutils import SphinxDirective

from diffusion.datasets import Dataset
from diffusion.samplers import Sampler
from diffusion.schedules import Schedule
from flows.command_line import app as command_line
from tasks.study.catalogue import REGISTRIES, accepted_names
from tasks.study.schema import described_type, study_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx

    from diffusion.registry import Component, Entry


class Generated(SphinxDirective, ABC):
    """Markdown that is made at build time, with its headings in the page's own order."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """What docutils calls."""
        return self.parse_text_to_nodes("\n".join(self.text()), allow_section_headings=True)

    @abstractmethod
    def text(self) -> Iterator[str]:
        """The Markdown."""


class RegistryPage(Generated):
    """Every registered name of one kind."""

    required_arguments = 1
    optional_arguments = 0

    def text(self) -> Iterator[str]:
        kind = self.arguments[0]
        registry = next(found for found in REGISTRIES if found.kind == kind)
        for entry in registry:
            yield from _entry(kind, entry, registry.aliases(entry.name))


def _entry(kind: str, entry: Entry[Component], aliases: list[str]) -> Iterator[str]:
    made = entry.cls() if entry.has_defaults else None
    yield f"({kind}-{entry.name})="
    yield f"## {entry.name}\n"
    if made is not None and (drawn := picture(made)):
        yield f"```{{raw}} html\n{drawn}\n```\n"
    prose = _prose(entry.cls)
    yield f"{prose}\n"
    yield f"```text\n{entry.formula}\n```\n"
    facts = [*_traits(made), *(f"also called `{other}`" for other in aliases)]
    if facts:
        told = "; ".join(facts)
        yield f"{told[0].upper()}{told[1:]}.\n"
    yield from _parameters(entry.cls)
    yield f"*Source:* {_plain(entry.source)}\n"


def _prose(cls: type) -> str:
    """A class's docstring as Markdown, without the parts for whoever calls it."""
    text = re.split(r"\n\s*(?:Args|Returns|Raises|Attributes):\n", inspect.cleandoc(cls.__doc__ or ""))[0]
    return re.sub(r"(?<!`)(\*|<)(?![^`]*`[^`]*$)", r"\\\1", text) if "`" not in text else text


def _plain(text: str) -> str:
    return re.sub(r"([*_<\[])", r"\\\1", text)


def _traits(made: Component | None) -> Iterator[str]:
    match made:
        case Sampler():
            yield f"order {made.order}"
            yield "draws noise" if made.stochastic else "draws no noise"
        case Schedule():
            yield f"a chain of at most {made.max_steps} levels" if made.max_steps is not None else "continuous in time"
            yield f"signal-to-noise ratio at the end {made.terminal_snr:.2g}"
        case Dataset():
            yield f"{made.dim} coordinates" if made.dim > 1 else "on the line"
            yield "exact denoiser" if made.exact else "no exact denoiser"
            if made.classes:
                yield f"{made.classes} classes"


def _parameters(cls: type[Component]) -> Iterator[str]:
    fields = dataclasses.fields(cls)
    if not fields:
        return
    hints = typing.get_type_hints(cls, include_extras=True)
    yield "| parameter | type | default |\n|---|---|---|"
    for field in fields:
        kind = described_type(hints[field.name]).replace("|", "\\|")
        yield f"| `{field.name}` | {kind} | {_default(field)} |"
    yield ""
    for name, accepted in accepted_names(cls).items():
        yield f"`{name}` is one of {', '.join(f'`{one}`' for one in accepted)}.\n"


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING:
        return "*required*"
    default: Any = field.default
    return f"`{default.label()}`" if hasattr(default, "label") else f"`{_yaml(default)}`"


def _yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple | list):
        return f"[{', '.join(_yaml(item) for item in value)}]"
    return "''" if value == "" else str(value)


class Commands(Generated):
    """Every command of the command line."""

    optional_arguments = 0

    def text(self) -> Iterator[str]:
        root: Any = typer.main.get_command(command_line)
        for name, command in root.commands.items():
            yield f"(command-{name})="
            yield f"## {name}\n"
            arguments = [p for p in command.params if not _is_option(p)]
            options = [p for p in command.params if _is_option(p)]
            words = [_word(p) if p.required else f"[{_word(p)}]" for p in arguments]
            yield f"```text\ndiffatlas {' '.join([name, *words, *(['[OPTIONS]'] if options else [])])}\n```\n"
            yield f"{_options_as_code(inspect.cleandoc(command.help or ''))}\n"
            rows = [*arguments, *options]
            if rows:
                yield "| option | what it does | default |\n|---|---|---|"
            yield from (_option(parameter) for parameter in rows)
            yield ""


def _options_as_code(text: str) -> str:
    return re.sub(r"(?<![\w`-])(--[a-z][a-z-]*)", r"`\1`", text)


def _word(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _is_option(parameter: Any) -> bool:
    return str(parameter.opts[0]).startswith("-")


def _option(parameter: Any) -> str:
    metavar = "" if getattr(parameter, "is_flag", False) else f" {_word(parameter)}"
    name = f"{parameter.opts[0]}{metavar}" if _is_option(parameter) else metavar.strip()
    text = _options_as_code(_plain(getattr(parameter, "help", None) or "").replace("|", "\\|"))
    if getattr(parameter, "envvar", None):
        text += f" (or the variable `{parameter.envvar}`)"
    default = parameter.default
    shown = "" if default in (None, False, ()) or callable(default) else f"`{default}`"
    if parameter.required:
        shown = "*required*"
    return f"| `{name}` | {text} | {shown} |".replace("`" + name, "`" + name.replace("|", "\\|"), 1)


class StudyKeys(Generated):
    """The keys of a study, as its schema has them."""

    optional_arguments = 0

    def text(self) -> Iterator[str]:
        study = study_schema()["$defs"]["study"]
        yield "## All keys\n\n| key | accepted | default | what it says |\n|---|---|---|---|"
        for key, schema in study["properties"].items():
            needed = key in study["required"] or any(key in way["required"] for way in study["anyOf"][:1])
            yield f"| `{key}` | {_accepted(schema)} | {_given(schema, needed)} | {schema['description']} |"
        for key in ("training", "keep"):
            yield f"\n## {key}\n\n| key | accepted | default | what it says |\n|---|---|---|---|"
            for name, schema in study["properties"][key]["properties"].items():
                yield f"| `{name}` | {_accepted(schema)} | {_given(schema, False)} | {schema.get('description', '')} |"
        yield ""


def _given(schema: dict[str, Any], needed: bool) -> str:
    if needed:
        return "*required*"
    default = schema.get("default")
    default = default["name"] if isinstance(default, dict) else default
    return "" if default is None else f"`{_yaml(default)}`"


def _accepted(schema: dict[str, Any]) -> str:
    """What a part of the schema accepts, in words."""
    if "$ref" in schema:
        kind = schema["$ref"].rsplit("/", 1)[1]
        page = {"sampler-choice": "sampler", "study-name": None}.get(kind, kind)
        return f"[{page}](names/{page}s.md)" if page else "a name"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_accepted(way) for way in schema["anyOf"]))
    if schema["type"] == "array":
        return f"list: {_accepted(schema['items'])}"
    if schema["type"] in {"integer", "number"} and "minimum" in schema:
        high = schema["maximum"]
        return f"integer from {schema['minimum']}" + (f" to {high:,}" if high < 2**62 else "")
    words = {"object": "mapping", "string": "text", "boolean": "`true` or `false`", "null": "`null`"}
    return words.get(schema["type"], str(schema["type"]))


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_directive("registry", RegistryPage)
    app.add_directive("commands", Commands)
    app.add_directive("study-keys", StudyKeys)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
