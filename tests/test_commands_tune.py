"""``ragsmith tune`` before and beside a training: lists, figures, and one clear line for every mistake."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from terminal import assert_harmless, assert_one_line, call, one_object
from test_house import run_python

from finetune.predictions import Prediction
from finetune.recipe import RECIPES, parse_recipe
from finetune.run_folder import MEASURING, WRITING, RunFolder, State, Status, find_run, new_run, run_like
from finetune.training import Point
from rag.encoders.adapters import CARD, CONFIG, WEIGHTS, AdapterCard, Calibration, read_adapter
from rag.errors import TuningError
from rag.settings import TrackingSettings
from rag.workspace import Workspace
from ui.commands import _training
from ui.pages.tune.train_view import run_html

TEXT = (RECIPES / "miniature.toml").read_text(encoding="utf-8")
RECIPE = parse_recipe(TEXT, "miniature.toml")
LOOKED = Point("cloze", 5, 6, 2.5, 1e-4, 3.5, 120.0, {"loss": 2.25, "f1": 0.5})
BETWEEN = Point("cloze", 6, 6, 2.25, 1e-5, 4.5, 120.0)
CARD_TOLD = AdapterCard(
    name="miniature",
    task="reader",
    base="some/base",
    base_sha256="0" * 64,
    rank=8,
    recipe={},
    licences=("MIT", "CC BY-SA 4.0"),
    calibration=Calibration(slope=1.0, intercept=0.0),
    figures={"validation/f1": 0.5},
)


def made(workspace: Workspace, state: State, data: Path | None = None, **told: object) -> RunFolder:
    """A run as its files tell of it, and no process."""
    run = new_run(workspace.runs, RECIPE, TEXT, data or workspace.root, TrackingSettings(wandb="off"))
    for point in (LOOKED, BETWEEN):
        run.add_point(point)
    run.write_status(Status(state, 1, "cloze", 6, 6, 2.25, 4.5, **told))  # type: ignore[arg-type]
    return run


@pytest.fixture
def done(workspace: Workspace) -> RunFolder:
    """A run that has its result."""
    run = made(workspace, "done")
    (run.path / "result").mkdir()
    (run.path / "result" / CARD).write_text(CARD_TOLD.model_dump_json(), encoding="utf-8")
    for name in (CONFIG, WEIGHTS):
        (run.path / "result" / name).touch()
    return run


@pytest.mark.parametrize("activity", [MEASURING, WRITING])
def test_a_run_names_what_it_does_before_its_first_step_and_after_its_last_one(
    workspace: Workspace, activity: str
) -> None:
    run = made(workspace, "running", activity=activity)
    with run.lock:
        assert _training.pace_of(run.status) == activity
        assert activity in run_html(run)
    # Its process is gone, so it no longer does anything.
    assert (run.status.state, run.status.activity) == ("stopped", "")
    assert activity not in run_html(run)


# Mistakes


@pytest.mark.parametrize("name", ["show", "stop", "resume"])
def test_without_a_run_each_command_says_how_to_begin_one(name: str, workspace: Workspace) -> None:
    told = "Start one with `ragsmith tune run RECIPE --data FOLDER`"
    assert_one_line(call(workspace.root, "tune", name), "There are no runs yet.", told)
    assert_one_line(call(workspace.root, "tune", name, "mine"), "There is no run mine.", "Runs: none yet.")


def test_without_a_run_the_list_is_empty(workspace: Workspace) -> None:
    result = call(workspace.root, "tune", "status")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "There are no runs yet. Start one with `ragsmith tune run RECIPE --data FOLDER`.\n"
    assert one_object(call(workspace.root, "tune", "status", "--json")) == []


@pytest.mark.parametrize("name", ["show", "stop", "resume"])
def test_a_run_that_is_not_there_is_told_with_those_that_are(
    name: str, workspace: Workspace, done: RunFolder
) -> None:
    for wrong in ("mine", "mine\x1b[31m", "a" * 300):
        result = call(workspace.root, "tune", name, wrong)
        assert_one_line(result, "There is no run", f"Runs: {done.name}.")
        assert_harmless(result.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "one", "two"],
        ["stop", "--now"],
        ["resume", "--json"],
        ["status", "mine"],
        ["run"],
        ["run", "reader"],
    ],
)
def test_wrong_arguments_are_refused_with_the_usage(arguments: list[str], workspace: Workspace) -> None:
    result = call(workspace.root, "tune", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"Usage: ragsmith tune {arguments[0]}")
    assert "Traceback" not in result.stderr


def test_a_training_wants_a_recipe_and_data_that_are_there(workspace: Workspace, tmp_path: Path) -> None:
    home = workspace.root
    result = call(home, "tune", "run", "riddles", "--data", tmp_path)
    assert_one_line(result, "There is no recipe riddles.", "one of: condenser, dpo, miniature, questioner, reader")
    assert_one_line(call(home, "tune", "run", "a" * 300, "--data", tmp_path), "There is no recipe aaa")
    assert_one_line(
        call(home, "tune", "run", "miniature", "--data", "nowhere"), "The folder nowhere does not exist.", "--data"
    )
    (tmp_path / "file").touch()
    result = call(home, "tune", "run", "miniature", "--data", tmp_path / "file")
    assert_one_line(result, "file is a file, and a training reads a folder", "`ragsmith data prepare FILE")
    # An empty path would be the current folder.
    result = call(home, "tune", "run", "miniature", "--data", "")
    assert_one_line(result, "The name of the training data is empty. Name a folder with --data")
    assert not workspace.runs.exists()


@pytest.mark.parametrize("name", ["My Name", "", "a/b", "ä"])
def test_a_name_that_no_folder_should_have_is_refused_in_words(
    name: str, workspace: Workspace, tmp_path: Path
) -> None:
    result = call(workspace.root, "tune", "run", "sft", "--data", tmp_path, "--name", name)
    told = f"name: {name!r} must have only lower-case letters, digits and hyphens."
    assert_one_line(result, f"The recipe sft cannot be changed: {told}")


@pytest.mark.parametrize(
    "arguments",
    [
        ["data", "prepare", "rows.csv", "--name", "x", "--validation", "nan"],
        ["tune", "run", "sft", "--data", ".", "--learning-rate", "inf"],
        ["tune", "run", "sft", "--data", ".", "--epochs", "nan"],
        ["tune", "predict", "smollm2", "Who?", "--temperature", "nan"],
    ],
)
def test_a_number_must_be_one(arguments: list[str], workspace: Workspace) -> None:
    (Path.cwd() / "rows.csv").write_text("prompt,completion\nWho?,Ida\n", encoding="utf-8")
    result = call(workspace.root, *arguments)
    assert result.exit_code == 2
    option, value = arguments[-2:]
    assert f"Invalid value for '{option}': '{value}' must be a finite number." in result.stderr


@pytest.mark.parametrize("base", ["./nowhere", "local:./nowhere"])
def test_a_base_that_is_not_there_is_refused_with_what_a_base_can_be(
    base: str, workspace: Workspace, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("prompt,completion\nWho?,Ida\n", encoding="utf-8")
    told = (
        "The model folder nowhere does not exist. The base must be smollm2, a folder",
        "`hf download OWNER/NAME`",
    )
    assert_one_line(call(workspace.root, "data", "prepare", rows, "--name", "x", "--base", base), *told)
    assert_one_line(call(workspace.root, "tune", "predict", f"local:{base.removeprefix('local:')}", "Who?"), *told)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (TEXT.replace("rank = 8", "rank = 0").encode(), "lora.rank: Input should be greater than or equal to 1"),
        (TEXT.replace("seed = 3", "sead = 3").encode(), "unknown setting `sead` (did you mean `seed`?)"),
        (b"name = ", "must be valid TOML"),
        (b"\xff\xfe", "cannot be read"),
        (b"", "name: Field required"),
    ],
)
def test_a_malformed_recipe_is_told_by_its_field(
    content: bytes, reason: str, workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "my.toml").write_bytes(content)
    assert_one_line(
        call(workspace.root, "tune", "run", tmp_path / "my.toml", "--data", tmp_path), "my.toml", reason
    )
    assert not workspace.runs.exists()


def test_data_without_the_files_fail_with_one_line(workspace: Workspace, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    assert_one_line(call(workspace.root, "tune", "run", "miniature", "--data", data), f"{data} is empty")
    assert not workspace.runs.exists()
    (data / "other.json").touch()
    result = call(workspace.root, "tune", "run", "miniature", "--data", data)
    assert result.exit_code == 1
    assert result.stdout == ""
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    assert "cs224n-dev-v2.0.json cannot be read" in last
    assert "Traceback" not in result.stderr
    (listed,) = one_object(call(workspace.root, "tune", "status", "--json"))
    assert listed["state"] == "failed"
    assert listed["message"] in last
    assert "cannot be read" in call(workspace.root, "tune", "status").stdout


def test_a_run_whose_files_are_damaged(workspace: Workspace, done: RunFolder) -> None:
    (done.path / "status.json").write_text("{", encoding="utf-8")
    (done.path / "curve.jsonl").write_bytes((done.path / "curve.jsonl").read_bytes()[:-9] + b"\xff")
    held = one_object(call(workspace.root, "tune", "show", "--json"))
    assert held["status"]["state"] == "stopped"
    assert [each["step"] for each in held["curve"]] == [LOOKED.step]
    (done.path / "result" / CARD).write_text("{}", encoding="utf-8")
    assert_one_line(call(workspace.root, "tune", "show"), "The card of the adapter", "name: Field required")
    (done.path / "run.json").write_text("{", encoding="utf-8")
    result = call(workspace.root, "tune", "resume")
    assert result.exit_code == 1
    assert "run.json cannot be read" in result.stderr.splitlines()[-1]
    (done.path / "run.json").unlink()
    assert_one_line(call(workspace.root, "tune", "show"), "There are no runs yet.")


def test_a_run_does_not_go_on_with_another_recipe(workspace: Workspace) -> None:
    run = made(workspace, "stopped")
    (run.path / "recipe.toml").write_text(TEXT.replace("rank = 8", "rank = 4"), encoding="utf-8")
    result = call(workspace.root, "tune", "resume")
    assert result.exit_code == 1
    assert "recipe.toml has changed since the run started. Undo the change" in result.stderr.splitlines()[-1]
    (run.path / "recipe.toml").write_text(TEXT, encoding="utf-8")
    assert run.recipe.lora.rank == 8


# What is told


def test_the_list_of_runs_has_the_newest_first(workspace: Workspace, done: RunFolder) -> None:
    failed = made(workspace, "failed", message="The disk is full.")
    killed = made(workspace, "running", left_s=61.0)
    lines = call(workspace.root, "tune", "status").stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [
        [killed.name, "stopped"],
        [failed.name, "failed"],
        [done.name, "done"],
    ]
    assert "The disk is full." in lines[2]
    assert "cloze 6/6" in lines[1]
    assert "left" not in lines[1]
    listed = one_object(call(workspace.root, "tune", "status", "--json"))
    assert [each["run"] for each in listed] == [killed.name, failed.name, done.name]
    assert listed[0] == {"run": killed.name, **asdict(killed.status)}
    assert listed[0].keys() == {"run", *Status.__slots__}


def test_a_run_is_shown_with_its_figures_and_what_came_of_it(workspace: Workspace, done: RunFolder) -> None:
    result = call(workspace.root, "tune", "show")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"{done.name}: done, cloze 6/6",
        "  cloze 5/6  training loss 2.5000  validation loss 2.2500  f1 0.5000",
        "",
        f"{done.path / 'result'}: rank 8 on some/base",
        "  validation/f1 0.5000",
        "Licences of the data: MIT; CC BY-SA 4.0",
    ]
    held = one_object(call(workspace.root, "tune", "show", done.name, "--json"))
    assert held.keys() == {"run", "status", "curve", "card", "predictions", "folder"}
    assert held["predictions"] == []
    assert held["curve"] == [{**asdict(point), "samples": []} for point in (LOOKED, BETWEEN)]
    assert held["card"] == json.loads(CARD_TOLD.model_dump_json())
    assert held["folder"] == str(done.path)


def test_a_run_shows_its_newest_samples_beside_their_targets(workspace: Workspace, done: RunFolder) -> None:
    early = Prediction(0, "Who\nkeeps it?", "Ida.", "The the the", 3.5)
    late = replace(early, text=f"Ida\x1b[31m {'and so on ' * 50}", loss=0.25)
    done.add_point(replace(LOOKED, samples=(early,)))
    done.add_point(replace(LOOKED, step=6, samples=(late,)))
    done.write_predictions([late, early])
    result = call(workspace.root, "tune", "show")
    assert_harmless(result.stdout)
    told = result.stdout[result.stdout.index("Samples at") :].splitlines()
    assert told[:3] == ["Samples at cloze 6/6:", "  1. Who keeps it?", "     target: Ida."]
    assert told[3].startswith("     writes: Ida␛[31m and so on")
    assert told[3].endswith(" …")
    assert "Predictions for 2 validation rows with losses from 0.2500 to 3.5000: see --json" in result.stdout
    held = one_object(call(workspace.root, "tune", "show", "--json"))
    assert held["curve"][-1]["samples"] == held["predictions"][:1] == [asdict(late)]
    assert [point.samples for point in done.points()] == [(), (), (early,), (late,)]
    (done.path / "predictions.jsonl").write_text("{", encoding="utf-8")
    assert done.predictions() == []


def test_a_curve_of_before_there_were_samples_is_read(workspace: Workspace, done: RunFolder) -> None:
    lines = [json.loads(line) for line in (done.path / "curve.jsonl").read_text(encoding="utf-8").splitlines()]
    old = "".join(json.dumps({name: line[name] for name in line if name != "samples"}) + "\n" for line in lines)
    (done.path / "curve.jsonl").write_text(old, encoding="utf-8")
    assert list(done.points()) == [LOOKED, BETWEEN]


def test_the_name_of_an_adapter_is_its_newest_run(workspace: Workspace, done: RunFolder) -> None:
    newest = made(workspace, "stopped")
    assert find_run(workspace.runs, "miniature") == newest
    assert find_run(workspace.runs, done.name) == done
    with pytest.raises(TuningError, match="There is no run mini"):
        find_run(workspace.runs, "mini")


def test_a_training_continues_an_adapter_that_a_run_or_a_folder_names(
    workspace: Workspace, done: RunFolder, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "answers.jsonl").touch()
    arguments = ("tune", "run", "sft", "--data", tmp_path / "data", "--detach", "--start")
    assert_one_line(call(workspace.root, *arguments, ""), "The name of the adapter to continue from is empty.")
    assert_one_line(call(workspace.root, *arguments, "nobody"), "There is no run nobody.")
    for started in ("miniature", done.path / "result"):
        # It is found, and is no adapter of a language model.
        result = call(workspace.root, *arguments, started)
        assert_one_line(result, f"{done.path / 'result'}", "adapter")


def test_a_run_without_result_is_shown_without_card(workspace: Workspace) -> None:
    run = made(workspace, "failed", message="Too bad.")
    assert one_object(call(workspace.root, "tune", "show", "--json"))["card"] is None
    assert call(workspace.root, "tune", "show").stdout.startswith(f"{run.name}: failed")


def test_stopping_what_does_not_run_leaves_nothing_behind(workspace: Workspace, done: RunFolder) -> None:
    result = call(workspace.root, "tune", "stop")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"{done.name} is not running.\n")
    assert not done.stop_requested


def test_going_on_with_what_is_done_tells_where_it_is(workspace: Workspace, done: RunFolder) -> None:
    result = call(workspace.root, "tune", "resume")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"{done.name} is done: {done.path / 'result'}\n"


def test_the_same_training_asked_for_again_is_taken_up_and_not_begun_anew(
    workspace: Workspace, done: RunFolder, tmp_path: Path
) -> None:
    arguments = ("tune", "run", "miniature", "--resume", "--data", workspace.root)
    result = call(workspace.root, *arguments, "--to", tmp_path / "target")
    assert (result.exit_code, result.stdout) == (0, f"Copied to {tmp_path / 'target'}\n")
    assert result.stderr == f"{done.name} is done: {done.path / 'result'}\n"
    assert read_adapter(tmp_path / "target").card == CARD_TOLD
    assert list(workspace.runs.iterdir()) == [done.path]


def test_only_a_run_of_the_same_recipe_start_and_data_is_taken_up(workspace: Workspace, tmp_path: Path) -> None:
    run = made(workspace, "stopped")
    assert run_like(workspace.runs, RECIPE, TEXT, workspace.root) == run
    assert run_like(workspace.runs, RECIPE, f"{TEXT}# another\n", workspace.root) is None
    assert run_like(workspace.runs, RECIPE, TEXT, tmp_path) is None
    started = RECIPE.model_copy(update={"start": "reader"})
    assert run_like(workspace.runs, started, TEXT, workspace.root) is None
    other = new_run(workspace.runs, started, TEXT, workspace.root, TrackingSettings(wandb="off"))
    assert run_like(workspace.runs, started, TEXT, workspace.root) == other
    # The newest of those that are whole.
    newest = made(workspace, "done")
    assert run_like(workspace.runs, RECIPE, TEXT, workspace.root) == newest
    (newest.path / "run.json").write_text("[]", encoding="utf-8")
    assert run_like(workspace.runs, RECIPE, TEXT, workspace.root) == run


@pytest.mark.parametrize("copied", [False, True])
def test_a_run_that_somebody_works_on_is_followed_and_ctrl_c_stops_it(
    copied: bool, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(workspace, "running", left_s=61.0)
    again = f"`ragsmith tune resume {run.name}`"
    arguments: list[object] = ["resume"]
    if copied:
        again = "The same command with --resume"
        target = workspace.root / "target"
        arguments = ["run", "miniature", "--resume", "--data", workspace.root, "--to", target]
    naps = 0

    def nap(_seconds: float) -> None:
        nonlocal naps
        naps += 1
        if naps == 1:
            raise KeyboardInterrupt
        if naps == 3:
            run.write_status(Status("stopped", 1, "cloze", 6, 6))
            lock.release()

    # This module's alone: another thread of this process may be sleeping as well.
    monkeypatch.setattr(_training, "time", SimpleNamespace(monotonic=time.monotonic, sleep=nap))
    monkeypatch.setattr(_training, "LINE_EVERY_S", 0.0)
    lock = run.lock
    lock.acquire()
    result = call(workspace.root, "tune", *arguments)
    assert result.exit_code == 130
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"{run.name} is running already.",
        f"{run.name}: {run.path}",
        "running: cloze 6/6, loss 2.2500, 1:01 left",
        "running: cloze 6/6, loss 2.2500, 1:01 left, stopping",
        "running: cloze 6/6, loss 2.2500, 1:01 left, stopping",
        f"Stopped. {again} continues it.",
    ]
    assert not (workspace.root / "target").exists()
    assert run.stop_requested


def test_a_training_that_cannot_start_points_to_its_log(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(workspace, "stopped")
    monkeypatch.setattr("sys.executable", "/bin/false")
    result = call(workspace.root, "tune", "resume")
    assert_one_line(result, "The training did not start.", str(run.path / "log.txt"))


def test_two_runs_of_one_second_have_folders_of_their_own(workspace: Workspace) -> None:
    names = {made(workspace, "done").name for _ in range(3)}
    assert len(names) == 3


def test_help_and_lists_do_not_import_torch(tmp_path: Path) -> None:
    heavy = {"torch", "transformers", "peft", "wandb", "sklearn", "openvino"}
    for arguments in (["tune", "--help"], ["tune", "run", "--help"], ["tune", "status", "--json"]):
        program = (
            f"import sys, ui.cli; ui.cli.cli({['--home', str(tmp_path / 'home'), *arguments]!r}, "
            "standalone_mode=False); print('\\n' + ' '.join(sys.modules))"
        )
        loaded = set(run_python("-c", program, cwd=tmp_path).splitlines()[-1].split())
        assert "ui.commands.tune_command" in loaded
        assert not {name for name in loaded if name.partition(".")[0] in heavy}


@pytest.mark.parametrize("name", ["run", "resume", "stop", "status", "show"])
def test_every_command_has_its_help(name: str, workspace: Workspace) -> None:
    result = call(workspace.root, "tune", name, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: ragsmith tune {name}")
