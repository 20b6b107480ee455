"""What a training reads: rows whose answers stand where they are said to stand, none of them held out."""

from __future__ import annotations

import json
import random
import re
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuning_data import OF_HELD_OUT, OF_XQUAD, documents, fact, tokenised, write_data

from finetune.data import open_questions, prose, questions, sentence_pairs, splits
from finetune.data.prose import Prose
from finetune.data.sentence_pairs import SentencePair, as_written
from finetune.data.splits import HeldOut, plain
from finetune.features import Feature, Features
from finetune.recipe import load_recipe
from finetune.rows import ReadingRow
from finetune.tasks.reader_task import EXACT, NONE, ReaderTask
from rag.documents.sentences import split_sentences
from rag.errors import EvaluationError, TuningError
from rag.evaluation.squad import Article, Paragraph, Question

ANSWERED = ("squad", "policyqa", "open-questions", "sentence-pairs")
HELD_OUT = [each.paragraph for each in (*OF_XQUAD, *(fact for told in OF_HELD_OUT.values() for fact in told))]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "data")


@pytest.fixture(scope="module")
def task() -> ReaderTask:
    return ReaderTask(load_recipe("miniature"))


@pytest.fixture(scope="module")
def rows(task: ReaderTask, data: Path) -> dict[str, list[ReadingRow]]:
    """Every row of every source."""
    return {name: list(task.rows(name, data, 1)) for name in ("prose", "negatives", "altered", *ANSWERED)}


# Rows


def assert_sound(row: ReadingRow) -> None:
    """Whether a row's answers stand inside its passage, and are more than white space."""
    assert row.question.strip()
    for start, end in row.answers:
        assert 0 <= start < end <= len(row.passage)
        assert row.passage[start:end].strip()


@pytest.mark.slow
def test_every_source_gives_rows_whose_answers_stand_in_the_passage(rows: dict[str, list[ReadingRow]]) -> None:
    for name, found in rows.items():
        assert found, name
        for row in found:
            assert_sound(row)
            assert name == "altered" or row.exact == (name != "sentence-pairs")
    for name in ("negatives", "altered"):
        assert not any(row.answers for row in rows[name])
    assert any(not row.answers for row in rows["prose"])


def test_rows_say_what_the_files_say(rows: dict[str, list[ReadingRow]]) -> None:
    told = {row.question: row for row in rows["squad"]}
    one = fact(300)
    for question, answer in one.questions:
        row = told[question]
        assert row.place == ("Towers of Ostholm",)
        assert [row.passage[slice(*span)] for span in row.answers] == ([answer] if answer else [])
    search = rows["open-questions"][0]
    assert {search.passage[slice(*span)] for span in search.answers} == {fact(500).builder}
    assert "Not read." not in search.passage


def test_inexact_answers_are_the_whole_sentence(rows: dict[str, list[ReadingRow]]) -> None:
    told = {sentence: one for one in map(fact, range(600, 620)) for sentence in one.sentences}
    known = {plain(sentence): sentence for sentence in told}
    for row in rows["sentence-pairs"]:
        (span,) = row.answers
        sentence = known[plain(row.passage[slice(*span)])]
        assert row.question in [as_written(tokenised(question)) for question, _ in told[sentence].questions]
        assert 2 <= sum(plain(each) in plain(row.passage) for each in told) <= 4


def test_a_negative_shows_a_passage_without_the_answer(rows: dict[str, list[ReadingRow]]) -> None:
    answers: dict[str, set[str]] = {}
    for name in ANSWERED:
        for row in rows[name]:
            answers.setdefault(row.question, set()).update(row.passage[slice(*span)] for span in row.answers)
    for row in rows["negatives"]:
        # A question may be asked of two passages: one of its answers at least is missing.
        assert not all(plain(answer) in plain(row.passage) for answer in answers[row.question])


