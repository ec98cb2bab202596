"""Alerts as a user gets them: a real freqtrade whose webhook points at a receiver on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.bot import config_for, freqtrade

from freqtrade_isolated_margin.localexchange import AccountSpec, LocalExchange, MarketSpec

pytestmark = pytest.mark.timeout(300)

PAIRS = ["BTC/USDT", "SOL/USDT", "XRP/USDT"]

LOOPING_STRATEGY = """
class Tested(IsolatedMarginMixin, Base, IStrategy):
    def bot_loop_start(self, current_time, **kwargs):
        log.info("LOOP")
"""


class Receiver:
    """What a webhook has been sent, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.news = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with receiver.news:
                    receiver.lines += body["text"].split("\n")
                    receiver.news.notify_all()
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wait_for(self, count: int, timeout: float = 90.0) -> list[str]:
        """Wait until there are so many lines; return them."""
        with self.news:
            assert self.news.wait_for(lambda: len(self.lines) >= count, timeout), self.lines
            return list(self.lines)

    @property
    def config(self) -> dict[str, Any]:
        """The section of freqtrade's configuration that points here."""
        url = f"http://127.0.0.1:{self.server.server_port}/"
        return {
            "enabled": True,
            "url": url,
            "format": "json",
            "strategy_msg": {"text": "{msg}"},
            "allow_custom_messages": True,
        }


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Listen on loopback."""
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


@pytest.fixture
def exchange() -> Iterator[LocalExchange]:
    """Serve three pairs at a price of 100: a healthy account, one at level 1.2, and none."""
    with LocalExchange(
        scenario="calm", markets=[MarketSpec(pair, price="100") for pair in PAIRS]
    ) as exchange:
        for pair in PAIRS:
            exchange.remove_account(pair)
        exchange.set_account("BTC/USDT", AccountSpec(base_free="30", quote_borrowed="1000"))
        exchange.set_account("SOL/USDT", AccountSpec(base_free="12", quote_borrowed="1000"))
        yield exchange


def at_level(exchange: LocalExchange, level: str) -> None:
    """Put BTC/USDT's account at a margin level."""
    exchange.set_account("BTC/USDT", AccountSpec(base_free=str(float(level) * 10), quote_borrowed="1000"))


def test_what_a_webhook_gets(exchange: LocalExchange, receiver: Receiver, tmp_path: Path) -> None:
    """A block is told once with its numbers, flicker is not, the way back once, an outage in two lines."""
    expected = [
        # First sight: the pair that is blocked, and nothing of the others.
        (
            "SOL/USDT: block. No entries: margin level 1.2 ≤ 1.25 (`block_below`). Margin level 1.2, "
            "index price 100, liquidation price 87.5, distance 12.5 %, status EXCESSIVE."
        ),
        (
            "BTC/USDT: block, was allow; distance to liquidation 15.32 %, was 65 %. No entries: margin level "
            "1.24 ≤ 1.25 (`block_below`). Margin level 1.24, index price 100, liquidation price 84.67741935, "
            "distance 15.32 %, status EXCESSIVE."
        ),
        (
            "BTC/USDT: back to normal; allow, was block. Entries are allowed: margin level 3 ≥ 2 "
            "(`full_above`); liquidation distance 65 % ≥ 20 % (`full_above`). Margin level 3, index "
            "price 100, liquidation price 35, distance 65 %, status EXCESSIVE."
        ),
    ]
    with freqtrade(tmp_path, config_for(exchange, PAIRS, webhook=receiver.config), LOOPING_STRATEGY) as bot:

        def go_round(times: int) -> None:
            line = len(bot.lines)
            for _ in range(times):
                line = bot.wait_for("LOOP", after=line)

        assert receiver.wait_for(1) == expected[:1]
        at_level(exchange, "1.24")
        assert receiver.wait_for(2) == expected[:2]
        for level in ("1.26", "1.24", "1.26"):
            before = len(bot.lines)
            at_level(exchange, level)
            bot.wait_for(f"BTC/USDT long: .*margin level {level} ", after=before)
        at_level(exchange, "3")
        assert receiver.wait_for(3) == expected
        exchange.stop()
        outage = receiver.wait_for(4)[3]
        assert outage.startswith(
            "Isolated margin accounts have not been readable for more than 5 s: Binance cannot be reached: "
            "the connection is refused; since "
        )
        assert outage.endswith(" UTC. No entries into any pair until they are.")
        go_round(2)
        exchange.restart()
        assert receiver.wait_for(5)[4].startswith("Isolated margin accounts are readable again, after ")
        go_round(3)
        assert len(receiver.lines) == 5
