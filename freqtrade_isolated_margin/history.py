"""The history: what was read of the accounts, and what was decided, in an SQL database of the plugin's own.

Every read of the accounts is a row of `Read`. A pair's account has a row for a read if anything in it
changed since the one before, and at least once a minute: what a read has no row for is as it was. So the
account of any moment, and how old it was known to be, can be told exactly. Times are milliseconds since
1970 UTC; amounts and prices are texts, as the exchange wrote them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from sqlalchemy import (
    Connection,
    Engine,
    NullPool,
    Select,
    create_engine,
    delete,
    event,
    exists,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from .account import Absent, PairAccount, Row, Unreadable, parse_answer, repriced
from .errors import SettingsError
from .margin import TierRatios
from .moments import ROW_SECONDS, milliseconds
from .rules import EntryDecision
from .settings import ENV_DB_URL, HistorySettings, check_db_url, spot_pair
from .tables import (
    MIGRATIONS,
    Account,
    Base,
    Content,
    Decision,
    HistoryError,
    NewerHistoryError,
    NoHistoryError,
    OtherAccountsError,
    Pair,
    Read,
    Schema,
    Session,
    Wanted,
    clock_of,
    migrate,
    version_of,
)

WANTED_SECONDS = 600
"""For so long a reader also reads what a follower has asked for."""

DEFAULT_FILE = "isolated_margin.sqlite"
"""The name of the database in the user data folder."""

T = TypeVar("T")

_ROW_MS = ROW_SECONDS * 1000
# A follower does not look further back for who reads.
_HOUR_MS = 3600 * 1000
_LEFT = "left"
_FOR_EVER = 2**62
_CONNECT_SECONDS = 5
_STATEMENT_SECONDS = 30
_ATTEMPTS = 5
_IN_ONE_STATEMENT = 500
_AT_ONCE = 1000
_READS_PURGED_AT_ONCE = 2000


# ----- what goes in and comes out


def key_id(key: str) -> str:
    """Return what tells one API key from another without telling anything of it: eight hex digits."""
    return hashlib.sha256(f"isolated margin history\n{key}".encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class NewRead:
    """A read of the accounts that is to be stored."""

    read_at: int
    age_seconds: Callable[[], float]
    """How long ago the exchange was asked, whenever this is called."""
    rows: Mapping[str, Row]
    """By pair."""
    ratios: Mapping[str, TierRatios]


class NewDecision(NamedTuple):
    """A decision that is to be stored, and since when it stands."""

    at: int
    decision: EntryDecision


class _RecordedFields(NamedTuple):
    read_at: int
    kind: str
    text: str
    figures: tuple[str | None, ...] | None
    """The columns of `Account` from `index_price` on; None where there is no account."""


class Recorded(_RecordedFields):
    """A pair's account as it was stored for some read. What the row says is read when it is asked for."""

    @cached_property
    def row(self) -> Row | None:
        """What `read` returns, kept."""
        return self.read()

    def read(self) -> Row | None:
        """Return the account, read as strictly as one that just came; None if it was not read."""
        if self.kind == "account" and self.figures:
            return _account(self.text, self.figures)
        if self.kind == "absent":
            return Absent(self.text)
        return Unreadable(self.text) if self.kind == "unreadable" else None

    def confirmed(self, read_at: int) -> Recorded:
        """Return the same account as a later read found it unchanged."""
        return self if read_at == self.read_at else self._replace(read_at=read_at)

    @property
    def tier_ratios(self) -> TierRatios | None:
        """The liquidation ratios of its tiers, as known then."""
        if self.kind != "account":
            return None
        ratios = _content(self.text)["ratios"]
        return TierRatios(*map(Decimal, ratios)) if ratios else None


class Newest(NamedTuple):
    """The newest that is stored of one pair, and its age by the database's clock."""

    recorded: Recorded
    age_seconds: float
    trouble: str | None
    """Why its reader's newest attempt failed, if it did."""


class Decided(NamedTuple):
    """A stored decision."""

    at: int
    pair: str
    bot: str
    session_id: int
    side: str
    outcome: str
    factor: Decimal
    rule: str
    reasons: str


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


