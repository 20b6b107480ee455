"""The sentences of an answer as they were checked, for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rag.types import Answer


def claims_of(answer: Answer) -> list[dict[str, Any]]:
    """Each sentence with its place in the answer's text, the passages that it cites, and its support.

    ``supported`` says whether the support is enough for the release; ``start`` and ``end`` are None in an answer
    that is JSON.
    """
    return [asdict(claim) | {"markers": list(claim.markers)} for claim in answer.claims]
