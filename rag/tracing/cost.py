"""Costs of tokens and machine time, by a price list."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from prompts.validation import first_problem
from rag.errors import SettingsError
from rag.settings import CostSettings
from rag.settings_section import Section
from rag.types import Usage

# Metadata of a model that costs machine time, even next to one that charges for tokens.
HERE = "computed_here"
SHIPPED = Path(__file__).with_name("prices.toml")

MOST_TOKENS = 1_000_000_000
"""Maximum plausible tokens of a call."""

# Suffixes of the same model: a date, a three-digit revision, "latest". Anything wider would give "gpt-5-pro" the
# price of "gpt-5", and a wrong price is worse than an unknown one.
_SNAPSHOT = re.compile(r"\d{3,8}(-\d{2}){0,2}|latest")


class TokenPrice(Section):
    """US dollars per million tokens.

    Attributes:
        cached_input: The price of input tokens that the server had read before; None for that of the others.
    """

    input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)
    cached_input: float | None = Field(default=None, ge=0, allow_inf_nan=False)

    def usd(self, read: int, written: int, cached: int) -> float:
        """Return the dollars for tokens read and written; ``cached`` are part of those read."""
        cheaper = self.input if self.cached_input is None else self.cached_input
        return ((read - cached) * self.input + cached * cheaper + written * self.output) / 1_000_000


class MachinePrice(Section):
    """US dollars per hour of this machine."""

    usd_per_hour: float = Field(ge=0, allow_inf_nan=False)


@cache
def _shipped_machine() -> MachinePrice:
    return MachinePrice.model_validate(tomllib.loads(SHIPPED.read_text(encoding="utf-8"))["machine"])


class PriceList(Section):
    """Prices, loaded by ``load_prices``.

    Attributes:
        checked: The day of the last comparison with the source of the prices.
        models: Prices of API models by name.
        machine: The price of this machine; without one, that of the shipped list.
    """

    checked: date
    models: dict[str, TokenPrice]
    machine: MachinePrice = Field(default_factory=_shipped_machine)

    def tokens_usd(self, model: str, usage: Usage) -> float | None:
        """Return the dollars charged for an API call; None if its price or a token count is unknown.

        Args:
            model: The API's name of the model, optionally with the prefix ``openai:``.
            usage: The token counts of the call.
        """
        price = self._price(model.removeprefix("openai:"))
        if price is None or usage.input_tokens is None or usage.output_tokens is None:
            return None
        cached = min(usage.cached_tokens, usage.input_tokens)
        return price.usd(usage.input_tokens, usage.output_tokens, cached)

    def seconds_usd(self, seconds: float) -> float:
        """Return the dollars for ``seconds`` of this machine."""
        return max(seconds, 0.0) * self.machine.usd_per_hour / 3600

    def _price(self, model: str) -> TokenPrice | None:
        if model in self.models:
            return self.models[model]
        for name in sorted(self.models, key=len, reverse=True):
            if model.startswith(f"{name}-") and _SNAPSHOT.fullmatch(model, len(name) + 1):
                return self.models[name]
        return None


def token_count(value: object) -> int | None:
    """Validate a reported number of tokens; None if it is not a plausible integer.

    The maximum is a thousand million: the largest windows have some millions of tokens, and sums of counts must
    fit into a column of 64 bits.
    """
    known = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS
    return value if known and isinstance(value, int) else None


def read_usage(reported: Mapping[str, Any]) -> Usage:
    """Read the token counts in the ``usage_metadata`` of a LangChain message; None for unknown ones."""
    details = reported.get("input_token_details")
    # A service tier stands before the name.
    cached = [value for name, value in details.items() if name.endswith("cache_read")] if details else []
    return Usage(
        token_count(reported.get("input_tokens")),
        token_count(reported.get("output_tokens")),
        sum(token_count(value) or 0 for value in cached),
    )


def load_prices(settings: CostSettings) -> PriceList:
    """Read the configured price list, or the shipped one.

    Raises:
        SettingsError: The file cannot be read, or contains unknown, malformed or negative entries.
    """
    path = settings.prices or SHIPPED
    try:
        prices = PriceList.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise SettingsError(
            f"The price list {path} is invalid: {first_problem(error, PriceList, 'entry')}.",
            fix="Correct that entry; rag/tracing/prices.toml is an example.",
        ) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(
            f"The price list {path} cannot be read: {error}.", fix="Set cost.prices to a TOML file."
        ) from error
    if settings.machine_usd_per_hour is None:
        return prices
    return prices.model_copy(update={"machine": MachinePrice(usd_per_hour=settings.machine_usd_per_hour)})
