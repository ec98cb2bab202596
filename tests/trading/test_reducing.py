"""Positions that are reduced before their margin call: in backtests, and by real bots with money."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bot import freqtrade
from support.live_bot import (
    CENT,
    PAIR,
    Books,
    fulfilled,
    live_bot,
    live_strategy,
    margin_exchange,
    profit,
)
from support.margin_bot import (
    MODULE,
    RANGE,
    backtest_config,
    backtested,
    one_of_each,
    write_candles,
)
from support.network import until

from freqtrade_isolated_margin.account.maths import Holdings, Side, margin_level, value_to_close
from freqtrade_isolated_margin.errors import SettingsError
from freqtrade_isolated_margin.localexchange import LocalExchange
from freqtrade_isolated_margin.rules.settings import Settings

pytestmark = pytest.mark.timeout(300)

D = Decimal
REDUCE = {"at_level": 1.3, "to_level": 1.6}
# Nothing of the guard's stands in the way.
LIMITS = {
    "margin_level": {"block_below": 1.2, "full_above": 1.21},
    "liquidation_distance": {"block_below": 0.001, "full_above": 0.002},
}
GUARDED = live_strategy(3, "market").replace("class Tested(", "class Tested(IsolatedMarginMixin, ")


@given(
    debt=st.decimals("0.01", "1e6", places=4),
    level=st.decimals("1.01", "5", places=4),
    target=st.decimals("1.01", "5", places=4),
    price=st.decimals("0.0001", "1e5", places=4),
    side=st.sampled_from(Side),
)
def test_closing_so_much_brings_the_level_to_its_target(
    debt: Decimal, level: Decimal, target: Decimal, price: Decimal, side: Side
) -> None:
    """What is closed repays: the account of what is left stands there, or stood higher already."""
    owned = debt * level
    before = (
        Holdings(owned / price, D(0), D(0), debt)
        if side is Side.LONG
        else Holdings(D(0), owned, debt / price, D(0))
    )
    value = value_to_close(before, price, target)
    if target <= level:
        assert abs(value) < D("1e-9") * owned
        return
    if side is Side.LONG:
        after = before._replace(base=before.base - value / price, quote_debt=debt - value)
    else:
        after = before._replace(quote=owned - value, base_debt=before.base_debt - value / price)
    assert float(margin_level(after, price)) == pytest.approx(float(target), rel=1e-9)


STRATEGY = one_of_each("    position_adjustment_enable = True", mixin=True)


def test_a_backtest_reduces_as_the_level_falls_and_is_not_liquidated(tmp_path: Path) -> None:
    """At the first candle at or below the one level it closes what brings the account to the other."""
    prices = {
        "BTC/USDT": lambda hour: round(50_000 * (1 - hour / 160), 2),
        "ETH/USDT": lambda hour: round(2_500 * (1 + hour / 120), 2),
    }
    for pair, price in prices.items():
        write_candles(tmp_path, pair, price)
    with LocalExchange(scenario="calm") as exchange:
        config = backtest_config(exchange, list(prices), {"interest_rate": 0.0})
        config["isolated_margin"] |= {"backtest": "simulate", "reduce": REDUCE, **LIMITS}
        trades, output = backtested(tmp_path, config, STRATEGY)
    for trade in trades:
        entry, *reductions, _ = trade["orders"]
        assert trade["exit_reason"] == "force_exit"
        assert len(reductions) >= 1
        assert f"Tested, {trade['pair']}: reduced {len(reductions)} times." in output
        held, leverage = Fraction(repr(entry["amount"])), Fraction(repr(trade["leverage"]))
        opened = Fraction(repr(entry["safe_price"]))
        stake = held * opened / leverage
        owed = held if trade["is_short"] else held * opened - stake
        cash = stake + held * opened
        for order in reductions:
            assert order["ft_order_tag"] == "isolated margin reduce"
            price, closed = Fraction(repr(order["safe_price"])), Fraction(repr(order["amount"]))
            if trade["is_short"]:
                assert cash / (owed * price) <= Fraction("1.3")
                cash, owed = cash - closed * price, owed - closed
                after = cash / (owed * price)
            else:
                assert held * price / owed <= Fraction("1.3")
                held, owed = held - closed, owed - closed * price
                after = held * price / owed
            assert float(after) == pytest.approx(1.6, abs=0.001)


@pytest.mark.parametrize(
    ("side", "enters", "exits", "price"), [("long", "BUY", "SELL", "84"), ("short", "SELL", "BUY", "116")]
)
def test_a_live_bot_reduces_once_and_its_books_balance(
    tmp_path: Path, side: str, enters: str, exits: str, price: str
) -> None:
    """The exchange's own level is where it should be afterwards, and profit is the money."""
    strategy = GUARDED if side == "long" else GUARDED.replace("return 3", "return 2")
    section: dict[str, Any] = {"reduce": {**REDUCE, "pause_seconds": 5}, **LIMITS}
    with margin_exchange() as exchange:
        books = Books(exchange)
        with live_bot(tmp_path, exchange, strategy, section=section) as bot:
            bot.api("POST", "forceenter", pair=PAIR, side=side)
            line = fulfilled(bot, enters)
            exchange.set_price(PAIR, price)
            line = bot.wait_for(rf"Position reduced: {PAIR} {side}: margin level 1\.2.* ≤ 1\.3", after=line)
            line = fulfilled(bot, exits, after=line)
            row: Any = exchange.account_row("BTCUSDT")
            assert float(row["marginLevel"]) == pytest.approx(1.6, abs=0.02)
            until(lambda: bot.api("POST", "forceexit", tradeid="1", ordertype="market").get("result"))
            fulfilled(bot, exits, after=line)
            books.settled()
            assert abs(profit(bot) - books.earned) < CENT
            assert bot.output.count("Position reduced") == 1
            assert "Traceback" not in bot.output


