"""A strategy's data with the mixin and without: the same dataframe, and so the same trades."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.backtests import RANGE, result, write_candles, write_history
from support.bot import config_for, freqtrade

from freqtrade_isolated_margin import COLUMNS
from freqtrade_isolated_margin.localexchange import AccountSpec, LocalExchange, MarketSpec

pytestmark = pytest.mark.timeout(300)

PAIR = "BTC/USDT"

# What people do with their dataframes, as a way from candles to a mask of entries.
WAYS = {
    "Masking": """
        complete = dataframe.notna().all(axis=1)
        return complete & (dataframe["close"] > dataframe["mean"])
    """,
    "Dropping": """
        known = dataframe.dropna()
        return dataframe.index.isin(known.index[known["close"] > known["mean"]])
    """,
    "Filling": """
        filled = dataframe.select_dtypes("number").drop(columns="volume").fillna(1000.0)
        return filled.max(axis=1) < filled["high"].rolling(12, min_periods=1).max()
    """,
    "Positioned": """
        # After the columns of freqtrade's candles the mean.
        return dataframe["close"] > dataframe.iloc[:, 11]
    """,
    "Fitting": """
        known = dataframe.dropna()
        # Without rows the fit would end the backtest of all the others too.
        slope = np.polyfit(known["mean"], known["close"], 1) if len(known) else (0, 0)
        return dataframe["close"] > np.polyval(slope, dataframe["mean"])
    """,
    "Counting": """
        return (dataframe["close"] > dataframe["mean"]) & (len(dataframe.columns) == 13)
    """,
}

TOP = """
import numpy as np
from pandas import DataFrame
from freqtrade.strategy import informative, merge_informative_pair

class Own(Base):
    timeframe = "5m"
    minimal_roi = {"0": 0.02}

    def populate_indicators(self, dataframe, metadata):
        dataframe["mean"] = dataframe["close"].rolling(5).mean()
        return dataframe

    def populate_entry_trend(self, dataframe, metadata):
        dataframe["enter_long"] = np.where(self.way(dataframe), 1, 0)
        return dataframe

    def populate_exit_trend(self, dataframe, metadata):
        dataframe["exit_long"] = np.where(dataframe["close"] < dataframe["close"].rolling(3).mean(), 1, 0)
        return dataframe

class Informed(Own):
    @informative("1h")
    def populate_indicators_1h(self, dataframe, metadata):
        dataframe["count"] = len(dataframe.columns)
        return dataframe

    def populate_indicators(self, dataframe, metadata):
        hourly = self.dp.get_pair_dataframe("BTC/USDT", "1h")
        dataframe = merge_informative_pair(dataframe, hourly, self.timeframe, "1h", ffill=True)
        return super().populate_indicators(dataframe, metadata)

    def way(self, dataframe):
        assert set(dataframe["count_1h"].dropna()) == {6}
        return dataframe.notna().all(axis=1) & (dataframe["close"] > dataframe["mean"])