def _with_first_figures(parts: _Parts) -> str:
    """Return the text of a new content: which figures of an account change is not known before they do."""
    if parts.figures is None:
        return parts.text
    return json.dumps({**json.loads(parts.text), "figures": parts.figures}, separators=(",", ":"))


def _account(text: str, stored: Sequence[str | None]) -> Row:
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


def _parts(row: Row, ratios: TierRatios | None) -> _Parts:
    if isinstance(row, PairAccount):
        return _Parts("account", *_taken_apart(row, ratios))
    return _Parts("absent" if isinstance(row, Absent) else "unreadable", _storable(row.why), None)


def _storable(text: str) -> str:
    """Return a text without what PostgreSQL does not take: an odd row must not keep the others out."""
    return text.replace("\0", "").encode(errors="replace").decode()


# ----- the database


def _engine(url: str | URL) -> Engine:
    parsed = make_url(url)
    options: dict[str, Any] = {}
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        options["connect_args"] = {"timeout": _CONNECT_SECONDS}
        # A connection that is kept would go on writing into a file that was deleted.
        options["poolclass"] = NullPool
    elif backend == "postgresql":
        options["pool_pre_ping"] = True
        # Other drivers have other names for these.
        if parsed.get_driver_name() in {"psycopg", "psycopg2"}:
            options["connect_args"] = {
                "connect_timeout": _CONNECT_SECONDS,
                "options": f"-c statement_timeout={_STATEMENT_SECONDS * 1000}",
                # What was sent and is not confirmed within this: the network is gone.
                "tcp_user_timeout": _STATEMENT_SECONDS * 1000,
                # And so it is found out as well where an answer is waited for.
                "keepalives_idle": _STATEMENT_SECONDS,
            }
    engine = create_engine(parsed, **options)
    if backend == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's connection
    # Whoever reads does not hold up who writes, nor the other way round.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _limit_idle_transactions(connection: Any, _record: object) -> None:  # noqa: ANN401 - as above
    # Whoever hangs in the middle of one holds locks that others wait for.
    with connection.cursor() as cursor:
        cursor.execute(f"SET idle_in_transaction_session_timeout = {_STATEMENT_SECONDS * 1000}")
    connection.commit()


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn an error of the database into one without the URL, the statement or its values."""
    try:
        yield
    except HistoryError:
        raise
    except DBAPIError as error:
        # Its first line, as "connection refused" or "disk is full"; a driver may quote the password after.
        raise HistoryError(f"the history database cannot be {what} ({_short(error)})") from None
    except ImportError as error:
        hint = ": pip install 'freqtrade-isolated-margin[postgresql]'" if error.name == "psycopg" else ""
        raise HistoryError(f"the history database's driver {error.name} is not installed{hint}") from None
    except (SQLAlchemyError, OSError, ValueError) as error:
        raise HistoryError(f"the history database cannot be {what} ({type(error).__name__})") from None


# Words of SQLite's and PostgreSQL's that hold nothing of the URL.
_KNOWN_WORDS = (
    "disk is full",
    "disk I/O",
    "readonly",
    "locked",
    "no such table",
    "unable to open",
    "not a database",
    "refused",
    "timeout",
    "resolve host",
    "authentication failed",
    "does not exist",
    "permission denied",
    "too many clients",
    "No space left",
    "shutting down",
)


def _short(error: DBAPIError) -> str:
    name, said = type(error.orig).__name__, str(error.orig)
    known = next((words for words in _KNOWN_WORDS if words.lower() in said.lower()), None)
    return f"{name}: {known}" if known else name


def open_history(
    settings: HistorySettings, config: Mapping[str, Any], environ: Mapping[str, str] | None = None
) -> History:
    """Return the history of a bot with this configuration; nothing is connected to yet.

    Its URL is that of the environment variable `ENV_DB_URL`, of the settings, or an SQLite file in the user
    data folder, in this order.

    :raises SettingsError: where the variable holds no URL.
    :raises HistoryError: where the database's driver is not installed.
    """
    url = (os.environ if environ is None else environ).get(ENV_DB_URL)
    if url:
        try:
            check_db_url(url, password_allowed=True)
        except ValueError as error:
            raise SettingsError(f"the environment variable {ENV_DB_URL} {error}") from None
    folder = Path(config.get("user_data_dir") or "user_data")
    return History(url or settings.db_url or f"sqlite:///{folder / DEFAULT_FILE}")


class History:
    """One database of the history. Every method raises `HistoryError` where the database cannot do it."""

    def __init__(self, url: str | URL) -> None:
        with _explained("used"):
            self._engine = _engine(url)

    def close(self) -> None:
        """Give back the connections."""
        self._engine.dispose()

    def another(self) -> History:
        """Return the same database, with connections of its own."""
        return History(self._engine.url)

    def before_each(self, call: Callable[[], None]) -> None:
        """Call this before every statement and every commit; what it raises undoes the transaction."""
        event.listen(self._engine, "before_cursor_execute", lambda *_: call())
        event.listen(self._engine, "commit", lambda _connection: call())
        if self._engine.dialect.name == "postgresql":
            event.listen(self._engine, "connect", _limit_idle_transactions)

    def prepare(self) -> None:
        """Create the tables, or bring them to the version that this package knows.

        :raises HistoryError: also where they are of a later version.
        """
        for attempt in range(_ATTEMPTS):
            try:
                with _explained("prepared"), self._engine.begin() as connection:
                    migrate(connection)
            except HistoryError as error:
                # Another bot that starts at the same moment has been quicker.
                if attempt == _ATTEMPTS - 1 or isinstance(error, NewerHistoryError):
                    raise
                time.sleep(0.1 * (attempt + 1))
            else:
                return

    def check(self) -> None:
        """Make sure that there is something to read in the version that this package knows.

        :raises NoHistoryError: where nothing was stored yet.
        """
        url = self._engine.url
        file = None if url.query.get("uri") else url.database
        if self._engine.dialect.name == "sqlite" and file and not Path(file).is_file():
            # Asking would create it.
            raise NoHistoryError(f"there is no history yet ({Path(file).name} does not exist)")
        with _explained("read"), self._engine.connect() as connection:
            version = version_of(connection)
        if version == 0:
            raise NoHistoryError("the history database holds no history")
        if version != len(MIGRATIONS):
            raise HistoryError(f"the history database has version {version}, not {len(MIGRATIONS)}")

    # ----- writing

    def writer(self, key: str, bot: str) -> Writer:
        """Begin a session of a bot that stores what it reads with the API key of id `key`."""
        return Writer(self._engine, key, bot)

    def purge(self, key: str, before: int) -> int:
        """Delete what the accounts of `key` were before a moment; return how many reads went.

        In small steps, so that whoever writes meanwhile need not wait.
        """
        with _explained("purged"):
            gone = 0
            sessions = select(Session.id).where(Session.key_id == key)
            while reads := self._old_reads(sessions, before):
                with self._engine.begin() as connection:
                    span = Account.read_id.between(reads[0], reads[-1])
                    connection.execute(delete(Account).where(span, Account.read_id.in_(reads)))
                    connection.execute(delete(Read).where(Read.id.in_(reads)))
                gone += len(reads)
            with self._engine.begin() as connection:
                old = Decision.at < before, Decision.session_id.in_(sessions)
                connection.execute(delete(Decision).where(*old))
                idle = ~exists().where(Read.session_id == Session.id)
                silent = ~exists().where(Decision.session_id == Session.id)
                ended = Session.key_id == key, Session.started_at < before
                connection.execute(delete(Session).where(*ended, idle, silent))
            if gone:
                self._purge_contents()
            return gone

    def _old_reads(self, sessions: Select[Any], before: int) -> list[int]:
        old = select(Read.id).where(Read.read_at < before, Read.session_id.in_(sessions))
        with self._engine.connect() as connection:
            return list(connection.scalars(old.order_by(Read.id).limit(_READS_PURGED_AT_ONCE)))

    def _purge_contents(self) -> None:
        with self._engine.connect() as connection:
            # In this order: what is stored in between is not among the first.
            contents = set(connection.scalars(select(Content.id)))
            used = set(connection.scalars(select(Account.content_id).distinct()))
        for some in _chunks(sorted(contents - used)):
            with self._engine.begin() as connection:
                connection.execute(delete(Content).where(Content.id.in_(some)))

    # ----- reading

    def keys(self, configured: Sequence[str] = (), own: str | None = None) -> tuple[str, ...]:
        """Return the ids of the API keys whose accounts are meant: the configured ones, or the only one.

        Where there are several, that of the bot's own key, if it is known and among them.

        :raises HistoryError: also where it cannot be told, since accounts of two users must not be mixed.
        """
        self.check()
        with _explained("read"), self._engine.connect() as connection:
            stored = sorted(connection.scalars(select(Session.key_id).distinct()))
        if configured:
            return tuple(configured)
        if not stored:
            raise HistoryError("the history database holds no accounts yet")
        if len(stored) > 1 and own in stored:
            return (own,)
        if len(stored) > 1:
            raise OtherAccountsError(
                f"the history database holds the accounts of {len(stored)} API keys ({', '.join(stored)}): "
                "say with history.keys which are meant"
            )
        return tuple(stored)

    def newest(self, pairs: Collection[str] | None, keys: Sequence[str]) -> dict[str, Newest]:
        """Return the newest account of each of `pairs`, or of every pair, that some session of `keys` reads.

        Its age is by the database's clock; nothing is returned that is older than an hour.
        """
        found: dict[str, Newest] = {}
        with _explained("read"), self._engine.connect() as connection:
            clock = clock_of(connection)
            if clock is None:
                raise HistoryError("this kind of database cannot be followed: its clock is not known")
            recent = (
                select(func.max(Read.id))
                .join(Session)
                .where(Session.key_id.in_(keys), Read.database_clock > clock - _HOUR_MS)
                .group_by(Read.session_id)
            )
            columns = Read.id, Read.read_at, Read.database_clock, Read.session_id, Session.trouble
            newest = connection.execute(select(*columns).join(Session).where(Read.id.in_(recent))).all()
            # After the reads were seen: what is stored in between would be from the future.
            now = clock_of(connection) or clock
            # In the order in which they were written, so that the newest stays: a reader that has ended may
            # have stored under a clock that was wrong.
            for read in sorted(newest, key=lambda read: read.id):
                age = (now - read.database_clock) / 1000
                reads = _reads(connection, [read.session_id], read.read_at - _ROW_MS, read.read_at)
                stored = _stored(connection, pairs, dict(zip(*reads[read.session_id], strict=True)))
                # In the order of time, so that the newest row of a pair stays.
                known = {pair: row for _, rows in sorted(stored.items()) for pair, row in rows.items()}
                for pair, recorded in known.items():
                    # Who does not read a pair any more has no say in it.
                    if (pairs is None or pair in pairs) and recorded.kind != _LEFT:
                        found[pair] = Newest(recorded.confirmed(read.read_at), age, read.trouble)
        return found

    def want(self, pairs: Iterable[str]) -> None:
        """Ask whoever reads the exchange to read these pairs too, for `WANTED_SECONDS`."""
        with _explained("written"), self._engine.begin() as connection:
            ids = [_id_of(connection, pair) for pair in sorted(pairs)]
            clock = clock_of(connection) or 0
            for id_ in ids:
                again = update(Wanted).where(Wanted.pair_id == id_).values(asked_at=clock)
                if not connection.execute(again).rowcount:
                    # Unless another follower has just done it.
                    with suppress(IntegrityError), connection.begin_nested():
                        connection.execute(insert(Wanted).values(pair_id=id_, asked_at=clock))

    def as_of(
        self, pair: str, moments: Sequence[int], max_age_seconds: float, keys: Sequence[str]
    ) -> list[Recorded | None]:
        """Return the pair's account as it was known at each of `moments`, which ascend.

        None where nothing was read in the `max_age_seconds` before, or the pair was not among it.
        """
        return self.as_of_all([pair], moments, max_age_seconds, keys)[pair]

    def as_of_all(
        self, pairs: Collection[str], moments: Sequence[int], max_age_seconds: float, keys: Sequence[str]
    ) -> dict[str, list[Recorded | None]]:
        """Return what `as_of` does, for many pairs at once, by pair."""
        newest: dict[str, list[Recorded | None]] = {pair: [None] * len(moments) for pair in pairs}
        if not moments or not pairs:
            return newest
        with _explained("read"), self._engine.connect() as connection:
            sessions = list(connection.scalars(select(Session.id).where(Session.key_id.in_(keys))))
            longest = math.ceil(max_age_seconds * 1000)
            reads = _reads(connection, sessions, moments[0] - longest - _ROW_MS, moments[-1])
            # In the order of their ids, so that it is certain whose account counts of two of one moment.
            for _, of_session in sorted(reads.items()):
                for place, known in _as_of(connection, pairs, of_session, moments, longest):
                    for pair, recorded in known.items():
                        held = newest[pair][place]
                        # Who does not read a pair any more has no say in it.
                        if recorded.kind != _LEFT and (held is None or recorded.read_at > held.read_at):
                            newest[pair][place] = recorded
        return newest

    def accounts(
        self, pairs: Collection[str], keys: Sequence[str], since: int, until: int
    ) -> Iterator[tuple[str, Recorded]]:
        """Yield what was stored of the pairs (of all, if none are given) from `since` to before `until`."""
        with _explained("read"), self._engine.connect() as connection:
            rows = (
                select(Pair.name, Read.read_at, *_COLUMNS)
                .select_from(Account)
                .join(Read)
                .join(Session)
                .join(Content, Content.id == Account.content_id)
                .join(Pair, Pair.id == Account.pair_id)
                .where(Session.key_id.in_(keys), Read.read_at >= since, Read.read_at < until)
                .order_by(Read.read_at, Read.id, Pair.name)
            )
            if pairs:
                rows = rows.where(Pair.name.in_(pairs))
            for pair, read_at, *columns in connection.execution_options(yield_per=_AT_ONCE).execute(rows):
                yield pair, _recorded(read_at, columns)

    def decisions(
        self, pairs: Collection[str], keys: Sequence[str], since: int, until: int
    ) -> Iterator[Decided]:
        """Yield the decisions on the pairs (on all, if none are given) from `since` to before `until`."""
        with _explained("read"), self._engine.connect() as connection:
            columns = Decision.at, Pair.name, Session.bot, Decision.session_id, Decision.side
            more = Decision.outcome, Decision.factor, Decision.rule, Decision.reasons
            rows = (
                select(*columns, *more)
                .select_from(Decision)
                .join(Session)
                .join(Pair)
                .where(Session.key_id.in_(keys), Decision.at >= since, Decision.at < until)
                .order_by(Decision.at, Decision.id)
            )
            if pairs:
                rows = rows.where(Pair.name.in_(pairs))
            for decided in connection.execution_options(yield_per=_AT_ONCE).execute(rows):
                at, pair, bot, session, side, outcome, factor, rule, reasons = decided
                yield Decided(at, pair, bot, session, side, outcome, Decimal(factor), rule, reasons)

    def span(self, keys: Sequence[str], until: int = _FOR_EVER) -> tuple[int, int] | None:
        """Return when the first and the last read of `keys` up to `until` were; None if there is none."""
        with _explained("read"), self._engine.connect() as connection:
            ends = select(func.min(Read.read_at), func.max(Read.read_at)).join(Session)
            asked = Session.key_id.in_(keys), Read.read_at <= until
            first, last = connection.execute(ends.where(*asked)).one()
        return None if first is None else (first, last)

    def fingerprint(self, keys: Sequence[str], since: int, until: int) -> str:
        """Return a text that differs for every two histories of a period: rows are added, never changed."""
        with _explained("read"), self._engine.connect() as connection:
            identity = connection.scalar(select(Schema.identity))
            figures = func.count(), func.min(Read.id), func.max(Read.id), func.sum(Read.read_at)
            reads = select(*figures).select_from(Read).join(Session)
            counted = connection.execute(
                reads.where(Session.key_id.in_(keys), Read.read_at >= since, Read.read_at < until)
            ).one()
        return hashlib.sha256(f"{identity} {list(keys)} {list(counted)}".encode()).hexdigest()[:16]


class Writer:
    """What one session stores. It remembers what it stored last, so that only changes become rows."""

    def __init__(self, engine: Engine, key: str, bot: str) -> None:
        self._engine = engine
        self._key = key
        self._bot = bot[:64]
        self._session: int | None = None
        self._identity: str | None = None
        self._trouble: str | None = None
        self._pairs: dict[str, int] = {}
        self._last: dict[str, _Last] = {}

    def write(
        self, reads: Sequence[NewRead], decisions: Sequence[NewDecision] = (), trouble: str | None = None
    ) -> frozenset[str]:
        """Store all of it, or nothing; return the pairs that followers want read.

        `trouble` says why the newest attempt to read failed, if it did.

        :raises HistoryError: where nothing was stored.
        """
        pairs = dict(self._pairs)
        trouble = _storable(trouble) if trouble else None
        with _explained("written"), self._engine.begin() as connection:
            clock = clock_of(connection)
            identity = self._identified(connection)
            session = self._session or self._begin(connection)
            last = self._remembered(connection)
            if trouble != self._trouble:
                connection.execute(update(Session).where(Session.id == session).values(trouble=trouble))
            for read in reads:
                self._store(connection, session, clock, read, last, pairs)
            if decisions:
                rows = [_decision_row(connection, session, pairs, new) for new in decisions]
                connection.execute(insert(Decision), rows)
            wanted = frozenset[str]()
            if clock is not None:
                asked = select(Pair.name).join(Wanted).where(Wanted.asked_at > clock - WANTED_SECONDS * 1000)
                wanted = frozenset(connection.scalars(asked))
        self._session, self._identity, self._trouble = session, identity, trouble
        self._last, self._pairs = last, pairs
        return wanted

    def _identified(self, connection: Connection) -> str:
        """Return what tells this database from any other.

        :raises HistoryError: where it is not the one that was written before, or has other tables: the ids
            that are remembered would mean something else there, as another user's session.
        """
        version, identity = connection.execute(select(Schema.version, Schema.identity)).one()
        if version != len(MIGRATIONS):
            raise HistoryError(f"the history database has version {version}, not {len(MIGRATIONS)}")
        if self._identity not in (None, identity):
            raise HistoryError("the history database has been replaced by another")
        if self._session and not connection.scalar(select(Session.id).where(Session.id == self._session)):
            raise HistoryError("the history database has forgotten this session")
        return identity

    def _remembered(self, connection: Connection) -> dict[str, _Last]:
        """Return what was stored last, without what was purged since: nothing was read for that long."""
        contents = sorted({held.content for held in self._last.values()})
        there: set[int] = set()
        for some in _chunks(contents):
            there.update(connection.scalars(select(Content.id).where(Content.id.in_(some))))
        return {pair: held for pair, held in self._last.items() if held.content in there}

    def _begin(self, connection: Connection) -> int:
        row = {
            "key_id": self._key,
            "bot": self._bot,
            "started_at": milliseconds(time.time()),
            "trouble": None,
        }
        return _new_id(connection, Session, row)

    def _store(
        self,
        connection: Connection,
        session: int,
        clock: int | None,
        read: NewRead,
        last: dict[str, _Last],
        pairs: dict[str, int],
    ) -> None:
        # The clock was read before the age is, so that the account counts as rather older than younger.
        at = None if clock is None else clock - math.ceil(read.age_seconds() * 1000)
        row = {"session_id": session, "read_at": read.read_at, "database_clock": at}
        read_id = _new_id(connection, Read, row)
        new: dict[str, _Parts] = {pair: _parts(row, read.ratios.get(pair)) for pair, row in read.rows.items()}
        new |= {pair: _Parts(_LEFT, "", None) for pair in last.keys() - new.keys()}
        rows = []
        for pair, parts in new.items():
            held = last.get(pair)
            # A clock that was set back begins anew.
            if held and held.parts == parts and 0 <= read.read_at - held.at < _ROW_MS:
                continue
            if held and (held.parts.kind, held.parts.text) == (parts.kind, parts.text):
                content, first = held.content, held.first
            else:
                text, first = _with_first_figures(parts), parts.figures
                content = _new_id(connection, Content, {"kind": parts.kind, "text": text})
            if pair not in pairs:
                pairs[pair] = _id_of(connection, pair)
            figures = _changed(parts.figures, first)
            rows.append({"read_id": read_id, "pair_id": pairs[pair], "content_id": content, **figures})
            last[pair] = _Last(parts, read.read_at, content, first)
            if parts.kind == _LEFT:
                del last[pair]
        if rows:
            connection.execute(insert(Account), rows)


class _Parts(NamedTuple):
    """What is stored of a pair's row: `Content`, and the figures of `Account`."""

    kind: str
    text: str
    figures: tuple[str, ...] | None


