"""Where prompts are found: ``FOLDER/NAME/VERSION.yaml``, first in the workspace, then in what ships."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prompts.template import PromptTemplate, PromptTemplateError

SHIPPED = Path(__file__).parent / "library"


def load_prompt(path: Path) -> PromptTemplate:
    """Read one version.

    Raises:
        PromptTemplateError: The file is missing, is no YAML, has unknown keys, or lies under another name.
    """
    import yaml
    from pydantic import ValidationError

    try:
        prompt = PromptTemplate.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PromptTemplateError(
            f"The prompt {path} is malformed{f' at {where}' if where else ''}: {first['msg']}."
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise PromptTemplateError(f"The prompt {path} cannot be read: {reason}.") from error
    if (path.parent.name, path.stem) != (prompt.name, str(prompt.version)):
        raise PromptTemplateError(
            f"The prompt {path} says that it is {prompt.label}: it belongs in {prompt.name}/{prompt.version}.yaml."
        )
    return prompt


def find_prompt(reference: str, folders: Sequence[Path] = ()) -> PromptTemplate:
    """The prompt that a reference names.

    Args:
        reference: ``NAME`` for its newest version, or ``NAME@VERSION``.
        folders: Looked at before what ships.

    Raises:
        PromptTemplateError: There is none, or it is malformed.
    """
    name, at, version = reference.partition("@")
    found = {each_version: path for each_name, each_version, path in _files(folders) if each_name == name}
    if at:
        named = {str(number): path for number, path in found.items()}
        if version not in named:
            raise PromptTemplateError(f"There is no prompt {reference}; versions of {name}: {_listed(found)}.")
        return load_prompt(named[version])
    if not found:
        names = {each_name for each_name, _, _ in _files(folders)}
        raise PromptTemplateError(f"There is no prompt {name}; there are: {_listed(names)}.")
    return load_prompt(found[max(found)])


def list_prompts(folders: Sequence[Path] = ()) -> list[PromptTemplate]:
    """Every version of every prompt, by name and version.

    Raises:
        PromptTemplateError: One of them is malformed.
    """
    paths = {(name, version): path for name, version, path in _files(folders)}
    return [load_prompt(paths[key]) for key in sorted(paths)]


def _files(folders: Sequence[Path]) -> list[tuple[str, int, Path]]:
    # What comes later in the list replaces what came before: the workspace's own files win.
    return [
        (path.parent.name, int(path.stem), path)
        for folder in (SHIPPED, *reversed(folders))
        for path in sorted(folder.glob("*/*.yaml"))
        if path.stem.isdecimal()
    ]


def _listed(names: object) -> str:
    return ", ".join(str(name) for name in sorted(names)) or "none"  # type: ignore[call-overload]
