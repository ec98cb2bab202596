"""`freqtrade-isolated-margin status`: reads the accounts once and shows what entries may be."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.account.records import PairAccount, Row
from freqtrade_isolated_margin.binance.clock import Moment
from freqtrade_isolated_margin.binance.reader import PATIENCE_SECONDS, Snapshot, within
from freqtrade_isolated_margin.commands.configuration import load_config, load_settings
from freqtrade_isolated_margin.commands.sources import Pairs, kind_of, reader_maker
from freqtrade_isolated_margin.commands.terminal import output
from freqtrade_isolated_margin.hosts.wiring import check_funding
from freqtrade_isolated_margin.rules.decide import EntryDecision, Outcome, decide, plain
from freqtrade_isolated_margin.rules.settings import Settings

EXIT_FREE, EXIT_BLOCKED = 0, 1


class Line(NamedTuple):
    """What is shown of one pair."""

    pair: str
    symbol: str | None
    row: Row | None
    decision: EntryDecision


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit status."""
    config = load_config(arguments)
    settings = load_settings(config, arguments.strategy)
    check_funding(config, settings)
    snapshot, pairs = within(PATIENCE_SECONDS, lambda: _read(config, settings, arguments.pairs))
    now = Moment.now()
    lines = [_line(pair, snapshot, now, settings, Side(arguments.side)) for pair in pairs]
    if arguments.json:
        print(json.dumps(_as_json(snapshot, lines), indent=1))  # noqa: T201 - the command's output
    else:
        _print_table(snapshot, lines, settings)
    return EXIT_BLOCKED if any(line.decision.blocks for line in lines) else EXIT_FREE


def _read(config: dict[str, Any], settings: Settings, asked: Sequence[str]) -> tuple[Snapshot, list[str]]:
    pairs = Pairs(config, asked)
    reader = reader_maker(config, settings, pairs)()
    try:
        return reader.read(borrowed=settings.borrows), pairs.shown
    finally:
        reader.close()


def _line(pair: str, snapshot: Snapshot, now: Moment, settings: Settings, side: Side) -> Line:
    reading = snapshot.reading(pair, now)
    decision = decide(pair, side, reading, settings.rules_for(pair), float(settings.max_age_seconds))
    row = reading.row
    # What another bot has stored is known by its own symbol only.
    symbol = row.symbol if isinstance(row, PairAccount) else snapshot.symbols.get(pair)
    return Line(pair, symbol, row, decision)


# ----- JSON


def _as_json(snapshot: Snapshot, lines: list[Line]) -> dict[str, Any]:
    return {
        "read_at": snapshot.read_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "used_weight": snapshot.used_weight,
        "pairs": [_pair_json(line) for line in lines],
    }


def _pair_json(line: Line) -> dict[str, Any]:
    row, decision = line.row, line.decision
    account = row if isinstance(row, PairAccount) and kind_of(row) == "active" else None
    owing = account if account and account.has_debt else None
    room = decision.liquidation_distance
    return {
        "pair": line.pair,
        "symbol": line.symbol,
        "account": kind_of(row),
        "margin_level": _text(owing.margin_level if owing else None),
        "status": str(account.margin_level_status) if account else None,
        "index_price": _text(account.index_price if account else None),
        "liquidation_price": _text(account.liquidation_price if account else None),
        "liquidation_distance": None if room is None else plain(room, 8),
        "debt": account.has_debt if account else None,
        "decision": str(decision.outcome),
        "stake_factor": plain(decision.factor, 8),
        "max_stake": _text(decision.max_stake),
        "reasons": list(decision.reasons),
    }


def _text(value: Decimal | None) -> str | None:
    # As reported, its trailing zeros included, and never with an exponent.
    return None if value is None else f"{value:f}"


# ----- table

STYLES = {Outcome.ALLOW: "green", Outcome.SHRINK: "yellow", Outcome.BLOCK: "bold red"}


def _print_table(snapshot: Snapshot, lines: list[Line], settings: Settings) -> None:
    from rich.table import Table  # noqa: PLC0415 - not for --json

    console = output()
    wide = console.width >= _WIDE
    title = f"Isolated margin accounts, {snapshot.read_at:%Y-%m-%d %H:%M:%S} UTC"
    table = Table(title=title, title_justify="left")
    columns = _COLUMNS if wide else {name: _COLUMNS[name] for name in _NARROW_COLUMNS}
    for name, justify in columns.items():
        table.add_column(name, justify=justify, no_wrap=True)
    table.add_column("Why", overflow="fold", ratio=1)
    for line in lines:
        cells = _cells(line)
        table.add_row(*(cells[name] for name in columns), cells["Why"])
    console.print(table)
    if not wide:
        console.print(f"Status and prices need a window of {_WIDE} columns.", soft_wrap=True)
    if not lines:
        console.print("No pair to show: no account, or an empty whitelist.")
    if not settings.enabled:
        console.print('[yellow]The guard is off ("enabled": false): no entry is refused by the above.')


# In which the reasons still have room.
_WIDE = 140
_COLUMNS: dict[str, Literal["left", "right"]] = {
    "Pair": "left",
    "Account": "left",
    "Status": "left",
    "Level": "right",
    "Index price": "right",
    "Liquidation": "right",
    "Distance": "right",
    "Entry": "left",
}
_NARROW_COLUMNS = ("Pair", "Level", "Distance", "Entry")


def _cells(line: Line) -> dict[str, str]:
    from rich.markup import escape  # noqa: PLC0415 - as above

    shown = _pair_json(line)
    decision = line.decision
    style = STYLES[decision.outcome]
    share = f" × {decision.factor:.4f}" if decision.outcome is Outcome.SHRINK else ""
    if decision.max_stake is not None and not decision.blocks:
        share += f" ≤ {decision.max_stake:f}"
    room = decision.liquidation_distance
    return {
        "Pair": escape(line.pair),
        "Account": shown["account"],
        "Status": escape((shown["status"] or "–").replace("_", " ").lower()),
        "Level": _short(shown["margin_level"], 4),
        "Index price": shown["index_price"] or "–",
        "Liquidation": shown["liquidation_price"] or "–",
        "Distance": "–" if room is None else f"{plain(room * 100, 2)} %",
        "Entry": f"[{style}]{decision.outcome}{share}[/]",
        "Why": escape("; ".join(decision.reasons)),
    }


def _short(number: str | None, places: int) -> str:
    return "–" if number is None else plain(Decimal(number), places)
