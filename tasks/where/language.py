"""The language of `--where`: conditions on columns, read by a parser of its own and never by
Python's.

    condition  = all {"or" all}
    all        = one {"and" one}
    one        = "not" one | side {comparison side} | "(" condition ")"
    comparison = "==" | "!=" | "<" | "<=" | ">" | ">=" | "in" | "not" "in"
    side       = column | number | text | list
    list       = "[" [constant {"," constant}] "]", or with parentheses
    column     = letters, digits, "_" and "-" (torus-distance), or anything but "`" between backticks
    text       = between single or double quotes; a backslash before a quote or a backslash takes it as it is

Comparisons chain (``4 <= steps < 20``). Numbers compare with numbers, texts with texts, by their
characters. NaN satisfies no comparison but ``!=``. There are no functions, no attributes and no
arithmetic, so whatever is read costs at most one pass over a column for each comparison: length,
depth and digits are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from diffusion.errors import WrongInput
from tasks.messages import shown

LONGEST = 10_000
DEEPEST = 50
_MOST_DIGITS = 18  # of an integer that is compared exactly
_KEYWORDS = frozenset({"and", "or", "not", "in"})
_TRY = "try: sampler == 'heun' and steps <= 20"

RELATIONS = ("==", "!=", "<", "<=", ">", ">=")
_INSTEAD = {"=": "==", "&": "and", "&&": "and", "|": "or", "||": "or", "!": "not", "~": "not", "<>": "!="}
_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<number>(?:[0-9][0-9_]*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?(?![\w.]))
      | (?P<word>[^\W\d]\w*(?:-\w+)*)
      | (?P<quoted>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
      | (?P<named>`[^`]+`)
      | (?P<sign>==|!=|<=|>=|<>|&&|\|\||[<>()\[\],=&|!~+-])""",
    re.VERBOSE | re.DOTALL,
)


class QueryError(WrongInput, ValueError):
    """A question that makes no sense; the message says where and what would."""

    kind = "wrong-query"


class UnknownColumn(QueryError, KeyError):
    """A column, metric or axis that the results do not have."""

    kind = "unknown-column"


class _Token(NamedTuple):
    kind: str
    text: str
    place: int  # counted from 1

    def __str__(self) -> str:
        if self.kind == "stray" and self.text in "'\"`":
            return f"a {self.text} that is not closed"
        return "the end" if self.kind == "end" else shown(self.text)


@dataclass(frozen=True)
class Column:
    """The values of a column."""

    name: str


@dataclass(frozen=True)
class Constant:
    """A number or a text."""

    value: float | str


@dataclass(frozen=True)
class Among:
    """What may stand after ``in``."""

    values: tuple[float | str, ...]


@dataclass(frozen=True)
class Relation:
    """One relation between two sides; a chain is several, all of which hold."""

    left: Column | Constant
    relation: str
    right: Column | Constant | Among


@dataclass(frozen=True)
class Not:
    """What holds where the part does not."""

    part: Condition


@dataclass(frozen=True)
class Several:
    """Parts of which all hold, or any."""

    every: bool
    parts: tuple[Condition, ...]


Condition = Relation | Not | Several
Side = Column | Constant | Among


def parse(expression: str) -> Condition:
    """What an expression says.

    Raises:
        QueryError: the expression cannot be understood; the message has the place.
    """
    if len(expression) > LONGEST:
        raise QueryError(f"longer than {LONGEST} characters")
    try:
        expression.encode()
    except UnicodeEncodeError as error:
        raise QueryError(f"character {error.start + 1} is half of one (a surrogate)") from None
    return _Parser(expression).whole()


def named(condition: Condition) -> frozenset[str]:
    """The columns that a condition names."""
    match condition:
        case Relation(left, _, right):
            return frozenset(side.name for side in (left, right) if isinstance(side, Column))
        case Not(part):
            return named(part)
        case Several(_, parts):
            return frozenset().union(*map(named, parts))


