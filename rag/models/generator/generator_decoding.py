"""The generator: writes the tokens of a reply, one after the other, with a graph that OpenVINO runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.encoders.adapters import Adapter
from rag.encoders.compiled_network import CompiledNetwork
from rag.encoders.prefix_network import FAR_BELOW, KEY_SIZE
from rag.encoders.tuned_network import ConvertedModel
from rag.models.generator.generator_input import POSITIONS, PromptRenderer, Rendered

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Widths are rounded up, since OpenVINO keeps a kernel for each that it has met.
PROMPT_STEP, CACHE_STEP = 32, 128
# Where among the graph's outputs the keys and values are.
HELD = 3
# Any so many tokens in a row are written once: a small model falls into repeating itself.
NO_REPEAT = 4
# A smaller one draws the same, and the division could overflow.
LEAST_TEMPERATURE = 1e-5


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is chosen.

    Attributes:
        temperature: 0 always takes the most probable token.
        seed: Equal seeds give equal replies; None draws anew.
    """

    temperature: float = 0.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reply that says that there is no answer.

    It begins alike every time, and answers do not: its first word is often the most probable one where some answer
    is more probable than none.

    Attributes:
        tokens: Of the whole reply, two at least.
        least: The probability under which it is not written.
    """

    tokens: tuple[int, ...]
    least: float


class Generator:
    """A converted generator; its graph is compiled when it is first used. Safe to use from several threads.

    Args:
        folder: What ``rag.encoders.tuned_conversion`` made.
        adapter: What it was made from.
        precision: ``bf16`` or ``f32``; bf16 needs a processor that computes in it.

    Raises:
        AdapterError: The adapter is no generator.
        EncoderError: The folder is damaged.
    """

    def __init__(self, folder: Path, adapter: Adapter, *, precision: str) -> None:
        adapter.check_task("generator")
        self._model = ConvertedModel(folder, adapter, precision)
        self.adapter = adapter
        self.renderer = PromptRenderer(self._model.tokenizer())

    def room(self, prompt: Rendered, most: int) -> int:
        """Tokens that a reply may have: ``most``, or what the window leaves."""
        return min(most, POSITIONS - len(prompt.ids))

    def write(
        self, prompt: Rendered, most: int, sampling: Sampling = Sampling(), refusal: Refusal | None = None
    ) -> Iterator[int]:
        """The tokens of a reply, until the one that ends it or ``most`` of them.

        Args:
            prompt: Made by ``renderer``.
            most: Tokens at most; fewer where the window ends before.
            sampling: How each is chosen.
            refusal: What is written only where it is probable enough.

        Yields:
            Token numbers, without the one that ends the reply.

        Raises:
            EncoderError: OpenVINO refuses the network.
        """
        import numpy as np

        chance = np.random.default_rng(sampling.seed)
        cache = _Cache(self._model.network(), prompt.ids, self.room(prompt, most))
        written: list[int] = []
        withheld: list[int] = []
        for _ in range(cache.room):
            shares = cache.next_shares()
            if refusal is not None and not written:
                withheld = _withhold(refusal, cache, shares)
            if withheld and written == withheld[:1]:
                shares[withheld[1]] = 0.0
            shares[_repeating(written)] = 0.0
            token = _chosen(shares, sampling.temperature, chance)
            if token == self.renderer.end:
                return
            written.append(token)
            yield token
            if len(written) < cache.room:
                cache.append(token)


class _Cache:
    """What one reply has computed so far: keys and values of every token.

    Args:
        network: The compiled graph.
        ids: The prompt.
        room: Tokens that may be written.
    """

    def __init__(self, network: CompiledNetwork, ids: Sequence[int], room: int) -> None:
        import numpy as np

        self.room = room
        self._network = network
        self._prompt = np.asarray(ids, np.int64)
        self._held = 0
        width = _rounded(len(ids) + room, CACHE_STEP)
        layers, _, _, heads, _, size = network.shape(HELD)
        self._past = np.zeros((layers, 2, 1, heads, width, size), np.float32)
        self._keys = np.zeros((1, width, KEY_SIZE), np.float32)
        # The prompt goes through at once, behind an empty past; what fills up its width stands before it.
        filled = _rounded(len(ids), PROMPT_STEP) - len(ids)
        tokens = np.concatenate([np.zeros(filled, np.int64), self._prompt])
        self._compute(tokens, np.maximum(np.arange(len(tokens)) - filled, 0), filled, 0)

    def append(self, token: int) -> None:
        """A token was written."""
        import numpy as np

        self._compute(np.asarray([token], np.int64), np.asarray([self._held]), 0, 1)

    def forget(self) -> None:
        """Take the last token back; the next one may then be appended."""
        self._held -= 1

    def next_shares(self) -> NDArray[np.float32]:
        """The probability of each token to come next, shape ``(vocabulary,)``."""
        import numpy as np

        vocabulary, copied, gate = self._told
        share = 1 / (1 + np.exp(-gate.item()))
        shares: NDArray[np.float32] = share * _softmax(vocabulary[0])
        np.add.at(shares, self._prompt, (1 - share) * _softmax(copied))
        return shares

    def _compute(self, tokens: NDArray[np.int64], places: NDArray[np.int64], filled: int, kind: int) -> None:
        import numpy as np

        past = self._past if kind else self._past[..., :1, :]
        keys = self._keys if kind else self._keys[:, :1]
        width, count = past.shape[-2], len(tokens)
        seen = np.full(width + count, FAR_BELOW, np.float32)
        seen[: self._held] = seen[width + filled :] = 0.0
        copyable = np.full(width + count, FAR_BELOW, np.float32)
        if kind:
            copyable[: len(self._prompt)] = 0.0
        else:
            copyable[width + filled :] = 0.0
        vocabulary, copied, gate, held, own = self._network.infer(
            {
                "ids": tokens[None],
                "positions": places[None],
                "types": np.full((1, count), kind, np.int64),
                "allowed": np.broadcast_to(seen, (1, count, width + count)).copy(),
                "prompt": copyable[None],
                "past": past,
                "keys": keys,
            }
        )
        start = 0 if kind else width + filled
        self._told = vocabulary, copied[0, start : start + len(self._prompt)], gate
        new = count - filled
        self._past[..., self._held : self._held + new, :] = held[..., filled:, :]
        self._keys[:, self._held : self._held + new] = own[:, filled:]
        self._held += new


def _withhold(refusal: Refusal, cache: _Cache, shares: NDArray[np.float32]) -> list[int]:
    """The first two tokens of a refusal that is not probable enough; its share is taken from the first."""
    first, second = refusal.tokens[:2]
    if int(shares.argmax()) != first:
        return []
    cache.append(first)
    sure = float(shares[first] * cache.next_shares()[second])
    cache.forget()
    if sure >= refusal.least:
        return []
    shares[first] -= sure
    return [first, second]


def _repeating(written: Sequence[int]) -> list[int]:
    """The tokens that would repeat so many in a row."""
    count = NO_REPEAT - 1
    last = list(written[-count:])
    return [written[at + count] for at in range(len(written) - count) if list(written[at : at + count]) == last]


def _chosen(shares: NDArray[np.float32], temperature: float, chance: Any) -> int:
    import numpy as np

    if temperature <= 0:
        return int(shares.argmax())
    logs = np.log(np.maximum(shares.astype(np.float64), 1e-30))
    # The greatest becomes 1, so that not all of them become 0 where the temperature is small.
    weights = np.exp((logs - logs.max()) / max(temperature, LEAST_TEMPERATURE))
    return int(chance.choice(len(weights), p=weights / weights.sum()))


def _softmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    import numpy as np

    grown: NDArray[np.float32] = np.exp(scores - scores.max())
    grown /= grown.sum()
    return grown


def _rounded(count: int, step: int) -> int:
    return -(-count // step) * step
