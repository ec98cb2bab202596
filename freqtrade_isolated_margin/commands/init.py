"""`freqtrade-isolated-margin init`: adds the section to a configuration, and names a strategy's two lines.

Only the configuration is changed, and only by what is added to it: every byte of it stays, comments
included. A strategy file is only read.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import shutil
import tempfile
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from freqtrade_isolated_margin.binance.credentials import ENV_KEY, ENV_SECRET
from freqtrade_isolated_margin.commands.configuration import default_config
from freqtrade_isolated_margin.errors import SettingsError
from freqtrade_isolated_margin.rules.rules import StrictSettings
from freqtrade_isolated_margin.rules.settings import SECTION, Settings

EXIT_DONE = 0

_MIXIN = "IsolatedMarginMixin"
_PACKAGE = "freqtrade_isolated_margin"
_INTERFACE = "IStrategy"

# What each setting means, with its unit. The defaults come from the model. ASCII: freqtrade reads the
# file in the encoding of whoever's locale it runs in.
WORDS: dict[str, str] = {
    "enabled": "false guards nothing and needs no key",
    "margin_level": "margin level: total assets / (borrowed + interest)",
    "margin_level.block_below": "margin level, above 1; at or below it no entry",
    "margin_level.full_above": "margin level; at or above it the full stake, and between them a part of it",
    "liquidation_distance": "how far the index price may move until the account is liquidated",
    "liquidation_distance.block_below": "fraction of the index price (0.05 is 5 %); at or below it no entry",
    "liquidation_distance.full_above": "fraction of the index price; at or above it the full stake",
    "block_statuses": "statuses that block entries; the others are EXCESSIVE (the safest) and NORMAL",
    "entry_funding": '"spot", or "borrowed" if you route entries into the margin account, on borrowed money',
    "without_account": '"allow" or "block" for pairs without an isolated margin account',
    "level_tolerance": "fraction by which the reported level may be off the one at the index price",
    "refresh_seconds": "seconds from one read of the accounts to the next",
    "max_age_seconds": "seconds after which an account is too old to allow an entry",
    "recv_window": "milliseconds for which Binance takes a signed request",
    "weight_budget": "weight a minute that the reads may use of the 12000 that Binance gives to an address",
    "source": '"exchange" reads Binance; "history" what another bot has stored, and needs no key',
    "history": "accounts and decisions, stored",
    "history.enabled": "whether they are",
    "history.db_url": "URL of SQLAlchemy without a password; null is a file in the user data folder",
    "history.retention_days": "days after which what is stored is deleted",
    "history.keys": "ids of the API keys that are meant, where a database holds the accounts of several",
    "alerts": "changes, told through freqtrade's messages",
    "alerts.enabled": "whether they are",
    "alerts.room_left": "share of the liquidation distance at the last message at which there is another",
    "alerts.calm_above": "times as far as its limit at which a better figure is told at once",
    "alerts.settle_seconds": "seconds after which a better figure is told although it is closer",
    "charts": "whether charts show the accounts over time",
    "backtest": '"off", "replay" to guard backtests from the history, "simulate" by those of their trades',
    "pairs": 'changes of the rules for single pairs, as {"BTC/USDT": {"margin_level": {"block_below": 1.4}}}',
    "trading": "orders in the margin accounts themselves, with the command freqtrade-margin",
    "trading.enabled": "whether there are",
    "trading.collateral": '"transfer" moves a stake from the spot wallet and back; "account" moves nothing',
    "trading.interest_rate": "what a loan costs a day, as a fraction of it, where the exchange is not asked",
    "trading.interest_rates": 'the same by currency, as {"USDT": 0.0002}',
    "trading.max_leverage": "3, 5 or 10: the table of pairs of which the exchange is not asked",
    "trading.max_leverages": 'the same by pair, as {"BTC/USDT": 10}',
    "reduce": 'null, or {"at_level": 1.3, "to_level": 1.6}: closes a part of a position at that level',
}


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit status."""
    for line in _initialised(arguments):
        print(line)  # noqa: T201 - the command's output
    return EXIT_DONE


def _initialised(arguments: argparse.Namespace) -> list[str]:
    """Do it, and return what to print. A wrong strategy is found before anything is written."""
    if arguments.print_only:
        advice = _advice(arguments, {})
        return [section_text(), *([""] if advice else []), *advice]
    paths = arguments.config or [default_config(arguments.user_data_dir)]
    if "-" in paths:
        raise SettingsError(
            "a configuration from standard input cannot be changed; --print shows the section"
        )
    config, found = _look_into(paths)
    advice = _advice(arguments, config)
    if found:
        done = f"{found}: it has a section {SECTION} already; nothing was changed."
    else:
        line = add_section(Path(paths[0]))
        done = f"{paths[0]}: the section {SECTION} was added at line {line}, each setting with its default."
    return [done, "", *_next_steps(paths, advice)]


