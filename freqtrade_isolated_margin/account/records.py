"""The answer of ``GET /sapi/v1/margin/isolated/account`` as strict, frozen records.

Every field that Binance documents is here, under its name in snake case. What is not exactly in the
documented shape is not taken: a bad row is `Unreadable` by itself, a bad answer raises `AnswerError`.

All of a row is checked when it is read. Of its numbers those that every verdict needs become `Decimal`
then; the others stay as they are written until somebody asks for them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from operator import itemgetter
from types import MappingProxyType
from typing import Any, NamedTuple

from freqtrade_isolated_margin.account.maths import ZERO, Holdings, exact
from freqtrade_isolated_margin.errors import AnswerError

# 20 digits before the point and 20 after: more than any amount, and few enough to compute with exactly.
_UNSIGNED = r"[0-9]{1,20}+(?:\.[0-9]{1,20}+)?+"
_PLAIN_DECIMAL = re.compile(f"-?{_UNSIGNED}")


# How the endpoint writes true, and zero, today and before.
_TRUE, _FALSE = "true", "false"
_ZEROS = {"0", "0.00000000"}


def plain_decimal(value: object) -> Decimal:
    """Read a number as Binance writes it: a string of ASCII digits with at most a sign and a point.

    `Decimal` itself would also take ``"1e400"``, ``"NaN"``, ``"1_000"``, ``" 1 "`` and full-width digits.

    :raises ValueError: on anything else.
    """
    if not isinstance(value, str) or not _PLAIN_DECIMAL.fullmatch(value):
        raise ValueError("not a plain decimal string")
    return Decimal(value)


class _Kind(NamedTuple):
    """A kind of fields."""

    pattern: str
    """How the endpoint writes it, with the text of it in a group."""
    text: Callable[[Any], str]
    """Returns that text of a decoded value; raises `ValueError` where it is of another kind."""


def _word(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("Input should be a valid string")  # noqa: TRY004 - as the others of its kind
    return value


def _flag(value: object) -> str:
    if value is True:
        return _TRUE
    if value is False:
        return _FALSE
    raise ValueError("Value error, null" if value is None else "Input should be a valid boolean")


def _signed(value: object) -> str:
    if not isinstance(value, str) or not _PLAIN_DECIMAL.fullmatch(value):
        raise ValueError("Value error, not a plain decimal string")
    return value


def _amount(value: object) -> str:
    text = _signed(value)
    # "-0" is caught too: as a debt it would be neither owed nor absent.
    if text[0] == "-":
        raise ValueError("Value error, negative")
    return text


# Neither what JSON escapes, nor what stands for bytes that are no UTF-8.
_WORD = _Kind(r'"([^"\\\x00-\x1f\ud800-\udfff\ufffd]{1,100}+)"', _word)
_FLAG = _Kind("(true|false)", _flag)
_AMOUNT = _Kind(f'"({_UNSIGNED})"', _amount)
_SIGNED = _Kind(f'"(-?{_UNSIGNED})"', _signed)

# The fields in the order in which the endpoint writes them (API; recorded).
_ASSET = {
    "asset": _WORD,
    "borrowEnabled": _FLAG,
    "borrowed": _AMOUNT,
    "free": _AMOUNT,
    "interest": _AMOUNT,
    "locked": _AMOUNT,
    "netAsset": _SIGNED,
    "netAssetOfBtc": _SIGNED,
    "repayEnabled": _FLAG,
    "totalAsset": _AMOUNT,
}
_ROW = {
    "symbol": _WORD,
    "isolatedCreated": _FLAG,
    "marginLevel": _AMOUNT,
    "marginLevelStatus": _WORD,
    "marginRatio": _AMOUNT,
    "indexPrice": _AMOUNT,
    "liquidatePrice": _AMOUNT,
    "liquidateRate": _SIGNED,
    "tradeEnabled": _FLAG,
}
_ENABLED = {"enabled": _FLAG}
_WIDTH = len(_ASSET)
_TOTALS = ("totalAssetOfBtc", "totalLiabilityOfBtc", "totalNetAssetOfBtc")


def _members(fields: Mapping[str, _Kind]) -> str:
    return ",".join(f'"{name}":{kind.pattern}' for name, kind in fields.items())


# An answer as the endpoint writes it, piece by piece: objects with every field once, and none besides.
ROW_START = '{"baseAsset":'
WRITTEN_ROW = re.compile(
    rf'\{{{_members(_ASSET)}\}},"quoteAsset":\{{{_members(_ASSET)}\}},'
    rf"{_members(_ROW)}(?:,{_members(_ENABLED)})?+"
)
"""A row, between `ROW_START` and `ROW_END`."""
ROW_END = "}"
WRITTEN_TOTALS = re.compile(rf"(?:,{_members(dict.fromkeys(_TOTALS, _SIGNED))})?+\}}")
"""What comes after the list of rows: in an answer for all accounts the totals, and the end."""


class MarginLevelStatus(StrEnum):
    """The five statuses that Binance documents, from the safest on."""

    EXCESSIVE = "EXCESSIVE"
    NORMAL = "NORMAL"
    MARGIN_CALL = "MARGIN_CALL"
    PRE_LIQUIDATION = "PRE_LIQUIDATION"
    FORCE_LIQUIDATION = "FORCE_LIQUIDATION"


_STATUSES = dict(MarginLevelStatus.__members__)


class _UndocumentedError(Exception):
    """A field is not as documented; says which, and what is wrong."""


class _ContradictionError(Exception):
    """A sum is wrong; says which."""


class Asset(NamedTuple):
    """One side of a pair's account. Amounts are in units of the asset."""

    written: tuple[str, ...]
    """Its fields as the endpoint writes them, in that order."""
    total_asset: Decimal
    """Free and locked."""
    debt: Decimal
    """Borrowed and interest."""

    @property
    def asset(self) -> str:
        """The asset's name."""
        return self.written[0]

    @property
    def borrow_enabled(self) -> bool:
        """Whether it may be borrowed."""
        return self.written[1] == _TRUE

    @property
    def borrowed(self) -> Decimal:
        """What was borrowed, without interest."""
        return Decimal(self.written[2])

    @property
    def free(self) -> Decimal:
        """What is not locked in orders."""
        return Decimal(self.written[3])

    @property
    def interest(self) -> Decimal:
        """Accrued interest, owed in addition to `borrowed`."""
        return Decimal(self.written[4])

    @property
    def locked(self) -> Decimal:
        """What is locked in orders."""
        return Decimal(self.written[5])

    @property
    def net_asset(self) -> Decimal:
        """Total asset less borrowed and interest."""
        return Decimal(self.written[6])

    @property
    def net_asset_of_btc(self) -> Decimal:
        """`net_asset` valued in BTC."""
        return Decimal(self.written[7])

    @property
    def repay_enabled(self) -> bool:
        """Whether it may be repaid."""
        return self.written[8] == _TRUE


