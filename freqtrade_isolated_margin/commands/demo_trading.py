"""`freqtrade-isolated-margin demo-trading`: a real freqtrade trades in margin accounts, with real orders.

It is not a dry run: freqtrade moves collateral, borrows, repays and is liquidated on the look-alike. At the
end its profit is compared with what the exchange says that the money has become.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table

from freqtrade_isolated_margin.commands.demo_bot import Bot, end_on_a_signal, running
from freqtrade_isolated_margin.commands.terminal import output
from freqtrade_isolated_margin.localexchange import LocalExchange, MarketSpec

T = TypeVar("T")

LONG, SHORT = "BTC/USDT", "SOL/USDT"
_PRICES = {LONG: "60000", SHORT: "150"}
_MODULE = "freqtrade_isolated_margin.trading"
_WALLET, _STAKE = "10000", 500
CENT = Decimal("0.01")
# How long freqtrade may take to start, and for each thing that is waited for.
_PATIENCE = 120.0

_STRATEGY = '''
from freqtrade.strategy import IStrategy


class DemoTrading(IStrategy):
    """Does nothing by itself: the demo says when it enters and exits."""

    timeframe = "1m"
    can_short = True
    position_adjustment_enable = True
    minimal_roi = {}
    stoploss = -0.99
    order_types = {"entry": "limit", "exit": "market", "stoploss": "limit", "stoploss_on_exchange": False}

    def populate_indicators(self, dataframe, metadata):
        return dataframe

    def populate_entry_trend(self, dataframe, metadata):
        return dataframe

    def populate_exit_trend(self, dataframe, metadata):
        return dataframe

    def leverage(self, side, **kwargs):
        return 3.0 if side == "long" else 2.0
'''


class DemoError(Exception):
    """Something did not happen that the demo shows."""


def run(_arguments: argparse.Namespace) -> int:
    """Run the demo; 0 only if the books balance and everything was shown."""
    console = output()
    end_on_a_signal()
    markets = [MarketSpec(pair, price=price) for pair, price in _PRICES.items()]
    permissions = {"permitsUniversalTransfer": True}
    with (
        tempfile.TemporaryDirectory(prefix="isolated-margin-demo-") as folder,
        LocalExchange(scenario="empty", markets=markets, permissions=permissions) as exchange,
    ):
        words = _prepared(Path(folder), exchange)
        with running(words, Path(folder), exchange, module=_MODULE) as bot:
            play = Play(console, exchange, bot)
            try:
                play.play()
            except DemoError as error:
                console.print(f"{error} The end of freqtrade's log:", style="bold red", markup=False)
                console.print(bot.log_tail(), markup=False)
                return 1
            return play.report()


def _prepared(folder: Path, exchange: LocalExchange) -> list[str]:
    """Write configuration and strategy, fill the wallet, and return freqtrade's options."""
    for asset in ("BTC", "SOL"):
        exchange.set_balance(asset, 0)
    exchange.set_balance("USDT", Decimal(_WALLET))
    strategies = folder / "user_data" / "strategies"
    strategies.mkdir(parents=True)
    (strategies / "demo_trading.py").write_text(_STRATEGY, encoding="utf-8")
    config = {
        "dry_run": False,
        "trading_mode": "futures",
        "margin_mode": "isolated",
        "initial_state": "running",
        "force_entry_enable": True,
        "stake_currency": "USDT",
        "stake_amount": _STAKE,
        "max_open_trades": 2,
        "timeframe": "1m",
        "strategy": "DemoTrading",
        "entry_pricing": {"price_side": "other", "use_order_book": True, "order_book_top": 1},
        "exit_pricing": {"price_side": "other", "use_order_book": True, "order_book_top": 1},
        "pairlists": [{"method": "StaticPairList"}],
        "exchange": {"name": "binance", "enable_ws": False, "pair_whitelist": [LONG, SHORT]},
        "isolated_margin": {
            "refresh_seconds": 1,
            "margin_level": {"block_below": 1.45},
            "trading": {"enabled": True, "collateral": "transfer"},
        },
        "internals": {"process_throttle_secs": 1},
    }
    file = folder / "config.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    return ["--config", str(file), "--userdir", str(folder / "user_data")]


