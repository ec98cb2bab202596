"""The mixin inside freqtrade's own machinery, with verdicts that a test chooses."""

from __future__ import annotations

import copy
import functools
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest
from freqtrade.enums import RunMode
from freqtrade.exceptions import OperationalException
from freqtrade.resolvers import ProtectionResolver
from freqtrade.strategy import IStrategy
from freqtrade.strategy.strategy_wrapper import strategy_safe_wrapper
from support.strategies import Base, Plain

from freqtrade_isolated_margin import IsolatedMarginMixin
from freqtrade_isolated_margin.account.maths import ONE, Side
from freqtrade_isolated_margin.guard.guard import Guard
from freqtrade_isolated_margin.guard.judge import say_once
from freqtrade_isolated_margin.hosts import selfcheck
from freqtrade_isolated_margin.hosts.selfcheck import WAYS_TO_AN_ORDER, callers_in_freqtrade, check_guarded
from freqtrade_isolated_margin.hosts.starting import start_guard
from freqtrade_isolated_margin.rules.decide import EntryDecision, Outcome, Rule
from freqtrade_isolated_margin.rules.settings import Settings

D = Decimal


class Verdict:
    """A judge with a verdict of the test's choice, which counts how often it is asked."""

    def __init__(
        self, factor: str, max_stake: str | None = None, *, broken: bool = False, waiting: bool = False
    ) -> None:
        self.factor = D(factor)
        self.waiting = waiting
        self.max_stake = None if max_stake is None else D(max_stake)
        self.broken = broken
        self.asked: list[tuple[str, Side, Decimal]] = []

    def look(self) -> Verdict:
        return self

    def decision(self, pair: str, side: Side, leverage: Decimal = ONE) -> EntryDecision:
        self.asked.append((pair, side, leverage))
        if self.broken:
            raise RuntimeError("broken on purpose")
        decision = EntryDecision.because(pair, side, self.factor, Rule.LEVEL, "because")
        return decision._replace(max_stake=self.max_stake)

    def account(self, pair: str) -> None:
        return None

    def claim(self, decision: EntryDecision) -> bool:
        return True

    def is_waiting(self, decision: EntryDecision) -> bool:
        return self.waiting


class WithoutSuper(IsolatedMarginMixin, Base, IStrategy):
    """Overrides everything, and never calls the mixin."""

    def confirm_trade_entry(self, **kwargs: Any) -> bool:
        return True

    def custom_stake_amount(self, **kwargs: Any) -> float:
        return 80.0

    def adjust_trade_position(self, trade: Any, **kwargs: Any) -> Any:
        return trade.wish

    def check_entry_timeout(self, **kwargs: Any) -> bool:
        return False

    def bot_loop_start(self, current_time: datetime, **kwargs: Any) -> None:
        self.looped = current_time


class WithSuper(WithoutSuper):
    """A third floor, all of which calls what is below."""

    def confirm_trade_entry(self, **kwargs: Any) -> bool:
        return super().confirm_trade_entry(**kwargs)

    def custom_stake_amount(self, **kwargs: Any) -> float:
        return super().custom_stake_amount(**kwargs)

    def adjust_trade_position(self, trade: Any, **kwargs: Any) -> Any:
        return super().adjust_trade_position(trade=trade, **kwargs)


class ToTheTop(IsolatedMarginMixin, Base, IStrategy):
    """Calls `super()` up to freqtrade itself."""

    def custom_stake_amount(self, proposed_stake: float, **kwargs: Any) -> float:
        return super().custom_stake_amount(proposed_stake=proposed_stake, **kwargs)


class Foreign:
    """Another package's mixin."""

    def custom_stake_amount(self, **kwargs: Any) -> float:
        return 60.0


class ForeignFirst(Foreign, IsolatedMarginMixin, Base, IStrategy):
    """The other mixin stands before the guard's."""


class Raising(IsolatedMarginMixin, Base, IStrategy):
    """Everything of the user's fails."""

    def confirm_trade_entry(self, **kwargs: Any) -> bool:
        raise ValueError("mine")

    custom_stake_amount = adjust_trade_position = check_entry_timeout = confirm_trade_entry


class Odd(IsolatedMarginMixin, Base, IStrategy):
    """Callbacks that are no plain methods."""

    @staticmethod
    def confirm_trade_entry(**kwargs: Any) -> bool:
        return True

    @classmethod
    def custom_stake_amount(cls, **kwargs: Any) -> float:
        return 80.0


EVERY = [Plain, WithoutSuper, WithSuper, ToTheTop, ForeignFirst, Raising, Odd]


def config(**changes: Any) -> dict[str, Any]:
    """Return as much of a configuration as a strategy looks at."""
    return {"runmode": RunMode.DRY_RUN, "dry_run": True, "exchange": {"name": "binance"}} | changes


