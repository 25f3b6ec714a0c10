"""One thing asked is one id, however it is spelled: numbers, keys, nested parts; and what is
another thing is another id or refused.
"""

from __future__ import annotations

import contextlib
import json
import math
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from diffusion.datasets import Uniform
from diffusion.registry import Component, Entry
from tasks.plan import points_of
from tasks.study import Study, StudyError, load_study
from tasks.study.catalogue import REGISTRIES
from tasks.study.components import build

DENOISING = {
    "name": "denoising",
    "schedule": {"name": "ve-geometric", "sigma_min": 0.01, "sigma_max": 50.0, "t_min": 1e-5, "t_max": 1.0},
    "parametrization": {"name": "v"},
    "noise_levels": {"name": "logit-normal", "mean": 0.25, "std": 1.0},
    "weighting": {"name": "min-snr", "gamma": 5.0},
    "noise_label": "log-nsr",
}
FULL: dict[str, Any] = {  # every default written out
    "name": "ids",
    "datasets": [{"name": "gaussian_mixture", "weights": [0.3, 0.7], "means": [-2.0, 2.0], "stds": [0.2, 1.0]}],
    "formulations": [DENOISING],
    "training": {"steps": 3000, "batch": 512, "width": 128, "depth": 3, "learning_rate": 0.004, "ema": 0.03},
    "seeds": [0],
    "samplers": [{"name": "churn", "s_churn": 40.0, "s_min": 0.05, "s_max": 50.0, "s_noise": 1.0, "grid": {"name": "edm", "rho": 7.0}}],
    "steps": [2],
    "samples": 100,
    "metrics": ["w1"],
}  # fmt: skip
NEEDED = {  # what cannot be left out without asking for something else
    "name", "datasets", "formulations", "samplers", "steps", "seeds", "samples", "metrics", "mean", "schedule", "parametrization",
    "noise_levels", "weighting", "grid",
}  # fmt: skip

every_example = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def ids(study: Study) -> list[str]:
    return [point.id for point in points_of(study)]


def ids_of_text(folder: Path, text: str) -> list[str]:
    """As a user asks: by a file."""
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    return ids(load_study(folder / "study.yaml"))


def with_number(place: str, spelled: str) -> str:
    """A study whose number at `place` is spelled in a certain way."""
    marked: dict[str, Any] = json.loads(json.dumps(FULL))
    spots: dict[str, tuple[Any, Any]] = {
        "a parameter": (marked["samplers"][0], "s_churn"),
        "a parameter of a part": (marked["formulations"][0]["noise_levels"], "mean"),
        "a list": (marked["datasets"][0]["means"], 1),
        "the grid": (marked["samplers"][0]["grid"], "rho"),
        "training": (marked["training"], "learning_rate"),
        "a count": (marked["training"], "width"),
        "steps": (marked["steps"], 0),
    }
    holder, key = spots[place]
    holder[key] = "HERE"
    return json.dumps(marked).replace('"HERE"', spelled)


def spellings(number: float) -> list[str]:
    """Ways to write one number in YAML."""
    ways = [repr(number), f"{number:.17e}", f"{number:.17E}", f"+{number!r}", f"{number:.60f}".rstrip("0") + "0"]
    return ways + ([str(int(number)), f"{int(number)}.", f"{int(number)}e0"] if number.is_integer() else [])


@every_example
@given(st.data(), st.sampled_from(["a parameter", "a parameter of a part", "a list", "the grid", "training"]))
def test_a_number_is_one_number_however_it_is_written(tmp_path: Path, data: st.DataObject, place: str) -> None:
    number = data.draw(st.sampled_from([1.0, 2.0, 7.0, 0.5, 0.1, 0.25]) | st.floats(0.01, 10.0))
    ways = [way for way in spellings(number) if float(way) == number]
    one, other = data.draw(st.sampled_from(ways)), data.draw(st.sampled_from(ways))
    assert ids_of_text(tmp_path, with_number(place, one)) == ids_of_text(tmp_path, with_number(place, other))


@every_example
@given(
    st.floats(0.01, 10.0), st.sampled_from(["a parameter", "a parameter of a part", "a list", "the grid", "training"])
)
def test_the_next_number_is_another_id(tmp_path: Path, number: float, place: str) -> None:
    after = repr(math.nextafter(number, 100))
    assert ids_of_text(tmp_path, with_number(place, repr(number))) != ids_of_text(tmp_path, with_number(place, after))


