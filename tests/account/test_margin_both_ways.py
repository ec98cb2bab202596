"""The maths as `decide` uses them, tied to rows that the tests compute by themselves.

`test_margin_properties` ties each closed form to a numeric search; here the whole verdict is: on rows that
`builders` makes of fractions, as the exchange would report the account before and after.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from hypothesis import assume, given
from hypothesis import strategies as st
from support.builders import parsed, row

from freqtrade_isolated_margin.account.maths import Holdings, Side, liquidation_price, margin_level
from freqtrade_isolated_margin.account.records import PairAccount
from freqtrade_isolated_margin.rules.decide import EntryDecision, Outcome, Reading, decide
from freqtrade_isolated_margin.rules.rules import Rules

SPOT, BORROWED = Rules(), Rules(entry_funding="borrowed")
CENT = Fraction(1, 100)
DUST = CENT / 2
PRICE = Fraction(50)


class Contents(NamedTuple):
    """What is in an account, in units of its assets."""

    base: Fraction
    quote: Fraction
    base_debt: Fraction
    quote_debt: Fraction

    def row(self, price: Fraction = PRICE) -> dict[str, Any]:
        """Report the account at an index price."""
        base, quote, base_debt, quote_debt = self
        return row(
            base_total=base, quote_total=quote, base_debt=base_debt, quote_debt=quote_debt, index=price
        )

    def entered(self, value: Fraction, side: Side) -> Contents:
        """Return the account after a borrowed entry at the index price."""
        amount = value / PRICE
        if side is Side.LONG:
            return self._replace(base=self.base + amount, quote_debt=self.quote_debt + value)
        return self._replace(quote=self.quote + value, base_debt=self.base_debt + amount)


def verdict(
    contents: Contents,
    rules: Rules = SPOT,
    side: Side = Side.LONG,
    price: Fraction = PRICE,
    leverage: int = 1,
) -> EntryDecision:
    """Return what the package makes of the account's row."""
    account = parsed(contents.row(price))
    assert isinstance(account, PairAccount), account
    return decide("BTC/USDT", side, Reading(account), rules, 60.0, Decimal(leverage))


def hundredths(low: int, high: int) -> st.SearchStrategy[Fraction]:
    """Fractions of two decimals."""
    return st.integers(low * 100, high * 100).map(lambda number: Fraction(number, 100))


levels = hundredths(1, 4).filter(lambda level: level > 1)
debts = hundredths(10, 5000)


@st.composite
def longs(draw: st.DrawFn) -> Contents:
    """Accounts that owe quote and own base."""
    debt, level = draw(debts), draw(levels)
    return Contents(debt * level / PRICE, Fraction(0), Fraction(0), debt)


@st.composite
def shorts(draw: st.DrawFn) -> Contents:
    """Accounts that owe base and own quote."""
    debt, level = draw(debts), draw(levels)
    return Contents(Fraction(0), debt * level, debt / PRICE, Fraction(0))


leveraged = longs() | shorts()


@given(leveraged, hundredths(80, 130))
def test_at_its_reported_liquidation_price_an_account_has_the_liquidation_ratio(
    contents: Contents, percent: Fraction
) -> None:
    """Walking the price until the level is the ratio ends at the closed form's price."""
    ratio, price = Fraction("1.05"), PRICE * percent / 100
    holdings = Holdings(*(Decimal(f"{float(amount):.6f}") for amount in contents))
    assume(margin_level(holdings, Decimal(f"{float(price):.4f}")) > Decimal("1.06"))
    found = liquidation_price(holdings, Decimal("1.05"))
    assert found is not None
    is_long = holdings.quote_debt > 0
    base, quote, base_debt, quote_debt = map(Fraction, holdings)
    safe, unsafe = price, Fraction(0) if is_long else price * 100
    for _ in range(120):
        middle = (safe + unsafe) / 2
        level = (base * middle + quote) / (base_debt * middle + quote_debt)
        safe, unsafe = (middle, unsafe) if level > ratio else (safe, middle)
    assert abs(safe - Fraction(found)) < Fraction(1, 10**20)


@given(leveraged, st.sampled_from(Side), st.sampled_from((1, 3)))
def test_the_largest_stake_of_a_verdict_is_accepted_and_a_cent_more_is_not(
    contents: Contents, side: Side, leverage: int
) -> None:
    """The account with any part of the stake in it is not blocked, and with a cent more it is."""
    decision = verdict(contents, BORROWED, side, leverage=leverage)
    assert decision.max_stake is not None
    largest = Fraction(decision.max_stake) * leverage
    if decision.blocks:
        # Not even a cent can be entered, or the account is beyond its limits as it is.
        assert largest == 0 or verdict(contents).blocks
        assert verdict(contents.entered(CENT, side)).blocks
        return
    # The exchange reports eight places, so what is very near a limit may round onto it.
    inside = max(largest - DUST, Fraction(0))
    for part in range(9):
        assert not verdict(contents.entered(inside * part / 8, side)).blocks
    assert verdict(contents.entered(largest + CENT * leverage, side)).blocks


@given(leveraged, debts)
def test_more_debt_never_raises_a_verdicts_factor(contents: Contents, more: Fraction) -> None:
    """What is owed already, owed more of."""
    if contents.quote_debt:
        worse = contents._replace(quote_debt=contents.quote_debt + more)
    else:
        worse = contents._replace(base_debt=contents.base_debt + more / PRICE)
    assert verdict(worse).factor <= verdict(contents).factor


@given(leveraged, hundredths(0, 1), hundredths(0, 1))
def test_a_price_nearer_to_liquidation_never_raises_a_verdicts_factor(
    contents: Contents, one: Fraction, other: Fraction
) -> None:
    """Of two prices on the way to liquidation the nearer one has the smaller factor, or the same."""
    ratio = Fraction("1.05")
    end = (ratio * contents.quote_debt - contents.quote) / (contents.base - ratio * contents.base_debt)
    is_long = bool(contents.quote_debt)
    assume(end < PRICE if is_long else end > PRICE)
    near, far = (PRICE + (end - PRICE) * way for way in (max(one, other), min(one, other)))
    assert verdict(contents, price=near).factor <= verdict(contents, price=far).factor


@given(leveraged, st.integers(1, 5), st.sampled_from((SPOT, BORROWED)))
def test_scaling_all_amounts_changes_no_verdict(contents: Contents, power: int, rules: Rules) -> None:
    """A multiple of the account has the same outcome and factor."""
    scaled = Contents(*(amount * 10**power for amount in contents))
    before, after = verdict(contents, rules), verdict(scaled, rules)
    # Dust of the eighth place decides at the very limit, where a stake is nothing.
    assume(before.max_stake is None or before.max_stake > 1 or before.blocks is after.blocks)
    assert (after.outcome, after.rule) == (before.outcome, before.rule)
    assert after.factor == before.factor
    assert after.outcome in Outcome
