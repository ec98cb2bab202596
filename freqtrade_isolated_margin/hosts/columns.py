"""The columns of a chart, their `plot_config`, and the shades over candles in which entries were blocked."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from math import nan
from typing import Any, NamedTuple

from freqtrade_isolated_margin.account.records import PairAccount, Row
from freqtrade_isolated_margin.binance.clock import milliseconds
from freqtrade_isolated_margin.history.blocks import Span
from freqtrade_isolated_margin.rules.decide import EntryDecision


class Values(NamedTuple):
    """The columns of one candle, as floats; NaN where unknown or without meaning."""

    margin_level: float = nan
    """As reported; NaN without debt."""
    liquidation_price: float = nan
    """Quote currency; NaN where no price liquidates."""
    index_price: float = nan
    """Quote currency."""
    margin_stake_factor: float = nan
    """What the stake of a long entry is multiplied with: 0 blocks, 1 changes nothing."""


COLUMNS = Values._fields
UNKNOWN = Values()

PLOT_CONFIG: dict[str, dict[str, Any]] = {
    "main_plot": {
        "liquidation_price": {"color": "#D55E00"},
        "index_price": {"color": "#0072B2"},
    },
    "subplots": {
        "Margin level": {"margin_level": {"color": "#0072B2"}},
        "Stake factor": {"margin_stake_factor": {"color": "#009E73"}},
    },
}
"""A fragment of a strategy's `plot_config` that shows the columns."""

_SHADE = "rgba(213, 94, 0, 0.25)"


def values_of(row: Row | None, decision: EntryDecision) -> Values:
    """Return what a candle shows of an account that gives `decision`."""
    factor = float(decision.factor)
    if not isinstance(row, PairAccount) or row.is_absent:
        return Values(margin_stake_factor=factor if row is not None else nan)
    liquidation_price = row.liquidation_price
    return Values(
        margin_level=float(row.margin_level) if row.can_be_liquidated else nan,
        liquidation_price=nan if liquidation_price is None else float(liquidation_price),
        index_price=float(row.index_price),
        margin_stake_factor=factor,
    )


def merged_plot_config(own: Any) -> dict[str, Any]:
    """Return a strategy's own `plot_config` with the columns added; what it says of them itself stays."""
    own = own or {}
    named = {name for part in _plotted(own) for name in part}
    merged = {
        **own,
        "main_plot": dict(own.get("main_plot") or {}),
        "subplots": dict(own.get("subplots") or {}),
    }
    for name, style in PLOT_CONFIG["main_plot"].items():
        if name not in named:
            merged["main_plot"][name] = dict(style)
    for title, lines in PLOT_CONFIG["subplots"].items():
        if title not in merged["subplots"] and not named & lines.keys():
            merged["subplots"][title] = {name: dict(style) for name, style in lines.items()}
    return merged


def _plotted(config: Mapping[str, Any]) -> Iterable[Iterable[str]]:
    yield config.get("main_plot") or {}
    yield from (config.get("subplots") or {}).values()


def shaded(
    candles: Sequence[tuple[datetime, float]], length: timedelta, blocked: Sequence[Span]
) -> list[Any]:
    """Return areas, as `IStrategy.plot_annotations` does, over the candles in which entries were blocked.

    `candles` are their opens in ascending order, with their stake factors; a factor of 0 is a block too.
    """
    areas: list[dict[str, Any]] = []
    starts = [span.start for span in blocked]
    for opened, factor in candles:
        start, end = milliseconds(opened), milliseconds(opened + length)
        # The spans are in order and apart: the last that starts before the candle's end is the one to see.
        place = bisect_left(starts, end) - 1
        if factor != 0 and not (place >= 0 and blocked[place].end > start):
            continue
        if areas and areas[-1]["end"] == opened:
            areas[-1]["end"] = opened + length
        else:
            areas.append(
                {
                    "type": "area",
                    "label": "entries blocked",
                    "color": _SHADE,
                    "start": opened,
                    "end": opened + length,
                }
            )
    return areas
