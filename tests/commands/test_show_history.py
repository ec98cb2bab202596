"""The command `history`, on a database that a bot's writer has filled."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support import builders
from support.postgresql import PostgreSQL

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.account.records import Absent, PairAccount, Row, Unreadable
from freqtrade_isolated_margin.binance.clock import milliseconds, moment
from freqtrade_isolated_margin.binance.credentials import ENV_KEY, ENV_SECRET
from freqtrade_isolated_margin.commands.cli import main
from freqtrade_isolated_margin.history.asking import History
from freqtrade_isolated_margin.history.database import DEFAULT_FILE
from freqtrade_isolated_margin.history.writing import NewDecision, NewRead, key_id
from freqtrade_isolated_margin.rules.decide import Reading, decide
from freqtrade_isolated_margin.rules.rules import Rules
from freqtrade_isolated_margin.rules.settings import ENV_DB_URL

KEY = "0a1b2c3d"
PAIR = "BTC/USDT"
CONFIG = {
    "exchange": {"name": "binance", "pair_whitelist": [PAIR]},
    "stake_currency": "USDT",
    "stake_amount": 10,
    "max_open_trades": 1,
    "dry_run": True,
    "pairlists": [{"method": "StaticPairList"}],
    "entry_pricing": {"price_side": "same"},
    "exit_pricing": {"price_side": "same"},
}


class Done(NamedTuple):
    """What became of a run."""

    status: int
    out: str
    err: str


class Command:
    """Runs the command in a folder of its own with a configuration, and fills the history there."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.now = milliseconds(time.time())
        self._capsys = capsys

    def configure(self, **section: Any) -> None:
        """Write the configuration."""
        (self.folder / "config.json").write_text(json.dumps(CONFIG | {"isolated_margin": section}))

    def history(self, url: str | None = None) -> History:
        """Return the history, prepared."""
        history = History(url or f"sqlite:///{self.folder / 'user_data' / DEFAULT_FILE}")
        history.prepare()
        return history

    def run(self, *words: str) -> Done:
        """Run it in this process."""
        self._capsys.readouterr()
        status = main(["history", "-c", "config.json", *words])
        return Done(status, *self._capsys.readouterr())

    def fill(
        self, *levels: Row | str, pair: str = PAIR, seconds: int = 10, key: str = KEY, url: str | None = None
    ) -> None:
        """Store a read and the decision on it for each level or row, the last of them just now."""
        history = self.history(url)
        writer = history.writer(key, "my bot")
        for number, level in enumerate(levels):
            at = self.now - (len(levels) - 1 - number) * seconds * 1000
            row = account(level) if isinstance(level, str) else level
            decision = decide(pair, Side.LONG, Reading(row), Rules(), 60)
            writer.write([NewRead(at, lambda: 0, {pair: row}, {})], [NewDecision(at + 3, decision)])
        history.close()


@pytest.fixture
def command(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    _restored_logging: None,
) -> Command:
    """The command in a folder with a configuration."""
    (tmp_path / "user_data").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    command = Command(tmp_path, capsys)
    command.configure()
    return command


def account(level: str) -> PairAccount:
    """A pair's account that owes something."""
    row = builders.parsed(builders.long_row(level))
    assert isinstance(row, PairAccount)
    return row


def table(done: Done) -> list[list[str]]:
    """Return the cells of each line of the table."""
    assert done.status == 0, done
    lines = [line for line in done.out.splitlines() if re.match(r"20\d\d-", line)]
    # A pair of spaces at least is between two columns.
    return [re.split(r" {2,}", line.strip()) for line in lines]


# ----- all of it


def test_json_has_every_row_with_its_decimals_as_stored(command: Command) -> None:
    """Accounts and decisions, in the order of time, under the documented names."""
    row = builders.parsed(builders.long_row("2.5", marginLevel="2.50000000", indexPrice="50000.10000000"))
    assert isinstance(row, PairAccount)
    command.fill(row, Absent("no account"), Unreadable("odd"), "1.1")
    done = command.run("--json")
    shown = json.loads(done.out)
    assert done.status == 0
    assert [one["account"] for one in shown["accounts"]] == ["active", "absent", "unreadable", "active"]
    first = shown["accounts"][0]
    assert first["pair"] == PAIR
    assert first["margin_level"] == "2.50000000"
    assert first["index_price"] == "50000.10000000"
    assert first["liquidation_price"] == f"{row.liquidate_price:f}"
    assert first["quote_borrowed"] == f"{row.quote_asset.borrowed:f}"
    assert first["time"].endswith("Z")
    assert shown["accounts"][1]["why"] == "no account"
    assert shown["accounts"][1]["margin_level"] is None
    assert [one["decision"] for one in shown["decisions"]] == ["allow", "allow", "block", "block"]
    last = shown["decisions"][-1]
    assert (last["bot"], last["side"], last["stake_factor"]) == ("my bot", "long", "0")
    assert "block_below" in last["reasons"]


