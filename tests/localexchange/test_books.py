"""The books of the local exchange: whatever is asked of it, no money appears or disappears."""

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, NamedTuple
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.desk import MARGIN, SATOSHI, Desk

from freqtrade_isolated_margin.localexchange import DEFAULT_MARKETS, SCENARIOS
from freqtrade_isolated_margin.localexchange.loans import Loans
from freqtrade_isolated_margin.localexchange.margin_orders import SIDE_EFFECTS, MarginBook
from freqtrade_isolated_margin.localexchange.state import State
from freqtrade_isolated_margin.localexchange.transfers import Transfers

FACTORS = [
    Decimal(text) for text in ("0.3", "0.6", "0.8", "0.9", "0.97", "1", "1.03", "1.1", "1.2", "1.6", "3")
]
SYMBOLS = ("SOLUSDT", "BTCUSDT")
PRICES = {"SOLUSDT": Decimal(150), "BTCUSDT": Decimal(50000)}


class Wish(NamedTuple):
    """An order as somebody may want it, relative to what is there."""

    symbol: str
    side: str
    type: str
    effect: str
    patience: str = "GTC"
    share: Decimal = Decimal(1)
    """Of twice what the account holds."""
    distance: Decimal = Decimal(1)
    """Limit and stop price as a multiple of the price."""
    by_quote: bool = False
    repaying: bool = True


symbols = st.sampled_from(SYMBOLS)
shares = st.sampled_from([Decimal(text) for text in ("0.05", "0.2", "0.3", "0.5", "0.8", "1", "1.2")])
orders = st.tuples(
    st.just("order"),
    st.builds(
        Wish,
        symbols,
        st.sampled_from(["BUY", "SELL"]),
        st.sampled_from(["LIMIT", "LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT"]),
        st.sampled_from(SIDE_EFFECTS),
        st.sampled_from(["GTC", "GTC", "IOC", "FOK"]),
        shares,
        st.sampled_from([Decimal(text) for text in ("0.9", "0.97", "0.99", "1", "1.01", "1.03", "1.1")]),
        st.booleans(),
        st.booleans(),
    ),
)
step_kinds = st.one_of(
    orders,
    orders,
    orders,
    st.tuples(st.just("price"), symbols, st.sampled_from(FACTORS)),
    st.tuples(st.just("hours"), st.integers(1, 30)),
    st.tuples(st.just("liquidity"), symbols, st.none() | st.integers(0, 5)),
    st.tuples(st.just("in"), symbols, st.booleans(), shares),
    st.tuples(st.just("out"), symbols, st.booleans(), shares),
    st.tuples(st.just("borrow"), symbols, st.booleans(), shares),
    st.tuples(st.just("repay"), symbols, st.booleans(), shares),
    st.tuples(st.just("cancel"), symbols),
    st.tuples(st.just("fill"), shares),
    st.tuples(st.just("liquidate"), symbols),
)


def act(desk: Desk, step: tuple[Any, ...]) -> None:
    """Do one thing at random; most of what is asked may be refused."""
    kind, *rest = step
    {
        "price": _move_price,
        "hours": lambda desk, hours: desk.state.advance(3600.0 * hours),
        "liquidity": _set_liquidity,
        "in": _transfer_in,
        "out": _transfer_out,
        "borrow": _borrow,
        "repay": _repay,
        "order": _order,
        "cancel": lambda desk, symbol: desk.ask(
            "DELETE", f"{MARGIN}/openOrders", symbol=symbol, isIsolated="TRUE"
        ),
        "fill": _fill,
        "liquidate": _liquidate,
    }[kind](desk, *rest)


def _asset(desk: Desk, symbol: str, base: bool) -> str:
    market = desk.state.market(symbol)
    return market.base if base else market.quote


def _on_step(value: Decimal, step: Decimal) -> Decimal:
    return (value / step).to_integral_value() * step


def _move_price(desk: Desk, symbol: str, factor: Decimal) -> None:
    price = _on_step(PRICES[symbol] * factor, desk.state.market(symbol).tick)
    desk.state.set_price(symbol, price)


def _set_liquidity(desk: Desk, symbol: str, quantity: int | None) -> None:
    if quantity is None:
        desk.state.book.liquidity.pop(symbol, None)
    else:
        desk.state.book.liquidity[symbol] = Decimal(quantity)


