"""The exchange as a server: one thread that answers, one that lets time pass, and the reins in Python."""

import asyncio
import contextlib
import itertools
import json
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from types import TracebackType
from typing import Any, Self

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from . import (  # noqa: F401 - they fill the table of routes
    routes_loans,
    routes_margin,
    routes_margin_orders,
    routes_market,
    routes_spot,
    routes_transfers,
)
from .amounts import Number
from .books import Books
from .errors import BinanceError, status_and_message
from .faults import Fault, Faults
from .journal import RequestRecord
from .keys import ApiKey
from .ledger import AccountSpec
from .markets import DEFAULT_MARKETS, MarketSpec
from .orders import OrderBook, OrderRecord
from .protocol import Weights, Wire, authenticate
from .routes import ROUTES, Call
from .routes_margin import ACCOUNT_PATH
from .scenarios import SCENARIOS, Scenario
from .state import State

_TICK_SECONDS = 0.1
_START_SECONDS = 10.0
_STOP_SECONDS = 10.0
_NOT_FOUND = b"<html><head><title>404 Not Found</title></head><body></body></html>"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer before it goes out."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    weight: int = 0

    @classmethod
    def of_json(cls, content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> "Reply":
        """Write an answer as JSON, without blanks, as Binance does."""
        body = json.dumps(content, separators=(",", ":")).encode()
        return cls(status, body, {"Content-Type": "application/json;charset=UTF-8", **(headers or {})})

    @classmethod
    def of_error(cls, error: BinanceError) -> "Reply":
        """Write an error."""
        return cls.of_json(error.body, error.status, error.headers)


class Gateway:
    """Turns requests into replies. It works in the server's thread only, and holds the state meanwhile."""

    def __init__(self, state: State, weights: Weights, faults: Faults) -> None:
        self._state = state
        self._weights = weights
        self._faults = faults

    def fault(self, wire: Wire) -> Fault | None:
        """Return the fault that is to befall a request."""
        return self._faults.take(wire.method, wire.path, wire.readable())

    def reply(self, wire: Wire, fault: Fault | None) -> Reply:
        """Answer a request, as its fault has it, and note it."""
        with self._state.changed:
            replaced = fault is not None and fault.replaces
            if not replaced or (fault is not None and fault.done):
                reply = self._handle(wire)
            if fault is not None and replaced:
                reply = self._faulty(fault)
            if fault and fault.transform and reply.status == 200:  # noqa: PLR2004 - an HTTP status
                reply = _transformed(reply, fault.transform)
            self._record(wire, reply, hidden=fault is not None and fault.hang)
        return reply

    def _handle(self, wire: Wire) -> Reply:
        route = ROUTES.get((wire.method, wire.path))
        if route is None:
            # Assumed: what Binance answers to a path it does not have.
            return Reply(404, _NOT_FOUND, {"Content-Type": "text/html"})
        headers: dict[str, str] = {}
        weight = 0
        try:
            # Assumed: a request that is refused weighs as much as one that is not.
            weight = route.weigh(wire.readable())
            headers = self._weights.charge(wire.path, weight, time.monotonic(), by_uid=route.by_uid)
            params = wire.parameters()
            key = authenticate(self._state, wire, params, route.security)
            reply = Reply.of_json(route.handler(Call(self._state, params, key, wire.method)), headers=headers)
        except BinanceError as error:
            error.headers = {**headers, **error.headers}
            reply = Reply.of_error(error)
        return replace(reply, weight=weight)

    @staticmethod
    def _faulty(fault: Fault) -> Reply:
        if fault.code is None:
            body = fault.body or b""
            kind = "text/html" if body.lstrip().startswith(b"<") else "application/json;charset=UTF-8"
            return Reply(fault.status or 200, body, {"Content-Type": kind, **fault.headers})
        status, message = status_and_message(fault.code)
        content = {"code": fault.code, "msg": fault.msg or message}
        return Reply.of_json(content, fault.status or status, fault.headers)

    def _record(self, wire: Wire, reply: Reply, *, hidden: bool) -> None:
        self._state.records.append(
            RequestRecord(
                monotonic=wire.monotonic,
                wall=wire.wall,
                method=wire.method,
                path=wire.path,
                params=wire.readable(),
                key=wire.key,
                weight=reply.weight,
                status=0 if hidden else reply.status,
                body=reply.body if wire.path == ACCOUNT_PATH else b"",
            )
        )
        self._state.changed.notify_all()


def _transformed(reply: Reply, transform: Callable[[Any], object]) -> Reply:
    content = json.loads(reply.body)
    changed = transform(content)
    body = json.dumps(content if changed is None else changed, separators=(",", ":")).encode()
    return replace(reply, body=body)


def _application(gateway: Gateway, closing: asyncio.Event) -> FastAPI:
    """Make an application with a single route: Binance's table of endpoints is not FastAPI's."""

    async def endpoint(request: Request) -> Response:
        wire = Wire(
            method=request.method,
            path=request.url.path,
            query=request.scope["query_string"].decode("latin-1"),
            body=(await request.body()).decode("latin-1"),
            key=request.headers.get("X-MBX-APIKEY"),
        )
        fault = gateway.fault(wire)
        if fault is not None:
            await _pause(closing, fault.late)
        reply = gateway.reply(wire, fault)
        if fault is None:
            return Response(reply.body, reply.status, dict(reply.headers))
        await _pause(closing, None if fault.hang else fault.delay)
        return _spoiled(reply, fault, closing)

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_api_route("/{path:path}", endpoint, methods=["GET", "POST", "PUT", "DELETE"], response_model=None)
    return app


async def _pause(closing: asyncio.Event, seconds: float | None) -> None:
    """Wait (without an end for None), but not longer than the server lives."""
    if seconds is None or seconds > 0:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(closing.wait(), seconds)


def _spoiled(reply: Reply, fault: Fault, closing: asyncio.Event) -> Response:
    if not (fault.reset or fault.trickle or fault.hang):
        return Response(reply.body, reply.status, dict(reply.headers))
    length = {"Content-Length": str(max(1, len(reply.body)))}
    return StreamingResponse(_pieces(reply.body, fault, closing), reply.status, {**reply.headers, **length})


async def _pieces(body: bytes, fault: Fault, closing: asyncio.Event) -> AsyncIterator[bytes]:
    """Send a body in bad manners. Ending early makes the server close the connection."""
    if fault.hang:
        return
    if fault.trickle is None:
        yield body[: len(body) // 2]
        return
    for index in range(len(body)):
        if closing.is_set():
            return
        yield body[index : index + 1]
        await _pause(closing, fault.trickle)


class _Server(uvicorn.Server):
    """A server that says when it is ready, and stops when it is told to instead of when it next looks."""

    def __init__(self, config: uvicorn.Config, closing: asyncio.Event) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self._closing = closing

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Get ready to answer."""
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        """Look after the server until it is to stop."""
        for counter in itertools.count():
            if await self.on_tick(counter % 864000) or self._closing.is_set():
                return
            await _pause(self._closing, _TICK_SECONDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drop every connection first: one that a fault has left half answered cannot be closed politely."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)
        await super().shutdown(sockets)


class _Listener:
    """The server's thread. The port stays ours while it is stopped, and refuses connections."""

    def __init__(self, gateway: Gateway, port: int) -> None:
        self._gateway = gateway
        self.port = port
        self._claim: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Event | None = None

    def start(self) -> None:
        """Listen, and return when requests are answered."""
        if self._thread is not None:
            return
        if self._claim is None:
            # Bound but not listening: nobody else is given the port between a stop and a restart.
            self._claim = _bound_socket(self.port)
            self.port = self._claim.getsockname()[1]
        sock = _bound_socket(self.port)
        self._closing = asyncio.Event()
        config = uvicorn.Config(
            _application(self._gateway, self._closing),
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        server = _Server(config, self._closing)
        self._thread = threading.Thread(
            target=self._run, args=(server, sock), name="local-exchange", daemon=True
        )
        self._thread.start()
        if not server.ready.wait(_START_SECONDS):
            raise RuntimeError("the local exchange did not start")

    def stop(self) -> None:
        """Stop listening, drop every connection, and wait for the thread to end."""
        if self._thread is None or self._loop is None or self._closing is None:
            return
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(_STOP_SECONDS)
        self._thread = None

    def close(self) -> None:
        """Stop, and give the port back."""
        self.stop()
        if self._claim is not None:
            self._claim.close()

    def _run(self, server: _Server, sock: socket.socket) -> None:
        with sock, asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            runner.run(server.serve(sockets=[sock]))


def _bound_socket(port: int) -> socket.socket:
    # With the protocol named, asyncio turns Nagle's algorithm off; otherwise every answer takes 40 ms.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock


def _set_or_drop(amounts: dict[str, Decimal], name: str, amount: Number | None) -> None:
    if amount is None:
        amounts.pop(name, None)
    else:
        amounts[name] = Decimal(amount)


class LocalExchange:
    """A Binance look-alike on 127.0.0.1; use it as a context manager."""

    def __init__(
        self,
        scenario: str | Scenario = "calm",
        port: int = 0,
        speed: float = 1.0,
        markets: Iterable[MarketSpec] | None = None,
        fee: Number = "0.001",
        permissions: Mapping[str, bool] | None = None,
    ) -> None:
        story = SCENARIOS[scenario] if isinstance(scenario, str) else scenario
        specs = DEFAULT_MARKETS if markets is None else tuple(markets)
        self.state = State(specs, story, speed, Decimal(fee))
        self.weights = Weights()
        self.faults = Faults()
        self._listener = _Listener(Gateway(self.state, self.weights, self.faults), port)
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="local-exchange-clock", daemon=True)
        first = self.add_key(permissions=permissions)
        self.key, self.secret = first.key, first.secret

    def __enter__(self) -> Self:
        """Start to answer."""
        self._listener.start()
        self._ticker.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End both threads."""
        self._ended.set()
        self._listener.close()
        self._ticker.join(_STOP_SECONDS)

    @property
    def url(self) -> str:
        """Address, without a slash at the end."""
        return f"http://127.0.0.1:{self._listener.port}"

    @property
    def ccxt_urls(self) -> dict[str, str]:
        """What stands in a ccxt configuration at `urls.api` to make ccxt talk to this exchange."""
        spot = {"public": "/api/v3", "private": "/api/v3", "v1": "/api/v1"}
        margin = {"sapi": "/sapi/v1", "sapiV2": "/sapi/v2", "sapiV3": "/sapi/v3", "sapiV4": "/sapi/v4"}
        return {name: self.url + path for name, path in (spot | margin).items()}

    def stop(self) -> None:
        """Go away: connections are refused, prices move on, and accounts and orders are kept."""
        self._listener.stop()

    def restart(self) -> None:
        """Come back on the same port."""
        self._listener.stop()
        self._listener.start()

    # Time and prices.

    def start_scenario(self) -> None:
        """Let the scenario begin to move."""
        with self.state.changed:
            self.state.start()

    @property
    def elapsed(self) -> float:
        """Seconds of the scenario that have passed, 0 before its start."""
        with self.state.changed:
            pricing = next(iter(self.state.prices.pricing.values()))
            return pricing.elapsed(self.state.now())

    @property
    def clock_offset(self) -> float:
        """Seconds by which the exchange's clock is ahead of the true one."""
        return self.state.clock_offset

    @clock_offset.setter
    def clock_offset(self, seconds: float) -> None:
        self.state.clock_offset = seconds

    def advance(self, seconds: float) -> None:
        """Let time pass for interest, and for nothing else."""
        with self.state.changed:
            self.state.advance(seconds)

    def price(self, pair: str) -> Decimal:
        """Price of a pair now."""
        with self.state.changed:
            return self.state.price(self.state.pair(pair).symbol)

    def set_price(self, pair: str, price: Number) -> None:
        """Hold a pair at a price from now on, whatever the scenario says. Orders are matched at once."""
        with self.state.changed:
            self.state.set_price(self.state.pair(pair).symbol, Decimal(price))

    # Accounts and orders.

    def set_account(self, pair: str, spec: AccountSpec) -> None:
        """Open an isolated margin account, or replace its contents. Loans set so cost no interest at once.

        Its open orders end: what they locked is no longer there.
        """
        with self.state.changed:
            self.state.set_account(self.state.pair(pair), spec)
            self.state.tick()

    def remove_account(self, pair: str) -> None:
        """Make it as if a pair never had an account."""
        with self.state.changed:
            self.state.remove_account(self.state.pair(pair).symbol)
            self.state.tick()

    def borrow(self, pair: str, asset: str, amount: Number) -> None:
        """Lend to an account, whatever its limits; the first hour of interest is charged at once."""
        with self.state.changed:
            account = self.state.accounts[self.state.pair(pair).symbol]
            self.state.loans.lend(account, asset, Decimal(amount))
            self.state.tick()

    def set_lendable(self, asset: str, amount: Number | None) -> None:
        """Set how much of an asset there is to lend; more is refused with -3045. None: without an end."""
        with self.state.changed:
            _set_or_drop(self.state.loans.lendable, asset, amount)

    def set_least_loan(self, asset: str, amount: Number | None) -> None:
        """Set the least that can be borrowed of an asset. None: a satoshi."""
        with self.state.changed:
            _set_or_drop(self.state.loans.minimum, asset, amount)

    def ban_borrowing(self, asset: str, *, banned: bool = True) -> None:
        """Let nobody borrow an asset any more (-3012), or let them again."""
        with self.state.changed:
            (self.state.loans.banned.add if banned else self.state.loans.banned.discard)(asset)

    def set_liquidity(self, pair: str, quantity: Number | None) -> None:
        """Set how much of a pair still trades by itself, in base; orders use it up. None: without an end.

        With 0 orders rest, and those that may not rest expire; `fill` works nevertheless.
        """
        with self.state.changed:
            _set_or_drop(self.state.book.liquidity, self.state.pair(pair).symbol, quantity)
            self.state.tick()

    def liquidate(self, pair: str) -> None:
        """Force the liquidation of an account at the price of now, whatever its margin level is."""
        with self.state.changed:
            self.state.force_liquidation(self.state.pair(pair).symbol)

    def net_assets(self) -> Books:
        """Add up all assets less all debts of the wallet and the accounts, by asset."""
        with self.state.changed:
            return self.state.net_assets()

    def explained(self) -> Books:
        """Add up what trades, fees, interest and liquidations have changed so far, from the records alone.

        Between two moments this changes by exactly as much as `net_assets`, unless a test has set an account
        or a balance in between.
        """
        with self.state.changed:
            return self.state.explained()

    def account_row(self, symbol: str) -> dict[str, object]:
        """Return the row of an account as it would be served now, for `BTCUSDT` or `BTC/USDT`."""
        with self.state.changed:
            return self.state.account_row(symbol.replace("/", ""))

    def set_balance(self, asset: str, free: Number) -> None:
        """Set what is free in the spot wallet."""
        with self.state.changed:
            self.state.book.balance(asset).free = Decimal(free)

    def balance(self, asset: str) -> tuple[Decimal, Decimal]:
        """Free and locked amount in the spot wallet."""
        with self.state.changed:
            balance = self.state.book.balance(asset)
            return balance.free, balance.locked

    def fill(self, order_id: int, quantity: Number | None = None) -> OrderRecord:
        """Fill an open order, spot or margin, at its own price, in whole or in part."""
        with self.state.changed:
            book = self._book_of(order_id)
            order = book.by_id[order_id]
            amount = order.remaining if quantity is None else Decimal(quantity)
            filled = book.fill(order_id, amount, order.price, self.state.told_ms(), maker=True)
            self.state.changed.notify_all()
            return filled

    def end_order(self, order_id: int, status: str = "EXPIRED") -> OrderRecord:
        """End an open order as the exchange does it by itself: EXPIRED, CANCELED or REJECTED."""
        with self.state.changed:
            ended = self._book_of(order_id).close(order_id, status, self.state.told_ms())
            self.state.changed.notify_all()
            return ended

    def _book_of(self, order_id: int) -> OrderBook:
        margin = self.state.margin_book
        return margin if order_id in margin.by_id else self.state.book

    def add_key(
        self, *, public_key: str | None = None, permissions: Mapping[str, bool] | None = None
    ) -> ApiKey:
        """Give the user another API key, for HMAC, or for Ed25519 or RSA with the PEM of a public key."""
        key = ApiKey(public_key=public_key, permissions=permissions or {})
        with self.state.changed:
            self.state.keys[key.key] = key
        return key

    # What happened.

    @property
    def requests(self) -> tuple[RequestRecord, ...]:
        """All requests so far, oldest first (the last 100,000 of them)."""
        with self.state.changed:
            return tuple(self.state.records)

    @property
    def orders(self) -> tuple[OrderRecord, ...]:
        """All spot orders that were ever accepted, oldest first, as they are now."""
        with self.state.changed:
            return tuple(self.state.book.orders())

    @property
    def margin_orders(self) -> tuple[OrderRecord, ...]:
        """All orders in isolated margin accounts that were ever accepted, oldest first, as they are now."""
        with self.state.changed:
            return tuple(self.state.margin_book.orders())

    def wait_for(self, predicate: Callable[["LocalExchange"], bool], timeout: float = 10.0) -> bool:
        """Wait until something is true; it is looked at after every request, order and tick of prices.

        Returns True; raises TimeoutError where it has not become true in time (in seconds).
        """
        with self.state.changed:
            if not self.state.changed.wait_for(lambda: predicate(self), timeout):
                raise TimeoutError(f"not so within {timeout} seconds")
        return True

    def _tick(self) -> None:
        while not self._ended.wait(_TICK_SECONDS):
            self.state.tick()


def run(port: int = 0, scenario: str = "calm", speed: float = 1.0) -> int:
    """Serve until Ctrl-C or SIGTERM; the scenario starts at once. Prints address, key and secret when ready.

    Returns the exit status, 0. Must be called in the main thread, where signals arrive.
    """
    ended = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda *_: ended.set())
    try:
        with LocalExchange(scenario, port, speed) as exchange:
            exchange.start_scenario()
            print(f"{exchange.url}\nkey: {exchange.key}\nsecret: {exchange.secret}", flush=True)  # noqa: T201
            ended.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0
