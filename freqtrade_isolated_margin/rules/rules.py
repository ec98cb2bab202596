"""The rules of a pair: bands in which entries shrink, and what stands without an account."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator

from freqtrade_isolated_margin.account.maths import ONE, ZERO
from freqtrade_isolated_margin.account.records import MarginLevelStatus


def _number(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic turns only ValueErrors into reports
    number = Decimal(str(value))
    if not number.is_finite():
        raise ValueError("must be a finite number")
    return number


Number = Annotated[Decimal, BeforeValidator(_number)]


class StrictSettings(BaseModel):
    """A part of the configuration section: immutable, and nothing in it may be misspelt."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Band(StrictSettings):
    """Two limits of one figure: entries are blocked at or below one, and full at or above the other."""

    block_below: Number
    full_above: Number

    @model_validator(mode="after")
    def _in_order(self) -> Band:
        if self.block_below > self.full_above:
            raise ValueError(
                f"block_below ({self.block_below}) must not exceed full_above ({self.full_above})"
            )
        return self

    def factor(self, figure: Decimal) -> Decimal:
        """Return the share of the stake that `figure` leaves: 0, 1, or on the straight line between."""
        if figure <= self.block_below:
            return ZERO
        if figure >= self.full_above:
            return ONE
        return (figure - self.block_below) / (self.full_above - self.block_below)


class LevelBand(Band):
    """Limits of the margin level, a plain number above 1."""

    block_below: Number = Decimal("1.25")
    full_above: Number = Decimal("2.0")

    @model_validator(mode="after")
    def _above_one(self) -> LevelBand:
        if self.block_below <= 1:
            raise ValueError("block_below must be above 1: at a margin level of 1 nothing is left to lose")
        return self


class DistanceBand(Band):
    """Limits of the liquidation distance, a fraction of the index price."""

    block_below: Number = Decimal("0.05")
    full_above: Number = Decimal("0.20")

    @model_validator(mode="after")
    def _fractions(self) -> DistanceBand:
        if self.block_below < 0 or self.full_above > 1:
            raise ValueError("both must be fractions of the index price, from 0 to 1 (0.05 is 5 %)")
        return self


def _statuses(value: object) -> object:
    if not isinstance(value, list | tuple):
        raise ValueError("must be a list of statuses")  # noqa: TRY004 - as above
    known = list(MarginLevelStatus)
    for status in value:
        if status not in known:
            raise ValueError(f"has no status {status!r}; allowed: {', '.join(known)}")
    return tuple(MarginLevelStatus(status) for status in value)


class Rules(StrictSettings):
    """What makes an entry full, smaller or impossible. All of it can be changed for one pair."""

    margin_level: LevelBand = LevelBand()
    liquidation_distance: DistanceBand = DistanceBand()
    block_statuses: Annotated[tuple[MarginLevelStatus, ...], BeforeValidator(_statuses)] = (
        MarginLevelStatus.MARGIN_CALL,
        MarginLevelStatus.PRE_LIQUIDATION,
        MarginLevelStatus.FORCE_LIQUIDATION,
    )
    entry_funding: Literal["spot", "borrowed"] = "spot"
    without_account: Literal["allow", "block"] = "allow"
    level_tolerance: Annotated[Number, Field(ge=0, le=Decimal("0.5"))] = Decimal("0.02")
    """How far the reported margin level may be from the one at the index price, as a fraction of it."""
    _changed: frozenset[str] = PrivateAttr(default=frozenset())

    def changes(self, setting: str) -> bool:
        """Whether these are the rules of one pair, and it has this setting by its own name."""
        return setting in self._changed

    def changed_by(self, settings: Iterable[str]) -> Self:
        """Note which settings one pair has by its own name; return these rules."""
        self._changed = frozenset(settings)
        return self
