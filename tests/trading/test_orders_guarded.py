"""A real dry run whose every path to an order meets the guard, without the mixin in the strategy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.bot import FreqtradeProcess, freqtrade
from support.margin_bot import MODULE, margin_config

from freqtrade_isolated_margin.localexchange import Fault, LocalExchange, MarketSpec

pytestmark = pytest.mark.timeout(300)

PAIRS = ["BTC/USDT", "SOL/USDT", "XRP/USDT"]
PRICES = "/api/v3/ticker/price"

# Long BTC at 2x, short SOL at 3x, and an order for XRP that is not filled. Files tell it to go on.
STRATEGY = """
from pathlib import Path

class Tested(Base, IStrategy):
    can_short = True
    position_adjustment_enable = True

    def bot_loop_start(self, current_time, **kwargs):
        log.info("LOOP")

    def populate_entry_trend(self, dataframe, metadata):
        dataframe["enter_short" if metadata["pair"] == "SOL/USDT" else "enter_long"] = 1
        return dataframe

    def leverage(self, **kwargs):
        return 3.0 if kwargs["side"] == "short" else 2.0

    def custom_entry_price(self, pair, proposed_rate, **kwargs):
        return proposed_rate * 0.9 if pair == "XRP/USDT" else proposed_rate

    def adjust_entry_price(self, pair, current_order_rate, **kwargs):
        return current_order_rate * 1.01 if Path("replace").exists() else current_order_rate

    def adjust_trade_position(self, trade, **kwargs):
        return 50.0 if Path("more").exists() and not trade.has_open_orders else None
"""


@pytest.fixture
def exchange() -> Iterator[LocalExchange]:
    """Serve three pairs at a price of 100."""
    with LocalExchange(
        scenario="calm", markets=[MarketSpec(pair, price="100") for pair in PAIRS]
    ) as exchange:
        yield exchange


@pytest.fixture
def bot(
    exchange: LocalExchange, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[FreqtradeProcess]:
    """Run it with a limit that a long of 2x keeps (level 2) and a short of 3x does not (level 4/3)."""
    # Hours unless a test needs a new candle: the lock of a refusal shall not end before it is seen.
    timeframe = getattr(request, "param", "1h")
    config = margin_config(
        exchange, PAIRS, {"max_leverage": 10}, force_entry_enable=True, timeframe=timeframe
    )
    config["isolated_margin"] |= {"margin_level": {"block_below": 1.6}}
    strategy = STRATEGY.replace("can_short", f'timeframe = "{timeframe}"\n    can_short')
    with freqtrade(tmp_path, config, strategy, module=MODULE) as bot:
        bot.wait_for("LIMIT_BUY has been fulfilled.*BTC/USDT")
        yield bot
        assert bot.process.poll() is None, bot.output[-2000:]
        assert "Traceback" not in bot.output


def loops(bot: FreqtradeProcess, number: int = 2) -> None:
    """Let the bot go round."""
    line = len(bot.lines)
    for _ in range(number):
        line = bot.wait_for("LOOP", after=line)


def orders(bot: FreqtradeProcess, pair: str) -> list[Any]:
    """Return the orders that freqtrade has for a pair."""
    return bot.rows(f"SELECT ft_order_side, status FROM orders WHERE ft_pair = '{pair}'")


def locks(bot: FreqtradeProcess, pair: str) -> set[tuple[str, str]]:
    """Return sides and reasons of the locks of a pair."""
    return {
        (lock["side"], lock["reason"]) for lock in bot.api("GET", "locks")["locks"] if lock["pair"] == pair
    }


def test_a_signal_is_refused_for_the_account_as_it_would_be(bot: FreqtradeProcess) -> None:
    """The account is empty, but a short of 3x would stand at 1.3333: no order, a log line, and a lock."""
    bot.wait_for(r"Order refused, .*: SOL/USDT short: block: margin level 1\.3333 ≤ 1\.6 \(block_below\)")
    bot.wait_for("Unable to create trade for SOL/USDT: the isolated margin guard refuses")
    loops(bot)
    assert orders(bot, "SOL/USDT") == []
    assert locks(bot, "SOL/USDT") == {("short", "isolated margin: SOL/USDT margin_level after the order")}
    # Once: the lock keeps freqtrade from trying again in each loop.
    assert bot.output.count("Order refused") == 1


def test_an_increase_is_refused_and_an_exit_is_not(bot: FreqtradeProcess, exchange: LocalExchange) -> None:
    """Below the limit nothing is added to the position, which can be closed all the same."""
    exchange.set_price("BTC/USDT", "79")
    (bot.folder / "more").touch()
    bot.wait_for(r"Order refused, .*: BTC/USDT long: block: margin level 1\.5\d* ≤ 1\.6")
    bot.wait_for("Unable to adjust position of trade for BTC/USDT: the isolated margin guard refuses")
    assert len(orders(bot, "BTC/USDT")) == 1
    (bot.folder / "more").unlink()
    assert "error" not in bot.api("POST", "forceexit", tradeid="1")
    bot.wait_for("SELL has been fulfilled.*BTC/USDT")


@pytest.mark.parametrize("bot", ["1m"], indirect=True)
def test_a_replacement_is_refused_where_nothing_can_be_read(
    bot: FreqtradeProcess, exchange: LocalExchange
) -> None:
    """An order that would take another's place is not placed while the account cannot be read."""
    bot.wait_for("Order dry_run_buy_XRP.* was created")
    exchange.faults.add(Fault(path=PRICES, status=503, body=b""))
    (bot.folder / "replace").touch()
    bot.wait_for("Order refused, .*: XRP/USDT long: block: its account cannot be read")
    bot.wait_for("Unable to replace order for XRP/USDT: the isolated margin guard refuses")
    assert [status for _side, status in orders(bot, "XRP/USDT") if status == "open"] == []


def test_forceenter_is_refused_and_says_why(bot: FreqtradeProcess, exchange: LocalExchange) -> None:
    """/forceenter passes locks and asks no callback on an open position; the guard's reason is its answer."""
    exchange.set_price("BTC/USDT", "79")
    answer = bot.api("POST", "forceenter", pair="BTC/USDT", side="long", stakeamount=50)
    assert "the isolated margin guard refuses: BTC/USDT long: block: margin level 1.5" in str(answer)
    answer = bot.api("POST", "forceenter", pair="SOL/USDT", side="short", leverage=3)
    assert "the isolated margin guard refuses: SOL/USDT short: block: margin level 1.3333" in str(answer)
    assert len(orders(bot, "BTC/USDT")) == 1
    assert orders(bot, "SOL/USDT") == []


def test_a_leverage_that_no_tier_has_on_that_side_is_refused(bot: FreqtradeProcess) -> None:
    """Leverage is capped by freqtrade by the long side (10x); that of a short is lower by one (1 / 0.111)."""
    answer = bot.api("POST", "forceenter", pair="SOL/USDT", side="short", leverage=10)
    assert "SOL/USDT short: block: leverage 10 is above 9.009, the highest of its tiers" in str(answer)
