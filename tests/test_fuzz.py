"""Two campaigns: mutated answers through parser and verdict, and random events against the mixin.

A short one, the same each time, belongs to the tests; ``HYPOTHESIS_PROFILE=fuzz`` makes it long and random.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from freqtrade.enums import RunMode
from freqtrade.persistence import PairLocks
from freqtrade.strategy import IStrategy
from freqtrade.strategy.strategy_wrapper import strategy_safe_wrapper
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from support import strategies
from support.fuzzing import (
    SYMBOLS,
    Tally,
    campaign,
    documented_rows,
    good_answer,
    good_row,
    is_absent,
    keeps_limits,
    most,
    mutate,
    mutate_bytes,
    strictly_decoded,
)

from freqtrade_isolated_margin import IsolatedMarginMixin
from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.account.records import PairAccount, parse_answer
from freqtrade_isolated_margin.binance import adapter as adapter_module
from freqtrade_isolated_margin.binance.adapter import IsolatedMarginAdapter
from freqtrade_isolated_margin.binance.clock import Moment
from freqtrade_isolated_margin.binance.credentials import Credentials
from freqtrade_isolated_margin.binance.reader import Reader, Snapshot
from freqtrade_isolated_margin.errors import (
    AnswerError,
    CredentialsError,
    IsolatedMarginError,
    UnavailableError,
)
from freqtrade_isolated_margin.guard import guard as guard_module
from freqtrade_isolated_margin.guard.guard import Guard
from freqtrade_isolated_margin.guard.monitor import Monitor, _Worker
from freqtrade_isolated_margin.hosts import starting as strategy_module
from freqtrade_isolated_margin.hosts.locks import LOCK_PREFIX
from freqtrade_isolated_margin.rules.decide import Outcome, Reading, decide
from freqtrade_isolated_margin.rules.rules import Rules
from freqtrade_isolated_margin.rules.settings import Settings

pytestmark = pytest.mark.timeout(3600)

ANSWERS = Tally("mutated answers")
BYTES = Tally("mutated bytes")
EVENTS = Tally("random events")
STEP = Fraction(1, 10**8)


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    """Log nothing: a campaign would fill the memory with it."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module", autouse=True)
def _figures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Say at the end how many cases were tried."""
    yield
    for tally in (ANSWERS, BYTES, EVENTS):
        if tally.counts:
            tally.tell(request.config)


# ----- mutated answers

SPOT, BORROWED = Rules(), Rules(entry_funding="borrowed")
RANDOMS = st.randoms(use_true_random=True)


def judge(rows: Mapping[str, Any], documented: Mapping[str, Any], tally: Tally) -> None:
    """Compare every verdict on an answer's rows with what the second opinion makes of the raw ones."""
    for symbol in SYMBOLS:
        raw = documented.get(symbol)
        for rules in (SPOT, BORROWED):
            borrowed = rules is BORROWED
            for side in Side:
                decision = decide(symbol, side, Reading(rows.get(symbol)), rules, 60.0)
                tally(f"{decision.outcome} ({rules.entry_funding})")
                if raw is None:
                    assert decision.outcome is Outcome.BLOCK, f"{symbol} is not as documented: {decision}"
                    continue
                allowed = most(raw, borrowed=borrowed)
                factor = Fraction(decision.factor)
                # A borrowed entry may leave no room where the account itself has some.
                assert factor <= allowed
                assert borrowed or factor > allowed - STEP, (
                    f"{decision} is stricter than the rules, {allowed}"
                )
                if decision.max_stake is not None and not decision.blocks:
                    assert keeps_limits(raw, Fraction(decision.max_stake), side)


def test_no_answer_outside_of_the_documented_shape_allows_an_entry() -> None:
    """What the second opinion does not know as documented blocks; the rest gets what the rules give it."""
    _answers()
    saw_everything(ANSWERS)


