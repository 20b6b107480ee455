"""Every setting, in small frozen sections, read once at the entry of the program.

Order, later wins: the defaults below, ``ragsmith.toml`` in the current folder (or the file that
``RAGSMITH_CONFIG`` or ``--config`` names), the environment, flags. In the environment a section and its
field are joined by two underscores: ``RAGSMITH_RETRIEVAL__K=8``.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as UnreadableVariable

from rag.errors import SettingsError
from rag.redaction import redact

SearchMode = Literal["hybrid", "dense", "lexical"]
AnswerStyle = Literal["full", "sentence", "brief"]
CitationStyle = Literal["inline", "end", "none"]

CONFIG_FILE = "ragsmith.toml"
CONFIG_VARIABLE = "RAGSMITH_CONFIG"


class Section(BaseModel):
    """A group of settings: frozen, and strict about names it does not know."""

    # What is refused may be a password: an error does not repeat it.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class EncoderSettings(Section):
    """The embedding model."""

    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    """A folder, or the name of a sentence-transformers model."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "bf16", "f32"] = "auto"
    """``auto`` is bf16 where the processor computes in it, else f32."""
    batch_size: int = Field(default=8, ge=1, le=1024)


class ChunkingSettings(Section):
    """How documents are cut into passages."""

    tokens: int = Field(default=200, ge=16, le=8192)
    """Tokens of the encoder that a passage aims at; never above what the encoder reads."""


class IngestSettings(Section):
    """What is accepted into a corpus."""

    max_file_mb: int = Field(default=200, ge=1)
    max_text_mb: int = Field(default=50, ge=1)
    """Megabytes of UTF-8 text that one file may hold, its records together."""
    parse_memory_mb: int = Field(default=768, ge=256)
    """Memory of the child process that parses files; a file that needs more is reported and skipped."""
    parse_timeout_s: float = Field(default=120.0, gt=0)
    """Seconds that parsing one file may take; a file that takes longer is reported and skipped."""
    folder_roots: tuple[Path, ...] = ()
    """Folders of this machine from which the chat page may add files; empty turns that off."""


class AccessSettings(Section):
    """Who may use the page and the API."""

    user: str = Field(default="ragsmith", min_length=1)
    """The name to sign in with on the page."""
    password: SecretStr | None = None
    """The password of the page; without one nobody signs in."""
    api_key: SecretStr | None = None
    """The bearer key of the API; without one the password is the key."""
    no_auth: bool = False
    """Serve other machines without a password, because something in front of ragsmith asks for one."""
    allowed_hosts: tuple[str, ...] = ()
    """Names, each with a port if it is not the usual one, under which a proxy passes requests on."""

    @field_validator("password", "api_key")
    @classmethod
    def _is_not_empty(cls, value: SecretStr | None) -> SecretStr | None:
        # A variable that a script meant to fill must not open the door.
        if value is not None and not value.get_secret_value().strip():
            raise ValueError("it is empty; leave it out to have none")
        return value


class LimitSettings(Section):
    """What one request, and all requests together, may take."""

    question_chars: int = Field(default=8_000, ge=1)
    """Characters of one question."""
    answers_at_once: int = Field(default=8, ge=1)
    """Answers that are written at the same time."""
    answers_waiting: int = Field(default=32, ge=0)
    """Questions that wait for their turn; further ones are turned away."""
    connections: int = Field(default=400, ge=8)
    """Open connections; beyond them, those go first that have not sent their request."""
    request_s: float = Field(default=10.0, gt=0)
    """Seconds that a client may take for the head of its request, and for each further piece of it."""


class RetrievalSettings(Section):
    """How passages are found for a question."""

    mode: SearchMode = "hybrid"
    k: int = Field(default=5, ge=1, le=1000)
    """Passages that reach the prompt."""
    candidates: int = Field(default=100, ge=1, le=10_000)
    """Passages that each side contributes to the fusion."""
    rrf_k: float = Field(default=10.0, gt=0)
    """The constant of reciprocal rank fusion; this and the weight were the best on SciFact's training queries."""
    dense_weight: float = Field(default=0.45, ge=0, le=1)
    """Share of the dense side in the fusion; the rest is the lexical side's."""
    reranker: str = ""
    """An adapter that reads each passage with the question and puts the best first, ``reranker`` for the one that
    ships. Empty: none, which is several times faster."""
    rerank_depth: int = Field(default=30, ge=1, le=1000)
    """Passages that the reranker reads."""
    condenser: Literal["auto", "words", "generator"] = "auto"
    """Who makes a follow-up stand alone. ``auto``: the model that answers, or where it only reads, words of the
    conversation are carried over. ``words``: they always are. ``generator``: the small generator."""


