"""The strategy of docs/tuning.md: its limit is a parameter of hyperopt. It is no way to earn money."""

from datetime import datetime, timedelta

from freqtrade.persistence import Trade
from freqtrade.strategy import DecimalParameter, IStrategy
from pandas import DataFrame

from freqtrade_isolated_margin import IsolatedMarginMixin


class TunableSample(IsolatedMarginMixin, IStrategy):
    """Buys in every candle and sells an hour later; hyperopt looks for the best `block_below`."""

    INTERFACE_VERSION = 3
    timeframe = "5m"
    minimal_roi = {}
    stoploss = -0.99

    block_below = DecimalParameter(1.1, 1.6, default=1.2, decimals=1, space="buy")

    @property
    def isolated_margin(self) -> dict:
        """The guard's settings, made anew for each epoch."""
        return {"margin_level": {"block_below": float(self.block_below.value), "full_above": 2.0}}

    def populate_indicators(self, dataframe: DataFrame, metadata: dict) -> DataFrame:
        """Add nothing."""
        return dataframe

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict) -> DataFrame:
        """Enter at every candle."""
        dataframe["enter_long"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe: DataFrame, metadata: dict) -> DataFrame:
        """Leave the exit to `custom_exit`."""
        return dataframe

    def custom_exit(self, pair: str, trade: Trade, current_time: datetime, **kwargs: object) -> str | None:
        """Sell what has been held for an hour."""
        return "held an hour" if current_time - trade.open_date_utc >= timedelta(hours=1) else None
