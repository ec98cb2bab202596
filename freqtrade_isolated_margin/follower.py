"""Reads the accounts from the history that another bot writes, instead of from the exchange."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

from .account import Row, Unreadable
from .errors import UnavailableError
from .history import History, Newest
from .margin import TierRatios
from .monitor import Moment, Snapshot
from .settings import spot_pair
from .tables import HistoryError

_WANT_AGAIN_SECONDS = 120.0
# A reader that was started anew does not know what was wanted of the one before.
_RECENT_SECONDS = 30.0
_NOT_READ = "no bot that stores the accounts reads it"


class HistoryReader:
    """A reader for `Monitor` that needs no key and costs the exchange nothing.

    The age of an account is counted from when the exchange was asked, by the database's clock, which the
    bot that read it and all that follow have in common.
    """

    def __init__(
        self, history: History, keys: Sequence[str], clock: Callable[[], Moment] = Moment.now
    ) -> None:
        self._history = history
        self._keys = keys
        self._clock = clock
        self._seen: dict[str, tuple[int, Moment]] = {}
        self._wanted: dict[str, Moment] = {}
        self._asking_since: float | None = None

    @property
    def asking_since(self) -> float | None:
        """When the question that is under way was asked, on the monotonic clock; None if there is none."""
        return self._asking_since

    def close(self) -> None:
        """Give back the connections."""
        self._history.close()

    def read(self, pairs: Collection[str] | None = None, *, borrowed: bool = False) -> Snapshot:  # noqa: ARG002
        """Return the newest stored account of each of `pairs`, or of every pair that is stored.

        A pair that is not among the stored ones is unreadable, and its reader is asked to read it.

        :raises HistoryError: where the database cannot be read, or it is not clear whose accounts are meant.
        :raises UnavailableError: where no account was stored for an hour.
        """
        self._asking_since = time.monotonic()
        try:
            keys = self._history.keys(self._keys)
            # Before the database looks at its clock, so that the account is rather older than younger.
            asked = self._clock()
            stored = self._history.newest(None, keys)
            found = {pair: stored.get(spot_pair(pair)) for pair in (stored if pairs is None else pairs)}
            unasked = self._want({pair for pair, newest in found.items() if not _is_recent(newest)})
        finally:
            self._asking_since = None
        if not stored:
            raise UnavailableError("no bot has stored the accounts in the history for an hour")
        return self._snapshot(found, asked, unasked)

    def _snapshot(self, found: Mapping[str, Newest | None], asked: Moment, unasked: str | None) -> Snapshot:
        rows: dict[str, Row] = {}
        ratios: dict[str, TierRatios] = {}
        moments: dict[str, Moment] = {}
        missing = Unreadable(f"{_NOT_READ} ({unasked or 'it is asked to'})")
        for pair, newest in found.items():
            row = newest.recorded.row if newest else None
            if newest is None or row is None:
                rows[pair], moments[pair] = missing, asked
                continue
            rows[pair], moments[pair] = row, self._moment(pair, newest, asked)
            tiers = newest.recorded.tier_ratios
            if tiers:
                ratios[pair] = tiers
        freshest = min(filter(None, found.values()), key=lambda newest: newest.age_seconds, default=None)
        return Snapshot(
            asked_at=max(moments.values(), default=asked),
            rows=MappingProxyType(rows),
            symbols=MappingProxyType({}),
            ratios=MappingProxyType(ratios),
            moments=MappingProxyType(moments),
            trouble=freshest.trouble if freshest else None,
        )

    def _moment(self, pair: str, newest: Newest, asked: Moment) -> Moment:
        """Return when the exchange was asked, on this machine's clocks."""
        at = asked.before(newest.age_seconds)
        read_at, before = self._seen.get(pair, (None, at))
        if read_at == newest.recorded.read_at:
            # The same read cannot have become younger, whatever the database's clock says now.
            at = min(at, before)
        self._seen[pair] = (newest.recorded.read_at, at)
        return at

    def _want(self, missing: Collection[str]) -> str | None:
        """Ask for what nobody reads, again and again; return why that is not possible, if so."""
        now = self._clock()
        due = [
            pair
            for pair in missing
            if pair not in self._wanted or self._wanted[pair].age(now) > _WANT_AGAIN_SECONDS
        ]
        if due:
            try:
                self._history.want({spot_pair(pair) for pair in due})
            except HistoryError as error:
                # The other pairs can be judged nevertheless.
                return str(error)
            self._wanted.update(dict.fromkeys(due, now))
        return None


def _is_recent(newest: Newest | None) -> bool:
    return newest is not None and 0 <= newest.age_seconds <= _RECENT_SECONDS
