"""From a raw table to an adapter and its texts: prepare, estimate, train with tracking, predict."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from terminal import assert_one_line, call, one_object
from test_data_preparation import table
from tiny_lm import make_model
from tracked import isolate, table_rows
from wandb_reader import offline_runs, read_run

from finetune.chat_features import messages_of
from finetune.measured_run import new_measured_run
from finetune.prepared.data_versions import DataVersions
from finetune.recipe import load_recipe, parse_recipe
from finetune.recipe_changes import RecipeChanges, changed_recipe, recipe_toml
from finetune.run_folder import RunFolder, all_runs
from finetune.tasks import open_task
from finetune.training_preview import read_preview
from prompts import Message
from rag.encoders.adapters import read_adapter
from rag.models.local.chat_template import render
from rag.models.local.local_adapters import find_lora
from rag.models.local.local_tokenizer import load_tokenizer
from rag.settings import LocalSettings, Settings
from rag.workspace import Workspace
from ui.cli import cli

pytestmark = pytest.mark.slow

CHANGES = ("--epochs", "2", "--rank", "4", "--learning-rate", "0.01", "--name", "stories")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "tiny-llama"
    return make_model(folder, hidden_size=32, intermediate_size=64, num_hidden_layers=2)


@pytest.fixture(scope="module")
def home(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with data in the form plain, and a run that was trained on them."""
    folder = tmp_path_factory.mktemp("home")
    options = ("--name", "stories", "--form", "plain", "--end", " END", "--base", base)
    result = call(folder / "home", "data", "prepare", table(folder, "X,Coming soon\n"), *options)
    assert result.exit_code == 0, result.output
    return folder / "home"


@pytest.fixture(scope="module")
def shown(home: Path, base: Path) -> str:
    """What the command of the training has printed beside its result."""
    arguments = ["--home", home, "tune", "run", "sft", "--data", "stories", "--base", base, *CHANGES]
    with pytest.MonkeyPatch.context() as patched:
        isolate(home, patched)
        patched.setenv("RAGSMITH_TRACKING__WANDB", "offline")
        result = CliRunner().invoke(cli, list(map(str, arguments)), prog_name="ragsmith")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Done: ")
    return result.stderr


@pytest.fixture
def run(shown: str, home: Path) -> RunFolder:
    (folder,) = (home / "runs").iterdir()
    return RunFolder(folder)


def test_before_the_training_stand_its_data_the_first_batch_and_an_estimate(shown: str, run: RunFolder) -> None:
    preview = read_preview(run.path)
    assert preview is not None
    assert (preview.rows, preview.validation_rows, len(preview.step_s)) == (11, 1, 3)
    assert preview.estimated_s > 0
    assert preview.memory_bytes > 10_000_000
    row = preview.first_batch[0]
    assert row.masked.startswith("Episode ")
    assert row.masked.endswith("\n\n###\n\n")
    assert row.learnt.startswith(" The keeper")
    assert row.learnt.endswith(" END<|im_end|>")
    assert f"Data: 11 rows of {preview.tokens:,} tokens" in shown
    assert "###\n     \n     ⟧ The keeper" in shown
    assert "Estimate for tiny-llama on cpu: " in shown


@pytest.mark.parametrize("options", [(), ("--resume",)])
def test_a_dry_run_shows_the_same_and_leaves_no_run(
    shown: str, home: Path, base: Path, options: tuple[str, ...]
) -> None:
    before = list((home / "runs").iterdir())
    arguments = ("--data", "stories@1", "--base", base, *CHANGES, "--dry-run")
    result = call(home, "tune", "run", "sft", *arguments, *options)
    assert result.exit_code == 0, result.output
    assert result.stdout.partition("Estimate")[0] in shown
    assert list((home / "runs").iterdir()) == before
    assert list((home / "measured").iterdir()) == []


def test_a_measured_run_that_nobody_takes_is_deleted_later(run: RunFolder, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)

    def begun() -> Path:
        text = (run.path / "recipe.toml").read_text()
        return new_measured_run(workspace, run.recipe, text, run.data, run.tracking).path

    left, young = begun(), begun()
    os.utime(left, (0, 0))
    newest = begun()
    assert set(workspace.measured.iterdir()) == {young, newest}
    assert all_runs(workspace.runs) == []


