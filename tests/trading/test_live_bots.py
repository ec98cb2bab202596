"""Real bots that trade with money on the local exchange: freqtrade's profit is the exchange's money."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.live_bot import CENT, PAIR, Books, fulfilled, live_bot, live_strategy, margin_exchange, profit

from freqtrade_isolated_margin.localexchange import LocalExchange

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
    if side == "short" and leverage == 3:
        leverage = 2
    books = Books(exchange)
    with live_bot(tmp_path, exchange, live_strategy(leverage, entry, exit_)) as bot:
        print(bot.api("POST", "forceenter", pair=PAIR, side=side))
        line = fulfilled(bot, enters)
        exchange.advance(2 * 3600)
        exchange.set_price(PAIR, "103")
        print(bot.api("POST", "forceexit", tradeid="1", ordertype=exit_))
        fulfilled(bot, exits, after=line)
        books.settled()
        assert abs(profit(bot) - books.earned) < CENT
        assert bot.stop() in (0, 130)
        assert "Traceback" not in bot.output
