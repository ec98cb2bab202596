"""Everything behind the endpoints: the clock, prices, accounts, orders and interest of one exchange."""

import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal

from .amounts import SATOSHI, ZERO, plain, rounded
from .errors import BinanceError
from .journal import RequestRecord
from .keys import ApiKey
from .ledger import Holding, IsolatedAccount
from .markets import Market, MarketSpec
from .orders import OrderBook, OrderRecord
from .prices import Prices
from .scenarios import Scenario

_HOUR = 3600.0
_KEPT_RECORDS = 100_000


@dataclass(frozen=True, slots=True)
class InterestCharge:
    """Interest that was added to a debt."""

    number: int
    time: int
    asset: str
    principal: Decimal
    interest: Decimal
    daily_rate: Decimal
    kind: str
    symbol: str

    def row(self) -> dict[str, object]:
        """Write the charge as `interestHistory` does."""
        return {
            "txId": self.number,
            "interestAccuredTime": self.time,
            "asset": self.asset,
            "rawAsset": self.asset,
            "principal": plain(self.principal),
            "interest": plain(self.interest),
            "interestRate": plain(self.daily_rate),
            "type": self.kind,
            "isolatedSymbol": self.symbol,
        }


@dataclass(frozen=True, slots=True)
class Liquidation:
    """A forced liquidation that was carried out."""

    order_id: int
    time: int
    symbol: str
    side: str
    price: Decimal
    quantity: Decimal

    def row(self) -> dict[str, object]:
        """Write the liquidation as `forceLiquidationRec` does."""
        return {
            "avgPrice": plain(self.price),
            "executedQty": plain(self.quantity),
            "orderId": self.order_id,
            "price": plain(self.price),
            "qty": plain(self.quantity),
            "side": self.side,
            "symbol": self.symbol,
            "timeInForce": "GTC",
            "isIsolated": True,
            "updatedTime": self.time,
        }


