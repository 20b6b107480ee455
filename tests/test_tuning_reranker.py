"""What the reranker learns from: passages that our own search finds, labelled by what is known of the question."""

from __future__ import annotations

import math
import random
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tuning_data import LONG, OF_JUDGED, fact, facts, write_data, write_judged

from finetune.data.retrieved import Judged, RankedRow, answered_rows, judged_rows, read_judged
from finetune.data.splits import plain
from finetune.features import Feature, Features
from finetune.recipe import VALIDATION, Source, load_recipe, parse_recipe
from finetune.rows import ReadingRow
from finetune.run_folder import RunFolder, new_run
from finetune.start import find_start, open_network
from finetune.tasks import open_task
from finetune.tasks.reranker_task import HELD_OUT, WEIGHTS, RerankerTask, best_weight, mixed_ndcg, thinned
from finetune.training import Point, Training
from finetune.worker import prepare
from rag.encoders import Encoder
from rag.encoders.adapters import CARD, CONFIG, HEAD, SHIPPED, Adapter, AdapterCard, read_adapter
from rag.encoders.adapters import WEIGHTS as MATRICES
from rag.errors import AdapterError, TuningError
from rag.settings import TrackingSettings
from rag.workspace import open_workspace

DEPTH = 12
TEXT = """
name = "small-reranker"
task = "reranker"
start = "reader"
seed = 3
precision = "f32"
validation_rows = 30

[lora]
rank = 8

[[stages]]
name = "claims"
method = "full"
learning_rate = 1e-4
batch_tokens = 1024
validate_every = 100
sources = [{ name = "scifact", rows = 10 }, { name = "squad", rows = 3 }]
"""
RECIPE = parse_recipe(TEXT, "small-reranker.toml")
QUESTIONS = [each.questions[0][0] for each in OF_JUDGED]


