"""The local exchange as any Binance client sees it: signatures, weights, errors, accounts, orders, faults."""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from typing import Any, ClassVar

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from freqtrade_isolated_margin.localexchange import (
    SCENARIOS,
    AccountSpec,
    Fault,
    LocalExchange,
    MarketSpec,
)

ACCOUNT = "/sapi/v1/margin/isolated/account"
ORDER = "/api/v3/order"
MARGIN_ORDER = "/sapi/v1/margin/order"
PUBLIC_PEM = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class Client:
    """A client without a library: what it sends is exactly what a test says."""

    def __init__(self, exchange: LocalExchange) -> None:
        self.exchange = exchange
        self.session = requests.Session()
        self.key, self.secret = exchange.key, exchange.secret

    def get(self, path: str, query: str = "", key: str | None = None) -> requests.Response:
        """Ask without a signature."""
        headers = {"X-MBX-APIKEY": key} if key else {}
        return self.session.get(f"{self.exchange.url}{path}?{query}", headers=headers, timeout=10)

    def signed(
        self, path: str, query: str = "", method: str = "GET", timeout: float = 10
    ) -> requests.Response:
        """Ask with a timestamp and a signature."""
        stamped = f"{query}&" * bool(query) + f"timestamp={round(time.time() * 1000)}"
        url = f"{self.exchange.url}{path}?{stamped}&signature={self.sign(stamped)}"
        return self.session.request(method, url, headers={"X-MBX-APIKEY": self.key}, timeout=timeout)

    def sign(self, payload: str) -> str:
        """Sign what is going to be sent."""
        return hmac.new(self.secret.encode(), payload.encode(), hashlib.sha256).hexdigest()

    def accounts(self, query: str = "") -> dict[str, dict[str, Any]]:
        """Return the isolated accounts by symbol."""
        return {row["symbol"]: row for row in self.signed(ACCOUNT, query).json()["assets"]}

    def order(self, **params: str) -> requests.Response:
        """Place an order."""
        return self.signed(ORDER, "&".join(f"{name}={value}" for name, value in params.items()), "POST")


@pytest.fixture
def exchange() -> Iterator[LocalExchange]:
    """A calm exchange."""
    with LocalExchange() as running:
        yield running


@pytest.fixture
def client(exchange: LocalExchange) -> Client:
    """Return a client of the exchange."""
    return Client(exchange)


def refusal(response: requests.Response) -> tuple[int, int]:
    """HTTP status and Binance's code of a refusal."""
    body = response.json()
    assert set(body) == {"code", "msg"}
    assert body["msg"]
    return response.status_code, body["code"]


class TestSignature:
    """Who may ask, and how it is proved."""

    def test_without_a_key(self, client: Client) -> None:
        """A signed endpoint refuses a request without the key header."""
        assert refusal(client.get(ACCOUNT, "timestamp=1&signature=aa")) == (401, -2014)

    def test_unknown_key(self, client: Client) -> None:
        """An unknown key is refused, by each part of the API with its own code."""
        assert refusal(client.get(ACCOUNT, "timestamp=1&signature=aa", key="nobody")) == (400, -2008)
        assert refusal(client.get("/api/v3/account", "timestamp=1&signature=aa", key="nobody")) == (
            401,
            -2015,
        )

    def test_wrong_signature(self, client: Client) -> None:
        """A signature by another secret is refused."""
        client.secret = "not the secret"
        assert refusal(client.signed(ACCOUNT)) == (400, -1022)

    def test_missing_signature_and_timestamp(self, client: Client) -> None:
        """Signature and timestamp are mandatory."""
        assert refusal(client.get(ACCOUNT, f"timestamp={time.time_ns() // 10**6}", key=client.key)) == (
            400,
            -1102,
        )
        assert refusal(client.get(ACCOUNT, "signature=aa", key=client.key)) == (400, -1102)

    def test_what_is_signed_is_what_was_sent(self, client: Client) -> None:
        """The signature covers the query byte by byte, escapes, order and all."""
        stamp = round(time.time() * 1000)
        sent = f"symbols=ETHUSDT%2CBTCUSDT&recvWindow=6000&timestamp={stamp}"
        url = f"{client.exchange.url}{ACCOUNT}?signature={client.sign(sent)}&{sent}"
        request = requests.Request("GET", url, headers={"X-MBX-APIKEY": client.key}).prepare()
        request.url = url
        answer = client.session.send(request, timeout=10)
        assert [row["symbol"] for row in answer.json()["assets"]] == ["ETHUSDT", "BTCUSDT"]
        request.url = url.replace("%2C", ",")
        assert refusal(client.session.send(request, timeout=10)) == (400, -1022)

    def test_parameters_in_a_body(self, client: Client) -> None:
        """A POST is signed over query and body, one right after the other."""
        query = "symbol=BTCUSDT&side=BUY"
        body = f"type=MARKET&quoteOrderQty=100&timestamp={round(time.time() * 1000)}"
        response = client.session.post(
            f"{client.exchange.url}{ORDER}?{query}",
            data=f"{body}&signature={client.sign(query + body)}",
            headers={"X-MBX-APIKEY": client.key},
            timeout=10,
        )
        assert response.json()["status"] == "FILLED"

    @pytest.mark.parametrize("offset", [-6.0, 2.0])
    def test_clocks_apart(self, client: Client, offset: float) -> None:
        """A timestamp a second ahead of the exchange's clock, or older than recvWindow, is refused."""
        client.exchange.clock_offset = -offset
        assert refusal(client.signed(ACCOUNT)) == (400, -1021)
        told = client.get("/api/v3/time").json()["serverTime"] / 1000
        assert told == pytest.approx(time.time() - offset, abs=0.5)

    def test_recv_window(self, client: Client) -> None:
        """A wider recvWindow takes an older timestamp, but it is a number and 60 seconds is the widest."""
        client.exchange.clock_offset = 8
        assert client.signed(ACCOUNT, "recvWindow=10000").status_code == 200
        assert refusal(client.signed(ACCOUNT, "recvWindow=60001")) == (400, -1131)
        assert refusal(client.signed(ACCOUNT, "recvWindow=NaN")) == (400, -1100)

    def test_duplicate_parameter(self, client: Client) -> None:
        """A parameter that comes twice is refused."""
        assert refusal(client.signed(ACCOUNT, "symbols=BTCUSDT&symbols=ETHUSDT")) == (400, -1101)

    def test_ed25519_and_rsa(self, client: Client) -> None:
        """Keys registered with a public key are verified by it."""
        edwards, rsa = Ed25519PrivateKey.generate(), generate_private_key(65537, 2048)
        signers = {
            edwards.public_key().public_bytes(*PUBLIC_PEM): edwards.sign,
            rsa.public_key().public_bytes(*PUBLIC_PEM): lambda data: rsa.sign(data, PKCS1v15(), SHA256()),
        }
        for pem, signer in signers.items():
            key = client.exchange.add_key(public_key=pem.decode()).key
            payload = f"timestamp={round(time.time() * 1000)}"
            signature = requests.utils.quote(base64.b64encode(signer(payload.encode())), safe="")
            assert client.get(ACCOUNT, f"{payload}&signature={signature}", key=key).status_code == 200
            assert refusal(client.get(ACCOUNT, f"{payload}1&signature={signature}", key=key)) == (400, -1022)
            assert refusal(client.get(ACCOUNT, f"{payload}&signature=%21", key=key)) == (400, -1022)

    def test_permissions_belong_to_the_key(self, client: Client) -> None:
        """A second key sees the same accounts, has its own restrictions, and is held to them."""
        reading = client.exchange.add_key(permissions={"enableSpotAndMarginTrading": False})
        client.key, client.secret = reading.key, reading.secret
        restrictions = client.signed("/sapi/v1/account/apiRestrictions").json()
        assert restrictions["enableReading"] is True
        assert restrictions["enableSpotAndMarginTrading"] is False
        assert "BTCUSDT" in client.accounts()
        order = client.order(symbol="BTCUSDT", side="BUY", type="MARKET", quantity="0.001")
        assert refusal(order) == (401, -2015)
        blind = client.exchange.add_key(permissions={"enableReading": False})
        client.key, client.secret = blind.key, blind.secret
        assert refusal(client.signed(ACCOUNT)) == (401, -2015)


