"""A small chain with a scripted model, and where its traces go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda

from rag.models.streaming import StreamedChatModel
from rag.settings import CostSettings
from rag.tracing.cost import PriceList, load_prices
from rag.tracing.trace_store import Span, Trace
from rag.tracing.tracer import TraceTracer
from rag.types import Answer

PRICES = load_prices(CostSettings(machine_usd_per_hour=3600.0))
"""A dollar a second: costs read as seconds."""


class ScriptedModel(StreamedChatModel):
    """Streams given pieces, and calls ``between`` before each but the first."""

    pieces: tuple[str, ...] = ("The ", "sky ", "is ", "blue.")
    between: Callable[[], None] | None = None
    report: bool = True

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for number, piece in enumerate(self.pieces):
            if number and self.between is not None:
                self.between()
            yield ChatGenerationChunk(message=AIMessageChunk(content=piece))
        usage = {"input_tokens": 10, "output_tokens": len(self.pieces), "total_tokens": 10 + len(self.pieces)}
        last = AIMessageChunk(
            content="",
            usage_metadata=usage if self.report else None,
            chunk_position="last",  # type: ignore[arg-type]
        )
        yield ChatGenerationChunk(message=last)


class PacedModel(ScriptedModel):
    """The same, asynchronously, with a pause after each piece."""

    pause_s: float = 0.0

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._stream(messages):
            yield chunk
            await asyncio.sleep(self.pause_s)


@dataclass(frozen=True)
class Question:
    question: str


@dataclass(frozen=True)
class Searched:
    question: str
    passages: tuple[str, ...]


class Kept:
    """Where a tracer's traces go."""

    def __init__(self) -> None:
        self.saved: list[Trace] = []

    @property
    def only(self) -> Trace:
        assert len(self.saved) == 1
        return self.saved[0]


def tracer_to(kept: Kept, prices: PriceList = PRICES) -> TraceTracer:
    return TraceTracer(kept.saved.append, prices)


def search(asked: Question) -> Searched:
    return Searched(asked.question, (f"passage about {asked.question}",))


def as_prompt(found: Searched) -> list[BaseMessage]:
    return [HumanMessage(f"{found.passages[0]}: {found.question}")]


def as_answer(message: BaseMessage) -> Answer:
    return Answer(str(message.text), "answered")


def chain_of(model: BaseChatModel, finish: Callable[[Any], Any] = as_answer) -> Runnable[Any, Any]:
    steps: Runnable[Any, Any] = (
        RunnableLambda(search).with_config(run_name="retrieve")
        | RunnableLambda(as_prompt).with_config(run_name="prompt")
        | model.with_config(run_name="generate")
        | RunnableLambda(finish).with_config(run_name="ground")
    )
    return steps.with_config(run_name="chat")


def config_with(tracer: TraceTracer, **metadata: str) -> RunnableConfig:
    return {"callbacks": [tracer], "metadata": metadata}


def named(trace: Trace) -> dict[str, Span]:
    return {span.name: span for span in trace.spans}


STEPS = ["chat", "retrieve", "prompt", "generate", "ground"]
METADATA = {
    "corpus": "handbook",
    "model": "extractive",
    "prompt": "answer@3",
    "release": "r7",
    "conversation_id": "c9",
}


async def run_ainvoke(chain: Runnable[Any, Any], asked: Question, config: RunnableConfig) -> None:
    await chain.ainvoke(asked, config)


async def run_astream(chain: Runnable[Any, Any], asked: Question, config: RunnableConfig) -> None:
    async for _ in chain.astream(asked, config):
        pass


async def run_invoke(chain: Runnable[Any, Any], asked: Question, config: RunnableConfig) -> None:
    await asyncio.to_thread(chain.invoke, asked, config)


async def run_stream(chain: Runnable[Any, Any], asked: Question, config: RunnableConfig) -> None:
    await asyncio.to_thread(lambda: list(chain.stream(asked, config)))


RUNNERS = [run_ainvoke, run_astream, run_invoke, run_stream]
