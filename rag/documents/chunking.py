"""Chunking: split documents into passages along their structure, measured in the encoder's own tokens.

Blocks of a section are packed until a passage has about the requested size. A heading or a question starts a new
passage once the current one is at least half full, and always stays with the text after it. A block that is too
long is split into pieces of equal size at the nearest sentence end, or else at white space; never inside a word.
"""

from __future__ import annotations

import bisect
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rag.documents.sentences import asks
from rag.encoders.encoder import Encoder
from rag.encoders.encoder_tokens import TokenCounter
from rag.types import Block, Chunk, Document

# Tokens reserved for the title and headings that are embedded together with a passage.
CONTEXT_TOKENS = 32
SPECIAL_TOKENS = 2
# A passage may exceed the requested size by this factor before its block is split.
SLACK = 1.1
# A longer gap between two blocks is text that was left out on purpose, so no passage spans it.
WIDEST_GAP = 200
# Maximum characters per call of the tokenizer, which needs about 100 bytes per token.
TOKENIZER_CHARACTERS = 500_000
# Maximum texts per call of the tokenizer: each takes about a kilobyte, however short it is.
TOKENIZER_TEXTS = 20_000
# Characters of a long token; a block longer than a passage of such tokens has to be split.
WIDEST_TOKEN = 10

_SENTENCE_END = re.compile(r"[.!?][\"')\]]*\s+|[。！？]|\n\s*\n")
_LINE_END = re.compile(r"\n")
_SPACE = re.compile(r"\s+")
# Scripts without spaces between words, where any character may start a passage.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_UNSPACED = re.compile(f"[{UNSPACED}]")
_HASH = re.compile(r"[0-9a-fA-F-]{16,}")


@dataclass(frozen=True, slots=True)
class ChunkingRule:
    """Sizes of passages.

    Attributes:
        size: Target size in tokens.
        limit: Maximum size in tokens; only a single longer word may exceed it.
    """

    size: int
    limit: int


def rule_for(encoder: Encoder, tokens: int) -> ChunkingRule:
    """Return the rule that keeps a passage and its context within the encoder's window.

    Args:
        encoder: The encoder that embeds the passages.
        tokens: The requested size.
    """
    room = max(encoder.card.max_tokens - SPECIAL_TOKENS - CONTEXT_TOKENS, 16)
    size = min(tokens, room)
    return ChunkingRule(size, min(int(size * SLACK), room))


def context(title: str | None, headings: Sequence[str]) -> str:
    """Return the title and headings to embed in front of a passage, about 30 tokens at most; may be empty."""
    parts = list(dict.fromkeys(part for part in (title or "", *headings) if part))
    return " › ".join(part[:80] for part in parts)[:120]


def name_as_title(name: str) -> str:
    """Return the words of a file name, to stand for the title of a file without one; empty for a hash.

    ``3M_2022-10K.pdf`` becomes ``3M 2022 10K``.
    """
    stem = name.rpartition(".")[0] or name
    return "" if _HASH.fullmatch(stem) else " ".join(re.split(r"[\W_]+", stem)).strip()


def chunk_document(document: Document, tokens: TokenCounter, rule: ChunkingRule) -> list[Chunk]:
    """Split a document into chunks, in document order."""
    return list(_pack(_pieces(document, tokens, rule), rule))


