"""The command `plot`, from a real history and a real trade database to the page and the picture."""

from __future__ import annotations

import json
import re
import struct
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support import builders

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.account.records import Absent, Row
from freqtrade_isolated_margin.binance.clock import milliseconds
from freqtrade_isolated_margin.commands import plot, plot_html, plot_png
from freqtrade_isolated_margin.commands.chart import LOOKS, Chart, Mark, Shade
from freqtrade_isolated_margin.commands.cli import main
from freqtrade_isolated_margin.commands.plot import load_chart
from freqtrade_isolated_margin.history.asking import History
from freqtrade_isolated_margin.history.writing import NewDecision, NewRead, Writer
from freqtrade_isolated_margin.rules.decide import EntryDecision, Outcome, Rule
from freqtrade_isolated_margin.rules.settings import Settings

KEY = "0a1b2c3d"
PAIR = "BTC/USDT"
NOW = milliseconds(datetime.now(UTC)) // 60_000 * 60_000
MINUTE = 60_000
T0 = NOW - 60 * MINUTE
SHRINK, BLOCK = Outcome.SHRINK, Outcome.BLOCK


class Folder:
    """A working folder with a configuration and a history, and the command run in it."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self._capsys = capsys
        self.config = {
            "dry_run": True,
            "stake_currency": "USDT",
            "stake_amount": 100,
            "max_open_trades": 3,
            "exchange": {"name": "binance", "pair_whitelist": [PAIR]},
            "user_data_dir": str(path / "user_data"),
        }
        (path / "user_data").mkdir()
        self.write_config()
        self.history = History(f"sqlite:///{path / 'user_data' / 'isolated_margin.sqlite'}")
        self.history.prepare()

    def write_config(self, **more: Any) -> None:
        """Write the configuration, changed by `more`."""
        (self.path / "config.json").write_text(json.dumps(self.config | more))

    def run(self, *words: str) -> tuple[int, str, str]:
        """Run `plot`; return its status, output and errors."""
        self._capsys.readouterr()
        status = main(["plot", "-c", "config.json", *words])
        return status, *self._capsys.readouterr()

    def chart(self, section: object = None, pair: str = PAIR, since: int = T0) -> Chart:
        """Return what would be drawn."""
        return load_chart(self.config, Settings.load(section), pair, since)


@pytest.fixture
def folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Folder]:
    """A folder with an empty history."""
    monkeypatch.chdir(tmp_path)
    made = Folder(tmp_path, capsys)
    yield made
    made.history.close()


def store(writer: Writer, minutes: range, row: Row, *, every: int = 30_000) -> None:
    """Store an account for these minutes."""
    times = range(T0 + minutes.start * MINUTE, T0 + minutes.stop * MINUTE, every)
    writer.write([NewRead(at, lambda: 0, {PAIR: row}, {}) for at in times])


def decided(minute: float, outcome: Outcome) -> NewDecision:
    """A decision, so many minutes after the beginning."""
    factor = {"allow": Decimal(1), "shrink": Decimal("0.5"), "block": Decimal(0)}[outcome]
    at = round(T0 + minute * MINUTE)
    return NewDecision(at, EntryDecision.because(PAIR, Side.LONG, factor, Rule.LEVEL, "why"))


def order(side: str, minute: float, price: float, *, filled: float = 1, is_short: bool = False) -> None:
    """Store an order in freqtrade's own database, by freqtrade's own classes."""
    from freqtrade.persistence import Order, Trade  # noqa: PLC0415 - takes seconds
    from freqtrade.persistence.models import init_db  # noqa: PLC0415

    init_db("sqlite:///tradesv3.dryrun.sqlite")
    at = datetime.fromtimestamp((T0 + minute * MINUTE) / 1000, UTC)
    trade = Trade(
        pair=PAIR,
        exchange="binance",
        stake_amount=100,
        amount=1,
        open_rate=price,
        fee_open=0,
        fee_close=0,
        is_short=is_short,
    )
    trade.orders.append(
        Order(
            ft_order_side=side,
            ft_pair=PAIR,
            ft_is_open=False,
            ft_amount=1,
            ft_price=price,
            order_id=f"{side}{minute}",
            status="closed",
            filled=filled,
            average=price,
            order_date=at,
            order_filled_date=at,
        )
    )
    Trade.session.add(trade)
    Trade.commit()
    Trade.session.remove()


def drawn_chart(**more: Any) -> Chart:
    """A small chart with everything in it."""
    given: dict[str, Any] = {
        "pair": PAIR,
        "times": [T0 + minute * MINUTE for minute in range(6)],
        "index_price": [50_000, 49_000, None, 48_000, 47_000, 47_500],
        "liquidation_price": [30_000, 31_000, None, 32_000, None, None],
        "margin_level": [1.9, 1.5, None, 1.2, None, None],
        "block_below": 1.25,
        "full_above": 2.0,
        "shades": [
            Shade(T0, T0 + MINUTE, SHRINK),
            Shade(T0 + MINUTE, T0 + 2 * MINUTE, BLOCK),
            Shade(T0 + 3 * MINUTE, T0 + 4 * MINUTE, BLOCK),
        ],
        "marks": [Mark(T0 + MINUTE, 49_000.0, "entry"), Mark(T0 + 3 * MINUTE, 48_000.0, "exit")],
    }
    return Chart(**given | more)


# ----- what is drawn


def test_series_are_those_of_the_history_and_gaps_stay(folder: Folder) -> None:
    """Prices and levels are the recorded ones; without debt there is no level; unread times are gaps."""
    writer = folder.history.writer(KEY, "bot")
    owing = builders.parsed(builders.long_row(3))
    store(writer, range(10), owing)
    store(writer, range(20, 30), builders.parsed(builders.row(base_total=1, index=60_000)))
    chart = folder.chart()
    series = zip(chart.index_price, chart.liquidation_price, chart.margin_level, strict=True)
    shown = {round((at - T0) / MINUTE, 3): values for at, values in zip(chart.times, series, strict=True)}
    assert {values for minute, values in shown.items() if minute < 10} == {(50_000.0, 17_500.0, 3.0)}
    assert {values for minute, values in shown.items() if 10.6 < minute < 19.9} == {(None, None, None)}
    assert {values for minute, values in shown.items() if minute > 20.1} == {(60_000.0, None, None)}


def test_dust_is_drawn_as_no_debt(folder: Folder) -> None:
    """A level of 999 and a price beyond sense would press every other line flat."""
    dust = builders.parsed(builders.dust_row("99999999999999999999"))
    store(folder.history.writer(KEY, "bot"), range(10), dust)
    chart = folder.chart()
    assert set(chart.index_price) == {50_000.0}
    assert set(chart.margin_level) == set(chart.liquidation_price) == {None}


def test_a_long_time_is_drawn_with_at_most_2000_moments(folder: Folder) -> None:
    """The moments are evenly spaced and the newest is the last read."""
    writer = folder.history.writer(KEY, "bot")
    store(writer, range(60), builders.parsed(builders.long_row(3)), every=1000)
    times = folder.chart().times
    assert 1700 < len(times) <= 2000
    assert times[-1] == T0 + 60 * MINUTE - 1000
    assert len({later - earlier for earlier, later in pairwise(times)}) == 1


def test_a_decision_stands_until_the_next_and_two_minutes_at_most(folder: Folder) -> None:
    """Blocks and shrinks end with their session's next decision; a block wins over another bot's shrink."""
    writer, other = folder.history.writer(KEY, "bot"), folder.history.writer(KEY, "other")
    store(writer, range(60), builders.parsed(builders.long_row(3)))
    blocks = [decided(10, SHRINK), decided(11, BLOCK), decided(12.5, Outcome.ALLOW), decided(30, BLOCK)]
    writer.write([], blocks)
    other.write([], [decided(29, SHRINK), decided(30.5, SHRINK), decided(32, SHRINK)])
    spans = [
        ((shade.start - T0) / MINUTE, (shade.end - T0) / MINUTE, shade.outcome)
        for shade in folder.chart().shades
    ]
    assert spans == [(10, 11, SHRINK), (11, 12.5, BLOCK), (29, 30, SHRINK), (30, 32, BLOCK), (32, 34, SHRINK)]


def test_a_decision_from_before_the_beginning_still_stands(folder: Folder) -> None:
    """It is shaded from the beginning on."""
    writer = folder.history.writer(KEY, "bot")
    store(writer, range(60), builders.parsed(builders.long_row(3)))
    writer.write([], [decided(9, BLOCK)])
    chart = folder.chart(since=T0 + 10 * MINUTE)
    (shade,) = chart.shades
    assert (shade.start, shade.end) == (chart.times[0], T0 + 11 * MINUTE)


def test_limits_are_the_pairs_own(folder: Folder) -> None:
    """A pair's rules win over the common ones."""
    store(folder.history.writer(KEY, "bot"), range(5), builders.parsed(builders.long_row(3)))
    rules = {"margin_level": {"block_below": 1.5, "full_above": 2.5}}
    chart = folder.chart({"pairs": {PAIR: rules}})
    assert (chart.block_below, chart.full_above) == (1.5, 2.5)


