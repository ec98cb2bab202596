"""Keeps the newest accounts and their age.

`Reader` reads once, `Monitor` does so again and again in a thread of its own, and backs off while reading
fails. Whoever asks gets the newest reading at once, without a lock and without the network.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import NamedTuple, Protocol, TypeVar

from .account import Absent, AccountsAnswer, PairAccount, Row, Unreadable
from .adapter import MAX_SYMBOLS, TOO_MUCH_WEIGHT, IsolatedMarginAdapter, in_chunks
from .errors import AnswerError, CredentialsError, IsolatedMarginError, UnavailableError
from .margin import Tier, TierRatios, tier_ratios
from .rules import Reading

logger = logging.getLogger(__name__)

T = TypeVar("T")

THREAD_NAME = "isolated-margin-reader"

# Errors that one symbol of several can cause: unknown symbol, and no margin account (API, error codes).
_SYMBOL_CODES = {-1121, -3003, -11001}
_TIERS_A_READ = 5
_BY_NAME_A_READ = 10
_TIERS_SECONDS = 24 * 3600.0
_RETRY_SECONDS = 600.0
_ABSENT_SECONDS = 3600.0
_MARKETS_SECONDS = 3600.0
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


class Moment(NamedTuple):
    """One instant on both clocks, in seconds: the monotonic one, and the wall clock's UNIX time."""

    monotonic: float
    wall: float

    @classmethod
    def now(cls) -> Moment:
        """Read both clocks."""
        return cls(time.monotonic(), time.time())

    def before(self, seconds: float) -> Moment:
        """Return the moment so many seconds earlier."""
        return Moment(self.monotonic - seconds, self.wall - seconds)

    @property
    def date(self) -> datetime:
        """The wall clock's time, in UTC."""
        return datetime.fromtimestamp(self.wall, UTC)

    def age(self, now: Moment) -> float:
        """Return the seconds since this moment: the larger of what the two clocks say.

        The monotonic clock stands still while a machine is suspended, the wall clock can be set.
        """
        return max(now.monotonic - self.monotonic, now.wall - self.wall)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that one read of the accounts told. `asked_at` is from before the request was sent."""

    asked_at: Moment
    rows: Mapping[str, Row]
    """By pair."""
    symbols: Mapping[str, str]
    """The market ids of the pairs that have one."""
    ratios: Mapping[str, TierRatios] = field(default_factory=dict)
    """Liquidation ratios by pair, where the exchange has told the tiers."""
    used_weight: int | None = None
    pause: float = 0.0
    """Seconds that the exchange asks to wait although the accounts were read."""
    moments: Mapping[str, Moment] = field(default_factory=dict)
    """When single pairs were asked for, where that was not at `asked_at`."""
    trouble: str | None = None
    """Why whoever asked the exchange cannot read it any more, where it was somebody else."""

    @property
    def read_at(self) -> datetime:
        """When the accounts were asked for, in UTC."""
        return self.asked_at.date

    def asked_at_of(self, pair: str) -> Moment:
        """Return when the pair's account was asked for."""
        return self.moments.get(pair, self.asked_at)

    def reading(self, pair: str, now: Moment, trouble: str | None = None) -> Reading:
        """Return what was read of the pair's account, and how old it is at `now`."""
        asked_at = self.asked_at_of(pair)
        return Reading(
            row=self.rows.get(pair),
            age_seconds=asked_at.age(now),
            tier_ratios=self.ratios.get(pair),
            trouble=trouble or self.trouble,
        )


class AccountsReader(Protocol):
    """Whoever reads the accounts for a `Monitor`, in its thread."""

    def read(self, pairs: Collection[str] | None = None, *, borrowed: bool = False) -> Snapshot:
        """Read the accounts of `pairs` once; raises `IsolatedMarginError` where nothing could be learnt."""

    @property
    def asking_since(self) -> float | None:
        """When the request that is under way was sent, on the monotonic clock; None if there is none."""

    def close(self) -> None:
        """Close the connections."""


class Observer(Protocol):
    """Whoever wants to know what every read of a `Monitor` came to, in its thread, which it must not stop."""

    def succeeded(self, snapshot: Snapshot) -> None:
        """Take note of a read."""

    def failed(self, trouble: str) -> None:
        """Take note that the accounts could not be read, and why."""


