"""The treasury of a live bot: collateral, orders and debts of its accounts, and what is left after a fault.

freqtrade places and asks for orders; the treasury stands around each of them. Before an entry it moves the
collateral, after the last exit it repays what is left and moves everything back, and once a loop it looks
after deals whose trade freqtrade does not know, after a kill or a lost answer.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import Any, Protocol

import ccxt
from freqtrade.exceptions import FreqtradeException
from freqtrade.exchange.exchange_types import CcxtOrder
from freqtrade.persistence import LocalTrade

from freqtrade_isolated_margin.account.maths import ONE, PLACE, ZERO, Side, exact
from freqtrade_isolated_margin.account.records import Absent, PairAccount
from freqtrade_isolated_margin.binance.venue import IN, Liquidation, PlacedOrder, Venue
from freqtrade_isolated_margin.errors import IsolatedMarginError, SettingsError
from freqtrade_isolated_margin.history.tables import HistoryError
from freqtrade_isolated_margin.trading import told
from freqtrade_isolated_margin.trading.desk import Purpose, Send, Ticket, sending
from freqtrade_isolated_margin.trading.journal import ORDERS, Deal, Journal, Kind, Outcome, Step, new_step
from freqtrade_isolated_margin.trading.refusal import OrderRefusedError
from freqtrade_isolated_margin.trading.requirements import missing_permissions
from freqtrade_isolated_margin.trading.settling import DoubtError, Markets, Settler, TroubleError
from freqtrade_isolated_margin.trading.sizes import exit_amount, stake
from freqtrade_isolated_margin.trading.trades import number

logger = logging.getLogger(__name__)

# A transfer's record names no account: by a few units of the eighth place more it is found again.
_MARKS = 9999
# How long freqtrade may take from the answer to an order until the trade is in its database.
_HANDOVER_SECONDS = 60.0
# What could not be settled is tried again in each loop for so long, and then once in a while.
_EAGER_ATTEMPTS, _PAUSE_SECONDS = 5, 60.0
_LIQUIDATED = "its account was liquidated, and freqtrade has not closed the trade yet"
# A stop that closes a short buys the interest of so many hours as well: it may rest for long, and to repay
# what is left afterwards costs more than to have bought a little too much.
_STOP_HOURS = 24


class House(Markets, Protocol):
    """What the treasury asks of the bot that it belongs to."""

    def hourly_rate(self, pair: str) -> Decimal:
        """Return what an hour of a loan in base currency costs, as a fraction of it."""

    def trade(self, pair: str) -> LocalTrade | None:
        """Return freqtrade's open trade in a pair."""

    def executions(self, pair: str, order_id: str, since: int) -> list[dict[str, Any]]:
        """Return the executions of an order, as ccxt has them."""

    def liquidated(self, trade: LocalTrade) -> None:
        """Let freqtrade close a trade whose account was liquidated."""


class _State:
    """What is known of a deal in this run only."""

    def __init__(self, *, abandoned: bool) -> None:
        self.abandoned = abandoned
        """Whether freqtrade may not know of its orders: another run's, or one whose sending has failed."""
        self.placed_at = time.monotonic()
        self.was_owned = False
        """Whether freqtrade's trade was seen; once it is gone it has ended."""
        self.asked_for: set[str] = set()
        """The orders that freqtrade has asked for, which are therefore in its database, or were."""
        self.attempts = 0
        self.next_attempt = 0.0


