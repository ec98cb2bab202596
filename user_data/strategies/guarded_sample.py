"""A sample strategy for freqtrade-isolated-margin. It shows the guard at work; it is no way to earn money."""

from datetime import datetime, timedelta

from freqtrade.persistence import Trade
from freqtrade.strategy import IStrategy
from pandas import DataFrame

from freqtrade_isolated_margin import IsolatedMarginMixin


class GuardedSample(IsolatedMarginMixin, IStrategy):
    """Buys in every candle, adds to what it holds, sells soon: as many chances to refuse as possible."""

    INTERFACE_VERSION = 3
    timeframe = "1m"
    minimal_roi = {}
    stoploss = -0.99
    use_exit_signal = True
    process_only_new_candles = True
    position_adjustment_enable = True
    order_types = {"entry": "market", "exit": "market", "stoploss": "market", "stoploss_on_exchange": False}

    hold = timedelta(minutes=2)
    add_every = timedelta(seconds=8)

    @property
    def protections(self) -> list[dict]:
        """Freqtrade asks these when a trade closes; the guard's own is one of them."""
        return [{"method": "MarginLevelGuard"}]

    def populate_indicators(self, dataframe: DataFrame, metadata: dict) -> DataFrame:
        """Add nothing: the sample has no opinion on prices."""
        return dataframe

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict) -> DataFrame:
        """Enter at every candle."""
        dataframe["enter_long"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe: DataFrame, metadata: dict) -> DataFrame:
        """Leave the exit to `custom_exit`."""
        return dataframe

    def custom_exit(self, pair: str, trade: Trade, current_time: datetime, **kwargs: object) -> str | None:
        """Sell what has been held long enough."""
        return "held long enough" if current_time - trade.open_date_utc > self.hold else None

    def adjust_trade_position(self, trade: Trade, current_time: datetime, **kwargs: object) -> float | None:
        """Add the full stake every few seconds; what becomes of it is up to the guard."""
        if trade.has_open_orders or current_time - trade.date_last_filled_utc < self.add_every:
            return None
        return float(self.config["stake_amount"])
