"""How requests are read, checked and weighed."""

import math
import re
import time
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from urllib.parse import parse_qsl

from .errors import BinanceError, illegal, mandatory
from .keys import ApiKey
from .state import State

_INTEGER = re.compile(r"[0-9]{1,20}")
_DECIMAL = re.compile(r"([0-9]{1,20})(\.[0-9]{1,20})?")
_DEFAULT_RECV_WINDOW = Decimal(5000)
_MAX_RECV_WINDOW = Decimal(60000)
_AHEAD_MS = 1000
_MINUTE = 60.0


class Security(Enum):
    """What an endpoint asks of a request, in Binance's words."""

    NONE = "NONE"
    MARKET_DATA = "MARKET_DATA"
    """The key, without a signature."""
    USER_DATA = "USER_DATA"
    TRADE = "TRADE"
    MARGIN = "MARGIN"


_NEEDED = {
    Security.USER_DATA: "enableReading",
    Security.TRADE: "enableSpotAndMarginTrading",
    Security.MARGIN: "enableMargin",
}
"""The permission of the key that each takes. That borrowing by an order takes none of its own is assumed."""


class Parameters(dict[str, str]):
    """The parameters of a request. Unknown ones are never looked at."""

    def text(self, name: str) -> str:
        """Return a mandatory parameter."""
        value = self.get(name, "")
        if not value:
            raise mandatory(name)
        return value

    def integer(self, name: str) -> int | None:
        """Return an optional whole number."""
        value = self.get(name)
        if not value:
            return None
        if not _INTEGER.fullmatch(value):
            raise illegal(name, "^[0-9]{1,20}$")
        return int(value)

    def limit(self, default: int, largest: int) -> int:
        """Return how many rows are asked for; more than the most is the most."""
        return min(self.integer("limit") or default, largest)

    def decimal(self, name: str) -> Decimal | None:
        """Return an optional decimal number."""
        value = self.get(name)
        if not value:
            return None
        if not _DECIMAL.fullmatch(value):
            raise illegal(name, "^([0-9]{1,20})(\\.[0-9]{1,20})?$")
        return Decimal(value)


@dataclass(frozen=True)
class Wire:
    """A request as it came over the wire."""

    method: str
    path: str
    query: str
    body: str
    key: str | None
    monotonic: float = field(default_factory=time.monotonic)
    wall: float = field(default_factory=time.time)

    def parameters(self) -> Parameters:
        """All parameters but the signature; the query goes before the body. None comes twice in either."""
        merged = Parameters()
        for part in (self.body, self.query):
            pairs = parse_qsl(part, keep_blank_values=True)
            if len(dict(pairs)) < len(pairs):
                raise BinanceError(-1101)
            merged.update(pairs)
        merged.pop("signature", None)
        return merged

    def readable(self) -> Parameters:
        """Read the parameters as far as they can be, for the journal."""
        merged = Parameters(parse_qsl(self.body) + parse_qsl(self.query))
        merged.pop("signature", None)
        return merged

    def payload_and_signature(self) -> tuple[str, str]:
        """Return what is signed, exactly as it was sent, and the signature."""
        signature, rest = "", []
        for part in (self.query, self.body):
            pieces = part.split("&")
            rest.append("&".join(piece for piece in pieces if not piece.startswith("signature=")))
            signature = next((p[10:] for p in pieces if p.startswith("signature=")), signature)
        return "".join(rest), signature


def authenticate(state: State, wire: Wire, params: Parameters, security: Security) -> ApiKey | None:
    """Check the key, the signature and the timestamp of a request, in this order (which is assumed)."""
    if security is Security.NONE:
        return None
    key = _key(state, wire)
    if security is Security.MARKET_DATA:
        return key
    payload, signature = wire.payload_and_signature()
    timestamp = params.text("timestamp")
    if not signature:
        raise mandatory("signature")
    if not key.verifies(payload, signature):
        raise BinanceError(-1022)
    _check_timestamp(state, params, timestamp)
    _check_permission(key, security)
    return key


def _key(state: State, wire: Wire) -> ApiKey:
    if not wire.key:
        raise BinanceError(-2014)
    key = state.keys.get(wire.key)
    if key is None:
        # Both codes are seen for keys that do not exist; which part of the API answers which is assumed.
        raise BinanceError(-2008 if wire.path.startswith("/sapi/") else -2015)
    return key


def _check_permission(key: ApiKey, security: Security) -> None:
    # Whether reading a margin account takes more than the permission to read is not known: assumed not.
    if not key.may(_NEEDED[security]):
        raise BinanceError(-2015)


def _check_timestamp(state: State, params: Parameters, timestamp: str) -> None:
    if not _INTEGER.fullmatch(timestamp):
        raise illegal("timestamp", "^[0-9]{1,20}$")
    window = _recv_window(params)
    sent, now = int(timestamp), state.told_ms()
    if sent >= now + _AHEAD_MS:
        raise BinanceError(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")
    if now - sent > window:
        raise BinanceError(-1021)


def _recv_window(params: Parameters) -> Decimal:
    window = params.decimal("recvWindow") or _DEFAULT_RECV_WINDOW
    if window > _MAX_RECV_WINDOW:
        raise BinanceError(-1131)
    return window


class Weights:
    """Used weights per minute: one count for all of `/api`, one for each endpoint of `/sapi`.

    An endpoint of `/sapi` counts by IP or by UID (the user), each with a limit of its own. Assumed: a minute
    begins with the first request after the one before is over. So no test can straddle two.
    """

    def __init__(self) -> None:
        self.api_limit = 6000
        self.sapi_limit = 12000
        self.uid_limit = 180000
        self._windows: dict[str, tuple[float, int]] = {}

    def charge(self, path: str, weight: int, now: float, *, by_uid: bool = False) -> dict[str, str]:
        """Count a request and return its weight header; refuse it with 429 where it is over the limit."""
        bucket, limit, name = self._bucket(path, by_uid=by_uid)
        since, used = self._windows.get(bucket, (now, 0))
        if now - since >= _MINUTE:
            since, used = now, 0
        used += weight
        self._windows[bucket] = since, used
        header = {name: str(used)}
        if used > limit:
            wait = max(1, math.ceil(since + _MINUTE - now))
            raise BinanceError(-1003, headers={**header, "Retry-After": str(wait)})
        return header

    def _bucket(self, path: str, *, by_uid: bool) -> tuple[str, int, str]:
        if not path.startswith("/sapi/"):
            return "/api", self.api_limit, "X-MBX-USED-WEIGHT-1M"
        if by_uid:
            return f"UID {path}", self.uid_limit, "X-SAPI-USED-UID-WEIGHT-1M"
        return path, self.sapi_limit, "X-SAPI-USED-IP-WEIGHT-1M"
