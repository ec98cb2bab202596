"""The simulated margin accounts of a dry run: what guard, history, charts and commands read of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import NamedTuple

from freqtrade.persistence import LocalTrade

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.account.records import NoMarket, PairAccount, Row, Unreadable
from freqtrade_isolated_margin.account.tiers import TierRatios, tier_ratios
from freqtrade_isolated_margin.binance.adapter import IsolatedMarginAdapter
from freqtrade_isolated_margin.binance.clock import Moment
from freqtrade_isolated_margin.binance.reader import Snapshot
from freqtrade_isolated_margin.trading.loans import Fill, TradeAccount
from freqtrade_isolated_margin.trading.rows import Balance, account_row
from freqtrade_isolated_margin.trading.terms import Terms
from freqtrade_isolated_margin.trading.trades import fills_of, number, side_of


class Held(NamedTuple):
    """What an account follows from."""

    side: Side
    leverage: Decimal
    fills: tuple[Fill, ...]

    @classmethod
    def of(cls, trade: LocalTrade) -> Held:
        """Return what the account of a trade follows from."""
        return cls(side_of(trade), number(trade.leverage or 1.0), fills_of(trade))


def paper_row(
    pair: str, held: Held | None, price: Decimal, at: float, terms: Terms
) -> PairAccount | Unreadable:
    """Return the record of a simulated account at a price and a moment (UNIX seconds)."""
    base, _, quote = pair.partition("/")
    if held is None:
        return account_row(Balance(base), Balance(quote), price, terms.tiers)
    account = TradeAccount.of(held.side, held.leverage, terms.rates, held.fills, at)
    return account_row(
        Balance(base, account.base.free, account.base.borrowed, account.base.interest),
        Balance(quote, account.quote.free, account.quote.borrowed, account.quote.interest),
        price,
        terms.tiers,
    )


class PaperBook:
    """What the bot holds, told by the bot's thread and read by others'."""

    def __init__(self) -> None:
        self.held: Mapping[str, Held] = {}

    def publish(self, trades: Iterable[LocalTrade]) -> None:
        """Take in freqtrade's open trades."""
        self.held = MappingProxyType({trade.pair: Held.of(trade) for trade in trades})


class PaperReader:
    """Reads the simulated accounts once; asks the exchange for nothing but prices."""

    def __init__(
        self,
        adapter: IsolatedMarginAdapter,
        book: PaperBook,
        terms: Callable[[str], Terms],
        clock: Callable[[], Moment] = Moment.now,
    ) -> None:
        self._adapter = adapter
        self._book = book
        self._terms = terms
        self._clock = clock

    def read(self, pairs: Collection[str] | None = None, *, borrowed: bool = False) -> Snapshot:  # noqa: ARG002 - the protocol
        """Read the accounts of `pairs`, or of every pair that is held.

        :raises IsolatedMarginError: where the prices cannot be read.
        """
        held = self._book.held
        self._adapter.load_markets()
        ids = self._adapter.market_ids(list(held if pairs is None else pairs))
        symbols = {pair: symbol for pair, symbol in ids.items() if symbol is not None}
        asked_at = self._clock()
        prices = self._adapter.fetch_prices(list(symbols.values())) if symbols else {}
        rows: dict[str, Row] = dict.fromkeys(ids, NoMarket())
        ratios: dict[str, TierRatios] = {}
        for pair, symbol in symbols.items():
            price = prices.get(symbol)
            if not price:
                rows[pair] = Unreadable("its price is not known")
                continue
            terms = self._terms(pair)
            row = rows[pair] = paper_row(pair, held.get(pair), price, asked_at.wall, terms)
            found = tier_ratios(terms.tiers, row.holdings) if isinstance(row, PairAccount) else None
            if found:
                ratios[pair] = found
        return Snapshot(
            asked_at=asked_at,
            rows=MappingProxyType(rows),
            symbols=MappingProxyType(symbols),
            ratios=MappingProxyType(ratios),
        )

    @property
    def asking_since(self) -> float | None:
        """When the request that is under way was sent, on the monotonic clock; None if there is none."""
        return self._adapter.asking_since

    def close(self) -> None:
        """Close the connections."""
        self._adapter.close()
