"""The results of a run as a W&B run: figures, answers, the report and the dataset.

A tracker that fails never fails an evaluation. What leaves the process is redacted, as traces are.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from rag.evaluation.case_answers import Answered, side_by_side
from rag.evaluation.cases import Case
from rag.evaluation.run_store import Cell
from rag.evaluation.statistics import Estimate
from rag.evaluation.summary import Summary
from rag.redaction import redact, redact_json
from rag.settings import TrackingSettings
from rag.tracing.wandb_run import RunTable, open_run
from rag.tracing.wandb_traces import clipped
from rag.workspace import Workspace

# A table is kept in memory until it is logged, and W&B's page reads it whole.
CHUNK = 2_000
# As the tables of the chat have them.
QUESTION_LENGTH, ANSWER_LENGTH = 1_000, 4_000
COLUMNS = ("position", "case", "question", "expected", "variant", "status", "answer", "error")
SPENT = ("latency_s", "input_tokens", "output_tokens", "cost_usd", "cached", "trace_id")

# Of several answers only, or in columns of their own.
NOT_OF_A_CELL = ("latency_p50", "latency_p95", "input_tokens", "output_tokens", "cost", "failed", "answered")


def publish(
    settings: TrackingSettings,
    workspace: Workspace,
    summary: Summary,
    cells: Callable[[int], Iterator[Cell]],
    cases: Iterable[Case],
    report: Path | None = None,
) -> str:
    """Log a run to a W&B run of its own, online or offline as the settings say; returns when W&B has taken it.

    The W&B run's summary holds ``VARIANT/METRIC``, the ends of its interval as ``VARIANT/MEASURE_low`` and
    ``VARIANT/MEASURE_high``, and ``VARIANT/MEASURE_change`` with the same; ``VARIANT`` is as ``keys`` makes it.
    The answers are the tables ``results``, ``results_1`` …, and the dataset version is an artifact of its name.

    Args:
        settings: Project and mode.
        workspace: Offline runs are kept in it.
        summary: The table.
        cells: The answers of a variant, by its number, in the order of the cases.
        cases: Of the run's dataset version, in their order; both are read once, and never held all at once.
        report: The run's report, as ``rag.evaluation.run_report.write_report`` writes it.

    Returns:
        The W&B run's id; empty where tracking is off, or has failed.
    """
    evaluated = summary.run
    tracked = open_run(
        settings,
        workspace.root,
        _config(summary),
        subject=f"the evaluation {evaluated.id}",
        job_type="evaluation",
        group=redact(evaluated.dataset),
    )

    def log(run: Any) -> None:
        run.name = redact(evaluated.name) or evaluated.id
        run.summary.update(_figures(summary))
        with tempfile.TemporaryDirectory() as folder:
            _log_cases(run, summary, side_by_side(cases, cells, len(summary.variants)), Path(folder))
        if report is not None:
            _log_report(run, report)

    whole = tracked.attempt(log) and tracked.finish(failed=evaluated.status == "failed")
    return tracked.id if whole else ""


def keys(names: Iterable[str]) -> list[str]:
    """What variants are called in the summary: letters, digits and ``_``, since W&B reads other signs as its own.

    Each is another one, also where the names differ in signs only.
    """
    made: list[str] = []
    for number, name in enumerate(names):
        key = re.sub(r"\W+", "_", redact(name)).strip("_") or f"variant_{number}"
        while key in made:
            key = f"{key}_{number}"
        made.append(key)
    return made


def _config(summary: Summary) -> dict[str, Any]:
    run = summary.run
    names = [variant.name for variant in summary.variants]
    config: dict[str, Any] = {
        "run": run.id,
        "name": run.name,
        "status": run.status,
        "started": run.started,
        "dataset": run.dataset,
        "dataset_version": run.dataset_version,
        "dataset_sha256": run.dataset_sha256,
        "cases": summary.size,
        "baseline": names[summary.baseline],
        "variants": dict(zip(keys(names), names, strict=True)),
        "plan": run.plan.model_dump(mode="json"),
    }
    return {name: redact_json(value) for name, value in config.items()}


def _figures(summary: Summary) -> dict[str, float]:
    found: dict[str, float] = {}
    for key, variant in zip(keys(each.name for each in summary.variants), summary.variants, strict=True):
        for name, figure in variant.figures.items():
            found |= _ends(f"{key}/{name}", figure.estimate) | _ends(f"{key}/{name}_change", figure.change)
    return found


def _ends(name: str, estimate: Estimate | None) -> dict[str, float]:
    if estimate is None:
        return {}
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _log_cases(run: Any, summary: Summary, rows: Iterator[Answered], folder: Path) -> None:
    """The tables of answers, and the dataset, in one pass."""
    import wandb

    evaluated = summary.run
    results = _Results(run, summary)
    path = folder / "cases.jsonl"
    written = altered = 0
    with path.open("w", encoding="utf-8") as file:
        for answered in rows:
            results.add(answered)
            plain = answered.case.as_json()
            redacted = redact_json(plain)
            file.write(json.dumps(redacted) + "\n")
            written += 1
            altered += redacted != plain
    results.write()
    artifact = wandb.Artifact(
        evaluated.dataset,
        type="dataset",
        metadata={
            "sha256": evaluated.dataset_sha256,
            "version": evaluated.dataset_version,
            "cases": written,
            # Where there are some, the digest is that of the dataset without its redactions.
            "redacted_cases": altered,
        },
    )
    artifact.add_file(str(path))
    run.log_artifact(artifact)


def _log_report(run: Any, report: Path) -> None:
    import wandb

    # Injected styles would be asked of a server.
    run.log({"report": wandb.Html(report.read_text(encoding="utf-8"), inject=False, data_is_not_path=True)})


class _Results:
    """The answers on their way into tables."""

    def __init__(self, run: Any, summary: Summary) -> None:
        self._run = run
        self._names = [redact(variant.name) for variant in summary.variants]
        self._metrics = [metric.name for metric in summary.metrics if metric.name not in NOT_OF_A_CELL]
        self._table = RunTable("results", [*COLUMNS, *self._metrics, *SPENT])

    def add(self, answered: Answered) -> None:
        """Add a row for each answer that is there."""
        case = answered.case
        expected = "(a refusal)" if case.must_refuse else "\n".join(case.answers)
        asked = (redact(case.id), _text(case.question, QUESTION_LENGTH), _text(expected, ANSWER_LENGTH))
        for cell in answered.there:
            scores = cell.scores or {}
            known = (scores.get(name) for name in self._metrics)
            self._table.rows.append(
                [
                    answered.position,
                    *asked,
                    self._names[cell.variant],
                    cell.status,
                    _text(cell.answer, ANSWER_LENGTH),
                    _text(cell.error, ANSWER_LENGTH),
                    *(score.value / score.weight if score and score.weight else None for score in known),
                    *(getattr(cell, name) for name in SPENT),
                ]
            )
        if len(self._table.rows) >= CHUNK:
            self.write()

    def write(self) -> None:
        """Log what waits as a table of its own."""
        self._table.write(self._run)


def _text(text: str, limit: int) -> str:
    return str(clipped(redact(text), limit))
