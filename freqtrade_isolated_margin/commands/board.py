"""What `watch` shows: a row for each pair, sorted by danger, drawn to fit a terminal of any size."""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_DOWN, Decimal, localcontext
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from freqtrade_isolated_margin.account.records import PairAccount
from freqtrade_isolated_margin.commands.sources import kind_of
from freqtrade_isolated_margin.commands.status import STYLES
from freqtrade_isolated_margin.rules.decide import EntryDecision, Outcome, Reading, Rule, decide
from freqtrade_isolated_margin.rules.rules import Rules

SECONDS_KEPT = 3600.0
"""How far back the margin levels go that are shown."""

# Without the full block, so that the lines of two rows do not touch.
_BARS = "▁▂▃▄▅▆▇"
# A level that moves by less than this share of itself is drawn as still.
_STILL = 0.02
_STEPS = (1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0)
# By so much a row must be more dangerous than one above it before the rows are sorted anew.
_OUT_OF_PLACE = 0.95


# ----- rows


@dataclass(frozen=True, slots=True)
class Row:
    """One pair: the verdict of now, and the newest figures there are, however old."""

    decision: EntryDecision
    status: str | None = None
    level: Decimal | None = None
    """As reported; None without debt."""
    index_price: Decimal | None = None
    liquidation_price: Decimal | None = None
    distance: Decimal | None = None
    """A fraction of the index price, as it is judged; None where no price liquidates."""
    age_seconds: float | None = None
    """None if nothing was ever read."""
    is_old: bool = False
    rank: int = 0
    """0 with debt, 1 where that cannot be told, 2 without debt, 3 without account."""
    rules: Rules = field(default_factory=Rules)

    @property
    def pair(self) -> str:
        """The pair's name."""
        return self.decision.pair

    @property
    def group(self) -> tuple[bool, int]:
        """What it is sorted by first: the blocked, and then those that owe."""
        return not self.decision.blocks, self.rank

    @property
    def danger(self) -> tuple[float, float, str]:
        """What it is sorted by within its group, the most dangerous first."""
        distance = math.inf if self.distance is None else float(self.distance)
        level = math.inf if self.level is None else float(self.level)
        return distance, level, self.pair


def row_of(decision: EntryDecision, reading: Reading, rules: Rules, max_age_seconds: float) -> Row:
    """Return what is shown of a pair with this verdict, which was found by this reading."""
    row = reading.row
    age = None if row is None else reading.age_seconds
    is_old = decision.rule is Rule.MAX_AGE
    kind = kind_of(row)
    if not isinstance(row, PairAccount) or kind == "absent":
        rank = 3 if kind == "absent" else 1
        return Row(decision, age_seconds=age, is_old=is_old, rank=rank, rules=rules)
    figures = decision
    if is_old:
        # What was known stays on the screen, and so does the pair in its place.
        young = reading._replace(age_seconds=0.0)
        figures = decide(decision.pair, decision.side, young, rules, max_age_seconds)
    owes = row.has_debt
    return Row(
        decision=decision,
        status=str(row.margin_level_status),
        level=row.margin_level if owes else None,
        index_price=row.index_price,
        liquidation_price=row.liquidation_price,
        distance=figures.liquidation_distance if owes else None,
        age_seconds=age,
        is_old=is_old,
        rank=0 if owes else 2,
        rules=rules,
    )


class Order:
    """Sorts rows by danger, and leaves them where they are as long as that is nearly right.

    They are sorted anew when a pair comes or goes, when a row belongs to another group (its verdict
    changed, say), or when one is more than 5 % closer to its liquidation than a row above it.
    """

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def sorted(self, rows: Iterable[Row]) -> list[Row]:
        """Return the rows, the most dangerous first."""
        by_pair = {row.pair: row for row in rows}
        if by_pair.keys() == self._places.keys():
            kept = [by_pair[pair] for pair in self._places]
            if _nearly_sorted(kept):
                return kept
        new = sorted(by_pair.values(), key=lambda row: (row.group, row.danger))
        self._places = {row.pair: place for place, row in enumerate(new)}
        return new


