"""The history: what was read of the accounts, and what was decided, in an SQL database of the plugin's own.

Every read of the accounts is a row of `Read`. A pair's account has a row for a read if anything in it
changed since the one before, and at least once a minute: what a read has no row for is as it was. So the
account of any moment, and how old it was known to be, can be told exactly. Times are milliseconds since
1970 UTC; amounts and prices are texts, as the exchange wrote them.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import Connection, Select, delete, event, exists, func, insert, select, update
from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError

from freqtrade_isolated_margin.account.records import Absent, Row, Unreadable
from freqtrade_isolated_margin.account.tiers import TierRatios
from freqtrade_isolated_margin.errors import SettingsError
from freqtrade_isolated_margin.history.contents import FIGURES, _content, account_from
from freqtrade_isolated_margin.history.database import (
    DEFAULT_FILE,
    chunks,
    engine_for,
    explained,
    limit_idle_transactions,
)
from freqtrade_isolated_margin.history.tables import (
    MIGRATIONS,
    ROW_MS,
    Account,
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
from freqtrade_isolated_margin.history.writing import LEFT, Writer, id_of
from freqtrade_isolated_margin.rules.settings import ENV_DB_URL, HistorySettings, check_db_url

# A follower does not look further back for who reads.
_HOUR_MS = 3600 * 1000
_FOR_EVER = 2**62
_ATTEMPTS = 5
# Where a table that was made in a transaction is gone when it is undone.
_UNDOES_TABLES = {"sqlite", "postgresql"}
_AT_ONCE = 1000
_READS_PURGED_AT_ONCE = 2000


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
            return account_from(self.text, self.figures)
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


def open_history(
    settings: HistorySettings, config: Mapping[str, Any], environ: Mapping[str, str] | None = None
) -> History:
    """Return the history of a bot with this configuration; nothing is connected to yet.

    Its URL is that of the environment variable `ENV_DB_URL`, of the settings, or an SQLite file in the user
    data folder, in this order.

    :raises SettingsError: where the variable holds no URL.
    :raises HistoryError: where the database's driver is not installed.
    """
    # Without what a shell or a file of variables leaves at its ends, as of a key.
    url = (os.environ if environ is None else environ).get(ENV_DB_URL, "").strip()
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
        with explained("used"):
            self._engine = engine_for(url)

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
            event.listen(self._engine, "connect", limit_idle_transactions)

    def prepare(self) -> None:
        """Create the tables, or bring them to the version that this package knows.

        :raises HistoryError: also where they are of a later version.
        """
        for attempt in range(_ATTEMPTS):
            try:
                with explained("prepared"), self._engine.begin() as connection:
                    migrate(connection)
            except HistoryError as error:
                # Another bot that starts at the same moment has been quicker.
                if attempt == _ATTEMPTS - 1 or isinstance(error, NewerHistoryError):
                    raise
                time.sleep(0.1 * (attempt + 1))
            else:
                return

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Write what is done within the block, or nothing of it; after the block it survives a power cut.

        :raises HistoryError: where it cannot be written.
        """
        with explained("written"), self._engine.begin() as connection:
            if self._engine.dialect.name == "sqlite":
                # What is NORMAL for this database survives a kill, but not a power cut.
                connection.exec_driver_sql("PRAGMA synchronous=FULL")
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Read within the block.

        :raises HistoryError: where it cannot be read.
        """
        with explained("read"), self._engine.connect() as connection:
            yield connection

    def try_storing(self) -> None:
        """Try what a bot does before it stores something, and leave nothing of it behind.

        A file that does not exist is not made, since a bot may make it meanwhile: another stands for it.

        :raises HistoryError: where the bot could not do it.
        """
        file = self._file()
        if file and not file.exists():
            trial = file.with_name(f".{file.name}.{uuid4().hex[:8]}.trial")
            tried = History(self._engine.url.set(database=str(trial)))
            try:
                tried._try_storing_now()
            finally:
                tried.close()
                for end in ("", "-wal", "-shm", "-journal"):
                    with suppress(OSError):
                        Path(f"{trial}{end}").unlink()
        elif self._engine.dialect.name in _UNDOES_TABLES:
            self._try_storing_now()

    def _try_storing_now(self) -> None:
        """Make the tables and one more, and take all of it back. Raises as `try_storing`."""
        with explained("written"), self._engine.connect() as connection:
            migrate(connection)
            connection.exec_driver_sql(f"CREATE TABLE margin_trial_{uuid4().hex[:8]} (id INTEGER)")
            connection.rollback()

    def _file(self) -> Path | None:
        """Return the database's file if it is one of SQLite's, and named as a file."""
        url = self._engine.url
        is_named = self._engine.dialect.name == "sqlite" and not url.query.get("uri")
        return Path(url.database) if is_named and url.database else None

    def check(self) -> None:
        """Make sure that there is something to read in the version that this package knows.

        :raises NoHistoryError: where nothing was stored yet.
        """
        file = self._file()
        if file and not file.is_file():
            # Asking would create it.
            raise NoHistoryError(f"there is no history yet ({file.name} does not exist)")
        with explained("read"), self._engine.connect() as connection:
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
        with explained("purged"):
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
        for some in chunks(sorted(contents - used)):
            with self._engine.begin() as connection:
                connection.execute(delete(Content).where(Content.id.in_(some)))

    # ----- reading

    def keys(self, configured: Sequence[str] = (), own: str | None = None) -> tuple[str, ...]:
        """Return the ids of the API keys whose accounts are meant: the configured ones, or the only one.

        Where there are several, that of the bot's own key, if it is known and among them.

        :raises HistoryError: also where it cannot be told, since accounts of two users must not be mixed.
        """
        self.check()
        with explained("read"), self._engine.connect() as connection:
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
        with explained("read"), self._engine.connect() as connection:
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
                reads = _reads(connection, [read.session_id], read.read_at - ROW_MS, read.read_at)
                stored = _stored(connection, pairs, dict(zip(*reads[read.session_id], strict=True)))
                # In the order of time, so that the newest row of a pair stays.
                known = {pair: row for _, rows in sorted(stored.items()) for pair, row in rows.items()}
                for pair, recorded in known.items():
                    # Who does not read a pair any more has no say in it.
                    if (pairs is None or pair in pairs) and recorded.kind != LEFT:
                        found[pair] = Newest(recorded.confirmed(read.read_at), age, read.trouble)
        return found

    def want(self, pairs: Iterable[str]) -> None:
        """Ask whoever reads the exchange to read these pairs too, for `WANTED_SECONDS`."""
        with explained("written"), self._engine.begin() as connection:
            ids = [id_of(connection, pair) for pair in sorted(pairs)]
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
        with explained("read"), self._engine.connect() as connection:
            sessions = list(connection.scalars(select(Session.id).where(Session.key_id.in_(keys))))
            longest = math.ceil(max_age_seconds * 1000)
            reads = _reads(connection, sessions, moments[0] - longest - ROW_MS, moments[-1])
            # In the order of their ids, so that it is certain whose account counts of two of one moment.
            for _, of_session in sorted(reads.items()):
                for place, known in _as_of(connection, pairs, of_session, moments, longest):
                    for pair, recorded in known.items():
                        held = newest[pair][place]
                        # Who does not read a pair any more has no say in it.
                        if recorded.kind != LEFT and (held is None or recorded.read_at > held.read_at):
                            newest[pair][place] = recorded
        return newest

    def accounts(
        self, pairs: Collection[str], keys: Sequence[str], since: int, until: int
    ) -> Iterator[tuple[str, Recorded]]:
        """Yield what was stored of the pairs (of all, if none are given) from `since` to before `until`."""
        with explained("read"), self._engine.connect() as connection:
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
        with explained("read"), self._engine.connect() as connection:
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
        with explained("read"), self._engine.connect() as connection:
            ends = select(func.min(Read.read_at), func.max(Read.read_at)).join(Session)
            asked = Session.key_id.in_(keys), Read.read_at <= until
            first, last = connection.execute(ends.where(*asked)).one()
        return None if first is None else (first, last)

    def fingerprint(self, keys: Sequence[str], since: int, until: int) -> str:
        """Return a text that differs for every two histories of a period: rows are added, never changed."""
        with explained("read"), self._engine.connect() as connection:
            identity = connection.scalar(select(Schema.identity))
            figures = func.count(), func.min(Read.id), func.max(Read.id), func.sum(Read.read_at)
            reads = select(*figures).select_from(Read).join(Session)
            counted = connection.execute(
                reads.where(Session.key_id.in_(keys), Read.read_at >= since, Read.read_at < until)
            ).one()
        return hashlib.sha256(f"{identity} {list(keys)} {list(counted)}".encode()).hexdigest()[:16]


class _Reads(NamedTuple):
    """Reads of one session in the order of time. A month has a quarter of a million: no object for each."""

    ids: array[int]
    times: array[int]


_CHANGING = tuple(getattr(Account, name) for name in FIGURES)
_COLUMNS = (Content.kind, Content.text, *_CHANGING)


def _recorded(read_at: int, columns: Sequence[Any]) -> Recorded:
    kind, text, *figures = columns
    return Recorded(read_at, kind, text, tuple(figures) if kind == "account" else None)


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
    for some in chunks(list(times)):
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
    for some in chunks(sorted(ids)):
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
        if not 0 <= read[1] - written[place][1] < ROW_MS:
            return
        yield written[place]
