"""Stores what is read and decided, in a thread of its own: nobody waits for the database."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import TypeVar

from .history import (
    ROW_SECONDS,
    WANTED_SECONDS,
    History,
    NewDecision,
    NewRead,
    Writer,
    milliseconds,
)
from .monitor import Moment, Snapshot
from .rules import EntryDecision
from .settings import spot_pair
from .tables import HistoryError

T = TypeVar("T")

logger = logging.getLogger(__name__)

THREAD_NAME = "isolated-margin-recorder"

# What waits for a database that is gone: reads for an hour at the default, and then the oldest are dropped.
_MOST_READS = 360
_MOST_DECISIONS = 20_000
_READS_AT_ONCE = 20
_LONGEST_BACKOFF = 60.0
_HANGING_SECONDS = 60.0
_RECALL_AGAIN_SECONDS = 600.0
_PURGE_SECONDS = 3600.0
_LOOK_SECONDS = WANTED_SECONDS / 10
_DAY_MS = 24 * 3600 * 1000
# Less is not worth a row of its own: a day of 20 shrunk pairs would take more than twice as much.
_FACTOR_STEP = Decimal("0.01")


class Recorder:
    """Stores one bot's reads and decisions. An observer of its `Monitor`; its methods never wait or raise."""

    def __init__(
        self,
        history: History,
        key: str | None,
        bot: str,
        retention_days: float,
        *,
        keys: Sequence[str] = (),
        want: Callable[[str], None] = lambda _pair: None,
        recall: Callable[[History], bool] = lambda _history: True,
    ) -> None:
        """Store under the API key of id `key`, or, for a bot that only follows, of what it follows (`keys`).

        `want` is told of the pairs that followers need. `recall` gets the history before something is stored,
        must not take long, and says whether it knows all that it wants to know of the time before.
        """
        self._history = history
        self._key = key
        self._keys = keys
        self._bot = bot
        self._retention_ms = round(retention_days * _DAY_MS)
        self._want = want
        self._recall = recall
        self._reads: deque[NewRead] = deque(maxlen=_MOST_READS)
        self._decisions: deque[NewDecision] = deque(maxlen=_MOST_DECISIONS)
        self._stored: dict[str, NewDecision] = {}
        self._trouble: str | None = None
        self._news = threading.Event()
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None
        self._writer: Writer | None = None
        self._problem: str | None = None
        self._recall_failed_at: Moment | None = None
        self._busy_since: float | None = None
        self._purged_at: Moment | None = None

    # ----- from the threads that read and decide

    def succeeded(self, snapshot: Snapshot) -> None:
        """Store the accounts of a read."""
        self._trouble = None
        if self._key is not None:
            asked = snapshot.asked_at
            new = NewRead(
                read_at=milliseconds(asked.wall),
                age_seconds=lambda: asked.age(Moment.now()),
                rows={spot_pair(pair): row for pair, row in snapshot.rows.items()},
                ratios={spot_pair(pair): ratios for pair, ratios in snapshot.ratios.items()},
            )
            self._reads.append(new)
            self._news.set()

    def failed(self, trouble: str) -> None:
        """Store why the accounts cannot be read."""
        self._trouble = trouble
        self._news.set()

    def decided(self, decision: EntryDecision, now: int) -> None:
        """Store a decision, at `now` in milliseconds, if it has changed or the last is a minute old.

        A factor between 0 and 1 moves with every read; it has changed when it is `_FACTOR_STEP` away. What it
        was in between follows from the accounts, which are all stored.
        """
        last = self._stored.get(decision.pair)
        unchanged = last and (last.decision is decision or _alike(last.decision, decision))
        # A clock that was set back begins anew.
        if last and unchanged and 0 <= now - last.at < ROW_SECONDS * 1000:
            return
        new = NewDecision(now, decision)
        self._stored[decision.pair] = new
        self._decisions.append(new)
        self._news.set()

    def start(self) -> None:
        """Begin to store, or begin again where the thread has died."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._serve, name=THREAD_NAME, daemon=True)
            self._thread.start()
        since = self._busy_since
        if since is not None and time.monotonic() - since > _HANGING_SECONDS:
            self._say(f"the database has not answered for more than {_HANGING_SECONDS:g} s")

    def wait_ready(self, seconds: float) -> bool:
        """Wait until `recall` knows all, or the database fails; at most so long."""
        return self._ready.wait(seconds)

    def stop(self, timeout: float = 5.0) -> None:
        """Store what waits, and end; a database that hangs is waited for at most `timeout` seconds."""
        self._stopping.set()
        self._news.set()
        if self._thread:
            self._thread.join(timeout)

    # ----- in its own thread

    def _serve(self) -> None:
        wait = 0.0
        try:
            while True:
                self._news.wait(_LOOK_SECONDS)
                self._news.clear()
                wait = 0.0 if self._store() else min(max(2 * wait, 1.0), _LONGEST_BACKOFF)
                if self._stopping.is_set() and (wait or not self._reads):
                    return
                if wait:
                    self._stopping.wait(wait)
                    self._news.set()
        finally:
            self._ready.set()
            self._history.close()

    def _store(self) -> bool:
        """Store what waits; False where the database cannot take it now."""
        self._busy_since = time.monotonic()
        try:
            self._store_all()
        except HistoryError as error:
            self._failed(str(error))
            return False
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread lives on
            self._failed(f"an error of the recorder ({type(error).__name__})")
            return False
        finally:
            self._busy_since = None
        if self._problem:
            logger.info("The history of the isolated margin accounts is stored again.")
            self._problem = None
        return True

    def _failed(self, problem: str) -> None:
        self._say(problem)
        self._writer = None
        # Whoever waits for the time before waits no longer.
        self._ready.set()

    def _say(self, problem: str) -> None:
        # A history that cannot be written is bad, but no reason to refuse or to end anything.
        # Of "cannot be written (locked)" and "cannot be prepared (locked)" only the first is news.
        cause = problem.partition(" (")[2] or problem
        if cause != self._problem:
            logger.error("The history of the isolated margin accounts cannot be stored: %s.", problem)
            self._problem = cause

    def _store_all(self) -> None:
        if self._writer is None:
            self._history.prepare()
            # Known only once a reader has stored something, where this bot follows.
            key = self._key or self._history.keys(self._keys)[0]
            self._writer = self._history.writer(key, self._bot)
        self._look_back()
        while True:
            reads = list(self._reads)[:_READS_AT_ONCE]
            decisions = list(self._decisions)
            for pair in sorted(self._writer.write(reads, decisions, self._trouble)):
                if self._key is not None:
                    self._want(pair)
            # Only now: what could not be stored is tried again.
            _drop(self._reads, reads)
            _drop(self._decisions, decisions)
            if not self._reads:
                break
        self._purge()

    def _look_back(self) -> None:
        now = Moment.now()
        if self._stopping.is_set() or (
            self._recall_failed_at and self._recall_failed_at.age(now) < _RECALL_AGAIN_SECONDS
        ):
            return
        try:
            if self._recall(self._history):
                self._ready.set()
            else:
                # The rest after what waits has been stored: followers live on it.
                self._news.set()
        except Exception as error:  # noqa: BLE001 - what charts show is not worth more than what is stored
            why = str(error) if isinstance(error, HistoryError) else type(error).__name__
            logger.info("Charts do not show yet what the history has of the time before: %s.", why)
            self._recall_failed_at = now
            self._ready.set()

    def _purge(self) -> None:
        now = Moment.now()
        if self._key is None or (self._purged_at and self._purged_at.age(now) < _PURGE_SECONDS):
            return
        self._purged_at = now
        self._history.purge(self._key, milliseconds(now.wall) - self._retention_ms)


def _alike(one: EntryDecision, other: EntryDecision) -> bool:
    same = (one.outcome, one.rule, one.side) == (other.outcome, other.rule, other.side)
    return same and abs(one.factor - other.factor) < _FACTOR_STEP


def _drop(queue: deque[T], done: list[T]) -> None:
    """Take what is done off the front; a full queue may have dropped some of it already."""
    for item in done:
        if queue and queue[0] is item:
            queue.popleft()
