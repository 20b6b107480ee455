"""The steps that prepare training data, in order, and what each of them did."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from finetune.prepared.text_rendering import SEPARATOR, Form, Rendering
from rag.settings import SMOLLM2

StepName = Literal[
    "trim",
    "redact",
    "drop-empty",
    "drop-placeholders",
    "drop-duplicates",
    "drop-near-duplicates",
    "chat",
    "separator",
    "end",
    "space",
    "mask",
    "drop-long",
]
STEPS: tuple[StepName, ...] = get_args(StepName)
DESCRIPTIONS: dict[StepName, str] = {
    "trim": "Remove white space around prompts and completions",
    "redact": "Mask personal data and secrets, such as e-mail addresses and keys",
    "drop-empty": "Drop rows without a prompt or a completion",
    "drop-placeholders": "Drop completions that only hold a place, such as “Coming soon”",
    "drop-duplicates": "Drop repetitions of a row",
    "drop-near-duplicates": "Drop rows that are nearly the same as an earlier one",
    "chat": "Render with the chat template of the base",
    "separator": "End every prompt with a separator",
    "end": "End every completion with an end text",
    "space": "Begin every completion with a space",
    "mask": "Learn only the completions, not the prompts",
    "drop-long": "Drop rows with more tokens than the model is trained on",
}
_CLEANING: tuple[StepName, ...] = ("trim", "drop-empty", "drop-placeholders", "drop-duplicates")
CHAT_STEPS: tuple[StepName, ...] = (*_CLEANING, "chat", "mask", "drop-long")
PLAIN_STEPS: tuple[StepName, ...] = (*_CLEANING, "separator", "space", "mask", "drop-long")
_PLAIN_ONLY = ("separator", "end", "space")


class Plan(BaseModel):
    """Everything that determines a data version, apart from the file.

    Attributes:
        steps: The steps, in order. Those that render apply from the first one on, whatever drops rows.
        base: The model whose tokens are counted; empty to count none.
        max_tokens: Maximum tokens of a row, prompt and completion together.
        system: A message of the system for every conversation that has none.
        validation: Share of the rows that are never trained on.
        seed: Decides which.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: tuple[StepName, ...] = CHAT_STEPS
    base: str = SMOLLM2
    max_tokens: int = Field(default=1024, ge=8)
    system: str = ""
    separator: str = SEPARATOR
    end: str = ""
    validation: float = Field(default=0.1, ge=0, lt=1)
    seed: int = 1

    @model_validator(mode="after")
    def _fits(self) -> Plan:
        if len(set(self.steps)) < len(self.steps):
            raise ValueError("each step may occur once")
        plain = [name for name in _PLAIN_ONLY if name in self.steps]
        if "chat" in self.steps and plain:
            raise ValueError(f"the step chat cannot be combined with {' or '.join(plain)}")
        if "end" in self.steps and not self.end:
            raise ValueError("the step end needs a text")
        return self

    @property
    def form(self) -> Form:
        """The form of the rendering: ``plain`` if a step of it is named."""
        return "plain" if any(name in self.steps for name in _PLAIN_ONLY) else "chat"

    @property
    def rendering(self) -> Rendering:
        """The rendering that the steps result in."""
        return Rendering(
            form=self.form,
            system=self.system,
            separator=self.separator if "separator" in self.steps else "",
            end=self.end if "end" in self.steps else "",
            space="space" in self.steps,
            mask="mask" in self.steps,
        )


class StepReport(BaseModel):
    """What a step did.

    Attributes:
        touched: Rows that it changed or dropped.
        left: Rows after it.
        drops: Whether it drops rows.
        row: The row of the example, by its number in the file; 0 without one.
        before, after: A row before and after it; ``after`` is the reason for a row that was dropped.
        dropped: The rows that it dropped, by their numbers in the file.
    """

    model_config = ConfigDict(frozen=True)

    name: StepName
    touched: int = 0
    left: int = 0
    drops: bool = False
    row: int = 0
    before: str = ""
    after: str = ""
    dropped: tuple[int, ...] = ()
