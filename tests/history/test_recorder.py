"""The recorder stores in the background: nobody waits for the database, and nothing is lost of what waits."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, func, make_url, select
from support.builders import long_row, parsed
from support.network import Wire, until, wire
from support.postgresql import PostgreSQL

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.account.records import PairAccount, Row, Unreadable
from freqtrade_isolated_margin.binance.clock import Moment, milliseconds
from freqtrade_isolated_margin.binance.reader import Snapshot
from freqtrade_isolated_margin.history import database as database_module
from freqtrade_isolated_margin.history import recorder as recorder_module
from freqtrade_isolated_margin.history import tables, writing
from freqtrade_isolated_margin.history.asking import Decided, History, Newest
from freqtrade_isolated_margin.history.follower import Whose
from freqtrade_isolated_margin.history.recorder import THREAD_NAME, Recorder
from freqtrade_isolated_margin.history.tables import HistoryError
from freqtrade_isolated_margin.history.writing import NewRead
from freqtrade_isolated_margin.rules.decide import EntryDecision, Reading, decide
from freqtrade_isolated_margin.rules.rules import Rules

KEY = "0a1b2c3d"
PAIR = "BTC/USDT"
# Some minutes ago, in milliseconds.
BEFORE = milliseconds(Moment.now().wall) - 600_000
AHEAD = 2**53
FAILS = "The history of the isolated margin accounts cannot be stored"
AGAIN = "The history of the isolated margin accounts is stored again."


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for for long."""
    monkeypatch.setattr(database_module, "_CONNECT_SECONDS", 1)
    monkeypatch.setattr(recorder_module, "_LONGEST_BACKOFF", 0.05)


@pytest.fixture
def run() -> Iterator[Callable[..., Recorder]]:
    """Return a function that starts a recorder, and end all of them."""
    running: list[Recorder] = []

    def started(url: str, key: str | None = KEY, **more: Any) -> Recorder:
        recorder = Recorder(History(url), key, "bot", 30, **more)
        recorder.start()
        running.append(recorder)
        return recorder

    yield started
    for recorder in running:
        recorder.stop()
    assert THREAD_NAME not in [thread.name for thread in threading.enumerate()]


def account(level: str = "3") -> PairAccount:
    """A pair's account that owes something."""
    row = parsed(long_row(level))
    assert isinstance(row, PairAccount)
    return row


def snapshot(level: str = "3", ago: float = 0.0, **rows: Row) -> Snapshot:
    """A read of BTC/USDT, so many seconds ago."""
    return Snapshot(Moment.now().before(ago), {PAIR: account(level), **rows}, {})


def judged(level: str = "1.1") -> EntryDecision:
    """A decision on BTC/USDT."""
    return decide(PAIR, Side.LONG, Reading(account(level)), Rules(), 60)


@contextmanager
def opened(url: str) -> Iterator[History]:
    """Look into a history by oneself."""
    history = History(url)
    try:
        yield history
    finally:
        history.close()


def levels(url: str, key: str = KEY) -> list[tuple[int, str]]:
    """Return what is stored of BTC/USDT: the moments and the margin levels, in the order of time."""
    with opened(url) as history:
        rows = history.accounts([PAIR], [key], 0, AHEAD)
        return [(known.read_at, f"{known.row.margin_level:f}") for _, known in rows]  # type: ignore[union-attr]


def decisions(url: str) -> list[Decided]:
    """Return the stored decisions."""
    with opened(url) as history:
        return list(history.decisions([], [KEY], 0, AHEAD))


def newest(url: str) -> Newest:
    """Return the newest that is stored of BTC/USDT."""
    with opened(url) as history:
        return history.newest({PAIR}, [KEY])[PAIR]


def there(url: str, count: int) -> Callable[[], list[tuple[int, str]] | None]:
    """Return a question whether so many accounts are stored."""

    def ask() -> list[tuple[int, str]] | None:
        try:
            found = levels(url)
        except HistoryError:
            return None
        return found if len(found) >= count else None

    return ask


