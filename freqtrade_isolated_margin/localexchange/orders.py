"""Orders, and the book that matches them: that of the spot wallet, from which that of margin is made."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Protocol

from .amounts import ZERO, floored, rounded
from .errors import BinanceError, filter_failure
from .markets import Market

_LARGEST = Decimal(90000000)
_PERCENT_DOWN, _PERCENT_UP = Decimal("0.2"), Decimal(5)
ORDER_TYPES = (
    *("LIMIT", "LIMIT_MAKER", "MARKET"),
    *("STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT"),
)
AT_MARKET = frozenset({"MARKET", "STOP_LOSS", "TAKE_PROFIT"})
"""Types without a limit: what they cannot have at once, or as soon as they are triggered, they never get."""
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
    """An order as it is now. Each change makes a new record. Times are in milliseconds."""

    order_id: int
    symbol: str
    pair: str
    side: str
    type: str
    client_order_id: str
    time: int
    quantity: Decimal = ZERO
    price: Decimal = ZERO
    """The limit. Where there is none: the market's price at the acceptance, or the stop price."""
    stop_price: Decimal = ZERO
    quote_quantity: Decimal = ZERO
    time_in_force: str = "GTC"
    status: str = "NEW"
    triggered: bool = True
    """False while a stop order waits for its stop price."""
    update_time: int = 0
    fills: tuple[Fill, ...] = field(default=())
    side_effect: str = "NO_SIDE_EFFECT"
    """What an order in a margin account borrows or repays; this and what follows is for those alone."""
    repay_at_cancel: bool = True
    loan: Decimal = ZERO
    """What was borrowed at its acceptance, of the asset that it pays with."""

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
    def paid_asset(self) -> str:
        """Return the asset that the order pays with."""
        base, quote = self.pair.split("/")
        return quote if self.side == "BUY" else base

    @property
    def resting_lock(self) -> Decimal:
        """What the rest of the order keeps locked: quote for a buy, base for a sale."""
        return self.remaining * self.price if self.side == "BUY" else self.remaining


class Purse(Protocol):
    """One asset of whatever an order is paid from."""

    free: Decimal
    locked: Decimal


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
    falling = (order.side == "SELL") == order.type.startswith("STOP_LOSS")
    return price <= order.stop_price if falling else price >= order.stop_price


