"""The command `status`, as a process of its own against the local exchange."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.builders import recorded
from support.storing import store

from freqtrade_isolated_margin.binance.credentials import ENV_KEY, ENV_SECRET
from freqtrade_isolated_margin.commands.cli import main
from freqtrade_isolated_margin.localexchange import AccountSpec, Fault, LocalExchange
from freqtrade_isolated_margin.rules.settings import SECTION

ACCOUNT = "/sapi/v1/margin/isolated/account"
START = "from freqtrade_isolated_margin.commands.cli import main; raise SystemExit(main())"
FIELDS = [
    "pair",
    "symbol",
    "account",
    "margin_level",
    "status",
    "index_price",
    "liquidation_price",
    "liquidation_distance",
    "debt",
    "decision",
    "stake_factor",
    "max_stake",
    "reasons",
]


class Done(NamedTuple):
    """What became of a run."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """All of the standard output, read as JSON."""
        return json.loads(self.out)


class Command:
    """Runs the command in a folder of its own, where there is nothing but what was written."""

    def __init__(
        self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.folder = folder
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def write(self, content: object, name: str = "config.json") -> None:
        """Write a configuration file."""
        (self.folder / name).write_text(content if isinstance(content, str) else json.dumps(content))

    def run(self, *words: str, **environ: str) -> Done:
        """Run `status` with these words in this process, which is much faster than in one of its own."""
        for name, value in environ.items():
            self._monkeypatch.setenv(name, value)
        self._capsys.readouterr()
        status = main(["status", *words])
        return Done(status, *self._capsys.readouterr())

    def process(self, *words: str, program: str = START) -> Done:
        """Run `status` as a real process."""
        done = subprocess.run(
            [sys.executable, "-c", program, "status", *words],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def json(self, *words: str, **environ: str) -> tuple[int, dict[str, Any]]:
        """Run `status --json`; return exit status and what it printed."""
        done = self.run("--json", *words, **environ)
        return done.status, done.json


@pytest.fixture
def command(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    _restored_logging: None,
) -> Command:
    """The command in an empty folder."""
    (tmp_path / "user_data").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "240")
    for name in os.environ:
        if name.startswith("FREQTRADE"):
            monkeypatch.delenv(name)
    return Command(tmp_path, capsys, monkeypatch)


def by_pair(shown: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the lines by pair."""
    return {line["pair"]: line for line in shown["pairs"]}


