"""`Reader` reads once and knows what need not be asked again; `Monitor` does it in a thread and backs off."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from support.builders import answer, long_row, placeholder, row

from freqtrade_isolated_margin.account.records import (
    Absent,
    AccountsAnswer,
    PairAccount,
    Unreadable,
    parse_answer,
)
from freqtrade_isolated_margin.account.tiers import Tier
from freqtrade_isolated_margin.binance.clock import Moment
from freqtrade_isolated_margin.binance.reader import Reader, Snapshot
from freqtrade_isolated_margin.errors import (
    AnswerError,
    CredentialsError,
    IsolatedMarginError,
    UnavailableError,
)
from freqtrade_isolated_margin.guard import monitor as monitor_module
from freqtrade_isolated_margin.guard.monitor import THREAD_NAME, Monitor

D = Decimal
SIX = [f"{base}/USDT" for base in ("BTC", "ETH", "BNB", "SOL", "XRP", "ADA")]
WAIT = 10.0


class Clock:
    """Both clocks, set by hand."""

    def __init__(self) -> None:
        self.monotonic = 1000.0
        self.wall = 1_800_000_000.0

    def __call__(self) -> Moment:
        """Read them."""
        return Moment(self.monotonic, self.wall)

    def pass_by(self, seconds: float) -> None:
        """Let time pass on both."""
        self.monotonic += seconds
        self.wall += seconds


class FakeAdapter:
    """Answers from rows by symbol; `errors` maps what is asked for to what is raised."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.unknown: set[str] = set()
        self.code = -11001
        self.used_weight: int | None = None
        self.error: IsolatedMarginError | None = None
        self.tiers: tuple[Tier, ...] = (_tier("1.05", 10_000), _tier("1.10", 20_000))
        self.tier_error: IsolatedMarginError | None = None
        self.asked: list[tuple[str, ...] | None] = []
        self.tiers_asked: list[str] = []
        self.loaded = 0
        self.closed = False
        self.markets = {pair: pair.replace("/", "") for pair in [*SIX, "DOGE/USDT"]}

    def load_markets(self, *, reload: bool = False) -> None:
        """Count it."""
        self.loaded += reload or not self.loaded

    def market_ids(self, pairs: list[str]) -> dict[str, str | None]:
        """Look pairs up."""
        return {pair: self.markets.get(pair.partition(":")[0]) for pair in pairs}

    def pairs(self) -> dict[str, str]:
        """Look symbols up."""
        return {symbol: pair for pair, symbol in self.markets.items()}

    def fetch(self, symbols: list[str] | None = None) -> AccountsAnswer:
        """Answer as Binance does: all that exist, or exactly the ones asked for."""
        self.asked.append(None if symbols is None else tuple(symbols))
        if self.error:
            raise self.error
        if symbols is None:
            return parse_answer(answer(*self.rows.values()), 10)
        if self.unknown & set(symbols):
            code = self.code
            raise UnavailableError(f"no such account (HTTP 400, code {code})", code=code, status=400)
        return parse_answer(answer(*[self.rows.get(name) or placeholder(name) for name in symbols]), 10)

    def fetch_tiers(self, symbol: str) -> tuple[Tier, ...]:
        """Answer the same tiers for all."""
        self.tiers_asked.append(symbol)
        if self.tier_error:
            raise self.tier_error
        return self.tiers

    def close(self) -> None:
        """Note it."""
        self.closed = True


def _tier(ratio: str, quote_limit: int) -> Tier:
    return Tier(D(10), D("1.111"), D(ratio), D(1), D(quote_limit))


@pytest.fixture
def clock() -> Clock:
    """Both clocks."""
    return Clock()


@pytest.fixture
def adapter() -> FakeAdapter:
    """An exchange with an account for each of the six pairs."""
    fake = FakeAdapter()
    fake.rows = {symbol: long_row(symbol=symbol) for symbol in (pair.replace("/", "") for pair in SIX)}
    return fake


