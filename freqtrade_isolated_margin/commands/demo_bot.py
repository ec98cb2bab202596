"""A real freqtrade in a process of its own, for the demos: on the local exchange, with a REST API to ask."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import requests
from sqlalchemy import create_engine, text

from freqtrade_isolated_margin.localexchange import LocalExchange
from freqtrade_isolated_margin.rules.settings import SECTION


def end_on_a_signal() -> None:
    """Let whoever ends the demo with a signal get the same clean end as with Ctrl-C."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@dataclass
class Bot:
    """A running freqtrade, its database and its REST API."""

    process: subprocess.Popen[bytes]
    folder: Path
    port: int
    password: str = field(repr=False)

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self.process.pid

    @property
    def log(self) -> Path:
        """What it prints."""
        return self.folder / "freqtrade.log"

    @property
    def database(self) -> str:
        """The URL of its database."""
        return f"sqlite:///{self.folder / 'trades.sqlite'}"

    def log_tail(self) -> str:
        """Return the last lines that it printed."""
        return "\n".join(self.log_text().splitlines()[-25:])

    def log_text(self) -> str:
        """Return all that it has printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def ask(self, what: str) -> Any:  # noqa: ANN401 - JSON
        """Ask its REST API."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{what}"
        answer = requests.get(url, auth=("demo", self.password), timeout=10)
        answer.raise_for_status()
        return answer.json()

    def locks(self) -> set[str]:
        """Return the pairs that are locked by the guard now, as its REST API says."""
        prefix = f"{SECTION.replace('_', ' ')}: "
        return {lock["pair"] for lock in self.ask("locks")["locks"] if lock["reason"].startswith(prefix)}

    def tell(self, what: str, **payload: Any) -> Any:  # noqa: ANN401 - JSON
        """Ask its REST API for an action; an answer that is an error has the word `error`."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{what}"
        return requests.post(url, json=payload, auth=("demo", self.password), timeout=30).json()

    def rows(self, query: str) -> list[Any]:
        """Ask its database; nothing where it has no tables yet."""
        engine = create_engine(self.database)
        try:
            with engine.connect() as connection:
                return list(connection.execute(text(query)).all())
        except Exception:  # noqa: BLE001 - the tables are not there in the first moments
            return []
        finally:
            engine.dispose()


@contextmanager
def running(
    words: Sequence[str], folder: Path, exchange: LocalExchange, module: str = "freqtrade"
) -> Iterator[Bot]:
    """Run `python -m module trade` with these words, redirected to `exchange`, until the block ends."""
    port, password = free_port(), secrets.token_urlsafe(24)
    file = folder / "redirect.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(_reachable(folder, exchange, port, password)), encoding="utf-8")
    command = [sys.executable, "-m", module, "trade", *words, "--config", str(file)]
    command += ["--datadir", str(folder / "data")]
    # Nothing of the person's own settings may reach the demo's bot.
    own = ("FREQTRADE__", "ISOLATED_MARGIN_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    # freqtrade breaks its lines by this, and the demos look for what they say.
    environment["COLUMNS"] = "1000"
    with (folder / "freqtrade.log").open("wb") as log:
        # In a session of its own: Ctrl-C is for the demo, which then ends the bot in good order.
        process = subprocess.Popen(  # noqa: S603 - our own interpreter
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
        )
        try:
            yield Bot(process, folder, port, password)
        finally:
            _end(process)


def _reachable(folder: Path, exchange: LocalExchange, port: int, password: str) -> dict[str, Any]:
    return {
        "db_url": f"sqlite:///{folder / 'trades.sqlite'}",
        "exchange": {
            "key": exchange.key,
            "secret": exchange.secret,
            "ccxt_config": {
                "urls": {"api": exchange.ccxt_urls},
                "options": {"fetchMarkets": {"types": ["spot"]}},
            },
        },
        "api_server": {
            "enabled": True,
            "listen_ip_address": "127.0.0.1",
            "listen_port": port,
            "verbosity": "error",
            "jwt_secret_key": secrets.token_urlsafe(32),
            "username": "demo",
            "password": password,
        },
    }


def free_port() -> int:
    """Return a port on 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
            return
