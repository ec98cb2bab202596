"""Whoever gives verdicts to callbacks, and how a callback knows that it runs inside another."""

from __future__ import annotations

import logging
from decimal import Decimal
from functools import cache
from typing import Protocol

from freqtrade_isolated_margin.account.maths import ONE, ZERO, Side
from freqtrade_isolated_margin.account.records import PairAccount
from freqtrade_isolated_margin.rules.decide import EntryDecision, Outcome, Rule

logger = logging.getLogger(__name__)


class Verdicts(Protocol):
    """What is known at one moment, and the verdicts that follow from it."""

    def decision(self, pair: str, side: Side, leverage: Decimal = ONE) -> EntryDecision:
        """Return what an entry into `pair` may be now."""

    def account(self, pair: str) -> PairAccount | None:
        """Return the pair's account if it can be judged now."""

    def claim(self, decision: EntryDecision) -> bool:
        """Use the room that a decision's largest stake leaves; False where it may be used already."""

    def is_waiting(self, decision: EntryDecision) -> bool:
        """Whether `decision` refuses only because the first read is still to come, and may yet."""


class Judge(Verdicts, Protocol):
    """Whoever gives verdicts to a strategy's callbacks, each as of its own moment."""

    def look(self) -> Verdicts:
        """Return what is known now: what belongs together is asked of one look."""


class StandIn:
    """A judge without an account: it gives everybody the same verdict."""

    def __init__(self, outcome: Outcome, why: str) -> None:
        self.outcome = outcome
        self._why = why

    def look(self) -> StandIn:
        """Return itself: nothing will change."""
        return self

    def decision(self, pair: str, side: Side, leverage: Decimal = ONE) -> EntryDecision:  # noqa: ARG002
        """Return the one verdict."""
        factor = ONE if self.outcome is Outcome.ALLOW else ZERO
        return EntryDecision.because(pair, side, factor, Rule.OFF, self._why)

    def account(self, pair: str) -> PairAccount | None:  # noqa: ARG002 - the protocol
        """Return None: there is no account."""
        return None

    def claim(self, decision: EntryDecision) -> bool:  # noqa: ARG002 - the protocol
        """Return True: there is nothing to use up."""
        return True

    def is_waiting(self, decision: EntryDecision) -> bool:  # noqa: ARG002 - the protocol
        """Return False: nothing will change."""
        return False


@cache
def say_once(message: str) -> None:
    """Log `message`, the first time only: the analyses start dozens of strategies in one process."""
    logger.info(message)
