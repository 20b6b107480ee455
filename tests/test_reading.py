"""The tuned reader reads what it was trained on: the same windows, the same spans, the same scores."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuning_data import LONG, STRANGE, fact

from finetune.recipe import load_recipe
from finetune.rows import ReadingRow
from finetune.tasks.reader_task import EXACT, INSIDE, NONE, ReaderTask, best_span, calibrate, tokens_of
from rag.documents.sentences import Sentence
from rag.encoders.encoder_files import locate_model
from rag.encoders.network_conversion import TOKENIZER
from rag.encoders.question_passage_pair import (
    MOST_PLACE,
    MOST_QUESTION,
    OVERLAP,
    WINDOW,
    Renderer,
    Window,
    as_inputs,
)
from rag.models.extractive.spans import LONGEST, best_spans
from rag.settings import EncoderSettings

BASE = locate_model(EncoderSettings())


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    from tokenizers import Tokenizer

    return Renderer(Tokenizer.from_file(str(BASE.folder / TOKENIZER)))


@pytest.fixture(scope="module")
def task() -> ReaderTask:
    return ReaderTask(load_recipe("miniature"))


# Windows

TEXTS = st.one_of(
    st.text(max_size=300),
    st.integers(0, 12).map(lambda count: " ".join(fact(number).paragraph for number in range(count))),
    st.integers(0, 400).map(lambda count: STRANGE + "mill" * count),
)
PLACES = st.lists(st.sampled_from(["", "Towns", "Mills", "A long heading about " * 9]), max_size=4)


@given(TEXTS, PLACES, TEXTS)
def test_windows_cover_a_passage_and_overlap_as_promised(
    renderer: Renderer, question: str, place: list[str], passage: str
) -> None:
    whole = renderer._tokenizer.encode(passage, add_special_tokens=False)
    windows = renderer.windows(question, place, passage)
    start = end = 0
    for number, window in enumerate(windows):
        assert len(window.ids) == window.body + len(window.offsets) + 1 <= WINDOW
        assert 2 <= window.second <= window.body <= 1 + MOST_QUESTION + 1 + MOST_PLACE + 1
        assert window.ids[: window.body] == windows[0].ids[: window.body]
        # Each is a piece of the whole that begins far enough before the end of the last one.
        size = len(window.offsets)
        found = [
            at
            for at in ([0] if number == 0 else range(start + 1, end - OVERLAP + 1))
            if tuple(whole.offsets[at : at + size]) == window.offsets
            and tuple(whole.ids[at : at + size]) == window.ids[window.body : -1]
        ]
        assert found
        start, end = found[0], found[0] + size
        assert all(0 <= first <= last <= len(passage) for first, last in window.offsets)
    assert end == len(whole.ids)
    if len(windows) > 1:
        assert all(len(window.ids) == WINDOW for window in windows)


def test_the_tokens_of_a_window_are_the_text_at_their_offsets(renderer: Renderer) -> None:
    for passage in (LONG, STRANGE):
        for window in renderer.windows("who built the mill?", ("Towns",), passage):
            for token, (start, end) in zip(window.ids[window.body : -1], window.offsets, strict=True):
                told = renderer._tokenizer.id_to_token(token).removeprefix("##")
                text = passage[start:end]
                assert told in ("[UNK]", text) or told == renderer._tokenizer.normalizer.normalize_str(text)


def test_question_place_and_passage_stand_in_their_order(renderer: Renderer) -> None:
    (window,) = renderer.windows("Who?", ("Towns", "", "Mills", "Towns"), "Ida did.")
    told = renderer._tokenizer.decode(window.ids, skip_special_tokens=False)
    assert told == "[CLS] who? [SEP] towns › mills [SEP] ida did. [SEP]"
    tokens = [renderer._tokenizer.id_to_token(token) for token in window.ids]
    assert tokens[window.second] == "towns"
    assert tokens[window.body] == "ida"
    (bare,) = renderer.windows("Who?", (), "Ida did.")
    assert bare.second == bare.body == 4
    (empty,) = renderer.windows("", (), "")
    assert (empty.second, empty.body, empty.offsets, len(empty.ids)) == (2, 2, (), 3)


def test_of_a_long_question_the_beginning_is_read_and_of_long_headings_the_end(renderer: Renderer) -> None:
    words = [f"w{number}" for number in range(200)]
    (window,) = renderer.windows(" ".join(words), words, "Ida did.")
    ids = renderer._tokenizer.encode(" ".join(words), add_special_tokens=False).ids
    assert list(window.ids[1 : window.second - 1]) == ids[:MOST_QUESTION]
    above = renderer._tokenizer.encode(" › ".join(words), add_special_tokens=False).ids
    assert list(window.ids[window.second : window.body - 1]) == above[-MOST_PLACE:]


# Training and answering see the same


def random_row(chance: random.Random) -> ReadingRow:
    passage = " ".join(fact(chance.randrange(500)).paragraph for _ in range(chance.choice((0, 1, 1, 1, 2, 5, 8))))
    if chance.random() < 0.2:
        passage = f"{STRANGE}\n\n- {passage}" + "".join(chance.choices("aé東 .\n\t[]#", k=chance.randrange(90)))
    words = f"{fact(chance.randrange(500)).paragraph} {STRANGE}".split()
    start = chance.randrange(len(passage) + 1)
    answer = (start, min(start + chance.randrange(1, 40), len(passage)))
    return ReadingRow(
        " ".join(chance.choices(words, k=chance.choice((0, 5, 9, 120)))),
        passage,
        tuple(chance.choices(["", "Towns", "Old mills › new", "Œuvres", "long " * 40], k=chance.randrange(4))),
        (answer,) if answer[1] > answer[0] and chance.random() < 0.7 else (),
        exact=chance.random() < 0.8,
    )


def test_rows_have_the_same_numbers_in_training_and_in_answering(task: ReaderTask, renderer: Renderer) -> None:
    chance = random.Random(11)
    several = 0
    for _ in range(300):
        row = random_row(chance)
        served = renderer.windows(row.question, row.place, row.passage)
        trained = list(task._of_row(row))
        several += len(served) > 1
        left = iter(served)
        for feature in trained:
            window = next(each for each in left if each.ids == feature.ids)
            inputs = as_inputs([window])
            length = len(feature.ids)
            assert inputs["ids"][0, :length].tolist() == list(feature.ids)
            assert inputs["types"][0].sum() == length - feature.second
            assert inputs["types"][0, : feature.second].sum() == 0
            assert inputs["mask"][0].sum() == length
            body, kind, *numbers = feature.target
            assert body == window.body
            assert kind in ((NONE,) if not row.answers else (NONE, EXACT if row.exact else INSIDE))
            for first, last in zip(numbers[::2], numbers[1::2], strict=True):
                assert body <= first <= last < length - 1
                ((start, end),) = row.answers
                assert window.offsets[first - body][0] <= start < end <= window.offsets[last - body][1]
        empty = sum(feature.target[1] == NONE for feature in trained)
        assert empty <= 1
        assert trained or not served
    assert several > 30


@given(st.integers(0, 600), st.integers(1, 60))
def test_the_tokens_of_an_answer_hold_it_and_nothing_beside(renderer: Renderer, start: int, length: int) -> None:
    passage = LONG[:900]
    (window,) = renderer.windows("Who?", (), passage)
    found = tokens_of(window, start, start + length)
    inside = [number for number, (_, stop) in enumerate(window.offsets) if stop > start][:1]
    if (
        not passage[start : start + length].strip()
        or passage[start].isspace()
        or passage[start + length - 1].isspace()
    ):
        assert found is None or passage[start : start + length].strip()
        return
    assert found is not None
    first, last = found[0] - window.body, found[1] - window.body
    assert inside == [first]
    assert window.offsets[first][0] <= start
    assert window.offsets[last][0] < start + length <= window.offsets[last][1]


# The best spans


@st.composite
def scored(draw: st.DrawFn) -> tuple[Window, np.ndarray[Any, Any], list[Sentence], str]:
    """A window of one-letter tokens over a text, with scores, and sentences that its edges may cut."""
    size = draw(st.integers(0, 70))
    text = "".join(draw(st.lists(st.sampled_from("abc  ."), min_size=size, max_size=size)))
    cuts = sorted({0, size, *draw(st.lists(st.integers(0, size), max_size=4))})
    sentences = [Sentence(text[start:end], start, end) for start, end in pairwise(cuts)]
    letters = [(at, at + 1) for at in range(size) if text[at] != " "]
    first = draw(st.integers(0, len(letters)))
    last = draw(st.integers(first, len(letters)))
    offsets = tuple(letters[first:last])
    body = draw(st.integers(2, 5))
    numbers = np.random.default_rng(draw(st.integers(0, 2**31))).normal(0, 3, (body + len(offsets) + 4, 2))
    window = Window((7,) * (body + len(offsets) + 1), 2, body, offsets)
    return window, numbers.astype(np.float32), sentences, text


@given(scored())
def test_the_best_span_of_each_sentence_is_that_of_a_search_through_all(
    told: tuple[Window, np.ndarray[Any, Any], list[Sentence], str],
) -> None:
    window, scores, sentences, _ = told
    expected = []
    for sentence in sentences:
        inside = [
            number
            for number, (start, end) in enumerate(window.offsets)
            if sentence.start <= start and end <= sentence.end
        ]
        spans = [
            (scores[window.body + first, 0] + scores[window.body + last, 1], first, last)
            for first in inside
            for last in inside
            if first <= last < first + LONGEST
        ]
        if spans:
            best, first, last = max(spans)
            margin = best - scores[0].sum()
            expected.append(
                (sentence, window.offsets[first][0], window.offsets[last][1], pytest.approx(margin, 1e-4, 1e-4))
            )
    found = best_spans(window, scores, sentences)
    assert [(each.sentence, each.start, each.end, each.margin) for each in found] == expected


@given(scored())
def test_training_measures_the_span_that_answering_gives(
    told: tuple[Window, np.ndarray[Any, Any], list[Sentence], str],
) -> None:
    import torch

    from finetune.features import Feature

    window, scores, _, text = told
    if not window.offsets:
        return
    (whole,) = best_spans(window, scores, [Sentence(text, 0, len(text))])
    first, last, margin = best_span(torch.from_numpy(scores), Feature(window.ids, 2, (window.body, NONE)))
    assert window.offsets[first - window.body][0] == whole.start
    assert window.offsets[last - window.body][1] == whole.end
    assert margin == pytest.approx(whole.margin, 1e-4, 1e-4)


def test_the_probability_is_fitted_to_margins() -> None:
    fitted = calibrate([(-2.0, False), (-1.0, False), (-0.5, True), (0.5, False), (1.0, True), (2.0, True)] * 20)
    assert fitted.slope > 0
    assert fitted.intercept == pytest.approx(0, abs=0.05)
