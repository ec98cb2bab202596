"""Writes what was measured as Markdown and JSON, with the machine that it was measured on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .measure import Figure

COMMAND = "make bench"

_PACKAGES = (
    "freqtrade",
    "ccxt",
    "freqtrade-isolated-margin",
    "binance-sdk-margin-trading",
    "python-binance",
)
_HEADS = ("what", "ours", "others", "ratio", "target", "reached")
_WHOLE = 100
_MARKS = {True: "yes", False: "**no**", None: "–"}
_PYTHON_BINANCE = (
    "python-binance has no figure of its own: what its `get_isolated_margin_account` does with the answer is "
    "`response.json()`, the same as `json.loads` after the decoding of the bytes."
)


def machine() -> dict[str, str]:
    """Return what the machine is, without its name or paths."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": _memory(),
        "system": platform.system(),
        "Python": platform.python_version(),
        **versions,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (OSError, ValueError):
        return "unknown"


def complete(figure: Figure, suite: str) -> Figure:
    """Return a figure with everything that the table needs."""
    return {"suite": suite, **figure}


def shown(value: float, unit: str) -> str:
    """Return a value with its unit, to three digits."""
    if unit == "s":
        for factor, name in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
            if value * factor >= 1:
                return f"{_digits(value * factor)} {name}"
        return f"{_digits(value * 1e9)} ns"
    if unit == "bytes":
        return f"{value / 1e6:.2f} MB"
    return f"{value:,.0f}" + ("" if unit == "weight" else f" {unit}")


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= _WHOLE else f"{value:.3g}"


def as_json(figures: Sequence[Figure], on: Mapping[str, str]) -> str:
    """Return all of it as JSON."""
    return json.dumps({"machine": dict(on), "figures": list(figures)}, indent=1, ensure_ascii=False) + "\n"


def as_markdown(figures: Sequence[Figure], on: Mapping[str, str]) -> str:
    """Return all of it as a page: the table, the notes, the machine."""
    notes: dict[str, int] = {}
    rows = [_row(figure, notes) for figure in figures]
    reached = [figure["reached"] for figure in figures]
    return "\n".join(
        [
            "# What it costs",
            "",
            f"Written by `{COMMAND}`; benchmark.json beside it has all of the digits. What is compared was",
            "measured by turns in the same run: medians, and the ratio of ours to what the target names.",
            "Times are processor time except where a row says wall time.",
            "",
            *_table(rows),
            "",
            f"{reached.count(True)} of {len(reached) - reached.count(None)} targets are reached.",
            "",
            "![Time against rows and pairs, ours and the others](pictures/benchmark.png)",
            "",
            "## Notes",
            "",
            *(f"{number}. {note}" for note, number in notes.items()),
            "",
            _PYTHON_BINANCE,
            "",
            "## Machine",
            "",
            f"{_named(on)}.",
            "",
        ]
    )


def _named(on: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {what}" for name, what in on.items())


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [_HEADS, ("---",) * len(_HEADS), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]


def _row(figure: Figure, notes: dict[str, int]) -> tuple[str, ...]:
    unit = figure["unit"]
    what = figure["what"] + (", wall time" if figure["kind"] == "wall time" else "")
    if figure["note"]:
        what += f" [{notes.setdefault(figure['note'], len(notes) + 1)}]"
    others = "<br>".join(f"{name}: {shown(value, unit)}" for name, value in figure["others"].items())
    ratio = "–" if figure["ratio"] is None else f"{figure['ratio']:.4g}"
    return (
        what,
        shown(figure["ours"], unit),
        others or "–",
        ratio,
        figure["target"],
        _MARKS[figure["reached"]],
    )


def write(folder: Path, figures: Sequence[Figure], on: Mapping[str, str]) -> None:
    """Write benchmark.json and benchmark.md into a folder."""
    (folder / "benchmark.json").write_text(as_json(figures, on))
    (folder / "benchmark.md").write_text(as_markdown(figures, on))


def merged(former: Sequence[Figure], new: Sequence[Figure], order: Sequence[str]) -> list[Figure]:
    """Return the figures of a former run with those suites replaced that were measured anew."""
    measured = {figure["suite"] for figure in new}
    kept = [figure for figure in former if figure["suite"] in order and figure["suite"] not in measured]
    return sorted([*kept, *new], key=lambda figure: order.index(figure["suite"]))


def read(folder: Path) -> dict[str, Any]:
    """Return what `write` has written before; nothing where there is none."""
    file = folder / "benchmark.json"
    found = json.loads(file.read_text()) if file.exists() else {"figures": [], "machine": {}}
    return dict(found)
