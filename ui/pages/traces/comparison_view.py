"""Two traces side by side as HTML. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rag.tracing.figures import format_measure, format_seconds
from rag.tracing.trace_comparison import StepPair, TraceComparison
from rag.tracing.trace_store import Span
from ui.pages.safe_markup import fragment
from ui.pages.traces.list_view import clock

VERDICTS: Mapping[str, str] = {"equal": "equal", "changed": "changed", "left": "only left", "right": "only right"}


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
            values = (measure.left, measure.right, measure.difference)
            left, right, difference = (format_measure(measure.name, value) for value in values)
            if measure.difference is None:
                difference = ""
            elif measure.difference > 0 and not difference.startswith("0 "):
                difference = f"+{difference}"
            yield measure.label, left, right, difference


def _seconds(span: Span | None) -> str:
    return "" if span is None or span.ended is None else format_seconds(max(span.ended - span.started, 0.0))


def _about(step: StepPair) -> str:
    return f"Differs in {', '.join(step.changes)}" if step.changes else ""
