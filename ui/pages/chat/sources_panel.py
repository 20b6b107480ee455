"""The sources panel as HTML: the passages of an answer, cited ones first. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rag.documents.citation_markers import on_one_line
from rag.types import Answer, Citation, Hit, Passage
from ui.pages.chat.answer_html import citation_url, is_markdown, passage_url, source_label
from ui.pages.safe_markup import fragment, note, passage_html

CITED = ("cited", "The answer cites this passage")
READ = ("read", "The model read this passage, but the answer does not cite it")
FOUND = ("found", "The search found this passage")


@dataclass(frozen=True, slots=True)
class _Source:
    """A passage as the panel shows it.

    Attributes:
        state: What became of the passage, and what that means.
        lost: Whether a cited sentence was not found in the passage.
        scores: Names and values of the scores that ranked it.
    """

    number: int
    passage: Passage
    href: str
    text: Markup
    state: tuple[str, str]
    scores: tuple[tuple[str, str], ...]
    opened: bool = False
    lost: bool = False

    @property
    def name(self) -> str:
        """The name of the source, with its page."""
        return source_label(self.passage)


def sources_html(answer: Answer, min_support: float) -> str:
    """Render the sources of a finished answer.

    Args:
        min_support: Support below which a sentence counts as weakly supported.
    """
    state = READ if answer.status in ("answered", "abstained") else FOUND
    if answer.status == "abstained":
        return _panel("Nearest passages", _hits(answer.hits, state, first_opened=True))
    cited = {citation.marker for citation in answer.citations}
    sources = _hits(answer.hits, state, first_opened=False)
    return _panel(
        "Cited" if answer.citations else "",
        [_cited(citation, answer) for citation in answer.citations],
        rest=[source for source in sources if source.number not in cited],
        weak_support=_weak_support(answer, min_support),
    )


def empty_html() -> str:
    """Render the panel before anything was found."""
    return note("The sources of an answer appear here.", "rs-sources rs-empty")


def draft_sources_html(hits: Sequence[Hit]) -> str:
    """Render the passages of an answer that is being written."""
    return _panel("Retrieved", _hits(hits, FOUND, first_opened=False)) if hits else empty_html()


def _panel(
    head: str, sources: Sequence[_Source], rest: Sequence[_Source] = (), weak_support: float | None = None
) -> str:
    if not head and not rest and weak_support is None:
        return empty_html()
    return fragment("chat_sources.html.jinja", head=head, sources=sources, rest=rest, weak_support=weak_support)


def _weak_support(answer: Answer, min_support: float) -> float | None:
    if answer.status != "answered" or answer.support is None:
        return None
    return answer.support if answer.support < min_support or answer.unsupported_claims else None


def _hits(hits: Sequence[Hit], state: tuple[str, str], *, first_opened: bool) -> list[_Source]:
    return [_hit(number, hit, state, first_opened and number == 1) for number, hit in enumerate(hits, start=1)]


def _hit(number: int, hit: Hit, state: tuple[str, str], opened: bool = False) -> _Source:
    passage = hit.passage
    text = passage_html(passage.text, formatted=is_markdown(passage.source))
    return _Source(number, passage, passage_url(passage), text, state, scores_of(hit), opened=opened)


def _cited(citation: Citation, answer: Answer) -> _Source:
    passage = citation.hit.passage
    spans = _cited_spans(citation, answer)
    return _Source(
        citation.marker,
        passage,
        citation_url(citation),
        passage_html(passage.text, spans, formatted=is_markdown(passage.source)),
        CITED,
        (("support", f"{citation.support:.2f} of 1"), *scores_of(citation.hit)),
        opened=True,
        lost=citation.start is None and not spans,
    )


def _cited_spans(citation: Citation, answer: Answer) -> list[tuple[int, int]]:
    """Return where a passage has the cited sentence, and whatever else the answer quotes of it, in order."""
    passage = citation.hit.passage
    found = [_quoted_in(passage.text, answer.words_of(claim)) for claim in answer.claims_citing(citation.marker)]
    if citation.start is not None and citation.end is not None:
        found.append((max(citation.start - passage.start, 0), citation.end - passage.start))
    spans: list[tuple[int, int]] = []
    for start, end in sorted((start, min(end, len(passage.text))) for start, end in found):
        if spans and start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        elif start < end:
            spans.append((start, end))
    return spans


def _quoted_in(text: str, sentence: str) -> tuple[int, int]:
    """Return where a text has a sentence of an answer word for word, whatever its white space; else (0, 0)."""
    words = on_one_line(sentence).split()
    found = re.search(r"\s+".join(map(re.escape, words)), text) if len(words) > 1 else None
    return found.span() if found else (0, 0)


def scores_of(hit: Hit) -> tuple[tuple[str, str], ...]:
    """Return the names and values of the scores that ranked a hit."""
    rows = (
        ("fused" if hit.dense_rank and hit.lexical_rank else "score", f"{hit.score:.4f}"),
        ("dense", _side(hit.dense_score, hit.dense_rank, 3)),
        ("lexical", _side(hit.lexical_score, hit.lexical_rank, 1)),
        ("rerank", "" if hit.rerank_score is None else f"{hit.rerank_score:.3f}"),
    )
    return tuple((name, value) for name, value in rows if value)


def _side(score: float | None, rank: int | None, digits: int) -> str:
    if score is None and rank is None:
        return "not found"
    shown = "" if score is None else f"{score:.{digits}f}"
    return f"{shown} (rank {rank})" if rank is not None else shown
