"""What can go wrong, as data: every row of the fault matrix, how it is made, and what is expected of it."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pytest
import requests
from freqtrade.enums import RunMode

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.binance import adapter as adapter_module
from freqtrade_isolated_margin.binance.adapter import IsolatedMarginAdapter
from freqtrade_isolated_margin.binance.clock import Moment
from freqtrade_isolated_margin.binance.credentials import Credentials
from freqtrade_isolated_margin.binance.reader import Reader
from freqtrade_isolated_margin.guard import monitor as monitor_module
from freqtrade_isolated_margin.guard.guard import Guard
from freqtrade_isolated_margin.guard.monitor import Monitor
from freqtrade_isolated_margin.localexchange import AccountSpec, Fault, LocalExchange, MarketSpec
from freqtrade_isolated_margin.rules.settings import Settings
from support.builders import redirected
from support.strategies import Plain

TARGET, OTHER = "BTC/USDT", "ETH/USDT"
ACCOUNT = "/sapi/v1/margin/isolated/account"
BINANCE = "https://api.binance.com"
JsonObject = dict[str, Any]

# ----- what a fault can be made on


class Mode(StrEnum):
    """How the gate treats connections."""

    FORWARD = "forward"
    REFUSE = "refuse"
    SILENT = "silent"
    DROP = "drop"
    GARBAGE = "garbage"
    TRICKLE = "trickle"


class Gate:
    """A plain TCP server in front of the exchange's margin endpoints, with good and bad manners.

    It remembers the signatures of all requests that went through it.
    """

    def __init__(self, exchange: LocalExchange) -> None:
        self._target = exchange._listener.port
        self._mode = Mode.FORWARD
        self._changed = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._claim = _bound(0)
        self.port = self._claim.getsockname()[1]
        self._listener: socket.socket | None = None
        self.signatures: set[str] = set()
        self._listen()

    @property
    def sapi(self) -> str:
        """What stands in a ccxt configuration at `urls.api.sapi`."""
        return f"http://127.0.0.1:{self.port}/sapi/v1"

    def be(self, mode: Mode) -> None:
        """Drop every connection, and treat new ones in this way."""
        with self._lock:
            self._mode = mode
            self._changed.set()
            self._changed = threading.Event()
            waiting, self._open = self._open, set()
        for connection in waiting:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        if mode is Mode.REFUSE:
            self._deafen()
        elif self._listener is None:
            self._listen()

    def close(self) -> None:
        """End it."""
        self.be(Mode.REFUSE)
        self._claim.close()

    def _listen(self) -> None:
        self._listener = _bound(self.port)
        self._listener.listen()
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _deafen(self) -> None:
        if self._listener:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                mode, changed = self._mode, self._changed
                self._open.add(connection)
            with suppress(OSError):
                self._treat(connection, mode, changed)

    def _treat(self, connection: socket.socket, mode: Mode, changed: threading.Event) -> None:
        if mode is Mode.DROP:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            connection.close()
        elif mode is Mode.GARBAGE:
            connection.recv(65536)
            connection.sendall(b"\x00\xff no protocol at all\r\n\r\n")
            connection.close()
        elif mode in {Mode.FORWARD, Mode.TRICKLE}:
            server = socket.create_connection(("127.0.0.1", self._target))
            with self._lock:
                self._open.add(server)
            slow = changed if mode is Mode.TRICKLE else None
            for pump in ((connection, server, None), (server, connection, slow)):
                threading.Thread(target=self._pump, args=pump, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, slow: threading.Event | None) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self.signatures.update(found.decode() for found in re.findall(rb"signature=([^& ]+)", data))
                if slow is None:
                    sink.sendall(data)
                    continue
                for byte in data:
                    sink.sendall(bytes([byte]))
                    if slow.wait(_TRICKLE_SECONDS):
                        return
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        with self._lock:
            self._open -= {source, sink}


def _bound(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock


_IMPATIENT_MS = 300
# Less than the time limits of the bots, so that no single byte comes too late.
_TRICKLE_SECONDS = 0.2


class Clock:
    """Both clocks, set by hand."""

    def __init__(self) -> None:
        self.monotonic, self.wall = 1000.0, 1_800_000_000.0

    def __call__(self) -> Moment:
        """Read them."""
        return Moment(self.monotonic, self.wall)

    def pass_by(self, seconds: float) -> None:
        """Let time pass on both."""
        self.monotonic += seconds
        self.wall += seconds


@dataclass
class World:
    """What a fault is made on, in this process or around a bot."""

    exchange: LocalExchange
    gate: Gate
    target: str
    """The pair that a fault of a single pair befalls."""
    patch: pytest.MonkeyPatch | None = None
    """For faults of this process only."""
    sapi: str = ""
    clients: list[Any] = field(default_factory=list)
    """The ccxt clients in use here; `point` redirects them."""

    def __post_init__(self) -> None:
        """Begin without a fault."""
        self.sapi = self.gate.sapi

    def point(self, sapi: str) -> None:
        """Make everything in this process look for the margin endpoints elsewhere."""
        self.sapi = sapi
        for client in self.clients:
            client.urls["api"]["sapi"] = sapi

    def heal(self) -> None:
        """End every fault."""
        self.exchange.clock_offset = 0.0
        self.exchange.faults.clear()
        self.gate.be(Mode.FORWARD)
        self.point(self.gate.sapi)


Inject = Callable[[World], None]


class Scope(StrEnum):
    """Whose entries a fault stops."""

    ALL = "all pairs"
    ONE = "one pair"
    FIELDS = "the pair of each spoilt field"
    NONE = "nobody"


@dataclass(frozen=True, eq=False)
class FaultRow:
    """A row of the matrix."""

    group: str
    name: str
    inject: Inject
    words: str = ""
    """A regular expression that the reason must match."""
    scope: Scope = Scope.ALL
    kind: str = "unavailable"
    """The error kind that `status` ends with, where it can show nothing."""
    bots: bool = False
    """Whether real bots meet it, too."""
    status: bool = True
    """Whether `status` meets it."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    waits: tuple[float, float] | None = None
    """The least seconds from a failed read to the next, for the first and the second failure."""
    may: frozenset[str] = frozenset()
    """Fields that may be so, for a row that spoils each field."""

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"


