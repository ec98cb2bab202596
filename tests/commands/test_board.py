"""What `watch` draws: lines, order and the fit to a terminal, without one."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from support.builders import account, dust_row, parsed, placeholder

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.account.records import Absent, Unreadable
from freqtrade_isolated_margin.commands.board import (
    Levels,
    Order,
    Row,
    Sample,
    View,
    draw,
    duration,
    row_of,
    sparkline,
)
from freqtrade_isolated_margin.rules.decide import Outcome, Reading, decide
from freqtrade_isolated_margin.rules.rules import Rules

BARS = "▁▂▃▄▅▆▇"
RULES = Rules()
NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
MAX_AGE = 60.0
LEVELS = st.floats(min_value=0, max_value=1e20)


# ----- sparklines


@given(st.lists(st.none() | LEVELS, max_size=80))
def test_a_line_has_one_bar_for_each_value_and_blanks_in_the_gaps(values: list[float | None]) -> None:
    """Whatever the values are."""
    drawn = sparkline(values)
    assert len(drawn) == len(values)
    assert [bar == " " for bar in drawn] == [value is None for value in values]
    assert set(drawn) <= set(BARS + " ")


@given(st.lists(LEVELS, min_size=1, max_size=80))
def test_a_higher_value_never_has_a_lower_bar(values: list[float]) -> None:
    """So what only rises is drawn as rising."""
    bars = [BARS.index(bar) for bar in sparkline(values)]
    pairs = sorted(zip(values, bars, strict=True))
    assert [bar for _, bar in pairs] == sorted(bars)


@given(LEVELS, st.integers(min_value=1, max_value=40))
def test_a_level_that_stands_still_is_a_line_in_the_middle(level: float, length: int) -> None:
    """One value as well as many."""
    assert sparkline([level] * length) == "▄" * length


@given(st.floats(min_value=1, max_value=1000), st.lists(st.floats(min_value=-1, max_value=1), min_size=1))
def test_a_small_wiggle_is_not_drawn_as_a_fall(level: float, moves: list[float]) -> None:
    """Half a percent of the level moves the line by no more than two steps."""
    bars = [BARS.index(bar) for bar in sparkline([level * (1 + move * 0.0025) for move in moves])]
    assert max(bars) - min(bars) <= 2


def test_a_line_uses_the_whole_height_for_what_moves() -> None:
    """From the lowest to the highest, also over a huge range, where the low ones are all at the bottom."""
    assert sparkline([1.0, None, 2.0]) == "▁ ▇"
    assert sparkline([1, 2, 3, 4, 5, 6, 7]) == BARS
    assert sparkline([1.1, 1.2, 999, 1e20]) == "▁▁▁▇"
    assert sparkline([]) == ""
    assert sparkline([None, None]) == "  "


# ----- the levels over time


def test_levels_are_what_was_known_at_each_moment() -> None:
    """The newest read at or before it, unless that is too old: an outage is a gap."""
    levels = Levels(10, 25)
    levels.add("BTC/USDT", [Sample(1040.0, 2.0), Sample(1000.0, 3.0), Sample(1010.0, 2.5)])
    moments = levels.moments(1050.0, 6)
    assert moments == [1000, 1010, 1020, 1030, 1040, 1050]
    assert levels.values("BTC/USDT", moments) == [3.0, 2.5, 2.5, 2.5, 2.0, 2.0]
    assert levels.values("BTC/USDT", [1035, 1036]) == [2.5, None]
    assert levels.values("ETH/USDT", moments) == [None] * 6


@given(
    st.floats(min_value=1e6, max_value=2e9),
    st.floats(min_value=0, max_value=7200),
    st.integers(min_value=1, max_value=60),
    st.floats(min_value=0.5, max_value=3600),
)
def test_moments_are_in_order_up_to_now(now: float, known: float, places: int, refresh: float) -> None:
    """As many as there are places, never one that is still to come."""
    levels = Levels(refresh, 4000)
    levels.add("BTC/USDT", [Sample(now - known, 2.0)])
    moments = levels.moments(now, places)
    assert len(moments) == places
    assert moments == sorted(moments)
    assert moments[-1] == now


@pytest.mark.parametrize("second", [0.0, 0.1, 15.0, 29.9])
def test_bars_that_are_wider_than_an_account_may_be_old_have_no_gaps(second: float) -> None:
    """Wherever in its last bar the present moment is."""
    now = 10_000 * 60.0 + second
    levels = Levels(1, 2)
    levels.add("BTC/USDT", [Sample(now - 10 * back, 2.0) for back in range(1, 180)])
    moments = levels.moments(now, 60)
    assert moments[1] - moments[0] == 30
    assert levels.values("BTC/USDT", moments)[1:] == [2.0] * 59


def test_the_bars_stand_on_a_grid() -> None:
    """A second later all but the last are those of the same moments."""
    levels = Levels(10, 25)
    levels.add("BTC/USDT", [Sample(1000.0, 3.0)])
    assert levels.moments(1052.0, 6)[:-1] == levels.moments(1053.0, 6)[:-1]


def test_all_that_is_known_is_shown_until_it_is_an_hour() -> None:
    """The more there is, the more time each bar stands for; what is older is forgotten."""
    levels = Levels(2, 25)
    levels.add("BTC/USDT", [Sample(1000.0, 3.0)])
    spans = [now - levels.moments(now, 60)[0] for now in (1010.0, 1200.0, 4000.0, 9000.0)]
    assert spans == [118, 295, 3520, 3540]
    levels.add("BTC/USDT", [Sample(9000.0, 2.0)])
    assert levels._samples["BTC/USDT"] == [Sample(9000.0, 2.0)]


# ----- rows and their order


def row_at(pair: str, level: str, *, age: float = 1.0, **more: Any) -> Row:
    """The row of a long with this margin level."""
    owed = more.pop("quote_debt", 1000)
    symbol = pair.replace("/", "")
    held = account(symbol=symbol, base_total=Decimal(level) * owed / 50_000, quote_debt=owed, **more)
    reading = Reading(held, age)
    return row_of(decide(pair, Side.LONG, reading, RULES, MAX_AGE), reading, RULES, MAX_AGE)


def row_without(pair: str, row: Any) -> Row:
    """The row of a pair with whatever was read of it."""
    reading = Reading(row, 1.0)
    return row_of(decide(pair, Side.LONG, reading, RULES, MAX_AGE), reading, RULES, MAX_AGE)


def test_dust_has_a_level_and_neither_a_liquidation_price_nor_a_distance() -> None:
    """What is printed as its liquidation price means nothing."""
    row = row_without("BTC/USDT", parsed(dust_row("50001")))
    assert (row.level, row.liquidation_price, row.distance) == (999, None, None)
    assert row.decision.outcome is Outcome.ALLOW


def names(rows: Sequence[Row]) -> list[str]:
    """Return the first letters of the pairs."""
    return [row.pair.partition("/")[0] for row in rows]


def test_the_most_dangerous_stand_first() -> None:
    """The blocked, then by the distance; then what owes nothing, and then what has no account."""
    rows = [
        row_without("NONE/USDT", parsed(placeholder("NONEUSDT"))),
        row_without("GONE/USDT", Absent("no isolated margin account")),
        row_without("FREE/USDT", account(symbol="FREEUSDT", base_total=1)),
        row_at("FAR/USDT", "3"),
        row_at("NEAR/USDT", "1.4"),
        row_without("ODD/USDT", Unreadable("it makes no sense")),
        row_at("WORST/USDT", "1.1"),
        row_at("CALL/USDT", "2", status="MARGIN_CALL"),
    ]
    expected = ["WORST", "CALL", "ODD", "NEAR", "FAR", "FREE", "GONE", "NONE"]
    assert names(Order().sorted(rows)) == expected
    assert names(Order().sorted(reversed(rows))) == expected


def test_rows_that_are_nearly_in_order_stay_where_they_are() -> None:
    """Until one is 5 % closer to its liquidation than one above it."""
    order = Order()
    assert names(order.sorted([row_at("A/USDT", "1.70"), row_at("B/USDT", "1.71")])) == ["A", "B"]
    assert names(order.sorted([row_at("A/USDT", "1.71"), row_at("B/USDT", "1.70")])) == ["A", "B"]
    assert names(order.sorted([row_at("A/USDT", "1.90"), row_at("B/USDT", "1.70")])) == ["B", "A"]


def test_many_small_steps_out_of_order_add_up() -> None:
    """Neighbours that are nearly in order do not hide that the last is far from its place."""
    order = Order()
    letters = "ABCDEFGH"
    order.sorted([row_at(f"{name}/USDT", f"{1.6 + place / 50:.2f}") for place, name in enumerate(letters)])
    back = [row_at(f"{name}/USDT", f"{1.8 - place / 50:.2f}") for place, name in enumerate(letters)]
    assert names(order.sorted(back)) == list(reversed(letters))


def test_a_verdict_that_changes_moves_its_row_at_once() -> None:
    """So does a pair that comes or goes."""
    order = Order()
    assert names(order.sorted([row_at("A/USDT", "1.26"), row_at("B/USDT", "1.27")])) == ["A", "B"]
    assert names(order.sorted([row_at("A/USDT", "1.26"), row_at("B/USDT", "1.25")])) == ["B", "A"]
    assert names(order.sorted([row_at("A/USDT", "1.26")])) == ["A"]


def test_pairs_that_no_price_liquidates_are_sorted_by_their_level() -> None:
    """They have no distance, and stand after those that have one."""
    safe = {"quote_total": 2000, "quote_debt": 1000, "index": 50_000}
    higher = row_without("B/USDT", account(symbol="BUSDT", **(safe | {"quote_total": 3000})))
    lower = row_without("A/USDT", account(symbol="AUSDT", **safe))
    assert lower.distance is higher.distance is None
    order = Order()
    assert names(order.sorted([higher, lower, row_at("C/USDT", "9")])) == ["C", "A", "B"]
    assert names(order.sorted([higher, lower, row_at("C/USDT", "9")])) == ["C", "A", "B"]


def test_what_is_too_old_keeps_its_figures() -> None:
    """The verdict is a block, and the row says how old it is."""
    young, old = row_at("A/USDT", "1.7"), row_at("A/USDT", "1.7", age=61)
    assert old.decision.outcome is Outcome.BLOCK
    assert old.is_old
    assert (old.level, old.distance, old.status) == (young.level, young.distance, young.status)
    assert old.age_seconds == 61


# ----- the picture


def view(rows: Sequence[Row], **more: Any) -> View:
    """A view of these rows, with ten minutes of levels that fall to what they are."""
    levels = Levels(10, MAX_AGE)
    for row in rows:
        if row.level is not None:
            held = float(row.level)
            start = NOW.timestamp() - 600
            levels.add(row.pair, [Sample(start + 10 * tick, held * (2 - tick / 60)) for tick in range(61)])
    seen: dict[str, Any] = {"read_age": 2.0, "max_age_seconds": MAX_AGE, "used_weight": 20} | more
    return View(now=NOW, rows=rows, levels=levels, weight_limit=12_000, **seen)


def drawn(seen: View, width: int, height: int, **more: Any) -> list[str]:
    """Draw on a terminal of this size; return its lines, as many as there are."""
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, **{"color_system": None, **more})
    console.print(draw(seen, width, height), end="")
    return out.getvalue().splitlines()


MANY = [
    row_at("SOL/USDT", "1.2"),
    row_at("XRP/USDT", "1.5", status="NORMAL"),
    row_at("1000SATS/USDT", "2.5"),
    row_without("ADA/USDT", account(symbol="ADAUSDT", base_total=1, index="0.38")),
    row_without("DOGE/USDT", Absent("no isolated margin account")),
    row_without("币安人生/USDT", Unreadable("its [bold]marginLevel[/] is no number")),
]
TROUBLE = (
    "Binance cannot be reached: the connection is refused; since 11:58:00 UTC, next attempt 12:00:30 UTC"
)


def test_a_wide_terminal_shows_everything() -> None:
    """Each pair on one line, with the words of the verdict and the reasons."""
    lines = drawn(view(MANY), 200, 20)
    assert lines[0].startswith(
        "Isolated margin · 12:00:00 UTC · read 2 s ago · 2 block, 1 shrink, 3 allow · weight 20 of 12000"
    )
    heads = lines[2].split("  ")
    assert [head.strip() for head in heads if head.strip()] == [
        *("Pair", "Status", "Level", "Last 12 min", "Index price", "Liquidation", "Distance", "Entry"),
        *("Age", "Why"),
    ]
    sol = lines[3]
    assert sol.startswith("SOL/USDT")
    for part in ("excessive", "1.200", "50000.0", "4", "block ", "1 s", "margin level 1.2 ≤ 1.25"):
        assert part in sol
    assert any(bar in sol for bar in BARS)
    assert "shrink × 0.33" in lines[4]
    assert "its [bold]marginLevel[/] is no number" in lines[8]


def test_a_narrow_terminal_shows_what_matters_most() -> None:
    """At 60 columns the pair, its verdict, its level, its distance and the line."""
    lines = drawn(view(MANY, trouble=TROUBLE), 60, 20)
    text = "\n".join(lines)
    for part in ("Pair", "Entry", "Level", "Distance", "Last ", "shrink × 0.33"):
        assert part in text
    assert "Why" not in text
    assert "next attempt 12:00:30 UTC" in text


def test_a_short_terminal_says_how_many_more_there_are() -> None:
    """The most dangerous are shown, and what the others may do is counted."""
    lines = drawn(view(MANY), 60, 6)
    assert len(lines) == 6
    assert [line.split()[0] for line in lines[2:5]] == ["SOL/USDT", "XRP/USDT", "1000SATS/USDT"]
    assert lines[5].startswith("… and 3 more (1 block, 2 allow)")


@pytest.mark.parametrize("trouble", [None, TROUBLE])
@pytest.mark.parametrize("rows", [MANY, MANY * 20, [], MANY[:1]], ids=["some", "many", "none", "one"])
def test_it_fits_a_terminal_of_any_size(rows: list[Row], trouble: str | None) -> None:
    """No line is longer than the terminal is wide, and there are not more lines than it has."""
    seen = view(rows, trouble=trouble, notes=["No pair to show: no account, or an empty whitelist."])
    for width in (1, 2, 7, 12, 20, 33, 41, 42, 53, 60, 79, 80, 100, 119, 120, 160, 250):
        for height in (2, 3, 4, 5, 8, 11, 12, 24, 50):
            lines = drawn(seen, width, height)
            assert len(lines) <= height, (width, height)
            assert max(map(cell_len, lines)) <= width, (width, height)


def test_no_line_wraps_before_the_last_one_is_cut() -> None:
    """A trouble that does not fit ends with an ellipsis."""
    lines = drawn(view(MANY, trouble=TROUBLE), 30, 8)
    assert lines[1] == "! Binance cannot be reached:"
    assert lines[2].endswith("…")


def test_the_verdict_is_a_word_and_no_color_takes_nothing_away() -> None:
    """Without colours the text is the same."""
    plain = drawn(view(MANY), 120, 20)
    coloured = drawn(view(MANY), 120, 20, color_system="truecolor", force_terminal=True, legacy_windows=False)
    assert any("\x1b[" in line for line in coloured)
    console = Console(width=120, height=20, force_terminal=True, no_color=True, file=io.StringIO())
    console.print(draw(view(MANY), 120, 20), end="")
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert not any(f"\x1b[{code}m" in shown for code in ("31", "32", "33", "1;31"))
    assert [line.split()[0] for line in plain if line.strip()][2:4] == ["SOL/USDT", "XRP/USDT"]


def test_it_says_that_nothing_was_read_yet() -> None:
    """And that the newest read is too old, in words and not only in red."""
    assert "not read yet" in drawn(view([], read_age=None, used_weight=None), 80, 10)[0]
    assert "read 5 min ago" in drawn(view([], read_age=312.0), 80, 10)[0]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((-1, "0 s"), (0, "0 s"), (59.6, "60 s"), (119, "119 s"), (130, "2 min")),
        *((5999, "99 min"), (7200, "2 h"), (400_000, "4 d")),
    ],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    """Never more than six characters, so that the column does not move."""
    assert duration(seconds) == text
    assert len(duration(seconds)) <= 6
