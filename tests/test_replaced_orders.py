"""Entry orders that a strategy moves with the price, on one real freqtrade that is started twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.bot import FreqtradeProcess, config_for, freqtrade

from freqtrade_isolated_margin.localexchange import AccountSpec, Fault, LocalExchange, MarketSpec, OrderRecord

pytestmark = pytest.mark.timeout(400)

PAIRS = ["BTC/USDT", "SOL/USDT", "XRP/USDT"]

STRATEGY = """
class Tested(IsolatedMarginMixin, Base, IStrategy):
    def bot_loop_start(self, current_time, **kwargs):
        log.info("LOOP")

    def custom_entry_price(self, proposed_rate, **kwargs):
        # An order that stays unfilled.
        return proposed_rate * 0.9

    def adjust_entry_price(self, pair, current_order_rate, **kwargs):
        log.info("%s is to be moved", pair)
        return current_order_rate + 1
"""

# At a price of 100: level 3, level 1.5 with a third of the way from 1.25 to 2, and level 1.2.
HEALTHY = AccountSpec(base_free="30", quote_borrowed="1000")
TIGHT = AccountSpec(base_free="15", quote_borrowed="1000")
BAD = AccountSpec(base_free="12", quote_borrowed="1000")


class Story(NamedTuple):
    """The bot in its second life, and its exchange, which at first tells nothing of the accounts."""

    bot: FreqtradeProcess
    exchange: LocalExchange

    def orders(self, pair: str) -> list[OrderRecord]:
        """Return the pair's entry orders that the exchange has seen."""
        return [order for order in self.exchange.orders if (order.pair, order.side) == (pair, "BUY")]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Let a bot place an order for each pair, and start it again when no account can be read."""
    folder: Path = tmp_path_factory.mktemp("replaced")
    with LocalExchange(
        scenario="calm", markets=[MarketSpec(pair, price="100") for pair in PAIRS]
    ) as exchange:
        for pair in PAIRS:
            exchange.set_account(pair, HEALTHY)
        section = {"refresh_seconds": 0.5, "max_age_seconds": 600}
        config = config_for(exchange, PAIRS, dry_run=False, isolated_margin=section)
        with freqtrade(folder, config, STRATEGY) as bot:
            assert exchange.wait_for(lambda ex: len(ex.orders) == len(PAIRS), 90)
            line = bot.wait_for("LOOP", after=len(bot.lines))
            bot.wait_for("LOOP", after=line)
        exchange.set_account("SOL/USDT", TIGHT)
        exchange.set_account("XRP/USDT", BAD)
        exchange.faults.add(Fault(path="/sapi/v1/margin/isolated/account", status=503, body=b""))
        with freqtrade(folder, config, STRATEGY) as bot:
            yield Story(bot, exchange)


def test_before_an_account_was_read_no_order_is_placed_anew(story: Story) -> None:
    """The strategy asks for it when the candle has closed, and each order stays on the exchange as it is."""
    for pair in PAIRS:
        line = story.bot.wait_for(f"{pair} is to be moved")
    for _ in range(2):
        line = story.bot.wait_for("LOOP", after=line)
    for pair in PAIRS:
        assert [order.status for order in story.orders(pair)] == ["NEW"]


def test_a_healthy_pairs_order_is_replaced_once_its_account_is_read(story: Story) -> None:
    """At the price that the strategy asks for, worth as much as before."""
    story.exchange.faults.clear()
    assert story.exchange.wait_for(lambda _: len(story.orders("BTC/USDT")) > 1, 60)
    first, second = story.orders("BTC/USDT")[:2]
    assert (first.status, second.price) == ("CANCELED", first.price + 1)
    assert second.quantity * second.price <= first.quantity * first.price


def test_a_pair_that_is_to_be_shrunk_now_is_not_placed_anew_in_full(story: Story) -> None:
    """Its order is cancelled; freqtrade's next entry is worth the third of 100 USDT that is allowed."""
    story.bot.wait_for(
        "entry order of SOL/USDT is to be cancelled and not replaced: its 99.* allowed now: SOL"
    )
    assert story.exchange.wait_for(lambda _: len(story.orders("SOL/USDT")) > 1, 60)
    first, second = story.orders("SOL/USDT")[:2]
    assert first.status == "CANCELED"
    assert second.quantity * second.price < 34


def test_a_blocked_pairs_order_is_cancelled_and_none_takes_its_place(story: Story) -> None:
    """By its margin level: as unfilled, or as to be moved if the read ended between the two."""
    story.bot.wait_for(
        "unfilled entry order of XRP/USDT is to be cancelled( and not replaced)?: "
        "XRP/USDT long: block: margin level"
    )
    assert story.exchange.wait_for(lambda _: story.orders("XRP/USDT")[0].status == "CANCELED", 60)
    line = len(story.bot.lines)
    for _ in range(2):
        line = story.bot.wait_for("LOOP", after=line)
    assert len(story.orders("XRP/USDT")) == 1
