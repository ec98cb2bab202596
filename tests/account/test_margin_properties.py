"""The closed forms, tied to a plain numeric search that shares no code with them.

The search works on fractions and knows the definition of the margin level and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from fractions import Fraction

from hypothesis import assume, example, given
from hypothesis import strategies as st
from support.builders import fraction

from freqtrade_isolated_margin.account.maths import (
    Funding,
    Holdings,
    Side,
    after_entry,
    implied_liquidation_ratio,
    largest_borrowed_entry,
    liquidation_distance,
    liquidation_price,
    margin_level,
)
from freqtrade_isolated_margin.rules.rules import DistanceBand, LevelBand

CENT = Decimal("0.01")
FAR = 10**30
# Quotients are cut after 50 digits; nothing here needs to agree to more than 30.
TINY = Fraction(1, 10**30)


def decimals(low: str, high: str, places: int = 4) -> st.SearchStrategy[Decimal]:
    """Decimals of few digits, so that all figures are far from the limits of any precision."""
    return st.decimals(Decimal(low), Decimal(high), places=places, allow_nan=False, allow_infinity=False)


amounts = decimals("0", "5000")
positive = decimals("0.01", "5000")
prices = decimals("0.01", "5000", 2)
ratios = decimals("1.04", "1.30")
levels = decimals("1.01", "3")
distances = decimals("0", "0.9")


@st.composite
def accounts(draw: st.DrawFn) -> Holdings:
    """Longs, shorts, both debts and no debt."""
    none = st.just(Decimal(0))
    kinds = [(amounts, amounts), (none, amounts), (amounts, none), (none, none)]
    base_debt, quote_debt = draw(st.sampled_from(kinds))
    return Holdings(draw(amounts), draw(amounts), draw(base_debt), draw(quote_debt))


@dataclass(frozen=True)
class Plain:
    """An account in fractions."""

    base: Fraction
    quote: Fraction
    base_debt: Fraction
    quote_debt: Fraction

    @classmethod
    def of(cls, account: Holdings) -> Plain:
        """Copy the amounts."""
        return cls(*map(fraction, account))

    def holds(self, price: Fraction, ratio: Fraction) -> bool:
        """Whether the level at a price is at least `ratio`: an account without debt always holds."""
        debt = self.base_debt * price + self.quote_debt
        return debt == 0 or self.base * price + self.quote >= ratio * debt

    def is_liquidated(self, price: Fraction, ratio: Fraction) -> bool:
        """Whether the level at a price is at or below `ratio`."""
        debt = self.base_debt * price + self.quote_debt
        return debt > 0 and self.base * price + self.quote <= ratio * debt

    def entered(self, value: Fraction, side: Side, price: Fraction) -> Plain:
        """Return the account after a borrowed entry."""
        amount = value / price
        if side is Side.LONG:
            return Plain(self.base + amount, self.quote, self.base_debt, self.quote_debt + value)
        return Plain(self.base, self.quote + value, self.base_debt + amount, self.quote_debt)


def bisect(holds: Callable[[Fraction], bool], good: Fraction, bad: Fraction, steps: int = 200) -> Fraction:
    """Return where between `good` and `bad` something stops to hold."""
    for _ in range(steps):
        middle = (good + bad) / 2
        good, bad = (middle, bad) if holds(middle) else (good, middle)
    return good


def nearest_liquidation(account: Plain, ratio: Fraction, index: Fraction) -> Fraction | None:
    """Search, from the index price down to 0 and up to far away, for the first price that liquidates."""

    def safe(price: Fraction) -> bool:
        return not account.is_liquidated(price, ratio)

    # The level moves one way with the price, so the ends tell whether there is a change between.
    ends = [end for end in (Fraction(0), index * FAR) if not safe(end)]
    return bisect(safe, index, ends[0]) if ends else None


@given(accounts(), ratios)
def test_at_the_liquidation_price_the_level_is_the_ratio(account: Holdings, ratio: Decimal) -> None:
    """The formula's price, put into the definition of the level, gives the ratio back."""
    price = liquidation_price(account, ratio)
    assume(price is not None)
    assert price is not None
    base, quote, base_debt, quote_debt = map(fraction, account)
    debt = base_debt * fraction(price) + quote_debt
    assume(debt > 0)
    level = (base * fraction(price) + quote) / debt
    assert abs(level - fraction(ratio)) < Fraction(1, 10**20)
    assert abs(implied_liquidation_ratio(account, price) - ratio) < Decimal("1e-20")


