"""The gate before each order: what it judges, and that whatever goes wrong is a refusal."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.account.records import Absent, Row, Unreadable
from freqtrade_isolated_margin.account.tiers import published_tiers
from freqtrade_isolated_margin.binance.clock import Moment
from freqtrade_isolated_margin.binance.reader import Snapshot
from freqtrade_isolated_margin.errors import UnavailableError
from freqtrade_isolated_margin.rules.settings import Settings
from freqtrade_isolated_margin.trading import gate as gate_module
from freqtrade_isolated_margin.trading.gate import Entry, Gate
from freqtrade_isolated_margin.trading.rows import Balance, account_row

D = Decimal
TIERS = published_tiers(10)
EMPTY = account_row(Balance("BTC"), Balance("USDT"), D(50_000), TIERS)
LONG = Entry("BTC/USDT", Side.LONG, D("0.02"), D(50_000), D(3))


class Told:
    """A reader that knows one row, or does what it is told instead."""

    def __init__(self, row: Row | None, instead: Callable[[], Any] | None = None, age: float = 0.0) -> None:
        self.row, self.instead, self.age = row, instead, age
        self.reads = 0
        self.asking_since = None

    def read(self, pairs: Collection[str] | None = None, *, borrowed: bool = False) -> Snapshot:
        self.reads += 1
        if self.instead:
            self.instead()
        rows = {} if self.row is None else {"BTC/USDT": self.row}
        return Snapshot(Moment.now().before(self.age), MappingProxyType(rows), {"BTC/USDT": "BTCUSDT"})

    def close(self) -> None:
        """Do nothing."""


def judged(
    reader: Told, entry: Entry = LONG, section: dict[str, Any] | None = None, *, moves_stake: bool = True
) -> str:
    """Return what the gate says, in words."""
    settings = Settings.load({"trading": {"enabled": True}, **(section or {})})
    gate = Gate(settings, lambda: reader, lambda _: TIERS, moves_stake=moves_stake)
    return str(gate.judge(entry))


def test_an_order_that_keeps_the_limits_is_allowed() -> None:
    """3x of an empty account stands at 1.5: above 1.25, on one read."""
    reader = Told(EMPTY)
    assert ": block:" not in judged(reader)
    assert reader.reads == 1


def test_each_order_is_judged_by_a_read_of_its_own() -> None:
    """What was read for the one before does not count."""
    reader = Told(EMPTY)
    gate = Gate(
        Settings.load({"trading": {"enabled": True}}), lambda: reader, lambda _: TIERS, moves_stake=True
    )
    gate.judge(LONG)
    reader.row = Unreadable("made for the test")
    assert gate.judge(LONG).blocks
    assert reader.reads == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"leverage": D(6)}, "block: margin level 1.1999 ≤ 1.25"),
        ({"leverage": D(11)}, "block: leverage 11 is above 10, the highest of its tiers"),
        ({"side": Side.SHORT, "leverage": D(5)}, "block: margin level 1.2 ≤ 1.25"),
        ({"side": Side.SHORT, "leverage": D("9.5")}, "block: leverage 9.5 is above 9.009"),
    ],
)
def test_an_order_is_judged_as_the_account_would_be_after_it(change: dict[str, Any], said: str) -> None:
    """Both sides, by level and by what the tiers have."""
    assert said in judged(Told(EMPTY), LONG._replace(**change))


def test_what_no_tier_lends_is_refused() -> None:
    """A loan above the limit of the highest tier is not asked for."""
    tiers = tuple(tier._replace(quote_max_borrowable=D(500)) for tier in TIERS)
    settings = Settings.load({"trading": {"enabled": True}})
    said = str(Gate(settings, lambda: Told(EMPTY), lambda _: tiers, moves_stake=True).judge(LONG))
    assert "it would borrow 666.66666666, more than the 500 of its highest tier" in said


def test_an_account_that_is_blocked_now_gets_no_order_that_would_mend_it() -> None:
    """An increase brings collateral and so raises the level, but what is blocked stays blocked."""
    low = account_row(Balance("BTC", D(1)), Balance("USDT", D(0), D(42_000)), D(50_000), TIERS)
    assert "block: margin level 1.19" in judged(Told(low), LONG._replace(leverage=D(1)))


def test_a_pair_without_account_gets_one_with_its_first_stake() -> None:
    """Where `without_account` allows it, the account is judged as it would be; else it is refused."""
    assert ": block:" not in judged(Told(Absent("no isolated margin account")))
    refused = judged(Told(Absent("no isolated margin account")), section={"without_account": "block"})
    assert "block: no isolated margin account (without_account: block)" in refused


def test_a_stake_that_the_account_does_not_hold_is_refused() -> None:
    """With collateral that is not moved, an empty account cannot pay its share."""
    assert "block" in judged(Told(EMPTY), moves_stake=False)


def raising(error: Exception) -> Callable[[], None]:
    """Return what raises it."""

    def instead() -> None:
        raise error

    return instead


@pytest.mark.parametrize(
    ("reader", "said"),
    [
        (Told(Unreadable("made for the test")), "the account is unreadable: made for the test"),
        (Told(None), "the account has not been read yet"),
        (Told(EMPTY, age=61), "the account is 61 s old"),
        (Told(EMPTY, raising(UnavailableError("down"))), "its account cannot be read: down"),
        (Told(EMPTY, raising(RuntimeError("broken"))), "an error of the guard"),
    ],
)
def test_what_cannot_be_judged_is_refused(reader: Told, said: str) -> None:
    """No failure of a read lets an order through."""
    words = judged(reader)
    assert "block" in words
    assert said in words


def test_a_read_that_hangs_is_refused_and_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order does not wait for ever, and the next one gets another reader."""
    monkeypatch.setattr(gate_module, "_PATIENCE_SECONDS", 0.05)
    released = threading.Event()
    readers = [Told(EMPTY, released.wait), Told(EMPTY)]
    gate = Gate(
        Settings.load({"trading": {"enabled": True}}),
        lambda: readers.pop(0),
        lambda _: TIERS,
        moves_stake=True,
    )
    assert "cannot be read" in str(gate.judge(LONG))
    monkeypatch.setattr(gate_module, "_PATIENCE_SECONDS", 20.0)
    assert not gate.judge(LONG).blocks
    released.set()
