"""The draft of a prompt version: its YAML is the truth, and fields read its settings and write into it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from prompts import plain_yaml
from prompts.parts import CitationStyle, Style
from rag.errors import PromptError

Kind = Literal["number", "choice", "lines", "json"]

SHORT = 40
# The draft around it has two levels of its own.
DEEPEST = plain_yaml.MAX_DEPTH - 2
_SETTINGS = "settings"
_SPOKEN = {"\n": "\\n", "\t": "\\t", "\\": "\\\\"}
_HEARD = {spoken: meant for meant, spoken in _SPOKEN.items()}


@dataclass(frozen=True, slots=True)
class Field:
    """A setting as the editor shows it.

    Attributes:
        name: As ``prompts.parts.PromptSettings`` has it.
        hint: What may stand there; empty for a ``choice``.
        choices: Of a ``choice``.
    """

    name: str
    label: str
    kind: Kind
    hint: str
    choices: tuple[str, ...] = ()


FIELDS = (
    Field("temperature", "Temperature", "number", "0 to 2"),
    Field("top_p", "Top-p", "number", "above 0, to 1"),
    Field("top_k", "Top-k", "number", "1 or more"),
    Field("repetition_penalty", "Repetition penalty", "number", "1 is none"),
    Field("seed", "Seed", "number", "0 or more"),
    Field("max_tokens", "Max tokens", "number", "1 or more"),
    Field("style", "Style", "choice", "", get_args(Style)),
    Field("citations", "Citations", "choice", "", get_args(CitationStyle)),
    Field("passages", "Passages", "number", "1 to 1000"),
    Field("refuse_below", "Refuse below", "number", "0 to 1"),
    Field("stop", "Stop sequences", "lines", r"one a line; \n is a line end"),
    Field("json_schema", "JSON schema", "json", "an object"),
)


def settings_in(text: str) -> dict[str, Any] | None:
    """The settings that a draft asks for, whether they are right or wrong; None where it cannot be read."""
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
    """A draft with other settings; None takes one out. What else stands in it, comments too, stays as it is.

    Raises:
        PromptError: The draft is no YAML, or no prompt.
    """
    given = settings_in(text)
    if given is None:
        raise PromptError(
            "The draft cannot be read, so the field was not written into it.", fix="Correct it first."
        )
    wanted = {name: value for name, value in (given | dict(changes)).items() if value is not None}
    whole = plain_yaml.load(text)
    meant = {name: value for name, value in whole.items() if name != _SETTINGS}
    meant |= {_SETTINGS: wanted} if wanted else {}
    block = _dumped({_SETTINGS: wanted}) if wanted else ""
    written = _replaced(text, block)
    # A draft in braces is written anew rather than wrong.
    return written if _says(written, meant) else _dumped(meant)


def shown(field: Field, given: Mapping[str, Any]) -> str:
    """A setting as the text of its field; empty where it is left to the process."""
    value = given.get(field.name)
    if value is None:
        return ""
    if field.kind == "lines" and isinstance(value, list):
        return "\n".join(re.sub(r"[\n\t\\]", lambda found: _SPOKEN[found[0]], str(item)) for item in value)
    if field.kind == "json":
        return json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return str(value)


def meant(field: Field, text: str) -> Any:
    """The value that a person wrote into a field; the check of the draft says what is wrong with it.

    Raises:
        PromptError: It must be JSON, and is not.
    """
    if not text.strip():
        return None
    if field.kind == "lines":
        lines = (line for line in text.split("\n") if line)
        return [re.sub(r"\\[nt\\]", lambda found: _HEARD[found[0]], line) for line in lines]
    if field.kind == "json":
        try:
            loaded = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PromptError(f"The field {field.label} is no JSON yet: {error}.") from error
        if _too_deep(loaded):
            raise PromptError(
                f"The field {field.label} is nested too deeply.",
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
    """Whether data are nested more deeply than a draft can be; level by level, so that no depth matters."""
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
    """The text with the block of the settings replaced; behind the rest where there was none."""
    import yaml

    root = plain_yaml.compose(text)
    pairs = root.value if isinstance(root, yaml.MappingNode) else ()
    for key, value in pairs:
        if key.value == _SETTINGS:
            first, last = key.start_mark.index, value.end_mark.index
            inside = text[first:last]
            # A block ends where the next key begins: comments and empty lines before that are not its own.
            own = re.sub(r"\n(?:[ \t]*\n|#[^\n]*(?:\n|$))+$", "\n", inside)
            new = block if own.endswith("\n") else block.rstrip("\n")
            return text[:first] + new + inside[len(own) :] + text[last:]
    return text + ("" if not text or text.endswith("\n") else "\n") + block


def _says(text: str, meant: Mapping[str, Any]) -> bool:
    import yaml

    try:
        return bool(plain_yaml.load(text) == meant)
    except yaml.YAMLError:
        return False


def _dumped(draft: Mapping[str, Any]) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes the line ends of a short text, such as a stop sequence, in a line."""

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = ('"' if len(value) < SHORT else "|") if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return str(yaml.dump(dict(draft), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=110))
