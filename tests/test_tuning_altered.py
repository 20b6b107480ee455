"""Questions made unanswerable look like those they were made of, and nothing in their passage answers them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuning_data import facts, write_data

from finetune.data.altered import AROUND, OPPOSITES, REMOVED, SHORTEST, altered_rows
from finetune.recipe import Source, load_recipe
from finetune.rows import ReadingRow
from finetune.tasks.reader_task import NONE, ReaderTask
from rag.documents.sentences import split_sentences
from rag.encoders.encoder_files import locate_model
from rag.encoders.question_passage_pair import Renderer
from rag.settings import EncoderSettings


def pieces(word: str) -> int:
    """A tokenizer that knows the short words."""
    return 1 + (len(word) > 7)


def row_of(number: int, passage: str, question: str, answer: str) -> ReadingRow:
    """A row that says by its place which one it is."""
    start = passage.index(answer)
    return ReadingRow(question, passage, (str(number),), ((start, start + len(answer)),))


def rows_of_facts(first: int, count: int) -> list[ReadingRow]:
    told = [(each.paragraph, *asked) for each in facts(first, count) for asked in each.questions if asked[1]]
    return [row_of(number, *each) for number, each in enumerate(told)]


def answering(row: ReadingRow) -> list[str]:
    """The sentences of a passage that hold an answer."""
    return [
        each.text
        for each in split_sentences(row.passage)
        if any(start < each.end and end > each.start for start, end in row.answers)
    ]


def replaced(before: str, after: str) -> set[tuple[str, str]]:
    """What may have been put in place of what: every way to tell, the ends of words alone being the limits."""

    def limits(text: str) -> set[int]:
        return {0, len(text)} | {match.start() for match in re.finditer(r"\b", text)}

    ends = {len(after) - end: end for end in limits(after)}
    return {
        (before[start:end], after[start : ends[len(before) - end]])
        for start in limits(before) & limits(after)
        for end in limits(before)
        if start <= end and len(before) - end in ends and start <= ends[len(before) - end]
        if before[:start] == after[:start] and before[end:] == after[ends[len(before) - end] :]
    }


def assert_altered(made: ReadingRow, rows: Sequence[ReadingRow]) -> str:
    """Whether a row is one of these without an answer; how it was made: by which kind of change."""
    at = int(made.place[0])
    row = rows[at]
    assert made.answers == ()
    assert (made.place, made.exact) == (row.place, row.exact)
    if made.passage != row.passage:
        assert made.question == row.question
        assert len(made.passage) >= SHORTEST
        left = [each.text for each in split_sentences(made.passage)]
        assert not [each for each in answering(row) if each in left]
        if row.exact:
            assert not [each for each in row.answers if row.passage[slice(*each)].lower() in made.passage.lower()]
        return "taken out"
    changes = replaced(row.question, made.question)
    if ("", " not") in changes:
        return "negated"
    said = " ".join(answering(row)).lower()
    near = " ".join(each.passage for each in rows[max(at - AROUND, 0) : at + AROUND + 1])
    fitting = {
        (old, new)
        for old, new in changes
        if old.lower() in said and new.lower() not in f"{said} {row.question.lower()}"
        if new in near or OPPOSITES.get(old) == new
    }
    assert fitting, f"{row.question} -> {made.question}"
    if any(OPPOSITES.get(old) == new for old, new in fitting):
        return "opposite"
    if any(old.isdigit() for old, _ in fitting):
        assert all(new.isdigit() and len(new) == len(old) for old, new in fitting if old.isdigit())
        return "number"
    return "name" if any(old.istitle() for old, _ in fitting) else "rare"


# Rows


def test_every_altered_row_differs_from_its_original_in_one_place_and_has_no_answer() -> None:
    rows = rows_of_facts(0, 40)
    kinds = []
    for seed in range(4):
        made = list(altered_rows(rows, pieces, seed))
        assert len({each.place for each in made}) == len(made) > 0.9 * len(rows)
        kinds += [assert_altered(each, rows) for each in made]
    assert set(kinds) == {"taken out", "negated", "name", "rare"}
    # Builder and stuff are told of twice: only of the other half of the questions the sentence can go.
    assert kinds.count("taken out") / len(kinds) == pytest.approx(REMOVED / 2, abs=0.1)


WORDS = """the a mill tower was is built burned before largest most old north Ida Brandt Kelm Varnby of Jonas Weir
1802 1931 40 granite observatory drawbridge lighthouse first İda naïve 日本 not""".split()
SENTENCES = st.lists(
    st.lists(st.sampled_from(WORDS), min_size=2, max_size=12).map(lambda words: f"So {' '.join(words)} it goes."),
    min_size=1,
    max_size=4,
    unique=True,
)


@st.composite
def answered(draw: st.DrawFn) -> ReadingRow:
    """A question that shares words with its passage, and an answer that stands anywhere in it."""
    sentences = draw(SENTENCES)
    passage = " ".join(sentences)
    question = " ".join(draw(st.lists(st.sampled_from(passage.split()), min_size=1, max_size=9))) + "?"
    if draw(st.booleans()):
        one = draw(st.sampled_from(sentences))
        start = passage.index(one)
        return ReadingRow(question, passage, answers=((start, start + len(one)),), exact=False)
    spans = []
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(passage) - 1))
        spans.append((start, draw(st.integers(start + 1, len(passage)))))
    return ReadingRow(question, passage, answers=tuple(spans))


@given(st.lists(answered(), max_size=24), st.integers(0, 1000))
def test_whatever_is_altered_is_altered_in_one_place(rows: list[ReadingRow], seed: int) -> None:
    rows = [replace(row, place=(str(number),)) for number, row in enumerate(rows)]
    made = list(altered_rows(rows, pieces, seed))
    assert made == list(altered_rows(rows, pieces, seed))
    numbers = [int(each.place[0]) for each in made]
    assert numbers == sorted(set(numbers))
    for each in made:
        assert_altered(each, rows)


def test_the_same_seed_gives_the_same_rows_and_another_seed_others() -> None:
    rows = rows_of_facts(0, 6)
    assert list(altered_rows(rows, pieces, 4)) == list(altered_rows(rows, pieces, 4))
    assert list(altered_rows(rows, pieces, 4)) != list(altered_rows(rows, pieces, 5))


# One question, in every way


def in_every_way(row: ReadingRow, *others: ReadingRow) -> set[tuple[str, str]]:
    """Question and passage of all that is made of a row."""
    found = set()
    for seed in range(300):
        made = [each for each in altered_rows([row, *others], pieces, seed) if each.place == row.place]
        found |= {(each.question, each.passage) for each in made}
    return found


BUILT = "Ida Brandt built the largest lighthouse of Varnby in 1801."
AFTER = "It has stood empty for as long as anybody there can remember, and no one knows who owns it."
OTHER = row_of(1, "In 1777 a flood reached the drawbridge of Porth Wen, 40 feet above the sea.", "When?", "1777")


def test_names_numbers_opposites_and_rare_words_are_replaced_by_others_from_nearby() -> None:
    row = row_of(
        0, f"{BUILT} {AFTER}", "Who was said to own the largest building of Varnby in 1801?", "Ida Brandt"
    )
    # `building` is not said in the sentence, and no year has two digits.
    assert in_every_way(row, OTHER) == {
        ("Who was said to own the smallest building of Varnby in 1801?", row.passage),
        ("Who was said to own the largest building of Porth Wen in 1801?", row.passage),
        ("Who was said to own the largest building of Varnby in 1777?", row.passage),
        ("Who was not said to own the largest building of Varnby in 1801?", row.passage),
        (row.question, AFTER),
    }
    rare = replace(row, question="Whose lighthouse?", passage=f"{BUILT} Bakers keep their flour there.")
    assert in_every_way(rare, OTHER) == {("Whose drawbridge?", rare.passage)}


def test_what_shares_nothing_with_its_sentence_loses_the_sentence() -> None:
    row = row_of(0, f"{BUILT} {AFTER}", "Whose work is that?", "Ida Brandt")
    assert in_every_way(row, OTHER) == {("Whose work is not that?", row.passage), (row.question, AFTER)}
    # Where an answer is a whole sentence, it is gone too.
    whole = replace(row, question="Whose work?", answers=((0, len(BUILT)),), exact=False)
    assert in_every_way(whole) == {("Whose work?", AFTER)}


def test_nothing_is_made_where_the_answer_would_stay_or_nothing_would_be_left() -> None:
    asked = "Whose work?"
    assert not in_every_way(row_of(0, BUILT, asked, "Ida Brandt"), OTHER)
    assert not in_every_way(row_of(0, f"{BUILT} {AFTER[: SHORTEST - 10]}.", asked, "Ida Brandt"), OTHER)
    assert not in_every_way(row_of(0, f"{BUILT} {AFTER} It was IDA BRANDT's last.", asked, "Ida Brandt"), OTHER)
    assert list(altered_rows([], pieces, 1)) == []


def test_words_that_are_said_where_the_answer_is_replace_nothing() -> None:
    passage = "Porth Wen and Varnby were both rebuilt by Ida Brandt in 1777, or in 1801."
    row = row_of(0, passage, "Who rebuilt the whole of Varnby in 1801?", "Ida Brandt")
    assert not in_every_way(row, OTHER)


def test_every_opposite_leads_back() -> None:
    assert all(OPPOSITES[other] == one and one != other for one, other in OPPOSITES.items())


# In the task


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    from tokenizers import Tokenizer

    return Renderer(Tokenizer.from_file(str(locate_model(EncoderSettings()).folder / "tokenizer.json")))


def test_rare_words_have_several_pieces(renderer: Renderer) -> None:
    told = {word: renderer.pieces(word) for word in ("mill", "granary", "drawbridge", "", "mill mill")}
    assert told == {"mill": 1, "granary": 2, "drawbridge": 2, "": 0, "mill mill": 2}


def test_a_stage_takes_altered_rows_as_windows_without_an_answer(tmp_path: Path) -> None:
    task = ReaderTask(load_recipe("miniature"))
    data = write_data(tmp_path / "data")
    rows = list(task.rows("altered", data, 1))
    asked = {row.question for name in ("squad", "sentence-pairs") for row in task.rows(name, data, 1)}
    assert {row.exact for row in rows} == {True, False}
    assert {row.question in asked for row in rows} == {True, False}
    found = list(task.features(Source(name="altered", rows=6), data, 1))
    assert len(found) == 6
    assert all(feature.target[1:] == (NONE,) for feature in found)