@pytest.fixture
def reader(adapter: FakeAdapter, clock: Clock) -> Reader:
    """A reader of these."""
    return Reader(adapter, clock)  # type: ignore[arg-type]


# ----- reading once


def test_a_few_pairs_are_asked_for_by_name(adapter: FakeAdapter, reader: Reader) -> None:
    """And found by their pairs."""
    snapshot = reader.read(SIX[:2])
    assert adapter.asked == [("BTCUSDT", "ETHUSDT")]
    assert set(snapshot.rows) == {"BTC/USDT", "ETH/USDT"}
    assert snapshot.symbols["BTC/USDT"] == "BTCUSDT"


def test_more_pairs_are_read_with_all_accounts(adapter: FakeAdapter, reader: Reader) -> None:
    """In one request, and others' rows are left out."""
    adapter.rows["DOGEUSDT"] = long_row(symbol="DOGEUSDT")
    assert set(reader.read(SIX).rows) == set(SIX)
    assert adapter.asked == [None]


def test_no_pairs_named_are_all_that_have_an_account(adapter: FakeAdapter, reader: Reader) -> None:
    """By the pairs that their symbols are of; what is no market is left out."""
    adapter.rows["OLDUSDT"] = long_row(symbol="OLDUSDT")
    assert set(reader.read().rows) == set(SIX)


def test_a_futures_pair_and_its_spot_pair_are_one_account(adapter: FakeAdapter, reader: Reader) -> None:
    """Asked for once."""
    rows = reader.read(["BTC/USDT", "BTC/USDT:USDT"]).rows
    assert adapter.asked == [("BTCUSDT",)]
    assert rows["BTC/USDT"] == rows["BTC/USDT:USDT"]


def test_a_pair_without_spot_market_is_unreadable(reader: Reader) -> None:
    """Which blocks it, and not the others."""
    rows = reader.read(["NO/USDT", "BTC/USDT"]).rows
    assert isinstance(rows["NO/USDT"], Unreadable)
    assert "no spot market" in rows["NO/USDT"].why
    assert isinstance(rows["BTC/USDT"], PairAccount)


def test_markets_are_loaded_again_for_an_unknown_pair_after_an_hour(
    adapter: FakeAdapter, reader: Reader, clock: Clock
) -> None:
    """It may have been listed since; not in each read."""
    for seconds in (0, 10, 3580, 20, 10):
        clock.pass_by(seconds)
        reader.read(["NO/USDT", "BTC/USDT"])
    assert adapter.loaded == 2


def test_a_pair_that_is_missing_from_all_accounts_is_asked_for_once_by_name(
    adapter: FakeAdapter, reader: Reader
) -> None:
    """Its placeholder makes it absent, and it is not asked for again."""
    del adapter.rows["BTCUSDT"]
    for _ in range(3):
        row_read = reader.read(SIX).rows["BTC/USDT"]
        assert isinstance(row_read, Absent) or (isinstance(row_read, PairAccount) and row_read.is_absent)
    assert adapter.asked == [None, ("BTCUSDT",), None, None]


def test_a_pair_that_is_missing_by_name_as_well_is_unreadable(adapter: FakeAdapter, clock: Clock) -> None:
    """A pair without an account has a placeholder row; none at all says nothing."""
    del adapter.rows["BTCUSDT"]
    original = adapter.fetch
    adapter.fetch = lambda symbols=None: original() if symbols is None else parse_answer(answer())  # type: ignore[method-assign]
    assert isinstance(Reader(adapter, clock).read(SIX).rows["BTC/USDT"], Unreadable)  # type: ignore[arg-type]


