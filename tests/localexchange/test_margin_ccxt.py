"""The real ccxt trades in isolated margin accounts of the local exchange, over real HTTP."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import ccxt
import pytest

from freqtrade_isolated_margin.localexchange import AccountSpec, Fault, LocalExchange

PAIR = "SOL/USDT"
ISOLATED = {"marginMode": "isolated"}


def borrowing(**more: Any) -> dict[str, Any]:
    """Parameters of an order that borrows and repays."""
    return {**ISOLATED, "sideEffectType": "AUTO_BORROW_REPAY", **more}


@pytest.fixture(scope="module")
def running() -> Iterator[LocalExchange]:
    """One exchange for all tests here, whose key may transfer."""
    with LocalExchange(permissions={"permitsUniversalTransfer": True}) as exchange:
        yield exchange


@pytest.fixture
def exchange(running: LocalExchange) -> LocalExchange:
    """Return the exchange with an empty account, a full wallet and SOL at 150."""
    running.faults.clear()
    running.set_liquidity(PAIR, None)
    running.set_price(PAIR, "150")
    running.set_account(PAIR, AccountSpec())
    running.set_balance("USDT", "10000")
    return running


@pytest.fixture(scope="module")
def client(running: LocalExchange) -> ccxt.binance:
    """Return a client that knows the markets."""
    client = ccxt.binance(
        {
            "apiKey": running.key,
            "secret": running.secret,
            "enableRateLimit": False,
            "urls": {"api": running.ccxt_urls},
            "options": {"fetchMarkets": {"types": ["spot"]}},
        }
    )
    client.load_markets()
    return client


def quote_side(exchange: LocalExchange) -> dict[str, str]:
    """Return the account's USDT."""
    return exchange.account_row(PAIR)["quoteAsset"]  # type: ignore[return-value]


def base_side(exchange: LocalExchange) -> dict[str, str]:
    """Return the account's SOL."""
    return exchange.account_row(PAIR)["baseAsset"]  # type: ignore[return-value]


def test_a_long_from_transfer_to_transfer(exchange: LocalExchange, client: ccxt.binance) -> None:
    """Collateral goes in, a market order borrows, the sale repays, and all that is left comes back."""
    before = exchange.net_assets()["USDT"]
    client.transfer("USDT", 100, "spot", "isolated", {"symbol": PAIR})
    bought = client.create_order(PAIR, "market", "buy", 1.5, None, borrowing())
    assert (bought["status"], bought["filled"], bought["fee"]["currency"]) == ("closed", 1.5, "SOL")
    assert Decimal(quote_side(exchange)["borrowed"]) == Decimal("225.0015") - 100
    sold = client.create_order(PAIR, "market", "sell", 1.498, None, {**ISOLATED, "reduceOnly": True})
    assert sold["status"] == "closed"
    assert (quote_side(exchange)["borrowed"], quote_side(exchange)["interest"]) == ("0", "0")
    left = float(
        client.sapi_get_margin_maxtransferable({"asset": "USDT", "isolatedSymbol": "SOLUSDT"})["amount"]
    )
    client.transfer("USDT", left, "isolated", "spot", {"symbol": PAIR})
    assert quote_side(exchange)["totalAsset"] == "0"
    assert exchange.balance("USDT")[0] == exchange.net_assets()["USDT"] - before + 10000


def test_a_resting_order_borrows_and_repays_when_cancelled(
    exchange: LocalExchange, client: ccxt.binance
) -> None:
    """A limit order borrows as it is accepted; once cancelled only the first hour's interest is left."""
    exchange.set_account(PAIR, AccountSpec(quote_free="100"))
    order = client.create_order(PAIR, "limit", "buy", 2, 140, borrowing())
    assert order["status"] == "open"
    assert (quote_side(exchange)["locked"], quote_side(exchange)["borrowed"]) == ("280", "180")
    assert [found["id"] for found in client.fetch_open_orders(PAIR, params=ISOLATED)] == [order["id"]]
    assert client.fetch_order(order["id"], PAIR, ISOLATED)["remaining"] == 2
    assert client.cancel_order(order["id"], PAIR, ISOLATED)["status"] == "canceled"
    side = quote_side(exchange)
    assert (side["locked"], side["interest"], side["borrowed"]) == ("0", "0", "0.0018")
    assert client.fetch_order(order["id"], PAIR, ISOLATED)["status"] == "canceled"
    with pytest.raises(ccxt.OrderNotFound):
        client.cancel_order(order["id"], PAIR, ISOLATED)


