"""Keeps the newest accounts and their age.

`Reader` reads once, `Monitor` does so again and again in a thread of its own, and backs off while reading
fails. Whoever asks gets the newest reading at once, without a lock and without the network.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from freqtrade_isolated_margin.binance.adapter import TOO_MUCH_WEIGHT
from freqtrade_isolated_margin.binance.clock import Moment
from freqtrade_isolated_margin.binance.reader import AccountsReader, Snapshot
from freqtrade_isolated_margin.errors import (
    AnswerError,
    CredentialsError,
    IsolatedMarginError,
    UnavailableError,
)

logger = logging.getLogger(__name__)


THREAD_NAME = "isolated-margin-reader"
_LONGEST_BACKOFF = 60.0
_RATE_LIMITED = {429, 418}
_RATE_LIMITED_BACKOFF = 600.0
_CREDENTIALS_BACKOFF = 300.0
# After a read has taken this long it is given up, and another thread reads: a server may trickle for hours.
_HANGING_SECONDS = 60.0
_MOST_HANGING = 3
# Pairs asked about out of turn, and pairs that followers want: each is one row more in every answer.
_MOST_ALSO = 50
_MOST_WANTED = 200
_MOST_NAMED = 10


class Observer(Protocol):
    """Whoever wants to know what every read of a `Monitor` came to, in its thread, which it must not stop."""

    def succeeded(self, snapshot: Snapshot) -> None:
        """Take note of a read."""

    def failed(self, trouble: str) -> None:
        """Take note that the accounts could not be read, and why."""


class _Worker(threading.Thread):
    """One thread that reads. `stopped` ends it, and what it reads after that no longer counts."""

    def __init__(self, serve: Callable[[_Worker], None]) -> None:
        super().__init__(name=THREAD_NAME, daemon=True)
        self.stopped = threading.Event()
        self.reader: AccountsReader | None = None
        self._serve = serve

    def run(self) -> None:
        """Read until stopped."""
        self._serve(self)

    @property
    def hangs(self) -> bool:
        """Whether one request of its takes longer than any answer is worth waiting for."""
        since = self.reader.asking_since if self.reader else None
        return since is not None and time.monotonic() - since > _HANGING_SECONDS


class Monitor:
    """Reads in the background, from `start` until `stop`, and hands out the newest.

    `snapshot`, `trouble` and `watch` may be used from any thread, do no input or output, and never raise.
    """

    def __init__(
        self,
        make_reader: Callable[[], AccountsReader],
        refresh_seconds: float,
        *,
        borrowed: bool = False,
        observers: Sequence[Observer] = (),
        clock: Callable[[], Moment] = Moment.now,
    ) -> None:
        self._make_reader = make_reader
        self._refresh_seconds = refresh_seconds
        self._borrowed = borrowed
        self._observers = observers
        self._clock = clock
        self._pairs: frozenset[str] = frozenset()
        self._also: frozenset[str] = frozenset()
        self._wanted: frozenset[str] = frozenset()
        self._left_out: frozenset[str] = frozenset()
        self._snapshot: Snapshot | None = None
        self._problem: IsolatedMarginError | None = None
        self._trouble: str | None = None
        self._failing_since = 0.0
        self._failures = 0
        self._worker: _Worker | None = None
        self._hanging: list[_Worker] = []

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest successful read; the same object until the next one."""
        return self._snapshot

    @property
    def problem(self) -> IsolatedMarginError | None:
        """Why the newest attempt to read failed; None if it did not."""
        return self._problem

    @property
    def trouble(self) -> str | None:
        """Why the accounts cannot be read, since when, and when the next attempt is; None if they can."""
        snapshot = self._snapshot
        return self._trouble or (snapshot.trouble if snapshot else None)

    @property
    def pairs(self) -> frozenset[str]:
        """The pairs whose accounts are read."""
        return self.own_pairs | self._wanted

    @property
    def own_pairs(self) -> frozenset[str]:
        """Those of them that this bot needs itself."""
        return self._pairs | self._also

    def watch(self, pairs: Iterable[str]) -> None:
        """Read the accounts of `pairs` from the next refresh on."""
        self._pairs = frozenset(pairs)

    def also_watch(self, pair: str) -> None:
        """Read the account of one more pair from the next refresh on, for as long as this runs."""
        if pair not in self.own_pairs and len(self._also) < _MOST_ALSO:
            self._also |= {pair}

    def want(self, pairs: Collection[str]) -> None:
        """Read for others the accounts of `pairs`, and no more of those before, from the next refresh on."""
        wanted = set(pairs) - self._pairs
        # Those that are read already first, so that they do not change from time to time.
        first = sorted(wanted, key=lambda pair: (pair not in self._wanted, pair))
        self._wanted, left_out = frozenset(first[:_MOST_WANTED]), frozenset(first[_MOST_WANTED:])
        if left_out - self._left_out:
            named = sorted(left_out)[:_MOST_NAMED]
            more = f" and {len(left_out) - len(named)} more" if len(left_out) > len(named) else ""
            logger.warning(
                "Followers want the accounts of %s pairs, and at most %s are read for them; left out: %s%s.",
                len(wanted),
                _MOST_WANTED,
                ", ".join(named),
                more,
            )
        self._left_out = left_out

    def start(self) -> None:
        """Begin to read, or begin again where the thread that reads has died or hangs."""
        worker = self._worker
        if worker and worker.is_alive():
            if not worker.hangs or not self._give_up(worker):
                return
        elif worker:
            logger.error("The thread that reads the isolated margin accounts has died; starting another.")
        self._worker = _Worker(self._serve)
        self._worker.start()

    def _give_up(self, worker: _Worker) -> bool:
        """Leave a hanging worker to itself; False where too many hang already to start yet another."""
        self._hanging = [other for other in self._hanging if other.is_alive()]
        if len(self._hanging) >= _MOST_HANGING:
            return False
        logger.error("A read of the isolated margin accounts hangs; it is given up, and another begins.")
        worker.stopped.set()
        self._hanging.append(worker)
        return True

    def stop(self, timeout: float = 2.0) -> None:
        """End reading. A request that is under way is not waited for longer than `timeout` seconds."""
        worker, self._worker = self._worker, None
        if worker:
            worker.stopped.set()
            worker.join(timeout)

    def now(self) -> Moment:
        """Return the moment by the clocks that accounts are judged by."""
        return self._clock()

    def _serve(self, worker: _Worker) -> None:
        try:
            while not worker.stopped.is_set():
                started = time.monotonic()
                outcome = self._read(worker)
                if worker.stopped.is_set():
                    return
                wait = self._note(outcome)
                worker.stopped.wait(max(wait - (time.monotonic() - started), 0.0))
        finally:
            if worker.reader:
                worker.reader.close()

    def _read(self, worker: _Worker) -> Snapshot | IsolatedMarginError:
        try:
            worker.reader = worker.reader or self._make_reader()
            return worker.reader.read(self.pairs, borrowed=self._borrowed)
        except IsolatedMarginError as error:
            return error
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread lives on
            return AnswerError(f"reading fails unexpectedly ({type(error).__name__})")

    def _note(self, outcome: Snapshot | IsolatedMarginError) -> float:
        """Take in what a read came to; return the seconds from its start to the next."""
        if isinstance(outcome, IsolatedMarginError):
            return self._failed(outcome)
        self._snapshot = outcome
        if self._problem:
            logger.info("The isolated margin accounts are read again, after %s failures.", self._failures)
        self._problem, self._trouble, self._failures = None, None, 0
        self._tell(lambda observer: observer.succeeded(outcome))
        return max(self._refresh_seconds, outcome.pause)

    def _failed(self, problem: IsolatedMarginError) -> float:
        news = str(problem) != str(self._problem)
        now = time.time()
        if self._problem is None:
            self._failing_since = now
        self._problem = problem
        self._failures += 1
        wait = self._backoff(problem)
        since, again = _clock_time(self._failing_since), _clock_time(now + wait)
        self._trouble = f"{problem}; since {since}, next attempt {again}"
        if news:
            logger.warning("The isolated margin accounts cannot be read: %s.", self._trouble)
        trouble = self._trouble
        self._tell(lambda observer: observer.failed(trouble))
        return wait

    def _tell(self, what: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            try:
                what(observer)
            except Exception:
                logger.exception("Keeping the isolated margin accounts failed; reading them goes on.")

    def _backoff(self, problem: IsolatedMarginError) -> float:
        longest = _CREDENTIALS_BACKOFF if isinstance(problem, CredentialsError) else _LONGEST_BACKOFF
        asked_for = problem.retry_after if isinstance(problem, UnavailableError) else 0.0
        # Twice as long after each failure, and spread, so that many bots do not ask in step.
        doubled = self._refresh_seconds * 2.0 ** min(self._failures - 1, 16)
        if problem.status in _RATE_LIMITED or problem.code == TOO_MUCH_WEIGHT:
            # A second 429 says that the wait was too short, and the next may be a ban.
            doubled, longest = (
                asked_for * 2.0 ** min(self._failures - 1, 16),
                max(asked_for, _RATE_LIMITED_BACKOFF),
            )
        return max(min(doubled, longest), self._refresh_seconds, asked_for) * random.uniform(1.0, 1.2)


def _clock_time(wall: float) -> str:
    return f"{datetime.fromtimestamp(wall, UTC):%H:%M:%S} UTC"
