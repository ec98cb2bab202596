"""The books: what is there, and what has changed it."""

from collections.abc import Iterable
from decimal import Decimal

from .amounts import ZERO
from .ledger import IsolatedAccount
from .liquidation import Liquidation
from .loans import InterestCharge
from .markets import Market
from .orders import Balance, OrderRecord

Books = dict[str, Decimal]
"""Amounts by asset."""


def net_assets(wallet: dict[str, Balance], accounts: Iterable[IsolatedAccount]) -> Books:
    """Add up all assets less all debts, of the wallet and all accounts."""
    books = {asset: balance.free + balance.locked for asset, balance in wallet.items()}
    for account in accounts:
        for asset, holding in account.holdings():
            books[asset] = books.get(asset, ZERO) + holding.net
    return books


def explained(
    markets: dict[str, Market],
    orders: Iterable[OrderRecord],
    charges: Iterable[InterestCharge],
    liquidations: Iterable[Liquidation],
) -> Books:
    """Add up, from the records alone, what trades, fees, interest and liquidations have changed.

    Between two moments `net_assets` changes by exactly as much as this, unless a test has set an account or
    a balance.
    """
    changes: dict[str, Decimal] = {}

    def add(asset: str, amount: Decimal) -> None:
        changes[asset] = changes.get(asset, ZERO) + amount

    for order in orders:
        market = markets[order.symbol]
        sign = 1 if order.side == "BUY" else -1
        for fill in order.fills:
            add(market.base, sign * fill.quantity)
            add(market.quote, -sign * fill.quantity * fill.price)
            add(fill.commission_asset, -fill.commission)
    for charge in charges:
        add(charge.asset, -charge.interest)
    for liquidation in liquidations:
        market = markets[liquidation.symbol]
        add(market.base, liquidation.settlement.base_change)
        add(market.quote, liquidation.settlement.quote_change)
    return changes
