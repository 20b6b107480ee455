"""The playground: the lab with the question, the passages and the release of a trace, beside its answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from rag.errors import PromptError, ReleaseError, ReplayError
from rag.tracing.figures import counted
from ui.pages.html_component import html_component
from ui.pages.prompts.lab_view import ended_html, passages_html
from ui.pages.safe_markup import fragment, note

if TYPE_CHECKING:
    from pydantic import JsonValue

    from prompts.draft import PromptDraft
    from rag.tracing.trace_store import Trace
    from rag.types import Ask
    from ui.app.releases import Releases
    from ui.app.stores import Stores
    from ui.pages.prompts.lab_columns import Column


@dataclass(frozen=True, slots=True)
class OriginalParts:
    """The components with the answer of a trace, which cannot be edited.

    Attributes:
        trace_id: Id of the trace; empty where none is open.
    """

    box: Any
    close: Any
    head: Any
    answer: Any
    sources: Any
    trace_id: Any

    @property
    def outputs(self) -> tuple[Any, ...]:
        """The components that events update."""
        return (self.box, self.head, self.answer, self.sources, self.trace_id)

    def shown(self, trace: Trace | None) -> dict[Any, Any]:
        """Return the updates that show a trace, or nothing."""
        if trace is None:
            return {self.box: gr.Column(visible=False), self.trace_id: ""}
        from rag.answering.replay import answer_of

        answer = answer_of(trace)
        return {
            self.box: gr.Column(visible=True),
            self.head: fragment("lab_original.html.jinja", trace=trace),
            self.answer: ended_html(answer),
            self.sources: passages_html(answer, 0.0, direct=False),
            self.trace_id: trace.id,
        }


def build_original() -> OriginalParts:
    """Build the components inside the row that is open."""
    with gr.Column(
        elem_id="lab-original", elem_classes="rs-lab-column", visible=False, min_width=0, scale=1
    ) as box:
        with gr.Row(elem_classes="rs-lab-head"):
            head = html_component("lab-original-head")
            close = gr.Button("Close", size="sm", scale=0, min_width=70, elem_id="lab-original-close")
        answer = html_component("lab-original-answer")
        with gr.Accordion("Retrieved passages", open=False, elem_classes="rs-lab-fold"):
            sources = html_component("lab-original-sources")
    return OriginalParts(box, close, head, answer, sources, gr.State(""))


@dataclass(frozen=True, slots=True)
class Playground:
    """A trace that is open in the playground.

    Attributes:
        ask: Its question with history, filters and passages; ``hits`` is None if the trace does not have them.
        notes: Sentences about what cannot be had as it was.
    """

    trace: Trace
    ask: Ask
    notes: tuple[str, ...] = ()


def open_playground(stores: Stores, trace_id: str) -> Playground:
    """Open a trace.

    Raises:
        TraceNotFound: There is no such trace.
        ReplayError: Its question cannot be asked again.
    """
    from rag.answering.replay import passages_of, question_of

    trace = stores.traces.get(trace_id)
    asked = question_of(trace)
    notes = list(asked.notes)
    try:
        ask = replace(asked.ask, hits=passages_of(trace))
    except ReplayError as error:
        ask = replace(asked.ask, hits=None)
        notes.append(error.message)
    if ask.history:
        notes.append(f"Asked with {counted(len(ask.history), 'earlier turn')} of its conversation.")
    return Playground(trace, ask, tuple(notes))


def column_of_trace(stores: Stores, releases: Releases, trace: Trace) -> tuple[Column, tuple[str, ...]]:
    """Return a column that answers as the trace was, with its prompt as a draft, and what it cannot have."""
    from rag.answering.replay import settings_of
    from rag.evaluation.variants import Variant
    from ui.pages.prompts.lab_columns import column_of, draft_of

    notes: list[str] = []
    changes: dict[str, JsonValue] = {"model": trace.model} if trace.model else {}
    label, text = trace.prompt, ""
    try:
        stored = stores.releases.find(trace.release)
        label, text = stored.release.prompt, stored.draft
        changes = dict(settings_of(stored.release))
    except ReleaseError as error:
        notes.append(f"{error.message} The settings are those of today.")
    changes.pop("prompt", None)
    text = text or _draft(stores, label, notes)
    plain = column_of(Variant(name="A", changes={}))
    # A draft has no version of its own: it was begun from the newest one.
    base = label.partition("@")[0] if "@draft-" in label else label
    plain = replace(plain, prompt=base if text else "", draft=text)
    known = _values(releases, draft_of(plain))
    differing = {name: value for name, value in changes.items() if known.get(name) != value}
    column = column_of(Variant(name="A", changes=differing))
    return replace(column, prompt=plain.prompt, draft=text), tuple(notes)


def _draft(stores: Stores, label: str, notes: list[str]) -> str:
    from ui.pages.prompts.lab_drafts import begun

    try:
        return begun(stores.prompts, label)[1] if label else ""
    except PromptError as error:
        notes.append(f"Its prompt can no longer be had: {error.message}")
        return ""


def _values(releases: Releases, draft: PromptDraft | None) -> dict[str, JsonValue]:
    """Return the settings that apply to a draft if a column changes nothing, by their dotted names."""
    from rag.answering.release import Release
    from rag.answering.replay import settings_of

    resolved = releases.resolve(None, draft)
    return dict(settings_of(Release.of(resolved.settings, resolved.prompt)))


def compared_html(before: Trace, after: Trace) -> str:
    """Render which steps of an answer differ from those of the original."""
    from rag.answering.replay import changed_steps

    changed = changed_steps(before, after)
    same = "Same answer as the original" if before.answer == after.answer else "Another answer than the original"
    steps = f"steps that differ: {', '.join(changed)}" if changed else "no step differs"
    return note(f"{same}; {steps}.", "rs-lab-compared")
