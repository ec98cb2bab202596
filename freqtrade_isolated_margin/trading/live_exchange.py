"""`LiveMarginExchange`: the margin exchange of a bot that trades with money.

Every order goes through the treasury, every answer about an order comes through it. What freqtrade takes for
its wallet is the spot wallet, or what the accounts hold of the stake currency (``trading.collateral``).
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from freqtrade.constants import BuySell
from freqtrade.enums import ExitType
from freqtrade.exceptions import (
    FreqtradeException,
    InvalidOrderException,
    OperationalException,
    TemporaryError,
)
from freqtrade.exchange.exchange_types import CcxtBalances, CcxtOrder, CcxtPosition
from freqtrade.persistence import LocalTrade, Order, Trade

from freqtrade_isolated_margin.account.maths import ZERO
from freqtrade_isolated_margin.binance.venue import Venue
from freqtrade_isolated_margin.errors import IsolatedMarginError
from freqtrade_isolated_margin.history.asking import open_history
from freqtrade_isolated_margin.hosts.wiring import bot_name, own_key_id
from freqtrade_isolated_margin.trading import told
from freqtrade_isolated_margin.trading.desk import Purpose, Send, Ticket
from freqtrade_isolated_margin.trading.exchange import MarginExchange
from freqtrade_isolated_margin.trading.journal import Journal
from freqtrade_isolated_margin.trading.live import LiveAccounts
from freqtrade_isolated_margin.trading.refusal import OrderRefusedError
from freqtrade_isolated_margin.trading.sizes import Lots
from freqtrade_isolated_margin.trading.trades import number, open_trades
from freqtrade_isolated_margin.trading.treasury import Treasury

logger = logging.getLogger(__name__)

# After this much more than the window in which the exchange takes a request, it has not taken it.
_PATIENCE_SECONDS = 2.0
_HOURS = 24


class LiveMarginExchange(MarginExchange):
    """Trades in the isolated margin accounts with money."""

    def __init__(self, config: dict[str, Any], **options: Any) -> None:  # noqa: ANN401 - freqtrade's own
        self._treasury: Treasury | None = None
        self._live: LiveAccounts | None = None
        super().__init__(config, **options)

    def additional_exchange_init(self) -> None:
        """Build the treasury beside what a dry run needs.

        :raises OperationalException: where that is impossible.
        """
        super().additional_exchange_init()
        try:
            self._live = LiveAccounts(self._make_adapter)
            self._treasury = self._made_treasury()
            self._treasury.start()
        except IsolatedMarginError as error:
            raise OperationalException(str(error)) from None

    def _made_treasury(self) -> Treasury:
        settings = self.margin_settings
        venue = self._build(Venue)
        journal = Journal(
            open_history(settings.history, self._config),
            own_key_id(self._config) or "",
            bot_name(self._config),
        )
        return Treasury(
            venue,
            journal,
            self,
            moves=settings.trading.collateral == "transfer",
            patience_seconds=settings.recv_window / 1000 + _PATIENCE_SECONDS,
            look_seconds=float(settings.refresh_seconds),
        )

    def treasury(self) -> Treasury:
        """Return who stands around every live order.

        :raises OperationalException: after the end.
        """
        if self._treasury is None:
            raise OperationalException("isolated_margin.trading: nobody is there to send a live order")
        return self._treasury

    # ----- what the treasury asks

    def lots(self, pair: str) -> Lots:
        """Return what a pair's orders are made of; the higher of its fees, since an order may be either."""
        market = self.markets[pair]
        least = (market.get("limits", {}).get("cost") or {}).get("min") or 0.0
        fees = [market.get(kind) or 0.0 for kind in ("taker", "maker")]
        return Lots(number(market["precision"]["amount"]), number(least), number(max(fees)))

    def hourly_rate(self, pair: str) -> Decimal:
        """Return what an hour of a loan in base currency costs, as a fraction of it."""
        return self.terms(pair).rates.base / _HOURS

    def trade(self, pair: str) -> LocalTrade | None:
        """Return freqtrade's open trade in a pair."""
        return next(iter(open_trades(pair)), None) if hasattr(Trade, "session") else None

    def executions(self, pair: str, order_id: str, since: int) -> list[dict[str, Any]]:
        """Return the executions of an order, as ccxt has them."""
        first = datetime.fromtimestamp(since / 1000, UTC)
        found: list[dict[str, Any]] = self.get_trades_for_order(order_id, pair, first)
        return found

    def liquidated(self, trade: LocalTrade) -> None:
        """Let freqtrade close a trade whose account was liquidated.

        It closes a trade whose price is beyond its liquidation price, and knows no other way to be told; the
        price of now may have come back. The order by which it does so is answered with the liquidation.
        """
        trade.liquidation_price = trade.open_rate / 1000 if trade.is_short else trade.open_rate * 1000
        Trade.commit()

    # ----- orders

    def create_stoploss(
        self,
        pair: str,
        amount: float,
        stop_price: float,
        order_types: dict[str, Any],
        side: BuySell,
        leverage: float,
    ) -> CcxtOrder:
        """Place a stop loss on the exchange, which repays."""
        place = super().create_stoploss

        def send(cut: float) -> CcxtOrder:
            return place(pair, cut, stop_price, order_types, side, leverage)

        return self._place(Ticket(Purpose.STOP, pair, side, "stop", amount, stop_price, leverage), send)

    def _place(self, ticket: Ticket, send: Send) -> CcxtOrder:
        """Place an order through the treasury."""
        pair = ticket.pair
        ticket = ticket._replace(amount=float(self.amount_to_precision(pair, ticket.amount)))
        try:
            return self.treasury().place(ticket, send)
        except FreqtradeException:
            raise
        except Exception as error:
            # freqtrade's loop would end of it.
            logger.exception("%s: the treasury failed at an order.", pair)
            raise OrderRefusedError(f"{pair}: the treasury failed at an order, see the log") from error

    def fetch_order(self, order_id: str, pair: str, params: dict[str, Any] | None = None) -> CcxtOrder:
        """Return an order of the pair's margin account, in freqtrade's amounts."""
        if order_id.startswith(told.LIQUIDATION):
            return self._liquidation(order_id, pair)
        return self._told(pair, super().fetch_order(order_id, pair, _isolated(params)))

    def _liquidation(self, order_id: str, pair: str) -> CcxtOrder:
        step, order = self.treasury().liquidation(pair, order_id), Order.order_by_id(order_id, pair)
        if step is None or order is None:
            raise InvalidOrderException(f"{pair}: no liquidation is known under the id {order_id}")
        return told.liquidation(step, order.safe_amount, order.safe_price)

    def cancel_order(self, order_id: str, pair: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Cancel an order of the pair's margin account."""
        cancelled: dict[str, Any] = super().cancel_order(order_id, pair, _isolated(params))
        return self._told(pair, cancelled) if cancelled.get("id") else cancelled

    def fetch_orders(
        self, pair: str, since: datetime, params: dict[str, Any] | None = None
    ) -> list[CcxtOrder]:
        """Return the orders of the pair's margin account that may be its trade's, and its liquidation."""
        found: list[CcxtOrder] = super().fetch_orders(pair, since, _isolated(params))
        self._book_interest(pair)
        return self.treasury().orders(pair, found)

    def get_trades_for_order(
        self, order_id: str, pair: str, since: datetime, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Return the executions of an order of the pair's margin account."""
        if order_id.startswith(told.LIQUIDATION):
            return []
        trades: list[dict[str, Any]] = super().get_trades_for_order(order_id, pair, since, _isolated(params))
        return trades

    def _told(self, pair: str, order: CcxtOrder) -> CcxtOrder:
        treasury = self.treasury()
        try:
            if told.is_done(order):
                self._book_interest(pair, str(order["id"]))
            return treasury.told(pair, order)
        except FreqtradeException:
            raise
        except Exception as error:
            # What freqtrade was told would be wrong, so it asks again.
            logger.exception("%s: the treasury failed at an answer about an order.", pair)
            raise TemporaryError(f"{pair}: the treasury failed at an answer, see the log") from error

    # ----- interest

    def _book_interest(self, pair: str, order_id: str | None = None) -> None:
        """Bring a trade's funding fees up to date before an order of it ends.

        freqtrade books them with an order that ends, but for a stop loss on the exchange, with which they
        would be lost: there they are booked here.
        """
        trade = self.trade(pair)
        if trade is None:
            return
        fees = self.get_funding_fees(pair, trade.amount, trade.is_short, trade.date_last_filled_utc)
        trade.set_funding_fees(fees)
        stop = next(
            (o for o in trade.orders if o.order_id == order_id and o.ft_order_side == "stoploss"), None
        )
        if stop and stop.funding_fee is None:
            stop.funding_fee, trade.funding_fee_running = fees, 0.0

    def get_funding_fees(
        self,
        pair: str,
        amount: float,  # noqa: ARG002 - freqtrade's own
        is_short: bool,
        open_date: datetime,  # noqa: ARG002
    ) -> float:
        """Return what the exchange has charged the trade and no order of it has yet, negative.

        A loan may be older than the fill of its order, so all of the account's interest since it is in use
        is asked for, and what is booked is taken off.
        """
        trade = self.trade(pair)
        if trade is None or trade.is_short != is_short or self._live is None:
            return 0.0
        first = min((order.order_date_utc for order in trade.orders), default=trade.open_date_utc)
        since = self.treasury().opened_at(pair) or round(first.timestamp() * 1000)
        booked = sum(order.funding_fee or 0.0 for order in trade.orders)
        try:
            base, quote = self._live.interest(trade, since)
        except IsolatedMarginError as error:
            logger.warning("The interest of %s cannot be read: %s", pair, error)
            return float(trade.funding_fee_running or 0.0)
        return -float(quote + (base * self._price_of_base(trade) if base else ZERO)) - booked

    # ----- wallet and positions

    def get_balances(self, params: dict[str, Any] | None = None) -> CcxtBalances:
        """Return the wallet: the stake currency alone, in the spot wallet or in the accounts.

        What else the spot wallet holds is not the bot's: freqtrade would take it for what it has bought.
        """
        stake = str(self._config["stake_currency"])
        if self.margin_settings.trading.collateral == "transfer":
            found = super().get_balances(params)
            return {stake: found[stake]} if stake in found else {}
        if self._live is None:
            return {}
        try:
            free, used = self._live.free_quote([pair for pair in self.markets if pair.endswith(f"/{stake}")])
        except IsolatedMarginError as error:
            raise TemporaryError(f"The accounts' balances cannot be read: {error}") from None
        return {stake: {"free": float(free), "used": float(used), "total": float(free + used)}}

    def fetch_positions(
        self,
        pair: str | None = None,
        params: dict[str, Any] | None = None,  # noqa: ARG002 - freqtrade's own
    ) -> list[CcxtPosition]:
        """Return the open trades' positions as their accounts have them."""
        if self._live is None or not hasattr(Trade, "session"):
            return []
        self._name_liquidations()
        try:
            return self._live.positions([trade for trade in open_trades(pair) if trade.has_open_position])
        except IsolatedMarginError as error:
            raise TemporaryError(f"The positions cannot be read: {error}") from None

    def _name_liquidations(self) -> bool:
        """Say why trades were closed that the exchange has liquidated; whether any has had another reason.

        freqtrade takes it for a sale.
        """
        named = False
        for pair in self.treasury().liquidated:
            for trade in Trade.session.query(Trade).filter(Trade.pair == pair):
                closing = trade.orders[-1].order_id if trade.orders else ""
                other = trade.exit_reason not in {None, ExitType.LIQUIDATION.value}
                if closing.startswith(told.LIQUIDATION) and other:
                    trade.exit_reason = ExitType.LIQUIDATION.value
                    named = True
        return named

    # ----- once a loop, and at the end

    def _tend(self) -> None:
        self.treasury().loop()
        if self._name_liquidations():
            Trade.commit()
        super()._tend()

    def close(self) -> None:
        """End the treasury as well."""
        for part in (self._treasury, self._live):
            if part:
                part.close()
        self._treasury = self._live = None
        super().close()


def _isolated(params: dict[str, Any] | None) -> dict[str, Any]:
    """Return parameters with which ccxt asks the margin account; it takes options alone for spot."""
    return {**(params or {}), "marginMode": "isolated"}
