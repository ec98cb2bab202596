"""The user's rules, and `decide`: what an account allows an entry to be.

Everything here is pure. `decide` is the one path of every verdict, whoever asks for it: an entry, a
position increase, a lock, the protection or the status table.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_DOWN, Decimal, localcontext
from enum import StrEnum
from functools import cached_property
from operator import itemgetter
from typing import NamedTuple

from freqtrade_isolated_margin.account.maths import (
    INFINITY,
    ONE,
    PLACE,
    ZERO,
    Holdings,
    Side,
    exact,
    implied_ratio_range,
    largest_borrowed_entry,
    level_at,
    liquidation_room,
    one_step_below,
    price_at,
    round_down,
)
from freqtrade_isolated_margin.account.records import Absent, NoMarket, PairAccount, Row, Unreadable
from freqtrade_isolated_margin.account.tiers import (
    HIGHEST_BELIEVABLE_RATIO,
    LOWEST_BELIEVABLE_RATIO,
    TierRatios,
    published_liquidation_ratio,
)
from freqtrade_isolated_margin.rules.rules import Band, Rules


class Outcome(StrEnum):
    """What becomes of an entry."""

    ALLOW = "allow"
    SHRINK = "shrink"
    BLOCK = "block"


class Rule(StrEnum):
    """What a verdict rests on, in a stable word: the setting's name where there is one."""

    NOT_READ = "not read yet"
    MAX_AGE = "max_age_seconds"
    UNREADABLE = "unreadable"
    WITHOUT_ACCOUNT = "without_account"
    STATUS = "block_statuses"
    TRADE_ENABLED = "tradeEnabled"
    CONTRADICTION = "contradictory account"
    LEVEL = "margin_level"
    DISTANCE = "liquidation_distance"
    FUNDING = "entry_funding"
    NO_DEBT = "no debt"
    OFF = "off"


class Reading(NamedTuple):
    """The newest that is known of one pair's account, and how old that is.

    `row` is None where nothing was ever read. `age_seconds` counts from when it was asked for.
    `tier_ratios` are the liquidation ratios of its tiers, where the exchange has told; `trouble` says why
    the newest attempt to read failed, if it did.
    """

    row: Row | None
    age_seconds: float = 0.0
    tier_ratios: TierRatios | None = None
    trouble: str | None = None


# What limits an entry: the rule, the factor that it leaves, and why, in words or as a figure and its limits.
_Limit = tuple[Rule, Decimal, str | tuple[Decimal, Band]]


class _DecisionFields(NamedTuple):
    pair: str
    side: Side
    outcome: Outcome
    factor: Decimal
    """What the stake is multiplied with: 0 blocks, 1 changes nothing."""
    rule: Rule
    """What weighs most in it."""
    limits: tuple[_Limit, ...]
    """All that limits the entry; `reasons` says what of it tells."""
    max_stake: Decimal | None = None
    """Quote currency; the most that borrowed funding permits, None where entries are not borrowed."""
    margin_level: Decimal | None = None
    """The worse of the reported and the recomputed one; None without debt."""
    liquidation_distance: Decimal | None = None
    """The worse of the two, a fraction of the index price; None where no price liquidates."""


class EntryDecision(_DecisionFields):
    """What one pair's account allows an entry on one side to be, and why."""

    @classmethod
    def because(cls, pair: str, side: Side, factor: Decimal, rule: Rule, why: str) -> EntryDecision:
        """Return a decision that rests on a single thing, which `why` says in words."""
        return cls(pair, side, _outcome(factor), factor, rule, ((rule, factor, why),))

    @cached_property
    def reasons(self) -> tuple[str, ...]:
        """In words, with the numbers and the limits. Worked out when first asked for: most never are."""
        return _reasons(self.outcome, self.limits)

    @property
    def blocks(self) -> bool:
        """Whether no entry is possible."""
        return self.outcome is Outcome.BLOCK

    def __str__(self) -> str:
        share = f" × {plain(self.factor, 4)}" if self.outcome is Outcome.SHRINK else ""
        return f"{self.pair} {self.side}: {self.outcome}{share}: {'; '.join(self.reasons)}"


