"""What a training is about to do, as text for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rag.tracing.figures import counted, format_cost, format_seconds
from ui.commands._terminal_text import one_line, visible

if TYPE_CHECKING:
    from finetune.training_preview import TrainingPreview

# Characters of a row's parts.
_SHOWN = 600


def print_preview(preview: TrainingPreview, *, err: bool = False) -> None:
    """Print the data, the first batch with the masked part in brackets, and the estimate.

    Args:
        preview: The preview.
        err: Whether to print on stderr, beside a result.
    """

    def say(text: str) -> None:
        click.echo(text, err=err)

    say(
        f"Data: {counted(preview.rows, 'row')} of {preview.tokens:,} tokens, the longest of {preview.longest:,}; "
        f"{preview.validation_rows:,} for validation"
    )
    shown = len(preview.first_batch)
    more = f", of which {shown} are shown" if shown < preview.batch_rows else ""
    say(f"First batch: {counted(preview.batch_rows, 'row')}{more}; ⟦…⟧ is masked, the rest is learnt")
    for number, row in enumerate(preview.first_batch, 1):
        say(f"  {number}. {counted(row.tokens, 'token')}, {row.learnt_tokens:,} learnt")
        text = f"⟦{_clipped(row.masked)}⟧{_clipped(row.learnt)}"
        say("\n".join(f"     {line}" for line in visible(text).split("\n")))
    steps = ", ".join(format_seconds(seconds) for seconds in preview.step_s)
    say(
        f"Estimate for {one_line(preview.base)} on {preview.device}: {counted(preview.steps, 'step')} in about "
        f"{format_seconds(preview.estimated_s)} (three steps took {steps}), "
        f"{preview.memory_bytes / 1e9:.1f} GB of memory, {format_cost(preview.usd)}"
    )


def _clipped(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]} … {text[-_SHOWN // 2 :]}"
