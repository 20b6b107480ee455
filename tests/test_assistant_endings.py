"""An answer that is stopped or fails: the work ends, and the trace says how."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from tiny import (
    CORPUS,
    FOLLOW_UP,
    QUESTION,
    SENTENCE,
    STEPS,
    ScriptedChat,
    answered,
    assistant_of,
    assistant_with,
    spans_of,
    steps_of,
    told,
    told_until,
    trace_id_of,
)

from rag.answering.assistant import Assistant, Pipeline
from rag.answering.steps import Steps
from rag.errors import CorpusError, DatabaseError, ModelUnavailable, VectorStoreError
from rag.models.streaming import StreamedChatModel
from rag.tracing.trace_store import Span, Trace
from rag.types import (
    Ask,
    Cited,
    Done,
    Event,
    Retrieved,
    Started,
    StepFinished,
    StepStarted,
    Token,
)
from ui.app.app import App


async def stopped_at(assistant: Assistant, kind: type[Event], ask: Ask) -> list[Event]:
    """Close the stream right after the first event of a kind; the events until then."""
    return await told_until(assistant.start(ask), lambda event: isinstance(event, kind))


# Stopping


KINDS: list[type[Event]] = [Started, StepStarted, StepFinished, Retrieved, Token]


@pytest.mark.parametrize("kind", KINDS)
async def test_closing_after_any_event_stops_the_work_and_traces_it_as_cancelled(
    app: App, kind: type[Event]
) -> None:
    model = ScriptedChat(reply=(SENTENCE,) * 500, pause_s=0.01)
    traced: list[str] = []
    assistant = assistant_of(steps_of(app, model), app.stores.traces, on_traced=lambda _: traced.append("traced"))
    before = asyncio.all_tasks()
    events = await stopped_at(assistant, kind, Ask(QUESTION, conversation_id="c-2"))
    trace = app.stores.traces.get(trace_id_of(events))
    assert (trace.status, trace.error, trace.question) == ("cancelled", "", QUESTION)
    assert trace.conversation_id == "c-2"
    assert trace.latency_s is not None
    assert traced == ["traced"]
    assert asyncio.all_tasks() == before
    assert model.endings == (["stopped"] if kind is Token else [])
    if kind is Token:
        assert trace.answer == SENTENCE
        assert spans_of(trace)["ScriptedChat"].status == "cancelled"


@pytest.mark.parametrize("kind", [Cited, Done])
async def test_closing_after_the_end_changes_nothing(app: App, kind: type[Event]) -> None:
    events = await stopped_at(app.releases.assistant(), kind, Ask(QUESTION))
    assert app.stores.traces.get(trace_id_of(events)).status == "ok"


@pytest.mark.parametrize("step", STEPS)
async def test_closing_inside_each_step_stops_there(app: App, step: str) -> None:
    model = ScriptedChat(reply=(SENTENCE,) * 500, pause_s=0.01 if step == "generate" else 0.0)
    condenser = ScriptedChat(reply=(QUESTION,))
    assistant = assistant_with(app, model, condenser=condenser)
    begun = StepStarted(step)  # type: ignore[arg-type]
    events = await told_until(assistant.start(Ask(QUESTION, FOLLOW_UP)), lambda event: event == begun)
    trace = app.stores.traces.get(trace_id_of(events))
    # What was done before the stop is there; the rest was never begun or left.
    assert trace.status in ("cancelled", "ok")
    if step != "ground":
        assert trace.status == "cancelled"
    assert (
        STEPS[: STEPS.index(step)]
        == tuple(  # type: ignore[arg-type]
            span.name
            for span in trace.spans
            if span.name in STEPS[: STEPS.index(step)]  # type: ignore[arg-type]
        )
    )


async def test_cancelling_the_task_that_reads_stops_the_work_as_well(app: App) -> None:
    model = ScriptedChat(reply=(SENTENCE,) * 500, pause_s=0.01)
    assistant = assistant_with(app, model)
    began = asyncio.Event()
    started: list[str] = []

    async def read() -> None:
        stream = assistant.start(Ask(QUESTION))
        try:
            async for event in stream:
                if isinstance(event, Started):
                    started.append(event.trace_id)
                if isinstance(event, Token):
                    began.set()
        finally:
            await stream.close()

    task = asyncio.create_task(read())
    await asyncio.wait_for(began.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.05)
    assert model.endings == ["stopped"]
    assert app.stores.traces.get(started[0]).status == "cancelled"


class Thinking(StreamedChatModel):
    """A local model: it writes in a thread, and stops when its generator is closed."""

    written: list[int] = []  # noqa: RUF012 - a pydantic field: each model gets its own
    closed: Any

    @property
    def _llm_type(self) -> str:
        return "thinking"

    def _stream(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        try:
            for number in range(1000):
                time.sleep(0.01)
                self.written.append(number)
                yield ChatGenerationChunk(message=AIMessageChunk(content=f"{number} "))
        finally:
            self.closed.set()


async def test_a_model_in_a_thread_stops_too(app: App) -> None:
    model = Thinking(closed=threading.Event())
    await stopped_at(assistant_with(app, model), Token, Ask(QUESTION))
    assert await asyncio.to_thread(model.closed.wait, 5)
    assert len(model.written) < 10


# Failing


class Broken:
    """Stands for a part that fails: every call raises."""

    question_chars = None

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        raise self._error


def broken(steps: Steps, step: str, error: Exception) -> Steps:
    """The same steps, one of them failing inside."""
    failing = ScriptedChat(reply=(), error=error)
    changes: dict[str, dict[str, Any]] = {
        "condense": {"condenser": failing},
        "retrieve": {"retriever": Broken(error)},
        "prompt": {"encoder": Broken(error)},
        "generate": {"model": failing},
        "ground": {"release": Half(steps.release, error)},
    }
    return replace(steps, **changes[step])


class Half:
    """A release whose grounding cannot be read: the last step fails and no other."""

    def __init__(self, release: Any, error: Exception) -> None:
        self._release, self._error = release, error

    def __getattr__(self, name: str) -> Any:
        if name == "grounding":
            raise self._error
        return getattr(self._release, name)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            VectorStoreError("The Chroma server at http://x:8000 is down.", fix="Start it."),
            "The Chroma server at http://x:8000 is down. Start it.",
        ),
        (RuntimeError("seven"), "This is a bug in ragsmith: RuntimeError: seven."),
    ],
)
async def test_a_failure_in_any_step_is_one_sentence_and_a_trace(
    app: App, caplog: pytest.LogCaptureFixture, step: str, error: Exception, said: str
) -> None:
    model = ScriptedChat(reply=(f"{SENTENCE} [1]",))
    steps = broken(steps_of(app, model), step, error)
    events = await told(assistant_of(steps, app.stores.traces).start(Ask(QUESTION, FOLLOW_UP)))
    assert isinstance(events[-1], Done)
    answer = events[-1].answer
    assert (answer.status, answer.error, answer.text) == ("failed", said, "")
    assert answer.latency_s > 0
    last = [event for event in events if isinstance(event, StepStarted)][-1]
    assert last.step == step
    assert StepFinished not in [type(event) for event in events if event == last]
    trace = app.stores.traces.get(answer.trace_id)
    assert trace.status == "error"
    assert str(error) in trace.error
    assert spans_of(trace)[step].status == "error"
    assert str(error) in spans_of(trace)[step].error
    assert {spans_of(trace)[done].status for done in STEPS[: STEPS.index(step)]} <= {"ok"}  # type: ignore[arg-type]
    assert not any(span.name == later for span in trace.spans for later in STEPS[STEPS.index(step) + 1 :])  # type: ignore[arg-type]
    # A person's own mistake leaves no traceback in the log, a bug does.
    assert any(record.exc_info for record in caplog.records) == isinstance(error, RuntimeError)


async def test_what_the_model_wrote_before_it_failed_is_kept_in_the_trace(app: App) -> None:
    model = ScriptedChat(reply=("The tide ", "gauge"), error=ModelUnavailable("Gone.", fix="Ask again."))
    answer = await answered(assistant_with(app, model), QUESTION)
    assert (answer.status, answer.error) == ("failed", "Gone. Ask again.")
    assert app.stores.traces.get(answer.trace_id).answer == "The tide gauge"


async def test_an_unknown_corpus_fails_with_the_fix_and_a_trace(app: App) -> None:
    answer = await answered(app, QUESTION, corpus="nowhere", conversation_id="c-3")
    assert answer.status == "failed"
    assert answer.error == (
        f"There is no corpus nowhere. The corpora are: {CORPUS}. "
        "Create it with `ragsmith ingest PATH --corpus nowhere`."
    )
    trace = app.stores.traces.get(answer.trace_id)
    assert (trace.status, trace.question, trace.error) == ("error", QUESTION, answer.error)
    assert (trace.corpus, trace.conversation_id, trace.spans) == ("nowhere", "c-3", ())
    assert trace.latency_s is not None


async def test_a_stop_while_the_pipeline_is_being_made_is_traced(app: App) -> None:
    release = threading.Event()

    def slow(corpus: str) -> Pipeline:
        release.wait(60)
        raise CorpusError("too late")

    assistant = replace(app.releases.assistant(), pipeline=slow)
    stream = assistant.start(Ask(QUESTION))
    started = await anext(aiter(stream))
    assert isinstance(started, Started)
    await asyncio.sleep(0.02)
    await asyncio.wait_for(stream.close(), 2)
    release.set()
    assert app.stores.traces.get(started.trace_id).status == "cancelled"


class Sink:
    """A trace store that refuses what it is told to refuse."""

    def __init__(self, *, begins: bool) -> None:
        self._begins = begins

    def begin(self, trace: Trace) -> None:
        if not self._begins:
            self.finish(trace)

    def save_span(self, trace_id: str, span: Span) -> None:
        raise DatabaseError("The database is locked.")

    def finish(self, trace: Trace) -> None:
        raise DatabaseError("The database is locked.")


async def test_a_question_whose_trace_cannot_be_begun_fails_at_once(app: App) -> None:
    answer = await answered(replace(app.releases.assistant(), traces=Sink(begins=False)), QUESTION)
    assert answer.status == "failed"
    assert answer.error == "The database is locked."


async def test_a_trace_that_cannot_be_ended_does_not_keep_the_answer_back(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await answered(replace(app.releases.assistant(), traces=Sink(begins=True)), QUESTION)
    assert answer.status == "answered"
    assert answer.latency_s > 0
    assert "The database is locked." in caplog.text
    failed = await answered(
        replace(app.releases.assistant(), traces=Sink(begins=True)), QUESTION, corpus="nowhere"
    )
    assert failed.error.startswith("There is no corpus nowhere.")


async def test_a_tracker_that_raises_does_not_leave_the_reader_waiting(app: App) -> None:
    def fail(_trace: object) -> None:
        raise RuntimeError("tracker")

    assistant = replace(app.releases.assistant(), on_traced=fail)
    answer = await asyncio.wait_for(answered(assistant, QUESTION), 10)
    assert answer.status == "answered"


async def test_stopping_one_question_leaves_the_others(app: App) -> None:
    model = ScriptedChat(reply=(f"{SENTENCE} ", "[1]"), pause_s=0.05)
    assistant = assistant_with(app, model)
    stopped, *others = await asyncio.gather(
        stopped_at(assistant, Token, Ask(QUESTION)),
        *(answered(assistant, QUESTION) for _ in range(3)),
    )
    assert app.stores.traces.get(trace_id_of(stopped)).status == "cancelled"  # type: ignore[arg-type]
    assert {answer.status for answer in others} == {"answered"}  # type: ignore[union-attr]
    assert sorted(model.endings) == ["finished"] * 3 + ["stopped"]
