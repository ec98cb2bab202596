"""A margin account that nobody has reported, written as the exchange would report it.

A simulated account, and one as it would be after an order, are judged by the same rules as one that was read:
so they are made into the same record, by the same parser.
"""

from __future__ import annotations

from decimal import ROUND_UP, Decimal
from typing import NamedTuple

from freqtrade_isolated_margin.account.maths import (
    ONE,
    PLACE,
    ZERO,
    Holdings,
    exact,
    liquidation_price,
    margin_level,
    round_down,
)
from freqtrade_isolated_margin.account.records import (
    MarginLevelStatus,
    PairAccount,
    Unreadable,
    parse_answer,
)
from freqtrade_isolated_margin.account.tiers import Tier, current_tier

# Source: FAQ; the margin call of a 3x and a 5x pair is so far above its liquidation, that of a 10x pair 0.05.
_MARGIN_CALL_ABOVE = Decimal("0.04")


class Balance(NamedTuple):
    """One asset of an account. Amounts are in units of it."""

    asset: str
    free: Decimal = ZERO
    borrowed: Decimal = ZERO
    interest: Decimal = ZERO
    locked: Decimal = ZERO


@exact
def account_row(
    base: Balance, quote: Balance, price: Decimal, tiers: tuple[Tier, ...]
) -> PairAccount | Unreadable:
    """Return the record of an account at an index price: amounts cut to eight places, debts rounded up."""
    base, quote = _cut(base), _cut(quote)
    holdings = Holdings(
        base.free + base.locked,
        quote.free + quote.locked,
        base.borrowed + base.interest,
        quote.borrowed + quote.interest,
    )
    tier = current_tier(tiers, holdings)
    level = margin_level(holdings, price) if holdings.has_debt else Decimal(999)
    liquidated = liquidation_price(holdings, tier.liquidation_risk_ratio) if holdings.has_debt else None
    rate = (liquidated / price - ONE) * 100 if liquidated else ZERO
    symbol = base.asset + quote.asset
    row = {
        "baseAsset": _asset(base),
        "quoteAsset": _asset(quote),
        "symbol": symbol,
        "isolatedCreated": True,
        "enabled": True,
        "tradeEnabled": True,
        "marginLevel": _text(level),
        "marginLevelStatus": str(_status(level, tier) if holdings.has_debt else MarginLevelStatus.EXCESSIVE),
        "marginRatio": _text(tier.effective_multiple),
        "indexPrice": _text(price),
        "liquidatePrice": _text(liquidated or ZERO),
        "liquidateRate": _text(rate),
    }
    return parse_answer({"assets": [row]}).rows[symbol]


def _cut(balance: Balance) -> Balance:
    return Balance(
        balance.asset,
        round_down(balance.free),
        balance.borrowed.quantize(PLACE, ROUND_UP),
        balance.interest.quantize(PLACE, ROUND_UP),
        round_down(balance.locked),
    )


def _asset(balance: Balance) -> dict[str, object]:
    total = balance.free + balance.locked
    return {
        "asset": balance.asset,
        "borrowEnabled": True,
        "borrowed": _text(balance.borrowed),
        "free": _text(balance.free),
        "interest": _text(balance.interest),
        "locked": _text(balance.locked),
        "netAsset": _text(total - balance.borrowed - balance.interest),
        "netAssetOfBtc": "0",
        "repayEnabled": True,
        "totalAsset": _text(total),
    }


def _status(level: Decimal, tier: Tier) -> MarginLevelStatus:
    """Return the band of a level. Source: FAQ, as it is documented for cross margin accounts."""
    bands = (
        (tier.liquidation_risk_ratio, MarginLevelStatus.FORCE_LIQUIDATION),
        (tier.liquidation_risk_ratio + _MARGIN_CALL_ABOVE, MarginLevelStatus.MARGIN_CALL),
        (tier.initial_risk_ratio, MarginLevelStatus.NORMAL),
    )
    return next((status for most, status in bands if level <= most), MarginLevelStatus.EXCESSIVE)


def _text(value: Decimal) -> str:
    # "-0" would be neither owed nor absent.
    return f"{value.quantize(PLACE) + ZERO:f}"