class DecodingSettings(Section):
    """How a chat model writes. What a model does not honour, its answers say."""

    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Tokens are drawn from the most probable ones that make up this share; None leaves it to the model."""
    top_k: int | None = Field(default=None, ge=1)
    """Tokens are drawn from so many most probable ones; None leaves it to the model."""
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)
    """Above 1 what was written already becomes less probable; None leaves it to the model."""
    seed: int | None = Field(default=None, ge=0, lt=2**31)
    """Draws the same tokens each time, as far as the model can; None draws anew."""
    max_tokens: int = Field(default=512, ge=1)
    stop: tuple[str, ...] = ()
    """Texts before which the answer ends."""
    json_schema: dict[str, Any] | None = None
    """A JSON schema that the answer has to fit; None is free text."""
    context_tokens: int = Field(default=3000, ge=64)
    """Tokens of retrieved passages that fit the prompt; passages are cut, never the question."""


class AnswerSettings(Section):
    """What an answer looks like."""

    style: AnswerStyle = "full"
    """Of the embedded reader: up to three sentences, the best one, or only the words that answer. Any other model
    writes as its prompt tells it to."""
    citations: CitationStyle = "inline"
    """Where the markers stand: in the text, after it, or nowhere (the sources are listed all the same)."""


class GroundingSettings(Section):
    """When an answer counts as supported."""

    min_support: float = Field(default=0.35, ge=0, le=1)
    """Support of a model's best sentence under which the reply says that the documents do not answer."""
    min_confidence: float | None = Field(default=None, ge=0, le=1)
    """Probability that its best sentence answers under which the embedded reader refuses; None leaves it to the
    reader, whose measure depends on how it ranks."""


class ReaderSettings(Section):
    """The embedded reader: ``model = "embedded"``."""

    adapter: str = "reader"
    """The tuned reader: a folder, or a name below ``models/adapters`` or of one that ships. Empty: sentences are
    ranked by likeness alone."""


class GeneratorSettings(Section):
    """The small generator: ``model = "generator"``."""

    adapter: str = "generator"
    """The tuned generator: a folder, or a name below ``models/adapters`` or of one that ships."""


class OpenAISettings(Section):
    """An OpenAI-compatible server: OpenAI, vLLM, Ollama, llama.cpp."""

    base_url: str | None = None
    api_key: SecretStr | None = None
    timeout_s: float = Field(default=60.0, gt=0)
    """Seconds until an answer begins, and between two pieces of it."""
    total_timeout_s: float | None = Field(default=None, gt=0)
    """Seconds for a whole answer, thinking included; None is five times ``timeout_s``."""
    max_retries: int = Field(default=2, ge=0, le=10)

    @field_validator("base_url")
    @classmethod
    def _has_a_port(cls, url: str | None) -> str | None:
        try:
            parts = urlsplit(url or "")
        except ValueError:
            # Doctor, and the first answer, say that nothing is there.
            return url
        try:
            _ = parts.port
        except ValueError as error:
            if "out of range" in str(error):
                return url
            # What stands in its place may be half of a password, and is not repeated.
            raise ValueError("the port must be a number, and a / in a password must be written %2F") from None
        return url


class LocalSettings(Section):
    """A language model that runs in this process: ``model = "local:…"``."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["auto", "bf16", "f16", "f32"] = "auto"
    """``auto`` is bf16 on a GPU and on a processor that computes in it, else f32."""
    adapters: tuple[str, ...] = ()
    """LoRA adapters that are loaded: folders, or names below the workspace's ``models/adapters``."""
    adapter: str | None = None
    """The adapter that answers; None is the model as it is."""
    max_batch: int = Field(default=8, ge=1, le=256)
    """Questions that are answered in one batch, at most; each takes memory of its own."""


class TrackingSettings(Section):
    """The projection of traces to Weights & Biases."""

    wandb: Literal["auto", "online", "offline", "off"] = "auto"
    """``auto`` is online when logged in, else offline."""
    project: str = "ragsmith"
    entity: str | None = None


