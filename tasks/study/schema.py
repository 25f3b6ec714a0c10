"""The keys of a study as a JSON schema, for editors that complete and check while one types.

It is made from the registries and the types of parameters, so that it knows what the command knows.
What a schema cannot say (which sampler suits which schedule, that no entry stands twice by its
meaning, bounds of single parameters) the command alone refuses: a study that the schema refuses is
refused by the command too, and not the other way round.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import types
import typing
from typing import TYPE_CHECKING, Any

from diffusion.objectives.settings import Training
from tasks.plain import as_json
from tasks.study.axes import LARGEST_INTEGER, MOST_SAMPLES, MOST_SEEDS, MOST_STEPS, OWN_GRID, Exclusion
from tasks.study.catalogue import REGISTRIES
from tasks.study.components import KINDS, present_names
from tasks.study.model import REQUIRED

if TYPE_CHECKING:
    from diffusion.registry import Component, Entry, Registry
    from tasks.plain import Spec

OWN = r"^[\w.]+:[\w.]+$"  # package.module:Object
KEYS = {
    "name": "What points are filed under: 1 to 64 letters, digits, '_', '.' and '-'.",
    "description": "Free text.",
    "datasets": "The targets.",
    "formulations": "What is trained. The rows of the exact denoiser are added for every schedule in play.",
    "schedules": "In place of each formulation's own schedule.",
    "seeds": "How many seeds, or which.",
    "training": "How each network is trained.",
    "samplers": "How samples are made; beside a sampler's own parameters stand grid, schedule and guidance.",
    "steps": "Step counts.",
    "exclude": "Patterns of points to leave out; exact rows have formulation: exact.",
    "samples": "How many samples each question is answered with.",
    "start": "Start noise: drawn, or (on the line, deterministic samplers) the quantiles of the normal law.",
    "metrics": "What is measured.",
    "keep": "What is stored besides numbers.",
    "grids": "Blocks, each a cross of axes; the study is their union, and the axes at the top are their defaults.",
}
"""What each key of a study means, in one line."""
TRAINING = {
    "steps": "Steps of Adam, with warm-up and cosine decay.",
    "batch": "Examples in each step.",
    "width": "Of the network's layers.",
    "depth": "How many layers there are.",
    "learning_rate": "The largest.",
    "ema": "The share of the steps over which weights are averaged.",
    "data": "Size of the training set, drawn once for each target and seed.",
    "network": "An architecture.",
}
"""What each key of `training` means."""


def study_schema() -> Spec:
    """A JSON schema (draft 2020-12) of study files, and of files that list studies."""
    axes = _axes()
    study = {
        "type": "object",
        "additionalProperties": False,
        "required": ["name", "metrics"],
        "anyOf": [{"required": list(REQUIRED)}, {"required": ["grids"]}],
        "properties": {
            "name": _described("name", {"$ref": "#/$defs/study-name"}),
            "description": _described("description", {"type": "string"}),
            **axes,
            "samples": _described("samples", _whole(2, MOST_SAMPLES, 10_000)),
            "start": _described("start", {"enum": ["random", "quantiles"], "default": "random"}),
            "metrics": _described("metrics", _list({"$ref": "#/$defs/metric"})),
            "keep": _described("keep", _keep()),
            "grids": _described(
                "grids",
                {"type": "array", "items": {"type": "object", "additionalProperties": False, "properties": axes}},
            ),
        },
    }
    collection = {
        "type": "object",
        "additionalProperties": False,
        "required": ["name", "studies"],
        "properties": {
            "name": {"$ref": "#/$defs/study-name"},
            "description": {"type": "string"},
            "studies": _list({"type": "string", "minLength": 1}),
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "diffatlas study",
        "if": {"required": ["studies"]},
        "then": {"$ref": "#/$defs/list-of-studies"},
        "else": {"$ref": "#/$defs/study"},
        "$defs": {
            "study": study,
            "list-of-studies": collection,
            "study-name": {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"},
            **{registry.kind: _kind(registry, {}) for registry in REGISTRIES},
            "sampler-choice": _kind(_registry("sampler"), _beside_a_sampler()),
        },
    }


def described_type(hint: Any) -> str:
    """A parameter's type in words: ``number``, ``list of integers``, ``posterior | transition``."""
    return " or ".join(dict.fromkeys(_words(hint)))


def _words(hint: Any) -> list[str]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        return [word for argument in arguments for word in _words(argument)]
    if origin is typing.Literal:
        return [str(argument) for argument in arguments]
    if origin is tuple:
        inner = [argument for argument in arguments if argument is not Ellipsis]
        return [f"list of {_plural(described_type(inner[0]))}"]
    kind = _kind_of(hint)
    plain = {bool: "true or false", int: "integer", float: "number", str: "text", type(None): "null"}
    return [kind or plain.get(hint, "function")]


def _plural(words: str) -> str:
    first, *rest = words.split(" ", 1)
    return " ".join([f"{first}s", *rest])


def _kind_of(hint: Any) -> str | None:
    return next((registry.kind for base, registry in KINDS if hint is base), None)


def _registry(kind: str) -> Registry[Any]:
    return next(registry for registry in REGISTRIES if registry.kind == kind)


def _described(key: str, schema: Spec) -> Spec:
    return {"description": KEYS[key], **schema}


