"""The training data of the condenser and of the questioner."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from terminal import call
from tuning_data import LONG, OF_DIALOGS, OF_HELD_OUT, OF_XQUAD, write_data

from finetune.data.asked_sentences import question_rows, read_asked, sentence_of_answer
from finetune.data.chat_rows import read_chat_rows
from finetune.data.follow_ups import (
    CANARD,
    WORDINGS,
    condense_row,
    condense_rows,
    read_follow_ups,
    worded_prompt,
)
from finetune.recipe import SftRecipe, load_recipe
from finetune.rows import ReadingRow
from prompts import find_prompt
from rag.errors import TuningError
from rag.types import Turn


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "data")


# Follow-ups


def test_follow_ups_are_split_by_dialog(data: Path) -> None:
    parts = {part: read_follow_ups(data / CANARD, part) for part in ("training", "choosing", "measured")}
    assert sum(len(part) for part in parts.values()) == 6 * len(OF_DIALOGS)
    assert all(parts.values())
    assert not {one.rewrite for one in parts["training"]} & {one.rewrite for one in parts["measured"]}


def test_a_follow_up_is_shown_as_the_chain_shows_it(data: Path) -> None:
    asked = read_follow_ups(data / CANARD, "training")[2]
    assert asked.question.endswith(" it?")
    row = condense_row(asked.conversation, asked.question, asked.rewrite, find_prompt("condense"))
    assert row.completion == asked.rewrite
    system, user = row.turns
    assert system.content == find_prompt("condense").messages[0].content
    assert f"Last question: {asked.question}" in user.content
    for turn in asked.history:
        assert f"Question: {turn.question}\nAnswer: {turn.answer}" in user.content
    assert asked.about[0] in user.content


def test_a_long_conversation_is_shown_by_its_topic_and_its_end(data: Path) -> None:
    asked = read_follow_ups(data / CANARD, "training")[0]
    turns = tuple(Turn(f"Question {number}?", f"Answer {number}.") for number in range(30))
    shown = replace(asked, history=turns).conversation
    assert asked.about[0] in shown[0].question
    assert shown[-1].question == "Question 29?"
    assert Turn("Question 20?", "Answer 20.") not in shown


def test_some_rows_teach_to_leave_a_question_alone(data: Path) -> None:
    follow_ups = read_follow_ups(data / CANARD, "training")
    rows = list(condense_rows(follow_ups, 1))
    alone = [row for row in rows if f"Last question: {row.completion}\n" in row.turns[-1].content]
    assert len(follow_ups) < len(rows)
    assert len(alone) >= len(rows) - len(follow_ups)


def test_some_rows_use_other_words_than_the_shipped_prompt() -> None:
    rng = random.Random(3)
    used = {worded_prompt(rng).messages[0].content for _ in range(60)}
    assert used == {find_prompt("condense").messages[0].content, *WORDINGS}


@pytest.mark.parametrize("damage", [None, b"[{", b'[{"History": []}]', b"\xff"])
def test_a_missing_or_damaged_file_of_dialogs_is_named(damage: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "dialogs.json"
    if damage is not None:
        file.write_bytes(damage)
    with pytest.raises(TuningError) as raised:
        read_follow_ups(file, "training")
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)


# Questions


def test_the_sentence_of_an_answer_is_found() -> None:
    start = LONG.index("storm")
    sentence = sentence_of_answer(ReadingRow("?", LONG, answers=((start, start + 5),)))
    assert sentence.startswith("A storm of")
    assert sentence.endswith("made a new one.")


def test_no_question_is_about_held_out_text(data: Path) -> None:
    sentences = {sentence for sentence, _ in read_asked(data)}
    held_out = {text for facts in (*OF_HELD_OUT.values(), OF_XQUAD) for one in facts for text in one.sentences}
    assert sentences
    assert not sentences & held_out


def test_a_question_begins_with_a_capital_and_follows_the_shipped_prompt() -> None:
    rows = list(question_rows([("The mill has three floors.", "how many floors has the mill?")] * 40, 1))
    assert {row.completion for row in rows} == {"How many floors has the mill?"}
    assert {row.turns[-1].content.strip() for row in rows} == {"The mill has three floors."}
    assert find_prompt("write-question").messages[0].content in {row.turns[0].content for row in rows}


# The command


@pytest.mark.parametrize("name", ["condenser", "questioner"])
def test_the_command_writes_what_the_recipe_reads(name: str, data: Path, tmp_path: Path) -> None:
    result = call(tmp_path / "home", "tune", "prepare", name, "--data", data, "--to", tmp_path)
    assert result.exit_code == 0
    recipe = load_recipe(name)
    assert isinstance(recipe, SftRecipe)
    sources = [source.name for stage in recipe.stages for source in stage.sources]
    for source in (*sources, str(recipe.validation)):
        rows = list(read_chat_rows(tmp_path, source))
        assert f"{source}.jsonl: {len(rows):,} rows" in result.stdout
        assert rows
