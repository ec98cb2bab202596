"""``python -m bench`` measures it all; writes docs/benchmark.md, .json and a picture."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from . import core, report
from .backtests import backtests
from .loops import loops, reaction
from .measure import Figure
from .picture import draw
from .starts import commands, imports
from .stored import history
from .weights import weights

_DOCS = Path(__file__).parents[2] / "docs"

SUITES: dict[str, tuple[Callable[[], list[Figure]], Callable[[], list[Figure]]]] = {
    # In full, and the smallest case.
    "answers": (core.figures, lambda: core.first_read(5)),
    "loop": (loops, lambda: loops(count=3, rounds=2)),
    "reaction": (reaction, lambda: reaction(trials=2, count=2)),
    "weight": (weights, lambda: weights([1, 6])),
    "backtest": (backtests, lambda: backtests(days=1, rounds=1, seconds=86_400 // 8)),
    "import": (imports, lambda: imports(rounds=1)),
    "command": (commands, lambda: commands(rounds=1)),
    "history": (history, lambda: history(seconds=1200, rounds=1)),
}
"""What can be measured, by the name that `--only` takes."""


def measure(names: Sequence[str], *, quick: bool = False) -> list[Figure]:
    """Measure these suites, one after another; the progress goes to the standard error."""
    figures = []
    for name in names:
        started = time.monotonic()
        sys.stderr.write(f"{name} …")
        sys.stderr.flush()
        figures += [report.complete(figure, name) for figure in SUITES[name][quick]()]
        sys.stderr.write(f" {time.monotonic() - started:.0f} s\n")
    return figures


def main() -> int:
    """Run the benchmark from the command line; 0 also where a target is missed: the table says it."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", choices=SUITES, action="append", help="measure this, and keep the rest")
    parser.add_argument("--quick", action="store_true", help="the smallest cases, to see that all of it runs")
    parser.add_argument("--output", type=Path, help="the folder to write into (default: docs)")
    arguments = parser.parse_args()
    if arguments.quick and not arguments.output:
        sys.stderr.write("Nothing is written: --quick measures nothing worth keeping (but see --output).\n")
    folder = arguments.output or (None if arguments.quick else _DOCS)
    figures = measure(arguments.only or list(SUITES), quick=arguments.quick)
    if folder:
        if arguments.only:
            figures = report.merged(report.read(folder)["figures"], figures, list(SUITES))
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        machine = report.machine()
        report.write(folder, figures, machine)
        draw(folder / "pictures" / "benchmark.png", figures)
    for figure in figures:
        mark = {True: "reached", False: "MISSED", None: ""}[figure["reached"]]
        ours = report.shown(figure["ours"], figure["unit"])
        sys.stdout.write(f"{figure['what']}: {ours} ({figure['target']}) {mark}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
