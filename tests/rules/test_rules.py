"""`decide`: every rule by example, and that nothing outside the documented shape is ever allowed."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from itertools import product
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from support.builders import (
    Row,
    account,
    answer,
    dust_row,
    fraction,
    long_row,
    parsed,
    placeholder,
    recorded,
    row,
    short_row,
    text,
)
from support.fuzzing import campaign, good_row

from freqtrade_isolated_margin.account.maths import (
    Funding,
    Side,
    after_entry,
    liquidation_distance,
    margin_level,
    round_down,
)
from freqtrade_isolated_margin.account.records import (
    Absent,
    MarginLevelStatus,
    PairAccount,
    Unreadable,
    parse_answer,
)
from freqtrade_isolated_margin.account.tiers import TierRatios
from freqtrade_isolated_margin.errors import AnswerError
from freqtrade_isolated_margin.rules.decide import EntryDecision, Outcome, Reading, Rule, decide, plain
from freqtrade_isolated_margin.rules.rules import Rules

D = Decimal
ALLOW, SHRINK, BLOCK = Outcome.ALLOW, Outcome.SHRINK, Outcome.BLOCK
# Limits of one figure that let everything through, so that a test sees the other one alone.
ANY_LEVEL = {"block_below": 1.0001, "full_above": 1.0002}
ANY_DISTANCE = {"block_below": 0, "full_above": 0}


def judged(
    built: Row | PairAccount | Absent | Unreadable | None,
    side: Side = Side.LONG,
    *,
    age: float = 0.0,
    tier_ratio: str | None = "1.05",
    highest_ratio: str | None = None,
    leverage: str = "1",
    trouble: str | None = None,
    **rules: Any,
) -> EntryDecision:
    """Judge an entry by a row, with the default rules but for those given."""
    record = parsed(built) if isinstance(built, dict) else built
    ratios = TierRatios(D(tier_ratio), D(highest_ratio or tier_ratio)) if tier_ratio else None
    reading = Reading(record, age, ratios, trouble)
    return decide("BTC/USDT", side, reading, Rules.model_validate(rules), 60.0, D(leverage))


def assert_blocked(decision: EntryDecision, rule: Rule, *words: str) -> None:
    """Check a refusal, what it rests on, and that it says why in one line."""
    assert decision.outcome is BLOCK
    assert decision.factor == 0
    assert decision.blocks
    assert decision.rule is rule
    said = "; ".join(decision.reasons)
    assert said
    assert "\n" not in said
    for word in words:
        assert word in said


# ----- on record


def test_the_recorded_long_shrinks_to_an_eighth() -> None:
    """The reported level, being the worse one, leaves (1.34371923 - 1.25) / 0.75."""
    decision = judged(recorded("fetusdt_long_2021")["assets"][0], tier_ratio=None)
    assert decision.outcome is SHRINK
    assert decision.factor == D("0.12495897")
    assert decision.rule is Rule.LEVEL
    assert decision.margin_level == D("1.34371923")
    assert decision.max_stake is None
    assert decision.liquidation_distance is not None
    # With the older table's ratio of 4.2x, 1.158, liquidation is a little nearer than reported.
    assert decision.liquidation_distance.quantize(D("1e-6")) == D("0.142313")


@pytest.mark.parametrize("name", ["ethbtc_no_debt_2022", "lunausdt_no_debt_2022"])
def test_the_recorded_accounts_without_debt_are_allowed(name: str) -> None:
    """No debt, no limit."""
    decision = judged(recorded(name)["assets"][0], tier_ratio=None)
    assert (decision.outcome, decision.factor, decision.reasons) == (ALLOW, 1, ("no debt",))


# ----- the two figures


@pytest.mark.parametrize(
    ("level", "outcome", "factor"),
    [
        ("1.2", BLOCK, "0"),
        ("1.25", BLOCK, "0"),
        ("1.250001", SHRINK, "0.00000133"),
        ("1.4", SHRINK, "0.2"),
        ("1.625", SHRINK, "0.5"),
        ("1.999999", SHRINK, "0.99999866"),
        ("2", ALLOW, "1"),
        ("3", ALLOW, "1"),
    ],
)
def test_the_level_gives_a_straight_line_between_its_limits(
    level: str, outcome: Outcome, factor: str
) -> None:
    """0 at and below 1.25, 1 at and above 2, and cut to eight places between."""
    for built in (long_row(level), short_row(level)):
        decision = judged(built, liquidation_distance=ANY_DISTANCE)
        assert (decision.outcome, decision.factor) == (outcome, D(factor))
        assert decision.margin_level == D(level)


@pytest.mark.parametrize(
    ("price", "outcome", "factor"),
    [
        ("96", BLOCK, "0"),
        ("95", BLOCK, "0"),
        ("94.999", SHRINK, "0.00006666"),
        ("90", SHRINK, "0.33333333"),
        ("87.5", SHRINK, "0.5"),
        ("80.001", SHRINK, "0.99993333"),
        ("80", ALLOW, "1"),
        ("50", ALLOW, "1"),
    ],
)
def test_the_distance_gives_a_straight_line_between_its_limits(
    price: str, outcome: Outcome, factor: str
) -> None:
    """0 at and below 5 %, 1 at and above 20 %."""
    # Eighteen places: what is rounded in a debt must not decide at a limit.
    built = row(base_total=1, quote_debt=Fraction(price) / Fraction("1.05"), index=100, places=18)
    decision = judged(built, margin_level=ANY_LEVEL)
    assert decision.outcome is outcome
    assert abs(decision.factor - D(factor)) <= D("1e-8")


def test_the_distance_of_a_short_counts_upwards() -> None:
    """Owing one base worth 100 against 126 quote ends at 120 with a ratio of 1.05: 20 % away."""
    decision = judged(row(quote_total=126, base_debt=1, index=100), margin_level=ANY_LEVEL)
    assert decision.liquidation_distance == D("0.2")
    assert decision.outcome is ALLOW


def test_the_worse_of_both_levels_counts() -> None:
    """A lower reported one decides, a higher one does not."""
    wide = {"level_tolerance": 0.5, "liquidation_distance": ANY_DISTANCE}
    assert judged(long_row("2.5", marginLevel="1.4"), **wide).margin_level == D("1.4")
    assert judged(long_row("2.5", marginLevel="1.4"), **wide).factor == D("0.2")
    assert judged(long_row("1.4", marginLevel="2"), **wide).factor == D("0.2")


def test_a_reported_level_of_0_with_debt_is_the_worst_there_is() -> None:
    """0 is no placeholder here, even where the tolerance would let nearly everything through."""
    for tolerance in (0.02, 0.5):
        decision = judged(long_row(3, marginLevel="0"), level_tolerance=tolerance)
        assert_blocked(decision, Rule.CONTRADICTION, "margin level 0 ")
        assert decision.margin_level == 0


@pytest.mark.parametrize(
    ("reported", "believed"),
    [("2.94", True), ("3.06", True), ("2.9399", False), ("3.0601", False), ("999", False)],
)
def test_a_reported_level_is_believed_within_its_tolerance(reported: str, believed: bool) -> None:
    """2 % of the level at the index price, either way and the ends included."""
    decision = judged(long_row(3, marginLevel=reported))
    if believed:
        assert decision.outcome is ALLOW
    else:
        assert_blocked(decision, Rule.CONTRADICTION, "level_tolerance", "2 %")


def test_a_level_beyond_what_binance_prints_is_believed() -> None:
    """A dust debt: the recomputed level is above the 999 that stands for no limit."""
    assert judged(long_row(5000, marginLevel="999")).outcome is ALLOW
    assert judged(long_row(900, marginLevel="999")).outcome is BLOCK


def test_the_reported_distance_counts_where_it_is_worse() -> None:
    """The reported price stands for a ratio of 1.15, the tier for 1.05."""
    decision = judged(long_row(ratio="1.15"), tier_ratio="1.05")
    built = long_row(ratio="1.15")
    assert decision.liquidation_distance == 1 - D(built["liquidatePrice"]) / 50000


def test_the_recomputed_distance_counts_where_it_is_worse() -> None:
    """The reported price stands for a ratio of 1.05, the tier for 1.15."""
    decision = judged(long_row(ratio="1.05"), tier_ratio="1.15")
    assert decision.liquidation_distance is not None
    assert round(decision.liquidation_distance, 20) == round(1 - D("1.15") * 1000 / D("0.06") / 50000, 20)


def test_without_tiers_the_published_ratio_counts() -> None:
    """5x means 1.15 at most, whatever else the tables say of it."""
    with_tiers = judged(long_row(marginRatio="5"), tier_ratio="1.15")
    assert judged(long_row(marginRatio="5"), tier_ratio=None) == with_tiers


def test_the_least_factor_is_the_stakes() -> None:
    """A level that leaves 0.2 and a distance that leaves more make 0.2, and both are told."""
    decision = judged(row(base_total="1.4", quote_debt=1, index=1, ratio="1.15"), tier_ratio="1.15")
    assert decision.factor == D("0.2")
    assert decision.rule is Rule.LEVEL
    assert len(decision.reasons) == 2
    assert "margin level 1.4 between 1.25 (block_below) and 2 (full_above)" in decision.reasons[0]
    assert (
        "liquidation distance 17.85 % between 5 % (block_below) and 20 % (full_above)" in decision.reasons[1]
    )


def test_equal_limits_leave_no_line_between() -> None:
    """block_below blocks at itself even where full_above is the same number."""
    limits = {"block_below": 1.5, "full_above": 1.5}
    assert judged(long_row("1.5"), margin_level=limits).outcome is BLOCK
    assert judged(long_row("1.50001"), margin_level=limits).outcome is ALLOW


def test_an_account_below_its_ratio_is_at_distance_0() -> None:
    """What is being liquidated is blocked whatever its price says."""
    decision = judged(long_row("1.04"), margin_level=ANY_LEVEL)
    assert_blocked(decision, Rule.DISTANCE, "liquidation distance 0 % ≤ 5 %")
    assert decision.liquidation_distance == 0


def test_a_debt_that_no_price_liquidates_has_no_distance() -> None:
    """A quote debt covered by quote: only the level counts, and the reported price of 0 is right."""
    decision = judged(row(base_total=1, quote_total=2000, quote_debt=1000))
    assert decision.outcome is ALLOW
    assert decision.liquidation_distance is None
    assert any("liquidation distance none" in reason for reason in decision.reasons)


# ----- words


@pytest.mark.parametrize("status", list(MarginLevelStatus))
@pytest.mark.parametrize("built", [long_row(), row(base_total=1)], ids=["debt", "no debt"])
def test_the_three_bad_statuses_block_by_default(built: Row, status: MarginLevelStatus) -> None:
    """With and without debt."""
    decision = judged(built | {"marginLevelStatus": str(status)})
    if status in {MarginLevelStatus.EXCESSIVE, MarginLevelStatus.NORMAL}:
        assert decision.outcome is ALLOW
    else:
        assert_blocked(decision, Rule.STATUS, status, "block_statuses")


def test_the_blocked_statuses_can_be_chosen() -> None:
    """A status that is not in the list does not block, one that is does."""
    only = {"block_statuses": ["NORMAL"]}
    assert judged(long_row(status="MARGIN_CALL"), **only).outcome is ALLOW
    assert judged(long_row(status="NORMAL"), **only).outcome is BLOCK


@pytest.mark.parametrize("built", [long_row(), row(base_total=1)], ids=["debt", "no debt"])
def test_an_unknown_status_blocks_whatever_is_set(built: Row) -> None:
    """What is not documented is not safe."""
    decision = judged(built | {"marginLevelStatus": "SPLENDID"}, block_statuses=[])
    assert_blocked(decision, Rule.STATUS, "SPLENDID")


@pytest.mark.parametrize("built", [long_row(), row(base_total=1)], ids=["debt", "no debt"])
def test_trading_disabled_blocks(built: Row) -> None:
    """With and without debt."""
    assert_blocked(judged(built | {"tradeEnabled": False}), Rule.TRADE_ENABLED, "tradeEnabled")


def test_all_that_blocks_is_told() -> None:
    """A row with three faults has three reasons, the weightiest first."""
    decision = judged(long_row("1.1", status="MARGIN_CALL", tradeEnabled=False))
    assert decision.rule is Rule.STATUS
    assert len(decision.reasons) == 4


# ----- no debt, and no account


@pytest.mark.parametrize("level", ["0", "0.5", "999"])
def test_without_debt_no_level_counts(level: str) -> None:
    """A reported 0 without debt is safe."""
    decision = judged(row(base_total=1, marginLevel=level))
    assert (decision.outcome, decision.rule) == (ALLOW, Rule.NO_DEBT)
    assert decision.margin_level is decision.liquidation_distance is None


NO_ACCOUNT = [placeholder(), row(base_total=1, enabled=False), Absent("no isolated margin account")]


@pytest.mark.parametrize("built", NO_ACCOUNT, ids=["placeholder", "disabled", "missing"])
def test_without_account_decides_on_an_absent_account(built: Row | Absent) -> None:
    """Allowed by default, blocked on request, and the setting is named."""
    allowed = judged(built)
    assert (allowed.outcome, allowed.factor, allowed.rule) == (ALLOW, 1, Rule.WITHOUT_ACCOUNT)
    assert "without_account" in allowed.reasons[0]
    assert_blocked(judged(built, without_account="block"), Rule.WITHOUT_ACCOUNT, "without_account: block")


@pytest.mark.parametrize("built", NO_ACCOUNT, ids=["placeholder", "disabled", "missing"])
def test_an_absent_account_takes_no_borrowed_entry(built: Row | Absent) -> None:
    """There is nowhere to borrow, whatever `without_account` says."""
    decision = judged(built, entry_funding="borrowed", without_account="allow")
    assert_blocked(decision, Rule.WITHOUT_ACCOUNT, "borrowed")


@pytest.mark.parametrize("flags", [{"enabled": False}, {"isolatedCreated": False}])
def test_a_disabled_account_that_owes_is_judged(flags: dict[str, bool]) -> None:
    """It can be liquidated, so `without_account` does not excuse it."""
    assert_blocked(judged(long_row("1.1", **flags), without_account="allow"), Rule.LEVEL)


# ----- age


@pytest.mark.parametrize("age", [60.001, 1e9, float("inf"), float("nan"), -1.0, float("-inf")])
def test_an_account_of_an_impossible_or_too_high_age_blocks(age: float) -> None:
    """Too old, or from the future, or of no age at all."""
    assert_blocked(judged(row(base_total=1), age=age), Rule.MAX_AGE, "max_age_seconds", "60 s")


@pytest.mark.parametrize("age", [-0.999, -0.001, 0.0, 59.9, 60.0])
def test_an_account_up_to_the_limit_of_its_age_counts(age: float) -> None:
    """The limit itself is not too old, and a clock that is set by less than a second makes none too young."""
    assert judged(row(base_total=1), age=age).outcome is ALLOW


def test_an_old_absence_blocks_as_well() -> None:
    """That there was no account a while ago says nothing."""
    assert_blocked(judged(Absent("none"), age=61), Rule.MAX_AGE)


def test_what_was_never_read_blocks() -> None:
    """And it says why reading fails."""
    decision = judged(None, trouble="the connection is refused")
    assert_blocked(decision, Rule.NOT_READ, "not been read", "the connection is refused")


def test_a_stale_account_says_why_it_was_not_read_again() -> None:
    """The number, the limit, and the trouble."""
    decision = judged(row(), age=75, trouble="HTTP 503")
    assert_blocked(decision, Rule.MAX_AGE, "75 s old", "60 s", "HTTP 503")


def test_an_unreadable_account_blocks() -> None:
    """With what was wrong with its row."""
    assert_blocked(judged(Unreadable("its row came twice")), Rule.UNREADABLE, "its row came twice")


# ----- contradictions


@pytest.mark.parametrize(
    ("built", "word"),
    [
        (long_row(liquidatePrice="0"), "liquidation price is 0"),
        (short_row(liquidatePrice="0"), "liquidation price is 0"),
        (long_row(liquidatePrice="60000"), "liquidation price 60000"),
        (short_row(liquidatePrice="40000"), "liquidation price 40000"),
        (long_row(ratio="1.03"), "1.04 to 1.30"),
        (long_row(ratio="1.31"), "1.04 to 1.30"),
        (short_row(ratio="1.03"), "1.04 to 1.30"),
        (short_row(ratio="1.31"), "1.04 to 1.30"),
        (long_row(indexPrice="0"), "index price is 0"),
        (row(base_total=1, indexPrice="0"), "index price is 0"),
        (long_row("1.2", liquidatePrice="51000"), "wrong side"),
        (row(quote_debt=1000, base_total=1, quote_total=2000, liquidatePrice="900"), "1.04 to 1.30"),
    ],
)
def test_an_account_that_contradicts_itself_blocks(built: Row, word: str) -> None:
    """With limits that would let everything else through."""
    decision = judged(built, margin_level=ANY_LEVEL, liquidation_distance=ANY_DISTANCE)
    assert_blocked(decision, Rule.CONTRADICTION, "contradicts itself", word)


@pytest.mark.parametrize("printed", ["0", "99999999999999999999", "49999"])
@pytest.mark.parametrize("level", ["999", "1000", "9999999"])
@pytest.mark.parametrize("debt", [{}, {"base_debt": "0", "quote_interest": "0.00000001"}])
@pytest.mark.parametrize("side", list(Side))
def test_dust_is_no_contradiction(debt: dict[str, Any], level: str, printed: str, side: Side) -> None:
    """A short that was bought back without its last interest: what is printed for it means nothing."""
    decision = judged(dust_row(printed, marginLevel=level, **debt), side)
    assert decision.outcome is ALLOW
    assert decision.liquidation_distance is None
    assert not any("contradict" in reason for reason in decision.reasons)


@pytest.mark.parametrize("printed", ["0", "99999999999999999999", "49999"])
@pytest.mark.parametrize("debt", ["0.0002", "0.02"])
def test_a_larger_debt_with_the_figures_of_dust_is_a_contradiction(debt: str, printed: str) -> None:
    """5,000 over 10 is a level of 500, whatever is reported."""
    decision = judged(
        dust_row(printed, base_debt=debt), margin_level=ANY_LEVEL, liquidation_distance=ANY_DISTANCE
    )
    assert_blocked(decision, Rule.CONTRADICTION, "contradicts itself", "margin level 999")


@pytest.mark.parametrize("printed", ["0", "99999999999999999999", "49999"])
def test_dust_bounds_a_borrowed_entry_as_no_debt_does(printed: str) -> None:
    """But for itself: what is printed as its liquidation price raises no ratio."""
    with_dust, without = borrowed(dust_row(printed)), borrowed(row(quote_total=5000))
    assert with_dust.max_stake is not None
    assert without.max_stake is not None
    assert 0 < without.max_stake - with_dust.max_stake < D("0.01")


@pytest.mark.parametrize("ratio", ["1.04", "1.30"])
def test_both_ends_of_the_believable_ratios_are_believed(ratio: str) -> None:
    """1.04 and 1.30 belong to the range, as far as prices of eight places can tell."""
    inside = Fraction(ratio) + Fraction(1, 10**6) * (1 if ratio == "1.04" else -1)
    assert judged(long_row(ratio=inside)).outcome is not BLOCK


# ----- borrowed entries


def borrowed(built: Row, side: Side = Side.LONG, **more: Any) -> EntryDecision:
    """Judge an entry that is placed in the account on borrowed money."""
    return judged(built, side, entry_funding="borrowed", **more)


@pytest.mark.parametrize("side", list(Side))
def test_a_borrowed_entry_is_bounded_by_the_level(side: Side) -> None:
    """(3000 + N) / (1000 + N) is above 1.25 below N = 7000: the stake ends a step before."""
    decision = borrowed(long_row(), side, liquidation_distance=ANY_DISTANCE)
    assert decision.outcome is ALLOW
    assert decision.max_stake == D("6999.99999999")


def test_a_borrowed_entry_of_an_account_without_debt_is_bounded() -> None:
    """No debt is allowed up to what the projection permits: (100 + N) / N above 1.25 below 400."""
    decision = borrowed(row(quote_total=100), liquidation_distance=ANY_DISTANCE)
    assert decision.outcome is ALLOW
    assert decision.max_stake == D("399.99999999")
    assert any("399.99999999" in reason for reason in decision.reasons)


def test_an_empty_account_takes_no_borrowed_entry() -> None:
    """A level of 1 is below every limit."""
    decision = borrowed(row())
    assert_blocked(decision, Rule.FUNDING, "block_below")
    assert decision.max_stake == 0


def test_the_leverage_divides_the_stake() -> None:
    """N is stake times leverage, cut down to eight places."""
    decision = borrowed(long_row(), leverage="3", liquidation_distance=ANY_DISTANCE)
    assert decision.max_stake == D("2333.33333333")


def test_a_borrowed_entry_is_bounded_by_the_distance() -> None:
    """At 95 % of the price, (3 + n)·0.95 = 1.05·(1 + n) in thousands: n = 18, beyond 7 of the level."""
    tight = {"block_below": 0.3, "full_above": 0.9}
    decision = borrowed(long_row(), margin_level=ANY_LEVEL, liquidation_distance=tight)
    assert decision.max_stake is not None
    # (3 + n)·0.7 = 1.05·(1 + n): n = 3.
    assert decision.max_stake == D("2999.99999999")


@pytest.mark.parametrize("side", list(Side))
@pytest.mark.parametrize("built", [long_row(), short_row(), row(base_total="0.1", quote_total=40)])
@pytest.mark.parametrize("leverage", ["1", "3", "7"])
def test_the_largest_stake_stays_above_both_limits_and_the_next_does_not(
    built: Row, side: Side, leverage: str
) -> None:
    """Strictly above both `block_below` limits, and one step of eight places more is not."""
    decision = borrowed(built, side, leverage=leverage)
    record = parsed(built)
    assert isinstance(record, PairAccount)
    assert decision.max_stake is not None

    def above(stake: Decimal) -> bool:
        value = stake * D(leverage)
        after = after_entry(record.holdings, value, side, record.index_price, Funding.BORROWED)
        return margin_level(after, record.index_price) > D("1.25") and liquidation_distance(
            after, D("1.05"), record.index_price
        ) > D("0.05")

    assert decision.max_stake > 0
    assert above(decision.max_stake)
    assert not above(decision.max_stake + D("1e-8"))


def test_the_projection_starts_from_the_worse_level() -> None:
    """A reported level of 2 counts as if assets were 2000: N stays below 3000."""
    wide = {"level_tolerance": 0.5, "liquidation_distance": ANY_DISTANCE}
    decision = borrowed(long_row(3, marginLevel="2"), **wide)
    assert decision.max_stake == D("2999.99999999")


def test_the_projection_uses_the_worse_ratio() -> None:
    """A reported price that stands for 1.25 leaves less than the tier's 1.05."""
    tight = {"block_below": 0.3, "full_above": 0.9}
    # (3 + n)·0.7 = 1.25·(1 + n), with the price cut to eight places.
    decision = borrowed(long_row(ratio="1.25"), margin_level=ANY_LEVEL, liquidation_distance=tight)
    assert decision.max_stake is not None
    assert decision.max_stake == pytest.approx(D(850) / D("0.55"), abs=D("1e-5"))