def _whole(low: int, high: int = LARGEST_INTEGER, default: int | None = None) -> Spec:
    return {"type": "integer", "minimum": low, "maximum": high, **({} if default is None else {"default": default})}


def _list(items: Spec) -> Spec:
    return {"type": "array", "minItems": 1, "uniqueItems": True, "items": items}


def _axes() -> Spec:
    """The keys that a block of `grids` has, too."""
    return {
        "datasets": _described("datasets", _list({"$ref": "#/$defs/dataset"})),
        "formulations": _described("formulations", _list({"$ref": "#/$defs/formulation"})),
        "schedules": _described("schedules", {"anyOf": [_list({"$ref": "#/$defs/schedule"}), {"type": "null"}]}),
        "seeds": _described("seeds", {"anyOf": [_whole(1, MOST_SEEDS), _list(_whole(0))], "default": 1}),
        "training": _described("training", _training()),
        "samplers": _described("samplers", _list({"$ref": "#/$defs/sampler-choice"})),
        "steps": _described("steps", _list(_whole(1, MOST_STEPS))),
        "exclude": _described("exclude", {"type": "array", "items": _exclusion()}),
    }


def _training() -> Spec:
    hints = typing.get_type_hints(Training)
    properties: Spec = {}
    for field in dataclasses.fields(Training):
        schema = _of_type(hints[field.name])
        if hints[field.name] is int:
            schema = _whole(1)
        properties[field.name] = {"description": TRAINING[field.name], **schema, **_default(field)}
    properties["learning_rate"]["exclusiveMinimum"] = 0
    properties["ema"] |= {"exclusiveMinimum": 0, "maximum": 1}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _keep() -> Spec:
    trajectory = {"type": "string", "pattern": "^.+@0*[1-9][0-9]{0,9}$"}
    properties = {
        "samples": {"description": "The final samples.", "type": "boolean", "default": False},
        "trajectories": {
            "description": "All states on the way, of sampler@steps: heun@50.",
            "type": "array",
            "items": trajectory,
        },
    }
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _exclusion() -> Spec:
    properties = {}
    for key in Exclusion.model_fields:
        if key in {"steps", "seed"}:
            one = _whole(1, MOST_STEPS) if key == "steps" else _whole(0)
        else:
            words = ["none"] if key == "guidance" else []
            one = {"anyOf": [{"enum": [*words, *_names(_registry(key))]}, {"type": "string", "pattern": OWN}]}
        properties[key] = {"anyOf": [one, _list(one)]}
    return {"type": "object", "minProperties": 1, "additionalProperties": False, "properties": properties}


def _names(registry: Registry[Any]) -> list[str]:
    return [*registry.names(), *registry.aliases()]


def _beside_a_sampler() -> Spec:
    grid = {"anyOf": [{"const": OWN_GRID}, {"$ref": "#/$defs/grid"}], "default": OWN_GRID}
    return {
        "grid": {"description": "How the steps are spent; own: as the schedule's definition says.", **grid},
        "schedule": {
            "description": "Sample on another schedule than the one trained on.",
            "$ref": "#/$defs/schedule",
        },
        "guidance": {"description": "What is known of the samples.", "$ref": "#/$defs/guidance"},
    }


def _kind(registry: Registry[Any], beside: Spec) -> Spec:
    """An entry of an axis: a name, a mapping with a name, or a class of one's own."""
    alone = [{"const": entry.name, "description": entry.formula} for entry in registry if entry.has_defaults]
    points = importlib.metadata.entry_points(group=f"diffatlas.{registry.kind}s")
    installed = [point.name for point in points if point.name not in registry]
    others = [{"const": name} for name in [*registry.aliases(), *installed]]
    known = [_mapping(entry, [entry.name, *registry.aliases(entry.name)], beside) for entry in registry]
    own = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"anyOf": [{"type": "string", "pattern": OWN}, *({"const": name} for name in installed)]}
        },
    }
    return {"anyOf": [*alone, *others, {"type": "string", "pattern": OWN}, *known, own]}


def _mapping(entry: Entry[Component], names: list[str], beside: Spec) -> Spec:
    hints = typing.get_type_hints(entry.cls, include_extras=True)
    fields = dataclasses.fields(entry.cls)
    parameters: Spec = {field.name: {**_of_type(hints[field.name]), **_default(field)} for field in fields}
    first = {old: {**_of_type(hints[name]), "deprecated": True} for old, name in present_names(entry.cls).items()}
    needed = [
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    return {
        "type": "object",
        "description": entry.formula,
        "additionalProperties": False,
        "required": ["name", *needed],
        "properties": {"name": {"enum": names}, **parameters, **first, **beside},
    }


def _default(field: dataclasses.Field[Any]) -> Spec:
    if field.default is dataclasses.MISSING or callable(field.default):
        return {}
    default: Any = field.default
    return {"default": as_json(default.spec() if hasattr(default, "spec") else default)}


def _of_type(hint: Any) -> Spec:
    """What a parameter of this type may be in YAML."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        return {"anyOf": [_of_type(argument) for argument in arguments]}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        return {"type": "array", "items": _of_type(arguments[0])}
    if (kind := _kind_of(hint)) is not None:
        return {"$ref": f"#/$defs/{kind}"}
    plain: dict[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
    return {"type": plain[hint]} if hint in plain else {}
