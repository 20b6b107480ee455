"""``ragsmith eval replay``: the questions of traces, answered again as an evaluation run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from rag.tracing.figures import counted
from ui.commands._app import command_app
from ui.commands._runs import announce_models, finish, json_option
from ui.commands._terminal_text import note, one_line, unpaired
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from rag.tracing.trace_store import Trace
    from ui.app.stores import Stores


@dataclass(frozen=True, slots=True)
class _ReplayOptions:
    """The options of ``eval replay``."""

    ids: tuple[str, ...]
    filter_text: str
    limit: int
    dataset: str
    variants: tuple[str, ...]
    name: str
    corpus: str
    judge: str
    concurrency: int
    fresh: bool
    json_wanted: bool


@click.command()
@click.argument("ids", metavar="[ID]…", nargs=-1)
@click.option(
    "--filter", "filter_text", default="", help="Only traces that this filter keeps, as in `traces list`."
)
@click.option(
    "--limit", type=click.IntRange(1), default=100, show_default=True, help="The maximum number of traces."
)
@click.option("--dataset", default="replayed", show_default=True, help="The dataset that receives the questions.")
@click.option(
    "--variant",
    "variants",
    multiple=True,
    metavar="'NAME: SETTING=VALUE …'",
    help="What to swap, such as 'wider: retrieval.k=8'; can be repeated. The first is the baseline; by default "
    "the settings as they are.",
)
@click.option("--name", default="", metavar="NAME", help="The name of the run.")
@click.option("--corpus", default="", metavar="NAME", help="The corpus; by default the one of the traces.")
@click.option("--judge", default="", metavar="MODEL", help="The model that judges the answers.")
@click.option("--at-once", "concurrency", type=click.IntRange(1, 64), default=4, show_default=True)
@click.option("--fresh", is_flag=True, help="Do not take answers from the cache.")
@json_option
@pass_context
def replay(context: Context, /, **options: Any) -> None:
    """Answer the questions of traces again, as a run.

    Without a filter, the newest questions of the chat, the API and the command line are asked. Their distinct
    questions, with the turns before them, become a version of a dataset; equal questions use the version that is
    there.
    """
    from rag.evaluation.variants import parse_variant
    from ui.app.list_replay import replay_of

    wanted = _ReplayOptions(**options)
    variants = [parse_variant(text) for text in wanted.variants or ("baseline:",)]
    with command_app(context) as app:
        replayed = replay_of(_traces(app.stores, wanted), wanted.corpus)
        version = replayed.save(app.evaluations.datasets, wanted.dataset)
        found = f"{counted(len(replayed.cases), 'question')} of {counted(replayed.traces, 'trace')}"
        note(f"{found}: {version.label}")
        announce_models(app.settings, app.models, variants)
        run = app.evaluations.begin(
            version.label,
            variants,
            name=wanted.name,
            corpus=replayed.corpus,
            judge=wanted.judge,
            concurrency=wanted.concurrency,
        )
        note(f"Run {run.id}: {one_line(run.name)}, over {version.label}")
        finish(app.evaluations, run, wanted.fresh, wanted.json_wanted)


def _traces(stores: Stores, wanted: _ReplayOptions) -> list[Trace]:
    """Return the traces with their spans, which have the earlier turns.

    Raises:
        UsageError: None matches.
        FilterError: The filter is not understood.
    """
    from rag.tracing.trace_query import query_of
    from ui.app.list_replay import listed_traces

    if wanted.ids:
        return [stores.traces.get(trace_id) for trace_id in wanted.ids]
    traces, more = listed_traces(stores, query_of(unpaired(wanted.filter_text)), wanted.limit)
    if not traces:
        raise click.UsageError("No trace matches: `ragsmith traces list` shows what there is.")
    if more:
        note(f"The newest {wanted.limit:,} are asked; --limit asks more.")
    return traces
