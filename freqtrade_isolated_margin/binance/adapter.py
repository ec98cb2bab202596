"""ccxt in, accounts out: reads isolated margin accounts with a signed client of its own.

Nothing of ccxt leaves this module: its exceptions become the package's (`errors`), told apart by
Binance's ``code`` and the HTTP status, because ccxt's own classes depend on the host's name. Its
messages and logs carry signed URLs and the key, so none of them is passed on or printed.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from decimal import Decimal
from typing import Any, NamedTuple

import ccxt

from freqtrade_isolated_margin.account.records import AccountsAnswer, Unreadable, parse_answer, plain_decimal
from freqtrade_isolated_margin.account.tiers import Tier, believable_ratio
from freqtrade_isolated_margin.binance.credentials import Credentials
from freqtrade_isolated_margin.binance.reachable import check_reachable
from freqtrade_isolated_margin.errors import (
    AnswerError,
    CredentialsError,
    IsolatedMarginError,
    NotSentError,
    UnavailableError,
)

MAX_SYMBOLS = 5
"""How many symbols the endpoint takes in one request (API)."""

# A bad signature, a malformed, an unknown and a refused key (API: general error codes).
_CREDENTIAL_CODES = {-1002, -1022, -2008, -2014, -2015}
_TIMESTAMP_CODE = -1021
_UNAUTHORIZED, _TOO_MANY_REQUESTS = 401, 429
TOO_MUCH_WEIGHT = -1003
"""Binance's code for too many requests, whatever the HTTP status that comes with it (API)."""
NO_ACCOUNT_CODES = frozenset({-3003, -11001})
"""What Binance answers where there is no such account, and so where there is none at all (API)."""
# Binance bans an address for up to three days (API: limits), so no wait is longer than that.
_LONGEST_WAIT = 3 * 24 * 3600.0
# How long to wait where a 429 or a 418 does not say: the limits count minutes, and a ban starts at two.
_UNSAID_WAIT = {429: 60.0, 418: 120.0}
_TIMEOUT_MS = 10_000
# What an address may use of these endpoints in a minute (API: limits), and where this stops before it.
WEIGHT_LIMIT = 12_000
_NEAR_THE_LIMIT = WEIGHT_LIMIT * 9 // 10
_MINUTE = 60.0
_ACCOUNT_WEIGHT, _TIERS_WEIGHT = 10, 1
_WEIGHT_HEADER = "X-SAPI-USED-IP-WEIGHT-1M"
# A trade of a year is charged 8760 times, in one asset or in two.
_MOST_PAGES = 200
# Python refuses to read a number of thousands of digits.
_WEIGHT_DIGITS = 9
# What bytes that are no UTF-8 come as: they could make a plausible word.
_REPLACEMENT = "\ufffd"

_muted = threading.local()


def in_chunks(symbols: Sequence[str]) -> list[Sequence[str]]:
    """Cut `symbols` into pieces that the endpoint takes in one request."""
    return [symbols[start : start + MAX_SYMBOLS] for start in range(0, len(symbols), MAX_SYMBOLS)]


class _Quiet(logging.Filter):
    """Drops what urllib3 logs while this adapter's thread is in a request: the signed URL."""

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - the interface
        return not getattr(_muted, "on", False)


_URLLIB3_LOGGERS = ("connectionpool", "connection", "poolmanager", "response", "util.retry")
for _name in _URLLIB3_LOGGERS:
    logging.getLogger(f"urllib3.{_name}").addFilter(_Quiet())


@contextmanager
def _quietly() -> Iterator[None]:
    _muted.on = True
    try:
        yield
    finally:
        _muted.on = False


