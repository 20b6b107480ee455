"""What a request of the API asks of its answer: changes to the release, an end, and what has no effect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag.errors import SettingsError
from rag.models.decoding_support import unsupported
from ui.answer_clip import Clip
from ui.openai_requests import SAMPLING, CompletionRequest
from ui.openai_shapes import ApiError

if TYPE_CHECKING:
    from rag.evaluation.variants import Variant
    from rag.settings import Settings

_SEEDS = 2**31


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """The options of one answer.

    Attributes:
        variant: The changes to the release; None for none.
        clip: Where the answer ends at the latest.
        is_json: Whether the answer must be JSON, so that a refusal has a place of its own.
        ignored: The parameters and messages without an effect.
    """

    variant: Variant | None
    clip: Clip
    is_json: bool
    ignored: tuple[str, ...]


def options_of(
    asked: CompletionRequest, settings: Settings, starts: Callable[[str], Sequence[int]]
) -> AnswerOptions:
    """Return the options of a request.

    Args:
        settings: The settings of the release.
        starts: Returns the offsets of the tokens of a text, for a model without a limit of its own.

    Raises:
        ApiError: The model cannot honour the form of the answer, or a value is out of range.
    """
    from rag.evaluation.variants import Variant, with_changes

    asked.check()
    wanted = _wanted(asked, settings)
    # A setting at its default is not reported as unsupported.
    changes = {name: value for name, value in wanted.items() if value != getattr(settings.decoding, _field(name))}
    try:
        without_effect = set(unsupported(with_changes(settings, changes)))
    except SettingsError as error:
        raise ApiError(400, error.message, "invalid_request") from error
    _check_form(asked, settings, "decoding.json_schema" in without_effect)
    ignored = [name for name in SAMPLING if f"decoding.{name}" in without_effect]
    changes = {name: value for name, value in changes.items() if name not in without_effect}
    return AnswerOptions(
        Variant(name="request", changes=changes) if changes else None,
        Clip(tuple(asked.stop), None if _limits_itself(settings) else asked.most_tokens, starts),
        asked.response_format.schema_of_answer is not None,
        (*_unheard(asked), *ignored, *asked.unknown),
    )


def _wanted(asked: CompletionRequest, settings: Settings) -> dict[str, Any]:
    wanted: dict[str, Any] = {f"decoding.{name}": getattr(asked, name) for name in SAMPLING}
    wanted["decoding.seed"] = None if asked.seed is None else asked.seed % _SEEDS
    wanted["decoding.max_tokens"] = asked.most_tokens
    # Those of the release stay.
    wanted["decoding.stop"] = [*settings.decoding.stop, *asked.stop] if asked.stop else None
    wanted["decoding.json_schema"] = asked.response_format.schema_of_answer
    return {name: value for name, value in wanted.items() if value is not None}


def _field(name: str) -> str:
    return name.partition(".")[2]


def _limits_itself(settings: Settings) -> bool:
    """Whether the model counts the tokens that it writes."""
    shortest = settings.decoding.model_copy(update={"max_tokens": 1})
    return "decoding.max_tokens" not in unsupported(settings.model_copy(update={"decoding": shortest}))


def _check_form(asked: CompletionRequest, settings: Settings, cannot: bool) -> None:
    schema = asked.response_format.schema_of_answer
    if schema is None:
        return
    if cannot:
        raise ApiError(
            400,
            f"The model {settings.model} writes no JSON: ask for text, or serve ragsmith with a language model.",
            "unsupported_parameter",
            "response_format",
        )
    from rag.models.structured_output import check_schema

    try:
        check_schema(schema)
    except SettingsError as error:
        raise ApiError(400, error.message, "invalid_request", "response_format") from error


def _unheard(asked: CompletionRequest) -> tuple[str, ...]:
    """Return the roles of messages, and the types of their parts, that no prompt receives."""
    roles = {message.role for message in asked.messages} - {"user", "assistant"}
    parts = {part for message in asked.messages for part in message.other_parts}
    return tuple(f"messages.{name}" for name in sorted(roles | parts))
