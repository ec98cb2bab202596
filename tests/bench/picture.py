"""The picture: how the time grows with the rows of an answer, and the weight with the pairs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from .measure import Figure
from .report import shown

# The colours of Okabe and Ito, which everybody can tell apart; the marks differ too.
_LOOKS = {
    "ours": ("#0072B2", "o", "-"),
    "ours, every index price changed": ("#0072B2", "v", ":"),
    "json.loads": ("#000000", "s", "--"),
    "ccxt's raw call": ("#009E73", "^", "--"),
    "ccxt's fetch_balance": ("#D55E00", "D", "--"),
    "official SDK's model": ("#CC79A7", "P", "--"),
    "one call a pair": ("#D55E00", "D", "--"),
    "chunks of five": ("#009E73", "^", "--"),
    "look-up and comparison": ("#000000", "s", "--"),
}
_SERIES = (
    (
        "Bytes of an answer to all its decisions",
        "rows of the answer",
        "processor time",
        "s",
        "upper left",
        {
            r"bytes of an answer to its decisions, (\d+) rows": "ours",
            r"the next read, every index price changed, (\d+) rows": "ours, every index price changed",
        },
    ),
    (
        "One decision on the newest account",
        "pairs",
        "processor time",
        "s",
        "center",
        {r"one decision on the newest account, (\d+) pairs": "ours"},
    ),
    (
        "What the exchange counts",
        "pairs",
        "weight a minute",
        "weight",
        "upper left",
        {r"weight a minute, (\d+) pairs?": "ours"},
    ),
)
_NOT_DRAWN = "first read"


def _points(figures: Sequence[Figure], patterns: dict[str, str]) -> dict[str, dict[int, float]]:
    lines: dict[str, dict[int, float]] = defaultdict(dict)
    for figure in figures:
        for pattern, name in patterns.items():
            found = re.fullmatch(pattern, figure["what"])
            if not found:
                continue
            lines[name][int(found[1])] = figure["ours"]
            for other, value in figure["others"].items():
                if other != _NOT_DRAWN:
                    lines[other][int(found[1])] = value
    return lines


def draw(file: Path, figures: Sequence[Figure]) -> None:
    """Draw the figures that grow with something into a PNG file."""
    with plt.rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        drawn, panels = plt.subplots(1, len(_SERIES), figsize=(15, 5.6), layout="constrained")
        for panel, (title, rows, what, unit, place, patterns) in zip(panels, _SERIES, strict=True):
            _draw(panel, _points(figures, patterns), unit, place)
            panel.set_title(title, loc="left", fontweight="bold")
            panel.set_xlabel(rows)
            panel.set_ylabel(what)
        drawn.savefig(file, dpi=110, metadata={"Software": None})
        plt.close(drawn)


def _draw(panel: Axes, lines: dict[str, dict[int, float]], unit: str, place: str) -> None:
    for name, points in lines.items():
        colour, mark, style = _LOOKS.get(name, ("#56B4E9", "x", ":"))
        ordered = sorted(points.items())
        panel.plot(
            [at for at, _ in ordered],
            [value for _, value in ordered],
            color=colour, marker=mark, linestyle=style, label=name,
            linewidth=2.5 if name == "ours" else 1.4, zorder=3 if name.startswith("ours") else 2,
        )  # fmt: skip
    panel.set_xscale("log")
    panel.set_yscale("log")
    ticks = sorted({at for points in lines.values() for at in points})
    panel.set_xticks(ticks, [str(at) for at in ticks])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.grid(visible=True, which="major", color="#DDDDDD", linewidth=0.8)
    if lines:
        low, high = panel.get_ylim()
        # Room for what each line is.
        panel.set_ylim(low, high * 2 if place == "upper left" else high)
        panel.legend(frameon=False, fontsize=9.5, loc=place)
