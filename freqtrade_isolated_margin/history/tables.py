"""The tables of the history, their versions, and the clock of the database that holds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, cast
from uuid import uuid4

from sqlalchemy import (
    BigInteger,
    Connection,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.exc import CompileError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.sql.functions import FunctionElement

from freqtrade_isolated_margin.errors import IsolatedMarginError


class HistoryError(IsolatedMarginError):
    """The history cannot be written or read. The message holds nothing of the database's URL."""

    kind = "history"


class NoHistoryError(HistoryError):
    """Nothing was stored yet."""


class OtherAccountsError(HistoryError):
    """It is not clear whose accounts are meant, or they are not those of before."""


class NewerHistoryError(HistoryError):
    """The history was written by a later version of this package."""


class Base(DeclarativeBase):
    """The tables of the history; their prefix keeps them apart in a database that holds others too."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {int: Integer, str: Text}


class Schema(Base):
    """One row: the version of these tables, and what tells this database from any other."""

    __tablename__ = "margin_schema"
    version: Mapped[int] = mapped_column(primary_key=True)
    identity: Mapped[str] = mapped_column(String(32))


class Session(Base):
    """One run of a bot that stores something."""

    __tablename__ = "margin_sessions"
    id: Mapped[int] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(String(8))
    """Whose accounts: `key_id` of the API key that they are read with."""
    bot: Mapped[str] = mapped_column(String(64))
    started_at: Mapped[int] = mapped_column(BigInteger)
    trouble: Mapped[str | None]
    """Why the newest attempt to read failed, if it did."""


class Pair(Base):
    """A pair's name, such as BTC/USDT."""

    __tablename__ = "margin_pairs"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)