# ----- ways to make them


def answered(**fault: Any) -> Inject:
    """Spoil the answers of the account endpoint."""
    return lambda world: _add(world, Fault(ACCOUNT, **fault))


def _add(world: World, fault: Fault) -> None:
    world.exchange.faults.add(fault)


def gate(mode: Mode) -> Inject:
    """Treat connections badly."""
    return lambda world: world.gate.be(mode)


def silence(world: World) -> None:
    """Take connections and never answer; whoever waits in this process waits as short as a test does."""
    if world.patch:
        impatient(world.patch)
    for client in world.clients:
        client.timeout = _IMPATIENT_MS
    world.gate.be(Mode.SILENT)


def as_binance(inject: Inject) -> Inject:
    """Let ccxt believe that it talks to api.binance.com: it then has another table of errors."""

    def make(world: World) -> None:
        original = requests.adapters.HTTPAdapter.send
        here = world.gate.sapi.removesuffix("/sapi/v1")

        def send(self: Any, request: Any, *more: Any, **options: Any) -> Any:
            if request.url.startswith(BINANCE):
                request = request.copy()
                request.url = request.url.replace(BINANCE, here, 1)
            return original(self, request, *more, **options)

        assert world.patch
        world.patch.setattr(requests.adapters.HTTPAdapter, "send", send)
        world.point(f"{BINANCE}/sapi/v1")
        inject(world)

    return make


def after_a_spot_call(inject: Inject) -> Inject:
    """Let a private spot call succeed on the client first: ccxt then calls -2015 something else."""

    def make(world: World) -> None:
        for client in world.clients:
            client.private_get_account()
            assert client.options["hasAlreadyAuthenticatedSuccessfully"]
        inject(world)

    return make


