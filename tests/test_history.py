"""The history, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import builders
import pytest
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st
from postgresql import PostgreSQL
from sqlalchemy import Connection, create_engine, text

from freqtrade_isolated_margin import history as history_module
from freqtrade_isolated_margin import tables
from freqtrade_isolated_margin.account import Absent, PairAccount, Row, Unreadable
from freqtrade_isolated_margin.errors import SettingsError
from freqtrade_isolated_margin.history import (
    History,
    NewDecision,
    NewRead,
    Writer,
    key_id,
    milliseconds,
    open_history,
)
from freqtrade_isolated_margin.margin import Side, TierRatios
from freqtrade_isolated_margin.rules import Reading, Rules, decide
from freqtrade_isolated_margin.settings import ENV_DB_URL, HistorySettings, Settings
from freqtrade_isolated_margin.tables import HistoryError, NewerHistoryError

KEY = "0a1b2c3d"
T0 = 1_800_000_000_000
PAIR = "BTC/USDT"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'history.sqlite'}"
    server: PostgreSQL = request.getfixturevalue("postgresql_server")
    return server.new_database()


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
    assert again.row.model_dump() == stored.model_dump()


@how(max_examples=60)
@given(st.data())
def test_any_amount_comes_back_exactly(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever decimals a row has, they are stored and found without loss."""
    amount = st.decimals("0.00000001", "99999999", places=8).map(lambda number: f"{number:f}")
    stored = builders.account(
        base_total=data.draw(amount), quote_debt=data.draw(amount), index=data.draw(amount)
    )
    history = History(f"sqlite:///{tmp_path_factory.mktemp('exact') / 'h.sqlite'}")
    history.prepare()
    history.writer(KEY, "bot").write([read(0, {PAIR: stored})])
    (found,) = history.as_of(PAIR, [T0], 60, [KEY])
    assert found
    assert found.row == stored


def test_a_row_when_something_changed_and_once_a_minute(history: History) -> None:
    """An account that stays the same has one row a minute, one that changes has a row for each read."""
    writer = history.writer(KEY, "bot")
    for second in range(0, 121, 10):
        rows: dict[str, Row] = {PAIR: account(index=50_000 + second), "A/B": Absent("none")}
        writer.write([read(second * 1000, rows)])
    stored = [pair for pair, _ in history.accounts([], [KEY], T0, T0 + 10**9)]
    assert (stored.count(PAIR), stored.count("A/B")) == (13, 3)


class Model:
    """What as_of must find, the simple way: everything that every session read, in a list."""

    def __init__(self) -> None:
        self.reads: list[tuple[int, dict[str, Row]]] = []

    def as_of(self, at: int, max_age: int) -> Row | None:
        """Return the pair's row in the newest read of a session that has it."""
        known = [
            (when, rows[PAIR]) for when, rows in self.reads if PAIR in rows and when <= at <= when + max_age
        ]
        return max(known, key=lambda item: item[0])[1] if known else None


_STEP = st.tuples(
    st.sampled_from([0, 1]),
    st.sampled_from([1, 9, 20, 59, 61, 130]),
    st.sampled_from(["3", "2", None]),
)


@how(max_examples=80)
@given(steps=st.lists(_STEP, max_size=25), max_age=st.sampled_from([15, 60, 100]))
def test_as_of_agrees_with_a_simple_model(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, str | None]], max_age: int
) -> None:
    """With two sessions, gaps, changes and a pair that leaves, each moment has the newest that was known."""
    history = History(f"sqlite:///{tmp_path_factory.mktemp('model') / 'h.sqlite'}")
    history.prepare()
    writers = [history.writer(KEY, "one"), history.writer(KEY, "two")]
    model = Model()
    newest: dict[int, tuple[int, bool]] = {}
    at = 0
    for session, seconds, level in steps:
        at += seconds * 1000
        rows: dict[str, Row] = {"A/B": Absent("none")} | ({PAIR: account(level)} if level else {})
        writers[session].write([read(at, rows)])
        model.reads.append((T0 + at, rows))
        newest[session] = (at, level is not None)
    moments = list(range(T0, T0 + at + 200_000, 7_000))
    found = history.as_of(PAIR, moments, max_age, [KEY])
    for moment, known in zip(moments, found, strict=True):
        row = known.row if known else None
        expected = model.as_of(moment, max_age * 1000)
        # A session that does not read the pair any more no longer vouches for what it read before.
        if row is None and expected is not None:
            gone = [when for when, rows in model.reads if PAIR not in rows and when <= moment]
            assert gone
            continue
        assert row == expected


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
    assert len(list(history.accounts([], [KEY, "ffffffff"], T0, T0 + 10**6))) == 4


def test_a_fingerprint_tells_histories_apart(history: History) -> None:
    """One more read in the period makes another fingerprint, one after it does not."""
    writer = history.writer(KEY, "bot")
    writer.write([read(0, {PAIR: account()})])
    before = history.fingerprint([KEY], 0, T0 + 1000)
    writer.write([read(2000, {PAIR: account()})])
    assert history.fingerprint([KEY], 0, T0 + 1000) == before
    assert history.fingerprint([KEY], 0, T0 + 3000) != before


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

    migrations = (*tables.MIGRATIONS, further)
    monkeypatch.setattr(tables, "MIGRATIONS", migrations)
    monkeypatch.setattr(history_module, "MIGRATIONS", migrations)
    with pytest.raises(HistoryError, match="has version 1, not 2"):
        history.check()
    for _ in range(2):
        again = History(url)
        again.prepare()
        again.check()
    assert steps == [2]
    assert again.as_of(PAIR, [T0], 60, [KEY])[0]


def test_a_later_version_is_refused(url: str, history: History) -> None:
    """What a later version of this package has written is neither changed nor read."""
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE margin_schema SET version = 99"))
    engine.dispose()
    with pytest.raises(NewerHistoryError, match="has version 99 and this package knows 1"):
        history.prepare()
    with pytest.raises(HistoryError, match="has version 99, not 1"):
        history.check()


def test_several_bots_may_prepare_at_the_same_moment(url: str) -> None:
    """Whoever is slower finds the tables that another has made."""
    errors: list[HistoryError] = []
    gate = threading.Barrier(4)

    def prepare() -> None:
        gate.wait()
        try:
            History(url).prepare()
        except HistoryError as error:
            errors.append(error)

    threads = [threading.Thread(target=prepare) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    History(url).check()


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
    ],
)
def test_an_error_tells_nothing_of_the_url(url: str) -> None:
    """Neither the password nor the host or the folder is in the message or its causes."""
    with pytest.raises(HistoryError) as caught:
        History(url).prepare()
    assert "geheim" not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


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
