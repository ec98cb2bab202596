"""The mixin's locks in freqtrade's own lock store, with accounts that a test chooses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from freqtrade.enums import RunMode
from freqtrade.persistence import PairLocks
from support.builders import row
from support.strategies import Plain

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.account.records import Row, parse_answer
from freqtrade_isolated_margin.binance.clock import Moment
from freqtrade_isolated_margin.binance.reader import Snapshot
from freqtrade_isolated_margin.guard.guard import Guard
from freqtrade_isolated_margin.guard.monitor import Monitor
from freqtrade_isolated_margin.rules.decide import Outcome, Rule
from freqtrade_isolated_margin.rules.settings import Settings

GOOD = row(base_total="30", quote_debt="1000", index=100)
TIGHT = row(base_total="15", quote_debt="1000", index=100)
BAD = row(base_total="12", quote_debt="1000", index=100)


class StillMonitor(Monitor):
    """A monitor without a thread, whose newest read is what a test says."""

    def __init__(self) -> None:
        super().__init__(lambda: None, 10.0)  # type: ignore[arg-type, return-value]
        self.watched: frozenset[str] = frozenset()

    def start(self) -> None:
        self.watched = self._pairs

    def read(self, age: float = 0.0, **rows: Any) -> None:
        now = Moment.now()
        asked = Moment(now.monotonic - age, now.wall - age)
        self._snapshot = Snapshot(asked, {f"{name}/USDT": _record(built) for name, built in rows.items()}, {})


def _record(built: Any) -> Row:
    return parse_answer(json.loads(json.dumps({"assets": [built]}))).rows[built["symbol"]]


class Bot:
    """A strategy, its guard and its locks."""

    def __init__(self, *pairs: str, can_short: bool = False) -> None:
        self.pairs = [f"{pair}/USDT" for pair in pairs]
        self.monitor = StillMonitor()
        self.guard = Guard(Settings.load({"max_age_seconds": 60}), self.monitor)
        self.strategy = Plain({"runmode": RunMode.DRY_RUN, "exchange": {"name": "binance"}})
        self.strategy.can_short = can_short
        self.strategy.dp = SimpleNamespace(current_whitelist=lambda: list(self.pairs))
        self.strategy._margin_judge = self.guard
        self.strategy._margin_told = {}

    def loop(self) -> None:
        """Go round once, as `FreqtradeBot.process` does."""
        self.strategy.bot_loop_start(current_time=datetime.now(UTC))

    @property
    def locks(self) -> dict[str, str | None]:
        """The active locks: the pair and the reason."""
        return {lock.pair: lock.reason for lock in PairLocks.get_pair_locks(None)}


@pytest.fixture(autouse=True)
def lock_store() -> Iterator[None]:
    """Use freqtrade's lock store without a database, empty."""
    PairLocks.use_db, PairLocks.timeframe = False, "1m"
    PairLocks.reset_locks()
    yield
    PairLocks.reset_locks()
    PairLocks.use_db = True


def test_a_blocked_pair_is_locked_on_both_sides_with_pair_and_rule() -> None:
    """The reason is stable, so that it has no number in it."""
    bot = Bot("BTC", "SOL", "XRP")
    bot.monitor.read(BTC=GOOD, SOL=TIGHT, XRP=BAD)
    bot.loop()
    assert bot.locks == {"XRP/USDT": "isolated margin: XRP/USDT margin_level"}
    assert PairLocks.is_pair_locked("XRP/USDT", side="long")
    assert PairLocks.is_pair_locked("XRP/USDT", side="short")


def test_many_loops_make_one_lock() -> None:
    """Numbers that change every time do not make a lock every time."""
    bot = Bot("XRP")
    for quote in ("1000", "1001", "1002"):
        bot.monitor.read(XRP=row(base_total="12", quote_debt=quote, index=100))
        bot.loop()
    assert len(PairLocks.get_all_locks()) == 1


