"""The values of a live bot's newest candles, as they were known at each close."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.account.records import Row
from freqtrade_isolated_margin.account.tiers import TierRatios
from freqtrade_isolated_margin.binance.clock import milliseconds
from freqtrade_isolated_margin.binance.reader import Snapshot
from freqtrade_isolated_margin.history.blocks import STANDS_MS, Span, blocked_spans, joined_spans
from freqtrade_isolated_margin.hosts.columns import UNKNOWN, Values, values_of
from freqtrade_isolated_margin.rules.decide import EntryDecision, Outcome, Reading, decide
from freqtrade_isolated_margin.rules.settings import Settings, spot_pair

if TYPE_CHECKING:
    from freqtrade_isolated_margin.history.asking import History

_MOST_CANDLES = 5000
_MOST_SPANS = 1000
# Pairs that have left, as from a dynamic pair list: some come back soon.
_MOST_LEFT = 50


class _Known(NamedTuple):
    read_at: int
    row: Row
    ratios: TierRatios | None


class LiveCandles:
    """Keeps the values of the newest candles in memory: an observer of a bot's `Monitor`.

    The dataframe is analysed while freqtrade waits, so that nothing can be looked up in a database then.
    """

    def __init__(self, settings: Settings, timeframe_seconds: int, bot: str = "freqtrade") -> None:
        self.settings = settings
        self._bot = bot
        self._step = timeframe_seconds * 1000
        self._recalled: set[str] = set()
        self._newest: dict[str, _Known] = {}
        self._closed: dict[str, dict[int, Values]] = defaultdict(dict)
        self._blocked: dict[str, deque[Span]] = defaultdict(lambda: deque(maxlen=_MOST_SPANS))
        self._lock = threading.Lock()

    # ----- from the thread that reads

    def succeeded(self, snapshot: Snapshot) -> None:
        """Take in a read: the candles that have closed since the one before had that one's values."""
        for pair, row in snapshot.rows.items():
            asked = snapshot.asked_at_of(pair)
            new = _Known(milliseconds(asked.wall), row, snapshot.ratios.get(pair))
            old = self._newest.get(pair)
            if old:
                self._close(pair, old, new.read_at)
            # Only now, so that whoever asks meanwhile misses no candle.
            self._newest[pair] = new
        if len(self._newest) > len(snapshot.rows) + _MOST_LEFT:
            self._forget(self._newest.keys() - snapshot.rows.keys())

    def _forget(self, pairs: Collection[str]) -> None:
        """Let go of pairs that are not read any more; one that comes back is recalled."""
        with self._lock:
            for pair in pairs:
                for held in (self._newest, self._closed, self._blocked):
                    held.pop(pair, None)
        self._recalled.difference_update(pairs)

    def failed(self, trouble: str) -> None:
        """Nothing is known that was not known before."""

    def _close(self, pair: str, known: _Known, before: int) -> None:
        first = -(-known.read_at // self._step) * self._step
        last = min(before - 1, known.read_at + self._max_age_ms)
        closes = range(first, last + 1, self._step)
        if not closes:
            return
        values = self._values(pair, known)
        with self._lock:
            closed = self._closed[pair]
            closed.update(dict.fromkeys(closes, values))
            for close in list(closed)[: max(len(closed) - _MOST_CANDLES, 0)]:
                del closed[close]

    def _values(self, pair: str, known: _Known) -> Values:
        reading = Reading(known.row, tier_ratios=known.ratios)
        rules = self.settings.rules_for(pair)
        max_age = float(self.settings.max_age_seconds)
        return values_of(known.row, decide(pair, Side.LONG, reading, rules, max_age))

    @property
    def _max_age_ms(self) -> int:
        return round(self.settings.max_age_seconds * 1000)

    def unrecalled(self, pairs: Iterable[str]) -> list[str]:
        """Return which of `pairs` were not recalled yet."""
        return sorted(set(pairs) - self._recalled)

    def recall(self, history: History, keys: Sequence[str], pair: str, candles: int) -> None:
        """Take in what was stored before of the newest `candles` candles of a pair, once.

        :raises HistoryError: where it cannot be read.
        """
        until = milliseconds(datetime.now().timestamp()) // self._step * self._step  # noqa: DTZ005 - UNIX time
        closes = range(until - (min(candles, _MOST_CANDLES) - 1) * self._step, until + 1, self._step)
        max_age = float(self.settings.max_age_seconds)
        recorded = history.as_of(spot_pair(pair), closes, max_age, keys)
        found = {
            close: self._values(pair, _Known(known.read_at, known.row, known.tier_ratios))
            for close, known in zip(closes, recorded, strict=True)
            if known and known.row is not None
        }
        blocked = blocked_spans(history, keys, pair, closes[0] - self._step, until, self._bot)
        with self._lock:
            # What this run has seen itself stays, and in the order of time.
            self._closed[pair] = dict(sorted({**found, **self._closed[pair]}.items()))
            spans = self._blocked[pair]
            joined = joined_spans([*blocked, *spans])
            spans.clear()
            spans.extend(joined)
        self._recalled.add(pair)

    # ----- from the thread that trades

    def decided(self, decision: EntryDecision, now: int) -> None:
        """Take in what entries into a pair can be, at `now` in milliseconds."""
        if decision.outcome is not Outcome.BLOCK:
            return
        with self._lock:
            spans = self._blocked[decision.pair]
            if spans and now - spans[-1].end <= STANDS_MS:
                spans[-1] = Span(spans[-1].start, max(spans[-1].end, now + 1))
            else:
                spans.append(Span(now, now + 1))

    def values(self, pair: str, closes: Sequence[int]) -> list[Values]:
        """Return the values of the candles that close at `closes`, in milliseconds."""
        newest = self._newest.get(pair)
        with self._lock:
            known = self._closed.get(pair, {})
            found = [known.get(close, UNKNOWN) for close in closes]
        # A candle that has closed since the newest read is taken in with the next one.
        since = bisect_left(closes, newest.read_at) if newest else len(closes)
        for place in range(since, len(closes)):
            if newest and closes[place] <= newest.read_at + self._max_age_ms:
                found[place] = self._values(pair, newest)
        return found

    def blocked(self, pair: str) -> list[Span]:
        """Return when entries into `pair` were blocked, in the order of time."""
        with self._lock:
            return list(self._blocked.get(pair, ()))
