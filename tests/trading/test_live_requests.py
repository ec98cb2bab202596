"""What a live exchange object sends and reads: real ccxt over real HTTP, without a bot around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import freqtrade.exchange as exchanges
import pytest
from freqtrade.enums import RunMode
from freqtrade.exceptions import FreqtradeException, OperationalException
from freqtrade.exchange.exchange_types import CcxtOrder
from freqtrade.persistence import Order, Trade, init_db
from support.margin_bot import margin_config

from freqtrade_isolated_margin.errors import AnswerError
from freqtrade_isolated_margin.localexchange import AccountSpec, LocalExchange, MarketSpec
from freqtrade_isolated_margin.localexchange.journal import RequestRecord
from freqtrade_isolated_margin.trading.desk import Purpose, Send, Ticket, sending
from freqtrade_isolated_margin.trading.exchange import MarginExchange
from freqtrade_isolated_margin.trading.live import LiveAccounts

D = Decimal
STOP = {"stoploss": "limit", "stoploss_on_exchange": True}


class Clerk:
    """A desk that only sends, under a client order id of its own, and notes what it is told."""

    def __init__(self) -> None:
        self.tickets: list[Ticket] = []
        self.heard: list[str] = []

    def start(self) -> None:
        self.heard.append("start")

    def place(self, ticket: Ticket, send: Send) -> CcxtOrder:
        self.tickets.append(ticket)
        with sending(newClientOrderId="made-here-1"):
            return send()

    def seen(self, pair: str, order: CcxtOrder) -> None:
        self.heard.append(f"seen {pair}")

    def loop(self) -> None:
        self.heard.append("loop")

    def close(self) -> None:
        self.heard.append("close")


@pytest.fixture(scope="module")
def server() -> Iterator[LocalExchange]:
    """Serve one pair at a price of 100."""
    with LocalExchange(scenario="calm", markets=[MarketSpec("BTC/USDT", price="100")]) as exchange:
        yield exchange


@pytest.fixture
def margin(server: LocalExchange) -> Iterator[MarginExchange]:
    """A live exchange object with a clerk at its desk, whose guard lets everything pass."""
    config = margin_config(server, ["BTC/USDT"], dry_run=False, runmode=RunMode.OTHER)
    made = MarginExchange(config, validate=False)
    made.reload_markets(True)
    made._desk = Clerk()
    made._live = LiveAccounts(made._make_adapter)
    made._ask_guard = lambda *_: None  # type: ignore[method-assign]
    yield made
    made.close()


def sent(server: LocalExchange, act: Any) -> RequestRecord:
    """Return the last request that `act` makes, whatever becomes of it."""
    before = len(server.requests)
    with suppress(FreqtradeException):
        act()
    return server.requests[before:][-1]


@pytest.mark.parametrize(
    ("side", "exits", "effect", "position"),
    [
        ("buy", False, "MARGIN_BUY", "long"),
        ("sell", False, "MARGIN_BUY", "short"),
        ("sell", True, "AUTO_REPAY", "long"),
        ("buy", True, "AUTO_REPAY", "short"),
    ],
)
def test_an_order_goes_to_the_isolated_account(
    server: LocalExchange, margin: MarginExchange, side: str, exits: bool, effect: str, position: str
) -> None:
    """Entries borrow and exits repay, both through the desk, and never to the spot endpoint."""
    order = {"pair": "BTC/USDT", "ordertype": "limit", "side": side, "amount": 1.0, "rate": 100.0}
    request = sent(server, lambda: margin.create_order(**order, leverage=3.0, reduceOnly=exits))
    assert (request.method, request.path) == ("POST", "/sapi/v1/margin/order")
    assert request.params["isIsolated"].lower() == "true"
    assert request.params["sideEffectType"] == effect
    assert request.params["newClientOrderId"] == "made-here-1"
    assert "reduceOnly" not in request.params
    (ticket,) = margin._desk.tickets
    assert ticket.purpose is (Purpose.EXIT if exits else Purpose.ENTRY)
    assert ticket.position == position
    assert ticket.new_trade is not exits
    assert margin._desk.heard[0] == "start"


@pytest.mark.parametrize(("side", "position"), [("sell", "long"), ("buy", "short")])
def test_a_stop_loss_repays(server: LocalExchange, margin: MarginExchange, side: str, position: str) -> None:
    """A stop on the exchange is a STOP_LOSS_LIMIT of the isolated account, which repays."""
    request = sent(server, lambda: margin.create_stoploss("BTC/USDT", 1.0, 90.0, STOP, side, 3.0))
    assert (request.method, request.path) == ("POST", "/sapi/v1/margin/order")
    assert request.params["type"] == "STOP_LOSS_LIMIT"
    assert request.params["sideEffectType"] == "AUTO_REPAY"
    assert "reduceOnly" not in request.params
    assert [(t.purpose, t.position) for t in margin._desk.tickets] == [(Purpose.STOP, position)]


@pytest.mark.parametrize(
    ("act", "method", "path"),
    [
        (lambda m: m.fetch_order("7", "BTC/USDT"), "GET", "order"),
        (lambda m: m.cancel_order("7", "BTC/USDT"), "DELETE", "order"),
        (lambda m: m.fetch_orders("BTC/USDT", datetime.now(UTC)), "GET", "allOrders"),
        (lambda m: m.get_trades_for_order("7", "BTC/USDT", datetime.now(UTC)), "GET", "myTrades"),
    ],
)
def test_orders_are_asked_for_and_cancelled_in_the_isolated_account(
    server: LocalExchange,
    margin: MarginExchange,
    act: Any,
    method: str,
    path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing about an order goes to the spot endpoints."""
    # Whoever retries waits longer each time.
    monkeypatch.setattr("freqtrade.exchange.common.time.sleep", lambda _: None)
    request = sent(server, lambda: act(margin))
    assert (request.method, request.path) == (method, f"/sapi/v1/margin/{path}")
    assert request.params["isIsolated"].lower() == "true"


