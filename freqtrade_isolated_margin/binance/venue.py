"""What moves money in isolated margin accounts, and what tells whether it did: ccxt in, records out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

from freqtrade_isolated_margin.account.records import plain_decimal
from freqtrade_isolated_margin.binance.adapter import IsolatedMarginAdapter
from freqtrade_isolated_margin.errors import (
    AnswerError,
    CredentialsError,
    IsolatedMarginError,
    NotSentError,
)

T = TypeVar("T")

# Binance's codes after which nobody knows whether it was done (API: general error codes), and the HTTP
# statuses that mean the same (API: a 5XX status is no failure of the operation).
_UNKNOWN_CODES = {-1000, -1001, -1006, -1007}
_SERVER_FAILS = 500
_NO_SUCH_ORDER = -2013
_NOTHING_TO_CANCEL = -2011
IN, OUT = "MAIN_ISOLATED_MARGIN", "ISOLATED_MARGIN_MAIN"
# Requests that move money count against the user (API: UID weight, 180,000 a minute), not the address.
_NO_IP_WEIGHT = 0
_PAGE = 100


def is_doubtful(error: IsolatedMarginError) -> bool:
    """Whether a request that ended so may have had its effect all the same."""
    if isinstance(error, NotSentError | CredentialsError):
        return False
    if isinstance(error, AnswerError):
        return True
    return error.code is None or error.code in _UNKNOWN_CODES or (error.status or 0) >= _SERVER_FAILS


class PlacedOrder(NamedTuple):
    """An order in a margin account as it is now. Amounts are in base currency."""

    order_id: str
    name: str
    """Its client order id."""
    side: str
    status: str
    quantity: Decimal
    executed: Decimal

    @property
    def is_open(self) -> bool:
        """Whether it can still trade."""
        return self.status in {"NEW", "PARTIALLY_FILLED", "PENDING_NEW", "PENDING_CANCEL"}


class Status(StrEnum):
    """How far a transfer or a payment is (API: ``status``); any other word is an answer not understood."""

    PENDING = "PENDING"
    CONFIRMED = "CONFIRMED"
    FAILED = "FAILED"


class Transfer(NamedTuple):
    """A transfer between the spot wallet and some isolated margin account; the record names no pair."""

    asset: str
    amount: Decimal
    at: int
    status: Status


class Payment(NamedTuple):
    """A payment on a debt."""

    amount: Decimal
    status: Status


class Liquidation(NamedTuple):
    """A forced liquidation of an account."""

    order_id: str
    side: str
    quantity: Decimal
    price: Decimal
    at: int


class Venue(IsolatedMarginAdapter):
    """An adapter that may also move money. Everything raises as `fetch`; see `is_doubtful`."""

    def now_ms(self) -> int:
        """Return the time by the exchange's clock, in milliseconds. Needs loaded markets."""
        return int(self._client.nonce())

    # ----- what moves money

    def transfer(self, kind: str, symbol: str, asset: str, amount: Decimal) -> None:
        """Move `amount` of an asset between the spot wallet and the account; 900 UID weight."""
        place = "toSymbol" if kind == IN else "fromSymbol"
        params = {"type": kind, "asset": asset, "amount": f"{amount:f}", place: symbol}
        answer = self._signed("sapi_post_asset_transfer", params, _NO_IP_WEIGHT)
        _read("transfer", answer, lambda row: row["tranId"])

    def repay(self, symbol: str, asset: str, amount: Decimal) -> None:
        """Repay from what is free in the account, interest first; 1500 UID weight."""
        params = {
            "type": "REPAY",
            "isIsolated": "TRUE",
            "symbol": symbol,
            "asset": asset,
            "amount": f"{amount:f}",
        }
        _read("payment", self._signed("sapi_post_margin_borrow_repay", params, _NO_IP_WEIGHT), dict)

    def market_order(
        self, symbol: str, side: str, quantity: Decimal, name: str, effect: str = "AUTO_REPAY"
    ) -> PlacedOrder:
        """Place an order at market price; 6 UID weight."""
        params = {
            "symbol": symbol,
            "isIsolated": "TRUE",
            "side": side,
            "type": "MARKET",
            "quantity": f"{quantity:f}",
            "newClientOrderId": name,
            "sideEffectType": effect,
            "newOrderRespType": "RESULT",
        }
        return _read("order", self._signed("sapi_post_margin_order", params, _NO_IP_WEIGHT), _order)

    def cancel(self, symbol: str, order_id: str) -> None:
        """Cancel an order, if it is still open; weight 10."""
        params = {"symbol": symbol, "isIsolated": "TRUE", "orderId": order_id}
        try:
            self._signed("sapi_delete_margin_order", params, 10)
        except IsolatedMarginError as error:
            if error.code != _NOTHING_TO_CANCEL:
                raise

    # ----- what tells whether it did

    def order_named(self, symbol: str, name: str) -> PlacedOrder | None:
        """Return the order with this client order id, None where there is none; weight 10."""
        params = {"symbol": symbol, "isIsolated": "TRUE", "origClientOrderId": name}
        try:
            return _read("order", self._signed("sapi_get_margin_order", params, 10), _order)
        except IsolatedMarginError as error:
            if error.code == _NO_SUCH_ORDER:
                return None
            raise

    def open_orders(self, symbol: str) -> list[PlacedOrder]:
        """Return the account's open orders; weight 10."""
        params = {"symbol": symbol, "isIsolated": "TRUE"}
        rows = self._signed("sapi_get_margin_openorders", params, 10)
        return _read("open orders", rows, lambda rows: [_order(row) for row in rows])

    def transfers(self, kind: str, since: int) -> list[Transfer]:
        """Return the newest transfers from `since` (milliseconds) on, at most 100; weight 1."""
        params = {"type": kind, "startTime": str(since), "current": "1", "size": str(_PAGE)}
        answer = self._signed("sapi_get_asset_transfer", params, 1)
        return _read("transfers", answer, lambda page: [_transfer(row) for row in page.get("rows") or []])

    def payments(self, symbol: str, asset: str, since: int) -> list[Payment]:
        """Return the payments on a debt in an asset from `since` (milliseconds) on; weight 10."""
        params = {
            "type": "REPAY",
            "isolatedSymbol": symbol,
            "asset": asset,
            "startTime": str(since),
            "size": str(_PAGE),
        }
        answer = self._signed("sapi_get_margin_borrow_repay", params, 10)
        return _read("payments", answer, lambda page: [_payment(row) for row in page["rows"]])

    def liquidations(self, symbol: str, since: int) -> list[Liquidation]:
        """Return the account's forced liquidations from `since` (milliseconds) on; weight 1."""
        params = {"isolatedSymbol": symbol, "startTime": str(since), "size": str(_PAGE)}
        answer = self._signed("sapi_get_margin_forceliquidationrec", params, 1)
        return _read(
            "liquidations",
            answer,
            lambda page: [_liquidation(row) for row in page["rows"] if row["symbol"] == symbol],
        )


def _read(what: str, answer: object, read: Callable[[Any], T]) -> T:
    """Return what an answer says. Raises `AnswerError` where it is not as documented."""
    try:
        return read(answer)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise AnswerError(f"the {what} is not as documented") from None


def _order(row: Mapping[str, Any]) -> PlacedOrder:
    return PlacedOrder(
        order_id=str(int(row["orderId"])),
        name=str(row.get("clientOrderId")),
        side=row["side"],
        status=row["status"],
        quantity=plain_decimal(row["origQty"]),
        executed=plain_decimal(row["executedQty"]),
    )


def _transfer(row: Mapping[str, Any]) -> Transfer:
    return Transfer(row["asset"], plain_decimal(row["amount"]), int(row["timestamp"]), Status(row["status"]))


def _payment(row: Mapping[str, Any]) -> Payment:
    return Payment(plain_decimal(row["amount"]), Status(row["status"]))


def _liquidation(row: Mapping[str, Any]) -> Liquidation:
    return Liquidation(
        order_id=str(int(row["orderId"])),
        side=row["side"],
        quantity=plain_decimal(row["executedQty"]),
        price=plain_decimal(row["avgPrice"]),
        at=int(row["updatedTime"]),
    )
