"""Orders in isolated margin accounts, with what they borrow and repay."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

from .amounts import ZERO
from .errors import BinanceError
from .ledger import Holding, IsolatedAccount
from .loans import Loans
from .markets import Market
from .orders import OrderBook, OrderRecord

SIDE_EFFECTS = ("NO_SIDE_EFFECT", "MARGIN_BUY", "AUTO_REPAY", "AUTO_BORROW_REPAY")
BORROWING = frozenset({"MARGIN_BUY", "AUTO_BORROW_REPAY"})
_REPAYING = frozenset({"AUTO_REPAY", "AUTO_BORROW_REPAY"})


class MarginBook(OrderBook):
    """All orders of the user in isolated margin accounts, which they move instead of the wallet.

    An order that borrows does so as it is accepted, a resting one too: what it lacks of the asset that it
    pays with, at least the asset's minimum. One that repays does so from what it receives, interest first.
    Order and trade ids are counted with those of spot, as both are matched in one book.
    """

    def __init__(self, spot: OrderBook, account: Callable[[str], IsolatedAccount], loans: Loans) -> None:
        super().__init__(spot.fee)
        self.liquidity = spot.liquidity
        self._order_ids, self._trade_ids = spot.id_counters
        self._account = account
        self._loans = loans

    def purse(self, market: Market, asset: str) -> Holding:
        """Return the asset of the market's account."""
        return self._account(market.symbol).holding(asset)

    def close(self, order_id: int, status: str, now: int) -> OrderRecord:
        """End an open order, and give back what it borrowed for nothing.

        Assumed: that is at most what the order frees, as its own money is spent first; and an order that
        expires repays like one that is cancelled.
        """
        order, market = self.by_id[order_id], self._open[order_id]
        closed = super().close(order_id, status, now)
        if order.side_effect in BORROWING and order.repay_at_cancel:
            self._repay(market, order.paid_asset, min(order.loan, order.resting_lock))
        return closed

    def forget(self, symbol: str, now: int) -> None:
        """End the open orders of an account that is replaced or liquidated, whatever they have locked."""
        for order in self.open_orders(symbol):
            self._update(replace(order, status="CANCELED", update_time=now))

    def _fund(self, market: Market, order: OrderRecord) -> OrderRecord:
        asset = order.paid_asset
        lacking = order.resting_lock - self.purse(market, asset).free
        if lacking <= 0:
            return order
        if order.side_effect not in BORROWING:
            raise BinanceError(-2010)
        loan = max(lacking, self._loans.least(asset))
        self._loans.borrow(self._account(market.symbol), asset, loan, automatic=True)
        return replace(order, loan=loan)

    def _received(self, market: Market, order: OrderRecord, asset: str, amount: Decimal) -> None:
        if order.side_effect in _REPAYING:
            self._repay(market, asset, amount)

    def _repay(self, market: Market, asset: str, most: Decimal) -> None:
        account = self._account(market.symbol)
        amount = min(most, account.holding(asset).debt)
        if amount > ZERO:
            self._loans.repay(account, asset, amount, automatic=True)