@pytest.mark.parametrize("place", ["a parameter", "a list", "the grid", "training", "a count", "steps"])
@pytest.mark.parametrize("spelled", ['"1"', "'1e0'", '"1.0"', "1_0", "true", "١", "１", ".nan", "0x", "1e400"])
def test_what_only_looks_like_a_number_is_refused(tmp_path: Path, place: str, spelled: str) -> None:
    with pytest.raises(StudyError, match=r"expected|study\.yaml"):
        ids_of_text(tmp_path, with_number(place, spelled))


@pytest.mark.parametrize("place", ["a count", "steps"])
def test_a_count_written_as_a_fraction_is_refused_and_never_another_id(tmp_path: Path, place: str) -> None:
    assert ids_of_text(tmp_path, with_number(place, "2"))
    for spelled in ("2.0", "2e0", "2.5"):
        with pytest.raises(StudyError, match="integer"):
            ids_of_text(tmp_path, with_number(place, spelled))


@every_example
@given(st.data())
def test_zero_has_no_sign_wherever_it_stands(tmp_path: Path, data: st.DataObject) -> None:
    place = data.draw(st.sampled_from(["a parameter", "a parameter of a part", "a list"]))
    one, other = (data.draw(st.sampled_from(["0", "-0", "0.0", "-0.0", "0e5", "-0.0e-3", "+0"])) for _ in range(2))
    first, second = (ids_of_text(tmp_path, with_number(place, zero)) for zero in (one, other))
    assert first == second


def shuffled_and_bare(data: st.DataObject, value: Any) -> Any:
    """The same with keys in another order, and some of the defaults left out; a part without
    parameters as its bare name.
    """
    if isinstance(value, list):
        return [shuffled_and_bare(data, inner) for inner in value]
    if not isinstance(value, dict):
        return value
    keys = [key for key in data.draw(st.permutations(list(value))) if key in NEEDED or data.draw(st.booleans())]
    if keys == ["name"] and data.draw(st.booleans()):
        return value["name"]
    return {key: shuffled_and_bare(data, value[key]) for key in keys}


@every_example
@given(st.data())
def test_ids_depend_neither_on_the_order_of_keys_nor_on_spelled_defaults_at_any_depth(data: st.DataObject) -> None:
    assert ids(Study.from_spec(shuffled_and_bare(data, FULL))) == ids(Study.from_spec(FULL))


@pytest.mark.parametrize(
    "entry", [entry for registry in REGISTRIES for entry in registry if entry.has_defaults], ids=str
)
def test_every_component_is_the_same_with_its_defaults_spelled_in_any_order(entry: Entry[Any]) -> None:
    registry = next(registry for registry in REGISTRIES if entry.name in registry.names() and entry in list(registry))
    bare: Component = registry.create(entry.name)
    spelled = json.loads(json.dumps(bare.spec()))
    backwards = dict(reversed(spelled.items()))
    assert build(registry, spelled).identity() == build(registry, backwards).identity() == bare.identity()
    assert json.dumps(build(registry, spelled).identity(), sort_keys=True) == json.dumps(
        bare.identity(), sort_keys=True
    )


@dataclass(frozen=True)
class Accented(Uniform):
    """A user's target, known by a name with an accent as well."""


globals()["Größe"] = Accented


@every_example
@given(
    st.sampled_from(["heun", "uniform", "edm", "w1"]), st.sampled_from(["NFC", "NFD", "wide", "soft hyphen", "space"])
)
def test_a_name_that_only_looks_like_a_registered_one_is_refused(name: str, kind: str) -> None:
    disguised = {
        "wide": "".join(chr(ord(c) + 0xFEE0) for c in name),
        "soft hyphen": name[0] + "\u00ad" + name[1:],
        "space": name + "\u00a0",
    }.get(kind, unicodedata.normalize("NFC" if kind == "NFC" else "NFD", name + "\u0301"))
    assume(disguised != name)
    axes = {"heun": "samplers", "uniform": "datasets", "edm": "formulations", "w1": "metrics"}
    with pytest.raises(StudyError):
        Study.from_spec({**FULL, axes[name]: [disguised]})


def test_a_class_of_ones_own_has_one_id_whichever_way_its_accents_are_written() -> None:
    names = {unicodedata.normalize(form, f"{__name__}:Größe") for form in ("NFC", "NFD")}
    assert len(names) == 2
    found = set()
    for name in names:
        with contextlib.suppress(StudyError):
            found.add(tuple(ids(Study.from_spec({**FULL, "datasets": [name]}))))
    assert len(found) == 1
