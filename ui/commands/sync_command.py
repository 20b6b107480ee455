"""``ragsmith sync``: send what is pending to the trackers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import click

from rag.errors import RagsmithError
from ui.commands._app import command_app
from ui.commands._progress import shown_progress
from ui.commands._terminal_text import note, one_line, print_json
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag.tracing.delivery import Delivery


@dataclass(frozen=True, slots=True)
class _Sent:
    """What became of one delivery.

    Attributes:
        pending: Items that still wait.
        error: Why; empty if everything was sent.
    """

    name: str
    sent: int
    pending: int
    error: str = ""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with what was sent.")
@click.pass_context
@pass_context
def command(context: Context, ctx: click.Context, as_json: bool) -> None:
    """Send pending traces and runs to the trackers, such as the W&B server.

    Traces of commands wait in the workspace, and W&B runs on its disk until you are logged in. Ctrl-C stops; the
    next call goes on there, and sends nothing twice. The exit status is 1 if anything could not be sent.
    """
    with command_app(context) as app:
        outcomes = _send_all(app.tracking.deliveries(), quiet=as_json)
        if as_json:
            print_json({"deliveries": [asdict(outcome) for outcome in outcomes]}, indent=2)
        elif not any(outcome.sent or outcome.pending or outcome.error for outcome in outcomes):
            click.echo("Nothing is pending.")
        for error in dict.fromkeys(outcome.error for outcome in outcomes if outcome.error):
            note(f"Error: {one_line(error)}")
        if any(outcome.error for outcome in outcomes):
            ctx.exit(1)


def _send_all(deliveries: Sequence[Delivery], *, quiet: bool) -> list[_Sent]:
    """Send everything; a delivery that fails does not keep the others from theirs."""
    outcomes: dict[str, _Sent] = {}
    # Twice, because one delivery may leave something for another: traces become W&B runs on the disk.
    for delivery in (*deliveries, *deliveries):
        before = outcomes.get(delivery.name, _Sent(delivery.name, 0, 0))
        if before.error:
            continue
        outcome = _send(delivery)
        if outcome.sent and not quiet:
            click.echo(f"Sent {outcome.sent:,}: {outcome.name}.")
        outcomes[delivery.name] = replace(outcome, sent=before.sent + outcome.sent)
    return list(outcomes.values())


def _send(delivery: Delivery) -> _Sent:
    pending, sent, error = 0, 0, ""
    try:
        if pending := delivery.pending():
            extent = float(pending)
            with shown_progress(
                lambda number: f"{number:,} of {pending:,}: {delivery.name}", lambda number: (number, extent)
            ) as show:

                def progress(number: int) -> None:
                    nonlocal sent
                    sent = number
                    show(number)

                progress(0)
                sent = delivery.send(progress)
            pending = delivery.pending()
    except RagsmithError as failure:
        error, pending = str(failure), max(pending - sent, 0)
    return _Sent(delivery.name, sent, pending, error)
