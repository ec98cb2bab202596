"""What charts show: the value of each candle is what was known at its close."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from math import isnan, nan
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st
from support.builders import dust_row, long_row, parsed, placeholder, row

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.account.records import Absent, PairAccount, Row, Unreadable
from freqtrade_isolated_margin.binance.clock import Moment, milliseconds
from freqtrade_isolated_margin.binance.reader import Snapshot
from freqtrade_isolated_margin.history.asking import History
from freqtrade_isolated_margin.history.blocks import Span, blocked_spans
from freqtrade_isolated_margin.history.writing import NewDecision, NewRead
from freqtrade_isolated_margin.hosts.candles import LiveCandles
from freqtrade_isolated_margin.hosts.columns import (
    COLUMNS,
    PLOT_CONFIG,
    UNKNOWN,
    Values,
    merged_plot_config,
    shaded,
    values_of,
)
from freqtrade_isolated_margin.rules.decide import EntryDecision, Reading, decide
from freqtrade_isolated_margin.rules.rules import Rules
from freqtrade_isolated_margin.rules.settings import Settings

PAIR = "BTC/USDT"
KEY = "0a1b2c3d"
MINUTE = 60_000
# A whole minute.
T0 = 1_800_000_000_000


def account(level: str = "3", **more: Any) -> PairAccount:
    """A pair's account that owes something."""
    built = parsed(long_row(level, **more))
    assert isinstance(built, PairAccount)
    return built


def verdict(record: Row, **rules: Any) -> EntryDecision:
    """What an entry into BTC/USDT may be."""
    return decide(PAIR, Side.LONG, Reading(record), Rules(**rules), 60)


def level_at(values: Values) -> float | None:
    """Return the margin level, None where it is unknown."""
    return None if isnan(values.margin_level) else values.margin_level


class Chart:
    """The candles of one pair, one minute each; times are in seconds after the beginning."""

    def __init__(self, **section: Any) -> None:
        self.candles = LiveCandles(Settings.load(section), 60)

    def read(self, second: float, record: Row | str, pair: str = PAIR) -> None:
        """Let a read succeed that was asked for then."""
        record = account(record) if isinstance(record, str) else record
        asked = Moment(second, T0 / 1000 + second)
        self.candles.succeeded(Snapshot(asked, {pair: record}, {}))

    def at(self, *closes: int, pair: str = PAIR) -> list[Values]:
        """Return the values of the candles that close then."""
        return self.candles.values(pair, [T0 + close * 1000 for close in closes])

    def levels(self, *closes: int) -> list[float | None]:
        """Return their margin levels."""
        return [level_at(values) for values in self.at(*closes)]


# ----- the values of one account


def test_an_account_with_debt_has_all_values() -> None:
    """As floats of what was reported, and the stake factor of a long entry."""
    record = account("1.6", index=50_000)
    values = values_of(record, verdict(record))
    assert values[:3] == (1.6, float(record.liquidate_price), 50_000)
    assert 0 < values.margin_stake_factor < 1
    assert values.liquidation_price == pytest.approx(50_000 * 1.05 / 1.6)


def test_without_debt_there_is_no_level_and_no_liquidation() -> None:
    """Whatever the row says of them."""
    record = parsed(row(base_total=1))
    level, liquidation, index, factor = values_of(record, verdict(record))
    assert (isnan(level), isnan(liquidation), index, factor) == (True, True, 50_000, 1)


@pytest.mark.parametrize("printed", ["0", "99999999999999999999"])
def test_dust_is_drawn_as_no_debt(printed: str) -> None:
    """A level of 999 and a price beyond sense would press every other line flat."""
    record = parsed(dust_row(printed))
    level, liquidation, index, factor = values_of(record, verdict(record))
    assert (isnan(level), isnan(liquidation), index, factor) == (True, True, 50_000, 1)


@pytest.mark.parametrize("record", [Absent("none"), parsed(placeholder())])
@pytest.mark.parametrize(("rule", "factor"), [("allow", 1), ("block", 0)])
def test_without_an_account_there_is_the_stake_factor_only(record: Row, rule: str, factor: int) -> None:
    """As `without_account` says."""
    values = values_of(record, verdict(record, without_account=rule))
    assert all(isnan(value) for value in values[:3])
    assert values.margin_stake_factor == factor


