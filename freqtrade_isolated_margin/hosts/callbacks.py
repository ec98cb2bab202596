"""The wrappers around a strategy's callbacks.

freqtrade places the trade where a callback raises or is not overridden, and a strategy may override a
callback without calling `super()`. So every class gets a wrapper around whatever its callbacks resolve to,
and only the outermost wrapper acts, once per call, whatever chain of `super()` runs inside it.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from decimal import Decimal
from math import isfinite, isnan, nan, nextafter
from typing import Any, cast

from freqtrade.persistence import Trade
from freqtrade.strategy import IStrategy
from freqtrade.strategy.strategy_wrapper import strategy_safe_wrapper

from freqtrade_isolated_margin.account.maths import ONE, Side, exact
from freqtrade_isolated_margin.guard import inside
from freqtrade_isolated_margin.guard.guard import Guard
from freqtrade_isolated_margin.guard.judge import Judge, StandIn, Verdicts
from freqtrade_isolated_margin.hosts.backtest_judge import BacktestJudge
from freqtrade_isolated_margin.hosts.locks import log_refusal, tend
from freqtrade_isolated_margin.hosts.reducing import reduction
from freqtrade_isolated_margin.hosts.strategy import (
    GuardedStrategy,
    count_refusal,
    go_to,
    judge_of,
    log_level,
)
from freqtrade_isolated_margin.rules.decide import EntryDecision, Outcome

logger = logging.getLogger(__name__)


# Relative; freqtrade computes an order's amount and back in floats.
_FLOAT_SLACK = 1e-9


# ----- the wrappers around a strategy's callbacks

_Bind = Callable[[], Callable[..., Any]]
_Handler = Callable[[GuardedStrategy, Judge, _Bind, dict[str, Any]], Any]


def guarded(name: str, handler: _Handler, refusal: Any, inner: Any) -> Callable[..., Any]:
    """Return a callback that asks `inner`, and then the guard if it is the outermost of its strategy.

    Whatever raises on the way to a verdict is `refusal`: freqtrade would go ahead.
    """

    # `wraps` keeps the qualified name too: freqtrade tells by it whether the user has overridden it.
    @functools.wraps(inner.__func__ if isinstance(inner, staticmethod | classmethod) else inner)
    def callback(self: GuardedStrategy, *args: Any, **kwargs: Any) -> Any:
        def bind() -> Callable[..., Any]:
            found = inner.__get__(self, type(self)) if hasattr(type(inner), "__get__") else inner
            return cast("Callable[..., Any]", found)

        judge = judge_of(self)
        off_duty = isinstance(judge, StandIn) and judge.outcome is Outcome.ALLOW
        # What runs inside a callback of the strategy's own, a `super()` above all, is judged with its result.
        if off_duty or inside.callback.on:
            return bind()(*args, **kwargs)
        try:
            kwargs |= zip(PARAMETERS[name], args, strict=False)
            if isinstance(judge, BacktestJudge):
                _stand(self, judge, kwargs)
            return handler(self, judge, bind, kwargs)
        except Exception:
            logger.exception("The isolated margin guard failed in %s; it refuses.", name)
            return refusal

    return callback


def _stand(strategy: GuardedStrategy, judge: BacktestJudge, kwargs: dict[str, Any]) -> None:
    """Let a backtest's judge stand at the moment of a callback, and at its price."""
    go_to(strategy, judge, kwargs["current_time"])
    if "current_rate" in kwargs:
        pair = kwargs["pair"] if "pair" in kwargs else kwargs["trade"].pair
        judge.told_price(pair, kwargs["current_rate"])


def _own_result(bind: _Bind, kwargs: dict[str, Any], default: Any) -> Any:
    """Call the strategy's own callback, and treat it as freqtrade would where it raises."""
    try:
        with inside.callback:
            return bind()(**kwargs)
    except Exception as error:  # noqa: BLE001 - whatever it is, freqtrade says it in its own way
        raised = error

    def own_callback() -> Any:
        raise raised

    # Only now: freqtrade's wrapper is slow to make, and a backtest calls back thousands of times.
    return strategy_safe_wrapper(own_callback, default_retval=default, supress_error=True)()


