"""The benchmark: each of its suites runs, and its table says what was measured. Nothing is timed here."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from bench import __main__ as runner
from bench import report
from bench.measure import figure, median_ratio
from bench.picture import draw
from bench.stored import write_day
from matplotlib import image

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parent.parent
MACHINE = {"processor": "a processor", "cores": "2", "date": "2026-01-02"}
# What takes some seconds even in its smallest case is left to `python -m bench --quick`.
QUICK = ("answers", "weight", "history")


def a_figure(**changes: Any) -> dict[str, Any]:
    """A figure as a suite gives it, with `changes`."""
    known = figure(
        "weight a minute, 6 pairs",
        60,
        {"one call a pair": 360, "chunks of five": 120},
        ratio=0.5,
        target="60 a minute",
        reached=True,
        rounds=1,
        kind="count",
        unit="weight",
        note="A refresh every 10 s.",
    )
    return report.complete(known | changes, "weight")


def cells(markdown: str) -> list[list[str]]:
    """Return the rows of the table, the head and the line below it left out."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_table_says_what_was_measured() -> None:
    """Ours, the others, the ratio, the target and whether it is reached, with the note below."""
    markdown = report.as_markdown([a_figure(), a_figure(what="worse", reached=False, note="")], MACHINE)
    assert cells(markdown) == [
        [
            "weight a minute, 6 pairs [1]",
            "60",
            "one call a pair: 360<br>chunks of five: 120",
            "0.5",
            "60 a minute",
            "yes",
        ],
        ["worse", "60", "one call a pair: 360<br>chunks of five: 120", "0.5", "60 a minute", "**no**"],
    ]
    assert "1. A refresh every 10 s." in markdown
    assert "1 of 2 targets are reached." in markdown
    assert "processor a processor, cores 2" in markdown


def test_a_cell_cannot_break_the_table() -> None:
    """A line in a name is none in the table; where there is nothing to compare there is a dash."""
    odd = a_figure(what="this | that", others={}, ratio=None, reached=None, note="")
    assert cells(report.as_markdown([odd], MACHINE)) == [
        ["this / that", "60", "–", "–", "60 a minute", "–"],
    ]


def test_wall_time_is_named() -> None:
    """A reader sees which times are no processor times."""
    slow = a_figure(kind="wall time", unit="s", note="")
    assert ", wall time |" in report.as_markdown([slow], MACHINE)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (2.5, "s", "2.5 s"),
        (0.0012345, "s", "1.23 ms"),
        (0.000_012_3, "s", "12.3 µs"),
        (3e-8, "s", "30 ns"),
        (0.0, "s", "0 ns"),
        (14_400_000, "bytes", "14.40 MB"),
        (6000, "weight", "6,000"),
        (24_975.4, "rows a second", "24,975 rows a second"),
    ],
)
def test_values_have_their_unit(value: float, unit: str, text: str) -> None:
    """And no more digits than anybody reads."""
    assert report.shown(value, unit) == text


def test_the_json_has_every_digit(tmp_path: Path) -> None:
    """Of every figure, and what the machine is."""
    measured = [a_figure(ours=1 / 3)]
    report.write(tmp_path, measured, MACHINE)
    assert json.loads((tmp_path / "benchmark.json").read_text()) == {"machine": MACHINE, "figures": measured}
    assert report.read(tmp_path)["figures"] == measured


def test_a_suite_that_is_measured_anew_replaces_its_figures_only() -> None:
    """In the order of the suites, whichever came first."""
    former = [a_figure(what="old"), {**a_figure(what="kept"), "suite": "answers"}]
    merged = report.merged(former, [a_figure(what="new")], ["answers", "weight"])
    assert [known["what"] for known in merged] == ["kept", "new"]


def test_the_committed_table_is_that_of_the_committed_figures() -> None:
    """docs/benchmark.md is what the writer makes of docs/benchmark.json, with every suite in it."""
    found = json.loads((ROOT / "docs" / "benchmark.json").read_text())
    markdown = (ROOT / "docs" / "benchmark.md").read_text()
    assert markdown == report.as_markdown(found["figures"], found["machine"])
    assert {known["suite"] for known in found["figures"]} == runner.SUITES.keys()
    assert (ROOT / "docs" / "pictures" / "benchmark.png").exists()


def test_nothing_of_the_machine_but_what_it_is() -> None:
    """Neither a path nor a name is in what is written of it."""
    said = json.dumps(report.machine())
    assert os.uname().nodename not in said
    assert "/home" not in said
    assert str(Path.cwd()) not in said


def test_the_ratio_is_that_of_the_rounds() -> None:
    """What slows one round slows both of its figures, and changes nothing."""
    assert median_ratio([1.0, 10.0, 1.2], [2.0, 20.0, 2.0]) == 0.5


@pytest.fixture(scope="module")
def measured() -> dict[str, list[dict[str, Any]]]:
    """The smallest case of the suites that are quick."""
    return {name: runner.measure([name], quick=True) for name in QUICK}


@pytest.mark.parametrize("suite", QUICK)
def test_a_suite_runs(measured: dict[str, list[dict[str, Any]]], suite: str) -> None:
    """Its figures have everything that the table needs."""
    assert measured[suite]
    for known in measured[suite]:
        assert known["ours"] > 0
        assert known["suite"] == suite
        assert report.as_markdown([known], MACHINE)


def test_the_exchange_counts_the_weight(measured: dict[str, list[dict[str, Any]]]) -> None:
    """Ten a refresh, however many pairs; the others weigh what their calls do."""
    one, six = measured["weight"]
    assert one["ours"] == six["ours"] == 60
    assert six["others"] == {"one call a pair": 360, "chunks of five": 120}


def test_a_made_up_day_is_stored_as_a_bot_would(tmp_path: Path) -> None:
    """A row for each pair and read, since prices never stand still, and a decision a minute."""
    rows, _ = write_day(tmp_path / "day.sqlite", 120, bad=False)
    assert rows == 12 + 12 * 20 + 2 * 20


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    """Also of figures that grow with nothing."""
    draw(tmp_path / "some.png", [a_figure(), a_figure(what="weight a minute, 1 pair", ours=60)])
    draw(tmp_path / "none.png", [])
    for name in ("some.png", "none.png"):
        height, width, _ = image.imread(tmp_path / name).shape
        assert width > height > 300
