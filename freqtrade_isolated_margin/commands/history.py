"""`freqtrade-isolated-margin history`: shows the accounts and decisions that are stored."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from heapq import merge
from typing import Any, NamedTuple

from freqtrade_isolated_margin.account.records import Absent, PairAccount, Unreadable
from freqtrade_isolated_margin.binance.clock import milliseconds, moment
from freqtrade_isolated_margin.commands.configuration import load_config, load_settings
from freqtrade_isolated_margin.commands.periods import parse_since
from freqtrade_isolated_margin.commands.terminal import output, progress
from freqtrade_isolated_margin.history.asking import Decided, History, Recorded, open_history
from freqtrade_isolated_margin.history.tables import ROW_SECONDS
from freqtrade_isolated_margin.hosts.wiring import own_key_id
from freqtrade_isolated_margin.rules.decide import Outcome, plain
from freqtrade_isolated_margin.rules.settings import spot_pair

QUIET_MINUTES = 15
"""Where nothing changes, the table has a line of a pair no more often than this."""
EXIT_SHOWN = 0

ACCOUNT_FIELDS = (
    "time",
    "pair",
    "account",
    "margin_level",
    "status",
    "index_price",
    "liquidation_price",
    "base_total",
    "base_borrowed",
    "base_interest",
    "quote_total",
    "quote_borrowed",
    "quote_interest",
    "why",
)
DECISION_FIELDS = ("time", "pair", "bot", "session", "side", "decision", "stake_factor", "rule", "reasons")

_QUIET_MS = QUIET_MINUTES * 60 * 1000
# A decision belongs to the account that came so shortly before.
_TOGETHER_MS = 5000
_BEFORE_MS = 2 * ROW_SECONDS * 1000
# Columns of the terminal.
_ROOM_FOR_WHY = 130
_SIGNIFICANT_DIGITS = 7


class Period(NamedTuple):
    """What is asked for of a history."""

    history: History
    pairs: Collection[str]
    keys: tuple[str, ...]
    since: int
    until: int

    def accounts(self) -> Iterator[tuple[str, Recorded]]:
        """Yield the stored accounts by pair."""
        return self.history.accounts(self.pairs, self.keys, self.since, self.until)

    def decisions(self) -> Iterator[Decided]:
        """Yield the stored decisions."""
        return self.history.decisions(self.pairs, self.keys, self.since, self.until)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit status."""
    now = datetime.now(UTC)
    since = parse_since(arguments.since, now)
    config = load_config(arguments)
    settings = load_settings(config).history
    history = open_history(settings, config)
    try:
        pairs = list(dict.fromkeys(spot_pair(pair) for pair in arguments.pairs))
        # Another machine's clock may be a little ahead of this one's.
        until = milliseconds(now) + _QUIET_MS
        period = Period(history, pairs, history.keys(settings.keys, own_key_id(config)), since, until)
        if arguments.json:
            _print_json(period)
        elif arguments.csv:
            _print_csv(period)
        else:
            _print_table(period)
    finally:
        history.close()
    return EXIT_SHOWN


# ----- all of it


def _iso(at: int) -> str:
    return moment(at).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _account_fields(pair: str, recorded: Recorded) -> dict[str, Any]:
    """Return an account under the names of `ACCOUNT_FIELDS`; what it does not have is None."""
    row = recorded.row
    fields: dict[str, Any] = dict.fromkeys(ACCOUNT_FIELDS)
    fields |= {"time": _iso(recorded.read_at), "pair": pair, "account": recorded.kind}
    if isinstance(row, Absent | Unreadable):
        fields["why"] = row.why
    elif isinstance(row, PairAccount):
        fields["account"] = "absent" if row.is_absent else "active"
        fields["index_price"] = f"{row.index_price:f}"
        fields["status"] = str(row.margin_level_status)
        if row.has_debt:
            # What these say where nothing is owed means nothing.
            fields["margin_level"] = f"{row.margin_level:f}"
            liquidation_price = row.liquidation_price
            fields["liquidation_price"] = None if liquidation_price is None else f"{liquidation_price:f}"
        for side, asset in (("base", row.base_asset), ("quote", row.quote_asset)):
            fields[f"{side}_total"] = f"{asset.total_asset:f}"
            fields[f"{side}_borrowed"] = f"{asset.borrowed:f}"
            fields[f"{side}_interest"] = f"{asset.interest:f}"
    return fields


