"""Documents to passages: cut along the structure, measured in the encoder's own tokens.

Blocks of a section are packed until a passage has about the size asked for. A heading opens a new passage once
the current one is at least half full, and always stays with what follows it. A block that is too long is cut
into pieces of equal size at the nearest sentence end, else at white space; never through a word.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rag.documents import Block, Chunk, Document
from rag.encoder.base import Encoder
from rag.encoder.tokens import TokenCounter

# Tokens kept free for the title and headings that are embedded together with a passage.
CONTEXT_TOKENS = 32
SPECIAL_TOKENS = 2
# A passage may exceed the size asked for by this share before its block is cut.
SLACK = 1.1
# Text between two blocks that is more than mark-up was left out on purpose: no passage reaches across it.
WIDEST_GAP = 200
# The tokenizer needs about 100 bytes for a token, so that text goes through it in parts of this many characters.
TOKENIZED_AT_ONCE = 500_000

_SENTENCE_END = re.compile(r"[.!?][\"')\]]*\s+|[。！？]|\n\s*\n")
_LINE_END = re.compile(r"\n")
_SPACE = re.compile(r"\s+")
# Scripts without spaces between words: there every character may begin a passage.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


@dataclass(frozen=True, slots=True)
class ChunkingRule:
    """How passages are cut.

    Attributes:
        size: Tokens that a passage aims at.
        limit: Tokens that it never exceeds, a single word longer than that excepted.
    """

    size: int
    limit: int


def rule_for(encoder: Encoder, tokens: int) -> ChunkingRule:
    """The rule that keeps passage and context within what the encoder reads.

    Args:
        encoder: Whose limit counts.
        tokens: The size asked for.
    """
    room = max(encoder.card.max_tokens - SPECIAL_TOKENS - CONTEXT_TOKENS, 16)
    size = min(tokens, room)
    return ChunkingRule(size, min(int(size * SLACK), room))


def context(title: str | None, headings: Sequence[str]) -> str:
    """What is embedded in front of a passage: where it stands, at most some 30 tokens; may be empty."""
    parts = list(dict.fromkeys(part for part in (title or "", *headings) if part))
    return " › ".join(part[:80] for part in parts)[:120]


def cut(document: Document, tokens: TokenCounter, rule: ChunkingRule) -> list[Chunk]:
    """Cut a document into passages, in order of their place."""
    return list(_pack(list(_pieces(document, tokens, rule)), rule))


@dataclass(frozen=True, slots=True)
class _Piece:
    block: Block
    start: int
    end: int
    tokens: int


def _pieces(document: Document, tokens: TokenCounter, rule: ChunkingRule) -> Iterator[_Piece]:
    for group in _grouped(_bounded(document)):
        counts = tokens.count([document.text[start:end] for _, start, end in group])
        for (block, start, end), count in zip(group, counts, strict=True):
            if count <= rule.limit:
                yield _Piece(block, start, end, count)
            else:
                yield from _split(document.text, block, start, end, tokens, rule)


def _bounded(document: Document) -> Iterator[tuple[Block, int, int]]:
    """Blocks, the longest ones in parts that the tokenizer can take at once."""
    for block in document.blocks:
        start = block.start
        while block.end - start > TOKENIZED_AT_ONCE:
            space = document.text.rfind(" ", start + 1, start + TOKENIZED_AT_ONCE)
            middle = space if space > start else start + TOKENIZED_AT_ONCE
            yield block, start, middle
            start = middle
            while start < block.end and document.text[start].isspace():
                start += 1
        if start < block.end:
            yield block, start, block.end


def _grouped(
    parts: Iterator[tuple[Block, int, int]],
) -> Iterator[list[tuple[Block, int, int]]]:
    group: list[tuple[Block, int, int]] = []
    held = 0
    for part in parts:
        group.append(part)
        held += part[2] - part[1]
        if held >= TOKENIZED_AT_ONCE:
            yield group
            group, held = [], 0
    if group:
        yield group


def _split(
    text: str, block: Block, start: int, end: int, tokens: TokenCounter, rule: ChunkingRule
) -> Iterator[_Piece]:
    """Cut one long block into pieces of about equal size."""
    part = text[start:end]
    places = tokens.starts(part)
    good = _breaks(part, _LINE_END if block.kind in ("code", "row") else _SENTENCE_END)
    possible = _breaks(part, _SPACE)
    possible_cjk = [match.start() for match in _UNSPACED.finditer(part)]
    at, first = 0, 0
    while first < len(places):
        left = len(places) - first
        share = left / -(-left // rule.size)
        stop = len(part)
        if left > rule.limit:
            window = (
                places[first + max(int(share * 0.6), 1)],
                places[min(first + int(share), len(places) - 1)],
                places[min(first + rule.limit, len(places) - 1)],
            )
            stop = _choose(window, (good, possible, possible_cjk), at)
            if stop is None:
                # One word fills the whole passage: it stays whole, up to the next place where it may end.
                beyond = [next_after(places_, window[2]) for places_ in (possible, possible_cjk)]
                stop = min((place for place in beyond if place is not None), default=len(part))
        piece_start, piece_end = _trimmed(part, at, stop)
        following = bisect.bisect_left(places, stop)
        if piece_start < piece_end:
            yield _Piece(block, start + piece_start, start + piece_end, following - first)
        at, first = stop, following


def _breaks(text: str, pattern: re.Pattern[str]) -> list[int]:
    return [match.end() for match in pattern.finditer(text)]


def _choose(window: tuple[int, int, int], kinds: Sequence[list[int]], after: int) -> int | None:
    """The place nearest to the middle of the window, of the best kind that has one in it."""
    low, aim, high = window
    for number, places in enumerate(kinds):
        # Only a sentence end may make a passage much shorter than it could be.
        lowest = low if number == 0 else after + 1
        inside = places[bisect.bisect_left(places, max(lowest, after + 1)) : bisect.bisect_right(places, high)]
        if inside:
            return min(inside, key=lambda place: abs(place - aim))
    return None


def next_after(places: list[int], after: int) -> int | None:
    """The first of the ascending places that is beyond ``after``."""
    at = bisect.bisect_right(places, after)
    return places[at] if at < len(places) else None


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _pack(pieces: list[_Piece], rule: ChunkingRule) -> Iterator[Chunk]:
    held: list[_Piece] = []
    count = 0
    for piece in pieces:
        if held and _breaks_before(held, count, piece, rule):
            done, held = _without_trailing_headings(held, piece)
            if done:
                yield _chunk(done)
            count = sum(each.tokens for each in held)
            if held and count + piece.tokens > rule.limit:
                yield _chunk(held)
                held, count = [], 0
        held.append(piece)
        count += piece.tokens
    if held:
        yield _chunk(held)


def _breaks_before(held: list[_Piece], count: int, piece: _Piece, rule: ChunkingRule) -> bool:
    last = held[-1]
    if piece.block.page != last.block.page or piece.start - last.end > WIDEST_GAP:
        return True
    if count + piece.tokens > rule.limit:
        return True
    return piece.block.kind == "heading" and last.block.kind != "heading" and count >= rule.size / 2


def _without_trailing_headings(held: list[_Piece], piece: _Piece) -> tuple[list[_Piece], list[_Piece]]:
    """Split off the headings at the end: they belong to what follows, where that stands beside them."""
    if piece.block.page != held[-1].block.page or piece.start - held[-1].end > WIDEST_GAP:
        return held, []
    at = len(held)
    while at and held[at - 1].block.kind == "heading":
        at -= 1
    return held[:at], held[at:]


def _chunk(pieces: list[_Piece]) -> Chunk:
    told = [piece.block.headings for piece in pieces if piece.block.kind != "heading"]
    shared = _common(told or [pieces[0].block.headings])
    return Chunk(
        pieces[0].start, pieces[-1].end, shared, pieces[0].block.page, sum(piece.tokens for piece in pieces)
    )


def _common(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    shared: list[str] = []
    for level in zip(*paths, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return tuple(shared)
