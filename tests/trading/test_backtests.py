"""Real backtests and hyperopts in the margin accounts, against sums made by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from fractions import Fraction
from itertools import pairwise
from math import sin
from pathlib import Path
from typing import Any

import pytest
from support.bot import freqtrade
from support.margin_bot import (
    MODULE,
    RANGE,
    START,
    backtest_config,
    backtested,
    charged_hours,
    one_of_each,
    write_candles,
)

from freqtrade_isolated_margin.localexchange import LocalExchange

pytestmark = pytest.mark.timeout(300)

RATES = {"USDT": 0.0004, "ETH": 0.0008}
PRICES = {
    "BTC/USDT": lambda hour: round(50_000 + 40 * hour + 300 * sin(hour), 2),
    "ETH/USDT": lambda hour: round(2_500 - 2 * hour + 15 * sin(hour * 1.7), 2),
}

# Enters at ten past, so that an hour begins within each trade; leaves after a while, at different minutes.
STRATEGY = """
class Tested(Base, IStrategy):
    timeframe = "5m"
    can_short = True

    def populate_entry_trend(self, dataframe, metadata):
        minutes = dataframe["date"].dt.hour * 60 + dataframe["date"].dt.minute
        side = "enter_long" if metadata["pair"] == "BTC/USDT" else "enter_short"
        dataframe.loc[minutes % 400 == 5, side] = 1
        return dataframe

    def populate_exit_trend(self, dataframe, metadata):
        minutes = dataframe["date"].dt.hour * 60 + dataframe["date"].dt.minute
        side = "exit_long" if metadata["pair"] == "BTC/USDT" else "exit_short"
        dataframe.loc[minutes % 400 == 285, side] = 1
        return dataframe

    def leverage(self, **kwargs):
        return 3.0 if kwargs["side"] == "long" else 2.0
"""


@pytest.fixture(scope="module")
def exchange() -> Iterator[LocalExchange]:
    """Serve the markets that freqtrade wants to know."""
    with LocalExchange(scenario="calm") as exchange:
        yield exchange


def prepared(folder: Path, exchange: LocalExchange, **changes: Any) -> dict[str, Any]:
    """Write the candles of both pairs, and return a configuration that trades them."""
    for pair, price in PRICES.items():
        write_candles(folder, pair, price)
    return backtest_config(exchange, list(PRICES), {"interest_rates": RATES}, **changes)


def by_hand(trade: dict[str, Any]) -> tuple[Fraction, Fraction]:
    """Return what a trade paid as interest, and its profit, in USDT."""
    amount, opened_at, closed_at = (Fraction(repr(trade[n])) for n in ("amount", "open_rate", "close_rate"))
    leverage, fee = Fraction(repr(trade["leverage"])), Fraction("0.001")
    opened, closed = (datetime.fromisoformat(trade[name]) for name in ("open_date", "close_date"))
    hours = charged_hours(opened, closed)
    if trade["is_short"]:
        # Owed in ETH, and counted at the open of the newest full hour.
        last_hour = closed.timestamp() // 3600 - START.timestamp() // 3600
        price = Fraction(repr(PRICES["ETH/USDT"](last_hour)))
        interest = amount * Fraction("0.0008") / 24 * hours * price
        gained = amount * (opened_at - closed_at)
    else:
        interest = amount * opened_at * (1 - 1 / leverage) * Fraction("0.0004") / 24 * hours
        gained = amount * (closed_at - opened_at)
    return interest, gained - fee * amount * (opened_at + closed_at) - interest


def test_interest_and_profit_are_those_of_a_hand_computation(exchange: LocalExchange, tmp_path: Path) -> None:
    """Long and short trades pay what their loans cost hour by hour, and freqtrade's profit has it."""
    config = prepared(tmp_path, exchange)
    trades, _ = backtested(tmp_path, config, STRATEGY)
    assert {(trade["pair"], trade["is_short"]) for trade in trades} == {
        ("BTC/USDT", False),
        ("ETH/USDT", True),
    }
    assert len(trades) >= 8
    for trade in trades:
        interest, profit = by_hand(trade)
        assert interest > 0
        assert -trade["funding_fees"] == pytest.approx(float(interest), abs=1e-6), trade
        assert trade["profit_abs"] == pytest.approx(float(profit), abs=1e-6), trade


CRASHING = one_of_each()


def test_a_liquidation_is_where_the_level_meets_the_ratio_of_the_tier(
    exchange: LocalExchange, tmp_path: Path
) -> None:
    """Long and short end as liquidated where (assets) = 1.18 × (debt), less the buffer of freqtrade."""
    config = prepared(tmp_path, exchange, liquidation_buffer=0.05)
    write_candles(tmp_path, "BTC/USDT", lambda hour: round(50_000 * (1 - hour / 100), 2))
    write_candles(tmp_path, "ETH/USDT", lambda hour: round(2_500 * (1 + hour / 50), 2))
    trades, _ = backtested(tmp_path, config, CRASHING)
    long, short = sorted(trades, key=lambda trade: trade["is_short"])
    for trade in (long, short):
        assert trade["exit_reason"] == "liquidation"
        opened, amount = Fraction(repr(trade["open_rate"])), Fraction(repr(trade["amount"]))
        if trade["is_short"]:
            stake = opened * amount / 2
            owed = amount * (1 + Fraction("0.0008") / 24)
            found = (stake + opened * amount) / (Fraction("1.18") * owed)
        else:
            owed = opened * amount * 2 / 3 * (1 + Fraction("0.0004") / 24)
            found = Fraction("1.18") * owed / amount
        with_buffer = found + (opened - found) * Fraction("0.05")
        assert trade["close_rate"] == pytest.approx(float(with_buffer), rel=1e-5)


