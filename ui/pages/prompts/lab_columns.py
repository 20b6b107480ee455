"""The lab: one question, answered side by side in up to four ways. What each way is, and what holds for it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rag.errors import PromptError, RagsmithError, SettingsError
from rag.evaluation.variants import PROMPT_SETTINGS, SECTIONS, Variant, parse_variant

if TYPE_CHECKING:
    from pydantic import JsonValue

    from prompts import PromptLibrary, PromptTemplate
    from rag.evaluation.run_store import Run
    from ui.app.evaluations import Evaluations
    from ui.app.releases import Releases

LETTERS = "ABCD"
LONGEST_NAME = 80
# Of a prompt, in a list to choose from; any other one can be typed.
NEWEST = 20
# What the chain gives to a prompt that answers: of any other one a person gives the values.
CHAIN = frozenset({"question", "passages", "refusal"})
# Shown of every column; the sections that `rag.evaluation.variants` can change.
_FIRST = ("prompt", "model", "retrieval.mode", "retrieval.k", "retrieval.reranker")
_WHOLE = ("decoding", "answer", "grounding")
_UNNAMEABLE = re.compile(r"[=:\s]+")

Origin = Literal["process", "version", "here"]


@dataclass(frozen=True, slots=True)
class Column:
    """One way to answer, as a person fills it in; what is empty is as the settings say.

    Attributes:
        name: For a person; empty takes one from the rest.
        prompt: ``NAME``, ``NAME@VERSION`` or ``NAME@LABEL``.
        passages: How many are retrieved, in digits.
        more: Other settings, ``SETTING=VALUE SETTING=VALUE``; they win over the fields.
    """

    name: str = ""
    prompt: str = ""
    model: str = ""
    passages: str = ""
    mode: str = ""
    more: str = ""

    @property
    def changes(self) -> dict[str, JsonValue]:
        """Settings by their dotted names.

        Raises:
            SettingsError: ``passages`` is no number; ``more`` is malformed, or names what a variant cannot change.
        """
        fields: dict[str, JsonValue] = {
            "prompt": self.prompt.strip(),
            "model": self.model.strip(),
            "retrieval.k": _count(self.passages),
            "retrieval.mode": self.mode.strip(),
        }
        given = {name: value for name, value in fields.items() if value not in ("", None)}
        return given | parse_variant(f"more: {self.more}").changes


def column_of(variant: Variant) -> Column:
    """The column that a variant fills in; what has no field of its own goes to ``more``."""
    rest = dict(variant.changes)
    passages = str(rest.pop("retrieval.k")) if type(rest.get("retrieval.k")) is int else ""
    texts = {
        name: str(rest.pop(setting)) if isinstance(rest.get(setting), str) else ""
        for name, setting in (("prompt", "prompt"), ("model", "model"), ("mode", "retrieval.mode"))
    }
    name = "" if variant.name in tuple(LETTERS) else variant.name
    return Column(name=name, passages=passages, more=_written(rest), **texts)


def write_column(column: Column, letter: str) -> str:
    """A column as ``rag.evaluation.variants.parse_variant`` reads it.

    Raises:
        SettingsError: As ``Column.changes``.
    """
    return f"{_nameable(column.name) or letter}: {_written(column.changes)}".rstrip()


def variant_of(column: Column, letter: str = "") -> Variant:
    """A column as a variant, named after what it changes where it has no name.

    Raises:
        SettingsError: As ``Column.changes``.
    """
    changes = column.changes
    told = (str(value) if name in ("prompt", "model") else _short(name, value) for name, value in changes.items())
    name = _nameable(column.name) or " ".join(told) or "as set"
    return Variant(name=f"{letter} {name}".strip()[:LONGEST_NAME], changes=changes)


def variants_of(columns: Sequence[Column]) -> tuple[Variant, ...]:
    """Columns as variants; those that would be called the same have their letters before their names.

    Raises:
        SettingsError: As ``Column.changes``.
    """
    plain = [variant_of(column) for column in columns]
    names = [each.name for each in plain]
    return tuple(
        each if names.count(each.name) == 1 else variant_of(column, letter)
        for each, column, letter in zip(plain, columns, LETTERS, strict=False)
    )


def _count(text: str) -> int | None:
    try:
        return int(text) if text.strip() else None
    except ValueError as error:
        raise SettingsError(f"{text!r} is no number of passages.", fix="Write it in digits, such as 5.") from error


def _nameable(name: str) -> str:
    return _UNNAMEABLE.sub(" ", name).strip()[:LONGEST_NAME].strip()


def _short(name: str, value: JsonValue) -> str:
    return f"{name.rpartition('.')[2]}={_text(value)}"


def _written(changes: Mapping[str, JsonValue]) -> str:
    return " ".join(shlex.quote(f"{name}={_text(value)}") for name, value in changes.items())


def _text(value: JsonValue) -> str:
    """A value as ``parse_variant`` reads it: a text as it is, unless it would be read as JSON."""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    try:
        json.loads(value)
    except ValueError:
        return value
    return json.dumps(value, ensure_ascii=False)


def prompt_choices(library: PromptLibrary) -> list[str]:
    """References to choose from: each name, its labels, and its newest versions."""
    from prompts import PRODUCTION, PromptTemplateError

    choices: list[str] = []
    for name in library.names():
        try:
            labels = [f"{name}@{label}" for label in library.labels(name) if label != PRODUCTION]
        except PromptTemplateError:
            # Damaged labels are told where the prompt is asked for; its versions can be chosen all the same.
            labels = []
        newest = reversed(library.versions(name)[-NEWEST:])
        choices += [name, *labels, *(f"{name}@{version}" for version in newest)]
    return choices


@dataclass(frozen=True, slots=True)
class Held:
    """A setting as it holds for a column.

    Attributes:
        origin: Where it comes from: the settings of the process, the prompt version, or the column.
        honoured: Whether the model does what it says.
    """

    name: str
    value: str
    origin: Origin
    honoured: bool = True


@dataclass(frozen=True, slots=True)
class Resolved:
    """What holds for a column; ``prompt`` has its version, ``free`` are the variables that a person fills."""

    variant: Variant
    prompt: PromptTemplate
    settings: tuple[Held, ...]
    min_support: float

    @property
    def free(self) -> tuple[str, ...]:
        """The variables that a person gives the values of; none where the chain does."""
        return () if is_chained(self.prompt) else tuple(dict.fromkeys(self.prompt.variables))


def is_chained(prompt: PromptTemplate) -> bool:
    """Whether the chain answers with a prompt, rather than a person filling its variables."""
    return set(prompt.variables) == CHAIN


def resolve(releases: Releases, column: Column) -> Resolved:
    """What holds for a column; nothing is loaded but its prompt.

    Raises:
        RagsmithError: Its prompt is missing, or a setting is not usable.
    """
    from rag.models.chat_models import check_model_name
    from rag.models.decoding_support import unsupported

    variant = variant_of(column)
    resolved = releases.resolve(variant)
    settings, prompt = resolved.settings, resolved.prompt
    check_model_name(settings.model)
    wanted = {target for name in prompt.settings.given for target in PROMPT_SETTINGS[name]}
    passed_over = unsupported(settings)

    def held(name: str) -> Held:
        section, _, key = name.rpartition(".")
        value = getattr(getattr(settings, section) if section else settings, key)
        told = prompt.label if name == "prompt" else _shown(value)
        origin: Origin = "here" if name in variant.changes else "version" if name in wanted else "process"
        return Held(name, told, origin, name not in passed_over)

    listed = [f"{section}.{key}" for section in _WHOLE for key in type(getattr(settings, section)).model_fields]
    given = [name for name in (*variant.changes, *sorted(wanted)) if name.partition(".")[0] in SECTIONS]
    names = dict.fromkeys((*_FIRST, *given, *listed))
    return Resolved(variant, prompt, tuple(held(name) for name in names), settings.grounding.min_support)


def _shown(value: object) -> str:
    return "–" if value in (None, "", ()) else value if isinstance(value, str) else json.dumps(value)


def source_of_passages(releases: Releases, columns: Sequence[Column]) -> tuple[int, Resolved]:
    """The first column that searches, and what holds for it.

    Raises:
        RagsmithError: None does, or none is usable.
    """
    problem: RagsmithError = SettingsError(
        "No column searches: their prompts take no passages.", fix="Choose an answer prompt."
    )
    for number, column in enumerate(columns):
        try:
            held = resolve(releases, column)
        except RagsmithError as error:
            problem = error
            continue
        if not held.free:
            return number, held
    raise problem


def begin_evaluation(
    releases: Releases, evaluations: Evaluations, columns: Sequence[Column], dataset: str, corpus: str
) -> Run:
    """Begin a run of the columns over a dataset; it is not at work yet.

    Raises:
        RagsmithError: The dataset or a part of a column is missing, or a prompt answers no questions.
    """
    for letter, column in zip(LETTERS, columns, strict=False):
        held = resolve(releases, column)
        if held.free:
            raise PromptError(
                f"Column {letter} cannot be run on a dataset: {held.prompt.label} has variables of its own.",
                fix="Choose an answer prompt, or remove the column.",
            )
    return evaluations.begin(dataset, variants_of(columns), corpus=corpus)
