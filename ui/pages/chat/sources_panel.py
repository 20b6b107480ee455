"""The sources panel: what an answer rests on, cited evidence first. Pure functions from data to HTML."""

from __future__ import annotations

from collections.abc import Sequence

from rag.types import Answer, Citation, Hit, Passage
from ui.pages.chat.answer_html import citation_url, passage_url, place
from ui.pages.safe_markup import plain

EMPTY = '<div class="rs-sources rs-empty">The sources of an answer appear here.</div>'


def sources_html(answer: Answer, min_support: float) -> str:
    """The evidence of a finished answer.

    Args:
        min_support: Support under which a sentence counts as weakly carried by its source.
    """
    if answer.status == "abstained":
        return _panel(_group("Nearest passages", answer.hits, opened=True))
    cited = {citation.marker for citation in answer.citations}
    rest = [(number, hit) for number, hit in enumerate(answer.hits, start=1) if number not in cited]
    parts = [_warning(answer, min_support)]
    if answer.citations:
        parts.append('<div class="rs-head">Cited</div>')
        parts += [_cited(citation) for citation in answer.citations]
    if rest:
        parts.append(_collapsed(rest, opened=not answer.citations))
    return _panel("".join(parts))


def draft_sources_html(hits: Sequence[Hit]) -> str:
    """The passages that an answer is being written from."""
    return _panel(_group("Retrieved", hits, opened=False)) if hits else EMPTY


def _panel(inner: str) -> str:
    return f'<div class="rs-sources">{inner}</div>' if inner else EMPTY


def _warning(answer: Answer, min_support: float) -> str:
    if answer.status != "answered" or answer.support is None:
        return ""
    if answer.support >= min_support and not answer.unsupported_claims:
        return ""
    return (
        f'<div class="rs-warn"><b>⚠ Low support</b> ({answer.support:.2f}): a sentence of this answer is '
        "hardly carried by the passage it cites. Read the source before you rely on it.</div>"
    )


def _collapsed(numbered: Sequence[tuple[int, Hit]], *, opened: bool) -> str:
    rows = "".join(_hit(number, hit) for number, hit in numbered)
    return (
        f'<details class="rs-rest"{" open" if opened else ""}>'
        f'<summary class="rs-head">Retrieved, not cited ({len(numbered)})</summary>{rows}</details>'
    )


def _group(title: str, hits: Sequence[Hit], *, opened: bool) -> str:
    if not hits:
        return '<div class="rs-empty">Nothing was found.</div>'
    rows = "".join(_hit(number, hit, opened and number == 1) for number, hit in enumerate(hits, start=1))
    return f'<div class="rs-head">{plain(title)}</div>{rows}'


def _cited(citation: Citation) -> str:
    passage = citation.hit.passage
    text = _marked(passage, citation.start, citation.end)
    lost = "" if citation.start is not None else _LOST
    carried = "How well the source carries the sentence, 0 to 1"
    score = f'<span class="rs-score" title="{carried}">{citation.support:.2f}</span>'
    return _source(citation.marker, passage, text + lost, score, citation.hit, citation_url(citation), opened=True)


_LOST = '<div class="rs-note">The cited sentence was not found word for word, so nothing is marked.</div>'


def _hit(number: int, hit: Hit, opened: bool = False) -> str:
    passage = hit.passage
    score = ""
    if hit.dense_score is not None:
        score = f'<span class="rs-score" title="Similarity to the question">{hit.dense_score:.2f}</span>'
    return _source(number, passage, plain(passage.text), score, hit, passage_url(passage), opened=opened)


def _source(number: int, passage: Passage, text: str, score: str, hit: Hit, href: str, *, opened: bool) -> str:
    name = plain(place(passage))
    where = " › ".join(passage.headings)
    path = f'<div class="rs-path">{plain(where)}</div>' if where else ""
    return (
        f'<details class="rs-source"{" open" if opened else ""}>'
        f'<summary title="{plain(passage.source)}"><span class="rs-num">{number}</span>'
        f'<span class="rs-name">{name}</span>{score}</summary>'
        f'{path}<div class="rs-passage">{text}</div>'
        f'<div class="rs-line"><a class="rs-open" href="{plain(href)}">open page</a>{_scores(hit)}</div>'
        "</details>"
    )


def _marked(passage: Passage, start: int | None, end: int | None) -> str:
    """The passage with the cited sentence marked, as far as it lies inside."""
    if start is None or end is None:
        return plain(passage.text)
    first = max(start - passage.start, 0)
    last = min(end - passage.start, len(passage.text))
    if first >= last:
        return plain(passage.text)
    before, inside, after = passage.text[:first], passage.text[first:last], passage.text[last:]
    return f"{plain(before)}<mark>{plain(inside)}</mark>{plain(after)}"


def _scores(hit: Hit) -> str:
    rows = [
        ("fused" if hit.dense_rank and hit.lexical_rank else "score", f"{hit.score:.4f}"),
        ("dense", _side(hit.dense_score, hit.dense_rank, 3)),
        ("lexical", _side(hit.lexical_score, hit.lexical_rank, 1)),
        ("rerank", "" if hit.rerank_score is None else f"{hit.rerank_score:.3f}"),
    ]
    cells = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows if value)
    return f'<details class="rs-scores"><summary>scores</summary><dl>{cells}</dl></details>'


def _side(score: float | None, rank: int | None, digits: int) -> str:
    if score is None and rank is None:
        return "not found"
    shown = "" if score is None else f"{score:.{digits}f}"
    return f"{shown} (rank {rank})" if rank is not None else shown
