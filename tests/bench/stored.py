"""The history: how fast it is written, what a day of it takes, and how long a week takes to plot.

The days are made up: 20 pairs whose prices walk, so that every row of every read is another, with all of
Binance's eight decimals. They go through the recorder as a bot's reads and decisions do.
"""

from __future__ import annotations

import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.account.records import Row, parse_answer
from freqtrade_isolated_margin.binance.clock import Moment
from freqtrade_isolated_margin.binance.reader import Snapshot
from freqtrade_isolated_margin.history.asking import History
from freqtrade_isolated_margin.history.database import DEFAULT_FILE
from freqtrade_isolated_margin.history.recorder import Recorder
from freqtrade_isolated_margin.history.writing import NewDecision, NewRead, Writer
from freqtrade_isolated_margin.rules.decide import Reading, decide
from freqtrade_isolated_margin.rules.settings import Settings

from .exchange import configure, exchange, strategies
from .measure import Figure, alternately, figure, run

PAIRS = 20
START = 1_767_225_600
"""The first day is 2026-01-01 UTC."""
DAY = 86_400
_KEY = "0a1b2c3d"
_SATOSHI = Decimal("1e-8")
_RATIO = Decimal("1.1")
_MEGABYTE = 1e6
_MOST_MEGABYTES = 20.0
_WEEK = 7
# What the recorder holds at most is more than this.
_AHEAD = 20


def names(count: int = PAIRS) -> list[str]:
    """Return the pairs of the made-up days."""
    return [f"A{number}/USDT" for number in range(count)]


def _plain(value: Decimal) -> str:
    text = f"{value.quantize(_SATOSHI):f}".rstrip("0").rstrip(".")
    return "0" if text in {"", "-0"} else text


def _asset(name: str, total: Decimal, debt: Decimal, in_btc: Decimal) -> dict[str, Any]:
    amounts = {"free": total, "locked": Decimal(0), "borrowed": debt, "interest": Decimal(0)}
    nets = {"netAsset": total - debt, "netAssetOfBtc": (total - debt) * in_btc, "totalAsset": total}
    return {
        "asset": name,
        "borrowEnabled": True,
        "repayEnabled": True,
        **{field: _plain(value) for field, value in (amounts | nets).items()},
    }


class Day:
    """Twenty pairs' accounts: half long, three of ten short, two of ten without debt."""

    def __init__(self, pairs: Sequence[str], *, bad: bool) -> None:
        self._rnd = Random(1)
        self._level = Decimal("1.6") if bad else Decimal(3)
        self._pairs = pairs
        self._starts = [Decimal(self._rnd.randrange(10**7, 10**12)).scaleb(-8) for _ in pairs]
        self._factors = [1.0] * len(pairs)
        self._btc = 65_000.0

    def rows(self) -> dict[str, Row]:
        """Return the accounts a moment later."""
        self._btc *= 1 + self._rnd.gauss(0, 1e-4)
        answer = [self._row(number) for number in range(len(self._pairs))]
        return dict(zip(self._pairs, parse_answer({"assets": answer}).rows.values(), strict=True))

    def _row(self, number: int) -> dict[str, Any]:
        # Back to where it began, or some would be liquidated by the evening.
        factor = self._factors[number]
        self._factors[number] = factor = factor * (1 + self._rnd.gauss(0, 2e-4)) + 1e-3 * (1 - factor)
        start = self._starts[number]
        price = (start * Decimal(repr(factor))).quantize(_SATOSHI)
        zero, worth, amount = Decimal(0), Decimal(1000), (Decimal(1000) / start).quantize(_SATOSHI)
        base, base_debt, quote, quote_debt = {
            "L": ((self._level * worth / start).quantize(_SATOSHI), zero, zero, worth),
            "S": (zero, amount, self._level * worth, zero),
            "-": (amount, zero, worth, zero),
        }["LLLLLSSS--"[number % 10]]
        debt = base_debt * price + quote_debt
        liquidated = (_RATIO * quote_debt - quote) / (base - _RATIO * base_debt) if debt else zero
        btc = Decimal(repr(self._btc))
        name = self._pairs[number].partition("/")[0]
        return {
            "baseAsset": _asset(name, base, base_debt, price / btc),
            "quoteAsset": _asset("USDT", quote, quote_debt, 1 / btc),
            "symbol": f"{name}USDT",
            "isolatedCreated": True,
            "enabled": True,
            "tradeEnabled": True,
            "marginLevel": _plain((base * price + quote) / debt) if debt else "999",
            "marginLevelStatus": "NORMAL" if debt else "EXCESSIVE",
            "marginRatio": "5",
            "indexPrice": _plain(price),
            "liquidatePrice": _plain(liquidated),
            "liquidateRate": _plain((liquidated / price - 1) * 100) if debt else "0",
        }


class _Counted(Writer):
    """A writer that counts what it stores, and the processor time that it takes."""

    seconds, reads, rows = 0.0, 0, 0
    stored = threading.Condition()

    def write(
        self, reads: Sequence[NewRead], decisions: Sequence[NewDecision] = (), trouble: str | None = None
    ) -> frozenset[str]:
        started = time.thread_time()
        wanted = super().write(reads, decisions, trouble)
        with self.stored:
            self.seconds += time.thread_time() - started
            self.reads += len(reads)
            self.rows += sum(len(read.rows) + 1 for read in reads) + len(decisions)
            self.stored.notify_all()
        return wanted


class _History(History):
    writer_: _Counted | None = None

    def writer(self, key: str, bot: str) -> Writer:
        self.writer_ = _Counted(self._engine, key, bot)
        return self.writer_


