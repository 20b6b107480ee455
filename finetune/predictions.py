"""What a language model in training writes for validation rows, beside their targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# Validation rows that the model writes for at every validation, and the tokens of each text.
SAMPLES = 3
SAMPLE_TOKENS = 48
# After the training it writes for this many rows of the lowest, and of the highest loss.
EXTREMES = 6
PREDICTION_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Prediction:
    """A text that was written for a validation row, always with the most probable token.

    Attributes:
        row: Index of the row among the validation rows.
        prompt: The prompt, without what the chat template puts around a single message.
        target: The reply of the row.
        text: The text of the model, which ends after some tokens.
        loss: Loss of the row, in nats per token that is learnt.
    """

    row: int
    prompt: str
    target: str
    text: str
    loss: float


def extremes(losses: Sequence[float]) -> list[int]:
    """Return the rows of the lowest and of the highest losses, or all if there are few; the lowest first."""
    order = sorted(range(len(losses)), key=lambda row: losses[row])
    return order if len(order) <= 2 * EXTREMES else order[:EXTREMES] + order[-EXTREMES:]


def write_greedily(
    model: Any, prompts: Sequence[Sequence[int]], ends: frozenset[int], most: int
) -> list[list[int]]:
    """Return the most probable continuation of each prompt, without the token that ends it.

    Args:
        model: A causal language model of transformers; it is left in evaluation mode.
        prompts: Token ids.
        ends: Tokens that end a text.
        most: Maximum tokens of a text, 1 or more.
    """
    import torch
    from transformers import GenerationConfig

    padding = min(ends, default=0)
    longest = max(map(len, prompts))
    ids: torch.Tensor = torch.full((len(prompts), longest), padding)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    device = next(model.parameters()).device
    config = GenerationConfig(
        max_new_tokens=most,
        do_sample=False,
        # The model's own configuration has no cache, which a training does not need.
        use_cache=True,
        eos_token_id=sorted(ends) or None,
        pad_token_id=padding,
    )
    model.eval()
    with torch.no_grad():
        written = model.generate(
            input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=config
        )
    return [_without_end(row[longest:].tolist(), ends) for row in written]


def _without_end(ids: list[int], ends: frozenset[int]) -> list[int]:
    end = next((at for at, token in enumerate(ids) if token in ends), len(ids))
    return ids[:end]
