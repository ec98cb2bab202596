"""How much a live order trades and how much collateral it needs, with arithmetic of the tests' own."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.trading.sizes import (
    Lots,
    Position,
    exit_amount,
    rest_to_buy,
    stake,
    told_amount,
)

D = Decimal
LOTS = Lots(D("0.001"), D(5), D("0.001"))
amounts = st.decimals("0.001", "1000", places=3)
prices = st.decimals("0.5", "90000", places=2)
dust = st.decimals("0", "0.01", places=8)


@given(value=st.decimals("5", "1000000", places=4), leverage=st.decimals("1", "10", places=1))
def test_a_long_owes_what_its_stake_does_not_pay(value: Decimal, leverage: Decimal) -> None:
    """Of leverage L it borrows (L - 1) / L of its value: collateral and loan add up to it."""
    collateral = stake(value, leverage, Side.LONG, at_market=False)
    loan = Fraction(value) - Fraction(collateral)
    assert abs(loan - Fraction(value) * (Fraction(leverage) - 1) / Fraction(leverage)) <= Fraction(1, 10**8)


@pytest.mark.parametrize(
    ("side", "leverage", "at_market", "needed"),
    [
        (Side.LONG, "1", False, "600"),
        # It does not borrow, and a market order may cost more than was reckoned.
        (Side.LONG, "1", True, "606"),
        (Side.LONG, "3", True, "200"),
        (Side.SHORT, "1", True, "600"),
        (Side.SHORT, "2", False, "300"),
    ],
)
def test_what_an_entry_of_600_needs(side: Side, leverage: str, needed: str, *, at_market: bool) -> None:
    """Freqtrade's stake, on both sides."""
    assert stake(D(600), D(leverage), side, at_market=at_market) == D(needed)


@given(held=amounts, rest=st.decimals("0", "0.00099999", places=8))
def test_a_long_that_is_closed_sells_all_that_can_be_sold(held: Decimal, rest: Decimal) -> None:
    """What is left is below a lot."""
    sold = exit_amount(Side.LONG, held, Position(held + rest, D(0)), D(0), LOTS)
    assert 0 <= held + rest - sold < LOTS.lot


@given(borrowed=amounts, interest=dust, coming=dust, held=dust)
def test_a_short_that_is_closed_buys_all_that_is_owed(
    borrowed: Decimal, interest: Decimal, coming: Decimal, held: Decimal
) -> None:
    """After its fee, what was bought pays the debt and the interest to come, and a lot more at most."""
    owed = borrowed + interest
    bought = exit_amount(Side.SHORT, borrowed, Position(min(held, owed), owed), coming, LOTS)
    received = Fraction(bought) * (1 - Fraction(LOTS.fee)) + Fraction(min(held, owed))
    if bought and borrowed >= Fraction(99, 100) * Fraction(owed - min(held, owed)):
        assert 0 <= received - Fraction(owed) - Fraction(coming) < Fraction(LOTS.lot)
    assert bought % LOTS.lot == 0


@given(whole=amounts, part=st.decimals("0.05", "0.9", places=2))
def test_a_part_is_traded_as_it_is_asked_for(whole: Decimal, part: Decimal) -> None:
    """Cut to the lot, on both sides, and never more than there is."""
    asked = whole * part
    for side, position in ((Side.LONG, Position(whole, D(0))), (Side.SHORT, Position(D(0), whole))):
        traded = exit_amount(side, asked, position, D(0), LOTS)
        assert traded <= asked
        assert asked - traded < LOTS.lot


@given(debt=st.decimals("0.00000001", "3", places=8), price=prices)
def test_a_rest_is_bought_so_that_it_is_repaid_and_the_surplus_can_be_sold(
    debt: Decimal, price: Decimal
) -> None:
    """The order is no less than the least, and what is beyond the debt is none or can be sold again."""
    bought = rest_to_buy(debt, price, LOTS)
    assert bought * price >= LOTS.least
    surplus = Fraction(bought) * (1 - Fraction(LOTS.fee)) - Fraction(debt)
    assert surplus >= 0
    assert surplus < Fraction(LOTS.lot) or Fraction(
        LOTS.down(D(surplus.numerator) / surplus.denominator)
    ) * Fraction(price) >= Fraction(LOTS.least)


@given(asked=amounts, more=st.decimals("0", "0.05", places=3), share=st.decimals("0", "1", places=3))
def test_freqtrade_is_told_of_what_it_asked_for(asked: Decimal, more: Decimal, share: Decimal) -> None:
    """A filled order is filled for it, and a part of one is that part."""
    sent = LOTS.up(asked * (1 + more))
    assert told_amount(asked, sent, sent, LOTS) == asked
    told = told_amount(asked, sent, LOTS.down(sent * share), LOTS)
    assert 0 <= told <= asked
    assert abs(Fraction(told) - Fraction(asked) * Fraction(share)) <= 2 * Fraction(LOTS.lot)


def test_nothing_is_told_of_nothing() -> None:
    """An order of nothing has filled nothing."""
    assert told_amount(D(1), D(0), D(0), LOTS) == 0
    assert exit_amount(Side.LONG, D(1), Position(D(0), D(0)), D(0), LOTS) == 0
