"""The part Try of the tab Tune: what a run's adapter writes, beside its base."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import gradio as gr

from finetune.recipe import CausalRecipe
from finetune.run_folder import RESULT, RunFolder, all_runs, find_run
from finetune.tuned_model import TunedModel
from rag.errors import RagsmithError, TuningError
from rag.models.local.local_engine import Decoding
from rag.models.local.token_sampling import Sampling
from ui.pages.html_component import html_component
from ui.pages.page_events import QUIET, show_errors, warn
from ui.pages.safe_markup import fragment, note
from ui.pages.tune.guess_part import GuessPart

if TYPE_CHECKING:
    from rag.settings import Settings
    from rag.workspace import Workspace

Updates = dict[Any, Any]

HINT = "Choose a run that is done, write a prompt, and press Write."
# Pieces between two updates of the page, which is slow.
EVERY = 4


class TryPart:
    """Components and events of the part, made inside the blocks that are open.

    One model stays loaded, that of the run that was tried last.
    """

    def __init__(self, settings: Settings, workspace: Workspace) -> None:
        self._settings = settings
        self._workspace = workspace
        self._loading = threading.Lock()
        self._model: tuple[str, TunedModel] | None = None
        # By the session that writes.
        self._stopping: dict[str, threading.Event] = {}
        with gr.Row(elem_classes="tune-part", equal_height=True):
            with gr.Column(elem_classes="tune-left", min_width=0, scale=0):
                self._run = gr.Dropdown(label="Run", interactive=True, elem_id="try-run")
                self._prompt = gr.Textbox(label="Prompt", lines=3, max_lines=10, elem_id="try-prompt", value="")
                with gr.Row():
                    self._temperature = gr.Number(
                        label="Temperature", value=0.0, minimum=0, maximum=2, step=0.1, min_width=80
                    )
                    self._top_p = gr.Number(label="Top p", value=1.0, minimum=0.01, maximum=1, min_width=80)
                with gr.Row():
                    self._tokens = gr.Number(
                        label="Maximum tokens",
                        value=200,
                        minimum=1,
                        precision=0,
                        min_width=80,
                        elem_id="try-tokens",
                    )
                    self._seed = gr.Number(label="Seed", value=1, minimum=0, precision=0, min_width=80)
                self._stops = gr.Textbox(
                    label="Stop at, one text per line", lines=2, elem_id="try-stops", value=""
                )
                with gr.Row():
                    self._write = gr.Button(
                        "Write", size="sm", variant="primary", elem_id="try-write", min_width=80
                    )
                    self._stop = gr.Button("Stop", size="sm", variant="stop", elem_id="try-stop", min_width=80)
            with gr.Column(elem_classes="tune-main", min_width=0, scale=1):
                self._texts = html_component("try-texts", note(HINT))
                self._guess = GuessPart(workspace)

    def wire(self, opened: Iterable[Any]) -> None:
        """Connect the events.

        Args:
            opened: Tabs that show the part when they are selected.
        """
        for tab in opened:
            tab.select(self.listing, self._run, self._run, **QUIET)
        asked = [self._run, self._prompt, self._temperature, self._top_p, self._tokens, self._seed, self._stops]
        self._write.click(self.write, asked, self._texts, **QUIET)
        self._stop.click(self.stop, None, None, **QUIET)
        self._guess.wire(self._run)

    @show_errors
    def listing(self, chosen: str | None) -> Any:
        """Offer the runs that are done, the newest first."""
        names = [run.name for run in all_runs(self._workspace.runs) if _can_write(run)]
        return gr.Dropdown(choices=names, value=chosen if chosen in names else next(iter(names), None))

    def stop(self, request: gr.Request) -> None:
        """End the writing of this session; what was written stays."""
        if (stopping := self._stopping.get(request.session_hash or "")) is not None:
            stopping.set()

    def write(self, request: gr.Request, run: str | None, prompt: str, *rest: Any) -> Iterator[str]:
        """Write with the adapter and then with the base, and show the texts as they grow."""
        stopping = self._stopping[request.session_hash or ""] = threading.Event()
        temperature, top_p, tokens, seed, stops = rest
        sampling = Sampling(
            float(temperature or 0), float(top_p or 1) if temperature else None, seed=int(seed or 0)
        )
        decoding = Decoding(int(tokens or 200), sampling, tuple(line for line in stops.split("\n") if line))
        texts = {"adapter": "", "base": ""}
        try:
            yield note("Loading the model …")
            model = self._loaded(run)
            for name in texts:
                with closing(model.write(prompt, decoding, adapted=name == "adapter")) as pieces:
                    for number, piece in enumerate(pieces):
                        if stopping.is_set():
                            yield _texts_html(run or "", prompt, texts, "")
                            return
                        texts[name] += piece.text
                        if number % EVERY == 0 or piece.ending:
                            yield _texts_html(run or "", prompt, texts, name if not piece.ending else "")
        except Exception as error:  # noqa: BLE001 - no traceback may reach the page
            warn(error)
            yield _texts_html(run or "", prompt, texts, "") if texts["adapter"] else note(HINT)
        finally:
            self._stopping.pop(request.session_hash or "", None)

    def _loaded(self, name: str | None) -> TunedModel:
        if not name:
            raise TuningError("No run is chosen.", fix="Choose a run that is done.")
        run = find_run(self._workspace.runs, name)
        with self._loading:
            if self._model is not None and self._model[0] == run.name:
                return self._model[1]
            if self._model is not None:
                self._model[1].close()
                self._model = None
            model = TunedModel.of_run(run, self._workspace.models, self._settings.local)
            self._model = (run.name, model)
            return model


def _can_write(run: RunFolder) -> bool:
    try:
        return (run.path / RESULT).is_dir() and isinstance(run.recipe, CausalRecipe)
    except RagsmithError:
        # A damaged run is in the list of runs, with its state.
        return False


def _texts_html(run: str, prompt: str, texts: dict[str, str], writing: str) -> str:
    columns = [(name, text.strip(), name == writing) for name, text in texts.items()]
    return fragment("tune_texts.html.jinja", run=run, prompt=prompt, columns=columns)
