"""The settings in the YAML of a draft, as the fields of the editor read and write them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from prompts import plain_yaml
from prompts.parts import CitationStyle, Style
from rag.errors import PromptError

Kind = Literal["number", "choice", "text", "lines", "json"]

SHORT = 40
# The draft around a setting has two levels of its own.
DEEPEST = plain_yaml.MAX_DEPTH - 2
_SETTINGS = "settings"
_ESCAPES = {"\n": "\\n", "\t": "\\t", "\\": "\\\\"}
_UNESCAPED = {escape: character for character, escape in _ESCAPES.items()}


@dataclass(frozen=True, slots=True)
class Field:
    """A setting as the editor shows it.

    Attributes:
        name: Name in ``prompts.parts.PromptSettings``.
        hint: Values that are allowed; empty for a ``choice``.
        choices: Values of a ``choice``.
    """

    name: str
    label: str
    kind: Kind
    hint: str
    choices: tuple[str, ...] = ()


FIELDS = (
    Field("temperature", "Temperature", "number", "0 to 2"),
    Field("top_p", "Top-p", "number", "up to 1"),
    Field("top_k", "Top-k", "number", "1 or more"),
    Field("repetition_penalty", "Repetition penalty", "number", "1 is none"),
    Field("seed", "Seed", "number", "0 or more"),
    Field("max_tokens", "Max tokens", "number", "1 or more"),
    Field("style", "Style", "choice", "", get_args(Style)),
    Field("citations", "Citations", "choice", "", get_args(CitationStyle)),
    Field("passages", "Passages", "number", "1 to 1000"),
    Field("refuse_below", "Refuse below", "number", "0 to 1"),
    Field("adapter", "Adapter", "text", "a name"),
    Field("stop", "Stop sequences", "lines", r"one per line; \n is a line end"),
    Field("json_schema", "JSON schema", "json", "an object"),
)


def settings_in(text: str) -> dict[str, Any] | None:
    """Return the settings in a draft, valid or not; None where the draft cannot be read."""
    import yaml

    try:
        draft = plain_yaml.load(text)
    except yaml.YAMLError:
        return None
    if not isinstance(draft, dict):
        return None
    given = draft.get(_SETTINGS, {})
    if given is None:
        return {}
    return given if isinstance(given, dict) else None


def with_settings(text: str, changes: Mapping[str, Any]) -> str:
    """Return a draft with changed settings, and with everything else, comments included, as it was.

    Args:
        changes: New values by name; None removes a setting.

    Raises:
        PromptError: The draft cannot be read.
    """
    given = settings_in(text)
    if given is None:
        raise PromptError(
            "The draft must be readable before a field can change it.", fix="Correct the draft first."
        )
    wanted = {name: value for name, value in (given | dict(changes)).items() if value is not None}
    whole = plain_yaml.load(text)
    expected = {name: value for name, value in whole.items() if name != _SETTINGS}
    expected |= {_SETTINGS: wanted} if wanted else {}
    block = _dumped({_SETTINGS: wanted}) if wanted else ""
    written = _replaced(text, block)
    # In a draft with braces the replaced text would be wrong, so the draft is written anew.
    return written if _says(written, expected) else _dumped(expected)


def field_text(field: Field, given: Mapping[str, Any]) -> str:
    """Return the text of a field for its setting; empty where the draft does not set it."""
    value = given.get(field.name)
    if value is None:
        return ""
    if field.kind == "lines" and isinstance(value, list):
        return "\n".join(re.sub(r"[\n\t\\]", lambda found: _ESCAPES[found[0]], str(item)) for item in value)
    if field.kind == "json":
        return json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return str(value)


def field_value(field: Field, text: str) -> Any:
    """Return the setting for the text of a field; the check of the draft reports a wrong value.

    Raises:
        PromptError: The field must be JSON, and is not.
    """
    if not text.strip():
        return None
    if field.kind == "lines":
        lines = (line for line in text.split("\n") if line)
        return [re.sub(r"\\[nt\\]", lambda found: _UNESCAPED[found[0]], line) for line in lines]
    if field.kind == "json":
        try:
            loaded = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PromptError(f"The field {field.label} must be JSON: {error}.") from error
        if _too_deep(loaded):
            raise PromptError(
                f"The field {field.label} must not be nested so deeply.",
                fix=f"Nest lists and objects at most {DEEPEST} levels deep.",
            )
        return loaded
    if field.kind == "number":
        for number in (int, float):
            try:
                return number(text)
            except ValueError:
                continue
    return text.strip()


def _too_deep(data: Any) -> bool:
    """Whether data are nested more deeply than a draft may be; without recursion, for any depth."""
    level = [data]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return any(isinstance(item, dict | list) for item in level)


def _replaced(text: str, block: str) -> str:
    """Return the text with the block of the settings replaced, or appended where there was none."""
    import yaml

    root = plain_yaml.compose(text)
    pairs = root.value if isinstance(root, yaml.MappingNode) else ()
    for key, value in pairs:
        if key.value == _SETTINGS:
            first, last = key.start_mark.index, value.end_mark.index
            inside = text[first:last]
            # YAML counts the comments and empty lines before the next key as part of the block; they are kept.
            own = re.sub(r"\n(?:[ \t]*\n|#[^\n]*(?:\n|$))+$", "\n", inside)
            new = block if own.endswith("\n") else block.rstrip("\n")
            return text[:first] + new + inside[len(own) :] + text[last:]
    return text + ("" if not text or text.endswith("\n") else "\n") + block


def _says(text: str, expected: Mapping[str, Any]) -> bool:
    import yaml

    try:
        return bool(plain_yaml.load(text) == expected)
    except yaml.YAMLError:
        return False


def _dumped(draft: Mapping[str, Any]) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes a short text with line ends, such as a stop sequence, on one line."""

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = ('"' if len(value) < SHORT else "|") if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return str(yaml.dump(dict(draft), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=110))