ADJUSTING = one_of_each(
    """
    position_adjustment_enable = True

    def populate_exit_trend(self, dataframe, metadata):
        side = "exit_long" if metadata["pair"] == "BTC/USDT" else "exit_short"
        dataframe.loc[dataframe.index == 200, side] = 1
        return dataframe

    def adjust_trade_position(self, trade, current_time, **kwargs):
        minutes = current_time.hour * 60 + current_time.minute
        # An increase at 4:10, and a third of the position sold or bought back at 8:20.
        return {250: 60.0, 500: -50.0}.get(minutes)
"""
)


def test_interest_follows_an_increase_and_a_partial_exit(exchange: LocalExchange, tmp_path: Path) -> None:
    """Each loan pays from its own hour on, and a partial exit repays, interest before loan."""
    config = prepared(tmp_path, exchange)
    trades, _ = backtested(tmp_path, config, ADJUSTING)
    for trade in trades:
        times = [order["order_filled_timestamp"] / 1000 for order in trade["orders"]]
        sizes = [Fraction(repr(order["amount"])) for order in trade["orders"]]
        rates = [Fraction(repr(order["safe_price"])) for order in trade["orders"]]
        if trade["is_short"]:
            daily, loans, repaid = Fraction("0.0008"), sizes[:2], sizes[2]
        else:
            daily = Fraction("0.0004")
            loans = [size * rate * 2 / 3 for size, rate in zip(sizes[:2], rates[:2], strict=True)]
            repaid = sizes[2] * rates[2]
        hours = [int(end // 3600) - int(begin // 3600) for begin, end in pairwise(times)]
        parts = [
            loans[0] * (1 + hours[0]) * daily / 24,
            (loans[1] + (loans[0] + loans[1]) * hours[1]) * daily / 24,
        ]
        left = loans[0] + loans[1] - (repaid - parts[0] - parts[1])
        parts.append(left * hours[2] * daily / 24)
        prices = [
            Fraction(repr(PRICES["ETH/USDT"](end // 3600 - START.timestamp() // 3600)))
            if trade["is_short"]
            else Fraction(1)
            for end in times[1:]
        ]
        expected = sum(part * price for part, price in zip(parts, prices, strict=True))
        assert -trade["funding_fees"] == pytest.approx(float(expected), abs=1e-6)


def test_a_leverage_that_the_side_does_not_have_ends_a_backtest(
    exchange: LocalExchange, tmp_path: Path
) -> None:
    """Without the mixin, which caps it, a short of 3x on a 3x pair is no result but an error with its cap."""
    config = prepared(tmp_path, exchange)
    strategy = CRASHING.replace('3.0 if kwargs["side"] == "long" else 2.0', "3.0")
    with freqtrade(
        tmp_path, config, strategy, "backtesting", *RANGE, "--cache", "none", module=MODULE
    ) as bot:
        assert bot.wait(200) != 0
        bot.wait_for("ETH/USDT short with leverage 3 is above 2, the highest of its tiers on this side")


HYPEROPT = """
from freqtrade.strategy import IntParameter

class Tested(IsolatedMarginMixin, Base, IStrategy):
    timeframe = "5m"
    can_short = True
    at = IntParameter(1, 50, default=5, space="buy")

    def populate_entry_trend(self, dataframe, metadata):
        side = "enter_long" if metadata["pair"] == "BTC/USDT" else "enter_short"
        dataframe.loc[dataframe.index % 60 == self.at.value, side] = 1
        return dataframe

    def populate_exit_trend(self, dataframe, metadata):
        dataframe.loc[dataframe.index % 60 == 55, ["exit_long", "exit_short"]] = 1
        return dataframe

    def leverage(self, **kwargs):
        return 2.0
"""


def test_hyperopt_with_two_workers(exchange: LocalExchange, tmp_path: Path) -> None:
    """Two workers compute epochs with the exchange class, of a strategy with the mixin."""
    config = prepared(tmp_path, exchange)
    options = ("--epochs", "4", "-j", "2", "--spaces", "buy", "--hyperopt-loss", "SharpeHyperOptLoss")
    with freqtrade(tmp_path, config, HYPEROPT, "hyperopt", *RANGE, *options, module=MODULE) as bot:
        assert bot.wait(250) == 0, bot.output[-3000:]
        assert "4 epochs saved" in re.sub(r"\x1b\[[0-9;]*m", "", bot.output)
