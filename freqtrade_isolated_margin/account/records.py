"""The answer of ``GET /sapi/v1/margin/isolated/account`` as strict, frozen records.

Every field that Binance documents is here, under its name in snake case; the records keep a number as it
is written under that name with ``_text``, and make a `Decimal` of it when somebody asks. What else Binance
sends, and in which order, does not matter. What is not exactly in the documented shape is not taken: a bad
row is `Unreadable` by itself, a bad answer raises `AnswerError`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    StrictBool,
    StrictStr,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import ErrorDetails, PydanticCustomError

from freqtrade_isolated_margin.account.derived import derived
from freqtrade_isolated_margin.account.maths import ZERO, Holdings, exact, margin_level
from freqtrade_isolated_margin.errors import AnswerError

# 20 digits before the point and 20 after: more than any amount, and few enough to compute with exactly.
_UNSIGNED = r"[0-9]{1,20}(?:\.[0-9]{1,20})?"
_PLAIN_DECIMAL = f"^-?{_UNSIGNED}$"
# "-0" is caught too: as a debt it would be neither owed nor absent.
_PLAIN_AMOUNT = f"^{_UNSIGNED}$"
_plain_decimal = re.compile(_PLAIN_DECIMAL)

Signed = Annotated[str, StringConstraints(pattern=_PLAIN_DECIMAL, strict=True)]
"""A number as Binance writes it: a string of ASCII digits with at most a sign and a point.

`Decimal` itself would also take ``"1e400"``, ``"NaN"``, ``"1_000"``, ``" 1 "`` and full-width digits.
"""
Amount = Annotated[str, StringConstraints(pattern=_PLAIN_AMOUNT, strict=True)]
"""A number that has no sign: an amount, a price, a level or a ratio."""

# What Binance prints instead of a margin level without debt (recorded), and maybe above it.
_NO_LEVEL = Decimal(999)
# How the endpoint writes zero, today and before.
_ZEROS = {"0", "0.00000000"}


def plain_decimal(value: object) -> Decimal:
    """Read a `Signed` number.

    :raises ValueError: on anything else.
    """
    if not isinstance(value, str) or not _plain_decimal.fullmatch(value):
        raise ValueError("not a plain decimal string")
    return Decimal(value)


class MarginLevelStatus(StrEnum):
    """The five statuses that Binance documents, from the safest on."""

    EXCESSIVE = "EXCESSIVE"
    NORMAL = "NORMAL"
    MARGIN_CALL = "MARGIN_CALL"
    PRE_LIQUIDATION = "PRE_LIQUIDATION"
    FORCE_LIQUIDATION = "FORCE_LIQUIDATION"


_STATUSES = dict(MarginLevelStatus.__members__)


def _status(word: str) -> MarginLevelStatus | str:
    return _STATUSES.get(word, word)


def _not_null(value: bool | None) -> bool | None:
    if value is None:
        raise PydanticCustomError("null", "null")
    return value


# The maximum leverages are few, and every verdict asks.
_leverage = lru_cache(maxsize=64)(Decimal)


def _binances_name(name: str) -> str:
    return to_camel(name.removesuffix("_text"))


# Not `BaseModel`: what every verdict reads of an account it reads twice as fast from a dataclass.
_record = pydantic_dataclass(
    frozen=True, kw_only=True, config=ConfigDict(alias_generator=_binances_name, hide_input_in_errors=True)
)


@_record
class Asset:
    """One side of a pair's account. Amounts are in units of the asset."""

    asset: StrictStr
    """The asset's name."""
    borrow_enabled: StrictBool
    """Whether it may be borrowed."""
    repay_enabled: StrictBool
    """Whether it may be repaid."""
    free_text: Amount
    locked_text: Amount
    borrowed_text: Amount
    interest_text: Amount
    net_asset_text: Signed
    net_asset_of_btc_text: Signed
    total_asset_text: Amount

    @derived
    def free(self) -> Decimal:
        """What is not locked in orders."""
        return Decimal(self.free_text)

    @derived
    def locked(self) -> Decimal:
        """What is locked in orders."""
        return Decimal(self.locked_text)

    @derived
    def borrowed(self) -> Decimal:
        """What was borrowed, without interest."""
        return Decimal(self.borrowed_text)

    @derived
    def interest(self) -> Decimal:
        """Accrued interest, owed in addition to `borrowed`."""
        return Decimal(self.interest_text)

    @derived
    def net_asset(self) -> Decimal:
        """Total asset less borrowed and interest."""
        return Decimal(self.net_asset_text)

    @derived
    def net_asset_of_btc(self) -> Decimal:
        """`net_asset` valued in BTC."""
        return Decimal(self.net_asset_of_btc_text)

    @derived
    def total_asset(self) -> Decimal:
        """Free and locked."""
        return Decimal(self.total_asset_text)

    @derived
    @exact
    def debt(self) -> Decimal:
        """Borrowed and interest."""
        return self.owed()

    def owed(self) -> Decimal:
        """Work out `debt`. To be called in a context that is `exact`."""
        if self.borrowed_text in _ZEROS and self.interest_text in _ZEROS:
            return ZERO
        return Decimal(self.borrowed_text) + Decimal(self.interest_text)

    def wrong_sum(self, total: Decimal, debt: Decimal) -> str | None:
        """Say which sum is wrong, given what they come to; None where both are right.

        To be called in a context that is `exact`.
        Source: recorded; totalAsset = free + locked, netAsset = totalAsset - borrowed - interest.
        """
        # Most accounts have nothing locked, and owe one asset only: then there is nothing to add up.
        locks = self.locked_text not in _ZEROS or self.free_text != self.total_asset_text
        if locks and total != Decimal(self.free_text) + Decimal(self.locked_text):
            return f"totalAsset of {self._shown} is not free + locked"
        owes = debt or self.net_asset_text != self.total_asset_text
        if owes and Decimal(self.net_asset_text) != total - debt:
            return f"netAsset of {self._shown} is not totalAsset - borrowed - interest"
        return None

    @property
    def _shown(self) -> str:
        # Pydantic can tell of no error in whose words there is half a character.
        return self.asset[:20].encode(errors="replace").decode()


