"""How requests about orders are read, for spot and margin alike."""

import re
import secrets
from decimal import Decimal

from .amounts import ZERO
from .errors import BinanceError, illegal, mandatory
from .markets import Market
from .order_rows import trade_rows
from .orders import AT_MARKET, ORDER_TYPES, OrderBook, OrderRecord
from .protocol import Parameters
from .routes import Call

_STOP_TYPES = frozenset({"STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT"})
_LIMIT_TYPES = frozenset({"LIMIT", "LIMIT_MAKER", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"})
_NAME = re.compile(r"[.A-Z:/a-z0-9_-]{1,36}")


def find_order(call: Call, book: OrderBook, code: int) -> OrderRecord:
    """Find the order that `orderId` or `origClientOrderId` names; of two with one name the newest."""
    symbol, order_id = call.symbol(), call.params.integer("orderId")
    name = call.params.get("origClientOrderId")
    if order_id is None and not name:
        raise BinanceError(
            -1102, "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!"
        )
    for order in reversed(list(book.orders(symbol))):
        if order.order_id == order_id or (order_id is None and order.client_order_id == name):
            return order
    raise BinanceError(code)


def find_open_order(call: Call, book: OrderBook) -> OrderRecord:
    """Find an order that can be cancelled. Of two with one name it is the one that is open."""
    order = find_order(call, book, -2011)
    if not order.open:
        raise BinanceError(-2011)
    return order


def orders_in_time(call: Call, book: OrderBook) -> list[OrderRecord]:
    """List the orders of a market that `orderId`, the two times and `limit` ask for, oldest first."""
    params, first = call.params, call.params.integer("orderId") or 0
    begin, end = params.integer("startTime") or 0, params.integer("endTime")
    orders = [
        order
        for order in book.orders(call.symbol())
        if order.order_id >= first and order.time >= begin and (end is None or order.time <= end)
    ]
    limit = params.limit(500, 1000)
    return orders[:limit] if first else orders[-limit:]


def trades_in_time(call: Call, book: OrderBook) -> list[dict[str, object]]:
    """List the executions in a market that ids, times and `limit` ask for, oldest first."""
    params, order_id = call.params, call.params.integer("orderId")
    first, begin = params.integer("fromId") or 0, params.integer("startTime") or 0
    end = params.integer("endTime")
    found = [
        (fill.trade_id, row)
        for order in book.orders(call.symbol())
        if order_id in {None, order.order_id}
        for row, fill in zip(trade_rows(order), order.fills, strict=True)
        if fill.trade_id >= first and fill.time >= begin and (end is None or fill.time <= end)
    ]
    rows = [row for _, row in sorted(found, key=lambda entry: entry[0])]
    limit = params.limit(500, 1000)
    return rows[:limit] if first else rows[-limit:]


def response_detail(params: Parameters, order: OrderRecord) -> str:
    """Return how much of a new order is answered."""
    usual = "FULL" if order.type in {"MARKET", "LIMIT"} else "ACK"
    return one_of(params.get("newOrderRespType") or usual, ("ACK", "RESULT", "FULL"), -1102)


def one_of(value: str, choices: tuple[str, ...], code: int) -> str:
    """Return a value that is one of the choices, or refuse it with the code."""
    if value not in choices:
        raise BinanceError(code)
    return value


def new_name(params: Parameters) -> str:
    """Return the client order id that was sent, or a new one."""
    name = params.get("newClientOrderId") or secrets.token_urlsafe(16)
    if not _NAME.fullmatch(name):
        raise illegal("newClientOrderId", r"^[\.A-Z\:/a-z0-9_-]{1,36}$")
    return name


def read_order(call: Call, market: Market) -> OrderRecord:
    """Read a new order."""
    params, kind = call.params, call.params.text("type")
    if kind not in ORDER_TYPES:
        raise BinanceError(-1116)
    now = call.state.told_ms()
    stop_price = _positive(params, "stopPrice") if kind in _STOP_TYPES else ZERO
    return OrderRecord(
        order_id=call.state.book.next_id(),
        symbol=market.symbol,
        pair=market.spec.pair,
        side=one_of(params.text("side"), ("BUY", "SELL"), -1117),
        type=kind,
        client_order_id=new_name(params),
        time=now,
        update_time=now,
        quantity=_quantity(params, kind),
        quote_quantity=params.decimal("quoteOrderQty") or ZERO,
        price=_positive(params, "price") if kind in _LIMIT_TYPES else stop_price,
        stop_price=stop_price,
        triggered=kind not in _STOP_TYPES,
        time_in_force=_time_in_force(params, kind),
    )


def _quantity(params: Parameters, kind: str) -> Decimal:
    if kind == "MARKET" and params.get("quoteOrderQty"):
        return ZERO
    return _positive(params, "quantity")


def _time_in_force(params: Parameters, kind: str) -> str:
    if kind in AT_MARKET or kind == "LIMIT_MAKER":
        return "GTC"
    return one_of(params.text("timeInForce"), ("GTC", "IOC", "FOK"), -1115)


def _positive(params: Parameters, name: str) -> Decimal:
    value = params.decimal(name)
    if not value:
        raise mandatory(name)
    return value
