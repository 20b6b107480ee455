"""Budgets of a conversation and of a day: a warning before they are spent, and no answers after.

Only known costs count, and only of finished answers: those in progress may exceed a budget by what they cost.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Protocol

from rag.errors import BudgetSpent
from rag.settings import CostSettings
from rag.tracing.figures import format_cost
from rag.tracing.ledger import Ledger, day_start

# Other processes spend, too; what this one spends is known at once.
_KNOWN_S = 1.0


class Budget(Protocol):
    """Says whether more may be spent. Methods may read the database.

    Attributes:
        is_limited: Whether it can be spent at all; without limits, no thread is needed to ask it.
    """

    is_limited: bool

    def check(self, conversation_id: str | None = None) -> None:
        """Refuse to spend more in a conversation; None for what belongs to none.

        Raises:
            BudgetSpent: The budget of the conversation or of the day is spent.
            DatabaseError: The database refuses.
        """

    def warning(self, conversation_id: str | None = None) -> str:
        """Return a notice if most of a budget is spent, else nothing.

        Raises:
            DatabaseError: The database refuses.
        """

    def spent(self) -> None:
        """Note that something was spent."""


class NoBudget:
    """A budget without limits."""

    is_limited = False

    def check(self, conversation_id: str | None = None) -> None:
        """Refuse nothing."""

    def warning(self, conversation_id: str | None = None) -> str:
        """Return nothing."""
        return ""

    def spent(self) -> None:
        """Note nothing."""


class LimitedBudget:
    """The budgets of the settings.

    Args:
        ledger: What was spent.
        settings: The budgets.
    """

    is_limited = True

    def __init__(self, ledger: Ledger, settings: CostSettings) -> None:
        self._ledger = ledger
        self._settings = settings
        self._today = 0.0
        self._read_at = float("-inf")

    def check(self, conversation_id: str | None = None) -> None:
        """Refuse to spend more; see ``Budget.check``."""
        day, session = self._settings.day_usd, self._settings.session_usd
        if day is not None and (spent := self._day_usd()) >= day:
            raise BudgetSpent(
                f"The budget of the day is spent: {_amounts(spent, day)}.",
                fix="Raise the setting cost.day_usd, or ask again tomorrow.",
            )
        if session is not None and conversation_id and (spent := self._session_usd(conversation_id)) >= session:
            raise BudgetSpent(
                f"The budget of this conversation is spent: {_amounts(spent, session)}.",
                fix="Raise the setting cost.session_usd, or start a new conversation.",
            )

    def warning(self, conversation_id: str | None = None) -> str:
        """Return a notice if most of a budget is spent; see ``Budget.warning``."""
        settings, notices = self._settings, []
        if settings.day_usd is not None and (spent := self._day_usd()) >= settings.warn_at * settings.day_usd:
            notices.append(f"today's budget: {_amounts(spent, settings.day_usd)} spent")
        if settings.session_usd is not None and conversation_id:
            spent = self._session_usd(conversation_id)
            if spent >= settings.warn_at * settings.session_usd:
                notices.append(f"budget of this conversation: {_amounts(spent, settings.session_usd)} spent")
        return ", ".join(notices)

    def spent(self) -> None:
        """Read the ledger again before the next answer."""
        self._read_at = float("-inf")

    def _day_usd(self) -> float:
        now = time.monotonic()
        if now - self._read_at > _KNOWN_S:
            today = datetime.now().astimezone().date()
            self._today, self._read_at = self._ledger.total(day_start(today)).cost_usd, now
        return self._today

    def _session_usd(self, conversation_id: str) -> float:
        return self._ledger.conversation_usd(conversation_id)


def open_budget(ledger: Ledger, settings: CostSettings) -> Budget:
    """Return the budgets of the settings."""
    if settings.day_usd is None and settings.session_usd is None:
        return NoBudget()
    return LimitedBudget(ledger, settings)


def _amounts(spent: float, budget: float) -> str:
    return f"{format_cost(spent)} of {format_cost(budget)}"
