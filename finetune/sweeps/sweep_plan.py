"""From a recipe and what to try to a sweep, after checking everything that a training would stumble over."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

from finetune.language_model import Base
from finetune.recipe import Recipe
from finetune.recipe_changes import RecipeChanges, changed_recipe, recipe_toml
from finetune.start import start_identity
from finetune.sweeps.search_space import MOST_TRIALS, Choices, Dimension, Value, check_space, grid_size
from finetune.sweeps.sweep_folder import Method, Sweep

# Trials of a sweep that is no grid, and those at the beginning that are never pruned.
TRIALS, STARTUP = 20, 5


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """How a sweep tries its values; see ``finetune.sweeps.sweep_folder.Sweep``.

    Attributes:
        name: Name of the sweep; by default that of the recipe with ``-sweep``.
        trials: Number of trials; by default 20, and all combinations of a grid.
    """

    name: str = ""
    method: Method = "tpe"
    trials: int | None = None
    startup: int = STARTUP
    seed: int = 1
    prune: bool = True


def plan_sweep(
    recipe: Recipe, data: Path, space: tuple[Dimension, ...], options: SweepOptions, models: Path
) -> Sweep:
    """Return a sweep over a recipe.

    Args:
        recipe: The recipe that the trials change.
        data: The folder of the training data.
        space: What is tried.
        options: How.
        models: The workspace's folder of models.

    Raises:
        TuningError: The recipe does not take a value, or the grid has ranges or too many combinations.
        AdapterError, ModelUnavailable: A base, or the adapter to start from, is missing.
    """
    check_space(space, recipe)
    bases = next((one.values for one in space if isinstance(one, Choices) and one.field == "base"), (recipe.base,))
    for base in bases:
        Base.locate(str(base), models)
    start_identity(recipe)
    is_grid = options.method == "grid"
    if is_grid:
        grid_size(space)
    return Sweep(
        name=options.name or f"{recipe.name}-sweep",
        started=time.time(),
        recipe=recipe_toml(recipe),
        data=str(data.resolve()),
        method=options.method,
        space=space,
        trials=options.trials or (MOST_TRIALS if is_grid else TRIALS),
        startup=options.startup,
        seed=options.seed,
        prune=options.prune,
    )


def middle_recipe(sweep: Sweep) -> Recipe:
    """Return the recipe of a training that is neither a short nor a long one among those of a sweep."""
    changes = RecipeChanges.model_validate({one.field: _middle(one) for one in sweep.space})
    return changed_recipe(sweep.base_recipe, changes)


def _middle(dimension: Dimension) -> Value:
    if isinstance(dimension, Choices):
        return sorted(dimension.values, key=_order)[len(dimension.values) // 2]
    middle = math.sqrt(dimension.low * dimension.high) if dimension.log else (dimension.low + dimension.high) / 2
    return round(middle) if isinstance(dimension.low, int) and isinstance(dimension.high, int) else middle


def _order(value: Value) -> tuple[bool, float, str]:
    """Return what orders numbers by their size, and texts after them."""
    return (True, 0.0, value) if isinstance(value, str) else (False, float(value), "")