@campaign(1500, 60_000)
@given(RANDOMS, st.integers(0, 3))
def _answers(rnd: Random, changes: int) -> None:
    answer: Any = good_answer(rnd)
    for _ in range(changes):
        answer = mutate(rnd, answer)
    ANSWERS("cases")
    documented = documented_rows(answer)
    rows: Mapping[str, Any] = {}
    try:
        rows = parse_answer(answer).rows
    except AnswerError:
        ANSWERS("no answer at all")
        assert documented is None
    readable = {symbol for symbol, found in rows.items() if isinstance(found, PairAccount)}
    assert readable == set(documented or {})
    ANSWERS("rows readable", len(readable))
    ANSWERS("rows unreadable", len(rows) - len(readable))
    judge(rows, documented or {}, ANSWERS)


def saw_everything(tally: Tally) -> None:
    """Make sure that a campaign was not about nothing."""
    for funding in ("spot", "borrowed"):
        for outcome in Outcome:
            assert tally.counts[f"{outcome} ({funding})"] > 0, str(tally)


class Wire:
    """An adapter whose client gets its answers from here: all of the real decoding, and no network."""

    def __init__(self) -> None:
        self.body = b""
        self.status = 200
        credentials = Credentials("k" * 64, "s" * 64, "the test")
        self.adapter = IsolatedMarginAdapter(credentials)
        client = self.adapter._client
        client.enableRateLimit = False
        client.session = SimpleNamespace(request=self._respond, cookies={}, headers={})

    def _respond(self, *_args: Any, **_kwargs: Any) -> requests.Response:
        response = requests.Response()
        response.status_code, response.reason = self.status, "OK"
        response._content = self.body
        response.url = "http://127.0.0.1/"
        return response

    def rows(self, body: bytes, status: int) -> Mapping[str, Any]:
        """Return the rows that the adapter makes of an answer."""
        self.body, self.status = body, status
        self.adapter._budget = adapter_module._Budget(adapter_module.WEIGHT_LIMIT)
        return self.adapter.fetch().rows


def test_no_text_outside_of_the_documented_shape_allows_an_entry() -> None:
    """The bytes of an answer, mutated, through ccxt's decoding and the adapter."""
    _texts(Wire())
    saw_everything(BYTES)


@campaign(1200, 50_000)
@given(
    rnd=RANDOMS,
    changes=st.integers(0, 4),
    status=st.sampled_from([200] * 12 + [204, 400, 401, 404, 418, 429, 500, 503]),
)
def _texts(wire: Wire, rnd: Random, changes: int, status: int) -> None:
    answer: Any = good_answer(rnd)
    if rnd.random() < 0.5:
        answer = mutate(rnd, answer)
    body = json.dumps(answer, ensure_ascii=rnd.random() < 0.5).encode(errors="surrogatepass")
    for _ in range(changes):
        body = mutate_bytes(rnd, body)
    BYTES("cases")
    rows: Mapping[str, Any] = {}
    try:
        rows = wire.rows(body, status)
    except IsolatedMarginError as error:
        BYTES(f"{error.kind} error")
    documented = documented_rows(strictly_decoded(body)) or {}
    judge(rows, documented if rows else {}, BYTES)


# ----- random events

PAIRS = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT", "ADA/USDT", "FET/USDT", "DOGE/USDT")
MAX_AGE, REFRESH = 60.0, 10.0
WISH, LARGE_WISH, MINIMUM, MOST = 80.0, 5000.0, 5.0, 10_000.0
# How long an order may be on its way into the account, and how long an absent account stays known.
ON_ITS_WAY, ABSENT_KNOWN = 5.0, 3600.0


class Clock:
    """Both clocks, moved by hand."""

    def __init__(self) -> None:
        self.monotonic, self.wall = 5000.0, 1_800_000_000.0

    def __call__(self) -> Moment:
        """Read them."""
        return Moment(self.monotonic, self.wall)

    now = __call__

    def pass_by(self, seconds: float) -> None:
        """Let time pass on both."""
        self.monotonic += seconds
        self.wall += seconds


