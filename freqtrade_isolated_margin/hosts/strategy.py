"""What a strategy carries for the guard: its judge, its settings, its locks; and the questions about them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from copy import deepcopy
from datetime import datetime
from typing import Any, ClassVar, NamedTuple

from freqtrade.enums import TRADE_MODES
from freqtrade.exceptions import OperationalException
from freqtrade.strategy import IStrategy

from freqtrade_isolated_margin.errors import SettingsError
from freqtrade_isolated_margin.guard.alerts import Alerts
from freqtrade_isolated_margin.guard.judge import Judge, StandIn
from freqtrade_isolated_margin.hosts.backtest_judge import BacktestJudge
from freqtrade_isolated_margin.hosts.candles import LiveCandles
from freqtrade_isolated_margin.hosts.replay import Replay
from freqtrade_isolated_margin.rules.decide import EntryDecision, Outcome, Rule
from freqtrade_isolated_margin.rules.settings import SECTION, Settings


class Lock(NamedTuple):
    """A lock of the guard: its exact reason, and its end."""

    reason: str
    until: datetime


class GuardedStrategy(IStrategy):  # type: ignore[misc]
    """What the guard keeps on a strategy; the mixin is the one to inherit from."""

    isolated_margin: ClassVar[Mapping[str, Any]] = {}
    """Settings of this strategy; those in the configuration's section of the same name win over them."""

    _margin_judge: Judge | None = None
    _margin_settings: tuple[Mapping[str, Any], Settings | str] | None = None
    _margin_alerts: Alerts | None = None
    _margin_charts: LiveCandles | Replay | None = None
    _margin_locks: dict[str, Lock] | None = None
    _margin_told: dict[str, tuple[Outcome, Rule]] | None = None
    _margin_wanted: dict[str, float]
    """The stake of each pair's newest entry before it was cut."""
    _margin_leverages: dict[str, float]
    """The leverage of each pair's newest entry: freqtrade does not tell it where the entry is confirmed."""


def settings_of(strategy: GuardedStrategy) -> Settings:
    """Load the settings anew if the strategy's own have changed, as hyperopt changes its parameters.

    :raises OperationalException: where they are impossible.
    """
    attribute = strategy.isolated_margin
    known = strategy._margin_settings
    if known is None or known[0] != attribute:
        found: Settings | str
        try:
            found = Settings.load(strategy.config.get(SECTION), attribute)
        except SettingsError as error:
            found = str(error)
        # A copy, since a strategy may change its own in place.
        known = strategy._margin_settings = (deepcopy(attribute), found)
    if isinstance(known[1], str):
        raise OperationalException(known[1])
    return known[1]


_OFF_DUTY = StandIn(Outcome.ALLOW, "the guard stands down outside of live and dry runs")
_NOT_STARTED = StandIn(
    Outcome.BLOCK, "the guard was not started (does something override ft_bot_start without super()?)"
)


def judge_of(strategy: GuardedStrategy) -> Judge:
    """Return the strategy's judge. One that trades without having been started refuses everything."""
    started = strategy._margin_judge
    if started is not None:
        return started
    return _NOT_STARTED if strategy.config.get("runmode") in TRADE_MODES else _OFF_DUTY


def go_to(strategy: GuardedStrategy, judge: BacktestJudge, now: datetime | None) -> None:
    """Let a backtest's judge stand at `now`, with the settings that the strategy has by now."""
    judge.now = now
    try:
        judge.settings, judge.trouble = settings_of(strategy), None
    except OperationalException as error:
        # One epoch of hyperopt with impossible limits: it enters nothing, and the next has others.
        judge.trouble = str(error)


def count_refusal(judge: Judge, decision: EntryDecision, *, refused: bool) -> None:
    """Note what became of an entry of a backtest, which says it at its end."""
    if isinstance(judge, BacktestJudge):
        judge.count(decision, refused=refused)


def log_level(judge: Judge) -> int:
    """Return at which level a refusal is logged: a backtest has thousands of them."""
    return logging.DEBUG if isinstance(judge, BacktestJudge) else logging.INFO