class TestIsolatedAccount:
    """The endpoint that all is about."""

    def test_all_accounts_with_totals(self, client: Client) -> None:
        """Without symbols all existing accounts come, with totals in BTC; those never created do not."""
        answer = client.signed(ACCOUNT).json()
        symbols = [row["symbol"] for row in answer["assets"]]
        assert "BTCUSDT" in symbols
        assert "DOGEUSDT" not in symbols
        totals = [Decimal(answer[f"total{name}OfBtc"]) for name in ("Asset", "Liability", "NetAsset")]
        assert totals[0] - totals[1] == totals[2] > 0

    def test_some_accounts_without_totals(self, client: Client) -> None:
        """With symbols only those come, in the order they were asked for, without totals."""
        answer = client.signed(ACCOUNT, "symbols=SOLUSDT,BTCUSDT").json()
        assert [row["symbol"] for row in answer["assets"]] == ["SOLUSDT", "BTCUSDT"]
        assert set(answer) == {"assets"}

    def test_shape_of_a_row(self, client: Client) -> None:
        """A row has the recorded fields: decimal strings, booleans, and a status."""
        row = client.accounts("symbols=SOLUSDT")["SOLUSDT"]
        booleans = {"isolatedCreated", "tradeEnabled", "enabled"}
        texts = {
            "symbol",
            "marginLevel",
            "marginLevelStatus",
            "marginRatio",
            "indexPrice",
            "liquidatePrice",
            "liquidateRate",
        }
        assert set(row) == {*booleans, *texts, "baseAsset", "quoteAsset"}
        assert all(isinstance(row[name], bool) for name in booleans)
        assert all(isinstance(row[name], str) for name in texts)
        asset = row["baseAsset"]
        assert asset.pop("borrowEnabled") is asset.pop("repayEnabled") is True
        assert all(isinstance(value, str) for value in asset.values())
        assert set(asset) == {
            *("asset", "free", "locked", "borrowed", "interest", "netAsset", "netAssetOfBtc", "totalAsset")
        }

    def test_more_than_five_symbols(self, client: Client) -> None:
        """Five symbols are answered, six are refused."""
        five = "BTCUSDT,ETHUSDT,BNBUSDT,SOLUSDT,XRPUSDT"
        assert len(client.accounts(f"symbols={five}")) == 5
        status, _ = refusal(client.signed(ACCOUNT, f"symbols={five},ADAUSDT"))
        assert status == 400

    def test_never_created(self, client: Client) -> None:
        """A pair that never had an account answers with a placeholder that looks healthy."""
        row = client.accounts("symbols=DOGEUSDT")["DOGEUSDT"]
        assert row["isolatedCreated"] is row["enabled"] is False
        assert (row["marginLevel"], row["marginLevelStatus"]) == ("999", "EXCESSIVE")
        assert (row["liquidatePrice"], row["liquidateRate"]) == ("0", "0")
        assert row["baseAsset"]["totalAsset"] == row["quoteAsset"]["totalAsset"] == "0"

    def test_removed_account(self, client: Client) -> None:
        """A removed account is as if it had never been."""
        client.exchange.remove_account("BTC/USDT")
        assert "BTCUSDT" not in client.accounts()
        assert client.accounts("symbols=BTCUSDT")["BTCUSDT"]["isolatedCreated"] is False

    def test_unknown_symbol(self, client: Client) -> None:
        """A symbol that does not exist is refused."""
        assert refusal(client.signed(ACCOUNT, "symbols=BTCUSDT,NOPEUSDT")) == (400, -1121)

    def test_unknown_parameter(self, client: Client) -> None:
        """`symbol` for `symbols` is ignored, as is anything else that is not known, and all accounts come."""
        assert client.accounts("symbol=BTCUSDT&colour=blue").keys() == client.accounts().keys()

    def test_recorded_answer_is_kept(self, client: Client) -> None:
        """What was served can be looked up, and no signature is in it."""
        served = client.signed(ACCOUNT, "symbols=BTCUSDT").json()
        record = client.exchange.requests[-1]
        assert record.answer == served
        assert (record.method, record.path, record.weight, record.status) == ("GET", ACCOUNT, 10, 200)
        assert record.params["symbols"] == "BTCUSDT"
        assert "signature" not in record.params
        assert served["assets"] == [client.exchange.account_row("BTCUSDT")]


