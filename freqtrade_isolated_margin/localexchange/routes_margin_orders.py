"""Orders in isolated margin accounts."""

from dataclasses import replace

from .errors import BinanceError
from .margin_orders import BORROWING, SIDE_EFFECTS
from .order_requests import (
    find_open_order,
    find_order,
    new_name,
    one_of,
    orders_in_time,
    read_order,
    response_detail,
    trades_in_time,
)
from .order_rows import cancelled_margin_row, margin_order_row, new_margin_order_row
from .orders import OrderRecord
from .protocol import Parameters, Security
from .routes import Call, route

_BORROWING_WEIGHT, _WEIGHT = 1500, 6


def _order_weight(params: Parameters) -> int:
    """Return the weight of a new order. Assumed: one that may borrow weighs as much as one that does."""
    return _BORROWING_WEIGHT if params.get("sideEffectType") in BORROWING else _WEIGHT


def isolated_only(params: Parameters) -> None:
    """Refuse what is meant for the cross margin account, which this user does not have."""
    if params.get("isIsolated", "").upper() != "TRUE":
        raise BinanceError(-3003)


@route("POST", "/sapi/v1/margin/order", _order_weight, Security.TRADE, by_uid=True)
def new_order(call: Call) -> object:
    """Place an order, and borrow what its side effect says."""
    params = call.params
    isolated_only(params)
    market = call.state.market(params.text("symbol"))
    order = replace(
        read_order(call, market),
        side_effect=one_of(params.get("sideEffectType") or "NO_SIDE_EFFECT", SIDE_EFFECTS, -1102),
        repay_at_cancel=params.get("autoRepayAtCancel", "").lower() != "false",
    )
    detail = response_detail(params, order)
    return new_margin_order_row(call.state.place_margin(market, order), detail)


@route("GET", "/sapi/v1/margin/order", 10)
def query_order(call: Call) -> object:
    """Answer with one order, whatever has become of it."""
    isolated_only(call.params)
    return margin_order_row(find_order(call, call.state.margin_book, -2013))


@route("DELETE", "/sapi/v1/margin/order", 10, Security.TRADE)
def cancel_order(call: Call) -> object:
    """Cancel an open order."""
    isolated_only(call.params)
    return _cancel(call, find_open_order(call, call.state.margin_book))


@route("DELETE", "/sapi/v1/margin/openOrders", 1, Security.TRADE)
def cancel_open_orders(call: Call) -> object:
    """Cancel all open orders of an account."""
    isolated_only(call.params)
    orders = call.state.margin_book.open_orders(call.symbol())
    if not orders:
        raise BinanceError(-2011)
    return [_cancel(call, order) for order in orders]


@route("GET", "/sapi/v1/margin/openOrders", 10)
def open_orders(call: Call) -> object:
    """List the open orders of one account; the symbol is mandatory where it is an isolated one."""
    isolated_only(call.params)
    return [margin_order_row(order) for order in call.state.margin_book.open_orders(call.symbol())]


@route("GET", "/sapi/v1/margin/allOrders", 10)
def all_orders(call: Call) -> object:
    """List the orders of an account, oldest first."""
    isolated_only(call.params)
    return [margin_order_row(order) for order in orders_in_time(call, call.state.margin_book)]


@route("GET", "/sapi/v1/margin/myTrades", 10)
def my_trades(call: Call) -> object:
    """List the executions in an account, oldest first."""
    isolated_only(call.params)
    return [{**row, "isIsolated": True} for row in trades_in_time(call, call.state.margin_book)]


def _cancel(call: Call, order: OrderRecord) -> dict[str, object]:
    cancelled = call.state.margin_book.close(order.order_id, "CANCELED", call.state.told_ms())
    return cancelled_margin_row(cancelled, new_name(call.params))