def test_until_it_was_asked_for_by_name_a_missing_pair_is_unreadable(
    adapter: FakeAdapter, clock: Clock
) -> None:
    """The second request failed: nobody knows, and the next read asks again."""
    del adapter.rows["BTCUSDT"]
    original, failing = adapter.fetch, [True]

    def fetch(symbols: list[str] | None = None) -> AccountsAnswer:
        if symbols and failing:
            failing.pop()
            raise UnavailableError("HTTP 503", status=503, retry_after=7)
        return original(symbols)

    adapter.fetch = fetch  # type: ignore[method-assign]
    reader = Reader(adapter, clock)  # type: ignore[arg-type]
    first = reader.read(SIX)
    assert isinstance(first.rows["BTC/USDT"], Unreadable)
    assert isinstance(first.rows["ETH/USDT"], PairAccount)
    assert first.pause == 7
    second = reader.read(SIX).rows["BTC/USDT"]
    assert isinstance(second, PairAccount)
    assert second.is_absent


def test_an_absent_pair_that_appears_is_read(adapter: FakeAdapter, reader: Reader) -> None:
    """And if it is gone again it is asked for again."""
    kept = adapter.rows.pop("BTCUSDT")
    reader.read(SIX)
    adapter.rows["BTCUSDT"] = kept
    appeared = reader.read(SIX).rows["BTC/USDT"]
    assert isinstance(appeared, PairAccount)
    assert appeared.has_debt
    del adapter.rows["BTCUSDT"]
    reader.read(SIX)
    assert adapter.asked.count(("BTCUSDT",)) == 2


def test_a_pair_that_is_missing_from_an_answer_by_name_is_unreadable(
    adapter: FakeAdapter, clock: Clock
) -> None:
    """It was asked for and did not come: that says nothing."""
    adapter.fetch = lambda _=None: parse_answer(answer(long_row(symbol="ETHUSDT")))  # type: ignore[method-assign]
    rows = Reader(adapter, clock).read(SIX[:2]).rows  # type: ignore[arg-type]
    assert isinstance(rows["BTC/USDT"], Unreadable)
    assert isinstance(rows["ETH/USDT"], PairAccount)


@pytest.mark.parametrize("pairs", [SIX[:2], [*SIX, "DOGE/USDT"]], ids=["by name", "all"])
@pytest.mark.parametrize("code", [-11001, -3003, -1121, -3028, -3027, -1128, -3999, -99999])
def test_a_symbol_that_is_refused_hurts_only_itself(
    adapter: FakeAdapter, reader: Reader, clock: Clock, pairs: list[str], code: int
) -> None:
    """Whatever the code; it is said, and the symbol is not asked for again for ten minutes."""
    adapter.code = code
    del adapter.rows["BTCUSDT"]
    adapter.unknown = {"BTCUSDT"}
    rows = reader.read(pairs).rows
    assert isinstance(rows["BTC/USDT"], Unreadable)
    assert f"code {code}" in rows["BTC/USDT"].why
    assert isinstance(rows["ETH/USDT"], PairAccount)
    before = len(adapter.asked)
    clock.pass_by(599)
    assert isinstance(reader.read(pairs).rows["BTC/USDT"], Unreadable)
    assert adapter.asked[before:] == [None]
    clock.pass_by(2)
    reader.read(pairs)
    assert ("BTCUSDT",) in adapter.asked[before + 1 :]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (-1003, 429),
        (-1003, 400),
        (-3028, 418),
        (-3028, 429),
        (-1021, 400),
        (-1007, 400),
        (-3028, 500),
        (None, 400),
    ],
)
def test_a_refusal_of_all_is_not_asked_about_symbol_by_symbol(
    adapter: FakeAdapter, reader: Reader, code: int | None, status: int
) -> None:
    """Too many requests, the clock, an exchange in trouble, no code: more requests make nothing better."""
    adapter.error = UnavailableError("no", code=code, status=status)
    with pytest.raises(UnavailableError):
        reader.read(SIX[:3])
    assert len(adapter.asked) == 1


def test_a_refused_key_is_not_asked_about_symbol_by_symbol(adapter: FakeAdapter, reader: Reader) -> None:
    """It would count as an attack."""
    adapter.error = CredentialsError("no", code=-2015, status=400)
    with pytest.raises(CredentialsError):
        reader.read(SIX[:3])
    assert len(adapter.asked) == 1


