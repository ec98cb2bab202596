"""One bot's guard: verdicts by snapshot, refusals instead of exceptions, and how it is built."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from support.builders import long_row, parsed, placeholder, row

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.account.records import Absent, NoMarket, Row, Unreadable
from freqtrade_isolated_margin.binance.clock import Moment
from freqtrade_isolated_margin.binance.credentials import ENV_KEY, ENV_SECRET
from freqtrade_isolated_margin.binance.reader import Snapshot
from freqtrade_isolated_margin.errors import CredentialsError, SettingsError, UnavailableError
from freqtrade_isolated_margin.guard import guard as guard_module
from freqtrade_isolated_margin.guard.guard import Guard
from freqtrade_isolated_margin.guard.judge import StandIn
from freqtrade_isolated_margin.guard.monitor import Monitor
from freqtrade_isolated_margin.hosts.wiring import build_guard, credentials_of, exchange_section
from freqtrade_isolated_margin.rules.decide import Outcome, Rule
from freqtrade_isolated_margin.rules.settings import Settings

PAIR = "BTC/USDT"


class Stage:
    """A guard whose accounts and clock are set by hand."""

    def __init__(self, **section: Any) -> None:
        self.now = Moment(1000.0, 1_800_000_000.0)
        self.monitor = Monitor(lambda: None, 10.0, clock=lambda: self.now)  # type: ignore[arg-type, return-value]
        self.guard = Guard(Settings.load(section), self.monitor)

    def show(self, **rows: Row) -> None:
        """Let a read succeed now, with a row for BTC/USDT unless others are named."""
        found = {name.replace("_", "/"): record for name, record in rows.items()}
        self.monitor._snapshot = Snapshot(self.now, found, {})

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        self.now = Moment(self.now.monotonic + seconds, self.now.wall + seconds)


@pytest.fixture
def stage() -> Stage:
    """A guard with default settings."""
    return Stage()


def test_an_account_is_judged_by_the_rules_of_its_pair() -> None:
    """One pair's own limit, and the others' default."""
    stage = Stage(pairs={PAIR: {"margin_level": {"block_below": 1.9}}})
    stage.show(BTC_USDT=parsed(long_row("1.8")), ETH_USDT=parsed(long_row("1.8")))
    assert stage.guard.decision(PAIR, Side.LONG).outcome is Outcome.BLOCK
    assert stage.guard.decision("ETH/USDT", Side.LONG).outcome is Outcome.SHRINK


def test_a_verdict_is_kept_as_long_as_the_account_is_the_same(stage: Stage) -> None:
    """The same object for the same question, another for another."""
    stage.show(BTC_USDT=parsed(long_row()))
    first = stage.guard.decision(PAIR, Side.LONG)
    stage.pass_by(5)
    assert stage.guard.decision(PAIR, Side.LONG) is first
    assert stage.guard.decision(PAIR, Side.SHORT) is not first
    assert stage.guard.decision(PAIR, Side.LONG, Decimal(3)) is not first


def test_a_new_read_makes_a_new_verdict(stage: Stage) -> None:
    """Nothing of the old one survives."""
    stage.show(BTC_USDT=parsed(long_row()))
    assert stage.guard.decision(PAIR, Side.LONG).outcome is Outcome.ALLOW
    stage.show(BTC_USDT=parsed(long_row("1.1")))
    assert stage.guard.decision(PAIR, Side.LONG).outcome is Outcome.BLOCK


def test_a_kept_verdict_does_not_outlive_its_account(stage: Stage) -> None:
    """At the limit it still holds, a moment later it is too old."""
    stage.show(BTC_USDT=parsed(long_row()))
    assert stage.guard.decision(PAIR, Side.LONG).outcome is Outcome.ALLOW
    stage.pass_by(60)
    assert stage.guard.decision(PAIR, Side.LONG).outcome is Outcome.ALLOW
    stage.pass_by(0.5)
    assert stage.guard.decision(PAIR, Side.LONG).rule is Rule.MAX_AGE


@pytest.mark.parametrize("change", [Moment(0.0, 3600.0), Moment(3600.0, 0.0), Moment(-5.0, -5.0)])
def test_a_verdict_does_not_outlive_a_jump_of_either_clock(stage: Stage, change: Moment) -> None:
    """Suspended, set forward, or both back: the account is no longer fresh."""
    stage.show(BTC_USDT=parsed(long_row()))
    stage.guard.decision(PAIR, Side.LONG)
    stage.now = Moment(stage.now.monotonic + change.monotonic, stage.now.wall + change.wall)
    assert stage.guard.decision(PAIR, Side.LONG).rule is Rule.MAX_AGE


def test_a_refusal_by_age_tells_the_present_age(stage: Stage) -> None:
    """It is not kept: the number in it grows."""
    stage.show(BTC_USDT=parsed(long_row()))
    for age in (61, 62):
        stage.pass_by(age - (stage.now.monotonic - 1000))
        assert f"{age} s old" in stage.guard.decision(PAIR, Side.LONG).reasons[0]


def test_without_a_read_everything_is_refused_and_says_why(stage: Stage) -> None:
    """With what keeps the accounts from being read."""
    stage.monitor._failed(UnavailableError("the connection is refused"))
    decision = stage.guard.decision(PAIR, Side.LONG)
    assert decision.rule is Rule.NOT_READ
    assert "the connection is refused" in decision.reasons[0]


def test_a_pair_that_is_not_watched_yet_is_refused(stage: Stage) -> None:
    """Other pairs' accounts do not speak for it."""
    stage.show(ETH_USDT=parsed(long_row()))
    assert stage.guard.decision(PAIR, Side.LONG).rule is Rule.NOT_READ


