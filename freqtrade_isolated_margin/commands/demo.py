"""`freqtrade-isolated-margin demo`: a real freqtrade trades in dry-run, guarded, against the look-alike.

What it shows is taken from the answers that the bot's guard was served, and from freqtrade's own database
and REST API; at the end the two are compared, order by order.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import requests
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from freqtrade_isolated_margin.account.maths import ONE, Side
from freqtrade_isolated_margin.account.records import PairAccount, parse_answer
from freqtrade_isolated_margin.account.tiers import Tier, tier_ratios
from freqtrade_isolated_margin.binance.adapter import IsolatedMarginAdapter
from freqtrade_isolated_margin.binance.credentials import Credentials
from freqtrade_isolated_margin.commands.demo_bot import Bot, end_on_a_signal, running
from freqtrade_isolated_margin.commands.terminal import output
from freqtrade_isolated_margin.errors import IsolatedMarginError
from freqtrade_isolated_margin.localexchange import LocalExchange
from freqtrade_isolated_margin.rules.decide import EntryDecision, Outcome, Reading, decide, plain
from freqtrade_isolated_margin.rules.settings import SECTION, Settings

ACCOUNT_PATH = "/sapi/v1/margin/isolated/account"
# How long the bot may take from its start to its first look at the accounts.
_PATIENCE = 120.0
_STYLES = {Outcome.ALLOW: "green", Outcome.SHRINK: "yellow", Outcome.BLOCK: "bold red"}
# A verdict counts as settled, for locks, once this many answers in a row have given it.
_SETTLED = 3
_LOCK_SECONDS = 10.0


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; 0 only if freqtrade did what the verdicts said."""
    console = output()
    user_data = Path(arguments.userdir)
    config_file = user_data / "config.json"
    if not config_file.is_file():
        console.print(
            f"There is no {config_file}: run the demo in a clone of the project, or give --userdir."
        )
        return 2
    if arguments.write:
        from freqtrade_isolated_margin.commands.demo_day import write_day  # noqa: PLC0415 - the demo itself needs none of freqtrade's

        return write_day(console, user_data, Path(arguments.write))
    end_on_a_signal()
    with tempfile.TemporaryDirectory(prefix="isolated-margin-demo-") as folder:
        return _play(console, config_file, Path(folder), arguments.seconds)


def _play(console: Console, config_file: Path, folder: Path, seconds: float) -> int:
    settings_config = json.loads(config_file.read_text(encoding="utf-8"))
    settings = Settings.load(settings_config.get(SECTION))
    with LocalExchange(scenario="fall") as exchange:
        watcher = Watcher(exchange, settings)
        words = ["--config", str(config_file), "--userdir", str(config_file.parent)]
        with running(words, folder, exchange) as bot:
            console.print(f"Local exchange on {exchange.url}; freqtrade is starting (pid {bot.pid}) …")
            if not _await_first_read(exchange, bot):
                console.print("freqtrade did not start. The end of its log:", style="bold red")
                console.print(bot.log_tail(), markup=False)
                return 1
            exchange.start_scenario()
            _watch(console, watcher, bot, seconds)
            lock_problems = _compare_locks(watcher, bot)
        watcher.look()
        stake = float(settings_config["stake_amount"])
        return _report(console, watcher, orders_of(bot), lock_problems, stake)


# ----- freqtrade's orders


class Order(NamedTuple):
    """An entry order in freqtrade's database."""

    pair: str
    placed_at: float
    """UNIX time."""
    value: float
    """What was asked for, in quote currency."""


def orders_of(bot: Bot) -> list[Order]:
    """Return every entry order in its database, in the order in which they were placed."""
    query = "SELECT ft_pair, order_date, amount, price FROM orders WHERE ft_order_side = 'buy' ORDER BY id"
    return [
        Order(pair, _timestamp(date), float(amount) * float(price))
        for pair, date, amount, price in bot.rows(query)
    ]


def _timestamp(date: str) -> float:
    return datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp()


def _await_first_read(exchange: LocalExchange, bot: Bot) -> bool:
    def has_read(exchange: LocalExchange) -> bool:
        read = any(request.path == ACCOUNT_PATH for request in exchange.requests)
        return read or bot.process.poll() is not None

    with suppress(TimeoutError):
        exchange.wait_for(has_read, _PATIENCE)
        return bot.process.poll() is None
    return False


# ----- verdicts, from what the guard was served


class Verdicts(NamedTuple):
    """The verdicts that one answer of the exchange stands for."""

    served_at: float
    decisions: Mapping[str, EntryDecision]


