"""Real or generated? A game with what a finished model writes and the targets of its validation rows."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace

from finetune.predictions import Prediction


@dataclass(frozen=True, slots=True)
class Round:
    """A prompt with a text that is either the target of the row or what the model writes."""

    prompt: str
    text: str
    is_real: bool


@dataclass(frozen=True, slots=True)
class Game:
    """A game.

    Attributes:
        rounds: All rounds, one for each row.
        guesses: For each round so far, whether the text was taken for real.
    """

    rounds: tuple[Round, ...]
    guesses: tuple[bool, ...] = ()

    @property
    def current(self) -> Round | None:
        """The round to guess; None after the last one."""
        return self.rounds[len(self.guesses)] if len(self.guesses) < len(self.rounds) else None

    @property
    def last(self) -> Round | None:
        """The round that was guessed last; None before the first guess."""
        return self.rounds[len(self.guesses) - 1] if self.guesses else None

    @property
    def right(self) -> int:
        """Number of right guesses."""
        return sum(guess == one.is_real for guess, one in zip(self.guesses, self.rounds, strict=False))

    def guessed(self, is_real: bool) -> Game:
        """Return the game after a guess; after the last round, the game itself."""
        return self if self.current is None else replace(self, guesses=(*self.guesses, is_real))


def new_game(predictions: Iterable[Prediction], seed: int) -> Game:
    """Return a game with the rows whose two texts differ, in an order that the seed decides.

    Both texts end after as many words as the shorter one has, since the model's ends after some tokens.
    """
    rng = random.Random(seed)
    found = []
    for prediction in predictions:
        words = min(len(prediction.target.split()), len(prediction.text.split()))
        real, generated = (_first_words(text, words) for text in (prediction.target, prediction.text))
        if words and real != generated:
            is_real = rng.random() < 0.5
            found.append(Round(prediction.prompt, real if is_real else generated, is_real))
    rng.shuffle(found)
    return Game(tuple(found))


def _first_words(text: str, count: int) -> str:
    return " ".join(text.split()[:count])
