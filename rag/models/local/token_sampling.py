"""How a local model chooses its tokens."""

from __future__ import annotations

from dataclasses import dataclass

# Below it nothing but the most probable token would be drawn, and the division could overflow.
LEAST_TEMPERATURE = 1e-5


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. Rows of one batch have it in common.

    Attributes:
        temperature: 0 always takes the most probable token.
        top_p: Tokens are drawn from the most probable ones that make up this share; None leaves it to the model.
        top_k: They are drawn from so many most probable ones; None leaves it to the model.
        repetition_penalty: Above 1 what the answer holds already becomes less probable, also at temperature 0.
            The words of the prompt are left alone: an answer is to quote them.
        seed: Equal seeds draw equal tokens; None draws anew.
    """

    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None

    @property
    def drawn(self) -> bool:
        """Whether tokens are drawn at all."""
        return self.temperature >= LEAST_TEMPERATURE

    @property
    def seeded(self) -> bool:
        """Whether the seed decides what is written.

        Such a row has a batch of its own: beside others its numbers are rounded differently, and its random
        numbers would depend on who they are.
        """
        return self.drawn and self.seed is not None


GREEDY = Sampling()
"""The most probable token each time."""
