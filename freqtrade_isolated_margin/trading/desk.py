"""The one way by which a live order goes out: whoever keeps the journal and moves the collateral stands here.

freqtrade's own `create_order` and `create_stoploss` build and send an order, and turn ccxt's errors into
freqtrade's. A `Desk` stands around them: it is told what is about to be sent, does what comes before, sends,
and does what comes after. A dry run has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple, Protocol

from freqtrade.constants import BuySell
from freqtrade.exchange.exchange_types import CcxtOrder

from freqtrade_isolated_margin.account.maths import Side


class Purpose(StrEnum):
    """What an order is for. Only an entry borrows, and only an entry was asked of the guard."""

    ENTRY = "entry"
    EXIT = "exit"
    STOP = "stop"


class Ticket(NamedTuple):
    """An order that is about to be sent, in freqtrade's figures, which are not yet cut to lot and tick."""

    purpose: Purpose
    pair: str
    side: BuySell
    ordertype: str
    amount: float
    """Base currency."""
    rate: float
    """Quote per base; the stop price of a stop."""
    leverage: float
    new_trade: bool = False
    """Whether it opens a trade that freqtrade has no row of yet."""

    @property
    def position(self) -> Side:
        """The side of the position that it opens, increases or reduces."""
        buys_long = self.side == "buy"
        return Side.LONG if buys_long == (self.purpose is Purpose.ENTRY) else Side.SHORT


Send = Callable[[], CcxtOrder]
"""Sends the ticket's order, with what `sending` adds; raises as freqtrade's `create_order` does."""


class Desk(Protocol):
    """Journal, collateral and recovery of a bot that trades live."""

    def start(self) -> None:
        """Settle what an earlier run has left in doubt; before anything is sent.

        :raises OperationalException: where a person must look first.
        """

    def place(self, ticket: Ticket, send: Send) -> CcxtOrder:
        """Send an order with all that belongs before and after it.

        :raises DependencyException: where it is not sent, or was refused; freqtrade goes on.
        """

    def seen(self, pair: str, order: CcxtOrder) -> None:
        """Take in an order as the exchange has just shown it: filled, cancelled, expired."""

    def loop(self) -> None:
        """Do what is due once a loop of the bot, before it looks at its trades."""

    def close(self) -> None:
        """End; nothing is sent after this."""


_beside: ContextVar[Mapping[str, object]] = ContextVar("order parameters", default=MappingProxyType({}))


@contextmanager
def sending(**parameters: object) -> Iterator[None]:
    """Add parameters, such as ``newClientOrderId``, to the order that is sent within the block."""
    token = _beside.set(parameters)
    try:
        yield
    finally:
        _beside.reset(token)


def order_parameters(purpose: Purpose) -> dict[str, object]:
    """Return what makes an order one of an isolated margin account: an entry borrows, all else repays.

    Only ``marginMode`` in the call itself leads ccxt to the margin endpoints; options alone lead to spot.
    What a cancelled entry has borrowed is repaid (``autoRepayAtCancel`` is true unless it is sent).
    """
    effect = "MARGIN_BUY" if purpose is Purpose.ENTRY else "AUTO_REPAY"
    return {"marginMode": "isolated", "sideEffectType": effect, **_beside.get()}
