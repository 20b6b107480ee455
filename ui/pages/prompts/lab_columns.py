"""The columns of the lab: how each of up to four answers is configured, and which settings apply to it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rag.errors import PromptError, RagsmithError, SettingsError, prompt_errors
from rag.evaluation.report_rendering import shortened
from rag.evaluation.variants import PROMPT_SETTINGS, SECTIONS, Variant, parse_changes
from rag.settings import MOST_PASSAGES

if TYPE_CHECKING:
    from pydantic import JsonValue

    from prompts import PromptLibrary, PromptTemplate
    from prompts.draft import PromptDraft
    from rag.evaluation.run_store import Run
    from ui.app.evaluations import Evaluations
    from ui.app.releases import Releases

LETTERS = "ABCD"
PASSAGES_LABEL = "Passages"
MORE_LABEL = "Other settings"
LONGEST_NAME = 80
UNNAMED = "draft"
"""The name of a draft that was not begun from a prompt."""
# Versions of a prompt in the list of choices; any other one can be typed.
NEWEST = 20
# The chain fills these variables of an answer prompt; a person fills those of any other prompt.
CHAIN = frozenset({"question", "passages", "evidence", "refusal"})
# Settings that every column shows, and sections that it shows whole.
_FIRST = ("prompt", "model", "retrieval.mode", "retrieval.k", "retrieval.reranker")
_WHOLE = ("decoding", "answer", "grounding")
_UNNAMEABLE = re.compile(r"[=:\s]+")

Origin = Literal["process", "version", "here"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column as a person fills it in; an empty field leaves the setting as it is.

    Attributes:
        name: Shown to a person; empty derives one from the changes.
        prompt: ``NAME``, ``NAME@VERSION`` or ``NAME@LABEL``.
        passages: Number of passages to retrieve, in digits.
        more: Other settings, ``SETTING=VALUE SETTING=VALUE``; they override the fields.
        draft: YAML of an unsaved prompt, which answers in place of ``prompt``; that names the version that it was
            begun from. No address has it.
    """

    name: str = ""
    prompt: str = ""
    model: str = ""
    passages: str = ""
    mode: str = ""
    more: str = ""
    draft: str = ""

    @property
    def changes(self) -> dict[str, JsonValue]:
        """The changed settings by their dotted names.

        Raises:
            SettingsError: ``passages`` is not a number, or ``more`` is malformed or cannot be changed.
        """
        fields: dict[str, JsonValue] = {
            "prompt": self.prompt.strip(),
            "model": self.model.strip(),
            "retrieval.k": _count(self.passages),
            "retrieval.mode": self.mode.strip(),
        }
        given = {name: value for name, value in fields.items() if value not in ("", None)}
        return given | parse_changes(self.more, MORE_LABEL)


def column_of(variant: Variant) -> Column:
    """Return the column of a variant; settings without a field of their own go to ``more``."""
    rest = dict(variant.changes)
    k = rest.get("retrieval.k")
    passages = str(rest.pop("retrieval.k")) if type(k) is int and 1 <= k <= MOST_PASSAGES else ""
    texts = {
        name: str(rest.pop(setting)) if isinstance(rest.get(setting), str) else ""
        for name, setting in (("prompt", "prompt"), ("model", "model"), ("mode", "retrieval.mode"))
    }
    name = "" if variant.name in tuple(LETTERS) else variant.name
    return Column(name=name, passages=passages, more=_written(rest), **texts)


def write_column(column: Column, letter: str) -> str:
    """Write a column as ``rag.evaluation.variants.parse_variant`` reads it.

    Raises:
        SettingsError: See ``Column.changes``.
    """
    return f"{_nameable(column.name) or letter}: {_written(column.changes)}".rstrip()


def variant_of(column: Column, letter: str = "") -> Variant:
    """Return a column as a variant, named after its changes where it has no name.

    Raises:
        SettingsError: See ``Column.changes``.
    """
    changes = column.changes
    texts = (str(value) if name in ("prompt", "model") else _short(name, value) for name, value in changes.items())
    name = _nameable(column.name) or " ".join(texts) or "default"
    return Variant(name=f"{letter} {name}".strip()[:LONGEST_NAME], changes=changes)


def variants_of(columns: Sequence[Column]) -> tuple[Variant, ...]:
    """Return columns as variants; equal names are distinguished by the letters of their columns.

    Raises:
        SettingsError: See ``Column.changes``.
    """
    variants = [variant_of(column) for column in columns]
    names = [variant.name for variant in variants]
    return tuple(
        variant if names.count(variant.name) == 1 else variant_of(column, letter)
        for variant, column, letter in zip(variants, columns, LETTERS, strict=False)
    )


def _count(text: str) -> int | None:
    if not text.strip():
        return None
    try:
        count = int(text)
    except ValueError:
        count = 0
    if not 1 <= count <= MOST_PASSAGES:
        raise SettingsError(
            f"{PASSAGES_LABEL} must be a whole number from 1 to {MOST_PASSAGES}, not {shortened(text, 20)!r}.",
            fix="Write 5.",
        )
    return count


def _nameable(name: str) -> str:
    return _UNNAMEABLE.sub(" ", name).strip()[:LONGEST_NAME].strip()


def _short(name: str, value: JsonValue) -> str:
    return f"{name.rpartition('.')[2]}={_text(value)}"


def _written(changes: Mapping[str, JsonValue]) -> str:
    return " ".join(shlex.quote(f"{name}={_text(value)}") for name, value in changes.items())


