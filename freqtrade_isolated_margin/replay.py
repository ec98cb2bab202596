"""Judges the entries of a backtest by what the accounts really were: the recorded history."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from .account import PairAccount
from .columns import UNKNOWN, Span, Values, blocked_spans, values_of
from .errors import IsolatedMarginError
from .history import History, Recorded, milliseconds, moment, open_history
from .margin import ONE, Side
from .rules import EntryDecision, Reading, decide
from .settings import Settings, spot_pair
from .tables import HistoryError

logger = logging.getLogger(__name__)

# As the live guard: for so long an allowed order may be on its way into the account.
_ORDER_MS = 5000
_FOREVER_MS = 2**53


class Replay:
    """A judge for backtesting and hyperopt: each verdict is that of the newest account recorded before.

    `now` is the moment of the callback that asks. What is looked up is remembered, so that a strategy that
    is sent to hyperopt's workers takes along what its candles need, and all of them judge alike.
    """

    def __init__(self, settings: Settings, config: Mapping[str, Any], step: timedelta) -> None:
        """Judge by the history of `config`; `step` is the time between two moments that are asked about.

        :raises SettingsError: where the history's URL is impossible.
        :raises HistoryError: where it cannot be read, or does not tell whose accounts are meant.
        """
        self.now: datetime | None = None
        self.trouble: str | None = None
        """Why nothing can be judged, as where an epoch of hyperopt has impossible limits."""
        self._settings = settings
        self._max_age = float(settings.max_age_seconds)
        self._step = round(step.total_seconds() * 1000)
        self._where = settings.history, {"user_data_dir": config.get("user_data_dir")}
        self._history: History | None = None
        self._keys = self._open().keys(settings.history.keys)
        self._known: dict[str, dict[int, Recorded | None]] = {}
        self._decisions: dict[tuple[str, Side, Decimal, int], EntryDecision] = {}
        self._claimed: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the database here: a worker opens it itself should it need it."""
        return {**self.__dict__, "_history": None}

    def _open(self) -> History:
        if self._history is None:
            history, config = self._where
            self._history = open_history(history, config)
        return self._history

    @property
    def settings(self) -> Settings:
        """The settings that verdicts go by."""
        return self._settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        # An epoch of hyperopt has other limits; the accounts remain what they were.
        self._settings = settings
        self.trouble = None
        self._decisions.clear()
        self._claimed.clear()

    def load(self, pair: str, opens: Sequence[int], length: int) -> float:
        """Look up the accounts of a pair's candles at once; return the share of their closes that have one.

        :raises HistoryError: where the database cannot be read.
        """
        if not opens:
            return 0.0
        wanted = range(opens[0], opens[-1] + length + 1, self._step)
        known = self._known.setdefault(spot_pair(pair), {})
        missing = [at for at in wanted if at not in known]
        found = self._open().as_of(spot_pair(pair), missing, self._max_age, self._keys)
        known.update(zip(missing, found, strict=True))
        closes = [at + length for at in opens]
        return sum(known.get(close) is not None for close in closes) / len(closes)

    def _recorded(self, pair: str, at: int) -> Recorded | None:
        known = self._known.setdefault(spot_pair(pair), {})
        if at not in known:
            known[at] = self._open().as_of(spot_pair(pair), [at], self._max_age, self._keys)[0]
        return known[at]

    def decision(self, pair: str, side: Side, leverage: Decimal = ONE) -> EntryDecision:
        """Return what an entry into `pair` could be at `now`. Raises nothing but refuses."""
        try:
            return self._decide(pair, side, leverage)
        except HistoryError as error:
            return self._refusal(pair, side, str(error))

    def _decide(self, pair: str, side: Side, leverage: Decimal) -> EntryDecision:
        if self.trouble:
            return self._refusal(pair, side, self.trouble)
        if self.now is None:
            return self._refusal(pair, side, "no moment of the backtest is given outside of its callbacks")
        now = milliseconds(self.now)
        recorded = self._recorded(pair, now)
        if recorded is None:
            return self._refusal(pair, side, f"the history has no account for {self.now:%Y-%m-%d %H:%M:%S}")
        key = (pair, side, leverage, recorded.read_at)
        if key not in self._decisions:
            age = (now - recorded.read_at) / 1000
            self._decisions[key] = self._judge(pair, side, recorded, age, leverage)
        return self._decisions[key]

    def _judge(
        self, pair: str, side: Side, recorded: Recorded, age: float, leverage: Decimal = ONE
    ) -> EntryDecision:
        reading = Reading(recorded.row, age, moment(recorded.read_at), recorded.tier_ratios)
        return decide(pair, side, reading, self._settings.rules_for(pair), self._max_age, leverage)

    def _refusal(self, pair: str, side: Side, why: str) -> EntryDecision:
        reading = Reading(None, trouble=why)
        return decide(pair, side, reading, self._settings.rules_for(pair), self._max_age)

    def account(self, pair: str) -> PairAccount | None:
        """Return the pair's account at `now`, if there was one and it is recorded and readable."""
        recorded = self._recorded(pair, milliseconds(self.now)) if self.now else None
        row = recorded.row if recorded else None
        return row if isinstance(row, PairAccount) and not row.is_absent else None

    def claim(self, decision: EntryDecision) -> bool:
        """Use the room that a decision's largest stake leaves; a recorded account is good for one entry."""
        if self.now is None:
            return False
        now = milliseconds(self.now)
        recorded = self._recorded(decision.pair, now)
        last = self._claimed.get(decision.pair)
        # A backtest begins anew at an earlier moment than the former one ended at.
        last = None if last is not None and last > now else last
        if last is not None and (recorded is None or recorded.read_at < last + _ORDER_MS):
            return False
        self._claimed[decision.pair] = now
        return True

    def is_waiting(self, decision: EntryDecision) -> bool:  # noqa: ARG002 - the protocol
        """Return False: nothing more will come."""
        return False

    def values(self, pair: str, closes: Sequence[int]) -> list[Values]:
        """Return what the candles that close at `closes`, in milliseconds, show."""
        known = self._known.get(spot_pair(pair), {})
        return [
            self._values(pair, recorded) if (recorded := known.get(close)) else UNKNOWN for close in closes
        ]

    def blocked(self, pair: str) -> list[Span]:
        """Return when the recorded decisions blocked entries into `pair`."""
        known = self._known.get(spot_pair(pair))
        if not known:
            return []
        return blocked_spans(self._open(), self._keys, pair, min(known), max(known))

    def _values(self, pair: str, recorded: Recorded) -> Values:
        # Through the same memory as the verdicts: most entries are judged by the account of a candle's close.
        key = (pair, Side.LONG, ONE, recorded.read_at)
        if key not in self._decisions:
            self._decisions[key] = self._judge(pair, Side.LONG, recorded, 0.0)
        return values_of(recorded.row, self._decisions[key])


def fingerprint(settings: Settings, config: Mapping[str, Any], until: int | None) -> str:
    """Return what tells this history from any other, up to a moment in milliseconds if one is given."""
    try:
        history = open_history(settings.history, config)
        keys = history.keys(settings.history.keys)
        return history.fingerprint(keys, 0, _FOREVER_MS if until is None else until)
    except IsolatedMarginError as error:
        # The backtest itself will say it.
        return str(error)
