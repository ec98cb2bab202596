"""`freqtrade-isolated-margin init`: what it adds to a configuration, and what it says of a strategy."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import rapidjson
from freqtrade.configuration import Configuration
from freqtrade.configuration.load_config import CONFIG_PARSE_MODE
from freqtrade.enums import RunMode
from hypothesis import given
from hypothesis import strategies as st
from support.bot import PLAIN_STRATEGY, STRATEGY_HEAD, config_for

from freqtrade_isolated_margin.commands.cli import main
from freqtrade_isolated_margin.commands.init import WORDS, section_text, with_section
from freqtrade_isolated_margin.errors import SettingsError
from freqtrade_isolated_margin.rules.rules import StrictSettings
from freqtrade_isolated_margin.rules.settings import SECTION, Settings

ROOT = Path(__file__).parents[2]

CONFIG = """\
// Keys are elsewhere.
{
    "dry_run": true, /* for now { */
    "stake_currency": "USDT",
    "exchange": {"name": "binance", "pair_whitelist": ["BTC/USDT"]}  // the "last" }
}
"""


class Ran(NamedTuple):
    """What a run of the command came to."""

    status: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command in a folder with a configuration and a place for strategies."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "user_data" / "strategies").mkdir(parents=True)
    (tmp_path / "config.json").write_text(CONFIG)

    def run(*words: str) -> Ran:
        capsys.readouterr()
        status = main(["init", *words])
        return Ran(status, *capsys.readouterr())

    return run


def entries() -> list[str]:
    """Return what is in the folder."""
    return sorted(entry.name for entry in Path().iterdir())


def parsed(text: str) -> Any:
    """Parse a configuration as freqtrade does."""
    return rapidjson.loads(text, parse_mode=CONFIG_PARSE_MODE)


# ----- the section


def names(model: type[StrictSettings], prefix: str = "") -> list[str]:
    """Return the names of all settings of a model, and of those within it."""
    found = []
    for name, field in model.model_fields.items():
        found.append(prefix + name)
        inner = type(field.get_default(call_default_factory=True))
        if issubclass(inner, StrictSettings):
            found += names(inner, f"{prefix}{name}.")
    return found


def test_every_setting_is_in_the_section() -> None:
    """Each setting of the model has its words, and stands in the section; and nothing else does."""
    assert sorted(WORDS) == sorted(names(Settings))
    section = parsed(f"{{{section_text()}}}")[SECTION]
    for name in WORDS:
        value = section
        for part in name.split("."):
            value = value[part]


def test_the_section_loads_to_the_defaults() -> None:
    """The section as it is changes nothing, and its comments tell the defaults that the model has."""
    section = parsed(f"{{{section_text()}}}")[SECTION]
    assert Settings.load(section) == Settings()
    assert section_text().isascii()
    told = re.findall(r"// .*; default (.+)\n *\"\w+\": (.+?),?\n", section_text())
    assert len(told) == len(
        [name for name in WORDS if not any(other.startswith(f"{name}.") for other in WORDS)]
    )
    assert all(default == value for default, value in told)


def test_print_prints_and_changes_nothing(run: Run) -> None:
    """With --print the section goes to the output; no configuration is needed."""
    Path("config.json").unlink()
    ran = run("--print")
    assert ran == (0, f"{section_text()}\n", "")
    assert entries() == ["user_data"]


# ----- the configuration


def test_a_configuration_gets_the_section(run: Run) -> None:
    """Everything stays as it was; the section stands at the end, and what comes next is said."""
    ran = run()
    assert ran.status == 0
    text = Path("config.json").read_text()
    first, last = CONFIG.split('["BTC/USDT"]}')
    assert text == first + '["BTC/USDT"]},' + last.removesuffix("}\n") + section_text() + "\n}\n"
    assert parsed(text) == parsed(CONFIG) | {SECTION: parsed(f"{{{section_text()}}}")[SECTION]}
    assert ran.out.startswith("config.json: the section isolated_margin was added at line 6, each setting ")
    assert text.splitlines()[5].strip().startswith("// The isolated margin guard.")
    assert "ISOLATED_MARGIN_API_KEY and ISOLATED_MARGIN_API_SECRET" in ran.out
    assert ran.out.endswith("3. freqtrade-isolated-margin check -c config.json\n")
    assert entries() == ["config.json", "user_data"]


def test_a_section_that_is_there_is_left_alone(run: Run) -> None:
    """A second run changes nothing, and says so; nor does one where the section has other contents."""
    run()
    text = Path("config.json").read_text()
    ran = run()
    assert (ran.status, Path("config.json").read_text()) == (0, text)
    assert ran.out.startswith("config.json: it has a section isolated_margin already; nothing was changed.")
    Path("config.json").write_text('{"isolated_margin": {}}')
    assert run().status == 0
    assert Path("config.json").read_text() == '{"isolated_margin": {}}'


@pytest.mark.parametrize("place", ["b.json", "included.json"])
def test_a_section_in_another_file_counts(run: Run, place: str) -> None:
    """Of several configurations, and of those that one includes, one with the section is enough."""
    Path("b.json").write_text('{"add_config_files": ["included.json"]}')
    Path("included.json").write_text('{"a": 1}')
    Path(place).write_text('{"isolated_margin": {}, "add_config_files": []}')
    ran = run("-c", "config.json", "-c", "b.json", *(["-c", "included.json"] if place == "b.json" else []))
    assert ran.status == 0
    assert f"{place}: it has a section isolated_margin already" in ran.out
    assert Path("config.json").read_text() == CONFIG


def test_the_first_of_several_gets_it(run: Run) -> None:
    """Of several configurations without the section the first gets it; the others are not touched."""
    Path("private.json").write_text('{"exchange": {"key": "secret"}}')
    ran = run("-c", "config.json", "-c", "private.json")
    assert ran.out.endswith("check -c config.json -c private.json\n")
    assert SECTION in Path("config.json").read_text()
    assert Path("private.json").read_text() == '{"exchange": {"key": "secret"}}'


def test_the_default_is_freqtrades(run: Run) -> None:
    """Without -c it is the file that freqtrade would take."""
    Path("user_data/config.json").write_text("{}")
    run()
    assert Path("user_data/config.json").read_text() == f"{{\n{section_text()}\n}}"
    assert Path("config.json").read_text() == CONFIG


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{}", "{\n    S\n}"),
        ("{\n}\n", "{\n    S\n}\n"),
        ('{"a": 1}', '{"a": 1,\n    S\n}'),
        ('{"a": 1,}', '{"a": 1,\n    S\n}'),
        ('{"a": [1], // b\n}', '{"a": [1], // b\n    S\n}'),
        ('{\n  "a": "}//\\"", // ,\n  }\n// }', '{\n  "a": "}//\\"", // ,\n  S\n  }\n// }'),
        ('{\r\n\t"a": 1\r\n}\r\n', '{\r\n\t"a": 1,\r\n\tS\r\n}\r\n'),
        ('{\n"a": 1 /* , */ }', '{\n"a": 1, /* , */ \n    S\n}'),
        ('{\n  "a": {\n  }\n /* b */}', '{\n  "a": {\n  },\n /* b */\n  S\n}'),
    ],
)
def test_only_what_is_new_is_new(before: str, after: str) -> None:
    """Indentation, line ends, trailing commas and comments stay those of the file."""
    text, position = with_section(before)
    first = re.search(r"\n([ \t]*)// The isolated margin guard", text)
    assert first
    section = section_text(first[1], "\r\n" if "\r" in before else "\n")
    assert text == after.replace(f"{first[1]}S", section)
    assert text[position:].startswith(section)
    assert parsed(text).keys() - parsed(before).keys() == {SECTION}


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"a": 1', '{"a": nope}', "\ufeff{}", '{"a": 1} {', '{"exchange": {"key": "hush" "b"}}'],
)
def test_what_freqtrade_cannot_read_is_not_changed(run: Run, text: str) -> None:
    """A broken configuration is an error of one line, without what stands in it."""
    Path("config.json").write_text(text)
    ran = run()
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("configuration: config.json: ")
    assert ran.err.count("\n") == 1
    assert "hush" not in ran.err
    assert Path("config.json").read_text() == text


def test_missing_and_unwritable_configurations(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is not there or may not be written is an error, and so is standard input."""
    ran = run("-c", "nope.json")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith('configuration: nope.json: Config file "nope.json" not found! Please create ')
    assert "standard input cannot be changed" in run("-c", "-").err
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert run().err == "configuration: config.json: it may not be written; --print shows the section\n"
    assert Path("config.json").read_text() == CONFIG


