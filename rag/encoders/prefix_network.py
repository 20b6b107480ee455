"""The generator's network, for training and for conversion; answering runs the converted graph.

It is a prefix language model (Dong and others, arXiv 1905.03197): the tokens of the prompt see each other in both
directions, those of the reply see the prompt and what stands to their left. A token of the reply is drawn from the
vocabulary or copied from the prompt, in shares that the network decides (See, Liu and Manning, arXiv 1704.04368).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

# Numbers of a copying key.
KEY_SIZE = 128
# Added to what must not be seen.
FAR_BELOW = -1e4


class Drawn(NamedTuple):
    """What the head says of the tokens that may come next, for any number of places.

    Attributes:
        vocabulary: Scores of every token, shape ``(…, vocabulary)``.
        copied: Scores of every token of the prompt, shape ``(…, tokens)``; what is no prompt is far below.
        gate: Score of the vocabulary against copying, shape ``(…)``: its sigmoid is the vocabulary's share.
    """

    vocabulary: torch.Tensor
    copied: torch.Tensor
    gate: torch.Tensor


def generator_network(base: torch.nn.Module) -> torch.nn.Module:
    """The base with a head that says which token comes next.

    Its ``forward`` takes one row of ``n`` tokens that come after ``p`` others. It gives what the head says after
    the last token, and keys, values and copying keys of the ``n`` tokens. It is given:

    * ``ids``, ``positions``, ``types``: each ``(1, n)``;
    * ``allowed``: what each token sees, ``(1, n, p + n)``, 0 for seen and ``FAR_BELOW`` for not;
    * ``prompt``: what may be copied, ``(1, p + n)``, in the same numbers;
    * ``past``: keys and values of the others, ``(layers, 2, 1, heads, p, size)``;
    * ``keys``: copying keys of the others, ``(1, p, KEY_SIZE)``.
    """
    import torch
    from torch.nn import functional

    model: Any = base
    size, heads = model.config.hidden_size, model.config.num_attention_heads
    vocabulary = model.config.vocab_size

    class Head(torch.nn.Module):  # type: ignore[misc]
        """Ties its output to the base's embeddings, which are no part of it."""

        def __init__(self) -> None:
            super().__init__()
            self.transform = torch.nn.Linear(size, size)
            self.norm = torch.nn.LayerNorm(size)
            self.bias = torch.nn.Parameter(torch.zeros(vocabulary))
            self.query = torch.nn.Linear(size, KEY_SIZE)
            self.key = torch.nn.Linear(size, KEY_SIZE)
            self.gate = torch.nn.Linear(size, 1)

        def vocabulary(self, hidden: Any, embeddings: Any) -> Any:
            told = self.norm(functional.gelu(self.transform(hidden)))
            return functional.linear(told, embeddings, self.bias)

        def copied(self, hidden: Any, keys: Any, prompt: Any) -> Any:
            return self.query(hidden) @ keys.transpose(-1, -2) * KEY_SIZE**-0.5 + prompt[:, None]

    class GeneratorNetwork(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.base = base
            self.head = Head()

        def forward(
            self, ids: Any, positions: Any, types: Any, allowed: Any, prompt: Any, past: Any, keys: Any
        ) -> tuple[Any, ...]:
            hidden, held = self._layers(ids, positions, types, allowed, past)
            own = self.head.key(hidden)
            last = hidden[:, -1:]
            vocabulary = self.head.vocabulary(last, self._embeddings())
            copied = self.head.copied(last, torch.cat([keys, own], 1), prompt)
            return vocabulary[:, 0], copied[:, 0], self.head.gate(last[:, 0]), held, own

        def example(self) -> dict[str, torch.Tensor]:
            """Inputs for the conversion to follow."""
            layers, width, count = model.config.num_hidden_layers, 5, 3
            whole = torch.ones(1, count, dtype=torch.long)
            return {
                "ids": whole,
                "positions": whole,
                "types": whole,
                "allowed": torch.zeros(1, count, width + count),
                "prompt": torch.zeros(1, width + count),
                "past": torch.zeros(layers, 2, 1, heads, width, size // heads),
                "keys": torch.zeros(1, width, KEY_SIZE),
            }

        def replies(self, ids: Any, types: Any, mask: Any, rows: Any, places: Any) -> Drawn:
            """What the head says at some places of whole rows, for training.

            Args:
                ids: Shape ``(rows, tokens)``; ``types`` is 1 in the reply, ``mask`` 0 in the padding.
                rows, places: Of the tokens that are asked, each ``(asked,)``.
            """
            hidden, _ = self._layers(ids, None, types, seen(types, mask), None)
            prompt = FAR_BELOW * (1.0 - (mask * (1 - types)).to(hidden.dtype))
            # A row of places for each row of tokens: no key is held more than once.
            steps = places - types.argmax(1)[rows] + 1
            padded = torch.zeros(len(ids), int(steps.max()) + 1, dtype=torch.long)
            padded[rows, steps] = places
            asking = hidden.gather(1, padded[..., None].expand(-1, -1, size))
            copied = self.head.copied(asking, self.head.key(hidden), prompt)[rows, steps]
            chosen = hidden[rows, places]
            return Drawn(
                self.head.vocabulary(chosen, self._embeddings()), copied, self.head.gate(chosen).squeeze(-1)
            )

        def _embeddings(self) -> Any:
            return model.embeddings.word_embeddings.weight

        def _layers(self, ids: Any, positions: Any, types: Any, allowed: Any, past: Any) -> tuple[Any, Any]:
            # An adapter is put into the base's own layers, so that these are the same with and without one.
            hidden = model.embeddings(input_ids=ids, position_ids=positions, token_type_ids=types)
            bias = allowed[:, None].to(hidden.dtype)
            held = []
            for number, layer in enumerate(model.encoder.layer):
                inner = layer.attention.self
                asked, key, value = (
                    _by_head(part(hidden), heads) for part in (inner.query, inner.key, inner.value)
                )
                if past is not None:
                    held.append(torch.stack([key, value]))
                    key = torch.cat([past[number, 0], key], 2)
                    value = torch.cat([past[number, 1], value], 2)
                weights = (asked @ key.transpose(-1, -2) * asked.shape[-1] ** -0.5 + bias).softmax(-1)
                together = (weights @ value).transpose(1, 2).flatten(2)
                output = layer.attention.output
                hidden = output.LayerNorm(output.dense(together) + hidden)
                wide = functional.gelu(layer.intermediate.dense(hidden))
                hidden = layer.output.LayerNorm(layer.output.dense(wide) + hidden)
            return hidden, torch.stack(held) if held else None

    return GeneratorNetwork()


def seen(types: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """What each token sees: ``(rows, tokens, tokens)``, 0 for seen and ``FAR_BELOW`` for not."""
    import torch

    tokens = types.shape[1]
    left = torch.ones(tokens, tokens, dtype=torch.bool).tril()
    reply = types.bool()
    # The prompt is seen by all; the reply by itself, to the left.
    visible = (~reply[:, None, :] | (reply[:, :, None] & left)) & mask.bool()[:, None, :]
    return torch.where(visible, 0.0, FAR_BELOW)


def _by_head(states: Any, heads: int) -> Any:
    """From ``(rows, tokens, size)`` to ``(rows, heads, tokens, size of a head)``."""
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)