class TestMargin:
    """What else can be read of isolated margin."""

    @pytest.mark.parametrize(
        ("pair", "multiples", "liquidation"), [("BTC", 10, "1.05"), ("SOL", 5, "1.15"), ("FET", 5, "1.18")]
    )
    def test_tiers(self, client: Client, pair: str, multiples: int, liquidation: str) -> None:
        """Every tier of a pair has the pair's liquidation ratio."""
        rows = client.signed("/sapi/v1/margin/isolatedMarginTier", f"symbol={pair}USDT").json()
        assert len(rows) == multiples
        assert {row["liquidationRiskRatio"] for row in rows} == {liquidation}
        assert [row["tier"] for row in rows] == list(range(1, multiples + 1))

    def test_tier_needs_a_symbol(self, client: Client) -> None:
        """The tier endpoint refuses a request without a symbol."""
        assert refusal(client.signed("/sapi/v1/margin/isolatedMarginTier")) == (400, -1102)

    def test_price_index_needs_a_key_only(self, client: Client) -> None:
        """The price index wants the key header and no signature."""
        path = "/sapi/v1/margin/priceIndex"
        assert client.get(path, "symbol=BTCUSDT", key=client.key).json()["price"] == "50000"
        assert refusal(client.get(path, "symbol=BTCUSDT")) == (401, -2014)

    def test_margin_data_and_pairs_and_limit(self, client: Client) -> None:
        """The smaller endpoints answer in their documented shapes."""
        (data,) = client.signed("/sapi/v1/margin/isolatedMarginData", "symbol=BTCUSDT").json()
        assert data["leverage"] == "10"
        assert [coin["coin"] for coin in data["data"]] == ["BTC", "USDT"]
        pairs = client.signed("/sapi/v1/margin/isolated/allPairs").json()
        assert {"symbol", "base", "quote", "isMarginTrade", "isBuyAllowed", "isSellAllowed"} == set(pairs[0])
        limit = client.signed("/sapi/v1/margin/isolated/accountLimit").json()
        assert limit == {"enabledAccount": 7, "maxAccount": 20}

    def test_forced_liquidation(self, client: Client) -> None:
        """A price below the liquidation price forces the account, repays the debt, and leaves a record."""
        exchange = client.exchange
        exchange.set_account("BTC/USDT", AccountSpec(base_free="0.02", quote_borrowed="900"))
        exchange.state.liquidation_grace = 0.3
        exchange.set_price("BTC/USDT", "47200")
        assert exchange.account_row("BTCUSDT")["marginLevelStatus"] == "FORCE_LIQUIDATION"
        exchange.wait_for(lambda ex: ex.account_row("BTCUSDT")["marginLevel"] == "999")
        row = exchange.account_row("BTCUSDT")
        assert row["quoteAsset"]["borrowed"] == "0"
        assert Decimal(row["baseAsset"]["free"]) * 47200 == pytest.approx(Decimal(44), abs=Decimal("0.001"))
        answer = client.signed("/sapi/v1/margin/forceLiquidationRec", "isolatedSymbol=BTCUSDT").json()
        assert answer["total"] == 1
        assert (answer["rows"][0]["side"], answer["rows"][0]["avgPrice"]) == ("SELL", "47200")

    def test_liquidated_short(self, client: Client) -> None:
        """A short is bought back."""
        exchange = client.exchange
        exchange.set_account("BTC/USDT", AccountSpec(quote_free="1000", base_borrowed="0.018"))
        exchange.state.liquidation_grace = 0.0
        exchange.set_price("BTC/USDT", "53000")
        row = exchange.account_row("BTCUSDT")
        assert (row["baseAsset"]["borrowed"], row["quoteAsset"]["free"]) == ("0", "46")
        record = client.signed("/sapi/v1/margin/forceLiquidationRec").json()["rows"][0]
        assert (record["side"], record["executedQty"]) == ("BUY", "0.018")

    def test_interest_as_in_the_documented_example(self, client: Client) -> None:
        """1000 USDT at 0.001 % an hour, borrowed at five to the hour, cost two hours half an hour later."""
        exchange = client.exchange
        exchange.set_account("BTC/USDT", AccountSpec(base_free="1"))
        exchange.advance(55 * 60)
        exchange.borrow("BTC/USDT", "USDT", "1000")
        assert exchange.account_row("BTCUSDT")["quoteAsset"]["interest"] == "0.01"
        exchange.advance(35 * 60)
        quote = exchange.account_row("BTCUSDT")["quoteAsset"]
        assert (quote["borrowed"], quote["interest"], quote["free"]) == ("1000", "0.02", "1000")
        answer = client.signed("/sapi/v1/margin/interestHistory", "isolatedSymbol=BTCUSDT").json()
        assert [row["type"] for row in answer["rows"]] == ["PERIODIC", "ON_BORROW"]
        assert answer["rows"][0]["interest"] == "0.01"


