"""``ragsmith datasets``: versioned lists of questions with what is known about their answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rag.settings import SMOLLM2
from rag.tracing.figures import counted
from ui.app.proposing import propose_cases, question_model
from ui.commands._app import command_app, prepare_corpus
from ui.commands._console import print_table
from ui.commands._finite_range import FiniteRange
from ui.commands._signed import Signature, signed
from ui.commands._terminal_text import moment, note, one_line, print_json, print_names, unpaired
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from rag.evaluation.case_files import BadRow
    from rag.evaluation.cases import Case
    from rag.evaluation.dataset_store import DatasetVersion

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def command() -> None:
    """Keep versioned lists of questions with what is known about their answers.

    REF is NAME (the newest version) or NAME@VERSION.
    """


@command.command(name="list")
@click.option("--archived", is_flag=True, help="List the archived datasets instead.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list with one object per dataset.")
@pass_context
def list_command(context: Context, archived: bool, as_json: bool) -> None:
    """List the datasets with their newest versions."""
    with command_app(context) as app:
        if archived:
            print_names(app.stores.dataset_archive.archived(), as_json)
            return
        newest = app.stores.datasets.list()
    if as_json:
        print_json([asdict(version) for version in newest], indent=2)
    elif newest:
        print_table(
            ("dataset", "version", "cases", "saved", ""),
            [
                (version.name, str(version.version), f"{version.size:,}", moment(version.saved), version.message)
                for version in newest
            ],
        )
    else:
        click.echo("There is no dataset yet. Create one with `ragsmith datasets import NAME FILE`.")


@command.command(name="show")
@click.argument("reference", metavar="REF")
@click.option("--start", type=click.IntRange(0), default=0, help="The number of cases to skip.")
@click.option(
    "--limit", type=click.IntRange(1), default=20, show_default=True, help="The maximum number of cases."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object with the version and its cases.")
@pass_context
def show_command(context: Context, reference: str, start: int, limit: int, as_json: bool) -> None:
    """Show a version and its cases."""
    with command_app(context) as app:
        store = app.stores.datasets
        version = store.resolve(unpaired(reference))
        cases = tuple(store.cases(version, start, limit))
        versions = store.versions(version.name)
    if as_json:
        print_json(_as_json(version) | {"cases": [case.as_json() for case in cases]}, indent=2)
        return
    click.echo(f"{version.label}  {counted(version.size, 'case')}  {version.sha256[:12]}")
    for saved in versions:
        why = one_line(f"{saved.by}: {saved.message}" if saved.message else saved.by)
        click.echo(f"  @{saved.version}  {moment(saved.saved)}  {counted(saved.size, 'case')}  {why}")
    _show_cases(cases)
    if start + len(cases) < version.size:
        note(f"Showing {len(cases)} of {version.size:,}; --start and --limit show others.")


@command.command(name="import")
@click.argument("name")
@click.argument("file", type=_FILE)
@click.option("--preview", is_flag=True, help="Report the valid and the invalid rows, and save nothing.")
@click.option("--skip-bad", is_flag=True, help="Save the valid rows and skip the others.")
@click.option("--add", "adds", is_flag=True, help="Add to the cases of the newest version.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@signed
@pass_context
def import_command(context: Context, /, **options: Any) -> None:
    """Save the cases of FILE as the next version of NAME.

    FILE is JSON lines, a JSON list, SQuAD's JSON, CSV or TSV, with question, answers, sources, must_refuse, tags,
    notes, history and id; only the question is required. The usual names of other programs are understood, such
    as input, expected_output and ground_truth, and other columns are left out. A table separates several values
    by |.
    """
    _Import(**options).run(context)


@dataclass(frozen=True, slots=True)
class _Import:
    """One import of a file."""

    name: str
    file: Path
    preview: bool
    skip_bad: bool
    adds: bool
    as_json: bool
    signature: Signature

    def run(self, context: Context) -> None:
        """Read the file, then report or save its cases."""
        from rag.evaluation.case_files import read_cases

        found = read_cases(self.file)
        invalid = [{"line": row.number, "reason": row.reason} for row in found.problems]
        if self.preview and self.as_json:
            print_json({"valid": len(found.cases), "invalid": invalid, "left_out": list(found.strange)}, indent=2)
            return
        _report_bad(found.problems)
        if found.note:
            note(one_line(found.note))
        if self.preview:
            click.echo(f"{counted(len(found.cases), 'valid row')}, {len(invalid):,} invalid.")
            return
        if invalid and not self.skip_bad:
            raise click.ClickException(
                f"Nothing was saved: {counted(len(invalid), 'invalid row')} in {self.file}. "
                "Correct them, or skip them with --skip-bad."
            )
        if not found.cases:
            raise click.ClickException(f"Nothing was saved: {self.file} contains no cases.")
        version = self._saved(context, found.cases)
        if self.as_json:
            print_json(_as_json(version) | {"invalid": invalid, "left_out": list(found.strange)}, indent=2)
        else:
            _report(version)

    def _saved(self, context: Context, cases: Sequence[Case]) -> DatasetVersion:
        by, why = self.signature.by, self.signature.message_or(f"imported from {self.file.name}")
        with command_app(context) as app:
            store = app.stores.datasets
            if self.adds:
                return store.add(self.name, cases, by=by, message=why).version
            return store.save(self.name, cases, by=by, message=why)


@command.command(name="export")
@click.argument("reference", metavar="REF")
@click.argument("file", type=_FILE)
@pass_context
def export_command(context: Context, reference: str, file: Path) -> None:
    """Write a version to FILE. Its ending chooses JSON lines, CSV or TSV."""
    from rag.evaluation.case_files import write_cases

    with command_app(context) as app:
        store = app.stores.datasets
        version = store.resolve(unpaired(reference))
        written = write_cases(file, store.cases(version))
    click.echo(f"Wrote {counted(written, 'case')} of {version.label} to {one_line(str(file))}.")


@command.command(name="add")
@click.argument("name")
@click.option("--trace", "trace_id", metavar="ID", required=True, help="The trace with the question.")
@click.option("--answer", "answers", multiple=True, metavar="TEXT", help="A right answer; can be repeated.")
@click.option(
    "--source", "sources", multiple=True, metavar="S", help="Its source; by default what the trace cites."
)
@click.option("--refuse", is_flag=True, help="The documents do not answer it.")
@click.option("--notes", default="", help="Free text, kept with the case.")
@signed
@pass_context
def add_command(context: Context, /, **options: Any) -> None:
    """Add the question of a trace to the dataset NAME. The case includes the turns before it."""
    _Add(**options).run(context)


@dataclass(frozen=True, slots=True)
class _Add:
    """A case to make of a trace."""

    name: str
    trace_id: str
    answers: Sequence[str]
    sources: Sequence[str]
    refuse: bool
    notes: str
    signature: Signature

    def run(self, context: Context) -> None:
        """Add the case, and report what changed."""
        from rag.evaluation.traced import case_of_trace

        with command_app(context) as app:
            trace = app.stores.traces.get(unpaired(self.trace_id))
            case = case_of_trace(
                trace,
                answers=list(map(unpaired, self.answers)),
                sources=list(map(unpaired, self.sources)),
                must_refuse=self.refuse,
                notes=unpaired(self.notes),
            )
            why = self.signature.message_or(f"from trace {trace.id}")
            added = app.stores.datasets.add(self.name, [case], by=self.signature.by, message=why)
        if added.unchanged:
            click.echo(f"{added.version.label} contains it already, as {case.id}.")
            return
        click.echo(f"{'Replaced' if added.replaced else 'Added'} {case.id}: {one_line(case.question)}")
        _report(added.version)


@command.command(name="remove")
@click.argument("name")
@click.argument("ids", metavar="CASE_ID...", nargs=-1, required=True)
@signed
@pass_context
def remove_command(context: Context, name: str, ids: Sequence[str], signature: Signature) -> None:
    """Save a version of NAME without these cases. Earlier versions keep them."""
    why = signature.message_or(f"removed {counted(len(set(ids)), 'case')}")
    with command_app(context) as app:
        removed = list(map(unpaired, ids))
        version = app.stores.datasets.remove(unpaired(name), removed, by=signature.by, message=why)
    _report(version)


@command.command(name="archive")
@click.argument("name")
@pass_context
def archive_command(context: Context, name: str) -> None:
    """Archive the dataset NAME with all its versions.

    No unfinished evaluation run may need it; finished runs keep its cases. An archived dataset is in no list, its
    name is free again, and `ragsmith datasets restore` brings it back.
    """
    from ui.app.archiving import archive_dataset

    with command_app(context) as app:
        archive_dataset(app.stores.dataset_archive, app.evaluations.runs, unpaired(name))
    click.echo(f"Archived {one_line(name)}.")


@command.command(name="restore")
@click.argument("name")
@pass_context
def restore_command(context: Context, name: str) -> None:
    """Bring back the dataset NAME from the archive."""
    with command_app(context) as app:
        app.stores.dataset_archive.restore(unpaired(name))
    click.echo(f"Restored {one_line(name)}.")


@command.command(name="split")
@click.argument("reference", metavar="REF")
@click.option(
    "--shares",
    type=FiniteRange(0, 1),
    nargs=3,
    default=(0.8, 0.1, 0.1),
    metavar="TRAIN VALIDATION TEST",
    help="By default 0.8 0.1 0.1.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Equal seeds split equal cases equally.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@signed
@pass_context
def split_command(
    context: Context,
    reference: str,
    shares: tuple[float, float, float],
    seed: int,
    as_json: bool,
    signature: Signature,
) -> None:
    """Split a version for training, validation and test.

    The parts are NAME-train, NAME-validation and NAME-test. Cases with a common source, or with the same
    question, go to the same part.
    """
    from rag.evaluation.split import SHARES, split

    with command_app(context) as app:
        store = app.stores.datasets
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
        why = signature.message_or(f"part of {version.label}, seed {seed}")
        saved = {
            part: store.save(f"{version.name}-{part}", cases, by=signature.by, message=why)
            for part, cases in parted.parts.items()
            if cases
        }
    if as_json:
        parts = {part: _as_json(new) | {"share": parted.shares[part]} for part, new in saved.items()}
        print_json({"groups": parted.groups, "largest": parted.largest, "parts": parts}, indent=2)
        return
    for part, new in saved.items():
        got, asked = 100 * parted.shares[part], 100 * wanted[part]
        click.echo(f"{new.label}: {counted(new.size, 'case')}, {got:.1f} % (wanted: {asked:g} %)")


@command.command(name="candidates")
@click.argument("name")
@click.option("--corpus", metavar="NAME", help="The corpus of the passages; by default the one in the settings.")
@click.option("--count", type=click.IntRange(1), help="The number of questions to write first.")
@click.option("--seed", type=int, default=0, show_default=True, help="Equal seeds choose equal passages.")
@click.option("--json", "as_json", is_flag=True, help="Print the waiting candidates as a JSON list.")
@pass_context
def candidates_command(
    context: Context, name: str, corpus: str | None, count: int | None, seed: int, as_json: bool
) -> None:
    """Show the questions proposed for the dataset NAME.

    With --count, questions about passages are written first. `ragsmith datasets accept` and `ragsmith datasets
    reject` decide on them.
    """
    with command_app(context) as app:
        if count is not None:
            about = prepare_corpus(app.settings, app.stores, app.releases, corpus)
            from rag.models.local.shipped_base import PREPARING

            if app.models.is_unprepared(app.settings.model_copy(update={"model": SMOLLM2})):
                note(PREPARING)
            model = question_model(app.models, app.settings)
            new = propose_cases(app.stores, model, name, about, count, seed)
            note(f"{counted(new, 'new candidate')} for {name}.")
        waiting = app.stores.candidates.waiting(unpaired(name))
    if as_json:
        print_json([case.as_json() for case in waiting], indent=2)
    elif waiting:
        _show_cases(waiting)
    else:
        click.echo(f"No candidates are waiting for {name}. Write some with --count.")


@command.command(name="accept")
@click.argument("name")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that are waiting.")
@signed
@pass_context
def accept_command(
    context: Context, name: str, ids: Sequence[str], everything: bool, signature: Signature
) -> None:
    """Add candidates to the next version of the dataset NAME."""
    with command_app(context) as app:
        store = app.stores.candidates
        chosen = _chosen(ids, everything, lambda: store.waiting(unpaired(name)))
        version = store.accept(unpaired(name), chosen, by=signature.by, message=signature.message_or("")).version
    _report(version)


@command.command(name="reject")
@click.argument("name")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that are waiting.")
@pass_context
def reject_command(context: Context, name: str, ids: Sequence[str], everything: bool) -> None:
    """Reject candidates; they are not proposed again."""
    with command_app(context) as app:
        store = app.stores.candidates
        rejected = store.reject(unpaired(name), _chosen(ids, everything, lambda: store.waiting(unpaired(name))))
    click.echo(f"Rejected {counted(rejected, 'candidate')}.")


def _chosen(ids: Sequence[str], everything: bool, waiting: Callable[[], Iterable[Case]]) -> list[str]:
    if bool(ids) is everything:
        raise click.UsageError("Name the ids of candidates, or pass --all.")
    chosen = [case.id for case in waiting()] if everything else list(map(unpaired, ids))
    if not chosen:
        raise click.ClickException("No candidates are waiting.")
    return chosen


def _report(version: DatasetVersion) -> None:
    click.echo(f"{version.label} has {counted(version.size, 'case')}.")


def _report_bad(rows: Sequence[BadRow]) -> None:
    for row in rows:
        note(one_line(f"line {row.number}: {row.reason}"))


def _as_json(version: DatasetVersion) -> dict[str, Any]:
    return {name: value for name, value in asdict(version).items() if name != "id"}


def _show_cases(cases: Sequence[Case]) -> None:
    def known(case: Case) -> str:
        return "must be refused" if case.must_refuse else " | ".join(case.answers)

    rows = [(case.id, case.question, known(case), ", ".join(case.sources), ", ".join(case.tags)) for case in cases]
    print_table(("id", "question", "answers", "sources", "tags"), rows)
