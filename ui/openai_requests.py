"""The requests of OpenAI's API: what they hold, and what ragsmith refuses in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rag.types import Turn
from ui.openai_shapes import MODEL, ApiError

# Parameters that ragsmith cannot honour, the values of them that ask for nothing, and the reason.
_REFUSED: Mapping[str, tuple[tuple[Any, ...], str]] = MappingProxyType(
    {
        "n": ((1,), "ragsmith gives one answer to a question"),
        "tools": (([],), "ragsmith answers from documents and calls no tools"),
        "functions": (([],), "ragsmith answers from documents and calls no functions"),
        "tool_choice": (("auto", "none"), "ragsmith answers from documents and calls no tools"),
        "function_call": (("auto", "none"), "ragsmith answers from documents and calls no functions"),
        "logprobs": ((False,), "answers have no log probabilities"),
        "top_logprobs": ((0,), "answers have no log probabilities"),
        "presence_penalty": ((0,), "no model of ragsmith supports it; use temperature or top_p"),
        "frequency_penalty": ((0,), "no model of ragsmith supports it; use temperature or top_p"),
        "logit_bias": (({},), "no model of ragsmith supports it"),
        "modalities": ((["text"],), "ragsmith answers in text only"),
        "audio": ((), "ragsmith answers in text only"),
        "prediction": ((), "no model of ragsmith supports it"),
        "web_search_options": ((), "ragsmith searches your documents only"),
    }
)
# Parameters that do not concern the answer.
_ASIDE = frozenset(
    "store metadata service_tier safety_identifier prompt_cache_key prompt_cache_retention "
    "parallel_tool_calls".split()
)
SAMPLING = ("temperature", "top_p", "seed", "top_k", "repetition_penalty")
_MOST_STOPS = 16


class _Part(BaseModel):
    """A part of a request, in which null is the same as absent."""

    model_config = ConfigDict(extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        return (
            {name: value for name, value in given.items() if value is not None}
            if isinstance(given, dict)
            else given
        )


class TextPart(_Part):
    """A part of a message; ``text`` is empty unless the type is text."""

    type: str = "text"
    text: str = ""


class Message(_Part):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: list[TextPart] = []

    @field_validator("content", mode="before")
    @classmethod
    def _parts(cls, given: Any) -> Any:
        return [{"text": given}] if isinstance(given, str) else given

    @property
    def text(self) -> str:
        """The text of all parts."""
        return "\n".join(part.text for part in self.content if part.type == "text")

    @property
    def other_parts(self) -> tuple[str, ...]:
        """The types of its parts that are not text, such as ``image_url``."""
        return tuple(dict.fromkeys(part.type for part in self.content if part.type != "text"))

    @property
    def instructs(self) -> bool:
        """Whether it is an instruction to the model."""
        return self.role in ("system", "developer")


class StreamOptions(_Part):
    """The options of a stream."""

    include_usage: bool = False


class JsonSchema(_Part):
    """The schema of an answer; its other fields describe it."""

    definition: dict[str, Any] = Field(alias="schema")


class ResponseFormat(_Part):
    """The form of an answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @property
    def schema_of_answer(self) -> dict[str, Any] | None:
        """The JSON schema that the answer must match; None for free text."""
        if self.type == "text":
            return None
        return self.json_schema.definition if self.json_schema else {"type": "object"}

    @model_validator(mode="after")
    def _has_its_schema(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema must be given with the type json_schema, and only with it")
        return self


class CompletionRequest(_Part):
    """A request; ``model_extra`` has the parameters without a field here."""

    model_config = ConfigDict(extra="allow")

    model: str = MODEL
    messages: list[Message] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    stop: list[str] = Field(default=[], max_length=_MOST_STOPS)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    response_format: ResponseFormat = ResponseFormat(type="text")
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = None
    user: str = ""
    top_k: int | None = Field(default=None, ge=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_several(cls, given: Any) -> Any:
        return [given] if isinstance(given, str) else given

    @field_validator("stop")
    @classmethod
    def _has_texts(cls, stops: list[str]) -> list[str]:
        if "" in stops:
            raise ValueError("a stop sequence must not be empty")
        return stops

    @property
    def most_tokens(self) -> int | None:
        """The length of the answer that the client allows."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def unknown(self) -> list[str]:
        """The parameters that ragsmith does not know."""
        return [name for name in self.model_extra or {} if name not in _ASIDE and name not in _REFUSED]

    def check(self) -> None:
        """Refuse what would change the answer and cannot be honoured.

        Raises:
            ApiError: The request has such a parameter.
        """
        extra = dict(self.model_extra or {})
        for name, choice in (("tools", "tool_choice"), ("functions", "function_call")):
            # Tools that must not be called ask for nothing.
            if extra.get(choice) == "none":
                extra.pop(name, None)
        for name, (harmless, why) in _REFUSED.items():
            if name in extra and extra[name] not in harmless:
                raise ApiError(400, f"{name} cannot be honoured: {why}.", "unsupported_parameter", name)


def asked_in(messages: Sequence[Message]) -> tuple[str, tuple[Turn, ...]]:
    """Return the question, which is the last message but for instructions after it, and the turns before it.

    Raises:
        ApiError: The conversation does not end with a question, or the question has parts other than text.
    """
    end = len(messages)
    while end and messages[end - 1].instructs:
        end -= 1
    last = messages[end - 1] if end else None
    if last is None or last.role != "user" or not (last.text.strip() or last.other_parts):
        raise ApiError(400, "The last message must be a question from the user.", "no_question", "messages")
    if last.other_parts:
        kinds = ", ".join(last.other_parts)
        raise ApiError(400, f"The question must be text, without {kinds}.", "unsupported_content", "messages")
    return last.text.strip(), history_of(messages[: end - 1])


def history_of(messages: Sequence[Message]) -> tuple[Turn, ...]:
    """Return the earlier questions with their answers; instructions are left out."""
    turns: list[Turn] = []
    question: str | None = None
    for message in messages:
        if message.role == "user":
            if question is not None:
                turns.append(Turn(question, ""))
            question = message.text
        elif message.role == "assistant" and question is not None:
            turns.append(Turn(question, message.text))
            question = None
    return (*turns, Turn(question, "")) if question is not None else tuple(turns)
