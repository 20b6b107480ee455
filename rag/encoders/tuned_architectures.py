"""Networks of tuned models, for training and conversion; answering uses the converted graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# Suffixes of the names of trainable matrices: all matrices of the layers, but no embeddings.
TARGETS = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)


def open_base(folder: Path, *, attention: str = "eager") -> torch.nn.Module:
    """Load the base model without its pooling.

    Args:
        folder: A folder in sentence-transformers or transformers layout.
        attention: ``eager`` trains faster than ``sdpa`` on a CPU: its backward pass took 80 ms instead of 125 for
            32 rows of 192 tokens.
    """
    from transformers import BertModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    base: torch.nn.Module = BertModel.from_pretrained(
        folder, add_pooling_layer=False, attn_implementation=attention
    )
    return base


def network_for(task: str, base: torch.nn.Module) -> torch.nn.Module:
    """Build the network of a task, with a fresh head.

    Args:
        task: ``reader`` scores every token as the first and the last of an answer, ``reranker`` the relevance of a
            passage to the question.
        base: See ``open_base``.
    """
    makers = {"reader": span_network, "reranker": pair_network}
    return makers[task](base)


def span_network(base: torch.nn.Module) -> torch.nn.Module:
    """Add a head with two scores per token: ``(rows, tokens, 2)``."""
    return _scoring_network(base, 2, first_only=False)


def pair_network(base: torch.nn.Module) -> torch.nn.Module:
    """Add a head with one score per row, at its first token: ``(rows, 1)``."""
    return _scoring_network(base, 1, first_only=True)


def _scoring_network(base: torch.nn.Module, scores: int, *, first_only: bool) -> torch.nn.Module:
    """Add a linear head; ``forward(ids, types, mask)`` takes integers of shape ``(rows, tokens)``."""
    import torch

    class ScoringNetwork(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.base = base
            self.head = torch.nn.Linear(base.config.hidden_size, scores)

        def forward(self, ids: Any, types: Any, mask: Any) -> Any:
            found = self.base(input_ids=ids, token_type_ids=types, attention_mask=mask).last_hidden_state
            return self.head(found[:, 0] if first_only else found)

        def example(self) -> dict[str, torch.Tensor]:
            """Return example inputs for tracing."""
            return {name: torch.ones(2, 7, dtype=torch.long) for name in ("ids", "types", "mask")}

    return ScoringNetwork()
