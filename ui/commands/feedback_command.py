"""``ragsmith feedback``: what people said about answers, and training rows made of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rag.tracing.figures import counted
from ui.commands._app import command_app
from ui.commands._console import print_table
from ui.commands._terminal_text import moment, note, one_line, print_json
from ui.commands.feedback_review_command import review_command
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from rag.tracing.trace_store import Rating, Review, Trace

RATINGS = ("up", "down")
REVIEWS = ("pending", "accepted", "rejected")
HEADINGS = ("trace", "rated", "", "review", "question", "comment", "should be")
SHORT = 60


@click.group()
def command() -> None:
    """List and review what people said about answers, and make training rows of it."""


command.add_command(review_command)


@command.command(name="list")
@click.option("--rating", type=click.Choice(RATINGS), help="Only these ratings.")
@click.option("--corrected", is_flag=True, help="Only answers with a correction.")
@click.option("--review", type=click.Choice(REVIEWS), help="Only thumbs-downs in this state of their review.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="The maximum number.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list with one object per rating.")
@pass_context
def list_command(
    context: Context, rating: Rating | None, corrected: bool, review: Review | None, limit: int, as_json: bool
) -> None:
    """List rated answers, the newest rating first."""
    from rag.tracing.ratings import rated_ids

    with command_app(context) as app:
        found = rated_ids(app.stores.engine, rating, corrected=corrected, review=review)
        traces = [app.stores.traces.get(trace_id) for trace_id in found[:limit]]
    if as_json:
        print_json([_record(trace) for trace in traces], indent=2)
    elif traces:
        print_table(HEADINGS, [_row(trace) for trace in traces])
    else:
        click.echo("There is no such rating. The thumbs are below every answer in the chat.")
    if len(found) > limit:
        note(f"Showing the newest {limit} of {len(found):,}; --limit shows more.")


@command.command(name="export")
@click.option(
    "--to",
    "folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder for answers.jsonl and pairs.jsonl.",
)
@click.option("--accepted", is_flag=True, help="Only corrections that were accepted, and thumbs-ups.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
@pass_context
def export_command(context: Context, folder: Path, accepted: bool, as_json: bool) -> None:
    """Write training rows: answers.jsonl for the recipe sft, pairs.jsonl for the recipe dpo.

    Corrections and answers with a thumb up become replies to learn, and a correction with the answer that it
    corrects becomes a pair; rejected corrections are left out. Only answers of the model in the settings count,
    since others were asked in another way: ragsmith --model NAME feedback export --to FOLDER.
    """
    from finetune.data.feedback_rows import feedback_rows
    from prompts.files import atomic_write
    from rag.tracing.ratings import rated_ids
    from rag.workspace import disk_errors

    with command_app(context) as app:
        model = app.releases.model
        traces = (app.stores.traces.get(trace_id) for trace_id in rated_ids(app.stores.engine))
        rows = feedback_rows(traces, model, accepted=accepted)
    files = {"answers.jsonl": rows.answers, "pairs.jsonl": rows.pairs}
    with disk_errors(f"write {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, lines in files.items():
            with atomic_write(folder / name) as file:
                file.write("".join(f"{line}\n" for line in lines).encode())
    left_out = {"without_prompt": rows.without_prompt, "by_others": rows.by_others}
    left_out |= {"not_accepted": rows.not_accepted}
    if as_json:
        print_json({"model": model, "answers": len(rows.answers), "pairs": len(rows.pairs), **left_out})
        return
    for name, lines in files.items():
        click.echo(f"{folder / name}: {counted(len(lines), 'row')}")
    if rows.by_others:
        note(f"Left out {counted(rows.by_others, 'answer')} of models other than {model}.")
    if rows.not_accepted:
        note(f"Left out {counted(rows.not_accepted, 'correction')} that nobody has accepted.")
    if rows.without_prompt:
        note(f"Left out {counted(rows.without_prompt, 'answer')} whose traces lack a part of the prompt.")


def _record(trace: Trace) -> dict[str, Any]:
    feedback = trace.feedback
    return {
        "trace_id": trace.id,
        "question": trace.question,
        "answer": trace.answer,
        "model": trace.model,
        "rating": feedback.rating if feedback else None,
        "comment": feedback.comment if feedback else "",
        "correction": feedback.correction if feedback else "",
        "review": feedback.review if feedback else "",
        "reviewer": feedback.reviewer if feedback else "",
        "at": feedback.at if feedback else None,
    }


def _row(trace: Trace) -> tuple[str, ...]:
    record = _record(trace)
    texts = (record["question"], record["comment"], record["correction"])
    return (
        trace.id[-8:],
        moment(record["at"]),
        record["rating"],
        record["review"],
        *(_short(text) for text in texts),
    )


def _short(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= SHORT else f"{line[: SHORT - 1]}…"
