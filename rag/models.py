"""Chat models behind one seam: what a model name stands for, and what its failures mean.

``embedded`` is the reader of ``rag.reader``. ``openai:NAME`` is any server that speaks OpenAI's chat
completions: OpenAI itself, vLLM, Ollama, llama.cpp.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from rag.errors import ModelError, ModelProtocolError, ModelTimeout, ModelUnavailable, SettingsError
from rag.settings import Settings

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessageChunk, BaseMessage
    from langchain_core.runnables import RunnableConfig

EMBEDDED = "embedded"
OPENAI = "openai:"


def check_model_name(name: str) -> None:
    """Refuse a model name that stands for nothing.

    Raises:
        SettingsError: It is neither ``embedded`` nor ``openai:NAME``.
    """
    if name != EMBEDDED and not (name.startswith(OPENAI) and len(name) > len(OPENAI)):
        raise SettingsError(
            f"The model {name!r} is not known.",
            fix="Use `embedded`, or `openai:NAME` with openai.base_url for a server of your own.",
        )


def open_remote_model(settings: Settings) -> BaseChatModel:
    """The chat model that ``openai:NAME`` stands for; nothing is sent yet.

    Raises:
        ModelUnavailable: It is OpenAI's own server, and there is no key.
    """
    server = settings.openai
    if server.api_key is None and server.base_url is None:
        raise ModelUnavailable(
            f"The model {settings.model} needs a key.",
            fix="Set OPENAI_API_KEY, or openai.base_url for a server of your own.",
        )
    from langchain.chat_models import init_chat_model

    model: BaseChatModel = init_chat_model(
        settings.model,
        base_url=server.base_url,
        # Servers of one's own ask for none, but the client insists on one.
        api_key=server.api_key.get_secret_value() if server.api_key else "none",
        timeout=server.timeout_s,
        max_retries=server.max_retries,
        temperature=settings.decoding.temperature,
        max_tokens=settings.decoding.max_tokens,
        stream_usage=True,
    )
    return model


async def stream_reply(
    model: BaseChatModel, messages: list[BaseMessage], config: RunnableConfig
) -> AsyncIterator[AIMessageChunk]:
    """Stream a model's reply, its failures translated.

    Raises:
        ModelUnavailable: There is no connection, or the server refuses.
        ModelTimeout: The server is too slow.
        ModelProtocolError: What came back cannot be understood.
    """
    from langchain_core.messages import AIMessageChunk

    try:
        async for chunk in model.astream(messages, config=config):
            if isinstance(chunk, AIMessageChunk):
                yield chunk
    except ModelError:
        raise
    except Exception as error:
        raise _translated(error) from error


def _translated(error: Exception) -> ModelError:
    kind = type(error)
    names = {each.__name__ for each in kind.__mro__ if each.__module__.partition(".")[0] in ("openai", "httpx")}
    reason = (str(error).strip().splitlines() or [kind.__name__])[0][:300].rstrip(".")
    if names & {"APITimeoutError", "TimeoutException"} or isinstance(error, TimeoutError):
        return ModelTimeout(
            "The model server did not answer in time.", fix="Ask again, or raise openai.timeout_s."
        )
    if names & {"APIConnectionError", "TransportError"} and "RemoteProtocolError" not in names:
        return ModelUnavailable(
            f"The model server cannot be reached: {reason}.",
            fix="Start it, or correct openai.base_url; model = 'embedded' needs no server.",
        )
    if "APIStatusError" in names:
        return ModelUnavailable(
            f"The model server refuses: {reason}.",
            fix="Check the model's name, the key and the server's log.",
        )
    return ModelProtocolError(
        f"The model server sent something that is no chat completion: {reason}.",
        fix="Check that openai.base_url points at an OpenAI-compatible server (most end in /v1).",
    )
