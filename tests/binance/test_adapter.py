"""The real ccxt over real HTTP, against the local exchange."""

from __future__ import annotations

import json
import logging
import re
import socket
import traceback
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import ccxt
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from support.builders import answer, long_row, redirected, tier_row

from freqtrade_isolated_margin.account.records import PairAccount, Unreadable
from freqtrade_isolated_margin.binance import adapter as adapter_module
from freqtrade_isolated_margin.binance.adapter import IsolatedMarginAdapter, in_chunks
from freqtrade_isolated_margin.binance.credentials import Credentials, tidy_secret
from freqtrade_isolated_margin.errors import (
    AnswerError,
    CredentialsError,
    IsolatedMarginError,
    UnavailableError,
)
from freqtrade_isolated_margin.localexchange import AccountSpec, Fault, LocalExchange, RequestRecord

ACCOUNT = "/sapi/v1/margin/isolated/account"
TIERS = "/sapi/v1/margin/isolatedMarginTier"
SIX = ["BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT"]

Make = Callable[..., IsolatedMarginAdapter]


@pytest.fixture
def make(exchange: LocalExchange) -> Iterator[Make]:
    """Makes adapters for the local exchange; what they are given overrides its key and section."""
    made: list[IsolatedMarginAdapter] = []

    def build(**more: Any) -> IsolatedMarginAdapter:
        credentials = Credentials(exchange.key, exchange.secret, "test")
        arguments = {"credentials": credentials, "exchange": redirected(exchange.url)} | more
        made.append(IsolatedMarginAdapter(arguments.pop("credentials"), **arguments))
        return made[-1]

    yield build
    for adapter in made:
        adapter.close()


@pytest.fixture
def adapter(make: Make) -> IsolatedMarginAdapter:
    """An adapter for the local exchange."""
    return make()


def with_ccxt(exchange: LocalExchange, **config: Any) -> dict[str, Any]:
    """Return the exchange section with more in its `ccxt_config`."""
    section = redirected(exchange.url)
    section["ccxt_config"] |= config
    return section


def asked(exchange: LocalExchange, path: str = ACCOUNT) -> list[RequestRecord]:
    """Return the requests for one path."""
    return [request for request in exchange.requests if request.path == path]


# ----- one request for what is wanted


def test_up_to_five_symbols_are_one_request_by_name(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter
) -> None:
    """With `symbols` as one string, and rows for exactly these."""
    answered = adapter.fetch(SIX[:5])
    [request] = asked(exchange)
    assert request.params["symbols"] == ",".join(SIX[:5])
    assert set(answered.rows) == set(SIX[:5])
    assert answered.total_asset_of_btc is None


def test_more_than_five_symbols_are_one_request_for_all(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter
) -> None:
    """Without `symbols`: every account comes, and the totals."""
    answered = adapter.fetch(SIX)
    [request] = asked(exchange)
    assert "symbols" not in request.params
    assert set(answered.rows) == {*SIX, "FETUSDT"}
    assert answered.total_asset_of_btc is not None


def test_no_symbols_are_one_request_for_all(exchange: LocalExchange, adapter: IsolatedMarginAdapter) -> None:
    """None asked for is all."""
    assert len(adapter.fetch().rows) == 7
    assert "symbols" not in asked(exchange)[0].params


def test_a_longer_list_can_be_asked_for_in_chunks(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter
) -> None:
    """Five by five, joined into one answer without the others."""
    answered = adapter.fetch([*SIX, "DOGEUSDT"], chunked=True)
    assert [request.params["symbols"] for request in asked(exchange)] == [
        "BTCUSDT,ETHUSDT,BNBUSDT,SOLUSDT,XRPUSDT",
        "ADAUSDT,DOGEUSDT",
    ]
    assert set(answered.rows) == {*SIX, "DOGEUSDT"}


