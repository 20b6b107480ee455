"""Rows for the generator: prompts as the chain renders them, and the expected replies."""

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

# Number of passages in a prompt, and how often each number occurs.
COUNTS, SHARES = (1, 2, 3), (0.4, 0.4, 0.2)
# Maximum characters of a passage by the number of passages, so that the prompt fits the window.
ROOM = {1: 1300, 2: 750, 3: 500}
# Share of the answered rows that are shown without the passage that answers.
TAKEN_AWAY = 0.1
SHORT, CITED, BARE = 0.6, 0.75, 0.25
# Characters of prose that are shown, and that are to be written.
SHOWN, GOES_ON = (200, 700), 260
_SPACE = re.compile(r"\s+")


def answer_rows(rows: Sequence[ReadingRow], seed: int) -> Iterator[WritingRow]:
    """Yield a variously worded prompt per row, its passage among others of the same section."""
    rng = random.Random(f"{seed} writing")
    beside = Beside(rows)
    for row in rows:
        count = rng.choices(COUNTS, SHARES)[0]
        yield answer_row(row, beside.draw(row, count - 1, rng), rng)


def answer_row(
    row: ReadingRow, others: Sequence[ReadingRow], rng: random.Random, *, shipped: str | None = None
) -> WritingRow:
    """Build one prompt and its reply.

    Args:
        row: Question and passage; the first of its answers is the reply.
        others: Rows whose passages are shown as well; they do not contain the answer.
        rng: Decides order, form and wording.
        shipped: The shipped prompt to use, ``answer-short`` or ``answer-sentence``; None for a random one.
    """
    # An answer that is only known to lie within a sentence cannot be given in a few words.
    short = (row.exact and rng.random() < SHORT) if shipped is None else shipped == "answer-short"
    worded = shipped is not None or rng.random() < wordings.SHIPPED
    cited = worded or rng.random() < CITED
    away = shipped is None and row.answers and others and rng.random() < TAKEN_AWAY
    answered = bool(row.answers) and not away
    room = ROOM[min(len(others) + (not away), max(ROOM))]
    shown = [] if away else [row]
    shown = [*shown, *others]
    rng.shuffle(shown)
    place = {} if shipped is not None or rng.random() > BARE else {"place": ""}
    texts, entries, reply, number = [], [], "", 0
    prompt = find_prompt("answer-short" if short else "answer-sentence")
    for at, shown_row in enumerate(shown, 1):
        text, moved = _around(shown_row, room, rng)
        if shown_row is row and answered:
            start, end = row.answers[0][0] - moved, row.answers[0][1] - moved
            number = at
            reply = text[start:end] if short and row.exact else _sentence_at(text, start, end)
        texts.append(text)
        values = {"number": str(at), "place": " › ".join(shown_row.place), "text": text} | place
        entries.append(prompt.fragment("passage", values))
    usual = shipped is not None or (worded and rng.random() < wordings.USUAL)
    refusal = wordings.REFUSALS[0] if usual else rng.choice(wordings.REFUSALS)
    passages = "\n".join(entries)
    if worded:
        messages = wordings.shipped_texts(prompt.name, question=row.question, passages=passages, refusal=refusal)
    else:
        messages = wordings.answer_texts(
            rng, short=short, cited=cited, question=row.question, passages=passages, refusal=refusal
        )
    if not answered:
        return WritingRow("refusal", messages, refusal, tuple(texts))
    reply = _SPACE.sub(" ", reply).strip()
    return WritingRow(
        "short" if short else "sentence", messages, f"{reply} [{number}]" if cited else reply, tuple(texts)
    )


def question_rows(pairs: Sequence[SentencePair], rows: Sequence[ReadingRow], seed: int) -> Iterator[WritingRow]:
    """Yield prompts that ask for a question about a sentence, or about a passage with a given answer."""
    rng = random.Random(f"{seed} questions")
    for pair in pairs:
        yield pair_row(pair, rng, shipped=rng.random() < wordings.SHIPPED)
    for row in rows:
        if row.answers and row.exact:
            text, moved = _around(row, ROOM[2], rng)
            start, end = row.answers[0]
            answer = text[start - moved : end - moved]
            system = f"{rng.choice(wordings.ASK)} {rng.choice(wordings.ASK_FOR).format(answer=answer)}"
            yield WritingRow("question", (system, text), row.question)


def pair_row(pair: SentencePair, rng: random.Random, *, shipped: bool) -> WritingRow:
    """Return the prompt that asks for a question about a sentence."""
    if shipped:
        texts = wordings.shipped_texts("write-question", text=pair.sentence)
    else:
        texts = (rng.choice(wordings.ASK), pair.sentence)
    return WritingRow("question", texts, pair.question)


def prose_rows(documents: Iterator[Prose], seed: int) -> Iterator[WritingRow]:
    """Yield excerpts of documents and their continuations, which teach fluent writing."""
    rng = random.Random(f"{seed} going on")
    for document in documents:
        at = 0
        while at + SHOWN[1] + GOES_ON < len(document.text) and at < 6000:
            shown = rng.randint(*SHOWN)
            middle = _word_end(document.text, at + shown)
            end = _word_end(document.text, middle + GOES_ON)
            text = document.text[at:middle].strip()
            yield WritingRow("prose", (wordings.GO_ON, text), _SPACE.sub(" ", document.text[middle:end]).strip())
            at = end


class Beside:
    """Distractor passages, from the same section where there are any."""

    def __init__(self, rows: Sequence[ReadingRow]) -> None:
        self._all = list({row.passage: row for row in rows}.values())
        self._by_place: dict[tuple[str, ...], list[ReadingRow]] = {}
        for row in self._all:
            self._by_place.setdefault(row.place, []).append(row)

    def draw(self, row: ReadingRow, wanted: int, rng: random.Random) -> list[ReadingRow]:
        """Draw at most ``wanted`` rows whose passages do not contain the answer."""
        near = self._by_place.get(row.place, [])
        answers = [row.passage[start:end].casefold() for start, end in row.answers]
        found: dict[str, ReadingRow] = {}
        for _ in range(wanted * 4):
            other = rng.choice(near if len(near) > 1 else self._all)
            has_answer = any(answer in other.passage.casefold() for answer in answers)
            if other.passage != row.passage and not has_answer and len(found) < wanted:
                found[other.passage] = other
        return list(found.values())


def _around(row: ReadingRow, room: int, rng: random.Random) -> tuple[str, int]:
    """Return an excerpt of whole sentences that contains the first answer, and its offset."""
    if len(row.passage) <= room:
        return row.passage, 0
    sentences = split_sentences(row.passage)
    start, end = row.answers[0] if row.answers else (0, 0)
    if not row.answers:
        start = end = rng.choice(sentences).start
    inside = [at for at, s in enumerate(sentences) if s.start < max(end, start + 1) and s.end > start]
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
        first, last = rng.choice(grown)
    begin = min(sentences[first].start, start)
    stop = max(sentences[last].end, end)
    return row.passage[begin:stop], begin


def _sentence_at(text: str, start: int, end: int) -> str:
    """Return the sentences that overlap a span, at most two."""
    found: list[Sentence] = [s for s in split_sentences(text) if s.start < end and s.end > start]
    return text[min(found[0].start, start) : max(found[:2][-1].end, end)] if found else text[start:end]


def _word_end(text: str, at: int) -> int:
    found = text.find(" ", at)
    return found if found >= 0 else len(text)
