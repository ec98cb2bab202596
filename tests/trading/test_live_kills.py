"""A live bot that is killed before or after each step that moves money, and started again.

With `kill -9`, a long's entry and a short's exit; `test_live_faults` has all of both in one process.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.bot import FreqtradeProcess
from support.live_bot import CENT, PAIR, Books, fulfilled, live_bot, live_strategy, margin_exchange, profit
from support.network import until

from freqtrade_isolated_margin.localexchange import Fault, LocalExchange

pytestmark = pytest.mark.timeout(300)

TRANSFER, ORDER = "/sapi/v1/asset/transfer", "/sapi/v1/margin/order"


class Point(NamedTuple):
    """A request: the n-th of a path in an entry or an exit, counted from 0."""

    path: str
    number: int


ENTRY = {"collateral": Point(TRANSFER, 0), "order": Point(ORDER, 0)}
EXIT = {"order": Point(ORDER, 0), "collateral": Point(TRANSFER, 0), "dust": Point(TRANSFER, 1)}


@pytest.fixture
def exchange() -> Iterator[LocalExchange]:
    """Serve one pair at a price of 100, and 10,000 USDT in the wallet."""
    with margin_exchange() as exchange:
        yield exchange


def hang_at(exchange: LocalExchange, point: Point, *, done: bool) -> Fault:
    """Let a request hang, before or after it has had its effect."""
    return exchange.faults.add(
        Fault(point.path, method="POST", skip=point.number, times=1, hang=True, done=done)
    )


def kill(bot: FreqtradeProcess, exchange: LocalExchange, fault: Fault) -> None:
    """Kill a bot as soon as its request hangs."""
    until(lambda: exchange.faults.hits(fault))
    os.killpg(bot.process.pid, signal.SIGKILL)
    bot.wait()
    exchange.faults.clear()


def ask(bot: FreqtradeProcess, path: str, **payload: Any) -> None:
    """Ask for something in the middle of which the bot is killed, so that no answer comes."""

    def run() -> None:
        try:
            bot.api("POST", path, **payload)
        except OSError:
            return

    threading.Thread(target=run, daemon=True).start()


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", ENTRY)
def test_killed_in_an_entry(exchange: LocalExchange, tmp_path: Path, step: str, *, done: bool) -> None:
    """Freqtrade never had the trade: what was begun is undone, and the collateral is back."""
    books = Books(exchange)
    fault = hang_at(exchange, ENTRY[step], done=done)
    with live_bot(tmp_path, exchange, live_strategy(2)) as bot:
        ask(bot, "forceenter", pair=PAIR, side="long")
        kill(bot, exchange, fault)
    with live_bot(tmp_path, exchange, live_strategy(2)) as bot:
        bot.wait_for("no trade owns what is in its isolated margin account")
        books.settled()
        bot.wait_for("LOOP", after=len(bot.lines))
        # Fees and spread of 600 USDT, twice, and an hour of interest, where the order was placed.
        assert -books.earned < (Decimal("1.3") if step == "order" and done else Decimal("0.000001"))
        assert bot.rows("SELECT id FROM trades") == []
        assert "Traceback" not in bot.output


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", EXIT)
def test_killed_in_an_exit(exchange: LocalExchange, tmp_path: Path, step: str, *, done: bool) -> None:
    """What was begun is found and finished; freqtrade's profit is the money all the same."""
    books = Books(exchange)
    with live_bot(tmp_path, exchange, live_strategy(2)) as bot:
        bot.api("POST", "forceenter", pair=PAIR, side="short")
        fulfilled(bot, "SELL")
        until(lambda: bot.rows("SELECT id FROM trades WHERE amount > 0"))
        exchange.set_price(PAIR, "101")
        fault = hang_at(exchange, EXIT[step], done=done)
        ask(bot, "forceexit", tradeid="1", ordertype="market")
        kill(bot, exchange, fault)
    with live_bot(tmp_path, exchange, live_strategy(2)) as bot:
        if step == "order" and not done:
            until(lambda: bot.api("POST", "forceexit", tradeid="1", ordertype="market").get("result"))
        books.settled()
        assert abs(profit(bot) - books.earned) < CENT
        assert "Traceback" not in bot.output
