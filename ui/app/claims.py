"""The checked sentences of an answer as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rag.types import Answer


def claims_of(answer: Answer) -> list[dict[str, Any]]:
    """Return every sentence with its offsets in the answer, its citation markers, and its support.

    ``supported`` says whether the support is enough for the release; ``start`` and ``end`` are None if the answer
    is JSON.
    """
    return [asdict(claim) | {"markers": list(claim.markers)} for claim in answer.claims]
