"""The user's rules, and `decide`: what an account allows an entry to be.

Everything here is pure. `decide` is the one path of every verdict, whoever asks for it: an entry, a
position increase, a lock, the protection or the status table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Decimal, localcontext
from enum import StrEnum
from functools import lru_cache
from operator import attrgetter
from typing import Annotated, Literal, NamedTuple, TypedDict

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from .account import Absent, MarginLevelStatus, PairAccount, Row, Unreadable
from .margin import (
    HIGHEST_BELIEVABLE_RATIO,
    INFINITY,
    LOWEST_BELIEVABLE_RATIO,
    ONE,
    PLACE,
    ZERO,
    Holdings,
    Side,
    TierRatios,
    distance,
    exact,
    implied_ratio_range,
    largest_borrowed_entry,
    liquidation_distance,
    liquidation_price,
    margin_level,
    one_step_below,
    published_liquidation_ratio,
    round_down,
)


def _number(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic turns only ValueErrors into reports
    number = Decimal(str(value))
    if not number.is_finite():
        raise ValueError("must be a finite number")
    return number


Number = Annotated[Decimal, BeforeValidator(_number)]


class StrictSettings(BaseModel):
    """A part of the configuration section: immutable, and nothing in it may be misspelt."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Band(StrictSettings):
    """Two limits of one figure: entries are blocked at or below one, and full at or above the other."""

    block_below: Number
    full_above: Number

    @model_validator(mode="after")
    def _in_order(self) -> Band:
        if self.block_below > self.full_above:
            raise ValueError(
                f"block_below ({self.block_below}) must not exceed full_above ({self.full_above})"
            )
        return self

    def factor(self, figure: Decimal) -> Decimal:
        """Return the share of the stake that `figure` leaves: 0, 1, or on the straight line between."""
        if figure <= self.block_below:
            return ZERO
        if figure >= self.full_above:
            return ONE
        return (figure - self.block_below) / (self.full_above - self.block_below)


class LevelBand(Band):
    """Limits of the margin level, a plain number above 1."""

    block_below: Number = Decimal("1.25")
    full_above: Number = Decimal("2.0")

    @model_validator(mode="after")
    def _above_one(self) -> LevelBand:
        if self.block_below <= 1:
            raise ValueError("block_below must be above 1: at a margin level of 1 nothing is left to lose")
        return self


class DistanceBand(Band):
    """Limits of the liquidation distance, a fraction of the index price."""

    block_below: Number = Decimal("0.05")
    full_above: Number = Decimal("0.20")

    @model_validator(mode="after")
    def _fractions(self) -> DistanceBand:
        if self.block_below < 0 or self.full_above > 1:
            raise ValueError("both must be fractions of the index price, from 0 to 1 (0.05 is 5 %)")
        return self


def _statuses(value: object) -> object:
    if not isinstance(value, list | tuple):
        raise ValueError("must be a list of statuses")  # noqa: TRY004 - as above
    known = list(MarginLevelStatus)
    for status in value:
        if status not in known:
            raise ValueError(f"has no status {status!r}; allowed: {', '.join(known)}")
    return tuple(MarginLevelStatus(status) for status in value)


class Rules(StrictSettings):
    """What makes an entry full, smaller or impossible. All of it can be changed for one pair."""

    margin_level: LevelBand = LevelBand()
    liquidation_distance: DistanceBand = DistanceBand()
    block_statuses: Annotated[tuple[MarginLevelStatus, ...], BeforeValidator(_statuses)] = (
        MarginLevelStatus.MARGIN_CALL,
        MarginLevelStatus.PRE_LIQUIDATION,
        MarginLevelStatus.FORCE_LIQUIDATION,
    )
    entry_funding: Literal["spot", "borrowed"] = "spot"
    without_account: Literal["allow", "block"] = "allow"
    level_tolerance: Annotated[Number, Field(ge=0, le=Decimal("0.5"))] = Decimal("0.02")
    """How far the reported margin level may be from the one at the index price, as a fraction of it."""


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


@dataclass(frozen=True, slots=True)
class Reading:
    """The newest that is known of one pair's account, and how old that is.

    `row` is None where nothing was ever read. `age_seconds` counts from when it was asked for.
    `tier_ratios` are the liquidation ratios of its tiers, where the exchange has told; `trouble` says why
    the newest attempt to read failed, if it did.
    """

    row: Row | None
    age_seconds: float = 0.0
    read_at: datetime | None = None
    tier_ratios: TierRatios | None = None
    trouble: str | None = None


