"""The order of spans that arrived in any order, as a tree without cycles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rag.tracing.trace_types import Span


def arranged(spans: Mapping[str, Span]) -> list[Span]:
    """Return spans by id in the order of their start, with new positions; the root is the first of all.

    The root is the first span without a parent, or the first whose parent is not there. Where spans are parents of
    each other, the first of them loses its parent.
    """
    children: dict[str, list[Span]] = {}
    for span in spans.values():
        children.setdefault(span.parent_id or "", []).append(span)
    tops = [span for span in spans.values() if span.parent_id not in spans]
    depths: dict[str, int] = {}
    cut: set[str] = set()
    _descend(tops, children, depths)
    for span in sorted(spans.values(), key=_start):
        if span.id not in depths:
            cut.add(span.id)
            _descend([span], children, depths)
    free = [replace(span, parent_id=None) if span.id in cut else span for span in spans.values()]
    root = min(
        (span for span in free if not depths[span.id]), key=lambda span: (span.parent_id is not None, _start(span))
    )
    ordered = sorted(free, key=lambda span: (span.id != root.id, span.started, depths[span.id], span.id))
    return [replace(span, position=position) for position, span in enumerate(ordered)]


def _start(span: Span) -> tuple[float, str]:
    return span.started, span.id


def _descend(tops: Sequence[Span], children: Mapping[str, Sequence[Span]], depths: dict[str, int]) -> None:
    """Add the depths of spans, which is 0, and of those below them."""
    waiting = [(span, 0) for span in tops]
    while waiting:
        span, depth = waiting.pop()
        if span.id not in depths:
            depths[span.id] = depth
            waiting += [(child, depth + 1) for child in children.get(span.id, ())]
