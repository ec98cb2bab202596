"""Several freqtrades on one exchange, with falls, squeezes, faults and `kill -9`, for as long as one likes.

``PYTHONPATH=tests python -m soak.soak --minutes 3 --bots 3 --pairs 100 --speed 20``. Each bot is a real
freqtrade process with an API key of its own, by which the exchange's journal tells what was served to whom.
At the end every entry order in every bot's database is held against the verdicts of the answers that this bot
had been served before it; RSS and threads are compared with those after the warm-up, and the databases,
freqtrade's and the history, are checked.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from support.bot import STRATEGY_HEAD, config_for
from support.commands import without_own_settings

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.account.records import PairAccount, parse_answer
from freqtrade_isolated_margin.account.tiers import Tier, tier_ratios
from freqtrade_isolated_margin.binance.adapter import IsolatedMarginAdapter
from freqtrade_isolated_margin.binance.credentials import Credentials
from freqtrade_isolated_margin.errors import AnswerError
from freqtrade_isolated_margin.history.database import DEFAULT_FILE
from freqtrade_isolated_margin.localexchange import AccountSpec, Fault, LocalExchange, MarketSpec
from freqtrade_isolated_margin.localexchange.paths import Keyframes
from freqtrade_isolated_margin.localexchange.scenarios import Scenario
from freqtrade_isolated_margin.rules.decide import EntryDecision, Reading, decide
from freqtrade_isolated_margin.rules.settings import Settings

ACCOUNT_PATH = "/sapi/v1/margin/isolated/account"
# In seconds; a bot needs some ten until it reads.
LONGEST_START = 60.0
STAKE = 20.0
REFRESH, MAX_AGE = 1.0, 6.0
# The kinds of accounts, by the outcome of a die with ten sides.
_NONE, _WITHOUT_DEBT, _LONGS = 0, 1, range(2, 6)

# What may lie between a verdict and the order in the database: freqtrade fetches tickers between.
ORDER_DELAY = 10.0
# freqtrade cuts the amount to the exchange's step.
CENT = 0.01
# RSS grows while freqtrade's caches and pandas warm up; beyond that this much is taken for flat.
RSS_SHARE, RSS_MB = 0.15, 25.0

STRATEGY = f'''{STRATEGY_HEAD}
class Soaked(IsolatedMarginMixin, Base, IStrategy):
    """Enters whatever it may, and leaves after some seconds, so that entries never end."""

    timeframe = "5m"

    def custom_exit(self, pair, trade, current_time, **kwargs):
        return "enough" if (current_time - trade.open_date_utc).total_seconds() > 12 else None
'''


class Plan(NamedTuple):
    """What is asked for on the command line."""

    minutes: float = 3.0
    bots: int = 3
    pairs: int = 100
    speed: float = 20.0
    kills: int = 3
    seed: int = 1


def names(count: int) -> list[str]:
    """Return pairs of made-up coins."""
    return [f"C{number:03}/USDT" for number in range(count)]


def scenario(pairs: list[str], rnd: random.Random, seconds: float) -> Scenario:
    """Build falls and squeezes without a pause, and accounts that they bring near their limits and back."""
    paths, accounts = {}, {}
    for pair in pairs:
        points, when, factor = [(0.0, 1.0)], 0.0, 1.0
        while when < seconds:
            when += rnd.uniform(60, 400)
            factor = rnd.uniform(0.72, 1.35)
            points.append((when, factor))
        paths[pair] = Keyframes(tuple(points), 0.0005)
        accounts[pair] = _account(rnd)
    return Scenario(
        "soak",
        "falls and squeezes",
        paths=paths,
        default_path=Keyframes(wiggle=0.0005),
        accounts={pair: spec for pair, spec in accounts.items() if spec},
        balances={"USDT": "1000000"},
    )


def _account(rnd: random.Random) -> AccountSpec | None:
    level = rnd.uniform(1.3, 2.6)
    kind = rnd.randrange(10)
    if kind == _NONE:
        return None
    if kind == _WITHOUT_DEBT:
        return AccountSpec(base_free="50", quote_free="1000")
    if kind in _LONGS:
        return AccountSpec(base_free=f"{10 * level:.4f}", quote_borrowed="1000")
    return AccountSpec(quote_free=f"{1000 * level:.4f}", base_borrowed="10")


# ----- faults


def _wrong_level(answer: Any) -> None:
    for row in answer["assets"][::3]:
        row["marginLevel"] = "NaN"


def _doubled(answer: Any) -> None:
    answer["assets"] += answer["assets"][:7]


def _missing(answer: Any) -> None:
    del answer["assets"][::2]


def _contradictory(answer: Any) -> None:
    for row in answer["assets"][::4]:
        row["baseAsset"]["totalAsset"] = "999999"


KINDS: dict[str, dict[str, Any]] = {
    "429": {"status": 429, "code": -1003, "headers": {"Retry-After": "2"}},
    "500": {"status": 500, "body": b"<html>oops</html>"},
    "503": {"code": -1008, "status": 503},
    "-1021": {"code": -1021},
    "-2015": {"code": -2015, "status": 401},
    "empty": {"status": 200, "body": b""},
    "html": {"status": 200, "body": b"<html></html>"},
    "null": {"status": 200, "body": b"null"},
    "reset": {"reset": True},
    "slow": {"delay": 3.0},
    "NaN levels": {"transform": _wrong_level},
    "doubled rows": {"transform": _doubled},
    "missing rows": {"transform": _missing},
    "contradictions": {"transform": _contradictory},
}
OUTAGE = "gone"


class Weather:
    """Faults at random moments, and never for so long that nothing would be entered any more."""

    def __init__(self, exchange: LocalExchange, rnd: random.Random) -> None:
        self.counts: dict[str, int] = {}
        self._exchange, self._rnd = exchange, rnd
        self._fault: Fault | None = None
        self._gone = False
        self._until = time.monotonic() + 5

    def blow(self) -> None:
        """Begin or end a fault where it is time."""
        if time.monotonic() < self._until:
            return
        if self._fault or self._gone:
            self.clear()
            self._until = time.monotonic() + self._rnd.uniform(4, 12)
            return
        kind = self._rnd.choice([*KINDS, OUTAGE])
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self._until = time.monotonic() + self._rnd.uniform(1, 5)
        if kind == OUTAGE:
            self._gone = True
            self._exchange.stop()
        else:
            path = self._rnd.choice([ACCOUNT_PATH, ACCOUNT_PATH, "/sapi/*"])
            if "transform" in KINDS[kind]:
                path = ACCOUNT_PATH
            self._fault = self._exchange.faults.add(Fault(path=path, **KINDS[kind]))

    def clear(self) -> None:
        """End the fault of the moment."""
        if self._fault:
            self._exchange.faults.remove(self._fault)
        if self._gone:
            self._exchange.restart()
        self._fault, self._gone = None, False


# ----- what the exchange has served to a bot, and what it stands for


class Answer(NamedTuple):
    """The verdicts that one answer stands for."""

    served_at: float
    decisions: Mapping[str, EntryDecision]
    whole: bool
    """Whether it was for all accounts."""


class Witness:
    """Judges every answer that was served to one key, by the same rules as the bot."""

    def __init__(self, pairs: list[str], tiers: Mapping[str, tuple[Tier, ...]]) -> None:
        self._pairs = {pair.replace("/", ""): pair for pair in pairs}
        self._tiers = tiers
        self._settings = Settings()
        self.answers: list[Answer] = []

    def take_in(self, served_at: float, params: Mapping[str, str], payload: object) -> None:
        """Judge an answer; one that is no answer says nothing."""
        try:
            rows = parse_answer(payload).rows
        except AnswerError:
            return
        decisions = {}
        for symbol, row in rows.items():
            pair = self._pairs.get(symbol)
            if pair is None:
                continue
            owes = isinstance(row, PairAccount) and row.has_debt
            # Without them a bot goes by the published ratios, which are the same here.
            ratios = tier_ratios(self._tiers[symbol], row.holdings) if owes else None
            reading = Reading(row, tier_ratios=ratios)
            decisions[pair] = decide(pair, Side.LONG, reading, self._settings.rules_for(pair), MAX_AGE)
        self.answers.append(Answer(served_at, decisions, "symbols" not in params))

    def explains(self, pair: str, placed_at: float, value: float) -> bool:
        """Whether one of the answers before an order allowed it, with this stake and not more."""
        oldest = placed_at - MAX_AGE - ORDER_DELAY
        for answer in self.answers:
            decision = answer.decisions.get(pair)
            if oldest <= answer.served_at <= placed_at and decision and not decision.blocks:
                wanted = STAKE * float(decision.factor)
                if wanted * 0.97 - CENT <= value <= wanted + CENT:
                    return True
        return self._is_absent(pair, placed_at, value)

    def _is_absent(self, pair: str, placed_at: float, value: float) -> bool:
        """Whether the pair was said to have no account by name, and stood in no answer for all since then."""
        said: EntryDecision | None = None
        whole_since = False
        for answer in self.answers:
            if answer.served_at > placed_at:
                break
            if pair in answer.decisions:
                said, whole_since = answer.decisions[pair], False
            elif answer.whole and answer.served_at >= placed_at - MAX_AGE - ORDER_DELAY:
                whole_since = True
        return bool(
            said
            and said.rule == "without_account"
            and not said.blocks
            and whole_since
            and value <= STAKE + CENT
        )


# ----- a bot


class Order(NamedTuple):
    """An entry order in freqtrade's database."""

    number: int
    pair: str
    placed_at: float
    value: float


