"""``ragsmith eval compare|pairs|report|gate``: judge a change by its run, for a person or for CI."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rag.tracing.figures import counted, format_cost, format_tokens
from ui.commands._app import command_app
from ui.commands._console import open_console
from ui.commands._finite_range import FiniteRange
from ui.commands._runs import change_cell, chosen_run, json_option, which
from ui.commands._terminal_text import note, one_line, print_json
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from rag.evaluation.compare import Comparison, Side
    from rag.evaluation.gate import Verdict
    from ui.app.evaluations import Evaluations

# Pairs between two lines of progress.
LINE_EVERY = 20

confidence_option = click.option(
    "--confidence",
    type=FiniteRange(0.5, 0.9999),
    default=0.95,
    show_default=True,
    help="The confidence level.",
)


@click.command()
@click.argument("one", metavar="RUN")
@click.argument("other", metavar="RUN")
@click.option(
    "--variant", default="", metavar="VARIANT", help="The variant of the first run; by default its baseline."
)
@click.option("--with", "with_variant", default="", metavar="VARIANT", help="The variant of the second run.")
@confidence_option
@json_option
@pass_context
def compare(
    context: Context, one: str, other: str, variant: str, with_variant: str, confidence: float, json_wanted: bool
) -> None:
    """Compare a variant of one RUN with one of another. Only common cases count."""
    with command_app(context) as app:
        evaluations = app.evaluations
        first = evaluations.side(evaluations.runs.get(one), variant)
        second = evaluations.side(evaluations.runs.get(other), with_variant)
        compared = evaluations.compare(first, second)
    _print_notes(compared)
    rows = _rows(compared, confidence)
    if json_wanted:
        print_json({"notes": compared.notes, "measures": rows})
        return
    _print(first, second, compared, confidence)


@click.command()
@which
@click.option(
    "--judge", required=True, metavar="MODEL", help="The model that judges: openai:NAME or local:PATH-OR-NAME."
)
@click.option("--variant", required=True, metavar="VARIANT", help="The variant expected to be better.")
@click.option("--baseline", default="", metavar="VARIANT", help="By default the run's first variant.")
@json_option
@pass_context
def pairs(context: Context, run: str | None, judge: str, variant: str, baseline: str, json_wanted: bool) -> None:
    """Let a model choose the better of two answers to every case.

    It compares two variants of a RUN. The model sees both orders of the two answers; if it contradicts itself,
    the case is a tie.
    """
    import asyncio

    from ui.app.pair_judging import compare_pairs

    with command_app(context) as app:
        evaluations = app.evaluations
        chosen = chosen_run(evaluations, run)
        one, other = evaluations.side(chosen, variant), evaluations.side(chosen, baseline)

        def show(done: int, total: int) -> None:
            if done % LINE_EVERY == 0 or done == total:
                note(f"{done:,}/{total:,} pairs")

        tally = asyncio.run(compare_pairs(evaluations, one, other, judge, show))
    if json_wanted:
        print_json({"variant": one.name, "baseline": other.name, **asdict(tally)})
        return
    click.echo(
        f"{one_line(one.name)} against {one_line(other.name)}: {tally.wins:,} better, {tally.losses:,} worse, "
        f"{counted(tally.ties, 'tie')}, {counted(tally.errors, 'judge error')}"
    )
    tokens = format_tokens(tally.usage.input_tokens, tally.usage.output_tokens)
    note(f"The judge took {tokens}, {format_cost(tally.cost_usd)}")
    if rate := tally.win_rate:
        click.echo(
            f"win rate {rate.value:.1%} (95 % interval {rate.low:.1%} to {rate.high:.1%}), a tie counted as half"
        )


@click.command()
@which
@click.option("--baseline", default="", metavar="VARIANT", help="The variant to compare the others with.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The file to write; by default evaluation-RUN.html here.",
)
@pass_context
def report(context: Context, run: str | None, baseline: str, out: Path | None) -> None:
    """Write the report of a RUN as one self-contained HTML file."""
    with command_app(context) as app:
        evaluations = app.evaluations
        chosen = chosen_run(evaluations, run)
        number = evaluations.variant_of(chosen, baseline) if baseline else 0
        target = out or Path(f"evaluation-{chosen.id}.html")
        evaluations.report(chosen, number, target)
    click.echo(str(target))


@click.command()
@which
@click.option("--variant", required=True, metavar="VARIANT", help="The candidate.")
@click.option("--baseline", default="", metavar="VARIANT", help="By default the run's first variant.")
@click.option("--baseline-run", default="", metavar="RUN", help="The run of the baseline; by default the same.")
@click.option(
    "--allow",
    "margins",
    multiple=True,
    required=True,
    metavar="METRIC=MARGIN",
    help="How much worse a metric may be, such as f1=0.02 or latency_p95=20%; can be repeated.",
)
@click.option("--strict", is_flag=True, help="Also fail if a worse result cannot be ruled out.")
@confidence_option
@json_option
@pass_context
def gate(context: Context, /, **options: Any) -> None:
    """Pass or fail a variant of a RUN against a baseline.

    RUN is the newest one by default. The exit status is 0 or 1.
    """
    from rag.evaluation.gate import gate as check_margins
    from rag.evaluation.gate import parse_margin

    wanted = _GateOptions(**options)
    margins = [parse_margin(text) for text in wanted.margins]
    with command_app(context) as app:
        compared = wanted.compared(app.evaluations)
        verdict = check_margins(
            compared.one, compared.other, margins, confidence=wanted.confidence, strict=wanted.strict
        )
    _print_notes(compared)
    if wanted.json_wanted:
        print_json(_verdict(verdict, compared.notes))
    else:
        for check in verdict.checks:
            click.secho(f"{'pass' if check.passed else 'FAIL'}  {one_line(check.reason)}", bold=not check.passed)
    if not verdict.passed:
        raise click.exceptions.Exit(1)


@dataclass(frozen=True, slots=True)
class _GateOptions:
    """The options of ``eval gate``."""

    run: str | None
    variant: str
    baseline: str
    baseline_run: str
    margins: tuple[str, ...]
    strict: bool
    confidence: float
    json_wanted: bool

    def compared(self, evaluations: Evaluations) -> Comparison:
        """Compare the variant with the baseline; both runs must have finished."""
        chosen = chosen_run(evaluations, self.run)
        base = evaluations.side(
            evaluations.runs.get(self.baseline_run) if self.baseline_run else chosen, self.baseline
        )
        for run in (chosen, base.run):
            if run.status != "finished":
                raise click.ClickException(
                    f"The run {run.id} is {run.status}, but a gate needs a finished run: "
                    f"`ragsmith eval resume {run.id}` continues it."
                )
        return evaluations.compare(base, evaluations.side(chosen, self.variant))


def _print_notes(compared: Comparison) -> None:
    for text in compared.notes:
        note(f"Careful: {text}")


def _rows(compared: Comparison, confidence: float) -> list[dict[str, Any]]:
    rows = []
    for row in compared.rows(confidence):
        parts = {"one": row.one.estimate, "other": row.other.estimate, "change": row.change}
        estimates = {name: asdict(estimate) if estimate else None for name, estimate in parts.items()}
        rows.append({"measure": row.metric.name, **estimates, "of": row.other.of})
    return rows


def _print(first: Side, second: Side, compared: Comparison, confidence: float) -> None:
    from rich.table import Table

    from rag.evaluation.metric_formatting import format_change_interval, format_figure

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for title in (one_line(first.name), one_line(second.name), "change", f"{confidence:.0%} interval", "cases"):
        table.add_column(title, justify="right")
    for row in compared.rows(confidence):
        table.add_row(
            row.metric.title,
            *(format_figure(row.metric, figure) for figure in (row.one, row.other)),
            change_cell(row.metric, row.change),
            format_change_interval(row.metric, row.change),
            f"{row.change.n:,}" if row.change else "",
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
