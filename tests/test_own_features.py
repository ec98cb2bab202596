"""freqai's feature functions with the mixin and without: they are given exactly the same dataframes.

The models behind it are left out, and with them what they need: freqtrade's own data kitchen calls the
strategy's functions, as it does before it predicts and before it trains.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.backtests import RANGE, write_candles, write_history
from support.bot import config_for, freqtrade

from freqtrade_isolated_margin.localexchange import AccountSpec, LocalExchange, MarketSpec

pytestmark = pytest.mark.timeout(300)

PAIR, OTHER = "BTC/USDT", "ETH/USDT"
FREQAI = {
    "enabled": False,
    "identifier": "features",
    "train_period_days": 1,
    "backtest_period_days": 1,
    "feature_parameters": {
        "include_timeframes": ["5m", "1h"],
        "include_corr_pairlist": [OTHER],
        "include_shifted_candles": 1,
        "indicator_periods_candles": [3, 6],
        "label_period_candles": 2,
    },
    "data_split_parameters": {"test_size": 0.25},
}

# The only stand-in: it belongs to the models, and here nobody asks for more than its name.
STRATEGIES = """
import pickle
import sys
from types import ModuleType

try:
    import datasieve.pipeline
except ImportError:
    pipeline = ModuleType("datasieve.pipeline")
    pipeline.Pipeline = type("Pipeline", (), {})
    sys.modules |= {"datasieve": ModuleType("datasieve"), "datasieve.pipeline": pipeline}

from freqtrade.enums import TRADE_MODES
from freqtrade.freqai.data_kitchen import FreqaiDataKitchen

class Own(Base):
    timeframe = "5m"

    def informative_pairs(self):
        return [("ETH/USDT", "5m"), ("BTC/USDT", "1h"), ("ETH/USDT", "1h")]

    def given(self, what, dataframe, metadata):
        self.seen.append((what, metadata["pair"], metadata.get("tf"), dataframe.copy()))

    def populate_indicators(self, dataframe, metadata):
        self.seen = []
        self.given("indicators", dataframe, metadata)
        pair, live = metadata["pair"], self.dp.runmode in TRADE_MODES
        kitchen = FreqaiDataKitchen(self.config, live=live, pair=pair)
        predicting = kitchen.use_strategy_to_populate_indicators(
            self, prediction_dataframe=dataframe, pair=pair
        )
        self.given("what it predicts from", predicting, metadata)
        base = {span: self.dp.get_pair_dataframe(pair, span) for span in ("5m", "1h")}
        training = kitchen.use_strategy_to_populate_indicators(self, base_dataframes=base, pair=pair)
        self.given("what it trains with", training, metadata)
        with open(f"{type(self).__name__}.pickle", "wb") as file:
            pickle.dump(self.seen, file)
        log.info("FEATURES")
        return predicting

    def feature_engineering_expand_all(self, dataframe, period, metadata, **kwargs):
        self.given(f"expand_all {period}", dataframe, metadata)
        dataframe["%-mean-period"] = dataframe["close"].rolling(period).mean()
        # As some do: whatever stands in the dataframe is a feature.
        dataframe["%-gaps-period"] = dataframe.isna().sum(axis=1)
        return dataframe

    def feature_engineering_expand_basic(self, dataframe, metadata, **kwargs):
        self.given("expand_basic", dataframe, metadata)
        dataframe["%-change"] = dataframe["close"].pct_change()
        return dataframe

    def feature_engineering_standard(self, dataframe, metadata, **kwargs):
        self.given("standard", dataframe, metadata)
        dataframe["%-hour"] = dataframe["date"].dt.hour
        return dataframe

    def set_freqai_targets(self, dataframe, metadata, **kwargs):
        self.given("targets", dataframe, metadata)
        dataframe["&-later"] = dataframe["close"].shift(-2)
        return dataframe

class Plain(Own, IStrategy):
    pass

class Guarded(IsolatedMarginMixin, Own, IStrategy):
    pass

class Tested(Guarded):
    pass
"""

Seen = list[tuple[str, str, str | None, pd.DataFrame]]


def seen(folder: Path, strategy: str) -> Seen:
    """Return what a strategy's functions were given, in order, and what came of it."""
    with (folder / f"{strategy}.pickle").open("rb") as file:
        found: Seen = pickle.load(file)
        return found


def columns(given: Seen) -> list[Any]:
    """Return the names in each of the dataframes."""
    return [(*of, list(dataframe.columns)) for *of, dataframe in given]


@pytest.fixture(scope="module")
def exchange() -> Any:
    """An exchange whose account of the pair owes nothing, so that some of the guard's columns are NaN."""
    markets = [MarketSpec(PAIR, price="100"), MarketSpec(OTHER, price="50")]
    with LocalExchange(scenario="calm", markets=markets) as running:
        running.set_account(PAIR, AccountSpec(base_free="30"))
        yield running


def test_in_a_backtest_the_features_are_the_same_with_the_mixin(
    exchange: LocalExchange, tmp_path: Path
) -> None:
    """Value by value, while the guard replays a history."""
    write_candles(tmp_path)
    data = tmp_path / "user_data" / "data" / "binance"
    short = pd.read_feather(data / "BTC_USDT-5m.feather")
    long = short.iloc[::12].reset_index(drop=True)
    for name in ("BTC_USDT", "ETH_USDT"):
        short.to_feather(data / f"{name}-5m.feather")
        long.to_feather(data / f"{name}-1h.feather")
    write_history(tmp_path, lambda _: None).close()
    replaying = {"backtest": "replay", "history": {"keys": ["0a1b2c3d"]}}
    config = config_for(exchange, [PAIR], timeframe="5m", isolated_margin=replaying, freqai=FREQAI)
    # Each in its own process: of two in one, freqtrade itself loads other candles for the second.
    for strategy in ("Plain", "Guarded"):
        words = ["backtesting", *RANGE, "--cache", "none", "--strategy", strategy]
        with freqtrade(tmp_path, config, STRATEGIES, *words) as run:
            assert run.wait(100) == 0, run.output[-3000:]
    assert "replays the recorded history" in run.output
    plain, guarded = seen(tmp_path, "Plain"), seen(tmp_path, "Guarded")
    assert len(plain) > 20
    assert columns(guarded) == columns(plain)
    for (what, *_, with_mixin), (*_, without) in zip(guarded, plain, strict=True):
        pd.testing.assert_frame_equal(with_mixin, without, obj=what)


def test_in_a_dry_run_the_features_are_the_same_with_the_mixin(
    exchange: LocalExchange, tmp_path: Path
) -> None:
    """As far as two runs can be compared that do not see the same minute: the same columns everywhere."""
    for strategy in ("Plain", "Guarded"):
        config = config_for(exchange, [PAIR], timeframe="5m", freqai=FREQAI)
        with freqtrade(tmp_path, config, STRATEGIES, "trade", "--strategy", strategy) as bot:
            bot.wait_for("FEATURES")
    plain = columns(seen(tmp_path, "Plain"))
    assert [what for what, *_ in plain if what == "targets"]
    assert columns(seen(tmp_path, "Guarded")) == plain
