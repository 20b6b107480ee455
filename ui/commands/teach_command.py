"""``ragsmith teach``: from accepted corrections to a better adapter, and the decision about it."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from rag.tracing.figures import counted
from ui.commands._app import announce_model, command_app, prepare_corpus
from ui.commands._console import print_table
from ui.commands._progress import clock, shown_progress
from ui.commands._runs import STOPPED
from ui.commands._signed import Signature, signed
from ui.commands._terminal_text import note, one_line, print_json
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from finetune.lesson import Lesson, LessonFolder
    from ui.app.lesson_parts import LessonProgress
    from ui.app.lesson_work import LessonWork
    from ui.app.teaching import Teaching

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_MOST_FLIPPED = 20


@click.group(invoke_without_command=True)
@click.option("--dataset", default="", help="The dataset of the evaluation; by default the handbook's questions.")
@click.option("--corpus", default="", metavar="NAME", help="The corpus; by default the one in the settings.")
@json_option
@click.pass_context
def command(ctx: click.Context, dataset: str, corpus: str, as_json: bool) -> None:
    """Train the adapter in use on accepted corrections, and judge the result.

    Accept corrections with `ragsmith feedback review`. The candidate is compared with the adapter in use on a
    dataset, and then you use or discard it. After Ctrl-C or a crash, the same command continues.
    """
    if ctx.invoked_subcommand is not None:
        return
    from ui.app.lesson_work import doubt_of

    context: Context = ctx.obj
    with command_app(context) as app:
        folder = app.teaching.begin(dataset, corpus)
        lesson = folder.lesson
        note(
            f"{lesson.name}: {counted(len(lesson.traces), 'correction')} for the adapter "
            f"{lesson.adapter or 'of its own'} of {lesson.model}, judged on {lesson.dataset}"
        )
        for reason, count in lesson.left_out.items():
            note(f"Left out {counted(count, 'correction')}: {reason}.")
        if doubt := doubt_of(lesson):
            note(f"Careful: {doubt}")
        prepare_corpus(app.settings, app.stores, app.releases, lesson.corpus)
        announce_model(app.settings, app.models)
        ended = _work(app.teaching, folder, context)
        _finish(app.teaching, ended, as_json=as_json)


def _work(teaching: Teaching, folder: LessonFolder, context: Context) -> Lesson:
    """Work on a lesson; Ctrl-C stops it, a second one at once."""

    async def followed() -> Lesson:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None  # noqa: S101 - for the type checker

        def leave() -> None:
            if work.working.stop.is_set():
                task.cancel()
            work.working.stop.set()
            note("Stopping; Ctrl-C again stops at once.")

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, leave)
        return await work.run()

    with shown_progress(_describe, lambda now: (now.done, now.total or None)) as show:
        work: LessonWork = teaching.work(folder, show, context.config)
        try:
            return asyncio.run(followed())
        except asyncio.CancelledError as error:
            raise KeyboardInterrupt from error


def _finish(teaching: Teaching, lesson: Lesson, *, as_json: bool) -> None:
    from finetune.lesson import UNFINISHED

    if as_json:
        print_json(_as_json(teaching, lesson))
    else:
        _print(teaching, lesson)
    if lesson.state == "failed":
        raise click.ClickException(f"The training failed: {one_line(lesson.message)}")
    if lesson.state in UNFINISHED:
        note("Stopped: `ragsmith teach` continues it.")
        raise click.exceptions.Exit(STOPPED)
    if not as_json:
        note(
            "`ragsmith teach use` answers with it from now on, and `ragsmith teach discard` deletes it."
            if lesson.passed
            else "`ragsmith teach discard` deletes it."
        )


@command.command()
@json_option
@pass_context
def status(context: Context, as_json: bool) -> None:
    """Show the newest lesson: how far it is, or what came of it."""
    with command_app(context) as app:
        folder = _newest(app.teaching)
        lesson = folder.lesson
        if as_json:
            print_json(_as_json(app.teaching, lesson) | {"active": folder.is_active})
            return
        _print(app.teaching, lesson)
        if folder.is_active:
            note("A process is working on it.")


@command.command()
@pass_context
def stop(context: Context) -> None:
    """Stop the lesson that a process is working on; `ragsmith teach` continues it."""
    with command_app(context) as app:
        stopped = app.teaching.stop()
    note("The lesson will stop." if stopped else "No lesson is being worked on.")


@command.command()
@click.option("--force", is_flag=True, help="Use it although the gate refuses it; needs --message.")
@signed
@pass_context
def use(context: Context, force: bool, signature: Signature) -> None:
    """Answer with the candidate from now on.

    A new version of the answer prompt names the adapter, and the prompt's label moves to it. To go back, move the
    label with `ragsmith prompts label`.
    """
    if force and not (signature.message or "").strip():
        raise click.UsageError("--force needs a reason: --message WHY.")
    with command_app(context) as app:
        lesson = app.teaching.use(
            _newest(app.teaching), by=signature.by, message=signature.message_or(""), force=force
        )
    click.echo(f"{lesson.version} answers with the adapter {lesson.name}.")
    name, _, number = lesson.prompt.partition("@")
    note(f"To go back: `ragsmith prompts label {name} production {number}`.")


@command.command()
@click.option("-m", "--message", default="", metavar="WHY", help="The reason; saved with the lesson.")
@pass_context
def discard(context: Context, message: str) -> None:
    """Delete the candidate, or give up a lesson that was stopped; the corrections stay accepted."""
    with command_app(context) as app:
        lesson = app.teaching.discard(_newest(app.teaching), message=message)
    click.echo(f"Discarded {lesson.name}.")


def _newest(teaching: Teaching) -> LessonFolder:
    from rag.errors import TuningError

    newest = teaching.newest()
    if newest is None:
        raise TuningError("There is no lesson yet.", fix="`ragsmith teach` begins one.")
    return newest


def _as_json(teaching: Teaching, lesson: Lesson) -> dict[str, Any]:
    found: dict[str, Any] = {"lesson": lesson.model_dump()}
    return found | (asdict(teaching.result(lesson)) if lesson.passed is not None else {})


def _print(teaching: Teaching, lesson: Lesson) -> None:
    rows = f"{counted(len(lesson.traces), 'correction')}, {counted(lesson.kept, 'answer')} to rehearse"
    click.echo(f"{lesson.name}: {lesson.state}, {rows}")
    if lesson.passed is None:
        return
    result = teaching.result(lesson)
    print_table(
        ("", "in use", "taught", "change"),
        [(one.title, one.before, one.after, one.change) for one in result.metrics],
        ("in use", "taught", "change"),
    )
    for improved, title in ((False, "Right before, wrong now"), (True, "Wrong before, right now")):
        flipped = [one for one in result.flipped if one.improved is improved]
        if flipped:
            click.echo(f"{title}: {counted(len(flipped), 'case')}")
        for one in flipped[:_MOST_FLIPPED]:
            click.echo(f"  {one_line(one.question)}")
            click.echo(f"    - {one_line(one.before)}")
            click.echo(f"    + {one_line(one.after)}")
        if len(flipped) > _MOST_FLIPPED:
            click.echo(f"  and {len(flipped) - _MOST_FLIPPED} more: `ragsmith teach status --json` lists them.")
    click.secho("The gate passes it." if lesson.passed else "The gate refuses it.", bold=True)
    for reason in lesson.reasons:
        click.echo(f"  {one_line(reason)}")
    if lesson.version:
        click.echo(f"It is used by {lesson.version}.")


def _describe(now: LessonProgress) -> str:
    parts = [f"{now.phase} {now.done:,}/{now.total:,}" if now.total else now.phase]
    parts += [f"{clock(now.left_s)} left"] if now.left_s is not None else []
    return ", ".join(parts)