# Where the fields of a row stand among all that is written in it.
_BASE, _QUOTE = slice(_WIDTH), slice(_WIDTH, 2 * _WIDTH)
_SYMBOL, _CREATED, _LEVEL, _STATUS, _RATIO, _INDEX, _LIQUIDATION, _RATE, _TRADE, _IS_ENABLED = range(
    2 * _WIDTH, 3 * _WIDTH
)


_OF_BTC = list(_ASSET).index("netAssetOfBtc")


# The maximum leverages are few, and come with every row.
_leverage = lru_cache(maxsize=64)(Decimal)


class _PairFields(NamedTuple):
    written: tuple[str, ...]
    """The row's fields as the endpoint writes them, in that order; empty for an `enabled` that is missing."""
    holdings: Holdings
    """What the account owns and owes."""
    margin_level: Decimal
    """Total assets over total debt. Without debt it says nothing: 999 and 0 are both on record."""
    index_price: Decimal
    """Quote currency per unit of base currency."""
    liquidate_price: Decimal
    """The index price at which the account is liquidated; 0 without debt."""


class PairAccount(_PairFields):
    """One pair's isolated margin account: a row of the answer."""

    @property
    def symbol(self) -> str:
        """The market's id."""
        return self.written[_SYMBOL]

    @property
    def base_asset(self) -> Asset:
        """What is owned and owed of the base currency."""
        return Asset(self.written[_BASE], self.holdings.base, self.holdings.base_debt)

    @property
    def quote_asset(self) -> Asset:
        """What is owned and owed of the quote currency."""
        return Asset(self.written[_QUOTE], self.holdings.quote, self.holdings.quote_debt)

    @property
    def isolated_created(self) -> bool:
        """False on the placeholder row that a pair without an account answers with."""
        return self.written[_CREATED] == _TRUE

    @property
    def margin_level_status(self) -> MarginLevelStatus | str:
        """A status that Binance does not document is kept as it came."""
        status = self.written[_STATUS]
        return _STATUSES.get(status, status)

    @property
    def margin_ratio(self) -> Decimal:
        """The maximum leverage of the tier that the account is in. Not a risk ratio."""
        return _leverage(self.written[_RATIO])

    @property
    def liquidate_rate(self) -> Decimal:
        """The move to the liquidation price, in percent of the index price; negative for a long."""
        return Decimal(self.written[_RATE])

    @property
    def trade_enabled(self) -> bool:
        """Whether orders may be placed from the account."""
        return self.written[_TRADE] == _TRUE

    @property
    def enabled(self) -> bool | None:
        """Whether the account is active. Older answers do not have it: None then, and null is refused."""
        written = self.written[_IS_ENABLED]
        return written == _TRUE if written else None

    @property
    def has_debt(self) -> bool:
        """Whether anything is owed, in either asset."""
        return self.holdings.has_debt

    @property
    def is_absent(self) -> bool:
        """Whether there is no account behind the row: never created, or disabled and nothing owed.

        Whatever its margin level says. A row that owes something is an account.
        """
        exists = self.written[_CREATED] == _TRUE and self.written[_IS_ENABLED] != _FALSE
        return not exists and not self.has_debt

    @property
    def status_is_known(self) -> bool:
        """Whether the status is one that Binance documents."""
        return self.written[_STATUS] in _STATUSES

    @property
    def memory(self) -> dict[str, Any]:
        """What others have worked out from this account, for as long as it lives.

        Nothing else is in it, and it is no part of the account: equal ones may remember different things.
        """
        return self.__dict__


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
    read = [_parse_row(row) for row in rows]
    return answer_of(read, [_total(payload, name) for name in _TOTALS], used_weight)


