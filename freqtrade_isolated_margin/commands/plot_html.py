"""Draws a chart as a page of its own, with plotly: it needs nothing from anywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import log10
from typing import Any

from plotly.graph_objects import Figure, Scatter
from plotly.subplots import make_subplots

from freqtrade_isolated_margin.binance.clock import moment
from freqtrade_isolated_margin.commands.chart import SHADE_LABELS, Chart, Look, Shade
from freqtrade_isolated_margin.rules.decide import Outcome

_PATTERNS = {Outcome.SHRINK: ".", Outcome.BLOCK: "/"}
_SOLIDITY = {Outcome.SHRINK: 0.06, Outcome.BLOCK: 0.2}
_STRENGTH = {Outcome.SHRINK: 0.45, Outcome.BLOCK: 0.5}
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title>
<style>html, body {{ margin: 0; height: 100%; background: {paper}; }}</style></head>
<body>
{body}
</body>
</html>
"""


def draw(chart: Chart, look: Look) -> bytes:
    """Return the chart as an HTML file."""
    body = build(chart, look).to_html(
        full_html=False,
        include_plotlyjs=True,
        include_mathjax=False,
        default_width="100%",
        default_height="100vh",
        config={"displaylogo": False, "responsive": True, "showSendToCloud": False, "scrollZoom": True},
    )
    return _PAGE.format(title=escape(chart.title), paper=look.paper, body=body).encode()


def build(chart: Chart, look: Look) -> Figure:
    """Return the figure, prices above and the margin level below."""
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.6, 0.4], vertical_spacing=0.04)
    _shade(figure, chart, look)
    times = [_text(at) for at in chart.times]
    lines: list[tuple[str, Sequence[float | None], dict[str, Any], int]] = [
        ("index price", chart.index_price, {"color": look.index_price, "width": 2}, 1),
        (
            "liquidation price",
            chart.liquidation_price,
            {"color": look.liquidation_price, "width": 2.5, "dash": "10px,4px"},
            1,
        ),
        ("margin level", chart.margin_level, {"color": look.margin_level, "width": 2}, 2),
    ]
    for name, values, line, row in lines:
        unit = f" {chart.quote}" if row == 1 else ""
        figure.add_trace(
            Scatter(
                x=times,
                y=list(values),
                name=name,
                mode="lines",
                line=line,
                connectgaps=False,
                showlegend=row == 1,
                hovertemplate=f"%{{y:{',.8~f' if row == 1 else '.4~f'}}}{escape(unit)}",
            ),
            row=row,
            col=1,
        )
    _marks(figure, chart, look)
    _limits(figure, chart, look)
    if chart.owes_nothing:
        _no_debt(figure, look)
    _style(figure, chart, look)
    return figure


def _text(at: int) -> str:
    return moment(at).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]


def _marks(figure: Figure, chart: Chart, look: Look) -> None:
    for kind, symbol, colour in (("entry", "triangle-up", look.entry), ("exit", "triangle-down", look.exit)):
        marks = [mark for mark in chart.marks if mark.kind == kind]
        if marks:
            figure.add_trace(
                Scatter(
                    x=[_text(mark.at) for mark in marks],
                    y=[mark.price for mark in marks],
                    name=f"the bot's {kind}",
                    mode="markers",
                    marker={
                        "symbol": symbol,
                        "size": 14,
                        "color": colour,
                        "line": {"color": look.ink, "width": 1},
                    },
                    hovertemplate=f"%{{y:,.8~f}} {escape(chart.quote)}",
                ),
                row=1,
                col=1,
            )