"""


def both(name: str, parent: str, body: str = "") -> str:
    """Return a strategy twice, without and with the mixin."""
    head = f"\nclass {name}Plain({parent}, IStrategy):\n"
    method = f"    def way(self, dataframe):{body}\n" if body else "    pass\n"
    guarded = f"\nclass {name}Guarded(IsolatedMarginMixin, {parent}, IStrategy):\n"
    return head + method + guarded + method


STRATEGIES = (
    TOP
    + "".join(both(name, "Own", way) for name, way in WAYS.items())
    + both("Informed", "Informed")
    + "\nclass Tested(MaskingPlain):\n    pass\n"
)
NAMES = [*WAYS, "Informed"]


def trades(folder: Path, name: str) -> list[Any]:
    """Return what a strategy traded in the newest backtest."""
    whole = result(folder, name)["trades"]
    return [(one["open_date"], one["close_date"], one["stake_amount"], one["profit_abs"]) for one in whole]


@pytest.fixture(scope="module")
def backtested(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Backtest all of them in one process; the guard replays a history in which nothing is owed.

    Without debt there are NaN among the guard's columns, which is what rows are masked and dropped by.
    """
    folder = tmp_path_factory.mktemp("own")
    write_candles(folder)
    data = folder / "user_data" / "data" / "binance"
    hourly = pd.read_feather(data / "BTC_USDT-5m.feather").iloc[::12].reset_index(drop=True)
    hourly.to_feather(data / "BTC_USDT-1h.feather")
    write_history(folder, lambda _: None).close()
    with LocalExchange(scenario="calm", markets=[MarketSpec(PAIR, price="100")]) as exchange:
        config = config_for(exchange, [PAIR], timeframe="5m", isolated_margin={"backtest": "replay"})
        config["isolated_margin"]["history"] = {"keys": ["0a1b2c3d"]}
        named = [f"{name}{kind}" for name in NAMES for kind in ("Plain", "Guarded")]
        with freqtrade(
            folder, config, STRATEGIES, "backtesting", *RANGE, "--cache", "none", "--strategy-list", *named
        ) as run:
            assert run.wait(200) == 0, run.output[-3000:]
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_a_backtest_gives_the_same_trades_with_the_mixin(backtested: Path, name: str) -> None:
    """Whatever a strategy makes of its dataframe: the guard's columns are not in it."""
    plain = trades(backtested, f"{name}Plain")
    assert len(plain) >= 3
    assert trades(backtested, f"{name}Guarded") == plain


LIVE = """
class Tested(IsolatedMarginMixin, Base, IStrategy):
    def bot_loop_start(self, current_time, **kwargs):
        log.info("LOOP")

    def populate_indicators(self, dataframe, metadata):
        log.info("INDICATORS %s", list(dataframe.columns))
        dataframe["mine"] = 1.0
        return dataframe

    def populate_entry_trend(self, dataframe, metadata):
        log.info("ENTRIES %s", list(dataframe.columns))
        dataframe.loc[dataframe.notna().all(axis=1), "enter_long"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe, metadata):
        log.info("EXITS %s", list(dataframe.columns))
        return dataframe

    def confirm_trade_entry(self, pair, **kwargs):
        self.look("ENTERED", pair)
        return True

    def custom_exit(self, pair, **kwargs):
        self.look("HELD", pair)

    def look(self, word, pair):
        dataframe, _ = self.dp.get_analyzed_dataframe(pair, self.timeframe)
        log.info("%s %s", word, list(dataframe.columns))

    def plot_annotations(self, dataframe, **kwargs):
        log.info("SHOWN %s", list(dataframe.columns))
        return []
"""


def test_a_dry_run_sees_only_its_own_columns(tmp_path: Path) -> None:
    """In every callback, before and after freqtrade's API has shown the guard's; no debt means no level."""
    with LocalExchange(scenario="calm", markets=[MarketSpec(PAIR, price="100")]) as exchange:
        exchange.set_account(PAIR, AccountSpec(base_free="30"))
        with freqtrade(tmp_path, config_for(exchange, [PAIR]), LIVE) as bot:
            bot.wait_for("LIMIT_BUY has been fulfilled")
            before = bot.wait_for(" HELD ")
            shown = bot.api("GET", f"pair_candles?pair={PAIR}&timeframe=1m&limit=10")
            after = bot.wait_for(" HELD ", after=bot.wait_for(" SHOWN "))
    assert set(COLUMNS) <= set(shown["columns"])
    for word in ("INDICATORS", "ENTRIES", "EXITS", "ENTERED", "HELD", "SHOWN"):
        seen = [line.partition(f"{word} ")[2] for line in bot.lines if f" {word} " in line]
        assert seen
        for columns in seen:
            assert not [name for name in COLUMNS if name in columns], word
    assert "INDICATORS ['date', 'open', 'high', 'low', 'close', 'volume']" in bot.output
    held = [bot.lines[number - 1].partition("HELD ")[2] for number in (before, after)]
    assert held[0] == held[1]
