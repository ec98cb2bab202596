"""`freqtrade-isolated-margin watch`: a live table of the accounts, by danger, until somebody ends it."""

from __future__ import annotations

import argparse
import io
import logging
import os
import select
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, redirect_stderr
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.account.records import PairAccount, Row
from freqtrade_isolated_margin.binance.adapter import WEIGHT_LIMIT
from freqtrade_isolated_margin.binance.clock import milliseconds
from freqtrade_isolated_margin.binance.reader import Snapshot
from freqtrade_isolated_margin.commands.board import SECONDS_KEPT, Levels, Order, Sample, View, draw, row_of
from freqtrade_isolated_margin.commands.configuration import load_config, load_settings
from freqtrade_isolated_margin.commands.sources import Pairs, reader_maker
from freqtrade_isolated_margin.errors import SettingsError
from freqtrade_isolated_margin.guard.guard import Guard
from freqtrade_isolated_margin.guard.monitor import Monitor
from freqtrade_isolated_margin.history.asking import open_history
from freqtrade_isolated_margin.history.tables import ROW_SECONDS
from freqtrade_isolated_margin.hosts.wiring import check_funding, own_key_id
from freqtrade_isolated_margin.rules.decide import Outcome
from freqtrade_isolated_margin.rules.settings import Settings, spot_pair

logger = logging.getLogger(__name__)


