"""What can be read of isolated margin."""

from .amounts import plain
from .errors import BinanceError, mandatory
from .markets import Market, Tier
from .protocol import Parameters, Security
from .routes import Call, page, route, within

_MAX_SYMBOLS = 5
ACCOUNT_PATH = "/sapi/v1/margin/isolated/account"


@route("GET", ACCOUNT_PATH, 10)
def isolated_account(call: Call) -> object:
    """Return the accounts that `symbols` names, or all that exist, with totals."""
    state = call.state
    if "symbols" not in call.params:
        return {"assets": [state.account_row(symbol) for symbol in state.accounts], **state.totals()}
    return {"assets": [state.account_row(symbol) for symbol in _symbols(call.params)]}


def _symbols(params: Parameters) -> list[str]:
    # Assumed: the code for too many or empty symbols, and that a symbol that comes twice is answered once.
    symbols = list(dict.fromkeys(params.text("symbols").split(",")))
    if len(symbols) > _MAX_SYMBOLS:
        raise mandatory("symbols")
    return symbols


@route("GET", "/sapi/v1/margin/isolatedMarginTier", 1)
def margin_tier(call: Call) -> object:
    """List the margin tiers of a market."""
    market, number = call.state.market(call.params.text("symbol")), call.params.integer("tier")
    return [_tier_row(market, tier) for tier in market.tiers if number in {None, tier.number}]


def _tier_row(market: Market, tier: Tier) -> dict[str, object]:
    return {
        "symbol": market.symbol,
        "tier": tier.number,
        "effectiveMultiple": plain(tier.multiple),
        "initialRiskRatio": plain(tier.initial),
        "liquidationRiskRatio": plain(tier.liquidation),
        "baseAssetMaxBorrowable": plain(tier.base_limit),
        "quoteAssetMaxBorrowable": plain(tier.quote_limit),
    }


def _data_weight(params: Parameters) -> int:
    return 1 if "symbol" in params else 10


@route("GET", "/sapi/v1/margin/isolatedMarginData", _data_weight)
def margin_data(call: Call) -> object:
    """Leverage, interest and loan limits of one market or of all."""
    symbols = [call.symbol()] if "symbol" in call.params else list(call.state.markets)
    return [_data_row(call.state.markets[symbol]) for symbol in symbols]


def _data_row(market: Market) -> dict[str, object]:
    last = market.tiers[-1]
    limits = {market.base: last.base_limit, market.quote: last.quote_limit}
    return {
        "vipLevel": 0,
        "symbol": market.symbol,
        "leverage": str(market.spec.max_leverage),
        "data": [
            {"coin": coin, "dailyInterest": str(market.spec.daily_interest), "borrowLimit": plain(limit)}
            for coin, limit in limits.items()
        ],
    }


@route("GET", "/sapi/v1/margin/isolated/accountLimit", 1)
def account_limit(call: Call) -> object:
    """How many accounts there are, and may be."""
    enabled = sum(account.enabled for account in call.state.accounts.values())
    return {"enabledAccount": enabled, "maxAccount": call.state.max_accounts}


@route("GET", "/sapi/v1/margin/isolated/allPairs", 10, Security.MARKET_DATA)
def isolated_pairs(call: Call) -> object:
    """Markets with isolated margin."""
    return [_pair_row(market) for market in call.state.markets.values() if market.spec.isolated]


@route("GET", "/sapi/v1/margin/allPairs", 1, Security.MARKET_DATA)
def cross_pairs(call: Call) -> object:
    """Markets with cross margin: assumed to be the same."""
    return [
        {"id": number, **_pair_row(market)}
        for number, market in enumerate(call.state.markets.values(), 1)
        if market.spec.isolated
    ]


def _pair_row(market: Market) -> dict[str, object]:
    return {
        "symbol": market.symbol,
        "base": market.base,
        "quote": market.quote,
        "isMarginTrade": True,
        "isBuyAllowed": True,
        "isSellAllowed": True,
    }


@route("GET", "/sapi/v1/margin/priceIndex", 10, Security.MARKET_DATA)
def price_index(call: Call) -> object:
    """Index price of a market."""
    symbol = call.symbol()
    price = plain(call.state.price(symbol))
    return {"calcTime": call.state.told_ms(), "price": price, "symbol": symbol}


@route("GET", "/sapi/v1/margin/isolated/pair", 10, Security.MARKET_DATA)
def isolated_pair(call: Call) -> object:
    """Answer with one market, if it has isolated margin."""
    market = call.state.market(call.params.text("symbol"))
    if not market.spec.isolated:
        raise BinanceError(-1121)
    return _pair_row(market)


@route("GET", "/sapi/v1/margin/forceLiquidationRec", 1)
def liquidations(call: Call) -> object:
    """Forced liquidations, newest first."""
    symbol = call.params.get("isolatedSymbol")
    return page(
        call,
        [
            record.row()
            for record in reversed(call.state.liquidations)
            if symbol in {None, "", record.symbol} and within(call, record.time)
        ],
    )


@route("GET", "/sapi/v1/account/apiRestrictions", 1)
def api_restrictions(call: Call) -> object:
    """Tell what the key may do."""
    key = call.key
    return {} if key is None else {**key.restrictions(), "createTime": round(call.state.born * 1000)}
