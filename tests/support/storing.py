"""What another bot has stored, for the tests of those that follow it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from sqlalchemy import Connection

from freqtrade_isolated_margin.binance.adapter import IsolatedMarginAdapter
from freqtrade_isolated_margin.binance.clock import milliseconds
from freqtrade_isolated_margin.binance.credentials import Credentials
from freqtrade_isolated_margin.binance.reader import Reader
from freqtrade_isolated_margin.history import asking, tables, writing
from freqtrade_isolated_margin.history.asking import open_history
from freqtrade_isolated_margin.history.writing import NewRead, key_id
from freqtrade_isolated_margin.localexchange import LocalExchange
from freqtrade_isolated_margin.rules.settings import SECTION, Settings


def store(
    config: dict[str, Any],
    exchange: LocalExchange,
    pairs: Sequence[str],
    ages: Iterable[float] = (0.0,),
    trouble: str | None = None,
) -> None:
    """Store the accounts of the moment as if a bot had read them so many seconds ago.

    `trouble` is why it could not read them again.
    """
    section = {"ccxt_config": {"urls": {"api": exchange.ccxt_urls}}}
    reader = Reader(
        IsolatedMarginAdapter(Credentials(exchange.key, exchange.secret, "test"), exchange=section)
    )
    snapshot = reader.read(pairs)
    reader.close()
    history = open_history(Settings.load(config[SECTION]).history, config)
    history.prepare()
    writer = history.writer(key_id(exchange.key), "bot")
    now = milliseconds(time.time())
    for age in ages:
        reading = NewRead(now - round(age * 1000), lambda age=age: age, snapshot.rows, snapshot.ratios)
        writer.write([reading], (), trouble)
    history.close()


def set_clock(patch: pytest.MonkeyPatch, clock: Callable[[Connection], int | None]) -> None:
    """Let the database's clock be `clock`, for who writes and who asks."""
    for module in (asking, writing):
        patch.setattr(module, "clock_of", clock)


def set_migrations(patch: pytest.MonkeyPatch, migrations: tuple[Callable[[Connection], None], ...]) -> None:
    """Let the package know these versions of the tables."""
    for module in (tables, asking, writing):
        patch.setattr(module, "MIGRATIONS", migrations)
