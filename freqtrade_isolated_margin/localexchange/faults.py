"""Faults to order: what tests make the exchange do wrong."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

JsonObject = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Fault:
    """Something that goes wrong with matching requests.

    `status`, `body`, `code` and `hang` answer without handling the request, unless it is `done` nevertheless;
    the other kinds handle it and spoil the answer. Kinds can be combined, as a delay before an error.

    What a client may meet when it posts, for the nth request (`skip` + 1) of a method and path:
    refused before any effect (`code`); taken, and the answer lost (`reset`); not taken, and the answer lost
    (`code` with `reset`); taken, and answered as if nobody knew (`code=-1007` with `done`); taken after the
    client has given up (`late`); taken and never answered (`hang` with `done`).
    """

    path: str = "*"
    """A path, or a pattern with `*`."""
    times: int | None = None
    """How many matching requests it befalls; None for all of them."""
    skip: int = 0
    """How many matching requests pass untouched before."""
    method: str | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    """Parameters that a request must have to match."""
    status: int | None = None
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    code: int | None = None
    """A Binance error, with its own message and HTTP status unless `msg` or `status` say otherwise."""
    msg: str = ""
    done: bool = False
    """Handle the request all the same: what it asks for has its effect, and only the answer is another."""
    late: float = 0.0
    """Seconds before the request is handled. It is, even if nobody waits for the answer any more."""
    delay: float = 0.0
    """Seconds before the answer begins."""
    hang: bool = False
    """Take the request and never answer."""
    trickle: float | None = None
    """Seconds between one byte of the body and the next."""
    reset: bool = False
    """Close the connection in the middle of the body."""
    transform: Callable[[Any], object] | None = None
    """Gets the JSON of a good answer and returns what is answered; None if it changed the object in place."""

    @property
    def replaces(self) -> bool:
        """Whether something else is answered than what handling the request would."""
        return self.hang or not (self.status is None and self.body is None and self.code is None)

    def matches(self, method: str, path: str, params: Mapping[str, str]) -> bool:
        """Whether a request is one of those meant."""
        return (
            self.method in {None, method}
            and fnmatchcase(path, self.path)
            and all(params.get(name) == value for name, value in self.params.items())
        )


class Faults:
    """The faults in force. The first that matches befalls the request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[Fault, int] = {}

    def add(self, fault: Fault) -> Fault:
        """Put a fault into force and return it."""
        with self._lock:
            self._seen[fault] = 0
        return fault

    def remove(self, fault: Fault) -> None:
        """End one fault."""
        with self._lock:
            self._seen.pop(fault, None)

    def clear(self) -> None:
        """End all faults."""
        with self._lock:
            self._seen.clear()

    def hits(self, fault: Fault) -> int:
        """How many requests the fault has befallen; 0 again once it has been removed."""
        with self._lock:
            return self._hits(fault)

    def take(self, method: str, path: str, params: Mapping[str, str]) -> Fault | None:
        """Return the fault that befalls a request, and count it."""
        with self._lock:
            for fault in self._seen:
                if fault.matches(method, path, params) and not self._spent(fault):
                    self._seen[fault] += 1
                    if self._seen[fault] > fault.skip:
                        return fault
        return None

    def _hits(self, fault: Fault) -> int:
        return max(0, self._seen.get(fault, 0) - fault.skip)

    def _spent(self, fault: Fault) -> bool:
        return fault.times is not None and self._hits(fault) >= fault.times