def test_a_lock_is_renewed_when_its_candle_has_ended() -> None:
    """While the pair stays blocked there is always a lock to the end of the candle that runs."""
    bot = Bot("XRP")
    bot.monitor.read(XRP=BAD)
    bot.loop()
    past = datetime.now(UTC) - timedelta(seconds=1)
    for lock in PairLocks.get_all_locks():
        lock.lock_end_time = past
    locks = bot.strategy._margin_locks
    assert locks
    locks["XRP/USDT"] = locks["XRP/USDT"]._replace(until=past)
    assert bot.locks == {}
    bot.loop()
    assert bot.locks == {"XRP/USDT": "isolated margin: XRP/USDT margin_level"}


def test_recovery_lifts_the_lock_at_once_and_no_other() -> None:
    """Exactly the mixin's own lock goes; a user's lock of the same pair stays."""
    bot = Bot("XRP", "SOL")
    bot.monitor.read(XRP=BAD, SOL=BAD)
    bot.loop()
    bot.strategy.lock_pair("XRP/USDT", datetime.now(UTC) + timedelta(hours=1), "mine")
    bot.monitor.read(XRP=GOOD, SOL=BAD)
    bot.loop()
    assert bot.locks == {"XRP/USDT": "mine", "SOL/USDT": "isolated margin: SOL/USDT margin_level"}


def test_another_rule_is_another_lock() -> None:
    """When the reason changes the lock of the former one goes."""
    bot = Bot("XRP")
    bot.monitor.read(XRP=BAD)
    bot.loop()
    bot.monitor.read(XRP={**GOOD, "tradeEnabled": False})
    bot.loop()
    assert bot.locks == {"XRP/USDT": "isolated margin: XRP/USDT tradeEnabled"}


def test_before_the_first_read_it_refuses_without_a_lock() -> None:
    """For up to max_age_seconds the first read is waited for."""
    bot = Bot("BTC")
    bot.loop()
    assert bot.locks == {}
    assert bot.strategy.margin_decision("BTC/USDT").blocks


def test_before_the_first_read_no_order_is_cancelled() -> None:
    """A restart alone does not cancel unfilled orders, a stale account does."""
    bot = Bot("BTC")
    trade = SimpleNamespace(pair="BTC/USDT", trade_direction="long")
    assert bot.strategy.check_entry_timeout(trade=trade) is False
    bot.monitor.read(age=61, BTC=GOOD)
    assert bot.strategy.check_entry_timeout(trade=trade) is True


def test_a_first_read_that_never_comes_is_locked() -> None:
    """After max_age_seconds without any read the pair is locked, and shows why."""
    bot = Bot("BTC")
    bot.loop()
    long_ago = Moment.now()
    bot.guard._unread_since["BTC/USDT"] = Moment(long_ago.monotonic - 61, long_ago.wall - 61)
    bot.loop()
    assert bot.locks == {"BTC/USDT": "isolated margin: BTC/USDT not read yet"}


def test_an_account_that_gets_too_old_is_locked() -> None:
    """A stale account blocks, healthy as it was."""
    bot = Bot("BTC")
    bot.monitor.read(age=61, BTC=GOOD)
    bot.loop()
    assert bot.locks == {"BTC/USDT": "isolated margin: BTC/USDT max_age_seconds"}


def test_the_locks_of_an_earlier_run_are_taken_over() -> None:
    """After a restart what the last run has locked is lifted when the pair has recovered."""
    earlier = Bot("XRP")
    earlier.monitor.read(XRP=BAD)
    earlier.loop()
    bot = Bot("XRP")
    bot.monitor.read(XRP=GOOD)
    bot.loop()
    assert bot.locks == {}


