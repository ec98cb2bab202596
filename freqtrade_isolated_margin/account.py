"""The answer of ``GET /sapi/v1/margin/isolated/account`` as strict, frozen records.

Every field that Binance documents is here, under its name in snake case. What is not exactly in the
documented shape is not taken: a bad row is `Unreadable` by itself, a bad answer raises `AnswerError`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StrictBool,
    StrictStr,
    ValidationError,
)
from pydantic.alias_generators import to_camel

from .errors import AnswerError
from .margin import Holdings, exact

# 20 digits before the point and 20 after: more than any amount, and few enough to compute with exactly.
_PLAIN_DECIMAL = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")


def plain_decimal(value: object) -> Decimal:
    """Read a number as Binance writes it: a string of ASCII digits with at most a sign and a point.

    `Decimal` itself would also take ``"1e400"``, ``"NaN"``, ``"1_000"``, ``" 1 "`` and full-width digits.

    :raises ValueError: on anything else.
    """
    if not isinstance(value, str) or not _PLAIN_DECIMAL.fullmatch(value):
        raise ValueError("not a plain decimal string")
    return Decimal(value)


def _not_negative(value: Decimal) -> Decimal:
    # "-0" is caught too: as a debt it would be neither owed nor absent.
    if value.is_signed():
        raise ValueError("negative")
    return value


def _not_null(value: object) -> object:
    if value is None:
        raise ValueError("null")
    return value


SignedDecimal = Annotated[Decimal, BeforeValidator(plain_decimal)]
Amount = Annotated[SignedDecimal, AfterValidator(_not_negative)]


class MarginLevelStatus(StrEnum):
    """The five statuses that Binance documents, from the safest on."""

    EXCESSIVE = "EXCESSIVE"
    NORMAL = "NORMAL"
    MARGIN_CALL = "MARGIN_CALL"
    PRE_LIQUIDATION = "PRE_LIQUIDATION"
    FORCE_LIQUIDATION = "FORCE_LIQUIDATION"


def _status(value: object) -> object:
    """Turn a documented status into its name and leave another as it came: it is kept, and unsafe."""
    return MarginLevelStatus.__members__.get(str(value), value)


class _Record(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        populate_by_name=False,
        hide_input_in_errors=True,
    )


class Asset(_Record):
    """One side of a pair's account. Amounts are in units of the asset."""

    asset: StrictStr
    borrow_enabled: StrictBool
    repay_enabled: StrictBool
    free: Amount
    locked: Amount
    borrowed: Amount
    interest: Amount
    """Accrued interest, owed in addition to `borrowed`."""
    net_asset: SignedDecimal
    """Total asset less borrowed and interest."""
    net_asset_of_btc: SignedDecimal
    """`net_asset` valued in BTC."""
    total_asset: Amount
    """Free and locked."""

    @property
    @exact
    def debt(self) -> Decimal:
        """Borrowed and interest, in units of the asset."""
        return self.borrowed + self.interest


class PairAccount(_Record):
    """One pair's isolated margin account: a row of the answer."""

    symbol: StrictStr
    isolated_created: StrictBool
    """False on the placeholder row that a pair without an account answers with."""
    enabled: Annotated[StrictBool | None, BeforeValidator(_not_null)] = None
    """Whether the account is active. Older answers do not have it: None then, and null is refused."""
    trade_enabled: StrictBool
    margin_level: Amount
    """Total assets over total debt. Without debt it says nothing: 999 and 0 are both on record."""
    margin_level_status: Annotated[StrictStr, AfterValidator(_status)]
    margin_ratio: Amount
    """The maximum leverage of the tier that the account is in. Not a risk ratio."""
    index_price: Amount
    """Quote currency per unit of base currency."""
    liquidate_price: Amount
    """The index price at which the account is liquidated; 0 without debt."""
    liquidate_rate: SignedDecimal
    """The move to the liquidation price, in percent of the index price; negative for a long."""
    base_asset: Asset
    quote_asset: Asset

    @cached_property
    def holdings(self) -> Holdings:
        """What the account owns and owes."""
        base, quote = self.base_asset, self.quote_asset
        return Holdings(base.total_asset, quote.total_asset, base.debt, quote.debt)

    @property
    def has_debt(self) -> bool:
        """Whether anything is owed, in either asset."""
        return self.holdings.has_debt

    @property
    def is_absent(self) -> bool:
        """Whether there is no account behind the row: never created, or disabled and nothing owed.

        Whatever its margin level says. A row that owes something is an account.
        """
        return not self.has_debt and (not self.isolated_created or self.enabled is False)

    @property
    def status_is_known(self) -> bool:
        """Whether the status is one that Binance documents."""
        return isinstance(self.margin_level_status, MarginLevelStatus)