class CostSettings(Section):
    """What an answer costs."""

    machine_usd_per_hour: float | None = Field(default=None, ge=0)
    """Rate of this machine for local models; without one the rate in ``prices.toml`` holds."""
    prices: Path | None = None
    """A price list to use instead of the one that ships."""


class Settings(BaseSettings):
    """All settings of one process."""

    model_config = SettingsConfigDict(
        env_prefix="RAGSMITH_", env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )
    home: Path = Path(".ragsmith")
    """The workspace folder."""
    host: str = "127.0.0.1"
    port: int = Field(default=7860, ge=0, le=65535)
    corpus: str = "handbook"
    """The corpus that questions go to when none is named."""
    model: str = "embedded"
    """``embedded`` (the reader), ``generator`` (the small generator), ``local:PATH-OR-NAME`` (a language model in
    this process), or ``openai:NAME`` (any OpenAI-compatible server)."""
    chroma_url: str | None = None
    """``http://host:port`` of a Chroma server; without one Chroma runs in the workspace."""
    database_url: SecretStr | None = None
    """An SQLAlchemy URL, which may hold a password; without one SQLite runs in the workspace."""
    prompt: str = "answer"
    """The prompt that answers, ``NAME`` (its label ``production``), ``NAME@VERSION`` or ``NAME@LABEL``."""
    encoder: EncoderSettings = EncoderSettings()
    chunking: ChunkingSettings = ChunkingSettings()
    ingest: IngestSettings = IngestSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    decoding: DecodingSettings = DecodingSettings()
    answer: AnswerSettings = AnswerSettings()
    grounding: GroundingSettings = GroundingSettings()
    reader: ReaderSettings = ReaderSettings()
    generator: GeneratorSettings = GeneratorSettings()
    openai: OpenAISettings = OpenAISettings()
    local: LocalSettings = LocalSettings()
    tracking: TrackingSettings = TrackingSettings()
    cost: CostSettings = CostSettings()
    access: AccessSettings = AccessSettings()
    limits: LimitSettings = LimitSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags above the environment above the file that ``load_settings`` read."""
        flags = init_settings()
        table = flags.pop(_FILE_TABLE, {})
        return (
            InitSettingsSource(settings_cls, init_kwargs=flags),
            env_settings,
            InitSettingsSource(settings_cls, init_kwargs=table),
        )


_FILE_TABLE = "_file_table"


def load_settings(flags: Mapping[str, Any] | None = None, config: Path | None = None) -> Settings:
    """Read the settings: file, then environment, then flags.

    Args:
        flags: Values given on the command line, nested as the sections are; None values count as not given.
        config: The TOML file; by default what ``RAGSMITH_CONFIG`` names, else ``ragsmith.toml`` if it exists.

    Raises:
        SettingsError: A file cannot be read, or a value is unknown, malformed or out of range.
    """
    path = _config_path(config)
    table = _read_table(path) if path else {}
    api_key = os.environ.get("OPENAI_API_KEY")
    if api_key and "RAGSMITH_OPENAI__API_KEY" not in os.environ:
        section = table.setdefault("openai", {})
        if isinstance(section, dict):
            section.setdefault("api_key", api_key)
    given: dict[str, Any] = {name: value for name, value in (flags or {}).items() if value is not None}
    given[_FILE_TABLE] = table
    try:
        return Settings(**given)
    except UnreadableVariable as error:
        raise SettingsError(
            f"The environment holds a section that is no JSON object: {redact(str(error))}.",
            fix="Give single fields, as RAGSMITH_RETRIEVAL__K=8.",
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise SettingsError(
            f"The setting {name} is not usable: {redact(first['msg'].removeprefix('Value error, '))}.",
            fix=f"Change it in {path or CONFIG_FILE}, in the environment or in the flag.",
        ) from error


def _config_path(config: Path | None) -> Path | None:
    named = config or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    if named is None:
        default = Path(CONFIG_FILE)
        return default if default.is_file() else None
    if not named.is_file():
        raise SettingsError(f"The settings file {named} does not exist.", fix="Name an existing TOML file.")
    return named


def _read_table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(
            f"The settings file {path} cannot be read: {redact(str(error))}.", fix="Fix the file."
        ) from error