class _Response(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: str


class _Client(ccxt.binance):  # type: ignore[misc]
    """ccxt's client, which also keeps the newest response, whatever ccxt makes of it."""

    response: _Response | None = None

    def fetch(self, *request: Any, **options: Any) -> object:  # noqa: ANN401 - as ccxt has it
        """Forget the response before: one call may be several requests, and the last may go unanswered."""
        self.response = None
        return super().fetch(*request, **options)

    def on_rest_response(self, *answer: Any) -> object:  # noqa: ANN401 - as ccxt has it
        """Keep status, headers and body (ccxt's hook)."""
        status, _reason, _url, _method, headers, body, *_request = answer
        self.response = _Response(status, headers, body)
        return super().on_rest_response(*answer)


class Restrictions(NamedTuple):
    """What a key may do, as Binance's ``apiRestrictions`` says."""

    enable_reading: bool
    enable_withdrawals: bool
    ip_restrict: bool
    beyond_reading: tuple[str, ...]
    """Everything else that it may do, under Binance's names."""


class _Budget:
    """Keeps the weight of this client within its share, and the address's below the limit.

    Beyond the limit Binance answers 429, and then bans the address, the bot's exits with it.
    """

    def __init__(self, share: int) -> None:
        self._share = share
        self._spent: deque[tuple[float, int]] = deque()
        self._full_until = 0.0

    def spend(self, weight: int) -> None:
        """Count a request of `weight`; raise `NotSentError` where there is no room for it now."""
        now = time.monotonic()
        while self._spent and self._spent[0][0] <= now - _MINUTE:
            self._spent.popleft()
        if now < self._full_until:
            wait = self._full_until - now
            raise NotSentError("the address has nearly used up its weight of this minute", retry_after=wait)
        if sum(spent for _, spent in self._spent) + weight > self._share:
            wait = self._spent[0][0] + _MINUTE - now if self._spent else _MINUTE
            raise NotSentError(f"the weight budget of {self._share} a minute is used up", retry_after=wait)
        self._spent.append((now, weight))

    def note(self, used: int) -> None:
        """Take in what the exchange says the whole address has used in this minute."""
        if used >= _NEAR_THE_LIMIT:
            # The exchange counts by the minutes of its clock.
            self._full_until = time.monotonic() + _MINUTE - time.time() % _MINUTE


class IsolatedMarginAdapter:
    """Reads isolated margin accounts of Binance through ccxt's signed implicit API.

    `exchange` is the ``exchange`` section of a freqtrade configuration: its ``ccxt_config`` and
    ``ccxt_sync_config`` (hosts, proxies, headers) apply where its exchange is Binance, so that whatever
    redirects the bot redirects this. `recv_window` is in milliseconds, at most 60000. `weight_budget` is
    what it may use of the address's 12,000 a minute. Not for use by two threads at once. Without
    `credentials` only market data can be read.

    :raises SettingsError: where the bot's ``ccxt_config`` keeps it from asking at all.
    """

    def __init__(
        self,
        credentials: Credentials | None,
        *,
        recv_window: int = 10_000,
        weight_budget: int = WEIGHT_LIMIT // 10,
        exchange: Mapping[str, Any] | None = None,
    ) -> None:
        self._credentials = credentials
        self._budget = _Budget(weight_budget)
        self._client = _client(credentials, recv_window, exchange or {})
        check_reachable(self._client)
        self.used_weight: int | None = None
        """The address's used weight of this minute, as the exchange last reported it."""
        self.asking_since: float | None = None
        """When the request that is under way was sent, on the monotonic clock; None if there is none."""

    def load_markets(self, *, reload: bool = False) -> None:
        """Load the spot markets, once, and set the clock.

        :raises IsolatedMarginError: where they cannot be loaded.
        """
        if reload or not self._client.markets:
            self._request(self._client.load_markets, True)

    def market_ids(self, pairs: Sequence[str]) -> dict[str, str | None]:
        """Return each pair's market id, None where it has no spot market. Needs loaded markets."""
        return {pair: self._market_id(pair) for pair in pairs}

    def _market_id(self, pair: str) -> str | None:
        # A futures bot's BTC/USDT:USDT stands for the spot pair of the same assets.
        market = self._client.markets.get(pair.partition(":")[0])
        return str(market["id"]) if market and market["spot"] else None

    def pairs(self) -> dict[str, str]:
        """Return the pair of every spot market by its id. Needs loaded markets."""
        return {str(market["id"]): pair for pair, market in self._client.markets.items() if market["spot"]}

    def fetch(self, symbols: Sequence[str] | None = None, *, chunked: bool = False) -> AccountsAnswer:
        """Read the accounts of some market ids, or all accounts.

        One request, weight 10: with ``symbols`` for up to five of them, for all accounts beyond. `chunked`
        asks for a longer list five by five instead, at 10 a request.

        :raises UnavailableError: where the account cannot be read now.
        :raises CredentialsError: where the key or its permissions are refused.
        :raises AnswerError: where the answer makes no sense.
        """
        if not symbols or (len(symbols) > MAX_SYMBOLS and not chunked):
            return self._fetch({})
        answers = [self._fetch({"symbols": ",".join(some)}) for some in in_chunks(symbols)]
        return answers[0] if len(answers) == 1 else _joined(answers)

    def _fetch(self, params: dict[str, str]) -> AccountsAnswer:
        payload = self._signed("sapi_get_margin_isolated_account", params, _ACCOUNT_WEIGHT)
        response = self._client.response
        if response and _REPLACEMENT in response.body:
            raise AnswerError("the account answer is not UTF-8")
        return parse_answer(payload, self.used_weight)

    def fetch_tiers(self, symbol: str) -> tuple[Tier, ...]:
        """Read the tiers of one market id, from the smallest loans on; weight 1.

        :raises IsolatedMarginError: as `fetch`.
        """
        payload = self._signed("sapi_get_margin_isolatedmargintier", {"symbol": symbol}, _TIERS_WEIGHT)
        if not isinstance(payload, list) or not payload:
            raise AnswerError(f"the tiers of {symbol} are not a list")
        try:
            tiers = tuple(_tier(row) for row in sorted(payload, key=lambda row: int(row.get("tier", 0))))
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            raise AnswerError(f"the tiers of {symbol} are not as documented") from None
        if any(row.get("symbol", symbol) != symbol for row in payload):
            raise AnswerError(f"the tiers that were asked for {symbol} are those of another market")
        if not all(believable_ratio(tier.liquidation_risk_ratio) for tier in tiers):
            raise AnswerError(f"the tiers of {symbol} have a liquidation ratio outside 1.04 to 1.30")
        return tiers

    def fetch_prices(self, symbols: Sequence[str]) -> dict[str, Decimal]:
        """Read the newest market prices of some market ids, those that have one; needs no key.

        :raises IsolatedMarginError: as `fetch`.
        """
        asked = {"symbols": json.dumps(sorted(symbols), separators=(",", ":"))}
        payload = self._request(self._client.public_get_ticker_price, asked)
        if not isinstance(payload, list):
            raise AnswerError("the prices are not a list")
        wanted = set(symbols)
        try:
            return {row["symbol"]: plain_decimal(row["price"]) for row in payload if row["symbol"] in wanted}
        except (AttributeError, KeyError, TypeError, ValueError):
            raise AnswerError("the prices are not as documented") from None

    def fetch_interest(self, symbol: str, since: int) -> dict[str, Decimal]:
        """Read the interest that one account was charged from `since` (milliseconds) on, summed by asset.

        Weight 1 for each hundred charges.

        :raises IsolatedMarginError: as `fetch`.
        """
        sums: dict[str, Decimal] = {}
        for page in range(1, _MOST_PAGES + 1):
            params = {"isolatedSymbol": symbol, "startTime": str(since), "current": str(page), "size": "100"}
            payload = self._signed("sapi_get_margin_interesthistory", params, 1)
            rows: Any = payload.get("rows") if isinstance(payload, dict) else None
            try:
                for row in rows:
                    if row["isolatedSymbol"] != symbol:
                        raise AnswerError(f"the interest that was asked for {symbol} is of another market")
                    sums[row["asset"]] = sums.get(row["asset"], Decimal(0)) + plain_decimal(row["interest"])
                total = int(payload["total"])  # type: ignore[index]
            except (KeyError, TypeError, ValueError):
                raise AnswerError(f"the interest of {symbol} is not as documented") from None
            if page * 100 >= total:
                return sums
        raise AnswerError(f"the interest of {symbol} has more than {_MOST_PAGES} pages")

    def fetch_rates(self, symbol: str) -> dict[str, Decimal]:
        """Read what a day of a loan costs in the account of one market id, as a fraction of it; weight 1.

        :raises IsolatedMarginError: as `fetch`.
        """
        payload: Any = self._signed("sapi_get_margin_isolatedmargindata", {"symbol": symbol}, 1)
        try:
            (row,) = payload
            if row["symbol"] != symbol:
                raise AnswerError(f"the rates that were asked for {symbol} are those of another market")
            return {entry["coin"]: plain_decimal(entry["dailyInterest"]) for entry in row["data"]}
        except (KeyError, TypeError, ValueError):
            raise AnswerError(f"the rates of {symbol} are not as documented") from None

    def fetch_clock(self) -> tuple[float, float]:
        """Return how far this machine's clock is ahead of Binance's, and the round trip, both in seconds.

        :raises IsolatedMarginError: as `fetch`.
        """
        before, started = time.time(), time.monotonic()
        told = self._request(self._client.fetch_time)
        round_trip = time.monotonic() - started
        if not isinstance(told, int | float):
            raise AnswerError("the exchange's time is no number")
        return before + round_trip / 2 - told / 1000, round_trip

    def fetch_account_limit(self) -> tuple[int, int]:
        """Return how many isolated margin accounts are enabled, and how many may be; weight 1.

        :raises IsolatedMarginError: as `fetch`.
        """
        payload = self._signed("sapi_get_margin_isolated_accountlimit", {}, 1)
        limits = payload if isinstance(payload, dict) else {}
        enabled, most = limits.get("enabledAccount"), limits.get("maxAccount")
        if type(enabled) is not int or type(most) is not int:
            raise AnswerError("the limit of accounts is not as documented")
        return enabled, most

    def fetch_restrictions(self) -> Restrictions:
        """Return what the key may do, as ``apiRestrictions`` says; weight 1.

        :raises IsolatedMarginError: as `fetch`.
        """
        payload = self._signed("sapi_get_account_apirestrictions", {}, 1)
        if not isinstance(payload, dict):
            raise AnswerError("the restrictions of the key are not as documented")
        granted = {name for name, value in payload.items() if value is True}
        return Restrictions(
            enable_reading="enableReading" in granted,
            enable_withdrawals="enableWithdrawals" in granted,
            ip_restrict="ipRestrict" in granted,
            beyond_reading=tuple(sorted(granted - {"enableReading", "enableWithdrawals", "ipRestrict"})),
        )

    def fetch_burns(self) -> dict[str, bool]:
        """Return whether fees and interest are paid in BNB, as ``bnbBurn`` says; weight 1.

        :raises IsolatedMarginError: as `fetch`.
        """
        payload = self._signed("sapi_get_bnbburn", {}, 1)
        names = ("spotBNBBurn", "interestBNBBurn")
        if not isinstance(payload, dict) or not all(type(payload.get(name)) is bool for name in names):
            raise AnswerError("the setting of BNB is not as documented")
        return {name: payload[name] for name in names}

    def close(self) -> None:
        """Close the connections."""
        self._client.session.close()

    def _signed(self, method: str, params: dict[str, str], weight: int) -> object:
        if self._credentials is None:
            raise CredentialsError("no API key is set")
        call = getattr(self._client, method)
        self._budget.spend(weight)
        try:
            return self._request(call, params)
        except UnavailableError as error:
            if error.code != _TIMESTAMP_CODE:
                raise
        self._request(self._client.load_time_difference)
        self._budget.spend(weight)
        return self._request(call, params)

    def _request(self, call: Callable[..., object], *arguments: object) -> object:
        self._client.response = None
        problem: IsolatedMarginError | None = None
        result: object = None
        self.asking_since = time.monotonic()
        with _quietly():
            try:
                result = call(*arguments)
            except Exception as error:  # noqa: BLE001 - ccxt also lets ValueError and TypeError out
                problem = _translate(error, self._client.response)
        self.asking_since = None
        self._note_weight()
        if problem:
            # Raised here, not above: there it would carry ccxt's exception, and with it the signed URL.
            raise problem
        return result

    def _note_weight(self) -> None:
        response = self._client.response
        used = response.headers.get(_WEIGHT_HEADER, "") if response else ""
        if used.isascii() and used.isdigit() and len(used) <= _WEIGHT_DIGITS:
            self.used_weight = int(used)
            self._budget.note(self.used_weight)


def _client(credentials: Credentials | None, recv_window: int, exchange: Mapping[str, Any]) -> _Client:
    config: dict[str, Any] = {}
    if exchange.get("name", "binance") == "binance":
        config = ccxt.Exchange.deep_extend(
            deepcopy(exchange.get("ccxt_config") or {}), deepcopy(exchange.get("ccxt_sync_config") or {})
        )
    ours = {
        "apiKey": credentials.key if credentials else None,
        "secret": credentials.secret if credentials else None,
        "enableRateLimit": True,
        "verbose": False,
        "timeout": _TIMEOUT_MS,
        "options": {
            "defaultType": "spot",
            "fetchMarkets": {"types": ["spot"]},
            "fetchMargins": False,
            "adjustForTimeDifference": True,
            "recvWindow": recv_window,
        },
    }
    client = _Client(ccxt.Exchange.deep_extend(config, ours))
    client.has["fetchCurrencies"] = False
    # A redirect would take the key's header along to another host, and believe what that one answers.
    client.session.max_redirects = 0
    # ccxt logs signed URLs and the key header at level DEBUG.
    client.logger = logging.Logger(__name__, logging.CRITICAL + 1)  # noqa: LOG001 - out of any configuration's reach
    return client


def _joined(answers: Sequence[AccountsAnswer]) -> AccountsAnswer:
    rows: dict[str, Any] = {}
    for answer in answers:
        for symbol, row in answer.rows.items():
            rows[symbol] = Unreadable("its row came twice") if symbol in rows else row
    return AccountsAnswer(rows=rows, used_weight=answers[-1].used_weight)


def _tier(row: Mapping[str, Any]) -> Tier:
    return Tier(
        effective_multiple=plain_decimal(row["effectiveMultiple"]),
        initial_risk_ratio=plain_decimal(row["initialRiskRatio"]),
        liquidation_risk_ratio=plain_decimal(row["liquidationRiskRatio"]),
        base_max_borrowable=plain_decimal(row["baseAssetMaxBorrowable"]),
        quote_max_borrowable=plain_decimal(row["quoteAssetMaxBorrowable"]),
    )


def _translate(error: Exception, response: _Response | None) -> IsolatedMarginError:
    """Return the package's exception for what ccxt raised, from the response rather than from its class."""
    if response is None:
        if not isinstance(error, ccxt.BaseError):
            # Raised before anything was sent: the secret could not sign, or the key is no header.
            return CredentialsError(f"the API secret cannot sign a request ({type(error).__name__})")
        if isinstance(error, ccxt.AuthenticationError):
            return CredentialsError("the API key or its secret is missing")
        return UnavailableError(_network_words(error))
    code, message = _code_and_message(response.body)
    where = f"HTTP {response.status}" + (f", code {code}" if code is not None else "")
    if code in _CREDENTIAL_CODES or response.status == _UNAUTHORIZED:
        return CredentialsError(
            f"Binance refuses the credentials ({where}){message}", code=code, status=response.status
        )
    return UnavailableError(
        f"Binance does not answer with the account ({where}){message}",
        code=code,
        status=response.status,
        retry_after=_retry_after(response, code),
    )


def _code_and_message(body: str) -> tuple[int | None, str]:
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        return None, ""
    if not isinstance(payload, dict):
        return None, ""
    code = payload.get("code")
    message = payload.get("msg")
    return (
        code if isinstance(code, int) and not isinstance(code, bool) else None,
        f": {_harmless(message)}" if isinstance(message, str) and message else "",
    )


def _harmless(text: str) -> str:
    """Return `text` on one short line, without any word long enough to be a key, a signature or a URL."""
    words = re.sub(r"[^\x20-\x7e]+", " ", text).split()
    return " ".join(word if len(word) <= 24 else "…" for word in words)[:160]  # noqa: PLR2004 - keys have 64


def _retry_after(response: _Response, code: int | None) -> float:
    said = response.headers.get("Retry-After", "").strip()
    if said.isascii() and said.isdigit():
        return min(float(said[:9]), _LONGEST_WAIT)
    unsaid = _UNSAID_WAIT.get(response.status, 0.0)
    return max(unsaid, _UNSAID_WAIT[_TOO_MANY_REQUESTS]) if code == TOO_MUCH_WEIGHT else unsaid


def _network_words(error: BaseException) -> str:
    """Say what kept a request from being answered, by the kinds of exceptions behind ccxt's."""
    causes = list(_causes(error))
    words: list[tuple[type[BaseException], str]] = [
        (ssl.SSLError, "TLS fails"),
        (socket.gaierror, "the host's name does not resolve"),
        (ConnectionRefusedError, "the connection is refused"),
        (ccxt.RequestTimeout, "no answer in time"),
        (TimeoutError, "no answer in time"),
        (ConnectionError, "the connection breaks off"),
        (ccxt.NetworkError, "the connection fails"),
    ]
    for kind, said in words:
        if any(isinstance(cause, kind) for cause in causes):
            return f"Binance cannot be reached: {said}"
    return f"Binance cannot be asked ({type(error).__name__})"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield `error` and everything that it wraps, in its chain, its arguments and urllib3's `reason`."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        cause = waiting.pop(0)
        if not isinstance(cause, BaseException) or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        waiting += [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]
