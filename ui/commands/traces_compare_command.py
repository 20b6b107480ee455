"""``ragsmith traces compare``: two traces side by side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ui.commands._app import command_app
from ui.commands._console import open_console
from ui.commands._terminal_text import one_line, print_json, visible
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from rag.tracing.trace_comparison import StepPair, TraceComparison

_STYLES = {"equal": "dim", "changed": "yellow", "left": "red", "right": "green"}
_SIGNS = {"removed": ("[-", "-]", "red"), "added": ("{+", "+}", "green"), "same": ("", "", "")}


@click.command(name="compare")
@click.argument("left", metavar="A")
@click.argument("right", metavar="B")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
@pass_context
def compare_command(context: Context, left: str, right: str, as_json: bool) -> None:
    """Compare the steps and figures of two traces.

    The first or last six characters of their ids are enough.
    """
    from rag.tracing.trace_comparison import compare_traces

    with command_app(context) as app:
        found = compare_traces(app.stores.traces.get(left), app.stores.traces.get(right))
    if as_json:
        print_json(_as_json(found), indent=2)
    else:
        _show(found)


def _as_json(found: TraceComparison) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "left": found.left.id,
        "right": found.right.id,
        "steps": [
            {"name": step.name, "depth": step.depth, "verdict": step.verdict, "changes": list(step.changes)}
            for step in found.steps
        ],
        "texts": [asdict(text) for text in found.texts],
        "passages": [asdict(passage) | {"move": passage.move} for passage in found.passages],
        "settings": [asdict(setting) for setting in found.settings],
        "measures": [asdict(measure) | {"difference": measure.difference} for measure in found.measures],
    }


def _show(found: TraceComparison) -> None:
    from rich.text import Text

    console = open_console()
    for side, trace in (("A", found.left), ("B", found.right)):
        console.print(
            Text.assemble((f"{side} ", "bold"), f"{trace.id}  {one_line(trace.question)}"), soft_wrap=True
        )
    for title, lines in (
        ("figures", _measures(found)),
        ("settings", [f"{one.name}: {one.left or '–'} → {one.right or '–'}" for one in found.settings]),
        ("passages", _passages(found)),
    ):
        shown = list(lines)
        if shown:
            console.print(Text(f"\n{title}", style="bold"))
            for line in shown:
                console.print(Text(f"  {one_line(line)}"), soft_wrap=True)
    console.print(Text(f"\nsteps, {len(found.changed)} of {len(found.steps)} differ", style="bold"))
    for step in found.steps:
        console.print(_step(step), soft_wrap=True)
    for text in found.texts:
        console.print(Text(f"\n{one_line(text.where)}", style="bold"))
        shown_text = Text()
        for piece in text.pieces:
            opening, closing, style = _SIGNS[piece.kind]
            shown_text.append(f"{opening}{visible(piece.text)}{closing}", style=style)
        console.print(shown_text, soft_wrap=True)


def _step(step: StepPair) -> Any:
    from rich.text import Text

    verdict = {"left": "only in A", "right": "only in B"}.get(step.verdict, step.verdict)
    about = f" ({', '.join(step.changes)})" if step.changes else ""
    line = f"{'  ' * step.depth}{one_line(step.name)}  {verdict}{about}"
    return Text(line, style=_STYLES[step.verdict])


def _measures(found: TraceComparison) -> Iterator[str]:
    from rag.tracing.figures import format_measure

    for one in found.measures:
        if one.left is not None or one.right is not None:
            left, right = format_measure(one.name, one.left), format_measure(one.name, one.right)
            yield f"{one.label}: {left} → {right}"


def _passages(found: TraceComparison) -> Iterator[str]:
    for passage in found.passages:
        if passage.move != "kept":
            yield f"{passage.name}: {passage.move}, rank {passage.left or '–'} → {passage.right or '–'}"
