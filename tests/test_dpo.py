"""Direct preference optimization: pairs are read, their loss is the published one, and preferences are learnt."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sft_data import recipe_text, write_rows
from terminal import call
from tiny_lm import make_model
from tuning_data import facts

from finetune.completion_batches import as_batch, sequence_losses, token_losses
from finetune.data.preference_rows import as_line, read_preference_rows
from finetune.features import Feature, Features
from finetune.recipe import VALIDATION, DpoRecipe, Recipe, load_recipe, parse_recipe
from finetune.tasks.dpo_task import DpoTask
from finetune.training import Point, Stopped, Training
from prompts import Message
from rag.encoders.adapters import read_adapter
from rag.errors import TuningError

SMALL: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(str.strip)


def pairs(count: int = 24) -> list[dict[str, str]]:
    """Questions, with a polite reply that is preferred to a gruff one."""
    return [
        {"prompt": fact.questions[0][0], "chosen": f"It was {fact.questions[0][1]}.", "rejected": "No idea."}
        for fact in facts(2000, count)
    ]


def dpo_text(base: Path, **parts: str) -> str:
    text = recipe_text(base, **parts).replace('task = "sft"', 'task = "dpo"')
    return text.replace('"answers"', '"pairs"')


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("base") / "tiny-llama", **SMALL)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    write_rows(folder / "pairs.jsonl", pairs())
    return folder


def opened(base: Path, data: Path, **parts: str) -> tuple[DpoTask, dict[str, Features]]:
    recipe: Recipe = parse_recipe(dpo_text(base, **parts), "tiny.toml")
    assert isinstance(recipe, DpoRecipe)
    task = DpoTask(recipe)
    stage = recipe.stages[0]
    features = {
        VALIDATION: Features.pack(task.validation(data, 9)),
        "pairs": Features.pack(task.features(stage.sources[0], data, 1)),
    }
    return task, features


# Rows


@given(question=texts, chosen=texts, rejected=texts)
def test_a_pair_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, question: str, chosen: str, rejected: str
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    line = as_line([Message(role="user", content=question)], chosen, f"{rejected}!{chosen}")
    (folder / "pairs.jsonl").write_text(f"{line}\n", encoding="utf-8")
    (row,) = read_preference_rows(folder, "pairs")
    assert [turn.content for turn in row.chosen.turns] == [question]
    assert row.chosen.turns == row.rejected.turns
    assert (row.chosen.completion, row.rejected.completion) == (chosen, f"{rejected}!{chosen}")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "q", "chosen": "a"}, "the rejected is missing"),
        ({"prompt": "q", "chosen": "a", "rejected": " a "}, "chosen and rejected must differ"),
        ({"chosen": "a", "rejected": "b"}, "either messages or prompt"),
        ({"prompt": "q", "chosen": ["a"], "rejected": "b"}, "the chosen must be a string"),
    ],
)
def test_a_malformed_pair_is_refused_with_its_line(tmp_path: Path, row: object, reason: str) -> None:
    write_rows(tmp_path / "pairs.jsonl", [pairs(1)[0], row])
    with pytest.raises(TuningError, match=f"line 2: .*{reason}"):
        list(read_preference_rows(tmp_path, "pairs"))


def test_the_shipped_recipe_is_one_of_preferences() -> None:
    recipe = load_recipe("dpo")
    assert isinstance(recipe, DpoRecipe)
    assert (recipe.task, recipe.base, recipe.stages[0].sources[0].name) == ("dpo", "smollm2", "pairs")


# Loss


def test_the_loss_of_a_reply_is_the_sum_over_its_tokens() -> None:
    import torch

    features = [Feature((1, 2, 3, 4, 5), 2, ()), Feature((1, 2, 3), 2, ())]
    batch = as_batch(features)
    logits = torch.randn((2, batch["logits_to_keep"], 9), generator=torch.Generator().manual_seed(0))
    one, other = sequence_losses(logits, batch["labels"])
    tokens = token_losses(logits, batch["labels"])
    assert float(one) == pytest.approx(float(tokens[:3].sum()), rel=1e-5)
    assert float(other) == pytest.approx(float(tokens[3]), rel=1e-5)
    assert float(sequence_losses(logits, batch["labels"], mean=True)[0]) == pytest.approx(float(one) / 3, rel=1e-5)


def test_a_model_that_is_its_own_reference_has_no_preference(base: Path, data: Path, tmp_path: Path) -> None:
    task, features = opened(base, data, stage="learning_rate = 1e-12", top="keep = 0.0")
    points: list[Point] = []
    task.train(Training(features, tmp_path / "checkpoints", points.append, lambda: False))
    assert points[0].loss == pytest.approx(math.log(2), abs=1e-4)
    figures = points[-1].figures
    assert figures is not None
    assert figures["margin"] == pytest.approx(0, abs=1e-4)


def test_both_replies_have_the_same_conversation_and_the_batch_has_the_preferred_ones_first(
    base: Path, data: Path
) -> None:
    task, features = opened(base, data)
    pair = features["pairs"][0]
    begin, reply = pair.target
    assert pair.ids[: pair.second] == pair.ids[begin:reply]
    assert pair.ids[pair.second : begin] != pair.ids[reply:]
    batch = task.batch([features["pairs"][0], features["pairs"][1]])
    assert batch["input_ids"].shape[0] == 4
    assert tuple(batch["input_ids"][0][batch["attention_mask"][0] == 1].tolist()) == pair.ids[:begin]
    assert tuple(batch["input_ids"][2][batch["attention_mask"][2] == 1].tolist()) == pair.ids[begin:]


# Training


@pytest.mark.slow
def test_the_command_learns_the_preference_of_held_out_pairs(base: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text(dpo_text(base, stage="epochs = 8"), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAGSMITH_TRACKING__WANDB", "off")
        result = call(tmp_path, "tune", "run", tmp_path / "my.toml", "--data", data)
    assert result.exit_code == 0, result.output
    (folder,) = (tmp_path / "runs").iterdir()
    card = read_adapter(folder / "result").card
    assert card.task == "dpo"
    assert card.figures["validation/preferred"] == 1.0
    assert card.figures["validation/margin"] > 1
    points = [json.loads(line) for line in (folder / "curve.jsonl").read_text(encoding="utf-8").splitlines()]
    assert points[-1]["loss"] < points[0]["loss"]


@pytest.mark.slow
def test_a_training_that_was_stopped_ends_with_the_same_adapter(base: Path, data: Path, tmp_path: Path) -> None:
    import torch

    def trained(folder: Path, stopping: Any, points: list[Point]) -> dict[str, Any]:
        task, features = opened(base, data)
        model = task.train(Training(features, folder, points.append, stopping))
        return {name: each.detach() for name, each in model.named_parameters() if "lora_" in name}

    whole = trained(tmp_path / "whole", lambda: False, [])
    # While it reads the pairs for the reference, before the curve begins.
    points: list[Point] = []
    with pytest.raises(Stopped):
        trained(tmp_path / "stopped", lambda: True, points)
    assert not points
    assert not (tmp_path / "stopped").exists()
    calls = iter([False, False, True])
    with pytest.raises(Stopped):
        trained(tmp_path / "stopped", lambda: bool(points) and next(calls), points)
    resumed = trained(tmp_path / "stopped", lambda: False, points)
    assert not [name for name in whole if not torch.equal(whole[name], resumed[name])]
