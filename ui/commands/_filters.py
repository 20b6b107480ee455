"""The option of the commands that search which keeps only documents with a value in their metadata."""

from __future__ import annotations

from collections.abc import Sequence

import click


def _pairs(_ctx: click.Context, _option: click.Parameter, given: Sequence[str]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for condition in given:
        field, equals, value = (part.strip() for part in condition.partition("="))
        if not field or not equals:
            raise click.UsageError(f"--where {condition} is not FIELD=VALUE.")
        pairs.append((field, value))
    return tuple(pairs)


where_option = click.option(
    "--where",
    multiple=True,
    metavar="FIELD=VALUE",
    callback=_pairs,
    help="Only documents with this value in their metadata; may be repeated.",
)
source_option = click.option(
    "--source", help="Only this source: its path, its name, its file name or its address."
)
