"""Replies without an answer, by the reason that the model gives for their end.

None of them is a refusal of the prompt's kind, "the documents do not answer this": a model that is filtered or
broken would otherwise be the best at refusing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rag.documents.citation_markers import CODE, without_markers
from rag.errors import NoAnswer
from rag.models.thoughts import Spoken
from rag.redaction import redact
from rag.types import Usage

THOUGHTS = "reasoning_content"
"""The key of a message's ``additional_kwargs`` for thoughts that a server sends apart from the answer."""
REFUSAL = "refusal"
"""The key of a message's ``additional_kwargs`` for a refusal that a server sends apart from the answer."""

# The reasons of OpenAI, and those that Gemini, Bedrock, Anthropic, Cohere, watsonx and Zhipu pass on through
# proxies with OpenAI's API.
_FILTERED = frozenset(
    "content_filter content_filtered guardrail_intervened refusal error_toxic sensitive safety image_safety "
    "recitation prohibited_content content_policy_violation policy_violation moderation blocked blocklist "
    "spii".split()
)
_CALLS = frozenset(
    "tool_calls tool_call tool_use function_call malformed_function_call unexpected_tool_call".split()
)
_LENGTH = frozenset(
    "length max_tokens max_output_tokens max_completion_tokens max_new_tokens model_length token_limit time_limit "
    "error_limit incomplete context_length_exceeded model_context_window_exceeded".split()
)
# Also those of OpenRouter, vLLM and DeepSeek.
_BROKEN = frozenset(
    "error abort aborted cancelled canceled failed timeout internal_error server_error network_error "
    "insufficient_system_resource".split()
)
# A call of a tool as models write it that a server does not parse: at the start of a line, outside of code.
_WRITTEN_CALL = re.compile(
    rf"{CODE}|^[ \t]*(?P<call><\|?/?(?:\w+:)?(?:tool|function)_calls?(?:_section)?(?:_begin)?\|?>|<function=\w"
    r"|<｜tool▁calls?▁begin｜>|\[tool_calls\]|<\|python_tag\|>|<\|action_start\|>)",
    re.MULTILINE | re.DOTALL | re.IGNORECASE,
)
# Letters and digits, or empty JSON; zeros of a broken model are written as exclamation marks.
_SAYS = re.compile(r"[^\W_]|[{\[]")
_LONGEST_REFUSAL = 200

REPHRASE = "Rephrase the question or the prompt, or choose another model."
_ANOTHER = "Ask again, or choose another model."
_MORE_TOKENS = "Raise decoding.max_tokens, or choose a model that thinks less."


def is_filtered(ending: str) -> bool:
    """Whether a finish reason is that of a content filter."""
    return _name(ending) in _FILTERED


def is_truncated(ending: str) -> bool:
    """Whether a finish reason is that of a limit of tokens."""
    return _name(ending) in _LENGTH


def _name(ending: str) -> str:
    """Return the reason in ``content_filter: RECITATION`` and ``FinishReason.SAFETY``."""
    return ending.partition(":")[0].rpartition(".")[2].strip().lower().replace("-", "_")


def writes_call(text: str) -> bool:
    """Whether a reply calls a tool in its text."""
    return any(found["call"] for found in _WRITTEN_CALL.finditer(text))


def check_reply(
    spoken: Spoken, ending: str, apart: Mapping[str, Any], usage: Usage, *, calls: bool = False
) -> None:
    """Check that a reply has an answer.

    Args:
        spoken: The reply.
        ending: Its finish reason; empty if unknown.
        apart: What the model sent apart from the answer, by ``THOUGHTS``, ``REFUSAL`` and other names.
        usage: Its tokens, for the error.
        calls: Whether it calls a tool, whatever its finish reason.

    Raises:
        NoAnswer: It was refused, filtered or broken off, it calls a tool, or it has only thoughts or nothing.
    """
    if found := _problem(spoken, ending, apart, calls):
        raise _no_answer(*found, ending, usage)


def check_whole(ending: str, lacks: str = "anything that the sources support") -> None:
    """Check that a reply without what it needs did not end early: nobody knows what it would have said.

    Args:
        ending: Its finish reason.
        lacks: What the reply does not have.

    Raises:
        NoAnswer: It was filtered or truncated.
    """
    found = f"before {lacks}"
    if is_filtered(ending):
        raise _no_answer(f"A content filter ended the answer {found}", REPHRASE, ending)
    if is_truncated(ending):
        raise _no_answer(f"The model used up its tokens {found}", _MORE_TOKENS, ending)


def _problem(spoken: Spoken, ending: str, apart: Mapping[str, Any], calls: bool) -> tuple[str, str] | None:
    """Return why a reply has no answer, and the remedy; None if it has one."""
    reason = _name(ending)
    if refusal := " ".join(str(apart.get(REFUSAL) or "").split()):
        return f"The model refuses to answer: {redact(refusal)[:_LONGEST_REFUSAL].rstrip('.')}", REPHRASE
    if calls or reason in _CALLS:
        fix = "Choose a model that answers without tools, or turn them off on the server."
        return "The model calls a tool instead of answering", fix
    if reason in _BROKEN:
        return "The model server ended the answer early", "Ask again, and look into its log."
    if spoken.thinking:
        return "The model ended within its thoughts, without an answer", _MORE_TOKENS
    if _SAYS.search(without_markers(spoken.text)):
        return None
    if is_filtered(ending):
        return "A content filter withheld the answer", REPHRASE
    if is_truncated(ending):
        return "The model used up its tokens before it wrote an answer", _MORE_TOKENS
    return f"The model wrote {'only thoughts' if apart.get(THOUGHTS) else 'nothing'}", _ANOTHER


def _no_answer(problem: str, fix: str, ending: str, usage: Usage | None = None) -> NoAnswer:
    """Return the error, with the finish reason if it is known."""
    reason = f" (finish reason: {ending[:_LONGEST_REFUSAL]})" if ending else ""
    return NoAnswer(f"{problem}{reason}.", fix=fix, usage=usage, filtered=is_filtered(ending))
