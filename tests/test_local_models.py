"""Local chat models: streaming, stopping, batches, adapters, and what they count."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from tiny import whole
from tiny_lm import MESSAGES, chat, make_model, make_tokenizer, opened, watch

from rag.errors import ModelError, ModelProtocolError, ModelUnavailable, SettingsError
from rag.models.local.chat_template import PLAIN_STOPS, render
from rag.models.local.local_chat import LocalChatModel
from rag.models.local.local_engine import LocalEngine


@pytest.fixture(scope="module", params=["torch", "openvino"])
def engine(tiny_lm: Path, request: pytest.FixtureRequest) -> Iterator[LocalEngine]:
    adapters = ("citer", "poet-1.5")
    with opened(tiny_lm, tiny_lm.parent, runtime=request.param, adapters=adapters) as made:
        yield made


@pytest.fixture(scope="module")
def torch_engine(tiny_lm: Path) -> Iterator[LocalEngine]:
    """An engine whose steps ``watch`` counts."""
    with opened(tiny_lm, tiny_lm.parent, adapters=("citer", "poet-1.5")) as made:
        yield made


def reference(model: Path, messages: Any, tokens: int) -> list[int]:
    """What transformers itself writes, token by token."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = list(render(tokenizer, messages).ids)
    import torch

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    made = loaded.generate(torch.tensor([ids]), max_new_tokens=tokens, do_sample=False, pad_token_id=0)
    return [int(token) for token in made[0][len(ids) :]]


def prompt_tokens(messages: Any) -> int:
    roles = {"system": "system", "human": "user", "ai": "assistant"}
    turns = [{"role": roles[message.type], "content": message.text} for message in messages]
    told = make_tokenizer().apply_chat_template(turns, add_generation_prompt=True, return_dict=True)
    return len(told["input_ids"])


def text_in_pieces(model: LocalChatModel, messages: Any = MESSAGES, **given: Any) -> list[str]:
    return [str(chunk.content) for chunk in model.stream(messages, **given)]


async def read(model: LocalChatModel, messages: Any = MESSAGES, **given: Any) -> Any:
    return whole([chunk async for chunk in model.astream(messages, **given)])


# Writing


def test_the_text_is_what_transformers_writes_and_comes_in_pieces(engine: LocalEngine, tiny_lm: Path) -> None:
    pieces = text_in_pieces(chat(engine))
    told = make_tokenizer().decode(reference(tiny_lm, MESSAGES, 24), skip_special_tokens=True)
    assert "".join(pieces) == told
    assert len([piece for piece in pieces if piece]) > 10


def test_the_usage_is_what_the_tokenizer_counts(engine: LocalEngine) -> None:
    reply = whole(chat(engine, max_tokens=17).stream(MESSAGES))
    read = prompt_tokens(MESSAGES)
    assert reply.usage_metadata == {"input_tokens": read, "output_tokens": 17, "total_tokens": read + 17}
    assert reply.response_metadata == {"finish_reason": "length", "model_name": engine.name}
    assert reply.chunk_position == "last"


async def test_every_way_of_asking_gives_the_same_answer(engine: LocalEngine) -> None:
    model = chat(engine)
    streamed = whole(model.stream(MESSAGES))
    for reply in (model.invoke(MESSAGES), await model.ainvoke(MESSAGES), await read(model)):
        assert (reply.text, reply.usage_metadata) == (streamed.text, streamed.usage_metadata)