class _Last(NamedTuple):
    parts: _Parts
    at: int
    content: int
    first: tuple[str, ...] | None
    """The figures of the content."""


class _Reads(NamedTuple):
    """Reads of one session in the order of time. A month has a quarter of a million: no object for each."""

    ids: array[int]
    times: array[int]


_FIGURES = (
    "index_price",
    "margin_level",
    "liquidate_price",
    "liquidate_rate",
    "base_net_of_btc",
    "quote_net_of_btc",
)


def _changed(figures: Sequence[str] | None, first: Sequence[str] | None) -> dict[str, str | None]:
    """Return the columns of the figures, None for those that are as in the content."""
    if figures is None or first is None:
        return dict.fromkeys(_FIGURES)
    return {
        name: None if figure == was else figure
        for name, figure, was in zip(_FIGURES, figures, first, strict=True)
    }


_CHANGING = tuple(getattr(Account, name) for name in _FIGURES)
_COLUMNS = (Content.kind, Content.text, *_CHANGING)


def _recorded(read_at: int, columns: Sequence[Any]) -> Recorded:
    kind, text, *figures = columns
    return Recorded(read_at, kind, text, tuple(figures) if kind == "account" else None)


def _new_id(connection: Connection, table: type[Base], row: Mapping[str, Any]) -> int:
    key = connection.execute(insert(table).values(**row)).inserted_primary_key
    return cast("int", key[0]) if key else 0


