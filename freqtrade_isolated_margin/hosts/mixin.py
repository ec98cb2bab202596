"""`IsolatedMarginMixin`: what a strategy inherits from to be guarded."""

from __future__ import annotations

import inspect
import logging
from datetime import datetime
from typing import Any

from freqtrade.enums import TRADE_MODES, RunMode
from pandas import DataFrame

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.account.records import PairAccount
from freqtrade_isolated_margin.guard.guard import Guard
from freqtrade_isolated_margin.guard.judge import StandIn, say_once
from freqtrade_isolated_margin.hosts.backtest import load_accounts, load_whole_backtest, name_history
from freqtrade_isolated_margin.hosts.backtest_judge import BacktestJudge
from freqtrade_isolated_margin.hosts.callbacks import HANDLERS, capping, cleaning, guarded, guards
from freqtrade_isolated_margin.hosts.charts import (
    OwnPlotConfig,
    annotated,
    columns_of,
    opens_of,
    show_columns,
    wants_charts,
)
from freqtrade_isolated_margin.hosts.columns import COLUMNS
from freqtrade_isolated_margin.hosts.locks import lift_left_locks
from freqtrade_isolated_margin.hosts.protection import OwnProtections, make_loadable
from freqtrade_isolated_margin.hosts.replay import Replay
from freqtrade_isolated_margin.hosts.selfcheck import check_guarded
from freqtrade_isolated_margin.hosts.starting import (
    CHARTING,
    check_command,
    recorded_charts,
    start_guard,
    start_replay,
    start_simulation,
)
from freqtrade_isolated_margin.hosts.strategy import GuardedStrategy, go_to, judge_of, settings_of
from freqtrade_isolated_margin.rules.decide import EntryDecision, Outcome, Rule

logger = logging.getLogger(__name__)