def _outcome(factor: Decimal) -> Outcome:
    if factor == ONE:
        return Outcome.ALLOW
    return Outcome.SHRINK if factor else Outcome.BLOCK


@exact
def _reasons(outcome: Outcome, limits: tuple[_Limit, ...]) -> tuple[str, ...]:
    """Put into words what tells: everything that shrinks an entry, or else what is as low as the least."""
    telling = sorted((limit for limit in limits if _factor(limit) < ONE), key=_factor)
    if outcome is not Outcome.SHRINK:
        lowest = min(map(_factor, limits))
        telling = [limit for limit in limits if _factor(limit) == lowest]
    words = (why if isinstance(why, str) else _in_words(rule, *why) for rule, _, why in telling)
    return tuple(word for word in words if word)


_factor = itemgetter(1)


def _in_words(rule: Rule, figure: Decimal, band: Band) -> str:
    name, text = _FIGURES[rule]
    shown, low, high = (text(value) for value in (figure, band.block_below, band.full_above))
    if figure <= band.block_below:
        return f"{name} {shown} ≤ {low} (block_below)"
    if figure >= band.full_above:
        return f"{name} {shown} ≥ {high} (full_above)"
    return f"{name} {shown} between {low} (block_below) and {high} (full_above)"


def plain(value: Decimal, places: int) -> str:
    """Write `value` without exponent, cut to `places`, never rounded, and without trailing zeros."""
    with localcontext(rounding=ROUND_DOWN):
        cut = f"{value:.{places}f}"
    return cut.rstrip("0").rstrip(".") if "." in cut else cut


def _percent(fraction: Decimal) -> str:
    return "none" if fraction == INFINITY else f"{plain(fraction * 100, 2)} %"


def _level_text(level: Decimal) -> str:
    return plain(level, 4)


_FIGURES: dict[Rule, tuple[str, Callable[[Decimal], str]]] = {
    Rule.LEVEL: ("margin level", _level_text),
    Rule.DISTANCE: ("liquidation distance", _percent),
}


def decide(
    pair: str,
    side: Side,
    reading: Reading,
    rules: Rules,
    max_age_seconds: float,
    leverage: Decimal = ONE,
) -> EntryDecision:
    """Judge an entry into `pair` by the newest `reading` of its account.

    Blocks wherever the account cannot be judged: never read, older than `max_age_seconds`, unreadable, or
    contradicting itself. `leverage` is that of the entry, for borrowed funding. Never raises on any record
    that `parse_answer` returns.
    """
    row = reading.row
    unfit = _unfit(reading, max_age_seconds)
    if unfit is None and isinstance(row, PairAccount) and not row.is_absent:
        return _judge(row, pair, side, reading.tier_ratios, rules, leverage)
    return _decision(pair, side, (unfit or _without_account(row, rules),))


CLOCK_STEP_SECONDS = 1.0
"""An account may seem to be asked for so much later than now: clocks are set, a little, all the time."""


def is_young(age_seconds: float, max_age_seconds: float) -> bool:
    """Whether an account of this age can be judged; one from a future beyond a clock's step cannot."""
    # Written so that an age that is no number is not young.
    return -CLOCK_STEP_SECONDS < age_seconds <= max_age_seconds


def _unfit(reading: Reading, max_age_seconds: float) -> _Limit | None:
    age = reading.age_seconds
    young = is_young(age, max_age_seconds)
    if young and reading.row is not None:
        return None
    trouble = f" ({reading.trouble})" if reading.trouble else ""
    if young:
        # What was never read has age 0.
        return (Rule.NOT_READ, ZERO, f"the account has not been read yet{trouble}")
    why = f"the account is {age:.0f} s old, the limit (max_age_seconds) is {max_age_seconds:g} s{trouble}"
    return (Rule.MAX_AGE, ZERO, why)