def _confirm_trade_entry(strategy: GuardedStrategy, judge: Judge, bind: _Bind, kwargs: dict[str, Any]) -> Any:
    own = _own_result(bind, kwargs, default=True)
    return own if own and _may_enter(strategy, judge, kwargs) else False


def _may_enter(strategy: GuardedStrategy, judge: Judge, kwargs: dict[str, Any]) -> bool:
    decision = judge.look().decision(kwargs["pair"], Side(kwargs["side"]))
    if decision.blocks:
        log_refusal(strategy, decision)
        return False
    if decision.max_stake is not None:
        # The stake was cut to it already; this catches what freqtrade or a strategy changed since.
        value = float(kwargs["amount"]) * float(kwargs["rate"])
        if not value <= float(decision.max_stake) * (1 + _FLOAT_SLACK):
            _refuse(
                judge,
                decision,
                f"its value {value} is above the largest that is safe, {decision.max_stake:f}",
            )
            return False
    leverage = strategy._margin_leverages.get(kwargs["pair"], 1.0)
    return _stands_after(strategy, judge, decision, float(kwargs["amount"]), float(kwargs["rate"]), leverage)


def _stands_after(
    strategy: GuardedStrategy,
    judge: Judge,
    decision: EntryDecision,
    amount: float,
    rate: float,
    leverage: float,
) -> bool:
    """Whether an entry may be, by the account after it: a bot's exchange asks that, a backtest has none."""
    if not isinstance(judge, BacktestJudge):
        return True
    figures = (Decimal(repr(figure)) for figure in (amount, rate, leverage))
    after = judge.after_order(decision.pair, decision.side, *figures)
    if after is None or not after.blocks:
        return True
    log_refusal(strategy, after)
    return False


def _refuse(judge: Judge, decision: EntryDecision, why: str) -> None:
    """Log why an entry that its account does not block as such is refused nevertheless."""
    count_refusal(judge, decision, refused=True)
    logger.log(log_level(judge), "Entry refused: %s %s: %s", decision.pair, decision.side, why)


def _custom_stake_amount(strategy: GuardedStrategy, judge: Judge, bind: _Bind, kwargs: dict[str, Any]) -> Any:
    own = _own_result(bind, kwargs, default=kwargs["proposed_stake"])
    pair, side = kwargs["pair"], Side(kwargs["side"])
    if not own:
        # As freqtrade: no stake, no entry, and no word about it.
        return own
    if isnan(_number(own)):
        _log_no_stake(judge, f"{pair} {side}", "custom_stake_amount", own)
        return 0.0
    strategy._margin_leverages[pair] = float(kwargs["leverage"])
    look = judge.look()
    decision = look.decision(pair, side, Decimal(str(kwargs["leverage"])))
    return _cut(strategy, judge, look, decision, own, kwargs["min_stake"], kwargs["max_stake"])


def _adjust_trade_position(
    strategy: GuardedStrategy, judge: Judge, bind: _Bind, kwargs: dict[str, Any]
) -> Any:
    own = _own_result(bind, kwargs, default=None)
    stake, *tag = own if isinstance(own, tuple) and own else (own,)
    increases = _is_increase(stake)
    if increases or not stake:
        # What the strategy decreases by itself comes first, and an increase last.
        reduced = reduction(strategy, judge, judge.look(), kwargs)
        if reduced:
            return reduced
    if not increases:
        return own
    left = _increase(strategy, judge, stake, kwargs)
    if left is stake:
        return own
    return (left, *tag) if left and tag else left


def _increase(strategy: GuardedStrategy, judge: Judge, stake: Any, kwargs: dict[str, Any]) -> Any:
    """Return what may be had of an increase: all of it, less, or None."""
    trade = kwargs["trade"]
    side = Side(trade.trade_direction)
    if isnan(_number(stake)):
        _log_no_stake(judge, f"{trade.pair} {side}", "adjust_trade_position", stake)
        return None
    look = judge.look()
    decision = look.decision(trade.pair, side, Decimal(str(trade.leverage or 1)))
    left = _cut(strategy, judge, look, decision, stake, kwargs["min_stake"], kwargs["max_stake"])
    rate, leverage = float(kwargs["current_entry_rate"]), float(trade.leverage or 1)
    amount = min(float(left), kwargs["max_stake"]) * leverage / rate
    if not left or not _stands_after(strategy, judge, decision, amount, rate, leverage):
        return None
    return left


