"""The price of every market at every moment, and candles of it."""

from dataclasses import dataclass, field
from decimal import Decimal

from .amounts import fixed
from .markets import Market
from .paths import noise, seed_of, wander
from .scenarios import Scenario

_SAMPLES = 3
_CACHE_LIMIT = 500_000
_HISTORY_SCALE = 0.5


@dataclass(slots=True)
class Pricing:
    """One market's prices: history, a standstill until the scenario starts, its path, and what was set."""

    market: Market
    scenario: Scenario
    born: float
    speed: float
    started: float | None = None
    steps: list[tuple[float, Decimal]] = field(default_factory=list)
    seed: int = field(init=False)
    beginning: float = field(init=False)

    def __post_init__(self) -> None:
        """Give each market a path of its own."""
        self.seed = seed_of(self.market.symbol)
        self.beginning = float(self.market.price)

    def at(self, when: float) -> Decimal:
        """Price at a wall time in seconds."""
        for since, price in reversed(self.steps):
            if when >= since:
                return price
        return self.market.rounded_price(self.beginning * self._factor(when))

    def raw(self, when: float) -> float:
        """Price at a wall time before it is brought onto the ticks, which takes longest."""
        for since, price in reversed(self.steps):
            if when >= since:
                return float(price)
        return self.beginning * self._factor(when)

    def elapsed(self, when: float) -> float:
        """Seconds of the scenario that have passed at a wall time."""
        return 0.0 if self.started is None else max(0.0, when - self.started) * self.speed

    def _factor(self, when: float) -> float:
        if when < self.born:
            return wander(self.seed, when - self.born, _HISTORY_SCALE)
        return self.scenario.path(self.market.spec.pair).factor(self.elapsed(when), self.seed)


class Candles:
    """Candles of one market. Finished ones never change."""

    def __init__(self, pricing: Pricing) -> None:
        self._pricing = pricing
        self._finished: dict[tuple[float, float], list[object]] = {}

    def between(self, first: float, last: float, length: float, now: float) -> list[list[object]]:
        """Candles of a length in seconds whose opening times are in an interval."""
        opening = -(-first // length) * length
        rows = []
        while opening <= min(last, now):
            rows.append(self._candle(opening, length, now))
            opening += length
        return rows

    def extremes(self, begin: float, end: float, samples: int = _SAMPLES) -> tuple[Decimal, Decimal]:
        """Lowest and highest price of an interval, as far as samples and set prices show."""
        prices = self._samples(begin, end, samples)
        rounded = self._pricing.market.rounded_price
        return rounded(min(prices)), rounded(max(prices))

    def volume(self, begin: float, end: float) -> Decimal:
        """Volume in base of an interval: worth some 1000 units of quote a second."""
        return self._volume(begin, end, self._pricing.raw(begin))

    def _volume(self, begin: float, end: float, price: float) -> Decimal:
        liveliness = 1.0 + 0.5 * noise(self._pricing.seed + 99, begin / 300.0)
        worth = 1000.0 * liveliness * max(end - begin, 0.001)
        return Decimal(worth / price).quantize(self._pricing.market.step)

    def _samples(self, begin: float, end: float, samples: int) -> list[float]:
        """Prices at the begin of an interval, at the times that were set within it, and at its end."""
        pricing, step = self._pricing, (end - begin) / samples
        within = [float(price) for since, price in pricing.steps if begin < since < end]
        return [*(pricing.raw(begin + i * step) for i in range(samples)), *within, pricing.raw(end)]

    def _candle(self, opening: float, length: float, now: float) -> list[object]:
        known = self._finished.get((opening, length))
        if known is not None:
            return known
        end = opening + length
        row = self._row(opening, length, min(end, now))
        if now >= end:
            if len(self._finished) >= _CACHE_LIMIT:
                self._finished.clear()
            self._finished[(opening, length)] = row
        return row

    def _row(self, opening: float, length: float, end: float) -> list[object]:
        prices = self._samples(opening, end, _SAMPLES)
        rounded = self._pricing.market.rounded_price
        first, high, low, last = map(rounded, (prices[0], max(prices), min(prices), prices[-1]))
        volume = self._volume(opening, end, prices[0])
        worth = volume * (low + high) / 2
        return [
            round(opening * 1000),
            *(fixed(price) for price in (first, high, low, last)),
            fixed(volume),
            round((opening + length) * 1000) - 1,
            fixed(worth),
            max(1, int(worth / 100)),
            fixed(volume / 2),
            fixed(worth / 2),
            "0",
        ]


class Prices:
    """The prices of all markets."""

    def __init__(self, markets: list[Market], scenario: Scenario, born: float, speed: float) -> None:
        self.pricing = {market.symbol: Pricing(market, scenario, born, speed) for market in markets}
        self.candles = {symbol: Candles(pricing) for symbol, pricing in self.pricing.items()}
        self._in_btc_fallback = Decimal("0.00002")

    def start(self, when: float) -> None:
        """Let the scenario move from a wall time on."""
        for pricing in self.pricing.values():
            pricing.started = when

    def set(self, symbol: str, price: Decimal, when: float) -> None:
        """Hold a market at a price from a wall time on."""
        self.pricing[symbol].steps.append((when, price))

    def at(self, symbol: str, when: float) -> Decimal:
        """Price of a market at a wall time."""
        return self.pricing[symbol].at(when)

    def in_btc(self, asset: str, when: float) -> Decimal:
        """What one unit of an asset is worth in BTC.

        By its BTC market, else by way of USDT. Assumed where there is no such way: 0 for an asset, and 50,000
        USDT for BTC itself.
        """
        if asset == "BTC":
            return Decimal(1)
        if f"{asset}BTC" in self.pricing:
            return self.at(f"{asset}BTC", when)
        usdt_in_btc = 1 / self.at("BTCUSDT", when) if "BTCUSDT" in self.pricing else self._in_btc_fallback
        if asset == "USDT":
            return usdt_in_btc
        symbol = f"{asset}USDT"
        return self.at(symbol, when) * usdt_in_btc if symbol in self.pricing else Decimal(0)