def make(cls: type[IsolatedMarginMixin], judge: Verdict | None = None, **changes: Any) -> Any:
    """Return a strategy as the resolver makes it, with `judge` in the place of the guard."""
    strategy = cls(config(**changes))
    if judge:
        strategy._margin_judge = judge
        strategy._margin_told = {}
    return strategy


def confirm(strategy: Any, **changes: Any) -> Any:
    """Ask as `FreqtradeBot.execute_entry` does."""
    call = {
        "pair": "BTC/USDT",
        "order_type": "limit",
        "amount": 2.0,
        "rate": 50.0,
        "time_in_force": "GTC",
        "current_time": datetime.now(UTC),
        "entry_tag": None,
        "side": "long",
    }
    return strategy_safe_wrapper(strategy.confirm_trade_entry, default_retval=True)(**(call | changes))


def stake(strategy: Any, **changes: Any) -> Any:
    """Ask as `FreqtradeBot.get_valid_enter_price_and_stake` does."""
    call = {
        "pair": "BTC/USDT",
        "current_time": datetime.now(UTC),
        "current_rate": 50.0,
        "proposed_stake": 100.0,
        "min_stake": 5.0,
        "max_stake": 1000.0,
        "leverage": 1.0,
        "entry_tag": None,
        "side": "long",
    }
    return strategy_safe_wrapper(strategy.custom_stake_amount, default_retval=100.0)(**(call | changes))


def adjust(strategy: Any, wish: Any, **changes: Any) -> Any:
    """Ask as `FreqtradeBot.check_and_call_adjust_trade_position` does."""
    trade = SimpleNamespace(pair="BTC/USDT", wish=wish, leverage=1.0, trade_direction="long")
    call = {
        "current_time": datetime.now(UTC),
        "current_rate": 50.0,
        "current_profit": 0.0,
        "min_stake": 5.0,
        "max_stake": 1000.0,
        "current_entry_rate": 50.0,
        "current_exit_rate": 50.0,
        "current_entry_profit": 0.0,
        "current_exit_profit": 0.0,
    }
    return strategy._adjust_trade_position_internal(trade=trade, **(call | changes))


def timed_out(strategy: Any) -> bool:
    """Ask as freqtrade does in each loop, for an open entry order."""
    trade = SimpleNamespace(
        pair="BTC/USDT", entry_side="buy", exit_side="sell", trade_direction="long", leverage=1.0
    )
    order = SimpleNamespace(ft_order_side="buy", status="open", order_date_utc=datetime.now(UTC))
    return bool(strategy.ft_check_timed_out(trade, order, datetime.now(UTC)))


@pytest.mark.parametrize("cls", EVERY)
def test_a_blocked_pair_is_vetoed_whatever_the_strategy_overrides(cls: type) -> None:
    """Overrides with and without super(), foreign mixins, raising and odd callbacks are all guarded."""
    strategy = make(cls, Verdict("0"))
    assert confirm(strategy) is False
    assert stake(strategy) == 0.0
    assert timed_out(strategy) is True


@pytest.mark.parametrize(
    ("cls", "own"),
    [(Plain, 100), (WithoutSuper, 80), (WithSuper, 80), (ToTheTop, 100), (ForeignFirst, 60), (Raising, 100)],
)
def test_a_stake_is_shrunk_once(cls: type, own: float) -> None:
    """Whatever chain of super() runs, the strategy's own stake is multiplied with the factor once."""
    judge = Verdict("0.5")
    assert stake(make(cls, judge)) == own / 2
    assert len(judge.asked) == 1


@pytest.mark.parametrize("cls", [WithoutSuper, WithSuper])
def test_an_increase_is_shrunk_once(cls: type) -> None:
    """A position increase is multiplied with the factor once as well."""
    assert adjust(make(cls, Verdict("0.5")), 60.0) == (30.0, "")


# ----- an entry order that is replaced


class Repricing(IsolatedMarginMixin, Base, IStrategy):
    """Follows the price with its entry orders."""

    def adjust_entry_price(self, **kwargs: Any) -> Any:
        return 51.0


class RepricingBoth(IsolatedMarginMixin, Base, IStrategy):
    """Follows the price with all its orders."""

    def adjust_order_price(self, **kwargs: Any) -> Any:
        return 51.0


class RepricingBelow(RepricingBoth):
    """A second floor, which asks the first."""

    def adjust_order_price(self, **kwargs: Any) -> Any:
        return super().adjust_order_price(**kwargs)


def reprice(strategy: Any, *, remaining: float = 2.0, leverage: float = 1.0, is_entry: bool = True) -> Any:
    """Ask as `FreqtradeBot.replace_order` does, of an order that was placed at 50."""
    order = SimpleNamespace(safe_remaining=remaining, safe_price=50.0)
    trade = SimpleNamespace(pair="BTC/USDT", trade_direction="long", leverage=leverage)
    return strategy_safe_wrapper(strategy.adjust_order_price, default_retval=50.0)(
        trade=trade,
        order=order,
        pair="BTC/USDT",
        current_time=datetime.now(UTC),
        proposed_rate=52.0,
        current_order_rate=50.0,
        entry_tag=None,
        side="long",
        is_entry=is_entry,
    )


