"""`filterByFormula`: the part of Airtable's formula language that clients write."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from twm_pipeline.sandbox.airtable_errors import RefusedError

Value = Any  # None, text, number, boolean or moment
Row = Callable[[str], Value]  # a cell by the field's name or id, and what `SPECIAL` names
Node = Callable[[Row], Value]
TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<text>'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\")"
    r"|\{(?P<field>(?:\\.|[^}\\])*)\}|(?P<name>[^\W\d]\w*)|(?P<sign>!=|>=|<=|[=<>&+\-*/(),]))",
    re.DOTALL,
)
ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
SPECIAL = ("RECORD_ID", "CREATED_TIME", "LAST_MODIFIED_TIME")
DEEPEST = 50


class FormulaError(Exception):
    """A formula that cannot be read, or a value that it cannot be applied to."""


ERRORS = (FormulaError, TypeError, ValueError, ZeroDivisionError, OverflowError, re.error)


def compile_formula(text: str, *, knows: Callable[[str], bool]) -> Node:
    """Return a formula ready to be applied to rows.

    Args:
        text: The formula.
        knows: Says whether a field of this name exists.

    Raises:
        RefusedError: If it cannot be read.
    """
    try:
        return Parser(text, knows).parse()
    except FormulaError as error:
        message = f"The formula for filtering records is invalid: {error}"
        raise RefusedError(422, "INVALID_FILTER_BY_FORMULA", message) from None


def holds(formula: Node, row: Row) -> bool:
    """Say whether a formula is true for a row; an error in it is not."""
    try:
        return is_true(formula(row))
    except (*ERRORS, RecursionError):
        return False


class Parser:
    """Reads one formula by recursive descent.

    Args:
        text: The formula.
        knows: Says whether a field of this name exists.
    """

    def __init__(self, text: str, knows: Callable[[str], bool]) -> None:
        self._tokens = list(tokens(text))
        self._knows = knows
        self._depth = 0

    def parse(self) -> Node:
        """Return the whole formula."""
        node = self._comparison()
        if self._tokens:
            raise FormulaError(f"unexpected {self._tokens[0][1]}")
        return node

    def _next(self, *signs: str) -> str | None:
        if self._tokens and self._tokens[0][0] == "sign" and self._tokens[0][1] in signs:
            return self._tokens.pop(0)[1]
        return None

    def _binary(self, below: Callable[[], Node], *signs: str) -> Node:
        left = below()
        while sign := self._next(*signs):
            left = applied(BINARY[sign], left, below())
        return left

    def _comparison(self) -> Node:
        return self._binary(self._joined, "=", "!=", "<", "<=", ">", ">=")

    def _joined(self) -> Node:
        return self._binary(self._sum, "&")

    def _sum(self) -> Node:
        return self._binary(self._product, "+", "-")

    def _product(self) -> Node:
        return self._binary(self._single, "*", "/")

    def _single(self) -> Node:
        if self._next("-"):
            return applied(lambda value: -number(value), self._nested(self._single))
        if self._next("("):
            node = self._nested(self._comparison)
            self._close()
            return node
        if not self._tokens or self._tokens[0][0] == "sign":
            raise FormulaError("a value is missing")
        kind, token = self._tokens.pop(0)
        if kind == "name" and self._next("("):
            return self._call(token.upper())
        if kind in ("field", "name"):
            return self._field(token)
        value: Value = float(token) if kind == "number" else token
        return lambda _: value

    def _nested(self, inside: Callable[[], Node]) -> Node:
        self._depth += 1
        if self._depth > DEEPEST:
            raise FormulaError("nested too deeply")
        node = inside()
        self._depth -= 1
        return node

    def _close(self) -> None:
        if not self._next(")"):
            raise FormulaError("a parenthesis is missing")

    def _field(self, name: str) -> Node:
        if not self._knows(name):
            raise FormulaError(f"Unknown field names: {name.lower()}")
        return lambda row: row(name)

    def _call(self, name: str) -> Node:
        arguments: list[Node] = []
        if not self._next(")"):
            arguments.append(self._nested(self._comparison))
            while self._next(","):
                arguments.append(self._nested(self._comparison))
            self._close()
        if name in SPECIAL and not arguments:
            return lambda row: row(name)
        if name == "IF" and len(arguments) in (2, 3):
            return conditional(*arguments)
        fewest, most, function = FUNCTIONS.get(name, (1, 0, len))
        if not fewest <= len(arguments) <= most:
            raise FormulaError(f"Unknown function names or wrong number of arguments: {name}")
        return applied(function, *arguments)


def tokens(text: str) -> Iterator[tuple[str, str]]:
    """Yield the kinds and texts of tokens, without quotes and escapes."""
    place, text = 0, text.rstrip()
    while place < len(text):
        found = TOKEN.match(text, place)
        if found is None or found.lastgroup is None:
            raise FormulaError(f"unexpected {text[place : place + 10]}")
        place, kind, token = found.end(), found.lastgroup, found[found.lastgroup]
        if kind == "text":
            token = token[1:-1]
        if kind in ("text", "field"):
            token = re.sub(r"\\(.)", lambda hit: ESCAPES.get(hit[1], hit[1]), token, flags=re.DOTALL)
        yield kind, token


def applied(function: Callable[..., Value], *arguments: Node) -> Node:
    """Return a function of what other nodes give."""
    return lambda row: function(*(argument(row) for argument in arguments))


def conditional(test: Node, yes: Node, no: Node = lambda _: None) -> Node:
    """Return `IF`, which looks at one branch only."""
    return lambda row: yes(row) if is_true(test(row)) else no(row)


def is_true(value: Value) -> bool:
    """Say whether a value counts as true."""
    return value not in (None, "", 0)


def text(value: Value) -> str:
    """Return a value as text."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)


