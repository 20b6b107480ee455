"""Prompts as HTML: the list, the versions, and the panes of one version. Pure functions."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from prompts import PRODUCTION, Message, Move, PromptTemplate
from prompts.diff import Change
from prompts.template import NAME
from rag.evaluation.metric_formatting import format_interval, format_metric
from rag.evaluation.prompt_scores import SCORE, VersionScore
from rag.tracing.figures import counted, format_cost, format_seconds
from rag.tracing.prompt_usage import PromptUse, VersionUse
from rag.tracing.trace_store import TracePage
from ui.pages.prompts.draft_settings import FIELDS
from ui.pages.prompts.prompt_listing import Export, PromptEntry, VersionEntry, VersionPage
from ui.pages.safe_markup import fragment, note
from ui.pages.traces.list_view import PLAIN_COLUMNS, rows_of

_PLACEHOLDER = re.compile(rf"\{{\{{\s*(?:([a-z][a-z0-9_]*)|>\s*({NAME}(?:@[a-z0-9-]+)?))\s*\}}\}}")
_MEDIA = {"yaml": ("application/yaml", "yaml"), "text": ("text/plain", "txt")}


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text: plain, or a placeholder of a variable or of another prompt."""

    text: str
    css: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """A message or a fragment of a prompt; ``title`` is its role or its name."""

    title: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Download:
    """A version as a file of another format; ``name`` is empty where the format cannot express it."""

    export: Export
    name: str = ""
    href: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """The score of a version in its newest evaluation; ``about`` says how it was measured."""

    run: str
    value: str
    about: str


@dataclass(frozen=True, slots=True)
class UseRow:
    """The metrics of the answers of one version, as the table shows them."""

    use: VersionUse
    time: str
    tokens: str
    cost: str
    refused: str
    score: Score | None


def entries_html(entries: Sequence[PromptEntry], chosen: str) -> str:
    """Render the list of prompts."""
    rows = [(entry, entry.error or _entry_facts(entry)) for entry in entries]
    return fragment("prompts_entries.html.jinja", rows=rows, chosen=chosen)


def _entry_facts(entry: PromptEntry) -> str:
    others = ", ".join(label for label in entry.labels if label != PRODUCTION)
    runs = entry.labels.get(PRODUCTION)
    behind = f"production v{runs}" if runs != entry.newest else ""
    return " · ".join(fact for fact in (f"v{entry.newest}", behind, others) if fact)


def versions_html(page: VersionPage, chosen: int) -> str:
    """Render the list of versions, newest first."""
    if not page.versions:
        return note("No version matches.")
    of = counted(page.total, "version")
    if page.matching != page.total:
        of = f"{page.matching:,} that match, of {of}"
    return fragment(
        "prompts_versions.html.jinja",
        rows=[(version, _labels(version.labels), _origin(version)) for version in page.versions],
        chosen=chosen,
        count=f"{len(page.versions):,} of {of}",
        more=page.matching > len(page.versions),
    )


def _origin(version: VersionEntry) -> str:
    by = "ships with ragsmith" if version.ships else version.by or "written by hand"
    return f"{by} · {moment(version.at)}" if version.at else by


def _labels(labels: Iterable[str]) -> list[str]:
    """Sort labels by name, ``production`` first."""
    return sorted(labels, key=lambda label: (label != PRODUCTION, label))