@pytest.mark.parametrize(
    ("section", "why"),
    [
        ({"reduce": {"at_level": 1.6, "to_level": 1.3}}, r"to_level \(1.3\) must be above at_level \(1.6\)"),
        ({"reduce": {"at_level": 1.3}}, "isolated_margin.reduce.to_level: field required"),
        ({"reduce": {"at_level": 1, "to_level": 2}}, "isolated_margin.reduce.at_level"),
        ({"reduce": REDUCE, "trading": {"enabled": False}}, "reduce needs trading.enabled"),
        (
            {"reduce": {**REDUCE, "at_levl": 1}},
            r"reduce.at_levl is not a setting; did you mean 'at_level'\? \(allowed: at_level, pause_s",
        ),
    ],
)
def test_an_impossible_reduction_is_refused_by_name(section: dict[str, Any], why: str) -> None:
    """With what is wrong of it."""
    with pytest.raises(SettingsError, match=why):
        Settings.load({"trading": {"enabled": True}} | section)


@pytest.mark.parametrize(
    ("reduce", "strategy", "why"),
    [
        ({"at_level": 1.1, "to_level": 1.6}, STRATEGY, r"reduce.at_level \(1.1\) must be above 1.18"),
        (
            REDUCE,
            one_of_each(mixin=True),
            "reduce needs position_adjustment_enable: true",
        ),
    ],
)
def test_a_start_in_which_nothing_could_be_reduced_is_refused(
    tmp_path: Path, reduce: dict[str, Any], strategy: str, why: str
) -> None:
    """At a level at which the account is gone already, or where freqtrade would not ask."""
    write_candles(tmp_path, "BTC/USDT", lambda _: 50_000)
    with LocalExchange(scenario="calm") as exchange:
        config = backtest_config(exchange, ["BTC/USDT"])
        config["isolated_margin"] |= {"backtest": "simulate", "reduce": reduce}
        with freqtrade(tmp_path, config, strategy, "backtesting", *RANGE, module=MODULE) as bot:
            assert bot.wait(200) != 0
            bot.wait_for(why)
