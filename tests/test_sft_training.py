"""Supervised fine-tuning from end to end: it learns, survives stops and kills, and what it makes is served."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from plain_trainer import plain_trainer
from sft_data import recipe_text, rows, sft_recipe, write_rows
from terminal import ROOT, call
from tiny_lm import TEMPLATE, chat, make_adapter, make_model, make_tokenizer, opened
from tuning_data import facts, wait_until

from finetune import checkpoint
from finetune.adapter_card import copy_result
from finetune.features import Features
from finetune.predictions import EXTREMES, extremes
from finetune.recipe import VALIDATION, SftRecipe, parse_recipe
from finetune.run_folder import RunFolder, new_run
from finetune.tasks import open_task
from finetune.tasks.sft_task import SftTask
from finetune.training import Point, Stopped, Training
from finetune.worker import prepare
from rag.encoders.adapters import CARD, CONFIG, WEIGHTS, read_adapter
from rag.errors import AdapterError, ModelUnavailable, TuningError
from rag.models.local.local_adapters import CHAT_TEMPLATE, find_lora
from rag.settings import TrackingSettings
from rag.workspace import Workspace, open_workspace

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
OFF = TrackingSettings(wandb="off")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("base") / "tiny-llama", **SMALL)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_rows(folder / "answers.jsonl", rows())
    return folder


@pytest.fixture(scope="module")
def whole(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that the command has trained without interruption."""
    home = tmp_path_factory.mktemp("whole")
    (home / "my.toml").write_text(recipe_text(base, top='licences = ["MIT"]'), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAGSMITH_TRACKING__WANDB", "off")
        result = call(home, "tune", "run", home / "my.toml", "--data", data)
    assert result.exit_code == 0, result.output
    (folder,) = (home / "runs").iterdir()
    assert result.stdout == f"Done: {folder / 'result'}\n"
    return RunFolder(folder)


@pytest.fixture(scope="module")
def features(whole: RunFolder) -> dict[str, Features]:
    """The features of the run."""
    found = {path.stem: Features.load(path) for path in (whole.path / "features").iterdir()}
    assert all(found.values())
    return {name: each for name, each in found.items() if each is not None}


def trained(
    recipe: SftRecipe,
    features: dict[str, Features],
    folder: Path,
    points: list[Point] | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Train in this process, and return the weights of the adapter."""
    into = [] if points is None else points
    model = SftTask(recipe).train(Training(features, folder, into.append, stopping))
    return {name: each.detach() for name, each in model.named_parameters() if "lora_" in name}


def assert_equal_weights(one: dict[str, Any], other: dict[str, Any]) -> None:
    import torch

    assert one.keys() == other.keys()
    assert not [name for name in one if not torch.equal(one[name], other[name])]


def curve_of(run: RunFolder) -> list[dict[str, Any]]:
    """The curve without what depends on the machine."""
    return [{**asdict(point), "seconds": 0, "tokens_per_s": 0} for point in run.points()]


# Learning


def test_training_lowers_the_loss_and_the_card_tells_by_how_much(whole: RunFolder, base: Path) -> None:
    points = list(whole.points())
    assert points[-1].loss < 0.7 * points[0].loss
    looked = [point.figures for point in points if point.figures]
    assert looked[-1]["loss"] < 0.8 * looked[0]["loss"]
    card = read_adapter(whole.path / "result").card
    assert (card.name, card.task, card.base, card.rank) == ("tiny", "sft", "tiny-llama", 4)
    assert card.base_sha256 == hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()
    assert card.licences == ("MIT",)
    assert card.data.keys() == {VALIDATION, "answers"}
    assert card.data["answers"]["rows"] + card.data[VALIDATION]["rows"] == len(rows())
    assert card.figures["validation/loss"] == pytest.approx(looked[-1]["loss"], abs=1e-6)
    assert card.figures["validation/perplexity"] == pytest.approx(looked[-1]["perplexity"], rel=1e-6)
    assert card.recipe == json.loads(whole.recipe.model_dump_json())


def test_every_validation_has_texts_for_the_same_rows_and_the_end_has_the_best_and_the_worst(
    whole: RunFolder, features: dict[str, Features]
) -> None:
    validated = [point for point in whole.points() if point.figures]
    assert len(validated) > 3
    assert (validated[0].step, validated[0].loss) == (0, validated[0].figures["loss"])
    assert [[sample.row for sample in point.samples] for point in validated] == [[0, 1, 2]] * len(validated)
    assert validated[0].samples[0].text != validated[-1].samples[0].text
    assert validated[-1].samples[0].loss < validated[0].samples[0].loss
    predictions = whole.predictions()
    assert {prediction.row for prediction in predictions} == set(range(len(features[VALIDATION])))
    # Those of one message stand without the template; a conversation has its roles.
    questions = {row["prompt"] for row in rows() if "prompt" in row}
    plain = [prediction.prompt for prediction in predictions if "<|im_start|>" not in prediction.prompt]
    assert plain
    assert set(plain) <= questions
    losses = [prediction.loss for prediction in predictions]
    assert losses == sorted(losses)
    # The rows are those that the metrics are of.
    tokens = [len(feature.ids) - feature.second for feature in features[VALIDATION]]
    summed = sum(prediction.loss * tokens[prediction.row] for prediction in predictions)
    figures = read_adapter(whole.path / "result").card.figures
    assert summed / sum(tokens) == pytest.approx(figures["validation/loss"], abs=1e-3)


def test_of_many_rows_the_best_and_the_worst_are_written_for() -> None:
    assert extremes([3.0, 1.0, 2.0]) == [1, 2, 0]
    assert extremes([float(row) for row in range(50)]) == [*range(EXTREMES), *range(50 - EXTREMES, 50)]


def test_the_commands_show_the_run(whole: RunFolder) -> None:
    home = whole.path.parent.parent
    shown = call(home, "tune", "show")
    assert shown.exit_code == 0
    assert "  validation/perplexity " in shown.stdout
    assert f"{whole.path / 'result'}: rank 4 on tiny-llama" in shown.stdout
    assert shown.stdout.endswith("Licences of the data: MIT\n")
    assert [run["state"] for run in json.loads(call(home, "tune", "status", "--json").stdout)] == ["done"]


def test_the_result_is_a_folder_of_peft_for_every_linear_layer(whole: RunFolder, base: Path) -> None:
    from safetensors.torch import load_file

    result = whole.path / "result"
    assert {path.name for path in result.iterdir()} == {CARD, CONFIG, WEIGHTS}
    tensors = load_file(result / WEIGHTS)
    assert len(tensors) == 2 * 7 * SMALL["num_hidden_layers"]
    assert not [name for name, tensor in tensors.items() if not tensor.abs().sum()]
    config = json.loads((result / CONFIG).read_text(encoding="utf-8"))
    assert (config["base_model_name_or_path"], config["r"], config["lora_alpha"]) == ("tiny-llama", 4, 8)


def test_the_result_is_served_and_writes_what_it_learnt(base: Path, tmp_path: Path) -> None:
    reply = "The ferry leaves at noon."
    asked = [f"When does the ferry to {fact.town} leave on day {fact.height}?" for fact in facts(0, 40)]
    write_rows(tmp_path / "answers.jsonl", [{"prompt": each, "completion": reply} for each in asked])
    task = SftTask(sft_recipe(base, top="checkpoint_s = 60", stage="epochs = 24\nvalidate_every = 100"))
    (stage,) = task.recipe.stages
    features = {
        VALIDATION: Features.pack(task.validation(tmp_path, 9)),
        "answers": Features.pack(task.features(stage.sources[0], tmp_path, 1)),
    }
    model = task.train(Training(features, tmp_path / "checkpoints", lambda _: None, lambda: False))
    card = task.finish(model, features[VALIDATION], tmp_path / "result", {})
    assert card.figures["validation/loss"] < 0.5
    copy_result(tmp_path / "result", tmp_path / "adapters" / "tuned")
    assert find_lora("tuned", tmp_path / "adapters").base == "tiny-llama"
    with opened(base, tmp_path, adapter="tuned") as engine:
        question = HumanMessage("When does the ferry to Luckau leave on day 99?")
        tuned = chat(engine, adapter="tuned").invoke([question])
        untuned = chat(engine).invoke([question])
    # It ends by itself, since the end of the turn is learnt too.
    assert (tuned.text, tuned.response_metadata["finish_reason"]) == (reply, "stop")
    assert untuned.text != reply


def test_the_losses_are_those_of_a_plain_trainer(
    whole: RunFolder, base: Path, features: dict[str, Features], tmp_path: Path
) -> None:
    recipe = whole.recipe
    assert isinstance(recipe, SftRecipe)
    trainer, _ = plain_trainer(base, recipe, features["answers"], tmp_path)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    norms = [entry["grad_norm"] for entry in trainer.state.log_history if "loss" in entry]
    ours: list[Point] = []
    trained(recipe, features, tmp_path / "checkpoints", ours)
    assert len(losses) == ours[-1].steps
    at = 0
    for point in ours[1:]:
        expected = sum(losses[at : point.step]) / (point.step - at)
        assert point.loss == pytest.approx(expected, rel=0.01)
        assert point.gradient_norm == pytest.approx(norms[point.step - 1], rel=0.01)
        at = point.step


def test_in_bf16_a_training_goes_as_in_f32(
    whole: RunFolder, features: dict[str, Features], tmp_path: Path
) -> None:
    # A higher rate magnifies the rounding, which differs between processors.
    recipe = sft_recipe(whole.recipe.base, stage="learning_rate = 3e-3")
    losses: list[list[float]] = []
    for precision in ("f32", "bf16"):
        points: list[Point] = []
        trained(recipe.model_copy(update={"precision": precision}), features, tmp_path / precision, points)
        losses.append([point.loss for point in points])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[0][-1] < losses[0][0]


# Stopped, killed, and resumed


def test_stopped_after_any_step_it_ends_in_the_same_weights(
    whole: RunFolder, features: dict[str, Features], tmp_path: Path
) -> None:
    # Dropout draws numbers at every step: a checkpoint keeps where that had come to.
    recipe = sft_recipe(whole.recipe.base, lora="dropout = 0.2", stage="epochs = 1.5")
    expected_points: list[Point] = []
    expected = trained(recipe, features, tmp_path / "whole", expected_points)
    points: list[Point] = []
    steps = 0

    def stop_after_three() -> bool:
        nonlocal steps
        steps += 1
        return steps % 3 == 0

    for _ in range(expected_points[-1].steps):
        try:
            found = trained(recipe, features, tmp_path / "parts", points, stop_after_three)
            break
        except Stopped:
            # What a killed process was writing is never read, and a damaged checkpoint is skipped.
            (tmp_path / "parts" / ".writing-4711").mkdir()
    assert steps == expected_points[-1].steps
    assert_equal_weights(found, expected)
    assert [(point.step, point.loss, point.figures) for point in points] == [
        (point.step, point.loss, point.figures) for point in expected_points
    ]


def test_a_damaged_checkpoint_is_skipped_for_the_one_before(
    whole: RunFolder, features: dict[str, Features], tmp_path: Path
) -> None:
    recipe = sft_recipe(whole.recipe.base, stage="epochs = 1")
    expected = trained(recipe, features, tmp_path / "whole")
    asked = iter([False] * 5)
    with pytest.raises(Stopped):
        trained(recipe, features, tmp_path / "parts", stopping=lambda: next(asked, True))
    *_, before, newest = sorted(path for path in (tmp_path / "parts").glob("0-*"))
    state = newest / checkpoint.STATE
    state.write_bytes(state.read_bytes()[:-100])
    found = checkpoint.load(tmp_path / "parts")
    assert found is not None
    assert before.name.endswith(f"{found[0].step:07d}")
    assert_equal_weights(trained(recipe, features, tmp_path / "parts"), expected)


@pytest.fixture
def begun(whole: RunFolder, data: Path, tmp_path: Path) -> Iterator[RunFolder]:
    """A run of the same recipe whose data have been read, and no more."""
    text = (whole.path / "recipe.toml").read_text(encoding="utf-8")
    run = new_run(open_workspace(tmp_path / "home").runs, parse_recipe(text, "my.toml"), text, data, OFF)
    shutil.copytree(whole.path / "features", run.path / "features")
    yield run
    shutil.rmtree(run.path / "checkpoints", ignore_errors=True)


def test_killed_it_resumes_and_ends_as_if_nothing_had_been(begun: RunFolder, whole: RunFolder) -> None:
    seed = int(os.environ.get("SEED", random.SystemRandom().randrange(10_000)))
    print(f"SEED={seed}")
    computing = list(whole.points())[-1].seconds
    with subprocess.Popen(
        [sys.executable, "-m", "finetune.worker", str(begun.path)],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        wait_until(lambda: list((begun.path / "checkpoints").glob("0-*")) or process.poll() is not None)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(random.Random(seed).uniform(0, computing / 3))
        process.send_signal(signal.SIGKILL)
    assert begun.status.state == "stopped"
    home = begun.path.parent.parent
    resumed = call(home, "tune", "resume")
    assert resumed.exit_code == 0, resumed.output
    assert curve_of(begun) == curve_of(whole)
    for name in (WEIGHTS, CONFIG):
        assert (begun.path / "result" / name).read_bytes() == (whole.path / "result" / name).read_bytes()
    assert not [path.name for path in begun.path.rglob(".*")]


# Bases, starts and stages


def test_a_second_training_starts_from_the_adapter_of_the_first(
    whole: RunFolder, features: dict[str, Features], tmp_path: Path
) -> None:
    result = copy_of(whole, tmp_path / "first")
    (result / CHAT_TEMPLATE).write_text(TEMPLATE, encoding="utf-8")
    recipe = sft_recipe(whole.recipe.base, top=f'start = "{result}"', stage="epochs = 0.5\nlearning_rate = 1e-4")
    points: list[Point] = []
    task = open_task(recipe)
    model = task.train(Training(features, tmp_path / "checkpoints", points.append, lambda: False))
    card = task.finish(model, features[VALIDATION], tmp_path / "result", {})
    assert points[0].loss < next(whole.points()).loss
    assert card.data["start"].startswith("first@")
    # The template is the base's own, so the folder does not repeat it.
    assert {path.name for path in (tmp_path / "result").iterdir()} == {CARD, CONFIG, WEIGHTS}


def copy_of(run: RunFolder, folder: Path) -> Path:
    return Path(shutil.copytree(run.path / "result", folder))


def test_the_template_of_the_start_is_used_and_kept(
    whole: RunFolder, data: Path, workspace: Workspace, tmp_path: Path
) -> None:
    result = copy_of(whole, tmp_path / "first")
    template = TEMPLATE.replace("assistant\n", "assistant: ")
    (result / CHAT_TEMPLATE).write_text(template, encoding="utf-8")
    text = recipe_text(whole.recipe.base, top=f'start = "{result}"', stage="epochs = 0.1")
    recipe = parse_recipe(text, "my.toml")
    run = new_run(workspace.runs, recipe, text, data, OFF)
    task = open_task(recipe)
    features = prepare(run, recipe, task, lambda: None)
    first = features["answers"][0]
    assert make_tokenizer().decode(first.ids[: first.second]).endswith("<|im_start|>assistant: ")
    model = task.train(Training(features, run.path / "checkpoints", lambda _: None, lambda: False))
    task.finish(model, features[VALIDATION], run.path / "result", {})
    assert (run.path / "result" / CHAT_TEMPLATE).read_text(encoding="utf-8") == template


def test_a_start_that_does_not_fit_is_refused(base: Path, tmp_path: Path, features: dict[str, Features]) -> None:
    with pytest.raises(AdapterError, match=r"nowhere to start from must be a folder with adapter_config\.json"):
        open_task(sft_recipe(base, top=f'start = "{tmp_path / "nowhere"}"'))
    wide = make_model(tmp_path / "wide", **{**SMALL, "hidden_size": 48})
    other, small = make_adapter(wide, tmp_path / "other"), make_adapter(base, tmp_path / "small")
    for start, parts, reason in (
        (other, {}, "does not match the model"),
        (small, {"lora": "alpha = 4"}, "to start from has alpha 8, but lora.alpha is 4. Set lora.alpha = 8"),
        (small, {"lora": "rank = 8"}, "to start from has rank 4, but lora.rank is 8. Set lora.rank = 4"),
    ):
        recipe = sft_recipe(base, top=f'start = "{start}"', **parts)
        with pytest.raises((ModelUnavailable, TuningError), match=reason):
            trained(recipe, features, tmp_path / "checkpoints")


def test_every_stage_goes_on_from_the_one_before(
    base: Path, features: dict[str, Features], tmp_path: Path
) -> None:
    second = '[[stages]]\nname = "more"\nlearning_rate = 1e-3\nvalidate_every = 1\n'
    second += 'sources = [{ name = "answers" }]\n'
    recipe = sft_recipe(base, stage="epochs = 1", rest=second)
    both = {**features, "more": features["answers"]}
    expected = trained(recipe, both, tmp_path / "whole")
    points: list[Point] = []
    with pytest.raises(Stopped):
        trained(recipe, both, tmp_path / "parts", points, lambda: bool(points) and points[-1].stage == "more")
    found = checkpoint.load(tmp_path / "parts")
    assert found is not None
    assert found[0].stage == 1
    assert_equal_weights(trained(recipe, both, tmp_path / "parts", points), expected)
    (first, *_, last) = [point.figures for point in points]
    assert first is not None
    assert last is not None
    assert last["loss"] < first["loss"]


def test_targets_that_the_model_lacks_are_refused_with_those_that_it_has(
    base: Path, features: dict[str, Features], tmp_path: Path
) -> None:
    recipe = sft_recipe(base, lora='targets = ["c_attn"]')
    with pytest.raises(TuningError, match=r"no layers .*lora\.targets: c_attn\. Use some of: .*q_proj"):
        trained(recipe, features, tmp_path)


def test_a_base_that_does_not_fit_into_the_memory_is_refused(
    base: Path, features: dict[str, Features], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag.models.local.local_device.free_memory", lambda _: 1000)
    with pytest.raises(ModelUnavailable, match=r"memory are free\. Free some memory, choose a smaller base"):
        trained(sft_recipe(base), features, tmp_path)


def test_a_loss_that_is_not_finite_ends_the_training(
    base: Path, features: dict[str, Features], tmp_path: Path
) -> None:
    recipe = sft_recipe(base, stage="learning_rate = 1e30")
    with pytest.raises(TuningError, match=r"The loss is not finite at step \d+ of stage answers"):
        trained(recipe, features, tmp_path)


def test_mistakes_are_one_line_of_the_command(
    base: Path, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGSMITH_TRACKING__WANDB", "off")
    data = tmp_path / "data"
    write_rows(data / "answers.jsonl", [*rows(), {"prompt": "Who?"}])
    (tmp_path / "my.toml").write_text(recipe_text(base), encoding="utf-8")
    result = call(workspace.root, "tune", "run", tmp_path / "my.toml", "--data", data)
    assert (result.exit_code, result.stdout) == (1, "")
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"Error: {data / 'answers.jsonl'}, line {len(rows()) + 1}: the completion is missing.")


def test_a_base_that_cannot_be_trained_is_refused_before_the_data_are_read(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="does not exist"):
        open_task(sft_recipe(tmp_path / "nowhere"))
    assert open_task(sft_recipe(f"local:{base}"))