def test_serving_renders_a_prompt_with_the_tokens_of_the_training(run: RunFolder, base: Path) -> None:
    task: Any = open_task(run.recipe, run.path, run.data)
    (feature, *_) = task.features(run.recipe.stages[0].sources[0], run.data, 1)
    adapter = find_lora(str(run.path / "result"), run.path)
    row = json.loads((run.data / "answers.jsonl").read_text().splitlines()[0])
    messages = messages_of([Message(**turn) for turn in row["messages"]])
    prompt = render(load_tokenizer(task.base.files), messages, adapter.chat_template)
    assert prompt.ids == feature.ids[: feature.second]
    assert adapter.stops == (" END",)


def test_without_the_mask_the_prompt_is_learnt_too(home: Path, base: Path, run: RunFolder) -> None:
    result = call(home, "data", "prepare", table(home), "--name", "open", "--base", base, "--without", "mask")
    assert result.exit_code == 0, result.output
    versions = DataVersions(home / "data")
    folder = versions.folder(versions.resolve("open"))
    task: Any = open_task(run.recipe, run.path, folder)
    (feature,) = task.validation(folder, 9)
    assert feature.second == 1
    # The texts of a validation begin after the prompt in any case.
    assert task.encoder.text_of(feature.ids[: feature.target[0]]).endswith("<|im_start|>assistant\n")


def test_the_card_and_the_tracked_run_name_the_version_of_the_data(run: RunFolder, home: Path) -> None:
    version = DataVersions(home / "data").resolve("stories")
    card = read_adapter(run.path / "result").card
    assert card.data["prepared"] == {"name": "stories@1", "sha256": version.sha256}
    (tracked,) = offline_runs(home)
    logged = read_run(tracked)
    artifacts = [one.artifact for one in logged.records if one.WhichOneof("record_type") == "artifact"]
    by_type = {one.type: one for one in artifacts}
    assert {"dataset", "adapter"} <= by_type.keys()
    assert by_type["dataset"].name == "data-stories"
    assert json.loads(by_type["dataset"].metadata)["sha256"] == version.sha256
    assert by_type["dataset"].use_after_commit
    assert not by_type["adapter"].use_after_commit
    adapter = json.loads(by_type["adapter"].metadata)
    assert adapter["data"]["prepared"] == {"name": "stories@1", "sha256": version.sha256}
    assert (by_type["adapter"].name, adapter["base_sha256"]) == (f"adapter-{card.name}", card.base_sha256)
    assert set(by_type["adapter"].aliases) == {"latest", run.name}
    assert {file.path for file in by_type["dataset"].manifest.contents} == {
        path.name for path in run.data.iterdir()
    }
    (table_row,) = [row for row in logged.history if "data._type" in row]
    assert (table_row["data._type"], table_row["data.nrows"]) == ("table-file", 12)


