"""What the generator learns from: prompts as the chain renders them, and the replies that they should get."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuning_data import LONG, OF_DIALOGS, OF_HELD_OUT, OF_XQUAD, fact, facts, write_data

from finetune.batches import plan
from finetune.data import follow_ups as conversations
from finetune.data import wordings, writing
from finetune.data.follow_ups import CANARD, read_follow_ups, writing_row
from finetune.data.sentence_pairs import SentencePair
from finetune.data.splits import HeldOut, plain
from finetune.features import Features
from finetune.recipe import VALIDATION, Source, load_recipe, parse_recipe
from finetune.rows import ReadingRow, WritingRow
from finetune.run_folder import new_run
from finetune.tasks import open_task
from finetune.tasks.generator_task import ANSWERS, KINDS, OTHERS, GeneratorTask, _Batch
from finetune.training import Point, Training
from finetune.worker import prepare
from prompts import find_prompt
from rag.encoders.adapters import CARD, CONFIG, HEAD, WEIGHTS, Adapter, read_adapter
from rag.errors import TuningError
from rag.models.generator.generator_input import MOST_REPLY
from rag.settings import TrackingSettings
from rag.workspace import open_workspace

pytestmark = pytest.mark.slow

TEXT = """
name = "small-generator"
task = "generator"
start = "reader"
seed = 3
precision = "f32"
validation_rows = 12

[lora]
rank = 8

[[stages]]
name = "prose"
method = "full"
learning_rate = 2e-4
batch_tokens = 1024
validate_every = 100
sources = [{ name = "prose", rows = 2 }, { name = "cloze", rows = 3 }]

