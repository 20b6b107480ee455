"""Replays: the question of a trace, asked again with its release or with some of its parts swapped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rag.errors import AdapterError, ModelUnavailable, PromptError, RagsmithError, ReleaseError, ReplayError
from rag.tracing.figures import counted

if TYPE_CHECKING:
    from pydantic import JsonValue

    from prompts.draft import PromptDraft
    from rag.answering.answer_stream import AnswerStream
    from rag.answering.release import Release
    from rag.answering.release_store import StoredRelease
    from rag.evaluation.variants import Variant
    from rag.settings import Settings
    from rag.tracing.trace_store import Trace
    from rag.types import Ask, Hit
    from ui.app.releases import Releases
    from ui.app.stores import Stores

ADAPTERS = ("reader.adapter", "local.adapter")
# What identifies the parts of a release, and the settings that name them.
_PARTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "model": ("model", ("model",)),
    "adapter": ("adapter", (*ADAPTERS, "model")),
    "reranker": ("reranker", ("retrieval.reranker",)),
}


@dataclass(frozen=True, slots=True)
class Swaps:
    """What a replay changes.

    Attributes:
        changes: Settings by their dotted names, as those of a variant.
        fixed: Whether to answer from the passages of the trace instead of searching again.
    """

    changes: Mapping[str, JsonValue] = field(default_factory=dict)
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class Replay:
    """A replay that is ready to start.

    Attributes:
        draft: The prompt, if the trace was answered with an unsaved one that is not swapped.
        notes: Sentences about what cannot be had as it was.
    """

    trace: Trace
    ask: Ask
    variant: Variant
    draft: PromptDraft | None
    swaps: Swaps
    notes: tuple[str, ...]

    @property
    def is_as_it_was(self) -> bool:
        """Whether nothing differs from the trace, as far as is known."""
        return not (self.swaps.changes or self.swaps.fixed or self.notes)


class Replaying:
    """Replays traces of a workspace."""

    def __init__(self, settings: Settings, stores: Stores, releases: Releases) -> None:
        self._settings = settings
        self._stores = stores
        self._releases = releases

    def prepare(self, trace: Trace, swaps: Swaps | None = None) -> Replay:
        """Find everything that a replay needs.

        Args:
            trace: A trace with its spans.
            swaps: What to change; by default nothing.

        Raises:
            ReplayError: The trace is of another program, or a part of its release can no longer be had and is not
                swapped.
            RagsmithError: A part that is swapped in cannot be used.
        """
        from rag.answering.replay import passages_of, question_of
        from rag.evaluation.variants import Variant

        if trace.purpose == "external":
            raise ReplayError(f"The trace {trace.id} was recorded by another program, so it cannot be replayed.")
        swaps = swaps or Swaps()
        asked = question_of(trace)
        ask = replace(asked.ask, hits=passages_of(trace)) if swaps.fixed else asked.ask
        notes = list(asked.notes)
        stored = self._release(trace, notes)
        draft = None if "prompt" in swaps.changes else self._prompt(trace, stored, notes)
        changes = self._changes(trace, stored, swaps)
        if draft:
            changes.pop("prompt", None)
        variant = Variant(name="replay", changes=changes)
        if stored and ask.hits is None:
            self._check_index(trace, stored.release, notes)
        now = self._releases.pipeline(ask.corpus, variant, draft).release
        if stored:
            _compare(trace, stored.release, now, swaps, notes, follows=bool(ask.history))
        if now.decoding.temperature > 0 and now.decoding.seed is None and now.model != "extractive":
            notes.append("Its model sampled without a seed, so that equal questions get different answers.")
        return Replay(trace, ask, variant, draft, swaps, tuple(notes))

    def start(self, replay: Replay) -> AnswerStream:
        """Start to answer; requires a running loop.

        Raises:
            Busy: Too many questions are waiting.
        """
        assistant = self._releases.assistant(replay.variant, gate=self._releases.gate, draft=replay.draft)
        return assistant.start(replay.ask)

    def _release(self, trace: Trace, notes: list[str]) -> StoredRelease | None:
        try:
            stored = self._stores.releases.find(trace.release)
        except ReleaseError as error:
            notes.append(
                f"{error.message} Only its prompt and its model are known; all other settings are those of today."
            )
            return None
        if not stored.is_whole:
            notes.append(
                f"The release {stored.name} was stored by another version of ragsmith; settings that it did not "
                "know have their defaults."
            )
        return stored

    def _prompt(self, trace: Trace, stored: StoredRelease | None, notes: list[str]) -> PromptDraft | None:
        """Check that the prompt can be had; return it if it was a draft.

        Raises:
            ReplayError: It cannot.
        """
        from prompts.draft import is_draft, read_draft
        from rag.errors import prompt_errors

        label = stored.release.prompt if stored else trace.prompt
        try:
            if is_draft(label):
                text = stored.draft if stored else ""
                if not text:
                    raise PromptError("It was an unsaved draft, which was not stored")
                with prompt_errors():
                    return read_draft(text, label.partition("@")[0])
            found = self._stores.prompt(label) if label else None
        except PromptError as error:
            raise ReplayError(
                f"The prompt {label} of the trace {trace.id} can no longer be had: {error.message.rstrip('.')}.",
                fix="Restore it, or swap the prompt for another version.",
            ) from error
        if stored and found and found.sha256 != stored.release.prompt_sha256:
            notes.append(f"The prompt {label} includes another prompt, which has changed since.")
        return None

    def _changes(self, trace: Trace, stored: StoredRelease | None, swaps: Swaps) -> dict[str, JsonValue]:
        """Return the settings of the release as changes to those of this process, with the swaps."""
        from rag.answering.replay import settings_of

        if stored is None:
            known: dict[str, JsonValue] = {"prompt": trace.prompt, "model": trace.model}
            return {name: value for name, value in known.items() if value} | dict(swaps.changes)
        release = stored.release
        changes: dict[str, JsonValue] = dict(settings_of(release))
        if "prompt" in swaps.changes:
            for name in self._set_by(release.prompt, str(swaps.changes["prompt"])):
                changes.pop(name, None)
        if not {"model", *ADAPTERS} & swaps.changes.keys():
            changes |= self._adapter(trace, release)
        return changes | dict(swaps.changes)

    def _set_by(self, *references: str) -> set[str]:
        """Return the settings that these prompt versions set, which belong to them and not to the release."""
        from rag.evaluation.variants import PROMPT_SETTINGS

        found: set[str] = set()
        for reference in references:
            try:
                given = self._stores.prompt(reference).settings.given
            except PromptError:
                # The old version may be archived; a new one that is missing is reported where it is used.
                continue
            found |= {target for name in given for target in PROMPT_SETTINGS[name]}
        return found

    def _adapter(self, trace: Trace, release: Release) -> dict[str, JsonValue]:
        """Return the setting that names the adapter of a release.

        Raises:
            ReplayError: The adapter is missing, or was trained anew under the same name.
        """
        from rag.models.chat_models import EXTRACTIVE, runs_here

        if release.model == EXTRACTIVE:
            return {"reader.adapter": self._reader(trace, release.adapter)}
        if not runs_here(release.model):
            return {}
        if release.adapter:
            from rag.models.local.local_adapters import find_lora

            try:
                find_lora(release.adapter, self._stores.workspace.adapters)
            except ModelUnavailable as error:
                raise _lost_adapter(trace, release.adapter) from error
        return {"local.adapter": release.adapter}

    def _reader(self, trace: Trace, identity: str) -> str:
        from rag.encoders.adapters import CARD, SHIPPED, find_adapter

        if not identity:
            return ""
        roots = (self._stores.workspace.adapters, SHIPPED)
        stored = sorted(str(card.parent) for root in roots for card in root.glob(f"*/{CARD}"))
        # The names first: paths of this machine would make settings that are equal differ.
        for name in dict.fromkeys((self._settings.reader.adapter, identity.partition("@")[0], *stored)):
            try:
                if name and find_adapter(name, self._stores.workspace).identity == identity:
                    return name
            except AdapterError:
                continue
        raise _lost_adapter(trace, identity)

    def _check_index(self, trace: Trace, release: Release, notes: list[str]) -> None:
        """Note what has changed in the index since.

        Raises:
            ReplayError: It was built with another encoder, or other sizes of passages.
        """
        from rag.indexing.corpus_changes import changes_since

        current = self._stores.corpora.fingerprint
        if release.fingerprint != current:
            raise ReplayError(
                f"The index of the trace {trace.id} can no longer be had: it has the fingerprint "
                f"{release.fingerprint[:8]}, and that of the settings is {current[:8]}.",
                fix="Set encoder.model and chunking.tokens as they were, or answer from the stored passages.",
            )
        index = self._stores.index(release.corpus)
        changed = changes_since(self._stores.engine, index.id, trace.started, _found(trace))
        if changed.added:
            notes.append(
                f"{counted(changed.added, 'file')} of the corpus {release.corpus} "
                f"{'was' if changed.added == 1 else 'were'} added or replaced since; the search may find others."
            )
        if changed.missing:
            notes.append(
                f"{counted(changed.missing, 'passage')} that the trace found "
                f"{'is' if changed.missing == 1 else 'are'} no longer in the corpus {release.corpus}."
            )


def _found(trace: Trace) -> tuple[Hit, ...]:
    from rag.answering.replay import passages_of

    try:
        return passages_of(trace)
    except ReplayError:
        return ()


def _lost_adapter(trace: Trace, name: str) -> RagsmithError:
    return ReplayError(
        f"The adapter {name} of the trace {trace.id} can no longer be had.",
        fix="Copy it back to models/adapters, or swap the adapter for another.",
    )


def _compare(trace: Trace, then: Release, now: Release, swaps: Swaps, notes: list[str], *, follows: bool) -> None:
    """Refuse a replay with other parts than those of the trace, unless they are swapped."""
    for name, (word, settings) in _PARTS.items():
        before, after = getattr(then, name), getattr(now, name)
        if before != after and not set(settings) & swaps.changes.keys():
            raise ReplayError(
                f"The {word} {before or 'of the trace'} of the trace {trace.id} can no longer be had: "
                f"{after or 'none'} would take its place.",
                fix=f"Provide it again, or swap the {word} for another.",
            )
    if follows and then.condenser != now.condenser and "model" not in swaps.changes:
        notes.append(
            f"Follow-ups were rewritten by {then.condenser or 'added words'}, and now by "
            f"{now.condenser or 'added words'}."
        )
