"""``ragsmith traces``: answered questions and their steps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from ui.commands._app import command_app
from ui.commands._console import open_console
from ui.commands._terminal_text import moment, note, one_line, print_json, unpaired, visible
from ui.commands.traces_archive_command import export_command, import_command
from ui.commands.traces_compare_command import compare_command
from ui.commands.traces_prune_command import prune_command
from ui.commands.traces_replay_command import replay
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from rag.tracing.trace_query import Listing
    from rag.tracing.trace_store import Span, Trace

STATUSES = ("ok", "abstained", "error", "cancelled", "interrupted", "filtered", "running")
_STYLES = {"ok": "green", "abstained": "yellow", "error": "bold red"}
SHORT = 160
# The width of the list without its questions.
OTHER_COLUMNS = 66


@click.group()
def command() -> None:
    """List answered questions, show their steps, compare them, and delete old ones."""


for _subcommand in (compare_command, export_command, import_command, prune_command, replay):
    command.add_command(_subcommand)


@command.command(name="list")
@click.option("--filter", "filter_text", default="", help="A filter, as in 'latency > 2s and feedback = down'.")
@click.option("--sort", default="", metavar="COLUMN", help="Such as cost, or latency:asc for the fastest first.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="The maximum number.")
@click.option("--status", type=click.Choice(STATUSES), help="Only traces with this status.")
@click.option("--text", help="Only traces with this text in question, answer or error.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list with one object per trace.")
@pass_context
def list_command(
    context: Context,
    filter_text: str,
    sort: str,
    limit: int,
    status: str | None,
    text: str | None,
    as_json: bool,
) -> None:
    """List traces, the newest first.

    A filter compares fields: status, latency, first_token, tokens, cost, feedback, comment, question, answer,
    error, corpus, model, prompt, release, session, user, purpose, started, code. It has =, !=, >, >=, <, <=, ~
    (contains), and, or, not and parentheses; other words are searched in question, answer and error. The handbook
    has a page "Filter language of traces". Traces of evaluations and the lab are left out, unless the filter
    names purpose.
    """
    from rag.tracing.trace_query import query_of

    with command_app(context) as app:
        query = query_of(_all_conditions(unpaired(filter_text), status, text), unpaired(sort))
        page = app.stores.trace_queries.page(query, limit=limit)
        if as_json:
            print_json([_brief(trace) for trace in page.traces], indent=2)
        else:
            _show_list(page)
        if page.total > len(page.traces):
            which = "newest" if query.sort == "started" and query.order == "desc" else "first"
            note(f"Showing the {which} {len(page.traces)} of {page.total_label}; --limit shows more.")
        if page.hidden:
            note(f'{page.hidden:,} hidden: evaluation and lab; --filter "purpose = any" shows them.')


def _all_conditions(filter_text: str, status: str | None, text: str | None) -> str:
    """Return one filter for all that was asked for."""
    from rag.tracing.trace_filter import Words, both, print_filter

    others = [f"status = {status}" if status else "", print_filter(Words(text)) if text else ""]
    for other in others:
        filter_text = both(filter_text, unpaired(other)) if other else filter_text
    return filter_text


@command.command(name="show")
@click.argument("trace_id", metavar="ID")
@click.option("--full", is_flag=True, help="Show inputs and outputs in full.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole trace as JSON.")
@pass_context
def show_command(context: Context, trace_id: str, full: bool, as_json: bool) -> None:
    """Show the steps of one trace. The first or last six characters of its ID are enough."""
    with command_app(context) as app:
        trace = app.stores.traces.get(trace_id)
        if as_json:
            from dataclasses import asdict

            print_json(asdict(trace), indent=2)
        else:
            _show_trace(trace, full)


def _brief(trace: Trace) -> dict[str, Any]:
    """Return a trace without its steps."""
    from dataclasses import asdict

    return {name: value for name, value in asdict(trace).items() if name != "spans"}


def _show_list(page: Listing) -> None:
    from rich.table import Table
    from rich.text import Text

    from rag.tracing.figures import format_cost, format_seconds

    console = open_console()
    if not page.traces:
        console.print("There are no traces.")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("id", "started", "status"):
        table.add_column(heading, no_wrap=True)
    for heading in ("time", "tokens", "cost"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("question")
    room = max(console.width - OTHER_COLUMNS, 16)
    for trace in page.traces:
        question = Text(one_line(trace.question))
        question.truncate(2 * room if console.is_terminal else room, overflow="ellipsis")
        table.add_row(
            # LangChain's ids begin with the time: neighbours differ at the end.
            trace.id[-8:],
            moment(trace.started, "%m-%d %H:%M"),
            Text(trace.status, style=_STYLES.get(trace.status, "")),
            "" if trace.latency_s is None else format_seconds(trace.latency_s),
            _total(trace),
            format_cost(trace.cost_usd).removeprefix("cost "),
            trace.feedback.rating if trace.feedback else "",
            question,
        )
    console.print(table)


def _show_trace(trace: Trace, full: bool) -> None:
    from rich.text import Text
    from rich.tree import Tree

    from rag.tracing.figures import format_cost, format_seconds

    console = open_console()
    facts = {
        "trace": trace.id,
        "question": visible(trace.question),
        "status": trace.status,
        "answer": visible(trace.answer),
        "error": visible(trace.error),
        "started": moment(trace.started, "%Y-%m-%d %H:%M:%S"),
        "time": "" if trace.latency_s is None else format_seconds(trace.latency_s, digits=3),
        "tokens": _tokens(trace),
        "cost": format_cost(trace.cost_usd),
        "corpus": trace.corpus,
        "model": trace.model,
        "prompt": trace.prompt,
        "release": trace.release,
        "feedback": visible(f"{trace.feedback.rating} {trace.feedback.comment}") if trace.feedback else "",
        "should be": visible(trace.feedback.correction) if trace.feedback else "",
    }
    for name, value in facts.items():
        if value:
            console.print(Text.assemble((f"{name:<9}", "dim"), value), soft_wrap=True)
    if not trace.spans:
        return
    console.print()
    branches: dict[str | None, Tree] = {}
    root = Tree("", hide_root=True)
    for span in trace.spans:
        parent = branches.get(span.parent_id, root)
        branches[span.id] = parent.add(_label(span, trace, full))
    console.print(root)


def _label(span: Span, trace: Trace, full: bool) -> Any:
    from rich.text import Text

    from rag.tracing.figures import format_cost, format_seconds

    label = Text(one_line(span.name), style="bold")
    seconds = None if span.ended is None else max(span.ended - span.started, 0.0)
    facts = ["no end" if seconds is None else format_seconds(seconds, digits=3)]
    if seconds is not None and trace.latency_s:
        facts.append(f"{seconds / trace.latency_s:.0%}")
    if tokens := _tokens(span):
        facts.append(f"{tokens} tokens")
    facts.append(format_cost(span.cost_usd))
    if span.status != "ok":
        facts.append(span.status)
    label.append(f"  {' · '.join(facts)}", style="dim")
    details = {"in": span.input, "out": span.output, "error": span.error}
    if full and span.attributes:
        details["attributes"] = dict(span.attributes)
    for name, value in details.items():
        if value not in (None, ""):
            label.append(f"\n{name:<6}", style="dim").append(_brief_json(value, full))
    for name, text in () if full else _highlights(span):
        label.append(f"\n{name:<6}", style="dim").append(text)
    return label


def _highlights(span: Span) -> Iterator[tuple[str, str]]:
    """Yield what explains an answer, and is cut off where an output has one line."""
    match span.name, span.output:
        case "retrieve", {"hits": [*hits]}:
            for rank, hit in enumerate(hits, 1):
                yield str(rank), _place(hit)
        case "ground", {"replaced": [*faults]}:
            for fault in faults:
                yield "fault", _fault(fault)


def _place(hit: Any) -> str:
    """Return the name and the title of a stored passage; its form may be that of an older version."""
    match hit:
        case {"passage": {"name": str(name), "title": str(title)}}:
            return one_line(name if title in name else f"{name}, {title}")
        case _:
            return "a passage in another form"


def _fault(replaced: Any) -> str:
    match replaced:
        case {"sentence": str(sentence), "kind": str(kind), "words": [*words], **rest}:
            left = "" if rest.get("quotation") else ", not replaced"
            return one_line(f"“{sentence}” ({kind}: {', '.join(map(str, words))}){left}")
        case _:
            return "a sentence in another form"


def _brief_json(value: Any, full: bool) -> str:
    """Return a value on one line, or in full."""
    if isinstance(value, str):
        text = value
    elif full:
        text = json.dumps(value, ensure_ascii=False, indent=2)
    elif isinstance(value, Mapping):
        text = ", ".join(f"{name}: {_flat(item)}" for name, item in value.items())
    else:
        text = _flat(value)
    if full:
        return visible(text)
    text = one_line(text)
    left = len(text) - SHORT
    return text if left <= 0 else f"{text[:SHORT]}… ({left:,} more characters: --full)"


def _flat(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _tokens(usage: Trace | Span) -> str:
    if usage.input_tokens is None and usage.output_tokens is None:
        return ""
    return f"{usage.input_tokens or 0:,} in, {usage.output_tokens or 0:,} out"


def _total(trace: Trace) -> str:
    if trace.input_tokens is None and trace.output_tokens is None:
        return ""
    return f"{(trace.input_tokens or 0) + (trace.output_tokens or 0):,}"
