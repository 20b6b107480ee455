"""The samples of an alert, read from the traces.

They are read from the traces and not from the sums by hour of the monitor: a window may be minutes, and a filter
may name any field. An answer counts when it has ended, and a thumb when it was given, so that a check of the past
sees what a check at that time has seen.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Engine, Select, and_, case, func, literal, select

from rag.alerting.alert_history import SCALE, Sample
from rag.alerting.alert_rules import DAY_S, Alert
from rag.database import reading
from rag.trace_tables import feedback, spans, traces
from rag.tracing.trace_query import TraceQuery, conditions

_row = traces.c
_ENDED: ColumnElement[float] = _row.started + func.coalesce(_row.latency_s, 0.0)
_TOKENS: ColumnElement[int] = func.coalesce(_row.input_tokens, 0) + func.coalesce(_row.output_tokens, 0)
# As JSON: other programs may have stored anything under this name, which a database refuses to make a number of.
_SUPPORT = spans.c.output["support"]


def read_samples(engine: Engine, alert: Alert, since: float, until: float) -> list[Sample]:
    """Return the samples of a time in order, ``until`` excluded.

    Raises:
        DatabaseError: The database refuses.
        FilterError: The filter is not understood.
    """
    found = _amounts(alert.metric)
    at = feedback.c.at if alert.metric == "thumbs_down" else _ENDED
    found = found.add_columns(at.label("at")).where(at >= since, at < until, _row.status != "running")
    # The index is by start; a thumb may come at any time after it.
    started = None if alert.metric == "thumbs_down" else since - DAY_S
    with reading(engine) as connection:
        kept = conditions(TraceQuery(alert.filter, since=started, until=until), connection)
        rows = connection.execute(found.where(*kept)).all()
    samples = [
        Sample(row.at, round(row.amount * SCALE))
        for row in rows
        if alert.metric != "support" or _is_share(row.amount)
    ]
    return sorted(samples, key=lambda sample: sample.at)


def _is_share(amount: object) -> bool:
    return isinstance(amount, int | float) and 0 <= amount <= 1


def _amounts(metric: str) -> Select[Any]:
    match metric:
        case "requests":
            return select(literal(1).label("amount")).select_from(traces)
        case "errors" | "abstained":
            wanted = "error" if metric == "errors" else metric
            return select(case((_row.status == wanted, 1), else_=0).label("amount"))
        case "thumbs_down":
            down = case((feedback.c.rating == "down", 1), else_=0)
            return select(down.label("amount")).select_from(traces.join(feedback))
        case "support":
            root = and_(spans.c.trace_id == _row.id, spans.c.parent_id.is_(None))
            return select(_SUPPORT.label("amount")).select_from(traces.join(spans, root))
        case "tokens":
            known = _row.input_tokens.is_not(None) | _row.output_tokens.is_not(None)
            return select(_TOKENS.label("amount")).where(known)
        case _:
            column = {"first_token": _row.first_token_s, "cost": _row.cost_usd}.get(metric, _row.latency_s)
            return select(column.label("amount")).where(column.is_not(None))
