"""An exchange as the chat shows it: question, answer, footer. Pure functions from data to HTML.

Every text in them comes from a person, a document or a model and goes through ``ui.pages.safe_markup``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import PurePath
from urllib.parse import urlencode

from rag.types import Answer, Citation, Hit, Passage, Step
from ui.pages.safe_markup import (
    Reference,
    Resolve,
    markdown,
    markers,
    plain,
    plain_with_citations,
    shortened,
    underlined,
)

_MARKDOWN_SOURCES = frozenset({".md", ".markdown", ".mdx", ".ipynb"})
_READER = "embedded"
# Characters that are shown of a sentence beside its answer.
LONGEST_QUOTE = 200

_STEPS: dict[Step, str] = {
    "condense": "Reading the question",
    "retrieve": "Searching",
    "prompt": "Preparing",
    "generate": "Writing",
    "ground": "Checking the sources",
}


def document_url(document_id: int, start: int | None, end: int | None, at: int | None = None) -> str:
    """The address of a stored text, opened at a span; without one, at the character ``at``."""
    query: dict[str, int] = {}
    if start is not None and end is not None:
        query = {"start": start, "end": end}
    elif at is not None:
        query = {"at": at}
    return f"/documents/{document_id}?{urlencode(query)}#cited"


def citation_url(citation: Citation) -> str:
    """Where a citation leads: to its sentence, or to its passage where the sentence was not found."""
    passage = citation.hit.passage
    return document_url(passage.document_id, citation.start, citation.end, at=passage.start)


def passage_url(passage: Passage) -> str:
    """Where a passage stands in its document."""
    return document_url(passage.document_id, passage.start, passage.end)


def place(passage: Passage) -> str:
    """The source as a person names it: ``report.pdf p. 3``."""
    name = passage.name or passage.title
    return f"{name} p. {passage.page}" if passage.page is not None else name


def references(hits: Sequence[Hit], citations: Sequence[Citation]) -> Resolve:
    """Where each marker leads: to what was checked, until then to the passage of that number."""
    checked = {citation.marker: citation for citation in citations}

    def resolve(number: int) -> Reference | None:
        citation = checked.get(number)
        if citation is not None:
            return Reference(citation_url(citation), place(citation.hit.passage))
        if 1 <= number <= len(hits):
            passage = hits[number - 1].passage
            return Reference(passage_url(passage), place(passage))
        return None

    return resolve


def is_verbatim(text: str, model: str, hits: Sequence[Hit]) -> bool:
    """Whether an answer is the very text of sources that are not Markdown.

    The embedded reader quotes; a star or an underscore in its answer is then a character and no emphasis.
    """
    if model != _READER:
        return False
    quoted = [hits[number - 1] for number in markers(text) if 1 <= number <= len(hits)]
    return not all(
        PurePath(hit.passage.source.partition("#")[0]).suffix.lower() in _MARKDOWN_SOURCES
        for hit in quoted or hits
    )


def body(text: str, resolve: Resolve, *, verbatim: bool, spans: Sequence[tuple[int, int]] = ()) -> str:
    """The text of an answer, what answers the question in it marked."""
    return underlined(text, spans, (), partial(_rendered, resolve=resolve, verbatim=verbatim))[0]


def _rendered(signed: str, *, resolve: Resolve, verbatim: bool) -> str:
    if verbatim:
        return f'<div class="rs-verbatim">{plain_with_citations(signed, resolve)}</div>'
    return markdown(signed, resolve)


def question_html(question: str, position: int) -> str:
    """A question, with the button that takes it back into the input line."""
    return (
        f'<div class="rs-question"><div class="rs-asked">{plain(question)}</div>'
        f'<button class="rs-edit" type="button" value="{position}" title="Edit this question and ask again">'
        "edit</button></div>"
    )


def draft_html(text: str, hits: Sequence[Hit], citations: Sequence[Citation], model: str, step: str) -> str:
    """An answer that is being written; ``step`` says what is going on."""
    written = body(text, references(hits, citations), verbatim=is_verbatim(text, model, hits)) if text else ""
    return (
        f'<div class="rs-answer rs-draft"><div class="rs-text">{written}</div>'
        f'<div class="rs-step">{plain(step)}</div></div>'
    )


def step_line(step: Step, found: int) -> str:
    """What is going on, in words."""
    if step == "generate" and found:
        return f"Writing from {found} {'passage' if found == 1 else 'passages'}"
    return _STEPS[step]


def answer_html(answer: Answer) -> str:
    """A finished answer, whatever became of it, with its footer; sentences without support are underlined."""
    render = partial(
        _rendered,
        resolve=references(answer.hits, answer.citations),
        verbatim=is_verbatim(answer.text, answer.model, answer.hits),
    )
    placed = [(each.start, each.end) for each in answer.unsupported_claims]
    doubtful = [(start, end) for start, end in placed if start is not None and end is not None]
    written, left = underlined(answer.text, answer.spans, doubtful, render) if answer.text else ("", ())
    return (
        f'<div class="rs-answer rs-{answer.status}">{_badge(answer)}'
        f'<div class="rs-text">{written}</div>{_doubts(answer, left)}{footer_html(answer)}</div>'
    )


def _doubts(answer: Answer, left: Sequence[tuple[int, int]]) -> str:
    """The note on sentences without support; those that could not be underlined are named."""
    if not answer.support_note:
        return ""
    quotes = "".join(f" “{plain(shortened(answer.text[start:end], LONGEST_QUOTE))}”" for start, end in left)
    return f'<div class="rs-doubts">⚠ {plain(answer.support_note)}{":" if quotes else "."}{quotes}</div>'


def interrupted_html() -> str:
    """An answer that never came, because the process died while it was written."""
    return (
        '<div class="rs-answer rs-interrupted"><div class="rs-badge">Interrupted</div><div class="rs-text">'
        "<p>ragsmith ended before this answer was finished. Ask again with the arrow below.</p></div></div>"
    )


def _badge(answer: Answer) -> str:
    if answer.status == "failed":
        reason = plain(answer.error or "Something went wrong.")
        return f'<div class="rs-badge">Failed</div><p class="rs-error">{reason}</p>'
    if answer.status == "cancelled":
        return '<div class="rs-badge">Stopped</div>'
    if answer.status == "abstained":
        return '<div class="rs-badge">Not in these documents</div>'
    return ""


def footer_html(answer: Answer) -> str:
    """Time, tokens, cost, prompt version, trace."""
    parts = [duration(answer.latency_s), tokens(answer), cost(answer.cost_usd)]
    if answer.status == "failed":
        # What a failure cost is mostly nothing that is known; the time may tell why it failed.
        parts = parts[:1]
    parts += answer.notes
    if answer.prompt:
        parts.append(answer.prompt)
    shown = [f"<span>{plain(part)}</span>" for part in parts if part]
    if answer.trace_id:
        query = urlencode({"trace": answer.trace_id})
        shown.append(f'<a class="rs-trace" href="/?{query}" title="Show every step of this answer">trace ↗</a>')
        shown.append(
            f'<button class="rs-case" type="button" value="{plain(answer.trace_id)}" '
            'title="Keep this question as a case of a dataset">+ case</button>'
        )
    if answer.text:
        shown.append('<button class="rs-copy" type="button" title="Copy the answer">copy</button>')
    return f'<div class="rs-foot">{" · ".join(shown)}</div>'


def duration(seconds: float) -> str:
    """``0.3 s``, ``12 s``, ``3 min 20 s``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def tokens(answer: Answer) -> str:
    """What was read and written together, as far as the model said."""
    known = [count for count in (answer.usage.input_tokens, answer.usage.output_tokens) if count is not None]
    return f"{sum(known):,} tok" if known else "tokens unknown"


def cost(usd: float | None) -> str:
    """Dollars with the digits that matter; what is not known is not shown as nothing."""
    if usd is None:
        return "cost unknown"
    if usd == 0:
        return "$0"
    if usd < 0.00005:
        return "< $0.0001"
    return f"${usd:.2f}" if usd >= 1 else f"${usd:.4f}"