def test_several_refused_symbols_hurt_only_themselves(adapter: FakeAdapter, reader: Reader) -> None:
    """Two of seven, the others have accounts or none."""
    for symbol in ("BTCUSDT", "ETHUSDT"):
        del adapter.rows[symbol]
    adapter.unknown, adapter.code = {"BTCUSDT", "ETHUSDT"}, -3028
    rows = reader.read([*SIX, "DOGE/USDT"]).rows
    refused = {pair for pair, row in rows.items() if isinstance(row, Unreadable)}
    assert refused == {"BTC/USDT", "ETH/USDT"}


def test_where_the_answer_for_all_is_refused_too_each_is_asked(adapter: FakeAdapter, reader: Reader) -> None:
    """And those that answer are read."""
    adapter.unknown, adapter.code, whole = {"BTCUSDT"}, -3028, adapter.fetch

    def fetch(symbols: list[str] | None = None) -> AccountsAnswer:
        if symbols is None:
            adapter.asked.append(None)
            raise UnavailableError("not now", code=-3999, status=400)
        return whole(symbols)

    adapter.fetch = fetch  # type: ignore[method-assign]
    rows = reader.read(SIX[:3]).rows
    assert [type(rows[pair]) for pair in SIX[:3]] == [Unreadable, PairAccount, PairAccount]


def test_where_every_symbol_is_refused_the_read_fails_and_asks_seldom(
    adapter: FakeAdapter, reader: Reader, clock: Clock
) -> None:
    """As without any isolated account; with Binance's words, and one request a read for ten minutes."""
    adapter.error = UnavailableError("no account (HTTP 400, code -11001)", code=-11001, status=400)
    with pytest.raises(UnavailableError, match="-11001"):
        reader.read(SIX[:3])
    before = len(adapter.asked)
    for _ in range(3):
        clock.pass_by(10)
        with pytest.raises(UnavailableError, match="-11001"):
            reader.read(SIX[:3])
    assert adapter.asked[before:] == [None] * 3


def test_a_single_symbol_that_is_refused_is_a_failure_to_read(adapter: FakeAdapter, reader: Reader) -> None:
    """-11001 is no absent account."""
    adapter.unknown = {"BTCUSDT"}
    with pytest.raises(UnavailableError):
        reader.read(["BTC/USDT"])


def test_a_failure_of_the_first_request_is_one_of_the_read(adapter: FakeAdapter, reader: Reader) -> None:
    """Nothing was learnt."""
    adapter.error = UnavailableError("HTTP 503")
    with pytest.raises(UnavailableError):
        reader.read(SIX)


def test_the_moment_is_that_before_the_request(adapter: FakeAdapter, clock: Clock) -> None:
    """An answer that took long is old when it comes."""
    original, asked_at = adapter.fetch, clock()

    def slow(symbols: list[str] | None = None) -> AccountsAnswer:
        clock.pass_by(9)
        return original(symbols)

    adapter.fetch = slow  # type: ignore[method-assign]
    snapshot = Reader(adapter, clock).read(["BTC/USDT"])  # type: ignore[arg-type]
    assert snapshot.asked_at == asked_at
    assert snapshot.reading("BTC/USDT", clock()).age_seconds == 9


# ----- tiers


def test_the_ratio_of_the_accounts_tier_is_told(adapter: FakeAdapter, reader: Reader) -> None:
    """By the debts: 1000 is in the first tier, 15,000 in the second."""
    adapter.rows["ETHUSDT"] = row("ETHUSDT", base_total=1, quote_debt=15_000)
    ratios = reader.read(SIX[:2]).ratios
    assert {pair: ratio.current for pair, ratio in ratios.items()} == {
        "BTC/USDT": D("1.05"),
        "ETH/USDT": D("1.10"),
    }


def test_tiers_are_asked_for_where_something_is_owed(adapter: FakeAdapter, reader: Reader) -> None:
    """Without debt only if entries borrow, and never for an absent account."""
    adapter.rows |= {"ETHUSDT": row("ETHUSDT", base_total=1), "BNBUSDT": placeholder("BNBUSDT")}
    reader.read(SIX[:3])
    assert adapter.tiers_asked == ["BTCUSDT"]
    reader.read(SIX[:3], borrowed=True)
    assert adapter.tiers_asked == ["BTCUSDT", "ETHUSDT"]