def test_a_borrowed_entry_keeps_the_limits_in_the_highest_tier_too() -> None:
    """A larger loan may be in a tier that liquidates earlier: (3 + n)·0.7 = 1.18·(1 + n) counts, not 1.05."""
    tight = {"block_below": 0.3, "full_above": 0.9}
    decision = borrowed(long_row(), highest_ratio="1.18", margin_level=ANY_LEVEL, liquidation_distance=tight)
    assert decision.max_stake == round_down(D(920) / D("0.48"))
    # What the account is liquidated at now is the ratio of its own tier.
    assert decision.liquidation_distance == judged(long_row()).liquidation_distance


def test_each_side_has_its_own_largest_stake() -> None:
    """A short hedges a long, another long does not."""
    tight = {"liquidation_distance": {"block_below": 0.3, "full_above": 0.9}, "margin_level": ANY_LEVEL}
    long, short = borrowed(long_row(), Side.LONG, **tight), borrowed(long_row(), Side.SHORT, **tight)
    assert long.max_stake is not None
    assert short.max_stake is not None
    assert short.max_stake > long.max_stake


def test_a_borrowed_entry_into_a_blocked_account_has_no_stake() -> None:
    """At the limit of the level nothing more can be borrowed."""
    decision = borrowed(long_row("1.25"))
    assert_blocked(decision, Rule.LEVEL)
    assert decision.max_stake == 0


