"""Two traces side by side as HTML. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rag.tracing.figures import format_cost, format_seconds
from rag.tracing.trace_comparison import Measure, StepPair, TraceComparison
from rag.tracing.trace_store import Span
from ui.pages.safe_markup import fragment
from ui.pages.traces.list_view import clock

VERDICTS: Mapping[str, str] = {"equal": "equal", "changed": "changed", "left": "only left", "right": "only right"}
_NAMES = {
    "latency_s": "time",
    "first_token_s": "first token",
    "cost_usd": "cost",
    "input_tokens": "tokens read",
    "output_tokens": "tokens written",
}


def comparison_html(found: TraceComparison) -> str:
    """Render the comparison: the left trace is the one that was chosen first."""
    return fragment(
        "traces_compare.html.jinja",
        found=found,
        sides=((found.left, clock(found.left.started)), (found.right, clock(found.right.started))),
        steps=[(step, VERDICTS[step.verdict], *map(_seconds, (step.left, step.right))) for step in found.steps],
        measures=list(measures_of(found)),
        moved=[passage for passage in found.passages if passage.move != "kept"],
        kept=sum(passage.move == "kept" for passage in found.passages),
        about=_about,
    )


def measures_of(found: TraceComparison) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, left, right and difference of the figures that either trace has."""
    for measure in found.measures:
        if measure.left is not None or measure.right is not None:
            shown = (_value(measure, each) for each in (measure.left, measure.right, measure.difference))
            left, right, difference = shown
            signed = difference if difference.startswith(("-", "unknown", "0", "$0")) else f"+{difference}"
            yield _NAMES[measure.name], left, right, "" if measure.difference is None else signed


def _value(measure: Measure, value: float | None) -> str:
    if value is None:
        return "unknown"
    if measure.name.endswith("_s"):
        return format_seconds(value, digits=3)
    return format_cost(value, exact=True) if measure.name == "cost_usd" else f"{value:,.0f}"


def _seconds(span: Span | None) -> str:
    return "" if span is None or span.ended is None else format_seconds(max(span.ended - span.started, 0.0))


def _about(step: StepPair) -> str:
    return f"Differs in {', '.join(step.changes)}" if step.changes else ""
