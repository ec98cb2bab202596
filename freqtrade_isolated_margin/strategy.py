"""`IsolatedMarginMixin`: puts the guard around a freqtrade strategy's callbacks.

freqtrade places the trade where a callback raises or is not overridden, and a strategy may override a
callback without calling `super()`. So the mixin does not rely on inheritance: every subclass gets a
wrapper around whatever its callbacks resolve to (`__init_subclass__`), and only the outermost wrapper
acts, once per call, whatever chain of `super()` runs inside it.
"""

from __future__ import annotations

import functools
import inspect
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import repeat
from math import floor, gcd, isfinite, isnan, nan, nextafter
from typing import Any, ClassVar, NamedTuple, cast
from uuid import uuid4

import numpy as np
from freqtrade.configuration import TimeRange
from freqtrade.enums import TRADE_MODES, RunMode
from freqtrade.exceptions import OperationalException
from freqtrade.exchange import timeframe_to_next_date, timeframe_to_seconds
from freqtrade.persistence import PairLocks, Trade
from freqtrade.strategy import IStrategy
from freqtrade.strategy.strategy_wrapper import strategy_safe_wrapper
from pandas import DataFrame

from . import guard
from .account import PairAccount
from .alerts import Alerts, as_messages, longest_message
from .columns import COLUMNS, LiveCandles, Values, merged_plot_config, shaded
from .errors import IsolatedMarginError, SettingsError
from .guard import Guard, Judge, StandIn, build_guard, check_funding, say_once
from .margin import ONE, Side, exact
from .moments import milliseconds, moment
from .monitor import Moment
from .protection import make_loadable
from .replay import Replay, fingerprint, names_any
from .rules import EntryDecision, Outcome, Rule
from .settings import SECTION, Settings, in_both

logger = logging.getLogger(__name__)

LOCK_PREFIX = "isolated margin: "
"""How the reason of every lock of the mixin begins."""

# Relative; freqtrade computes an order's amount and back in floats.
_FLOAT_SLACK = 1e-9


class _Lock(NamedTuple):
    reason: str
    until: datetime