def _id_of(connection: Connection, pair: str) -> int:
    """Return the id of the pair's name, new if need be."""
    known = select(Pair.id).where(Pair.name == pair)
    id_ = connection.scalar(known)
    if id_ is None:
        try:
            with connection.begin_nested():
                return _new_id(connection, Pair, {"name": pair})
        except IntegrityError:
            # Another bot has just written it.
            id_ = connection.execute(known).scalar_one()
    return id_


def _decision_row(
    connection: Connection, session: int, pairs: dict[str, int], new: NewDecision
) -> dict[str, Any]:
    decision = new.decision
    pair = spot_pair(decision.pair)
    if pair not in pairs:
        pairs[pair] = _id_of(connection, pair)
    return {
        "session_id": session,
        "pair_id": pairs[pair],
        "at": new.at,
        "side": str(decision.side),
        "outcome": str(decision.outcome),
        "factor": f"{decision.factor:f}",
        "rule": str(decision.rule),
        "reasons": _storable("; ".join(decision.reasons)),
    }


def _reads(connection: Connection, sessions: Sequence[int], since: int, until: int) -> dict[int, _Reads]:
    """Return the reads from `since` to `until`, both included, by session.

    Without those of before a clock was set back that are later than one of after: they are from the future.
    """
    rows = select(Read.session_id, Read.id, Read.read_at).where(
        Read.read_at >= since, Read.read_at <= until, Read.session_id.in_(sessions)
    )
    reads: dict[int, _Reads] = defaultdict(lambda: _Reads(array("q"), array("q")))
    for session, id_, at in connection.execute(rows.order_by(Read.read_at, Read.id)):
        ids, times = reads[session]
        if not ids or id_ > ids[-1]:
            ids.append(id_)
            times.append(at)
    return reads