def test_a_borrowed_entry_shrinks_by_the_present_figures_too() -> None:
    """The factor is that of the account as it is; the cap comes on top."""
    decision = borrowed(long_row("1.4"), liquidation_distance=ANY_DISTANCE)
    assert decision.factor == D("0.2")
    assert decision.max_stake == D("599.99999999")


# ----- what comes out


def test_a_decision_is_frozen() -> None:
    """Nobody turns a refusal into something else."""
    with pytest.raises(AttributeError):
        judged(long_row()).factor = D(1)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("built", "said"),
    [
        (long_row("1.2"), "BTC/USDT long: block: margin level 1.2 ≤ 1.25 (block_below)"),
        (row(base_total=1), "BTC/USDT long: allow: no debt"),
    ],
)
def test_a_decision_prints_as_one_line_with_number_and_limit(built: Row, said: str) -> None:
    """Pair, side, outcome, and why."""
    assert str(judged(built, liquidation_distance=ANY_DISTANCE)) == said


def test_a_smaller_entry_prints_with_its_factor() -> None:
    """The share of the stake stands behind the outcome."""
    assert str(judged(long_row("1.4"))).startswith("BTC/USDT long: shrink × 0.2: margin level 1.4 between")


@pytest.mark.parametrize(
    ("number", "places", "text"),
    [("1.29999", 4, "1.2999"), ("2.0", 4, "2"), ("0.00001", 4, "0"), ("1E+3", 2, "1000"), ("10", 0, "10")],
)
def test_a_number_is_shown_cut_and_not_rounded(number: str, places: int, text: str) -> None:
    """A level below a limit never reads as the limit."""
    assert plain(D(number), places) == text


