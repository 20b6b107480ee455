"""The results of a run reach a W&B run, and are read back from its file."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine
from tracked import OFFLINE, only_run, service_process, table_rows
from wandb_reader import offline_runs

from rag.evaluation.cases import Case
from rag.evaluation.metric_definitions import METRICS
from rag.evaluation.publish import MOST_HEADLINES, Beside, headlines, keys, publish
from rag.evaluation.run_store import Cell, Plan, Run, RunStore, Score
from rag.evaluation.statistics import Estimate
from rag.evaluation.summary import Figure, Summary, VariantSummary, summarise
from rag.evaluation.variants import Variant
from rag.settings import TrackingSettings
from rag.tracing.day_figures import cost_values
from rag.tracing.ledger import NOTHING
from rag.workspace import Workspace

pytestmark = pytest.mark.usefixtures("isolated_wandb")

SECRET = "sk-proj-abcdefghij0123456789"
CASES = (
    Case(id="first", question="What is a passage?", answers=("a chunk", "a piece"), sources=("guide.md",)),
    Case(id="second", question=f"What opens the door, {SECRET}?", must_refuse=True),
    Case(id="third", question="ما هو المنفذ؟\u2028", answers=("7860",)),
)
VARIANTS = (Variant(name="baseline"), Variant(name="retrieval.k=8", changes={"retrieval.k": 8}))


def cell(variant: int, position: int, right: float, **changes: Any) -> Cell:
    return Cell(
        variant,
        position,
        "answered",
        answer=f"answer {variant} {position}",
        scores={"f1": Score(right), "contains": Score(right, 0.0 if position == 1 else 1.0)},
        latency_s=0.5,
        input_tokens=100,
        output_tokens=10,
        trace_id=f"trace-{variant}-{position}",
        **changes,
    )


@pytest.fixture
def store(engine: Engine) -> RunStore:
    return RunStore(engine)


@pytest.fixture
def run(store: RunStore) -> Run:
    plan = Plan(variants=VARIANTS, states=("a", "b"), corpus="notes")
    begun = store.begin(plan, name="more passages", dataset="notes-qa", version=2, sha256="ab" * 32)
    store.keep(begun.id, [cell(0, 0, 1.0), cell(0, 1, 0.0, error=SECRET), cell(0, 2, 0.5, cost_usd=0.25)])
    store.keep(begun.id, [cell(1, 0, 1.0), cell(1, 2, 1.0)])
    store.end(begun.id, "finished")
    return store.get(begun.id)


@pytest.fixture
def summary(store: RunStore, run: Run) -> Summary:
    return summarise(store, run, len(CASES))


def published(
    workspace: Workspace, store: RunStore, summary: Summary, report: Path | None = None, cases: Any = CASES
) -> str:
    return publish(
        OFFLINE,
        workspace,
        summary,
        lambda number: store.cells(summary.run.id, number),
        iter(cases),
        Beside(report),
    )


def artifact_of(workspace: Workspace) -> Any:
    (found,) = (
        record.artifact
        for record in only_run(workspace).records
        if record.WhichOneof("record_type") == "artifact" and record.artifact.type == "dataset"
    )
    return found


def test_a_run_is_read_back_with_its_plan_and_figures(
    workspace: Workspace, store: RunStore, summary: Summary
) -> None:
    made = published(workspace, store, summary)
    (path,) = offline_runs(workspace.root)
    assert path.name == f"run-{made}.wandb"
    read = only_run(workspace)
    assert read.exit_code == 0
    assert read.config["dataset"] == "notes-qa"
    assert read.config["dataset_version"] == 2
    assert read.config["dataset_sha256"] == "ab" * 32
    assert read.config["run"] == summary.run.id
    assert read.config["plan"] == summary.run.plan.model_dump(mode="json")
    assert read.config["variants"] == {"baseline": "baseline", "retrieval_k_8": "retrieval.k=8"}
    started = [record.run for record in read.records if record.WhichOneof("record_type") == "run"]
    assert (started[-1].job_type, started[-1].run_group) == ("evaluation", "notes-qa")
    assert started[-1].display_name == "more passages"

    assert read.summary["baseline/f1"] == pytest.approx(0.5)
    rows = {(row["variant"], row["metric"]): row for row in table_rows(workspace, "metrics")}
    assert rows.keys() >= {(variant.name, "f1") for variant in VARIANTS}
    baseline, other = rows["baseline", "f1"], rows["retrieval.k=8", "f1"]
    assert baseline["value"] == read.summary["baseline/f1"]
    assert baseline["low"] <= 0.5 <= baseline["high"]
    # Over the two cases that both have: 1.0 and 1.0 against 1.0 and 0.5.
    assert other["change"] == pytest.approx(0.25)
    assert other["change_low"] <= other["change_high"]
    assert baseline["change"] is None
    # One case of the baseline has a cost, none of the other: what is unknown is left out and not 0.
    assert read.summary["baseline/cost"] == 0.25
    assert "retrieval_k_8/cost" not in read.summary


@given(st.integers(1, 60), st.lists(st.sampled_from([metric.name for metric in METRICS]), unique=True))
def test_the_summary_has_at_most_thirty_keys(variants: int, metrics: list[str]) -> None:
    figures = {name: Figure(Estimate(0.5, 0.4, 0.6, 9)) for name in metrics}
    rows = tuple(VariantSummary(f"k={number}", {}, 9, 0, 0, figures) for number in range(variants))
    known = tuple(metric for metric in METRICS if metric.name in metrics)
    found = headlines(Summary(None, 9, 0, known, rows))  # type: ignore[arg-type]
    # Three tables, and four keys of W&B itself.
    assert len(found) + len(cost_values(NOTHING)) + 3 + 4 <= 30
    if found:
        # All variants that are there have the same metrics, so that they can be compared.
        assert len(found) % min(variants, MOST_HEADLINES) == 0


def test_a_run_with_many_variants_and_tables_has_a_short_summary(
    workspace: Workspace, store: RunStore, summary: Summary, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("rag.evaluation.publish.CHUNK", 1)
    (report := tmp_path / "report.html").write_text("<p>Report", encoding="utf-8")
    many = tuple(replace(summary.variants[1], name=f"k={number}") for number in range(12))
    published(workspace, store, replace(summary, variants=(*summary.variants, *many)), report)
    read = only_run(workspace)
    assert {"results", "metrics", "report"} < read.summary_keys
    assert len(read.summary_keys) <= 30


def test_every_answer_is_a_row(workspace: Workspace, store: RunStore, summary: Summary) -> None:
    published(workspace, store, summary)
    rows = table_rows(workspace, "results")
    assert [(row["case"], row["variant"]) for row in rows] == [
        ("first", "baseline"),
        ("first", "retrieval.k=8"),
        ("second", "baseline"),
        ("third", "baseline"),
        ("third", "retrieval.k=8"),
    ]
    assert rows[0]["question"] == "What is a passage?"
    assert rows[0]["expected"] == "a chunk\na piece"
    assert rows[0]["answer"] == "answer 0 0"
    assert (rows[0]["f1"], rows[0]["latency_s"], rows[0]["trace_id"]) == (1.0, 0.5, "trace-0-0")
    assert rows[2]["expected"] == "(a refusal)"
    assert rows[2]["contains"] is None
    assert rows[0]["cost_usd"] is None


def test_a_long_run_is_several_tables_that_hold_each_answer_once(
    workspace: Workspace, store: RunStore, summary: Summary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag.evaluation.publish.CHUNK", 2)
    published(workspace, store, summary)
    keys_of = {key.partition(".")[0] for row in only_run(workspace).history for key in row if "nrows" in key}
    assert keys_of == {"metrics", "results", "results_1"}
    assert sorted((row["position"], row["variant"]) for row in table_rows(workspace, "results")) == [
        (0, "baseline"),
        (0, "retrieval.k=8"),
        (1, "baseline"),
        (2, "baseline"),
        (2, "retrieval.k=8"),
    ]


def test_the_dataset_is_an_artifact_with_its_digest(
    workspace: Workspace, store: RunStore, summary: Summary
) -> None:
    published(workspace, store, summary)
    artifact = artifact_of(workspace)
    assert artifact.name == "notes-qa"
    assert json.loads(artifact.metadata) == {
        "sha256": "ab" * 32,
        "version": 2,
        "cases": 3,
        "redacted_cases": 1,
    }
    (entry,) = artifact.manifest.contents
    lines = Path(entry.local_path).read_text(encoding="utf-8").splitlines()
    told = [Case.model_validate(json.loads(line)) for line in lines]
    assert (told[0], told[2]) == (CASES[0], CASES[2])
    assert told[1].question == "What opens the door, [redacted]?"


def test_the_report_is_kept_as_it_is(
    workspace: Workspace, store: RunStore, summary: Summary, tmp_path: Path
) -> None:
    report = tmp_path / "report.html"
    report.write_text("<!DOCTYPE html><title>Report</title><p>é", encoding="utf-8")
    assert published(workspace, store, summary, report)
    (kept,) = workspace.wandb.glob("offline-run-*/files/media/html/*.html")
    assert kept.read_bytes() == report.read_bytes()


def test_no_secret_is_in_any_file_of_the_run(workspace: Workspace, store: RunStore, run: Run) -> None:
    named = Variant(name=f"with {SECRET}", changes={"prompt": "answer@1", "decoding.stop": [SECRET]})
    plan = Plan(variants=(named,), states=("a",), corpus="notes", judge="openai:judge")
    begun = store.begin(plan, name=f"named {SECRET}", dataset="notes-qa", version=2, sha256="ab" * 32)
    store.keep(begun.id, [Cell(0, 1, "failed", answer=f"It is {SECRET}", error=f"key {SECRET}")])
    assert published(workspace, store, summarise(store, begun, len(CASES)))
    artifact = artifact_of(workspace)
    files = [path for path in workspace.wandb.rglob("*") if path.is_file()]
    files += [Path(entry.local_path) for entry in artifact.manifest.contents]
    assert len(files) > 2
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_nothing_is_written_where_tracking_is_off(workspace: Workspace, store: RunStore, summary: Summary) -> None:
    made = publish(
        TrackingSettings(wandb="off"), workspace, summary, lambda number: store.cells("x", number), CASES
    )
    assert made == ""
    assert not workspace.wandb.exists()


def test_settings_of_wandb_may_switch_it_off_without_a_word(
    workspace: Workspace,
    store: RunStore,
    summary: Summary,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    import wandb

    monkeypatch.setattr(wandb.setup().settings, "mode", "disabled")
    made = publish(TrackingSettings(), workspace, summary, lambda number: store.cells("x", number), CASES)
    assert made == ""
    assert not caplog.records


def test_a_wandb_that_cannot_start_is_a_warning(
    workspace: Workspace, store: RunStore, summary: Summary, caplog: pytest.LogCaptureFixture
) -> None:
    workspace.wandb.write_text("in the way")
    with caplog.at_level(logging.WARNING):
        assert published(workspace, store, summary) == ""
    assert f"W&B tracking of the evaluation {summary.run.id} has stopped" in caplog.text


def test_a_wandb_that_dies_is_a_warning_and_the_next_run_is_whole(
    workspace: Workspace, store: RunStore, summary: Summary, caplog: pytest.LogCaptureFixture
) -> None:
    def dying() -> Iterator[Case]:
        yield CASES[0]
        service = service_process()
        service.kill()
        service.wait()
        yield from CASES[1:]

    with caplog.at_level(logging.WARNING):
        assert published(workspace, store, summary, cases=dying()) == ""
    assert f"W&B tracking of the evaluation {summary.run.id} has stopped" in caplog.text
    assert published(workspace, store, summary)


def test_a_missing_report_is_a_warning_and_ends_the_run_as_failed(
    workspace: Workspace, store: RunStore, summary: Summary, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert published(workspace, store, summary, tmp_path / "none.html") == ""
    assert f"W&B tracking of the evaluation {summary.run.id} has stopped" in caplog.text
    assert only_run(workspace).exit_code == 1


def test_a_run_that_failed_is_marked_as_failed(workspace: Workspace, store: RunStore, run: Run) -> None:
    store.end(run.id, "failed", "20 failures in a row")
    assert published(workspace, store, summarise(store, store.get(run.id), len(CASES)))
    assert only_run(workspace).exit_code == 1


def test_variants_whose_names_differ_in_signs_only_keep_figures_of_their_own() -> None:
    made = keys(["a.b", "a/b", "a_b", "…", "größer", "a_b_1"])
    assert made[:2] == ["a_b", "a_b_1"]
    assert made[3:5] == ["variant_3", "größer"]
    assert len(set(made)) == 6
