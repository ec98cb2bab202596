"""Reads a freqtrade configuration for the commands, with freqtrade's own options and loader."""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

from freqtrade_isolated_margin.errors import SettingsError
from freqtrade_isolated_margin.rules.settings import SECTION, Settings

_OPTIONS = ("config", "user_data_dir", "datadir", "verbosity", "logfile", "print_colorized")


def add_options(parser: argparse.ArgumentParser, *more: str) -> None:
    """Add freqtrade's common options, and `more` of its options, as freqtrade defines them, to `parser`."""
    from freqtrade.commands.cli_options import AVAILABLE_CLI_OPTIONS  # noqa: PLC0415 - only if needed

    for name in (*_OPTIONS, *more):
        option = AVAILABLE_CLI_OPTIONS[name]
        parser.add_argument(*option.cli, dest=name, **deepcopy(option.kwargs))


def load_config(arguments: argparse.Namespace) -> dict[str, Any]:
    """Load the configuration that freqtrade would load with these options.

    :raises SettingsError: where freqtrade refuses it.
    """
    from freqtrade.configuration import Configuration  # noqa: PLC0415 - takes a second
    from freqtrade.enums import RunMode  # noqa: PLC0415
    from freqtrade.exceptions import FreqtradeException  # noqa: PLC0415

    options = {name: getattr(arguments, name, None) for name in _OPTIONS}
    options["config"] = options["config"] or [default_config(options["user_data_dir"])]
    if not options["verbosity"]:
        logging.disable(logging.INFO)
    try:
        config: dict[str, Any] = Configuration(options, RunMode.OTHER).get_config()
    except FreqtradeException as error:
        # Its first line only: below it freqtrade quotes the file, with the keys that stand there.
        raise SettingsError(str(error).partition("\n")[0]) from None
    except OSError as error:
        raise SettingsError(f"the configuration cannot be read ({type(error).__name__})") from None
    except KeyError as error:
        raise SettingsError(f"the configuration lacks {error}") from None
    except (AttributeError, TypeError, ValueError) as error:
        raise SettingsError(f"freqtrade cannot take the configuration ({type(error).__name__})") from None
    _check_shape(config)
    return config


def _check_shape(config: dict[str, Any]) -> None:
    """Refuse what freqtrade itself would refuse later, by its schema."""
    exchange = config.get("exchange")
    if not isinstance(exchange, dict):
        raise SettingsError("exchange must be an object")
    lists = {f"exchange.{name}": exchange.get(name) for name in ("pair_whitelist", "pair_blacklist")}
    for name, value in {**lists, "pairlists": config.get("pairlists")}.items():
        if value is not None and not isinstance(value, list):
            raise SettingsError(f"{name} must be a list")
    if not all(isinstance(entry, dict) for entry in config.get("pairlists") or []):
        raise SettingsError("pairlists must be a list of objects")


def default_config(user_data_dir: str | None) -> str:
    """Return the configuration that freqtrade's commands choose without ``-c`` (`Arguments._parse_args`)."""
    inside = Path(user_data_dir or "user_data") / "config.json"
    return str(inside) if inside.is_file() else "config.json"


def load_settings(config: dict[str, Any], strategy: str | None = None) -> Settings:
    """Load the section, and with a strategy's name that strategy's attribute as well.

    :raises SettingsError: where a setting is impossible, or the strategy cannot be loaded.
    """
    attribute = getattr(load_strategy(config, strategy), SECTION, None) if strategy else None
    return Settings.load(config.get(SECTION), attribute)


def load_strategy(config: dict[str, Any], name: str) -> object:
    """Load a strategy as freqtrade would.

    :raises SettingsError: where it cannot be loaded.
    """
    from freqtrade.enums import CandleType  # noqa: PLC0415 - takes seconds, and only if asked for
    from freqtrade.exceptions import FreqtradeException  # noqa: PLC0415
    from freqtrade.resolvers import StrategyResolver  # noqa: PLC0415

    loading = deepcopy(config) | {"strategy": name}
    # What an exchange, which is not needed here, would have set (`Exchange.__init__`).
    loading.setdefault("candle_type_def", CandleType.SPOT)
    try:
        return StrategyResolver.load_strategy(loading)
    except (FreqtradeException, ImportError) as error:
        raise SettingsError(f"the strategy cannot be loaded: {error}") from None


def trades_on_margin(config: dict[str, Any]) -> bool:
    """Whether the pairs of a bot in futures mode are spot pairs: it trades in their margin accounts."""
    return Settings.load(config.get(SECTION)).trading.enabled


def has_dynamic_pairs(config: dict[str, Any]) -> bool:
    """Whether the bot's pairs come from elsewhere than the whitelist of the configuration."""
    pairlists = config.get("pairlists") or [{"method": "StaticPairList"}]
    return bool(pairlists[0].get("method") != "StaticPairList")


def listed_pairs(config: dict[str, Any]) -> list[str]:
    """Return the whitelist as it is written: the bot's own exchange may have what is no spot market."""
    return list(config["exchange"].get("pair_whitelist") or [])


def whitelist(config: dict[str, Any], markets: Iterable[str]) -> list[str]:
    """Return the configured whitelist without its blacklist, regular expressions expanded.

    `markets` are the exchange's spot pairs. A name that is no market stays: it shall be seen.

    :raises SettingsError: where an expression is none.
    """
    from freqtrade.plugins.pairlist.pairlist_helpers import expand_pairlist  # noqa: PLC0415

    exchange = config["exchange"]
    known = sorted(markets)
    if str(config.get("trading_mode", "spot")) == "futures" and not trades_on_margin(config):
        stake = config.get("stake_currency")
        known = [f"{pair}:{stake}" for pair in known if pair.endswith(f"/{stake}")]
    try:
        wanted = expand_pairlist(exchange.get("pair_whitelist") or [], known, keep_invalid=True)
        unwanted = set(expand_pairlist(exchange.get("pair_blacklist") or [], known, keep_invalid=True))
    except (ValueError, re.error) as error:
        raise SettingsError(f"exchange.pair_whitelist: {error}") from None
    return [pair for pair in dict.fromkeys(wanted) if pair not in unwanted]
