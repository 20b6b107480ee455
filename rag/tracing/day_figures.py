"""What a day has cost and how its answers went, for the summary of the day's W&B run."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from rag.tracing.ledger import Ledger, Spending, day_start
from rag.tracing.measures import FIRST_TOKEN, LATENCY, STATUS, THUMB, Measures
from rag.types import Purpose

if TYPE_CHECKING:
    from sqlalchemy import Engine

# They have runs of their own, and would hide how the answers to people went.
WITHOUT: tuple[Purpose, ...] = ("evaluation", "lab")


def day_of(at: float) -> date:
    """Return the day of a time in the time zone of this machine; ``at`` in seconds since the epoch."""
    return datetime.fromtimestamp(at).astimezone().date()


def day_figures(engine: Engine, day: date) -> dict[str, float]:
    """Return the figures of a day, at most 20, without those that are unknown.

    ``cost/…`` and ``day/…_tokens`` are the sums of the ledger for everything of the day; ``status/…`` and the
    other figures count the questions without evaluations and the lab.

    Raises:
        DatabaseError: The database cannot be read.
    """
    since, until = day_start(day), day_start(day + timedelta(days=1))
    spent = Ledger(engine).total(since, until)
    measured = Measures(engine).total(since, WITHOUT, until)
    found: dict[str, float | None] = {
        **cost_values(spent),
        "day/input_tokens": spent.input_tokens,
        "day/output_tokens": spent.output_tokens,
        "day/questions": measured.answers,
        "day/abstained_share": measured.share("abstained"),
        "day/latency_p50_s": measured.percentile(LATENCY, 0.5),
        "day/latency_p95_s": measured.percentile(LATENCY, 0.95),
        "day/first_token_p50_s": measured.percentile(FIRST_TOKEN, 0.5),
        "day/thumbs_up": measured.number(f"{THUMB}up"),
        "day/thumbs_down": measured.number(f"{THUMB}down"),
    }
    found |= {name: measured.number(name) for name in measured.counts if name.startswith(STATUS)}
    return {name: value for name, value in found.items() if value is not None}


def cost_values(spending: Spending) -> dict[str, float]:
    """Return what a run has cost, for its history or summary; the same names in every kind of run."""
    return {
        "cost/total_usd": spending.cost_usd,
        "cost/saved_usd": spending.saved_usd,
        "cost/unknown_calls": spending.unknown,
        "cost/machine_s": spending.seconds,
    }