REPRICING = [Repricing, RepricingBoth, RepricingBelow]


@pytest.mark.parametrize("cls", REPRICING)
def test_an_allowed_order_is_replaced(cls: type) -> None:
    """At the price that the strategy wants; the guard is asked once."""
    judge = Verdict("1")
    assert reprice(make(cls, judge)) == 51.0
    assert len(judge.asked) == 1


@pytest.mark.parametrize("cls", REPRICING)
def test_while_there_is_no_verdict_an_order_stays_as_it_is(cls: type) -> None:
    """Neither cancelled nor placed anew: freqtrade keeps an order whose price does not change."""
    assert reprice(make(cls, Verdict("0", waiting=True))) == 50.0


@pytest.mark.parametrize("cls", REPRICING)
@pytest.mark.parametrize("judge", [Verdict("0"), Verdict("1", broken=True)])
def test_an_order_into_a_blocked_pair_is_cancelled_and_not_replaced(cls: type, judge: Verdict) -> None:
    """Freqtrade cancels for None; an error of the guard comes to the same."""
    assert reprice(make(cls, judge)) is None


@pytest.mark.parametrize(
    ("factor", "max_stake", "remaining", "leverage", "replaced"),
    [
        ("0.5", None, 2.0, 1.0, False),  # 100, all of what was wanted
        ("0.5", None, 1.0, 1.0, True),  # 50: it was cut when it was placed
        ("0.5", None, 1.01, 1.0, False),
        ("0.5", None, 3.0, 3.0, True),  # the stake, not the position
        ("0.4", None, 1.0, 1.0, False),  # less is allowed now than then
        ("1", "49", 1.0, 1.0, False),
        ("1", "50", 1.0, 1.0, True),
    ],
)
def test_what_is_placed_anew_is_worth_no_more_than_is_allowed_now(
    factor: str, max_stake: str | None, remaining: float, leverage: float, replaced: bool
) -> None:
    """Of the stake that the strategy had wanted, 100; else the order is cancelled."""
    strategy = make(Repricing, Verdict("1"))
    assert stake(strategy) == 100.0
    strategy._margin_judge = Verdict(factor, max_stake)
    assert reprice(strategy, remaining=remaining, leverage=leverage) == (51.0 if replaced else None)


def test_an_order_of_an_earlier_run_is_not_replaced_where_entries_are_shrunk() -> None:
    """What its strategy had wanted is not known any more: it may have been placed in full."""
    assert reprice(make(Repricing, Verdict("0.5")), remaining=0.1) is None
    assert reprice(make(Repricing, Verdict("1"))) == 51.0


def test_a_replacement_uses_the_room_up_like_an_entry() -> None:
    """With borrowed funding a reading is good for one order."""
    judge = Verdict("1", "1000")
    judge.claim = lambda _decision: False  # type: ignore[method-assign]
    assert reprice(make(Repricing, judge)) is None


@pytest.mark.parametrize("price", [None, 0.0, 50.0])
@pytest.mark.parametrize("factor", ["0", "0.5", "1"])
def test_an_order_that_is_not_replaced_is_the_strategys_own_affair(price: Any, factor: str) -> None:
    """It may cancel or keep its order, and the guard is not asked."""

    class Own(IsolatedMarginMixin, Base, IStrategy):
        def adjust_entry_price(self, **kwargs: Any) -> Any:
            return price

    judge = Verdict(factor)
    assert reprice(make(Own, judge)) == price
    assert judge.asked == []


@pytest.mark.parametrize("judge", [Verdict("0"), Verdict("0", waiting=True), Verdict("1", broken=True)])
def test_an_exit_order_is_replaced_whatever_the_account(judge: Verdict) -> None:
    """Exits are never hindered."""
    assert reprice(make(RepricingBoth, judge), is_entry=False) == 51.0


def test_a_price_that_cannot_be_made_keeps_the_order() -> None:
    """As freqtrade does where a strategy's own callback raises."""

    class Raises(IsolatedMarginMixin, Base, IStrategy):
        def adjust_entry_price(self, **kwargs: Any) -> Any:
            raise ValueError("mine")

    assert reprice(make(Raises, Verdict("1"))) == 50.0


def test_a_strategy_that_follows_no_price_is_not_made_to() -> None:
    """Freqtrade refuses a strategy that overrides both ways, so nothing is overridden for it."""
    for name in ("adjust_order_price", "adjust_entry_price", "adjust_exit_price"):
        assert getattr(Plain, name) is getattr(IStrategy, name)
    assert RepricingBoth.adjust_entry_price is IStrategy.adjust_entry_price
    assert Repricing.adjust_order_price is IStrategy.adjust_order_price


