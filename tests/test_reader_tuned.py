"""The tuned reader, the one that ships: it finds the words that answer, and knows when there are none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pytest
from evidence_samples import REFUSAL, TEXTS, UNANSWERED, evidence_of, lexical_at, nearest_first, replied
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessageChunk

from rag.encoders.adapters import find_adapter
from rag.encoders.encoder_opening import choose_precision
from rag.encoders.tuned_conversion import converted_network
from rag.models.extractive.extractive_chat import ExtractiveReader
from rag.models.extractive.sentence_ranking import SpanRanking
from rag.models.extractive.span_reader import ReadPassage, SpanReader
from rag.settings import EncoderSettings, ReaderSettings
from rag.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

    from rag.encoders import Encoder

Reader = Callable[[str, Sequence[str]], AIMessageChunk]


@pytest.fixture(scope="module")
def span_reader(converted_models: Path) -> SpanReader:
    workspace = Workspace(converted_models.parent)
    adapter = find_adapter(ReaderSettings().adapter, workspace)
    precision, _ = choose_precision(EncoderSettings())
    return SpanReader(converted_network(adapter, workspace.models), adapter, precision=precision)


@pytest.fixture(scope="module")
def read(span_reader: SpanReader, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """Asks about passages in the order in which a search gives them, and puts together what is streamed."""
    ranking = SpanRanking(span_reader, encoder, lexical_at(tmp_path_factory.mktemp("lexical")))
    reader = ExtractiveReader(ranking=ranking, tokens=encoder.tokens, min_confidence=ranking.min_confidence)

    def ask(question: str, texts: Sequence[str]) -> AIMessageChunk:
        return replied(reader, evidence_of(encoder, question, nearest_first(encoder, question, texts)))

    return ask


def marked(reply: AIMessageChunk) -> list[str]:
    return [reply.text[start:end] for start, end in reply.spans]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("When was the tide gauge installed?", "1871"),
        ("Who installed the tide gauge?", "Ida Brandt"),
        ("How high was the highest water?", "5.13 metres"),
        ("How much does a crossing cost?", "12 euros"),
        ("What do members of the library pay?", "20 euros"),
        ("Who switches the red lamp on?", "harbour master"),
    ],
)
def test_it_marks_the_words_that_answer(read: Reader, question: str, expected: str) -> None:
    reply = read(question, TEXTS)
    assert expected in reply.text
    assert any(expected in words for words in marked(reply)), marked(reply)


def test_a_question_for_yes_or_no_is_answered_by_a_sentence_and_no_words_of_it(read: Reader) -> None:
    reply = read("Was the tide gauge installed in 1871?", TEXTS)
    assert "1871" in reply.text
    assert marked(reply) == []
    assert marked(read("Was the tide gauge installed in 1871 or 1872?", TEXTS))


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Do dogs travel free of charge?", "Dogs pay half fare and travel on deck."),
        ("Is it free for dogs?", "Dogs pay half fare and travel on deck."),
        ("Is the bicycle free?", "Bicycles are free."),
    ],
)
def test_a_question_for_yes_or_no_is_answered_by_a_sentence_about_its_subject(
    read: Reader, question: str, expected: str
) -> None:
    texts = ["Dogs pay half fare and travel on deck. Bicycles are free."]
    assert read(question, texts).text.startswith(expected)


@pytest.mark.parametrize("word", ["zelda", "quokka", "xyzzyplugh"])
def test_a_word_that_no_passage_has_is_refused(read: Reader, word: str) -> None:
    texts = [
        "If the register is locked or cannot be reached, close all programs that have `harbour.db` open.",
        "The board answers one question in up to four ways, side by side.",
    ]
    assert read(word, texts).text == REFUSAL


@pytest.mark.parametrize("question", UNANSWERED)
def test_it_refuses_what_the_passages_do_not_answer(read: Reader, question: str) -> None:
    reply = read(question, TEXTS)
    assert reply.text == REFUSAL
    assert not marked(reply)


def test_two_passages_that_answer_differently_are_both_shown(read: Reader) -> None:
    texts = [
        "The tide gauge was installed in 1871 by Ida Brandt.",
        "The tide gauge was installed in 1902 by the navy.",
    ]
    reply = read("When was the tide gauge installed?", texts)
    assert "1871" in reply.text
    assert "1902" in reply.text
    assert "[1]" in reply.text
    assert "[2]" in reply.text
    assert len(marked(reply)) == 2


def test_what_is_marked_stands_in_the_answer_however_its_source_is_written(read: Reader) -> None:
    texts = ["The bakery opens at five. [2]", "The tide gauge [1]_ was\n   installed in\t1871 [3] by Ida\nBrandt."]
    reply = read("Who installed the tide gauge?", texts)
    assert marked(reply) == ["Ida Brandt"]


def test_an_answer_far_into_a_long_passage_is_found(span_reader: SpanReader) -> None:
    filler = "The harbour was dredged again in the following spring, and nobody complained about the mud. " * 60
    text = f"{filler}The tide gauge was installed in 1871 by Ida Brandt. {filler}"
    spans = span_reader.read("Who installed the tide gauge?", [ReadPassage(text)])[0]
    best = max(spans, key=lambda span: span.margin)
    assert "Ida Brandt" in text[best.start : best.end]


def test_a_passage_that_answers_is_more_probable_than_one_that_does_not(span_reader: SpanReader) -> None:
    found = span_reader.read("Who installed the tide gauge?", [ReadPassage(text) for text in TEXTS])
    chances = [span_reader.probability(max(span.margin for span in spans)) for spans in found]
    right = next(at for at, text in enumerate(TEXTS) if "Ida Brandt" in text)
    assert max(range(len(chances)), key=chances.__getitem__) == right
    assert all(0 <= chance <= 1 for chance in chances)


@given(st.lists(st.text(max_size=80), max_size=3), st.text(max_size=60))
def test_any_text_can_be_read(span_reader: SpanReader, passages: list[str], question: str) -> None:
    found = span_reader.read(question, [ReadPassage(text, ("A place",)) for text in passages])
    assert len(found) == len(passages)
    for text, spans in zip(passages, found, strict=True):
        for span in spans:
            assert span.sentence.start <= span.start <= span.end <= span.sentence.end <= len(text)