def _without_account(row: Row | None, rules: Rules) -> _Limit:
    if isinstance(row, PairAccount):
        why = "no isolated margin account" if not row.isolated_created else "its account is disabled"
    elif isinstance(row, Absent):
        why = row.why
    elif isinstance(row, NoMarket) and rules.changes("without_account"):
        # There is nothing to wait for: whoever names this very pair knows that nothing guards it.
        why = row.why
    else:
        why = row.why if isinstance(row, Unreadable) else "nothing is known of it"
        return (Rule.UNREADABLE, ZERO, f"the account is unreadable: {why}")
    if rules.entry_funding == "borrowed":
        return (Rule.WITHOUT_ACCOUNT, ZERO, f"{why}, and entry_funding is borrowed")
    factor = ONE if rules.without_account == "allow" else ZERO
    return (Rule.WITHOUT_ACCOUNT, factor, f"{why} (without_account: {rules.without_account})")


def _decision(
    pair: str,
    side: Side,
    limits: tuple[_Limit, ...],
    max_stake: Decimal | None = None,
    level: Decimal = INFINITY,
    distance: Decimal = INFINITY,
) -> EntryDecision:
    # The order of the limits is the order of their weight, so the first of the least ones is the rule.
    rule, factor, _ = min(limits, key=_factor)
    if ZERO < factor < ONE:
        factor = round_down(factor) or ZERO
    return EntryDecision(
        pair,
        side,
        _outcome(factor),
        factor,
        rule,
        limits,
        max_stake,
        None if level == INFINITY else level,
        None if distance == INFINITY else distance,
    )


@exact
def _judge(
    account: PairAccount, pair: str, side: Side, tiers: TierRatios | None, rules: Rules, leverage: Decimal
) -> EntryDecision:
    """Judge an active account."""
    ratio, highest = tiers or (published_liquidation_ratio(account.margin_ratio),) * 2
    if account.has_debt:
        level, distance, contradiction = _assess(account, ratio, rules.level_tolerance)
        limits = _figure_limits(level, distance, rules)
    else:
        level, distance, contradiction = INFINITY, INFINITY, None if account.index_price else _NO_PRICE
        limits = _NO_DEBT
    limits = _standing(account, rules, contradiction) + limits
    max_stake = None
    if rules.entry_funding == "borrowed":
        max_stake = ZERO if contradiction else _max_stake(account, side, level, highest, rules, leverage)
        limits += (_funding(max_stake),)
    return _decision(pair, side, limits, max_stake, level, distance)


_NO_PRICE = "its index price is 0"
_NO_DEBT: tuple[_Limit, ...] = ((Rule.NO_DEBT, ONE, "no debt"),)


def _funding(max_stake: Decimal) -> _Limit:
    if max_stake == 0:
        why = "no borrowed entry keeps the account above margin_level and liquidation_distance block_below"
        return (Rule.FUNDING, ZERO, why)
    return (Rule.FUNDING, ONE, f"a borrowed stake up to {plain(max_stake, 8)} keeps the limits")


def _standing(account: PairAccount, rules: Rules, contradiction: str | None) -> tuple[_Limit, ...]:
    """Return the limits that count with and without debt: all that speaks against the account as a whole."""
    limits: tuple[_Limit, ...] = ()
    status = account.margin_level_status
    if not account.status_is_known:
        why = f"its status {status[:40]!r} is not one that Binance documents"
        limits += ((Rule.STATUS, ZERO, why),)
    elif status in rules.block_statuses:
        limits += ((Rule.STATUS, ZERO, f"its status is {status} (block_statuses)"),)
    if not account.trade_enabled:
        why = "trading is disabled in its account (tradeEnabled false)"
        limits += ((Rule.TRADE_ENABLED, ZERO, why),)
    if contradiction:
        limits += ((Rule.CONTRADICTION, ZERO, f"the account contradicts itself: {contradiction}"),)
    return limits


def _figure_limits(level: Decimal, distance: Decimal, rules: Rules) -> tuple[_Limit, ...]:
    levels, distances = rules.margin_level, rules.liquidation_distance
    return (
        (Rule.LEVEL, levels.factor(level), (level, levels)),
        (Rule.DISTANCE, distances.factor(distance), (distance, distances)),
    )


