"""``ragsmith traces replay``: the question of a trace, asked again as it was or with parts swapped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import click

from rag.settings import SearchMode
from ui.commands._app import announce_model, command_app, prepare_encoder
from ui.commands._terminal_text import note, one_line, print_json, visible
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from pydantic import JsonValue

    from rag.tracing.trace_store import Trace
    from rag.types import Answer
    from ui.app.replaying import Replay, Replaying


@click.command()
@click.argument("trace_id", metavar="ID")
@click.option("--prompt", metavar="NAME[@VERSION]", help="Another prompt.")
@click.option("--model", help="Another model.")
@click.option("--adapter", help="Another adapter of the model; '' for none.")
@click.option("-k", "k", type=click.IntRange(1), help="Another number of passages.")
@click.option("--mode", type=click.Choice(get_args(SearchMode)), help="Another way to search.")
@click.option("--set", "others", multiple=True, metavar="SETTING=VALUE", help="Another setting; can be repeated.")
@click.option("--fixed", is_flag=True, help="Answer from the passages of the trace instead of searching again.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@pass_context
def replay(context: Context, /, trace_id: str, *, fixed: bool, as_json: bool, **wanted: Any) -> None:
    """Ask the question of a trace again, as it was or changed.

    Options swap parts of the release. What can no longer be had as it was is named on standard error. The new
    trace is linked to the old one. The exit status is 1 if the answer failed.
    """
    from ui.app.replaying import Swaps
    from ui.commands.ask_command import finish

    with command_app(context) as app:
        trace = app.stores.traces.get(trace_id)
        prepare_encoder(app.settings, app.stores)
        swaps = Swaps(_changes(trace, **wanted), fixed)
        announce_model(
            app.settings.model_copy(update={"model": swaps.changes.get("model", trace.model)}), app.models
        )
        prepared = app.replaying.prepare(trace, swaps)
        for sentence in prepared.notes:
            note(sentence)
        answer = finish(_answered(app.replaying, prepared))
        again = app.stores.traces.get(answer.trace_id) if answer.trace_id else None
        if as_json:
            print_json(_as_json(prepared, answer, again), indent=2)
        else:
            _show(prepared, answer, again)
        if answer.status == "failed":
            raise click.exceptions.Exit(1)


def _changes(
    trace: Trace,
    prompt: str | None,
    model: str | None,
    adapter: str | None,
    k: int | None,
    mode: str | None,
    others: tuple[str, ...],
) -> dict[str, JsonValue]:
    from rag.evaluation.variants import parse_changes
    from rag.models.chat_models import EXTRACTIVE

    reads = (model or trace.model) == EXTRACTIVE
    given: dict[str, JsonValue] = {
        "prompt": prompt,
        "model": model,
        "reader.adapter" if reads else "local.adapter": adapter,
        "retrieval.k": k,
        "retrieval.mode": mode,
    }
    changes: dict[str, JsonValue] = {name: value for name, value in given.items() if value is not None}
    for other in others:
        name, _, value = other.partition("=")
        changes |= parse_changes(f"{name}={_quoted(value)}" if "=" in other else other, "--set")
    return changes


def _quoted(value: str) -> str:
    import shlex

    return shlex.quote(value)


async def _answered(replaying: Replaying, prepared: Replay) -> Answer:
    return await replaying.start(prepared).answer()


def _steps(prepared: Replay, again: Trace | None) -> tuple[str, ...]:
    from rag.answering.replay import changed_steps

    return changed_steps(prepared.trace, again) if again else ()


def _as_json(prepared: Replay, answer: Answer, again: Trace | None) -> dict[str, Any]:
    trace = prepared.trace
    return {
        "question": trace.question,
        "swapped": dict(prepared.swaps.changes),
        "fixed": prepared.swaps.fixed,
        "notes": list(prepared.notes),
        "as_it_was": prepared.is_as_it_was,
        "changed_steps": list(_steps(prepared, again)),
        "before": _outcome(trace),
        "after": _outcome(again) if again else {"trace_id": "", "status": "error", "error": answer.error},
    }


def _outcome(trace: Trace) -> dict[str, Any]:
    return {
        "trace_id": trace.id,
        "status": trace.status,
        "answer": trace.answer,
        "error": trace.error,
        "latency_s": trace.latency_s,
        "cost_usd": trace.cost_usd,
        "prompt": trace.prompt,
        "model": trace.model,
        "release": trace.release,
    }


def _show(prepared: Replay, answer: Answer, again: Trace | None) -> None:
    before = prepared.trace
    click.secho(visible(before.question), bold=True)
    _show_side("before", before)
    if again is None:
        click.echo(f"\nafter\n{visible(answer.error)}")
        return
    _show_side("after", again)
    changed = _steps(prepared, again)
    same = "The answers are equal" if before.answer == again.answer else "The answers differ"
    steps = f"changed steps: {', '.join(changed)}" if changed else "no step changed"
    click.echo(f"\n{same}; {steps}.")


def _show_side(side: str, trace: Trace) -> None:
    from rag.tracing.figures import format_cost, format_seconds

    facts = [
        side,
        trace.status,
        "" if trace.latency_s is None else format_seconds(trace.latency_s),
        format_cost(trace.cost_usd),
        one_line(trace.prompt),
        one_line(trace.model),
        f"trace {trace.id}",
    ]
    click.secho(f"\n{' · '.join(fact for fact in facts if fact)}", dim=True)
    click.echo(visible(trace.answer or trace.error))
