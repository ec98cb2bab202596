"""The accounts on freqtrade's own screens: its REST API, its plots, its web server, its analyses."""

from __future__ import annotations

import json
import sqlite3
from base64 import b64decode
from contextlib import closing
from datetime import UTC, datetime, timedelta
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from support import builders
from support.backtests import RANGE, write_candles
from support.bot import FreqtradeProcess, config_for, freqtrade
from support.network import until

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.account.records import PairAccount
from freqtrade_isolated_margin.binance.clock import milliseconds
from freqtrade_isolated_margin.history.asking import History
from freqtrade_isolated_margin.history.database import DEFAULT_FILE
from freqtrade_isolated_margin.history.writing import NewDecision, NewRead, key_id
from freqtrade_isolated_margin.hosts.columns import COLUMNS
from freqtrade_isolated_margin.localexchange import AccountSpec, LocalExchange, MarketSpec
from freqtrade_isolated_margin.rules.decide import Reading, decide
from freqtrade_isolated_margin.rules.rules import Rules

pytestmark = pytest.mark.timeout(300)

PAIR = "BTC/USDT"
MINUTE = 60_000

STRATEGY = """
class Tested(IsolatedMarginMixin, Base, IStrategy):
    plot_config = {"main_plot": {"mine": {"color": "red"}}, "subplots": {"Mine": {"mine": {}}}}

    def bot_loop_start(self, current_time, **kwargs):
        log.info("LOOP")

    def populate_indicators(self, dataframe, metadata):
        columns = self.margin_columns(dataframe, metadata["pair"], "margin_level", "margin_stake_factor")
        dataframe = dataframe.join(columns)
        dataframe["mine"] = dataframe["margin_level"] + 1
        return dataframe

    def populate_entry_trend(self, dataframe, metadata):
        # NaN, of what is not known, is not below it either.
        dataframe.loc[~(dataframe["margin_stake_factor"] < 0.5), "enter_long"] = 1
        return dataframe

    def plot_annotations(self, start_date, end_date, **kwargs):
        return [{"type": "area", "label": "mine", "start": start_date, "end": end_date}]
"""


@pytest.fixture(scope="module")
def exchange() -> Any:
    """Serve one pair at a price of 100, with a level of 1.2 that blocks."""
    with LocalExchange(scenario="calm", markets=[MarketSpec(PAIR, price="100")]) as exchange:
        exchange.set_account(PAIR, AccountSpec(base_free="12", quote_borrowed="1000"))
        yield exchange


def record(
    folder: Path, key: str, levels: dict[datetime, str], *, decided: bool = True
) -> dict[int, PairAccount]:
    """Record an account with these margin levels at these moments; return them in milliseconds."""
    (folder / "user_data").mkdir(exist_ok=True)
    history = History(f"sqlite:///{folder / 'user_data' / DEFAULT_FILE}")
    history.prepare()
    writer = history.writer(key, "an earlier run")
    stored: dict[int, PairAccount] = {}
    for moment, level in levels.items():
        account = builders.parsed(builders.long_row(level))
        assert isinstance(account, PairAccount)
        at = milliseconds(moment)
        decision = decide(PAIR, Side.LONG, Reading(account), Rules(), 60)
        writer.write(
            [NewRead(at, lambda: 0.0, {PAIR: account}, {})], [NewDecision(at, decision)] if decided else []
        )
        stored[at] = account
    history.close()
    return stored


def candles(bot: FreqtradeProcess, path: str = f"pair_candles?pair={PAIR}&timeframe=1m&limit=200") -> Any:
    """Return the candles that freqtrade's API shows, by their close in milliseconds, and the annotations."""
    answer = bot.api("GET", path)
    rows = [dict(zip(answer["columns"], row, strict=True)) for row in answer["data"]]
    length = timedelta(minutes=int(answer["timeframe"].rstrip("m")))
    found = {milliseconds(datetime.fromisoformat(row["date"]) + length): row for row in rows}
    return found, answer["annotations"]


def shown(row: dict[str, Any]) -> tuple[float | None, ...]:
    """Return the columns of one candle."""
    return tuple(row[name] for name in COLUMNS)