class Read(Base):
    """One read of the accounts that succeeded; `read_at` is from before the exchange was asked."""

    __tablename__ = "margin_reads"
    __table_args__ = (
        Index("margin_reads_read_at", "read_at"),
        Index("margin_reads_database_clock", "database_clock"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    session_id: Mapped[int] = mapped_column(ForeignKey(Session.id))
    read_at: Mapped[int] = mapped_column(BigInteger)
    """By the clock of the machine that read."""
    database_clock: Mapped[int | None] = mapped_column(BigInteger)
    """The same moment by the clock of the database, which all who share it can compare with."""


class Content(Base):
    """What seldom changes of a pair's account, as JSON under Binance's names, and its first figures."""

    __tablename__ = "margin_contents"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(10))
    """account, absent, unreadable, or left: the pair is not read any more."""
    text: Mapped[str]


class Account(Base):
    """A pair's account at one read: what changes with the prices, and the rest by reference.

    A figure is NULL where it is as in the content: a liquidation price stays the same for an hour.
    """

    __tablename__ = "margin_accounts"
    # In the order of time and without another index: a day of 20 pairs is 170,000 rows.
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012 - SQLAlchemy's way
    read_id: Mapped[int] = mapped_column(ForeignKey(Read.id), primary_key=True)
    pair_id: Mapped[int] = mapped_column(ForeignKey(Pair.id), primary_key=True)
    # Not a foreign key: to delete a content, the database would look through all of this table.
    content_id: Mapped[int]
    index_price: Mapped[str | None]
    margin_level: Mapped[str | None]
    liquidate_price: Mapped[str | None]
    liquidate_rate: Mapped[str | None]
    base_net_of_btc: Mapped[str | None]
    quote_net_of_btc: Mapped[str | None]


class Decision(Base):
    """What entries into a pair could be, from `at` until the session's next decision on it."""

    __tablename__ = "margin_decisions"
    __table_args__ = (Index("margin_decisions_pair_at", "pair_id", "at"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    session_id: Mapped[int] = mapped_column(ForeignKey(Session.id))
    pair_id: Mapped[int] = mapped_column(ForeignKey(Pair.id))
    at: Mapped[int] = mapped_column(BigInteger)
    side: Mapped[str] = mapped_column(String(5))
    outcome: Mapped[str] = mapped_column(String(6))
    factor: Mapped[str]
    rule: Mapped[str] = mapped_column(String(32))
    reasons: Mapped[str]


class Wanted(Base):
    """A pair that a follower needs, for whoever reads the exchange; `asked_at` by the database's clock."""

    __tablename__ = "margin_wanted"
    pair_id: Mapped[int] = mapped_column(ForeignKey(Pair.id), primary_key=True)
    asked_at: Mapped[int] = mapped_column(BigInteger)


class Deal(Base):
    """What a bot has done in one pair's margin account for one trade: from the first collateral to the last.

    Written by `trading.journal`. Times are milliseconds by the exchange's clock; amounts are texts.
    """

    __tablename__ = "margin_deals"
    __table_args__ = (Index("margin_deals_open", "key_id", "closed_at"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(String(8))
    bot: Mapped[str] = mapped_column(String(64))
    pair: Mapped[str] = mapped_column(String(64))
    side: Mapped[str] = mapped_column(String(5))
    base_before: Mapped[str]
    """What the account held of the base currency before: no part of the position."""
    opened_at: Mapped[int] = mapped_column(BigInteger)
    closed_at: Mapped[int | None] = mapped_column(BigInteger)
    """NULL while the account may hold or owe something for it."""
    trouble: Mapped[str | None]
    """What a person should look at, where the bot cannot settle it alone."""


class Step(Base):
    """One request that moves money, written before it is sent and again when it is known what came of it."""

    __tablename__ = "margin_steps"
    __table_args__ = (Index("margin_steps_order_id", "order_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    deal_id: Mapped[int] = mapped_column(ForeignKey(Deal.id), index=True)
    kind: Mapped[str] = mapped_column(String(12))
    name: Mapped[str] = mapped_column(String(36))
    """The client order id of an order."""
    asked: Mapped[str]
    """What was asked for, as JSON."""
    asked_at: Mapped[int] = mapped_column(BigInteger)
    outcome: Mapped[str | None] = mapped_column(String(8))
    """done, refused or never; NULL while it is not known."""
    order_id: Mapped[str | None] = mapped_column(String(40))
    """The exchange's id of an order."""
    answer: Mapped[str | None]
    """The exchange's words, as JSON; why, where it was refused."""


def _create(connection: Connection) -> None:
    Base.metadata.create_all(connection)


def _add_deals(connection: Connection) -> None:
    for table in (Deal, Step):
        Base.metadata.tables[table.__tablename__].create(connection, checkfirst=True)


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_create, _add_deals)
"""What leads from each version to the next; an empty database has version 0."""


_LOCK = int.from_bytes(b"margin")


class _Clock(FunctionElement[int]):
    """The database's clock in milliseconds since 1970 UTC."""

    type = BigInteger()
    inherit_cache = True


@compiles(_Clock, "sqlite")
def _sqlite_clock(*_: object, **__: object) -> str:
    return "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"


@compiles(_Clock, "postgresql")
def _postgresql_clock(*_: object, **__: object) -> str:
    # Not now(): that is when the transaction began.
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"


def clock_of(connection: Connection) -> int | None:
    """Return the database's clock in milliseconds since 1970 UTC; None where it is not known how."""
    try:
        return cast("int", connection.scalar(select(_Clock())))
    except CompileError:
        return None


def version_of(connection: Connection) -> int:
    """Return the version of the tables; 0 where there are none."""
    if not inspect(connection).has_table(Schema.__tablename__):
        return 0
    return connection.scalar(select(Schema.version)) or 0


def migrate(connection: Connection) -> None:
    """Bring the tables to the newest version, within one transaction.

    :raises NewerHistoryError: where they are of a later one.
    """
    # Or another process could begin at the same moment.
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    elif connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
    version = version_of(connection)
    known = len(MIGRATIONS)
    if version > known:
        raise NewerHistoryError(
            f"the history database has version {version} and this package knows {known}: "
            "use a later freqtrade-isolated-margin"
        )
    for step in MIGRATIONS[version:]:
        step(connection)
    if version == 0:
        connection.execute(insert(Schema).values(version=known, identity=uuid4().hex))
    elif version < known:
        connection.execute(update(Schema).values(version=known))


ROW_SECONDS = 60
"""A pair's account gets a row in the history at least this often, also if nothing in it changes."""
ROW_MS = ROW_SECONDS * 1000
WANTED_SECONDS = 600
"""For so long a reader also reads what a follower has asked for."""
