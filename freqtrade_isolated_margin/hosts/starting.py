"""How the guard of a strategy starts: live, in a replay, or for charts alone."""

from __future__ import annotations

import logging
from datetime import timedelta
from math import gcd

from freqtrade.enums import RunMode
from freqtrade.exceptions import OperationalException
from freqtrade.exchange import timeframe_to_seconds

from freqtrade_isolated_margin.errors import IsolatedMarginError
from freqtrade_isolated_margin.guard.judge import say_once
from freqtrade_isolated_margin.hosts.backtest_judge import BacktestJudge
from freqtrade_isolated_margin.hosts.candles import LiveCandles
from freqtrade_isolated_margin.hosts.reducing import check_reducing
from freqtrade_isolated_margin.hosts.replay import Replay
from freqtrade_isolated_margin.hosts.strategy import GuardedStrategy
from freqtrade_isolated_margin.hosts.wiring import bot_name, build_guard, check_funding
from freqtrade_isolated_margin.rules.settings import SECTION, Settings, in_both

logger = logging.getLogger(__name__)


# Where nothing is traded, but charts are drawn.
CHARTING = {RunMode.PLOT, RunMode.WEBSERVER}
# How long a bot's start waits for what its charts show of the time before it.
_HISTORY_SECONDS = 5.0


def check_command(strategy: GuardedStrategy, settings: Settings) -> None:
    """Refuse to trade in the margin accounts with an exchange that would go to futures instead.

    :raises OperationalException: where freqtrade was started by its own command.
    """
    if not settings.trading.enabled:
        return
    if not getattr(getattr(strategy.dp, "_exchange", None), "isolated_margin", False):
        raise OperationalException(
            "isolated_margin.trading is enabled: start the bot with the command freqtrade-margin instead of "
            "freqtrade, which would trade Binance's futures"
        )


def start_guard(strategy: GuardedStrategy, settings: Settings) -> None:
    """Start to read the accounts of a bot that trades."""
    seconds = timeframe_to_seconds(strategy.timeframe)
    try:
        candles = LiveCandles(settings, seconds, bot_name(strategy.config)) if settings.charts else None
        if settings.trading.enabled:
            # It guards each of its orders itself, and has a guard for that.
            judge = strategy.dp._exchange.margin_guard(settings, candles)
        else:
            judge = build_guard(strategy.config, settings, candles=candles)
        exchange = getattr(strategy.dp, "_exchange", None)
        settings.check_pairs(exchange.markets if exchange else ())
    except IsolatedMarginError as error:
        raise OperationalException(str(error)) from None
    check_reducing(strategy, settings, strategy.dp.current_whitelist())
    strategy._margin_locks, strategy._margin_told = None, {}
    strategy._margin_judge = judge
    strategy._margin_charts = candles
    judge.start(strategy.dp.current_whitelist())
    judge.await_history(_HISTORY_SECONDS)
    logger.info(
        "The isolated margin guard reads the accounts every %g s; entries are refused until it has.",
        settings.refresh_seconds,
    )


def start_replay(strategy: GuardedStrategy, settings: Settings) -> None:
    """Prepare to judge a backtest by the recorded history."""
    detail = strategy.config.get("timeframe_detail") or strategy.timeframe
    # Not the shorter of the two: of 5m and 3m the candles open at 3, 5, 6, 9, 10 …
    step = timedelta(seconds=gcd(*map(timeframe_to_seconds, (detail, strategy.timeframe))))
    try:
        check_funding(strategy.config, settings)
        judge = Replay(settings, strategy.config, step)
    except IsolatedMarginError as error:
        raise OperationalException(f"isolated_margin.backtest replay: {error}") from None
    say_once("The isolated margin guard replays the recorded history of the accounts.")
    both = ", ".join(in_both(strategy.config.get(SECTION), strategy.isolated_margin))
    if both:
        say_once(
            f"The configuration's {both} win over the strategy's: as a parameter of hyperopt they do nothing."
        )
    strategy._margin_charts = judge
    _judge_by(strategy, judge)


def start_simulation(strategy: GuardedStrategy, settings: Settings) -> None:
    """Prepare to judge a backtest by the accounts that its own trades make."""
    judge: BacktestJudge = strategy.dp._exchange.simulation(settings)
    check_reducing(strategy, settings, strategy.config["exchange"]["pair_whitelist"])
    say_once("The isolated margin guard judges by the accounts that the simulated trades make.")
    _judge_by(strategy, judge)


def _judge_by(strategy: GuardedStrategy, judge: BacktestJudge) -> None:
    strategy._margin_judge = judge
    if strategy.config.get("runmode") == RunMode.BACKTEST:
        judge.tell(type(strategy).__name__)


def recorded_charts(strategy: GuardedStrategy, settings: Settings) -> Replay | None:
    """Return what charts show where nothing is traded; None without a history."""
    step = timedelta(seconds=timeframe_to_seconds(strategy.timeframe))
    try:
        return Replay(settings, strategy.config, step)
    except IsolatedMarginError as error:
        say_once(f"No isolated margin accounts in the charts: {error}.")
        return None
