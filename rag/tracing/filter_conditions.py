"""Filters of traces as conditions of SQLAlchemy, with every value as a bound parameter.

A condition is true or false for every trace, never unknown: where a trace lacks a number, no comparison with it
holds, and ``!=`` and ``not`` keep the trace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, exists, false, func, not_, or_, select, true

from rag.trace_tables import feedback as feedback_table
from rag.trace_tables import traces as traces_table
from rag.tracing.filter_fields import ANY_PURPOSE, FIELDS, NO_FEEDBACK, Field, read_moment, read_value
from rag.tracing.trace_filter import All, Comparison, Filter, Not, Some, Words
from rag.tracing.trace_search import has_text

Column = ColumnElement[Any]
Condition = ColumnElement[bool]

_row = traces_table.c

# Unknown only if both counts are.
TOKENS: Column = case(
    (and_(_row.input_tokens.is_(None), _row.output_tokens.is_(None)), None),
    else_=func.coalesce(_row.input_tokens, 0) + func.coalesce(_row.output_tokens, 0),
)
COLUMNS: Mapping[str, Column] = {
    "status": _row.status,
    "question": _row.question,
    "answer": _row.answer,
    "error": _row.error,
    "latency": _row.latency_s,
    "first_token": _row.first_token_s,
    "tokens": TOKENS,
    "input_tokens": _row.input_tokens,
    "output_tokens": _row.output_tokens,
    "cost": _row.cost_usd,
    "corpus": _row.corpus,
    "model": _row.model,
    "prompt": _row.prompt,
    "release": _row.release,
    "session": func.coalesce(_row.conversation_id, ""),
    "user": _row.user_name,
    "purpose": _row.purpose,
    "started": _row.started,
    "code": _row.code,
}
_SEARCHED = (_row.question, _row.answer, _row.error)

_ORDERS: Mapping[str, Callable[[Column, Any], Condition]] = {
    "=": lambda column, value: column == value,
    ">": lambda column, value: column > value,
    ">=": lambda column, value: column >= value,
    "<": lambda column, value: column < value,
    "<=": lambda column, value: column <= value,
}


def condition(one: Filter, now: float, connection: Connection) -> Condition:
    """Return the condition for the traces that a filter keeps.

    Args:
        now: Seconds since the epoch, for times such as ``today``.
        connection: Where the condition will be used.
    """
    match one:
        case Words(text):
            return has_text(connection, text)
        case Comparison():
            return _comparison(one, now, connection)
        case Not(part):
            return not_(condition(part, now, connection))
        case All(parts):
            return and_(true(), *(condition(part, now, connection) for part in parts))
        case Some(parts):
            return or_(false(), *(condition(part, now, connection) for part in parts))


def _comparison(one: Comparison, now: float, connection: Connection) -> Condition:
    field = FIELDS[one.field]
    if one.operator == "!=":
        return not_(_comparison(Comparison(one.field, "=", one.value), now, connection))
    if one.field in ("feedback", "comment"):
        return _feedback(one)
    if one.field == "text":
        return _any_text(one, connection)
    column = COLUMNS[one.field]
    if one.operator == "contains":
        return column.icontains(one.value, autoescape=True)
    if field.kind == "moment":
        return _moment(column, one, now)
    return _ordered(field, column, one)


def _ordered(field: Field, column: Column, one: Comparison) -> Condition:
    value = read_value(field, one.value)
    if value is None:
        # Nothing is more or less than what is unknown.
        return column.is_(None) if one.operator in ("=", ">=", "<=") else false()
    if field.name == "purpose" and value == ANY_PURPOSE:
        return true()
    if field.name == "prompt" and "@" not in one.value:
        return or_(column == value, column.startswith(f"{value}@", autoescape=True))
    compared = _ORDERS[one.operator](column, value)
    return compared if field.is_text else and_(column.is_not(None), compared)


def _moment(column: Column, one: Comparison, now: float) -> Condition:
    period = read_moment(one.value, now)
    match one.operator:
        case ">":
            return column >= period.end
        case ">=":
            return column >= period.start
        case "<":
            return column < period.start
        case "<=":
            # An instant has no moment before its end.
            return column < period.end if not period.instant else column <= period.end
        case _:
            return and_(column >= period.start, column < period.end)


def _any_text(one: Comparison, connection: Connection) -> Condition:
    if one.operator == "contains":
        return has_text(connection, one.value)
    return or_(*(column == one.value for column in _SEARCHED))


def _feedback(one: Comparison) -> Condition:
    rated = feedback_table.c
    if one.field == "comment":
        matched = rated.comment.icontains(one.value, autoescape=True)
        matched = matched if one.operator == "contains" else rated.comment == one.value
    elif one.operator == "contains":
        matched = rated.rating.icontains(one.value, autoescape=True)
    elif one.value.lower() == NO_FEEDBACK:
        return not_(exists().where(rated.trace_id == _row.id))
    else:
        matched = rated.rating == one.value.lower()
    return _row.id.in_(select(rated.trace_id).where(matched))
