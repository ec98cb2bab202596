"""Backtests without the mixin, with it standing down, and replaying a recorded week."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from freqtrade_isolated_margin.history.database import DEFAULT_FILE
from freqtrade_isolated_margin.localexchange import LocalExchange
from freqtrade_isolated_margin.rules.settings import SECTION

from .exchange import configure, exchange, strategies
from .measure import Figure, Spent, alternately, figure, median_ratio, run
from .stored import DAY, START, lengthen, names, write_day

_TESTS = Path(__file__).parents[1]
_ENTRIES = """dataframe.loc[dataframe["close"] > dataframe["close"].rolling(12).mean(), "enter_long"] = 1"""
_EXITS = """dataframe.loc[dataframe["close"] < dataframe["close"].rolling(12).mean(), "exit_long"] = 1"""
_KINDS = {"standing down": ("off", 1.01), "replaying": ("replay", 1.10)}
# By the processor time of each.
_SPENT = {
    "off": "",
    "replay": (
        " Of what it takes more, a third is for looking up the accounts of all candles before (most of that "
        "in the database and its driver), a fifth for reading those that an entry asks for, 15 % for judging "
        "them, the rest for the callbacks around; the strategy tries some 24 entries a pair and day."
    ),
}
_PLAIN, _GUARDED = "Plain", "Guarded"


def _write_candles(folder: Path, pairs: list[str], days: int) -> None:
    """Write 5-minute candles where freqtrade looks for them, and some before."""
    data = folder / "data" / "binance"
    data.mkdir(parents=True)
    dates = pd.date_range(
        datetime.fromtimestamp(START - DAY, UTC),
        datetime.fromtimestamp(START + days * DAY, UTC),
        freq="5min",
    )
    rnd = np.random.default_rng(1)
    for pair in pairs:
        walk = 100 * np.exp(np.cumsum(rnd.normal(0, 0.001, len(dates))))
        candles = pd.DataFrame({"date": dates, "open": walk, "high": walk * 1.002, "low": walk * 0.998})
        candles["close"] = np.roll(walk, -1)
        candles["volume"] = 1000.0
        candles.to_feather(data / f"{pair.replace('/', '_')}-5m.feather")


class _Backtests:
    """A folder with candles and a recorded history, and backtests in it."""

    def __init__(self, folder: Path, local: LocalExchange, days: int, seconds: int) -> None:
        self._folder = folder
        pairs = names()
        strategies(folder, _ENTRIES, _EXITS)
        _write_candles(folder, pairs, days)
        write_day(folder / DEFAULT_FILE, seconds, bad=True)
        lengthen(folder / DEFAULT_FILE, days, seconds)
        self._config = partial(configure, folder, local, pairs)
        first, last = (f"{datetime.fromtimestamp(START + day * DAY, UTC):%Y%m%d}" for day in (0, days))
        where = ["--userdir", str(folder), "--timerange", f"{first}-{last}", "--timeframe", "5m"]
        self._options = [*where, "--export", "none", "--cache", "none"]

    def run(self, mode: str, *names_: str) -> tuple[Spent, dict[str, list[float]]]:
        """Run backtests of these strategies in one process; return what all and each of them took."""
        config = self._config(**{SECTION: {"backtest": mode}})
        words = [sys.executable, "-m", "bench.backtest", "backtesting", "-c", str(config), *self._options]
        # Its working folder is another, since what it prints goes there.
        whole = run(["env", f"PYTHONPATH={_TESTS}", *words, "--strategy-list", *names_], self._folder)
        last = (self._folder / "output.log").read_text(errors="replace").rstrip().splitlines()[-1]
        return whole, json.loads(last)


def backtests(days: int = 7, rounds: int = 5, seconds: int = DAY) -> list[Figure]:
    """Backtest by turns with the mixin and without over so many recorded days."""
    figures = []
    with tempfile.TemporaryDirectory() as name, exchange(names()) as local:
        made = _Backtests(Path(name), local, days, seconds)
        for kind, (mode, most) in _KINDS.items():
            # The first of each warms up.
            _, parts = made.run(mode, *(_PLAIN, _GUARDED) * (rounds + 1))
            part = "indicators, signals and simulation"
            figures.append(
                _figure(
                    f"a backtest with the mixin {kind}: {part}",
                    parts[_GUARDED][1:],
                    parts[_PLAIN][1:],
                    most,
                    "In one process, by turns, without loading candles and writing results." + _SPENT[mode],
                )
            )
            wholes = alternately(
                {_GUARDED: lambda mode=mode: made.run(mode, _GUARDED)[0],
                 _PLAIN: lambda mode=mode: made.run(mode, _PLAIN)[0]},
                max(rounds // 2, 1), warm_up=0,
            )  # fmt: skip
            ours, plain = ([one.processor for one in wholes[of]] for of in (_GUARDED, _PLAIN))
            wall = median_ratio(*([one.wall for one in wholes[of]] for of in (_GUARDED, _PLAIN)))
            note = (
                f"By wall time {wall:.3f}; the import of the package is in it. "
                f"{days} days of 5-minute candles of {len(names())} pairs."
            )
            figures.append(
                _figure(f"a backtest with the mixin {kind}: the whole process", ours, plain, most, note)
            )
    return figures


def _figure(what: str, ours: list[float], plain: list[float], most: float, note: str) -> Figure:
    ratio = median_ratio(ours, plain)
    return figure(
        what,
        statistics.median(ours),
        {"without the mixin": statistics.median(plain)},
        ratio=ratio,
        target=f"under {round((most - 1) * 100)} % more",
        reached=ratio < most,
        rounds=len(ours),
        kind="processor time",
        note=note,
    )
