"""Will freqtrade really ask? What the guard relies on, compared with the freqtrade that is installed."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import freqtrade
from freqtrade.exceptions import OperationalException
from freqtrade.strategy import IStrategy

from freqtrade_isolated_margin.hosts.callbacks import HANDLERS, PARAMETERS, bot_loop_start, guarded, guards
from freqtrade_isolated_margin.hosts.strategy import GuardedStrategy

_WRAPPER_CODE = guarded("", bot_loop_start, None, IStrategy.bot_loop_start).__code__

# What the handlers take from each call.
_NEEDED: dict[str, set[str]] = {
    "confirm_trade_entry": {"pair", "side", "amount", "rate"},
    "custom_stake_amount": {"pair", "side", "proposed_stake", "min_stake", "max_stake", "leverage"},
    "adjust_trade_position": {"trade", "min_stake", "max_stake"},
    "check_entry_timeout": {"trade"},
    "adjust_order_price": {"trade", "order", "current_order_rate", "is_entry"},
    "adjust_entry_price": {"trade", "order", "current_order_rate"},
    "bot_loop_start": set(),
}

WAYS_TO_AN_ORDER: dict[str, dict[str, str]] = {
    "create_order": {
        "freqtradebot.FreqtradeBot.execute_entry": "below",
        "freqtradebot.FreqtradeBot.execute_trade_exit": "an exit",
        "exchange.exchange.Exchange.create_order": "ccxt's method of the same name",
        "exchange.exchange.Exchange.create_stoploss": "an exit, ccxt's method of the same name",
        "exchange.kucoin.Kucoin.create_order": "the method of the parent",
    },
    "execute_entry": {
        "freqtradebot.FreqtradeBot.create_trade": "custom_stake_amount, confirm_trade_entry and a lock",
        "freqtradebot.FreqtradeBot.check_and_call_adjust_trade_position": "adjust_trade_position",
        "freqtradebot.FreqtradeBot.handle_replace_order": "below",
        "rpc.rpc.RPC._rpc_force_entry": (
            "custom_stake_amount and confirm_trade_entry; on an open position freqtrade asks nothing"
        ),
    },
    "handle_replace_order": {
        "freqtradebot.FreqtradeBot.replace_order": (
            "check_entry_timeout before it, then adjust_order_price or adjust_entry_price"
        ),
    },
}
"""All ways to an entry order in freqtrade: who calls what leads to one, and what guards it there."""


def check_guarded(strategy: GuardedStrategy) -> None:
    """Make sure that freqtrade will ask the guard, in the callbacks and with the arguments that it knows.

    :raises OperationalException: where it would not; freqtrade changes monthly, strategies any time.
    """
    for name in HANDLERS:
        found = inspect.getattr_static(type(strategy), name)
        called = getattr(getattr(strategy, name), "__func__", None)
        # By its code: `functools.wraps` would copy any mark to a decorator around it.
        wrapped = getattr(found, "__code__", None) is _WRAPPER_CODE or not guards(type(strategy), name)
        if called is not found or not wrapped:
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
    for name, known in WAYS_TO_AN_ORDER.items():
        unknown = sorted(callers_in_freqtrade()[name] - known.keys())
        if unknown:
            raise OperationalException(_unknown_freqtrade(name, f"in {', '.join(unknown)}"))


def _callers() -> dict[str, Callable[..., Any]]:
    """Return where freqtrade calls each of the callbacks, by its source."""
    # Imported here: a backtest never gets here, and need not pay for the bot.
    from freqtrade.freqtradebot import FreqtradeBot  # noqa: PLC0415

    return {
        "confirm_trade_entry": FreqtradeBot.execute_entry,
        "custom_stake_amount": FreqtradeBot.get_valid_enter_price_and_stake,
        "adjust_trade_position": IStrategy._adjust_trade_position_internal,
        "check_entry_timeout": IStrategy.ft_check_timed_out,
        "adjust_order_price": FreqtradeBot.replace_order,
        "adjust_entry_price": IStrategy.adjust_order_price,
        "bot_loop_start": FreqtradeBot.process,
        "ft_bot_cleanup": FreqtradeBot.cleanup,
    }


@cache
def callers_in_freqtrade() -> dict[str, set[str]]:
    """Return which functions of the installed freqtrade call each of `WAYS_TO_AN_ORDER`, by its source."""
    found: dict[str, set[str]] = {name: set() for name in WAYS_TO_AN_ORDER}
    root = Path(freqtrade.__file__).parent
    for file in root.rglob("*.py"):
        source = file.read_text(encoding="utf-8")
        if any(f".{name}" in source for name in WAYS_TO_AN_ORDER):
            module = ".".join(file.relative_to(root).with_suffix("").parts)
            for where, called in _calls(ast.parse(source), module):
                if called in found:
                    found[called].add(where)
    return found


def _calls(node: ast.AST, where: str) -> Iterator[tuple[str, str]]:
    """Yield the methods that are named in each function of a source, called at once or not."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        where = f"{where}.{node.name}"
    if isinstance(node, ast.Attribute):
        yield where, node.attr
    for child in ast.iter_child_nodes(node):
        yield from _calls(child, where)


def _unknown_freqtrade(name: str, how: str) -> str:
    return (
        f"This freqtrade calls {name} {how}: the isolated margin guard does not know this version, and does "
        "not start rather than guard nothing. Use an earlier freqtrade or a later freqtrade-isolated-margin."
    )
