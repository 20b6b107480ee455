"""What the parts of a template are made of, and the settings that a version asks for."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticSerializationError

Style = Literal["full", "sentence", "brief"]
CitationStyle = Literal["inline", "end", "none"]


class Part(BaseModel):
    """A part of a template: frozen, strict, without unknown keys, and nothing that no file takes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="after")
    def _can_be_written(self) -> Self:
        try:
            self.model_dump_json()
        except PydanticSerializationError as error:
            raise ValueError("it holds half of a character (a lone surrogate)") from error
        return self


class PromptSettings(Part):
    """How a version wants to be answered; None leaves it to the settings of the process.

    Attributes:
        temperature: 0 always takes the most probable token, 2 is the wildest.
        top_p: Tokens are drawn from the most probable ones that make up this share, above 0 and at most 1.
        top_k: Tokens are drawn from so many most probable ones.
        repetition_penalty: Above 1 what was written already becomes less probable.
        seed: The same tokens are drawn each time.
        max_tokens: After so many tokens the answer ends.
        stop: Texts before which it ends.
        json_schema: What an answer in JSON has to fit.
        style: Of the embedded reader: up to three sentences, the best one, or only the words that answer.
        citations: Where the markers stand: in the text, after it, or nowhere.
        passages: How many are retrieved.
        refuse_below: Probability or support under which the answer is that the documents do not tell, 0 to 1.
    """

    temperature: float | None = Field(default=None, ge=0, le=2, strict=False)
    top_p: float | None = Field(default=None, gt=0, le=1, strict=False)
    top_k: int | None = Field(default=None, ge=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=10, strict=False)
    seed: int | None = Field(default=None, ge=0, lt=2**31)
    max_tokens: int | None = Field(default=None, ge=1)
    stop: tuple[str, ...] | None = Field(default=None, strict=False)
    json_schema: dict[str, Any] | None = None
    style: Style | None = None
    citations: CitationStyle | None = None
    passages: int | None = Field(default=None, ge=1, le=1000)
    refuse_below: float | None = Field(default=None, ge=0, le=1, strict=False)

    @property
    def given(self) -> dict[str, Any]:
        """What is not left to the process, by name, as plain data."""
        return self.model_dump(mode="json", exclude_none=True)