def _nearly_sorted(rows: Sequence[Row]) -> bool:
    highest = [0.0, 0.0]
    for before, row in zip([None, *rows], rows, strict=False):
        if before and before.group > row.group:
            return False
        if before is None or before.group < row.group:
            highest = [0.0, 0.0]
        distance, level, _ = row.danger
        # By the level only where there is no distance: the two would disagree for ever.
        if distance < highest[0] * _OUT_OF_PLACE:
            return False
        if distance == highest[0] == math.inf and level < highest[1] * _OUT_OF_PLACE:
            return False
        highest = [max(highest[0], distance), max(highest[1], level) if distance == math.inf else 0.0]
    return True


# ----- the margin level over time


def sparkline(values: Sequence[float | None]) -> str:
    """Draw one bar for each value, from the lowest to the highest of them, and a blank for None.

    Where they differ by less than 2 % they are drawn as what they are: nearly the same.
    """
    known = [value for value in values if value is not None]
    if not known:
        return " " * len(values)
    low, high = min(known), max(known)
    span = max(high - low, _STILL * abs(high)) or 1.0
    # What hardly moves is drawn in the middle.
    lift = (1 - (high - low) / span) / 2
    top = len(_BARS) - 1
    return "".join(
        " " if value is None else _BARS[min(int(((value - low) / span + lift) * len(_BARS)), top)]
        for value in values
    )


class Sample(NamedTuple):
    """A pair's margin level as of one read, in UNIX time; None without debt."""

    at: float
    level: float | None


class Levels:
    """The margin levels of the last hour."""

    def __init__(self, refresh_seconds: float, max_age_seconds: float) -> None:
        # Not finer than what is read.
        self._steps = [step for step in _STEPS if step >= refresh_seconds] or [refresh_seconds]
        self._max_age = max_age_seconds
        self._samples: dict[str, list[Sample]] = defaultdict(list)

    def add(self, pair: str, samples: Iterable[Sample]) -> None:
        """Take in what was read of a pair, in any order."""
        held = self._samples[pair]
        for sample in samples:
            insort(held, sample, key=lambda held: held.at)
        newest = held[-1].at if held else 0.0
        del held[: bisect_right(held, newest - SECONDS_KEPT - self._max_age, key=lambda held: held.at)]

    def moments(self, now: float, places: int) -> list[float]:
        """Return as many moments up to now as there are places, as close together as shows all there is.

        They lie on a grid, so that the bars do not change their shape while they move.
        """
        oldest = min((held[0].at for held in self._samples.values() if held), default=now)
        step = next((step for step in self._steps if step * places >= now - oldest), self._steps[-1])
        last = math.ceil(now / step) * step
        return [min(last - step * back, now) for back in reversed(range(places))]

    def values(self, pair: str, moments: Sequence[float]) -> list[float | None]:
        """Return the pair's level as it was known at each moment; None where it was not."""
        held = self._samples.get(pair, [])
        # As long as the grid is wide; only its last step may be shorter.
        longest = max(self._max_age, moments[1] - moments[0] if len(moments) > 1 else 0.0)
        found: list[float | None] = []
        for moment in moments:
            place = bisect_right(held, moment, key=lambda sample: sample.at) - 1
            known = place >= 0 and moment - held[place].at <= longest
            found.append(held[place].level if known else None)
        return found


# ----- the picture


@dataclass(frozen=True, slots=True)
class View:
    """All that there is to see at one moment."""

    now: datetime
    rows: Sequence[Row]
    levels: Levels
    read_age: float | None
    """Seconds since the newest read was asked for; None if there was none."""
    max_age_seconds: float
    trouble: str | None = None
    used_weight: int | None = None
    weight_limit: int = 0
    notes: Sequence[str] = ()