def test_a_price_callback_assigned_while_running_is_taken_back() -> None:
    """It would be a way past the guard."""

    class Late(IsolatedMarginMixin, Base, IStrategy):
        def bot_loop_start(self, **kwargs: Any) -> None:
            self.adjust_entry_price = lambda **_: 51.0

    strategy = make(Late, Verdict("0"))
    strategy.bot_loop_start(current_time=NOON)
    assert reprice(strategy) == 50.0


@pytest.mark.parametrize("cls", EVERY)
def test_an_allowed_pair_is_left_alone(cls: type) -> None:
    """With a factor of 1 the strategy runs as it would without the guard."""
    strategy = make(cls, Verdict("1"))
    assert confirm(strategy)
    assert stake(strategy) in (100.0, 80.0, 60.0)
    assert timed_out(strategy) is False


def test_what_a_strategy_refuses_stays_refused() -> None:
    """The guard never turns a strategy's own no into a yes."""

    class Refusing(IsolatedMarginMixin, Base, IStrategy):
        def confirm_trade_entry(self, **kwargs: Any) -> bool:
            return False

        def check_entry_timeout(self, **kwargs: Any) -> bool:
            return True

    strategy = make(Refusing, Verdict("1"))
    assert confirm(strategy) is False
    assert timed_out(strategy) is True


@pytest.mark.parametrize("wish", [-10.0, (-10.0, "take profit"), None, 0.0, (None, "x"), ()])
def test_decreases_pass_untouched(wish: Any) -> None:
    """A position decrease, or no change, does not even ask the guard, blocked and broken as it may be."""
    judge = Verdict("0", broken=True)
    answer = make(WithoutSuper, judge).adjust_trade_position(trade=SimpleNamespace(wish=wish))
    assert answer == wish
    assert judge.asked == []


def test_an_increase_keeps_its_tag() -> None:
    """The order tag that a strategy returns with an increase stays with what is left of it."""
    assert adjust(make(WithoutSuper, Verdict("0.5")), (60.0, "dca 1")) == (30.0, "dca 1")


@pytest.mark.parametrize("wish", [60.0, (60.0, "dca 1")])
def test_a_refused_increase_is_no_order(wish: Any) -> None:
    """An increase into a blocked pair becomes no adjustment at all."""
    amount, _tag = adjust(make(WithoutSuper, Verdict("0")), wish)
    assert not amount


@pytest.mark.parametrize(
    ("factor", "own", "max_stake", "left"),
    [
        ("0.5", 100.0, 1000.0, 50.0),
        ("0.5", 100.0, 60.0, 30.0),  # a factor of what is available, not of what was wished for
        ("0.5", float("inf"), 60.0, 30.0),
        ("0.5", float("nan"), 60.0, 0.0),
        ("1", float("nan"), 60.0, 0.0),
        ("0.5", float("inf"), float("inf"), 0.0),
        ("0.5", 9.99, 1000.0, 0.0),  # below the minimum of 5, and not nudged up to it
        ("0.5", 10.0, 1000.0, 5.0),
        ("1", 3.0, 1000.0, 3.0),  # freqtrade's own affair
        ("1", 5000.0, 1000.0, 5000.0),
        ("0.5", None, 1000.0, None),  # freqtrade's own affair too
        ("0.5", "100", 1000.0, 0.0),  # freqtrade takes a text for no stake
        ("0.5", np.float32(100), 1000.0, 50.0),
        ("0.5", np.int64(100), 1000.0, 50.0),
        ("0.5", D(100), 1000.0, 50.0),
        ("0.5", -1.0, 1000.0, 0.0),
    ],
)
def test_the_arithmetic_of_a_stake(factor: str, own: Any, max_stake: float, left: float) -> None:
    """A stake becomes min(own, max_stake) × factor; what is not finite or below the minimum becomes 0."""

    class Own(IsolatedMarginMixin, Base, IStrategy):
        def custom_stake_amount(self, **kwargs: Any) -> Any:
            return own

    assert stake(make(Own, Verdict(factor)), max_stake=max_stake) == left


class Wishing(IsolatedMarginMixin, Base, IStrategy):
    """Wants what a test says."""

    wish: Any = 100.0

    def custom_stake_amount(self, **kwargs: Any) -> Any:
        return self.wish

    def adjust_trade_position(self, **kwargs: Any) -> Any:
        return self.wish