def test_a_decision_does_not_depend_on_the_callers_context() -> None:
    """Five digits of the caller's change nothing."""
    built = recorded("fetusdt_long_2021")["assets"][0]
    usual = borrowed(built, tier_ratio=None)
    with localcontext(Context(prec=5)):
        assert borrowed(built, tier_ratio=None) == usual


def test_reasons_do_not_depend_on_the_context_in_which_they_are_read() -> None:
    """They are put into words when somebody asks, in whatever thread."""
    plainly, shortly = judged(long_row("1.2345")), judged(long_row("1.2345"))
    with localcontext(Context(prec=2)):
        assert shortly.reasons
    assert shortly.reasons == plainly.reasons
    assert str(shortly) == str(plainly)


def test_an_unchanged_account_is_judged_alike() -> None:
    """The next reading has the same record, which gives the same decision to whoever asks the same."""
    record = parsed(long_row("1.4"))
    assert isinstance(record, PairAccount)
    first, other, later = (
        decide("BTC/USDT", side, Reading(record, age), Rules(), 60.0)
        for side, age in ((Side.LONG, 0.0), (Side.SHORT, 0.0), (Side.LONG, 59.0))
    )
    assert later == first
    assert other == first._replace(side=Side.SHORT)
    assert judged(record, tier_ratio="1.18") != judged(record) == judged(record)
    assert judged(record, entry_funding="borrowed") != judged(record)


