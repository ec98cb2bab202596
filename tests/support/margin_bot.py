"""What the tests of `trading` have in common: configurations that trade on margin, and known candles."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from freqtrade_isolated_margin.localexchange import LocalExchange
from support.bot import config_for, freqtrade

MODULE = "freqtrade_isolated_margin.trading"
START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC)
RANGE = ["--timerange", "20260101-20260103"]


ONE_OF_EACH = """
class Tested({mixin}Base, IStrategy):
    timeframe = "5m"
    can_short = True

    def populate_entry_trend(self, dataframe, metadata):
        side = "enter_long" if metadata["pair"] == "BTC/USDT" else "enter_short"
        dataframe.loc[dataframe.index == 10, side] = 1
        return dataframe

    def leverage(self, **kwargs):
        return 3.0 if kwargs["side"] == "long" else 2.0
{more}
"""


def one_of_each(more: str = "", *, mixin: bool = False) -> str:
    """Return a strategy that enters once, a long of 3x in BTC and shorts of 2x in all else."""
    return ONE_OF_EACH.format(mixin="IsolatedMarginMixin, " if mixin else "", more=more)


def margin_config(
    exchange: LocalExchange | None, pairs: list[str], trading: dict[str, Any] | None = None, **changes: Any
) -> dict[str, Any]:
    """Return a complete configuration of a dry run in the margin accounts of `exchange`."""
    section = {
        "refresh_seconds": 0.5,
        "max_age_seconds": 5,
        "trading": {"enabled": True, **(trading or {})},
    }
    config = config_for(exchange, pairs, trading_mode="futures", margin_mode="isolated")
    return config | {"isolated_margin": section} | changes


def write_candles(folder: Path, pair: str, price: Callable[[float], float], timeframe: str = "5m") -> None:
    """Write two days of candles whose open is `price` of the hours since the start."""
    data = folder / "user_data" / "data" / "binance"
    data.mkdir(parents=True, exist_ok=True)
    dates = pd.date_range(START, END, freq=timeframe.replace("m", "min"), inclusive="left")
    opens = [price((date - START).total_seconds() / 3600) for date in dates]
    closes = [*opens[1:], opens[-1]]
    frame = pd.DataFrame(
        {
            "date": dates,
            "open": opens,
            "high": [max(pair) for pair in zip(opens, closes, strict=True)],
            "low": [min(pair) for pair in zip(opens, closes, strict=True)],
            "close": closes,
            "volume": 1000.0,
        }
    )
    frame.to_feather(data / f"{pair.replace('/', '_')}-{timeframe}.feather")


def exported(folder: Path, name: str = "Tested") -> list[dict[str, Any]]:
    """Return the trades of the newest backtest in `folder`."""
    newest = max((folder / "user_data" / "backtest_results").glob("*.zip"), key=lambda f: f.stat().st_mtime)
    with zipfile.ZipFile(newest) as archive:
        trades: list[dict[str, Any]] = json.loads(archive.read(newest.stem + ".json"))["strategy"][name][
            "trades"
        ]
        return trades


def charged_hours(opened: datetime, closed: datetime) -> int:
    """One hour at once, and one at each full hour of the clock since: counted one by one."""
    hours = 1
    for hour in range(int(opened.timestamp()) // 3600, int(closed.timestamp()) // 3600 + 1):
        hours += opened.timestamp() < hour * 3600 <= closed.timestamp()
    return hours


def backtest_config(
    exchange: LocalExchange, pairs: list[str], trading: dict[str, Any] | None = None, **changes: Any
) -> dict[str, Any]:
    """Return a complete configuration of a backtest, which needs no key."""
    config = margin_config(exchange, pairs, trading, fee=0.001, timeframe="5m", **changes)
    config["exchange"] |= {"key": "", "secret": ""}
    return config


def backtested(folder: Path, config: dict[str, Any], strategy: str) -> tuple[list[dict[str, Any]], str]:
    """Run a backtest; return its trades and what it printed, without colours."""
    with freqtrade(folder, config, strategy, "backtesting", *RANGE, "--cache", "none", module=MODULE) as bot:
        assert bot.wait(200) == 0, bot.output[-3000:]
    return exported(folder), re.sub(r"\x1b\[[0-9;]*m", "", bot.output)
