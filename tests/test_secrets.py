"""A canary key and secret go through everything, and come out of nothing."""

from __future__ import annotations

import copy
import json
import logging
import os
import subprocess
import sys
import traceback
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from freqtrade.enums import RunMode
from support.backtests import RANGE, WITH_MIXIN, write_candles
from support.bot import config_for, freqtrade
from support.faults import (
    ACCOUNT,
    FIELD_PAIRS,
    OTHER,
    ROWS,
    TARGET,
    Driver,
    FaultRow,
    Gate,
    Mode,
    Scope,
    World,
    serving,
)
from support.strategies import Plain

from freqtrade_isolated_margin.binance.credentials import ENV_KEY, ENV_SECRET
from freqtrade_isolated_margin.commands.cli import main
from freqtrade_isolated_margin.errors import IsolatedMarginError
from freqtrade_isolated_margin.hosts.wiring import build_guard
from freqtrade_isolated_margin.localexchange import Fault, LocalExchange
from freqtrade_isolated_margin.localexchange.keys import ApiKey
from freqtrade_isolated_margin.rules.settings import Settings

pytestmark = [pytest.mark.xdist_group("secrets"), pytest.mark.timeout(300)]

# As long as Binance's own, and nothing that another program would print.
KEY = "CanaryKeyQ7wZ".ljust(64, "k")[:52] + "EndOfTheKey1"
SECRET = "CanarySecretX4".ljust(64, "s")[:49] + "EndOfTheSecret2"
# Both ends, so that a part is found as well.
NEEDLES = (KEY[:13], KEY[-12:], SECRET[:14], SECRET[-15:])
ENVIRONMENT = {ENV_KEY: KEY, ENV_SECRET: SECRET}


def check(written: str | bytes, gate: Gate | None = None, *, own: bool = True) -> None:
    """Fail where the key, the secret or a signature that was sent stands in what was `written`.

    `own` also refuses what looks like a signed request of ours although no server has seen it.
    """
    content = written.encode() if isinstance(written, str) else written
    needles = [*NEEDLES, *(gate.signatures if gate else ()), *(["signature="] if own else ())]
    for needle in needles:
        place = content.find(needle.encode())
        around = content[max(place - 300, 0) : place + 40]
        assert place < 0, f"{needle!r} was written: …{around.decode(errors='replace')}…"


def give_canary(exchange: LocalExchange) -> None:
    """Let the exchange know the canary as its user's key."""
    exchange.state.keys[KEY] = ApiKey(key=KEY, secret=SECRET)
    exchange.key, exchange.secret = KEY, SECRET


@pytest.fixture(scope="module")
def server() -> Iterator[LocalExchange]:
    """Serve as for the fault matrix, with the canary for a key."""
    with serving() as exchange:
        give_canary(exchange)
        yield exchange


class Everything(logging.Handler):
    """Keeps what is logged by anybody, tracebacks included."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record with all that it carries, unless the look-alike says what it was asked."""
        if record.name.startswith("uvicorn"):
            return
        self.lines += [self.format(record), repr(record.args), repr(record.__dict__.get("url", ""))]


