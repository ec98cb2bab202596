"""How an account is stored: its content once, and of each read only the figures that have changed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

from freqtrade_isolated_margin.account.records import Absent, PairAccount, Row, parse_row, row_as_written
from freqtrade_isolated_margin.account.tiers import TierRatios

# Where the figures that change with the prices stand in a row, by Binance's names, in the order of `FIGURES`.
_PLACES = (
    ("indexPrice",),
    ("marginLevel",),
    ("liquidatePrice",),
    ("liquidateRate",),
    ("baseAsset", "netAssetOfBtc"),
    ("quoteAsset", "netAssetOfBtc"),
)
_ASSETS = [way[0] for way in _PLACES if len(way) > 1]


def _taken_apart(account: PairAccount, ratios: TierRatios | None) -> tuple[str, tuple[str, ...]]:
    """Return the content of an account as JSON, and its figures that change with the prices, as written."""
    row = row_as_written(account)
    figures = tuple(_object(row, way).pop(name) for *way, name in _PLACES)
    content = {"row": row, "ratios": [f"{ratio:f}" for ratio in ratios] if ratios else None}
    return json.dumps(content, separators=(",", ":")), figures


def _object(row: dict[str, Any], way: Sequence[str]) -> dict[str, Any]:
    """Return the row, or the one of its objects to which the names lead."""
    for name in way:
        row = row[name]
    return row


def with_first_figures(parts: Parts) -> str:
    """Return the text of a new content: which figures of an account change is not known before they do."""
    if parts.figures is None:
        return parts.text
    return json.dumps({**json.loads(parts.text), "figures": parts.figures}, separators=(",", ":"))


def account_from(text: str, stored: Sequence[str | None]) -> Row:
    """Return the account of a content with these figures, None for those that are as in the content."""
    content = _content(text)
    # A copy of what is written into: `deepcopy` takes longer than all the rest of a replay's read.
    row = {**content["row"]}
    for name in _ASSETS:
        row[name] = {**row[name]}
    for (*way, name), figure, first in zip(_PLACES, stored, content["figures"], strict=True):
        _object(row, way)[name] = first if figure is None else figure
    return parse_row(row)


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
