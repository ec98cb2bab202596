"""The section `isolated_margin` of a freqtrade configuration, validated strictly.

A strategy may carry the same section as an attribute; the configuration wins over the attribute, and
both over the defaults, merged deeply. A setting that is misspelt or impossible raises `SettingsError`
with its name and what is allowed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any, Literal, TypeGuard, TypeVar, get_args

from pydantic import BeforeValidator, Field, StrictBool, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from freqtrade_isolated_margin.errors import SettingsError
from freqtrade_isolated_margin.rules.rules import Number, Rules, StrictSettings

T = TypeVar("T", bound=StrictSettings)

SECTION = "isolated_margin"
ENV_DB_URL = "ISOLATED_MARGIN_DB_URL"
"""The environment variable for a URL of the history that holds a password; it wins over the setting."""

_PAIR = re.compile(r"[^\s/:]+/[^\s/:]+(:[^\s/:]+)?")


def spot_pair(pair: str) -> str:
    """Return the name of `pair` in settings: a futures pair's settlement suffix does not count."""
    return pair.partition(":")[0]


def _switch(value: object) -> object:
    """Take ``true`` and ``false`` for a part that can be switched on and off as a whole."""
    return {"enabled": value} if isinstance(value, bool) else value


class AlertSettings(StrictSettings):
    """Which changes are told through freqtrade's messages."""

    enabled: StrictBool = True
    room_left: Annotated[Number, Field(gt=0, lt=1)] = Number("0.5")
    """Share of the liquidation distance at the last message, at or below which there is another."""
    calm_above: Annotated[Number, Field(ge=1, le=10)] = Number("1.2")
    """Multiple of a limit's room from which on a better verdict is told at once."""
    settle_seconds: Annotated[Number, Field(ge=0, le=86400)] = Number(300)
    """Seconds after which a better verdict is told although it is closer to its limit than that."""


_KEY_ID = re.compile(r"[0-9a-f]{8}")


class HistorySettings(StrictSettings):
    """Where accounts and decisions are stored, and for how long."""

    enabled: StrictBool = True
    db_url: str | None = None
    """An URL of SQLAlchemy; None is an SQLite file in the user data folder."""
    retention_days: Annotated[Number, Field(gt=0, le=3650)] = Number(30)
    """Days after which what is stored is deleted."""
    keys: tuple[str, ...] = ()
    """Ids of API keys whose accounts are meant, where the database holds those of several."""

    @field_validator("keys", mode="before")
    @classmethod
    def _ids(cls, keys: object) -> tuple[str, ...]:
        if not isinstance(keys, list | tuple) or not all(
            isinstance(key, str) and _KEY_ID.fullmatch(key) for key in keys
        ):
            # Not with its value: somebody may have written a whole key.
            raise ValueError(
                "must be a list of key ids, eight hexadecimal digits each, as the log tells them"
            )
        return tuple(keys)

    @field_validator("db_url")
    @classmethod
    def _no_password(cls, url: str | None) -> str | None:
        if url is not None:
            check_db_url(url)
        return url


_SECRET = re.compile(r"(?i)passw|pwd|secret|token")
_SECRET_WITHIN = re.compile(r"(?i)(passw\w*|pwd|secret|token)\s*=|://[^/]*:[^/]*@")


def check_db_url(url: str, *, password_allowed: bool = False) -> None:
    """Refuse what SQLAlchemy does not take for a URL, and a password: freqtrade shows its configuration.

    :raises ValueError: without the URL in its message.
    """
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - most configurations have no URL
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError("is no URL of SQLAlchemy such as 'sqlite:///history.sqlite'") from None
    backend = parsed.get_backend_name()
    if backend == "postgres":
        raise ValueError("must begin with 'postgresql+psycopg://': SQLAlchemy knows no 'postgres://'")
    if backend == "sqlite" and ":memory:" in (parsed.database or ":memory:"):
        raise ValueError("names no file: in memory nothing is kept; write 'sqlite:///history.sqlite'")
    named = any(_SECRET.search(name) for name in parsed.query)
    # ODBC and libpq take a whole connection string in one parameter.
    within = any(_SECRET_WITHIN.search(str(value)) for value in parsed.query.values())
    if (parsed.password or named or within) and not password_allowed:
        raise ValueError(
            f"must not hold a password, since freqtrade shows its configuration; put the URL into the "
            f"environment variable {ENV_DB_URL} instead"
        )


class ReduceSettings(StrictSettings):
    """When a position is reduced before its margin call, and how far."""

    at_level: Annotated[Number, Field(gt=1, le=10)]
    """Margin level at or below which so much is closed that the account stands at `to_level`."""
    to_level: Annotated[Number, Field(gt=1, le=10)]
    pause_seconds: Annotated[Number, Field(ge=0, le=86400)] = Number(60)
    """Seconds from one fill of a trade to its next reduction, at least ``max_age_seconds``."""

    @model_validator(mode="after")
    def _upwards(self) -> ReduceSettings:
        if self.to_level <= self.at_level:
            raise ValueError(f"to_level ({self.to_level}) must be above at_level ({self.at_level})")
        return self