def test_what_is_unreadable_blocks() -> None:
    """That much is known of it; of what was never read nothing is."""
    record = Unreadable("broken")
    assert values_of(record, verdict(record)).margin_stake_factor == 0
    assert all(isnan(value) for value in values_of(None, verdict(record)))


def test_no_price_liquidates_a_debt_that_is_covered_in_kind() -> None:
    """Then there is no liquidation price."""
    record = parsed(row(base_total=1, quote_total=5000, quote_debt=1000))
    values = values_of(record, verdict(record))
    assert isnan(values.liquidation_price)
    assert values.margin_level == 55


# ----- as of each close


def test_a_read_at_the_close_counts_and_one_after_it_does_not() -> None:
    """To the millisecond."""
    chart = Chart()
    chart.read(30, "3")
    chart.read(60, "2.5")
    chart.read(120.001, "2")
    assert chart.levels(0, 60, 120) == [None, 2.5, 2.5]
    chart.read(125, "1.9")
    assert chart.levels(0, 60, 120) == [None, 2.5, 2.5]


def test_the_candle_that_closes_now_has_the_newest_value_at_once() -> None:
    """It is analysed before there is another read, and keeps its value afterwards."""
    chart = Chart()
    chart.read(55, "3")
    assert chart.levels(60, 120) == [3, None]
    chart.read(65, "2")
    assert chart.levels(60, 120) == [3, 2]


def test_what_is_too_old_at_the_close_is_unknown() -> None:
    """As old as the limit is still known."""
    chart = Chart(max_age_seconds=20)
    chart.read(40, "3")
    assert chart.levels(60) == [3]
    chart.read(99, "2.5")
    assert chart.levels(60, 120) == [3, None]
    chart.read(300, "2")
    assert chart.levels(60, 120, 180, 240, 300) == [3, None, None, None, 2]


def test_a_candle_before_the_first_read_is_unknown() -> None:
    """So is one of a pair that was never read, and one of the far future."""
    chart = Chart()
    assert chart.at(0, 60) == [UNKNOWN, UNKNOWN]
    chart.read(100, "3")
    assert chart.levels(0, 60, 120, 6000) == [None, None, 3, None]
    assert chart.at(120, pair="ETH/USDT") == [UNKNOWN]


def test_a_longer_candle_has_what_was_known_at_its_end() -> None:
    """Of five minutes, the last seconds count."""
    candles = LiveCandles(Settings.load({}), 300)
    for second in range(0, 1000, 10):
        asked = Moment(second, T0 / 1000 + second)
        candles.succeeded(Snapshot(asked, {PAIR: account(f"{2 + second / 1000:.3f}")}, {}))
    closes = [T0 + second * 1000 for second in (300, 600, 900)]
    assert [level_at(values) for values in candles.values(PAIR, closes)] == [2.3, 2.6, 2.9]


def test_a_failure_makes_nothing_known_or_unknown() -> None:
    """What was read goes on ageing."""
    chart = Chart()
    chart.read(30, "3")
    chart.candles.failed("it is on fire")
    assert chart.levels(60) == [3]


def test_each_pair_has_the_time_at_which_it_was_asked_for() -> None:
    """A follower's pairs were not all read at once."""
    chart = Chart(max_age_seconds=20)
    asked = Moment(60.0, T0 / 1000 + 60)
    rows: dict[str, Row] = {PAIR: account("3"), "ETH/USDT": account("2", symbol="ETHUSDT")}
    chart.candles.succeeded(Snapshot(asked, rows, {}, moments={PAIR: asked.before(30)}))
    assert chart.at(60) == [UNKNOWN]
    assert level_at(chart.at(60, pair="ETH/USDT")[0]) == 2


def test_a_follower_that_sees_the_same_read_again_changes_nothing() -> None:
    """Its moment is estimated anew each time, by milliseconds."""
    chart = Chart()
    for second in (59.999, 59.998, 59.997, 64.0):
        chart.read(second, "3")
    chart.read(70, "2")
    assert chart.levels(60) == [3]


