"""What the exchange tells for trading, its terms, charges and prices, and what comes of wrong answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from support.builders import redirected

from freqtrade_isolated_margin.binance.adapter import IsolatedMarginAdapter
from freqtrade_isolated_margin.binance.credentials import Credentials
from freqtrade_isolated_margin.errors import AnswerError, IsolatedMarginError, UnavailableError
from freqtrade_isolated_margin.localexchange import AccountSpec, Fault, LocalExchange
from freqtrade_isolated_margin.rules.settings import TradingSettings
from freqtrade_isolated_margin.trading.loans import Rates
from freqtrade_isolated_margin.trading.terms import ExchangeTerms, TermsBook, set_terms

D = Decimal
SETTINGS = TradingSettings(enabled=True)
DATA = "/sapi/v1/margin/isolatedMarginData"
INTEREST = "/sapi/v1/margin/interestHistory"
PRICE = "/api/v3/ticker/price"


@pytest.fixture
def adapter(exchange: LocalExchange) -> Iterator[IsolatedMarginAdapter]:
    """An adapter for the local exchange, with its markets."""
    credentials = Credentials(exchange.key, exchange.secret, "test")
    made = IsolatedMarginAdapter(credentials, exchange=redirected(exchange.url))
    made.load_markets()
    yield made
    made.close()


def test_terms_are_those_of_the_exchange(adapter: IsolatedMarginAdapter) -> None:
    """All tiers, and the daily rates of both currencies."""
    terms = ExchangeTerms(lambda: adapter)("SOL/USDT")
    assert [tier.effective_multiple for tier in terms.tiers] == [
        D(x) for x in ("5", "4.2", "3.66", "3.28", "3")
    ]
    assert terms.rates == Rates(D("0.00024"), D("0.00024"))


def test_terms_are_asked_for_once_a_day(adapter: IsolatedMarginAdapter, exchange: LocalExchange) -> None:
    """Whoever asks again is told what is known."""
    book = TermsBook(SETTINGS, ExchangeTerms(lambda: adapter))
    before = len(exchange.requests)
    assert book.of("SOL/USDT") is book.of("SOL/USDT")
    assert len(exchange.requests) - before == 2


@pytest.mark.parametrize("may_assume", [True, False])
def test_a_dry_run_goes_on_by_the_settings_and_a_live_bot_does_not(
    adapter: IsolatedMarginAdapter, exchange: LocalExchange, *, may_assume: bool
) -> None:
    """Who borrows real money must know on what terms."""
    exchange.faults.add(Fault(DATA, status=503, body=b""))
    book = TermsBook(SETTINGS, ExchangeTerms(lambda: adapter), may_assume=may_assume)
    if may_assume:
        assert book.of("SOL/USDT") == set_terms(SETTINGS, "SOL", "USDT")
    else:
        with pytest.raises(UnavailableError):
            book.of("SOL/USDT")


def changed(**values: object) -> Callable[[Any], object]:
    """Return what changes the first row of an answer."""

    def transform(answer: Any) -> object:
        rows = answer["rows"] if isinstance(answer, dict) else answer
        rows[0].update(values)
        return answer

    return transform


@pytest.mark.parametrize(
    "transform",
    [
        lambda _: {},
        lambda _: [],
        lambda rows: [*rows, *rows],
        changed(symbol="BTCUSDT"),
        changed(data=None),
        changed(data=[{"coin": "SOL"}]),
        changed(data=[{"coin": "SOL", "dailyInterest": "NaN"}]),
        changed(data=[{"coin": "SOL", "dailyInterest": "0.1"}]),
    ],
)
def test_rates_that_are_not_as_documented_make_no_sense(
    adapter: IsolatedMarginAdapter, exchange: LocalExchange, transform: Callable[[Any], object]
) -> None:
    """None of them is half believed, nor one without the pair's quote currency."""
    exchange.faults.add(Fault(DATA, transform=transform))
    with pytest.raises(AnswerError):
        ExchangeTerms(lambda: adapter)("SOL/USDT")


def charge(exchange: LocalExchange, hours: int) -> None:
    """Let an account owe for so many hours."""
    exchange.set_account("SOL/USDT", AccountSpec(base_free="30"))
    exchange.borrow("SOL/USDT", "USDT", D(1000))
    exchange.advance(3600 * (hours - 1))


def test_interest_is_summed_over_all_pages(adapter: IsolatedMarginAdapter, exchange: LocalExchange) -> None:
    """Two hundred and fifty hours are three pages."""
    charge(exchange, 250)
    assert adapter.fetch_interest("SOLUSDT", 0) == {"USDT": D("0.01") * 250}
    assert adapter.fetch_interest("ADAUSDT", 0) == {}


@pytest.mark.parametrize(
    "transform",
    [
        lambda _: [],
        lambda _: {"rows": None, "total": 1},
        lambda _: {"rows": []},
        lambda answer: answer | {"total": "many"},
        changed(isolatedSymbol="BTCUSDT"),
        changed(interest="-1e3"),
        changed(interest=None),
    ],
)
def test_interest_that_is_not_as_documented_makes_no_sense(
    adapter: IsolatedMarginAdapter, exchange: LocalExchange, transform: Callable[[Any], object]
) -> None:
    """A profit is not counted from it."""
    charge(exchange, 2)
    exchange.faults.add(Fault(INTEREST, transform=transform))
    with pytest.raises(AnswerError):
        adapter.fetch_interest("SOLUSDT", 0)


def test_prices_are_those_that_were_asked_for(exchange: LocalExchange) -> None:
    """Without a key, and without what else the exchange tells."""
    adapter = IsolatedMarginAdapter(None, exchange=redirected(exchange.url))
    prices = adapter.fetch_prices(["BTCUSDT", "SOLUSDT"])
    assert set(prices) == {"BTCUSDT", "SOLUSDT"}
    assert float(prices["BTCUSDT"]) == pytest.approx(50_000, rel=0.01)
    adapter.close()


@pytest.mark.parametrize(
    "transform", [lambda _: {}, changed(price="1e9"), changed(price=None), lambda _: [1]]
)
def test_prices_that_are_not_as_documented_make_no_sense(
    exchange: LocalExchange, transform: Callable[[Any], object]
) -> None:
    """An account is not valued by them."""
    adapter = IsolatedMarginAdapter(None, exchange=redirected(exchange.url))
    exchange.faults.add(Fault(PRICE, transform=transform))
    with pytest.raises(IsolatedMarginError):
        adapter.fetch_prices(["BTCUSDT"])
    adapter.close()
