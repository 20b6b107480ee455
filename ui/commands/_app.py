"""The app of one command: opened, made ready, and closed however the command ends."""

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

from ui.commands._terminal_text import note, one_line
from ui.context import Context

if TYPE_CHECKING:
    from rag.settings import Settings
    from ui.app.app import App
    from ui.app.releases import Releases
    from ui.app.stores import Stores

# Ended by the system, by a supervisor, or with the terminal: the status is 128 and the signal's number.
ENDINGS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def command_app(context: Context, **flags: Any) -> Iterator[App]:
    """Open the app of a command, and close it however the command ends.

    Args:
        context: The options before the command's name.
        flags: The command's own settings; None is not given.

    Raises:
        RagsmithError: The settings or the workspace are not usable.
    """
    _write_what_can_be_written()
    with _one_line_logs(context.debug), _ended_in_order():
        from ui.app.app import open_app

        app = open_app(context.settings_with(**flags))
        try:
            yield app
        finally:
            # What waits for W&B is delivered here; a second SIGTERM must not cut it off.
            with handling(lambda _number, _frame: None):
                app.close()


def prepare_encoder(settings: Settings, stores: Stores) -> None:
    """Load the encoder, saying so where that takes long, and what runs less well than it could.

    Raises:
        EncoderError: The encoder is missing, altered or cannot run.
    """
    from rag.encoders import locate_model
    from rag.encoders.encoder_conversion import converted_folder
    from rag.encoders.encoder_opening import gpu_present

    wanted = settings.encoder
    on_gpu = wanted.device == "cuda" or (wanted.device == "auto" and gpu_present())
    if not on_gpu and not converted_folder(locate_model(wanted), stores.workspace.models).is_dir():
        note("Preparing the encoder for this machine; this happens once and takes some ten seconds.")
    # It opens Chroma at the same time, which every command with an encoder needs as well.
    _ = stores.corpora
    if stores.encoder.notice:
        note(stores.encoder.notice)


def prepare_corpus(settings: Settings, stores: Stores, releases: Releases, corpus: str | None) -> str:
    """Load the encoder and open the corpus of a question; the sample is brought in where it is asked and missing.

    Returns:
        The corpus's name.

    Raises:
        RagsmithError: The encoder or the corpus is missing.
    """
    name = corpus or settings.corpus
    prepare_encoder(settings, stores)
    if lacks_sample(stores, name):
        note(f"Bringing in the sample corpus {name}; this happens once and takes some ten seconds.")
        stores.ensure_sample()
    releases.retriever(name)
    for notice in stores.corpora.notices():
        note(notice)
    return name


def lacks_sample(stores: Stores, name: str) -> bool:
    """Whether a corpus is the sample, and has to be brought in before it can be asked."""
    from ui.app.stores import SAMPLE_CORPUS

    # One whose first ingestion was interrupted exists, and is empty.
    return name == SAMPLE_CORPUS and not any(
        summary.name == name and summary.current and summary.files for summary in stores.corpora.summaries()
    )


@contextmanager
def handling(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Let a handler meet the signals that end a process; ignored ones (``nohup``) stay ignored."""
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
def _ended_in_order() -> Iterator[None]:
    def leave(number: int, _frame: Any) -> None:
        raise SystemExit(128 + number)

    with handling(leave):
        yield


@contextmanager
def _one_line_logs(debug: bool) -> Iterator[None]:
    """Warnings of the libraries and our own on stderr, a line each; tracebacks are for ``--debug``."""

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if debug and record.exc_info:
                traceback.print_exception(*record.exc_info)
            # What ended in an exception reaches the person as the error of the command.
            if debug or not record.exc_info:
                from rag.redaction import redact

                click.echo(f"{record.levelname.title()}: {redact(one_line(record.getMessage()))}", err=True)

    handler = Lines(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


def _write_what_can_be_written() -> None:
    """A terminal without UTF-8 gets question marks, not an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
