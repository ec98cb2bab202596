"""Finding out what became of a step, and bringing an account to where it holds and owes nothing of a deal.

Nothing here relies on what is remembered: each round looks at the account as it is and does the next thing
that is due, so that it may be broken off anywhere and begun again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Protocol

from freqtrade_isolated_margin.account.maths import ZERO, Side
from freqtrade_isolated_margin.account.records import Absent, PairAccount
from freqtrade_isolated_margin.binance.adapter import NO_ACCOUNT_CODES
from freqtrade_isolated_margin.binance.venue import OUT, Status, Venue, is_doubtful
from freqtrade_isolated_margin.errors import AnswerError, IsolatedMarginError
from freqtrade_isolated_margin.trading.journal import ORDERS, Deal, Journal, Kind, Outcome, Step
from freqtrade_isolated_margin.trading.sizes import Lots, Position, rest_to_buy

logger = logging.getLogger(__name__)

_ROUNDS = 12
# The exchange's clock and that of a history may differ by so much, in milliseconds.
_BEFORE = 1000


class DoubtError(IsolatedMarginError):
    """It is not known whether a step was taken. Nothing further is done until it is."""

    kind = "doubt"


class TroubleError(IsolatedMarginError):
    """An account cannot be settled without a person. The message says what to look at."""

    kind = "trouble"


class Markets(Protocol):
    """What is known of a pair's market."""

    def lots(self, pair: str) -> Lots:
        """Return what its orders are made of."""


