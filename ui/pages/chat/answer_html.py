"""An exchange of the chat as HTML: question, answer, footer. Pure functions.

Every text comes from a person, a document or a model, and reaches the page through ``ui.pages.safe_markup``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import PurePath
from urllib.parse import urlencode

from rag.evaluation.report_rendering import shortened
from rag.tracing.figures import counted, format_cost, format_place, format_seconds, format_tokens
from rag.types import Answer, Citation, Hit, Passage, Step
from ui.pages.safe_markup import (
    Reference,
    Resolve,
    fragment,
    markdown,
    markers,
    plain_with_citations,
    underlined,
)

_MARKDOWN_SOURCES = frozenset({".md", ".markdown", ".mdx", ".ipynb"})
_READER = "extractive"
# Characters of an unsupported sentence that is quoted below its answer.
LONGEST_QUOTE = 200

_BADGES = {"failed": "Failed", "cancelled": "Stopped", "abstained": "Not in these documents"}
_STEPS: dict[Step, str] = {
    "condense": "Reading the question",
    "retrieve": "Searching",
    "read": "Reading the passages",
    "prompt": "Preparing",
    "generate": "Writing",
    "ground": "Checking the sources",
}


def document_url(document_id: int, start: int | None, end: int | None, at: int | None = None) -> str:
    """Return the address of a stored text, opened at a span, else at the character ``at``."""
    query: dict[str, int] = {}
    if start is not None and end is not None:
        query = {"start": start, "end": end}
    elif at is not None:
        query = {"at": at}
    return f"/documents/{document_id}?{urlencode(query)}#cited"


def citation_url(citation: Citation) -> str:
    """Return the address of a cited sentence, or of its passage where the sentence was not found."""
    passage = citation.hit.passage
    return document_url(passage.document_id, citation.start, citation.end, at=passage.start)


def passage_url(passage: Passage) -> str:
    """Return the address of a passage in its document."""
    return document_url(passage.document_id, passage.start, passage.end)


def source_label(passage: Passage) -> str:
    """Return the name of a passage's source, with its page."""
    return format_place(passage.name or passage.title, passage.page)


def references(hits: Sequence[Hit], citations: Sequence[Citation]) -> Resolve:
    """Return the targets of the markers: checked citations, and until they exist the passages by number."""
    checked = {citation.marker: citation for citation in citations}

    def resolve(number: int) -> Reference | None:
        citation = checked.get(number)
        if citation is not None:
            return Reference(citation_url(citation), source_label(citation.hit.passage))
        if 1 <= number <= len(hits):
            passage = hits[number - 1].passage
            return Reference(passage_url(passage), source_label(passage))
        return None

    return resolve


def is_verbatim(text: str, model: str, hits: Sequence[Hit]) -> bool:
    """Whether an answer quotes sources that are not Markdown.

    A star or an underscore in a quote of the extractive reader is then a character, not emphasis.
    """
    if model != _READER:
        return False
    quoted = [hits[number - 1] for number in markers(text) if 1 <= number <= len(hits)]
    return not all(is_markdown(hit.passage.source) for hit in quoted or hits)


def is_markdown(source: str) -> bool:
    """Whether the text of a source is Markdown."""
    return PurePath(source.partition("#")[0]).suffix.lower() in _MARKDOWN_SOURCES


def question_html(question: str, position: int) -> str:
    """Render a question, with the button that edits it."""
    return fragment("chat_question.html.jinja", question=question, position=position)


def draft_html(text: str, hits: Sequence[Hit], citations: Sequence[Citation], model: str, step: str) -> str:
    """Render an answer that is being written, with its current step."""
    verbatim = is_verbatim(text, model, hits)
    written, _ = underlined(text, (), (), partial(_rendered, references(hits, citations), verbatim))
    return fragment("chat_draft.html.jinja", written=written, verbatim=verbatim, step=step)


def _rendered(resolve: Resolve, verbatim: bool, text: str) -> str:
    return plain_with_citations(text, resolve) if verbatim else markdown(text, resolve)


def step_line(step: Step, found: int) -> str:
    """Describe the current step."""
    if step == "generate" and found:
        return f"Writing from {counted(found, 'passage')}"
    return _STEPS[step]


def answer_html(answer: Answer) -> str:
    """Render a finished answer of any status with its footer; unsupported sentences are underlined."""
    verbatim = is_verbatim(answer.text, answer.model, answer.hits)
    rendered = partial(_rendered, references(answer.hits, answer.citations), verbatim)
    placed = [(claim.start, claim.end) for claim in answer.unsupported_claims]
    doubtful = [(start, end) for start, end in placed if start is not None and end is not None]
    written, left = underlined(answer.text, answer.spans, doubtful, rendered)
    return fragment(
        "chat_answer.html.jinja",
        answer=answer,
        badge=_BADGES.get(answer.status),
        written=written,
        verbatim=verbatim,
        # Unsupported sentences that could not be underlined are quoted.
        quotes=[shortened(answer.text[start:end], LONGEST_QUOTE) for start, end in left],
        facts=_facts(answer),
    )


def interrupted_html() -> str:
    """Render an answer whose process died while it was written."""
    return fragment("chat_interrupted.html.jinja")


def footer_html(answer: Answer) -> str:
    """Render time, tokens, cost, prompt version and trace."""
    return fragment("chat_footer.html.jinja", answer=answer, facts=_facts(answer))


def _facts(answer: Answer) -> list[str]:
    # The cost of a failure is rarely known; its time may explain it.
    spent = [format_seconds(answer.latency_s)]
    if answer.status != "failed":
        usage = answer.usage
        spent += [format_tokens(usage.input_tokens, usage.output_tokens), format_cost(answer.cost_usd)]
    return [fact for fact in (*spent, *answer.notes, answer.prompt) if fact]