def test_the_bots_filled_orders_are_marked(folder: Folder) -> None:
    """A buy enters a long and a sell enters a short; what was not filled or is older is not there."""
    store(folder.history.writer(KEY, "bot"), range(60), builders.parsed(builders.long_row(3)))
    order("buy", 5, 50_000)
    order("sell", 9, 51_000)
    order("sell", 12, 52_000, is_short=True)
    order("stoploss", 15, 49_000)
    order("buy", 20, 48_000, filled=0)
    order("buy", -5, 47_000)
    marks = [((mark.at - T0) / MINUTE, mark.price, mark.kind) for mark in folder.chart().marks]
    assert marks == [(5, 50_000, "entry"), (9, 51_000, "exit"), (12, 52_000, "entry"), (15, 49_000, "exit")]


def test_the_trade_database_can_be_named(folder: Folder) -> None:
    """As to freqtrade itself, with `--db-url`: the picture of another that is not there has no marks."""
    store(folder.history.writer(KEY, "bot"), range(60), builders.parsed(builders.long_row(3)))
    order("buy", 5, 50_000)
    named = {"a": "sqlite:///tradesv3.dryrun.sqlite", "b": "sqlite:///other.sqlite"}
    for name, url in named.items():
        assert folder.run(PAIR, "-o", f"{name}.html", "--db-url", url)[0] == 0
    pages = {name: (folder.path / f"{name}.html").read_text() for name in named}
    assert ["the bot's entry" in page for page in pages.values()] == [True, False]