def test_what_cannot_be_replaced_stays(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the new file cannot take the old one's place nothing is left behind."""

    def busy(*_: object) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "replace", busy)
    ran = run()
    assert ran.status == 2
    assert "it cannot be replaced (Device or resource busy); --print shows the section" in ran.err
    assert entries() == ["config.json", "user_data"]
    assert Path("config.json").read_text() == CONFIG


def test_a_file_that_changes_meanwhile_is_not_overwritten(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody else writes between the read and the write is not lost."""
    before = os.fsync

    def meddle(handle: int) -> None:
        before(handle)
        Path("config.json").write_text('{"theirs": 1}')

    monkeypatch.setattr(os, "fsync", meddle)
    assert "nothing was changed" in run().err
    assert Path("config.json").read_text() == '{"theirs": 1}'


def test_mode_and_link_are_kept(run: Run) -> None:
    """A private file stays private, and a symbolic link a link."""
    Path("real.json").write_text(CONFIG)
    Path("real.json").chmod(0o640)
    Path("config.json").unlink()
    Path("config.json").symlink_to("real.json")
    assert run().status == 0
    assert Path("config.json").is_symlink()
    assert SECTION in Path("real.json").read_text()
    assert Path("real.json").stat().st_mode & 0o777 == 0o640


def test_freqtrade_takes_it(run: Run) -> None:
    """The real freqtrade loads the result, and shows the section."""
    Path("config.json").write_text(json.dumps(config_for(None, ["BTC/USDT"]), indent=2))
    config = parsed(Path("config.json").read_text())
    del config[SECTION]
    Path("config.json").write_text(json.dumps(config, indent=2))
    assert run().status == 0
    loaded = Configuration({"config": ["config.json"]}, RunMode.DRY_RUN).get_config()
    assert Settings.load(loaded[SECTION]) == Settings()
    shown = subprocess.run(
        [sys.executable, "-m", "freqtrade", "show-config", "-c", "config.json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert '"weight_budget": 1200' in shown.stdout


# Configurations in every form that freqtrade takes.
spaces = st.text(st.sampled_from(" \t\n"), max_size=3)
comments = st.sampled_from(["", "// a } comment, \n", "/* { , \n*/", "//\n"])
gaps = st.tuples(spaces, comments, spaces).map("".join)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(st.sampled_from('ab"\\/*{}[],:\né'), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def configurations(draw: st.DrawFn) -> str:
    """Write an object with gaps, comments and perhaps a trailing comma."""
    members = draw(st.dictionaries(st.text(st.sampled_from("abc"), max_size=3), values, max_size=4))
    ascii_only = draw(st.booleans())
    written = [
        f"{draw(gaps)}{json.dumps(key)}{draw(gaps)}:{draw(gaps)}{json.dumps(value, ensure_ascii=ascii_only)}"
        for key, value in members.items()
    ]
    trailing = f"{draw(gaps)}," if written and draw(st.booleans()) else ""
    text = f"{draw(gaps)}{{{','.join(written)}{trailing}{draw(gaps)}}}{draw(gaps)}"
    return text.replace("\n", "\r\n") if draw(st.booleans()) else text


@given(configurations())
def test_any_configuration_is_kept(text: str) -> None:
    """Nothing is taken out of any configuration, and nothing but the section is added to what it means."""
    changed, position = with_section(text)
    before = parsed(text)
    assert parsed(changed) == before | {SECTION: parsed(f"{{{section_text()}}}")[SECTION]}
    # Character by character what was there is still there, in its order.
    rest = iter(changed)
    assert all(letter in rest for letter in text)
    assert changed[:position].replace(",", "").strip() in text.replace(",", "")


# ----- the strategy

STRATEGY = '''\
"""A strategy."""
from __future__ import annotations

from freqtrade.strategy import (
    IStrategy,
    merge_informative_pair,
)


class Café(IStrategy): pass


class Mine(IStrategy):  # mine
    isolated_margin = {"refresh_seconds": 5}
'''
IMPORT = "from freqtrade_isolated_margin import IsolatedMarginMixin"


def advice(ran: Ran) -> list[str]:
    """Return what is said of the strategy's lines."""
    assert ran.status == 0, ran.err
    found = re.search(r"1\. In .*:\n((?:     .*\n)*)", ran.out)
    assert found, ran.out
    return [re.sub(r"  +", " | ", line.strip()) for line in found[1].splitlines()]


def test_the_two_lines_of_a_strategy(run: Run) -> None:
    """The line after which the import goes and the class's line are named, with what to write."""
    file = Path("user_data/strategies/mine.py")
    file.write_text(STRATEGY)
    assert advice(run("--strategy", "Mine")) == [
        "after line 7 | )",
        f"add | {IMPORT}",
        "change line 13 | class Mine(IStrategy): # mine".replace(": #", ": | #"),
        "to | class Mine(IsolatedMarginMixin, IStrategy): | # mine",
        "line 14 | the configuration's section wins over this isolated_margin",
    ]
    assert file.read_text() == STRATEGY


def test_following_the_advice_makes_it_guarded(run: Run) -> None:
    """Who does as told has a strategy that has the mixin, in every class of the file."""
    file = Path("user_data/strategies/mine.py")
    file.write_text(STRATEGY)
    said = run("--strategy-path", str(file)).out
    lines = STRATEGY.split("\n")
    for number, new in re.findall(r"change line (\d+) .*\n +to +(.*)\n", said):
        lines[int(number) - 1] = new
    (after,) = re.findall(r"after line (\d+)", said)
    lines.insert(int(after), IMPORT)
    file.write_text("\n".join(lines))
    assert [line.split(" | ")[1] for line in advice(run("--strategy-path", str(file)))][:2] == [
        "Café has IsolatedMarginMixin already: nothing to change",
        "Mine has IsolatedMarginMixin already: nothing to change",
    ]
    compile(file.read_text(), "mine.py", "exec")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("class S(IStrategy): pass", ["add at the top | I", "change line 1 | class S", "to | class S(I"]),
        (
            "import a\nclass S(a.IStrategy): pass",
            ["after line 1 | import a", "add | I", "change line 2", "to"],
        ),
        (
            "from f import IStrategy as Base\nclass S(\n    Base,\n): pass",
            ["after line 1 |", "add | I", "change line 3 | Base,", "to | IsolatedMarginMixin, Base,"],
        ),
        (
            "from f import IStrategy\nclass Base(IStrategy): pass\nclass S(Base): pass",
            ["after line 1", "add | I", "change line 2 | class Base(IStrategy): pass", "to |"],
        ),
        (
            "from x import IsolatedMarginMixin as M\nclass B(M, IStrategy): pass\nclass S(B): pass",
            ["line 2 | B has IsolatedMarginMixin already"],
        ),
        (
            "from x import IsolatedMarginMixin as M\nclass S(IStrategy): pass",
            ["change line 2 |", "to | class S(M, IStrategy): pass"],
        ),
        (
            f"{IMPORT}\nclass S(IStrategy, IsolatedMarginMixin): pass",
            ["line 2 | S has IsolatedMarginMixin after IStrategy: write it before"],
        ),
    ],
)
def test_forms_of_a_strategy(run: Run, source: str, said: list[str]) -> None:
    """Other imports, bases on lines of their own, inheritance in the file: the right lines are named."""
    Path("s.py").write_text(source)
    found = advice(run("--strategy-path", "s.py"))
    beginnings = [line.replace("| I", f"| {IMPORT}") if line.endswith("| I") else line for line in said]
    assert [line[: len(begin)] for line, begin in zip(found, beginnings, strict=True)] == beginnings


