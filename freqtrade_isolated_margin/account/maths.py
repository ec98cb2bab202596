"""Isolated margin maths on `Decimal`: pure functions of balances, debts and prices.

Prices are in quote currency per unit of base currency, amounts in units of their asset, levels and
ratios are plain numbers (1.25 is 125 %), distances are fractions of the index price (0.05 is 5 %).

Sources, named where they are used:

* FAQ: Binance's support article on isolated margin, "Margin Level and Margin Call", with its tables
  of maximum leverage, initial, margin-call and liquidation ratios.
* API: the documentation of ``GET /sapi/v1/margin/isolated/account`` and ``isolatedMarginTier``.
* recorded: answers of that endpoint which their owners have published; the tests reproduce them.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import (
    ROUND_DOWN,
    Context,
    Decimal,
    DivisionByZero,
    InvalidOperation,
    Overflow,
    getcontext,
    setcontext,
)
from enum import StrEnum
from functools import wraps
from typing import NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

ZERO = Decimal(0)
ONE = Decimal(1)
INFINITY = Decimal("Infinity")

# Real amounts have at most 20 digits, so their products stay exact. Never the caller's context:
# a strategy may set a short precision of its own in the thread that asks.
_CONTEXT = Context(prec=50, traps=[InvalidOperation, DivisionByZero, Overflow])

PLACE = Decimal("1e-8")
"""The last of the eight places to which Binance gives amounts and prices (recorded)."""


def exact(function: Callable[P, T]) -> Callable[P, T]:
    """Run `function` in the context of this module, whatever the caller has set in this thread."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        callers = getcontext()
        if callers is _CONTEXT:
            return function(*args, **kwargs)
        # Not `localcontext`: it would copy the context at each of many calls.
        setcontext(_CONTEXT)
        try:
            return function(*args, **kwargs)
        finally:
            setcontext(callers)

    return run


class Side(StrEnum):
    """The direction of an entry, in freqtrade's words."""

    LONG = "long"
    SHORT = "short"


class Funding(StrEnum):
    """What pays for an entry."""

    SPOT = "spot"
    """The bot's spot wallet: the margin account does not change."""

    BORROWED = "borrowed"
    """A loan in the margin account: assets and debt grow by the entry's value."""

    FREE = "free"
    """The margin account's own free assets: one asset is swapped for the other."""


class Holdings(NamedTuple):
    """What an isolated margin account owns and owes: total assets and debts (borrowed + interest)."""

    base: Decimal
    quote: Decimal
    base_debt: Decimal
    quote_debt: Decimal

    @property
    def has_debt(self) -> bool:
        """Whether anything is owed. This, and no reported level, decides (recorded: 999 and 0 both occur)."""
        return bool(self.base_debt or self.quote_debt)


@exact
def margin_level(holdings: Holdings, price: Decimal) -> Decimal:
    """Total assets over total debt, both valued at `price`; infinite without debt.

    Source: FAQ, margin level = total asset value / (total borrowed + total accrued interest); it
    reproduces the recorded FETUSDT row.
    """
    return level_at(holdings, price)


def level_at(holdings: Holdings, price: Decimal) -> Decimal:
    """`margin_level`, to be called in a context that is `exact`."""
    base, quote, base_debt, quote_debt = holdings
    debt = base_debt * price + quote_debt
    return (base * price + quote) / debt if debt else INFINITY


@exact
def value_to_close(holdings: Holdings, price: Decimal, level: Decimal) -> Decimal:
    """The value, in quote currency, to close of a position so that the margin level rises to `level`.

    What is closed repays: ``(A - v) / (D - v) = level`` solved for v, ``v = (level × D - A) / (level - 1)``,
    where A are the assets and D the debts at `price`; 0 where the level is as high already. Before fees.
    Source: derived from the margin level (FAQ); an exit repays its proceeds (API: ``AUTO_REPAY``).
    """
    base, quote, base_debt, quote_debt = holdings
    assets, debt = base * price + quote, base_debt * price + quote_debt
    return max((level * debt - assets) / (level - ONE), ZERO)


@exact
def liquidation_price(holdings: Holdings, ratio: Decimal) -> Decimal | None:
    """The price at which the margin level meets `ratio`, or None where no price above zero does.

    ``level(P) = ratio`` solved for P, for longs, shorts and accounts with both debts. Only meaningful
    while the account's level is above `ratio`: at or below it the account is being liquidated whatever
    this prints, see `liquidation_distance`.
    Source: derived from the margin level (FAQ); with ratio 1.1575 it gives the recorded FETUSDT
    ``liquidatePrice`` to all its eight places.
    """
    return price_at(holdings, ratio)


def price_at(holdings: Holdings, ratio: Decimal) -> Decimal | None:
    """`liquidation_price`, to be called in a context that is `exact`."""
    base, quote, base_debt, quote_debt = holdings
    slope = base - ratio * base_debt
    price = (ratio * quote_debt - quote) / slope if slope else ZERO
    return price if price > ZERO else None


@exact
def liquidation_distance(holdings: Holdings, ratio: Decimal, index_price: Decimal) -> Decimal:
    """The move of the index price that liquidates, as a fraction of it; infinite where no price does.

    0 where the level at the index price is at or below `ratio`.
    Source: as `liquidation_price`; recorded, ``liquidateRate`` is this times 100 with the sign of the move.
    """
    room = liquidation_room(holdings, ratio, index_price, level_at(holdings, index_price))
    return room / index_price if room else ZERO


