"""Market data, which needs neither key nor signature."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import cast

from .amounts import ZERO, fixed
from .errors import BinanceError, illegal
from .markets import Market
from .orders import ORDER_TYPES, Quotation
from .paths import noise
from .protocol import Parameters, Security
from .routes import Call, route
from .state import State

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_INTERVALS = {
    name: float(int(name[:-1]) * _SECONDS[name[-1]])
    for name in ("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d")
}
_DAY = 86400.0
_MAX_CANDLES = 1000


@route("GET", "/api/v3/ping", 1, Security.NONE)
def ping(_: Call) -> object:
    """Answer that the exchange is there."""
    return {}


@route("GET", "/api/v3/time", 1, Security.NONE)
def server_time(call: Call) -> object:
    """Tell the exchange's time."""
    return {"serverTime": call.state.told_ms()}


@route("GET", "/api/v3/exchangeInfo", 20, Security.NONE)
def exchange_info(call: Call) -> object:
    """List the markets with their filters."""
    return {
        "timezone": "UTC",
        "serverTime": call.state.told_ms(),
        "rateLimits": [
            {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000},
            {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 100},
            {"rateLimitType": "ORDERS", "interval": "DAY", "intervalNum": 1, "limit": 200000},
            {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": 61000},
        ],
        "exchangeFilters": [],
        "symbols": [_symbol_row(market) for market in _markets(call)],
    }


@route("GET", "/api/v3/klines", 2, Security.NONE)
def klines(call: Call) -> object:
    """Candles, oldest first; the newest is still running."""
    symbol, params = call.symbol(), call.params
    length = _INTERVALS.get(params.text("interval"))
    if length is None:
        raise BinanceError(-1120)
    now, limit = call.state.now(), params.limit(500, _MAX_CANDLES)
    start, end = params.integer("startTime"), params.integer("endTime")
    last = now if end is None else end / 1000
    if start is None:
        first = min(last, now) // length * length - (limit - 1) * length
    else:
        first = start / 1000
        last = min(last, first + limit * length)
    return call.state.prices.candles[symbol].between(first, last, length, now)[:limit]


def _depth_weight(params: Parameters) -> int:
    limit = params.limit(100, 5000)
    return next(weight for most, weight in ((100, 5), (500, 25), (1000, 50), (5000, 250)) if limit <= most)


@route("GET", "/api/v3/depth", _depth_weight, Security.NONE)
def depth(call: Call) -> object:
    """Answer with an order book of one order per tick around the price."""
    market = call.state.market(call.params.text("symbol"))
    levels = call.params.limit(100, 5000)
    best = Quotation.around(market, call.state.price(market.symbol))
    bids = (best.bid - index * market.tick for index in range(levels))
    asks = (best.ask + index * market.tick for index in range(levels))
    return {
        "lastUpdateId": call.state.told_ms(),
        "bids": [_level(market, price) for price in bids if price > 0],
        "asks": [_level(market, price) for price in asks],
    }


def _level(market: Market, price: Decimal) -> list[str]:
    """One price with a quantity worth about 20,000 units of quote."""
    worth = 20000 * (1.0 + 0.5 * noise(7, float(price / market.tick) * 0.37))
    return [fixed(price), fixed((Decimal(worth) / price).quantize(market.step))]


@route("GET", "/api/v3/ticker/price", 2, Security.NONE)
def ticker_price(call: Call) -> object:
    """Latest prices."""
    return _one_or_all(
        call, lambda state, market: {"symbol": market.symbol, "price": fixed(state.price(market.symbol))}
    )


@route("GET", "/api/v3/ticker/bookTicker", 2, Security.NONE)
def book_ticker(call: Call) -> object:
    """Best prices of the order books."""
    return _one_or_all(call, _book_ticker_row)


def _day_weight(params: Parameters) -> int:
    return 2 if "symbol" in params else 80


@route("GET", "/api/v3/ticker/24hr", _day_weight, Security.NONE)
def ticker_day(call: Call) -> object:
    """What happened within 24 hours."""
    return _one_or_all(call, _day_row)


@route("GET", "/api/v3/avgPrice", 2, Security.NONE)
def average_price(call: Call) -> object:
    """Answer with the price of now as the average: assumed to be near enough."""
    symbol = call.symbol()
    return {"mins": 5, "price": fixed(call.state.price(symbol)), "closeTime": call.state.told_ms()}


@route("GET", "/api/v3/trades", 25, Security.NONE)
def trades(call: Call) -> object:
    """Recent trades, one a second."""
    return [
        {
            "id": when,
            "price": fixed(price),
            "qty": fixed(quantity),
            "quoteQty": fixed(price * quantity),
            "time": when * 1000,
            "isBuyerMaker": when % 2 == 0,
            "isBestMatch": True,
        }
        for when, price, quantity in _tape(call)
    ]


@route("GET", "/api/v3/aggTrades", 4, Security.NONE)
def aggregate_trades(call: Call) -> object:
    """Recent trades again, in their short form."""
    return [
        {
            "a": when,
            "p": fixed(price),
            "q": fixed(quantity),
            "f": when,
            "l": when,
            "T": when * 1000,
            "m": when % 2 == 0,
            "M": True,
        }
        for when, price, quantity in _tape(call)
    ]


def _tape(call: Call) -> list[tuple[int, Decimal, Decimal]]:
    """Trades as (second, price, quantity). The second serves as the id: assumed, as all of them are."""
    symbol, params, prices = call.symbol(), call.params, call.state.prices
    limit, now = params.limit(500, _MAX_CANDLES), int(call.state.now())
    start = params.integer("fromId") or (params.integer("startTime") or 0) // 1000 or None
    last = min(now, (params.integer("endTime") or now * 1000) // 1000)
    first = last - limit + 1 if start is None else start
    seconds = range(first, min(last, first + limit - 1) + 1)
    return [
        (when, prices.at(symbol, when), prices.candles[symbol].volume(when, when + 1)) for when in seconds
    ]


def _markets(call: Call) -> list[Market]:
    """Markets that `symbol` or `symbols` (a JSON list) asks for; all of them without either."""
    if "symbol" in call.params:
        return [call.state.market(call.params.text("symbol"))]
    if "symbols" in call.params:
        return [call.state.market(symbol) for symbol in _symbol_list(call.params.text("symbols"))]
    return list(call.state.markets.values())


def _symbol_list(text: str) -> list[str]:
    try:
        symbols = json.loads(text)
    except ValueError:
        symbols = None
    if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
        raise illegal("symbols", '^\\["[A-Z0-9-_.]{1,20}"(,"[A-Z0-9-_.]{1,20}"){0,}\\]$')
    return cast("list[str]", symbols)


def _one_or_all(call: Call, row: Callable[[State, Market], object]) -> object:
    rows = [row(call.state, market) for market in _markets(call)]
    return rows[0] if "symbol" in call.params else rows


def _book_ticker_row(state: State, market: Market) -> dict[str, object]:
    best = Quotation.around(market, state.price(market.symbol))
    bid, ask = _level(market, best.bid), _level(market, best.ask)
    return {
        "symbol": market.symbol,
        "bidPrice": bid[0],
        "bidQty": bid[1],
        "askPrice": ask[0],
        "askQty": ask[1],
    }


def _day_row(state: State, market: Market) -> dict[str, object]:
    now, symbol = state.now(), market.symbol
    candles = state.prices.candles[symbol]
    first, last = state.prices.at(symbol, now - _DAY), state.price(symbol)
    low, high = candles.extremes(now - _DAY, now, samples=24)
    volume = candles.volume(now - _DAY, now)
    average = (low + high) / 2
    return {
        **_book_ticker_row(state, market),
        "priceChange": fixed(last - first),
        "priceChangePercent": f"{(last / first - 1) * 100:.3f}",
        "weightedAvgPrice": fixed(average),
        "prevClosePrice": fixed(first),
        "lastPrice": fixed(last),
        "lastQty": fixed(market.step),
        "openPrice": fixed(first),
        "highPrice": fixed(high),
        "lowPrice": fixed(low),
        "volume": fixed(volume),
        "quoteVolume": fixed(volume * average),
        "openTime": round((now - _DAY) * 1000),
        "closeTime": round(now * 1000),
        "firstId": int(now - _DAY),
        "lastId": int(now),
        "count": int(_DAY),
    }


def _symbol_row(market: Market) -> dict[str, object]:
    return {
        "symbol": market.symbol,
        "status": "TRADING",
        "baseAsset": market.base,
        "baseAssetPrecision": 8,
        "quoteAsset": market.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": list(ORDER_TYPES),
        "icebergAllowed": False,
        "ocoAllowed": False,
        "otoAllowed": False,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": False,
        "cancelReplaceAllowed": False,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": market.spec.isolated,
        "filters": _filters(market),
        "permissions": [],
        "permissionSets": [["SPOT", "MARGIN"] if market.spec.isolated else ["SPOT"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"],
    }


def _filters(market: Market) -> list[dict[str, object]]:
    tick, step, most = fixed(market.tick), fixed(market.step), "90000000.00000000"
    return [
        {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "10000000.00000000", "tickSize": tick},
        {"filterType": "LOT_SIZE", "minQty": step, "maxQty": most, "stepSize": step},
        {"filterType": "MARKET_LOT_SIZE", "minQty": fixed(ZERO), "maxQty": most, "stepSize": fixed(ZERO)},
        {
            "filterType": "PERCENT_PRICE_BY_SIDE",
            "bidMultiplierUp": "5",
            "bidMultiplierDown": "0.2",
            "askMultiplierUp": "5",
            "askMultiplierDown": "0.2",
            "avgPriceMins": 5,
        },
        {
            "filterType": "NOTIONAL",
            "minNotional": fixed(market.min_notional),
            "applyMinToMarket": True,
            "maxNotional": "9000000.00000000",
            "applyMaxToMarket": False,
            "avgPriceMins": 5,
        },
        {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
        {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": 5},
    ]
