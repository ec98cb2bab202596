"""Judges the entries of a backtest by the margin accounts that its own trades make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal

from freqtrade.persistence import LocalTrade
from pandas import DataFrame

from freqtrade_isolated_margin.account.maths import ONE, Side
from freqtrade_isolated_margin.account.records import PairAccount, Row
from freqtrade_isolated_margin.account.tiers import tier_ratios
from freqtrade_isolated_margin.hosts.backtest_judge import BacktestJudge
from freqtrade_isolated_margin.rules.decide import EntryDecision, Reading, decide
from freqtrade_isolated_margin.rules.settings import Settings
from freqtrade_isolated_margin.trading.gate import Entry, beyond_tiers, judge_order
from freqtrade_isolated_margin.trading.paper import Held, paper_row
from freqtrade_isolated_margin.trading.standing import Candles, Report
from freqtrade_isolated_margin.trading.terms import Terms
from freqtrade_isolated_margin.trading.trades import number, open_trades


class Simulation(BacktestJudge):
    """A judge for backtesting and hyperopt: an account is what its pair's open trade has made of it.

    It gives entries, increases and locks the verdicts that a dry run would: by the account at the candle's
    open, and by the account as it would be after the order.
    """

    def __init__(self, settings: Settings, terms: Callable[[str], Terms]) -> None:
        self._report = Report(terms)
        super().__init__(settings, self._report)
        self._terms = terms
        self._told: dict[str, tuple[datetime | None, float]] = {}

    def take(self, data: Mapping[str, DataFrame]) -> None:
        """Take in the candles of a backtest: their opens are the prices of accounts."""
        self._report.candles = {pair: Candles.of(frame) for pair, frame in data.items()}

    def begin(self) -> None:
        """Forget the former backtest, and tell what it has shown."""
        super().begin()
        self._told.clear()
        # freqtrade begins each backtest with a new list, and puts every trade there that is closed.
        self._report.trades = LocalTrade.bt_trades

    def told_price(self, pair: str, rate: float) -> None:
        """Take note of what a pair costs at `now`."""
        self._told[pair] = self.now, rate

    def decision(self, pair: str, side: Side, leverage: Decimal = ONE) -> EntryDecision:
        """Return what an entry into `pair` could be at `now`. Never raises."""
        if self.trouble:
            return self._refusal(pair, side, self.trouble)
        reading = self._reading(pair)
        rules = self.settings.rules_for(pair)
        return decide(pair, side, reading, rules, float(self.settings.max_age_seconds), leverage)

    def after_order(
        self, pair: str, side: Side, amount: Decimal, rate: Decimal, leverage: Decimal
    ) -> EntryDecision:
        """Return what the exchange class of a bot would say of an order."""
        entry, tiers = Entry(pair, side, amount, rate, leverage), self._terms(pair).tiers
        reading = self._reading(pair)
        return beyond_tiers(entry, tiers) or judge_order(
            entry, reading, tiers, self.settings, moves_stake=True
        )

    def account(self, pair: str) -> PairAccount | None:
        """Return the pair's account at `now`."""
        row = self._reading(pair).row
        return row if isinstance(row, PairAccount) else None

    def claim(self, decision: EntryDecision) -> bool:  # noqa: ARG002 - the protocol
        """Return True: each trade is in its account at once."""
        return True

    def _reading(self, pair: str) -> Reading:
        if self.now is None:
            return Reading(None, trouble="no moment of the backtest is given outside of its callbacks")
        price = self._price(pair, self.now)
        if not price:
            return Reading(None, trouble="there is no candle of it")
        held = next((Held.of(trade) for trade in open_trades(pair)), None)
        terms = self._terms(pair)
        row: Row = paper_row(pair, held, number(price), self.now.timestamp(), terms)
        ratios = tier_ratios(terms.tiers, row.holdings) if isinstance(row, PairAccount) else None
        return Reading(row, tier_ratios=ratios)

    def _price(self, pair: str, now: datetime) -> float | None:
        at, rate = self._told.get(pair, (None, 0.0))
        if at == now:
            return rate
        candles = self._report.candles.get(pair)
        return candles.open_at(now.timestamp()) if candles else None
