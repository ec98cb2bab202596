"""The command `watch`: in a terminal of its own against the local exchange, and what it looks at."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from support.storing import store

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.commands.board import View
from freqtrade_isolated_margin.commands.watch import Watch
from freqtrade_isolated_margin.errors import CredentialsError, SettingsError
from freqtrade_isolated_margin.localexchange import AccountSpec, Fault, LocalExchange
from freqtrade_isolated_margin.rules.decide import Outcome
from freqtrade_isolated_margin.rules.settings import ENV_DB_URL, SECTION, Settings

# The terminal becomes that of the process, so that Ctrl-C and Ctrl-Z are what a person presses.
START = """
import fcntl, sys, termios
if sys.stdin.isatty():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from freqtrade_isolated_margin.commands.cli import main
raise SystemExit(main())
"""
END = b"(the end)"
HOME = b"\x1b[H"
SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SHOWN, HIDDEN = b"\x1b[?25h", b"\x1b[?25l"
FULL, NORMAL = b"\x1b[?1049h", b"\x1b[?1049l"
PAIRS = ["BTC/USDT", "SOL/USDT", "XRP/USDT", "ADA/USDT", "DOGE/USDT"]
MARGIN = {"refresh_seconds": 0.5, "max_age_seconds": 2}


class Terminal:
    """The command in a terminal, of which every picture is kept."""

    def __init__(self, folder: Path, *words: str, size: tuple[int, int] = (120, 24), **environ: str) -> None:
        self._master, slave = pty.openpty()
        self.resize(*size)
        self.before = termios.tcgetattr(slave)
        self._slave = slave
        self._output = b""
        self._news = threading.Condition()
        # Under pytest freqtrade does not set up its log.
        strange = ("COLUMNS", "LINES", "PYTEST", "NO_COLOR", "FORCE_COLOR")
        variables = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, "watch", "-c", "config.json", *words],
            cwd=folder, env=variables | {"TERM": "xterm-256color"} | environ, start_new_session=True,
            stdin=slave, stdout=slave, stderr=slave,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                some = os.read(self._master, 65536)
            except OSError:
                some = b""
            with self._news:
                self._output += some
                self._news.notify_all()
            if not some:
                return

    @property
    def output(self) -> bytes:
        """All that it has written so far."""
        return self._output

    def pictures(self, since: int = 0) -> list[list[str]]:
        """Return the lines of every picture that has begun since then, and is complete."""
        whole = self._output[since:].split(HOME)[1:-1]
        return [SEQUENCE.sub("", picture.decode()).splitlines() for picture in whole]

    def wait_for(self, pattern: str, timeout: float = 40.0) -> list[str]:
        """Wait for a picture from now on that matches, and return its lines."""
        since = len(self._output)
        found: list[list[str]] = []

        def look() -> bool:
            some = self.pictures(since)
            found.extend(lines for lines in some if re.search(pattern, "\n".join(lines)))
            return bool(found) or self.process.poll() is not None

        with self._news:
            self._news.wait_for(look, timeout)
        assert found, self._output[since:].decode(errors="replace")[-3000:]
        return found[-1]

    def press(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._master, keys)

    def resize(self, columns: int, lines: int) -> None:
        """Change the size of the terminal, of which the process gets a signal."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def end(self) -> int:
        """Wait for the end, and for all that was written until then; return the exit status."""
        status = self.process.wait(30)
        self.drain()
        return status

    def drain(self) -> None:
        """Wait for all that was written until now."""
        os.write(self._slave, END)
        with self._news:
            assert self._news.wait_for(lambda: self._output.endswith(END), 30)

    def is_as_before(self) -> bool:
        """Whether modes, cursor and screen are what they were when it began."""
        ends = [(self._output.rfind(last), self._output.rfind(first)) for last, first in
                ((SHOWN, HIDDEN), (NORMAL, FULL))]  # fmt: skip
        same = termios.tcgetattr(self._slave) == self.before
        return same and all(last > first for last, first in ends)

    def close(self) -> None:
        """End it in any case."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)
        os.close(self._slave)
        self._reader.join(5)
        os.close(self._master)


@pytest.fixture
def config(bot_config: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The configuration of a bot with five pairs, quick enough to watch."""
    (tmp_path / "user_data").mkdir()
    bot_config["exchange"]["pair_whitelist"] = PAIRS
    bot_config[SECTION] = dict(MARGIN)
    return bot_config


