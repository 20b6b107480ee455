"""Sampling for models of transformers, by a chain of score processors.

The last processor samples and leaves only the sampled token. So every request has its own random numbers, and a
seed gives the same tokens regardless of other requests.
"""

from __future__ import annotations

from typing import Any

from rag.models.local.token_sampling import Recommended, Sampling


def sampling_processors(sampling: Sampling, recommended: Recommended, prompt: int, device: str) -> list[Any]:
    """Return the processors to apply to the scores before the maximum is taken.

    Args:
        sampling: The requested sampling.
        recommended: Defaults for what ``sampling`` leaves open.
        prompt: Length of the prompt, including padding.
        device: The device of the scores.
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
    return [*chain, _sampler(sampling.seed, device)]


def _sampler(seed: int | None, device: str) -> Any:
    import torch

    rng = torch.Generator(device)
    if seed is None:
        rng.seed()
    else:
        rng.manual_seed(seed)

    def draw(input_ids: Any, scores: Any) -> Any:
        drawn = torch.multinomial(scores.softmax(-1), 1, generator=rng)
        return torch.full_like(scores, -torch.inf).scatter(-1, drawn, 0.0)

    return draw
