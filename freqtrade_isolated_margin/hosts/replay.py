"""Judges the entries of a backtest by what the accounts really were: the recorded history."""

from __future__ import annotations

import hashlib
import os
import pickle
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, cast
from uuid import uuid4

from freqtrade_isolated_margin import __version__
from freqtrade_isolated_margin.account.maths import ONE, Side
from freqtrade_isolated_margin.account.records import PairAccount, Row
from freqtrade_isolated_margin.binance.clock import milliseconds
from freqtrade_isolated_margin.errors import IsolatedMarginError
from freqtrade_isolated_margin.history.asking import History, Recorded, open_history
from freqtrade_isolated_margin.history.blocks import Span, blocked_spans
from freqtrade_isolated_margin.history.tables import HistoryError
from freqtrade_isolated_margin.hosts.backtest_judge import BacktestJudge
from freqtrade_isolated_margin.hosts.columns import UNKNOWN, Values, values_of
from freqtrade_isolated_margin.hosts.wiring import bot_name, own_key_id
from freqtrade_isolated_margin.rules.decide import EntryDecision, Reading, decide
from freqtrade_isolated_margin.rules.settings import Settings, spot_pair

# As the live guard: for so long an allowed order may be on its way into the account.
_ORDER_MS = 5000
_FOREVER_MS = 2**53
# The most that `max_age_seconds` may be, which may be another in each epoch of a hyperopt.
_LONGEST_SECONDS = 86_400

_Known = dict[str, dict[int, Recorded | None]]
# The pair, the side, the leverage, the moment, the settings, and why nothing can be judged.
_Question = tuple[str, Side, Decimal, datetime | None, Settings, str | None]