def _next_steps(paths: Iterable[str], advice: list[str]) -> list[str]:
    strategy = advice or [
        f"Import {_MIXIN} in your strategy, and write it before {_INTERFACE}; with --strategy NAME",
        "or --strategy-path FILE this command names the two lines.",
    ]
    steps = [
        strategy,
        [
            f"Set the environment variables {ENV_KEY} and {ENV_SECRET} to a key that",
            "may read. Without them the bot's own key is used, if its exchange is binance.",
        ],
        [f"freqtrade-isolated-margin check {' '.join(f'-c {path}' for path in paths)}"],
    ]
    lines = ["What comes next:"]
    for number, (first, *rest) in enumerate(steps, 1):
        lines += [f"{number}. {first}", *(f"   {line}".rstrip() for line in rest)]
    return lines


# ----- the section


def section_text(indent: str = "    ", newline: str = "\n") -> str:
    """Return the section with a comment on every setting, each at its default, without a comma after it."""
    lines = [
        "// The isolated margin guard. A setting that is deleted here has its default.",
        f'"{SECTION}": {{',
        *_members(Settings(), "", indent),
        "}",
    ]
    return newline.join(indent + line for line in lines)


def _members(model: StrictSettings, prefix: str, indent: str) -> Iterator[str]:
    """Yield the lines of a model's settings, in the order of `WORDS`."""
    names = [name for name in WORDS if name.rpartition(".")[0] == prefix]
    for name in names:
        key = name.rpartition(".")[2]
        value = getattr(model, key)
        comma = "" if name == names[-1] else ","
        if isinstance(value, StrictSettings):
            inner = (f"{indent}{line}" for line in _members(value, name, indent))
            yield from (f"{indent}// {WORDS[name]}", f'{indent}"{key}": {{', *inner, f"{indent}}}{comma}")
        else:
            shown = _json(value)
            yield from (f"{indent}// {WORDS[name]}; default {shown}", f'{indent}"{key}": {shown}{comma}')


def _json(value: object) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else json.dumps(value)


# ----- the configuration


def _look_into(paths: list[str]) -> tuple[Mapping[str, Any], str | None]:
    """Return the merged configuration, and the first of its files that has the section.

    :raises SettingsError: where one cannot be loaded.
    """
    from freqtrade.configuration.load_config import load_from_files  # noqa: PLC0415 - only if needed
    from freqtrade.exceptions import FreqtradeException  # noqa: PLC0415

    for path in paths:
        _load(path)
    try:
        merged: dict[str, Any] = load_from_files(paths)
    except (FreqtradeException, OSError, ValueError, TypeError, AttributeError) as error:
        raise SettingsError(f"{paths[0]}: {_first_line(error)}") from None
    return merged, next((path for path in merged["config_files"] if SECTION in _load(path)), None)


def _load(path: str | Path) -> dict[str, Any]:
    from freqtrade.configuration.load_config import load_config_file  # noqa: PLC0415 - as above
    from freqtrade.exceptions import FreqtradeException  # noqa: PLC0415

    try:
        loaded: object = load_config_file(str(path))
    except (FreqtradeException, OSError, ValueError) as error:
        raise SettingsError(f"{path}: {_first_line(error)}") from None
    if not isinstance(loaded, dict):
        raise SettingsError(f"{path}: it is no object with settings")
    return loaded


def _first_line(error: Exception) -> str:
    # Below it freqtrade quotes the file, with the keys that stand there.
    return str(error).partition("\n")[0] if not isinstance(error, OSError) else f"{error.strerror}"


def add_section(path: Path) -> int:
    """Add the section at the end of a configuration that has none; return the line that it begins at.

    The file is replaced at once, as a whole, and keeps every byte and its mode; a symbolic link stays one.

    :raises SettingsError: where it cannot be; the file is as it was then.
    """
    file = path.resolve()
    wanted = _load(file) | {SECTION: json.loads(_without_comments(section_text()))[SECTION]}
    try:
        before = file.read_bytes()
        if not os.access(file, os.W_OK):
            raise SettingsError(f"{path}: it may not be written; --print shows the section")
        # Whatever its encoding: only ASCII is added, and the rest comes out as it went in.
        text, position = with_section(before.decode("utf-8", "surrogateescape"))
        _replace(file, before, text.encode("utf-8", "surrogateescape"), wanted)
    except OSError as error:
        raise SettingsError(
            f"{path}: it cannot be replaced ({error.strerror}); --print shows the section"
        ) from None
    return text.count("\n", 0, position) + 1