def no_name(world: World) -> None:
    """Look for a host whose name does not exist, without asking anybody outside of this machine."""
    original = socket.getaddrinfo

    def resolve(host: Any, *more: Any, **options: Any) -> Any:
        if str(host).endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return original(host, *more, **options)

    assert world.patch
    world.patch.setattr(socket, "getaddrinfo", resolve)
    world.point("https://nothing.invalid/sapi/v1")


def no_tls(world: World) -> None:
    """Speak TLS to a server that does not."""
    world.point(world.sapi.replace("http:", "https:"))


def clock(seconds: float) -> Inject:
    """Set the exchange's clock ahead."""

    def make(world: World) -> None:
        world.exchange.clock_offset = seconds

    return make


def row_of(world: World, change: Callable[[JsonObject], object]) -> Inject:
    """Change the row of the target in every answer."""
    symbol = world.target.replace("/", "")

    def transform(content: JsonObject) -> JsonObject:
        rows = []
        for row in content["assets"]:
            changed = change(row) if row["symbol"] == symbol else [row]
            rows += changed if isinstance(changed, list) else [row]
        return content | {"assets": rows}

    return answered(transform=transform)


def changed(change: Callable[[JsonObject], object]) -> Inject:
    """Change the target's row in place; a list returned replaces it."""
    return lambda world: row_of(world, change)(world)


def with_fields(**fields: Any) -> Inject:
    """Set fields of the target's row; dotted names by two underscores."""

    def change(row: JsonObject) -> None:
        for name, value in fields.items():
            *outer, inner = name.split("__")
            (row[outer[0]] if outer else row)[inner] = value

    return changed(change)


def account(**spec: str) -> Inject:
    """Replace the target's account on the exchange."""
    return lambda world: world.exchange.set_account(world.target, AccountSpec(**spec))


def both(*injects: Inject) -> Inject:
    """Make several at once."""

    def make(world: World) -> None:
        for inject in injects:
            inject(world)

    return make


# ----- fields

_NUMBERS = ["marginLevel", "marginRatio", "indexPrice", "liquidatePrice", "liquidateRate"]
_FLAGS = ["isolatedCreated", "enabled", "tradeEnabled"]
_ASSET_NUMBERS = ["free", "locked", "borrowed", "interest", "netAsset", "netAssetOfBtc", "totalAsset"]
_ASSET_FLAGS = ["borrowEnabled", "repayEnabled"]
_SIDES = ["baseAsset", "quoteAsset"]
NUMBERS = _NUMBERS + [f"{side}.{name}" for side in _SIDES for name in _ASSET_NUMBERS]
FIELDS = (
    [*_FLAGS, "marginLevelStatus", *_SIDES, *NUMBERS]
    + [f"{side}.{name}" for side in _SIDES for name in _ASSET_FLAGS]
    + [f"{side}.asset" for side in _SIDES]
)
"""Every field of a row but its symbol."""

FIELD_PAIRS = {f"F{number:02}/USDT": name for number, name in enumerate(FIELDS)}
"""The pair whose row has the field spoilt, so that one answer has every field spoilt once."""

WELL = AccountSpec(base_free="30", quote_borrowed="1000")
"""At a price of 100: margin level 3, entered in full."""


def markets(*pairs: str) -> list[MarketSpec]:
    """Make markets at a price of 100."""
    return [MarketSpec(pair, price="100") for pair in pairs]


def each_field(value: object, names: list[str] | None = None) -> Inject:
    """Spoil one field in the row of each field's pair: `value` itself, what it returns, or gone for `...`."""
    spoilt = {pair.replace("/", ""): name for pair, name in FIELD_PAIRS.items() if name in (names or FIELDS)}

    def transform(content: JsonObject) -> None:
        for row in content["assets"]:
            if row["symbol"] in spoilt:
                *outer, inner = spoilt[row["symbol"]].split(".")
                place = row[outer[0]] if outer else row
                if value is ...:
                    del place[inner]
                else:
                    place[inner] = value(place[inner]) if callable(value) else value

    return answered(transform=transform)