def test_tiers_are_kept_for_a_day(adapter: FakeAdapter, reader: Reader, clock: Clock) -> None:
    """They change rarely."""
    for seconds in (0, 3600, 80_000, 5000):
        clock.pass_by(seconds)
        reader.read(["BTC/USDT"])
    assert len(adapter.tiers_asked) == 2


def test_at_most_five_tiers_are_asked_for_in_a_read(adapter: FakeAdapter, reader: Reader) -> None:
    """The next read asks for the rest; until then the tables must do."""
    assert len(reader.read(SIX).ratios) == 5
    assert len(reader.read(SIX).ratios) == 6
    assert len(adapter.tiers_asked) == 6


def test_tiers_that_cannot_be_read_do_not_fail_the_read(
    adapter: FakeAdapter, reader: Reader, clock: Clock
) -> None:
    """They are asked for again after ten minutes, and what was known is kept."""
    adapter.tier_error = AnswerError("no")
    assert reader.read(["BTC/USDT"]).ratios == {}
    adapter.tier_error = None
    assert reader.read(["BTC/USDT"]).ratios == {}
    clock.pass_by(601)
    assert reader.read(["BTC/USDT"]).ratios["BTC/USDT"].current == D("1.05")
    adapter.tier_error = AnswerError("no")
    clock.pass_by(90_000)
    assert reader.read(["BTC/USDT"]).ratios["BTC/USDT"].current == D("1.05")


def test_a_limit_met_by_the_tiers_pauses_all(adapter: FakeAdapter, reader: Reader) -> None:
    """The accounts were read, but the exchange wants to be left alone: no further tiers are asked for."""
    adapter.tier_error = UnavailableError("HTTP 429", retry_after=33)
    assert reader.read(SIX).pause == 33
    assert len(adapter.tiers_asked) == 1


# ----- age


@pytest.mark.parametrize(
    ("monotonic", "wall", "age"), [(5, 5, 5), (5, 3600, 3600), (3600, 5, 3600), (5, -3600, 5), (0, 0, 0)]
)
def test_the_age_is_the_larger_of_both_clocks(monotonic: float, wall: float, age: float) -> None:
    """A suspended machine stops one, a set clock changes the other."""
    then = Moment(100, 1000)
    assert then.age(Moment(100 + monotonic, 1000 + wall)) == age


def test_a_snapshot_tells_when_it_was_asked_for(clock: Clock) -> None:
    """In UTC."""
    assert Snapshot(clock(), {}, {}).read_at.isoformat() == "2027-01-15T08:00:00+00:00"


def test_a_pair_that_is_not_in_a_snapshot_was_never_read(clock: Clock) -> None:
    """Its row is None, and not absent."""
    assert Snapshot(clock(), {}, {}).reading("BTC/USDT", clock()).row is None


# ----- the thread


