"""What a picture of a pair's account shows, whatever draws it, and in which colours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from freqtrade_isolated_margin.binance.clock import moment
from freqtrade_isolated_margin.rules.decide import Outcome

_LOG_FROM = 4


class Shade(NamedTuple):
    """From when to when entries were shrunk or blocked, in milliseconds; the end is not included."""

    start: int
    end: int
    outcome: Outcome


class Mark(NamedTuple):
    """A filled order of the bot: when, in milliseconds, and at which price in quote currency."""

    at: int
    price: float
    kind: Literal["entry", "exit"]


@dataclass(frozen=True)
class Chart:
    """What is drawn, whatever draws it. Prices are in quote currency; None where there is none."""

    pair: str
    times: Sequence[int]
    """Milliseconds since 1970 UTC, ascending."""
    index_price: Sequence[float | None]
    liquidation_price: Sequence[float | None]
    margin_level: Sequence[float | None]
    block_below: float
    full_above: float
    shades: Sequence[Shade] = ()
    marks: Sequence[Mark] = ()

    @property
    def title(self) -> str:
        """The pair and the period."""
        start, end = moment(self.times[0]), moment(self.times[-1])
        last = f"{end:%H:%M}" if start.date() == end.date() else f"{end:%Y-%m-%d %H:%M}"
        return f"{self.pair} isolated margin, {start:%Y-%m-%d %H:%M} to {last} UTC"

    @property
    def quote(self) -> str:
        """The currency of the prices."""
        return self.pair.partition("/")[2]

    @property
    def owes_nothing(self) -> bool:
        """Whether there is no debt in all of the time, and so no level to draw."""
        return all(level is None for level in self.margin_level)

    @property
    def logarithmic(self) -> bool:
        """Whether the level's axis is: a small debt has a huge level, beside which no limit would be seen."""
        return max((level for level in self.margin_level if level), default=0) > _LOG_FROM * self.full_above

    @property
    def level_range(self) -> tuple[float, float]:
        """The least and the greatest that the level's axis shows, its limits among it."""
        shown = [*(level for level in self.margin_level if level is not None)]
        low, high = min([*shown, self.block_below]), max([*shown, self.full_above])
        if self.logarithmic:
            return max(low, 0.1) / 1.15, high * 1.15
        return max(low - 0.08 * (high - low), 0), high + 0.08 * (high - low)

    @property
    def level_ticks(self) -> list[float]:
        """The levels that a logarithmic axis is marked with: 1, 2, 5, 10, 20 and so on."""
        low, high = self.level_range
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = (step * 10.0**decade for decade in decades for step in (1, 2, 5))
        return [tick for tick in ticks if low <= tick <= high]

    @property
    def price_range(self) -> tuple[float, float]:
        """The least and the greatest that the prices' axis shows, marks included."""
        shown = [price for price in (*self.index_price, *self.liquidation_price) if price is not None]
        shown += [mark.price for mark in self.marks]
        room = 0.06 * (max(shown) - min(shown)) or 0.01 * max(shown)
        return max(min(shown) - room, 0), max(shown) + room


@dataclass(frozen=True)
class Look:
    """The colours of a theme: those of Okabe and Ito, which everybody can tell apart."""

    paper: str
    ink: str
    grid: str
    index_price: str
    liquidation_price: str
    margin_level: str
    limit: str
    entry: str
    exit: str
    shades: Mapping[Outcome, str]


LOOKS = {
    "light": Look(
        paper="#FFFFFF",
        ink="#222222",
        grid="#DDDDDD",
        index_price="#0072B2",
        liquidation_price="#D55E00",
        margin_level="#0072B2",
        limit="#555555",
        entry="#009E73",
        exit="#CC79A7",
        shades={Outcome.SHRINK: "#E69F00", Outcome.BLOCK: "#D55E00"},
    ),
    "dark": Look(
        paper="#15181C",
        ink="#E6E6E6",
        grid="#343A42",
        index_price="#56B4E9",
        liquidation_price="#D55E00",
        margin_level="#56B4E9",
        limit="#B0B0B0",
        entry="#009E73",
        exit="#CC79A7",
        shades={Outcome.SHRINK: "#E69F00", Outcome.BLOCK: "#D55E00"},
    ),
}
SHADE_LABELS = {Outcome.SHRINK: "entries shrunk", Outcome.BLOCK: "entries blocked"}
