"""How a model of transformers chooses its tokens: a chain of processors of their scores.

The last one draws, and leaves the token that it drew. So the random numbers are a request's own, and a seed
means the same whatever else this process draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rag.models.local.token_sampling import Sampling


@dataclass(frozen=True, slots=True)
class Recommended:
    """What a model's authors recommend for drawing; None where they say nothing.

    The rest of their settings is not kept, so that a temperature of 0 gives the most probable tokens and nothing
    else.
    """

    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None


def choosing(sampling: Sampling, recommended: Recommended, prompt: int, device: str) -> list[Any]:
    """The processors that scores go through before the greatest one is taken.

    Args:
        sampling: What was asked for; where it says nothing, ``recommended`` holds.
        prompt: Positions of the prompt, with those that fill it up.
        device: Where the scores are.
    """
    from transformers.generation import logits_process as process

    chain: list[Any] = []
    if sampling.repetition_penalty is not None:
        chain.append(
            process.RepetitionPenaltyLogitsProcessor(
                float(sampling.repetition_penalty), prompt_ignore_length=prompt
            )
        )
    if not sampling.drawn:
        return chain
    top_k = sampling.top_k or recommended.top_k
    top_p = recommended.top_p if sampling.top_p is None else sampling.top_p
    chain.append(process.TemperatureLogitsWarper(float(sampling.temperature)))
    if top_k:
        chain.append(process.TopKLogitsWarper(top_k))
    if top_p is not None and top_p < 1:
        chain.append(process.TopPLogitsWarper(float(top_p)))
    if recommended.min_p is not None:
        chain.append(process.MinPLogitsWarper(recommended.min_p))
    return [*chain, _drawing(sampling.seed, device)]


def _drawing(seed: int | None, device: str) -> Any:
    import torch

    chance = torch.Generator(device)
    if seed is None:
        chance.seed()
    else:
        chance.manual_seed(seed)

    def draw(input_ids: Any, scores: Any) -> Any:
        drawn = torch.multinomial(scores.softmax(-1), 1, generator=chance)
        return torch.full_like(scores, -torch.inf).scatter(-1, drawn, 0.0)

    return draw