@pytest.mark.parametrize("broken", ["decide", "reading"])
def test_whatever_goes_wrong_inside_is_a_refusal(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    """Nothing is raised, and the log has the traceback."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oh no")

    if broken == "decide":
        monkeypatch.setattr(guard_module, "decide", fail)
    else:
        stage.show()
        monkeypatch.setattr(Snapshot, "reading", fail)
    decision = stage.guard.decision(PAIR, Side.LONG)
    assert (decision.outcome, decision.factor) == (Outcome.BLOCK, 0)
    assert decision.pair == PAIR
    assert "oh no" in caplog.text


@pytest.mark.parametrize("leverage", [Decimal(0), Decimal("NaN"), None, "3"])
def test_a_leverage_that_is_none_is_a_refusal(leverage: Any) -> None:
    """Borrowed funding divides by it."""
    stage = Stage(entry_funding="borrowed")
    stage.show(BTC_USDT=parsed(long_row()))
    assert stage.guard.decision(PAIR, Side.LONG, leverage).outcome is Outcome.BLOCK


@pytest.mark.parametrize(
    ("section", "outcome"),
    [
        ({}, Outcome.BLOCK),
        ({"without_account": "allow"}, Outcome.BLOCK),
        ({"pairs": {"1000PEPE/USDT:USDT": {"without_account": "block"}}}, Outcome.BLOCK),
        ({"pairs": {"1000PEPE/USDT:USDT": {"margin_level": {"block_below": 1.3}}}}, Outcome.BLOCK),
        ({"pairs": {"ETH/USDT": {"without_account": "allow"}}}, Outcome.BLOCK),
        ({"pairs": {"1000PEPE/USDT:USDT": {"without_account": "allow"}}}, Outcome.ALLOW),
    ],
)
def test_a_pair_without_spot_market_is_let_in_by_its_own_name_only(
    section: dict[str, Any], outcome: Outcome
) -> None:
    """It can have no isolated account, which nobody can look up."""
    stage = Stage(**section)
    pair = "1000PEPE/USDT:USDT"
    stage.monitor._snapshot = Snapshot(stage.now, {pair: NoMarket()}, {})
    assert stage.guard.decision(pair, Side.LONG).outcome is outcome
    assert "no spot market" in stage.guard.decision(pair, Side.LONG).reasons[0]


def test_a_pair_without_spot_market_takes_no_borrowed_entry() -> None:
    """There is no account to place it in."""
    pair = "1000PEPE/USDT:USDT"
    stage = Stage(pairs={pair: {"without_account": "allow", "entry_funding": "borrowed"}})
    stage.monitor._snapshot = Snapshot(stage.now, {pair: NoMarket()}, {})
    assert stage.guard.decision(pair, Side.LONG).outcome is Outcome.BLOCK


# ----- one look, one moment


def test_what_is_read_after_a_look_changes_nothing_in_it(stage: Stage) -> None:
    """A newer account, maybe of a later moment than the look's, neither blocks nor goes missing."""
    stage.show(BTC_USDT=parsed(long_row()))
    look = stage.guard.look()
    stage.pass_by(3)
    stage.show(BTC_USDT=parsed(long_row("1.1")))
    assert look.decision(PAIR, Side.LONG).outcome is Outcome.ALLOW
    assert look.account(PAIR) == parsed(long_row())
    assert stage.guard.decision(PAIR, Side.LONG).outcome is Outcome.BLOCK


def test_a_kept_verdict_is_the_looks_own(stage: Stage) -> None:
    """A newer look's verdict in between is not handed to an older one."""
    stage.show(BTC_USDT=parsed(long_row()))
    earlier = stage.guard.look()
    earlier.decision(PAIR, Side.LONG)
    stage.show(BTC_USDT=parsed(long_row("1.1")))
    later = stage.guard.look()
    for _ in range(2):
        assert later.decision(PAIR, Side.LONG).outcome is Outcome.BLOCK
        assert earlier.decision(PAIR, Side.LONG).outcome is Outcome.ALLOW


@pytest.mark.parametrize("step", [-0.001, -0.9])
def test_a_clock_that_is_set_back_a_little_blocks_nothing(stage: Stage, step: float) -> None:
    """Clocks are corrected by fractions of a second all the time."""
    stage.show(BTC_USDT=parsed(long_row()))
    stage.pass_by(step)
    assert stage.guard.decision(PAIR, Side.LONG).outcome is Outcome.ALLOW
    assert stage.guard.account(PAIR) is not None


def test_room_is_claimed_from_the_account_that_was_judged(stage: Stage) -> None:
    """A read that ends between a verdict and its claim makes no room for a second entry."""
    stage.show(BTC_USDT=parsed(long_row()))
    look = stage.guard.look()
    decision = look.decision(PAIR, Side.LONG)
    assert look.claim(decision)
    stage.pass_by(6)
    stage.show(BTC_USDT=parsed(long_row()))
    assert not look.claim(decision)
    assert stage.guard.claim(decision)


# ----- the account, for strategies


def test_the_account_is_handed_out_while_it_is_fresh(stage: Stage) -> None:
    """The record itself, up to the limit of its age."""
    record = parsed(long_row())
    stage.show(BTC_USDT=record)
    assert stage.guard.account(PAIR) is record
    stage.pass_by(60.5)
    assert stage.guard.account(PAIR) is None


@pytest.mark.parametrize(
    "record", [Absent("none"), Unreadable("broken"), parsed(placeholder()), parsed(row(enabled=False))]
)
def test_what_is_no_account_is_none(stage: Stage, record: Row) -> None:
    """Absent, unreadable, or a placeholder."""
    stage.show(BTC_USDT=record)
    assert stage.guard.account(PAIR) is None


def test_before_the_first_read_there_is_no_account(stage: Stage) -> None:
    """Nor for a pair that was not read."""
    assert stage.guard.account(PAIR) is None
    stage.show(ETH_USDT=parsed(long_row()))
    assert stage.guard.account(PAIR) is None


# ----- waiting for the first read


@pytest.fixture
def moments(monkeypatch: pytest.MonkeyPatch, stage: Stage) -> None:
    """The guard's own clock is the stage's."""
    monkeypatch.setattr(Moment, "now", lambda: stage.now)


@pytest.mark.usefixtures("moments")
def test_the_first_read_is_waited_for_up_to_the_age_limit(stage: Stage) -> None:
    """Then its absence is news like any other."""
    for seconds, waiting in ((0, True), (59, True), (1, True), (0.5, False), (60, False)):
        stage.pass_by(seconds)
        assert stage.guard.is_waiting(stage.guard.decision(PAIR, Side.LONG)) is waiting


@pytest.mark.usefixtures("moments")
def test_each_pair_waits_for_itself(stage: Stage) -> None:
    """A pair that joins later has its own time."""
    stage.guard.is_waiting(stage.guard.decision(PAIR, Side.LONG))
    stage.pass_by(61)
    assert not stage.guard.is_waiting(stage.guard.decision(PAIR, Side.LONG))
    assert stage.guard.is_waiting(stage.guard.decision("ETH/USDT", Side.LONG))


@pytest.mark.usefixtures("moments")
@pytest.mark.parametrize("record", [long_row("1.1"), long_row(), row(status="MARGIN_CALL")])
def test_what_was_read_is_never_waited_for(stage: Stage, record: dict[str, Any]) -> None:
    """A refusal that rests on an account is one."""
    stage.show(BTC_USDT=parsed(record))
    assert not stage.guard.is_waiting(stage.guard.decision(PAIR, Side.LONG))


def test_a_stale_account_is_not_waited_for(stage: Stage) -> None:
    """It was read once."""
    stage.show(BTC_USDT=parsed(long_row()))
    stage.pass_by(1000)
    assert not stage.guard.is_waiting(stage.guard.decision(PAIR, Side.LONG))


# ----- stand-ins, and building


@pytest.mark.parametrize(("outcome", "factor"), [(Outcome.ALLOW, 1), (Outcome.BLOCK, 0)])
def test_a_stand_in_gives_everybody_its_verdict(outcome: Outcome, factor: int) -> None:
    """With its reason, and without an account."""
    judge = StandIn(outcome, "because")
    decision = judge.decision(PAIR, Side.SHORT, Decimal(5))
    assert (decision.outcome, decision.factor, decision.reasons) == (outcome, factor, ("because",))
    assert (decision.pair, decision.side, decision.rule) == (PAIR, Side.SHORT, Rule.OFF)
    assert judge.account(PAIR) is None


ENVIRONMENT = {ENV_KEY: "k", ENV_SECRET: "s"}


def test_the_bots_keys_come_from_what_its_user_wrote() -> None:
    """Freqtrade empties the section that strategies see."""
    written = {"name": "binance", "key": "k", "secret": "s"}
    config = {"exchange": {"name": "binance", "key": None}, "original_config": {"exchange": written}}
    assert exchange_section(config) == written
    found = credentials_of(config, {})
    assert found is not None
    assert (found.key, found.secret) == ("k", "s")


@pytest.mark.parametrize(
    "config", [{}, {"exchange": None}, {"original_config": {}}, {"original_config": None}]
)
def test_a_configuration_without_an_exchange_has_none(config: dict[str, Any]) -> None:
    """And no credentials."""
    assert exchange_section(config) == {}
    assert credentials_of(config, {}) is None


def test_a_guard_is_built_without_starting_anything() -> None:
    """No thread and no network before its start."""
    built = build_guard({"exchange": {"name": "kraken"}}, Settings.load(), ENVIRONMENT)
    assert built.monitor._worker is None
    assert built.decision(PAIR, Side.LONG).rule is Rule.NOT_READ


def test_without_credentials_no_guard_is_built() -> None:
    """The message says all that could be set."""
    with pytest.raises(CredentialsError) as caught:
        build_guard({"exchange": {"name": "kraken", "key": "k", "secret": "s"}}, Settings.load(), {})
    for word in (ENV_KEY, ENV_SECRET, "exchange.key", '"enabled": false'):
        assert word in str(caught.value)


def test_half_a_pair_of_credentials_builds_no_guard() -> None:
    """Not even with the bot's own beside it."""
    config = {"exchange": {"name": "binance", "key": "k", "secret": "s"}}
    with pytest.raises(CredentialsError, match=ENV_SECRET):
        build_guard(config, Settings.load(), {ENV_KEY: "x"})


@pytest.mark.parametrize(
    "section", [{"entry_funding": "borrowed"}, {"pairs": {PAIR: {"entry_funding": "borrowed"}}}]
)
def test_borrowed_entries_are_refused_for_a_futures_bot(section: dict[str, Any]) -> None:
    """For all pairs or for one; for a spot bot they are fine."""
    with pytest.raises(SettingsError, match="futures"):
        build_guard({"trading_mode": "futures"}, Settings.load(section), ENVIRONMENT)
    assert build_guard({"trading_mode": "spot"}, Settings.load(section), ENVIRONMENT).settings.borrows
