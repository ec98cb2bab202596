"""What a configuration must be like for a bot to trade in the margin accounts; else it is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from freqtrade_isolated_margin.binance.adapter import Restrictions
from freqtrade_isolated_margin.errors import SettingsError
from freqtrade_isolated_margin.rules.settings import SECTION, Settings

_TRADING = f"{SECTION}.trading"
# With these ccxt knows no futures market at all, so that plain freqtrade finds nothing to trade there.
_SPOT_MARKETS_ONLY = ["spot"]


def wants_trading(config: Mapping[str, Any]) -> bool:
    """Whether a configuration asks to trade in the margin accounts, however wrong it may be otherwise.

    :raises SettingsError: where the section is no object, or says neither yes nor no.
    """
    section = config.get(SECTION)
    if not isinstance(section, Mapping) or "trading" not in section:
        return False
    return Settings.load(section).trading.enabled


def check_configuration(config: Mapping[str, Any]) -> Settings:
    """Return the settings of a bot that trades in the margin accounts.

    :raises SettingsError: where the configuration does not fit, with the name and what is allowed.
    """
    settings = Settings.load(config.get(SECTION))
    exchange = config.get("exchange") or {}
    wanted = {"trading_mode": "futures", "margin_mode": "isolated"}
    for name, value in wanted.items():
        found = str(config.get(name) or "")
        if found != value:
            raise SettingsError(f'{_TRADING} needs "{name}": "{value}", not {found!r}')
    if exchange.get("name") != "binance":
        raise SettingsError(f'{_TRADING} needs the exchange "binance", not {exchange.get("name")!r}')
    for name in ("pair_whitelist", "pair_blacklist"):
        for pair in exchange.get(name) or []:
            if ":" in str(pair):
                raise SettingsError(
                    f"exchange.{name}: {pair!r} is a futures pair; {_TRADING} needs pairs such as 'BTC/USDT'"
                )
    _check_markets(exchange)
    return settings


def missing_permissions(may: Restrictions, *, moves: bool) -> list[str]:
    """Return what a key lacks to trade in the margin accounts, under Binance's names.

    `moves`: whether collateral is moved between the spot wallet and the accounts.
    """
    needed = ["enableSpotAndMarginTrading", "enableMargin", *(["permitsUniversalTransfer"] if moves else [])]
    return [name for name in needed if name not in may.beyond_reading]


def _check_markets(exchange: Mapping[str, Any]) -> None:
    """Refuse a configuration with which plain freqtrade could find Binance's futures markets."""
    for name in ("ccxt_config", "ccxt_sync_config", "ccxt_async_config"):
        markets = ((exchange.get(name) or {}).get("options") or {}).get("fetchMarkets")
        required = name == "ccxt_config"
        if (markets is None and required) or (
            markets is not None and markets != {"types": _SPOT_MARKETS_ONLY}
        ):
            raise SettingsError(
                f'exchange.{name}.options.fetchMarkets must be {{"types": ["spot"]}} with {_TRADING}: so '
                "that this configuration cannot reach Binance's futures, whatever command it is started with"
            )
