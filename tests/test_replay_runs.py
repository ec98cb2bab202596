"""Real backtests and hyperopts that replay a recorded history."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.backtests import END, HALF, RANGE, result, write_candles, write_history
from support.bot import config_for, freqtrade

from freqtrade_isolated_margin.history.database import DEFAULT_FILE
from freqtrade_isolated_margin.localexchange import LocalExchange

pytestmark = pytest.mark.timeout(300)

STRATEGY = """
from freqtrade.strategy import DecimalParameter

class Tested(IsolatedMarginMixin, Base, IStrategy):
    timeframe = "5m"
    block_below = DecimalParameter(1.1, 1.9, default=1.25, decimals=1, space="buy")
    minimal_roi = {"0": 0.01, "10": -1}
    protections = [{"method": "MarginLevelGuard"}]

    @property
    def isolated_margin(self):
        return {"margin_level": {"block_below": float(self.block_below.value), "full_above": 1.95}}
"""


def prepared(folder: Path, **section: Any) -> dict[str, Any]:
    """Write candles into `folder`, and return a configuration that replays."""
    write_candles(folder)
    return config_for(None, ["BTC/USDT"], isolated_margin={"backtest": "replay", **section})


@pytest.fixture(scope="module")
def exchange() -> Any:
    """Serve the markets that freqtrade wants to know."""
    with LocalExchange(scenario="calm") as exchange:
        yield exchange


def backtest(
    folder: Path, exchange: LocalExchange, config: dict[str, Any], *options: str, strategy: str = STRATEGY
) -> tuple[int, str]:
    """Run a backtest; return its exit status and what it printed."""
    config["exchange"]["ccxt_config"]["urls"] = {"api": exchange.ccxt_urls}
    with freqtrade(folder, config, strategy, "backtesting", *RANGE, *options) as bot:
        return bot.wait(120), bot.output


def trades(folder: Path, name: str = "Tested") -> list[Any]:
    """Return a strategy's trades in the newest backtest."""
    return list(result(folder, name)["trades"])


def test_entries_are_refused_where_the_account_was_bad(exchange: LocalExchange, tmp_path: Path) -> None:
    """A replayed backtest enters while the recorded account was healthy, and not once it was not."""
    config = prepared(tmp_path)
    write_history(tmp_path)
    status, output = backtest(tmp_path, exchange, config, "--enable-protections")
    assert status == 0, output[-3000:]
    opened = [datetime.fromisoformat(trade["open_date"]) for trade in trades(tmp_path)]
    assert len(opened) > 20
    assert max(opened) <= HALF
    assert (HALF - max(opened)).total_seconds() < 1800
    assert "replays the recorded history" in output


def test_off_is_as_without_a_history(exchange: LocalExchange, tmp_path: Path) -> None:
    """Without replay the recorded accounts refuse nothing."""
    config = prepared(tmp_path, backtest="off")
    write_history(tmp_path)
    status, output = backtest(tmp_path, exchange, config)
    assert status == 0, output[-3000:]
    assert max(datetime.fromisoformat(trade["open_date"]) for trade in trades(tmp_path)) > HALF


@pytest.mark.parametrize("recorded", [False, True])
def test_a_period_without_history_is_an_error(
    exchange: LocalExchange, tmp_path: Path, *, recorded: bool
) -> None:
    """A backtest of which the history has nothing, or where there is none, ends and says so."""
    config = prepared(tmp_path)
    if recorded:
        write_history(
            tmp_path, start=datetime(2026, 2, 1, tzinfo=UTC), end=datetime(2026, 2, 1, 1, tzinfo=UTC)
        )
    status, output = backtest(tmp_path, exchange, config)
    said = "the history has no account of any of the 1 pairs" if recorded else "there is no history yet"
    assert said in output
    assert status != 0
    assert not list((tmp_path / "user_data" / "backtest_results").glob("*.zip"))


def test_a_period_that_is_covered_in_part_says_how_far(exchange: LocalExchange, tmp_path: Path) -> None:
    """Where the history has nothing, entries are refused, and a warning says how many candles it covers."""
    config = prepared(tmp_path)
    write_history(tmp_path, level=lambda _: "3", end=HALF)
    status, output = backtest(tmp_path, exchange, config)
    assert status == 0, output[-3000:]
    # With or without the last candle of the file, which freqtrade may take for unfinished.
    assert re.search(r"history covers (49\.9|50) % of the candles from 2026-01-01 00:05 to 2026-01-0", output)
    assert max(datetime.fromisoformat(trade["open_date"]) for trade in trades(tmp_path)) <= HALF