def test_an_error_of_its_own_is_no_traceback(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said in one line, with exit status 2."""
    store(folder.history.writer(KEY, "bot"), range(60), builders.parsed(builders.long_row(3)))

    def fail(*_: object) -> None:
        raise RuntimeError("geheim")

    monkeypatch.setattr(plot, "_draw", fail)
    status, out, err = folder.run(PAIR, "-o", "a.png")
    assert (status, out) == (2, "")
    assert err.startswith("error: unexpected RuntimeError (test_plot.py:")
    assert err.count("\n") == 1


def test_a_trade_database_that_is_none_only_costs_the_marks(folder: Folder) -> None:
    """The account is drawn, and a warning says what is missing."""
    store(folder.history.writer(KEY, "bot"), range(60), builders.parsed(builders.long_row(3)))
    (folder.path / "tradesv3.dryrun.sqlite").write_text("this is no database, but quite long enough" * 50)
    status, out, err = folder.run(PAIR, "-o", "a.png")
    assert (status, out) == (0, "a.png\n")
    assert "warning: the bot's trades cannot be shown (DatabaseError)" in err


# ----- the page


def test_the_page_shows_series_spans_limits_and_marks() -> None:
    """Each series is a trace with its gaps; each outcome has a hatch of its own on both panels."""
    chart = drawn_chart()
    figure = plot_html.build(chart, LOOKS["light"])
    traces = {(trace.name, trace.yaxis): trace for trace in figure.data}
    assert list(traces["index price", "y"].y) == list(chart.index_price)
    assert list(traces["liquidation price", "y"].y) == list(chart.liquidation_price)
    assert list(traces["margin level", "y2"].y) == list(chart.margin_level)
    assert traces["the bot's entry", "y"].marker.symbol == "triangle-up"
    assert traces["the bot's exit", "y"].marker.symbol == "triangle-down"
    for axis in ("y", "y2"):
        blocked, shrunk = traces["entries blocked", axis], traces["entries shrunk", axis]
        assert blocked.fillpattern.shape != shrunk.fillpattern.shape
        # Two spans of six points each, a gap after each.
        assert [at is None for at in blocked.x].count(True) == 2
        assert blocked.x[0] == plot_html._text(T0 + MINUTE)
    assert sorted(line.y0 for line in figure.layout.shapes) == [1.25, 2.0]
    assert sorted(note.text for note in figure.layout.annotations) == ["block_below 1.25", "full_above 2"]
    assert figure.layout.yaxis.title.text == "price (USDT)"
    assert figure.layout.xaxis2.title.text == "time (UTC)"


def test_the_page_needs_nothing_from_elsewhere(folder: Folder) -> None:
    """No element of the page loads anything, and plotly.js is in it."""
    store(folder.history.writer(KEY, "bot"), range(60), builders.parsed(builders.long_row(3)))
    status, out, _ = folder.run(PAIR)
    page = folder.path / "user_data" / "plot" / "isolated-margin-BTC_USDT.html"
    assert (status, out) == (0, f"{page}\n")
    text = page.read_text()
    assert "plotly.js v" in text
    assert not re.search(r"<(script|img|iframe|link)\b[^>]*\b(src|href)\s*=\s*[\"']?https?:", text)
    assert not re.search(r"<(script|iframe|link)\b[^>]*\b(src|href)=", text.partition("plotly.js v")[0])


# ----- the picture


def test_the_picture_shows_series_spans_limits_and_marks() -> None:
    """The same as on the page."""
    chart = drawn_chart()
    top, bottom = plot_png.build(chart, LOOKS["dark"]).axes
    lines = {line.get_label(): list(line.get_ydata()) for line in (*top.lines, *bottom.lines)}
    assert [None if value != value else value for value in lines["index price"]] == chart.index_price  # noqa: PLR0124 - NaN
    assert [None if value != value else value for value in lines["margin level"]] == chart.margin_level  # noqa: PLR0124
    assert lines["the bot's entry"] == [49_000]
    assert lines["the bot's exit"] == [48_000]
    assert {line.get_marker() for line in top.lines} >= {"^", "v"}
    for axes in (top, bottom):
        assert len(axes.patches) == 3
        assert len({patch.get_hatch() for patch in axes.patches}) == 2
    assert [text.get_text() for text in bottom.texts] == ["block_below 1.25", "full_above 2"]
    legend = [text.get_text() for text in top.figure.legends[0].get_texts()]
    assert legend == [
        "index price",
        "liquidation price",
        "the bot's entry",
        "the bot's exit",
        "entries blocked",
        "entries shrunk",
    ]
    assert (top.get_ylabel(), bottom.get_xlabel()) == ("price (USDT)", "time (UTC)")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_picture_is_a_png_of_its_size(theme: str) -> None:
    """1200 by 800 pixels."""
    drawn = plot_png.draw(drawn_chart(), LOOKS[theme])
    assert drawn.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", drawn[16:24]) == (plot_png.WIDTH, plot_png.HEIGHT) == (1200, 800)


@pytest.mark.parametrize("renderer", [plot_html, plot_png])
@pytest.mark.parametrize(
    "more",
    [
        {"margin_level": [500.0] * 6},
        {"margin_level": [None] * 6, "liquidation_price": [None] * 6, "shades": [], "marks": []},
        {"index_price": [0.00001234] * 6, "liquidation_price": [None] * 6, "marks": []},
    ],
    ids=["tiny debt", "no debt", "tiny price"],
)
def test_every_account_can_be_drawn(renderer: Any, more: dict[str, Any]) -> None:
    """A level of 500 gets an axis on which the limits can still be seen; no debt draws no level."""
    chart = drawn_chart(**more)
    assert renderer.draw(chart, LOOKS["light"])
    assert chart.logarithmic == (chart.margin_level[0] == 500)


def test_an_empty_panel_says_that_nothing_is_owed() -> None:
    """Only where there was no debt in all of the time."""
    for levels, said in (([None] * 6, True), ([None] * 5 + [3.0], False)):
        chart = drawn_chart(margin_level=levels)
        page, picture = (drawer.build(chart, LOOKS["light"]) for drawer in (plot_html, plot_png))
        assert ("no debt" in [note.text for note in page.layout.annotations]) == said
        assert ("no debt" in [text.get_text() for text in picture.axes[1].texts]) == said


def test_the_names_of_the_limits_hide_nothing() -> None:
    """They stand beside the panel, one above its line and the other below, and within the picture."""
    picture = plot_png.build(drawn_chart(), LOOKS["light"])
    picture.canvas.draw()
    panel = picture.axes[1].get_window_extent()
    low, high = (text.get_window_extent() for text in picture.axes[1].texts)
    assert panel.x1 <= low.x0 < low.x1 <= plot_png.WIDTH
    assert high.x1 <= plot_png.WIDTH
    assert low.y1 <= high.y0
    page = plot_html.build(drawn_chart(), LOOKS["light"])
    assert {(note.text, note.yanchor) for note in page.layout.annotations if note.x > 1} == {
        ("block_below 1.25", "top"),
        ("full_above 2", "bottom"),
    }


def test_a_wide_range_of_levels_has_ticks_that_can_be_read() -> None:
    """Both draw the same: 1, 2, 5, 10 and so on."""
    chart = drawn_chart(margin_level=[60.0, 3.0, None, 1.5, 2.0, None])
    ticks = [2, 5, 10, 20, 50]
    assert chart.level_ticks == pytest.approx(ticks)
    assert list(plot_html.build(chart, LOOKS["light"]).layout.yaxis2.tickvals) == pytest.approx(ticks)
    assert list(plot_png.build(chart, LOOKS["light"]).axes[1].get_yticks()) == pytest.approx(ticks)


def test_a_tiny_price_is_written_without_an_exponent() -> None:
    """As an exchange writes it."""
    assert plot_png._price(0.0000095, 0) == "0.0000095"
    assert plot_png._price(100_000.0, 0) == "100,000"
    assert plot_png._price(0.0, 0) == "0"


# ----- what goes wrong


def test_a_pair_without_history_is_refused(folder: Folder) -> None:
    """The message names the pair and the period, and what there is."""
    store(folder.history.writer(KEY, "bot"), range(60), builders.parsed(builders.long_row(3)))
    status, out, err = folder.run("ETH/USDT")
    assert (status, out) == (2, "")
    assert re.search(
        r"the history has no account of ETH/USDT from .* UTC to .* UTC; at its end it has BTC/USDT$",
        err.strip(),
    )


def test_an_account_that_is_absent_has_nothing_to_draw(folder: Folder) -> None:
    """It was read, but there are no prices in it."""
    store(folder.history.writer(KEY, "bot"), range(60), Absent("no isolated margin account"))
    status, _, err = folder.run(PAIR)
    assert status == 2
    assert "the history has no account of BTC/USDT" in err


def test_a_read_from_the_far_future_is_left_out(folder: Folder) -> None:
    """As of a clock that was wrong for a while: the chart ends with what was read until now."""
    writer = folder.history.writer(KEY, "bot")
    store(writer, range(60), builders.parsed(builders.long_row("1.5")))
    ahead = milliseconds(datetime.now(UTC)) + 30 * 24 * 60 * MINUTE
    writer.write([NewRead(ahead, lambda: 0, {PAIR: builders.parsed(builders.long_row("1.5"))}, {})])
    assert folder.chart().times[-1] == T0 + 60 * MINUTE - 30_000


def test_a_bots_own_decisions_are_shaded(folder: Folder) -> None:
    """Not those of another one that shares the database."""
    store(folder.history.writer(KEY, "bot"), range(10), builders.parsed(builders.long_row("1.5")))
    minutes = range(10)
    folder.history.writer(KEY, "freqtrade").write([], [decided(minute, Outcome.ALLOW) for minute in minutes])
    folder.history.writer(KEY, "strict").write([], [decided(minute, Outcome.BLOCK) for minute in minutes])
    assert folder.chart().shades == []
    folder.config["bot_name"] = "strict"
    assert [shade.outcome for shade in folder.chart().shades] == [Outcome.BLOCK]


def test_no_history_at_all_is_refused(folder: Folder) -> None:
    """An empty database, a missing one and a switched-off one are told apart."""
    assert "holds no accounts yet" in folder.run(PAIR)[2]
    folder.write_config(isolated_margin={"history": False})
    assert "history is off" in folder.run(PAIR)[2]
    folder.write_config(isolated_margin={"history": {"db_url": "sqlite:///nowhere.sqlite"}})
    status, _, err = folder.run(PAIR)
    assert status == 2
    assert "there is no history yet (nowhere.sqlite does not exist)" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "a.svg"], "must end in .html or .png"),
        (["--since", "tomorrow"], "--since 'tomorrow'"),
        (["--since", "1m"], "the history ends at"),
        (["-o", "config.json/a.png"], "cannot be written"),
    ],
)
def test_what_cannot_be_done_is_said(folder: Folder, words: list[str], said: str) -> None:
    """In one line, with exit status 2."""
    store(folder.history.writer(KEY, "bot"), range(30), builders.parsed(builders.long_row(3)))
    status, out, err = folder.run(PAIR, *words)
    assert (status, out) == (2, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(("kind", "library"), [("html", "plotly"), ("png", "matplotlib")])
def test_a_missing_library_is_named(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, kind: str, library: str
) -> None:
    """With the command that installs it."""
    store(folder.history.writer(KEY, "bot"), range(60), builders.parsed(builders.long_row(3)))
    for module in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"freqtrade_isolated_margin.commands.plot_{kind}")
    monkeypatch.delattr(sys.modules["freqtrade_isolated_margin.commands"], f"plot_{kind}")
    status, _, err = folder.run(PAIR, "-o", f"a.{kind}")
    assert status == 2
    assert f"needs {library}" in err
    assert "pip install 'freqtrade-isolated-margin[plot]'" in err
