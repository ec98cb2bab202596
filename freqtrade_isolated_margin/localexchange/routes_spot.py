"""The spot wallet, spot orders, and what clients ask for about the account at their start."""

import secrets
from decimal import Decimal

from .amounts import ZERO, fixed, plain
from .errors import BinanceError, mandatory
from .markets import Market
from .orders import (
    ORDER_TYPES,
    OrderRecord,
    cancelled_row,
    new_order_row,
    order_row,
    trade_rows,
)
from .protocol import Parameters, Security
from .routes import Call, route

_STOP_TYPES = frozenset({"STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"})


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
    order = _read_order(call, market)
    detail = call.params.get("newOrderRespType") or ("FULL" if order.type in {"MARKET", "LIMIT"} else "ACK")
    return new_order_row(call.state.place(market, order), detail)


@route("GET", "/api/v3/order", 4)
def query_order(call: Call) -> object:
    """Answer with one order, whatever has become of it."""
    return order_row(_find(call, -2013))


@route("DELETE", "/api/v3/order", 1, Security.TRADE)
def cancel_order(call: Call) -> object:
    """Cancel an open order."""
    order = _find(call, -2011)
    if not order.open:
        raise BinanceError(-2011)
    return _cancel(call, order)


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
    params, first = call.params, call.params.integer("orderId") or 0
    begin, end = params.integer("startTime") or 0, params.integer("endTime")
    orders = [
        order
        for order in call.state.book.orders(call.symbol())
        if order.order_id >= first and order.time >= begin and (end is None or order.time <= end)
    ]
    limit = params.limit(500, 1000)
    return [order_row(order) for order in (orders[:limit] if first else orders[-limit:])]


@route("GET", "/api/v3/myTrades", 20)
def my_trades(call: Call) -> object:
    """List the executions in a market, oldest first."""
    params, order_id = call.params, call.params.integer("orderId")
    first, begin = params.integer("fromId") or 0, params.integer("startTime") or 0
    rows = [
        trade_row
        for order in call.state.book.orders(call.symbol())
        if order_id in {None, order.order_id}
        for trade_row, fill in zip(trade_rows(order), order.fills, strict=True)
        if fill.trade_id >= first and fill.time >= begin
    ]
    return rows[-params.limit(500, 1000) :]


def _cancel(call: Call, order: OrderRecord) -> dict[str, object]:
    cancelled = call.state.book.close(order.order_id, "CANCELED", call.state.told_ms())
    return cancelled_row(cancelled, call.params.get("newClientOrderId") or _client_order_id())


def _find(call: Call, code: int) -> OrderRecord:
    """Find the order that `orderId` or `origClientOrderId` names."""
    symbol, order_id = call.symbol(), call.params.integer("orderId")
    client_order_id = call.params.get("origClientOrderId")
    if order_id is None and not client_order_id:
        raise BinanceError(
            -1102, "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!"
        )
    for order in call.state.book.orders(symbol):
        if order.order_id == order_id or (order_id is None and order.client_order_id == client_order_id):
            return order
    raise BinanceError(code)


def _read_order(call: Call, market: Market) -> OrderRecord:
    params, kind = call.params, call.params.text("type")
    if kind not in ORDER_TYPES:
        raise BinanceError(-1116)
    now = call.state.told_ms()
    return OrderRecord(
        order_id=call.state.book.next_id(),
        symbol=market.symbol,
        pair=market.spec.pair,
        side=_choice(params.text("side"), {"BUY", "SELL"}, -1117),
        type=kind,
        client_order_id=params.get("newClientOrderId") or _client_order_id(),
        time=now,
        update_time=now,
        quantity=_quantity(params, kind),
        quote_quantity=params.decimal("quoteOrderQty") or ZERO,
        price=ZERO if kind == "MARKET" else _positive(params, "price"),
        stop_price=_positive(params, "stopPrice") if kind in _STOP_TYPES else ZERO,
        triggered=kind not in _STOP_TYPES,
        time_in_force=_time_in_force(params, kind),
    )


def _quantity(params: Parameters, kind: str) -> Decimal:
    if kind == "MARKET" and params.get("quoteOrderQty"):
        return ZERO
    return _positive(params, "quantity")


def _time_in_force(params: Parameters, kind: str) -> str:
    if kind in {"MARKET", "LIMIT_MAKER"}:
        return "GTC"
    return _choice(params.text("timeInForce"), {"GTC", "IOC", "FOK"}, -1115)


def _positive(params: Parameters, name: str) -> Decimal:
    value = params.decimal(name)
    if not value:
        raise mandatory(name)
    return value


def _choice(value: str, choices: set[str], code: int) -> str:
    if value not in choices:
        raise BinanceError(code)
    return value


def _client_order_id() -> str:
    return secrets.token_urlsafe(16)
