"""Replaying all that the list of traces shows: an estimate, a start, the progress, and a stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from rag.errors import ReplayError
from ui.app.list_replay import DATASET, ListReplay, listed_traces, replay_of
from ui.pages.evaluate.run_selection import RunSelection
from ui.pages.evaluate.runs_tab import HINT
from ui.pages.html_component import html_component
from ui.pages.page_events import QUIET, in_thread, show_errors, show_warning, warn
from ui.pages.safe_markup import fragment
from ui.pages.traces.list_state import ListState

if TYPE_CHECKING:
    from rag.evaluation.run_store import Run
    from ui.app.evaluations import Evaluations
    from ui.app.stores import Stores

MOST_REPLAYED = 500
"""Maximum traces that are read; the list may have many thousands."""
LOOK_S = 1.0
_VARIANTS = "now:"

Updates = dict[Any, Any]


class ListReplayPart:
    """Components and events of the part, made inside the blocks that are open; ``button`` opens it."""

    def __init__(self, stores: Stores, evaluations: Evaluations) -> None:
        self._stores = stores
        self._evaluations = evaluations
        with gr.Column(elem_id="trace-replay", visible=False) as self._part:
            self._about = html_component("trace-replay-about")
            self._variants = gr.Textbox(
                label="Variants, the baseline first",
                value=_VARIANTS,
                lines=2,
                max_lines=6,
                info=HINT,
                elem_id="trace-replay-variants",
            )
            with gr.Row(elem_id="trace-replay-actions"):
                self._start = gr.Button("Start", variant="primary", size="sm", elem_id="trace-replay-start")
                self._stop = gr.Button(
                    "Stop", variant="stop", size="sm", visible=False, elem_id="trace-replay-stop"
                )
                self._close = gr.Button("Close", size="sm", elem_id="trace-replay-close")
        self._replay = gr.State(None)
        self._run = gr.State("")
        self._timer = gr.Timer(LOOK_S, active=False)

    def wire(self, button: Any, state: Any) -> None:
        """Connect the events.

        Args:
            button: Opens the part.
            state: What the list shows.
        """
        form = [self._part, self._about, self._variants, self._start, self._stop, self._timer]
        button.click(self.open, [state, self._run], [*form, self._replay], **QUIET)
        self._start.click(self.start, [self._replay, self._variants], [*form, self._run], **QUIET)
        self._stop.click(self.stop, self._run, None, **QUIET)
        self._close.click(self.close, None, [self._part, self._timer], **QUIET)
        self._timer.tick(self.look, self._run, form, **QUIET)

    @show_errors
    def open(self, state: ListState, run_id: str) -> Any:
        """Show what a replay of the list would ask, or the run of this window that goes on."""
        if self._evaluations.is_working(run_id):
            return self.look(run_id)
        traces, more = listed_traces(self._stores, state.query(), MOST_REPLAYED)
        if not traces:
            raise ReplayError("No trace of the list has a question.", fix="Change the filter.")
        replay = replay_of(traces)
        about = fragment(
            "traces_replay.html.jinja", run=None, replay=replay, dataset=DATASET, more=more, most=MOST_REPLAYED
        )
        return {
            self._part: gr.Column(visible=True),
            self._about: about,
            self._variants: gr.Textbox(visible=True),
            self._start: gr.Button(visible=True),
            self._stop: gr.Button(visible=False),
            self._timer: gr.Timer(active=False),
            self._replay: replay,
        }

    async def start(self, replay: ListReplay, variants: str) -> Any:
        """Start the run."""
        try:
            run = await in_thread(self._begun, replay, variants)
            self._evaluations.start(run)
            return await in_thread(self.look, run.id) | {self._run: run.id}
        except Exception as error:  # noqa: BLE001 - shown as one sentence, with the form as it was
            warn(error)
            return gr.skip()

    async def stop(self, run_id: str) -> None:
        """Stop the run after its current answers."""
        if not self._evaluations.stop(run_id):
            show_warning("The run has ended.")

    @show_errors
    def look(self, run_id: str) -> Updates:
        """Show how far the run is."""
        working = self._evaluations.is_working(run_id)
        progress = self._evaluations.progress(run_id)
        run = self._evaluations.runs.get(run_id)
        address = RunSelection(run_id).address
        about = fragment("traces_replay.html.jinja", run=run, progress=progress, address=address)
        return {
            self._part: gr.Column(visible=True),
            self._about: about,
            self._variants: gr.Textbox(visible=False),
            self._start: gr.Button(visible=False),
            self._stop: gr.Button(visible=working),
            self._timer: gr.Timer(active=working),
        }

    def close(self) -> Sequence[Any]:
        """Hide the part; a run goes on."""
        return gr.Column(visible=False), gr.Timer(active=False)

    def _begun(self, replay: ListReplay, variants: str) -> Run:
        from rag.evaluation.variants import parse_variants

        parsed = parse_variants(variants)
        version = replay.save(self._evaluations.datasets)
        return self._evaluations.begin(version.label, parsed, corpus=replay.corpus)
