"""How orders and their executions are written: as the spot endpoints do, and as those of margin do."""

from .amounts import ZERO, fixed, plain
from .orders import AT_MARKET, Fill, OrderRecord


def order_row(order: OrderRecord) -> dict[str, object]:
    """Write an order as the query endpoints do."""
    return {
        **_common(order),
        "stopPrice": fixed(order.stop_price),
        "icebergQty": fixed(ZERO),
        "time": order.time,
        "updateTime": order.update_time or order.time,
        "isWorking": order.triggered,
        "workingTime": order.time if order.triggered else -1,
    }


def new_order_row(order: OrderRecord, detail: str) -> dict[str, object]:
    """Write the answer to a new order: ACK, RESULT or FULL."""
    brief: dict[str, object] = {
        "symbol": order.symbol,
        "orderId": order.order_id,
        "orderListId": -1,
        "clientOrderId": order.client_order_id,
        "transactTime": order.time,
    }
    if detail == "ACK":
        return brief
    row = {**brief, **_common(order), "workingTime": order.time if order.triggered else -1}
    if order.stop_price:
        row["stopPrice"] = fixed(order.stop_price)
    return {**row, "fills": [_fill_row(fill) for fill in order.fills]} if detail == "FULL" else row


def cancelled_row(order: OrderRecord, client_order_id: str) -> dict[str, object]:
    """Write the answer to a cancellation, which has a client order id of its own."""
    return {
        **_common(order),
        "origClientOrderId": order.client_order_id,
        "clientOrderId": client_order_id,
        "transactTime": order.update_time,
    }


def margin_order_row(order: OrderRecord) -> dict[str, object]:
    """Write an order in an isolated margin account as the query endpoints do."""
    return {**order_row(order), "isIsolated": True}


def new_margin_order_row(order: OrderRecord, detail: str) -> dict[str, object]:
    """Write the answer to a new order in an isolated margin account, with what was borrowed for it.

    Assumed: the loan is a string, as other amounts; the document has a number.
    """
    row = {**new_order_row(order, detail), "isIsolated": True}
    if order.loan and detail != "ACK":
        row["marginBuyBorrowAmount"] = plain(order.loan)
        row["marginBuyBorrowAsset"] = order.paid_asset
    return row


def cancelled_margin_row(order: OrderRecord, client_order_id: str) -> dict[str, object]:
    """Write the answer to a cancellation in an isolated margin account."""
    return {**cancelled_row(order, client_order_id), "isIsolated": True}


def trade_rows(order: OrderRecord) -> list[dict[str, object]]:
    """Write the executions of an order as `myTrades` does."""
    return [
        {
            "symbol": order.symbol,
            "id": fill.trade_id,
            "orderId": order.order_id,
            "orderListId": -1,
            "price": fixed(fill.price),
            "qty": fixed(fill.quantity),
            "quoteQty": fixed(fill.price * fill.quantity),
            "commission": fixed(fill.commission),
            "commissionAsset": fill.commission_asset,
            "time": fill.time,
            "isBuyer": order.side == "BUY",
            "isMaker": fill.maker,
            "isBestMatch": True,
        }
        for fill in order.fills
    ]


def _common(order: OrderRecord) -> dict[str, object]:
    return {
        "symbol": order.symbol,
        "orderId": order.order_id,
        "orderListId": -1,
        "clientOrderId": order.client_order_id,
        "price": fixed(ZERO if order.type in AT_MARKET else order.price),
        "origQty": fixed(order.quantity),
        "executedQty": fixed(order.executed),
        "origQuoteOrderQty": fixed(order.quote_quantity),
        "cummulativeQuoteQty": fixed(order.spent),
        "status": order.status,
        "timeInForce": order.time_in_force,
        "type": order.type,
        "side": order.side,
        "selfTradePreventionMode": "EXPIRE_MAKER",
    }


def _fill_row(fill: Fill) -> dict[str, object]:
    return {
        "price": fixed(fill.price),
        "qty": fixed(fill.quantity),
        "commission": fixed(fill.commission),
        "commissionAsset": fill.commission_asset,
        "tradeId": fill.trade_id,
    }
