"""Prompts as HTML: the list, the time line, and one version from every side. Pure functions."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

from prompts import PRODUCTION, Message, Move, PromptTemplate
from prompts.diff import Change
from prompts.template import NAME
from rag.evaluation.metric_formatting import format_interval, format_metric
from rag.evaluation.standing import SCORE, Standing
from rag.tracing.prompt_usage import PromptUse, VersionUse
from rag.tracing.trace_store import TracePage
from ui.pages.chat.answer_html import cost, duration
from ui.pages.prompts.prompts_draft import FIELDS
from ui.pages.prompts.prompts_list import Entry, Export, Line, Point
from ui.pages.safe_markup import plain, thumb
from ui.pages.traces.trace_view import list_html

CHOOSE = '<div class="rs-pick">Choose a prompt.</div>'

_PLACE = re.compile(rf"\{{\{{\s*(?:([a-z][a-z0-9_]*)|>\s*({NAME}(?:@[a-z0-9-]+)?))\s*\}}\}}")
_MEDIA = {"yaml": ("application/yaml", "yaml"), "text": ("text/plain", "txt")}


def entries_html(entries: Sequence[Entry], chosen: str) -> str:
    """The prompts, each a button."""
    rows = "".join(_entry(each, each.name == chosen) for each in entries)
    return f'<nav class="rs-prompts" aria-label="Prompts">{rows}</nav>'


def _entry(entry: Entry, chosen: bool) -> str:
    if entry.error:
        told = f'<span class="rs-prompt-facts rs-error">{plain(entry.error)}</span>'
    else:
        others = [label for label in entry.labels if label != PRODUCTION]
        named = f" · {plain(', '.join(others))}" if others else ""
        runs = entry.labels.get(PRODUCTION)
        behind = f" · production v{runs}" if runs != entry.newest else ""
        told = f'<span class="rs-prompt-facts">v{entry.newest}{behind}{named}</span>'
    on = ' aria-current="true"' if chosen else ""
    return (
        f'<button type="button" class="rs-prompt" data-do="prompt" data-value="{plain(entry.name)}"{on}>'
        f'<span class="rs-prompt-name">{plain(entry.name)}</span>{told}</button>'
    )


def line_html(line: Line, chosen: int) -> str:
    """The versions, newest first, each a button."""
    if not line.points:
        return f'<div class="rs-none">None of the {line.total:,} versions fits.</div>'
    rows = "".join(_point(each, each.version == chosen) for each in line.points)
    of = f"{line.fitting:,}" if line.fitting == line.total else f"{line.fitting:,} that fit, of {line.total:,}"
    rest = line.fitting - len(line.points)
    more = '<button type="button" class="rs-more" data-do="prompt-more">Show more</button>' if rest else ""
    versions = "version" if line.total == 1 else "versions"
    count = f'<div class="rs-count">{len(line.points):,} of {of} {versions}{more}</div>'
    return f'<ol class="rs-points" aria-label="Versions, newest first">{rows}</ol>{count}'


def _point(point: Point, chosen: bool) -> str:
    on = ' aria-current="true"' if chosen else ""
    if point.error:
        told = f'<span class="rs-point-why rs-error">{plain(point.error)}</span>'
    else:
        by = "ships with ragsmith" if point.ships else plain(point.by or "written by hand")
        when = f" · {plain(moment(point.at))}" if point.at else ""
        why = f'<span class="rs-point-why">{plain(point.message)}</span>' if point.message else ""
        told = f'{why}<span class="rs-prompt-facts">{by}{when}</span>'
    return (
        f'<li><button type="button" class="rs-point" data-do="prompt-version" data-value="{point.version}"{on}>'
        f'<span class="rs-point-head"><b>v{point.version}</b>{chips(point.labels)}'
        f"{_SHIPS if point.ships else ''}</span>{told}</button></li>"
    )


_SHIPS = '<span class="rs-chip">ships</span>'


def chips(labels: Iterable[str]) -> str:
    """Labels, ``production`` marked."""
    return "".join(
        f'<span class="rs-chip{" is-production" if label == PRODUCTION else ""}">'
        f"{'● ' if label == PRODUCTION else ''}{plain(label)}</span>"
        for label in sorted(labels, key=lambda label: (label != PRODUCTION, label))
    )


def moment(at: datetime) -> str:
    """Date and minute of this machine's zone."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M")