class FakeReader:
    """Does what it is told, read by read, and lets a test wait for it."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.todo: list[BaseException | None] = []
        self.reads = threading.Semaphore(0)
        self.pairs: list[frozenset[str]] = []
        self.closed = threading.Event()
        self.pause = 0.0
        self.asking_since: float | None = None

    def read(self, pairs: frozenset[str], *, borrowed: bool = False) -> Snapshot:
        """Raise what is next, or return a snapshot."""
        self.pairs.append(pairs)
        self.reads.release()
        problem = self.todo.pop(0) if self.todo else None
        if problem:
            raise problem
        return Snapshot(self.clock(), dict.fromkeys(pairs, Absent("none")), {}, pause=self.pause)

    def close(self) -> None:
        """Note it."""
        self.closed.set()


@pytest.fixture
def fake_reader(clock: Clock) -> FakeReader:
    """A reader without an exchange."""
    return FakeReader(clock)


@pytest.fixture
def monitor(fake_reader: FakeReader, clock: Clock) -> Iterator[Monitor]:
    """A monitor that reads every ten seconds; its thread does not run."""
    built = Monitor(lambda: fake_reader, 10.0, clock=clock)  # type: ignore[arg-type, return-value]
    built.watch(["BTC/USDT"])
    yield built
    built.stop()


@pytest.fixture
def attempt(monitor: Monitor, fake_reader: FakeReader) -> Callable[..., float]:
    """One turn of the thread's loop in this thread, which returns how long it would wait then."""

    class Once:
        """Ends the loop where it would begin to wait."""

        def __init__(self) -> None:
            self.stopped = self
            self.reader: object = None
            self.waited: float | None = None

        def is_set(self) -> bool:
            return self.waited is not None

        def wait(self, seconds: float) -> None:
            self.waited = round(seconds, 1)

    def turn(problem: BaseException | None = None) -> float:
        fake_reader.todo = [problem]
        once = Once()
        monitor._serve(once)  # type: ignore[arg-type]
        assert once.waited is not None
        return once.waited

    return turn


def test_before_the_first_read_nothing_is_known(monitor: Monitor) -> None:
    """No snapshot, no problem, no trouble."""
    assert monitor.snapshot is None
    assert monitor.problem is None
    assert monitor.trouble is None


def test_a_good_read_waits_for_the_next_refresh(attempt: Callable[..., float], monitor: Monitor) -> None:
    """And hands out what it read."""
    assert attempt() == 10
    assert monitor.snapshot is not None
    assert isinstance(monitor.snapshot.rows["BTC/USDT"], Absent)


def test_a_reading_grows_old(attempt: Callable[..., float], monitor: Monitor, clock: Clock) -> None:
    """By the larger of both clocks."""
    attempt()
    clock.wall += 500
    assert monitor.snapshot is not None
    assert monitor.snapshot.reading("BTC/USDT", monitor.now()).age_seconds == 500


def test_a_failure_keeps_what_was_read_and_tells_the_trouble(
    attempt: Callable[..., float], monitor: Monitor
) -> None:
    """The account ages; it is not forgotten, nor made young."""
    attempt()
    before = monitor.snapshot
    attempt(UnavailableError("HTTP 503"))
    assert monitor.snapshot is before
    trouble = monitor.trouble
    assert trouble is not None
    assert re.fullmatch(r"HTTP 503; since [0-9:]{8} UTC, next attempt [0-9:]{8} UTC", trouble)
    attempt()
    assert monitor.trouble is None


def test_the_backoff_grows_to_a_minute_and_ends_with_a_success(attempt: Callable[..., float]) -> None:
    """About 10, 20, 40, then 60 seconds, spread by up to a fifth."""
    waits = [attempt(UnavailableError("no")) for _ in range(6)]
    for wait, base in zip(waits, [10, 20, 40, 60, 60, 60], strict=True):
        assert base <= wait <= base * 1.2
    assert attempt() == 10
    assert attempt(UnavailableError("no")) <= 12


def test_the_backoff_never_ends_in_an_error(attempt: Callable[..., float]) -> None:
    """After thousands of failures it is still a minute."""
    assert max(attempt(UnavailableError("no")) for _ in range(3000)) <= 72


def test_retry_after_is_waited_for(attempt: Callable[..., float]) -> None:
    """However long, never less, and not less than the backoff."""
    assert 5000 <= attempt(UnavailableError("ban", retry_after=5000)) <= 6000
    assert attempt(UnavailableError("limit", retry_after=1)) >= 20


@pytest.mark.parametrize(("status", "code"), [(429, None), (418, None), (400, -1003)])
def test_a_limit_that_is_met_again_is_waited_for_longer(
    attempt: Callable[..., float], status: int, code: int | None
) -> None:
    """Twice as long after each, up to ten minutes: the next might be a ban."""
    limit = UnavailableError("limit", status=status, code=code, retry_after=60)
    waits = [attempt(limit) for _ in range(6)]
    for wait, base in zip(waits, [60, 120, 240, 480, 600, 600], strict=True):
        assert base <= wait <= base * 1.2


