"""What the page shows of each kind of step, read from its stored input and output. Pure functions.

The stored JSON may be that of an older version, or of another program: what has another form is left out here, and
stays in the raw JSON beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from markupsafe import Markup
from pydantic import TypeAdapter, ValidationError

from rag.redaction import JSON
from rag.tracing.figures import format_seconds
from rag.tracing.trace_store import Span, Trace
from rag.types import Hit
from ui.pages.chat.answer_html import is_markdown, passage_url, source_label
from ui.pages.chat.sources_panel import scores_of
from ui.pages.safe_markup import passage_html

MODELS = ("llm", "chat_model")

_FAULTS = {
    "number": "number not in the sources",
    "name": "name not in the sources",
    "negation": "negation differs from the sources",
    "words": "words not in the sources",
    "echo": "says nothing",
}


@dataclass(frozen=True, slots=True)
class Journey:
    """What became of the passages of a trace, over all its steps.

    Attributes:
        hits: Those in the prompt, in the order of their markers; None without a prompt step that names them.
        cited: Markers that the answer cites.
        searched: Whether a step searched, and shows the passages.
    """

    hits: tuple[Hit, ...] | None = None
    cited: frozenset[int] = frozenset()
    searched: bool = False

    def marker(self, hit: Hit) -> int:
        """Return the number of a passage in the prompt; 0 if it is not in it."""
        ids = [each.passage.id for each in self.hits or ()]
        return ids.index(hit.passage.id) + 1 if hit.passage.id in ids else 0


@dataclass(frozen=True, slots=True)
class Card:
    """A passage of a search.

    Attributes:
        rank: Its place in the result; 0 for a passage that was left out.
        marker: Its number in the prompt; 0 if it is not in it.
        state: What became of it.
        why: What that means.
        before: Its place before the reranker; 0 without one.
    """

    rank: int
    marker: int
    hit: Hit
    href: str
    text: Markup
    state: str
    why: str
    scores: tuple[tuple[str, str], ...]
    before: int = 0

    @property
    def name(self) -> str:
        """The name of the source, with its page."""
        return source_label(self.hit.passage)


@dataclass(frozen=True, slots=True)
class Said:
    """A message of a prompt."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """A sentence of the answer: its support, its markers, and whether that is enough."""

    text: str
    support: float
    markers: tuple[int, ...]
    supported: bool


@dataclass(frozen=True, slots=True)
class Replacement:
    """A sentence that failed the check, its fault, and the quotation in its place."""

    sentence: str
    fault: str
    quotation: str


@dataclass(frozen=True, slots=True)
class StepView:
    """The parts of a step that are made to be read; empty ones are not shown.

    Attributes:
        pairs: Short facts: settings of a model, tokens, a rewritten question.
    """

    pairs: tuple[tuple[str, str], ...] = ()
    cards: tuple[Card, ...] = ()
    dropped: tuple[Card, ...] = ()
    reranked: bool = False
    template: tuple[Said, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    messages: tuple[Said, ...] = ()
    written: str = ""
    thoughts: str = ""
    lines: tuple[tuple[int, str], ...] = ()
    claims: tuple[Claimed, ...] = ()
    replaced: tuple[Replacement, ...] = ()


def journey_of(trace: Trace) -> Journey:
    """Return what became of the passages of a trace."""
    hits: tuple[Hit, ...] | None = None
    cited: set[int] = set()
    for span in trace.spans:
        output = _mapping(span.output)
        if span.name == "prompt" and isinstance(output.get("hits"), list):
            hits = tuple(hits_in(output["hits"]))
        if span.name in ("ground", "answer"):
            found = (_mapping(one).get("marker") for one in _list(output.get("citations")))
            cited |= {marker for marker in found if isinstance(marker, int)}
    searched = any(span.name == "retrieve" for span in trace.spans)
    return Journey(hits, frozenset(cited), searched)


def step_view(span: Span, journey: Journey) -> StepView:
    """Return what there is to read of a step."""
    output = _mapping(span.output)
    match span.name:
        case "condense":
            return StepView(pairs=_named("question", _mapping(span.input)) + _named("standalone", output))
        case "retrieve":
            return _retrieved(output, journey)
        case "read":
            return StepView(pairs=_named("confidence", output), lines=tuple(_lines(output)))
        case "prompt":
            return _prompted(output, journey)
        case "ground":
            return StepView(claims=tuple(_claims(output)), replaced=tuple(_replaced(output)))
        case _ if span.kind in MODELS:
            return _modelled(span)
        case _:
            return StepView()


def hits_in(stored: JSON) -> Iterator[Hit]:
    """Yield the stored hits that have the present form."""
    for one in _list(stored):
        hit = _hit(one)
        if hit is not None:
            yield hit


def _hit(stored: JSON) -> Hit | None:
    try:
        return _hits().validate_python(stored)
    except ValidationError:
        return None


@cache
def _hits() -> TypeAdapter[Hit]:
    return TypeAdapter(Hit)


def _retrieved(output: Mapping[str, JSON], journey: Journey) -> StepView:
    kept = list(hits_in(output.get("hits")))
    left = [(_mapping(one), _hit(_mapping(one).get("hit"))) for one in _list(output.get("dropped"))]
    dropped = [(one, hit) for one, hit in left if hit is not None]
    reranked = any(hit.rerank_score is not None for hit in kept)
    ranked = sorted([*kept, *(hit for _, hit in dropped)], key=lambda hit: -hit.score) if reranked else []
    before = {hit.passage.id: place for place, hit in enumerate(ranked, 1)}
    cards = tuple(_card(rank, hit, journey, before) for rank, hit in enumerate(kept, 1))
    names = {card.hit.passage.id: f"[{card.rank}]" for card in cards}
    return StepView(
        cards=cards,
        dropped=tuple(_left_out(one, hit, names, before) for one, hit in dropped),
        reranked=reranked,
    )


def _card(rank: int, hit: Hit, journey: Journey, before: Mapping[int, int]) -> Card:
    marker = journey.marker(hit)
    if marker in journey.cited:
        state, why = "cited", "The answer cites this passage"
    elif marker:
        state, why = "read", "The passage was in the prompt, but the answer does not cite it"
    elif journey.hits is None:
        state, why = "found", "The search found this passage"
    else:
        state, why = "over budget", "The passage did not fit the token budget of the prompt"
    return _shown(rank, marker, hit, (state, why), before)


def _left_out(one: Mapping[str, JSON], hit: Hit, names: Mapping[int, str], before: Mapping[int, int]) -> Card:
    if one.get("reason") == "near-duplicate":
        better = one.get("better")
        other = names.get(better, "another passage") if isinstance(better, int) else "another passage"
        state, why = f"like {other}", f"Nearly the same words as {other}, which ranks higher"
    else:
        state, why = "outranked", "Enough passages ranked higher"
    return _shown(0, 0, hit, (state, why), before)


def _shown(rank: int, marker: int, hit: Hit, state: tuple[str, str], before: Mapping[int, int]) -> Card:
    passage = hit.passage
    text = passage_html(passage.text, formatted=is_markdown(passage.source))
    place = before.get(passage.id, 0)
    return Card(rank, marker, hit, passage_url(passage), text, *state, scores_of(hit), place)


def _prompted(output: Mapping[str, JSON], journey: Journey) -> StepView:
    variables = _mapping(output.get("variables"))
    given = () if journey.searched else journey.hits or ()
    return StepView(
        cards=tuple(_card(rank, hit, journey, {}) for rank, hit in enumerate(given, 1)),
        pairs=_named("confidence", output),
        template=tuple(_messages(output.get("template"))),
        variables=tuple((name, value) for name, value in variables.items() if isinstance(value, str)),
        messages=tuple(_messages(output.get("messages"))),
    )


def _messages(stored: JSON) -> Iterator[Said]:
    for one in _list(stored):
        match one:
            case {"role": str(role), "content": str(content), **_rest}:
                yield Said({"human": "user", "ai": "assistant"}.get(role, role), content)


def _modelled(span: Span) -> StepView:
    output = _mapping(span.output)
    usage = _mapping(output.get("usage_metadata"))
    thought = _mapping(usage.get("output_token_details")).get("reasoning")
    pairs: list[tuple[str, str]] = [
        (name.replace("_", " "), str(value)) for name, value in span.attributes.items() if _is_plain(value)
    ]
    counts = {
        "tokens read": span.input_tokens,
        "of these cached": span.cached_tokens,
        "tokens written": span.output_tokens,
        "of these reasoning": thought if isinstance(thought, int) else None,
    }
    pairs += [(name, f"{count:,}") for name, count in counts.items() if count is not None]
    if span.first_token_s is not None:
        pairs.append(("first token", format_seconds(span.first_token_s)))
    ending = _mapping(output.get("response_metadata")).get("finish_reason")
    if isinstance(ending, str) and ending:
        pairs.append(("ended by", ending))
    asked = span.input.get("messages") if isinstance(span.input, dict) else span.input
    thoughts = _mapping(output.get("additional_kwargs")).get("reasoning_content")
    written = output.get("content") if isinstance(span.output, dict) else span.output
    return StepView(
        pairs=tuple(pairs),
        messages=tuple(_messages(asked)),
        written=written if isinstance(written, str) else "",
        thoughts=thoughts if isinstance(thoughts, str) else "",
    )


def _lines(output: Mapping[str, JSON]) -> Iterator[tuple[int, str]]:
    for one in _list(output.get("lines")):
        match one:
            case {"number": int(number), "text": str(text), **_rest}:
                yield number, text


def _claims(output: Mapping[str, JSON]) -> Iterator[Claimed]:
    text = output.get("text")
    answer = text if isinstance(text, str) else ""
    for one in _list(output.get("claims")):
        match one:
            case {"support": float() | int() as support, "markers": list(markers), **rest}:
                start, end = rest.get("start"), rest.get("end")
                said = answer[start:end] if isinstance(start, int) and isinstance(end, int) else ""
                numbers = tuple(marker for marker in markers if isinstance(marker, int))
                yield Claimed(said, float(support), numbers, rest.get("supported") is not False)


def _replaced(output: Mapping[str, JSON]) -> Iterator[Replacement]:
    for one in _list(output.get("replaced")):
        match one:
            case {"sentence": str(sentence), "kind": str(kind), "words": list(words), **rest}:
                about = "" if kind == "echo" else f": {', '.join(map(str, words))}"
                yield Replacement(sentence, f"{_FAULTS.get(kind, kind)}{about}", str(rest.get("quotation") or ""))


def _named(name: str, values: Mapping[str, JSON]) -> tuple[tuple[str, str], ...]:
    value = values.get(name)
    if isinstance(value, float):
        return ((name, f"{value:.2f}"),)
    return ((name.replace("_", " "), str(value)),) if _is_plain(value) and value != "" else ()


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float | bool)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