def _transfer_in(desk: Desk, symbol: str, base: bool, share: Decimal) -> None:
    asset = _asset(desk, symbol, base)
    amount = _on_step(desk.state.book.balance(asset).free * share, SATOSHI)
    desk.move_in(symbol, asset, f"{amount:f}")


def _transfer_out(desk: Desk, symbol: str, base: bool, share: Decimal) -> None:
    asset = _asset(desk, symbol, base)
    most = desk.ask("GET", f"{MARGIN}/maxTransferable", asset=asset, isolatedSymbol=symbol)
    if isinstance(most, dict):
        amount = _on_step(Decimal(most["amount"]) * share, SATOSHI)
        desk.move_out(symbol, asset, f"{amount:f}")


def _borrow(desk: Desk, symbol: str, base: bool, share: Decimal) -> None:
    asset = _asset(desk, symbol, base)
    most = desk.ask("GET", f"{MARGIN}/maxBorrowable", asset=asset, isolatedSymbol=symbol)
    if isinstance(most, dict):
        amount = _on_step(Decimal(most["amount"]) * share, SATOSHI)
        desk.loan("BORROW", symbol, asset, f"{amount:f}")


def _repay(desk: Desk, symbol: str, base: bool, share: Decimal) -> None:
    asset = _asset(desk, symbol, base)
    owed = desk.state.account(symbol).holding(asset).debt
    desk.loan("REPAY", symbol, asset, f"{_on_step(owed * share, SATOSHI):f}")


def _order(desk: Desk, wish: Wish) -> None:
    market, account = desk.state.market(wish.symbol), desk.state.account(wish.symbol)
    price = desk.state.price(wish.symbol)
    worth = (account.base.total * price + account.quote.total) * wish.share
    params = {"quantity": f"{_on_step(worth * 2 / price, market.step):f}", "timeInForce": wish.patience}
    if wish.type == "MARKET" and wish.by_quote:
        params = {"quoteOrderQty": f"{_on_step(worth, SATOSHI):f}"}
    limit = f"{_on_step(price * wish.distance, market.tick):f}"
    desk.order(
        symbol=wish.symbol,
        side=wish.side,
        type=wish.type,
        price=limit,
        stopPrice=limit,
        sideEffectType=wish.effect,
        autoRepayAtCancel=str(wish.repaying),
        **params,
    )


def _fill(desk: Desk, share: Decimal) -> None:
    book = desk.state.margin_book
    for order in book.open_orders()[:1]:
        market = desk.state.market(order.symbol)
        quantity = min(order.remaining, _on_step(order.remaining * share, market.step))
        if quantity:
            book.fill(order.order_id, quantity, order.price, desk.state.told_ms(), maker=True)


def _liquidate(desk: Desk, symbol: str) -> None:
    if desk.state.account(symbol).indebted:
        desk.state.force_liquidation(symbol)


def play(steps: list[tuple[Any, ...]], fee: str, liquidation_fee: str) -> Desk:
    """Act out a story, and look into the books after each step."""
    desk = Desk(fee, liquidation_fee)
    with desk.state.changed:
        for symbol in SYMBOLS:
            _transfer_in(desk, symbol, False, Decimal("0.3"))
        for step in steps:
            act(desk, step)
            desk.state.tick()
            desk.balanced()
            desk.sound()
            desk.true()
    return desk


LOSSES: list[tuple[Any, ...]] = [
    ("order", Wish("SOLUSDT", "BUY", "MARKET", "AUTO_BORROW_REPAY", share=Decimal("1.5"))),
    ("order", Wish("SOLUSDT", "SELL", "LIMIT", "NO_SIDE_EFFECT", "GTC", Decimal("0.2"), Decimal("1.1"))),
    ("order", Wish("BTCUSDT", "SELL", "MARKET", "AUTO_BORROW_REPAY", share=Decimal("1.5"))),
    ("hours", 3),
    ("price", "SOLUSDT", Decimal("0.3")),
    ("price", "BTCUSDT", Decimal(3)),
]


@settings(max_examples=300, deadline=None)
@example(steps=LOSSES, fee="0.001", liquidation_fee="0.02")
@given(
    steps=st.lists(step_kinds, min_size=10, max_size=40),
    fee=st.sampled_from(["0", "0.001"]),
    liquidation_fee=st.sampled_from(["0", "0.02"]),
)
def test_the_books_balance(steps: list[tuple[Any, ...]], fee: str, liquidation_fee: str) -> None:
    """All assets less all debts change by trades, fees, interest and liquidations, and by nothing else."""
    play(steps, fee, liquidation_fee)


