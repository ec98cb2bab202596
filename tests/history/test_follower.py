"""Bots that follow the history are as strict as the one that reads the exchange."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st
from sqlalchemy import create_engine, make_url, text
from support.builders import long_row, parsed
from support.network import until, wire
from support.postgresql import PostgreSQL
from support.storing import set_clock

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.account.records import PairAccount, Row, Unreadable
from freqtrade_isolated_margin.account.tiers import TierRatios
from freqtrade_isolated_margin.binance.clock import Moment
from freqtrade_isolated_margin.binance.reader import Snapshot
from freqtrade_isolated_margin.errors import UnavailableError
from freqtrade_isolated_margin.guard import monitor as monitor_module
from freqtrade_isolated_margin.guard.guard import Guard
from freqtrade_isolated_margin.history import database as database_module
from freqtrade_isolated_margin.history import recorder as recorder_module
from freqtrade_isolated_margin.history.asking import History
from freqtrade_isolated_margin.history.follower import HistoryReader, Whose
from freqtrade_isolated_margin.history.tables import Base, HistoryError
from freqtrade_isolated_margin.history.writing import NewRead, Writer
from freqtrade_isolated_margin.hosts.candles import LiveCandles
from freqtrade_isolated_margin.hosts.columns import UNKNOWN
from freqtrade_isolated_margin.hosts.wiring import build_guard
from freqtrade_isolated_margin.localexchange import AccountSpec, LocalExchange
from freqtrade_isolated_margin.rules.decide import EntryDecision, Outcome, Rule
from freqtrade_isolated_margin.rules.settings import ENV_DB_URL, Settings

KEY, OTHER_KEY = "0a1b2c3d", "ffffffff"
PAIR, SECOND = "BTC/USDT", "ETH/USDT"
ACCOUNT_PATH = "/sapi/v1/margin/isolated/account"
# Ages are stored in milliseconds, rounded up.
ROUNDING = 0.005


def account(level: str = "3", symbol: str = "BTCUSDT") -> PairAccount:
    """A pair's account that owes something."""
    row = parsed(long_row(level, symbol))
    assert isinstance(row, PairAccount)
    return row


@dataclass
class World:
    """Time as it really is, and what everybody's clock makes of it, in seconds."""

    now: float = 1_800_000_000.0
    reader_ahead: float = 0.0
    follower_ahead: float = 0.0
    database_ahead: float = 0.0

    def database(self, _connection: object) -> int:
        """Return the database's clock."""
        return round((self.now + self.database_ahead) * 1000)

    def follower(self) -> Moment:
        """Return the follower's clocks; its monotonic one began somewhere else."""
        return Moment(self.now - 1_700_000_000.0, self.now + self.follower_ahead)

    def store(self, writer: Writer, rows: dict[str, Row], ago: float = 0.0, **more: Any) -> None:
        """Let a reader store what it has asked for so many seconds ago."""
        asked = self.now - ago
        read_at = round((asked + self.reader_ahead) * 1000)
        writer.write([NewRead(read_at, lambda: self.now - asked, rows, {})], **more)

    def age(self, snapshot: Snapshot, pair: str = PAIR) -> float:
        """Return the age that the follower gives the pair's account now."""
        return snapshot.reading(pair, self.follower()).age_seconds


