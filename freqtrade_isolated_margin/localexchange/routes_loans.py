"""Borrowing and repaying by hand, what may be borrowed, and interest."""

from decimal import Decimal

from .amounts import SATOSHI, plain
from .errors import BinanceError, mandatory
from .ledger import IsolatedAccount
from .order_requests import one_of
from .protocol import Security
from .routes import Call, page, route, within
from .routes_margin_orders import isolated_only

_DAY_MS = 86_400_000
_RATE_DAYS = 30


def sent_amount(call: Call) -> Decimal:
    """Return the mandatory amount. Assumed: more than eight decimals are refused."""
    amount = call.params.decimal("amount")
    if not amount or amount % SATOSHI:
        raise mandatory("amount")
    return amount


def _isolated_account(call: Call) -> IsolatedAccount:
    """Return the account that `isolatedSymbol` names. Without it the cross account is meant."""
    symbol = call.params.get("isolatedSymbol")
    if not symbol:
        raise BinanceError(-3003)
    return call.state.usable_account(symbol)


@route("POST", "/sapi/v1/margin/borrow-repay", 1500, Security.MARGIN, by_uid=True)
def borrow_repay(call: Call) -> object:
    """Borrow, or repay from what is free in the account."""
    params, loans = call.params, call.state.loans
    isolated_only(params)
    kind = one_of(params.text("type"), ("BORROW", "REPAY"), -1102)
    account, asset = call.state.usable_account(params.text("symbol")), params.text("asset")
    act = loans.borrow if kind == "BORROW" else loans.repay
    record = act(account, asset, sent_amount(call))
    return {"tranId": record.number, "clientTag": ""}


@route("GET", "/sapi/v1/margin/borrow-repay", 10)
def loan_records(call: Call) -> object:
    """List loans or payments, newest first."""
    params, number = call.params, call.params.integer("txId")
    kind = one_of(params.text("type"), ("BORROW", "REPAY"), -1102)
    symbol, asset = params.get("isolatedSymbol"), params.get("asset")
    return page(
        call,
        [
            record.row()
            for record in reversed(call.state.loans.records)
            if record.kind == kind
            and symbol in {None, "", record.symbol}
            and asset in {None, "", record.asset}
            and number in {None, record.number}
            and within(call, record.time)
        ],
    )


@route("GET", "/sapi/v1/margin/maxBorrowable", 50)
def max_borrowable(call: Call) -> object:
    """How much more the account may borrow of an asset, and what its tiers lend in all."""
    account, asset = _isolated_account(call), call.params.text("asset")
    most, lent = call.state.loans.borrowable(account, asset)
    limit = lent + account.holding(asset).borrowed
    return {"amount": plain(most), "borrowLimit": plain(limit)}


@route("GET", "/sapi/v1/margin/maxTransferable", 50)
def max_transferable(call: Call) -> object:
    """How much of an asset may be moved out of the account."""
    account, asset = _isolated_account(call), call.params.text("asset")
    return {"amount": plain(call.state.transfers.transferable(account, asset))}


@route("GET", "/sapi/v1/margin/interestHistory", 1)
def interest_history(call: Call) -> object:
    """Interest that was charged, newest first."""
    symbol, asset = call.params.get("isolatedSymbol"), call.params.get("asset")
    return page(
        call,
        [
            charge.row()
            for charge in reversed(call.state.loans.charges)
            if symbol in {None, "", charge.symbol}
            and asset in {None, "", charge.asset}
            and within(call, charge.time)
        ],
    )


@route("GET", "/sapi/v1/margin/interestRateHistory", 1)
def rate_history(call: Call) -> object:
    """List the daily rate of an asset on each day of at most 30, newest first. It never changes."""
    params, now = call.params, call.state.told_ms()
    rate = _daily_rate(call, params.text("asset"))
    end = min(params.integer("endTime") or now, now)
    begin = params.integer("startTime")
    first = end - 7 * _DAY_MS if begin is None else begin
    if end - first > _RATE_DAYS * _DAY_MS or first > end:
        raise BinanceError(-3011)
    midnight = end // _DAY_MS * _DAY_MS
    return [
        {"asset": params.text("asset"), "dailyInterestRate": rate, "timestamp": when, "vipLevel": 0}
        for when in range(midnight, first - 1, -_DAY_MS)
    ]


@route("GET", "/sapi/v1/margin/next-hourly-interest-rate", 100)
def next_rates(call: Call) -> object:
    """List the rates of the next hour."""
    assets = dict.fromkeys(call.params.text("assets").split(","))
    return [
        {"asset": asset, "nextHourlyInterestRate": f"{Decimal(_daily_rate(call, asset)) / 24:f}"}
        for asset in assets
    ]


def _daily_rate(call: Call, asset: str) -> str:
    """Return the daily rate of an asset: that of the first market that has it, where they differ."""
    for market in call.state.markets.values():
        if asset in {market.base, market.quote}:
            return str(market.spec.daily_interest)
    raise BinanceError(-3027)


@route("GET", "/sapi/v1/margin/allAssets", 1, Security.MARKET_DATA)
def assets(call: Call) -> object:
    """List the assets, with the least that can be borrowed of each."""
    loans, markets = call.state.loans, call.state.markets.values()
    names = dict.fromkeys(asset for market in markets for asset in (market.base, market.quote))
    return [
        {
            "assetFullName": asset,
            "assetName": asset,
            "isBorrowable": asset not in loans.banned,
            "isMortgageable": True,
            "userMinBorrow": plain(loans.least(asset)),
            "userMinRepay": "0",
        }
        for asset in names
    ]