def write_day(file: Path, seconds: int = DAY, *, bad: bool) -> tuple[int, float]:
    """Store a day through a recorder; return the rows and the processor seconds of storing them."""
    settings, pairs = Settings(), names()
    step = round(settings.refresh_seconds)
    history = _History(f"sqlite:///{file}")
    recorder = Recorder(history, _KEY, "bot", 3650)
    recorder.start()
    day = Day(pairs, bad=bad)
    rules = settings.rules_for(pairs[0])
    for number in range(seconds // step):
        at = START + number * step
        rows = day.rows()
        recorder.succeeded(Snapshot(Moment(time.monotonic(), at), rows, {}))
        for pair in pairs:
            decision = decide(pair, Side.LONG, Reading(rows[pair]), rules, 60.0)
            recorder.decided(decision, at * 1000 + 900)
        while not _has_stored(history, number - _AHEAD):
            pass
    recorder.stop(60)
    writer = history.writer_
    if writer is None or writer.reads != seconds // step:
        raise RuntimeError("the recorder has not stored everything")
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return writer.rows, writer.seconds


def _has_stored(history: _History, reads: int) -> bool:
    if reads <= 0:
        return True
    with _Counted.stored:
        found = history.writer_
        return (found is not None and found.reads >= reads) or _Counted.stored.wait(0.01)


def lengthen(file: Path, days: int, day: int = DAY) -> None:
    """Make so many days of one, each the same as the first: to write them singly would take minutes."""
    with closing(sqlite3.connect(file)) as database, database:
        (reads,) = database.execute("SELECT max(id) FROM margin_reads").fetchone()
        for number in range(1, days):
            by = number * day * 1000
            database.execute(
                "INSERT INTO margin_reads SELECT id + ?, session_id, read_at + ?, database_clock + ? "
                "FROM margin_reads WHERE id <= ?",
                (number * reads, by, by, reads),
            )
            database.execute(
                "INSERT INTO margin_accounts SELECT read_id + ?, pair_id, content_id, index_price, "
                "margin_level, liquidate_price, liquidate_rate, base_net_of_btc, quote_net_of_btc "
                "FROM margin_accounts WHERE read_id <= ?",
                (number * reads, reads),
            )
            database.execute(
                "INSERT INTO margin_decisions "
                "(session_id, pair_id, at, side, outcome, factor, rule, reasons) "
                "SELECT session_id, pair_id, at + ?, side, outcome, factor, rule, reasons "
                "FROM margin_decisions WHERE at < ?",
                (by, (START + day) * 1000),
            )


def _spent_on(file: Path) -> str:
    """Return which tables the bytes are of."""
    with closing(sqlite3.connect(file)) as database, suppress(sqlite3.OperationalError):
        sizes = dict(
            database.execute(
                "SELECT CASE WHEN name LIKE 'margin_decisions%' THEN 'decisions' "
                "WHEN name = 'margin_accounts' THEN 'accounts' ELSE 'the rest' END, sum(pgsize) "
                "FROM dbstat GROUP BY 1"
            ).fetchall()
        )
        return "; ".join(f"{name} {size / _MEGABYTE:.1f} MB" for name, size in sizes.items())
    return ""


def history(seconds: int = DAY, rounds: int = 3) -> list[Figure]:
    """Write a calm and a bad day, and plot a week."""
    figures = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in ("calm", "bad"):
            file = folder / f"{kind}.sqlite"
            rows, spent = write_day(file, seconds, bad=kind == "bad")
            size = file.stat().st_size * DAY / seconds
            figures.append(_size(kind, size, rows, _spent_on(file)))
        figures.append(_speed(rows, spent))
        file.rename(folder / DEFAULT_FILE)
        lengthen(folder / DEFAULT_FILE, _WEEK, seconds)
        figures += _plots(folder, rounds)
    return figures


def _size(kind: str, size: float, rows: int, note: str) -> Figure:
    what = "every pair's entries are shrunk" if kind == "bad" else "every entry is allowed"
    return figure(
        f"history: bytes a day at defaults, {PAIRS} pairs, a {kind} day ({what})",
        size,
        {},
        ratio=size / _MEGABYTE / _MOST_MEGABYTES,
        target=f"under {_MOST_MEGABYTES:g} MB",
        reached=size < _MOST_MEGABYTES * _MEGABYTE,
        rounds=1,
        kind="count",
        unit="bytes",
        note=f"{rows:,} rows; {note}.",
    )


def _speed(rows: int, spent: float) -> Figure:
    return figure(
        "history: rows a second written",
        rows / spent,
        {},
        ratio=None,
        target="shown",
        reached=None,
        rounds=1,
        kind="processor time",
        unit="rows a second",
        note=f"By the recorder's thread, a transaction a read as a bot has them; SQLite. {rows:,} rows.",
    )


def _plots(folder: Path, rounds: int) -> Iterator[Figure]:
    pairs = names()
    with exchange(pairs) as local:
        strategies(folder)
        config = configure(folder, local, pairs)
        command = [sys.executable, "-m", "freqtrade_isolated_margin", "plot", "-c", str(config)]
        words = [*command, "--userdir", str(folder), pairs[0], "--since", "2026-01-01"]
        spent = alternately(
            {kind: lambda kind=kind: run([*words, "-o", f"week.{kind}"], folder) for kind in ("png", "html")},
            rounds,
            warm_up=0,
        )
    for kind, of_kind in spent.items():
        wall = statistics.median(one.wall for one in of_kind)
        yield figure(
            f"history: a week of one pair of {PAIRS} plotted, {kind.upper()}",
            statistics.median(one.processor for one in of_kind),
            {},
            ratio=None,
            target="shown",
            reached=None,
            rounds=rounds,
            kind="processor time",
            note=f"The whole process, freqtrade's configuration included. By wall time {wall:.2f} s.",
        )
