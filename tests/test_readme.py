"""Every snippet and every command of the README, as its reader would use them."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from freqtrade.enums import RunMode
from freqtrade.resolvers import StrategyResolver
from support.backtests import write_history
from support.bot import config_for

from freqtrade_isolated_margin.binance.adapter import IsolatedMarginAdapter
from freqtrade_isolated_margin.binance.credentials import Credentials
from freqtrade_isolated_margin.hosts.selfcheck import check_guarded
from freqtrade_isolated_margin.localexchange import LocalExchange
from freqtrade_isolated_margin.rules.settings import SECTION, Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMAND = Path(sys.executable).parent / "freqtrade-isolated-margin"


def blocks(language: str) -> list[str]:
    """Return the README's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


COMMANDS = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]


def run(*words: str, cwd: Path, timeout: float = 200, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command as the reader would, without the reader's own credentials."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FREQTRADE__", "ISOLATED_MARGIN_", "MAKE", "MFLAGS"))
    }
    return subprocess.run(
        words,
        cwd=cwd,
        env=environment | environ,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def make_demo(_command: str, _tmp_path: Path) -> None:
    """Play the demo, in the environment that these tests run in instead of a new one."""
    done = run("make", "-o", f"{sys.prefix}/.package", f"VENV={sys.prefix}", "demo", cwd=ROOT, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "entries of freqtrade are what the verdicts said" in done.stdout
    # The look-alike's keys and secrets, and every signature, are 64 hexadecimal digits.
    assert not re.search(r"[0-9a-f]{64}", done.stdout + done.stderr)


def make_test(_command: str, _tmp_path: Path) -> None:
    """See that what runs these tests is `make test`: ruff, mypy and pytest."""
    done = run("make", "-n", "-o", f"{sys.prefix}/.dev", f"VENV={sys.prefix}", "test", cwd=ROOT)
    assert [word in done.stdout for word in ("ruff check", "ruff format --check", "mypy", "pytest")] == [
        True
    ] * 4


def longer(command: str, _tmp_path: Path) -> None:
    """See what a command runs that takes too long for a test; the same code runs in short in other tests."""
    target = command.removeprefix("make ")
    done = run(
        "make", "-n", "-o", f"{sys.prefix}/.dev", "-o", f"{sys.prefix}/.bench", f"VENV={sys.prefix}", target,
        cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    program = re.search(r"(\S+\.py)|-m (\w+)$", done.stdout, re.MULTILINE)
    assert program, done.stdout
    script, package = program.groups()
    assert (ROOT / (script or f"tests/{package}/__main__.py")).is_file()


def pip_install(_command: str, tmp_path: Path) -> None:
    """Build what `pip install .` installs, and look into it."""
    wheel = (
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    )
    done = run(*wheel, "-w", str(tmp_path), str(ROOT), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (built,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
        entry_points = archive.read(
            next(name for name in names if name.endswith("entry_points.txt"))
        ).decode()
    assert "freqtrade_isolated_margin/py.typed" in names
    assert "freqtrade_isolated_margin/localexchange/server.py" in names
    assert not [name for name in names if name.startswith(("tests/", "user_data/"))]
    assert "Provides-Extra: postgresql" in metadata
    assert "Provides-Extra: plot" in metadata
    assert "License-Expression: GPL-3.0-or-later" in metadata
    assert "freqtrade-isolated-margin = freqtrade_isolated_margin.commands.cli:main" in entry_points


def in_a_bots_folder(command: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of the README in a folder that has the configuration and strategy which it names."""
    with LocalExchange(scenario="calm") as exchange:
        folder = tmp_path / "user_data" / "strategies"
        folder.mkdir(parents=True)
        (folder / "my_strategy.py").write_text(blocks("python")[0])
        config = config_for(exchange, ["BTC/USDT", "SOL/USDT", "XRP/USDT"], strategy="MyStrategy")
        (tmp_path / "user_data" / "config.json").write_text(json.dumps(config))
        return run(str(COMMAND), *shlex.split(command)[1:], cwd=tmp_path, COLUMNS="200")


def status_of_the_whitelist(command: str, tmp_path: Path) -> None:
    """See the whitelist's verdicts, of which one blocks."""
    done = in_a_bots_folder(command, tmp_path)
    assert done.returncode == 1, done.stderr
    for said in ("BTC/USDT", "allow", "SOL/USDT", "shrink × 0.59", "XRP/USDT", "block"):
        assert said in done.stdout


def status_of_pairs(command: str, tmp_path: Path) -> None:
    """See the named pairs only."""
    done = in_a_bots_folder(command, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "ETH/USDT" in done.stdout
    assert "XRP/USDT" not in done.stdout


def status_as_json(command: str, tmp_path: Path) -> None:
    """See JSON and nothing else on standard output."""
    done = in_a_bots_folder(command, tmp_path)
    assert [pair["decision"] for pair in json.loads(done.stdout)["pairs"]] == ["allow", "shrink", "block"]


def status_with_strategy(command: str, tmp_path: Path) -> None:
    """See a strategy loaded for its settings."""
    done = in_a_bots_folder(command, tmp_path)
    assert done.returncode == 1, done.stderr


def local_exchange(command: str, tmp_path: Path) -> None:
    """Start the look-alike, read an account from where it says, and end it."""
    words = shlex.split(command.replace("--port 8123", "--port 0"))
    process = subprocess.Popen(
        [str(COMMAND), *words[1:]], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        address, key, secret = (process.stdout.readline().strip() for _ in range(3))
        assert key.startswith("key: ")
        assert secret.startswith("secret: ")
        assert requests.get(f"{address}/api/v3/ping", timeout=10).json() == {}
        urls = {
            name: url.replace("http://127.0.0.1:8123", address)
            for name, url in redirection()["exchange"]["ccxt_config"]["urls"]["api"].items()
        }
        credentials = Credentials(key.removeprefix("key: "), secret.removeprefix("secret: "), "a test")
        section = {"name": "binance", "ccxt_config": {"urls": {"api": urls}}}
        adapter = IsolatedMarginAdapter(credentials, exchange=section)
        adapter.load_markets()
        assert "BTCUSDT" in adapter.fetch(["BTCUSDT"]).rows
        adapter.close()
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in errors


def redirection() -> dict[str, Any]:
    """Return the README's configuration that points a bot at the local exchange."""
    found: dict[str, Any] = json.loads(next(block for block in blocks("json") if "8123" in block))
    return found


def check(command: str, tmp_path: Path) -> None:
    """See every line of the doctor, of which some warn."""
    done = in_a_bots_folder(command, tmp_path)
    assert done.returncode == 1, done.stdout
    for said in ("MyStrategy carries the mixin", "not bound to an address", "XRP/USDT: account; block"):
        assert said in done.stdout


def init(command: str, tmp_path: Path) -> None:
    """See the section written into a configuration that has none, and the strategy's lines named."""
    folder = tmp_path / "user_data" / "strategies"
    folder.mkdir(parents=True)
    plain = blocks("python")[0].replace("IsolatedMarginMixin, ", "", 1)
    (folder / "my_strategy.py").write_text(plain.replace("from freqtrade_isolated_margin", "# from", 1))
    config = config_for(None, ["BTC/USDT"])
    del config["isolated_margin"]
    file = tmp_path / "user_data" / "config.json"
    file.write_text(json.dumps(config, indent=4))
    done = run(str(COMMAND), *shlex.split(command)[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "class MyStrategy(IsolatedMarginMixin, IStrategy)" in done.stdout
    assert f'"{SECTION}"' in file.read_text()


def with_a_history(command: str, tmp_path: Path) -> None:
    """See what is stored of the last hour, as a table, a file of numbers, a page and a picture."""
    with LocalExchange(scenario="calm") as exchange:
        (tmp_path / "user_data").mkdir()
        config = config_for(exchange, ["BTC/USDT"])
        (tmp_path / "user_data" / "config.json").write_text(json.dumps(config))
        now = datetime.now(UTC)
        write_history(tmp_path, level=lambda _: "2.5", start=now - timedelta(hours=1), end=now).close()
        done = run(str(COMMAND), *shlex.split(command)[1:], cwd=tmp_path, COLUMNS="160")
    assert done.returncode == 0, done.stdout + done.stderr
    if " history " in command:
        assert "BTC/USDT" in done.stdout
        assert "2.5" in done.stdout
    else:
        suffix = "png" if "png" in command else "html"
        assert list(tmp_path.rglob(f"*.{suffix}"))


def watch(command: str, tmp_path: Path) -> None:
    """See the verdicts, until it is ended."""
    with LocalExchange(scenario="calm") as exchange:
        (tmp_path / "user_data").mkdir()
        config = config_for(exchange, ["BTC/USDT", "XRP/USDT"])
        (tmp_path / "user_data" / "config.json").write_text(json.dumps(config))
        words = [str(COMMAND), *shlex.split(command)[1:]]
        process = subprocess.Popen(
            words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout
            assert "XRP/USDT long: block" in process.stdout.readline()
        finally:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
    assert "Traceback" not in errors


HOW_IT_IS_RUN: dict[str, Callable[[str, Path], None]] = {
    "make demo": make_demo,
    "make test": make_test,
    "make fuzz": longer,
    "make soak": longer,
    "make fault-matrix": longer,
    "make bench": longer,
    "pip install .": pip_install,
    "pip install '.[postgresql]'": pip_install,
    "pip install '.[plot]'": pip_install,
    "freqtrade-isolated-margin init -c user_data/config.json --strategy MyStrategy": init,
    "freqtrade-isolated-margin watch -c user_data/config.json": watch,
    "freqtrade-isolated-margin history -c user_data/config.json BTC/USDT --since 12h": with_a_history,
    "freqtrade-isolated-margin history -c user_data/config.json --csv": with_a_history,
    "freqtrade-isolated-margin plot -c user_data/config.json BTC/USDT --since 7d": with_a_history,
    "freqtrade-isolated-margin plot -c user_data/config.json BTC/USDT -o btc.png": with_a_history,
    "freqtrade-isolated-margin status -c user_data/config.json": status_of_the_whitelist,
    "freqtrade-isolated-margin status -c user_data/config.json BTC/USDT ETH/USDT": status_of_pairs,
    "freqtrade-isolated-margin status -c user_data/config.json --json": status_as_json,
    "freqtrade-isolated-margin status -c user_data/config.json --strategy MyStrategy": status_with_strategy,
    "freqtrade-isolated-margin check -c user_data/config.json": check,
    "freqtrade-isolated-margin exchange --port 8123 --scenario fall": local_exchange,
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_does_what_the_readme_says(command: str, tmp_path: Path) -> None:
    """Every command of the README works; one that is not known here fails."""
    HOW_IT_IS_RUN[command](command, tmp_path)


@pytest.mark.parametrize("snippet", blocks("python"))
def test_a_strategy_of_the_readme_is_guarded(snippet: str, tmp_path: Path) -> None:
    """Every strategy of the README is found by freqtrade's resolver, and passes the guard's own check."""
    folder = tmp_path / "strategies"
    folder.mkdir()
    (folder / "snippet.py").write_text(snippet)
    (name,) = re.findall(r"class (\w+)\(", snippet)
    config = {"user_data_dir": tmp_path, "strategy": name, "runmode": RunMode.BACKTEST, "exchange": {}}
    strategy = StrategyResolver.load_strategy(config)
    strategy.ft_bot_start()
    check_guarded(strategy)
    assert isinstance(strategy.protections, list)


@pytest.mark.parametrize("snippet", [block for block in blocks("json") if SECTION in block])
def test_a_section_of_the_readme_is_valid(snippet: str) -> None:
    """Every section of the README is taken as it stands."""
    Settings.load(json.loads(snippet)[SECTION])


def test_the_table_of_settings_has_every_setting_and_its_default() -> None:
    """The README's table names all settings and the defaults that are in force."""
    rows = re.findall(r"^\| `([a-z_.]+)` \| `(.*?)` \|", README, re.MULTILINE)
    section: dict[str, Any] = {}
    for name, default in rows:
        at = section
        *above, last = name.split(".")
        for part in above:
            at = at.setdefault(part, {})
        at[last] = json.loads(default)
    assert _names(section) == _names(Settings.load().model_dump())
    assert Settings.load(section) == Settings.load()


def _names(section: dict[str, Any], above: str = "") -> set[str]:
    """Return the dotted names of all settings."""
    names: set[str] = set()
    for name, value in section.items():
        inner = isinstance(value, dict) and name != "pairs"
        names |= _names(value, f"{above}{name}.") if inner else {f"{above}{name}"}
    return names


def test_the_docker_lines_name_what_there_is() -> None:
    """The Dockerfile of the README is freqtrade's image and the two lines that add the package."""
    (dockerfile,) = blocks("dockerfile")
    assert [line.split()[0] for line in dockerfile.splitlines()] == ["FROM", "COPY", "RUN"]
    assert "pip install" in dockerfile