class Play:
    """What happens, step by step, and what was seen of it."""

    def __init__(self, console: Console, exchange: LocalExchange, bot: Bot) -> None:
        self._console = console
        self._exchange = exchange
        self._bot = bot
        self._before = self._worth()

    def play(self) -> None:
        """Trade.

        :raises DemoError: where something does not happen in time.
        """
        self._say(f"A Binance look-alike on {self._exchange.url}; freqtrade-margin is starting (not dry) …")
        self._wait("freqtrade did not start.", lambda: "state='RUNNING'" in self._bot.log_text())
        self._enter(LONG, "long")
        self._enter(SHORT, "short")
        self._refused()
        self._interest()
        self._warned()
        self._liquidated()
        self._exit(LONG)

    # ----- what happens

    def _enter(self, pair: str, side: str) -> None:
        self._tell("forceenter", pair=pair, side=side)
        trade = self._wait(f"The {side} in {pair} was not filled.", lambda: self._open_trade(pair))
        base, quote = pair.split("/")
        row = self._account(pair)
        owed = row["quoteAsset"] if side == "long" else row["baseAsset"]
        self._say(
            f"{pair}: {side} of {trade['amount']:g} {base} at {trade['open_rate']:g}, "
            f"{trade['leverage']:g}x: "
            f"{_STAKE} {quote} moved in as collateral, {float(owed['borrowed']):g} {owed['asset']} borrowed, "
            f"margin level {float(row['marginLevel']):.2f}"
        )

    def _refused(self) -> None:
        price = Decimal(_PRICES[LONG]) * Decimal("0.95")
        self._exchange.set_price(LONG, price)
        self._say(f"{LONG}: the price falls to {price:g}; an increase is asked for")
        answer = str(self._bot.tell("forceenter", pair=LONG, side="long", stakeamount=100))
        if "the isolated margin guard refuses" not in answer:
            raise DemoError(f"The guard did not refuse the increase: {answer}.")
        self._say("the isolated margin guard" + answer.partition("the isolated margin guard")[2].rstrip("'}"))

    def _interest(self) -> None:
        self._exchange.advance(24 * 3600)
        for pair in (LONG, SHORT):
            row = self._account(pair)
            owed = row["quoteAsset"] if pair == LONG else row["baseAsset"]
            self._say(f"{pair}: a day later {float(owed['interest']):g} {owed['asset']} of interest is owed")

    def _warned(self) -> None:
        first, last = float(_PRICES[SHORT]), float(self._account(SHORT)["liquidatePrice"])
        # freqtrade closes a trade by itself within the last 5 % of the way (`liquidation_buffer`).
        price = first + 0.9 * (last - first)
        self._exchange.set_price(SHORT, f"{price:.2f}")
        self._say(f"{SHORT}: the price rises to {price:.2f}, near {last:.2f}, that of the liquidation")
        line = self._wait("freqtrade did not warn of the liquidation.", self._warning)
        self._say(f"freqtrade warns: {line}")

    def _warning(self) -> str | None:
        lines = [line for line in self._bot.log_text().splitlines() if "left to its liquidation stop" in line]
        return lines[-1].partition("WARNING - ")[2] if lines else None

    def _liquidated(self) -> None:
        self._exchange.liquidate(SHORT)
        reason = self._wait(f"The trade in {SHORT} was not closed.", lambda: self._closed(SHORT))
        if reason != "liquidation":
            raise DemoError(f"The trade in {SHORT} was closed as {reason}, not as liquidation.")
        self._say(f"{SHORT}: Binance liquidates the account; freqtrade closes its trade as “liquidation”")

    def _exit(self, pair: str) -> None:
        self._exchange.set_price(pair, _PRICES[pair])
        trade = self._open_trade(pair)
        self._tell("forceexit", tradeid=str(trade["trade_id"] if trade else ""), ordertype="market")
        self._wait(f"The trade in {pair} was not closed.", lambda: self._closed(pair))
        self._wait(f"The account of {pair} is not settled.", lambda: not self._left(pair))
        self._say(f"{pair}: the price is back, and the long is closed; debt repaid, collateral moved back")

    # ----- the books

    def report(self) -> int:
        """Compare freqtrade's profit with the exchange's money; 0 only if they agree and nothing is left."""
        rows = self._bot.rows(
            "SELECT pair, is_short, exit_reason, funding_fees, close_profit_abs FROM trades ORDER BY id"
        )
        table = Table(title="The books", title_justify="left")
        for name, side in (
            ("Trade", "left"),
            ("Closed as", "left"),
            ("Interest", "right"),
            ("Profit", "right"),
        ):
            table.add_column(name, justify="right" if side == "right" else "left")
        for pair, is_short, reason, interest, profit in rows:
            side = "short" if is_short else "long"
            table.add_row(f"{pair} {side}", str(reason), f"{interest or 0:.4f}", f"{profit or 0:.4f}")
        self._console.print(table)
        profit = sum((Decimal(repr(float(row[4] or 0))) for row in rows), Decimal(0))
        earned = self._worth() - self._before
        left = {pair: self._left(pair) for pair in (LONG, SHORT) if self._left(pair)}
        self._say(f"freqtrade's profit {profit:.4f} USDT, the exchange's money {earned:+.4f} USDT")
        for pair, what in left.items():
            self._console.print(f"{pair}: left in its account: {what}", style="bold red", markup=False)
        if left or len(rows) != 2 or abs(profit - earned) >= CENT:  # noqa: PLR2004 - the two trades
            self._console.print("The books do not balance.", style="bold red")
            return 1
        self._console.print("The books balance: nothing is owed, nothing is left behind.", style="bold green")
        return 0

    def _worth(self) -> Decimal:
        """All assets less all debts, in USDT."""
        net = self._exchange.net_assets()
        prices = {pair.split("/")[0]: self._exchange.price(pair) for pair in (LONG, SHORT)}
        return sum((amount * prices.get(asset, Decimal(1)) for asset, amount in net.items()), Decimal(0))

    def _account(self, pair: str) -> Any:  # noqa: ANN401 - JSON
        return self._exchange.account_row(pair.replace("/", ""))

    def _left(self, pair: str) -> str:
        row = self._account(pair)
        found = [
            f"{name} {row[side][name]} {row[side]['asset']}"
            for side in ("baseAsset", "quoteAsset")
            for name in ("free", "locked", "borrowed", "interest")
            if Decimal(row[side][name])
        ]
        return ", ".join(found)

    # ----- the bot

    def _open_trade(self, pair: str) -> Any:  # noqa: ANN401 - JSON
        trades = [trade for trade in self._bot.ask("status") if trade["pair"] == pair]
        return trades[0] if trades and trades[0]["amount"] and not trades[0]["has_open_orders"] else None

    def _closed(self, pair: str) -> str | None:
        rows = self._bot.rows(f"SELECT exit_reason FROM trades WHERE is_open = 0 AND pair = '{pair}'")  # noqa: S608 - ours
        # The reason of a liquidation is put right a moment after the trade is closed.
        return str(rows[0][0]) if rows and rows[0][0] != "sold_on_exchange" else None

    def _tell(self, what: str, **payload: Any) -> None:  # noqa: ANN401 - JSON
        answer = self._bot.tell(what, **payload)
        if "error" in answer:
            raise DemoError(f"{what} was answered with {answer['error']}.")

    def _wait(self, problem: str, condition: Callable[[], T]) -> T:
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end and self._bot.process.poll() is None:
            found = condition()
            if found:
                return found
            time.sleep(0.2)
        raise DemoError(problem)

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