@pytest.mark.parametrize("factor", ["0", "0.5", "1"])
@pytest.mark.parametrize("max_stake", [None, "0.5", "70"])
@pytest.mark.parametrize("wish", [100.0, 6.0, None, 0.0, "100", float("nan"), np.float64("nan")])
def test_a_line_of_the_log_says_what_the_verdict_was(
    caplog: pytest.LogCaptureFixture, factor: str, max_stake: str | None, wish: Any
) -> None:
    """No line refuses and says "allow", or blames the guard for what the strategy made impossible."""
    caplog.set_level("INFO")
    judge = Verdict(factor, max_stake)
    strategy = make(Wishing, judge)
    strategy.wish = wish
    for claims in (True, False):
        judge.claim = lambda _decision, claims=claims: claims  # type: ignore[method-assign]
        stake(strategy)
        adjust(strategy, None)
        confirm(strategy)
        timed_out(strategy)
    lines = [record.message for record in caplog.records]
    for line in lines:
        assert "BTC/USDT long: " in line or line.startswith("The unfilled entry order of BTC/USDT is")
        assert ": allow" not in line
        if line.startswith("No entry: "):
            assert "the strategy's " in line
            assert "returned" in line
        if ": block" in line:
            assert factor == "0"
        if "Stake cut" in line:
            assert ": shrink × 0.5" in line or max_stake
    if wish == "100" or wish != wish:  # noqa: PLR0124 - not a number
        assert any("custom_stake_amount returned" in line for line in lines)
    elif factor == "0":
        assert any(line.startswith("Entry refused: BTC/USDT long: block") for line in lines)


def test_the_projection_caps_after_the_factor() -> None:
    """With borrowed funding the shrunk stake is cut further to the decision's largest stake, never above."""
    assert stake(make(Plain, Verdict("0.5", "70"))) == 50.0
    capped = stake(make(Plain, Verdict("0.5", "33.33333333")))
    assert D(capped) <= D("33.33333333")
    assert capped == pytest.approx(33.33333333)
    assert stake(make(Plain, Verdict("1", "33"))) == 33.0


def test_an_order_above_the_largest_safe_stake_is_vetoed() -> None:
    """What freqtrade or a strategy made of a capped stake is looked at again before the order."""
    assert confirm(make(Plain, Verdict("1", "100")), amount=2.0, rate=50.0)
    assert not confirm(make(Plain, Verdict("1", "99")), amount=2.0, rate=50.0)


def test_the_leverage_of_the_entry_reaches_the_decision() -> None:
    """The projection is made for stake × leverage."""
    judge = Verdict("1")
    stake(make(Plain, judge), leverage=3.0)
    assert judge.asked == [("BTC/USDT", Side.LONG, D("3.0"))]


@pytest.mark.parametrize("cls", EVERY)
def test_a_failing_guard_refuses_and_does_not_raise(cls: type) -> None:
    """An error inside the guard is a refusal in every callback: freqtrade would place the trade."""
    strategy = make(cls, Verdict("1", broken=True))
    assert strategy.confirm_trade_entry(pair="BTC/USDT", side="long", amount=1, rate=1) is False
    assert stake(strategy) == 0.0
    assert timed_out(strategy) is True


def test_a_failing_guard_refuses_an_increase() -> None:
    """The same for position increases."""
    assert adjust(make(WithoutSuper, Verdict("1", broken=True)), 60.0) == (None, "")


def test_a_callback_that_raises_is_treated_as_freqtrade_would() -> None:
    """Where a user's callback raises, the proposed stake and a confirmation stand, and are then judged."""
    strategy = make(Raising, Verdict("0.25"))
    assert stake(strategy) == 25.0
    assert confirm(strategy) is True
    assert adjust(strategy, 60.0) == (None, "")
    assert timed_out(strategy) is False


def test_positional_arguments_are_understood() -> None:
    """A strategy that calls its own callback by position is guarded too."""
    strategy = make(Plain, Verdict("0"))
    answer = strategy.confirm_trade_entry(
        "BTC/USDT", "limit", 1.0, 1.0, "GTC", datetime.now(UTC), None, "long"
    )
    assert answer is False


@pytest.mark.parametrize("runmode", [RunMode.DRY_RUN, RunMode.LIVE])
def test_a_guard_that_was_never_started_refuses(runmode: RunMode) -> None:
    """A strategy that trades without its start hook having run, as when it was overridden, enters nothing."""
    strategy = make(WithoutSuper, runmode=runmode)
    assert confirm(strategy) is False
    assert stake(strategy) == 0.0
    assert "not started" in str(strategy.margin_decision("BTC/USDT"))


@pytest.mark.parametrize("runmode", [RunMode.BACKTEST, RunMode.HYPEROPT, RunMode.PLOT, RunMode.OTHER])
def test_outside_of_trading_it_stands_down(runmode: RunMode) -> None:
    """In backtesting, hyperopt and the analyses a strategy runs as without the mixin."""
    strategy = make(WithoutSuper, runmode=runmode)
    strategy.ft_bot_start()
    assert confirm(strategy) is True
    assert stake(strategy) == 80.0
    assert adjust(strategy, 60.0) == (60.0, "")
    assert timed_out(strategy) is False
    assert strategy.margin_account("BTC/USDT") is None
    assert strategy.margin_decision("BTC/USDT", "short").outcome is Outcome.ALLOW
    strategy.ft_bot_cleanup()