class Treasury:
    """All deals of one bot. Its methods may be called from several threads."""

    def __init__(
        self,
        venue: Venue,
        journal: Journal,
        house: House,
        *,
        moves: bool,
        patience_seconds: float,
        look_seconds: float,
    ) -> None:
        self._venue = venue
        self._journal = journal
        self._house = house
        self._moves = moves
        self._settler = Settler(
            venue, journal, house, moves=moves, patience_ms=round(patience_seconds * 1000)
        )
        self._patience_ms = round(patience_seconds * 1000)
        self._deals: dict[str, Deal] = {}
        self._states: dict[str, _State] = {}
        self._told_liquidated: set[str] = set()
        self._look_seconds = look_seconds
        self._next_look = 0.0
        self._lock = threading.RLock()

    # ----- start and end

    def start(self) -> None:
        """Take up what an earlier run has left, before anything is sent.

        :raises IsolatedMarginError: where the exchange or the journal cannot be asked, or the key or the
            account's settings do not fit.
        """
        with self._lock:
            self._journal.prepare()
            self._venue.load_markets()
            self._check_account()
            for deal in self._journal.open_deals():
                self._deals[deal.pair] = deal
                self._states[deal.pair] = _State(abandoned=True)
                logger.info("%s: an isolated margin account is in use from an earlier run.", deal.pair)

    def _check_account(self) -> None:
        burning = [name for name, burns in self._venue.fetch_burns().items() if burns]
        if burning:
            raise SettingsError(
                f"isolated_margin.trading: fees or interest are paid in BNB ({', '.join(burning)}), which "
                "this bot's books do not know; switch it off at Binance"
            )
        missing = missing_permissions(self._venue.fetch_restrictions(), moves=self._moves)
        if missing:
            hint = '; or set "collateral": "account"' if missing == ["permitsUniversalTransfer"] else ""
            raise SettingsError(
                f"isolated_margin.trading: the API key lacks {', '.join(missing)}; allow it at Binance{hint}"
            )

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            self._venue.close()
            self._journal.close()

    # ----- orders

    def place(self, ticket: Ticket, send: Send) -> CcxtOrder:
        """Send an order with all that belongs before it.

        :raises OrderRefusedError: where it is not sent; freqtrade goes on.
        :raises FreqtradeException: where the exchange refuses it.
        """
        with self._lock:
            return self._enter(ticket, send) if ticket.purpose is Purpose.ENTRY else self._leave(ticket, send)

    def _enter(self, ticket: Ticket, send: Send) -> CcxtOrder:
        pair = ticket.pair
        try:
            deal = self._deal_for(ticket)
        except IsolatedMarginError as error:
            raise OrderRefusedError(f"{pair}: the entry is not sent: {error}") from None
        state = self._states[pair]
        state.placed_at = time.monotonic()
        try:
            needed = self._needed(ticket)
            if self._moves:
                mark = PLACE * (1 + secrets.randbelow(_MARKS))
                quote = pair.partition("/")[2]
                self._settler.move(deal, Kind.MOVE_IN, IN, quote, needed + mark)
            step = self._journal.begin(deal, Kind.ENTRY, _asked(ticket, ticket.amount), self._venue.now_ms())
        except IsolatedMarginError as error:
            state.abandoned = True
            self._tend_quietly(deal)
            raise OrderRefusedError(f"{pair}: the entry is not sent: {error}") from None
        return self._sent(deal, step, ticket, send)

    @exact
    def _needed(self, ticket: Ticket) -> Decimal:
        value = number(ticket.amount) * number(ticket.rate)
        at_market = ticket.ordertype == "market"
        return stake(value, number(ticket.leverage), ticket.position, at_market=at_market)

    def _deal_for(self, ticket: Ticket) -> Deal:
        """Return the deal that an entry belongs to, or begin one in an account that is fit for it."""
        pair = ticket.pair
        deal = self._deals.get(pair)
        if deal and (deal.doubtful or deal.trouble or self._states[pair].abandoned):
            self._tend_quietly(deal)
            deal = self._deals.get(pair)
            if deal and (deal.doubtful or deal.trouble):
                raise DoubtError(deal.trouble or "what became of an earlier step is not known yet")
        trade = self._house.trade(pair)
        if deal and trade:
            if self._find_liquidation(deal):
                raise TroubleError(_LIQUIDATED)
            self._check_exits_known(deal, trade)
            return deal
        if deal:
            # Nobody owns it any more, and its end could not be reached until now.
            self._settler.wind_up(deal)
            self._forget(deal)
        if trade and trade.amount and self._liquidations(trade):
            raise TroubleError(_LIQUIDATED)
        account = self._settler.account(pair)
        self._check_fit(ticket, account)
        before = account.base_asset.total_asset if isinstance(account, PairAccount) else ZERO
        begun = Deal(pair, ticket.position, self._venue.now_ms(), ZERO if self._moves else before)
        self._journal.open(begun)
        self._deals[pair], self._states[pair] = begun, _State(abandoned=False)
        return begun

    def _check_exits_known(self, deal: Deal, trade: LocalTrade) -> None:
        """Refuse to increase what has been exited without freqtrade's knowledge, as after a kill.

        It learns of that at the next exit; an increase before would be sold with it as if all were one.
        """
        for step, _ in self._unknown_exits(deal, trade):
            raise TroubleError(
                f"freqtrade does not know of an exit that was filled (order {step.order_id}); exit the "
                "trade, so that it finds it"
            )

    def _unknown_exits(self, deal: Deal, trade: LocalTrade) -> Iterator[tuple[Step, Decimal]]:
        """Return the exits that freqtrade does not know, and how much it will be told that they closed."""
        known = {order.order_id for order in trade.orders}
        for step in deal.steps:
            exits = step.kind in {Kind.EXIT, Kind.STOP} and step.outcome is Outcome.DONE
            if not exits or step.order_id in known:
                continue
            placed = self._venue.order_named(self._settler.symbol(deal.pair), step.name)
            if placed and placed.executed:
                yield step, told.closed(step, placed.executed, self._house.lots(deal.pair))

    @exact
    def _check_fit(self, ticket: Ticket, account: PairAccount | Absent) -> None:
        """Refuse an account that is not this bot's alone, or cannot be traded in."""
        if isinstance(account, Absent):
            if not self._moves:
                raise SettingsError(f'{account.why}, and with "collateral": "account" nothing is moved there')
            enabled, most = self._venue.fetch_account_limit()
            if enabled >= most:
                raise SettingsError(
                    f"all {most} isolated margin accounts are in use; disable one that is empty at Binance"
                )
            return
        base, quote = account.base_asset, account.quote_asset
        if account.has_debt:
            owed = [f"{asset.debt:f} {asset.asset}" for asset in (base, quote) if asset.debt]
            raise SettingsError(f"its account owes {' and '.join(owed)}, which this bot did not borrow")
        if not account.trade_enabled or account.enabled is False:
            raise SettingsError("its account is not enabled for trading")
        if not self._moves:
            needed = self._needed(ticket)
            if quote.free < needed:
                raise SettingsError(
                    f"its account has {quote.free:f} {quote.asset} free and the entry needs {needed:f}"
                )
            return
        worth = base.total_asset * account.index_price + quote.total_asset
        if worth >= self._house.lots(ticket.pair).least:
            held = [f"{asset.total_asset:f} {asset.asset}" for asset in (base, quote) if asset.total_asset]
            raise SettingsError(
                f"its account holds {' and '.join(held)}, which this bot did not move there; move it out, or "
                'set "collateral": "account"'
            )

    def _leave(self, ticket: Ticket, send: Send) -> CcxtOrder:
        deal = self._deals.get(ticket.pair) or Deal(ticket.pair, ticket.position, 0)
        amount = ticket.amount
        try:
            found = self._earlier_exit(deal, ticket) or self._liquidated(ticket)
            if found:
                return found
            ticket = self._without_unknown(deal, ticket)
            amount = self._exit_amount(deal, ticket) if ticket.amount else 0.0
        except OrderRefusedError:
            raise
        except IsolatedMarginError as error:
            # An exit is never hindered: it goes out as freqtrade asks for it.
            logger.warning("%s: the account cannot be asked before an exit: %s", ticket.pair, error)
        except Exception:
            logger.exception("%s: preparing an exit failed; it goes out as it is asked for.", ticket.pair)
        if not amount:
            # As of an order that may only reduce: it would open a position where there is none to close.
            raise OrderRefusedError(f"{ticket.pair}: there is nothing to exit in its isolated margin account")
        step = self._noted(deal, Kind(ticket.purpose), _asked(ticket, amount))
        return self._sent(deal, step, ticket, send)

    def _without_unknown(self, deal: Deal, ticket: Ticket) -> Ticket:
        """Return an exit without what freqtrade does not know to be closed already.

        freqtrade closes a trade only where all exits, with those that it finds later, come out to nothing.
        """
        trade = self._house.trade(ticket.pair)
        gone = sum((amount for _, amount in self._unknown_exits(deal, trade)), ZERO) if trade else ZERO
        if not trade or not gone:
            return ticket
        left = max(number(trade.amount) - gone, ZERO)
        return ticket._replace(amount=min(ticket.amount, float(left)))

    def _noted(self, deal: Deal, kind: Kind, asked: dict[str, object]) -> Step:
        """Write down an exit; where that fails it is kept in mind alone, since an exit is never hindered."""
        try:
            if deal.id is not None:
                return self._journal.begin(deal, kind, asked, self._venue.now_ms())
        except HistoryError as error:
            logger.warning("%s: an exit cannot be written down: %s", deal.pair, error)
        step = new_step(deal, kind, asked, self._venue.now_ms())
        deal.steps.append(step)
        return step

    def _exit_amount(self, deal: Deal, ticket: Ticket) -> float:
        account = self._settler.account(ticket.pair)
        if not isinstance(account, PairAccount):
            return 0.0
        position = self._settler.position(deal, account)
        hours = _STOP_HOURS if ticket.purpose is Purpose.STOP else 1
        coming = account.base_asset.borrowed * self._house.hourly_rate(ticket.pair) * hours
        lots = self._house.lots(ticket.pair)
        found = exit_amount(deal.side, number(ticket.amount), position, coming, lots)
        return float(found)

    def _earlier_exit(self, deal: Deal, ticket: Ticket) -> CcxtOrder | None:
        """Return an exit whose answer was lost, if it was placed: another one is not sent then.

        :raises OrderRefusedError: while it is not known.
        """
        for step in [step for step in deal.doubtful if step.kind is Kind(ticket.purpose)]:
            if not self._settler.resolve(deal, step):
                raise OrderRefusedError(
                    f"{ticket.pair}: waiting to know what became of an exit that was sent before"
                )
            if step.outcome is Outcome.DONE:
                placed = self._venue.order_named(self._settler.symbol(ticket.pair), step.name)
                if placed:
                    return _open_order(ticket, placed)
        return None

    def _sent(self, deal: Deal, step: Step, ticket: Ticket, send: Send) -> CcxtOrder:
        """Send an order under its name, and find out what became of it where the answer is lost."""
        problem: FreqtradeException | None = None
        try:
            with sending(newClientOrderId=step.name, recvWindow=self._recv_window):
                order = send(float(step.asked["sent"]))
        except FreqtradeException as error:
            problem = error
        if problem is None:
            self._finish(step, Outcome.DONE, str(order["id"]))
            return told.just_placed(order, ticket.amount)
        placed = self._look(deal, step)
        if placed:
            logger.warning("%s: the answer to an order was lost; it was placed.", ticket.pair)
            self._finish(step, Outcome.DONE, placed.order_id)
            return _open_order(ticket, placed)
        if not _may_have_been_taken(problem):
            self._finish(step, Outcome.REFUSED, None)
        if step.kind is Kind.ENTRY:
            self._states[deal.pair].abandoned = True
            self._tend_quietly(deal)
        raise problem

    @property
    def _recv_window(self) -> int:
        return min(self._patience_ms, 5000)

    def _look(self, deal: Deal, step: Step) -> PlacedOrder | None:
        with suppress(IsolatedMarginError):
            return self._venue.order_named(self._settler.symbol(deal.pair), step.name)
        return None

    def _finish(self, step: Step, outcome: Outcome, order_id: str | None) -> None:
        try:
            self._journal.finish(step, outcome, order_id)
        except HistoryError as error:
            step.outcome, step.order_id = outcome, order_id
            logger.warning("What became of an order cannot be written down: %s", error)

    # ----- what freqtrade sees

    def told(self, pair: str, order: CcxtOrder) -> CcxtOrder:
        """Return an order of the exchange's as freqtrade is told of it; settle what ends with it."""
        with self._lock:
            deal = self._deals.get(pair)
            step = (deal and deal.order(str(order["id"]))) or self._known(pair, str(order["id"]))
            if step is None or "amount" not in step.asked:
                return order
            executions = (
                self._house.executions(pair, str(order["id"]), step.asked_at) if _has_filled(order) else []
            )
            seen = told.as_freqtrade(order, step, self._house.lots(pair), executions)
            if deal:
                self._states[pair].asked_for.add(str(order["id"]))
            if deal and told.is_done(order):
                self._settle_if_over(deal)
            return seen

    def _known(self, pair: str, order_id: str) -> Step | None:
        try:
            return self._journal.order(pair, order_id)
        except HistoryError as error:
            logger.warning("%s: the journal cannot be read: %s", pair, error)
            return None

    def _settle_if_over(self, deal: Deal) -> None:
        with self._troubles(deal):
            if not self._settler.resolve_all(deal):
                return
            account = self._settler.account(deal.pair)
            # An order may also have ended, and the position be gone, because the account was liquidated.
            if self._settler.is_over(deal, account) and not self._find_liquidation(deal):
                self._settler.wind_up(deal)
                self._forget(deal)

    def orders(self, pair: str, orders: Iterable[CcxtOrder]) -> list[CcxtOrder]:
        """Return those of a pair's orders that freqtrade may take for its trade's, and its liquidation.

        Not those by which an account was settled, nor those of a trade that freqtrade has never had. What is
        in no journal was placed by hand, and freqtrade takes it for its own, as it does on any exchange.
        """
        with self._lock:
            found, trade = list(orders), self._house.trade(pair)
            try:
                known = {
                    step.order_id: step
                    for step in self._journal.orders(pair, [str(order["id"]) for order in found])
                }
                deals = self._deals_of(trade) if trade else set()
                liquidations = self._liquidations(trade) if trade else []
            except IsolatedMarginError as error:
                logger.warning("%s: its orders cannot be compared with the journal: %s", pair, error)
                return []
            owned = {order.order_id for order in trade.orders} if trade else set()
            # The profit of a trade is wrong where freqtrade goes through an order after that which closes it.
            found.sort(key=lambda order: str(order["id"]) not in owned)
            if trade and trade.amount and liquidations:
                # What freqtrade has not heard of until now is within what has come back.
                seen = [self.told(pair, order) for order in found if str(order["id"]) in owned]
                return [*seen, self._told_of(trade, liquidations[-1])]
            return [
                self.told(pair, order)
                for order in found
                if (step := known.get(str(order["id"]))) is None
                or (step.kind is not Kind.REPAIR and step.deal_id in deals)
            ]

    def _deals_of(self, trade: LocalTrade) -> set[int | None]:
        """Return the deals of an open trade: that which is open now, and those of its orders."""
        steps = self._journal.orders(trade.pair, [order.order_id for order in trade.orders])
        deal = self._deals.get(trade.pair)
        return {step.deal_id for step in steps} | ({deal.id} if deal else set())

    def _liquidations(self, trade: LocalTrade) -> list[Step]:
        """Return the liquidation of what an open trade holds now: of its newest deal, and no earlier one."""
        deal = self._deals.get(trade.pair)
        if deal:
            return self._find_liquidation(deal)
        newest = max((number for number in self._deals_of(trade) if number), default=None)
        return self._journal.liquidations([newest])

    # ----- forced liquidations

    def _liquidated(self, ticket: Ticket) -> CcxtOrder | None:
        """Return the liquidation that has closed the position which is to be exited, if one has."""
        trade = self._house.trade(ticket.pair)
        if trade is None or not trade.amount:
            return None
        found = self._liquidations(trade)
        # All of it is gone, also where only a part was to be exited.
        return self._told_of(trade, found[-1]) if found else None

    @property
    def liquidated(self) -> set[str]:
        """The pairs of which freqtrade was told in this run that they were liquidated."""
        return self._told_liquidated

    def liquidation(self, pair: str, order_id: str) -> Step | None:
        """Return the liquidation that freqtrade knows under this id."""
        return self._known(pair, order_id)

    def _find_liquidation(self, deal: Deal) -> list[Step]:
        """Find out whether a deal's account was liquidated; settle what that has left of it."""
        records = self._venue.liquidations(self._settler.symbol(deal.pair), deal.opened_at)
        if not records:
            return []
        record = records[-1]
        step = next((step for step in deal.steps if step.kind is Kind.LIQUIDATED), None)
        if step is None:
            logger.error(
                "%s: Binance has liquidated the isolated margin account at %s.",
                deal.pair,
                f"{record.price:f}",
            )
            asked = _liquidation(deal, record)
            step = self._journal.begin(deal, Kind.LIQUIDATED, asked, self._venue.now_ms())
        self._settler.clear(deal)
        base, _, quote = deal.pair.partition("/")
        came_back = deal.moved(quote) + deal.moved(base) * record.price
        order_id = f"{told.LIQUIDATION}{record.order_id}"
        self._journal.finish(step, Outcome.DONE, order_id, {"came back": f"{came_back:f}"})
        self._journal.end(deal, self._venue.now_ms())
        self._forget(deal)
        return [step]

    @exact
    def _price_of(self, trade: LocalTrade, step: Step) -> Decimal:
        """Return the price at which a liquidated position was closed, all that it has cost included.

        That with which freqtrade's profit becomes what has come back of the collateral; where nothing was
        moved, the exchange's own.
        """
        price = Decimal(step.asked["price"])
        if not self._moves or not trade.amount:
            return price
        sign, amount = (-1 if trade.is_short else 1), number(trade.amount)
        # The fee of closing is told to be none, but what an earlier part has paid counts for all of it.
        paid = number(trade.fee_close)
        fee = paid if trade.fee_updated(trade.exit_side) else ZERO
        reckoned = number(trade.calc_profit(float(price))) + number(trade.realized_profit)
        reckoned += (paid - fee) * price * amount
        lacking = Decimal(step.answer["came back"]) - reckoned
        return max(price + sign * lacking / (amount * (ONE - sign * fee)), PLACE)

    def _told_of(self, trade: LocalTrade, step: Step) -> CcxtOrder:
        """Return the liquidation as the order that has closed all of a trade, as freqtrade knows it now."""
        self._told_liquidated.add(trade.pair)
        return told.liquidation(step, trade.amount, float(self._price_of(trade, step)))

    # ----- once a loop

    def opened_at(self, pair: str) -> int | None:
        """Return when the pair's deal began, in milliseconds by the exchange's clock; None without one."""
        with self._lock:
            deal = self._deals.get(pair)
            return deal.opened_at if deal else None

    def loop(self) -> None:
        """Look after the deals that freqtrade does not, and after steps that are in doubt."""
        with self._lock:
            now = time.monotonic()
            look = now >= self._next_look
            if look:
                self._next_look = now + self._look_seconds
            for deal in list(self._deals.values()):
                if now >= self._states[deal.pair].next_attempt:
                    self._tend_quietly(deal)
                if look and deal.pair in self._deals:
                    self._look_for_liquidation(deal)

    def _look_for_liquidation(self, deal: Deal) -> None:
        """Find out whether the account of an open trade was liquidated: freqtrade alone would not see it."""
        trade = self._house.trade(deal.pair)
        if trade is None or not trade.amount:
            return
        with self._troubles(deal):
            if self._find_liquidation(deal):
                self._told_liquidated.add(deal.pair)
                self._house.liquidated(trade)

    def _tend_quietly(self, deal: Deal) -> None:
        with self._troubles(deal):
            self._tend(deal)

    @contextmanager
    def _troubles(self, deal: Deal) -> Iterator[None]:
        """Keep in mind, and say, what keeps a deal from being settled."""
        state = self._states[deal.pair]
        try:
            yield
        except IsolatedMarginError as error:
            # What is only waited for is asked again in each loop.
            state.attempts += not isinstance(error, DoubtError)
            if state.attempts >= _EAGER_ATTEMPTS:
                state.next_attempt = time.monotonic() + _PAUSE_SECONDS
            said = str(error)
            if said != deal.trouble:
                logger.error(  # noqa: TRY400 - what is wrong is in its words
                    "%s: its isolated margin account cannot be settled yet: %s", deal.pair, said
                )
                deal.trouble = said
                with suppress(HistoryError):
                    self._journal.trouble(deal, said)
        else:
            state.attempts, state.next_attempt = 0, 0.0
            if deal.trouble and self._deals.get(deal.pair) is deal:
                with suppress(HistoryError):
                    self._journal.trouble(deal, None)
                deal.trouble = None

    def _tend(self, deal: Deal) -> None:
        state, trade = self._states[deal.pair], self._house.trade(deal.pair)
        state.was_owned = state.was_owned or trade is not None
        if deal.doubtful and not self._settler.resolve_all(deal):
            raise DoubtError("what became of a step is not known yet")
        if trade is None:
            if state.abandoned or self._handed_over(deal, state):
                logger.warning(
                    "%s: no trade owns what is in its isolated margin account; it is settled.", deal.pair
                )
                self._settler.wind_up(deal)
                self._forget(deal)
        elif state.abandoned:
            self._undo_unknown(deal, trade)
            state.abandoned = False

    def _handed_over(self, deal: Deal, state: _State) -> bool:
        """Whether freqtrade has had the time to put the newest entry into its database, or has done so."""
        if state.was_owned or time.monotonic() - state.placed_at > _HANDOVER_SECONDS:
            return True
        entries = [step.order_id for step in deal.steps if step.kind is Kind.ENTRY]
        return bool(entries and entries[-1] in state.asked_for)

    def _undo_unknown(self, deal: Deal, trade: LocalTrade) -> None:
        """Undo the orders of a trade that freqtrade does not know: those whose answer it never got."""
        known = {order.order_id for order in trade.orders}
        symbol = self._settler.symbol(deal.pair)
        for step in list(deal.steps):
            if (
                step.kind not in ORDERS - {Kind.REPAIR}
                or step.outcome is not Outcome.DONE
                or step.order_id in known
            ):
                continue
            placed = self._venue.order_named(symbol, step.name)
            if placed and placed.is_open:
                self._venue.cancel(symbol, placed.order_id)
                placed = self._venue.order_named(symbol, step.name)
            if placed and placed.executed and step.kind is Kind.ENTRY:
                self._undo_entry(deal, placed)

    def _undo_entry(self, deal: Deal, placed: PlacedOrder) -> None:
        """Trade an increase back that freqtrade does not know. Once: a repair step names it."""
        repairs = [step for step in deal.steps if step.asked.get("undoes") == placed.order_id]
        # One that was refused, or killed before it was sent, has undone nothing.
        if any(step.outcome in {None, Outcome.DONE} for step in repairs):
            return
        lots = self._house.lots(deal.pair)
        received = placed.executed * (ONE - lots.fee) if deal.side is Side.LONG else placed.executed
        side = "SELL" if deal.side is Side.LONG else "BUY"
        self._settler.trade(deal, side, lots.down(received), "AUTO_REPAY", undoes=placed.order_id)

    def _forget(self, deal: Deal) -> None:
        self._deals.pop(deal.pair, None)
        self._states.pop(deal.pair, None)


