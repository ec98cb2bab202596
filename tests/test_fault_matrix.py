"""Does every fault of `faults` to `status`, to the mixin and to real bots, and writes down what happened.

What is observed is compared with docs/fault-matrix.md; `make fault-matrix` writes it anew.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.bot import FreqtradeProcess, config_for, freqtrade
from support.faults import (
    ACCOUNT,
    FIELD_PAIRS,
    OTHER,
    ROWS,
    TARGET,
    WELL,
    Driver,
    FaultRow,
    Gate,
    Mode,
    Scope,
    World,
    answered,
    markets,
    serving,
)
from support.strategies import Plain

from freqtrade_isolated_margin.binance.reader import Reader
from freqtrade_isolated_margin.commands.cli import main
from freqtrade_isolated_margin.guard import monitor as monitor_module
from freqtrade_isolated_margin.localexchange import Fault, LocalExchange

pytestmark = [pytest.mark.xdist_group("fault matrix"), pytest.mark.timeout(300)]

DOCUMENT = Path(__file__).parents[1] / "docs" / "fault-matrix.md"
WRITE = "FAULT_MATRIX_WRITE"
MAX_AGE = 60
HOUSE = "Of the house"

# ----- what was observed

COLUMNS = {
    "status": "`status`",
    "dry": "dry-run bot",
    "live": "bot that is not dry",
    "mixin": "mixin, in-process",
}
# Filled by the tests in whatever order they run; all of them are in one worker.
_observed: dict[tuple[str, str], dict[str, str]] = {}
# Rows that are not in ROWS, in the order of the document.
_HOUSE_ROWS = [
    "the thread that reads is killed",
    "the process is suspended past `max_age_seconds`",
    "the machine is suspended: the monotonic clock stands still",
    "the wall clock is set forward an hour",
    "the wall clock is set back an hour",
    "the exchange's clock jumps five minutes back, then ten forward",
    "`/reload_config` in the middle of a read",
    "the strategy's own callbacks raise",
    "the disk is full",
]


def note(group: str, name: str, column: str, told: str) -> None:
    """Keep a cell of the matrix."""
    _observed.setdefault((group, name), {})[column] = told


def plain(reason: str) -> str:
    """Return a reason without what differs from run to run."""
    reason = re.sub(r"; since \S+ UTC, next attempt \S+ UTC", "", reason)
    reason = re.sub(
        r"is \d+ s old, the limit \(max_age_seconds\) is \S+ s", "is N s old, over the limit", reason
    )
    return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1", reason)


def quoted(reason: str) -> str:
    """Return a reason as a cell shows it."""
    return f"“{plain(reason)}”".replace("|", "\\|")


# ----- the mixin in this process


class Raising(Plain):
    """A strategy all of whose callbacks fail."""

    def confirm_trade_entry(self, **kwargs: Any) -> bool:
        raise ValueError("raised on purpose")

    custom_stake_amount = adjust_trade_position = check_entry_timeout = bot_loop_start = confirm_trade_entry


@pytest.fixture(scope="module")
def server() -> Iterator[LocalExchange]:
    """Serve a market and an account for every field of a row, and two more."""
    with serving() as exchange:
        yield exchange


@pytest.fixture
def drive(world: World) -> Iterator[Callable[..., Driver]]:
    """Makes drivers."""
    made: list[Driver] = []

    def make(settings: dict[str, Any] | None = None, pairs: list[str] | None = None, **more: Any) -> Driver:
        made.append(Driver(world, settings or {}, pairs or [TARGET, OTHER], **more))
        return made[-1]

    yield make
    for driver in made:
        driver.close()


Drive = Callable[..., Driver]
THREADED = {"answer that trickles, a byte at a time"}


@pytest.mark.parametrize("row", [row for row in ROWS if row.name not in THREADED], ids=str)
def test_the_mixin_refuses_and_recovers(row: FaultRow, world: World, drive: Drive) -> None:
    """A good read, the fault, and then no entry on an account that is too old or unreadable; and recovery."""
    driver = drive(dict(row.settings), [TARGET, OTHER, *FIELD_PAIRS] if row.scope is Scope.FIELDS else None)
    # As many as there are tiers to be read, five at a time.
    for _ in range(8 if row.scope is Scope.FIELDS else 1):
        driver.read()
    assert driver.entered(TARGET)
    assert driver.entered(OTHER)
    row.inject(world)
    told = {Scope.ALL: _for_all, Scope.ONE: _for_one, Scope.FIELDS: _for_fields, Scope.NONE: _for_nobody}[
        row.scope
    ](row, driver)
    if row.scope is not Scope.NONE:
        world.heal()
        world.exchange.set_account(TARGET, WELL)
        reads = driver.reads_until_entered(*driver.pairs)
        assert reads == 1
        told.append(f"recovered after {reads} read")
    note(row.group, row.name, "mixin", "; ".join(told))


def _for_all(row: FaultRow, driver: Driver) -> list[str]:
    waits = [driver.read() for _ in range(2)]
    # As long as the last account is good for.
    driver.clock.pass_by(MAX_AGE)
    assert driver.entered(TARGET)
    driver.clock.pass_by(1)
    assert not driver.entered(TARGET)
    assert not driver.entered(OTHER)
    reason = driver.reason()
    assert re.search(row.words, reason), reason
    assert driver.monitor.problem
    assert row.waits is None or tuple(waits) == row.waits
    assert min(waits) >= 10
    tries = ", ".join(f"{wait:g} s" for wait in waits)
    return [f"refused, all pairs: {quoted(reason)}", f"tries again after {tries}"]


def _for_one(row: FaultRow, driver: Driver) -> list[str]:
    driver.read()
    assert not driver.entered(TARGET)
    assert driver.entered(OTHER)
    assert driver.strategy.margin_account(TARGET) is None or row.words
    reason = driver.reason()
    assert re.search(row.words, reason), reason
    return [f"refused at once, this pair only: {quoted(reason)}"]


def _for_fields(row: FaultRow, driver: Driver) -> list[str]:
    driver.read()
    spoilt = [pair for pair in FIELD_PAIRS if driver.reason(pair) != driver.reason(OTHER)]
    refused = {pair: driver.reason(pair) for pair in FIELD_PAIRS if not driver.entered(pair)}
    # A pair whose field may be so has the same verdict as any other.
    assert set(spoilt) == set(refused)
    assert driver.entered(OTHER)
    for pair, reason in refused.items():
        assert re.search(row.words, reason), (FIELD_PAIRS[pair], reason)
    missed = row.may & {FIELD_PAIRS[pair] for pair in refused}
    assert not missed
    return [f"{len(refused)} fields, each refuses its pair at once and no other: {_commonest(refused)}"]


def _commonest(refused: dict[str, str]) -> str:
    """Return the reason that most have, without the name of the field."""
    told = Counter(re.sub(r"\([\w.]+: ", "(FIELD: ", reason) for reason in refused.values())
    return quoted(min(told, key=lambda reason: (-told[reason], reason)))


def _for_nobody(row: FaultRow, driver: Driver) -> list[str]:
    driver.clock.pass_by(MAX_AGE + 1)
    assert not driver.entered(TARGET)
    reads = driver.reads_until_entered(TARGET, OTHER)
    assert reads == 1
    assert re.search(row.words, driver.reason()), driver.reason()
    return [f"read all the same, entries stay possible: {quoted(driver.reason())}"]


def test_every_field_is_spoilt(world: World) -> None:
    """The rows that spoil each field know every field that an answer has."""
    row = world.exchange.account_row("BTCUSDT")
    names = {name for name in row if name != "symbol"}
    for side in ("baseAsset", "quoteAsset"):
        asset = row[side]
        assert isinstance(asset, dict)
        names |= {f"{side}.{name}" for name in asset}
    assert names == set(FIELD_PAIRS.values())


# ----- of the house, in this process


def test_an_answer_that_trickles_is_given_up(
    world: World, drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that sends a byte a second does not hold the reader for hours: another begins."""
    monkeypatch.setattr(monitor_module, "_HANGING_SECONDS", 0.3)
    driver = drive()
    driver.read()
    world.gate.be(Mode.TRICKLE)
    seen = _good_reads(world.exchange)
    driver.monitor.start()
    _wait(lambda: _good_reads(world.exchange) > seen)
    driver.clock.pass_by(MAX_AGE + 1)
    assert not driver.entered()
    reason = driver.reason()
    world.gate._mode = Mode.FORWARD
    hanging = driver.monitor._worker

    def another_has_read() -> bool:
        # As the bot does in each loop.
        driver.monitor.start()
        return driver.entered()

    before = _good_reads(world.exchange)
    _wait(another_has_read)
    assert driver.monitor._worker is not hanging
    assert hanging
    assert hanging.is_alive()
    reads = _good_reads(world.exchange) - before
    assert reads == 1
    note("Network", "answer that trickles, a byte at a time", "mixin",
         f"refused, all pairs: {quoted(reason)}; the read is given up and another begins; "
         f"recovered after {reads} read")  # fmt: skip


