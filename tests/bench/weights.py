"""What the reads weigh, as the exchange counts it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import ccxt

from freqtrade_isolated_margin.binance.adapter import MAX_SYMBOLS, IsolatedMarginAdapter
from freqtrade_isolated_margin.binance.credentials import Credentials
from freqtrade_isolated_margin.binance.reader import Reader
from freqtrade_isolated_margin.localexchange import LocalExchange
from freqtrade_isolated_margin.rules.settings import Settings

from .exchange import exchange, names
from .measure import Figure, figure

PAIRS = (1, 5, 6, 20, 100)
_A_READ = 10
_MOST_READS = 60


def _weight(local: LocalExchange, refresh: Callable[[], object], times: int) -> int:
    """Return what so many refreshes weigh by the exchange's own journal."""
    before = len(local.requests)
    for _ in range(times):
        refresh()
    return sum(request.weight for request in local.requests[before:])


def _begin(local: LocalExchange, read: Callable[[], object]) -> list[int]:
    """Read until nothing but the accounts is asked for; return what each read weighs."""
    weighed = [_weight(local, read, 1)]
    while weighed[-2:] != [_A_READ] * 2 and len(weighed) < _MOST_READS:
        weighed.append(_weight(local, read, 1))
    return weighed[:-2]


def _client(local: LocalExchange) -> Any:
    client = ccxt.binance({"apiKey": local.key, "secret": local.secret, "enableRateLimit": False})
    client.urls["api"].update(local.ccxt_urls)
    return client


def _calls(client: Any, symbols: Sequence[str], size: int) -> Callable[[], None]:
    def refresh() -> None:
        for start in range(0, len(symbols), size):
            some = ",".join(symbols[start : start + size])
            client.sapi_get_margin_isolated_account({"symbols": some})

    return refresh


def weights(counts: Sequence[int] = PAIRS) -> list[Figure]:
    """Count the weight of a minute for so many pairs: ours, one call a pair, and chunks of five."""
    settings = Settings()
    a_minute = round(60 / settings.refresh_seconds)
    figures = []
    with exchange(names(max(counts))) as local:
        section = {"ccxt_config": {"rateLimit": 1, "urls": {"api": local.ccxt_urls}}}
        client = _client(local)
        for count in counts:
            pairs = names(count)
            adapter = IsolatedMarginAdapter(
                Credentials(local.key, local.secret, "the benchmark"), exchange=section
            )
            reader = Reader(adapter)
            read = partial(reader.read, pairs)
            begun = _begin(local, read)
            ours = _weight(local, read, a_minute)
            reader.close()
            symbols = [pair.replace("/", "") for pair in pairs]
            # The same each time: one refresh is enough.
            single, chunks = (
                _weight(local, _calls(client, symbols, size), 1) * a_minute for size in (1, MAX_SYMBOLS)
            )
            figures.append(
                figure(
                    f"weight a minute, {count} pair{'s' if count > 1 else ''}",
                    ours,
                    {"one call a pair": single, "chunks of five": chunks},
                    ratio=ours / chunks,
                    target=f"{_A_READ} a refresh: {_A_READ * a_minute} a minute",
                    reached=ours == _A_READ * a_minute,
                    rounds=1,
                    kind="count",
                    unit="weight",
                    note=(
                        f"A refresh every {settings.refresh_seconds:g} s. Until a bot knows markets and "
                        f"tiers it takes {len(begun)} of them, which weigh {sum(begun)} in all."
                    ),
                )
            )
    return figures
