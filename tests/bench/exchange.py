"""The exchange and the bots' configuration that the benchmark measures with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from freqtrade_isolated_margin.localexchange import AccountSpec, LocalExchange, MarketSpec
from freqtrade_isolated_margin.rules.settings import SECTION

HEALTHY = AccountSpec(base_free="30", quote_borrowed="1000")
"""Margin level 3 at a price of 100."""
BAD = AccountSpec(base_free="12", quote_borrowed="1000")
"""Margin level 1.2, below the limit of 1.25."""

_HEAD = """
from freqtrade.strategy import IStrategy
from freqtrade_isolated_margin import IsolatedMarginMixin

"""
_BODY = '''
    """Made for the benchmark."""

    INTERFACE_VERSION = 3
    timeframe = "5m"
    minimal_roi = {{}}
    stoploss = -0.99
    startup_candle_count = 0

    def populate_indicators(self, dataframe, metadata):
        return dataframe

    def populate_entry_trend(self, dataframe, metadata):
        {entries}
        return dataframe

    def populate_exit_trend(self, dataframe, metadata):
        {exits}
        return dataframe
'''


def names(count: int) -> list[str]:
    """Return pairs of made-up coins."""
    return [f"C{number:03}/USDT" for number in range(count)]


@contextmanager
def exchange(pairs: Sequence[str], account: AccountSpec = HEALTHY) -> Iterator[LocalExchange]:
    """Serve these pairs at a price of about 100, each with such an account."""
    markets = [MarketSpec(pair, price="100", max_leverage=5, min_notional="1") for pair in pairs]
    with LocalExchange("calm", markets=markets) as local:
        for pair in pairs:
            local.set_account(pair, account)
        yield local


def strategies(folder: Path, entries: str = "pass", exits: str = "pass") -> None:
    """Write the strategies Guarded and Plain into a user data folder: the same with the mixin and without."""
    body = _BODY.format(entries=entries, exits=exits)
    (folder / "strategies").mkdir(parents=True, exist_ok=True)
    for name, bases in (("Guarded", "IsolatedMarginMixin, IStrategy"), ("Plain", "IStrategy")):
        head = _HEAD if name == "Guarded" else _HEAD.replace(_HEAD.splitlines()[2] + "\n", "")
        (folder / "strategies" / f"{name.lower()}.py").write_text(f"{head}\nclass {name}({bases}):{body}")


def configure(folder: Path, local: LocalExchange, pairs: Sequence[str], **changes: Any) -> Path:
    """Write the configuration of a dry run into a user data folder; return its file."""
    pricing = {"price_side": "other", "use_order_book": False}
    config = {
        "db_url": f"sqlite:///{folder / 'trades.sqlite'}",
        "dry_run": True,
        "dry_run_wallet": 1_000_000,
        "initial_state": "running",
        "stake_currency": "USDT",
        "stake_amount": 20.0,
        "max_open_trades": len(pairs),
        "entry_pricing": pricing,
        "exit_pricing": pricing,
        "pairlists": [{"method": "StaticPairList"}],
        "exchange": {
            "name": "binance",
            "key": local.key,
            "secret": local.secret,
            "enable_ws": False,
            "pair_whitelist": list(pairs),
            "ccxt_config": {
                "rateLimit": 1,
                "urls": {"api": local.ccxt_urls},
                "options": {"fetchMarkets": {"types": ["spot"]}},
            },
        },
        SECTION: {},
        **changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "config.json"
    file.write_text(json.dumps(config))
    return file