class TestWeights:
    """Used weights."""

    def test_headers_count_per_endpoint(self, client: Client) -> None:
        """Each sapi endpoint counts for itself, the api as a whole, each in its own header."""
        used = "X-SAPI-USED-IP-WEIGHT-1M"
        assert client.signed(ACCOUNT).headers[used] == "10"
        assert client.signed(ACCOUNT).headers[used] == "20"
        assert client.signed("/sapi/v1/margin/isolatedMarginData").headers[used] == "10"
        assert client.get("/api/v3/time").headers["X-MBX-USED-WEIGHT-1M"] == "1"
        assert (
            client.get("/api/v3/klines", "symbol=BTCUSDT&interval=1m").headers["X-MBX-USED-WEIGHT-1M"] == "3"
        )

    def test_over_the_limit(self, client: Client) -> None:
        """Over the limit the answer is 429 with Retry-After, for that endpoint alone."""
        client.exchange.weights.sapi_limit = 20
        assert [client.signed(ACCOUNT).status_code for _ in range(2)] == [200, 200]
        refused = client.signed(ACCOUNT)
        assert refusal(refused) == (429, -1003)
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert client.signed("/sapi/v1/margin/isolated/accountLimit").status_code == 200

    def test_by_user(self, client: Client) -> None:
        """What moves money counts for the user, apart from what the address asks for."""
        used = "X-SAPI-USED-UID-WEIGHT-1M"
        order = "symbol=ADAUSDT&isIsolated=TRUE&side=SELL&type=MARKET&quantity=100"
        assert client.signed(MARGIN_ORDER, order, "POST").headers[used] == "6"
        borrowing = client.signed(MARGIN_ORDER, f"{order}&sideEffectType=AUTO_BORROW_REPAY", "POST")
        assert borrowing.headers[used] == "1506"
        loan = "symbol=ADAUSDT&isIsolated=TRUE&asset=USDT&amount=1&type=BORROW"
        assert client.signed("/sapi/v1/margin/borrow-repay", loan, "POST").headers[used] == "1500"
        assert client.signed(ACCOUNT, "symbol=DOGEUSDT", "POST").headers[used] == "300"
        assert client.signed("/sapi/v1/asset/transfer", method="POST").headers[used] == "900"
        asking = client.signed(MARGIN_ORDER, "symbol=ADAUSDT&isIsolated=TRUE&orderId=1")
        assert asking.headers["X-SAPI-USED-IP-WEIGHT-1M"] == "10"
        assert used not in asking.headers

    def test_over_the_limit_of_the_user(self, client: Client) -> None:
        """Over the user's limit an order is refused without effect, while orders can still be asked for."""
        client.exchange.weights.uid_limit = 10
        order = "symbol=ADAUSDT&isIsolated=TRUE&side=SELL&type=MARKET&quantity=100"
        assert client.signed(MARGIN_ORDER, order, "POST").status_code == 200
        refused = client.signed(MARGIN_ORDER, order, "POST")
        assert refusal(refused) == (429, -1003)
        assert "Retry-After" in refused.headers
        assert len(client.exchange.margin_orders) == 1
        all_orders = client.signed("/sapi/v1/margin/allOrders", "symbol=ADAUSDT&isIsolated=TRUE").json()
        assert [row["status"] for row in all_orders] == ["FILLED"]