def _is_increase(stake: Any) -> bool:
    # As freqtrade asks it (`check_and_call_adjust_trade_position`); what cannot be compared is no increase.
    try:
        return bool(stake is not None and stake > 0.0)
    except Exception:  # noqa: BLE001 - freqtrade will say it in its own way
        return False


def _log_no_stake(judge: Judge, entry: str, name: str, returned: Any) -> None:
    """Log that it was the strategy that made an entry impossible: freqtrade would compute with it."""
    logger.log(
        log_level(judge), "No entry: %s: the strategy's %s returned %.40r, no stake", entry, name, returned
    )


def _cut(
    strategy: GuardedStrategy,
    judge: Judge,
    look: Verdicts,
    decision: EntryDecision,
    stake: Any,
    min_stake: float | None,
    max_stake: float,
) -> Any:
    """Return what `decision` leaves of `stake`: itself where it changes nothing, 0.0 to refuse."""
    strategy._margin_wanted.pop(decision.pair, None)
    if decision.blocks:
        log_refusal(strategy, decision)
        return 0.0
    wanted = min(float(stake), max_stake)
    left = _shrunk(wanted, decision)
    untouched = decision.factor == ONE and left == wanted
    too_small = not isfinite(left) or left <= 0 or (min_stake is not None and left < min_stake)
    if too_small and not untouched:
        _refuse(
            judge,
            decision,
            f"{left} left of {stake} is below the minimum stake {min_stake}: {'; '.join(decision.reasons)}",
        )
        return 0.0
    if decision.max_stake is not None and not look.claim(decision):
        _refuse(judge, decision, "another entry was allowed since its account was read (entry_funding)")
        return 0.0
    strategy._margin_wanted[decision.pair] = wanted
    if untouched:
        return stake
    count_refusal(judge, decision, refused=False)
    why: EntryDecision | str = decision
    if decision.factor == ONE:
        why = f"{decision.pair} {decision.side}: the largest that is safe is {decision.max_stake:f}"
    # Not put into words here: a backtest cuts thousands, and logs none.
    logger.log(log_level(judge), "Stake cut from %s to %s: %s", stake, left, why)
    return left


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
    _strategy: GuardedStrategy, judge: Judge, bind: _Bind, kwargs: dict[str, Any]
) -> Any:
    own = _own_result(bind, kwargs, default=False)
    if own:
        return own
    trade, look = kwargs["trade"], judge.look()
    decision = look.decision(trade.pair, Side(trade.trade_direction))
    if not decision.blocks or look.is_waiting(decision):
        return False
    logger.log(
        log_level(judge), "The unfilled entry order of %s is to be cancelled: %s", trade.pair, decision
    )
    return True


def _adjust_entry_price(strategy: GuardedStrategy, judge: Judge, bind: _Bind, kwargs: dict[str, Any]) -> Any:
    """Let an entry order be replaced where the guard would allow it as a new one.

    freqtrade places the replacement without any further question, worth what is left of the order.
    """
    price = _own_result(bind, kwargs, default=kwargs["current_order_rate"])
    keep = kwargs["current_order_rate"]
    if not kwargs.get("is_entry", True) or not price or price == keep:
        return price
    trade, look = kwargs["trade"], judge.look()
    decision = look.decision(trade.pair, Side(trade.trade_direction), Decimal(str(trade.leverage or 1)))
    if look.is_waiting(decision):
        return keep
    why_not = _why_not_replace(strategy, look, decision, kwargs["order"], trade)
    if why_not is None:
        left = kwargs["order"].safe_remaining
        stands = _stands_after(strategy, judge, decision, left, float(price), float(trade.leverage or 1))
        return price if stands else None
    count_refusal(judge, decision, refused=True)
    logger.log(
        log_level(judge),
        "The unfilled entry order of %s is to be cancelled and not replaced: %s",
        trade.pair,
        why_not,
    )
    return None


