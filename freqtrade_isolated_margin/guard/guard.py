"""One bot's guard: settings, monitor and verdicts, in the core's words.

It never raises where it is asked for a verdict: what goes wrong inside it is a refusal with a reason.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from freqtrade_isolated_margin.account.maths import ONE, ZERO, Side
from freqtrade_isolated_margin.account.records import PairAccount
from freqtrade_isolated_margin.binance.clock import Moment
from freqtrade_isolated_margin.binance.reader import Snapshot
from freqtrade_isolated_margin.guard.monitor import Monitor
from freqtrade_isolated_margin.rules.decide import EntryDecision, Reading, Rule, decide, is_young
from freqtrade_isolated_margin.rules.settings import Settings

logger = logging.getLogger(__name__)


# How long an allowed order may be on its way into the account.
_ORDER_SECONDS = 5.0


class Charts(Protocol):
    """Whoever shows what is decided."""

    settings: Settings

    def decided(self, decision: EntryDecision, now: int) -> None:
        """Take note of a decision, taken at `now` in milliseconds."""


class Keeper(Protocol):
    """Whoever stores what is decided."""

    def decided(self, decision: EntryDecision, now: int) -> None:
        """Take note of a decision, taken at `now` in milliseconds."""

    def start(self) -> None:
        """Begin to store."""

    def stop(self) -> None:
        """Store what is left."""

    def wait_ready(self, seconds: float) -> bool:
        """Wait until what was stored before is known, at most so long."""


class Guard:
    """Judges entries by the newest accounts, which a `Monitor` reads in the background.

    Each of its answers rests on a `Look` of its own; what belongs together is asked of one `look`.
    """

    def __init__(
        self,
        settings: Settings,
        monitor: Monitor,
        recorder: Keeper | None = None,
        candles: Charts | None = None,
    ) -> None:
        self.settings = settings
        self.monitor = monitor
        self._candles = candles
        self._recorder = recorder
        self._verdicts: tuple[Snapshot | None, dict[tuple[str, Side, Decimal], EntryDecision]] = (None, {})
        self._max_age = float(settings.max_age_seconds)
        self._unread_since: dict[str, Moment] = {}
        self._claimed: dict[str, Moment] = {}

    def start(self, pairs: Iterable[str]) -> None:
        """Begin to read the accounts of `pairs`."""
        self.monitor.watch(pairs)
        self.monitor.start()
        if self._recorder:
            self._recorder.start()

    def await_history(self, seconds: float) -> None:
        """Wait until what was stored before is known, at most so long."""
        if self._recorder and self._candles:
            self._recorder.wait_ready(seconds)

    def stop(self) -> None:
        """End reading, and store what is still to be stored."""
        self.monitor.stop()
        if self._recorder:
            self._recorder.stop()

    def adopt(self, settings: Settings) -> None:
        """Judge by the rules of `settings` from now on; how the accounts are read remains as it is."""
        self.settings = settings
        self._max_age = float(settings.max_age_seconds)
        self._verdicts = (None, {})
        if self._candles:
            self._candles.settings = settings

    def note(self, decision: EntryDecision, now: int) -> None:
        """Keep a decision, taken at `now` in milliseconds, for the history and the charts."""
        for keeper in (self._recorder, self._candles):
            if keeper:
                keeper.decided(decision, now)

    def look(self) -> Look:
        """Return what is known now: verdicts that belong together rest on one look."""
        # The clock last, so that no account in it was asked for after its moment.
        snapshot, trouble = self.monitor.snapshot, self.monitor.trouble
        return Look(self, snapshot, trouble, self.monitor.now(), self._max_age)

    def decision(self, pair: str, side: Side, leverage: Decimal = ONE) -> EntryDecision:
        """Return what an entry into `pair` may be now. Never raises."""
        return self.look().decision(pair, side, leverage)

    def account(self, pair: str) -> PairAccount | None:
        """Return the pair's account if there is one, it is readable and not too old."""
        return self.look().account(pair)

    def claim(self, decision: EntryDecision) -> bool:
        """Use the room that the account leaves for a borrowed entry; False where it may be used already."""
        return self.look().claim(decision)

    def is_waiting(self, decision: EntryDecision) -> bool:
        """Whether `decision` refuses only because the first read is still to come, and may yet."""
        return self.look().is_waiting(decision)

    def judge(self, look: Look, pair: str, side: Side, leverage: Decimal) -> EntryDecision:
        """Return what an entry into `pair` may be, by a look at the accounts."""
        snapshot = look.snapshot
        key = (pair, side, leverage)
        judged, verdicts = self._verdicts
        # As long as the account is the same and not too old, so is the verdict.
        young = look.is_young(pair)
        if young and judged is snapshot and key in verdicts:
            return verdicts[key]
        rules = self.settings.rules_for(pair)
        decision = decide(pair, side, look.reading(pair), rules, self._max_age, leverage)
        if snapshot and pair not in snapshot.rows:
            # Asked about out of turn, as by /forceenter: the next read has it.
            self.monitor.also_watch(pair)
        if young:
            if judged is not snapshot:
                verdicts = {}
                self._verdicts = (snapshot, verdicts)
            verdicts[key] = decision
        return decision

    def claim_for(self, look: Look, pair: str) -> bool:
        """Use the room that a look leaves for a borrowed entry; False where it may be used already.

        An entry that was allowed is in the account only when it is read anew, so a reading is good for one.
        """
        last = self._claimed.get(pair)
        if last and (
            look.snapshot is None
            or look.snapshot.asked_at_of(pair).monotonic < last.monotonic + _ORDER_SECONDS
        ):
            return False
        self._claimed[pair] = look.now
        return True

    def waits(self, look: Look, decision: EntryDecision) -> bool:
        """Whether a decision of a look refuses only because the first read is still to come, and may yet.

        For up to ``max_age_seconds`` such a refusal is no news: it locks and cancels nothing.
        """
        if decision.rule is not Rule.NOT_READ:
            self._unread_since.pop(decision.pair, None)
            return False
        since = self._unread_since.setdefault(decision.pair, look.now)
        return since.age(look.now) <= self._max_age