def _other_type(value: object) -> object:
    return 5 if isinstance(value, str) else "true" if isinstance(value, bool) else "an object"


def _without_symbol(world: World) -> None:
    def transform(content: JsonObject) -> None:
        del content["assets"][0]["symbol"]

    world.exchange.faults.add(Fault(ACCOUNT, transform=transform))


def _spoilt(name: str, value: object, words: str, names: list[str] | None = None, *may: str) -> FaultRow:
    return FaultRow("Every field", name, each_field(value, names), words, Scope.FIELDS, may=frozenset(may))


# ----- rows

_GOOD_BODY = b'{"assets":[{"symbol":"BTCUSDT","isolatedCreated":true,"marginLevel":"3.0'
_REACHED = "Binance cannot be reached: "

_NETWORK = [
    FaultRow("Network", "connection refused", gate(Mode.REFUSE), f"{_REACHED}the connection is refused",
             bots=True, waits=(10, 20)),
    FaultRow("Network", "connection dropped as soon as it is accepted", gate(Mode.DROP),
             f"{_REACHED}the connection breaks off"),
    FaultRow("Network", "connection reset in the middle of the body", answered(reset=True),
             f"{_REACHED}the connection (breaks off|fails)", bots=True),
    FaultRow("Network", "bytes that are no HTTP", gate(Mode.GARBAGE), f"{_REACHED}the connection fails"),
    FaultRow("Network", "name does not resolve (DNS)", no_name,
             f"{_REACHED}the host's name does not resolve"),
    FaultRow("Network", "TLS fails", no_tls, f"{_REACHED}TLS fails"),
    FaultRow("Network", "connection accepted, request never answered", silence,
             f"{_REACHED}no answer in time|the account is \\d+ s old", bots=True),
    FaultRow("Network", "answer that trickles, a byte at a time", gate(Mode.TRICKLE),
             "the account is \\d+ s old", bots=True, status=False),
]  # fmt: skip

_BODIES = [
    FaultRow("Status 200", name, answered(body=body), words, kind=kind, bots=bots)
    for name, body, words, kind, bots in [
        ("empty body", b"", "does not answer with the account|not a JSON object", "answer", False),
        ("HTML", b"<html><body>maintenance</body></html>", "not a JSON object", "answer", False),
        ("truncated JSON", _GOOD_BODY, "not a JSON object", "answer", True),
        ("null", b"null", "not a JSON object", "answer", False),
        ("a list", b"[]", "not a JSON object", "answer", False),
        ("a number", b"5", "not a JSON object", "answer", False),
        ("a text", b'"maintenance"', "not a JSON object", "answer", False),
        ("an object without accounts", b"{}", "no list of accounts", "answer", False),
        ("an error object", b'{"code":-1000,"msg":"An unknown error occurred."}', "code -1000", "unavailable",
         False),
        ("a number of ten thousand digits, not quoted", b'{"assets":[],"totalAssetOfBtc":' + b"9" * 10_000
         + b"}", "not a JSON object", "answer", False),
        ("a hundred thousand brackets", b"[" * 100_000, "reading fails|not a JSON object|cannot be asked",
         "answer", False),
    ]
]  # fmt: skip

_CREDENTIAL_CODES = {-1022, -2008, -2014, -2015}
_CODES = [-1003, -1021, -1022, -1102, -1121, -2008, -2014, -2015, -3003, -3999, -11001]


def _code_row(code: int, inject: Inject, where: str, *, bots: bool = False, status: bool = True) -> FaultRow:
    refused = code in _CREDENTIAL_CODES
    words = f"refuses the credentials \\(HTTP 400, code {code}" if refused else f"HTTP 400, code {code}\\)"
    kind = "credentials" if refused else "unavailable"
    name = f"400 with {code}{where}"
    return FaultRow("Binance's errors", name, inject, words, kind=kind, bots=bots, status=status)


