"""Orders in isolated margin accounts: what they borrow and repay, how they end, and what refuses them."""

from decimal import Decimal
from typing import Any

import pytest
from support.desk import MARGIN, Desk

SYMBOL = "SOLUSDT"
BUY: dict[str, Any] = {"symbol": SYMBOL, "side": "BUY"}
SELL: dict[str, Any] = {"symbol": SYMBOL, "side": "SELL"}
LIMIT: dict[str, Any] = {**BUY, "type": "LIMIT"}
BORROWING: dict[str, Any] = {"sideEffectType": "AUTO_BORROW_REPAY"}


@pytest.fixture
def desk() -> Desk:
    """A desk with 100 USDT in the account of SOL, which stands at 150."""
    desk = Desk()
    desk.open(SYMBOL, quote_free="100")
    return desk


class TestBorrowing:
    """When and how much an order borrows."""

    @pytest.mark.parametrize("effect", ["MARGIN_BUY", "AUTO_BORROW_REPAY"])
    def test_what_is_lacking_as_it_is_accepted(self, desk: Desk, effect: str) -> None:
        """A resting order borrows what it lacks, with the first hour's interest, and says so."""
        order = desk.order(**LIMIT, quantity=2, price=140, sideEffectType=effect)
        assert (order["marginBuyBorrowAmount"], order["marginBuyBorrowAsset"]) == ("180", "USDT")
        assert desk.side(SYMBOL, "USDT") == ("0", "280", "180", "0.0018")

    def test_nothing_where_nothing_is_lacking(self, desk: Desk) -> None:
        """An order that may borrow does not where the account has enough."""
        order = desk.order(**LIMIT, quantity="0.5", price=140, **BORROWING)
        assert "marginBuyBorrowAmount" not in order
        assert desk.side(SYMBOL, "USDT") == ("30", "70", "0", "0")

    def test_a_sale_borrows_the_base(self, desk: Desk) -> None:
        """A short borrows what it sells."""
        desk.order(**SELL, type="MARKET", quantity=2, **BORROWING)
        assert desk.side(SYMBOL, "SOL") == ("0", "0", "2", "0.00002")

    def test_at_least_the_minimum(self, desk: Desk) -> None:
        """What is borrowed is not less than the asset's minimum."""
        desk.state.loans.minimum["USDT"] = Decimal(50)
        desk.order(**LIMIT, quantity="0.75", price=140, **BORROWING)
        assert desk.side(SYMBOL, "USDT") == ("45", "105", "50", "0.0005")

    @pytest.mark.parametrize("effect", ["NO_SIDE_EFFECT", "AUTO_REPAY"])
    def test_others_do_not_borrow(self, desk: Desk, effect: str) -> None:
        """An order without the effect is refused where the account has too little."""
        assert desk.order(**LIMIT, quantity=1, price=140, sideEffectType=effect) == -2010


class TestRepaying:
    """When and how much an order repays."""

    @pytest.mark.parametrize("effect", ["AUTO_REPAY", "AUTO_BORROW_REPAY"])
    def test_from_what_it_receives_interest_first(self, desk: Desk, effect: str) -> None:
        """A sale pays the interest, then the loan, from the proceeds less the fee."""
        desk.open(SYMBOL, base_free="3", quote_borrowed="200", quote_interest="0.5")
        desk.order(**SELL, type="MARKET", quantity=1, sideEffectType=effect)
        proceeds = Decimal("149.999") * Decimal("0.999")
        assert desk.side(SYMBOL, "USDT") == (
            "0",
            "0",
            f"{200 - (proceeds - Decimal('0.5')):f}".rstrip("0"),
            "0",
        )

    def test_no_more_than_is_owed(self, desk: Desk) -> None:
        """What is left after the debt stays in the account."""
        desk.open(SYMBOL, base_free="1", quote_borrowed="100")
        desk.order(**SELL, type="MARKET", quantity=1, sideEffectType="AUTO_REPAY")
        assert desk.side(SYMBOL, "USDT") == ("49.849001", "0", "0", "0")

    @pytest.mark.parametrize("effect", ["NO_SIDE_EFFECT", "MARGIN_BUY"])
    def test_others_do_not_repay(self, desk: Desk, effect: str) -> None:
        """An order without the effect leaves the debt alone."""
        desk.open(SYMBOL, base_free="1", quote_borrowed="100")
        desk.order(**SELL, type="MARKET", quantity=1, sideEffectType=effect)
        assert desk.side(SYMBOL, "USDT")[2] == "100"

    def test_only_its_own_asset(self, desk: Desk) -> None:
        """A buy repays a debt in the base, not one in the quote."""
        desk.open(SYMBOL, quote_free="1000", base_borrowed="1", quote_borrowed="100")
        desk.order(**BUY, type="MARKET", quantity=2, sideEffectType="AUTO_REPAY")
        assert desk.side(SYMBOL, "SOL") == ("0.998", "0", "0", "0")
        assert desk.side(SYMBOL, "USDT")[2] == "100"