@pytest.fixture
def logged() -> Iterator[Everything]:
    """Listen to all loggers at their lowest level."""
    handler, root = Everything(), logging.getLogger()
    before = root.level, root.handlers[:], root.manager.disable
    loggers = [logger for logger in root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    levels = [(logger, logger.level, logger.disabled) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.disabled = False
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    logging.disable(logging.NOTSET)
    yield handler
    for logger, level, disabled in levels:
        logger.setLevel(level)
        logger.disabled = disabled
    root.level, root.handlers[:] = before[:2]
    logging.disable(before[2])


def everything_of(error: BaseException) -> str:
    """Return an exception as its worst reader would show it: chain, arguments, and each frame's variables."""
    seen: list[str] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None:
            continue
        shown = traceback.TracebackException.from_exception(one, capture_locals=True)
        seen += [repr(one), str(one), repr(one.args), repr(vars(one)), *shown.format()]
        waiting += [one.__cause__, one.__context__]
    return "\n".join(seen)


# ----- every fault of the matrix


@pytest.mark.parametrize("row", [row for row in ROWS if row.status], ids=str)
def test_no_fault_brings_it_out(
    row: FaultRow,
    world: World,
    logged: Everything,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither in logs of anybody at DEBUG, nor in verdicts, exceptions or what the command prints."""
    pairs = [TARGET, OTHER, *FIELD_PAIRS] if row.scope is Scope.FIELDS else [TARGET, OTHER]
    driver = Driver(world, dict(row.settings), pairs)
    try:
        driver.read()
        row.inject(world)
        driver.read()
        driver.clock.pass_by(61)
        driver.entered(TARGET)
        seen = [driver.reason(TARGET), repr(driver.monitor.problem), repr(driver.monitor.snapshot)]
        seen += [repr(vars(driver.guard)), repr(vars(driver.monitor)), repr(vars(driver.strategy))]
        try:
            driver._reader().read(pairs)
        except IsolatedMarginError as error:
            seen.append(everything_of(error))
        except Exception as error:  # noqa: BLE001 - the monitor tells its name and nothing else
            seen.append(repr(error))
        if driver.monitor.problem:
            seen.append(everything_of(driver.monitor.problem))
    finally:
        driver.close()
    seen += _command(world, pairs, tmp_path, capsys, monkeypatch)
    check("\n".join([*seen, *logged.lines]), world.gate)
    assert world.gate.signatures
    assert any("freqtrade" in line for line in logged.lines)


def _command(
    world: World,
    pairs: list[str],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> list[str]:
    (folder / "user_data").mkdir()
    monkeypatch.chdir(folder)
    config = config_for(world.exchange, pairs)
    config["exchange"]["ccxt_config"]["urls"]["api"]["sapi"] = world.sapi
    (folder / "config.json").write_text(json.dumps(config))
    assert main(["status", "-c", "config.json", "-vvv"]) in (0, 1, 2)
    return list(capsys.readouterr())


@pytest.mark.parametrize("code", [-1000, -1022, -2014, -2015])
@pytest.mark.parametrize("form", ["{key}", "key={key}&secret={secret}", "{key},{secret}", "?k={key}"])
def test_an_exchange_that_echoes_it_is_not_repeated(
    world: World, logged: Everything, code: int, form: str
) -> None:
    """What the exchange says is shown, but no word of it that is long enough to be a key."""
    message = form.format(key=KEY, secret=SECRET)
    world.exchange.faults.add(Fault(ACCOUNT, code=code, msg=f"No {message} here."))
    driver = Driver(world, {}, [TARGET])
    driver.read()
    assert driver.monitor.problem
    check("\n".join([everything_of(driver.monitor.problem), driver.reason(), *logged.lines]), world.gate)
    driver.close()


# ----- commands


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["status", "--help"], ["exchange", "--help"], ["demo", "--help"],
     ["nonsense"], ["status", "--nonsense"], ["status"], ["status", "-vvv"], ["status", "--json", "-vvv"],
     ["status", "BTC/USDT", "NO/USDT"], ["status", "--strategy", "Missing"], ["status", "-c", "missing.json"],
     ["status", "-c", "broken.json", "-vvv"], ["status", "-c", "misplaced.json"]],
    ids=" ".join,
)  # fmt: skip
@pytest.mark.parametrize("from_environment", [True, False], ids=["environment", "configuration"])
def test_no_command_shows_it(
    words: list[str],
    world: World,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    logged: Everything,
    *,
    from_environment: bool,
) -> None:
    """Whatever is asked of it, and wherever the credentials come from."""
    _write_configurations(world, tmp_path, in_configuration=not from_environment)
    monkeypatch.chdir(tmp_path)
    if from_environment:
        for name, value in ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
    if words[0] == "status" and "-c" not in words and "--help" not in words:
        words = [*words, "-c", "config.json"]
    try:
        assert main(words) in (0, 1, 2)
    except SystemExit as end:
        assert end.code in (0, 2)  # noqa: PT017 - argparse ends so
    out, err = capsys.readouterr()
    assert out or err
    check("\n".join([out, err, *logged.lines]), world.gate)


def _write_configurations(world: World, folder: Path, *, in_configuration: bool) -> None:
    (folder / "user_data" / "strategies").mkdir(parents=True)
    config = config_for(world.exchange, [TARGET, OTHER])
    if not in_configuration:
        config["exchange"] |= {"key": "", "secret": ""}
    config["exchange"]["ccxt_config"]["urls"]["api"]["sapi"] = world.sapi
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "broken.json").write_text(f'{{"exchange": {{"key": "{KEY}", "secret": "{SECRET}",, }}')
    misplaced = config | {"isolated_margin": {"api_key": KEY, "secret": SECRET, "refresh_seconds": SECRET}}
    (folder / "misplaced.json").write_text(json.dumps(misplaced))


def test_the_command_as_a_process_shows_nothing(world: World, tmp_path: Path) -> None:
    """Its own standard output and error at -vvv, outside of any test's capturing."""
    _write_configurations(world, tmp_path, in_configuration=False)
    done = subprocess.run(
        [sys.executable, "-m", "freqtrade_isolated_margin", "status", "-vvv", "-c", "config.json"],
        cwd=tmp_path, env={**os.environ, **ENVIRONMENT}, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    check(done.stdout + done.stderr, world.gate)


# ----- freqtrade


def written_in(folder: Path, *but: str) -> Iterator[tuple[Path, bytes]]:
    """Yield every file below, what is inside of zip files included."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name in but:
            continue
        yield path, path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    yield path / name, archive.read(name)


LOOPING = """
class Tested(IsolatedMarginMixin, Base, IStrategy):
    def bot_loop_start(self, current_time, **kwargs):
        log.info("LOOP %s", self.margin_decision("BTC/USDT"))
        log.info("ALL %r %r", vars(self), {k: v for k, v in self.config.items() if k != "original_config"})
"""


def test_a_bot_at_its_loudest_does_not_show_what_the_guard_uses(tmp_path: Path) -> None:
    """A dry run at -vvv through faults and a reload: its output, its API, its database and its log file.

    The bot has no credentials of its own, since freqtrade logs its own requests at that level.
    """
    with serving() as exchange:
        give_canary(exchange)
        gate = Gate(exchange)
        config = config_for(exchange, [TARGET, OTHER])
        config["exchange"] |= {"key": "", "secret": ""}
        config["exchange"]["ccxt_config"]["urls"]["api"] |= {"sapi": gate.sapi}
        # Under pytest freqtrade does not set up its log levels.
        more = {"more_environment": {**ENVIRONMENT, "PYTEST_VERSION": None}}
        with freqtrade(tmp_path, config, LOOPING, "trade", "-vvv", "--logfile", "bot.log", **more) as bot:
            line = bot.wait_for("LIMIT_BUY has been fulfilled")
            for fault in ({"code": -2015}, {"reset": True}, {"body": b"<html>"}, {"code": -1021}):
                made = exchange.faults.add(Fault(ACCOUNT, **fault))
                line = bot.wait_for("accounts cannot be read", after=line)
                exchange.faults.remove(made)
                line = bot.wait_for("accounts are read again", after=line)
            gate.be(Mode.REFUSE)
            line = bot.wait_for("the connection is refused", after=line)
            gate.be(Mode.FORWARD)
            bot.api("POST", "reload_config")
            line = bot.wait_for("Changing state from RELOAD_CONFIG to: RUNNING", after=line)
            bot.wait_for("LOOP .*allow", after=line)
            told = [bot.api("GET", path) for path in ("show_config", "status", "locks", "logs", "sysinfo")]
        gate.close()
    assert "DEBUG" in bot.output
    assert len(gate.signatures) > 5
    check(bot.output, gate)
    check(json.dumps(told), gate)
    files = dict(written_in(tmp_path))
    assert {"trades.sqlite", "bot.log"} <= {path.name for path in files}
    for content in files.values():
        check(content, gate)


def test_a_backtests_zip_and_show_config_hide_it(world: World, tmp_path: Path) -> None:
    """The configuration inside an exported backtest, and what `freqtrade show-config` prints."""
    write_candles(tmp_path)
    config = config_for(world.exchange, [TARGET], isolated_margin={})
    command = ("backtesting", *RANGE, "--enable-protections")
    with freqtrade(tmp_path, config, WITH_MIXIN, *command, more_environment=ENVIRONMENT) as bot:
        assert bot.wait(120) == 0, bot.output[-3000:]
    check(bot.output, world.gate)
    files = dict(written_in(tmp_path, "config.json"))
    assert any(".zip" in str(path.parent) and path.name.endswith("_config.json") for path in files)
    for content in files.values():
        check(content, world.gate)
    shown = subprocess.run(
        [sys.executable, "-m", "freqtrade", "show-config", "-c", "config.json", "--userdir", "user_data"],
        cwd=tmp_path, env={**os.environ, **ENVIRONMENT}, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert shown.returncode == 0
    assert b"isolated_margin" in shown.stdout
    check(shown.stdout + shown.stderr, world.gate)


def test_a_copy_of_the_strategy_does_not_carry_it(
    world: World, monkeypatch: pytest.MonkeyPatch, logged: Everything
) -> None:
    """A strategy that hyperopt pickles, its deep copy, and what can be seen of one that trades."""
    monkeypatch.setenv(ENV_KEY, KEY)
    monkeypatch.setenv(ENV_SECRET, SECRET)
    strategy = Plain({"runmode": RunMode.HYPEROPT, "exchange": {"name": "binance"}})
    strategy.ft_bot_start()
    check(cloudpickle.dumps(strategy))
    check(cloudpickle.dumps(copy.deepcopy(strategy)))
    driver = Driver(world, {}, [TARGET])
    driver.read()
    reader = driver._worker.reader
    assert reader
    seen = [driver.strategy, driver.guard, driver.monitor, reader, reader._adapter]
    check("\n".join(f"{one!r} {vars(one)!r}" for one in seen), world.gate)
    trading = Plain({"runmode": RunMode.DRY_RUN, "exchange": {"name": "binance"}})
    trading._margin_judge = build_guard(trading.config, Settings())
    for attempt in (cloudpickle.dumps, copy.deepcopy):
        try:
            made: Any = attempt(trading)
        except TypeError as error:
            check(repr(error), world.gate)
        else:
            check(made if isinstance(made, bytes) else repr(vars(made)), world.gate)
    driver.close()
    check("\n".join(logged.lines), world.gate)
