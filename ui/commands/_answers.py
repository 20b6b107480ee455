"""Printing an answer: streamed text with its sources, or one JSON object."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from rag.answering.answer_stream import AnswerStream, PartialAnswer
from rag.documents.relative_links import RelativeLinks, without_relative_links
from rag.tracing.figures import format_cost, format_place, format_seconds, format_tokens
from rag.types import Answer, Token
from ui.app.claims import claims_of
from ui.commands._terminal_text import one_line, print_json, visible

if TYPE_CHECKING:
    from rag.types import Citation, Hit

NEAREST = 3
_MARKER = re.compile(r"\s*\[\d+\]")


async def show(stream: AnswerStream) -> Answer:
    """Print an answer while it is written, then its sources.

    Returns:
        The answer; if it failed, only the text that had arrived is printed.
    """
    partial, links = PartialAnswer(), RelativeLinks()
    try:
        async for event in stream:
            partial = partial.after(event)
            if isinstance(event, Token):
                click.echo(visible(links.shown(event.text)), nl=False)
    finally:
        click.echo(visible(links.rest()), nl=False)
        await stream.close()
    assert partial.answer is not None  # noqa: S101 - a stream that is not stopped ends with Done
    _finish(partial.text, partial.answer)
    return partial.answer


def print_answer(number: str | int, question: str, answer: Answer) -> None:
    """Print an answer as JSON on one line."""
    print_json(
        {
            "id": number,
            "question": question,
            "answer": answer.text,
            "status": answer.status,
            "error": answer.error,
            "citations": [_citation(citation) for citation in answer.citations],
            "sources": [_source(hit) for hit in answer.hits],
            "spans": [list(span) for span in answer.spans],
            "cut": answer.cut,
            "filtered": answer.filtered,
            "support": answer.support,
            "claims": claims_of(answer),
            "latency_s": answer.latency_s,
            "input_tokens": answer.usage.input_tokens,
            "output_tokens": answer.usage.output_tokens,
            "cost_usd": answer.cost_usd,
            "trace_id": answer.trace_id,
            "prompt": answer.prompt,
            "release": answer.release,
            "model": answer.model,
        }
    )


def quote_of(citation: Citation) -> str | None:
    """Return the cited words; None if they are not in the passage."""
    passage = citation.hit.passage
    if citation.start is None or citation.end is None:
        return None
    return passage.text[citation.start - passage.start : citation.end - passage.start]


def _place(hit: Hit) -> str:
    return format_place(one_line(hit.passage.name), hit.passage.page)


def _finish(streamed: str, answer: Answer) -> None:
    if streamed:
        click.echo()
    if answer.status == "failed":
        return
    if _words(streamed) != _words(answer.text):
        if streamed.strip():
            click.echo("\nThe passages do not support what is written above. The answer is:")
        click.echo(visible(without_relative_links(answer.text)))
    if answer.unsupported_claims:
        click.echo()
        for claim in answer.unsupported_claims:
            words = one_line(answer.words_of(claim))
            click.echo(f"Not supported by the sources: “{words}”" if words else f"⚠ {answer.support_note}.")
            if not words:
                break
    if answer.citations:
        click.echo("\nSources")
        for citation in answer.citations:
            click.echo(f"[{citation.marker}] {_place(citation.hit)}")
            quote = quote_of(citation)
            click.echo(
                "    "
                + (
                    f"“{one_line(without_relative_links(quote))}”"
                    if quote
                    else "The cited words are not in the passage."
                )
            )
    elif answer.hits:
        click.echo("\nNearest passages")
        for hit in answer.hits[:NEAREST]:
            heading = one_line(hit.passage.headings[-1]) if hit.passage.headings else ""
            click.echo(f"  - {_place(hit)}" + (f", {heading}" if heading else ""))
    click.echo(f"\n{_footer(answer)}")


def _words(text: str) -> str:
    """Return a text without markers and white space: the check may drop a marker that cites no passage."""
    return "".join(_MARKER.sub("", text).split())


def _footer(answer: Answer) -> str:
    parts = [
        format_seconds(answer.latency_s),
        format_tokens(answer.usage.input_tokens, answer.usage.output_tokens),
        format_cost(answer.cost_usd),
        *answer.notes,
        answer.prompt,
        f"trace {answer.trace_id}",
    ]
    return " · ".join(part for part in parts if part)


def _citation(citation: Citation) -> dict[str, Any]:
    passage = citation.hit.passage
    return {
        "marker": citation.marker,
        "source": passage.source,
        "name": passage.name,
        "page": passage.page,
        "start": citation.start,
        "end": citation.end,
        "quote": quote_of(citation),
        "support": citation.support,
    }


def _source(hit: Hit) -> dict[str, Any]:
    passage = hit.passage
    return {"source": passage.source, "name": passage.name, "page": passage.page, "score": hit.score}
