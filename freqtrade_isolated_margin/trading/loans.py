"""What a trade has done to its margin account: collateral, loans and interest, from its fills.

One account holds one trade, and nothing of it is kept anywhere: it follows from the fills that freqtrade has
in its database, from the rates and from the time. So it is the same after a restart, and in a backtest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from freqtrade_isolated_margin.account.maths import (
    ONE,
    ZERO,
    Holdings,
    Side,
    exact,
    full_hours,
    interest,
)


class Fill(NamedTuple):
    """What of an order was filled: `amount` in base, `price` in quote per base, `at` in UNIX seconds."""

    at: float
    enters: bool
    amount: Decimal
    price: Decimal
    fee_rate: Decimal = ZERO

    @property
    def value(self) -> Decimal:
        """What it is worth, in quote currency."""
        return self.amount * self.price


class Rates(NamedTuple):
    """What a day of a loan costs, as a fraction of it."""

    base: Decimal
    quote: Decimal


@dataclass(slots=True)
class Position:
    """What the account owns of one asset, and owes."""

    free: Decimal = ZERO
    borrowed: Decimal = ZERO
    interest: Decimal = ZERO
    newest: Decimal = ZERO
    """Interest since the last fill, the hour that it was charged included."""

    @property
    def debt(self) -> Decimal:
        """All that is owed."""
        return self.borrowed + self.interest

    def borrow(self, amount: Decimal, daily_rate: Decimal) -> None:
        """Take a loan; its first hour is charged at once (FAQ)."""
        self.borrowed += amount
        self.charge(interest(amount, daily_rate, 1))

    def charge(self, amount: Decimal) -> None:
        """Owe so much interest more."""
        self.interest += amount
        self.newest += amount

    def receive(self, amount: Decimal) -> None:
        """Repay from `amount`, interest first, and keep the rest (API: AUTO_REPAY)."""
        of_interest = min(amount, self.interest)
        of_loan = min(amount - of_interest, self.borrowed)
        self.interest -= of_interest
        self.borrowed -= of_loan
        self.free += amount - of_interest - of_loan


class TradeAccount:
    """The margin account of one trade, up to its newest fill or to the moment that `accrue` was given.

    The stake is its collateral; a long borrows what of its value the stake does not pay, a short all that it
    sells. Fees are paid beside the stake, in quote currency, as freqtrade's dry run books them.
    """

    def __init__(self, side: Side, leverage: Decimal, rates: Rates) -> None:
        self.side = side
        self.base, self.quote = Position(), Position()
        self._leverage = leverage
        self._rates = rates
        self._at: float | None = None

    @classmethod
    @exact
    def of(
        cls, side: Side, leverage: Decimal, rates: Rates, fills: Iterable[Fill], until: float
    ) -> TradeAccount:
        """Return the account of a trade with these fills, in their order, as it is at `until`."""
        account = cls(side, max(leverage, ONE), rates)
        for fill in fills:
            account.take(fill)
        account.accrue(until)
        return account

    @property
    def holdings(self) -> Holdings:
        """What it owns and owes."""
        return Holdings(self.base.free, self.quote.free, self.base.debt, self.quote.debt)

    def newest_interest(self, price: Decimal) -> Decimal:
        """Interest since the last fill, in quote currency."""
        return self.base.newest * price + self.quote.newest

    def accrue(self, until: float) -> None:
        """Charge the hours that have begun up to `until`."""
        hours = full_hours(self._at, until) if self._at is not None else 0
        if hours:
            self.base.charge(interest(self.base.borrowed, self._rates.base, hours))
            self.quote.charge(interest(self.quote.borrowed, self._rates.quote, hours))
        self._at = until if self._at is None else max(self._at, until)

    def take(self, fill: Fill) -> None:
        """Book a fill, and the interest up to it."""
        self.accrue(fill.at)
        self.base.newest = self.quote.newest = ZERO
        if fill.enters:
            self._enter(fill)
        else:
            self._leave(fill)

    def _enter(self, fill: Fill) -> None:
        stake = fill.value / self._leverage
        if self.side is Side.LONG:
            self.base.free += fill.amount
            self.quote.borrow(fill.value - stake, self._rates.quote)
        else:
            self.quote.free += stake + fill.value
            self.base.borrow(fill.amount, self._rates.base)

    def _leave(self, fill: Fill) -> None:
        if self.side is Side.LONG:
            self.base.free = max(self.base.free - fill.amount, ZERO)
            self.quote.receive(fill.value)
        else:
            self.quote.free = max(self.quote.free - fill.value, ZERO)
            self.base.receive(fill.amount)
