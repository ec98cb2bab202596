"""What of a configuration is refused before anything trades, each by its name."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from support.margin_bot import margin_config

from freqtrade_isolated_margin.errors import SettingsError
from freqtrade_isolated_margin.rules.settings import Settings
from freqtrade_isolated_margin.trading.requirements import check_configuration, wants_trading


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Return a configuration that fits, but for one change."""
    config = deepcopy(margin_config(None, ["BTC/USDT", "ETH/.*"]))
    change(config)
    return config


def test_a_configuration_that_fits() -> None:
    """The configuration of which the others differ is taken."""
    assert check_configuration(changed(lambda _: None)).trading.enabled


def set_section(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    """Return what sets one setting of the section, `trading.` included in its name."""

    def change(config: dict[str, Any]) -> None:
        *above, last = name.split(".")
        at = config["isolated_margin"]
        for part in above:
            at = at.setdefault(part, {})
        at[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(trading_mode="spot"), '"trading_mode": "futures", not \'spot\''),
        (lambda c: c.pop("trading_mode"), '"trading_mode": "futures", not \'\''),
        (lambda c: c.update(margin_mode="cross"), '"margin_mode": "isolated", not \'cross\''),
        (lambda c: c["exchange"].update(name="kraken"), "the exchange \"binance\", not 'kraken'"),
        (
            lambda c: c["exchange"].update(pair_whitelist=["BTC/USDT:USDT"]),
            "exchange.pair_whitelist: 'BTC/USDT:USDT' is a futures pair",
        ),
        (
            lambda c: c["exchange"].update(pair_blacklist=["BTC/USDT:USDT"]),
            "exchange.pair_blacklist: 'BTC/USDT:USDT' is a futures pair",
        ),
        (lambda c: c["exchange"].pop("ccxt_config"), "exchange.ccxt_config.options.fetchMarkets must be"),
        (
            lambda c: c["exchange"].update(
                ccxt_async_config={"options": {"fetchMarkets": {"types": ["linear"]}}}
            ),
            "exchange.ccxt_async_config.options.fetchMarkets must be",
        ),
        (set_section("enabled", False), "trading.enabled needs the guard"),
        (set_section("source", "history"), 'trading.enabled needs source "exchange"'),
        (
            set_section("entry_funding", "borrowed"),
            "entry_funding must not be .borrowed. with trading.enabled",
        ),
        (
            set_section("pairs", {"BTC/USDT": {"entry_funding": "borrowed"}}),
            "entry_funding must not be .borrowed. with trading.enabled",
        ),
        (
            set_section("trading.colateral", "transfer"),
            "colateral is not a setting; did you mean 'collateral'",
        ),
        (
            set_section("trading.collateral", "spot"),
            "isolated_margin.trading.collateral: .*'transfer' or 'account'",
        ),
        (set_section("trading.enabled", 1), "isolated_margin.trading.enabled: .*boolean"),
        (
            set_section("trading.interest_rate", 0.5),
            "isolated_margin.trading.interest_rate: .*less than or equal",
        ),
        (set_section("trading.interest_rates", {"usdt": 0.001}), "'usdt', which is not a currency"),
        (set_section("trading.interest_rates", {"USDT": -1}), "interest_rates.USDT: .*greater than or equal"),
        (set_section("trading.max_leverage", 4), "isolated_margin.trading.max_leverage: .*3, 5 or 10"),
        (set_section("trading.max_leverages", {"BTC/USDT:USDT": 5}), "not a spot pair such as 'BTC/USDT'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change: Callable[[dict[str, Any]], object], said: str) -> None:
    """Each setting that is misspelt or impossible ends the start with its name and what is allowed."""
    with pytest.raises(SettingsError, match=said):
        check_configuration(changed(change))


@pytest.mark.parametrize("section", [None, {}, {"trading": {}}, {"trading": {"enabled": False}}])
def test_trading_is_off_unless_it_is_asked_for(section: object) -> None:
    """Without the setting nothing is wanted, whatever else the configuration has."""
    assert not wants_trading({"isolated_margin": section, "trading_mode": "spot"})


def test_a_strategy_cannot_ask_for_it() -> None:
    """The exchange is loaded before the strategy, so that its attribute would come too late."""
    with pytest.raises(SettingsError, match="trading belongs in the configuration"):
        Settings.load({}, {"trading": {"enabled": True}})