def _decision_fields(decided: Decided) -> dict[str, Any]:
    """Return a decision under the names of `DECISION_FIELDS`."""
    return {
        "time": _iso(decided.at),
        "pair": decided.pair,
        "bot": decided.bot,
        "session": decided.session_id,
        "side": decided.side,
        "decision": decided.outcome,
        "stake_factor": f"{decided.factor:f}",
        "rule": decided.rule,
        "reasons": decided.reasons,
    }


def _print_json(period: Period) -> None:
    # A month of them need not be in the memory at once.
    accounts = (_account_fields(pair, recorded) for pair, recorded in period.accounts())
    first = next(accounts, None)
    sys.stdout.write('{"accounts": [')
    _print_list(first, accounts)
    sys.stdout.write('],\n"decisions": [')
    decisions = (_decision_fields(decided) for decided in period.decisions())
    _print_list(next(decisions, None), decisions)
    sys.stdout.write("]}\n")


def _print_list(first: dict[str, Any] | None, others: Iterable[dict[str, Any]]) -> None:
    if first is not None:
        sys.stdout.write(f"\n{json.dumps(first)}")
        sys.stdout.writelines(f",\n{json.dumps(fields)}" for fields in others)


def _print_csv(period: Period) -> None:
    accounts = ({"record": "account", **_account_fields(*stored)} for stored in period.accounts())
    decisions = ({"record": "decision", **_decision_fields(decided)} for decided in period.decisions())
    rows = merge(accounts, decisions, key=lambda fields: fields["time"])
    first = next(rows, None)
    columns = dict.fromkeys(["time", "record", "pair", *ACCOUNT_FIELDS, *DECISION_FIELDS])
    writer = csv.DictWriter(sys.stdout, list(columns), lineterminator="\n")
    writer.writeheader()
    if first is not None:
        writer.writerow(first)
        writer.writerows(rows)


# ----- table

_STYLES: dict[str, str] = {Outcome.ALLOW: "green", Outcome.SHRINK: "yellow", Outcome.BLOCK: "bold red"}


class Line(NamedTuple):
    """A line of the table: a pair's account, and the decision that stood."""

    at: int
    pair: str
    account: Recorded | None
    decided: Decided | None


class Lines:
    """Chooses the lines of one pair: each change of status or verdict, else one in `QUIET_MINUTES`."""

    def __init__(self, since: int) -> None:
        self.left_out = 0
        self._since = since
        self._line: Line | None = None
        self._is_decided = False
        self._account: Recorded | None = None
        self._standing: dict[tuple[str, str], Decided] = {}
        self._shown_at: int | None = None
        self._shown_state: object = None

    def account(self, pair: str, recorded: Recorded) -> Iterator[Line]:
        """Take the pair's next account; yield the line before it, if that is shown."""
        yield from self.finish()
        self._account = recorded
        newest = max(self._standing.values(), key=lambda decided: decided.at, default=None)
        self._line, self._is_decided = Line(recorded.read_at, pair, recorded, newest), False

    def decision(self, decided: Decided) -> Iterator[Line]:
        """Take the pair's next decision; yield the line before it, if that is shown."""
        if self._line is None or self._is_decided or decided.at - self._line.at > _TOGETHER_MS:
            yield from self.finish()
            self._line = Line(decided.at, decided.pair, self._account, decided)
        else:
            self._line = self._line._replace(decided=decided)
        self._is_decided = True
        self._standing[decided.bot, decided.side] = decided

    def finish(self) -> Iterator[Line]:
        """Yield the last line, if it is shown."""
        line, self._line = self._line, None
        if line is None or line.at < self._since:
            return
        row = line.account.row if line.account else None
        status = row.margin_level_status if isinstance(row, PairAccount) else None
        verdicts = {whose: decided.outcome for whose, decided in self._standing.items()}
        state = (line.account.kind if line.account else None, status, verdicts)
        # Rather one with a decision of its own, whose reasons have the same numbers.
        quiet = _QUIET_MS if self._is_decided else _QUIET_MS + _BEFORE_MS
        if self._shown_at is None or state != self._shown_state or line.at - self._shown_at >= quiet:
            self._shown_at, self._shown_state = line.at, state
            yield line
        else:
            self.left_out += 1