@_record
class PairAccount:
    """One pair's isolated margin account: a row of the answer."""

    symbol: Annotated[StrictStr, StringConstraints(min_length=1)]
    """The market's id."""
    isolated_created: StrictBool
    """False on the placeholder row that a pair without an account answers with."""
    enabled: Annotated[StrictBool | None, AfterValidator(_not_null)] = None
    """Whether the account is active. Older answers do not have it: None then, and null is refused."""
    trade_enabled: StrictBool
    """Whether orders may be placed from the account."""
    margin_level_status: Annotated[StrictStr, AfterValidator(_status)]
    """A `MarginLevelStatus`; one that Binance does not document is kept as it came."""
    margin_ratio_text: Amount
    base_asset: Asset
    """What is owned and owed of the base currency."""
    quote_asset: Asset
    """What is owned and owed of the quote currency."""
    index_price_text: Amount
    margin_level_text: Amount
    liquidate_price_text: Amount
    liquidate_rate_text: Signed

    @property
    def margin_ratio(self) -> Decimal:
        """The maximum leverage of the tier that the account is in. Not a risk ratio."""
        return _leverage(self.margin_ratio_text)

    @derived
    def index_price(self) -> Decimal:
        """Quote currency per unit of base currency."""
        return Decimal(self.index_price_text)

    @derived
    def margin_level(self) -> Decimal:
        """Total assets over total debt. Without debt it says nothing: 999 and 0 are both on record."""
        return Decimal(self.margin_level_text)

    @derived
    def liquidate_price(self) -> Decimal:
        """The index price at which the account is liquidated; 0 without debt."""
        return Decimal(self.liquidate_price_text)

    @derived
    def liquidate_rate(self) -> Decimal:
        """The move to the liquidation price, in percent of the index price; negative for a long."""
        return Decimal(self.liquidate_rate_text)

    @derived
    def holdings(self) -> Holdings:
        """What the account owns and owes."""
        base, quote = self.base_asset, self.quote_asset
        # Asked for while every row is checked, in a context that is exact. Not made of what is `derived`
        # there: to keep each number would take longer than to make it.
        return Holdings(
            Decimal(base.total_asset_text), Decimal(quote.total_asset_text), base.owed(), quote.owed()
        )

    @property
    def has_debt(self) -> bool:
        """Whether anything is owed, in either asset."""
        return self.holdings.has_debt

    @property
    def owes_dust(self) -> bool:
        """Whether what is owed is so little that no price within reach liquidates.

        Then the margin level at the index price and the reported one are both at 999 or above, and what
        is printed as the liquidation price (0, or a number beyond sense) means nothing.
        """
        return (
            self.margin_level >= _NO_LEVEL
            and self.has_debt
            and bool(self.index_price)
            and margin_level(self.holdings, self.index_price) >= _NO_LEVEL
        )

    @property
    def can_be_liquidated(self) -> bool:
        """Whether there is a debt that is worth a look: more than dust."""
        return self.has_debt and not self.owes_dust

    @property
    def liquidation_price(self) -> Decimal | None:
        """`liquidate_price` where it means something: None without debt, for dust, and where it is 0."""
        return (self.liquidate_price or None) if self.can_be_liquidated else None

    @property
    def is_absent(self) -> bool:
        """Whether there is no account behind the row: never created, or disabled and nothing owed.

        Whatever its margin level says. A row that owes something is an account.
        """
        exists = self.isolated_created and self.enabled is not False
        return not exists and not self.has_debt

    @property
    def status_is_known(self) -> bool:
        """Whether the status is one that Binance documents."""
        return isinstance(self.margin_level_status, MarginLevelStatus)

    @model_validator(mode="after")
    @exact
    def _agrees_with_itself(self) -> Self:
        base, quote = self.base_asset, self.quote_asset
        base_total, quote_total, base_debt, quote_debt = self.holdings
        wrong = base.wrong_sum(base_total, base_debt) or quote.wrong_sum(quote_total, quote_debt)
        if wrong:
            raise PydanticCustomError(
                _CONTRADICTION, "its figures contradict each other ({wrong})", {"wrong": wrong}
            )
        if self.symbol != base.asset + quote.asset:
            raise PydanticCustomError(_CONTRADICTION, "its assets are not those of its symbol")
        return self


