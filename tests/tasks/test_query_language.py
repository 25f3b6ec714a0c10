"""`--where`: every text is answered or refused with one message, and what is answered means what it
says.
"""

import contextlib
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import DTypeLike

from tasks.query import QueryError, where
from tasks.where.columns import of_frame
from tasks.where.language import DEEPEST, LONGEST
from tasks.where.nothing import why_nothing

FRAME = pd.DataFrame(
    {
        "steps": [1, 5, 10, 20],
        "w1": [0.5, np.nan, np.inf, 0.01],
        "sampler": ["heun", "ddim(eta=0.5)", "it's", ""],
        "torus-distance": [1.0, 2.0, 3.0, 4.0],
        "sliced-w2(projections=64)": [4.0, 3.0, 2.0, 1.0],
        "a@b=(c d": [1, 2, 3, 4],
        "and": [1, 2, 3, 4],
        "größe": [4, 3, 2, 1],
        "mixed": ["x", 1, None, ["y"]],
        "day": pd.to_datetime(["2026-03-01", "2026-03-02", "2026-03-03", "2026-03-04"]),
        "kept": [True, False, True, False],
    }
)


def rows(expression: str) -> list[int]:
    return np.flatnonzero(where(FRAME, expression)).tolist()


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("steps == 5", [1]),
        ("steps != 5", [0, 2, 3]),
        ("5 <= steps < 20", [1, 2]),
        ("5 < steps > 10", [3]),
        ("steps in [1, 20]", [0, 3]),
        ("steps in (1, 20)", [0, 3]),
        ("steps in (1)", [0]),
        ("steps in []", []),
        ("steps not in [1, 20]", [1, 2]),
        ("steps in [" + ", ".join(map(str, range(10, 40))) + "]", [2, 3]),
        ("sampler in [" + ", ".join(f"'{i}'" for i in range(40)) + ", 'heun']", [0]),
        ("not steps == 5", [0, 2, 3]),
        ("not not steps == 5", [1]),
        ("steps == 1 or steps == 5 and w1 < 1", [0]),
        ("(steps == 1 or steps == 5) and w1 < 1", [0]),
        ("not steps == 1 and steps < 20", [1, 2]),
        ("(steps) < (5)", [0]),
        ("w1 == w1", [0, 2, 3]),
        ("w1 != w1", [1]),
        ("w1 < 1e999", [0, 3]),
        ("w1 > -1", [0, 2, 3]),
        ("w1 > - 1 and w1 < +.5e0", [3]),
        ("steps<10", [0, 1]),
        ("steps > 1_0", [3]),
        ("sampler == 'heun'", [0]),
        ('sampler == "it\'s"', [2]),
        (r"sampler == 'it\'s'", [2]),
        ("sampler == ''", [3]),
        ("sampler >= 'i'", [2]),
        ("torus-distance > 3", [3]),
        ("`torus-distance` > 3", [3]),
        ("`sliced-w2(projections=64)` > 3", [0]),
        ("`a@b=(c d` == 2", [1]),
        ("`and` == 2 and steps == 5", [1]),
        ("größe == 4", [0]),
        ("`größe` == 4", [0]),
        ("torus-distance == steps", [0]),
        ("kept == 1", [0, 2]),
        ("1 < 2", [0, 1, 2, 3]),
        ("steps < " + "9" * 5000, [0, 1, 2, 3]),
        ("steps == " + "9" * 400, []),
        ("w1 < " + "9" * 400, [0, 3]),
        ("  steps\n==\t5  ", [1]),
    ],
)
def test_an_expression_means_what_it_says(expression: str, expected: list[int]) -> None:
    assert rows(expression) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("", "found the end"),
        ("smapler == 'heun'", "no column 'smapler'; did you mean 'sampler'?"),
        ("sampler = 'heun'", "not understood at character 9: expected a comparison, found '='; write '=='"),
        ("steps == 1 & w1 < 1", "write 'and'"),
        ("steps == 1 || w1 < 1", "write 'or'"),
        ("steps == ", "character 10"),
        ("steps", "expected a comparison, found the end"),
        ("steps == 1 w1 < 1", "character 12"),
        ("sampler == heun", "no column 'heun'"),
        ("sampler == 'heun", "a ' that is not closed"),
        ("`steps == 5", "a ` that is not closed"),
        ("`` == 5", "not closed"),
        ("steps == 'heun'", "compares a text with a number"),
        ("sampler == 1e999", "compares a text with a number"),
        ("sampler in [1]", "compares a text with a number"),
        ("steps in [1, 'heun']", "compares a text with a number"),
        ("steps in 5 6", "character 12"),
        ("steps in sampler", "after 'in' comes a list"),
        ("steps == [5]", "after 'in' only"),
        ("[5] == steps", "after 'in' only"),
        ("steps in [w1]", "a list holds numbers and quoted texts, found 'w1'"),
        ("steps in [1", "expected ',' or ']'"),
        ("(steps < 5", "expected ')'"),
        ("(steps < 5) < 5", "before the comparison"),
        ("5 < (steps < 5)", "after the comparison"),
        ("steps < 5 and w1", "expected a comparison"),
        ("steps == None", "no column 'None'"),
        ("steps + 1 < 5", "found '+'"),
        ("steps < -w1", "expected a column, a number or a quoted text, found 'w1'"),
        ("steps is 5", "expected a comparison"),
        ("f'x' == sampler", "expected a comparison"),
        ("steps < 1.2.3", "character 9"),
        ("größe == ٤", "character 10"),
        ("€ == 4", "character 1"),
        ("mixed < 'x'", "cannot be compared"),
        ("day < 5", "cannot be compared"),
        ("sampler == 'a\0'", "the character 0"),
        ("sampler == '\ud800'", "a surrogate"),
        ("steps == 1 or " * 800 + "steps == 1", f"longer than {LONGEST}"),
        ("(" * 5000 + "steps < 5" + ")" * 4000, "nested more than"),
        ("not " * 2000 + "steps < 5", "nested more than"),
        ("__import__('os').system('true')", "expected a comparison, found '('"),
        ("[c for c in ().__class__.__bases__]", "a list holds numbers and quoted texts"),
        ("(lambda: 1)() == 1", "not understood"),
        ("steps.__class__ == 1", "found '.'"),
    ],
)
def test_an_expression_that_makes_no_sense_is_refused_with_its_reason(expression: str, expected: str) -> None:
    with pytest.raises(QueryError) as refusal:
        where(FRAME, expression)
    assert expected in str(refusal.value)
    assert str(refusal.value).startswith("--where")
    assert len(str(refusal.value)) < 600