def test_json_has_the_documented_shape(
    exchange: LocalExchange, bot_config: dict[str, Any], command: Command
) -> None:
    """Of the recorded long: every field, decimals as reported, and exit status 0."""

    def swap(content: dict[str, Any]) -> None:
        content["assets"] = recorded("fetusdt_long_2021")["assets"][:1]

    exchange.faults.add(Fault(ACCOUNT, transform=swap))
    command.write(bot_config)
    before = datetime.now(UTC).replace(microsecond=0)
    done = command.process("--json", "-c", "config.json", "FET/USDT")
    shown = done.json
    assert done.status == 0
    assert list(shown) == ["read_at", "used_weight", "pairs"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", shown["read_at"])
    read_at = datetime.fromisoformat(shown["read_at"])
    assert before <= read_at <= before + timedelta(minutes=2)
    assert shown["used_weight"] == 10
    [line] = shown["pairs"]
    assert list(line) == FIELDS
    distance, reasons = line.pop("liquidation_distance"), line.pop("reasons")
    assert line == {
        "pair": "FET/USDT",
        "symbol": "FETUSDT",
        "account": "active",
        "margin_level": "1.34371923",
        "status": "EXCESSIVE",
        "index_price": "0.60221962",
        "liquidation_price": "0.51628838",
        "debt": True,
        "decision": "shrink",
        "stake_factor": "0.12495897",
        "max_stake": None,
    }
    # The exchange's tier says 1.18 where the recorded account was liquidated at 1.1575: the worse counts.
    assert distance.startswith("0.12568")
    assert any("1.3437" in reason for reason in reasons)


def test_each_kind_of_account_is_shown_and_a_blocked_one_is_exit_status_1(
    exchange: LocalExchange, bot_config: dict[str, Any], command: Command
) -> None:
    """Active with and without debt, absent, unreadable; what has no meaning is null."""

    def spoil(content: dict[str, Any]) -> None:
        for row in content["assets"]:
            if row["symbol"] == "ETHUSDT":
                row["marginLevel"] = "NaN"

    exchange.faults.add(Fault(ACCOUNT, transform=spoil))
    command.write(bot_config)
    pairs = ["BTC/USDT", "XRP/USDT", "ADA/USDT", "DOGE/USDT", "ETH/USDT", "NO/USDT"]
    exit_status, shown = command.json("-c", "config.json", *pairs)
    lines = by_pair(shown)
    assert exit_status == 1
    assert list(lines) == pairs
    assert {pair: (line["account"], line["decision"], line["debt"]) for pair, line in lines.items()} == {
        "BTC/USDT": ("active", "allow", True),
        "XRP/USDT": ("active", "block", True),
        "ADA/USDT": ("active", "allow", False),
        "DOGE/USDT": ("absent", "allow", None),
        "ETH/USDT": ("unreadable", "block", None),
        "NO/USDT": ("unreadable", "block", None),
    }
    assert lines["XRP/USDT"]["status"] == "MARGIN_CALL"
    for pair in ("ADA/USDT", "DOGE/USDT", "ETH/USDT", "NO/USDT"):
        for name in ("margin_level", "liquidation_price", "liquidation_distance"):
            assert lines[pair][name] is None
    assert lines["ADA/USDT"]["index_price"] == "0.4"
    assert lines["DOGE/USDT"]["index_price"] is lines["DOGE/USDT"]["status"] is None
    assert lines["NO/USDT"]["symbol"] is None
    assert all(line["reasons"] for line in lines.values())


def test_the_whitelist_is_shown_by_default_with_its_expressions_expanded(
    bot_config: dict[str, Any], command: Command
) -> None:
    """Against the markets, without the blacklist."""
    bot_config["exchange"] |= {
        "pair_whitelist": ["(BTC|ETH)/USDT", "SOL/.*", "DOGE/USDT"],
        "pair_blacklist": ["SOL/.*"],
    }
    command.write(bot_config)
    _, shown = command.json("-c", "config.json")
    assert sorted(by_pair(shown)) == ["BTC/USDT", "DOGE/USDT", "ETH/USDT"]


def test_with_dynamic_pair_lists_every_active_account_is_shown(
    exchange: LocalExchange, bot_config: dict[str, Any], command: Command
) -> None:
    """The whitelist is not known then."""
    exchange.set_account("ETH/USDT", AccountSpec(base_free="1", enabled=False))
    bot_config["pairlists"] = [{"method": "VolumePairList", "number_assets": 5, "sort_key": "quoteVolume"}]
    command.write(bot_config)
    _, shown = command.json("-c", "config.json")
    assert list(by_pair(shown)) == [f"{base}/USDT" for base in ("ADA", "BNB", "BTC", "FET", "SOL", "XRP")]


def test_dust_has_neither_a_liquidation_price_nor_a_distance(
    exchange: LocalExchange, bot_config: dict[str, Any], command: Command
) -> None:
    """A short that was bought back but for the last of its interest is no danger, and no contradiction."""
    exchange.set_account("BTC/USDT", AccountSpec(quote_free="5000", base_interest="0.00000001"))
    command.write(bot_config)
    exit_status, shown = command.json("-c", "config.json", "BTC/USDT")
    [line] = shown["pairs"]
    assert exit_status == 0
    assert line["debt"] is True
    assert line["liquidation_price"] is line["liquidation_distance"] is None
    assert (line["decision"], line["stake_factor"]) == ("allow", "1")


def test_a_futures_bot_sees_the_accounts_of_its_spot_pairs(
    bot_config: dict[str, Any], command: Command
) -> None:
    """By the names that the bot has for them."""
    bot_config |= {"trading_mode": "futures", "margin_mode": "isolated"}
    bot_config["exchange"]["pair_whitelist"] = ["(BTC|ETH)/USDT:USDT"]
    command.write(bot_config)
    exit_status, shown = command.json("-c", "config.json")
    assert exit_status == 0
    assert {pair: line["symbol"] for pair, line in by_pair(shown).items()} == {
        "BTC/USDT:USDT": "BTCUSDT",
        "ETH/USDT:USDT": "ETHUSDT",
    }


def test_several_configurations_and_the_environment_are_merged(
    exchange: LocalExchange, bot_config: dict[str, Any], command: Command
) -> None:
    """As freqtrade merges them; the environment's credentials come first."""
    command.write(bot_config | {"isolated_margin": {"margin_level": {"block_below": 2.9}}})
    command.write({"isolated_margin": {"margin_level": {"full_above": 3.5}}}, "more.json")
    own = exchange.add_key()
    environ = {ENV_KEY: own.key, ENV_SECRET: own.secret}
    _, shown = command.json("-c", "config.json", "-c", "more.json", **environ)
    [line] = shown["pairs"]
    assert line["decision"] == "shrink"
    assert "between 2.9 (block_below) and 3.5 (full_above)" in line["reasons"][0]
    assert {request.key for request in exchange.requests if request.path == ACCOUNT} == {own.key}


STRATEGY = """
from freqtrade.strategy import IStrategy


class Careful(IStrategy):
    timeframe = "1m"
    stoploss = -0.1
    isolated_margin = {"margin_level": {"block_below": 3.5, "full_above": 4}, "entry_funding": "borrowed"}

    def populate_indicators(self, dataframe, metadata):
        return dataframe

    def populate_entry_trend(self, dataframe, metadata):
        return dataframe

    def populate_exit_trend(self, dataframe, metadata):
        return dataframe
"""


def test_a_strategys_own_section_counts_if_it_is_named(bot_config: dict[str, Any], command: Command) -> None:
    """Under the configuration's, which wins."""
    folder = command.folder / "user_data" / "strategies"
    folder.mkdir()
    (folder / "careful.py").write_text(STRATEGY)
    command.write(bot_config | {"isolated_margin": {"entry_funding": "spot"}})
    exit_status, shown = command.json("-c", "config.json", "--userdir", "user_data", "--strategy", "Careful")
    [line] = shown["pairs"]
    assert exit_status == 1
    assert "≤ 3.5 (block_below)" in line["reasons"][0]
    assert line["max_stake"] is None


def test_the_largest_stake_is_shown_for_borrowed_entries(
    bot_config: dict[str, Any], command: Command
) -> None:
    """As a decimal string, for the side that was asked for."""
    command.write(bot_config | {"isolated_margin": {"entry_funding": "borrowed"}})
    _, long = command.json("-c", "config.json")
    _, short = command.json("-c", "config.json", "--side", "short")
    stakes = [shown["pairs"][0]["max_stake"] for shown in (long, short)]
    assert all(re.fullmatch(r"[0-9]+\.[0-9]{1,8}", stake) for stake in stakes)


# ----- errors: exit status 2


def failed(command: Command, *words: str, **environ: str) -> tuple[str, str]:
    """Run the command where it must fail; return kind and message."""
    exit_status, shown = command.json(*words, **environ)
    assert exit_status == 2
    assert list(shown) == ["error"]
    assert list(shown["error"]) == ["kind", "message"]
    return shown["error"]["kind"], shown["error"]["message"]


def test_no_credentials_are_an_error(bot_config: dict[str, Any], command: Command) -> None:
    """Which says what to set."""
    bot_config["exchange"] |= {"key": "", "secret": ""}
    command.write(bot_config)
    kind, message = failed(command, "-c", "config.json")
    assert kind == "credentials"
    assert ENV_KEY in message


def test_half_a_pair_of_credentials_is_an_error(bot_config: dict[str, Any], command: Command) -> None:
    """Although the bot has its own."""
    command.write(bot_config)
    kind, message = failed(command, "-c", "config.json", **{ENV_KEY: "canary-of-the-environment"})
    assert kind == "credentials"
    assert ENV_SECRET in message
    assert "canary" not in message


def test_refused_credentials_are_an_error(bot_config: dict[str, Any], command: Command) -> None:
    """And the exchange's code is told."""
    bot_config["exchange"]["secret"] = "wrong"
    command.write(bot_config)
    kind, message = failed(command, "-c", "config.json")
    assert kind == "credentials"
    assert "-1022" in message


def test_a_misspelt_setting_is_an_error(bot_config: dict[str, Any], command: Command) -> None:
    """By name, with what was meant."""
    command.write(bot_config | {"isolated_margin": {"margin_levle": {}}})
    kind, message = failed(command, "-c", "config.json")
    assert kind == "configuration"
    assert "isolated_margin.margin_levle" in message
    assert "'margin_level'" in message


def test_borrowed_entries_of_a_futures_bot_are_an_error(bot_config: dict[str, Any], command: Command) -> None:
    """The bot would not start with them either."""
    bot_config |= {"trading_mode": "futures", "margin_mode": "isolated"}
    command.write(bot_config | {"isolated_margin": {"entry_funding": "borrowed"}})
    kind, message = failed(command, "-c", "config.json", "BTC/USDT")
    assert kind == "configuration"
    assert "futures" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{not json", ["-c", "config.json"]),
        ("{}", ["-c", "config.json"]),
        ("[]", ["-c", "config.json"]),
        ("{}", ["-c", "missing.json"]),
        (
            '{"exchange": {"name": "binance", "ccxt_config": 5, "key": "k", "secret": "s"}}',
            ["-c", "config.json"],
        ),
    ],
    ids=["no JSON", "empty", "a list", "no file", "no ccxt_config"],
)
def test_a_configuration_that_is_none_is_an_error(content: str, words: list[str], command: Command) -> None:
    """Never a traceback, and never the exit status of a blocked pair."""
    command.write(content)
    kind, message = failed(command, *words)
    assert kind in {"configuration", "error"}
    assert message


