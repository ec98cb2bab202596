"""A real bot in a process of its own that loops when it is told to, and says what each loop took.

``python -m bench.bot CONFIG FOLDER STRATEGY``, then one word a line on its standard input; each is answered
with a line of JSON. Only the thread of the loop counts: the processor time of the guard's threads is not what
freqtrade waits for, and is given apart.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from freqtrade import freqtradebot
from freqtrade.commands.arguments import Arguments
from freqtrade.configuration import Configuration
from freqtrade.exceptions import DependencyException

from freqtrade_isolated_margin.guard.guard import Guard

_FRESH_SECONDS = 30.0


class TimedBot:
    """A bot whose loops are timed, and what of them is the mixin's, or the strategy's, at the same places."""

    def __init__(self, config: str, folder: str, strategy: str) -> None:
        words = ["trade", "-c", config, "--userdir", folder, "--strategy", strategy]
        freqtradebot.strategy_safe_wrapper = self._timing(freqtradebot.strategy_safe_wrapper)
        self._part = 0.0
        self._entered: list[str] = []
        self._seen: object = None
        self.bot = freqtradebot.FreqtradeBot(
            Configuration(Arguments(words).get_parsed_arg(), None).get_config()
        )
        self.bot.startup()
        # An entry that is let through comes this far; it is noted, refused, and tried again in the next loop.
        self.bot.exchange.create_order = self._note_entry

    def _timing(self, wrapper: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(function: Callable[..., Any], *options: Any, **more: Any) -> Callable[..., Any]:
            call = wrapper(function, *options, **more)
            return self._timed(call) if getattr(function, "__name__", "") == "bot_loop_start" else call

        return wrapped

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            started = time.thread_time()
            try:
                return call(*arguments, **named)
            finally:
                self._part += time.thread_time() - started

        return timed

    def _note_entry(self, *, pair: str, **_: object) -> None:
        self._entered.append(pair)
        raise DependencyException("made for the benchmark: no order is placed")

    @property
    def _guard(self) -> Guard | None:
        judge = getattr(self.bot.strategy, "_margin_judge", None)
        return judge if isinstance(judge, Guard) else None

    def do(self, word: str) -> dict[str, Any]:
        """Do what one word asks for: a loop after a new read, or again, or with a new candle; or go on."""
        if word == "fresh":
            self._await_read()
        elif word == "candle":
            # As if a candle had just closed: each pair's dataframe is analysed anew.
            vars(self.bot.strategy)["_IStrategy__last_candle_seen_per_pair"].clear()
        self._part, self._entered = 0.0, []
        begun, started, processor = time.monotonic(), time.perf_counter(), time.thread_time()
        self.bot.process()
        processor, wall = time.thread_time() - processor, time.perf_counter() - started
        guard = self._guard
        self._seen = guard.monitor.snapshot if guard else None
        locks = freqtradebot.PairLocks.get_pair_locks(None, datetime.now(UTC))
        return {
            "processor": processor,
            "wall": wall,
            "part": self._part,
            "begun": begun,
            "ended": time.monotonic(),
            "entered": self._entered,
            "locked": sum(lock.active for lock in locks),
        }

    def _await_read(self) -> None:
        guard, until = self._guard, time.monotonic() + _FRESH_SECONDS
        while guard and guard.monitor.snapshot in (None, self._seen):
            if time.monotonic() > until:
                raise RuntimeError(f"nothing is read: {guard.monitor.trouble}")
            time.sleep(0.01)


def main() -> None:
    """Answer until the standard input ends."""
    # freqtrade prints; what is answered goes past it.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    timed = TimedBot(*sys.argv[1:4])
    try:
        for line in sys.stdin:
            answers.write(json.dumps(timed.do(line.strip())) + "\n")
            answers.flush()
    finally:
        timed.bot.cleanup()


if __name__ == "__main__":
    main()