def _why_not_replace(
    strategy: GuardedStrategy, look: Verdicts, decision: EntryDecision, order: Any, trade: Any
) -> str | None:
    """Return why what is left of an entry order may not be placed anew; None if it may."""
    if decision.blocks:
        return str(decision)
    stake = order.safe_remaining * order.safe_price / (trade.leverage or 1)
    # What was wanted before it was cut is known only of orders of this run.
    wanted = strategy._margin_wanted.get(trade.pair, stake)
    allowed = _shrunk(wanted, decision)
    if not stake <= allowed * (1 + _FLOAT_SLACK):
        return f"its {stake} is more than the {allowed} that would be allowed now: {decision}"
    if decision.max_stake is not None and not look.claim(decision):
        return "another entry was allowed since its account was read (entry_funding)"
    return None


def bot_loop_start(strategy: GuardedStrategy, judge: Judge, bind: _Bind, kwargs: dict[str, Any]) -> None:
    """Tend locks, log and messages at the start of a loop, then ask the strategy."""
    if isinstance(judge, Guard):
        try:
            tend(strategy, judge, strategy.dp.current_whitelist())
        except Exception:
            logger.exception("Tending the isolated margin locks failed; entries are still vetoed.")
            # Or the next query of the bot itself would find the session unusable.
            Trade.rollback()
    _own_result(bind, kwargs, default=None)
    _restore(strategy)


def _restore(strategy: GuardedStrategy) -> None:
    """Take back a callback that was assigned to the running strategy: it would go past the guard."""
    for name in HANDLERS.keys() & vars(strategy).keys():
        delattr(strategy, name)
        logger.error(
            "%s was assigned to the running strategy and is taken back: the isolated margin guard cannot "
            "guard it. Override it as a method of the strategy instead.",
            name,
        )


# What is guarded, by whom, and what an error on the way to a verdict comes to.
HANDLERS: dict[str, tuple[_Handler, Any]] = {
    "confirm_trade_entry": (_confirm_trade_entry, False),
    "custom_stake_amount": (_custom_stake_amount, 0.0),
    "adjust_trade_position": (_adjust_trade_position, None),
    "check_entry_timeout": (_check_entry_timeout, True),
    "adjust_order_price": (_adjust_entry_price, None),
    "adjust_entry_price": (_adjust_entry_price, None),
    "bot_loop_start": (bot_loop_start, None),
}
# freqtrade refuses a strategy that overrides both: guarded where it is overridden, else nothing is replaced.
_WHERE_OVERRIDDEN = {"adjust_order_price", "adjust_entry_price"}
PARAMETERS = {name: list(inspect.signature(getattr(IStrategy, name)).parameters)[1:] for name in HANDLERS}


def guards(cls: type, name: str) -> bool:
    """Whether the callback `name` of a strategy's class is one for the guard to stand around."""
    own = inspect.getattr_static(cls, name)
    return name not in _WHERE_OVERRIDDEN or own is not inspect.getattr_static(IStrategy, name)


def capping(inner: Any) -> Callable[..., Any]:
    """Return freqtrade's callback for leverage, capped by the side where the bot trades in margin accounts.

    freqtrade caps it before it says on which side: by that of a long, to which a short does not get.
    """

    @functools.wraps(inner)
    def leverage(self: GuardedStrategy, *args: Any, **kwargs: Any) -> Any:
        wanted = inner.__get__(self, type(self))(*args, **kwargs)
        cap = getattr(getattr(self.dp, "_exchange", None), "side_cap", None)
        return min(wanted, float(cap(kwargs["pair"], Side(kwargs["side"])))) if cap else wanted

    return leverage


def cleaning(inner: Any) -> Callable[[GuardedStrategy], None]:
    """Return freqtrade's clean-up hook, which first stops the guard, whoever overrides it."""

    @functools.wraps(inner)
    def ft_bot_cleanup(self: GuardedStrategy) -> None:
        try:
            if isinstance(self._margin_judge, Guard):
                former, self._margin_judge = self._margin_judge, StandIn(Outcome.BLOCK, "the bot is ending")
                former.stop()
        except Exception:
            logger.exception("Stopping to read the isolated margin accounts failed.")
        inner.__get__(self, type(self))()

    return ft_bot_cleanup
