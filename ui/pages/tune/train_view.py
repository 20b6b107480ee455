"""Trainings as HTML: what one is about to do, the list, and the curves. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from finetune.predictions import Prediction
from finetune.recipe import CausalRecipe
from finetune.run_folder import RunFolder
from finetune.training import Point, numbered, validation_losses
from finetune.training_preview import TrainingPreview, read_preview
from rag.errors import RagsmithError
from rag.tracing.figures import format_cost, format_seconds
from ui.pages.safe_markup import fragment
from ui.pages.tune.curve_charts import Curve, chart

LISTED = 50
# Characters of a row's parts in a preview.
SHOWN = 500


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run in the list; ``loss`` is that of its last validation."""

    name: str
    state: str
    loss: float | None
    cells: tuple[str, ...]


def preview_html(preview: TrainingPreview) -> str:
    """Render what a training is about to do."""
    figures = (
        ("time", format_seconds(preview.estimated_s)),
        ("memory", f"{preview.memory_bytes / 1e9:.1f} GB"),
        ("cost", format_cost(preview.usd)),
        ("steps", f"{preview.steps:,}"),
        ("rows", f"{preview.rows:,} + {preview.validation_rows:,}"),
        ("tokens", f"{preview.tokens:,}"),
    )
    rows = [(row, _clipped(row.masked), _clipped(row.learnt)) for row in preview.first_batch]
    measured = ", ".join(format_seconds(seconds) for seconds in preview.step_s)
    return fragment("tune_preview.html.jinja", preview=preview, figures=figures, rows=rows, measured=measured)


def runs_html(runs: Sequence[RunFolder], chosen: str) -> str:
    """Render the runs of language models, the lowest validation loss first, then those without one."""
    rows = [row for run in runs[:LISTED] if (row := _run_row(run)) is not None]
    rows.sort(key=lambda row: math.inf if row.loss is None else row.loss)
    heads = ("state", "validation loss", "base", "epochs", "learning rate", "rank", "data", "step")
    return fragment("tune_runs.html.jinja", rows=rows, heads=heads, chosen=chosen, hidden=len(runs) - LISTED)


def _run_row(run: RunFolder) -> RunRow | None:
    try:
        recipe = run.recipe
        data = run.data
    except RagsmithError:
        # A damaged run has nothing to show.
        return None
    if not isinstance(recipe, CausalRecipe):
        return None
    status = run.status
    checked = [loss for _, loss in validation_losses(run.points())]
    stage = recipe.stages[0]
    cells = (
        status.state,
        f"{checked[-1]:.4f}" if checked else "",
        recipe.base.rpartition("/")[2],
        f"{stage.epochs:.4g}",
        f"{stage.learning_rate:.4g}",
        str(recipe.lora.rank),
        data.parent.name,
        f"{status.step:,}/{status.steps:,}" if status.steps else "",
    )
    return RunRow(run.name, status.state, checked[-1] if checked else None, cells)


def run_html(run: RunFolder) -> str:
    """Render how a run goes."""
    status = run.status
    points = list(run.points())
    last = points[-1] if points else None
    figures = [
        ("state", status.activity or status.state),
        ("step", f"{status.step:,} of {status.steps:,}" if status.steps else ""),
        ("training loss", f"{last.loss:.4f}" if last else ""),
        ("time left", format_seconds(status.left_s) if status.left_s is not None else ""),
        ("speed", f"{last.tokens_per_s:,.0f} tok/s" if last and last.step else ""),
    ]
    preview = read_preview(run.path)
    return fragment(
        "tune_run.html.jinja",
        run=run.name,
        figures=[(name, value) for name, value in figures if value],
        message=status.message if status.state == "failed" else "",
        charts=_charts(points) if points else (),
        done=status.state == "done",
        preview=Markup(preview_html(preview)) if preview else "",  # noqa: S704 - rendered by a template
        samples=_samples(points),
        predictions=[_shown(prediction) for prediction in run.predictions()],
    )


def _samples(points: Sequence[Point]) -> list[tuple[Prediction, list[tuple[str, str]]]]:
    """Return for every sampled row its newest sample, and all its texts by step, the newest first."""
    found: dict[int, tuple[Prediction, list[tuple[str, str]]]] = {}
    for at, point in reversed(numbered(points)):
        for sample in map(_shown, point.samples):
            _, texts = found.setdefault(sample.row, (sample, []))
            texts.append((f"{at:,}", sample.text))
    return list(found.values())


def _shown(prediction: Prediction) -> Prediction:
    prompt, target, text = map(_clipped, (prediction.prompt, prediction.target, prediction.text))
    return replace(prediction, prompt=prompt, target=target, text=text)


def _charts(points: Sequence[Point]) -> list[object]:
    steps = numbered(points)
    # Before the first step, there is only a loss.
    taken = [(at, point) for at, point in steps if point.step]
    norms = [(at, point.gradient_norm) for at, point in taken if point.gradient_norm is not None]
    losses = [
        Curve("training", [(at, point.loss) for at, point in steps]),
        Curve("validation", validation_losses(points)),
    ]
    return [
        chart("Loss by step", losses, "{:.3f}"),
        chart("Learning rate", [Curve("", [(at, point.learning_rate) for at, point in taken])], "{:.2g}"),
        chart("Gradient norm", [Curve("", norms)], "{:.2g}"),
        chart("Tokens a second", [Curve("", [(at, point.tokens_per_s) for at, point in taken])], "{:,.0f}"),
    ]


def _clipped(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]} … {text[-SHOWN // 2 :]}"
