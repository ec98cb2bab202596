"""Draws the charts of the documentation: a made-up day, as `plot` and freqtrade's `plot-dataframe` show it.

It takes about 20 seconds. What freqtrade draws is a page: a picture of it needs Chromium.
"""

# ruff: noqa: INP001 - a script, which nothing imports

from __future__ import annotations

import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

from freqtrade.data.converter import ohlcv_to_dataframe
from freqtrade.data.history import get_datahandler
from freqtrade.enums import CandleType
from freqtrade.persistence import Order, Trade, init_db
from PIL import Image

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.binance.clock import moment
from freqtrade_isolated_margin.history.asking import History
from freqtrade_isolated_margin.history.database import DEFAULT_FILE
from freqtrade_isolated_margin.history.writing import NewDecision, NewRead
from freqtrade_isolated_margin.localexchange import LocalExchange
from freqtrade_isolated_margin.rules.decide import Reading, decide
from freqtrade_isolated_margin.rules.settings import SECTION, Settings

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent.parent / "tests"))
from support.builders import parsed, row  # noqa: E402 - the tests' own rows

PAIR = "BTC/USDT"
START = round(datetime(2026, 11, 1, 6, tzinfo=UTC).timestamp() * 1000)
STEP = 30_000
STEPS = 2880
# When the bot was stopped for half an hour.
GAP = range(1900, 1960)
CANDLE = 10 * STEP
# What the account borrows more, or pays back, with what it buys or sells.
ORDERS = {300: 1800, 760: 1200, 2150: -1500, 2600: -4500}
STRATEGY = """
from freqtrade.strategy import IStrategy
from freqtrade_isolated_margin import IsolatedMarginMixin


class Watched(IsolatedMarginMixin, IStrategy):
    timeframe = "5m"
    stoploss = -0.99

    def populate_indicators(self, dataframe, metadata):
        return dataframe

    populate_entry_trend = populate_exit_trend = populate_indicators
"""


def prices() -> list[float]:
    """Return a price that falls by a quarter and recovers."""
    rnd, price, found = random.Random(7), 98_000.0, []
    for step in range(STEPS):
        hour = step * STEP / 3_600_000
        fall = 26_000 / (1 + math.exp(-(hour - 11) * 1.1))
        rise = 24_000 / (1 + math.exp(-(hour - 18) * 0.9))
        target = 98_000 + 1500 * math.sin(hour / 2.2) - fall + rise
        price += (target - price) * 0.03 + rnd.gauss(0, 45)
        found.append(price)
    return found


def record(folder: Path, course: list[float]) -> None:
    """Write the history of a bot that has read the account every 30 seconds."""
    rules = Settings.load({}).rules_for(PAIR)
    base, debt = Fraction("0.07"), Fraction(3000)
    reads, decisions = [], []
    for step, price in enumerate(course):
        index = Fraction(round(price, 2))
        debt += ORDERS.get(step, 0)
        base += ORDERS.get(step, 0) / index
        if step in GAP:
            continue
        at = START + step * STEP
        account = parsed(row(base_total=base, quote_debt=debt, index=index))
        reads.append(NewRead(at, lambda: 0.0, {PAIR: account}, {}))
        decisions.append(NewDecision(at, decide(PAIR, Side.LONG, Reading(account), rules, 60.0)))
    history = History(f"sqlite:///{folder / DEFAULT_FILE}")
    history.prepare()
    history.writer("0a1b2c3d", "bot").write(reads, decisions)
    history.close()


def store_candles(folder: Path, course: list[float]) -> None:
    """Store the candles as freqtrade does."""
    width = CANDLE // STEP
    rows = []
    for first in range(0, STEPS, width):
        part = course[first : first + width + 1]
        volume = 100.0 + abs(part[-1] - part[0])
        rows.append([START + first * STEP, part[0], max(part), min(part), part[-1], volume])
    folder.mkdir(parents=True)
    frame = ohlcv_to_dataframe(rows, "5m", PAIR, drop_incomplete=False)
    get_datahandler(folder).ohlcv_store(PAIR, "5m", frame, CandleType.SPOT)


def trade(folder: Path, course: list[float]) -> str:
    """Write freqtrade's database with one trade; return its URL."""
    url = f"sqlite:///{folder / 'trades.sqlite'}"
    init_db(url)
    first, last = min(ORDERS), max(ORDERS)
    bought = Trade(
        pair=PAIR, exchange="binance", stake_amount=100, amount=1, open_rate=course[first], fee_open=0.001,
        fee_close=0.001, is_short=False, open_date=moment(START + first * STEP), is_open=False,
        close_rate=course[last], close_date=moment(START + last * STEP),
        close_profit=0.01, close_profit_abs=1.0, exit_reason="exit_signal",
        stop_loss=1.0, initial_stop_loss=1.0, min_rate=1.0, max_rate=1.0,
    )  # fmt: skip
    for step, borrowed in ORDERS.items():
        at = moment(START + step * STEP)
        bought.orders.append(
            Order(
                ft_order_side="buy" if borrowed > 0 else "sell", ft_pair=PAIR, ft_is_open=False, ft_amount=1,
                ft_price=course[step], order_id=str(step), status="closed", filled=1.0, average=course[step],
                order_date=at, order_filled_date=at,
            )
        )  # fmt: skip
    Trade.session.add(bought)
    Trade.commit()
    Trade.session.remove()
    return url


def main() -> None:
    """Draw both."""
    course = prices()
    with tempfile.TemporaryDirectory() as name, LocalExchange(scenario="calm") as exchange:
        folder = Path(name)
        store_candles(folder / "data" / "binance", course)
        record(folder, course)
        url = trade(folder, course)
        (folder / "strategies").mkdir()
        (folder / "strategies" / "watched.py").write_text(STRATEGY)
        config = json.loads((HERE.parent.parent / "user_data" / "config.json").read_text())
        config |= {"strategy": "Watched", "timeframe": "5m", SECTION: {}}
        config["exchange"] |= {
            "pair_whitelist": [PAIR],
            "ccxt_config": {
                "urls": {"api": exchange.ccxt_urls},
                "options": {"fetchMarkets": {"types": ["spot"]}},
            },
        }
        (folder / "config.json").write_text(json.dumps(config))
        common = ("--userdir", name, "-c", str(folder / "config.json"), "--db-url", url)
        since = f"{moment(START):%Y-%m-%d}"
        run(
            "freqtrade-isolated-margin", "plot", PAIR, *common, "--since", since, "-o", str(HERE / "plot.png")
        )
        run("freqtrade", "plot-dataframe", "-p", PAIR, *common, "--trade-source", "DB")
        (page,) = (folder / "plot").glob("*.html")
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        if chromium is None:
            sys.exit("chart.png was not drawn: Chromium is not installed.")
        run(
            chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'browser'}",
            "--virtual-time-budget=8000", "--window-size=1400,1050", "--hide-scrollbars",
            f"--screenshot={folder / 'chart.png'}", page.as_uri(),
        )  # fmt: skip
        # The page is higher than what is drawn on it.
        with Image.open(folder / "chart.png") as page_picture:
            page_picture.crop((0, 0, 1400, 880)).save(HERE / "chart.png", optimize=True)


def run(*words: str) -> None:
    """Run a program, of this environment if it is there."""
    found = Path(sys.executable).parent / words[0]
    program = str(found) if found.exists() else words[0]
    subprocess.run([program, *words[1:]], check=True, env=os.environ | {"COLUMNS": "200"})  # noqa: S603


if __name__ == "__main__":
    main()
