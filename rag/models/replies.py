"""What goes into a chat model and what comes back, streamed to its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.messages.ai import add_ai_message_chunks

from rag.models.extractive.evidence import Evidence
from rag.models.reply_endings import check_reply, is_filtered, is_truncated, writes_call
from rag.models.streaming import EvidenceChatModel
from rag.models.thoughts import Spoken, without_thoughts
from rag.tracing.cost import read_usage
from rag.types import Usage, whole

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.runnables import RunnableConfig


@dataclass(frozen=True, slots=True)
class ModelInput:
    """A filled prompt.

    Attributes:
        messages: The prompt as text, in its order of roles.
        evidence: The same before it became text, for models that read passages instead. It repeats the messages,
            so ``repr`` and traces leave it out.
        confidence: Probability that the prompt contains the answer, 0 to 1; None if unknown.
    """

    messages: tuple[BaseMessage, ...]
    evidence: Evidence | None = field(default=None, repr=False)
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """The whole reply of a chat model.

    Attributes:
        confidence: The model's own estimate that the reply answers the question, 0 to 1; None without one.
        spans: Offsets into ``text`` of the answer itself, where the model knows more than its sentence.
        ending: The model's reason for its end, such as ``stop`` or ``length``; empty if it gives none.
        quotes: Whether the model only quotes its passages, so that it can invent nothing.
    """

    text: str
    usage: Usage = Usage()
    confidence: float | None = None
    spans: tuple[tuple[int, int], ...] = ()
    ending: str = ""
    quotes: bool = False

    @property
    def truncated(self) -> bool:
        """Whether the token limit ended the reply."""
        return is_truncated(self.ending)

    @property
    def filtered(self) -> bool:
        """Whether a content filter ended the reply."""
        return is_filtered(self.ending)


class ReplyChunk(AIMessageChunk):
    """A piece of a reply with what the model reports about the whole of it; see ``Reply``."""

    confidence: float | None = None
    spans: tuple[tuple[int, int], ...] = ()
    quotes: bool = False


async def reply_to(model: BaseChatModel, prompt: ModelInput, config: RunnableConfig) -> Reply:
    """Return the whole reply without its thoughts; its pieces go to the callbacks of ``config`` as they come.

    Raises:
        NoAnswer: There is no answer in it.
        ModelError: The model fails.
    """
    extra: dict[str, Any] = {"evidence": prompt.evidence} if isinstance(model, EvidenceChatModel) else {}
    pieces = [chunk async for chunk in model.astream(list(prompt.messages), config=config, **extra)]
    # Together: one by one, each would copy all that came before it.
    message = add_ai_message_chunks(AIMessageChunk(content=""), *pieces)
    notes = [piece for piece in pieces if isinstance(piece, ReplyChunk)]
    quotes = any(note.quotes for note in notes)
    # Some servers repeat it, and adding the pieces would join the words.
    endings = (str(piece.response_metadata.get("finish_reason") or "") for piece in reversed(pieces))
    ending = next(filter(None, endings), "")
    text = whole(message.text)
    spoken = Spoken(text, thinking=False) if quotes else without_thoughts(text)
    usage = read_usage(message.usage_metadata or {})
    # Some servers end a call like an answer.
    calls = bool(message.tool_call_chunks or message.additional_kwargs.get("function_call"))
    calls = calls or (not quotes and writes_call(spoken.text))
    check_reply(spoken, ending, message.additional_kwargs, usage, calls=calls)
    return Reply(
        text=spoken.text,
        usage=usage,
        confidence=next((note.confidence for note in notes if note.confidence is not None), None),
        spans=tuple(span for note in notes for span in note.spans),
        ending=ending,
        quotes=quotes,
    )
