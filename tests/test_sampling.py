"""How tokens are chosen: by local models of both kinds, and what of the settings no model is given."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage
from test_local_batches import all_at_once
from tiny_lm import MESSAGES, OTHERS, chat, make_tokenizer, opened

from rag.models.chat_models import open_local_model
from rag.models.decoding_support import ModelKind, kind_of, unsupported, without_form
from rag.models.local.chat_template import render
from rag.models.local.local_chat import LocalChatModel
from rag.models.local.local_engine import LocalEngine
from rag.models.local.token_sampling import Sampling
from rag.models.local.torch_sampling import Recommended, sampling_processors
from rag.settings import DecodingSettings, Settings

EVERYTHING: dict[str, Any] = {
    "decoding": {
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 40,
        "repetition_penalty": 1.2,
        "seed": 3,
        "max_tokens": 24,
        "stop": ("never written",),
        "json_schema": {"type": "object"},
        "context_tokens": 2000,
    },
    "answer": {"style": "brief", "citations": "end"},
    "grounding": {"min_confidence": 0.5, "min_support": 0.1},
}
WRITERS = ("answer.style", "grounding.min_confidence")


@pytest.fixture(scope="module")
def torch_engine(tiny_lm: Path) -> Iterator[LocalEngine]:
    with opened(tiny_lm) as made:
        yield made


@pytest.fixture(scope="module")
def openvino_engine(tiny_lm: Path) -> Iterator[LocalEngine]:
    with opened(tiny_lm, tiny_lm.parent, runtime="openvino") as made:
        yield made


@pytest.fixture(params=["torch_engine", "openvino_engine"])
def engine(request: pytest.FixtureRequest) -> LocalEngine:
    made: LocalEngine = request.getfixturevalue(request.param)
    return made


def text(engine: LocalEngine, messages: Any = MESSAGES, **fields: Any) -> str:
    return str(chat(engine, **fields).invoke(messages).text)


def tokens(engine: LocalEngine, **fields: Any) -> list[int]:
    """The tokens of a reply, as the model made them."""
    made: list[int] = []
    backend: Any = engine.backend
    real = backend.run

    def run(rows: Any, more: Any) -> None:
        (row,) = rows
        take = row.take

        def noting(token: int) -> bool:
            made.append(token)
            return bool(take(token))

        row.take = noting
        real(rows, more)

    backend.run = run
    try:
        text(engine, **fields)
    finally:
        del backend.run
    return made


# Local models


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-300}, {"temperature": 1e-4}])
def test_as_narrow_a_choice_as_can_be_is_the_most_probable_token(engine: LocalEngine, narrow: Any) -> None:
    greedy = text(engine)
    assert {text(engine, **{"temperature": 2.0} | narrow) for _ in range(3)} == {greedy}


@pytest.mark.parametrize("wide", [{}, {"top_k": 10**30}, {"top_p": 1.0}, {"top_k": 400, "top_p": 1.0}])
def test_a_wide_choice_is_a_choice(engine: LocalEngine, wide: Any) -> None:
    assert len({text(engine, temperature=2.0, **wide) for _ in range(3)}) == 3


def test_only_so_many_tokens_are_drawn_from(engine: LocalEngine) -> None:
    # The first token of an answer, whose scores are the same each time.
    def drawn(**given: Any) -> set[int]:
        return {tokens(engine, temperature=2.0, max_tokens=1, **given)[0] for _ in range(30)}

    assert len(drawn(top_k=2)) <= 2
    assert len(drawn()) > 5
    assert len(drawn(top_p=0.2)) < len(drawn())


def test_temperature_0_stays_greedy_whatever_else_is_set(engine: LocalEngine) -> None:
    assert text(engine, top_p=0.5, top_k=7, seed=1) == text(engine)


def test_what_was_written_becomes_less_probable_and_the_prompt_does_not(torch_engine: LocalEngine) -> None:
    written = tokens(torch_engine, repetition_penalty=10.0, max_tokens=60)
    assert len(set(written)) == len(written) == 60
    greedy = tokens(torch_engine, max_tokens=60)
    assert len(set(greedy)) < 60
    # What makes repeating far more probable would begin with a token of the prompt.
    assert tokens(torch_engine, repetition_penalty=0.001, max_tokens=2) == [greedy[0]] * 2
    assert greedy[0] not in render(make_tokenizer(), MESSAGES).ids


def test_what_was_written_becomes_less_probable_on_openvino_too(openvino_engine: LocalEngine) -> None:
    written = tokens(openvino_engine, repetition_penalty=10.0, max_tokens=60)
    assert len(set(written)) == len(written) == 60


def test_a_call_may_override_every_part_of_the_sampling(engine: LocalEngine) -> None:
    model = chat(engine, temperature=2.0, repetition_penalty=10.0)
    assert model.invoke(MESSAGES, temperature=0.0, repetition_penalty=None).text == text(engine)
    assert model.invoke(MESSAGES, top_k=1, repetition_penalty=None).text == text(engine)


def test_the_texts_of_the_settings_end_an_answer_beside_those_of_a_call(engine: LocalEngine) -> None:
    told = text(engine)
    early, late = told[4:7], told[12:15]
    model = chat(engine, stop=(late,))
    assert model.invoke(MESSAGES).text == told[: told.index(late)]
    assert model.invoke(MESSAGES, stop=[early]).text == told[: min(told.index(early), told.index(late))]


# Seeds


def test_a_seed_draws_the_same_tokens_each_time(engine: LocalEngine) -> None:
    import torch

    drawn = {}
    for seed in (0, 1, 2**31 - 1):
        drawn[seed] = text(engine, temperature=1.5, seed=seed)
        torch.manual_seed(seed + 1)
        text(engine, temperature=1.5)
        assert text(engine, temperature=1.5, seed=seed) == drawn[seed]
    assert len(set(drawn.values())) == 3


def test_a_seed_leaves_the_random_numbers_of_others_alone(torch_engine: LocalEngine) -> None:
    import torch

    before = torch.random.get_rng_state()
    text(torch_engine, temperature=1.5, seed=4)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_seeded_answer_is_written_alone_and_the_same_beside_others(torch_engine: LocalEngine) -> None:
    def seeded() -> Any:
        return chat(torch_engine, temperature=1.5, seed=5).invoke(MESSAGES)

    def free() -> Any:
        return chat(torch_engine, temperature=1.5).invoke(OTHERS)

    alone = seeded().text
    results, batches = all_at_once(torch_engine, free, seeded, free, seeded)
    assert batches == [2, 1, 1]
    assert results[1].text == results[3].text == alone


def test_a_seed_that_decides_nothing_keeps_nobody_waiting(torch_engine: LocalEngine) -> None:
    calls = [lambda: chat(torch_engine, seed=5).invoke(MESSAGES)] * 3
    results, batches = all_at_once(torch_engine, *calls)
    assert batches == [3]
    assert len({each.text for each in results}) == 1


@pytest.mark.parametrize("changed", [{"top_p": 0.5}, {"top_k": 5}, {"repetition_penalty": 2.0}])
def test_a_batch_has_one_sampling(torch_engine: LocalEngine, changed: Any) -> None:
    calls = [
        lambda: chat(torch_engine, temperature=1.0, max_tokens=3).invoke(MESSAGES),
        lambda: chat(torch_engine, temperature=1.0, max_tokens=3, **changed).invoke(MESSAGES),
        lambda: chat(torch_engine, temperature=1.0, max_tokens=3).invoke(MESSAGES),
    ]
    _, batches = all_at_once(torch_engine, *calls)
    assert batches == [2, 1]


def test_a_penalty_is_the_same_in_a_batch_of_unequal_prompts(torch_engine: LocalEngine) -> None:
    questions = [MESSAGES, OTHERS, [HumanMessage("Why?")]]
    alone = [text(torch_engine, each, repetition_penalty=1.5) for each in questions]
    calls = [lambda each=each: chat(torch_engine, repetition_penalty=1.5).invoke(each) for each in questions]
    together, batches = all_at_once(torch_engine, *calls)
    assert batches == [3]
    assert [each.text for each in together] == alone


# What the model's authors recommend


def kept(sampling: Sampling, recommended: Recommended) -> int:
    """How many of 50 equally probable tokens may be drawn."""
    import torch

    *chain, _ = sampling_processors(sampling, recommended, 1, "cpu")
    scores = torch.linspace(0, 1e-4, 50)[None]
    for process in chain:
        scores = process(torch.tensor([[0]]), scores)
    return int(torch.isfinite(scores).sum())


@given(st.integers(1, 60), st.integers(1, 60))
def test_what_is_asked_for_goes_before_what_is_recommended(asked: int, recommended: int) -> None:
    assert kept(Sampling(1.0), Recommended()) == 50
    assert kept(Sampling(1.0), Recommended(top_k=recommended)) == min(recommended, 50)
    assert kept(Sampling(1.0, top_k=asked), Recommended(top_k=recommended)) == min(asked, 50)
    assert kept(Sampling(1.0, top_p=asked / 60), Recommended(top_p=recommended / 60)) == pytest.approx(
        50 * asked / 60, abs=1.1
    )


def test_a_models_own_recommendation_holds_where_nothing_is_asked(tiny_lm: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(tiny_lm, tmp_path / "copy"))
    own = json.loads((copy / "generation_config.json").read_text())
    given = own | {"top_k": 1, "temperature": 3.0, "repetition_penalty": 9.0, "do_sample": True}
    (copy / "generation_config.json").write_text(json.dumps(given))
    with opened(tiny_lm) as plain, opened(copy) as engine:
        greedy = text(plain)
        assert text(engine) == greedy
        assert text(engine, temperature=2.0) == greedy
        assert text(engine, temperature=2.0, top_k=50) != greedy


# What is honoured


def honest(model: str, **more: Any) -> Settings:
    return Settings(**EVERYTHING | {"model": model} | more)


@pytest.mark.parametrize(
    ("model", "more", "kind", "told"),
    [
        (
            "extractive",
            {},
            "extractive",
            [f"decoding.{name}" for name in EVERYTHING["decoding"] if name != "context_tokens"],
        ),
        ("local:org/name", {}, "local", WRITERS),
        ("openai:gpt-4o", {}, "openai", ["decoding.top_k", "decoding.repetition_penalty", *WRITERS]),
        ("openai:qwen", {"openai": {"base_url": "http://127.0.0.1:1/v1"}}, "server", WRITERS),
    ],
)
def test_what_a_model_does_not_honour_is_told_and_nothing_else(
    model: str, more: Any, kind: ModelKind, told: Any
) -> None:
    settings = honest(model, **more)
    assert kind_of(settings) == kind
    assert unsupported(settings) == unsupported(settings, kind) == tuple(told)
    assert unsupported(Settings(model=model, **more)) == ()


def test_every_field_of_the_decoding_was_thought_of() -> None:
    # A new one is not honoured by itself: see to it in rag.models.chat_models and in rag.models.decoding_support.
    assert set(EVERYTHING["decoding"]) == set(DecodingSettings.model_fields)


def test_a_local_model_is_given_what_it_honours_and_nothing_else(engine: LocalEngine) -> None:
    settings = honest("local:org/name")
    model: Any = open_local_model(settings, engine)
    assert isinstance(model, LocalChatModel)
    missing = unsupported(settings)
    for name in ("temperature", "top_p", "top_k", "repetition_penalty", "seed", "max_tokens", "stop"):
        honoured = f"decoding.{name}" not in missing
        assert getattr(model, name) == (EVERYTHING["decoding"][name] if honoured else None)
    assert model.invoke(MESSAGES).text


def test_what_is_written_beside_the_answer_has_no_form() -> None:
    settings = honest("openai:gpt-4o")
    free = without_form(settings)
    assert (free.decoding.stop, free.decoding.json_schema) == ((), None)
    assert free.decoding.model_dump(exclude={"stop", "json_schema"}) == settings.decoding.model_dump(
        exclude={"stop", "json_schema"}
    )
    assert (free.model, free.answer) == (settings.model, settings.answer)