[[stages]]
name = "prompts"
method = "full"
learning_rate = 2e-4
batch_tokens = 1024
validate_every = 100
sources = [{ name = "squad", rows = 4 }, { name = "follow-ups", rows = 3 }, { name = "questions", rows = 3 }]
"""
RECIPE = parse_recipe(TEXT, "small-generator.toml")
ROWS = [
    ReadingRow(question, each.paragraph, (each.town,), spans)
    for each in facts(0, 12)
    for question, answer in each.questions
    for spans in [((each.paragraph.index(answer), each.paragraph.index(answer) + len(answer)),) if answer else ()]
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("tuning") / "data")


@pytest.fixture(scope="module")
def task() -> GeneratorTask:
    return GeneratorTask(RECIPE)


# Prompts for answers


def others_for(row: ReadingRow, count: int, seed: int) -> list[ReadingRow]:
    return writing.Beside(ROWS).draw(row, count, random.Random(seed))


@given(st.sampled_from(ROWS), st.integers(0, 3), st.integers(0, 999))
def test_a_reply_is_what_the_passages_say_or_the_refusal_that_the_prompt_asks_for(
    row: ReadingRow, count: int, seed: int
) -> None:
    others = others_for(row, count, seed)
    made = writing.answer_row(row, others, random.Random(seed))
    said, _, marker = made.reply.partition(" [")
    whole = "\n".join(made.texts)
    assert row.question in whole
    assert all(passage in whole for passage in made.passages)
    if made.kind == "refusal":
        assert made.reply in wordings.REFUSALS
        assert made.reply in whole
        assert not row.answers or row.passage not in made.passages
        return
    assert row.answers
    answer = row.passage[slice(*row.answers[0])]
    assert answer == said if made.kind == "short" else answer in said
    assert " ".join(said.split()) in " ".join(row.passage.split())
    if marker:
        cited = made.passages[int(marker.rstrip("]")) - 1]
        assert answer in cited


@given(st.sampled_from(ROWS), st.integers(0, 3), st.integers(0, 99))
def test_passages_beside_another_do_not_hold_its_answer(row: ReadingRow, count: int, seed: int) -> None:
    others = others_for(row, count, seed)
    assert len(others) <= count
    assert len({each.passage for each in others}) == len(others)
    for other in others:
        assert other.passage != row.passage
        assert not any(row.passage[slice(*span)] in other.passage for span in row.answers)


@pytest.mark.parametrize("name", ["answer-short", "answer-sentence"])
def test_a_prompt_in_shipped_words_is_the_one_that_the_chain_renders(name: str) -> None:
    row = ROWS[0]
    made = writing.answer_row(row, [], random.Random(1), shipped=name)
    prompt = find_prompt(name)
    passage = prompt.fragment("passage", {"number": "1", "place": row.place[0], "text": row.passage})
    values = {"question": row.question, "passages": passage, "refusal": prompt.fragment("refusal", {}).strip()}
    assert made.texts == tuple(message.content for message in prompt.render(values))


def test_an_answer_that_is_only_known_to_lie_in_a_sentence_is_given_as_that_sentence() -> None:
    rows = [replace(row, exact=False) for row in ROWS if row.answers]
    kinds = {writing.answer_row(row, [], random.Random(seed)).kind for seed, row in enumerate(rows)}
    assert kinds == {"sentence"}


def test_of_a_long_passage_whole_sentences_around_the_answer_are_shown() -> None:
    told = fact(4).sentences[1]
    start = LONG.index(told)
    row = ReadingRow("How high is it?", LONG, ("Towns",), ((start, start + len(told)),))
    for seed in range(20):
        made = writing.answer_row(row, others_for(row, 2, seed), random.Random(seed), shipped="answer-sentence")
        shown = next(passage for passage in made.passages if passage in LONG and told in passage)
        assert len(shown) <= max(writing.ROOM.values())
        assert shown[0].isupper()
        assert shown.endswith(".")


def test_forms_and_wordings_vary_and_the_seed_decides() -> None:
    made = list(writing.answer_rows(ROWS, 1))
    assert {row.kind for row in made} == {"short", "sentence", "refusal"}
    assert len({row.texts[0] for row in made}) > len(made) / 4
    assert {"[1]" in row.reply for row in made} == {True, False}
    assert {len(row.passages) for row in made} == {1, 2, 3}
    assert list(writing.answer_rows(ROWS, 1)) == made
    assert list(writing.answer_rows(ROWS, 2)) != made


# Questions and follow-ups


def test_a_question_is_asked_of_a_sentence_or_of_a_passage_with_its_answer_named() -> None:
    pairs = [SentencePair(each.sentences[0], each.questions[0][0]) for each in facts(0, 8)]
    made = list(writing.question_rows(pairs, ROWS, 1))
    assert {row.kind for row in made} == {"question"}
    assert [row.reply for row in made[:8]] == [pair.question for pair in pairs]
    answered = [row for row in ROWS if row.answers]
    assert [row.reply for row in made[8:]] == [row.question for row in answered]
    for one, row in zip(made[8:], answered, strict=True):
        assert row.passage[slice(*row.answers[0])] in one.texts[0]


def test_follow_ups_are_parted_by_dialog(data: Path) -> None:
    parts = {part: read_follow_ups(data / CANARD, part) for part in ("training", "choosing", "measured")}
    assert sum(len(each) for each in parts.values()) == 6 * len(OF_DIALOGS)
    towns = {part: {(each.about, each.history[:1]) for each in told} for part, told in parts.items()}
    assert all(parts.values())
    assert not {each.rewrite for each in parts["training"]} & {each.rewrite for each in parts["measured"]}
    assert len(towns["training"]) > len(towns["measured"])


def test_a_follow_up_is_shown_as_the_chain_shows_it(data: Path) -> None:
    asked = read_follow_ups(data / CANARD, "training")[2]
    assert asked.question.endswith(" it?")
    row = writing_row(asked, random.Random(1), shipped=True)
    assert row.reply == asked.rewrite
    assert row.texts[0] == find_prompt("condense").messages[0].content
    assert f"Last question: {asked.question}" in row.texts[1]
    for turn in asked.history:
        assert f"Question: {turn.question}\nAnswer: {turn.answer}" in row.texts[1]
    assert asked.about[0] in row.texts[1]


def test_of_a_long_conversation_its_topic_and_its_end_are_shown(data: Path) -> None:
    asked = read_follow_ups(data / CANARD, "training")[0]
    turns = tuple(conversations.Turn(f"Question {number}?", f"Answer {number}.") for number in range(30))
    row = writing_row(replace(asked, history=turns), random.Random(1), shipped=False)
    assert "Question 29?" in row.texts[1]
    assert "Question 20?" not in row.texts[1]
    assert asked.about[0] in row.texts[1]


@pytest.mark.parametrize("damage", [None, b"[{", b'[{"History": []}]', b"\xff"])
def test_a_missing_or_damaged_file_of_dialogs_is_named(damage: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "dialogs.json"
    if damage is not None:
        file.write_bytes(damage)
    with pytest.raises(TuningError) as raised:
        read_follow_ups(file, "training")
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)


# The task


@pytest.mark.parametrize("name", [*ANSWERS, *OTHERS])
def test_every_source_gives_rows_and_no_held_out_text(name: str, task: GeneratorTask, data: Path) -> None:
    rows = list(task.rows(Source(name=name, rows=40), data, 1))
    assert 0 < len(rows) <= 40
    held_out = HeldOut(data)
    if name in ("squad", "open-questions", "sentence-pairs", "questions", "altered"):
        for row in rows:
            assert not any(held_out.holds(passage) for passage in row.passages)
            held = [each.paragraph for told in (OF_XQUAD, *OF_HELD_OUT.values()) for each in told]
            assert not any(plain(paragraph) in plain(text) for paragraph in held for text in row.texts)
    assert list(task.rows(Source(name=name, rows=40), data, 1)) == rows


def test_a_source_that_nobody_knows_is_refused(task: GeneratorTask, data: Path) -> None:
    with pytest.raises(TuningError, match=r"no source riddles\. Use one of: cloze, squad"):
        list(task.features(Source(name="riddles"), data, 1))


def test_the_recipe_that_ships_names_sources_that_the_task_knows() -> None:
    recipe = load_recipe("generator")
    assert recipe.task == "generator"
    assert {source.name for stage in recipe.stages for source in stage.sources} <= {*ANSWERS, *OTHERS}


def test_validation_shows_every_kind_and_no_training_rows(task: GeneratorTask, data: Path) -> None:
    found = list(task.validation(data, 24))
    assert len(found) <= 24
    assert {KINDS[each.target[0]] for each in found} == {"short", "sentence", "refusal", "condense", "question"}


def test_training_and_serving_see_the_same_tokens(task: GeneratorTask, data: Path) -> None:
    renderer = task._renderer
    rows = [row for name in (*ANSWERS, *OTHERS) for row in task.rows(Source(name=name, rows=200), data, 1)]
    assert len(rows) > 300
    for row in rows:
        feature = task.feature(row)
        served = renderer.prompt(row.texts, row.passages)
        assert feature.ids[: feature.second] == served.ids
        assert feature.ids[feature.second :] == renderer.reply(row.reply)
        assert 0 < len(feature.ids) - feature.second <= MOST_REPLY


# The measure


def test_what_is_counted_is_the_logarithm_of_a_probability(task: GeneratorTask) -> None:
    import torch

    torch.manual_seed(1)
    network: Any = task.network().eval()
    rows = [WritingRow("short", ("Who?", fact(number).paragraph), fact(number).builder) for number in range(3)]
    features = [task.feature(row) for row in rows]
    with torch.no_grad():
        batch = _Batch(features)
        drawn = batch.drawn(network)
        losses = batch.losses(drawn)
        share = drawn.gate.sigmoid()[:, None]
        whole = share * drawn.vocabulary.softmax(1)
        copied = (1 - share) * drawn.copied.softmax(1)
        whole = whole.scatter_add(1, batch._inputs[0][batch.rows], copied)
        torch.testing.assert_close(whole.sum(1), torch.ones(len(whole)))
        own = whole.gather(1, batch.wanted[:, None])[:, 0]
        torch.testing.assert_close(-own.log(), losses, rtol=1e-3, atol=1e-3)
        assert batch.best(drawn).tolist() == whole.argmax(1).tolist()
        # Whoever stands beside it in the batch changes nothing.
        for number, feature in enumerate(features):
            alone = _Batch([feature])
            torch.testing.assert_close(alone.losses(alone.drawn(network)), losses[batch.rows == number])


def test_a_reply_does_not_see_what_comes_after(task: GeneratorTask) -> None:
    import torch

    network: Any = task.network().eval()
    first, second = (
        _Batch([task.feature(WritingRow("short", ("Who?",), reply))]) for reply in ("Ida Brandt", "Ida was here")
    )
    with torch.no_grad():
        one, other = first.drawn(network), second.drawn(network)
    # Both have read the prompt and "ida".
    torch.testing.assert_close(one.vocabulary[:2], other.vocabulary[:2])
    assert not torch.allclose(one.vocabulary[2], other.vocabulary[2])


# From end to end


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Adapter, Any, list[Point]]:

    home = open_workspace(tmp_path_factory.mktemp("generated"))
    run = new_run(home.runs, RECIPE, TEXT, data, TrackingSettings(wandb="off"))
    task = open_task(RECIPE)
    features = prepare(run, RECIPE, task, lambda: None)
    points: list[Point] = []
    network: Any = task.train(Training(features, run.path / "checkpoints", points.append, lambda: False))
    versions = {name: each.version for name, each in features.items()}
    task.finish(network, features[VALIDATION], run.path / "result", versions)
    return read_adapter(run.path / "result"), network, points


def test_the_result_of_a_training_is_whole(trained: tuple[Adapter, Any, list[Point]]) -> None:
    adapter, _, points = trained
    assert {path.name for path in adapter.folder.iterdir()} == {CARD, CONFIG, HEAD, WEIGHTS}
    assert (adapter.card.task, adapter.card.rank) == ("generator", 8)
    assert adapter.card.data.keys() == {"validation", "prose", "prompts", "start"}
    kinds = ("condense", "question", "refusal", "sentence", "short")
    assert {f"validation/exact_{kind}" for kind in kinds} <= adapter.card.figures.keys()
    assert adapter.card.figures["validation/loss"] > 0
    last = [point for point in points if point.figures][-1]
    assert last.stage == "prompts"


def test_the_result_writes_as_it_did_in_training(
    trained: tuple[Adapter, Any, list[Point]], task: GeneratorTask
) -> None:
    import torch

    from rag.encoders.tuned_architectures import network_for, open_base
    from rag.encoders.tuned_conversion import merge

    adapter, network, _ = trained
    saved: Any = network_for("generator", open_base(task.files.folder)).eval()
    merge(saved, adapter.folder)
    row = WritingRow("short", ("Who built it?", fact(2).paragraph), "Ida Brandt")
    features = Features.pack([task.feature(row)])
    with torch.no_grad():
        before, after = (task.metrics(each, features)["loss"] for each in (network.eval(), saved))
    # The adapter is kept in 16 bits.
    assert after == pytest.approx(before, abs=1e-2)


def test_a_few_rows_can_be_learnt_by_heart(task: GeneratorTask) -> None:
    import torch

    torch.manual_seed(3)
    network: Any = task.network()
    rows: Sequence[WritingRow] = [
        WritingRow("short", ("Answer.", f"{fact(number).paragraph}\n\nWho built it?"), fact(number).builder)
        for number in range(2)
    ]
    features = Features.pack(map(task.feature, rows))
    moved = [parameter for name, parameter in network.named_parameters() if "embeddings" not in name]
    optimizer = torch.optim.AdamW(moved, lr=5e-4)
    with torch.no_grad():
        before = task.metrics(network, features)
    after = before
    for step in range(60):
        for batch in plan(features.lengths, 4096, step):
            task.loss(network, features, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
        if step % 6 == 5:
            with torch.no_grad():
                after = task.metrics(network, features)
            if after["exact_short"] == 1 and after["loss"] < before["loss"] / 10:
                break
    assert before["exact_short"] == 0
    assert after["exact_short"] == 1
    assert after["loss"] < before["loss"] / 10
