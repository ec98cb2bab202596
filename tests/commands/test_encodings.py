"""Every command on a terminal that cannot print everything, on a full disk, with an impatient reader."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.backtests import write_history
from support.bot import PLAIN_STRATEGY, STRATEGY_HEAD, config_for
from support.commands import ROOT, without_own_settings

from freqtrade_isolated_margin.commands import cli
from freqtrade_isolated_margin.localexchange import AccountSpec, LocalExchange, MarketSpec

PAIR = "BTC/USDT"
CONFIG = ("-c", "config.json")
# Each command, and whether it goes on until Ctrl-C.
WORDS: dict[str, tuple[tuple[str, ...], bool]] = {
    "init": (("--print", *CONFIG), False),
    "status": (CONFIG, False),
    "watch": (CONFIG, True),
    "check": (CONFIG, False),
    "history": ((*CONFIG, "--since", "2026-01-01"), False),
    "plot": ((*CONFIG, PAIR, "--since", "2026-01-01", "-o", "→.html"), False),
    "exchange": ((), True),
    "demo-trading": ((), True),
    "demo": (("--seconds", "1", "--userdir", str(ROOT / "user_data")), False),
}
# A pair is blocked, something is to be done, a demo of a second shows too little.
STATUS = {
    "status": {1},
    "check": {1},
    "demo": {0, 1},
    **{name: {0, 130, -15} for name in ("watch", "exchange", "demo-trading")},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A configuration of an account that is between its limits, and a history."""
    made = tmp_path_factory.mktemp("encodings")
    (made / "user_data").mkdir()
    write_history(made).close()
    with LocalExchange(scenario="calm", markets=[MarketSpec(PAIR, price="100")]) as exchange:
        exchange.set_account(PAIR, AccountSpec(base_free="12", quote_borrowed="1000"))
        config = config_for(exchange, [PAIR], user_data_dir=str(made / "user_data"))
        config["isolated_margin"]["history"] = {"keys": ["0a1b2c3d"]}
        config["strategy"] = "Tested"
        (made / "user_data" / "strategies").mkdir()
        (made / "user_data" / "strategies" / "tested.py").write_text(STRATEGY_HEAD + PLAIN_STRATEGY)
        (made / "config.json").write_text(json.dumps(config), encoding="utf-8")
        yield made


def start(name: str, folder: Path, encoding: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    """Start a command whose output is no terminal and has this encoding."""
    words, _ = WORDS[name]
    return subprocess.Popen(
        [sys.executable, "-m", "freqtrade_isolated_margin", name, *words],
        cwd=folder,
        env=without_own_settings() | {"PYTHONIOENCODING": encoding, "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, start_new_session=True, bufsize=0,
    )  # fmt: skip


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("name", list(WORDS))
def test_a_command_prints_on_any_terminal(name: str, encoding: str, folder: Path) -> None:
    """What the terminal cannot print is replaced; the exit status is the one that it has in UTF-8."""
    _, is_endless = WORDS[name]
    process = start(name, folder, encoding)
    assert process.stdout
    first = process.stdout.readline()
    if is_endless:
        process.send_signal(signal.SIGTERM)
    rest, errors = process.communicate(timeout=200)
    output = (first + rest).decode(encoding)
    assert "Traceback" not in output + errors.decode(encoding, "replace")
    assert b"unexpected" not in errors
    assert process.returncode in STATUS.get(name, {0})
    if name in ("status", "check"):
        assert "margin level 1.2 <= 1.25" in " ".join(output.split())
    if name == "status":
        widths = {len(line) for line in output.splitlines() if line.startswith("|")}
        assert len(widths) == 1, "a border is out of line"


def test_every_command_is_among_them() -> None:
    """One that is new cannot be forgotten here."""
    assert WORDS.keys() == cli._COMMANDS.keys()


@pytest.mark.parametrize("name", [name for name, (_, is_endless) in WORDS.items() if not is_endless])
def test_a_reader_that_has_seen_enough_ends_a_command_silently(name: str, folder: Path) -> None:
    """As `| head -0` does."""
    reading, writing = os.pipe()
    os.close(reading)
    process = start(name, folder, "utf-8", writing)
    os.close(writing)
    _, errors = process.communicate(timeout=200)
    assert errors == b""
    assert process.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
@pytest.mark.parametrize("name", ["init", "status", "check", "history"])
def test_a_full_disk_is_one_line_and_status_2(name: str, folder: Path) -> None:
    """What was asked for could not be printed, which is no verdict on a pair."""
    with Path("/dev/full").open("wb") as full:
        process = start(name, folder, "utf-8", full.fileno())
        _, errors = process.communicate(timeout=200)
    assert process.returncode == 2
    (line,) = errors.decode().splitlines()
    assert line.startswith("error: unexpected OSError")
    assert "No space left on device" in line


def test_an_error_that_nobody_thought_of_is_one_line_without_its_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They may hold a secret; where it happened is said, and the status is not that of a blocked pair."""

    def run(_parsed: object) -> int:
        raise RuntimeError("the password is s3cret")

    added, _, *words = cli._COMMANDS["status"]
    monkeypatch.setitem(cli._COMMANDS, "status", (added, run, *words))
    assert cli.main(["status"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: unexpected RuntimeError (test_encodings.py:")
    assert "s3cret" not in printed.err
    assert printed.err.count("\n") == 1
