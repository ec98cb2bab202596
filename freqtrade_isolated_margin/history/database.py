"""The connection to the database of the history, and its errors in words without secrets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Engine, NullPool, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from freqtrade_isolated_margin.history.tables import HistoryError

DEFAULT_FILE = "isolated_margin.sqlite"
"""The name of the database in the user data folder."""
_CONNECT_SECONDS = 5
_STATEMENT_SECONDS = 30


# ----- the database


def engine_for(url: str | URL) -> Engine:
    """Return an engine for `url` with limits of time, so that no bot waits for ever."""
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


def limit_idle_transactions(connection: Any, _record: object) -> None:  # noqa: ANN401 - as above
    """Let the server end a transaction that its client has forgotten."""
    # Whoever hangs in the middle of one holds locks that others wait for.
    with connection.cursor() as cursor:
        cursor.execute(f"SET idle_in_transaction_session_timeout = {_STATEMENT_SECONDS * 1000}")
    connection.commit()


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn an error of the database into one without the URL, the statement or its values."""
    try:
        yield
    except HistoryError:
        raise
    except DBAPIError as error:
        # Its first line, as "connection refused" or "disk is full"; a driver may quote the password after.
        raise HistoryError(f"the history database cannot be {what} ({_short(error)})") from None
    except ImportError as error:
        install = "pip install 'freqtrade-isolated-margin[postgresql]'"
        hint = {"psycopg": f": {install}", "psycopg2": f": write postgresql+psycopg://, and {install}"}.get(
            error.name or "", ""
        )
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


T = TypeVar("T")
_IN_ONE_STATEMENT = 500


def chunks(ids: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield `ids` in pieces that fit into one statement."""
    for start in range(0, len(ids), _IN_ONE_STATEMENT):
        yield ids[start : start + _IN_ONE_STATEMENT]
