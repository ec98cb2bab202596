"""Reads the accounts of some pairs once: a snapshot, with the moment at which it was asked for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Protocol, TypeVar

from freqtrade_isolated_margin.account.records import (
    Absent,
    AccountsAnswer,
    NoMarket,
    PairAccount,
    Row,
    Unreadable,
)
from freqtrade_isolated_margin.account.tiers import Tier, TierRatios, tier_ratios
from freqtrade_isolated_margin.binance.adapter import MAX_SYMBOLS, IsolatedMarginAdapter, in_chunks
from freqtrade_isolated_margin.binance.clock import Moment
from freqtrade_isolated_margin.errors import IsolatedMarginError, UnavailableError
from freqtrade_isolated_margin.rules.decide import Reading

T = TypeVar("T")

logger = logging.getLogger(__name__)


# Refusals that are of no single symbol: too much weight, the clock, and Binance's own troubles (API, error
# codes). Any other may be the fault of one symbol of a request, whatever Binance calls it.
_OF_ALL_CODES = {-1000, -1001, -1003, -1006, -1007, -1008, -1015, -1016, -1021, -1022, -1034}
_OF_ALL_STATUSES = {403, 418, 429}
_REFUSED = range(400, 500)
_TIERS_A_READ = 5
_BY_NAME_A_READ = 10
_TIERS_SECONDS = 24 * 3600.0
_RETRY_SECONDS = 600.0
_ABSENT_SECONDS = 3600.0
_MARKETS_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that one read of the accounts told. `asked_at` is from before the request was sent."""

    asked_at: Moment
    rows: Mapping[str, Row]
    """By pair."""
    symbols: Mapping[str, str]
    """The market ids of the pairs that have one."""
    ratios: Mapping[str, TierRatios] = field(default_factory=dict)
    """Liquidation ratios by pair, where the exchange has told the tiers."""
    used_weight: int | None = None
    pause: float = 0.0
    """Seconds that the exchange asks to wait although the accounts were read."""
    moments: Mapping[str, Moment] = field(default_factory=dict)
    """When single pairs were asked for, where that was not at `asked_at`."""
    trouble: str | None = None
    """Why whoever asked the exchange cannot read it any more, where it was somebody else."""

    @property
    def read_at(self) -> datetime:
        """When the accounts were asked for, in UTC."""
        return self.asked_at.date

    def asked_at_of(self, pair: str) -> Moment:
        """Return when the pair's account was asked for."""
        return self.moments.get(pair, self.asked_at)

    def reading(self, pair: str, now: Moment, trouble: str | None = None) -> Reading:
        """Return what was read of the pair's account, and how old it is at `now`."""
        asked_at = self.asked_at_of(pair)
        return Reading(
            row=self.rows.get(pair),
            age_seconds=asked_at.age(now),
            tier_ratios=self.ratios.get(pair),
            trouble=trouble or self.trouble,
        )


class AccountsReader(Protocol):
    """Whoever reads the accounts for a `Monitor`, in its thread."""

    def read(self, pairs: Collection[str] | None = None, *, borrowed: bool = False) -> Snapshot:
        """Read the accounts of `pairs` once; raises `IsolatedMarginError` where nothing could be learnt."""

    @property
    def asking_since(self) -> float | None:
        """When the request that is under way was sent, on the monotonic clock; None if there is none."""

    def close(self) -> None:
        """Close the connections."""