class OrderBook:
    """All spot orders of the user, and the wallet they move.

    Assumed: an order is filled at the best price, or at its own where it rested, and whole as far as the
    liquidity goes, which has no end unless one is set.
    """

    def __init__(self, fee: Decimal) -> None:
        self.fee = fee
        self.wallet: dict[str, Balance] = {}
        self.by_id: dict[int, OrderRecord] = {}
        self.liquidity: dict[str, Decimal] = {}
        """How much of a symbol still trades by itself, in base; without an end where nothing is set."""
        self._open: dict[int, Market] = {}
        self._order_ids = itertools.count(1001)
        self._trade_ids = itertools.count(5001)

    @property
    def id_counters(self) -> tuple["itertools.count[int]", "itertools.count[int]"]:
        """The counters of orders and of trades, for another book to count on."""
        return self._order_ids, self._trade_ids

    def next_id(self) -> int:
        """Return an order id that was not used yet."""
        return next(self._order_ids)

    def balance(self, asset: str) -> Balance:
        """Return the balance of an asset, made when it is first asked for."""
        return self.wallet.setdefault(asset, Balance())

    def purse(self, market: Market, asset: str) -> Purse:  # noqa: ARG002 - in margin each market has its own
        """Return what an order in a market pays from, or is paid into."""
        return self.balance(asset)

    def place(self, market: Market, order: OrderRecord, price: Decimal) -> OrderRecord:
        """Take a new order at the market's price, and fill it as far as it fills at once."""
        quotation = Quotation.around(market, price)
        order = self._with_quantity(market, order, quotation)
        self._check_name(order)
        check_filters(market, order, price)
        self._check_immediacy(order, quotation, price)
        if order.type == "MARKET":
            order = replace(order, price=quotation.taken_by(order.side))
        order = self._fund(market, order)
        self._lock(market, order)
        self.by_id[order.order_id] = order
        self._open[order.order_id] = market
        return self._take(order, quotation, order.time)

    def match(self, symbol: str, price: Decimal, now: int) -> None:
        """Trigger and fill the open orders of a symbol that the price has got to."""
        for order in self.open_orders(symbol):
            quotation = Quotation.around(self._open[order.order_id], price)
            if not order.triggered and stop_reached(order, price):
                # What has just been triggered has not rested: it takes what is there.
                self._take(self._update(replace(order, triggered=True, update_time=now)), quotation, now)
            elif order.triggered and crosses(order, quotation):
                quantity = self._flowing(order)
                if quantity:
                    self.fill(order.order_id, quantity, order.price, now, maker=True)
                    self._drain(order, quantity)

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
        self.purse(market, paid_asset).free -= paid
        self.purse(market, received_asset).free += received - commission
        self._received(market, filled, received_asset, received - commission)
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

    def _take(self, order: OrderRecord, quotation: Quotation, now: int) -> OrderRecord:
        """Fill an order that has not rested, and end it where it may not rest."""
        price = quotation.taken_by(order.side)
        at_market = order.type in AT_MARKET
        if order.triggered and (at_market or crosses(order, quotation)) and self._affords(order, price):
            quantity = self._flowing(order)
            if quantity == order.remaining or (quantity and order.time_in_force != "FOK"):
                order = self.fill(order.order_id, quantity, price, now, maker=False)
                self._drain(order, quantity)
        impatient = order.time_in_force in {"IOC", "FOK"} or at_market
        if order.open and order.triggered and impatient:
            return self.close(order.order_id, "EXPIRED", now)
        return order

    def _affords(self, order: OrderRecord, price: Decimal) -> bool:
        """Whether what is locked and free pays for an order without a limit.

        Assumed: a stop order without one locks what it costs at its stop price, takes the rest from what is
        free, and expires where that is not enough.
        """
        more = order.remaining * (price - order.price) if order.side == "BUY" else ZERO
        market = self._open[order.order_id]
        return more <= self.purse(market, market.quote).free

    def _flowing(self, order: OrderRecord) -> Decimal:
        return min(order.remaining, self.liquidity.get(order.symbol, order.remaining))

    def _drain(self, order: OrderRecord, quantity: Decimal) -> None:
        if order.symbol in self.liquidity:
            self.liquidity[order.symbol] -= quantity

    def _with_quantity(self, market: Market, order: OrderRecord, quotation: Quotation) -> OrderRecord:
        if order.quantity or not order.quote_quantity:
            return order
        quantity = floored(order.quote_quantity / quotation.taken_by(order.side), market.step)
        return replace(order, quantity=quantity)

    def _check_name(self, order: OrderRecord) -> None:
        if any(other.client_order_id == order.client_order_id for other in self.open_orders(order.symbol)):
            raise BinanceError(-2010, "Duplicate order sent.")

    def _check_immediacy(self, order: OrderRecord, quotation: Quotation, price: Decimal) -> None:
        if order.type == "LIMIT_MAKER" and crosses(order, quotation):
            raise BinanceError(-2010, "Order would immediately match and take.")
        if not order.triggered and stop_reached(order, price):
            raise BinanceError(-2010, "Stop price would trigger immediately.")

    def _fund(self, market: Market, order: OrderRecord) -> OrderRecord:
        """Get hold of what an order pays with, or refuse."""
        if self._payer(market, order).free < order.resting_lock:
            raise BinanceError(-2010)
        return order

    def _received(self, market: Market, order: OrderRecord, asset: str, amount: Decimal) -> None:
        """Do what is to be done with what an order has bought: nothing in a spot wallet."""

    def _payer(self, market: Market, order: OrderRecord) -> Purse:
        return self.purse(market, order.paid_asset)

    def _lock(self, market: Market, order: OrderRecord) -> None:
        purse = self._payer(market, order)
        purse.free -= order.resting_lock
        purse.locked += order.resting_lock

    def _unlock(self, market: Market, before: OrderRecord, after: OrderRecord | None) -> None:
        """Give back what an order locked, but for what the rest of it still needs."""
        purse = self._payer(market, before)
        freed = before.resting_lock - (after.resting_lock if after else ZERO)
        purse.locked -= freed
        purse.free += freed

    def _update(self, order: OrderRecord) -> OrderRecord:
        self.by_id[order.order_id] = order
        if not order.open:
            self._open.pop(order.order_id, None)
        return order
