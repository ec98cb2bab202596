"""Other public clients trade in isolated margin on the local exchange."""

from collections.abc import Iterator
from decimal import Decimal

import binance_sdk_margin_trading as sdk
import pytest
from binance.client import Client
from binance_common import configuration as common

from freqtrade_isolated_margin.localexchange import AccountSpec, LocalExchange

SYMBOL = "SOLUSDT"


@pytest.fixture
def exchange() -> Iterator[LocalExchange]:
    """An exchange whose key may transfer, with an empty account of SOL."""
    with LocalExchange(permissions={"permitsUniversalTransfer": True}) as running:
        running.set_account("SOL/USDT", AccountSpec())
        yield running


def test_python_binance(exchange: LocalExchange) -> None:
    """python-binance moves collateral in, buys on borrowed money, cancels, sells, repays and moves out."""
    client = Client(exchange.key, exchange.secret, ping=False)
    client.MARGIN_API_URL = f"{exchange.url}/sapi"
    client.make_universal_transfer(type="MAIN_ISOLATED_MARGIN", asset="USDT", amount="100", toSymbol=SYMBOL)
    order = {"symbol": SYMBOL, "isIsolated": "TRUE", "type": "LIMIT", "timeInForce": "GTC"}
    resting = client.create_margin_order(
        **order, side="BUY", quantity="2", price="140", sideEffectType="MARGIN_BUY"
    )
    assert resting["marginBuyBorrowAmount"] == "180"
    found = {"symbol": SYMBOL, "isIsolated": "TRUE"}
    assert [row["orderId"] for row in client.get_open_margin_orders(**found)] == [resting["orderId"]]
    client.cancel_margin_order(**found, orderId=resting["orderId"])
    bought = client.create_margin_order(
        **found, side="BUY", type="MARKET", quantity="1", sideEffectType="AUTO_BORROW_REPAY"
    )
    assert client.get_margin_order(**found, orderId=bought["orderId"])["status"] == "FILLED"
    assert client.get_margin_trades(**found)[0]["orderId"] == bought["orderId"]
    client.create_margin_order(
        **found, side="SELL", type="MARKET", quantity="0.999", sideEffectType="AUTO_REPAY"
    )
    most = client.get_max_margin_transfer(asset="USDT", isolatedSymbol=SYMBOL)["amount"]
    client.make_universal_transfer(type="ISOLATED_MARGIN_MAIN", asset="USDT", amount=most, fromSymbol=SYMBOL)
    assert exchange.account_row(SYMBOL)["quoteAsset"]["totalAsset"] == "0"


def test_the_official_client(exchange: LocalExchange) -> None:
    """Binance's own client borrows, trades, is told of it in its own types, and repays."""
    exchange.set_account("SOL/USDT", AccountSpec(quote_free="100"))
    configuration = common.ConfigurationRestAPI(
        api_key=exchange.key, api_secret=exchange.secret, base_path=exchange.url
    )
    client = sdk.MarginTrading(config_rest_api=configuration).rest_api
    found = {"symbol": SYMBOL, "is_isolated": "TRUE"}
    order = client.margin_account_new_order(
        **found,
        side="BUY",
        type="LIMIT",
        quantity=2,
        price=140,
        time_in_force="GTC",
        side_effect_type="AUTO_BORROW_REPAY",
        new_client_order_id="official-1",
    ).data()
    assert (order.status, order.client_order_id, order.is_isolated) == ("NEW", "official-1", True)
    asked = client.query_margin_accounts_order(**found, orig_client_order_id="official-1").data()
    assert asked.order_id == order.order_id
    assert len(client.query_margin_accounts_open_orders(**found).data()) == 1
    cancelled = client.margin_account_cancel_order(**found, order_id=order.order_id).data()
    assert cancelled.status == "CANCELED"
    most = client.query_max_borrow(asset="USDT", isolated_symbol=SYMBOL).data()
    assert Decimal(most.amount) > 399
    loan = {"asset": "USDT", "is_isolated": "TRUE", "symbol": SYMBOL}
    assert client.margin_account_borrow_repay(**loan, amount="50", type="BORROW").data().tran_id
    records = client.query_borrow_repay_records_in_margin_account(
        type="BORROW", isolated_symbol=SYMBOL
    ).data()
    assert [row.amount for row in records.rows] == ["50", "180"]
    charges = client.get_interest_history(isolated_symbol=SYMBOL).data()
    assert {row.type for row in charges.rows} == {"ON_BORROW"}
    owed = exchange.account_row(SYMBOL)["quoteAsset"]
    debt = Decimal(owed["borrowed"]) + Decimal(owed["interest"])
    client.margin_account_borrow_repay(**loan, amount=str(debt), type="REPAY")
    assert exchange.account_row(SYMBOL)["marginLevel"] == "999"
    rates = client.get_future_hourly_interest_rate(assets="USDT", is_isolated="TRUE").data()
    assert Decimal(rates[0].next_hourly_interest_rate) == Decimal("0.00001")
