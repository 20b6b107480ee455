"""Local chat models, asked by several at once: who is answered together, and who ends when."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from tiny import whole
from tiny_lm import MESSAGES, OTHERS, chat, opened, watch

from rag.errors import ModelError
from rag.models.local.local_engine import LocalEngine


@pytest.fixture(scope="module")
def engine(tiny_lm: Path) -> Iterator[LocalEngine]:
    with opened(tiny_lm, tiny_lm.parent, adapters=("citer",)) as made:
        yield made


class Gate:
    """Holds the first step until ``open`` is set."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self, number: int) -> None:
        self.reached.set()
        assert self.open.wait(60)


class Thread:
    """A call in a thread, and what came of it."""

    def __init__(self, deed: Any) -> None:
        self._deed = deed
        self._result: Any = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self._result = self._deed()

    def result(self) -> Any:
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self._result


def all_at_once(engine: LocalEngine, *calls: Any) -> tuple[list[Any], list[int]]:
    """The results of calls that all waited behind a running one, and the rows of their batches."""
    hold = Gate()
    steps = watch(engine, before=hold)
    running = Thread(lambda: chat(engine, max_tokens=2).invoke(MESSAGES))
    assert hold.reached.wait(60)
    threads = []
    for call in calls:
        threads.append(Thread(call))
        waiting = len(threads)
        deadline = time.monotonic() + 60
        while len(engine._batches._waiting) < waiting:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    hold.open.set()
    results = [thread.result() for thread in threads]
    running.result()
    return results, steps.prefills[1:]


def test_requests_that_wait_are_written_together_and_as_alone(engine: LocalEngine) -> None:
    model = chat(engine)
    questions = [MESSAGES, OTHERS, [HumanMessage("Why?")], MESSAGES]
    alone = [whole(model.stream(question)) for question in questions]
    together, batches = all_at_once(
        engine, *[lambda question=question: whole(model.stream(question)) for question in questions]
    )
    assert batches == [4]
    assert [reply.text for reply in together] == [reply.text for reply in alone]
    assert [reply.usage_metadata for reply in together] == [reply.usage_metadata for reply in alone]


def test_each_row_of_a_batch_ends_for_itself(engine: LocalEngine) -> None:
    told = chat(engine).invoke(MESSAGES).text
    calls = [
        lambda: chat(engine, max_tokens=5).invoke(MESSAGES),
        lambda: chat(engine).invoke(MESSAGES, stop=[told[6:9]]),
        lambda: chat(engine, max_tokens=40).invoke(OTHERS),
    ]
    (short, stopped, long), batches = all_at_once(engine, *calls)
    assert batches == [3]
    assert short.usage_metadata["output_tokens"] == 5
    assert stopped.text == told[: told.index(told[6:9])]
    assert long.text == chat(engine, max_tokens=40).invoke(OTHERS).text


def test_one_row_that_is_left_does_not_hold_up_the_others(engine: LocalEngine) -> None:
    def leave() -> str:
        stream = chat(engine, max_tokens=1500).stream(MESSAGES)
        told = [str(next(stream).content) for _ in range(4)]
        stream.close()  # type: ignore[attr-defined]
        return "".join(told)

    steps = watch(engine)
    (_, kept), batches = all_at_once(engine, leave, lambda: chat(engine, max_tokens=30).invoke(OTHERS))
    assert batches == [2]
    assert kept.text == chat(engine, max_tokens=30).invoke(OTHERS).text
    assert len(steps.shapes) < 900


def test_a_batch_has_no_more_rows_than_the_settings_allow(tiny_lm: Path) -> None:
    with opened(tiny_lm, max_batch=2) as engine:
        calls = [lambda: chat(engine, max_tokens=3).invoke(MESSAGES)] * 5
        results, batches = all_at_once(engine, *calls)
    assert batches == [2, 2, 1]
    assert len({reply.text for reply in results}) == 1


def test_a_batch_has_one_temperature_and_one_adapter(engine: LocalEngine) -> None:
    calls = [
        lambda: chat(engine, max_tokens=3).invoke(MESSAGES),
        lambda: chat(engine, max_tokens=3, adapter="citer").invoke(MESSAGES),
        lambda: chat(engine, max_tokens=3, temperature=0.5).invoke(MESSAGES),
        lambda: chat(engine, max_tokens=3).invoke(MESSAGES),
        lambda: chat(engine, max_tokens=3, adapter="citer").invoke(MESSAGES),
    ]
    results, batches = all_at_once(engine, *calls)
    assert batches == [2, 2, 1]
    assert results[0].text == results[3].text
    assert results[1].text == results[4].text != results[0].text


def test_a_model_that_fails_is_told_to_everybody_in_the_batch_and_serves_the_next(
    engine: LocalEngine, caplog: pytest.LogCaptureFixture
) -> None:
    def failing() -> str:
        with pytest.raises(ModelError, match="The local model failed: ValueError: out of luck") as caught:
            chat(engine).invoke(MESSAGES)
        return caught.value.fix

    backend: Any = engine.backend
    real = backend.model.generate
    calls: list[int] = []

    def generate(**given: Any) -> Any:
        calls.append(len(given["input_ids"]))
        if len(calls) == 2:
            raise ValueError("out of luck")
        return real(**given)

    backend.model.generate = generate
    try:
        fixes, _ = all_at_once(engine, failing, failing)
    finally:
        del backend.model.generate
    assert calls == [1, 2]
    assert all("Ask again" in fix for fix in fixes)
    assert chat(engine).invoke(MESSAGES).text
    assert "The local model failed" in caplog.text


def test_memory_that_is_used_up_has_its_own_words(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def full(**_: Any) -> None:
        raise torch.OutOfMemoryError("Tried to allocate 2 GiB")

    backend: Any = engine.backend
    monkeypatch.setattr(backend.model, "generate", full)
    with pytest.raises(ModelError, match="used up the memory of the device cpu") as caught:
        chat(engine).invoke(MESSAGES)
    assert "decoding.context_tokens" in caught.value.fix


def test_a_request_that_is_taken_back_while_it_waits_is_never_begun(engine: LocalEngine) -> None:
    hold = Gate()
    steps = watch(engine, before=hold)
    running = Thread(lambda: chat(engine, max_tokens=4).invoke(MESSAGES))
    assert hold.reached.wait(60)
    told: list[Any] = []
    model = chat(engine)
    row = engine.start(OTHERS, model._decoding(None, {}), told.append)
    row.cancel()
    hold.open.set()
    running.result()
    chat(engine, max_tokens=1).invoke(MESSAGES)
    assert told == []
    assert steps.prefills == [1, 1]
