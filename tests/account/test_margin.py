"""The maths, by examples that were worked out by hand or published."""

from __future__ import annotations

from decimal import Context, Decimal, DivisionByZero, getcontext, localcontext

import pytest
from support.builders import recorded

from freqtrade_isolated_margin.account.maths import (
    INFINITY,
    Funding,
    Holdings,
    Side,
    after_entry,
    implied_liquidation_ratio,
    implied_ratio_range,
    largest_borrowed_entry,
    liquidation_distance,
    liquidation_price,
    margin_level,
    one_step_below,
    round_down,
)
from freqtrade_isolated_margin.account.records import PairAccount, parse_answer
from freqtrade_isolated_margin.account.tiers import (
    HIGHEST_PUBLISHED_RATIO,
    PUBLISHED_RATIOS,
    Tier,
    believable_ratio,
    published_liquidation_ratio,
    tier_ratios,
)

D = Decimal
LIMITS = {"min_level": D("1.25"), "min_distance": D("0.05")}


def holdings(base: str = "0", quote: str = "0", base_debt: str = "0", quote_debt: str = "0") -> Holdings:
    """Build holdings from strings."""
    return Holdings(D(base), D(quote), D(base_debt), D(quote_debt))


@pytest.fixture
def fet() -> PairAccount:
    """The recorded long."""
    row = parse_answer(recorded("fetusdt_long_2021")).rows["FETUSDT"]
    assert isinstance(row, PairAccount)
    return row


# ----- what is on record


def test_the_recorded_liquidation_price_is_reproduced_to_all_its_places(fet: PairAccount) -> None:
    """With the ratio 1.1575 the formula gives the published `liquidatePrice`."""
    price = liquidation_price(fet.holdings, D("1.1575"))
    assert price is not None
    assert price.quantize(D("1e-8")) == fet.liquidate_price == D("0.51628838")


def test_the_recorded_liquidation_price_implies_its_ratio(fet: PairAccount) -> None:
    """The published price stands for the liquidation ratio 1.1575."""
    assert implied_liquidation_ratio(fet.holdings, fet.liquidate_price).quantize(D("1e-7")) == D("1.1575")


def test_the_recorded_rate_is_the_distance_in_percent(fet: PairAccount) -> None:
    """`liquidateRate` is the distance times 100, with the sign of the move."""
    moved = liquidation_distance(fet.holdings, D("1.1575"), fet.index_price)
    assert abs(moved - -fet.liquidate_rate / 100) < D("2e-8")
    assert fet.liquidate_rate == D("-14.269087")


def test_the_recorded_level_is_near_the_one_at_the_index_price(fet: PairAccount) -> None:
    """The published level was taken at a price that is 0.2 % off the index price, and so is the level."""
    level = margin_level(fet.holdings, fet.index_price)
    assert level.quantize(D("1e-4")) == D("1.3463")
    assert abs(level / fet.margin_level - 1) < D("0.002")


def test_the_recorded_level_follows_from_the_price_that_the_btc_values_imply(fet: PairAccount) -> None:
    """At the price that `netAssetOfBtc` stands for, the level is the published one."""
    base, quote = fet.base_asset, fet.quote_asset
    price = (base.net_asset_of_btc / base.net_asset) / (quote.net_asset_of_btc / quote.net_asset)
    assert abs(margin_level(fet.holdings, price) - fet.margin_level) < D("1e-6")


def test_the_recorded_ratio_lies_within_the_published_one_of_its_leverage(fet: PairAccount) -> None:
    """The ratio taken from the tables is not below the one that really applied."""
    assert published_liquidation_ratio(fet.margin_ratio) == D("1.158")


# ----- entries at full leverage, at 50,000


