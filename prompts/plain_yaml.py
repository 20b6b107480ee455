"""Safe YAML parsing, without aliases or deep nesting.

Ten lines of aliases can expand to gigabytes, and libyaml's composer recurses once per level of nesting, so that a
few kilobytes of brackets crash the process. Both are refused on the event stream, which is parsed without
recursion, before any data is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import yaml

MAX_DEPTH = 64
"""Maximum nesting of lists and mappings; JSON schemas rarely exceed ten."""
_LONGEST_NAME = 40


def load(text: str) -> Any:
    """Return the plain data of one YAML document; None for an empty one.

    Raises:
        yaml.YAMLError: It is malformed, uses an alias, is nested too deeply, or contains an impossible value.
    """
    import yaml

    check(text)
    try:
        return yaml.load(text, Loader=_loader())  # noqa: S506 - both loaders are safe
    # PyYAML does not translate the errors of int(), float() and date() for impossible values.
    except (ValueError, OverflowError) as error:
        raise yaml.YAMLError(f"a value cannot be read: {error}") from error


def compose(text: str) -> yaml.Node | None:
    """Return the tree of nodes with their positions in the text; None for an empty document.

    Raises:
        yaml.YAMLError: It is malformed, uses an alias, or is nested too deeply.
    """
    import yaml

    check(text)
    # The pure Python loader, because libyaml counts positions in bytes.
    root: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    return root


def check(text: str) -> None:
    """Refuse aliases and deep nesting, in linear time.

    Raises:
        yaml.YAMLError: The text contains one of them, or is malformed.
    """
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=_loader()):
        if isinstance(event, yaml.AliasEvent):
            name = str(event.anchor)[:_LONGEST_NAME]
            raise _refused(f"the alias *{name} is not allowed: write out its value", event)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _refused(f"lists and mappings must be nested at most {MAX_DEPTH} levels deep", event)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _refused(problem: str, event: Any) -> yaml.YAMLError:
    from yaml.error import MarkedYAMLError

    return MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def _loader() -> Any:
    import yaml

    # libyaml's loader is ten times as fast, but not always available.
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)