def test_an_end_token_ends_the_answer_and_is_not_shown(
    engine: LocalEngine, tiny_lm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = reference(tiny_lm, MESSAGES, 24)
    monkeypatch.setattr(engine.backend, "ends", frozenset({tokens[9]}))
    reply = chat(engine).invoke(MESSAGES)
    at = tokens.index(tokens[9])
    assert reply.text == make_tokenizer().decode(tokens[:at])
    assert reply.usage_metadata is not None
    assert reply.usage_metadata["output_tokens"] == at + 1
    assert reply.response_metadata["finish_reason"] == "stop"


def test_temperature_0_repeats_itself_and_a_higher_one_does_not(engine: LocalEngine) -> None:
    greedy = chat(engine).invoke(MESSAGES).text
    drawn = {chat(engine, temperature=1.0).invoke(MESSAGES).text for _ in range(3)}
    assert len(drawn - {greedy}) == 3
    assert chat(engine).invoke(MESSAGES).text == greedy


def test_a_call_may_override_the_limit(engine: LocalEngine) -> None:
    reply = chat(engine).bind(max_tokens=3).invoke(MESSAGES)
    assert reply.usage_metadata is not None
    assert reply.usage_metadata["output_tokens"] == 3


# Stop sequences


@pytest.mark.parametrize("length", [1, 2, 5, 8])
def test_a_stop_sequence_ends_the_answer_wherever_its_tokens_are_cut(engine: LocalEngine, length: int) -> None:
    told = chat(engine).invoke(MESSAGES).text
    # Every place, so that the sequence begins and ends inside of tokens as well.
    for at in range(2, 20):
        stop = told[at : at + length]
        model = chat(engine)
        pieces = text_in_pieces(model, stop=[stop, "never written"])
        assert "".join(pieces) == told[: told.index(stop)]


def test_a_stop_sequence_ends_the_work(engine: LocalEngine) -> None:
    told = chat(engine).invoke(MESSAGES).text
    steps = watch(engine)
    reply = chat(engine, max_tokens=400).invoke(MESSAGES, stop=[told[8:11]])
    assert reply.response_metadata["finish_reason"] == "stop"
    assert len(steps.shapes) < 20


def test_what_only_began_like_a_stop_sequence_is_told_in_the_end(engine: LocalEngine) -> None:
    told = chat(engine).invoke(MESSAGES).text
    assert chat(engine).invoke(MESSAGES, stop=[told[-3:] + "x"]).text == told


# Stopping


def test_leaving_a_stream_stops_the_work(engine: LocalEngine) -> None:
    model = chat(engine, max_tokens=1000)
    steps = watch(engine)
    stream = model.stream(MESSAGES)
    for _ in range(5):
        next(stream)
    stream.close()  # type: ignore[attr-defined]
    chat(engine, max_tokens=1).invoke(MESSAGES)
    assert len(steps.shapes) < 600


async def test_cancelling_a_task_stops_the_work_and_keeps_the_count(engine: LocalEngine) -> None:
    steps = watch(engine)
    seen = []
    async with aclosing(chat(engine, max_tokens=1000).astream(MESSAGES)) as stream:  # type: ignore[type-var]
        async for chunk in stream:
            seen.append(chunk)
            if len(seen) == 8:
                break
    await chat(engine, max_tokens=1).ainvoke(MESSAGES)
    assert len(steps.shapes) < 600
    partial = whole(seen).usage_metadata
    assert partial is not None
    assert partial["input_tokens"] == prompt_tokens(MESSAGES)
    assert 7 <= partial["output_tokens"] <= len(steps.shapes)


async def test_a_long_prompt_is_not_read_to_its_end_for_nobody(tiny_lm: Path) -> None:
    with opened(tiny_lm) as engine:
        reading, leave = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()
        layers: list[int] = []

        def second_layer(*_: Any) -> None:
            loop.call_soon_threadsafe(reading.set)
            assert leave.wait(60)

        backend: Any = engine.backend
        first, second, third = backend.model.model.layers
        first.register_forward_hook(second_layer)
        second.register_forward_hook(lambda *_: layers.append(2))
        third.register_forward_hook(lambda *_: layers.append(3))
        task = asyncio.create_task(read(chat(engine)))
        await asyncio.wait_for(reading.wait(), 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        leave.set()
    assert layers == []


def test_closing_ends_what_runs_and_refuses_what_comes(tiny_lm: Path) -> None:
    with opened(tiny_lm) as engine:
        model = chat(engine, max_tokens=2000)
        stream = model.stream(MESSAGES)
        next(stream)
        engine.close()
        with pytest.raises(ModelUnavailable, match="has been closed"):
            list(stream)
        with pytest.raises(ModelUnavailable, match="has been closed"):
            model.invoke(MESSAGES)


# Adapters


def test_adapters_change_the_answer_and_share_one_base(tiny_lm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM

    real, loads = AutoModelForCausalLM.from_pretrained, []
    monkeypatch.setattr(
        AutoModelForCausalLM, "from_pretrained", lambda *args, **given: loads.append(args) or real(*args, **given)
    )
    with opened(tiny_lm) as engine:
        plain = chat(engine).invoke(MESSAGES).text
    with opened(tiny_lm, tiny_lm.parent, adapters=("citer", "poet-1.5")) as engine:
        loads.clear()
        base, citer, poet = chat(engine), chat(engine, adapter="citer"), chat(engine, adapter="poet-1.5")
        texts = [model.invoke(MESSAGES).text for model in (base, citer, poet, base, citer)]
    assert loads == []
    assert len(set(texts)) == 3
    assert texts[0] == texts[3] == plain
    assert texts[1] == texts[4]


def test_an_adapter_that_was_not_loaded_is_refused(engine: LocalEngine) -> None:
    with pytest.raises(SettingsError, match="adapter nobody is not loaded") as caught:
        chat(engine, adapter="nobody").invoke(MESSAGES)
    assert "local.adapters" in caught.value.fix


# Prompts


def test_a_prompt_beyond_the_window_is_refused_with_both_figures(engine: LocalEngine) -> None:
    long = [HumanMessage("ferry " * 3000)]
    with pytest.raises(ModelError, match=rf"The prompt has {prompt_tokens(long):,} tokens") as caught:
        chat(engine).invoke(long)
    assert "reads at most 2,048" in caught.value.message
    assert "Lower decoding.context_tokens by" in caught.value.fix


def test_an_answer_ends_where_the_window_does(engine: LocalEngine) -> None:
    near = [HumanMessage("pier " * 2000)]
    while (tokens := prompt_tokens(near)) >= 2048:
        near = [HumanMessage(near[0].text[: -5 * max((tokens - 2040) // 4, 1)])]
    reply = chat(engine, max_tokens=500).invoke(near)
    assert reply.usage_metadata is not None
    assert reply.usage_metadata["total_tokens"] == 2048
    assert reply.response_metadata["finish_reason"] == "length"


def test_a_model_without_a_template_is_given_plain_roles(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(None)
    turns = [SystemMessage("Be brief."), HumanMessage("One?"), AIMessage("First."), HumanMessage("Two?")]
    prompt = render(tokenizer, turns)
    assert (
        tokenizer.decode(prompt.ids)
        == "System: Be brief.\n\nUser: One?\n\nAssistant: First.\n\nUser: Two?\n\nAssistant:"
    )
    assert prompt.stops == PLAIN_STOPS
    with opened(make_model(tmp_path / "plain", template=None)) as engine:
        assert chat(engine).invoke(turns).text


def test_a_template_without_a_system_role_gets_its_words_from_the_user() -> None:
    strict = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    tokenizer = make_tokenizer(strict + "<{{ m.role }}>{{ m.content }}{% endfor %}")
    assert tokenizer.decode(render(tokenizer, MESSAGES).ids) == "<user>Be brief.\n\nWhen does the ferry leave?"


def test_a_template_that_refuses_everything_is_told() -> None:
    tokenizer = make_tokenizer("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(ModelProtocolError, match="roles must alternate"):
        render(tokenizer, MESSAGES)