def test_it_can_be_switched_off() -> None:
    """With "enabled": false nothing is guarded, and no key is needed."""
    strategy = make(WithoutSuper, isolated_margin={"enabled": False})
    strategy.ft_bot_start()
    assert confirm(strategy) is True
    assert stake(strategy) == 80.0


@pytest.mark.parametrize(
    ("section", "attribute", "named"),
    [
        ({"refresh_secs": 5}, {}, "refresh_secs"),
        ({}, {"margin_level": {"block_bellow": 1.3}}, "block_bellow"),
        ({"margin_level": {"block_below": 3}}, {}, "block_below"),
        ({"entry_funding": "loan"}, {}, "entry_funding"),
    ],
)
@pytest.mark.parametrize("runmode", [RunMode.DRY_RUN, RunMode.BACKTEST])
def test_an_impossible_setting_stops_the_start(
    section: dict[str, Any], attribute: dict[str, Any], named: str, runmode: RunMode
) -> None:
    """A misspelt or impossible setting, in the section or the attribute, stops every kind of start."""
    strategy = make(Plain, isolated_margin=section, runmode=runmode)
    strategy.isolated_margin = attribute
    with pytest.raises(OperationalException, match=named):
        strategy.ft_bot_start()


def test_a_dry_run_without_credentials_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any key the start fails, and the message says what to set."""
    for name in ("ISOLATED_MARGIN_API_KEY", "ISOLATED_MARGIN_API_SECRET"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OperationalException, match=r"ISOLATED_MARGIN_API_KEY.*ISOLATED_MARGIN_API_SECRET"):
        make(Plain).ft_bot_start()


def test_borrowed_funding_is_refused_for_a_futures_bot() -> None:
    """A futures bot's orders cannot be placed in a margin account."""
    section = {"pairs": {"BTC/USDT": {"entry_funding": "borrowed"}}}
    strategy = make(Plain, trading_mode="futures", isolated_margin=section)
    with pytest.raises(OperationalException, match="entry_funding"):
        strategy.ft_bot_start()


def test_rules_for_an_unknown_pair_stop_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt pair among the rules would leave the meant one on looser rules, so it is refused."""
    monkeypatch.setenv("ISOLATED_MARGIN_API_KEY", "k" * 64)
    monkeypatch.setenv("ISOLATED_MARGIN_API_SECRET", "s" * 64)
    strategy = make(Plain, isolated_margin={"pairs": {"BTC/USTD": {"without_account": "block"}}})
    strategy.dp = SimpleNamespace(_exchange=SimpleNamespace(markets={"BTC/USDT": {}}))
    with pytest.raises(OperationalException, match="BTC/USTD"):
        strategy.ft_bot_start()


def test_a_callback_replaced_on_the_instance_stops_the_start() -> None:
    """An assignment would bypass the wrapper, so the start-up check refuses it."""
    strategy = make(Plain)
    strategy.confirm_trade_entry = lambda **_kwargs: True
    with pytest.raises(OperationalException, match="confirm_trade_entry was replaced"):
        check_guarded(strategy)


def test_a_callback_replaced_on_the_class_stops_the_start() -> None:
    """The same for an assignment to the class after it was made."""

    class Patched(IsolatedMarginMixin, Base, IStrategy):
        pass

    Patched.custom_stake_amount = lambda *_args, **_kwargs: 1000.0
    with pytest.raises(OperationalException, match="custom_stake_amount was replaced"):
        check_guarded(make(Patched))


def timed(callback: Any) -> Any:
    """Decorate as a logging or timing decorator would."""

    @functools.wraps(callback)
    def run(*args: Any, **kwargs: Any) -> Any:
        return callback(*args, **kwargs)

    return run


def test_a_decorator_around_a_finished_callback_stops_the_start() -> None:
    """`functools.wraps` copies every mark of the wrapper that it hides, and must not pass for it."""

    class Decorated(IsolatedMarginMixin, Base, IStrategy):
        pass

    Decorated.confirm_trade_entry = timed(Decorated.confirm_trade_entry)
    with pytest.raises(OperationalException, match="confirm_trade_entry was replaced"):
        check_guarded(make(Decorated))


def test_a_callback_that_only_looks_guarded_stops_the_start() -> None:
    """What counts is the callback that freqtrade gets, not the one that stands in the class."""

    class Sly(IsolatedMarginMixin, Base, IStrategy):
        def __getattribute__(self, name: str) -> Any:
            return (lambda **_: True) if name == "confirm_trade_entry" else super().__getattribute__(name)

    with pytest.raises(OperationalException, match="confirm_trade_entry was replaced"):
        check_guarded(make(Sly))


def test_a_callback_assigned_while_running_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A strategy that assigns a callback in `bot_loop_start` is guarded again before any entry."""

    class Late(IsolatedMarginMixin, Base, IStrategy):
        def bot_loop_start(self, **kwargs: Any) -> None:
            self.confirm_trade_entry = lambda **_: True

    strategy = make(Late, Verdict("0"))
    strategy.bot_loop_start(current_time=NOON)
    assert confirm(strategy) is False