def answer_of(
    rows: list[tuple[str, PairAccount | Unreadable]],
    totals: Iterable[Decimal | None],
    used_weight: int | None = None,
) -> AccountsAnswer:
    """Put an answer together, of rows by their symbols, of which each may come once, and the three totals."""
    by_symbol = dict(rows)
    if len(by_symbol) < len(rows):
        for symbol, times in Counter(symbol for symbol, _ in rows).items():
            if times > 1:
                by_symbol[symbol] = Unreadable("its row came twice")
    asset, liability, net = totals
    return AccountsAnswer(MappingProxyType(by_symbol), asset, liability, net, used_weight)


def _total(payload: Mapping[str, Any], name: str) -> Decimal | None:
    if name not in payload:
        return None
    try:
        return plain_decimal(payload[name])
    except ValueError as error:
        raise AnswerError(f"{name} of the account answer is {error}") from None


def _parse_row(row: object) -> tuple[str, PairAccount | Unreadable]:
    symbol = row.get("symbol") if isinstance(row, Mapping) else None
    if not isinstance(row, Mapping) or not isinstance(symbol, str) or not symbol:
        raise AnswerError("the account answer has a row without a symbol")
    try:
        written = (
            *_asset_texts(row, "baseAsset"),
            *_asset_texts(row, "quoteAsset"),
            *_texts(_ROW, row),
            *(_texts(_ENABLED, row) if "enabled" in row else [""]),
        )
    except _UndocumentedError as error:
        return symbol, Unreadable(f"its row is not as documented ({error})")
    return read_written(written)