_ASKED = list(
    product(
        Side,
        [
            Rules(),
            Rules(entry_funding="borrowed"),
            Rules(entry_funding="borrowed", level_tolerance=D("0.5")),
        ],
        [None, TierRatios(D("1.05"), D("1.05")), TierRatios(D("1.15"), D("1.18"))],
        [D(1), D(3)],
    )
)


@campaign(60, 2_000)
@given(st.randoms(use_true_random=False))
def test_what_was_asked_before_changes_no_verdict(rnd: Random) -> None:
    """An account that was judged before, in whatever ways, gives what one gives that was never judged."""
    built = good_row(rnd, "BTCUSDT")
    known = parsed(built)
    for side, rules, tiers, leverage in rnd.sample(_ASKED, len(_ASKED)):
        again, anew = (
            decide("X/Y", side, Reading(record, tier_ratios=tiers), rules, 60.0, leverage)
            for record in (known, parsed(built))
        )
        assert again == anew
        assert str(again) == str(anew)


# ----- whatever comes in


_numbers = st.one_of(
    st.decimals(0, 10**6, places=8).map(lambda number: f"{number:f}"),
    st.from_regex(r"[0-9]{1,20}(\.[0-9]{1,20})?", fullmatch=True).filter(str.isascii),
    st.sampled_from(
        ["0", "0.00000000", "1", "999", "9" * 20, "0." + "0" * 19 + "1", "9" * 20 + "." + "9" * 20]
    ),
)


