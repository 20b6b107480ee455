"""``ragsmith serve``: the chat page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ui.commands._app import announce_model, command_app, prepare_encoder
from ui.commands._progress import ingest_progress
from ui.commands._terminal_text import note
from ui.context import Context, answer_options, pass_context

if TYPE_CHECKING:
    from rag.settings import Settings
    from ui.app.stores import Stores


@click.command()
@click.option("--host", metavar="ADDRESS", help="The address to listen on; by default this machine only.")
@click.option("--port", type=click.IntRange(0, 65535), metavar="PORT", help="The port; 0 takes any free one.")
@click.option("--open", "open_browser", is_flag=True, help="Open the page in the browser.")
@click.option("--corpus", metavar="NAME", help="The corpus to ask if none is chosen.")
@answer_options
@click.option(
    "--no-auth", is_flag=True, help="Serve other machines without a password, behind a proxy that asks for one."
)
@pass_context
def command(context: Context, /, **options: Any) -> None:
    """Open the chat page, and serve it until Ctrl-C.

    The first start adds the sample corpus, which takes about twenty seconds. An address that other machines can
    reach needs a password: set RAGSMITH_ACCESS__PASSWORD.
    """
    from ui.access import check_access
    from ui.app.stores import SAMPLE_CORPUS
    from ui.server import listen, serve

    open_browser, answering = options.pop("open_browser"), options.pop("answering")
    options["access"] = {"no_auth": options.pop("no_auth") or None}
    with command_app(context, **options, **answering) as app:
        check_access(app.settings)
        # Report a port that is taken before the wait, not after it.
        listen(app.settings.host, app.settings.port).close()
        if not app.stores.has_files(SAMPLE_CORPUS):
            prepare_encoder(app.settings, app.stores)
            _prepare_sample(app.settings, app.stores)
        announce_model(app.settings, app.models)
        # The page opens first, and `HealthCheck.warm` loads the rest in the background.
        serve(app, open_browser=open_browser)


def _prepare_sample(settings: Settings, stores: Stores) -> None:
    from rag.errors import RagsmithError
    from ui.app.stores import SAMPLE_CORPUS

    try:
        names = stores.corpus_names()
        if names and SAMPLE_CORPUS not in (settings.corpus, *names):
            # The user has removed it and asks another corpus.
            return
        note(f"Adding the sample corpus {SAMPLE_CORPUS}; this happens once.")
        with ingest_progress() as show:
            stores.ensure_sample(show)
    except RagsmithError as error:
        # The page shows the problem and still serves the other corpora.
        note(f"Warning: the sample corpus is not up to date. {error}")