def test_the_cache_never_hands_out_the_result_of_another_history(
    exchange: LocalExchange, tmp_path: Path
) -> None:
    """Freqtrade reuses a result while the history is the same, and not when it or a limit is another."""
    reused = "Reusing result of previous backtest"
    config = prepared(tmp_path)
    write_history(tmp_path)
    assert reused not in backtest(tmp_path, exchange, config)[1]
    assert reused in backtest(tmp_path, exchange, config)[1]
    before = trades(tmp_path)
    (tmp_path / "user_data" / DEFAULT_FILE).unlink()
    write_history(tmp_path, level=lambda _: "3")
    assert reused not in backtest(tmp_path, exchange, config)[1]
    assert trades(tmp_path) != before
    assert reused in backtest(tmp_path, exchange, config)[1]
    config["isolated_margin"]["margin_level"] = {"block_below": 1.4, "full_above": 2.2}
    assert reused not in backtest(tmp_path, exchange, config)[1]


def test_limits_are_parameters_of_hyperopt(exchange: LocalExchange, tmp_path: Path) -> None:
    """Hyperopt varies a limit, alike with one worker and with two; an impossible limit enters nothing."""
    results = []
    for workers in ("1", "2"):
        folder = tmp_path / workers
        folder.mkdir()
        config = prepared(folder)
        config["exchange"]["ccxt_config"]["urls"] = {"api": exchange.ccxt_urls}
        # On the second day the level is 1.5: only limits below it let entries through.
        write_history(folder, level=lambda moment: "3" if moment < HALF else "1.5").close()
        options = [
            "--epochs",
            "6",
            "-j",
            workers,
            "--spaces",
            "buy",
            "--random-state",
            "3",
            "--min-trades",
            "1",
        ]
        loss = ["--hyperopt-loss", "SharpeHyperOptLoss"]
        strategy = STRATEGY.replace("1.1, 1.9,", "1.1, 2.1,")
        with freqtrade(folder, config, strategy, "hyperopt", *RANGE, *options, *loss) as bot:
            assert bot.wait(250) == 0, bot.output[-3000:]
        # freqtrade says so of parameters that do nothing; these do.
        assert "is used during indicator calculation" not in bot.output
        (found,) = (folder / "user_data" / "hyperopt_results").glob("*.fthypt")
        epochs = [json.loads(line) for line in found.read_text().splitlines()]
        results.append(
            {
                epoch["params_dict"]["block_below"]: epoch["results_metrics"]["total_trades"]
                for epoch in epochs
            }
        )
    one, two = results
    both = one.keys() & two.keys()
    assert both
    assert [one[limit] for limit in both] == [two[limit] for limit in both]
    tried = one | two
    # A limit above `full_above` is impossible, and lets nothing through.
    loose = {count for limit, count in tried.items() if limit < 1.5}
    tight = {count for limit, count in tried.items() if 1.5 <= limit <= 1.95}
    assert {count for limit, count in tried.items() if limit > 1.95} <= {0}
    assert min(loose, default=1000) > max(tight, default=0)


# ----- freqtrade's ways to trade within a candle, twice, or not at all

ADDING = """
    position_adjustment_enable = True

    def adjust_trade_position(self, trade, current_time, **kwargs):
        return 60.0
"""
LEVELS = ("1.2", "1.6", "3", "3", "3")
# Of a limit of 1.2 (1.25 has more decimals than the parameter) and full stakes from 1.95 on.
FACTORS = (0, 0.4 / 0.75, 1, 1, 1)


@pytest.mark.parametrize(("detail", "more"), [("1m", []), ("3m", ["--enable-position-stacking"])])
def test_entries_within_a_candle_are_judged_by_their_own_moment(
    exchange: LocalExchange, tmp_path: Path, detail: str, more: list[str]
) -> None:
    """Each entry and each increase has the stake that the account of its minute allowed.

    At the candles' own opens all are refused; 3 minutes do not divide 5.
    """
    config = prepared(tmp_path)
    write_history(tmp_path, level=lambda at: LEVELS[at.minute % 5], end=END + timedelta(minutes=1))
    data = tmp_path / "user_data" / "data" / "binance"
    candles = pd.read_feather(data / "BTC_USDT-5m.feather").set_index("date")
    fine = candles.resample(f"{detail}in").ffill().reset_index()
    fine.to_feather(data / f"BTC_USDT-{detail}.feather")
    options = ["--timeframe-detail", detail, *more]
    status, output = backtest(tmp_path, exchange, config, *options, strategy=STRATEGY + ADDING)
    assert status == 0, output[-3000:]
    assert "history covers" not in output
    seen = set()
    for trade in trades(tmp_path):
        first, *others = (order for order in trade["orders"] if order["ft_is_entry"])
        for order, stake in [(first, 100), *((other, 60) for other in others)]:
            minute = datetime.fromtimestamp(order["order_filled_timestamp"] / 1000, UTC).minute % 5
            spent = order["amount"] * order["safe_price"]
            assert spent == pytest.approx(stake * FACTORS[minute], rel=0.01)
            seen.add((stake, FACTORS[minute]))
    assert seen >= {(100, FACTORS[1]), (60, 1)}
    (refused,) = re.findall(r"Tested, BTC/USDT: (\d+) entries refused \(margin_level", output)
    assert int(refused) > 100


