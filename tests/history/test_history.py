"""The history, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import itertools
import sqlite3
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal, localcontext
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as how
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, event, text
from support import builders
from support.postgresql import PostgreSQL
from support.storing import set_clock, set_migrations

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.account.records import Absent, PairAccount, Row, Unreadable, row_as_written
from freqtrade_isolated_margin.account.tiers import TierRatios
from freqtrade_isolated_margin.binance.clock import milliseconds
from freqtrade_isolated_margin.errors import SettingsError
from freqtrade_isolated_margin.history import asking, tables, writing
from freqtrade_isolated_margin.history import database as database_module
from freqtrade_isolated_margin.history.asking import History, open_history
from freqtrade_isolated_margin.history.tables import HistoryError, NewerHistoryError
from freqtrade_isolated_margin.history.writing import NewDecision, NewRead, Writer, key_id
from freqtrade_isolated_margin.rules.decide import Reading, decide
from freqtrade_isolated_margin.rules.rules import Rules
from freqtrade_isolated_margin.rules.settings import ENV_DB_URL, HistorySettings, Settings

KEY = "0a1b2c3d"
T0 = 1_800_000_000_000
PAIR = "BTC/USDT"


@pytest.fixture
def history(url: str) -> Iterator[History]:
    """A database with its tables."""
    prepared = History(url)
    prepared.prepare()
    yield prepared
    prepared.close()


def account(level: str = "3", **more: object) -> PairAccount:
    """A pair's account that owes something."""
    row = builders.parsed(builders.long_row(level, **more))
    assert isinstance(row, PairAccount)
    return row


def read(
    at: int, rows: dict[str, Row], ratios: dict[str, TierRatios] | None = None, age: float = 0
) -> NewRead:
    """A read of the accounts, `at` milliseconds after the beginning."""
    return NewRead(T0 + at, lambda: age, rows, ratios or {})


def test_an_account_comes_back_exactly(history: History) -> None:
    """All fields are as they came, trailing zeros and negative amounts included, and so are the ratios."""
    stored = account("2.5", indexPrice="50000.00000000", liquidateRate="-58.50")
    rows: dict[str, Row] = {PAIR: stored, "A/B": Absent("none"), "C/D": Unreadable("why")}
    ratios = TierRatios(Decimal("1.050"), Decimal("1.08"))
    history.writer(KEY, "bot").write([read(0, rows, {PAIR: ratios})])
    found = {pair: history.as_of(pair, [T0], 60, [KEY])[0] for pair in rows}
    assert {pair: known.row for pair, known in found.items() if known} == rows
    again = found[PAIR]
    assert again
    assert again.tier_ratios == ratios
    assert isinstance(again.row, PairAccount)
    assert str(again.row.index_price) == "50000.00000000"
    assert repr(again.row) == repr(stored)


# Each example has a key of its own: the examples of one test share a database.
_KEYS = (f"{number:08x}" for number in itertools.count())
_MANY = how(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


@st.composite
def _amounts(draw: st.DrawFn, lowest: int = 0) -> str:
    """An amount as an exchange may write it, with up to 20 places and zeros at its end."""
    places = draw(st.integers(0, 20))
    digits = Decimal(draw(st.integers(lowest * 10**12, 10**12))).scaleb(-places) if places else Decimal(7)
    return f"{digits:f}"


@st.composite
def _sides(draw: st.DrawFn, name: str) -> builders.Row:
    free, locked, borrowed, interest = (Decimal(draw(_amounts())) for _ in range(4))
    with localcontext(prec=60):
        total, owed = free + locked, borrowed + interest
        return builders.asset(name) | {
            "free": f"{free:f}",
            "locked": f"{locked:f}",
            "borrowed": f"{borrowed:f}",
            "interest": f"{interest:f}",
            "totalAsset": f"{total:f}",
            "netAsset": f"{total - owed:f}",
            "netAssetOfBtc": draw(_amounts(-1)),
            "borrowEnabled": draw(st.booleans()),
        }


@st.composite
def _accounts(draw: st.DrawFn) -> Row:
    row = builders.long_row() | {
        "baseAsset": draw(_sides("BTC")),
        "quoteAsset": draw(_sides("USDT")),
        "indexPrice": draw(_amounts()),
        "marginLevel": draw(_amounts()),
        "marginRatio": draw(_amounts()),
        "liquidatePrice": draw(_amounts()),
        "liquidateRate": draw(_amounts(-1)),
        "marginLevelStatus": draw(st.sampled_from(["NORMAL", "FORCE_LIQUIDATION", "ÜBEL\0"])),
        "tradeEnabled": draw(st.booleans()),
    }
    if draw(st.booleans()):
        del row["enabled"]
    return builders.parsed(row)


# What databases cannot hold is left out or replaced in a text that is only shown.
_WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=300)
_ROWS = _accounts() | _WORDS.map(Absent) | _WORDS.map(Unreadable)
_RATIOS = st.none() | st.tuples(_amounts(), _amounts()).map(lambda two: TierRatios(*map(Decimal, two)))