class TestCancelling:
    """What a cancelled order leaves behind."""

    def test_the_loan_is_repaid_interest_first(self, desk: Desk) -> None:
        """A cancelled order repays what it borrowed; the first hour is left as debt."""
        order = desk.order(**LIMIT, quantity=2, price=140, **BORROWING)
        assert desk.cancel(SYMBOL, order["orderId"])["status"] == "CANCELED"
        assert desk.side(SYMBOL, "USDT") == ("100", "0", "0.0018", "0")

    def test_a_short_leaves_a_debt_that_nothing_pays(self, desk: Desk) -> None:
        """A cancelled short owes an hour of the base and has none of it."""
        order = desk.order(**SELL, type="LIMIT", quantity=2, price=160, **BORROWING)
        desk.cancel(SYMBOL, order["orderId"])
        assert desk.side(SYMBOL, "SOL") == ("0", "0", "0.00002", "0")

    def test_not_without_the_wish(self, desk: Desk) -> None:
        """With autoRepayAtCancel false the loan is kept."""
        order = desk.order(**LIMIT, quantity=2, price=140, autoRepayAtCancel="FALSE", **BORROWING)
        desk.cancel(SYMBOL, order["orderId"])
        assert desk.side(SYMBOL, "USDT") == ("280", "0", "180", "0.0018")

    def test_a_partly_filled_order_repays_what_it_frees(self, desk: Desk) -> None:
        """Of a partly filled order the rest is given back, up to what was borrowed."""
        desk.state.book.liquidity[SYMBOL] = Decimal(1)
        order = desk.order(**LIMIT, quantity=2, price=151, **BORROWING)
        assert order["status"] == "PARTIALLY_FILLED"
        desk.cancel(SYMBOL, order["orderId"])
        assert desk.side(SYMBOL, "USDT") == ("0.999", "0", "51.00202", "0")

    def test_all_open_orders_of_a_symbol(self, desk: Desk) -> None:
        """All open orders are cancelled at once; with none there is nothing to cancel."""
        desk.order(**LIMIT, quantity="0.1", price=140)
        desk.order(**LIMIT, quantity="0.2", price=140)
        path, params = f"{MARGIN}/openOrders", {"symbol": SYMBOL, "isIsolated": "TRUE"}
        assert [row["status"] for row in desk.ask("DELETE", path, **params)] == ["CANCELED"] * 2
        assert desk.ask("GET", path, **params) == []
        assert desk.ask("DELETE", path, **params) == -2011


