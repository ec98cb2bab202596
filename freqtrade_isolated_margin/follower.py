"""Reads the accounts from the history that another bot writes, instead of from the exchange."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from types import MappingProxyType

from .account import Row, Unreadable
from .errors import UnavailableError
from .history import History, Newest
from .margin import TierRatios
from .monitor import Moment, Snapshot
from .settings import spot_pair

_WANT_AGAIN_SECONDS = 120.0
_NOT_READ = Unreadable("the bot that stores the accounts in the history does not read it yet; it is asked to")


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
        """Return the newest stored account of each of `pairs`.

        A pair that is not among the stored ones is unreadable, and its reader is asked to read it.

        :raises HistoryError: where the database cannot be read, or it is not clear whose accounts are meant.
        :raises UnavailableError: where no account was stored for an hour.
        """
        pairs = frozenset(pairs or ())
        self._asking_since = time.monotonic()
        try:
            keys = self._history.keys(self._keys)
            # Before the database looks at its clock, so that the account is rather older than younger.
            asked = self._clock()
            stored = self._history.newest({spot_pair(pair) for pair in pairs}, keys)
            newest = {pair: stored[name] for pair in pairs if (name := spot_pair(pair)) in stored}
            read = {pair for pair, found in newest.items() if found.recorded.row is not None}
            self._want(pairs - read)
        finally:
            self._asking_since = None
        if pairs and not newest:
            raise UnavailableError("no bot has stored the accounts in the history for an hour")
        return self._snapshot(pairs, newest, asked)

    def _snapshot(self, pairs: Collection[str], newest: dict[str, Newest], asked: Moment) -> Snapshot:
        rows: dict[str, Row] = {}
        ratios: dict[str, TierRatios] = {}
        moments: dict[str, Moment] = {}
        for pair in pairs:
            found = newest.get(pair)
            row = found.recorded.row if found else None
            rows[pair] = row or Unreadable(
                "the bot that stores the accounts does not read it; it is asked to"
            )
            moments[pair] = self._moment(pair, found, asked) if found and row else asked
            tiers = found.recorded.tier_ratios if found else None
            if tiers:
                ratios[pair] = tiers
        return Snapshot(
            asked_at=max(moments.values(), default=asked),
            rows=MappingProxyType(rows),
            symbols=MappingProxyType({}),
            ratios=MappingProxyType(ratios),
            moments=MappingProxyType(moments),
            trouble=next((found.trouble for found in newest.values() if found.trouble), None),
        )

    def _moment(self, pair: str, found: Newest, asked: Moment) -> Moment:
        """Return when the exchange was asked, on this machine's clocks."""
        at = asked.before(found.age_seconds)
        read_at, before = self._seen.get(pair, (None, at))
        if read_at == found.recorded.read_at:
            # The same read cannot have become younger, whatever the database's clock says now.
            at = min(at, before)
        self._seen[pair] = (found.recorded.read_at, at)
        return at

    def _want(self, missing: Collection[str]) -> None:
        now = self._clock()
        due = [
            pair
            for pair in missing
            if pair not in self._wanted or self._wanted[pair].age(now) > _WANT_AGAIN_SECONDS
        ]
        if due:
            self._history.want({spot_pair(pair) for pair in due})
            self._wanted.update(dict.fromkeys(due, now))