def _good_reads(exchange: LocalExchange) -> int:
    return sum(request.path == ACCOUNT and request.status == 200 for request in exchange.requests)


def _wait(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for what no event tells."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "not so in time"
        threading.Event().wait(0.02)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_reader_that_is_killed_is_replaced(
    world: World, drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the thread the account ages and blocks; the next loop of the bot starts another thread."""
    driver = drive()
    driver.read()

    def die(*_: Any, **__: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Reader, "read", die)
        driver.monitor.start()
        worker = driver.monitor._worker
        assert worker
        worker.join(10)
        assert not worker.is_alive()
        driver.clock.pass_by(MAX_AGE + 1)
        assert not driver.entered()
        reason = driver.reason()
    seen = _good_reads(world.exchange)
    driver.monitor.start()
    _wait(driver.entered)
    assert driver.monitor._worker is not worker
    reads = _good_reads(world.exchange) - seen
    assert reads == 1
    told = f"refused, all pairs: {quoted(reason)}; another thread is started; recovered after {reads} read"
    note(HOUSE, "the thread that reads is killed", "mixin", told)


@pytest.mark.parametrize(
    ("name", "monotonic", "wall"),
    [
        ("the process is suspended past `max_age_seconds`", MAX_AGE + 1, MAX_AGE + 1),
        ("the machine is suspended: the monotonic clock stands still", 0, MAX_AGE + 1),
        ("the wall clock is set forward an hour", 1, 3600),
    ],
)
def test_whatever_clock_says_that_time_has_passed_is_believed(
    drive: Drive, name: str, monotonic: float, wall: float
) -> None:
    """The larger age counts, and the next read ends it."""
    driver = drive()
    driver.read()
    driver.clock.monotonic += monotonic
    driver.clock.wall += wall
    assert not driver.entered()
    reason = driver.reason()
    reads = driver.reads_until_entered()
    assert reads == 1
    told = f"refused at once, all pairs: {quoted(reason)}; recovered after {reads} read"
    note(HOUSE, name, "mixin", told)


def test_a_wall_clock_set_back_makes_no_account_younger(drive: Drive) -> None:
    """The monotonic clock still tells the age."""
    driver = drive()
    driver.read()
    driver.clock.wall -= 3600
    assert driver.entered()
    driver.clock.pass_by(MAX_AGE)
    assert driver.entered()
    driver.clock.pass_by(1)
    assert not driver.entered()
    reason = driver.reason()
    reads = driver.reads_until_entered()
    told = (
        f"the account becomes no younger: refused when it is 61 s old: {quoted(reason)}; "
        f"recovered after {reads} read"
    )
    note(HOUSE, "the wall clock is set back an hour", "mixin", told)


def test_an_exchange_clock_that_jumps_costs_one_request_each_time(world: World, drive: Drive) -> None:
    """Each jump is adjusted within the read that meets it."""
    driver = drive()
    driver.read()
    for offset in (-300.0, 300.0):
        world.exchange.clock_offset = offset
        driver.clock.pass_by(MAX_AGE + 1)
        assert not driver.entered()
        seen = len(world.exchange.requests)
        driver.read()
        assert driver.entered()
        asked = [request for request in world.exchange.requests[seen:] if request.path == ACCOUNT]
        assert [request.status for request in asked] == [400, 200]
    told = "read all the same, by adjusting to the exchange's clock, once per jump"
    note(HOUSE, "the exchange's clock jumps five minutes back, then ten forward", "mixin", told)


def test_a_strategy_that_raises_is_guarded(world: World, drive: Drive) -> None:
    """What freqtrade would take for a yes is refused while the account says no, and only then."""
    driver = drive(strategy=Raising)
    driver.read()
    assert driver.entered()
    answered(status=503, body=b"")(world)
    driver.read()
    driver.clock.pass_by(MAX_AGE + 1)
    assert not driver.entered()
    reason = driver.reason()
    world.heal()
    reads = driver.reads_until_entered()
    told = f"with 503 at the same time: refused, all pairs: {quoted(reason)}; recovered after {reads} read"
    note(HOUSE, "the strategy's own callbacks raise", "mixin", told)


# ----- the command


@pytest.fixture
def command(
    world: World,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    _restored_logging: None,
) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Run `status --json` in a folder of its own."""
    (tmp_path / "user_data").mkdir()
    monkeypatch.chdir(tmp_path)

    def run(pairs: list[str], settings: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        config = config_for(world.exchange, pairs, isolated_margin=settings)
        config["exchange"]["ccxt_config"]["urls"]["api"]["sapi"] = world.sapi
        (tmp_path / "config.json").write_text(json.dumps(config))
        capsys.readouterr()
        status = main(["status", "--json", "-c", "config.json"])
        return status, json.loads(capsys.readouterr().out)

    return run


@pytest.mark.parametrize("row", [row for row in ROWS if row.status], ids=str)
def test_status_says_what_is_wrong(row: FaultRow, world: World, command: Callable[..., Any]) -> None:
    """Exit status 2 and the kind of error where nothing can be read, 1 where a pair is blocked."""
    row.inject(world)
    pairs = [TARGET, OTHER, *(FIELD_PAIRS if row.scope is Scope.FIELDS else ())]
    status, shown = command(pairs, dict(row.settings))
    note(row.group, row.name, "status", _status_cell(row, status, shown))


def _status_cell(row: FaultRow, status: int, shown: dict[str, Any]) -> str:
    if row.scope is Scope.ALL:
        error = shown["error"]
        assert (status, error["kind"]) == (2, row.kind), error
        assert "old" in row.words or re.search(row.words, error["message"]), error
        return f"exit status 2, {error['kind']}: {quoted(error['message'])}"
    told = {
        line["pair"]: "; ".join(line["reasons"]) for line in shown["pairs"] if line["decision"] == "block"
    }
    assert status == (1 if told else 0)
    if row.scope is Scope.NONE:
        assert not told
        reason = "; ".join(shown["pairs"][0]["reasons"])
        return f"exit status 0: {quoted(reason)}"
    assert OTHER not in told
    if row.scope is Scope.FIELDS:
        return f"exit status 1, {len(told)} pairs blocked: {_commonest(told)}"
    assert set(told) == {TARGET}
    assert re.search(row.words, told[TARGET]), told
    return f"exit status 1: {quoted(told[TARGET])}"


# ----- real bots

BOT_PAIRS = ["BTC/USDT", "ETH/USDT"]
BOT_STRATEGY = """
from pathlib import Path
from freqtrade_isolated_margin.binance import adapter, reader
from freqtrade_isolated_margin.guard import monitor

# A test does not wait as long as a bot, neither for an answer nor for the next read.
adapter._TIMEOUT_MS = 1000
monitor._HANGING_SECONDS = 1.5
monitor._LONGEST_BACKOFF = monitor._CREDENTIALS_BACKOFF = 1.0

class KillableReader(reader.Reader):
    def read(self, *args, **kwargs):
        if Path("kill").exists():
            log.info("KILLED")
            raise SystemExit
        return super().read(*args, **kwargs)

from freqtrade_isolated_margin.hosts import wiring
wiring.Reader = KillableReader

def raised(self, *args, **kwargs):
    if Path("raise").exists():
        raise ValueError("raised on purpose")

class Tested(IsolatedMarginMixin, Base, IStrategy):
    process_only_new_candles = True

    def populate_entry_trend(self, dataframe, metadata):
        return dataframe

    def bot_loop_start(self, current_time, **kwargs):
        readers = [t for t in threading.enumerate() if t.name == "isolated-margin-reader"]
        log.info("LOOP with %s readers", len(readers))
        raised(self)

    def confirm_trade_entry(self, **kwargs):
        raised(self)
        return True

    def custom_stake_amount(self, proposed_stake, **kwargs):
        raised(self)
        return proposed_stake

    def check_entry_timeout(self, **kwargs):
        raised(self)
        return False

    adjust_trade_position = raised
"""


@dataclass
class Bot:
    """A bot with one open trade, in `held`, and none in `free`; they take turns."""

    process: FreqtradeProcess
    world: World
    column: str
    held: str = BOT_PAIRS[0]
    free: str = BOT_PAIRS[1]
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def folder(self) -> Path:
        """Where it runs."""
        return self.process.folder

    @property
    def line(self) -> int:
        """How many lines it has printed."""
        return len(self.process.lines)

    def enter(self, pair: str) -> bool:
        """Ask for an entry as FreqUI does; return whether a trade came of it."""
        self.process.api("POST", "forceenter", pair=pair, side="long", ordertype="market")
        return pair in self.open()

    def open(self) -> dict[str, int]:
        """Return the open trades by pair."""
        trades = self.process.api("GET", "status")
        return {trade["pair"]: trade["trade_id"] for trade in trades}

    def leave(self, pair: str) -> None:
        """Force an exit, and wait until the trade is closed."""
        told = self.process.api("POST", "forceexit", tradeid=str(self.open()[pair]), ordertype="market")
        assert "error" not in told, told
        _wait(lambda: pair not in self.open())

    def locks(self) -> dict[str, str]:
        """Return the guard's locks by pair."""
        locks = self.process.api("GET", "locks")["locks"]
        return {
            lock["pair"]: lock["reason"] for lock in locks if lock["reason"].startswith("isolated margin: ")
        }

    def loop(self) -> None:
        """Wait until the bot begins another round."""
        self.process.wait_for("LOOP with", after=self.line)

    def alive(self) -> bool:
        """Whether it runs on, seen by a round of it."""
        self.loop()
        return self.process.process.poll() is None

    def settle(self) -> None:
        """Wait until it is as if there had never been a fault."""
        self.world.heal()
        for pair in BOT_PAIRS:
            self.world.exchange.set_account(pair, WELL)
        seen = _good_reads(self.world.exchange)
        self.world.exchange.wait_for(lambda exchange: _good_reads(exchange) > seen, 60)
        _wait(lambda: not self.locks())

    def recover(self, heal: Callable[[], None] | None = None) -> int:
        """End the fault, let one good answer through at a time, and return after how many it enters."""
        world = self.world
        world.exchange.set_account(self.free, WELL)
        old = list(world.exchange.faults._seen)
        for reads in range(1, 4):
            seen = _good_reads(world.exchange)
            limit = world.exchange.faults.add(Fault(ACCOUNT, skip=1, status=503, body=b""))
            for fault in old:
                world.exchange.faults.remove(fault)
            if reads == 1:
                world.gate.be(Mode.FORWARD)
                if heal:
                    heal()
            world.exchange.wait_for(lambda exchange, seen=seen: _good_reads(exchange) > seen, 60)
            until = time.monotonic() + 2.0
            while time.monotonic() < until:
                if self.enter(self.free):
                    self.held, self.free = self.free, self.held
                    return reads
            old = [limit]
        raise AssertionError(f"no recovery\n{self.process.output[-3000:]}")


@pytest.fixture(scope="module")
def bots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Bot]]:
    """Start a dry run and a bot that is not dry, each on an exchange of its own."""
    with ExitStack() as stack:
        made = []
        for column in ("dry", "live"):
            exchange = stack.enter_context(LocalExchange(scenario="calm", markets=markets(*BOT_PAIRS)))
            for pair in BOT_PAIRS:
                exchange.set_account(pair, WELL)
            gate = Gate(exchange)
            stack.callback(gate.close)
            config = config_for(
                exchange,
                BOT_PAIRS,
                dry_run=column == "dry",
                force_entry_enable=True,
                isolated_margin={"refresh_seconds": 0.5, "max_age_seconds": 2.5},
            )
            config["exchange"]["ccxt_config"]["urls"]["api"] |= {"sapi": gate.sapi}
            process = stack.enter_context(freqtrade(tmp_path_factory.mktemp(column), config, BOT_STRATEGY))
            made.append(Bot(process, World(exchange, gate, BOT_PAIRS[1]), column))
        for bot in made:
            bot.process.wait_for("LOOP with")
            _wait(lambda bot=bot: bot.enter(bot.held))
        yield made


def with_both(bots: list[Bot], story: Callable[[Bot], str], group: str, name: str) -> None:
    """Let the same happen to both bots at once, and note what came of it."""
    with ThreadPoolExecutor(len(bots)) as pool:
        for bot, told in zip(bots, pool.map(story, bots), strict=True):
            note(group, name, bot.column, told)


def _refused(bot: Bot, words: str, line: int, pairs: list[str]) -> list[str]:
    """Check that entries into `pairs` are refused, and everything else goes on; return what was seen."""
    free, held = bot.free, bot.held
    pattern = f"{free} long: block: (.*({words}).*)"
    bot.process.wait_for(pattern, after=line)
    _wait(lambda: set(bot.locks()) == set(pairs))
    lock = bot.locks()[free]
    assert lock.startswith(f"isolated margin: {free} ")
    orders = len(bot.world.exchange.orders)
    assert not bot.enter(free)
    assert len(bot.world.exchange.orders) == orders
    found = [re.search(pattern, text) for text in bot.process.lines[line:]]
    reason = next(match[1] for match in found if match)
    bot.leave(held)
    assert bot.alive()
    scope = "all pairs" if len(pairs) > 1 else "this pair only"
    return [
        f"refused, {scope}: {quoted(reason)}",
        f"locked: “{lock.replace(free, 'PAIR')}”",
        "exits untouched",
        "alive",
    ]


@pytest.mark.parametrize("row", [row for row in ROWS if row.bots], ids=str)
def test_bots_refuse_and_recover(row: FaultRow, bots: list[Bot]) -> None:
    """Both bots enter nothing, sell what they hold, live on, and enter again after a good read."""

    def story(bot: Bot) -> str:
        bot.settle()
        line = bot.line
        bot.world.target = bot.free
        row.inject(bot.world)
        pairs = [bot.free] if row.scope is Scope.ONE else BOT_PAIRS
        told = _refused(bot, row.words, line, pairs)
        reads = bot.recover()
        return "; ".join([*told, f"recovered after {reads} read{'s' * (reads > 1)}"])

    with_both(bots, story, row.group, row.name)


OLD = "the account is \\d+ s old"


def test_bots_survive_a_killed_reader(bots: list[Bot]) -> None:
    """Whoever kills the thread again and again stops entries and nothing else."""

    def story(bot: Bot) -> str:
        bot.settle()
        line = bot.line
        kill = bot.folder / "kill"
        kill.touch()
        bot.process.wait_for("KILLED", after=line)
        bot.process.wait_for("thread that reads the isolated margin accounts has died", after=line)
        told = _refused(bot, OLD, line, BOT_PAIRS)
        reads = bot.recover(kill.unlink)
        return "; ".join([*told, f"recovered after {reads} read"])

    with_both(bots, story, HOUSE, "the thread that reads is killed")


def test_bots_that_were_suspended_do_not_believe_an_old_account(bots: list[Bot]) -> None:
    """SIGSTOP past the limit, and SIGCONT while the exchange does not answer."""

    def story(bot: Bot) -> str:
        bot.settle()
        bot.process.process.send_signal(signal.SIGSTOP)
        line = bot.line
        bot.world.gate.be(Mode.SILENT)
        # Nothing can be waited for: the process stands still, and it is its clock that must run.
        threading.Event().wait(3.0)
        bot.process.process.send_signal(signal.SIGCONT)
        assert not bot.enter(bot.free)
        told = _refused(bot, OLD, line, BOT_PAIRS)
        reads = bot.recover()
        return "; ".join([*told, f"recovered after {reads} read"])

    with_both(bots, story, HOUSE, "the process is suspended past `max_age_seconds`")


def test_bots_that_are_reloaded_in_the_middle_of_a_read(bots: list[Bot]) -> None:
    """The new guard starts from nothing, and the old one's read counts for nothing."""

    def story(bot: Bot) -> str:
        bot.settle()
        line = bot.line
        fault = bot.world.exchange.faults.add(Fault(ACCOUNT, hang=True))
        bot.world.exchange.wait_for(lambda exchange: exchange.faults.hits(fault) > 0, 30)
        bot.process.api("POST", "reload_config")
        line = bot.process.wait_for("Changing state from RELOAD_CONFIG to: RUNNING", after=line)
        assert not bot.enter(bot.free)
        told = _refused(bot, "the account has not been read yet", line, BOT_PAIRS)
        reads = bot.recover()
        bot.settle()
        line = bot.process.wait_for("LOOP with", after=bot.line)
        assert bot.process.lines[line - 1].endswith("LOOP with 1 readers")
        return "; ".join([*told, f"recovered after {reads} read", "one thread reads"])

    with_both(bots, story, HOUSE, "`/reload_config` in the middle of a read")


def test_bots_whose_strategy_raises_are_guarded(bots: list[Bot]) -> None:
    """An exception in a callback is freqtrade's yes, and the guard's no where the account says so."""

    def story(bot: Bot) -> str:
        bot.settle()
        line = bot.line
        (bot.folder / "raise").touch()
        answered(status=503, body=b"")(bot.world)
        bot.process.wait_for("raised on purpose", after=line)
        told = _refused(bot, "HTTP 503", line, BOT_PAIRS)
        reads = bot.recover()
        (bot.folder / "raise").unlink()
        return "; ".join(["with 503 at the same time", *told, f"recovered after {reads} read"])

    with_both(bots, story, HOUSE, "the strategy's own callbacks raise")


def test_bots_whose_disk_is_full_enter_nothing(bots: list[Bot]) -> None:
    """No lock can be stored, and the veto stands; freqtrade itself cannot store an exit then."""

    def story(bot: Bot) -> str:
        bot.settle()
        # freqtrade itself ends where it cannot write, so it shall have nothing to write.
        bot.leave(bot.held)
        bot.loop()
        bot.loop()
        pid, line = bot.process.process.pid, bot.line
        _soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        # Writing beyond it fails as on a full disk.
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))
        answered(status=503, body=b"")(bot.world)
        bot.process.wait_for("Tending the isolated margin locks failed", after=line)
        assert not bot.enter(bot.free)
        orders = len(bot.world.exchange.orders)
        assert not bot.enter(bot.free)
        assert len(bot.world.exchange.orders) == orders
        assert bot.alive()
        reads = bot.recover(lambda: resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard)))
        return (
            f"with 503 at the same time: refused, no lock can be stored; alive; recovered after {reads} read"
        )

    with_both(bots, story, HOUSE, "the disk is full")


