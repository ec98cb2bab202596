"""The demo's end when somebody does not wait for it; the whole of it runs with the README's commands."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import psutil
import pytest

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.commands.demo import Order, Tally, Verdicts, _compare
from freqtrade_isolated_margin.rules.decide import EntryDecision, Rule

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C, or a kill, while freqtrade starts ends both and leaves no process and no file."""
    process = subprocess.Popen(
        [sys.executable, "-m", "freqtrade_isolated_margin", "demo"],
        cwd=ROOT, env=os.environ | {"TMPDIR": str(tmp_path), "COLUMNS": "200"}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    first = process.stdout.readline()
    (pid,) = re.findall(r"freqtrade is starting \(pid (\d+)\)", first)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert not psutil.pid_exists(int(pid))
    assert list(tmp_path.iterdir()) == []


def test_the_demo_needs_its_configuration(tmp_path: Path) -> None:
    """Outside of a clone the demo says what it misses."""
    command = [sys.executable, "-m", "freqtrade_isolated_margin", "demo"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "--userdir" in done.stdout


class Watched:
    """A watcher that has seen one answer, with the verdicts of a test's choice."""

    def __init__(self, **factors: str) -> None:
        decisions = {}
        for name, factor in factors.items():
            pair = f"{name}/USDT"
            decisions[pair] = EntryDecision.because(pair, Side.LONG, Decimal(factor), Rule.LEVEL, "")
        self.history = [Verdicts(100.0, decisions)]

    def verdicts_at(self, moment: float) -> list[dict[str, EntryDecision]]:
        return [dict(verdicts.decisions) for verdicts in self.history if verdicts.served_at <= moment]


@pytest.mark.parametrize(
    ("value", "full", "shrunk", "wrong"),
    [(99.99, 1, 0, 0), (100.5, 0, 0, 1), (50.0, 0, 0, 1)],
)
def test_an_order_is_compared_with_the_verdict_of_its_moment(
    value: float, full: int, shrunk: int, wrong: int
) -> None:
    """An entry that is not what the verdict makes of the stake is counted as wrong, and fails the demo."""
    tally = Tally()
    _compare(Order("BTC/USDT", 101.0, value), Watched(BTC="1"), 100.0, tally)
    assert (tally.full, tally.shrunk, len(tally.wrong)) == (full, shrunk, wrong)


@pytest.mark.parametrize("value", [100.0, 0.01])
def test_any_order_of_a_blocked_pair_is_wrong(value: float) -> None:
    """While a pair is blocked no entry of any size is right."""
    tally = Tally()
    _compare(Order("BTC/USDT", 101.0, value), Watched(BTC="0"), 100.0, tally)
    assert len(tally.wrong) == 1


def test_the_demos_configuration_is_dry() -> None:
    """The configuration of the demo trades no money, and has no key in it."""
    config = json.loads((ROOT / "user_data" / "config.json").read_text())
    assert config["dry_run"] is True
    assert config["exchange"]["key"] == config["exchange"]["secret"] == ""
