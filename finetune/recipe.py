"""A recipe: everything that decides what a training makes, as a TOML file that can be read and compared."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from rag.errors import TuningError

RECIPES = Path(__file__).parent / "recipes"
# Beside the rows of each stage there are those that are never trained on.
VALIDATION = "validation"


class Part(BaseModel):
    """A part of a recipe: frozen, and strict about names it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(Part):
    """Where rows of a stage come from."""

    name: str
    """A name that the task knows, such as ``squad`` or ``prose``."""
    rows: int | None = Field(default=None, ge=1)
    """At most so many of them, from the beginning; all where it is missing."""
    repeat: int = Field(default=1, ge=1)
    """How many times each row is seen in one epoch."""


class Stage(Part):
    """One pass of training with its own data and pace."""

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    method: Literal["full", "lora"]
    """``full`` moves every matrix of the layers; ``lora`` only the adapter."""
    sources: tuple[Source, ...] = Field(min_length=1)
    learning_rate: float = Field(gt=0)
    epochs: float = Field(default=1.0, gt=0)
    batch_tokens: int = Field(default=6144, ge=64)
    """Tokens of a batch, padding included."""
    warmup: float = Field(default=0.06, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from 0; after them it falls to 0 in a straight line."""
    weight_decay: float = Field(default=0.01, ge=0)
    average: bool = False
    """Whether the stage ends half-way between what it began with and what it came to: it then forgets less
    (Wortsman and others, arXiv 2109.01903)."""
    validate_every: int = Field(default=200, ge=1)
    """Steps between two looks at the validation rows."""


class LoraPart(Part):
    """The adapter that the training ends in."""

    rank: int = Field(default=64, ge=1, le=384)


class Recipe(Part):
    """A training."""

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    task: Literal["reader", "reranker", "generator"]
    base: str = "sentence-transformers/all-MiniLM-L6-v2"
    start: str | None = None
    """An adapter that ships, or a folder: the training goes on from its layers."""
    seed: int = 1
    precision: Literal["bf16", "f32"] = "bf16"
    """What matrix products are computed in; the weights are kept in 32 bits."""
    checkpoint_s: float = Field(default=120.0, gt=0)
    """Seconds between two checkpoints."""
    lora: LoraPart = LoraPart()
    validation_rows: int = Field(default=600, ge=1)
    stages: tuple[Stage, ...] = Field(min_length=1)

    @field_validator("stages")
    @classmethod
    def _in_order(cls, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        names = [stage.name for stage in stages]
        if len(set(names)) < len(names) or VALIDATION in names:
            raise ValueError(f"each stage wants a name of its own, and none may be {VALIDATION}")
        methods = [stage.method for stage in stages]
        if "full" in methods[methods.index("lora") :] if "lora" in methods else False:
            raise ValueError("a full stage cannot follow one that trains the adapter")
        return stages


def load_recipe(reference: str) -> Recipe:
    """Read a recipe: a file, or the name of one that ships; raises as those below do."""
    path = find_recipe(reference)
    return parse_recipe(read_recipe(path), str(path))


def read_recipe(path: Path) -> str:
    """The text of a recipe.

    Raises:
        TuningError: The file cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise TuningError(f"The recipe {path} cannot be read: {error}.") from error


def find_recipe(reference: str) -> Path:
    """The file of a recipe.

    Raises:
        TuningError: There is none.
    """
    # `Path.is_file` raises where a name is too long for a file.
    path = next((each for each in (Path(reference), RECIPES / f"{reference}.toml") if os.path.isfile(each)), None)
    if path is None:
        shipped = ", ".join(sorted(each.stem for each in RECIPES.glob("*.toml")))
        raise TuningError(f"There is no recipe {reference}.", fix=f"Give a TOML file, or one of: {shipped}.")
    return path


def parse_recipe(text: str, where: str) -> Recipe:
    """Check the text of a recipe.

    Raises:
        TuningError: It is malformed; the message names the first wrong field.
    """
    try:
        return Recipe(**tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise TuningError(f"The recipe {where} is no TOML: {error}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise TuningError(f"The recipe {where} is not usable: {name}: {first['msg']}.") from error
