"""The least that a strategy is, as classes for this process; as text for a process of its own: `bot`."""

from __future__ import annotations

from typing import Any, ClassVar

from freqtrade.strategy import IStrategy

from freqtrade_isolated_margin import IsolatedMarginMixin


class Base:
    """What every strategy must have, for classes that choose their other bases themselves."""

    timeframe = "1m"
    minimal_roi: ClassVar[dict[str, float]] = {}
    stoploss = -0.5

    def populate_indicators(self, dataframe: Any, metadata: Any) -> Any:
        return dataframe

    populate_entry_trend = populate_exit_trend = populate_indicators


class Plain(IsolatedMarginMixin, Base, IStrategy):
    """Leaves everything to the mixin."""
