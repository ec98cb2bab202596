"""Asking the local exchange without a wire: what a handler answers, in this thread and at once."""

from decimal import Decimal
from typing import Any

from freqtrade_isolated_margin.localexchange import DEFAULT_MARKETS, AccountSpec, Scenario
from freqtrade_isolated_margin.localexchange.errors import BinanceError
from freqtrade_isolated_margin.localexchange.keys import ApiKey
from freqtrade_isolated_margin.localexchange.protocol import Parameters
from freqtrade_isolated_margin.localexchange.routes import ROUTES, Call
from freqtrade_isolated_margin.localexchange.state import State

MARGIN = "/sapi/v1/margin"
TRANSFER = "/sapi/v1/asset/transfer"
SATOSHI = Decimal("0.00000001")
MONEY = Scenario("money", "nothing but money", balances={"USDT": "10000", "SOL": "20", "BTC": "0.1"})


class Desk:
    """One exchange with no account, at which nothing happens unless it is asked for."""

    def __init__(self, fee: str = "0.001", liquidation_fee: str = "0") -> None:
        self.state = State(DEFAULT_MARKETS, MONEY, speed=1.0, fee=Decimal(fee))
        self.state.liquidation_grace = 0.0
        self.state.liquidation_fee = Decimal(liquidation_fee)
        self.opening = self.state.net_assets()
        self.key = ApiKey(permissions={"permitsUniversalTransfer": True})

    def open(self, symbol: str, **contents: Any) -> None:
        """Set the contents of an account; the books begin anew."""
        with self.state.changed:
            self.state.set_account(self.state.market(symbol), AccountSpec(**contents))
        self.opening = self.state.net_assets()

    def ask(self, method: str, path: str, **params: object) -> Any:
        """Ask, and return the answer, or the code of the refusal."""
        sent = Parameters({name: str(value) for name, value in params.items()})
        with self.state.changed:
            try:
                return ROUTES[(method, path)].handler(Call(self.state, sent, self.key, method))
            except BinanceError as error:
                return error.code

    def order(self, **params: object) -> Any:
        """Place an order; a limit order is good till it is cancelled."""
        patience = {} if params.get("type") in {"MARKET", "STOP_LOSS"} else {"timeInForce": "GTC"}
        return self.ask("POST", f"{MARGIN}/order", **{"isIsolated": "TRUE", **patience, **params})

    def cancel(self, symbol: str, order_id: int) -> Any:
        """Cancel an order."""
        return self.ask("DELETE", f"{MARGIN}/order", symbol=symbol, isIsolated="TRUE", orderId=order_id)

    def find(self, symbol: str, order_id: int) -> Any:
        """Ask for an order."""
        return self.ask("GET", f"{MARGIN}/order", symbol=symbol, isIsolated="TRUE", orderId=order_id)

    def loan(self, kind: str, symbol: str, asset: str, amount: object) -> Any:
        """Borrow or repay by hand."""
        params = {"asset": asset, "symbol": symbol, "amount": amount, "type": kind}
        return self.ask("POST", f"{MARGIN}/borrow-repay", isIsolated="TRUE", **params)

    def move_in(self, symbol: str, asset: str, amount: object) -> Any:
        """Move from the wallet into an account."""
        kind = {"type": "MAIN_ISOLATED_MARGIN", "toSymbol": symbol}
        return self.ask("POST", TRANSFER, asset=asset, amount=amount, **kind)

    def move_out(self, symbol: str, asset: str, amount: object) -> Any:
        """Move from an account into the wallet."""
        kind = {"type": "ISOLATED_MARGIN_MAIN", "fromSymbol": symbol}
        return self.ask("POST", TRANSFER, asset=asset, amount=amount, **kind)

    def side(self, symbol: str, asset: str) -> tuple[str, str, str, str]:
        """Return what is free, locked, borrowed and owed in interest, as the account endpoint tells it."""
        row: Any = self.state.account_row(symbol)
        side = next(row[name] for name in ("baseAsset", "quoteAsset") if row[name]["asset"] == asset)
        return side["free"], side["locked"], side["borrowed"], side["interest"]

    def set_price(self, symbol: str, price: str) -> None:
        """Hold a market at a price."""
        with self.state.changed:
            self.state.set_price(symbol, Decimal(price))

    def balanced(self) -> None:
        """Compare what is there with what was there at first and has been traded, paid and charged since."""
        explained = self.state.explained()
        expected = {
            asset: self.opening.get(asset, Decimal(0)) + explained.get(asset, Decimal(0))
            for asset in {*self.opening, *explained}
        }
        present = self.state.net_assets()
        assert {a: v for a, v in present.items() if v} == {a: v for a, v in expected.items() if v}

    def true(self) -> None:
        """What is on record is what price and rate make of it, to a satoshi, and each loan cost its hour."""
        for record in self.state.liquidations:
            settlement = record.settlement
            assert abs(settlement.worth - settlement.quantity * record.price) < SATOSHI
            assert 0 <= settlement.fee <= settlement.worth * self.state.liquidation_fee + SATOSHI
        charges, records = self.state.loans.charges, self.state.loans.records
        for charge in charges:
            assert abs(charge.interest - charge.principal * charge.daily_rate / 24) <= SATOSHI / 2
        at_once = [charge.principal for charge in charges if charge.kind == "ON_BORROW"]
        assert at_once == [record.principal for record in records if record.kind == "BORROW"]

    def sound(self) -> None:
        """Nothing is negative, nothing is finer than a satoshi, and only open orders lock anything."""
        locked: dict[tuple[str, str], Decimal] = {}
        for order in self.state.margin_book.open_orders():
            place = order.symbol, order.paid_asset
            locked[place] = locked.get(place, Decimal(0)) + order.resting_lock
        for symbol, account in self.state.accounts.items():
            for asset, holding in account.holdings():
                for value in (holding.free, holding.locked, holding.borrowed, holding.interest):
                    assert value >= 0
                    assert value % SATOSHI == 0
                assert holding.locked == locked.get((symbol, asset), Decimal(0))
        for balance in self.state.book.wallet.values():
            assert balance.free >= 0
            assert balance.locked >= 0