def _asked(ticket: Ticket, sent: float) -> dict[str, object]:
    return {
        "pair": ticket.pair,
        "side": ticket.side,
        "type": ticket.ordertype,
        "amount": f"{number(ticket.amount):f}",
        "sent": f"{number(sent):f}",
        "rate": f"{number(ticket.rate):f}",
        "leverage": f"{number(ticket.leverage):f}",
    }


def _liquidation(deal: Deal, record: Liquidation) -> dict[str, object]:
    return {
        "pair": deal.pair,
        "side": record.side.lower(),
        "price": f"{record.price:f}",
        "quantity": f"{record.quantity:f}",
        "at": record.at,
    }


def _open_order(ticket: Ticket, placed: PlacedOrder) -> CcxtOrder:
    """Return an order that was found afterwards as one that has just been placed."""
    found: CcxtOrder = {
        "id": placed.order_id,
        "clientOrderId": placed.name,
        "symbol": ticket.pair,
        "type": ticket.ordertype,
        "side": ticket.side,
        "price": ticket.rate,
        "info": {},
    }
    return told.just_placed(found, ticket.amount)


def _has_filled(order: Mapping[str, Any]) -> bool:
    return told.is_done(order) and bool(order.get("filled"))


def _may_have_been_taken(problem: FreqtradeException) -> bool:
    """Whether an order that ended so may be at the exchange all the same (ccxt's `OperationFailed`).

    What a limit holds back is refused before it is looked at.
    """
    cause = problem.__cause__
    if isinstance(cause, ccxt.RateLimitExceeded | ccxt.DDoSProtection):
        return False
    return cause is None or isinstance(cause, ccxt.OperationFailed)
