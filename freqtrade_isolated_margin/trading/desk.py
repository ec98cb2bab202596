"""The one way by which a live order goes out: what is about to be sent, and with which parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from freqtrade.constants import BuySell
from freqtrade.exchange.exchange_types import CcxtOrder

from freqtrade_isolated_margin.account.maths import Side


class Purpose(StrEnum):
    """What an order is for. Only an entry borrows, and only an entry was asked of the guard."""

    ENTRY = "entry"
    EXIT = "exit"
    STOP = "stop"


class Ticket(NamedTuple):
    """An order that is about to be sent."""

    purpose: Purpose
    pair: str
    side: BuySell
    ordertype: str
    amount: float
    """Base currency; cut to the lot where it gets to the treasury."""
    rate: float
    """Quote per base; the stop price of a stop."""
    leverage: float

    @property
    def position(self) -> Side:
        """The side of the position that it opens, increases or reduces."""
        buys_long = self.side == "buy"
        return Side.LONG if buys_long == (self.purpose is Purpose.ENTRY) else Side.SHORT


Send = Callable[[float], CcxtOrder]
"""Sends the ticket's order for an amount, with what `sending` adds; raises as freqtrade's `create_order`."""


_beside: ContextVar[Mapping[str, object]] = ContextVar("order parameters", default=MappingProxyType({}))


@contextmanager
def sending(**parameters: object) -> Iterator[None]:
    """Add parameters, such as ``newClientOrderId``, to the order that is sent within the block."""
    token = _beside.set(parameters)
    try:
        yield
    finally:
        _beside.reset(token)


def order_parameters(purpose: Purpose, side: BuySell = "sell", leverage: float = 1.0) -> dict[str, object]:
    """Return what makes an order one of an isolated margin account: an entry borrows, all else repays.

    A long without leverage does not borrow: its collateral pays for all of it. Only ``marginMode`` in the
    call itself leads ccxt to the margin endpoints; options alone lead to spot. What a cancelled entry has
    borrowed is repaid (``autoRepayAtCancel`` is true unless it is sent).
    """
    effect = "AUTO_REPAY"
    if purpose is Purpose.ENTRY:
        effect = "NO_SIDE_EFFECT" if side == "buy" and leverage <= 1.0 else "MARGIN_BUY"
    return {"marginMode": "isolated", "sideEffectType": effect, **_beside.get()}