_GAP = 2
_BETWEEN = " · "
_COLUMNS = (
    "Pair",
    "Status",
    "Level",
    "Trend",
    "Index price",
    "Liquidation",
    "Distance",
    "Entry",
    "Age",
    "Why",
)
# What a narrow terminal shows first.
_IMPORTANCE = (
    "Pair",
    "Entry",
    "Level",
    "Distance",
    "Trend",
    "Why",
    "Age",
    "Liquidation",
    "Index price",
    "Status",
)
_RIGHT = {"Level", "Index price", "Liquidation", "Distance", "Age"}
# Wide enough for what comes, so that the columns do not move with every digit.
_LEAST = {"Level": 6, "Distance": 8, "Entry": 13, "Age": 6, "Trend": 10, "Why": 24}
# Who gets what is left, up to which width.
_GROWTH = (("Trend", 20), ("Why", 80), ("Trend", 60), ("Why", 1000))
_ROOMY_HEIGHT = 12


def draw(view: View, width: int, height: int) -> RenderableType:
    """Draw the view into `height` lines of `width` cells; no line is longer."""
    lines: list[RenderableType] = [_head(view, width)]
    if view.trouble and height > 1:
        lines += _wrapped(f"! {view.trouble}", "bold red", width, max(1, min(3, height // 4)))
    foot: list[Text] = []
    if height >= _ROOMY_HEIGHT:
        lines.append(Text())
        notes = [*view.notes, "q or Ctrl-C ends it"]
        foot = [Text(), *(_cut(Text(note, style="dim"), width) for note in notes)]
    elif view.notes and height > len(lines):
        foot = [_cut(Text(view.notes[0], style="dim"), width)]
    room = height - len(lines) - len(foot) - 1
    if view.rows and room > 0:
        shown = len(view.rows) if len(view.rows) <= room else room - 1
        lines.append(_table(view, max(shown, 1), width))
        if shown < len(view.rows) and room > 1:
            lines.append(_cut(Text(_hidden(view.rows[shown:]), style="dim"), width))
    return Group(*lines, *foot)


def _head(view: View, width: int) -> Text:
    head = Text().append("Isolated margin", style="bold")
    old = view.read_age is not None and view.read_age > view.max_age_seconds
    age = "not read yet" if view.read_age is None else f"read {duration(view.read_age)} ago"
    parts = [
        Text(f"{view.now:%H:%M:%S} UTC"),
        Text(age, style="bold red" if old else ""),
        Text(_counted(view.rows)),
        Text("" if view.used_weight is None else f"weight {view.used_weight} of {view.weight_limit}"),
    ]
    for part in parts:
        if part and head.cell_len + part.cell_len + len(_BETWEEN) <= width:
            head.append(_BETWEEN, style="dim").append_text(part)
    return _cut(head, width)


def _counted(rows: Iterable[Row]) -> str:
    counts = Counter(row.decision.outcome for row in rows)
    outcomes = Outcome.BLOCK, Outcome.SHRINK, Outcome.ALLOW
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in outcomes if counts[outcome])


def _hidden(rows: Sequence[Row]) -> str:
    return f"… and {len(rows)} more ({_counted(rows)})"


def _table(view: View, shown: int, width: int) -> Table:
    cells = [_cells(row) for row in view.rows]
    widths = _fit(cells, width)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    moments = view.levels.moments(view.now.timestamp(), widths.get("Trend", 1))
    for name, column in widths.items():
        title = _span_of(moments) if name == "Trend" else name
        table.add_column(
            _cut(Text(title), column),
            width=column,
            no_wrap=True,
            justify="right" if name in _RIGHT else "left",
        )
    for row, texts in zip(view.rows[:shown], cells, strict=False):
        values = view.levels.values(row.pair, moments)
        texts["Trend"] = _trend(values, row.rules)
        table.add_row(*(_cut(texts[name], column) for name, column in widths.items()))
    return table


def _fit(cells: Sequence[dict[str, Text]], width: int) -> dict[str, int]:
    """Return the columns that fit, in the order in which they stand, and how wide each is."""
    wanted = {
        name: max(_LEAST.get(name, 0), *(row[name].cell_len for row in cells), cell_len(name))
        for name in _COLUMNS
        if name not in {"Trend", "Why"}
    } | {"Trend": _LEAST["Trend"], "Why": _LEAST["Why"]}
    chosen: dict[str, int] = {}
    left = width + _GAP
    for name in _IMPORTANCE:
        if wanted[name] + _GAP <= left:
            chosen[name] = wanted[name]
            left -= wanted[name] + _GAP
        elif not chosen:
            # Not even the first: as much of it as there is.
            return {name: max(width, 1)}
    for name, most in _GROWTH:
        if name in chosen:
            more = min(left, max(most - chosen[name], 0))
            chosen[name] += more
            left -= more
    return {name: chosen[name] for name in _COLUMNS if name in chosen}


def _cells(row: Row) -> dict[str, Text]:
    decision = row.decision
    share = f" × {_fixed(decision.factor, 2)}" if decision.outcome is Outcome.SHRINK else ""
    style = "dim" if row.is_old else ""

    def text(content: str | None) -> Text:
        return Text("–" if content is None else content, style=style)

    def number(value: Decimal | None, write: Callable[[Decimal], str]) -> Text:
        return text(None if value is None else write(value))

    return {
        "Pair": Text(row.pair),
        "Status": text(row.status.replace("_", " ").lower() if row.status else None),
        "Level": number(row.level, lambda level: _fixed(level, 3)),
        "Index price": number(row.index_price, _price),
        "Liquidation": number(row.liquidation_price, _price),
        "Distance": number(row.distance, lambda room: f"{_fixed(room * 100, 2)} %"),
        "Entry": Text(f"{decision.outcome}{share}", style=STYLES[decision.outcome]),
        "Age": Text(
            "–" if row.age_seconds is None else duration(row.age_seconds),
            style="bold red" if row.is_old else "",
        ),
        "Why": Text("; ".join(decision.reasons)),
    }


def _trend(values: Sequence[float | None], rules: Rules) -> Text:
    """Draw the levels in the colours of their limits, which say nothing that the figures do not."""
    low, high = float(rules.margin_level.block_below), float(rules.margin_level.full_above)
    text = Text()
    for bar, value in zip(sparkline(values), values, strict=True):
        if value is None:
            text.append(bar)
        else:
            outcome = Outcome.BLOCK if value <= low else Outcome.ALLOW if value >= high else Outcome.SHRINK
            text.append(bar, style=STYLES[outcome])
    return text


def _span_of(moments: Sequence[float]) -> str:
    step = moments[1] - moments[0] if len(moments) > 1 else 0.0
    return f"Last {duration(step * len(moments))}"


def _fixed(value: Decimal, places: int) -> str:
    """Write `value` cut to `places`, never rounded, its zeros kept: the points stand below each other."""
    with localcontext(rounding=ROUND_DOWN):
        return f"{value:.{places}f}"


def _price(value: Decimal) -> str:
    """Write a price with six digits that count."""
    return _fixed(value, max(5 - value.adjusted(), 0) if value else 0)


def duration(seconds: float) -> str:
    """Write a time span in its one or two largest units."""
    whole = max(round(seconds), 0)
    if whole < 120:  # noqa: PLR2004 - two minutes: what is cut off then is not half of it
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 100:  # noqa: PLR2004 - two digits
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h" if hours < 100 else f"{hours // 24} d"  # noqa: PLR2004 - two digits


def _cut(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    text.no_wrap = True
    return text


def _wrapped(content: str, style: str, width: int, most: int) -> list[Text]:
    """Break a text at its blanks into at most so many lines; the last one is cut."""
    console = Console(width=width, color_system=None)
    lines = list(Text(content, style=style).wrap(console, width))
    for line in lines:
        line.rstrip()
    if len(lines) > most:
        rest = Text(" ".join(line.plain for line in lines[most - 1 :]), style=style)
        lines[most - 1 :] = [rest]
    return [_cut(line, width) for line in lines]
