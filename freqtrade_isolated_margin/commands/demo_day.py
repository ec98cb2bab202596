"""`freqtrade-isolated-margin demo --write`: the demo's fall, slowed to a day, for backtests that replay it.

The candles and the accounts come from the look-alike's own prices; freqtrade and the history store them, as
they do in a live bot. The dates are made up and always the same, and so is everything that is written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from freqtrade.data.converter import ohlcv_to_dataframe
from freqtrade.data.history import get_datahandler
from freqtrade.enums import CandleType
from rich.console import Console
from rich.progress import track

from freqtrade_isolated_margin.account.records import PairAccount, Row, parse_answer
from freqtrade_isolated_margin.account.tiers import TierRatios
from freqtrade_isolated_margin.history.asking import History
from freqtrade_isolated_margin.history.database import DEFAULT_FILE
from freqtrade_isolated_margin.history.writing import NewRead, key_id
from freqtrade_isolated_margin.localexchange import DEFAULT_MARKETS, SCENARIOS, Scenario
from freqtrade_isolated_margin.localexchange.ledger import IsolatedAccount
from freqtrade_isolated_margin.localexchange.markets import Market
from freqtrade_isolated_margin.localexchange.prices import Prices
from freqtrade_isolated_margin.rules.settings import SECTION

BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
"""When the day begins."""
HOURS = 24
_STORY_SECONDS = 60.0
_CANDLE_SECONDS = 300
_READ_SECONDS = 30
# As a bot that is started at any time: its reads and freqtrade's candles do not fall together.
_FIRST_READ = 7
_READS_AT_ONCE = 120
# Where docs/tuning.md lets the look-alike listen, which freqtrade asks for its markets.
_PORT = 8123


def write_day(console: Console, user_data: Path, folder: Path) -> int:
    """Write the user data folder `folder`: configuration, strategies, candles and history."""
    if folder.exists():
        console.print(f"{folder} exists already; give the name of a new folder.", soft_wrap=True)
        return 2
    whole = json.loads((user_data / "config.json").read_text(encoding="utf-8"))
    folder.mkdir(parents=True)
    shutil.copytree(
        user_data / "strategies", folder / "strategies", ignore=shutil.ignore_patterns("__pycache__")
    )
    (folder / "config.json").write_text(json.dumps(_config(whole), indent=4) + "\n", encoding="utf-8")
    day = Day(SCENARIOS["fall"], whole["exchange"]["pair_whitelist"])
    day.write_candles(folder / "data" / "binance")
    history = History(f"sqlite:///{folder / DEFAULT_FILE}")
    history.prepare()
    try:
        _write_history(history, day, console)
    finally:
        history.close()
    console.print(
        f"Wrote {folder}: {HOURS} hours from {BEGIN:%Y-%m-%d}, candles of 5 minutes and a read of the "
        f"accounts every {_READ_SECONDS} s, of {len(day.pairs)} pairs.",
        soft_wrap=True,
        highlight=False,
    )
    return 0


def _config(whole: dict[str, Any]) -> dict[str, Any]:
    """Return the demo's configuration, for backtests by the look-alike's markets."""
    address = f"http://127.0.0.1:{_PORT}"
    urls = dict.fromkeys(("public", "private"), f"{address}/api/v3")
    urls |= {"v1": f"{address}/api/v1", "sapi": f"{address}/sapi/v1"}
    exchange = whole["exchange"] | {
        "ccxt_config": {"urls": {"api": urls}, "options": {"fetchMarkets": {"types": ["spot"]}}}
    }
    changes = {"strategy": "TunableSample", "timeframe": "5m", "stake_amount": 50, "exchange": exchange}
    # Nothing that the strategy shall decide.
    return whole | changes | {SECTION: {"backtest": "replay"}}


class Day:
    """A story of the look-alike, slowed to a day: the prices and accounts of every moment of it."""

    def __init__(self, scenario: Scenario, pairs: Sequence[str]) -> None:
        self.pairs = list(pairs)
        self._begin = BEGIN.timestamp()
        markets = {spec.pair: Market(spec) for spec in DEFAULT_MARKETS}
        speed = _STORY_SECONDS / (HOURS * 3600)
        self._prices = Prices(list(markets.values()), scenario, self._begin, speed)
        self._prices.start(self._begin)
        self._accounts = {
            pair: IsolatedAccount.of(markets[pair], scenario.accounts[pair])
            if pair in scenario.accounts
            else IsolatedAccount.placeholder(markets[pair])
            for pair in self.pairs
        }

    def write_candles(self, folder: Path) -> None:
        """Store the candles as freqtrade does."""
        folder.mkdir(parents=True)
        handler = get_datahandler(folder)
        last = self._begin + HOURS * 3600
        for pair, account in self._accounts.items():
            rows = self._prices.candles[account.market.symbol].between(
                self._begin, last - _CANDLE_SECONDS, _CANDLE_SECONDS, last
            )
            candles = ohlcv_to_dataframe([row[:6] for row in rows], "5m", pair, drop_incomplete=False)
            handler.ohlcv_store(pair, "5m", candles, CandleType.SPOT)

    def reads(self) -> Iterator[NewRead]:
        """Yield what a bot would have read of the accounts."""
        ratios = {
            pair: TierRatios(account.tier.liquidation, max(tier.liquidation for tier in account.market.tiers))
            for pair, account in self._accounts.items()
        }
        for second in range(_FIRST_READ, HOURS * 3600, _READ_SECONDS):
            when = self._begin + second
            rows = self._rows(when)
            owing = {
                pair: ratios[pair]
                for pair, row in rows.items()
                if isinstance(row, PairAccount) and row.has_debt
            }
            yield NewRead(round(when * 1000), lambda: 0.0, rows, owing)

    def _rows(self, when: float) -> dict[str, Row]:
        answer = [
            account.row(
                self._prices.at(account.market.symbol, when),
                self._prices.in_btc(account.market.base, when),
                self._prices.in_btc(account.market.quote, when),
            )
            for account in self._accounts.values()
        ]
        return dict(zip(self._accounts, parse_answer({"assets": answer}).rows.values(), strict=True))


def _write_history(history: History, day: Day, console: Console) -> None:
    writer = history.writer(key_id("the key of the demo"), "the demo")
    reads = day.reads()
    steps = range(_FIRST_READ, HOURS * 3600, _READ_SECONDS * _READS_AT_ONCE)
    for _ in track(steps, "Writing the history …", console=console, transient=True):
        writer.write(list(islice(reads, _READS_AT_ONCE)))
