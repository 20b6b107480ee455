"""The tracer of all chains, which converts LangChain's runs into traces.

This module imports LangChain; import it where a chain is built, not at the top of a module.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, TypeVar
from uuid import UUID

from langchain_core.messages import BaseMessage, get_buffer_string
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.schemas import Run

from rag.redaction import JSON
from rag.tables import LARGEST_COUNT
from rag.tracing.code_version import code_version
from rag.tracing.cost import HERE, PriceList, read_usage
from rag.tracing.ledger import BILLED
from rag.tracing.span_json import Known, as_json, kept_text
from rag.tracing.trace_masking import masked, masked_span, secrets_of
from rag.tracing.trace_types import Span, Status, Trace, UsedPassage
from rag.types import PURPOSES, Answer, Usage

# Exceptions of a cancelled chain: the stop button, a closed page, Ctrl-C, SIGTERM. They are no failures.
_STOPS = frozenset({"CancelledError", "GeneratorExit", "KeyboardInterrupt", "SystemExit"})

# Status by the status of the answer; any other is "ok".
_ENDINGS: Mapping[str, Status] = {"abstained": "abstained", "failed": "error", "cancelled": "cancelled"}

_LATE = "ragsmith_late"
_FILTERED = "ragsmith_filtered"

Number = TypeVar("Number", int, float)

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _OpenTrace:
    """What is known of a running trace.

    Attributes:
        numbers: The next positions.
        positions: Positions of its runs in the order in which they started.
        spans: The spans that were saved.
        secrets: The secrets in its question; None until a step was saved.
        known: What its steps have in common as JSON.
    """

    numbers: Iterator[int] = field(default_factory=count)
    positions: dict[UUID, int] = field(default_factory=dict)
    spans: dict[UUID, Span] = field(default_factory=dict)
    secrets: frozenset[str] | None = None
    known: Known = field(default_factory=dict)


class TraceTracer(BaseTracer):
    """Converts the tree of runs below every root run into a trace, and saves it when that run ends.

    A tracer can serve several concurrent chains. The metadata of the root run fill the trace: ``corpus``,
    ``model``, ``prompt``, ``release``, ``conversation_id``, and ``question`` if the input lacks it (a streamed
    chain starts before its input is known). Errors never reach the chain.

    Args:
        save: Stores the finished trace.
        prices: What tokens and seconds cost.
        save_span: Stores a finished step of a running trace, whose id is the first argument; None stores the steps
            with their trace. The step's position, cost and masked secrets may still change.
    """

    # Called on the event loop, so that runs arrive in order, and the trace is saved before the chain returns.
    run_inline = True

    def __init__(
        self,
        save: Callable[[Trace], None],
        prices: PriceList,
        save_span: Callable[[str, Span], None] | None = None,
    ) -> None:
        super().__init__()
        self._save = save
        self._save_span = save_span
        self._prices = prices
        self._open: dict[UUID, _OpenTrace] = {}

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        tags: list[str] | None = None,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Run:
        """Start a chat model's run with its messages, which LangChain would join into one text."""
        run = self.on_llm_start(
            serialized,
            [get_buffer_string(batch) for batch in messages],
            run_id=run_id,
            tags=tags,
            parent_run_id=parent_run_id,
            metadata=metadata,
            name=name,
            **kwargs,
        )
        run.inputs = {"messages": messages[0] if len(messages) == 1 else messages}
        return run

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> Run:
        """End a run that failed, and note whether a content filter withheld its answer."""
        if getattr(error, "filtered", False) and (run := self.run_map.get(str(run_id))) is not None:
            run.extra[_FILTERED] = True
        return super().on_chain_error(error, run_id=run_id, **kwargs)

    @staticmethod
    def _get_stacktrace(error: BaseException) -> str:
        """Return type and message for ``run.error``, without a traceback with paths and code."""
        message = str(error).strip()
        return f"{type(error).__name__}: {message}" if message else type(error).__name__

    def _start_trace(self, run: Run) -> None:
        # A thread may continue after its chain was cancelled. Its runs have lost their parent, but are no
        # questions of their own.
        if run.parent_run_id is not None and run.parent_run_id not in self.order_map:
            run.extra[_LATE] = True
        super()._start_trace(run)

    def _on_run_create(self, run: Run) -> None:
        if run.parent_run_id is None:
            self._open[run.id] = _OpenTrace()
        if (trace := self._open.get(run.trace_id)) is not None:
            trace.positions[run.id] = next(trace.numbers)

    def _on_run_update(self, run: Run) -> None:
        trace, root = self._open.get(run.trace_id), self.run_map.get(str(run.trace_id))
        # The question of a streamed chain is known at its end, and with it the secrets that no step may show.
        if self._save_span is None or trace is None or root is None or not _question(root):
            return
        try:
            trace.spans[run.id] = span = self._finished_span(run, root, trace)
            self._save_span(str(root.id), span)
        except Exception as error:  # noqa: BLE001 - the step is stored with its trace
            _log.warning("A step of trace %s is not stored as it finishes: %s", root.id, error)

    def _finished_span(self, run: Run, root: Run, trace: _OpenTrace) -> Span:
        if trace.secrets is None:
            trace.secrets = secrets_of(_typed(root))
        cost = self._costs(run, root)[run.id]
        return masked_span(self._span(run, trace, root, trace.positions[run.id], cost), trace.secrets)

    def _persist_run(self, run: Run) -> None:
        # LangChain suppresses exceptions here, which would lose the trace silently.
        try:
            if _LATE not in run.extra:
                self._keep(run)
        finally:
            self._open.pop(run.id, None)
            for each in walk(run):
                self.order_map.pop(each.id, None)

    def _keep(self, run: Run) -> None:
        reason: Exception
        try:
            self._save(self._trace(run))
        except Exception as error:  # noqa: BLE001 - a short trace is better than none
            _log.warning("Trace %s is stored without its steps: %s", run.id, error)
            reason = error
        else:
            return
        try:
            self._save(self._frame(run, "error", error=f"The trace could not be stored: {_reason(reason)}"))
        except Exception as error:  # noqa: BLE001 - only the log is left
            _log.error("Trace %s is lost: %s", run.id, error)

    def _frame(self, root: Run, status: Status, error: str = "") -> Trace:
        """Build a trace without spans."""
        known = {key: str(value) for key, value in _metadata(root).items() if value is not None}
        return Trace(
            id=str(root.id),
            started=root.start_time.timestamp(),
            status=status,
            question=kept_text(_question(root) or known.get("question", "")),
            error=kept_text(error),
            latency_s=_seconds(root, root),
            corpus=known.get("corpus", ""),
            model=known.get("model", ""),
            prompt=known.get("prompt", ""),
            release=known.get("release", ""),
            conversation_id=known.get("conversation_id", ""),
            purpose=next((purpose for purpose in PURPOSES if purpose == known.get("purpose")), "chat"),
            user_name=kept_text(known.get("user", "")),
            replay_of=known.get("replay_of") or None,
            prices=self._prices.checked.isoformat(),
            code=code_version(),
        )

    def _trace(self, root: Run) -> Trace:
        runs = sorted(walk(root), key=lambda run: run.start_time)
        costs = self._costs(root, root)
        opened = self._open.get(root.id) or _OpenTrace()
        saved = opened.spans
        spans = tuple(
            replace(saved[run.id], position=position, cost_usd=costs[run.id])
            if run.id in saved
            else self._span(run, opened, root, position, costs[run.id])
            for position, run in enumerate(runs)
        )
        answer = unwrap(root.outputs, "output")
        status, error = _ending(root, answer)
        asked = [span for span, run in zip(spans, runs, strict=True) if run.run_type == "llm"]
        trace = replace(
            self._frame(root, status, error),
            answer=kept_text(_answer_text(answer, root, status)),
            input_tokens=_total([span.input_tokens for span in asked]),
            output_tokens=_total([span.output_tokens for span in asked]),
            cached_tokens=_known_total([span.cached_tokens for span in asked]),
            first_token_s=_first_token(root, runs),
            cost_usd=costs[root.id],
            saved_usd=_known_total([span.saved_usd for span in asked]),
            spans=spans,
            passages=_passages(answer),
        )
        return masked(trace, secrets_of(_typed(root)))

    def _span(self, run: Run, trace: _OpenTrace, root: Run, position: int, cost: float | None) -> Span:
        usage, attributes = _usage(run) if run.run_type == "llm" else (Usage(), {})
        if _is_billed(run, root):
            attributes[BILLED] = "tokens"
        status = _status(run)
        if run is root and status == "ok" and _was_left(root):
            status = "cancelled"
        return Span(
            id=str(run.id),
            parent_id=None if run is root else str(run.parent_run_id),
            position=position,
            name=run.name,
            kind=run.run_type,
            status=status,
            started=run.start_time.timestamp(),
            ended=run.end_time.timestamp() if run.end_time else None,
            input=as_json(unwrap(run.inputs, "input"), trace.known),
            output=as_json(_output(run), trace.known),
            error=kept_text(run.error or ""),
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cost_usd=cost,
            attributes=attributes,
            first_token_s=_first_token(run, [run]),
            cached_tokens=usage.cached_tokens or None,
            saved_usd=self._prices.tokens_usd(_model(root), usage) if is_cached(run) else None,
        )

    def _costs(self, top: Run, root: Run) -> dict[UUID, float | None]:
        """Compute dollars of a run and those below it.

        A leaf costs its seconds or tokens, any other run the sum of its children.
        """
        costs: dict[UUID, float | None] = {}
        for run in reversed(list(walk(top))):
            if run.child_runs:
                costs[run.id] = _sum([costs[child.id] for child in run.child_runs])
            elif is_cached(run):
                costs[run.id] = 0.0
            elif _is_billed(run, root):
                costs[run.id] = self._prices.tokens_usd(_model(root), _usage(run)[0])
            else:
                costs[run.id] = self._prices.seconds_usd(_seconds(run, root))
        return costs


