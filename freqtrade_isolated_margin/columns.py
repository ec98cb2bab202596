"""What charts show: columns of the analysed dataframe, a `plot_config` for them, and shaded candles.

A candle's values are those that were known at its close, never later ones.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from math import nan
from typing import TYPE_CHECKING, Any, NamedTuple

from .account import PairAccount, Row
from .margin import Side, TierRatios
from .moments import ROW_SECONDS, milliseconds
from .monitor import Snapshot
from .rules import EntryDecision, Outcome, Reading, decide
from .settings import Settings, spot_pair

if TYPE_CHECKING:
    from .history import Decided, History


class Values(NamedTuple):
    """The columns of one candle, as floats; NaN where unknown or without meaning."""

    margin_level: float = nan
    """As reported; NaN without debt."""
    liquidation_price: float = nan
    """Quote currency; NaN where no price liquidates."""
    index_price: float = nan
    """Quote currency."""
    margin_stake_factor: float = nan
    """What the stake of a long entry is multiplied with: 0 blocks, 1 changes nothing."""


COLUMNS = Values._fields
UNKNOWN = Values()

PLOT_CONFIG: dict[str, dict[str, Any]] = {
    "main_plot": {
        "liquidation_price": {"color": "#D55E00"},
        "index_price": {"color": "#0072B2"},
    },
    "subplots": {
        "Margin level": {"margin_level": {"color": "#0072B2"}},
        "Stake factor": {"margin_stake_factor": {"color": "#009E73"}},
    },
}
"""A fragment of a strategy's `plot_config` that shows the columns."""

_SHADE = "rgba(213, 94, 0, 0.25)"
_MOST_CANDLES = 5000
_MOST_SPANS = 1000
# Pairs that have left, as from a dynamic pair list: some come back soon.
_MOST_LEFT = 50
# A decision is stored once a minute: without a newer one it is not known how long it stood.
STANDS_MS = 2 * ROW_SECONDS * 1000


def values_of(row: Row | None, decision: EntryDecision) -> Values:
    """Return what a candle shows of an account that gives `decision`."""
    factor = float(decision.factor)
    if not isinstance(row, PairAccount) or row.is_absent:
        return Values(margin_stake_factor=factor if row is not None else nan)
    owing = row.has_debt
    return Values(
        margin_level=float(row.margin_level) if owing else nan,
        liquidation_price=float(row.liquidate_price) if owing and row.liquidate_price > 0 else nan,
        index_price=float(row.index_price),
        margin_stake_factor=factor,
    )


def merged_plot_config(own: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever a strategy has there
    """Return a strategy's own `plot_config` with the columns added; what it says of them itself stays."""
    own = own or {}
    named = {name for part in _plotted(own) for name in part}
    merged = {
        **own,
        "main_plot": dict(own.get("main_plot") or {}),
        "subplots": dict(own.get("subplots") or {}),
    }
    for name, style in PLOT_CONFIG["main_plot"].items():
        if name not in named:
            merged["main_plot"][name] = dict(style)
    for title, lines in PLOT_CONFIG["subplots"].items():
        if title not in merged["subplots"] and not named & lines.keys():
            merged["subplots"][title] = {name: dict(style) for name, style in lines.items()}
    return merged


def _plotted(config: Mapping[str, Any]) -> Iterable[Iterable[str]]:
    yield config.get("main_plot") or {}
    yield from (config.get("subplots") or {}).values()


class Span(NamedTuple):
    """From when to when entries were blocked, in milliseconds; the end is not included."""

    start: int
    end: int


def shaded(
    candles: Sequence[tuple[datetime, float]], length: timedelta, blocked: Sequence[Span]
) -> list[Any]:
    """Return areas, as `IStrategy.plot_annotations` does, over the candles in which entries were blocked.

    `candles` are their opens in ascending order, with their stake factors; a factor of 0 is a block too.
    """
    areas: list[dict[str, Any]] = []
    starts = [span.start for span in blocked]
    for opened, factor in candles:
        start, end = milliseconds(opened), milliseconds(opened + length)
        # The spans are in order and apart: the last that starts before the candle's end is the one to see.
        place = bisect_left(starts, end) - 1
        if factor != 0 and not (place >= 0 and blocked[place].end > start):
            continue
        if areas and areas[-1]["end"] == opened:
            areas[-1]["end"] = opened + length
        else:
            areas.append(
                {
                    "type": "area",
                    "label": "entries blocked",
                    "color": _SHADE,
                    "start": opened,
                    "end": opened + length,
                }
            )
    return areas


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
            joined = _joined([*blocked, *spans])
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


def decisions_of(
    history: History, keys: Sequence[str], pair: str, since: int, until: int, bot: str
) -> list[Decided]:
    """Return the stored decisions on `pair` of the bot with this name, or of all bots if it has none.

    :raises HistoryError: where they cannot be read.
    """
    decisions = list(history.decisions([spot_pair(pair)], keys, since, until))
    return [decided for decided in decisions if decided.bot == bot] or decisions


def blocked_spans(
    history: History, keys: Sequence[str], pair: str, since: int, until: int, bot: str
) -> list[Span]:
    """Return when `decisions_of` the bot blocked entries into `pair`, in order.

    :raises HistoryError: where they cannot be read.
    """
    spans: list[Span] = []
    open_: dict[int, int] = {}
    for decision in decisions_of(history, keys, pair, since, until, bot):
        began = open_.pop(decision.session_id, None)
        if began is not None:
            spans.append(Span(began, min(decision.at, began + STANDS_MS)))
        if decision.outcome == "block":
            open_[decision.session_id] = decision.at
    spans += [Span(began, min(began + STANDS_MS, until)) for began in open_.values()]
    return _joined(spans)


def _joined(spans: Iterable[Span]) -> list[Span]:
    joined: list[Span] = []
    for span in sorted(spans):
        if joined and span.start <= joined[-1].end:
            joined[-1] = Span(joined[-1].start, max(joined[-1].end, span.end))
        else:
            joined.append(span)
    return joined
