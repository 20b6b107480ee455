"""Trainings side by side as HTML: a table, curves, and for a sweep what mattered in it. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune.run_comparison import ComparedRun, GroupBy, RunComparison, grouped, written
from finetune.sweeps.search_space import varies
from finetune.sweeps.sweep_results import SweepResults
from finetune.sweeps.sweep_study import least_completed
from finetune.training_preview import TrainingPreview
from rag.tracing.figures import counted, format_cost, format_seconds
from ui.pages.safe_markup import fragment
from ui.pages.tune.curve_charts import Curve, chart
from ui.pages.tune.parallel_coordinates import parallel_coordinates


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """A run in a table; ``number`` is its place among all, which chooses its colour."""

    number: int
    name: str
    state: str
    message: str
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ComparedGroup:
    """A table with its title."""

    title: str
    losses: str
    rows: tuple[ComparedRow, ...]


def estimated_html(trials: int, preview: TrainingPreview) -> str:
    """Render how long a sweep takes at most: that of a training in the middle of what is tried, for all trials."""
    figures = (
        ("time at most", format_seconds(trials * preview.estimated_s)),
        ("each", format_seconds(preview.estimated_s)),
        ("memory", f"{preview.memory_bytes / 1e9:.1f} GB"),
        ("cost at most", format_cost(trials * preview.usd)),
        ("rows", f"{preview.rows:,} + {preview.validation_rows:,}"),
    )
    return fragment("tune_sweep_estimate.html.jinja", figures=figures, trials=counted(trials, "trial"))


def sweep_html(results: SweepResults, by: GroupBy | None, problem: str = "") -> str:
    """Render the trials of a sweep, and why its process has ended early."""
    sweep, runs = results.sweep, results.comparison.runs
    states = [run.state for run in runs]
    counts = [f"{states.count(state)} {state}" for state in ("done", "pruned", "failed") if state in states]
    head = f"{sweep.name}: {sweep.method}, {len(runs)} of {counted(results.trials, 'trial')}"
    shares = [(name, f"{share:.0%}", f"{100 * share:.1f}") for name, share in results.importance.items()]
    unknown = f"The importance of each setting is known when {least_completed(results.fields)} trials are done."
    return _html(
        results.comparison,
        by,
        {
            "head": " · ".join([head, *counts]),
            "problem": problem,
            "parallel": parallel_coordinates([dimension for dimension in sweep.space if varies(dimension)], runs),
            "shares": shares,
            "unknown_importance": unknown if len(results.fields) > 1 and not shares else "",
        },
    )


def comparison_html(comparison: RunComparison, by: GroupBy | None) -> str:
    """Render runs side by side."""
    return _html(
        comparison, by, {"head": "", "problem": "", "parallel": None, "shares": (), "unknown_importance": ""}
    )


def _html(comparison: RunComparison, by: GroupBy | None, more: Mapping[str, object]) -> str:
    curves = [Curve(run.name, run.curve) for run in comparison.runs]
    return fragment(
        "tune_compare.html.jinja",
        groups=_groups(comparison, by),
        differing=comparison.differing,
        common=[(name, written(value)) for name, value in comparison.common.items()],
        chart=chart("Validation loss by step", curves, "{:.3f}"),
        **more,
    )


def _groups(comparison: RunComparison, by: GroupBy | None) -> list[ComparedGroup]:
    numbers = {run.name: number for number, run in enumerate(comparison.runs)}

    def rows(runs: Sequence[ComparedRun]) -> tuple[ComparedRow, ...]:
        return tuple(_row(numbers[run.name], run, comparison.differing) for run in runs)

    if by is None:
        return [ComparedGroup("", "", rows(comparison.runs))]
    return [
        ComparedGroup(
            f"{by} {group.name or 'none'}",
            "" if group.best is None else f"best {group.best:.4f}, median {group.median:.4f}",
            rows(group.runs),
        )
        for group in grouped(comparison, by)
    ]


def _row(number: int, run: ComparedRun, differing: Sequence[str]) -> ComparedRow:
    loss = "" if run.loss is None else f"{run.loss:.4f}"
    values = [written(run.settings.get(name)) for name in differing]
    message = run.message if run.state == "failed" else ""
    return ComparedRow(number, run.name, run.state, message, (loss, f"{run.step:,}" if run.step else "", *values))
