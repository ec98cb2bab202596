"""Whole processes: imports and commands, beside freqtrade's own."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .exchange import configure, exchange, names, strategies
from .measure import Figure, Spent, alternately, figure, median_ratio, run

# What the commands of these names run.
_FREQTRADE = [sys.executable, "-m", "freqtrade"]
_OURS = [sys.executable, "-m", "freqtrade_isolated_margin"]


def _beside(
    what: str,
    folder: Path,
    ours: Sequence[str],
    other: tuple[str, Sequence[str]],
    *,
    most: float,
    target: str,
    rounds: int,
    statuses: Sequence[int] = (0,),
) -> Figure:
    name, words = other
    tasks = {"ours": lambda: run(ours, folder, statuses), name: lambda: run(words, folder)}
    spent = alternately(tasks, rounds)
    mine: list[Spent] = spent["ours"]
    theirs = spent[name]
    ratio = median_ratio([one.processor for one in mine], [one.processor for one in theirs])
    wall = [statistics.median(one.wall for one in of_one) for of_one in (mine, theirs)]
    return figure(
        what,
        statistics.median(one.processor for one in mine),
        {name: statistics.median(one.processor for one in theirs)},
        ratio=ratio,
        target=target,
        reached=ratio < most,
        rounds=rounds,
        kind="processor time",
        note=f"Whole processes, by turns. By wall time {wall[0]:.2f} s and {wall[1]:.2f} s.",
    )


def imports(rounds: int = 15) -> list[Figure]:
    """Import what a strategy imports, with the mixin and without, in fresh interpreters."""
    freqtrade = "from freqtrade.strategy import IStrategy"
    both = f"{freqtrade}; from freqtrade_isolated_margin import IsolatedMarginMixin"
    with tempfile.TemporaryDirectory() as name:
        return [
            _beside(
                "import of the package for a strategy, over freqtrade's own",
                Path(name),
                [sys.executable, "-c", both],
                (freqtrade, [sys.executable, "-c", freqtrade]),
                most=1.05,
                target="under 5 % more",
                rounds=rounds,
            )
        ]


def commands(rounds: int = 9) -> list[Figure]:
    """Run the commands from their start to their end."""
    pairs = names(20)
    with tempfile.TemporaryDirectory() as name, exchange(pairs) as local:
        folder = Path(name)
        strategies(folder)
        options = ["-c", str(configure(folder, local, pairs)), "--userdir", str(folder)]
        return [
            _beside(
                "freqtrade-isolated-margin --help",
                folder,
                [*_OURS, "--help"],
                ("freqtrade --help", [*_FREQTRADE, "--help"]),
                most=1.0,
                target="no slower",
                rounds=rounds,
            ),
            _beside(
                "freqtrade-isolated-margin status, 20 pairs, from start to table",
                folder,
                [*_OURS, "status", *options],
                ("freqtrade show-config", [*_FREQTRADE, "show-config", *options]),
                most=1.5,
                target="under 1.5 ×",
                rounds=rounds,
            ),
        ]
