"""Real or generated? A game on the predictions of a run, in the part Try of the tab Tune."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import gradio as gr

from finetune.guessing_game import Game, new_game
from finetune.run_folder import find_run
from rag.errors import TuningError
from ui.pages.html_component import html_component
from ui.pages.page_events import QUIET, show_errors
from ui.pages.safe_markup import fragment, note

if TYPE_CHECKING:
    from rag.workspace import Workspace

Updates = dict[Any, Any]

HINT = "Tell texts of the model from those of the validation rows: press New game."
NOTHING = Game(())


class GuessPart:
    """Components and events of the game, made inside the blocks that are open."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._game = gr.State(NOTHING)
        with gr.Accordion("Real or generated?", open=False, elem_id="try-guess"):
            self._card = html_component("guess-card", note(HINT))
            with gr.Row():
                self._real = gr.Button("Real", size="sm", elem_id="guess-real", min_width=80, visible=False)
                self._generated = gr.Button(
                    "Generated", size="sm", elem_id="guess-generated", min_width=80, visible=False
                )
                self._new = gr.Button("New game", size="sm", elem_id="guess-new", min_width=80)

    def wire(self, run: Any) -> None:
        """Connect the events.

        Args:
            run: The dropdown with the name of the run.
        """
        shown = [self._game, self._card, self._real, self._generated]
        self._new.click(self.start, run, shown, **QUIET)
        self._real.click(lambda game: self._shown(game.guessed(True)), self._game, shown, **QUIET)
        self._generated.click(lambda game: self._shown(game.guessed(False)), self._game, shown, **QUIET)

    @show_errors
    def start(self, run: str | None) -> Updates:
        """Begin a game with the predictions of a run."""
        if not run:
            raise TuningError("No run is chosen.", fix="Choose a run that is done.")
        game = new_game(find_run(self._workspace.runs, run).predictions(), random.SystemRandom().getrandbits(32))
        if not game.rounds:
            raise TuningError(
                f"The run {run} has no predictions that differ from their targets.",
                fix="Choose a run that has learned from replies (sft).",
            )
        return self._shown(game)

    def _shown(self, game: Game) -> Updates:
        goes_on = game.current is not None
        return {
            self._game: game,
            self._card: fragment("tune_guess.html.jinja", game=game),
            self._real: gr.Button(visible=goes_on),
            self._generated: gr.Button(visible=goes_on),
        }