def test_a_short_is_partly_filled_and_found_in_my_trades(
    exchange: LocalExchange, client: ccxt.binance
) -> None:
    """A short borrows the base; its executions are listed, and buying what is owed repays it."""
    exchange.set_account(PAIR, AccountSpec(quote_free="1000"))
    exchange.set_liquidity(PAIR, "2")
    order = client.create_order(PAIR, "limit", "sell", 5, 150, borrowing(clientOrderId="short-1"))
    assert order["status"] == "open"
    assert base_side(exchange)["borrowed"] == "5"
    exchange.set_price(PAIR, "151")
    assert client.fetch_order(order["id"], PAIR, ISOLATED)["filled"] == 2
    exchange.set_liquidity(PAIR, None)
    exchange.wait_for(lambda ex: ex.margin_orders[-1].status == "FILLED")
    trades = client.fetch_my_trades(PAIR, params=ISOLATED)
    assert [(trade["order"], trade["amount"]) for trade in trades[-2:]] == [
        (order["id"], 2),
        (order["id"], 3),
    ]
    owed = Decimal(base_side(exchange)["borrowed"]) + Decimal(base_side(exchange)["interest"])
    amount = float((owed / Decimal("0.999")).quantize(Decimal("0.00001")) + Decimal("0.00001"))
    client.create_order(PAIR, "market", "buy", amount, None, {**ISOLATED, "sideEffectType": "AUTO_REPAY"})
    assert (base_side(exchange)["borrowed"], base_side(exchange)["interest"]) == ("0", "0")


def test_borrow_and_repay_by_hand(exchange: LocalExchange, client: ccxt.binance) -> None:
    """A loan is given and paid back by itself, interest first, and both are on record."""
    exchange.set_account(PAIR, AccountSpec(quote_free="100"))
    assert client.borrow_isolated_margin(PAIR, "USDT", 240)["id"]
    assert client.fetch_borrow_interest("USDT", PAIR)[0]["amountBorrowed"] == 240
    with pytest.raises(ccxt.ExchangeError, match="-3015"):
        client.repay_isolated_margin(PAIR, "USDT", 241)
    client.repay_isolated_margin(PAIR, "USDT", 240.0024)
    assert (quote_side(exchange)["borrowed"], quote_side(exchange)["free"]) == ("0", "99.9976")
    (row, *_) = client.sapi_get_margin_borrow_repay({"type": "REPAY", "isolatedSymbol": "SOLUSDT"})["rows"]
    assert (row["amount"], row["principal"], row["interest"]) == ("240.0024", "240", "0.0024")


def test_rates_and_limits(exchange: LocalExchange, client: ccxt.binance) -> None:
    """Rates and limits are answered in the shapes that ccxt parses."""
    exchange.set_account(PAIR, AccountSpec(quote_free="100"))
    asked = {"asset": "USDT", "isolatedSymbol": "SOLUSDT"}
    assert client.sapi_get_margin_maxborrowable(asked) == {"amount": "400", "borrowLimit": "500000"}
    assert client.fetch_isolated_borrow_rate(PAIR)["quoteRate"] == 0.00024
    assert {row["rate"] for row in client.fetch_borrow_rate_history("USDT", limit=5)} == {0.00024}
    (rate,) = client.sapi_get_margin_next_hourly_interest_rate({"assets": "USDT", "isIsolated": "TRUE"})
    assert Decimal(rate["nextHourlyInterestRate"]) == Decimal("0.00001")
    assert client.sapi_get_bnbburn() == {"spotBNBBurn": False, "interestBNBBurn": False}


def test_transfers_are_listed(exchange: LocalExchange, client: ccxt.binance) -> None:
    """A transfer is found in the history."""
    made = client.transfer("USDT", 25, "spot", "isolated", {"symbol": PAIR})
    rows = client.sapi_get_asset_transfer({"type": "MAIN_ISOLATED_MARGIN", "toSymbol": "SOLUSDT"})["rows"]
    assert (str(rows[0]["tranId"]), rows[0]["amount"]) == (made["id"], "25")


def test_an_accepted_order_whose_answer_is_lost(exchange: LocalExchange, client: ccxt.binance) -> None:
    """An order whose answer is lost is found by its client order id."""
    exchange.set_account(PAIR, AccountSpec(quote_free="100"))
    exchange.faults.add(Fault("/sapi/v1/margin/order", method="POST", reset=True, times=1))
    with pytest.raises(ccxt.NetworkError):
        client.create_order(PAIR, "market", "buy", 1, None, borrowing(clientOrderId="lost-1"))
    found = client.fetch_order("", PAIR, {**ISOLATED, "origClientOrderId": "lost-1"})
    assert found["status"] == "closed"


def test_an_order_that_was_refused_before_it_had_an_effect(
    exchange: LocalExchange, client: ccxt.binance
) -> None:
    """An order that an injected error has met is not there."""
    exchange.set_account(PAIR, AccountSpec(quote_free="100"))
    exchange.faults.add(Fault("/sapi/v1/margin/order", method="POST", code=-1001, times=1))
    with pytest.raises(ccxt.BaseError):
        client.create_order(PAIR, "market", "buy", 1, None, borrowing(clientOrderId="never-1"))
    with pytest.raises(ccxt.OrderNotFound):
        client.fetch_order("", PAIR, {**ISOLATED, "origClientOrderId": "never-1"})