class TestMarketData:
    """What needs no key."""

    @pytest.mark.parametrize("path", ["klines", "depth", "trades", "aggTrades", "avgPrice"])
    def test_symbol_is_mandatory_and_must_exist(self, client: Client, path: str) -> None:
        """Market data of one market wants a symbol that exists."""
        assert refusal(client.get(f"/api/v3/{path}", "interval=1m")) == (400, -1102)
        assert refusal(client.get(f"/api/v3/{path}", "interval=1m&symbol=NOPEUSDT")) == (400, -1121)

    def test_candles_hang_together(self, client: Client) -> None:
        """Candles follow each other without a gap in time or price, and the newest is still running."""
        rows = client.get("/api/v3/klines", "symbol=ETHUSDT&interval=1m&limit=200").json()
        assert len(rows) == 200
        assert all(right[0] - left[0] == 60_000 for left, right in pairwise(rows))
        assert all(left[4] == right[1] for left, right in pairwise(rows))
        assert all(Decimal(row[3]) <= min(Decimal(row[1]), Decimal(row[4])) for row in rows)
        assert all(Decimal(row[2]) >= max(Decimal(row[1]), Decimal(row[4])) for row in rows)
        assert rows[-1][0] <= time.time() * 1000 <= rows[-1][6] + 1000

    def test_finished_candles_do_not_change(self, client: Client) -> None:
        """A candle that is over reads the same whenever and however it is asked for."""
        rows = client.get("/api/v3/klines", "symbol=ETHUSDT&interval=5m&limit=10").json()
        again = client.get(
            "/api/v3/klines", f"symbol=ETHUSDT&interval=5m&startTime={rows[0][0]}&endTime={rows[4][0]}"
        ).json()
        assert again == rows[:5]

    def test_price_shows_everywhere(self, client: Client) -> None:
        """A set price is the ticker's, the candle's, the book's and the index price."""
        client.exchange.set_price("BTC/USDT", "45000")
        assert client.get("/api/v3/ticker/price", "symbol=BTCUSDT").json()["price"] == "45000.00000000"
        assert client.get("/api/v3/klines", "symbol=BTCUSDT&interval=1m").json()[-1][4] == "45000.00000000"
        book = client.get("/api/v3/depth", "symbol=BTCUSDT&limit=5").json()
        assert Decimal(book["bids"][0][0]) < 45000 < Decimal(book["asks"][0][0])
        assert len(book["bids"]) == len(book["asks"]) == 5
        assert client.exchange.account_row("BTCUSDT")["indexPrice"] == "45000"

    def test_tickers_of_some_markets(self, client: Client) -> None:
        """Tickers come for one symbol as an object, for several as a list, and else for all."""
        path = "/api/v3/ticker/24hr"
        assert client.get(path, "symbol=BTCUSDT").json()["symbol"] == "BTCUSDT"
        rows = client.get(path, 'symbols=["BTCUSDT","ETHUSDT"]').json()
        assert [row["symbol"] for row in rows] == ["BTCUSDT", "ETHUSDT"]
        assert len(client.get(path).json()) == 9
        assert refusal(client.get(path, "symbols=BTCUSDT")) == (400, -1100)

    def test_trades(self, client: Client) -> None:
        """The tape has as many trades as were asked for."""
        assert len(client.get("/api/v3/trades", "symbol=BTCUSDT&limit=7").json()) == 7
        assert len(client.get("/api/v3/aggTrades", "symbol=BTCUSDT&limit=7").json()) == 7

    def test_unknown_interval_and_path(self, client: Client) -> None:
        """What does not exist is refused."""
        assert refusal(client.get("/api/v3/klines", "symbol=BTCUSDT&interval=7m")) == (400, -1120)
        assert client.get("/api/v3/nothing").status_code == 404

    def test_any_number_of_markets(self) -> None:
        """A test can make the markets it wants."""
        specs = [MarketSpec(f"PAIR{number:03}/USDT", "2.5", max_leverage=3) for number in range(100)]
        with LocalExchange(markets=specs) as exchange:
            exchange.set_account("PAIR042/USDT", AccountSpec(base_free="10", quote_borrowed="10"))
            client = Client(exchange)
            assert len(client.get("/api/v3/exchangeInfo").json()["symbols"]) == 100
            assert client.accounts()["PAIR042USDT"]["marginLevel"] == "2.5"


