"""Options that name the data and change the recipe of a training, and what they stand for."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ui.commands._finite_range import FiniteRange

if TYPE_CHECKING:
    from finetune.recipe import Recipe
    from finetune.recipe_changes import RecipeChanges
    from rag.workspace import Workspace

_NAMES = ("base", "start", "name", "epochs", "learning_rate", "rank", "max_tokens", "validate_every")

data_option = click.option(
    "--data",
    required=True,
    metavar="FOLDER|REF",
    help="The folder with the training data that the recipe names, or prepared data: NAME or NAME@VERSION.",
)


def recipe_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command gets a ``finetune.recipe_changes.RecipeChanges`` as ``changes``."""

    @click.option("--base", help="The language model to start from: smollm2, a folder, or OWNER/NAME on the hub.")
    @click.option("--start", metavar="RUN|FOLDER", help="The adapter to continue from: a run, or a folder.")
    @click.option("--name", help="The name of the adapter, in place of the recipe's.")
    @click.option("--epochs", type=FiniteRange(0, min_open=True), help="The number of passes over the rows.")
    @click.option("--learning-rate", type=FiniteRange(0, min_open=True), help="The highest learning rate.")
    @click.option("--rank", type=click.IntRange(1, 1024), help="The rank of the adapter.")
    @click.option("--max-tokens", type=click.IntRange(8), help="The maximum tokens of a row.")
    @click.option("--validate-every", type=click.IntRange(1), help="The number of steps between two validations.")
    @wraps(function)
    def command(*arguments: Any, **options: Any) -> Any:
        from finetune.recipe_changes import RecipeChanges

        values = {name: options.pop(name) for name in _NAMES}
        return function(*arguments, changes=RecipeChanges(**values), **options)

    return command


def changed_text(reference: str, changes: RecipeChanges, workspace: Workspace) -> tuple[Recipe, str]:
    """Return the recipe that a file or a name stands for, with changes, and its text.

    Raises:
        TuningError: There is no such recipe, it is malformed, or a change does not fit it.
    """
    from finetune.recipe import find_recipe, parse_recipe, read_recipe
    from finetune.recipe_changes import changed_recipe, recipe_toml

    path = find_recipe(reference)
    text = read_recipe(path)
    parsed = parse_recipe(text, str(path))
    if changes.start is not None:
        changes = changes.model_copy(update={"start": _start_folder(changes.start, workspace)})
    if changes.given:
        parsed = changed_recipe(parsed, changes)
        text = recipe_toml(parsed)
    return parsed, text


def data_folder(named: str, workspace: Workspace) -> Path:
    """Return the folder of training data, which a folder or the reference of prepared data names.

    Raises:
        TuningError: There is no such data.
    """
    from finetune.prepared.data_versions import DataVersions
    from rag.errors import TuningError

    versions = DataVersions(workspace.data)
    if not named:
        raise TuningError(
            "The name of the training data is empty.",
            fix="Name a folder with --data, or one of `ragsmith data list`; the current folder is `.`.",
        )
    data = Path(named)
    if not data.exists() and versions.versions(str(data).partition("@")[0]):
        return versions.folder(versions.resolve(str(data)))
    if data.is_file():
        raise TuningError(
            f"{data} is a file, and a training reads a folder or prepared data.",
            fix="Prepare it with `ragsmith data prepare FILE --name NAME`, and train with --data NAME.",
        )
    if not data.is_dir():
        raise TuningError(
            f"The folder {data} does not exist.",
            fix="Name the folder with the training data with --data, or one of `ragsmith data list`.",
        )
    if not any(data.iterdir()):
        raise TuningError(f"The folder {data} is empty.", fix="Put the files there that the recipe names.")
    return data


def _start_folder(named: str, workspace: Workspace) -> str:
    """Return the folder of an adapter, which a folder or a run names."""
    from finetune.run_folder import RESULT, find_run
    from rag.errors import TuningError

    if not named:
        raise TuningError("The name of the adapter to continue from is empty.", fix="Name a run or a folder.")
    folder = Path(named).expanduser()
    return str(folder.resolve() if folder.is_dir() else find_run(workspace.runs, named).path / RESULT)
