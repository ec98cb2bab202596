"""Loans, interest, transfers, accounts and forced liquidations of the local exchange."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.desk import MARGIN, SATOSHI, TRANSFER, Desk

SYMBOL = "SOLUSDT"
ACCOUNT = f"{MARGIN}/isolated/account"
amounts = st.decimals("0", "100000", places=4)


@pytest.fixture
def desk() -> Desk:
    """A desk with 100 USDT in the account of SOL, which stands at 150, and 10000 in the wallet."""
    desk = Desk()
    desk.open(SYMBOL, quote_free="100")
    return desk


class TestLoans:
    """Borrowing and repaying by hand."""

    def test_interest_first(self, desk: Desk) -> None:
        """A payment goes to the interest before it goes to the loan."""
        desk.loan("BORROW", SYMBOL, "USDT", 200)
        desk.loan("REPAY", SYMBOL, "USDT", 50)
        assert desk.side(SYMBOL, "USDT") == ("250", "0", "150.002", "0")
        (row,) = desk.ask("GET", f"{MARGIN}/borrow-repay", type="REPAY")["rows"]
        assert (row["principal"], row["interest"], row["type"]) == ("49.998", "0.002", "MANUAL")

    def test_what_orders_do_is_on_record(self, desk: Desk) -> None:
        """Loans of orders are listed as automatic."""
        order = {"symbol": SYMBOL, "side": "BUY", "type": "MARKET", "quantity": 1}
        desk.order(**order, sideEffectType="MARGIN_BUY")
        (row,) = desk.ask("GET", f"{MARGIN}/borrow-repay", type="BORROW", isolatedSymbol=SYMBOL)["rows"]
        assert (row["type"], row["amount"], row["status"]) == ("AUTO", "50.001", "CONFIRMED")

    @pytest.mark.parametrize(
        ("kind", "asset", "amount", "code"),
        [
            ("BORROW", "USDT", "400.00000001", -11008),
            ("BORROW", "BTC", "1", -3027),
            ("BORROW", "USDT", "0", -1102),
            ("BORROW", "USDT", "0.000000001", -1102),
            ("REPAY", "USDT", "1", -3015),
            ("LEND", "USDT", "1", -1102),
        ],
    )
    def test_refusals(self, desk: Desk, kind: str, asset: str, amount: str, code: int) -> None:
        """What may not be borrowed or repaid is refused with its code."""
        assert desk.loan(kind, SYMBOL, asset, amount) == code

    def test_repaying_what_is_not_there(self, desk: Desk) -> None:
        """A debt cannot be paid from nothing."""
        desk.open(SYMBOL, quote_free="100", base_borrowed="0.1")
        assert desk.loan("REPAY", SYMBOL, "SOL", "0.1") == -3041

    def test_less_than_the_minimum(self, desk: Desk) -> None:
        """A loan below the asset's minimum is refused."""
        desk.state.loans.minimum["USDT"] = Decimal(10)
        assert desk.loan("BORROW", SYMBOL, "USDT", "9.99") == -3013

    def test_what_is_repaid_can_be_lent_again(self, desk: Desk) -> None:
        """The lender has what it has not lent."""
        desk.state.loans.lendable["USDT"] = Decimal(100)
        desk.loan("BORROW", SYMBOL, "USDT", 100)
        assert desk.loan("BORROW", SYMBOL, "USDT", 1) == -3045
        desk.loan("REPAY", SYMBOL, "USDT", "50.001")
        assert isinstance(desk.loan("BORROW", SYMBOL, "USDT", 50), dict)

    def test_every_hour_on_the_principal(self, desk: Desk) -> None:
        """Interest is simple: each hour costs the same."""
        desk.loan("BORROW", SYMBOL, "USDT", 200)
        desk.state.advance(3 * 3600)
        assert desk.side(SYMBOL, "USDT")[3] == "0.008"
        rows = desk.ask("GET", f"{MARGIN}/interestHistory", isolatedSymbol=SYMBOL, asset="USDT")["rows"]
        assert [row["type"] for row in rows] == ["PERIODIC"] * 3 + ["ON_BORROW"]
        assert {row["interest"] for row in rows} == {"0.002"}

    def test_whoever_begins_anew_is_charged_anew(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        """What a leap of the clock has charged before is not taken off the hours that come."""
        ahead = desk.state.now() + 500 * 3600
        with monkeypatch.context() as patch:
            patch.setattr(desk.state, "now", lambda: ahead)
            desk.state.tick()
        desk.state._fill_scenario()
        desk.open(SYMBOL, base_free="30", quote_borrowed="200")
        desk.state.advance(3 * 3600)
        assert desk.side(SYMBOL, "USDT")[3] == "0.006"

    def test_rates(self, desk: Desk) -> None:
        """Daily rates are listed for thirty days at most."""
        path, day = f"{MARGIN}/interestRateHistory", 86_400_000
        now = desk.state.told_ms()
        assert len(desk.ask("GET", path, asset="USDT", startTime=now - 3 * day)) == 3
        assert desk.ask("GET", path, asset="USDT", startTime=now - 31 * day) == -3011
        assert desk.ask("GET", path, asset="NOPE") == -3027

    @given(
        base=st.tuples(amounts, amounts),
        quote=st.tuples(amounts, amounts),
        price=st.sampled_from(["90", "150", "151.234"]),
        asset=st.sampled_from(["SOL", "USDT"]),
    )
    def test_the_most_is_what_the_tier_allows(
        self, base: tuple[Decimal, Decimal], quote: tuple[Decimal, Decimal], price: str, asset: str
    ) -> None:
        """After the largest loan the level keeps the tier's initial ratio; a satoshi more is refused."""
        desk = Desk()
        desk.state.prices.set(SYMBOL, Decimal(price), 0.0)
        contents = {"base_free": base[0], "base_borrowed": base[1] / 100}
        desk.open(SYMBOL, **contents, quote_free=quote[0], quote_borrowed=quote[1] / 10)
        account = desk.state.account(SYMBOL)
        asked = {"asset": asset, "isolatedSymbol": SYMBOL}
        most = Decimal(desk.ask("GET", f"{MARGIN}/maxBorrowable", **asked)["amount"])
        refused = desk.loan("BORROW", SYMBOL, asset, f"{most + SATOSHI:f}")
        assert refused in {-11008, -3006}
        if most:
            assert isinstance(desk.loan("BORROW", SYMBOL, asset, f"{most:f}"), dict)
            owed = account.base.borrowed * Decimal(price) + account.quote.borrowed
            debts = owed + account.holding("SOL").interest * Decimal(price) + account.quote.interest
            interest = debts - owed
            assets = account.base.total * Decimal(price) + account.quote.total
            assert assets / (debts - interest) >= account.tier.initial - Decimal("0.0000001")


class TestTransfers:
    """Collateral in and out."""

    def test_in_and_out(self, desk: Desk) -> None:
        """What is moved is in one place or the other, and on record."""
        moved = desk.move_in(SYMBOL, "USDT", 40)
        assert desk.side(SYMBOL, "USDT")[0] == "140"
        assert desk.state.book.balance("USDT").free == 9960
        desk.move_out(SYMBOL, "USDT", "140")
        assert desk.state.book.balance("USDT").free == 10100
        answer = desk.ask("GET", TRANSFER, type="MAIN_ISOLATED_MARGIN", toSymbol=SYMBOL)
        assert [(row["tranId"], row["amount"]) for row in answer["rows"]] == [(moved["tranId"], "40")]

    def test_the_first_one_makes_the_account(self, desk: Desk) -> None:
        """A transfer into a pair without an account makes it."""
        desk.move_in("BTCUSDT", "USDT", 40)
        row: Any = desk.state.account_row("BTCUSDT")
        assert (row["isolatedCreated"], row["enabled"], row["quoteAsset"]["free"]) == (True, True, "40")

    def test_no_more_accounts_than_may_be(self, desk: Desk) -> None:
        """At the limit no account is made, and nothing is moved."""
        desk.state.max_accounts = 1
        assert desk.move_in("BTCUSDT", "USDT", 40) == -11003
        assert desk.state.book.balance("USDT").free == 10000

    @pytest.mark.parametrize(
        ("symbol", "asset", "amount", "code"),
        [
            (SYMBOL, "USDT", "10000.01", -5013),
            (SYMBOL, "BTC", "0.01", -3027),
            ("BTCUSDT", "USDT", "10000.01", -5013),
            ("NOPEUSDT", "USDT", "1", -1121),
            (SYMBOL, "USDT", "-1", -1100),
        ],
    )
    def test_refused_in(self, desk: Desk, symbol: str, asset: str, amount: str, code: int) -> None:
        """What cannot be moved in is refused with its code, and makes no account."""
        assert desk.move_in(symbol, asset, amount) == code
        assert list(desk.state.accounts) == [SYMBOL]

    def test_not_without_the_permission(self, desk: Desk) -> None:
        """A key that does not permit universal transfers moves nothing."""
        desk.key = type(desk.key)()
        assert desk.move_in(SYMBOL, "USDT", 1) == -1002
        assert desk.move_out(SYMBOL, "USDT", 1) == -1002

    def test_collateral_that_is_needed_stays(self, desk: Desk) -> None:
        """While something is owed only what exceeds a multiple of the debt can leave."""
        desk.open(SYMBOL, quote_free="300", base_free="1", quote_borrowed="100")
        asked = {"asset": "USDT", "isolatedSymbol": SYMBOL}
        assert desk.ask("GET", f"{MARGIN}/maxTransferable", **asked) == {"amount": "225"}
        assert desk.move_out(SYMBOL, "USDT", "225.00000001") == -3020
        assert isinstance(desk.move_out(SYMBOL, "USDT", "225"), dict)

    def test_locked_collateral_stays(self, desk: Desk) -> None:
        """What an open order has locked cannot leave."""
        desk.order(symbol=SYMBOL, side="BUY", type="LIMIT", quantity="0.5", price=140)
        assert desk.move_out(SYMBOL, "USDT", "30.01") == -3020


class TestAccounts:
    """Enabling and disabling accounts."""

    def test_only_an_empty_one_is_disabled(self, desk: Desk) -> None:
        """An account with something in it cannot be disabled, an empty one can, and is enabled again."""
        assert desk.ask("DELETE", ACCOUNT, symbol=SYMBOL) == -11004
        desk.move_out(SYMBOL, "USDT", 100)
        assert desk.ask("DELETE", ACCOUNT, symbol=SYMBOL) == {"success": True, "symbol": SYMBOL}
        assert desk.ask("GET", f"{MARGIN}/isolated/accountLimit") == {"enabledAccount": 0, "maxAccount": 20}
        assert desk.ask("POST", ACCOUNT, symbol=SYMBOL)["success"] is True
        assert desk.state.account(SYMBOL).enabled

    def test_one_that_never_was(self, desk: Desk) -> None:
        """An account that was never made cannot be enabled."""
        assert desk.ask("POST", ACCOUNT, symbol="BTCUSDT") == -11001

    def test_bnb(self, desk: Desk) -> None:
        """Whether BNB pays is kept and told."""
        assert desk.ask("POST", "/sapi/v1/bnbBurn", interestBNBBurn="true")["interestBNBBurn"] is True
        assert desk.ask("GET", "/sapi/v1/bnbBurn") == {"spotBNBBurn": False, "interestBNBBurn": True}

    def test_one_pair_and_all_assets(self, desk: Desk) -> None:
        """A pair and the assets are told with what may be done with them."""
        pair = desk.ask("GET", f"{MARGIN}/isolated/pair", symbol=SYMBOL)
        assert (pair["base"], pair["isBuyAllowed"]) == ("SOL", True)
        desk.state.loans.banned.add("SOL")
        rows = {row["assetName"]: row for row in desk.ask("GET", f"{MARGIN}/allAssets")}
        assert (rows["SOL"]["isBorrowable"], rows["USDT"]["userMinBorrow"]) == (False, "0.00000001")


class TestLiquidation:
    """What a forced liquidation does with orders and fees."""

    def test_open_orders_are_cancelled_first(self) -> None:
        """Open orders end, and what they locked is used for the debt."""
        desk = Desk()
        desk.open(SYMBOL, base_free="10", quote_borrowed="1000")
        order = desk.order(symbol=SYMBOL, side="SELL", type="LIMIT", quantity=10, price=200)
        desk.set_price(SYMBOL, "110")
        assert desk.find(SYMBOL, order["orderId"])["status"] == "CANCELED"
        assert desk.side(SYMBOL, "USDT")[2:] == ("0", "0")
        assert desk.side(SYMBOL, "SOL")[0] == "0.9090909"
        desk.balanced()

    def test_the_fee_is_taken_from_what_is_left(self) -> None:
        """A fee makes the remainder smaller, and is in the books."""
        desk = Desk(liquidation_fee="0.02")
        desk.open(SYMBOL, base_free="10", quote_borrowed="1000")
        desk.set_price(SYMBOL, "110")
        (record,) = desk.state.liquidations
        assert record.settlement.fee == pytest.approx(Decimal("20.408"), abs=Decimal("0.001"))
        assert desk.side(SYMBOL, "SOL")[0] == "0.72356215"
        desk.balanced()

    def test_the_lender_loses_what_is_missing(self) -> None:
        """Where the assets are worth less than the debt nothing is left and nothing is owed."""
        desk = Desk(liquidation_fee="0.02")
        desk.open(SYMBOL, base_free="10", quote_borrowed="1000")
        desk.set_price(SYMBOL, "50")
        assert desk.side(SYMBOL, "USDT") == desk.side(SYMBOL, "SOL") == ("0", "0", "0", "0")
        assert desk.state.liquidations[0].settlement.quote_loss == 500
        desk.balanced()