@pytest.mark.parametrize(
    ("account", "ratio", "call", "level", "called_at", "liquidated_at"),
    [
        (holdings("0.02", quote_debt="900"), "1.05", "1.10", "1.111", "49500", "47250"),
        (holdings(quote="1000", base_debt="0.018"), "1.05", "1.10", "1.111", "50505", "52910"),
        (holdings("0.02", quote_debt="800"), "1.15", "1.19", "1.250", "47600", "46000"),
        (holdings(quote="1000", base_debt="0.016"), "1.15", "1.19", "1.250", "52521", "54348"),
        (holdings("0.03", quote_debt="1000"), "1.18", "1.22", "1.500", "40667", "39333"),
        (holdings(quote="1500", base_debt="0.02"), "1.18", "1.22", "1.500", "61475", "63559"),
    ],
    ids=["10x long", "10x short", "5x long", "5x short", "3x long", "3x short"],
)
def test_an_entry_at_full_leverage_leaves_the_room_of_the_table(
    account: Holdings, ratio: str, call: str, level: str, called_at: str, liquidated_at: str
) -> None:
    """Level at entry, margin call and liquidation price are those that leverage alone fixes."""
    call_price, price = liquidation_price(account, D(call)), liquidation_price(account, D(ratio))
    assert call_price is not None
    assert price is not None
    assert margin_level(account, D(50000)).quantize(D("0.001")) == D(level)
    assert call_price.quantize(D(1)) == D(called_at)
    assert price.quantize(D(1)) == D(liquidated_at)
    assert round(liquidation_distance(account, D(ratio), D(50000)), 20) == round(abs(price / 50000 - 1), 20)


@pytest.mark.parametrize(("leverage", "level"), [("10", "1.111"), ("5", "1.250"), ("3", "1.500")])
@pytest.mark.parametrize("side", list(Side))
def test_a_borrowed_entry_leads_to_the_level_of_its_leverage(side: Side, leverage: str, level: str) -> None:
    """Own funds of 1 and a loan of L - 1 are worth L against a debt of L - 1."""
    own = holdings(quote="100")
    entered = after_entry(own, D(100) * (D(leverage) - 1), side, D(50000), Funding.BORROWED)
    assert margin_level(entered, D(50000)).quantize(D("0.001")) == D(level)


# ----- level, price and distance


def test_without_debt_the_level_is_infinite() -> None:
    """Nothing owed divides by nothing."""
    assert margin_level(holdings("1", "5"), D(7)) == INFINITY


def test_an_empty_account_is_infinitely_safe() -> None:
    """No assets and no debt is no debt."""
    assert margin_level(holdings(), D(7)) == INFINITY


def test_both_debts_count() -> None:
    """Base debt is valued at the price, quote debt as it is."""
    assert margin_level(holdings("3", "40", "1", "60"), D(100)) == D(340) / D(160)


def test_a_liquidation_price_with_both_debts() -> None:
    """(1.1·60 - 40) / (3 - 1.1·1) = 26 / 1.9."""
    price = liquidation_price(holdings("3", "40", "1", "60"), D("1.1"))
    assert price is not None
    assert price.quantize(D("1e-10")) == (D(26) / D("1.9")).quantize(D("1e-10"))


@pytest.mark.parametrize(
    "account",
    [holdings("1", "2"), holdings("5", "2000", quote_debt="1000"), holdings("2.1", "5", "2", "1")],
    ids=["no debt", "covered by quote", "no slope"],
)
def test_no_price_liquidates(account: Holdings) -> None:
    """Where the formula gives no price above zero, there is none, and the distance is infinite."""
    assert liquidation_price(account, D("1.05")) is None
    assert liquidation_distance(account, D("1.05"), D(1)) == INFINITY


def test_below_the_ratio_the_distance_is_0_whatever_the_formula_prints() -> None:
    """The formula would print -6 for an account that is below a level of 1 at every price."""
    account = holdings("1", "0.5", "1", "1")
    assert liquidation_price(account, D("1.1")) is None
    assert liquidation_distance(account, D("1.1"), D(10)) == 0


def test_at_the_ratio_exactly_the_distance_is_0() -> None:
    """The account is liquidated at its ratio, not only below it."""
    assert liquidation_distance(holdings("1.05", quote_debt="1"), D("1.05"), D(1)) == 0


def test_below_the_ratio_a_far_price_does_not_count() -> None:
    """A long whose price fell through the liquidation price is not distant from it."""
    account = holdings("1", quote_debt="1000")
    assert liquidation_price(account, D("1.05")) == 1050
    assert liquidation_distance(account, D("1.05"), D(500)) == 0


def test_a_distance_is_never_negative() -> None:
    """Up and down count alike."""
    long, short = holdings("1.05", quote_debt="90"), holdings(quote="115.5", base_debt="1")
    for account, price in ((long, 90), (short, 110)):
        assert liquidation_price(account, D("1.05")) == price
        assert liquidation_distance(account, D("1.05"), D(100)) == D("0.1")