@pytest.mark.parametrize("odd", [pd.NA, pd.Series([True, False]), np.array([1, 2])])
def test_an_answer_without_a_truth_value_is_a_refusal(odd: Any) -> None:
    """What cannot be asked for its truth raises, and freqtrade would place the trade."""

    class Vague(IsolatedMarginMixin, Base, IStrategy):
        def confirm_trade_entry(self, **kwargs: Any) -> Any:
            return odd

        check_entry_timeout = confirm_trade_entry

    for factor in ("0", "1"):
        assert confirm(make(Vague, Verdict(factor))) is False
        assert timed_out(make(Vague, Verdict(factor))) is True


def test_a_callback_that_cannot_be_bound_is_judged_without_it() -> None:
    """A descriptor that raises is treated as a callback that raises: the guard decides."""

    class Unbound(IsolatedMarginMixin, Base, IStrategy):
        @property
        def confirm_trade_entry(self) -> Any:
            raise RuntimeError("broken on purpose")

    assert confirm(make(Unbound, Verdict("0"))) is False
    assert confirm(make(Unbound, Verdict("1"))) is True


def test_a_callback_that_asks_another_is_judged_once() -> None:
    """A strategy that takes its increase from its own `custom_stake_amount` is not shrunk twice."""

    class Reusing(WithoutSuper):
        def adjust_trade_position(self, **kwargs: Any) -> float:
            return self.custom_stake_amount()

    assert adjust(make(Reusing, Verdict("0.5")), None) == (40.0, "")


def test_a_borrowed_entry_uses_the_room_up_until_the_next_read() -> None:
    """What a reading allows to borrow is allowed once, however often freqtrade asks."""
    judge = Verdict("1", "70")
    strategy = make(WithoutSuper, judge)
    assert stake(strategy) == 70.0
    judge.claim = lambda _decision: False
    assert stake(strategy) == 0.0
    assert adjust(strategy, 60.0) == (None, "")


def test_an_unknown_freqtrade_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A freqtrade that no more calls a callback where it is known to is refused."""

    def execute_entry() -> None:
        """Place an order and ask nobody."""

    callers = selfcheck._callers() | {"confirm_trade_entry": execute_entry}
    monkeypatch.setattr(selfcheck, "_callers", lambda: callers)
    with pytest.raises(OperationalException, match=r"confirm_trade_entry no more in .*execute_entry"):
        check_guarded(make(Plain))


def test_a_freqtrade_with_other_arguments_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A callback that lacks an argument which the guard takes is refused."""
    monkeypatch.setitem(selfcheck.PARAMETERS, "custom_stake_amount", ["pair", "side"])
    with pytest.raises(OperationalException, match="without leverage, max_stake"):
        check_guarded(make(Plain))


@pytest.mark.parametrize("way", list(WAYS_TO_AN_ORDER))
def test_a_freqtrade_with_another_way_to_an_order_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """A caller that the guard does not know may ask no callback at all."""
    new = callers_in_freqtrade() | {way: {*WAYS_TO_AN_ORDER[way], "freqtradebot.FreqtradeBot.snipe"}}
    monkeypatch.setattr(selfcheck, "callers_in_freqtrade", lambda: new)
    with pytest.raises(OperationalException, match=rf"{way} in freqtradebot\.FreqtradeBot\.snipe"):
        check_guarded(make(Plain))


def test_every_listed_way_to_an_order_is_in_this_freqtrade() -> None:
    """A list with ways that do not exist would not be one of this freqtrade."""
    assert callers_in_freqtrade() == {name: set(known) for name, known in WAYS_TO_AN_ORDER.items()}


def test_this_freqtrade_is_known() -> None:
    """The installed freqtrade passes the start-up check, for every kind of strategy."""
    for cls in [*EVERY, *REPRICING]:
        check_guarded(make(cls))


class Protected(IsolatedMarginMixin, Base, IStrategy):
    """With protections in a property, one of them the guard's."""

    @property
    def protections(self) -> list[dict[str, Any]]:
        return [{"method": "CooldownPeriod", "stop_duration": 5}, {"method": "MarginLevelGuard"}]


def test_the_own_protections_are_kept() -> None:
    """A strategy's protections, list or property, reach freqtrade unchanged."""
    assert [p["method"] for p in make(Protected).protections] == ["CooldownPeriod", "MarginLevelGuard"]
    assert make(Plain).protections == []


def protection(judge: Verdict, **settings: Any) -> Any:
    """Return the protection as freqtrade's resolver loads it."""
    strategy = make(Protected, judge)
    strategy.config["timeframe"] = "5m"
    assert strategy.protections
    loaded = ProtectionResolver.load_protection(
        "MarginLevelGuard", strategy.config, {"method": "MarginLevelGuard"} | settings
    )
    loaded.keeps_alive = strategy
    return loaded