@pytest.fixture(scope="module")
def encoder_at_hand(encoder: Encoder) -> Iterator[None]:
    """Searching takes the encoder that is there, and converts none in its own short-lived workspace."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("rag.encoders.open_encoder", lambda *_: encoder)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_data(tmp_path_factory.mktemp("tuning") / "data")
    write_judged(folder / "scifact")
    return folder


@pytest.fixture(scope="module")
def judged(data: Path, encoder_at_hand: None) -> list[RankedRow]:
    return list(judged_rows(data / "scifact", "train", DEPTH))


def documents_for(question: str) -> set[str]:
    """The texts that were judged to go with a question."""
    number = QUESTIONS.index(question)
    return {each.paragraph for each in OF_JUDGED[number : number + 1 + (number % 10 == 0)]}


def by_question(rows: Sequence[RankedRow]) -> dict[int, list[RankedRow]]:
    found: dict[int, list[RankedRow]] = defaultdict(list)
    for row in rows:
        found[row.question].append(row)
    return found


# Judged questions


def test_the_judged_questions_are_read_in_the_order_of_their_numbers(data: Path) -> None:
    found = read_judged(data / "scifact", "train")
    assert len(found) == len(QUESTIONS)
    assert found[:3] == [
        Judged(QUESTIONS[0], frozenset({"2100", "2101"})),
        Judged(QUESTIONS[1], frozenset({"2101"})),
        Judged(QUESTIONS[10], frozenset({"2110", "2111"})),
    ]


def test_exactly_the_judged_documents_are_relevant(judged: list[RankedRow]) -> None:
    for row in judged:
        assert row.relevant == (row.passage in documents_for(row.text))
    found = by_question(judged)
    assert {rows[0].text for rows in found.values()} == set(QUESTIONS)
    # The search finds what it is asked for, at least its own document.
    assert all(any(row.relevant for row in rows) for rows in found.values())
    assert sum(row.relevant for row in judged) > len(QUESTIONS)


def test_rows_tell_where_the_search_has_put_them(judged: list[RankedRow]) -> None:
    titles = {each.paragraph: f"The {each.thing} of {each.town}" for each in OF_JUDGED}
    for rows in by_question(judged).values():
        assert [row.rank for row in rows] == list(range(1, DEPTH + 1))
        assert len({row.passage for row in rows}) == len(rows)
        assert all(row.place == (titles[row.passage],) for row in rows)
    best = [row for row in judged if row.rank == 1]
    assert sum(row.relevant for row in best) > len(best) / 2


DAMAGE = {
    "qrels/train.tsv": b"query\tdocument\n1\t2\n",
    "queries.jsonl": b'{"_id": "0", "text"',
    "corpus.jsonl": b'{"_id": "2100", "text": "A mill."}\n{"_id": "2101", \xff',
}


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("damage", ["deleted", "damaged"])
def test_a_missing_or_damaged_file_is_named(name: str, damage: str, tmp_path: Path, encoder_at_hand: None) -> None:
    file = write_judged(tmp_path / "judged") / name
    if damage == "deleted":
        file.unlink()
    else:
        file.write_bytes(DAMAGE[name])
    with pytest.raises(TuningError) as raised:
        list(judged_rows(tmp_path / "judged", "train", 5))
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_judged_question_that_is_not_there_is_named(data: Path, tmp_path: Path) -> None:
    folder = write_judged(tmp_path / "judged")
    kept = (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[1:]
    (folder / "queries.jsonl").write_text("".join(kept), encoding="utf-8")
    with pytest.raises(
        TuningError, match=r"train\.tsv judges the query 0, which .*queries\.jsonl does not contain"
    ):
        read_judged(folder, "train")


# Answered questions

OF_LONG = 3
"""The fact in the middle of a long passage that is asked about."""


@pytest.fixture(scope="module")
def known() -> dict[str, ReadingRow]:
    """Answered rows by their questions; the passage of one is cut into several by an index."""
    found = {}
    for each in facts(30, 14):
        question, answer = each.questions[0]
        start = each.paragraph.index(answer)
        found[question] = ReadingRow(question, each.paragraph, (each.town,), ((start, start + len(answer)),))
    told = fact(OF_LONG).sentences[2]
    question = f"What took the roof of the {fact(OF_LONG).thing}?"
    start = LONG.index(told)
    found[question] = ReadingRow(question, LONG, ("Towns",), ((start, start + len(told)),), exact=False)
    return found


@pytest.fixture(scope="module")
def retrieved(known: dict[str, ReadingRow], encoder_at_hand: None) -> list[RankedRow]:
    return list(answered_rows(list(known.values()), 100, DEPTH, 1))


def test_the_own_passage_is_relevant_and_what_may_answer_too_is_left_out(
    known: dict[str, ReadingRow], retrieved: list[RankedRow]
) -> None:
    assert {row.text for row in retrieved} == known.keys()
    for row in retrieved:
        one = known[row.text]
        answers = [plain(one.passage[slice(*span)]) for span in one.answers]
        holds = any(answer in plain(row.passage) for answer in answers)
        assert row.relevant == holds == (holds and row.passage in one.passage)
    left_out = DEPTH * len(known) - len(retrieved)
    assert left_out > len(known)


def test_of_a_long_passage_only_the_part_with_the_answer_is_relevant(
    known: dict[str, ReadingRow], retrieved: list[RankedRow]
) -> None:
    rows = [row for row in retrieved if known[row.text].passage == LONG]
    (right,) = [row for row in rows if row.relevant]
    assert fact(OF_LONG).sentences[2] in right.passage
    assert len(right.passage) < len(LONG) / 2
    assert right.place == ("Towns",)
    # The other parts may help to answer: they teach nothing.
    assert not [row for row in rows if row != right and row.passage in LONG]


def test_so_many_questions_are_asked_as_are_wanted_and_the_seed_chooses(
    known: dict[str, ReadingRow], retrieved: list[RankedRow], encoder_at_hand: None
) -> None:
    some = list(answered_rows(list(known.values()), 4, 3, 1))
    assert {row.question for row in some} == set(range(4))
    assert max(row.rank for row in some) <= 3
    assert list(answered_rows(list(known.values()), 4, 3, 1)) == some
    other = list(answered_rows(list(known.values()), 4, 3, 2))
    assert {row.text for row in other} != {row.text for row in some}


ROWS = st.lists(
    st.builds(
        RankedRow,
        st.integers(0, 1),
        st.just("Which?"),
        st.uuids().map(str),
        st.just(()),
        st.integers(1, 30),
        st.booleans(),
    ),
    max_size=40,
)


@given(ROWS, st.integers(0, 4), st.integers(0, 99))
@example([RankedRow(1, "Which?", str(rank), (), rank, rank < 3) for rank in range(1, 13)], 3, 1)
def test_of_wrong_passages_some_are_kept_for_each_right_one(rows: list[RankedRow], wrong: int, seed: int) -> None:
    kept = by_question(list(thinned(rows, wrong, random.Random(seed))))
    for number, found in by_question(rows).items():
        right = [row for row in found if row.relevant]
        if not right:
            assert number not in kept
            continue
        assert [row for row in kept[number] if row.relevant] == right
        others = [row for row in kept[number] if not row.relevant]
        assert len(others) == min(wrong * len(right), len(found) - len(right))
        assert set(others) <= set(found)


# The measure


def features_of(*questions: Sequence[int]) -> Features:
    """For each question what was found, in the order of the places: 1 where it is relevant."""
    return Features.pack(
        Feature((1, 2), 1, (right, number, rank))
        for number, rights in enumerate(questions)
        for rank, right in enumerate(rights, 1)
    )


def test_ndcg_of_ten_by_hand() -> None:
    # Relevant at the places 2 and 12: 1 / log2(3), of the 1 + 1 / log2(3) that were to be had.
    one = [0, 1, *[0] * 9, 1]
    assert mixed_ndcg([0.0] * 12, features_of(one), 1.0) == pytest.approx(0.3868528)
    # The scores turn the order round: places 1 and 11.
    assert mixed_ndcg([float(at) for at in range(12)], features_of(one), 0.0) == pytest.approx(0.6131472)
    # The mean of a question that is right, one that has nothing relevant, and the first.
    three = features_of([1, 0], [0, 0], one)
    assert mixed_ndcg([0.0] * 16, three, 1.0) == pytest.approx((1 + 0 + 0.3868528) / 3)


RIGHTS = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=15), min_size=1, max_size=4)


@given(RIGHTS, st.randoms(use_true_random=False))
def test_ndcg_is_between_its_bounds(questions: list[list[int]], chance: random.Random) -> None:
    features = features_of(*questions)
    scores = [chance.uniform(-9, 9) for _ in range(len(features))]
    before = mixed_ndcg([0.0] * len(scores), features, 1.0)
    assert 0 <= mixed_ndcg(scores, features, 0.0) <= 1
    # So heavy a place leaves nothing to the scores, and scores that know what is right want no place.
    assert mixed_ndcg(scores, features, 1e5) == pytest.approx(before)
    knowing = [float(feature.target[0]) for feature in features]
    best = sum(1 for rights in questions if any(rights)) / len(questions)
    assert mixed_ndcg(knowing, features, 0.0) == pytest.approx(best)
    weight = best_weight(scores, features)
    assert weight in WEIGHTS
    assert mixed_ndcg(scores, features, weight) == max(mixed_ndcg(scores, features, each) for each in WEIGHTS)


# The task


@pytest.fixture(scope="module")
def task(encoder_at_hand: None) -> RerankerTask:
    return RerankerTask(RECIPE)


def said(task: RerankerTask, feature: Feature) -> str:
    return plain(task._renderer._tokenizer.decode(feature.ids))


def test_questions_for_validation_are_not_trained_on(task: RerankerTask, data: Path) -> None:
    held_out = [each for each in QUESTIONS if not zlib.crc32(each.encode()) % HELD_OUT]
    assert 2 <= len(held_out) < len(QUESTIONS) / 2
    validated = list(task.validation(data, 10_000))
    trained = list(task.features(Source(name="scifact"), data, 1))
    for question in QUESTIONS:
        asked = plain(question)
        assert any(said(task, each).startswith(asked) for each in validated) == (question in held_out)
        assert any(said(task, each).startswith(asked) for each in trained) == (question not in held_out)
    # Every passage that was found, with its place; of those to train on, some.
    assert len(validated) == len(held_out) * len(OF_JUDGED)
    assert {each.target[2] for each in validated} == set(range(1, len(OF_JUDGED) + 1))
    assert {each.target[0] for each in validated} == {each.target[0] for each in trained} == {0, 1}
    assert list(task.validation(data, 7)) == validated[:7]


def test_a_source_stops_at_its_number_of_rows_or_questions(task: RerankerTask, data: Path) -> None:
    assert len(list(task.features(Source(name="scifact", rows=5), data, 1))) == 5
    found = list(task.features(Source(name="squad", rows=3), data, 1))
    assert {each.target[1] for each in found} <= {0, 1, 2}
    assert {each.target[0] for each in found} == {0, 1}
    assert all(sum(other.target[:2] == (1, each.target[1]) for other in found) for each in found)


def test_a_source_that_nobody_knows_is_refused(task: RerankerTask, data: Path) -> None:
    with pytest.raises(TuningError, match=r"no source prose\. Use one of: scifact, squad"):
        list(task.features(Source(name="prose"), data, 1))


def test_the_recipe_that_ships_names_sources_that_the_task_knows(task: RerankerTask) -> None:
    recipe = load_recipe("reranker")
    assert recipe.task == "reranker"
    known = {"scifact", "squad", "policyqa", "open-questions", "sentence-pairs"}
    assert {source.name for stage in recipe.stages for source in stage.sources} <= known


# From end to end


@dataclass(frozen=True)
class Trained:
    """A training that has ended."""

    run: RunFolder
    network: Any
    points: list[Point]
    features: dict[str, Features]
    card: AdapterCard

    @property
    def adapter(self) -> Adapter:
        return read_adapter(self.run.path / "result")


@pytest.fixture(scope="module")
def trained(data: Path, encoder_at_hand: None, tmp_path_factory: pytest.TempPathFactory) -> Trained:

    home = open_workspace(tmp_path_factory.mktemp("reranked"))
    run = new_run(home.runs, RECIPE, TEXT, data, TrackingSettings(wandb="off"))
    task = open_task(RECIPE)
    features = prepare(run, RECIPE, task, lambda: None)
    points: list[Point] = []
    network: Any = task.train(Training(features, run.path / "checkpoints", points.append, lambda: False))
    versions = {name: each.version for name, each in features.items()}
    card = task.finish(network, features[VALIDATION], run.path / "result", versions)
    return Trained(run, network, points, features, card)


def test_the_result_of_a_training_is_whole(trained: Trained) -> None:
    adapter = trained.adapter
    assert {path.name for path in adapter.folder.iterdir()} == {CARD, CONFIG, HEAD, MATRICES}
    card = adapter.card
    assert card == AdapterCard.model_validate_json(trained.card.model_dump_json())
    assert (card.name, card.task, card.rank) == ("small-reranker", "reranker", 8)
    assert card.calibration is None
    assert card.rank_weight in WEIGHTS
    assert card.data.keys() == {"validation", "claims", "start"}
    assert card.data["start"] == read_adapter(SHIPPED / "reader").identity
    assert card.recipe["start"] == "reader"
    assert card.licences == ("CC BY 4.0", "CC BY-SA 4.0", "ODC-BY")
    names = ("loss", "ndcg_before", "ndcg_alone", "ndcg")
    assert card.figures.keys() == {f"validation/{name}" for name in names}
    # Every weight was tried, that which leaves everything as it was nearly among them.
    assert card.figures["validation/ndcg"] >= card.figures["validation/ndcg_alone"]


def test_every_row_is_trained_on_and_looked_at(trained: Trained) -> None:
    assert len(trained.features["claims"]) >= 10 + 3
    assert len(trained.features[VALIDATION]) == RECIPE.validation_rows
    (last,) = [point for point in trained.points if point.figures]
    assert last.step == last.steps
    assert last.figures is not None
    assert last.figures["loss"] > 0
    assert all(math.isfinite(point.loss) for point in trained.points)


def test_the_result_holds_what_the_training_started_from(trained: Trained) -> None:
    import torch

    from rag.encoders.tuned_architectures import open_base
    from rag.encoders.tuned_conversion import merge_base

    files = RerankerTask(RECIPE).files
    begun: Any = open_network(RECIPE, files, plain=False)
    plain_one: Any = open_network(RECIPE, files, plain=True)
    result: Any = open_base(files.folder)
    merge_base(result, trained.adapter.folder)
    assert torch.equal(begun.head.weight, plain_one.head.weight)
    name = "encoder.layer.3.attention.self.query.weight"
    start, bare, made = (each.get_parameter(name) for each in (begun.base, plain_one.base, result))
    assert torch.equal(bare, open_base(files.folder).get_parameter(name))
    # Eight ranks hold most of the difference that the reader's hold.
    assert (made - start).norm() < 0.9 * (bare - start).norm()


@pytest.mark.slow
def test_the_result_answers_as_it_did_in_training(trained: Trained) -> None:
    import torch

    from rag.encoders.tuned_architectures import network_for, open_base
    from rag.encoders.tuned_conversion import merge

    task = RerankerTask(RECIPE)
    saved: Any = network_for("reranker", open_base(task.files.folder)).eval()
    merge(saved, trained.adapter.folder)
    with torch.no_grad():
        expected = task._scores(trained.network.eval(), trained.features[VALIDATION])
        # The adapter is kept in 16 bits.
        assert task._scores(saved, trained.features[VALIDATION]) == pytest.approx(expected, abs=0.02)


# What it starts from


def test_a_start_that_is_not_there_is_told_before_the_data_are_read() -> None:
    for name in ("riddles", "r" * 500, "~nobody-of-that-name/adapter"):
        with pytest.raises(AdapterError, match=r"no adapter .* to start from\. .*one of: .*reader") as raised:
            open_task(RECIPE.model_copy(update={"start": name}))
        assert "\n" not in str(raised.value)


def test_a_start_may_be_a_folder_and_must_be_whole(tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(SHIPPED / "reader", tmp_path / "mine"))
    assert find_start(str(folder)).identity == find_start("reader").identity
    whole = (folder / MATRICES).read_bytes()
    (folder / MATRICES).write_bytes(whole[: len(whole) // 2])
    recipe = RECIPE.model_copy(update={"start": str(folder)})
    with pytest.raises(AdapterError, match=r"mine is damaged: ") as raised:
        open_network(recipe, RerankerTask(recipe).files, plain=False)
    assert "\n" not in str(raised.value)
    (folder / MATRICES).unlink()
    with pytest.raises(AdapterError, match=f"mine is incomplete: {MATRICES} is missing"):
        open_task(recipe)


def test_a_start_of_the_same_task_gives_its_head_too() -> None:
    import torch
    from safetensors.torch import load_file

    recipe = RECIPE.model_copy(update={"start": "reranker"})
    files = RerankerTask(recipe).files
    begun: Any = open_network(recipe, files, plain=False)
    assert torch.equal(begun.head.weight, load_file(SHIPPED / "reranker" / HEAD)["weight"])
    fresh: Any = open_network(recipe, files, plain=True)
    assert not torch.equal(begun.head.weight, fresh.head.weight)


def test_without_a_start_a_training_begins_with_the_base() -> None:
    import torch

    from rag.encoders.tuned_architectures import open_base

    recipe = RECIPE.model_copy(update={"start": None})
    files = RerankerTask(recipe).files
    begun: Any = open_network(recipe, files, plain=False)
    base: Any = open_base(files.folder)
    for (name, one), other in zip(begun.base.named_parameters(), base.parameters(), strict=True):
        assert torch.equal(one, other), name
    assert begun.head.weight.shape == (1, base.config.hidden_size)
