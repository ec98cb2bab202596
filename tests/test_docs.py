"""Every page of the documentation: its commands and snippets as its reader would use them, and its links."""

from __future__ import annotations

import ast
import json
import re
import shlex
import signal
import subprocess
import sys
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
from freqtrade.enums import RunMode
from freqtrade.resolvers import StrategyResolver
from support import builders
from support.backtests import write_history
from support.bot import config_for
from support.commands import COMMAND, ROOT, run, without_own_settings

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.binance.adapter import IsolatedMarginAdapter
from freqtrade_isolated_margin.binance.credentials import Credentials
from freqtrade_isolated_margin.guard.alerts import Alerts
from freqtrade_isolated_margin.hosts.selfcheck import check_guarded
from freqtrade_isolated_margin.localexchange import LocalExchange
from freqtrade_isolated_margin.rules.decide import Reading, decide
from freqtrade_isolated_margin.rules.rules import Rules
from freqtrade_isolated_margin.rules.settings import SECTION, ReduceSettings, Settings

PACKAGE = ROOT / "freqtrade_isolated_margin"
FRONT = "README.md"
PAGES = {
    str(file.relative_to(ROOT)): file.read_text() for file in (ROOT / FRONT, *sorted(ROOT.glob("docs/*.md")))
}
# Its commands build on each other: `test_tuning` goes through it.
IN_ORDER = "docs/tuning.md"


class Snippet(NamedTuple):
    """A block of code on a page."""

    page: str
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page} {self.language}"


SNIPPETS = [
    Snippet(page, *found)
    for page, text in PAGES.items()
    for found in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
]


def snippets(language: str) -> list[Snippet]:
    """Return the blocks in a language, without those of the page whose snippets build on each other."""
    return [found for found in SNIPPETS if found.language == language and found.page != IN_ORDER]


LINES = [line for found in snippets("console") for line in found.text.splitlines()]
COMMANDS = list(dict.fromkeys(line.removeprefix("$ ") for line in LINES))
# What `init`, `check` and the bot are shown: the strategy of the front page.
(MY_STRATEGY,) = [found.text for found in snippets("python") if found.page == FRONT]