def _assess(account: PairAccount, ratio: Decimal, tolerance: Decimal) -> tuple[Decimal, Decimal, str | None]:
    """Return the margin level and the liquidation distance of an account that is liquidated at `ratio`.

    Each is the worse of what was reported and what was recomputed, and the distance of dust is infinite.
    The third is what contradicts itself.
    """
    holdings, index = account.holdings, account.index_price
    reported_level, reported_price = account.margin_level, account.liquidate_price
    if not index:
        return ZERO, ZERO, _NO_PRICE
    level = level_at(holdings, index)
    if account.owes_dust:
        return min(level, reported_level), INFINITY, None
    room = liquidation_room(holdings, ratio, index, level)
    contradiction = _apart(reported_level, level, tolerance)
    if contradiction is None and room:
        if reported_price:
            room = min(room, abs(reported_price - index))
            contradiction = _disbelief(holdings, reported_price, level)
        else:
            contradiction = _missing(price_at(holdings, ratio))
    return min(level, reported_level), room / index if room else ZERO, contradiction


def _apart(reported: Decimal, recomputed: Decimal, tolerance: Decimal) -> str | None:
    # The level and the index price of one answer need not be of one moment: 0.2 % apart is on record.
    if abs(reported - recomputed) <= tolerance * recomputed:
        return None
    found = f"its margin level {plain(reported, 4)} is {plain(recomputed, 4)} at its index price"
    return f"{found}, more than {_percent(tolerance)} apart (level_tolerance)"


def _missing(price: Decimal | None) -> str | None:
    """Say why 0 cannot be the liquidation price of an account that owes and is liquidated at `price`."""
    # Recorded only without debt; with debt it can only mean that no price liquidates.
    return "it owes, but its liquidation price is 0" if price and price >= PLACE else None


def _disbelief(holdings: Holdings, reported: Decimal, level: Decimal) -> str | None:
    """Say why a reported liquidation price cannot be right, given the level at the index price, or None."""
    implied = level_at(holdings, reported)
    if LOWEST_BELIEVABLE_RATIO <= implied <= HIGHEST_BELIEVABLE_RATIO and implied < level:
        return None
    # Nor as it is printed. But it is rounded, and one of the prices that it may stand for is enough.
    low, high = implied_ratio_range(holdings, reported)
    if high < LOWEST_BELIEVABLE_RATIO or low > HIGHEST_BELIEVABLE_RATIO:
        shown = "no ratio at all" if low == INFINITY else plain(low, 4)
        return (
            f"its liquidation price {reported:f} stands for a liquidation ratio of {shown}, not 1.04 to 1.30"
        )
    if low >= level:
        return f"its liquidation price {reported:f} lies on the wrong side of its index price"
    return None


# Keeps the eight places of a sum within the precision of the context, whatever an account says.
_MORE_THAN_ANYTHING = Decimal("1e30")


def _max_stake(
    account: PairAccount, side: Side, level: Decimal, highest_ratio: Decimal, rules: Rules, leverage: Decimal
) -> Decimal:
    """Return the largest stake, cut to eight places, up to which a borrowed entry stays above both limits.

    `highest_ratio` is the highest liquidation ratio of the tiers: a larger loan may come to it.
    """
    holdings, price, reported = account.holdings, account.index_price, account.liquidation_price
    if reported:
        _, implied = implied_ratio_range(holdings, reported)
        highest_ratio = max(highest_ratio, min(implied, HIGHEST_BELIEVABLE_RATIO))
    min_level, min_distance = rules.margin_level.block_below, rules.liquidation_distance.block_below
    value = largest_borrowed_entry(holdings, side, price, highest_ratio, min_level, min_distance)
    if account.can_be_liquidated:
        value = min(value, _largest_at_level(holdings, price, level, min_level))
    stake = round_down(min(max(value, ZERO), _MORE_THAN_ANYTHING) / leverage)
    # The value itself may meet a limit, and both limits block where they are met; all below it are above.
    return stake if stake * leverage < value else one_step_below(stake)


def _largest_at_level(holdings: Holdings, price: Decimal, level: Decimal, min_level: Decimal) -> Decimal:
    """Return the largest borrowed value that keeps `min_level`, counted from the level that is judged.

    ``(level × D + N) / (D + N) >= m`` solved for N: the reported level may be below the recomputed one.
    Source: as `largest_borrowed_entry`.
    """
    debt = holdings.base_debt * price + holdings.quote_debt
    return debt * (level - min_level) / (min_level - 1)
