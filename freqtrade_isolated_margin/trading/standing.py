"""How close the accounts of a backtest's trades came to their liquidation, and what it says of that."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from freqtrade.persistence import LocalTrade
from numpy.typing import NDArray
from pandas import DataFrame

from freqtrade_isolated_margin.account.maths import (
    INFINITY,
    ZERO,
    Holdings,
    Side,
    exact,
    liquidation_price,
    margin_level,
)
from freqtrade_isolated_margin.account.tiers import tier_ratios
from freqtrade_isolated_margin.hosts.backtest_judge import Tally
from freqtrade_isolated_margin.rules.decide import plain
from freqtrade_isolated_margin.trading.loans import TradeAccount
from freqtrade_isolated_margin.trading.paper import Held
from freqtrade_isolated_margin.trading.terms import Terms
from freqtrade_isolated_margin.trading.trades import number

logger = logging.getLogger(__name__)


class Candles(NamedTuple):
    """A pair's candles; `begins` are UNIX seconds."""

    begins: NDArray[np.float64]
    opens: NDArray[np.float64]
    highs: NDArray[np.float64]
    lows: NDArray[np.float64]

    @classmethod
    def of(cls, frame: DataFrame) -> Candles:
        """Return those of freqtrade's dataframe."""
        begins = frame["date"].dt.as_unit("ms").astype("int64").to_numpy() / 1000.0
        return cls(begins, *(frame[name].to_numpy(dtype=np.float64) for name in ("open", "high", "low")))

    def open_at(self, at: float) -> float | None:
        """Return the open of the candle that has begun at `at` or before, if there is one."""
        place = int(self.begins.searchsorted(at, "right")) - 1
        return float(self.opens[place]) if place >= 0 else None

    def worst(self, side: Side, first: float, until: float) -> tuple[float, float] | None:
        """Return when and at which price a position stood worst, from `first` to before `until`."""
        begin = max(int(self.begins.searchsorted(first, "right")) - 1, 0)
        end = int(self.begins.searchsorted(until, "left"))
        if begin >= end:
            return None
        prices = self.lows[begin:end] if side is Side.LONG else self.highs[begin:end]
        place = int(prices.argmin() if side is Side.LONG else prices.argmax())
        return max(float(self.begins[begin + place]), first), float(prices[place])


class Standing(NamedTuple):
    """How close an account was to its liquidation."""

    level: Decimal = INFINITY
    """Margin level; infinite without debt."""
    distance: Decimal = INFINITY
    """Of the price to that of the liquidation, as a fraction of it; infinite where no price liquidates."""


@exact
def lowest(trade: LocalTrade, candles: Candles | None, terms: Terms) -> Standing:
    """Return how close a closed trade's account came to its liquidation.

    Between two fills it stood worst in the candle with the lowest low of a long, or the highest high of a
    short; of the candle in which it was closed only the price of the exit counts. The level is
    ``assets / debt``, the distance ``|p - l| / p`` (`account.maths`).
    """
    level = distance = INFINITY
    for holdings, price in _moments(trade, candles, terms):
        if not holdings.has_debt:
            continue
        level = min(level, margin_level(holdings, price))
        found = tier_ratios(terms.tiers, holdings)
        liquidated = liquidation_price(holdings, found.current) if found else None
        if liquidated:
            # Beyond it by a candle's low, a liquidated account is at it.
            side = Side.SHORT if holdings.base_debt else Side.LONG
            room = price - liquidated if side is Side.LONG else liquidated - price
            distance = min(distance, max(room / price, ZERO))
    return Standing(level, distance)


def _moments(trade: LocalTrade, candles: Candles | None, terms: Terms) -> Iterator[tuple[Holdings, Decimal]]:
    held = Held.of(trade)
    for count, (fill, following) in enumerate(pairwise(held.fills), 1):
        moments = [(following.at, following.price)]
        worst = candles.worst(held.side, fill.at, following.at) if candles else None
        if worst:
            moments.append((worst[0], number(worst[1])))
        for at, price in moments:
            account = TradeAccount.of(held.side, held.leverage, terms.rates, held.fills[:count], at)
            yield account.holdings, price


class Report(Tally):
    """Also tells how the accounts of each pair's closed trades stood, and what their loans cost."""

    def __init__(self, terms: Callable[[str], Terms]) -> None:
        super().__init__()
        self._terms = terms
        self.candles: Mapping[str, Candles] = {}
        self.trades: list[LocalTrade] = []

    def tell(self) -> None:
        """Log what became of the entries, and a line for each pair that was traded."""
        super().tell()
        by_pair: dict[str, list[LocalTrade]] = defaultdict(list)
        for trade in self.trades if self.strategy else ():
            by_pair[trade.pair].append(trade)
        for pair, trades in sorted(by_pair.items()):
            found = [lowest(trade, self.candles.get(pair), self._terms(pair)) for trade in trades]
            level, distance = min(s.level for s in found), min(s.distance for s in found)
            paid = -sum((number(trade.funding_fees or 0.0) for trade in trades), ZERO)
            logger.info(
                "%s, %s: lowest margin level %s, least liquidation distance %s, %s %s of interest paid.",
                self.strategy,
                pair,
                "none" if level == INFINITY else plain(level, 4),
                "none" if distance == INFINITY else f"{plain(distance * 100, 2)} %",
                plain(paid, 8),
                pair.partition("/")[2],
            )
        self.trades = []