def test_without_a_desk_nothing_is_sent(server: LocalExchange, margin: MarginExchange) -> None:
    """A live order has no way past the desk."""
    margin._desk = None
    before = len(server.requests)
    order = {"pair": "BTC/USDT", "ordertype": "limit", "side": "buy", "amount": 1.0, "rate": 100.0}
    with pytest.raises(OperationalException, match="nobody is there to send"):
        margin.create_order(**order, leverage=3.0)
    assert [request for request in server.requests[before:] if request.method == "POST"] == []


@pytest.fixture
def trade() -> Trade:
    """An open long of 3 BTC at 90, with 3x leverage."""
    init_db("sqlite://")
    now = datetime.now(UTC)
    made = Trade(
        pair="BTC/USDT", exchange="binance", is_short=False, leverage=3.0, open_rate=90.0, amount=3.0,
        stake_amount=90.0, fee_open=0.001, fee_close=0.001, open_date=now, is_open=True,
        trading_mode="futures",
    )  # fmt: skip
    made.orders.append(
        Order(
            order_id="1", ft_order_side="buy", ft_pair="BTC/USDT", ft_is_open=False, ft_amount=3.0,
            ft_price=90.0, status="closed", side="buy", amount=3.0, filled=3.0, price=90.0, average=90.0,
            order_date=now, order_filled_date=now,
        )
    )  # fmt: skip
    return made


def test_a_position_is_what_the_account_has(
    server: LocalExchange, margin: MarginExchange, trade: Trade
) -> None:
    """Size, collateral, profit and liquidation price come from the account, at its index price."""
    server.set_account("BTC/USDT", AccountSpec(base_free="3", quote_borrowed="180"))
    assert margin._live is not None
    (position,) = margin._live.positions([trade])
    assert position["side"] == "long"
    assert position["contracts"] == 3.0
    # It is worth 300 - 180, of which 30 are profit; 180 × 1.05 / 3 liquidates.
    assert position["unrealizedPnl"] == pytest.approx(30, abs=0.1)
    assert position["collateral"] == pytest.approx(90)
    assert position["liquidationPrice"] == pytest.approx(63)


def test_interest_is_what_was_charged_and_is_not_booked(
    server: LocalExchange, margin: MarginExchange, trade: Trade
) -> None:
    """The funding fees of a live trade are the exchange's charges, less what its orders have already."""
    server.set_account("BTC/USDT", AccountSpec(base_free="3"))
    server.borrow("BTC/USDT", "USDT", D(180))
    server.advance(3600)
    charged = D(180) * D("0.00024") / 24 * 2
    assert margin._live is not None
    assert margin._charged(margin._live, trade) == pytest.approx(-float(charged))
    trade.orders[0].funding_fee = -float(charged) / 2
    assert margin._charged(margin._live, trade) == pytest.approx(-float(charged) / 2)


def test_an_account_that_cannot_be_read_is_no_empty_position(
    server: LocalExchange, margin: MarginExchange, trade: Trade
) -> None:
    """Freqtrade would take a missing position for one that is gone."""
    server.remove_account("BTC/USDT")
    trade.pair = "ETH/USDT"
    assert margin._live is not None
    with pytest.raises(AnswerError, match="the account of ETH/USDT cannot be read"):
        margin._live.positions([trade])


def test_the_table_of_exchanges_is_as_it_was() -> None:
    """Importing the class registers nothing: only the command does."""
    assert exchanges.Binance.__module__ == "freqtrade.exchange.binance"