def test_a_row_that_comes_in_two_chunks_is_unreadable(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter
) -> None:
    """As if it had come twice in one answer."""
    exchange.faults.add(
        Fault(ACCOUNT, transform=lambda content: {"assets": [*content["assets"], long_row(symbol="FETUSDT")]})
    )
    answered = adapter.fetch(SIX, chunked=True)
    assert isinstance(answered.rows["FETUSDT"], Unreadable)
    assert isinstance(answered.rows["BTCUSDT"], PairAccount)


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (1, [1]), (5, [5]), (6, [5, 1]), (11, [5, 5, 1])])
def test_chunks_have_at_most_five(count: int, sizes: list[int]) -> None:
    """And together they are the list."""
    symbols = [f"S{number}" for number in range(count)]
    chunks = in_chunks(symbols)
    assert [len(chunk) for chunk in chunks] == sizes
    assert [symbol for chunk in chunks for symbol in chunk] == symbols


def test_rows_are_matched_by_symbol(exchange: LocalExchange, adapter: IsolatedMarginAdapter) -> None:
    """An answer in another order is the same answer."""
    exchange.set_account("ETH/USDT", AccountSpec(base_free="7"))
    exchange.faults.add(Fault(ACCOUNT, transform=lambda content: {"assets": content["assets"][::-1]}))
    row = adapter.fetch(["BTCUSDT", "ETHUSDT"]).rows["ETHUSDT"]
    assert isinstance(row, PairAccount)
    assert row.base_asset.free == 7


def test_a_pair_without_an_account_comes_as_its_placeholder(adapter: IsolatedMarginAdapter) -> None:
    """Asked for by name, a pair that never had one is absent."""
    row = adapter.fetch(["DOGEUSDT"]).rows["DOGEUSDT"]
    assert isinstance(row, PairAccount)
    assert row.is_absent


def test_the_exchange_counts_ten_a_request(exchange: LocalExchange, adapter: IsolatedMarginAdapter) -> None:
    """And what it says of the used weight is kept, in the adapter and in the answer."""
    assert adapter.used_weight is None
    assert adapter.fetch(SIX[:1]).used_weight == 10
    assert adapter.fetch(SIX, chunked=True).used_weight == 30
    assert adapter.used_weight == 30
    assert [request.weight for request in asked(exchange)] == [10, 10, 10]


def test_the_weight_is_kept_of_a_refused_request_too(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter
) -> None:
    """It matters most then."""
    exchange.faults.add(Fault(ACCOUNT, code=-1003, headers={"X-SAPI-USED-IP-WEIGHT-1M": "12010"}))
    with pytest.raises(UnavailableError):
        adapter.fetch()
    assert adapter.used_weight == 12010


@pytest.mark.parametrize("weight", ["", "-1", "1e3", "many", "9" * 5000])
def test_a_weight_that_is_no_number_is_ignored(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter, weight: str
) -> None:
    """The accounts were read all the same."""
    body = b'{"assets":[]}'
    exchange.faults.add(Fault(ACCOUNT, body=body, headers={"X-SAPI-USED-IP-WEIGHT-1M": weight}))
    assert adapter.fetch().rows == {}
    assert adapter.used_weight is None


def test_beyond_its_budget_nothing_is_asked(exchange: LocalExchange, make: Make) -> None:
    """Thirty is three reads a minute; the fourth is refused here, and says how long to wait."""
    adapter = make(weight_budget=30)
    for _ in range(3):
        adapter.fetch()
    with pytest.raises(UnavailableError, match="budget of 30") as caught:
        adapter.fetch()
    assert 0 < caught.value.retry_after <= 60
    assert len(asked(exchange)) == 3


def test_near_the_limit_of_the_address_nothing_is_asked(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter
) -> None:
    """Others use the same address: at nine tenths of its weight the guard waits, before anybody is banned."""
    exchange.faults.add(Fault(ACCOUNT, body=b'{"assets":[]}', headers={"X-SAPI-USED-IP-WEIGHT-1M": "10800"}))
    adapter.fetch()
    with pytest.raises(UnavailableError, match="weight") as caught:
        adapter.fetch()
    assert 0 < caught.value.retry_after <= 60
    assert len(asked(exchange)) == 1


@pytest.mark.parametrize("window", [1, 10_000, 60_000])
def test_the_recv_window_is_sent(exchange: LocalExchange, make: Make, window: int) -> None:
    """As it was set, up to the most that Binance takes."""
    exchange.faults.add(Fault(ACCOUNT, body=b'{"assets":[]}'))
    make(recv_window=window).fetch()
    assert asked(exchange)[0].params["recvWindow"] == str(window)


