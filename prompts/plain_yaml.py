"""Read YAML that means no more than it says: without aliases, and only so deeply nested.

Ten lines of aliases can stand for gigabytes, and libyaml's composer calls itself for every level of nesting, so
that a few kilobytes of brackets end the process. Both are refused from the stream of events, which is read
without recursion, before anything is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import yaml

MAX_DEPTH = 64
"""Lists and mappings inside one another; a JSON schema seldom has ten."""
_LONGEST_NAME = 40


def load(text: str) -> Any:
    """Return the plain data of one YAML document; None for an empty one.

    Raises:
        yaml.YAMLError: It is malformed, uses an alias, is nested too deeply, or holds a value that cannot be.
    """
    import yaml

    check(text)
    try:
        return yaml.load(text, Loader=_loader())  # noqa: S506 - both loaders are safe
    # PyYAML lets through what int(), float() and date() say of a number or a day that cannot be.
    except (ValueError, OverflowError) as error:
        raise yaml.YAMLError(f"a value cannot be read: {error}") from error


def compose(text: str) -> yaml.Node | None:
    """Return the tree of nodes with their places in the text; None for an empty document.

    Raises:
        yaml.YAMLError: It is malformed, uses an alias, or is nested too deeply.
    """
    import yaml

    check(text)
    # PyYAML's own loader: libyaml counts places in bytes.
    root: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    return root


def check(text: str) -> None:
    """Refuse aliases and deep nesting, in time that grows with the length of the text.

    Raises:
        yaml.YAMLError: There is one of them, or the text is malformed.
    """
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=_loader()):
        if isinstance(event, yaml.AliasEvent):
            name = str(event.anchor)[:_LONGEST_NAME]
            raise _refused(f"the alias *{name} is not allowed: write out what it stands for", event)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _refused(f"lists and mappings may be nested {MAX_DEPTH} levels deep, not deeper", event)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _refused(problem: str, event: Any) -> yaml.YAMLError:
    from yaml.error import MarkedYAMLError

    return MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def _loader() -> Any:
    import yaml

    # libyaml's is ten times as fast, and not everywhere.
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)