@pytest.fixture
def open_terminal(config: dict[str, Any], tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Start the command in a terminal."""
    opened: list[Terminal] = []

    def start(*words: str, **more: Any) -> Terminal:
        (tmp_path / "config.json").write_text(json.dumps(config))
        opened.append(Terminal(tmp_path, *words, **more))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


def pairs_of(lines: list[str]) -> list[str]:
    """Return the pairs in the order in which they are shown."""
    return [line.split()[0] for line in lines if "/USDT" in line[:12]]


def test_it_shows_the_accounts_until_q_is_pressed(
    open_terminal: Callable[..., Terminal], exchange: LocalExchange, tmp_path: Path
) -> None:
    """By danger, on the whole screen; the terminal is as before, and nothing was placed or stored."""
    terminal = open_terminal()
    lines = terminal.wait_for(r"read \d s ago[^\n]*1 block, 1 shrink, 3 allow")
    assert pairs_of(lines) == ["XRP/USDT", "SOL/USDT", "BTC/USDT", "ADA/USDT", "DOGE/USDT"]
    assert re.search(r"XRP/USDT +1\.18\d .*block .*its status is MARGIN", "\n".join(lines))
    assert len(lines) == 24
    assert max(map(cell_len, lines)) <= 120
    assert FULL in terminal.output
    assert termios.tcgetattr(terminal._slave) != terminal.before
    terminal.press(b"q")
    assert terminal.end() == 0
    assert terminal.is_as_before()
    assert {request.method for request in exchange.requests} == {"GET"}
    assert exchange.orders == ()
    assert list((tmp_path / "user_data").rglob("*.sqlite*")) == []


def test_ctrl_c_ends_it_and_ctrl_z_interrupts_it(open_terminal: Callable[..., Terminal]) -> None:
    """Both leave the terminal as it was; after Ctrl-Z it goes on where the shell says so."""
    terminal = open_terminal()
    terminal.wait_for("shrink")
    terminal.press(b"\x1a")
    _, status = os.waitpid(terminal.process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    terminal.drain()
    assert terminal.is_as_before()
    os.kill(terminal.process.pid, signal.SIGCONT)
    terminal.wait_for("shrink")
    terminal.press(b"\x03")
    assert terminal.end() == 0
    assert terminal.is_as_before()


def test_a_kill_leaves_the_terminal_as_it_was(open_terminal: Callable[..., Terminal]) -> None:
    """It ends as with Ctrl-C."""
    terminal = open_terminal()
    terminal.wait_for("shrink")
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.end() == 0
    assert terminal.is_as_before()


def test_it_survives_the_exchange(open_terminal: Callable[..., Terminal], exchange: LocalExchange) -> None:
    """The figures stay, their ages grow, the verdicts become a block, and all is well again by itself."""
    terminal = open_terminal()
    terminal.wait_for("1 block, 1 shrink, 3 allow")
    exchange.stop()
    lines = terminal.wait_for(
        r"! Binance cannot be reached: the connection is refused; since [0-9:]+ UTC, next"
    )
    assert pairs_of(lines)[0] == "XRP/USDT"
    text = "\n".join(terminal.wait_for(r"read \d+ s ago[^\n]* 5 block"))
    assert re.search(r"BTC/USDT +\d\.\d{3} .*block +\d+ s +the account is \d s old", text)
    exchange.restart()
    lines = terminal.wait_for("1 block, 1 shrink, 3 allow")
    assert not any(line.startswith("!") for line in lines)
    terminal.press(b"q")
    assert terminal.end() == 0
    # What would have been said on the screen meanwhile is said after it.
    on_screen, _, after = terminal.output.rpartition(NORMAL)
    # The log breaks its lines where the terminal ends.
    assert b"cannot be read" in b" ".join(after.split())
    assert b"cannot be read" not in b" ".join(on_screen.split())


def test_an_exchange_that_is_away_at_the_start_is_waited_for(
    open_terminal: Callable[..., Terminal], exchange: LocalExchange
) -> None:
    """The pairs are there, and refused."""
    exchange.stop()
    terminal = open_terminal()
    lines = terminal.wait_for(r"not read yet · 5 block")
    assert sorted(pairs_of(lines)) == sorted(PAIRS)
    exchange.restart()
    terminal.wait_for("1 block, 1 shrink, 3 allow")


def test_it_follows_the_size_of_the_terminal(open_terminal: Callable[..., Terminal]) -> None:
    """Narrow, short, tiny and large again, without a line that is too long."""
    terminal = open_terminal()
    terminal.wait_for("Index price")
    for columns, height, expected in (
        (60, 20, r"Pair +Level +Last"),
        (60, 6, r"… and 2 more \(2 allow\)"),
        (15, 3, r"^Isolated margin$"),
        (200, 30, r"Status .* Why"),
    ):
        terminal.resize(columns, height)
        lines = terminal.wait_for(f"(?m){expected}")
        assert len(lines) == height
        assert max(map(cell_len, lines)) <= columns


def test_no_color_leaves_words(open_terminal: Callable[..., Terminal]) -> None:
    """With NO_COLOR nothing is red, and the verdicts are there."""
    coloured = open_terminal()
    coloured.wait_for("1 block, 1 shrink, 3 allow")
    # Not both at once: each creates what is missing in the user data folder.
    plain = open_terminal(NO_COLOR="1")
    plain.wait_for("1 block, 1 shrink, 3 allow")
    colours = re.compile(rb"\x1b\[(\d;)?3[0-7]m")
    assert colours.search(coloured.output)
    assert not colours.search(plain.output)


# ----- not on a terminal


@contextmanager
def piped(folder: Path, *words: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command with its output in a pipe."""
    process = subprocess.Popen(
        [sys.executable, "-c", START, "watch", "-c", "config.json", *words],
        cwd=folder, env=os.environ | environ, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_log_gets_a_line_for_each_change_of_a_verdict(
    number: signal.Signals, config: dict[str, Any], exchange: LocalExchange, tmp_path: Path
) -> None:
    """And no picture; Ctrl-C or a kill ends it in good order."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    with piped(tmp_path, "SOL/USDT", "BTC/USDT", FORCE_COLOR="1") as process:
        assert process.stdout
        first = sorted(process.stdout.readline() for _ in range(2))
        exchange.set_account("SOL/USDT", AccountSpec(base_free="5.6", quote_borrowed="690"))
        change = process.stdout.readline()
        process.send_signal(number)
        out, _ = process.communicate(timeout=30)
        assert process.returncode == 0
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC "
    assert re.fullmatch(stamp + r"BTC/USDT long: allow: margin level .*\n", first[0])
    assert re.fullmatch(stamp + r"SOL/USDT long: shrink × 0\.\d+: margin level .*\n", first[1])
    assert re.fullmatch(stamp + r"SOL/USDT long: block: margin level 1\.\d+ ≤ 1\.25 .*\n", change)
    assert out == ""


def test_whoever_reads_the_lines_may_leave(
    config: dict[str, Any], exchange: LocalExchange, tmp_path: Path
) -> None:
    """As `head` does; that is no error."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    with piped(tmp_path, "SOL/USDT") as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        exchange.set_account("SOL/USDT", AccountSpec(base_free="5.6", quote_borrowed="690"))
        assert process.wait(30) == 0
        assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"margin_levl": {}}, "configuration: isolated_margin.margin_levl is not a setting"),
        ({"pairs": {"BTD/USDT": {}}}, "the exchange has no such pair; did you mean 'BTC/USDT'?"),
        ({"history": False, "source": "history"}, "configuration: isolated_margin: source"),
    ],
)
def test_what_cannot_be_is_said_and_ends_it(
    section: dict[str, Any], expected: str, config: dict[str, Any], tmp_path: Path
) -> None:
    """With exit status 2, also where only the exchange can tell."""
    config[SECTION] = MARGIN | section
    (tmp_path / "config.json").write_text(json.dumps(config))
    with piped(tmp_path) as process:
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert out == ""
    assert expected in errors
    assert "Traceback" not in errors


