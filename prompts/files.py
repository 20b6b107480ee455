"""One version as a YAML file that a person can read, compare and commit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pydantic import ValidationError

from prompts import plain_yaml
from prompts.template import PromptTemplate, PromptTemplateError, told_of

if TYPE_CHECKING:
    import yaml

# YAML reads these as ends of lines: unless they are escaped, a text would lose which one it was.
_OTHER_LINE_ENDS = frozenset("\x85\u2028\u2029")

# What a new prompt begins with.
SKELETON = """\
# A place is written {{name}}, and each is one of the variables.
description: What it is for, and when to use it.
variables: [question]
messages:
  - role: system
    content: |
      Answer in one sentence.
  - role: user
    content: |
      {{question}}
"""


def load_prompt(path: Path) -> PromptTemplate:
    """Read one version, what it includes not yet in its place.

    Raises:
        PromptTemplateError: The file is missing, is no YAML, has unknown keys, lies under another name, or was
            changed since it was saved.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptTemplateError(f"The prompt {path} cannot be read: {str(error).splitlines()[0]}.") from error
    try:
        prompt = parse_prompt(text)
    except ValidationError as error:
        raise PromptTemplateError(f"The prompt {path} is malformed: {told_of(error)}.") from error
    except yaml.YAMLError as error:
        raise PromptTemplateError(f"The prompt {path} is no YAML: {_reason(error)}.") from error
    if (path.parent.name, path.stem) != (prompt.name, str(prompt.version)):
        raise PromptTemplateError(
            f"The prompt {path} says that it is {prompt.label}: it belongs in {prompt.name}/{prompt.version}.yaml."
        )
    if prompt.saved and prompt.saved.sha256 != prompt.sha256:
        raise PromptTemplateError(
            f"The prompt {path} was changed since it was saved, and a version never changes: undo the change, and "
            f"save a new version (`ragsmith prompts edit {prompt.name}`)."
        )
    return prompt


def parse_prompt(text: str) -> PromptTemplate:
    """A version from its YAML.

    Raises:
        yaml.YAMLError: It is none.
        ValidationError: It is no prompt.
    """
    return PromptTemplate.model_validate(plain_yaml.load(text))


def as_draft(prompt: PromptTemplate) -> str:
    """What a person edits: the YAML without name, version and who saved it."""
    return _dumped(prompt.model_dump(mode="json", exclude_defaults=True, exclude={"name", "version", "saved"}))


def parse_draft(text: str, name: str, version: int) -> PromptTemplate:
    """What ``as_draft`` wrote, changed by a person; its own name and version do not count.

    Raises:
        PromptTemplateError: It is no prompt.
    """
    import yaml

    try:
        loaded = plain_yaml.load(text)
        fields = loaded if isinstance(loaded, dict) else {}
        return PromptTemplate.model_validate(fields | {"name": name, "version": version, "saved": None})
    except ValidationError as error:
        raise PromptTemplateError(f"This is no prompt: {told_of(error)}.") from error
    except yaml.YAMLError as error:
        raise PromptTemplateError(f"This is no YAML: {_reason(error)}.") from error


def write_prompt(path: Path, prompt: PromptTemplate) -> None:
    """Write one version, whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(as_yaml(prompt).encode())


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of ``path`` when the block ends, whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    work = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with work.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        work.replace(path)
    finally:
        work.unlink(missing_ok=True)


def as_yaml(prompt: PromptTemplate) -> str:
    """What ``parse_prompt`` reads; parts that are empty are left out."""
    return _dumped(prompt.model_dump(mode="json", exclude_defaults=True))


def _reason(error: yaml.YAMLError) -> str:
    told = getattr(error, "problem", None) or str(error).splitlines()[0]
    mark = getattr(error, "problem_mark", None)
    return f"line {mark.line + 1}: {told}" if mark else told


def _dumped(told: Any) -> str:
    import yaml

    return str(yaml.dump(told, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=110))


def _dumper() -> type[yaml.SafeDumper]:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes texts of several lines as blocks."""

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        escaped = '"' if _OTHER_LINE_ENDS & set(value) else None
        style = escaped or ("|" if "\n" in value else None)
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return Dumper