def head_html(prompt: PromptTemplate, labels: Collection[str], *, ships: bool) -> str:
    """What is known of a version before it is read."""
    saved = prompt.saved
    if saved:
        told = f"{plain(saved.by)} · {plain(moment(saved.at))}"
        why = f'<span class="rs-why">{plain(saved.message)}</span>' if saved.message else ""
    else:
        told, why = ("ships with ragsmith" if ships else "written by hand"), ""
    tags = "".join(f'<span class="rs-tag">{plain(tag)}</span>' for tag in prompt.tags)
    about = f'<p class="rs-about">{plain(prompt.description.strip())}</p>' if prompt.description.strip() else ""
    return (
        f'<div class="rs-prompt-head"><h2>{plain(prompt.label)}</h2>{chips(labels)}{_SHIPS if ships else ""}{tags}'
        f'<span class="rs-prompt-facts">{told}</span></div>{why}{about}'
    )


def template_html(prompt: PromptTemplate, exports: Sequence[Export]) -> str:
    """The messages with their places, examples, fragments, and what it includes."""
    parts = [
        _facts("Variables", (f'<code class="rs-place">{plain(name)}</code>' for name in prompt.variables)),
        _facts("Includes", (_include(name) for name in dict.fromkeys(prompt.includes))),
        *(_message(message) for message in prompt.messages),
    ]
    if prompt.examples:
        count = f"{len(prompt.examples)} {'example' if len(prompt.examples) == 1 else 'examples'}"
        shown = "".join(_message(message) for message in prompt.shown_examples)
        form = "".join(_message(message) for message in prompt.example)
        parts.append(
            f'<details class="rs-fold-part"><summary class="rs-head">{count}, before the last message</summary>'
            f'{shown}<div class="rs-head">How one is shown</div>{form}</details>'
        )
    if prompt.fragments:
        rows = "".join(
            f'<div class="rs-message"><div class="rs-role">{plain(name)}</div>{_text(text)}</div>'
            for name, text in prompt.fragments.items()
        )
        parts.append(f'<div class="rs-head">Fragments</div>{rows}')
    parts.append(_exports(prompt, exports))
    return f'<div class="rs-template">{"".join(parts)}</div>'


def _facts(title: str, values: Iterable[str]) -> str:
    told = " ".join(values)
    return f'<div class="rs-line-of"><span>{title}</span> {told}</div>' if told else ""


def _include(reference: str) -> str:
    return (
        f'<button type="button" class="rs-include" data-do="prompt-open" data-value="{plain(reference)}" '
        f'title="Show {plain(reference)}">{plain(reference)}</button>'
    )


def _message(message: Message) -> str:
    return f'<div class="rs-message"><div class="rs-role">{message.role}</div>{_text(message.content)}</div>'


def _text(text: str) -> str:
    told: list[str] = []
    end = 0
    for found in _PLACE.finditer(text):
        sort = "rs-place" if found[1] else "rs-place is-include"
        told += (plain(text[end : found.start()]), f'<code class="{sort}">{plain(found[0])}</code>')
        end = found.end()
    return f'<div class="rs-content">{"".join((*told, plain(text[end:])))}</div>'


def _exports(prompt: PromptTemplate, exports: Sequence[Export]) -> str:
    if not exports:
        return ""
    rows = "".join(_export(prompt, each) for each in exports)
    lost = (
        '<div class="rs-note">Fragments and tags are in the YAML alone.</div>'
        if prompt.fragments or prompt.tags
        else ""
    )
    return (
        f'<details class="rs-fold-part"><summary class="rs-head">Export</summary><ul>{rows}</ul>{lost}</details>'
    )


def _export(prompt: PromptTemplate, export: Export) -> str:
    if export.text is None:
        return f"<li>{plain(export.form)}: {plain(export.why)}</li>"
    media, ending = _MEDIA.get(export.form, ("application/json", "json"))
    name = f"{prompt.name}-{prompt.version}{'' if export.form in _MEDIA else f'-{export.form}'}.{ending}"
    data = base64.b64encode(export.text.encode()).decode()
    return f'<li><a download="{plain(name)}" href="data:{media};base64,{data}">{plain(name)}</a></li>'


def settings_html(prompt: PromptTemplate) -> str:
    """What the version asks for; what it leaves to the process is said to be left."""
    given = prompt.settings.given
    rows = "".join(
        f"<tr><th>{plain(field.label)}</th>"
        + (
            f"<td><pre>{plain(_value(given[field.name]))}</pre></td>"
            if field.name in given
            else '<td class="rs-left-open">as the settings of ragsmith say</td>'
        )
        + "</tr>"
        for field in FIELDS
    )
    note = "" if given else '<p class="rs-note">This version asks for nothing of its own.</p>'
    return f'{note}<table class="rs-settings">{rows}</table>'


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def changes_html(changes: Sequence[Change], old: str, new: str) -> str:
    """What differs, part by part: taken out is struck through, put in is underlined."""
    if not changes:
        return f'<div class="rs-none">{plain(old)} and {plain(new)} are the same.</div>'
    parts = "".join(_change(change) for change in changes)
    count = f"{len(changes)} {'part differs' if len(changes) == 1 else 'parts differ'}"
    legend = f"<span>{count}</span><del>− only in {plain(old)}</del><ins>+ only in {plain(new)}</ins>"
    return f'<div class="rs-changes"><div class="rs-legend">{legend}</div>{parts}</div>'