@_MANY
@given(row=_ROWS, ratios=_RATIOS)
def test_any_row_comes_back_exactly(history: History, row: Row, ratios: TierRatios | None) -> None:
    """Whatever a row says is stored and found without loss, down to the zeros at the end of an amount."""
    key = next(_KEYS)
    history.writer(key, "bot").write([read(0, {PAIR: row}, {PAIR: ratios} if ratios else None)])
    (found,) = history.as_of(PAIR, [T0], 60, [key])
    assert found
    assert found.row == row
    if isinstance(row, PairAccount):
        assert isinstance(found.row, PairAccount)
        # Equal decimals may be written in two ways.
        assert repr(found.row) == repr(row)
        assert repr(found.tier_ratios) == repr(ratios)


@_MANY
@given(row=_accounts(), again=_accounts())
def test_an_account_at_other_prices_comes_back_exactly(history: History, row: Row, again: Row) -> None:
    """Where only figures change that do so with the prices, the rest of the row is that of before."""
    assert isinstance(row, PairAccount)
    assert isinstance(again, PairAccount)
    moved, other = row_as_written(row), row_as_written(again)
    for name in ("indexPrice", "marginLevel", "liquidatePrice", "liquidateRate"):
        moved[name] = other[name]
    for side in ("baseAsset", "quoteAsset"):
        moved[side]["netAssetOfBtc"] = other[side]["netAssetOfBtc"]
    repriced = builders.parsed(moved)
    key = next(_KEYS)
    writer = history.writer(key, "bot")
    rows: list[Row] = [row, repriced, row]
    writer.write([read(number * 1000, {PAIR: stored}) for number, stored in enumerate(rows)])
    assert len({recorded.text for _, recorded in history.accounts([], [key], T0, T0 + 9000)}) == 1
    found = history.as_of(PAIR, [T0 + number * 1000 for number in range(3)], 60, [key])
    assert [repr(known and known.row) for known in found] == [repr(stored) for stored in rows]


@pytest.mark.parametrize("figure", ["1e3", "NaN", "-0.5", "", "1_0", " 1", "\uff11"])
@pytest.mark.parametrize("column", ["index_price", "margin_level", "liquidate_price", "liquidate_rate"])
def test_a_figure_that_no_exchange_writes_is_unreadable(
    history: History, url: str, column: str, figure: str
) -> None:
    """What comes out of a database is checked as strictly as what comes from the exchange."""
    reads = [read(number * 1000, {PAIR: account(index=50_000 + number)}) for number in range(2)]
    history.writer(KEY, "bot").write(reads)
    engine = create_engine(url)
    with engine.begin() as connection:
        newest = "WHERE read_id = (SELECT max(read_id) FROM margin_accounts)"
        connection.execute(
            text(f"UPDATE margin_accounts SET {column} = :figure {newest}"), {"figure": figure}
        )
    engine.dispose()
    before, found = (known and known.row for known in history.as_of(PAIR, [T0, T0 + 1000], 60, [KEY]))
    assert before == account(index=50_000)
    if column == "liquidate_rate" and figure == "-0.5":
        assert isinstance(found, PairAccount)
    else:
        assert isinstance(found, Unreadable)
        assert found.why.startswith("its row is not as documented (")


def test_odd_words_keep_nothing_else_out(history: History) -> None:
    """What a database cannot hold in a text is replaced, in a row, a trouble and a reason alike."""
    odd = "a\0b\ud800c"
    decision = decide(PAIR, Side.LONG, Reading(Unreadable(odd)), Rules(), 60)
    rows: dict[str, Row] = {PAIR: Unreadable(odd), "A/B": Absent("none")}
    history.writer(KEY, "bot").write([read(0, rows)], [NewDecision(T0, decision)], trouble=odd)
    newest = history.newest(rows.keys(), [KEY])
    assert newest[PAIR].recorded.row == Unreadable("ab?c")
    assert newest[PAIR].trouble == "ab?c"
    assert newest["A/B"].recorded.row == Absent("none")
    (decided,) = history.decisions([], [KEY], T0, T0 + 1)
    assert decided.reasons.endswith("ab?c")