@st.composite
def wild_rows(draw: st.DrawFn) -> Row:
    """Rows of the documented shape: from consistent ones to such whose numbers have nothing in common."""
    amount = st.one_of(st.just("0"), st.integers(1, 5000).map(str), _numbers)
    names = ["base_total", "base_debt", "base_interest", "quote_total", "quote_debt", "quote_interest"]
    amounts = {name: draw(amount) for name in names}
    built = row(**amounts, index=draw(st.integers(1, 5000)), ratio=draw(st.sampled_from(["1.05", "1.18"])))
    fields = ["marginLevel", "marginRatio", "indexPrice", "liquidatePrice", "liquidateRate"]
    for name in draw(st.lists(st.sampled_from(fields), unique=True, max_size=2)):
        built[name] = draw(_numbers)
    for asset in ("baseAsset", "quoteAsset"):
        if draw(st.integers(0, 9)) == 0:
            built[asset][draw(st.sampled_from(["borrowed", "interest", "totalAsset"]))] = draw(_numbers)
    for name in ("tradeEnabled", "isolatedCreated", "enabled"):
        built[name] = draw(st.integers(0, 9)) > 0
    built["marginLevelStatus"] = draw(st.sampled_from(["EXCESSIVE"] * 9 + [*MarginLevelStatus, "OTHER"]))
    return built


