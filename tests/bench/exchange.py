"""The exchange and the bots' configuration that the benchmark measures with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.bot import BASE_STRATEGY, STRATEGY_HEAD, config_for

from freqtrade_isolated_margin.localexchange import AccountSpec, LocalExchange, MarketSpec
from freqtrade_isolated_margin.rules.settings import SECTION

HEALTHY = AccountSpec(base_free="30", quote_borrowed="1000")
"""Margin level 3 at a price of 100."""
BAD = AccountSpec(base_free="12", quote_borrowed="1000")
"""Margin level 1.2, below the limit of 1.25."""

_STRATEGY = '''
class {name}({bases}):
    """Made for the benchmark."""

    timeframe = "5m"

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
    (folder / "strategies").mkdir(parents=True, exist_ok=True)
    guarded, plain = ("IsolatedMarginMixin, Base", STRATEGY_HEAD), ("Base", BASE_STRATEGY)
    for name, (bases, head) in {"Guarded": guarded, "Plain": plain}.items():
        body = _STRATEGY.format(name=name, bases=bases, entries=entries, exits=exits)
        (folder / "strategies" / f"{name.lower()}.py").write_text(head + body)


def configure(folder: Path, local: LocalExchange, pairs: Sequence[str], **changes: Any) -> Path:
    """Write the configuration of a dry run into a user data folder; return its file."""
    pricing = {"price_side": "other", "use_order_book": False}
    config = config_for(
        local,
        list(pairs),
        db_url=f"sqlite:///{folder / 'trades.sqlite'}",
        dry_run_wallet=1_000_000,
        stake_amount=20.0,
        max_open_trades=len(pairs),
        entry_pricing=pricing,
        exit_pricing=pricing,
        **{SECTION: {}, **changes},
    )
    config["exchange"]["ccxt_config"]["rateLimit"] = 1
    # freqtrade's own defaults.
    del config["timeframe"], config["internals"]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "config.json"
    file.write_text(json.dumps(config))
    return file
