"""Will freqtrade really ask? What the guard relies on, compared with the freqtrade that is installed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from freqtrade.exceptions import OperationalException
from freqtrade.strategy import IStrategy

from freqtrade_isolated_margin.hosts.callbacks import HANDLERS, PARAMETERS, bot_loop_start, guarded
from freqtrade_isolated_margin.hosts.strategy import GuardedStrategy

# ----- will freqtrade really ask?

_WRAPPER_CODE = guarded("", bot_loop_start, None, IStrategy.bot_loop_start).__code__

# What the handlers take from each call.
_NEEDED: dict[str, set[str]] = {
    "confirm_trade_entry": {"pair", "side", "amount", "rate"},
    "custom_stake_amount": {"pair", "side", "proposed_stake", "min_stake", "max_stake", "leverage"},
    "adjust_trade_position": {"trade", "min_stake", "max_stake"},
    "check_entry_timeout": {"trade"},
    "bot_loop_start": set(),
}


def check_guarded(strategy: GuardedStrategy) -> None:
    """Make sure that freqtrade will ask the guard, in the callbacks and with the arguments that it knows.

    :raises OperationalException: where it would not; freqtrade changes monthly, strategies any time.
    """
    for name in HANDLERS:
        found = inspect.getattr_static(type(strategy), name)
        called = getattr(getattr(strategy, name), "__func__", None)
        # By its code: `functools.wraps` would copy any mark to a decorator around it.
        if called is not found or getattr(found, "__code__", None) is not _WRAPPER_CODE:
            raise OperationalException(
                f"The isolated margin guard cannot guard {type(strategy).__name__}: {name} was replaced "
                "after the class was made. Override it as a method of the strategy instead."
            )
        missing = _NEEDED[name] - set(PARAMETERS[name])
        if missing:
            raise OperationalException(_unknown_freqtrade(name, f"without {', '.join(sorted(missing))}"))
    for name, caller in _callers().items():
        if name not in inspect.unwrap(caller).__code__.co_names:
            raise OperationalException(_unknown_freqtrade(name, f"no more in {caller.__qualname__}"))


def _callers() -> dict[str, Callable[..., Any]]:
    """Return where freqtrade calls each of the callbacks, by its source."""
    # Imported here: a backtest never gets here, and need not pay for the bot.
    from freqtrade.freqtradebot import FreqtradeBot  # noqa: PLC0415

    return {
        "confirm_trade_entry": FreqtradeBot.execute_entry,
        "custom_stake_amount": FreqtradeBot.get_valid_enter_price_and_stake,
        "adjust_trade_position": IStrategy._adjust_trade_position_internal,
        "check_entry_timeout": IStrategy.ft_check_timed_out,
        "bot_loop_start": FreqtradeBot.process,
        "ft_bot_cleanup": FreqtradeBot.cleanup,
    }


def _unknown_freqtrade(name: str, how: str) -> str:
    return (
        f"This freqtrade calls {name} {how}: the isolated margin guard does not know this version, and does "
        "not start rather than guard nothing. Use an earlier freqtrade or a later freqtrade-isolated-margin."
    )