@dataclass(frozen=True, slots=True)
class Absent:
    """A pair without an isolated margin account; `why` says how that is known."""

    why: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A pair whose account may exist but cannot be judged; `why` says what is wrong, in words."""

    why: str


Row = PairAccount | Absent | Unreadable


@dataclass(frozen=True, slots=True)
class AccountsAnswer:
    """One answer of the endpoint: its rows by market id, and the totals where they come."""

    rows: Mapping[str, PairAccount | Unreadable]
    total_asset_of_btc: Decimal | None = None
    """All assets of all isolated accounts, in BTC. None in an answer to ``symbols``, as the next two."""
    total_liability_of_btc: Decimal | None = None
    total_net_asset_of_btc: Decimal | None = None
    used_weight: int | None = field(default=None, compare=False)
    """The address's used weight of this minute, as the exchange counts it."""


def parse_answer(payload: object, used_weight: int | None = None) -> AccountsAnswer:
    """Read the decoded JSON of one answer.

    A row that is not as documented, or that comes twice, becomes `Unreadable`; the others live.

    :raises AnswerError: where the answer is no object with a list of rows, a row has no symbol, or a
        total is no number: such an answer says nothing about any pair.
    """
    if not isinstance(payload, Mapping):
        raise AnswerError("the account answer is not a JSON object")
    rows = payload.get("assets")
    if not isinstance(rows, list):
        raise AnswerError("the account answer has no list of accounts")
    return AccountsAnswer(
        rows=_parse_rows(rows),
        total_asset_of_btc=_total(payload, "totalAssetOfBtc"),
        total_liability_of_btc=_total(payload, "totalLiabilityOfBtc"),
        total_net_asset_of_btc=_total(payload, "totalNetAssetOfBtc"),
        used_weight=used_weight,
    )


def _parse_rows(rows: list[Any]) -> Mapping[str, PairAccount | Unreadable]:
    parsed: dict[str, PairAccount | Unreadable] = {}
    for row in rows:
        symbol = row.get("symbol") if isinstance(row, Mapping) else None
        if not isinstance(symbol, str) or not symbol:
            raise AnswerError("the account answer has a row without a symbol")
        parsed[symbol] = _parse_row(row) if symbol not in parsed else Unreadable("its row came twice")
    return MappingProxyType(parsed)


def _parse_row(row: Mapping[str, Any]) -> PairAccount | Unreadable:
    try:
        account = PairAccount.model_validate(row)
        if account.symbol != account.base_asset.asset + account.quote_asset.asset:
            return Unreadable("its assets are not those of its symbol")
        wrong = _does_not_add_up(account.base_asset) or _does_not_add_up(account.quote_asset)
        return Unreadable(f"its figures contradict each other ({wrong})") if wrong else account
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        return Unreadable(f"its row is not as documented ({name}: {first['msg']})")


@exact
def _does_not_add_up(asset: Asset) -> str | None:
    """Say which sum is wrong. Source: recorded; totalAsset = free + locked, netAsset = totalAsset - debt."""
    if asset.total_asset != asset.free + asset.locked:
        return f"totalAsset of {asset.asset[:20]} is not free + locked"
    if asset.net_asset != asset.total_asset - asset.debt:
        return f"netAsset of {asset.asset[:20]} is not totalAsset - borrowed - interest"
    return None


def _total(payload: Mapping[str, Any], name: str) -> Decimal | None:
    if name not in payload:
        return None
    try:
        return plain_decimal(payload[name])
    except ValueError as error:
        raise AnswerError(f"{name} of the account answer is {error}") from None