def make_demo(_command: str, _tmp_path: Path) -> None:
    """Play the demo, in the environment that these tests run in instead of a new one."""
    done = run("make", "-o", f"{sys.prefix}/.package", f"VENV={sys.prefix}", "demo", cwd=ROOT, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "entries of freqtrade are what the verdicts said" in done.stdout
    # The look-alike's keys and secrets, and every signature, are 64 hexadecimal digits.
    assert not re.search(r"[0-9a-f]{64}", done.stdout + done.stderr)


def make_demo_trading(_command: str, _tmp_path: Path) -> None:
    """Play the demo of trading, in the environment that these tests run in instead of a new one."""
    done = run(
        "make", "-o", f"{sys.prefix}/.package", f"VENV={sys.prefix}", "demo-trading", cwd=ROOT, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The books balance" in done.stdout
    for said in ("guard refuses: BTC/USDT", "interest is owed", "left to its liquidation stop", "liquidates"):
        assert said in done.stdout
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
    program = re.search(r"(tests/\S+\.py)|-m (bench|soak\.soak|trading\.campaign)\b", done.stdout)
    assert program, done.stdout
    script, module = program.groups()
    assert (ROOT / script).is_file() if script else find_spec(module)


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


def a_bots_folder(tmp_path: Path, exchange: LocalExchange, **changes: Any) -> None:
    """Make a folder of the configuration and strategy that the pages name."""
    folder = tmp_path / "user_data" / "strategies"
    folder.mkdir(parents=True)
    (folder / "my_strategy.py").write_text(MY_STRATEGY)
    config = config_for(exchange, ["BTC/USDT", "SOL/USDT", "XRP/USDT"], **changes)
    (tmp_path / "user_data" / "config.json").write_text(json.dumps(config))


def in_a_bots_folder(command: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder that has the configuration and strategy which it names."""
    with LocalExchange(scenario="calm") as exchange:
        a_bots_folder(tmp_path, exchange)
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
    """Return the configuration that points a bot at the local exchange."""
    (found,) = [json.loads(block.text) for block in snippets("json") if "8123" in block.text]
    return dict(found)


def check(command: str, tmp_path: Path) -> None:
    """See every line of the doctor, of which some warn."""
    done = in_a_bots_folder(command, tmp_path)
    assert done.returncode == 1, done.stdout
    for said in ("MyStrategy carries the mixin", "not bound to an address", "XRP/USDT: account; block"):
        assert said in done.stdout


def starts(words: Sequence[str], tmp_path: Path, said: str) -> None:
    """Start a bot, and see it say something."""
    process = subprocess.Popen(
        words,
        cwd=tmp_path,
        env=without_own_settings() | {"COLUMNS": "1000"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout
        assert any(said in line for line in process.stdout)
    finally:
        process.terminate()
        process.communicate(timeout=60)


def trade(command: str, tmp_path: Path) -> None:
    """See the bot say what the front page says."""
    (said,) = re.findall(r"It says `(.*?)`", PAGES[FRONT])
    with LocalExchange(scenario="calm") as exchange:
        # With the empty section of the page.
        a_bots_folder(tmp_path, exchange, isolated_margin={})
        starts([sys.executable, "-m", *shlex.split(command)], tmp_path, said)


def margin_trade(command: str, tmp_path: Path) -> None:
    """See the installed script start a dry run in simulated accounts, with the section of the page."""
    section, *_ = [
        json.loads(found.text)[SECTION] for found in snippets("json") if found.page == "docs/trading.md"
    ]
    script, *words = shlex.split(command)
    with LocalExchange(scenario="calm") as exchange:
        modes = {"trading_mode": "futures", "margin_mode": "isolated"}
        a_bots_folder(tmp_path, exchange, isolated_margin=section, **modes)
        said = "Orders go to isolated margin accounts, which are sim"
        starts([str(COMMAND.with_name(script)), *words], tmp_path, said)


def init(command: str, tmp_path: Path) -> None:
    """See the section written into a configuration that has none, and the strategy's lines named."""
    folder = tmp_path / "user_data" / "strategies"
    folder.mkdir(parents=True)
    plain = MY_STRATEGY.replace("IsolatedMarginMixin, ", "", 1)
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
    "make demo-trading": make_demo_trading,
    "make test": make_test,
    "make campaign": longer,
    "freqtrade-margin trade -c user_data/config.json --strategy MyStrategy": margin_trade,
    "make fuzz": longer,
    "make soak": longer,
    "make fault-matrix": longer,
    "make bench": longer,
    "freqtrade trade -c user_data/config.json --strategy MyStrategy": trade,
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
    "freqtrade-isolated-margin check -c user_data/config.json --strategy MyStrategy": check,
    "freqtrade-isolated-margin exchange --port 8123 --scenario fall": local_exchange,
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_does_what_its_page_says(command: str, tmp_path: Path) -> None:
    """Every command of every page works; one that is not known here fails."""
    HOW_IT_IS_RUN[command](command, tmp_path)


@pytest.mark.parametrize("snippet", snippets("python"), ids=str)
def test_the_python_of_a_page_works(snippet: Snippet, tmp_path: Path) -> None:
    """Every strategy is found by freqtrade's resolver and passes the guard's own check; the rest runs."""
    names = re.findall(r"^class (\w+)\(", snippet.text, re.MULTILINE)
    if not names:
        exec(compile(snippet.text, snippet.page, "exec"), {})
        return
    folder = tmp_path / "strategies"
    folder.mkdir()
    (folder / "snippet.py").write_text(snippet.text)
    (name,) = names
    config = {"user_data_dir": tmp_path, "strategy": name, "runmode": RunMode.BACKTEST, "exchange": {}}
    strategy = StrategyResolver.load_strategy(config)
    strategy.ft_bot_start()
    check_guarded(strategy)
    assert isinstance(strategy.protections, list)


@pytest.mark.parametrize("snippet", snippets("json"), ids=str)
def test_the_json_of_a_page_is_valid(snippet: Snippet) -> None:
    """Every section is taken as it stands; the one configuration without it is that of the local exchange."""
    config = json.loads(snippet.text)
    if SECTION in config:
        Settings.load(config[SECTION])
    else:
        assert config == redirection()


@pytest.mark.parametrize("snippet", snippets("dockerfile"), ids=str)
def test_the_docker_lines_name_what_there_is(snippet: Snippet) -> None:
    """The Dockerfile is freqtrade's image and the two lines that add the package."""
    assert [line.split()[0] for line in snippet.text.splitlines()] == ["FROM", "COPY", "RUN"]
    assert "pip install" in snippet.text


def verdicts() -> list[str]:
    """The verdicts of the front page: two accounts whose levels it names, and one without debt."""
    accounts = {
        "SOL/USDT": {"base_total": "12.201", "quote_debt": 1000, "index": 100},
        "ETH/USDT": {"base_total": 17, "quote_debt": 1000, "index": 100},
        "BTC/USDT": {"base_total": 1},
    }
    return [
        str(decide(pair, Side.LONG, Reading(builders.account(**contents)), Rules(), 60))
        for pair, contents in accounts.items()
    ]


def messages() -> list[str]:
    """The message of a pair whose account is at level 1.2, liquidated at 1.15, when it is first seen."""
    read = builders.account(base_total=12, quote_debt=1000, index=100, ratio="1.15", status="NORMAL")
    decision = decide("SOL/USDT", Side.LONG, Reading(read), Rules(), 60)
    return Alerts(Settings()).look([(decision, read)], 0.0)


WHAT_IS_PRINTED: dict[str, Callable[[], list[str]]] = {FRONT: verdicts, "docs/messages.md": messages}


@pytest.mark.parametrize("snippet", snippets("text"), ids=str)
def test_what_a_page_shows_is_what_is_printed(snippet: Snippet) -> None:
    """The lines that a page shows come out of the package, word by word."""
    assert snippet.text.splitlines() == WHAT_IS_PRINTED[snippet.page]()


def test_no_snippet_of_any_page_is_left_out() -> None:
    """Each block is in a language that a test takes, each console line is a command, and no fence is odd."""
    tested = {"console", "python", "json", "dockerfile", "text", "mermaid"}
    assert {found.language for found in SNIPPETS} <= tested
    assert all(line.startswith("$ ") for line in LINES)
    fences = re.findall(r"^\s*(?:```|~~~)", "\n".join(PAGES.values()), re.MULTILINE)
    assert len(fences) == 2 * len(SNIPPETS)


def test_the_table_of_settings_has_every_setting_and_its_default() -> None:
    """The table names all settings and the defaults that are in force."""
    rows = re.findall(r"^\| `([a-z_.]+)` \| `(.*?)` \|", PAGES["docs/settings.md"], re.MULTILINE)
    section: dict[str, Any] = {}
    for name, default in rows:
        at = section
        *above, last = name.split(".")
        for part in above:
            at = at.setdefault(part, {})
        at[last] = json.loads(default)
    assert _names(section) == _names(Settings.load().model_dump())
    assert Settings.load(section) == Settings.load()
    for name in ReduceSettings.model_fields:
        assert f"| `reduce.{name}` |" in PAGES["docs/settings.md"]


def _names(section: dict[str, Any], above: str = "") -> set[str]:
    """Return the dotted names of all settings."""
    names: set[str] = set()
    for name, value in section.items():
        inner = isinstance(value, dict) and name != "pairs"
        names |= _names(value, f"{above}{name}.") if inner else {f"{above}{name}"}
    return names


# ----- between the pages


def prose(text: str) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def links(text: str) -> list[str]:
    """Return what a page's links and pictures lead to."""
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(text)))


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Every link within the project names a file that is there, and a heading in it; others are https."""
    for link in links(PAGES[page]):
        if "://" in link:
            assert link.startswith("https://")
            continue
        path, _, anchor = link.partition("#")
        file = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert file.is_relative_to(ROOT), link
        assert file.is_file(), link
        if anchor:
            assert anchor in anchors(PAGES[str(file.relative_to(ROOT))]), link


def test_the_front_page_leads_to_every_page() -> None:
    """Whoever starts there finds all of them."""
    assert set(links(PAGES[FRONT])) >= PAGES.keys() - {FRONT}


def rooms() -> set[str]:
    """Return the rooms of the package."""
    return {file.parent.name for file in PACKAGE.glob("*/__init__.py")}


def imports(room: str) -> Iterator[str]:
    """Return the other rooms that a room's modules import when they run, wherever in them that is."""
    for file in (PACKAGE / room).rglob("*.py"):
        tree = ast.parse(file.read_text())
        # What is imported for a type alone never runs.
        typing = {
            inner
            for block in ast.walk(tree)
            if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
            for inner in ast.walk(block)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or node in typing:
                continue
            for name in node.names:
                parts = f"{node.module}.{name.name}".split(".")
                if not node.level and parts[0] == PACKAGE.name and parts[1] in rooms() - {room}:
                    yield parts[1]


def below(room: str, drawn: dict[str, set[str]]) -> set[str]:
    """Return the rooms to which arrows lead from a room."""
    return drawn[room].union(*(below(other, drawn) for other in drawn[room]))


def test_the_picture_of_the_rooms_is_true() -> None:
    """It has every room, each of its arrows is an import, and it leads to all else that a room imports."""
    (picture,) = [found.text for found in snippets("mermaid")]
    assert set(re.findall(r"^    (\w+)\[", picture, re.MULTILINE)) == rooms()
    drawn: dict[str, set[str]] = defaultdict(set)
    for upper, lower in re.findall(r"^    (\w+) --> (\w+)$", picture, re.MULTILINE):
        drawn[upper].add(lower)
    for room in rooms():
        found = set(imports(room))
        assert drawn[room] <= found, room
        assert found <= below(room, drawn), room
