"""``ragsmith tune export``: convert a model to int8 weights for the CPU."""

from __future__ import annotations

from pathlib import Path

import click

from ui.commands._terminal_text import note
from ui.context import Context, pass_context

LOCAL = "local:"
_MEGABYTE = 1e6


@click.command()
@click.argument("model")
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    metavar="NAME",
    help="A LoRA adapter to merge first: a folder, or a name below models/adapters. Can be repeated.",
)
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER",
    help="The folder to create; it must not exist.",
)
@pass_context
def export(context: Context, model: str, adapters: tuple[str, ...], target: Path) -> None:
    """Convert MODEL, a folder or a name on the hub, to int8.

    `--model local:FOLDER` serves the result on the CPU, in about a quarter of the memory.
    """
    from finetune.export import export_int8
    from rag.models.local.local_adapters import find_lora
    from rag.workspace import open_workspace

    folder = open_workspace(context.settings.home).adapters
    found = [find_lora(name, folder) for name in adapters]
    exported = export_int8(model.removeprefix(LOCAL), found, target, note)
    click.echo(f"Wrote {exported.folder} ({exported.bytes / _MEGABYTE:,.1f} MB, {exported.card.quantization}).")
    click.echo(f"Serve it with: ragsmith --model {LOCAL}{exported.folder} serve")
