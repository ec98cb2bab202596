"""The tiers of a pair: liquidation ratios as the exchange tells them, or as Binance has published them."""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal
from typing import NamedTuple

from freqtrade_isolated_margin.account.maths import INFINITY, ONE, ZERO, Holdings, Side, exact

# Liquidation ratios by the maximum leverage of a tier, as `marginRatio` prints it. Source: FAQ, the
# newest table (one ratio for all tiers of a pair) and the one before it (a ratio per tier of a 5x pair).
_TIERS_10X = "10 8.91 8.05 7.36 6.79 6.31 5.91 5.57 5.26 5"
_TIERS_5X = "5 4.2 3.66 3.28 3"
_TIERS_3X = "3 2.14 1.8 1.61 1.5"
_OLDER_5X = "1.150 1.158 1.165 1.173 1.180"


def _published() -> dict[Decimal, Decimal]:
    rows = [(leverage, "1.05") for leverage in _TIERS_10X.split()]
    rows += [(leverage, "1.15") for leverage in _TIERS_5X.split()]
    rows += zip(_TIERS_5X.split(), _OLDER_5X.split(), strict=True)
    rows += [(leverage, "1.18") for leverage in _TIERS_3X.split()]
    highest: dict[Decimal, Decimal] = {}
    for leverage, ratio in rows:
        key = Decimal(leverage)
        highest[key] = max(highest.get(key, ZERO), Decimal(ratio))
    return highest


PUBLISHED_RATIOS = _published()
HIGHEST_PUBLISHED_RATIO = max(PUBLISHED_RATIOS.values())


def published_liquidation_ratio(margin_ratio: Decimal) -> Decimal:
    """The highest liquidation ratio that Binance has published for a tier of this maximum leverage.

    `margin_ratio` is the account's ``marginRatio``: the maximum leverage of its tier, not a risk ratio
    (recorded: "10", "5", "4.2"). A leverage in no table gets the highest ratio of all.
    Source: FAQ tables; a leverage that stands in two of them takes the ratio that liquidates earlier.
    """
    return PUBLISHED_RATIOS.get(margin_ratio, HIGHEST_PUBLISHED_RATIO)


class Tier(NamedTuple):
    """One row of ``isolatedMarginTier``: what may be borrowed, and when it is liquidated (API)."""

    effective_multiple: Decimal
    initial_risk_ratio: Decimal
    liquidation_risk_ratio: Decimal
    base_max_borrowable: Decimal
    quote_max_borrowable: Decimal

    @exact
    def max_leverage(self, side: Side) -> Decimal:
        """The highest leverage of an entry into an empty account of this tier; 1 where its ratio is none.

        A long of leverage L owes L − 1 of its stake and owns L of it, so its level is L / (L − 1); a short
        owes L and owns 1 + L, which is (1 + L) / L. Both must reach the initial ratio I: up to I / (I − 1)
        and 1 / (I − 1). The multiple is printed rounded, and is never exceeded. Cut to three places, so that
        a float stands for it.
        Source: API (``initialRiskRatio`` is L / (L − 1) of the tier's leverage), and the margin level (FAQ).
        """
        initial = self.initial_risk_ratio
        if initial <= ONE:
            return ONE
        by_ratio = (initial if side is Side.LONG else ONE) / (initial - ONE)
        return _usable(min(by_ratio, self.effective_multiple))


@exact
def highest_leverage(tiers: tuple[Tier, ...], side: Side, stake: Decimal) -> Decimal:
    """The highest leverage at which a stake (quote currency) can enter an empty account.

    A larger loan comes to a higher tier, which allows less. What a short borrows is counted by its worth
    in quote currency. Source: API (``isolatedMarginTier``); 1 without tiers.
    """
    if not tiers:
        return ONE
    if stake <= 0:
        return tiers[0].max_leverage(side)
    own = ONE if side is Side.LONG else ZERO
    within = (min(tier.max_leverage(side), own + tier.quote_max_borrowable / stake) for tier in tiers)
    return _usable(max(within))


def _usable(leverage: Decimal) -> Decimal:
    return max(leverage.quantize(Decimal("0.001"), ROUND_DOWN), ONE)


# Source: FAQ, the first tier of each table. What it lends differs by pair and is not published.
_INITIAL = {10: Decimal("1.111"), 5: Decimal("1.25"), 3: Decimal("1.5")}


def published_tiers(max_leverage: int) -> tuple[Tier, ...]:
    """The first tier of the published table of 3x, 5x or 10x, which lends without end. Source: FAQ."""
    multiple = Decimal(max_leverage)
    ratio = published_liquidation_ratio(multiple)
    return (Tier(multiple, _INITIAL[max_leverage], ratio, INFINITY, INFINITY),)


class TierRatios(NamedTuple):
    """What a pair's tiers say of its account."""

    current: Decimal
    """The liquidation ratio of the tier that the account's debts are in."""
    highest: Decimal
    """The highest liquidation ratio of all tiers: a larger loan may come to it."""


def tier_ratios(tiers: tuple[Tier, ...], holdings: Holdings) -> TierRatios | None:
    """The liquidation ratios that the tiers give an account; None without tiers.

    A larger loan means a higher tier, and with both assets borrowed the higher of the two counts; a loan
    beyond every tier is in the last. Source: API (``isolatedMarginTier``) and FAQ.
    """
    if not tiers:
        return None
    current = current_tier(tiers, holdings).liquidation_risk_ratio
    return TierRatios(current, max(tier.liquidation_risk_ratio for tier in tiers))


def current_tier(tiers: tuple[Tier, ...], holdings: Holdings) -> Tier:
    """The one of some tiers that the account's debts are in. Source: as `tier_ratios`."""
    position = max(
        _tier_position(holdings.base_debt, [tier.base_max_borrowable for tier in tiers]),
        _tier_position(holdings.quote_debt, [tier.quote_max_borrowable for tier in tiers]),
    )
    return tiers[position]


def _tier_position(debt: Decimal, limits: list[Decimal]) -> int:
    fitting = (position for position, limit in enumerate(limits) if debt <= limit)
    return next(fitting, len(limits) - 1)


LOWEST_BELIEVABLE_RATIO = Decimal("1.04")
HIGHEST_BELIEVABLE_RATIO = Decimal("1.30")


def believable_ratio(ratio: Decimal) -> bool:
    """Whether `ratio` can be a liquidation ratio at all: from 1.04 to 1.30.

    Source: every ratio that Binance has published lies between 1.05 and 1.18 (FAQ).
    """
    return LOWEST_BELIEVABLE_RATIO <= ratio <= HIGHEST_BELIEVABLE_RATIO
