"""The passages of the retrieval bench as HTML. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rag.evaluation.cases import source_name
from rag.types import Hit
from ui.pages.chat.answer_html import passage_url
from ui.pages.safe_markup import plain

ASK = '<div class="rs-pick">Ask something to see which passages are found, and why.</div>'


def hits_html(hits: Sequence[Hit], relevant: Collection[int], seconds: float) -> str:
    """What was found, best first.

    Args:
        relevant: Numbers of the passages that a person marked.
        seconds: How long the search took.
    """
    if not hits:
        return '<div class="rs-none">Nothing is found for this.</div>'
    cards = "".join(_card(number, hit, hit.passage.id in relevant) for number, hit in enumerate(hits, 1))
    marked = sum(hit.passage.id in relevant for hit in hits)
    return (
        f'<div class="rs-count">{len(hits)} passages in {seconds * 1000:.0f} ms, {marked} marked as relevant</div>'
        f'<div class="rs-hits">{cards}</div>'
    )


def _card(number: int, hit: Hit, marked: bool) -> str:
    passage = hit.passage
    headings = " › ".join(passage.headings)
    scores = (
        ("dense", hit.dense_rank, hit.dense_score),
        ("lexical", hit.lexical_rank, hit.lexical_score),
        ("rerank", None, hit.rerank_score),
    )
    told = "".join(
        f"<span><i>{name}</i> {f'rank {rank}, ' if rank else ''}{score:.3f}</span>"
        for name, rank, score in scores
        if score is not None
    )
    return (
        f'<div class="rs-hit{" is-on" if marked else ""}"><div class="rs-hit-head">'
        f'<span class="rs-num">{number}</span>'
        f'<span class="rs-name">{plain(source_name(passage.name, passage.page))}</span>'
        f'<span class="rs-score">{hit.score:.4f}</span>'
        f'<button type="button" data-do="mark-hit" data-value="{passage.id}" aria-pressed="{str(marked).lower()}">'
        f"{'✓ relevant' if marked else 'relevant?'}</button></div>"
        f'<div class="rs-facts">{f"<span>{plain(headings)}</span>" if headings else ""}{told}'
        f'<a class="rs-open" href="{plain(passage_url(passage))}">open</a></div>'
        f'<div class="rs-passage">{plain(passage.text)}</div></div>'
    )
