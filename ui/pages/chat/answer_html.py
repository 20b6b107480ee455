"""An exchange as the chat shows it: question, answer, footer. Pure functions from data to HTML.

Every text comes from a person, a document or a model, and reaches the page through ``ui.pages.safe_markup``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import PurePath
from urllib.parse import urlencode

from rag.evaluation.report_rendering import shortened
from rag.tracing.figures import format_cost, format_place, format_seconds, format_tokens
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
_READER = "embedded"
# Characters that are shown of a sentence beside its answer.
LONGEST_QUOTE = 200

_BADGES = {"failed": "Failed", "cancelled": "Stopped", "abstained": "Not in these documents"}
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


def source_label(passage: Passage) -> str:
    """The source of a passage as a person names it, with its page."""
    return format_place(passage.name or passage.title, passage.page)


def references(hits: Sequence[Hit], citations: Sequence[Citation]) -> Resolve:
    """Where each marker leads: to what was checked, until then to the passage of that number."""
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


def question_html(question: str, position: int) -> str:
    """A question, with the button that takes it back into the input line."""
    return fragment("chat_question.html.jinja", question=question, position=position)


def draft_html(text: str, hits: Sequence[Hit], citations: Sequence[Citation], model: str, step: str) -> str:
    """An answer that is being written; ``step`` says what is going on."""
    verbatim = is_verbatim(text, model, hits)
    written, _ = underlined(text, (), (), partial(_rendered, references(hits, citations), verbatim))
    return fragment("chat_draft.html.jinja", written=written, verbatim=verbatim, step=step)


def _rendered(resolve: Resolve, verbatim: bool, text: str) -> str:
    return plain_with_citations(text, resolve) if verbatim else markdown(text, resolve)


def step_line(step: Step, found: int) -> str:
    """What is going on, in words."""
    if step == "generate" and found:
        return f"Writing from {found} {'passage' if found == 1 else 'passages'}"
    return _STEPS[step]


def answer_html(answer: Answer) -> str:
    """A finished answer, whatever became of it, with its footer; sentences without support are underlined."""
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
        # The doubtful sentences that could not be underlined are named.
        quotes=[shortened(answer.text[start:end], LONGEST_QUOTE) for start, end in left],
        facts=_facts(answer),
    )


def interrupted_html() -> str:
    """An answer that never came, because the process died while it was written."""
    return fragment("chat_interrupted.html.jinja")


def footer_html(answer: Answer) -> str:
    """Time, tokens, cost, prompt version, trace."""
    return fragment("chat_footer.html.jinja", answer=answer, facts=_facts(answer))


def _facts(answer: Answer) -> list[str]:
    # What a failure cost is mostly unknown; its time may explain it.
    spent = [format_seconds(answer.latency_s)]
    if answer.status != "failed":
        usage = answer.usage
        spent += [format_tokens(usage.input_tokens, usage.output_tokens), format_cost(answer.cost_usd)]
    return [fact for fact in (*spent, *answer.notes, answer.prompt) if fact]