class Replay(BacktestJudge):
    """A judge for backtesting and hyperopt: each verdict is that of the newest account recorded before.

    `now` is the moment that is judged. What a backtest needs is looked up once, before it begins, and
    hyperopt's workers are handed the same, so that all of them judge alike whatever is recorded meanwhile.
    """

    def __init__(self, settings: Settings, config: Mapping[str, Any], step: timedelta) -> None:
        """Judge by the history of `config`; `step` is the time between two moments that are asked about.

        :raises SettingsError: where the history's URL is impossible.
        :raises HistoryError: where it cannot be read, or does not tell whose accounts are meant.
        """
        super().__init__(settings)
        self._step = round(step.total_seconds() * 1000)
        self._where = settings.history, {"user_data_dir": config.get("user_data_dir")}
        self._history: History | None = None
        self._keys = self._open().keys(settings.history.keys, own_key_id(config))
        self._bot = bot_name(config)
        self._known: _Known = {}
        self._claimed: dict[str, int] = {}
        self._last: tuple[_Question, EntryDecision] | None = None
        self._copy: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the database here and put what was looked up into a file: each epoch gets a judge sent."""
        if self._copy is None:
            handle, self._copy = tempfile.mkstemp(prefix="isolated-margin-replay-")
            weakref.finalize(self, os.unlink, self._copy)
            with os.fdopen(handle, "wb") as file:
                pickle.dump(self._known, file)
        return {**self.__dict__, "_history": None, "_known": None, "_last": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._known = _copied(state["_copy"])

    def _open(self) -> History:
        if self._history is None:
            history, config = self._where
            self._history = open_history(history, config)
        return self._history

    def begin(self) -> None:
        """Forget at which moment the former backtest ended, and what it used up."""
        super().begin()
        self._claimed.clear()

    def load(self, opens: Mapping[str, Sequence[int]], length: int) -> None:
        """Look up the accounts of some pairs' candles at once, given by their opens and their length.

        :raises HistoryError: where the database cannot be read.
        """
        spans = {
            spot_pair(pair): range(of_pair[0], of_pair[-1] + length + 1, self._step)
            for pair, of_pair in opens.items()
            if of_pair
        }
        new = [
            pair for pair, span in spans.items() if not all(at in self._known.get(pair, ()) for at in span)
        ]
        if not new:
            return
        first, last = min(spans[pair][0] for pair in new), max(spans[pair][-1] for pair in new)
        moments = range(first, last + 1, self._step)
        for pair, found in self._open().as_of_all(new, moments, _LONGEST_SECONDS, self._keys).items():
            self._known.setdefault(pair, {}).update(zip(moments, found, strict=True))

    def covered(self, pair: str, moments: Sequence[int]) -> float:
        """Return the share of `moments`, looked up before, at which an account was not too old."""
        return sum(recorded is not None for recorded in self._loaded(pair, moments)) / max(len(moments), 1)

    def _loaded(self, pair: str, moments: Sequence[int]) -> Iterator[Recorded | None]:
        known = self._known.get(spot_pair(pair), {})
        max_age = self._max_age
        for at in moments:
            recorded = known.get(at)
            yield recorded if recorded and at - recorded.read_at <= max_age else None

    @property
    def _max_age(self) -> int:
        return int(self.settings.max_age_seconds * 1000)

    def _recorded(self, pair: str, at: int) -> Recorded | None:
        name = spot_pair(pair)
        known = self._known.setdefault(name, {})
        if at not in known:
            # As for a moment between two candles.
            known[at] = self._open().as_of(name, [at], _LONGEST_SECONDS, self._keys)[0]
        recorded = known[at]
        return recorded if recorded and at - recorded.read_at <= self._max_age else None

    def decision(self, pair: str, side: Side, leverage: Decimal = ONE) -> EntryDecision:
        """Return what an entry into `pair` could be at `now`. Raises nothing but refuses."""
        # An entry is asked about twice: for its stake, and then for its confirmation.
        question = (pair, side, leverage, self.now, self.settings, self.trouble)
        if self._last and self._last[0] == question:
            return self._last[1]
        try:
            decision = self._decide(pair, side, leverage)
        except HistoryError as error:
            return self._refusal(pair, side, str(error))
        self._last = (question, decision)
        return decision

    def _decide(self, pair: str, side: Side, leverage: Decimal) -> EntryDecision:
        if self.trouble:
            return self._refusal(pair, side, self.trouble)
        if self.now is None:
            return self._refusal(pair, side, "no moment of the backtest is given outside of its callbacks")
        now = milliseconds(self.now)
        recorded = self._recorded(pair, now)
        if recorded is None:
            return self._refusal(pair, side, f"the history has no account for {self.now:%Y-%m-%d %H:%M:%S}")
        return self._judge(pair, side, recorded, recorded.row, now, leverage)

    def _judge(
        self, pair: str, side: Side, recorded: Recorded, row: Row | None, at: int, leverage: Decimal = ONE
    ) -> EntryDecision:
        age = (at - recorded.read_at) / 1000
        reading = Reading(row, age, recorded.tier_ratios)
        rules = self.settings.rules_for(pair)
        return decide(pair, side, reading, rules, float(self.settings.max_age_seconds), leverage)

    def account(self, pair: str) -> PairAccount | None:
        """Return the pair's account at `now`, if there was one and it is recorded and readable."""
        try:
            recorded = self._recorded(pair, milliseconds(self.now)) if self.now else None
        except HistoryError:
            return None
        row = recorded.row if recorded else None
        return row if isinstance(row, PairAccount) and not row.is_absent else None

    def claim(self, decision: EntryDecision) -> bool:
        """Use the room that a decision's largest stake leaves; a recorded account is good for one entry."""
        if self.now is None:
            return False
        now = milliseconds(self.now)
        recorded = self._recorded(decision.pair, now)
        last = self._claimed.get(decision.pair)
        if last is not None and (recorded is None or recorded.read_at < last + _ORDER_MS):
            return False
        self._claimed[decision.pair] = now
        return True

    def values(self, pair: str, closes: Sequence[int]) -> list[Values]:
        """Return what the candles that close at `closes`, in milliseconds and looked up before, show."""
        return [
            self._values(pair, recorded, close) if recorded else UNKNOWN
            for close, recorded in zip(closes, self._loaded(pair, closes), strict=True)
        ]

    def _values(self, pair: str, recorded: Recorded, at: int) -> Values:
        # Not kept, unlike that of a decision: a month of 20 pairs has more candles than fit into memory.
        row = recorded.read()
        if self.trouble:
            return values_of(row, self._refusal(pair, Side.LONG, self.trouble))
        return values_of(row, self._judge(pair, Side.LONG, recorded, row, at))

    def blocked(self, pair: str) -> list[Span]:
        """Return when the recorded decisions blocked entries into `pair`."""
        known = self._known.get(spot_pair(pair))
        if not known:
            return []
        return blocked_spans(self._open(), self._keys, pair, min(known), max(known), self._bot)


@lru_cache(maxsize=1)
def _copied(file: str) -> _Known:
    with open(file, "rb") as copy:  # noqa: PTH123 - as quick as it gets
        return cast("_Known", pickle.load(copy))  # noqa: S301 - this program has written it


def fingerprint(settings: Settings, config: Mapping[str, Any], until: int | None) -> str:
    """Return what tells this history, and what is made of it, from any other.

    Up to before a moment in milliseconds, if one is given. Nothing of the settings can be read in it.
    """
    try:
        history = open_history(settings.history, config)
        keys = history.keys(settings.history.keys, own_key_id(config))
        what = history.fingerprint(keys, 0, _FOREVER_MS if until is None else until)
    except IsolatedMarginError:
        # The backtest itself will say why. Like no other, or a result could be handed out for it.
        what = uuid4().hex
    return hashlib.sha256(f"{__version__} {settings!r} {what}".encode()).hexdigest()[:16]