class Watcher:
    """Follows the answers that the bot's guard is served, and judges them by the same rules."""

    def __init__(self, exchange: LocalExchange, settings: Settings) -> None:
        self.settings = settings
        self.history: list[Verdicts] = []
        self._exchange = exchange
        self._seen = 0
        self._tiers: dict[str, tuple[Tier, ...]] = {}
        section = {"ccxt_config": {"urls": {"api": exchange.ccxt_urls}}}
        credentials = Credentials(exchange.key, exchange.secret, "the local exchange")
        self._adapter = IsolatedMarginAdapter(credentials, exchange=section)
        self._adapter.load_markets()
        self._pairs = self._adapter.pairs()

    def look(self) -> None:
        """Take in what was served since the last look."""
        served = self._exchange.requests
        for request in served[self._seen :]:
            if request.path == ACCOUNT_PATH and request.answer:
                self.history.append(Verdicts(request.wall, self._judge(request.answer)))
        self._seen = len(served)

    def _judge(self, answer: object) -> dict[str, EntryDecision]:
        decisions = {}
        for symbol, row in parse_answer(answer).rows.items():
            pair = self._pairs[symbol]
            ratios = None
            if isinstance(row, PairAccount) and row.has_debt:
                ratios = tier_ratios(self._tiers_of(symbol), row.holdings)
            reading = Reading(row, tier_ratios=ratios)
            rules = self.settings.rules_for(pair)
            decisions[pair] = decide(pair, Side.LONG, reading, rules, float(self.settings.max_age_seconds))
        # An answer by name has only some pairs, the placeholders among them: the others stand as they were.
        known = self.history[-1].decisions if self.history else {}
        return {**known, **decisions}

    def _tiers_of(self, symbol: str) -> tuple[Tier, ...]:
        if symbol not in self._tiers:
            try:
                self._tiers[symbol] = self._adapter.fetch_tiers(symbol)
            except IsolatedMarginError:
                self._tiers[symbol] = ()
        return self._tiers[symbol]

    def verdicts_at(self, moment: float) -> list[Mapping[str, EntryDecision]]:
        """Return what the bot can have known at `moment`: the answers of the last two refreshes."""
        longest = 2 * float(self.settings.refresh_seconds) + 1
        return [
            verdicts.decisions
            for verdicts in self.history
            if moment - longest <= verdicts.served_at <= moment
        ]


# ----- the live table


def _watch(console: Console, watcher: Watcher, bot: Bot, seconds: float) -> None:
    end = time.monotonic() + seconds
    told: dict[str, Outcome] = {}
    placed = 0
    locks: set[str] = set()
    with Live(console=console, refresh_per_second=4, transient=False) as live:
        while (left := end - time.monotonic()) > 0 and bot.process.poll() is None:
            watcher.look()
            orders = orders_of(bot)
            if console.is_terminal:
                with suppress(requests.RequestException):
                    locks = bot.locks()
                live.update(_picture(watcher, orders, locks, left))
            else:
                # A log has no use for pictures: one line for each thing that happens.
                for decision in watcher.history[-1].decisions.values():
                    if told.get(decision.pair) is not decision.outcome:
                        told[decision.pair] = decision.outcome
                        console.print(str(decision), markup=False, highlight=False, soft_wrap=True)
                for order in orders[placed:]:
                    console.print(f"{order.pair}: freqtrade buys for {order.value:.2f} USDT", highlight=False)
                placed = len(orders)
            time.sleep(0.5)


def _picture(watcher: Watcher, orders: list[Order], locks: set[str], left: float) -> Group:
    table = Table(title="Isolated margin accounts and what freqtrade does with them", title_justify="left")
    table.add_column("Pair", no_wrap=True)
    for name in ("Level", "Distance"):
        table.add_column(name, justify="right", no_wrap=True, min_width=8)
    table.add_column("Entries", no_wrap=True, min_width=16)
    table.add_column("What freqtrade did last", no_wrap=True, min_width=34)
    table.add_column("Why", ratio=1)
    newest = {order.pair: order for order in orders}
    for pair, decision in watcher.history[-1].decisions.items():
        table.add_row(*_cells(decision, newest.get(pair), locked=pair in locks))
    return Group(table, Text(f"{left:3.0f} s left; Ctrl-C ends it", style="dim"))


def _cells(decision: EntryDecision, order: Order | None, *, locked: bool) -> list[str]:
    level, room = decision.margin_level, decision.liquidation_distance
    share = f" × {plain(decision.factor, 2)}" if decision.outcome is Outcome.SHRINK else ""
    did = "nothing yet"
    if locked:
        did = "locked, no entry"
    elif order:
        did = f"bought for {order.value:6.2f} USDT, {time.time() - order.placed_at:2.0f} s ago"
    return [
        decision.pair,
        "–" if level is None else plain(level, 3),
        "–" if room is None else f"{plain(room * 100, 1)} %",
        f"[{_STYLES[decision.outcome]}]{decision.outcome}{share}[/]",
        did,
        decision.reasons[0],
    ]


