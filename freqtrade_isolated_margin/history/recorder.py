"""Stores what is read and decided, in a thread of its own: nobody waits for the database."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from decimal import Decimal
from typing import TypeVar

from freqtrade_isolated_margin.binance.clock import Moment, milliseconds
from freqtrade_isolated_margin.binance.reader import Snapshot
from freqtrade_isolated_margin.history.asking import History
from freqtrade_isolated_margin.history.follower import Whose
from freqtrade_isolated_margin.history.tables import ROW_SECONDS, WANTED_SECONDS, HistoryError
from freqtrade_isolated_margin.history.writing import NewDecision, NewRead, Writer
from freqtrade_isolated_margin.rules.decide import EntryDecision
from freqtrade_isolated_margin.rules.settings import spot_pair

logger = logging.getLogger(__name__)


T = TypeVar("T")

THREAD_NAME = "isolated-margin-recorder"

# What waits for a database that is gone: reads for an hour at the default, and then the oldest are dropped.
_MOST_READS = 360
_MOST_DECISIONS = 20_000
_READS_AT_ONCE = 20
_LONGEST_BACKOFF = 60.0
# No statement takes that long: after it another thread stores, with connections of its own.
_HANGING_SECONDS = 60.0
_MOST_HANGING = 3
_RECALL_AGAIN_SECONDS = 600.0
# A machine may start with a wrong clock, by which everything is old, and has the time from the network then.
_FIRST_PURGE_SECONDS = 600.0
_PURGE_SECONDS = 3600.0
_LOOK_SECONDS = WANTED_SECONDS / 10
_DAY_MS = 24 * 3600 * 1000
# Less is not worth a row of its own: a day of 20 shrunk pairs would take more than twice as much.
_FACTOR_STEP = Decimal("0.01")


class _GivenUpError(HistoryError):
    """Ends what a thread was doing that nobody waits for any more."""


class _Worker(threading.Thread):
    """One thread that stores. Once it is `given_up` it stores nothing more, and ends when it wakes up."""

    def __init__(self, serve: Callable[[_Worker], None], *, first: bool) -> None:
        super().__init__(name=THREAD_NAME, daemon=True)
        self.given_up = threading.Event()
        self.first = first
        self.writer: Writer | None = None
        self.asking_since: float | None = None
        """When it began what is under way, or got the last answer, on the monotonic clock."""
        self._serve = serve

    def run(self) -> None:
        """Store until stopped."""
        self._serve(self)

    @property
    def hangs(self) -> bool:
        """Whether the database does not answer it."""
        since = self.asking_since
        return since is not None and time.monotonic() - since > _HANGING_SECONDS

    def before_each(self) -> None:
        """Take note that the database answers; raises where nobody waits for that any more."""
        if self.given_up.is_set():
            raise _GivenUpError("the database has answered too late")
        self.asking_since = time.monotonic()


class Recorder:
    """Stores one bot's reads and decisions. An observer of its `Monitor`; its methods never wait or raise."""

    def __init__(
        self,
        history: History,
        key: str | None,
        bot: str,
        retention_days: float,
        *,
        whose: Whose | None = None,
        want: Callable[[Collection[str]], None] = lambda _pairs: None,
        recall: Callable[[History], bool] = lambda _history: True,
    ) -> None:
        """Store under the API key of id `key`, or, for a bot that only follows, of what it follows (`whose`).

        `want` is told again and again of all pairs that followers need. `recall` gets the history before
        something is stored, must not take long, and says whether it knows all that it wants to know of the
        time before.
        """
        self._history = history
        self._key = key
        self._whose = whose or Whose()
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
        self._worker: _Worker | None = None
        self._hanging: list[_Worker] = []
        # Around what is done to the queues, never around a question to the database.
        self._lock = threading.Lock()
        self._problem: str | None = None
        self._recall_failed_at: Moment | None = None
        self._purge_at: float | None = None

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
            with self._lock:
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
        with self._lock:
            self._decisions.append(new)
        self._news.set()

    def start(self) -> None:
        """Begin to store, or begin again where the thread that stores has died or hangs."""
        worker = self._worker
        if self._purge_at is None:
            self._purge_at = time.monotonic() + _FIRST_PURGE_SECONDS
        if worker and worker.is_alive() and not (worker.hangs and self._give_up(worker)):
            return
        self._worker = _Worker(self._serve, first=worker is None)
        self._worker.start()

    def _give_up(self, worker: _Worker) -> bool:
        """Leave a hanging worker to itself; False where too many hang already to start yet another."""
        self._say(f"the database has not answered for more than {_HANGING_SECONDS:g} s")
        self._hanging = [other for other in self._hanging if other.is_alive()]
        if len(self._hanging) >= _MOST_HANGING:
            return False
        with self._lock:
            worker.given_up.set()
        self._hanging.append(worker)
        # There is something to do for the next one: what this one has not stored.
        self._news.set()
        return True

    def wait_ready(self, seconds: float) -> bool:
        """Wait until `recall` knows all, or the database fails; at most so long."""
        return self._ready.wait(seconds)

    def stop(self, timeout: float = 5.0) -> None:
        """Store what waits, and end; a database that hangs is waited for at most `timeout` seconds."""
        self._stopping.set()
        self._news.set()
        if self._worker:
            self._worker.join(timeout)

    # ----- in its own thread

    def _serve(self, worker: _Worker) -> None:
        wait = 0.0
        # Connections are not shared with one that hangs.
        history = self._history if worker.first else self._history.another()
        history.before_each(worker.before_each)
        try:
            while not worker.given_up.is_set():
                self._news.wait(_LOOK_SECONDS)
                if worker.given_up.is_set():
                    # The news is for another one.
                    return
                self._news.clear()
                wait = 0.0 if self._store(worker, history) else min(max(2 * wait, 1.0), _LONGEST_BACKOFF)
                if self._stopping.is_set() and (wait or not self._reads):
                    return
                if wait and not worker.given_up.is_set():
                    self._stopping.wait(wait)
                    self._news.set()
        finally:
            self._ready.set()
            history.close()

    def _store(self, worker: _Worker, history: History) -> bool:
        """Store what waits; False where the database cannot take it now."""
        worker.asking_since = time.monotonic()
        problem = None
        try:
            self._store_all(worker, history)
        except HistoryError as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread lives on
            problem = f"an error of the recorder ({type(error).__name__})"
        finally:
            worker.asking_since = None
        if worker.given_up.is_set():
            # Another one says how it goes on.
            return False
        if problem:
            worker.writer = None
            self._failed(problem)
            return False
        if self._problem:
            logger.info("The history of the isolated margin accounts is stored again.")
            self._problem = None
        return True

    def _failed(self, problem: str) -> None:
        self._say(problem)
        # Whoever waits for the time before waits no longer.
        self._ready.set()

    def _say(self, problem: str) -> None:
        # A history that cannot be written is bad, but no reason to refuse or to end anything.
        # Of "cannot be written (locked)" and "cannot be prepared (locked)" only the first is news.
        cause = problem.partition(" (")[2] or problem
        if cause != self._problem:
            logger.error("The history of the isolated margin accounts cannot be stored: %s.", problem)
            self._problem = cause

    def _store_all(self, worker: _Worker, history: History) -> None:
        if worker.writer is None:
            history.prepare()
            # Known only once a reader has stored something, where this bot follows.
            key = self._key or self._whose.keys(history)[0]
            worker.writer = history.writer(key, self._bot)
        self._look_back(worker, history)
        while True:
            with self._lock:
                reads = list(self._reads)[:_READS_AT_ONCE]
                decisions = list(self._decisions)
            wanted = worker.writer.write(reads, decisions, self._trouble)
            with self._lock:
                if worker.given_up.is_set():
                    return
                # Only now: what could not be stored is tried again.
                _drop(self._reads, reads)
                _drop(self._decisions, decisions)
            if self._key is not None:
                self._want(wanted)
            if not self._reads:
                break
        self._purge(history)

    def _look_back(self, worker: _Worker, history: History) -> None:
        now = Moment.now()
        if self._stopping.is_set() or (
            self._recall_failed_at and self._recall_failed_at.age(now) < _RECALL_AGAIN_SECONDS
        ):
            return
        try:
            if self._recall(history):
                self._ready.set()
            else:
                # The rest after what waits has been stored: followers live on it.
                self._news.set()
        except Exception as error:  # what charts show is not worth more than what is stored
            if worker.given_up.is_set():
                raise
            why = str(error) if isinstance(error, HistoryError) else type(error).__name__
            logger.info("Charts do not show yet what the history has of the time before: %s.", why)
            self._recall_failed_at = now
            self._ready.set()

    def _purge(self, history: History) -> None:
        now = Moment.now()
        # By the monotonic clock alone: the other one is set meanwhile.
        if self._key is None or self._purge_at is None or now.monotonic < self._purge_at:
            return
        self._purge_at = now.monotonic + _PURGE_SECONDS
        history.purge(self._key, milliseconds(now.wall) - self._retention_ms)


def _alike(one: EntryDecision, other: EntryDecision) -> bool:
    same = (one.outcome, one.rule, one.side) == (other.outcome, other.rule, other.side)
    return same and abs(one.factor - other.factor) < _FACTOR_STEP


def _drop(queue: deque[T], done: list[T]) -> None:
    """Take what is done off the front; a full queue may have dropped some of it already."""
    for item in done:
        if queue and queue[0] is item:
            queue.popleft()
