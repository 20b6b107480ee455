"""Search results as HTML. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rag.evaluation.cases import source_name
from rag.tracing.figures import format_seconds
from rag.types import Hit, Passage
from ui.pages.chat.answer_html import is_markdown, passage_url
from ui.pages.safe_markup import fragment, passage_html


@dataclass(frozen=True, slots=True)
class FoundPassage:
    """A search result, with its scores as text; ``marked`` where a person marked it as relevant."""

    passage: Passage
    marked: bool
    source: str
    score: str
    scores: tuple[tuple[str, str], ...]
    url: str
    text: Markup


def hits_html(hits: Sequence[Hit], relevant: Collection[int], seconds: float) -> str:
    """Render search results, best first.

    Args:
        relevant: Ids of the passages that a person marked.
        seconds: Duration of the search.
    """
    found = [_found(hit, hit.passage.id in relevant) for hit in hits]
    return fragment("evaluate_hits.html.jinja", hits=found, time=format_seconds(seconds))


def _found(hit: Hit, marked: bool) -> FoundPassage:
    passage = hit.passage
    scores = (
        ("dense", hit.dense_rank, hit.dense_score),
        ("lexical", hit.lexical_rank, hit.lexical_score),
        ("rerank", None, hit.rerank_score),
    )
    known = tuple(
        (name, f"{f'rank {rank}, ' if rank else ''}{score:.3f}")
        for name, rank, score in scores
        if score is not None
    )
    text = passage_html(passage.text, formatted=is_markdown(passage.source))
    source = source_name(passage.name, passage.page)
    return FoundPassage(passage, marked, source, f"{hit.score:.4f}", known, passage_url(passage), text)