@dataclass(frozen=True, slots=True)
class _Part:
    """A block, or as much of it as one tokenizer call takes; ``gap`` characters precede it."""

    block: Block
    start: int
    end: int
    gap: int


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part that fits into a passage.

    Attributes:
        mark_up: Tokens between the previous piece and this one.
        leads: Whether it belongs to the piece after it: a heading, or a question.
    """

    block: Block
    start: int
    end: int
    tokens: int
    mark_up: int = 0
    leads: bool = False


def _pieces(document: Document, tokens: TokenCounter, rule: ChunkingRule) -> Iterator[_Piece]:
    text = document.text
    headed = 0
    for group in _grouped(_bounded(document)):
        texts = [text[part.start : part.end] for part in group]
        # Long parts need token offsets, which also give the count: so they are tokenized only once.
        found = [tokens.starts(part) if len(part) > rule.limit * WIDEST_TOKEN else None for part in texts]
        counts = iter(tokens.count([part for part, known in zip(texts, found, strict=True) if known is None]))
        gaps = [text[part.start - min(part.gap, WIDEST_GAP) : part.start].strip() for part in group]
        for part, known, mark_up in zip(group, found, tokens.count(gaps), strict=True):
            count = next(counts) if known is None else len(known)
            leads = part.block.kind == "heading" or (
                part.block.kind == "text" and asks(text[part.start : part.end])
            )
            piece = _Piece(part.block, part.start, part.end, count, mark_up, leads)
            before = headed + mark_up if headed else 0
            headed = before + count if leads else 0
            # Leave room for the headings before it, which must stay with it, unless they fill most of a passage.
            taken = before if before <= rule.limit * 2 // 3 and not headed else 0
            if count + taken <= rule.limit:
                yield piece
            else:
                places = tokens.starts(text[part.start : part.end]) if known is None else known
                yield from _split(text, piece, places, rule, taken)


def _bounded(document: Document) -> Iterator[_Part]:
    """Yield the blocks, splitting those that are too long for one tokenizer call."""
    before = 0
    for block in document.blocks:
        start = block.start
        while block.end - start > TOKENIZER_CHARACTERS:
            middle = _last_break(document.text, start, start + TOKENIZER_CHARACTERS)
            yield _Part(block, start, middle, start - before)
            start = before = middle
            while start < block.end and document.text[start].isspace():
                start += 1
        if start < block.end:
            yield _Part(block, start, block.end, start - before)
            before = block.end


def _last_break(text: str, start: int, end: int) -> int:
    """Return the last position up to ``end`` between two words, or ``end`` if there is none."""
    inside = (at for at in range(end, start, -1) if text[at].isspace() or _UNSPACED.match(text, at))
    return next(inside, end)


def _grouped(parts: Iterator[_Part]) -> Iterator[list[_Part]]:
    group: list[_Part] = []
    size = 0
    for part in parts:
        group.append(part)
        size += part.end - part.start
        if size >= TOKENIZER_CHARACTERS or len(group) >= TOKENIZER_TEXTS:
            yield group
            group, size = [], 0
    if group:
        yield group


def _split(text: str, whole: _Piece, places: list[int], rule: ChunkingRule, taken: int) -> Iterator[_Piece]:
    """Split a long piece into pieces of about equal size.

    Args:
        text: Text of the document.
        whole: The piece to split.
        places: Offsets of its tokens.
        rule: Sizes of passages.
        taken: Tokens to subtract from the limit of the first piece.
    """
    part = text[whole.start : whole.end]
    good = _breaks(part, _LINE_END if whole.block.kind in ("code", "row") else _SENTENCE_END)
    possible = _breaks(part, _SPACE)
    unspaced = [match.start() for match in _UNSPACED.finditer(part) if not _is_mark(match.group())]
    at, first = 0, 0
    while first < len(places):
        left = len(places) - first
        room = rule.limit - (0 if at else taken)
        share = min(left / -(-left // rule.size), room)
        stop = len(part)
        if left > room:
            window = (
                places[first + max(int(share * 0.6), 1)],
                places[min(first + int(share), len(places) - 1)],
                places[min(first + room, len(places) - 1)],
            )
            chosen = _choose(window, (good, possible, unspaced), at)
            # Otherwise one word fills the whole passage and stays whole, up to the next possible break.
            beyond = (next_after(breaks, window[2]) for breaks in (possible, unspaced))
            ends = (place for place in beyond if place is not None)
            stop = min(ends, default=len(part)) if chosen is None else chosen
        piece_start, piece_end = _trimmed(part, at, stop)
        following = bisect.bisect_left(places, stop)
        if piece_start < piece_end:
            mark_up = 0 if at else whole.mark_up
            yield _Piece(
                whole.block, whole.start + piece_start, whole.start + piece_end, following - first, mark_up
            )
        at, first = stop, following


def _breaks(text: str, pattern: re.Pattern[str]) -> list[int]:
    return [match.end() for match in pattern.finditer(text)]


def _is_mark(character: str) -> bool:
    """Whether a character combines with the one before it, like the vowels of Thai."""
    return unicodedata.category(character).startswith("M")


def _choose(window: tuple[int, int, int], kinds: Sequence[list[int]], after: int) -> int | None:
    """Return the break nearest to the middle of the window, of the best kind that has one there."""
    low, aim, high = window
    for number, places in enumerate(kinds):
        # Only a sentence end justifies a passage that is much shorter than possible.
        lowest = low if number == 0 else after + 1
        inside = places[bisect.bisect_left(places, max(lowest, after + 1)) : bisect.bisect_right(places, high)]
        if inside:
            return min(inside, key=lambda place: abs(place - aim))
    return None


def next_after(places: list[int], after: int) -> int | None:
    """Return the first of the ascending positions beyond ``after``."""
    at = bisect.bisect_right(places, after)
    return places[at] if at < len(places) else None


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _pack(pieces: Iterable[_Piece], rule: ChunkingRule) -> Iterator[Chunk]:
    pending: list[_Piece] = []
    count = 0
    for piece in pieces:
        if pending and _breaks_before(pending, count, piece, rule):
            done, pending = _without_trailing_headings(pending, piece)
            if done:
                yield _chunk(done)
            count = _size(pending)
            if pending and count + piece.mark_up + piece.tokens > rule.limit:
                yield _chunk(pending)
                pending, count = [], 0
        count += piece.tokens + (piece.mark_up if pending else 0)
        pending.append(piece)
    if pending:
        yield _chunk(pending)


def _size(pieces: Sequence[_Piece]) -> int:
    """Return the tokens of a passage of these pieces, including the mark-up between them."""
    return sum(piece.tokens + (piece.mark_up if number else 0) for number, piece in enumerate(pieces))


def _breaks_before(pending: list[_Piece], count: int, piece: _Piece, rule: ChunkingRule) -> bool:
    last = pending[-1]
    if piece.block.page != last.block.page or piece.start - last.end > WIDEST_GAP:
        return True
    if count + piece.mark_up + piece.tokens > rule.limit:
        return True
    return piece.leads and not last.leads and count >= rule.size / 2


def _without_trailing_headings(pending: list[_Piece], piece: _Piece) -> tuple[list[_Piece], list[_Piece]]:
    """Split off headings and questions at the end, which belong to the next piece if that is adjacent."""
    if piece.block.page != pending[-1].block.page or piece.start - pending[-1].end > WIDEST_GAP:
        return pending, []
    at = len(pending)
    while at and pending[at - 1].leads:
        at -= 1
    return pending[:at], pending[at:]


def _chunk(pieces: list[_Piece]) -> Chunk:
    paths = [piece.block.headings for piece in pieces if piece.block.kind != "heading"]
    shared = _common(paths or [pieces[0].block.headings])
    return Chunk(pieces[0].start, pieces[-1].end, shared, pieces[0].block.page, _size(pieces))


def _common(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    shared: list[str] = []
    for level in zip(*paths, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return tuple(shared)