def test_other_limits_change_the_factor_from_then_on() -> None:
    """What was shown of candles before remains."""
    chart = Chart()
    chart.read(50, "1.5")
    chart.read(110, "1.5")
    before = chart.at(60)
    chart.candles.settings = Settings.load({"margin_level": {"block_below": 1.55}})
    assert chart.at(60) == before
    assert chart.at(120)[0].margin_stake_factor == 0 != before[0].margin_stake_factor


@how(max_examples=150)
@given(
    reads=st.lists(st.tuples(st.integers(1, 200_000), st.sampled_from(["3", "2", None])), max_size=20),
    max_age=st.sampled_from([11, 60, 130]),
    data=st.data(),
)
def test_every_candle_agrees_with_a_simple_model(
    reads: list[tuple[int, str | None]], max_age: int, data: st.DataObject
) -> None:
    """Asked at any time: the newest read at or before the close, if it is not too old."""
    chart = Chart(max_age_seconds=max_age)
    done: list[tuple[int, str | None]] = []
    at = 0
    for wait, level in reads:
        # Often exactly at a close.
        at = -(-(at + wait) // MINUTE) * MINUTE if data.draw(st.booleans()) else at + wait
        chart.read(at / 1000, account(level) if level else Unreadable("broken"))
        done.append((at, level))
        closes = range(0, at + 3 * MINUTE, MINUTE)
        found = chart.candles.values(PAIR, [T0 + close for close in closes])
        for close, values in zip(closes, found, strict=True):
            known = [item for item in done if item[0] <= close <= item[0] + max_age * 1000]
            newest = known[-1] if known and known[-1] == max(i for i in done if i[0] <= close) else None
            if newest is None:
                assert values is UNKNOWN
            elif newest[1] is None:
                assert (level_at(values), values.margin_stake_factor) == (None, 0)
            else:
                assert level_at(values) == float(newest[1])


def test_it_may_be_asked_while_it_is_told() -> None:
    """From another thread, a candle that was known once is never unknown."""
    chart = Chart()
    chart.read(50, "3")
    ended = threading.Event()
    missing: list[int] = []

    def ask() -> None:
        while not ended.is_set():
            known = chart.candles._newest[PAIR].read_at
            close = known // MINUTE * MINUTE
            if close > T0 and chart.candles.values(PAIR, [close]) == [UNKNOWN]:
                missing.append(close)

    thread = threading.Thread(target=ask)
    thread.start()
    for second in range(60, 30_000, 35):
        chart.read(second, "3")
    ended.set()
    thread.join()
    assert missing == []


def test_the_memory_of_candles_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go."""
    monkeypatch.setattr("freqtrade_isolated_margin.hosts.candles._MOST_CANDLES", 3)
    chart = Chart()
    for minute in range(6):
        chart.read(60 * minute, "3")
    assert chart.levels(0, 60, 120, 180, 240, 300) == [None, None, 3, 3, 3, 3]


# ----- from the history


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    """An empty history."""
    made = History(f"sqlite:///{tmp_path / 'h.sqlite'}")
    made.prepare()
    yield made
    made.close()


@pytest.fixture
def stored(history: History) -> Callable[..., None]:
    """Return a function that stores a read, and a decision with it, at the close of some minutes ago."""
    writer = history.writer(KEY, "bot")

    def store(minutes_ago: float, level: str, *, seconds_before: int = 5) -> None:
        at = _this_minute() - round(minutes_ago * MINUTE) - seconds_before * 1000
        record = account(level)
        writer.write([NewRead(at, lambda: 0, {PAIR: record}, {})], [NewDecision(at, verdict(record))])

    return store


def _this_minute() -> int:
    return milliseconds(datetime.now(UTC)) // MINUTE * MINUTE


def test_what_was_stored_before_is_recalled(history: History, stored: Callable[..., None]) -> None:
    """Its values are those that a run without a break would show, and so are the blocks."""
    for minutes_ago, level in ((9, "3"), (8, "1.2"), (7, "1.2"), (5, "2.5")):
        stored(minutes_ago, level)
    now = _this_minute()
    closes = [now - minute * MINUTE for minute in (10, 9, 8, 7, 6, 5)]
    candles = LiveCandles(Settings.load({}), 60)
    assert candles.unrecalled([PAIR, "A/B"]) == ["A/B", PAIR]
    candles.recall(history, [KEY], PAIR, 100)
    assert candles.unrecalled([PAIR]) == []
    assert [level_at(values) for values in candles.values(PAIR, closes)] == [None, 3, 1.2, 1.2, None, 2.5]
    assert [values.margin_stake_factor for values in candles.values(PAIR, closes)][2:4] == [0, 0]
    (span,) = candles.blocked(PAIR)
    assert span.start == now - 8 * MINUTE - 5000


def test_what_this_run_has_seen_wins_over_what_was_stored(
    history: History, stored: Callable[..., None]
) -> None:
    """A pair that joins later is recalled later; its candles stay in order, its blocks are joined."""
    stored(5, "1.2")
    stored(3, "1.2")
    now = _this_minute()
    candles = LiveCandles(Settings.load({}), 60)
    for minutes_ago in (3, 2):
        asked = Moment(0.0, (now - minutes_ago * MINUTE) / 1000)
        candles.succeeded(Snapshot(asked, {PAIR: account("1.1")}, {}))
    candles.decided(verdict(account("1.1")), now - 3 * MINUTE)
    candles.recall(history, [KEY], PAIR, 100)
    closes = [now - minute * MINUTE for minute in (5, 4, 3, 2)]
    assert [level_at(values) for values in candles.values(PAIR, closes)] == [1.2, None, 1.1, 1.1]
    assert list(candles._closed[PAIR]) == sorted(candles._closed[PAIR])
    (span,) = candles.blocked(PAIR)
    assert (span.start, span.end) == (now - 5 * MINUTE - 5000, now - MINUTE - 5000)


def test_pairs_that_come_and_go_do_not_fill_the_memory(history: History) -> None:
    """Those that were left long ago are forgotten, and recalled when they come back."""
    chart = Chart()
    for number in range(300):
        chart.read(number * 60, "3", f"A{number}/USDT")
    held = chart.candles
    assert len(held._newest) <= 52
    assert len(held._closed) <= 52
    assert chart.at(299 * 60, pair="A299/USDT")[0].margin_level == 3
    held.recall(history, [KEY], "A299/USDT", 10)
    assert held.unrecalled(["A299/USDT"]) == []
    for number in range(300, 360):
        chart.read(number * 60, "3", f"A{number}/USDT")
    assert held.unrecalled(["A299/USDT"]) == ["A299/USDT"]


def test_a_bots_chart_shows_its_own_blocks(history: History) -> None:
    """Where others have stricter limits; of a bot that has decided nothing it shows everybody's."""
    bad, good = verdict(account("1.1")), verdict(account("3"))
    for second in range(0, 600, 60):
        history.writer(KEY, "mild").write([], [NewDecision(T0 + second * 1000, good)])
        history.writer(KEY, "strict").write([], [NewDecision(T0 + second * 1000, bad)])
    found = {
        bot: bool(blocked_spans(history, [KEY], PAIR, T0, T0 + 600_000, bot))
        for bot in ("mild", "strict", "new")
    }
    assert found == {"mild": False, "strict": True, "new": True}


def test_blocks_end_with_the_last_decision(history: History) -> None:
    """One that was not renewed is believed for two minutes."""
    one, other = history.writer(KEY, "one"), history.writer(KEY, "other")
    bad, good = verdict(account("1.1")), verdict(account("3"))

    def write(writer: Any, second: int, decision: EntryDecision) -> None:
        writer.write([], [NewDecision(T0 + second * 1000, decision)])

    write(one, 0, bad)
    write(one, 60, bad)
    write(other, 70, bad)
    write(one, 90, good)
    write(other, 130, good)
    write(one, 1000, bad)
    spans = blocked_spans(history, [KEY], PAIR, T0, T0 + 2_000_000, "bot")
    assert [((span.start - T0) / 1000, (span.end - T0) / 1000) for span in spans] == [(0, 130), (1000, 1120)]
    assert blocked_spans(history, ["ffffffff"], PAIR, T0, T0 + 2_000_000, "bot") == []


# ----- shades


def _candles(*factors: float) -> list[tuple[datetime, float]]:
    start = datetime.fromtimestamp(T0 / 1000, UTC)
    return [(start + timedelta(minutes=number), factor) for number, factor in enumerate(factors)]


def _minutes(areas: list[Any]) -> list[tuple[float, float]]:
    start = datetime.fromtimestamp(T0 / 1000, UTC)
    return [
        ((area["start"] - start) / timedelta(minutes=1), (area["end"] - start) / timedelta(minutes=1))
        for area in areas
    ]


def test_candles_with_a_factor_of_zero_are_shaded_and_joined() -> None:
    """Neither an unknown nor a small one is."""
    areas = shaded(_candles(1, 0, 0, nan, 0.001, 0), timedelta(minutes=1), [])
    assert _minutes(areas) == [(1, 3), (5, 6)]
    assert {area["type"] for area in areas} == {"area"}


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 1, [(0, 1)]),
        (59_999, 60_001, [(0, 2)]),
        (60_000, 60_001, [(1, 2)]),
        (-5, 0, []),
        (30_000, 150_000, [(0, 3)]),
        (180_000, 190_000, []),
    ],
)
def test_candles_in_which_entries_were_blocked_for_a_while_are_shaded(
    start: int, end: int, expected: list[Any]
) -> None:
    """Also where their closes were free; the end of a span is not in it."""
    areas = shaded(_candles(1, 1, 1), timedelta(minutes=1), [Span(T0 + start, T0 + end)])
    assert _minutes(areas) == expected