class IsolatedMarginMixin(GuardedStrategy):
    """Guards a strategy's entries with its pairs' isolated margin accounts on Binance.

    Live and dry it reads the accounts in the background, vetoes, shrinks and locks entries, and never
    hinders an exit. In backtesting, hyperopt and the analyses it stands down. Write it before `IStrategy`:
    ``class MyStrategy(IsolatedMarginMixin, IStrategy)``.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._margin_wanted: dict[str, float] = {}
        self._margin_leverages: dict[str, float] = {}
        name_history(self)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, (handler, refusal) in HANDLERS.items():
            if guards(cls, name):
                setattr(cls, name, guarded(name, handler, refusal, inspect.getattr_static(cls, name)))
        cls.leverage = capping(inspect.getattr_static(cls, "leverage"))
        cls.ft_bot_cleanup = cleaning(inspect.getattr_static(cls, "ft_bot_cleanup"))
        cls.protections = OwnProtections(inspect.getattr_static(cls, "protections"))
        cls.plot_config = OwnPlotConfig(inspect.getattr_static(cls, "plot_config"))
        cls.plot_annotations = annotated(inspect.getattr_static(cls, "plot_annotations"))

    def margin_account(self, pair: str) -> PairAccount | None:
        """Return the pair's account as last read; None if it has none, or it cannot be judged now."""
        return judge_of(self).account(pair)

    def margin_decision(self, pair: str, side: str = "long") -> EntryDecision:
        """Return what an entry into `pair` may be now, and why.

        In a backtest that replays the history, now is the open of the candle (or, if later, the moment of the
        newest callback that the guard acts in), and there is no now while indicators and signals are made.
        """
        return judge_of(self).decision(pair, Side(side))

    def margin_columns(self, dataframe: DataFrame, pair: str, *names: str) -> DataFrame:
        """Return what was known of the pair's account at the close of each candle, to be joined to them.

        The columns are `names`, or all of `COLUMNS`; they are NaN where nothing was known. The candles are of
        the strategy's timeframe. Live they need ``charts``, in a backtest ``"backtest": "replay"``.

        :raises ValueError: for a name that no column has.
        """
        unknown = [name for name in names if name not in COLUMNS]
        if unknown:
            raise ValueError(f"no margin column {', '.join(unknown)}; there are {', '.join(COLUMNS)}")
        judge = self._margin_judge
        if isinstance(judge, Replay):
            # With the limits of this epoch of a hyperopt.
            go_to(self, judge, judge.now)
        elif isinstance(judge, Guard) and self._margin_charts is None:
            say_once('The margin columns are NaN: "isolated_margin": {"charts": false} keeps no candles.')
        return columns_of(self, dataframe, pair)[list(names or COLUMNS)]

    def margin_lock(self, pair: str, side: str, now: datetime) -> tuple[str, Rule] | None:
        """Return the sides on which `pair` should be locked now, and by which rule; None if on none."""
        judge = judge_of(self)
        if isinstance(judge, BacktestJudge):
            go_to(self, judge, now)
        look = judge.look()
        asked = look.decision(pair, Side(side))
        if not asked.blocks or look.is_waiting(asked):
            return None
        other = look.decision(pair, Side.SHORT if side == Side.LONG else Side.LONG)
        return ("*" if other.blocks or not self.can_short else str(side)), asked.rule

    def advise_all_indicators(self, data: dict[str, DataFrame]) -> dict[str, DataFrame]:
        """Analyse the candles of a backtest; one that replays the history needs some (freqtrade's hook).

        :raises OperationalException: where it holds nothing of the whole period.
        """
        if isinstance(self._margin_judge, Replay):
            load_whole_backtest(self, self._margin_judge, data)
        elif isinstance(self._margin_judge, BacktestJudge):
            self._margin_judge.take(data)
        analysed: dict[str, DataFrame] = super().advise_all_indicators(data)
        return analysed

    def advise_entry(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        """Look for entries; here every backtest and every epoch of a hyperopt begins (freqtrade's hook)."""
        if isinstance(self._margin_judge, BacktestJudge):
            self._margin_judge.begin()
        return super().advise_entry(dataframe, metadata)

    def advise_indicators(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        """Make the strategy's indicators; a replay needs the candles' accounts by then (freqtrade's hook)."""
        if isinstance(self._margin_judge, Replay):
            self._margin_judge.now = None
            load_accounts(self, self._margin_judge, {metadata["pair"]: opens_of(dataframe)})
        return super().advise_indicators(dataframe, metadata)

    def analyze_ticker(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        """Analyse a pair's candles; those of `plot-dataframe` are only drawn then (freqtrade's hook)."""
        analysed = super().analyze_ticker(dataframe, metadata)
        if self.config.get("runmode") == RunMode.PLOT and wants_charts(self):
            show_columns(self, analysed, metadata["pair"])
        return analysed

    def ft_bot_start(self, **kwargs: Any) -> None:
        """Start guarding, before the strategy's own `bot_start` (freqtrade's hook)."""
        settings = settings_of(self)
        mode = self.config.get("runmode")
        if mode not in CHARTING:
            check_command(self, settings)
        if mode in TRADE_MODES and not settings.enabled:
            logger.warning('The isolated margin guard is off ("isolated_margin": {"enabled": false}).')
            self._margin_judge = StandIn(Outcome.ALLOW, "the guard is off (enabled false)")
            lift_left_locks(self)
        elif mode in TRADE_MODES:
            start_guard(self, settings)
        elif settings.enabled and settings.backtest == "replay" and mode not in CHARTING:
            start_replay(self, settings)
        elif settings.enabled and settings.backtest == "simulate" and mode not in CHARTING:
            start_simulation(self, settings)
        else:
            say_once("The isolated margin guard stands down outside of live and dry runs.")
            self._margin_judge = StandIn(Outcome.ALLOW, "the guard stands down outside of live and dry runs")
            if mode in CHARTING and settings.charts and settings.history.enabled:
                self._margin_charts = recorded_charts(self, settings)
        super().ft_bot_start(**kwargs)
        # Only now have the parameters of a hyperopt been loaded, which limits may be made of.
        changed = settings_of(self)
        if changed != settings and isinstance(self._margin_judge, Guard):
            self._margin_judge.adopt(changed)
        make_loadable(self)
        if isinstance(self._margin_judge, Guard):
            check_guarded(self)