class Exchange:
    """An exchange in memory, in the place of the adapter; it notes every answer that it has given."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.rows: dict[str, dict[str, Any]] = {}
        self.fault, self.seed, self.delay = "", 0, 0.0
        self.served: list[tuple[float, bool, Any]] = []
        """When, whether for all accounts, and what."""
        self.asking_since = None

    def load_markets(self, *, reload: bool = False) -> None:
        """Do nothing: the markets are the pairs."""

    def market_ids(self, pairs: list[str]) -> dict[str, str | None]:
        """Look pairs up."""
        return {pair: pair.replace("/", "") if pair in PAIRS else None for pair in pairs}

    def pairs(self) -> dict[str, str]:
        """Look symbols up."""
        return {pair.replace("/", ""): pair for pair in PAIRS}

    def fetch_tiers(self, symbol: str) -> Any:
        """Tell nothing, so that the ratios are the published ones."""
        raise UnavailableError("no tiers here")

    def close(self) -> None:
        """Do nothing."""

    def fetch(self, symbols: list[str] | None = None) -> Any:
        """Answer, or fail, as is the fault of the moment."""
        self.clock.pass_by(self.delay)
        rnd = Random(self.seed)
        self._fail(symbols)
        if symbols is None:
            found = [row for row in self.rows.values() if row["isolatedCreated"]]
        else:
            found = [self.rows[symbol] for symbol in symbols]
        answer: Any = {"assets": copy.deepcopy(found)}
        if self.fault == "mutated":
            for _ in range(1 + self.seed % 3):
                answer = mutate(rnd, answer)
        elif self.fault == "missing row" and answer["assets"]:
            answer["assets"].pop(self.seed % len(answer["assets"]))
        elif self.fault == "doubled row" and answer["assets"]:
            answer["assets"].append(copy.deepcopy(answer["assets"][self.seed % len(answer["assets"])]))
        elif self.fault == "another's rows":
            answer["assets"] = [good_row(rnd, "LTCUSDT")]
        rows = parse_answer(answer, 10)
        self.served.append((self.clock.monotonic, symbols is None, answer))
        return rows

    def _fail(self, symbols: list[str] | None) -> None:
        failures: dict[str, Exception] = {
            "unavailable": UnavailableError("down"),
            "limited": UnavailableError("slow down", status=429, retry_after=30.0),
            "credentials": CredentialsError("refused", code=-2015, status=401),
            "answer": AnswerError("odd"),
            "boom": RuntimeError("a mistake of the package's own"),
            "memory": MemoryError(),
        }
        if self.fault in failures:
            raise failures[self.fault]
        if self.fault == "unknown symbol" and symbols and self.seed % 7 < len(symbols):
            raise UnavailableError("no account", code=-11001, status=400)


FAULTS = (
    *(
        "",
        "",
        "",
        "",
        "",
        "unavailable",
        "limited",
        "credentials",
        "answer",
        "boom",
        "memory",
        "unknown symbol",
    ),
    *("mutated", "mutated", "missing row", "doubled row", "another's rows"),
)


class Driven(Monitor):
    """The real monitor, whose reads begin and end when the campaign says so."""

    def start(self) -> None:
        """Make a worker, and do not let it run."""
        if self._worker is None:
            self._worker = _Worker(self._serve)

    def stop(self, timeout: float = 2.0) -> None:
        """Stop the worker, which has no thread to wait for."""
        worker, self._worker = self._worker, None
        if worker:
            worker.stopped.set()


class Known:
    """The model of what a bot can know: the raw rows of the newest good read, and when it was begun."""

    def __init__(self, clock: Clock, *, borrowed: bool) -> None:
        self.clock = clock
        self.borrowed = borrowed
        self.asked: tuple[float, float] | None = None
        self.found: dict[str, dict[str, Any]] = {}
        self.told: set[str] = set()
        """The pairs whose rows were in that read itself, and are not remembered from one before."""
        self.newest: dict[str, tuple[float, dict[str, Any] | None]] = {}

    def take_in(
        self, asked: tuple[float, float], served: list[tuple[float, bool, Any]], watched: frozenset[str]
    ) -> None:
        """Note a read of the `watched` pairs that has succeeded: `served` is what was answered during it."""
        self.asked, self.found, self.told = asked, {}, set()
        for pair in watched:
            symbol = pair.replace("/", "")
            row = self._row(symbol, served)
            if row is not None:
                self.found[pair] = row
                if any(row["symbol"] == symbol for _, _, answer in served for row in answer["assets"]):
                    self.told.add(pair)

    def mention(self, served: list[tuple[float, bool, Any]]) -> None:
        """Remember when each symbol was last asked for by name and had a documented row."""
        for when, of_all, answer in served:
            rows = documented_rows(answer)
            for symbol in [pair.replace("/", "") for pair in PAIRS]:
                if rows is not None and any(row["symbol"] == symbol for row in answer["assets"]):
                    self.newest[symbol] = (when, None if of_all else rows.get(symbol))

    def _row(self, symbol: str, served: list[tuple[float, bool, Any]]) -> dict[str, Any] | None:
        for _when, _all, answer in served:
            if any(row["symbol"] == symbol for row in answer["assets"]):
                return (documented_rows(answer) or {}).get(symbol)
        # Not in the answer for all accounts: that it has none must have been said by name, not long ago.
        when, row = self.newest.get(symbol, (0.0, None))
        recent = self.clock.monotonic - when <= ABSENT_KNOWN
        return row if served and served[0][1] and row and is_absent(row) and recent else None

    @property
    def is_fresh(self) -> bool:
        """Whether the newest good read is not older than the limit, by both clocks."""
        if self.asked is None:
            return False
        ages = (self.clock.monotonic - self.asked[0], self.clock.wall - self.asked[1])
        return 0 <= max(ages) <= MAX_AGE

    def factor(self, pair: str) -> Fraction:
        """Return what the account of `pair` allows now; 0 without one that is readable and fresh."""
        row = self.found.get(pair)
        return most(row, borrowed=self.borrowed) if row is not None and self.is_fresh else Fraction(0)

    def must_allow(self, pair: str) -> Fraction:
        """Return the factor below which a refusal would be too much: what is not certain may be refused."""
        return self.factor(pair) if pair in self.told and not self.borrowed else Fraction(0)

    def allows(self, pair: str, wish: float, stake: float, side: str, leverage: float) -> bool:
        """Whether the account permits a stake where `wish` was wished for."""
        row = self.found.get(pair)
        if row is None or Fraction(stake) > self.factor(pair) * Fraction(wish) * (1 + STEP):
            return False
        return not self.borrowed or keeps_limits(row, Fraction(stake) * Fraction(leverage), side)


class Base(strategies.Base, IStrategy):
    """What every strategy must have, with candles of a day."""

    timeframe = "1d"


class Silent(IsolatedMarginMixin, Base):
    """Overrides nothing."""


class Deaf(IsolatedMarginMixin, Base):
    """Overrides everything, without super()."""

    def confirm_trade_entry(self, **kwargs: Any) -> bool:
        return True

    def custom_stake_amount(self, proposed_stake: float, **kwargs: Any) -> float:
        return proposed_stake

    def adjust_trade_position(self, trade: Any, **kwargs: Any) -> Any:
        return trade.wish


class Failing(IsolatedMarginMixin, Base):
    """Raises in every callback of its own."""

    def confirm_trade_entry(self, **kwargs: Any) -> bool:
        raise ValueError("mine")

    custom_stake_amount = check_entry_timeout = bot_loop_start = confirm_trade_entry

    def adjust_trade_position(self, trade: Any, **kwargs: Any) -> Any:
        return trade.wish


NOW = datetime.now(UTC)
SIDES = st.sampled_from(("long", "short"))
PAIR = st.sampled_from(PAIRS)
LEVERAGES = st.sampled_from((1.0, 1.0, 3.0))


class Bot(RuleBasedStateMachine):
    """A bot with the real mixin, guard, monitor and reader, on a clock and an exchange of the campaign's."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.exchange = Exchange(self.clock)
        self.pending: tuple[Any, ...] | None = None
        self.undo = pytest.MonkeyPatch()
        self.undo.setattr(guard_module, "Moment", self.clock)
        self.undo.setattr(strategy_module, "build_guard", lambda *_args, **_more: self.guard)
        self.undo.setattr(PairLocks, "use_db", False)
        self.undo.setattr(PairLocks, "timeframe", Base.timeframe)
        PairLocks.reset_locks()
        EVENTS("cases")

    @initialize(
        kind=st.sampled_from((Silent, Deaf, Failing)),
        borrowed=st.booleans(),
        whitelist=st.sets(PAIR, min_size=1),
        seed=st.integers(0, 2**20),
    )
    def begin(self, kind: type, borrowed: bool, whitelist: set[str], seed: int) -> None:
        """Open accounts and start the bot."""
        self.kind, self.borrowed, self.whitelist = kind, borrowed, sorted(whitelist)
        rnd = Random(seed)
        for pair in PAIRS:
            symbol = pair.replace("/", "")
            self.exchange.rows[symbol] = good_row(rnd, symbol)
        self.strategy: Any = None
        self.start()
        if seed % 4:
            self.read()

    def start(self) -> None:
        """Start a strategy as freqtrade does, with a guard of its own."""
        funding = "borrowed" if self.borrowed else "spot"
        exchange, clock = self.exchange, self.clock
        settings = Settings.load({"entry_funding": funding})
        self.monitor = Driven(
            lambda: Reader(exchange, clock),  # type: ignore[arg-type]
            REFRESH,
            borrowed=self.borrowed,
            clock=clock,
        )
        self.guard = Guard(settings, self.monitor)
        self.known = Known(clock, borrowed=self.borrowed)
        self.claimed: dict[str, float] = {}
        self.strategy = self.kind({"runmode": RunMode.DRY_RUN, "dry_run": True, "exchange": {}})
        self.strategy.dp = SimpleNamespace(current_whitelist=lambda: self.whitelist, _exchange=None)
        self.strategy.ft_bot_start()

    # The exchange.

    @rule(pair=PAIR, seed=st.integers(0, 2**20))
    def account_changes(self, pair: str, seed: int) -> None:
        """Put another account, or another price, behind a pair."""
        symbol = pair.replace("/", "")
        self.exchange.rows[symbol] = good_row(Random(seed), symbol)

    @rule(
        fault=st.sampled_from(FAULTS),
        seed=st.integers(0, 2**20),
        delay=st.sampled_from((0.0, 0.0, 1.0, 9.0, 70.0)),
    )
    def fault_begins(self, fault: str, seed: int, delay: float) -> None:
        """Let reads go wrong from now on, or go well again."""
        self.exchange.fault, self.exchange.seed, self.exchange.delay = fault, seed, delay

    # The clocks.

    @rule(seconds=st.sampled_from((0.5, 3.0, 6.0, 10.0, 30.0, 59.0, 60.0, 61.0, 3700.0)))
    def time_passes(self, seconds: float) -> None:
        """Advance both clocks."""
        self.clock.pass_by(seconds)

    @rule(seconds=st.sampled_from((-4000.0, -61.0, -5.0, 5.0, 59.0, 61.0, 4000.0)))
    def wall_clock_is_set(self, seconds: float) -> None:
        """Set the wall clock, or, forwards, wake up from a suspension."""
        self.clock.wall += seconds

    # Reading.

    @rule()
    def read_begins(self) -> None:
        """Ask; what is answered now counts only once it is taken in."""
        worker = self.monitor._worker
        if self.pending is None and worker is not None:
            before = len(self.exchange.served)
            asked = (self.clock.monotonic, self.clock.wall)
            watched = self.monitor._pairs | self.monitor._also
            outcome = self.monitor._read(worker)
            served = self.exchange.served[before:]
            self.known.mention(served)
            self.pending = (self.monitor, self.known, worker, asked, served, watched, outcome)

    @rule()
    def read_ends(self) -> None:
        """Take the answer in, as the reading thread does unless it was stopped meanwhile."""
        if self.pending is None:
            return
        monitor, known, worker, asked, served, watched, outcome = self.pending
        self.pending = None
        if worker.stopped.is_set():
            EVENTS("reads too late")
            return
        assert monitor._note(outcome) >= REFRESH
        good = isinstance(outcome, Snapshot)
        EVENTS("reads good" if good else "reads failed")
        if good:
            known.take_in(asked, served, watched)

    @rule()
    def read(self) -> None:
        """Read at once."""
        self.read_begins()
        self.read_ends()

    # The bot.

    @rule()
    def loop(self) -> None:
        """Begin a loop, and compare the locks with the verdicts."""
        strategy_safe_wrapper(self.strategy.bot_loop_start, supress_error=True)(current_time=NOW)
        held = {lock.pair for lock in PairLocks.locks if lock.active and lock.reason.startswith(LOCK_PREFIX)}
        for pair in self.whitelist:
            if self.known.must_allow(pair):
                assert pair not in held
            # Before the first read it refuses without a lock.
            elif pair in self.known.found and not self.known.factor(pair):
                assert pair in held

    @rule(pairs=st.sets(PAIR, min_size=1))
    def whitelist_changes(self, pairs: set[str]) -> None:
        """Trade other pairs from now on."""
        self.whitelist = sorted(pairs)

    @rule()
    def reload(self) -> None:
        """Do as `/reload_config` does; the former strategy must refuse from now on."""
        former = self.strategy
        former.ft_bot_cleanup()
        assert not self._stake(former, PAIRS[0], "long", WISH, 1.0)
        assert self._confirm(former, PAIRS[0], "long", WISH, 1.0) is False
        self.start()

    def _stake(self, strategy: Any, pair: str, side: str, wish: float, leverage: float) -> float:
        call = {"pair": pair, "current_time": NOW, "current_rate": 50.0, "proposed_stake": wish}
        call |= {
            "min_stake": MINIMUM,
            "max_stake": MOST,
            "leverage": leverage,
            "entry_tag": None,
            "side": side,
        }
        return strategy_safe_wrapper(strategy.custom_stake_amount, default_retval=wish)(**call)

    def _confirm(self, strategy: Any, pair: str, side: str, stake: float, leverage: float) -> bool:
        call = {"pair": pair, "order_type": "limit", "amount": stake * leverage / 50.0, "rate": 50.0}
        call |= {"time_in_force": "GTC", "current_time": NOW, "entry_tag": None, "side": side}
        return strategy_safe_wrapper(strategy.confirm_trade_entry, default_retval=True)(**call)

    def _check_claim(self, pair: str) -> None:
        if self.borrowed:
            # A reading is good for one entry: the next needs one that can have the first in it.
            assert self.known.asked
            last = self.claimed.get(pair)
            assert last is None or self.known.asked[0] >= last + ON_ITS_WAY
            self.claimed[pair] = self.clock.monotonic

    @rule(
        pair=PAIR,
        side=SIDES,
        wish=st.sampled_from((WISH, LARGE_WISH)),
        leverage=LEVERAGES,
        pause=st.sampled_from((0.0, 0.0, 2.0, 61.0)),
    )
    def enter(self, pair: str, side: str, wish: float, leverage: float, pause: float) -> None:
        """Try an entry as freqtrade does: the stake first, and the confirmation some time after."""
        stake = self._stake(self.strategy, pair, side, wish, leverage)
        if stake:
            assert self.known.allows(pair, wish, stake, side, leverage)
            self._check_claim(pair)
        else:
            assert self.known.must_allow(pair) * Fraction(wish) < Fraction(MINIMUM) + STEP
        self.clock.pass_by(pause)
        confirmed = bool(stake) and self._confirm(self.strategy, pair, side, stake, leverage)
        if confirmed:
            assert self.known.factor(pair) > 0
        elif stake:
            assert not self.known.must_allow(pair)
        outcome = "refused" if not confirmed else "in full" if stake == wish else "shrunk"
        EVENTS(f"entries {outcome}")

    @rule(pair=PAIR, side=SIDES, seconds=st.sampled_from((0.0, 1.0, 4.9, 5.0, 9.0)))
    def enter_twice(self, pair: str, side: str, seconds: float) -> None:
        """Try an entry, read again some seconds later, and try another."""
        self.enter(pair, side, WISH, 1.0, 0.0)
        self.enter(pair, side, WISH, 1.0, 0.0)
        self.clock.pass_by(seconds)
        self.read()
        self.enter(pair, side, WISH, 1.0, 0.0)

    @rule(pair=PAIR, side=SIDES)
    def confirm_alone(self, pair: str, side: str) -> None:
        """Ask for a confirmation without a stake before it."""
        if self._confirm(self.strategy, pair, side, 1.0, 1.0):
            assert self.known.factor(pair) > 0

    @rule(pair=PAIR, side=SIDES, wish=st.sampled_from((WISH, (WISH, "dca"), float("inf"), float("nan"))))
    def increase(self, pair: str, side: str, wish: Any) -> None:
        """Try a position increase."""
        if self.kind is Silent:
            return
        amount, _tag = self._adjust(pair, side, wish)
        # As freqtrade asks it, for which a NaN is no increase.
        if amount is not None and amount > 0:
            assert amount <= MOST or self.known.factor(pair) == 1
            if wish in (WISH, (WISH, "dca")):
                assert self.known.allows(pair, WISH, amount, side, 1.0)
            assert self.known.factor(pair) > 0
            self._check_claim(pair)
        EVENTS("increases" if amount else "increases refused")

    def _adjust(self, pair: str, side: str, wish: Any) -> Any:
        trade = SimpleNamespace(pair=pair, wish=wish, leverage=1.0, trade_direction=side)
        names = (
            "current_profit",
            "current_entry_rate",
            "current_exit_rate",
            "current_entry_profit",
            "current_exit_profit",
        )
        call = {"current_time": NOW, "current_rate": 50.0, "min_stake": MINIMUM, "max_stake": MOST}
        return self.strategy._adjust_trade_position_internal(trade=trade, **call, **dict.fromkeys(names, 0.0))

    @rule(pair=PAIR, side=SIDES)
    def open_order_is_checked(self, pair: str, side: str) -> None:
        """Ask, as freqtrade does in each loop, whether an unfilled entry order is to be cancelled."""
        cancelled = self._timed_out(pair, side, "buy")
        if self.known.must_allow(pair):
            assert not cancelled
        elif self.known.asked and not self.known.is_fresh:
            assert cancelled
        EVENTS("orders cancelled" if cancelled else "orders kept")

    def _timed_out(self, pair: str, side: str, order_side: str) -> bool:
        trade = SimpleNamespace(
            pair=pair, entry_side="buy", exit_side="sell", trade_direction=side, leverage=1.0
        )
        order = SimpleNamespace(ft_order_side=order_side, status="open", order_date_utc=datetime.now(UTC))
        return bool(self.strategy.ft_check_timed_out(trade, order, datetime.now(UTC)))

    @rule(pair=PAIR, side=SIDES, wish=st.sampled_from((-10.0, (-10.0, "take profit"), None, 0.0)))
    def exits_are_never_touched(self, pair: str, side: str, wish: Any) -> None:
        """Exits, exit orders and decreases are the strategy's own affair in every state."""
        assert self.strategy.confirm_trade_exit(
            pair=pair, trade=None, order_type="limit", amount=1.0, rate=50.0, time_in_force="GTC",
            exit_reason="x", current_time=NOW,
        ) is True  # fmt: skip
        assert not self._timed_out(pair, side, "sell")
        if self.kind is not Silent:
            expected = wish if isinstance(wish, tuple) else (wish, "")
            assert self._adjust(pair, side, wish) == expected
        EVENTS("exits")

    @invariant()
    def nothing_is_known_without_a_fresh_read(self) -> None:
        """No pair's account is handed out that is not readable and fresh."""
        if self.strategy is None:
            return
        for pair in PAIRS:
            account = self.strategy.margin_account(pair)
            if account is not None:
                assert self.known.is_fresh
                assert account.index_price == Decimal(self.known.found[pair]["indexPrice"])

    def teardown(self) -> None:
        """Take back what was put in place."""
        self.undo.undo()
        PairLocks.locks = []


def test_no_sequence_of_events_lets_an_entry_past_the_model() -> None:
    """Whatever happens in whatever order, an entry needs a readable account that is fresh and allows it."""
    run_state_machine_as_test(Bot, settings=campaign(150, 4000, stateful_step_count=40))