def number(value: Value) -> float:
    """Return a value as a number; blank is zero."""
    if value is None:
        return 0.0
    if isinstance(value, bool | int | float):
        return float(value)
    raise FormulaError("not a number")


def moment(value: Value) -> datetime:
    """Return a value as a moment, in UTC unless it says otherwise."""
    if isinstance(value, datetime):
        return value
    parsed = datetime.fromisoformat(text(value))
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def compare(test: Callable[[Any, Any], bool]) -> Callable[[Value, Value], bool]:
    """Return a comparison of two values of whatever types."""

    def compared(left: Value, right: Value) -> bool:
        if isinstance(left, datetime) or isinstance(right, datetime):
            if left in (None, "") or right in (None, ""):
                return test(text(left), text(right)) if test in (operator.eq, operator.ne) else False
            return test(moment(left), moment(right))
        if isinstance(left, str) or isinstance(right, str):
            return test(text(left), text(right))
        if (left is None) != (right is None) and test in (operator.eq, operator.ne):
            return test(0, 1)  # Blank is no number, not even zero.
        return test(number(left), number(right))

    return compared


def find(what: Value, where: Value, start: Value = 0) -> int:
    """Return the place of a text in another from 1, 0 for none."""
    return text(where).find(text(what), max(int(number(start)) - 1, 0)) + 1


BINARY: dict[str, Callable[[Value, Value], Value]] = {
    "=": compare(operator.eq),
    "!=": compare(operator.ne),
    "<": compare(operator.lt),
    "<=": compare(operator.le),
    ">": compare(operator.gt),
    ">=": compare(operator.ge),
    "&": lambda left, right: text(left) + text(right),
    "+": lambda left, right: number(left) + number(right),
    "-": lambda left, right: number(left) - number(right),
    "*": lambda left, right: number(left) * number(right),
    "/": lambda left, right: number(left) / number(right),
}
MANY = 1000
FUNCTIONS: dict[str, tuple[int, int, Callable[..., Value]]] = {
    "AND": (1, MANY, lambda *values: all(map(is_true, values))),
    "OR": (1, MANY, lambda *values: any(map(is_true, values))),
    "XOR": (1, MANY, lambda *values: sum(map(is_true, values)) % 2 == 1),
    "NOT": (1, 1, lambda value: not is_true(value)),
    "TRUE": (0, 0, lambda: True),
    "FALSE": (0, 0, lambda: False),
    "BLANK": (0, 0, lambda: None),
    "LEN": (1, 1, lambda value: len(text(value))),
    "LOWER": (1, 1, lambda value: text(value).lower()),
    "UPPER": (1, 1, lambda value: text(value).upper()),
    "TRIM": (1, 1, lambda value: text(value).strip()),
    "LEFT": (2, 2, lambda value, count: text(value)[: int(number(count))]),
    "EXACT": (2, 2, lambda left, right: text(left) == text(right)),
    "FIND": (2, 3, find),
    "SEARCH": (2, 3, lambda what, where, start=0: find(what, where, start) or None),
    "CONCATENATE": (1, MANY, lambda *values: "".join(map(text, values))),
    "ARRAYJOIN": (1, 2, lambda value, _=None: text(value)),
    "VALUE": (1, 1, lambda value: float(text(value))),
    "ABS": (1, 1, lambda value: abs(number(value))),
    "FLOOR": (1, 1, lambda value: math.floor(number(value))),
    "REGEX_MATCH": (2, 2, lambda value, pattern: re.search(text(pattern), text(value)) is not None),
    "DATETIME_PARSE": (1, 3, lambda value, *_: moment(value)),
    "DATESTR": (1, 1, lambda value: moment(value).date().isoformat()),
    "IS_BEFORE": (2, 2, lambda left, right: moment(left) < moment(right)),
    "IS_AFTER": (2, 2, lambda left, right: moment(left) > moment(right)),
    "IS_SAME": (2, 3, lambda left, right, _=None: moment(left) == moment(right)),
}
