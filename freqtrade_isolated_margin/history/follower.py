"""Reads the accounts from the history that another bot writes, instead of from the exchange."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

from freqtrade_isolated_margin.account.records import Row, Unreadable
from freqtrade_isolated_margin.account.tiers import TierRatios
from freqtrade_isolated_margin.binance.clock import Moment
from freqtrade_isolated_margin.binance.reader import Snapshot
from freqtrade_isolated_margin.errors import UnavailableError
from freqtrade_isolated_margin.history.asking import History, Newest
from freqtrade_isolated_margin.history.tables import HistoryError, OtherAccountsError
from freqtrade_isolated_margin.rules.settings import spot_pair

_WANT_AGAIN_SECONDS = 120.0
_NOT_READ = "no bot that stores the accounts reads it"


class Whose:
    """Whose accounts a follower goes by, for as long as it runs: it must never change to another user's.

    All that one bot follows with shares one of these, also a reader that takes the place of a hanging one.
    """

    def __init__(self, configured: Sequence[str] = ()) -> None:
        self._configured = configured
        self._first: tuple[str, ...] | None = None
        self._lock = threading.Lock()

    def keys(self, history: History) -> tuple[str, ...]:
        """Return the ids of the API keys, as `History.keys`, and the same ones every time.

        :raises HistoryError: also where they have changed, as in a database that was made anew.
        """
        found = history.keys(self._configured)
        with self._lock:
            first = self._first = self._first or found
        if found != first:
            was, now = ", ".join(first), ", ".join(found)
            raise OtherAccountsError(
                f"the history database held the accounts of the API key {was} and now holds those of {now}: "
                "set history.keys to the one that is meant, or restart the bot"
            )
        return found


class HistoryReader:
    """A reader for `Monitor` that needs no key and costs the exchange nothing.

    The age of an account is counted from when the exchange was asked, by the database's clock, which the
    bot that read it and all that follow have in common.
    """

    def __init__(
        self,
        history: History,
        whose: Whose,
        clock: Callable[[], Moment] = Moment.now,
        *,
        asks: bool = True,
        choose: Callable[[Collection[str]], Collection[str] | None] | None = None,
    ) -> None:
        """Read what is stored; `asks` tells whether that shall ask others to read the pairs.

        `choose` takes the pairs of which an account is stored, and returns those to read, or None for them.
        """
        self._choose = choose
        self._history = history
        self._whose = whose
        self._clock = clock
        self._asks = asks
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

        A pair that is not among the stored ones is unreadable. Whoever reads is asked for all of `pairs`.

        :raises HistoryError: where the database cannot be read, or it is not clear whose accounts are meant.
        :raises UnavailableError: where no account was stored for an hour.
        """
        self._asking_since = time.monotonic()
        try:
            keys = self._whose.keys(self._history)
            # Before the database looks at its clock, so that the account is rather older than younger.
            asked = self._clock()
            stored = self._history.newest(None, keys)
            if self._choose:
                known = {pair for pair, newest in stored.items() if newest.recorded.kind == "account"}
                chosen = self._choose(known)
                pairs = known if chosen is None else chosen
            found = {pair: stored.get(spot_pair(pair)) for pair in (stored if pairs is None else pairs)}
            unasked = self._want(pairs or ()) if self._asks else None
        finally:
            self._asking_since = None
        if not stored:
            raise UnavailableError("no bot has stored the accounts in the history for an hour")
        return self._snapshot(found, asked, unasked)

    def _snapshot(self, found: Mapping[str, Newest | None], asked: Moment, unasked: str | None) -> Snapshot:
        rows: dict[str, Row] = {}
        ratios: dict[str, TierRatios] = {}
        moments: dict[str, Moment] = {}
        missing = Unreadable(f"{_NOT_READ} ({unasked or 'it is asked to'})" if self._asks else _NOT_READ)
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

    def _want(self, pairs: Collection[str]) -> str | None:
        """Ask for the pairs, again and again; return why that is not possible, if so.

        Also for those that are read: maybe only because they were asked for.
        """
        now = self._clock()
        due = [
            pair
            for pair in pairs
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
