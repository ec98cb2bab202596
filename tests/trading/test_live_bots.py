"""Real bots that trade with money on the local exchange: freqtrade's profit is the exchange's money."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from support.bot import FreqtradeProcess
from support.live_bot import CENT, PAIR, Books, fulfilled, live_bot, live_strategy, margin_exchange, profit
from support.network import until

from freqtrade_isolated_margin.localexchange import AccountSpec, LocalExchange

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def exchange() -> Iterator[LocalExchange]:
    """Serve one pair at a price of 100, and 10,000 USDT in the wallet."""
    with margin_exchange() as exchange:
        yield exchange


@pytest.mark.parametrize(("side", "enters", "exits"), [("long", "BUY", "SELL"), ("short", "SELL", "BUY")])
@pytest.mark.parametrize(("entry", "exit_"), [("limit", "market"), ("market", "limit")])
@pytest.mark.parametrize("leverage", [1, 3])
def test_a_trade_is_its_money(
    exchange: LocalExchange,
    tmp_path: Path,
    side: str,
    enters: str,
    exits: str,
    entry: str,
    exit_: str,
    leverage: int,
) -> None:
    """In and out again at another price: profit, wallet and account agree, and nothing is left behind."""
    books = Books(exchange)
    with live_bot(tmp_path, exchange, live_strategy(leverage, entry, exit_)) as bot:
        bot.api("POST", "forceenter", pair=PAIR, side=side)
        line = fulfilled(bot, enters)
        exchange.advance(2 * 3600)
        exchange.set_price(PAIR, "103")
        bot.api("POST", "forceexit", tradeid="1", ordertype=exit_)
        fulfilled(bot, exits, after=line)
        books.settled()
        assert abs(profit(bot) - books.earned) < CENT
        # Not after its end: Ctrl-C may interrupt freqtrade in the middle of a question to its database.
        assert "Traceback" not in bot.output


@pytest.mark.parametrize(("side", "enters", "exits"), [("long", "BUY", "SELL"), ("short", "SELL", "BUY")])
def test_the_highest_leverage_is_that_of_the_side(
    exchange: LocalExchange, tmp_path: Path, side: str, enters: str, exits: str
) -> None:
    """Where the guard's limits allow it: 10 for a long and 9 for a short of a pair with 10x."""
    limits = {"block_below": 1.06, "full_above": 1.07}
    section = {"margin_level": limits, "liquidation_distance": {"block_below": 0.01, "full_above": 0.02}}
    books = Books(exchange)
    with live_bot(tmp_path, exchange, live_strategy(20), section=section) as bot:
        leverage = 10 if side == "long" else 9
        answer = bot.api("POST", "forceenter", pair=PAIR, side=side, leverage=leverage)
        assert "trade_id" in answer, answer
        line = fulfilled(bot, enters)
        exchange.set_price(PAIR, "100.5" if side == "long" else "99.5")
        until(lambda: bot.api("POST", "forceexit", tradeid="1", ordertype="market").get("result"))
        fulfilled(bot, exits, after=line)
        books.settled()
        assert abs(profit(bot) - books.earned) < CENT
        assert bot.rows("SELECT leverage FROM trades") == [(float(leverage),)]


def cancelled(bot: FreqtradeProcess) -> None:
    """Cancel the open order of the first trade, as soon as freqtrade has it in its database."""
    until(lambda: bot.rows("SELECT id FROM orders WHERE ft_is_open = 1"))
    # Its answer is an error where that deletes the trade, which it would show.
    bot.api("DELETE", "trades/1/open-order")


@pytest.mark.parametrize(("side", "factor"), [("long", 0.9), ("short", 1.1)])
def test_an_entry_that_is_not_filled_is_undone(
    exchange: LocalExchange, tmp_path: Path, side: str, factor: float
) -> None:
    """Cancelled, its loan is repaid and its collateral is back; it has cost the first hour, and no more."""
    books = Books(exchange)
    more = f"""
    def custom_entry_price(self, proposed_rate, **kwargs):
        return proposed_rate * {factor}
"""
    with live_bot(tmp_path, exchange, live_strategy(2, more=more)) as bot:
        bot.api("POST", "forceenter", pair=PAIR, side=side)
        until(lambda: books.account().get("USDT borrowed" if side == "long" else "BTC borrowed"))
        cancelled(bot)
        books.settled()
        assert until(lambda: bot.rows("SELECT COUNT(*) FROM trades") == [(0,)])
        # An hour's interest of 600 USDT, or of 6 BTC, and what it costs to buy a debt in BTC below an order.
        assert -books.earned < Decimal("0.03")
        assert "Traceback" not in bot.output


