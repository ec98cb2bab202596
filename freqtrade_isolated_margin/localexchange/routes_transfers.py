"""Moving collateral, enabling and disabling accounts, and paying in BNB."""

from .errors import BinanceError
from .order_requests import one_of
from .protocol import Security
from .routes import Call, page, route, within
from .routes_loans import sent_amount
from .routes_margin import ACCOUNT_PATH
from .transfers import FROM_ISOLATED, TO_ISOLATED

_KINDS = (TO_ISOLATED, FROM_ISOLATED)


@route("POST", "/sapi/v1/asset/transfer", 900, by_uid=True)
def transfer(call: Call) -> object:
    """Move between the wallet and an account; the first move into a pair makes its account.

    Assumed: the code for a key that may not transfer, and that a disabled account is enabled by it.
    """
    params, state = call.params, call.state
    if call.key is not None and not call.key.may("permitsUniversalTransfer"):
        raise BinanceError(-1002)
    amount, asset = sent_amount(call), params.text("asset")
    now = state.told_ms()
    if one_of(params.text("type"), _KINDS, -1102) == FROM_ISOLATED:
        account = state.usable_account(state.market(params.text("fromSymbol")).symbol)
        return {"tranId": state.transfers.move_out(account, asset, amount, now).number}
    symbol = state.market(params.text("toSymbol")).symbol
    state.transfers.check_in(state.account(symbol), asset, amount)
    return {"tranId": state.transfers.move_in(state.open_account(symbol), asset, amount, now).number}


@route("GET", "/sapi/v1/asset/transfer", 1)
def transfers(call: Call) -> object:
    """List the transfers of a type, newest first.

    Assumed: the symbols narrow it down where they are sent, and a key that may only read may ask.
    """
    params = call.params
    kind = one_of(params.text("type"), _KINDS, -1102)
    symbol = params.get("fromSymbol") or params.get("toSymbol")
    return page(
        call,
        [
            record.row()
            for record in reversed(call.state.transfers.records)
            if record.kind == kind and symbol in {None, "", record.symbol} and within(call, record.time)
        ],
    )


@route("POST", ACCOUNT_PATH, 300, Security.TRADE, by_uid=True)
def enable_account(call: Call) -> object:
    """Enable an account that was disabled. One that never was is made by a transfer into it."""
    symbol = call.symbol()
    if not call.state.account(symbol).created:
        raise BinanceError(-11001)
    call.state.open_account(symbol)
    return {"success": True, "symbol": symbol}


@route("DELETE", ACCOUNT_PATH, 300, Security.TRADE, by_uid=True)
def disable_account(call: Call) -> object:
    """Disable an account. Assumed: it must be empty, and the limit of once a day is not kept."""
    account = call.state.usable_account(call.symbol())
    if not account.empty:
        raise BinanceError(-11004)
    account.enabled = False
    return {"success": True, "symbol": account.market.symbol}


@route("GET", "/sapi/v1/bnbBurn", 1)
def burn_status(call: Call) -> object:
    """Tell whether fees and interest are paid in BNB.

    The setting is kept and told and has no effect: here fees come out of what is received, interest is owed
    in the asset that was borrowed.
    """
    return dict(call.state.burns)


@route("POST", "/sapi/v1/bnbBurn", 1)
def set_burn(call: Call) -> object:
    """Change whether fees and interest are paid in BNB; see `burn_status`."""
    for name in call.state.burns:
        if name in call.params:
            value = one_of(call.params.text(name).lower(), ("true", "false"), -1102)
            call.state.burns[name] = value == "true"
    return dict(call.state.burns)
