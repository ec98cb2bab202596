"""At what terms a pair's loans are had: its tiers and its rates."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

from freqtrade_isolated_margin.account.tiers import Tier, published_tiers
from freqtrade_isolated_margin.rules.settings import TradingSettings
from freqtrade_isolated_margin.trading.loans import Rates


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


AskTerms = Callable[[str], Terms | None]
"""Asks the exchange for the terms of a pair; None where it does not tell."""
