"""``ragsmith cost``: what was spent, by day, model, prompt, release, user, purpose or step."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from rag.tracing.figures import counted, format_cost, format_seconds
from ui.commands._app import command_app
from ui.commands._console import print_table
from ui.commands._terminal_text import note, print_json
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from rag.tracing.ledger import Grouping, LedgerRow, Spending

# As in rag.tracing.ledger, whose import takes a tenth of a second.
GROUPINGS = ("day", "model", "prompt", "release", "user", "purpose", "step")
NUMBERS = ("calls", "tokens in", "out", "cached", "machine", "cost", "saved", "unknown")


@click.command()
@click.option("--by", type=click.Choice(GROUPINGS), default="day", show_default=True, help="The groups.")
@click.option(
    "--since", metavar="WHEN", help="Only from this time on: 2026-11-03, today, yesterday, 24h, 7d or 2w."
)
@click.option("--until", metavar="WHEN", help="Only up to this time; a day is included.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with rows and total.")
@pass_context
def command(context: Context, by: Grouping, since: str | None, until: str | None, as_json: bool) -> None:
    """Show what was spent: calls, tokens, seconds of this machine and US dollars.

    Every model call counts: those of answers, of judges, of training and of ingestion. A call whose price is not
    known is counted under "unknown", and is not part of the cost.
    """
    from rag.tracing.ledger import NOTHING
    from rag.tracing.moments import parse_moment

    now = time.time()
    begin = None if since is None else parse_moment(since, now)
    end = None if until is None else parse_moment(until, now, end=True)
    with command_app(context) as app:
        rows = app.stores.ledger.rows(by, begin, end)
        total = sum((row.spending for row in rows), NOTHING)
        if as_json:
            print_json({"by": by, "rows": [_plain(row) for row in rows], "total": _amounts(total)}, indent=2)
            return
        if not rows:
            click.echo("Nothing was spent in this time." if since or until else "Nothing was spent yet.")
            return
        print_table(
            [by, *NUMBERS], [*(_row(row.name or "—", row.spending) for row in rows), _row("total", total)], NUMBERS
        )
        if total.unknown:
            note(
                f"{counted(total.unknown, 'call')} of unknown cost: add the model to a price list of your own "
                "(setting cost.prices)."
            )


def _row(name: str, spending: Spending) -> tuple[str, ...]:
    return (
        name,
        f"{spending.calls:,}",
        f"{spending.input_tokens:,}",
        f"{spending.output_tokens:,}",
        f"{spending.cached_tokens:,}",
        format_seconds(spending.seconds),
        format_cost(spending.cost_usd),
        format_cost(spending.saved_usd),
        f"{spending.unknown:,}",
    )


def _plain(row: LedgerRow) -> dict[str, Any]:
    return {"name": row.name, **_amounts(row.spending)}


def _amounts(spending: Spending) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(spending)