def _shade(figure: Figure, chart: Chart, look: Look) -> None:
    """Shade the times on both panels, each outcome as one trace that its entry in the legend turns off."""
    ranges = {1: chart.price_range, 2: chart.level_range}
    for outcome in dict.fromkeys(sorted(shade.outcome for shade in chart.shades)):
        shades = [shade for shade in chart.shades if shade.outcome is outcome]
        for row, (low, high) in ranges.items():
            x, y = _outline(shades, low, high)
            figure.add_trace(
                Scatter(
                    x=x,
                    y=y,
                    name=SHADE_LABELS[outcome],
                    legendgroup=str(outcome),
                    showlegend=row == 1,
                    mode="lines",
                    line={"width": 0, "color": look.shades[outcome]},
                    fill="toself",
                    fillpattern={
                        "shape": _PATTERNS[outcome],
                        "fgcolor": look.shades[outcome],
                        "fgopacity": _STRENGTH[outcome],
                        "bgcolor": _faint(look.shades[outcome]),
                        "size": 8,
                        "solidity": _SOLIDITY[outcome],
                    },
                    hoverinfo="skip",
                ),
                row=row,
                col=1,
            )


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, 0.18)"


def _outline(shades: Sequence[Shade], low: float, high: float) -> tuple[list[str | None], list[float | None]]:
    x: list[str | None] = []
    y: list[float | None] = []
    for shade in shades:
        start, end = _text(shade.start), _text(shade.end)
        x += [start, start, end, end, start, None]
        y += [low, high, high, low, low, None]
    return x, y


def _limits(figure: Figure, chart: Chart, look: Look) -> None:
    limits = (
        ("block_below", chart.block_below, look.liquidation_price, "dashdot", "top"),
        ("full_above", chart.full_above, look.limit, "dot", "bottom"),
    )
    for name, value, colour, dash, edge in limits:
        figure.add_hline(value, row=2, col=1, line={"color": colour, "width": 2, "dash": dash})
        figure.add_annotation(
            text=f"{name} {value:g}",
            xref="x2 domain",
            yref="y2",
            # Beside the panel, and away from each other: within it they would hide the level.
            x=1.004,
            y=log10(value) if chart.logarithmic else value,
            xanchor="left",
            yanchor=edge,
            showarrow=False,
            font={"color": look.ink, "size": 12},
        )


def _no_debt(figure: Figure, look: Look) -> None:
    figure.add_annotation(
        text="no debt",
        xref="x2 domain",
        yref="y2 domain",
        x=0.5,
        y=0.5,
        showarrow=False,
        font={"color": look.ink, "size": 14},
    )


def _style(figure: Figure, chart: Chart, look: Look) -> None:
    figure.update_layout(
        template="none",
        title={"text": escape(chart.title), "x": 0.5},
        paper_bgcolor=look.paper,
        plot_bgcolor=look.paper,
        font={"color": look.ink, "size": 14, "family": "system-ui, sans-serif"},
        hovermode="x unified",
        hoverlabel={"bgcolor": look.paper, "font": {"color": look.ink}},
        legend={"orientation": "h", "x": 0.5, "xanchor": "center", "y": -0.14, "yanchor": "top"},
        margin={"l": 90, "r": 130, "t": 60, "b": 110},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": look.limit, "activecolor": look.ink},
    )
    figure.update_xaxes(
        gridcolor=look.grid, linecolor=look.limit, zeroline=False, hoverformat="%Y-%m-%d %H:%M:%S"
    )
    if len(chart.times) > 1:
        figure.update_xaxes(range=[_text(chart.times[0]), _text(chart.times[-1])])
    figure.update_xaxes(title_text="time (UTC)", row=2, col=1)
    figure.update_yaxes(gridcolor=look.grid, linecolor=look.limit, zeroline=False, automargin=True)
    figure.update_yaxes(
        title_text=f"price ({escape(chart.quote)})",
        tickformat=",.10~f",
        range=list(chart.price_range),
        row=1,
        col=1,
    )
    low, high = chart.level_range
    if chart.logarithmic:
        figure.update_yaxes(
            type="log", tickvals=chart.level_ticks, range=[log10(low), log10(high)], row=2, col=1
        )
    else:
        figure.update_yaxes(range=[low, high], row=2, col=1)
    figure.update_yaxes(title_text="margin level", row=2, col=1)