NOON = datetime(2026, 11, 22, 12, 1, tzinfo=UTC)


def test_the_protection_locks_a_blocked_pair() -> None:
    """`MarginLevelGuard` takes the mixin's decision; its lock names pair and rule."""
    lock = protection(Verdict("0")).stop_per_pair("BTC/USDT", NOON, "long", 1000.0)
    assert (lock.lock, lock.lock_side) == (True, "*")
    assert lock.reason == "MarginLevelGuard: BTC/USDT margin_level"


@pytest.mark.parametrize("factor", ["0.5", "1"])
def test_the_protection_leaves_other_pairs(factor: str) -> None:
    """A pair whose entries are only shrunk, or allowed, is not locked."""
    assert protection(Verdict(factor)).stop_per_pair("BTC/USDT", NOON, "long", 1000.0) is None


@pytest.mark.parametrize(
    ("settings", "until"),
    [
        ({}, NOON),  # freqtrade rounds it up to the next candle
        ({"stop_duration": 30}, NOON.replace(minute=31)),
        ({"stop_duration_candles": 2}, NOON.replace(minute=11)),
        ({"unlock_at": "13:00"}, NOON.replace(hour=13, minute=0)),
    ],
)
def test_how_long_the_protection_locks(settings: dict[str, Any], until: datetime) -> None:
    """Without a duration to the next candle, with one to its end."""
    lock = protection(Verdict("0"), **settings).stop_per_pair("BTC/USDT", NOON, "long", 1000.0)
    assert lock.until == until


def test_the_protection_refuses_a_misspelt_setting() -> None:
    """A setting that it does not have stops the start with its name."""
    with pytest.raises(OperationalException, match="stop_duratoin"):
        protection(Verdict("0"), stop_duratoin=5)


def test_the_protection_never_raises() -> None:
    """An exception in a protection would end the bot."""
    assert protection(Verdict("0", broken=True)).stop_per_pair("BTC/USDT", NOON, "long", 1000.0) is None


def test_freqtrade_finds_its_own_protections_as_before() -> None:
    """Making one more protection loadable takes nothing away."""
    strategy = make(Protected)
    strategy.config["timeframe"] = "5m"
    assert strategy.protections
    loaded = ProtectionResolver.load_protection(
        "CooldownPeriod", strategy.config, {"method": "CooldownPeriod", "stop_duration": 5}
    )
    assert loaded.name == "CooldownPeriod"


def test_a_strategy_can_be_copied_and_pickled() -> None:
    """Hyperopt pickles strategies, the analyses copy them."""
    strategy = make(WithoutSuper, runmode=RunMode.HYPEROPT)
    strategy.ft_bot_start()
    assert stake(cloudpickle.loads(cloudpickle.dumps(strategy))) == 80.0
    assert stake(copy.deepcopy(strategy)) == 80.0


def test_the_users_loop_start_runs_and_may_raise() -> None:
    """The strategy's own `bot_loop_start` is called with freqtrade's time, guarded or not."""
    strategy = make(WithoutSuper, Verdict("0"))
    strategy.bot_loop_start(current_time=NOON)
    assert strategy.looped == NOON


@pytest.mark.parametrize("charts", [True, False])
def test_columns_that_no_candles_are_kept_for_are_told_of_once(
    charts: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where charts are off, a strategy that computes with the columns reads in its log why they are NaN."""
    say_once.cache_clear()
    monkeypatch.setenv("ISOLATED_MARGIN_API_KEY", "k" * 64)
    monkeypatch.setenv("ISOLATED_MARGIN_API_SECRET", "s" * 64)
    settings = Settings.load({"charts": charts, "history": {"enabled": False}})
    strategy = make(Plain)
    strategy.dp = SimpleNamespace(_exchange=None, current_whitelist=list)
    # Started but for its thread, which would begin to read.
    monkeypatch.setattr(Guard, "start", lambda *_: None)
    start_guard(strategy, settings)
    candles = pd.DataFrame({"date": pd.date_range("2026-01-01", periods=3, freq="min", tz="UTC")})
    with caplog.at_level("INFO"):
        for _ in range(2):
            assert strategy.margin_columns(candles, "BTC/USDT").isna().all(axis=None)
    told = [line for line in caplog.messages if "margin columns" in line]
    assert told == [] if charts else [line.count('{"charts": false}') for line in told] == [1]


def test_the_clean_up_never_raises() -> None:
    """An error while the reading is stopped must not keep freqtrade from shutting down."""
    strategy = make(Plain)

    class Stuck(Guard):
        def __init__(self) -> None:
            pass

        def stop(self) -> None:
            raise RuntimeError("broken on purpose")

    strategy._margin_judge = Stuck()
    strategy.ft_bot_cleanup()
