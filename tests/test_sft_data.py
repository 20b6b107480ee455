"""Rows of supervised fine-tuning: what is read, what is refused and where, and what is never trained on."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import Any

import pytest
from sft_data import recipe_text, rows, sft_recipe, write_rows
from tiny_lm import make_model

from finetune.data.chat_rows import read_chat_rows
from finetune.data.row_sources import RowSources
from finetune.recipe import SftRecipe, Source, load_recipe, parse_recipe
from finetune.rows import ChatRow
from finetune.tasks.sft_task import SftTask
from prompts import Message
from rag.errors import TuningError

GOOD = {"prompt": "Who?", "completion": "Ida."}
ANSWERS = Source(name="answers")


def read(data: Path, line: object) -> list[ChatRow]:
    raw = line if isinstance(line, bytes) else json.dumps(line).encode()
    (data / "answers.jsonl").write_bytes(json.dumps(GOOD).encode() + b"\n\n" + raw + b"\n")
    return list(read_chat_rows(data, "answers"))


# Rows


def test_a_prompt_is_one_message_of_the_user_and_empty_lines_are_skipped(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Wo liegt Göhren?"}]
    first, second = read(tmp_path, {"messages": messages, "completion": " Auf Rügen.\n", "source": "map"})
    assert (first.turns, first.completion) == ((Message(role="user", content="Who?"),), "Ida.")
    assert second.turns == (
        Message(role="system", content="Be brief."),
        Message(role="user", content="Wo liegt Göhren?"),
    )
    assert second.completion == " Auf Rügen.\n"
    assert second.where == f"{tmp_path / 'answers.jsonl'}, line 3"
    assert len(list(read_chat_rows(tmp_path, "answers", 1))) == 1


MESSAGE = {"role": "user", "content": "Who?"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"prompt": "Who?", ', "the line must be valid JSON: "),
        (b'{"prompt": "caf\xe9"}', "the line must be UTF-8, but byte 16 is not"),
        (b"[" * 100_000, "the line "),
        (["Who?", "Ida."], "the line must be a JSON object"),
        ({"completion": "Ida."}, "the row must have either messages or prompt"),
        ({**GOOD, "messages": [MESSAGE]}, "the row must have either messages or prompt"),
        ({"prompt": "Who?"}, "the completion is missing"),
        ({"prompt": "Who?", "completion": ""}, "the completion is empty"),
        ({"prompt": "Who?", "completion": " \n"}, "the completion is empty"),
        ({"prompt": "Who?", "completion": 3}, "the completion must be a string"),
        ({"prompt": ["Who?"], "completion": "Ida."}, "the prompt must be a string"),
        ({"prompt": "\ud800", "completion": "Ida."}, "the prompt contains half of a surrogate pair"),
        ({"messages": [], "completion": "Ida."}, "messages must be a list of at least one message"),
        ({"messages": "Who?", "completion": "Ida."}, "messages must be a list of at least one message"),
        ({"messages": ["Who?"], "completion": "Ida."}, "message 1 must be an object with role and content"),
        ({"messages": [MESSAGE, {"role": "user"}], "completion": "Ida."}, "the content of message 2 is missing"),
        ({"messages": [{"content": "Who?"}], "completion": "Ida."}, "the role of message 1 is missing"),
        (
            {"messages": [{"role": "human", "content": "Who?"}], "completion": "Ida."},
            "the role of message 1 must be system, user or assistant, not 'human'",
        ),
        (
            {"messages": [MESSAGE, {"role": "assistant", "content": "Ida."}], "completion": "Ida."},
            "the last message must not be the assistant's",
        ),
    ],
)
def test_a_malformed_row_is_refused_with_file_line_and_reason(line: object, reason: str, tmp_path: Path) -> None:
    with pytest.raises(TuningError) as raised:
        read(tmp_path, line)
    assert raised.value.message.startswith(f"{tmp_path / 'answers.jsonl'}, line 3: {reason}")
    assert "\n" not in str(raised.value)
    assert raised.value.fix.startswith("Rows are")


def test_a_source_without_a_file_is_refused_with_the_sources_that_are_there(tmp_path: Path) -> None:
    write_rows(tmp_path / "data" / "answers.jsonl", [GOOD])
    with pytest.raises(TuningError, match=r"riddles\.jsonl of the source riddles does not exist.*: answers\."):
        list(read_chat_rows(tmp_path / "data", "riddles"))
    write_rows(tmp_path / "secret.jsonl", [GOOD])
    with pytest.raises(TuningError, match="must be a file below the data folder"):
        list(read_chat_rows(tmp_path / "data", "../secret"))
    (tmp_path / "data" / "folder.jsonl").mkdir()
    with pytest.raises(TuningError, match=r"folder\.jsonl cannot be read: Is a directory\."):
        list(read_chat_rows(tmp_path / "data", "folder"))


# Validation rows


def keys(found: Any) -> set[str]:
    return {row.key for row in found}


def test_a_tenth_of_the_conversations_is_held_out_whatever_their_order(tmp_path: Path) -> None:
    recipe = sft_recipe("base")
    given = rows(count=20)
    # A second answer to the same question belongs to the same side.
    given += [{**row, "completion": "Perhaps."} for row in given[::3]]
    write_rows(tmp_path / "one" / "answers.jsonl", given)
    random.Random(1).shuffle(given)
    write_rows(tmp_path / "other" / "answers.jsonl", given)
    one, other = (RowSources(recipe, tmp_path / name, read_chat_rows) for name in ("one", "other"))
    held_out = keys(one.validation())
    assert len(held_out) == 6
    assert held_out == keys(other.validation())
    trained = list(one.training(ANSWERS))
    assert not held_out & keys(trained)
    assert len(trained) + len(list(one.validation())) == 80
    few = recipe.model_copy(update={"validation_rows": 2})
    assert len(keys(RowSources(few, tmp_path / "one", read_chat_rows).validation())) == 2


def test_rows_of_a_validation_source_are_not_trained_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "finetune")
    given = rows(count=4)
    write_rows(tmp_path / "answers.jsonl", given)
    write_rows(tmp_path / "checks.jsonl", [given[2], {"prompt": "New?", "completion": "Yes."}, given[3]])
    recipe = sft_recipe("base", top='validation = "checks"\nvalidation_rows = 2')
    sources = RowSources(recipe, tmp_path, read_chat_rows)
    assert [row.completion for row in sources.validation()] == [given[2]["completion"], "Yes."]
    assert len(list(sources.training(ANSWERS))) == len(given) - 1
    assert "answers: 1 rows belong to validation conversations and are left out" in caplog.messages


def test_too_few_conversations_for_validation_are_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "answers.jsonl", [GOOD] * 50)
    with pytest.raises(TuningError, match=r"have only 1 different conversations, and at least 10 .*validation in"):
        list(RowSources(sft_recipe("base"), tmp_path, read_chat_rows).validation())


# Lengths


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "tiny-llama"
    return make_model(
        folder, hidden_size=16, intermediate_size=16, num_hidden_layers=1, max_position_embeddings=96
    )


def test_longer_rows_are_left_out_and_counted(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "finetune")
    long = {"prompt": "ferry " * 200, "completion": "Noon."}
    write_rows(tmp_path / "answers.jsonl", [GOOD, long, {**GOOD, "prompt": "When?"}, long])
    write_rows(tmp_path / "checks.jsonl", [{**GOOD, "prompt": "Where?"}])
    recipe = sft_recipe(base, top='validation = "checks"\nmax_tokens = 64')
    assert len(list(SftTask(recipe).features(ANSWERS, tmp_path, 1))) == 2
    assert caplog.messages == ["answers: 2 of 4 rows have more than 64 tokens and are left out"]
    # No more than the model can read, whatever the recipe says.
    wide = SftTask(recipe.model_copy(update={"max_tokens": 10_000}))
    assert len(list(wide.features(ANSWERS, tmp_path, 1))) == 2
    assert caplog.messages[1:] == ["answers: 2 of 4 rows have more than 96 tokens and are left out"]
    write_rows(tmp_path / "answers.jsonl", [long, long])
    with pytest.raises(TuningError, match=r"Every row of answers has more than 64 tokens\. Raise max_tokens"):
        list(SftTask(recipe).features(ANSWERS, tmp_path, 1))


# Recipes


def test_the_recipe_that_ships_trains_every_linear_layer() -> None:
    recipe = load_recipe("sft")
    assert isinstance(recipe, SftRecipe)
    assert recipe.lora.targets == SftRecipe.model_fields["lora"].default.targets
    assert (recipe.lora.dropout, recipe.stages[0].method) == (0.0, "lora")


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"stage": 'method = "full"'}, "stages.0.method: Input should be 'lora'"),
        ({"stage": "average = true"}, "stages.0.average: Input should be False"),
        ({"lora": "dropout = 1.0"}, "lora.dropout: Input should be less than 1"),
        ({"lora": "targets = []"}, "lora.targets: "),
        ({"top": "max_token = 9"}, "unknown setting `max_token`"),
        ({"top": "max_tokens = 1"}, "max_tokens: Input should be greater than or equal to 8"),
    ],
)
def test_a_wrong_recipe_is_refused_by_its_field(parts: dict[str, str], reason: str) -> None:
    with pytest.raises(TuningError, match=r"The recipe my\.toml is invalid: ") as raised:
        parse_recipe(recipe_text("base", **parts), "my.toml")
    assert reason in str(raised.value)


def test_a_recipe_names_its_base_and_other_tasks_take_none_of_these_keys() -> None:
    text = recipe_text("base", top="max_tokens = 64")
    with pytest.raises(TuningError, match="base: Field required"):
        parse_recipe(text.replace('base = "base"\n', ""), "my.toml")
    with pytest.raises(TuningError, match=r"unknown setting `lora\.alpha`"):
        parse_recipe(text.replace('"sft"', '"reader"'), "my.toml")