def _change(change: Change) -> str:
    sort = "" if None not in (change.old, change.new) else (" (new)" if change.old is None else " (taken out)")
    tags = {"removed": "del", "added": "ins", "same": "span"}
    pieces = "".join(
        f"<{tags[each.kind]}>{plain(each.text)}</{tags[each.kind]}>" for each in change.pieces if each.text
    )
    return (
        f'<section class="rs-change"><h3>{plain(change.where)}{sort}</h3>'
        f'<div class="rs-content">{pieces}</div></section>'
    )


def use_html(use: PromptUse, scores: Mapping[int, Standing], name: str, chosen: int) -> str:
    """What became of the answers, version by version."""
    known = {each.version: each for each in use.versions}
    versions = sorted(known.keys() | scores.keys(), reverse=True)
    if not versions:
        return f'<div class="rs-none">No trace and no evaluation names a version of {plain(name)}.</div>'
    heads = ("Version", "Answers", "Median time", "Median tokens", "Mean cost", "Score", "Refused", "Failed")
    head = "".join(f'<th scope="col">{title}</th>' for title in (*heads, "Up", "Down"))
    rows = "".join(
        _use(known.get(version, VersionUse(version)), scores.get(version), version == chosen)
        for version in versions
    )
    told = (
        f"{use.counted:,} traces"
        if use.counted == use.total
        else (f"the newest {use.counted:,} of {use.total:,} traces")
    )
    missing = "" if chosen in versions else f" Nothing names v{chosen}."
    return (
        f'<div class="rs-wide"><table class="rs-use"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        f'</div><div class="rs-note">From {told}. Refused: the answer was that the documents do not tell. Score: '
        f"answers that hold a right one, in the newest finished evaluation of the version.{missing}</div>"
    )


def _use(use: VersionUse, score: Standing | None, chosen: bool) -> str:
    share = use.refused_share
    unpriced = f" ({use.unpriced:,} unknown)" if use.unpriced and use.cost_usd is not None else ""
    cells = (
        f"{use.answers:,}",
        "" if use.latency_s is None else _time(use.latency_s),
        "" if not use.answers else "unknown" if use.tokens is None else f"{use.tokens:,.0f}",
        cost(use.cost_usd).removeprefix("cost ") + unpriced if use.answers else "",
        _score(score) if score else "",
        "" if share is None else f"{share:.0%}",
        f"{use.failed:,}",
        f"{thumb('up')} {use.up:,}",
        f"{thumb('down')} {use.down:,}",
    )
    on = ' class="is-on" aria-current="true"' if chosen else ""
    first = (
        f'<th scope="row"><button type="button" class="rs-include" data-do="prompt-version" '
        f'data-value="{use.version}">v{use.version}</button></th>'
    )
    return f"<tr{on}>{first}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _score(score: Standing) -> str:
    run, estimate = score.run, score.estimate
    about = (
        f"{score.variant}: {format_interval(SCORE, estimate)}, {estimate.n:,} cases of "
        f"{run.dataset}@{run.dataset_version}"
    )
    told = format_metric(SCORE, estimate.value)
    return f'<a href="?tab=evaluate&amp;run={plain(run.id)}" title="{plain(about)}">{told}</a>'


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else duration(seconds)


def used_html(page: TracePage, label: str) -> str:
    """The traces of a version, each of which opens."""
    if not page.traces:
        return f'<div class="rs-none">No question was answered with {plain(label)} yet.</div>'
    return f'<div class="rs-wide">{list_html(page, 1)}</div>'


def moves_html(moves: Sequence[Move], name: str) -> str:
    """How the labels were moved, the newest first."""
    if not moves:
        return (
            f'<div class="rs-none">No label of {plain(name)} was ever moved: production is the version that ships.'
            "</div>"
        )
    rows = "".join(_move(move) for move in reversed(moves))
    head = "".join(f'<th scope="col">{title}</th>' for title in ("When", "Label", "To", "Who", "Why"))
    return (
        f'<div class="rs-wide"><table class="rs-use rs-moves"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>'
        f'</table></div><div class="rs-count">{len(moves):,} {"move" if len(moves) == 1 else "moves"}</div>'
    )


def _move(move: Move) -> str:
    to = (
        "taken away"
        if move.version is None
        else (
            f'<button type="button" class="rs-include" data-do="prompt-version" data-value="{move.version}">'
            f"v{move.version}</button>"
        )
    )
    cells = (plain(moment(move.at)), chips((move.label,)), to, plain(move.by), plain(move.message))
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
