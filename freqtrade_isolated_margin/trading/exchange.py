"""`MarginExchange`: Binance's isolated margin accounts, as freqtrade knows leverage with isolated risk.

To freqtrade it is an exchange for futures in isolated mode whose markets are the spot markets that may be
traded on margin, whose funding fees are the interest on loans, and whose liquidation prices follow from the
pairs' tiers. Nothing of freqtrade is patched: all of it is in overrides, which `selfcheck` compares with the
freqtrade that is installed.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar, TypeVar

from freqtrade.constants import BuySell
from freqtrade.enums import TRADE_MODES, CandleType, MarginMode, RunMode, TradingMode
from freqtrade.exceptions import (
    ConfigurationError,
    DependencyException,
    OperationalException,
)
from freqtrade.exchange import Exchange
from freqtrade.exchange.binance import Binance
from freqtrade.exchange.exchange_types import CcxtOrder, FtHas, Tickers
from freqtrade.persistence import LocalTrade, PairLocks, Trade
from pandas import DataFrame, Timestamp

from freqtrade_isolated_margin.account.maths import INFINITY, ONE, ZERO, Side, liquidation_price
from freqtrade_isolated_margin.account.tiers import highest_leverage, tier_ratios
from freqtrade_isolated_margin.binance.adapter import IsolatedMarginAdapter
from freqtrade_isolated_margin.binance.clock import milliseconds
from freqtrade_isolated_margin.binance.reader import AccountsReader, Reader
from freqtrade_isolated_margin.errors import CredentialsError, IsolatedMarginError
from freqtrade_isolated_margin.guard.guard import Guard
from freqtrade_isolated_margin.hosts.candles import LiveCandles
from freqtrade_isolated_margin.hosts.locks import LOCK_PREFIX
from freqtrade_isolated_margin.hosts.wiring import (
    build,
    build_guard,
    credentials_of,
    exchange_section,
)
from freqtrade_isolated_margin.rules.decide import EntryDecision, Rule, plain
from freqtrade_isolated_margin.rules.settings import Settings
from freqtrade_isolated_margin.trading.desk import Purpose, Send, Ticket, order_parameters
from freqtrade_isolated_margin.trading.gate import Entry, Gate
from freqtrade_isolated_margin.trading.loans import Fill, TradeAccount
from freqtrade_isolated_margin.trading.paper import PaperBook, PaperReader
from freqtrade_isolated_margin.trading.requirements import check_configuration
from freqtrade_isolated_margin.trading.selfcheck import check_overrides
from freqtrade_isolated_margin.trading.simulation import Simulation
from freqtrade_isolated_margin.trading.terms import ExchangeTerms, Terms, TermsBook
from freqtrade_isolated_margin.trading.trades import account_of, asked_about, number, open_trades

logger = logging.getLogger(__name__)

A = TypeVar("A", bound=IsolatedMarginAdapter)

# Where a frame of candles remembers whose they are.
_PAIR = "isolated margin pair"


class MarginExchange(Binance):  # type: ignore[misc]
    """Trades the isolated margin accounts; `launcher` registers it."""

    _supported_trading_mode_margin_pairs: ClassVar[list[tuple[TradingMode, MarginMode]]] = [
        (TradingMode.FUTURES, MarginMode.ISOLATED)
    ]
    # Instead of those of Binance's futures, which therefore do not count.
    _ft_has_futures: ClassVar[FtHas] = {
        "mark_ohlcv_price": "spot",
        "uses_leverage_tiers": False,
        "stoploss_order_types": {"limit": "stop_loss_limit"},
    }

    isolated_margin = True
    """By this the hosts know that orders go to the margin accounts."""

    def __init__(self, config: dict[str, Any], **options: Any) -> None:  # noqa: ANN401 - freqtrade's own
        try:
            self.margin_settings = check_configuration(config)
        except IsolatedMarginError as error:
            raise OperationalException(str(error)) from None
        self._terms = TermsBook(self.margin_settings.trading)
        self._paper = PaperBook()
        self._guard: Guard | None = None
        self._gate: Gate | None = None
        self._hosted = self._made = False
        super().__init__(config, **options)
        self._made = True
        # freqtrade has set it by the trading mode, but all candles are those of the spot market.
        config["candle_type_def"] = CandleType.SPOT
        if config.get("runmode") is RunMode.UTIL_EXCHANGE:
            # What only downloads or lists chooses its candles by the trading mode.
            config["trading_mode"] = TradingMode.SPOT

    # ----- markets and candles

    @property
    def _ccxt_config(self) -> dict[str, Any]:
        return {}

    def additional_exchange_init(self) -> None:
        """Compare this class with the installed freqtrade. What Binance's futures need is not asked for.

        :raises OperationalException: where they do not fit together, or money would be at stake.
        """
        trades = self._config.get("runmode") in TRADE_MODES
        check_overrides(type(self), trades=trades)
        if trades:
            self._terms = self._told_terms()
            logger.info(
                "Orders go to isolated margin accounts%s, and the guard is asked before each that borrows.",
                ", which are simulated" if self._config["dry_run"] else "",
            )

    def _told_terms(self) -> TermsBook:
        """Return a bot's terms: those that the exchange tells who has a key. A backtest goes by settings."""
        dry = bool(self._config["dry_run"])
        try:
            has_key = credentials_of(self._config) is not None
        except CredentialsError as error:
            raise OperationalException(str(error)) from None
        ask = ExchangeTerms(self._make_adapter) if has_key or not dry else None
        return TermsBook(self.margin_settings.trading, ask, may_assume=dry)

    def market_is_future(self, market: dict[str, Any]) -> bool:
        """Whether a market may be traded on isolated margin; without a key only that it may on margin."""
        isolated = (market.get("marginModes") or {}).get("isolated") is True
        return bool(market.get("spot") and market.get("margin") and (isolated or self._config["dry_run"]))

    def get_option(self, param: str, default: Any = None) -> Any:  # noqa: ANN401 - freqtrade's own
        """Return one of freqtrade's options; prices for interest come with the strategy's own candles."""
        if param == "mark_ohlcv_timeframe":
            return self._config.get("timeframe", default)
        return super().get_option(param, default)

    def get_tickers(
        self,
        symbols: list[str] | None = None,
        *,
        cached: bool = False,
        market_type: TradingMode | None = None,
    ) -> Tickers:
        """Return the spot tickers, which have all that freqtrade needs; those of futures lack bid and ask."""
        spot = None if market_type is TradingMode.FUTURES else market_type
        return Exchange.get_tickers(self, symbols, cached=cached, market_type=spot)

    def check_delisting_time(self, pair: str) -> datetime | None:
        """Return when the spot pair is delisted, if it is."""
        delisted: datetime | None = self._get_spot_pair_delist_time(pair, refresh=False)
        return delisted

    def validate_stop_ordertypes(self, order_types: dict[str, Any]) -> None:
        """Refuse a stop loss on the exchange that freqtrade would quietly place as another type."""
        super().validate_stop_ordertypes(order_types)
        if order_types.get("stoploss_on_exchange") and order_types.get("stoploss") != "limit":
            raise ConfigurationError(
                'isolated_margin.trading: stoploss_on_exchange needs order_types.stoploss "limit": the '
                "margin accounts have no stop order at market price"
            )

    # ----- the guard

    def margin_guard(
        self, settings: Settings, candles: LiveCandles | None = None, *, hosted: bool = True
    ) -> Guard:
        """Return the guard of this exchange's accounts, made when it is first asked for.

        A strategy with the mixin asks with its own settings and for its charts, starts it and has its locks
        tended; without one this class does what is needed of that.

        :raises IsolatedMarginError: where it cannot be built.
        """
        if self._guard is None:
            self._guard = build_guard(
                self._config,
                settings,
                candles=candles,
                make_reader=self._make_reader if self._config["dry_run"] else None,
            )
            self._gate = Gate(
                settings,
                self._make_reader,
                lambda pair: self.terms(pair).tiers,
                moves_stake=self._moves_stake,
            )
        self._hosted = self._hosted or hosted
        return self._guard

    def simulation(self, settings: Settings) -> Simulation:
        """Return a judge of a backtest by the accounts that its trades make."""
        return Simulation(settings, self.terms)

    def _make_reader(self) -> AccountsReader:
        """Return what reads the accounts that this class trades in: simulated ones in a dry run."""
        if not self._config["dry_run"]:
            return Reader(self._make_adapter())
        adapter = IsolatedMarginAdapter(None, exchange=exchange_section(self._config))
        return PaperReader(adapter, self._paper, self.terms)

    def _make_adapter(self) -> IsolatedMarginAdapter:
        return self._build(IsolatedMarginAdapter)

    def _build(self, kind: type[A]) -> A:
        """Build an adapter of a kind that reads, or trades, with the bot's key."""
        credentials = credentials_of(self._config)
        if credentials is None:
            raise CredentialsError("isolated_margin.trading: no API key to read the margin accounts with")
        return build(kind, credentials, self.margin_settings, self._config)

    @property
    def _moves_stake(self) -> bool:
        """Whether an entry brings its collateral along; what a dry run simulates always does."""
        return bool(self._config["dry_run"]) or self.margin_settings.trading.collateral == "transfer"

    def _own_guard(self) -> Guard:
        return self.margin_guard(self.margin_settings, hosted=False)

    def _ask_guard(self, pair: str, side: Side, amount: float, rate: float, leverage: float) -> None:
        # Here, since a backtest never gets here, and need not pay for freqtrade's RPC.
        from freqtrade_isolated_margin.trading.refusal import OrderRefusedError  # noqa: PLC0415

        try:
            decision = self._verdict(pair, side, amount, rate, leverage)
            if decision.blocks:
                self._lock(decision)
        except Exception as error:
            logger.exception("The isolated margin guard failed at an order in %s; it is refused.", pair)
            raise OrderRefusedError(f"{pair}: the isolated margin guard failed, see the log") from error
        if decision.blocks:
            raise OrderRefusedError(f"the isolated margin guard refuses: {decision}")

    def _verdict(self, pair: str, side: Side, amount: float, rate: float, leverage: float) -> EntryDecision:
        guard = self._own_guard()
        if self._gate is None:
            return EntryDecision.because(pair, side, ZERO, Rule.OFF, "the guard is not there")
        # What is held now, and the rules as a strategy may have changed them since.
        self._paper.publish(open_trades())
        self._gate.settings = guard.settings
        # As it will be ordered: cut to the lot.
        ordered = number(self.amount_to_precision(pair, amount))
        return self._gate.judge(Entry(pair, side, ordered, number(rate), number(leverage)))

    def _lock(self, decision: EntryDecision) -> None:
        """Say in log, history and locks why an order is refused; it is tried again with the next candle."""
        now = datetime.now(UTC)
        logger.warning("Order refused, for the account as it would be after it: %s", decision)
        self._own_guard().note(decision, milliseconds(now))
        reason = f"{LOCK_PREFIX}{decision.pair} {decision.rule} after the order"
        PairLocks.lock_pair(decision.pair, now, reason, now=now, side=str(decision.side))

    # ----- once a loop, and at the end

    def reload_markets(self, force: bool = False, *, load_leverage_tiers: bool = True) -> None:
        """Reload the markets when it is time; a bot asks in each loop, so that its accounts are told here."""
        super().reload_markets(force, load_leverage_tiers=load_leverage_tiers)
        # While the exchange is made there is no database, and no strategy that may have a guard.
        if not self._made or self._config.get("runmode") not in TRADE_MODES or not hasattr(Trade, "session"):
            return
        try:
            self._tend()
        except Exception:
            logger.exception("Tending the isolated margin accounts failed; the bot goes on.")

    def _tend(self) -> None:
        self._paper.publish(open_trades())
        if not self._hosted:
            # An expression in the whitelist is no pair, and is not shown without the mixin.
            listed = self.markets.keys() & set(self._config["exchange"]["pair_whitelist"])
            self._own_guard().start({*listed, *self._paper.held})

    def close(self) -> None:
        """Stop to read the accounts, and close the connections."""
        guard, self._guard = getattr(self, "_guard", None), None
        if guard:
            guard.stop()
        terms = getattr(self, "_terms", None)
        if terms:
            terms.close()
        # freqtrade also closes what could not be made.
        if hasattr(self, "_exchange_ws"):
            super().close()

    # ----- orders

    def create_order(
        self,
        *,
        pair: str,
        ordertype: str,
        side: BuySell,
        amount: float,
        rate: float,
        leverage: float,
        time_in_force: str = "GTC",
        reduceOnly: bool = False,  # noqa: N803 - freqtrade's own
        initial_order: bool = True,
    ) -> CcxtOrder:
        """Place an order: an entry only if the guard allows it, an exit always.

        :raises OrderRefusedError: where it does not; freqtrade goes on.
        """
        if not reduceOnly:
            self._ask_guard(pair, Side.LONG if side == "buy" else Side.SHORT, amount, rate, leverage)
        place = super().create_order

        def send(cut: float) -> CcxtOrder:
            order: CcxtOrder = place(
                pair=pair,
                ordertype=ordertype,
                side=side,
                amount=cut,
                rate=rate,
                leverage=leverage,
                time_in_force=time_in_force,
                reduceOnly=reduceOnly,
                initial_order=initial_order,
            )
            return order

        purpose = Purpose.EXIT if reduceOnly else Purpose.ENTRY
        return self._place(Ticket(purpose, pair, side, ordertype, amount, rate, leverage), send)

    def _place(self, ticket: Ticket, send: Send) -> CcxtOrder:
        """Send an order that the guard has let through; a dry run has nothing to do around it."""
        return send(ticket.amount)

    def _get_params(
        self,
        side: BuySell,
        ordertype: str,
        leverage: float,
        reduceOnly: bool,  # noqa: N803 - freqtrade's own
        time_in_force: str = "GTC",
    ) -> dict[str, Any]:
        params: dict[str, Any] = super()._get_params(side, ordertype, leverage, False, time_in_force)
        return params | order_parameters(Purpose.EXIT if reduceOnly else Purpose.ENTRY, side, leverage)

    def _get_stop_params(self, side: BuySell, ordertype: str, stop_price: float) -> dict[str, Any]:
        params: dict[str, Any] = super()._get_stop_params(side, ordertype, stop_price)
        return params | order_parameters(Purpose.STOP)

    # ----- leverage

    def terms(self, pair: str) -> Terms:
        """Return at what terms the pair's loans are had.

        :raises IsolatedMarginError: where a live bot cannot learn them.
        """
        return self._terms.of(pair)

    def load_leverage_tiers(self) -> dict[str, list[dict[str, Any]]]:
        """Return none: futures have such tiers. See `terms`."""
        return {}

    def get_max_leverage(self, pair: str, stake_amount: float | None) -> float:
        """Return the highest leverage of a long; freqtrade asks before it says on which side (`side_cap`)."""
        try:
            tiers = self.terms(pair).tiers
        except IsolatedMarginError as error:
            raise DependencyException(f"The leverage of {pair} is not known: {error}") from None
        return float(highest_leverage(tiers, Side.LONG, number(stake_amount or 0.0)))

    def side_cap(self, pair: str, side: Side) -> Decimal:
        """Return the highest leverage on one side: that of a short is lower by one."""
        return max(tier.max_leverage(side) for tier in self.terms(pair).tiers)

    def _get_max_notional_from_tiers(self, pair: str, leverage: float) -> float | None:
        """Return the most that a long of this leverage may be worth, so that its loan can be had."""
        wanted = number(leverage)
        fitting = [
            tier.quote_max_borrowable
            for tier in self.terms(pair).tiers
            if wanted <= tier.max_leverage(Side.LONG)
        ]
        if wanted <= ONE or not fitting or max(fitting) == INFINITY:
            return None
        return float(max(fitting) * wanted / (wanted - 1))

    def set_margin_mode(
        self,
        pair: str,
        margin_mode: MarginMode,
        accept_fail: bool = False,
        params: dict[str, Any] | None = None,
    ) -> None:
        """Do nothing: an account of one pair is isolated by nature."""

    def _set_leverage(self, leverage: float, pair: str | None = None, accept_fail: bool = False) -> None:
        """Do nothing: leverage is what is borrowed."""

    # ----- interest, as freqtrade's funding fees

    @staticmethod
    def combine_funding_and_mark(
        funding_rates: DataFrame,  # noqa: ARG004 - freqtrade's own
        mark_rates: DataFrame,
        futures_funding_rate: int | None = None,  # noqa: ARG004
    ) -> DataFrame:
        """Return the prices at which interest owed in base currency is counted."""
        prices = mark_rates[["date", "open"]].rename(columns={"open": "open_mark"})
        if not prices.empty:
            prices["_ff_date_ns"] = prices["date"].dt.as_unit("ns").astype("int64")
        return prices

    def calculate_funding_fees(
        self, df: DataFrame, amount: float, is_short: bool, open_date: datetime, close_date: datetime
    ) -> float:
        """Return a backtest's interest since the trade's last fill, negative.

        freqtrade does not say which trade it means, so it is looked for. What is owed in base currency counts
        at the open of the candle.
        """
        pair = df.attrs.get(_PAIR)
        trade = asked_about(open_trades(pair), amount, is_short, open_date, _price_at(df, open_date))
        if trade is None:
            raise OperationalException(
                "isolated_margin.trading: freqtrade asks for the interest of no open trade"
            )
        df.attrs[_PAIR] = trade.pair
        account = account_of(trade, self.terms(trade.pair), close_date)
        return -float(account.newest_interest(number(_price_at(df, close_date) or trade.open_rate)))

    def get_funding_fees(
        self,
        pair: str,
        amount: float,  # noqa: ARG002 - freqtrade's own
        is_short: bool,
        open_date: datetime,  # noqa: ARG002
    ) -> float:
        """Return the interest since the trade's last fill, negative."""
        trade = next((trade for trade in open_trades(pair) if trade.is_short == is_short), None)
        if trade is None:
            return 0.0
        account = account_of(trade, self.terms(pair), datetime.now(UTC))
        price = self._price_of_base(trade) if account.base.newest else ZERO
        return -float(account.newest_interest(price))

    def _price_of_base(self, trade: LocalTrade) -> Decimal:
        try:
            return number(self.get_rate(trade.pair, refresh=False, side="exit", is_short=trade.is_short))
        except DependencyException:
            logger.warning("The interest of %s is counted at its open rate: no price is known.", trade.pair)
            return number(trade.open_rate)

    # ----- liquidation

    def get_liquidation_price(
        self,
        pair: str,
        open_rate: float,
        is_short: bool,
        amount: float,
        stake_amount: float,
        leverage: float,
        wallet_balance: float,
        open_trades: list[Any] | None = None,
    ) -> float | None:
        """Return the price of the account's liquidation, moved by `liquidation_buffer`; 0 where none does.

        freqtrade would keep a former price instead of None: that of a position which has since repaid.
        """
        price: float | None = super().get_liquidation_price(
            pair, open_rate, is_short, amount, stake_amount, leverage, wallet_balance, open_trades
        )
        return price or 0.0

    def dry_run_liquidation_price(
        self,
        pair: str,
        open_rate: float,
        is_short: bool,
        amount: float,
        stake_amount: float,  # noqa: ARG002 - freqtrade's own
        leverage: float,
        wallet_balance: float,  # noqa: ARG002
        open_trades: list[Any],  # noqa: ARG002
    ) -> float | None:
        """Return the price at which the simulated account's level meets its tier's liquidation ratio.

        :raises OperationalException: in a backtest, for a leverage that no tier has on this side.
        """
        side = Side.SHORT if is_short else Side.LONG
        self._check_leverage(pair, side, number(leverage))
        terms = self.terms(pair)
        account = self._account(pair, side, Fill(0.0, True, number(amount), number(open_rate)), leverage)
        found = tier_ratios(terms.tiers, account.holdings)
        price = (
            liquidation_price(account.holdings, found.current)
            if found and account.holdings.has_debt
            else None
        )
        return None if price is None else float(price)

    def _check_leverage(self, pair: str, side: Side, leverage: Decimal) -> None:
        """Refuse what a backtest would take for possible; a bot's order has been judged already."""
        cap = self.side_cap(pair, side)
        if leverage > cap and self._config.get("runmode") not in TRADE_MODES:
            raise OperationalException(
                f"isolated_margin.trading: {pair} {side} with leverage {plain(leverage, 4)} is above "
                f"{plain(cap, 4)}, the highest of its tiers on this side; let leverage() return less"
            )

    def _account(self, pair: str, side: Side, entry: Fill, leverage: float) -> TradeAccount:
        """Return the account of the pair's open trade, or of one that consists of `entry`."""
        now = datetime.now(UTC)
        for trade in open_trades(pair):
            fills_end = trade.date_last_filled_utc
            if trade.is_short == (side is Side.SHORT) and trade.nr_of_successful_entries:
                return account_of(trade, self.terms(pair), fills_end)
        return TradeAccount.of(side, number(leverage), self.terms(pair).rates, [entry], now.timestamp())


def _price_at(prices: DataFrame, moment: datetime) -> float:
    """Return the open of the candle that has begun at `moment` or before; 0 where there is none."""
    if prices.empty:
        return 0.0
    place = int(prices["_ff_date_ns"].to_numpy().searchsorted(Timestamp(moment).value, "right"))
    return float(prices["open_mark"].to_numpy()[max(place - 1, 0)])