def _chunks(ids: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(ids), _IN_ONE_STATEMENT):
        yield ids[start : start + _IN_ONE_STATEMENT]


def _stored(
    connection: Connection, pairs: Collection[str] | None, times: Mapping[int, int]
) -> dict[int, dict[str, Recorded]]:
    """Return the rows of reads, of some pairs or of all, by read and pair; `times` are those of the reads."""
    # Without a join: what each of a million rows would repeat is looked up once.
    names = {row[0]: row[1] for row in connection.execute(select(Pair.id, Pair.name))}
    rows = select(Account.read_id, Account.pair_id, Account.content_id, *_CHANGING)
    if pairs is not None:
        wanted = set(pairs)
        names = {id_: name for id_, name in names.items() if name in wanted}
        rows = rows.where(Account.pair_id.in_(names))
    contents: dict[int, tuple[str, str]] = {}
    stored: dict[int, dict[str, Recorded]] = {read: {} for read in times}
    for some in _chunks(list(times)):
        found = connection.execute(rows.where(Account.read_id.in_(some))).all()
        contents |= _contents(connection, {row[2] for row in found} - contents.keys())
        for row in found:
            read, pair, content = row[:3]
            kind, text = contents[content]
            figures = row[3:] if kind == "account" else None
            stored[read][names[pair]] = Recorded(times[read], kind, text, figures)
    return stored