@pytest.mark.parametrize(("side", "enters", "exits"), [("long", "BUY", "SELL"), ("short", "SELL", "BUY")])
def test_an_entry_that_is_partly_filled_keeps_what_it_has(
    exchange: LocalExchange, tmp_path: Path, side: str, enters: str, exits: str
) -> None:
    """What was filled is a trade, which is closed as any other."""
    books = Books(exchange)
    exchange.set_liquidity(PAIR, "2.5")
    with live_bot(tmp_path, exchange, live_strategy(2)) as bot:
        bot.api("POST", "forceenter", pair=PAIR, side=side)
        until(lambda: exchange.margin_orders and exchange.margin_orders[0].executed)
        cancelled(bot)
        line = fulfilled(bot, enters)
        exchange.set_liquidity(PAIR, None)
        exchange.set_price(PAIR, "102")
        until(lambda: bot.api("POST", "forceexit", tradeid="1").get("result"))
        fulfilled(bot, exits, after=line)
        books.settled()
        assert abs(profit(bot) - books.earned) < CENT
        assert "Traceback" not in bot.output


@pytest.mark.parametrize(("side", "enters", "exits"), [("long", "BUY", "SELL"), ("short", "SELL", "BUY")])
def test_a_trade_is_increased_and_partly_closed(
    exchange: LocalExchange, tmp_path: Path, side: str, enters: str, exits: str
) -> None:
    """Each step borrows or repays its part, and the books balance over all of them."""
    books = Books(exchange)
    with live_bot(tmp_path, exchange, live_strategy(2)) as bot:
        bot.api("POST", "forceenter", pair=PAIR, side=side)
        line = fulfilled(bot, enters)
        exchange.set_price(PAIR, "101")
        assert bot.api("POST", "forceenter", pair=PAIR, side=side, stakeamount=200).get("trade_id")
        line = fulfilled(bot, enters, after=line)
        exchange.advance(3600)
        exchange.set_price(PAIR, "102")
        amount = until(lambda: bot.api("GET", "status")[0]["amount"])
        bot.api("POST", "forceexit", tradeid="1", amount=amount / 4, ordertype="market")
        line = fulfilled(bot, exits, after=line)
        exchange.advance(3600)
        exchange.set_price(PAIR, "99")
        until(lambda: bot.api("POST", "forceexit", tradeid="1", ordertype="market").get("result"))
        fulfilled(bot, exits, after=line)
        books.settled()
        assert abs(profit(bot) - books.earned) < CENT
        assert "Traceback" not in bot.output


@pytest.mark.parametrize(("side", "enters", "price"), [("long", "BUY", "94.5"), ("short", "SELL", "105.5")])
def test_a_stop_loss_on_the_exchange_repays(
    exchange: LocalExchange, tmp_path: Path, side: str, enters: str, price: str
) -> None:
    """Stopped out by the exchange itself, the account is settled, interest included."""
    books = Books(exchange)
    strategy = live_strategy(2).replace('"stoploss_on_exchange": False', '"stoploss_on_exchange": True')
    strategy = strategy.replace("can_short = True", "can_short = True\n    stoploss = -0.1")
    with live_bot(tmp_path, exchange, strategy) as bot:
        bot.api("POST", "forceenter", pair=PAIR, side=side)
        fulfilled(bot, enters)
        until(lambda: any(order.type == "STOP_LOSS_LIMIT" for order in exchange.margin_orders))
        exchange.advance(5 * 3600)
        exchange.set_price(PAIR, price)
        books.settled()
        earned = books.earned
        assert abs(profit(bot) - earned) < CENT
        assert bot.rows("SELECT exit_reason FROM trades") == [("stoploss_on_exchange",)]
        assert "Traceback" not in bot.output


@pytest.mark.parametrize(("side", "enters", "price"), [("long", "BUY", "50"), ("short", "SELL", "145")])
def test_a_forced_liquidation_closes_the_trade(
    exchange: LocalExchange, tmp_path: Path, side: str, enters: str, price: str
) -> None:
    """Freqtrade's trade is closed as a liquidation at what the exchange got, and the bot lives."""
    books = Books(exchange)
    with live_bot(tmp_path, exchange, live_strategy(2)) as bot:
        bot.api("POST", "forceenter", pair=PAIR, side=side)
        fulfilled(bot, enters)
        until(lambda: bot.api("GET", "status")[0]["amount"])
        exchange.advance(3600)
        # At once, before freqtrade can sell by itself.
        exchange.state.liquidation_grace = 0.0
        exchange.set_price(PAIR, price)
        books.settled()
        assert abs(profit(bot) - books.earned) < CENT
        assert until(lambda: bot.rows("SELECT exit_reason FROM trades") == [("liquidation",)])
        bot.wait_for("LOOP", after=len(bot.lines))
        assert "Traceback" not in bot.output