def test_an_unknown_strategy_is_an_error(bot_config: dict[str, Any], command: Command) -> None:
    """It says which."""
    command.write(bot_config)
    kind, message = failed(command, "-c", "config.json", "--userdir", "user_data", "-s", "Nobody")
    assert kind == "configuration"
    assert "Nobody" in message


def test_a_bad_expression_in_the_whitelist_is_an_error(bot_config: dict[str, Any], command: Command) -> None:
    """It cannot be expanded."""
    bot_config["exchange"]["pair_whitelist"] = ["*/USDT"]
    command.write(bot_config)
    assert failed(command, "-c", "config.json")[0] == "configuration"


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [({"status": 503}, "unavailable"), ({"body": b"[]"}, "answer"), ({"code": -11001}, "unavailable")],
    ids=str,
)
def test_an_account_that_cannot_be_read_is_an_error(
    exchange: LocalExchange, bot_config: dict[str, Any], command: Command, spoil: dict[str, Any], kind: str
) -> None:
    """Of its own kind."""
    exchange.faults.add(Fault(ACCOUNT, **spoil))
    command.write(bot_config)
    assert failed(command, "-c", "config.json")[0] == kind


def test_an_answer_that_trickles_is_not_waited_for(
    bot_config: dict[str, Any],
    exchange: LocalExchange,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every byte comes in time and the answer never: the command gives up as a whole."""
    monkeypatch.setattr("freqtrade_isolated_margin.commands.status.PATIENCE_SECONDS", 1.0)
    exchange.faults.add(Fault("/sapi/v1/margin/isolated/account", trickle=0.1))
    command.write(bot_config)
    kind, message = failed(command, "-c", "config.json")
    assert kind == "unavailable"
    assert message.endswith("no whole answer within 1 s")


@pytest.mark.parametrize("columns", [80, 120, 160])
def test_a_pair_and_its_verdict_are_never_cut(
    bot_config: dict[str, Any], command: Command, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """In a narrow window the table has fewer columns, and says so."""
    monkeypatch.setenv("COLUMNS", str(columns))
    command.write(bot_config)
    done = command.run("-c", "config.json", "BTC/USDT", "XRP/USDT", "DOGE/USDT", "SOL/USDT")
    assert max(map(len, done.out.splitlines())) <= columns
    for pattern in (r"BTC/USDT .* allow ", r"XRP/USDT .* block ", r"SOL/USDT .* shrink × 0\.\d{4} "):
        assert re.search(pattern, done.out), done.out
    assert ("Index price" in done.out) == (columns == 160)
    assert ("need a window of 140 columns" in done.out) == (columns < 140)


def test_a_follower_shows_what_another_bot_has_stored(
    exchange: LocalExchange, bot_config: dict[str, Any], command: Command
) -> None:
    """Without a key and without the exchange, by the age of what is stored."""
    bot_config[SECTION] = {"source": "history", "max_age_seconds": 100}
    stored = bot_config | {"user_data_dir": str(command.folder / "user_data")}
    store(stored, exchange, ["BTC/USDT", "XRP/USDT", "DOGE/USDT"], [50.0])
    bot_config["exchange"] |= {"key": "", "secret": "", "pair_whitelist": ["(BTC|XRP)/USDT", "DOGE/USDT"]}
    asked = len(exchange.requests)
    command.write(bot_config)
    status, shown = command.json("-c", "config.json")
    assert status == 1
    assert {pair: (line["account"], line["decision"]) for pair, line in by_pair(shown).items()} == {
        "BTC/USDT": ("active", "allow"),
        "XRP/USDT": ("active", "block"),
        "DOGE/USDT": ("absent", "allow"),
    }
    assert by_pair(shown)["BTC/USDT"]["symbol"] == "BTCUSDT"
    assert shown["used_weight"] is None
    age = datetime.now(UTC) - datetime.fromisoformat(shown["read_at"])
    assert timedelta(seconds=49) < age < timedelta(seconds=90)
    bot_config[SECTION]["max_age_seconds"] = 40
    command.write(bot_config)
    _, shown = command.json("-c", "config.json", "BTC/USDT")
    assert "max_age_seconds" in by_pair(shown)["BTC/USDT"]["reasons"][0]
    assert len(exchange.requests) == asked


def test_a_follower_of_nobody_is_an_error(bot_config: dict[str, Any], command: Command) -> None:
    """Of the kind history."""
    command.write(bot_config | {SECTION: {"source": "history"}})
    assert failed(command, "-c", "config.json")[0] == "history"


def test_an_exchange_that_is_gone_is_an_error(
    exchange: LocalExchange, bot_config: dict[str, Any], command: Command
) -> None:
    """Neither key nor secret nor signature is printed, at the highest verbosity of this command."""
    command.write(bot_config)
    exchange.stop()
    done = command.process("--json", "-vvv", "-c", "config.json")
    assert done.status == 2
    assert done.json["error"]["kind"] == "unavailable"
    for secret in (exchange.key, exchange.secret, "signature="):
        assert secret not in done.out + done.err


# ----- the table


def test_the_table_shows_every_pair_and_why(
    exchange: LocalExchange, bot_config: dict[str, Any], command: Command
) -> None:
    """Level, status, prices, distance, verdict and reasons; exit status 1 for the blocked one."""
    exchange.set_price("XRP/USDT", "0.6")
    command.write(bot_config)
    done = command.run("-c", "config.json", "XRP/USDT", "ADA/USDT", "DOGE/USDT")
    assert done.status == 1
    [xrp] = [line for line in done.out.splitlines() if "XRP/USDT" in line]
    for word in ("active", "margin call", "1.1849", "0.6", "block", "block_statuses"):
        assert word in xrp
    [ada] = [line for line in done.out.splitlines() if "ADA/USDT" in line]
    assert "allow" in ada
    [doge] = [line for line in done.out.splitlines() if "DOGE/USDT" in line]
    assert "absent" in doge


def test_the_words_of_the_exchange_are_no_markup(
    exchange: LocalExchange, bot_config: dict[str, Any], command: Command
) -> None:
    """A status with brackets is shown as it came, and breaks nothing."""

    def spoil(content: dict[str, Any]) -> None:
        content["assets"][0]["marginLevelStatus"] = "[/red]BOO[bold]"

    exchange.faults.add(Fault(ACCOUNT, transform=spoil))
    command.write(bot_config)
    done = command.run("-c", "config.json", "BTC/USDT")
    assert done.status == 1
    assert "[/red]BOO[bold]" in done.out


def test_an_error_goes_to_standard_error_in_one_line(bot_config: dict[str, Any], command: Command) -> None:
    """Standard output stays empty."""
    command.write(bot_config | {"isolated_margin": {"enabled": "yes"}})
    done = command.process("-c", "config.json")
    assert done.status == 2
    assert done.out == ""
    assert done.err.startswith("configuration: isolated_margin.enabled")
    assert "Traceback" not in done.err


def test_the_command_does_not_load_what_only_a_bot_needs(
    bot_config: dict[str, Any], command: Command
) -> None:
    """Freqtrade's strategy module takes seconds, and nothing of it is needed here."""
    command.write(bot_config)
    heavy = {"freqtrade.strategy", "freqtrade.freqtradebot", "freqtrade.persistence", "sqlalchemy", "fastapi"}
    program = (
        "import sys\nfrom freqtrade_isolated_margin.commands.cli import main\nmain()\n"
        f"print(sorted({heavy!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = command.process("--json", "-c", "config.json", program=program)
    assert done.err.splitlines()[-1] == "[]"
