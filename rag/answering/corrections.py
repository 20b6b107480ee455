"""A person's correction of an answer, beside the passages and sentences that the model was given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from rag.answering.claim_repair import CitedSentence, Written, cited_sentences, faults_in
from rag.answering.claim_text import Stemmer, folded
from rag.documents.citation_markers import SPACED
from rag.models.extractive.evidence_lines import MARK, EvidenceLine
from rag.tracing.trace_types import Trace
from rag.types import Hit, Replaced

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class AnswerSources:
    """What an answer was written from.

    Attributes:
        question: The standalone question.
        hits: The passages of the prompt, in order of their markers.
        lines: The sentences that the model wrote from; empty if it read the passages.
    """

    question: str
    hits: tuple[Hit, ...]
    lines: tuple[EvidenceLine, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The distinct titles of the passages, in order."""
        return tuple(dict.fromkeys(hit.passage.title for hit in self.hits))

    def faults_of(self, correction: str) -> tuple[Replaced, ...]:
        """Return the sentences of a correction that the chain would not let pass, since its sources lack them.

        A model that learns such sentences learns to invent.
        """
        return (
            faults_in(Written(self.cited(correction), self.hits, self.question, self.lines)) if self.hits else ()
        )

    def cited(self, correction: str) -> str:
        """Return a correction in which every sentence has the marker of a passage.

        Markers of passages that the model was not shown are removed. A sentence without one gets the marker of the
        passage that shares most words with it; one that shares none gets that of the sentence before.
        """
        shown = self._texts()
        if not shown:
            return correction.strip()
        text = SPACED.sub(lambda found: _known(found, shown), correction.strip())
        pieces: list[str] = []
        at, before = 0, next(iter(shown))
        for sentence in cited_sentences(text, len(self.hits)):
            number = sentence.markers[-1] if sentence.markers else _nearest(sentence, shown, before)
            pieces.append(text[at : sentence.end])
            if not sentence.markers:
                pieces.append(f" [{number}]")
            at, before = sentence.end, number
        return "".join((*pieces, text[at:])).strip()

    def _texts(self) -> dict[int, str]:
        """Return what the model was shown, by marker; a passage counts with its title."""
        given: Iterable[tuple[int, str]] = [(line.number, line.text.replace(MARK, "")) for line in self.lines]
        if not self.lines:
            given = ((number, hit.passage.text) for number, hit in enumerate(self.hits, 1))
        shown: dict[int, str] = {}
        for number, text in given:
            if 1 <= number <= len(self.hits):
                shown[number] = f"{shown.get(number, self.hits[number - 1].passage.title)}\n{text}"
        return shown


def sources_of(trace: Trace) -> AnswerSources:
    """Return what the answer of a trace was written from, as far as the trace has it."""
    outputs = {span.name: span.output for span in trace.spans if isinstance(span.output, dict)}
    prompt, read, condensed = (outputs.get(name, {}) for name in ("prompt", "read", "condense"))
    question = condensed.get("standalone")
    try:
        hits = _hits_schema().validate_python(prompt.get("hits") or ())
        lines = _lines_schema().validate_python(read.get("lines") or ())
    except ValidationError:
        # A trace of an older version, or one with truncated texts.
        hits, lines = (), ()
    return AnswerSources(question if isinstance(question, str) else trace.question, hits, lines)


def _known(found: Any, shown: dict[int, str]) -> str:
    return str(found[0]) if found["code"] or int(found["number"]) in shown else ""


def _nearest(sentence: CitedSentence, shown: dict[int, str], before: int) -> int:
    stemmer = Stemmer()
    words = stemmer.stems(folded(sentence.words))
    shared = {number: len(words & stemmer.stems(folded(text))) for number, text in shown.items()}
    best = max(shared, key=lambda number: (shared[number], number == before))
    return best if shared[best] else before


@cache
def _hits_schema() -> TypeAdapter[tuple[Hit, ...]]:
    from pydantic import TypeAdapter

    return TypeAdapter(tuple[Hit, ...])


@cache
def _lines_schema() -> TypeAdapter[tuple[EvidenceLine, ...]]:
    from pydantic import TypeAdapter

    return TypeAdapter(tuple[EvidenceLine, ...])