def walk(run: Run) -> Iterator[Run]:
    """Yield a run and all its descendants in pre-order."""
    yield run
    for child in run.child_runs:
        yield from walk(child)


def _metadata(run: Run) -> Mapping[str, Any]:
    return run.extra.get("metadata") or {}


def unwrap(values: Mapping[str, Any] | None, key: str) -> object:
    """Return an input or output, which LangChain wraps in a dictionary under ``key`` if it is not one."""
    if not values:
        return None
    return values[key] if set(values) == {key} else values


def _question(root: Run) -> str:
    asked = unwrap(root.inputs, "input")
    if isinstance(asked, Mapping):
        asked = asked.get("question")
    asked = getattr(asked, "question", asked)
    return asked if isinstance(asked, str) else ""


def _typed(root: Run) -> Iterator[str]:
    """Yield the question and the texts of earlier turns."""
    asked = unwrap(root.inputs, "input")
    history = asked.get("history") if isinstance(asked, Mapping) else getattr(asked, "history", None)
    yield _question(root)
    yield str(_metadata(root).get("question") or "")
    for turn in history or ():
        yield from (str(getattr(turn, name, "")) for name in ("question", "answer"))


def _passages(answer: object) -> tuple[UsedPassage, ...]:
    """Return the passages in the prompt of an answer; a passage that occurs twice has its first rank."""
    if not isinstance(answer, Answer):
        return ()
    cited = {citation.hit.passage.id for citation in answer.citations}
    found: dict[int, UsedPassage] = {}
    for rank, hit in enumerate(answer.hits, 1):
        number = hit.passage.id
        # Ids of passages that a caller gave may be anything.
        if 0 <= number <= LARGEST_COUNT:
            found.setdefault(number, UsedPassage(number, rank, number in cited))
    return tuple(found.values())