def _tokens(expression: str) -> Iterator[_Token]:
    place = 0
    while place < len(expression):
        found = _TOKEN.match(expression, place)
        if found is None:  # where reading ends
            yield _Token("stray", expression[place], place + 1)
            break
        if found.lastgroup != "space":
            yield _Token(str(found.lastgroup), found.group(), place + 1)
        place = found.end()
    yield _Token("end", "", place + 1)


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, expression: str) -> None:
        self._tokens = list(_tokens(expression))
        self._next = 0
        self._depth = 0

    def whole(self) -> Condition:
        condition = self._condition(self._any())
        if self._token.kind != "end":
            raise self._wrong(f"expected a comparison, 'and', 'or' or the end, found {self._token}")
        return condition

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _wrong(self, why: str) -> QueryError:
        instead = _INSTEAD.get(self._token.text) if self._token.kind == "sign" else None
        message = f"{why}; write {instead!r}" if instead else why
        return QueryError(f"not understood at character {self._token.place}: {message} ({_TRY})")

    def _take(self, *texts: str) -> str | None:
        """The next token's text if it is one of `texts`, which are words or signs; then the one
        after it is next.
        """
        token = self._token
        if token.kind in ("word", "sign") and token.text in texts:
            self._next += 1
            return token.text
        return None

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise QueryError(f"nested more than {DEEPEST} deep")

    def _condition(self, found: Condition | Side) -> Condition:
        if isinstance(found, Column | Constant | Among):
            raise self._wrong(f"expected a comparison, found {self._token}")
        return found

    def _any(self) -> Condition | Side:
        return self._several("or", self._all)

    def _all(self) -> Condition | Side:
        return self._several("and", self._one)

    def _several(self, word: str, read: Callable[[], Condition | Side]) -> Condition | Side:
        first = read()
        if self._token.text != word or self._token.kind != "word":
            return first
        parts = [self._condition(first)]
        while self._take(word):
            parts.append(self._condition(read()))
        return Several(word == "and", tuple(parts))

    def _one(self) -> Condition | Side:
        if self._take("not"):
            self._deeper()
            part = self._condition(self._one())
            self._depth -= 1
            return Not(part)
        left, parts = self._side(), []
        while relation := self._relation():
            if isinstance(left, Among):
                raise QueryError("a list stands after 'in' only")
            if isinstance(left, Relation | Not | Several):
                raise self._wrong("expected a column, a number or a text before the comparison")
            right = self._side()
            if isinstance(right, Relation | Not | Several):
                raise self._wrong("expected a column, a number or a text after the comparison")
            parts.append(self._comparison(left, relation, right))
            left = right
        if not parts:
            return left
        return parts[0] if len(parts) == 1 else Several(True, tuple(parts))

    def _relation(self) -> str | None:
        if self._token.text == "not" and self._tokens[self._next + 1].text == "in":
            self._next += 2
            return "not in"
        return self._take(*RELATIONS, "in")

    def _comparison(self, left: Column | Constant, relation: str, right: Side) -> Relation:
        if relation not in RELATIONS and isinstance(right, Constant):  # in (20): parentheses, one constant
            right = Among((right.value,))
        if relation not in RELATIONS and not isinstance(right, Among):
            raise QueryError("after 'in' comes a list, such as ['euler', 'heun']")
        if relation in RELATIONS and isinstance(right, Among):
            raise QueryError("a list stands after 'in' only")
        return Relation(left, relation, right)

    def _side(self) -> Condition | Side:
        if self._take("["):
            return self._list("]", [])
        if self._take("("):
            if self._take(")"):
                return Among(())
            self._deeper()
            inner = self._any()
            self._depth -= 1
            if isinstance(inner, Constant) and self._take(","):
                return self._list(")", [inner.value])
            if not self._take(")"):
                raise self._wrong(f"expected ')', found {self._token}")
            return inner
        return self._column_or_constant()

    def _list(self, end: str, values: list[float | str]) -> Among:
        while not self._take(end):
            item = self._column_or_constant()
            if isinstance(item, Column):
                raise QueryError(f"a list holds numbers and quoted texts, found {shown(item.name)}")
            values.append(item.value)
            if not self._take(",") and self._token.text != end:
                raise self._wrong(f"expected ',' or {end!r}, found {self._token}")
        return Among(tuple(values))

    def _column_or_constant(self) -> Column | Constant:
        negative = self._take("-", "+") == "-"
        signed = self._tokens[self._next - 1].text in ("-", "+") if self._next else False
        token = self._token
        self._next += 1
        if token.kind == "number":
            value = _number(token.text)
            return Constant(-value if negative else value)
        if token.kind == "quoted" and not signed:
            text = re.sub(r"\\(['\"\\])", r"\1", token.text[1:-1])
            if "\0" in text:
                raise QueryError("a text holds the character 0")
            return Constant(text)
        if token.kind == "named" and not signed:
            return Column(token.text[1:-1])
        if token.kind == "word" and token.text not in _KEYWORDS and not signed:
            return Column(token.text)
        self._next -= 1
        raise self._wrong(f"expected a column, a number or a quoted text, found {token}")


def _number(text: str) -> float:
    digits = text.replace("_", "")
    return int(digits) if digits.isdigit() and len(digits) <= _MOST_DIGITS else float(digits)