def _text(value: JsonValue) -> str:
    """Write a value as ``parse_variant`` reads it: text without quotes, unless it would be read as JSON."""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    try:
        json.loads(value)
    except ValueError:
        return value
    return json.dumps(value, ensure_ascii=False)


def prompt_choices(library: PromptLibrary) -> list[str]:
    """Return the references to choose from: every name with its labels and its newest versions."""
    from prompts import PRODUCTION, PromptTemplateError

    choices: list[str] = []
    for name in library.names():
        try:
            labels = [f"{name}@{label}" for label in library.labels(name) if label != PRODUCTION]
        except PromptTemplateError:
            # Using the prompt reports the damaged labels; its versions can be chosen all the same.
            labels = []
        newest = reversed(library.versions(name)[-NEWEST:])
        choices += [name, *labels, *(f"{name}@{version}" for version in newest)]
    return choices


@dataclass(frozen=True, slots=True)
class ResolvedSetting:
    """A setting that applies to a column.

    Attributes:
        origin: Where it is set: in the settings of the process, the prompt version, or the column.
        honoured: Whether the model supports it.
    """

    name: str
    value: str
    origin: Origin
    honoured: bool = True


@dataclass(frozen=True, slots=True)
class ResolvedColumn:
    """The variant, prompt and settings of a column; ``draft`` is the prompt before its includes were resolved."""

    variant: Variant
    prompt: PromptTemplate
    settings: tuple[ResolvedSetting, ...]
    min_support: float
    draft: PromptDraft | None = None

    @property
    def model(self) -> str:
        """The model that answers."""
        return next(setting.value for setting in self.settings if setting.name == "model")

    @property
    def free(self) -> tuple[str, ...]:
        """The variables that a person fills; empty for an answer prompt, which the chain fills."""
        return () if is_chained(self.prompt) else tuple(dict.fromkeys(self.prompt.variables))


def is_chained(prompt: PromptTemplate) -> bool:
    """Whether the chain fills the variables of a prompt."""
    given = set(prompt.variables)
    return {"question", "refusal"} < given <= CHAIN


def draft_of(column: Column) -> PromptDraft | None:
    """Return the draft of a column; None if it has none.

    Raises:
        PromptError: It is not a prompt.
    """
    from prompts.draft import read_draft

    if not column.draft.strip():
        return None
    with prompt_errors("Correct the draft."):
        return read_draft(column.draft, column.prompt.partition("@")[0].strip() or UNNAMED)


def resolve(releases: Releases, column: Column) -> ResolvedColumn:
    """Resolve the settings of a column; only its prompt is loaded.

    Raises:
        RagsmithError: The prompt is missing, or a setting cannot be used.
    """
    from rag.models.chat_models import check_model_name
    from rag.models.decoding_support import unsupported

    variant = variant_of(column)
    draft = draft_of(column)
    resolved = releases.resolve(variant, draft)
    settings, prompt = resolved.settings, resolved.prompt
    check_model_name(settings.model)
    wanted = {target for name in prompt.settings.given for target in PROMPT_SETTINGS[name]}
    ignored = unsupported(settings)

    def setting(name: str) -> ResolvedSetting:
        section, _, key = name.rpartition(".")
        value = getattr(getattr(settings, section) if section else settings, key)
        text = prompt.label if name == "prompt" else _shown(value)
        origin: Origin = "here" if name in variant.changes else "version" if name in wanted else "process"
        return ResolvedSetting(name, text, origin, name not in ignored)

    listed = [f"{section}.{key}" for section in _WHOLE for key in type(getattr(settings, section)).model_fields]
    given = [name for name in (*variant.changes, *sorted(wanted)) if name.partition(".")[0] in SECTIONS]
    names = dict.fromkeys((*_FIRST, *given, *listed))
    return ResolvedColumn(variant, prompt, tuple(map(setting, names)), settings.grounding.min_support, draft)


def _shown(value: object) -> str:
    return "–" if value in (None, "", ()) else value if isinstance(value, str) else json.dumps(value)


def source_of_passages(releases: Releases, columns: Sequence[Column]) -> tuple[int, ResolvedColumn]:
    """Return the number and the settings of the first column that searches.

    Raises:
        RagsmithError: No column searches, or none can be used.
    """
    problem: RagsmithError = SettingsError(
        "No column searches: their prompts take no passages.", fix="Choose an answer prompt."
    )
    for number, column in enumerate(columns):
        try:
            resolved = resolve(releases, column)
        except RagsmithError as error:
            problem = error
            continue
        if not resolved.free:
            return number, resolved
    raise problem


def begin_evaluation(
    releases: Releases, evaluations: Evaluations, columns: Sequence[Column], dataset: str, corpus: str
) -> Run:
    """Begin a run of the columns over a dataset, without starting its work.

    Raises:
        RagsmithError: The dataset or a part of a column is missing, or a prompt is not an answer prompt.
    """
    for letter, column in zip(LETTERS, columns, strict=False):
        resolved = resolve(releases, column)
        if resolved.draft:
            raise PromptError(
                f"Column {letter} cannot be run on a dataset: its prompt is an unsaved draft.",
                fix="Save it as a version first.",
            )
        if resolved.free:
            raise PromptError(
                f"Column {letter} cannot be run on a dataset: {resolved.prompt.label} has variables of its own.",
                fix="Choose an answer prompt, or remove the column.",
            )
    return evaluations.begin(dataset, variants_of(columns), corpus=corpus)