@given(accounts(), ratios, prices)
def test_the_liquidation_distance_is_that_of_the_first_price_that_liquidates(
    account: Holdings, ratio: Decimal, index: Decimal
) -> None:
    """A bisection over prices finds the same distance, or none where there is none."""
    found = liquidation_distance(account, ratio, index)
    simple, limit, price = Plain.of(account), fraction(ratio), fraction(index)
    if simple.is_liquidated(price, limit):
        assert found == 0
        return
    assume(simple.base != limit * simple.base_debt)
    nearest = nearest_liquidation(simple, limit, price)
    if nearest is None or nearest < TINY:
        # Liquidated at a price of 0 at the earliest: that is no price, or the whole way.
        assert not found.is_finite() or abs(fraction(found) - 1) < TINY
    elif found.is_finite():
        expected = abs(nearest - price) / price
        assert abs(fraction(found) - expected) <= Fraction(1, 10**15) * (1 + expected)
    else:
        raise AssertionError(f"no price liquidates, it says, but {float(nearest)} does")


@given(accounts(), ratios, prices)
def test_at_or_below_the_ratio_the_distance_is_0_and_above_it_is_not(
    account: Holdings, ratio: Decimal, index: Decimal
) -> None:
    """Being liquidated now and being at distance 0 are one thing."""
    liquidated = Plain.of(account).is_liquidated(fraction(index), fraction(ratio))
    assert (liquidation_distance(account, ratio, index) == 0) is liquidated


@given(accounts(), prices)
def test_the_level_is_assets_over_debts(account: Holdings, price: Decimal) -> None:
    """The level agrees with its definition in fractions."""
    base, quote, base_debt, quote_debt = map(fraction, account)
    debt = base_debt * fraction(price) + quote_debt
    level = margin_level(account, price)
    if debt == 0:
        assert level.is_infinite()
    else:
        expected = (base * fraction(price) + quote) / debt
        assert abs(fraction(level) - expected) <= TINY * (1 + expected)


def keeps_both(
    account: Plain,
    index: Fraction,
    ratio: Fraction,
    min_level: Fraction,
    min_distance: Fraction,
) -> bool:
    """Whether an account has the level at its price, and holds at every price nearer than the distance."""
    reach = [index * (1 - min_distance), index, index * (1 + min_distance)]
    samples = [reach[0] + (reach[2] - reach[0]) * share / 8 for share in range(9)]
    return account.holds(index, min_level) and all(account.holds(price, ratio) for price in reach + samples)


@given(
    accounts(),
    st.sampled_from(Side),
    prices,
    ratios,
    levels,
    distances,
)
@example(
    Holdings(Decimal(10), Decimal(0), Decimal(0), Decimal(500)),
    Side.SHORT,
    Decimal(100),
    Decimal("1.05"),
    Decimal("1.25"),
    Decimal("0.2"),
)
@example(
    Holdings(Decimal(0), Decimal(100), Decimal(0), Decimal(0)),
    Side.LONG,
    Decimal(100),
    Decimal("1.05"),
    Decimal("1.25"),
    Decimal("0.05"),
)
def test_the_largest_entry_is_accepted_in_every_part_and_a_cent_more_is_not(
    account: Holdings,
    side: Side,
    index: Decimal,
    ratio: Decimal,
    min_level: Decimal,
    min_distance: Decimal,
) -> None:
    """Every sampled entry from 0 to N keeps both limits, and N + 0.01 breaks one of them."""
    largest = largest_borrowed_entry(account, side, index, ratio, min_level, min_distance)
    simple, price = Plain.of(account), fraction(index)
    limits = (fraction(ratio), fraction(min_level), fraction(min_distance))

    def accepted(value: Fraction) -> bool:
        return keeps_both(simple.entered(value, side, price), price, *limits)

    # A level above 1 always ends somewhere.
    assert largest.is_finite()
    if not accepted(Fraction(0)):
        assert largest == 0
        return
    inside = fraction(largest) * (1 - TINY)
    assert all(accepted(inside * part / 16) for part in range(17))
    assert not accepted(fraction(largest + CENT))


@given(accounts(), st.sampled_from(Side), prices, ratios, levels, distances)
def test_the_largest_entry_is_the_one_that_a_search_finds(
    account: Holdings,
    side: Side,
    index: Decimal,
    ratio: Decimal,
    min_level: Decimal,
    min_distance: Decimal,
) -> None:
    """Bisecting over entries leads to the same N."""
    simple, price = Plain.of(account), fraction(index)
    limits = (fraction(ratio), fraction(min_level), fraction(min_distance))

    def accepted(value: Fraction) -> bool:
        return keeps_both(simple.entered(value, side, price), price, *limits)

    assume(accepted(Fraction(0)))
    searched = bisect(accepted, Fraction(0), Fraction(10) ** 13)
    largest = fraction(largest_borrowed_entry(account, side, index, ratio, min_level, min_distance))
    assert abs(largest - searched) <= Fraction(1, 10**15) * (1 + searched)