def test_conditions_as_deep_and_as_long_as_is_allowed_are_answered() -> None:
    assert rows("(" * DEEPEST + "steps < 5" + ")" * DEEPEST) == [0]
    assert rows("not " * DEEPEST + "steps < 5") == [0]
    long = "steps==5 or " * (LONGEST // 12 - 1) + "steps==1"
    assert len(long) > 0.99 * LONGEST
    assert rows(long) == [0, 1]


def _refused_or_answered(expression: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with contextlib.suppress(QueryError):
            found = where(FRAME, expression)
            assert found.dtype == bool
            assert found.shape == (len(FRAME),)


@settings(max_examples=500, deadline=None)
@given(st.text(st.characters(exclude_categories=[]), max_size=80))
def test_whatever_is_written_is_answered_or_refused(text: str) -> None:
    _refused_or_answered(text)


_pieces = st.sampled_from(
    [*(f"`{name}`" for name in FRAME), *FRAME, "==", "!=", "<", "<=", ">", ">=", "in", "not in", "not", "and", "or", "(", ")", "[",
     "]", ",", "1", "-2.5", "1e999", "9" * 400, "''", "'heun'", '"x"', "'", "`", "=", "-", ".", "\\", "nan", "None", "True", "is"]
)  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(st.lists(_pieces, max_size=25), st.sampled_from(["", " "]))
def test_whatever_is_made_of_the_language_s_own_words_is_answered_or_refused(pieces: list[str], between: str) -> None:
    _refused_or_answered(between.join(pieces))


@settings(max_examples=60, deadline=None)
@given(st.lists(_pieces, min_size=1, max_size=4), st.integers(1, 10_000))
def test_repetition_up_to_the_longest_expression_is_answered_or_refused(pieces: list[str], times: int) -> None:
    _refused_or_answered((" ".join(pieces) + " ") * min(times, LONGEST // (len(" ".join(pieces)) + 1)))


_numbers = st.sampled_from(["steps", "w1", "`torus-distance`", "torus-distance", "3", "-1.5", "10", "`and`", "1e999"])
_texts = st.sampled_from(["sampler", "'heun'", "'z'", '"it\'s"', "''"])
_relations = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
_comparisons = st.one_of(
    st.builds("{} {} {}".format, _numbers, _relations, _numbers),
    st.builds("{} {} {}".format, _texts, _relations, _texts),
    st.builds("{} {} {} {} {}".format, _numbers, _relations, _numbers, _relations, _numbers),
    st.builds("{} {} [{}, {}]".format, _numbers, st.sampled_from(["in", "not in"]), st.integers(), st.floats(0, 20)),
)
_conditions = st.recursive(
    _comparisons,
    lambda inner: st.one_of(
        st.builds("({}) and {}".format, inner, inner),
        st.builds("{} or ({})".format, inner, inner),
        st.builds("not {}".format, inner),
    ),
    max_leaves=8,
)


@settings(max_examples=500, deadline=None)
@given(_conditions)
def test_conditions_say_of_each_row_what_python_says_of_its_values(expression: str) -> None:
    names = {"torus-distance": "torus_distance", "and": "and_"}
    as_python = expression.replace("`torus-distance`", "torus_distance").replace("torus-distance", "torus_distance")
    as_python = as_python.replace("`and`", "and_")
    said = []
    for row in FRAME[["steps", "w1", "sampler", "torus-distance", "and"]].to_dict("records"):
        values = {names.get(str(name), str(name)): value for name, value in row.items()}
        said.append(bool(eval(as_python, {"__builtins__": {}}, values)))  # noqa: S307 - of our own making
    assert where(FRAME, expression).tolist() == said


def test_a_condition_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for expression in (
        f"open('{mark}', 'w') == 1",
        f"`open('{mark}', 'w')` == 1",
        f'sampler == \'open("{mark}", "w")\'',
    ):
        _refused_or_answered(expression)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("steps > 5 and w1 > 0", None),
        (
            "sampler == 'huen'",
            "sampler == 'huen' holds of none of the 4 points (sampler there: '', 'ddim(eta=0.5)', 'heun', \"it's\"; did you mean 'heun'?)",
        ),
        (
            "steps >= 10 and steps < 20 and sampler == 'heun'",
            "sampler == 'heun' holds of none of the 1 point with steps >= 10 and steps < 20 (sampler there: \"it's\")",
        ),
        (
            "w1 < 0 or not (steps > 0)",
            "(w1 < 0 or not (steps > 0)) holds of none of the 4 points (steps there: 1, 5, 10, 20; w1 there: 0.01, 0.5)",
        ),
        ("steps in [2, 3]", "steps in [2, 3] holds of none of the 4 points (steps there: 1, 5, 10, 20)"),
        ("steps == 5 and w1 > 0", "w1 > 0 holds of none of the 1 point with steps == 5 (w1 there: no number)"),
    ],
)
def test_what_leaves_nothing_is_named_with_what_is_there(expression: str, said: str | None) -> None:
    assert why_nothing(expression, of_frame(FRAME)) == (None if said is None else f"--where: {said}")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(["steps > 5", "w1 < 0.1", "sampler == 'heun'", "kept == 1", "steps in [1, 5]"]),
        min_size=1,
        max_size=4,
    )
)
def test_a_reason_is_given_exactly_where_nothing_is_left(parts: list[str]) -> None:
    expression = " and ".join(parts)
    assert (why_nothing(expression, of_frame(FRAME)) is None) == bool(rows(expression))


def test_a_frame_without_rows_has_no_row_that_satisfies_anything() -> None:
    assert where(FRAME.iloc[:0], "steps < 5 or 1 < 2").shape == (0,)


@pytest.mark.parametrize("kind", ["U", "O", "T"])
def test_texts_compare_alike_however_they_are_held(kind: str) -> None:
    from tasks.where.conditions import satisfied

    dtypes: dict[str, DTypeLike] = {"U": str, "O": object, "T": np.dtypes.StringDType()}
    columns = {"sampler": np.array(["heun", "ddim", "ä"], dtype=dtypes[kind])}
    for expression, expected in (
        ("sampler == 'heun'", [True, False, False]),
        ("sampler > 'e'", [True, False, True]),
        ("sampler in ['ddim', 'ä']", [False, True, True]),
        ("sampler not in [" + "'x', " * 20 + "'ddim']", [True, False, True]),
    ):
        assert satisfied(expression, columns, 3).tolist() == expected