def test_a_row_when_something_changed_and_once_a_minute(history: History) -> None:
    """An account that stays the same has one row a minute, one that changes has a row for each read."""
    writer = history.writer(KEY, "bot")
    for second in range(0, 121, 10):
        rows: dict[str, Row] = {PAIR: account(index=50_000 + second), "A/B": Absent("none")}
        writer.write([read(second * 1000, rows)])
    stored = [pair for pair, _ in history.accounts([], [KEY], T0, T0 + 10**9)]
    assert (stored.count(PAIR), stored.count("A/B")) == (13, 3)


class Model:
    """What as_of must find, the simple way: everything that every session read, in a list each."""

    def __init__(self) -> None:
        self.sessions: dict[int, list[tuple[int, dict[str, Row]]]] = defaultdict(list)

    def as_of(self, at: int, max_age: int) -> Row | None:
        """Return the pair's row in the newest of the sessions' own newest reads, if it is among it."""
        newest = [
            max(some, key=lambda item: item[0])
            for reads in self.sessions.values()
            if (some := [known for known in reads if known[0] <= at <= known[0] + max_age])
        ]
        known = [(when, rows[PAIR]) for when, rows in newest if PAIR in rows]
        return max(known, key=lambda item: item[0])[1] if known else None


class _Step(NamedTuple):
    session: int
    seconds: int
    level: str | None
    again: bool
    """Whether the bot was started anew before."""
    waits: bool
    """Whether it is stored only with the session's next read."""


_STEPS = st.builds(
    _Step,
    st.sampled_from([0, 1, 2]),
    st.sampled_from([1, 9, 20, 59, 61, 130]),
    st.sampled_from(["3", "2", None]),
    st.sampled_from([False, False, False, True]),
    st.sampled_from([False, False, True]),
)


@_MANY
@given(steps=st.lists(_STEPS, max_size=25), max_age=st.sampled_from([15, 60, 100]))
def test_as_of_agrees_with_a_simple_model(history: History, steps: list[_Step], max_age: int) -> None:
    """With gaps, changes, a pair that leaves, other bots and keys, each moment has what was known then."""
    mine, other = next(_KEYS), next(_KEYS)
    keys = {0: mine, 1: mine, 2: other}
    models = {mine: Model(), other: Model()}
    writers = {session: history.writer(key, "bot") for session, key in keys.items()}
    waiting: dict[int, list[NewRead]] = defaultdict(list)
    started = {session: session for session in keys}
    at = 0
    for number, step in enumerate(steps):
        if step.again and not waiting[step.session]:
            writers[step.session] = history.writer(keys[step.session], "bot")
            started[step.session] = 10 + number
        at += step.seconds * 1000
        rows: dict[str, Row] = {"A/B": Absent("none")} | ({PAIR: account(step.level)} if step.level else {})
        waiting[step.session].append(read(at, rows))
        if not step.waits:
            writers[step.session].write(waiting.pop(step.session))
        models[keys[step.session]].sessions[started[step.session]].append((T0 + at, rows))
    for session, reads in waiting.items():
        writers[session].write(reads)
    moments = list(range(T0 - 1000, T0 + at + 200_000, 7_000))
    for key, model in models.items():
        found = history.as_of(PAIR, moments, max_age, [key])
        assert [known and known.row for known in found] == [
            model.as_of(moment, max_age * 1000) for moment in moments
        ]


def test_a_clock_that_was_set_back_mixes_nothing_up(history: History) -> None:
    """After it, an account that is as it was gets a row again, and what was read before does not show."""
    writer = history.writer(KEY, "bot")
    for second, level in ((0, "3"), (10, "3"), (20, "2"), (15, "4"), (25, "4"), (0, "4"), (5, "4")):
        writer.write([read(second * 1000, {PAIR: account(level)})])
    assert len(list(history.accounts([PAIR], [KEY], T0, T0 + 10**6))) == 4
    found = history.as_of(PAIR, [T0 + second * 1000 for second in (6, 16, 26)], 60, [KEY])
    assert [known and known.row for known in found] == [account("4")] * 3
    assert history.newest({PAIR}, [KEY])[PAIR].recorded.row == account("4")


def test_who_does_not_read_a_pair_any_more_has_no_say_in_it(history: History) -> None:
    """Another bot that still reads it is believed, and without one it is not known."""
    one, two = history.writer(KEY, "one"), history.writer(KEY, "two")
    one.write([read(0, {PAIR: account("3")}, age=20)])
    two.write([read(5_000, {PAIR: account("3")}, age=15)])
    two.write([read(10_000, {"A/B": Absent("none")}, age=10)])
    assert history.newest({PAIR}, [KEY])[PAIR].age_seconds >= 20
    (found,) = history.as_of(PAIR, [T0 + 12_000], 60, [KEY])
    assert found
    assert found.read_at == T0
    one.write([read(15_000, {"A/B": Absent("none")}, age=5)])
    assert history.newest({PAIR}, [KEY]) == {}
    assert history.as_of(PAIR, [T0 + 16_000], 60, [KEY]) == [None]


