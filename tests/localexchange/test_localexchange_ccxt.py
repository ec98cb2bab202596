"""The real ccxt over real HTTP against the local exchange."""

from collections.abc import Iterator
from typing import Any

import ccxt
import pytest

from freqtrade_isolated_margin.localexchange import Fault, LocalExchange


def binance(exchange: LocalExchange, **options: Any) -> ccxt.binance:
    """A ccxt client that is redirected and knows spot markets only."""
    return ccxt.binance(
        {
            "apiKey": exchange.key,
            "secret": exchange.secret,
            "enableRateLimit": False,
            "urls": {"api": exchange.ccxt_urls},
            "options": {"fetchMarkets": {"types": ["spot"]}, **options},
        }
    )


@pytest.fixture(scope="module")
def running() -> Iterator[LocalExchange]:
    """One exchange for all tests here."""
    with LocalExchange() as exchange:
        yield exchange


@pytest.fixture
def exchange(running: LocalExchange) -> LocalExchange:
    """Return the exchange without faults."""
    running.faults.clear()
    return running


@pytest.fixture
def client(exchange: LocalExchange) -> ccxt.binance:
    """Return a client that knows the markets."""
    client = binance(exchange)
    client.load_markets()
    return client


def test_markets(client: ccxt.binance) -> None:
    """Markets come with precision, limits and their margin modes."""
    market = client.market("BTC/USDT")
    assert market["active"] is True
    assert market["spot"] is market["margin"] is True
    assert market["marginModes"] == {"cross": True, "isolated": True}
    assert market["precision"]["price"] == 0.1
    assert market["limits"]["cost"]["min"] == 5
    assert client.currencies["BTC"]["active"] is not None


def test_market_data(client: ccxt.binance) -> None:
    """Candles, book, tickers and trades are parsed."""
    candles = client.fetch_ohlcv("ETH/USDT", "5m", limit=20)
    assert len(candles) == 20
    book = client.fetch_order_book("ETH/USDT", 5)
    assert book["bids"][0][0] < client.fetch_ticker("ETH/USDT")["last"] < book["asks"][0][0]
    assert set(client.fetch_tickers()) == set(client.markets)
    assert len(client.fetch_trades("ETH/USDT", limit=5)) == 5
    assert client.fetch_trading_fee("BTC/USDT")["taker"] == 0.001


def test_order_rests_is_found_and_cancelled(client: ccxt.binance) -> None:
    """A limit order is created, fetched, listed and cancelled."""
    free = client.fetch_balance()["USDT"]["free"]
    order = client.create_order("ETH/USDT", "limit", "buy", 0.02, 2400)
    assert order["status"] == "open"
    assert client.fetch_balance()["USDT"]["free"] == pytest.approx(free - 48)
    assert client.fetch_order(order["id"], "ETH/USDT")["remaining"] == 0.02
    assert [found["id"] for found in client.fetch_open_orders("ETH/USDT")] == [order["id"]]
    assert client.cancel_order(order["id"], "ETH/USDT")["status"] == "canceled"
    assert client.fetch_balance()["USDT"]["free"] == pytest.approx(free)
    with pytest.raises(ccxt.OrderNotFound):
        client.cancel_order(order["id"], "ETH/USDT")


def test_market_order_and_its_trades(client: ccxt.binance) -> None:
    """A market order is filled, with fee and trades."""
    order = client.create_order("SOL/USDT", "market", "buy", 0.5)
    assert (order["status"], order["filled"], order["fee"]["currency"]) == ("closed", 0.5, "SOL")
    trades = client.fetch_my_trades("SOL/USDT")
    assert [trade["order"] for trade in trades] == [order["id"]]


@pytest.mark.parametrize(
    ("amount", "price", "error"),
    [(1000, 2400, ccxt.InsufficientFunds), (0.0001, 2400, ccxt.BadRequest)],
)
def test_refused_order(client: ccxt.binance, amount: float, price: float, error: type[Exception]) -> None:
    """Refusals are raised by their codes."""
    with pytest.raises((error, ccxt.InvalidOrder)):
        client.create_order("ETH/USDT", "limit", "buy", amount, price)


def test_isolated_account(client: ccxt.binance) -> None:
    """The implicit method's signature is accepted and its answer is parsed."""
    answer = client.sapi_get_margin_isolated_account({"symbols": "BTCUSDT,DOGEUSDT"})
    assert [row["symbol"] for row in answer["assets"]] == ["BTCUSDT", "DOGEUSDT"]
    assert "x-sapi-used-ip-weight-1m" in {name.lower() for name in client.last_response_headers}
    assert client.fetch_balance({"marginMode": "isolated"})["USDT"]["debt"] > 1000


def test_other_margin_endpoints(client: ccxt.binance) -> None:
    """The related endpoints answer under ccxt's names."""
    assert client.sapi_get_margin_isolatedmargintier({"symbol": "BTCUSDT"})
    assert client.sapi_get_margin_isolatedmargindata({"symbol": "BTCUSDT"})
    assert client.sapi_get_margin_isolated_accountlimit()
    assert client.sapi_get_margin_priceindex({"symbol": "BTCUSDT"})["price"] == "50000"
    assert client.sapi_get_margin_forceliquidationrec()["rows"] == []
    assert client.sapi_get_margin_interesthistory()["rows"] == []
    assert client.sapi_get_account_apirestrictions()["enableReading"] is True


def test_wrong_secret(exchange: LocalExchange) -> None:
    """A wrong secret is an authentication error."""
    client = binance(exchange)
    client.secret = "wrong"
    with pytest.raises(ccxt.AuthenticationError):
        client.sapi_get_margin_isolated_account()


def test_clock(exchange: LocalExchange) -> None:
    """A clock that is off is an invalid nonce, until ccxt adjusts for it."""
    exchange.clock_offset = 30
    try:
        with pytest.raises(ccxt.InvalidNonce):
            binance(exchange).sapi_get_margin_isolated_account()
        adjusted = binance(exchange, adjustForTimeDifference=True)
        adjusted.load_time_difference()
        assert adjusted.sapi_get_margin_isolated_account()["assets"]
    finally:
        exchange.clock_offset = 0


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"code": -1003}, ccxt.DDoSProtection),
        ({"status": 418, "body": b"{}"}, ccxt.DDoSProtection),
        ({"code": -11001}, ccxt.ExchangeError),
        ({"status": 502, "body": b"<html></html>"}, ccxt.ExchangeNotAvailable),
        ({"code": -1000}, ccxt.OperationFailed),
        ({"reset": True}, ccxt.NetworkError),
    ],
)
def test_faults(exchange: LocalExchange, fault: dict[str, Any], error: type[Exception]) -> None:
    """Faults arrive as what ccxt makes of the real thing."""
    exchange.faults.add(Fault("/sapi/v1/margin/isolated/account", **fault))
    with pytest.raises(error):
        binance(exchange).sapi_get_margin_isolated_account()