_ERRORS = [
    *(_code_row(code, answered(code=code, status=400), "", bots=code in {-1021, -2015}) for code in _CODES),
    *(
        _code_row(code, as_binance(answered(code=code, status=400)), " (ccxt's table of api.binance.com)")
        for code in _CODES
    ),
    _code_row(
        -2015,
        after_a_spot_call(answered(code=-2015, status=400)),
        " after a private spot call succeeded",
        status=False,
    ),
    _code_row(
        -2015,
        as_binance(after_a_spot_call(answered(code=-2015, status=400))),
        " after a private spot call succeeded (ccxt's table of api.binance.com)",
        status=False,
    ),
]

# What Retry-After says, and what it means: three days at most.
_WAITS = [(None, 0.0), ("15", 15.0), ("9" * 30, 259_200.0)]
_UNSAID = {429: 60.0, 418: 120.0}


def _http_row(status: int, said: str | None = None, asked: float = 0.0) -> FaultRow:
    shown = (
        "" if said is None else f" with Retry-After {said[:4]}" + ("… (30 digits)" if len(said) > 4 else "")
    )
    refused = status == 401
    asked = asked or _UNSAID.get(status, 0.0)
    # A limit is met more slowly the second time; an ordinary failure is met at 10 and 20 seconds.
    second = min(2 * asked, max(asked, 600.0)) if status in _UNSAID else max(20.0, asked)
    return FaultRow(
        "HTTP status",
        f"{status}{shown}",
        answered(status=status, body=b"{}", headers={} if said is None else {"Retry-After": said}),
        f"refuses the credentials \\(HTTP {status}\\)" if refused else f"\\(HTTP {status}\\)",
        kind="credentials" if refused else "unavailable",
        bots=(status, said) in {(429, "2"), (503, None)},
        waits=(max(10.0, asked), max(10.0, second)),
    )


_STATUSES = [
    *(_http_row(status) for status in (401, 403, 404, 451, 500, 502, 503, 504)),
    *(_http_row(status, *wait) for status in (418, 429) for wait in _WAITS),
    _http_row(429, "2", 2.0),
    *(_http_row(503, *wait) for wait in _WAITS[1:]),
    FaultRow("HTTP status", "302 to another host", answered(status=302, body=b"",
             headers={"Location": "http://nothing.invalid/"}), "Binance (cannot be asked|does not answer)"),
]  # fmt: skip

_CLOCKS = [
    FaultRow("Clock", "the exchange's five minutes ahead", clock(300), scope=Scope.NONE),
    FaultRow("Clock", "the exchange's five minutes behind", clock(-300), scope=Scope.NONE),
    FaultRow("Clock", "-1021 whatever the clock says", answered(code=-1021, status=400), "code -1021"),
]

_FEW = {"without_account": "block"}


def _twice(row: JsonObject) -> list[JsonObject]:
    return [row, dict(row)]


def _another(row: JsonObject) -> list[JsonObject]:
    return [row | {"symbol": "XRPUSDT"}]


def _placeholder(row: JsonObject) -> None:
    nothing = dict.fromkeys(_ASSET_NUMBERS, "0")
    row |= {"isolatedCreated": False, "enabled": False, "liquidatePrice": "0", "liquidateRate": "0"}
    for side in _SIDES:
        row[side] |= nothing


def _placeholder_that_owes(row: JsonObject) -> None:
    row |= {"isolatedCreated": False, "enabled": False, "tradeEnabled": False}


def _other_users_assets(row: JsonObject) -> None:
    row["baseAsset"]["asset"] = "DOGE"


_ROWS = [
    FaultRow("Rows", "missing", changed(lambda _: []), "has (a|no) row for it", Scope.ONE, bots=True),
    FaultRow("Rows", "twice", changed(_twice), "its row came twice", Scope.ONE),
    FaultRow("Rows", "of another pair in its place", changed(_another), "has (a|no) row for it", Scope.ONE),
    FaultRow("Rows", "without a symbol", _without_symbol, "a row without a symbol", kind="answer"),
    FaultRow("Rows", "no object", answered(transform=lambda _: {"assets": [None]}), "a row without a symbol",
             kind="answer"),
    FaultRow("Rows", 'placeholder (`without_account` is "block")', changed(_placeholder),
             "no isolated margin account \\(without_account: block\\)", Scope.ONE, settings=_FEW),
    FaultRow("Rows", 'placeholder (`without_account` is "allow")', changed(_placeholder),
             "no isolated margin account \\(without_account: allow\\)", Scope.NONE),
    FaultRow("Rows", "placeholder that owes", changed(_placeholder_that_owes), "trading is disabled",
             Scope.ONE),
    FaultRow("Rows", "with the assets of another pair", changed(_other_users_assets),
             "its assets are not those of its symbol", Scope.ONE),
]  # fmt: skip

