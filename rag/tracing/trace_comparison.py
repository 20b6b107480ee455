"""Two traces side by side: which steps differ, and how the prompt, the passages and the answer do.

Ids, times, costs and token counts are no differences of a step: the same step never takes the same time twice.
They are compared for the whole trace.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

from prompts.diff import Piece, words
from rag.redaction import JSON
from rag.tracing.trace_store import Span, Trace

Verdict = Literal["equal", "changed", "left", "right"]
"""Of a step: in both traces, or only in one of them."""
Move = Literal["gained", "lost", "moved", "kept"]

LONGEST = 12_000
"""Characters of texts that are compared by words; longer ones are compared by lines."""

_VOLATILE = frozenset({
    "id", "trace_id", "conversation_id", "latency_s", "cost_usd", "usage", "usage_metadata", "response_metadata",
    "purpose", "user", "replay_of", "paced", "limited_s",
})  # fmt: skip
_SETTINGS = ("prompt", "model", "corpus", "release", "prices", "code")
_DIGITS = 6
_LABELS = {
    "latency_s": "time",
    "first_token_s": "first token",
    "cost_usd": "cost",
    "input_tokens": "tokens read",
    "output_tokens": "tokens written",
}


@dataclass(frozen=True, slots=True)
class StepPair:
    """A step of both traces, or of one.

    Attributes:
        depth: Levels below the trace, from 1.
        changes: What differs: ``input``, ``output``, ``attributes``, ``status`` or ``error``.
    """

    name: str
    depth: int
    verdict: Verdict
    left: Span | None
    right: Span | None
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TextChange:
    """A text that differs, word by word."""

    where: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class PassageMove:
    """A passage, with its ranks from 1 in either trace; None where it was not found."""

    id: int
    name: str
    left: int | None
    right: int | None

    @property
    def move(self) -> Move:
        """What became of it from left to right."""
        if self.left is None:
            return "gained"
        if self.right is None:
            return "lost"
        return "kept" if self.left == self.right else "moved"


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting that differs."""

    name: str
    left: str
    right: str


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure of both traces; None means unknown."""

    name: str
    left: float | None
    right: float | None

    @property
    def label(self) -> str:
        """The name for display."""
        return _LABELS[self.name]

    @property
    def difference(self) -> float | None:
        """Right minus left; None if either is unknown."""
        return None if self.left is None or self.right is None else self.right - self.left


@dataclass(frozen=True, slots=True)
class TraceComparison:
    """Two traces side by side.

    Attributes:
        steps: In order of the chain, without the root, which is the trace itself.
        passages: Those that either search found, best first.
    """

    left: Trace
    right: Trace
    steps: tuple[StepPair, ...]
    texts: tuple[TextChange, ...]
    passages: tuple[PassageMove, ...]
    settings: tuple[Setting, ...]
    measures: tuple[Measure, ...]

    @property
    def changed(self) -> tuple[StepPair, ...]:
        """The steps that are not equal."""
        return tuple(step for step in self.steps if step.verdict != "equal")


def compare_traces(left: Trace, right: Trace) -> TraceComparison:
    """Compare two traces."""
    return TraceComparison(
        left,
        right,
        tuple(_steps(left, right)),
        tuple(_texts(left, right)),
        tuple(_passages(left, right)),
        tuple(_settings(left, right)),
        (
            Measure("latency_s", left.latency_s, right.latency_s),
            Measure("first_token_s", left.first_token_s, right.first_token_s),
            Measure("cost_usd", left.cost_usd, right.cost_usd),
            Measure("input_tokens", left.input_tokens, right.input_tokens),
            Measure("output_tokens", left.output_tokens, right.output_tokens),
        ),
    )


def comparable(value: JSON) -> JSON:
    """Return a stored value without what differs in every trace, and with rounded numbers."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else value
    if isinstance(value, dict):
        return {name: comparable(item) for name, item in value.items() if not _is_volatile(name, item)}
    if isinstance(value, list):
        return [comparable(item) for item in value]
    return value


def _is_volatile(name: str, value: JSON) -> bool:
    # The number of a passage names what was found; other ids are new in every trace.
    return name in _VOLATILE and not (name == "id" and isinstance(value, int))


def _steps(left: Trace, right: Trace) -> Iterator[StepPair]:
    one, other = list(_walk(left)), list(_walk(right))
    before, after = [key for key, _, _ in one], [key for key, _, _ in other]
    for kind, first, last, begin, end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            for (_, depth, span), (_, _, twin) in zip(one[first:last], other[begin:end], strict=True):
                yield _pair(depth, span, twin)
            continue
        for _, depth, span in one[first:last]:
            yield StepPair(span.name, depth, "left", span, None)
        for _, depth, span in other[begin:end]:
            yield StepPair(span.name, depth, "right", None, span)


