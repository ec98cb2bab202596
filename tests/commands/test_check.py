"""`freqtrade-isolated-margin check` against the local exchange."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.bot import PLAIN_STRATEGY, STRATEGY_HEAD, config_for
from support.storing import store

from freqtrade_isolated_margin.commands.cli import main
from freqtrade_isolated_margin.history.asking import History, open_history
from freqtrade_isolated_margin.localexchange import Fault, LocalExchange
from freqtrade_isolated_margin.rules.settings import ENV_DB_URL, HistorySettings

UNGUARDED = """
class Tested(Base):
    pass
"""


@pytest.fixture(scope="module")
def exchange() -> Iterator[LocalExchange]:
    """Serve one exchange for all of these tests."""
    with LocalExchange(scenario="calm") as exchange:
        yield exchange


@pytest.fixture(autouse=True)
def clean(exchange: LocalExchange, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a test does to the exchange, and hide the credentials of whoever runs it."""
    monkeypatch.delenv("ISOLATED_MARGIN_API_KEY", raising=False)
    monkeypatch.delenv("ISOLATED_MARGIN_API_SECRET", raising=False)
    yield
    exchange.faults.clear()
    exchange.clock_offset = 0.0


class Checked:
    """What a check has found, by what was looked at."""

    def __init__(self, status: int, output: str) -> None:
        self.status = status
        self.output = output
        self.lines: list[dict[str, str]] = json.loads(output)["checks"]

    def __getitem__(self, what: str) -> dict[str, str]:
        return next(line for line in self.lines if line["what"] == what)

    def states(self, what: str) -> list[str]:
        """Return the states of every line on one matter."""
        return [line["state"] for line in self.lines if line["what"] == what]


