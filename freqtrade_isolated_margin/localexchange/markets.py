"""Markets, their order filters, and their margin tiers."""

from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

from .amounts import ONE, SATOSHI, Number

# The newest FAQ table: one liquidation and one margin-call ratio for each maximum leverage, and initial
# ratios by tier.
_LIQUIDATION = {10: "1.05", 5: "1.15", 3: "1.18"}
_MARGIN_CALL = {10: "1.10", 5: "1.19", 3: "1.22"}
_TIERS = {
    10: (
        ("10", "1.111"),
        ("8.91", "1.1264"),
        ("8.05", "1.1418"),
        ("7.36", "1.1572"),
        ("6.79", "1.1726"),
        ("6.31", "1.188"),
        ("5.91", "1.2034"),
        ("5.57", "1.2188"),
        ("5.26", "1.2342"),
        ("5", "1.2496"),
    ),
    5: (("5", "1.25"), ("4.2", "1.3125"), ("3.66", "1.375"), ("3.28", "1.4375"), ("3", "1.5")),
    3: (("3", "1.5"), ("2.14", "1.875"), ("1.8", "2.25"), ("1.61", "2.625"), ("1.5", "3")),
}

# Assumed: how much a tier lends. The FAQ has numbers per pair, which change often.
_QUOTE_WORTH_PER_TIER = Decimal(100_000)


@dataclass(frozen=True, slots=True)
class MarketSpec:
    """A market to make. Steps that are not given follow from the price."""

    pair: str
    price: Number = "1"
    max_leverage: int = 10
    tick: Number | None = None
    step: Number | None = None
    min_notional: Number = "5"
    isolated: bool = True
    daily_interest: Number = "0.00024"


@dataclass(frozen=True, slots=True)
class Tier:
    """One row of the table of margin tiers."""

    number: int
    multiple: Decimal
    initial: Decimal
    liquidation: Decimal
    margin_call: Decimal
    base_limit: Decimal
    quote_limit: Decimal


@dataclass(frozen=True)
class Market:
    """A market as the exchange knows it."""

    spec: MarketSpec

    @cached_property
    def base(self) -> str:
        """The asset that is traded."""
        return self.spec.pair.split("/")[0]

    @cached_property
    def quote(self) -> str:
        """The asset that it is paid in."""
        return self.spec.pair.split("/")[1]

    @cached_property
    def symbol(self) -> str:
        """Binance's name of the market."""
        return self.base + self.quote

    @cached_property
    def price(self) -> Decimal:
        """The price before anything happens."""
        return Decimal(self.spec.price)

    @cached_property
    def tick(self) -> Decimal:
        """The smallest step of a price: between a hundred-thousandth and a millionth of it."""
        if self.spec.tick is not None:
            return Decimal(self.spec.tick)
        return max(SATOSHI, ONE.scaleb(self.price.adjusted() - 5))

    @cached_property
    def step(self) -> Decimal:
        """The smallest step of a quantity: worth less than a cent of quote, unless the price is tiny.

        As on Binance, a price times a quantity has no more than eight decimals.
        """
        if self.spec.step is not None:
            return Decimal(self.spec.step)
        return min(ONE, ONE.scaleb(-self.price.adjusted() - 3))

    @cached_property
    def digits(self) -> int:
        """Decimals of a price."""
        exponent = self.tick.normalize().as_tuple().exponent
        return max(0, -exponent) if isinstance(exponent, int) else 8

    @cached_property
    def min_notional(self) -> Decimal:
        """The least that an order must be worth, in quote."""
        return Decimal(self.spec.min_notional)

    @cached_property
    def hourly_interest(self) -> Decimal:
        """Interest for one started hour, as a fraction of the loan."""
        return Decimal(self.spec.daily_interest) / 24

    @cached_property
    def tiers(self) -> tuple[Tier, ...]:
        """The margin tiers, smallest loans first."""
        leverage = self.spec.max_leverage
        return tuple(
            Tier(
                number=number,
                multiple=Decimal(multiple),
                initial=Decimal(initial),
                liquidation=Decimal(_LIQUIDATION[leverage]),
                margin_call=Decimal(_MARGIN_CALL[leverage]),
                base_limit=_QUOTE_WORTH_PER_TIER * number / self.price,
                quote_limit=_QUOTE_WORTH_PER_TIER * number,
            )
            for number, (multiple, initial) in enumerate(_TIERS[leverage], 1)
        )

    def tier(self, base_borrowed: Decimal, quote_borrowed: Decimal) -> Tier:
        """Find the tier of two loans: the higher one applies. A loan beyond all of them is in the last."""
        for tier in self.tiers:
            if base_borrowed <= tier.base_limit and quote_borrowed <= tier.quote_limit:
                return tier
        return self.tiers[-1]

    def rounded_price(self, price: float) -> Decimal:
        """Bring a price of a path onto the decimals of the market's ticks."""
        return max(self.tick, Decimal(f"{price:.{self.digits}f}"))


# Prices and leverages are made up, but of a size that people recognise.
DEFAULT_MARKETS = (
    MarketSpec("BTC/USDT", "50000", 10),
    MarketSpec("ETH/USDT", "2500", 10),
    MarketSpec("BNB/USDT", "500", 10),
    MarketSpec("SOL/USDT", "150", 5),
    MarketSpec("XRP/USDT", "0.6", 5),
    MarketSpec("ADA/USDT", "0.4", 5),
    MarketSpec("FET/USDT", "1.2", 3),
    MarketSpec("DOGE/USDT", "0.12", 5),
    MarketSpec("ETH/BTC", "0.05", 10, tick="0.00001", step="0.001", min_notional="0.0001"),
)
