"""One real freqtrade that is not in dry-run, from its first entry to its tenth reload: a story in order."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import pytest
from support.bot import FreqtradeProcess, config_for, freqtrade

from freqtrade_isolated_margin.localexchange import AccountSpec, Fault, LocalExchange, MarketSpec, OrderRecord

pytestmark = pytest.mark.timeout(400)

PAIRS = ["BTC/USDT", "SOL/USDT", "XRP/USDT", "FET/USDT", "ADA/USDT", "DOGE/USDT"]

STRATEGY = """
from pathlib import Path

class Tested(IsolatedMarginMixin, Base, IStrategy):
    position_adjustment_enable = True

    def bot_loop_start(self, current_time, **kwargs):
        readers = [t for t in threading.enumerate() if t.name == "isolated-margin-reader"]
        log.info("LOOP with %s readers", len(readers))

    def custom_entry_price(self, pair, proposed_rate, **kwargs):
        # An order that stays unfilled.
        return proposed_rate * 0.9 if pair == "FET/USDT" else proposed_rate

    def adjust_trade_position(self, trade, **kwargs):
        if trade.has_open_orders or not Path(trade.pair[:3] + ".add").exists():
            return None
        return 100.0
"""

# At a price of 100: level 3, level 1.5 with a third of the way from 1.25 to 2, and level 1.2.
HEALTHY = AccountSpec(base_free="30", quote_borrowed="1000")
TIGHT = AccountSpec(base_free="15", quote_borrowed="1000")
BAD = AccountSpec(base_free="12", quote_borrowed="1000")


class Story(NamedTuple):
    """The bot, its exchange and its folder."""

    bot: FreqtradeProcess
    exchange: LocalExchange
    folder: Path

    def orders(self, pair: str, side: str = "BUY") -> list[OrderRecord]:
        """Return the orders that the exchange has seen."""
        return [order for order in self.exchange.orders if (order.pair, order.side) == (pair, side)]

    def two_loops(self) -> None:
        """Let the bot go round twice, and the guard read at least once before."""
        seen = len(self.exchange.requests)
        path = "/sapi/v1/margin/isolated/account"
        assert self.exchange.wait_for(lambda ex: any(r.path == path for r in ex.requests[seen:]), 30)
        line = len(self.bot.lines)
        for _ in range(3):
            line = self.bot.wait_for("LOOP", after=line)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Start the bot on an exchange with a healthy, a tight and a blocked account."""
    folder = tmp_path_factory.mktemp("live")
    markets = [MarketSpec(pair, price="100") for pair in PAIRS]
    with LocalExchange(scenario="calm", markets=markets) as exchange:
        exchange.set_account("BTC/USDT", HEALTHY)
        exchange.set_account("SOL/USDT", TIGHT)
        exchange.set_account("XRP/USDT", BAD)
        exchange.set_account("FET/USDT", HEALTHY)
        exchange.set_account("ADA/USDT", AccountSpec(base_free="500"))
        exchange.remove_account("DOGE/USDT")
        config = config_for(exchange, PAIRS, dry_run=False)
        with freqtrade(folder, config, STRATEGY) as bot:
            bot.wait_for("LOOP")
            yield Story(bot, exchange, folder)


def first_order(story: Story, pair: str) -> OrderRecord:
    """Wait for the pair's first order and return it."""
    assert story.exchange.wait_for(lambda _: bool(story.orders(pair)), 60)
    return story.orders(pair)[0]


@pytest.mark.parametrize("pair", ["BTC/USDT", "ADA/USDT", "DOGE/USDT"])
def test_a_healthy_pair_is_entered_in_full(story: Story, pair: str) -> None:
    """A healthy account, one without debt and a pair without account get the whole stake, to the cent."""
    order = first_order(story, pair)
    assert round(order.quantity * order.price, 2) == Decimal("100.00")


def test_a_tight_pair_is_entered_with_what_the_rule_gives(story: Story) -> None:
    """A margin level of 1.5 is a third of the way from 1.25 to 2, so a third of 100 USDT is bought."""
    order = first_order(story, "SOL/USDT")
    assert round(order.quantity * order.price, 2) == Decimal("33.33")


def test_a_blocked_pair_is_never_entered_and_its_lock_says_why(story: Story) -> None:
    """A margin level of 1.2 gets no order, and a lock that names the pair and the rule without numbers."""
    story.two_loops()
    assert story.orders("XRP/USDT") == []
    assert story.bot.wait_for_locks("XRP/USDT") == {"XRP/USDT": "isolated margin: XRP/USDT margin_level"}


def test_the_log_has_the_numbers(story: Story) -> None:
    """The log's line on a blocked pair has the pair, the number and the limit."""
    story.bot.wait_for(r"XRP/USDT long: block: margin level 1\.2 ≤ 1\.25")