def _answer_text(answer: object, root: Run, status: Status) -> str:
    """Return the text of the answer; for a cancelled or failed chain, the partial text of its last model."""
    if isinstance(answer, Answer):
        return answer.text
    models = [run for run in walk(root) if run.run_type == "llm"]
    if status in ("cancelled", "error", "filtered") and models:
        return "".join(_tokens(models[-1]))
    if isinstance(answer, BaseMessage):
        return str(answer.text)
    return answer if isinstance(answer, str) else ""


def _output(run: Run) -> object:
    if run.run_type != "llm":
        return unwrap(run.outputs, "output")
    generations = (run.outputs or {}).get("generations") or []
    if not generations or not generations[0]:
        text = "".join(_tokens(run))
        return {"role": "ai", "content": text} if text else None
    first = generations[0][0]
    message = (first.get("message") or {}).get("kwargs")
    if not message:
        return first.get("text")
    # Thoughts and refusals that a server sends apart are in the second one.
    shown = ("content", "additional_kwargs", "tool_calls", "usage_metadata", "response_metadata")
    return {"role": "ai"} | {name: message[name] for name in shown if message.get(name)}


def _tokens(run: Run) -> list[str]:
    """Return the streamed pieces of text, without empty ones."""
    pieces = [event.get("kwargs", {}).get("token") for event in run.events if event["name"] == "new_token"]
    return [text for piece in pieces if (text := _content_text(piece))]


