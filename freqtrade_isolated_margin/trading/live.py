"""What a live bot reads of the accounts that it trades in, in freqtrade's words: positions and interest."""

from __future__ import annotations

import threading
from collections.abc import Callable
from decimal import Decimal

from freqtrade.exchange.exchange_types import CcxtPosition
from freqtrade.persistence import LocalTrade

from freqtrade_isolated_margin.account.maths import ZERO, exact
from freqtrade_isolated_margin.account.records import PairAccount
from freqtrade_isolated_margin.binance.adapter import IsolatedMarginAdapter
from freqtrade_isolated_margin.errors import AnswerError
from freqtrade_isolated_margin.trading.trades import number

# freqtrade would adjust its trade's amount to what is there, for the interest or the dust beside it, and then
# keep a rest of the trade that nobody can exit.
_NEARLY_ALL = 0.98


class LiveAccounts:
    """Reads the accounts for the bot itself; freqtrade asks in several threads, one after the other."""

    def __init__(self, make_adapter: Callable[[], IsolatedMarginAdapter]) -> None:
        self._make_adapter = make_adapter
        self._adapter: IsolatedMarginAdapter | None = None
        self._lock = threading.Lock()

    def positions(self, trades: list[LocalTrade]) -> list[CcxtPosition]:
        """Return the positions behind open trades, one request for all.

        :raises IsolatedMarginError: where they cannot be read; an account that is unreadable is none.
        """
        with self._lock:
            adapter = self._ready()
            symbols = {pair: ids for pair, ids in adapter.market_ids([t.pair for t in trades]).items() if ids}
            rows = adapter.fetch(sorted(set(symbols.values()))).rows if symbols else {}
        positions = []
        for trade in trades:
            row = rows.get(symbols.get(trade.pair, ""))
            if not isinstance(row, PairAccount):
                raise AnswerError(f"the account of {trade.pair} cannot be read")
            positions.append(_position(trade, row))
        return positions

    def interest(self, trade: LocalTrade, since: int) -> tuple[Decimal, Decimal]:
        """Return the interest of the trade's account from `since` on (ms), in base and in quote currency.

        :raises IsolatedMarginError: where it cannot be read, or was charged in another asset.
        """
        base, _, quote = trade.pair.partition("/")
        with self._lock:
            adapter = self._ready()
            symbol = adapter.market_ids([trade.pair])[trade.pair] or ""
            charged = adapter.fetch_interest(symbol, since)
        others = charged.keys() - {base, quote}
        if others:
            raise AnswerError(f"the interest of {trade.pair} was charged in {', '.join(sorted(others))}")
        return charged.get(base, ZERO), charged.get(quote, ZERO)

    def free_quote(self, pairs: list[str]) -> tuple[Decimal, Decimal]:
        """Return what is free of the quote currency in all accounts of these pairs, and what is locked.

        :raises IsolatedMarginError: where they cannot be read.
        """
        with self._lock:
            adapter = self._ready()
            symbols = {symbol for symbol in adapter.market_ids(pairs).values() if symbol}
            rows = adapter.fetch().rows if symbols else {}
        accounts = [row for symbol, row in rows.items() if symbol in symbols and isinstance(row, PairAccount)]
        return (
            sum((account.quote_asset.free for account in accounts), ZERO),
            sum((account.quote_asset.locked for account in accounts), ZERO),
        )

    def close(self) -> None:
        """Close the connections."""
        if self._adapter:
            self._adapter.close()

    def _ready(self) -> IsolatedMarginAdapter:
        self._adapter = self._adapter or self._make_adapter()
        self._adapter.load_markets()
        return self._adapter


@exact
def _position(trade: LocalTrade, account: PairAccount) -> CcxtPosition:
    """Return an account as the position that it is, at its index price.

    Its size is what it owns of the base currency, or owes more of than it owns. What it is worth is
    collateral and profit; the profit is counted from the trade's open rate.
    """
    base, quote, base_debt, quote_debt = account.holdings
    net = base - base_debt
    worth = net * account.index_price + quote - quote_debt
    profit = net * (account.index_price - number(trade.open_rate))
    return {
        "symbol": trade.pair,
        "side": "short" if net < 0 else "long",
        "contracts": trade.amount if float(abs(net)) >= trade.amount * _NEARLY_ALL else float(abs(net)),
        "leverage": trade.leverage,
        "collateral": float(worth - profit),
        "initialMargin": float(worth - profit),
        "liquidationPrice": float(account.liquidate_price) or None,
        "unrealizedPnl": float(profit),
    }
