"""What real backtests need: candles, a strategy that trades by them, a recorded history, and the result."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from freqtrade_isolated_margin.account.records import PairAccount
from freqtrade_isolated_margin.binance.clock import milliseconds
from freqtrade_isolated_margin.history.asking import History
from freqtrade_isolated_margin.history.database import DEFAULT_FILE
from freqtrade_isolated_margin.history.writing import NewRead
from support import builders

KEY = "0a1b2c3d"
START, HALF, END = (datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3))
RANGE = ["--timerange", "20260101-20260103", "--timeframe", "5m"]

CROSSING = """
    buy_period = IntParameter(2, 6, default=3, space="buy")

    def populate_indicators(self, dataframe, metadata):
        return dataframe

    def populate_entry_trend(self, dataframe, metadata):
        mean = dataframe["close"].rolling(self.buy_period.value).mean()
        dataframe.loc[dataframe["close"] > mean, "enter_long"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe, metadata):
        dataframe.loc[dataframe["close"] < dataframe["close"].rolling(3).mean(), "exit_long"] = 1
        return dataframe
"""
WITH_MIXIN = (
    """
from freqtrade.strategy import IntParameter

class Tested(IsolatedMarginMixin, Base, IStrategy):
    protections = [{"method": "CooldownPeriod", "stop_duration_candles": 2}, {"method": "MarginLevelGuard"}]
"""
    + CROSSING
)
WITHOUT_MIXIN = WITH_MIXIN.replace("IsolatedMarginMixin, ", "", 1).replace(
    ', {"method": "MarginLevelGuard"}', ""
)


def write_candles(folder: Path) -> None:
    """Write two days of 5-minute candles where freqtrade looks for them."""
    data = folder / "user_data" / "data" / "binance"
    data.mkdir(parents=True)
    dates = pd.date_range("2025-12-31", "2026-01-03", freq="5min", tz="UTC")
    waves = 100 + 5 * np.sin(np.arange(len(dates)) / 9) + np.cos(np.arange(len(dates)) / 4)
    candles = pd.DataFrame({"date": dates, "open": waves, "high": waves + 1, "low": waves - 1})
    candles["close"] = np.roll(waves, -1)
    candles["volume"] = 1000.0
    candles.to_feather(data / "BTC_USDT-5m.feather")


def level_at(moment: datetime) -> str:
    """The margin level of the made-up account: healthy on the first day, and near its end on the second."""
    return "3" if moment < HALF else "1.2"


def write_history(
    folder: Path,
    level: Callable[[datetime], str | None] = level_at,
    start: datetime = START,
    end: datetime = END,
) -> History:
    """Record one read a minute from `start` to before `end`; an account without a level owes nothing."""
    history = History(f"sqlite:///{folder / 'user_data' / DEFAULT_FILE}")
    history.prepare()
    writer = history.writer(KEY, "a bot")
    accounts: dict[str | None, PairAccount] = {}
    for at in range(milliseconds(start), milliseconds(end), 60_000):
        wanted = level(datetime.fromtimestamp(at / 1000, UTC))
        if wanted not in accounts:
            row = builders.row(base_total=1) if wanted is None else builders.long_row(wanted)
            account = builders.parsed(row)
            assert isinstance(account, PairAccount)
            accounts[wanted] = account
        writer.write([NewRead(at, lambda: 0.0, {"BTC/USDT": accounts[wanted]}, {})])
    return history


def result(folder: Path, name: str = "Tested") -> dict[str, Any]:
    """Return what the newest backtest says of a strategy."""
    exported = max(
        (folder / "user_data" / "backtest_results").glob("*.zip"), key=lambda file: file.stat().st_mtime
    )
    with zipfile.ZipFile(exported) as archive:
        found: dict[str, Any] = json.loads(archive.read(exported.stem + ".json"))["strategy"][name]
        return found