def _lines(period: Period) -> tuple[list[Line], int]:
    """Return the lines of the table in the order of time, and how many are left out."""
    by_pair: dict[str, Lines] = {}
    shown: list[Line] = []
    # What stands at the beginning was stored in the minute before.
    longer = period._replace(since=period.since - _BEFORE_MS)
    events: list[Iterator[tuple[int, str, Recorded | Decided]]] = [
        ((recorded.read_at, pair, recorded) for pair, recorded in longer.accounts()),
        ((decided.at, decided.pair, decided) for decided in longer.decisions()),
    ]
    with progress("Reading the history", longer.since, longer.until) as tell:
        # Of the same moment, the account comes first.
        for at, pair, event in merge(*events, key=lambda item: item[0]):
            tell(at)
            lines = by_pair.setdefault(pair, Lines(period.since))
            shown += lines.account(pair, event) if isinstance(event, Recorded) else lines.decision(event)
    for lines in by_pair.values():
        shown += lines.finish()
    return sorted(shown, key=lambda line: line.at), sum(lines.left_out for lines in by_pair.values())


def _print_table(period: Period) -> None:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - not for --json
    from rich.table import Table  # noqa: PLC0415

    lines, left_out = _lines(period)
    console = output()
    if not lines:
        asked = f" of {', '.join(period.pairs)}" if period.pairs else ""
        since = f"{moment(period.since):%Y-%m-%d %H:%M:%S}"
        console.print(f"Nothing{asked} is stored since {since} UTC.", markup=False, soft_wrap=True)
        return
    title = "History of the isolated margin accounts, times in UTC"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    bots = len({(line.decided.bot, line.decided.side) for line in lines if line.decided}) > 1
    reasons = console.width >= _ROOM_FOR_WHY
    table.add_column("Time", no_wrap=True)
    table.add_column("Pair", no_wrap=True)
    table.add_column("Level", justify="right", no_wrap=True)
    table.add_column("Status", no_wrap=True)
    table.add_column("Index", justify="right", no_wrap=True)
    table.add_column("Liquidation" if reasons else "Liq.", justify="right", no_wrap=True)
    if bots:
        table.add_column("Bot", overflow="fold")
    table.add_column("Entry", no_wrap=True)
    if reasons:
        table.add_column("Why", overflow="fold", ratio=1)
    for line in lines:
        at = f"{moment(line.at):{'%Y-%m-%d %H:%M:%S' if reasons else '%m-%d %H:%M'}}"
        bot, verdict, why = _decided_cells(line)
        cells = [at, *_account_cells(line), *([bot] if bots else []), verdict, *([why] if reasons else [])]
        table.add_row(*cells)
    console.print(table)
    if not reasons:
        console.print(f"The reasons need a window of {_ROOM_FOR_WHY} columns.", soft_wrap=True)
    if left_out:
        console.print(
            f"{left_out:,} rows in which neither verdict nor status changed are left out; "
            "--json and --csv have them all.",
            soft_wrap=True,
        )


def _account_cells(line: Line) -> list[str]:
    from rich.markup import escape  # noqa: PLC0415 - as above

    fields = _account_fields(line.pair, line.account) if line.account else dict.fromkeys(ACCOUNT_FIELDS)
    level = fields["margin_level"]
    status = fields["status"] if fields["account"] == "active" else fields["account"]
    return [
        escape(line.pair),
        "–" if level is None else plain(Decimal(level), 4),
        escape((status or "–").replace("_", " ").lower()),
        _price(fields["index_price"]),
        _price(fields["liquidation_price"]),
    ]


def _price(text: str | None) -> str:
    if text is None:
        return "–"
    price = Decimal(text)
    return plain(price, max(0, _SIGNIFICANT_DIGITS - 1 - price.adjusted()))


def _decided_cells(line: Line) -> tuple[str, str, str]:
    from rich.markup import escape  # noqa: PLC0415 - as above

    decided = line.decided
    if decided is None:
        row = line.account.row if line.account else None
        return "", "–", escape(row.why) if isinstance(row, Absent | Unreadable) else ""
    share = f" × {decided.factor:.4f}" if decided.outcome == Outcome.SHRINK else ""
    verdict = f"[{_STYLES.get(decided.outcome, 'default')}]{escape(decided.outcome)}{share}[/]"
    return escape(f"{decided.bot}, {decided.side}"), verdict, escape(decided.reasons)
