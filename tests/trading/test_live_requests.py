"""What a live exchange object sends and reads: real ccxt over real HTTP, without a bot around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import freqtrade.exchange as exchanges
import pytest
from freqtrade.enums import RunMode
from freqtrade.exceptions import FreqtradeException, OperationalException
from freqtrade.persistence import Order, Trade, init_db
from support.margin_bot import margin_config

from freqtrade_isolated_margin.errors import AnswerError
from freqtrade_isolated_margin.localexchange import AccountSpec, LocalExchange, MarketSpec
from freqtrade_isolated_margin.localexchange.journal import RequestRecord
from freqtrade_isolated_margin.trading.live_exchange import LiveMarginExchange
from freqtrade_isolated_margin.trading.refusal import OrderRefusedError

D = Decimal
ORDER = "/sapi/v1/margin/order"
STOP = {"stoploss": "limit", "stoploss_on_exchange": True}


@pytest.fixture(scope="module")
def server() -> Iterator[LocalExchange]:
    """Serve one pair at a price of 100."""
    with LocalExchange(
        scenario="empty",
        markets=[MarketSpec("BTC/USDT", price="100")],
        permissions={"permitsUniversalTransfer": True},
    ) as exchange:
        yield exchange


@pytest.fixture
def margin(server: LocalExchange, tmp_path: Path) -> Iterator[LiveMarginExchange]:
    """A live exchange object whose guard lets everything pass, in an account that is clean."""
    server.remove_account("BTC/USDT")
    server.set_balance("USDT", 10_000)
    server.weights._windows.clear()
    init_db("sqlite://")
    config = margin_config(server, ["BTC/USDT"], dry_run=False, runmode=RunMode.LIVE, user_data_dir=tmp_path)
    made = LiveMarginExchange(config, validate=False)
    made.reload_markets(True)
    made._ask_guard = lambda *_: None  # type: ignore[method-assign]
    yield made
    made.close()


def sent(server: LocalExchange, method: str, path: str, act: Any) -> RequestRecord:
    """Return the last such request that `act` makes, whatever becomes of it."""
    before = len(server.requests)
    with suppress(FreqtradeException):
        act()
    return [
        request for request in server.requests[before:] if (request.method, request.path) == (method, path)
    ][-1]


def hold(server: LocalExchange, side: str) -> None:
    """Let the account have what an exit on this side closes."""
    bought, owed = AccountSpec(base_free="1"), AccountSpec(quote_free="500", base_borrowed="1")
    server.set_account("BTC/USDT", bought if side == "sell" else owed)


def test_an_exit_of_nothing_is_not_sent(server: LocalExchange, margin: LiveMarginExchange) -> None:
    """As of an order that may only reduce: it would open a position where there is none."""
    server.set_account("BTC/USDT", AccountSpec(quote_free="500"))
    before = len(server.requests)
    order = {"pair": "BTC/USDT", "ordertype": "market", "side": "buy", "amount": 1.0, "rate": 100.0}
    with pytest.raises(OrderRefusedError, match="there is nothing to exit"):
        margin.create_order(**order, leverage=3.0, reduceOnly=True)
    assert not [request for request in server.requests[before:] if request.method == "POST"]


@pytest.mark.parametrize(
    ("side", "exits", "leverage", "effect"),
    [
        ("buy", False, 3.0, "MARGIN_BUY"),
        ("sell", False, 1.0, "MARGIN_BUY"),
        ("buy", False, 1.0, "NO_SIDE_EFFECT"),
        ("sell", True, 3.0, "AUTO_REPAY"),
        ("buy", True, 3.0, "AUTO_REPAY"),
    ],
)
def test_an_order_goes_to_the_isolated_account(
    server: LocalExchange, margin: LiveMarginExchange, side: str, effect: str, leverage: float, *, exits: bool
) -> None:
    """Entries borrow and exits repay, under a name from the journal, and never at the spot endpoint."""
    if exits:
        hold(server, side)
    order = {"pair": "BTC/USDT", "ordertype": "limit", "side": side, "amount": 1.0, "rate": 100.0}
    request = sent(
        server, "POST", ORDER, lambda: margin.create_order(**order, leverage=leverage, reduceOnly=exits)
    )
    assert request.params["isIsolated"].lower() == "true"
    assert request.params["sideEffectType"] == effect
    assert request.params["newClientOrderId"].startswith("fim-")
    assert "reduceOnly" not in request.params


@pytest.mark.parametrize("side", ["sell", "buy"])
def test_a_stop_loss_repays(server: LocalExchange, margin: LiveMarginExchange, side: str) -> None:
    """A stop on the exchange is a STOP_LOSS_LIMIT of the isolated account, which repays."""
    hold(server, side)
    request = sent(
        server, "POST", ORDER, lambda: margin.create_stoploss("BTC/USDT", 1.0, 90.0, STOP, side, 3.0)
    )
    assert request.params["type"] == "STOP_LOSS_LIMIT"
    assert request.params["sideEffectType"] == "AUTO_REPAY"
    assert "reduceOnly" not in request.params


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
    margin: LiveMarginExchange,
    act: Any,
    method: str,
    path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing about an order goes to the spot endpoints."""
    # Whoever retries waits longer each time.
    monkeypatch.setattr("freqtrade.exchange.common.time.sleep", lambda _: None)
    request = sent(server, method, f"/sapi/v1/margin/{path}", lambda: act(margin))
    assert request.params["isIsolated"].lower() == "true"


def test_without_a_treasury_nothing_is_sent(server: LocalExchange, margin: LiveMarginExchange) -> None:
    """A live order has no way past it."""
    treasury, margin._treasury = margin._treasury, None
    before = len(server.requests)
    order = {"pair": "BTC/USDT", "ordertype": "limit", "side": "buy", "amount": 1.0, "rate": 100.0}
    with pytest.raises(OperationalException, match="nobody is there to send"):
        margin.create_order(**order, leverage=3.0)
    assert [request for request in server.requests[before:] if request.method == "POST"] == []
    margin._treasury = treasury


@pytest.fixture
def trade() -> Trade:
    """An open long of 3 BTC at 90, with 3x leverage."""
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
    server: LocalExchange, margin: LiveMarginExchange, trade: Trade
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
    server: LocalExchange, margin: LiveMarginExchange, trade: Trade
) -> None:
    """The funding fees of a live trade are the exchange's charges, less what its orders have already."""
    server.set_account("BTC/USDT", AccountSpec(base_free="3"))
    server.borrow("BTC/USDT", "USDT", D(180))
    server.advance(3600)
    charged = D(180) * D("0.00024") / 24 * 2
    Trade.session.add(trade)
    Trade.commit()
    asked = ("BTC/USDT", 3.0, False, datetime.now(UTC))
    assert margin.get_funding_fees(*asked) == pytest.approx(-float(charged))
    trade.orders[0].funding_fee = -float(charged) / 2
    assert margin.get_funding_fees(*asked) == pytest.approx(-float(charged) / 2)


def test_an_account_that_cannot_be_read_is_no_empty_position(
    server: LocalExchange, margin: LiveMarginExchange, trade: Trade
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
