"""A question of the chat, as the page sends it and as it is stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag.answering.conversation_store import Conversation, Exchange
from rag.retrieval.filters import filters_of
from ui.pages.chat.answer_mode import variant_of

if TYPE_CHECKING:
    from rag.evaluation.variants import Variant
    from rag.settings import Settings
    from rag.types import Filters
    from ui.app.releases import Releases
    from ui.app.stores import Stores

Page = str | None
"""The session of an open page; None where there is none."""


@dataclass(frozen=True, slots=True)
class Asking:
    """A question as the page sends it.

    Attributes:
        current: The conversation that the page shows; empty for a new one.
        filters: The conditions that were typed; see ``rag.retrieval.filters.filters_of``.
        replaced: Position of the question that it replaces; None for none.
    """

    question: str
    current: str
    corpus: str
    mode: str
    filters: tuple[str, ...] = ()
    replaced: int | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that is stored and not answered yet."""

    conversation: Conversation
    exchange: Exchange
    corpus: str
    model: str
    variant: Variant | None
    filters: Filters | None = None


def store_question(asking: Asking, settings: Settings, stores: Stores, releases: Releases) -> Asked:
    """Store a question before it is answered, so that a crash does not lose it.

    Raises:
        FilterError: A filter is malformed; nothing is stored.
    """
    filters = filters_of(asking.filters)
    store, current, corpus = stores.conversations, asking.current, asking.corpus
    # A browser may send lone surrogates and null characters, which no database accepts.
    question = asking.question.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")
    conversation = store.load(current) if current else None
    if conversation is None:
        current = store.new(corpus)
    elif conversation.corpus != corpus:
        store.set_corpus(current, corpus)
    if asking.filters != (conversation.filters if conversation else ()):
        store.set_filters(current, asking.filters)
    if asking.replaced is not None:
        store.truncate_from(current, asking.replaced)
    position = store.append(current, question)
    loaded = store.load(current)
    earlier = tuple(one for one in loaded.exchanges if one.position < position) if loaded else ()
    kept = Conversation(current, loaded.title if loaded else "", corpus, earlier, asking.filters)
    variant = variant_of(asking.mode, settings)
    model = str(variant.changes["model"]) if variant else releases.model
    return Asked(kept, Exchange(position, question, corpus=corpus), corpus, model, variant, filters)