def spans(annotations: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Return from when to when candles are shaded."""
    shades = [area for area in annotations if area["label"] == "entries blocked"]
    times = [(datetime.fromisoformat(area["start"]), datetime.fromisoformat(area["end"])) for area in shades]
    return [(milliseconds(start), milliseconds(end)) for start, end in times]


def test_the_api_shows_what_was_known_at_each_close(exchange: LocalExchange, tmp_path: Path) -> None:
    """Of the run before, of this one, and the same again after a restart; over a candle's end."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    levels = {
        # Exactly at a close, after it, too old at the next, blocked.
        now - timedelta(minutes=30): "3",
        now - timedelta(minutes=28) + timedelta(milliseconds=1): "2.9",
        now - timedelta(minutes=20, seconds=4): "1.2",
        now - timedelta(minutes=19, seconds=4): "1.2",
        now - timedelta(minutes=10, seconds=2): "1.5",
    }
    stored = record(tmp_path, key_id(exchange.key), levels)
    config = config_for(exchange, [PAIR])
    with freqtrade(tmp_path, config, STRATEGY) as bot:
        bot.wait_for(f"{PAIR} long: block")
        line = bot.wait_for("LOOP")
        minute = datetime.now(UTC).minute
        while datetime.now(UTC).minute == minute:
            line = bot.wait_for("LOOP", after=line)
        for _ in range(3):
            line = bot.wait_for("LOOP", after=line)
        before, annotations = candles(bot)
        plot = bot.api("GET", "plot_config")
        # As a power failure would.
        bot.process.kill()
        bot.wait()
    last = max(before)
    assert last >= milliseconds(now)
    for close, row in before.items():
        known = [at for at in stored if at <= close <= at + 5000]
        if known:
            account = stored[max(known)]
            level, liquidation, index, factor = shown(row)
            assert (level, liquidation, index) == (
                float(account.margin_level), float(account.liquidate_price), float(account.index_price)
            )  # fmt: skip
            assert row["mine"] == level + 1
            assert factor == (1 if level >= 2 else 0 if level <= 1.25 else pytest.approx(1 / 3))
        elif close < milliseconds(now):
            assert shown(row) == (None, None, None, None)
    assert shown(before[last]) == (1.2, 87.5, 100, 0)
    minutes_ago = [
        round((milliseconds(now) - close) / MINUTE) for close, row in before.items() if row["mine"]
    ]
    assert [minute for minute in minutes_ago if minute > 5] == [30, 20, 19, 10]
    assert annotations[0]["label"] == "mine"
    shades = [tuple((milliseconds(now) - at) // MINUTE for at in span) for span in spans(annotations)]
    # Blocked from the first read on, and believed for two minutes after the last.
    assert (21, 18) in shades or (21, 17) in shades
    assert spans(annotations)[-1][1] == last
    assert list(plot["main_plot"]) == ["mine", "liquidation_price", "index_price"]
    assert list(plot["subplots"]) == ["Mine", "Margin level", "Stake factor"]
    with closing(sqlite3.connect(tmp_path / "user_data" / DEFAULT_FILE)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with freqtrade(tmp_path, config, STRATEGY) as bot:
        line = bot.wait_for("LOOP")
        bot.wait_for("LOOP", after=line)
        again, annotations = candles(bot)
    assert shown(before[last]) == shown(again[last])
    both = before.keys() & again.keys()
    assert len(both) > 100
    assert {close: shown(before[close]) for close in both} == {close: shown(again[close]) for close in both}
    assert [close for close in both if shown(again[close]) != (None, None, None, None)]
    assert "Traceback" not in bot.output


def recorded_day(folder: Path) -> dict[str, Any]:
    """Write candles, and an account that has level 3, and 1.2 in one hour; return a configuration."""
    write_candles(folder)
    start = datetime(2026, 1, 2, tzinfo=UTC)
    levels = {
        start + timedelta(minutes=minute): "1.2" if 600 <= minute < 660 else "3" for minute in range(1440)
    }
    record(folder, "0a1b2c3d", levels)
    return config_for(None, [PAIR], timeframe="5m")


FIVE = STRATEGY.replace("IStrategy):\n", "IStrategy):\n    timeframe = '5m'\n", 1)


def test_freqtrades_plots_show_what_was_recorded(exchange: LocalExchange, tmp_path: Path) -> None:
    """`plot-dataframe` draws the liquidation price on the candles and the margin level below."""
    pytest.importorskip("plotly")
    config = recorded_day(tmp_path)
    config["exchange"]["ccxt_config"]["urls"] = {"api": exchange.ccxt_urls}
    with freqtrade(
        tmp_path, config, FIVE, "plot-dataframe", "-p", PAIR, "--no-trades", "--timerange", "20260102-"
    ) as run:
        assert run.wait(120) == 0, run.output[-3000:]
    (page,) = (tmp_path / "user_data" / "plot").glob("*.html")
    traces = {trace["name"]: trace for trace in json.loads(_figure(page.read_text()))}
    assert {"mine", *COLUMNS} <= traces.keys()
    known = [level for level in _numbers(traces["margin_level"]["y"]) if not isnan(level)]
    # Of two days one is recorded, an hour of it at 1.2; at the last close the last read is a minute old.
    assert {level: known.count(level) for level in known} == {1.2: 12, 3: 275}


def _figure(page: str) -> str:
    """Return the list of traces within a page of Plotly's."""
    start = page.index("[", page.rindex("Plotly.newPlot("))
    return json.dumps(json.JSONDecoder().raw_decode(page[start:])[0])


def _numbers(values: Any) -> list[float]:
    """Return the numbers of a trace: Plotly packs them."""
    if isinstance(values, dict):
        return list(np.frombuffer(b64decode(values["bdata"]), values["dtype"]))
    return [nan if value is None else value for value in values]


def _answers(server: FreqtradeProcess) -> bool:
    try:
        return bool(server.api("GET", "ping"))
    except requests.ConnectionError:
        return False


def test_freqtrades_web_server_shows_what_was_recorded(exchange: LocalExchange, tmp_path: Path) -> None:
    """`pair_history` has the columns and the shades without a bot that runs."""
    config = recorded_day(tmp_path)
    config["exchange"]["ccxt_config"]["urls"] = {"api": exchange.ccxt_urls}
    with freqtrade(tmp_path, config, FIVE, "webserver") as server:
        until(lambda: _answers(server))
        path = f"pair_history?pair={PAIR}&timeframe=5m&timerange=20260102-20260103&strategy=Tested"
        found, annotations = candles(server, path)
        # After Ctrl-C it hangs for half a minute, with any strategy.
        server.process.kill()
    day = milliseconds(datetime(2026, 1, 2, tzinfo=UTC))
    at = {(close - day) // MINUTE: row for close, row in found.items()}
    assert shown(at[595])[0] == 3
    assert {shown(at[minute])[0] for minute in range(600, 660, 5)} == {1.2}
    assert shown(at[660])[0] == 3
    assert at[600]["margin_stake_factor"] == 0
    (shade,) = spans(annotations)
    assert [(edge - day) // MINUTE for edge in shade] == [595, 660]
    assert annotations[0]["label"] == "mine"


@pytest.mark.parametrize("recorded", [False, True])
def test_a_strategy_that_uses_the_columns_backtests(
    exchange: LocalExchange, tmp_path: Path, *, recorded: bool
) -> None:
    """They are empty, whether there is a history or not."""
    if recorded:
        config = recorded_day(tmp_path)
    else:
        write_candles(tmp_path)
        config = config_for(None, [PAIR], timeframe="5m")
    config["exchange"]["ccxt_config"]["urls"] = {"api": exchange.ccxt_urls}
    strategy = (
        FIVE.replace('log.info("LOOP")', "pass")
        .replace(
            "        return dataframe",
            '        log.info("KNOWN %s", dataframe["margin_level"].notna().sum())\n        return dataframe',
            1,
        )
        .replace("minimal_roi = {}", "")
    )
    with freqtrade(tmp_path, config, strategy, "backtesting", *RANGE) as run:
        assert run.wait(120) == 0, run.output[-3000:]
        run.wait_for("KNOWN 0$")
    assert "Tested" in run.output


@pytest.mark.parametrize("recorded", [False, True])
def test_lookahead_analysis_finds_no_bias(exchange: LocalExchange, tmp_path: Path, *, recorded: bool) -> None:
    """In a strategy that enters by the columns; replayed, so that they are not empty."""
    config = recorded_day(tmp_path)
    config["exchange"]["ccxt_config"]["urls"] = {"api": exchange.ccxt_urls}
    if recorded:
        config["isolated_margin"] = {"backtest": "replay"}
    strategy = FIVE.replace(
        "    def bot_loop_start", '    minimal_roi = {"0": 0.01, "10": -1}\n\n    def bot_loop_start', 1
    )
    options = (
        "--timerange",
        "20260102-20260103",
        "--minimum-trade-amount",
        "3",
        "--lookahead-analysis-exportfilename",
        "found.csv",
    )
    with freqtrade(tmp_path, config, strategy, "lookahead-analysis", *options) as run:
        assert run.wait(240) == 0, run.output[-3000:]
    header, line = (tmp_path / "found.csv").read_text().splitlines()
    found = dict(zip(header.split(","), line.split(","), strict=True))
    assert found["has_bias"] == "False"
    assert int(found["total_signals"]) >= 3
