"""``ragsmith search``: the passages found for a query, and their scores."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rag.errors import FilterError, QuestionTooLong
from ui.commands._app import command_app, prepare_corpus
from ui.commands._console import open_console, print_indented
from ui.commands._filters import source_option, where_option
from ui.commands._records import BadLines, read_records
from ui.commands._terminal_text import note, one_line, print_json, unpaired
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from rich.text import Text

    from rag.indexing.lexical_index import LexicalIndex
    from rag.retrieval.retriever import Retriever
    from rag.settings import SearchMode
    from rag.types import Filters, Hit

SNIPPET = 320
_WORD = re.compile(r"[^\W_]+")
_DAY = click.DateTime(["%Y-%m-%d"])


@click.command()
@click.argument("query", required=False)
@click.option(
    "--queries",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A JSONL file with id and text on each line.",
)
@click.option("--corpus", metavar="NAME", help="The corpus; by default the one in the settings.")
@click.option("-k", type=click.IntRange(1, 1000), metavar="N", help="The number of passages.")
@click.option("--mode", type=click.Choice(["hybrid", "dense", "lexical"]), help="Both kinds of search, or one.")
@source_option
@click.option("--title", help="Only documents with this title.")
@click.option("--glob", metavar="PATTERN", help="Only sources whose path matches, such as '*/guides/*.md'.")
@click.option("--page", type=click.IntRange(1), metavar="N", help="Only this page.")
@click.option("--after", type=_DAY, metavar="YYYY-MM-DD", help="Only documents from this day or later.")
@click.option("--before", type=_DAY, metavar="YYYY-MM-DD", help="Only documents from this day or earlier.")
@where_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object on one line for each query.")
@click.pass_context
@pass_context
def command(context: Context, ctx: click.Context, /, **options: Any) -> None:
    """Show the passages that are found for QUERY, with their dense and lexical ranks and scores.

    --queries searches for many queries in one run; an invalid line is reported and skipped, and the exit status
    is then 1.
    """
    wanted = _Options(**options)
    wanted.check()
    with command_app(context) as app:
        name = prepare_corpus(app.settings, app.stores, app.releases, wanted.corpus)
        if wanted.filters.by_document:
            try:
                app.stores.check_filters(name, wanted.filters)
            except FilterError as error:
                note(one_line(str(error)))
        search = _Search(app.releases.retriever(name), app.stores.index(name).lexical, wanted)
        if wanted.queries is None:
            search.run("", unpaired(wanted.query or ""))
            return
        bad = BadLines(wanted.queries)
        failed = 0
        for record in read_records(wanted.queries, ("text",), bad):
            try:
                search.run(record.id, record.text)
            except QuestionTooLong as error:
                failed += 1
                note(f"Query {one_line(str(record.id))} failed: {one_line(str(error))}")
        if bad.count or failed:
            ctx.exit(1)


@dataclass(frozen=True, slots=True)
class _Options:
    """The options of one call."""

    query: str | None
    queries: Path | None
    corpus: str | None
    k: int | None
    mode: SearchMode | None
    source: str | None
    title: str | None
    glob: str | None
    page: int | None
    after: datetime | None
    before: datetime | None
    where: tuple[tuple[str, str], ...]
    as_json: bool

    def check(self) -> None:
        """Refuse options that cannot be searched for."""
        if (self.query is None) == (self.queries is None):
            raise click.UsageError("Give either a query or --queries FILE.")
        if self.query is not None and not self.query.strip():
            raise click.UsageError("The query is empty.")
        if self.queries is not None and not self.queries.exists():
            raise click.UsageError(f"The file {self.queries} does not exist.")

    @property
    def filters(self) -> Filters:
        """The conditions that a passage must meet."""
        from rag.types import Filters

        return Filters(
            source=self.source,
            title=self.title,
            glob=self.glob,
            page=self.page,
            after=self.after.date() if self.after else None,
            before=self.before.date() if self.before else None,
            where=self.where,
        )


class _Search:
    """Runs the searches of one call."""

    def __init__(self, retriever: Retriever, lexical: LexicalIndex, wanted: _Options) -> None:
        self._retriever = retriever
        self._lexical = lexical
        self._as_json = wanted.as_json
        self._options = replace(self._retriever.options(wanted.k, wanted.mode), filters=wanted.filters)

    def run(self, number: str | int, query: str) -> None:
        """Search, and print the passages found."""
        hits = self._retriever.search(query, self._options)
        if self._as_json:
            print_json({"id": number, "query": query, "results": [as_result(hit) for hit in hits]})
        else:
            _show(number, query, hits, self._lexical)


def as_result(hit: Hit) -> dict[str, Any]:
    """Return a hit as JSON; ``start`` and ``end`` are offsets into the stored text of the document."""
    passage = hit.passage
    return {
        "source": passage.source,
        "name": passage.name,
        "title": passage.title,
        "page": passage.page,
        "score": hit.score,
        "dense_rank": hit.dense_rank,
        "dense_score": hit.dense_score,
        "lexical_rank": hit.lexical_rank,
        "lexical_score": hit.lexical_score,
        "rerank_score": hit.rerank_score,
        "text": passage.text,
        "start": passage.start,
        "end": passage.end,
        "metadata": dict(passage.metadata),
    }


def _show(number: str | int, query: str, hits: Sequence[Hit], lexical: LexicalIndex) -> None:
    from rich.text import Text

    console = open_console()
    wanted = set(lexical.words(query))
    if number != "":
        console.print(Text(one_line(f"{number}: {query}"), style="bold underline"))
    if not hits:
        console.print("Nothing was found.")
    for rank, hit in enumerate(hits, 1):
        passage = hit.passage
        head = Text(f"{rank:>2}  ", style="dim").append(one_line(passage.name), style="bold")
        if passage.page is not None:
            head.append(f"  p. {passage.page}")
        if passage.headings:
            head.append(f"  {one_line(' › '.join(passage.headings))}", style="dim")
        console.print(head, soft_wrap=True)
        print_indented(console, Text(_why(hit), style="cyan"), 4)
        print_indented(console, _snippet(passage.text, wanted, lexical), 4)
        console.print()


def _why(hit: Hit) -> str:
    dense = lexical = "not found"
    if hit.dense_rank is not None and hit.dense_score is not None:
        dense = f"rank {hit.dense_rank}, cosine {hit.dense_score:.3f}"
    if hit.lexical_rank is not None and hit.lexical_score is not None:
        lexical = f"rank {hit.lexical_rank}, BM25 {hit.lexical_score:.2f}"
    reranked = "" if hit.rerank_score is None else f"reranked: {hit.rerank_score:.3f} | "
    return f"{reranked}score {hit.score:.4f} | dense: {dense} | lexical: {lexical}"


def _snippet(text: str, wanted: set[str], lexical: LexicalIndex) -> Text:
    """Return the part of a passage with the most words of the query, and mark them."""
    from rich.text import Text

    text = one_line(text)
    words = [match.span() for match in _WORD.finditer(text) if wanted & set(lexical.words(match[0]))]
    first = _densest(words)
    # From the beginning if that shows them too, and never from inside a word.
    start = 0 if first < SNIPPET // 2 else text.rfind(" ", 0, max(first - 40, 1)) + 1
    end = len(text)
    if start + SNIPPET < end:
        space = text.rfind(" ", start + SNIPPET // 2, start + SNIPPET)
        end = space if space > 0 else start + SNIPPET
    shown = Text(text[start:end])
    for word_start, word_end in words:
        if start <= word_start and word_end <= end:
            shown.stylize("bold yellow", word_start - start, word_end - start)
    before, after = "… " if start else "", " …" if end < len(text) else ""
    return Text.assemble(before, shown, after)


def _densest(words: Sequence[tuple[int, int]]) -> int:
    """Return the start of the stretch, as long as a snippet, that holds the most of these words."""
    best, most = 0, 0
    last = 0
    for at, (start, _) in enumerate(words):
        while last < len(words) and words[last][1] - start <= SNIPPET - 40:
            last += 1
        if last - at > most:
            best, most = start, last - at
    return best
