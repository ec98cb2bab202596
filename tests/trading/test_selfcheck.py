"""The exchange class starts only with a freqtrade that has, and calls, what it overrides."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from freqtrade.exceptions import OperationalException
from freqtrade.exchange import Exchange
from freqtrade.exchange.binance import Binance
from freqtrade.freqtradebot import FreqtradeBot

from freqtrade_isolated_margin.trading.exchange import MarginExchange
from freqtrade_isolated_margin.trading.selfcheck import _overridden, check_overrides


def test_the_installed_freqtrade_fits() -> None:
    """Nothing is wrong with the one that the tests run with."""
    check_overrides(MarginExchange, trades=True)


def test_every_override_is_checked() -> None:
    """What the class has of Binance's own is looked at, constants and its constructor excepted."""
    assert {"create_order", "_ccxt_config", "get_liquidation_price", "market_is_future"} <= set(
        _overridden(MarginExchange)
    )


@pytest.mark.parametrize("name", sorted(set(_overridden(MarginExchange)) - {"_ccxt_config"}))
def test_an_unknown_argument_ends_the_start(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A freqtrade that hands over something else is not traded with."""

    def other(self: object, something_new: object) -> None: ...

    monkeypatch.setattr(Binance, name, other)
    with pytest.raises(OperationalException, match=f"This freqtrade's {name} is not the one"):
        check_overrides(MarginExchange, trades=True)


def test_a_method_that_is_gone_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """An override of what freqtrade has no more would never be called."""
    monkeypatch.delattr(Exchange, "calculate_funding_fees")
    with pytest.raises(OperationalException, match="calculate_funding_fees is not the one"):
        check_overrides(MarginExchange, trades=False)


@pytest.mark.parametrize(
    ("owner", "caller", "name"),
    [
        (FreqtradeBot, "execute_entry", "create_order"),
        (FreqtradeBot, "execute_trade_exit", "create_order"),
        (FreqtradeBot, "process", "reload_markets"),
        (Exchange, "market_is_tradable", "market_is_future"),
    ],
)
def test_a_caller_that_goes_another_way_ends_the_start(
    owner: type, caller: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A freqtrade whose entries pass the override by is not traded with."""
    another: Callable[..., None] = lambda *_: None  # noqa: E731 - what has no name calls nothing
    monkeypatch.setattr(owner, caller, another)
    with pytest.raises(OperationalException, match=f"This freqtrade's {name} is not the one"):
        check_overrides(MarginExchange, trades=True)