class Stage:
    """A database, somebody who stores, and somebody who follows."""

    def __init__(self, world: World, url: str) -> None:
        self.world = world
        self.history = History(url)
        self.history.prepare()
        self.writer = self.history.writer(KEY, "reader")
        self.follower = HistoryReader(self.history, Whose(), world.follower)

    def wanted(self) -> frozenset[str]:
        """Return what the reader is told that followers want."""
        return self.writer.write([])


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A world whose database has a clock that can be set."""
    made = World()
    set_clock(monkeypatch, made.database)
    return made


@pytest.fixture
def stage(world: World, url: str) -> Iterator[Stage]:
    """One reader and one follower, their clocks set by hand."""
    stage = Stage(world, url)
    yield stage
    stage.follower.close()


# ----- what is read, and how old it is


def test_what_the_reader_stored_comes_back(stage: Stage, world: World) -> None:
    """Accounts, pairs without one, what was unreadable, and the ratios of the tiers; a futures pair too."""
    rows: dict[str, Row] = {PAIR: account(), "A/B": Unreadable("broken")}
    ratios = TierRatios(*map(account().margin_level.__class__, ("1.05", "1.08")))
    stage.writer.write([NewRead(round(world.now * 1000), lambda: 2.0, rows, {PAIR: ratios})])
    snapshot = stage.follower.read([PAIR, "A/B", f"{PAIR}:USDT"])
    assert snapshot.rows == {PAIR: account(), f"{PAIR}:USDT": account(), "A/B": Unreadable("broken")}
    assert snapshot.ratios == {PAIR: ratios, f"{PAIR}:USDT": ratios}
    assert world.age(snapshot) == pytest.approx(2, abs=ROUNDING)
    assert stage.follower.read(None).rows.keys() == {PAIR, "A/B"}


@pytest.mark.parametrize("wrong", [0, 7200, -7200])
@pytest.mark.parametrize("whose", ["reader_ahead", "follower_ahead", "database_ahead"])
def test_nobodys_wrong_clock_makes_an_account_younger_or_older(
    stage: Stage, world: World, whose: str, wrong: float
) -> None:
    """As long as it is not set meanwhile, it does not matter what it shows."""
    setattr(world, whose, wrong)
    world.store(stage.writer, {PAIR: account()}, ago=3)
    world.now += 20
    assert world.age(stage.follower.read([PAIR])) == pytest.approx(23, abs=ROUNDING)


def test_the_same_read_never_becomes_younger(stage: Stage, world: World) -> None:
    """Also where the database's clock, or both machines', is set back; time goes on counting."""
    world.store(stage.writer, {PAIR: account()})
    world.now += 20
    assert world.age(stage.follower.read([PAIR])) == pytest.approx(20, abs=ROUNDING)
    world.database_ahead = -15
    world.now += 10
    assert world.age(stage.follower.read([PAIR])) == pytest.approx(30, abs=ROUNDING)
    world.follower_ahead = -3600
    world.now += 10
    assert world.age(stage.follower.read([PAIR])) == pytest.approx(40, abs=ROUNDING)


def test_an_account_from_the_future_is_refused(stage: Stage, world: World) -> None:
    """A database whose clock was set back does not know how old it is; the next read is judged again."""
    world.store(stage.writer, {PAIR: account()})
    world.database_ahead = -3600
    assert world.age(stage.follower.read([PAIR])) < 0
    world.store(stage.writer, {PAIR: account()})
    assert world.age(stage.follower.read([PAIR])) == pytest.approx(0, abs=ROUNDING)


def test_a_dead_reader_from_the_future_does_not_hide_a_living_one(stage: Stage, world: World) -> None:
    """After the database's clock was set back, whoever reads now is believed."""
    dead = stage.history.writer(KEY, "dead")
    world.store(dead, {PAIR: account("2")})
    world.database_ahead = -600
    world.now += 5
    world.store(stage.writer, {PAIR: account("3")})
    snapshot = stage.follower.read([PAIR])
    assert snapshot.rows[PAIR] == account("3")
    assert world.age(snapshot) == pytest.approx(0, abs=ROUNDING)


_EVENT = st.one_of(
    st.tuples(st.just("read"), st.sampled_from([0.0, 0.4, 5.0])),
    st.tuples(st.just("follow"), st.just(0.0)),
    st.tuples(st.just("pass"), st.sampled_from([0.5, 3.0, 20.0, 70.0])),
    st.tuples(
        st.sampled_from(["reader", "follower", "database"]), st.sampled_from([-600.0, -2.0, 2.0, 600.0])
    ),
)