@given(accounts(), prices, ratios, st.integers(-3, 6))
def test_scaling_all_amounts_changes_nothing(
    account: Holdings, index: Decimal, ratio: Decimal, power: int
) -> None:
    """Ten times the account has the same level and the same distance."""
    scaled = Holdings(*(amount.scaleb(power) for amount in account))
    assert margin_level(scaled, index) == margin_level(account, index)
    assert liquidation_distance(scaled, ratio, index) == liquidation_distance(account, ratio, index)


@given(accounts(), st.sampled_from(Side), prices, ratios, levels, distances, st.integers(-3, 6))
def test_the_largest_entry_scales_with_the_account(
    account: Holdings,
    side: Side,
    index: Decimal,
    ratio: Decimal,
    min_level: Decimal,
    min_distance: Decimal,
    power: int,
) -> None:
    """Ten times the account takes ten times the entry."""
    scaled = Holdings(*(amount.scaleb(power) for amount in account))
    largest = largest_borrowed_entry(account, side, index, ratio, min_level, min_distance)
    again = largest_borrowed_entry(scaled, side, index, ratio, min_level, min_distance)
    expected = fraction(largest) * Fraction(10) ** power
    assert abs(fraction(again) - expected) <= TINY * (1 + expected)


def factors(account: Holdings, index: Decimal, ratio: Decimal) -> tuple[Decimal, Decimal]:
    """Return what both default limits leave of the stake."""
    return (
        LevelBand().factor(margin_level(account, index)),
        DistanceBand().factor(liquidation_distance(account, ratio, index)),
    )


@given(accounts(), prices, ratios, amounts, st.booleans())
def test_more_debt_never_raises_the_level_factor(
    account: Holdings, index: Decimal, ratio: Decimal, more: Decimal, in_base: bool
) -> None:
    """Owing more, in either asset, never allows more by the level."""
    field = "base_debt" if in_base else "quote_debt"
    indebted = account._replace(**{field: getattr(account, field) + more})
    assert factors(indebted, index, ratio)[0] <= factors(account, index, ratio)[0]


@given(amounts, amounts, amounts, prices, ratios, amounts)
def test_more_debt_of_the_same_asset_never_raises_the_distance_factor(
    base: Decimal, quote: Decimal, debt: Decimal, index: Decimal, ratio: Decimal, more: Decimal
) -> None:
    """A long that owes more quote, or a short that owes more base, is never further from liquidation."""
    zero = Decimal(0)
    for less, greater in (
        (Holdings(base, quote, zero, debt), Holdings(base, quote, zero, debt + more)),
        (Holdings(base, quote, debt, zero), Holdings(base, quote, debt + more, zero)),
    ):
        assert factors(greater, index, ratio)[1] <= factors(less, index, ratio)[1]


@st.composite
def leveraged(draw: st.DrawFn) -> tuple[Holdings, Decimal]:
    """Longs and shorts with a level of 1.31 to 4, and their index price."""
    zero, index, debt, level = Decimal(0), draw(prices), draw(positive), draw(decimals("1.31", "4"))
    long = Holdings(debt * level, zero, zero, debt * index)
    short = Holdings(zero, debt * level * index, debt, zero)
    return draw(st.sampled_from([long, short])), index


@given(leveraged(), ratios, decimals("0.01", "0.99", 2))
def test_a_price_nearer_to_liquidation_never_raises_a_factor(
    leveraged: tuple[Holdings, Decimal], ratio: Decimal, way: Decimal
) -> None:
    """Moving part of the way to the liquidation price lowers level and distance, or leaves the factors."""
    account, index = leveraged
    price = liquidation_price(account, ratio)
    assert price is not None
    nearer = index + (price - index) * way
    before, after = factors(account, index, ratio), factors(account, nearer, ratio)
    assert after[0] <= before[0]
    assert after[1] <= before[1]


@given(accounts(), st.sampled_from(Side), prices, ratios, levels, distances, positive)
def test_no_result_depends_on_the_callers_decimal_context(
    account: Holdings,
    side: Side,
    index: Decimal,
    ratio: Decimal,
    min_level: Decimal,
    min_distance: Decimal,
    value: Decimal,
) -> None:
    """Five digits of precision in the caller's thread change no figure."""

    def figures() -> tuple[object, ...]:
        return (
            margin_level(account, index),
            liquidation_price(account, ratio),
            liquidation_distance(account, ratio, index),
            after_entry(account, value, side, index, Funding.BORROWED),
            largest_borrowed_entry(account, side, index, ratio, min_level, min_distance),
        )

    usual = figures()
    with localcontext(Context(prec=5)):
        assert figures() == usual
