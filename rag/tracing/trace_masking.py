"""Masking of secrets from a question in its whole trace.

Secrets are recognised by their form or by the word before them. Models may repeat a password without that word, so
a secret that was recognised once is masked everywhere in the trace.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from rag.redaction import secrets_in, without_secrets
from rag.tracing.trace_store import Trace


def masked(trace: Trace, typed: Iterable[str]) -> Trace:
    """Mask the secrets of the typed texts, which are the question and the turns before it."""
    secrets = frozenset().union(*map(secrets_in, typed))
    if not secrets:
        return trace

    def text(value: str) -> str:
        return str(without_secrets(value, secrets))

    spans = tuple(
        replace(
            span,
            input=without_secrets(span.input, secrets),
            output=without_secrets(span.output, secrets),
            error=text(span.error),
        )
        for span in trace.spans
    )
    return replace(
        trace, question=text(trace.question), answer=text(trace.answer), error=text(trace.error), spans=spans
    )
