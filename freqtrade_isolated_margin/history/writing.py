"""Writes what was read and decided: a session of one bot, of which every row is small."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from sqlalchemy import Connection, Engine, insert, select, update
from sqlalchemy.exc import IntegrityError

from freqtrade_isolated_margin.account.records import Row
from freqtrade_isolated_margin.account.tiers import TierRatios
from freqtrade_isolated_margin.binance.clock import milliseconds
from freqtrade_isolated_margin.history.contents import (
    Parts,
    changed_figures,
    parts_of,
    storable,
    with_first_figures,
)
from freqtrade_isolated_margin.history.database import chunks, explained
from freqtrade_isolated_margin.history.tables import (
    MIGRATIONS,
    ROW_MS,
    WANTED_SECONDS,
    Account,
    Base,
    Content,
    Decision,
    HistoryError,
    Pair,
    Read,
    Schema,
    Session,
    Wanted,
    clock_of,
)
from freqtrade_isolated_margin.rules.decide import EntryDecision
from freqtrade_isolated_margin.rules.settings import spot_pair

LEFT = "left"


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
        trouble = storable(trouble) if trouble else None
        with explained("written"), self._engine.begin() as connection:
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
        for some in chunks(contents):
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
        new: dict[str, Parts] = {
            pair: parts_of(row, read.ratios.get(pair)) for pair, row in read.rows.items()
        }
        new |= {pair: Parts(LEFT, "", None) for pair in last.keys() - new.keys()}
        rows = []
        for pair, parts in new.items():
            held = last.get(pair)
            # A clock that was set back begins anew.
            if held and held.parts == parts and 0 <= read.read_at - held.at < ROW_MS:
                continue
            if held and (held.parts.kind, held.parts.text) == (parts.kind, parts.text):
                content, first = held.content, held.first
            else:
                text, first = with_first_figures(parts), parts.figures
                content = _new_id(connection, Content, {"kind": parts.kind, "text": text})
            if pair not in pairs:
                pairs[pair] = id_of(connection, pair)
            figures = changed_figures(parts.figures, first)
            rows.append({"read_id": read_id, "pair_id": pairs[pair], "content_id": content, **figures})
            last[pair] = _Last(parts, read.read_at, content, first)
            if parts.kind == LEFT:
                del last[pair]
        if rows:
            connection.execute(insert(Account), rows)


class _Last(NamedTuple):
    parts: Parts
    at: int
    content: int
    first: tuple[str, ...] | None
    """The figures of the content."""


def _new_id(connection: Connection, table: type[Base], row: Mapping[str, Any]) -> int:
    key = connection.execute(insert(table).values(**row)).inserted_primary_key
    return cast("int", key[0]) if key else 0


def id_of(connection: Connection, pair: str) -> int:
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
        pairs[pair] = id_of(connection, pair)
    return {
        "session_id": session,
        "pair_id": pairs[pair],
        "at": new.at,
        "side": str(decision.side),
        "outcome": str(decision.outcome),
        "factor": f"{decision.factor:f}",
        "rule": str(decision.rule),
        "reasons": storable("; ".join(decision.reasons)),
    }
