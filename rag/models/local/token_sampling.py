"""Sampling settings of local models."""

from __future__ import annotations

from dataclasses import dataclass

# Lower temperatures count as 0: they would draw only the most probable token, and the division could overflow.
LEAST_TEMPERATURE = 1e-5


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling settings, shared by all rows of a batch.

    Attributes:
        temperature: Sampling temperature; 0 is greedy.
        top_p: Probability mass of nucleus sampling; None leaves it to the model.
        top_k: Number of most probable tokens to sample from; None leaves it to the model.
        repetition_penalty: Penalty on tokens of the answer so far, also at temperature 0. Tokens of the prompt are
            exempt, because answers should quote them; OpenVINO GenAI does not exempt them.
        seed: Seed of the random numbers; None for a random one.
    """

    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None

    @property
    def drawn(self) -> bool:
        """Whether tokens are sampled rather than chosen greedily."""
        return self.temperature >= LEAST_TEMPERATURE

    @property
    def seeded(self) -> bool:
        """Whether the seed determines the answer.

        A seeded row has a batch of its own, because other rows would change its rounding and its random numbers.
        """
        return self.drawn and self.seed is not None


@dataclass(frozen=True, slots=True)
class Recommended:
    """Sampling defaults of a model's authors; None where they give none.

    Their other settings are ignored, so that a temperature of 0 is exactly greedy.
    """

    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None


GREEDY = Sampling()
"""Always the most probable token."""
