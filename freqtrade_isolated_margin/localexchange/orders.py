"""The spot wallet and its orders."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from decimal import Decimal

from .amounts import ZERO, fixed, floored, rounded
from .errors import BinanceError, filter_failure
from .markets import Market

_LARGEST = Decimal(90000000)
_PERCENT_DOWN, _PERCENT_UP = Decimal("0.2"), Decimal(5)
ORDER_TYPES = ("LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT")
OPEN = frozenset({"NEW", "PARTIALLY_FILLED"})


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution of an order."""

    trade_id: int
    price: Decimal
    quantity: Decimal
    commission: Decimal
    commission_asset: str
    time: int
    maker: bool


@dataclass(frozen=True, slots=True)
class OrderRecord:
    """A spot order as it is now. Each change makes a new record. Times are in milliseconds."""

    order_id: int
    symbol: str
    pair: str
    side: str
    type: str
    client_order_id: str
    time: int
    quantity: Decimal = ZERO
    price: Decimal = ZERO
    stop_price: Decimal = ZERO
    quote_quantity: Decimal = ZERO
    time_in_force: str = "GTC"
    status: str = "NEW"
    triggered: bool = True
    """False while a stop order waits for its stop price."""
    update_time: int = 0
    fills: tuple[Fill, ...] = field(default=())

    @property
    def executed(self) -> Decimal:
        """Quantity in base that was traded."""
        return sum((fill.quantity for fill in self.fills), ZERO)

    @property
    def spent(self) -> Decimal:
        """Quantity in quote that was traded."""
        return sum((fill.quantity * fill.price for fill in self.fills), ZERO)

    @property
    def remaining(self) -> Decimal:
        """Quantity in base that was not traded."""
        return self.quantity - self.executed

    @property
    def open(self) -> bool:
        """Whether the order can still trade."""
        return self.status in OPEN

    @property
    def resting_lock(self) -> Decimal:
        """What the rest of the order keeps locked: quote for a buy, base for a sale."""
        return self.remaining * self.price if self.side == "BUY" else self.remaining


@dataclass(slots=True)
class Balance:
    """One asset of the spot wallet."""

    free: Decimal = ZERO
    locked: Decimal = ZERO


@dataclass(slots=True)
class Quotation:
    """Best prices of a market: one tick to either side of its price."""

    bid: Decimal
    ask: Decimal

    @classmethod
    def around(cls, market: Market, price: Decimal) -> "Quotation":
        """Spread the price by a tick to either side, where there is room."""
        return cls(max(market.tick, price - market.tick), price + market.tick)

    def taken_by(self, side: str) -> Decimal:
        """Give the price at which an order of this side is filled at once."""
        return self.ask if side == "BUY" else self.bid


def check_filters(market: Market, order: OrderRecord, price: Decimal) -> None:
    """Refuse an order that breaks a filter of its market. `price` is the market's."""
    if order.quantity <= 0 or order.quantity > _LARGEST or order.quantity % market.step:
        raise filter_failure("LOT_SIZE")
    if order.type != "MARKET":
        _check_price(market, order, price)
    if order.quantity * (order.price or price) < market.min_notional:
        raise filter_failure("NOTIONAL")


def _check_price(market: Market, order: OrderRecord, price: Decimal) -> None:
    for value in (order.price, order.stop_price):
        if value % market.tick:
            raise filter_failure("PRICE_FILTER")
    if order.price <= 0:
        raise filter_failure("PRICE_FILTER")
    if not price * _PERCENT_DOWN <= order.price <= price * _PERCENT_UP:
        raise filter_failure("PERCENT_PRICE_BY_SIDE")


def crosses(order: OrderRecord, quotation: Quotation) -> bool:
    """Whether a limit order would trade at these prices."""
    if order.side == "BUY":
        return order.price >= quotation.ask
    return order.price <= quotation.bid


def stop_reached(order: OrderRecord, price: Decimal) -> bool:
    """Whether the price has got to the order's stop price."""
    falling = (order.side == "SELL") == (order.type == "STOP_LOSS_LIMIT")
    return price <= order.stop_price if falling else price >= order.stop_price


