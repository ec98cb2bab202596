"""Reducing a position before its margin call, by a decrease as freqtrade knows it."""

from __future__ import annotations

import logging
from datetime import timedelta
from decimal import Decimal
from typing import Any

from freqtrade.exceptions import OperationalException

from freqtrade_isolated_margin.account.maths import ONE, Side, exact, value_to_close
from freqtrade_isolated_margin.account.records import PairAccount
from freqtrade_isolated_margin.errors import IsolatedMarginError
from freqtrade_isolated_margin.guard.judge import Judge, Verdicts
from freqtrade_isolated_margin.hosts.backtest_judge import BacktestJudge
from freqtrade_isolated_margin.hosts.replay import Replay
from freqtrade_isolated_margin.hosts.strategy import GuardedStrategy, log_level, settings_of
from freqtrade_isolated_margin.rules.decide import plain
from freqtrade_isolated_margin.rules.settings import ReduceSettings, Settings

logger = logging.getLogger(__name__)

TAG = "isolated margin reduce"
"""The tag of an order by which a position was reduced."""
# freqtrade refuses a decrease that leaves less than its own minimum, which has a reserve of at most so much.
_RESERVE = 1.5


def check_reducing(strategy: GuardedStrategy, settings: Settings, pairs: list[str]) -> None:
    """Refuse a start with `reduce` where it could not work.

    :raises OperationalException: with the setting and what it must be.
    """
    reduce = settings.reduce
    if reduce is None:
        return
    if not strategy.position_adjustment_enable:
        raise OperationalException(
            "isolated_margin.reduce needs position_adjustment_enable: true (configuration or strategy)"
        )
    for pair in pairs:
        try:
            ratio = max(tier.liquidation_risk_ratio for tier in strategy.dp._exchange.terms(pair).tiers)
        except IsolatedMarginError as error:
            logger.warning("isolated_margin.reduce cannot be compared with the tiers of %s: %s", pair, error)
            continue
        if reduce.at_level <= ratio:
            raise OperationalException(
                f"isolated_margin.reduce.at_level ({reduce.at_level}) must be above {plain(ratio, 4)}, at "
                f"which {pair} is liquidated"
            )


def reduction(
    strategy: GuardedStrategy, judge: Judge, look: Verdicts, kwargs: dict[str, Any]
) -> tuple[float, str] | None:
    """Return the decrease that a trade's account needs now, as `adjust_trade_position` does; else None.

    The account must have been read after the trade's last fill: of an older one too much would be closed.
    """
    settings, trade = settings_of(strategy), kwargs["trade"]
    reduce = settings.reduce
    # A recorded account is not that of the simulated trade.
    if reduce is None or isinstance(judge, Replay) or trade.has_open_orders:
        return None
    pause = max(reduce.pause_seconds, settings.max_age_seconds)
    if kwargs["current_time"] - trade.date_last_filled_utc < timedelta(seconds=float(pause)):
        return None
    account, side = look.account(trade.pair), Side(trade.trade_direction)
    level = look.decision(trade.pair, side).margin_level
    if account is None or level is None or level > reduce.at_level:
        return None
    stake = float(trade.stake_amount)
    part = stake * float(_share(account, Decimal(repr(float(trade.amount))), reduce))
    least = float(kwargs["min_stake"] or 0.0)
    whole = part < least or stake - part < least * _RESERVE
    logger.log(
        log_level(judge),
        "Position reduced: %s %s: margin level %s ≤ %s (reduce.at_level); %s of it is closed%s",
        trade.pair,
        side,
        plain(level, 4),
        plain(reduce.at_level, 4),
        "all" if whole else f"{100 * part / stake:.1f} %",
        ", since a part is below the minimum"
        if whole
        else f", to stand at {plain(reduce.to_level, 4)} (reduce.to_level)",
    )
    if isinstance(judge, BacktestJudge):
        judge.count_reduction(trade.pair)
    return -stake if whole else -part, TAG


@exact
def _share(account: PairAccount, amount: Decimal, reduce: ReduceSettings) -> Decimal:
    """Return which share of a position of `amount` must be closed."""
    value = value_to_close(account.holdings, account.index_price, reduce.to_level)
    return min(value / (amount * account.index_price), ONE)
