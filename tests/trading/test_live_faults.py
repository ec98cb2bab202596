"""Lost answers, refusals and kills at each request that moves money: no half trade, and the same books."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from support.floor import PATIENCE_MS, Floor, Killed, floor
from support.live_bot import CENT, margin_exchange

from freqtrade_isolated_margin.localexchange import Fault, LocalExchange

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def bot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Floor]:
    """Run a bot in this process, on one pair."""
    with margin_exchange() as exchange, floor(tmp_path_factory.mktemp("floor"), exchange) as made:
        yield made


@pytest.fixture
def trader(bot: Floor) -> Floor:
    """The bot as new, at a price of 100, with 10,000 USDT in the wallet."""
    bot.begin_anew()
    return bot


@pytest.mark.parametrize("side", ["long", "short"])
def test_without_a_fault_the_books_balance(trader: Floor, side: str) -> None:
    """In and out again at another price."""
    assert trader.enter(side)
    trader.loop()
    trader.exchange.set_price("BTC/USDT", "103")
    assert trader.exit()
    trader.settle()
    assert abs(trader.profit - trader.books.earned) < CENT


TRANSFER, ORDER = "/sapi/v1/asset/transfer", "/sapi/v1/margin/order"
ENTRY = [(TRANSFER, 0), (ORDER, 0)]
EXIT = [(ORDER, 0), (TRANSFER, 0), (TRANSFER, 1)]
LOST = {
    "taken, and the answer is lost": {"reset": True},
    "not taken, and the answer is lost": {"code": -1001, "reset": True},
    "taken, and answered as if nobody knew": {"code": -1007, "done": True},
    "not taken, and answered as if nobody knew": {"code": -1006},
}


def fault_at(exchange: LocalExchange, point: tuple[str, int], **kind: object) -> Fault:
    """Order a fault for the n-th request to a path from now on."""
    path, number = point
    return exchange.faults.add(Fault(path, method="POST", skip=number, times=1, **kind))  # type: ignore[arg-type]


def balanced(trader: Floor) -> None:
    """Nothing is owed or left behind, and freqtrade's profit is the money, but for what was undone."""
    trader.settle()
    assert abs(trader.profit + trader.beside - trader.books.earned) < 2 * CENT


@pytest.mark.parametrize("kind", LOST)
@pytest.mark.parametrize("point", ENTRY, ids=["collateral", "order"])
@pytest.mark.parametrize("side", ["long", "short"])
def test_an_answer_to_an_entry_is_lost(trader: Floor, side: str, point: tuple[str, int], kind: str) -> None:
    """Never an order twice, never a debt without a trade: it is found, or what was begun is undone."""
    fault = fault_at(trader.exchange, point, **LOST[kind])
    entered = trader.enter(side)
    assert trader.exchange.faults.hits(fault) == 1
    placed = [order for order in trader.exchange.margin_orders if order.side_effect == "MARGIN_BUY"]
    assert len(placed) <= 1
    assert entered == (trader.trade is not None)
    trader.loop()
    trader.exchange.set_price("BTC/USDT", "101")
    balanced(trader)


@pytest.mark.parametrize("kind", LOST)
@pytest.mark.parametrize("point", EXIT, ids=["order", "collateral", "dust"])
@pytest.mark.parametrize("side", ["long", "short"])
def test_an_answer_to_an_exit_is_lost(trader: Floor, side: str, point: tuple[str, int], kind: str) -> None:
    """Once out, and all that was moved back is back."""
    trader.enter(side)
    trader.loop()
    trader.exchange.set_price("BTC/USDT", "101")
    fault = fault_at(trader.exchange, point, **LOST[kind])
    trader.exit()
    balanced(trader)
    assert trader.exchange.faults.hits(fault) == 1
    assert abs(trader.beside) < CENT


@pytest.mark.parametrize("status", ["FAILED", "PENDING", "A NEW WORD"])
def test_a_transfer_counts_only_once_it_is_confirmed(trader: Floor, status: str) -> None:
    """The exchange's history also lists what failed, and what it has yet to do."""
    fault_at(trader.exchange, ENTRY[0], code=-1001, reset=True)
    asked_before = len([r for r in trader.exchange.requests if (r.method, r.path) == ("POST", ORDER)])

    def with_this(page: dict[str, Any]) -> dict[str, Any]:
        asked = [r for r in trader.exchange.requests if (r.method, r.path) == ("POST", TRANSFER)][-1].params
        row = {"asset": "USDT", "amount": asked["amount"], "type": asked["type"], "status": status}
        return {"total": 1, "rows": [*page.get("rows", []), row | {"tranId": 1, "timestamp": 1}]}

    trader.exchange.faults.add(Fault(TRANSFER, method="GET", transform=with_this))
    assert not trader.enter("long")
    trader.loop()
    assert not [r for r in trader.exchange.requests if (r.method, r.path) == ("POST", ORDER)][asked_before:]
    trader.exchange.faults.clear()
    balanced(trader)
    assert trader.books.earned == 0


@pytest.mark.parametrize(
    ("point", "code"),
    [
        *((ENTRY[0], code) for code in (-5013, -1002, -3020, -11001, -1021, -1003)),
        *((ENTRY[1], code) for code in (-2010, -1013, -3006, -3008, -3045, -11008, -3021, -2015, -1003)),
    ],
)
def test_a_refused_entry_leaves_no_half_trade(trader: Floor, point: tuple[str, int], code: int) -> None:
    """No trade, no debt, and the collateral is back at once."""
    fault_at(trader.exchange, point, code=code)
    entered = trader.enter("long")
    if code == -1021:
        # The clock is set, and it is asked once more.
        assert entered or point == ENTRY[1]
    else:
        assert not entered
        trader.loop()
        assert trader.books.account() == {}
        assert trader.books.earned == 0
    balanced(trader)