@pytest.fixture
def check(exchange: LocalExchange, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that runs the command in a folder of its own."""

    def run(strategy: str = PLAIN_STRATEGY, **changes: Any) -> Checked:
        folder = tmp_path / "user_data" / "strategies"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tested.py").write_text(STRATEGY_HEAD + strategy)
        config = config_for(exchange, ["BTC/USDT", "XRP/USDT", "DOGE/USDT"], strategy="Tested")
        for name, value in changes.items():
            config[name] = config[name] | value if isinstance(value, dict) and value else value
        (tmp_path / "config.json").write_text(json.dumps(config))
        capsys.readouterr()
        status = main(
            ["check", "-c", str(tmp_path / "config.json"), "--userdir", str(tmp_path / "user_data"), "--json"]
        )
        return Checked(status, capsys.readouterr().out)

    return run


def test_a_good_setup_has_no_failure(check: Any) -> None:
    """Configuration, strategy, credentials, clock and accounts are looked at, and are well."""
    checked = check()
    for what in ("configuration", "strategy", "credentials", "clock", "accounts", "BTC/USDT", "DOGE/USDT"):
        assert checked.states(what) == ["ok"], checked.output
    assert "7 of 20 isolated margin accounts" in checked["accounts"]["found"]
    assert "the bot's exchange section" in checked["credentials"]["found"]


def test_a_pair_shows_the_settings_in_force_and_what_they_come_to(check: Any) -> None:
    """The rules of one pair stand in its line, with its verdict."""
    section = {"pairs": {"BTC/USDT": {"margin_level": {"block_below": 1.4}}}}
    checked = check(isolated_margin=section)
    assert "margin_level 1.4 to 2" in checked["BTC/USDT"]["found"]
    assert "allow: margin level 2.9999 ≥ 2" in checked["BTC/USDT"]["found"]
    assert "margin_level 1.25 to 2" in checked["XRP/USDT"]["found"]
    assert checked.states("XRP/USDT") == ["warning"]


def test_a_strategy_without_the_mixin_is_a_failure(check: Any) -> None:
    """A section alone guards nothing, and the check says so."""
    checked = check(UNGUARDED)
    assert checked.status == 2
    assert "does not carry the mixin: nothing is guarded" in checked["strategy"]["found"]
    assert "class Tested(IsolatedMarginMixin, IStrategy)" in checked["strategy"]["advice"]


def test_a_strategy_that_cannot_be_loaded_is_a_failure(check: Any) -> None:
    """Where the strategy is not found nobody knows whether anything is guarded."""
    checked = check(UNGUARDED.replace("Tested", "Other"))
    assert checked.states("strategy") == ["failure"]
    assert checked.status == 2


def test_a_misspelt_setting_is_a_failure(check: Any) -> None:
    """With the name of the setting."""
    checked = check(isolated_margin={"refresh_secs": 5})
    assert checked.status == 2
    assert "refresh_secs" in checked["configuration"]["found"]


def test_a_guard_that_is_off_is_a_warning(check: Any) -> None:
    """With "enabled": false nothing is guarded."""
    assert check(isolated_margin={"enabled": False}).states("configuration") == ["warning"]


def test_no_credentials_are_a_failure_with_what_to_set(check: Any) -> None:
    """The advice names both ways."""
    checked = check(exchange={"key": "", "secret": ""})
    assert checked.status == 2
    assert "ISOLATED_MARGIN_API_KEY" in checked["credentials"]["advice"]


def test_refused_credentials_are_a_failure(check: Any) -> None:
    """A wrong secret is told by what Binance says of it, and neither it nor the key is shown."""
    checked = check(exchange={"secret": "a-wrong-secret-a-wrong-secret"})
    assert checked.status == 2
    assert "refuses the credentials" in checked.output
    assert "a-wrong-secret" not in checked.output


@pytest.mark.parametrize(
    ("secret", "said"),
    [("/run/secrets/geheim", "path of a file"), ("-----BEGIN PRIVATE KEY-----", "no end")],
)
def test_a_secret_that_cannot_sign_is_a_failure_of_the_credentials(
    check: Any, secret: str, said: str
) -> None:
    """By name, before anything is asked."""
    checked = check(exchange={"secret": secret})
    assert checked.states("credentials") == ["failure"]
    assert said in checked["credentials"]["found"]
    assert "geheim" not in checked.output


@pytest.mark.parametrize(
    ("client", "said"),
    [
        ({"sandbox": True}, "sandbox"),
        ({"options": {"testnet": True}}, "sandbox"),
        ({"httpProxy": "http://geheim@a", "httpsProxy": "http://b"}, "httpProxy and httpsProxy are set"),
        ({"https_proxy": "http://geheim@a", "proxies": {"http": "http://b"}}, "httpsProxy and proxies are"),
    ],
)
def test_a_client_that_cannot_ask_is_a_failure_by_name(check: Any, client: dict[str, Any], said: str) -> None:
    """The settings are named, and their values are not shown."""
    checked = check(exchange={"ccxt_config": client})
    assert checked.states("exchange") == ["failure"]
    assert "exchange.ccxt_config" in checked["exchange"]["found"]
    assert said in checked["exchange"]["found"]
    assert "geheim" not in checked.output


@pytest.mark.parametrize(
    ("permissions", "state", "said"),
    [
        ({"enableWithdrawals": True, "ipRestrict": True}, "warning", "MAY WITHDRAW"),
        ({"enableWithdrawals": False, "ipRestrict": False}, "warning", "not bound to an address"),
        ({"enableReading": True, "ipRestrict": True}, "ok", "it may read"),
    ],
)
def test_what_the_key_may_do(
    check: Any, exchange: LocalExchange, permissions: dict[str, bool], state: str, said: str
) -> None:
    """A key that may withdraw or is not bound is a warning; what else it may do is advice."""
    key = exchange.add_key(permissions=permissions)
    checked = check(exchange={"key": key.key, "secret": key.secret})
    told = {line["found"]: line["state"] for line in checked.lines if line["what"] == "key"}
    assert next(found for found in told if said in found)
    assert next(told[found] for found in told if said in found) == state


def test_a_clock_that_is_off_is_a_warning(check: Any, exchange: LocalExchange) -> None:
    """The guard corrects for it, freqtrade does not."""
    exchange.clock_offset = 90.0
    clock = check()["clock"]
    assert clock["state"] == "warning"
    assert "behind" in clock["found"]


@pytest.mark.parametrize("fault", [Fault(path="/sapi/*", status=503, body=b""), Fault(path="*", status=502)])
def test_an_exchange_that_does_not_answer_is_a_failure(
    check: Any, exchange: LocalExchange, fault: Fault
) -> None:
    """What was found before stands, and the rest is one line that says what is wrong."""
    exchange.faults.add(fault)
    checked = check()
    assert checked.status == 2
    assert checked.states("strategy") == ["ok"]


def test_an_answer_that_trickles_is_not_waited_for(
    check: Any, exchange: LocalExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every byte comes in time and the answer never: the check gives up as a whole."""
    monkeypatch.setattr("freqtrade_isolated_margin.commands.check.PATIENCE_SECONDS", 3.0)
    exchange.faults.add(Fault("/sapi/v1/margin/isolated/account", trickle=0.1))
    checked = check()
    assert checked.states("clock") == ["ok"]
    assert checked["exchange"]["state"] == "failure"
    assert checked["exchange"]["found"].endswith("no whole answer within 3 s")


def test_the_history_is_looked_at(check: Any, exchange: LocalExchange, tmp_path: Path) -> None:
    """Whether there is one yet, from when to when, or why it cannot be read; none if it is off."""
    assert check()["history"] == {
        "what": "history", "state": "ok", "found": "there is none yet: the bot begins it", "advice": ""
    }  # fmt: skip
    stored(tmp_path / "user_data", exchange, 50.0)
    checked = check()
    assert checked.states("history") == ["ok"]
    assert re.fullmatch(
        r"accounts are stored from (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) to \1 UTC", checked["history"]["found"]
    )
    assert check(isolated_margin={"history": False}).states("history") == []


def test_a_history_that_cannot_be_read_is_a_warning(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bot runs without; a password in its URL is not shown."""
    monkeypatch.setenv(ENV_DB_URL, "postgresql+psycopg://bot:geheimes-wort@127.0.0.1:9/margin")
    checked = check()
    assert checked.states("history") == ["warning"]
    assert "the history database cannot be" in checked["history"]["found"]
    assert "geheimes-wort" not in checked.output


@pytest.mark.parametrize("where", ["nowhere/h.sqlite", "file.txt/h.sqlite", "folder", "file.txt"])
def test_a_history_that_could_not_be_begun_is_a_warning(check: Any, tmp_path: Path, where: str) -> None:
    """A folder that does not exist, or is a file; a file that is a folder, or no database."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.txt").write_text("this is no database, but quite long enough" * 50)
    checked = check(isolated_margin={"history": {"db_url": f"sqlite:///{tmp_path / where}"}})
    assert checked.states("history") == ["warning"]
    assert "the history database cannot be" in checked["history"]["found"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "file.txt",
        "folder",
        "user_data",
    ]
    assert not list((tmp_path / "folder").iterdir())


def test_a_history_that_may_not_be_written_is_a_warning(check: Any, tmp_path: Path) -> None:
    """Opened for reading only, since whoever runs this may be allowed everything."""
    with closing(History(f"sqlite:///{tmp_path / 'isolated_margin.sqlite'}")) as history:
        history.prepare()
    url = f"sqlite:///file:{tmp_path / 'isolated_margin.sqlite'}?mode=ro&uri=true"
    checked = check(isolated_margin={"history": {"db_url": url}})
    assert checked.states("history") == ["warning"]
    assert "readonly" in checked["history"]["found"]


def test_looking_at_the_history_leaves_nothing_behind(check: Any, tmp_path: Path) -> None:
    """Neither a file where there was none, nor a table where there was one."""
    check()
    assert not list((tmp_path / "user_data").glob("*isolated_margin*"))
    with closing(sqlite3.connect(tmp_path / "user_data" / "isolated_margin.sqlite")) as database:
        database.execute("CREATE TABLE mine (id INTEGER)")
    assert check()["history"]["state"] == "ok"
    with closing(sqlite3.connect(tmp_path / "user_data" / "isolated_margin.sqlite")) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("postgres://bot:geheim@host/margin", "postgresql+psycopg://"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_by_name(
    check: Any, monkeypatch: pytest.MonkeyPatch, url: str, said: str
) -> None:
    """In the environment and in the section, as at the start of a bot."""
    monkeypatch.setenv(ENV_DB_URL, url)
    checked = check()
    assert said in checked["history"]["found"]
    assert ENV_DB_URL in checked["history"]["found"]
    assert "geheim" not in checked.output
    monkeypatch.delenv(ENV_DB_URL)
    found = check(isolated_margin={"history": {"db_url": url.replace(":geheim", "")}})["configuration"]
    assert (found["state"], said in found["found"]) == ("failure", True)


def test_white_space_around_a_url_of_the_environment_means_nothing(
    check: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As around a key."""
    monkeypatch.setenv(ENV_DB_URL, f"  sqlite:///{tmp_path / 'h.sqlite'}\n")
    assert check()["history"]["found"] == "there is none yet: the bot begins it"


@pytest.mark.parametrize("code", [-11001, -3003])
def test_without_any_account_it_says_how_one_is_made(check: Any, exchange: LocalExchange, code: int) -> None:
    """The network is not to blame."""
    exchange.faults.add(Fault("/sapi/v1/margin/isolated/account", code=code))
    found = check()["exchange"]
    assert found["state"] == "failure"
    assert f"code {code}" in found["found"]
    assert "transfer something into its account" in found["advice"]


FUTURES_ONLY = "1000PEPE/USDT:USDT"


@pytest.mark.parametrize(
    ("rules", "state"), [({}, "warning"), ({FUTURES_ONLY: {"without_account": "allow"}}, "ok")]
)
def test_a_pair_without_spot_market_is_warned_of(check: Any, rules: dict[str, Any], state: str) -> None:
    """With what to set, which is then taken."""
    exchange = {"pair_whitelist": ["BTC/USDT", FUTURES_ONLY]}
    checked = check(exchange=exchange, isolated_margin={"pairs": rules})
    assert checked.states(FUTURES_ONLY) == [state]
    assert "no spot market" in checked[FUTURES_ONLY]["found"]
    if not rules:
        assert '"1000PEPE/USDT:USDT": {"without_account": "allow"}' in checked[FUTURES_ONLY]["advice"]


FOLLOWER = {"source": "history", "max_age_seconds": 100}
WITHOUT_KEY = {"key": "", "secret": ""}


def stored(folder: Path, exchange: LocalExchange, age: float, trouble: str | None = None) -> None:
    """Store three accounts that a bot has read so many seconds ago."""
    folder.mkdir(exist_ok=True)
    config = {"user_data_dir": str(folder), "isolated_margin": {}}
    store(config, exchange, ["BTC/USDT", "XRP/USDT", "DOGE/USDT"], [age], trouble)


def test_a_follower_needs_no_key(check: Any, exchange: LocalExchange, tmp_path: Path) -> None:
    """What its reader has stored is looked at instead, and the exchange is not asked."""
    stored(tmp_path / "user_data", exchange, 50.0)
    asked = len(exchange.requests)
    checked = check(isolated_margin=FOLLOWER, exchange=WITHOUT_KEY)
    assert checked.status == 1
    assert checked.states("credentials") == checked.states("key") == checked.states("exchange") == []
    assert checked.states("history") == checked.states("accounts") == ["ok"]
    assert "the limit (max_age_seconds) is 100 s" in checked["history"]["found"]
    assert [checked[pair]["state"] for pair in ("BTC/USDT", "XRP/USDT", "DOGE/USDT")] == [
        "ok",
        "warning",
        "ok",
    ]
    assert len(exchange.requests) == asked


@pytest.mark.parametrize(
    ("age", "trouble", "said"),
    [
        (None, None, "there is no history yet"),
        (3700.0, None, "no bot has stored the accounts in the history for an hour"),
        (130.0, None, "s old, the limit (max_age_seconds) is 100 s"),
        (10.0, "Binance refuses the credentials", "its reader has trouble: Binance refuses the credentials"),
    ],
)
def test_a_follower_whose_reader_does_not_read_is_a_failure(
    check: Any, exchange: LocalExchange, tmp_path: Path, age: float | None, trouble: str | None, said: str
) -> None:
    """It would refuse every entry, and the advice says where to look."""
    if age is not None:
        stored(tmp_path / "user_data", exchange, age, trouble)
    checked = check(isolated_margin=FOLLOWER, exchange=WITHOUT_KEY)
    assert checked.status == 2
    assert checked.states("history") == ["failure"]
    assert said in checked["history"]["found"]
    assert "the bot that reads the exchange" in checked["history"]["advice"]


def test_a_follower_of_nobody_knows_whom_is_not_told_to_start_a_reader(
    check: Any, exchange: LocalExchange, tmp_path: Path
) -> None:
    """Where the database has the accounts of two keys, the finding itself says what to set."""
    stored(tmp_path / "user_data", exchange, 10.0)
    open_history(HistorySettings(), {"user_data_dir": str(tmp_path / "user_data")}).writer(
        "ffffffff", "another"
    ).write([])
    history = check(isolated_margin=FOLLOWER, exchange=WITHOUT_KEY)["history"]
    assert history["state"] == "failure"
    assert "say with history.keys which are meant" in history["found"]
    assert history["advice"] == ""


def test_the_table_has_a_line_for_each(
    check: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --json each line begins with ok, warning or failure, and the advice stands below."""
    check()
    status = main(["check", "-c", str(tmp_path / "config.json"), "--userdir", str(tmp_path / "user_data")])
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("        →")]
    assert status == 1
    assert {line.split()[0] for line in lines} == {"ok", "warning"}
