"""The figures of a report as HTML: what is compared, the tables, and the plots."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence

from rag.evaluation.charts import Bar, Line, cumulative, intervals
from rag.evaluation.figures import better, told, told_change, told_interval
from rag.evaluation.html_escaping import plain
from rag.evaluation.measures import BY_NAME, Group, Measure
from rag.evaluation.summary import CONFIDENCE, Figure, Summary, VariantSummary

GROUPS: Mapping[Group, str] = {
    "retrieval": "Retrieval",
    "answer": "Answers",
    "grounding": "Grounding",
    "refusal": "Refusals",
    "judge": "Judge",
    "cost": "Time and cost",
}
# A group with more measures takes the whole width.
NARROW = 3
DRAWN = (
    "recall",
    "ndcg",
    "contains",
    "f1",
    "groundedness",
    "citation_recall",
    "refusal_recall",
    "judge",
)
NO_FIGURE = Figure(None)


def variants_html(summary: Summary) -> str:
    """What is compared, and how far it is."""
    rows = "".join(
        f"<tr><th scope=row>{_name(summary, number)}</th><td>{_changes(variant)}</td>"
        f"<td class=n>{variant.done:,} of {summary.size:,}</td><td class=n>{variant.cached:,}</td>"
        f"<td class=n>{variant.failed:,}</td></tr>"
        for number, variant in _ordered(summary)
    )
    return (
        '<section><h2>Variants</h2><div class="scroll"><table class="compared"><thead><tr>'
        "<th scope=col>Variant</th><th scope=col>Changes</th><th scope=col class=n>Answers</th>"
        "<th scope=col class=n>From the cache</th><th scope=col class=n>Failed</th>"
        f"</tr></thead><tbody>{rows}</tbody></table></div></section>\n"
    )


def tables_html(summary: Summary) -> str:
    """A table for each group of measures."""
    shown = list(summary.measures)
    if BY_NAME["cost"] not in shown:
        # That it is unknown is to be seen.
        shown.append(BY_NAME["cost"])
    tables = "".join(
        _table(summary, title, [measure for measure in shown if measure.group == group])
        for group, title in GROUPS.items()
        if any(measure.group == group for measure in shown)
    )
    base = plain(summary.variants[summary.baseline].name)
    compared = (
        f" Below it the difference to <b>{base}</b>, over the cases that both have: of a share in percentage "
        "points, coloured and named better or worse only where its interval excludes 0."
        if len(summary.variants) > 1
        else ""
    )
    return (
        f'<section><h2>Figures</h2><p class="lead">Each with its {100 * CONFIDENCE:.0f} % interval (bootstrap '
        f'over the cases).{compared}</p><div class="tables">{tables}</div></section>\n'
    )


def plots_html(summary: Summary, latencies: Sequence[Sequence[float]]) -> str:
    """The main measures of the variants, and how long their answers took.

    Args:
        summary: The table.
        latencies: Seconds, of each variant in any order.
    """
    order = [number for number, _ in _ordered(summary)]
    drawn = [
        intervals(
            measure.title,
            [Bar(summary.variants[number].name, _figure(summary, number, measure).estimate) for number in order],
            _teller(measure),
            baseline=0,
            limits=(0.0, 1.0) if measure.unit == "share" else (-math.inf, math.inf),
        )
        for measure in summary.measures
        if measure.name in DRAWN
    ]
    titles = [measure.title for measure in summary.measures if measure.name in DRAWN]
    if any(latencies):
        lines = [Line(summary.variants[number].name, latencies[number]) for number in order]
        titles.append("Latency: share of the answers that took at most so long")
        drawn.append(cumulative(titles[-1], lines, _teller(BY_NAME["latency_p50"])))
    if not drawn:
        return ""
    cards = "".join(
        f"<figure><figcaption>{plain(title)}</figcaption>{svg}</figure>"
        for title, svg in zip(titles, drawn, strict=True)
    )
    return (
        f'<section><h2>Plots</h2><p class="lead">Dots are figures, bars their intervals, the dashed line is the '
        f'baseline. Each plot has a scale of its own.</p><div class="plots">{cards}</div></section>\n'
    )


def _table(summary: Summary, title: str, measures: Sequence[Measure]) -> str:
    counts = {measure.name: _same_n(summary, measure) for measure in measures}
    heads = "".join(
        f'<th scope=col class=n title="{plain(measure.told)}">{plain(measure.title)}'
        f"<small>{'n ' + format(counts[measure.name], ',') if counts[measure.name] else ''}</small></th>"
        for measure in measures
    )
    rows = "".join(
        f"<tr><th scope=row>{_name(summary, number)}</th>"
        + "".join(
            _cell(measure, _figure(summary, number, measure), with_n=counts[measure.name] is None)
            for measure in measures
        )
        + "</tr>"
        for number, _ in _ordered(summary)
    )
    wide = " is-wide" if len(measures) > NARROW else ""
    return (
        f'<div class="scroll{wide}"><table class="figures"><caption>{title}</caption>'
        f"<thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _cell(measure: Measure, figure: Figure, *, with_n: bool) -> str:
    if figure.estimate is None:
        return f"<td class=n>{'unknown' if measure.unit == 'USD' else '–'}</td>"
    parts = [
        f"<b>{plain(told(measure, figure.estimate.value))}</b>",
        f"<small>{plain(told_interval(measure, figure.estimate))}</small>",
    ]
    parts += [f"<small>n {figure.estimate.n:,}</small>"] if with_n else []
    if figure.change is not None:
        sure = better(measure, figure.change)
        look, said = {True: ("is-better", " better"), False: ("is-worse", " worse"), None: ("is-open", "")}[sure]
        ends = " to ".join(_signed(measure, end) for end in (figure.change.low, figure.change.high))
        parts.append(f'<span class="change {look}">{plain(told_change(measure, figure.change))}{said}</span>')
        parts.append(f"<small>{plain(ends)}</small>")
    return f"<td class=n>{''.join(parts)}</td>"


def _ordered(summary: Summary) -> list[tuple[int, VariantSummary]]:
    """The variants with their numbers, the baseline first."""
    return sorted(enumerate(summary.variants), key=lambda each: each[0] != summary.baseline)


def _name(summary: Summary, number: int) -> str:
    badge = ' <span class="badge">baseline</span>' if number == summary.baseline else ""
    return f'<span dir="auto">{plain(summary.variants[number].name)}</span>{badge}'


def _changes(variant: VariantSummary) -> str:
    chips = (
        f"<code>{plain(name)} = {plain(json.dumps(value, ensure_ascii=False))}</code>"
        for name, value in variant.changes.items()
    )
    return " ".join(chips) or "none: the settings as they are"


def _figure(summary: Summary, number: int, measure: Measure) -> Figure:
    return summary.variants[number].figures.get(measure.name, NO_FIGURE)


def _same_n(summary: Summary, measure: Measure) -> int | None:
    """The number of cases where every figure rests on as many; None where they differ, or there is no figure."""
    found = [_figure(summary, number, measure).estimate for number, _ in _ordered(summary)]
    counts = {each.n for each in found if each is not None}
    return counts.pop() if len(counts) == 1 else None


def _signed(measure: Measure, value: float) -> str:
    return ("−" if value < 0 else "+" if value > 0 else "") + told(measure, abs(value))


def _teller(measure: Measure) -> Callable[[float], str]:
    return lambda value: told(measure, value)
