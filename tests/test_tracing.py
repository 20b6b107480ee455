"""From LangChain's runs to traces: full trees, whatever happens on the way."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda, RunnableParallel
from scripted_chain import (
    METADATA,
    PRICES,
    RUNNERS,
    STEPS,
    Kept,
    PacedModel,
    Question,
    ScriptedModel,
    Searched,
    as_prompt,
    chain_of,
    config_with,
    named,
    run_astream,
    search,
    tracer_to,
)

from rag.errors import NoAnswer, StorageFull
from rag.redaction import MASK
from rag.settings import CostSettings
from rag.tracing.cost import load_prices
from rag.tracing.trace_store import Trace
from rag.tracing.tracer import TraceTracer
from rag.types import Answer


@pytest.mark.parametrize("run", RUNNERS)
async def test_every_way_of_calling_gives_the_whole_tree(run: Callable[..., Any]) -> None:
    kept = Kept()
    run_id = uuid4()
    config = config_with(tracer_to(kept), question="why?", **METADATA) | {"run_id": run_id}
    await run(chain_of(ScriptedModel()), Question("why?"), config)
    trace = kept.only
    assert [span.name for span in trace.spans] == STEPS
    assert [span.position for span in trace.spans] == [0, 1, 2, 3, 4]
    assert [span.kind for span in trace.spans] == ["chain", "chain", "chain", "llm", "chain"]
    assert {span.status for span in trace.spans} == {"ok"}
    assert trace.spans[0].parent_id is None
    assert {span.parent_id for span in trace.spans[1:]} == {trace.id} == {trace.spans[0].id}
    assert trace.id == str(run_id)
    assert (trace.status, trace.question, trace.answer, trace.error) == ("ok", "why?", "The sky is blue.", "")
    assert {name: getattr(trace, name) for name in METADATA} == METADATA
    assert (trace.input_tokens, trace.output_tokens) == (10, 4)
    assert trace.latency_s is not None
    spans = named(trace)
    assert spans["retrieve"].output == {"question": "why?", "passages": ["passage about why?"]}
    assert spans["generate"].input == {"messages": [{"role": "human", "content": "passage about why?: why?"}]}
    assert spans["generate"].output["content"] == "The sky is blue."  # type: ignore[index,call-overload]
    assert spans["ground"].output["text"] == "The sky is blue."  # type: ignore[index,call-overload]
    assert all(span.ended is not None and span.ended >= span.started for span in trace.spans)


async def test_a_chain_without_metadata_has_empty_strings() -> None:
    kept = Kept()
    await chain_of(ScriptedModel()).ainvoke(Question("q"), {"callbacks": [tracer_to(kept)]})
    assert {name: getattr(kept.only, name) for name in METADATA} == dict.fromkeys(METADATA, "")


async def test_a_trace_says_what_asked_who_asked_and_with_which_prices_and_version() -> None:
    kept = Kept()
    config = config_with(tracer_to(kept), purpose="api", user="u-17", replay_of="an earlier one")
    await chain_of(ScriptedModel()).ainvoke(Question("q"), config)
    trace = kept.only
    assert (trace.purpose, trace.user_name, trace.replay_of) == ("api", "u-17", "an earlier one")
    assert (trace.prices, trace.code) == (PRICES.checked.isoformat(), version("ragsmith"))


async def test_the_first_token_is_timed_from_the_question_and_from_the_call() -> None:
    kept = Kept()
    await run_astream(chain_of(PacedModel(pause_s=0.02)), Question("q"), config_with(tracer_to(kept)))
    trace = kept.only
    written = named(trace)["generate"].first_token_s
    assert written is not None
    assert trace.first_token_s is not None
    assert trace.latency_s is not None
    assert 0 < written <= trace.first_token_s < trace.latency_s


async def test_costs_are_seconds_for_local_models_and_sum_up_the_tree() -> None:
    kept = Kept()
    model = PacedModel(pause_s=0.02)
    await chain_of(model).ainvoke(Question("q"), config_with(tracer_to(kept), model="extractive"))
    trace = kept.only
    spans = named(trace)
    for name in STEPS[1:]:
        took = (spans[name].ended or 0) - spans[name].started
        assert spans[name].cost_usd == pytest.approx(took, abs=1e-4)
    assert trace.cost_usd == spans["chat"].cost_usd
    assert trace.cost_usd == pytest.approx(sum(spans[name].cost_usd or 0 for name in STEPS[1:]))


async def test_an_api_model_costs_its_tokens() -> None:
    kept = Kept()
    prices = load_prices(CostSettings(machine_usd_per_hour=0.0))
    config = config_with(tracer_to(kept, prices), model="openai:gpt-4o-2024-08-06")
    await chain_of(ScriptedModel()).ainvoke(Question("q"), config)
    assert kept.only.cost_usd == pytest.approx((10 * 2.5 + 4 * 10) / 1e6)
    assert named(kept.only)["generate"].cost_usd == kept.only.cost_usd


@pytest.mark.parametrize(("name", "report"), [("openai:unheard-of", True), ("openai:gpt-4o", False)])
async def test_an_unknown_cost_makes_the_whole_unknown(name: str, report: bool) -> None:
    kept = Kept()
    await chain_of(ScriptedModel(report=report)).ainvoke(Question("q"), config_with(tracer_to(kept), model=name))
    spans = named(kept.only)
    assert (spans["generate"].cost_usd, spans["chat"].cost_usd, kept.only.cost_usd) == (None, None, None)
    assert spans["retrieve"].cost_usd is not None
    assert kept.only.status == "ok"


async def test_a_cached_call_keeps_its_tokens_and_costs_nothing() -> None:
    kept = Kept()
    prices = load_prices(CostSettings(machine_usd_per_hour=0.0))
    chain = chain_of(ScriptedModel(cache=InMemoryCache()))
    config = config_with(tracer_to(kept, prices), model="openai:gpt-4o")
    await chain.ainvoke(Question("q"), config)
    await chain.ainvoke(Question("q"), config)
    first, second = kept.saved
    assert first.cost_usd
    assert second.cost_usd == 0.0
    assert (second.input_tokens, second.output_tokens) == (10, 4)
    assert named(second)["generate"].attributes["cached"] is True
    assert "cached" not in named(first)["generate"].attributes


@pytest.mark.parametrize("run", RUNNERS)
async def test_an_error_in_the_middle_is_in_its_step_and_in_the_trace(run: Callable[..., Any]) -> None:
    def fail(_found: Searched) -> list[BaseMessage]:
        raise ValueError("no prompt for password=hunter2\nsecond line")

    kept = Kept()
    chain = (
        RunnableLambda(search).with_config(run_name="retrieve")
        | RunnableLambda(fail).with_config(run_name="prompt")
        | ScriptedModel().with_config(run_name="generate")
    ).with_config(run_name="chat")
    with pytest.raises(ValueError, match="no prompt"):
        await run(chain, Question("q"), config_with(tracer_to(kept)))
    trace = kept.only
    assert trace.status == "error"
    assert trace.error == f"ValueError: no prompt for password={MASK}\nsecond line"
    spans = named(trace)
    assert [spans["chat"].status, spans["retrieve"].status, spans["prompt"].status] == [
        "error",
        "ok",
        "error",
    ]
    assert spans["prompt"].error == trace.error
    assert "generate" not in spans or spans["generate"].status == "error"
    assert trace.cost_usd is not None


async def test_an_error_of_the_model_keeps_what_it_had_written() -> None:
    def break_down() -> None:
        raise ConnectionError("gone")

    kept = Kept()
    chain = chain_of(ScriptedModel(between=break_down))
    with pytest.raises(ConnectionError):
        async for _ in chain.astream(Question("q"), config_with(tracer_to(kept))):
            pass
    generate = named(kept.only)["generate"]
    assert (generate.status, generate.error, generate.output_tokens) == ("error", "ConnectionError: gone", 1)
    assert kept.only.answer == "The "


@pytest.mark.parametrize(
    ("status", "expected", "error"),
    [
        ("answered", "ok", ""),
        ("abstained", "abstained", ""),
        ("failed", "error", "It broke."),
        ("cancelled", "cancelled", ""),
    ],
)
async def test_the_answer_says_how_it_ended(status: Any, expected: str, error: str) -> None:
    def finish(_message: BaseMessage) -> Answer:
        return Answer("Not in these documents.", status, error=error)

    kept = Kept()
    await chain_of(ScriptedModel(), finish).ainvoke(Question("q"), config_with(tracer_to(kept)))
    assert (kept.only.status, kept.only.error, kept.only.answer) == (
        expected,
        error,
        "Not in these documents.",
    )
    assert named(kept.only)["chat"].status == "ok"


@pytest.mark.parametrize("withheld", [True, False])
async def test_an_answer_that_a_content_filter_withheld_is_no_error(withheld: bool) -> None:
    def finish(_message: BaseMessage) -> Answer:
        raise NoAnswer("The server withheld the answer.", filtered=withheld)

    kept = Kept()
    with pytest.raises(NoAnswer):
        await chain_of(ScriptedModel(), finish).ainvoke(Question("q"), config_with(tracer_to(kept)))
    status = "filtered" if withheld else "error"
    assert (kept.only.status, kept.only.error) == (status, "NoAnswer: The server withheld the answer.")
    assert [span.status for span in kept.only.spans] == [status, "ok", "ok", "ok", status]
    failed = Answer("", "failed", error="Withheld.", filtered=withheld)
    await chain_of(ScriptedModel(), lambda _: failed).ainvoke(Question("q"), config_with(tracer_to(kept)))
    assert kept.saved[1].status == status
    # One that it only cut short is an answer.
    short = replace(failed, status="answered")
    await chain_of(ScriptedModel(), lambda _: short).ainvoke(Question("q"), config_with(tracer_to(kept)))
    assert kept.saved[2].status == "ok"


async def test_a_task_cancelled_while_it_streams_leaves_a_cancelled_trace() -> None:
    kept = Kept()
    chain = chain_of(PacedModel(pause_s=0.05, pieces=tuple("abcdefghij")))
    streaming = asyncio.Event()

    async def consume() -> None:
        async for event in chain.astream_events(
            Question("q"), config_with(tracer_to(kept), model="openai:gpt-4o")
        ):
            if event["event"] == "on_chat_model_stream":
                streaming.set()

    task = asyncio.create_task(consume())
    await streaming.wait()
    await asyncio.sleep(0.12)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    trace = kept.only
    generate = named(trace)["generate"]
    assert (trace.status, trace.error, generate.status) == ("cancelled", "", "cancelled")
    assert generate.attributes["usage_estimated"] is True
    assert 1 <= (generate.output_tokens or 0) < 10
    assert trace.answer == "abcdefghij"[: generate.output_tokens]
    # Nobody said how much the model had read: that is unknown, and not free.
    assert (generate.input_tokens, trace.cost_usd) == (None, None)


async def test_a_cancelled_answer_of_a_local_model_has_a_cost() -> None:
    kept = Kept()
    chain = chain_of(PacedModel(pause_s=5))
    config = config_with(tracer_to(kept), model="extractive")
    task = asyncio.create_task(run_astream(chain, Question("q"), config))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert kept.only.status == "cancelled"
    assert (kept.only.cost_usd or 0) > 0.05


def streaming_chain(model: BaseChatModel) -> Runnable[Any, Any]:
    return (
        RunnableLambda(search).with_config(run_name="retrieve")
        | RunnableLambda(as_prompt).with_config(run_name="prompt")
        | model.with_config(run_name="generate")
    ).with_config(run_name="chat")


def test_a_stopped_synchronous_stream_is_cancelled_though_its_steps_never_end() -> None:
    kept = Kept()
    stream = streaming_chain(ScriptedModel()).stream(Question("q"), config_with(tracer_to(kept), question="q"))
    next(stream)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    trace = kept.only
    assert trace.status == "cancelled"
    assert trace.answer == "The sky "
    generate = named(trace)["generate"]
    assert (generate.status, generate.output_tokens) == ("cancelled", 2)
    assert generate.attributes["usage_estimated"] is True
    assert named(trace)["chat"].status == "cancelled"


async def test_a_stopped_asynchronous_stream_is_cancelled() -> None:
    kept = Kept()
    stream = streaming_chain(PacedModel()).astream(Question("q"), config_with(tracer_to(kept)))
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    # LangChain's outer generator does not close the inner ones: the event loop does, when they are collected.
    for _ in range(20):
        await asyncio.sleep(0)
    assert kept.only.status == "cancelled"
    assert named(kept.only)["generate"].status == "cancelled"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_stopping_the_program_is_a_cancellation(stop: type[BaseException]) -> None:
    def interrupt() -> None:
        raise stop

    kept = Kept()
    with pytest.raises(stop):
        chain_of(ScriptedModel(between=interrupt)).invoke(Question("q"), config_with(tracer_to(kept)))
    assert (kept.only.status, kept.only.error) == ("cancelled", "")


async def test_nested_and_parallel_steps_keep_their_places() -> None:
    def rerank(found: dict[str, Any]) -> Searched:
        return Searched("q", (str(found["dense"]), str(found["lexical"])))

    both = RunnableParallel(
        dense=RunnableLambda(lambda _q: "d").with_config(run_name="dense"),
        lexical=RunnableLambda(lambda _q: "l").with_config(run_name="lexical"),
    ).with_config(run_name="search")
    retrieve = (both | RunnableLambda(rerank).with_config(run_name="rerank")).with_config(run_name="retrieve")
    chain = (retrieve | RunnableLambda(as_prompt).with_config(run_name="prompt")).with_config(run_name="chat")
    kept = Kept()
    await chain.ainvoke(Question("q"), config_with(tracer_to(kept)))
    spans = named(kept.only)
    parents = {
        name: next((s.name for s in kept.only.spans if s.id == span.parent_id), None)
        for name, span in spans.items()
    }
    assert parents == {
        "chat": None,
        "retrieve": "chat",
        "search": "retrieve",
        "dense": "search",
        "lexical": "search",
        "rerank": "retrieve",
        "prompt": "chat",
    }
    starts = [span.started for span in kept.only.spans]
    assert starts == sorted(starts)
    inner = [spans[name].cost_usd or 0 for name in ("dense", "lexical", "rerank")]
    assert spans["retrieve"].cost_usd == pytest.approx(sum(inner))


async def test_twenty_chains_at_once_keep_their_trees_apart() -> None:
    kept = Kept()
    tracer = tracer_to(kept)
    chain = chain_of(PacedModel(pause_s=0.002))
    asked = [Question(f"question {number}") for number in range(20)]
    await asyncio.gather(*(chain.ainvoke(each, config_with(tracer)) for each in asked))
    assert sorted(trace.question for trace in kept.saved) == sorted(each.question for each in asked)
    for trace in kept.saved:
        assert [span.name for span in trace.spans] == STEPS
        assert trace.question in str(named(trace)["generate"].input)
    assert not tracer.run_map
    assert not tracer.order_map


def test_threads_keep_their_trees_apart() -> None:
    kept = Kept()
    tracer = tracer_to(kept)
    chain = chain_of(ScriptedModel())
    threads = [
        threading.Thread(target=chain.invoke, args=(Question(f"q{n}"), config_with(tracer))) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(trace.question for trace in kept.saved) == [f"q{n}" for n in range(8)]
    assert all(len(trace.spans) == 5 for trace in kept.saved)


async def test_what_a_thread_does_after_the_end_is_no_trace_of_its_own() -> None:
    kept = Kept()
    tracer = tracer_to(kept)
    go_on, finished = threading.Event(), threading.Event()
    inner = RunnableLambda(lambda x: x).with_config(run_name="late")

    def linger(asked: Question, config: RunnableConfig) -> Question:
        go_on.wait(60)
        try:
            return inner.invoke(asked, config)
        finally:
            finished.set()

    chain = RunnableLambda(linger).with_config(run_name="chat")
    task = asyncio.create_task(chain.ainvoke(Question("q"), config_with(tracer)))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await asyncio.to_thread(finished.wait, 60)
    assert kept.only.status == "cancelled"
    assert not tracer.order_map


async def test_secrets_reach_no_part_of_a_trace() -> None:
    key = "sk-Ab12Cd34Ef56Gh78Ij90Kl"
    kept = Kept()
    model = ScriptedModel(pieces=(f"it is {key}",))
    await chain_of(model).ainvoke(Question(f"is {key} mine?"), config_with(tracer_to(kept)))
    assert kept.only.question == f"is {MASK} mine?"
    assert kept.only.answer == f"it is {MASK}"
    assert key not in repr(kept.only)


async def test_a_trace_that_cannot_be_saved_is_kept_without_its_steps(
    caplog: pytest.LogCaptureFixture,
) -> None:
    saved: list[Trace] = []

    def save(trace: Trace) -> None:
        if trace.spans:
            raise StorageFull("The disk is full.")
        saved.append(trace)

    tracer = TraceTracer(save, PRICES)
    with caplog.at_level(logging.WARNING):
        answer = await chain_of(ScriptedModel()).ainvoke(Question("q"), config_with(tracer, corpus="c"))
    assert answer.text == "The sky is blue."
    assert (saved[0].status, saved[0].question, saved[0].corpus) == ("error", "q", "c")
    assert "The disk is full." in saved[0].error
    assert "without its steps" in caplog.text


async def test_a_store_that_refuses_everything_does_not_reach_the_chain(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(_trace: Trace) -> None:
        raise StorageFull("The disk is full.")

    tracer = TraceTracer(refuse, PRICES)
    answer = await chain_of(ScriptedModel()).ainvoke(Question("q"), config_with(tracer))
    assert answer.text == "The sky is blue."
    assert "is lost" in caplog.text
    assert not tracer.order_map


async def test_plain_inputs_and_outputs_are_questions_and_answers_too() -> None:
    kept = Kept()
    tracer = tracer_to(kept)
    echo = RunnableLambda(lambda x: x)
    await echo.ainvoke("why?", config_with(tracer))
    await RunnableLambda(lambda x: AIMessage("so")).ainvoke({"question": "how?"}, config_with(tracer))
    await ScriptedModel().ainvoke("hm?", config_with(tracer))
    assert [trace.question for trace in kept.saved] == ["why?", "how?", ""]
    assert [trace.answer for trace in kept.saved] == ["why?", "so", ""]
    assert kept.saved[2].spans[0].output["content"] == "The sky is blue."  # type: ignore[index,call-overload]


@pytest.mark.parametrize("count", [2**31, 2**63, 10**400], ids=["32 bits", "64 bits", "more"])
def test_a_trace_is_kept_whole_whatever_a_server_counts(tmp_path: Path, count: int) -> None:
    from rag.database import open_database
    from rag.tracing.trace_store import TraceStore
    from rag.workspace import open_workspace

    engine = open_database(open_workspace(tmp_path))
    store = TraceStore(engine)
    usage = {"input_tokens": count, "output_tokens": count, "total_tokens": count}
    model = GenericFakeChatModel(messages=iter([AIMessage("so", usage_metadata=usage)]))  # type: ignore[arg-type]
    model.invoke("why?", config_with(TraceTracer(store.save, PRICES), model="openai:gpt-4o"))
    (listed,) = store.list(limit=5).traces
    trace = store.get(listed.id)
    engine.dispose()
    assert (trace.status, trace.error) == ("ok", "")
    (span,) = trace.spans
    assert all(kept is None or kept < 2**31 for kept in (span.input_tokens, span.output_tokens))
    shown: Any = span.output
    expected = count if count < 2**63 else f"<a number of {count.bit_length():,} bits>"
    assert shown["usage_metadata"]["total_tokens"] == expected


def test_a_stored_trace_equals_the_one_that_was_traced(tmp_path: Path) -> None:
    from rag.database import open_database
    from rag.tracing.trace_store import TraceStore
    from rag.workspace import open_workspace

    engine = open_database(open_workspace(tmp_path))
    store = TraceStore(engine)
    kept = Kept()

    def save(trace: Trace) -> None:
        store.save(trace)
        kept.saved.append(trace)

    tracer = TraceTracer(save, PRICES)
    chain_of(ScriptedModel()).invoke(Question("why \ud800?"), config_with(tracer, **METADATA))
    read = store.get(kept.only.id)
    engine.dispose()
    assert read == replace(kept.only, tracked=None)