_CURRENCY = re.compile(r"[A-Z0-9]{1,20}")


class TradingSettings(StrictSettings):
    """Whether the bot trades in the margin accounts themselves, and what a simulation takes for granted.

    Rates and tables are for backtests, and for dry runs without a key: with one the exchange tells them.
    """

    enabled: StrictBool = False
    collateral: Literal["transfer", "account"] = "transfer"
    """Where a stake comes from: moved from the spot wallet and back, or out of what the account holds."""
    interest_rate: Annotated[Number, Field(ge=0, le=Decimal("0.05"))] = Number("0.0005")
    """What a loan costs a day, as a fraction of it, in a currency that `interest_rates` does not name."""
    interest_rates: dict[str, Annotated[Number, Field(ge=0, le=Decimal("0.05"))]] = Field(
        default_factory=dict
    )
    """The same by currency."""
    max_leverage: Literal[3, 5, 10] = 3
    """Whose of Binance's tables counts for a pair that `max_leverages` does not name: 3x, 5x or 10x."""
    max_leverages: dict[str, Literal[3, 5, 10]] = Field(default_factory=dict)
    """The same by pair."""

    @field_validator("interest_rates")
    @classmethod
    def _currencies(cls, rates: dict[str, Number]) -> dict[str, Number]:
        for currency in rates:
            if not _CURRENCY.fullmatch(currency):
                raise ValueError(f"has {currency!r}, which is not a currency such as 'USDT'")
        return rates

    @field_validator("max_leverages")
    @classmethod
    def _spot_pairs(cls, tables: dict[str, Literal[3, 5, 10]]) -> dict[str, Literal[3, 5, 10]]:
        for pair in tables:
            if not _PAIR.fullmatch(pair) or ":" in pair:
                raise ValueError(f"has {pair!r}, which is not a spot pair such as 'BTC/USDT'")
        return tables


