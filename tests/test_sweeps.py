"""A sweep trains with many values, prunes what is hopeless, and survives any crash as if there had been none."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_training import OFF, STEPS, Killed, Scripted, a_sweep, losses_of, train, write_points
from sft_data import recipe_text

from finetune.run_comparison import compare_runs, compared_run, grouped
from finetune.run_folder import RunFolder, Status, all_runs
from finetune.sweeps.sweep_folder import FILE, all_sweeps, begin_sweep, find_sweep
from finetune.sweeps.sweep_plan import middle_recipe
from finetune.sweeps.sweep_process import main
from finetune.sweeps.sweep_results import SweepResults, read_results
from rag.errors import TuningError
from rag.workspace import Workspace, open_workspace


def table(results: SweepResults) -> list[dict[str, Any]]:
    return [asdict(run) for run in results.comparison.runs]


def test_a_grid_trains_with_each_combination(workspace: Workspace, tmp_path: Path) -> None:
    space = ("learning_rate=0.001,0.002", "rank=2,4")
    scripted = Scripted(workspace, a_sweep(tmp_path, space, "grid", 1000, prune=False))
    assert scripted.work()
    results = read_results(scripted.folder)
    assert results.trials == 4
    assert scripted.launched == ["swept-000", "swept-001", "swept-002", "swept-003"]
    found = [(run.settings["learning_rate"], run.settings["rank"]) for run in results.comparison.runs]
    # The best first; the rate matters less than the rank here.
    assert found == [(0.001, 4), (0.002, 4), (0.001, 2), (0.002, 2)]
    assert results.comparison.differing == ("learning_rate", "rank", "alpha")
    assert {run.sweep for run in results.comparison.runs} == {"swept"}
    assert list(results.importance) == ["rank", "learning_rate"]
    assert sum(results.importance.values()) == pytest.approx(1)


def test_a_run_of_a_sweep_has_its_values_and_is_a_run_as_any_other(workspace: Workspace, tmp_path: Path) -> None:
    scripted = Scripted(workspace, a_sweep(tmp_path, trials=1))
    scripted.work()
    (run,) = all_runs(workspace.runs)
    assert (run.name, run.sweep, run.recipe.name) == ("swept-000", "swept", "swept-000")
    assert run.recipe.lora.rank in (2, 4, 8)
    assert 1e-4 <= run.recipe.stages[0].learning_rate <= 1e-2


def test_a_hopeless_training_is_pruned_at_the_step_that_shows_it(workspace: Workspace, tmp_path: Path) -> None:
    space = ("learning_rate=0.001,0.0011,0.009,0.0012", "rank=4")
    scripted = Scripted(workspace, a_sweep(tmp_path, space, "grid", 9))
    # It trains on until it is told to stop; the table does not show that.
    assert scripted.work()
    results = read_results(scripted.folder)
    shown = [(run.settings["learning_rate"], run.state, run.step) for run in results.comparison.runs]
    assert shown == [
        (0.001, "done", STEPS[-1]),
        (0.0011, "done", STEPS[-1]),
        (0.0012, "pruned", STEPS[0]),
        (0.009, "pruned", STEPS[0]),
    ]
    last = results.comparison.runs[-1]
    assert last.loss == losses_of(RunFolder(workspace.runs / last.name))[0]
    assert last.curve == ((STEPS[0], last.loss),)


def test_without_pruning_and_in_the_first_trials_all_are_trained_to_the_end(
    workspace: Workspace, tmp_path: Path
) -> None:
    space = ("learning_rate=0.001,0.0011,0.009,0.0012", "rank=4")
    for name, changes in (("whole", {"prune": False}), ("startup", {"startup": 4})):
        scripted = Scripted(workspace, a_sweep(tmp_path, space, "grid", 9, name=name, **changes))
        scripted.work()
        assert [run.state for run in read_results(scripted.folder).comparison.runs] == ["done"] * 4


@pytest.mark.slow
@settings(max_examples=6)
@given(
    st.sampled_from(["tpe", "random", "grid"]),
    st.lists(st.tuples(st.integers(1, 5), st.sampled_from([0, *STEPS])), max_size=3),
)
def test_killed_at_any_moment_a_sweep_ends_with_the_same_table(method: Any, kills: list[tuple[int, int]]) -> None:
    space = (
        ("learning_rate=1e-4,1e-3,1e-2", "rank=2,8")
        if method == "grid"
        else ("learning_rate=1e-4..1e-2", "rank=2..8")
    )
    with TemporaryDirectory() as temporary:
        homes = [open_workspace(Path(temporary) / name) for name in ("whole", "killed")]
        whole, killed = (Scripted(home, a_sweep(Path(temporary), space, method, 5)) for home in homes)
        whole.work()
        for launches, until in kills:
            begun = 0

            def train_and_die(run: RunFolder, launches: int = launches, until: int = until) -> None:
                nonlocal begun
                begun += 1
                if begun == launches:
                    write_points(run, until)
                    # With all its points, the training has ended after its sweep had died.
                    run.write_status(Status("done" if until == STEPS[-1] else "running"))
                    raise Killed
                train(run)

            with suppress(Killed):
                killed.work(train_and_die)
        assert killed.work()
        assert table(read_results(killed.folder)) == table(read_results(whole.folder))
        assert read_results(killed.folder).importance == read_results(whole.folder).importance


def test_a_sweep_goes_on_with_more_trials(workspace: Workspace, tmp_path: Path) -> None:
    first = Scripted(workspace, a_sweep(tmp_path, trials=2))
    first.work()
    more = Scripted(workspace, a_sweep(tmp_path, trials=3))
    assert more.work()
    assert more.launched == ["swept-002"]
    assert len(read_results(more.folder).comparison.runs) == 3


def test_a_training_that_diverges_fails_and_the_sweep_goes_on(workspace: Workspace, tmp_path: Path) -> None:
    def diverging(run: RunFolder) -> None:
        if run.name == "swept-001":
            run.write_status(Status("failed", message="The loss is not finite.", diverged=True))
        else:
            train(run)

    scripted = Scripted(workspace, a_sweep(tmp_path, trials=3, prune=False))
    assert scripted.work(diverging)
    last = read_results(scripted.folder).comparison.runs[-1]
    assert (last.name, last.state, last.loss, last.message) == (
        "swept-001",
        "failed",
        None,
        "The loss is not finite.",
    )


def test_a_loss_that_is_not_a_number_is_a_failure(workspace: Workspace, tmp_path: Path) -> None:
    def broken(run: RunFolder) -> None:
        train(run)
        points = list(run.points())
        run.truncate_curve(["answers"], 0, STEPS[1])
        run.add_point(type(points[-1])(**{**asdict(points[-1]), "figures": {"loss": math.nan}}))

    scripted = Scripted(workspace, a_sweep(tmp_path, trials=1))
    assert scripted.work(broken)
    assert scripted.work()


def test_any_other_failure_ends_the_sweep_which_tries_the_same_training_again(
    workspace: Workspace, tmp_path: Path
) -> None:
    def failing(run: RunFolder) -> None:
        run.write_status(Status("failed", message="The disk is full."))

    scripted = Scripted(workspace, a_sweep(tmp_path, trials=2))
    with pytest.raises(TuningError, match=r"The training swept-000 failed: The disk is full\. Remedy the cause"):
        scripted.work(failing)
    assert scripted.work()
    assert scripted.launched == ["swept-000", "swept-000", "swept-001"]


def test_a_stopped_training_stops_the_sweep_until_it_is_continued(workspace: Workspace, tmp_path: Path) -> None:
    def stopped(run: RunFolder) -> None:
        write_points(run, STEPS[0])
        run.write_status(Status("stopped"))

    scripted = Scripted(workspace, a_sweep(tmp_path, trials=1))
    assert not scripted.work(stopped)
    assert [run.state for run in read_results(scripted.folder).comparison.runs] == ["stopped"]
    scripted.stop.set()
    assert not scripted.work()
    scripted.stop.clear()
    assert scripted.work()


def test_a_stop_requested_in_its_folder_ends_it_after_the_training_and_is_withdrawn_by_the_next_process(
    workspace: Workspace, tmp_path: Path
) -> None:
    scripted = Scripted(workspace, a_sweep(tmp_path, trials=3))

    def training(run: RunFolder) -> None:
        train(run)
        scripted.folder.request_stop()

    assert not scripted.work(training)
    results = read_results(scripted.folder)
    assert (results.finished, results.trials) == (1, 3)
    assert scripted.work()
    assert read_results(scripted.folder).finished == 3


def test_the_process_of_a_sweep_leaves_the_reason_why_it_has_ended(workspace: Workspace, tmp_path: Path) -> None:
    sweep = a_sweep(tmp_path, trials=1)
    folder = begin_sweep(workspace.runs, sweep.model_copy(update={"recipe": recipe_text("/no/such/base")}))
    assert main(folder.path, OFF) == 1
    assert folder.problem.startswith("The training swept-000 failed: ")
    # The next one begins without it.
    Scripted(workspace, folder.sweep).work()
    assert folder.problem == ""


def test_a_training_in_the_middle_of_what_is_tried_stands_for_all(tmp_path: Path) -> None:
    space = ("epochs=1,4,2", "rank=4..8", "learning_rate=1e-5..1e-3:log", "base=one,other")
    recipe = middle_recipe(a_sweep(tmp_path, space))
    (stage,) = recipe.stages
    assert (stage.epochs, recipe.lora.rank, stage.learning_rate) == (2, 6, pytest.approx(1e-4))


def test_only_one_process_works_on_a_sweep(workspace: Workspace, tmp_path: Path) -> None:
    scripted = Scripted(workspace, a_sweep(tmp_path))
    with scripted.folder.lock, pytest.raises(TuningError, match="Another process is working on the sweep swept"):
        scripted.work()


def test_another_sweep_of_the_same_name_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    begin_sweep(workspace.runs, a_sweep(tmp_path))
    begin_sweep(workspace.runs, a_sweep(tmp_path, trials=9))
    assert find_sweep(workspace.runs, "swept").sweep.trials == 9
    with pytest.raises(TuningError, match=r"The sweep swept exists with another seed\. Repeat its options"):
        begin_sweep(workspace.runs, a_sweep(tmp_path, seed=8))
    (workspace.runs / "taken").mkdir()
    (workspace.runs / "taken" / "run.json").touch()
    with pytest.raises(TuningError, match="There is a run taken already"):
        begin_sweep(workspace.runs, a_sweep(tmp_path, name="taken"))


def test_a_damaged_sweep_is_told(workspace: Workspace, tmp_path: Path) -> None:
    folder = begin_sweep(workspace.runs, a_sweep(tmp_path))
    folder.study.write_bytes(b"no database" * 100)
    with pytest.raises(TuningError, match="cannot be read or written"):
        read_results(folder)
    (folder.path / FILE).write_text("{", encoding="utf-8")
    with pytest.raises(TuningError, match=r"is damaged: sweep\.json cannot be read"):
        read_results(folder)
    assert [one.name for one in all_sweeps(workspace.runs)] == ["swept"]


def test_runs_are_grouped_with_the_best_group_first(workspace: Workspace, tmp_path: Path) -> None:
    for name, rate in (("worse", "0.005,0.006"), ("better", "0.001,0.002")):
        space = (f"learning_rate={rate}",)
        Scripted(workspace, a_sweep(tmp_path, space, "grid", 9, name=name, prune=False)).work()
    comparison = compare_runs(map(compared_run, all_runs(workspace.runs)))
    groups = grouped(comparison, "sweep")
    assert [(group.name, len(group.runs)) for group in groups] == [("better", 2), ("worse", 2)]
    losses = [run.loss for run in groups[0].runs]
    assert groups[0].best == losses[0]
    assert groups[0].median == pytest.approx(sum(loss or 0 for loss in losses) / 2)
    assert [group.name for group in grouped(comparison, "base")] == ["some/base"]
    assert comparison.common["rank"] == 4
    assert "learning_rate" not in comparison.common