@how(max_examples=60)
@given(events=st.lists(_EVENT, max_size=25))
def test_no_account_is_ever_taken_for_younger_than_it_is(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, float]]
) -> None:
    """Whatever clocks are set when.

    Except for a read that the follower had not seen before the database's clock was set back: by as much.
    """
    world = World()
    with pytest.MonkeyPatch.context() as patched:
        set_clock(patched, world.database)
        stage = Stage(world, f"sqlite:///{tmp_path_factory.mktemp('ages') / 'h.sqlite'}")
        asked_at: dict[Row, float] = {}
        set_back: dict[Row, float] = {}
        seen: set[Row] = set()
        newest: Row | None = None
        for what, by in events:
            if what == "read":
                newest = account(f"{2 + len(asked_at) / 1000:.3f}")
                asked_at[newest], set_back[newest] = world.now - by, 0.0
                world.store(stage.writer, {PAIR: newest}, ago=by)
            elif what == "pass":
                world.now += by
            elif what == "follow" and newest:
                try:
                    snapshot = stage.follower.read([PAIR])
                except UnavailableError:
                    continue
                found = snapshot.rows[PAIR]
                assert found == newest
                age, true = world.age(snapshot), world.now - asked_at[found]
                assert age >= true - set_back[found] - ROUNDING
                seen.add(found)
            elif what != "follow":
                setattr(world, f"{what}_ahead", getattr(world, f"{what}_ahead") + by)
                if what == "database" and by < 0:
                    set_back |= {row: gone - by for row, gone in set_back.items() if row not in seen}


def test_a_silence_of_an_hour_is_said(stage: Stage, world: World) -> None:
    """Until then the last account is there, with its age."""
    world.store(stage.writer, {PAIR: account()})
    world.now += 3590
    assert world.age(stage.follower.read([PAIR])) == pytest.approx(3590, abs=ROUNDING)
    world.now += 20
    with pytest.raises(UnavailableError, match="no bot has stored the accounts in the history for an hour"):
        stage.follower.read([PAIR])


def test_why_the_reader_cannot_read_is_told(stage: Stage, world: World) -> None:
    """As of whoever has read last."""
    dead = stage.history.writer(KEY, "dead")
    world.store(dead, {"A/B": account()}, ago=100, trouble="it is dead")
    world.store(stage.writer, {PAIR: account()}, trouble="it is on fire")
    assert stage.follower.read([PAIR, "A/B"]).trouble == "it is on fire"
    stage.writer.write([], trouble=None)
    assert stage.follower.read([PAIR, "A/B"]).trouble is None


# ----- whose accounts


def test_the_accounts_of_two_keys_are_refused_until_it_is_said_which(stage: Stage, world: World) -> None:
    """The newest of the ones that are meant, and never another's."""
    world.store(stage.writer, {PAIR: account("3")})
    world.store(stage.history.writer(OTHER_KEY, "other"), {PAIR: account("2")})
    with pytest.raises(HistoryError, match=r"2 API keys .0a1b2c3d, ffffffff.: say with history.keys"):
        stage.follower.read([PAIR])
    told = HistoryReader(stage.history, Whose([KEY]), world.follower)
    assert told.read([PAIR]).rows[PAIR] == account("3")
    assert stage.follower.asking_since is None


_CHANGED = (
    "the history database held the accounts of the API key 0a1b2c3d and now holds those of ffffffff: "
    "set history.keys to the one that is meant, or restart the bot"
)


def replaced(stage: Stage, world: World) -> None:
    """Make the database anew; somebody else is the first to store into it."""
    engine = stage.history._engine
    Base.metadata.drop_all(engine)
    stage.history.prepare()
    world.store(stage.history.writer(OTHER_KEY, "other"), {PAIR: account("2")})


def test_a_follower_never_changes_to_another_users_accounts(stage: Stage, world: World) -> None:
    """As in a database that was made anew; what it followed is good again as soon as it is alone there."""
    world.store(stage.writer, {PAIR: account("3")})
    stage.follower.read([PAIR])
    replaced(stage, world)
    for _ in range(2):
        with pytest.raises(HistoryError) as refused:
            stage.follower.read([PAIR])
        assert str(refused.value) == _CHANGED
    Base.metadata.drop_all(stage.history._engine)
    stage.history.prepare()
    world.store(stage.history.writer(KEY, "reader"), {PAIR: account("4")})
    assert stage.follower.read([PAIR]).rows[PAIR] == account("4")


def test_a_follower_that_was_told_whose_accounts_are_meant_waits_for_them(stage: Stage, world: World) -> None:
    """Whoever else stores into a database that was made anew."""
    told = HistoryReader(stage.history, Whose([KEY]), world.follower)
    world.store(stage.writer, {PAIR: account("3")})
    assert told.read([PAIR]).rows[PAIR] == account("3")
    replaced(stage, world)
    with pytest.raises(UnavailableError, match="no bot has stored"):
        told.read([PAIR])