STORY: list[tuple[Any, ...]] = [
    ("order", Wish("SOLUSDT", "BUY", "MARKET", "AUTO_BORROW_REPAY", share=Decimal("1.5"))),
    ("hours", 5),
    ("order", Wish("SOLUSDT", "SELL", "LIMIT", "AUTO_REPAY", "GTC", Decimal("0.02"), Decimal("1.05"))),
    ("fill", Decimal("0.5")),
    ("cancel", "SOLUSDT"),
    ("order", Wish("BTCUSDT", "SELL", "LIMIT", "AUTO_BORROW_REPAY", share=Decimal("0.1"))),
    ("order", Wish("BTCUSDT", "BUY", "LIMIT", "MARGIN_BUY", "GTC", Decimal("0.6"), Decimal("0.95"))),
    ("cancel", "BTCUSDT"),
    ("repay", "SOLUSDT", False, Decimal("0.01")),
    ("in", "BTCUSDT", False, Decimal("0.1")),
    ("out", "BTCUSDT", False, Decimal("0.5")),
    ("price", "SOLUSDT", Decimal("0.6")),
]


def test_lenders_lose_in_the_other_story() -> None:
    """Both accounts of the example are worth less than they owe when they are liquidated."""
    settlements = [record.settlement for record in play(LOSSES, "0.001", "0.02").state.liquidations]
    assert [settlement.side for settlement in settlements] == ["SELL", "BUY"]
    assert settlements[0].quote_loss > 0
    assert settlements[1].base_loss > 0


def test_the_story_has_everything_in_it() -> None:
    """The story that breakage is shown with trades, owes, pays, cancels, transfers and is liquidated."""
    desk = play(STORY, "0.001", "0.02")
    state = desk.state
    assert {record.symbol for record in state.liquidations} == {"SOLUSDT"}
    assert {record.kind for record in state.loans.records} == {"BORROW", "REPAY"}
    assert {record.kind for record in state.transfers.records} == {
        "MAIN_ISOLATED_MARGIN",
        "ISOLATED_MARGIN_MAIN",
    }
    assert {charge.kind for charge in state.loans.charges} == {"ON_BORROW", "PERIODIC"}
    assert {order.status for order in state.margin_book.orders()} >= {"FILLED", "CANCELED"}


@contextmanager
def leaking(owner: type, name: str, leak: Any) -> Iterator[None]:
    """Let a method do something more than it should."""
    original = getattr(owner, name)

    def spoiled(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        leak(self, *args)
        return result

    with mock.patch.object(owner, name, spoiled):
        yield


@pytest.mark.parametrize(
    ("owner", "name", "leak"),
    [
        (Loans, "lend", lambda self, account, asset, *_: _gain(account.holding(asset))),
        (Loans, "repay", lambda self, account, asset, *_: _gain(account.holding(asset))),
        (Transfers, "move_in", lambda self, account, asset, *_: _gain(account.holding(asset))),
        (Transfers, "move_out", lambda self, account, asset, *_: _gain(self._book.balance(asset))),
        (
            MarginBook,
            "fill",
            lambda self, order_id, *_: _gain(self._account(self.by_id[order_id].symbol).base),
        ),
        (
            MarginBook,
            "close",
            lambda self, order_id, *_: _gain(self._account(self.by_id[order_id].symbol).base),
        ),
    ],
    ids=["lend", "repay", "move_in", "move_out", "fill", "close"],
)
def test_the_books_would_show_a_leak(owner: type, name: str, leak: Any) -> None:
    """A satoshi too much in any step that moves money is found."""
    with leaking(owner, name, leak), pytest.raises(AssertionError):
        play(STORY, "0.001", "0.02")


def _gain(holding: Any) -> None:
    holding.free += SATOSHI


def test_scenarios_are_balanced_from_the_start() -> None:
    """Accounts that a scenario has filled explain nothing, and are in the books."""
    state = State(DEFAULT_MARKETS, SCENARIOS["calm"], speed=1.0, fee=Decimal(0))
    assert state.explained() == {}
    assert (
        state.net_assets()["USDT"]
        == Decimal(10000)
        - Decimal("1000.01")
        - Decimal("1000.02")
        + Decimal(1500)
        - Decimal("690.03")
        - Decimal("600.01")
        + 100
        - 600
    )
