"""What all judges of backtests have in common: a moment that stands still, and what they say at the end."""

from __future__ import annotations

import logging
import weakref
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Self

from pandas import DataFrame

from freqtrade_isolated_margin.account.maths import ONE, Side
from freqtrade_isolated_margin.account.records import PairAccount
from freqtrade_isolated_margin.rules.decide import EntryDecision, Reading, Rule, decide
from freqtrade_isolated_margin.rules.settings import Settings

logger = logging.getLogger(__name__)


class BacktestJudge(ABC):
    """Judges a backtest's entries as of `now`, and counts what became of them."""

    def __init__(self, settings: Settings, tally: Tally | None = None) -> None:
        self.settings = settings
        self.now: datetime | None = None
        """The moment that is judged."""
        self.trouble: str | None = None
        """Why nothing can be judged, as where an epoch of hyperopt has impossible limits."""
        self._tally = tally or Tally()

    @abstractmethod
    def decision(self, pair: str, side: Side, leverage: Decimal = ONE) -> EntryDecision:
        """Return what an entry into `pair` could be at `now`. Raises nothing but refuses."""

    @abstractmethod
    def account(self, pair: str) -> PairAccount | None:
        """Return the pair's account at `now`, if it can be judged."""

    @abstractmethod
    def claim(self, decision: EntryDecision) -> bool:
        """Use the room that a decision's largest stake leaves; False where it may be used already."""

    def begin(self) -> None:
        """Forget at which moment the former backtest ended, and tell what became of its entries."""
        self.now = None
        self._tally.tell()

    def tell(self, strategy: str) -> None:
        """Log at the end of each backtest of `strategy` what became of its entries."""
        self._tally.strategy = strategy
        # freqtrade has no hook for the end: it is when the judge goes, at the latest with the process.
        weakref.finalize(self, self._tally.tell)

    def count(self, decision: EntryDecision, *, refused: bool) -> None:
        """Note an entry, or an increase of a position, that was refused, or whose stake was cut."""
        self._tally.counts[decision.pair, decision.rule if refused else None] += 1

    def count_reduction(self, pair: str) -> None:
        """Note that a position was reduced."""
        self._tally.reduced[pair] += 1

    def look(self) -> Self:
        """Return itself: its moment stands still until it is told another."""
        return self

    def is_waiting(self, decision: EntryDecision) -> bool:  # noqa: ARG002 - the protocol
        """Return False: nothing more will come."""
        return False

    def take(self, data: Mapping[str, DataFrame]) -> None:  # noqa: B027 - not all need them
        """Take in the candles of a backtest, by pair, before it begins."""

    def told_price(self, pair: str, rate: float) -> None:  # noqa: B027 - not all need it
        """Take note of what `pair` costs at `now`, where a callback says so."""

    def after_order(
        self,
        pair: str,  # noqa: ARG002 - for those who know the account that an order changes
        side: Side,  # noqa: ARG002
        amount: Decimal,  # noqa: ARG002
        rate: Decimal,  # noqa: ARG002
        leverage: Decimal,  # noqa: ARG002
    ) -> EntryDecision | None:
        """Return what may become of an order, by the account as it would be after it; None if unknown."""
        return None

    def _refusal(self, pair: str, side: Side, why: str) -> EntryDecision:
        reading = Reading(None, trouble=why)
        rules = self.settings.rules_for(pair)
        return decide(pair, side, reading, rules, float(self.settings.max_age_seconds))


class Tally:
    """How many entries were refused, by pair and rule, and how many stakes were cut (None)."""

    def __init__(self) -> None:
        self.strategy: str | None = None
        self.counts: Counter[tuple[str, Rule | None]] = Counter()
        self.reduced: Counter[str] = Counter()

    def tell(self) -> None:
        """Log a line for each pair, if that is wanted, and begin anew."""
        for pair in sorted({pair for pair, _ in self.counts}) if self.strategy else ():
            rules = {rule: count for (of, rule), count in self.counts.most_common() if of == pair and rule}
            why = f" ({', '.join(f'{rule} {count}' for rule, count in rules.items())})" if rules else ""
            logger.info(
                "%s, %s: %s entries refused%s, %s stakes cut.",
                self.strategy, pair, sum(rules.values()), why, self.counts[pair, None],
            )  # fmt: skip
        for pair in sorted(self.reduced) if self.strategy else ():
            logger.info("%s, %s: reduced %s times.", self.strategy, pair, self.reduced[pair])
        self.counts.clear()
        self.reduced.clear()