class Settings(Rules):
    """The whole section: the rules for all pairs, and how the accounts are read."""

    enabled: StrictBool = True
    refresh_seconds: Annotated[Number, Field(ge=0.5, le=3600)] = Number(10)
    """Seconds from one read of the accounts to the next."""
    max_age_seconds: Annotated[Number, Field(le=86400)] = Number(60)
    """Seconds after which an account counts as too old to allow an entry."""
    recv_window: Annotated[int, Field(strict=True, ge=1, le=60000)] = 10000
    """Milliseconds for which the exchange takes a signed request."""
    weight_budget: Annotated[int, Field(strict=True, ge=20, le=12000)] = 1200
    """What the reads may use of the 12,000 weight a minute that Binance gives to an address."""
    source: Literal["exchange", "history"] = "exchange"
    """Where the accounts are read: from Binance, or from what another bot has stored of them."""
    history: Annotated[HistorySettings, BeforeValidator(_switch)] = HistorySettings()
    alerts: Annotated[AlertSettings, BeforeValidator(_switch)] = AlertSettings()
    charts: StrictBool = True
    """Whether charts show the columns of `COLUMNS`."""
    backtest: Literal["off", "replay", "simulate"] = "off"
    """Whether the guard acts in backtesting and hyperopt: by the recorded history, or by the accounts that
    the simulated trades make."""
    pairs: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Changes of the rules for single pairs."""
    trading: TradingSettings = TradingSettings()
    reduce: ReduceSettings | None = None
    """Whether a position is reduced before its margin call."""

    @field_validator("pairs")
    @classmethod
    def _known_form(cls, pairs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        seen: set[str] = set()
        for pair in pairs:
            if not _PAIR.fullmatch(pair):
                raise ValueError(f"has {pair!r}, which is not a pair such as 'BTC/USDT'")
            if spot_pair(pair) in seen:
                raise ValueError(f"names {spot_pair(pair)!r} twice")
            seen.add(spot_pair(pair))
        return pairs

    @model_validator(mode="after")
    def _age_beyond_refresh(self) -> Settings:
        if self.max_age_seconds <= self.refresh_seconds:
            raise ValueError(
                f"max_age_seconds ({self.max_age_seconds}) must be more than refresh_seconds "
                f"({self.refresh_seconds}), or every account is too old before the next is read"
            )
        return self

    @model_validator(mode="after")
    def _affordable(self) -> Settings:
        needed = 600 / self.refresh_seconds
        if needed > self.weight_budget:
            raise ValueError(
                f"weight_budget ({self.weight_budget} a minute) is too small for a read (weight 10) every "
                f"{self.refresh_seconds} s (refresh_seconds): it takes {needed:.0f}"
            )
        return self

    @model_validator(mode="after")
    def _followable(self) -> Settings:
        if self.source == "history" and not self.history.enabled:
            raise ValueError('source "history" needs history.enabled')
        return self

    @model_validator(mode="after")
    def _reduced_trading(self) -> Settings:
        if self.reduce and not self.trading.enabled:
            raise ValueError("reduce needs trading.enabled: else an account is not that of a trade")
        return self

    @model_validator(mode="after")
    def _simulated_trading(self) -> Settings:
        if self.backtest == "simulate" and not self.trading.enabled:
            raise ValueError('backtest "simulate" needs trading.enabled: only then do trades make accounts')
        return self

    @model_validator(mode="after")
    def _guarded_trading(self) -> Settings:
        if not self.trading.enabled:
            return self
        if not self.enabled:
            raise ValueError("trading.enabled needs the guard: enabled must not be false")
        if self.source != "exchange":
            raise ValueError('trading.enabled needs source "exchange": who trades reads the accounts itself')
        if self.borrows:
            raise ValueError(
                'entry_funding must not be "borrowed" with trading.enabled: every entry borrows, and the '
                "account is judged as it would be after it"
            )
        return self

    @classmethod
    def load(cls, section: object = None, attribute: object = None) -> Settings:
        """Merge the configuration's section over a strategy's attribute over the defaults.

        :raises SettingsError: where a setting is misspelt or impossible, also for a single pair.
        """
        if isinstance(attribute, Mapping) and "trading" in attribute:
            raise SettingsError(
                f"{SECTION}.trading belongs in the configuration: the exchange is loaded before the strategy"
            )
        merged = _merge(_mapping(attribute, "the strategy's attribute"), _mapping(section, "the section"))
        settings = _validated(cls, merged, SECTION)
        # Computed once here, so that a pair's impossible rules stop the start and not an entry.
        _ = settings._pair_rules  # noqa: SLF001 - its own
        return settings

    @cached_property
    def rules(self) -> Rules:
        """The rules of every pair that `pairs` does not name."""
        return Rules.model_validate({name: getattr(self, name) for name in Rules.model_fields})

    @cached_property
    def _pair_rules(self) -> dict[str, Rules]:
        common = {name: _plain(getattr(self, name)) for name in Rules.model_fields}
        return {
            spot_pair(pair): _validated(Rules, _merge(common, changes), f"{SECTION}.pairs.{pair}").changed_by(
                changes
            )
            for pair, changes in self.pairs.items()
        }

    def rules_for(self, pair: str) -> Rules:
        """Return the rules of `pair`; a futures pair has those of its spot pair."""
        return self._pair_rules.get(spot_pair(pair), self.rules)

    def check_pairs(self, markets: Iterable[str]) -> None:
        """Refuse rules for a pair that is not among `markets`: a misspelt one leaves the meant one unchanged.

        Does nothing where no markets are known.

        :raises SettingsError: for such a pair.
        """
        known = {spot_pair(pair) for pair in markets}
        for pair in self.pairs:
            if known and spot_pair(pair) not in known:
                close = difflib.get_close_matches(spot_pair(pair), known, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise SettingsError(f"{SECTION}.pairs.{pair}: the exchange has no such pair{hint}")

    @property
    def borrows(self) -> bool:
        """Whether any pair's entries are placed in the margin account on borrowed money."""
        every = (self.rules, *self._pair_rules.values())
        return any(rules.entry_funding == "borrowed" for rules in every)


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SettingsError(f"{SECTION}: {what} must be an object with settings, not {type(value).__name__}")
    return value


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def in_both(section: object, attribute: object, where: str = SECTION) -> list[str]:
    """Return the full names of the settings that a section and a strategy's attribute both have."""
    if not isinstance(section, Mapping) or not isinstance(attribute, Mapping):
        return [] if where == SECTION else [where]
    both = (name for name in section if name in attribute)
    return [name for key in both for name in in_both(section[key], attribute[key], f"{where}.{key}")]


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, StrictSettings) else value


def _validated(model: type[T], values: Mapping[str, Any], where: str) -> T:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        raise SettingsError("; ".join(_explain(problem, model, where) for problem in problems)) from None


def _explain(problem: ErrorDetails, model: type[StrictSettings], where: str) -> str:
    path = [str(part) for part in problem["loc"]]
    name = ".".join([where, *path])
    if problem["type"] == "extra_forbidden":
        return f"{name} is not a setting{_suggestion(path, model)}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{name}: {message[:1].lower()}{message[1:]}"


def _is_part(annotation: object) -> TypeGuard[type[StrictSettings]]:
    return isinstance(annotation, type) and issubclass(annotation, StrictSettings)


def _suggestion(path: list[str], model: type[StrictSettings]) -> str:
    fields = model.model_fields
    for part in path[:-1]:
        annotation = fields[part].annotation
        # What may be left out as a whole is a part, or None.
        inner = next((one for one in (annotation, *get_args(annotation)) if _is_part(one)), None)
        fields = inner.model_fields if inner else {}
    close = difflib.get_close_matches(path[-1], fields, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint} (allowed: {', '.join(sorted(fields))})"
