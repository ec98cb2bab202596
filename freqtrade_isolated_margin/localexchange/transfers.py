"""Moving assets between the spot wallet and isolated margin accounts."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from .amounts import ONE, SATOSHI, ZERO, floored, plain
from .errors import BinanceError
from .ledger import IsolatedAccount
from .orders import OrderBook

TO_ISOLATED, FROM_ISOLATED = "MAIN_ISOLATED_MARGIN", "ISOLATED_MARGIN_MAIN"


@dataclass(frozen=True, slots=True)
class TransferRecord:
    """A transfer that was made."""

    number: int
    time: int
    kind: str
    asset: str
    amount: Decimal
    symbol: str

    def row(self) -> dict[str, object]:
        """Write the transfer as `GET asset/transfer` does, which names no symbol."""
        return {
            "asset": self.asset,
            "amount": plain(self.amount),
            "type": self.kind,
            "status": "CONFIRMED",
            "tranId": self.number,
            "timestamp": self.time,
        }


class Transfers:
    """All transfers of the user."""

    def __init__(self, book: OrderBook, price: Callable[[str], Decimal], number: Callable[[], int]) -> None:
        self._book = book
        self._price = price
        self._number = number
        self.records: list[TransferRecord] = []
        self.level = Decimal("2.25")
        """Margin level that must remain where collateral leaves an account that owes. It differs by pair and
        stands in no document; assumed: a number that a user has reported, for all of them."""

    def transferable(self, account: IsolatedAccount, asset: str) -> Decimal:
        """Return how much of an asset may leave the account: all that is free where nothing is owed.

        Otherwise what exceeds the level times the debt: (A − x·p) / D ≥ T where x ≤ (A − T·D) / p.
        """
        free = account.holding(asset).free
        if not account.indebted:
            return free
        price = self._price(account.market.symbol)
        unit = price if asset == account.market.base else ONE
        assets = account.base.total * price + account.quote.total
        debts = account.base.debt * price + account.quote.debt
        spare = floored(max(ZERO, assets - self.level * debts) / unit, SATOSHI)
        return min(free, spare)

    def check_in(self, account: IsolatedAccount, asset: str, amount: Decimal) -> None:
        """Refuse to move more than the wallet has, or what the account does not take."""
        account.holding(asset)
        if amount > self._book.balance(asset).free:
            raise BinanceError(-5013)

    def move_in(self, account: IsolatedAccount, asset: str, amount: Decimal, now: int) -> TransferRecord:
        """Move from the wallet into an account."""
        self.check_in(account, asset, amount)
        self._book.balance(asset).free -= amount
        account.holding(asset).free += amount
        return self._record(TO_ISOLATED, account, asset, amount, now)

    def move_out(self, account: IsolatedAccount, asset: str, amount: Decimal, now: int) -> TransferRecord:
        """Move from an account into the wallet."""
        if amount > self.transferable(account, asset):
            raise BinanceError(-3020)
        account.holding(asset).free -= amount
        self._book.balance(asset).free += amount
        return self._record(FROM_ISOLATED, account, asset, amount, now)

    def _record(
        self, kind: str, account: IsolatedAccount, asset: str, amount: Decimal, now: int
    ) -> TransferRecord:
        record = TransferRecord(self._number(), now, kind, asset, amount, account.market.symbol)
        self.records.append(record)
        return record
