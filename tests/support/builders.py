"""Builders of account rows and configurations, with arithmetic of their own.

Whatever a row says is computed here with `Fraction`, and nothing of it by the package: a mistake in the
package's maths cannot hide in the rows that test it. All rows but the recorded ones are synthetic.
"""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from freqtrade_isolated_margin.account.records import PairAccount, Unreadable, parse_answer

Number = str | int | Fraction
Row = dict[str, Any]

DATA = Path(__file__).parents[1] / "data"


def recorded(name: str) -> dict[str, Any]:
    """Return an answer that the owner of an account has published."""
    return json.loads((DATA / f"{name}.json").read_text())


def text(number: Number, places: int = 8) -> str:
    """Write a number as the endpoint does: rounded to eight places and not padded."""
    scaled = Fraction(number) * 10**places
    cut = (abs(scaled.numerator) * 2 + scaled.denominator) // (2 * scaled.denominator)
    whole, part = divmod(cut, 10**places)
    written = f"{whole}.{part:0{places}}".rstrip("0").rstrip(".")
    return f"-{written}" if scaled < 0 and cut else written


def asset(
    name: str,
    total: Number = 0,
    borrowed: Number = 0,
    interest: Number = 0,
    locked: Number = 0,
    in_btc: Number = 0,
    places: int = 8,
) -> Row:
    """One side of a row, cut to `places`: `total` is split into what is free and what is `locked`."""
    total, borrowed, interest, locked = (
        Fraction(text(amount, places)) for amount in (total, borrowed, interest, locked)
    )
    net = total - borrowed - interest
    return {
        "asset": name,
        "borrowEnabled": True,
        "borrowed": text(borrowed, places),
        "free": text(total - locked, places),
        "interest": text(interest, places),
        "locked": text(locked, places),
        "netAsset": text(net, places),
        "netAssetOfBtc": text(net * Fraction(in_btc)),
        "repayEnabled": True,
        "totalAsset": text(total, places),
    }


def row(
    symbol: str = "BTCUSDT",
    base: str | None = None,
    quote: str = "USDT",
    *,
    base_total: Number = 0,
    base_locked: Number = 0,
    base_debt: Number = 0,
    base_interest: Number = 0,
    quote_total: Number = 0,
    quote_locked: Number = 0,
    quote_debt: Number = 0,
    quote_interest: Number = 0,
    index: Number = 50_000,
    ratio: Number = "1.05",
    status: str = "EXCESSIVE",
    places: int = 8,
    **overrides: object,
) -> Row:
    """Build a row that agrees with itself, liquidated at `ratio`; `overrides` replace single fields.

    Debts are what was borrowed, interest comes on top. `index` is quote per base.
    """
    price, limit = Fraction(index), Fraction(ratio)
    bt, qt = Fraction(base_total), Fraction(quote_total)
    bd, qd = Fraction(base_debt) + Fraction(base_interest), Fraction(quote_debt) + Fraction(quote_interest)
    owed = bd * price + qd
    liquidation = Fraction(0)
    if owed and bt != limit * bd:
        liquidation = max((limit * qd - qt) / (bt - limit * bd), Fraction(0))
    rate = (liquidation / price - 1) * 100 if liquidation and price else Fraction(0)
    built = {
        "baseAsset": asset(
            base or symbol.removesuffix(quote),
            base_total,
            base_debt,
            base_interest,
            base_locked,
            places=places,
        ),
        "quoteAsset": asset(quote, quote_total, quote_debt, quote_interest, quote_locked, places=places),
        "symbol": symbol,
        "isolatedCreated": True,
        "marginLevel": text((bt * price + qt) / owed) if owed else "999",
        "marginLevelStatus": status,
        "marginRatio": "10",
        "indexPrice": text(price),
        "liquidatePrice": text(liquidation),
        "liquidateRate": text(rate),
        "tradeEnabled": True,
        "enabled": True,
    }
    return built | overrides


def long_row(level: Number = 3, symbol: str = "BTCUSDT", **more: Any) -> Row:
    """A long that owes 1000 quote at an index price of 50,000, with base for a margin level of `level`."""
    return row(symbol, base_total=Fraction(level) / 50, quote_debt=1000, **more)


def short_row(level: Number = 3, symbol: str = "BTCUSDT", **more: Any) -> Row:
    """A short that owes 0.02 base (worth 1000 quote), with quote for a margin level of `level`."""
    return row(symbol, quote_total=Fraction(level) * 1000, base_debt="0.02", **more)


def dust_row(printed: str = "0", **more: Any) -> Row:
    """A short that was bought back but for its last interest, with a liquidation price as `printed`."""
    shown = {"base_debt": "0.00000001", "marginLevel": "999", "liquidatePrice": printed}
    return row(quote_total=5000, **shown | more)


def placeholder(symbol: str = "BTCUSDT", **more: Any) -> Row:
    """The row that a pair answers with whose account was never created."""
    return row(symbol, isolatedCreated=False, enabled=False, **more)


def answer(*rows: Row, **totals: object) -> dict[str, Any]:
    """Build an answer of the endpoint."""
    return {"assets": list(rows), **totals}


def parsed(built: Row) -> PairAccount | Unreadable:
    """Return what the package makes of one row."""
    return parse_answer(answer(built)).rows[built["symbol"]]


def account(**contents: Any) -> PairAccount:
    """Build a readable account; the arguments are those of `row`."""
    read = parsed(row(**contents))
    assert isinstance(read, PairAccount), read
    return read


def tier_row(tier: int, ratio: str, base_limit: str, quote_limit: str, **overrides: object) -> Row:
    """Build a row of the tier endpoint."""
    return {
        "symbol": "BTCUSDT",
        "tier": tier,
        "effectiveMultiple": "10",
        "initialRiskRatio": "1.111",
        "liquidationRiskRatio": ratio,
        "baseAssetMaxBorrowable": base_limit,
        "quoteAssetMaxBorrowable": quote_limit,
    } | overrides


def redirected(url: str, **more: Any) -> dict[str, Any]:
    """Build the exchange section of a bot whose ccxt talks to `url` instead of Binance."""
    paths = {"public": "api/v3", "private": "api/v3", "v1": "api/v1", "sapi": "sapi/v1"}
    paths |= {f"sapiV{number}": f"sapi/v{number}" for number in (2, 3, 4)}
    api = {name: f"{url}/{path}" for name, path in paths.items()}
    return {"name": "binance", "ccxt_config": {"urls": {"api": api}}, **more}


def fraction(number: Decimal) -> Fraction:
    """Turn a decimal into a fraction, without loss."""
    return Fraction(number)
