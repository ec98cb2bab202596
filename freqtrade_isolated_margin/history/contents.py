"""How an account is stored: its content once, and of each read only the figures that have changed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple, cast

from freqtrade_isolated_margin.account.records import Absent, PairAccount, Row, parse_answer, repriced
from freqtrade_isolated_margin.account.tiers import TierRatios

_ASSET_FIELDS = {
    "asset": "asset",
    "borrow_enabled": "borrowEnabled",
    "repay_enabled": "repayEnabled",
    "free": "free",
    "locked": "locked",
    "borrowed": "borrowed",
    "interest": "interest",
    "net_asset": "netAsset",
    "total_asset": "totalAsset",
}
_ACCOUNT_FIELDS = {
    "symbol": "symbol",
    "isolated_created": "isolatedCreated",
    "enabled": "enabled",
    "trade_enabled": "tradeEnabled",
    "margin_level_status": "marginLevelStatus",
    "margin_ratio": "marginRatio",
}


def _text(value: object) -> object:
    return f"{value:f}" if isinstance(value, Decimal) else value


def _taken_apart(account: PairAccount, ratios: TierRatios | None) -> tuple[str, tuple[str, ...]]:
    """Return the content of an account as JSON, and its figures that change with the prices."""
    row: dict[str, Any] = {name: _text(getattr(account, field)) for field, name in _ACCOUNT_FIELDS.items()}
    if account.enabled is None:
        del row["enabled"]
    for name, asset in (("baseAsset", account.base_asset), ("quoteAsset", account.quote_asset)):
        row[name] = {written: _text(getattr(asset, field)) for field, written in _ASSET_FIELDS.items()}
    content = {"row": row, "ratios": [f"{ratio:f}" for ratio in ratios] if ratios else None}
    figures = (
        account.index_price,
        account.margin_level,
        account.liquidate_price,
        account.liquidate_rate,
        account.base_asset.net_asset_of_btc,
        account.quote_asset.net_asset_of_btc,
    )
    return json.dumps(content, separators=(",", ":")), tuple(f"{figure:f}" for figure in figures)


def with_first_figures(parts: Parts) -> str:
    """Return the text of a new content: which figures of an account change is not known before they do."""
    if parts.figures is None:
        return parts.text
    return json.dumps({**json.loads(parts.text), "figures": parts.figures}, separators=(",", ":"))


def account_from(text: str, stored: Sequence[str | None]) -> Row:
    """Return the account of a content with these figures, None for those that are as in the content."""
    content = _content(text)
    figures = [
        first if figure is None else figure for figure, first in zip(stored, content["figures"], strict=True)
    ]
    first_row = _first_row(text)
    if isinstance(first_row, PairAccount):
        with suppress(ValueError):
            return repriced(first_row, figures)
    # It says what is wrong.
    return _parsed(content, figures)


@lru_cache(maxsize=4096)
def _first_row(text: str) -> Row:
    """Return the account with the first figures: the others of a content need not be checked as a whole."""
    content = _content(text)
    return _parsed(content, content["figures"])


def _parsed(content: Mapping[str, Any], figures: Sequence[object]) -> Row:
    """Return what the row says, built as Binance sent it."""
    row = content["row"]
    index_price, margin_level, liquidate_price, liquidate_rate, base_of_btc, quote_of_btc = figures
    built = {
        **row,
        "baseAsset": {**row["baseAsset"], "netAssetOfBtc": base_of_btc},
        "quoteAsset": {**row["quoteAsset"], "netAssetOfBtc": quote_of_btc},
        "indexPrice": index_price,
        "marginLevel": margin_level,
        "liquidatePrice": liquidate_price,
        "liquidateRate": liquidate_rate,
    }
    return parse_answer({"assets": [built]}).rows[row["symbol"]]


@lru_cache(maxsize=4096)
def _content(text: str) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", json.loads(text))


def parts_of(row: Row, ratios: TierRatios | None) -> Parts:
    """Return what is stored of a row: its kind, its content and its figures."""
    if isinstance(row, PairAccount):
        return Parts("account", *_taken_apart(row, ratios))
    return Parts("absent" if isinstance(row, Absent) else "unreadable", storable(row.why), None)


def storable(text: str) -> str:
    """Return a text without what PostgreSQL does not take: an odd row must not keep the others out."""
    return text.replace("\0", "").encode(errors="replace").decode()


class Parts(NamedTuple):
    """What is stored of a pair's row: `Content`, and the figures of `Account`."""

    kind: str
    text: str
    figures: tuple[str, ...] | None


FIGURES = (
    "index_price",
    "margin_level",
    "liquidate_price",
    "liquidate_rate",
    "base_net_of_btc",
    "quote_net_of_btc",
)


def changed_figures(figures: Sequence[str] | None, first: Sequence[str] | None) -> dict[str, str | None]:
    """Return the columns of the figures, None for those that are as in the content."""
    if figures is None or first is None:
        return dict.fromkeys(FIGURES)
    return {
        name: None if figure == was else figure
        for name, figure, was in zip(FIGURES, figures, first, strict=True)
    }
