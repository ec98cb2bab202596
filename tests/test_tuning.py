"""docs/tuning.md, command by command, as its reader would go through it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from freqtrade.resolvers import StrategyResolver
from support.commands import COMMAND, ROOT, run

from freqtrade_isolated_margin.commands.demo_bot import free_port

pytestmark = pytest.mark.timeout(300)

TEXT = (ROOT / "docs" / "tuning.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
EXCHANGE = "freqtrade-isolated-margin exchange --port 8123"


@contextmanager
def in_another_terminal(command: str, port: int) -> Iterator[None]:
    """Let the look-alike run, on a port that is free here."""
    words = command.replace("8123", str(port)).split()
    process = subprocess.Popen(
        [str(COMMAND), *words[1:]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        assert process.stdout.readline().strip() == f"http://127.0.0.1:{port}"
        yield
    finally:
        process.terminate()
        process.communicate(timeout=20)


def in_this_terminal(command: str, folder: Path, port: int) -> str:
    """Run a command as it stands; return what it printed, without what depends on the window's width."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = run("sh", "-c", command, cwd=folder, PATH=path, COLUMNS="250")
    assert done.returncode == 0, done.stdout + done.stderr
    if "--write" in command:
        config = folder / "tuning" / "config.json"
        config.write_text(config.read_text().replace("8123", str(port)))
    return plain(done.stdout + done.stderr)


def plain(printed: str) -> str:
    """Make every space between words one."""
    return "\n".join(" ".join(line.split()) for line in printed.splitlines())


def merge(snippet: str, file: Path) -> None:
    """Put a section into a configuration."""
    config: dict[str, Any] = json.loads(file.read_text())
    file.write_text(json.dumps(config | json.loads(snippet)))


def results(printed: str) -> tuple[int, int, dict[str, float]]:
    """Return a backtest's trades, its refused entries, and its profits by pair."""
    rows = re.findall(r"^│ (\S+/USDT|TOTAL) │ (\d+) │ \S+ │ (\S+) │", printed, re.MULTILINE)
    # The report by pair is the first of the tables.
    total = next(place for place, row in enumerate(rows) if row[0] == "TOTAL")
    profits = {pair: float(profit) for pair, _, profit in rows[: total + 1]}
    refused = sum(map(int, re.findall(r"TunableSample, \S+: (\d+) entries refused", printed)))
    return int(rows[total][1]), refused, profits


def table() -> list[list[str]]:
    """Return the rows of the page's table of limits, below its head."""
    rows = [line.strip("| \n").split(" | ") for line in TEXT.splitlines() if line.startswith("| ")]
    return [row for row in rows if row[0] != "`block_below`"]


def test_the_page_is_what_its_commands_do(tmp_path: Path) -> None:
    """Every command of the page works, in order, prints what the page shows, and its table is right."""
    shutil.copytree(
        ROOT / "user_data" / "strategies",
        tmp_path / "user_data" / "strategies",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    shutil.copy(ROOT / "user_data" / "config.json", tmp_path / "user_data")
    port, printed, backtests = free_port(), "", []
    commands = [line[2:] for kind, block in BLOCKS if kind == "console" for line in block.splitlines()]
    assert commands[0] == EXCHANGE
    # The strategy has a test of its own below.
    assert {kind for kind, _ in BLOCKS} == {"console", "text", "json", "python"}
    with in_another_terminal(EXCHANGE, port):
        for kind, block in BLOCKS:
            if kind == "console":
                for line in block.splitlines():
                    if line[2:] == EXCHANGE:
                        continue
                    printed = in_this_terminal(line[2:], tmp_path, port)
                    if "backtesting" in line:
                        backtests.append(results(printed))
            elif kind == "text":
                for line in plain(block).splitlines():
                    assert line in printed
            elif kind == "json":
                merge(block, tmp_path / "tuning" / "config.json")
    rows = table()
    assert len(rows) == 3
    assert len(backtests) == 4
    for row, (trades, refused, profits) in zip(rows, backtests[:3], strict=True):
        assert row[1:3] == [str(trades), str(refused)]
        shown = [float(cell.replace("−", "-").removesuffix(" USDT")) for cell in row[3:]]
        wanted = [profits["SOL/USDT"], profits["XRP/USDT"], profits["TOTAL"]]
        assert shown == pytest.approx(wanted, abs=0.0051)
    # In the configuration the value does what it does in the strategy.
    assert backtests[3] == backtests[2]
    # "the end of the range", and "always asks for the tightest limit": of all that were tried.
    (found,) = (tmp_path / "tuning" / "hyperopt_results").glob("*.fthypt")
    epochs = [json.loads(line) for line in found.read_text().splitlines()]
    profit = {
        round(epoch["params_dict"]["block_below"], 2): epoch["results_metrics"]["profit_total_abs"]
        for epoch in epochs
    }
    assert sorted(profit) == [1.1, 1.2, 1.3, 1.4, 1.5, 1.6]
    assert sorted(profit, key=lambda limit: profit[limit]) == sorted(profit)


def test_the_pages_strategy_is_that_of_the_folder() -> None:
    """The lines on the page are lines of the strategy that the demo writes."""
    (snippet,) = [block for kind, block in BLOCKS if kind == "python"]
    strategy = (ROOT / "user_data" / "strategies" / "tunable_sample.py").read_text()
    for line in snippet.splitlines():
        if not line.startswith("class ") and "def " not in line:
            assert line in strategy
    config = {"user_data_dir": ROOT / "user_data", "strategy": "TunableSample", "exchange": {}}
    assert StrategyResolver.load_strategy(config).isolated_margin["margin_level"]["block_below"] == 1.2


def test_a_folder_that_exists_is_not_touched(tmp_path: Path) -> None:
    """`demo --write` writes a new folder or none."""
    folder = tmp_path / "mine"
    folder.mkdir()
    done = run(
        str(COMMAND), "demo", "--userdir", str(ROOT / "user_data"), "--write", str(folder), cwd=tmp_path
    )
    assert done.returncode == 2
    assert "exists already" in done.stdout
    assert list(folder.iterdir()) == []
