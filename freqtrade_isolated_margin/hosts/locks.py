"""Locks, log lines and messages of each loop: what FreqUI, /locks and Telegram show."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime

from freqtrade.exchange import timeframe_to_next_date
from freqtrade.persistence import PairLocks

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.account.records import PairAccount
from freqtrade_isolated_margin.binance.clock import milliseconds
from freqtrade_isolated_margin.guard.alerts import Alerts, as_messages, longest_message
from freqtrade_isolated_margin.guard.guard import Guard, Look
from freqtrade_isolated_margin.guard.judge import Verdicts
from freqtrade_isolated_margin.hosts.strategy import GuardedStrategy, Lock, count_refusal, judge_of, log_level
from freqtrade_isolated_margin.rules.decide import EntryDecision, Outcome

logger = logging.getLogger(__name__)


LOCK_PREFIX = "isolated margin: "
"""How the reason of every lock of the mixin begins."""


# ----- locks: what FreqUI and /locks show


def tend(strategy: GuardedStrategy, judge: Guard, pairs: Iterable[str]) -> None:
    """Lock what is blocked, lift what has recovered, and log what has changed."""
    pairs = list(pairs)
    judge.start(pairs)
    look = judge.look()
    now = look.now.date
    at = milliseconds(now)
    locks = _own_locks(strategy)
    seen: list[tuple[EntryDecision, PairAccount | None]] = []
    for pair in pairs:
        decision = _for_both_sides(strategy, look, pair)
        waiting = look.is_waiting(decision)
        if not waiting:
            _log_change(strategy, decision)
            judge.note(decision, at)
            seen.append((decision, look.account(pair)))
        if decision.blocks and not waiting:
            _lock(strategy, locks, decision, now)
        elif pair in locks:
            strategy.unlock_reason(locks[pair].reason)
            del locks[pair]
    _alert(strategy, look, seen)


def _alert(
    strategy: GuardedStrategy, look: Look, seen: list[tuple[EntryDecision, PairAccount | None]]
) -> None:
    """Send what is worth a message through freqtrade's own: Telegram, Discord, webhooks."""
    if strategy._margin_alerts is None:
        strategy._margin_alerts = Alerts(look.guard.settings)
    lines = strategy._margin_alerts.look(seen, look.now.monotonic, look.trouble)
    for message in as_messages(lines, longest_message(strategy.config)):
        # What is news has been decided: freqtrade would hold back what it has sent in this candle before.
        strategy.dp.send_msg(message, always_send=True)


def _for_both_sides(strategy: GuardedStrategy, look: Verdicts, pair: str) -> EntryDecision:
    """Return the milder of the verdicts on the sides that the strategy trades: a lock is for both."""
    long = look.decision(pair, Side.LONG)
    if long.blocks and strategy.can_short:
        return look.decision(pair, Side.SHORT)
    return long


def _lock(strategy: GuardedStrategy, locks: dict[str, Lock], decision: EntryDecision, now: datetime) -> None:
    # The reason has no number in it: freqtrade knows a lock again, and lifts it, by its exact reason.
    reason = f"{LOCK_PREFIX}{decision.pair} {decision.rule}"
    held = locks.get(decision.pair)
    if held and held.reason == reason and held.until > now:
        return
    if held and held.reason != reason:
        strategy.unlock_reason(held.reason)
    strategy.lock_pair(decision.pair, now, reason)
    locks[decision.pair] = Lock(reason, timeframe_to_next_date(strategy.timeframe, now))


def _own_locks(strategy: GuardedStrategy) -> dict[str, Lock]:
    """Return the mixin's locks by pair; at first those that an earlier run has left in the database."""
    if strategy._margin_locks is None:
        strategy._margin_locks = {
            lock.pair: Lock(lock.reason, lock.lock_end_time_utc)
            for lock in PairLocks.get_pair_locks(None)
            if (lock.reason or "").startswith(LOCK_PREFIX)
        }
    return strategy._margin_locks


def lift_left_locks(strategy: GuardedStrategy) -> None:
    """Lift what an earlier run has left, where nobody would renew or lift it any more."""
    try:
        for lock in _own_locks(strategy).values():
            strategy.unlock_reason(lock.reason)
    except Exception:
        logger.exception("The locks of an earlier run could not be lifted; they end with their candle.")


def _log_change(strategy: GuardedStrategy, decision: EntryDecision) -> None:
    told = strategy._margin_told
    news = (decision.outcome, decision.rule)
    if told is None or told.get(decision.pair) == news:
        return
    first = decision.pair not in told
    told[decision.pair] = news
    told.pop(f"{decision.pair} refused", None)
    if decision.outcome is not Outcome.ALLOW or not first:
        logger.log(logging.WARNING if decision.blocks else logging.INFO, "%s", decision)


def log_refusal(strategy: GuardedStrategy, decision: EntryDecision) -> None:
    """Log a refusal, once until the pair's verdict changes: freqtrade tries again in every loop."""
    count_refusal(judge_of(strategy), decision, refused=True)
    told = strategy._margin_told
    key = f"{decision.pair} refused"
    if told is None or told.get(key) != (decision.outcome, decision.rule):
        logger.log(log_level(judge_of(strategy)), "Entry refused: %s", decision)
    if told is not None:
        told[key] = (decision.outcome, decision.rule)