_FIELDS = [
    _spoilt("missing", ..., "Field required|is missing", None, "enabled"),
    _spoilt("null", None, "null|plain decimal|valid"),
    _spoilt("of another type", _other_type, "valid|plain decimal|not one that Binance documents"),
    _spoilt("negative", "-1", "negative|contradict", NUMBERS, "liquidateRate", "baseAsset.netAssetOfBtc",
            "quoteAsset.netAssetOfBtc"),
    _spoilt("NaN", "NaN", "not a plain decimal", NUMBERS),
    FaultRow("Every field", "NaN in one field, not quoted", with_fields(marginLevel=float("nan")),
             "not a JSON object", kind="answer"),
    _spoilt("Infinity", "Infinity", "not a plain decimal", NUMBERS),
    _spoilt("1e400", "1e400", "not a plain decimal", NUMBERS),
    _spoilt("ten thousand digits", "9" * 10_000, "not a plain decimal", NUMBERS),
    _spoilt("full-width digits", "\uff11\uff12", "not a plain decimal", NUMBERS),
]  # fmt: skip

_CONTRADICTS = "the account contradicts itself: "

_FIGURES = [
    FaultRow("Figures", "a number of ten thousand digits in one row",
             with_fields(marginLevel="9" * 10_000), "not a plain decimal", Scope.ONE, bots=True),
    FaultRow("Figures", "an unknown status", with_fields(marginLevelStatus="FINE"),
             "its status 'FINE' is not one that Binance documents", Scope.ONE, bots=True),
    FaultRow("Figures", "level 0 with debt", with_fields(marginLevel="0"),
             f"{_CONTRADICTS}its margin level 0 is 3 at its index price", Scope.ONE),
    FaultRow("Figures", "level 0 without debt", both(account(base_free="30"), with_fields(marginLevel="0")),
             "no debt", Scope.NONE),
    FaultRow("Figures", "liquidation price on the wrong side", with_fields(liquidatePrice="120"),
             f"{_CONTRADICTS}its liquidation price", Scope.ONE),
    FaultRow("Figures", "liquidation price 0 with debt", with_fields(liquidatePrice="0"),
             f"{_CONTRADICTS}it owes, but its liquidation price is 0", Scope.ONE),
    FaultRow("Figures", "index price 0", with_fields(indexPrice="0"), f"{_CONTRADICTS}its index price is 0",
             Scope.ONE),
    FaultRow("Figures", "free and locked are not totalAsset", with_fields(baseAsset__free="29"),
             "totalAsset of BTC is not free \\+ locked", Scope.ONE),
    FaultRow("Figures", "totalAsset less debt is not netAsset", with_fields(quoteAsset__borrowed="999"),
             "netAsset of USDT is not totalAsset - borrowed - interest", Scope.ONE),
    FaultRow("Figures", "level 3 % above that at the index price", with_fields(marginLevel="3.09"),
             f"{_CONTRADICTS}its margin level 3.09 is 3 at its index price", Scope.ONE, bots=True),
    FaultRow("Figures", "level 3 % below that at the index price", with_fields(marginLevel="2.91"),
             f"{_CONTRADICTS}its margin level 2.91 is 3 at its index price", Scope.ONE),
    FaultRow("Figures", "level 1 % above that at the index price", with_fields(marginLevel="3.03"),
             "margin level 3", Scope.NONE),
]  # fmt: skip

