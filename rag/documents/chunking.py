"""Documents to passages: cut along the structure, measured in the encoder's own tokens.

Blocks of a section are packed until a passage has about the size asked for. A heading opens a new passage once
the current one is at least half full, and always stays with what follows it. A block that is too long is cut
into pieces of equal size at the nearest sentence end, else at white space; never through a word.
"""

from __future__ import annotations

import bisect
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rag.encoders.encoder import Encoder
from rag.encoders.encoder_tokens import TokenCounter
from rag.types import Block, Chunk, Document

# Tokens kept free for the title and headings that are embedded together with a passage.
CONTEXT_TOKENS = 32
SPECIAL_TOKENS = 2
# A passage may exceed the size asked for by this share before its block is cut.
SLACK = 1.1
# Text between two blocks that is more than mark-up was left out on purpose: no passage reaches across it.
WIDEST_GAP = 200
# The tokenizer needs about 100 bytes for a token, so that text goes through it in parts of this many characters.
TOKENIZED_AT_ONCE = 500_000
# And so many texts: each takes about a kilobyte, however short it is.
TEXTS_AT_ONCE = 20_000
# Characters of a token, hardly ever more: what is longer than a passage of such tokens has to be cut.
WIDEST_TOKEN = 10

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
    return list(_pack(_pieces(document, tokens, rule), rule))


@dataclass(frozen=True, slots=True)
class _Part:
    """A block, or as much of it as the tokenizer takes at once; ``gap`` characters lie before it."""

    block: Block
    start: int
    end: int
    gap: int


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part that fits a passage; ``mark_up`` is the tokens between the piece before and this one."""

    block: Block
    start: int
    end: int
    tokens: int
    mark_up: int = 0


def _pieces(document: Document, tokens: TokenCounter, rule: ChunkingRule) -> Iterator[_Piece]:
    text = document.text
    headed = 0
    for group in _grouped(_bounded(document)):
        texts = [text[part.start : part.end] for part in group]
        # Where the tokens of a part stand tells how many they are: what will be cut is tokenized once.
        found = [tokens.starts(each) if len(each) > rule.limit * WIDEST_TOKEN else None for each in texts]
        counts = iter(tokens.count([each for each, known in zip(texts, found, strict=True) if known is None]))
        gaps = [text[part.start - min(part.gap, WIDEST_GAP) : part.start].strip() for part in group]
        for part, known, mark_up in zip(group, found, tokens.count(gaps), strict=True):
            count = next(counts) if known is None else len(known)
            piece = _Piece(part.block, part.start, part.end, count, mark_up)
            before = headed + mark_up if headed else 0
            headed = before + count if part.block.kind == "heading" else 0
            # Room for the headings before it, which must not be left alone; not for an absurd pile of them.
            taken = before if before <= rule.limit * 2 // 3 and not headed else 0
            if count + taken <= rule.limit:
                yield piece
            else:
                places = tokens.starts(text[part.start : part.end]) if known is None else known
                yield from _split(text, piece, places, rule, taken)


def _bounded(document: Document) -> Iterator[_Part]:
    """Blocks, the longest ones in parts that the tokenizer can take at once."""
    before = 0
    for block in document.blocks:
        start = block.start
        while block.end - start > TOKENIZED_AT_ONCE:
            middle = _last_break(document.text, start, start + TOKENIZED_AT_ONCE)
            yield _Part(block, start, middle, start - before)
            start = before = middle
            while start < block.end and document.text[start].isspace():
                start += 1
        if start < block.end:
            yield _Part(block, start, block.end, start - before)
            before = block.end


def _last_break(text: str, start: int, end: int) -> int:
    """The last place up to ``end`` that is inside no word; ``end`` where there is none."""
    inside = (at for at in range(end, start, -1) if text[at].isspace() or _UNSPACED.match(text, at))
    return next(inside, end)


def _grouped(parts: Iterator[_Part]) -> Iterator[list[_Part]]:
    group: list[_Part] = []
    held = 0
    for part in parts:
        group.append(part)
        held += part.end - part.start
        if held >= TOKENIZED_AT_ONCE or len(group) >= TEXTS_AT_ONCE:
            yield group
            group, held = [], 0
    if group:
        yield group


def _split(text: str, whole: _Piece, places: list[int], rule: ChunkingRule, taken: int) -> Iterator[_Piece]:
    """Cut a long piece into some of about equal size.

    Args:
        text: Of the document.
        whole: The piece.
        places: Where its tokens begin.
        rule: How passages are cut.
        taken: The first is to have so many tokens less than the limit.
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
            # Else one word fills the whole passage: it stays whole, up to the next place where it may end.
            beyond = (next_after(places_, window[2]) for places_ in (possible, unspaced))
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
    """Whether it belongs to the character before it, as the vowels of Thai do."""
    return unicodedata.category(character).startswith("M")


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


def _pack(pieces: Iterable[_Piece], rule: ChunkingRule) -> Iterator[Chunk]:
    held: list[_Piece] = []
    count = 0
    for piece in pieces:
        if held and _breaks_before(held, count, piece, rule):
            done, held = _without_trailing_headings(held, piece)
            if done:
                yield _chunk(done)
            count = _size(held)
            if held and count + piece.mark_up + piece.tokens > rule.limit:
                yield _chunk(held)
                held, count = [], 0
        count += piece.tokens + (piece.mark_up if held else 0)
        held.append(piece)
    if held:
        yield _chunk(held)


def _size(pieces: Sequence[_Piece]) -> int:
    """The tokens of a passage of these pieces, with the mark-up between them."""
    return sum(piece.tokens + (piece.mark_up if number else 0) for number, piece in enumerate(pieces))


def _breaks_before(held: list[_Piece], count: int, piece: _Piece, rule: ChunkingRule) -> bool:
    last = held[-1]
    if piece.block.page != last.block.page or piece.start - last.end > WIDEST_GAP:
        return True
    if count + piece.mark_up + piece.tokens > rule.limit:
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
    return Chunk(pieces[0].start, pieces[-1].end, shared, pieces[0].block.page, _size(pieces))


def _common(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    shared: list[str] = []
    for level in zip(*paths, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return tuple(shared)
