"""``ragsmith datasets``: lists of questions with what is known about their answers, in versions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ui.app.proposing import propose_cases
from ui.commands._app import command_app, prepare_corpus
from ui.commands._console import open_console
from ui.commands._signed import author, signed
from ui.commands._terminal_text import counted, moment, note, one_line, print_json, unpaired
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from rag.evaluation.case_files import BadRow
    from rag.evaluation.cases import Case
    from rag.evaluation.dataset_store import DatasetVersion

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def command() -> None:
    """Lists of questions with what is known about their answers, in versions.

    REF is NAME (the newest version) or NAME@VERSION.
    """


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, one object for each dataset.")
@pass_context
def list_command(context: Context, as_json: bool) -> None:
    """List the datasets with their newest versions."""
    from rag.evaluation.dataset_store import DatasetStore

    with command_app(context) as app:
        found = DatasetStore(app.stores.engine).list()
    if as_json:
        from dataclasses import asdict

        print_json([asdict(each) for each in found], indent=2)
    elif found:
        headings = ("dataset", "version", "cases", "saved", "")
        _show_table(
            headings,
            [(each.name, str(each.version), f"{each.size:,}", moment(each.saved), each.message) for each in found],
        )
    else:
        click.echo("There is no dataset yet. Make one with `ragsmith datasets import NAME FILE`.")


@command.command(name="show")
@click.argument("reference", metavar="REF")
@click.option("--start", type=click.IntRange(0), default=0, help="Leave out so many at the beginning.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object with the version and these cases.")
@pass_context
def show_command(context: Context, reference: str, start: int, limit: int, as_json: bool) -> None:
    """Show a version and its cases."""
    from rag.evaluation.dataset_store import DatasetStore

    with command_app(context) as app:
        store = DatasetStore(app.stores.engine)
        version = store.resolve(unpaired(reference))
        cases = tuple(store.cases(version, start, limit))
        versions = store.versions(version.name)
    if as_json:
        print_json(_told(version) | {"cases": [each.as_json() for each in cases]}, indent=2)
        return
    click.echo(f"{version.label}  {counted(version.size, 'case')}  {version.sha256[:12]}")
    for each in versions:
        said = one_line(f"{each.by}: {each.message}" if each.message else each.by)
        click.echo(f"  @{each.version}  {moment(each.saved)}  {counted(each.size, 'case')}  {said}")
    _show_cases(cases)
    if start + len(cases) < version.size:
        note(f"These are {len(cases)} of {version.size:,}; --start and --limit show others.")


@command.command(name="import")
@click.argument("name")
@click.argument("file", type=_FILE)
@click.option("--preview", is_flag=True, help="Say what is good and what is not, and save nothing.")
@click.option("--skip-bad", is_flag=True, help="Save what is good, though some is not.")
@click.option("--add", "adds", is_flag=True, help="Keep the cases of the newest version, beside those of FILE.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@signed
@pass_context
def import_command(
    context: Context,
    name: str,
    file: Path,
    preview: bool,
    skip_bad: bool,
    adds: bool,
    as_json: bool,
    message: str | None,
    by: str | None,
) -> None:
    """Save the cases of FILE as the next version of the dataset NAME.

    FILE is JSON lines, a JSON list, SQuAD's JSON, CSV or TSV, with question, answers, sources, must_refuse, tags,
    notes, history and id; only the question is required. In a table several values are separated by |.
    """
    from rag.evaluation.case_files import read_cases
    from rag.evaluation.dataset_store import DatasetStore

    found = read_cases(file)
    bad = [{"line": each.number, "reason": each.reason} for each in found.problems]
    if preview:
        if as_json:
            print_json({"good": len(found.cases), "bad": bad}, indent=2)
        else:
            click.echo(f"{counted(len(found.cases), 'case')} good, {len(bad):,} bad.")
            _name(found.problems)
        return
    _name(found.problems)
    if bad and not skip_bad:
        raise click.ClickException(
            f"Nothing was saved: {len(bad):,} bad in {file}. Correct them, or save the others with --skip-bad."
        )
    if not found.cases:
        raise click.ClickException(f"Nothing was saved: {file} holds no cases.")
    why = message if message is not None else f"imported from {file.name}"
    with command_app(context) as app:
        store = DatasetStore(app.stores.engine)
        if adds:
            version = store.add(name, found.cases, by=author(by), message=unpaired(why)).version
        else:
            version = store.save(name, found.cases, by=author(by), message=unpaired(why))
    if as_json:
        print_json(_told(version) | {"bad": bad}, indent=2)
    else:
        _report(version)


@command.command(name="export")
@click.argument("reference", metavar="REF")
@click.argument("file", type=_FILE)
@pass_context
def export_command(context: Context, reference: str, file: Path) -> None:
    """Write a version to FILE: JSON lines, CSV or TSV, as its ending says."""
    from rag.evaluation.case_files import write_cases
    from rag.evaluation.dataset_store import DatasetStore

    with command_app(context) as app:
        store = DatasetStore(app.stores.engine)
        version = store.resolve(unpaired(reference))
        written = write_cases(file, store.cases(version))
    click.echo(f"Wrote {counted(written, 'case')} of {version.label} to {one_line(str(file))}.")


@command.command(name="add")
@click.argument("name")
@click.option("--trace", "trace_id", metavar="ID", required=True, help="The trace whose question is taken.")
@click.option("--answer", "answers", multiple=True, metavar="TEXT", help="A right answer; repeat it for others.")
@click.option(
    "--source", "sources", multiple=True, metavar="S", help="Where it stands; by default what the answer cites."
)
@click.option("--refuse", is_flag=True, help="The documents do not answer it.")
@click.option("--notes", default="", help="Free text, kept with the case.")
@signed
@pass_context
def add_command(
    context: Context,
    name: str,
    trace_id: str,
    answers: Sequence[str],
    sources: Sequence[str],
    refuse: bool,
    notes: str,
    message: str | None,
    by: str | None,
) -> None:
    """Add the question of a trace to the dataset NAME, with the turns before it."""
    from rag.evaluation.dataset_store import DatasetStore
    from rag.evaluation.traced import case_of_trace

    with command_app(context) as app:
        trace = app.stores.traces.get(unpaired(trace_id))
        case = case_of_trace(
            trace,
            answers=[unpaired(each) for each in answers],
            sources=[unpaired(each) for each in sources],
            must_refuse=refuse,
            notes=unpaired(notes),
        )
        why = message if message is not None else f"from trace {trace.id}"
        made = DatasetStore(app.stores.engine).add(name, [case], by=author(by), message=unpaired(why))
    if made.unchanged:
        click.echo(f"{made.version.label} holds it already, as {case.id}.")
        return
    click.echo(f"{'Replaced' if made.replaced else 'Added'} {case.id}: {one_line(case.question)}")
    _report(made.version)


@command.command(name="remove")
@click.argument("name")
@click.argument("ids", metavar="CASE_ID...", nargs=-1, required=True)
@signed
@pass_context
def remove_command(context: Context, name: str, ids: Sequence[str], message: str | None, by: str | None) -> None:
    """Save a version of NAME without these cases; earlier versions keep them."""
    from rag.evaluation.dataset_store import DatasetStore

    why = message if message is not None else f"removed {counted(len(set(ids)), 'case')}"
    with command_app(context) as app:
        removed = [unpaired(each) for each in ids]
        version = DatasetStore(app.stores.engine).remove(
            unpaired(name), removed, by=author(by), message=unpaired(why)
        )
    _report(version)


@command.command(name="split")
@click.argument("reference", metavar="REF")
@click.option(
    "--shares",
    type=click.FloatRange(0, 1),
    nargs=3,
    default=(0.8, 0.1, 0.1),
    metavar="TRAIN VALIDATION TEST",
    help="By default 0.8 0.1 0.1.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Equal seeds part equal cases equally.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@signed
@pass_context
def split_command(
    context: Context,
    reference: str,
    shares: tuple[float, float, float],
    seed: int,
    as_json: bool,
    message: str | None,
    by: str | None,
) -> None:
    """Part a version into NAME-train, NAME-validation and NAME-test.

    Cases with a source in common, or the same question, come into the same part.
    """
    from rag.evaluation.dataset_store import DatasetStore
    from rag.evaluation.split import SHARES, split

    with command_app(context) as app:
        store = DatasetStore(app.stores.engine)
        version = store.resolve(unpaired(reference))
        wanted = dict(zip(SHARES, shares, strict=True))
        parted = split(store.cases(version), shares=wanted, seed=seed)
        empty = [name for name, share in wanted.items() if share > 0 and not parted.parts[name]]
        if empty:
            raise click.ClickException(
                f"Nothing was saved: no case is left for {' and '.join(empty)}. {version.label} has "
                f"{counted(version.size, 'case')} in {counted(parted.groups, 'group')} that belong together, the "
                f"largest of {parted.largest:,}."
            )
        why = unpaired(message if message is not None else f"part of {version.label}, seed {seed}")
        saved = {
            part: store.save(f"{version.name}-{part}", cases, by=author(by), message=why)
            for part, cases in parted.parts.items()
            if cases
        }
    if as_json:
        told = {part: _told(made) | {"share": parted.shares[part]} for part, made in saved.items()}
        print_json({"groups": parted.groups, "largest": parted.largest, "parts": told}, indent=2)
        return
    for part, made in saved.items():
        got, asked = 100 * parted.shares[part], 100 * wanted[part]
        click.echo(f"{made.label}: {counted(made.size, 'case')}, {got:.1f} % of {asked:g} % wanted")


@command.command(name="candidates")
@click.argument("name")
@click.option("--corpus", metavar="C", help="Where the passages are from; by default the corpus of the settings.")
@click.option("--count", type=click.IntRange(1), help="Have so many questions written first.")
@click.option("--seed", type=int, default=0, show_default=True, help="Equal seeds draw equal passages.")
@click.option("--json", "as_json", is_flag=True, help="Print the candidates that wait as a JSON list.")
@pass_context
def candidates_command(
    context: Context, name: str, corpus: str | None, count: int | None, seed: int, as_json: bool
) -> None:
    """Show the questions that are proposed for the dataset NAME, or have some written about passages.

    `ragsmith datasets accept` and `ragsmith datasets reject` decide on them.
    """
    from rag.evaluation.candidates import CandidateStore

    with command_app(context) as app:
        store = CandidateStore(app.stores.engine)
        if count is not None:
            about = prepare_corpus(app.settings, app.stores, app.releases, corpus)
            generator = app.models.generator(app.settings.generator.adapter)
            new = propose_cases(app.stores, generator, name, about, count, seed)
            note(f"{counted(new, 'new candidate')} for {name}.")
        waiting = store.waiting(unpaired(name))
    if as_json:
        print_json([each.as_json() for each in waiting], indent=2)
    elif waiting:
        _show_cases(waiting)
    else:
        click.echo(f"No candidate waits for {name}. Have some written with --count.")


@command.command(name="accept")
@click.argument("name")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that wait.")
@signed
@pass_context
def accept_command(
    context: Context, name: str, ids: Sequence[str], everything: bool, message: str | None, by: str | None
) -> None:
    """Take candidates into the next version of the dataset NAME."""
    from rag.evaluation.candidates import CandidateStore

    with command_app(context) as app:
        store = CandidateStore(app.stores.engine)
        chosen = _chosen(ids, everything, lambda: store.waiting(unpaired(name)))
        version = store.accept(unpaired(name), chosen, by=author(by), message=unpaired(message or "")).version
    _report(version)


@command.command(name="reject")
@click.argument("name")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that wait.")
@pass_context
def reject_command(context: Context, name: str, ids: Sequence[str], everything: bool) -> None:
    """Turn candidates down; they are not proposed again."""
    from rag.evaluation.candidates import CandidateStore

    with command_app(context) as app:
        store = CandidateStore(app.stores.engine)
        rejected = store.reject(unpaired(name), _chosen(ids, everything, lambda: store.waiting(unpaired(name))))
    click.echo(f"Rejected {counted(rejected, 'candidate')}.")


def _chosen(ids: Sequence[str], everything: bool, waiting: Callable[[], Iterable[Case]]) -> list[str]:
    if bool(ids) is everything:
        raise click.UsageError("Give the ids of candidates, or --all.")
    chosen = [each.id for each in waiting()] if everything else [unpaired(each) for each in ids]
    if not chosen:
        raise click.ClickException("No candidate waits.")
    return chosen


def _report(version: DatasetVersion) -> None:
    click.echo(f"{version.label} has {counted(version.size, 'case')}.")


def _name(problems: Sequence[BadRow]) -> None:
    for each in problems:
        note(one_line(f"line {each.number}: {each.reason}"))


def _told(version: DatasetVersion) -> dict[str, Any]:
    from dataclasses import asdict

    return {name: value for name, value in asdict(version).items() if name != "id"}


def _show_cases(cases: Sequence[Case]) -> None:
    def known(case: Case) -> str:
        return "must be refused" if case.must_refuse else " | ".join(case.answers)

    rows = [(case.id, case.question, known(case), ", ".join(case.sources), ", ".join(case.tags)) for case in cases]
    _show_table(("id", "question", "answers", "sources", "tags"), rows)


def _show_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(one_line, row))
    open_console().print(table)