class IsolatedMarginMixin(IStrategy):  # type: ignore[misc]
    """Guards a strategy's entries with its pairs' isolated margin accounts on Binance.

    Live and dry it reads the accounts in the background, vetoes, shrinks and locks entries, and never
    hinders an exit. In backtesting, hyperopt and the analyses it stands down. Write it before `IStrategy`:
    ``class MyStrategy(IsolatedMarginMixin, IStrategy)``.
    """

    isolated_margin: ClassVar[Mapping[str, Any]] = {}
    """Settings of this strategy; those in the configuration's section of the same name win over them."""

    _margin_judge: Judge | None = None
    _margin_settings: tuple[Mapping[str, Any], Settings | str] | None = None
    _margin_alerts: Alerts | None = None
    _margin_charts: LiveCandles | Replay | None = None
    _margin_locks: dict[str, _Lock] | None = None
    _margin_told: dict[str, tuple[Outcome, Rule]] | None = None

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        _name_history(self)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, (handler, refusal) in _HANDLERS.items():
            setattr(cls, name, _guarded(name, handler, refusal, inspect.getattr_static(cls, name)))
        cls.ft_bot_cleanup = _cleaning(inspect.getattr_static(cls, "ft_bot_cleanup"))
        cls.protections = _Protections(inspect.getattr_static(cls, "protections"))
        cls.plot_config = _PlotConfig(inspect.getattr_static(cls, "plot_config"))
        cls.plot_annotations = _annotated(inspect.getattr_static(cls, "plot_annotations"))

    def margin_account(self, pair: str) -> PairAccount | None:
        """Return the pair's account as last read; None if it has none, or it cannot be judged now."""
        return _judge(self).account(pair)

    def margin_decision(self, pair: str, side: str = "long") -> EntryDecision:
        """Return what an entry into `pair` may be now, and why.

        In a backtest that replays the history, now is the open of the candle (or, if later, the moment of the
        newest callback that the guard acts in), and there is no now while indicators and signals are made.
        """
        return _judge(self).decision(pair, Side(side))

    def margin_lock(self, pair: str, side: str, now: datetime) -> tuple[str, Rule] | None:
        """Return the sides on which `pair` should be locked now, and by which rule; None if on none."""
        judge = _judge(self)
        if isinstance(judge, Replay):
            _go_to(self, judge, now)
        asked = judge.decision(pair, Side(side))
        if not asked.blocks or judge.is_waiting(asked):
            return None
        other = judge.decision(pair, Side.SHORT if side == Side.LONG else Side.LONG)
        return ("*" if other.blocks or not self.can_short else str(side)), asked.rule

    def advise_all_indicators(self, data: dict[str, DataFrame]) -> dict[str, DataFrame]:
        """Analyse the candles of a backtest; one that replays the history needs some (freqtrade's hook).

        :raises OperationalException: where it holds nothing of the whole period.
        """
        if isinstance(self._margin_judge, Replay):
            _load_all(self, self._margin_judge, data)
        analysed: dict[str, DataFrame] = super().advise_all_indicators(data)
        return analysed

    def advise_entry(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        """Look for entries; here every backtest and every epoch of a hyperopt begins (freqtrade's hook)."""
        if isinstance(self._margin_judge, Replay):
            self._margin_judge.begin()
        return super().advise_entry(dataframe, metadata)

    def advise_indicators(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        """Add the columns that charts show, before the strategy's own (freqtrade's hook)."""
        if isinstance(self._margin_judge, Replay):
            if self._margin_charts is self._margin_judge:
                # Its columns are made with the limits of this epoch.
                _go_to(self, self._margin_judge, None)
            self._margin_judge.now = None
            _load(self, self._margin_judge, {metadata["pair"]: _opens(dataframe)})
        if not _wants_charts(self):
            return super().advise_indicators(dataframe, metadata)
        if isinstance(self._margin_charts, Replay) and self._margin_charts is not self._margin_judge:
            _load_chart(self, self._margin_charts, dataframe, metadata["pair"])
        _add_columns(self, dataframe, metadata["pair"])
        analysed = super().advise_indicators(dataframe, metadata)
        if not set(COLUMNS) <= set(analysed.columns):
            _add_columns(self, analysed, metadata["pair"])
        return analysed

    def ft_bot_start(self, **kwargs: Any) -> None:
        """Start guarding, before the strategy's own `bot_start` (freqtrade's hook)."""
        settings = _settings(self)
        mode = self.config.get("runmode")
        if mode in TRADE_MODES and not settings.enabled:
            logger.warning('The isolated margin guard is off ("isolated_margin": {"enabled": false}).')
            self._margin_judge = StandIn(Outcome.ALLOW, "the guard is off (enabled false)")
            _lift_left_locks(self)
        elif mode in TRADE_MODES:
            _start_guard(self, settings)
        elif settings.enabled and settings.backtest == "replay" and mode not in _CHARTING:
            _start_replay(self, settings)
        else:
            say_once("The isolated margin guard stands down outside of live and dry runs.")
            self._margin_judge = StandIn(Outcome.ALLOW, "the guard stands down outside of live and dry runs")
            if mode in _CHARTING and settings.charts and settings.history.enabled:
                self._margin_charts = _recorded_charts(self, settings)
        super().ft_bot_start(**kwargs)
        # Only now have the parameters of a hyperopt been loaded, which limits may be made of.
        changed = _settings(self)
        if changed != settings and isinstance(self._margin_judge, Guard):
            self._margin_judge.adopt(changed)
        make_loadable(self)
        if isinstance(self._margin_judge, Guard):
            check_guarded(self)


# Where nothing is traded, but charts are drawn.
_CHARTING = {RunMode.PLOT, RunMode.WEBSERVER}
# How long a bot's start waits for what its charts show of the time before it.
_HISTORY_SECONDS = 5.0


def _settings(strategy: IsolatedMarginMixin) -> Settings:
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


def _start_guard(strategy: IsolatedMarginMixin, settings: Settings) -> None:
    try:
        judge = build_guard(
            strategy.config, settings, timeframe_seconds=timeframe_to_seconds(strategy.timeframe)
        )
        exchange = getattr(strategy.dp, "_exchange", None)
        settings.check_pairs(exchange.markets if exchange else ())
    except IsolatedMarginError as error:
        raise OperationalException(str(error)) from None
    strategy._margin_locks, strategy._margin_told = None, {}
    strategy._margin_judge = judge
    strategy._margin_charts = judge.candles
    judge.start(strategy.dp.current_whitelist())
    judge.await_history(_HISTORY_SECONDS)
    logger.info(
        "The isolated margin guard reads the accounts every %g s; entries are refused until it has.",
        settings.refresh_seconds,
    )


def _start_replay(strategy: IsolatedMarginMixin, settings: Settings) -> None:
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
    strategy._margin_judge = judge
    if strategy.config.get("runmode") == RunMode.BACKTEST:
        judge.tell(type(strategy).__name__)
    if _uses_columns(strategy):
        strategy._margin_charts = judge
    elif settings.charts:
        say_once(f"The columns {', '.join(COLUMNS)} are left empty: the strategy names none of them.")


def _uses_columns(strategy: IsolatedMarginMixin) -> bool:
    """Whether a backtest needs the columns: to judge every candle takes longer than all the rest of it."""
    config = strategy.config
    if config.get("runmode") not in (RunMode.BACKTEST, RunMode.HYPEROPT):
        return True
    keeps_all = config.get("export") == "signals" or config.get("freqai", {}).get("enabled", False)
    return keeps_all or names_any(COLUMNS, type(strategy), config.get("user_data_dir"))


def _recorded_charts(strategy: IsolatedMarginMixin, settings: Settings) -> Replay | None:
    step = timedelta(seconds=timeframe_to_seconds(strategy.timeframe))
    try:
        return Replay(settings, strategy.config, step)
    except IsolatedMarginError as error:
        say_once(f"No isolated margin accounts in the charts: {error}.")
        return None


_OFF_DUTY = StandIn(Outcome.ALLOW, "the guard stands down outside of live and dry runs")
_NOT_STARTED = StandIn(
    Outcome.BLOCK, "the guard was not started (does something override ft_bot_start without super()?)"
)


def _judge(strategy: IsolatedMarginMixin) -> Judge:
    """Return the strategy's judge. One that trades without having been started refuses everything."""
    started = strategy._margin_judge
    if started is not None:
        return started
    return _NOT_STARTED if strategy.config.get("runmode") in TRADE_MODES else _OFF_DUTY


def _go_to(strategy: IsolatedMarginMixin, judge: Replay, now: datetime | None) -> None:
    """Let a backtest's judge stand at `now`, with the settings that the strategy has by now."""
    judge.now = now
    try:
        judge.settings, judge.trouble = _settings(strategy), None
    except OperationalException as error:
        # One epoch of hyperopt with impossible limits: it enters nothing, and the next has others.
        judge.trouble = str(error)


# ----- the wrappers around a strategy's callbacks

_Bind = Callable[[], Callable[..., Any]]
_Handler = Callable[[IsolatedMarginMixin, Judge, _Bind, dict[str, Any]], Any]


def _guarded(name: str, handler: _Handler, refusal: Any, inner: Any) -> Callable[..., Any]:
    """Return a callback that asks `inner`, and then the guard if it is the outermost of its strategy.

    Whatever raises on the way to a verdict is `refusal`: freqtrade would go ahead.
    """

    # `wraps` keeps the qualified name too: freqtrade tells by it whether the user has overridden it.
    @functools.wraps(inner.__func__ if isinstance(inner, staticmethod | classmethod) else inner)
    def callback(self: IsolatedMarginMixin, *args: Any, **kwargs: Any) -> Any:
        def bind() -> Callable[..., Any]:
            found = inner.__get__(self, type(self)) if hasattr(type(inner), "__get__") else inner
            return cast("Callable[..., Any]", found)

        judge = _judge(self)
        off_duty = isinstance(judge, StandIn) and judge.outcome is Outcome.ALLOW
        # What runs inside a callback of the strategy's own, a `super()` above all, is judged with its result.
        if off_duty or guard.inside.on:
            return bind()(*args, **kwargs)
        try:
            kwargs |= zip(_PARAMETERS[name], args, strict=False)
            if isinstance(judge, Replay):
                _go_to(self, judge, kwargs["current_time"])
            return handler(self, judge, bind, kwargs)
        except Exception:
            logger.exception("The isolated margin guard failed in %s; it refuses.", name)
            return refusal

    return callback


def _own_result(bind: _Bind, kwargs: dict[str, Any], default: Any) -> Any:
    """Call the strategy's own callback, and treat it as freqtrade would where it raises."""
    try:
        with guard.inside:
            return bind()(**kwargs)
    except Exception as error:  # noqa: BLE001 - whatever it is, freqtrade says it in its own way
        raised = error

    def own_callback() -> Any:
        raise raised

    # Only now: freqtrade's wrapper is slow to make, and a backtest calls back thousands of times.
    return strategy_safe_wrapper(own_callback, default_retval=default, supress_error=True)()


def _confirm_trade_entry(
    strategy: IsolatedMarginMixin, judge: Judge, bind: _Bind, kwargs: dict[str, Any]
) -> Any:
    own = _own_result(bind, kwargs, default=True)
    return own if own and _may_enter(strategy, judge, kwargs) else False


def _may_enter(strategy: IsolatedMarginMixin, judge: Judge, kwargs: dict[str, Any]) -> bool:
    decision = judge.decision(kwargs["pair"], Side(kwargs["side"]))
    if decision.blocks:
        _log_refusal(strategy, decision)
        return False
    if decision.max_stake is not None:
        # The stake was cut to it already; this catches what freqtrade or a strategy changed since.
        value = float(kwargs["amount"]) * float(kwargs["rate"])
        if not value <= float(decision.max_stake) * (1 + _FLOAT_SLACK):
            _count(judge, decision, refused=True)
            logger.log(
                _level(judge),
                "Entry refused, its value %s is above the largest that is safe: %s",
                value,
                decision,
            )
            return False
    return True


def _custom_stake_amount(
    strategy: IsolatedMarginMixin, judge: Judge, bind: _Bind, kwargs: dict[str, Any]
) -> Any:
    own = _own_result(bind, kwargs, default=kwargs["proposed_stake"])
    decision = judge.decision(kwargs["pair"], Side(kwargs["side"]), Decimal(str(kwargs["leverage"])))
    return _cut(strategy, judge, decision, own, kwargs["min_stake"], kwargs["max_stake"])


def _adjust_trade_position(
    strategy: IsolatedMarginMixin, judge: Judge, bind: _Bind, kwargs: dict[str, Any]
) -> Any:
    own = _own_result(bind, kwargs, default=None)
    stake, *tag = own if isinstance(own, tuple) and own else (own,)
    if not _is_increase(stake):
        return own
    trade = kwargs["trade"]
    leverage = Decimal(str(trade.leverage or 1))
    decision = judge.decision(trade.pair, Side(trade.trade_direction), leverage)
    cut = _cut(strategy, judge, decision, stake, kwargs["min_stake"], kwargs["max_stake"])
    if cut is stake:
        return own
    if not cut:
        return None
    return (cut, *tag) if tag else cut


def _is_increase(stake: Any) -> bool:
    # As freqtrade asks it (`check_and_call_adjust_trade_position`); what cannot be compared is no increase.
    try:
        return bool(stake is not None and stake > 0.0)
    except Exception:  # noqa: BLE001 - freqtrade will say it in its own way
        return False


def _cut(
    strategy: IsolatedMarginMixin,
    judge: Judge,
    decision: EntryDecision,
    stake: Any,
    min_stake: float | None,
    max_stake: float,
) -> Any:
    """Return what `decision` leaves of `stake`: itself where it changes nothing, 0.0 to refuse."""
    wanted = _number(stake)
    if decision.blocks or isnan(wanted):
        # freqtrade takes a text for no stake, and would compute with a NaN.
        _log_refusal(strategy, decision)
        return 0.0
    if decision.factor == ONE and decision.max_stake is None:
        return stake
    wanted = min(wanted, max_stake)
    left = _shrunk(wanted, decision)
    untouched = decision.factor == ONE and left == wanted
    too_small = not isfinite(left) or left <= 0 or (min_stake is not None and left < min_stake)
    if too_small and not untouched:
        _count(judge, decision, refused=True)
        logger.log(
            _level(judge),
            "Entry refused, %s left of %s is below the minimum stake: %s",
            left,
            stake,
            decision,
        )
        return 0.0
    if decision.max_stake is not None and not judge.claim(decision):
        _count(judge, decision, refused=True)
        logger.log(
            _level(judge), "Entry refused, another was allowed since the account was read: %s", decision
        )
        return 0.0
    if untouched:
        return stake
    _count(judge, decision, refused=False)
    logger.log(_level(judge), "Stake cut from %s to %s: %s", stake, left, decision)
    return left


def _count(judge: Judge, decision: EntryDecision, *, refused: bool) -> None:
    """Note what became of an entry of a backtest, which says it at its end."""
    if isinstance(judge, Replay):
        judge.count(decision, refused=refused)


def _level(judge: Judge) -> int:
    """Return at which level a refusal is logged: a backtest has thousands of them."""
    return logging.DEBUG if isinstance(judge, Replay) else logging.INFO


def _number(stake: Any) -> float:
    """Return a stake as a float, NaN where it is none."""
    try:
        return nan if isinstance(stake, str) else float(stake)
    except (TypeError, ValueError):
        return nan


@exact
def _shrunk(stake: float, decision: EntryDecision) -> float:
    if not isfinite(stake):
        return stake
    left = stake if decision.factor == ONE else float(Decimal(stake) * decision.factor)
    if decision.max_stake is not None and Decimal(left) > decision.max_stake:
        left = float(decision.max_stake)
        # The nearest float may lie above it.
        return left if Decimal(left) <= decision.max_stake else nextafter(left, 0.0)
    return left


def _check_entry_timeout(
    _strategy: IsolatedMarginMixin, judge: Judge, bind: _Bind, kwargs: dict[str, Any]
) -> Any:
    own = _own_result(bind, kwargs, default=False)
    if own:
        return own
    trade = kwargs["trade"]
    decision = judge.decision(trade.pair, Side(trade.trade_direction))
    if not decision.blocks or judge.is_waiting(decision):
        return False
    logger.log(_level(judge), "The unfilled entry order of %s is to be cancelled: %s", trade.pair, decision)
    return True


def _bot_loop_start(strategy: IsolatedMarginMixin, judge: Judge, bind: _Bind, kwargs: dict[str, Any]) -> None:
    if isinstance(judge, Guard):
        try:
            _tend(strategy, judge, strategy.dp.current_whitelist())
        except Exception:
            logger.exception("Tending the isolated margin locks failed; entries are still vetoed.")
            # Or the next query of the bot itself would find the session unusable.
            Trade.rollback()
    _own_result(bind, kwargs, default=None)
    _restore(strategy)


def _restore(strategy: IsolatedMarginMixin) -> None:
    """Take back a callback that was assigned to the running strategy: it would go past the guard."""
    for name in _HANDLERS.keys() & vars(strategy).keys():
        delattr(strategy, name)
        logger.error(
            "%s was assigned to the running strategy and is taken back: the isolated margin guard cannot "
            "guard it. Override it as a method of the strategy instead.",
            name,
        )


# What is guarded, by whom, and what an error on the way to a verdict comes to.
_HANDLERS: dict[str, tuple[_Handler, Any]] = {
    "confirm_trade_entry": (_confirm_trade_entry, False),
    "custom_stake_amount": (_custom_stake_amount, 0.0),
    "adjust_trade_position": (_adjust_trade_position, None),
    "check_entry_timeout": (_check_entry_timeout, True),
    "bot_loop_start": (_bot_loop_start, None),
}
_PARAMETERS = {name: list(inspect.signature(getattr(IStrategy, name)).parameters)[1:] for name in _HANDLERS}


def _cleaning(inner: Any) -> Callable[[IsolatedMarginMixin], None]:
    """Return freqtrade's clean-up hook, which first stops the guard, whoever overrides it."""

    @functools.wraps(inner)
    def ft_bot_cleanup(self: IsolatedMarginMixin) -> None:
        try:
            if isinstance(self._margin_judge, Guard):
                former, self._margin_judge = self._margin_judge, StandIn(Outcome.BLOCK, "the bot is ending")
                former.stop()
        except Exception:
            logger.exception("Stopping to read the isolated margin accounts failed.")
        inner.__get__(self, type(self))()

    return ft_bot_cleanup


# ----- locks: what FreqUI and /locks show


def _tend(strategy: IsolatedMarginMixin, judge: Guard, pairs: Iterable[str]) -> None:
    """Lock what is blocked, lift what has recovered, and log what has changed."""
    pairs = list(pairs)
    judge.start(pairs)
    # One for the whole loop: to look at the clocks takes longer than to find a verdict.
    looked_at = judge.monitor.now()
    now = looked_at.date
    at = milliseconds(now)
    locks = _own_locks(strategy)
    seen: list[tuple[EntryDecision, PairAccount | None]] = []
    for pair in pairs:
        decision = _for_both_sides(strategy, judge, pair, looked_at)
        waiting = judge.is_waiting(decision)
        if not waiting:
            _log_change(strategy, decision)
            judge.note(decision, at)
            seen.append((decision, judge.account(pair, looked_at)))
        if decision.blocks and not waiting:
            _lock(strategy, locks, decision, now)
        elif pair in locks:
            strategy.unlock_reason(locks[pair].reason)
            del locks[pair]
    _alert(strategy, judge, seen)


def _alert(
    strategy: IsolatedMarginMixin, judge: Guard, seen: list[tuple[EntryDecision, PairAccount | None]]
) -> None:
    """Send what is worth a message through freqtrade's own: Telegram, Discord, webhooks."""
    if strategy._margin_alerts is None:
        strategy._margin_alerts = Alerts(judge.settings)
    lines = strategy._margin_alerts.look(seen, time.monotonic(), judge.monitor.trouble)
    for message in as_messages(lines, longest_message(strategy.config)):
        # What is news has been decided: freqtrade would hold back what it has sent in this candle before.
        strategy.dp.send_msg(message, always_send=True)


def _for_both_sides(strategy: IsolatedMarginMixin, judge: Guard, pair: str, now: Moment) -> EntryDecision:
    """Return the milder of the verdicts on the sides that the strategy trades: a lock is for both."""
    long = judge.decision(pair, Side.LONG, now=now)
    if long.blocks and strategy.can_short:
        return judge.decision(pair, Side.SHORT, now=now)
    return long


def _lock(
    strategy: IsolatedMarginMixin, locks: dict[str, _Lock], decision: EntryDecision, now: datetime
) -> None:
    # The reason has no number in it: freqtrade knows a lock again, and lifts it, by its exact reason.
    reason = f"{LOCK_PREFIX}{decision.pair} {decision.rule}"
    held = locks.get(decision.pair)
    if held and held.reason == reason and held.until > now:
        return
    if held and held.reason != reason:
        strategy.unlock_reason(held.reason)
    strategy.lock_pair(decision.pair, now, reason)
    locks[decision.pair] = _Lock(reason, timeframe_to_next_date(strategy.timeframe, now))


def _own_locks(strategy: IsolatedMarginMixin) -> dict[str, _Lock]:
    """Return the mixin's locks by pair; at first those that an earlier run has left in the database."""
    if strategy._margin_locks is None:
        strategy._margin_locks = {
            lock.pair: _Lock(lock.reason, lock.lock_end_time_utc)
            for lock in PairLocks.get_pair_locks(None)
            if (lock.reason or "").startswith(LOCK_PREFIX)
        }
    return strategy._margin_locks


def _lift_left_locks(strategy: IsolatedMarginMixin) -> None:
    """Lift what an earlier run has left, where nobody would renew or lift it any more."""
    try:
        for lock in _own_locks(strategy).values():
            strategy.unlock_reason(lock.reason)
    except Exception:
        logger.exception("The locks of an earlier run could not be lifted; they end with their candle.")


def _log_change(strategy: IsolatedMarginMixin, decision: EntryDecision) -> None:
    told = strategy._margin_told
    news = (decision.outcome, decision.rule)
    if told is None or told.get(decision.pair) == news:
        return
    first = decision.pair not in told
    told[decision.pair] = news
    told.pop(f"{decision.pair} refused", None)
    if decision.outcome is not Outcome.ALLOW or not first:
        logger.log(logging.WARNING if decision.blocks else logging.INFO, "%s", decision)


def _log_refusal(strategy: IsolatedMarginMixin, decision: EntryDecision) -> None:
    """Log a refusal, once until the pair's verdict changes: freqtrade tries again in every loop."""
    _count(_judge(strategy), decision, refused=True)
    told = strategy._margin_told
    key = f"{decision.pair} refused"
    if told is None or told.get(key) != (decision.outcome, decision.rule):
        logger.log(_level(_judge(strategy)), "Entry refused: %s", decision)
    if told is not None:
        told[key] = (decision.outcome, decision.rule)


# ----- charts


def _wants_charts(strategy: IsolatedMarginMixin) -> bool:
    judge = strategy._margin_judge
    if isinstance(judge, Replay):
        # As they were at its start: freqtrade warns of a parameter of hyperopt that indicators are made with.
        return judge.settings.charts
    try:
        settings = _settings(strategy)
    except OperationalException:
        # Its start refuses it; later it is an epoch of hyperopt, whose strategy may still use the columns.
        return strategy._margin_judge is not None
    return settings.enabled and settings.charts


def _opens(dataframe: DataFrame) -> list[int]:
    """Return the candles' opens in milliseconds since 1970."""
    opens: list[int] = dataframe["date"].array.as_unit("ms").asi8.tolist()
    return opens


def _add_columns(strategy: IsolatedMarginMixin, dataframe: DataFrame, pair: str) -> None:
    """Add `COLUMNS`: what was known at each candle's close, NaN where nothing was."""
    values: list[Values] = []
    try:
        if strategy._margin_charts:
            length = timeframe_to_seconds(strategy.timeframe) * 1000
            values = strategy._margin_charts.values(pair, [opened + length for opened in _opens(dataframe)])
    except Exception:
        logger.exception("The isolated margin columns of %s are left empty.", pair)
    columns = zip(*values, strict=True) if values else repeat(nan)
    for name, column in zip(COLUMNS, columns, strict=False):
        # As an array: pandas would look at each number of a list.
        dataframe[name] = np.array(column)


def _load(strategy: IsolatedMarginMixin, judge: Replay, opens: Mapping[str, Sequence[int]]) -> None:
    """Look up the accounts of a backtest's candles, by pair the opens, unless they are known."""
    try:
        judge.load(opens, timeframe_to_seconds(strategy.timeframe) * 1000)
    except IsolatedMarginError as error:
        raise OperationalException(f"isolated_margin.backtest replay: {error}") from None


def _load_all(strategy: IsolatedMarginMixin, judge: Replay, data: Mapping[str, DataFrame]) -> None:
    """Look up the accounts of all pairs of a backtest, and say where the history has none.

    :raises OperationalException: where it has none at all.
    """
    opens = {pair: _opens(dataframe) for pair, dataframe in data.items()}
    _load(strategy, judge, opens)
    timerange = TimeRange.parse_timerange(strategy.config.get("timerange"))
    shares: dict[str, float] = {}
    alike: dict[str, list[str]] = defaultdict(list)
    for pair, of_pair in opens.items():
        # When an entry is possible: after the indicators have warmed up, and then at a candle's open.
        moments = [at for at in of_pair[1:] if at > timerange.startts * 1000]
        if moments:
            shares[pair] = share = judge.covered(pair, moments)
            period = f"from {moment(moments[0]):%Y-%m-%d %H:%M} to {moment(moments[-1]):%Y-%m-%d %H:%M}"
            alike[f"{floor(share * 1000) / 10:g} % of the candles {period}"].append(pair)
    if shares and not any(shares.values()):
        raise OperationalException(
            f"isolated_margin.backtest replay: the history has no account of any of the {len(shares)} pairs "
            "in the whole period of the backtest. Choose a --timerange that was recorded, or set "
            '"backtest": "off".'
        )
    for share_of, pairs in alike.items():
        if shares[pairs[0]] < 1:
            logger.warning(
                "The isolated margin history covers %s of %s; entries in the others are refused.",
                share_of, ", ".join(pairs),
            )  # fmt: skip


def _load_chart(strategy: IsolatedMarginMixin, charts: Replay, dataframe: DataFrame, pair: str) -> None:
    """Look up the accounts of the candles of a chart; without them it is drawn all the same."""
    try:
        charts.load({pair: _opens(dataframe)}, timeframe_to_seconds(strategy.timeframe) * 1000)
    except IsolatedMarginError as error:
        say_once(f"No isolated margin accounts in the charts: {error}.")


def _name_history(strategy: IsolatedMarginMixin) -> None:
    """Put the history's fingerprint into the configuration of a backtest that replays it.

    freqtrade hands out an earlier result where configuration, strategy and candles are the same.
    """
    config = strategy.config
    if config.get("runmode") != RunMode.BACKTEST:
        return
    try:
        settings = _settings(strategy)
    except OperationalException:
        # The start will say it.
        return
    except Exception:  # noqa: BLE001 - the strategy's own: what it needs may be there once it is made
        config[_HISTORY] = uuid4().hex
        return
    if settings.enabled and settings.backtest == "replay":
        timerange = TimeRange.parse_timerange(config.get("timerange"))
        # The last candle closes after the end, and what is known then counts.
        timeframe = config.get("timeframe") or getattr(strategy, "timeframe", None)
        ends = timerange.stoptype and timeframe
        until = (timerange.stopts + timeframe_to_seconds(timeframe)) * 1000 + 1 if ends else None
        config[_HISTORY] = fingerprint(settings, config, until)


_HISTORY = f"{SECTION}_history"


class _PlotConfig:
    """The strategy's own `plot_config`, with the columns of the mixin added."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __get__(self, instance: IsolatedMarginMixin | None, owner: type) -> Any:
        own = self._inner.__get__(instance, owner) if hasattr(type(self._inner), "__get__") else self._inner
        if instance is None or not isinstance(own, Mapping) or not _wants_charts(instance):
            return own
        merged = merged_plot_config(own)
        if own is self._inner:
            # From now on the instance's: a strategy may add to it as it goes.
            instance.__dict__["plot_config"] = merged
        return merged


def _annotated(inner: Any) -> Callable[..., list[Any]]:
    """Return `plot_annotations` with shades over the candles in which entries were blocked, once."""

    @functools.wraps(inner)
    def plot_annotations(self: IsolatedMarginMixin, *args: Any, **kwargs: Any) -> list[Any]:
        with guard.inside_charts:
            outermost = guard.inside_charts.depth == 1
            own = inner.__get__(self, type(self))(*args, **kwargs)
        charts = self._margin_charts
        if not outermost or not charts or not _wants_charts(self):
            return cast("list[Any]", own)
        try:
            dataframe, pair = kwargs["dataframe"], kwargs["pair"]
            candles = list(zip(dataframe["date"].dt.to_pydatetime(), dataframe[COLUMNS[-1]], strict=True))
            length = timedelta(seconds=timeframe_to_seconds(self.timeframe))
            return [*(own or ()), *shaded(candles, length, charts.blocked(pair))]
        except Exception:
            logger.exception("The candles in which entries were blocked are not shaded.")
            return cast("list[Any]", own)

    return plot_annotations


# ----- protections


class _Protections:
    """The strategy's own protections, unchanged; reading them makes `MarginLevelGuard` loadable."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __get__(self, instance: IsolatedMarginMixin | None, owner: type) -> Any:
        # At this moment and not at import: hyperopt's workers get classes without running their modules.
        if instance is not None:
            make_loadable(instance)
        return self._inner.__get__(instance, owner) if hasattr(type(self._inner), "__get__") else self._inner


# ----- will freqtrade really ask?

_WRAPPER_CODE = _guarded("", _bot_loop_start, None, IStrategy.bot_loop_start).__code__

# What the handlers take from each call.
_NEEDED: dict[str, set[str]] = {
    "confirm_trade_entry": {"pair", "side", "amount", "rate"},
    "custom_stake_amount": {"pair", "side", "proposed_stake", "min_stake", "max_stake", "leverage"},
    "adjust_trade_position": {"trade", "min_stake", "max_stake"},
    "check_entry_timeout": {"trade"},
    "bot_loop_start": set(),
}


def check_guarded(strategy: IsolatedMarginMixin) -> None:
    """Make sure that freqtrade will ask the guard, in the callbacks and with the arguments that it knows.

    :raises OperationalException: where it would not; freqtrade changes monthly, strategies any time.
    """
    for name in _HANDLERS:
        found = inspect.getattr_static(type(strategy), name)
        called = getattr(getattr(strategy, name), "__func__", None)
        # By its code: `functools.wraps` would copy any mark to a decorator around it.
        if called is not found or getattr(found, "__code__", None) is not _WRAPPER_CODE:
            raise OperationalException(
                f"The isolated margin guard cannot guard {type(strategy).__name__}: {name} was replaced "
                "after the class was made. Override it as a method of the strategy instead."
            )
        missing = _NEEDED[name] - set(_PARAMETERS[name])
        if missing:
            raise OperationalException(_unknown_freqtrade(name, f"without {', '.join(sorted(missing))}"))
    for name, caller in _callers().items():
        if name not in inspect.unwrap(caller).__code__.co_names:
            raise OperationalException(_unknown_freqtrade(name, f"no more in {caller.__qualname__}"))


def _callers() -> dict[str, Callable[..., Any]]:
    """Return where freqtrade calls each of the callbacks, by its source."""
    # Imported here: a backtest never gets here, and need not pay for the bot.
    from freqtrade.freqtradebot import FreqtradeBot  # noqa: PLC0415

    return {
        "confirm_trade_entry": FreqtradeBot.execute_entry,
        "custom_stake_amount": FreqtradeBot.get_valid_enter_price_and_stake,
        "adjust_trade_position": IStrategy._adjust_trade_position_internal,
        "check_entry_timeout": IStrategy.ft_check_timed_out,
        "bot_loop_start": FreqtradeBot.process,
        "ft_bot_cleanup": FreqtradeBot.cleanup,
    }


def _unknown_freqtrade(name: str, how: str) -> str:
    return (
        f"This freqtrade calls {name} {how}: the isolated margin guard does not know this version, and does "
        "not start rather than guard nothing. Use an earlier freqtrade or a later freqtrade-isolated-margin."
    )