@dataclass(frozen=True)
class EntryDecision:
    """What one pair's account allows an entry on one side to be, and why.

    `decide` leaves the reasons to be put into words when they are first read: most never are.
    """

    pair: str
    side: Side
    outcome: Outcome
    factor: Decimal
    """What the stake is multiplied with: 0 blocks, 1 changes nothing."""
    reasons: tuple[str, ...]
    """In words, with the numbers and the limits."""
    rule: Rule
    """What weighs most in it."""
    max_stake: Decimal | None = None
    """Quote currency; the most that borrowed funding permits, None where entries are not borrowed."""
    margin_level: Decimal | None = None
    """The worse of the reported and the recomputed one; None without debt."""
    liquidation_distance: Decimal | None = None
    """The worse of the two, a fraction of the index price; None where no price liquidates."""
    holds_until: datetime | None = None
    """When the account that it rests on becomes too old."""

    @property
    def blocks(self) -> bool:
        """Whether no entry is possible."""
        return self.outcome is Outcome.BLOCK

    def __str__(self) -> str:
        share = f" × {plain(self.factor, 4)}" if self.outcome is Outcome.SHRINK else ""
        return f"{self.pair} {self.side}: {self.outcome}{share}: {'; '.join(self.reasons)}"


class _Limit(NamedTuple):
    """One of the things that limit an entry."""

    rule: Rule
    factor: Decimal
    why: str


class _FigureLimit(NamedTuple):
    """A figure between two limits."""

    rule: Rule
    factor: Decimal
    figure: Decimal
    band: Band

    @property
    def why(self) -> str:
        """The figure and its limits, in words."""
        name, text = _FIGURES[self.rule]
        shown, low, high = (
            text(value) for value in (self.figure, self.band.block_below, self.band.full_above)
        )
        if self.figure <= self.band.block_below:
            return f"{name} {shown} ≤ {low} (block_below)"
        if self.figure >= self.band.full_above:
            return f"{name} {shown} ≥ {high} (full_above)"
        return f"{name} {shown} between {low} (block_below) and {high} (full_above)"


_AnyLimit = _Limit | _FigureLimit


class _InWords:
    """`EntryDecision.reasons` of a decision that has its limits instead."""

    def __get__(self, decision: EntryDecision, _owner: type) -> tuple[str, ...]:
        known = vars(decision)
        known["reasons"] = reasons = _reasons(known["outcome"], known["limits"])
        return reasons


EntryDecision.reasons = _InWords()  # type: ignore[assignment]


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
        judgement = _judge(row, side, reading.tier_ratios, rules, leverage)
    else:
        judgement = _judgement([unfit or _without_account(row, rules)])
    holds_until = reading.read_at + _duration(max_age_seconds) if reading.read_at else None
    decision = object.__new__(EntryDecision)
    vars(decision).update(judgement, pair=pair, side=side, holds_until=holds_until)
    return decision


