"""Real backtests in which the guard judges by the accounts that the backtest's own trades make."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
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

from freqtrade_isolated_margin.errors import SettingsError
from freqtrade_isolated_margin.localexchange import LocalExchange
from freqtrade_isolated_margin.rules.settings import Settings

pytestmark = pytest.mark.timeout(300)

RATE = Fraction("0.0004")
# Nothing is shrunk: between the two no level of these tests lies.
NO_DISTANCE = {"block_below": 0.001, "full_above": 0.0011}

# A long of three times its stake that increases every other hour while the price falls; and a short.
AVERAGING = one_of_each(
    """
    position_adjustment_enable = True

    def populate_exit_trend(self, dataframe, metadata):
        dataframe.loc[dataframe.index == 400, ["exit_long", "exit_short"]] = 1
        return dataframe

    def adjust_trade_position(self, trade, current_time, **kwargs):
        asks = current_time.minute == 0 and current_time.hour % 2 == 0 and not trade.is_short
        return 20.0 if asks else None
""",
    mixin=True,
)


def falling(hour: float) -> float:
    """A price that loses half a percent of its first value an hour."""
    return round(50_000 * (1 - 0.005 * hour), 2)


@pytest.fixture(scope="module")
def exchange() -> Iterator[LocalExchange]:
    """Serve the markets that freqtrade wants to know."""
    with LocalExchange(scenario="calm") as exchange:
        yield exchange


def averaged(
    folder: Path, exchange: LocalExchange, block_below: float, mode: str = "simulate"
) -> tuple[list[dict[str, Any]], str]:
    """Run the averaging strategy with a limit of the margin level; return its trades and the output."""
    write_candles(folder, "BTC/USDT", falling)
    write_candles(folder, "ETH/USDT", lambda hour: round(2_500 - hour, 2))
    config = backtest_config(exchange, ["BTC/USDT", "ETH/USDT"], {"interest_rate": 0.0004})
    config["isolated_margin"] |= {
        "backtest": mode,
        "margin_level": {"block_below": block_below, "full_above": block_below + 0.0001},
        "liquidation_distance": NO_DISTANCE,
    }
    return backtested(folder, config, AVERAGING)


def level(entries: list[tuple[datetime, Fraction, Fraction]], at: datetime, price: Fraction) -> Fraction:
    """Compute the level of a long of three times its stake from its entries: when, amount, price."""
    assets = sum(amount for _, amount, _ in entries) * price
    hourly = RATE / 24
    debt = sum(
        amount * paid * 2 / 3 * (1 + hourly * charged_hours(opened, at)) for opened, amount, paid in entries
    )
    return assets / debt


def entries_of(trade: dict[str, Any]) -> list[tuple[datetime, Fraction, Fraction]]:
    """Return when a trade entered and increased, how much, and at which price."""
    return [
        (
            datetime.fromtimestamp(order["order_filled_timestamp"] / 1000, UTC),
            Fraction(repr(order["amount"])),
            Fraction(repr(order["safe_price"])),
        )
        for order in trade["orders"]
        if order["ft_is_entry"]
    ]


def test_increases_end_where_the_simulated_level_meets_the_limit(
    exchange: LocalExchange, tmp_path: Path
) -> None:
    """Each increase is placed if, and only if, its account is above it before and after."""
    limit = Fraction("1.4")
    trades, output = averaged(tmp_path, exchange, float(limit))
    (long,) = (trade for trade in trades if trade["pair"] == "BTC/USDT")
    entries = entries_of(long)
    closed = datetime.fromisoformat(long["close_date"])
    at, placed, refused = START + timedelta(hours=2), 0, 0
    while at < closed:
        before = [entry for entry in entries if entry[0] < at]
        price = Fraction(repr(falling((at - START).total_seconds() / 3600)))
        may = level(before, at, price) > limit
        done = [entry for entry in entries if entry[0] == at]
        assert bool(done) == may, at
        if done:
            assert level([*before, *done], at, price) > limit
        placed, refused = placed + len(done), refused + (not done)
        at += timedelta(hours=2)
    assert placed > 1
    assert refused > 1
    assert f"Tested, BTC/USDT: {refused} entries refused (margin_level {refused}), 0 stakes cut." in output


def test_an_entry_is_judged_by_its_account_as_it_would_be_after_it(
    exchange: LocalExchange, tmp_path: Path
) -> None:
    """Three times the stake is a level of 1.5, twice a short's as well: neither is entered."""
    trades, output = averaged(tmp_path, exchange, 1.6)
    assert trades == []
    for pair in ("BTC/USDT", "ETH/USDT"):
        assert f"Tested, {pair}: 1 entries refused (margin_level 1), 0 stakes cut." in output


