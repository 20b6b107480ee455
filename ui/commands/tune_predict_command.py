"""``ragsmith tune predict``: let the result of a run write."""

from __future__ import annotations

from typing import Any

import click

from ui.commands._finite_range import FiniteRange
from ui.commands._terminal_text import note, print_json, unpaired, visible
from ui.context import Context, pass_context


@click.command()
@click.argument("run")
@click.argument("prompt")
@click.option(
    "--temperature",
    type=FiniteRange(0, 2),
    default=0.0,
    show_default=True,
    help="0 is the most probable text.",
)
@click.option("--top-p", type=FiniteRange(0, 1, min_open=True), help="The probability mass to sample from.")
@click.option("--top-k", type=click.IntRange(1), help="The number of tokens to sample from.")
@click.option(
    "--repetition-penalty",
    type=FiniteRange(0, 10, min_open=True),
    help="Above 1, tokens of the text become less probable.",
)
@click.option("--seed", type=click.IntRange(0), help="The same seed gives the same text.")
@click.option("--max-tokens", type=click.IntRange(1), default=256, show_default=True, help="The longest text.")
@click.option("--stop", metavar="TEXT", multiple=True, help="A text that ends the output; may be repeated.")
@click.option("--both", is_flag=True, help="Also write with the base alone.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@pass_context
def predict(context: Context, /, run: str, prompt: str, **options: Any) -> None:
    """Write what the adapter of RUN answers to PROMPT.

    The prompt is rendered as the rows of the training were: with their separator and system message, and the end
    text stops the output. In place of a run, smollm2 or local:PATH-OR-NAME is a model without an adapter.
    """
    from finetune.run_folder import find_run
    from finetune.tuned_model import TunedModel
    from rag.models.chat_models import LOCAL
    from rag.models.local.local_engine import Decoding
    from rag.models.local.token_sampling import Sampling
    from rag.settings import SMOLLM2
    from rag.workspace import open_workspace

    settings = context.settings
    workspace = open_workspace(settings.home)
    is_base = run == SMOLLM2 or run.startswith(LOCAL)
    if is_base and options["both"]:
        raise click.UsageError("--both compares the adapter of a run with its base, so it needs a run.")
    names = ("temperature", "top_p", "top_k", "repetition_penalty", "seed")
    decoding = Decoding(
        options["max_tokens"],
        Sampling(**{name: options[name] for name in names}),
        tuple(map(unpaired, options["stop"])),
    )
    asked = unpaired(prompt)
    if is_base:
        name, wanted = run, {"base": False}
        opened = TunedModel(run, None, workspace.models, settings.local)
    else:
        found = find_run(workspace.runs, run)
        name, wanted = found.name, {"adapter": True} | ({"base": False} if options["both"] else {})
        opened = TunedModel.of_run(found, workspace.models, settings.local)
    with opened as model:
        texts = {name: model.written(asked, decoding, adapted=adapted) for name, adapted in wanted.items()}
    if options["as_json"]:
        record = {
            name: {"text": one.text, "ending": one.ending, "tokens": one.written_tokens}
            for name, one in texts.items()
        }
        print_json({"run": name, "prompt": asked, **record}, indent=2)
        return
    for name, one in texts.items():
        if options["both"]:
            click.echo(f"{name}:")
        click.echo(visible(one.text.strip()))
        if one.ending == "length":
            note(f"The text was cut at {options['max_tokens']} tokens; --max-tokens allows more.")