def test_a_read_that_ends_during_a_loop_does_not_change_it() -> None:
    """All pairs of a loop, their locks and their messages rest on what was known when it began."""
    bot = Bot("BTC", "SOL")
    bot.monitor.read(BTC=GOOD, SOL=GOOD)
    told: list[Any] = []
    judged = bot.guard.judge

    def judge(look: Any, pair: str, side: Side, leverage: Any) -> Any:
        decision = judged(look, pair, side, leverage)
        # As if the thread that reads had its turn here, a moment after the loop has looked at the clock.
        bot.monitor.read(age=-0.01, BTC=BAD, SOL=BAD)
        return decision

    bot.guard.judge = judge  # type: ignore[method-assign]
    bot.strategy._margin_alerts = SimpleNamespace(look=lambda seen, *_: told.extend(seen) or [])
    bot.loop()
    assert bot.locks == {}
    assert [decision.outcome for decision, _ in told] == [Outcome.ALLOW] * 2
    assert [account.margin_level for _, account in told] == [3, 3]


def test_switching_the_guard_off_lifts_what_it_had_locked() -> None:
    """With "enabled": false after a reload nothing stays locked in the guard's name."""
    earlier = Bot("XRP")
    earlier.monitor.read(XRP=BAD)
    earlier.loop()
    strategy = Plain(
        {"runmode": RunMode.DRY_RUN, "exchange": {"name": "binance"}, "isolated_margin": {"enabled": False}}
    )
    strategy.ft_bot_start()
    assert PairLocks.get_pair_locks(None) == []


@pytest.mark.parametrize(("short_blocks", "locked"), [(False, False), (True, True)])
def test_a_lock_is_only_set_when_no_side_may_enter(
    short_blocks: bool, locked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where only one side is blocked, as borrowed funding can, the pair stays open for the other."""
    bot = Bot("BTC", can_short=True)
    bot.monitor.read(BTC=GOOD)
    allowed = bot.guard.decision("BTC/USDT", Side.SHORT)
    blocked = allowed._replace(outcome=Outcome.BLOCK, rule=Rule.FUNDING)
    sides = {Side.LONG: blocked, Side.SHORT: blocked if short_blocks else allowed}
    monkeypatch.setattr(bot.guard, "judge", lambda _look, _pair, side, _leverage: sides[side])
    bot.loop()
    assert bool(bot.locks) is locked


def test_the_open_pairs_and_the_whitelist_are_read() -> None:
    """Every loop tells the reader which pairs there are now."""
    bot = Bot("BTC")
    bot.loop()
    bot.pairs.append("SOL/USDT")
    bot.loop()
    assert bot.monitor.watched == {"BTC/USDT", "SOL/USDT"}


def test_a_refusal_is_logged_once_for_each_time_that_a_pair_is_blocked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not in every loop, and again after the pair has recovered in between."""
    caplog.set_level("INFO")
    bot = Bot("XRP")
    for account in (BAD, GOOD, BAD):
        bot.monitor.read(XRP=account)
        for _ in range(3):
            bot.loop()
            bot.strategy.confirm_trade_entry(pair="XRP/USDT", side="long", amount=1.0, rate=1.0)
    assert sum("Entry refused" in record.message for record in caplog.records) == 2


def test_a_lock_store_that_fails_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where locks cannot be written the loop goes on, and entries are vetoed all the same."""
    bot = Bot("XRP")
    bot.monitor.read(XRP=BAD)
    rolled_back: list[bool] = []
    monkeypatch.setattr(
        "freqtrade_isolated_margin.hosts.callbacks.Trade.rollback", lambda: rolled_back.append(True)
    )

    def broken(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(PairLocks, "lock_pair", broken)
    bot.loop()
    assert rolled_back == [True]
    assert bot.strategy.confirm_trade_entry(pair="XRP/USDT", side="long", amount=1.0, rate=1.0) is False


def test_a_protections_lock_is_for_both_sides_of_a_strategy_that_cannot_short() -> None:
    """`margin_lock` says on which sides, and by which rule."""
    now = datetime.now(UTC)
    bot = Bot("XRP", "BTC")
    bot.monitor.read(XRP=BAD, BTC=GOOD)
    assert bot.strategy.margin_lock("XRP/USDT", "long", now) == ("*", "margin_level")
    assert bot.strategy.margin_lock("BTC/USDT", "long", now) is None