def _first_token(begun: Run, runs: Sequence[Run]) -> float | None:
    """Return the seconds from the start of a run to the first token that a model wrote for the answer."""
    times = [
        event["time"]
        for run in runs
        if run.run_type == "llm" and not _is_here(run)
        for event in run.events
        if event["name"] == "new_token" and _content_text(event.get("kwargs", {}).get("token"))
    ]
    return max((min(times) - begun.start_time).total_seconds(), 0.0) if times else None


def _content_text(content: object) -> str:
    """Return the text of a message's content, which is a string or a list of blocks."""
    if isinstance(content, list):
        return "".join(block.get("text", "") if isinstance(block, dict) else str(block) for block in content)
    return content if isinstance(content, str) else ""


def _is_here(run: Run) -> bool:
    """Whether this machine computed a run, whatever model answers in the end."""
    return bool((run.extra or {}).get("metadata", {}).get(HERE))


def _model(root: Run) -> str:
    """Return the model that answers."""
    return str(_metadata(root).get("model", ""))


def _is_billed(run: Run, root: Run) -> bool:
    """Whether a run costs its tokens, and not the seconds of this machine."""
    return run.run_type == "llm" and _model(root).startswith("openai:") and not _is_here(run)


def is_cached(run: Run) -> bool:
    """Whether LangChain's cache answered, which reports a total cost of 0 with the tokens of the first call."""
    return run.run_type == "llm" and "total_cost" in reported(run)


def reported(run: Run) -> Mapping[str, Any]:
    """Return the ``usage_metadata`` of a model's message; empty without any."""
    generations = (run.outputs or {}).get("generations") or []
    for generation in generations[0] if generations else []:
        message = generation.get("message") or {}
        if usage := message.get("kwargs", {}).get("usage_metadata"):
            return usage  # type: ignore[no-any-return]
    return {}


def _usage(run: Run) -> tuple[Usage, dict[str, JSON]]:
    """Return the token usage of a model's run, and attributes for its span."""
    metadata = _metadata(run)
    attributes: dict[str, JSON] = {
        name.removeprefix("ls_"): as_json(metadata[name])
        for name in ("ls_model_name", "ls_temperature", "ls_max_tokens")
        if metadata.get(name) is not None
    }
    usage = read_usage(reported(run))
    if is_cached(run):
        attributes["cached"] = True
    if _status(run) == "ok":
        return usage, attributes
    # A stopped model reports nothing, or the usage at its first token. With most models, a streamed piece is one
    # token, and rarely more than two.
    streamed = len(_tokens(run))
    if streamed > (usage.output_tokens or 0):
        attributes["usage_estimated"] = True
        usage = replace(usage, output_tokens=streamed)
    return usage, attributes


def _status(run: Run) -> Status:
    if run.extra.get(_FILTERED):
        return "filtered"
    if run.error:
        return "cancelled" if run.error.partition(":")[0] in _STOPS else "error"
    return "ok" if run.end_time else "cancelled"


def _was_left(root: Run) -> bool:
    return any(run.end_time is None for run in walk(root))


def _ending(root: Run, answer: object) -> tuple[Status, str]:
    """Return the status of the trace, and the error for users."""
    status = _status(root)
    if status in ("error", "filtered"):
        return status, root.error or ""
    if status == "cancelled" or _was_left(root):
        # When a synchronous stream is stopped, its root ends successfully, but its steps never end.
        return "cancelled", ""
    if isinstance(answer, Answer):
        ended = _ENDINGS.get(answer.status, "ok")
        return "filtered" if ended == "error" and answer.filtered else ended, answer.error
    return "ok", ""


def _seconds(run: Run, root: Run) -> float:
    """Return the duration of a run, which ends with the root if it has no end."""
    end = run.end_time or root.end_time
    return max((end - run.start_time).total_seconds(), 0.0) if end else 0.0


def _sum(parts: Sequence[float | None]) -> float | None:
    """Return the sum; None if any part is unknown."""
    return None if any(part is None for part in parts) else math.fsum(part or 0.0 for part in parts)


def _known_total(counts: Sequence[Number | None]) -> Number | None:
    """Return the sum of the known numbers; None without any."""
    known = [count for count in counts if count is not None]
    return sum(known[1:], known[0]) if known else None


def _total(counts: Sequence[int | None]) -> int | None:
    """Return the sum of token counts; None without any, or if any is unknown."""
    return None if not counts or any(count is None for count in counts) else sum(count or 0 for count in counts)


def _reason(error: BaseException) -> str:
    return TraceTracer._get_stacktrace(error)
