"""Some days of stored traces for tests of the page: mostly quick and good, and one bad answer of yesterday."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

from rag.tracing.trace_store import Span, Trace, TraceStore
from rag.types import Hit, Passage

QUESTIONS = (
    "How long is a passage?",
    "When does ragsmith refuse to answer?",
    "How are the two searches combined?",
    "Which formats can be read?",
)
BAD = "bad-answer-of-yesterday"
TEXT = "A passage aims at about 200 tokens of the encoder. It is never cut through a word."


def yesterday(hour: int) -> float:
    """A time of yesterday, in seconds since the epoch."""
    midnight = datetime.now().replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight - timedelta(days=1) + timedelta(hours=hour)).timestamp()


def hit(number: int, score: float, *, lexical: int | None = None, rerank: float | None = None) -> dict[str, Any]:
    """A stored hit of a search."""
    name = f"passages{number}.md"
    passage = Passage(
        number, 1, f"/docs/{name}", name, "Passages", f"{TEXT} ({number})", 0, 50,
        ("Passages", "Length"),
    )  # fmt: skip
    found = Hit(passage, score, number, 0.9 - number / 20, lexical, lexical and 12.3 / lexical, rerank)
    stored: dict[str, Any] = json.loads(json.dumps(asdict(found)))
    return stored


def chain_spans(trace_id: str, started: float, seconds: float, answer: str) -> tuple[Span, ...]:
    """The steps of an answer, of which writing takes most of the time."""
    hits = [hit(1, 0.031, lexical=1), hit(2, 0.029), hit(3, 0.027, lexical=4)]
    dropped = [{"hit": hit(4, 0.026), "reason": "near-duplicate", "better": 1}]
    question = {"question": QUESTIONS[0]}
    done = {"text": answer, "citations": [{"marker": 1}], "claims": [
        {"support": 0.83, "markers": [1], "start": 0, "end": len(answer), "supported": True}
    ]}  # fmt: skip
    message = f"Answer from these passages.\n\n[1] {TEXT}\n\n{QUESTIONS[0]}"
    messages = [{"role": "system", "content": "You answer from passages."}, {"role": "human", "content": message}]
    prompted = {
        "prompt_sha256": "3f" * 32,
        "messages": messages,
        "hits": hits[:2],
        "template": [
            {"role": "system", "content": "You answer from passages."},
            {"role": "user", "content": "From these passages:\n\n{{ passages }}\n\n{{ question }}"},
        ],
        "variables": {"question": QUESTIONS[0], "passages": f"[1] {TEXT}"},
    }  # fmt: skip

    def span(name: str, position: int, begin: float, end: float, given: Any, found: Any, **more: Any) -> Span:
        parent = more.pop("parent", "answer" if position else None)
        return Span(
            f"{trace_id}-{name}"[-36:],
            parent and f"{trace_id}-{parent}"[-36:],
            position,
            name,
            more.pop("kind", "chain"),
            "ok",
            started + begin * seconds,
            started + end * seconds,
            given,
            found,
            **more,
        )

    return (
        span("answer", 0, 0, 1, question, done, cost_usd=0.002),
        span("condense", 1, 0, 0.01, question, {"standalone": QUESTIONS[0]}),
        span("retrieve", 2, 0.01, 0.06, {"standalone": QUESTIONS[0]}, {"hits": hits, "dropped": dropped}),
        span("prompt", 3, 0.06, 0.07, {"standalone": QUESTIONS[0]}, prompted),
        span("generate", 4, 0.07, 0.96, {"messages": messages}, {"text": answer}, cost_usd=0.002),
        span(
            "ChatOpenAI", 5, 0.07, 0.95, {"messages": messages}, {"role": "ai", "content": answer},
            kind="llm", parent="generate", cost_usd=0.002, input_tokens=812, output_tokens=64, cached_tokens=512,
            first_token_s=0.8, attributes={"model_name": "gpt-4o", "temperature": 0.0},
        ),
        span("ground", 6, 0.96, 1, {"reply": answer}, done),
    )  # fmt: skip


def store_days(store: TraceStore) -> None:
    """Store sixty traces of the last three days, and the bad answer."""
    for number in range(60):
        started = yesterday(10) - 86_400 + number * 2_400
        seconds = 0.4 + number % 7 / 10
        trace_id = f"trace-{number:04d}"
        status = "error" if number % 17 == 5 else "abstained" if number % 13 == 4 else "ok"
        answer = "" if status == "error" else "About 200 tokens of the encoder [1]."
        store.save(
            Trace(
                trace_id,
                started,
                status,
                QUESTIONS[number % len(QUESTIONS)],
                answer,
                "ModelTimeout: The model server did not answer within 60 seconds." if status == "error" else "",
                seconds,
                700 + number,
                60,
                0.0004 + number % 5 / 10_000,
                "handbook",
                "openai:gpt-4o",
                "answer@1",
                "a1b2c3",
                f"conversation-{number // 3}",
                purpose="evaluation" if number % 10 == 9 else "chat",
                first_token_s=0.3,
                spans=chain_spans(trace_id, started, seconds, answer) if number % 4 == 0 else (),
            )
        )
        if number % 6 == 0:
            store.rate(trace_id, "up" if number % 12 else "down", "" if number % 12 else "wrong number")
    answer = "About 300 tokens of the encoder [1]."
    began = yesterday(16)
    bad = Trace(
        BAD, began, "ok", QUESTIONS[0], answer, "", 9.4, 812, 64, 0.002, "handbook", "openai:gpt-4o", "answer@2",
        "d4e5f6", "conversation-bad", user_name="bo", first_token_s=8.1, cached_tokens=512,
        spans=chain_spans(BAD, began, 9.4, answer),
    )  # fmt: skip
    store.save(bad)
    store.rate(BAD, "down", "It says 300, the handbook says 200.")
    store.save(replace(bad, id="follow-up-of-yesterday", started=began + 60, question="Are you sure?", spans=()))
