"""The rooms of the package: which may know which, and that no imports go round in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import freqtrade_isolated_margin

ROOT = Path(freqtrade_isolated_margin.__file__).parent
PACKAGE = ROOT.name

# Each room, and the rooms that it may know. What is pure knows nobody; the look-alike of the exchange knows
# nothing of the guard, so that the two can disagree.
MAY_KNOW: dict[str, set[str]] = {
    "errors": set(),
    "account": {"errors"},
    "rules": {"account", "errors"},
    "binance": {"rules", "account", "errors"},
    "history": {"binance", "rules", "account", "errors"},
    "guard": {"binance", "rules", "account", "errors"},
    "hosts": {"guard", "history", "binance", "rules", "account", "errors"},
    "trading": {"hosts", "guard", "history", "binance", "rules", "account", "errors"},
    "commands": {
        "trading",
        "hosts",
        "guard",
        "history",
        "binance",
        "rules",
        "account",
        "errors",
        "localexchange",
    },
    "localexchange": set(),
}


def modules() -> dict[str, Path]:
    """Return the package's modules by their dotted names below it."""
    files = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in ROOT.rglob("*.py")}
    return {name.removesuffix(".__init__"): file for name, file in files.items()}


def imports(file: Path) -> Iterator[str]:
    """Yield what a module imports of the package, wherever in it: also for types, and inside functions."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            # Those beyond its own folder are banned by ruff.
            here = file.parent.relative_to(ROOT.parent).parts if node.level else ()
            package, *rest = [*here, *(node.module or "").split(".")]
            module = ".".join(rest).strip(".")
            for alias in node.names if package == PACKAGE else ():
                inner = f"{module}.{alias.name}".removeprefix(".")
                yield inner if inner in modules() else module
        elif isinstance(node, ast.Import):
            yield from (
                a.name.removeprefix(f"{PACKAGE}.") for a in node.names if a.name.startswith(f"{PACKAGE}.")
            )


@pytest.mark.parametrize("room", MAY_KNOW)
def test_a_room_knows_only_those_below_it(room: str) -> None:
    """Imports go one way: hosts and commands, guard and history, binance, rules, account."""
    known = {
        (name, found)
        for name, file in modules().items()
        if name.split(".")[0] == room
        for found in imports(file)
        # The package's version stands at its door.
        if found and found.split(".")[0] not in {room, *MAY_KNOW[room]}
    }
    assert known == set()


def test_every_module_stands_in_a_room() -> None:
    """But for the door of the package and its command."""
    outside = {name for name in modules() if name.split(".")[0] not in MAY_KNOW}
    assert outside == {"__init__", "__main__"}


def test_no_imports_go_round_in_a_circle() -> None:
    """Every module can be understood after those that it imports. A room's door stands for the room."""
    graph = {name: set(imports(file)) - {name} for name, file in modules().items()}
    assert list(TopologicalSorter(graph).static_order())
