"""Masking of secrets and personal data in whole traces.

Secrets are recognised by their form or by the word before them, and so are some phone numbers. Models may repeat
such a value without that word, so what was recognised once is masked everywhere in the trace.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from rag.masking import Masker
from rag.redaction import JSON, secrets_in, without_secrets
from rag.tracing.span_json import is_truncated, shortened
from rag.tracing.trace_types import Span, Trace

# Maximum characters of a value: those of an e-mail address.
_LONGEST_VALUE = 320


class TraceMasker:
    """Masks the personal data of one trace, conversation turn or evaluated answer, in its parts as they come.

    A value that was recognised in one part is also masked in the parts after it.

    Args:
        masker: What to mask.
    """

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._known: dict[str, str] = {}

    def trace(self, trace: Trace) -> Trace:
        """Mask the texts of a trace and of its spans."""
        if not self._masker:
            return trace
        for span in trace.spans:
            self._learn(span.input, span.output, span.error)
        self._learn(trace.question, trace.answer, trace.error, trace.user_name)
        return replace(
            trace,
            question=self._text(trace.question),
            answer=self._text(trace.answer),
            error=self._text(trace.error),
            user_name=self._text(trace.user_name),
            spans=tuple(map(self._span, trace.spans)),
        )

    def span(self, span: Span) -> Span:
        """Mask the texts of a span."""
        if not self._masker:
            return span
        self._learn(span.input, span.output, span.error)
        return self._span(span)

    def _span(self, span: Span) -> Span:
        return replace(
            span,
            input=self._json(span.input),
            output=self._json(span.output),
            error=self._text(span.error),
            attributes={name: self._json(value) for name, value in span.attributes.items()},
        )

    def text(self, text: str) -> str:
        """Mask a text."""
        self._learn(text)
        return self._text(text)

    def json(self, value: JSON) -> JSON:
        """Mask all strings of a JSON value.

        Offsets into an answer or a passage whose text has changed are dropped, so that nothing wrong is marked.
        """
        self._learn(value)
        return self._json(value)

    def _learn(self, *parts: JSON) -> None:
        self._known |= self._masker.values(*parts)

    def _text(self, text: str) -> str:
        masked = self._masker.text(text, self._known)
        # A value that was truncated is not recognised.
        return shortened(masked, _LONGEST_VALUE) if self._masker and is_truncated(text) else masked

    def _json(self, value: JSON) -> JSON:
        if not self._masker:
            return value
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list):
            return [self._json(item) for item in value]
        if isinstance(value, dict):
            return _without_offsets({self._text(name): self._json(item) for name, item in value.items()}, value)
        return value


def _without_offsets(masked: dict[str, JSON], before: dict[str, JSON]) -> dict[str, JSON]:
    """Drop the offsets of an ``Answer`` or a ``Citation`` as JSON if the text that they refer to was masked."""
    claims = masked.get("claims")
    if isinstance(claims, list) and "spans" in masked and masked.get("text") != before.get("text"):
        unplaced: list[JSON] = [c | {"start": None, "end": None} if isinstance(c, dict) else c for c in claims]
        return masked | {"spans": [], "claims": unplaced}
    if "hit" in masked and "start" in masked and _passage_text(masked["hit"]) != _passage_text(before.get("hit")):
        return masked | {"start": None, "end": None}
    return masked


def _passage_text(hit: JSON) -> JSON:
    passage = hit.get("passage") if isinstance(hit, dict) else None
    return passage.get("text") if isinstance(passage, dict) else None


def secrets_of(typed: Iterable[str]) -> frozenset[str]:
    """Return the secrets in the typed texts, which are the question and the turns before it."""
    return frozenset().union(*map(secrets_in, typed))


def masked(trace: Trace, secrets: frozenset[str]) -> Trace:
    """Mask secrets in a trace and its spans."""
    if not secrets:
        return trace
    return replace(
        trace,
        question=_text(trace.question, secrets),
        answer=_text(trace.answer, secrets),
        error=_text(trace.error, secrets),
        spans=tuple(masked_span(span, secrets) for span in trace.spans),
    )


def masked_span(span: Span, secrets: frozenset[str]) -> Span:
    """Mask secrets in a span."""
    if not secrets:
        return span
    return replace(
        span,
        input=without_secrets(span.input, secrets),
        output=without_secrets(span.output, secrets),
        error=_text(span.error, secrets),
    )


def _text(value: str, secrets: frozenset[str]) -> str:
    return str(without_secrets(value, secrets))