def test_a_lock_is_one_row_and_not_one_a_loop(story: Story) -> None:
    """Many loops on, the blocked pair still has a single lock for the candle."""
    story.two_loops()
    rows = story.bot.rows(
        "SELECT lock_end_time, count(*) FROM pairlocks WHERE pair = 'XRP/USDT' GROUP BY lock_end_time"
    )
    assert {count for _end, count in rows} == {1}


def test_a_position_increase_is_made_in_full_while_the_account_is_healthy(story: Story) -> None:
    """What `adjust_trade_position` adds reaches the exchange while the account allows it."""
    (story.folder / "BTC.add").touch()
    assert story.exchange.wait_for(lambda _: len(story.orders("BTC/USDT")) > 1, 60)
    order = story.orders("BTC/USDT")[1]
    assert round(order.quantity * order.price, 2) == Decimal("100.00")


def test_a_position_increase_is_refused_when_the_account_gets_bad(story: Story) -> None:
    """Once the account is near its margin call nothing more is added, although the strategy asks for it."""
    story.exchange.set_account("BTC/USDT", BAD)
    story.two_loops()
    before = len(story.orders("BTC/USDT"))
    story.two_loops()
    assert len(story.orders("BTC/USDT")) == before
    story.bot.wait_for("Entry refused: BTC/USDT long: block")


def test_an_unfilled_entry_order_is_cancelled_when_its_pair_becomes_blocked(story: Story) -> None:
    """An order resting on the exchange goes when its account gets bad, and none takes its place."""
    assert first_order(story, "FET/USDT").status == "NEW"
    story.exchange.set_account("FET/USDT", BAD)
    assert story.exchange.wait_for(lambda _: story.orders("FET/USDT")[0].status == "CANCELED", 30)
    story.two_loops()
    assert len(story.orders("FET/USDT")) == 1


def test_an_exit_is_not_hindered(story: Story) -> None:
    """A position whose account is blocked can be sold."""
    (story.folder / "BTC.add").unlink()
    trade = next(t for t in story.bot.api("GET", "status") if t["pair"] == "BTC/USDT")
    story.bot.api("POST", "forceexit", tradeid=str(trade["trade_id"]))
    assert story.exchange.wait_for(lambda _: bool(story.orders("BTC/USDT", "SELL")), 30)


def test_recovery_lifts_the_lock_and_the_pair_is_entered(story: Story) -> None:
    """A pair whose account recovers loses its lock at once, not at the candle's end, and is bought."""
    story.exchange.set_account("XRP/USDT", HEALTHY)
    first_order(story, "XRP/USDT")
    assert "XRP/USDT" not in story.bot.guard_locks()


def test_accounts_that_cannot_be_read_lock_every_pair_until_they_can(story: Story) -> None:
    """While the endpoint fails for longer than the limit all pairs are locked, and freed when it answers."""
    fault = Fault(path="/sapi/v1/margin/isolated/account", status=503, body=b"")
    line = len(story.bot.lines)
    story.exchange.faults.add(fault)
    line = story.bot.wait_for("accounts cannot be read", after=line)
    line = story.bot.wait_for("ADA/USDT long: block: the account is .* old", after=line)
    story.bot.wait_for_locks(*PAIRS)
    story.exchange.faults.clear()
    line = story.bot.wait_for("accounts are read again", after=line)
    line = story.bot.wait_for("ADA/USDT long: allow", after=line)
    story.bot.wait_for_locks("BTC/USDT", "FET/USDT")


def test_the_bot_outlives_the_exchange(story: Story) -> None:
    """When the whole exchange goes away and comes back, the same bot reads and trades on."""
    line = len(story.bot.lines)
    story.exchange.stop()
    line = story.bot.wait_for("accounts cannot be read", after=line)
    story.exchange.restart()
    line = story.bot.wait_for("accounts are read again", after=line)
    story.bot.wait_for("LOOP", after=line)
    assert story.bot.process.poll() is None


def test_ten_reloads_leave_one_reader(story: Story) -> None:
    """A bot that was reloaded ten times has one thread that reads, not eleven."""
    for _ in range(10):
        line = len(story.bot.lines)
        story.bot.api("POST", "reload_config")
        line = story.bot.wait_for("Changing state from RELOAD_CONFIG to: RUNNING", after=line)
    line = story.bot.wait_for("LOOP", after=line)
    assert story.bot.lines[line - 1].endswith("LOOP with 1 readers")


def test_it_ends_in_good_order(story: Story) -> None:
    """Ctrl-C ends the bot without an error of the guard, and nothing secret stands in its output."""
    status = story.bot.stop()
    assert status in (0, 130)
    assert "Traceback" not in story.bot.output.split("LOOP")[-1]
    assert story.exchange.secret not in story.bot.output
