"""The price list and what it makes of tokens and seconds."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from rag.errors import SettingsError
from rag.settings import CostSettings
from rag.tracing.cost import load_prices, read_usage
from rag.types import Usage

MILLION = Usage(1_000_000, 1_000_000)


def price_file(folder: Path, text: str) -> CostSettings:
    path = folder / "prices.toml"
    path.write_text(text, encoding="utf-8")
    return CostSettings(prices=path)


GOOD = """
checked = 2026-01-02
[models]
"big" = { input = 1.0, output = 2.0 }
"big-mini" = { input = 0.1, output = 0.2 }
"own" = { input = 0, output = 0 }
[machine]
usd_per_hour = 3.6
"""


def test_the_shipped_list_is_usable_and_says_when_it_was_checked() -> None:
    prices = load_prices(CostSettings())
    assert prices.checked > date(2025, 1, 1)
    assert prices.machine.usd_per_hour == 0.05
    assert prices.tokens_usd("gpt-4o-mini", Usage(1000, 500)) == pytest.approx(0.00045)


@pytest.mark.parametrize(
    ("model", "usd"),
    [
        ("big", 3.0),
        ("openai:big", 3.0),
        ("big-2024-08-06", 3.0),
        ("big-0613", 3.0),
        ("big-latest", 3.0),
        ("big-mini", 0.3),
        ("big-mini-2024-07-18", 0.3),
        ("own", 0.0),
        ("bigger", None),
        ("big-pro", None),
        ("big-mini-audio", None),
        ("", None),
        ("BIG", None),
    ],
)
def test_a_model_is_found_by_name_or_as_a_dated_snapshot(tmp_path: Path, model: str, usd: float | None) -> None:
    cost = load_prices(price_file(tmp_path, GOOD)).tokens_usd(model, MILLION)
    assert cost == (None if usd is None else pytest.approx(usd))


@pytest.mark.parametrize("usage", [Usage(), Usage(5, None), Usage(None, 5)])
def test_missing_counts_are_unknown_and_not_free(tmp_path: Path, usage: Usage) -> None:
    assert load_prices(price_file(tmp_path, GOOD)).tokens_usd("big", usage) is None


def test_input_that_was_read_before_has_its_own_price(tmp_path: Path) -> None:
    listed = GOOD.replace('"big" = { input = 1.0,', '"big" = { input = 1.0, cached_input = 0.25,')
    prices = load_prices(price_file(tmp_path, listed))
    read = Usage(1_000_000, 0, cached_tokens=400_000)
    assert prices.tokens_usd("big", read) == pytest.approx(0.6 + 0.1)
    # Without a price of its own it is like any other input.
    assert prices.tokens_usd("big-mini", read) == pytest.approx(0.1)
    counts = {"input_tokens": 1_000_000, "output_tokens": 0, "input_token_details": {"flex_cache_read": 400_000}}
    assert prices.tokens_usd("big", read_usage(counts)) == pytest.approx(0.7)
    # A server that miscounts earns nothing.
    assert prices.tokens_usd("big", Usage(100, 0, cached_tokens=200)) == pytest.approx(100 * 0.25 / 1_000_000)


def test_machine_seconds_have_a_rate_that_settings_override(tmp_path: Path) -> None:
    settings = price_file(tmp_path, GOOD)
    assert load_prices(settings).seconds_usd(10) == pytest.approx(0.01)
    assert load_prices(settings).seconds_usd(-1) == 0
    dearer = settings.model_copy(update={"machine_usd_per_hour": 36.0})
    assert load_prices(dearer).seconds_usd(10) == pytest.approx(0.1)
    free = settings.model_copy(update={"machine_usd_per_hour": 0.0})
    assert load_prices(free).seconds_usd(10) == 0


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("checked = ", "prices.toml"),
        (GOOD.replace("checked = 2026-01-02", ""), "checked"),
        (GOOD.replace("output = 2.0", "output = -2.0"), "models.big.output"),
        (GOOD.replace("output = 2.0", 'output = "dear"'), "models.big.output"),
        (GOOD.replace("output = 2.0", "output = nan"), "models.big.output"),
        (GOOD.replace("usd_per_hour = 3.6", "usd_per_day = 3.6"), "machine"),
        (GOOD + "[extra]\nx = 1\n", "extra"),
    ],
)
def test_a_bad_list_is_a_settings_error_that_names_the_place(tmp_path: Path, text: str, names: str) -> None:
    with pytest.raises(SettingsError, match=names):
        load_prices(price_file(tmp_path, text))


def test_a_list_without_a_machine_has_the_shipped_rate(tmp_path: Path) -> None:
    prices = load_prices(price_file(tmp_path, GOOD.partition("[machine]")[0]))
    assert prices.machine == load_prices(CostSettings()).machine
    assert prices.tokens_usd("big", MILLION) == pytest.approx(3.0)


def test_a_missing_or_binary_list_is_a_settings_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nowhere"):
        load_prices(CostSettings(prices=tmp_path / "nowhere.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="binary"):
        load_prices(CostSettings(prices=tmp_path / "binary.toml"))
