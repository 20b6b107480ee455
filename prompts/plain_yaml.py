"""Safe YAML parsing, without aliases, deep nesting or duplicate keys.

Ten lines of aliases can expand to gigabytes, and libyaml's composer recurses once per level of nesting, so that a
few kilobytes of brackets crash the process. Both are refused on the event stream, which is parsed without
recursion, before any data is built. So are duplicate keys, of which only the last would count.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import yaml

MAX_DEPTH = 64
"""Maximum nesting of lists and mappings; JSON schemas rarely exceed ten."""
_LONGEST_NAME = 40


def load(text: str, *, unique_keys: bool = True) -> Any:
    """Return the plain data of one YAML document; None for an empty one.

    Args:
        unique_keys: Whether duplicate keys are refused; otherwise the last one counts.

    Raises:
        yaml.YAMLError: It is malformed, uses an alias, is nested too deeply, has a duplicate key, or contains an
            impossible value.
    """
    import yaml

    check(text, unique_keys=unique_keys)
    try:
        return yaml.load(text, Loader=_loader())  # noqa: S506 - both loaders are safe
    # PyYAML does not translate the errors of int(), float() and date() for impossible values.
    except (ValueError, OverflowError) as error:
        raise yaml.YAMLError(f"a value cannot be read: {error}") from error


def compose(text: str) -> yaml.Node | None:
    """Return the tree of nodes with their positions in the text; None for an empty document.

    Raises:
        yaml.YAMLError: It is malformed, uses an alias, is nested too deeply, or has a duplicate key.
    """
    import yaml

    check(text)
    # The pure Python loader, because libyaml counts positions in bytes.
    root: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    return root


@dataclass(slots=True)
class _Collection:
    """An open list or mapping; ``keys`` are those of a mapping so far, with their lines."""

    is_mapping: bool
    expects_key: bool = True
    keys: dict[str, int] = field(default_factory=dict)

    def take(self, event: Any) -> None:
        """Take the next key or value; raises yaml.YAMLError if it is a key that is there already."""
        key = getattr(event, "value", None) if self.is_mapping and self.expects_key else None
        self.expects_key = not self.expects_key
        if key is None:
            return
        line = event.start_mark.line + 1
        if key in self.keys:
            raise _refused(
                f"the key `{key[:_LONGEST_NAME]}` is already on line {self.keys[key]}: remove one of the two",
                event,
            )
        self.keys[key] = line


def check(text: str, *, unique_keys: bool = True) -> None:
    """Refuse aliases, deep nesting and duplicate keys, in linear time.

    Raises:
        yaml.YAMLError: The text contains one of them, or is malformed.
    """
    import yaml

    around: list[_Collection] = []
    for event in yaml.parse(text, Loader=_loader()):
        if isinstance(event, yaml.AliasEvent):
            name = str(event.anchor)[:_LONGEST_NAME]
            raise _refused(f"the alias *{name} is not allowed: write out its value", event)
        if unique_keys and around and isinstance(event, yaml.NodeEvent):
            around[-1].take(event)
        if isinstance(event, yaml.CollectionStartEvent):
            around.append(_Collection(isinstance(event, yaml.MappingStartEvent)))
            if len(around) > MAX_DEPTH:
                raise _refused(f"lists and mappings must be nested at most {MAX_DEPTH} levels deep", event)
        elif isinstance(event, yaml.CollectionEndEvent):
            around.pop()


def _refused(problem: str, event: Any) -> yaml.YAMLError:
    from yaml.error import MarkedYAMLError

    return MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def _loader() -> Any:
    import yaml

    # libyaml's loader is ten times as fast, but not always available.
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)