@given(
    wild_rows(),
    st.sampled_from(Side),
    st.sampled_from(["spot", "borrowed"]),
    st.sampled_from([None, "1.05", "1.18"]),
    st.floats(allow_nan=True, allow_infinity=True),
)
@settings(max_examples=300)
def test_deciding_never_raises(built: Row, side: Side, funding: str, ratio: str | None, age: float) -> None:
    """Whatever the parser returns is judged, and the verdict is consistent in itself."""
    for years in (0.0, age):
        decision = judged(built, side, age=years, tier_ratio=ratio, entry_funding=funding)
        assert 0 <= decision.factor <= 1
        assert decision.outcome is {0: BLOCK, 1: ALLOW}.get(decision.factor, SHRINK)
        assert decision.reasons
        assert all(reason and "\n" not in reason for reason in decision.reasons)
        assert str(decision)


@given(wild_rows(), st.sampled_from(Side))
@settings(max_examples=300)
def test_an_allowed_account_is_one_that_a_plain_reading_finds_healthy(built: Row, side: Side) -> None:
    """Read naively: flags and status are good, and a debt has twice its worth in assets, reported too."""
    decision = judged(built, side, without_account="block")
    if decision.blocks:
        return
    base, quote = built["baseAsset"], built["quoteAsset"]
    owed = [Fraction(asset[name]) for asset in (base, quote) for name in ("borrowed", "interest")]
    assert built["tradeEnabled"]
    assert built["marginLevelStatus"] in {"EXCESSIVE", "NORMAL"}
    assert any(owed) or (built["isolatedCreated"] and built["enabled"])
    if any(owed):
        price = Fraction(built["indexPrice"])
        debt = (owed[0] + owed[1]) * price + owed[2] + owed[3]
        assets = Fraction(base["totalAsset"]) * price + Fraction(quote["totalAsset"])
        share = min(assets / debt, Fraction(built["marginLevel"])) - Fraction("1.25")
        assert 0 < fraction(decision.factor) <= share / Fraction("0.75")


_JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["NaN", "1e400", "-1", "-0", "Infinity", " 1", "1_0", "1" * 5000, "+1", "1.", ".5"]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def _paths(built: Row, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, value in built.items():
        found.append((*before, name))
        if isinstance(value, dict):
            found += _paths(value, (*before, name))
    return found


def _as_documented(path: tuple[str, ...], value: object) -> bool:
    """Whether a value may stand at a path, said in other words than the package's."""
    name = path[-1]
    if name in {"borrowEnabled", "repayEnabled", "isolatedCreated", "tradeEnabled", "enabled"}:
        return isinstance(value, bool)
    if name in {"symbol", "asset", "marginLevelStatus"}:
        return isinstance(value, str)
    if not isinstance(value, str) or not value.isascii():
        return False
    unsigned = value.removeprefix("-")
    if value != unsigned and name not in {"liquidateRate", "netAsset", "netAssetOfBtc"}:
        return False
    parts = unsigned.split(".")
    return len(parts) <= 2 and all(part.isdigit() and len(part) <= 20 for part in parts)


@given(st.data())
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
def test_a_row_outside_of_the_documented_shape_is_never_let_through(data: st.DataObject) -> None:
    """One field replaced by anything, or taken away: refused, unless the value could stand there."""
    good = data.draw(st.sampled_from([long_row(), short_row(), row(base_total=1)]))
    built = deepcopy(good)
    path = data.draw(st.sampled_from(_paths(good)))
    target = built
    for step in path[:-1]:
        target = target[step]
    if data.draw(st.booleans()):
        value = data.draw(_JUNK)
        documented = _as_documented(path, value)
        target[path[-1]] = value
    else:
        documented = path == ("enabled",)
        del target[path[-1]]
    try:
        rows = parse_answer(answer(built)).rows
    except AnswerError:
        assert path == ("symbol",)
        return
    record = rows.get("BTCUSDT")
    for side in Side:
        for funding in ("spot", "borrowed"):
            decision = judged(record, side, entry_funding=funding)
            assert documented or decision.outcome is BLOCK


@pytest.mark.parametrize("leverage", ["0.5", "1", "125"])
@pytest.mark.parametrize("make", [long_row, short_row])
def test_any_leverage_is_taken(make: Callable[[], Row], leverage: str) -> None:
    """Freqtrade's leverages are positive numbers; none of them breaks the projection."""
    decision = borrowed(make(), leverage=leverage)
    assert decision.max_stake is not None
    assert decision.max_stake > 0


def test_reasons_are_short_whatever_the_account_says() -> None:
    """A status of ten thousand letters does not fill the log."""
    decision = judged(account(status="X" * 10_000))
    assert all(len(reason) < 200 for reason in decision.reasons)


# ----- the same in fractions


def figures_in_fractions(account: PairAccount, ratio: Fraction) -> tuple[Fraction, Fraction | None, str]:
    """Return the level, the distance, and a word of the contradiction, by the whole range of prices."""
    base, quote, base_debt, quote_debt = map(fraction, account.holdings)
    index, reported_price = fraction(account.index_price), fraction(account.liquidate_price)
    reported_level, place = fraction(account.margin_level), Fraction(1, 10**8)

    def level_at(price: Fraction) -> Fraction:
        debt = base_debt * price + quote_debt
        return (base * price + quote) / debt if debt else Fraction(10**99)

    level = level_at(index)
    worse = min(level, reported_level)
    if worse >= 999:
        # Dust: no price within reach liquidates.
        return worse, None, ""
    apart = abs(reported_level - level) > level / 50
    word = "its margin level" if apart else ""
    if level <= ratio:
        return worse, Fraction(0), word
    slope = base - ratio * base_debt
    price = (ratio * quote_debt - quote) / slope if slope else Fraction(0)
    moves = [abs(price - index)] if price > 0 else []
    if not apart and reported_price:
        moves.append(abs(reported_price - index))
        low, high = sorted(
            (level_at(max(reported_price - place, Fraction(0))), level_at(reported_price + place))
        )
        if high < Fraction("1.04") or low > Fraction("1.3"):
            word = "stands for"
        elif low >= level:
            word = "wrong side"
    elif not apart and price >= place:
        word = "liquidation price is 0"
    return worse, min(moves) / index if moves else None, word


@st.composite
def owing_rows(draw: st.DrawFn) -> Row:
    """Accounts that owe, of dear and cheap coins; the liquidation price is right, nearly so, or wrong."""
    cheap = draw(st.booleans())
    index = Fraction(draw(st.integers(1, 60)), 10**8) if cheap else Fraction(draw(st.integers(1, 5000)), 10)
    amount = st.one_of(st.just(0), st.integers(1, 5000)).map(Fraction)
    base_total, base_debt = (draw(amount) * (10**8 if cheap else 1) for _ in range(2))
    quote_total, quote_debt = draw(amount), draw(amount)
    if draw(st.booleans()):
        # A long that is not far from its liquidation.
        base_total, base_debt = quote_debt * draw(st.integers(100, 140)) / 100 / index, Fraction(0)
        quote_total = Fraction(0)
    built = row(
        base_total=base_total,
        base_debt=base_debt,
        quote_total=quote_total,
        quote_debt=quote_debt,
        index=index,
        ratio=draw(st.sampled_from(["1.03999", "1.04", "1.05", "1.1575", "1.3", "1.30001"])),
    )
    price = draw(st.sampled_from([Fraction(built["liquidatePrice"]), index, index * 51 / 50]))
    steps = draw(st.sampled_from([0, 0, 1, -1, 2, -2, 5, 10**6]))
    reported = max(price + Fraction(steps, 10**8), Fraction(0)) if draw(st.integers(0, 9)) else 0
    return built | {"liquidatePrice": text(reported)}


@campaign(600, 50_000)
@given(owing_rows(), st.sampled_from(["1.05", "1.1575", "1.18"]))
def test_the_figures_are_those_of_plain_fractions(built: Row, ratio: str) -> None:
    """The shortcuts of the judging change no verdict: neither a figure nor what contradicts itself."""
    record = parsed(built)
    assume(isinstance(record, PairAccount) and record.has_debt)
    assert isinstance(record, PairAccount)
    level, distance, word = figures_in_fractions(record, Fraction(ratio))
    decision = judged(record, tier_ratio=ratio)
    said = "; ".join(decision.reasons)
    assert decision.margin_level is not None
    assert abs(fraction(decision.margin_level) - level) <= level / 10**40
    assert (decision.liquidation_distance is None) == (distance is None)
    if decision.liquidation_distance is not None and distance is not None:
        # A difference of two prices that are nearly the same has fewer digits.
        assert abs(fraction(decision.liquidation_distance) - distance) <= (1 + distance) / 10**40
    assert (decision.rule is Rule.CONTRADICTION) == bool(word), said
    assert word in said
