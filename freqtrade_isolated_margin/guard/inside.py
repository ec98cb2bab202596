"""How a wrapper knows that it runs inside another: to be used by the module's name, `inside.callback`.

hyperopt pickles the wrappers by value, and with them what their globals hold: a module goes by its name, and
what belongs to a thread cannot go at all.
"""

from __future__ import annotations

import threading


class Inside(threading.local):
    """Whether this thread is inside a callback of a strategy's own."""

    depth = 0

    @property
    def on(self) -> bool:
        """Whether it is."""
        return self.depth > 0

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *_error: object) -> None:
        self.depth -= 1


callback = Inside()
chart = Inside()
