"""Retrieval in the Evaluate tab: the passages found for a question under given settings, and their scores."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import urlencode

import gradio as gr

from rag.errors import DatasetError, SettingsError
from rag.evaluation.report_rendering import shortened
from rag.settings import MOST_PASSAGES, SearchMode
from rag.types import Hit
from ui.app.login_name import login_name
from ui.pages.chat.chat_layout import Bridge
from ui.pages.evaluate import retrieval_view as view
from ui.pages.html_component import html_component
from ui.pages.page_events import BRIDGED, QUIET, addressed, show_errors, show_info, warn
from ui.pages.safe_markup import note

if TYPE_CHECKING:
    from rag.evaluation.dataset_store import DatasetStore
    from rag.settings import Settings
    from ui.app.releases import Releases
    from ui.app.stores import Stores

Updates = dict[Any, Any]

HINT = "Ask something to see which passages are found, and why."


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The settings of a search, valid."""

    k: int
    mode: SearchMode
    weight: float

    @classmethod
    def of(cls, k: object, mode: object, weight: object) -> _Wanted:
        """Check the settings of the form or of an address, where numbers may be texts.

        Raises:
            SettingsError: One of them is not usable.
        """
        known = next((option for option in get_args(SearchMode) if option == mode), None)
        if known is None:
            *most, last = get_args(SearchMode)
            raise SettingsError(f"The mode of a search must be {', '.join(most)} or {last}, not {_quoted(mode)}.")
        passages, share = _number(k), _number(weight)
        if not (1 <= passages <= MOST_PASSAGES and passages.is_integer()):
            raise SettingsError(
                f"The number of passages must be a whole number from 1 to {MOST_PASSAGES}, not {_quoted(k)}."
            )
        if not 0 <= share <= 1:
            raise SettingsError(f"The weight of the dense search must be from 0 to 1, not {_quoted(weight)}.")
        return cls(int(passages), known, share)


@dataclass(frozen=True, slots=True)
class _Found:
    """The result of the last search, and the passages that a person marked as relevant."""

    question: str = ""
    hits: tuple[Hit, ...] = ()
    seconds: float = 0.0
    relevant: frozenset[int] = frozenset()