class TestOrders:
    """Spot orders and the wallet."""

    BUY: ClassVar = {"symbol": "BTCUSDT", "side": "BUY"}
    LIMIT: ClassVar = {**BUY, "type": "LIMIT", "timeInForce": "GTC"}

    def test_market_order_moves_balances(self, client: Client) -> None:
        """A market order is filled at the best price and the fee is taken from what was bought."""
        order = client.order(**self.BUY, type="MARKET", quantity="0.01").json()
        assert (order["status"], order["executedQty"]) == ("FILLED", "0.01000000")
        assert order["fills"][0]["commissionAsset"] == "BTC"
        assert client.exchange.balance("BTC") == (Decimal("0.00999"), 0)
        assert client.exchange.balance("USDT")[0] == 10000 - Decimal("50000.1") / 100

    def test_resting_order_fills_when_the_price_gets_there(self, client: Client) -> None:
        """A limit order below the price locks its money, rests, and is filled at its own price."""
        order = client.order(**self.LIMIT, quantity="0.01", price="49000").json()
        assert order["status"] == "NEW"
        assert client.exchange.balance("USDT") == (9510, 490)
        client.exchange.set_price("BTC/USDT", "48900")
        query = f"symbol=BTCUSDT&orderId={order['orderId']}"
        filled = client.signed(ORDER, query).json()
        assert (filled["status"], filled["cummulativeQuoteQty"]) == ("FILLED", "490.00000000")
        assert client.exchange.balance("USDT") == (9510, 0)
        (trade,) = client.signed("/api/v3/myTrades", query).json()
        assert trade["isMaker"] is True

    def test_scenario_fills_orders_by_itself(self) -> None:
        """Orders are matched as time passes, without anybody asking."""
        with LocalExchange("fall", speed=30) as falling:
            Client(falling).order(**self.LIMIT, quantity="0.01", price="49500")
            falling.start_scenario()
            falling.wait_for(lambda ex: ex.orders[0].status == "FILLED")

    def test_partial_fill_and_cancel(self, client: Client) -> None:
        """What was not filled is given back on cancellation."""
        order = client.order(**self.LIMIT, quantity="0.01", price="49000").json()
        client.exchange.fill(order["orderId"], "0.004")
        query = f"symbol=BTCUSDT&orderId={order['orderId']}"
        assert client.signed(ORDER, query).json()["status"] == "PARTIALLY_FILLED"
        cancelled = client.signed(ORDER, query, "DELETE").json()
        assert (cancelled["status"], cancelled["executedQty"]) == ("CANCELED", "0.00400000")
        assert cancelled["origClientOrderId"] == order["clientOrderId"]
        assert client.exchange.balance("USDT") == (10000 - 196, 0)
        assert refusal(client.signed(ORDER, query, "DELETE")) == (400, -2011)

    def test_open_and_all_orders(self, client: Client) -> None:
        """Open orders are listed until they are cancelled; all orders keep them."""
        client.order(**self.LIMIT, quantity="0.01", price="49000", newClientOrderId="mine")
        assert [o["clientOrderId"] for o in client.signed("/api/v3/openOrders").json()] == ["mine"]
        by_name = client.signed(ORDER, "symbol=BTCUSDT&origClientOrderId=mine").json()
        assert by_name["clientOrderId"] == "mine"
        assert len(client.signed("/api/v3/openOrders", "symbol=BTCUSDT", "DELETE").json()) == 1
        assert client.signed("/api/v3/openOrders", "symbol=BTCUSDT").json() == []
        assert [o["status"] for o in client.signed("/api/v3/allOrders", "symbol=BTCUSDT").json()] == [
            "CANCELED"
        ]

    @pytest.mark.parametrize(
        ("params", "code"),
        [
            ({"quantity": "1", "price": "50000"}, -2010),
            ({"quantity": "0.00000001", "price": "50000"}, -1013),
            ({"quantity": "0.0001", "price": "49000"}, -1013),
            ({"quantity": "0.01", "price": "49000.01"}, -1013),
            ({"quantity": "0.01", "price": "1000"}, -1013),
            ({"quantity": "0.01", "price": "-1"}, -1100),
            ({"quantity": "0.01"}, -1102),
            ({"quantity": "0.01", "price": "49000", "side": "HOLD"}, -1117),
            ({"quantity": "0.01", "price": "49000", "type": "MAYBE"}, -1116),
            ({"quantity": "0.01", "price": "49000", "timeInForce": "XXX"}, -1115),
            ({"quantity": "0.01", "price": "51000", "type": "LIMIT_MAKER"}, -2010),
        ],
    )
    def test_refused_orders(self, client: Client, params: dict[str, str], code: int) -> None:
        """An order that cannot be placed is refused with its code and changes nothing."""
        assert refusal(client.order(**{**self.LIMIT, **params})) == (400, code)
        assert client.exchange.orders == ()
        assert client.exchange.balance("USDT") == (10000, 0)

    @pytest.mark.parametrize("kind", ["IOC", "FOK"])
    def test_now_or_never(self, client: Client, kind: str) -> None:
        """An order that must be filled at once expires where it cannot be."""
        order = client.order(**{**self.LIMIT, "timeInForce": kind}, quantity="0.01", price="49000").json()
        assert order["status"] == "EXPIRED"
        assert client.exchange.balance("USDT") == (10000, 0)

    def test_stop_order(self, client: Client) -> None:
        """A stop order waits for its stop price, whatever its limit."""
        client.exchange.set_balance("BTC", "0.01")
        stop = {"symbol": "BTCUSDT", "side": "SELL", "type": "STOP_LOSS_LIMIT", "timeInForce": "GTC"}
        client.order(**stop, quantity="0.01", stopPrice="48000", price="47000")
        client.exchange.set_price("BTC/USDT", "48100")
        assert client.exchange.orders[0].status == "NEW"
        client.exchange.set_price("BTC/USDT", "47900")
        assert client.exchange.orders[0].status == "FILLED"

    def test_unknown_order(self, client: Client) -> None:
        """Asking for an order that does not exist, or for none, is refused."""
        assert refusal(client.signed(ORDER, "symbol=BTCUSDT&orderId=1")) == (400, -2013)
        assert refusal(client.signed(ORDER, "symbol=BTCUSDT")) == (400, -1102)


