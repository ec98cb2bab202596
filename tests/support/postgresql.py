"""A PostgreSQL of the test run's own, where the server is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, make_url, text

from freqtrade_isolated_margin.commands.demo_bot import free_port

MISSING = "PostgreSQL is not installed: what is tested on it is not tested in this run"


def server_folder() -> Path | None:
    """Return where PostgreSQL's programs are; None where there are none."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "pg_ctl").is_file()), None)


def _as_server(folder: Path, *command: str) -> None:
    # It refuses to run as root.
    user = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=60, **user)


class PostgreSQL:
    """A running server; each database on it is made when it is asked for."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._folder = folder
        self._control = str(programs / "pg_ctl")
        self._port = free_port()
        self._made = 0
        _as_server(folder, str(programs / "initdb"), "-D", str(folder / "data"), "-A", "trust", "-U", "test")

    def start(self) -> None:
        """Start it, or start it again."""
        options = f"-p {self._port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        log = str(self._folder / "log")
        data = str(self._folder / "data")
        _as_server(self._folder, self._control, "-D", data, "-o", options, "-l", log, "-w", "start")

    def stop(self) -> None:
        """Stop it, as its end by accident would, without waiting for those who are connected."""
        data = str(self._folder / "data")
        _as_server(self._folder, self._control, "-D", data, "-m", "immediate", "-w", "stop")

    def new_database(self) -> str:
        """Make a database; return its URL."""
        self._made += 1
        name = f"test{self._made}"
        self._run(f"CREATE DATABASE {name}")
        return f"{self._base}/{name}"

    def remove_database(self, url: str) -> None:
        """Remove a database; fail if it is still in use, by a connection that nobody has closed."""
        # The server itself gives those that are about to end five seconds.
        self._run(f"DROP DATABASE {make_url(url).database}")

    @property
    def _base(self) -> str:
        return f"postgresql+psycopg://test@127.0.0.1:{self._port}"

    def _run(self, statement: str) -> None:
        engine = create_engine(f"{self._base}/postgres", isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.execute(text(statement))
        finally:
            engine.dispose()


@contextmanager
def postgresql(programs: Path) -> Iterator[PostgreSQL]:
    """Run a server until the block ends."""
    # The path of its socket must be short.
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as name:
        folder = Path(name)
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody", "nogroup")
        server = PostgreSQL(folder, programs)
        server.start()
        try:
            yield server
        finally:
            server.stop()
