"""What a model in training writes for validation rows, as text for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from rag.tracing.figures import counted
from ui.commands._terminal_text import one_line

if TYPE_CHECKING:
    from finetune.predictions import Prediction
    from finetune.training import Point

# Characters of a text, and of the end of a prompt.
_SHOWN = 300
_PROMPT_SHOWN = 160


def print_samples(curve: Sequence[Point]) -> None:
    """Print the newest samples of a curve: the end of the prompt, the target, and the text of the model."""
    point = next((point for point in reversed(curve) if point.samples), None)
    if point is None:
        return
    click.echo(f"\nSamples at {point.stage} {point.step}/{point.steps}:")
    for number, sample in enumerate(point.samples, 1):
        prompt = one_line(sample.prompt)
        # A system message begins every prompt.
        click.echo(f"  {number}. {prompt if len(prompt) <= _PROMPT_SHOWN else f'… {prompt[-_PROMPT_SHOWN:]}'}")
        click.echo(f"     target: {_clipped(sample.target)}")
        click.echo(f"     writes: {_clipped(sample.text)}")


def print_predictions(predictions: Sequence[Prediction]) -> None:
    """Print how many predictions there are, and how their losses differ."""
    if predictions:
        lowest, highest = predictions[0].loss, predictions[-1].loss
        click.echo(
            f"Predictions for {counted(len(predictions), 'validation row')} with losses from {lowest:.4f} to "
            f"{highest:.4f}: see --json or the tab Tune"
        )


def _clipped(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]} …"
