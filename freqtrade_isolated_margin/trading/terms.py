"""At what terms a pair's loans are had: its tiers and its rates."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple, Protocol

from freqtrade_isolated_margin.account.tiers import Tier, published_tiers
from freqtrade_isolated_margin.binance.adapter import IsolatedMarginAdapter
from freqtrade_isolated_margin.errors import AnswerError, IsolatedMarginError
from freqtrade_isolated_margin.rules.settings import TradingSettings
from freqtrade_isolated_margin.trading.loans import Rates

logger = logging.getLogger(__name__)

_DAY_SECONDS = 24 * 3600.0
_RETRY_SECONDS = 600.0


class Terms(NamedTuple):
    """What holds for the loans of one pair."""

    tiers: tuple[Tier, ...]
    rates: Rates


def set_terms(settings: TradingSettings, base: str, quote: str) -> Terms:
    """Return the terms that the settings give a pair."""
    rates = Rates(rate_of(settings, base), rate_of(settings, quote))
    leverage = settings.max_leverages.get(f"{base}/{quote}", settings.max_leverage)
    return Terms(published_tiers(leverage), rates)


def rate_of(settings: TradingSettings, currency: str) -> Decimal:
    """Return what a loan of `currency` costs a day, as a fraction of it."""
    return settings.interest_rates.get(currency, settings.interest_rate)


class Asker(Protocol):
    """Whoever asks the exchange for the terms of a pair."""

    def __call__(self, pair: str) -> Terms:
        """Return them; raises `IsolatedMarginError` where they cannot be learnt."""

    def close(self) -> None:
        """Close the connections."""


class TermsBook:
    """The terms of all pairs: asked for once a day where somebody can ask, or as the settings say.

    A live bot does not go by the settings: what it may borrow is not known without the exchange.
    """

    def __init__(
        self, settings: TradingSettings, ask: Asker | None = None, *, may_assume: bool = True
    ) -> None:
        self._settings = settings
        self._ask = ask
        self._may_assume = may_assume
        self._known: dict[str, tuple[Terms, float]] = {}

    def of(self, pair: str) -> Terms:
        """Return the terms of a pair.

        :raises IsolatedMarginError: where a live bot cannot learn them.
        """
        known, until = self._known.get(pair, (None, 0.0))
        if known and time.monotonic() < until:
            return known
        terms, seconds = self._found(pair, known)
        self._known[pair] = (terms, time.monotonic() + seconds)
        return terms

    def _found(self, pair: str, former: Terms | None) -> tuple[Terms, float]:
        """Return the terms of a pair, and for how many seconds they count."""
        base, _, quote = pair.partition("/")
        if self._ask is None:
            return set_terms(self._settings, base, quote), _DAY_SECONDS
        try:
            return self._ask(pair), _DAY_SECONDS
        except IsolatedMarginError as error:
            if former is None and not self._may_assume:
                raise
            logger.warning(
                "The terms of loans in %s cannot be read; %s: %s",
                pair,
                "those before count" if former else "those of the settings count",
                error,
            )
            return former or set_terms(self._settings, base, quote), _RETRY_SECONDS

    def close(self) -> None:
        """Close the connections."""
        if self._ask:
            self._ask.close()


class ExchangeTerms:
    """Asks the exchange for a pair's tiers and rates; whoever asks waits for who asked before."""

    def __init__(self, make_adapter: Callable[[], IsolatedMarginAdapter]) -> None:
        self._make_adapter = make_adapter
        self._adapter: IsolatedMarginAdapter | None = None
        self._lock = threading.Lock()

    def __call__(self, pair: str) -> Terms:
        """Return the terms of a pair, for a weight of 2.

        :raises IsolatedMarginError: where they cannot be read, or say nothing of one of its currencies.
        """
        base, _, quote = pair.partition("/")
        with self._lock:
            adapter = self._adapter = self._adapter or self._make_adapter()
            adapter.load_markets()
            symbol = adapter.market_ids([pair])[pair]
            if symbol is None:
                raise AnswerError(f"{pair} has no spot market on Binance")
            tiers, rates = adapter.fetch_tiers(symbol), adapter.fetch_rates(symbol)
        if base not in rates or quote not in rates:
            raise AnswerError(f"the rates of {pair} are not those of its currencies")
        return Terms(tiers, Rates(rates[base], rates[quote]))

    def close(self) -> None:
        """Close the connections."""
        if self._adapter:
            self._adapter.close()
