"""What the commands print on: a table as wide as there is room; on a terminal also how far long work is."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from freqtrade_isolated_margin.errors import IsolatedMarginError, UnavailableError

if TYPE_CHECKING:
    from rich.console import Console


_STEPS = 200
_WITHOUT_TERMINAL = 160


def output() -> Console:
    """Return the standard output, as wide as a table needs it where it is no terminal."""
    from rich.console import Console  # noqa: PLC0415 - only where a table is printed

    console = Console()
    if not (console.is_terminal or "COLUMNS" in os.environ):
        console.width = _WITHOUT_TERMINAL
    return console


def print_error(error: IsolatedMarginError, *, as_json: bool = False) -> None:
    """Say on one line what ends a command: its kind, what it is, and when to try again, if that is known."""
    if as_json:
        print(json.dumps({"error": {"kind": error.kind, "message": str(error)}}))  # noqa: T201
    else:
        wait = error.retry_after if isinstance(error, UnavailableError) else 0
        again = f"; try again in {wait:.0f} s" if wait else ""
        print(f"{error.kind}: {error}{again}", file=sys.stderr)  # noqa: T201


@contextmanager
def progress(what: str, start: float, end: float) -> Iterator[Callable[[float], None]]:
    """Show a bar while the block runs; what it yields is to be told how far from `start` to `end` one is."""
    from rich.console import Console  # noqa: PLC0415 - only where it is shown
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    console = Console(stderr=True)
    columns = TextColumn(what), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=end - start)
        step = (end - start) / _STEPS
        following = start + step

        def tell(at: float) -> None:
            nonlocal following
            # A million calls must not cost more than what they tell of.
            if at >= following:
                following = at + step
                bar.update(task, completed=at - start)

        yield tell


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Show that something is done while the block runs, of which nobody knows how long it takes."""
    from rich.console import Console  # noqa: PLC0415 - as above

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(what):
        yield