def moment(at: datetime) -> str:
    """Format date and minute in the time zone of this machine."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M")


def head_html(prompt: PromptTemplate, labels: Collection[str], *, ships: bool) -> str:
    """Render the head of a version: labels, origin, reason and description."""
    saved = prompt.saved
    unsaved = "ships with ragsmith" if ships else "written by hand"
    return fragment(
        "prompts_head.html.jinja",
        prompt=prompt,
        labels=_labels(labels),
        ships=ships,
        origin=f"{saved.by} · {moment(saved.at)}" if saved else unsaved,
        why=saved.message if saved else "",
        about=prompt.description.strip(),
    )


def template_html(prompt: PromptTemplate, exports: Sequence[Export]) -> str:
    """Render the messages with their placeholders, the examples, fragments, includes and exports."""
    count = len(prompt.examples)
    return fragment(
        "prompts_template.html.jinja",
        prompt=prompt,
        includes=list(dict.fromkeys(prompt.includes)),
        messages=_blocks(prompt.messages),
        example_count=counted(count, "example") if count else "",
        examples=_blocks(prompt.shown_examples),
        example_form=_blocks(prompt.example),
        fragments=[Block(name, _pieces(text)) for name, text in prompt.fragments.items()],
        downloads=[_download(prompt, export) for export in exports],
    )


def _blocks(messages: Iterable[Message]) -> list[Block]:
    return [Block(message.role, _pieces(message.content)) for message in messages]


def _pieces(text: str) -> tuple[Piece, ...]:
    pieces: list[Piece] = []
    end = 0
    for found in _PLACEHOLDER.finditer(text):
        css = "rs-place" if found[1] else "rs-place is-include"
        pieces += (Piece(text[end : found.start()]), Piece(found[0], css))
        end = found.end()
    return (*pieces, Piece(text[end:]))


def _download(prompt: PromptTemplate, export: Export) -> Download:
    if export.text is None:
        return Download(export)
    media, ending = _MEDIA.get(export.form, ("application/json", "json"))
    name = f"{prompt.name}-{prompt.version}{'' if export.form in _MEDIA else f'-{export.form}'}.{ending}"
    data = base64.b64encode(export.text.encode()).decode()
    return Download(export, name, f"data:{media};base64,{data}")


def settings_html(prompt: PromptTemplate) -> str:
    """Render the settings of a version; for the others it says that ragsmith's settings apply."""
    given = prompt.settings.given
    rows = [(field.label, _value(given[field.name]) if field.name in given else None) for field in FIELDS]
    return fragment("prompts_settings.html.jinja", rows=rows, given=given)


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def changes_html(changes: Sequence[Change], old: str, new: str) -> str:
    """Render the differences part by part: what is removed is struck through, what is added is underlined."""
    if not changes:
        return note(f"{old} and {new} are the same.")
    return fragment("prompts_changes.html.jinja", changes=changes, old=old, new=new)


def use_html(use: PromptUse, scores: Mapping[int, VersionScore], name: str, chosen: int) -> str:
    """Render the metrics of the answers, version by version."""
    known = {version.version: version for version in use.versions}
    versions = sorted(known.keys() | scores.keys(), reverse=True)
    if not versions:
        return note(f"No trace and no evaluation names a version of {name}.")
    traces = counted(use.total, "trace")
    if use.counted != use.total:
        traces = f"the newest {use.counted:,} of {traces}"
    return fragment(
        "prompts_metrics.html.jinja",
        rows=[_use_row(known.get(version, VersionUse(version)), scores.get(version)) for version in versions],
        chosen=chosen,
        traces=traces,
        missing=chosen not in versions,
    )


def _use_row(use: VersionUse, found: VersionScore | None) -> UseRow:
    tokens = "unknown" if use.tokens is None else f"{use.tokens:,.0f}"
    unpriced = f" ({use.unpriced:,} unknown)" if use.unpriced and use.cost_usd is not None else ""
    share = use.refused_share
    return UseRow(
        use,
        time="" if use.latency_s is None else format_seconds(use.latency_s),
        tokens=tokens if use.answers else "",
        cost=format_cost(use.cost_usd).removeprefix("cost ") + unpriced if use.answers else "",
        refused="" if share is None else f"{share:.0%}",
        score=_score(found) if found else None,
    )


def _score(found: VersionScore) -> Score:
    run, estimate = found.run, found.estimate
    about = (
        f"{found.variant}: {format_interval(SCORE, estimate)}, {counted(estimate.n, 'case')} of "
        f"{run.dataset}@{run.dataset_version}"
    )
    return Score(run.id, format_metric(SCORE, estimate.value), about)


def used_html(page: TracePage, label: str) -> str:
    """Render the list of a version's traces."""
    if not page.traces:
        return note(f"No question has been answered with {label} yet.")
    return fragment(
        "prompts_traces.html.jinja", rows=rows_of(page.traces), columns=PLAIN_COLUMNS, total=page.total, chosen=""
    )


def moves_html(moves: Sequence[Move], name: str) -> str:
    """Render the moves of the labels, newest first."""
    if not moves:
        return note(f"No label of {name} has been moved: production is the version that ships.")
    return fragment("prompts_moves.html.jinja", rows=[(move, moment(move.at)) for move in reversed(moves)])
