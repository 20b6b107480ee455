"""Results of a run as a W&B run: metrics, answers, report and dataset.

A tracker that fails never fails an evaluation. Everything that leaves the process is redacted, like traces.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rag.encoders.adapter_artifact import adapter_artifact
from rag.encoders.adapters import Adapter
from rag.evaluation.case_answers import Answered, side_by_side
from rag.evaluation.cases import Case, masked_case
from rag.evaluation.run_store import Cell
from rag.evaluation.statistics import Estimate
from rag.evaluation.summary import Summary
from rag.masking import Masker
from rag.redaction import redact, redact_json
from rag.settings import TrackingSettings
from rag.tracing.day_figures import cost_values
from rag.tracing.ledger import NOTHING, Spending
from rag.tracing.wandb_artifacts import log_input
from rag.tracing.wandb_run import RunLabel, open_run
from rag.tracing.wandb_table import RunTable
from rag.tracing.wandb_traces import clipped
from rag.workspace import Workspace

# Rows per table; a table stays in memory until it is logged, and W&B's page loads it completely.
CHUNK = 2_000
# The lengths in the tables of the chat.
QUESTION_LENGTH, ANSWER_LENGTH = 1_000, 4_000
COLUMNS = ("position", "case", "question", "expected", "variant", "status", "answer", "error")
SPENT = ("latency_s", "input_tokens", "output_tokens", "cost_usd", "cached", "trace_id")
METRIC_COLUMNS = ("variant", "metric", "value", "low", "high", "change", "change_low", "change_high")

# Metrics for the summary, the most important first. With the costs, the tables and W&B's own keys, it has 29 keys.
HEADLINES = (
    *("f1", "contains", "groundedness", "recall", "refusal_recall", "judge", "latency_p50", "latency_p95", "cost"),
    *("failed", "citation_precision", "mrr"),
)
MOST_HEADLINES = 18

# Metrics of several answers, and metrics with columns of their own.
NOT_OF_A_CELL = ("latency_p50", "latency_p95", "input_tokens", "output_tokens", "cost", "failed", "answered")


@dataclass(frozen=True, slots=True)
class Beside:
    """What there is of a run beside its answers.

    Attributes:
        report: A report by ``rag.evaluation.run_report.write_report``.
        spending: What the run has cost beside its traces, and what its cache has saved.
        adapters: Adapters of variants that a training has made.
    """

    report: Path | None = None
    spending: Spending = NOTHING
    adapters: tuple[Adapter, ...] = ()


def publish(
    settings: TrackingSettings,
    workspace: Workspace,
    summary: Summary,
    cells: Callable[[int], Iterator[Cell]],
    cases: Iterable[Case],
    beside: Beside | None = None,
    masker: Masker | None = None,
) -> str:
    """Log a run to a W&B run of its own, and return when W&B has accepted it.

    The W&B run's summary has at most 30 keys: the most important metrics as ``VARIANT/METRIC``, where ``VARIANT``
    is a key from ``keys``, and what ``spending`` says as ``cost/…``. All metrics with their intervals and changes
    are in the table ``metrics``. The answers are the tables ``results``, ``results_1`` …. The version of the
    dataset and the adapters are artifacts that the run uses, and the report is one that it makes.

    Args:
        settings: Project and mode.
        workspace: The workspace for offline runs.
        summary: The table.
        cells: Returns the answers of a variant by its index, in the order of the cases.
        cases: Cases of the run's dataset version, in order.
        beside: What there is beside the answers.
        masker: Masks personal data in the cases; the answers are stored without it.

    Returns:
        The id of the W&B run; empty if tracking is off or has failed.
    """
    evaluated = summary.run
    beside = beside or Beside()
    tracked = open_run(
        settings,
        workspace.root,
        _config(summary),
        RunLabel(f"the evaluation {evaluated.id}", "evaluation", redact(evaluated.dataset)),
    )

    def log(run: Any) -> None:
        run.name = redact(evaluated.name) or evaluated.id
        # Further tables are left to the history.
        run.define_metric("results_*", summary="none")
        run.summary.update(headlines(summary) | cost_values(beside.spending))
        _log_metrics(run, summary)
        with tempfile.TemporaryDirectory() as folder:
            rows = side_by_side(cases, cells, len(summary.variants))
            _log_cases(run, summary, rows, Path(folder), masker or Masker())
        for adapter in beside.adapters:
            log_input(run, adapter_artifact(adapter))
        if beside.report is not None:
            _log_report(run, summary, beside.report)

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


def headlines(summary: Summary) -> dict[str, float]:
    """Return the most important metrics of all variants, as many of each as the summary of a run has room for."""
    found: dict[str, float] = {}
    known = [name for name in HEADLINES if any(metric.name == name for metric in summary.metrics)]
    variants = list(zip(keys(variant.name for variant in summary.variants), summary.variants, strict=True))
    for name in known[: MOST_HEADLINES // len(variants) or 1]:
        for key, variant in variants[:MOST_HEADLINES]:
            figure = variant.figures.get(name)
            if figure is not None and figure.estimate is not None:
                found[f"{key}/{name}"] = figure.estimate.value
    return found


def _log_metrics(run: Any, summary: Summary) -> None:
    """Log the table of all metrics, with a row for every variant and metric that has a value."""
    table = RunTable("metrics", METRIC_COLUMNS)
    for variant in summary.variants:
        for name, figure in variant.figures.items():
            if figure.estimate is not None:
                ends = (*_ends(figure.estimate), *_ends(figure.change))
                table.rows.append([redact(variant.name), name, *ends])
    table.write(run)


def _ends(estimate: Estimate | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if estimate is None else (estimate.value, estimate.low, estimate.high)


def _log_cases(run: Any, summary: Summary, rows: Iterator[Answered], folder: Path, masker: Masker) -> None:
    """Log the tables of answers and the dataset in one pass."""
    import wandb

    evaluated = summary.run
    results = _Results(run, summary)
    path = folder / "cases.jsonl"
    written = altered = 0
    with path.open("w", encoding="utf-8") as file:
        for answered in rows:
            plain = answered.case.as_json()
            redacted = masker.json(redact_json(plain))
            results.add(replace(answered, case=masked_case(answered.case, masker)))
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
    log_input(run, artifact)


def _log_report(run: Any, summary: Summary, report: Path) -> None:
    import wandb

    evaluated = summary.run
    artifact = wandb.Artifact(f"evaluation-{evaluated.id}", type="evaluation", metadata=headlines(summary))
    artifact.add_file(str(report), "report.html")
    run.log_artifact(artifact)
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
