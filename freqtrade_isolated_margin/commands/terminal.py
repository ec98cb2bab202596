"""What the commands print on: any terminal, a table as wide as there is room, how far long work is."""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from freqtrade_isolated_margin.errors import IsolatedMarginError, UnavailableError

if TYPE_CHECKING:
    from rich.console import Console


_STEPS = 200
_WITHOUT_TERMINAL = 160
# What a terminal without these gets instead; anything else that it cannot print becomes a question mark.
_INSTEAD = str.maketrans(
    {
        "≥": ">=", "≤": "<=", "→": "->", "←": "<-", "×": "x", "…": "...", "–": "-", "—": "-", "−": "-",
        "·": "-", "•": "*", "█": "#", "▄": "#", "▀": "#", "░": ".", "▌": "#", "▐": "#", "²": "2", "✓": "ok",
    }
)  # fmt: skip


def print_anything() -> None:
    """Let the standard streams replace what they cannot print, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_REPLACING)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    part = error.object[error.start : error.end].translate(_INSTEAD)
    # What stands for a character may itself be one that this terminal does not have.
    return part.encode("ascii", "replace").decode("ascii"), error.end


_REPLACING = "freqtrade_isolated_margin"
codecs.register_error(_REPLACING, _replace)


def print_unexpected(error: Exception, *, as_json: bool = False) -> None:
    """Say on one line what ended a command unforeseen, without its words: they may hold a secret."""
    place = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" ({os.path.basename(place[0].filename)}:{place[0].lineno})" if place else ""  # noqa: PTH119
    reason = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
    print_error(IsolatedMarginError(f"unexpected {type(error).__name__}{where}{reason}"), as_json=as_json)


def output(*, stderr: bool = False) -> Console:
    """Return the standard output, or the other, as wide as a table needs it where it is no terminal."""
    from rich.console import Console  # noqa: PLC0415 - only where something is drawn
    from rich.text import Text  # noqa: PLC0415 - as above

    class Output(Console):
        def render_str(self, text: str, **how: Any) -> Text:  # noqa: ANN401 - as rich has it
            """Replace what cannot be printed before it is laid out: a table counts on its width."""
            printable = text.encode(self.encoding, _REPLACING).decode(self.encoding)
            return super().render_str(printable, **how)

        def on_broken_pipe(self) -> None:
            """Leave it to the command: rich would end the process with the status of a blocked pair."""
            raise BrokenPipeError

    console = Output(stderr=stderr)
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
    from rich.progress import (  # noqa: PLC0415 - only where it is shown
        BarColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = output(stderr=True)
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
    console = output(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(what):
        yield