def test_a_class_is_found_by_its_name(run: Run) -> None:
    """A strategy whose base is in another file is taken by its name, inherited ones as well."""
    Path("user_data/strategies/deep").mkdir()
    Path("user_data/strategies/broken.py").write_text("class (")
    Path("user_data/strategies/deep/s.py").write_text("from base import Base\nclass S(Base): pass")
    assert advice(run("--strategy", "S"))[-1] == "to | class S(IsolatedMarginMixin, Base): pass"
    Path("s.py").write_text("class B(IStrategy): pass\nclass S(B): pass")
    assert (
        advice(run("--strategy-path", "s.py", "-s", "S"))[-1] == "to | class S(IsolatedMarginMixin, B): pass"
    )


def test_the_configured_strategy_is_the_default(run: Run) -> None:
    """Without an option it is the configuration's strategy; where that is not found no harm is done."""
    Path("user_data/strategies/tested.py").write_text(STRATEGY_HEAD + PLAIN_STRATEGY)
    Path("config.json").write_text('{"strategy": "Tested"}')
    (line,) = advice(run())
    assert line.endswith("| Tested has IsolatedMarginMixin already: nothing to change")
    Path("config.json").write_text('{"strategy": "Elsewhere"}')
    ran = run()
    assert ran.status == 0
    assert "with --strategy NAME" in ran.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--strategy", "Nope"], "user_data/strategies: no file in it has a class Nope"),
        (["--strategy-path", "nope.py"], "nope.py: there is no such file"),
        (["--strategy-path", "user_data"], "user_data: it is a folder; --strategy NAME says which"),
        (["--strategy-path", "broken.py"], "broken.py: Python cannot parse it: invalid syntax in line 2"),
        (["--strategy-path", "bytes.py"], "bytes.py: Python cannot parse it: "),
        (["--strategy-path", "null.py"], "null.py: Python cannot parse it"),
        (["--strategy-path", "other.py"], "other.py: it has no class with IStrategy as a base; it has A, B"),
        (["--strategy-path", "other.py", "-s", "A"], "other.py: it has no class A with a base; it has A, B"),
        (
            ["--strategy-path", "empty.py"],
            "empty.py: it has no class with IStrategy as a base; it has no class",
        ),
    ],
)
def test_strategies_that_cannot_be_found_or_read(run: Run, words: list[str], said: str) -> None:
    """A strategy that was asked for and is not there is an error, before anything is written."""
    Path("broken.py").write_text("x = 1\nclass (:\n")
    Path("bytes.py").write_bytes(b"x = '\xff'\n")
    Path("null.py").write_bytes(b"x = 1\0\n")
    Path("other.py").write_text("class A: pass\nclass B(B): pass\n")
    Path("empty.py").write_text("")
    ran = run(*words)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith(f"configuration: {said}")
    assert Path("config.json").read_text() == CONFIG


def test_a_configuration_without_end() -> None:
    """What is no object at all is refused, whoever asks."""
    with pytest.raises(SettingsError):
        with_section("nothing")
