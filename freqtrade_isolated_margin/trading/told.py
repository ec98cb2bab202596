"""Orders as freqtrade is told of them: in its own amounts, with fees in the currency that it expects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from freqtrade.constants import NON_OPEN_EXCHANGE_STATES
from freqtrade.exchange.exchange_types import CcxtOrder

from freqtrade_isolated_margin.trading.journal import Kind, Step
from freqtrade_isolated_margin.trading.sizes import Lots, told_amount
from freqtrade_isolated_margin.trading.trades import number

LIQUIDATION = "liquidation-"
"""What the ids begin with under which freqtrade is told of forced liquidations."""


def is_done(order: Mapping[str, Any]) -> bool:
    """Whether an order has ended."""
    return order.get("status") in NON_OPEN_EXCHANGE_STATES


def just_placed(order: CcxtOrder, step: Step) -> CcxtOrder:
    """Return a new order as one that is open, whatever it is by now.

    freqtrade asks for it in its next loop; what belongs to its end is done then, in one place.
    """
    amount = float(step.asked["amount"])
    unfilled = {"status": "open", "filled": 0.0, "remaining": amount, "cost": 0.0, "average": None}
    return {**order, **unfilled, "amount": amount, "trades": [], "fee": None, "fees": []}


def as_freqtrade(
    order: CcxtOrder, step: Step, lots: Lots, executions: Iterable[Mapping[str, Any]] = ()
) -> CcxtOrder:
    """Return an order of the exchange's in freqtrade's amounts.

    `executions` are those of an order that has ended: fees in base currency that a short's exit has paid
    are told in quote, since what they took was bought besides.
    """
    asked, sent = Decimal(step.asked["amount"]), Decimal(step.asked["sent"])
    filled = number(order.get("filled") or 0.0)
    average = order.get("average") or None
    told = float(told_amount(asked, sent, filled, lots)) if asked != sent else float(filled)
    amount = float(asked) if asked != sent else order.get("amount")
    return {
        **order,
        "amount": amount,
        "filled": told,
        "remaining": max((amount or 0.0) - told, 0.0),
        "average": average,
        # A market order has none, and freqtrade cannot store an order without.
        "price": order.get("price") or average or float(step.asked["rate"]) or None,
        "cost": told * (average or 0.0),
        "trades": [],
        "fees": [],
        "fee": _fee(step, average, told, executions),
    }


def _fee(
    step: Step, average: float | None, told: float, executions: Iterable[Mapping[str, Any]]
) -> dict[str, Any] | None:
    fees = [execution["fee"] for execution in executions if execution.get("fee")]
    if not fees or not average or not told:
        return None
    cost = sum(float(fee["cost"] or 0.0) for fee in fees)
    currency = fees[0]["currency"]
    base, _, quote = str(step.asked["pair"]).partition("/")
    if currency == base and step.kind is not Kind.ENTRY:
        cost, currency = cost * average, quote
    rate = cost / told if currency == base else cost / (told * average)
    return {"cost": cost, "currency": currency, "rate": rate}


def liquidation(step: Step, amount: float) -> CcxtOrder:
    """Return a forced liquidation as the order that closed a position of `amount`."""
    asked = step.asked
    price = float((step.answer or asked)["price"])
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