# The kind of error that speaks for the row as a whole.
_CONTRADICTION = "contradiction"
_ACCOUNT, _ACCOUNTS = TypeAdapter(PairAccount), TypeAdapter(list[PairAccount])


@dataclass(frozen=True, slots=True)
class Absent:
    """A pair without an isolated margin account; `why` says how that is known."""

    why: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A pair whose account may exist but cannot be judged; `why` says what is wrong, in words."""

    why: str


@dataclass(frozen=True, slots=True)
class NoMarket(Unreadable):
    """A pair that has no spot market, and so can have no isolated margin account: nobody can look."""

    why: str = "it has no spot market on Binance"


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


# Here too, so that the context changes once for all the rows.
@exact
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
    by_symbol: dict[str, PairAccount | Unreadable]
    try:
        by_symbol = {account.symbol: account for account in _ACCOUNTS.validate_python(rows)}
    except ValidationError:
        by_symbol = {_symbol(row): parse_row(row) for row in rows}
    if len(by_symbol) < len(rows):
        for symbol, times in Counter(map(_symbol, rows)).items():
            if times > 1:
                by_symbol[symbol] = Unreadable("its row came twice")
    return AccountsAnswer(
        MappingProxyType(by_symbol),
        _total(payload, "totalAssetOfBtc"),
        _total(payload, "totalLiabilityOfBtc"),
        _total(payload, "totalNetAssetOfBtc"),
        used_weight,
    )


def _symbol(row: object) -> str:
    symbol = row.get("symbol") if isinstance(row, Mapping) else None
    if not isinstance(symbol, str) or not symbol:
        raise AnswerError("the account answer has a row without a symbol")
    return symbol


def _total(payload: Mapping[str, Any], name: str) -> Decimal | None:
    if name not in payload:
        return None
    try:
        return plain_decimal(payload[name])
    except ValueError as error:
        raise AnswerError(f"{name} of the account answer is {error}") from None


def parse_row(row: object) -> PairAccount | Unreadable:
    """Read the decoded JSON of one row; never raises."""
    try:
        return _ACCOUNT.validate_python(row)
    except ValidationError as error:
        first, *_ = error.errors(include_url=False, include_input=False)
        return Unreadable(_in_words(first))


def row_as_written(account: PairAccount) -> dict[str, Any]:
    """Return the documented fields of the row that `parse_row` has read, texts as they came."""
    written: dict[str, Any] = _ACCOUNT.dump_python(account, by_alias=True, exclude_none=True)
    return written


# Instead of the pattern itself, and of a class that is not Binance's.
_WORDS = {
    _PLAIN_DECIMAL: "not a plain decimal string",
    _PLAIN_AMOUNT: "not a plain decimal string, or negative",
    "dataclass_type": "Input should be a valid object",
}


def _in_words(error: ErrorDetails) -> str:
    if error["type"] == _CONTRADICTION:
        return error["msg"]
    where = ".".join(map(str, error["loc"]))
    what = _WORDS.get(error.get("ctx", {}).get("pattern", error["type"]), error["msg"])
    return f"its row is not as documented ({where}: {what})"
