"""Does the exchange class fit the freqtrade that is installed? What it relies on, compared at start."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

from freqtrade.exceptions import OperationalException
from freqtrade.exchange import Exchange
from freqtrade.exchange.binance import Binance

# What each override takes, as freqtrade hands it over; the names of properties take nothing.
_KNOWN: dict[str, str] = {
    "additional_exchange_init": "self",
    "market_is_future": "self market",
    "get_option": "self param default",
    "get_tickers": "self symbols cached market_type",
    "check_delisting_time": "self pair",
    "validate_stop_ordertypes": "self order_types",
    "reload_markets": "self force load_leverage_tiers",
    "create_order": ("self pair ordertype side amount rate leverage time_in_force reduceOnly initial_order"),
    "create_stoploss": "self pair amount stop_price order_types side leverage",
    "_get_params": "self side ordertype leverage reduceOnly time_in_force",
    "_get_stop_params": "self side ordertype stop_price",
    "fetch_order": "self order_id pair params",
    "cancel_order": "self order_id pair params",
    "fetch_orders": "self pair since params",
    "get_trades_for_order": "self order_id pair since params",
    "fetch_positions": "self pair params",
    "get_balances": "self params",
    "close": "self",
    "load_leverage_tiers": "self",
    "get_max_leverage": "self pair stake_amount",
    "_get_max_notional_from_tiers": "self pair leverage",
    "set_margin_mode": "self pair margin_mode accept_fail params",
    "_set_leverage": "self leverage pair accept_fail",
    "combine_funding_and_mark": "funding_rates mark_rates futures_funding_rate",
    "calculate_funding_fees": "self df amount is_short open_date close_date",
    "get_funding_fees": "self pair amount is_short open_date",
    "get_liquidation_price": (
        "self pair open_rate is_short amount stake_amount leverage wallet_balance open_trades"
    ),
    "dry_run_liquidation_price": (
        "self pair open_rate is_short amount stake_amount leverage wallet_balance open_trades"
    ),
}
_PROPERTIES = {"_ccxt_config"}


def check_overrides(cls: type[Binance], *, trades: bool) -> None:
    """Make sure that freqtrade has, and calls, what `cls` overrides, with the arguments that are known.

    :raises OperationalException: where it does not; freqtrade changes monthly.
    """
    for name in _overridden(cls):
        if name in _PROPERTIES:
            known = isinstance(inspect.getattr_static(Binance, name, None), property)
        else:
            found = getattr(Binance, name, None)
            known = callable(found) and _parameters(found) == _KNOWN.get(name)
        if not known:
            raise OperationalException(_unknown(name))
    for name, callers in (_callers() | (_trading_callers() if trades else {})).items():
        if not all(_calls(caller, name) for caller in callers):
            raise OperationalException(_unknown(name))


def _overridden(cls: type[Binance]) -> list[str]:
    """Return what `cls` means to override, and what else it has by a name that freqtrade uses."""
    kinds = (property, staticmethod, FunctionType)
    ours = cls.__mro__[: cls.__mro__.index(Binance)]
    own = {
        name
        for part in ours
        for name, value in vars(part).items()
        if isinstance(value, kinds) and hasattr(Binance, name)
    }
    return sorted((own - {"__init__"}) | _KNOWN.keys() | _PROPERTIES)


def _parameters(method: Callable[..., Any]) -> str:
    return " ".join(inspect.signature(inspect.unwrap(method)).parameters)


def _calls(caller: object, name: str) -> bool:
    """Whether the code of a function or property names `name`, also in what it defines inside."""
    function = caller.fget if isinstance(caller, property) else caller
    codes = [inspect.unwrap(function).__code__]  # type: ignore[arg-type]
    while codes:
        code = codes.pop()
        if name in code.co_names or name in code.co_consts:
            return True
        codes += [inner for inner in code.co_consts if inspect.iscode(inner)]
    return False


def _callers() -> dict[str, tuple[object, ...]]:
    """Return where freqtrade calls what decides over markets, leverage and liquidation."""
    return {
        "_ccxt_config": (Exchange.__init__,),
        "additional_exchange_init": (Exchange.ft_additional_exchange_init,),
        "market_is_future": (Exchange.market_is_tradable,),
        "load_leverage_tiers": (Exchange.fill_leverage_tiers,),
        "_get_max_notional_from_tiers": (Exchange._get_stake_amount_limit,),  # noqa: SLF001 - freqtrade's own
        "validate_stop_ordertypes": (Exchange.validate_ordertypes,),
        "dry_run_liquidation_price": (Exchange.get_liquidation_price,),
        "_get_params": (Exchange.create_order,),
        "_get_stop_params": (Exchange.create_stoploss,),
        "fetch_positions": (Exchange.get_liquidation_price,),
        "set_margin_mode": (Exchange._lev_prep,),  # noqa: SLF001
        "_set_leverage": (Exchange._lev_prep,),  # noqa: SLF001
    }


def _trading_callers() -> dict[str, tuple[object, ...]]:
    """Return where a bot calls what only a bot needs."""
    # Imported here: a backtest never gets here, and need not pay for the bot.
    from freqtrade.freqtradebot import FreqtradeBot  # noqa: PLC0415

    return {
        "get_funding_fees": (FreqtradeBot.update_funding_fees,),
        "create_order": (FreqtradeBot.execute_entry, FreqtradeBot.execute_trade_exit),
        "reload_markets": (FreqtradeBot.process,),
        "close": (FreqtradeBot.cleanup,),
        "get_max_leverage": (FreqtradeBot.get_valid_enter_price_and_stake,),
    }


def _unknown(name: str) -> str:
    return (
        f"This freqtrade's {name} is not the one that the isolated margin exchange knows: it does not start "
        "rather than trade wrongly. Use an earlier freqtrade or a later freqtrade-isolated-margin."
    )
