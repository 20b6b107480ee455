"""The app of one command: opened, prepared, and closed however the command ends."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

import click

from rag.errors import RagsmithError
from ui.commands._terminal_text import note, one_line
from ui.context import Context

if TYPE_CHECKING:
    from rag.settings import Settings
    from ui.app.app import App
    from ui.app.models import Models
    from ui.app.releases import Releases
    from ui.app.stores import Stores

# Sent by the system, a supervisor or a closing terminal; the exit status is 128 plus the signal's number.
ENDINGS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def command_app(context: Context, **flags: Any) -> Iterator[App]:
    """Open the app of a command, and close it however the command ends.

    Args:
        context: The options before the command's name.
        flags: The command's own settings; None means not given.

    Raises:
        RagsmithError: The settings or the workspace cannot be used.
    """
    _replace_unwritable_characters()
    with _one_line_logs(context.debug), _exit_on_signals():
        from ui.app.app import open_app
        from ui.app.log_file import open_log

        app = open_app(context.settings_with(**flags))
        with open_log(app.workspace, app.stores.masker) as log:
            try:
                yield app
            except (click.ClickException, click.exceptions.Exit, click.Abort, RagsmithError):
                raise
            except Exception as error:
                log.write_bug("A command failed", error)
                raise
            finally:
                # Queued traces are delivered to W&B here; a second SIGTERM must not interrupt that.
                with handling(lambda _number, _frame: None):
                    app.close()


def prepare_encoder(settings: Settings, stores: Stores) -> None:
    """Load the encoder; announce a conversion, which takes long, and a slower runtime.

    Raises:
        EncoderError: The encoder is missing, altered or cannot run.
    """
    from rag.encoders import locate_model
    from rag.encoders.encoder_conversion import converted_folder
    from rag.encoders.encoder_opening import gpu_present

    wanted = settings.encoder
    on_gpu = wanted.device == "cuda" or (wanted.device == "auto" and gpu_present())
    if not on_gpu and not converted_folder(locate_model(wanted), stores.workspace.models).is_dir():
        note("Preparing the encoder for this machine; this happens once and takes about ten seconds.")
    # Opens Chroma at the same time, which every command that uses the encoder needs too.
    _ = stores.corpora
    if stores.encoder.notice:
        note(stores.encoder.notice)


def announce_model(settings: Settings, models: Models) -> None:
    """Announce the preparation of a model, which takes long, or why another model answers."""
    from rag.models.local.shipped_base import PREPARING

    if replacement := models.replacement(settings):
        note(replacement)
    elif models.is_unprepared(settings):
        note(PREPARING)


def prepare_corpus(settings: Settings, stores: Stores, releases: Releases, corpus: str | None) -> str:
    """Load the encoder and open the corpus of a question; add the sample corpus if it is asked and missing.

    Returns:
        The corpus's name.

    Raises:
        RagsmithError: The encoder or the corpus is missing.
    """
    name = corpus or settings.corpus
    prepare_encoder(settings, stores)
    if lacks_sample(stores, name):
        note(f"Adding the sample corpus {name}; this happens once and takes about ten seconds.")
        stores.ensure_sample()
    releases.retriever(name)
    for notice in stores.corpora.notices():
        note(notice)
    return name


def lacks_sample(stores: Stores, name: str) -> bool:
    """Whether a corpus is the sample and must be added before it can be asked."""
    from ui.app.stores import SAMPLE_CORPUS

    # After an interrupted first ingestion it exists but is empty.
    return name == SAMPLE_CORPUS and not any(
        summary.name == name and summary.current and summary.files for summary in stores.corpora.summaries()
    )


@contextmanager
def handling(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Handle the signals that end a process; ignored ones (``nohup``) stay ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDINGS}
    before = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def _exit_on_signals() -> Iterator[None]:
    def leave(number: int, _frame: Any) -> None:
        raise SystemExit(128 + number)

    with handling(leave):
        yield


@contextmanager
def _one_line_logs(debug: bool) -> Iterator[None]:
    """Print every warning on one line of stderr; tracebacks only with ``--debug``, and always in the log."""

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if debug and record.exc_info:
                traceback.print_exception(*record.exc_info)
            # A warning about an exception is left out: the command reports the exception.
            if debug or not record.exc_info or record.levelno >= logging.ERROR:
                from rag.redaction import redact
                from ui.app.log_file import SHOWN

                where = f"; the traceback is in {SHOWN}" if record.exc_info and not debug else ""
                message = redact(one_line(record.getMessage()))
                click.echo(f"{record.levelname.title()}: {message}{where}", err=True)

    handler = Lines(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


def _replace_unwritable_characters() -> None:
    """Print question marks, instead of failing, on a terminal without UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