def test_a_pause_after_a_good_read_is_waited_for(
    attempt: Callable[..., float], fake_reader: FakeReader
) -> None:
    """The exchange asked for it in a side request."""
    fake_reader.pause = 120
    assert attempt() == 120


def test_refused_credentials_are_not_hammered(attempt: Callable[..., float]) -> None:
    """The wait grows to five minutes."""
    waits = [attempt(CredentialsError("no")) for _ in range(8)]
    assert 300 <= waits[-1] <= 360


def test_a_long_refresh_is_not_shortened_by_a_failure() -> None:
    """Where one read in ten minutes was asked for, a failure does not make it more."""
    patient = Monitor(lambda: None, 600.0)  # type: ignore[arg-type, return-value]
    assert 600 <= patient._failed(UnavailableError("no")) <= 720


def test_an_unexpected_exception_is_a_failure_like_others(
    attempt: Callable[..., float], monitor: Monitor
) -> None:
    """The thread lives on; the message names the kind and repeats nothing of it."""
    attempt(RuntimeError("https://…signature=abc"))
    assert isinstance(monitor.problem, AnswerError)
    assert "RuntimeError" in str(monitor.problem)
    assert "signature" not in str(monitor.problem)


def test_trouble_is_logged_once_per_change(
    attempt: Callable[..., float], caplog: pytest.LogCaptureFixture
) -> None:
    """Its beginning, its change and its end, but not each attempt."""
    caplog.set_level(logging.INFO)
    problems = [None, "a", "a", "a", "b", "b", None, None, "a", None]
    for problem in problems:
        attempt(UnavailableError(problem) if problem else None)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 5
    assert [line.split(": ")[1][0] if ": " in line else "back" for line in lines] == [
        "a",
        "b",
        "back",
        "a",
        "back",
    ]
    assert "next attempt" in lines[0]
    assert "after 5 failures" in lines[2]


def threads() -> list[threading.Thread]:
    """Return the threads that read."""
    return [thread for thread in threading.enumerate() if thread.name == THREAD_NAME]


def test_a_started_monitor_reads_at_once_and_ends_at_stop(monitor: Monitor, fake_reader: FakeReader) -> None:
    """In one thread, which closes its reader and is gone."""
    monitor.start()
    monitor.start()
    assert fake_reader.reads.acquire(timeout=WAIT)
    assert len(threads()) == 1
    monitor.stop()
    assert fake_reader.closed.is_set()
    assert not threads()
    assert fake_reader.pairs == [frozenset({"BTC/USDT"})]


def test_a_stopped_monitor_can_be_started_again(monitor: Monitor, fake_reader: FakeReader) -> None:
    """As after a reload of the bot."""
    for _ in range(3):
        monitor.start()
        assert fake_reader.reads.acquire(timeout=WAIT)
        monitor.stop()
    assert not threads()


def test_stopping_what_never_started_does_nothing(monitor: Monitor) -> None:
    """Nor does stopping twice."""
    monitor.stop()
    monitor.stop()
    assert not threads()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_died_is_replaced(
    clock: Clock, fake_reader: FakeReader, caplog: pytest.LogCaptureFixture
) -> None:
    """By the next start, and it is logged."""
    died = threading.Event()

    def make() -> FakeReader:
        if not died.is_set():
            died.set()
            raise SystemExit
        return fake_reader

    monitor = Monitor(make, 10.0, clock=clock)  # type: ignore[arg-type]
    monitor.start()
    assert died.wait(WAIT)
    for thread in threads():
        thread.join(WAIT)
    monitor.start()
    assert fake_reader.reads.acquire(timeout=WAIT)
    assert "has died" in caplog.text
    monitor.stop()
    assert not threads()


