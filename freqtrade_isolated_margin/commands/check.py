"""`freqtrade-isolated-margin check`: looks at everything that the guard needs, and says what to do."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.account.records import NoMarket
from freqtrade_isolated_margin.binance.adapter import NO_ACCOUNT_CODES, IsolatedMarginAdapter, Restrictions
from freqtrade_isolated_margin.binance.clock import Moment, moment
from freqtrade_isolated_margin.binance.credentials import ENV_KEY, ENV_SECRET, Credentials
from freqtrade_isolated_margin.binance.reader import PATIENCE_SECONDS, Reader, Snapshot, within
from freqtrade_isolated_margin.commands.configuration import (
    has_dynamic_pairs,
    listed_pairs,
    load_config,
    load_strategy,
    whitelist,
)
from freqtrade_isolated_margin.commands.sources import Pairs, kind_of, reader_maker
from freqtrade_isolated_margin.commands.terminal import output
from freqtrade_isolated_margin.errors import IsolatedMarginError, SettingsError
from freqtrade_isolated_margin.hosts.wiring import build_adapter, check_funding, credentials_of, own_key_id
from freqtrade_isolated_margin.rules.decide import EntryDecision, Rule, decide, is_young, plain
from freqtrade_isolated_margin.rules.rules import Rules
from freqtrade_isolated_margin.rules.settings import SECTION, Settings

# A clock that is off by more is worth a word, although the guard corrects for it.
_CLOCK_SECONDS = 1.0


class State(StrEnum):
    """How a line of the check turned out."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


EXIT_STATUS = {State.OK: 0, State.WARNING: 1, State.FAILURE: 2}