def test_the_bots_own_options_do_not_change_what_is_asked(exchange: LocalExchange, make: Make) -> None:
    """A futures bot's default type, its window and its verbosity are its own."""
    options = {"defaultType": "swap", "recvWindow": 1234, "fetchMarkets": {"types": ["linear"]}}
    adapter = make(exchange=with_ccxt(exchange, options=options))
    adapter.load_markets()
    adapter.fetch()
    assert asked(exchange)[0].params["recvWindow"] == "10000"
    assert adapter.pairs()["BTCUSDT"] == "BTC/USDT"


# ----- markets


def test_loading_markets_asks_for_nothing_but_spot_markets_and_the_clock(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter
) -> None:
    """No currencies, no margin lists, although there are keys; and once only."""
    adapter.load_markets()
    adapter.load_markets()
    assert sorted(request.path for request in exchange.requests) == ["/api/v3/exchangeInfo", "/api/v3/time"]


def test_markets_can_be_loaded_again(exchange: LocalExchange, adapter: IsolatedMarginAdapter) -> None:
    """A pair that was listed since is found."""
    adapter.load_markets()
    adapter.load_markets(reload=True)
    assert len(asked(exchange, "/api/v3/exchangeInfo")) == 2


def test_pairs_become_market_ids_by_the_markets(adapter: IsolatedMarginAdapter) -> None:
    """A futures pair stands for its spot pair; what has no spot market has no id."""
    adapter.load_markets()
    assert adapter.market_ids(["BTC/USDT", "BTC/USDT:USDT", "ETH/BTC", "NO/USDT", "BTCUSDT", ""]) == {
        "BTC/USDT": "BTCUSDT",
        "BTC/USDT:USDT": "BTCUSDT",
        "ETH/BTC": "ETHBTC",
        "NO/USDT": None,
        "BTCUSDT": None,
        "": None,
    }


def test_market_data_needs_no_key(exchange: LocalExchange, make: Make) -> None:
    """Without credentials markets are read and accounts are not asked for."""
    adapter = make(credentials=None)
    adapter.load_markets()
    assert "BTCUSDT" in adapter.pairs()
    with pytest.raises(CredentialsError, match="no API key"):
        adapter.fetch()
    assert not asked(exchange)


@pytest.mark.parametrize("path", ["/api/v3/exchangeInfo", "/api/v3/time"])
@pytest.mark.parametrize(
    "spoil",
    [
        {"status": 503},
        {"reset": True},
        *({"body": body} for body in (b"", b"null", b"[]", b"{}", b"<html>")),
    ],
    ids=str,
)
def test_markets_that_cannot_be_loaded_are_a_failure_of_the_package(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter, path: str, spoil: dict[str, Any]
) -> None:
    """Nothing of ccxt's comes out, or the markets are simply not there."""
    exchange.faults.add(Fault(path, **spoil))
    try:
        adapter.load_markets()
    except IsolatedMarginError as error:
        assert error.kind in {"unavailable", "answer"}  # noqa: PT017 - it may also succeed
    else:
        assert path == "/api/v3/time" or adapter.market_ids(["BTC/USDT"]) == {"BTC/USDT": None}


def test_a_failure_after_a_good_request_is_told_as_what_it_is(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter
) -> None:
    """The second request of loading markets breaks off: the first one's 200 is not blamed."""
    for path in ("/api/v3/exchangeInfo", "/api/v3/time"):
        exchange.faults.add(Fault(path, reset=True, skip=1 if path.endswith("Info") else 0))
    with pytest.raises(UnavailableError, match="cannot be reached") as caught:
        adapter.load_markets()
    assert caught.value.status is None


# ----- the clock


@pytest.mark.parametrize("offset", [-300.0, 300.0])
def test_a_clock_that_is_off_is_adjusted_once(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter, offset: float
) -> None:
    """-1021 asks for the time and then again for the account, which succeeds."""
    exchange.clock_offset = offset
    assert "BTCUSDT" in adapter.fetch(["BTCUSDT"]).rows
    assert [(request.path, request.status) for request in exchange.requests] == [
        (ACCOUNT, 400),
        ("/api/v3/time", 200),
        (ACCOUNT, 200),
    ]
    adapter.fetch(["BTCUSDT"])
    assert len(exchange.requests) == 4