class Reader:
    """Reads the accounts of some pairs once, and remembers what need not be asked again."""

    def __init__(self, adapter: IsolatedMarginAdapter, clock: Callable[[], Moment] = Moment.now) -> None:
        self._adapter = adapter
        self._clock = clock
        self._all_only = False
        self._absent: dict[str, Moment] = {}
        self._refused: dict[str, tuple[Unreadable, Moment]] = {}
        self._tiers: dict[str, tuple[tuple[Tier, ...], Moment]] = {}
        self._markets_at: Moment | None = None

    def read(self, pairs: Collection[str] | None = None, *, borrowed: bool = False) -> Snapshot:
        """Read the accounts of `pairs`, or of every pair that has one.

        `borrowed` asks for the tiers of accounts without debt too.

        :raises IsolatedMarginError: where nothing could be learnt of any account.
        """
        symbols = self._symbols(pairs)
        asked_at = self._clock()
        answer, refusal = self._ask(None if pairs is None else set(symbols.values()))
        if pairs is None:
            known = self._adapter.pairs()
            symbols = {known[symbol]: symbol for symbol in answer.rows if symbol in known}
        rows: dict[str, Row] = dict.fromkeys(pairs or (), NoMarket())
        found, pause = self._found(answer, set(symbols.values()))
        if refusal and not any(isinstance(row, PairAccount) for row in found.values()):
            raise refusal
        rows |= {pair: found[symbol] for pair, symbol in symbols.items()}
        ratios, tiers_pause = self._ratios(symbols, rows, borrowed=borrowed)
        return Snapshot(
            asked_at=asked_at,
            rows=MappingProxyType(rows),
            symbols=MappingProxyType(symbols),
            ratios=MappingProxyType(ratios),
            used_weight=answer.used_weight,
            pause=max(pause, tiers_pause),
        )

    @property
    def asking_since(self) -> float | None:
        """When the request that is under way was sent, on the monotonic clock; None if there is none."""
        return self._adapter.asking_since

    def close(self) -> None:
        """Close the connections."""
        self._adapter.close()

    def _symbols(self, pairs: Collection[str] | None) -> dict[str, str]:
        self._adapter.load_markets()
        self._markets_at = self._markets_at or self._clock()
        ids = self._adapter.market_ids(list(pairs or ()))
        if None in ids.values() and self._markets_at.age(self._clock()) > _MARKETS_SECONDS:
            self._markets_at = self._clock()
            self._adapter.load_markets(reload=True)
            ids = self._adapter.market_ids(list(ids))
        return {pair: symbol for pair, symbol in ids.items() if symbol is not None}

    def _ask(self, symbols: set[str] | None) -> tuple[AccountsAnswer, UnavailableError | None]:
        """Return what one request tells of the accounts, or nothing and why it was refused.

        :raises IsolatedMarginError: where asking for single symbols would be refused as well.
        """
        if symbols and len(symbols) <= MAX_SYMBOLS and not self._all_only:
            try:
                return self._ask_by_name(symbols), None
            except UnavailableError as error:
                if len(symbols) == 1 or not _may_be_of_one_symbol(error):
                    raise
                # One of them spoils the request for all: from now on only that one shall suffer.
                self._all_only = True
        try:
            return self._adapter.fetch(), None
        except UnavailableError as error:
            if not symbols or len(symbols) == 1 or not _may_be_of_one_symbol(error):
                raise
            return AccountsAnswer(rows={}, used_weight=self._adapter.used_weight), error

    def _ask_by_name(self, symbols: set[str]) -> AccountsAnswer:
        answer = self._adapter.fetch(sorted(symbols))
        missing = {
            symbol: Unreadable("the answer has no row for it") for symbol in symbols - answer.rows.keys()
        }
        return AccountsAnswer(rows={**answer.rows, **missing}, used_weight=answer.used_weight)

    def _found(self, answer: AccountsAnswer, symbols: set[str]) -> tuple[dict[str, Row], float]:
        """Return the row of every symbol, and how long the exchange asks to wait before it is asked more."""
        rows: dict[str, Row] = {symbol: answer.rows[symbol] for symbol in symbols & answer.rows.keys()}
        missing = symbols - rows.keys()
        now = self._clock()
        for symbol in rows:
            self._absent.pop(symbol, None)
        for symbol, since in self._absent.items():
            if symbol in missing and since.age(now) < _ABSENT_SECONDS:
                rows[symbol] = Absent("no isolated margin account")
        for symbol, (row, since) in self._refused.items():
            if symbol in missing and since.age(now) < _RETRY_SECONDS:
                rows[symbol] = row
        asked, pause = self._ask_once_more(sorted(missing - rows.keys()))
        return rows | asked, pause

    def _ask_once_more(self, symbols: list[str]) -> tuple[dict[str, Row], float]:
        """Ask by name for what an answer for all accounts did not have: only then may it count as absent."""
        rows: dict[str, Row] = {
            symbol: Unreadable("the answer for all accounts has no row for it") for symbol in symbols
        }
        waiting = in_chunks(symbols)
        for _ in range(_BY_NAME_A_READ):
            if not waiting:
                break
            chunk = waiting.pop(0)
            try:
                answer = self._adapter.fetch(chunk)
            except IsolatedMarginError as error:
                if not _may_be_of_one_symbol(error):
                    return rows, error.retry_after if isinstance(error, UnavailableError) else 0.0
                if len(chunk) > 1:
                    waiting += [[symbol] for symbol in chunk]
                else:
                    rows[chunk[0]] = self._refuse(chunk[0], str(error))
                continue
            for symbol in chunk:
                # A pair without account has a placeholder row; no row at all is no answer.
                row = answer.rows.get(symbol) or self._refuse(symbol, "no answer has a row for it")
                rows[symbol] = row
                if isinstance(row, PairAccount) and row.is_absent:
                    self._absent[symbol] = self._clock()
        return rows, 0.0

    def _refuse(self, symbol: str, why: str) -> Unreadable:
        """Remember for a while that asking for `symbol` by name leads nowhere."""
        refused = Unreadable(why)
        self._refused[symbol] = (refused, self._clock())
        return refused

    def _ratios(
        self, symbols: Mapping[str, str], rows: Mapping[str, Row], *, borrowed: bool
    ) -> tuple[dict[str, TierRatios], float]:
        ratios: dict[str, TierRatios] = {}
        pause, left = 0.0, _TIERS_A_READ
        for pair, symbol in symbols.items():
            row = rows[pair]
            if not isinstance(row, PairAccount) or row.is_absent or not (row.has_debt or borrowed):
                continue
            if self._tiers_are_due(symbol) and left and not pause:
                left -= 1
                pause = self._read_tiers(symbol)
            tiers, _ = self._tiers.get(symbol, ((), None))
            found = tier_ratios(tiers, row.holdings)
            if found:
                ratios[pair] = found
        return ratios, pause

    def _tiers_are_due(self, symbol: str) -> bool:
        tiers, since = self._tiers.get(symbol, ((), None))
        keep = _TIERS_SECONDS if tiers else _RETRY_SECONDS
        return since is None or since.age(self._clock()) > keep

    def _read_tiers(self, symbol: str) -> float:
        """Read one symbol's tiers; without them its ratio comes from the published tables. Returns a wait."""
        try:
            self._tiers[symbol] = (self._adapter.fetch_tiers(symbol), self._clock())
        except IsolatedMarginError as error:
            logger.debug("The tiers of %s cannot be read: %s", symbol, error)
            # What was known stays better than nothing.
            old, _ = self._tiers.get(symbol, ((), None))
            self._tiers[symbol] = (old, self._clock())
            return error.retry_after if isinstance(error, UnavailableError) else 0.0
        return 0.0


def _may_be_of_one_symbol(error: IsolatedMarginError) -> bool:
    """Whether a refusal can be of one symbol alone: not of the rate, the key, the clock or the network."""
    if not isinstance(error, UnavailableError) or error.code is None or error.status is None:
        return False
    if error.status in _OF_ALL_STATUSES or error.code in _OF_ALL_CODES:
        return False
    return error.status in _REFUSED


PATIENCE_SECONDS = 60.0
"""How long a command waits for the exchange in all; each request has a shorter limit of its own."""


def within(seconds: float, read: Callable[[], T]) -> T:
    """Return what `read` returns, or raise what it raises, unless it takes longer than `seconds`.

    A server that trickles keeps every single limit; the thread that waits for it is left behind then.

    :raises UnavailableError: where it takes too long.
    """
    outcome: list[T | Exception] = []

    def run() -> None:
        try:
            outcome.append(read())
        except Exception as error:  # noqa: BLE001 - raised again below, in the thread that asked
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(max(seconds, 0))
    if not outcome:
        raise UnavailableError(f"Binance cannot be reached: no whole answer within {seconds:.0f} s")
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]