def test_held_out_text_is_never_trained_on(rows: dict[str, list[ReadingRow]], data: Path) -> None:
    kept_out = {plain(text) for text in HELD_OUT}
    sentences = {plain(each.text) for text in HELD_OUT for each in split_sentences(text)}
    for name in ("squad", "open-questions", "negatives"):
        assert not [row for row in rows[name] if plain(row.passage) in kept_out], name
    for row in (*rows["sentence-pairs"], *rows["altered"]):
        assert not [each for each in sentences if each in plain(row.passage)]
    # The files do hold it, so that it would have been found.
    raw = (data / splits.SQUAD).read_text(encoding="utf-8") + "".join(
        path.read_text(encoding="utf-8") for path in (data / "squad").glob("nqg-src-*.txt")
    )
    for told in (*OF_XQUAD, OF_HELD_OUT[splits.TEST[1]][0]):
        assert tokenised(told.sentences[0]) in raw


def test_validation_rows_are_those_of_the_validation_article(task: ReaderTask, data: Path) -> None:
    found = list(task.validation(data, 1000))
    texts = " ".join(one.paragraph for one in OF_HELD_OUT[splits.VALIDATION[0]])
    asked = sum(len(one.questions) for one in OF_HELD_OUT[splits.VALIDATION[0]])
    assert len(found) == asked
    assert {feature.target[1] for feature in found} == {NONE, EXACT}
    for feature in found:
        body = task._renderer._tokenizer.decode(feature.ids[feature.target[0] : -1])
        assert plain(body) in plain(texts)
    assert list(task.validation(data, 7)) == found[:7]


def test_validation_rows_of_one_kind_are_refused_before_hours_of_training(
    task: ReaderTask, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "squad").mkdir()
    held = json.loads((data / splits.SQUAD).read_text(encoding="utf-8"))
    for each in held["data"]:
        for paragraph in each["paragraphs"]:
            paragraph["qas"] = [asked for asked in paragraph["qas"] if asked["answers"]]
    (tmp_path / splits.SQUAD).write_text(json.dumps(held), encoding="utf-8")
    with pytest.raises(TuningError, match=r"must include answered and unanswered.*validation_rows"):
        list(task.validation(tmp_path, 100))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prose", "sentence-pairs", "negatives", "altered"])
def test_the_same_seed_gives_the_same_rows_and_another_seed_others(
    name: str, task: ReaderTask, data: Path, rows: dict[str, list[ReadingRow]]
) -> None:
    assert list(task.rows(name, data, 1)) == rows[name]
    assert list(task.rows(name, data, 2)) != rows[name]


def test_a_source_stops_at_its_number_of_rows(task: ReaderTask, data: Path) -> None:
    source = load_recipe("miniature").stages[0].sources[0].model_copy(update={"rows": 3})
    whole = list(task.features(source.model_copy(update={"rows": None}), data, 5))
    assert 3 <= len(list(task.features(source, data, 5))) < len(whole)
    assert whole[:3] == list(islice(task.features(source, data, 5), 3))


WORDS = st.lists(
    st.sampled_from("The Old Mill of Kelm was built in 1802 by Ida Brandt and 40 people".split()), max_size=30
)
TEXTS = st.one_of(
    st.lists(WORDS.map(" ".join), max_size=30).map(". ".join),
    st.lists(st.sampled_from([fact(number).paragraph for number in range(20)]), max_size=5).map("\n\n".join),
    st.text(max_size=900),
)


@given(TEXTS, st.integers(0, 1000))
def test_cloze_questions_of_any_prose(text: str, seed: int) -> None:
    found = list(prose.cloze_rows(iter([Prose("On Kelm", text)]), seed))
    assert found == list(prose.cloze_rows(iter([Prose("On Kelm", text)]), seed))
    for row in found:
        assert_sound(row)
        assert len(row.passage) <= prose.LONGEST
        answers = {row.passage[slice(*span)].lower() for span in row.answers}
        assert len(answers) <= 1


