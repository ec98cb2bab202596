"""A network between a test's own parts that can go silent, and waiting for what happens elsewhere."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any


def until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Return what `condition` returns as soon as that is true; fail if it never is."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"{condition} stays {found!r}"
        time.sleep(0.02)


class Wire:
    """Forwards connections on loopback to another port; while it is `cut`, nothing gets through."""

    def __init__(self, port: int) -> None:
        self._through = threading.Event()
        self._through.set()
        self._lost: list[threading.Event] = []
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._ends: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Let everything that is sent hang, without an error."""
        self._through.clear()

    def lose(self) -> None:
        """Let all that is connected hang, as `cut`; who connects from now on gets through."""
        lost, self._through = self._through, threading.Event()
        self._through.set()
        self._lost.append(lost)
        lost.clear()

    def mend(self) -> None:
        """Let it through again, with what has waited."""
        for through in (*self._lost, self._through):
            through.set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._ends += [near, far]
                through = self._through
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other, through), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket, through: threading.Event) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                through.wait()
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End it, and all that it carries."""
        self.mend()
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextmanager
def wire(port: int) -> Iterator[Wire]:
    """Run a wire to `port` until the block ends."""
    between = Wire(port)
    try:
        yield between
    finally:
        between.close()
