"""What isolated margin accounts borrow and repay, the interest on it, and how much they may borrow."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal

from .amounts import ONE, SATOSHI, ZERO, floored, plain, rounded
from .errors import BinanceError
from .ledger import Holding, IsolatedAccount
from .markets import Tier


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
class LoanRecord:
    """A loan that was given, or a payment that was made on a debt."""

    number: int
    time: int
    kind: str
    """BORROW or REPAY."""
    automatic: bool
    """Whether an order did it."""
    asset: str
    principal: Decimal
    interest: Decimal
    """What was paid of the interest."""
    symbol: str

    def row(self) -> dict[str, object]:
        """Write the record as `GET margin/borrow-repay` does."""
        return {
            "txId": self.number,
            "isolatedSymbol": self.symbol,
            "asset": self.asset,
            "amount": plain(self.principal + self.interest),
            "principal": plain(self.principal),
            "interest": plain(self.interest),
            "type": "AUTO" if self.automatic else "MANUAL",
            "status": "CONFIRMED",
            "timestamp": self.time,
        }


class Loans:
    """The lender: gives, charges, takes back, and keeps the records. Limits are those of the tier table."""

    def __init__(
        self, price: Callable[[str], Decimal], now_ms: Callable[[], int], interest_ms: Callable[[], int]
    ) -> None:
        self._price = price
        self._now_ms = now_ms
        self._interest_ms = interest_ms
        self.numbers = itertools.count(700001)
        """Ids of transactions; transfers are counted with them."""
        self.charges: list[InterestCharge] = []
        self.records: list[LoanRecord] = []
        self.lendable: dict[str, Decimal] = {}
        """How much of an asset there is to lend; without an end where nothing is set."""
        self.banned: set[str] = set()
        """Assets that nobody may borrow."""
        self.minimum: dict[str, Decimal] = {}
        """The least loan of an asset; a satoshi where nothing is set, which is assumed."""

    def least(self, asset: str) -> Decimal:
        """Return the least loan of an asset."""
        return self.minimum.get(asset, SATOSHI)

    def borrowable(self, account: IsolatedAccount, asset: str) -> tuple[Decimal, Decimal]:
        """Return how much more of an asset the account may borrow, and how much its tiers still lend.

        The first number keeps the margin level at or above the initial ratio of the tier that the loan gets
        into: a loan of N adds N to assets A and to debts D, so (A + N) / (D + N) ≥ I where
        N ≤ (A − I·D) / (I − 1). Assumed: the interest of the first hour is not looked at.
        """
        price = self._price(account.market.symbol)
        unit = price if asset == account.market.base else ONE
        assets = account.base.total * price + account.quote.total
        debts = account.base.debt * price + account.quote.debt
        borrowed = account.holding(asset).borrowed
        most = ZERO
        for tier in account.market.tiers:
            if not _holds_the_other(account, asset, tier):
                continue
            collateral = (assets - tier.initial * debts) / (tier.initial - ONE) / unit
            most = max(most, min(collateral, _limit(account, asset, tier) - borrowed))
        lent = _limit(account, asset, account.market.tiers[-1]) - borrowed
        return floored(most, SATOSHI), max(ZERO, lent)

    def check(self, account: IsolatedAccount, asset: str, amount: Decimal) -> None:
        """Refuse a loan that the account may not take.

        Which of the two codes is for the table's limit and which for the collateral is assumed: both are seen
        where the collateral is too small.
        """
        if asset in self.banned:
            raise BinanceError(-3012)
        if amount < self.least(asset):
            raise BinanceError(-3013)
        most, lent = self.borrowable(account, asset)
        if amount > lent:
            raise BinanceError(-3006)
        if amount > most:
            raise BinanceError(-11008)
        if amount > self.lendable.get(asset, amount):
            raise BinanceError(-3045)

    def borrow(
        self, account: IsolatedAccount, asset: str, amount: Decimal, *, automatic: bool = False
    ) -> LoanRecord:
        """Lend to an account that may borrow, or refuse."""
        self.check(account, asset, amount)
        if asset in self.lendable:
            self.lendable[asset] -= amount
        return self.lend(account, asset, amount, automatic=automatic)

    def lend(
        self, account: IsolatedAccount, asset: str, amount: Decimal, *, automatic: bool = False
    ) -> LoanRecord:
        """Lend without asking; one hour of interest is charged at once."""
        holding = account.holding(asset)
        holding.borrowed += amount
        holding.free += amount
        self._charge(account, asset, holding, amount, "ON_BORROW")
        return self._record(account, asset, "BORROW", amount, ZERO, automatic=automatic)

    def repay(
        self, account: IsolatedAccount, asset: str, amount: Decimal, *, automatic: bool = False
    ) -> LoanRecord:
        """Take a payment on a debt from what is free, interest first, or refuse."""
        holding = account.holding(asset)
        if amount > holding.debt:
            raise BinanceError(-3015)
        if amount > holding.free:
            raise BinanceError(-3041)
        interest = min(amount, holding.interest)
        holding.free -= amount
        holding.interest -= interest
        holding.borrowed -= amount - interest
        if asset in self.lendable:
            self.lendable[asset] += amount - interest
        return self._record(account, asset, "REPAY", amount - interest, interest, automatic=automatic)

    def charge_hour(self, accounts: Iterable[IsolatedAccount]) -> None:
        """Charge every loan for an hour that has begun."""
        for account in accounts:
            for asset, holding in account.holdings():
                if holding.borrowed >= SATOSHI:
                    self._charge(account, asset, holding, holding.borrowed, "PERIODIC")

    def _charge(
        self, account: IsolatedAccount, asset: str, holding: Holding, loan: Decimal, kind: str
    ) -> None:
        # The direction in which Binance rounds is not known: half up is assumed.
        interest = rounded(loan * account.market.hourly_interest)
        holding.interest += interest
        self.charges.append(
            InterestCharge(
                number=len(self.charges) + 1,
                time=self._interest_ms(),
                asset=asset,
                principal=loan,
                interest=interest,
                daily_rate=Decimal(account.market.spec.daily_interest),
                kind=kind,
                symbol=account.market.symbol,
            )
        )

    def _record(
        self,
        account: IsolatedAccount,
        asset: str,
        kind: str,
        principal: Decimal,
        interest: Decimal,
        *,
        automatic: bool,
    ) -> LoanRecord:
        record = LoanRecord(
            number=next(self.numbers),
            time=self._now_ms(),
            kind=kind,
            automatic=automatic,
            asset=asset,
            principal=principal,
            interest=interest,
            symbol=account.market.symbol,
        )
        self.records.append(record)
        return record


def _limit(account: IsolatedAccount, asset: str, tier: Tier) -> Decimal:
    return tier.base_limit if asset == account.market.base else tier.quote_limit


def _holds_the_other(account: IsolatedAccount, asset: str, tier: Tier) -> bool:
    """Whether the tier is high enough for the account's other loan: the higher one of the two applies."""
    if asset == account.market.base:
        return account.quote.borrowed <= tier.quote_limit
    return account.base.borrowed <= tier.base_limit