@pytest.mark.parametrize("point", EXIT, ids=["order", "collateral", "dust"])
@pytest.mark.parametrize("code", [-2010, -1013, -3020, -3041, -1003, -2015])
def test_a_refused_exit_is_tried_again(trader: Floor, point: tuple[str, int], code: int) -> None:
    """What could not be done now is done later, and nothing is lost of it."""
    trader.enter("short")
    trader.loop()
    fault_at(trader.exchange, point, code=code)
    trader.exit()
    balanced(trader)
    assert abs(trader.beside) < CENT


@pytest.mark.parametrize("call", range(8))
@pytest.mark.parametrize("side", ["long", "short"])
def test_killed_around_each_line_of_the_journal_in_an_entry(trader: Floor, side: str, call: int) -> None:
    """Before and after a step is written down, and before and after what came of it is."""
    with trader.killed_at(call) as happened, pytest.raises(Killed):
        trader.enter(side)
    assert happened()
    trader.restart()
    trader.exchange.set_price("BTC/USDT", "101")
    balanced(trader)
    assert trader.profit == 0


@pytest.mark.parametrize("call", range(12))
@pytest.mark.parametrize("side", ["long", "short"])
def test_killed_around_each_line_of_the_journal_in_an_exit(trader: Floor, side: str, call: int) -> None:
    """The same of an exit and of what follows it."""
    trader.enter(side)
    trader.loop()
    trader.exchange.set_price("BTC/USDT", "101")
    with trader.killed_at(call) as happened, pytest.raises(Killed):  # noqa: PT012 - which of them is not said
        trader.exit()
        trader.loop()
        trader.loop()
    assert happened()
    trader.restart()
    balanced(trader)
    assert abs(trader.beside) < CENT
    assert trader.profit != 0


@pytest.mark.parametrize("part", ["_deal_for", "_find_liquidation"])
def test_an_error_of_our_own_refuses_an_entry_and_lets_an_exit_pass(
    trader: Floor, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """The bot lives, nothing is bought, and the position is closed all the same."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    assert trader.enter("long")
    trader.loop()
    with monkeypatch.context() as patch:
        patch.setattr(trader.treasury, part, broken)
        orders = len(trader.exchange.margin_orders)
        assert not trader.enter("long", 100)
        assert len(trader.exchange.margin_orders) == orders
        assert trader.exit()
        assert len(trader.exchange.margin_orders) == orders + 1
    balanced(trader)


@pytest.mark.parametrize("call", range(4))
def test_killed_while_an_unknown_increase_is_traded_back(trader: Floor, call: int) -> None:
    """It is traded back after the next start, once, and not taken for done because that was begun."""
    assert trader.enter("long")
    trader.loop()
    # Killed once the increase is placed and its answer written down: freqtrade never hears of it.
    with trader.killed_at(7) as happened, pytest.raises(Killed):
        trader.enter("long")
    assert happened()
    trader.restart()
    with trader.killed_at(call) as happened, suppress(Killed):
        trader.bot.exchange.reload_markets()
    assert happened()
    trader.restart()
    for _ in range(8):
        trader.loop()
        time.sleep(PATIENCE_MS / 4000)
    assert trader.trade
    (account,) = trader.exchange.state.accounts.values()
    assert float(account.base.total) == pytest.approx(trader.trade.amount, rel=0.01)
    balanced(trader)


@pytest.mark.parametrize("side", ["long", "short"])
def test_what_was_exited_unknown_to_freqtrade_is_not_increased(trader: Floor, side: str) -> None:
    """Killed after an exit was sent, freqtrade learns of it when it exits next, and not before."""
    trader.enter(side)
    trader.loop()
    # Before what came of it is written down.
    with trader.killed_at(2) as happened, pytest.raises(Killed):
        trader.exit()
    assert happened()
    trader.restart()
    # It is found to have been placed, and freqtrade has not yet looked for it.
    trader.bot.exchange.reload_markets()
    trader.exchange.set_price("BTC/USDT", "97")
    before = len(trader.exchange.margin_orders)
    assert not trader.enter(side)
    assert len(trader.exchange.margin_orders) == before
    balanced(trader)
    assert abs(trader.beside) < CENT


@pytest.mark.parametrize("side", ["long", "short"])
def test_a_part_that_was_exited_unknown_to_freqtrade_is_found_with_the_rest(trader: Floor, side: str) -> None:
    """All that freqtrade is told to have been exited comes out to the position, or the trade stays open."""
    trader.enter(side)
    trader.loop()
    with trader.killed_at(2) as happened, pytest.raises(Killed):
        trader.exit(0.6)
    assert happened()
    trader.restart()
    trader.exchange.advance(5 * 3600)
    trader.exchange.set_price("BTC/USDT", "98")
    # It is found to have been placed, and freqtrade exits all that it knows of.
    trader.bot.exchange.reload_markets()
    trader.exit()
    balanced(trader)
    assert abs(trader.beside) < CENT


def test_what_could_not_be_moved_back_is_moved_in_the_next_loop_also_after_a_restart(trader: Floor) -> None:
    """Freqtrade has had the trade, and it is over: nothing is waited for."""
    trader.enter("short")
    trader.loop()
    trader.restart()
    trader.loop()
    fault_at(trader.exchange, EXIT[1], code=-5013)
    trader.exit()
    trader.loop()
    assert trader.trade is None
    trader.loop()
    assert trader.books.account() == {}
    balanced(trader)