@dataclass
class Figures:
    """What was measured of one bot."""

    memory: list[tuple[float, float]] = field(default_factory=list)
    """Seconds since its start, and MB."""
    threads: list[int] = field(default_factory=list)


class Bot:
    """A freqtrade in a process of its own, which can be killed and started again on the same database."""

    def __init__(self, number: int, folder: Path, exchange: LocalExchange, pairs: list[str]) -> None:
        self.name = f"bot {number}"
        self.folder = folder
        self.key = exchange.add_key()
        self.witness_from = 0
        self.kills = 0
        self.lost: list[str] = []
        self.runs: list[Figures] = []
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "strategies").mkdir(parents=True)
        (folder / "strategies" / "soaked.py").write_text(STRATEGY)
        (folder / "config.json").write_text(json.dumps(self._config(exchange, pairs)))

    def _config(self, exchange: LocalExchange, pairs: list[str]) -> dict[str, Any]:
        pricing = {"price_side": "other", "use_order_book": False}
        config = config_for(
            exchange,
            pairs,
            strategy="Soaked",
            db_url=f"sqlite:///{self.database}",
            dry_run_wallet=1_000_000,
            stake_amount=STAKE,
            max_open_trades=len(pairs),
            entry_pricing=pricing,
            exit_pricing=pricing,
            isolated_margin={"refresh_seconds": REFRESH, "max_age_seconds": MAX_AGE},
            internals={"process_throttle_secs": 2},
        )
        config["exchange"] |= {"key": self.key.key, "secret": self.key.secret}
        config["exchange"]["ccxt_config"]["rateLimit"] = 5
        return config

    @property
    def database(self) -> Path:
        """Where freqtrade keeps its trades."""
        return self.folder / "trades.sqlite"

    @property
    def history(self) -> Path:
        """Where the guard keeps the accounts."""
        return self.folder / DEFAULT_FILE

    def start(self) -> None:
        """Start the process."""
        with (self.folder / "freqtrade.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "freqtrade", "trade", "-c", "config.json", "--userdir", "."],
                cwd=self.folder, env=without_own_settings(), start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self.started = time.monotonic()
        self.runs.append(Figures())

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def measure(self) -> None:
        """Note memory and threads."""
        # A process that has just ended has no figures.
        with suppress(OSError, KeyError, AttributeError):
            lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()  # type: ignore[union-attr]
            found = {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}
            self.runs[-1].memory.append((time.monotonic() - self.started, int(found["VmRSS"][0]) / 1024))
            self.runs[-1].threads.append(int(found["Threads"][0]))

    def kill(self) -> None:
        """End it as a power cut would, and see that nothing that had been committed is gone."""
        before = self.snapshot()
        if self.process:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.kills += 1
        after = self.snapshot()
        for table, rows in before.items():
            gone = rows - after[table]
            if gone:
                self.lost.append(f"{len(gone)} rows of {table}")

    def snapshot(self) -> dict[str, set[int]]:
        """Return what is committed now: trades, orders and locks, reads and decisions."""
        tables = dict.fromkeys(("trades", "orders", "pairlocks"), self.database)
        tables |= dict.fromkeys(("margin_reads", "margin_decisions"), self.history)
        return {
            table: {row[0] for row in self.rows(f"SELECT id FROM {table}", database)}
            for table, database in tables.items()
        }

    def rows(self, query: str, database: Path | None = None) -> list[Any]:
        """Ask one of its databases, by default freqtrade's; nothing where there is none yet."""
        database = database or self.database
        if not database.exists():
            return []
        # Not read-only: after a kill SQLite has to undo what was not committed.
        with closing(sqlite3.connect(f"file:{database}?mode=rw", uri=True, timeout=20)) as connection:
            try:
                return connection.execute(query).fetchall()
            except sqlite3.OperationalError:
                return []

    def orders(self) -> list[Order]:
        """Return every entry order."""
        found = self.rows(
            "SELECT id, ft_pair, order_date, amount * price FROM orders WHERE ft_order_side = 'buy'"
        )
        return [
            Order(number, pair, datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp(), float(value))
            for number, pair, date, value in found
        ]

    def soundness(self) -> str:
        """Return what SQLite says of the databases."""
        for database in (self.database, self.history):
            with closing(sqlite3.connect(database, timeout=20)) as connection:
                said = str(connection.execute("PRAGMA integrity_check").fetchone()[0])
            if said != "ok":
                return f"{database.name}: {said}"
        return "ok"

    def stop(self) -> None:
        """End it in good order."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if self.process is None or self.process.poll() is not None:
                return
            self.process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(30)


# ----- the run


@dataclass
class Result:
    """What has come of a soak: the figures, and everything that is wrong."""

    table: Table
    wrong: list[str]
    entries: int
    answers: int
    guarded_after_kill: int


class Soak:
    """One run."""

    def __init__(self, plan: Plan, folder: Path, say: Callable[[str], None]) -> None:
        self.plan, self.folder, self.say = plan, folder, say
        self.rnd = random.Random(plan.seed)
        self.pairs = names(plan.pairs)
        self.wrong: list[str] = []
        self.restarts: list[tuple[Bot, float]] = []
        self._seen: deque[Any] = deque(maxlen=1)

    def run(self) -> Result:
        """Do it all."""
        plan = self.plan
        story = scenario(self.pairs, random.Random(plan.seed), (plan.minutes + 5) * 60 * plan.speed)
        markets = [MarketSpec(pair, price="100", max_leverage=5, min_notional="1") for pair in self.pairs]
        with (
            LocalExchange(scenario=story, markets=markets, speed=plan.speed) as exchange,
            ExitStack() as stack,
        ):
            # At this speed freqtrade's own requests would fill a minute in seconds, and a start ends of it.
            exchange.weights.api_limit *= 10 * plan.bots
            tiers = _tiers(exchange, self.pairs)
            self.bots = [
                Bot(n, self.folder / f"bot{n}", exchange, self.pairs) for n in range(1, plan.bots + 1)
            ]
            self.witnesses = {bot.key.key: Witness(self.pairs, tiers) for bot in self.bots}
            for bot in self.bots:
                stack.callback(bot.stop)
                bot.start()
            self._await_reads(exchange)
            exchange.start_scenario()
            weather = Weather(exchange, self.rnd)
            self._soak(exchange, weather)
            weather.clear()
            for bot in self.bots:
                if not bot.is_alive:
                    self.wrong.append(f"{bot.name} has ended by itself: see its log")
            stack.close()
            self._look(exchange)
            return self._report(weather)

    def _await_reads(self, exchange: LocalExchange) -> None:
        end = time.monotonic() + 120
        while time.monotonic() < end and any(bot.is_alive for bot in self.bots):
            self._look(exchange)
            if all(witness.answers for witness in self.witnesses.values()):
                return
            time.sleep(0.5)
        raise RuntimeError("the bots do not begin to read; the end of a log:\n" + self._tail())

    def _tail(self) -> str:
        return "\n".join(
            (self.bots[0].folder / "freqtrade.log").read_text(errors="replace").splitlines()[-30:]
        )

    def _soak(self, exchange: LocalExchange, weather: Weather) -> None:
        begun = time.monotonic()
        seconds = self.plan.minutes * 60
        # Not in the last third, so that what was started again has time to show what it does.
        moments = sorted(self.rnd.uniform(0.15, 0.6) * seconds for _ in range(self.plan.kills))
        told = 0.0
        while (passed := time.monotonic() - begun) < seconds:
            if not self._starting():
                weather.blow()
            self._look(exchange)
            for bot in self.bots:
                bot.measure()
            if moments and passed > moments[0]:
                moments.pop(0)
                weather.clear()
                self._kill(self.rnd.choice(self.bots))
            if passed - told > 60:
                told = passed
                self.say(f"{passed:.0f} s: {sum(len(bot.orders()) for bot in self.bots)} entries so far")
            time.sleep(0.5)

    def _kill(self, bot: Bot) -> None:
        bot.kill()
        self.say(f"{bot.name} killed and started again")
        self.restarts.append((bot, time.time()))
        bot.start()

    def _starting(self) -> bool:
        """Whether a bot was started again and has not read yet: freqtrade itself ends of a fault then."""
        return any(
            time.time() < when + LONGEST_START and not self._answers_since(bot, when)
            for bot, when in self.restarts
        )

    def _answers_since(self, bot: Bot, when: float) -> list[Answer]:
        return [answer for answer in self.witnesses[bot.key.key].answers if answer.served_at > when]

    def _look(self, exchange: LocalExchange) -> None:
        """Take in what was served since the last look; the journal keeps the last 100,000 requests only."""
        state = exchange.state
        with state.changed:
            fresh = []
            for record in reversed(state.records):
                if self._seen and record is self._seen[0]:
                    break
                fresh.append(record)
            if fresh:
                self._seen.append(fresh[0])
        for record in reversed(fresh):
            witness = self.witnesses.get(record.key or "")
            if witness and record.path == ACCOUNT_PATH and record.status:
                witness.take_in(record.wall, record.params, record.answer)

    # The report.

    def _report(self, weather: Weather) -> Result:
        table = Table(title="Soak", title_justify="left")
        for name in (
            "",
            "entries",
            "wrong",
            "answers",
            "RSS MB warm → end",
            "threads",
            "kills",
            "stored reads",
            "databases",
        ):
            table.add_column(name, no_wrap=True)
        entries = answers = 0
        for bot in self.bots:
            witness, orders = self.witnesses[bot.key.key], bot.orders()
            bad = [
                order for order in orders if not witness.explains(order.pair, order.placed_at, order.value)
            ]
            self.wrong += [
                f"{bot.name}: {order} is against every verdict that it was served" for order in bad
            ]
            self.wrong += [f"{bot.name}: lost after a kill: {lost}" for lost in bot.lost]
            sound = bot.soundness()
            if sound != "ok":
                self.wrong.append(f"{bot.name}: its database: {sound}")
            memory, threads = self._flatness(bot)
            entries, answers = entries + len(orders), answers + len(witness.answers)
            reads = bot.rows("SELECT count(*) FROM margin_reads", bot.history)
            stored = reads[0][0] if reads else 0
            if not stored:
                self.wrong.append(f"{bot.name}: its history has no read")
            row = (len(orders), len(bad), len(witness.answers), memory, threads, bot.kills, stored, sound)
            table.add_row(bot.name, *map(str, row))
        table.caption = "faults: " + ", ".join(f"{kind} {n}" for kind, n in sorted(weather.counts.items()))
        return Result(table, self.wrong, entries, answers, self._guarded())

    def _flatness(self, bot: Bot) -> tuple[str, str]:
        """Compare the second half of each run that was long enough with its warm first part."""
        shown = ("–", "–")
        for figures in bot.runs:
            if len(figures.memory) < 40:
                continue
            third = len(figures.memory) // 3
            warm = sorted(mb for _, mb in figures.memory[third : 2 * third])[-third // 10 - 1]
            end = sorted(mb for _, mb in figures.memory[2 * third :])[len(figures.memory[2 * third :]) // 2]
            most, last = max(figures.threads[third : 2 * third]), max(figures.threads[2 * third :])
            shown = (f"{warm:.0f} → {end:.0f}", f"{most} → {last}")
            if end > warm * (1 + RSS_SHARE) + RSS_MB:
                self.wrong.append(f"{bot.name}: memory grows, from {warm:.0f} to {end:.0f} MB")
            # A read that hangs is given up for another thread, three times at the most.
            if last > most + 3:
                self.wrong.append(f"{bot.name}: threads grow, from {most} to {last}")
        return shown

    def _guarded(self) -> int:
        """Count the killed bots that read, and entered or refused by it, after their restart."""
        guarded = 0
        for bot, when in self.restarts:
            if self._answers_since(bot, when):
                guarded += 1
            else:
                self.wrong.append(f"{bot.name}: has read nothing after it was started again")
        return guarded


def _tiers(exchange: LocalExchange, pairs: list[str]) -> dict[str, tuple[Tier, ...]]:
    section = {"ccxt_config": {"rateLimit": 1, "urls": {"api": exchange.ccxt_urls}}}
    adapter = IsolatedMarginAdapter(
        Credentials(exchange.key, exchange.secret, "the local exchange"), exchange=section
    )
    try:
        adapter.load_markets()
        return {pair.replace("/", ""): adapter.fetch_tiers(pair.replace("/", "")) for pair in pairs}
    finally:
        adapter.close()


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep:
        keep.mkdir(parents=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="isolated-margin-soak-") as name:
        yield Path(name)


def soak(plan: Plan, keep: Path | None = None, say: Callable[[str], None] = print) -> Result:
    """Run a soak; return its figures and what is wrong. `keep` is a new folder for what the bots write."""
    with _folder(keep) as folder:
        return Soak(plan, folder, say).run()


def main() -> int:
    """Run a soak from the command line; 0 only if nothing is wrong."""
    parser = argparse.ArgumentParser(
        description="Several freqtrades on one exchange, with faults and kill -9."
    )
    for name, value in Plan()._asdict().items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    parser.add_argument("--keep", type=Path, help="a new folder for logs and databases, kept")
    arguments = vars(parser.parse_args())
    keep = arguments.pop("keep")
    console = Console(width=None if sys.stdout.isatty() else 150)
    # Whoever ends it with a signal gets the same clean end as with Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    begun = time.monotonic()
    result = soak(Plan(**arguments), keep, lambda line: console.print(line, markup=False))
    console.print(result.table)
    for problem in result.wrong:
        console.print(problem, style="bold red", markup=False, soft_wrap=True)
    console.print(
        f"{result.entries} entries by {result.answers} answers in {time.monotonic() - begun:.0f} s; "
        f"{len(result.wrong)} against the rules or otherwise wrong; "
        f"{result.guarded_after_kill} restarts guarded again."
    )
    return 1 if result.wrong or not result.entries else 0


if __name__ == "__main__":
    sys.exit(main())
