"""Isolated margin accounts: what is in them, and what follows from it."""

from dataclasses import dataclass, field
from decimal import Decimal

from .amounts import ONE, ZERO, Number, plain
from .errors import BinanceError
from .markets import Market, Tier

NO_DEBT_LEVEL = Decimal(999)
_PRE_LIQUIDATION_BAND = Decimal("0.02")


@dataclass(frozen=True, slots=True)
class AccountSpec:
    """The contents of an isolated margin account, as they are to be set."""

    base_free: Number = "0"
    base_locked: Number = "0"
    base_borrowed: Number = "0"
    base_interest: Number = "0"
    quote_free: Number = "0"
    quote_locked: Number = "0"
    quote_borrowed: Number = "0"
    quote_interest: Number = "0"
    enabled: bool = True
    trade_enabled: bool = True


@dataclass(slots=True)
class Holding:
    """One asset of an account."""

    free: Decimal = ZERO
    locked: Decimal = ZERO
    borrowed: Decimal = ZERO
    interest: Decimal = ZERO

    @property
    def total(self) -> Decimal:
        """What is there, lent or not."""
        return self.free + self.locked

    @property
    def debt(self) -> Decimal:
        """What must be given back."""
        return self.borrowed + self.interest

    @property
    def net(self) -> Decimal:
        """What would be left."""
        return self.total - self.debt

    def row(self, asset: str, btc_price: Decimal) -> dict[str, object]:
        """Write the asset as the account endpoint shows it."""
        return {
            "asset": asset,
            "borrowEnabled": True,
            "borrowed": plain(self.borrowed),
            "free": plain(self.free),
            "interest": plain(self.interest),
            "locked": plain(self.locked),
            "netAsset": plain(self.net),
            "netAssetOfBtc": plain(self.net * btc_price),
            "repayEnabled": True,
            "totalAsset": plain(self.total),
        }


def margin_level(base: Holding, quote: Holding, price: Decimal) -> Decimal | None:
    """Total assets divided by total debts, both in quote; None without debt."""
    debt = base.debt * price + quote.debt
    return (base.total * price + quote.total) / debt if debt else None


def liquidation_price(base: Holding, quote: Holding, ratio: Decimal) -> Decimal:
    """Price at which the margin level is the ratio, 0 where no positive price is."""
    slope = base.total - ratio * base.debt
    rest = ratio * quote.debt - quote.total
    return max(ZERO, rest / slope) if slope else ZERO


@dataclass(slots=True)
class IsolatedAccount:
    """The isolated margin account of one market."""

    market: Market
    created: bool = True
    base: Holding = field(default_factory=Holding)
    quote: Holding = field(default_factory=Holding)
    enabled: bool = True
    trade_enabled: bool = True
    forced_at: float | None = None
    """When the forced liquidation was triggered, until it is over."""

    @classmethod
    def of(cls, market: Market, spec: AccountSpec) -> "IsolatedAccount":
        """Open an account with the given contents. No interest is charged for it."""
        return cls(
            market=market,
            base=Holding(
                *map(Decimal, (spec.base_free, spec.base_locked, spec.base_borrowed, spec.base_interest))
            ),
            quote=Holding(
                *map(Decimal, (spec.quote_free, spec.quote_locked, spec.quote_borrowed, spec.quote_interest))
            ),
            enabled=spec.enabled,
            trade_enabled=spec.trade_enabled,
        )

    @classmethod
    def placeholder(cls, market: Market) -> "IsolatedAccount":
        """Stand in for a pair that never had an account. That trading is enabled on it is assumed."""
        return cls(market=market, created=False, enabled=False)

    def holdings(self) -> tuple[tuple[str, Holding], tuple[str, Holding]]:
        """Return base and quote, each with its name."""
        return (self.market.base, self.base), (self.market.quote, self.quote)

    def holding(self, asset: str) -> Holding:
        """Return one of the two assets, or refuse any other."""
        for name, holding in self.holdings():
            if name == asset:
                return holding
        raise BinanceError(-3027)

    @property
    def empty(self) -> bool:
        """Whether nothing is there and nothing is owed."""
        return not any(holding.total or holding.debt for _, holding in self.holdings())

    @property
    def tier(self) -> Tier:
        """The margin tier that the loans are in."""
        return self.market.tier(self.base.borrowed, self.quote.borrowed)

    @property
    def indebted(self) -> bool:
        """Whether anything is owed."""
        return bool(self.base.debt or self.quote.debt)

    def level(self, price: Decimal) -> Decimal | None:
        """Margin level at a price, None without debt."""
        return margin_level(self.base, self.quote, price)

    def must_be_liquidated(self, price: Decimal) -> bool:
        """Whether the margin level is at or below the liquidation ratio."""
        level = self.level(price)
        return level is not None and level <= self.tier.liquidation

    def status(self, price: Decimal) -> str:
        """Margin level status at a price.

        The bands are documented for cross margin only. Assumed: isolated accounts have the same, and the last
        0.02 above the liquidation ratio are PRE_LIQUIDATION, as in an older text.
        """
        level, tier = self.level(price), self.tier
        if level is None:
            return "EXCESSIVE"
        if self.forced_at is not None or level <= tier.liquidation:
            return "FORCE_LIQUIDATION"
        if level <= tier.liquidation + _PRE_LIQUIDATION_BAND:
            return "PRE_LIQUIDATION"
        if level <= tier.margin_call:
            return "MARGIN_CALL"
        return "NORMAL" if level <= tier.initial else "EXCESSIVE"

    def row(self, price: Decimal, base_in_btc: Decimal, quote_in_btc: Decimal) -> dict[str, object]:
        """Write the account as the account endpoint shows it."""
        level = self.level(price)
        liquidation = liquidation_price(self.base, self.quote, self.tier.liquidation)
        rate = (liquidation / price - ONE) * 100 if liquidation else ZERO
        return {
            "baseAsset": self.base.row(self.market.base, base_in_btc),
            "quoteAsset": self.quote.row(self.market.quote, quote_in_btc),
            "symbol": self.market.symbol,
            "isolatedCreated": self.created,
            "marginLevel": plain(NO_DEBT_LEVEL if level is None else level),
            "marginLevelStatus": self.status(price),
            "marginRatio": plain(self.tier.multiple),
            "indexPrice": plain(price),
            "liquidatePrice": plain(liquidation) if self.indebted else "0",
            "liquidateRate": plain(rate) if self.indebted else "0",
            "tradeEnabled": self.trade_enabled,
            "enabled": self.enabled,
        }