def test_a_cloze_question_does_not_show_the_sentence_it_was_made_of() -> None:
    chance = random.Random(4)
    for each in documents():
        document = Prose(each["title"], each["text"])
        for passage in prose._passages(document.text):
            row = prose._elsewhere(document, passage, chance)
            if row is None:
                continue
            assert passage != row.passage
            (answer,) = {row.passage[slice(*span)].lower() for span in row.answers}
            blanked = [
                sentence
                for sentence in split_sentences(passage)
                if sentence.text not in row.passage and answer in sentence.text.lower()
            ]
            assert len(blanked) == 1
            assert blanked[0].text.lower().count(answer) == row.question.lower().count(answer) + 1


def test_a_question_that_keeps_its_sentence_points_into_it() -> None:
    chance = random.Random(4)
    one = fact(3)
    found = [row for _ in range(60) if (row := prose._here(Prose("Towns", one.paragraph), one.paragraph, chance))]
    assert len(found) > 20
    for row in found:
        ((start, end),) = row.answers
        sentence = next(each for each in split_sentences(one.paragraph) if each.start <= start < each.end)
        assert end <= sentence.end
        assert row.question.endswith("?")
        asked = re.sub(r"^(How (many|much)|Wh\w+) ", "", row.question)
        assert set(re.findall(r"\w+", asked)) <= set(re.findall(r"\w+", sentence.text))


def test_prose_reads_every_document_once(data: Path) -> None:
    files = [data / "prose/wiki-00.jsonl.xz"] * 2
    told = sorted(each["text"] for each in documents())
    assert sorted(each.text for each in prose.read_prose(files, 3)) == sorted(told * 2)


@given(
    st.lists(st.builds(SentencePair, st.text("abc .", min_size=1, max_size=30), st.text(min_size=1)), max_size=20),
    st.integers(0, 99),
)
def test_passages_of_sentence_pairs_hold_their_sentence(pairs: list[SentencePair], seed: int) -> None:
    found = list(sentence_pairs.reading_rows(pairs, seed))
    assert len(found) == len(pairs)
    for row, pair in zip(found, pairs, strict=True):
        ((start, end),) = row.answers
        assert row.passage[start:end] == pair.sentence
        assert row.question == pair.question


def test_the_last_sentences_of_a_file_have_neighbours_too() -> None:
    pairs = [SentencePair(f"Sentence {number}.", "Which?") for number in range(30)]
    for row in sentence_pairs.reading_rows(pairs, 1):
        assert 2 <= row.passage.count("Sentence") <= 4


ANSWERS = st.lists(st.tuples(st.text("ab ", max_size=4), st.integers(0, 12)), max_size=4)


@given(st.text("ab ", max_size=12), ANSWERS)
def test_answers_that_do_not_stand_where_the_file_says_are_left_out(
    text: str, answers: list[tuple[str, int]]
) -> None:
    asked = Question("1", "Which?", tuple(answers))
    found = list(questions.reading_rows([Article("Some_title", (Paragraph(text, (asked,)),))]))
    right = [
        (start, start + len(answer)) for answer, start in answers if answer and text.startswith(answer, start)
    ]
    if answers and not right:
        assert found == []
    else:
        assert found == [ReadingRow("Which?", text, ("Some title",), tuple(right))]


def test_search_questions_without_their_answer_in_the_passage_are_left_out(tmp_path: Path) -> None:
    import gzip

    def line(*answers: str) -> str:
        return json.dumps(
            {"question": "who", "answers": answers, "ctxs": [{"title": "T", "text": "Ida met (Ruth) and ida."}]}
        )

    path = tmp_path / "nq.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join([line("Ida"), line("Peter"), line(""), line("(Ruth)", "Ida")]))
    assert [row.answers for row in open_questions.reading_rows(path)] == [
        ((0, 3), (19, 22)),
        ((8, 14), (0, 3), (19, 22)),
    ]


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("the mill -lrb- built in 1802 -rrb- burned .", "the mill (built in 1802) burned."),
        ("who is `` ida '' ?", 'who is " ida "?'),
        ("it does n't cost $ 5 , or 5 % .", "it doesn't cost $5, or 5%."),
        ("the town 's -lsb- old -rsb- mill", "the town's [old] mill"),
        ("", ""),
    ],
)
def test_tokens_are_put_together_as_a_person_writes(tokens: str, text: str) -> None:
    assert as_written(tokens) == text


