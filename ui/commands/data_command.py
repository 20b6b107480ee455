"""``ragsmith data``: explore a table of prompts and completions, and prepare it for training."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rag.settings import SMOLLM2
from rag.tracing.figures import counted
from ui.commands._console import print_table
from ui.commands._finite_range import FiniteRange
from ui.commands._terminal_text import moment, note, print_json, unpaired
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from finetune.prepared.data_versions import DataVersions
    from finetune.prepared.preparation_plan import Plan
    from finetune.prepared.preparing_file import RawFile

Command = Callable[..., Any]
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def command() -> None:
    """Prepare prompts and completions for training.

    REF is NAME (the newest version), NAME@NUMBER or NAME@HASH.
    """


def _raw_file(function: Command) -> Command:
    """Add the argument FILE and the options that say how to read it; the command gets them as ``file``."""

    @click.argument("path", metavar="FILE", type=_FILE)
    @click.option("--prompt", metavar="COLUMN", default="", help="The column with the prompts.")
    @click.option("--completion", metavar="COLUMN", default="", help="The column with the completions.")
    @click.option("--encoding", default="", help="The encoding of the file, if it is not UTF-8.")
    @wraps(function)
    def command(*arguments: Any, path: Path, prompt: str, completion: str, encoding: str, **options: Any) -> Any:
        from finetune.prepared.preparing_file import RawFile

        file = RawFile(path, unpaired(prompt), unpaired(completion), encoding)
        return function(*arguments, file=file, **options)

    return command


_base = click.option(
    "--base", default=SMOLLM2, show_default=True, help="The model whose tokens are counted; empty for none."
)
_max_tokens = click.option(
    "--max-tokens",
    type=click.IntRange(8),
    default=1024,
    show_default=True,
    help="The maximum tokens of a row.",
)
_validation = click.option(
    "--validation",
    type=FiniteRange(0, 1, max_open=True),
    default=0.1,
    show_default=True,
    help="The share of the rows for validation.",
)
_seed = click.option("--seed", type=int, default=1, show_default=True, help="Decides which rows those are.")


@command.command()
@_raw_file
@click.option("--contains", metavar="TEXT", default="", help="Count the rows that contain a text, in any case.")
@click.option("--regex", metavar="REGEX", default="", help="Count the rows that match a regular expression.")
@click.option("--group-by", metavar="COLUMN", default="", help="Count the rows by the values of a column.")
@_base
@_max_tokens
@click.option("--json", "as_json", is_flag=True, help="Print the report as a JSON object.")
@pass_context
def explore(
    context: Context, /, file: RawFile, base: str, max_tokens: int, as_json: bool, **searched: str
) -> None:
    """Show what is in FILE: lengths, duplicates, placeholders, languages.

    FILE is CSV, TSV, JSON, JSON lines or Parquet: a table of prompts and completions, chats of OpenAI or ShareGPT,
    an exported dataset, or the rows of `ragsmith feedback export`.
    """
    from finetune.prepared.exploration import Questions
    from finetune.prepared.preparing_file import explore_file
    from rag.workspace import open_workspace
    from ui.commands._data_text import print_exploration

    questions = Questions(**{name: unpaired(text) for name, text in searched.items()}, max_tokens=max_tokens)
    found = explore_file(file, questions, base, open_workspace(context.settings.home).models)
    if as_json:
        print_json(found.model_dump(mode="json"), indent=2)
    else:
        print_exploration(found)


def _plan(function: Command) -> Command:
    """Add the options of a plan; the command gets a function that makes the plan, as ``plan``."""

    @click.option(
        "--form",
        type=click.Choice(["chat", "plain"]),
        default="chat",
        show_default=True,
        help="Render with the base's chat template, or as plain text with a separator.",
    )
    @click.option("--steps", metavar="STEP,…", help="The steps in order, in place of those of the form.")
    @click.option("--without", metavar="STEP", multiple=True, help="Leave out a step; may be repeated.")
    @click.option(
        "--separator", metavar="TEXT", help="The text after a prompt, in the form plain; \\n is a line end."
    )
    @click.option("--end", metavar="TEXT", help="A text after a completion, before the end token.")
    @click.option("--system", metavar="TEXT", default="", help="A message of the system before every prompt.")
    @_validation
    @_seed
    @_base
    @_max_tokens
    @wraps(function)
    def command(
        *arguments: Any,
        form: str,
        steps: str | None,
        without: tuple[str, ...],
        separator: str | None,
        end: str | None,
        **options: Any,
    ) -> Any:
        names = ("system", "validation", "seed", "base", "max_tokens")
        values = {name: options.pop(name) for name in names}
        values["system"] = unpaired(values["system"])
        texts = {"separator": separator, "end": end}
        values |= {name: _with_line_ends(text) for name, text in texts.items() if text is not None}
        return function(*arguments, plan=_planned(form, steps, without, values), **options)

    return command


def _with_line_ends(text: str) -> str:
    return unpaired(text).replace("\\n", "\n").replace("\\t", "\t")


def _planned(form: str, steps: str | None, without: tuple[str, ...], values: dict[str, Any]) -> Plan:
    from pydantic import ValidationError

    from finetune.prepared.preparation_plan import CHAT_STEPS, PLAIN_STEPS, STEPS, Plan
    from prompts.validation import first_problem
    from rag.errors import TuningError

    default = PLAIN_STEPS if form == "plain" or "separator" in values else CHAT_STEPS
    named = list(default) if steps is None else [step.strip() for step in steps.split(",") if step.strip()]
    unknown = [step for step in (*named, *without) if step not in STEPS]
    if unknown:
        raise TuningError(f"There is no step {unknown[0][:40]}.", fix=f"The steps are {', '.join(STEPS)}.")
    if steps is None and values.get("end"):
        if default is CHAT_STEPS:
            raise TuningError(
                "An end text belongs to the form plain: chat templates end a turn by themselves.",
                fix="Add --form plain, or leave out --end.",
            )
        named.insert(named.index("separator") + 1, "end")
    if steps is None and not values["base"]:
        named.remove("drop-long")
    try:
        return Plan(steps=tuple(step for step in named if step not in without), **values)
    except ValidationError as error:
        raise TuningError(f"The steps cannot be combined: {first_problem(error, Plan)}.") from error


@command.command()
@_raw_file
@click.option("--name", required=True, help="The name of the prepared data.")
@_plan
@click.option("--dry-run", is_flag=True, help="Show what the steps would do, and store nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the version as a JSON object.")
@pass_context
def prepare(context: Context, file: RawFile, name: str, plan: Plan, dry_run: bool, as_json: bool) -> None:
    """Clean, render and split FILE, and store the result as a version.

    The steps are trim, redact, drop-empty, drop-placeholders, drop-duplicates, drop-near-duplicates, chat,
    separator, end, space, mask and drop-long. Rows that are nearly the same are on the same side of the split.
    """
    from finetune.prepared.preparing_file import prepare_file, try_plan
    from rag.workspace import open_workspace
    from ui.commands._data_text import print_steps, print_version, print_version_steps

    workspace = open_workspace(context.settings.home)
    if dry_run:
        found, prepared, split = try_plan(file, plan, workspace.models)
        if as_json:
            print_json([step.model_dump(mode="json") for step in prepared.steps], indent=2)
            return
        print_steps(prepared.steps, len(found.examples), found.table.unit)
        click.echo(f"{counted(len(split.training), 'row')} + {len(split.validation):,} for validation")
        return
    version = prepare_file(file, plan, unpaired(name), workspace)
    if as_json:
        print_json(version.model_dump(mode="json"), indent=2)
        return
    print_version_steps(version)
    print_version(version)
    note(f"Train on it with `ragsmith tune run sft --data {version.name}`.")


@command.command()
@click.argument("reference", metavar="REF")
@_validation
@_seed
@pass_context
def split(context: Context, reference: str, validation: float, seed: int) -> None:
    """Split prepared data anew, as another version."""
    from finetune.prepared.preparing_file import split_again
    from ui.commands._data_text import print_version

    versions = _versions(context)
    print_version(split_again(versions, versions.resolve(unpaired(reference)), validation, seed))


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list with one object per name.")
@pass_context
def list_command(context: Context, as_json: bool) -> None:
    """List the prepared data with their newest versions."""
    newest = _versions(context).newest()
    if as_json:
        print_json([version.model_dump(mode="json", exclude={"steps"}) for version in newest], indent=2)
    elif newest:
        print_table(
            ("data", "version", "rows", "validation", "prepared", "from"),
            [
                (
                    version.name,
                    str(version.number),
                    f"{version.rows:,}",
                    f"{version.validation_rows:,}",
                    moment(version.created),
                    version.source,
                )
                for version in newest
            ],
            ("version", "rows", "validation"),
        )
    else:
        click.echo("There is no prepared data yet. Prepare some with `ragsmith data prepare FILE --name NAME`.")


@command.command()
@click.argument("reference", metavar="REF")
@click.option("--json", "as_json", is_flag=True, help="Print the version as a JSON object.")
@pass_context
def show(context: Context, reference: str, as_json: bool) -> None:
    """Show a version: its steps, and the other versions of the name."""
    from ui.commands._data_text import print_version, print_version_steps

    versions = _versions(context)
    version = versions.resolve(unpaired(reference))
    if as_json:
        print_json(version.model_dump(mode="json") | {"folder": str(versions.folder(version))}, indent=2)
        return
    for one in versions.versions(version.name):
        print_version(one)
    click.echo(f"\n{version.label} in {versions.folder(version)}:")
    print_version_steps(version)
    click.echo(version.plan.rendering.model_dump_json())


def _versions(context: Context) -> DataVersions:
    from finetune.prepared.data_versions import DataVersions
    from rag.workspace import open_workspace

    return DataVersions(open_workspace(context.settings.home).data)