def test_a_read_that_hangs_does_not_hold_up_the_stop(clock: Clock) -> None:
    """The thread is left behind and ends by itself when its request does."""
    entered, released = threading.Event(), threading.Event()

    class Hanging(FakeReader):
        def read(self, pairs: frozenset[str], *, borrowed: bool = False) -> Snapshot:
            entered.set()
            assert released.wait(WAIT)
            return super().read(pairs, borrowed=borrowed)

    hanging = Hanging(clock)
    monitor = Monitor(lambda: hanging, 10.0, clock=clock)  # type: ignore[arg-type, return-value]
    monitor.start()
    assert entered.wait(WAIT)
    monitor.stop(timeout=0.01)
    released.set()
    assert hanging.closed.wait(WAIT)
    for thread in threads():
        thread.join(WAIT)
    assert not threads()


def test_a_read_that_hangs_for_too_long_is_given_up(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The next start reads in another thread; what the first one reads in the end no longer counts."""
    monkeypatch.setattr(monitor_module, "_HANGING_SECONDS", -1.0)
    entered, released = threading.Event(), threading.Event()

    class Hanging(FakeReader):
        def read(self, pairs: frozenset[str], *, borrowed: bool = False) -> Snapshot:
            self.asking_since = time.monotonic()
            entered.set()
            assert released.wait(WAIT)
            return super().read(pairs, borrowed=borrowed)

    hanging, healthy = Hanging(clock), FakeReader(clock)
    readers = [hanging, healthy]
    monitor = Monitor(lambda: readers.pop(0), 10.0, clock=clock)  # type: ignore[arg-type, return-value]
    monitor.start()
    assert entered.wait(WAIT)
    monitor.start()
    assert healthy.reads.acquire(timeout=WAIT)
    monitor.stop()
    read = monitor.snapshot
    assert "hangs" in caplog.text
    released.set()
    assert hanging.closed.wait(WAIT)
    for thread in threads():
        thread.join(WAIT)
    assert monitor.snapshot is read
    assert not threads()


def test_the_pairs_to_read_can_change(
    monitor: Monitor, fake_reader: FakeReader, attempt: Callable[..., float]
) -> None:
    """From the next read on."""
    attempt()
    monitor.watch(["ETH/USDT", "ETH/USDT"])
    attempt()
    assert fake_reader.pairs == [frozenset({"BTC/USDT"}), frozenset({"ETH/USDT"})]


def test_pairs_that_others_want_are_read_for_as_long_as_they_want_them(
    monitor: Monitor, fake_reader: FakeReader, attempt: Callable[..., float]
) -> None:
    """A pair that was asked about out of turn stays."""
    monitor.also_watch("XRP/USDT")
    for wanted in ({"ETH/USDT", "BTC/USDT", "XRP/USDT"}, {"ADA/USDT"}, set[str]()):
        monitor.want(wanted)
        attempt()
    own = {"BTC/USDT", "XRP/USDT"}
    assert fake_reader.pairs == [own | {"ETH/USDT"}, own | {"ADA/USDT"}, own]
    assert monitor.own_pairs == own


def test_what_is_wanted_beyond_the_limit_is_left_out_and_named_once(
    monitor: Monitor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who is read already stays; there is room again when somebody wants less."""
    monkeypatch.setattr(monitor_module, "_MOST_WANTED", 2)
    monkeypatch.setattr(monitor_module, "_MOST_NAMED", 2)
    monitor.want({"D/E", "C/E", "BTC/USDT"})
    assert monitor.pairs == {"BTC/USDT", "C/E", "D/E"}
    for _ in range(3):
        monitor.want({"A/E", "B/E", "X/E", "C/E", "D/E"})
        assert monitor.pairs == {"BTC/USDT", "C/E", "D/E"}
    said = "Followers want the accounts of %s pairs, and at most 2 are read for them; left out: %s."
    assert caplog.messages == [said % (5, "A/E, B/E and 1 more")]
    monitor.want({"A/E", "D/E"})
    assert monitor.pairs == {"BTC/USDT", "A/E", "D/E"}
    monitor.want({"A/E", "B/E", "D/E"})
    assert caplog.messages[1:] == [said % (3, "B/E")]