# ----- the comparison at the end


@dataclass
class Tally:
    """What became of one pair's entries."""

    full: int = 0
    shrunk: int = 0
    wrong: list[str] = field(default_factory=list)


def _report(
    console: Console, watcher: Watcher, orders: list[Order], lock_problems: list[str], stake: float
) -> int:
    tallies = {pair: Tally() for pair in watcher.history[-1].decisions}
    for order in orders:
        _compare(order, watcher, stake, tallies[order.pair])
    _print_summary(console, watcher, tallies)
    wrong = [problem for tally in tallies.values() for problem in tally.wrong] + lock_problems
    missing = _not_shown(watcher, tallies)
    for problem in wrong + missing:
        console.print(problem, style="bold red", markup=False)
    if not wrong and not missing:
        said = f"All {len(orders)} entries of freqtrade are what the verdicts said, and so are its locks."
        console.print(said, style="bold green")
    return 1 if wrong or missing else 0


def _compare(order: Order, watcher: Watcher, stake: float, tally: Tally) -> None:
    """Count the order as what one of the verdicts of its moment makes of the stake, or as wrong."""
    moments = watcher.verdicts_at(order.placed_at)
    known = [decisions[order.pair] for decisions in moments if order.pair in decisions]
    allowed = [decision for decision in known if not decision.blocks]
    for decision in allowed:
        expected = stake * float(decision.factor)
        # freqtrade cuts the amount to the exchange's step: less than 1 % of these stakes.
        if expected * 0.99 - 0.01 <= order.value <= expected + 0.01:
            if decision.factor == ONE:
                tally.full += 1
            else:
                tally.shrunk += 1
            return
    shares = ", ".join(f"{stake * float(decision.factor):.2f}" for decision in known) or "none"
    tally.wrong.append(
        f"{order.pair}: freqtrade bought for {order.value:.2f} USDT, the verdicts said {shares}"
    )


def _compare_locks(watcher: Watcher, bot: Bot) -> list[str]:
    """Compare the guard's locks, as freqtrade's API tells them, with settled verdicts; return what is wrong.

    Locks end with their candle and are renewed in the bot's next loop, so a difference gets some time.
    """
    end = time.monotonic() + _LOCK_SECONDS
    while True:
        watcher.look()
        problems = list(_lock_problems(watcher.history[-_SETTLED:], bot.locks()))
        if not problems or time.monotonic() > end:
            return problems
        time.sleep(0.5)


def _lock_problems(settled: list[Verdicts], locks: set[str]) -> Iterator[str]:
    for pair in settled[-1].decisions:
        blocked = {verdicts.decisions[pair].blocks for verdicts in settled if pair in verdicts.decisions}
        if blocked == {True} and pair not in locks:
            yield f"{pair}: blocked, but freqtrade's API shows no lock"
        if blocked == {False} and pair in locks:
            yield f"{pair}: not blocked, but freqtrade's API still shows a lock of the guard"


def _not_shown(watcher: Watcher, tallies: Mapping[str, Tally]) -> list[str]:
    """Say what the demo should have shown and did not: an empty run must not pass for a good one."""
    seen: dict[str, list[Outcome]] = {pair: [] for pair in tallies}
    for verdicts in watcher.history:
        for pair, decision in verdicts.decisions.items():
            if seen[pair][-1:] != [decision.outcome]:
                seen[pair].append(decision.outcome)
    checks = {
        "no pair was entered in full": any(tally.full for tally in tallies.values()),
        "no entry was shrunk": any(tally.shrunk for tally in tallies.values()),
        "no pair was ever blocked": any(Outcome.BLOCK in outcomes for outcomes in seen.values()),
        "no verdict ever changed": any(len(outcomes) > 1 for outcomes in seen.values()),
    }
    return [problem for problem, shown in checks.items() if not shown]


def _print_summary(console: Console, watcher: Watcher, tallies: Mapping[str, Tally]) -> None:
    table = Table(title="Summary", title_justify="left")
    table.add_column("Pair", no_wrap=True)
    for name in ("in full", "shrunk", "wrong"):
        table.add_column(name, justify="right")
    table.add_column("Verdicts, one after the other")
    for pair, tally in tallies.items():
        outcomes: list[Outcome] = []
        for verdicts in watcher.history:
            decision = verdicts.decisions.get(pair)
            if decision and outcomes[-1:] != [decision.outcome]:
                outcomes.append(decision.outcome)
        path = " → ".join(f"[{_STYLES[outcome]}]{outcome}[/]" for outcome in outcomes)
        table.add_row(pair, str(tally.full), str(tally.shrunk), str(len(tally.wrong)), path)
    console.print(table)