class TestReins:
    """What a test may do to margin orders and accounts from within."""

    def order(self, client: Client, **params: str) -> int:
        """Place an order that rests, and return its id."""
        usual = {"symbol": "ADAUSDT", "isIsolated": "TRUE", "type": "LIMIT", "timeInForce": "GTC"}
        sent = usual | {"side": "BUY", "quantity": "100", "price": "0.3"} | params
        query = "&".join(f"{name}={value}" for name, value in sent.items())
        return int(client.signed(MARGIN_ORDER, query, "POST").json()["orderId"])

    def test_fill_and_end(self, client: Client) -> None:
        """A margin order is filled in part, and ended as the exchange does it by itself."""
        order_id = self.order(client)
        assert client.exchange.fill(order_id, "40").status == "PARTIALLY_FILLED"
        assert client.exchange.end_order(order_id).status == "EXPIRED"
        row = client.exchange.account_row("ADA/USDT")
        assert (row["baseAsset"]["free"], row["quoteAsset"]["free"]) == ("539.96", "88")

    def test_liquidity(self, client: Client) -> None:
        """Without liquidity orders rest at any price, until there is some again."""
        client.exchange.set_liquidity("ADA/USDT", 0)
        self.order(client, price="0.5")
        assert client.exchange.margin_orders[0].status == "NEW"
        client.exchange.set_liquidity("ADA/USDT", 30)
        assert client.exchange.margin_orders[0].executed == 30
        client.exchange.set_liquidity("ADA/USDT", None)
        assert client.exchange.margin_orders[0].status == "FILLED"

    def test_the_lender(self, client: Client) -> None:
        """There is as much to borrow as is set, at least the minimum, of what is not banned."""
        loan = "symbol=ADAUSDT&isIsolated=TRUE&asset=USDT&amount=20&type=BORROW"
        path = "/sapi/v1/margin/borrow-repay"
        exchange = client.exchange
        exchange.set_lendable("USDT", 19)
        assert refusal(client.signed(path, loan, "POST")) == (400, -3045)
        exchange.set_lendable("USDT", None)
        exchange.set_least_loan("USDT", 21)
        assert refusal(client.signed(path, loan, "POST")) == (400, -3013)
        exchange.set_least_loan("USDT", None)
        exchange.ban_borrowing("USDT")
        assert refusal(client.signed(path, loan, "POST")) == (400, -3012)
        exchange.ban_borrowing("USDT", banned=False)
        assert client.signed(path, loan, "POST").status_code == 200

    def test_liquidate_at_once(self, client: Client) -> None:
        """An account is liquidated whatever its level, and the books know why."""
        exchange = client.exchange
        before, explained = exchange.net_assets(), exchange.explained()
        exchange.liquidate("BTC/USDT")
        assert exchange.account_row("BTC/USDT")["quoteAsset"]["borrowed"] == "0"
        changes = {asset: value - before[asset] for asset, value in exchange.net_assets().items()}
        told = {asset: value - explained.get(asset, 0) for asset, value in exchange.explained().items()}
        assert {asset: value for asset, value in changes.items() if value} == told
        assert client.signed("/sapi/v1/margin/forceLiquidationRec").json()["total"] == 1

    @pytest.mark.parametrize("gone", [True, False])
    def test_a_replaced_account_has_no_open_orders(self, client: Client, gone: bool) -> None:
        """Orders of an account that is replaced or removed are over, and take nothing from the new one."""
        self.order(client)
        if gone:
            client.exchange.remove_account("ADA/USDT")
        client.exchange.set_account("ADA/USDT", AccountSpec(quote_free="7"))
        client.exchange.set_price("ADA/USDT", "0.29")
        assert client.exchange.margin_orders[0].status == "CANCELED"
        assert client.exchange.account_row("ADA/USDT")["quoteAsset"]["totalAsset"] == "7"

    def test_permissions_of_the_first_key(self) -> None:
        """The exchange's own key has the permissions that it is made with."""
        with LocalExchange(permissions={"permitsUniversalTransfer": True}) as exchange:
            query = "type=MAIN_ISOLATED_MARGIN&toSymbol=DOGEUSDT&asset=USDT&amount=5"
            assert Client(exchange).signed("/sapi/v1/asset/transfer", query, "POST").json()["tranId"]
            assert exchange.account_row("DOGEUSDT")["isolatedCreated"] is True


class TestFaults:
    """What goes wrong to order."""

    @pytest.mark.parametrize("body", [b"", b"<html>502</html>", b'{"assets": [', b"null", b"7"])
    def test_any_body_and_status(self, client: Client, body: bytes) -> None:
        """A fault answers with any status, body and headers, as often as it is told to."""
        client.exchange.faults.add(Fault(ACCOUNT, times=1, status=502, body=body, headers={"Via": "x"}))
        answer = client.signed(ACCOUNT)
        assert (answer.status_code, answer.content, answer.headers["Via"]) == (502, body, "x")
        assert client.signed(ACCOUNT).status_code == 200

    def test_binance_error(self, client: Client) -> None:
        """A fault by code comes with Binance's message and status."""
        fault = client.exchange.faults.add(Fault("/sapi/*", code=-3003))
        assert refusal(client.signed(ACCOUNT)) == (400, -3003)
        assert client.exchange.faults.hits(fault) == 1
        client.exchange.faults.clear()
        assert client.signed(ACCOUNT).status_code == 200

    def test_only_where_it_matches(self, client: Client) -> None:
        """A fault befalls only requests with its method, path and parameters, after those it skips."""
        client.exchange.faults.add(Fault(ACCOUNT, params={"symbols": "BTCUSDT"}, skip=1, code=-1000))
        answers = [client.signed(ACCOUNT, f"symbols={s}USDT").status_code for s in ("BTC", "ETH", "BTC")]
        assert answers == [200, 200, 500]

    def test_transform(self, client: Client) -> None:
        """A fault can change a good answer."""

        def spoil(answer: dict[str, Any]) -> None:
            answer["assets"][0]["marginLevel"] = "NaN"

        client.exchange.faults.add(Fault(ACCOUNT, transform=spoil))
        assert client.accounts("symbols=BTCUSDT")["BTCUSDT"]["marginLevel"] == "NaN"

    def test_reset_in_the_middle(self, client: Client) -> None:
        """A fault closes the connection in the middle of the body."""
        client.exchange.faults.add(Fault(ACCOUNT, reset=True))
        with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
            client.signed(ACCOUNT)

    def test_never_answered(self, client: Client) -> None:
        """A fault takes a request and never answers; the exchange stops nevertheless."""
        client.exchange.faults.add(Fault(ACCOUNT, hang=True))
        with pytest.raises(requests.ReadTimeout):
            client.signed(ACCOUNT, timeout=0.3)
        client.exchange.wait_for(lambda ex: ex.requests[-1].status == 0)
        began = time.monotonic()
        client.exchange.stop()
        assert time.monotonic() - began < 5

    def test_delay(self, client: Client) -> None:
        """A fault delays the answer."""
        client.exchange.faults.add(Fault("/api/v3/time", delay=0.3))
        assert client.get("/api/v3/time").elapsed.total_seconds() > 0.3

    def test_trickle(self, client: Client) -> None:
        """A fault sends the body byte by byte."""
        client.exchange.faults.add(Fault("/api/v3/ping", trickle=0.2))
        began = time.monotonic()
        assert client.get("/api/v3/ping").json() == {}
        assert time.monotonic() - began > 0.2

    SALE = "symbol=ADAUSDT&isIsolated=TRUE&side=SELL&type=MARKET&quantity=100"

    @pytest.mark.parametrize(
        ("fault", "orders"),
        [
            ({"code": -1001}, 0),
            ({"code": -1007}, 0),
            ({"code": -1007, "done": True}, 1),
            ({"code": -1006, "done": True, "delay": 0.05}, 1),
            ({"status": 502, "body": b"<html></html>", "done": True}, 1),
            ({"reset": True}, 1),
            ({"code": -1001, "reset": True}, 0),
            ({"late": 0.05}, 1),
        ],
    )
    def test_whether_a_post_has_its_effect(self, client: Client, fault: dict[str, Any], orders: int) -> None:
        """A fault says whether the nth order is placed, whatever its answer; the others are not touched."""
        client.exchange.faults.add(Fault(MARGIN_ORDER, method="POST", skip=1, times=1, **fault))
        for _ in range(3):
            with contextlib.suppress(requests.RequestException):
                client.signed(MARGIN_ORDER, self.SALE, "POST")
        assert len(client.exchange.margin_orders) == 2 + orders

    def test_an_order_that_is_placed_when_nobody_waits_any_more(self, client: Client) -> None:
        """A request may have its effect after the client has given up."""
        client.exchange.faults.add(Fault(MARGIN_ORDER, method="POST", late=0.5))
        with pytest.raises(requests.ReadTimeout):
            client.signed(MARGIN_ORDER, self.SALE, "POST", timeout=0.1)
        assert client.exchange.margin_orders == ()
        client.exchange.wait_for(lambda ex: len(ex.margin_orders) == 1)

    def test_an_order_that_is_placed_and_never_answered(self, client: Client) -> None:
        """A request that hangs may have its effect."""
        client.exchange.faults.add(Fault(MARGIN_ORDER, method="POST", hang=True, done=True))
        with pytest.raises(requests.ReadTimeout):
            client.signed(MARGIN_ORDER, self.SALE, "POST", timeout=0.3)
        assert len(client.exchange.margin_orders) == 1

    def test_other_requests_are_answered_meanwhile(self, client: Client) -> None:
        """A request that hangs holds up no other."""
        client.exchange.faults.add(Fault(ACCOUNT, hang=True))
        threading.Thread(target=_ignore_errors, args=(client,), daemon=True).start()
        client.exchange.wait_for(lambda ex: any(record.status == 0 for record in ex.requests))
        assert Client(client.exchange).get("/api/v3/ping").status_code == 200


