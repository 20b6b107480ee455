"""The alerts of a workspace, with the state of their last check."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Engine, Row, delete, select, update

from rag.alerting.alert_notices import Notice, add_notices, message_of
from rag.alerting.alert_rules import Alert, Check, State
from rag.database import insert_new, reading, writing
from rag.errors import AlertError
from rag.tables import alert_notices, alerts

_STATE = ("level", "since", "value", "checked", "notified")


@dataclass(frozen=True, slots=True)
class WatchedAlert:
    """An alert and its state."""

    alert: Alert
    state: State


class AlertStore:
    """Reads and writes alerts. Every method may raise DatabaseError; those that write, StorageFull."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def list(self) -> tuple[WatchedAlert, ...]:
        """Return all alerts by name."""
        with reading(self._engine) as connection:
            rows = connection.execute(select(alerts).order_by(alerts.c.name)).all()
        return tuple(_watched(row) for row in rows)

    def get(self, name: str) -> WatchedAlert:
        """Return an alert.

        Raises:
            AlertError: There is none of this name.
        """
        with reading(self._engine) as connection:
            row = connection.execute(select(alerts).where(alerts.c.name == name)).one_or_none()
        if row is None:
            raise _missing(name)
        return _watched(row)

    def save(self, alert: Alert) -> None:
        """Save an alert; one of the same name is replaced.

        It keeps its state, unless it watches another metric: then it begins anew, since the level and the value
        were those of the metric before.
        """
        row = asdict(alert) | {"channels": list(alert.channels)}
        named, begun = alerts.c.name == alert.name, asdict(State())
        with writing(self._engine) as connection:
            insert_new(connection, alerts, [row | begun])
            connection.execute(update(alerts).where(named, alerts.c.metric != alert.metric).values(**begun))
            connection.execute(update(alerts).where(named).values(**row))

    def remove(self, name: str) -> None:
        """Remove an alert with its notices.

        Raises:
            AlertError: There is none of this name.
        """
        with writing(self._engine) as connection:
            connection.execute(delete(alert_notices).where(alert_notices.c.alert == name))
            if not connection.execute(delete(alerts).where(alerts.c.name == name)).rowcount:
                raise _missing(name)

    def record(self, watched: WatchedAlert, check: Check) -> bool:
        """Store the state after a check, and queue its notices.

        Returns:
            False if another process has checked the alert meanwhile, or it was removed; nothing is stored then.
        """
        alert, before = watched.alert, watched.state
        unchanged = (
            alerts.c.name == alert.name,
            alerts.c.checked.is_(None) if before.checked is None else alerts.c.checked == before.checked,
        )
        message = message_of(alert, check, check.event) if check.event else None
        notices = [Notice(channel, message) for channel in alert.channels] if message else []
        with writing(self._engine) as connection:
            stored = connection.execute(update(alerts).where(*unchanged).values(**asdict(check.state)))
            if not stored.rowcount:
                return False
            add_notices(connection, notices, check.at)
        return True


def _watched(row: Row[Any]) -> WatchedAlert:
    values = dict(row._mapping)
    state = State(**{name: values.pop(name) for name in _STATE})
    return WatchedAlert(Alert(**values | {"channels": tuple(values["channels"])}), state)


def _missing(name: str) -> AlertError:
    return AlertError(f"There is no alert {name[:60]!r}.", fix="`ragsmith alerts list` shows them.")