def test_a_limit_that_nothing_meets_changes_no_trade(exchange: LocalExchange, tmp_path: Path) -> None:
    """The trades are those of a backtest without the guard."""
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    judged, _ = averaged(tmp_path / "with", exchange, 1.185)
    free, _ = averaged(tmp_path / "without", exchange, 1.185, "off")
    assert judged == free
    assert len(judged) == 2


def test_it_says_how_low_each_pairs_account_was_and_what_its_loans_cost(
    exchange: LocalExchange, tmp_path: Path
) -> None:
    """The long that falls stands lowest at its end, the short that gains at its beginning."""
    trades, output = averaged(tmp_path, exchange, 1.4)
    for trade in trades:
        told = re.search(
            rf"Tested, {trade['pair']}: lowest margin level (\S+), least liquidation distance (\S+) %, "
            r"(\S+) USDT of interest paid\.",
            output,
        )
        assert told, output[-3000:]
        entries, closed = entries_of(trade), datetime.fromisoformat(trade["close_date"])
        if trade["is_short"]:
            # Half a stake of collateral beside what was sold, and one hour charged.
            expected = Fraction("1.5") / (1 + RATE / 24)
        else:
            expected = level(entries, closed, Fraction(repr(trade["close_rate"])))
        assert float(told[1]) == pytest.approx(float(expected), abs=2e-4)
        # It is liquidated where its level has come down to the ratio of the tier.
        room = 1 - Fraction("1.18") / expected if not trade["is_short"] else expected / Fraction("1.18") - 1
        assert float(told[2]) == pytest.approx(float(room * 100), abs=0.02)
        assert float(told[3]) == pytest.approx(-trade["funding_fees"], abs=1e-6)


def test_without_trading_in_the_accounts_there_is_nothing_to_simulate() -> None:
    """The start is refused, with what it needs."""
    with pytest.raises(SettingsError, match=r'backtest "simulate" needs trading\.enabled'):
        Settings.load({"backtest": "simulate"})


def test_hyperopt_with_two_workers(exchange: LocalExchange, tmp_path: Path) -> None:
    """Each epoch judges by the accounts of its own trades."""
    write_candles(tmp_path, "BTC/USDT", falling)
    config = backtest_config(exchange, ["BTC/USDT"])
    config["isolated_margin"] |= {
        "backtest": "simulate",
        "margin_level": {"block_below": 1.6, "full_above": 1.7},
    }
    strategy = AVERAGING.replace(
        "    def leverage(self, **kwargs):\n        return 3.0",
        '    times = CategoricalParameter([2.0, 3.0], default=2.0, space="buy")\n\n'
        "    def leverage(self, **kwargs):\n        return self.times.value",
    ).replace("class Tested", "from freqtrade.strategy import CategoricalParameter\n\nclass Tested", 1)
    options = ("--epochs", "6", "-j", "2", "--spaces", "buy", "--hyperopt-loss", "SharpeHyperOptLoss")
    with freqtrade(
        tmp_path, config, strategy, "hyperopt", *RANGE, *options, "--print-all", module=MODULE
    ) as bot:
        assert bot.wait(250) == 0, bot.output[-3000:]
    (saved,) = (tmp_path / "user_data" / "hyperopt_results").glob("*.fthypt")
    found = {
        (times, trades > 0)
        for times, trades in re.findall(
            r'"params_dict":\{"times":([0-9.]+)\}.*?"total_trades":(\d+)', saved.read_text()
        )
        for trades in [int(trades)]
    }
    # A level of 2 is above the limit, one of 1.5 is not.
    assert found == {("2.0", True), ("3.0", False)}
