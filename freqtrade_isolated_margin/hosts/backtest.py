"""A backtest that replays the history: its accounts, and what tells its result from others."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import floor
from uuid import uuid4

from freqtrade.configuration import TimeRange
from freqtrade.enums import RunMode
from freqtrade.exceptions import OperationalException
from freqtrade.exchange import timeframe_to_seconds
from pandas import DataFrame

from freqtrade_isolated_margin.binance.clock import moment
from freqtrade_isolated_margin.errors import IsolatedMarginError
from freqtrade_isolated_margin.hosts.charts import opens_of
from freqtrade_isolated_margin.hosts.replay import Replay, fingerprint
from freqtrade_isolated_margin.hosts.strategy import GuardedStrategy, settings_of
from freqtrade_isolated_margin.rules.settings import SECTION

logger = logging.getLogger(__name__)


def load_accounts(strategy: GuardedStrategy, judge: Replay, opens: Mapping[str, Sequence[int]]) -> None:
    """Look up the accounts of a backtest's candles, by pair the opens, unless they are known."""
    try:
        judge.load(opens, timeframe_to_seconds(strategy.timeframe) * 1000)
    except IsolatedMarginError as error:
        raise OperationalException(f"isolated_margin.backtest replay: {error}") from None


def load_whole_backtest(strategy: GuardedStrategy, judge: Replay, data: Mapping[str, DataFrame]) -> None:
    """Look up the accounts of all pairs of a backtest, and say where the history has none.

    :raises OperationalException: where it has none at all.
    """
    opens = {pair: opens_of(dataframe) for pair, dataframe in data.items()}
    load_accounts(strategy, judge, opens)
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


def name_history(strategy: GuardedStrategy) -> None:
    """Put the history's fingerprint into the configuration of a backtest that replays it.

    freqtrade hands out an earlier result where configuration, strategy and candles are the same.
    """
    config = strategy.config
    if config.get("runmode") != RunMode.BACKTEST:
        return
    try:
        settings = settings_of(strategy)
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
