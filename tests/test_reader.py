"""The extractive reader answers in the words of the documents, or says that they do not answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from evidence_samples import (
    REFUSAL,
    TEXTS,
    UNANSWERED,
    evidence_of,
    lexical_at,
    nearest_first,
    replied,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessageChunk, HumanMessage
from tiny import OFF_TOPIC

from rag.documents.sentences import split_sentences
from rag.errors import ModelProtocolError
from rag.indexing.lexical_index import LexicalIndex
from rag.models.extractive.evidence import Evidence
from rag.models.extractive.extractive_chat import ExtractiveReader
from rag.models.extractive.heading_lines import headings_among
from rag.models.extractive.readable import LONGEST, MOST_SENTENCES
from rag.models.extractive.sentence_ranking import Candidate, SentenceRanking, choose

if TYPE_CHECKING:
    from rag.encoders import Encoder

Reader = Callable[..., AIMessageChunk]


@pytest.fixture(scope="module")
def lexical(tmp_path_factory: pytest.TempPathFactory) -> LexicalIndex:
    return lexical_at(tmp_path_factory.mktemp("lexical"))


@pytest.fixture(scope="module")
def reader(encoder: Encoder, lexical: LexicalIndex) -> ExtractiveReader:
    return reader_of(encoder, lexical)


def reader_of(encoder: Encoder, lexical: LexicalIndex, min_confidence: float = 0.12) -> ExtractiveReader:
    ranking = SentenceRanking(encoder, lexical)
    return ExtractiveReader(ranking=ranking, tokens=encoder.tokens, min_confidence=min_confidence)


@pytest.fixture(scope="module")
def read(encoder: Encoder, reader: ExtractiveReader) -> Reader:
    """Asks the reader about passages, and puts together what it streams."""

    def ask(question: str, texts: Sequence[str] = TEXTS, reader: ExtractiveReader = reader) -> AIMessageChunk:
        return replied(reader, evidence_of(encoder, question, texts))

    return ask


def quotes(reply: str) -> list[tuple[str, int]]:
    """The sentences of a reply and the passages that they cite."""
    pieces = [piece.rpartition(" [") for piece in reply.split("] ")]
    return [(text, int(number.rstrip("]"))) for text, _, number in pieces]


# Answering


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("When was the tide gauge installed?", "1871"),
        ("Who installed the tide gauge?", "Ida Brandt"),
        ("How high was the highest water?", "5.13 metres"),
        ("How much does a crossing cost?", "12 euros"),
        ("Do dogs need a muzzle on the ferry?", "muzzle"),
        ("When does the last boat leave in winter?", "17:30"),
        ("Why is rye dough never kneaded?", "gluten"),
        ("What do members of the library pay?", "20 euros"),
        ("Who switches the red lamp on?", "harbour master"),
    ],
)
def test_it_answers_word_for_word_and_cites(encoder: Encoder, read: Reader, question: str, expected: str) -> None:
    texts = nearest_first(encoder, question, TEXTS)
    reply = read(question, texts).text
    assert expected in reply
    told = quotes(reply)
    assert 1 <= len(told) <= MOST_SENTENCES
    for sentence, number in told:
        assert sentence in " ".join(texts[number - 1].split())


@pytest.mark.parametrize("question", [*UNANSWERED, "the of and"])
def test_it_refuses_what_the_passages_do_not_answer(read: Reader, question: str) -> None:
    assert read(question).text == REFUSAL


def test_how_sure_it_must_be_is_a_setting(encoder: Encoder, lexical: LexicalIndex, read: Reader) -> None:
    asked = "When was the tide gauge installed?"
    assert read(asked, reader=reader_of(encoder, lexical, 1.0)).text == REFUSAL
    told = read(OFF_TOPIC, reader=reader_of(encoder, lexical, 0.0))
    assert told.text != REFUSAL
    sure = told.confidence
    assert 0 <= sure < 0.12 <= read(asked).confidence <= 1


def test_a_question_for_a_number_prefers_a_sentence_with_one(encoder: Encoder, lexical: LexicalIndex) -> None:
    texts = ["A crossing costs what the captain says. A crossing costs 12 euros."]
    number = SentenceRanking(encoder, lexical).rank(evidence_of(encoder, "How much does a crossing cost?", texts))
    assert number[0].sentence.text == "A crossing costs 12 euros."
    assert [each.features[5] for each in number] == [1.0, 0.0]
    other = SentenceRanking(encoder, lexical).rank(evidence_of(encoder, "Who says what a crossing costs?", texts))
    assert other[0].sentence.text == "A crossing costs what the captain says."
    assert [each.features[5] for each in other] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("question", "first"),
    [
        ("How do I open the sluice at night?", "To open the sluice, turn the wheel to the left."),
        # The purpose of another action, and a question that does not ask for the way.
        (
            "How do I drain the sluice at night?",
            "The sluice at night is lit by three lamps, and it may be opened.",
        ),
        ("Who lit the sluice at night?", "The sluice at night is lit by three lamps, and it may be opened."),
    ],
)
def test_a_sentence_that_begins_with_the_purpose_says_how(
    encoder: Encoder, lexical: LexicalIndex, question: str, first: str
) -> None:
    texts = [
        "The sluice at night is lit by three lamps, and it may be opened.",
        "Mind the eels. To open the sluice, turn the wheel to the left.",
    ]
    ranked = SentenceRanking(encoder, lexical).rank(evidence_of(encoder, question, texts))
    assert ranked[0].sentence.text == first


@pytest.mark.parametrize(
    "end", ["See [the tide gauge](tides.md).", "[Tide gauge](a.md), [tides](b.md) and [water](c.md)"]
)
def test_a_pointer_to_other_documents_is_no_answer(encoder: Encoder, lexical: LexicalIndex, end: str) -> None:
    text = f"The tide gauge measures the water.\n\n- {end}\n- [Tide tables](https://tides.example/)"
    ranked = SentenceRanking(encoder, lexical).rank(evidence_of(encoder, "What is the tide gauge?", [text]))
    assert sorted(candidate.sentence.text for candidate in ranked) == [
        "The tide gauge measures the water.",
        "[Tide tables](https://tides.example/)",
    ]


def test_what_belongs_to_another_key_is_not_quoted(encoder: Encoder, lexical: LexicalIndex) -> None:
    text = "## Alarm A-16\n\nOpen the vent of the boiler.\n\n## Alarm A-17\n\nClose the valve of the tank."
    given = evidence_of(encoder, "What do I do with the boiler vent on alarm A-17?", [text])
    (best, *others) = SentenceRanking(encoder, lexical).rank(given)
    assert best.sentence.text == "Close the valve of the tank."
    assert not others


def test_a_heading_is_never_an_answer(encoder: Encoder, lexical: LexicalIndex) -> None:
    texts = ["# The highest water\n\nIt was 5.13 metres high.\n\n## The highest water\nIt came in 1976.\n"]
    ranked = SentenceRanking(encoder, lexical).rank(evidence_of(encoder, "The highest water", texts))
    assert sorted(each.sentence.text for each in ranked) == ["It came in 1976.", "It was 5.13 metres high."]


SHEETS = (
    "Hours\n\nname: Bo; week: 40; month: 160\n\nname: Alva; week: 36; month: 144\n\n"
    "Wages\n\nname: Bo; hour: 17; night: 21\n\nname: Alva; hour: 16.5; night: 19"
)


def test_the_name_of_a_sheet_is_no_answer(encoder: Encoder, lexical: LexicalIndex) -> None:
    question = "What are the wages of Alva?"
    ranked = SentenceRanking(encoder, lexical).rank(evidence_of(encoder, question, [SHEETS]))
    assert sorted(each.sentence.text for each in ranked) == [
        "name: Alva; hour: 16.5; night: 19",
        "name: Alva; week: 36; month: 144",
    ]


def test_a_caption_above_rows_and_the_line_above_it_are_headings() -> None:
    text = "Call the desk\n\nSales\n\nTurnover by country\n\nCountry: Peru; 2019: 1\n\nCall again"
    assert headings_among(split_sentences(text), text, ()) == {15, 22}


def test_a_line_that_repeats_a_heading_of_its_passage_is_no_answer() -> None:
    text = "Wages of the mill\n\nThe miller pays on Fridays.\n\nSundays off"
    sentences = split_sentences(text)
    assert headings_among(sentences, text, ("", "Wages of the Mill")) == {0}
    # Nothing else would be left.
    assert headings_among(split_sentences("Wages"), "Wages", ("Wages",)) == set()


@pytest.mark.parametrize(
    "text",
    [
        "# The tide gauge\n## When was the tide gauge installed?\n### 1871\n",
        "",
        "\n\n  \n",
        "---\n***\n",
        "x" * (LONGEST + 1),
    ],
)
def test_passages_without_a_sentence_are_refused(read: Reader, text: str) -> None:
    reply = read("When was the tide gauge installed?", [text])
    assert reply.text == REFUSAL
    assert reply.confidence == 0.0


def test_passages_of_code_can_be_quoted_and_do_no_harm(read: Reader) -> None:
    code = "```python\ndef tide_gauge(args):\n    return args[0] + levels[1]\n```\n\n\tif x[2] > y[1]:\n\t\tpass\n"
    reply = read("What does tide_gauge return?", [code]).text
    assert reply == REFUSAL or all(number == 1 for _, number in quotes(reply))


def test_footnote_marks_of_a_source_are_not_taken_for_citations(read: Reader) -> None:
    texts = ["The bakery opens at five. [2]", "The tide gauge was installed in 1871 [1]_ by Ida Brandt [3]."]
    reply = read("When was the tide gauge installed?", texts).text
    assert quotes(reply) == [("The tide gauge was installed in 1871 by Ida Brandt.", 2)]


def test_without_passages_it_refuses(read: Reader) -> None:
    assert read("When was the tide gauge installed?", []).text == REFUSAL


def test_without_the_words_of_any_index_it_still_answers(
    encoder: Encoder, read: Reader, tmp_path_factory: pytest.TempPathFactory
) -> None:
    empty = LexicalIndex(tmp_path_factory.mktemp("empty"))
    assert "1871" in read("When was the tide gauge installed?", reader=reader_of(encoder, empty)).text


def test_it_reads_nothing_but_its_evidence(reader: ExtractiveReader) -> None:
    with pytest.raises(ModelProtocolError, match="needs passages") as caught:
        reader.invoke([HumanMessage("When was the tide gauge installed?")])
    assert caught.value.fix


# What it tells of itself


def test_usage_counts_question_passages_and_answer(encoder: Encoder, read: Reader) -> None:
    question = "How much does a crossing cost?"
    reply = read(question)
    assert reply.usage.input_tokens == sum(encoder.tokens.count([question, *TEXTS]))
    assert reply.usage.output_tokens == pytest.approx(encoder.tokens.count([reply.text])[0], abs=3)
    refused = read("Which opera did Verdi write for Cairo?")
    assert refused.usage.output_tokens == encoder.tokens.count([REFUSAL])[0]


def test_it_streams_a_sentence_at_a_time(encoder: Encoder, reader: ExtractiveReader) -> None:
    question = "What does the ferry to Norderney cost, and when does it leave?"
    evidence = evidence_of(encoder, question, TEXTS)
    pieces = [chunk.text for chunk in reader.stream(question, evidence=evidence) if chunk.text]
    assert len(pieces) > 1
    assert len(pieces) == len(quotes("".join(pieces)))
    assert replied(reader, evidence).text == "".join(pieces)


# Ranking and choosing


def test_the_same_evidence_gives_the_same_answer(read: Reader) -> None:
    assert len({read("How much does a crossing cost?").text for _ in range(3)}) == 1


def test_the_passage_that_was_found_first_wins_between_equals(encoder: Encoder, lexical: LexicalIndex) -> None:
    texts = ["The lamp is red today.", "The lamp is red today."]
    ranked = SentenceRanking(encoder, lexical).rank(evidence_of(encoder, "What colour is the lamp?", texts))
    assert [each.passage.number for each in ranked] == [1, 2]
    # The same sentence is not told twice.
    assert [each.passage.number for each in choose(ranked, 1.0)] == [1]


def test_the_sentences_of_an_answer_come_in_reading_order_passage_by_passage(
    encoder: Encoder, lexical: LexicalIndex
) -> None:
    texts = ["The lamp is red. The red lamp is on the pier. The lamp is red at night.", "The lamp is red by law."]
    ranking = SentenceRanking(encoder, lexical)
    chosen = choose(ranking.rank(evidence_of(encoder, "Is the lamp red?", texts)), 1.0)
    assert len(chosen) <= MOST_SENTENCES
    numbers = [each.passage.number for each in chosen]
    # All sentences of a passage stand together.
    assert len(list(dict.fromkeys(numbers))) == 1 + sum(a != b for a, b in pairwise(numbers))
    for number in set(numbers):
        starts = [each.sentence.start for each in chosen if each.passage.number == number]
        assert starts == sorted(starts)


def test_an_answer_of_one_sentence_is_the_best_and_not_the_first_of_several(
    encoder: Encoder, lexical: LexicalIndex
) -> None:
    class SecondIsBest(SentenceRanking):
        def rank(self, evidence: Evidence) -> list[Candidate]:
            (passage,) = evidence.passages
            return [Candidate(passage, one, (), 1.0) for one in reversed(split_sentences(passage.text))]

        def confidence(self, ranked: Sequence[Candidate]) -> float:
            return 1.0

    evidence = evidence_of(encoder, "When is it lit?", ["The lamp has a keeper. He lights it at six."])
    ranking = SecondIsBest(encoder, lexical)
    for style, quoted in (
        ("full", "The lamp has a keeper. [1] He lights it at six. [1]"),
        ("sentence", "He lights it at six. [1]"),
    ):
        one = ExtractiveReader(ranking=ranking, tokens=encoder.tokens, min_confidence=0.5, style=style)
        assert replied(one, evidence).text == quoted


def test_ranking_is_best_first_and_confidence_a_probability(encoder: Encoder, lexical: LexicalIndex) -> None:
    ranking = SentenceRanking(encoder, lexical)
    ranked = ranking.rank(evidence_of(encoder, "How high was the highest water?", TEXTS))
    scores = [each.score for each in ranked]
    assert scores == sorted(scores, reverse=True)
    assert all(0.0 < ranking.confidence([each]) < 1.0 for each in ranked)
    assert "5.13 metres" in ranked[0].sentence.text


def test_a_rare_word_of_the_question_weighs_more(encoder: Encoder, lexical: LexicalIndex) -> None:
    texts = ["The muzzle hangs on the wall.", "The euros hang on the wall."]
    ranked = SentenceRanking(encoder, lexical).rank(
        evidence_of(encoder, "Where are muzzle and water and euros?", texts)
    )
    overlap = {each.sentence.text: each.features[1] for each in ranked}
    assert lexical.frequency("muzzl") < lexical.frequency("euro")
    assert overlap[texts[0]] > overlap[texts[1]]


@settings(max_examples=25)
@given(
    question=st.text(max_size=60),
    texts=st.lists(st.one_of(st.text(max_size=120), st.sampled_from(TEXTS)), max_size=4),
)
def test_any_question_over_any_passages_is_answered_or_refused(
    reader: ExtractiveReader, encoder: Encoder, question: str, texts: list[str]
) -> None:
    clean = [text.encode("utf-8", "replace").decode() for text in (question, *texts)]
    reply = replied(reader, evidence_of(encoder, clean[0], clean[1:]))
    assert reply.text
    assert 0.0 <= reply.confidence <= 1.0
    if reply.text != REFUSAL:
        assert reply.text.endswith("]")