@given(st.sampled_from([fact(number) for number in range(50)]))
def test_text_is_known_however_it_was_tokenised(one: Any) -> None:
    for sentence in one.sentences:
        assert plain(as_written(tokenised(sentence))) == plain(tokenised(sentence)) == plain(sentence)
    assert plain("Œuvre: 3,5 m!") == "uvre35m"


def test_held_out_text_is_found_by_paragraph_and_by_sentence(data: Path) -> None:
    held = HeldOut(data)
    for one in OF_XQUAD:
        assert held.holds(one.paragraph)
        assert all(held.holds(tokenised(sentence)) for sentence in one.sentences)
    assert not held.holds(fact(300).paragraph)
    # Two paragraphs do not run together into a text that nobody wrote.
    first, second = OF_XQUAD
    assert not held.holds(first.sentences[-1] + second.sentences[0])


@pytest.mark.parametrize("name", [*ANSWERED, "prose"])
def test_a_missing_or_damaged_file_is_named(name: str, task: ReaderTask, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    file = {
        "squad": splits.SQUAD,
        "policyqa": Path("open_qa/policyqa-dev.json"),
        "open-questions": Path("open_qa/nq-open-oracle.jsonl.gz"),
        "sentence-pairs": Path("squad/nqg-tgt-dev.txt"),
        "prose": Path("prose/wiki-00.jsonl.xz"),
    }[name]
    whole = (data / file).read_bytes()
    # A file of pairs that is cut in the middle has fewer lines; the others are no longer what they say.
    for damaged in ([whole[: len(whole) // 2]] if name != "prose" else []) + [b"\xff\xfe nothing"]:
        (data / file).write_bytes(damaged)
        with pytest.raises((TuningError, EvaluationError), match=f"{file.name}.* (cannot be read|must be a file)"):
            list(task.rows(name, data, 1))
    (data / file).unlink()
    with pytest.raises((TuningError, EvaluationError), match=str(data)):
        list(task.rows(name, data, 1))


def test_a_source_that_nobody_knows_is_refused(task: ReaderTask, data: Path) -> None:
    with pytest.raises(TuningError, match=r"no source riddles\. Use one of: prose, negatives, altered, squad"):
        task.rows("riddles", data, 1)


# Features

NUMBERS = st.integers(-(2**31), 2**31 - 1)
FEATURES = st.lists(
    st.builds(
        Feature,
        st.lists(st.integers(0, 2**16 - 1), max_size=40).map(tuple),
        st.integers(0, 2**16 - 1),
        st.lists(NUMBERS, max_size=6).map(tuple),
    ),
    max_size=12,
)


@given(FEATURES)
def test_features_are_the_same_after_packing_and_a_file(tmp_path_factory: Any, features: list[Feature]) -> None:
    packed = Features.pack(iter(features))
    assert list(packed) == features
    assert packed.lengths.tolist() == [len(feature.ids) for feature in features]
    folder = tmp_path_factory.mktemp("features")
    packed.save(folder / "x.npz")
    read = Features.load(folder / "x.npz")
    assert read is not None
    assert list(read) == features
    assert read.version == packed.version
    assert [path.name for path in folder.iterdir()] == ["x.npz"]


@given(FEATURES, FEATURES)
def test_other_features_have_another_version(one: list[Feature], other: list[Feature]) -> None:
    assert (Features.pack(one).sha256 == Features.pack(other).sha256) == (one == other)


@given(st.integers(0, 10_000), st.binary(max_size=40))
def test_a_damaged_file_of_features_counts_as_missing(tmp_path_factory: Any, size: int, tail: bytes) -> None:
    path = tmp_path_factory.mktemp("features") / "x.npz"
    Features.pack([Feature((1, 2, 3), 1, (2, 0))] * 9).save(path)
    whole = path.read_bytes()
    damaged = whole[: size % len(whole)] + tail
    path.write_bytes(damaged)
    assert Features.load(path) is None or damaged == whole
    assert Features.load(path.with_name("none.npz")) is None