class TestFilling:
    """How orders are filled, and end."""

    def test_a_resting_order_fills_at_its_price(self, desk: Desk) -> None:
        """A limit order is filled at its own price once the market gets there."""
        order = desk.order(**LIMIT, quantity="0.5", price=140)
        desk.set_price(SYMBOL, "139.9")
        found = desk.find(SYMBOL, order["orderId"])
        assert (found["status"], found["cummulativeQuoteQty"]) == ("FILLED", "70.00000000")

    @pytest.mark.parametrize(("patience", "filled"), [("GTC", "0.30"), ("IOC", "0.30"), ("FOK", "0.00")])
    def test_more_than_there_is(self, desk: Desk, patience: str, filled: str) -> None:
        """Where less is there an order gets that, and rests or expires; or all or nothing."""
        desk.state.book.liquidity[SYMBOL] = Decimal("0.3")
        order = desk.order(**LIMIT, quantity="0.5", price=151, timeInForce=patience)
        assert order["status"] == {"GTC": "PARTIALLY_FILLED"}.get(patience, "EXPIRED")
        assert Decimal(order["executedQty"]) == Decimal(filled)

    def test_by_the_quote(self, desk: Desk) -> None:
        """A market order may say how much it spends."""
        order = desk.order(**BUY, type="MARKET", quoteOrderQty=60)
        assert (order["status"], order["executedQty"]) == ("FILLED", "0.39999000")

    @pytest.mark.parametrize("kind", ["STOP_LOSS", "STOP_LOSS_LIMIT"])
    def test_stop_loss(self, desk: Desk, kind: str) -> None:
        """A stop loss waits, sells at the market's price once triggered, and repays."""
        desk.open(SYMBOL, base_free="1", quote_borrowed="50")
        order = desk.order(
            **SELL, type=kind, quantity=1, stopPrice=140, price=130, sideEffectType="AUTO_REPAY"
        )
        desk.set_price(SYMBOL, "140.5")
        assert desk.find(SYMBOL, order["orderId"])["isWorking"] is False
        desk.set_price(SYMBOL, "139")
        found = desk.find(SYMBOL, order["orderId"])
        assert (found["status"], found["cummulativeQuoteQty"]) == ("FILLED", "138.99900000")
        assert desk.side(SYMBOL, "USDT")[2:] == ("0", "0")

    def test_a_stop_loss_that_falls_through_its_limit(self, desk: Desk) -> None:
        """A stop loss with a limit that the price has passed rests at its limit."""
        desk.open(SYMBOL, base_free="1")
        order = desk.order(**SELL, type="STOP_LOSS_LIMIT", quantity=1, stopPrice=140, price=138)
        desk.set_price(SYMBOL, "130")
        found = desk.find(SYMBOL, order["orderId"])
        assert (found["status"], found["isWorking"]) == ("NEW", True)

    def test_a_stop_that_cannot_be_paid_expires(self, desk: Desk) -> None:
        """A stop that buys without a limit expires where the money is short once it is triggered."""
        order = desk.order(**BUY, type="STOP_LOSS", quantity="0.6", stopPrice=160)
        desk.set_price(SYMBOL, "200")
        assert desk.find(SYMBOL, order["orderId"])["status"] == "EXPIRED"
        assert desk.side(SYMBOL, "USDT") == ("100", "0", "0", "0")

    def test_answers_of_three_sizes(self, desk: Desk) -> None:
        """ACK, RESULT and FULL answer more and more."""
        rows = [
            desk.order(**LIMIT, quantity="0.1", price=151, newOrderRespType=kind)
            for kind in ("ACK", "RESULT", "FULL")
        ]
        assert ["status" in row for row in rows] == [False, True, True]
        assert ["fills" in row for row in rows] == [False, False, True]
        assert all(row["isIsolated"] is True for row in rows)

    def test_orders_and_trades_are_listed(self, desk: Desk) -> None:
        """All orders and their executions are listed, oldest first, and by their ids."""
        first, second = (desk.order(**LIMIT, quantity=q, price=151)["orderId"] for q in ("0.1", "0.2"))
        params = {"symbol": SYMBOL, "isIsolated": "TRUE"}
        assert [o["orderId"] for o in desk.ask("GET", f"{MARGIN}/allOrders", **params)] == [first, second]
        assert [t["qty"] for t in desk.ask("GET", f"{MARGIN}/myTrades", **params)] == [
            "0.10000000",
            "0.20000000",
        ]
        (trade,) = desk.ask("GET", f"{MARGIN}/myTrades", **params, orderId=second)
        assert (trade["isIsolated"], trade["commissionAsset"]) == (True, "SOL")


class TestNames:
    """Client order ids."""

    def test_found_by_its_name(self, desk: Desk) -> None:
        """An order is found and cancelled by the name that its client gave it."""
        desk.order(**LIMIT, quantity="0.1", price=140, newClientOrderId="mine")
        params = {"symbol": SYMBOL, "isIsolated": "TRUE", "origClientOrderId": "mine"}
        assert desk.ask("GET", f"{MARGIN}/order", **params)["status"] == "NEW"
        assert desk.ask("DELETE", f"{MARGIN}/order", **params)["origClientOrderId"] == "mine"

    def test_unique_among_open_orders(self, desk: Desk) -> None:
        """A name is refused while an order with it is open, and may come again; the newest is found."""
        named = {"quantity": "0.1", "price": 140, "newClientOrderId": "mine"}
        first = desk.order(**LIMIT, **named)["orderId"]
        assert desk.order(**LIMIT, **named) == -2010
        desk.cancel(SYMBOL, first)
        second = desk.order(**LIMIT, **named)["orderId"]
        params = {"symbol": SYMBOL, "isIsolated": "TRUE", "origClientOrderId": "mine"}
        assert desk.ask("GET", f"{MARGIN}/order", **params)["orderId"] == second != first

    @pytest.mark.parametrize("name", ["x" * 37, "a b", "ä"])
    def test_what_a_name_may_be(self, desk: Desk, name: str) -> None:
        """A name has at most 36 plain characters."""
        assert desk.order(**LIMIT, quantity="0.1", price=140, newClientOrderId=name) == -1100


