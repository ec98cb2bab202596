"""Real bots that trade with money, on the local exchange; and whether the books balance afterwards."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from freqtrade_isolated_margin.localexchange import LocalExchange, MarketSpec
from support.bot import FreqtradeProcess, freqtrade
from support.margin_bot import MODULE, margin_config
from support.network import until

D = Decimal
PAIR = "BTC/USDT"
CENT = D("0.01")

LIVE_STRATEGY = """
from pathlib import Path

class Tested(Base, IStrategy):
    can_short = True
    position_adjustment_enable = True
    order_types = {{
        "entry": "{entry}", "exit": "{exit}", "stoploss": "limit", "stoploss_on_exchange": False,
        "emergency_exit": "market", "force_exit": "{exit}", "force_entry": "{entry}",
    }}

    def bot_loop_start(self, current_time, **kwargs):
        log.info("LOOP")

    def populate_entry_trend(self, dataframe, metadata):
        return dataframe

    def leverage(self, **kwargs):
        return {leverage}
{more}
"""
"""A strategy that does nothing by itself: tests enter and exit by /forceenter and /forceexit."""


@contextmanager
def margin_exchange(
    *pairs: str, wallet: str = "10000", price: str = "100", **market: Any
) -> Iterator[LocalExchange]:
    """Serve pairs at a price, money in the spot wallet, no account, and a key that may do what is needed."""
    markets = [MarketSpec(pair, price=price, **market) for pair in pairs or (PAIR,)]
    with LocalExchange(
        scenario="empty", markets=markets, permissions={"permitsUniversalTransfer": True}
    ) as exchange:
        for asset in [pair.split("/")[0] for pair in pairs or (PAIR,)]:
            exchange.set_balance(asset, 0)
        exchange.set_balance("USDT", D(wallet))
        yield exchange


def live_config(exchange: LocalExchange, *pairs: str, **changes: Any) -> dict[str, Any]:
    """Return the configuration of a bot that trades with money in the margin accounts of `exchange`."""
    trading = changes.pop("trading", {})
    config = margin_config(exchange, list(pairs or (PAIR,)), trading, dry_run=False, force_entry_enable=True)
    config["isolated_margin"] |= {"recv_window": 2000, **changes.pop("section", {})}
    return config | {"stake_amount": 300} | changes


def live_strategy(leverage: float = 3.0, entry: str = "limit", exit_: str = "market", more: str = "") -> str:
    """Return the text of a strategy."""
    return LIVE_STRATEGY.format(leverage=leverage, entry=entry, exit=exit_, more=more)


@contextmanager
def live_bot(
    folder: Path, exchange: LocalExchange, strategy: str | None = None, **changes: Any
) -> Iterator[FreqtradeProcess]:
    """Run a bot until it goes round its loop, and until the block ends."""
    config = live_config(exchange, **changes)
    with freqtrade(folder, config, strategy or live_strategy(), module=MODULE) as bot:
        try:
            bot.wait_for("LOOP")
            yield bot
        except BaseException:
            # What the bot has said explains more than what it has not done.
            sys.stdout.write("\n".join(line[:300] for line in bot.lines[-120:] if "LOOP" not in line))
            raise


class Books:
    """What the exchange has of the user's money, and what freqtrade says that it has earned."""

    def __init__(self, exchange: LocalExchange, pair: str = PAIR) -> None:
        self.exchange = exchange
        self.base, _, self.quote = pair.partition("/")
        self.pair = pair
        self.before = self.worth()

    def worth(self) -> Decimal:
        """All assets less all debts, in quote currency at the price of now."""
        net = self.exchange.net_assets()
        return net.get(self.quote, D(0)) + net.get(self.base, D(0)) * self.exchange.price(self.pair)

    @property
    def earned(self) -> Decimal:
        """By how much it has changed."""
        return self.worth() - self.before

    def account(self) -> dict[str, Decimal]:
        """Return what the pair's account holds and owes, without what is nothing."""
        row: Any = self.exchange.account_row(self.pair.replace("/", ""))
        found = {}
        for side in ("baseAsset", "quoteAsset"):
            for name in ("free", "locked", "borrowed", "interest"):
                value = D(row[side][name])
                if value:
                    found[f"{row[side]['asset']} {name}"] = value
        return found

    def settled(self, seconds: float = 30.0) -> None:
        """Wait until the account holds and owes nothing."""
        until(lambda: not self.account(), seconds)


def profit(bot: FreqtradeProcess, closed: int = 1) -> Decimal:
    """Wait until so many trades are closed; return what freqtrade says that they have earned."""
    query = "SELECT close_profit_abs FROM trades WHERE is_open = 0"
    rows = until(lambda: len(found := bot.rows(query)) == closed and [D(str(row[0])) for row in found])
    return sum(rows, D(0))


def fulfilled(bot: FreqtradeProcess, side: str, after: int = 0) -> int:
    """Wait until an order has been filled for freqtrade."""
    return bot.wait_for(f"_{side} has been fulfilled", after=after)