def _replace(file: Path, before: bytes, after: bytes, wanted: Mapping[str, Any]) -> None:
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as written:
            written.write(after)
            written.flush()
            os.fsync(written.fileno())
        _compare(file, before, name, wanted)
        shutil.copymode(file, name)
        with suppress(PermissionError):
            os.chown(name, file.stat().st_uid, file.stat().st_gid)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _compare(file: Path, before: bytes, written: str, wanted: Mapping[str, Any]) -> None:
    """Refuse what freqtrade would load otherwise than `wanted`, or a file that has changed meanwhile."""
    if _load(written) != wanted or file.read_bytes() != before:
        raise SettingsError(f"{file}: the section does not fit in, nothing was changed; --print shows it")


# A string, a comment, white space, or one character of anything else.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/|\s+|.', re.DOTALL)


def _significant(text: str) -> Iterator[re.Match[str]]:
    return (token for token in _TOKEN.finditer(text) if not re.match(r"//|/\*|\s", token[0]))


def _without_comments(members: str) -> str:
    return f"{{{''.join(token[0] for token in _significant(members))}}}"


class _Place(NamedTuple):
    """Where something can be added to the top object of a configuration."""

    end: int
    """Where what stands before its closing brace ends, comments apart."""
    brace: int
    indent: str


def _find_place(text: str) -> _Place:
    depth, end, first = 0, 0, None
    for token in _significant(text):
        if token[0] in "]}" and depth == 1:
            return _Place(end, token.start(), _indent_at(text, first))
        first = token.start() if depth == 1 and first is None else first
        depth += (token[0] in "[{") - (token[0] in "]}")
        end = token.end()
    raise SettingsError("the configuration has no end")


def _indent_at(text: str, position: int | None) -> str:
    before = text[text.rfind("\n", 0, position) + 1 : position] if position else ""
    return before if before.isspace() else "    "


def with_section(text: str) -> tuple[str, int]:
    """Return a configuration with the section added at its end, and the position where that begins.

    Nothing is taken away: after the last value comes a comma, if none is there, and the section before
    the closing brace, in the file's own indentation and line ends.
    """
    place = _find_place(text)
    newline = "\r\n" if "\r\n" in text else "\n"
    comma = "" if text[place.end - 1] in ",{" else ","
    gap = text[place.end : place.brace]
    # The closing brace keeps its own indentation, where it stands on a line of its own.
    line = gap.rfind("\n") + 1
    kept, own = (gap[:line], gap[line:]) if line and not gap[line:].strip() else (gap + newline, "")
    before = text[: place.end] + comma + kept
    return f"{before}{section_text(place.indent, newline)}{newline}{own}{text[place.brace :]}", len(before)


# ----- the strategy


def _advice(arguments: argparse.Namespace, config: Mapping[str, Any]) -> list[str]:
    """Return what to change in the strategy that was asked for, or else in the one of the configuration.

    :raises SettingsError: where the one asked for cannot be found, or read.
    """
    asked = arguments.strategy_path is not None or arguments.strategy is not None
    name = arguments.strategy or (None if asked else config.get("strategy"))
    if not asked and not isinstance(name, str):
        return []
    path = Path(arguments.strategy_path or Path(_user_data(arguments, config)) / "strategies")
    try:
        return _changes(path, name) if path.is_file() else _changes(_file_of(name, path), name)
    except SettingsError:
        if asked:
            raise
        return []


def _user_data(arguments: argparse.Namespace, config: Mapping[str, Any]) -> str:
    return str(arguments.user_data_dir or config.get("user_data_dir") or "user_data")


def _file_of(name: str | None, folder: Path) -> Path:
    if not folder.is_dir():
        raise SettingsError(f"{folder}: there is no such file")
    if name is None:
        raise SettingsError(f"{folder}: it is a folder; --strategy NAME says which strategy in it is meant")
    for path in sorted(folder.rglob("*.py")):
        # A file that cannot be parsed is no reason not to look into the others.
        with suppress(SettingsError):
            if any(found.name == name for found in _Source(path).classes):
                return path
    raise SettingsError(f"{folder}: no file in it has a class {name}")


def _changes(path: Path, name: str | None) -> list[str]:
    source = _Source(path)
    strategies = source.strategies(name)
    lines = [line for strategy in strategies for line in source.class_line(strategy)]
    needed = any(not source.is_guarded(strategy) for strategy in strategies)
    return [f"In {path}:", *(source.import_line() if needed else []), *lines]