def _texts(fields: Mapping[str, _Kind], raw: Mapping[str, Any], where: str = "") -> list[str]:
    """Return how the endpoint writes the `fields` of a decoded object."""
    texts: list[str] = []
    name = ""
    try:
        for name, kind in fields.items():
            texts.append(kind.text(raw[name]))
    except KeyError:
        raise _UndocumentedError(f"{where}{name}: Field required") from None
    except ValueError as error:
        raise _UndocumentedError(f"{where}{name}: {error}") from None
    return texts


def _asset_texts(row: Mapping[str, Any], side: str) -> list[str]:
    if side not in row:
        raise _UndocumentedError(f"{side}: Field required")
    if not isinstance(row[side], Mapping):
        raise _UndocumentedError(f"{side}: Input should be a valid dictionary")
    return _texts(_ASSET, row[side], f"{side}.")


def read_written(
    written: tuple[str, ...], known: PairAccount | Unreadable | None = None
) -> tuple[str, PairAccount | Unreadable]:
    """Return the symbol and the account of a row, given its groups in `WRITTEN_ROW`, a missing one empty.

    `known` is what was read of it before: amounts that have not changed are not added up again. To be called
    in a context that is `exact`.
    """
    symbol = written[_SYMBOL]
    if isinstance(known, PairAccount) and _amounts(written) == _amounts(known.written):
        holdings = known.holdings
    else:
        try:
            base, base_debt = _total_and_debt(written[_BASE])
            quote, quote_debt = _total_and_debt(written[_QUOTE])
        except _ContradictionError as error:
            return symbol, Unreadable(f"its figures contradict each other ({error})")
        holdings = Holdings(base, quote, base_debt, quote_debt)
    if symbol != written[0] + written[_WIDTH]:
        return symbol, Unreadable("its assets are not those of its symbol")
    level, index_price, liquidate_price = written[_LEVEL], written[_INDEX], written[_LIQUIDATION]
    return symbol, PairAccount(
        written, holdings, Decimal(level), Decimal(index_price), Decimal(liquidate_price)
    )


def repriced(account: PairAccount, figures: Sequence[object]) -> PairAccount:
    """Return `account` with other figures of those that change with the prices, texts as in an answer.

    They are index price, margin level, liquidation price and rate, and the net assets of base and quote in
    BTC. None of them is in a sum.

    :raises ValueError: where one is not as documented.
    """
    index_price, level, liquidate_price, rate, base_of_btc, quote_of_btc = figures
    written = list(account.written)
    written[_INDEX] = _amount(index_price)
    written[_LEVEL] = _amount(level)
    written[_LIQUIDATION] = _amount(liquidate_price)
    written[_RATE] = _signed(rate)
    written[_OF_BTC] = _signed(base_of_btc)
    written[_WIDTH + _OF_BTC] = _signed(quote_of_btc)
    return PairAccount(
        tuple(written),
        account.holdings,
        Decimal(written[_LEVEL]),
        Decimal(written[_INDEX]),
        Decimal(written[_LIQUIDATION]),
    )


# All that is in the sums of both assets.
_amounts = itemgetter(*(first + place for first in (0, _WIDTH) for place in (2, 3, 4, 5, 6, 9)))


def _total_and_debt(asset: tuple[str, ...]) -> tuple[Decimal, Decimal]:
    """Return what is owned and owed of an asset whose sums are right.

    Source: recorded; totalAsset = free + locked, netAsset = totalAsset - borrowed - interest.
    """
    name, _, borrowed, free, interest, locked, net, _, _, total = asset
    owned = owed = ZERO
    if total not in _ZEROS:
        owned = Decimal(total)
    # Most accounts have nothing locked, and owe one asset only: then there is nothing to add up.
    if (free != total or locked not in _ZEROS) and owned != Decimal(free) + Decimal(locked):
        raise _ContradictionError(f"totalAsset of {name[:20]} is not free + locked")
    if borrowed not in _ZEROS or interest not in _ZEROS:
        owed = Decimal(borrowed) + Decimal(interest)
    if (net != total or owed) and Decimal(net) != owned - owed:
        raise _ContradictionError(f"netAsset of {name[:20]} is not totalAsset - borrowed - interest")
    return owned, owed