class Reader:
    """Reads the accounts of some pairs once, and remembers what need not be asked again."""

    def __init__(self, adapter: IsolatedMarginAdapter, clock: Callable[[], Moment] = Moment.now) -> None:
        self._adapter = adapter
        self._clock = clock
        self._all_only = False
        self._absent: dict[str, Moment] = {}
        self._refused: dict[str, tuple[Unreadable, Moment]] = {}
        self._tiers: dict[str, tuple[tuple[Tier, ...], Moment]] = {}
        self._markets_at: Moment | None = None

    def read(self, pairs: Collection[str] | None = None, *, borrowed: bool = False) -> Snapshot:
        """Read the accounts of `pairs`, or of every pair that has one.

        `borrowed` asks for the tiers of accounts without debt too.

        :raises IsolatedMarginError: where nothing could be learnt of any account.
        """
        symbols = self._symbols(pairs)
        asked_at = self._clock()
        answer = self._ask(None if pairs is None else set(symbols.values()))
        if pairs is None:
            known = self._adapter.pairs()
            symbols = {known[symbol]: symbol for symbol in answer.rows if symbol in known}
        rows: dict[str, Row] = dict.fromkeys(pairs or (), Unreadable("it has no spot market on Binance"))
        found, pause = self._found(answer, set(symbols.values()))
        rows |= {pair: found[symbol] for pair, symbol in symbols.items()}
        ratios, tiers_pause = self._ratios(symbols, rows, borrowed=borrowed)
        return Snapshot(
            asked_at=asked_at,
            rows=MappingProxyType(rows),
            symbols=MappingProxyType(symbols),
            ratios=MappingProxyType(ratios),
            used_weight=answer.used_weight,
            pause=max(pause, tiers_pause),
        )

    @property
    def asking_since(self) -> float | None:
        """When the request that is under way was sent, on the monotonic clock; None if there is none."""
        return self._adapter.asking_since

    def close(self) -> None:
        """Close the connections."""
        self._adapter.close()

    def _symbols(self, pairs: Collection[str] | None) -> dict[str, str]:
        self._adapter.load_markets()
        self._markets_at = self._markets_at or self._clock()
        ids = self._adapter.market_ids(list(pairs or ()))
        if None in ids.values() and self._markets_at.age(self._clock()) > _MARKETS_SECONDS:
            self._markets_at = self._clock()
            self._adapter.load_markets(reload=True)
            ids = self._adapter.market_ids(list(ids))
        return {pair: symbol for pair, symbol in ids.items() if symbol is not None}

    def _ask(self, symbols: set[str] | None) -> AccountsAnswer:
        if not symbols or len(symbols) > MAX_SYMBOLS or self._all_only:
            return self._adapter.fetch()
        try:
            answer = self._adapter.fetch(sorted(symbols))
        except UnavailableError as error:
            if error.code not in _SYMBOL_CODES or len(symbols) == 1:
                raise
            # One of them spoils the request for all: from now on only that one shall suffer.
            self._all_only = True
            return self._adapter.fetch()
        missing = {
            symbol: Unreadable("the answer has no row for it") for symbol in symbols - answer.rows.keys()
        }
        return AccountsAnswer(rows={**answer.rows, **missing}, used_weight=answer.used_weight)

    def _found(self, answer: AccountsAnswer, symbols: set[str]) -> tuple[dict[str, Row], float]:
        """Return the row of every symbol, and how long the exchange asks to wait before it is asked more."""
        rows: dict[str, Row] = {symbol: answer.rows[symbol] for symbol in symbols & answer.rows.keys()}
        missing = symbols - rows.keys()
        now = self._clock()
        for symbol in rows:
            self._absent.pop(symbol, None)
        for symbol, since in self._absent.items():
            if symbol in missing and since.age(now) < _ABSENT_SECONDS:
                rows[symbol] = Absent("no isolated margin account")
        for symbol, (row, since) in self._refused.items():
            if symbol in missing and since.age(now) < _RETRY_SECONDS:
                rows[symbol] = row
        asked, pause = self._ask_once_more(sorted(missing - rows.keys()))
        return rows | asked, pause

    def _ask_once_more(self, symbols: list[str]) -> tuple[dict[str, Row], float]:
        """Ask by name for what an answer for all accounts did not have: only then may it count as absent."""
        rows: dict[str, Row] = {
            symbol: Unreadable("the answer for all accounts has no row for it") for symbol in symbols
        }
        waiting = in_chunks(symbols)
        for _ in range(_BY_NAME_A_READ):
            if not waiting:
                break
            chunk = waiting.pop(0)
            try:
                answer = self._adapter.fetch(chunk)
            except IsolatedMarginError as error:
                if error.code not in _SYMBOL_CODES:
                    return rows, error.retry_after if isinstance(error, UnavailableError) else 0.0
                if len(chunk) > 1:
                    waiting += [[symbol] for symbol in chunk]
                else:
                    rows[chunk[0]] = self._refuse(chunk[0], str(error))
                continue
            for symbol in chunk:
                # A pair without account has a placeholder row; no row at all is no answer.
                row = answer.rows.get(symbol) or self._refuse(symbol, "no answer has a row for it")
                rows[symbol] = row
                if isinstance(row, PairAccount) and row.is_absent:
                    self._absent[symbol] = self._clock()
        return rows, 0.0

    def _refuse(self, symbol: str, why: str) -> Unreadable:
        """Remember for a while that asking for `symbol` by name leads nowhere."""
        refused = Unreadable(why)
        self._refused[symbol] = (refused, self._clock())
        return refused

    def _ratios(
        self, symbols: Mapping[str, str], rows: Mapping[str, Row], *, borrowed: bool
    ) -> tuple[dict[str, TierRatios], float]:
        ratios: dict[str, TierRatios] = {}
        pause, left = 0.0, _TIERS_A_READ
        for pair, symbol in symbols.items():
            row = rows[pair]
            if not isinstance(row, PairAccount) or row.is_absent or not (row.has_debt or borrowed):
                continue
            if self._tiers_are_due(symbol) and left and not pause:
                left -= 1
                pause = self._read_tiers(symbol)
            tiers, _ = self._tiers.get(symbol, ((), None))
            found = tier_ratios(tiers, row.holdings)
            if found:
                ratios[pair] = found
        return ratios, pause

    def _tiers_are_due(self, symbol: str) -> bool:
        tiers, since = self._tiers.get(symbol, ((), None))
        keep = _TIERS_SECONDS if tiers else _RETRY_SECONDS
        return since is None or since.age(self._clock()) > keep

    def _read_tiers(self, symbol: str) -> float:
        """Read one symbol's tiers; without them its ratio comes from the published tables. Returns a wait."""
        try:
            self._tiers[symbol] = (self._adapter.fetch_tiers(symbol), self._clock())
        except IsolatedMarginError as error:
            logger.debug("The tiers of %s cannot be read: %s", symbol, error)
            # What was known stays better than nothing.
            old, _ = self._tiers.get(symbol, ((), None))
            self._tiers[symbol] = (old, self._clock())
            return error.retry_after if isinstance(error, UnavailableError) else 0.0
        return 0.0


PATIENCE_SECONDS = 60.0
"""How long a command waits for the exchange in all; each request has a shorter limit of its own."""


def within(seconds: float, read: Callable[[], T]) -> T:
    """Return what `read` returns, or raise what it raises, unless it takes longer than `seconds`.

    A server that trickles keeps every single limit; the thread that waits for it is left behind then.

    :raises UnavailableError: where it takes too long.
    """
    outcome: list[T | Exception] = []

    def run() -> None:
        try:
            outcome.append(read())
        except Exception as error:  # noqa: BLE001 - raised again below, in the thread that asked
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(max(seconds, 0))
    if not outcome:
        raise UnavailableError(f"Binance cannot be reached: no whole answer within {seconds:.0f} s")
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


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
    """Reads in the background, from `start` until `stop`, and hands out the newest reading of a pair.

    `reading` and `watch` may be called from any thread, do no input or output, and never raise.
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

    def reading(self, pair: str, snapshot: Snapshot | None, now: Moment | None = None) -> Reading:
        """Return what `snapshot`, the newest, knows of the pair's account, and its age now."""
        if snapshot is None:
            return Reading(None, trouble=self._trouble)
        return snapshot.reading(pair, now or self._clock(), self._trouble)

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
