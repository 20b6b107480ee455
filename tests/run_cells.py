"""Cases, and what variants answered to them, for tests of what is made of a run."""

from __future__ import annotations

from typing import Any

from rag.evaluation.cases import Case
from rag.evaluation.run_store import Cell, Score


def case(number: int, **changes: Any) -> Case:
    return Case(**{"id": f"c{number}", "question": f"Question {number}?", "answers": ("yes",)} | changes)


def cell(variant: int, position: int, right: float = 1.0, **changes: Any) -> Cell:
    known: dict[str, Any] = {
        "status": "answered",
        "answer": "yes" if right else "no",
        "scores": {"contains": Score(right), "f1": Score(right), "exact": Score(right)},
        "latency_s": 0.5 + variant,
        "trace_id": f"trace-{variant}-{position}",
    }
    return Cell(variant, position, **known | changes)


def failed(variant: int, position: int) -> Cell:
    return Cell(
        variant, position, "failed", error="no connection", scores={"contains": Score(0.0), "failed": Score(1.0)}
    )