def test_a_gap_in_the_candles_ends_a_shade() -> None:
    """As where the exchange had none."""
    candles = [*_candles(0, 0, 0)]
    del candles[1]
    assert _minutes(shaded(candles, timedelta(minutes=1), [])) == [(0, 1), (2, 3)]


def test_decisions_of_a_run_become_spans() -> None:
    """Those that follow within two minutes are one block, others are another."""
    chart = Chart()
    for second, level in ((0, "1.1"), (5, "1.1"), (60, "1.1"), (65, "3"), (500, "1.1")):
        chart.candles.decided(verdict(account(level)), T0 + second * 1000)
    assert chart.candles.blocked(PAIR) == [Span(T0, T0 + 60_001), Span(T0 + 500_000, T0 + 500_001)]
    assert chart.candles.blocked("ETH/USDT") == []


# ----- plot_config


def test_the_fragment_names_every_column() -> None:
    """And nothing else."""
    shown = {
        *PLOT_CONFIG["main_plot"],
        *(name for lines in PLOT_CONFIG["subplots"].values() for name in lines),
    }
    assert shown == set(COLUMNS)


@pytest.mark.parametrize("own", [None, {}, {"main_plot": None}, {"subplots": {}}])
def test_an_empty_plot_config_becomes_the_fragment(own: Any) -> None:
    """Whatever emptiness it is."""
    assert merged_plot_config(own) == PLOT_CONFIG


def test_what_a_strategy_plots_itself_stays_as_it_is() -> None:
    """Its own columns, order and settings, what it says of the guard's, and what is not known here."""
    own = {
        "main_plot": {"ema": {"color": "red"}, "liquidation_price": {"color": "black"}},
        "subplots": {"Margin level": {"rsi": {}}, "Mine": {"margin_stake_factor": {"type": "bar"}}},
        "more": 1,
    }
    merged = merged_plot_config(own)
    assert list(merged["main_plot"]) == ["ema", "liquidation_price", "index_price"]
    assert merged["main_plot"]["liquidation_price"] == {"color": "black"}
    assert merged["subplots"] == own["subplots"]
    assert merged["more"] == 1
    merged["main_plot"]["index_price"]["color"] = "changed"
    assert "index_price" not in own["main_plot"]
    assert PLOT_CONFIG["main_plot"]["index_price"] != {"color": "changed"}