class _Source:
    """A strategy's file, as far as its classes and imports go."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # As Python opens it, with the encoding that the file declares.
            with tokenize.open(path) as file:
                text = file.read()
            self._tree = ast.parse(text)
        except OSError as error:
            raise SettingsError(f"{path}: it cannot be read ({error.strerror})") from None
        except SyntaxError as error:
            where = f" in line {error.lineno}" if error.lineno else ""
            raise SettingsError(f"{path}: Python cannot parse it: {error.msg}{where}") from None
        except ValueError as error:
            raise SettingsError(f"{path}: Python cannot parse it ({type(error).__name__})") from None
        self._lines = text.split("\n")
        self.classes = [node for node in ast.walk(self._tree) if isinstance(node, ast.ClassDef)]
        self._interface = self._imported(_INTERFACE)
        self._mixin = self._imported(_MIXIN)

    def _imported(self, name: str) -> set[str]:
        """Return the names that `name` has in this file."""
        found = (node for node in ast.walk(self._tree) if isinstance(node, ast.ImportFrom))
        return {name} | {
            other.asname for node in found for other in node.names if other.name == name and other.asname
        }

    def _inherits(self, node: ast.ClassDef, names: set[str], seen: frozenset[str] = frozenset()) -> bool:
        bases = {_name(base) for base in node.bases} - seen
        parents = [found for found in self.classes if found.name in bases]
        return bool(bases & names) or any(
            self._inherits(parent, names, seen | bases | {node.name}) for parent in parents
        )

    def is_guarded(self, node: ast.ClassDef) -> bool:
        """Whether the class has the mixin, as far as this file tells."""
        return self._inherits(node, self._mixin)

    def strategies(self, name: str | None) -> list[ast.ClassDef]:
        """Return the class `name`, or else every strategy that inherits from no other in this file.

        :raises SettingsError: where there is none.
        """
        if name is not None:
            found = [node for node in self.classes if node.name == name and node.bases]
        else:
            every = [node for node in self.classes if self._inherits(node, self._interface | self._mixin)]
            names = {node.name for node in every}
            found = [node for node in every if not names & {_name(base) for base in node.bases}]
        if not found:
            others = ", ".join(node.name for node in self.classes) or "no class at all"
            wanted = f"class {name} with a base" if name else f"class with {_INTERFACE} as a base"
            raise SettingsError(f"{self.path}: it has no {wanted}; it has {others}")
        return found

    def class_line(self, node: ast.ClassDef) -> Iterator[str]:
        """Yield what to do with the line of a class."""
        bases = [_name(base) for base in node.bases]
        mixin = next((place for place, base in enumerate(bases) if base in self._mixin), None)
        if mixin is not None and self._interface & set(bases[:mixin]):
            yield _step(
                f"line {node.lineno}", f"{node.name} has {bases[mixin]} after {_INTERFACE}: write it before"
            )
        elif self.is_guarded(node):
            yield _step(f"line {node.lineno}", f"{node.name} has {_MIXIN} already: nothing to change")
        else:
            number, line = node.bases[0].lineno, self._line(node.bases[0].lineno)
            place = len(line.encode()[: node.bases[0].col_offset].decode())
            mixin_here = min(self._mixin - {_MIXIN}, default=_MIXIN)
            mixed = f"{line[:place]}{mixin_here}, {line[place:]}"
            yield from (_step(f"change line {number}", line.strip()), _step("to", mixed.strip()))
        for statement in node.body:
            if SECTION in _assigned(statement):
                found = f"the configuration's section wins over this {SECTION}"
                yield _step(f"line {statement.lineno}", found)

    def import_line(self) -> Iterator[str]:
        """Yield where the import of the mixin goes, if it is not there."""
        imports = [node for node in self._tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {name.name: node for node in imports for name in node.names}
        if _MIXIN in names:
            return
        after = names.get(_INTERFACE) or (imports[-1] if imports else None)
        number = (after.end_lineno or after.lineno) if after else 0
        if number:
            yield _step(f"after line {number}", self._line(number).strip())
        yield _step("add" if number else "add at the top", f"from {_PACKAGE} import {_MIXIN}")

    def _line(self, number: int) -> str:
        return self._lines[number - 1]


def _step(what: str, line: str) -> str:
    return f"  {what:18} {line}"


def _name(base: ast.expr) -> str:
    if isinstance(base, ast.Subscript):
        return _name(base.value)
    return base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")


def _assigned(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.Assign):
        return {_name(target) for target in statement.targets}
    return {_name(statement.target)} if isinstance(statement, ast.AnnAssign) else set()
