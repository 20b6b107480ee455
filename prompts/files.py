"""Prompt versions as YAML files that can be read, compared and committed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pydantic import ValidationError

from prompts import plain_yaml
from prompts.template import PromptTemplate, PromptTemplateError
from prompts.validation import first_problem

if TYPE_CHECKING:
    import yaml

# YAML reads these as line breaks: unless they are escaped, a text does not survive a round trip.
_OTHER_LINE_ENDS = frozenset("\x85\u2028\u2029")

# The initial draft of a new prompt.
SKELETON = """\
# Write placeholders as {{name}}, and list every name under variables.
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
    """Read one version, with its includes unresolved.

    Raises:
        PromptTemplateError: The file is missing, is not YAML, has unknown keys, is at the wrong path, or has
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
        raise PromptTemplateError(
            f"The prompt {path} is malformed: {first_problem(error, PromptTemplate)}."
        ) from error
    except yaml.YAMLError as error:
        raise PromptTemplateError(f"The prompt {path} must be valid YAML: {_reason(error)}.") from error
    if (path.parent.name, path.stem) != (prompt.name, str(prompt.version)):
        raise PromptTemplateError(
            f"The prompt {path} says that it is {prompt.label}: move it to {prompt.name}/{prompt.version}.yaml."
        )
    if prompt.saved and prompt.saved.sha256 != prompt.sha256:
        raise PromptTemplateError(
            f"The prompt {path} has changed since it was saved, but versions are immutable: undo the change and "
            f"save a new version (`ragsmith prompts edit {prompt.name}`)."
        )
    return prompt


def parse_prompt(text: str) -> PromptTemplate:
    """Parse a version from YAML.

    Raises:
        yaml.YAMLError: The text is not YAML.
        ValidationError: The data is not a prompt.
    """
    return PromptTemplate.model_validate(plain_yaml.load(text))


def as_draft(prompt: PromptTemplate) -> str:
    """Return the editable YAML, without name, version and save record."""
    return _dumped(prompt.model_dump(mode="json", exclude_defaults=True, exclude={"name", "version", "saved"}))


def parse_draft(text: str, name: str, version: int) -> PromptTemplate:
    """Parse an edited draft; a name or version in the text is ignored.

    Raises:
        PromptTemplateError: The text is not a prompt.
    """
    import yaml

    try:
        loaded = plain_yaml.load(text)
        fields = loaded if isinstance(loaded, dict) else {}
        return PromptTemplate.model_validate(fields | {"name": name, "version": version, "saved": None})
    except ValidationError as error:
        raise PromptTemplateError(f"The prompt is invalid: {first_problem(error, PromptTemplate)}.") from error
    except yaml.YAMLError as error:
        raise PromptTemplateError(f"The prompt must be valid YAML: {_reason(error)}.") from error


def write_prompt(path: Path, prompt: PromptTemplate) -> None:
    """Write one version atomically; raises OSError if it cannot."""
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
    """Return a version as YAML for ``parse_prompt``, without empty parts."""
    return _dumped(prompt.model_dump(mode="json", exclude_defaults=True))


def _reason(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    mark = getattr(error, "problem_mark", None)
    return f"line {mark.line + 1}: {problem}" if mark else problem


def _dumped(data: Any) -> str:
    import yaml

    return str(yaml.dump(data, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=110))


def _dumper() -> type[yaml.SafeDumper]:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes multi-line texts as blocks."""

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        escaped = '"' if _OTHER_LINE_ENDS & set(value) else None
        style = escaped or ("|" if "\n" in value else None)
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return Dumper
