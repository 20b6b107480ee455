"""Checks of the stores: prompts, database, Chroma, and whether the indexes match them."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, closing
from typing import TYPE_CHECKING

from ui.doctor.check import Check
from ui.doctor.server_probe import fetch

if TYPE_CHECKING:
    from rag.settings import Settings
    from ui.app.stores import Stores


def check_prompts(settings: Settings) -> Check:
    """The chain can fill the prompts that it runs."""
    from prompts import PromptLibrary
    from rag.answering.prompt_filling import FILLED, check_fillable
    from rag.errors import PromptError, prompt_errors
    from rag.workspace import open_workspace

    library = PromptLibrary(open_workspace(settings.home).prompts)
    try:
        with prompt_errors():
            answer, *_ = prompts = [library.find(reference) for reference in (settings.answer_prompt, *FILLED)]
        for prompt in prompts:
            check_fillable(prompt)
    except PromptError as error:
        fix = "Move its label with `ragsmith prompts label`, or correct the file or the setting prompt."
        return Check("prompts", False, error.message, fix)
    return Check("prompts", True, f"{answer.label} answers, and the chain can fill all that it runs")


def check_database(settings: Settings) -> Check:
    """The database opens, and SQLite is undamaged."""
    from sqlalchemy import text

    from rag.database import reading, shown_url
    from rag.errors import DatabaseError, DatabaseTooNew

    with _stores(settings) as stores:
        damaged = f"Restore a copy of it, or move {stores.workspace.root} away and ingest again."
        try:
            where = shown_url(stores.engine)
            verdict = "ok"
            if stores.engine.dialect.name == "sqlite":
                with reading(stores.engine) as connection:
                    verdict = connection.execute(text("PRAGMA quick_check(1)")).scalar_one()
        except DatabaseError as error:
            intact = settings.database_url or "locked" in error.message or isinstance(error, DatabaseTooNew)
            return Check("database", False, error.message, error.fix if intact else damaged)
    if verdict != "ok":
        return Check("database", False, f"{where} is damaged: {verdict}", damaged)
    return Check("database", True, where)


def check_pending(settings: Settings) -> Check:
    """What waits for a tracker is named."""
    from ui.app.tracking import Tracking

    with _stores(settings) as stores:
        found = {delivery.name: delivery.pending() for delivery in Tracking(settings, stores).deliveries()}
    waiting = ", ".join(f"{name}: {number:,}" for name, number in found.items() if number)
    # Not a problem: a server or tomorrow's first command takes care of the traces.
    return Check("pending", True, f"{waiting}; `ragsmith sync` sends them" if waiting else "nothing waits for W&B")


def check_alerts(settings: Settings) -> Check:
    """A server checks the alerts, and their notices arrive."""
    from ui.app.alerting import SETTLING_S, Alerting
    from ui.app.tracking import Tracking

    with _stores(settings) as stores:
        alerting = Alerting(settings, stores, Tracking(settings, stores))
        watched, channels, troubles = alerting.watched(), alerting.channels, alerting.troubles()
    missing = sorted({name for one in watched for name in one.alert.channels if name not in channels})
    if missing:
        detail = f"not configured, but named by an alert: {', '.join(missing)}"
        return Check("alerts", None, detail, "Configure the channel in the section alerts, or change the alert.")
    failed = [f"{name} by {notice.channel}: {notice.error}" for name in troubles for notice in troubles[name]]
    if failed:
        fix = "Correct the channel; `ragsmith alerts test NAME` tries it."
        return Check("alerts", None, f"a notice was not sent: {'; '.join(failed)}", fix)
    now = time.time()
    # Two checks were missed.
    late = [w.alert.name for w in watched if (w.state.checked or 0) < now - 3 * w.alert.step_s - SETTLING_S]
    if late:
        fix = "Run `ragsmith serve`, or `ragsmith alerts check` at regular times."
        return Check("alerts", None, f"nothing checks {', '.join(late)}", fix)
    return Check("alerts", True, ", ".join(f"{one.alert.name}: {one.state.level}" for one in watched) or "none")


def check_chroma(settings: Settings) -> Check:
    """Chroma opens in the workspace, or its server answers."""
    if settings.chroma_url:
        return _check_chroma_server(settings.chroma_url)
    from rag.errors import VectorStoreError

    with _stores(settings) as stores:
        folder = stores.workspace.chroma
        try:
            number = stores.chroma.client.count_collections()
        except VectorStoreError as error:
            fix = "Run `ragsmith ingest` again: the folder is set aside, and the vectors are rebuilt."
            return Check("chroma", False, f"{folder} cannot be opened: {error.message}", fix)
    return Check("chroma", True, f"{folder}, collections: {number}")


def _check_chroma_server(url: str) -> Check:
    from rag.redaction import without_password

    reply = fetch(f"{url.rstrip('/')}/api/v2/heartbeat")
    shown = without_password(url)
    if reply.ok:
        return Check("chroma", True, f"{shown} answers")
    fix = "Start it with `chroma run --path FOLDER`, or correct or remove the setting chroma_url."
    return Check("chroma", False, f"{shown}: {reply.reason}", fix)


def check_index(settings: Settings) -> Check:
    """Chroma and the lexical indexes match the database; this does not load the encoder."""
    from rag.encoders.encoder_files import locate_model
    from rag.errors import EncoderError
    from rag.indexing.corpora import fingerprint_of, stored_states
    from rag.tracing.figures import counted

    with _stores(settings) as stores:
        try:
            current = fingerprint_of(locate_model(settings.encoder).sha256(), settings.chunking.tokens)
        except EncoderError:
            # Its own check reports it.
            current = None
        states = stored_states(stores.workspace, stores.engine, stores.chroma.client, current)
    notices = [state.notice(name) for name, state in states.items() if not state.ok]
    if notices:
        return Check("index", False, " ".join(notices))
    counts = ", ".join(f"{name}: {counted(state.passages, 'passage')}" for name, state in states.items())
    return Check("index", True, counts or "no corpus yet")


def _stores(settings: Settings) -> AbstractContextManager[Stores]:
    from rag.workspace import open_workspace
    from ui.app.stores import Stores

    return closing(Stores(settings, open_workspace(settings.home)))
