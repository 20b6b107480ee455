"""Prepared data and what is found in raw data, as text for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from rag.tracing.figures import counted
from ui.commands._console import print_table
from ui.commands._terminal_text import moment, note, one_line, visible

if TYPE_CHECKING:
    from finetune.prepared.data_versions import DataVersion
    from finetune.prepared.exploration import Exploration, Lengths, Listed, RowExcerpt
    from finetune.prepared.preparation_plan import StepReport

_BARS = "▁▂▃▄▅▆▇█"
# Problems and rows that are printed; --json has more.
_LISTED = 6
_SHOWN = 60


def print_exploration(found: Exploration) -> None:
    """Print what was found in a file, the conspicuous rows last."""
    click.echo(
        f"{one_line(found.file)}: {counted(found.rows, 'row')}, columns {one_line(', '.join(found.columns))}"
    )
    click.echo(f"prompt: {one_line(found.prompt)}   completion: {one_line(found.completion)}")
    if found.base:
        window = f", which reads {found.window:,} tokens" if found.window else ""
        click.echo(f"tokens: of {one_line(found.base)}{window}")
    elif found.no_tokens:
        note(f"Tokens are not counted: {found.no_tokens}")
    click.echo()
    names = ("", "shortest", "median", "mean", "95 %", "longest", "total", "distribution")
    print_table(names, [_length_row(lengths) for lengths in found.lengths], names[1:7])
    _print_rows("longest completions", found.longest, found.unit)
    _print_rows("shortest completions", found.shortest, found.unit)
    click.echo("\nlanguages: " + ", ".join(f"{name} {count:,}" for name, count in found.languages))
    _print_listed(
        "cannot be used", len(found.problems), [(number, reason, "") for number, reason in found.problems], found
    )
    # Without tokens, no row is known to be too long.
    too_long = ((f"over {found.max_tokens:,} tokens", found.too_long),) if found.base else ()
    for what, listed in (
        ("empty", found.empty),
        ("placeholders", found.placeholders),
        ("exact duplicates", found.duplicates),
        ("near-duplicates", found.near_duplicates),
        *too_long,
        ("with personal data", found.personal),
    ):
        _print_listed(what, listed.count, _lines(listed), found)
    if found.matches is not None:
        _print_listed("matches", found.matches.count, _lines(found.matches), found)
    if found.grouped_by:
        click.echo(f"\nby {one_line(found.grouped_by)}:")
        print_table(("", "rows"), [(name or "(empty)", f"{count:,}") for name, count in found.groups], ("rows",))


def print_steps(steps: Sequence[StepReport], first: int, unit: str) -> None:
    """Print what each step did, with an example of one row before and after it.

    Args:
        steps: The steps.
        first: Rows before the first one.
        unit: What the numbers of the rows count.
    """
    from finetune.prepared.preparation_plan import DESCRIPTIONS

    click.echo(f"{counted(first, 'row')}")
    for number, step in enumerate(steps, 1):
        what = "drops" if step.drops else "touches"
        click.echo(
            f"{number}. {step.name}: {what} {step.touched:,}, leaves {step.left:,}  ({DESCRIPTIONS[step.name]})"
        )
        if step.row and step.drops:
            click.echo(f"     {unit} {step.row}: {_quoted(step.before)} – {one_line(step.after)}")
        elif step.row:
            click.echo(f"     {unit} {step.row}, before: {_quoted(step.before)}")
            click.echo(f"     {' ' * len(f'{unit} {step.row}')}   after: {_quoted(step.after)}")


def print_version_steps(version: DataVersion) -> None:
    """Print the steps of a version."""
    first = version.steps[0] if version.steps else None
    if first is not None:
        print_steps(version.steps, first.left + (first.touched if first.drops else 0), version.unit)


def print_version(version: DataVersion) -> None:
    """Print one line on a version."""
    click.echo(
        f"{version.label}  {version.folder_name}  {moment(version.created)}  {counted(version.rows, 'row')} + "
        f"{version.validation_rows:,} for validation, from {one_line(version.source)}"
    )


def _quoted(text: str) -> str:
    # Line ends and spaces at the edges matter here.
    return f"“{visible(text).replace(chr(10), '⏎')}”"


def _length_row(lengths: Lengths) -> tuple[str, ...]:
    most = max(count for _, count in lengths.bars)
    bars = "".join(
        " " if not count else _BARS[min(count * len(_BARS) // (most + 1), len(_BARS) - 1)]
        for _, count in lengths.bars
    )
    numbers = (lengths.shortest, lengths.median, round(lengths.mean), lengths.p95, lengths.longest, lengths.total)
    return (lengths.what, *(f"{number:,}" for number in numbers), bars)


def _print_rows(title: str, rows: Sequence[RowExcerpt], unit: str) -> None:
    click.echo(f"\n{title}:")
    for row in rows:
        click.echo(f"  {unit} {row.number}, {row.reason}: {_pair(row)}")


def _lines(listed: Listed) -> list[tuple[int, str, str]]:
    return [(row.number, row.reason, _pair(row)) for row in listed.rows]


def _pair(row: RowExcerpt) -> str:
    prompt, completion = one_line(row.prompt), one_line(row.completion)
    return f"{_clipped(prompt)} → {_clipped(completion)}"


def _clipped(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _print_listed(title: str, count: int, lines: Sequence[tuple[int, str, str]], found: Exploration) -> None:
    click.echo(f"{title}: {count:,}")
    for number, reason, text in lines[:_LISTED]:
        shown = f": {text}" if text else ""
        click.echo(f"  {found.unit} {number}, {one_line(reason)}{shown}")
    if count > _LISTED:
        click.echo(f"  … and {count - _LISTED:,} more")