def test_where_nothing_is_owed_there_is_no_level(command: Command) -> None:
    """The 999 and the 0 of such a row are no margin level and no liquidation price."""
    command.fill(builders.account(base_total=1))
    (shown,) = json.loads(command.run("--json").out)["accounts"]
    assert (shown["account"], shown["margin_level"], shown["liquidation_price"]) == ("active", None, None)
    assert shown["base_total"] is not None


def test_dust_has_no_liquidation_price(command: Command) -> None:
    """What is printed as one means nothing."""
    command.fill(builders.parsed(builders.dust_row("99999999999999999999")))
    (shown,) = json.loads(command.run("--json").out)["accounts"]
    assert (shown["margin_level"], shown["liquidation_price"]) == ("999", None)


def test_csv_has_the_same_in_one_table(command: Command) -> None:
    """Each account and each decision is a row, in the order of time; what it does not have is empty."""
    command.fill("3.00000000", "1.1")
    shown = json.loads(command.run("--json").out)
    rows = list(csv.DictReader(io.StringIO(command.run("--csv").out)))
    assert [row["record"] for row in rows] == ["account", "decision"] * 2
    for record in ("account", "decision"):
        for row, expected in zip(
            [row for row in rows if row["record"] == record], shown[f"{record}s"], strict=True
        ):
            assert {name: row[name] for name in expected} == {
                name: "" if value is None else str(value) for name, value in expected.items()
            }


def test_only_the_pairs_and_the_time_that_are_asked_for(command: Command) -> None:
    """A futures pair means its spot pair; without pairs it is all of them, without a time the last day."""
    command.fill("3", "2.9", seconds=2 * 24 * 3600)
    command.fill("2.8", pair="ADA/USDT")

    def levels(*words: str) -> list[str]:
        return [one["margin_level"] for one in json.loads(command.run("--json", *words).out)["accounts"]]

    assert sorted(levels()) == ["2.8", "2.9"]
    assert levels("BTC/USDT:USDT") == ["2.9"]
    assert levels("BTC/USDT", "--since", "3d") == ["3", "2.9"]


def test_an_empty_period_is_none_the_less_json_and_csv(command: Command) -> None:
    """Lists without anything, and the names of the columns."""
    command.fill("3")
    assert json.loads(command.run("--json", "X/Y").out) == {"accounts": [], "decisions": []}
    assert len(command.run("--csv", "X/Y").out.splitlines()) == 1


# ----- the table


def test_the_table_has_a_line_for_each_change_and_each_quarter_of_an_hour(command: Command) -> None:
    """What is left out is counted: of 200 reads in 33 minutes, three lines by time and one by the change."""
    command.fill(*(f"3.{number:03}" for number in range(199)), "1.2")
    done = command.run()
    lines = table(done)
    assert [(line[2], line[6]) for line in lines] == [
        ("3", "allow"),
        ("3.09", "allow"),
        ("3.18", "allow"),
        ("1.2", "block"),
    ]
    assert lines[0][1] == PAIR
    assert lines[0][3] == "excessive"
    assert "block_below" in lines[3][7]
    assert "196 rows in which neither verdict nor status changed are left out; --json and --csv" in done.out


def test_each_pair_has_lines_of_its_own(command: Command) -> None:
    """One pair's changes do not show the other's unchanged rows."""
    command.fill("3", "1.2", "3", "1.2")
    command.fill("3", "3", "3", "3", pair="ADA/USDT")
    lines = table(command.run())
    assert [line[6] for line in lines if line[1] == PAIR] == ["allow", "block", "allow", "block"]
    assert len([line for line in lines if line[1] == "ADA/USDT"]) == 1


def test_a_decision_without_a_new_account_has_the_time_it_was_made(command: Command) -> None:
    """As when the account got too old: the line is the decision's, with what the account was last."""
    history = command.history()
    writer = history.writer(KEY, "my bot")
    at = command.now - 600_000
    row = account("3")
    fresh, old = decide(PAIR, Side.LONG, Reading(row), Rules(), 60), Reading(None)
    stale = decide(PAIR, Side.LONG, old, Rules(), 60)
    writer.write([NewRead(at, lambda: 0, {PAIR: row}, {})], [NewDecision(at, fresh)])
    writer.write([NewRead(at + 60_000, lambda: 0, {PAIR: row}, {})])
    writer.write([], [NewDecision(at + 130_000, stale)])
    history.close()
    first, second = table(command.run())
    assert second[0] == f"{moment(at + 130_000):%Y-%m-%d %H:%M:%S}"
    assert (first[2], first[6]) == ("3", "allow")
    assert (second[2], second[6]) == ("3", "block")
    assert second[0] > first[0]


def test_the_first_line_knows_the_verdict_of_before(command: Command) -> None:
    """A decision that stands is stored once a minute: the period may begin in between."""
    history = command.history()
    writer = history.writer(KEY, "my bot")
    at = command.now - 10 * 60_000
    decision = decide(PAIR, Side.LONG, Reading(account("3")), Rules(), 60)
    writer.write(
        [NewRead(at - 30_000, lambda: 0, {PAIR: account("3")}, {})], [NewDecision(at - 30_000, decision)]
    )
    writer.write([NewRead(at + 20_000, lambda: 0, {PAIR: account("2.9")}, {})])
    history.close()
    assert [(line[2], line[6]) for line in table(command.run("--since", "10m"))] == [("2.9", "allow")]


