"""Recipes: TOML files with everything that determines the result of a training run."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from prompts.validation import first_problem
from rag.errors import TuningError

RECIPES = Path(__file__).parent / "recipes"
# Name of the rows that are never trained on; no stage may have it.
VALIDATION = "validation"


def _plain_name(name: str) -> str:
    if not re.fullmatch("[a-z0-9-]+", name):
        raise ValueError(f"{name[:80]!r} must have only lower-case letters, digits and hyphens")
    return name


# A part of the names of folders and metrics.
Name = Annotated[str, AfterValidator(_plain_name)]


class Part(BaseModel):
    """A part of a recipe: frozen, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(Part):
    """A source of a stage's rows."""

    name: str
    """A name that the task knows, such as ``squad`` or ``prose``."""
    rows: int | None = Field(default=None, ge=1)
    """Maximum number of rows, from the beginning; all if missing."""
    repeat: int = Field(default=1, ge=1)
    """Number of times each row occurs in one epoch."""


class Stage(Part):
    """One stage of training with its own data and learning rate."""

    name: Name
    method: Literal["full", "lora"]
    """``full`` trains every matrix of the layers; ``lora`` only the adapter."""
    sources: tuple[Source, ...] = Field(min_length=1)
    learning_rate: float = Field(gt=0)
    epochs: float = Field(default=1.0, gt=0)
    batch_tokens: int = Field(default=6144, ge=64)
    """Tokens of a batch, padding included."""
    warmup: float = Field(default=0.06, ge=0, lt=1)
    """Share of the steps in which the learning rate rises linearly from 0; afterwards it falls linearly to 0."""
    weight_decay: float = Field(default=0.01, ge=0)
    average: bool = False
    """Whether the stage ends with the mean of its initial and final weights, which reduces forgetting
    (Wortsman and others, arXiv 2109.01903)."""
    validate_every: int = Field(default=200, ge=1)
    """Steps between two validations."""


class LoraPart(Part):
    """The adapter that training produces."""

    rank: int = Field(default=64, ge=1, le=384)


class Recipe(Part):
    """A training recipe of the tasks on the encoder, and what all recipes share."""

    name: Name
    task: Literal["reader", "reranker", "sft", "dpo"]
    base: str = "sentence-transformers/all-MiniLM-L6-v2"
    start: str | None = None
    """A shipped adapter, or a folder, whose weights training starts from."""
    seed: int = Field(default=1, ge=0, lt=2**32)
    precision: Literal["bf16", "f32"] = "bf16"
    """Precision of the matrix products; weights are kept in 32 bits."""
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
            raise ValueError(f"stage names must be unique, and none may be {VALIDATION}")
        methods = [stage.method for stage in stages]
        if "full" in methods[methods.index("lora") :] if "lora" in methods else False:
            raise ValueError("a full stage cannot follow one that trains the adapter")
        return stages


class CausalStage(Stage):
    """One stage of training a causal language model, of which only the adapter is ever trained."""

    method: Literal["lora"] = "lora"
    batch_tokens: int = Field(default=2048, ge=64)
    average: Literal[False] = False


class CausalLoraPart(LoraPart):
    """The LoRA adapter of a language model."""

    rank: int = Field(default=16, ge=1, le=1024)
    alpha: int = Field(default=32, ge=1)
    """The adapter's changes are scaled by ``alpha / rank``."""
    targets: tuple[str, ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), min_length=1
    )
    """Names of the linear layers that get an adapter."""
    dropout: float = Field(default=0.0, ge=0, lt=1)


class CausalRecipe(Recipe):
    """A recipe that trains the LoRA adapter of a causal language model.

    A source is a file below the data folder: ``answers`` is ``answers.jsonl``.
    """

    task: Literal["sft", "dpo"]
    base: str
    """The model: a folder or a name on the hub, as after ``local:``."""
    start: str | None = None
    """Folder of a LoRA adapter for the base, whose training is continued."""
    lora: CausalLoraPart = CausalLoraPart()
    max_tokens: int = Field(default=1024, ge=8)
    """Rows with more tokens, prompt and completion together, are left out and counted in the log."""
    validation: str | None = None
    """Source of the validation rows; if missing, at most a tenth of the rows is held out by a hash."""
    validation_rows: int = Field(default=200, ge=1)
    licences: tuple[str, ...] = ()
    """Licences of the training data, for the card."""
    stages: tuple[CausalStage, ...] = Field(min_length=1)


class SftRecipe(CausalRecipe):
    """A recipe of supervised fine-tuning; see ``finetune.data.chat_rows`` for its rows."""

    task: Literal["sft"]


class DpoRecipe(CausalRecipe):
    """A recipe of direct preference optimization; see ``finetune.data.preference_rows`` for its rows.

    ``start`` is usually the adapter in use, which is then the reference as well.
    """

    task: Literal["dpo"]
    beta: float = Field(default=0.1, gt=0)
    """Strength with which the model is held to the reference."""
    keep: float = Field(default=0.2, ge=0)
    """Weight of the loss of supervised fine-tuning on the preferred replies, which keeps them likely
    (Pang and others, arXiv 2404.19733)."""


_RECIPES: dict[str, type[Recipe]] = {"sft": SftRecipe, "dpo": DpoRecipe}


def load_recipe(reference: str) -> Recipe:
    """Read a recipe from a file or by the name of a shipped one; raises as the functions below do."""
    path = find_recipe(reference)
    return parse_recipe(read_recipe(path), str(path))


def read_recipe(path: Path) -> str:
    """Read the text of a recipe.

    Raises:
        TuningError: The file cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise TuningError(f"The recipe {path} cannot be read: {error}.") from error


def find_recipe(reference: str) -> Path:
    """Find the file of a recipe.

    Raises:
        TuningError: There is no such recipe.
    """
    # `Path.is_file` raises if a name is too long.
    candidates = (Path(reference), RECIPES / f"{reference}.toml")
    path = next((path for path in candidates if os.path.isfile(path)), None)
    if path is None:
        shipped = ", ".join(sorted(file.stem for file in RECIPES.glob("*.toml")))
        raise TuningError(f"There is no recipe {reference}.", fix=f"Give a TOML file, or one of: {shipped}.")
    return path


def parse_recipe(text: str, where: str) -> Recipe:
    """Check the text of a recipe.

    Raises:
        TuningError: The recipe is malformed; the message names the first invalid field.
    """
    try:
        values = tomllib.loads(text)
        return _RECIPES.get(str(values.get("task")), Recipe)(**values)
    except tomllib.TOMLDecodeError as error:
        raise TuningError(f"The recipe {where} must be valid TOML: {error}.") from error
    except ValidationError as error:
        problem = first_problem(error, Recipe, "setting")
        raise TuningError(f"The recipe {where} is invalid: {problem}.") from error
