"""The forced liquidation of an isolated margin account."""

from dataclasses import dataclass
from decimal import Decimal

from .amounts import ONE, SATOSHI, ZERO, floored, plain, raised, rounded
from .ledger import IsolatedAccount


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a liquidation has traded. What was owed and could not be paid is the lender's loss."""

    side: str
    quantity: Decimal
    """In base."""
    worth: Decimal = ZERO
    """In quote, as traded: quantity times price, on eight decimals in the lender's favour."""
    fee: Decimal = ZERO
    """In quote."""
    base_loss: Decimal = ZERO
    quote_loss: Decimal = ZERO

    @property
    def base_change(self) -> Decimal:
        """By how much the account's base assets less its debts have changed."""
        return (self.quantity if self.side == "BUY" else -self.quantity) + self.base_loss

    @property
    def quote_change(self) -> Decimal:
        """By how much the account's quote assets less its debts have changed."""
        return (-self.worth if self.side == "BUY" else self.worth) - self.fee + self.quote_loss


@dataclass(frozen=True, slots=True)
class Liquidation:
    """A forced liquidation that was carried out."""

    order_id: int
    time: int
    symbol: str
    price: Decimal
    settlement: Settlement

    def row(self) -> dict[str, object]:
        """Write the liquidation as `forceLiquidationRec` does."""
        quantity = plain(self.settlement.quantity)
        return {
            "avgPrice": plain(self.price),
            "executedQty": quantity,
            "orderId": self.order_id,
            "price": plain(self.price),
            "qty": quantity,
            "side": self.settlement.side,
            "symbol": self.symbol,
            "timeInForce": "GTC",
            "isIsolated": True,
            "updatedTime": self.time,
        }


def liquidate(account: IsolatedAccount, price: Decimal, fee_rate: Decimal = ZERO) -> Settlement:
    """Repay all debts of an account at a price.

    Assumed: each debt is paid from its own asset first, and what is missing is traded at the index price,
    whatever the lot; the fee is a share of what is traded, in quote, and the lender comes before it; what is
    left stays in the account; what is missing is the lender's loss.
    """
    for _, holding in account.holdings():
        holding.free, holding.locked, holding.borrowed, holding.interest = holding.net, ZERO, ZERO, ZERO
    account.forced_at = None
    if account.quote.free < 0 < account.base.free:
        return _with_losses(account, _sell(account, price, fee_rate))
    if account.base.free < 0 < account.quote.free:
        return _with_losses(account, _buy(account, price, fee_rate))
    return _with_losses(account, Settlement("SELL", ZERO))


def _sell(account: IsolatedAccount, price: Decimal, fee_rate: Decimal) -> Settlement:
    owed = -account.quote.free
    quantity = min(account.base.free, raised(owed / (ONE - fee_rate) / price, SATOSHI))
    worth = floored(quantity * price, SATOSHI)
    fee = min(rounded(worth * fee_rate), max(ZERO, worth - owed))
    account.base.free -= quantity
    account.quote.free += worth - fee
    return Settlement("SELL", quantity, worth, fee)


def _buy(account: IsolatedAccount, price: Decimal, fee_rate: Decimal) -> Settlement:
    money = account.quote.free
    quantity = min(raised(-account.base.free, SATOSHI), floored(money / price, SATOSHI))
    worth = min(money, raised(quantity * price, SATOSHI))
    fee = min(rounded(worth * fee_rate), money - worth)
    account.base.free += quantity
    account.quote.free -= worth + fee
    return Settlement("BUY", quantity, worth, fee)


def _with_losses(account: IsolatedAccount, traded: Settlement) -> Settlement:
    base_loss, quote_loss = (max(ZERO, -holding.free) for _, holding in account.holdings())
    account.base.free += base_loss
    account.quote.free += quote_loss
    return Settlement(traded.side, traded.quantity, traded.worth, traded.fee, base_loss, quote_loss)
