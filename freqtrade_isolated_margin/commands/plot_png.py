"""Draws a chart as a picture, with matplotlib and without a screen."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from freqtrade_isolated_margin.binance.clock import moment
from freqtrade_isolated_margin.commands.chart import SHADE_LABELS, Chart, Look
from freqtrade_isolated_margin.rules.decide import Outcome

WIDTH, HEIGHT = 1200, 800
"""Pixels."""

_DPI = 100
_HATCHES = {Outcome.SHRINK: ".", Outcome.BLOCK: "////"}
_STRENGTH = {Outcome.SHRINK: 0.18, Outcome.BLOCK: 0.22}
_NAN = float("nan")


def draw(chart: Chart, look: Look) -> bytes:
    """Return the chart as a PNG file."""
    figure = build(chart, look)
    file = BytesIO()
    figure.savefig(file, format="png", dpi=_DPI, facecolor=look.paper)
    return file.getvalue()


def build(chart: Chart, look: Look) -> Figure:
    """Return the figure, prices above and the margin level below."""
    figure = Figure(
        figsize=(WIDTH / _DPI, HEIGHT / _DPI),
        dpi=_DPI,
        layout=ConstrainedLayoutEngine(h_pad=0.09, w_pad=0.09),
    )
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    figure.suptitle(chart.title, color=look.ink, fontsize=14)
    for axes in (top, bottom):
        _style(axes, look)
        _shade(axes, chart, look)
    _prices(top, chart, look)
    _level(bottom, chart, look)
    locator = AutoDateLocator(tz="UTC", minticks=5, maxticks=10)
    bottom.xaxis.set_major_locator(locator)
    bottom.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz="UTC"))
    bottom.xaxis.get_offset_text().set_color(look.ink)
    bottom.set_xlabel("time (UTC)")
    if len(chart.times) > 1:
        bottom.set_xlim(_day(chart.times[0]), _day(chart.times[-1]))
    handles, labels = top.get_legend_handles_labels()
    for outcome in dict.fromkeys(sorted(shade.outcome for shade in chart.shades)):
        handles.append(
            Patch(
                facecolor=(look.shades[outcome], _STRENGTH[outcome]),
                edgecolor=look.shades[outcome],
                hatch=_HATCHES[outcome],
                linewidth=0.5,
            )
        )
        labels.append(SHADE_LABELS[outcome])
    legend = figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=6,
        frameon=False,
        handlelength=2.4,
        handleheight=1.2,
    )
    for text in legend.get_texts():
        text.set_color(look.ink)
    return figure


def _style(axes: Axes, look: Look) -> None:
    axes.set_facecolor(look.paper)
    axes.grid(visible=True, color=look.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=look.ink, which="both")
    axes.xaxis.label.set_color(look.ink)
    axes.yaxis.label.set_color(look.ink)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(look.limit)


def _shade(axes: Axes, chart: Chart, look: Look) -> None:
    for shade in chart.shades:
        axes.axvspan(
            _day(shade.start),
            _day(shade.end),
            facecolor=(look.shades[shade.outcome], _STRENGTH[shade.outcome]),
            edgecolor=(look.shades[shade.outcome], 0.35),
            hatch=_HATCHES[shade.outcome],
            linewidth=0,
            zorder=0.5,
        )


def _prices(axes: Axes, chart: Chart, look: Look) -> None:
    times = [_day(at) for at in chart.times]
    axes.plot(times, _floats(chart.index_price), color=look.index_price, linewidth=1.6, label="index price")
    axes.plot(
        times,
        _floats(chart.liquidation_price),
        color=look.liquidation_price,
        linewidth=2.2,
        linestyle=(0, (5, 1.5)),
        label="liquidation price",
    )
    for kind, marker, colour in (("entry", "^", look.entry), ("exit", "v", look.exit)):
        marks = [mark for mark in chart.marks if mark.kind == kind]
        if marks:
            axes.plot(
                [_day(mark.at) for mark in marks],
                [mark.price for mark in marks],
                marker=marker,
                linestyle="none",
                markersize=11,
                color=colour,
                markeredgecolor=look.ink,
                markeredgewidth=0.8,
                zorder=4,
                label=f"the bot's {kind}",
            )
    axes.set_ylim(*chart.price_range)
    axes.yaxis.set_major_formatter(FuncFormatter(_price))
    axes.set_ylabel(f"price ({chart.quote})")


def _level(axes: Axes, chart: Chart, look: Look) -> None:
    times = [_day(at) for at in chart.times]
    axes.plot(
        times,
        _floats(chart.margin_level),
        color=look.margin_level,
        linewidth=1.6,
        label="margin level",
    )
    if chart.logarithmic:
        axes.set_yscale("log")
        axes.set_yticks(chart.level_ticks)
        axes.set_yticks([], minor=True)
    axes.set_ylim(*chart.level_range)
    limits = (
        ("block_below", chart.block_below, look.liquidation_price, "-.", "top"),
        ("full_above", chart.full_above, look.limit, ":", "bottom"),
    )
    for name, value, colour, style, edge in limits:
        axes.axhline(value, color=colour, linestyle=style, linewidth=1.6)
        axes.annotate(
            f"{name} {value:g}",
            # Beside the panel, and away from each other: within it they would hide the level.
            (1, value),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            verticalalignment=edge,
            color=look.ink,
            fontsize=9.5,
        )
    if chart.owes_nothing:
        axes.text(0.5, 0.5, "no debt", transform=axes.transAxes, ha="center", va="center", color=look.ink)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}"))
    axes.set_ylabel("margin level")


def _price(value: float, _place: object) -> str:
    """Return a price without an exponent, also that of a coin worth next to nothing."""
    return f"{value:,.10f}".rstrip("0").rstrip(".")


def _day(at: int) -> float:
    """Return milliseconds as matplotlib counts time."""
    return float(date2num(moment(at)))


def _floats(values: Iterable[float | None]) -> list[float]:
    return [_NAN if value is None else value for value in values]
