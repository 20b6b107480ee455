"""Rows for the generator: prompts as the chain renders them, and the replies that they should get."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

from finetune.data import wordings
from finetune.data.prose import Prose
from finetune.data.sentence_pairs import SentencePair
from finetune.rows import ReadingRow, WritingRow
from prompts import find_prompt
from rag.documents.sentences import Sentence, split_sentences

# Passages of a prompt and how often so many are shown.
COUNTS, SHARES = (1, 2, 3), (0.4, 0.4, 0.2)
# Characters of a passage, by how many there are: the whole prompt should fit the window.
ROOM = {1: 1300, 2: 750, 3: 500}
# Of the answered rows, those that are shown without the passage that answers.
TAKEN_AWAY = 0.1
SHORT, CITED, BARE = 0.6, 0.75, 0.25
# Characters of prose that is shown, and that is to be written.
SHOWN, GOES_ON = (200, 700), 260
_SPACE = re.compile(r"\s+")


def answer_rows(rows: Sequence[ReadingRow], seed: int) -> Iterator[WritingRow]:
    """A prompt for each row, in words that vary, among passages of the same place."""
    chance = random.Random(f"{seed} writing")
    beside = Beside(rows)
    for row in rows:
        count = chance.choices(COUNTS, SHARES)[0]
        yield answer_row(row, beside.draw(row, count - 1, chance), chance)


def answer_row(
    row: ReadingRow, others: Sequence[ReadingRow], chance: random.Random, *, shipped: str | None = None
) -> WritingRow:
    """One prompt.

    Args:
        row: Question and passage; the first of its answers is the reply.
        others: Rows whose passages stand beside it; they do not hold the answer.
        chance: Decides on order, form and wording.
        shipped: The prompt that words it, ``answer-short`` or ``answer-sentence``; None for one by chance.
    """
    # An answer that is only known to lie in a sentence cannot be given in a few words.
    short = (row.exact and chance.random() < SHORT) if shipped is None else shipped == "answer-short"
    worded = shipped is not None or chance.random() < wordings.SHIPPED
    cited = worded or chance.random() < CITED
    away = shipped is None and row.answers and others and chance.random() < TAKEN_AWAY
    answered = bool(row.answers) and not away
    room = ROOM[min(len(others) + (not away), max(ROOM))]
    shown = [] if away else [row]
    shown = [*shown, *others]
    chance.shuffle(shown)
    place = {} if shipped is not None or chance.random() > BARE else {"place": ""}
    texts, entries, reply, number = [], [], "", 0
    prompt = find_prompt("answer-short" if short else "answer-sentence")
    for at, each in enumerate(shown, 1):
        text, moved = _around(each, room, chance)
        if each is row and answered:
            start, end = row.answers[0][0] - moved, row.answers[0][1] - moved
            number = at
            reply = text[start:end] if short and row.exact else _sentence_at(text, start, end)
        texts.append(text)
        values = {"number": str(at), "place": " › ".join(each.place), "text": text} | place
        entries.append(prompt.fragment("passage", values))
    usual = shipped is not None or (worded and chance.random() < wordings.USUAL)
    refusal = wordings.REFUSALS[0] if usual else chance.choice(wordings.REFUSALS)
    passages = "\n".join(entries)
    if worded:
        messages = wordings.shipped_texts(prompt.name, question=row.question, passages=passages, refusal=refusal)
    else:
        messages = wordings.answer_texts(
            chance, short=short, cited=cited, question=row.question, passages=passages, refusal=refusal
        )
    if not answered:
        return WritingRow("refusal", messages, refusal, tuple(texts))
    reply = _SPACE.sub(" ", reply).strip()
    return WritingRow(
        "short" if short else "sentence", messages, f"{reply} [{number}]" if cited else reply, tuple(texts)
    )


def question_rows(pairs: Sequence[SentencePair], rows: Sequence[ReadingRow], seed: int) -> Iterator[WritingRow]:
    """Prompts for a question: about a sentence, or about a passage with the answer named."""
    chance = random.Random(f"{seed} questions")
    for pair in pairs:
        yield pair_row(pair, chance, shipped=chance.random() < wordings.SHIPPED)
    for row in rows:
        if row.answers and row.exact:
            text, moved = _around(row, ROOM[2], chance)
            start, end = row.answers[0]
            answer = text[start - moved : end - moved]
            system = f"{chance.choice(wordings.ASK)} {chance.choice(wordings.ASK_FOR).format(answer=answer)}"
            yield WritingRow("question", (system, text), row.question)


def pair_row(pair: SentencePair, chance: random.Random, *, shipped: bool) -> WritingRow:
    """The prompt for a question about a sentence."""
    if shipped:
        texts = wordings.shipped_texts("write-question", text=pair.sentence)
    else:
        texts = (chance.choice(wordings.ASK), pair.sentence)
    return WritingRow("question", texts, pair.question)


def prose_rows(documents: Iterator[Prose], seed: int) -> Iterator[WritingRow]:
    """A part of each document, and how it goes on: what teaches to write at all."""
    chance = random.Random(f"{seed} going on")
    for document in documents:
        at = 0
        while at + SHOWN[1] + GOES_ON < len(document.text) and at < 6000:
            shown = chance.randint(*SHOWN)
            middle = _word_end(document.text, at + shown)
            end = _word_end(document.text, middle + GOES_ON)
            text = document.text[at:middle].strip()
            yield WritingRow("prose", (wordings.GO_ON, text), _SPACE.sub(" ", document.text[middle:end]).strip())
            at = end


class Beside:
    """Passages that may stand beside another: of the same place where there are some."""

    def __init__(self, rows: Sequence[ReadingRow]) -> None:
        self._all = list({row.passage: row for row in rows}.values())
        self._by_place: dict[tuple[str, ...], list[ReadingRow]] = {}
        for row in self._all:
            self._by_place.setdefault(row.place, []).append(row)

    def draw(self, row: ReadingRow, wanted: int, chance: random.Random) -> list[ReadingRow]:
        """At most so many rows, whose passages do not hold the answer."""
        near = self._by_place.get(row.place, [])
        answers = [row.passage[start:end].casefold() for start, end in row.answers]
        found: dict[str, ReadingRow] = {}
        for _ in range(wanted * 4):
            other = chance.choice(near if len(near) > 1 else self._all)
            holds = any(answer in other.passage.casefold() for answer in answers)
            if other.passage != row.passage and not holds and len(found) < wanted:
                found[other.passage] = other
        return list(found.values())


def _around(row: ReadingRow, room: int, chance: random.Random) -> tuple[str, int]:
    """A part of a passage with whole sentences and the first answer in it, and where it begins."""
    if len(row.passage) <= room:
        return row.passage, 0
    sentences = split_sentences(row.passage)
    start, end = row.answers[0] if row.answers else (0, 0)
    if not row.answers:
        start = end = chance.choice(sentences).start
    inside = [at for at, each in enumerate(sentences) if each.start < max(end, start + 1) and each.end > start]
    first = last = inside[0] if inside else 0
    last = inside[-1] if inside else 0
    while True:
        grown = [
            (before, after)
            for before, after in ((first - 1, last), (first, last + 1))
            if before >= 0 and after < len(sentences) and sentences[after].end - sentences[before].start <= room
        ]
        if not grown:
            break
        first, last = chance.choice(grown)
    begin = min(sentences[first].start, start)
    stop = max(sentences[last].end, end)
    return row.passage[begin:stop], begin


def _sentence_at(text: str, start: int, end: int) -> str:
    """The sentences that hold a span, at most two."""
    held: list[Sentence] = [each for each in split_sentences(text) if each.start < end and each.end > start]
    return text[min(held[0].start, start) : max(held[:2][-1].end, end)] if held else text[start:end]


def _word_end(text: str, at: int) -> int:
    found = text.find(" ", at)
    return found if found >= 0 else len(text)
