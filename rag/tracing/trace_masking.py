"""Masking of secrets from a question in its whole trace.

Secrets are recognised by their form or by the word before them. Models may repeat a password without that word, so
a secret that was recognised once is masked everywhere in the trace.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from rag.redaction import secrets_in, without_secrets
from rag.tracing.trace_store import Span, Trace


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
