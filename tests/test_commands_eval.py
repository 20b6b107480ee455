"""``ragsmith eval``: from a dataset to a table, a report, and an exit status that stops a worse prompt."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from run_cells import case, cell, failed
from scripted_openai import MODEL, WRONG_TYPES, says, scripted_openai
from terminal import assert_one_line, call, one_object

from rag.database import open_database
from rag.evaluation.dataset_store import DatasetStore
from rag.evaluation.run_store import Cell, Plan, RunStore, Score
from rag.evaluation.variants import Variant
from rag.workspace import Workspace

CASES = 30


def kept(workspace: Workspace, *variants: list[Cell], status: str = "finished", state: str = "") -> str:
    """The id of a run with these answers over thirty cases."""
    engine = open_database(workspace)
    version = DatasetStore(engine).save("faq", [case(at) for at in range(CASES)], by="a test", message="")
    names = ("base", "worse", "equal")
    plan = Plan(
        variants=tuple(Variant(name=name) for name, _ in zip(names, variants, strict=False)),
        states=(state,) * len(variants),
        corpus="notes",
    )
    store = RunStore(engine)
    run = store.begin(plan, name="a run", dataset="faq", version=version.version, sha256=version.sha256)
    for cells in variants:
        store.keep(run.id, cells)
    store.end(run.id, status)  # type: ignore[arg-type]
    engine.dispose()
    return run.id


@pytest.fixture
def run(workspace: Workspace) -> str:
    base = [cell(0, at, float(at % 5 > 0)) for at in range(CASES)]
    worse = [cell(1, at, float(at % 5 > 2)) for at in range(CASES)]
    equal = [cell(2, at, float(at % 5 > 0)) for at in range(CASES)]
    return kept(workspace, base, worse, equal)


def test_the_gate_stops_what_is_worse_and_says_why(workspace: Workspace, run: str) -> None:
    done = call(workspace.root, "eval", "gate", run, "--variant", "worse", "--allow", "contains=0.05")
    assert done.exit_code == 1
    assert done.stdout.startswith("FAIL  Contains fell from 80.0 % to 40.0 %")
    assert "30 cases" in done.stdout


def test_the_gate_lets_pass_what_is_equal(workspace: Workspace, run: str) -> None:
    done = call(
        workspace.root, "eval", "gate", run, "--variant", "equal", "--allow", "contains=0", "--allow", "f1=0"
    )
    assert done.exit_code == 0
    assert done.stdout.count("pass") == 2


def test_the_gate_tells_a_program_the_same(workspace: Workspace, run: str) -> None:
    done = call(workspace.root, "eval", "gate", run, "--variant", "worse", "--allow", "contains=0.05", "--json")
    told = one_object(done)
    assert done.exit_code == 1
    assert told["passed"] is False
    assert told["checks"][0]["state"] == "worse"


@pytest.mark.parametrize(
    "sides",
    [
        ["--variant", "base"],
        ["--variant", "worse", "--baseline", "worse"],
        ["--variant", "base", "--baseline-run", "{run}"],
    ],
)
def test_a_variant_is_not_gated_against_itself(workspace: Workspace, run: str, sides: list[str]) -> None:
    done = call(workspace.root, "eval", "gate", run, *(each.format(run=run) for each in sides), "--allow", "f1=0")
    assert_one_line(done, "cannot be compared with itself", "Name another variant")


@pytest.mark.parametrize(("base", "candidate"), [(failed, cell), (cell, failed), (failed, failed)])
def test_answers_that_all_failed_pass_no_gate(
    workspace: Workspace, base: Callable[..., Cell], candidate: Callable[..., Cell]
) -> None:
    run = kept(workspace, [base(0, at) for at in range(CASES)], [candidate(1, at) for at in range(CASES)])
    done = call(workspace.root, "eval", "gate", run, "--variant", "worse", "--allow", "contains=1")
    side = "baseline" if base is failed else "candidate"
    assert_one_line(done, f"All answers of the {side} failed", "no connection", "eval resume")


def test_the_same_release_under_two_names_is_noted(workspace: Workspace) -> None:
    run = kept(workspace, [cell(0, at) for at in range(9)], [cell(1, at) for at in range(9)], state="same")
    done = call(workspace.root, "eval", "gate", run, "--variant", "worse", "--allow", "f1=0")
    assert done.exit_code == 0
    assert "Careful: Both sides are the same release" in done.stderr


def test_half_a_run_passes_no_gate(workspace: Workspace) -> None:
    half = kept(workspace, [cell(0, 0)], [cell(1, 0)], status="stopped")
    done = call(workspace.root, "eval", "gate", half, "--variant", "worse", "--allow", "f1=0")
    assert done.exit_code == 1
    assert "a gate needs a finished run" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["gate", "{run}", "--variant", "nobody", "--allow", "f1=0"], "has no variant 'nobody'"),
        (["gate", "{run}", "--variant", "worse", "--allow", "beauty=0"], "The metric 'beauty' is unknown"),
        (["gate", "{run}", "--variant", "worse", "--allow", "f1"], "must have the form METRIC=NUMBER"),
        (["show", "ffffffff"], "There is no run 'ffffffff'"),
        (["show", "{run}", "--baseline", "nobody"], "has no variant 'nobody'"),
        (["resume", "{run}"], "cannot be resumed"),
        (["run", "nothing"], "nothing"),
        (["run", "faq", "--variant", "a: chroma_url=x"], "A variant cannot change 'chroma_url'"),
        (["run", "faq", "--variant", "a: retrieval.k=0"], "retrieval.k"),
        (["run", "faq", "--variant", "a:", "--variant", "a:"], "Two variants are called a"),
        (["run", "faq", "--judge", "extractive"], "extractive"),
    ],
)
def test_a_mistake_is_one_line(
    ready_workspace: Workspace, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    number = kept(ready_workspace, [cell(0, at) for at in range(CASES)], [cell(1, at) for at in range(CASES)])
    done = call(ready_workspace.root, "eval", *(each.format(run=number) for each in arguments))
    assert done.exit_code in (1, 2)
    assert told in done.stderr
    assert_one_line(done)


def test_the_table_shows_figures_intervals_and_changes(workspace: Workspace, run: str) -> None:
    done = call(workspace.root, "eval", "show", run)
    row = next(line for line in done.stdout.splitlines() if line.startswith("Contains"))
    assert row.split()[1:3] == ["80.0", "%"]
    assert "−40.0 points ▼" in row
    assert "±0.0 points ·" in row


def test_the_table_for_a_program_has_every_figure(workspace: Workspace, run: str) -> None:
    told = one_object(call(workspace.root, "eval", "show", run, "--json"))
    assert [variant["name"] for variant in told["variants"]] == ["base", "worse", "equal"]
    assert told["variants"][1]["figures"]["contains"]["estimate"]["value"] == pytest.approx(0.4)
    assert told["variants"][0]["figures"]["contains"]["change"] is None


def test_every_answer_can_be_had_as_a_line(workspace: Workspace, run: str) -> None:
    done = call(workspace.root, "eval", "show", run, "--json", "--cells")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 3 * CASES
    assert lines[1]["variant"] == "worse"
    assert lines[0]["case"]["question"] == "Question 0?"


def test_two_runs_are_compared_case_by_case(workspace: Workspace, run: str) -> None:
    other = kept(workspace, [cell(0, at) for at in range(CASES)])
    told = one_object(call(workspace.root, "eval", "compare", run, other, "--variant", "worse", "--json"))
    contains = next(each for each in told["measures"] if each["measure"] == "contains")
    assert contains["change"]["value"] == pytest.approx(0.6)
    assert "Contains" in call(workspace.root, "eval", "compare", run, other).stdout


def test_a_comparison_shows_the_means_of_the_cases_that_both_answered(workspace: Workspace) -> None:
    easy = [cell(0, at, 1.0, latency_s=9.0) for at in range(10, 20)]
    one = kept(workspace, [cell(0, at, 0.0, latency_s=1.0) for at in range(10)] + easy)
    other = kept(workspace, [cell(0, at, 0.5, latency_s=2.0) for at in range(10)])
    told = one_object(call(workspace.root, "eval", "compare", one, other, "--json"))
    rows = {each["measure"]: each for each in told["measures"]}
    for name, values in {"f1": (0.0, 0.5), "latency_p50": (1.0, 2.0)}.items():
        row = rows[name]
        assert (row["one"]["value"], row["other"]["value"]) == values
        assert row["change"]["value"] == values[1] - values[0]
    shown = call(workspace.root, "eval", "compare", one, other).stdout
    assert next(line for line in shown.splitlines() if line.startswith("F1")).split()[1:5] == [
        "0.0",
        "%",
        "50.0",
        "%",
    ]


def test_points_of_a_judge_name_the_cases_they_rest_on(workspace: Workspace) -> None:
    def judged(variant: int, at: int) -> Cell:
        points = {"judge": Score(5.0), "judge_errors": Score(0.0)} if at < 2 else {"judge_errors": Score(1.0)}
        return cell(variant, at, scores={"contains": Score(1.0), **points})

    run = kept(workspace, [judged(0, at) for at in range(10)], [judged(1, at) for at in range(10)])
    for shown in (
        call(workspace.root, "eval", "show", run).stdout,
        call(workspace.root, "eval", "compare", run, run, "--variant", "base", "--with", "worse").stdout,
    ):
        assert "5.00 (2 of 10)" in next(line for line in shown.splitlines() if line.startswith("Judge "))
    gated = call(workspace.root, "eval", "gate", run, "--variant", "worse", "--allow", "judge=0")
    assert gated.exit_code == 1
    assert "Judge cannot be checked: only 2 of 10 answered cases were judged on both sides" in gated.stdout


def test_the_report_is_written_where_it_is_wanted(workspace: Workspace, run: str, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    done = call(workspace.root, "eval", "report", run, "--out", str(target))
    assert done.exit_code == 0
    assert done.stdout.strip() == str(target)
    assert "Question 0?" in target.read_text(encoding="utf-8")


def test_a_report_that_cannot_be_written_is_one_line(workspace: Workspace, run: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = call(workspace.root, "eval", "report", run, "--out", str(tmp_path / "file" / "report.html"))
    assert done.exit_code == 1
    assert_one_line(done)


def test_runs_are_listed_and_what_is_left_out_is_told(workspace: Workspace, run: str) -> None:
    newer = kept(workspace, [cell(0, 0), failed(0, 1)])
    done = call(workspace.root, "eval", "list", "--limit", "1")
    assert newer in done.stdout
    assert run not in done.stdout
    assert "1 older run not shown" in done.stderr
    listed = one_object(call(workspace.root, "eval", "list", "--json"))
    assert [each["run"] for each in listed] == [newer, run]


def test_a_variant_that_fails_in_every_case_says_why_once(workspace: Workspace, tmp_path: Path) -> None:
    number = kept(workspace, [cell(0, at) for at in range(CASES)], [failed(1, at) for at in range(CASES)])
    shown = call(workspace.root, "eval", "show", number).stdout
    assert "worse: 30 of 30 cases, 30 failed" in shown
    assert shown.count("no connection") == 1
    variants = one_object(call(workspace.root, "eval", "show", number, "--json"))["variants"]
    assert [variant["error"] for variant in variants] == ["", "no connection"]
    target = tmp_path / "report.html"
    call(workspace.root, "eval", "report", number, "--out", str(target))
    assert "failed in 30 of 30 cases. The first failure: no connection" in target.read_text(encoding="utf-8")


def test_a_run_is_deleted_by_name_only(workspace: Workspace, run: str) -> None:
    assert call(workspace.root, "eval", "delete").exit_code == 2
    assert call(workspace.root, "eval", "delete", run).exit_code == 0
    assert run not in call(workspace.root, "eval", "list").stdout


@WRONG_TYPES
def test_a_judge_that_prefers_a_place_makes_ties(
    ready_workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = kept(ready_workspace, [cell(0, at) for at in range(4)], [cell(1, at, 0.0) for at in range(4)])
    with scripted_openai(says('{"reason": "It stands first.", "better": "first"}')) as server:
        monkeypatch.setenv("RAGSMITH_OPENAI__BASE_URL", server.base_url)
        judge = f"openai:{MODEL}"
        done = call(ready_workspace.root, "eval", "pairs", run, "--judge", judge, "--variant", "worse", "--json")
    told = one_object(done)
    assert (told["wins"], told["losses"], told["ties"], told["errors"]) == (0, 0, 4, 0)
    assert told["win_rate"]["value"] == 0.5
    assert len(server.received) == 8
