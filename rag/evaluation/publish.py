"""Results of a run as a W&B run: metrics, answers, report and dataset.

A tracker that fails never fails an evaluation. Everything that leaves the process is redacted, like traces.
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
from rag.tracing.ledger import NOTHING, Spending
from rag.tracing.wandb_run import RunTable, open_run
from rag.tracing.wandb_traces import clipped, cost_values
from rag.workspace import Workspace

# Rows per table; a table stays in memory until it is logged, and W&B's page loads it completely.
CHUNK = 2_000
# The lengths in the tables of the chat.
QUESTION_LENGTH, ANSWER_LENGTH = 1_000, 4_000
COLUMNS = ("position", "case", "question", "expected", "variant", "status", "answer", "error")
SPENT = ("latency_s", "input_tokens", "output_tokens", "cost_usd", "cached", "trace_id")

# Metrics of several answers, and metrics with columns of their own.
NOT_OF_A_CELL = ("latency_p50", "latency_p95", "input_tokens", "output_tokens", "cost", "failed", "answered")


def publish(
    settings: TrackingSettings,
    workspace: Workspace,
    summary: Summary,
    cells: Callable[[int], Iterator[Cell]],
    cases: Iterable[Case],
    report: Path | None = None,
    spending: Spending = NOTHING,
) -> str:
    """Log a run to a W&B run of its own, and return when W&B has accepted it.

    The W&B run's summary has ``VARIANT/METRIC``, its interval as ``VARIANT/METRIC_low`` and
    ``VARIANT/METRIC_high``, and the same for ``VARIANT/METRIC_change``; ``VARIANT`` is a key from ``keys``. What
    ``spending`` says is ``cost/…``. The answers are the tables ``results``, ``results_1`` …, and the
    version of the dataset is an artifact with its name.

    Args:
        settings: Project and mode.
        workspace: The workspace for offline runs.
        summary: The table.
        cells: Returns the answers of a variant by its index, in the order of the cases.
        cases: Cases of the run's dataset version, in order.
        report: A report by ``rag.evaluation.run_report.write_report``.
        spending: What the run has cost beside its traces, and what its cache has saved.

    Returns:
        The id of the W&B run; empty if tracking is off or has failed.
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
        run.summary.update(_figures(summary) | cost_values(spending))
        with tempfile.TemporaryDirectory() as folder:
            _log_cases(run, summary, side_by_side(cases, cells, len(summary.variants)), Path(folder))
        if report is not None:
            _log_report(run, report)

    whole = tracked.attempt(log) and tracked.finish(failed=evaluated.status == "failed")
    return tracked.id if whole else ""


def keys(names: Iterable[str]) -> list[str]:
    """Return distinct keys for the names of variants.

    They consist of letters, digits and ``_``, since other characters have a meaning in W&B.
    """
    found: list[str] = []
    for number, name in enumerate(names):
        key = re.sub(r"\W+", "_", redact(name)).strip("_") or f"variant_{number}"
        while key in found:
            key = f"{key}_{number}"
        found.append(key)
    return found


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
    for key, variant in zip(keys(variant.name for variant in summary.variants), summary.variants, strict=True):
        for name, figure in variant.figures.items():
            found |= _ends(f"{key}/{name}", figure.estimate) | _ends(f"{key}/{name}_change", figure.change)
    return found


def _ends(name: str, estimate: Estimate | None) -> dict[str, float]:
    if estimate is None:
        return {}
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _log_cases(run: Any, summary: Summary, rows: Iterator[Answered], folder: Path) -> None:
    """Log the tables of answers and the dataset in one pass."""
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
            # If there are any, the hash is that of the dataset before redaction.
            "redacted_cases": altered,
        },
    )
    artifact.add_file(str(path))
    run.log_artifact(artifact)


def _log_report(run: Any, report: Path) -> None:
    import wandb

    # W&B loads injected styles from a server.
    run.log({"report": wandb.Html(report.read_text(encoding="utf-8"), inject=False, data_is_not_path=True)})


class _Results:
    """Collects answers in tables."""

    def __init__(self, run: Any, summary: Summary) -> None:
        self._run = run
        self._names = [redact(variant.name) for variant in summary.variants]
        self._metrics = [metric.name for metric in summary.metrics if metric.name not in NOT_OF_A_CELL]
        self._table = RunTable("results", [*COLUMNS, *self._metrics, *SPENT])

    def add(self, answered: Answered) -> None:
        """Add a row for every answer of a case."""
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
        """Log the collected rows as a table of their own."""
        self._table.write(self._run)


def _text(text: str, limit: int) -> str:
    return str(clipped(redact(text), limit))