def _ignore_errors(client: Client) -> None:
    with contextlib.suppress(requests.RequestException):
        client.signed(ACCOUNT)


class TestLife:
    """Starting, stopping and waiting."""

    def test_stop_and_restart(self, client: Client) -> None:
        """A stopped exchange refuses connections; it comes back on its port with all it had."""
        url = client.exchange.url
        order = client.order(symbol="BTCUSDT", side="BUY", type="MARKET", quantity="0.01").json()
        client.exchange.stop()
        with pytest.raises(requests.ConnectionError, match="refused"):
            requests.get(f"{url}/api/v3/ping", timeout=5)
        client.exchange.restart()
        assert client.exchange.url == url
        again = client.signed(ORDER, f"symbol=BTCUSDT&orderId={order['orderId']}")
        assert again.json()["status"] == "FILLED"

    def test_no_threads_are_left(self) -> None:
        """After its end nothing of an exchange runs on."""
        before = threading.active_count()
        with LocalExchange():
            assert threading.active_count() > before
        assert threading.active_count() == before

    def test_wait_for_gives_up(self, exchange: LocalExchange) -> None:
        """Waiting for what does not happen ends in an error."""
        with pytest.raises(TimeoutError):
            exchange.wait_for(lambda _: False, timeout=0.05)

    def test_prices_stand_still_until_the_start(self) -> None:
        """A scenario begins to move when it is told to."""
        with LocalExchange("fall", speed=1000) as exchange:
            assert (exchange.elapsed, exchange.price("BTC/USDT")) == (0, 50000)
            exchange.start_scenario()
            exchange.wait_for(lambda ex: ex.elapsed > 100)
            assert exchange.price("BTC/USDT") == pytest.approx(Decimal(44000), rel=Decimal("0.001"))

    def test_two_exchanges(self, exchange: LocalExchange) -> None:
        """Two exchanges do not know of each other."""
        with LocalExchange() as other:
            assert other.url != exchange.url
            other.set_price("BTC/USDT", "1")
            assert exchange.price("BTC/USDT") == 50000

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_run_until_a_signal(self, number: signal.Signals) -> None:
        """The command prints address, key and secret, serves, and ends cleanly on a signal."""
        code = "from freqtrade_isolated_margin.localexchange import run; raise SystemExit(run(0, 'fall'))"
        with subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ},
        ) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline().strip() for _ in range(3)]
            assert lines[0].startswith("http://127.0.0.1:")
            assert [line.split(": ")[0] for line in lines[1:]] == ["key", "secret"]
            assert requests.get(f"{lines[0]}/api/v3/ping", timeout=10).json() == {}
            process.send_signal(number)
            out, err = process.communicate(timeout=20)
            assert (process.returncode, out, err) == (0, "", "")

    @pytest.mark.parametrize("name", sorted(SCENARIOS))
    def test_every_scenario_serves(self, name: str) -> None:
        """Every scenario has a description, and its accounts can be read as JSON after a minute of it."""
        with LocalExchange(name, speed=600) as exchange:
            assert exchange.state.scenario.description
            exchange.start_scenario()
            exchange.wait_for(lambda ex: ex.elapsed > 60)
            assert json.dumps(list(Client(exchange).accounts().values()))
