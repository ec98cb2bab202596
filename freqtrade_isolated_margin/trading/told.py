"""Orders as freqtrade is told of them: in its own amounts, with fees in the currency that it expects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from freqtrade.constants import NON_OPEN_EXCHANGE_STATES
from freqtrade.exchange.exchange_types import CcxtOrder

from freqtrade_isolated_margin.account.maths import ZERO
from freqtrade_isolated_margin.trading.journal import Kind, Step
from freqtrade_isolated_margin.trading.sizes import Lots, told_amount
from freqtrade_isolated_margin.trading.trades import number

LIQUIDATION = "liquidation-"
"""What the ids begin with under which freqtrade is told of forced liquidations."""


def is_done(order: Mapping[str, Any]) -> bool:
    """Whether an order has ended."""
    return order.get("status") in NON_OPEN_EXCHANGE_STATES


def just_placed(order: CcxtOrder, amount: float) -> CcxtOrder:
    """Return a new order as one that is open, whatever it is by now.

    freqtrade asks for it in its next loop; what belongs to its end is done then, in one place.
    """
    unfilled = {"status": "open", "filled": 0.0, "remaining": amount, "cost": 0.0, "average": None}
    return {**order, **unfilled, "amount": amount, "trades": [], "fee": None, "fees": []}


def as_freqtrade(
    order: CcxtOrder, step: Step, lots: Lots, executions: Iterable[Mapping[str, Any]] = ()
) -> CcxtOrder:
    """Return an order of the exchange's in freqtrade's amounts.

    `executions` are those of an order that has ended. freqtrade takes it for granted that fees of leveraged
    trades are paid in quote currency. So an entry that paid in base currency is told to have bought what is
    left of it, and a short's exit what freqtrade had asked for: the fee is what was bought besides, at the
    order's price.
    """
    asked, sent = Decimal(step.asked["amount"]), Decimal(step.asked["sent"])
    real = number(order.get("filled") or 0.0)
    average = order.get("average") or None
    amount = float(asked) if asked != sent else float(order.get("amount") or asked)
    in_base, in_quote = _fees(step, executions)
    filled = closed(step, real, lots)
    if step.kind is Kind.ENTRY:
        filled -= in_base
    told = float(filled)
    return {
        **order,
        "amount": amount,
        "filled": told,
        "remaining": max(amount - float(filled + (in_base if step.kind is Kind.ENTRY else ZERO)), 0.0),
        "average": average,
        # A market order has none, and freqtrade cannot store an order without.
        "price": order.get("price") or average or float(step.asked["rate"]) or None,
        "cost": told * (average or 0.0),
        "trades": [],
        "fees": [],
        "fee": _fee(step, float(in_base) * (average or 0.0) + float(in_quote), told * (average or 0.0)),
    }


def closed(step: Step, filled: Decimal, lots: Lots) -> Decimal:
    """Return how much freqtrade is told of what was filled, in base currency: what it had asked for."""
    asked, sent = Decimal(step.asked["amount"]), Decimal(step.asked["sent"])
    return told_amount(asked, sent, filled, lots) if asked != sent else filled


def _fees(step: Step, executions: Iterable[Mapping[str, Any]]) -> tuple[Decimal, Decimal]:
    """Return what executions have paid in base and in quote currency."""
    base, _, quote = str(step.asked["pair"]).partition("/")
    paid = {base: ZERO, quote: ZERO}
    for execution in executions:
        fee = execution.get("fee") or {}
        if fee.get("currency") in paid:
            paid[fee["currency"]] += number(fee.get("cost") or 0.0)
    return paid[base], paid[quote]


def _fee(step: Step, cost: float, value: float) -> dict[str, Any] | None:
    if not cost or not value:
        return None
    return {"cost": cost, "currency": str(step.asked["pair"]).partition("/")[2], "rate": cost / value}


def liquidation(step: Step, amount: float, price: float) -> CcxtOrder:
    """Return a forced liquidation as the order that closed a position of `amount` at `price`."""
    asked = step.asked
    return {
        "id": step.order_id,
        "clientOrderId": step.name,
        "symbol": asked["pair"],
        "side": asked["side"],
        "type": "market",
        "status": "closed",
        "amount": amount,
        "filled": amount,
        "remaining": 0.0,
        "average": price,
        "price": price,
        "cost": price * amount,
        "timestamp": int(asked["at"]),
        "lastTradeTimestamp": int(asked["at"]),
        # It is within the price, from which freqtrade reckons exactly what was left.
        "fee": {"cost": 0.0, "currency": asked["pair"].partition("/")[2], "rate": 0.0},
        "trades": [],
        "info": {},
    }
