"""``ragsmith ask``: the chat in a terminal."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ui.commands._app import announce_model, command_app, handling, prepare_corpus
from ui.commands._filters import source_option, where_option
from ui.commands._records import BadLines, read_records
from ui.commands._terminal_text import note, one_line, unpaired
from ui.context import Context, answer_options, pass_context

if TYPE_CHECKING:
    from rag.evaluation.variants import Variant
    from rag.types import Answer, Filters
    from ui.app.releases import Releases
    from ui.app.stores import Stores
    from ui.app.tracking import Tracking

T = TypeVar("T")


@click.command()
@click.argument("question", required=False)
@click.option(
    "--questions",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A JSONL file with id and question (or text) on each line.",
)
@click.option("--corpus", metavar="NAME", help="The corpus; by default the one in the settings.")
@source_option
@where_option
@answer_options
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object on one line for each question.")
@click.pass_context
@pass_context
def command(
    context: Context,
    ctx: click.Context,
    question: str | None,
    questions: Path | None,
    corpus: str | None,
    source: str | None,
    where: tuple[tuple[str, str], ...],
    as_json: bool,
    answering: dict[str, Any],
) -> None:
    """Answer QUESTION from the documents of a corpus, with sources; - reads it from standard input.

    Ctrl-C stops the answer. --questions answers many questions in one run. The exit status is 1 if one failed;
    a refusal, because the documents do not answer the question, is not a failure.
    """
    if (question is None) == (questions is None):
        raise click.UsageError("Give either a question or --questions FILE.")
    if questions is not None and not questions.exists():
        raise click.UsageError(f"The file {questions} does not exist.")
    if question == "-":
        question = sys.stdin.buffer.read().decode("utf-8", "replace")
    if question is not None and not question.strip():
        raise click.UsageError("The question is empty.")
    with command_app(context, **answering) as app:
        name = prepare_corpus(app.settings, app.stores, app.releases, corpus)
        announce_model(app.settings, app.models)
        # Anything missing is reported here, once, and not for every question.
        variant = _over_the_prompt(context.given(answering))
        app.releases.pipeline(name, variant)
        filters = _filters(app.stores, name, source, where)
        # The questions of a file share the budget of a conversation.
        session = str(uuid.uuid4()) if questions else None
        talk = _Talk(app.releases, name, filters, variant, as_json, session)
        if question is not None:
            answer = finish(talk.one(unpaired(question.strip())))
            _note_waiting(app.tracking, as_json)
            if answer.status == "failed":
                raise click.ClickException(one_line(answer.error))
            return
        assert questions is not None  # noqa: S101 - for the type checker; checked above
        complete = finish(talk.many(questions))
        _note_waiting(app.tracking, as_json)
        if not complete:
            ctx.exit(1)


def _note_waiting(tracking: Tracking, as_json: bool) -> None:
    """Say on a terminal which traces wait for W&B."""
    if not as_json and sys.stderr.isatty() and (notice := tracking.notice):
        note(notice)


def _over_the_prompt(given: Mapping[str, Any]) -> Variant | None:
    """Return what was typed as a variant: the settings of a prompt version override those of the process."""
    from rag.evaluation.variants import Variant

    k = given.get("retrieval", {}).get("k")
    return Variant(name="typed", changes={"retrieval.k": k}) if k else None


def _filters(
    stores: Stores, corpus: str, source: str | None, where: tuple[tuple[str, str], ...]
) -> Filters | None:
    """Return the filters that were typed; filters that keep nothing are refused, once for all questions."""
    from rag.types import Filters

    filters = Filters(source=source, where=where)
    if not filters.by_document:
        return None
    stores.check_filters(corpus, filters)
    return filters


@dataclass(frozen=True, slots=True)
class _Talk:
    """Answers the questions of one call."""

    releases: Releases
    corpus: str
    filters: Filters | None
    variant: Variant | None
    as_json: bool
    session: str | None = None

    async def one(self, question: str, number: str | int = "") -> Answer:
        """Answer a question, and print the answer."""
        from rag.types import Ask
        from ui.app.login_name import login_name
        from ui.commands._answers import print_answer, show

        await asyncio.to_thread(self.releases.budget.check, self.session)
        assistant = self.releases.assistant(self.variant, gate=self.releases.gate)
        ask = Ask(
            question,
            corpus=self.corpus,
            conversation_id=self.session,
            filters=self.filters,
            purpose="command",
            user=login_name(),
        )
        stream = assistant.start(ask)
        if not self.as_json:
            return await show(stream)
        answer = await stream.answer()
        print_answer(number, question, answer)
        if answer.budget:
            note(answer.budget)
        return answer

    async def many(self, file: Path) -> bool:
        """Answer the questions of a file; return whether every line was valid and got its answer."""
        bad = BadLines(file)
        failed = 0
        for record in read_records(file, ("question", "text"), bad):
            if not self.as_json:
                click.secho(f"\n{one_line(f'{record.id}: {record.text}')}", bold=True)
            answer = await self.one(record.text, record.id)
            if answer.status == "failed":
                failed += 1
                note(f"Question {record.id} failed: {one_line(answer.error)}")
        return not (failed or bad.count)


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end. Ctrl-C and SIGTERM cancel the work, so that an unfinished answer is traced.

    Raises:
        KeyboardInterrupt: After Ctrl-C.
        SystemExit: After SIGTERM, with the status 143.
    """
    ended_by: list[int] = []

    async def cancellable() -> T:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None  # noqa: S101 - for the type checker

        def leave(number: int, _frame: Any) -> None:
            ended_by.append(number)
            loop.call_soon_threadsafe(task.cancel)

        with handling(leave):
            return await work

    try:
        return asyncio.run(cancellable())
    except asyncio.CancelledError:
        raise SystemExit(128 + ended_by[0] if ended_by else 1) from None