def test_at_every_validation_the_model_writes_what_it_is_served_with(
    run: RunFolder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RUNTIME", "torch"), ("DTYPE", "f32")):
        monkeypatch.setenv(f"RAGSMITH_LOCAL__{name}", value)
    validated = [point for point in run.points() if point.figures]
    row = json.loads((run.data / "validation.jsonl").read_text(encoding="utf-8"))
    for point in validated:
        (sample,) = point.samples
        assert (sample.row, sample.prompt) == (0, row["messages"][0]["content"])
        # Without the text that ends it, as it is served.
        assert f" {sample.target} END" == row["completion"]
        assert point.figures is not None
        assert sample.loss == pytest.approx(point.figures["loss"], abs=1e-3)
    asked = ("tune", "predict", run.name, row["messages"][0]["content"], "--max-tokens", "8", "--json")
    served = one_object(call(home, *asked))
    (prediction,) = run.predictions()
    assert prediction.text.startswith(served["adapter"]["text"].strip())
    assert prediction.text.startswith(validated[-1].samples[0].text)


def test_the_tracked_run_holds_the_configuration_curves_samples_and_predictions(
    run: RunFolder, home: Path
) -> None:
    (tracked,) = offline_runs(home)
    logged = read_run(tracked)
    assert logged.config["recipe"] == run.recipe.model_dump(mode="json")
    points = list(run.points())
    assert [row["answers/loss"] for row in logged.history if "answers/loss" in row] == [
        pytest.approx(point.loss) for point in points
    ]
    assert [row["validation/loss"] for row in logged.history if "validation/loss" in row] == [
        pytest.approx(point.figures["loss"]) for point in points if point.figures
    ]
    sampled = [(point.stage, point.step, sample) for point in points for sample in point.samples]
    assert table_rows(Workspace(home), "samples") == [
        {"stage": stage, "step": step, **asdict(sample)} for stage, step, sample in sampled
    ]
    assert table_rows(Workspace(home), "predictions") == [asdict(one) for one in run.predictions()]
    assert {"samples", "predictions", "data", "validation/loss"} <= logged.summary_keys
    assert len(logged.summary_keys) <= 30


def test_predicting_writes_with_the_adapter_and_beside_it_the_base(run: RunFolder, home: Path) -> None:
    options = ("--max-tokens", "8", "--both", "--json", "--stop", "zzz")
    found = one_object(call(home, "tune", "predict", run.name, "Episode 3", *options))
    assert found["adapter"]["tokens"] == found["base"]["tokens"] == 8
    assert found["adapter"]["text"] != found["base"]["text"]
    sampled = ("--max-tokens", "8", "--temperature", "1", "--seed", "4")
    texts = {call(home, "tune", "predict", run.name, "Episode 3", *sampled).stdout for _ in range(2)}
    assert len(texts) == 1
    assert_one_line(call(home, "tune", "predict", "nobody", "Episode 3"), "There is no run nobody.")


async def test_stopping_ends_the_text_of_its_session_alone_and_keeps_what_was_written(
    run: RunFolder, home: Path
) -> None:
    """In the part Try a text is written while its generator is read, so that the stop comes in the middle."""
    import gradio as gr

    from ui.pages.tune.try_part import TryPart

    one, two = (SimpleNamespace(session_hash=name) for name in ("one", "two"))
    # Inside a loop: outside of one Gradio makes a loop for each of its locks and closes none.
    with gr.Blocks():
        part = TryPart(Settings(local=LocalSettings(device="cpu")), Workspace(home))
    writing = part.write(one, run.name, "Episode 3", 0.0, 1.0, 400, 1, "")
    assert "Loading the model" in next(writing)
    assert "with the adapter …" in next(writing)
    part.stop(two)
    assert "with the adapter …" in next(writing)
    part.stop(one)
    (last,) = writing
    assert "…" not in last
    adapter, base = re.findall(r"</h3><div>(.*?)</div>", last, re.DOTALL)
    assert adapter
    assert not base
    # The next text of the session is not stopped.
    assert len(list(part.write(one, run.name, "Episode 3", 0.0, 1.0, 8, 1, ""))) > 3


def test_a_base_writes_without_a_run(base: Path, home: Path) -> None:
    found = one_object(call(home, "tune", "predict", f"local:{base}", "Episode 3", "--max-tokens", "8", "--json"))
    assert (found["run"], found["base"]["tokens"]) == (f"local:{base}", 8)
    result = call(home, "tune", "predict", f"local:{base}", "Episode 3", "--both")
    assert "--both compares the adapter of a run with its base, so it needs a run." in result.stderr


def test_changes_of_a_recipe_survive_as_a_file(base: Path) -> None:
    changes = RecipeChanges(
        name="mine",
        base=str(base),
        start="first/result",
        epochs=0.5,
        rank=4,
        learning_rate=1e-5,
        targets=("q_proj",),
    )
    changed: Any = changed_recipe(load_recipe("sft"), changes)
    assert changed.start == "first/result"
    assert (changed.lora.rank, changed.lora.alpha, changed.lora.targets) == (4, 8, ("q_proj",))
    assert parse_recipe(recipe_toml(changed), "mine.toml") == changed
    for name in ("reader", "writer", "dpo"):
        assert parse_recipe(recipe_toml(load_recipe(name)), name) == load_recipe(name)


def test_a_recipe_without_a_language_model_cannot_be_changed(home: Path) -> None:
    result = call(home, "tune", "run", "reader", "--data", home, "--rank", "4")
    assert_one_line(result, "The recipe reader does not train a language model, so rank cannot be changed.")