# ----- ratios


@pytest.mark.parametrize(
    ("margin_ratio", "ratio"),
    [
        ("10", "1.05"),
        ("8.91", "1.05"),
        ("5.26", "1.05"),
        ("5", "1.15"),
        ("4.2", "1.158"),
        ("3.66", "1.165"),
        ("3.28", "1.173"),
        ("3", "1.18"),
        ("2.14", "1.18"),
        ("1.5", "1.18"),
        ("5.00000000", "1.15"),
        ("7", "1.18"),
        ("0", "1.18"),
    ],
)
def test_the_published_ratio_is_the_highest_that_fits(margin_ratio: str, ratio: str) -> None:
    """A leverage in several tables takes the ratio that liquidates first, an unknown one the highest."""
    assert published_liquidation_ratio(D(margin_ratio)) == D(ratio)


def test_every_published_ratio_is_believable() -> None:
    """The range of belief holds all that Binance has published."""
    assert all(believable_ratio(ratio) for ratio in PUBLISHED_RATIOS.values())
    assert D("1.18") == HIGHEST_PUBLISHED_RATIO


@pytest.mark.parametrize(
    ("ratio", "believed"), [("1.0399", False), ("1.04", True), ("1.30", True), ("1.3001", False)]
)
def test_a_ratio_is_believed_from_104_to_130_percent(ratio: str, believed: bool) -> None:
    """Both ends belong to the range."""
    assert believable_ratio(D(ratio)) is believed


TIERS = (
    Tier(D(10), D("1.111"), D("1.05"), D(1), D(1000)),
    Tier(D(5), D("1.25"), D("1.10"), D(2), D(2000)),
    Tier(D(3), D("1.5"), D("1.15"), D(3), D(3000)),
)


@pytest.mark.parametrize(
    ("base_debt", "quote_debt", "ratio"),
    [
        ("0", "0", "1.05"),
        ("0", "1000", "1.05"),
        ("0", "1000.00000001", "1.10"),
        ("1.5", "0", "1.10"),
        ("0.5", "2500", "1.15"),
        ("2.5", "500", "1.15"),
        ("99", "99999", "1.15"),
    ],
)
def test_the_higher_tier_of_both_debts_counts(base_debt: str, quote_debt: str, ratio: str) -> None:
    """A limit belongs to its tier, and a loan beyond all limits to the last one."""
    account = holdings(base_debt=base_debt, quote_debt=quote_debt)
    assert tier_ratios(TIERS, account) == (D(ratio), D("1.15"))


def test_without_tiers_there_is_no_tier_ratio() -> None:
    """Nothing known is said as None."""
    assert tier_ratios((), holdings(quote_debt="1")) is None


@pytest.mark.parametrize(
    ("quote_debt", "price", "low", "high"),
    [("1000", "52500", "1.05", "1.05"), ("0.00000002", "0.00000105", "1.04", "1.06")],
)
def test_a_rounded_price_implies_a_range_of_ratios(quote_debt: str, price: str, low: str, high: str) -> None:
    """Eight places of a price of 52,500 fix the ratio; of one of 105 units of the last place they do not."""
    account = holdings("0.02", quote_debt=quote_debt)
    lowest, highest = implied_ratio_range(account, D(price))
    assert (round(lowest, 4), round(highest, 4)) == (D(low), D(high))
    assert lowest < implied_liquidation_ratio(account, D(price)) < highest


# ----- entries


def test_a_spot_entry_does_not_touch_the_account() -> None:
    """What the spot wallet pays for is not in the margin account."""
    account = holdings("1", "2", "0.5", "7")
    assert after_entry(account, D(100), Side.LONG, D(10), Funding.SPOT) == account


@pytest.mark.parametrize(
    ("side", "funding", "after"),
    [
        (Side.LONG, Funding.BORROWED, holdings("11", "200", "3", "104")),
        (Side.SHORT, Funding.BORROWED, holdings("1", "300", "13", "4")),
        (Side.LONG, Funding.FREE, holdings("11", "100", "3", "4")),
        (Side.SHORT, Funding.FREE, holdings("-9", "300", "3", "4")),
    ],
)
def test_an_entry_changes_the_right_two_amounts(side: Side, funding: Funding, after: Holdings) -> None:
    """Worth 100 at a price of 10: bought or sold are 10 base against 100 quote, lent or swapped."""
    assert after_entry(holdings("1", "200", "3", "4"), D(100), side, D(10), funding) == after


