"""The spot wallet, spot orders, and what clients ask for about the account at their start."""

from .amounts import ZERO, fixed, plain
from .errors import BinanceError
from .order_requests import (
    find_open_order,
    find_order,
    new_name,
    orders_in_time,
    read_order,
    response_detail,
    trades_in_time,
)
from .order_rows import cancelled_row, new_order_row, order_row
from .orders import OrderRecord
from .protocol import Parameters, Security
from .routes import Call, route


@route("GET", "/api/v3/account", 20)
def account(call: Call) -> object:
    """Spot balances, and what the account may do."""
    fee = fixed(call.state.book.fee)
    hide_zero = call.params.get("omitZeroBalances") == "true"
    return {
        "makerCommission": 10,
        "takerCommission": 10,
        "buyerCommission": 0,
        "sellerCommission": 0,
        "commissionRates": {"maker": fee, "taker": fee, "buyer": fixed(ZERO), "seller": fixed(ZERO)},
        "canTrade": True,
        "canWithdraw": False,
        "canDeposit": False,
        "brokered": False,
        "requireSelfTradePrevention": False,
        "preventSor": False,
        "updateTime": call.state.told_ms(),
        "accountType": "SPOT",
        "balances": [
            {"asset": asset, "free": fixed(balance.free), "locked": fixed(balance.locked)}
            for asset, balance in call.state.book.wallet.items()
            if balance.free or balance.locked or not hide_zero
        ],
        "permissions": ["SPOT"],
        "uid": 1,
    }


@route("GET", "/api/v3/account/commission", 20)
def commission(call: Call) -> object:
    """Fees of a market."""
    fee, nothing = fixed(call.state.book.fee), fixed(ZERO)
    none = {"maker": nothing, "taker": nothing, "buyer": nothing, "seller": nothing}
    return {
        "symbol": call.symbol(),
        "standardCommission": {**none, "maker": fee, "taker": fee},
        "specialCommission": none,
        "taxCommission": none,
        "discount": {
            "enabledForAccount": False,
            "enabledForSymbol": False,
            "discountAsset": "BNB",
            "discount": nothing,
        },
    }


@route("GET", "/sapi/v1/asset/tradeFee", 1)
def trade_fee(call: Call) -> object:
    """Fees of one market or of all."""
    symbols = [call.symbol()] if "symbol" in call.params else list(call.state.markets)
    fee = plain(call.state.book.fee)
    return [{"symbol": symbol, "makerCommission": fee, "takerCommission": fee} for symbol in symbols]


@route("GET", "/sapi/v1/capital/config/getall", 10)
def coins(call: Call) -> object:
    """All coins, none of which can be moved on a network."""
    markets = call.state.markets.values()
    assets = dict.fromkeys(asset for market in markets for asset in (market.base, market.quote))
    return [
        {
            "coin": asset,
            "depositAllEnable": False,
            "withdrawAllEnable": False,
            "name": asset,
            "free": plain(call.state.book.balance(asset).free),
            "locked": plain(call.state.book.balance(asset).locked),
            "freeze": "0",
            "withdrawing": "0",
            "ipoing": "0",
            "ipoable": "0",
            "storage": "0",
            "isLegalMoney": False,
            "trading": True,
            "networkList": [],
        }
        for asset in assets
    ]


@route("GET", "/sapi/v1/spot/delist-schedule", 100)
def delistings(_: Call) -> object:
    """List what will be delisted: nothing ever is."""
    return []


@route("POST", "/api/v3/order", 1, Security.TRADE)
def new_order(call: Call) -> object:
    """Place an order."""
    market = call.state.market(call.params.text("symbol"))
    order = read_order(call, market)
    detail = response_detail(call.params, order)
    return new_order_row(call.state.place(market, order), detail)


@route("GET", "/api/v3/order", 4)
def query_order(call: Call) -> object:
    """Answer with one order, whatever has become of it."""
    return order_row(find_order(call, call.state.book, -2013))


@route("DELETE", "/api/v3/order", 1, Security.TRADE)
def cancel_order(call: Call) -> object:
    """Cancel an open order."""
    return _cancel(call, find_open_order(call, call.state.book))


@route("DELETE", "/api/v3/openOrders", 1, Security.TRADE)
def cancel_open_orders(call: Call) -> object:
    """Cancel all open orders of a market."""
    orders = call.state.book.open_orders(call.symbol())
    if not orders:
        raise BinanceError(-2011)
    return [_cancel(call, order) for order in orders]


def _open_orders_weight(params: Parameters) -> int:
    return 6 if "symbol" in params else 80


@route("GET", "/api/v3/openOrders", _open_orders_weight)
def open_orders(call: Call) -> object:
    """List the open orders of one market, or of all."""
    symbol = call.symbol() if "symbol" in call.params else None
    return [order_row(order) for order in call.state.book.open_orders(symbol)]


@route("GET", "/api/v3/allOrders", 20)
def all_orders(call: Call) -> object:
    """List the orders of a market, oldest first."""
    return [order_row(order) for order in orders_in_time(call, call.state.book)]


@route("GET", "/api/v3/myTrades", 20)
def my_trades(call: Call) -> object:
    """List the executions in a market, oldest first."""
    return trades_in_time(call, call.state.book)


def _cancel(call: Call, order: OrderRecord) -> dict[str, object]:
    cancelled = call.state.book.close(order.order_id, "CANCELED", call.state.told_ms())
    return cancelled_row(cancelled, new_name(call.params))
