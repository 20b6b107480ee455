"""The open models of a process, shared by all variants."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rag.errors import EncoderError, RagsmithError, SettingsError
from rag.settings import SMOLLM2, DecodingSettings, EncoderSettings, RetrievalSettings, Settings
from rag.workspace import Workspace

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from rag.encoders import Encoder
    from rag.encoders.adapters import Adapter
    from rag.indexing.lexical_index import LexicalIndex
    from rag.models.extractive.sentence_ranking import Ranking
    from rag.models.extractive.span_reader import SpanReader
    from rag.models.local.local_engine import LocalEngine
    from rag.retrieval.reranking import Reranker

Part = TypeVar("Part")

CONDENSER = "condenser"
"""The adapter of ``smollm2`` that rewrites follow-ups."""
CONDENSED_TOKENS = 64
"""The maximum tokens of a follow-up that it rewrites."""


class Models:
    """Opens models by the settings of the caller, every one once; safe to use from several threads.

    Args:
        workspace: The folder of converted models and adapters.
        settings: The encoder's settings; the tuned models share its precision.
        encoder: Returns the encoder, which may take seconds the first time.
    """

    def __init__(self, workspace: Workspace, settings: EncoderSettings, encoder: Callable[[], Encoder]) -> None:
        self._workspace = workspace
        self._settings = settings
        self._encoder = encoder
        self._opened: dict[tuple[str, str], Any] = {}
        self._lock = threading.RLock()

    def reader(self, adapter: str) -> SpanReader | None:
        """Return a tuned reader; None for an empty name, or without OpenVINO.

        The first use on a machine converts it, which takes about ten seconds.

        Raises:
            AdapterError: The adapter does not exist, or is not a reader.
        """
        if not adapter or importlib.util.find_spec("openvino") is None:
            return None

        def opened() -> SpanReader:
            from rag.models.extractive.span_reader import SpanReader

            folder, found, precision = self._converted("reader", adapter)
            return SpanReader(folder, found, precision=precision)

        return self._once("reader", adapter, opened)

    def reranker(self, settings: RetrievalSettings) -> Reranker:
        """Return a reranker; the first use on a machine converts it.

        Raises:
            AdapterError: The adapter does not exist, or is not a reranker.
            EncoderError: OpenVINO is missing.
        """
        from rag.retrieval.reranking import CrossReranker, NullReranker

        adapter, depth = settings.reranker, settings.rerank_depth
        if not adapter:
            return NullReranker()

        def opened() -> Reranker:
            folder, found, precision = self._converted("reranker", adapter)
            return CrossReranker(folder, found, precision=precision, depth=depth)

        return self._once(f"reranker {depth}", adapter, opened)

    def answering(self, settings: Settings) -> Settings:
        """Return the settings with what really answers and rewrites follow-ups; see ``replacement``."""
        from rag.models.chat_models import EXTRACTIVE

        if not self.replacement(settings):
            return settings
        model = EXTRACTIVE if settings.model == SMOLLM2 else settings.model
        retrieval = settings.retrieval.model_copy(update={"condenser": "words"})
        return settings.model_copy(update={"model": model, "retrieval": retrieval})

    def replacement(self, settings: Settings) -> str:
        """Return what replaces ``smollm2``, whose package may be missing, why, and the remedy; empty if nothing.

        The extractive reader replaces it as the model that answers, and added words as the one that rewrites
        follow-ups.
        """
        problem = self._base_problem if settings.uses_smollm2 else None
        if problem is None:
            return ""
        answers = settings.model == SMOLLM2
        instead = "the extractive reader answers" if answers else "words of the conversation complete follow-ups"
        return f"{problem.message.removesuffix('.')}, so {instead}. {problem.fix}"

    @cached_property
    def _base_problem(self) -> RagsmithError | None:
        # Cached, because a file of 98 MB is read.
        from rag.models.local.shipped_base import why_unavailable

        return why_unavailable(self._workspace.models)

    def is_unprepared(self, settings: Settings) -> bool:
        """Whether the model must be prepared, which takes about a minute, before it is loaded."""
        from rag.models.local.shipped_base import is_prepared

        return settings.uses_smollm2 and not self.replacement(settings) and not is_prepared(self._workspace.models)

    def prepare(self, settings: Settings) -> None:
        """Prepare a model that ``is_unprepared``; unlike during ``engine``, others may use the models meanwhile.

        Raises:
            RagsmithError: The preparation failed.
        """
        from rag.models.chat_models import prepare_engine

        prepare_engine(settings, self._workspace)

    def engine(self, settings: Settings) -> LocalEngine:
        """Return the language model in this process; loading it takes from seconds to a minute.

        Raises:
            ModelUnavailable: The model or an adapter is missing, damaged or too large, or they do not match.
            EncoderError: The preparation of the model failed.
            SettingsError: Another model is loaded already: two rarely fit into memory.
        """
        from rag.models.chat_models import open_engine

        with self._lock:
            loaded = next((name for kind, name in self._opened if kind == "engine"), settings.model)
            if loaded != settings.model:
                raise SettingsError(
                    f"The model {settings.model} cannot be loaded beside {loaded}: a process can load only one.",
                    fix="Serve one of them (vLLM, llama.cpp, Ollama), and name it as openai:NAME.",
                )
            engine = self._once("engine", settings.model, lambda: open_engine(settings, self._workspace))
        if settings.active_adapter:
            from rag.models.local.local_adapters import find_lora

            engine.load_adapter(find_lora(settings.active_adapter, self._workspace.adapters))
        return engine

    def language_model(self, settings: Settings) -> BaseChatModel:
        """Return the model of the settings; not the extractive reader, which needs a corpus.

        Raises:
            RagsmithError: The model is missing, or cannot be used.
        """
        from rag.models.chat_models import open_local_model, open_remote_model, runs_here

        if runs_here(settings.model):
            return open_local_model(settings, self.engine(settings))
        return open_remote_model(settings)

    def helper(self, settings: Settings, adapter: str, max_tokens: int) -> BaseChatModel:
        """Return ``smollm2`` for a small job beside answering: with an adapter of its own, and greedy.

        Args:
            settings: The settings of the process.
            adapter: A shipped adapter, or one of the same name in the workspace.
            max_tokens: Maximum tokens of a reply.

        Raises:
            ModelUnavailable: The package or the adapter is missing or damaged.
            EncoderError: The preparation of the model failed.
            SettingsError: Another model is loaded already.
        """
        # The adapters of the settings may belong to another model.
        local = settings.local.model_copy(update={"adapter": adapter, "adapters": ()})
        decoding = DecodingSettings(max_tokens=max_tokens)
        own = settings.model_copy(update={"model": SMOLLM2, "local": local, "decoding": decoding})
        if self.is_unprepared(own):
            self.prepare(own)
        return self.language_model(own)

    def chat_model(self, settings: Settings, lexical: Callable[[], LexicalIndex]) -> BaseChatModel:
        """Return the model that writes answers about a corpus.

        Args:
            settings: The model and its decoding settings.
            lexical: Returns the lexical index of the corpus, for the extractive reader.

        Raises:
            RagsmithError: The model is missing, or cannot be used.
        """
        from rag.models.chat_models import EXTRACTIVE

        if settings.model != EXTRACTIVE:
            return self.language_model(settings)
        from rag.models.extractive.extractive_chat import ExtractiveReader

        ranking = self.ranking(settings, lexical())
        return ExtractiveReader(
            ranking=ranking,
            tokens=self._encoder().tokens,
            min_confidence=self.min_confidence(settings, ranking),
            style=settings.answer.style,
        )

    def condenser(self, settings: Settings, lexical: Callable[[], LexicalIndex]) -> BaseChatModel | None:
        """Return the model that rewrites follow-ups; None if words are carried over instead."""
        from rag.models.decoding_support import without_form

        if settings.active_condenser == "words":
            return None
        if settings.active_condenser == SMOLLM2:
            return self.helper(settings, CONDENSER, CONDENSED_TOKENS)
        return self.chat_model(without_form(settings), lexical)

    def condenser_adapter(self, settings: Settings) -> str:
        """Return the identity of the adapter of ``smollm2`` that rewrites follow-ups; empty if none does.

        Raises:
            ModelUnavailable: The adapter is missing.
        """
        from rag.models.local.local_adapters import find_lora

        if settings.active_condenser != SMOLLM2:
            return ""
        return find_lora(CONDENSER, self._workspace.adapters).identity

    def adapter(self, settings: Settings) -> str:
        """Return the identity of the adapter that answers; empty without one."""
        from rag.models.chat_models import EXTRACTIVE, runs_here

        if settings.model == EXTRACTIVE:
            reader = self.reader(settings.reader.adapter)
            return reader.adapter.identity if reader else ""
        return settings.active_adapter if runs_here(settings.model) else ""

    def tracked_adapter(self, settings: Settings) -> Adapter | None:
        """Return the adapter that answers if a training of ragsmith has made it; None if it ships, or without one.

        Raises:
            AdapterError, ModelUnavailable: The adapter is missing.
        """
        from rag.encoders.adapter_artifact import tracked_adapter
        from rag.models.chat_models import EXTRACTIVE, runs_here
        from rag.models.local.local_adapters import find_lora

        if settings.model == EXTRACTIVE:
            reader = self.reader(settings.reader.adapter)
            return tracked_adapter(reader.adapter.folder) if reader else None
        if not runs_here(settings.model) or not settings.active_adapter:
            return None
        return tracked_adapter(find_lora(settings.active_adapter, self._workspace.adapters).folder)

    def close(self) -> None:
        """Unload the models, the local one with its memory on the device."""
        for (kind, _), opened in self._opened.items():
            if kind == "engine":
                opened.close()
        self._opened.clear()

    def ranking(self, settings: Settings, lexical: LexicalIndex) -> Ranking:
        """Return what finds the sentences of a corpus that answer a question."""
        from rag.models.extractive.script_ranking import ScriptRanking
        from rag.models.extractive.sentence_ranking import SentenceRanking, SpanRanking

        reader, encoder = self.reader(settings.reader.adapter), self._encoder()
        known = SpanRanking(reader, encoder, lexical) if reader else SentenceRanking(encoder, lexical)
        return ScriptRanking(known, lexical, encoder.tokens)

    @staticmethod
    def min_confidence(settings: Settings, ranking: Ranking) -> float:
        """Return the minimum probability of an answer: that of the settings, else that of the ranking."""
        wanted = settings.grounding.min_confidence
        return ranking.min_confidence if wanted is None else wanted

    def _converted(self, task: str, name: str) -> tuple[Path, Adapter, str]:
        """Return a tuned model's converted folder, its adapter, and the precision it runs in."""
        if importlib.util.find_spec("openvino") is None:
            raise EncoderError(
                f"The {task} runs on OpenVINO, which is not installed.",
                fix="Install openvino, or choose another in the settings.",
            )
        from rag.encoders.adapters import find_adapter
        from rag.encoders.encoder_opening import choose_precision
        from rag.encoders.tuned_conversion import converted_network

        adapter = find_adapter(name, self._workspace)
        # Fail before the conversion, which takes long.
        adapter.check_task(task)
        folder = converted_network(adapter, self._workspace.models)
        return folder, adapter, choose_precision(self._settings)[0]

    def _once(self, kind: str, name: str, opened: Callable[[], Part]) -> Part:
        with self._lock:
            if (kind, name) not in self._opened:
                self._opened[kind, name] = opened()
            found: Part = self._opened[kind, name]
            return found
