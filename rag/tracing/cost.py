"""What tokens and machine seconds cost: the price list, and the arithmetic on it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from rag.errors import SettingsError
from rag.settings import CostSettings, Section
from rag.types import Usage

# A model whose metadata have it costs seconds of this machine, also beside one that charges for tokens.
HERE = "computed_here"
SHIPPED = Path(__file__).with_name("prices.toml")

MOST_TOKENS = 1_000_000_000
"""Tokens of one call that are believed."""

# What may follow the name of a model and still be that model: a date, a three-digit revision, "latest".
# Anything wider would give "gpt-5-pro" the price of "gpt-5", and a wrong price is worse than an unknown one.
_SNAPSHOT = re.compile(r"\d{3,8}(-\d{2}){0,2}|latest")


class TokenPrice(Section):
    """US dollars for a million tokens."""

    input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)


class MachinePrice(Section):
    """US dollars for an hour of this machine."""

    usd_per_hour: float = Field(ge=0, allow_inf_nan=False)


class PriceList(Section):
    """The prices that a process reckons with. Made with ``load_prices``.

    Attributes:
        checked: The day on which the prices were last compared with their source.
        models: API models by name.
    """

    checked: date
    models: dict[str, TokenPrice]
    machine: MachinePrice

    def tokens_usd(self, model: str, usage: Usage | Mapping[str, Any]) -> float | None:
        """Dollars that an API model charges; None is unknown.

        Unknown are the price of a model that is not listed, and the cost of a call that did not report
        both its token counts.

        Args:
            model: The API's name of the model, with or without ``openai:`` before it.
            usage: Token counts, or the ``usage_metadata`` of a LangChain message. There a cached call keeps
                its counts and carries ``total_cost: 0``; what such a mark says is the cost.
        """
        if isinstance(usage, Mapping):
            total = usage.get("total_cost")
            if isinstance(total, int | float):
                return float(total)
            usage = read_usage(usage)
        price = self._price(model.removeprefix("openai:"))
        if price is None or usage.input_tokens is None or usage.output_tokens is None:
            return None
        return (usage.input_tokens * price.input + usage.output_tokens * price.output) / 1_000_000

    def seconds_usd(self, seconds: float) -> float:
        """Dollars for ``seconds`` of this machine."""
        return max(seconds, 0.0) * self.machine.usd_per_hour / 3600

    def _price(self, model: str) -> TokenPrice | None:
        if model in self.models:
            return self.models[model]
        for name in sorted(self.models, key=len, reverse=True):
            if model.startswith(f"{name}-") and _SNAPSHOT.fullmatch(model, len(name) + 1):
                return self.models[name]
        return None


def token_count(value: object) -> int | None:
    """A count of tokens as somebody reports it; None where it can be none.

    No whole number, a negative one, and one above a thousand million are unknown: the largest windows hold some
    millions of tokens, and sums of counts have to fit a column of 64 bits.
    """
    known = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS
    return value if known and isinstance(value, int) else None


def read_usage(reported: Mapping[str, Any]) -> Usage:
    """The token counts in the ``usage_metadata`` of a LangChain message; None where one is missing or unknown."""
    return Usage(token_count(reported.get("input_tokens")), token_count(reported.get("output_tokens")))


def load_prices(settings: CostSettings) -> PriceList:
    """Read the price list: the one that ships, or the file that the settings name.

    Raises:
        SettingsError: The file cannot be read, or a line of it is unknown, malformed or negative.
    """
    path = settings.prices or SHIPPED
    try:
        prices = PriceList.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise SettingsError(
            f"The price list {path} is not usable: {place}: {first['msg']}.",
            fix="Correct that line; rag/tracing/prices.toml shows the form.",
        ) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(
            f"The price list {path} cannot be read: {error}.", fix="Name a TOML file in cost.prices."
        ) from error
    if settings.machine_usd_per_hour is None:
        return prices
    return prices.model_copy(update={"machine": MachinePrice(usd_per_hour=settings.machine_usd_per_hour)})