def said(caplog: pytest.LogCaptureFixture, start: str) -> list[str]:
    """Return the messages that begin so."""
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith(start)]


def test_reads_and_decisions_are_stored(run: Callable[..., Recorder], url: str) -> None:
    """With their own times, and the decisions with their reasons."""
    recorder = run(url)
    first, second = snapshot("3", ago=20), snapshot("2")
    recorder.succeeded(first)
    recorder.decided(judged(), BEFORE)
    recorder.succeeded(second)
    recorder.stop()
    assert levels(url) == [
        (milliseconds(first.asked_at.wall), "3"),
        (milliseconds(second.asked_at.wall), "2"),
    ]
    assert [(found.at, found.outcome, found.bot) for found in decisions(url)] == [(BEFORE, "block", "bot")]


def test_a_decision_is_stored_when_it_changes_and_once_a_minute(
    run: Callable[..., Recorder], url: str
) -> None:
    """Also where the clock was set back meanwhile."""
    recorder = run(url)
    for second in (0, 5, 59, 60, 61):
        recorder.decided(judged(), BEFORE + second * 1000)
    recorder.decided(judged("1.5"), BEFORE + 62_000)
    recorder.decided(judged("1.5"), BEFORE + 5_000)
    recorder.stop()
    stored = [((found.at - BEFORE) // 1000, found.outcome) for found in decisions(url)]
    assert sorted(stored) == [(0, "block"), (5, "shrink"), (60, "block"), (62, "shrink")]


def test_a_factor_is_stored_once_it_has_moved_noticeably(run: Callable[..., Recorder], url: str) -> None:
    """By a hundredth since it was stored last, however slowly, and at once where it comes to a limit."""
    recorder = run(url)
    shrunk = ("1.5000", "1.5074", "1.4927", "1.5076", "1.5149", "1.5151", "1.25", "1.2501")
    for second, level in enumerate(shrunk):
        recorder.decided(judged(level), BEFORE + second * 1000)
    recorder.stop()
    stored = [((found.at - BEFORE) // 1000, found.outcome) for found in decisions(url)]
    assert stored == [(0, "shrink"), (3, "shrink"), (5, "shrink"), (6, "block"), (7, "shrink")]


def test_a_futures_pair_is_stored_under_its_spot_pair(run: Callable[..., Recorder], url: str) -> None:
    """It has the same account."""
    recorder = run(url)
    recorder.succeeded(Snapshot(Moment.now(), {f"{PAIR}:USDT": account()}, {}))
    recorder.stop()
    assert [level for _, level in levels(url)] == ["3"]


def test_why_nothing_can_be_read_is_stored_for_followers(run: Callable[..., Recorder], url: str) -> None:
    """And taken back with the next read that succeeds."""
    recorder = run(url)
    recorder.succeeded(snapshot(ago=1))
    until(there(url, 1))
    for trouble in ("it is on fire", None):
        if trouble:
            recorder.failed(trouble)
        else:
            recorder.succeeded(snapshot("2"))
        until(lambda trouble=trouble: newest(url).trouble == trouble)


def test_pairs_that_followers_want_are_told_to_the_reader_only(
    run: Callable[..., Recorder], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For as long as they want them; a follower's own recorder has nobody whom it could tell."""
    told: list[Collection[str]] = []
    recorder = run(url, want=told.append)
    recorder.succeeded(snapshot())
    until(there(url, 1))
    with opened(url) as history:
        history.want(["ADA/USDT", PAIR])
    recorder.succeeded(snapshot("2"))
    until(lambda: {"ADA/USDT", PAIR} in told)
    monkeypatch.setattr(writing, "WANTED_SECONDS", -1)
    recorder.succeeded(snapshot("3"))
    until(lambda: not told[-1])
    deaf = run(url, None, want=pytest.fail)
    deaf.decided(judged(), BEFORE)
    until(lambda: decisions(url))


# ----- a follower's


def test_a_follower_stores_its_decisions_once_a_reader_has_stored(
    run: Callable[..., Recorder], url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Under the key whose accounts it follows; what it reads itself is stored already."""
    follower = run(url, None)
    follower.succeeded(snapshot("2"))
    follower.decided(judged(), BEFORE)
    until(lambda: said(caplog, f"{FAILS}: the history database holds no accounts yet."))
    reader = run(url)
    reader.succeeded(snapshot("3"))
    until(lambda: decisions(url))
    assert [level for _, level in levels(url)] == ["3"]


def test_a_follower_of_two_keys_must_be_told_which(
    run: Callable[..., Recorder], url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With `history.keys` it stores under the first of them."""
    for key in (KEY, "ffffffff"):
        reader = run(url, key)
        reader.succeeded(snapshot())
        reader.stop()
    lost = run(url, None)
    lost.decided(judged(), BEFORE)
    until(lambda: any("2 API keys" in text for text in said(caplog, FAILS)))
    told = run(url, None, whose=Whose([KEY]))
    told.decided(judged("1.5"), BEFORE)
    until(lambda: [found.outcome for found in decisions(url)] == ["shrink"])


# ----- trouble


def fails(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return a question whether the log has said that nothing can be stored."""
    return lambda: said(caplog, FAILS)


def test_a_locked_database_is_waited_for_by_nobody_else(
    run: Callable[..., Recorder],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What was read and decided meanwhile is stored afterwards with its own times; the log says it once."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(database_module, "_CONNECT_SECONDS", 0.02)
    url = f"sqlite:///{tmp_path / 'h.sqlite'}"
    recorder = run(url)
    recorder.succeeded(snapshot("3", ago=50))
    until(there(url, 1))
    tried: list[str] = []
    monkeypatch.setattr(recorder_module.Recorder, "_failed", _counting(tried, Recorder._failed))
    with closing(sqlite3.connect(tmp_path / "h.sqlite", isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        waiting = [snapshot(level, ago=ago) for level, ago in (("2.1", 40), ("2.2", 30), ("2.3", 20))]
        for read in waiting:
            recorder.succeeded(read)
        recorder.decided(judged(), BEFORE)
        until(lambda: len(tried) > 2)
    found = until(there(url, 4))
    assert [at for at, _ in found[1:]] == [milliseconds(read.asked_at.wall) for read in waiting]
    assert [level for _, level in found] == ["3", "2.1", "2.2", "2.3"]
    until(lambda: said(caplog, AGAIN))
    assert len(said(caplog, FAILS)) == 1
    assert len(decisions(url)) == 1
    assert 20 <= newest(url).age_seconds < 60


def _counting(calls: list[str], inner: Callable[..., Any]) -> Callable[..., Any]:
    def counted(self: Recorder, problem: str) -> Any:
        calls.append(problem)
        return inner(self, problem)

    return counted


@pytest.mark.parametrize("pattern", ["h.sqlite*", "h.sqlite"])
def test_a_deleted_database_is_made_anew(
    run: Callable[..., Recorder], tmp_path: Path, caplog: pytest.LogCaptureFixture, pattern: str
) -> None:
    """Whether its files all go or the main one only; what is read after that is stored."""
    caplog.set_level(logging.INFO)
    url = f"sqlite:///{tmp_path / 'h.sqlite'}"
    recorder = run(url)
    recorder.succeeded(snapshot("3", ago=9))
    until(lambda: there(url, 1)() and recorder._worker and recorder._worker.asking_since is None)
    for file in tmp_path.glob(pattern):
        file.unlink()
    recorder.succeeded(snapshot("2"))
    until(lambda: said(caplog, AGAIN))
    assert [level for _, level in levels(url)] == ["2"]
    assert len(said(caplog, FAILS)) == 1
    recorder.stop()
    with closing(sqlite3.connect(tmp_path / "h.sqlite")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_full_disk_is_survived(
    run: Callable[..., Recorder], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With room again, what waited is stored, and the database is sound."""
    caplog.set_level(logging.INFO)
    url = f"sqlite:///{tmp_path / 'h.sqlite'}"
    pages = [1000]

    def limit(connection: sqlite3.Connection, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count={pages[0]}")

    history = History(url)
    event.listen(history._engine, "connect", limit)
    recorder = Recorder(history, KEY, "bot", 30)
    recorder.start()
    recorder.succeeded(snapshot("3", ago=9))
    until(there(url, 1))
    pages[0] = 1
    many: dict[str, Row] = {f"P{number}/USDT": Unreadable("x" * 2000) for number in range(100)}
    recorder.succeeded(snapshot("2", **many))
    until(fails(caplog))
    assert "disk is full" in caplog.text
    pages[0] = 1000
    until(there(url, 2))
    until(lambda: said(caplog, AGAIN))
    recorder.stop()
    assert len(said(caplog, FAILS)) == 1
    with closing(sqlite3.connect(tmp_path / "h.sqlite")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_folder_that_is_not_there_is_waited_for(
    run: Callable[..., Recorder], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor is its name in the log."""
    caplog.set_level(logging.INFO)
    url = f"sqlite:///{tmp_path / 'geheim' / 'h.sqlite'}"
    recorder = run(url)
    recorder.succeeded(snapshot())
    until(fails(caplog))
    (tmp_path / "geheim").mkdir()
    until(there(url, 1))
    until(lambda: said(caplog, AGAIN))
    assert len(said(caplog, FAILS)) == 1
    assert "geheim" not in caplog.text


def test_a_server_that_is_restarted_gets_what_waited(
    run: Callable[..., Recorder], postgresql_server: PostgreSQL, caplog: pytest.LogCaptureFixture
) -> None:
    """With the times at which it was read, by the server's clock as well."""
    caplog.set_level(logging.INFO)
    url = postgresql_server.new_database()
    recorder = run(url)
    recorder.succeeded(snapshot("3", ago=50))
    until(there(url, 1))
    postgresql_server.stop()
    try:
        waiting = [snapshot("2.1", ago=40), snapshot("2.2", ago=30)]
        for read in waiting:
            recorder.succeeded(read)
        recorder.decided(judged(), BEFORE)
        until(fails(caplog))
    finally:
        postgresql_server.start()
    found = until(there(url, 3))
    assert [at for at, _ in found[1:]] == [milliseconds(read.asked_at.wall) for read in waiting]
    assert 30 <= newest(url).age_seconds < 60
    until(lambda: said(caplog, AGAIN))
    assert len(decisions(url)) == 1
    assert "127.0.0.1" not in caplog.text


# ----- a database that hangs


@pytest.fixture
def far(postgresql_server: PostgreSQL, monkeypatch: pytest.MonkeyPatch) -> Iterator[Far]:
    """A database behind a wire, which is given up soon when it does not answer."""
    monkeypatch.setattr(recorder_module, "_HANGING_SECONDS", 1.0)
    near = make_url(postgresql_server.new_database())
    assert near.port
    with wire(near.port) as between:
        away = near.set(port=between.port).render_as_string(hide_password=False)
        yield Far(between, near.render_as_string(hide_password=False), away)


@dataclass
class Far:
    """A wire, and the URLs of a database past it and through it."""

    wire: Wire
    near: str
    url: str


def helped(recorder: Recorder, condition: Callable[[], Any]) -> Any:
    """Wait for something, and start the recorder again and again meanwhile, as a bot's loop does."""

    def ask() -> Any:
        recorder.start()
        return condition()

    return until(ask)


def prepared(recorder: Recorder) -> recorder_module._Worker:
    """Let it come to where it could store something, and wait for that."""
    recorder.failed("not yet")
    worker = recorder._worker
    assert worker
    until(lambda: worker.writer and worker.asking_since is None)
    return worker


def recorders() -> int:
    """Return how many threads store."""
    return [thread.name for thread in threading.enumerate()].count(THREAD_NAME)


def counted(url: str) -> int:
    """Return how many reads are stored."""
    with opened(url) as history, history._engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(tables.Read)) or 0


def test_a_connection_that_hangs_is_given_up(
    run: Callable[..., Recorder], far: Far, caplog: pytest.LogCaptureFixture
) -> None:
    """Another one stores what waits, once; the one that hung does nothing more and ends when it wakes up."""
    caplog.set_level(logging.INFO)
    recorder = run(far.url)
    recorder.succeeded(snapshot("3", ago=9))
    until(there(far.near, 1))
    for count, level in ((2, "2.9"), (3, "2.8")):
        far.wire.lose()
        recorder.succeeded(snapshot(level, ago=8 - count))
        recorder.decided(judged(), BEFORE + count * 100_000)
        helped(recorder, there(far.near, count))
    # The last is told of only after it was stored.
    until(lambda: len(said(caplog, AGAIN)) == 2)
    assert recorders() == 3
    far.wire.mend()
    until(lambda: recorders() == 1)
    assert [level for _, level in levels(far.near)] == ["3", "2.9", "2.8"]
    assert counted(far.near) == 3
    assert len(decisions(far.near)) == 2
    assert said(caplog, FAILS) == [f"{FAILS}: the database has not answered for more than 1 s."] * 2


@pytest.mark.parametrize("statement", ["INSERT INTO margin_pairs", "INSERT INTO margin_accounts"])
def test_a_hang_in_the_middle_of_a_transaction_holds_nobody_up(
    run: Callable[..., Recorder], far: Far, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    """The server undoes it, with its locks; what wakes up then is not stored a second time."""
    monkeypatch.setattr(database_module, "_STATEMENT_SECONDS", 1)
    recorder = run(far.url)
    prepared(recorder)

    def lose(*context: Any) -> None:
        if context[2].startswith(statement):
            far.wire.lose()

    event.listen(recorder._history._engine, "after_cursor_execute", lose)
    recorder.succeeded(snapshot("3", ago=9))
    helped(recorder, there(far.near, 1))
    far.wire.mend()
    until(lambda: recorders() == 1)
    assert counted(far.near) == 1


def test_what_takes_long_but_is_answered_does_not_hang(tmp_path: Path) -> None:
    """As deleting the rows of a year: each answer begins the time anew."""
    worker = recorder_module._Worker(lambda _worker: None, first=True)
    long_ago = time.monotonic() - 2 * recorder_module._HANGING_SECONDS
    with opened(f"sqlite:///{tmp_path / 'h.sqlite'}") as history:
        history.before_each(worker.before_each)
        worker.asking_since = long_ago
        assert worker.hangs
        history.prepare()
        assert not worker.hangs


@pytest.mark.parametrize("statement", ["INSERT INTO margin_accounts", "SELECT margin_pairs.name"])
def test_an_answer_that_comes_too_late_stores_nothing(
    run: Callable[..., Recorder], tmp_path: Path, statement: str
) -> None:
    """Also where the database was only slow: what it was asked for is undone, as late as before its end."""
    url = f"sqlite:///{tmp_path / 'h.sqlite'}"
    recorder = run(url)
    worker = prepared(recorder)
    entered, released = threading.Event(), threading.Event()

    def wait(*context: Any) -> None:
        if context[2].startswith(statement):
            entered.set()
            assert released.wait(30)

    event.listen(recorder._history._engine, "after_cursor_execute", wait)
    recorder.succeeded(snapshot("3"))
    assert entered.wait(30)
    assert recorder._give_up(worker)
    released.set()
    worker.join(30)
    assert not worker.is_alive()
    assert counted(url) == 0
    assert len(recorder._reads) == 1
    helped(recorder, there(url, 1))


def test_what_was_stored_by_one_that_is_given_up_is_left_to_the_next(
    run: Callable[..., Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It drops nothing, since the next one may be at it."""
    url = f"sqlite:///{tmp_path / 'h.sqlite'}"
    recorder = run(url)
    worker = prepared(recorder)
    write = writing.Writer.write

    def late(self: writing.Writer, *args: Any) -> frozenset[str]:
        wanted = write(self, *args)
        recorder._give_up(worker)
        return wanted

    with monkeypatch.context() as patched:
        patched.setattr(writing.Writer, "write", late)
        recorder.succeeded(snapshot("3"))
        worker.join(30)
    assert not worker.is_alive()
    assert len(recorder._reads) == 1


def test_at_most_three_are_given_up_at_once(
    run: Callable[..., Recorder], far: Far, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Then it waits for one of them; neither the bot's loop nor its end waits, and no thread stays."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(database_module, "_CONNECT_SECONDS", 30)
    recorder = run(far.url)
    recorder.succeeded(snapshot("3", ago=9))
    until(there(far.near, 1))
    far.wire.cut()
    recorder.succeeded(snapshot("2", ago=5))
    helped(recorder, lambda: len(recorder._hanging) == 3 and recorder._worker and recorder._worker.hangs)
    for _ in range(3):
        recorder.start()
    assert recorders() == 4
    assert len(said(caplog, FAILS)) == 1
    recorder.stop(timeout=0.05)
    assert recorders() == 4
    far.wire.mend()
    assert [level for _, level in until(there(far.near, 2))] == ["3", "2"]
    until(lambda: recorders() == 0)
    assert counted(far.near) == 2


def test_a_recorder_that_ends_does_not_wait_for_what_was_given_up(
    run: Callable[..., Recorder], far: Far
) -> None:
    """The one that stores ends at once, and with what waits stored."""
    recorder = run(far.url)
    recorder.succeeded(snapshot("3", ago=9))
    until(there(far.near, 1))
    far.wire.lose()
    recorder.succeeded(snapshot("2", ago=5))
    helped(recorder, there(far.near, 2))
    recorder.succeeded(snapshot("1.9"))
    recorder.stop(timeout=30)
    assert counted(far.near) == 3
    assert recorders() == 1
    far.wire.mend()
    until(lambda: recorders() == 0)


# ----- what waits


def test_what_waits_for_too_long_is_dropped_from_the_oldest_on(
    run: Callable[..., Recorder],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The memory that it takes has an end."""
    monkeypatch.setattr(recorder_module, "_MOST_READS", 3)
    url = f"sqlite:///{tmp_path / 'later' / 'h.sqlite'}"
    recorder = run(url)
    for level in ("2.1", "2.2", "2.3", "2.4", "2.5"):
        recorder.succeeded(snapshot(level))
    until(fails(caplog))
    (tmp_path / "later").mkdir()
    assert [level for _, level in until(there(url, 3))] == ["2.3", "2.4", "2.5"]


def test_an_error_of_its_own_does_not_end_it(
    run: Callable[..., Recorder],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The read that brought it about is stored as soon as that is possible."""
    url = f"sqlite:///{tmp_path / 'h.sqlite'}"

    def fail(*_: object) -> None:
        raise ZeroDivisionError("geheim")

    with monkeypatch.context() as patched:
        patched.setattr(writing.Writer, "write", fail)
        recorder = run(url)
        recorder.succeeded(snapshot())
        until(fails(caplog))
    until(there(url, 1))
    assert said(caplog, FAILS) == [f"{FAILS}: an error of the recorder (ZeroDivisionError)."]


def test_a_thread_that_died_is_started_again(run: Callable[..., Recorder], tmp_path: Path) -> None:
    """Whoever starts it again in every loop has one thread."""
    url = f"sqlite:///{tmp_path / 'h.sqlite'}"
    recorder = run(url)
    for _ in range(3):
        recorder.start()
    names = [thread.name for thread in threading.enumerate()]
    assert names.count(THREAD_NAME) == 1
    thread = recorder._worker
    assert thread
    recorder._stopping.set()
    recorder._news.set()
    thread.join(10)
    recorder._stopping.clear()
    recorder.start()
    recorder.succeeded(snapshot())
    until(there(url, 1))


def test_its_end_stores_what_waits(run: Callable[..., Recorder], url: str) -> None:
    """However much it is."""
    recorder = Recorder(History(url), KEY, "bot", 30)
    for number in range(100):
        recorder.succeeded(snapshot(f"{2 + number / 1000:.3f}", ago=200 - number))
    recorder.start()
    recorder.stop(30)
    assert len(levels(url)) == 100


# ----- what was before


def test_what_was_before_is_recalled_in_parts_between_which_is_stored(
    run: Callable[..., Recorder], tmp_path: Path
) -> None:
    """Followers live on what is stored: it does not wait until all is recalled."""
    url = f"sqlite:///{tmp_path / 'h.sqlite'}"
    seen: list[int] = []
    go_on = threading.Event()

    def recall(history: History) -> bool:
        if seen:
            go_on.wait(30)
        seen.append(len(levels(url)))
        return len(seen) == 3

    recorder = Recorder(History(url), KEY, "bot", 30, recall=recall)
    recorder.succeeded(snapshot())
    recorder.start()
    try:
        until(there(url, 1))
        assert not recorder.wait_ready(0)
        go_on.set()
        assert recorder.wait_ready(30)
        assert seen == [0, 1, 1]
    finally:
        recorder.stop()


def test_what_cannot_be_recalled_does_not_keep_anything_from_being_stored(
    run: Callable[..., Recorder], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried again later; who waits for it waits no longer."""
    caplog.set_level(logging.INFO)
    url = f"sqlite:///{tmp_path / 'h.sqlite'}"
    tries: list[int] = []

    def recall(history: History) -> bool:
        tries.append(1)
        raise HistoryError("the history database cannot be read (OperationalError)")

    recorder = run(url, recall=recall)
    for level in ("2.1", "2.2"):
        recorder.succeeded(snapshot(level))
        until(there(url, 1 if level == "2.1" else 2))
    assert recorder.wait_ready(0)
    assert len(tries) == 1
    assert len(said(caplog, "Charts do not show yet")) == 1


def test_nobody_waits_for_a_database_that_is_gone(run: Callable[..., Recorder], tmp_path: Path) -> None:
    """A bot's start goes on as soon as that is known."""
    recorder = run(f"sqlite:///{tmp_path / 'nowhere' / 'h.sqlite'}")
    recorder.succeeded(snapshot())
    assert recorder.wait_ready(60)


def store_days(url: str) -> None:
    """Store an account of 31 days ago and one of 29."""
    with opened(url) as history:
        history.prepare()
        history.writer(KEY, "bot").write(
            [
                NewRead(milliseconds(Moment.now().wall - ago * 86400), lambda: 0, {PAIR: account(level)}, {})
                for level, ago in (("2.1", 31), ("2.2", 29))
            ]
        )


def test_old_rows_are_deleted(
    run: Callable[..., Recorder], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the days that the settings say; newer ones stay."""
    monkeypatch.setattr(recorder_module, "_FIRST_PURGE_SECONDS", 0)
    store_days(url)
    recorder = run(url)
    recorder.succeeded(snapshot("2.3"))
    until(lambda: [level for _, level in levels(url)] == ["2.2", "2.3"])


def test_nothing_is_deleted_by_a_clock_that_is_still_wrong_at_the_start(
    run: Callable[..., Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten minutes after it the time is known, however often that was set meanwhile; then every hour."""
    url = f"sqlite:///{tmp_path / 'h.sqlite'}"
    store_days(url)
    monotonic, wall, purged = [1000.0], [Moment.now().wall + 60 * 86400], []
    monkeypatch.setattr(time, "monotonic", lambda: monotonic[0])
    monkeypatch.setattr(time, "time", lambda: wall[0])
    monkeypatch.setattr(History, "purge", lambda _self, _key, before: purged.append(before))
    recorder = Recorder(History(url), KEY, "bot", 30)
    # One round of its thread's, in this one.
    monkeypatch.setattr(threading.Thread, "start", lambda _self: None)

    def at(seconds: float) -> int:
        monotonic[0] = 1000 + seconds
        recorder.start()
        worker = recorder._worker
        assert worker
        assert recorder._store(worker, recorder._history)
        return len(purged)

    assert [at(seconds) for seconds in (0, 10)] == [0, 0]
    wall[0] -= 60 * 86400
    assert [at(seconds) for seconds in (599, 601, 602, 4200)] == [0, 1, 1, 1]
    wall[0] += 60 * 86400
    assert [at(seconds) for seconds in (4200.9, 4202)] == [1, 2]
    recorder._history.close()