# ----- what it looks at


def until(watch: Watch, true: Callable[[View], bool], seconds: float = 20.0) -> View:
    """Look again and again, as the command does, until something is true."""
    end, pause = time.monotonic() + seconds, threading.Event()
    while True:
        view = watch.look()
        if true(view):
            return view
        assert time.monotonic() < end, view
        pause.wait(0.05)


@contextmanager
def watching(config: dict[str, Any], *pairs: str, side: Side = Side.LONG) -> Iterator[Watch]:
    """Watch with this configuration, in this process."""
    watch = Watch(config, Settings.load(config.get(SECTION)), pairs, side)
    try:
        yield watch
    finally:
        watch.close()


def has_read(view: View) -> bool:
    """Whether the accounts were read."""
    return view.read_age is not None


def shown(view: View) -> dict[str, Outcome]:
    """Return the verdicts by pair."""
    return {row.pair: row.decision.outcome for row in view.rows}


def test_expressions_and_dynamic_lists_are_known_once_the_exchange_has_told(config: dict[str, Any]) -> None:
    """An expression stands for what it matches; with a dynamic list every account there is shown."""
    config["exchange"]["pair_whitelist"] = ["(BTC|SOL)/USDT", "DOGE/USDT"]
    with watching(config) as watch:
        assert set(shown(until(watch, has_read))) == {"BTC/USDT", "SOL/USDT", "DOGE/USDT"}
    config["pairlists"] = [{"method": "VolumePairList", "number_assets": 5, "sort_key": "quoteVolume"}]
    with watching(config) as watch:
        found = shown(until(watch, has_read))
    assert set(found) == {f"{base}/USDT" for base in ("ADA", "BNB", "BTC", "ETH", "FET", "SOL", "XRP")}


