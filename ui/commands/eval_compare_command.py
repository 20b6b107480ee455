"""``ragsmith eval compare|pairs|report|gate``: what a run says of a change, for a person or for CI."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ui.commands._app import command_app
from ui.commands._console import open_console
from ui.commands._runs import change_cell, chosen_run, json_option, which
from ui.commands._terminal_text import note, one_line, print_json
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from rag.evaluation.compare import Comparison, Side
    from rag.evaluation.gate import Verdict

# Pairs between two lines of progress.
TOLD_EVERY = 20

confidence_option = click.option(
    "--confidence", type=click.FloatRange(0.5, 0.9999), default=0.95, show_default=True, help="Of the intervals."
)


@click.command()
@click.argument("one", metavar="RUN")
@click.argument("other", metavar="RUN")
@click.option("--variant", default="", help="Of the first run; by default its baseline.")
@click.option("--with", "with_variant", default="", metavar="VARIANT", help="Of the second run.")
@confidence_option
@json_option
@pass_context
def compare(
    context: Context, one: str, other: str, variant: str, with_variant: str, confidence: float, json_wanted: bool
) -> None:
    """Compare a variant of one RUN with a variant of another, over the cases that both were asked."""
    with command_app(context) as app:
        evaluations = app.evaluations
        first = evaluations.side(evaluations.runs.get(one), variant)
        second = evaluations.side(evaluations.runs.get(other), with_variant)
        compared = evaluations.compare(first, second)
    for each in compared.notes:
        note(f"Careful: {each}")
    rows = _rows(compared, confidence)
    if json_wanted:
        print_json({"notes": compared.notes, "measures": rows})
        return
    _print(first, second, compared, confidence)


@click.command()
@which
@click.option(
    "--judge", required=True, metavar="MODEL", help="A model that judges: openai:NAME, local:PATH-OR-NAME."
)
@click.option("--variant", required=True, help="Whose answers are to be the better ones.")
@click.option("--baseline", default="", metavar="VARIANT", help="By default the run's first variant.")
@json_option
@pass_context
def pairs(context: Context, run: str | None, judge: str, variant: str, baseline: str, json_wanted: bool) -> None:
    """Let a model say of each case of a RUN which of two variants answered better.

    It is asked twice, the answers in either order; where it contradicts itself it is a tie.
    """
    import asyncio

    from ui.app.pair_judging import compare_pairs

    with command_app(context) as app:
        evaluations = app.evaluations
        chosen = chosen_run(evaluations, run)
        one, other = evaluations.side(chosen, variant), evaluations.side(chosen, baseline)

        def tell(done: int, of: int) -> None:
            if done % TOLD_EVERY == 0 or done == of:
                note(f"{done:,}/{of:,} pairs")

        told = asyncio.run(compare_pairs(evaluations, one, other, judge, tell))
    if json_wanted:
        print_json({"variant": one.name, "baseline": other.name, **asdict(told)})
        return
    click.echo(
        f"{one_line(one.name)} against {one_line(other.name)}: {told.wins:,} better, {told.losses:,} worse, "
        f"{told.ties:,} ties, {told.errors:,} judge errors"
    )
    if told.win_rate:
        click.echo(
            f"win rate {told.win_rate.value:.1%} (95 % interval {told.win_rate.low:.1%} to "
            f"{told.win_rate.high:.1%}), a tie counted as half"
        )


@click.command()
@which
@click.option("--baseline", default="", metavar="VARIANT", help="What the others are compared with.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where to; by default evaluation-RUN.html here.",
)
@pass_context
def report(context: Context, run: str | None, baseline: str, out: Path | None) -> None:
    """Write the report of a RUN: one HTML file that needs nothing else to be read."""
    with command_app(context) as app:
        evaluations = app.evaluations
        chosen = chosen_run(evaluations, run)
        number = evaluations.variant_of(chosen, baseline) if baseline else 0
        target = out or Path(f"evaluation-{chosen.id}.html")
        evaluations.report(chosen, number, target)
    click.echo(str(target))


@click.command()
@which
@click.option("--variant", required=True, help="The candidate.")
@click.option("--baseline", default="", metavar="VARIANT", help="By default the run's first variant.")
@click.option("--baseline-run", default="", metavar="RUN", help="Where the baseline is of another run.")
@click.option(
    "--allow",
    "margins",
    multiple=True,
    required=True,
    metavar="MEASURE=MARGIN",
    help="How much worse a measure may be, such as f1=0.02 or latency_p95=20%; may be given several times.",
)
@click.option("--strict", is_flag=True, help="Fail also where it cannot be excluded that it is worse.")
@confidence_option
@json_option
@pass_context
def gate(
    context: Context,
    run: str | None,
    variant: str,
    baseline: str,
    baseline_run: str,
    margins: tuple[str, ...],
    strict: bool,
    confidence: float,
    json_wanted: bool,
) -> None:
    """Pass or fail a variant of a RUN against a baseline: the exit status is 0 or 1, and the reasons are told."""
    from rag.evaluation.gate import gate as held_against
    from rag.evaluation.gate import parse_margin

    wanted = [parse_margin(text) for text in margins]
    with command_app(context) as app:
        evaluations = app.evaluations
        chosen = chosen_run(evaluations, run)
        base = evaluations.side(evaluations.runs.get(baseline_run) if baseline_run else chosen, baseline)
        for asked in (chosen, base.run):
            if asked.status != "finished":
                raise click.ClickException(
                    f"The run {asked.id} is {asked.status}, and half a run passes nothing: `ragsmith eval resume "
                    f"{asked.id}` goes on."
                )
        compared = evaluations.compare(base, evaluations.side(chosen, variant))
        verdict = held_against(compared.one, compared.other, wanted, confidence=confidence, strict=strict)
    for each in compared.notes:
        note(f"Careful: {each}")
    if json_wanted:
        print_json(_verdict(verdict, compared.notes))
    else:
        for check in verdict.checks:
            click.secho(f"{'pass' if check.passed else 'FAIL'}  {one_line(check.reason)}", bold=not check.passed)
    if not verdict.passed:
        raise click.exceptions.Exit(1)


def _rows(compared: Comparison, confidence: float) -> list[dict[str, Any]]:
    from rag.evaluation.summary import change, metrics_of

    rows = []
    for measure in metrics_of([compared.one, compared.other]):
        parts = {
            "one": compared.one.estimate(measure, confidence),
            "other": compared.other.estimate(measure, confidence),
            "change": change(compared.one, compared.other, measure, confidence),
        }
        told = {name: asdict(estimate) if estimate else None for name, estimate in parts.items()}
        rows.append({"measure": measure.name, **told})
    return rows


def _print(first: Side, second: Side, compared: Comparison, confidence: float) -> None:
    from rich.table import Table

    from rag.evaluation.metric_formatting import format_interval, format_metric
    from rag.evaluation.summary import change, metrics_of

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for title in (one_line(first.name), one_line(second.name), "change", f"{confidence:.0%} interval", "cases"):
        table.add_column(title, justify="right")
    for measure in metrics_of([compared.one, compared.other]):
        estimates = [columns.estimate(measure, confidence) for columns in (compared.one, compared.other)]
        moved = change(compared.one, compared.other, measure, confidence)
        table.add_row(
            measure.title,
            *(format_metric(measure, each.value if each else None) for each in estimates),
            change_cell(measure, moved),
            format_interval(measure, moved),
            f"{moved.n:,}" if moved else "",
        )
    open_console().print(table)


def _verdict(verdict: Verdict, notes: tuple[str, ...]) -> dict[str, Any]:
    return {
        "passed": verdict.passed,
        "confidence_of_each": verdict.confidence,
        "notes": notes,
        "checks": [
            {
                "measure": check.metric.name,
                "state": check.state,
                "passed": check.passed,
                "reason": check.reason,
                "change": asdict(check.change) if check.change else None,
            }
            for check in verdict.checks
        ],
    }
