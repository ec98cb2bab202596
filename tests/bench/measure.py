"""What all of the benchmark measures with: processes, medians, and what a figure is."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from support.commands import without_own_settings

T = TypeVar("T")
Figure = dict[str, Any]
Kind = Literal["processor time", "wall time", "count"]


class Spent(NamedTuple):
    """What a process took, in seconds: the processor time is that of all of its threads."""

    processor: float
    wall: float


def figure(
    what: str,
    ours: float,
    others: Mapping[str, float],
    *,
    ratio: float | None,
    target: str,
    reached: bool | None,
    rounds: int,
    kind: Kind,
    unit: str = "s",
    note: str = "",
) -> Figure:
    """Return one row of the table; `reached` is None where there is nothing to reach."""
    return {
        "what": what,
        "ours": ours,
        "others": dict(others),
        "ratio": ratio,
        "target": target,
        "reached": reached,
        "rounds": rounds,
        "note": note,
        "unit": unit,
        "kind": kind,
    }


def environment(**more: str) -> dict[str, str]:
    """Return the variables for a process: without anybody's own credentials, and `more`."""
    return without_own_settings() | more


def run(words: Sequence[str], folder: Path, statuses: Sequence[int] = (0,)) -> Spent:
    """Run a process to its end, and return what it took.

    :raises RuntimeError: where its exit status is none of `statuses`.
    """
    with (folder / "output.log").open("w+b") as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            words, cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in statuses:
            log.seek(0)
            end = log.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{words} ended with {process.returncode}:\n{end}")
    return Spent(usage.ru_utime + usage.ru_stime, wall)


def alternately(tasks: Mapping[str, Callable[[], T]], rounds: int, warm_up: int = 1) -> dict[str, list[T]]:
    """Return what each task gave in each round, all of them run in turn in each; the first rounds warm up."""
    given: dict[str, list[T]] = {name: [] for name in tasks}
    for number in range(warm_up + rounds):
        for name, task in tasks.items():
            result = task()
            if number >= warm_up:
                given[name].append(result)
    return given


def median_ratio(ours: Sequence[float], other: Sequence[float]) -> float:
    """Return the median of the rounds' ratios: what slows a machine for a while slows both of a round."""
    return statistics.median(one / two for one, two in zip(ours, other, strict=True))
