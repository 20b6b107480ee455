"""Traces as HTML: the list, and one trace as a tree of its steps. Pure functions."""

from __future__ import annotations

import json
import time
from datetime import datetime

from rag.redaction import JSON
from rag.tracing.trace_store import Span, Trace, TracePage
from ui.pages.chat.answer_html import cost, duration
from ui.pages.safe_markup import plain, shortened, thumb

SHOWN_JSON = 20_000
"""Characters of one input or output; a browser grows slow on more, and a person reads less."""

PICK = '<div class="rs-pick">Choose a trace to see its steps.</div>'


def list_html(page: TracePage, first: int, chosen: str = "") -> str:
    """A part of the list.

    Args:
        first: Number of the first trace on it, from 1.
        chosen: Id of the trace that is shown beside it.
    """
    if not page.traces:
        return '<div class="rs-none">No trace fits. Ask a question in the chat, or change the filter.</div>'
    now = time.time()
    rows = "".join(_row(trace, trace.id == chosen, now) for trace in page.traces)
    head = "".join(
        f'<th class="rs-{name}">{title}</th>'
        for name, title in (
            ("status-col", ""),
            ("question-col", "Question and answer"),
            ("number-col", "Started"),
            ("number-col", "Time"),
            ("number-col", "Tokens"),
            ("number-col", "Cost"),
            ("thumb-col", ""),
        )
    )
    last = first + len(page.traces) - 1
    count = f'<div class="rs-count">{first:,}–{last:,} of {page.total:,}</div>'
    return f'<table class="rs-traces"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{count}'


def _row(trace: Trace, chosen: bool, now: float) -> str:
    said = trace.answer or trace.error
    rated = thumb(trace.feedback.rating) if trace.feedback else ""
    comment = trace.feedback.comment if trace.feedback else ""
    cells = (
        f"<td>{status_html(trace.status, short=True)}</td>",
        f'<td class="rs-qa"><button class="rs-open-trace" type="button" value="{plain(trace.id)}">'
        f"{plain(shortened(trace.question, 200))}</button><div>{plain(shortened(said, 200))}</div></td>",
        f'<td title="{plain(clock(trace.started))}">{plain(_when(trace.started, now))}</td>',
        f"<td>{duration(trace.latency_s) if trace.latency_s is not None else ''}</td>",
        f'<td title="read + written: {tokens(trace.input_tokens, trace.output_tokens)}">{_total(trace)}</td>',
        f"<td>{plain(money(trace.cost_usd))}</td>",
        f'<td title="{plain(comment)}">{rated}{"…" if comment else ""}</td>',
    )
    return f'<tr class="rs-row{" is-on" if chosen else ""}">{"".join(cells)}</tr>'


def _when(started: float, now: float) -> str:
    """The time of a trace of today, else the day, with the year where it is another; the title has all of it."""
    moment = datetime.fromtimestamp(started).astimezone()
    present = datetime.fromtimestamp(now).astimezone()
    if moment.date() == present.date():
        return moment.strftime("%H:%M")
    return moment.strftime("%d %b" if moment.year == present.year else "%b %Y")