def test_an_empty_database_is_said(stage: Stage) -> None:
    """Whether the reader has never started, or reads into another one."""
    with pytest.raises(HistoryError, match="holds no accounts yet"):
        stage.follower.read([PAIR])


# ----- pairs that nobody reads


def test_a_pair_that_nobody_reads_is_asked_for(stage: Stage, world: World) -> None:
    """It is unreadable until the reader has read it; the others are not touched by it."""
    world.store(stage.writer, {PAIR: account()})
    snapshot = stage.follower.read([PAIR, SECOND])
    assert isinstance(snapshot.rows[PAIR], PairAccount)
    assert snapshot.rows[SECOND] == Unreadable("no bot that stores the accounts reads it (it is asked to)")
    assert stage.wanted() == {PAIR, SECOND}
    world.store(stage.writer, {PAIR: account(), SECOND: account("2", "ETHUSDT")})
    assert stage.follower.read([PAIR, SECOND]).rows[SECOND] == account("2", "ETHUSDT")


def test_a_follower_of_other_pairs_only_is_no_failure(stage: Stage, world: World) -> None:
    """The reader is alive; it only has to be asked."""
    world.store(stage.writer, {PAIR: account()})
    snapshot = stage.follower.read([SECOND])
    assert isinstance(snapshot.rows[SECOND], Unreadable)
    assert stage.wanted() == {SECOND}


def test_a_pair_is_asked_for_for_as_long_as_it_is_followed(stage: Stage, world: World) -> None:
    """Also while it is read, maybe only because it was asked for; and forgotten ten minutes after that."""
    rows: dict[str, Row] = {PAIR: account(), SECOND: account("2", "ETHUSDT")}
    for _ in range(100):
        world.store(stage.writer, rows)
        stage.follower.read([PAIR, SECOND])
        world.now += 10
        assert stage.wanted() == {PAIR, SECOND}
    for _ in range(61):
        world.store(stage.writer, rows)
        stage.follower.read([PAIR])
        world.now += 10
    assert stage.wanted() == {PAIR}


def test_a_reader_that_was_started_anew_knows_what_is_wanted(stage: Stage, world: World) -> None:
    """What the one before has read goes on ageing."""
    world.store(stage.writer, {PAIR: account(), SECOND: account("2", "ETHUSDT")})
    stage.follower.read([PAIR, SECOND])
    world.now += 1000
    stage.writer = stage.history.writer(KEY, "reader")
    world.store(stage.writer, {PAIR: account()})
    snapshot = stage.follower.read([PAIR, SECOND])
    assert world.age(snapshot, SECOND) == pytest.approx(1000, abs=ROUNDING)
    assert stage.wanted() == {PAIR, SECOND}


def test_who_only_looks_asks_for_nothing(stage: Stage, world: World) -> None:
    """Nor does it say so of a pair that nobody reads."""
    world.store(stage.writer, {PAIR: account()})
    looker = HistoryReader(stage.history, Whose(), world.follower, asks=False)
    assert looker.read([PAIR, SECOND]).rows[SECOND] == Unreadable("no bot that stores the accounts reads it")
    assert looker.read().rows == {PAIR: account()}
    assert stage.wanted() == frozenset()