@dataclass(frozen=True, slots=True)
class Look:
    """The newest accounts and the moment at which a guard looked at them, taken together.

    An account that is read meanwhile changes nothing here: one loop, one verdict and one message rest on
    one of these.
    """

    guard: Guard
    snapshot: Snapshot | None
    trouble: str | None
    """Why the accounts cannot be read, if so."""
    now: Moment
    max_age: float
    """Seconds."""

    def reading(self, pair: str) -> Reading:
        """Return what is known of the pair's account, and its age."""
        if self.snapshot is None:
            return Reading(None, trouble=self.trouble)
        return self.snapshot.reading(pair, self.now, self.trouble)

    def is_young(self, pair: str) -> bool:
        """Whether the pair's account was read and is not too old to be judged."""
        snapshot = self.snapshot
        return snapshot is not None and is_young(snapshot.asked_at_of(pair).age(self.now), self.max_age)

    def decision(self, pair: str, side: Side, leverage: Decimal = ONE) -> EntryDecision:
        """Return what an entry into `pair` may be. Never raises."""
        try:
            return self.guard.judge(self, pair, side, leverage)
        except Exception:
            logger.exception("Judging an entry into %s failed; it is refused.", pair)
            why = "the account cannot be judged (an error of the guard, see the log)"
            return EntryDecision.because(pair, side, ZERO, Rule.UNREADABLE, why)

    def account(self, pair: str) -> PairAccount | None:
        """Return the pair's account if there is one, it is readable and not too old."""
        row = self.snapshot.rows.get(pair) if self.snapshot else None
        if not isinstance(row, PairAccount) or row.is_absent:
            return None
        return row if self.is_young(pair) else None

    def claim(self, decision: EntryDecision) -> bool:
        """Use the room that the account leaves for a borrowed entry; False where it may be used already."""
        return self.guard.claim_for(self, decision.pair)

    def is_waiting(self, decision: EntryDecision) -> bool:
        """Whether `decision` refuses only because the first read is still to come, and may yet."""
        return self.guard.waits(self, decision)
