"""The base of the sections of the settings."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class Section(BaseModel):
    """A group of settings: frozen, and strict about unknown keys."""

    # Errors must not repeat a refused value, which may be a password.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_boolean(cls, value: Any, field: ValidationInfo) -> Any:
        # pydantic would read a number as 1 or 0.
        if isinstance(value, bool) and cls.model_fields[str(field.field_name)].annotation is not bool:
            raise ValueError("it must not be true or false")
        return value
