"""The filter language of traces, as in ``latency > 2s and (feedback = down or status = error)``.

    filter     = [ or ]
    or         = and { "or" and }
    and        = not { [ "and" ] not }
    not        = "not" not | "(" or ")" | comparison | text
    comparison = field ( "=" | "!=" | ">" | ">=" | "<" | "<=" | "~" | "contains" ) value
    value      = word | quoted
    text       = word | quoted

A word is anything without white space, parentheses, quotation marks and the signs of comparisons. Quoted text may
contain all of these; in it, a backslash stands before a quotation mark or a backslash. A word or quoted text alone
is searched in question, answer and error. The fields and their values are in ``filter_fields``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from rag.errors import FilterSyntaxError
from rag.tracing.filter_fields import FIELDS, Operator, check_value

LONGEST = 2_000
"""Maximum characters of a filter."""
DEEPEST = 40
"""Maximum parentheses and negations around a condition."""
MOST_CONDITIONS = 60

_KEYWORDS = frozenset({"and", "or", "not", "contains"})
_TOKEN = re.compile(
    r"""\s+
    | (?P<quoted>"(?:[^"\\]|\\.)*")
    | (?P<open>\() | (?P<close>\))
    | (?P<operator>!=|>=|<=|=|>|<|~)
    | (?P<word>(?:[^\s()"=<>~!]|!(?!=))+)
    | (?P<broken>.)""",
    re.VERBOSE | re.DOTALL,
)
_SIGNS: dict[str, Operator] = {
    "=": "=", "!=": "!=", ">": ">", ">=": ">=", "<": "<", "<=": "<=", "~": "contains", "contains": "contains",
}  # fmt: skip
_NO_ORDER = frozenset({">", ">=", "<", "<="})
_PLAIN = re.compile(r'(?:[^\s()"=<>~!]|!(?!=))+')

Kind = Literal["quoted", "open", "close", "operator", "word", "broken", "end"]


@dataclass(frozen=True, slots=True)
class Words:
    """Text to be found in question, answer or error."""

    text: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """A condition on a field; ``value`` as it was written, without quotation marks."""

    field: str
    operator: Operator
    value: str


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite of a condition."""

    part: Filter


@dataclass(frozen=True, slots=True)
class All:
    """Conditions that all hold; without any, every trace matches."""

    parts: tuple[Filter, ...] = ()


@dataclass(frozen=True, slots=True)
class Some:
    """Two or more conditions, one of which holds."""

    parts: tuple[Filter, ...]


Filter = Words | Comparison | Not | All | Some


@dataclass(frozen=True, slots=True)
class _Token:
    kind: Kind
    text: str
    start: int
    end: int

    def is_word(self, word: str) -> bool:
        return self.kind == "word" and self.text.lower() == word

    @property
    def operator(self) -> Operator | None:
        is_one = self.kind == "operator" or self.is_word("contains")
        return _SIGNS[self.text.lower()] if is_one else None

    @property
    def value(self) -> str:
        return re.sub(r"\\(.)", r"\1", self.text[1:-1], flags=re.DOTALL) if self.kind == "quoted" else self.text


def parse_filter(text: str) -> Filter:
    """Parse a filter; without any word, every trace matches.

    Raises:
        FilterSyntaxError: A word is not understood; the error has its place.
    """
    if len(text) > LONGEST:
        raise FilterSyntaxError(
            f"The filter has {len(text):,} characters; at most {LONGEST:,} are allowed.", start=0, end=len(text)
        )
    # Characters that databases refuse.
    return _Parser(text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")).parse()


def print_filter(one: Filter) -> str:
    """Return the text of a filter, which parses to an equal filter."""
    match one:
        case Words(text):
            return _quoted(text)
        case Comparison(field, operator, value):
            return f"{field} {operator} {_quoted(value)}"
        case Not(part):
            return f"not {_inside(part)}"
        case All(parts):
            return " and ".join(map(_inside, parts))
        case Some(parts):
            return " or ".join(_inside(part) if isinstance(part, Some) else print_filter(part) for part in parts)


def both(first: str, second: str) -> str:
    """Return the text of a filter that keeps what both texts keep.

    Raises:
        FilterSyntaxError: One of them is not understood.
    """
    parts: list[Filter] = []
    for text in (first, second):
        parsed = parse_filter(text)
        parts += parsed.parts if isinstance(parsed, All) else (parsed,)
    return print_filter(All(tuple(dict.fromkeys(parts))))


def without(text: str, removed: str) -> str:
    """Return the text of a filter without those of its conditions that ``removed`` has.

    Raises:
        FilterSyntaxError: One of them is not understood.
    """
    gone = set(_conditions(parse_filter(removed)))
    return print_filter(All(tuple(part for part in _conditions(parse_filter(text)) if part not in gone)))


def has(text: str, wanted: str) -> bool:
    """Whether a filter has all conditions of another, so that it keeps nothing that the other leaves out.

    Raises:
        FilterSyntaxError: One of them is not understood.
    """
    return set(_conditions(parse_filter(wanted))) <= set(_conditions(parse_filter(text)))


def condition_on(text: str, field: str, operator: Operator) -> str:
    """Return the text of the condition on a field that a filter has, with this operator; empty without one.

    Raises:
        FilterSyntaxError: The filter is not understood.
    """
    for part in _conditions(parse_filter(text)):
        if isinstance(part, Comparison) and (part.field, part.operator) == (field, operator):
            return print_filter(part)
    return ""


def fields_in(one: Filter) -> Iterator[str]:
    """Yield the names of the fields that a filter compares; words alone are compared with ``text``."""
    match one:
        case Words(_):
            yield "text"
        case Comparison(field, _, _):
            yield field
        case Not(part):
            yield from fields_in(part)
        case All(parts) | Some(parts):
            for part in parts:
                yield from fields_in(part)


def _conditions(one: Filter) -> tuple[Filter, ...]:
    return one.parts if isinstance(one, All) else (one,)


def _inside(one: Filter) -> str:
    text = print_filter(one)
    return f"({text})" if isinstance(one, All | Some) else text


def _quoted(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _KEYWORDS:
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


class _Parser:
    """Reads one filter from left to right, with a method for every rule of the grammar."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0
        self._depth = 0
        self._conditions = 0

    def parse(self) -> Filter:
        found = All() if self._is_at_end else self._or()
        if not self._is_at_end:
            raise self._not_understood(self._next)
        return found

    @property
    def _is_at_end(self) -> bool:
        return self._next.kind == "end"

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._next
        self._at += token.kind != "end"
        return token

    def _or(self) -> Filter:
        parts = [self._and()]
        while self._next.is_word("or"):
            self._take()
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else Some(tuple(parts))

    def _and(self) -> Filter:
        parts = [self._not()]
        while self._next.kind not in ("end", "close") and not self._next.is_word("or"):
            if self._next.is_word("and"):
                self._take()
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _not(self) -> Filter:
        token = self._take()
        if token.is_word("not") or token.kind == "open":
            self._depth += 1
            if self._depth > DEEPEST:
                raise _error(token, f"is inside more than {DEEPEST} parentheses and negations")
            found = Not(self._not()) if token.kind == "word" else self._group(token)
            self._depth -= 1
            return found
        return self._condition(token)

    def _group(self, opened: _Token) -> Filter:
        found = self._or()
        if self._next.kind == "end":
            raise _error(opened, "is never closed", fix='Add a ")".')
        if self._next.kind != "close":
            raise self._not_understood(self._next)
        self._take()
        return found

    def _condition(self, token: _Token) -> Filter:
        self._conditions += 1
        if self._conditions > MOST_CONDITIONS:
            raise _error(token, f"is one of more than {MOST_CONDITIONS} conditions", fix="Shorten the filter.")
        if token.kind == "word" and self._next.operator and not token.is_word("contains"):
            return self._comparison(token)
        if token.kind not in ("word", "quoted") or (token.kind == "word" and token.text.lower() in _KEYWORDS):
            raise self._not_understood(token)
        if token.kind == "quoted" and self._next.kind == "operator":
            raise _error(token, "is quoted, and so not a field", fix="Remove the quotation marks.")
        return Words(token.value)

    def _comparison(self, name: _Token) -> Comparison:
        sign = self._take()
        field = FIELDS.get(name.text.lower())
        if field is None:
            raise _error(name, "is not a field", fix=_nearest(name.text, FIELDS))
        operator = _SIGNS[sign.text.lower()]
        if field.is_text and operator in _NO_ORDER:
            raise _error(sign, f"does not fit {field.name}, which has no order", fix="Use =, != or ~.")
        if not field.is_text and operator == "contains":
            raise _error(sign, f"does not fit {field.name}, which is no text", fix="Use =, !=, <, <=, > or >=.")
        value = self._take()
        if value.kind not in ("word", "quoted"):
            raise _error(sign, "needs a value behind it")
        if operator == "contains":
            return Comparison(field.name, operator, value.value)
        try:
            period = check_value(field, value.value)
        except ValueError as error:
            nearest = _nearest(value.value, field.choices) if field.choices else ""
            raise _error(value, f"does not fit {field.name}, which {error}", fix=nearest) from None
        if period and self._next.is_word("ago"):
            self._take()
        if period and period.instant and operator in ("=", "!="):
            raise _error(sign, f"does not fit {value.text}, which is an instant", fix="Use < or >.")
        return Comparison(field.name, operator, value.value)

    def _not_understood(self, token: _Token) -> FilterSyntaxError:
        if token.kind == "end":
            before = self._tokens[self._at - 1]
            return _error(before, "needs a condition behind it")
        if token.kind == "close":
            return _error(token, "closes nothing")
        if token.operator:
            return _error(token, "needs a field before it", fix="As in latency > 2s.")
        if token.kind == "broken":
            return _error(token, "begins quoted text that does not end", fix='Add a ".')
        return _error(token, "needs a condition before and behind it")


def _tokens(text: str) -> Iterator[_Token]:
    for found in _TOKEN.finditer(text):
        if found.lastgroup:
            yield _Token(found.lastgroup, found[0], found.start(), found.end())  # type: ignore[arg-type]
    yield _Token("end", "", len(text), len(text))


def _error(token: _Token, problem: str, *, fix: str = "") -> FilterSyntaxError:
    return FilterSyntaxError(
        f"The filter is not understood at character {token.start + 1}: {token.text} {problem}.",
        start=token.start,
        end=token.end,
        fix=fix,
    )


def _nearest(word: str, names: Iterable[str]) -> str:
    known = list(names)
    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return f"Did you mean {near[0]}?" if near else f"Known are {', '.join(known)}."