def clock(seconds: float) -> str:
    """Date and time of this machine's zone."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def tokens(read: int | None, written: int | None) -> str:
    """``700 + 112``: read and written; empty where neither is known."""
    if read is None and written is None:
        return ""
    return " + ".join("?" if count is None else f"{count:,}" for count in (read, written))


def _total(trace: Trace) -> str:
    known = [count for count in (trace.input_tokens, trace.output_tokens) if count is not None]
    return f"{sum(known):,}" if known else ""


def money(usd: float | None) -> str:
    """The cost; ``unknown`` rather than nothing."""
    return cost(usd).removeprefix("cost ")


def status_html(status: str, *, short: bool = False) -> str:
    """A coloured sign, with the word beside it unless it is to be short."""
    word = "" if short else f" {plain(status)}"
    return f'<span class="rs-status is-{plain(status)}" title="{plain(status)}">{word}</span>'


def trace_html(trace: Trace) -> str:
    """One trace with all its steps."""
    facts = (
        ("", status_html(trace.status)),
        ("", plain(clock(trace.started))),
        ("", duration(trace.latency_s) if trace.latency_s is not None else "running"),
        ("", f"{tokens(trace.input_tokens, trace.output_tokens) or 'unknown'} tok"),
        ("", plain(cost(trace.cost_usd))),
        ("prompt", plain(trace.prompt)),
        ("model", plain(trace.model)),
        ("corpus", plain(trace.corpus)),
        ("release", plain(trace.release)),
    )
    line = "".join(f"<span>{f'<i>{name}</i> ' if name else ''}{value}</span>" for name, value in facts if value)
    said = f'<div class="rs-said">{plain(trace.answer)}</div>' if trace.answer else ""
    error = f'<p class="rs-error">{plain(trace.error)}</p>' if trace.error else ""
    return (
        f'<div class="rs-trace-view"><div class="rs-trace-q">{plain(trace.question)}</div>'
        f'<div class="rs-facts">{line}</div>{_feedback(trace)}{error}{said}'
        f'<div class="rs-head">Steps</div>{_tree(trace)}'
        f'<div class="rs-trace-id">trace {plain(trace.id)} <button type="button" class="rs-link rs-case" '
        f'value="{plain(trace.id)}" '
        'title="Keep this question as a case of a dataset">+ case</button></div></div>'
    )


def _feedback(trace: Trace) -> str:
    if trace.feedback is None:
        return ""
    return f'<div class="rs-said-of">{thumb(trace.feedback.rating)} {plain(trace.feedback.comment)}</div>'


def _tree(trace: Trace) -> str:
    if not trace.spans:
        return '<div class="rs-none">No step was stored.</div>'
    total = trace.latency_s or max(
        ((span.ended or span.started) - trace.started for span in trace.spans), default=0.0
    )
    known = {span.id for span in trace.spans}
    children: dict[str | None, list[Span]] = {}
    for span in trace.spans:
        # A step whose parent was never stored stands at the top: nothing is hidden.
        parent = span.parent_id if span.parent_id in known else None
        children.setdefault(parent, []).append(span)
    rows: list[str] = []
    waiting = [(span, 0) for span in reversed(children.get(None, []))]
    seen: set[str] = set()
    while waiting:
        span, depth = waiting.pop()
        if span.id in seen:
            continue
        seen.add(span.id)
        rows.append(_span(span, depth, trace.started, total))
        waiting += [(child, depth + 1) for child in reversed(children.get(span.id, []))]
    return f'<div class="rs-tree">{"".join(rows)}</div>'


def _span(span: Span, depth: int, began: float, total: float) -> str:
    took = None if span.ended is None else max(span.ended - span.started, 0.0)
    left = _share(span.started - began, total)
    width = max(_share(took or 0.0, total), 0.5)
    facts = [_milliseconds(took) if took is not None else "not finished"]
    counted = tokens(span.input_tokens, span.output_tokens)
    if counted:
        facts += [f"{counted} tok"]
    # Only a model costs: of the other steps "unknown" would say nothing.
    if span.cost_usd is not None or span.kind in ("llm", "chat_model"):
        facts += [cost(span.cost_usd)]
    error = f'<p class="rs-error">{plain(span.error)}</p>' if span.error else ""
    return (
        f'<details class="rs-span" style="--depth:{min(depth, 12)}"><summary>'
        f'{status_html(span.status, short=True)}<span class="rs-span-name">{plain(span.name)}</span>'
        f'<span class="rs-bar"><i style="margin-left:{left:.1f}%;width:{min(width, 100 - left):.1f}%"></i></span>'
        f'<span class="rs-span-facts">{plain(" · ".join(facts))}</span></summary>'
        f"{error}{_json('Input', span.input)}{_json('Output', span.output)}{_attributes(span)}</details>"
    )


def _share(seconds: float, total: float) -> float:
    return min(max(seconds / total * 100, 0.0), 99.5) if total > 0 else 0.0


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else duration(seconds)


def _attributes(span: Span) -> str:
    return _json("Attributes", dict(span.attributes)) if span.attributes else ""


def _json(title: str, value: JSON) -> str:
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    rest = len(text) - SHOWN_JSON
    cut = (
        f'<div class="rs-note">{rest:,} more characters: `ragsmith traces show ID --json` shows all.</div>'
        if rest > 0
        else ""
    )
    return f'<div class="rs-io"><b>{title}</b><pre>{plain(text[:SHOWN_JSON])}</pre>{cut}</div>'