class OrderBook:
    """All spot orders of the user, and the wallet they move.

    Assumed: liquidity has no end, and an order is filled whole: at the best price, or at its own where it
    rested.
    """

    def __init__(self, fee: Decimal) -> None:
        self.fee = fee
        self.wallet: dict[str, Balance] = {}
        self.by_id: dict[int, OrderRecord] = {}
        self._open: dict[int, Market] = {}
        self._order_ids = itertools.count(1001)
        self._trade_ids = itertools.count(5001)

    def next_id(self) -> int:
        """Return an order id that was not used yet."""
        return next(self._order_ids)

    def balance(self, asset: str) -> Balance:
        """Return the balance of an asset, made when it is first asked for."""
        return self.wallet.setdefault(asset, Balance())

    def place(self, market: Market, order: OrderRecord, price: Decimal) -> OrderRecord:
        """Take a new order at the market's price, and fill it as far as it fills at once."""
        quotation = Quotation.around(market, price)
        order = self._with_quantity(market, order, quotation)
        check_filters(market, order, price)
        self._check_immediacy(order, quotation, price)
        limit = order.price if order.type != "MARKET" else quotation.taken_by(order.side)
        order = replace(order, price=limit)
        self._lock(market, order)
        self.by_id[order.order_id] = order
        self._open[order.order_id] = market
        if order.triggered and (order.type == "MARKET" or crosses(order, quotation)):
            taken = quotation.taken_by(order.side)
            return self.fill(order.order_id, order.quantity, taken, order.time, maker=False)
        if order.time_in_force in {"IOC", "FOK"}:
            return self.close(order.order_id, "EXPIRED", order.time)
        return order

    def match(self, symbol: str, price: Decimal, now: int) -> None:
        """Trigger and fill the open orders of a symbol that the price has got to."""
        for order in self.open_orders(symbol):
            market = self._open[order.order_id]
            current = order
            if not order.triggered and stop_reached(order, price):
                current = self._update(replace(order, triggered=True, update_time=now))
            if current.triggered and crosses(current, Quotation.around(market, price)):
                self.fill(current.order_id, current.remaining, current.price, now, maker=True)

    def fill(self, order_id: int, quantity: Decimal, price: Decimal, now: int, *, maker: bool) -> OrderRecord:
        """Trade a part or all of an open order; the fee is taken from what is received."""
        order, market = self.by_id[order_id], self._open[order_id]
        buying = order.side == "BUY"
        received_asset, received = (market.base, quantity) if buying else (market.quote, quantity * price)
        commission = rounded(received * self.fee)
        execution = Fill(next(self._trade_ids), price, quantity, commission, received_asset, now, maker)
        filled = replace(order, fills=(*order.fills, execution), update_time=now)
        self._unlock(market, order, filled)
        paid_asset, paid = (market.quote, quantity * price) if buying else (market.base, quantity)
        self.balance(paid_asset).free -= paid
        self.balance(received_asset).free += received - commission
        done = filled.remaining <= 0
        return self._update(replace(filled, status="FILLED" if done else "PARTIALLY_FILLED"))

    def close(self, order_id: int, status: str, now: int) -> OrderRecord:
        """End an open order without filling its rest."""
        order, market = self.by_id[order_id], self._open[order_id]
        self._unlock(market, order, None)
        return self._update(replace(order, status=status, update_time=now))

    def open_orders(self, symbol: str | None = None) -> list[OrderRecord]:
        """Orders that can still trade, oldest first."""
        orders = [self.by_id[order_id] for order_id in self._open]
        return [order for order in orders if symbol in {None, order.symbol}]

    def open_symbols(self) -> set[str]:
        """Symbols with an open order."""
        return {market.symbol for market in self._open.values()}

    def orders(self, symbol: str | None = None) -> Iterable[OrderRecord]:
        """All orders, oldest first."""
        return (order for order in self.by_id.values() if symbol in {None, order.symbol})

    def _with_quantity(self, market: Market, order: OrderRecord, quotation: Quotation) -> OrderRecord:
        if order.quantity or not order.quote_quantity:
            return order
        quantity = floored(order.quote_quantity / quotation.taken_by(order.side), market.step)
        return replace(order, quantity=quantity)

    def _check_immediacy(self, order: OrderRecord, quotation: Quotation, price: Decimal) -> None:
        if order.type == "LIMIT_MAKER" and crosses(order, quotation):
            raise BinanceError(-2010, "Order would immediately match and take.")
        if not order.triggered and stop_reached(order, price):
            raise BinanceError(-2010, "Stop price would trigger immediately.")

    def _lock(self, market: Market, order: OrderRecord) -> None:
        balance = self.balance(market.quote if order.side == "BUY" else market.base)
        if balance.free < order.resting_lock:
            raise BinanceError(-2010)
        balance.free -= order.resting_lock
        balance.locked += order.resting_lock

    def _unlock(self, market: Market, before: OrderRecord, after: OrderRecord | None) -> None:
        """Give back what an order locked, but for what the rest of it still needs."""
        balance = self.balance(market.quote if before.side == "BUY" else market.base)
        freed = before.resting_lock - (after.resting_lock if after else ZERO)
        balance.locked -= freed
        balance.free += freed

    def _update(self, order: OrderRecord) -> OrderRecord:
        self.by_id[order.order_id] = order
        if not order.open:
            self._open.pop(order.order_id, None)
        return order


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
    market_order = order.type == "MARKET"
    return {
        "symbol": order.symbol,
        "orderId": order.order_id,
        "orderListId": -1,
        "clientOrderId": order.client_order_id,
        "price": fixed(ZERO if market_order else order.price),
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
