"""A real freqtrade bot in this process that trades with money on the local exchange, loop by loop.

Everything is freqtrade's own but the order in which its loop does things: a test says when it enters, exits,
cancels and goes round, and when it is killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import freqtrade.exchange as exchanges
from freqtrade.enums import RunMode, SignalDirection, State
from freqtrade.exceptions import FreqtradeException
from freqtrade.freqtradebot import FreqtradeBot
from freqtrade.persistence import Order, Trade
from freqtrade.persistence.pairlock import PairLock
from freqtrade.resolvers import ExchangeResolver
from freqtrade.rpc.rpc import RPC, RPCException
from sqlalchemy import text

from freqtrade_isolated_margin.localexchange import LocalExchange
from freqtrade_isolated_margin.trading.launcher import register
from support.bot import STRATEGY_HEAD
from support.live_bot import PAIR, Books, live_config, live_strategy

D = Decimal
# How long a request may be on its way; on loopback that is soon known.
PATIENCE_MS = 400


class Killed(BaseException):
    """What stands for `kill -9` in one process: nobody catches it, and nothing is done after it."""


class Floor:
    """One bot, its exchange, and the books of both."""

    def __init__(self, folder: Path, exchange: LocalExchange, leverage: float = 2.0, **changes: Any) -> None:
        strategies = folder / "user_data" / "strategies"
        strategies.mkdir(parents=True, exist_ok=True)
        (strategies / "tested.py").write_text(STRATEGY_HEAD + live_strategy(leverage))
        self.exchange = exchange
        # Many tests come in one minute.
        section = {"weight_budget": 12_000, **changes.pop("section", {})}
        self.config = live_config(exchange, section=section, **changes) | {
            "strategy": "Tested",
            "strategy_path": str(strategies),
            "user_data_dir": folder / "user_data",
            "datadir": folder / "user_data" / "data",
            "runmode": RunMode.LIVE,
            "db_url": "sqlite://",
            "exportfilename": None,
        }
        self.config["original_config"] = {"exchange": dict(self.config["exchange"])}
        self._keys = dict(self.config["exchange"])
        self.bot = FreqtradeBot(self.config)
        self.bot.state = State.RUNNING
        self.rpc = RPC(self.bot)
        self._patient()
        self.books = Books(exchange)

    def _patient(self) -> None:
        treasury: Any = self.bot.exchange.treasury()
        treasury._patience_ms = treasury._settler._patience_ms = PATIENCE_MS
        self.treasury = treasury
        # ccxt waits between requests, for a limit that is nobody's on loopback.
        exchange: Any = self.bot.exchange
        make = exchange._make_adapter

        def impatient() -> Any:
            adapter = make()
            adapter._client.enableRateLimit = False
            return adapter

        exchange._make_adapter = exchange._live._make_adapter = impatient
        treasury._venue._client.enableRateLimit = exchange._api.enableRateLimit = False

    def begin_anew(self, price: str = "100", wallet: str = "10000") -> None:
        """Let nothing be left of the test before: no trade, no account, no fault, and the first price."""
        Trade.session.rollback()
        for table in (Order, Trade, PairLock):
            Trade.session.query(table).delete()
        Trade.commit()
        for deal in list(self.treasury._deals.values()):
            self.treasury._journal.end(deal, 0)
            self.treasury._forget(deal)
        exchange = self.exchange
        exchange.faults.clear()
        exchange.weights._windows.clear()
        for adapter in (self.treasury._venue, self.bot.exchange._live._adapter):
            if adapter:
                adapter._budget._spent.clear()
        with exchange.state.changed:
            exchange.state._fill_scenario()
        exchange.state.accounts.clear()
        exchange.set_liquidity(PAIR, None)
        exchange.set_price(PAIR, price)
        exchange.set_balance(PAIR.split("/")[0], 0)
        exchange.set_balance("USDT", D(wallet))
        self.bot.wallets.update()
        self.books = Books(exchange)

    # ----- what a bot does

    def enter(
        self, side: str, stake: float = 300.0, ordertype: str = "market", at: float | None = None
    ) -> bool:
        """Enter, or increase what is there, by /forceenter; whether it was done."""
        wanted = SignalDirection.SHORT if side == "short" else SignalDirection.LONG
        return self._asked(
            lambda: self.rpc._rpc_force_entry(
                PAIR, at, order_type=ordertype, order_side=wanted, stake_amount=stake
            )
        )

    def exit(self, part: float | None = None, ordertype: str = "market", at: float | None = None) -> bool:
        """Exit all, or a part of it, by /forceexit; whether it was done."""
        trade = self.trade
        if trade is None:
            return False
        amount = trade.amount * part if part else None
        return self._asked(
            lambda: self.rpc._rpc_force_exit(str(trade.id), ordertype=ordertype, amount=amount, price=at)
        )

    def cancel(self) -> bool:
        """Cancel the trade's open orders by /cancel_open_order; whether it was done."""
        trade = self.trade
        return trade is not None and self._asked(lambda: self.rpc._rpc_cancel_open_order(trade.id))

    def _asked(self, act: Callable[[], object]) -> bool:
        try:
            act()
        except (FreqtradeException, RPCException):
            return False
        return True

    def loop(self) -> None:
        """Go round as `FreqtradeBot.process` does, without looking for signals."""
        with suppress(FreqtradeException):
            self.bot.exchange.reload_markets()
            self.bot.manage_open_orders()
            self.bot.update_trades_without_assigned_fees()
            with self.bot._exit_lock:
                self.bot.exit_positions(Trade.get_open_trades())
            Trade.commit()

    @property
    def trade(self) -> Trade | None:
        """The open trade."""
        return next(iter(Trade.get_open_trades()), None)

    # ----- faults

    def restart(self) -> None:
        """Begin anew with what is in both databases, as after a kill."""
        Trade.session.rollback()
        Trade.session.expire_all()
        with suppress(FreqtradeException):
            self.bot.exchange.close()
        self.exchange.faults.clear()
        fresh = ExchangeResolver.load_exchange(self.config, exchange_config=dict(self._keys))
        bot: Any = self.bot
        bot.exchange = bot.wallets._exchange = bot.dataprovider._exchange = bot.pairlists._exchange = fresh
        self._patient()
        bot.wallets.update()
        bot.startup_update_open_orders()

    @contextmanager
    def killed_at(self, call: int) -> Iterator[Callable[[], bool]]:
        """Kill the bot at the `call`-th call of the journal's: before or after it is written, by turns."""
        journal: Any = self.treasury._journal
        calls, done = iter(range(1_000_000)), [False]

        def killing(method: Callable[..., Any]) -> Callable[..., Any]:
            def run(*args: Any, **options: Any) -> Any:
                before, after = next(calls), next(calls)
                if before == call:
                    done[0] = True
                    raise Killed
                result = method(*args, **options)
                if after == call:
                    done[0] = True
                    raise Killed
                return result

            return run

        kept = journal.begin, journal.finish
        journal.begin, journal.finish = killing(kept[0]), killing(kept[1])
        try:
            yield lambda: done[0]
        finally:
            journal.begin, journal.finish = kept

    # ----- the books

    def settle(self, loops: int = 60) -> None:
        """Go round, and exit what is open, until nothing is left."""
        for _ in range(loops):
            self.loop()
            self._bury()
            if self.trade is None and not self.treasury._deals:
                break
            if self.trade and not self.trade.has_open_orders:
                self.exit()
            elif self.trade:
                self.cancel()
            if any(deal.doubtful for deal in self.treasury._deals.values()):
                time.sleep(PATIENCE_MS / 4000)
        assert self.trade is None, self.trade
        assert self.treasury._deals == {}
        assert self.books.account() == {}

    def _bury(self) -> None:
        """Delete a trade whose only orders were cancelled unfilled while the bot was down.

        freqtrade keeps such a trade for ever (`startup_update_open_orders` leaves it to `manage_open_orders`,
        which no longer sees the order); its user deletes it.
        """
        trade = self.trade
        if trade and not trade.amount and not trade.has_open_orders and not trade.nr_of_successful_entries:
            trade.delete()
            Trade.commit()

    @property
    def profit(self) -> Decimal:
        """What freqtrade says that its trades have earned."""
        return sum(
            (D(repr(t.close_profit_abs or 0.0)) for t in Trade.get_trades([Trade.is_open.is_(False)])), D(0)
        )

    @property
    def beside(self) -> Decimal:
        """What orders and loans have brought that no trade of freqtrade's has had: those that were undone.

        What was traded in an account that was liquidated is within the price that freqtrade is told.
        """
        orders = list(Order.session.query(Order))
        known = {order.order_id for order in orders} | self._in_liquidations()
        price, base = self.exchange.price(PAIR), PAIR.split("/")[0]
        total = D(0)
        for order in self.exchange.margin_orders:
            if str(order.order_id) in known:
                continue
            for fill in order.fills:
                sign = 1 if order.side == "BUY" else -1
                total += sign * fill.quantity * (price - fill.price)
                total -= fill.commission * (price if fill.commission_asset == base else 1)
        for record in self.exchange.state.liquidations:
            if f"liquidation-{record.order_id}" not in known:
                total += record.settlement.base_change * price + record.settlement.quote_change
        charged = sum(
            (c.interest * (price if c.asset == base else 1) for c in self.exchange.state.loans.charges), D(0)
        )
        booked = sum((D(repr(order.funding_fee or 0.0)) for order in orders), D(0))
        return total - charged - booked

    def _in_liquidations(self) -> set[str]:
        query = """
            SELECT order_id FROM margin_steps WHERE order_id IS NOT NULL
            AND deal_id IN (SELECT deal_id FROM margin_steps WHERE kind = 'liquidated')
        """
        with self.treasury._journal._history.reading() as connection:
            return {row[0] for row in connection.execute(text(query))}


@contextmanager
def floor(folder: Path, exchange: LocalExchange, leverage: float = 2.0, **changes: Any) -> Iterator[Floor]:
    """Run a bot in this process until the block ends."""
    original = exchanges.Binance
    register()
    made = None
    try:
        made = Floor(folder, exchange, leverage, **changes)
        yield made
    finally:
        exchanges.Binance = original
        if made:
            with suppress(FreqtradeException):
                made.bot.exchange.close()
