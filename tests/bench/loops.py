"""A bot's loop with the mixin and without; and how soon an entry is refused after a change."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, Self

from freqtrade_isolated_margin.localexchange import LocalExchange
from freqtrade_isolated_margin.rules.settings import SECTION

from .exchange import BAD, HEALTHY, configure, exchange, names, strategies
from .measure import Figure, environment, figure, median_ratio

_ROOT = Path(__file__).parents[2]
_MOST_SHARE, _MOST_SECONDS = 1.01, 0.001
_MOST_SHARE_WITH_A_CANDLE = 1.05
_REFRESH, _THROTTLE = 1.0, 0.25


class Bot:
    """A bot in a process of its own (`bench.bot`)."""

    def __init__(self, folder: Path, config: Path, strategy: str) -> None:
        self._log = (folder / f"{strategy}.log").open("w+b")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.bot", str(config), str(folder), strategy],
            cwd=_ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
            text=True,
        )  # fmt: skip

    def do(self, word: str) -> dict[str, Any]:
        """Tell it a word of `bench.bot` and return its answer."""
        if not self._process.stdin or not self._process.stdout:
            raise RuntimeError("a bot without pipes")
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            self._log.seek(0)
            raise RuntimeError(f"a bot has ended:\n{self._log.read().decode(errors='replace')[-3000:]}")
        return dict(json.loads(answer))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        with self._log:
            self._process.communicate(timeout=60)


class _Loops(NamedTuple):
    """The loops of one kind, by round."""

    guarded: list[dict[str, Any]]
    plain: list[dict[str, Any]]

    def column(self, name: str) -> tuple[list[float], list[float]]:
        return [loop[name] for loop in self.guarded], [loop[name] for loop in self.plain]


@contextmanager
def _both(local: LocalExchange, pairs: list[str], root: Path) -> Iterator[dict[str, Bot]]:
    """Start a bot with the mixin, and one without, each with its own database."""
    bots = {}
    for strategy in ("Guarded", "Plain"):
        folder = root / strategy
        strategies(folder)
        config = configure(folder, local, pairs, **{SECTION: {"refresh_seconds": 0.5, "max_age_seconds": 30}})
        bots[strategy] = Bot(folder, config, strategy)
    with bots["Guarded"], bots["Plain"]:
        yield bots


def _measure(bots: dict[str, Bot], kinds: tuple[str, ...], rounds: int) -> dict[str, _Loops]:
    found = {kind: _Loops([], []) for kind in kinds}
    for number in range(rounds + 2):
        # Who is first changes: the second finds warm caches of the processor.
        for name in sorted(bots, reverse=number % 2 == 0):
            for kind in kinds:
                loop = bots[name].do(kind)
                if number > 1:
                    getattr(found[kind], name.lower()).append(loop)
    return found


_KINDS = {
    "again": "the accounts are as in the loop before",
    "fresh": "the accounts have just been read anew",
    "candle": "a candle has closed: every pair is analysed",
}


def loops(count: int = 100, rounds: int = 40) -> list[Figure]:
    """Time loops of real bots on so many pairs, all healthy and then all blocked."""
    pairs = names(count)
    figures = []
    with (
        tempfile.TemporaryDirectory() as name,
        exchange(pairs) as local,
        _both(local, pairs, Path(name)) as bots,
    ):
        for state, account in (("all healthy", HEALTHY), ("all blocked", BAD)):
            for pair in pairs:
                local.set_account(pair, account)
            locked = _settle(bots["Guarded"], 0 if account is HEALTHY else count)
            found = _measure(bots, ("fresh", "again", "again"), rounds) | _measure(
                bots, ("candle",), max(rounds // 4, 2)
            )
            for kind, when in _KINDS.items():
                what = f"a bot's loop, {count} pairs, {state}; {when}"
                figures.append(_of(what, found[kind], locked, steady=kind != "candle"))
    return figures


def _settle(bot: Bot, expected: int) -> int:
    """Wait until so many pairs are locked."""
    for _ in range(20):
        locked = int(bot.do("fresh")["locked"])
        if locked == expected:
            return locked
    raise RuntimeError(f"{locked} pairs are locked, not {expected}")


def _of(what: str, found: _Loops, locked: int, *, steady: bool) -> Figure:
    processor, wall = found.column("processor"), found.column("wall")
    mine, theirs = map(statistics.median, processor)
    part = statistics.median(loop["part"] for loop in found.guarded)
    bare = statistics.median(loop["part"] for loop in found.plain)
    ratio = median_ratio(*processor)
    more = (ratio - 1) * theirs
    most = _MOST_SHARE if steady else _MOST_SHARE_WITH_A_CANDLE
    return figure(
        what,
        mine,
        {"without the mixin": theirs},
        ratio=ratio,
        target=f"under {round((most - 1) * 100)} % more" + (", and under 1 ms" if steady else ""),
        reached=ratio < most and (more < _MOST_SECONDS or not steady),
        rounds=len(found.plain),
        kind="processor time",
        note=(
            f"{more * 1e3:.2f} ms more, of which {(part - bare) * 1e3:.2f} ms are the mixin's own part; by "
            f"wall time {median_ratio(*wall):.3f}. {locked} pairs were locked."
        ),
    )


# ----- from a change on the exchange to the refusal


def reaction(trials: int = 60, count: int = 12) -> list[Figure]:
    """Make healthy accounts bad at random moments, and see when the bot no more enters."""
    rnd, pairs = Random(1), names(count)
    with tempfile.TemporaryDirectory() as name, exchange(pairs) as local:
        folder = Path(name)
        strategies(folder, entries='dataframe["enter_long"] = 1')
        section = {"refresh_seconds": _REFRESH, "max_age_seconds": 30, "charts": False}
        config = configure(folder, local, pairs, **{SECTION: section})
        with Bot(folder, config, "Guarded") as bot:
            bot.do("fresh")
            took, longest = _trials(bot, local, pairs, rnd, trials)
    worst, usual = max(took), statistics.median(took)
    most = _REFRESH + longest
    return [
        figure(
            "from a change on the exchange to the refusal of an entry, the longest",
            worst,
            {"refresh_seconds": _REFRESH, "one refresh and one loop": most},
            ratio=worst / most,
            target="never more than one refresh and one loop",
            reached=worst <= most,
            rounds=trials,
            kind="wall time",
            note=(
                f"{trials} changes at random moments; median {usual:.2f} s. "
                f"A loop took up to {longest:.2f} s, the pause of {_THROTTLE:g} s included. "
                "Refused is what the bot's loop no more orders."
            ),
        )
    ]


def _trials(
    bot: Bot, local: LocalExchange, pairs: list[str], rnd: Random, trials: int
) -> tuple[list[float], float]:
    """Return the seconds until the end of the first loop that enters no more, and the longest loop's."""
    took: list[float] = []
    changed: dict[str, float] = {}
    free, loops_ = set(pairs), [time.monotonic()]
    due = time.monotonic() + rnd.uniform(0, _REFRESH)
    while len(took) < trials:
        pause = time.monotonic() + _THROTTLE
        while time.monotonic() < pause:
            if time.monotonic() >= due and free:
                pair = rnd.choice(sorted(free))
                free.remove(pair)
                local.set_account(pair, BAD)
                changed[pair] = time.monotonic()
                due = changed[pair] + rnd.uniform(0, _REFRESH)
            time.sleep(0.002)
        loop = bot.do("again")
        loops_.append(loop["ended"])
        entered = set(loop["entered"])
        for pair, since in list(changed.items()):
            if since < loop["begun"] and pair not in entered:
                took.append(loop["ended"] - since)
                del changed[pair]
                local.set_account(pair, HEALTHY)
        free |= entered - changed.keys()
    return took[:trials], max(two - one for one, two in pairwise(loops_))