def test_an_entry_from_free_assets_keeps_the_level() -> None:
    """A swap at the price changes neither total."""
    account = holdings("1", "200", "0", "100")
    entered = after_entry(account, D(50), Side.LONG, D(10), Funding.FREE)
    assert margin_level(entered, D(10)) == margin_level(account, D(10))


def test_the_largest_entry_is_bounded_by_the_level() -> None:
    """(300 + N) / (100 + N) = 1.25 at N = 700, with no limit for the distance."""
    largest = largest_borrowed_entry(
        holdings("3", quote_debt="100"), Side.LONG, D(100), D("1.05"), D("1.25"), D(0)
    )
    assert largest == 700


def test_the_largest_entry_is_bounded_by_the_distance() -> None:
    """All base, so the account after N must hold at 90 with 1.05: (3 + N/100)·90 = 1.05·(100 + N)."""
    largest = largest_borrowed_entry(
        holdings("3", quote_debt="100"), Side.LONG, D(100), D("1.05"), D("1.01"), D("0.1")
    )
    assert largest == D(165) / D("0.15")


def test_a_short_against_a_long_is_bounded_after_it_has_turned_around() -> None:
    """The first part brings assets and debt closer, the last part makes the account a short."""
    account = holdings("10", quote_debt="500")
    largest = largest_borrowed_entry(account, Side.SHORT, D(100), D("1.05"), D("1.01"), D("0.2"))
    after = after_entry(account, largest, Side.SHORT, D(100), Funding.BORROWED)
    price = liquidation_price(after, D("1.05"))
    assert price is not None
    assert round(largest, 20) == round(D(675) / D("0.26"), 20)
    assert round(price, 20) == 120


def test_an_account_that_breaks_a_limit_takes_no_entry() -> None:
    """Nothing may be added to what is already too tight."""
    tight = holdings("1.2", quote_debt="100")
    assert largest_borrowed_entry(tight, Side.LONG, D(100), D("1.05"), **LIMITS) == 0


def test_an_account_that_meets_a_limit_exactly_takes_no_entry() -> None:
    """At the limit there is room for 0."""
    exact = holdings("1.25", quote_debt="100")
    assert largest_borrowed_entry(exact, Side.LONG, D(100), D("1.05"), **LIMITS) == 0


# ----- rounding, and the caller's context


def test_amounts_are_cut_and_never_rounded_up() -> None:
    """A stake of eight places is never above the one that was computed."""
    assert round_down(D("1.999999999")) == D("1.99999999")


@pytest.mark.parametrize(("amount", "below"), [("1", "0.99999999"), ("0.00000001", "0"), ("0", "0")])
def test_the_next_lower_amount_is_not_below_0(amount: str, below: str) -> None:
    """One step is the last of eight places."""
    assert one_step_below(D(amount)) == D(below)


def test_the_callers_context_is_as_it_was(fet: PairAccount) -> None:
    """After a result and after an error, and whatever calls what."""
    with localcontext(Context(prec=5)) as callers:
        liquidation_distance(fet.holdings, D("1.1575"), fet.index_price)
        assert getcontext() is callers
        with pytest.raises(DivisionByZero):
            liquidation_distance(holdings(quote="1000", base_debt="0.018"), D("1.05"), D(0))
        assert getcontext() is callers


def test_a_short_precision_of_the_caller_does_not_count(fet: PairAccount) -> None:
    """A strategy that computes with five digits gets the same liquidation price."""
    exact = liquidation_price(fet.holdings, D("1.1575"))
    with localcontext(Context(prec=5)):
        assert liquidation_price(fet.holdings, D("1.1575")) == exact


def test_the_callers_context_is_left_alone() -> None:
    """The package's precision does not leak into the strategy that asked."""
    with localcontext(Context(prec=5)):
        margin_level(holdings("1", quote_debt="3"), D(1))
        assert D(1) / D(3) == D("0.33333")