class Settler:
    """Asks and settles for one bot; for use by one thread at a time."""

    def __init__(
        self, venue: Venue, journal: Journal, markets: Markets, *, moves: bool, patience_ms: int
    ) -> None:
        self._venue = venue
        self._journal = journal
        self._markets = markets
        self._moves = moves
        self._patience_ms = patience_ms

    def symbol(self, pair: str) -> str:
        """Return the market id of a pair."""
        symbol = self._venue.market_ids([pair])[pair]
        if symbol is None:
            raise AnswerError(f"{pair} has no spot market on Binance")
        return symbol

    def account(self, pair: str) -> PairAccount | Absent:
        """Read the pair's account.

        :raises IsolatedMarginError: where it cannot be read.
        """
        symbol = self.symbol(pair)
        try:
            row = self._venue.fetch([symbol]).rows.get(symbol)
        except IsolatedMarginError as error:
            if error.code not in NO_ACCOUNT_CODES:
                raise
            row = None
        if row is None or (isinstance(row, PairAccount) and row.is_absent):
            return Absent("there is no isolated margin account yet")
        if isinstance(row, PairAccount):
            return row
        raise AnswerError(f"the account of {pair} cannot be read: {row.why}")

    def take(self, deal: Deal, kind: Kind, asked: dict[str, object], act: Callable[[Step], object]) -> Step:
        """Take a step: write it down, send it, and write down what came of it.

        :raises DoubtError: where nobody knows; the step then has no outcome.
        :raises IsolatedMarginError: where it was refused.
        """
        step = self._journal.begin(deal, kind, asked, self._venue.now_ms())
        try:
            answer = act(step)
        except IsolatedMarginError as error:
            if not is_doubtful(error):
                self._journal.finish(step, Outcome.REFUSED, answer=str(error))
                raise
            if not self.resolve(deal, step):
                raise DoubtError(
                    f"{deal.pair}: it is not known whether to {kind} {_words(asked)} was done: {error}"
                ) from None
            if step.outcome is not Outcome.DONE:
                raise
            return step
        self._journal.finish(step, Outcome.DONE, getattr(answer, "order_id", None), answer)
        return step

    # ----- doubt

    def resolve_all(self, deal: Deal) -> bool:
        """Find out what became of a deal's steps; whether nothing is left in doubt."""
        known = [self.resolve(deal, step) for step in deal.doubtful]
        return all(known)

    def resolve(self, deal: Deal, step: Step) -> bool:
        """Find out what became of a step; whether it is known now.

        What the exchange does not know of was never done, once a request can no longer be on its way.
        """
        try:
            order_id = self._found(deal, step)
        except IsolatedMarginError as error:
            logger.warning("%s: what became of a step (%s) is not known yet: %s", deal.pair, step.kind, error)
            return False
        if order_id is not None:
            logger.warning("%s: a step whose answer was lost was done (%s).", deal.pair, step.kind)
            self._journal.finish(step, Outcome.DONE, order_id or None, "found afterwards")
            return True
        if self._venue.now_ms() - step.asked_at <= self._patience_ms:
            return False
        logger.warning("%s: a step whose answer was lost was never done (%s).", deal.pair, step.kind)
        self._journal.finish(step, Outcome.NEVER, answer="unknown to the exchange")
        return True

    def _found(self, deal: Deal, step: Step) -> str | None:
        """Return the order's id, or an empty text for what has none; None where there is no trace of it."""
        symbol, since = self.symbol(deal.pair), step.asked_at - _BEFORE
        if step.kind in ORDERS:
            placed = self._venue.order_named(symbol, step.name)
            return placed.order_id if placed else None
        asset, amount = step.asked["asset"], Decimal(step.asked["amount"])
        if step.kind is Kind.REPAY:
            paid = self._venue.payments(symbol, asset, since)
            found = {payment.status for payment in paid if payment.amount == amount}
        else:
            moved = self._venue.transfers(step.asked["type"], since)
            found = {
                transfer.status for transfer in moved if (transfer.asset, transfer.amount) == (asset, amount)
            }
        if Status.CONFIRMED in found:
            return ""
        if Status.PENDING in found:
            raise DoubtError(f"the exchange has not yet done {_words(step.asked)}")
        return None

    # ----- settling

    def position(self, deal: Deal, account: PairAccount | Absent) -> Position:
        """Return what the account has of a deal."""
        return (
            Position.of(account, deal.base_before)
            if isinstance(account, PairAccount)
            else Position(ZERO, ZERO)
        )

    def is_over(self, deal: Deal, account: PairAccount | Absent) -> bool:
        """Whether nothing of the deal's position is left, and no order that could change that."""
        if not isinstance(account, PairAccount):
            return True
        if account.base_asset.locked or account.quote_asset.locked:
            return False
        # What is below the least order is none: a cancelled short leaves its first hour's interest owed,
        # and the exit of one leaves what was bought beyond the debt.
        held = self.position(deal, account).base if deal.side is Side.LONG else account.base_asset.borrowed
        return held * account.index_price < self._markets.lots(deal.pair).least

    def wind_up(self, deal: Deal) -> None:
        """Do all that `clear` does, and end the deal."""
        self.clear(deal)
        self._journal.end(deal, self._venue.now_ms())

    def clear(self, deal: Deal) -> None:
        """Cancel, close, repay and move back all that is left of a deal.

        :raises DoubtError: where a step's outcome is not known; later calls go on from there.
        :raises TroubleError: where a person must look.
        :raises IsolatedMarginError: where the exchange refuses a step, or cannot be asked.
        """
        for _ in range(_ROUNDS):
            account = self.account(deal.pair)
            if not isinstance(account, PairAccount) or not self._next(deal, account):
                return
        raise TroubleError(f"{deal.pair}: after {_ROUNDS} steps its account is still not settled; look at it")

    def _next(self, deal: Deal, account: PairAccount) -> bool:
        """Take the next step towards nothing; False where none is due."""
        base, quote = account.base_asset, account.quote_asset
        if base.locked or quote.locked:
            return self._cancel_all(deal)
        own, price = max(base.free - deal.base_before, ZERO), account.index_price
        lots = self._markets.lots(deal.pair)
        for asset, owed, there in (
            (base.asset, base.debt, own),
            (quote.asset, quote.debt, quote.free),
        ):
            if owed and there:
                self._repay(deal, asset, min(owed, there))
                return True
        if base.debt:
            amount = rest_to_buy(base.debt, price, lots)
            return self._trade(deal, "BUY", amount, "AUTO_REPAY")
        sellable = lots.sellable(own, price)
        if quote.debt and not sellable:
            raise TroubleError(
                f"{deal.pair}: its account owes {quote.debt:f} {quote.asset} and has nothing to pay it with; "
                "move what is missing there and repay it"
            )
        if sellable:
            return self._trade(deal, "SELL", sellable, "AUTO_REPAY" if quote.debt else "NO_SIDE_EFFECT")
        return self._moves and self._move_out(deal, {quote.asset: quote.free, base.asset: base.free})

    def _cancel_all(self, deal: Deal) -> bool:
        symbol, ours = self.symbol(deal.pair), {step.name for step in deal.steps}
        for order in self._venue.open_orders(symbol):
            if order.name not in ours:
                raise TroubleError(
                    f"{deal.pair}: there is an order in its account that this bot did not place (id "
                    f"{order.order_id}); cancel it"
                )
            self._venue.cancel(symbol, order.order_id)
        return True

    def _repay(self, deal: Deal, asset: str, amount: Decimal) -> None:
        symbol = self.symbol(deal.pair)
        asked: dict[str, object] = {"asset": asset, "amount": f"{amount:f}"}
        self.take(deal, Kind.REPAY, asked, lambda _: self._venue.repay(symbol, asset, amount))
        logger.info("%s: repaid %s %s.", deal.pair, f"{amount:f}", asset)

    def trade(self, deal: Deal, side: str, amount: Decimal, effect: str, undoes: str | None = None) -> Step:
        """Place an order at market price of the bot's own accord; it may undo another."""
        symbol = self.symbol(deal.pair)
        asked: dict[str, object] = {"pair": deal.pair, "side": side.lower(), "sent": f"{amount:f}"}
        if undoes:
            asked["undoes"] = undoes
        logger.warning(
            "%s: %s %s at market price, to settle its account.", deal.pair, side.lower(), f"{amount:f}"
        )
        return self.take(
            deal,
            Kind.REPAIR,
            asked,
            lambda step: self._venue.market_order(symbol, side, amount, step.name, effect),
        )

    def _trade(self, deal: Deal, side: str, amount: Decimal, effect: str) -> bool:
        self.trade(deal, side, amount, effect)
        return True

    def _move_out(self, deal: Deal, free: dict[str, Decimal]) -> bool:
        for asset, amount in free.items():
            if amount:
                self.move(deal, Kind.MOVE_OUT, OUT, asset, amount)
                return True
        return False

    def move(self, deal: Deal, kind: Kind, direction: str, asset: str, amount: Decimal) -> None:
        """Move collateral into the account or out of it."""
        symbol = self.symbol(deal.pair)
        asked: dict[str, object] = {"type": direction, "asset": asset, "amount": f"{amount:f}"}
        self.take(deal, kind, asked, lambda _: self._venue.transfer(direction, symbol, asset, amount))
        way = "out of" if direction == OUT else "into"
        logger.info("%s: moved %s %s %s its isolated margin account.", deal.pair, f"{amount:f}", asset, way)


def _words(asked: Mapping[str, object]) -> str:
    return " ".join(
        str(value) for name, value in asked.items() if name in {"side", "sent", "amount", "asset"}
    )
