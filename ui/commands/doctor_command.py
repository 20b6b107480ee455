"""``ragsmith doctor``: check everything a run needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ui.context import Context, pass_context

if TYPE_CHECKING:
    from ui.doctor.check import Check


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list with one object per check.")
@click.pass_context
@pass_context
def command(context: Context, ctx: click.Context, as_json: bool) -> None:
    """Check everything a run needs, and name the fix of every failure.

    The exit status is 1 if a check failed; a warning is not a failure.
    """
    from ui.doctor.examination import examine

    checks = list(examine(context))
    if as_json:
        import json
        from dataclasses import asdict

        click.echo(json.dumps([asdict(check) for check in checks], indent=2, ensure_ascii=False))
    else:
        _show(checks)
    if any(check.ok is False for check in checks):
        ctx.exit(1)


def _show(checks: Sequence[Check]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    plain = not console.encoding.lower().startswith("utf")
    marks = {
        True: Text("+" if plain else "✓", style="green"),
        None: Text("!", style="yellow"),
        False: Text("x" if plain else "✗", style="bold red"),
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        table.add_row(marks[check.ok], check.name, Text(check.detail))
        if check.fix:
            table.add_row("", "", Text(check.fix, style="bold" if check.ok is False else "dim"))
    console.print(table)