class Finding(NamedTuple):
    """One line: what was looked at, how it is, and what to do about it."""

    what: str
    state: State
    found: str
    advice: str = ""


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit status: 0, 1 with a warning, 2 with a failure."""
    findings: list[Finding] = []
    for finding in Checkup(arguments).findings():
        findings.append(finding)
        if not arguments.json:
            _print(finding)
    if arguments.json:
        lines = [finding._asdict() | {"state": str(finding.state)} for finding in findings]
        print(json.dumps({"checks": lines}, indent=1))  # noqa: T201 - the command's output
    return max(EXIT_STATUS[finding.state] for finding in findings)


_STYLES = {State.OK: "green", State.WARNING: "yellow", State.FAILURE: "bold red"}


def _print(finding: Finding) -> None:
    from rich.text import Text  # noqa: PLC0415 - not for --json

    line = Text(f"{finding.state:8}", _STYLES[finding.state])
    line.append(f"{finding.what}: {finding.found}", "")
    console = output()
    console.print(line, soft_wrap=True)
    if finding.advice:
        console.print(Text(f"        → {finding.advice}", "dim"), soft_wrap=True)


@dataclass
class Checkup:
    """The checks, one after the other; each needs what the ones before it have found."""

    arguments: argparse.Namespace

    def findings(self) -> Iterator[Finding]:
        """Yield the findings; where one makes the next impossible they end."""
        try:
            config = load_config(self.arguments)
        except IsolatedMarginError as error:
            yield Finding("configuration", State.FAILURE, str(error))
            return
        settings = yield from _settings(config, self.arguments.strategy)
        if settings is None:
            return
        if settings.source == "history":
            yield from _followed(config, settings)
            return
        credentials = yield from _credentials(config)
        if credentials is None:
            return
        try:
            with closing(build_adapter(credentials, settings, config)) as adapter:
                yield from _in_time(_exchange(adapter, settings, config, credentials))
        except IsolatedMarginError as error:
            yield Finding("exchange", State.FAILURE, str(error), _what_to_do(error))
        if settings.history.enabled:
            yield _history(config, settings)


def _in_time(findings: Iterator[Finding]) -> Iterator[Finding]:
    """Yield the findings as long as the exchange takes no longer for all of them than one waits for it."""
    end = time.monotonic() + PATIENCE_SECONDS
    while finding := within(end - time.monotonic(), lambda: next(findings, None)):
        yield finding


def _what_to_do(error: IsolatedMarginError) -> str:
    if error.kind == "credentials":
        return (
            "check that key and secret belong together and are not swapped, the address that the key is "
            "bound to, and that it may read"
        )
    if error.code in NO_ACCOUNT_CODES:
        return (
            "there may be no isolated margin account yet: at Binance, under Margin and Isolated, choose a "
            "pair and transfer something into its account, which makes it"
        )
    if error.kind == "unavailable":
        return "check the network and the proxy, and try again"
    return ""


def _settings(config: dict[str, Any], name: str | None) -> Generator[Finding, None, Settings | None]:
    """Yield what the section and the strategy are; return the settings in force, None if there are none."""
    strategy, problem = None, None
    name = name or config.get("strategy")
    if name:
        try:
            strategy = load_strategy(config, name)
        except SettingsError as error:
            problem = str(error)
    try:
        settings = Settings.load(config.get(SECTION), getattr(strategy, SECTION, None))
        check_funding(config, settings)
    except SettingsError as error:
        yield Finding("configuration", State.FAILURE, str(error))
        return None
    yield _section(config, settings)
    yield _carries_the_mixin(name, strategy, problem, trades=settings.trading.enabled)
    return settings


def _section(config: dict[str, Any], settings: Settings) -> Finding:
    if not settings.enabled:
        return Finding(
            "configuration", State.WARNING, '"enabled" is false: the guard is off', "set it to true"
        )
    if SECTION not in config:
        return Finding("configuration", State.OK, f'no section "{SECTION}": the defaults are in force')
    return Finding("configuration", State.OK, f'the section "{SECTION}" is valid')


def _carries_the_mixin(name: str | None, strategy: object, problem: str | None, *, trades: bool) -> Finding:
    if problem or not name:
        found = problem or "no strategy is configured, so that it cannot be seen whether it carries the mixin"
        return Finding("strategy", State.FAILURE, found, "name it: --strategy NAME")
    from freqtrade.exceptions import OperationalException  # noqa: PLC0415 - loaded with the strategy by now

    from freqtrade_isolated_margin.hosts.mixin import IsolatedMarginMixin  # noqa: PLC0415
    from freqtrade_isolated_margin.hosts.selfcheck import check_guarded  # noqa: PLC0415

    if not isinstance(strategy, IsolatedMarginMixin) and trades:
        found = (
            f"{name} does not carry the mixin: the guard is asked at each order, and its charts are not there"
        )
        return Finding("strategy", State.OK, found)
    if not isinstance(strategy, IsolatedMarginMixin):
        return Finding(
            "strategy",
            State.FAILURE,
            f"{name} does not carry the mixin: nothing is guarded, whatever the section says",
            f"write: class {name}(IsolatedMarginMixin, IStrategy)",
        )
    try:
        check_guarded(strategy)
    except OperationalException as error:
        return Finding("strategy", State.FAILURE, str(error))
    return Finding("strategy", State.OK, f"{name} carries the mixin, and freqtrade will ask it")


def _credentials(config: dict[str, Any]) -> Generator[Finding, None, Credentials | None]:
    """Yield where the credentials come from; return them, None if there are none."""
    try:
        credentials = credentials_of(config, os.environ)
    except IsolatedMarginError as error:
        yield Finding("credentials", State.FAILURE, str(error))
        return None
    if credentials is None:
        advice = f"set {ENV_KEY} and {ENV_SECRET}, or exchange.key and exchange.secret of a bot on binance"
        yield Finding("credentials", State.FAILURE, "no API key is set", advice)
        return None
    yield Finding("credentials", State.OK, f"from {credentials.source}")
    return credentials


def _exchange(
    adapter: IsolatedMarginAdapter, settings: Settings, config: dict[str, Any], credentials: Credentials
) -> Iterator[Finding]:
    adapter.load_markets()
    yield _clock(*adapter.fetch_clock(), settings)
    settings.check_pairs([*adapter.pairs().values(), *listed_pairs(config)])
    yield from _permissions(adapter, credentials)
    pairs = None if has_dynamic_pairs(config) else whitelist(config, adapter.pairs().values())
    snapshot = Reader(adapter).read(pairs, borrowed=settings.borrows)
    enabled, allowed = adapter.fetch_account_limit()
    yield _accounts(snapshot, f"{enabled} of {allowed} isolated margin accounts are used; ")
    yield from _pairs(snapshot, settings)
    if settings.trading.enabled:
        yield from _trading(adapter, settings, config, snapshot)


def _trading(
    adapter: IsolatedMarginAdapter, settings: Settings, config: dict[str, Any], snapshot: Snapshot
) -> Iterator[Finding]:
    """Yield what a bot that trades in the accounts needs, and what is left in them."""
    from freqtrade_isolated_margin.commands.check_trading import trading_notes  # noqa: PLC0415 - only for those

    for ok, found, advice in trading_notes(adapter, settings, config, snapshot):
        yield Finding("trading", State.OK if ok else State.FAILURE, found, advice)


def _followed(config: dict[str, Any], settings: Settings) -> Iterator[Finding]:
    """Yield what is to be said of a bot that judges by what another one stores: it needs no key."""
    from freqtrade_isolated_margin.history.tables import OtherAccountsError  # noqa: PLC0415 - with the history only

    try:
        reader = reader_maker(config, settings, Pairs(config))()
        try:
            snapshot = reader.read(borrowed=settings.borrows)
        finally:
            reader.close()
    except IsolatedMarginError as error:
        advice = "" if isinstance(error, OtherAccountsError) else _START_THE_READER
        yield Finding("history", State.FAILURE, str(error), advice)
        return
    age, limit = snapshot.asked_at.age(Moment.now()), float(settings.max_age_seconds)
    found = f"the newest account is {age:.0f} s old, the limit (max_age_seconds) is {limit:g} s"
    if snapshot.trouble:
        advice = "see the log of the bot that reads the exchange"
        found = f"its reader has trouble: {snapshot.trouble}; {found}"
        yield Finding("history", State.FAILURE, found, advice)
    elif not is_young(age, limit):
        yield Finding("history", State.FAILURE, found, _START_THE_READER)
    else:
        yield Finding("history", State.OK, found)
    yield _accounts(snapshot)
    yield from _pairs(snapshot, settings)


def _history(config: dict[str, Any], settings: Settings) -> Finding:
    """Say whether what the bot reads can be stored."""
    from freqtrade_isolated_margin.history.asking import open_history  # noqa: PLC0415 - not for a bot without one
    from freqtrade_isolated_margin.history.tables import NoHistoryError  # noqa: PLC0415

    try:
        with closing(open_history(settings.history, config)) as history:
            history.try_storing()
            history.check()
            span = history.span([own_key_id(config) or ""])
    except NoHistoryError:
        return Finding("history", State.OK, "there is none yet: the bot begins it")
    except IsolatedMarginError as error:
        return Finding("history", State.WARNING, str(error), "the bot runs without it, and tries again")
    if span is None:
        return Finding("history", State.OK, "it has nothing of this key yet: the bot begins it")
    first, last = (f"{moment(at):%Y-%m-%d %H:%M:%S}" for at in span)
    return Finding("history", State.OK, f"accounts are stored from {first} to {last} UTC")


_START_THE_READER = "start the bot that reads the exchange, with the same database, and see its log"


def _pairs(snapshot: Snapshot, settings: Settings) -> Iterator[Finding]:
    now = Moment.now()
    for pair in sorted(snapshot.rows):
        reading = snapshot.reading(pair, now)
        rules = settings.rules_for(pair)
        decision = decide(pair, Side.LONG, reading, rules, float(settings.max_age_seconds))
        if isinstance(reading.row, NoMarket) and decision.blocks:
            yield Finding(
                pair,
                State.WARNING,
                "it has no spot market on Binance, and so no isolated account: its entries are refused",
                f'take it out of the whitelist, or set "pairs": {{"{pair}": {{"without_account": "allow"}}}}',
            )
            continue
        yield _pair(pair, decision, rules, exists=kind_of(reading.row) == "active")


def _clock(offset: float, round_trip: float, settings: Settings) -> Finding:
    way = "ahead of" if offset > 0 else "behind"
    found = f"{abs(offset):.2f} s {way} Binance's, round trip {round_trip:.2f} s"
    if round_trip * 1000 > settings.recv_window:
        return Finding("clock", State.FAILURE, found, "the answer takes longer than recv_window: raise it")
    if abs(offset) > _CLOCK_SECONDS:
        advice = "the guard corrects for it, freqtrade does not: set the clock of this machine"
        return Finding("clock", State.WARNING, found, advice)
    return Finding("clock", State.OK, found)


def _permissions(adapter: IsolatedMarginAdapter, credentials: Credentials) -> Iterator[Finding]:
    try:
        may = adapter.fetch_restrictions()
    except IsolatedMarginError as error:
        yield Finding("key", State.WARNING, f"what it may do cannot be read: {error}")
        return
    checks: list[tuple[bool, Callable[[Restrictions], Finding]]] = [
        (not may.enable_reading, _cannot_read),
        (may.enable_withdrawals, _may_withdraw),
        (not may.ip_restrict, _not_bound),
    ]
    troubles = [tell(may) for applies, tell in checks if applies]
    yield from troubles
    more = may.beyond_reading
    advice = ""
    if more:
        advice = f"it may do more than the guard needs ({', '.join(more)}): one that only reads is safer"
        if credentials.source != "environment":
            advice = f"{advice}; set {ENV_KEY} and {ENV_SECRET}"
    if not troubles or more:
        yield Finding("key", State.OK, "it may read" if may.enable_reading else "it is known", advice)


def _cannot_read(_may: Restrictions) -> Finding:
    return Finding(
        "key", State.FAILURE, "it may not read (enableReading false)", "enable reading for it at Binance"
    )


def _may_withdraw(_may: Restrictions) -> Finding:
    advice = "disable withdrawals at Binance: neither this guard nor freqtrade ever withdraws"
    return Finding("key", State.WARNING, "IT MAY WITHDRAW (enableWithdrawals)", advice)


def _not_bound(_may: Restrictions) -> Finding:
    return Finding(
        "key", State.WARNING, "it is not bound to an address (ipRestrict)", "bind it to this address"
    )


def _accounts(snapshot: Snapshot, used: str = "") -> Finding:
    number = sum(kind_of(row) == "active" for row in snapshot.rows.values())
    found = f"{used}{number} of the bot's pairs have one"
    if not number:
        return Finding("accounts", State.WARNING, found, "without an account only without_account counts")
    return Finding("accounts", State.OK, found)


def _pair(pair: str, decision: EntryDecision, rules: Rules, *, exists: bool) -> Finding:
    level, room = rules.margin_level, rules.liquidation_distance
    limits = (
        f"margin_level {plain(level.block_below, 4)} to {plain(level.full_above, 4)}, "
        f"liquidation_distance {plain(room.block_below, 4)} to {plain(room.full_above, 4)}, "
        f"entry_funding {rules.entry_funding}, without_account {rules.without_account}"
    )
    share = "" if decision.factor in (0, 1) else f" × {plain(decision.factor, 4)}"
    account = "account" if exists else "no account"
    found = f"{account}; {decision.outcome}{share}: {'; '.join(decision.reasons)} [{limits}]"
    if decision.rule is Rule.UNREADABLE:
        return Finding(pair, State.FAILURE, found)
    return Finding(pair, State.WARNING if decision.blocks else State.OK, found)
