"""Fixtures that more than one module uses."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from support.bot import config_for
from support.postgresql import MISSING, PostgreSQL, postgresql, server_folder

from freqtrade_isolated_margin.binance.credentials import ENV_KEY, ENV_SECRET
from freqtrade_isolated_margin.localexchange import LocalExchange
from freqtrade_isolated_margin.rules.settings import ENV_DB_URL

if TYPE_CHECKING:
    from support.faults import Gate, World

settings.register_profile("house", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "house")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say at the end what this machine cannot test."""
    if server_folder() is None:
        terminalreporter.write_line(MISSING)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSQL]:
    """A PostgreSQL that the test run has started."""
    programs = server_folder()
    if programs is None:
        pytest.skip(MISSING)
    with postgresql(programs) as server:
        yield server


@pytest.fixture(autouse=True)
def _databases() -> Iterator[list[Callable[[], None]]]:
    """Remove a test's databases after everything else of it, to which nothing may be connected by then.

    What was left open would be warned of in some later test, when the garbage is collected.
    """
    removals: list[Callable[[], None]] = []
    yield removals
    for remove in removals:
        remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path, _databases: list[Callable[[], None]]) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'history.sqlite'}"
    server: PostgreSQL = request.getfixturevalue("postgresql_server")
    made = server.new_database()
    _databases.append(lambda: server.remove_database(made))
    return made


@pytest.fixture
def _restored_logging() -> Iterator[None]:
    """Undo what freqtrade does to the logging of this process."""
    root = logging.getLogger()
    before = root.level, root.handlers[:], root.manager.disable
    yield
    root.level, root.handlers[:] = before[:2]
    logging.disable(before[2])


@pytest.fixture(autouse=True)
def _no_credentials_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may find a key in the environment that it did not put there."""
    for name in (ENV_KEY, ENV_SECRET, ENV_DB_URL):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def _server() -> Iterator[LocalExchange]:
    with LocalExchange(scenario="calm") as running:
        yield running


@pytest.fixture
def exchange(_server: LocalExchange) -> Iterator[LocalExchange]:
    """A local exchange as new, with the accounts of the calm scenario; its server is shared."""
    state = _server.state
    with state.changed:
        _server.faults.clear()
        _server.weights._windows.clear()
        state.clock_offset = 0.0
        state.records.clear()
        state.accounts.clear()
        state._fill_scenario()
    yield _server
    # Does nothing but listen again where a test has stopped it.
    _server._listener.start()


@pytest.fixture
def bot_config(exchange: LocalExchange) -> dict[str, Any]:
    """A freqtrade configuration whose exchange is the local one."""
    config = config_for(exchange, ["BTC/USDT"])
    # What is missing is at its default.
    del config["isolated_margin"]
    return config


@pytest.fixture(scope="module")
def front(server: LocalExchange) -> Iterator[Gate]:
    """Stand in front of a module's own `server`, and keep every signature."""
    from support.faults import Gate  # noqa: PLC0415 - with all of freqtrade, which few modules need

    gate = Gate(server)
    yield gate
    gate.close()


@pytest.fixture
def world(server: LocalExchange, front: Gate, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """What a fault is made on, as new."""
    from support.faults import a_world  # noqa: PLC0415 - as above

    with a_world(server, front, monkeypatch) as world:
        yield world