def test_two_strategies_in_one_run(exchange: LocalExchange, tmp_path: Path) -> None:
    """With other limits each, both do what they do alone, and say it."""
    config = prepared(tmp_path)
    write_history(tmp_path, level=lambda moment: "3" if moment < HALF else "1.5")
    tight = 'block_below = DecimalParameter(1.1, 1.9, default=1.6, decimals=1, space="buy")'
    strategy = f"{STRATEGY}\n\nclass Tight(Tested):\n    {tight}\n"
    never = ["--cache", "none"]
    status, output = backtest(
        tmp_path, exchange, config, *never, "--strategy-list", "Tested", "Tight", strategy=strategy
    )
    assert status == 0, output[-3000:]
    together = {name: trades(tmp_path, name) for name in ("Tested", "Tight")}
    assert max(datetime.fromisoformat(trade["open_date"]) for trade in together["Tested"]) > HALF
    assert max(datetime.fromisoformat(trade["open_date"]) for trade in together["Tight"]) <= HALF
    assert sorted(re.findall(r"(\w+), BTC/USDT: \d+ entries", output)) == ["Tested", "Tight"]
    for name, wanted in together.items():
        backtest(tmp_path, exchange, config, *never, "--strategy-list", name, strategy=strategy)
        assert trades(tmp_path, name) == wanted


def test_the_protection_locks_by_the_replayed_clock(exchange: LocalExchange, tmp_path: Path) -> None:
    """A trade that closes in the bad hour locks its pair for a while from then, and only such a trade."""
    config = prepared(tmp_path)
    # A trade is open when it begins.
    bad = datetime(2026, 1, 2, 9, 50, tzinfo=UTC), datetime(2026, 1, 2, 10, 50, tzinfo=UTC)
    write_history(tmp_path, level=lambda at: "1.2" if bad[0] <= at < bad[1] else "3")
    strategy = STRATEGY.replace('"MarginLevelGuard"', '"MarginLevelGuard", "stop_duration_candles": 20')
    status, output = backtest(tmp_path, exchange, config, "--enable-protections", strategy=strategy)
    assert status == 0, output[-3000:]
    found = result(tmp_path)
    opened = [datetime.fromisoformat(trade["open_date"]) for trade in found["trades"]]
    closed = [datetime.fromisoformat(trade["close_date"]) for trade in found["trades"]]
    locks = [
        [datetime.fromtimestamp(lock[name] / 1000, UTC) for name in ("lock_timestamp", "lock_end_timestamp")]
        for lock in found["locks"]
    ]
    assert {lock["reason"] for lock in found["locks"]} == {"MarginLevelGuard: BTC/USDT margin_level"}
    in_the_hour = [at for at in closed if bad[0] <= at < bad[1]]
    assert len(locks) == len(in_the_hour) > 0
    for begin, end in locks:
        assert 100 <= (end - max(in_the_hour)).total_seconds() / 60 <= 105
        assert not [at for at in opened if begin <= at < end]
    # Longer than the hour: without the lock there would be entries again.
    assert min(at for at in opened if at > bad[0]) >= max(end for _, end in locks) > bad[1]


def test_recursive_analysis_runs(exchange: LocalExchange, tmp_path: Path) -> None:
    """The other analysis finds that the columns depend neither on the candles before nor on those after."""
    config = prepared(tmp_path)
    config["exchange"]["ccxt_config"]["urls"] = {"api": exchange.ccxt_urls}
    write_history(tmp_path)
    strategy = (
        STRATEGY
        + """
    startup_candle_count = 10

    def populate_indicators(self, dataframe, metadata):
        known = self.margin_columns(dataframe, metadata["pair"])
        dataframe["mine"] = known["margin_level"] + known["margin_stake_factor"]
        return dataframe
"""
    )
    options = ["--startup-candle", "20", "40", *RANGE]
    with freqtrade(tmp_path, config, strategy, "recursive-analysis", *options) as run:
        assert run.wait(120) == 0, run.output[-3000:]
    assert "No variance on indicator(s) found due to recursive formula" in run.output
    assert "No lookahead bias on indicators found" in run.output
