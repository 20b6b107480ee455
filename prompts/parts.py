"""The base of all parts of a template, and the settings of a version."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticSerializationError

Style = Literal["full", "sentence", "brief"]
CitationStyle = Literal["inline", "end", "none"]


class Part(BaseModel):
    """A part of a template: frozen, strict, without unknown keys, and serializable as UTF-8."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="after")
    def _can_be_written(self) -> Self:
        try:
            self.model_dump_json()
        except PydanticSerializationError as error:
            raise ValueError("text must not contain lone surrogates") from error
        return self


class PromptSettings(Part):
    """Answer settings of a version; None leaves a setting to the process.

    Attributes:
        temperature: Sampling temperature, 0 (greedy) to 2.
        top_p: Probability mass that nucleus sampling draws from, above 0 and at most 1.
        top_k: Number of most probable tokens to sample from.
        repetition_penalty: Penalty on repeated tokens; above 1 makes them less probable.
        seed: Seed of the sampler, for reproducible answers.
        max_tokens: Maximum tokens of an answer.
        stop: Texts that end the answer; they are not part of it.
        json_schema: The JSON schema that the answer must match.
        style: What the extractive reader quotes: up to three sentences, the best one, or only the words that
            answer.
        citations: Position of the citation markers: in the text, after it, or nowhere.
        passages: Number of passages to retrieve.
        refuse_below: Probability or support, 0 to 1, below which the answer is "not in these documents".
        adapter: LoRA adapter of a language model in this process: a name or a folder.
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
    adapter: str | None = Field(default=None, min_length=1, max_length=1000)

    @property
    def given(self) -> dict[str, Any]:
        """The settings that this version sets, by name, as plain data."""
        return self.model_dump(mode="json", exclude_none=True)
