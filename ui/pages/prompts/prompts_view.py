"""Prompts as HTML: the list, the time line, and one version from every side. Pure functions."""

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
from rag.tracing.prompt_usage import PromptUse, VersionUse
from rag.tracing.trace_store import TracePage
from ui.pages.chat.answer_html import duration
from ui.pages.prompts.prompts_draft import FIELDS
from ui.pages.prompts.prompts_list import Entry, Export, Line, Point
from ui.pages.safe_markup import fragment, note
from ui.pages.traces.trace_view import money, rows_of

_PLACE = re.compile(rf"\{{\{{\s*(?:([a-z][a-z0-9_]*)|>\s*({NAME}(?:@[a-z0-9-]+)?))\s*\}}\}}")
_MEDIA = {"yaml": ("application/yaml", "yaml"), "text": ("text/plain", "txt")}


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text: plain, or a place where a variable or another prompt is put in."""

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
    """What became of the answers of one version, as the table shows it."""

    use: VersionUse
    time: str
    tokens: str
    cost: str
    refused: str
    score: Score | None


def entries_html(entries: Sequence[Entry], chosen: str) -> str:
    """The prompts, each a button."""
    rows = [(entry, entry.error or _entry_facts(entry)) for entry in entries]
    return fragment("prompts_entries.html.jinja", rows=rows, chosen=chosen)


def _entry_facts(entry: Entry) -> str:
    others = ", ".join(label for label in entry.labels if label != PRODUCTION)
    runs = entry.labels.get(PRODUCTION)
    behind = f"production v{runs}" if runs != entry.newest else ""
    return " · ".join(fact for fact in (f"v{entry.newest}", behind, others) if fact)


def line_html(line: Line, chosen: int) -> str:
    """The versions, newest first, each a button."""
    if not line.points:
        return note(f"None of the {line.total:,} versions fits.")
    of = f"{line.fitting:,}" if line.fitting == line.total else f"{line.fitting:,} that fit, of {line.total:,}"
    versions = "version" if line.total == 1 else "versions"
    return fragment(
        "prompts_versions.html.jinja",
        rows=[(point, _labels(point.labels), _origin(point)) for point in line.points],
        chosen=chosen,
        count=f"{len(line.points):,} of {of} {versions}",
        more=line.fitting > len(line.points),
    )


def _origin(point: Point) -> str:
    by = "ships with ragsmith" if point.ships else point.by or "written by hand"
    return f"{by} · {moment(point.at)}" if point.at else by


def _labels(labels: Iterable[str]) -> list[str]:
    """Labels by name, ``production`` first."""
    return sorted(labels, key=lambda label: (label != PRODUCTION, label))


def moment(at: datetime) -> str:
    """Date and minute of this machine's zone."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M")


def head_html(prompt: PromptTemplate, labels: Collection[str], *, ships: bool) -> str:
    """What is known of a version before it is read."""
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
    """The messages with their places, examples, fragments, and what it includes."""
    count = len(prompt.examples)
    return fragment(
        "prompts_template.html.jinja",
        prompt=prompt,
        includes=list(dict.fromkeys(prompt.includes)),
        messages=_blocks(prompt.messages),
        example_count=f"{count} {'example' if count == 1 else 'examples'}" if count else "",
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
    for found in _PLACE.finditer(text):
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
    """The settings that the version sets; of the others it says that those of ragsmith hold."""
    given = prompt.settings.given
    rows = [(field.label, _value(given[field.name]) if field.name in given else None) for field in FIELDS]
    return fragment("prompts_settings.html.jinja", rows=rows, given=given)


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def changes_html(changes: Sequence[Change], old: str, new: str) -> str:
    """What differs, part by part: taken out is struck through, put in is underlined."""
    if not changes:
        return note(f"{old} and {new} are the same.")
    return fragment("prompts_changes.html.jinja", changes=changes, old=old, new=new)


def use_html(use: PromptUse, scores: Mapping[int, VersionScore], name: str, chosen: int) -> str:
    """What became of the answers, version by version."""
    known = {version.version: version for version in use.versions}
    versions = sorted(known.keys() | scores.keys(), reverse=True)
    if not versions:
        return note(f"No trace and no evaluation names a version of {name}.")
    counted = f"{use.counted:,} traces"
    if use.counted != use.total:
        counted = f"the newest {use.counted:,} of {use.total:,} traces"
    return fragment(
        "prompts_metrics.html.jinja",
        rows=[_use_row(known.get(version, VersionUse(version)), scores.get(version)) for version in versions],
        chosen=chosen,
        counted=counted,
        missing=chosen not in versions,
    )


def _use_row(use: VersionUse, found: VersionScore | None) -> UseRow:
    tokens = "unknown" if use.tokens is None else f"{use.tokens:,.0f}"
    unpriced = f" ({use.unpriced:,} unknown)" if use.unpriced and use.cost_usd is not None else ""
    share = use.refused_share
    return UseRow(
        use,
        time="" if use.latency_s is None else _time(use.latency_s),
        tokens=tokens if use.answers else "",
        cost=money(use.cost_usd) + unpriced if use.answers else "",
        refused="" if share is None else f"{share:.0%}",
        score=_score(found) if found else None,
    )


def _score(found: VersionScore) -> Score:
    run, estimate = found.run, found.estimate
    about = (
        f"{found.variant}: {format_interval(SCORE, estimate)}, {estimate.n:,} cases of "
        f"{run.dataset}@{run.dataset_version}"
    )
    return Score(run.id, format_metric(SCORE, estimate.value), about)


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else duration(seconds)


def used_html(page: TracePage, label: str) -> str:
    """The traces of a version, each of which opens."""
    if not page.traces:
        return note(f"No question was answered with {label} yet.")
    return fragment("prompts_traces.html.jinja", rows=rows_of(page), first=1, total=page.total, chosen="")


def moves_html(moves: Sequence[Move], name: str) -> str:
    """How the labels were moved, the newest first."""
    if not moves:
        return note(f"No label of {name} was ever moved: production is the version that ships.")
    return fragment("prompts_moves.html.jinja", rows=[(move, moment(move.at)) for move in reversed(moves)])