ROWS: list[FaultRow] = [
    *_NETWORK, *_BODIES, *_ERRORS, *_STATUSES, *_CLOCKS, *_ROWS, *_FIELDS, *_FIGURES,
]  # fmt: skip
"""The faults that one injects and then reads; those of the house are told in `test_fault_matrix`."""


def impatient(patch: pytest.MonkeyPatch) -> None:
    """Let the guard wait as short for an answer as a test does."""
    patch.setattr(adapter_module, "_TIMEOUT_MS", _IMPATIENT_MS)


# ----- the mixin in this process


class Driver:
    """The real mixin, guard, monitor and adapter, with clocks and reads in the hands of a test."""

    def __init__(
        self, world: World, settings: dict[str, Any], pairs: list[str], strategy: type[Plain] = Plain
    ) -> None:
        self.world, self.pairs, self.clock = world, pairs, Clock()
        self.settings = Settings.load(settings)
        self.monitor = Monitor(self._reader, float(self.settings.refresh_seconds), clock=self.clock)
        self.monitor.watch(pairs)
        self.guard = Guard(self.settings, self.monitor)
        self.strategy = strategy({"runmode": RunMode.DRY_RUN, "exchange": {"name": "binance"}})
        self.strategy._margin_judge, self.strategy._margin_told = self.guard, {}
        # Not started: the test itself is its thread.
        self._worker = monitor_module._Worker(self.monitor._serve)

    def _reader(self) -> Reader:
        section = redirected(self.world.exchange.url)
        section["ccxt_config"]["urls"]["api"]["sapi"] = self.world.sapi
        key = Credentials(self.world.exchange.key, self.world.exchange.secret, "test")
        adapter = IsolatedMarginAdapter(key, exchange=section)
        self.world.clients.append(adapter._client)
        return Reader(adapter, self.clock)

    def read(self) -> float:
        """Read once, and return the seconds to the next read."""
        return self.monitor._note(self.monitor._read(self._worker))

    def entered(self, pair: str = TARGET) -> bool:
        """Ask the strategy as freqtrade does, and return whether it lets an entry happen in full."""
        shared = {"pair": pair, "side": "long", "current_time": datetime.now(UTC), "entry_tag": None}
        stake = self.strategy.custom_stake_amount(
            **shared, current_rate=100.0, proposed_stake=100.0, min_stake=5.0, max_stake=1000.0, leverage=1.0
        )
        confirmed = self.strategy.confirm_trade_entry(
            **shared, order_type="limit", amount=1.0, rate=100.0, time_in_force="GTC"
        )
        assert (stake, confirmed) in {(100.0, True), (0.0, False)}
        return bool(confirmed)

    def reason(self, pair: str = TARGET) -> str:
        """Return why."""
        return "; ".join(self.guard.decision(pair, Side.LONG).reasons)

    def reads_until_entered(self, *pairs: str) -> int:
        """Return after how many reads entries are possible again."""
        for count in range(1, 6):
            self.read()
            if all(self.entered(pair) for pair in pairs or (TARGET,)):
                return count
        raise AssertionError(f"no recovery: {self.reason()}")

    def close(self) -> None:
        """Let go of everything."""
        self.monitor.stop()
        if self._worker.reader:
            self._worker.reader.close()


@contextmanager
def serving() -> Iterator[LocalExchange]:
    """Serve a market and an account for every field of a row, and two more."""
    with LocalExchange(scenario="calm", markets=markets(TARGET, OTHER, *FIELD_PAIRS)) as running:
        yield running


@contextmanager
def a_world(exchange: LocalExchange, front: Gate, patch: pytest.MonkeyPatch) -> Iterator[World]:
    """Give what a fault is made on, as new, with waits that are not spread."""
    exchange.weights._windows.clear()
    for pair in (TARGET, OTHER, *FIELD_PAIRS):
        exchange.set_account(pair, WELL)
    patch.setattr(monitor_module.random, "uniform", lambda low, _high: low)
    with patch.context() as own:
        world = World(exchange, front, TARGET, own)
        yield world
    world.heal()