def test_a_narrow_window_keeps_the_numbers_whole(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """In 80 columns the reasons are left out, and that is said; nothing is cut."""
    monkeypatch.setenv("COLUMNS", "80")
    command.fill("3", "1.7")
    out = command.run().out
    assert "…" not in out
    assert "The reasons need a window of 130 columns." in out
    assert [line.split()[-1] for line in out.splitlines() if PAIR in line] == ["allow", "0.6000"]


def test_prices_have_seven_digits(command: Command) -> None:
    """Whatever a coin costs, as many as one can compare at a glance; cut, and never with an exponent."""
    row = builders.parsed(builders.long_row("3", indexPrice="0.00001234567890"))
    command.fill(row)
    assert table(command.run())[0][4] == "0.00001234567"


def test_two_bots_are_told_apart(command: Command) -> None:
    """Where several decide differently, a column says whose decision it is."""
    command.fill("3")
    history = command.history()
    decision = decide(PAIR, Side.SHORT, Reading(None), Rules(), 60)
    history.writer(KEY, "other").write([], [NewDecision(command.now + 10, decision)])
    history.close()
    lines = table(command.run())
    assert [(line[6], line[7]) for line in lines] == [("my bot, long", "allow"), ("other, short", "block")]


def test_words_of_the_exchange_are_no_markup(command: Command) -> None:
    """A status with brackets is shown as it came."""
    row = builders.parsed(builders.long_row("3", marginLevelStatus="[/red]BOO[bold]"))
    command.fill(row)
    assert "[/red]boo[bold]" in command.run().out


def test_an_empty_period_says_so(command: Command) -> None:
    """With the pairs and the time that were asked for."""
    command.fill("3")
    done = command.run("X/Y", "--since", "2026-01-02")
    assert done.out == "Nothing of X/Y is stored since 2026-01-02 00:00:00 UTC.\n"
    assert done.status == 0


# ----- trouble


@pytest.mark.parametrize("as_json", [False, True])
def test_no_history_is_an_error_and_creates_none(command: Command, as_json: bool) -> None:
    """Exit status 2, the kind and the message; no file is left behind."""
    done = command.run(*(["--json"] if as_json else []))
    assert done.status == 2
    if as_json:
        assert json.loads(done.out)["error"]["kind"] == "history"
    else:
        assert done.out == ""
        assert done.err.startswith("history: there is no history yet")
    assert list((command.folder / "user_data").glob("*.sqlite*")) == []


def test_nonsense_is_an_error(command: Command) -> None:
    """A time that is none, and a setting that is impossible."""
    command.fill("3")
    done = command.run("--since", "yesterday")
    assert done.status == 2
    assert done.err.startswith("configuration: --since 'yesterday' is neither")
    command.configure(history={"db_url": "postgresql+psycopg://me:geheim@host/x"})
    done = command.run()
    assert done.status == 2
    assert "history.db_url" in done.err
    assert "geheim" not in done.err


def test_the_accounts_of_two_users_are_not_mixed(command: Command) -> None:
    """It must be said whose are meant, and then only those are shown."""
    command.fill("3")
    command.fill("2.9", key="ffffffff")
    done = command.run()
    assert done.status == 2
    assert "say with history.keys which are meant" in done.err
    command.configure(history={"keys": ["ffffffff"]})
    assert [line[2] for line in table(command.run())] == ["2.9"]


def test_a_database_that_is_gone_tells_no_password(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The URL of the environment may hold one, and is in no message."""
    monkeypatch.setenv(ENV_DB_URL, "postgresql+psycopg://me:geheim@127.0.0.1:1/margin")
    done = command.run()
    assert done.status == 2
    assert done.err.startswith("history: the history database cannot be read (")
    assert "geheim" not in done.err
    assert "127.0.0.1" not in done.err


def test_it_reads_postgresql(
    command: Command, postgresql_server: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database of the environment variable is the one that is shown."""
    url = postgresql_server.new_database()
    monkeypatch.setenv(ENV_DB_URL, url)
    command.fill("3", "1.2", url=url)
    assert [line[6] for line in table(command.run())] == ["allow", "block"]
    assert len(json.loads(command.run("--json").out)["accounts"]) == 2


def test_of_several_keys_the_bots_own_is_meant(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no key, or another one, is known it is refused."""
    for key, level in ((key_id("mine"), "1.5"), ("ffffffff", "3")):
        command.fill(level, key=key)
    assert "say with history.keys which are meant" in command.run().err
    monkeypatch.setenv(ENV_KEY, "mine")
    monkeypatch.setenv(ENV_SECRET, "secret")
    (account,) = json.loads(command.run("--json").out)["accounts"]
    assert account["margin_level"] == "1.5"
    monkeypatch.setenv(ENV_KEY, "another")
    assert "say with history.keys which are meant" in command.run().err