@pytest.mark.parametrize(("side", "enters", "exits"), [("long", "BUY", "SELL"), ("short", "SELL", "BUY")])
def test_with_collateral_of_the_account_nothing_is_moved(
    exchange: LocalExchange, tmp_path: Path, side: str, enters: str, exits: str
) -> None:
    """The stake is what the account holds, the wallet is the sum of the accounts; what is earned stays."""
    exchange.set_account(PAIR, AccountSpec(quote_free="1000"))
    books = Books(exchange)
    changes = {"trading": {"collateral": "account"}}
    with live_bot(tmp_path, exchange, live_strategy(2), **changes) as bot:
        balance = bot.api("GET", "balance")
        assert balance["total_bot"] == pytest.approx(990)
        # All that is free is collateral: only what is beyond it is borrowed.
        bot.api("POST", "forceenter", pair=PAIR, side=side, stakeamount=800)
        line = fulfilled(bot, enters)
        exchange.advance(3600)
        exchange.set_price(PAIR, "101")
        until(lambda: bot.api("POST", "forceexit", tradeid="1", ordertype="market").get("result"))
        fulfilled(bot, exits, after=line)
        until(lambda: not set(books.account()) - {"USDT free", "BTC free"})
        assert abs(profit(bot) - books.earned) < CENT
        assert not [
            r for r in exchange.requests if r.path == "/sapi/v1/asset/transfer" and r.method == "POST"
        ]
        assert "Traceback" not in bot.output


@pytest.mark.parametrize(
    ("account", "said"),
    [
        ({"quote_free": "100", "quote_borrowed": "40"}, "owes 40 USDT, which this bot did not borrow"),
        ({"quote_free": "100"}, "holds 100 USDT, which this bot did not move there"),
    ],
)
def test_an_account_of_somebody_else_is_not_entered(
    exchange: LocalExchange, tmp_path: Path, account: dict[str, str], said: str
) -> None:
    """What is in it is not this bot's, so nothing is moved or borrowed there."""
    exchange.set_account(PAIR, AccountSpec(**account))
    with live_bot(tmp_path, exchange) as bot:
        answer = bot.api("POST", "forceenter", pair=PAIR, side="long")
        assert said in str(answer)
        assert not [r for r in exchange.requests if r.method == "POST" and "/sapi/" in r.path]


def test_no_account_beyond_the_limit(exchange: LocalExchange, tmp_path: Path) -> None:
    """Said before money moves."""
    exchange.state.max_accounts = 0
    with live_bot(tmp_path, exchange) as bot:
        answer = bot.api("POST", "forceenter", pair=PAIR, side="long")
        assert "all 0 isolated margin accounts are in use" in str(answer)
        assert not [r for r in exchange.requests if r.method == "POST" and "/sapi/" in r.path]


def test_the_guard_refuses_before_collateral_is_moved(exchange: LocalExchange, tmp_path: Path) -> None:
    """A new trade and an increase alike, for the account as it would be."""
    section = {"margin_level": {"block_below": 1.6}}
    with live_bot(tmp_path, exchange, live_strategy(3), section=section) as bot:
        answer = bot.api("POST", "forceenter", pair=PAIR, side="long")
        assert "the isolated margin guard refuses: BTC/USDT long: block: margin level 1." in str(answer)
        assert not [r for r in exchange.requests if r.method == "POST" and "/sapi/" in r.path]
        assert "trade_id" in bot.api("POST", "forceenter", pair=PAIR, side="long", leverage=2)
        fulfilled(bot, "BUY")
        until(lambda: bot.rows("SELECT id FROM trades WHERE amount > 0"))
        moved = len([r for r in exchange.requests if r.path == "/sapi/v1/asset/transfer"])
        exchange.set_price(PAIR, "75")
        answer = bot.api("POST", "forceenter", pair=PAIR, side="long", stakeamount=100)
        assert "the isolated margin guard refuses: BTC/USDT long: block: margin level 1." in str(answer)
        assert len([r for r in exchange.requests if r.path == "/sapi/v1/asset/transfer"]) == moved
