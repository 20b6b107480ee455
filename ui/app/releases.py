"""The releases that answer questions, each with its chain, kept ready between two questions."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag.answering.answer_gate import Gate, OpenGate
from rag.answering.assistant import Assistant, Pipeline
from rag.answering.release import Release
from rag.settings import RetrievalSettings, Settings
from ui.app.shared_property import shared_property

if TYPE_CHECKING:
    from prompts import PromptTemplate
    from rag.answering.answer_gate import AnswerGate
    from rag.evaluation.variants import Variant
    from rag.indexing.lexical_index import LexicalIndex
    from rag.retrieval.retriever import Retriever
    from rag.tracing.cost import PriceList
    from ui.app.models import Models
    from ui.app.stores import Stores

PIPELINES = 32
"""Pipelines that are kept ready."""


@dataclass(frozen=True, slots=True)
class ResolvedSettings:
    """What holds for a variant.

    Attributes:
        settings: The settings of the process, as the prompt and the variant change them.
        prompt: The version that answers.
    """

    settings: Settings
    prompt: PromptTemplate


@dataclass(frozen=True, slots=True)
class ChainPrompts:
    """The prompts of a chain, as their labels point now."""

    answer: PromptTemplate
    condense: PromptTemplate
    repair: PromptTemplate


@dataclass(frozen=True, slots=True)
class _Ingredients:
    """What a pipeline was built from: while it is equal, the pipeline is up to date."""

    settings: Settings
    prompts: ChainPrompts
    fingerprint: str


class Releases:
    """Builds what answers a question; safe to use from several threads.

    Args:
        settings: The settings of the process, which variants change.
        stores: Corpora, prompts and traces.
        models: The models that were opened.
        on_traced: Called after a trace was written.
    """

    def __init__(
        self, settings: Settings, stores: Stores, models: Models, on_traced: Callable[[], None] = lambda: None
    ) -> None:
        self._settings = settings
        self._stores = stores
        self._models = models
        self._on_traced = on_traced
        self._pipelines: dict[tuple[str, str], tuple[_Ingredients, Pipeline]] = {}
        self._retrievers: dict[int, Retriever] = {}
        self.lock = threading.RLock()

    @shared_property
    def gate(self) -> AnswerGate:
        """How many answers are written at the same time."""
        from rag.answering.answer_gate import AnswerGate

        limits = self._settings.limits
        return AnswerGate(limits.answers_at_once, limits.answers_waiting)

    @shared_property
    def prices(self) -> PriceList:
        """What tokens and seconds cost."""
        from rag.tracing.cost import load_prices

        return load_prices(self._settings.cost)

    def assistant(self, variant: Variant | None = None, *, gate: Gate | None = None) -> Assistant:
        """Return an assistant whose answers are traced and priced.

        Args:
            variant: What it changes of the settings; None changes nothing.
            gate: Decides when an answer may begin; None lets every answer begin at once.
        """
        return Assistant(
            lambda corpus: self.pipeline(corpus, variant),
            self._stores.traces,
            self.prices,
            self._on_traced,
            self._settings.limits.question_chars,
            gate or OpenGate(),
        )

    def resolve(self, variant: Variant | None = None) -> ResolvedSettings:
        """Apply the settings that the prompt wants, then the variant's own changes.

        Raises:
            PromptError: The prompt is missing or malformed.
            SettingsError: The variant changes what it cannot change, or to what is out of range.
        """
        from rag.evaluation.variants import with_changes, with_prompt

        changes = variant.changes if variant else {}
        named = with_changes(self._settings, changes)
        prompt = self._stores.prompt(named.prompt)
        return ResolvedSettings(with_changes(with_prompt(named, prompt.settings), changes), prompt)

    def retriever(self, corpus: str = "", retrieval: RetrievalSettings | None = None) -> Retriever:
        """Return what searches a corpus; empty for the one in the settings.

        Args:
            corpus: Its name.
            retrieval: How it is searched; by default as the settings say.

        Raises:
            CorpusError: The corpus does not exist.
        """
        from rag.retrieval.retriever import Retriever

        with self.lock:
            if not self._retrievers:
                self._compile_beside_chroma()
            index = self._stores.index(corpus)
            if index.id not in self._retrievers:
                settings = self._settings
                reranker = self._models.reranker(settings.retrieval)
                limit = settings.limits.question_chars
                self._retrievers[index.id] = Retriever(index, settings.retrieval, reranker, limit)
            retriever = self._retrievers[index.id]
        return retriever.using(retrieval, self._models.reranker(retrieval)) if retrieval else retriever

    def _compile_beside_chroma(self) -> None:
        """Compile the encoder's form for questions, which an ingestion never needs, while Chroma opens."""
        with ThreadPoolExecutor(1, thread_name_prefix="encoder") as side:
            side.submit(self._stores.encoder.embed, ["ready"])
            _ = self._stores.corpora

    def pipeline(self, corpus: str = "", variant: Variant | None = None) -> Pipeline:
        """Return the chain of a corpus with its release, built at the first question.

        Raises:
            RagsmithError: A part of it is missing.
        """
        name = corpus or self._settings.corpus
        with self.lock:
            # First of all: a missing corpus is the first thing to report.
            self.retriever(name)
            # A label may have been moved since the last question, here or by another process.
            resolved = self.resolve(variant)
            find = self._stores.prompt
            prompts = ChainPrompts(resolved.prompt, find("condense"), find("repair-json"))
            ingredients = _Ingredients(resolved.settings, prompts, self._stores.corpora.fingerprint)
            key = (name, json.dumps(variant.changes, sort_keys=True) if variant else "")
            known, pipeline = self._pipelines.pop(key, (None, None))
            if pipeline is None or known != ingredients:
                pipeline = self._build(name, ingredients)
            # The one that was used last stands last, and the first ones go.
            self._pipelines[key] = (ingredients, pipeline)
            while len(self._pipelines) > PIPELINES:
                del self._pipelines[next(iter(self._pipelines))]
            return pipeline

    def _build(self, corpus: str, ingredients: _Ingredients) -> Pipeline:
        from rag.answering.chain import build_chain
        from rag.answering.steps import Steps
        from rag.models.decoding_support import unsupported
        from rag.models.structured_output import check_schema

        settings, prompts, models = ingredients.settings, ingredients.prompts, self._models
        if settings.decoding.json_schema is not None:
            check_schema(settings.decoding.json_schema)

        def lexical() -> LexicalIndex:
            return self._stores.index(corpus).lexical

        release = self._release(corpus, ingredients)
        steps = Steps(
            release=release,
            retriever=self.retriever(corpus, settings.retrieval),
            encoder=self._stores.encoder,
            model=models.chat_model(settings, lexical),
            condenser=models.condenser(settings, lexical),
            answer_prompt=prompts.answer,
            condense_prompt=prompts.condense,
            repair_prompt=prompts.repair,
            unsupported=unsupported(settings),
        )
        return Pipeline(release, build_chain(steps))

    def _release(self, corpus: str, ingredients: _Ingredients) -> Release:
        settings, prompt, models = ingredients.settings, ingredients.prompts.answer, self._models
        rewrites = settings.retrieval.condenser == "generator"
        return Release(
            corpus=corpus,
            fingerprint=ingredients.fingerprint,
            prompt=prompt.label,
            prompt_sha256=prompt.sha256,
            model=settings.model,
            retrieval=settings.retrieval,
            decoding=settings.decoding,
            answer=settings.answer,
            grounding=settings.grounding,
            adapter=models.adapter(settings),
            reranker=models.reranker(settings.retrieval).identity,
            condenser=models.generator(settings.generator.adapter).adapter.identity if rewrites else "",
        )

    def close(self) -> None:
        """Drop the chains, and end the threads of the retrievers."""
        for retriever in self._retrievers.values():
            retriever.close()
        self._retrievers.clear()
        self._pipelines.clear()
