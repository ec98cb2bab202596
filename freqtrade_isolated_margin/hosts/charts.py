"""What the guard adds to a strategy's charts."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from datetime import timedelta
from math import nan
from typing import Any, cast

import numpy as np
from freqtrade.exceptions import OperationalException
from freqtrade.exchange import timeframe_to_seconds
from pandas import DataFrame

from freqtrade_isolated_margin.guard import inside
from freqtrade_isolated_margin.guard.judge import say_once
from freqtrade_isolated_margin.history.tables import HistoryError
from freqtrade_isolated_margin.hosts.columns import COLUMNS, Values, merged_plot_config, shaded
from freqtrade_isolated_margin.hosts.replay import Replay
from freqtrade_isolated_margin.hosts.strategy import GuardedStrategy, settings_of

logger = logging.getLogger(__name__)


def wants_charts(strategy: GuardedStrategy) -> bool:
    """Whether the strategy's charts show the columns."""
    judge = strategy._margin_judge
    if isinstance(judge, Replay):
        # As they were at its start: freqtrade warns of a parameter of hyperopt that indicators are made with.
        return judge.settings.charts
    try:
        settings = settings_of(strategy)
    except OperationalException:
        # Its start refuses it; later it is an epoch of hyperopt, whose strategy may still use the columns.
        return strategy._margin_judge is not None
    return settings.enabled and settings.charts


def opens_of(dataframe: DataFrame) -> list[int]:
    """Return the candles' opens in milliseconds since 1970."""
    opens: list[int] = dataframe["date"].array.as_unit("ms").asi8.tolist()
    return opens


def columns_of(strategy: GuardedStrategy, dataframe: DataFrame, pair: str) -> DataFrame:
    """Return `COLUMNS` for the candles of a dataframe: what was known at each close, or NaN."""
    values: list[Values] = []
    charts = strategy._margin_charts
    try:
        if charts:
            length = timeframe_to_seconds(strategy.timeframe) * 1000
            opens = opens_of(dataframe)
            if isinstance(charts, Replay):
                charts.load({pair: opens}, length)
            values = charts.values(pair, [opened + length for opened in opens])
    except HistoryError as error:
        say_once(f"No isolated margin accounts in the charts: {error}.")
    except Exception:
        logger.exception("The isolated margin columns of %s are left empty.", pair)
    # As one array: pandas would look at each number of a list.
    table = np.array(values) if values else np.full((len(dataframe), len(COLUMNS)), nan)
    return DataFrame(table, index=dataframe.index, columns=list(COLUMNS))


def show_columns(strategy: GuardedStrategy, dataframe: DataFrame, pair: str) -> None:
    """Add the columns to a dataframe that is only shown, except for those that the strategy made itself."""
    for name, column in columns_of(strategy, dataframe, pair).items():
        if name not in dataframe.columns:
            dataframe[name] = column


class OwnPlotConfig:
    """The strategy's own `plot_config`, with the columns of the mixin added."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __get__(self, instance: GuardedStrategy | None, owner: type) -> Any:
        own = self._inner.__get__(instance, owner) if hasattr(type(self._inner), "__get__") else self._inner
        if instance is None or not isinstance(own, Mapping) or not wants_charts(instance):
            return own
        merged = merged_plot_config(own)
        if own is self._inner:
            # From now on the instance's: a strategy may add to it as it goes.
            instance.__dict__["plot_config"] = merged
        return merged


def annotated(inner: Any) -> Callable[..., list[Any]]:
    """Return `plot_annotations` with shades over the candles in which entries were blocked, once.

    freqtrade asks for them when it is about to show a dataframe, in its API and in its web server. What it
    hands over is the copy that it shows: the place to add the columns, where no strategy meets them.
    """

    @functools.wraps(inner)
    def plot_annotations(self: GuardedStrategy, *args: Any, **kwargs: Any) -> list[Any]:
        with inside.chart:
            outermost = inside.chart.depth == 1
            own = inner.__get__(self, type(self))(*args, **kwargs)
        if not outermost or not wants_charts(self):
            return cast("list[Any]", own)
        try:
            dataframe, pair = kwargs["dataframe"], kwargs["pair"]
            show_columns(self, dataframe, pair)
            charts = self._margin_charts
            candles = list(zip(dataframe["date"].dt.to_pydatetime(), dataframe[COLUMNS[-1]], strict=True))
            length = timedelta(seconds=timeframe_to_seconds(self.timeframe))
            return [*(own or ()), *shaded(candles, length, charts.blocked(pair) if charts else [])]
        except Exception:
            logger.exception("The candles in which entries were blocked are not shaded.")
            return cast("list[Any]", own)

    return plot_annotations
