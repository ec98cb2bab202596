"""Everything behind the endpoints: the clock, prices, accounts, orders and interest of one exchange."""

import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal

from .amounts import ZERO, plain
from .books import Books, explained, net_assets
from .errors import BinanceError
from .journal import RequestRecord
from .keys import ApiKey
from .ledger import AccountSpec, IsolatedAccount
from .liquidation import Liquidation, liquidate
from .loans import Loans
from .margin_orders import MarginBook
from .markets import Market, MarketSpec
from .orders import OrderBook, OrderRecord
from .prices import Prices
from .scenarios import Scenario
from .transfers import Transfers

_HOUR = 3600.0
_KEPT_RECORDS = 100_000


class State:
    """One exchange. Whoever touches it holds `changed`, which is also notified of every change."""

    def __init__(self, markets: Iterable[MarketSpec], scenario: Scenario, speed: float, fee: Decimal) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.scenario = scenario
        self.born = time.time()
        self.clock_offset = 0.0
        self.liquidation_grace = 2.0
        self.liquidation_fee = ZERO
        """Share of what a forced liquidation trades. The API's documents name none: assumed to be none."""
        self.max_accounts = 20
        self.markets = {market.symbol: market for market in map(self._market, markets)}
        self.by_pair = {market.spec.pair: market for market in self.markets.values()}
        self.prices = Prices(list(self.markets.values()), scenario, self.born, speed)
        self.accounts: dict[str, IsolatedAccount] = {}
        self.book = OrderBook(fee)
        self.keys: dict[str, ApiKey] = {}
        self.records: deque[RequestRecord] = deque(maxlen=_KEPT_RECORDS)
        self._fill_scenario()

    def _market(self, spec: MarketSpec) -> Market:
        return Market(replace(spec, price=self.scenario.prices.get(spec.pair, spec.price)))

    def _fill_scenario(self) -> None:
        """Begin anew with what the scenario has in its accounts, with no order, loan or transfer there."""
        # The hours of interest as well: a wall clock that was set back would have charged them already.
        self._hours_from = self.now()
        self._advanced = 0.0
        self._hours_charged = 0
        self.loans = Loans(self.price, self.told_ms, self._interest_ms)
        self.transfers = Transfers(self.book, self.price, lambda: next(self.loans.numbers))
        self.margin_book = MarginBook(self.book, self.account, self.loans)
        self.liquidations: list[Liquidation] = []
        self.burns = {"spotBNBBurn": False, "interestBNBBurn": False}
        self.book.liquidity.clear()
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

    def set_account(self, market: Market, spec: AccountSpec) -> None:
        """Replace an account. Its open orders end, since what they locked is no longer there."""
        self.margin_book.forget(market.symbol, self.told_ms())
        self.accounts[market.symbol] = IsolatedAccount.of(market, spec)

    def remove_account(self, symbol: str) -> None:
        """Make it as if there never was an account."""
        self.margin_book.forget(symbol, self.told_ms())
        self.accounts.pop(symbol, None)

    def usable_account(self, symbol: str) -> IsolatedAccount:
        """Return the account of a symbol for something that moves money, or refuse.

        Assumed: the codes for an account that is disabled or being liquidated.
        """
        account = self.account(symbol)
        if not account.created or not account.enabled:
            raise BinanceError(-11001)
        if account.forced_at is not None:
            raise BinanceError(-3023)
        return account

    @property
    def enabled_accounts(self) -> int:
        """How many accounts are enabled, of those that there may be."""
        return sum(account.enabled for account in self.accounts.values())

    def open_account(self, symbol: str) -> IsolatedAccount:
        """Return an account that is ready to be paid into: made or enabled where it is not, or refused."""
        account = self.account(symbol)
        if not account.enabled:
            if not account.market.spec.isolated:
                raise BinanceError(-1121)
            if self.enabled_accounts >= self.max_accounts:
                raise BinanceError(-11003)
            account.created = account.enabled = True
            self.accounts[symbol] = account
        return self.usable_account(symbol)

    def net_assets(self) -> Books:
        """Add up all assets less all debts."""
        return net_assets(self.book.wallet, self.accounts.values())

    def explained(self) -> Books:
        """Add up what has changed the net assets, from the records."""
        orders = [*self.book.orders(), *self.margin_book.orders()]
        return explained(self.markets, orders, self.loans.charges, self.liquidations)

    def _interest_ms(self) -> int:
        return round((self.now() + self._advanced) * 1000)

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
        hours = int((self.now() - self._hours_from + self._advanced) // _HOUR)
        while self._hours_charged < hours:
            self._hours_charged += 1
            self.loans.charge_hour(self.accounts.values())

    def _match_orders(self) -> None:
        for book in (self.book, self.margin_book):
            for symbol in book.open_symbols():
                book.match(symbol, self.price(symbol), self.told_ms())

    def _liquidate(self) -> None:
        now = self.now()
        for symbol, account in self.accounts.items():
            if not account.indebted:
                continue
            if account.forced_at is None and account.must_be_liquidated(self.prices.at(symbol, now)):
                account.forced_at = now
            # Assumed: what was triggered is carried out, even if the price recovers meanwhile.
            if account.forced_at is not None and now - account.forced_at >= self.liquidation_grace:
                self._settle(account, now)

    def force_liquidation(self, symbol: str) -> None:
        """Liquidate an account now, whatever its margin level."""
        self._settle(self.accounts[symbol], self.now())
        self.changed.notify_all()

    def _settle(self, account: IsolatedAccount, now: float) -> None:
        symbol = account.market.symbol
        price = self.prices.at(symbol, now)
        self.margin_book.forget(symbol, self.told_ms())
        settlement = liquidate(account, price, self.liquidation_fee)
        record = Liquidation(self.book.next_id(), round(now * 1000), symbol, price, settlement)
        self.liquidations.append(record)

    # Orders.

    def place(self, market: Market, order: OrderRecord) -> OrderRecord:
        """Take a new spot order at the price of this moment."""
        return self._place(self.book, market, order)

    def place_margin(self, market: Market, order: OrderRecord) -> OrderRecord:
        """Take a new order in a market's isolated margin account at the price of this moment."""
        if not self.usable_account(market.symbol).trade_enabled:
            raise BinanceError(-3021)
        return self._place(self.margin_book, market, order)

    def _place(self, book: OrderBook, market: Market, order: OrderRecord) -> OrderRecord:
        placed = book.place(market, order, self.price(market.symbol))
        self.changed.notify_all()
        return placed