def test_a_clock_that_was_adjusted_at_the_start_needs_no_second_request(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter
) -> None:
    """Loading markets sets the clock."""
    exchange.clock_offset = 300
    adapter.load_markets()
    adapter.fetch(["BTCUSDT"])
    assert [request.status for request in asked(exchange)] == [200]


def test_a_clock_that_jumps_is_adjusted_again(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter
) -> None:
    """Each jump costs one refused request."""
    for offset in (300.0, -300.0):
        exchange.clock_offset = offset
        assert "BTCUSDT" in adapter.fetch(["BTCUSDT"]).rows
    assert [request.status for request in asked(exchange)] == [400, 200, 400, 200]


def test_a_timestamp_error_that_stays_is_unavailable(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter
) -> None:
    """It resynchronises once and not for ever."""
    exchange.faults.add(Fault(ACCOUNT, code=-1021))
    with pytest.raises(UnavailableError) as caught:
        adapter.fetch()
    assert caught.value.code == -1021
    assert len(asked(exchange)) == 2


# ----- errors by code and status


CREDENTIALS = {-1002, -1022, -2008, -2014, -2015}
CODES = [-1000, -1002, -1003, -1007, -1008, -1022, -1102, -1121, -2008, -2014, -2015, -3003, -3999, -11001]


def test_bytes_that_are_no_utf_8_are_no_account(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter
) -> None:
    """Whatever they stand in: a decoder would make something plausible of them."""
    good = json.dumps(answer(long_row(more="?"))).encode()
    exchange.faults.add(Fault(ACCOUNT, body=good.replace(b'"?"', b'"\xff"')))
    with pytest.raises(AnswerError, match="not UTF-8"):
        adapter.fetch()


def _turned(thing: Any) -> Any:
    """Return the same JSON with the members of every object in the opposite order, and one more in each."""
    if not isinstance(thing, dict):
        return [_turned(each) for each in thing] if isinstance(thing, list) else thing
    return {"new": [1.5, None], **{name: _turned(value) for name, value in reversed(thing.items())}}


def test_what_binance_may_change_harmlessly_changes_no_account(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter
) -> None:
    """Another order of the fields, new ones, and white space."""
    content = answer(long_row(), long_row("1.2", symbol="ETHUSDT"), totalAssetOfBtc="1.5")
    exchange.faults.add(Fault(ACCOUNT, body=json.dumps(content, separators=(",", ":")).encode(), times=1))
    before = adapter.fetch()
    exchange.faults.add(Fault(ACCOUNT, body=json.dumps(_turned(content), indent=3).encode()))
    after = adapter.fetch()
    assert before == after
    assert all(isinstance(row, PairAccount) for row in before.rows.values())


