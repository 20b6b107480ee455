"""Chat models behind one seam: what a model name stands for.

``embedded`` is the reader of ``rag.models.extractive``, ``generator`` the small one of ``rag.models.generator``.
``local:PATH-OR-NAME`` is a language model that runs in this process: a folder or a name on the hub.
``openai:NAME`` is any server that speaks OpenAI's chat completions: OpenAI itself, vLLM, Ollama, llama.cpp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from rag.errors import ModelUnavailable, SettingsError
from rag.settings import DecodingSettings, Settings

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from rag.models.generator.generator_decoding import Generator
    from rag.models.local.local_engine import LocalEngine
    from rag.workspace import Workspace

EMBEDDED = "embedded"
GENERATOR = "generator"
OPENAI = "openai:"
LOCAL = "local:"
# A whole answer may take so many times as long as its beginning.
TOTAL_TIMES = 5


def check_model_name(name: str) -> None:
    """Refuse a model name that stands for nothing.

    Raises:
        SettingsError: It is none of those above.
    """
    if name not in (EMBEDDED, GENERATOR) and not any(
        name.startswith(kind) and len(name) > len(kind) for kind in (LOCAL, OPENAI)
    ):
        raise SettingsError(
            f"The model {name!r} is not known.",
            fix="Use `embedded`, `generator`, `local:PATH-OR-NAME` for a model on this machine, or `openai:NAME` "
            "with openai.base_url for a server of your own.",
        )


def open_engine(settings: Settings, workspace: Workspace) -> LocalEngine:
    """Load the model that ``local:PATH-OR-NAME`` stands for; chat models share it, and whoever opens it closes it.

    Raises:
        ModelUnavailable: The model or an adapter is missing, damaged, too large or does not fit.
    """
    from rag.models.local.local_engine import open_local_engine

    return open_local_engine(settings.model.removeprefix(LOCAL), settings.local, workspace.adapters)


def open_local_model(settings: Settings, engine: LocalEngine) -> BaseChatModel:
    """A chat model on a loaded engine, with the adapter and the decoding of the settings."""
    from rag.models.local.local_chat import LocalChatModel

    decoding = settings.decoding
    return LocalChatModel(
        engine=engine,
        model=engine.name,
        adapter=settings.local.adapter,
        temperature=decoding.temperature,
        top_p=decoding.top_p,
        top_k=decoding.top_k,
        repetition_penalty=decoding.repetition_penalty,
        seed=decoding.seed if engine.seeds else None,
        max_tokens=decoding.max_tokens,
        stop=decoding.stop,
    )


def open_generator_model(settings: Settings, generator: Generator) -> BaseChatModel:
    """A chat model on a generator, with what it honours of the decoding."""
    from rag.models.generator.generator_chat import GeneratorChatModel

    decoding = settings.decoding
    return GeneratorChatModel(
        generator=generator,
        temperature=decoding.temperature,
        seed=decoding.seed,
        max_tokens=decoding.max_tokens,
        stop=decoding.stop,
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
    from rag.models.remote_model import RemoteModel

    decoding = settings.decoding
    beside = _response_format(decoding)
    given: dict[str, Any] = {}
    # OpenAI's newer models refuse the name `max_tokens`; most servers of one's own know no other.
    if server.base_url is None:
        given["max_tokens"] = decoding.max_tokens
    else:
        given["use_responses_api"] = False
        beside |= {"max_tokens": decoding.max_tokens} | _beside_openai(decoding)
    return RemoteModel(
        model=settings.model.removeprefix(OPENAI),
        base_url=server.base_url,
        # Servers of one's own ask for none, but the client insists on one.
        api_key=server.api_key or SecretStr("none"),
        timeout=server.timeout_s,
        total_timeout_s=server.total_timeout_s or TOTAL_TIMES * server.timeout_s,
        stream_chunk_timeout=None,
        max_retries=server.max_retries,
        temperature=decoding.temperature,
        top_p=decoding.top_p,
        seed=decoding.seed,
        stop_sequences=[text for text in decoding.stop if text] or None,
        streaming=True,
        stream_usage=True,
        extra_body=beside or None,
        **given,
    )


def _response_format(decoding: DecodingSettings) -> dict[str, Any]:
    """The schema as OpenAI takes it. The client would stream it in another way, if it knew of it."""
    if decoding.json_schema is None:
        return {}
    held = {"name": "answer", "schema": decoding.json_schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": held}}


def _beside_openai(decoding: DecodingSettings) -> dict[str, Any]:
    """What OpenAI's own server does not know, under the names of other servers."""
    sent = {
        "top_k": decoding.top_k,
        # Of vLLM; and of llama.cpp and Ollama.
        "repetition_penalty": decoding.repetition_penalty,
        "repeat_penalty": decoding.repetition_penalty,
    }
    return {name: value for name, value in sent.items() if value is not None}