def _walk(trace: Trace) -> Iterator[tuple[str, int, Span]]:
    """Yield the steps below the root in order of the chain, with path and depth."""
    known = {span.id for span in trace.spans}
    children: dict[str | None, list[Span]] = {}
    for span in trace.spans:
        children.setdefault(span.parent_id if span.parent_id in known else None, []).append(span)
    waiting = [("", 0, span) for span in reversed(children.get(None, []))]
    visited: set[str] = set()
    while waiting:
        path, depth, span = waiting.pop()
        if span.id in visited:
            continue
        visited.add(span.id)
        here = f"{path}/{span.name}"
        # A model has the name of its class, and another model has its place.
        here = f"{path}/{span.kind}" if span.kind == "llm" else here
        if span.parent_id is not None:
            yield here, depth, span
        waiting += [(here, depth + 1, child) for child in reversed(children.get(span.id, []))]


def _pair(depth: int, left: Span, right: Span) -> StepPair:
    pairs: Mapping[str, tuple[Any, Any]] = {
        "input": (comparable(left.input), comparable(right.input)),
        "output": (comparable(left.output), comparable(right.output)),
        "attributes": (comparable(dict(left.attributes)), comparable(dict(right.attributes))),
        "status": (left.status, right.status),
        "error": (left.error, right.error),
    }
    changes = tuple(name for name, (one, other) in pairs.items() if one != other)
    return StepPair(left.name, depth, "changed" if changes else "equal", left, right, changes)


def _texts(left: Trace, right: Trace) -> Iterator[TextChange]:
    pairs: dict[str, tuple[str, str]] = {"question": (left.question, right.question)}
    before, after = _messages(left), _messages(right)
    for name in [*before, *(name for name in after if name not in before)]:
        pairs[f"prompt: {name}"] = (before.get(name, ""), after.get(name, ""))
    pairs["answer"] = (left.answer, right.answer)
    for where, (one, other) in pairs.items():
        if one != other:
            yield TextChange(where, text_pieces(one, other))


def text_pieces(one: str, other: str) -> tuple[Piece, ...]:
    """Compare two texts by words, or by lines if they are long."""
    if len(one) + len(other) <= LONGEST:
        return words(one, other)
    before, after = one.splitlines(keepends=True), other.splitlines(keepends=True)
    pieces: list[Piece] = []
    for kind, first, last, begin, end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            pieces.append(Piece("same", "".join(before[first:last])))
            continue
        pieces += [Piece("removed", "".join(before[first:last])), Piece("added", "".join(after[begin:end]))]
    return tuple(piece for piece in pieces if piece.text)


def _messages(trace: Trace) -> dict[str, str]:
    """Return the messages of the prompt by number and role."""
    found: dict[str, str] = {}
    for number, one in enumerate(_items(_output(trace, "prompt"), "messages"), 1):
        if isinstance(one, dict):
            found[f"{number} {one.get('role', '')}".strip()] = str(one.get("content", ""))
    return found


def _passages(left: Trace, right: Trace) -> Iterator[PassageMove]:
    before, after = _ranks(left), _ranks(right)
    known = before | after
    for number in sorted(known, key=lambda each: min(_rank(before, each), _rank(after, each))):
        ranks = [ranks[number][0] if number in ranks else None for ranks in (before, after)]
        yield PassageMove(number, known[number][1], *ranks)


def _rank(ranks: Mapping[int, tuple[int, str]], number: int) -> float:
    return ranks[number][0] if number in ranks else math.inf


def _ranks(trace: Trace) -> dict[int, tuple[int, str]]:
    """Return rank and name of the passages that a trace found, else of those in its prompt, by id."""
    hits = _items(_output(trace, "retrieve"), "hits") or _items(_output(trace, "prompt"), "hits")
    found: dict[int, tuple[int, str]] = {}
    for rank, hit in enumerate(hits, 1):
        match hit:
            case {"passage": {"id": int(number), **rest}}:
                page = rest.get("page")
                name = str(rest.get("name") or rest.get("title") or number)
                found.setdefault(number, (rank, name if page is None else f"{name} p. {page}"))
    return found


def _settings(left: Trace, right: Trace) -> Iterator[Setting]:
    before, after = _all_settings(left), _all_settings(right)
    for name in [*before, *(name for name in after if name not in before)]:
        one, other = before.get(name, ""), after.get(name, "")
        if one != other:
            yield Setting(name, one, other)


def _all_settings(trace: Trace) -> dict[str, str]:
    found = {name: str(getattr(trace, name)) for name in _SETTINGS}
    for span in trace.spans:
        if span.kind == "llm":
            for name, value in span.attributes.items():
                if isinstance(value, str | int | float) and not isinstance(value, bool):
                    found.setdefault(name.replace("_", " "), str(value))
    return found


def _output(trace: Trace, name: str) -> JSON:
    return next((span.output for span in trace.spans if span.name == name), None)


def _items(value: JSON, name: str) -> Sequence[JSON]:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, list) else ()
