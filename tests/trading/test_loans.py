"""Loans, interest, leverage and the records made of them, against arithmetic of the tests' own."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freqtrade_isolated_margin.account.maths import Holdings, Side, full_hours, interest
from freqtrade_isolated_margin.account.records import PairAccount
from freqtrade_isolated_margin.account.tiers import Tier, highest_leverage, published_tiers
from freqtrade_isolated_margin.rules.settings import TradingSettings
from freqtrade_isolated_margin.trading.gate import Entry, after_order
from freqtrade_isolated_margin.trading.loans import Fill, Rates, TradeAccount
from freqtrade_isolated_margin.trading.rows import Balance, account_row
from freqtrade_isolated_margin.trading.terms import set_terms

D = Decimal
SIDES = st.sampled_from(list(Side))
AMOUNTS = st.decimals("0.001", "1000", places=5)
PRICES = st.decimals("0.01", "100000", places=4)
RATES = st.decimals("0", "0.01", places=6)
LEVERAGES = st.decimals("1", "10", places=3)
MOMENTS = st.floats(0, 4_000_000, allow_nan=False)
TIERS = published_tiers(10)


def test_binances_example_of_interest() -> None:
    """1000 USDT at 0.001 % an hour, borrowed at 13:55, owe 0.02 USDT at 14:30 (FAQ)."""
    borrowed, asked = (datetime(2026, 1, 1, *time, tzinfo=UTC).timestamp() for time in ((13, 55), (14, 30)))
    hours = 1 + full_hours(borrowed, asked)
    assert interest(D(1000), D("0.00024"), hours) == D("0.02")


@given(MOMENTS, MOMENTS)
def test_full_hours_are_those_that_a_clock_strikes(one: float, other: float) -> None:
    """Counted hour by hour: after the first moment, and at or before the second."""
    since, until = sorted((one, other))
    struck = sum(since < hour * 3600 <= until for hour in range(1200))
    assert full_hours(since, until) == struck
    assert full_hours(until, since) == 0


@given(SIDES, LEVERAGES, AMOUNTS, PRICES, RATES, RATES, MOMENTS, MOMENTS)
def test_an_entry_owes_what_its_stake_does_not_pay(
    side: Side,
    leverage: Decimal,
    amount: Decimal,
    price: Decimal,
    base_rate: Decimal,
    quote_rate: Decimal,
    at: float,
    later: float,
) -> None:
    """What it owns less what it owes is the stake, less interest at one hour and each that has struck."""
    at, later = sorted((at, later))
    fill = Fill(at, enters=True, amount=amount, price=price)
    account = TradeAccount.of(side, leverage, Rates(base_rate, quote_rate), [fill], later)
    value = Fraction(amount) * Fraction(price)
    stake = value / Fraction(leverage)
    hours = 1 + sum(at < hour * 3600 <= later for hour in range(1200))
    if side is Side.LONG:
        owed = (value - stake) * Fraction(quote_rate) / 24 * hours
    else:
        owed = value * Fraction(base_rate) / 24 * hours
    base, quote, base_debt, quote_debt = map(Fraction, account.holdings)
    assert float((base - base_debt) * Fraction(price) + quote - quote_debt) == pytest.approx(
        float(stake - owed), rel=1e-9, abs=1e-9
    )
    assert float(account.newest_interest(price)) == pytest.approx(float(owed), rel=1e-9, abs=1e-12)


@given(
    SIDES,
    LEVERAGES,
    st.lists(st.tuples(st.booleans(), AMOUNTS, MOMENTS), min_size=1, max_size=6),
    RATES,
)
def test_nothing_but_interest_is_lost_at_one_price(
    side: Side, leverage: Decimal, steps: list[tuple[bool, Decimal, float]], rate: Decimal
) -> None:
    """Entries bring their stakes and exits only turn assets into debts repaid, whatever the order of both."""
    price, account = D(100), TradeAccount(side, leverage, Rates(rate, rate))
    brought, charged, open_amount = Fraction(0), Fraction(0), D(0)
    for enters, wanted, at in sorted(steps, key=lambda step: step[2]):
        amount = wanted if enters else min(wanted, open_amount)
        open_amount += amount if enters else -amount
        before = account.base.newest + account.quote.newest / price
        account.accrue(at)
        charged += Fraction(account.base.newest + account.quote.newest / price - before)
        account.take(Fill(at, enters=enters, amount=amount, price=price))
        charged += Fraction(account.base.newest + account.quote.newest / price)
        brought += Fraction(amount) * Fraction(price) / Fraction(leverage) if enters else 0
    base, quote, base_debt, quote_debt = map(Fraction, account.holdings)
    worth = (base - base_debt) * Fraction(price) + quote - quote_debt
    assert float(worth) == pytest.approx(float(brought - charged * Fraction(price)), rel=1e-9, abs=1e-6)
    assert min(base, quote, base_debt, quote_debt) >= 0


@given(st.decimals("1.01", "3", places=4), SIDES)
def test_the_highest_leverage_stands_at_the_initial_ratio(initial: Decimal, side: Side) -> None:
    """At the cap the level is the initial ratio or above it, and a thousandth more would be below it."""
    tier = Tier(D(1000), initial, D("1.05"), D("Infinity"), D("Infinity"))
    cap = Fraction(tier.max_leverage(side))

    def level(leverage: Fraction) -> Fraction:
        return leverage / (leverage - 1) if side is Side.LONG else (1 + leverage) / leverage

    if cap > 1:
        assert level(cap) >= Fraction(initial)
    assert level(cap + Fraction("0.001")) < Fraction(initial)


@given(SIDES, st.decimals("1", "1000000", places=2))
def test_a_larger_stake_comes_to_a_higher_tier(side: Side, stake: Decimal) -> None:
    """What is borrowed at the highest leverage of a stake is within the limit of a tier that allows it."""
    tiers = tuple(
        Tier(D(multiple), D(initial), D("1.05"), D(limit), D(limit))
        for multiple, initial, limit in (
            ("10", "1.111", 50_000),
            ("5", "1.25", 200_000),
            ("3", "1.5", 400_000),
        )
    )
    leverage = highest_leverage(tiers, side, stake)
    borrowed = stake * (leverage - (1 if side is Side.LONG else 0))
    allowing = [t for t in tiers if leverage <= t.max_leverage(side) and borrowed <= t.quote_max_borrowable]
    assert allowing or leverage == 1


@pytest.mark.parametrize(
    ("side", "leverage", "level"), [("long", "3", "1.5"), ("short", "3", "1.3333"), ("long", "10", "1.1111")]
)
def test_an_account_after_an_order(side: str, leverage: str, level: str) -> None:
    """An empty account stands at L / (L − 1) after a long, and at (1 + L) / L after a short."""
    empty = account_row(Balance("BTC"), Balance("USDT"), D(50_000), TIERS)
    entry = Entry("BTC/USDT", Side(side), D("0.02"), D(50_000), D(leverage))
    after = after_order(empty, entry, TIERS, moves_stake=True)
    assert isinstance(after, PairAccount)
    assert str(after.margin_level).startswith(level)


def test_a_stake_that_is_not_in_the_account_is_not_spent() -> None:
    """Where nothing is moved, an entry out of an empty account makes a record that cannot be judged."""
    empty = account_row(Balance("BTC"), Balance("USDT"), D(50_000), TIERS)
    entry = Entry("BTC/USDT", Side.LONG, D("0.02"), D(50_000), D(3))
    assert not isinstance(after_order(empty, entry, TIERS, moves_stake=False), PairAccount)


@given(
    base=st.decimals("0", "1000", places=8),
    quote=st.decimals("0", "100000", places=8),
    base_debt=st.decimals("0", "1000", places=8),
    quote_debt=st.decimals("0", "100000", places=8),
    price=PRICES,
)
def test_a_record_says_what_it_was_made_of(
    base: Decimal, quote: Decimal, base_debt: Decimal, quote_debt: Decimal, price: Decimal
) -> None:
    """The strict reader of the exchange's answers takes the record, and reads the same amounts."""
    row = account_row(Balance("BTC", base, base_debt), Balance("USDT", quote, D(0), quote_debt), price, TIERS)
    assert isinstance(row, PairAccount)
    assert row.holdings == Holdings(base, quote, base_debt, quote_debt)
    assert row.index_price == price
    assert row.status_is_known


