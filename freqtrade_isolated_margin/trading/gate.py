"""The guard in the way of every order that borrows or increases, on a read that is made for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

from freqtrade_isolated_margin.account.maths import (
    ONE,
    ZERO,
    Funding,
    Holdings,
    Side,
    after_entry,
    exact,
)
from freqtrade_isolated_margin.account.records import Absent, Asset, PairAccount, Row
from freqtrade_isolated_margin.account.tiers import Tier, tier_ratios
from freqtrade_isolated_margin.binance.clock import Moment
from freqtrade_isolated_margin.binance.reader import AccountsReader, within
from freqtrade_isolated_margin.errors import IsolatedMarginError
from freqtrade_isolated_margin.rules.decide import EntryDecision, Reading, Rule, decide, plain
from freqtrade_isolated_margin.rules.settings import Settings
from freqtrade_isolated_margin.trading.rows import Balance, account_row

logger = logging.getLogger(__name__)

# How long an order waits for the read that is made for it; its price is older by then.
_PATIENCE_SECONDS = 20.0


class Entry(NamedTuple):
    """An order that is about to borrow or to increase: `amount` in base, `rate` in quote per base."""

    pair: str
    side: Side
    amount: Decimal
    rate: Decimal
    leverage: Decimal

    @property
    def value(self) -> Decimal:
        """What it is worth, in quote currency."""
        return self.amount * self.rate


class Gate:
    """Judges orders. Never raises: what goes wrong on the way to a verdict is a refusal with a reason."""

    def __init__(
        self,
        settings: Settings,
        make_reader: Callable[[], AccountsReader],
        tiers: Callable[[str], tuple[Tier, ...]],
        *,
        moves_stake: bool,
    ) -> None:
        self.settings = settings
        self._make_reader = make_reader
        self._tiers = tiers
        self._moves_stake = moves_stake
        self._reader: AccountsReader | None = None

    def judge(self, entry: Entry) -> EntryDecision:
        """Return what the guard says of an order, from an account that is read for it."""
        try:
            return self._judge(entry)
        except IsolatedMarginError as error:
            return _refusal(entry, Rule.UNREADABLE, f"its account cannot be read: {error}")
        except Exception:
            logger.exception("Judging an order in %s failed; it is refused.", entry.pair)
            why = "the account cannot be judged (an error of the guard, see the log)"
            return _refusal(entry, Rule.UNREADABLE, why)

    def _judge(self, entry: Entry) -> EntryDecision:
        tiers = self._tiers(entry.pair)
        too_much = beyond_tiers(entry, tiers)
        if too_much:
            return too_much
        reading = self._read(entry.pair)
        return judge_order(entry, reading, tiers, self.settings, moves_stake=self._moves_stake)

    def _read(self, pair: str) -> Reading:
        reader, self._reader = self._reader or self._make_reader(), None
        snapshot = within(_PATIENCE_SECONDS, lambda: reader.read({pair}, borrowed=True))
        # Only now: one that still hangs is left to itself.
        self._reader = reader
        return snapshot.reading(pair, Moment.now())


def _refusal(entry: Entry, rule: Rule, why: str) -> EntryDecision:
    return EntryDecision.because(entry.pair, entry.side, ZERO, rule, why)


def judge_order(
    entry: Entry, reading: Reading, tiers: tuple[Tier, ...], settings: Settings, *, moves_stake: bool
) -> EntryDecision:
    """Judge an order by its account as it is and as it would be after it."""
    rules, max_age = settings.rules_for(entry.pair), float(settings.max_age_seconds)
    before = decide(entry.pair, entry.side, reading, rules, max_age)
    if before.blocks:
        return before
    after = after_order(reading.row, entry, tiers, moves_stake=moves_stake)
    ratios = tier_ratios(tiers, after.holdings) if isinstance(after, PairAccount) else None
    return decide(entry.pair, entry.side, reading._replace(row=after, tier_ratios=ratios), rules, max_age)


def beyond_tiers(entry: Entry, tiers: tuple[Tier, ...]) -> EntryDecision | None:
    """Return the refusal of an order for which no tier lends what it needs, or None."""
    why = _too_much(entry, tiers)
    return _refusal(entry, Rule.FUNDING, why) if why else None


@exact
def _too_much(entry: Entry, tiers: tuple[Tier, ...]) -> str | None:
    """Say why no tier lends what an order needs, or None.

    A long borrows what of its value the stake does not pay, a short all that it sells (API:
    ``isolatedMarginTier``).
    """
    cap = max(tier.max_leverage(entry.side) for tier in tiers)
    if entry.leverage > cap:
        return f"leverage {plain(entry.leverage, 4)} is above {plain(cap, 4)}, the highest of its tiers"
    if entry.side is Side.LONG:
        loan = entry.value - entry.value / entry.leverage
        most = max(tier.quote_max_borrowable for tier in tiers)
    else:
        loan, most = entry.amount, max(tier.base_max_borrowable for tier in tiers)
    if loan > most:
        return f"it would borrow {plain(loan, 8)}, more than the {plain(most, 8)} of its highest tier"
    return None


@exact
def after_order(row: Row | None, entry: Entry, tiers: tuple[Tier, ...], *, moves_stake: bool) -> Row | None:
    """Return the account as it would be after an order, filled whole at its rate, before fees.

    The stake comes in as collateral, or out of what is free there; what it does not pay for is borrowed.
    `row` is what was read of the account.
    """
    base_name, _, quote_name = entry.pair.partition("/")
    base, quote, price = Balance(base_name), Balance(quote_name), entry.rate
    if isinstance(row, PairAccount) and not row.is_absent:
        base, quote = _balance(row.base_asset), _balance(row.quote_asset)
        price = row.index_price
    elif not isinstance(row, Absent | PairAccount):
        return row
    stake = entry.value / max(entry.leverage, ONE)
    held = Holdings(
        base.free + base.locked,
        quote.free + quote.locked + (stake if moves_stake else ZERO),
        base.borrowed + base.interest,
        quote.borrowed + quote.interest,
    )
    if entry.side is Side.LONG:
        bought = after_entry(held, stake, Side.LONG, entry.rate, Funding.FREE)
        after = after_entry(bought, entry.value - stake, Side.LONG, entry.rate, Funding.BORROWED)
    else:
        after = after_entry(held, entry.value, Side.SHORT, entry.rate, Funding.BORROWED)
    return account_row(
        Balance(base.asset, after.base, after.base_debt - base.interest, base.interest),
        Balance(quote.asset, after.quote, after.quote_debt - quote.interest, quote.interest),
        price,
        tiers,
    )


def _balance(asset: Asset) -> Balance:
    return Balance(asset.asset, asset.free, asset.borrowed, asset.interest, asset.locked)