def liquidation_room(holdings: Holdings, ratio: Decimal, index_price: Decimal, level: Decimal) -> Decimal:
    """`liquidation_distance` in quote currency, given the level at the index price.

    At or below `ratio` the account is being liquidated now, and the price formula must not be asked (it can
    point far away, or below zero). To be called in a context that is `exact`.
    """
    if level <= ratio:
        return ZERO
    price = price_at(holdings, ratio)
    return INFINITY if price is None else abs(price - index_price)


@exact
def implied_liquidation_ratio(holdings: Holdings, liquidate_price: Decimal) -> Decimal:
    """The liquidation ratio that a reported liquidation price stands for: the margin level at that price.

    Binance derives ``liquidatePrice`` from the balances and its own ratio, so this gives that ratio back,
    as exactly as the eight places of the price allow (`implied_ratio_range`).
    Source: as `liquidation_price`; the recorded FETUSDT row implies 1.1575.
    """
    return margin_level(holdings, liquidate_price)


@exact
def implied_ratio_range(holdings: Holdings, liquidate_price: Decimal) -> tuple[Decimal, Decimal]:
    """The lowest and the highest ratio that a reported liquidation price, rounded to eight places, can mean.

    For a pair that costs a few units of the eighth place, or an account that owes dust, the two are far
    apart. Source: as `implied_liquidation_ratio`; prices are reported with at most eight places (recorded).
    """
    # The level moves one way with the price.
    below = level_at(holdings, max(liquidate_price - PLACE, ZERO))
    above = level_at(holdings, liquidate_price + PLACE)
    return (below, above) if below < above else (above, below)


@exact
def after_entry(holdings: Holdings, value: Decimal, side: Side, price: Decimal, funding: Funding) -> Holdings:
    """The account after an entry worth `value` (quote currency) at `price`, before fees.

    Borrowed, a long adds the bought base and owes `value` quote; a short owes the sold base and adds
    `value` quote: assets and debt both grow by `value`. From free assets one asset is swapped for the
    other, and may end negative where there is not enough of it: that is for the caller to see.
    Source: FAQ (borrowing adds the same amount to assets and to debt).
    """
    if funding is Funding.SPOT:
        return holdings
    base, quote, base_debt, quote_debt = holdings
    amount = value / price
    if side is Side.LONG:
        if funding is Funding.BORROWED:
            return Holdings(base + amount, quote, base_debt, quote_debt + value)
        return Holdings(base + amount, quote - value, base_debt, quote_debt)
    if funding is Funding.BORROWED:
        return Holdings(base, quote + value, base_debt + amount, quote_debt)
    return Holdings(base - amount, quote + value, base_debt, quote_debt)


@exact
def largest_borrowed_entry(
    holdings: Holdings,
    side: Side,
    price: Decimal,
    ratio: Decimal,
    min_level: Decimal,
    min_distance: Decimal,
) -> Decimal:
    """The largest value N (quote currency) such that every borrowed entry from 0 to N keeps both limits.

    Kept are a margin level of at least `min_level` at `price`, and a liquidation distance of at least
    `min_distance`. 0 where the account does not keep them as it is.

    The distance itself need not move one way as N grows: a short against a long first brings assets and
    debt closer, then turns the account around. But it is at least d exactly when the level is at least
    the liquidation ratio at both ``price × (1 - d)`` and ``price × (1 + d)``, since the level moves one way
    with the price. Each of these, and the level's own limit, reads ``assets(N) - m × debt(N) >= 0``, which is
    linear in N: what holds at 0 and at N holds between, so the least of the three bounds is the answer.
    Source: ``(A + N) / (D + N) >= m`` (FAQ), for one price after the other.
    """
    bounds = (
        _borrowed_bound(holdings, side, price, min_level, ONE),
        _borrowed_bound(holdings, side, price, ratio, ONE - min_distance),
        _borrowed_bound(holdings, side, price, ratio, ONE + min_distance),
    )
    return max(min(bounds), ZERO)


def _borrowed_bound(holdings: Holdings, side: Side, price: Decimal, level: Decimal, move: Decimal) -> Decimal:
    """Return the largest N that keeps the level at `price` × `move` at `level` or more; 0 if 0 does not."""
    moved = price * move
    slack = (
        holdings.base * moved + holdings.quote - level * (holdings.base_debt * moved + holdings.quote_debt)
    )
    if slack < 0:
        return ZERO
    # What one unit of N adds to the assets and to the debt, valued at the moved price.
    assets, debt = (move, ONE) if side is Side.LONG else (ONE, move)
    cost = level * debt - assets
    return slack / cost if cost > 0 else INFINITY


@exact
def round_down(value: Decimal) -> Decimal:
    """Cut `value` to the eight places in which the exchange counts amounts, never upwards."""
    return value.quantize(PLACE, ROUND_DOWN)


@exact
def one_step_below(value: Decimal) -> Decimal:
    """Return the next lower amount of eight places, at the lowest 0."""
    return max(round_down(value) - PLACE, ZERO)


HOUR = 3600
"""Seconds for which interest is charged at once."""


def full_hours(since: float, until: float) -> int:
    """How many full hours of the clock lie after `since`, up to and with `until`; both in UNIX seconds.

    At each of them a loan that was there at `since` is charged an hour. Source: FAQ on interest (the hour is
    charged when it begins); whether one is charged at the very moment of repayment is not said, and assumed.
    """
    return max(int(until // HOUR) - int(since // HOUR), 0)


@exact
def interest(principal: Decimal, daily_rate: Decimal, hours: int) -> Decimal:
    """Interest for so many hours that have begun, in the asset that was borrowed: simple, on the principal.

    Source: FAQ (hourly rate = daily rate / 24). Its example: 1000 USDT at 0.001 % an hour, borrowed at 13:55,
    owe 0.02 USDT at 14:30, one hour for the loan and one at 14:00.
    """
    return principal * daily_rate * hours / 24