def test_a_futures_pair_stands_for_its_spot_pair(config: dict[str, Any]) -> None:
    """Under the bot's name for it."""
    config |= {"trading_mode": "futures", "margin_mode": "isolated"}
    with watching(config, "SOL/USDT:USDT") as watch:
        assert shown(until(watch, has_read)) == {"SOL/USDT:USDT": Outcome.SHRINK}


def test_a_spoilt_row_is_a_row(config: dict[str, Any], exchange: LocalExchange) -> None:
    """It says why, and the others are as ever."""

    def spoil(content: dict[str, Any]) -> None:
        for row in content["assets"]:
            if row["symbol"] == "SOLUSDT":
                row["marginLevel"] = "NaN"

    exchange.faults.add(Fault("/sapi/v1/margin/isolated/account", transform=spoil))
    with watching(config) as watch:
        view = until(watch, has_read)
    [row] = [row for row in view.rows if row.pair == "SOL/USDT"]
    assert row.decision.blocks
    assert row.level is None
    assert shown(view)["BTC/USDT"] is Outcome.ALLOW


def test_impossible_settings_end_it(config: dict[str, Any]) -> None:
    """Without a key nothing can be read, and a futures bot cannot borrow."""
    config["exchange"] |= {"key": "", "secret": ""}
    with pytest.raises(CredentialsError, match="ISOLATED_MARGIN_API_KEY"), watching(config):
        pass
    config |= {"trading_mode": "futures", SECTION: {"entry_funding": "borrowed"}}
    with pytest.raises(SettingsError, match="futures"), watching(config):
        pass


def test_a_guard_that_is_off_is_said_to_be(config: dict[str, Any]) -> None:
    """The table shows what it would do."""
    config[SECTION]["enabled"] = False
    with watching(config) as watch:
        view = until(watch, has_read)
    assert any('"enabled": false' in note for note in view.notes)


def test_the_line_begins_with_what_was_recorded(
    config: dict[str, Any], exchange: LocalExchange, tmp_path: Path
) -> None:
    """The levels that a bot has stored in the hour before are there at once."""
    config["user_data_dir"] = str(tmp_path / "user_data")
    store(config, exchange, PAIRS, [age * 10.0 for age in range(200, 0, -1)])

    def is_long(view: View) -> bool:
        moments = view.levels.moments(view.now.timestamp(), 60)
        known = [value for value in view.levels.values("SOL/USDT", moments) if value is not None]
        return moments[-1] - moments[0] > 1700 and len(known) > 20

    with watching(config) as watch:
        view = until(watch, is_long)
        moments = view.levels.moments(view.now.timestamp(), 60)
        assert set(view.levels.values("ADA/USDT", moments)) == {None}


def test_a_follower_needs_no_key_and_no_exchange(
    config: dict[str, Any], exchange: LocalExchange, tmp_path: Path
) -> None:
    """It shows what another bot stores, and how old that is."""
    config["user_data_dir"] = str(tmp_path / "user_data")
    config[SECTION] |= {"source": "history", "max_age_seconds": 3600}
    store(config, exchange, PAIRS, [40.0])
    config["exchange"] |= {"key": "", "secret": "", "pair_whitelist": ["(BTC|SOL)/USDT"]}
    asked = len(exchange.requests)
    with watching(config) as watch:
        view = until(watch, has_read)
    assert shown(view) == {"SOL/USDT": Outcome.SHRINK, "BTC/USDT": Outcome.ALLOW}
    assert view.read_age is not None
    assert 39 < view.read_age < 90
    assert len(exchange.requests) == asked


def test_a_database_that_is_gone_is_no_error(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The lines begin now, then."""
    monkeypatch.setenv(ENV_DB_URL, f"sqlite:///{tmp_path / 'nowhere' / 'history.sqlite'}")
    with watching(config) as watch:
        assert shown(until(watch, has_read))["SOL/USDT"] is Outcome.SHRINK