@pytest.fixture(params=["loopback", "api.binance.com"])
def code_table(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ccxt's classes by code, as it chooses them for the local host and for Binance's own."""
    if request.param == "api.binance.com":
        original = ccxt.binance.get_exceptions_by_url

        def by_real_url(self: ccxt.binance, url: str, kind: str) -> Any:
            path = "/".join(url.split("/")[3:])
            return original(self, f"https://api.binance.com/{path}", kind)

        monkeypatch.setattr(ccxt.binance, "get_exceptions_by_url", by_real_url)


@pytest.mark.usefixtures("code_table")
@pytest.mark.parametrize("status", [None, 200, 400])
@pytest.mark.parametrize("code", CODES)
def test_errors_are_told_apart_by_code(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter, code: int, status: int | None
) -> None:
    """Whatever ccxt calls them, and whatever HTTP status they come with."""
    exchange.faults.add(Fault(ACCOUNT, code=code, status=status))
    with pytest.raises(IsolatedMarginError) as caught:
        adapter.fetch(["BTCUSDT"])
    assert type(caught.value) is (CredentialsError if code in CREDENTIALS else UnavailableError)
    assert caught.value.code == code
    assert f"code {code}" in str(caught.value)


def test_refused_credentials_are_such_after_a_private_spot_call_too(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter
) -> None:
    """Ccxt then calls -2015 a rate limit."""
    adapter._client.private_get_account()
    exchange.faults.add(Fault(ACCOUNT, code=-2015))
    with pytest.raises(CredentialsError):
        adapter.fetch()


@pytest.mark.parametrize("body", [b"", b"<html>no</html>", b"{}", b'{"msg": 5, "code": "x"}', b"[[[[", b"{"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 418, 429, 451, 500, 502, 503, 504])
def test_errors_without_a_code_are_told_apart_by_status(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter, status: int, body: bytes
) -> None:
    """401 refuses the key; everything else may pass."""
    exchange.faults.add(Fault(ACCOUNT, status=status, body=body))
    with pytest.raises(IsolatedMarginError) as caught:
        adapter.fetch(["BTCUSDT"])
    assert type(caught.value) is (CredentialsError if status == 401 else UnavailableError)
    assert caught.value.status == status
    assert caught.value.code is None
    assert f"HTTP {status}" in str(caught.value)


@pytest.mark.parametrize("status", [429, 418, 503])
@pytest.mark.parametrize(
    ("said", "wait"),
    [("7", 7), ("0", 0), ("99999999999999999999", 259200), ("259201", 259200), ("9" * 6000, 259200)],
)
def test_retry_after_is_honoured(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter, status: int, said: str, wait: float
) -> None:
    """In seconds, and at most as long as Binance bans."""
    exchange.faults.add(Fault(ACCOUNT, status=status, body=b"{}", headers={"Retry-After": said}))
    with pytest.raises(UnavailableError) as caught:
        adapter.fetch()
    assert caught.value.retry_after == wait


@pytest.mark.parametrize(("status", "wait"), [(429, 60), (418, 120), (503, 0), (500, 0)])
@pytest.mark.parametrize("said", [None, "", "-5", "soon", "1e9", "Wed, 21 Oct 2026 07:28:00 GMT", "\u0667"])
def test_without_a_readable_retry_after_a_limit_waits_all_the_same(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter, status: int, wait: float, said: str | None
) -> None:
    """A minute for a limit, two for a ban, and no wait of its own for a fault."""
    headers = {} if said is None or not said.isascii() else {"Retry-After": said}
    exchange.faults.add(Fault(ACCOUNT, status=status, body=b"{}", headers=headers))
    with pytest.raises(UnavailableError) as caught:
        adapter.fetch()
    assert caught.value.retry_after == wait


@pytest.mark.parametrize(("status", "wait"), [(400, 60), (429, 60), (418, 120)])
def test_too_much_weight_is_a_limit_whatever_the_status(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter, status: int, wait: float
) -> None:
    """Code -1003 with HTTP 400 is waited for as a 429 is: the next step of Binance is a ban."""
    body = b'{"code":-1003,"msg":"Too much request weight used."}'
    exchange.faults.add(Fault(ACCOUNT, status=status, body=body))
    with pytest.raises(UnavailableError) as caught:
        adapter.fetch()
    assert caught.value.retry_after == wait


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"<html><body>maintenance</body></html>",
        b'{"assets":[{"symbol":"BTC',
        b"null",
        b"[]",
        b"5",
        b'"text"',
        b"true",
        b"{}",
        b'{"assets":null}',
        b'{"assets":[{}]}',
        b"\xff\xfe\x00",
        b"NaN",
        b"[" * 100_000,
        b'{"assets":' + b"[" * 100_000,
        b'{"a":' + b"9" * 10_000 + b"}",
    ],
    ids=lambda body: repr(body[:24]),
)
@pytest.mark.parametrize("status", [200, 204])
def test_a_good_status_with_a_senseless_body_is_a_failure_to_read(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter, status: int, body: bytes
) -> None:
    """Ccxt hands on what it cannot decode; it never becomes an account."""
    exchange.faults.add(Fault(ACCOUNT, status=status, body=b"" if status == 204 else body))
    with pytest.raises(IsolatedMarginError) as caught:
        adapter.fetch(["BTCUSDT"])
    assert isinstance(caught.value, AnswerError | UnavailableError)


def test_an_answer_that_makes_no_sense_says_so(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter
) -> None:
    """A JSON list is an answer, and no account."""
    exchange.faults.add(Fault(ACCOUNT, body=b"[]"))
    with pytest.raises(AnswerError, match="not a JSON object"):
        adapter.fetch()


@pytest.mark.parametrize("value", ["1e400", "NaN", "\uff11", "1" * 10_000, 5, None])
def test_a_bad_row_over_the_wire_spoils_only_itself(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter, value: object
) -> None:
    """Ccxt does not mend it either."""

    def spoil(content: dict[str, Any]) -> None:
        content["assets"][0]["marginLevel"] = value

    exchange.faults.add(Fault(ACCOUNT, transform=spoil))
    rows = adapter.fetch(["BTCUSDT", "ETHUSDT"]).rows
    assert isinstance(rows["BTCUSDT"], Unreadable)
    assert isinstance(rows["ETHUSDT"], PairAccount)


# ----- no answer at all


def test_a_refused_connection_is_unavailable(exchange: LocalExchange, adapter: IsolatedMarginAdapter) -> None:
    """And it is readable again when the exchange is back."""
    adapter.fetch()
    exchange.stop()
    with pytest.raises(UnavailableError, match="connection is refused"):
        adapter.fetch()
    exchange.restart()
    assert adapter.fetch().rows


def test_a_reset_in_the_middle_of_the_body_is_unavailable(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter
) -> None:
    """Half an answer is none."""
    exchange.faults.add(Fault(ACCOUNT, reset=True))
    with pytest.raises(UnavailableError, match="cannot be reached: the connection"):
        adapter.fetch()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapters that wait for an answer as short as a test does."""
    monkeypatch.setattr(adapter_module, "_TIMEOUT_MS", 200)


@pytest.mark.usefixtures("impatient")
def test_a_server_that_never_answers_is_unavailable(exchange: LocalExchange, make: Make) -> None:
    """After the guard's own time limit, whatever the bot's is."""
    exchange.faults.add(Fault(ACCOUNT, hang=True))
    with pytest.raises(UnavailableError, match="no answer in time"):
        make(exchange=with_ccxt(exchange, timeout=3_600_000)).fetch()


def test_tls_that_fails_is_unavailable(exchange: LocalExchange, make: Make) -> None:
    """A server that speaks something else."""
    section = redirected(exchange.url.replace("http:", "https:"))
    with pytest.raises(UnavailableError, match="TLS fails"):
        make(exchange=section).fetch()


def test_a_name_that_does_not_resolve_is_unavailable(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without asking anybody outside of this machine."""

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(UnavailableError, match="name does not resolve"):
        make(exchange=redirected("http://exchange.invalid")).fetch()


def test_whoever_redirects_the_bot_through_a_proxy_redirects_the_guard(
    exchange: LocalExchange, make: Make
) -> None:
    """A host that does not exist answers, since it is the proxy that does: it is none, and says 404."""
    section = redirected("http://exchange.invalid")
    section["ccxt_config"]["httpProxy"] = exchange.url
    with pytest.raises(UnavailableError, match="HTTP 404"):
        make(exchange=section).fetch()


def test_the_section_of_another_exchange_does_not_redirect(exchange: LocalExchange, make: Make) -> None:
    """A Kraken bot's hosts are not Binance's: the accounts are asked for at Binance."""
    adapter = make(exchange=redirected(exchange.url) | {"name": "kraken"})
    assert str(adapter._client.urls["api"]["sapi"]).startswith("https://api.binance.com/")


def test_building_a_client_leaves_the_configuration_alone(exchange: LocalExchange, make: Make) -> None:
    """Ccxt writes into what it is given."""
    section = with_ccxt(exchange, options={"a": 1})
    before = repr(section)
    make(exchange=section).load_markets()
    assert repr(section) == before


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter, status: int
) -> None:
    """The key stays where it was meant for, and nobody else's answer is believed."""
    elsewhere = f"{exchange.url.replace('127.0.0.1', 'localhost')}/api/v3/ping"
    exchange.faults.add(Fault(ACCOUNT, status=status, headers={"Location": elsewhere}))
    with pytest.raises(UnavailableError):
        adapter.fetch()
    assert [request.path for request in exchange.requests] == [ACCOUNT]


# ----- tiers


def test_tiers_are_read_from_the_smallest_on(exchange: LocalExchange, adapter: IsolatedMarginAdapter) -> None:
    """Sorted by their number, at a weight of 1."""
    exchange.faults.add(Fault(TIERS, transform=lambda rows: rows[::-1]))
    tiers = adapter.fetch_tiers("SOLUSDT")
    assert [tier.effective_multiple for tier in tiers] == list(
        map(Decimal, ("5", "4.2", "3.66", "3.28", "3"))
    )
    assert {tier.liquidation_risk_ratio for tier in tiers} == {Decimal("1.15")}
    assert [(request.params["symbol"], request.weight) for request in asked(exchange, TIERS)] == [
        ("SOLUSDT", 1)
    ]


GOOD_TIER = tier_row(1, "1.05", "1", "1000")


@pytest.mark.parametrize(
    "rows",
    [
        [],
        {},
        None,
        "x",
        [None],
        [[]],
        [{}],
        [GOOD_TIER | {"liquidationRiskRatio": "1.03"}],
        [GOOD_TIER | {"liquidationRiskRatio": "1.31"}],
        [GOOD_TIER | {"liquidationRiskRatio": 1.05}],
        [GOOD_TIER | {"baseAssetMaxBorrowable": "NaN"}],
        [GOOD_TIER | {"baseAssetMaxBorrowable": None}],
        [GOOD_TIER | {"tier": "first"}],
        [GOOD_TIER | {"tier": None}],
        [GOOD_TIER | {"tier": float("inf")}],
        [GOOD_TIER | {"tier": float("nan")}],
        [GOOD_TIER, "junk"],
    ],
    ids=lambda rows: str(rows)[-60:],
)
def test_tiers_that_are_not_as_documented_make_no_sense(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter, rows: object
) -> None:
    """None of them is half believed."""
    exchange.faults.add(Fault(TIERS, transform=lambda _: [] if rows is None else rows))
    with pytest.raises(AnswerError, match="BTCUSDT"):
        adapter.fetch_tiers("BTCUSDT")


def test_the_tiers_of_another_market_are_not_taken(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter
) -> None:
    """Rows are matched by symbol here, too."""
    exchange.faults.add(Fault(TIERS, transform=lambda _: [GOOD_TIER | {"symbol": "ETHUSDT"}]))
    with pytest.raises(AnswerError, match="BTCUSDT"):
        adapter.fetch_tiers("BTCUSDT")


# ----- keys that sign


def _pem(private: Any) -> tuple[str, str]:
    secret = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return secret, public


@pytest.mark.parametrize("kind", ["Ed25519", "RSA"])
@pytest.mark.parametrize("form", ["as it is", "CRLF", "literal"])
def test_a_pem_secret_signs_what_the_exchange_verifies(
    exchange: LocalExchange, make: Make, kind: str, form: str
) -> None:
    """With either kind of key, and from an environment file too."""
    private = Ed25519PrivateKey.generate() if kind == "Ed25519" else generate_private_key(65537, 2048)
    secret, public = _pem(private)
    key = exchange.add_key(public_key=public).key
    secret = {
        "as it is": secret,
        "CRLF": secret.replace("\n", "\r\n"),
        "literal": secret.replace("\n", "\\n"),
    }[form]
    adapter = make(credentials=Credentials(key, tidy_secret(secret), "test"))
    assert len(adapter.fetch(SIX[:2]).rows) == 2


def test_a_wrong_secret_is_refused(exchange: LocalExchange, make: Make) -> None:
    """The exchange checks the signature: -1022."""
    with pytest.raises(CredentialsError) as caught:
        make(credentials=Credentials(exchange.key, "wrong", "test")).fetch()
    assert caught.value.code == -1022


def test_an_unknown_key_is_refused(exchange: LocalExchange, make: Make) -> None:
    """-2008 or -2015, and the same kind of failure."""
    with pytest.raises(CredentialsError):
        make(credentials=Credentials("unknown", exchange.secret, "test")).fetch()


@pytest.mark.parametrize(
    "secret",
    [
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\n" + "QUJD" * 60 + "\n-----END PRIVATE KEY-----",
    ],
)
def test_a_secret_that_cannot_sign_is_refused_without_a_request(
    exchange: LocalExchange, make: Make, secret: str
) -> None:
    """Nothing is sent, and nothing of it is shown."""
    with pytest.raises(CredentialsError) as caught:
        make(credentials=Credentials(exchange.key, secret, "test")).fetch()
    assert not asked(exchange)
    assert "BEGIN" not in "".join(traceback.format_exception(caught.value))


# ----- secrets


def _spoil_nothing(_: LocalExchange) -> None:
    pass


def _echo(exchange: LocalExchange) -> None:
    url = f"{exchange.url}{ACCOUNT}?timestamp=1&signature={'ab' * 32}"
    exchange.faults.add(Fault(ACCOUNT, code=-2015, msg=f"key={exchange.key} secret={exchange.secret} {url}"))


def _fault(**kind: Any) -> Callable[[LocalExchange], None]:
    def spoil(exchange: LocalExchange) -> None:
        exchange.faults.add(Fault(ACCOUNT, **kind))

    return spoil


SPOILERS: dict[str, Callable[[LocalExchange], None]] = {
    "nothing": _spoil_nothing,
    "echo": _echo,
    "signature": _fault(code=-1022),
    "timestamp": _fault(code=-1021),
    "limit": _fault(code=-1003),
    "503": _fault(status=503, body=b"<html>"),
    "404": _fault(status=404),
    "html": _fault(body=b"<html>"),
    "null": _fault(body=b"null"),
    "redirect": _fault(status=302, headers={"Location": ACCOUNT}),
    "reset": _fault(reset=True),
    "hang": _fault(hang=True),
    "gone": LocalExchange.stop,
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("name", list(SPOILERS))
def test_no_secret_is_ever_shown(
    exchange: LocalExchange,
    make: Make,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    name: str,
) -> None:
    """Neither key nor secret nor signature: in messages, in chained exceptions, in any log at DEBUG."""
    # The exchange's own server runs in this process too; what it logs is not the guard's.
    names = [name for name in logging.root.manager.loggerDict if not name.startswith("uvicorn")]
    for logger in [None, *names]:
        caplog.set_level(logging.DEBUG, logger=logger)
    adapter = make(exchange=with_ccxt(exchange, verbose=True))
    adapter.load_markets()
    SPOILERS[name](exchange)
    shown = ""
    if name == "nothing":
        adapter.fetch(["BTCUSDT"])
    else:
        with pytest.raises(IsolatedMarginError) as caught:
            adapter.fetch(["BTCUSDT"])
        error = caught.value
        shown = "".join(traceback.format_exception(error)) + repr(vars(error)) + repr(error.args)
        assert error.__cause__ is None
        assert not isinstance(error.__context__, ccxt.BaseError)
    out, err = capfd.readouterr()
    logged = [vars(record) for record in caplog.records if not record.name.startswith("uvicorn")]
    shown += repr(logged) + out + err + repr(adapter)
    assert exchange.key not in shown
    assert exchange.secret not in shown
    assert "signature=" not in shown
    assert not re.search(r"[0-9a-f]{64}", shown)


def test_the_logs_of_others_are_left_alone(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter, caplog: pytest.LogCaptureFixture
) -> None:
    """Only this adapter's own requests are silenced, and only while they last."""
    caplog.set_level(logging.DEBUG)
    adapter.fetch()
    assert ACCOUNT not in caplog.text
    requests.get(f"{exchange.url}/api/v3/time", timeout=10)
    assert "/api/v3/time" in caplog.text


def test_what_the_exchange_says_is_told_on_one_line(
    exchange: LocalExchange, adapter: IsolatedMarginAdapter
) -> None:
    """Its words help, its line ends and its length do not."""
    exchange.faults.add(Fault(ACCOUNT, code=-3999, msg="Only for\ninvited\x1b[31m users " + "blah " * 1000))
    with pytest.raises(UnavailableError, match="Only for invited") as caught:
        adapter.fetch()
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


def test_an_answer_of_many_rows_is_read(exchange: LocalExchange, adapter: IsolatedMarginAdapter) -> None:
    """More than the endpoint would ever hold."""
    rows = [long_row(symbol=f"A{number}USDT") for number in range(500)]
    exchange.faults.add(Fault(ACCOUNT, transform=lambda _: answer(*rows)))
    assert len(adapter.fetch().rows) == 500
