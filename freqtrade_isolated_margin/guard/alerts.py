"""Alerts: which changes of the accounts are worth a message, and in which words.

A state machine without clock, thread or freqtrade. The bot's loop hands in the newest verdicts and sends
the lines that come back. Worse news goes out at once; better news when it is well clear of its limit or
has held for a while, so that nothing flickers around a threshold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from math import inf
from typing import Any, NamedTuple

from freqtrade_isolated_margin.account.maths import ONE, ZERO, exact
from freqtrade_isolated_margin.account.records import MarginLevelStatus, PairAccount
from freqtrade_isolated_margin.rules.decide import EntryDecision, Outcome, Rule, plain
from freqtrade_isolated_margin.rules.rules import Band
from freqtrade_isolated_margin.rules.settings import Settings

# Both from the safest on.
_OUTCOMES = (Outcome.ALLOW, Outcome.SHRINK, Outcome.BLOCK)
_STATUSES = tuple(MarginLevelStatus)
_NORMAL = _STATUSES.index(MarginLevelStatus.NORMAL)

# Verdicts about the accounts as a whole, not about one of them.
_UNREAD = frozenset({Rule.MAX_AGE, Rule.NOT_READ})
# Their verdicts come without figures that could be believed.
_UNJUDGED = _UNREAD | {Rule.UNREADABLE, Rule.CONTRADICTION, Rule.OFF}
# What no figure tells how near it is. Any other cause is gone when the figures are clear of their limits.
_UNMEASURED = _UNJUDGED | {Rule.TRADE_ENABLED, Rule.FUNDING}

# Seconds after which a pair that is not asked about any more is forgotten.
_FORGET_SECONDS = 3600.0
# Characters of one line without its markup, of a reason for an outage, and of a status in it.
_LINE = 900
_TROUBLE = 200
_STATUS = 40

LONGEST = 4000
"""Characters of one message. Telegram, and so freqtrade, takes 4096."""
LONGEST_IN_DISCORD = 1000
"""The same where Discord gets it too: a field of its takes 1024."""


@dataclass(slots=True)
class _Gauge:
    """How bad something was when it was last told, and since when it has been better."""

    told: int
    _since: dict[int, float] = field(default_factory=dict)

    def see(self, rank: int, now: float) -> None:
        """Note how bad it is. Each rank below the one told has a time of its own."""
        self._since = {better: self._since.get(better, now) for better in range(rank, self.told)}

    def held(self, rank: int, now: float) -> float:
        """Return for how many seconds no look has found it worse than `rank`."""
        return now - self._since.get(rank, now)

    def interrupt(self) -> None:
        """Begin to count anew."""
        self._since = {}

    @property
    def is_still(self) -> bool:
        """Whether it is as bad as told, so that no time is counted."""
        return not self._since


@dataclass(slots=True)
class _Told:
    """What was last told of one pair, or seen of it at first."""

    verdict: _Gauge
    status: _Gauge
    status_name: str | None
    room: Decimal | None
    """The liquidation distance from which a fall is counted; None where no price liquidates."""
    seen_at: float
    cause: Rule
    """Why the verdict was last as bad as told."""
    status_level: Decimal | None
    """The highest margin level at which the status was as bad as told: its limit is in no API."""
    alarming: bool = False
    """Whether the user was told of something that is to come back to normal."""
    grown_since: float | None = None
    settled: tuple[EntryDecision, PairAccount | None] | None = None
    """What was seen where all is as told: the same verdict on the same account is no news for ever."""


class _Seen(NamedTuple):
    """What one look finds of a pair."""

    decision: EntryDecision
    account: PairAccount | None
    verdict: int
    status: int
    status_name: str | None
    level: Decimal | None
    room: Decimal | None

    @property
    def is_judged(self) -> bool:
        """Whether its figures can be believed."""
        return self.decision.rule not in _UNJUDGED

    @property
    def is_normal(self) -> bool:
        return self.verdict == 0 and self.status <= _NORMAL


class Alerts:
    """Remembers what was told, and says what is news. `look` once in every loop of the bot."""

    def __init__(self, settings: Settings) -> None:
        self._enabled = settings.alerts.enabled
        self._room_left = settings.alerts.room_left
        self._calm_above = settings.alerts.calm_above
        self._settle = float(settings.alerts.settle_seconds)
        self._max_age = float(settings.max_age_seconds)
        self._rules_for = settings.rules_for
        self._pairs: dict[str, _Told] = {}
        self._outage = _Outage(self._settle, self._max_age)
        self._aged: dict[str, float] = {}

    @exact
    def look(
        self,
        seen: Iterable[tuple[EntryDecision, PairAccount | None]],
        now: float,
        trouble: str | None = None,
    ) -> list[str]:
        """Return the lines to send: what has changed since the last one of each pair.

        `seen` are the newest verdicts, one a pair, with the account that each rests on; without those that
        only wait for the first read. `now` is in seconds of a monotonic clock. `trouble` says why the
        newest attempt to read failed, if it did.
        """
        verdicts = list(seen)
        if not self._enabled or not verdicts:
            return []
        self._forget({decision.pair for decision, _ in verdicts}, now)
        if all(decision.rule in _UNREAD for decision, _ in verdicts):
            for told in self._pairs.values():
                told.verdict.interrupt()
                told.status.interrupt()
                told.grown_since = None
            return self._outage.begin(now, trouble)
        lines = self._outage.end(now)
        aged = [decision.pair for decision, _ in verdicts if decision.rule is Rule.MAX_AGE]
        self._aged = {pair: self._aged.get(pair, now) for pair in aged}
        for decision, account in verdicts:
            # Maybe all of them are about to become too old: one line will say it then.
            if now - self._aged.get(decision.pair, -inf) >= self._max_age:
                lines += self._look_at(decision, account, now)
        return lines

    def _forget(self, asked: set[str], now: float) -> None:
        for pair in asked & self._pairs.keys():
            self._pairs[pair].seen_at = now
        for pair in [pair for pair, told in self._pairs.items() if now - told.seen_at > _FORGET_SECONDS]:
            del self._pairs[pair]

    def _look_at(self, decision: EntryDecision, account: PairAccount | None, now: float) -> list[str]:
        told = self._pairs.get(decision.pair)
        if told and told.settled and told.settled[0] is decision and told.settled[1] is account:
            return []
        seen = _seen(decision, account, told)
        if told is None:
            self._pairs[decision.pair] = told = _first_told(seen, now)
            told.alarming = decision.outcome is not Outcome.ALLOW
            return [_line(seen, [decision.outcome])] if told.alarming else []
        self._take_in(told, seen, now)
        fallen = self._has_fallen(told, seen)
        if not fallen and not self._has_changed(told, seen, now):
            still = told.verdict.is_still and told.status.is_still and told.grown_since is None
            told.settled = (decision, account) if still else None
            return []
        line = _line(seen, _changes(told, seen, fallen=fallen))
        self._pairs[decision.pair] = _first_told(seen, now)
        self._pairs[decision.pair].alarming = not seen.is_normal
        if not seen.is_judged:
            self._pairs[decision.pair].room = told.room
        return [line]

    def _take_in(self, told: _Told, seen: _Seen, now: float) -> None:
        told.verdict.see(seen.verdict, now)
        told.status.see(seen.status, now)
        if seen.verdict >= told.verdict.told:
            told.cause = seen.decision.rule
        if seen.status >= told.status.told and seen.level is not None:
            told.status_level = max(told.status_level or seen.level, seen.level)
        if seen.is_judged:
            self._follow_up(told, seen.room, now)

    def _follow_up(self, told: _Told, room: Decimal | None, now: float) -> None:
        """Count from the greater room, once it has grown well beyond the one told."""
        if room is None or told.room is None:
            told.room, told.grown_since = room, None
        elif room <= told.room:
            told.grown_since = None
        else:
            told.grown_since = now if told.grown_since is None else told.grown_since
            if room >= told.room * self._calm_above or now - told.grown_since >= self._settle:
                told.room, told.grown_since = room, None

    def _has_fallen(self, told: _Told, seen: _Seen) -> bool:
        if not seen.is_judged or seen.room is None or not told.room:
            return False
        return seen.room <= told.room * self._room_left

    def _has_changed(self, told: _Told, seen: _Seen, now: float) -> bool:
        if seen.verdict > told.verdict.told or seen.status > told.status.told:
            return True
        if seen.verdict < told.verdict.told:
            held = told.verdict.held(seen.verdict, now) >= self._settle
            return held or self._is_clear(told, seen)
        if seen.status < told.status.told:
            held = told.status.held(seen.status, now) >= self._settle
            return held or self._is_clear_of_status(told, seen)
        return False

    def _is_clear(self, told: _Told, seen: _Seen) -> bool:
        """Whether a better verdict is so far from its limits that it will not be taken back soon."""
        if told.cause in _UNMEASURED:
            return False
        if told.cause is Rule.STATUS and not self._is_clear_of_status(told, seen):
            return False
        rules = self._rules_for(seen.decision.pair)
        level = _limit(rules.margin_level, seen.verdict)
        room = _limit(rules.liquidation_distance, seen.verdict)
        return self._is_beyond(seen.level, level, ONE) and self._is_beyond(seen.room, room, ZERO)

    def _is_clear_of_status(self, told: _Told, seen: _Seen) -> bool:
        if seen.level is None:
            # Without debt there is nothing to liquidate.
            return seen.is_judged
        return told.status_level is not None and self._is_beyond(seen.level, told.status_level, ONE)

    def _is_beyond(self, figure: Decimal | None, limit: Decimal, end: Decimal) -> bool:
        """Whether `figure` is well farther than `limit` from `end`, where all is lost; None is."""
        return figure is None or figure - end >= self._calm_above * (limit - end)


class _Outage:
    """Tells once that no account can be read, and once that they can again."""

    def __init__(self, settle: float, max_age: float) -> None:
        self._settle = settle
        self._max_age = max_age
        self._told_at: float | None = None
        self._readable_since: float | None = None
        self._ended_at: float | None = None
        self._comes_and_goes = False

    def begin(self, now: float, trouble: str | None) -> list[str]:
        """Return the line that the accounts cannot be read, if it was not told."""
        self._readable_since = None
        if self._told_at is not None:
            return []
        self._told_at = now
        self._comes_and_goes = self._ended_at is not None and now - self._ended_at < self._settle
        why = f": {_tidy(trouble)[:_TROUBLE].rstrip('. ')}" if trouble and _tidy(trouble) else ""
        return [
            _legible(
                f"Isolated margin accounts have not been readable for more than {self._max_age:g} s{why}. "
                "No entries into any pair until they are."
            )
        ]

    def end(self, now: float) -> list[str]:
        """Return the line that the accounts are read again, if they were told not to be.

        Where the last outage ended only just before this one, not before they have been for a while.
        """
        if self._told_at is None:
            return []
        self._readable_since = now if self._readable_since is None else self._readable_since
        if self._comes_and_goes and now - self._readable_since < self._settle:
            return []
        # The newest account was as old as allowed when it was told.
        lasted = self._readable_since - self._told_at + self._max_age
        self._told_at, self._ended_at = None, now
        return [f"Isolated margin accounts are readable again, after {_duration(lasted)}."]


def as_messages(lines: Iterable[str], longest: int = LONGEST) -> list[str]:
    """Join lines into as few messages as there can be of at most `longest` characters."""
    messages: list[str] = []
    for line in lines:
        if messages and len(messages[-1]) + 1 + len(line) <= longest:
            messages[-1] += f"\n{line}"
        else:
            messages.append(line)
    return messages


def longest_message(config: Mapping[str, Any]) -> int:
    """Return how long a message of a bot with this configuration may be."""
    discord = config.get("discord") or {}
    sent_there = discord.get("enabled") and discord.get("strategy_msg")
    return LONGEST_IN_DISCORD if sent_there else LONGEST


# ----- what is seen


def _seen(decision: EntryDecision, account: PairAccount | None, told: _Told | None) -> _Seen:
    if account is not None:
        name: str | None = account.margin_level_status[:_STATUS]
        status = _STATUSES.index(name) if name in _STATUSES else len(_STATUSES)
    elif told is not None and decision.rule is not Rule.WITHOUT_ACCOUNT:
        # It is not known: no news.
        name, status = told.status_name, told.status.told
    else:
        name, status = None, 0
    return _Seen(
        decision=decision,
        account=account,
        verdict=_OUTCOMES.index(decision.outcome),
        status=status,
        status_name=name,
        level=_finite(decision.margin_level),
        room=_finite(decision.liquidation_distance),
    )


def _finite(figure: Decimal | None) -> Decimal | None:
    return figure if figure is not None and figure.is_finite() else None


def _first_told(seen: _Seen, now: float) -> _Told:
    return _Told(
        verdict=_Gauge(seen.verdict),
        status=_Gauge(seen.status),
        status_name=seen.status_name,
        room=seen.room if seen.is_judged else None,
        seen_at=now,
        cause=seen.decision.rule,
        status_level=seen.level,
    )


def _limit(band: Band, verdict: int) -> Decimal:
    """Return the limit above which a figure gives this verdict or a better one."""
    return band.full_above if _OUTCOMES[verdict] is Outcome.ALLOW else band.block_below


# ----- in words

_MEANING: dict[Outcome, Callable[[EntryDecision], str]] = {
    Outcome.ALLOW: lambda _: "entries are allowed",
    Outcome.SHRINK: lambda decision: f"entries with {_percent(decision.factor)} of their stake",
    Outcome.BLOCK: lambda _: "no entries",
}


def _changes(told: _Told, seen: _Seen, *, fallen: bool) -> list[str]:
    changes = []
    if told.alarming and seen.is_normal:
        changes.append("back to normal")
    if seen.verdict != told.verdict.told:
        changes.append(f"{seen.decision.outcome}, was {_OUTCOMES[told.verdict.told]}")
    if seen.status != told.status.told:
        changes.append(f"status {seen.status_name or 'none'}, was {told.status_name or 'none'}")
    if fallen and seen.room is not None and told.room is not None:
        changes.append(f"distance to liquidation {_percent(seen.room)}, was {_percent(told.room)}")
    return changes


def _line(seen: _Seen, changes: list[str]) -> str:
    decision = seen.decision
    meaning = _MEANING[decision.outcome](decision)
    why = f": {'; '.join(decision.reasons)}" if decision.reasons else ""
    sentences = [f"{decision.pair}: {'; '.join(changes)}", f"{meaning[:1].upper()}{meaning[1:]}{why}"]
    figures = ", ".join(_figures(seen))
    # The figures are not cut: reasons may be long.
    head = _tidy(". ".join(sentences))[: _LINE - len(figures) - 3]
    return _legible(f"{head}. {figures}." if figures else f"{head}.")


def _figures(seen: _Seen) -> Iterable[str]:
    if seen.level is not None:
        yield f"Margin level {plain(seen.level, 4)}"
    account = seen.account
    if account is None or not account.has_debt:
        return
    yield f"index price {plain(account.index_price, 8)}"
    if account.liquidation_price is not None:
        yield f"liquidation price {plain(account.liquidation_price, 8)}"
    if seen.room is not None:
        yield f"distance {_percent(seen.room)}"
    yield f"status {account.margin_level_status[:_STATUS]}"


def _percent(fraction: Decimal) -> str:
    return f"{plain(fraction * 100, 2)} %"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"  # noqa: PLR2004 - two minutes


# A word with markup in it, without the punctuation after it.
_SPECIAL = re.compile(r"[^\s()]*[_*\[](?:[^\s()]*[^\s().,;:])?")


def _tidy(text: str) -> str:
    """Put `text` on one line, without what could end or escape markup."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(printable.replace("`", "'").replace("\\", "/").split())


def _legible(text: str) -> str:
    """Write words that hold markup of Telegram as code.

    freqtrade sends messages as Markdown: a single ``_`` would make Telegram refuse the message, and two
    would vanish. Discord shows code as well, and in plain text it is only quoted.
    """
    tidy = _tidy(text)
    marked = _SPECIAL.sub(lambda found: f"`{found[0]}`", tidy)
    return marked if len(marked) <= LONGEST_IN_DISCORD else f"`{tidy}`"
