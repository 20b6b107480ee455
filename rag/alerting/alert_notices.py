"""Notices of alerts: what they say, and the queue of those that wait for their channel.

A notice is queued in the transaction that stores the new level, so that a crash loses none and a restart repeats
none. One that cannot be sent is tried again after growing pauses. What a crash makes uncertain is sent once more
with the same id.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, insert, select, update

from rag.alerting.alert_rules import DAY_S, METRICS, Alert, ChannelName, Check, Event, Level, Unit
from rag.alerting.alert_texts import finding_text
from rag.database import reading, writing
from rag.tables import alert_notices as table

KEPT_S = 7 * DAY_S
"""Seconds for which notices are kept."""
MOST_ATTEMPTS = 12
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 30.0, 3_600.0
# After so long another process may try: whoever took a notice has died.
_TAKEN_S = 600.0


@dataclass(frozen=True, slots=True)
class Message:
    """What a notice says.

    Attributes:
        event: ``changed`` for a new level, ``reminder`` for one that stays, ``test`` for a trial.
        before: The level before.
        at: The time of the check, in seconds since the epoch.
        value: The value of the metric in its unit; None without data.
        alert_at, warn_at: The thresholds in the same unit.
        text: A sentence for people.
    """

    alert: str
    event: Event
    level: Level
    before: Level
    at: float
    metric: str
    unit: Unit
    value: float | None
    alert_at: float
    warn_at: float | None
    direction: str
    window_s: float
    filter: str
    text: str

    @property
    def title(self) -> str:
        """One line for people."""
        kind = " (test)" if self.event == "test" else " (reminder)" if self.event == "reminder" else ""
        return f"ragsmith: {self.alert} is {'ok again' if self.level == 'ok' else self.level}{kind}"


@dataclass(frozen=True, slots=True)
class Notice:
    """A message for one channel.

    Attributes:
        attempts: How often it was tried.
        next_at: When it is tried again, in seconds since the epoch; None if it was sent or given up.
        error: Why the last attempt failed.
    """

    channel: ChannelName
    message: Message
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    attempts: int = 0
    next_at: float | None = None
    sent: float | None = None
    error: str = ""

    @property
    def payload(self) -> dict[str, Any]:
        """What programs receive as JSON."""
        return {"id": self.id, "title": self.message.title, **asdict(self.message)}


def message_of(alert: Alert, check: Check, event: Event) -> Message:
    """Return the message about a check."""
    state = check.state
    return Message(
        alert=alert.name,
        event=event,
        level=state.level,
        before=check.before,
        at=check.at,
        metric=alert.metric,
        unit=METRICS[alert.metric].unit,
        value=state.value,
        alert_at=alert.alert_at,
        warn_at=alert.warn_at,
        direction=alert.direction,
        window_s=alert.window_s,
        filter=alert.filter,
        text=finding_text(alert, state.value, state.level),
    )


def pause_s(attempts: int) -> float:
    """Return the seconds from a failed attempt, counted from 1, to the next one."""
    return min(_FIRST_PAUSE_S * 2.0 ** (attempts - 1), _LONGEST_PAUSE_S)


def add_notices(connection: Connection, notices: Sequence[Notice], now: float) -> None:
    """Queue notices in the transaction of ``connection``, and delete old ones."""
    connection.execute(delete(table).where(table.c.at < now - KEPT_S))
    rows = [
        {
            "id": notice.id,
            "alert": notice.message.alert,
            "channel": notice.channel,
            "at": notice.message.at,
            "message": asdict(notice.message),
            "attempts": 0,
            "next_at": now,
            "error": "",
        }
        for notice in notices
    ]
    if rows:
        connection.execute(insert(table), rows)


class NoticeQueue:
    """The queue of a workspace. Every method may raise DatabaseError; those that write, StorageFull."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def take(self, now: float) -> Notice | None:
        """Take the oldest notice that is due, so that no other process sends it; None if none is."""
        due = select(table).where(table.c.next_at <= now).order_by(table.c.at, table.c.id)
        while True:
            with reading(self._engine) as connection:
                row = connection.execute(due.limit(1)).one_or_none()
            if row is None:
                return None
            unchanged = (table.c.id == row.id, table.c.attempts == row.attempts, table.c.next_at == row.next_at)
            taken = {"attempts": row.attempts + 1, "next_at": now + _TAKEN_S}
            with writing(self._engine) as connection:
                if connection.execute(update(table).where(*unchanged).values(taken)).rowcount:
                    return _notice(row, attempts=row.attempts + 1)

    def sent(self, notice: Notice) -> None:
        """Note that a notice was sent."""
        self._set(notice, {"next_at": None, "sent": time.time(), "error": ""})

    def failed(self, notice: Notice, error: str, now: float) -> None:
        """Note why a notice was not sent; it is given up after ``MOST_ATTEMPTS``."""
        again = None if notice.attempts >= MOST_ATTEMPTS else now + pause_s(notice.attempts)
        self._set(notice, {"next_at": again, "error": error})

    def troubles(self) -> dict[str, list[Notice]]:
        """Return by alert, for each channel whose last notice could not be sent, that notice."""
        tried = select(table).where(table.c.attempts > 0).order_by(table.c.at)
        with reading(self._engine) as connection:
            rows = connection.execute(tried).all()
        last = {(row.alert, row.channel): row for row in rows}
        found: dict[str, list[Notice]] = {}
        for (alert, _channel), row in sorted(last.items()):
            if row.sent is None and row.error:
                found.setdefault(alert, []).append(_notice(row))
        return found

    def _set(self, notice: Notice, values: Mapping[str, Any]) -> None:
        with writing(self._engine) as connection:
            connection.execute(update(table).where(table.c.id == notice.id).values(**values))


def _notice(row: Row[Any], attempts: int | None = None) -> Notice:
    return Notice(
        row.channel,
        Message(**row.message),
        row.id,
        row.attempts if attempts is None else attempts,
        row.next_at,
        row.sent,
        row.error,
    )
