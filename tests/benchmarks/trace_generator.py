"""Realistic traces by the hundred thousand: the steps, sizes and repetitions of answers from documents."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from typing import Any

from sqlalchemy import Connection, Engine, insert

from rag.database import writing
from rag.redaction import JSON
from rag.trace_tables import feedback
from rag.tracing.processes import process_identity
from rag.tracing.trace_rows import Ended, write_changes
from rag.tracing.trace_types import Span, Status, Trace, UsedPassage
from rag.types import Purpose

# The time of the newest trace.
END = 1_790_000_000.0
DAYS = 90
BATCH = 500
PASSAGES = 4_000
K = 5
RELEASES = 30
# A release is a bundle, so it has one prompt version and one model.
MODELS = ("extractive", "smollm2", "openai:gpt-4o")
PROMPTS = 9

_LETTERS = "eeeeeeeeeeeetttttttttaaaaaaaaooooooooiiiiiiinnnnnnnsssssshhhhhhrrrrrrddddllllccuummwwffggyyppbbvk"
_STATUSES: tuple[tuple[Status, float], ...] = (
    ("ok", 0.86),
    ("abstained", 0.09),
    ("error", 0.02),
    ("cancelled", 0.02),
    ("interrupted", 0.005),
    ("filtered", 0.005),
)
_PURPOSES: tuple[tuple[Purpose, float], ...] = (
    ("chat", 0.5),
    ("api", 0.2),
    ("evaluation", 0.25),
    ("lab", 0.03),
    ("command", 0.02),
)


class TraceGenerator:
    """Makes traces one after the other, oldest first; equal seeds make equal traces.

    Args:
        count: How many there will be, over 90 days.
        seed: Of everything random.
    """

    def __init__(self, count: int, seed: int = 0) -> None:
        self._rng = random.Random(seed)
        self._count = count
        self._words = ["".join(self._rng.choices(_LETTERS, k=self._rng.randint(2, 9))) for _ in range(12_000)]
        # The frequencies of words and passages fall with their rank, as in any language.
        self._weights = list(accumulate(1 / (rank + 5) for rank in range(len(self._words))))
        self._passages = [self._passage(number) for number in range(PASSAGES)]
        self._popular = list(accumulate(1 / (rank + 20) for rank in range(PASSAGES)))

    def __iter__(self) -> Iterator[Trace]:
        """Yield the traces."""
        for number in range(self._count):
            yield self._trace(END - DAYS * 86_400 * (1 - number / self._count))

    def _text(self, words: int) -> str:
        return " ".join(self._rng.choices(self._words, cum_weights=self._weights, k=words))

    def _passage(self, number: int) -> dict[str, JSON]:
        text, name = self._text(150), f"page-{number % 400}.md"
        return {
            "id": number + 1,
            "document_id": number % 400,
            "source": f"/docs/{name}",
            "name": name,
            "title": text[:30],
            "text": text,
            "start": 1_000,
            "end": 1_000 + len(text),
            "headings": [text[40:60], text[70:85]],
            "page": None,
            "metadata": {},
        }

    def _trace(self, started: float) -> Trace:
        rng = self._rng
        trace_id = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        (status,) = rng.choices([name for name, _ in _STATUSES], [share for _, share in _STATUSES])
        (purpose,) = rng.choices([name for name, _ in _PURPOSES], [share for _, share in _PURPOSES])
        release = self._release(started, purpose)
        question, answer = self._text(rng.randint(5, 16)) + "?", self._text(rng.randint(15, 70)) + ". [1]"
        chosen = rng.choices(self._passages, cum_weights=self._popular, k=K)
        hits: list[Any] = [
            {"passage": passage, "score": rng.random(), "dense_rank": rank, "dense_score": rng.random()}
            for rank, passage in enumerate(chosen, 1)
        ]
        seconds = rng.lognormvariate(0.3, 0.8)
        spans = tuple(self._spans(trace_id, started, seconds, question, answer, hits))
        used = {hit["passage"]["id"]: rank for rank, hit in enumerate(hits, 1)}
        cost = seconds * 1e-5 if rng.random() < 0.6 else rng.lognormvariate(-6, 1)
        return Trace(
            id=trace_id,
            started=started,
            status=status,
            question=question,
            answer=answer if status == "ok" else "",
            error="ModelUnavailable: The server does not answer." if status == "error" else "",
            latency_s=seconds,
            input_tokens=rng.randint(600, 2_400),
            output_tokens=rng.randint(10, 300),
            cost_usd=cost,
            corpus=rng.choice(("handbook", "contracts", "support")),
            model=MODELS[release % len(MODELS)],
            prompt=f"answer@{release % PROMPTS + 1}",
            release=f"r{release:011d}",
            conversation_id=str(uuid.UUID(int=rng.getrandbits(40), version=4)),
            process=process_identity(),
            purpose=purpose,
            user_name=rng.choice(("ann", "ben", "cleo", "")),
            first_token_s=seconds * 0.6,
            prices="2026-01-01",
            code="0.1.0",
            tracked="run",
            spans=spans if status != "interrupted" else spans[1:4],
            passages=tuple(UsedPassage(number, rank, rank == 1) for number, rank in used.items()),
        )

    def _release(self, started: float, purpose: Purpose) -> int:
        """Return the release that answers people at a time, or one of the next that is tried before its turn."""
        current = int(RELEASES * (1 - (END - started) / (DAYS * 86_400)))
        return current + self._rng.randint(0, 3) if purpose in ("evaluation", "lab") else current

    def _spans(
        self, trace_id: str, started: float, seconds: float, question: str, answer: str, hits: list[Any]
    ) -> Iterator[Span]:
        prompt = "\n\n".join([*(f"[{n}] {hit['passage']['text']}" for n, hit in enumerate(hits, 1)), question])
        messages: JSON = [
            {"role": "system", "content": self._passages[0]["text"]},
            {"role": "human", "content": prompt},
        ]
        finished: JSON = {"text": answer, "status": "answered", "hits": hits, "standalone": question}
        asked: JSON = {"question": question, "history": [], "corpus": "handbook"}
        filled: JSON = {"messages": messages, "hits": hits, "confidence": 0.8}
        steps: list[tuple[str, str, JSON, JSON]] = [
            ("answer", "chain", asked, finished),
            ("condense", "chain", asked, {"standalone": question}),
            ("retrieve", "chain", {"standalone": question}, {"hits": hits}),
            ("prompt", "chain", {"standalone": question, "hits": hits}, filled),
            ("generate", "chain", {"messages": messages}, {"text": answer}),
            ("ChatOpenAI", "llm", {"messages": messages}, {"role": "ai", "content": answer}),
            ("ground", "chain", {"reply": {"text": answer}, "hits": hits}, finished),
        ]
        for position, (name, kind, given, result) in enumerate(steps):
            begun = started + seconds * position / len(steps)
            span_id = trace_id if not position else str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
            parent = None if not position else trace_id
            yield Span(
                span_id,
                parent,
                position,
                name,
                kind,
                "ok",
                begun,
                begun + seconds / 7,
                given,
                result,
                cost_usd=1e-6,
            )


def fill(engine: Engine, count: int, whole: int = 1) -> None:
    """Store so many traces, and a thumb for every twentieth.

    Args:
        whole: One trace in so many is stored with its steps, to save disk; the ledger has the steps of all.
    """
    left = enumerate(TraceGenerator(count))
    while batch := tuple(islice(left, BATCH)):
        with writing(engine) as connection:
            write_changes(connection, [_ended(trace, number % whole == 0) for number, trace in batch])
            _rate(connection, [trace for _, trace in batch[::20]])


def _ended(trace: Trace, is_whole: bool) -> Ended:
    kept_out = frozenset() if is_whole else frozenset(span.id for span in trace.spans)
    return Ended(trace, kept_out, frozenset())


def _rate(connection: Connection, traces: Sequence[Trace]) -> None:
    rows = [
        {"trace_id": trace.id, "rating": ("up", "down")[n % 2], "comment": "", "at": trace.started}
        for n, trace in enumerate(traces)
    ]
    connection.execute(insert(feedback), rows)