def _contents(connection: Connection, ids: Collection[int]) -> dict[int, tuple[str, str]]:
    """Return kinds and texts of `Content`."""
    found: dict[int, tuple[str, str]] = {}
    for some in _chunks(sorted(ids)):
        rows = select(Content.id, Content.kind, Content.text).where(Content.id.in_(some))
        found |= {id_: (kind, text) for id_, kind, text in connection.execute(rows)}
    return found


def _as_of(
    connection: Connection,
    pairs: Collection[str],
    reads: _Reads,
    moments: Sequence[int],
    max_age: int,
) -> Iterator[tuple[int, dict[str, Recorded]]]:
    """Yield what one session knew of the pairs at each moment of which it knew something, by its place."""
    ids, times = reads
    # The place of each moment that a read is the newest of, in the order of time.
    newest: list[tuple[int, int]] = []
    for place, moment in enumerate(moments):
        number = bisect_right(times, moment) - 1
        if number >= 0 and moment - times[number] <= max_age:
            newest.append((place, number))
    asked = {ids[number]: times[number] for _, number in newest}
    rows = _stored(connection, pairs, asked)
    _complete(connection, pairs, reads, asked, rows)
    for place, number in newest:
        yield place, rows[ids[number]]


def _complete(
    connection: Connection,
    pairs: Collection[str],
    reads: _Reads,
    asked: Mapping[int, int],
    rows: dict[int, dict[str, Recorded]],
) -> None:
    """Add to the `rows` of the reads `asked` those that stood although they were written before.

    A read that has no row for a pair found it as it was in the newest of the last minute that has one.
    """
    bare = {read: at for read, at in asked.items() if len(rows[read]) < len(pairs)}
    if not bare:
        return
    missing = {pair for read in bare for pair in pairs if pair not in rows[read]}
    written = sorted(zip(*reads, strict=True))
    earlier = {read: list(_before(written, (read, at))) for read, at in bare.items()}
    needed = dict(sorted(other for some in earlier.values() for other in some))
    before = _stored(connection, missing, needed)
    for read, at in bare.items():
        held: dict[str, Recorded] = {}
        # The newest last, so that it stays.
        for other, _ in reversed(earlier[read]):
            held |= before[other]
        rows[read] = {pair: recorded.confirmed(at) for pair, recorded in held.items()} | rows[read]


def _before(written: Sequence[tuple[int, int]], read: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yield the reads before `read` which may hold the row that still stands then, in the order of writing.

    Each is its id and its time. That is not the order of their times where a clock was set back.
    """
    for place in range(bisect_left(written, read) - 1, -1, -1):
        if not 0 <= read[1] - written[place][1] < _ROW_MS:
            return
        yield written[place]