def test_terms_come_from_the_settings() -> None:
    """A currency and a pair that are named have their own, all others the common ones."""
    settings = TradingSettings(
        interest_rate=0.001, interest_rates={"USDT": 0.0002}, max_leverages={"BTC/USDT": 10}
    )
    btc, eth = set_terms(settings, "BTC", "USDT"), set_terms(settings, "ETH", "USDT")
    assert btc.rates == Rates(D("0.001"), D("0.0002"))
    assert (btc.tiers[0].effective_multiple, eth.tiers[0].effective_multiple) == (10, 3)


def test_what_an_exit_brings_repays_interest_first() -> None:
    """The principal, which is charged, falls only by what the interest leaves (API: AUTO_REPAY)."""
    fills = [
        Fill(0.0, enters=True, amount=D(2), price=D(100)),
        Fill(60.0, enters=False, amount=D(1), price=D(50)),
    ]
    account = TradeAccount.of(Side.LONG, D(2), Rates(D(0), D("0.24")), fills, 60.0)
    assert (account.quote.borrowed, account.quote.interest, account.quote.free) == (51, 0, 0)


def test_a_record_never_owes_less_than_there_is() -> None:
    """What lies beyond the eighth place is cut from what is owned, and added to what is owed."""
    tiny = D("0.000000001")
    row = account_row(Balance("BTC", D(1) + tiny), Balance("USDT", D(0), D(5) + tiny, tiny), D(100), TIERS)
    assert isinstance(row, PairAccount)
    assert row.holdings == Holdings(D(1), D(0), D(0), D("5.00000002"))


@pytest.mark.parametrize(
    ("assets", "status"),
    [
        ("105", "FORCE_LIQUIDATION"),
        ("105.00000001", "MARGIN_CALL"),
        ("109", "MARGIN_CALL"),
        ("109.00000001", "NORMAL"),
        ("111.1", "NORMAL"),
        ("111.10000001", "EXCESSIVE"),
    ],
)
def test_the_status_of_a_record_is_the_band_of_its_level(assets: str, status: str) -> None:
    """At a limit the worse of the two counts."""
    row = account_row(Balance("BTC", D(assets)), Balance("USDT", D(0), D(100)), D(1), TIERS)
    assert isinstance(row, PairAccount)
    assert row.margin_level_status == status
