"""``ragsmith tune sweep`` and ``compare`` with real trainings, killed in the middle, and with every mistake."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from scripted_training import Scripted, a_sweep
from sft_data import recipe_text, rows, write_rows
from terminal import assert_harmless, assert_one_line, call, one_object, start
from tiny_lm import make_model
from tuning_data import wait_until

from finetune.run_folder import RunFolder
from rag.workspace import Workspace, open_workspace


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe of a few steps, its base and its data."""
    folder = tmp_path_factory.mktemp("given")
    base = make_model(folder / "tiny-llama", hidden_size=32, intermediate_size=64, num_hidden_layers=2)
    write_rows(folder / "data" / "answers.jsonl", rows())
    text = recipe_text(base, stage="epochs = 1\nvalidate_every = 3")
    (folder / "my.toml").write_text(text, encoding="utf-8")
    return folder


def sweeping(given: Path) -> list[str | Path]:
    """A sweep of two trainings: the second is hopeless."""
    tried = ("--set", "learning_rate=3e-2,1e-5", "--method", "grid", "--startup", "1")
    return ["tune", "sweep", given / "my.toml", "--data", given / "data", *tried, "--json"]


@pytest.fixture(scope="module")
def whole(given: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A workspace with a sweep that nobody disturbed, and what the command printed."""
    home = tmp_path_factory.mktemp("whole")
    result = call(home, *sweeping(given))
    assert result.exit_code == 0, result.output
    return home, one_object(result)


def killed_in(run: RunFolder, home: Path, arguments: list[str | Path], *, trainer: bool) -> None:
    """Kill a sweep, and perhaps the process of the training as well, as soon as a run has a checkpoint."""
    with start(home, *arguments) as process:
        wait_until(lambda: list(run.path.glob("checkpoints/0-*")) or process.poll() is not None)
        process.kill()
        if trainer and run.is_active:
            # It may end just now.
            with suppress(ProcessLookupError):
                os.kill(run.status.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.slow
def test_killed_in_the_middle_a_sweep_goes_on_and_ends_with_the_same_table(
    given: Path, whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    runs = open_workspace(tmp_path / "home").runs
    first, second = (RunFolder(runs / f"tiny-sweep-00{number}") for number in range(2))
    killed_in(first, tmp_path / "home", sweeping(given), trainer=True)
    # The second time only the sweep is killed, and the training that it has started goes on.
    killed_in(second, tmp_path / "home", sweeping(given), trainer=False)
    continued = call(tmp_path / "home", *sweeping(given))
    assert continued.exit_code == 0, continued.output
    assert one_object(continued) == whole[1]
    assert [(run["name"], run["state"]) for run in whole[1]["runs"]] == [
        ("tiny-sweep-000", "done"),
        ("tiny-sweep-001", "pruned"),
    ]
    assert whole[1]["runs"][1]["step"] == 3
    assert not second.is_active
    assert not (second.path / "checkpoints").exists()


@pytest.mark.slow
def test_a_sweep_is_shown_without_being_repeated(whole: tuple[Path, dict[str, Any]]) -> None:
    home, results = whole
    assert one_object(call(home, "tune", "compare", "--sweep", "tiny-sweep", "--json")) == results
    shown = call(home, "tune", "compare", "--sweep", "tiny-sweep")
    assert shown.exit_code == 0
    heading, best, worse, same = shown.stdout.splitlines()
    assert heading.split() == ["run", "state", "validation", "loss", "step", "curve", "learning_rate"]
    assert best.split()[:2] == ["tiny-sweep-000", "done"]
    assert worse.split()[:2] == ["tiny-sweep-001", "pruned"]
    assert "rank 4" in same
    named = one_object(
        call(home, "tune", "compare", "tiny-sweep-001", "tiny-sweep-000", "--by", "sweep", "--json")
    )
    assert [run["name"] for run in named["runs"]] == ["tiny-sweep-000", "tiny-sweep-001"]
    assert named["groups"][0]["sweep"] == "tiny-sweep"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], "A sweep needs a field with more than one value. Add --set."),
        (["--set", "rank"], "'rank' must have the form FIELD=VALUES"),
        (["--set", "rank=8..4"], "The range of rank must begin below its end"),
        (["--set", "wheels=4,8"], "unknown field `wheels`"),
        (["--set", "rank=0,4"], "rank=0 cannot be tried."),
        (["--set", "rank=8..4", "--set", "epochs=x"], "and 8 is not below 4. epochs must be a number, not 'x'."),
        (["--set", "rank=0,4", "--set", "dropout=2,0"], "dropout=2.0 cannot be tried."),
        (["--set", "rank=4..8", "--method", "grid"], "A grid needs the values of rank"),
        (["--set", "base=nowhere,/none"], "nowhere"),
        (["--set", "rank=4,8", "--base", "/none"], "/none"),
        (["--set", "rank=4,8", "--name", "A B"], "must have only lower-case letters, digits and hyphens"),
        (["--space", "missing.toml"], "missing.toml cannot be read"),
        (["--set", "rank=\x1b[31m"], "rank must be a whole number"),
        (["--set", "rank=\udcff"], "rank must be a whole number"),
    ],
)
def test_a_mistake_is_told_in_one_sentence_before_anything_is_trained(
    options: list[str], reason: str, given: Path, workspace: Workspace
) -> None:
    result = call(workspace.root, "tune", "sweep", given / "my.toml", "--data", given / "data", *options)
    assert_one_line(result, reason)
    assert_harmless(result.stderr)
    assert not workspace.runs.exists()


def test_data_and_recipes_that_are_not_there_are_told(given: Path, workspace: Workspace) -> None:
    options = ("--set", "rank=4,8")
    result = call(workspace.root, "tune", "sweep", "riddles", "--data", given / "data", *options)
    assert_one_line(result, "There is no recipe riddles.")
    result = call(workspace.root, "tune", "sweep", given / "my.toml", "--data", "nowhere", *options)
    assert_one_line(result, "The folder nowhere does not exist.")
    result = call(workspace.root, "tune", "sweep", "miniature", "--data", given / "data", *options)
    assert_one_line(result, "does not train a language model, so rank cannot be changed")


def test_comparing_what_is_not_there_is_told(workspace: Workspace, tmp_path: Path) -> None:
    home = workspace.root
    assert_one_line(call(home, "tune", "compare", "one", "two"), "There is no run one.")
    assert_one_line(call(home, "tune", "compare", "--sweep", "none"), "There is no sweep none. Start one with")
    assert call(home, "tune", "compare").stderr.startswith("There are no runs yet.")
    assert one_object(call(home, "tune", "compare", "--json"))["runs"] == []
    for wrong in (["one"], ["one", "one"], ["one", "two", "--sweep", "three"]):
        result = call(home, "tune", "compare", *wrong)
        assert (result.exit_code, result.stdout) == (2, "")
    Scripted(workspace, a_sweep(tmp_path, trials=2)).work()
    assert_one_line(call(home, "tune", "compare", "--sweep", "none"), "There is no sweep none. Sweeps: swept.")
    shown = call(home, "tune", "compare", "--by", "base")
    assert shown.stdout.startswith("base some/base: best ")
    assert "swept-001" in shown.stdout
    assert json.loads(call(home, "tune", "status", "--json").stdout)[0]["state"] == "done"