# ----- the document


def _document() -> str:
    lines = [
        "# The fault matrix",
        "",
        "What the guard did when this went wrong, as the tests saw it: they fail where it is no longer so,",
        "and `make fault-matrix` writes it anew. Every row is the real adapter over real HTTP, against the",
        "local exchange; the bots are real freqtrade processes, to which the faults happened one after the",
        "other, with shorter limits of time. “–”: not driven there.",
        "",
        "A “read” is one good answer of the account endpoint. “Exits untouched”: a position was sold then.",
        "“N s old”: until then the last good account counts, for `max_age_seconds`. On a full disk freqtrade",
        "itself can store nothing, so no exit is asked for there.",
    ]  # fmt: skip
    groups = list(dict.fromkeys([*(row.group for row in ROWS), HOUSE]))
    for group in groups:
        names = _HOUSE_ROWS if group == HOUSE else [row.name for row in ROWS if row.group == group]
        lines += ["", f"## {group}", "", "| fault | " + " | ".join(COLUMNS.values()) + " |"]
        lines.append("|---" * (len(COLUMNS) + 1) + "|")
        for name in names:
            cells = _observed.get((group, name), {})
            lines.append(f"| {name} | " + " | ".join(cells.get(column, "–") for column in COLUMNS) + " |")
    return "\n".join(lines) + "\n"


def _columns(row: FaultRow) -> int:
    return 1 + row.status + 2 * row.bots


def test_the_document_is_what_was_observed(request: pytest.FixtureRequest) -> None:
    """docs/fault-matrix.md says exactly what this run has seen."""
    module = Path(__file__)
    chosen = [item for item in request.session.items if item.path == module]
    if len(chosen) < _TESTS:
        pytest.skip(f"only {len(chosen)} of the {_TESTS} tests of the matrix were asked for")
    lacking = [str(row) for row in ROWS if len(_observed.get((row.group, row.name), {})) != _columns(row)]
    assert not lacking, "a test of theirs has failed, or ran in another process (xdist needs --dist loadfile)"
    written = _document()
    if os.environ.get(WRITE) == "1":
        DOCUMENT.parent.mkdir(exist_ok=True)
        DOCUMENT.write_text(written)
    committed = DOCUMENT.read_text() if DOCUMENT.exists() else ""
    assert written.splitlines() == committed.splitlines(), "run `make fault-matrix` and look at what changed"


_IN_ROWS = len(ROWS) - len(THREADED) + sum(row.status for row in ROWS) + sum(row.bots for row in ROWS)
_TESTS = _IN_ROWS + 15
