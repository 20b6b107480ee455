"""Changes of a recipe that do not need a file of its own, and recipes as TOML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finetune.recipe import CausalRecipe, Recipe
from prompts.validation import first_problem
from rag.errors import TuningError


class RecipeChanges(BaseModel):
    """New values for a recipe of a causal language model; None keeps its own.

    Attributes:
        name: Name of the adapter, and beginning of the run's name.
        start: Folder of the adapter to continue from.
        rank: The adapter's ``alpha`` changes with it.
        targets: Names of the linear layers that get an adapter.
        epochs, learning_rate, batch_tokens, warmup, validate_every: For every stage.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None
    base: str | None = None
    start: str | None = None
    max_tokens: int | None = None
    seed: int | None = None
    rank: int | None = None
    alpha: int | None = None
    dropout: float | None = None
    targets: tuple[str, ...] | None = Field(default=None, min_length=1)
    epochs: float | None = None
    learning_rate: float | None = None
    batch_tokens: int | None = None
    warmup: float | None = None
    validate_every: int | None = None

    @property
    def given(self) -> dict[str, Any]:
        """The changes."""
        return self.model_dump(exclude_none=True)


_LORA = ("rank", "alpha", "dropout", "targets")
_STAGE = ("epochs", "learning_rate", "batch_tokens", "warmup", "validate_every")


def changed_recipe(recipe: Recipe, changes: RecipeChanges) -> Recipe:
    """Return a recipe with changes.

    Raises:
        TuningError: A value is out of range, or the recipe is not that of a language model.
    """
    given = changes.given
    if not given:
        return recipe
    if not isinstance(recipe, CausalRecipe):
        raise TuningError(
            f"The recipe {recipe.name} does not train a language model, so {', '.join(given)} cannot be changed.",
            fix="Copy the recipe to a file and change it there.",
        )
    if "rank" in given and "alpha" not in given:
        given["alpha"] = max(round(recipe.lora.alpha * given["rank"] / recipe.lora.rank), 1)
    values = recipe.model_dump()
    values |= {name: value for name, value in given.items() if name not in (*_LORA, *_STAGE)}
    values["lora"] |= {name: given[name] for name in _LORA if name in given}
    stage = {name: given[name] for name in _STAGE if name in given}
    values["stages"] = [one | stage for one in values["stages"]]
    try:
        return type(recipe).model_validate(values)
    except ValidationError as error:
        raise TuningError(
            f"The recipe {recipe.name} cannot be changed: {first_problem(error, type(recipe), 'setting')}."
        ) from error


def recipe_toml(recipe: Recipe) -> str:
    """Return a recipe as the text of a file that ``finetune.recipe.parse_recipe`` reads."""
    values = recipe.model_dump(exclude_none=True)
    lora, stages = values.pop("lora"), values.pop("stages")
    parts = [_assignments(values), "\n[lora]\n", _assignments(lora)]
    for stage in stages:
        parts += ["\n[[stages]]\n", _assignments(stage)]
    return "".join(parts)


def _assignments(values: Mapping[str, Any]) -> str:
    return "".join(f"{name} = {_toml(value)}\n" for name, value in values.items())


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{name} = {_toml(item)}" for name, item in value.items() if item is not None)
        return f"{{ {inner} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, str):
        # JSON's escapes are those of TOML, which also wants the last control character escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value)