@lru_cache(maxsize=16)
def _duration(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


def _unfit(reading: Reading, max_age_seconds: float) -> _Limit | None:
    # Written so that an age that is no number blocks. Asked before the row: what was never read has age 0.
    if 0 <= reading.age_seconds <= max_age_seconds and reading.row is not None:
        return None
    trouble = f" ({reading.trouble})" if reading.trouble else ""
    if 0 <= reading.age_seconds <= max_age_seconds:
        return _Limit(Rule.NOT_READ, ZERO, f"the account has not been read yet{trouble}")
    age = f"{reading.age_seconds:.0f} s"
    why = f"the account is {age} old, the limit (max_age_seconds) is {max_age_seconds:g} s{trouble}"
    return _Limit(Rule.MAX_AGE, ZERO, why)


def _without_account(row: Row | None, rules: Rules) -> _Limit:
    if isinstance(row, PairAccount):
        why = "no isolated margin account" if not row.isolated_created else "its account is disabled"
    elif isinstance(row, Absent):
        why = row.why
    else:
        why = row.why if isinstance(row, Unreadable) else "nothing is known of it"
        return _Limit(Rule.UNREADABLE, ZERO, f"the account is unreadable: {why}")
    if rules.entry_funding == "borrowed":
        return _Limit(Rule.WITHOUT_ACCOUNT, ZERO, f"{why}, and entry_funding is borrowed")
    factor = ONE if rules.without_account == "allow" else ZERO
    return _Limit(Rule.WITHOUT_ACCOUNT, factor, f"{why} (without_account: {rules.without_account})")


class _Judgement(TypedDict):
    """What is in a decision, but for whose it is and how long it holds; its reasons are still limits."""

    outcome: Outcome
    factor: Decimal
    rule: Rule
    limits: list[_AnyLimit]
    max_stake: Decimal | None
    margin_level: Decimal | None
    liquidation_distance: Decimal | None


def _judgement(
    limits: list[_AnyLimit], max_stake: Decimal | None = None, risk: _Risk | None = None
) -> _Judgement:
    # The order of the limits is the order of their weight, so the first of the least ones is the rule.
    least = min(limits, key=_factor)
    factor = ONE if least.factor >= 1 else round_down(least.factor) or ZERO
    return {
        "outcome": Outcome.BLOCK if factor == 0 else Outcome.ALLOW if factor == 1 else Outcome.SHRINK,
        "factor": factor,
        "rule": least.rule,
        "limits": limits,
        "max_stake": max_stake,
        "margin_level": risk.level if risk else None,
        "liquidation_distance": risk.distance if risk and risk.distance.is_finite() else None,
    }


_factor = attrgetter("factor")


@exact
def _reasons(outcome: Outcome, limits: list[_AnyLimit]) -> tuple[str, ...]:
    """Put into words what tells: everything that shrinks an entry, or else what is as low as the least."""
    telling = sorted((limit for limit in limits if limit.factor < 1), key=_factor)
    if outcome is not Outcome.SHRINK:
        lowest = min(limits, key=_factor).factor
        telling = [limit for limit in limits if limit.factor == lowest]
    return tuple(limit.why for limit in telling if limit.why)


def _judge(
    account: PairAccount, side: Side, tiers: TierRatios | None, rules: Rules, leverage: Decimal
) -> _Judgement:
    """Judge an active account, or remember how it was judged: the next reads mostly find it unchanged."""
    asked = (tiers, rules, leverage)
    known: tuple[object, _Judgement] = account.memory.get(side, (None, None))
    if known[0] == asked:
        return known[1]
    judgement = _judge_anew(account, side, tiers, rules, leverage)
    account.memory[side] = (asked, judgement)
    return judgement


@exact
def _judge_anew(
    account: PairAccount, side: Side, tiers: TierRatios | None, rules: Rules, leverage: Decimal
) -> _Judgement:
    risk = _assess(account, tiers, rules.level_tolerance)
    limits = _standing(account, rules) + _risk_limits(risk, rules)
    max_stake = None
    if rules.entry_funding == "borrowed":
        max_stake = _max_stake(account.holdings, side, account.index_price, risk, rules, leverage)
        limits.append(_funding(max_stake))
    return _judgement(limits, max_stake, risk if risk.has_debt else None)


def _funding(max_stake: Decimal) -> _Limit:
    if max_stake == 0:
        why = "no borrowed entry keeps the account above margin_level and liquidation_distance block_below"
        return _Limit(Rule.FUNDING, ZERO, why)
    return _Limit(Rule.FUNDING, ONE, f"a borrowed stake up to {plain(max_stake, 8)} keeps the limits")


# What Binance prints instead of a margin level without debt (recorded), and maybe above it.
_NO_LEVEL = Decimal(999)


def _standing(account: PairAccount, rules: Rules) -> list[_AnyLimit]:
    """Return the limits that count with and without debt: what Binance says of the account in words."""
    limits: list[_AnyLimit] = []
    status = account.margin_level_status
    if not account.status_is_known:
        why = f"its status {status[:40]!r} is not one that Binance documents"
        limits.append(_Limit(Rule.STATUS, ZERO, why))
    elif status in rules.block_statuses:
        limits.append(_Limit(Rule.STATUS, ZERO, f"its status is {status} (block_statuses)"))
    if not account.trade_enabled:
        why = "trading is disabled in its account (tradeEnabled false)"
        limits.append(_Limit(Rule.TRADE_ENABLED, ZERO, why))
    return limits


class _Risk(NamedTuple):
    """The figures that are judged: the worse of what was reported and what was recomputed."""

    level: Decimal
    distance: Decimal
    ratio: Decimal
    """The highest liquidation ratio that an entry may bring: of the tiers, and of the reported price."""
    contradiction: str | None = None
    has_debt: bool = True


def _assess(account: PairAccount, tiers: TierRatios | None, tolerance: Decimal) -> _Risk:
    holdings, index = account.holdings, account.index_price
    has_debt = holdings.has_debt
    ratio, highest = tiers or (published_liquidation_ratio(account.margin_ratio),) * 2
    if index == 0:
        return _Risk(ZERO, ZERO, highest, "its index price is 0", has_debt)
    if not has_debt:
        return _Risk(INFINITY, INFINITY, highest, has_debt=False)
    recomputed = margin_level(holdings, index)
    room = liquidation_distance(holdings, ratio, index, recomputed)
    level = min(recomputed, account.margin_level)
    apart = _apart(account.margin_level, recomputed, tolerance)
    if apart or not room:
        return _Risk(level, room, highest, apart)
    reported = account.liquidate_price
    if reported == 0:
        # Recorded only without debt; with debt it can only mean that no price liquidates.
        price = liquidation_price(holdings, ratio)
        missing = "it owes, but its liquidation price is 0" if price and price >= PLACE else None
        return _Risk(level, room, highest, missing)
    low, high = implied_ratio_range(holdings, reported)
    return _Risk(
        level,
        min(room, distance(reported, index)),
        max(highest, min(high, HIGHEST_BELIEVABLE_RATIO)),
        _disbelief(reported, low, high, recomputed),
    )


def _apart(reported: Decimal, recomputed: Decimal, tolerance: Decimal) -> str | None:
    # The level and the index price of one answer need not be of one moment: 0.2 % apart is on record.
    if reported == _NO_LEVEL and recomputed >= _NO_LEVEL:
        return None
    if abs(reported - recomputed) <= tolerance * recomputed:
        return None
    found = f"its margin level {plain(reported, 4)} is {plain(recomputed, 4)} at its index price"
    return f"{found}, more than {_percent(tolerance)} apart (level_tolerance)"


def _disbelief(reported: Decimal, low: Decimal, high: Decimal, level: Decimal) -> str | None:
    """Say why a liquidation price that means a ratio from `low` to `high` cannot be right, or None."""
    if high < LOWEST_BELIEVABLE_RATIO or low > HIGHEST_BELIEVABLE_RATIO:
        shown = "no ratio at all" if low == INFINITY else plain(low, 4)
        return (
            f"its liquidation price {reported:f} stands for a liquidation ratio of {shown}, not 1.04 to 1.30"
        )
    if low >= level:
        return f"its liquidation price {reported:f} lies on the wrong side of its index price"
    return None


def _risk_limits(risk: _Risk, rules: Rules) -> list[_AnyLimit]:
    if not risk.has_debt:
        limits: list[_AnyLimit] = [_Limit(Rule.NO_DEBT, ONE, "no debt")]
    else:
        level, room = rules.margin_level, rules.liquidation_distance
        limits = [
            _FigureLimit(Rule.LEVEL, level.factor(risk.level), risk.level, level),
            _FigureLimit(Rule.DISTANCE, room.factor(risk.distance), risk.distance, room),
        ]
    if risk.contradiction:
        why = f"the account contradicts itself: {risk.contradiction}"
        limits.insert(0, _Limit(Rule.CONTRADICTION, ZERO, why))
    return limits


# Keeps the eight places of a sum within the precision of the context, whatever an account says.
_MORE_THAN_ANYTHING = Decimal("1e30")


def _max_stake(
    holdings: Holdings, side: Side, price: Decimal, risk: _Risk, rules: Rules, leverage: Decimal
) -> Decimal:
    """Return the largest stake, cut to eight places, up to which a borrowed entry stays above both limits."""
    if risk.contradiction or price == 0:
        return ZERO
    min_level, min_distance = rules.margin_level.block_below, rules.liquidation_distance.block_below
    value = largest_borrowed_entry(holdings, side, price, risk.ratio, min_level, min_distance)
    if holdings.has_debt:
        value = min(value, _largest_at_level(holdings, price, risk.level, min_level))
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