def test_newest_is_judged_by_the_databases_clock(history: History) -> None:
    """The age counts from when the exchange was asked, whatever time the reader's own clock shows."""
    writer = history.writer(KEY, "bot")
    writer.write([read(-(10**9), {PAIR: account(), "A/B": Absent("none")}, age=40)], trouble="it hangs")
    newest = history.newest({PAIR, "X/Y"}, [KEY])
    assert newest.keys() == {PAIR}
    assert 40 <= newest[PAIR].age_seconds < 70
    assert newest[PAIR].trouble == "it hangs"


def test_what_followers_want_is_told_to_the_writer(history: History) -> None:
    """A pair that is asked for, twice even, comes back from the next write."""
    history.want(["ADA/USDT"])
    history.want(["ADA/USDT", "X/Y"])
    assert history.writer(KEY, "bot").write([]) == {"ADA/USDT", "X/Y"}


def test_several_followers_may_want_the_same_at_the_same_moment(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody's question is lost to another's."""
    writer = history.writer(KEY, "bot")
    # With the pairs' names there, nothing holds one up until the other is done.
    writer.write([read(0, {"ADA/USDT": Absent("none"), "X/Y": Absent("none")})])
    gate = threading.Barrier(5)

    def clock_of(connection: Connection) -> int | None:
        gate.wait()
        return tables.clock_of(connection)

    with monkeypatch.context() as patched:
        patched.setattr(asking, "clock_of", clock_of)
        assert _at_once(lambda: history.want(["ADA/USDT", "X/Y"])) == []
    assert writer.write([]) == {"ADA/USDT", "X/Y"}


def _at_once(do: Callable[[], object], times: int = 5) -> list[Exception]:
    """Do it in several threads at the same moment; return what went wrong."""
    errors: list[Exception] = []
    gate = threading.Barrier(times)

    def run() -> None:
        gate.wait()
        try:
            do()
        except Exception as error:  # noqa: BLE001 - the test wants to see it
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_the_accounts_of_two_keys_are_never_mixed(history: History) -> None:
    """Where two keys have stored accounts, it must be said which are meant."""
    history.writer(KEY, "bot").write([read(0, {PAIR: account("3")})])
    assert history.keys() == (KEY,)
    history.writer("ffffffff", "bot").write([read(1000, {PAIR: account("2")})])
    with pytest.raises(HistoryError, match=r"2 API keys .0a1b2c3d, ffffffff.: say with history.keys"):
        history.keys()
    assert history.keys(["ffffffff"]) == ("ffffffff",)
    (found,) = history.as_of(PAIR, [T0 + 5000], 60, [KEY])
    assert found
    assert found.row == account("3")


def test_decisions_come_back(history: History) -> None:
    """A decision is stored with its bot, side, factor, rule and reasons."""
    decision = decide(PAIR, Side.LONG, Reading(account("1.5")), Rules(), 60)
    history.writer(KEY, "my bot").write([], [NewDecision(T0, decision)])
    (found,) = history.decisions([PAIR], [KEY], T0, T0 + 1)
    assert (found.pair, found.bot, found.outcome) == (PAIR, "my bot", "shrink")
    assert (found.factor, found.rule) == (decision.factor, "margin_level")
    assert found.reasons == "; ".join(decision.reasons)


def test_purging_takes_what_is_too_old_of_its_own_key_only(history: History) -> None:
    """Reads, accounts, contents and decisions go; newer ones, and those of another key, stay."""
    decision = decide(PAIR, Side.LONG, Reading(account()), Rules(), 60)
    mine, other = history.writer(KEY, "bot"), history.writer("ffffffff", "bot")
    for second in (0, 100, 200):
        for writer in (mine, other):
            row = account(index=50_000 + second, quote_interest=second)
            writer.write([read(second * 1000, {PAIR: row})], [NewDecision(T0 + second * 1000, decision)])
    assert history.purge(KEY, T0 + 150_000) == 2
    assert history.span([KEY]) == (T0 + 200_000, T0 + 200_000)
    assert history.span(["ffffffff"]) == (T0, T0 + 200_000)
    assert len(list(history.decisions([], [KEY], T0, T0 + 10**6))) == 1
    assert len(list(history.decisions([], ["ffffffff"], T0, T0 + 10**6))) == 3
    assert len(list(history.accounts([], [KEY, "ffffffff"], T0, T0 + 10**6))) == 4


def test_purging_leaves_nothing_behind_that_nobody_needs(history: History, url: str) -> None:
    """Contents and sessions go with the reads that they belonged to, but not those that are still in use."""
    old = history.writer(KEY, "old")
    old.write([read(0, {PAIR: account(quote_interest=1)})])
    writer = history.writer(KEY, "new")
    for second in (0, 100):
        writer.write([read(second * 1000, {PAIR: account()})])
    engine = create_engine(url)

    def left() -> set[int]:
        tables = ("reads", "accounts", "contents", "sessions")
        with engine.connect() as connection:
            return {connection.scalar(text(f"SELECT count(*) FROM margin_{name}")) or 0 for name in tables}

    history.purge(KEY, T0 + 50_000)
    assert left() == {1}
    history.purge(KEY, T0 + 150_000)
    assert left() == {0}
    engine.dispose()


def test_what_was_purged_while_nothing_was_read_is_stored_anew(history: History) -> None:
    """A writer that could not read for longer than the retention does not refer to what is gone."""
    writer = history.writer(KEY, "bot")
    decision = decide(PAIR, Side.LONG, Reading(account()), Rules(), 60)
    writer.write([read(0, {PAIR: account()})], [NewDecision(T0 + 500_000, decision)])
    history.purge(KEY, T0 + 400_000)
    writer.write([read(500_000, {PAIR: account()})])
    (found,) = history.as_of(PAIR, [T0 + 500_000], 60, [KEY])
    assert found
    assert found.row == account()


def test_bots_may_store_while_the_history_is_purged(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is refused, nothing new is lost, and nothing old stays."""
    monkeypatch.setattr(asking, "_READS_PURGED_AT_ONCE", 7)
    writers = [history.writer(KEY, "one"), history.writer(KEY, "two")]
    before = [read(second * 1000, {PAIR: account(index=50_000 + second)}) for second in range(100)]
    for writer in writers:
        writer.write(before)
    numbers = iter(range(2))

    def store_or_purge() -> None:
        number = next(numbers, None)
        if number is None:
            history.purge(KEY, T0 + 100_000)
            return
        for second in range(100, 150):
            row = account(index=50_000 + second, quote_interest=second)
            writers[number].write([read(second * 1000, {PAIR: row})])

    assert _at_once(store_or_purge, times=3) == []
    stored = [recorded for _, recorded in history.accounts([], [KEY], T0, T0 + 10**6)]
    assert sorted(recorded.read_at for recorded in stored) == sorted(
        [T0 + second * 1000 for second in range(100, 150)] * 2
    )
    # And what they hold was not purged with the rest.
    assert all(isinstance(recorded.row, PairAccount) for recorded in stored)


def test_a_fingerprint_tells_histories_apart(history: History) -> None:
    """One more read in the period makes another fingerprint, one after it does not."""
    writer = history.writer(KEY, "bot")
    writer.write([read(0, {PAIR: account()})])
    before = history.fingerprint([KEY], 0, T0 + 1000)
    writer.write([read(2000, {PAIR: account()})])
    assert history.fingerprint([KEY], 0, T0 + 1000) == before
    assert history.fingerprint([KEY], 0, T0 + 3000) != before


def test_equal_rows_in_another_database_are_another_history(tmp_path: Path) -> None:
    """A history that was deleted and written anew is not taken for the one before."""
    fingerprints = set()
    for name in ("one", "two"):
        with closing(History(f"sqlite:///{tmp_path / name}")) as history:
            history.prepare()
            history.writer(KEY, "bot").write([read(0, {PAIR: account()})])
            fingerprints.add(history.fingerprint([KEY], 0, T0 + 1000))
    assert len(fingerprints) == 2


# ----- versions


def test_an_earlier_version_is_migrated_with_what_it_holds(
    url: str, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A further step is done once, and the accounts stay."""
    history.writer(KEY, "bot").write([read(0, {PAIR: account()})])
    steps: list[int] = []

    def further(connection: Connection) -> None:
        connection.execute(text("ALTER TABLE margin_sessions ADD COLUMN remark VARCHAR(9)"))
        steps.append(2)

    known = len(tables.MIGRATIONS)
    set_migrations(monkeypatch, (*tables.MIGRATIONS, further))
    with pytest.raises(HistoryError, match=f"has version {known}, not {known + 1}"):
        history.check()
    for _ in range(2):
        _prepared(url)
    assert steps == [2]
    assert history.as_of(PAIR, [T0], 60, [KEY])[0]


def test_the_first_version_gets_the_tables_of_deals(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database from before there was trading has them after a start, and what it held."""
    with monkeypatch.context() as patch:
        set_migrations(patch, tables.MIGRATIONS[:1])
        before = History(url)
        before.prepare()
        before.writer(KEY, "bot").write([read(0, {PAIR: account()})])
        before.close()
        engine = create_engine(url)
        with engine.begin() as connection:
            for name in ("margin_steps", "margin_deals"):
                connection.execute(text(f"DROP TABLE {name}"))
    after = History(url)
    after.prepare()
    with after.reading() as connection:
        assert connection.scalar(text("SELECT COUNT(*) FROM margin_deals")) == 0
    assert after.as_of(PAIR, [T0], 60, [KEY])[0]
    after.close()
    engine.dispose()


def test_a_later_version_is_refused(url: str, history: History) -> None:
    """What a later version of this package has written is neither changed nor read."""
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE margin_schema SET version = 99"))
    engine.dispose()
    known = len(tables.MIGRATIONS)
    with pytest.raises(NewerHistoryError, match=f"has version 99 and this package knows {known}"):
        history.prepare()
    with pytest.raises(HistoryError, match=f"has version 99, not {known}"):
        history.check()


def test_several_bots_may_prepare_at_the_same_moment(url: str) -> None:
    """Whoever is slower finds the tables that another has made."""
    assert _at_once(lambda: _prepared(url)) == []
    _prepared(url)


def test_several_bots_may_migrate_at_the_same_moment(
    url: str, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A further step is done by one of them."""
    steps: list[int] = []

    def further(connection: Connection) -> None:
        steps.append(2)
        # Long enough for the others to come.
        time.sleep(0.2)
        connection.execute(text("UPDATE margin_schema SET identity = 'migrated'"))

    migrations = (*tables.MIGRATIONS, further)
    set_migrations(monkeypatch, migrations)
    assert _at_once(lambda: _prepared(url)) == []
    assert steps == [2]


def _prepared(url: str) -> None:
    history = History(url)
    try:
        history.prepare()
        history.check()
    finally:
        history.close()


def test_a_writer_stops_where_the_version_has_changed(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a later version has migrated is not written to by a bot that began before."""
    writer = history.writer(KEY, "bot")
    writer.write([read(0, {PAIR: account()})])
    for module in (asking, writing):
        monkeypatch.setattr(module, "MIGRATIONS", ())
    with pytest.raises(HistoryError, match=r"has version \d, not 0"):
        writer.write([read(1000, {PAIR: account()})])


# ----- trouble


def test_a_database_that_is_gone_is_an_error_and_then_made_anew(tmp_path: Path) -> None:
    """After its file was deleted a write fails; once prepared again, a new session goes on."""
    file = tmp_path / "h.sqlite"
    history = History(f"sqlite:///{file}")
    history.prepare()
    writer = history.writer(KEY, "bot")
    writer.write([read(0, {PAIR: account()})])
    for left in tmp_path.glob("h.sqlite*"):
        left.unlink()
    with pytest.raises(HistoryError, match="cannot be written"):
        writer.write([read(1000, {PAIR: account()})])
    history.prepare()
    history.writer(KEY, "bot").write([read(2000, {PAIR: account()})])
    assert history.span([KEY]) == (T0 + 2000, T0 + 2000)


def test_a_database_that_another_bot_has_made_anew_is_not_written_to(tmp_path: Path) -> None:
    """The session that a writer remembers would be another user's there."""
    file = tmp_path / "h.sqlite"
    history = History(f"sqlite:///{file}")
    history.prepare()
    writer = history.writer(KEY, "bot")
    writer.write([read(0, {PAIR: account()})])
    for left in tmp_path.glob("h.sqlite*"):
        left.unlink()
    history.prepare()
    history.writer("ffffffff", "other").write([read(0, {PAIR: account("2")})])
    with pytest.raises(HistoryError, match="has been replaced by another"):
        writer.write([read(1000, {PAIR: account()})])
    assert history.span(["ffffffff"]) == (T0, T0)
    history.writer(KEY, "bot").write([read(1000, {PAIR: account()})])
    assert history.span([KEY]) == (T0 + 1000, T0 + 1000)


def test_a_full_disk_is_an_error_and_nothing_is_half_stored(tmp_path: Path) -> None:
    """The message says that it is full; with room again, the same writer goes on."""
    history = History(f"sqlite:///{tmp_path / 'h.sqlite'}")
    history.prepare()
    writer = history.writer(KEY, "bot")
    writer.write([read(0, {PAIR: account()})])
    many: dict[str, Row] = {f"P{number}/USDT": Unreadable("x" * 2000) for number in range(100)}

    def full(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA max_page_count=30")

    event.listen(history._engine, "connect", full)
    with pytest.raises(HistoryError, match=r"cannot be written \(OperationalError: disk is full\)"):
        writer.write([read(1000, many)])
    event.remove(history._engine, "connect", full)
    assert history.span([KEY]) == (T0, T0)
    writer.write([read(1000, many)])
    assert len(list(history.accounts([], [KEY], T0 + 1000, T0 + 1001))) == 101


def test_a_locked_database_is_an_error_after_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever holds a lock for too long is not waited for; the next write stores it all."""
    monkeypatch.setattr(database_module, "_CONNECT_SECONDS", 0.05)
    file = tmp_path / "h.sqlite"
    history = History(f"sqlite:///{file}")
    history.prepare()
    writer = history.writer(KEY, "bot")
    with closing(sqlite3.connect(file, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(HistoryError, match=r"cannot be written \(OperationalError: locked\)"):
            writer.write([read(0, {PAIR: account()})])
        # Reading goes on meanwhile.
        assert history.span([KEY]) is None
    writer.write([read(0, {PAIR: account()})])
    assert history.span([KEY]) == (T0, T0)


def test_a_server_that_goes_away_is_an_error_until_it_is_back(postgresql_server: PostgreSQL) -> None:
    """The same writer goes on where the database is the same; what failed is stored then."""
    history = History(postgresql_server.new_database())
    history.prepare()
    writer = history.writer(KEY, "bot")
    writer.write([read(0, {PAIR: account("3")})])
    postgresql_server.stop()
    try:
        for failing in (lambda: writer.write([read(1000, {PAIR: account("2")})]), history.keys):
            with pytest.raises(HistoryError, match="OperationalError") as caught:
                failing()
            assert "127.0.0.1" not in str(caught.value)
    finally:
        postgresql_server.start()
    writer.write([read(1000, {PAIR: account("2")})])
    (found,) = history.as_of(PAIR, [T0 + 1000], 60, [KEY])
    assert found
    assert found.row == account("2")
    history.close()


def test_an_error_tells_nothing_of_what_was_to_be_stored(history: History, url: str) -> None:
    """No amount of an account is in the message of a statement that failed."""
    writer = history.writer(KEY, "bot")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE margin_accounts"))
    engine.dispose()
    with pytest.raises(HistoryError) as caught:
        writer.write([read(0, {PAIR: account(indexPrice="50000.12345678")})])
    assert "50000.12345678" not in repr(caught.value)
    assert "BTC" not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert history.span([KEY]) is None


@pytest.mark.parametrize("what", ["a text", "a folder"])
def test_what_is_no_database_is_an_error(tmp_path: Path, what: str) -> None:
    """A file that is something else is left as it is."""
    file = tmp_path / "geheim.sqlite"
    if what == "a text":
        file.write_text("not a database " * 1000)
    else:
        file.mkdir()
    expected = "DatabaseError: not a database" if what == "a text" else "OperationalError: unable to open"
    with pytest.raises(HistoryError, match=expected) as caught:
        History(f"sqlite:///{file}").prepare()
    assert "geheim" not in str(caught.value)
    if what == "a text":
        assert file.read_text() == "not a database " * 1000


def test_what_fails_is_stored_later_as_a_whole(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails in the middle leaves nothing behind, neither rows nor what the writer remembers."""
    writer = history.writer(KEY, "bot")

    def fail(*_: object) -> None:
        raise OSError("on purpose")

    with monkeypatch.context() as patched:
        patched.setattr(Writer, "_store", fail)
        with pytest.raises(HistoryError):
            writer.write([read(0, {PAIR: account()})])
    assert history.span([KEY]) is None
    writer.write([read(0, {PAIR: account()})])
    assert history.as_of(PAIR, [T0], 60, [KEY])[0]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://bot:geheim@127.0.0.1:1/margin",
        "sqlite:////nowhere/geheim/history.sqlite",
        "nosuchdialect://bot:geheim@host/margin",
        # A driver that is not installed.
        "oracle+cx_oracle://bot:geheim@host/margin",
    ],
)
def test_an_error_tells_nothing_of_the_url(url: str) -> None:
    """Neither the password nor the host or the folder is in the message or its causes."""
    with pytest.raises(HistoryError) as caught:
        History(url).prepare()
    assert "geheim" not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it; nothing else of the URL is told."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(HistoryError, match=r"driver psycopg is not installed: pip install .*\[postgresql\]"):
        History("postgresql+psycopg://bot:geheim@host/margin")


def test_looking_does_not_create_a_file(tmp_path: Path) -> None:
    """Who only reads says that there is no history, and leaves no empty one behind."""
    with pytest.raises(HistoryError, match="there is no history yet"):
        History(f"sqlite:///{tmp_path / 'h.sqlite'}").keys()
    assert list(tmp_path.iterdir()) == []


# ----- where it is


def test_the_environment_wins_over_the_setting(tmp_path: Path) -> None:
    """The URL is that of the environment, else of the settings, else a file in the user data folder."""
    settings = HistorySettings(db_url=f"sqlite:///{tmp_path / 'set.sqlite'}")
    config = {"user_data_dir": str(tmp_path)}
    variable = {ENV_DB_URL: f"sqlite:///{tmp_path / 'variable.sqlite'}"}
    open_history(settings, config, variable).prepare()
    assert [file.name for file in tmp_path.glob("*.sqlite")] == ["variable.sqlite"]
    open_history(settings, config, {}).prepare()
    open_history(HistorySettings(), config, {}).prepare()
    names = {file.name for file in tmp_path.glob("*.sqlite")}
    assert names == {"variable.sqlite", "set.sqlite", "isolated_margin.sqlite"}
    with pytest.raises(SettingsError, match="ISOLATED_MARGIN_DB_URL is no URL") as caught:
        open_history(settings, config, {ENV_DB_URL: "geheim"})
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://bot:geheim@host/margin",
        "postgresql+psycopg://host/margin?password=geheim",
        "mssql+pyodbc://?odbc_connect=DRIVER%3DX%3BPWD%3Dgeheim",
        "mysql+pymysql://host/margin?ssl_key_password=geheim",
        "oracle+oracledb://host/margin?wallet_password=geheim",
        "postgresql+psycopg://host/margin?access_token=geheim",
        "postgresql+psycopg://?conninfo=postgresql://bot:geheim@host/margin",
    ],
)
def test_a_password_in_the_configuration_is_refused(url: str) -> None:
    """Freqtrade shows its configuration: the message names the environment variable, not the password."""
    with pytest.raises(
        SettingsError, match=r"history.db_url: must not hold a password.*ISOLATED_MARGIN_DB_URL"
    ) as caught:
        Settings.load({"history": {"db_url": url}})
    assert "geheim" not in str(caught.value)


