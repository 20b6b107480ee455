"""Trainings side by side, for the terminal and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ui.commands._console import print_table
from ui.commands._terminal_text import one_line, print_json

if TYPE_CHECKING:
    from finetune.run_comparison import ComparedRun, GroupBy, RunComparison
    from finetune.sweeps.sweep_results import SweepResults

_LEVELS = "▁▂▃▄▅▆▇█"
# Validations of a curve in the table.
_SHOWN = 24
# Columns of hyperparameters in the table.
_MOST_COLUMNS = 12


def print_results(results: SweepResults, by: GroupBy | None = None, *, as_json: bool) -> None:
    """Print the trials of a sweep, and the importance of its fields."""
    from finetune.sweeps.sweep_study import least_completed

    comparison = results.comparison
    if as_json:
        sweep = results.sweep
        print_json(
            {
                "sweep": sweep.name,
                "method": sweep.method,
                "trials": results.trials,
                "space": list(map(str, sweep.space)),
                **_as_json(comparison, by),
                "importance": dict(results.importance),
            },
            indent=2,
        )
        return
    print_comparison(comparison, by, as_json=False)
    if results.importance:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in results.importance.items())
        click.echo(f"Importance: {shares}")
    elif len(results.fields) > 1:
        click.echo(f"Importance: not known before {least_completed(results.fields)} trials are done.")


def print_comparison(comparison: RunComparison, by: GroupBy | None = None, *, as_json: bool) -> None:
    """Print runs side by side, the best first, with the hyperparameters that differ."""
    from finetune.run_comparison import grouped, written

    if as_json:
        print_json(_as_json(comparison, by), indent=2)
        return
    shown = comparison.differing[:_MOST_COLUMNS]
    headings = ("run", "state", "validation loss", "step", "curve", *shown)
    bounds = _bounds(comparison.runs)
    numbers = ("validation loss", "step", *shown)
    for group in grouped(comparison, by) if by else (None,):
        if group is not None:
            best = "" if group.best is None else f": best {group.best:.4f}, median {group.median:.4f}"
            click.echo(f"{by} {one_line(group.name) or 'none'}{best}")
        runs = comparison.runs if group is None else group.runs
        print_table(headings, [_row(run, shown, bounds) for run in runs], numbers)
        if group is not None:
            click.echo()
    if comparison.common:
        same = ", ".join(f"{name} {written(value)}" for name, value in comparison.common.items())
        click.echo(one_line(f"The same in all: {same}"))
    for run in comparison.runs:
        if run.state == "failed":
            click.echo(one_line(f"{run.name} failed: {run.message}"))


def _row(run: ComparedRun, shown: Iterable[str], bounds: tuple[float, float]) -> list[str]:
    from finetune.run_comparison import written

    loss = "" if run.loss is None else f"{run.loss:.4f}"
    values = [written(run.settings.get(name)) for name in shown]
    return [run.name, run.state, loss, str(run.step or ""), _curve(run, bounds), *values]


def _bounds(runs: Iterable[ComparedRun]) -> tuple[float, float]:
    """Return the lowest and the highest validation loss of all runs, so that their curves have one scale."""
    losses = [loss for run in runs for _, loss in run.curve]
    return min(losses, default=0.0), max(losses, default=0.0)


def _curve(run: ComparedRun, bounds: tuple[float, float]) -> str:
    low, high = bounds
    size = len(run.curve)
    count = min(size, _SHOWN)
    chosen = [run.curve[round(at * (size - 1) / max(count - 1, 1))][1] for at in range(count)]
    top = len(_LEVELS) - 1
    return "".join(_LEVELS[round(top * (loss - low) / (high - low)) if high > low else 0] for loss in chosen)


def _as_json(comparison: RunComparison, by: GroupBy | None) -> Mapping[str, Any]:
    from finetune.run_comparison import grouped

    found: dict[str, Any] = {
        "runs": [asdict(run) for run in comparison.runs],
        "differing": list(comparison.differing),
        "common": dict(comparison.common),
    }
    if by:
        found["groups"] = [
            {
                by: group.name,
                "runs": [run.name for run in group.runs],
                "best": group.best,
                "median": group.median,
            }
            for group in grouped(comparison, by)
        ]
    return found
