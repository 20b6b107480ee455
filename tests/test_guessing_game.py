"""Real or generated? A game with texts of a model and the targets of its validation rows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from finetune.guessing_game import new_game
from finetune.predictions import Prediction

ROWS = [
    Prediction(row, f"Episode {row}", f"The robot number {row} wakes up.", "The the", 1.0) for row in range(40)
]
words = st.text("ab ", max_size=12)


def test_every_row_is_one_round_with_one_of_its_texts_and_the_score_counts_right_guesses() -> None:
    game = new_game(ROWS, 1)
    assert sorted(one.prompt for one in game.rounds) == sorted(row.prompt for row in ROWS)
    assert {one.text for one in game.rounds if not one.is_real} == {"The the"}
    assert 10 < sum(one.is_real for one in game.rounds) < 30
    assert (game.last, game.right) == (None, 0)
    first = game.rounds[0]
    right = game.guessed(first.is_real)
    assert (right.last, right.current, right.right) == (first, game.rounds[1], 1)
    assert game.guessed(not first.is_real).right == 0
    for one in game.rounds:
        game = game.guessed(one.is_real)
    assert (game.current, game.right) == (None, len(ROWS))
    assert game.guessed(True) is game


def test_a_seed_decides_the_order_and_which_texts_are_shown() -> None:
    assert new_game(ROWS, 1) == new_game(ROWS, 1)
    assert new_game(ROWS, 1).rounds != new_game(ROWS, 2).rounds


@given(st.lists(st.tuples(words, words)), st.integers(0, 99))
def test_the_length_of_a_text_does_not_give_it_away(pairs: list[tuple[str, str]], seed: int) -> None:
    predictions = [Prediction(row, str(row), *pair, 1.0) for row, pair in enumerate(pairs)]
    for one in new_game(predictions, seed).rounds:
        target, text = (words.split() for words in pairs[int(one.prompt)])
        shown = one.text.split()
        assert len(shown) == min(len(target), len(text)) > 0
        assert shown == (target if one.is_real else text)[: len(shown)]
        assert target[: len(shown)] != text[: len(shown)]
