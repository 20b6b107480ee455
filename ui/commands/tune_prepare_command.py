"""``ragsmith tune prepare``: make the training data of a recipe from public datasets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ui.commands._progress import clock, shown_progress
from ui.commands._terminal_text import note
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from finetune.data.rewriting_data import Name
    from finetune.data.writer_data import Making

Command = Callable[..., Any]
STOPPED = 130


@click.group()
def prepare() -> None:
    """Make the training data of a recipe."""


def _folders(datasets: str) -> Callable[[Command], Command]:
    """Return a decorator that adds the options of the folders to read and to write."""

    def decorate(command: Command) -> Command:
        data = click.option(
            "--data",
            type=click.Path(file_okay=False, path_type=Path),
            required=True,
            help=f"The folder with {datasets}.",
        )
        target = click.option(
            "--to",
            "target",
            type=click.Path(file_okay=False, path_type=Path),
            required=True,
            metavar="FOLDER",
            help="The folder to write.",
        )
        return data(target(command))

    return decorate


@prepare.command()
@_folders("SQuAD, XQuAD, NQ-Open, PolicyQA, Dolly and the documentation of FastAPI, PEFT and TRL")
@click.option(
    "--questions",
    type=click.IntRange(min=1),
    metavar="N",
    help="Use only N questions of each source, for a trial.",
)
@pass_context
def writer(context: Context, data: Path, target: Path, questions: int | None) -> None:
    """Make the data of the recipe `writer`.

    The shipped questioner asks about technical documents, and people asked the other questions. The shipped reader
    finds evidence, smollm2 writes sentences from short answers, and a filter keeps the good ones. This takes up to
    an hour. Ctrl-C stops it; the same command continues.
    """
    from finetune.data.writer_data import WriterData
    from rag.workspace import open_workspace

    making = WriterData(data, target, open_workspace(context.settings.home), questions=questions)
    try:
        with shown_progress(describe, extent, is_step_done) as show:
            about = making.make(show)
    except KeyboardInterrupt as error:
        note("Stopped. The same command continues.")
        raise click.exceptions.Exit(STOPPED) from error
    for name, made in about.files.items():
        click.echo(f"{target / name}: {made.rows:,} rows")
    click.echo(", ".join(f"{kind} {count:,}" for kind, count in about.kinds.items()))


@prepare.command()
@_folders("CANARD")
def condenser(data: Path, target: Path) -> None:
    """Make the data of the recipe `condenser`: follow-ups and their rewrites by people."""
    _make_rewriting_data("condenser", data, target)


@prepare.command()
@_folders("SQuAD and XQuAD")
def questioner(data: Path, target: Path) -> None:
    """Make the data of the recipe `questioner`: sentences and the questions that people asked about them."""
    _make_rewriting_data("questioner", data, target)


def _make_rewriting_data(name: Name, data: Path, target: Path) -> None:
    from finetune.data.rewriting_data import make_rewriting_data

    for path, rows in make_rewriting_data(name, data, target).items():
        click.echo(f"{path}: {rows:,} rows")


def describe(now: Making) -> str:
    """Return ``sentences 240/2,400, 12:41 left``."""
    left = f", {clock(now.left_s)} left" if now.left_s is not None else ""
    return f"{now.what} {now.done:,}/{now.total:,}{left}"


def extent(now: Making) -> tuple[float, float]:
    """Return how much is done, and of how much."""
    return now.done, now.total


def is_step_done(now: Making) -> bool:
    """Whether a step is complete."""
    return now.done == now.total
