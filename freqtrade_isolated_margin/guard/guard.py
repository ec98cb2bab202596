"""One bot's guard: settings, monitor and verdicts, in the core's words.

It never raises where it is asked for a verdict: what goes wrong inside it is a refusal with a reason.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING

from freqtrade_isolated_margin.account.maths import ONE, ZERO, Side
from freqtrade_isolated_margin.account.records import PairAccount
from freqtrade_isolated_margin.binance.clock import Moment
from freqtrade_isolated_margin.binance.reader import Snapshot
from freqtrade_isolated_margin.guard.monitor import Monitor
from freqtrade_isolated_margin.rules.decide import EntryDecision, Rule, decide
from freqtrade_isolated_margin.rules.settings import Settings

if TYPE_CHECKING:
    from freqtrade_isolated_margin.history.recorder import Recorder
    from freqtrade_isolated_margin.hosts.candles import LiveCandles

logger = logging.getLogger(__name__)


# How long an allowed order may be on its way into the account.
_ORDER_SECONDS = 5.0


class Guard:
    """Judges entries by the newest accounts, which a `Monitor` reads in the background."""

    def __init__(
        self,
        settings: Settings,
        monitor: Monitor,
        recorder: Recorder | None = None,
        candles: LiveCandles | None = None,
    ) -> None:
        self.settings = settings
        self.monitor = monitor
        self.candles = candles
        self._recorder = recorder
        self._max_age = float(settings.max_age_seconds)
        self._verdicts: tuple[Snapshot | None, dict[tuple[str, Side, Decimal], EntryDecision]] = (None, {})
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
        if self._recorder and self.candles:
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
        if self.candles:
            self.candles.settings = settings

    def note(self, decision: EntryDecision, now: int) -> None:
        """Keep a decision, taken at `now` in milliseconds, for the history and the charts."""
        if self._recorder:
            self._recorder.decided(decision, now)
        if self.candles:
            self.candles.decided(decision, now)

    def decision(
        self, pair: str, side: Side, leverage: Decimal = ONE, *, now: Moment | None = None
    ) -> EntryDecision:
        """Return what an entry into `pair` may be now, or at a `now` that is just past. Never raises."""
        try:
            return self._decide(pair, side, leverage, now or self.monitor.now())
        except Exception:
            logger.exception("Judging an entry into %s failed; it is refused.", pair)
            why = "the account cannot be judged (an error of the guard, see the log)"
            return EntryDecision.because(pair, side, ZERO, Rule.UNREADABLE, why)

    def _decide(self, pair: str, side: Side, leverage: Decimal, now: Moment) -> EntryDecision:
        snapshot = self.monitor.snapshot
        key = (pair, side, leverage)
        judged, verdicts = self._verdicts
        # As long as the account is the same and not too old, so is the verdict.
        if snapshot and judged is snapshot and key in verdicts and self._is_young(pair, snapshot, now):
            return verdicts[key]
        reading = self.monitor.reading(pair, snapshot, now)
        rules = self.settings.rules_for(pair)
        if snapshot and pair not in snapshot.rows:
            # Asked about out of turn, as by /forceenter: the next read has it.
            self.monitor.also_watch(pair)
        if snapshot is None or not 0 <= reading.age_seconds <= self._max_age:
            return decide(pair, side, reading, rules, self._max_age, leverage)
        if judged is not snapshot:
            verdicts = {}
            self._verdicts = (snapshot, verdicts)
        verdicts[key] = decision = decide(pair, side, reading, rules, self._max_age, leverage)
        return decision

    def _is_young(self, pair: str, snapshot: Snapshot, now: Moment) -> bool:
        return 0 <= snapshot.asked_at_of(pair).age(now) <= self._max_age

    def account(self, pair: str, now: Moment | None = None) -> PairAccount | None:
        """Return the pair's account if there is one, it is readable and not too old."""
        snapshot = self.monitor.snapshot
        row = snapshot.rows.get(pair) if snapshot else None
        if snapshot is None or not isinstance(row, PairAccount) or row.is_absent:
            return None
        return row if self._is_young(pair, snapshot, now or self.monitor.now()) else None

    def claim(self, decision: EntryDecision) -> bool:
        """Use the room that the account leaves for a borrowed entry; False where it may be used already.

        An entry that was allowed is in the account only when it is read anew, so a reading is good for one.
        """
        snapshot, now = self.monitor.snapshot, Moment.now()
        last = self._claimed.get(decision.pair)
        if last and (
            snapshot is None
            or snapshot.asked_at_of(decision.pair).monotonic < last.monotonic + _ORDER_SECONDS
        ):
            return False
        self._claimed[decision.pair] = now
        return True

    def is_waiting(self, decision: EntryDecision) -> bool:
        """Whether `decision` refuses only because the first read is still to come, and may yet.

        For up to ``max_age_seconds`` such a refusal is no news: it locks and cancels nothing.
        """
        if decision.rule is not Rule.NOT_READ:
            self._unread_since.pop(decision.pair, None)
            return False
        now = Moment.now()
        return self._unread_since.setdefault(decision.pair, now).age(now) <= self._max_age
