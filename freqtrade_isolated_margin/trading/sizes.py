"""How much an order trades and how much collateral it needs, in pure functions. Amounts are in base."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import NamedTuple

from freqtrade_isolated_margin.account.maths import ONE, PLACE, ZERO, Side, exact
from freqtrade_isolated_margin.account.records import PairAccount

# A market order may cost more than was reckoned; without borrowing, that must be there as well.
_SLIPPAGE = Decimal("0.01")
# freqtrade's amount and the account's differ by fees and roundings; what is closer than this is all of it.
_NEARLY_ALL = Decimal("0.99")
# So much more than the minimum that a tick against it does not matter.
_ABOVE_MINIMUM = Decimal("1.05")


class Lots(NamedTuple):
    """What a market's orders are made of."""

    lot: Decimal
    """The step of an order's amount."""
    least: Decimal
    """The least value of an order."""
    fee: Decimal
    """The fee of what is received, as a fraction of it."""

    def down(self, amount: Decimal) -> Decimal:
        """Cut an amount to the lot."""
        return (amount / self.lot).to_integral_value(ROUND_FLOOR) * self.lot

    def up(self, amount: Decimal) -> Decimal:
        """Round an amount up to the lot."""
        return (amount / self.lot).to_integral_value(ROUND_CEILING) * self.lot

    def sellable(self, amount: Decimal, price: Decimal) -> Decimal:
        """Return what of an amount can be sold: nothing, where it is below the least order."""
        cut = self.down(amount)
        return cut if cut > ZERO and cut * price >= self.least else ZERO


class Position(NamedTuple):
    """What an account has of a deal: what of its base currency is the deal's, and what it owes of it."""

    base: Decimal
    debt: Decimal

    @classmethod
    @exact
    def of(cls, account: PairAccount, base_before: Decimal) -> Position:
        """Return that of an account which held `base_before` when the deal began."""
        base = account.base_asset
        return cls(max(base.free + base.locked - base_before, ZERO), base.debt)


@exact
def stake(value: Decimal, leverage: Decimal, side: Side, *, at_market: bool) -> Decimal:
    """Return the collateral of an entry worth `value`: that part of it which is not borrowed.

    Source: FAQ, a long of leverage L borrows (L - 1) / L of its value; a short of N times its collateral
    borrows all that it sells. freqtrade's stake is value / leverage on both sides.
    """
    needed = value / max(leverage, ONE)
    if at_market and side is Side.LONG and leverage <= ONE:
        needed *= ONE + _SLIPPAGE
    return needed.quantize(PLACE, ROUND_CEILING)


@exact
def exit_amount(side: Side, asked: Decimal, position: Position, coming: Decimal, lots: Lots) -> Decimal:
    """Return how much an exit trades where freqtrade asks for `asked`; 0 where there is nothing to exit.

    A long that is closed sells all that is there. A short that is closed buys what is owed and not held,
    with the interest that is `coming` while it rests, and the fee, which is taken from what is bought:
    (owed + coming) / (1 - fee), rounded up to the lot. A part is sold or bought as it is asked for.
    """
    if side is Side.LONG:
        there = lots.down(position.base)
        return there if asked >= there * _NEARLY_ALL else lots.down(asked)
    owed = max(position.debt - position.base, ZERO)
    if owed and asked >= owed * _NEARLY_ALL:
        return lots.up((owed + coming) / (ONE - lots.fee))
    return lots.down(min(asked, owed))


@exact
def rest_to_buy(debt: Decimal, price: Decimal, lots: Lots) -> Decimal:
    """Return how much to buy to repay a debt in base currency that is left over.

    Where the debt is below the least order, so much more is bought that what is left can be sold again.
    """
    needed = lots.up(debt / (ONE - lots.fee))
    if needed * price >= lots.least:
        return needed
    return lots.up((debt + lots.least * _ABOVE_MINIMUM / price + lots.lot) / (ONE - lots.fee))


@exact
def told_amount(asked: Decimal, sent: Decimal, filled: Decimal, lots: Lots) -> Decimal:
    """Return how much freqtrade is told to be filled of an order for which another amount was sent.

    An exit of a short buys interest and fee besides; freqtrade counts what it asked for.
    """
    if sent < asked * _NEARLY_ALL:
        # There was less than freqtrade takes for granted: that is not to be hidden.
        return filled
    if filled >= sent:
        return asked
    return min(lots.down(filled * asked / sent), asked) if sent else ZERO
