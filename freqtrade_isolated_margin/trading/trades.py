"""freqtrade's trades, as the accounts see them: their fills, and which trade a question is about."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

from freqtrade.persistence import LocalTrade, Trade

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.trading.loans import Fill, TradeAccount
from freqtrade_isolated_margin.trading.terms import Terms


def number(value: float) -> Decimal:
    """Return a float of freqtrade's as the decimal that it stands for."""
    return Decimal(repr(float(value)))


def fills_of(trade: LocalTrade) -> tuple[Fill, ...]:
    """Return what of the trade's orders was filled, in the order of time."""
    fills = (
        Fill(
            at=(order.order_filled_utc or order.order_date_utc).timestamp(),
            enters=order.ft_order_side == trade.entry_side,
            amount=number(order.safe_amount_after_fee),
            price=number(order.safe_price),
        )
        for order in trade.orders
        if not order.ft_is_open and order.filled
    )
    return tuple(sorted(fills, key=lambda fill: fill.at))


def side_of(trade: LocalTrade) -> Side:
    """Return the side that a trade is on."""
    return Side.SHORT if trade.is_short else Side.LONG


def account_of(trade: LocalTrade, terms: Terms, until: datetime) -> TradeAccount:
    """Return the margin account of a trade as it is at `until`."""
    return TradeAccount.of(
        side_of(trade), number(trade.leverage or 1.0), terms.rates, fills_of(trade), until.timestamp()
    )


def open_trades(pair: str | None = None) -> list[LocalTrade]:
    """Return freqtrade's open trades, of one pair or of all."""
    trades: list[LocalTrade] = Trade.get_trades_proxy(pair=pair, is_open=True)
    return trades


def asked_about(
    trades: Iterable[LocalTrade], amount: float, is_short: bool, last_filled: datetime, price: float
) -> LocalTrade | None:
    """Return the open trade that freqtrade asks about by these figures; None where there is none.

    freqtrade does not say which trade it means. Of several that are alike in amount, side and time the one
    whose price is closest to its pair's `price` then is meant.
    """
    alike = [
        trade
        for trade in trades
        if trade.is_short == is_short and trade.amount == amount and trade.date_last_filled_utc == last_filled
    ]
    if len(alike) < 2:  # noqa: PLR2004 - one is the one
        return alike[0] if alike else None
    return min(alike, key=lambda trade: abs(trade.open_rate - price))
