"""A real freqtrade in a process of its own, on the local exchange: what the end-to-end tests run."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests
from sqlalchemy import create_engine, text

from freqtrade_isolated_margin.commands.demo_bot import free_port
from freqtrade_isolated_margin.localexchange import LocalExchange
from support.commands import without_own_settings

BASE_STRATEGY = """
from freqtrade.strategy import IStrategy

class Base(IStrategy):
    timeframe = "1m"
    minimal_roi = {}
    stoploss = -0.99
    order_types = {"entry": "limit", "exit": "market", "stoploss": "market", "stoploss_on_exchange": False}

    def populate_indicators(self, dataframe, metadata):
        return dataframe

    def populate_entry_trend(self, dataframe, metadata):
        dataframe["enter_long"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe, metadata):
        return dataframe
"""
"""Enters in every candle and never leaves."""

STRATEGY_HEAD = f"""
import logging
import threading
from datetime import datetime, timedelta, timezone
from freqtrade.persistence import Trade
from freqtrade_isolated_margin import IsolatedMarginMixin
{BASE_STRATEGY}
log = logging.getLogger("test_strategy")
"""
"""What the text of every strategy begins with."""

PLAIN_STRATEGY = """
class Tested(IsolatedMarginMixin, Base, IStrategy):
    pass
"""


def config_for(exchange: LocalExchange | None, pairs: list[str], **changes: Any) -> dict[str, Any]:
    """Return a complete configuration of a dry run on `exchange`, with `changes` merged in at the top."""
    config: dict[str, Any] = {
        "dry_run": True,
        "initial_state": "running",
        "dry_run_wallet": 10000,
        "stake_currency": "USDT",
        "stake_amount": 100,
        "max_open_trades": 20,
        "timeframe": "1m",
        "entry_pricing": {"price_side": "other", "use_order_book": True, "order_book_top": 1},
        "exit_pricing": {"price_side": "other", "use_order_book": True, "order_book_top": 1},
        "pairlists": [{"method": "StaticPairList"}],
        "exchange": {
            "name": "binance",
            "key": exchange.key if exchange else "",
            "secret": exchange.secret if exchange else "",
            "enable_ws": False,
            "pair_whitelist": pairs,
            "ccxt_config": {
                "urls": {"api": exchange.ccxt_urls if exchange else {}},
                "options": {"fetchMarkets": {"types": ["spot"]}},
            },
        },
        "isolated_margin": {"refresh_seconds": 0.5, "max_age_seconds": 5},
        "internals": {"process_throttle_secs": 1},
    }
    return config | changes


class FreqtradeProcess:
    """A running freqtrade whose output is read as it comes."""

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        strategy: str,
        *command: str,
        more_environment: Mapping[str, str | None] | None = None,
        module: str = "freqtrade",
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        (folder / "user_data" / "strategies").mkdir(parents=True, exist_ok=True)
        (folder / "user_data" / "strategies" / "tested.py").write_text(STRATEGY_HEAD + strategy)
        (folder / "config.json").write_text(json.dumps(self._complete(config)))
        words = command or ("trade",)
        # Its strategies are named by whoever asks it.
        named = () if words[0] == "webserver" else ("--strategy", "Tested")
        # None takes a variable away.
        wanted = {"COLUMNS": "1000", **(more_environment or {})}
        environment = {
            name: value for name, value in (without_own_settings() | wanted).items() if value is not None
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, words[0], "-c", "config.json", "--userdir", "user_data",
             *named, *words[1:]],
            cwd=folder, env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self._reader.start()

    def _complete(self, config: Mapping[str, Any]) -> dict[str, Any]:
        api = {
            "enabled": True,
            "listen_ip_address": "127.0.0.1",
            "listen_port": self.port,
            "verbosity": "error",
            "jwt_secret_key": "for-a-test-on-loopback-only-0123456789",
            "username": "test",
            "password": "test",
        }
        return {"db_url": f"sqlite:///{self.folder / 'trades.sqlite'}", "api_server": api, **config}

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.rstrip())
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    @property
    def output(self) -> str:
        """Everything that it has printed so far."""
        return "\n".join(self.lines)

    def wait_for(self, pattern: str, *, after: int = 0, timeout: float = 90.0) -> int:
        """Wait for a line that matches and return the number of lines up to it; fail if the process ends."""
        found = re.compile(pattern)

        def position() -> int | None:
            hits = (number for number, line in enumerate(self.lines[after:], after + 1) if found.search(line))
            return next(hits, None)

        with self._news:
            self._news.wait_for(lambda: position() or not self._reader.is_alive(), timeout)
            place = position()
        assert place, f"no line matches {pattern!r}\n{self.output[-2500:]}"
        return place

    def wait(self, timeout: float = 90.0) -> int:
        """Wait for its end; return the exit status."""
        status = self.process.wait(timeout)
        self._reader.join(10)
        if self.process.stdout:
            self.process.stdout.close()
        return status

    def api(self, method: str, path: str, **payload: Any) -> Any:
        """Ask freqtrade's REST API."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}"
        answer = requests.request(method, url, auth=("test", "test"), json=payload or None, timeout=20)
        return answer.json()

    def guard_locks(self) -> dict[str, str]:
        """Return the reasons of the guard's locks by pair, as freqtrade's API shows them."""
        locks = self.api("GET", "locks")["locks"]
        return {
            lock["pair"]: lock["reason"] for lock in locks if lock["reason"].startswith("isolated margin: ")
        }

    def wait_for_locks(self, *pairs: str, loops: int = 8) -> dict[str, str]:
        """Wait until exactly these pairs are locked by the guard, for some loops of the bot.

        A lock ends with its candle and is renewed in the next loop: one look may fall between. The
        strategy must log LOOP.
        """
        line = len(self.lines)
        for _ in range(loops):
            locks = self.guard_locks()
            if set(locks) == set(pairs):
                return locks
            line = self.wait_for("LOOP", after=line)
        raise AssertionError(f"the guard locks {sorted(locks)}, not {sorted(pairs)}")

    def rows(self, query: str) -> list[Any]:
        """Ask freqtrade's database."""
        engine = create_engine(f"sqlite:///{self.folder / 'trades.sqlite'}")
        try:
            with engine.connect() as connection:
                return [tuple(row) for row in connection.execute(text(query))]
        finally:
            engine.dispose()

    def stop(self) -> int:
        """End it as Ctrl-C would."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                self.process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                return self.wait(30)
        raise AssertionError("freqtrade does not end")


@contextmanager
def freqtrade(
    folder: Path,
    config: Mapping[str, Any],
    strategy: str = PLAIN_STRATEGY,
    *command: str,
    more_environment: Mapping[str, str | None] | None = None,
    module: str = "freqtrade",
) -> Iterator[FreqtradeProcess]:
    """Run freqtrade, or another `module` that is started like it, in `folder` until the block ends."""
    bot = FreqtradeProcess(
        folder, config, strategy, *command, more_environment=more_environment, module=module
    )
    try:
        yield bot
    finally:
        bot.stop()