class RetrievalTab:
    """Components and events of the search, made inside the blocks that are open."""

    def __init__(self, settings: Settings, stores: Stores, releases: Releases, datasets: DatasetStore) -> None:
        self._settings = settings
        self._stores = stores
        self._releases = releases
        self._datasets = datasets
        retrieval = settings.retrieval
        with gr.Column(elem_id="bench"):
            with gr.Row(elem_id="bench-asked"):
                self._question = gr.Textbox(
                    label="Question",
                    placeholder="What should be found?",
                    max_lines=3,
                    elem_id="bench-question",
                    scale=1,
                )
                self._search = gr.Button("Search", variant="primary", size="sm", scale=0, elem_id="bench-search")
            with gr.Row(elem_id="bench-settings"):
                self._corpus = gr.Dropdown(label="Corpus", elem_id="bench-corpus", interactive=True)
                self._k = gr.Number(
                    label="Passages", value=retrieval.k, minimum=1, maximum=MOST_PASSAGES, precision=0
                )
                self._mode = gr.Dropdown(
                    list(get_args(SearchMode)),
                    value=retrieval.mode,
                    label="Mode",
                    filterable=False,
                    elem_id="bench-mode",
                )
                self._weight = gr.Slider(
                    0,
                    1,
                    value=retrieval.dense_weight,
                    step=0.05,
                    label="Weight of the dense search",
                    elem_id="bench-weight",
                )
                self._to_chat = gr.Button("Use in chat", size="sm", elem_id="bench-chat")
                self._dataset = gr.Textbox(label="Dataset", value="saved", max_lines=1, elem_id="bench-dataset")
                self._save = gr.Button("Save as case", size="sm", elem_id="bench-save")
            self._hits = html_component("bench-hits", note(HINT, "rs-pick"))
        with gr.Column(elem_classes="rs-bridge"):
            self._mark = gr.Button(elem_id="do-mark-hit")
            self._address = gr.Textbox()
        self._found = gr.State(_Found())

    def wire(self, page: Any, tabs: Any, inner: Any, tab: Any, bridge: Bridge, question: Any) -> None:
        """Connect the events.

        Args:
            page: The blocks.
            tabs, inner: All tabs of the page, and those of Evaluate, to bring one to the front.
            tab: This one.
            bridge: Names what was clicked.
            question: The input box of the chat.
        """
        self._tabs, self._inner, self._chat = tabs, inner, question
        asked = [self._question, self._corpus, self._k, self._mode, self._weight]
        shown = [self._hits, self._found, self._address]
        for event in (self._question.submit, self._search.click, self._mode.input, self._weight.release):
            event(self.search, asked, shown, **QUIET)
        tab.select(self.listing, None, self._corpus, **QUIET)
        self._mark.click(self.mark, [bridge.value, self._found], [self._hits, self._found], js=BRIDGED, **QUIET)
        self._to_chat.click(self.to_chat, self._question, [tabs, question], **QUIET)
        self._save.click(self.save, [self._found, self._dataset], None, **QUIET)
        self._address.change(None, self._address, None, js=addressed("retrieval"), **QUIET)
        bridge.links["retrieval"].click(self.linked, None, [tabs, inner, *asked, *shown], **QUIET)

    @show_errors
    def listing(self) -> Any:
        """List the corpora."""
        return gr.Dropdown(choices=self._stores.corpus_names(), value=self._settings.corpus)

    @show_errors
    def search(self, question: str, corpus: str | None, k: float | None, mode: str, weight: float) -> Updates:
        """Search with these settings."""
        asked = question.strip()
        if not asked:
            return {self._hits: note(HINT, "rs-pick"), self._found: _Found(), self._address: ""}
        return self._searched(asked, corpus, _Wanted.of(k, mode, weight))

    def _searched(self, asked: str, corpus: str | None, wanted: _Wanted) -> Updates:
        retrieval = self._settings.retrieval.model_copy(
            update={"k": wanted.k, "mode": wanted.mode, "dense_weight": wanted.weight}
        )
        retriever = self._releases.retriever(corpus or "", retrieval)
        began = time.perf_counter()
        found = _Found(asked, tuple(retriever.search(asked)), time.perf_counter() - began)
        query = {
            "tab": "retrieval",
            "q": asked,
            "corpus": corpus or "",
            "k": wanted.k,
            "mode": wanted.mode,
            "weight": wanted.weight,
        }
        return {**self._shown(found), self._address: urlencode(query)}

    @show_errors
    def mark(self, passage: str, found: _Found) -> Updates:
        """Mark a passage as relevant, or remove the mark."""
        number = int(passage)
        relevant = found.relevant ^ {number}
        return self._shown(_Found(found.question, found.hits, found.seconds, relevant))

    @show_errors
    def to_chat(self, question: str) -> Updates:
        """Copy the question into the input box of the chat."""
        return {self._tabs: gr.Tabs(selected="chat"), self._chat: question.strip()}

    @show_errors
    def save(self, found: _Found, dataset: str) -> None:
        """Add the question as a case, with the sources of the passages marked as relevant."""
        from rag.evaluation.cases import Case, make_id, source_name

        if not found.question:
            raise DatasetError("There must be a search to save.", fix="Search for a question first.")
        marked = [hit.passage for hit in found.hits if hit.passage.id in found.relevant]
        if not marked:
            raise DatasetError("A passage must be marked as relevant.", fix="Mark those that answer the question.")
        sources = tuple(dict.fromkeys(source_name(passage.name, passage.page) for passage in marked))
        case = Case(id=make_id(found.question), question=found.question, sources=sources)
        added = self._datasets.add(dataset.strip(), [case], by=login_name(), message="from the retrieval bench")
        show_info(f"Added to the dataset {added.version.label}: {', '.join(sources)}.")

    @show_errors
    def linked(self, request: gr.Request) -> Any:
        """Repeat the search that the address of the page names."""
        asked = request.query_params
        if asked.get("tab") != "retrieval":
            return gr.skip()
        question = asked.get("q", "").strip()
        front: Updates = {
            self._tabs: gr.Tabs(selected="evaluate"),
            self._inner: gr.Tabs(selected="retrieval"),
            self._question: question,
            self._corpus: self.listing(),
        }
        try:
            return front | self._repeated(question, asked)
        except Exception as error:  # noqa: BLE001 - shown as one sentence, beside the question of the address
            warn(error)
            return front

    def _repeated(self, question: str, asked: Mapping[str, str]) -> Updates:
        settings = self._settings.retrieval
        corpus = asked.get("corpus") or self._settings.corpus
        wanted = _Wanted.of(
            asked.get("k", settings.k),
            asked.get("mode", settings.mode),
            asked.get("weight", settings.dense_weight),
        )
        found = self._searched(question, corpus, wanted) if question else {}
        return {
            self._corpus: gr.Dropdown(choices=self._stores.corpus_names(), value=corpus),
            self._k: wanted.k,
            self._mode: wanted.mode,
            self._weight: wanted.weight,
            **found,
        }

    def _shown(self, found: _Found) -> Updates:
        return {self._hits: view.hits_html(found.hits, found.relevant, found.seconds), self._found: found}


def _number(value: object) -> float:
    """Return a number, which is NaN where the value is none."""
    try:
        return float(str(value))
    except ValueError:
        return math.nan


def _quoted(value: object) -> str:
    return "empty" if value is None else repr(shortened(str(value), 20))
