"""``ragsmith feedback review``: the queue of answers with a thumbs-down, decided one by one."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

from rag.tracing.figures import counted
from ui.commands._app import command_app
from ui.commands._terminal_text import note, one_line, print_json, unpaired, visible
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from rag.tracing.trace_store import Trace
    from ui.app.stores import Stores

CHOICES = "a accept, c correct, r reject, s skip, q quit"


@dataclass(frozen=True, slots=True)
class _Decision:
    """A decision about one answer, as the options of a call say it."""

    review: Literal["accepted", "rejected"]
    correction: str | None = None


@click.command("review")
@click.argument("trace_id", metavar="[ID]", required=False)
@click.option("--accept", is_flag=True, help="Accept the correction, so that `ragsmith teach` learns it.")
@click.option("--reject", is_flag=True, help="Reject it: nothing is learnt from it.")
@click.option("--correct", "correction", metavar="TEXT", help="Accept TEXT as the right answer.")
@click.option("--by", metavar="WHO", help="The reviewer; by default your login name.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@pass_context
def review_command(context: Context, /, **options: Any) -> None:
    """Decide which corrections are right; without an ID, go through those that wait.

    Without a terminal, or with --json, the waiting ones are listed. A decision can be changed by deciding again.
    """
    wanted = _ReviewOptions(**options)
    decision = wanted.decision()
    with command_app(context) as app:
        if wanted.trace_id is None:
            _queue(app.stores, wanted)
            return
        if decision is None:
            _show(app.stores.traces.get(wanted.trace_id), as_json=wanted.as_json)
            return
        said = app.stores.traces.review(
            wanted.trace_id, decision.review, by=wanted.reviewer, correction=decision.correction
        )
        if wanted.as_json:
            print_json({"trace_id": app.stores.traces.get(wanted.trace_id).id, "review": said.review})
        else:
            click.echo(f"{said.review.capitalize()}.")


@dataclass(frozen=True, slots=True)
class _ReviewOptions:
    """The options of ``feedback review``."""

    trace_id: str | None
    accept: bool
    reject: bool
    correction: str | None
    by: str | None
    as_json: bool

    @property
    def reviewer(self) -> str:
        """The person who decides."""
        from ui.app.login_name import login_name

        return unpaired(self.by) if self.by else login_name()

    def decision(self) -> _Decision | None:
        """Return the decision; None if the answer is only to be shown."""
        if self.accept + self.reject + (self.correction is not None) > 1:
            raise click.UsageError("Choose one of --accept, --reject and --correct; --correct accepts, too.")
        if self.trace_id is None and (self.accept or self.reject or self.correction is not None):
            raise click.UsageError("Name the ID of the answer; `ragsmith feedback review` lists them.")
        if self.correction is not None and not self.correction.strip():
            raise click.UsageError("The text of --correct must not be empty.")
        if self.reject:
            return _Decision("rejected")
        if self.accept or self.correction is not None:
            return _Decision("accepted", None if self.correction is None else unpaired(self.correction))
        return None


def _queue(stores: Stores, wanted: _ReviewOptions) -> None:
    from rag.tracing.ratings import rated_ids

    waiting = [stores.traces.get(one) for one in rated_ids(stores.engine, "down", review="pending")]
    if wanted.as_json:
        print_json([_record(trace) for trace in waiting], indent=2)
        return
    if not waiting:
        note("No correction waits for a review.")
        return
    # Those who answer a question at the terminal must have one on both sides.
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        for trace in waiting:
            _show(trace, as_json=False)
        return
    _ask_about(stores, waiting, wanted.reviewer)


def _ask_about(stores: Stores, waiting: list[Trace], reviewer: str) -> None:
    for number, trace in enumerate(waiting, 1):
        click.echo(f"\n{number} of {counted(len(waiting), 'answer')}")
        _show(trace, as_json=False)
        while True:
            key = click.prompt(CHOICES, prompt_suffix=": ").strip().lower()[:1]
            if key == "q":
                return
            if key == "s":
                break
            said = trace.feedback.correction if trace.feedback else ""
            correction = None
            if key == "c" or (key == "a" and not said):
                correction = unpaired(click.prompt("The right answer", default=said or None, show_default=False))
            if key in ("a", "c", "r"):
                stores.traces.review(
                    trace.id, "rejected" if key == "r" else "accepted", by=reviewer, correction=correction
                )
                break


def _record(trace: Trace) -> dict[str, Any]:
    from rag.answering.corrections import sources_of

    said, sources = trace.feedback, sources_of(trace)
    correction = said.correction if said else ""
    faults = sources.faults_of(correction) if correction else ()
    return {
        "trace_id": trace.id,
        "question": trace.question,
        "answer": trace.answer,
        "comment": said.comment if said else "",
        "correction": correction,
        "review": said.review if said else "",
        "sources": list(sources.names),
        "unsupported": [{"sentence": one.sentence, "kind": one.kind, "words": list(one.words)} for one in faults],
    }


def _show(trace: Trace, *, as_json: bool) -> None:
    record = _record(trace)
    if as_json:
        print_json(record)
        return
    shown = {
        "trace": trace.id[-8:],
        "question": record["question"],
        "answer": record["answer"],
        "comment": record["comment"],
        "should be": record["correction"],
        "sources": ", ".join(record["sources"]),
        "review": record["review"],
    }
    for name, text in shown.items():
        if text:
            click.echo(f"{name:10}{visible(one_line(text))}")
    for fault in record["unsupported"]:
        words = ", ".join(fault["words"])
        note(f"Careful: its sources do not support this sentence ({fault['kind']}: {words}): {fault['sentence']}")
