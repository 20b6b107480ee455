"""The values that a sweep tries: choices and ranges for fields of a recipe.

On the command line they are written ``rank=4,8,16`` and ``learning_rate=1e-5..1e-3:log``, in a TOML file
``rank = [4, 8, 16]`` and ``learning_rate = "1e-5..1e-3:log"``.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from finetune.recipe import Part, Recipe
from finetune.recipe_changes import RecipeChanges, changed_recipe
from prompts.validation import closest, unknown_name
from rag.errors import TuningError

Value: TypeAlias = int | float | str
Found = TypeVar("Found")

# The fields of ``RecipeChanges`` whose values give comparable validation losses.
FIELDS: Mapping[str, type[int] | type[float] | type[str]] = {
    "learning_rate": float,
    "epochs": float,
    "batch_tokens": int,
    "warmup": float,
    "rank": int,
    "alpha": int,
    "dropout": float,
    "seed": int,
    "base": str,
}
MOST_TRIALS = 1000
# Whole numbers beyond it have no use here, and floats cannot tell them apart.
_LARGEST = 10**9
_EXAMPLES = "Write rank=4,8,16 or learning_rate=1e-5..1e-3:log."


class Choices(Part):
    """Values of a field to choose from."""

    field: str
    values: tuple[Value, ...]

    def __str__(self) -> str:
        return f"{self.field}={','.join(map(str, self.values))}"


class Range(Part):
    """Values of a field between two bounds, both included; with ``log``, evenly by their logarithm."""

    field: str
    low: int | float
    high: int | float
    log: bool = False

    def __str__(self) -> str:
        return f"{self.field}={self.low}..{self.high}{':log' if self.log else ''}"


Dimension: TypeAlias = Choices | Range


def parse_dimension(text: str) -> Dimension:
    """Parse ``FIELD=VALUE,VALUE…``, ``FIELD=LOW..HIGH`` or ``FIELD=LOW..HIGH:log``.

    Raises:
        TuningError: The text is malformed, or no field of a recipe that can be varied has that name.
    """
    field, equals, values = text.partition("=")
    if not equals:
        raise TuningError(f"{text!r} must have the form FIELD=VALUES.", fix=_EXAMPLES)
    return _dimension(field.strip(), values)


def read_space(path: Path) -> tuple[Dimension, ...]:
    """Read the dimensions of a TOML file, whose keys are fields.

    Raises:
        TuningError: The file cannot be read, is no TOML, or has invalid entries.
    """
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TuningError(f"The search space {path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise TuningError(f"The search space {path} must be valid TOML: {error}.") from error
    return _collected([partial(_entry, field, entry) for field, entry in entries.items()])


def joined(texts: Sequence[str], path: Path | None) -> tuple[Dimension, ...]:
    """Return the search space of a command line and a file; of the same field, the command line counts.

    Raises:
        TuningError: Parts are invalid, name a field twice, or nothing varies.
    """
    given = _collected([partial(parse_dimension, text) for text in texts])
    names = [dimension.field for dimension in given]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise TuningError(f"{twice} is set twice.", fix=f"List all values of {twice} in one --set.")
    stored = read_space(path) if path is not None else ()
    space = (*given, *(dimension for dimension in stored if dimension.field not in names))
    if not any(varies(dimension) for dimension in space):
        raise TuningError("A sweep needs a field with more than one value.", fix=f"Add --set. {_EXAMPLES}")
    return space


def varies(dimension: Dimension) -> bool:
    """Return whether a dimension has more than one value."""
    return isinstance(dimension, Range) or len(dimension.values) > 1


def check_space(space: Sequence[Dimension], recipe: Recipe) -> None:
    """Check that a recipe takes every value.

    Raises:
        TuningError: It does not; the message names all such fields and values.
    """
    _collected([partial(_check_dimension, dimension, recipe) for dimension in space])


def _check_dimension(dimension: Dimension, recipe: Recipe) -> None:
    ends = (dimension.low, dimension.high) if isinstance(dimension, Range) else dimension.values
    for value in ends:
        try:
            changed_recipe(recipe, RecipeChanges.model_validate({dimension.field: value}))
        except TuningError as error:
            raise TuningError(f"{dimension.field}={value} cannot be tried. {error}") from error


def _collected(parts: Iterable[Callable[[], Found]]) -> tuple[Found, ...]:
    """Return what all calls return, or raise one TuningError with the reasons of all that fail."""
    found, problems = [], []
    for part in parts:
        try:
            found.append(part())
        except TuningError as error:
            problems.append(error)
    if problems:
        reasons = " ".join(error.message for error in problems)
        raise TuningError(reasons, fix=next((error.fix for error in problems if error.fix), "")) from problems[0]
    return tuple(found)


def grid_size(space: Sequence[Dimension]) -> int:
    """Return the number of combinations.

    Raises:
        TuningError: A dimension is a range, or there are more than ``MOST_TRIALS`` combinations.
    """
    for dimension in space:
        if isinstance(dimension, Range):
            raise TuningError(
                f"A grid needs the values of {dimension.field}, and {dimension} is a range.",
                fix="List the values, separated by commas, or choose --method random or tpe.",
            )
    size = math.prod(len(dimension.values) for dimension in space if isinstance(dimension, Choices))
    if size > MOST_TRIALS:
        raise TuningError(
            f"The grid has {size:,} combinations, and a sweep has at most {MOST_TRIALS:,} trials.",
            fix="List fewer values, or choose --method random or tpe.",
        )
    return size


def grid_values(space: Sequence[Dimension], number: int) -> dict[str, Value]:
    """Return a combination of a grid by its number, from 0; the last field changes first."""
    found: dict[str, Value] = {}
    for dimension in reversed(space):
        if isinstance(dimension, Choices):
            number, at = divmod(number, len(dimension.values))
            found[dimension.field] = dimension.values[at]
    return {dimension.field: found[dimension.field] for dimension in space}


def _entry(field: str, entry: Any) -> Dimension:
    kind = _kind(field)
    if isinstance(entry, str) and kind is not str:
        return _dimension(field, entry)
    entries = entry if isinstance(entry, list) else [entry]
    if any(isinstance(one, bool) or not isinstance(one, int | float | str) for one in entries):
        raise TuningError(f"{field} must be a value, a list of values, or a range as text.", fix=_EXAMPLES)
    return _choices(field, [str(one) for one in entries])


def _dimension(field: str, text: str) -> Dimension:
    kind = _kind(field)
    if kind is str or ".." not in text:
        return _choices(field, text.split(","))
    low_text, _, rest = text.partition("..")
    high_text, colon, scale = rest.partition(":")
    if colon and scale.strip() != "log":
        raise TuningError(f"The scale of {field} must be log, not {scale.strip()!r}.", fix=_EXAMPLES)
    low, high = _number(field, low_text), _number(field, high_text)
    if low >= high:
        raise TuningError(f"The range of {field} must begin below its end, and {low} is not below {high}.")
    if colon and low <= 0:
        raise TuningError(f"The logarithmic range of {field} must begin above 0, not at {low}.")
    return Range(field=field, low=low, high=high, log=bool(colon))


def _choices(field: str, texts: Sequence[str]) -> Choices:
    if _kind(field) is str:
        values: list[Value] = [text.strip() for text in texts]
        if "" in values:
            raise TuningError(f"A value of {field} is empty.", fix=_EXAMPLES)
    else:
        values = [_number(field, text) for text in texts]
    if not values:
        raise TuningError(f"{field} has no values.", fix=_EXAMPLES)
    if len(set(values)) < len(values):
        raise TuningError(f"A value of {field} is listed twice.")
    return Choices(field=field, values=tuple(values))


def _number(field: str, text: str) -> int | float:
    kind = _kind(field)
    try:
        value = int(text) if kind is int else float(text)
    except ValueError as error:
        what = "a whole number" if kind is int else "a number"
        raise TuningError(f"{field} must be {what}, not {text.strip()[:40]!r}.", fix=_EXAMPLES) from error
    if not abs(value) <= _LARGEST:
        raise TuningError(f"{field} must be at most {_LARGEST:,}, not {text.strip()[:40]}.")
    return value


def _kind(field: str) -> type[int] | type[float] | type[str]:
    found = FIELDS.get(field)
    if found is None:
        problem = unknown_name(field[:40], closest(field, tuple(FIELDS)))
        raise TuningError(f"The search space has an {problem}.", fix=f"A sweep can vary {', '.join(FIELDS)}.")
    return found
