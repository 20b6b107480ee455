"""The networks of reader and reranker, for training and for conversion; answering runs the converted graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# The matrices that training moves, by the ends of their names: all of the layers, none of the embeddings.
TARGETS = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)


def open_base(folder: Path, *, attention: str = "eager") -> torch.nn.Module:
    """The base model without its pooling.

    Args:
        folder: In the sentence-transformers or transformers layout.
        attention: ``eager`` trains faster than ``sdpa`` on a processor: its backward pass took 80 ms in place of
            125 for 32 rows of 192 tokens.
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
    """The network of a task, ``reader`` or ``reranker``; its head is fresh."""
    return {"reader": span_network, "reranker": pair_network}[task](base)


def span_network(base: torch.nn.Module) -> torch.nn.Module:
    """The base with a head that scores each token as the first and as the last of an answer.

    Its ``forward(ids, types, mask)`` takes whole numbers of shape ``(rows, tokens)`` and gives scores of shape
    ``(rows, tokens, 2)``.
    """
    import torch

    class SpanNetwork(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.base = base
            self.head = torch.nn.Linear(base.config.hidden_size, 2)

        def forward(self, ids: Any, types: Any, mask: Any) -> Any:
            found = self.base(input_ids=ids, token_type_ids=types, attention_mask=mask)
            return self.head(found.last_hidden_state)

    return SpanNetwork()


def pair_network(base: torch.nn.Module) -> torch.nn.Module:
    """The base with a head on its first token that scores how well the passage goes with the question.

    Its ``forward(ids, types, mask)`` takes whole numbers of shape ``(rows, tokens)`` and gives scores of shape
    ``(rows, 1)``.
    """
    import torch

    class PairNetwork(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.base = base
            self.head = torch.nn.Linear(base.config.hidden_size, 1)

        def forward(self, ids: Any, types: Any, mask: Any) -> Any:
            found = self.base(input_ids=ids, token_type_ids=types, attention_mask=mask)
            return self.head(found.last_hidden_state[:, 0])

    return PairNetwork()