def test_the_id_of_a_key_tells_nothing_of_it() -> None:
    """It is eight digits of a hash, the same each time and another for another key."""
    assert key_id("a key") == key_id("a key") != key_id("another key")
    assert len(key_id("a key")) == 8
    assert milliseconds(1.5) == 1500


def test_a_server_that_is_not_there_is_said() -> None:
    """In words that hold nothing of the URL."""
    pytest.importorskip("psycopg")
    history = History("postgresql+psycopg://bot:geheim@127.0.0.1:9/margin")
    with pytest.raises(HistoryError, match=r"cannot be read \(OperationalError: refused\)"):
        history.check()


def test_sqlites_own_kind_of_url_is_read_as_well(tmp_path: Path) -> None:
    """Its file has another name than the URL says."""
    history = History(f"sqlite:///file:{tmp_path / 'h.sqlite'}?uri=true")
    history.prepare()
    history.writer(KEY, "bot").write([read(0, {PAIR: account()})])
    history.check()
    assert history.span([KEY]) == (T0, T0)


def test_a_reader_from_the_future_is_not_believed_when_its_time_has_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database's clock was an hour ahead for a while; what was stored after that is what counts."""
    now = T0
    set_clock(monkeypatch, lambda _: now)
    history = History(f"sqlite:///{tmp_path / 'h.sqlite'}")
    history.prepare()
    now = T0 + 3_600_000
    history.writer(KEY, "bot").write([read(3_600_000, {PAIR: account("3")})])
    later = history.writer(KEY, "bot")
    for second in range(20, 3500, 20):
        now = T0 + second * 1000
        later.write([read(second * 1000, {PAIR: account("1.2")})])
    for second in (3490, 3590, 3601, 3650):
        now = T0 + second * 1000
        newest = history.newest([PAIR], [KEY])[PAIR]
        assert newest.recorded.row == account("1.2")
        assert newest.age_seconds == second - 3480


def test_what_was_read_before_a_clock_was_set_back_is_not_taken_for_newer(history: History) -> None:
    """In one session, whose reads were written in the order of time."""
    writer = history.writer(KEY, "bot")
    for second, level in ((60, "3"), (95, "3"), (65, "1.2"), (75, "1.2"), (85, "1.2")):
        writer.write([read(second * 1000, {PAIR: account(level)})])
    found = history.as_of(PAIR, [T0 + second * 1000 for second in (61, 66, 90, 96, 100)], 60, [KEY])
    assert [known and known.row for known in found] == [account("3"), *[account("1.2")] * 4]