EXIT_ENDED = 0
_TICK_SECONDS = 0.5
# A request that is under way when somebody wants to leave is not worth waiting for.
_LEAVE_SECONDS = 0.2
# The end of what would have been said on the screen while the table stood there.
_LINES_HELD = 20


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit status."""
    config = load_config(arguments)
    settings = load_settings(config, arguments.strategy)
    watch = Watch(config, settings, arguments.pairs, Side(arguments.side))
    with _signals(signal.SIGINT, signal.SIGTERM, signal.SIGWINCH, signal.SIGTSTP) as signals:
        try:
            if _is_full_screen():
                _show(watch, signals)
            else:
                _tell(watch, signals)
        finally:
            watch.close()
    return EXIT_ENDED


# ----- what is watched


class Watch:
    """Reads the accounts as a bot with this configuration does, and stores and places nothing."""

    def __init__(self, config: dict[str, Any], settings: Settings, asked: Sequence[str], side: Side) -> None:
        check_funding(config, settings)
        self._config = config
        self._settings = settings
        self._side = side
        self._max_age = float(settings.max_age_seconds)
        self._pairs = Pairs(config, asked)
        make_reader = reader_maker(config, settings, self._pairs)
        monitor = Monitor(make_reader, float(settings.refresh_seconds), borrowed=settings.borrows)
        self._guard = Guard(settings, monitor)
        self._order = Order()
        self._levels = Levels(float(settings.refresh_seconds), self._max_age)
        self._snapshot: Snapshot | None = None
        self._recalled: set[str] = set()
        self._found: SimpleQueue[tuple[str, list[Sample]]] = SimpleQueue()

    def close(self) -> None:
        """End reading."""
        self._guard.monitor.stop(_LEAVE_SECONDS)

    def look(self) -> View:
        """Return what there is to see now.

        :raises SettingsError: where the exchange has told that a setting is impossible.
        """
        monitor = self._guard.monitor
        # Again and again, as a bot does: it begins anew where the thread that reads hangs.
        monitor.start()
        if isinstance(monitor.problem, SettingsError):
            raise monitor.problem
        look = self._guard.look()
        snapshot, now = look.snapshot, look.now
        self._take_in(snapshot)
        rows = []
        for pair in self._pairs.shown:
            decision = look.decision(pair, self._side)
            rows.append(row_of(decision, look.reading(pair), self._settings.rules_for(pair), self._max_age))
        return View(
            now=now.date,
            rows=self._order.sorted(rows),
            levels=self._levels,
            read_age=snapshot.asked_at.age(now) if snapshot else None,
            max_age_seconds=self._max_age,
            trouble=look.trouble,
            used_weight=snapshot.used_weight if snapshot else None,
            weight_limit=WEIGHT_LIMIT,
            notes=list(self._notes(snapshot)),
        )

    def news(self, view: View, told: dict[str, Outcome]) -> Iterator[str]:
        """Yield a line for each pair whose verdict is not the one that was told of it, and note it."""
        for row in view.rows:
            decision = row.decision
            waiting = self._guard.is_waiting(decision)
            if not waiting and told.get(row.pair) is not decision.outcome:
                told[row.pair] = decision.outcome
                yield f"{view.now:%Y-%m-%d %H:%M:%S} UTC {decision}"

    def _notes(self, snapshot: Snapshot | None) -> Iterator[str]:
        if not self._settings.enabled:
            yield 'The guard is off ("enabled": false): no entry is refused by the above.'
        if snapshot and not self._pairs.shown:
            yield "No pair to show: no account, or an empty whitelist."

    def _take_in(self, snapshot: Snapshot | None) -> None:
        """Keep the levels of a new read, and what was found of the hour before."""
        if snapshot and snapshot is not self._snapshot:
            self._snapshot = snapshot
            for pair, row in snapshot.rows.items():
                self._levels.add(pair, [Sample(snapshot.asked_at_of(pair).wall, _level(row))])
        new = set(self._pairs.shown) - self._recalled
        if new and self._settings.history.enabled:
            self._recalled |= new
            # In a thread of its own: the database may be slow, or gone.
            threading.Thread(target=self._recall, args=(sorted(new),), daemon=True).start()
        while not self._found.empty():
            self._levels.add(*self._found.get())

    def _recall(self, pairs: Collection[str]) -> None:
        now = milliseconds(datetime.now(UTC))
        hour, minutes = round(SECONDS_KEPT * 1000), 10 * ROW_SECONDS * 1000
        fine = max(round(float(self._settings.refresh_seconds) * 1000), 1000)
        moments = sorted({*range(now - hour, now, ROW_SECONDS * 1000), *range(now - minutes, now, fine)})
        # Not stricter than the bars are wide: another bot may have read less often.
        longest = max(self._max_age, float(ROW_SECONDS))
        try:
            with closing(open_history(self._settings.history, self._config)) as history:
                history.check()
                keys = history.keys(self._settings.history.keys, own_key_id(self._config))
                for pair in pairs:
                    stored = history.as_of(spot_pair(pair), moments, longest, keys)
                    reads = {known.read_at: known for known in stored if known}
                    samples = [Sample(at / 1000, _level(known.row)) for at, known in reads.items()]
                    self._found.put((pair, samples))
        except Exception as error:  # noqa: BLE001 - without a history the lines begin now
            logger.debug("The levels of the last hour are not known (%s).", type(error).__name__)


def _level(row: Row | None) -> float | None:
    if not isinstance(row, PairAccount) or row.is_absent or not row.can_be_liquidated:
        return None
    return float(row.margin_level)


# ----- the terminal


def _is_full_screen() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "") not in {"", "dumb", "unknown"}


def _tell(watch: Watch, signals: socket.socket) -> None:
    """Print a line for each change of a verdict, until a signal ends it: a log has no use for pictures."""
    told: dict[str, Outcome] = {}
    while True:
        for line in watch.news(watch.look(), told):
            print(line, flush=True)  # noqa: T201 - the command's output
        ready, _, _ = select.select([signals], [], [], _TICK_SECONDS)
        if ready and {*signals.recv(1024)} & {signal.SIGINT, signal.SIGTERM}:
            return


def _show(watch: Watch, signals: socket.socket) -> None:
    """Show the table on the whole screen, until a signal or a key ends it."""
    held = _Held()
    try:
        while not _shown(watch, signals, held):
            # Ctrl-Z: the terminal is as it was before; when the shell says so, it goes on below.
            os.kill(os.getpid(), signal.SIGSTOP)
    finally:
        for line in held.lines:
            print(line, file=sys.stderr)  # noqa: T201 - what the table was in the way of


def _shown(watch: Watch, signals: socket.socket, held: _Held) -> bool:
    """Show the table; return True where it is to end, False where it is to be interrupted."""
    from rich.console import Console  # noqa: PLC0415 - not for a log
    from rich.live import Live  # noqa: PLC0415

    with ExitStack() as stack:
        keys = [stack.enter_context(_keys(sys.stdin.fileno()))] if _has_keys() else []
        stack.enter_context(redirect_stderr(held))
        console = Console(force_terminal=True)
        live = stack.enter_context(
            Live(
                console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
            )
        )
        while True:
            live.update(draw(watch.look(), *console.size), refresh=True)
            awaited: list[socket.socket | int] = [signals, *keys]
            ready, _, _ = select.select(awaited, [], [], _TICK_SECONDS)
            if signals in ready:
                came = {*signals.recv(1024)}
                if came & {signal.SIGINT, signal.SIGTERM}:
                    return True
                if signal.SIGTSTP in came:
                    return False
            if keys and keys[0] in ready:
                pressed = os.read(keys[0], 1024)
                if b"q" in pressed.lower():
                    return True
                if not pressed:
                    # Nobody types any more.
                    keys.clear()


def _has_keys() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


@contextmanager
def _keys(terminal: int) -> Iterator[int]:
    """Hand out single keys as they are pressed, and show none of them; the terminal is restored after."""
    import termios  # noqa: PLC0415 - not for a log
    import tty  # noqa: PLC0415

    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal, termios.TCSANOW)
        yield terminal
    finally:
        # What was typed here is not meant for the shell.
        termios.tcflush(terminal, termios.TCIFLUSH)
        termios.tcsetattr(terminal, termios.TCSANOW, before)


@contextmanager
def _signals(*numbers: signal.Signals) -> Iterator[socket.socket]:
    """Turn signals into bytes, their numbers, that can be waited for, so that they interrupt nothing."""
    receiver, sender = socket.socketpair()
    before: dict[signal.Signals, Any] = {}
    with receiver, sender:
        sender.setblocking(False)
        wakeup = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        try:
            for number in numbers:
                # Whoever starts it may have said that one does not count, as a shell without jobs does.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    before[number] = signal.signal(number, lambda *_: None)
            yield receiver
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup)


class _Held(io.TextIOBase):
    """Keeps the last lines that are written to it: on the screen they would stand in the table."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=_LINES_HELD)
        self._rest = ""

    def write(self, text: str) -> int:
        """Keep what is written."""
        *lines, self._rest = (self._rest + text).split("\n")
        self.lines.extend(lines)
        return len(text)