def _disabled(desk: Desk) -> None:
    desk.open(SYMBOL, quote_free="100", enabled=False)


def _not_to_trade(desk: Desk) -> None:
    desk.open(SYMBOL, quote_free="100", trade_enabled=False)


def _gone(desk: Desk) -> None:
    with desk.state.changed:
        desk.state.remove_account(SYMBOL)


def _banned(desk: Desk) -> None:
    desk.state.loans.banned.add("USDT")


def _nothing_to_lend(desk: Desk) -> None:
    desk.state.loans.lendable["USDT"] = Decimal(179)


def _about_to_be_liquidated(desk: Desk) -> None:
    desk.state.account(SYMBOL).forced_at = 0.0


class TestRefusals:
    """Each refusal has its code and changes nothing."""

    ORDER = {**LIMIT, "quantity": 2, "price": 140, **BORROWING}  # noqa: RUF012 - nobody changes it

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"isIsolated": "FALSE"}, -3003),
            ({"symbol": "NOPEUSDT"}, -1121),
            ({"symbol": "DOGEUSDT"}, -11001),
            ({"quantity": "3.6"}, -11008),
            ({"sideEffectType": "NO_SIDE_EFFECT"}, -2010),
            ({"sideEffectType": "MAYBE"}, -1102),
            ({"newOrderRespType": "ALL"}, -1102),
            ({"quantity": "0.000001"}, -1013),
            ({"price": "140.0001"}, -1013),
            ({"quantity": "0.01"}, -1013),
            ({"type": "LIMIT_MAKER", "price": "160"}, -2010),
            ({"type": "STOP_LOSS_LIMIT", "stopPrice": "140"}, -2010),
            ({"type": "STOP_LOSS_LIMIT"}, -1102),
            ({"type": "OCO"}, -1116),
            ({"side": "HOLD"}, -1117),
            ({"timeInForce": "DAY"}, -1115),
        ],
    )
    def test_what_is_asked_for(self, desk: Desk, changes: dict[str, str], code: int) -> None:
        """An order that asks for what cannot be is refused."""
        assert desk.order(**{**self.ORDER, **changes}) == code
        assert list(desk.state.margin_book.orders()) == []
        assert desk.side(SYMBOL, "USDT") == ("100", "0", "0", "0")

    @pytest.mark.parametrize(
        ("state", "code"),
        [
            (_disabled, -11001),
            (_not_to_trade, -3021),
            (_gone, -11001),
            (_banned, -3012),
            (_nothing_to_lend, -3045),
            (_about_to_be_liquidated, -3023),
        ],
    )
    def test_the_state_of_things(self, desk: Desk, state: Any, code: int) -> None:
        """An order is refused where the account or the lender is not in a state for it."""
        state(desk)
        before = desk.state.net_assets()
        assert desk.order(**self.ORDER) == code
        assert desk.state.net_assets() == before
        assert desk.state.loans.records == []

    def test_more_than_the_tiers_lend(self, desk: Desk) -> None:
        """However rich the account: more than the last tier's loan is refused with another code."""
        desk.open(SYMBOL, quote_free="9000000")
        assert desk.loan("BORROW", SYMBOL, "USDT", 500001) == -3006

    def test_unknown_orders(self, desk: Desk) -> None:
        """Asking for or cancelling what is not there has its codes; an ended order cannot be cancelled."""
        assert desk.find(SYMBOL, 1) == -2013
        assert desk.cancel(SYMBOL, 1) == -2011
        done = desk.order(**BUY, type="MARKET", quantity="0.1")["orderId"]
        assert desk.cancel(SYMBOL, done) == -2011