def test_it_is_not_asked_for_in_every_read(
    stage: Stage, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every two minutes is enough."""
    asked: list[set[str]] = []
    monkeypatch.setattr(History, "want", lambda _self, pairs: asked.append(set(pairs)))
    for _ in range(30):
        world.store(stage.writer, {PAIR: account()})
        stage.follower.read([PAIR, SECOND])
        world.now += 10
    assert asked == [{PAIR, SECOND}] * 3


def test_where_it_cannot_be_asked_for_the_others_are_judged_all_the_same(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else holds the lock for writing: reading goes on, and asking is tried again."""
    monkeypatch.setattr(database_module, "_CONNECT_SECONDS", 0.02)
    stage = Stage(world, f"sqlite:///{tmp_path / 'h.sqlite'}")
    world.store(stage.writer, {PAIR: account()})
    with closing(sqlite3.connect(tmp_path / "h.sqlite", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        snapshot = stage.follower.read([PAIR, SECOND])
    assert snapshot.rows[PAIR] == account()
    missing = snapshot.rows[SECOND]
    assert isinstance(missing, Unreadable)
    assert "cannot be written (OperationalError: locked)" in missing.why
    stage.follower.read([PAIR, SECOND])
    assert stage.wanted() == {PAIR, SECOND}


# ----- whole guards: one reads a real exchange, the others follow


HEALTHY = AccountSpec(quote_free="3000", quote_borrowed="1000")
BAD = AccountSpec(quote_free="1200", quote_borrowed="1000")
SECTION = {"refresh_seconds": 0.5, "max_age_seconds": 3}


@pytest.fixture
def guards(
    bot_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Guard]]:
    """Return a function that starts a guard on a database, and end all of them."""
    monkeypatch.setattr(monitor_module, "_LONGEST_BACKOFF", 0.5)
    monkeypatch.setattr(recorder_module, "_LONGEST_BACKOFF", 0.5)
    with ExitStack() as running:

        def started(url: str, pairs: list[str], **section: Any) -> Guard:
            exchange = dict(bot_config["exchange"])
            if section.get("source") == "history":
                exchange |= {"key": "", "secret": ""}
            config = bot_config | {"exchange": exchange, "user_data_dir": str(tmp_path)}
            settings = Settings.load(SECTION | section)
            guard = build_guard(
                config, settings, {ENV_DB_URL: url}, candles=LiveCandles(settings, 60, "freqtrade")
            )
            guard.start(pairs)
            running.callback(guard.stop)
            return guard

        yield started


def becomes(guard: Guard, pair: str, **wanted: Any) -> EntryDecision:
    """Wait for a verdict that has these attributes."""
    met = None

    def asked() -> bool:
        nonlocal met
        guard.start(guard.monitor._pairs)
        met = guard.decision(pair, Side.LONG)
        return all(getattr(met, name) == value for name, value in wanted.items())

    try:
        until(asked)
    except AssertionError:
        pytest.fail(f"{met}")
    assert met
    return met


def test_a_follower_judges_and_refuses_as_its_reader(
    guards: Callable[..., Guard], exchange: LocalExchange, url: str
) -> None:
    """A change comes through, a pair of its own is read, and the end of the reader refuses everything."""
    exchange.set_account(PAIR, HEALTHY)
    exchange.set_account(SECOND, BAD)
    follower = guards(url, [PAIR, SECOND], source="history")
    why = becomes(follower, PAIR, rule=Rule.NOT_READ).reasons[0]
    reader = guards(url, [PAIR])
    becomes(follower, PAIR, outcome=Outcome.ALLOW)
    becomes(follower, SECOND, outcome=Outcome.BLOCK, rule=Rule.LEVEL)
    assert follower.account(PAIR) == reader.account(PAIR)
    exchange.set_account(PAIR, BAD)
    becomes(follower, PAIR, outcome=Outcome.BLOCK, rule=Rule.LEVEL)
    exchange.set_account(PAIR, HEALTHY)
    becomes(follower, PAIR, outcome=Outcome.ALLOW)
    reader.stop()
    assert becomes(follower, PAIR, outcome=Outcome.BLOCK).rule is Rule.MAX_AGE
    assert {request.key for request in exchange.requests if request.path == ACCOUNT_PATH} == {exchange.key}
    assert "not been read" in why or "no history" in why or "holds no" in why


def test_a_follower_outlives_a_database_that_goes_and_comes(
    guards: Callable[..., Guard], exchange: LocalExchange, postgresql_server: PostgreSQL
) -> None:
    """Everything is refused once the last account is too old, with the reason; then it is free again."""
    exchange.set_account(PAIR, HEALTHY)
    url = postgresql_server.new_database()
    reader, follower = guards(url, [PAIR]), guards(url, [PAIR], source="history")
    becomes(follower, PAIR, outcome=Outcome.ALLOW)
    postgresql_server.stop()
    try:
        decision = becomes(follower, PAIR, rule=Rule.MAX_AGE)
        assert "the history database cannot be read (OperationalError" in "; ".join(decision.reasons)
        # The reader itself needs no database.
        assert becomes(reader, PAIR, outcome=Outcome.ALLOW)
    finally:
        postgresql_server.start()
    becomes(follower, PAIR, outcome=Outcome.ALLOW)


def test_a_follower_outlives_a_network_that_goes_silent(
    guards: Callable[..., Guard],
    exchange: LocalExchange,
    postgresql_server: PostgreSQL,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What hangs is given up, everything is refused meanwhile, and it ends without waiting."""
    monkeypatch.setattr(monitor_module, "_HANGING_SECONDS", 0.5)
    exchange.set_account(PAIR, HEALTHY)
    url = make_url(postgresql_server.new_database())
    assert url.port
    with wire(url.port) as between:
        guards(url.render_as_string(hide_password=False), [PAIR])
        away = url.set(port=between.port).render_as_string(hide_password=False)
        follower = guards(away, [PAIR], source="history")
        becomes(follower, PAIR, outcome=Outcome.ALLOW)
        between.cut()
        becomes(follower, PAIR, outcome=Outcome.BLOCK, rule=Rule.MAX_AGE)
        until(lambda: (follower.start([PAIR]), follower.monitor._hanging)[1])
        between.mend()
        becomes(follower, PAIR, outcome=Outcome.ALLOW)


def test_the_accounts_of_another_key_make_a_follower_refuse(
    guards: Callable[..., Guard], exchange: LocalExchange, url: str
) -> None:
    """With the reason, as soon as they are in the database and the last account is too old."""
    exchange.set_account(PAIR, HEALTHY)
    guards(url, [PAIR])
    follower = guards(url, [PAIR], source="history")
    becomes(follower, PAIR, outcome=Outcome.ALLOW)
    history = History(url)
    history.writer(OTHER_KEY, "another").write([])
    decision = becomes(follower, PAIR, rule=Rule.MAX_AGE)
    assert "holds the accounts of 2 API keys" in "; ".join(decision.reasons)
    history.close()


def test_a_database_that_was_made_anew_by_another_users_bot_is_refused(
    guards: Callable[..., Guard],
    exchange: LocalExchange,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By the reader that takes the place of a dead one too, and the follower stores nothing there."""
    exchange.set_account(PAIR, HEALTHY)
    url = f"sqlite:///{tmp_path / 'h.sqlite'}"
    reader, follower = guards(url, [PAIR]), guards(url, [PAIR], source="history")
    becomes(follower, PAIR, outcome=Outcome.ALLOW)
    until(lambda: follower._recorder and follower._recorder._worker and follower._recorder._worker.writer)
    reader.stop()
    follower.monitor.stop()
    for file in tmp_path.glob("h.sqlite*"):
        file.unlink()
    history = History(url)
    history.prepare()
    history.writer(OTHER_KEY, "another").write([NewRead(1, lambda: 0, {PAIR: account()}, {})])
    decision = becomes(follower, PAIR, rule=Rule.MAX_AGE)
    problem = becomes(follower, PAIR, rule=Rule.MAX_AGE) and until(lambda: follower.monitor.problem)
    assert "held the accounts of the API key" in str(problem)
    assert decision.blocks
    follower.note(decision, 1)
    until(lambda: "cannot be stored: the history database held the accounts of the API key" in caplog.text)
    assert not list(history.decisions([], [OTHER_KEY], 0, 2**53))
    history.close()


def test_reloading_leaves_no_thread_and_no_connection_behind(
    guards: Callable[..., Guard], exchange: LocalExchange, postgresql_server: PostgreSQL
) -> None:
    """After ten starts and ends of a reader and a follower there is as much as before."""
    url = postgresql_server.new_database()
    engine = create_engine(url)
    ours = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
    before = threading.active_count()
    for _ in range(10):
        reader, follower = guards(url, [PAIR]), guards(url, [PAIR], source="history")
        until(lambda follower=follower: follower.monitor.snapshot)
        reader.stop()
        follower.stop()
    until(lambda: threading.active_count() <= before)
    with engine.connect() as connection:
        until(lambda: connection.scalar(ours) == 1)
    engine.dispose()


def test_what_a_follower_charts_is_what_its_reader_does(
    guards: Callable[..., Guard], exchange: LocalExchange, url: str
) -> None:
    """The newest value is there for the candle that closes now."""
    exchange.set_account(PAIR, HEALTHY)
    reader, follower = guards(url, [PAIR]), guards(url, [PAIR], source="history")
    becomes(follower, PAIR, outcome=Outcome.ALLOW)
    at = round(Moment.now().wall * 1000)
    (one,), (other,) = reader._candles.values(PAIR, [at]), follower._candles.values(PAIR, [at])
    assert one == other != UNKNOWN
