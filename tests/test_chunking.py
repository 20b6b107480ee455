"""Cutting: exact places, whole words, whole sections, and never more than the encoder reads."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.documents.chunking import (
    CONTEXT_TOKENS,
    SPECIAL_TOKENS,
    TOKENIZER_CHARACTERS,
    WIDEST_GAP,
    ChunkingRule,
    chunk_document,
    context,
    rule_for,
)
from rag.documents.loaders import load
from rag.encoders import Encoder
from rag.encoders.encoder import EncoderCard
from rag.encoders.encoder_tokens import TokenCounter
from rag.types import Block, BlockKind, Chunk, Document

SMALL = ChunkingRule(20, 22)
USUAL = ChunkingRule(200, 220)

SENTENCE = "The river carries cold water from the hills to the old mill. "
CJK = "山の上に古い寺があり、毎朝鐘の音が谷に響く。"
WORDS = st.text("abcdefghijklmnopqrstuvwxyzäßéñčλж0123456789", min_size=1, max_size=14)
PUNCTUATED = st.tuples(WORDS, st.sampled_from(["", "", "", ",", ".", ".", "!", "?", ";", ".)"])).map("".join)
PARAGRAPHS = st.lists(PUNCTUATED, min_size=1, max_size=90).map(" ".join)


def document(*parts: str | tuple[BlockKind, str], gap: str = "\n\n") -> Document:
    """A document of these blocks, in order."""
    text, blocks = "", []
    path: tuple[str, ...] = ()
    for part in parts:
        kind, piece = part if isinstance(part, tuple) else ("text", part)
        piece = piece.strip()
        path = (piece,) if kind == "heading" else path
        text += gap if text else ""
        blocks.append(Block(len(text), len(text) + len(piece), kind, path))
        text += piece
    return Document(text, tuple(blocks))


def on_pages(doc: Document, pages: Sequence[int]) -> Document:
    return replace(doc, blocks=tuple(replace(b, page=p) for b, p in zip(doc.blocks, pages, strict=True)))


def texts(doc: Document, chunks: Sequence[Chunk]) -> list[str]:
    return [doc.text[chunk.start : chunk.end] for chunk in chunks]


def through_a_word(text: str, at: int) -> bool:
    """Whether a cut at this place has a letter or digit of the same word on both sides."""
    return 0 < at < len(text) and text[at - 1].isalnum() and text[at].isalnum()


@pytest.fixture(scope="module")
def tokens(encoder: Encoder) -> TokenCounter:
    return encoder.tokens


class CountingTokens(TokenCounter):
    """The real tokenizer, which remembers what it was given."""

    def __init__(self, inner: TokenCounter) -> None:
        self.inner = inner
        self.calls = 0
        self.characters = 0
        self.longest = 0

    def count(self, texts: Sequence[str]) -> list[int]:
        self.calls += 1
        self.characters += sum(map(len, texts))
        self.longest = max([self.longest, *map(len, texts)])
        return self.inner.count(texts)

    def starts(self, text: str) -> list[int]:
        self.calls += 1
        self.characters += len(text)
        self.longest = max(self.longest, len(text))
        return self.inner.starts(text)


# Offsets, order and coverage


@given(st.lists(PARAGRAPHS, min_size=1, max_size=6))
def test_passages_are_in_order_without_overlap_and_lose_nothing(
    tokens: TokenCounter, paragraphs: list[str]
) -> None:
    doc = document(*paragraphs)
    chunks = chunk_document(doc, tokens, SMALL)
    for chunk in chunks:
        assert 0 <= chunk.start < chunk.end <= len(doc.text)
        assert doc.text[chunk.start : chunk.end] == doc.text[chunk.start : chunk.end].strip()
    assert all(one.end <= other.start for one, other in itertools.pairwise(chunks))
    covered = set(itertools.chain.from_iterable(range(c.start, c.end) for c in chunks))
    lost = [at for b in doc.blocks for at in range(b.start, b.end) if at not in covered]
    assert "".join(doc.text[at] for at in lost).strip() == ""


@given(st.lists(PARAGRAPHS, min_size=1, max_size=6))
def test_no_passage_begins_or_ends_inside_a_word(tokens: TokenCounter, paragraphs: list[str]) -> None:
    doc = document(*paragraphs)
    for chunk in chunk_document(doc, tokens, SMALL):
        assert not through_a_word(doc.text, chunk.start)
        assert not through_a_word(doc.text, chunk.end)


@given(st.lists(PARAGRAPHS, min_size=1, max_size=6))
def test_no_passage_is_above_the_limit_but_for_one_word_that_is(
    tokens: TokenCounter, paragraphs: list[str]
) -> None:
    doc = document(*paragraphs)
    for text in texts(doc, chunk_document(doc, tokens, SMALL)):
        assert tokens.count([text])[0] <= SMALL.limit or " " not in text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.md", "# Rivers\n\n" + SENTENCE * 3 + "\n\n## Mills\n\n- " + "\n- ".join([SENTENCE] * 9)),
        ("a.rst", "Rivers\n" + "=" * 70 + "\n\n" + (SENTENCE * 2 + "\n\nMore\n" + "-" * 70 + "\n\n") * 9),
        ("a.md", ("```\nx = 1\n```\n\n" + "-" * 60 + "\n\n") * 60),
        ("a.md", "| a | b |\n|---|---|\n" + "| river | mill |\n" * 90),
        ("a.csv", "river,mill\n" + "cold water,old stone\n" * 90),
        ("a.py", ("def river(mill):\n    return mill + 1\n\n\n" + "#" * 70 + "\n") * 40),
    ],
)
def test_mark_up_between_blocks_counts_towards_the_size(tokens: TokenCounter, name: str, content: str) -> None:
    (doc,) = load(Path(name), content.encode())
    for text in texts(doc, chunk_document(doc, tokens, USUAL)):
        assert tokens.count([text])[0] <= USUAL.limit, text


def test_the_token_number_of_a_passage_is_that_of_its_text(tokens: TokenCounter) -> None:
    doc = document(("heading", "Rivers"), SENTENCE * 30, ("heading", "Mills"), SENTENCE * 5)
    chunks = chunk_document(doc, tokens, USUAL)
    assert [chunk.tokens for chunk in chunks] == tokens.count(texts(doc, chunks))


def test_a_word_longer_than_the_limit_stays_whole(tokens: TokenCounter) -> None:
    word = "-".join(["abc"] * 40)
    doc = document(f"before it {word} after it")
    assert word in " ".join(texts(doc, chunk_document(doc, tokens, SMALL))).split()


@pytest.mark.parametrize("text", [CJK * 40, CJK * 9 + SENTENCE * 9])
def test_scripts_without_spaces_are_cut_between_characters(tokens: TokenCounter, text: str) -> None:
    doc = document(text)
    chunks = chunk_document(doc, tokens, SMALL)
    assert len(chunks) > 1
    assert all(tokens.count([part])[0] <= SMALL.limit for part in texts(doc, chunks))
    assert "".join("".join(texts(doc, chunks)).split()) == "".join(text.split())


def test_scripts_without_spaces_are_cut_after_a_sentence_where_one_ends(tokens: TokenCounter) -> None:
    doc = document(CJK * 40)
    assert {part[-1] for part in texts(doc, chunk_document(doc, tokens, ChunkingRule(60, 66)))} == {"。"}


def test_no_passage_begins_with_a_mark_of_the_character_before_it(tokens: TokenCounter) -> None:
    doc = document("山か\u3099" * 120)
    chunks = chunk_document(doc, tokens, SMALL)
    assert len(chunks) > 3
    assert not any(part.startswith("\u3099") for part in texts(doc, chunks))


# Sizes


def test_small_paragraphs_are_packed_together(tokens: TokenCounter) -> None:
    doc = document(*[SENTENCE.strip()] * 60)
    sizes = [chunk.tokens for chunk in chunk_document(doc, tokens, USUAL)]
    assert all(size > USUAL.size * 0.9 for size in sizes[:-1])


def test_a_long_paragraph_is_cut_into_pieces_of_about_equal_size(tokens: TokenCounter) -> None:
    doc = document(SENTENCE * 50)
    sizes = [chunk.tokens for chunk in chunk_document(doc, tokens, USUAL)]
    assert len(sizes) == 4
    assert min(sizes) > 0.7 * max(sizes)


def test_a_long_paragraph_is_cut_at_the_ends_of_sentences(tokens: TokenCounter) -> None:
    doc = document(SENTENCE * 80)
    parts = texts(doc, chunk_document(doc, tokens, USUAL))
    assert len(parts) > 3
    assert all(part.startswith("The river") and part.endswith("old mill.") for part in parts)


def test_long_code_is_cut_at_the_ends_of_lines(tokens: TokenCounter) -> None:
    doc = document(("code", "\n".join(f"level_{n} = river({n}, mill) * stones" for n in range(150))))
    parts = texts(doc, chunk_document(doc, tokens, USUAL))
    assert len(parts) > 3
    assert all(part.startswith("level_") and part.endswith("stones") for part in parts)


def test_a_sentence_longer_than_a_passage_is_cut_at_white_space(tokens: TokenCounter) -> None:
    doc = document("river " * 500)
    parts = texts(doc, chunk_document(doc, tokens, USUAL))
    assert len(parts) > 2
    assert set(" ".join(parts).split()) == {"river"}


def test_the_size_asked_for_gives_way_to_what_the_encoder_reads(encoder: Encoder) -> None:
    room = encoder.card.max_tokens - SPECIAL_TOKENS - CONTEXT_TOKENS
    assert rule_for(encoder, 100) == ChunkingRule(100, 110)
    assert rule_for(encoder, 5_000) == ChunkingRule(room, room)
    assert rule_for(encoder, 200).limit <= room


def test_an_encoder_that_reads_little_still_gets_passages(encoder: Encoder) -> None:
    class Narrow:
        card = EncoderCard("narrow", "0" * 64, 8, 20)

    rule = rule_for(Narrow(), 200)  # type: ignore[arg-type]
    assert rule.size == rule.limit == 16
    doc = document(SENTENCE * 5)
    assert len(chunk_document(doc, encoder.tokens, rule)) > 3


def test_passage_and_context_fit_into_what_the_encoder_reads(encoder: Encoder) -> None:
    rule = rule_for(encoder, 10_000)
    title = "An uncommonly long title, as reports of committees tend to have, with subtitle and year"
    (doc,) = load(Path("a.md"), f"# {title}\n\n## Of the rivers and of the mills\n\n{SENTENCE * 60}".encode())
    for chunk in chunk_document(doc, encoder.tokens, rule):
        where = context(doc.title, chunk.headings)
        told = f"{where}\n{doc.text[chunk.start : chunk.end]}"
        assert encoder.tokens.count([told])[0] + SPECIAL_TOKENS <= encoder.card.max_tokens


# Structure


def test_a_heading_opens_a_new_passage_once_the_current_one_is_half_full(tokens: TokenCounter) -> None:
    half = SENTENCE * 8
    doc = document(("heading", "Rivers"), half, ("heading", "Mills"), half)
    assert [part.split()[0] for part in texts(doc, chunk_document(doc, tokens, USUAL))] == ["Rivers", "Mills"]


def test_short_sections_share_a_passage(tokens: TokenCounter) -> None:
    doc = document(("heading", "Rivers"), SENTENCE, ("heading", "Mills"), SENTENCE)
    assert len(chunk_document(doc, tokens, USUAL)) == 1


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 40)), min_size=1, max_size=6))
def test_a_heading_stays_with_what_follows_it(tokens: TokenCounter, sections: list[tuple[int, int]]) -> None:
    parts: list[tuple[BlockKind, str]] = []
    for number, (depth, length) in enumerate(sections):
        parts += [("heading", f"Section {number}, level {level}") for level in range(depth)]
        parts += [("text", "stone " * length)]
    doc = document(*parts)
    for text in texts(doc, chunk_document(doc, tokens, ChunkingRule(40, 44))):
        assert text.endswith("stone"), text


@pytest.mark.parametrize("words", range(195, 230, 5))
def test_a_heading_stays_with_a_paragraph_that_fills_a_passage(tokens: TokenCounter, words: int) -> None:
    doc = document(SENTENCE, ("heading", "Of the rivers, of the mills and of the stones"), "stone " * words)
    parts = texts(doc, chunk_document(doc, tokens, USUAL))
    assert all(part.endswith(("stone", "mill.")) for part in parts)
    assert all(tokens.count([part])[0] <= USUAL.limit for part in parts)


def test_the_headings_of_a_passage_are_those_that_all_of_it_shares(tokens: TokenCounter) -> None:
    text = f"# Water\n\n## Rivers\n\n{SENTENCE}\n\n## Mills\n\n{SENTENCE}"
    (doc,) = load(Path("a.md"), text.encode())
    (chunk,) = chunk_document(doc, tokens, USUAL)
    assert chunk.headings == ("Water",)
    assert [c.headings for c in chunk_document(doc, tokens, SMALL)] == [("Water", "Rivers"), ("Water", "Mills")]


def test_pages_are_never_mixed(tokens: TokenCounter) -> None:
    doc = on_pages(
        document("one river", "two rivers", "a mill", ("heading", "Stones"), "a stone"), [1, 1, 2, 2, 3]
    )
    chunks = chunk_document(doc, tokens, USUAL)
    assert [(chunk.page, text) for chunk, text in zip(chunks, texts(doc, chunks), strict=True)] == [
        (1, "one river\n\ntwo rivers"),
        (2, "a mill\n\nStones"),
        (3, "a stone"),
    ]


def test_a_passage_does_not_reach_across_text_that_was_left_out(tokens: TokenCounter) -> None:
    encoded = "QUJD" * 600
    (doc,) = load(Path("a.md"), f"A river.\n\n{encoded}\n\nA mill.".encode())
    assert texts(doc, chunk_document(doc, tokens, USUAL)) == ["A river.", "A mill."]


def test_a_passage_reaches_across_a_gap_of_mark_up(tokens: TokenCounter) -> None:
    gap = "\n" * WIDEST_GAP
    assert len(chunk_document(document("A river.", "A mill.", gap=gap), tokens, USUAL)) == 1
    assert len(chunk_document(document("A river.", "A mill.", gap=gap + "\n"), tokens, USUAL)) == 2


@pytest.mark.parametrize(
    ("title", "headings", "told"),
    [
        (None, (), ""),
        ("Water", (), "Water"),
        ("Water", ("Water", "Rivers"), "Water › Rivers"),
        (None, ("Rivers", "Rivers"), "Rivers"),
    ],
)
def test_the_context_names_where_a_passage_stands(title: str | None, headings: tuple[str, ...], told: str) -> None:
    assert context(title, headings) == told


def test_the_context_is_short_however_long_the_headings_are() -> None:
    assert len(context("x" * 500, ("y" * 500, "z" * 500))) <= 120


# Size of the input


@pytest.mark.parametrize("unit", [SENTENCE, "river\n", "river\t", CJK])
def test_a_huge_paragraph_is_read_by_the_tokenizer_in_few_parts(
    tokens: TokenCounter, unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag.documents.chunking.TOKENIZER_CHARACTERS", 20_000)
    text = (unit * (100_000 // len(unit))).strip()
    counting = CountingTokens(tokens)
    chunks = chunk_document(Document(text, (Block(0, len(text)),)), counting, USUAL)
    # The last part may be so short that it is counted before it is cut.
    assert counting.characters <= 1.1 * len(text)
    assert counting.calls <= 20
    assert counting.longest <= 20_000
    parts = [text[chunk.start : chunk.end] for chunk in chunks]
    assert "".join(parts) == text if unit == CJK else " ".join(parts).split() == text.split()


def test_a_paragraph_of_a_megabyte_is_read_once(tokens: TokenCounter) -> None:
    text = (SENTENCE * (1_000_000 // len(SENTENCE))).strip()
    counting = CountingTokens(tokens)
    chunks = chunk_document(Document(text, (Block(0, len(text)),)), counting, USUAL)
    assert counting.characters <= len(text)
    assert counting.calls <= 3 * (len(text) // TOKENIZER_CHARACTERS + 1)
    assert chunks[-1].end == len(text)


def test_many_small_blocks_go_through_the_tokenizer_together(tokens: TokenCounter) -> None:
    counting = CountingTokens(tokens)
    chunk_document(document(*["A river."] * 5_000), counting, USUAL)
    assert counting.calls <= 4


def test_a_document_without_blocks_gives_no_passage(tokens: TokenCounter) -> None:
    assert chunk_document(Document("only what is left out", ()), tokens, USUAL) == []