class State:
    """One exchange. Whoever touches it holds `changed`, which is also notified of every change."""

    def __init__(self, markets: Iterable[MarketSpec], scenario: Scenario, speed: float, fee: Decimal) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.scenario = scenario
        self.born = time.time()
        self.clock_offset = 0.0
        self.liquidation_grace = 2.0
        self.max_accounts = 20
        self.markets = {market.symbol: market for market in map(self._market, markets)}
        self.by_pair = {market.spec.pair: market for market in self.markets.values()}
        self.prices = Prices(list(self.markets.values()), scenario, self.born, speed)
        self.accounts: dict[str, IsolatedAccount] = {}
        self.book = OrderBook(fee)
        self.keys: dict[str, ApiKey] = {}
        self.charges: list[InterestCharge] = []
        self.liquidations: list[Liquidation] = []
        self.records: deque[RequestRecord] = deque(maxlen=_KEPT_RECORDS)
        self._advanced = 0.0
        self._hours_charged = 0
        self._fill_scenario()

    def _market(self, spec: MarketSpec) -> Market:
        return Market(replace(spec, price=self.scenario.prices.get(spec.pair, spec.price)))

    def _fill_scenario(self) -> None:
        for pair, spec in self.scenario.accounts.items():
            if pair in self.by_pair:
                market = self.by_pair[pair]
                self.accounts[market.symbol] = IsolatedAccount.of(market, spec)
        for asset, amount in self.scenario.balances.items():
            self.book.balance(asset).free = Decimal(amount)

    # Time. The offset belongs to what the exchange tells and compares timestamps with; prices follow the true
    # clock.

    def now(self) -> float:
        """Wall time in seconds, without the offset."""
        return time.time()

    def told_ms(self) -> int:
        """Return the exchange's time as it tells it, in milliseconds."""
        return round((time.time() + self.clock_offset) * 1000)

    def advance(self, seconds: float) -> None:
        """Let time pass for interest, and for nothing else: timestamps and candles keep to the true clock."""
        self._advanced += seconds
        self.tick()

    # Markets and prices.

    def market(self, symbol: str) -> Market:
        """Return the market of a symbol, or refuse."""
        if symbol not in self.markets:
            raise BinanceError(-1121)
        return self.markets[symbol]

    def pair(self, pair: str) -> Market:
        """Return the market of a pair, for callers within Python."""
        return self.by_pair[pair]

    def price(self, symbol: str) -> Decimal:
        """Price of a market now; index and market price are one."""
        return self.prices.at(symbol, self.now())

    def set_price(self, symbol: str, price: Decimal) -> None:
        """Hold a market at a price from now on."""
        self.prices.set(symbol, price, self.now())
        self.tick()

    def start(self) -> None:
        """Let the scenario move from now on."""
        self.prices.start(self.now())
        self.tick()

    # Accounts.

    def account(self, symbol: str) -> IsolatedAccount:
        """Return the account of a symbol, or the placeholder that stands for none."""
        return self.accounts.get(symbol) or IsolatedAccount.placeholder(self.market(symbol))

    def account_row(self, symbol: str) -> dict[str, object]:
        """Write the account of a symbol as it is served now."""
        account, now = self.account(symbol), self.now()
        market = account.market
        in_btc = (self.prices.in_btc(asset, now) for asset in (market.base, market.quote))
        return account.row(self.prices.at(symbol, now), *in_btc)

    def totals(self) -> dict[str, object]:
        """Sum up all accounts in BTC."""
        asset = debt = ZERO
        now = self.now()
        for account in self.accounts.values():
            for name, holding in ((account.market.base, account.base), (account.market.quote, account.quote)):
                in_btc = self.prices.in_btc(name, now)
                asset += holding.total * in_btc
                debt += holding.debt * in_btc
        return {
            "totalAssetOfBtc": plain(asset),
            "totalLiabilityOfBtc": plain(debt),
            "totalNetAssetOfBtc": plain(asset - debt),
        }

    def borrow(self, symbol: str, asset: str, amount: Decimal) -> None:
        """Lend to an account; one hour of interest is charged at once."""
        account = self.accounts[symbol]
        holding = account.base if asset == account.market.base else account.quote
        holding.borrowed += amount
        holding.free += amount
        self._charge(account, asset, holding, amount, "ON_BORROW")

    def _charge(
        self, account: IsolatedAccount, asset: str, holding: Holding, loan: Decimal, kind: str
    ) -> None:
        # The direction in which Binance rounds is not known: half up is assumed.
        interest = rounded(loan * account.market.hourly_interest)
        holding.interest += interest
        self.charges.append(
            InterestCharge(
                number=len(self.charges) + 1,
                time=round((self.now() + self._advanced) * 1000),
                asset=asset,
                principal=loan,
                interest=interest,
                daily_rate=Decimal(account.market.spec.daily_interest),
                kind=kind,
                symbol=account.market.symbol,
            )
        )

    # What happens by itself.

    def tick(self) -> None:
        """Do what time and prices have made due, and wake whoever waits for a change."""
        with self.changed:
            self._charge_interest()
            self._match_orders()
            self._liquidate()
            self.changed.notify_all()

    def _charge_interest(self) -> None:
        # Hours are counted from the exchange's own beginning, not from the full hour of the wall clock as
        # Binance does: a test that runs at five to ten must not see other debts than one at a quarter past.
        hours = int((self.now() - self.born + self._advanced) // _HOUR)
        while self._hours_charged < hours:
            self._hours_charged += 1
            for account in self.accounts.values():
                market = account.market
                for asset, holding in ((market.base, account.base), (market.quote, account.quote)):
                    if holding.borrowed >= SATOSHI:
                        self._charge(account, asset, holding, holding.borrowed, "PERIODIC")

    def _match_orders(self) -> None:
        for symbol in self.book.open_symbols():
            self.book.match(symbol, self.price(symbol), self.told_ms())

    def _liquidate(self) -> None:
        now = self.now()
        for symbol, account in self.accounts.items():
            if not account.indebted:
                continue
            price = self.prices.at(symbol, now)
            if account.forced_at is None and account.must_be_liquidated(price):
                account.forced_at = now
            # Assumed: what was triggered is carried out, even if the price recovers meanwhile.
            if account.forced_at is not None and now - account.forced_at >= self.liquidation_grace:
                side, quantity = account.liquidate(price)
                order_id = self.book.next_id()
                self.liquidations.append(
                    Liquidation(order_id, round(now * 1000), symbol, side, price, quantity)
                )

    # Orders.

    def place(self, market: Market, order: OrderRecord) -> OrderRecord:
        """Take a new order at the price of this moment."""
        placed = self.book.place(market, order, self.price(market.symbol))
        self.changed.notify_all()
        return placed
